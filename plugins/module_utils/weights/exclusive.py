# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One writer at a time for a folder of weights: two deployments at once do not fight."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from ..errors import LlmError
from . import tree

# Whoever asks who holds the folder holds it for a moment.
LOOK_S = 0.3


@contextlib.contextmanager
def writing(dest: str, what: str, wait_s: float = 0.0) -> Iterator[int]:
    """Hold the folder ``dest`` for writing; gives the open file, which a child process keeps held by keeping it open.

    The kernel lets go when the last process that has it ends, however it ends.

    :param what: what the holder does, told to others that want the folder
    :param wait_s: seconds to wait for another holder
    :raises LlmError: another process holds it
    """
    file = _take(dest, time.monotonic() + max(wait_s, LOOK_S))
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{what}, process {os.getpid()}".encode(), 0)
        yield file
    finally:
        os.close(file)


def holder(dest: str) -> str:
    """Return what the process that holds ``dest`` said of itself, empty when none does."""
    try:
        file = os.open(tree.aside(dest, "busy"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(file, 200, 0).decode("utf-8", "replace") or "a process that did not say its name"
    finally:
        os.close(file)
    return ""


def _take(dest: str, end: float) -> int:
    """Return the file by which ``dest`` is held."""
    path = tree.aside(dest, "busy")
    while True:
        # With the modes that users are given: an engine of another user has to get through to the weights.
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        if _is_taken(file) and _is_still(file, path):
            return file
        said = os.pread(file, 200, 0).decode("utf-8", "replace")
        os.close(file)
        if time.monotonic() >= end:
            raise LlmError(
                f"{dest} is being written by another run",
                wanted="a folder that nobody writes",
                found=said or "a process that did not say its name",
                remedy="wait for it, or end it if it is a left-over",
            )
        time.sleep(0.05)


def _is_taken(file: int) -> bool:
    """True when this process holds ``file`` now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(file: int, path: str) -> bool:
    """True when ``path`` leads to the open file: its holder may have deleted it at its end."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
