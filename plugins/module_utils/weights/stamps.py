# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remembers which files were hashed, so that an unchanged tree costs a stat a file.

A stamp is (size, mtime_ns, ctime_ns, inode, device). The kernel sets ctime at every change and no call sets it back.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from .. import atomic
from . import tree

FORMAT = 1
# A change within one tick of the kernel's clock does not move ctime; the slowest configured tick is 10 ms (HZ=100).
# Files changed shorter than twice that before they were read are hashed again next time.
TICK_NS = 20_000_000


class Notes(NamedTuple):
    """What is remembered of a folder.

    :param files: {relative path: {stamp, sha256, merkle}}; ``merkle`` is empty where the root is not known
    :param sound: digest of a tree (see verify.fingerprint) whose safetensors files were found sound; empty for none
    """

    files: dict[str, dict]
    sound: str


def default_path(folder: str) -> str:
    """Return where the stamps of ``folder`` lie: not in it, so that the folder holds the model and nothing else."""
    return tree.aside(folder, "stamps.json")


def of(path: str) -> list[int]:
    """Return the stamp of the file at ``path``."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def is_settled(stamp: list[int], read_from_ns: int) -> bool:
    """True when a later change of the file is sure to change the stamp.

    A file from the future, as a clock that was set back leaves it, is not: the same time comes once more.
    """
    return stamp[2] + TICK_NS < read_from_ns


def now_ns() -> int:
    """Return the wall clock in nanoseconds, the clock that ctime is taken from."""
    return time.time_ns()


def load(path: str) -> Notes:
    """Return the Notes in the file at ``path``, empty when there are none of this format."""
    data = atomic.read_json(path) or {}
    files = data.get("files") if data.get("format") == FORMAT else None
    if not isinstance(files, dict):
        return Notes({}, "")
    sound = data.get("sound")
    return Notes(files, sound if isinstance(sound, str) else "")


def read(path: str) -> dict[str, dict]:
    """Return the files of the Notes at ``path``."""
    return load(path).files


def write(path: str, files: dict[str, dict], sound: str = "") -> bool:
    """Store Notes; False where this user may not write there (they only save time)."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        atomic.write_json(path, {"format": FORMAT, "files": files, "sound": sound}, 0o640)
    except OSError:
        return False
    return True
