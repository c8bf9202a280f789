# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the facts of one host come from: its files under a root, and calls that must not take for ever."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import threading
import time
from typing import Any, Callable

MAX_BYTES = 4 << 20  # no file of /proc or /etc that is read here is longer on a host in order
MAX_ATTRIBUTE = 1 << 16  # a value of /sys is at most a page, 64 KiB on some ARM kernels
MAX_NAMES = 4096  # more than any folder of /sys that is listed here holds
_NUMBER = re.compile(r"[0-9]{1,20}")  # 64 bits have at most 20 digits


class Source:
    """The files of one host; ``problems`` collects what could not be read.

    :param root: put before every path of /proc, /sys, /dev and /etc
    :param timeout: seconds allowed for each program or service that is asked
    """

    def __init__(self, root: str = "", timeout: float = 10.0) -> None:
        self.root = root
        self.timeout = timeout
        self.problems: list[str] = []

    def at(self, path: str) -> str:
        """Return where ``path`` of the host is found."""
        return self.root + path

    def text(self, path: str, limit: int = MAX_BYTES) -> str:
        """Return a file that every Linux has, as whole lines; it is a problem when it cannot be read or is longer."""
        try:
            raw = _head(self.at(path), limit + 1)
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {error.strerror}")
            return ""
        if len(raw) > limit:
            self.problems.append(f"{path} is longer than {limit} bytes; the rest was not looked at")
        return _lines(raw, limit)

    def head(self, path: str, limit: int) -> str:
        """Return the whole lines among the first ``limit`` bytes of a file, empty when it cannot be read."""
        try:
            return _lines(_head(self.at(path), limit + 1), limit)
        except OSError:
            return ""

    def attribute(self, path: str) -> str:
        """Return a small file, stripped; many of /sys refuse to be read in some states, which is no problem."""
        return self.head(path, MAX_ATTRIBUTE).strip()

    def names(self, folder: str) -> list[str]:
        """Return what is in a folder, sorted; nothing when it is not there."""
        try:
            return sorted(os.listdir(self.at(folder)))[:MAX_NAMES]
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """True when there is something at ``path`` of the host."""
        return os.path.exists(self.at(path))

    def link(self, path: str) -> str:
        """Return the last part of what a symbolic link points to, empty for anything else."""
        try:
            return os.path.basename(os.readlink(self.at(path)))
        except OSError:
            return ""

    def part(self, name: str, read: Callable[[], Any], empty: Any) -> Any:
        """Return what ``read`` returns, or ``empty`` and a problem when the host tells it in a way not known."""
        try:
            return read()
        except (OSError, ValueError, IndexError, OverflowError, struct.error) as error:
            self.problems.append(f"{name} of this host cannot be understood: {error}")
            return empty

    def misread(self, path: str, lines: int) -> None:
        """Note that some lines of a file were passed over."""
        if lines:
            self.problems.append(f"{path} has {lines} lines that cannot be understood")


def number(text: str) -> int | None:
    """Return a whole number written in plain digits, None for anything else."""
    return int(text) if _NUMBER.fullmatch(text) else None


def in_time(calls: dict[Any, Callable[[], Any]], seconds: float) -> dict:
    """Run ``calls``, which must not raise, side by side; return what those answered that ended within ``seconds``.

    A call that hangs, as one on a network file system whose server is gone does, is left behind in a daemon thread.
    """
    answers: dict = {}
    threads = []
    deadline = time.monotonic() + seconds
    for key, call in calls.items():
        thread = threading.Thread(target=_answer, args=(answers, key, call), daemon=True)
        # A host that is out of processes lets none start; its call then counts as one without an answer.
        with contextlib.suppress(RuntimeError):
            thread.start()
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)


def _answer(answers: dict, key: Any, call: Callable[[], Any]) -> None:
    answers[key] = call()


def _head(path: str, limit: int) -> bytes:
    # Not blocking: a named pipe in the place of a file must not hold the module.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        chunks = []
        while limit > 0:
            chunk = os.read(handle, min(limit, 1 << 18))
            if not chunk:
                break
            chunks.append(chunk)
            limit -= len(chunk)
    finally:
        os.close(handle)
    return b"".join(chunks)


def _lines(raw: bytes, limit: int) -> str:
    """Return at most ``limit`` bytes as text; a line that was cut off would be half a number."""
    if len(raw) > limit:
        raw = raw[: raw.rfind(b"\n", 0, limit) + 1]
    return raw.decode("utf-8", "replace")
