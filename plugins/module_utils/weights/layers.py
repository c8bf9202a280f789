# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps the piece layers of files, so that torrents are made and single pieces judged without reading a file again.

A layer is the digests of the pieces of one file, 32 bytes each, in a file that is named by the SHA-256 of the file
that it belongs to. It is believed only when it leads to the merkle root that the lock has.
"""

from __future__ import annotations

import contextlib
import os
import tempfile

from . import hashing, merkle, tree

_FOLDER = "layers"


def store(dest: str, sha256: str, layer: bytes) -> None:
    """Keep the piece layer of a file of ``dest``, or do nothing where it is empty (a file of one piece has none).

    :param sha256: the file's, as published
    """
    if not layer:
        return
    path = _path(dest, sha256)
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(layer)
            os.fchmod(handle, 0o640)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def load(dest: str, entry: dict, piece: int) -> bytes | None:
    """Return the piece layer of the file of a lock's ``entry``, empty for files of one piece; None when not known.

    What is returned is proved against the entry's merkle root; an entry without one has no layer that is known.

    :param piece: length of a piece in bytes
    """
    if entry["size"] <= piece:
        return b""
    length = merkle.pieces_of(entry["size"], piece) * merkle.DIGEST_BYTES
    try:
        file = os.open(_path(dest, entry["sha256"]), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with open(file, "rb") as stream:
        layer = stream.read(length + 1)
    proved = len(layer) == length and merkle.root_of_layer(layer, piece) == entry.get("merkle")
    return layer if proved else None


def drop(dest: str, keep: set[str]) -> None:
    """Delete all layers of ``dest`` but those of the files whose SHA-256 is in ``keep``."""
    folder = tree.aside(dest, _FOLDER)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name not in keep:
                os.unlink(os.path.join(folder, name))


def good_pieces(path: str, entry: dict, layer: bytes, piece: int) -> list[bool]:
    """Return for each piece of the file at ``path`` whether it is as the lock's ``entry`` has it; reads it once.

    A file may be missing or of another length: what it does not have is not good, and what it has too much is not
    looked at.

    :param layer: the proved piece layer, see load
    :param piece: length of a piece in bytes
    """
    size = entry["size"]
    wanted = _digests(layer) or ([bytes.fromhex(entry["merkle"])] if size else [])
    found, length = _read(path, size, piece)
    # A piece is there when all its bytes are: a digest alone says nothing of a length, see BEP 52's trees.
    return [length >= min(size, (at + 1) * piece) and found[at] == digest for at, digest in enumerate(wanted)]


def _read(path: str, size: int, piece: int) -> tuple[list[bytes], int]:
    """Return (digest of each piece, bytes) of at most the first ``size`` bytes of a file, as far as it can be read."""
    builder = merkle.Builder(piece)
    left = size
    with contextlib.suppress(OSError):
        for block in hashing.blocks(path):
            builder.update(block[:left])
            left -= min(left, len(block))
            if not left:
                break
    root, layer = builder.finish()
    return _digests(layer) or [bytes.fromhex(root)], size - left


def _digests(layer: bytes) -> list[bytes]:
    return [layer[at : at + merkle.DIGEST_BYTES] for at in range(0, len(layer), merkle.DIGEST_BYTES)]


def _path(dest: str, sha256: str) -> str:
    return os.path.join(tree.aside(dest, _FOLDER), sha256)
