# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import struct

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import safetensors
from hypothesis import given
from hypothesis import strategies as st

TENSORS = {"a": ("BF16", [2, 3]), "none": ("F32", [0]), "scalar": ("F32", []), "b": ("U8", [5])}
INDEX = "model.safetensors.index.json"


def judge(folder, content: bytes) -> str:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    return safetensors.read_header(str(path))[1]


def tensor(**changes):
    return dict({"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, **changes)


def test_a_sound_file(tmp_path, shard):
    (tmp_path / "x").write_bytes(shard(TENSORS))
    header, problem = safetensors.read_header(str(tmp_path / "x"))
    assert problem == ""
    assert set(header) == set(TENSORS)  # and no __metadata__


def test_the_order_in_the_header_does_not_matter(tmp_path, pack):
    header = {"b": tensor(data_offsets=[4, 8]), "a": tensor()}
    assert judge(tmp_path, pack(header, bytes(8))) == ""


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [("F4", [3], 2), ("F6_E2M3", [4], 3), ("F8_E4M3", [3], 3), ("BOOL", [3], 3), ("BF16", [3], 6), ("C64", [2], 16)],
)
def test_bytes_of_the_types(tmp_path, pack, dtype, shape, size):
    header = {"t": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    assert judge(tmp_path, pack(header, bytes(size))) == ""
    header["t"]["data_offsets"] = [0, size + 1]
    assert judge(tmp_path, pack(header, bytes(size + 1)))


def test_cut_off_at_every_point(tmp_path, shard):
    whole = shard(TENSORS)
    for length in range(len(whole)):
        assert judge(tmp_path, whole[:length]), f"sound though cut off after {length} of {len(whole)} bytes"


@pytest.mark.parametrize("tail", [b"\0", b"strange", b"\0" * 4096])
def test_bytes_at_the_end_are_strange(tmp_path, shard, tail):
    assert "strange bytes" in judge(tmp_path, shard(TENSORS) + tail)


@pytest.mark.parametrize(
    "header",
    [
        [],
        None,
        5,
        "text",
        True,
        {"t": None},
        {"t": []},
        {"t": "text"},
        {"t": {}},
        {"t": tensor(dtype="F7")},
        {"t": tensor(dtype=None)},
        {"t": tensor(dtype=[])},
        {"t": tensor(shape=None)},
        {"t": tensor(shape="4")},
        {"t": tensor(shape=[4.0])},
        {"t": tensor(shape=["4"])},
        {"t": tensor(shape=[True, 4])},
        {"t": tensor(shape=[-4])},
        {"t": tensor(shape=[-2, -2])},
        {"t": tensor(shape=[float("inf")])},
        {"t": tensor(shape=[2**63, 2**63, 0], data_offsets=[0, 0])},
        {"t": tensor(data_offsets=None)},
        {"t": tensor(data_offsets=[0])},
        {"t": tensor(data_offsets=[0, 4, 8])},
        {"t": tensor(data_offsets=["0", "4"])},
        {"t": tensor(data_offsets=[0.0, 4.0])},
        {"t": tensor(data_offsets=[float("nan"), 4])},
        {"t": tensor(data_offsets=[0, float("inf")])},
        {"t": tensor(data_offsets=[False, 4])},
        {"t": tensor(data_offsets=[4, 0])},
        {"t": tensor(data_offsets=[-4, 0])},
        {"t": tensor(data_offsets=[0, 5])},
        {"t": tensor(data_offsets=[1, 5])},
        {"t": tensor(), "overlap": tensor()},
        {"t": tensor(), "overlap": tensor(shape=[2], data_offsets=[2, 4])},
        {"t": tensor(shape=[1], data_offsets=[0, 1]), "hole": tensor(shape=[2], data_offsets=[2, 4])},
        {},
        {"__metadata__": tensor()},
        {"t": tensor(), "__metadata__": {"format": 5}},
        {"t": tensor(), "__metadata__": []},
        {"t": tensor(), "__metadata__": "pt"},
        b' {"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}',
    ],
)
def test_headers_that_are_not_sound(tmp_path, pack, header):
    assert judge(tmp_path, pack(header, bytes(4)))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, '{"a": 1}'.encode("utf-16"), b"NaN", b"{} x"],
)
def test_headers_that_are_no_json(tmp_path, pack, raw):
    assert judge(tmp_path, pack(raw, b""))


@pytest.mark.parametrize("length", [9, 2**31, 2**32, 2**63, 2**64 - 1, safetensors.HEADER_LIMIT + 1])
def test_a_header_longer_than_the_file_is_not_read(tmp_path, length):
    content = struct.pack("<Q", length) + b'{"a": 1}'
    assert f"claims {length} bytes" in judge(tmp_path, content)


def test_a_git_lfs_pointer_is_named(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5234139343\n"
    assert "git-lfs pointer" in judge(tmp_path, pointer)


@given(st.binary(max_size=200))
def test_random_bytes_are_never_sound(tmp_path, content):
    assert judge(tmp_path, content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["U8", "F32", "x"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["t", "dtype", "shape", "data_offsets"]), inner, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_any_json_as_header_is_a_problem(tmp_path, pack, header):
    # Four bytes of data need a tensor of four bytes; what hypothesis makes of these parts never describes one exactly.
    assert judge(tmp_path, pack(header, b"data"))


@given(position=st.integers(8, 400), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_header_is_a_problem_or_changes_only_names(tmp_path, shard, position, bit):
    whole = bytearray(shard(TENSORS))
    (length,) = struct.unpack("<Q", whole[:8])
    position = 8 + (position - 8) % length
    before = json.loads(bytes(whole[8 : 8 + length]))
    whole[position] ^= 1 << bit
    if judge(tmp_path, bytes(whole)) == "":
        after = json.loads(bytes(whole[8 : 8 + length]))
        for header in (before, after):
            header.pop("__metadata__", None)
        # What is still sound has the same spans of the same size under other names.
        assert sorted(t["data_offsets"] for t in after.values()) == sorted(t["data_offsets"] for t in before.values())


@given(first=st.binary(min_size=8, max_size=8))
def test_any_other_header_length_is_a_problem(tmp_path, shard, first):
    whole = shard(TENSORS)
    if first != whole[:8]:
        assert judge(tmp_path, first + whole[8:])


# The index over the shards ----------------------------------------------------------------------------------------


def problems_of(folder, index: object) -> list[dict]:
    raw = index if isinstance(index, bytes) else json.dumps(index).encode()
    (folder / INDEX).write_bytes(raw)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return safetensors.structure_problems(str(folder), files)


@pytest.fixture
def sharded(tmp_path, shard):
    (tmp_path / "one.safetensors").write_bytes(shard({"a": ("U8", [2])}))
    (tmp_path / "two.safetensors").write_bytes(shard({"b": ("U8", [2]), "c": ("U8", [1])}))
    return tmp_path


WHOLE = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}


def test_an_index_that_fits(sharded):
    assert problems_of(sharded, {"weight_map": WHOLE}) == []


def test_an_index_in_a_subfolder_is_held_against_the_shards_beside_it(sharded):
    (sharded / "sub").mkdir()
    for name in ("one", "two"):
        (sharded / f"{name}.safetensors").rename(sharded / "sub" / f"{name}.safetensors")
    (sharded / "sub" / INDEX).write_text(json.dumps({"weight_map": WHOLE}))
    files = [f"sub/{name}" for name in ("one.safetensors", "two.safetensors", INDEX)]
    assert safetensors.structure_problems(str(sharded), files) == []


def test_a_tensor_that_no_shard_has(sharded):
    (problem,) = problems_of(sharded, {"weight_map": dict(WHOLE, lost="one.safetensors")})
    assert (problem["path"], problem["reason"], problem["wanted"]) == ("one.safetensors", "index", "tensor lost")


def test_a_tensor_in_another_shard_than_the_index_says(sharded):
    (problem,) = problems_of(sharded, {"weight_map": dict(WHOLE, c="one.safetensors")})
    assert (problem["path"], problem["wanted"]) == ("one.safetensors", "tensor c")


def test_a_shard_that_is_not_there(sharded):
    (problem,) = problems_of(sharded, {"weight_map": dict(WHOLE, d="three.safetensors", e="three.safetensors")})
    assert problem["path"] == "three.safetensors"
    assert (problem["reason"], problem["wanted"]) == ("missing", "a shard with 2 tensors")


@pytest.mark.parametrize(
    "shard_name",
    [
        "../one.safetensors",
        "../../etc/passwd",
        "/etc/passwd",
        "",
        ".",
        "sub/../one.safetensors",
        "a\nb",
        5,
        None,
        [],
        {},
    ],
)
def test_hostile_shard_names_are_problems_and_opened_by_nobody(sharded, monkeypatch, shard_name):
    opened = []
    monkeypatch.setattr(
        safetensors,
        "read_header",
        lambda path: (opened.append(path), ({"a": 0} if "one" in path else {"b": 0, "c": 0}, ""))[1],
    )
    found = problems_of(sharded, {"weight_map": dict(WHOLE, x=shard_name)})
    assert [problem["reason"] for problem in found] == ["missing"]
    assert sorted(opened) == [str(sharded / "one.safetensors"), str(sharded / "two.safetensors")]


@pytest.mark.parametrize(
    "index",
    [b"", b"not JSON", b"[" * 100_000, b"\xff\xff", [], 5, None, "x", {}, {"weight_map": []}, {"weight_map": None}],
)
def test_an_index_of_another_kind(sharded, index):
    (problem,) = problems_of(sharded, index)
    assert (problem["path"], problem["reason"]) == (INDEX, "index")


def test_a_tensor_in_two_shards_of_an_index(sharded, shard):
    (sharded / "two.safetensors").write_bytes(shard({"a": ("U8", [2]), "b": ("U8", [2]), "c": ("U8", [1])}))
    (problem,) = problems_of(sharded, {"weight_map": WHOLE})
    assert (problem["path"], problem["reason"]) == ("two.safetensors", "index")
    assert problem["found"] == "1 tensors that are in one.safetensors too, such as a"


def test_a_file_that_the_index_does_not_name_may_have_the_same_tensors(sharded, shard):
    (sharded / "consolidated.safetensors").write_bytes(shard({"a": ("U8", [2]), "b": ("U8", [2]), "c": ("U8", [1])}))
    assert problems_of(sharded, {"weight_map": WHOLE}) == []


def test_a_tensor_that_the_index_does_not_name_may_be_in_a_shard(sharded):
    assert problems_of(sharded, {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}) == []


@pytest.mark.parametrize("total_size", [5, 4, 10**15, 5.0, "5", None])
def test_the_total_size_of_an_index_is_nobodys_business(sharded, total_size):
    # Tools that quantize leave that of the model they began with.
    assert problems_of(sharded, {"metadata": {"total_size": total_size}, "weight_map": WHOLE}) == []


def test_an_index_without_end_is_not_read(sharded, monkeypatch):
    monkeypatch.setattr(safetensors, "INDEX_LIMIT", 40)
    (problem,) = problems_of(sharded, {"weight_map": WHOLE})
    assert (problem["path"], problem["reason"]) == (INDEX, "index")


def test_pointers_of_git_lfs_are_named_whatever_the_file(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    (tmp_path / "tokenizer.json").write_bytes(pointer)
    (tmp_path / "longer.txt").write_bytes(pointer + bytes(safetensors.POINTER_BYTES))
    (tmp_path / "other.txt").write_bytes(b"version 1")
    files = ["longer.txt", "other.txt", "tokenizer.json", "gone.txt"]
    (problem,) = safetensors.structure_problems(str(tmp_path), files)
    assert (problem["path"], problem["reason"]) == ("tokenizer.json", "structure")
    assert "git-lfs pointer" in problem["found"]


def test_a_damaged_shard_is_told_once_as_damaged(sharded):
    (sharded / "two.safetensors").write_bytes(b"")
    found = problems_of(sharded, {"weight_map": WHOLE})
    assert {problem["path"] for problem in found} == {"two.safetensors"}
    assert found[0]["reason"] == "structure"


def test_a_shard_that_is_gone_since_it_was_listed_is_a_problem(tmp_path):
    (problem,) = safetensors.structure_problems(str(tmp_path), ["gone.safetensors"])
    assert problem["path"] == "gone.safetensors"
    assert "No such file" in problem["found"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(sorted(WHOLE.values())),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["weight_map", *WHOLE]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_any_json_as_index_gives_problems_and_no_error(sharded, index):
    for problem in problems_of(sharded, index):
        assert set(problem) == {"path", "reason", "wanted", "found"}
        assert all(isinstance(value, str) for value in problem.values())
