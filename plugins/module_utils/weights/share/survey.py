# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a lock is good on this host already, piece by piece, and whether the rest fits on the disk."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from ...errors import LlmError
from .. import hashing, layers, lockfile, merkle, place, tree, verify

# For our own notes, and folders on the way.
_SPARE_BYTES, _SPARE_INODES = 16 << 20, 64


class File(NamedTuple):
    """Where one file of the lock is, or will be while it is received.

    ``file``: the file itself. ``good``: for each piece, whether it is there. ``placed``: the engine reads it already.
    ``origin``: a file from which the good pieces must be copied first, else empty.
    """

    file: str
    good: list[bool]
    placed: bool = False
    origin: str = ""


def look(
    dest: str,
    lock: dict,
    entries: list[dict],
    known: dict[str, bytes],
    *,
    save: bool = False,
    progress: object | None = None,
) -> dict[str, File]:
    """Return {path: File} of those of ``entries`` that are not empty; nothing but stamps is written.

    :param entries: the files of ``lock`` to look at
    :param known: proved piece layer of each of them, empty for files of one piece
    :param save: whether to keep stamps of what was read
    """
    piece = merkle.piece_bytes(lockfile.total_bytes(lock))
    sound = _sound(dest, dict(lock, files=entries), save, progress)
    wanted = [entry for entry in entries if entry["size"]]
    found = hashing.parallel(
        lambda entry: _find(dest, entry, entry["path"] in sound, known[entry["path"]], piece), wanted, hashing.cores()
    )
    return {entry["path"]: file for entry, file in zip(wanted, found)}


def _sound(dest: str, lock: dict, save: bool, progress: object | None) -> set[str]:
    if not os.path.isdir(dest):
        return set()
    result = verify.verify(dest, lock, save=save, progress=progress)
    for problem in result["corrupt"]:
        if problem["reason"] == "merkle":
            raise LlmError(
                f"the lock contradicts itself on {problem['path']}",
                wanted=f"merkle root {problem['wanted']}",
                found=f"a file with the SHA-256 of the lock and the merkle root {problem['found']}",
                remedy="make the lock again with weights_lock",
            )
    # What the lock names is brought as it is; weights_verify tells of bytes that are as locked and yet no safetensors.
    broken = {problem["path"] for problem in result["corrupt"] if problem["reason"] != "structure"}
    wrong = set(result["missing"]) | broken
    return {entry["path"] for entry in lock["files"]} - wrong


def _find(dest: str, entry: dict, sound: bool, layer: bytes, piece: int) -> File:
    count = merkle.pieces_of(entry["size"], piece)
    published = place.published_path(dest, entry)
    if sound and ("patched" not in entry or all(_good(published, entry, layer, piece))):
        return File(published, [True] * count, placed=True)
    incoming = os.path.join(tree.aside(dest, "incoming"), entry["path"])
    if _is_plain(incoming) and os.lstat(incoming).st_nlink == 1:
        return File(incoming, _good(incoming, entry, layer, piece))
    for origin in (tree.resolve(dest, entry["path"]), published):
        good = _good(origin, entry, layer, piece)
        if any(good):
            return File(incoming, good, origin=origin)
    return File(incoming, [False] * count)


def _good(path: str, entry: dict, layer: bytes, piece: int) -> list[bool]:
    if not _is_plain(path):
        return [False] * merkle.pieces_of(entry["size"], piece)
    return layers.good_pieces(path, entry, layer, piece)


def _is_plain(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def good_bytes(entry: dict, file: File, piece: int) -> int:
    """Return how many bytes of a file are good."""
    last = entry["size"] - (len(file.good) - 1) * piece
    return sum(piece for good in file.good[:-1] if good) + (last if file.good[-1] else 0)


def check_space(dest: str, lock: dict, found: dict[str, File]) -> None:
    """Raise LlmError when the file system of ``dest`` has no room, in bytes or inodes, for what is still to come."""
    piece = merkle.piece_bytes(lockfile.total_bytes(lock))
    bytes_needed = inodes_needed = 0
    for entry in lock["files"]:
        file = found.get(entry["path"])
        if file and not file.placed:
            held = 0 if file.origin else good_bytes(entry, file, piece)
            bytes_needed += entry["size"] - held
            inodes_needed += not os.path.lexists(file.file)
    if not bytes_needed:
        return
    ancestor = existing(dest)
    space = os.statvfs(ancestor)
    free = space.f_bavail * space.f_frsize
    if free < bytes_needed + _SPARE_BYTES:
        raise LlmError(
            f"{dest} has no space for the weights",
            wanted=f"{bytes_needed + _SPARE_BYTES} bytes free",
            found=f"{free} bytes free on the file system of {ancestor}",
            remedy="free space there, or set llm_weights_path to a larger disk",
        )
    # File systems that make inodes as they need them (btrfs) say that they have none at all.
    if space.f_files and space.f_favail < inodes_needed + _SPARE_INODES:
        raise LlmError(
            f"{dest} has no room for more files",
            wanted=f"{inodes_needed + _SPARE_INODES} inodes free",
            found=f"{space.f_favail} inodes free on the file system of {ancestor}",
            remedy="remove small files there, or set llm_weights_path to another disk",
        )


def existing(path: str) -> str:
    """Return ``path``, or the nearest folder above it that exists."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def prepare(dest: str, lock: dict, found: dict[str, File]) -> None:
    """Make the folders for what is received, and copy the files of which only some pieces are good.

    The file that the engine may be reading is left as it is; where the file system can, the copy shares its blocks.
    """
    for entry in lock["files"]:
        file = found.get(entry["path"])
        if file and not file.placed:
            staged = place.staged(dest, entry["path"])
            if file.origin:
                _copy(file.origin, staged, entry["size"])


def _copy(origin: str, target: str, most: int) -> None:
    """Copy the first ``most`` bytes; a copy that is cut off is worth as much as its pieces are."""
    source = os.open(origin, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, place.FILE_MODE)
        try:
            _copy_range(source, out, most)
        finally:
            os.close(out)
    finally:
        os.close(source)


def _copy_range(source: int, out: int, left: int) -> None:
    kernel = True
    while left:
        try:
            done = os.copy_file_range(source, out, left) if kernel else _copy_block(source, out, left)
        except OSError:
            if not kernel:
                raise
            # Kernels before 5.19 do it on some file systems only, see copy_file_range(2); the positions are kept.
            kernel = False
            continue
        if not done:
            return
        left -= done


def _copy_block(source: int, out: int, most: int) -> int:
    block = memoryview(os.read(source, min(most, hashing.READ_BYTES)))
    done = len(block)
    while block:
        block = block[os.write(out, block) :]
    return done
