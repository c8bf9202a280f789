# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockfile, merkle, torrent
from hypothesis import given
from hypothesis import strategies as st

PIECE = merkle.piece_bytes(1)
SIZES = {"a.data": 3 * PIECE + 5, "sub/b.data": PIECE, "sub/deep/c": 1, "empty": 0, "z": 2 * PIECE}


def made(sizes: dict[str, int]) -> tuple[dict, dict[str, bytes]]:
    entries, known = [], {}
    for path, size in sizes.items():
        data = hashlib.shake_128(path.encode()).digest(size)
        builder = merkle.Builder(PIECE)
        builder.update(memoryview(data))
        root, known[path] = builder.finish()
        entry = {"path": path, "size": size, "sha256": hashlib.sha256(data).hexdigest(), "merkle": root}
        entries.append(entry)
    return lockfile.check({"files": entries}), known


@pytest.fixture
def lock():
    return made(SIZES)[0]


@pytest.fixture
def group(lock):
    return torrent.groups(lock, 1)[0]


@pytest.fixture
def data(lock, group):
    return torrent.build(lock, group, made(SIZES)[1], PIECE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, b"i0e"),
        (-7, b"i-7e"),
        ("", b"0:"),
        ("\u00e9", b"2:\xc3\xa9"),
        (b"\x00", b"1:\x00"),
        ({}, b"de"),
        ({"b": 1, "": {"a": "x"}, b"\xff": 2}, b"d0:d1:a1:xe1:bi1e1:\xffi2ee"),
    ],
)
def test_values_are_written_as_bep_3_has_them(value, text):
    assert torrent.encode(value) == text


def test_the_info_dictionary_is_what_bep_52_asks_for(lock, group):
    info = torrent.info(lock, group)
    assert (info["meta version"], info["private"], info["piece length"]) == (2, 1, PIECE)
    assert info["name"] == lockfile.identity(lock)[:16]
    assert set(info["file tree"]) == {"a.data", "sub", "z"}
    leaf = info["file tree"]["sub"]["deep"]["c"][""]
    assert leaf["length"] == 1
    # A tree of one leaf has that leaf's digest as its root.
    assert leaf["pieces root"] == hashlib.sha256(hashlib.shake_128(b"sub/deep/c").digest(1)).digest()


def test_what_is_built_is_proved_and_gives_its_layers_back(lock, group, data):
    found = torrent.check(data, lock, group)
    assert found == {path: layer for path, layer in made(SIZES)[1].items() if path != "empty"}
    assert {path for path, layer in found.items() if layer} == {"a.data", "z"}
    assert torrent.infohash(lock, group) == hashlib.sha256(data[7 : data.index(b"12:piece layers")]).hexdigest()


def test_files_of_the_same_bytes_share_a_layer():
    lock, known = made({"one": 2 * PIECE})
    twin = dict(lock["files"][0], path="two")
    lock = lockfile.check(dict(lock, files=[*lock["files"], twin]))
    data = torrent.build(lock, ["one", "two"], {**known, "two": known["one"]}, PIECE)
    assert torrent.check(data, lock, ["one", "two"])["two"] == known["one"]


@given(st.data())
def test_one_changed_byte_anywhere_is_refused(draw):
    lock, known = made(SIZES)
    group = torrent.groups(lock, 1)[0]
    data = bytearray(torrent.build(lock, group, known, PIECE))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(LlmError, match="does not belong"):
        torrent.check(bytes(data), lock, group)


@given(st.data())
def test_a_torrent_that_was_cut_or_goes_on_is_refused(draw):
    lock, known = made(SIZES)
    group = torrent.groups(lock, 1)[0]
    data = torrent.build(lock, group, known, PIECE)
    wrong = data[: draw.draw(st.integers(0, len(data) - 1))] if draw.draw(st.booleans()) else data + b"e"
    with pytest.raises(LlmError, match="does not belong"):
        torrent.check(wrong, lock, group)


@given(st.binary(max_size=300))
def test_other_bytes_are_refused(data):
    lock = made(SIZES)[0]
    with pytest.raises(LlmError):
        torrent.check(data, lock, torrent.groups(lock, 1)[0])


@pytest.mark.parametrize(("key", "value"), [("size", 7), ("merkle", "0" * 64), ("sha256", "0" * 64)])
def test_a_lock_that_was_changed_does_not_fit_the_torrent(lock, group, data, key, value):
    changed = json.loads(json.dumps(lock))
    next(entry for entry in changed["files"] if entry["path"] == "z")[key] = value
    with pytest.raises(LlmError, match="does not belong"):
        torrent.check(data, changed, group)


def test_a_layer_of_other_pieces_or_another_file_is_not_built(lock, group):
    known = made(SIZES)[1]
    for wrong in ({}, {**known, "z": known["a.data"]}, {**known, "z": known["z"][::-1]}):
        with pytest.raises(LlmError):
            torrent.build(lock, group, wrong, PIECE)
    with pytest.raises(LlmError):
        torrent.build(lock, group, known, 2 * PIECE)


def test_a_lock_without_roots_is_told(lock, group):
    bare = dict(lock, files=[{key: e[key] for key in ("path", "size", "sha256")} for e in lock["files"]])
    with pytest.raises(LlmError, match="say enough"):
        torrent.info(bare, group)
    with pytest.raises(LlmError, match="say enough"):
        torrent.info(lock, [*group, "not there"])


def test_folders_beyond_what_libtorrent_reads_are_refused():
    deepest = "/".join(["d"] * torrent.MOST_FOLDERS) + "/file"
    lock = made({deepest: 1})[0]
    assert torrent.info(lock, [deepest])
    lock = made({"d/" + deepest: 1})[0]
    with pytest.raises(LlmError, match="too deep"):
        torrent.info(lock, ["d/" + deepest])


def test_a_file_that_is_a_folder_too_is_refused():
    lock = made({"a": 1, "a/b": 1})[0]
    with pytest.raises(LlmError, match="files below it"):
        torrent.info(lock, ["a", "a/b"])


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.integers(-1, 64))
def test_groups_hold_every_file_once_and_about_as_much_each(sizes, count):
    files = [{"path": f"f{at}", "size": size, "sha256": "0" * 64} for at, size in enumerate(sizes)]
    lock = lockfile.check({"files": files})
    groups = torrent.groups(lock, count)
    named = sorted(path for group in groups for path in group)
    assert named == sorted(entry["path"] for entry in files if entry["size"])
    assert all(groups)
    assert len(groups) <= max(1, count)
    held = [sum(sizes[int(path[1:])] for path in group) for group in groups]
    assert not held or max(held) - min(held) <= max(sizes)
    assert groups == torrent.groups(dict(lock, files=lock["files"][::-1]), count)
