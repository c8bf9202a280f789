# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds a folder of weights against its lock."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterable
from typing import Callable

from ..errors import LlmError
from . import hashing, layers, lockfile, safetensors, stamps, tree
from .progress import Progress


class Digests:
    """SHA-256 of the files of one folder, from stamps where the file has not changed, else by reading it.

    After use ``bytes_hashed`` and ``cached`` (files) say what was done, and ``roots`` has the merkle roots that are
    known, by path; of an empty file the root is empty.

    :param stamp_file: where the stamps lie, see stamps.default_path
    :param deep: read every file, whatever its stamp says
    :param piece: length of a piece in bytes; more than 0 makes the root and the piece layer of every file known
    :param store: keep the piece layers of files that are read
    """

    def __init__(self, folder: str, stamp_file: str, deep: bool = False, piece: int = 0, store: bool = True) -> None:
        self.folder = folder
        self.stamp_file = stamp_file
        self.deep = deep
        self.piece = piece
        self.store = store
        self.noted = stamps.load(stamp_file)
        self.fresh: dict[str, dict] = {}
        self.sound = ""
        self.roots: dict[str, str] = {}
        self.bytes_hashed = 0
        self.cached = 0
        self._guard = threading.Lock()

    def of(self, relative: str, progress: Progress | None = None) -> str:
        """Return the SHA-256 of ``relative``; raises OSError or LlmError for a file that cannot be read or changes."""
        return self.recall(relative) or self.read(relative, progress)

    def recall(self, relative: str) -> str:
        """Return the SHA-256 of ``relative`` where all that is wanted of it is known by its stamp, else nothing."""
        if self.deep:
            return ""
        entry = self._entry(relative)
        # Whatever the way there, the same inode with the same times has the same bytes.
        if not entry or entry["stamp"] != stamps.of(os.path.join(self.folder, relative)) or not self._has_tree(entry):
            return ""
        with self._guard:
            self.cached += 1
            self._note(relative, entry)
        return entry["sha256"]

    def read(self, relative: str, progress: Progress | None = None) -> str:
        """Read ``relative`` and return its SHA-256."""
        full = tree.resolve(self.folder, relative)
        before = stamps.of(full)
        began = stamps.now_ns()
        found = hashing.digest_file(full, piece=self.piece, progress=progress)
        with self._guard:
            self.bytes_hashed += found.size
        if stamps.of(full) != before:
            raise LlmError(
                f"{relative} was changed while it was read",
                wanted="a file that stays as it is",
                found="another size, time or inode than before",
                remedy="see what writes to that folder, then run this again",
            )
        if self.store:
            # Where they cannot be written the file is read again when they are needed.
            with contextlib.suppress(OSError):
                layers.store(self.folder, found.sha256, found.layer)
        known = self._entry(relative)
        root = found.merkle or (known["merkle"] if known.get("sha256") == found.sha256 else "")
        entry = {"stamp": before, "sha256": found.sha256, "merkle": root}
        with self._guard:
            self._note(relative, entry, settled=stamps.is_settled(before, began))
        return found.sha256

    def _entry(self, relative: str) -> dict:
        """Return what was noted of a file, {stamp, sha256, merkle}, or nothing."""
        entry = self.noted.files.get(relative)
        if not isinstance(entry, dict) or not isinstance(entry.get("stamp"), list):
            return {}
        return entry if all(isinstance(entry.get(key), str) for key in ("sha256", "merkle")) else {}

    def _has_tree(self, entry: dict) -> bool:
        size = entry["stamp"][0]
        if not self.piece or not size:
            return True
        return bool(entry["merkle"]) and layers.load(self.folder, dict(entry, size=size), self.piece) is not None

    def _note(self, relative: str, entry: dict, settled: bool = True) -> None:
        if settled:
            self.fresh[relative] = entry
        if entry["merkle"] or not entry["stamp"][0]:
            self.roots[relative] = entry["merkle"]

    def save(self) -> bool:
        """Store the stamps of all files asked for, when they differ from the stored ones."""
        same = (self.fresh, self.sound) == self.noted
        return same or stamps.write(self.stamp_file, self.fresh, self.sound)


def verify(
    path: str,
    lock: dict,
    *,
    deep: bool = False,
    jobs: int = 0,
    stamp_file: str = "",
    save: bool = True,
    piece: int = 0,
    progress: Progress | None = None,
) -> dict:
    """Compare the folder ``path`` with a checked ``lock``.

    :param deep: read every file, whatever the stamps say
    :param jobs: threads; 0 is one a core
    :param save: False writes nothing (check mode)
    :param piece: length of a piece in bytes; more than 0 also learns merkle roots and stores piece layers
    :param progress: told of the bytes that are read; its total begins with those of the lock, and what needs no
        reading is taken off
    :return: verified, files, bytes, bytes_hashed, cached, missing[], corrupt[], unexpected[], merkle{} (path: root, of
        files as published whose root is known), tree (see fingerprint), generation, seconds
    :raises LlmError: when the folder itself cannot be read
    """
    started = time.monotonic()
    present = _present(path)
    wanted = {entry["path"]: entry for entry in lock["files"]}
    missing = sorted(set(wanted) - {name for name, entry in present.items() if entry.kind == "file"})
    unexpected = sorted(set(present) - set(wanted)) + [name for name in missing if name in present]
    there = [wanted[name] for name in sorted(set(wanted) - set(missing))]
    digests = Digests(path, stamp_file or stamps.default_path(path), deep, piece, save)
    found = _digest_all(
        digests, [present[entry["path"]] for entry in there], jobs, progress, lockfile.total_bytes(lock)
    )
    verdicts = [_judge(digests, present[entry["path"]], entry, found[entry["path"]]) for entry in there]
    corrupt = [verdict for verdict in verdicts if verdict]
    sound = [entry["path"] for entry, verdict in zip(there, verdicts) if not verdict]
    everything = fingerprint(present.values(), {name: digest for name, (digest, _error) in found.items()})
    corrupt += _structure(digests, sound, everything, missing, corrupt)
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
        "merkle": {name: root for name, root in sorted(digests.roots.items()) if "patched" not in wanted[name]},
        "tree": everything,
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


def _digest_all(
    digests: Digests, files: list[tree.Entry], jobs: int, progress: Progress | None, expected: int
) -> dict[str, tuple[str, str]]:
    """Return {path: (SHA-256, error)} of ``files``, one of the two empty; the largest are read first.

    :param expected: bytes that ``progress`` expects to be read
    """
    found = {entry.path: _attempt(digests.recall, entry.path) for entry in files}
    left = sorted((entry for entry in files if found[entry.path] == ("", "")), key=lambda entry: -entry.size)
    if not left:
        return found
    if progress:
        progress.total -= expected - sum(entry.size for entry in left)
    # Entered here, so that a run which reads nothing writes nothing.
    with progress or contextlib.nullcontext():
        workers = min(jobs or hashing.cores(), len(left))
        read = hashing.parallel(lambda entry: _attempt(digests.read, entry.path, progress), left, workers)
    found.update(zip((entry.path for entry in left), read))
    return found


def _attempt(digest: Callable, *arguments: object) -> tuple[str, str]:
    try:
        return digest(*arguments), ""
    except (OSError, LlmError) as error:
        return "", str(error)


def _judge(digests: Digests, present: tree.Entry, entry: dict, found: tuple[str, str]) -> dict | None:
    """Return what is wrong with one file, or None."""
    path, placed, (digest, error) = entry["path"], lockfile.placed(entry), found
    root, locked_root = digests.roots.get(path, ""), entry.get("merkle", "")
    if present.size != placed["size"]:
        reason = "truncated" if present.size < placed["size"] else "size"
        wanted, got = f"{placed['size']} bytes", f"{present.size} bytes"
    elif error:
        reason, wanted, got = "unreadable", "a readable file", error
    elif digest != placed["sha256"]:
        reason, wanted, got = "sha256", placed["sha256"], digest
    elif "patched" not in entry and root and locked_root and root != locked_root:
        # The right bytes under a wrong root: what lies here is sound, and the lock was tampered with.
        reason, wanted, got = "merkle", locked_root, root
    else:
        return None
    return {"path": path, "reason": reason, "wanted": wanted, "found": got}


def _structure(
    digests: Digests, sound: list[str], everything: str, missing: list[str], corrupt: list[dict]
) -> list[dict]:
    """Structure problems of files whose bytes are as locked: then the lock itself was made from damaged files.

    The same bytes have the same structure, so a tree that was found sound is not looked into again.
    """
    told = set(missing) | {verdict["path"] for verdict in corrupt}
    problems = []
    if digests.deep or digests.noted.sound != everything:
        problems = safetensors.structure_problems(digests.folder, sound)
    if not problems and not told:
        digests.sound = everything
    return [problem for problem in problems if problem["path"] not in told]


def fingerprint(present: Iterable[tree.Entry], digests: dict[str, str]) -> str:
    """Return a digest of everything that was found: two folders hold the same if and only if theirs are the same.

    For exactly the files of a lock it is the lock's identity (see lockfile.identity). What has no digest (strays,
    links, files that cannot be read) goes in by its name, kind and size.
    """
    text = ""
    for entry in sorted(present):
        # The name of a stray may hold a line break, none holds a zero byte.
        name = entry.path.replace("\n", "\0")
        text += f"{digests.get(entry.path) or entry.kind} {entry.size} {name}\n"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


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
