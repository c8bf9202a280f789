# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast a disk of this host is read: one file, from its start, past the page cache."""

from __future__ import annotations

import functools
import mmap
import os
import stat
import time
from typing import Callable

from .source import in_time

_BLOCK = 8 << 20  # large enough for the kernel to keep several requests to a disk under way
_SECTOR = 4096  # what O_DIRECT wants sizes to be a multiple of, on every disk in use
_MAX_ENTRIES = 2000
_WALK_SECONDS = 2.0
_GRACE_SECONDS = 5.0  # for the walk, and for a last block from a slow disk


def measure(path: str, most: int, seconds: float) -> dict:
    """Return {path, file, bytes, seconds, bytes_per_s, how, reason} of reading the largest file at or below ``path``.

    At most ``most`` bytes are read, for about ``seconds``. ``how`` is "direct" (O_DIRECT: the page cache is neither
    used nor filled) or "buffered" (its pages are dropped before and after). ``bytes_per_s`` is None with a ``reason``
    when nothing could be measured.
    """
    read = functools.partial(_measure, path, most, seconds)
    late = dict(_nothing(path), reason=f"reading there did not end within {seconds + _GRACE_SECONDS:g} s")
    return in_time({path: read}, seconds + _GRACE_SECONDS).get(path, late)


def _nothing(path: str) -> dict:
    return {"path": path, "file": "", "bytes": 0, "seconds": 0.0, "bytes_per_s": None, "how": "", "reason": ""}


def _measure(path: str, most: int, seconds: float) -> dict:
    result = _nothing(path)
    if most <= 0 or seconds <= 0:
        return dict(result, reason="bytes and seconds must be more than 0")
    file = largest_file(path)
    if not file:
        return dict(result, reason="there is no file with content there")
    # Names of files may be no text, and no result can hold such a name.
    result["file"] = file.encode("utf-8", "replace").decode()
    try:
        how, count, took = _read(file, most, seconds)
    except OSError as error:
        return dict(result, reason=f"{result['file']} cannot be read: {error.strerror}")
    if not count:
        return dict(result, reason=f"{result['file']} gave no content")
    return dict(result, bytes=count, seconds=round(took, 6), bytes_per_s=int(count / max(took, 1e-6)), how=how)


def largest_file(path: str, most: int = _MAX_ENTRIES) -> str:
    """Return the largest regular file at or below ``path`` among the first ``most`` entries; links are not followed."""
    best, found, seen, folders = 0, "", 0, [path]
    deadline = time.monotonic() + _WALK_SECONDS
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return path if os.path.getsize(path) else ""
    except (OSError, ValueError):
        return ""
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > most or time.monotonic() > deadline:
                        return found
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size > best:
                        best, found = entry.stat(follow_symlinks=False).st_size, entry.path
        except OSError:
            continue
    return found


def _read(path: str, most: int, seconds: float) -> tuple[str, int, float]:
    """Return how the file was read, how many bytes, and the seconds that took."""
    try:
        return ("direct", *_direct(path, most, seconds))
    except OSError:  # a file system without O_DIRECT, such as tmpfs
        return ("buffered", *_buffered(path, most, seconds))


def _direct(path: str, most: int, seconds: float) -> tuple[int, float]:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT)
    try:
        return _timed(handle, most, seconds)
    finally:
        os.close(handle)


def _buffered(path: str, most: int, seconds: float) -> tuple[int, float]:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return _timed(handle, most, seconds)
    finally:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _timed(handle: int, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> tuple[int, float]:
    count, start = 0, clock()
    # Anonymous memory lies at the start of a page, as O_DIRECT wants it.
    with mmap.mmap(-1, _BLOCK) as block, memoryview(block) as whole:
        while count < most and clock() - start < seconds:
            wanted = min(_BLOCK, (most - count + _SECTOR - 1) // _SECTOR * _SECTOR)
            with whole[:wanted] as part:
                got = os.readv(handle, [part])
            count += got
            if got < wanted:  # the end; what follows would not begin at a sector
                break
    return count, clock() - start
