# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of a set of weights: which files belong to it, how long they are, and their SHA-256."""

from __future__ import annotations

import hashlib
import json
import re

from ..errors import LlmError
from .tree import check_relative, is_pickle

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_REMEDY = "make the lock again with weights_lock, or take it from where the weights were published"


def load(source: object) -> dict:
    """Return the checked lock from ``source``: a mapping, or the path of a JSON file.

    :raises LlmError: when it cannot be read or is no lock
    """
    if isinstance(source, dict):
        return check(source)
    if not isinstance(source, str):
        raise LlmError("the lock is neither a mapping nor a path", found=type(source).__name__, remedy=_REMEDY)
    try:
        with open(source, encoding="utf-8") as stream:
            return check(json.load(stream))
    except OSError as error:
        raise LlmError(f"the lock {source} cannot be read", found=str(error.strerror), remedy=_REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise LlmError(
            f"the lock {source} is not JSON", wanted="a JSON object", found=str(error), remedy=_REMEDY
        ) from error


def check(lock: object) -> dict:
    """Return ``lock`` in its normal form {format, model, revision, files[]}, or raise LlmError."""
    if not isinstance(lock, dict) or not isinstance(lock.get("files"), list) or not lock["files"]:
        raise LlmError("the lock names no files", wanted="an object with a list 'files'", remedy=_REMEDY)
    if lock.get("format", FORMAT) != FORMAT:
        raise LlmError(
            "the lock was written by another version",
            wanted=f"format {FORMAT}",
            found=f"format {lock['format']!r}",
            remedy=_REMEDY,
        )
    files = [_check_file(entry) for entry in lock["files"]]
    paths = [entry["path"] for entry in files]
    if len(set(paths)) != len(paths):
        twice = sorted({path for path in paths if paths.count(path) > 1})
        raise LlmError("the lock names a file twice", found=", ".join(twice), remedy=_REMEDY)
    return {
        "format": FORMAT,
        "model": _label(lock, "model"),
        "revision": _label(lock, "revision"),
        "files": sorted(files, key=lambda entry: entry["path"]),
    }


def _label(lock: dict, key: str) -> str:
    value = lock.get(key)
    if value is not None and not isinstance(value, str):
        raise LlmError(f"the lock's {key} is no text", wanted="text", found=repr(value)[:80], remedy=_REMEDY)
    return str(value or "")


def _check_file(entry: object) -> dict:
    if not isinstance(entry, dict):
        raise LlmError("an entry of the lock is no object", found=repr(entry)[:80], remedy=_REMEDY)
    path = check_relative(entry.get("path"))
    size, digest = entry.get("size"), entry.get("sha256")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise LlmError(f"the lock gives no size for {path}", wanted="bytes", found=repr(size)[:80], remedy=_REMEDY)
    if not isinstance(digest, str) or not _SHA256.match(digest.lower()):
        raise LlmError(
            f"the lock gives no SHA-256 for {path}",
            wanted="64 hexadecimal digits",
            found=repr(digest)[:80],
            remedy=_REMEDY,
        )
    if is_pickle(path):
        raise LlmError(
            f"the lock names {path}, a format that can run code when it is loaded",
            wanted="safetensors",
            found=path,
            remedy="convert the weights to safetensors, or lock a revision that has them",
        )
    return {"path": path, "size": size, "sha256": digest.lower(), **_merkle(entry, path, size), **_patch(entry, path)}


def _merkle(entry: dict, path: str, size: int) -> dict:
    """The root of the SHA-256 tree over the file (see merkle.py), where it is known; an empty file has none."""
    root = entry.get("merkle") or ""
    if not isinstance(root, str) or (root and (not size or not _SHA256.match(root.lower()))):
        raise LlmError(
            f"the lock gives no usable merkle root for {path}",
            wanted="64 hexadecimal digits" if size else "none for an empty file",
            found=repr(root)[:80],
            remedy=_REMEDY,
        )
    return {"merkle": root.lower()} if root else {}


def _patch(entry: dict, path: str) -> dict:
    """What was changed in the file after it had been proved as published: {set, size, sha256}."""
    patched = entry.get("patched")
    if patched is None:
        return {}
    if not isinstance(patched, dict) or not isinstance(patched.get("set"), dict) or not path.endswith(".json"):
        raise LlmError(
            f"the lock's patch of {path} cannot be read",
            wanted="an object with set, size and sha256, for a JSON file",
            found=repr(patched)[:80],
            remedy=_REMEDY,
        )
    whole = _check_file({"path": path, "size": patched.get("size"), "sha256": patched.get("sha256")})
    return {"patched": {"set": patched["set"], "size": whole["size"], "sha256": whole["sha256"]}}


def placed(entry: dict) -> dict:
    """Return {size, sha256} of the file as the engine reads it: patched where the lock records a patch."""
    return entry.get("patched", entry)


def identity(lock: dict) -> str:
    """Return a digest of which bytes a checked lock names, as published; 64 hexadecimal digits.

    The same whatever the lock says besides (merkle roots, patches, the names of model and revision).
    """
    text = "".join(f"{entry['sha256']} {entry['size']} {entry['path']}\n" for entry in lock["files"])
    return hashlib.sha256(text.encode()).hexdigest()


def total_bytes(lock: dict) -> int:
    """Return the bytes of all files of a checked lock."""
    return sum(entry["size"] for entry in lock["files"])
