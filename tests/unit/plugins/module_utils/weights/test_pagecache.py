# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import builtins
import mmap
import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import hashing, pagecache

PAGE = mmap.PAGESIZE
SIZE = 2 * pagecache.WINDOW_BYTES + 5 * PAGE - 100
# Read beforehand: (start, length) at the edges of windows, in their middle, and at the end of the file.
PARTS = [
    (0, 1),
    (3 * PAGE, 7 * PAGE),
    (pagecache.WINDOW_BYTES - PAGE, 2 * PAGE),
    (pagecache.WINDOW_BYTES + 100 * PAGE, PAGE),
    (SIZE - 1, 1),
]


@pytest.fixture
def hollow(tmp_path):
    """A file of several windows without a block on the disk; where files live in memory alone it never leaves it."""
    path = tmp_path / "hollow"
    path.write_bytes(b"")
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def opened(hollow):
    """The same file, open, and nothing of it in memory."""
    file = os.open(hollow, os.O_RDONLY)
    # Otherwise the kernel brings more than what is asked for.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    yield file
    os.close(file)


@pytest.mark.parametrize("parts", [[], PARTS, [(0, SIZE)]], ids=["nothing", "parts", "everything"])
def test_what_was_in_memory_stays_and_nothing_else(hollow, opened, parts):
    for start, length in parts:
        os.pread(opened, length, start)
    before = pagecache.absent(opened, 0, SIZE)
    assert hashing.digest_file(str(hollow)).size == SIZE
    assert pagecache.absent(opened, 0, SIZE) == before


def test_a_reader_that_comes_no_more_leaves_no_trace_either(hollow, opened):
    before = pagecache.absent(opened, 0, SIZE)
    reading = hashing.blocks(str(hollow))
    next(reading)
    reading.close()
    assert pagecache.absent(opened, 0, SIZE) == before


def test_what_was_just_read_is_not_absent(opened):
    os.pread(opened, SIZE, 0)
    assert pagecache.absent(opened, 0, SIZE) == []


def test_what_is_absent_is_told_by_pages(monkeypatch, opened):
    # Only the lowest bit of each byte has a meaning.
    answer = bytes([1, 0, 0, 1, 3, 2, 0xFE, 0xFF, 0])
    monkeypatch.setattr(pagecache, "_mincore", lambda: lambda _file, _start, _length: answer)
    found = pagecache.absent(opened, 10 * PAGE, 9 * PAGE)
    assert found == [(11 * PAGE, 2 * PAGE), (15 * PAGE, 2 * PAGE), (18 * PAGE, PAGE)]


def test_each_window_is_looked_up_before_the_one_in_front_of_it_is_read(monkeypatch, opened):
    size, seen = 3 * pagecache.WINDOW_BYTES + 1, []

    def absent(_file, start, length):
        seen.append(("look", start))
        return [(start, length)]

    monkeypatch.setattr(pagecache, "absent", absent)
    monkeypatch.setattr(os, "posix_fadvise", lambda _file, start, _length, _advice: seen.append(("drop", start)))
    for start, end in pagecache.windows(opened, size):
        seen.append(("read", start))
        assert end == min(start + pagecache.WINDOW_BYTES, size)

    steps = [at * pagecache.WINDOW_BYTES for at in range(4)]
    assert [start for what, start in seen if what == "read"] == steps
    for at, start in enumerate(steps):
        # Looked up one window ahead, dropped right after it was read.
        assert seen.index(("look", start)) < seen.index(("read", steps[max(0, at - 1)]))
        assert seen.index(("read", start)) < seen.index(("drop", start))
        assert [step for step in seen if step == ("drop", start)] == [("drop", start)]
        if at + 1 < len(steps):
            assert seen.index(("drop", start)) < seen.index(("read", steps[at + 1]))


def test_an_empty_file_has_no_windows(opened):
    assert list(pagecache.windows(opened, 0)) == []


def test_a_file_that_cannot_be_mapped_counts_as_in_memory():
    reader, writer = os.pipe()
    assert pagecache.absent(reader, 0, PAGE) == []
    assert list(pagecache.windows(reader, PAGE)) == [(0, PAGE)]
    os.close(reader)
    os.close(writer)


def test_advice_that_is_refused_is_no_error(monkeypatch, opened):
    def refuse(*_arguments):
        raise OSError("not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    assert len(list(pagecache.windows(opened, SIZE))) == 3


def test_without_ctypes_files_are_read_all_the_same(monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *arguments):
        if name == "ctypes":
            raise ImportError(name)
        return real(name, *arguments)

    (tmp_path / "f").write_bytes(b"abc")
    pagecache._mincore.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert hashing.digest_file(str(tmp_path / "f")).size == 3
    monkeypatch.undo()
    pagecache._mincore.cache_clear()
