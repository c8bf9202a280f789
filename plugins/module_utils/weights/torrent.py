# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BitTorrent v2 torrents of weights, made from the lock and the piece layers alone.

Everything in the info dictionary follows from the lock, so a host proves a torrent that it was given by writing the
one that it expects and comparing; only the piece layers are new to it, and each must give the root that the lock has.
Source: BEP 3 (bencoding), BEP 27 (private), BEP 52 (v2).
"""

from __future__ import annotations

import hashlib

from ..errors import LlmError
from . import lockfile, merkle

# libtorrent 2.1.1 refuses what is nested deeper than 100 (load_torrent_limits.max_decode_depth); five levels are ours.
MOST_FOLDERS = 90
# Of the lock's identity, in hexadecimal digits: for people, and as the name of the folder that is never made.
_NAME_DIGITS = 16
_REMEDY = "make the torrents again with weights_torrent on the seed, and hand out the lock that it returns"


def groups(lock: dict, count: int) -> list[list[str]]:
    """Return the paths of all non-empty files in at most ``count`` groups of about as many bytes each.

    The same on every host: files go by size, the largest first, into the group that holds the least.
    """
    files = sorted((entry for entry in lock["files"] if entry["size"]), key=lambda e: (-e["size"], e["path"]))
    made: list[list[str]] = [[] for _group in range(min(max(1, count), len(files)))]
    held = [0] * len(made)
    for entry in files:
        least = held.index(min(held))
        made[least].append(entry["path"])
        held[least] += entry["size"]
    return [sorted(paths) for paths in made]


def info(lock: dict, group: list[str]) -> dict:
    """Return the info dictionary of the torrent for the files ``group`` of a checked lock with merkle roots.

    :raises LlmError: a file has no merkle root yet, or lies too deep
    """
    return {
        "file tree": _file_tree(_entries(lock, group)),
        "meta version": 2,
        "name": lockfile.identity(lock)[:_NAME_DIGITS],
        "piece length": merkle.piece_bytes(lockfile.total_bytes(lock)),
        "private": 1,
    }


def infohash(lock: dict, group: list[str]) -> str:
    """Return the v2 info-hash, in hexadecimal, of the torrent for ``group``."""
    return hashlib.sha256(encode(info(lock, group))).hexdigest()


def build(lock: dict, group: list[str], layers: dict[str, bytes], piece: int) -> bytes:
    """Return the torrent for ``group``.

    :param layers: piece layer of every file that is longer than a piece, by path
    :param piece: length of a piece that the layers were made with
    :raises LlmError: a layer is missing or does not give the root in the lock
    """
    data = encode({"info": info(lock, group), "piece layers": _layers_by_root(lock, group, layers, piece)})
    check(data, lock, group)
    return data


def check(data: bytes, lock: dict, group: list[str]) -> dict[str, bytes]:
    """Return the piece layer of each file of ``group`` by path (empty for files of one piece), proved by the lock.

    :raises LlmError: ``data`` is not, byte for byte, the torrent that belongs to the lock
    """
    rest = memoryview(data)
    rest = _expect(rest, b"d4:info" + encode(info(lock, group)) + b"12:piece layersd")
    piece = merkle.piece_bytes(lockfile.total_bytes(lock))
    entries = _entries(lock, group)
    sizes = {bytes.fromhex(entry["merkle"]): entry["size"] for entry in entries if entry["size"] > piece}
    proved = {}
    for root, size in sorted(sizes.items()):
        length = merkle.pieces_of(size, piece) * merkle.DIGEST_BYTES
        rest = _expect(rest, b"32:" + root + b"%d:" % length)
        proved[root.hex()] = bytes(rest[:length])
        if len(proved[root.hex()]) != length or merkle.root_of_layer(proved[root.hex()], piece) != root.hex():
            _refuse("a piece layer that gives another root")
        rest = rest[length:]
    if _expect(rest, b"ee"):
        _refuse("bytes behind its end")
    return {entry["path"]: proved.get(entry["merkle"], b"") for entry in entries}


def encode(value: object) -> bytes:
    """Return ``value`` (int, text, bytes, dict with text or bytes as keys) in bencoding."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, dict):
        raw = {key.encode() if isinstance(key, str) else key: item for key, item in value.items()}
        return b"d" + b"".join(encode(key) + encode(raw[key]) for key in sorted(raw)) + b"e"
    data = value.encode() if isinstance(value, str) else value
    return b"%d:%b" % (len(data), data)


def _entries(lock: dict, group: list[str]) -> list[dict]:
    wanted = set(group)
    entries = [entry for entry in lock["files"] if entry["path"] in wanted]
    unknown = [entry["path"] for entry in entries if not entry.get("merkle")]
    if unknown or len(entries) != len(wanted):
        raise LlmError(
            "the lock does not say enough to make a torrent",
            wanted="a merkle root for every file that is not empty",
            found=f"none for {(unknown or sorted(wanted))[0]}",
            remedy="use the lock that weights_torrent returns on the seed",
        )
    return entries


def _file_tree(entries: list[dict]) -> dict:
    root: dict = {}
    for entry in entries:
        *folders, name = entry["path"].split("/")
        if len(folders) > MOST_FOLDERS:
            raise LlmError(
                f"{entry['path'][:80]}... lies too deep for a torrent",
                wanted=f"at most {MOST_FOLDERS} folders",
                found=f"{len(folders)} folders",
                remedy="publish the model with fewer folders",
            )
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
            if "" in place:
                raise LlmError(
                    "the lock names a file and files below it",
                    wanted=f"a file or a folder {folder}",
                    found=entry["path"],
                    remedy="make the lock again with weights_lock from a source that you trust",
                )
        place[name] = {"": {"length": entry["size"], "pieces root": bytes.fromhex(entry["merkle"])}}
    return root


def _layers_by_root(lock: dict, group: list[str], layers: dict[str, bytes], piece: int) -> dict[bytes, bytes]:
    if piece != merkle.piece_bytes(lockfile.total_bytes(lock)):
        _refuse(f"layers of pieces of {piece} bytes")
    long = [entry for entry in _entries(lock, group) if entry["size"] > piece]
    return {bytes.fromhex(entry["merkle"]): layers.get(entry["path"], b"") for entry in long}


def _expect(rest: memoryview, wanted: bytes) -> memoryview:
    if rest[: len(wanted)] != wanted:
        _refuse("another one")
    return rest[len(wanted) :]


def _refuse(found: str) -> None:
    raise LlmError(
        "a torrent does not belong to the lock",
        wanted="the torrent of these files, with the roots that the lock has",
        found=found,
        remedy=_REMEDY,
    )
