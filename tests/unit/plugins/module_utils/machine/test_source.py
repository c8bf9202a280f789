# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import source as module
from hypothesis import given
from hypothesis import strategies as st


def test_a_file_is_read_under_the_root(source, fake):
    fake("/proc/some", "one\ntwo\n")
    assert source.text("/proc/some") == "one\ntwo\n"
    assert source.attribute("/proc/some") == "one\ntwo"
    assert source.problems == []


def test_a_file_that_is_not_there(source):
    assert source.attribute("/sys/none") == source.head("/sys/none", 10) == ""
    assert source.problems == []
    assert source.text("/proc/none") == ""
    assert source.problems == ["/proc/none cannot be read: No such file or directory"]


def test_a_long_file_is_cut_at_a_line_and_said_to_be(source, fake):
    fake("/proc/long", "total: 12\ntotal: 3456\n")
    assert source.text("/proc/long", 18) == "total: 12\n"
    assert source.problems == ["/proc/long is longer than 18 bytes; the rest was not looked at"]
    assert source.head("/proc/long", 18) == "total: 12\n"
    assert source.head("/proc/long", 5) == ""
    assert source.text("/proc/long", 22) == "total: 12\ntotal: 3456\n"
    assert len(source.problems) == 1


def test_a_folder_or_a_named_pipe_in_the_place_of_a_file(source, fake, tmp_path):
    fake("/sys/folder/file", "x")
    os.mkfifo(tmp_path / "pipe")
    assert source.attribute("/sys/folder") == ""
    assert source.attribute("/pipe") == ""


def test_names_links_and_what_is_there(source, fake, tmp_path):
    fake("/sys/b", "x")
    fake("/sys/a", tmp_path / "drivers" / "mlx5_core")
    assert source.names("/sys") == ["a", "b"]
    assert source.names("/none") == []
    assert (source.link("/sys/a"), source.link("/sys/b")) == ("mlx5_core", "")
    assert source.exists("/sys/b") and not source.exists("/sys/c")


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_0", " 1", "1\n", "0x1", "1.0", "\u0661", "\u00b2", "9" * 21])
def test_what_is_no_number(text):
    assert module.number(text) is None


@given(st.integers(0, 2**64 - 1))
def test_numbers(value):
    assert module.number(str(value)) == value


def test_a_call_that_hangs_does_not_hold_the_others():
    held = threading.Event()
    try:
        answers = module.in_time({"hangs": held.wait, "answers": lambda: 5}, 0.2)
        assert answers == {"answers": 5}
    finally:
        held.set()


def test_a_host_that_lets_no_thread_start(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.threading.Thread, "start", refuse)
    assert module.in_time({"call": int}, 60) == {}


def test_no_calls_take_no_time():
    assert module.in_time({}, 60) == {}


@pytest.mark.parametrize("error", [OSError("x"), ValueError("x"), IndexError("x"), OverflowError("x")])
def test_a_part_that_fails_is_empty_and_a_problem(source, error):
    def read():
        raise error

    assert source.part("thing", read, []) == []
    assert source.problems == ["thing of this host cannot be understood: x"]


@given(raw=st.binary(max_size=200), limit=st.integers(0, 100))
def test_only_whole_lines_are_kept_of_what_is_cut(source, tmp_path, raw, limit):
    (tmp_path / "file").write_bytes(raw)
    text = source.head("/file", limit)
    kept = raw if len(raw) <= limit else raw[: raw[:limit].rfind(b"\n") + 1]
    assert text == kept.decode("utf-8", "replace")
