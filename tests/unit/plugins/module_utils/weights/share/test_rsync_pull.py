# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import rsync_pull
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share.rsync_pull import Wish

# Words of rsync 3.5.0 and, without the side, of 3.1.3.
MISSING = 'rsync: [sender] link_stat "/nope" (in weights) failed: No such file or directory (2)\n'
OLD_MISSING = 'rsync: link_stat "/nope" (in weights) failed: No such file or directory (2)\n'
FULL = 'rsync: [receiver] write failed on "/w/a": No space left on device (28)\n'
FORBIDDEN = 'rsync: [generator] recv_generator: mkdir "/w" failed: Permission denied (13)\n'


def wish(tmp_path, **changes) -> Wish:
    plain = {
        "url": "rsync://10.0.0.1:36900/weights/",
        "own": "10.0.0.2",
        "folder": str(tmp_path / "incoming"),
        "paths": ["a"],
        "listing": str(tmp_path / "wanted"),
        "compare": False,
        "most": 1000,
        "there": 0,
        "rate": 0,
    }
    return Wish(**{**plain, **changes})


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (23, MISSING, rsync_pull.ABSENT),
        (23, OLD_MISSING, rsync_pull.ABSENT),
        (24, "rsync warning: some files vanished before they could be transferred (code 24)", rsync_pull.ABSENT),
        (11, FULL, rsync_pull.SPACE),
        (12, 'rsync: [receiver] write failed on "/w/a": Disk quota exceeded (122)', rsync_pull.SPACE),
        (23, FORBIDDEN, rsync_pull.LOCAL),
        (11, "rsync error: error in file IO (code 11)", rsync_pull.LOCAL),
        (5, "@ERROR: max connections (8) reached -- try again later", rsync_pull.BUSY),
        (5, "@ERROR: Unknown module 'weights'", rsync_pull.REFUSED),
        (10, "rsync: [Receiver] failed to connect to 10.0.0.1: Connection refused (111)", rsync_pull.CUT),
        (12, "rsync: connection unexpectedly closed (0 bytes received so far) [receiver]", rsync_pull.CUT),
        (30, "rsync error: timeout in data send/receive (code 30)", rsync_pull.CUT),
        (35, "rsync error: timeout waiting for daemon connection (code 35)", rsync_pull.CUT),
        (11, 'rsync: [receiver] write failed on "/w/a": File too large (27)', rsync_pull.TOO_LONG),
        (-25, "", rsync_pull.TOO_LONG),
        (-9, "", rsync_pull.CUT),
    ],
)
def test_what_went_wrong_is_told_apart(code, said, kind):
    assert rsync_pull.classify(code, said) == kind


def test_the_command_writes_no_pattern_and_follows_nothing(tmp_path):
    words = rsync_pull.argv(wish(tmp_path))
    assert words[-2:] == ["rsync://10.0.0.1:36900/weights/", str(tmp_path / "incoming") + "/"]
    assert {"--from0", "--inplace", "--append-verify", "--address=10.0.0.2"} <= set(words)
    assert not {"--recursive", "--links", "--copy-links", "--devices", "--delete"} & set(words)


@pytest.mark.parametrize(("address", "host"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")])
def test_a_url_of_either_family(address, host):
    assert rsync_pull.url(address, 36900, "weights") == f"rsync://{host}:36900/weights/"


def test_what_is_there_already_is_compared_or_gone_on_with(tmp_path):
    compare = rsync_pull.argv(wish(tmp_path, compare=True))
    assert {"--no-whole-file", "--ignore-times"} <= set(compare) and "--append-verify" not in compare


@pytest.mark.parametrize(("rate", "word"), [(0, ""), (1, "--bwlimit=1"), (10 << 20, "--bwlimit=10240")])
def test_the_limit_of_the_rate_is_passed_on(tmp_path, rate, word):
    words = rsync_pull.argv(wish(tmp_path, rate=rate))
    assert [found for found in words if found.startswith("--bwlimit")] == ([word] if word else [])


def test_a_long_comparison_is_not_taken_for_silence(tmp_path):
    there = 60 * rsync_pull.READ_RATE
    assert f"--timeout={rsync_pull.SILENT_S + 60}" in rsync_pull.argv(wish(tmp_path, there=there))


def test_names_cannot_be_comments_nor_patterns():
    assert rsync_pull.names(["#a", ";b", "c [1]*", "d/\u00e9"]) == b"./#a\0./;b\0./c [1]*\0./d/\xc3\xa9\0"


def test_a_program_that_runs_on_is_ended_when_told(tmp_path, monkeypatch):
    monkeypatch.setattr(rsync_pull, "argv", lambda wish: [sys.executable, "-c", "import time; time.sleep(600)"])
    result = rsync_pull.pull(wish(tmp_path), lambda: True)
    assert result == (rsync_pull.STOPPED, None, "")


def test_the_words_and_the_bytes_are_returned(tmp_path, monkeypatch):
    script = "print('Total bytes received: 1234'); print('rsync error: some'); print('@ERROR: last'); exit(12)"
    monkeypatch.setattr(rsync_pull, "argv", lambda wish: [sys.executable, "-c", script])
    result = rsync_pull.pull(wish(tmp_path), lambda: False)
    assert result == (rsync_pull.CUT, 1234, "rsync error: some; @ERROR: last")


def test_no_file_grows_beyond_what_the_lock_says(tmp_path, monkeypatch):
    target = tmp_path / "big"
    # rsync takes its limits over before it opens a file; this writes after the same time.
    script = f"""import time
time.sleep(0.5)
with open({str(target)!r}, "wb", 0) as out:
    while True:
        out.write(bytes(600))
"""
    monkeypatch.setattr(rsync_pull, "argv", lambda wish: [sys.executable, "-c", script])
    result = rsync_pull.pull(wish(tmp_path, most=1000), lambda: False)
    assert result.kind == rsync_pull.TOO_LONG
    assert os.path.getsize(target) == 1000
