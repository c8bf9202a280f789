# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import read_rate
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20


@pytest.fixture
def weights(tmp_path):
    """A folder with files of 1 KiB to 20 MiB and a half sector, the largest deep below."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "small").write_bytes(b"1" * 1024)
    (tmp_path / "deep" / "large").write_bytes(b"2" * (20 * MIB + 2048))
    return tmp_path


@pytest.mark.parametrize("name", ["", "deep/large"])
def test_the_largest_file_is_read_to_its_end(weights, name):
    found = read_rate.measure(str(weights / name), 256 * MIB, 60)
    assert found["file"] == str(weights / "deep" / "large")
    assert found["path"] == str(weights / name)
    assert found["bytes"] == 20 * MIB + 2048
    assert found["seconds"] > 0 and found["bytes_per_s"] > 0
    assert found["how"] in ("direct", "buffered") and found["reason"] == ""


def test_no_more_is_read_than_asked_for_but_for_a_sector(weights):
    assert read_rate.measure(str(weights), 9 * MIB, 60)["bytes"] == 9 * MIB
    assert read_rate.measure(str(weights), 5000, 60)["bytes"] == 8192


def test_reading_ends_when_its_time_is_over(weights):
    ticks = iter(range(100))
    handle = os.open(weights / "deep" / "large", os.O_RDONLY)
    try:
        assert read_rate._timed(handle, 256 * MIB, 2, lambda: next(ticks)) == (8 * MIB, 3)
    finally:
        os.close(handle)


def test_a_file_system_without_direct_reading(weights, monkeypatch):
    def refuse(*_arguments):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(read_rate, "_direct", refuse)
    dropped = []
    monkeypatch.setattr(read_rate.os, "posix_fadvise", lambda *arguments: dropped.append(arguments[3]))
    found = read_rate.measure(str(weights), MIB, 60)
    assert (found["how"], found["bytes"]) == ("buffered", MIB)
    assert dropped == [os.POSIX_FADV_DONTNEED] * 2


def test_where_no_file_is(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "none", "empty", "pipe", "a\0b"):
        found = read_rate.measure(str(tmp_path / name) if name else str(tmp_path), MIB, 1)
        assert (found["bytes_per_s"], found["file"]) == (None, "")
        assert found["reason"] == "there is no file with content there"


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "large").write_bytes(b"1" * 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "small").write_bytes(b"1")
    (tmp_path / "folder" / "link").symlink_to("../outside")
    (tmp_path / "folder" / "file").symlink_to("../outside/large")
    assert read_rate.largest_file(str(tmp_path / "folder")) == str(tmp_path / "folder" / "small")


def test_only_so_many_entries_are_looked_at(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}").write_bytes(b"1" * (number + 1))
    assert os.path.getsize(read_rate.largest_file(str(tmp_path), 6)) == 6
    assert read_rate.largest_file(str(tmp_path), 0) == ""


@pytest.mark.parametrize(("most", "seconds"), [(0, 1.0), (-5, 1.0), (5, 0.0), (5, -1.0)])
def test_nothing_to_read(weights, most, seconds):
    assert read_rate.measure(str(weights), most, seconds)["reason"] == "bytes and seconds must be more than 0"


def test_a_file_that_cannot_be_read(weights, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(read_rate.os, "open", refuse)
    found = read_rate.measure(str(weights), MIB, 1)
    assert found["bytes_per_s"] is None
    assert found["reason"] == f"{weights}/deep/large cannot be read: Permission denied"


def test_a_disk_that_hangs(weights, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(read_rate, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(read_rate, "_read", lambda *_arguments: held.wait() and ("direct", 0, 0.0))
    try:
        found = read_rate.measure(str(weights), MIB, 0.1)
        assert found["bytes_per_s"] is None
        assert found["reason"] == "reading there did not end within 0.2 s"
    finally:
        held.set()


def test_a_name_that_is_no_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff", "wb") as stream:
        stream.write(b"x" * 10)
    found = read_rate.measure(str(tmp_path), MIB, 60)
    assert found["bytes"] == 10
    assert found["file"] == f"{tmp_path}/?"


@given(size=st.integers(1, 50_000), most=st.integers(1, 60_000))
def test_any_size(tmp_path, size, most):
    (tmp_path / "file").write_bytes(b"x" * size)
    read = read_rate.measure(str(tmp_path / "file"), most, 60)["bytes"]
    assert min(size, most) <= read <= min(size, most + 4095)
