# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remembers which files were hashed, so that an unchanged tree costs a stat a file.

A stamp is (size, mtime_ns, ctime_ns, inode, device). The kernel sets ctime at every change and no call sets it back.
"""

from __future__ import annotations

import os
import time

from .. import atomic

FORMAT = 1
# A change within one tick of the kernel's clock does not move ctime; the slowest configured tick is 10 ms (HZ=100).
# Files changed shorter than twice that before they were read are hashed again next time.
TICK_NS = 20_000_000


def default_path(folder: str) -> str:
    """Return where the stamps of ``folder`` lie: beside it, so that the folder holds the model and nothing else."""
    parent, name = os.path.split(os.path.realpath(folder))
    return os.path.join(parent, f".{name}.stamps.json")


def of(path: str) -> list[int]:
    """Return the stamp of the file at ``path``."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def is_settled(stamp: list[int], read_from_ns: int) -> bool:
    """True when a later change of the file is sure to change the stamp."""
    return stamp[2] + TICK_NS < read_from_ns


def now_ns() -> int:
    """Return the wall clock in nanoseconds, the clock that ctime is taken from."""
    return time.time_ns()


def read(path: str) -> dict[str, dict]:
    """Return {relative path: {stamp, sha256}} from the file at ``path``, empty when there is none of this format."""
    data = atomic.read_json(path) or {}
    files = data.get("files") if data.get("format") == FORMAT else None
    return files if isinstance(files, dict) else {}


def write(path: str, files: dict[str, dict]) -> bool:
    """Store the stamps; False where this user may not write there (they only save time)."""
    try:
        atomic.write_json(path, {"format": FORMAT, "files": files}, 0o640)
    except OSError:
        return False
    return True
