# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import hashing, layers, merkle, tree
from hypothesis import given
from hypothesis import strategies as st

PIECE = 2 * merkle.LEAF_BYTES


@pytest.fixture
def put(tmp_path):
    """Function that writes a file of the given length; gives its path, its entry and its layer."""

    def write(size: int) -> tuple[str, dict, bytes]:
        path = tmp_path / f"file-{size}"
        path.write_bytes(hashlib.shake_128(b"seed").digest(size))
        found = hashing.digest_file(str(path), piece=PIECE)
        entry = {"path": path.name, "size": size, "sha256": found.sha256, "merkle": found.merkle}
        return str(path), entry, found.layer

    return write


def test_what_is_stored_is_loaded(tmp_path, put):
    _path, entry, layer = put(5 * PIECE + 1)
    dest = str(tmp_path / "model")
    assert layers.load(dest, entry, PIECE) is None
    layers.store(dest, entry["sha256"], layer)
    assert layers.load(dest, entry, PIECE) == layer
    stored = os.path.join(tree.aside(dest, "layers"), entry["sha256"])
    assert os.stat(stored).st_mode & 0o777 == 0o640
    assert os.listdir(tree.aside(dest, "layers")) == [entry["sha256"]]


@pytest.mark.parametrize("size", [0, 1, PIECE])
def test_a_file_of_one_piece_needs_no_layer(tmp_path, put, size):
    _path, entry, layer = put(size)
    layers.store(str(tmp_path / "model"), entry["sha256"], layer)
    assert layers.load(str(tmp_path / "model"), entry, PIECE) == b""
    assert not os.path.exists(tree.aside(str(tmp_path / "model"), "layers"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda layer: layer[:-1],
        lambda layer: layer + b"x",
        lambda layer: layer[:-32],
        lambda layer: layer + bytes(32),
        lambda layer: b"",
        lambda layer: bytes([layer[0] ^ 1]) + layer[1:],
        lambda layer: layer[32:64] + layer[:32] + layer[64:],
    ],
)
def test_a_layer_that_does_not_lead_to_the_root_is_none(tmp_path, put, damage):
    _path, entry, layer = put(3 * PIECE + 5)
    dest = str(tmp_path / "model")
    layers.store(dest, entry["sha256"], layer)
    with open(os.path.join(tree.aside(dest, "layers"), entry["sha256"]), "wb") as stream:
        stream.write(damage(layer))
    assert layers.load(dest, entry, PIECE) is None


def test_a_layer_of_another_length_of_piece_or_without_a_root_is_none(tmp_path, put):
    _path, entry, layer = put(8 * PIECE)
    dest = str(tmp_path / "model")
    layers.store(dest, entry["sha256"], layer)
    assert layers.load(dest, entry, 2 * PIECE) is None
    del entry["merkle"]
    assert layers.load(dest, entry, PIECE) is None


def test_a_link_in_place_of_a_layer_is_not_followed(tmp_path, put):
    _path, entry, layer = put(3 * PIECE)
    dest = str(tmp_path / "model")
    layers.store(dest, entry["sha256"], layer)
    stored = os.path.join(tree.aside(dest, "layers"), entry["sha256"])
    os.rename(stored, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", stored)
    assert layers.load(dest, entry, PIECE) is None


def test_drop_keeps_what_it_is_told(tmp_path):
    dest = str(tmp_path / "model")
    layers.drop(dest, set())
    for name in ("a" * 64, "b" * 64):
        layers.store(dest, name, bytes(64))
    layers.drop(dest, {"b" * 64, "c" * 64})
    assert os.listdir(tree.aside(dest, "layers")) == ["b" * 64]


def test_a_store_that_fails_leaves_nothing(tmp_path, monkeypatch):
    dest = str(tmp_path / "model")
    layers.store(dest, "a" * 64, bytes(64))

    def refuse(_origin, _target):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        layers.store(dest, "b" * 64, bytes(64))
    assert os.listdir(tree.aside(dest, "layers")) == ["a" * 64]


def judge(path, entry, layer):
    return layers.good_pieces(path, entry, layer, PIECE)


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 4 * PIECE, 4 * PIECE + 9])
def test_all_pieces_of_a_sound_file_are_good(put, size):
    assert judge(*put(size)) == [True] * merkle.pieces_of(size, PIECE)


def test_an_empty_file_has_no_pieces(put):
    assert judge(*put(0)) == []


@pytest.mark.parametrize("size", [PIECE, 3 * PIECE])
def test_of_a_missing_file_no_piece_is_good(put, size):
    path, entry, layer = put(size)
    os.unlink(path)
    assert judge(path, entry, layer) == [False] * merkle.pieces_of(size, PIECE)


def test_what_a_file_has_too_much_is_not_looked_at(put):
    path, entry, layer = put(3 * PIECE - 7)
    with open(path, "ab") as stream:
        stream.write(bytes(5 * PIECE))
    assert judge(path, entry, layer) == [True] * 3


@given(
    size=st.integers(1, 6 * PIECE),
    flips=st.lists(st.integers(0, 6 * PIECE), max_size=3),
    left=st.none() | st.floats(0, 1),
)
def test_a_piece_is_good_when_all_its_bytes_are_as_published(put, size, flips, left):
    path, entry, layer = put(size)
    with open(path, "rb") as stream:
        content = bytearray(stream.read())
    whole = bytes(content)
    for at in flips:
        content[at % size] ^= 1
    kept = content if left is None else content[: int(size * left)]
    with open(path, "wb") as stream:
        stream.write(kept)
    starts = range(0, size, PIECE)
    assert judge(path, entry, layer) == [bytes(kept[at : at + PIECE]) == whole[at : at + PIECE] for at in starts]


def test_the_two_digests_below_a_root_are_no_piece(put):
    # Trees do not tell leaves from nodes: 64 bytes can have the root of a file of 32 KiB.
    path, entry, layer = put(PIECE)
    with open(path, "rb") as stream:
        halves = [stream.read(merkle.LEAF_BYTES) for _half in range(2)]
    with open(path, "wb") as stream:
        stream.write(b"".join(hashlib.sha256(half).digest() for half in halves))
    assert hashing.digest_file(path, piece=PIECE).merkle == entry["merkle"]
    assert judge(path, entry, layer) == [False]
