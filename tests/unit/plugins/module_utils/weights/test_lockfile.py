# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockfile
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "0123456789abcdef" * 4


def entry(**changes):
    return dict({"path": "model.safetensors", "size": 3, "sha256": DIGEST}, **changes)


def test_normal_form():
    given_lock = {"files": [entry(path="b", sha256=DIGEST.upper()), entry(path="a", extra="ignored")], "other": 1}
    assert lockfile.check(given_lock) == {
        "format": 1,
        "model": "",
        "revision": "",
        "files": [
            {"path": "a", "size": 3, "sha256": DIGEST},
            {"path": "b", "size": 3, "sha256": DIGEST},
        ],
    }


def test_normal_form_is_stable_and_the_input_stays():
    source = {"model": "m", "revision": None, "files": [entry(sha256=DIGEST.upper())]}
    text = json.dumps(source)
    once = lockfile.check(source)
    assert once["revision"] == ""
    assert lockfile.check(once) == once
    assert json.dumps(source) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../x"},
        {"path": "/etc/passwd"},
        {"path": "a\\b"},
        {"path": "a\nb"},
        {"path": ""},
        {"path": None},
        {"path": ["a"]},
        {"path": "lone\udcff"},
        {"path": ".baremetal-llm/a"},
        {"size": -1},
        {"size": True},
        {"size": False},
        {"size": 3.0},
        {"size": "3"},
        {"size": None},
        {"sha256": DIGEST[:-1]},
        {"sha256": DIGEST + "0"},
        {"sha256": DIGEST[:-1] + "g"},
        {"sha256": DIGEST + "\n"},
        {"sha256": None},
        {"sha256": 5},
        {"sha256": "sha256:" + DIGEST},
        {"path": "pytorch_model.bin"},
        {"path": "sub/x.PKL"},
        {"path": "x.pt"},
        {"path": "a" * 300},
        {"path": ".baremetal-llm/lock.json"},
        {"merkle": DIGEST[:-1]},
        {"merkle": DIGEST + "\n"},
        {"merkle": 5},
        {"merkle": [DIGEST]},
        {"merkle": DIGEST, "size": 0},
        {"path": "config.json", "patched": 5},
        {"path": "config.json", "patched": []},
        {"path": "config.json", "patched": {}},
        {"path": "config.json", "patched": {"set": {}}},
        {"path": "config.json", "patched": {"set": [], "size": 3, "sha256": DIGEST}},
        {"path": "config.json", "patched": {"set": {}, "size": -3, "sha256": DIGEST}},
        {"path": "config.json", "patched": {"set": {}, "size": 3, "sha256": DIGEST[1:]}},
        {"path": "config.json", "patched": {"set": {}, "sha256": DIGEST}},
        {"path": "model.safetensors", "patched": {"set": {}, "size": 3, "sha256": DIGEST}},
    ],
)
def test_entries_that_are_refused(changes):
    with pytest.raises(LlmError) as caught:
        lockfile.check({"files": [entry(path="sound"), entry(**changes)]})
    assert caught.value.remedy


def test_roots_and_patches_are_kept_in_normal_form():
    patch = {"set": {"torch_dtype": "float16"}, "size": 9, "sha256": DIGEST.upper(), "other": 1}
    source = entry(path="config.json", merkle=DIGEST.upper(), patched=patch)
    (found,) = lockfile.check({"files": [source]})["files"]
    assert found == {
        "path": "config.json",
        "size": 3,
        "sha256": DIGEST,
        "merkle": DIGEST,
        "patched": {"set": {"torch_dtype": "float16"}, "size": 9, "sha256": DIGEST},
    }


@pytest.mark.parametrize("root", [None, ""])
@pytest.mark.parametrize("size", [0, 3])
def test_a_root_may_be_unknown(root, size):
    (found,) = lockfile.check({"files": [entry(size=size, merkle=root)]})["files"]
    assert "merkle" not in found


def test_what_is_placed_is_the_patched_form():
    patch = {"set": {}, "size": 9, "sha256": "1" * 64}
    plain, patched = lockfile.check({"files": [entry(), entry(path="z.json", patched=patch)]})["files"]
    assert (lockfile.placed(plain)["size"], lockfile.placed(plain)["sha256"]) == (3, DIGEST)
    assert (lockfile.placed(patched)["size"], lockfile.placed(patched)["sha256"]) == (9, "1" * 64)


def test_the_identity_is_of_the_published_bytes_alone():
    patch = {"set": {}, "size": 9, "sha256": "1" * 64}
    plain = lockfile.check({"files": [entry(), entry(path="z.json")]})
    other = {"model": "m", "revision": "r", "files": [entry(path="z.json", patched=patch), entry(merkle="2" * 64)]}
    assert lockfile.identity(plain) == lockfile.identity(lockfile.check(other))
    assert len(lockfile.identity(plain)) == 64


@pytest.mark.parametrize("changes", [{"path": "model2.safetensors"}, {"size": 4}, {"sha256": "1" * 64}])
def test_other_bytes_have_another_identity(changes):
    one, other = (lockfile.check({"files": [entry(**what)]}) for what in ({}, changes))
    assert lockfile.identity(one) != lockfile.identity(other)


@pytest.mark.parametrize("key", ["path", "size", "sha256"])
def test_entries_that_lack_a_part_are_refused(key):
    broken = entry()
    del broken[key]
    with pytest.raises(LlmError):
        lockfile.check({"files": [broken]})


@pytest.mark.parametrize(
    "lock",
    [
        None,
        [],
        "text",
        {},
        {"files": []},
        {"files": {}},
        {"files": "x"},
        {"files": [None]},
        {"files": ["model.safetensors"]},
        {"files": [[]]},
        {"files": [entry()], "format": 2},
        {"files": [entry()], "format": "1"},
        {"files": [entry()], "format": None},
        {"files": [entry()], "model": 5},
        {"files": [entry()], "model": {"a": 1}},
        {"files": [entry()], "revision": ["r"]},
    ],
)
def test_locks_that_are_refused(lock):
    with pytest.raises(LlmError) as caught:
        lockfile.check(lock)
    assert caught.value.remedy


def test_a_file_that_is_named_twice_is_told():
    with pytest.raises(LlmError, match="twice") as caught:
        lockfile.check({"files": [entry(path="a"), entry(path="b"), entry(path="a", size=4)]})
    assert caught.value.found == "a"


def test_sizes_beyond_64_bits_are_numbers_too():
    assert lockfile.total_bytes(lockfile.check({"files": [entry(size=2**70), entry(path="b", size=1)]})) == 2**70 + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
ALMOST_ENTRY = st.fixed_dictionaries(
    {"path": st.sampled_from(["a", "b/c", "c.json", "../x", "x.bin", 3]) | JSON, "size": st.integers() | JSON},
    optional={
        "sha256": st.sampled_from([DIGEST, DIGEST.upper(), "x"]) | JSON,
        "merkle": st.sampled_from([DIGEST, DIGEST.upper(), ""]) | JSON,
        "patched": st.fixed_dictionaries({"set": JSON, "size": st.integers() | JSON, "sha256": st.just(DIGEST)}) | JSON,
    },
)
ALMOST_LOCK = st.fixed_dictionaries(
    {"files": st.lists(ALMOST_ENTRY | JSON, max_size=4) | JSON},
    optional={"format": st.sampled_from([1, 2]) | JSON, "model": JSON, "revision": JSON},
)


@given(JSON | ALMOST_LOCK)
def test_any_json_is_a_lock_in_normal_form_or_an_error_for_a_reader(value):
    try:
        lock = lockfile.check(value)
    except LlmError as error:
        assert error.remedy
        return
    assert lockfile.check(lock) == lock
    assert lock["files"]
    json.dumps(lock, ensure_ascii=False).encode("utf-8")


@given(st.binary(max_size=60) | (JSON | ALMOST_LOCK).map(lambda value: json.dumps(value).encode()))
def test_any_file_is_a_lock_or_an_error_for_a_reader(tmp_path, content):
    path = tmp_path / "lock.json"
    path.write_bytes(content)
    try:
        assert lockfile.load(str(path))["files"]
    except LlmError as error:
        assert error.remedy


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"files":' * 100_000, b"\xff\xfe{}", b"", b"1" * 10_000])
def test_hostile_files_are_refused(tmp_path, content):
    (tmp_path / "lock.json").write_bytes(content)
    with pytest.raises(LlmError):
        lockfile.load(str(tmp_path / "lock.json"))


@pytest.mark.parametrize("source", [None, 5, ["lock.json"], b"lock.json", "no/such/file", "/", "a\x00b"])
def test_sources_that_are_none(source):
    with pytest.raises(LlmError) as caught:
        lockfile.load(source)
    assert caught.value.remedy


def test_load_takes_a_mapping_or_a_path(tmp_path):
    source = {"files": [entry()]}
    (tmp_path / "lock.json").write_text(json.dumps(source))
    assert lockfile.load(source) == lockfile.load(str(tmp_path / "lock.json")) == lockfile.check(source)
