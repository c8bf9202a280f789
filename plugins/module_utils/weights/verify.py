# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds a folder of weights against its lock."""

from __future__ import annotations

import hashlib
import os
import threading
import time

from ..errors import LlmError
from . import hashing, safetensors, stamps, tree


class Digests:
    """SHA-256 of the files of one folder, from stamps where the file has not changed, else by reading it.

    ``deep`` reads every file. After use, ``bytes_hashed`` and ``cached`` (files) say what was done.
    """

    def __init__(self, folder: str, stamp_file: str, deep: bool = False) -> None:
        self.folder = folder
        self.stamp_file = stamp_file
        self.known = {} if deep else stamps.read(stamp_file)
        self.fresh: dict[str, dict] = {}
        self.bytes_hashed = 0
        self.cached = 0
        self._guard = threading.Lock()

    def of(self, relative: str) -> str:
        """Return the SHA-256 of ``relative``; raises OSError or LlmError for a file that cannot be read or changes."""
        full = tree.resolve(self.folder, relative)
        before = stamps.of(full)
        entry = self.known.get(relative)
        if isinstance(entry, dict) and entry.get("stamp") == before and isinstance(entry.get("sha256"), str):
            with self._guard:
                self.cached += 1
                self.fresh[relative] = entry
            return entry["sha256"]
        began = stamps.now_ns()
        digest, count = hashing.sha256_file(full)
        with self._guard:
            self.bytes_hashed += count
        if stamps.of(full) != before:
            raise LlmError(
                f"{relative} was changed while it was read",
                wanted="a file that stays as it is",
                found="another size, time or inode than before",
                remedy="see what writes to that folder, then run this again",
            )
        if stamps.is_settled(before, began):
            with self._guard:
                self.fresh[relative] = {"stamp": before, "sha256": digest}
        return digest

    def save(self) -> bool:
        """Store the stamps of all files asked for, when they differ from the stored ones."""
        return self.fresh == self.known or stamps.write(self.stamp_file, self.fresh)


def verify(
    path: str, lock: dict, *, deep: bool = False, jobs: int = 0, stamp_file: str = "", save: bool = True
) -> dict:
    """Compare the folder ``path`` with a checked ``lock``.

    :param deep: read every file, whatever the stamps say
    :param jobs: threads; 0 is one a core
    :param save: False writes nothing (check mode)
    :return: verified, files, bytes, bytes_hashed, cached, missing[], corrupt[], unexpected[], generation, seconds
    :raises LlmError: when the folder itself cannot be read
    """
    started = time.monotonic()
    present = _present(path)
    wanted = {entry["path"]: entry for entry in lock["files"]}
    missing = sorted(set(wanted) - {name for name, entry in present.items() if entry.kind == "file"})
    unexpected = sorted(set(present) - set(wanted)) + [name for name in missing if name in present]
    digests = Digests(path, stamp_file or stamps.default_path(path), deep)
    there = [wanted[name] for name in sorted(set(wanted) - set(missing))]
    checked = hashing.parallel(
        lambda entry: _judge(digests, present[entry["path"]], entry), there, jobs or hashing.cores()
    )
    corrupt = [verdict for verdict in checked if verdict]
    sound = [entry["path"] for entry, verdict in zip(there, checked) if not verdict]
    corrupt += _structure(path, sound, missing, corrupt)
    if save:
        digests.save()
    return {
        "verified": not (missing or corrupt or unexpected),
        "files": len(there),
        "bytes": sum(present[entry["path"]].size for entry in there),
        "bytes_hashed": digests.bytes_hashed,
        "cached": digests.cached,
        "missing": missing,
        "corrupt": corrupt,
        "unexpected": sorted(unexpected),
        "generation": generation(path, [entry["path"] for entry in there]),
        "seconds": round(time.monotonic() - started, 3),
    }


def _present(path: str) -> dict[str, tree.Entry]:
    if not os.path.isdir(path):
        raise LlmError(
            f"there is no folder {path}",
            wanted="a folder with the files of the lock",
            found="a file" if os.path.exists(path) else "nothing",
            remedy="copy the weights there (weights_fetch), or correct llm_weights_path",
        )
    try:
        return {entry.path: entry for entry in tree.walk(path)}
    except OSError as error:
        raise LlmError(
            f"{error.filename or path} cannot be listed",
            found=str(error.strerror),
            remedy="run as a user who may read the weights",
        ) from error


def _judge(digests: Digests, present: tree.Entry, entry: dict) -> dict | None:
    path = entry["path"]
    if present.size != entry["size"]:
        reason = "truncated" if present.size < entry["size"] else "size"
        return {"path": path, "reason": reason, "wanted": f"{entry['size']} bytes", "found": f"{present.size} bytes"}
    try:
        found = digests.of(path)
    except (OSError, LlmError) as error:
        return {"path": path, "reason": "unreadable", "wanted": "a readable file", "found": str(error)}
    if found != entry["sha256"]:
        return {"path": path, "reason": "sha256", "wanted": entry["sha256"], "found": found}
    return None


def _structure(path: str, sound: list[str], missing: list[str], corrupt: list[dict]) -> list[dict]:
    """Structure problems of files whose bytes are as locked: then the lock itself was made from damaged files."""
    told = set(missing) | {verdict["path"] for verdict in corrupt}
    return [problem for problem in safetensors.structure_problems(path, sound) if problem["path"] not in told]


def generation(path: str, files: list[str]) -> str:
    """Return a digest that changes when any of ``files`` is replaced or rewritten, and not when modes change.

    An engine that was started on another generation has not loaded the files that lie there now.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        try:
            size, mtime_ns, _ctime_ns, inode, device = stamps.of(os.path.join(path, name))
        except OSError:
            size = mtime_ns = inode = device = -1  # gone since it was listed
        digest.update(f"{name}\0{size}\0{mtime_ns}\0{inode}\0{device}\n".encode())
    return digest.hexdigest()
