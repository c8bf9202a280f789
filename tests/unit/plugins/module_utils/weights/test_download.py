# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import stat

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import download, hashing, sources
from ansible_collections.baremetal.llm.plugins.module_utils.weights.progress import Progress
from ansible_collections.baremetal.llm.tests.testbed import hubs
from hypothesis import given, settings
from hypothesis import strategies as st

NAME = "model.safetensors"
CONTENT = bytes(range(256)) * 300
ENTRY = {"path": NAME, "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
PIECE = 1 << 14


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(name="hub_server")
def fixture_hub_server():
    with hubs.start("https", {NAME: CONTENT, "empty.txt": b""}, name="base") as server:
        yield server


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "partial"


def get(server, partial, entry=None, **options):
    """Complete ``partial``; every error is tried again twice, and nothing really waits."""
    hub = sources.open_source(
        sources.parse(f"{server.url}/models/base/"), retries=2, timeout=5.0, sleep=lambda _seconds: None
    )
    options = {"retries": 2, "sleep": lambda _seconds: None, "piece": PIECE, **options}
    return download.fetch_file(hub, entry or ENTRY, str(partial), **options)


def ranges(server):
    return [request.headers.get("Range", "") for request in server.requests]


def is_right(found, partial, tmp_path):
    (tmp_path / "straight").write_bytes(CONTENT)
    return partial.read_bytes() == CONTENT and found == hashing.digest_file(str(tmp_path / "straight"), piece=PIECE)


def test_a_whole_file(hub_server, partial, tmp_path):
    assert is_right(get(hub_server, partial), partial, tmp_path)
    assert ranges(hub_server) == [""]
    assert stat.S_IMODE(partial.stat().st_mode) == 0o600


@pytest.mark.parametrize("there", [1, 16_384, 16_385, len(CONTENT) - 1])
def test_what_is_there_is_not_brought_again(hub_server, partial, tmp_path, there):
    partial.write_bytes(CONTENT[:there])
    progress = Progress("", "fetching", len(CONTENT))
    assert is_right(get(hub_server, partial, progress=progress), partial, tmp_path)
    assert ranges(hub_server) == [f"bytes={there}-"]
    assert progress.done == len(CONTENT)


def test_a_whole_partial_needs_no_server(hub_server, partial, tmp_path):
    partial.write_bytes(CONTENT)
    assert is_right(get(hub_server, partial), partial, tmp_path)
    assert hub_server.requests == []


@pytest.mark.parametrize("wrong", [b"x", b"x" * (len(CONTENT) - 1), b"x" * len(CONTENT), CONTENT + b"x"])
def test_a_wrong_partial_is_begun_anew(hub_server, partial, tmp_path, wrong):
    partial.write_bytes(wrong)
    progress = Progress("", "fetching", len(CONTENT))
    assert is_right(get(hub_server, partial, progress=progress), partial, tmp_path)
    assert progress.done == len(CONTENT)


def test_a_partial_that_is_a_link_is_not_written_through(hub_server, partial, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    partial.symlink_to(victim)
    with pytest.raises(OSError):
        get(hub_server, partial)
    assert victim.read_bytes() == b"precious"


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, len(CONTENT) - 1), max_size=2))
def test_cut_connections_are_gone_on_with(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("cuts")
    faults = [hubs.Fault(NAME, cut=cut) for cut in cuts]
    with hubs.start("https", {NAME: CONTENT}, faults, name="base") as server:
        found = get(server, folder / "partial")
    assert is_right(found, folder / "partial", folder)
    reached = 0
    for asked in ranges(server):
        assert asked == (f"bytes={reached}-" if reached else "")
        reached += cuts[0] if cuts else 0
        cuts = cuts[1:]
        if reached > len(CONTENT):
            return


def test_connections_that_are_cut_for_ever_are_given_up(hub_server, partial):
    hub_server.faults.append(hubs.Fault(NAME, times=None, cut=100))
    waited = []
    with pytest.raises(LlmError, match="cannot be had") as caught:
        get(hub_server, partial, sleep=waited.append)
    assert caught.value.wanted == f"{len(CONTENT)} bytes"
    assert caught.value.found.startswith("300 bytes")
    assert caught.value.remedy
    assert waited == [1.0, 2.0]
    assert partial.read_bytes() == CONTENT[:300], "the next run goes on from there"


def test_a_connection_that_was_worth_it_does_not_count(hub_server, partial, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WORTH_BYTES", 100)
    hub_server.faults.append(hubs.Fault(NAME, times=20, cut=3000))
    assert is_right(get(hub_server, partial), partial, tmp_path)
    assert len(hub_server.requests) == 21


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 500}, {"status": 503, "headers": {"Retry-After": "7"}}])
def test_a_server_that_is_busy_is_asked_again(hub_server, partial, tmp_path, fault):
    hub_server.faults.append(hubs.Fault(NAME, times=2, **fault))
    assert is_right(get(hub_server, partial), partial, tmp_path)
    hub_server.faults.append(hubs.Fault(NAME, times=None, **fault))
    partial.write_bytes(CONTENT[:5])
    with pytest.raises(LlmError) as caught:
        get(hub_server, partial)
    assert str(fault["status"]) in caught.value.found
    assert partial.read_bytes() == CONTENT[:5]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_is_not_asked_again(hub_server, partial, status):
    hub_server.faults.append(hubs.Fault(NAME, times=None, status=status))
    partial.write_bytes(CONTENT[:5])
    with pytest.raises(LlmError) as caught:
        get(hub_server, partial)
    assert str(status) in caught.value.found
    assert caught.value.remedy
    assert len(hub_server.requests) == 1


def test_a_server_that_ignores_ranges(hub_server, partial, tmp_path):
    hub_server.faults.append(hubs.Fault(NAME, times=None, whole=True))
    partial.write_bytes(b"x" * 500)
    progress = Progress("", "fetching", len(CONTENT))
    assert is_right(get(hub_server, partial, progress=progress), partial, tmp_path)
    assert len(hub_server.requests) == 1
    assert progress.done == len(CONTENT)


@pytest.mark.parametrize("shift", [-3, 5])
def test_a_server_that_gives_another_part(hub_server, partial, tmp_path, shift):
    hub_server.faults.append(hubs.Fault(NAME, times=None, shift=shift))
    partial.write_bytes(CONTENT[:500])
    assert is_right(get(hub_server, partial), partial, tmp_path)
    assert ranges(hub_server) == ["bytes=500-", ""]


def test_a_server_that_claims_the_range_is_beyond_the_end(hub_server, partial, tmp_path):
    hub_server.faults.append(hubs.Fault(NAME, times=1, status=416, body=b""))
    partial.write_bytes(CONTENT[:500])
    assert is_right(get(hub_server, partial), partial, tmp_path)
    assert ranges(hub_server) == ["bytes=500-", ""]


@pytest.mark.parametrize("wrong", [b"", CONTENT[:-1], CONTENT + b"x"])
def test_a_file_of_another_length_is_refused_at_once(hub_server, partial, wrong):
    hub_server.faults.append(hubs.Fault(NAME, times=None, body=wrong))
    with pytest.raises(LlmError, match="not as locked") as caught:
        get(hub_server, partial)
    assert caught.value.wanted == f"{len(CONTENT)} bytes"
    assert caught.value.found == f"{len(wrong)} bytes"
    assert partial.read_bytes() == b""


def test_a_server_that_announces_more_than_it_has(hub_server, partial):
    hub_server.faults.append(hubs.Fault(NAME, times=None, announce=len(CONTENT) + 1))
    with pytest.raises(LlmError):
        get(hub_server, partial)
    assert len(hub_server.requests) == 1


def test_more_than_was_announced_is_not_read_without_end(partial):
    class Endless:
        offset, total = 0, None

        def read(self, size):
            return b"x" * size

    class Hub(sources.Hub):
        def stream(self, _path, _offset=0):
            return Opened(Endless())

    hub = Hub(sources.parse("https://host/base/"), None)
    with pytest.raises(LlmError, match="not as locked") as caught:
        download.fetch_file(hub, ENTRY, str(partial))
    assert caught.value.found == f"more than {len(CONTENT)} bytes"
    assert partial.stat().st_size == 0


class Opened:
    """A context manager as Hub.stream gives it."""

    def __init__(self, answer):
        self.answer = answer

    def __enter__(self):
        return self.answer

    def __exit__(self, *_error):
        return None


def test_a_trickle_is_a_cut_connection(partial, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(download.time, "monotonic", lambda: clock[0])

    class Trickle:
        total = len(CONTENT)

        def __init__(self, offset):
            self.offset = offset
            self.at = offset

        def read(self, _size):
            clock[0] += 29
            self.at += 1
            return CONTENT[self.at - 1 : self.at]

    class Hub(sources.Hub):
        def stream(self, _path, offset=0):
            return Opened(Trickle(offset))

    with pytest.raises(LlmError, match="cannot be had") as caught:
        download.fetch_file(
            Hub(sources.parse("https://host/base/"), None), ENTRY, str(partial), retries=2, sleep=lambda _seconds: None
        )
    assert "300 s" in caught.value.found
    assert partial.read_bytes() == CONTENT[:30]


def test_wrong_bytes_are_got_anew_once(hub_server, partial, tmp_path):
    hub_server.faults.append(hubs.Fault(NAME, times=1, content=lambda content: b"y" + content[1:]))
    assert is_right(get(hub_server, partial), partial, tmp_path)
    assert ranges(hub_server) == ["", ""]


def test_a_source_with_wrong_bytes(hub_server, partial):
    wrong = b"y" + CONTENT[1:]
    hub_server.faults.append(hubs.Fault(NAME, times=None, body=wrong))
    with pytest.raises(LlmError, match="damaged at the source") as caught:
        get(hub_server, partial)
    assert NAME in caught.value.summary
    assert ENTRY["sha256"] in caught.value.wanted
    assert hashlib.sha256(wrong).hexdigest() in caught.value.found
    assert caught.value.remedy
    assert partial.read_bytes() == b"", "nothing wrong is left to be taken up"
    assert len(hub_server.requests) == 2


def test_an_empty_file(hub_server, partial):
    entry = {"path": "empty.txt", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    assert get(hub_server, partial, entry) == hashing.Digest(entry["sha256"], 0, "", b"")
    with pytest.raises(LlmError, match="damaged"):
        get(hub_server, partial, dict(entry, sha256="0" * 64))
    assert partial.stat().st_size == 0


def test_a_folder_is_read_in_the_same_way(partial, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / NAME).write_bytes(CONTENT)
    partial.write_bytes(CONTENT[:7])
    hub = sources.open_source(sources.parse(str(tmp_path / "disk")))
    assert download.fetch_file(hub, ENTRY, str(partial)).sha256 == ENTRY["sha256"]
    assert partial.read_bytes() == CONTENT


def test_writes_that_take_only_a_part_are_gone_on_with(hub_server, partial, tmp_path, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(download.os, "write", lambda file, block: write(file, bytes(block[:999])))
        found = get(hub_server, partial)
    assert is_right(found, partial, tmp_path)
