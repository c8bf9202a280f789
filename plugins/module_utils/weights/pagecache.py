# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads files and leaves the page cache as it was: what an engine has in memory stays, what we brought goes again.

mincore(2) says which pages of a file are in memory. Since Linux 5.2 it says so only to the owner of the file and to
those who may write it; for all others every page counts as there, and nothing is dropped.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import re
from collections.abc import Iterator
from typing import Callable

# Looked up and dropped at a time. Twice the largest read-ahead that is in use (8 MiB): the kernel must not read beyond
# the window that was looked up last. Looking up takes 0.25 ms where hashing takes 11 (measured).
WINDOW_BYTES = 16 * 1024 * 1024

_ABSENT = re.compile(rb"\x00+")
# Of each byte only the lowest bit has a meaning (mincore(2)).
_LOWEST_BIT = bytes(value & 1 for value in range(256))


@functools.cache
def _mincore() -> Callable[[int, int, int], bytes]:
    """Return a function of (open file, start, length) that gives what mincore says, nothing where it says nothing."""
    try:
        # Here, because runs that read no file are over before it is loaded; some builds of Python lack it.
        import ctypes

        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    except (ImportError, OSError, AttributeError):
        return _says_nothing
    failed = ctypes.c_void_p(-1).value

    def ask(file: int, start: int, length: int) -> bytes:
        address = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, file, start)
        if address == failed:
            return b""
        pages = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        refused = libc.mincore(address, length, pages)
        libc.munmap(address, length)
        return b"" if refused else pages.raw

    return ask


def _says_nothing(_file: int, _start: int, _length: int) -> bytes:
    return b""


def absent(file: int, start: int, length: int) -> list[tuple[int, int]]:
    """Return (start, length) of the parts of an open file that are not in memory; none where nobody can tell.

    :param start: a multiple of the page size
    :param length: bytes, more than 0
    """
    there = _mincore()(file, start, length).translate(_LOWEST_BIT)
    runs = (match.span() for match in _ABSENT.finditer(there))
    return [(start + first * mmap.PAGESIZE, (after - first) * mmap.PAGESIZE) for first, after in runs]


def windows(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the windows of an open file of ``size`` bytes, in order, for the caller to read.

    A window is looked up before anything of the one in front of it is read, because reading makes the kernel read on.
    What was not in memory is dropped when the caller comes for the next window, or comes no more.
    """
    mine, following = [], _absent_window(file, 0, size)
    try:
        for start in range(0, size, WINDOW_BYTES):
            mine, following = following, _absent_window(file, start + WINDOW_BYTES, size)
            yield start, min(start + WINDOW_BYTES, size)
            _drop(file, mine)
            mine = []
    finally:
        _drop(file, mine + following)


def _absent_window(file: int, start: int, size: int) -> list[tuple[int, int]]:
    length = min(WINDOW_BYTES, size - start)
    return absent(file, start, length) if length > 0 else []


def _drop(file: int, parts: list[tuple[int, int]]) -> None:
    for start, length in parts:
        # It is advice: a file system that knows none of it is as good.
        with contextlib.suppress(OSError):
            os.posix_fadvise(file, start, length, os.POSIX_FADV_DONTNEED)
