# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import (
    hashing,
    layers,
    lockfile,
    merkle,
    safetensors,
    stamps,
    tree,
    verify,
)
from ansible_collections.baremetal.llm.plugins.module_utils.weights.progress import Progress
from hypothesis import given, settings
from hypothesis import strategies as st

SHARD = "model-00001-of-00002.safetensors"
DEEP = "notes.txt"
PIECE = merkle.LEAF_BYTES


def check(model, lock, **options):
    return verify.verify(str(model), lock, **options)


def total(lock):
    return sum(entry["size"] for entry in lock["files"])


def test_a_sound_folder(model, lock):
    result = check(model, lock)
    assert result["verified"] is True
    assert (result["files"], result["bytes"], result["bytes_hashed"]) == (len(lock["files"]), total(lock), total(lock))
    assert (result["missing"], result["corrupt"], result["unexpected"]) == ([], [], [])


def test_a_folder_that_is_reached_through_a_link(model, lock, tmp_path):
    (tmp_path / "current").symlink_to("model")
    assert check(tmp_path / "current", lock)["verified"]


@pytest.mark.parametrize("name", [SHARD, "tokenizer.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("left", [0, 1, -1])
def test_a_truncated_file(model, lock, name, left):
    size = (model / name).stat().st_size
    os.truncate(model / name, left if left >= 0 else size - 1)
    result = check(model, lock)
    assert not result["verified"]
    assert [(problem["path"], problem["reason"]) for problem in result["corrupt"]] == [(name, "truncated")]
    assert result["corrupt"][0]["wanted"] == f"{size} bytes"


def test_a_file_that_is_longer(model, lock):
    with open(model / SHARD, "ab") as stream:
        stream.write(b"x")
    assert [problem["reason"] for problem in check(model, lock)["corrupt"]] == ["size"]


@pytest.mark.parametrize("keep_times", [False, True])
@pytest.mark.parametrize("position", [0, 9, 200, -1])
def test_one_flipped_bit_is_noticed_also_when_the_times_are_set_back(model, lock, settle, flip, position, keep_times):
    settle(model)
    assert check(model, lock)["verified"]
    settle(model)
    flip(model / SHARD, position, keep_times)
    result = check(model, lock)
    assert [(problem["path"], problem["reason"]) for problem in result["corrupt"]] == [(SHARD, "sha256")]
    assert not result["verified"]
    assert result["bytes_hashed"] == (model / SHARD).stat().st_size


def test_another_file_of_the_same_size_and_time_in_its_place(model, lock, settle):
    settle(model)
    check(model, lock)
    before = (model / SHARD).stat()
    other = bytes(reversed((model / SHARD).read_bytes()))
    (model / "new").write_bytes(other)
    os.utime(model / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(model / "new", model / SHARD)
    assert [problem["path"] for problem in check(model, lock)["corrupt"]] == [SHARD]


def test_missing_files(model, lock):
    (model / SHARD).unlink()
    (model / "empty.txt").unlink()
    result = check(model, lock)
    assert not result["verified"]
    assert result["missing"] == ["empty.txt", SHARD]
    assert result["corrupt"] == []
    assert result["files"] == len(lock["files"]) - 2


def test_an_empty_folder(tmp_path, lock):
    (tmp_path / "model").mkdir()
    result = check(tmp_path / "model", lock)
    assert not result["verified"]
    assert len(result["missing"]) == len(lock["files"])


@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.pkl", "notes.txt", "a/b/c/x.safetensors", ".hidden", SHARD + "~"])
def test_files_that_are_not_in_the_lock(model, lock, name):
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_bytes(b"")
    result = check(model, lock)
    assert not result["verified"]
    assert result["unexpected"] == [name]


def test_a_link_in_place_of_a_file_even_to_the_right_content(model, lock, tmp_path):
    (model / SHARD).rename(tmp_path / "moved")
    (model / SHARD).symlink_to(tmp_path / "moved")
    result = check(model, lock)
    assert not result["verified"]
    assert result["missing"] == [SHARD]
    assert result["unexpected"] == [SHARD]


def test_a_link_in_place_of_a_folder(model, lock, tmp_path):
    (model / "level0").rename(tmp_path / "moved")
    (model / "level0").symlink_to(tmp_path / "moved")
    result = check(model, lock)
    assert not result["verified"]
    assert result["unexpected"] == ["level0"]
    assert len(result["missing"]) == 1


def test_a_link_that_leads_outside(model, lock):
    (model / "passwd").symlink_to("/etc/passwd")
    (model / "root").symlink_to("/")
    assert check(model, lock)["unexpected"] == ["passwd", "root"]


def test_a_pipe_in_place_of_a_file_is_not_opened(model, lock):
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")
    result = check(model, lock)
    assert result["missing"] == result["unexpected"] == ["tokenizer.json"]


def test_a_folder_in_place_of_a_file(model, lock):
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").mkdir()
    assert check(model, lock)["missing"] == ["tokenizer.json"]


def test_a_name_too_long_for_the_file_system_is_missing(model, lock):
    name = "d/" * 3000 + "x"
    lock["files"].append({"path": name, "size": 0, "sha256": "0" * 64})
    assert check(model, lock)["missing"] == [name]


@pytest.fixture
def open_folder():
    """A folder that every user may list, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="weights-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    for parent, folders, _files in os.walk(folder):
        for name in folders:
            os.chmod(os.path.join(parent, name), 0o700)
    shutil.rmtree(folder)


@pytest.fixture
def nobody():
    """Function that goes on as a user without rights, until the test ends."""
    was_root = os.geteuid() == 0

    def become():
        if was_root:
            os.seteuid(65534)

    yield become
    if was_root:
        os.seteuid(0)


def test_an_unreadable_file(open_folder, write_model, lock, nobody):
    model = write_model(open_folder / "model")
    (model / "tokenizer.json").chmod(0)
    nobody()
    result = check(model, lock)
    assert [(problem["path"], problem["reason"]) for problem in result["corrupt"]] == [("tokenizer.json", "unreadable")]
    assert "Permission denied" in result["corrupt"][0]["found"]
    assert not result["verified"]


def test_an_unreadable_folder_is_an_error_with_its_name(open_folder, write_model, lock, nobody):
    model = write_model(open_folder / "model")
    (model / "level0").chmod(0)
    nobody()
    with pytest.raises(LlmError, match="level0 cannot be listed") as caught:
        check(model, lock)
    assert caught.value.found == "Permission denied"


def test_where_no_stamps_can_be_kept_everything_is_read_each_time(open_folder, write_model, lock, settle):
    model = write_model(open_folder / "model")
    Path(stamps.default_path(str(model))).mkdir()
    settle(model)
    for _time in range(2):
        result = check(model, lock)
        assert result["verified"]
        assert result["bytes_hashed"] == total(lock)


@pytest.mark.parametrize("kind", ["nothing", "a file"])
def test_no_folder(tmp_path, lock, kind):
    if kind == "a file":
        (tmp_path / "model").write_text("x")
    with pytest.raises(LlmError) as caught:
        check(tmp_path / "model", lock)
    assert caught.value.found == kind
    assert caught.value.remedy


# Stamps -----------------------------------------------------------------------------------------------------------


def test_the_second_time_reads_nothing_and_deep_reads_everything(model, lock, settle):
    settle(model)
    first = check(model, lock)
    second = check(model, lock)
    deep = check(model, lock, deep=True)
    assert (first["bytes_hashed"], first["cached"]) == (total(lock), 0)
    assert (second["bytes_hashed"], second["cached"]) == (0, len(lock["files"]))
    assert (deep["bytes_hashed"], deep["cached"]) == (total(lock), 0)
    assert first["verified"] and second["verified"] and deep["verified"]


def test_a_known_file_that_is_wrong_stays_wrong(model, lock, settle, flip):
    flip(model / SHARD, -1)
    settle(model)
    check(model, lock)
    again = check(model, lock)
    assert again["cached"] == len(lock["files"])
    assert [problem["path"] for problem in again["corrupt"]] == [SHARD]


def test_files_that_were_just_written_are_read_again(model, lock, monkeypatch):
    monkeypatch.setattr(stamps, "TICK_NS", 3600 * 10**9)
    check(model, lock)
    assert check(model, lock)["bytes_hashed"] == total(lock)


def test_check_mode_writes_nothing(model, lock, settle, listing):
    settle(model)
    before = listing(model.parent)
    check(model, lock, save=False)
    assert listing(model.parent) == before


def test_stamps_may_be_kept_elsewhere(model, lock, settle, tmp_path):
    settle(model)
    check(model, lock, stamp_file=str(tmp_path / "mine"))
    assert not os.path.exists(stamps.default_path(str(model)))
    assert check(model, lock, stamp_file=str(tmp_path / "mine"))["bytes_hashed"] == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: [],
        lambda data: "text",
        lambda data: dict(data, files=[]),
        lambda data: dict(data, files=5),
        lambda data: dict(data, format=99),
        lambda data: dict(data, files=dict.fromkeys(data["files"])),
        lambda data: dict(data, files={name: [] for name in data["files"]}),
        lambda data: dict(data, files=dict.fromkeys(data["files"], "x")),
        lambda data: dict(data, files={name: {"stamp": entry["stamp"]} for name, entry in data["files"].items()}),
        lambda data: dict(data, files={name: dict(entry, sha256=5) for name, entry in data["files"].items()}),
        lambda data: dict(data, files={name: dict(entry, merkle=5) for name, entry in data["files"].items()}),
        lambda data: dict(data, files={name: dict(entry, stamp=5) for name, entry in data["files"].items()}),
        lambda data: dict(data, files={name: dict(entry, stamp=[0] * 5) for name, entry in data["files"].items()}),
    ],
)
def test_a_damaged_stamp_file_costs_time_and_nothing_else(model, lock, settle, damage):
    settle(model)
    check(model, lock)
    path = Path(stamps.default_path(str(model)))
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    result = check(model, lock)
    assert result["verified"]
    assert (result["bytes_hashed"], result["cached"]) == (total(lock), 0)
    assert check(model, lock)["bytes_hashed"] == 0  # and it is mended


@given(content=st.binary(max_size=80))
@settings(max_examples=25)
def test_any_stamp_file_is_survived(model, lock, content):
    Path(stamps.default_path(str(model))).write_bytes(content)
    assert check(model, lock)["verified"]


def test_stamps_of_another_folder_are_not_believed(model, lock, settle, flip, tmp_path):
    settle(model)
    check(model, lock)
    other = tmp_path / "other"
    shutil.copytree(model, other)  # keeps the times
    flip(other / SHARD, -1, keep_times=True)
    shutil.copy(stamps.default_path(str(model)), stamps.default_path(str(other)))
    assert not check(other, lock)["verified"]


# Changes while it is read -----------------------------------------------------------------------------------------


def _interfere(monkeypatch, name, act):
    """Let ``act`` happen right after the file ``name`` was hashed."""
    read = hashing.digest_file

    def read_and_act(path, **options):
        result = read(path, **options)
        if path.endswith("/" + name):
            act()
        return result

    monkeypatch.setattr(hashing, "digest_file", read_and_act)


def test_a_file_that_is_replaced_while_it_is_read_is_not_taken_for_sound(model, lock, settle, monkeypatch):
    settle(model)
    target = model / "tokenizer.json"

    def replace():
        size = target.stat().st_size
        (model / "tmp").write_bytes(b"y" * size)
        os.replace(model / "tmp", target)

    with monkeypatch.context() as patch:
        _interfere(patch, "tokenizer.json", replace)
        result = check(model, lock)
    assert not result["verified"]
    assert [problem["path"] for problem in result["corrupt"]] == ["tokenizer.json"]
    assert "tokenizer.json" not in stamps.read(stamps.default_path(str(model)))
    assert [problem["reason"] for problem in check(model, lock)["corrupt"]] == ["sha256"]


def test_a_file_that_goes_while_it_is_read(model, lock, monkeypatch):
    _interfere(monkeypatch, "tokenizer.json", (model / "tokenizer.json").unlink)
    result = check(model, lock)
    assert not result["verified"]
    assert [(problem["path"], problem["reason"]) for problem in result["corrupt"]] == [("tokenizer.json", "unreadable")]


@pytest.mark.parametrize("gone", ["config.json", SHARD])
def test_a_file_that_goes_after_it_was_read_is_no_traceback(model, lock, monkeypatch, gone):
    # With one thread the largest is read first, and the smallest last.
    _interfere(monkeypatch, DEEP, (model / gone).unlink)
    check(model, lock, jobs=1)
    assert check(model, lock)["missing"] == [gone]


# Structure and generation -----------------------------------------------------------------------------------------


def test_a_lock_that_was_made_from_damaged_files_is_found_out(model, lock, pack):
    damaged = pack({"embed": {"dtype": "BF16", "shape": [4, 6], "data_offsets": [0, 47]}}, bytes(48))
    (model / SHARD).write_bytes(damaged)
    for entry in lock["files"]:
        if entry["path"] == SHARD:
            entry.update(size=len(damaged), sha256=hashlib.sha256(damaged).hexdigest())
    result = check(model, lock)
    assert not result["verified"]
    assert {problem["path"] for problem in result["corrupt"]} == {SHARD}
    assert result["corrupt"][0]["reason"] == "structure"


def test_generation_follows_content_and_not_modes(model, lock):
    first = check(model, lock)["generation"]
    (model / SHARD).chmod(0o600)
    assert check(model, lock)["generation"] == first
    (model / "twin").write_bytes((model / SHARD).read_bytes())
    os.replace(model / "twin", model / SHARD)
    result = check(model, lock)
    assert result["verified"]
    assert result["generation"] != first


def test_a_tree_that_was_found_sound_is_not_looked_into_again(model, lock, settle, monkeypatch):
    looked = []
    real = safetensors.structure_problems
    monkeypatch.setattr(
        safetensors, "structure_problems", lambda folder, files: (looked.append(len(files)), real(folder, files))[1]
    )
    settle(model)
    check(model, lock)
    check(model, lock)
    assert len(looked) == 1
    check(model, lock, deep=True)
    assert len(looked) == 2
    (model / "stray").write_text("")
    check(model, lock)
    assert len(looked) == 3


def test_a_tree_that_was_found_damaged_is_found_damaged_again(model, lock, settle, pack):
    damaged = pack({"embed": {"dtype": "BF16", "shape": [4, 6], "data_offsets": [0, 47]}}, bytes(48))
    (model / SHARD).write_bytes(damaged)
    entry = next(entry for entry in lock["files"] if entry["path"] == SHARD)
    entry.update(size=len(damaged), sha256=hashlib.sha256(damaged).hexdigest())
    settle(model)
    first, second = check(model, lock), check(model, lock)
    assert second["bytes_hashed"] == 0
    assert first["corrupt"] == second["corrupt"] != []


# Merkle roots, layers, patches ------------------------------------------------------------------------------------


def large(model, lock, pieces: float = 3.5):
    """Add a file of several pieces; returns its entry, with its root."""
    content = hashlib.shake_128(b"seed").digest(int(PIECE * pieces))
    (model / "large.txt").write_bytes(content)
    builder = merkle.Builder(PIECE)
    builder.update(memoryview(content))
    entry = {"path": "large.txt", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    entry["merkle"] = builder.finish()[0]
    lock["files"] = sorted([*lock["files"], entry], key=lambda item: item["path"])
    return entry


def test_with_a_piece_roots_and_layers_become_known_in_one_pass(model, lock, settle):
    entry = large(model, lock)
    settle(model)
    first = check(model, lock, piece=PIECE)
    assert first["verified"]
    assert set(first["merkle"]) == {item["path"] for item in lock["files"]}
    assert first["merkle"]["large.txt"] == entry["merkle"]
    assert first["merkle"]["empty.txt"] == ""
    layer = layers.load(str(model), entry, PIECE)
    assert layer and merkle.root_of_layer(layer, PIECE) == entry["merkle"]
    assert first["bytes_hashed"] == total(lock)
    again = check(model, lock, piece=PIECE)
    assert (again["bytes_hashed"], again["merkle"]) == (0, first["merkle"])
    assert check(model, lock)["merkle"] == first["merkle"]


def test_without_a_piece_no_tree_is_made_and_a_later_run_with_one_reads_again(model, lock, settle):
    large(model, lock)
    settle(model)
    assert check(model, lock)["merkle"] == {"empty.txt": ""}
    result = check(model, lock, piece=PIECE)
    assert result["bytes_hashed"] == total(lock)
    assert len(result["merkle"]) == len(lock["files"])


def test_a_layer_that_is_gone_or_damaged_is_made_again(model, lock, settle):
    entry = large(model, lock)
    settle(model)
    check(model, lock, piece=PIECE)
    layers.drop(str(model), set())
    assert check(model, lock, piece=PIECE)["bytes_hashed"] == entry["size"]
    assert layers.load(str(model), entry, PIECE)


def test_a_root_survives_runs_that_read_without_making_trees(model, lock, settle):
    entry = large(model, lock)
    settle(model)
    check(model, lock, piece=PIECE)
    assert check(model, lock, deep=True)["merkle"]["large.txt"] == entry["merkle"]
    os.utime(model / "large.txt")
    settle(model)
    assert check(model, lock)["merkle"]["large.txt"] == entry["merkle"]
    (model / "large.txt").write_bytes(bytes(entry["size"]))
    assert "large.txt" not in check(model, lock)["merkle"]


def test_a_root_that_the_bytes_contradict_is_a_tampered_lock(model, lock):
    entry = large(model, lock)
    right, entry["merkle"] = entry["merkle"], "0" * 64
    (problem,) = check(model, lock, piece=PIECE)["corrupt"]
    assert problem == {"path": "large.txt", "reason": "merkle", "wanted": "0" * 64, "found": right}


def test_check_mode_makes_trees_and_writes_nothing(model, lock, settle, listing):
    entry = large(model, lock)
    settle(model)
    before = listing(model.parent)
    assert check(model, lock, piece=PIECE, save=False)["merkle"]["large.txt"] == entry["merkle"]
    assert listing(model.parent) == before


def test_where_layers_cannot_be_kept_the_folder_is_verified_all_the_same(model, lock):
    large(model, lock)
    Path(tree.aside(str(model), "layers")).write_text("a file")
    result = check(model, lock, piece=PIECE)
    assert result["verified"]
    assert "large.txt" in result["merkle"]


def patch(lock, content: bytes, name: str = "config.json") -> dict:
    entry = next(entry for entry in lock["files"] if entry["path"] == name)
    entry["merkle"] = "1" * 64
    entry["patched"] = {
        "set": {"torch_dtype": "float16"},
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return entry


def test_a_patched_file_is_held_against_what_it_was_patched_to(model, lock):
    content = b'{"torch_dtype": "float16"}'
    (model / "config.json").write_bytes(content)
    patch(lock, content)
    result = check(model, lockfile.check(lock), piece=PIECE)
    assert result["verified"]
    assert "config.json" not in result["merkle"]  # it would be the root of what was not published


@pytest.mark.parametrize("content", [None, b'{"torch_dtype": "float32"}', b"{}"])
def test_a_file_that_is_not_as_patched_is_wrong_also_when_it_is_as_published(model, lock, content):
    if content is not None:
        (model / "config.json").write_bytes(content)
    patch(lock, b'{"torch_dtype": "float16"}')
    result = check(model, lockfile.check(lock))
    assert [problem["path"] for problem in result["corrupt"]] == ["config.json"]
    assert not result["verified"]


# The digest of the whole tree -------------------------------------------------------------------------------------


def test_the_tree_of_a_sound_folder_is_the_locks_identity(model, lock, settle):
    settle(model)
    identity = lockfile.identity(lockfile.check(lock))
    assert check(model, lock)["tree"] == identity
    assert check(model, lock)["tree"] == identity  # from stamps too


def test_two_nodes_with_the_same_wrong_files_have_the_same_tree(model, lock, write_model, tmp_path):
    other = write_model(tmp_path / "other")
    trees = [check(folder, lock)["tree"] for folder in (model, other)]
    for folder in (model, other):
        (folder / "stray").write_bytes(b"x")
        (folder / "config.json").write_bytes(b"short")
        (folder / "tokenizer.json").unlink()
        trees.append(check(folder, lock)["tree"])
    assert trees[0] == trees[1] != trees[2] == trees[3]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (model / "stray").write_bytes(b""),
        lambda model: (model / "config.json").write_bytes(b"other, of another length"),
        lambda model: (model / "config.json").write_bytes(bytes((model / "config.json").stat().st_size)),
        lambda model: (model / "empty.txt").unlink(),
        lambda model: (model / "link").symlink_to("config.json"),
        lambda model: (model / "a\nb").write_bytes(b""),
        lambda model: (model / "tokenizer.json").rename(model / "tokenizer.jsom"),
    ],
)
def test_every_difference_between_two_nodes_is_in_the_tree(model, lock, write_model, tmp_path, change):
    other = write_model(tmp_path / "other")
    change(other)
    assert check(model, lock)["tree"] != check(other, lock)["tree"]


def test_files_of_a_wrong_length_are_told_apart_by_what_is_in_them(model, lock, write_model, tmp_path):
    other = write_model(tmp_path / "other")
    (model / "config.json").write_bytes(b"abc")
    (other / "config.json").write_bytes(b"abd")
    assert check(model, lock)["tree"] != check(other, lock)["tree"]


def test_names_of_strays_with_line_breaks_are_no_other_strays():
    two = [tree.Entry("a", "file", 1), tree.Entry("b", "file", 1)]
    one = [tree.Entry("a\nfile 1 b", "file", 1)]
    assert verify.fingerprint(two, {}) != verify.fingerprint(one, {})
    assert verify.fingerprint([tree.Entry("\udcff", "file", 0)], {})


# Progress, order and clock ----------------------------------------------------------------------------------------


def test_progress_is_of_the_bytes_that_are_read(model, lock, settle, tmp_path):
    settle(model)
    check(model, lock)
    (model / SHARD).write_bytes(bytes((model / SHARD).stat().st_size))
    (model / "tokenizer.json").unlink()
    progress = Progress(str(tmp_path / "progress.json"), "verifying", total(lock))
    check(model, lock, progress=progress)
    assert progress.done == progress.total == (model / SHARD).stat().st_size
    assert json.loads((tmp_path / "progress.json").read_text())["done"] == progress.done


def test_a_run_that_reads_nothing_writes_no_progress(model, lock, settle, tmp_path):
    settle(model)
    check(model, lock)
    check(model, lock, progress=Progress(str(tmp_path / "progress.json"), "verifying", total(lock)))
    assert not (tmp_path / "progress.json").exists()


def test_the_largest_are_read_first(model, lock, monkeypatch):
    read, order = hashing.digest_file, []

    def noted(path, **options):
        order.append(os.path.getsize(path))
        return read(path, **options)

    monkeypatch.setattr(hashing, "digest_file", noted)
    check(model, lock, jobs=1)
    assert order == sorted(order, reverse=True)
    assert len(order) == len(lock["files"])


HOUR = 3600 * 10**9


def test_a_clock_that_jumps_ahead_hides_no_change(model, lock, settle, flip, monkeypatch):
    settle(model)
    real = stamps.now_ns
    monkeypatch.setattr(stamps, "now_ns", lambda: real() + HOUR)
    assert check(model, lock)["verified"]
    settle(model)
    flip(model / SHARD, -1, keep_times=True)
    assert [problem["path"] for problem in check(model, lock)["corrupt"]] == [SHARD]


def test_a_clock_that_was_set_back_costs_time_and_believes_nothing_too_early(model, lock, settle, flip, monkeypatch):
    settle(model)
    real = stamps.now_ns
    with monkeypatch.context() as patched:
        patched.setattr(stamps, "now_ns", lambda: real() - HOUR)
        for _run in range(2):
            result = check(model, lock)
            assert result["verified"]
            assert result["bytes_hashed"] == total(lock)
        flip(model / SHARD, -1, keep_times=True)
        assert not check(model, lock)["verified"]
    settle(model)
    check(model, lock)
    assert check(model, lock)["bytes_hashed"] == 0


def test_stamps_from_before_the_clock_was_set_back_still_hold(model, lock, settle, flip, monkeypatch):
    settle(model)
    check(model, lock)
    real = stamps.now_ns
    monkeypatch.setattr(stamps, "now_ns", lambda: real() - HOUR)
    assert check(model, lock)["bytes_hashed"] == 0
    flip(model / SHARD, -1, keep_times=True)
    assert not check(model, lock)["verified"]


@given(data=st.data())
@settings(max_examples=40)
def test_no_change_of_any_byte_of_any_file_is_ever_verified(tmp_path_factory, write_model, lock, data):
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        model = write_model(Path(folder) / "model")
        entry = data.draw(st.sampled_from([entry for entry in lock["files"] if entry["size"]]))
        content = bytearray((model / entry["path"]).read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        (model / entry["path"]).write_bytes(bytes(content))
        result = check(model, lock)
        assert not result["verified"]
        assert [problem["path"] for problem in result["corrupt"]] == [entry["path"]]
