# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies in a folder of weights, and which names may lie there."""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple

from ..errors import LlmError

# Formats that run code when they are loaded, or that engines load in place of safetensors when both are there.
# Source: the list of unsafe formats that model hubs' scanners warn of (Python's pickle and torch.load files).
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5")

# Bookkeeping that hub clients leave in a download folder; it is no part of the model and no engine reads it.
HUB_LEFTOVERS = (".cache/huggingface/", ".msc", ".mv", "._____temp/", ".cache/modelscope/")

# Ends the name of a file that is being copied; no file of a model may have it.
PARTIAL_SUFFIX = ".baremetal-partial"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Entry(NamedTuple):
    """One name below the folder: ``kind`` is file, link or other."""

    path: str
    kind: str
    size: int


def check_relative(path: object) -> str:
    """Return ``path`` when it is a plain relative path that stays inside its folder, or raise LlmError."""
    if not isinstance(path, str) or not path:
        problem = "an empty name" if path == "" else f"{type(path).__name__} instead of text"
    elif _CONTROL.search(path) or "\\" in path:
        problem = f"{path!r}, which holds control characters or a backslash"
    elif path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        problem = f"{path!r}, which leads out of the folder or is not in its plain form"
    elif any("\ud800" <= letter <= "\udfff" for letter in path):
        problem = f"{path!r}, which is not text"
    elif path.endswith(PARTIAL_SUFFIX):
        problem = f"{path!r}, a name for files that are being copied"
    else:
        return path
    raise LlmError(
        "a file name in the lock cannot be followed",
        wanted="relative paths such as model-00001-of-00163.safetensors",
        found=problem,
        remedy="make the lock again with weights_lock from a source that you trust",
    )


def is_pickle(path: str) -> bool:
    """True for names of formats that can run code on load."""
    return path.lower().endswith(PICKLE_SUFFIXES)


def walk(folder: str) -> list[Entry]:
    """List every file, link and special file below ``folder``, sorted by path; links are listed, never followed."""
    entries = []
    for parent, folders, files in os.walk(folder, followlinks=False, onerror=_raise):
        for name in files + [name for name in folders if os.path.islink(os.path.join(parent, name))]:
            full = os.path.join(parent, name)
            relative = os.path.relpath(full, folder)
            if not _is_leftover(relative):
                entries.append(_entry(full, relative))
    return sorted(entries)


def _entry(full: str, relative: str) -> Entry:
    status = os.lstat(full)
    if stat.S_ISREG(status.st_mode):
        return Entry(relative, "file", status.st_size)
    return Entry(relative, "link" if stat.S_ISLNK(status.st_mode) else "other", 0)


def _is_leftover(relative: str) -> bool:
    return any(relative == name or (name.endswith("/") and relative.startswith(name)) for name in HUB_LEFTOVERS)


def _raise(error: OSError) -> None:
    raise error


def resolve(folder: str, relative: str) -> str:
    """Return the full path of ``relative``, or raise LlmError where a link on the way leads out of ``folder``."""
    root = os.path.realpath(folder)
    full = os.path.join(root, check_relative(relative))
    if os.path.realpath(full) != full:
        raise LlmError(
            f"{relative} in {folder} is reached through a symbolic link",
            wanted="plain files inside the folder",
            found=os.path.realpath(full),
            remedy="replace the link by the file itself",
        )
    return full
