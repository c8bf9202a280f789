# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The worker's conclusions, with rsync itself replaced: what a transfer brings is written by the test."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import hashing, lockfile, tree
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import rsync_pull, rsync_sources, status
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share.rsync_worker import Worker

CONTENT = {"config.json": b'{"a": 1}', "empty": b"", "sub/shard": bytes(range(256)) * 4000}
PIECE = 256 << 10
CHAIN = [{"host": f"n{number}", "address": f"10.0.0.{number}"} for number in range(1, 4)]


class Idle:
    """A daemon that nobody asks."""

    def ended(self):
        return False

    def look(self):
        return {}, set()


@pytest.fixture(name="worker")
def fixture_worker(tmp_path, monkeypatch):
    """Return a worker of the second host of three, with nothing on its disk yet, and its transfers in its hands."""
    files = []
    for path, data in CONTENT.items():
        full = tmp_path / "published" / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data)
        digest = hashing.digest_file(str(full), piece=PIECE)
        files.append({"path": path, "size": digest.size, "sha256": digest.sha256, "merkle": digest.merkle})
    dest = tmp_path / "model"
    Path(tree.aside(str(dest), "share"), "rsync-0").mkdir(parents=True)
    spec = {"dest": str(dest), "lock": lockfile.check({"files": files}), "address": "10.0.0.2", "port": 36900}
    worker = Worker({**spec, "chain": CHAIN, "owner": [-1, -1], "rate_limit": 0, "processes": 1})
    worker.daemon = Idle()
    monkeypatch.setattr(rsync_pull, "pull", lambda wish, tick: pytest.fail("nothing was to be taken"))
    with ThreadPoolExecutor(1) as worker.provers:
        yield worker


def placed(worker: Worker) -> dict[str, bytes]:
    return {entry.path: Path(worker.dest, entry.path).read_bytes() for entry in tree.walk(worker.dest)}


def lay(worker: Worker, where: str, path: str, data: bytes) -> None:
    full = Path(where, path)
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_bytes(data)


def brings(monkeypatch, worker: Worker, data: bytes, kind: str = rsync_pull.OK) -> list[rsync_pull.Wish]:
    """Let the next transfers bring ``data`` for each file, and return what they were asked for."""
    wishes = []

    def pull(wish, tick):
        wishes.append(wish)
        for path in wish.paths:
            lay(worker, wish.folder, path, data)
        tick()
        return rsync_pull.Result(kind, len(data), "words")

    monkeypatch.setattr(rsync_pull, "pull", pull)
    return wishes


def take(worker: Worker, address: str = "10.0.0.1", path: str = "sub/shard") -> None:
    """Take a file and wait until it is judged."""
    worker._take(rsync_sources.Next(address, (path,)))
    for _host, proof in worker.proving.values():
        proof.exception(10)
    worker._collect()


def test_what_is_here_is_held_and_empty_files_are_made(worker):
    lay(worker, worker.dest, "config.json", CONTENT["config.json"])
    worker._look()
    assert worker.missing() == ["sub/shard"]
    assert placed(worker) == {"config.json": CONTENT["config.json"], "empty": b""}
    assert worker.state["bytes_resumed"] == len(CONTENT["config.json"])


def test_of_a_damaged_file_a_copy_is_compared_and_of_a_shorter_one_nothing_is_copied(worker):
    damaged = b"x" + CONTENT["sub/shard"][1:]
    lay(worker, worker.dest, "sub/shard", damaged)
    lay(worker, worker.dest, "config.json", b"{}")
    worker._look()
    assert Path(worker.incoming, "sub/shard").read_bytes() == damaged
    assert worker._compares("sub/shard") and not worker._compares("config.json")
    assert placed(worker)["sub/shard"] == damaged, "what the engine reads is left alone until it is right"
    assert worker.state["bytes_resumed"] == 0


def test_what_lacks_room_is_told_before_the_first_byte(worker, monkeypatch):
    space = os.statvfs("/")
    full = os.statvfs_result((*space[:4], 0, *space[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(LlmError, match="no space for the weights") as caught:
        worker._look()
    assert caught.value.found.startswith("0 bytes free")


def test_a_right_file_is_put_in_place_and_passed_on(worker, monkeypatch):
    worker._look()
    wishes = brings(monkeypatch, worker, CONTENT["sub/shard"])
    take(worker)
    assert placed(worker)["sub/shard"] == CONTENT["sub/shard"]
    assert wishes[0].url == "rsync://10.0.0.1:36900/weights/" and wishes[0].most == len(CONTENT["sub/shard"])
    worker._publish(False)
    note = rsync_sources.decode(Path(worker.folder, "note", "note.json").read_text(encoding="utf-8"))
    assert note.files == {"empty", "sub/shard"}
    assert not os.path.exists(os.path.join(worker.incoming, "sub/shard"))


def test_wrong_bytes_are_never_put_in_place_and_their_source_is_left(worker, monkeypatch):
    worker._look()
    wrong = b"x" + CONTENT["sub/shard"][1:]
    wishes = brings(monkeypatch, worker, wrong)
    take(worker, "10.0.0.1")
    assert worker.sources.wrong_from("sub/shard") == ["10.0.0.1"]
    assert worker.state["state"] == "checking" and "sub/shard" not in placed(worker)
    take(worker, "10.0.0.3")
    assert [wish.compare for wish in wishes] == [False, True], "the next source corrects what there is"
    assert not os.path.exists(os.path.join(worker.incoming, "sub/shard")), "then it is taken from the beginning"


def test_a_file_that_is_short_at_its_source_is_wrong_there(worker, monkeypatch):
    worker._look()
    brings(monkeypatch, worker, b"short")
    take(worker)
    assert worker.sources.banned("10.0.0.1") and not worker.proving


def test_one_that_sends_too_much_is_left(worker, monkeypatch):
    worker._look()
    brings(monkeypatch, worker, CONTENT["sub/shard"], rsync_pull.TOO_LONG)
    take(worker)
    assert worker.sources.banned("10.0.0.1") and "sub/shard" not in placed(worker)


def test_a_transfer_that_is_cut_off_is_nobodys_fault_and_gone_on_with(worker, monkeypatch):
    worker._look()
    wishes = brings(monkeypatch, worker, CONTENT["sub/shard"][:1000], rsync_pull.CUT)
    take(worker)
    take(worker)
    assert not worker.sources.banned("10.0.0.1")
    assert [wish.there for wish in wishes] == [0, 1000] and not wishes[1].compare
    assert worker._done() == 1000


@pytest.mark.parametrize("kind", [rsync_pull.SPACE, rsync_pull.LOCAL])
def test_a_disk_that_takes_no_more_ends_the_worker(worker, monkeypatch, kind):
    worker._look()
    brings(monkeypatch, worker, b"part", kind)
    with pytest.raises(LlmError, match="cannot be written: words") as caught:
        take(worker)
    left = sum(len(data) for data in CONTENT.values()) - len(b"part")
    assert caught.value.wanted == f"room for {left} more bytes" and "bytes free on" in caught.value.found


def test_a_file_that_is_wrong_everywhere_fails_when_all_else_is_done(worker):
    worker._look()
    long_ago = time.monotonic() - rsync_sources.LOST_S - rsync_sources.START_S
    worker.sources = rsync_sources.Sources(["10.0.0.1", "10.0.0.3"], 1, long_ago)
    worker.sources.wrong("10.0.0.1", "sub/shard", long_ago)
    worker._turn()
    worker.held.add("config.json")
    with pytest.raises(LlmError, match="sub/shard is not what the lock says on any host") as caught:
        worker._turn()
    assert "something else on n1" in caught.value.found


def test_a_lock_that_contradicts_itself_is_told(worker, monkeypatch):
    worker._look()
    worker.entries["sub/shard"] = {**worker.entries["sub/shard"], "merkle": "0" * 64}
    brings(monkeypatch, worker, CONTENT["sub/shard"])
    with pytest.raises(LlmError, match="contradicts itself on sub/shard"):
        take(worker)
    assert "sub/shard" not in placed(worker)


def test_the_status_says_who_brought_what(worker, monkeypatch):
    worker._look()
    brings(monkeypatch, worker, CONTENT["sub/shard"])
    take(worker)
    worker._report()
    state = status.read_workers(worker.dest)
    size = len(CONTENT["sub/shard"])
    assert (state["bytes_received"], state["bytes_done"]) == (size, size)
    assert [(peer["host"], peer["received"], peer["asking"]) for peer in state["peers"]] == [("n1", size, False)]


def test_an_error_is_left_in_the_status(worker):
    worker.fail(LlmError("one", wanted="two", found="three", remedy="four"))
    state = status.read_workers(worker.dest)
    assert state["state"] == "failed"
    assert state["error"] == {"msg": "one", "wanted": "two", "found": "three", "remedy": "four"}
