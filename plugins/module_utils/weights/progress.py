# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a long job has come, in a file that another process may read while it runs."""

from __future__ import annotations

import contextlib
import threading
import time

from .. import atomic

# A reader looks every few seconds; writing more often only costs.
WRITE_S = 1.0


class Progress:
    """Counts bytes from any number of threads, and now and then writes {what, done, total, rate, seconds}.

    :param path: the file; empty writes nothing. One that cannot be written is no reason to end the job.
    :param what: what is done, as people read it, such as "copying"
    :param total: bytes that there are to do
    """

    def __init__(self, path: str, what: str, total: int) -> None:
        self.path = path
        self.what = what
        self.total = total
        self.done = 0
        self._started = self._written = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Note that ``count`` more bytes are done."""
        with self._lock:
            self.done += count
            now = time.monotonic()
            due = now - self._written >= WRITE_S
            if due:
                self._written = now
        if due:
            self._write()

    def state(self) -> dict:
        """Return what is written: bytes, bytes a second since the beginning, seconds."""
        seconds = time.monotonic() - self._started
        rate = int(self.done / seconds) if seconds > 0 else 0
        return {
            "what": self.what,
            "done": self.done,
            "total": self.total,
            "rate": rate,
            "seconds": round(seconds, 3),
        }

    def _write(self) -> None:
        if self.path:
            with contextlib.suppress(OSError):
                atomic.write_json(self.path, self.state(), 0o640)

    def __enter__(self) -> Progress:
        self._write()
        return self

    def __exit__(self, *_error: object) -> None:
        self._write()


def read(path: str) -> dict:
    """Return what the file at ``path`` says, empty where there is none."""
    return atomic.read_json(path) or {}
