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

# Holds our own notes where a folder of weights is a file system of its own, so that nothing can lie beside it.
INSIDE = ".baremetal-llm"

# Linux: NAME_MAX of every common file system, and PATH_MAX less room for the folder that it lies in.
NAME_BYTES, PATH_BYTES = 255, 3000

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
    elif path.split("/")[0] == INSIDE:
        problem = f"{path!r}, a name that this collection keeps for itself"
    elif len(path.encode()) > PATH_BYTES or any(len(part.encode()) > NAME_BYTES for part in path.split("/")):
        problem = f"a name of {len(path)} characters, {path[:60]!r}..., longer than file systems take"
    else:
        return path
    raise LlmError(
        "a file name in the lock cannot be followed",
        wanted="relative paths such as model-00001-of-00163.safetensors",
        found=problem,
        remedy="make the lock again with weights_lock from a source that you trust",
    )


def aside(dest: str, what: str) -> str:
    """Return where our own note ``what`` on the folder ``dest`` is kept, on the same file system.

    Beside the folder, so that it holds the model and nothing else: /w/model and "lock.json" give /w/.model.lock.json.
    Inside it where it is a mount point: what lies beside is another file system, and no rename leads from it.
    """
    real = os.path.realpath(dest)
    parent, name = os.path.split(real)
    if os.path.ismount(real):
        return os.path.join(real, INSIDE, what)
    return os.path.join(parent, f".{name}.{what}")


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
    names = (*HUB_LEFTOVERS, INSIDE + "/")
    return any(relative == name or (name.endswith("/") and relative.startswith(name)) for name in names)


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
