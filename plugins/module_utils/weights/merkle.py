# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SHA-256 trees over files, as BitTorrent v2 has them, so that each piece is proved while it is on its way.

Source: BEP 52. Leaves are the digests of 16 KiB blocks (the last one as short as it is); a tree is filled up to a
power of two with leaves of 32 zero bytes; its root is the same whatever the length of a piece. The piece layer holds
the subtree of each piece, and is empty for files no longer than one piece.
"""

from __future__ import annotations

import hashlib

LEAF_BYTES = 16 * 1024
DIGEST_BYTES = 32
_ZERO = bytes(DIGEST_BYTES)

# (weights larger than this, length of a piece). A node passes on what is whole, so a piece is what each hop of the
# chain lags behind; its digest and its announcement are what it costs. 4 MiB keeps the torrent of 700 GB below 6 MB.
_PIECES = ((64 << 30, 4 << 20), (4 << 30, 1 << 20), (0, 256 << 10))


def piece_bytes(total: int) -> int:
    """Return the length of a piece for weights of ``total`` bytes, a power of two."""
    return next(length for above, length in _PIECES if total > above or not above)


class Builder:
    """Takes a file block by block; afterwards ``finish`` gives its root and its piece layer.

    :param piece: length of a piece in bytes, a power of two of at least LEAF_BYTES
    """

    def __init__(self, piece: int) -> None:
        self._per_piece = piece // LEAF_BYTES
        self._leaves: list[bytes] = []
        self._layer: list[bytes] = []
        self._rest = bytearray()

    def update(self, block: memoryview) -> None:
        """Add the next bytes of the file; whole multiples of LEAF_BYTES are taken without a copy."""
        if self._rest:
            need = LEAF_BYTES - len(self._rest)
            self._rest += block[:need]
            block = block[need:]
            if len(self._rest) < LEAF_BYTES:
                return
            self._add(self._rest)
            self._rest = bytearray()
        whole = len(block) - len(block) % LEAF_BYTES
        for start in range(0, whole, LEAF_BYTES):
            self._add(block[start : start + LEAF_BYTES])
        self._rest += block[whole:]

    def _add(self, leaf: memoryview | bytearray) -> None:
        self._leaves.append(hashlib.sha256(leaf).digest())
        if len(self._leaves) == self._per_piece:
            self._layer.append(_reduce(self._leaves, self._per_piece, _ZERO))
            self._leaves = []

    def finish(self) -> tuple[str, bytes]:
        """Return (root in hexadecimal, piece layer); an empty file has neither."""
        if self._rest:
            self._add(self._rest)
            self._rest = bytearray()
        if not self._layer:
            return (_reduce(self._leaves, _power(len(self._leaves)), _ZERO).hex() if self._leaves else ""), b""
        if self._leaves:
            self._layer.append(_reduce(self._leaves, self._per_piece, _ZERO))
            self._leaves = []
        if len(self._layer) == 1:
            return self._layer[0].hex(), b""
        return _root(self._layer, self._per_piece).hex(), b"".join(self._layer)


def root_of_layer(layer: bytes, piece: int) -> str:
    """Return the root, in hexadecimal, of the file that a whole piece layer belongs to."""
    hashes = [layer[start : start + DIGEST_BYTES] for start in range(0, len(layer), DIGEST_BYTES)]
    return _root(hashes, piece // LEAF_BYTES).hex()


def pieces_of(size: int, piece: int) -> int:
    """Return how many pieces a file of ``size`` bytes has."""
    return -(-size // piece)


def _root(layer: list[bytes], per_piece: int) -> bytes:
    empty = _reduce([], per_piece, _ZERO)
    return _reduce(layer, _power(len(layer)), empty)


def _power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _reduce(level: list[bytes], width: int, empty: bytes) -> bytes:
    """Return the root over ``width`` nodes, a power of two, of which those beyond ``level`` are ``empty``."""
    while width > 1:
        level = [
            hashlib.sha256(level[at] + (level[at + 1] if at + 1 < len(level) else empty)).digest()
            for at in range(0, len(level), 2)
        ]
        empty = hashlib.sha256(empty + empty).digest()
        width //= 2
    return level[0] if level else empty
