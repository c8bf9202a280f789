# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import fetch, stamps, tree, verify

SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"
PARTIAL = SHARD + tree.PARTIAL_SUFFIX


@pytest.fixture
def source(tmp_path, write_model):
    return write_model(tmp_path / "disk" / "model")


@pytest.fixture
def dest(tmp_path):
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib" / "weights"


def bring(source, dest, lock, **options):
    return fetch.fetch(str(source), str(dest), lock, **options)


def is_whole(dest, lock):
    return verify.verify(str(dest), lock, deep=True, save=False)["verified"]


def modes(folder):
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o7777 for path in [folder, *folder.rglob("*")]}


def test_a_fresh_copy(source, dest, lock):
    result = bring(source, dest / "deeper", lock)
    assert result["changed"]
    assert result["fetched"] == [entry["path"] for entry in lock["files"]]
    assert result["bytes_fetched"] == sum(entry["size"] for entry in lock["files"])
    assert is_whole(dest / "deeper", lock)


def test_modes_whatever_the_umask(source, dest, lock):
    before = os.umask(0o077)
    try:
        result = bring(source, dest, lock)
    finally:
        os.umask(before)
    assert [path for path in result["modes_changed"] if os.path.isfile(path)] == []  # right from the start
    assert {mode for name, mode in modes(dest).items() if (dest / name).is_dir()} == {0o750}
    assert {mode for name, mode in modes(dest).items() if (dest / name).is_file()} == {0o640}


def test_the_second_time_changes_nothing(source, dest, lock, settle, listing):
    bring(source, dest, lock)
    before = listing(dest)
    settle(dest)
    result = bring(source, dest, lock)
    assert (result["changed"], result["fetched"], result["modes_changed"], result["bytes_fetched"]) == (
        False,
        [],
        [],
        0,
    )
    assert listing(dest) == before
    assert bring(source, dest, lock)["before"]["bytes_hashed"] == 0


def test_the_source_is_only_needed_for_what_is_wrong(source, dest, lock):
    bring(source, dest, lock)
    shutil.rmtree(source)
    assert bring(source, dest, lock)["changed"] is False
    (dest / SHARD).unlink()
    with pytest.raises(LlmError, match="no folder") as caught:
        bring(source, dest, lock)
    assert caught.value.remedy


def test_wrong_modes_are_set_right(source, dest, lock):
    bring(source, dest, lock)
    (dest / SHARD).chmod(0o666)
    (dest / "level0" / "level1").chmod(0o777)
    result = bring(source, dest, lock)
    assert result["changed"]
    assert result["fetched"] == []
    assert sorted(result["modes_changed"]) == sorted([str(dest / SHARD), str(dest / "level0" / "level1")])
    assert modes(dest)[SHARD] == 0o640


def test_only_wrong_files_are_copied(source, dest, lock, flip):
    bring(source, dest, lock)
    inodes = {path: path.stat().st_ino for path in dest.rglob("*") if path.is_file()}
    flip(dest / SHARD, -1)
    (dest / "tokenizer.json").unlink()
    os.truncate(dest / "config.json", 3)

    result = bring(source, dest, lock, deep=True)

    assert result["fetched"] == ["config.json", SHARD, "tokenizer.json"]
    assert is_whole(dest, lock)
    untouched = {path for path in inodes if path.name not in ("config.json", SHARD, "tokenizer.json")}
    assert len(untouched) == len(lock["files"]) - 3
    assert all(path.stat().st_ino == inodes[path] for path in untouched)
    assert (dest / SHARD).stat().st_ino != inodes[dest / SHARD]  # replaced, never written into


def test_a_run_that_was_cut_off_is_gone_on_with(source, dest, lock, monkeypatch):
    replace = os.replace

    def cut(origin, target):
        if str(target).endswith(SHARD):
            raise KeyboardInterrupt
        replace(origin, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            bring(source, dest, lock, jobs=1)
    assert (dest / PARTIAL).exists()
    assert not (dest / SHARD).exists()
    there = {path: path.stat().st_ino for path in dest.rglob("*") if path.is_file() and path.name != PARTIAL}
    assert dest / "config.json" in there

    result = bring(source, dest, lock)

    assert SHARD in result["fetched"]
    assert "config.json" not in result["fetched"]
    assert all(path.stat().st_ino == inode for path, inode in there.items())
    assert not (dest / PARTIAL).exists()
    assert is_whole(dest, lock)


def test_half_a_file_of_an_earlier_run_is_not_trusted(source, dest, lock):
    bring(source, dest, lock)
    (dest / SHARD).unlink()
    (dest / PARTIAL).write_bytes(b"half of it" * 1000)
    (dest / "level0" / ("x" + tree.PARTIAL_SUFFIX)).write_bytes(b"y")
    bring(source, dest, lock)
    assert is_whole(dest, lock)


def test_a_leftover_that_is_a_link_does_not_write_through_it(source, dest, lock, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    dest.mkdir()
    (dest / PARTIAL).symlink_to(victim)
    (dest / (OTHER + tree.PARTIAL_SUFFIX)).symlink_to(tmp_path / "not-there")
    bring(source, dest, lock)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "not-there").exists()
    assert is_whole(dest, lock)


def test_a_link_that_appears_after_the_leftovers_were_removed_is_not_followed(
    source, dest, lock, tmp_path, monkeypatch
):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    dest.mkdir()
    (dest / PARTIAL).symlink_to(victim)
    monkeypatch.setattr(fetch, "_remove_partials", lambda *_arguments: None)
    with pytest.raises(OSError):
        bring(source, dest, lock)
    assert victim.read_text() == "precious"


def test_a_damaged_source_leaves_the_destination_alone(source, dest, lock, flip):
    bring(source, dest, lock)
    flip(source / SHARD, -1)
    flip(dest / SHARD, 100)
    (dest / OTHER).unlink()
    before = (dest / SHARD).stat().st_ino, (dest / SHARD).read_bytes()
    with pytest.raises(LlmError, match=f"{SHARD} in the source .* is damaged") as caught:
        bring(source, dest, lock, deep=True)
    assert caught.value.found != caught.value.wanted
    assert ((dest / SHARD).stat().st_ino, (dest / SHARD).read_bytes()) == before
    assert not (dest / PARTIAL).exists()
    left = verify.verify(str(dest), lock, deep=True)
    assert [problem["path"] for problem in left["corrupt"]] == [SHARD]  # whatever else was copied is right
    flip(source / SHARD, -1)
    bring(source, dest, lock)
    assert is_whole(dest, lock)


@pytest.mark.parametrize("how", ["short", "absent", "link", "folder"])
def test_a_source_that_cannot_be_right_is_refused_before_anything_is_written(source, dest, lock, how, tmp_path):
    if how == "short":
        os.truncate(source / SHARD, 10)
    else:
        (source / SHARD).rename(tmp_path / "moved")
    if how == "link":
        (source / SHARD).symlink_to(tmp_path / "moved")
    if how == "folder":
        (source / SHARD).mkdir()
    with pytest.raises(LlmError):
        bring(source, dest, lock)
    assert not dest.exists()
    assert not os.path.exists(fetch.manifest_path(str(dest)))


@pytest.mark.parametrize("name", ["notes.txt", "pytorch_model.bin", "sub/x.pt", "link"])
def test_strange_files_are_refused_and_kept(source, dest, lock, name, listing):
    bring(source, dest, lock)
    (dest / SHARD).unlink()
    (dest / name).parent.mkdir(exist_ok=True)
    if name == "link":
        (dest / name).symlink_to("/etc/passwd")
    else:
        (dest / name).write_bytes(b"mine")
    before = listing(dest)
    with pytest.raises(LlmError, match="not in the lock") as caught:
        bring(source, dest, lock)
    assert name in caught.value.found
    assert ("pickles" in caught.value.summary) == name.endswith((".bin", ".pt"))
    assert listing(dest) == before


def test_a_link_in_place_of_a_file_is_refused(source, dest, lock, tmp_path):
    bring(source, dest, lock)
    (dest / SHARD).rename(tmp_path / "theirs")
    (dest / SHARD).symlink_to(tmp_path / "theirs")
    with pytest.raises(LlmError):
        bring(source, dest, lock)
    assert (dest / SHARD).is_symlink()


def test_a_destination_that_is_a_file(source, dest, lock):
    dest.write_text("mine")
    with pytest.raises(LlmError):
        bring(source, dest, lock)
    assert dest.read_text() == "mine"


@pytest.mark.parametrize("state", ["fresh", "whole", "wrong", "cut off", "modes"])
def test_check_mode_changes_nothing_and_says_what_would_change(source, dest, lock, state, listing, flip, tmp_path):
    if state != "fresh":
        bring(source, dest, lock)
    if state == "wrong":
        flip(dest / SHARD, -1)
    if state == "cut off":
        (dest / SHARD).rename(dest / PARTIAL)
    if state == "modes":
        (dest / SHARD).chmod(0o600)
    Path(stamps.default_path(str(dest))).unlink(missing_ok=True)
    before = listing(tmp_path)

    would = bring(source, dest, lock, check=True)

    assert listing(tmp_path) == before
    did = bring(source, dest, lock)
    assert (would["changed"], would["fetched"], would["bytes_fetched"]) == (
        did["changed"],
        did["fetched"],
        did["bytes_fetched"],
    )
    if state != "fresh":  # there the modes of what is not yet there are not counted
        assert would["modes_changed"] == (did["modes_changed"] if state == "modes" else [])
    assert is_whole(dest, lock)


@pytest.mark.parametrize("check", [False, True])
def test_no_space(source, dest, lock, monkeypatch, listing, tmp_path, check):
    need = sum(entry["size"] for entry in lock["files"])
    before = listing(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=need - 1))
    with pytest.raises(LlmError, match="no space") as caught:
        bring(source, dest, lock, check=check)
    assert str(need) in caught.value.wanted
    assert str(need - 1) in caught.value.found
    assert listing(tmp_path) == before


def test_space_is_only_needed_for_what_is_wrong(source, dest, lock, monkeypatch):
    bring(source, dest, lock)
    (dest / SHARD).unlink()
    need = next(entry["size"] for entry in lock["files"] if entry["path"] == SHARD)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=need))
    bring(source, dest, lock)
    assert is_whole(dest, lock)


def test_a_disk_that_fills_up_leaves_nothing_half_in_place(source, dest, lock, monkeypatch):
    def full(out, block):
        if len(block) > 100:
            out.write(block[:50])
            raise OSError(28, "No space left on device")
        out.write(block)

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_write_all", full)
        with pytest.raises(OSError, match="No space left"):
            bring(source, dest, lock)
    assert not (dest / SHARD).exists()
    bring(source, dest, lock)
    assert is_whole(dest, lock)


def test_writes_that_take_only_a_part_are_gone_on_with():
    class Slow:
        def __init__(self):
            self.got = b""

        def write(self, block):
            self.got += bytes(block[:3])
            return min(3, len(block))

    out = Slow()
    fetch._write_all(out, memoryview(b"0123456789"))
    assert out.got == b"0123456789"


def test_fetched_names_only_what_was_copied(source, dest, lock):
    """An index that names a shard nobody has is a problem of the lock, and no file that could be copied."""
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../../outside.safetensors"}}))
    for entry in lock["files"]:
        if entry["path"] == index.name:
            entry.update(size=index.stat().st_size, sha256=hashlib.sha256(index.read_bytes()).hexdigest())
    bring(source, dest, lock)
    again = bring(source, dest, lock)
    assert again["before"]["corrupt"]
    assert again["fetched"] == []
    assert again["changed"] is False


# Removal ----------------------------------------------------------------------------------------------------------


def test_removal_leaves_no_trace(source, dest, lock, settle, tmp_path):
    bring(source, dest, lock)
    settle(dest)
    verify.verify(str(dest), lock)
    gone = fetch.remove(str(dest))
    assert str(dest) in gone
    assert os.listdir(dest.parent) == []
    assert is_whole(source, lock)
    assert fetch.remove(str(dest)) == []


def test_removal_keeps_what_a_stranger_put_there(source, dest, lock):
    bring(source, dest, lock)
    mine = dest / "level0" / "notes.txt"
    mine.write_text("mine")
    fetch.remove(str(dest))
    assert [path for path in dest.rglob("*") if path.is_file()] == [mine]


def test_removal_keeps_weights_that_lay_there_before(source, dest, lock, write_model, listing):
    """A user who points llm_weights_path at a folder that is right already owns that folder."""
    write_model(dest)
    bring(source, dest, lock)
    before = {name: entry[-1] for name, entry in listing(dest).items()}
    assert fetch.remove(str(dest)) == []
    assert {name: entry[-1] for name, entry in listing(dest).items()} == before


def test_removal_takes_only_the_files_that_were_brought(source, dest, lock, write_model):
    write_model(dest)
    (dest / SHARD).unlink()
    bring(source, dest, lock)
    bring(source, dest, lock)
    fetch.remove(str(dest))
    left = {str(path.relative_to(dest)) for path in dest.rglob("*") if path.is_file()}
    assert left == {entry["path"] for entry in lock["files"]} - {SHARD}


def test_removal_after_a_run_that_was_cut_off(source, dest, lock, monkeypatch):
    replace = os.replace

    def cut(origin, target):
        if str(target).endswith(OTHER):
            raise KeyboardInterrupt
        replace(origin, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            bring(source, dest, lock, jobs=1)
    assert (dest / (OTHER + tree.PARTIAL_SUFFIX)).exists()
    fetch.remove(str(dest))
    assert os.listdir(dest.parent) == []


def test_removal_in_check_mode(source, dest, lock, listing, tmp_path):
    bring(source, dest, lock)
    before = listing(tmp_path)
    would = fetch.remove(str(dest), check=True)
    assert listing(tmp_path) == before
    assert {str(dest / entry["path"]) for entry in lock["files"]} <= set(would)


def test_removal_of_what_was_never_installed(write_model, dest, listing):
    write_model(dest)
    before = listing(dest)
    assert fetch.remove(str(dest)) == []
    assert listing(dest) == before


def test_removal_when_the_folder_is_gone(source, dest, lock):
    bring(source, dest, lock)
    shutil.rmtree(dest)
    fetch.remove(str(dest))
    assert os.listdir(dest.parent) == []


@pytest.mark.parametrize("content", ["not JSON", "{}", '{"files": [{"path": "../victim", "size": 1, "sha256": "%s"}]}'])
def test_a_hostile_manifest_deletes_nothing(source, dest, lock, content):
    bring(source, dest, lock)
    victim = dest.parent / "victim"
    victim.write_text("x")
    Path(fetch.manifest_path(str(dest))).write_text(content.replace("%s", "0" * 64))
    with pytest.raises(LlmError):
        fetch.remove(str(dest))
    assert victim.exists()
    assert is_whole(dest, lock)


def test_a_manifest_over_a_link_deletes_nothing_outside(source, dest, lock, tmp_path):
    bring(source, dest, lock)
    (dest / "level0").rename(tmp_path / "moved")
    (dest / "level0").symlink_to(tmp_path / "moved")
    with pytest.raises(LlmError, match="symbolic link"):
        fetch.remove(str(dest))
    assert list((tmp_path / "moved").rglob("notes.txt"))
    assert (dest / SHARD).exists()


def test_files_of_an_earlier_lock_go_when_the_new_ones_are_there(source, dest, lock):
    bring(source, dest, lock)
    newer = dict(lock, files=[entry for entry in lock["files"] if entry["path"] != "config.json"])
    assert bring(source, dest, newer, check=True)["removed"] == ["config.json"]
    assert (dest / "config.json").exists()
    result = bring(source, dest, newer)
    assert (result["changed"], result["removed"], result["fetched"]) == (True, ["config.json"], [])
    assert is_whole(dest, newer)
    assert not bring(source, dest, newer)["changed"]


def test_a_run_cut_off_between_two_locks_still_knows_its_own_files(source, dest, lock, monkeypatch):
    bring(source, dest, lock)
    newer = dict(lock, files=[entry for entry in lock["files"] if entry["path"] != "config.json"])
    (dest / SHARD).unlink()

    def cut_off(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_copy", cut_off)
        with pytest.raises(KeyboardInterrupt):
            bring(source, dest, newer)
    assert (dest / "config.json").exists(), "nothing of the earlier lock goes before the new one is whole"
    assert bring(source, dest, newer)["removed"] == ["config.json"]
    assert is_whole(dest, newer)
    assert fetch.remove(str(dest))
    assert not dest.exists()


# Another lock -----------------------------------------------------------------------------------------------------


NEXT_CONFIG = b'{"architectures": ["Next"]}'


@pytest.fixture
def next_lock(lock):
    """The next revision: another config, and no tokenizer."""
    changed = {"path": "config.json", "size": len(NEXT_CONFIG), "sha256": hashlib.sha256(NEXT_CONFIG).hexdigest()}
    kept = [entry for entry in lock["files"] if entry["path"] not in ("config.json", "tokenizer.json")]
    return dict(lock, revision="r2", files=sorted([*kept, changed], key=lambda entry: entry["path"]))


def test_files_of_an_earlier_lock_make_way(source, dest, lock, next_lock):
    bring(source, dest, lock)
    (source / "config.json").write_bytes(NEXT_CONFIG)

    result = bring(source, dest, next_lock)

    assert result["changed"]
    assert result["fetched"] == result["repaired"] == ["config.json"]
    assert result["removed"] == ["tokenizer.json"]
    assert is_whole(dest, next_lock)
    assert bring(source, dest, next_lock)["changed"] is False
    fetch.remove(str(dest))
    assert os.listdir(dest.parent) == []


def test_only_files_that_were_brought_make_way(source, dest, lock, next_lock, write_model, listing):
    """A tokenizer that a user put there himself is refused, not removed."""
    write_model(dest)
    (dest / SHARD).unlink()
    bring(source, dest, lock)
    before = listing(dest)
    with pytest.raises(LlmError, match="not in the lock") as caught:
        bring(source, dest, next_lock)
    assert caught.value.found == "tokenizer.json"
    assert listing(dest) == before


def test_a_damaged_source_keeps_the_files_of_the_earlier_lock(source, dest, lock, next_lock, flip):
    bring(source, dest, lock)
    (source / "config.json").write_bytes(NEXT_CONFIG)
    flip(source / "config.json", -1)
    with pytest.raises(LlmError, match="is damaged"):
        bring(source, dest, next_lock)
    assert is_whole(dest, lock)
    flip(source / "config.json", -1)
    bring(source, dest, next_lock)
    assert is_whole(dest, next_lock)


def test_check_mode_removes_nothing_and_says_what_it_would(source, dest, lock, listing, tmp_path):
    bring(source, dest, lock)
    smaller = dict(lock, files=[entry for entry in lock["files"] if entry["path"] != "tokenizer.json"])
    before = listing(tmp_path)
    result = bring(source, dest, smaller, check=True)
    assert (result["changed"], result["removed"], result["fetched"]) == (True, ["tokenizer.json"], [])
    assert listing(tmp_path) == before
    assert bring(source, dest, smaller)["removed"] == ["tokenizer.json"]


def test_when_nothing_that_was_brought_is_left_nothing_counts_as_brought(source, dest, lock, write_model):
    write_model(dest)
    (dest / "tokenizer.json").unlink()
    bring(source, dest, lock)  # brings the tokenizer alone
    smaller = dict(lock, files=[entry for entry in lock["files"] if entry["path"] != "tokenizer.json"])
    assert bring(source, dest, smaller)["removed"] == ["tokenizer.json"]
    (dest / "tokenizer.json").write_text("mine")
    with pytest.raises(LlmError, match="not in the lock"):
        bring(source, dest, smaller)
    assert (dest / "tokenizer.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "deeper/optimizer.PT", "tokenizer.pkl"])
def test_a_pickle_in_the_source_is_refused_before_anything_is_copied(source, dest, lock, name):
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_bytes(b"\x80\x04.")
    with pytest.raises(LlmError, match="can run code") as caught:
        bring(source, dest, lock)
    assert name in caught.value.found
    assert not dest.exists()
