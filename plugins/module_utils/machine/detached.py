# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that stay behind when the module that started them is over."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Callable


def run(work: Callable[[], None], keep: list[int], name: str, title: str = "", most_s: float = 0.0) -> None:
    """Run ``work`` in a process that nobody waits for, with no files open but ``keep``.

    :param name: of the process; the kernel keeps 15 characters
    :param title: its command line as others see it, see ``set_title``; empty leaves that of the module
    :param most_s: seconds after which the kernel ends it, even if it should hang; 0 is no limit
    """
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            _be_alone(keep, most_s)
            # Without, it is only harder to recognise.
            with contextlib.suppress(OSError, ValueError, IndexError):
                set_name(name)
                if title:
                    set_title(title)
            work()
    finally:
        # Never back into the module, whatever has happened: it would answer twice.
        os._exit(0)


def _be_alone(keep: list[int], most_s: float) -> None:
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, most_s)
    os.chdir("/")
    os.umask(0o077)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) > 2 and int(entry) not in keep:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(int(entry))


def set_name(name: str) -> None:
    """Name this process, as /proc/PID/comm and ps show it."""
    with open("/proc/self/comm", "w", encoding="ascii") as stream:
        stream.write(name)


def set_title(title: str) -> None:
    """Make ``title`` the command line that others see of this process, where the kernel lets it.

    The kernel shows the memory that held the arguments, and goes on into that of the environment where the last byte
    of the arguments is not zero (fs/proc/base.c, get_mm_cmdline).
    """
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stream:
        fields = stream.read().rpartition(")")[2].split()
    # Fields 48 to 51 of proc(5): arg_start, arg_end, env_start, env_end; the rest begins with field 3.
    start, end, following, last = (int(field) for field in fields[45:49])
    if not start or end != following:
        last = end
    text = title.encode("ascii", "replace")[: max(0, last - start - 1)]
    size = max(end - start, len(text) + 1)
    if text:
        ctypes.memmove(start, text.ljust(size, b"\0"), size)
