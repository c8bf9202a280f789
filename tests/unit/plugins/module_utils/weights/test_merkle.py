# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import itertools

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import merkle
from hypothesis import given
from hypothesis import strategies as st

LEAF = merkle.LEAF_BYTES
ZERO = bytes(32)


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(left + right).digest()


def whole_tree(content: bytes) -> list[list[bytes]]:
    """All levels of the tree, the leaves first: filled with zero digests to a power of two, then halved to one.

    Written from the specification's words alone, with every node of every level made.
    """
    leaves = [hashlib.sha256(content[at : at + LEAF]).digest() for at in range(0, len(content), LEAF)]
    while len(leaves) & (len(leaves) - 1):
        leaves.append(ZERO)
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node(below[at], below[at + 1]) for at in range(0, len(below), 2)])
    return levels


def reference(content: bytes, piece: int) -> tuple[str, bytes]:
    """Root and piece layer by BEP 52: the layer is the level of the pieces, without those beyond the file's end."""
    if not content:
        return "", b""
    levels = whole_tree(content)
    root = levels[-1][0].hex()
    if len(content) <= piece:
        return root, b""
    level = levels[(piece // LEAF).bit_length() - 1]
    return root, b"".join(level[: -(-len(content) // piece)])


def build(content: bytes, piece: int, cuts: list[int]) -> tuple[str, bytes]:
    builder = merkle.Builder(piece)
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        builder.update(memoryview(content)[start:end])
    return builder.finish()


def content_of(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(size)


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("leaves", [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("rest", [-1, 0, 1])
def test_the_tree_is_the_references_around_every_edge(shift, leaves, rest):
    content = content_of(max(0, leaves * LEAF + rest))
    assert build(content, LEAF << shift, []) == reference(content, LEAF << shift)


@given(
    size=st.integers(0, 40 * LEAF),
    shift=st.integers(0, 6),
    cuts=st.lists(st.integers(0, 40 * LEAF), max_size=8),
    seed=st.integers(0, 3),
)
def test_the_tree_is_the_references_whatever_the_blocks(size, shift, cuts, seed):
    content = content_of(size, seed)
    assert build(content, LEAF << shift, cuts) == reference(content, LEAF << shift)


@given(size=st.integers(1, 40 * LEAF), shift=st.integers(0, 6))
def test_the_root_is_the_same_whatever_the_length_of_a_piece(size, shift):
    content = content_of(size)
    assert build(content, LEAF << shift, [])[0] == build(content, LEAF, [])[0]


@given(size=st.integers(1, 40 * LEAF), shift=st.integers(0, 4))
def test_a_layer_leads_to_the_root(size, shift):
    piece = LEAF << shift
    root, layer = build(content_of(size), piece, [])
    assert bool(layer) == (size > piece)
    if layer:
        assert len(layer) == merkle.pieces_of(size, piece) * merkle.DIGEST_BYTES
        assert merkle.root_of_layer(layer, piece) == root


@given(size=st.integers(LEAF + 1, 20 * LEAF), byte=st.integers(0, 20 * LEAF), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_the_root_and_its_own_piece_alone(size, byte, bit):
    content = bytearray(content_of(size))
    before, layer_before = build(bytes(content), LEAF, [])
    content[byte % size] ^= 1 << bit
    after, layer_after = build(bytes(content), LEAF, [])
    assert before != after
    starts = range(0, max(len(layer_before), len(layer_after)), 32)
    changed = [at // 32 for at in starts if layer_before[at : at + 32] != layer_after[at : at + 32]]
    assert changed == [byte % size // LEAF]


def test_known_digests():
    # One leaf is its own root; two leaves are hashed together; the third is joined by a leaf of zero bytes.
    one = hashlib.sha256(b"a" * LEAF).digest()
    rest = hashlib.sha256(b"b").digest()
    assert build(b"a" * LEAF, LEAF, [])[0] == one.hex()
    assert build(b"a" * LEAF + b"b", 2 * LEAF, []) == (node(one, rest).hex(), b"")
    whole = build(b"a" * 2 * LEAF + b"b", LEAF, [])
    assert whole == (node(node(one, one), node(rest, ZERO)).hex(), one + one + rest)


def test_an_empty_file_has_no_root():
    assert merkle.Builder(LEAF).finish() == ("", b"")


@pytest.mark.parametrize(
    ("total", "length"),
    [(0, 256 << 10), (4 << 30, 256 << 10), ((4 << 30) + 1, 1 << 20), (64 << 30, 1 << 20), ((64 << 30) + 1, 4 << 20)],
)
def test_the_length_of_a_piece_by_the_whole(total, length):
    assert merkle.piece_bytes(total) == length


@given(st.integers(0, 2**50))
def test_every_length_of_a_piece_is_one_that_the_format_allows(total):
    length = merkle.piece_bytes(total)
    assert length >= LEAF and length & (length - 1) == 0


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (LEAF, 1), (LEAF + 1, 2), (10 * LEAF, 10)])
def test_pieces_of(size, count):
    assert merkle.pieces_of(size, LEAF) == count
