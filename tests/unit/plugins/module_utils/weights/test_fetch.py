# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import (
    download,
    exclusive,
    fetch,
    hashing,
    layers,
    lockfile,
    merkle,
    patch,
    place,
    progress,
    sources,
    stamps,
    tree,
    verify,
)
from ansible_collections.baremetal.llm.tests.testbed import hubs

SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"


@pytest.fixture
def source(tmp_path, write_model):
    return write_model(tmp_path / "disk" / "model")


@pytest.fixture
def dest(tmp_path):
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib" / "weights"


def bring(source, dest, lock, **options):
    return fetch.fetch(str(source), str(dest), lock, **options)


def aside(dest, *parts):
    return Path(tree.aside(str(dest), parts[0])).joinpath(*parts[1:])


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


def test_other_users_get_through_to_the_folder(source, dest, lock):
    """The engine may run as a user that owns the folder and nothing above it."""
    before = os.umask(0o022)
    try:
        bring(source, dest / "above" / "model", lock)
    finally:
        os.umask(before)
    assert [modes(dest)[name] for name in (".", "above", "above/model")] == [0o755, 0o755, 0o750]


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

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            bring(source, dest, lock, jobs=1)
    assert aside(dest, "incoming", SHARD).exists()
    assert not (dest / SHARD).exists()
    there = {path: path.stat().st_ino for path in dest.rglob("*") if path.is_file()}
    assert dest / "config.json" in there

    result = bring(source, dest, lock)

    assert SHARD in result["fetched"]
    assert "config.json" not in result["fetched"]
    assert all(path.stat().st_ino == inode for path, inode in there.items())
    assert not aside(dest, "incoming").exists()
    assert is_whole(dest, lock)


def test_half_a_file_of_an_earlier_run_is_not_trusted(source, dest, lock):
    bring(source, dest, lock)
    (dest / SHARD).unlink()
    Path(place.staged(str(dest), SHARD)).write_bytes(b"half of it" * 1000)
    Path(place.staged(str(dest), "level0/x")).write_bytes(b"y")
    bring(source, dest, lock)
    assert is_whole(dest, lock)
    assert not aside(dest, "incoming").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_leftover_that_is_a_link_does_not_write_through_it(source, dest, lock, tmp_path, there):
    victim = tmp_path / "victim"
    if there:
        victim.write_text("precious")
    Path(place.staged(str(dest), SHARD)).symlink_to(victim)
    bring(source, dest, lock)
    assert victim.exists() == there
    assert not there or victim.read_text() == "precious"
    assert is_whole(dest, lock)


def test_a_link_that_appears_after_the_leftovers_were_removed_is_not_followed(
    source, dest, lock, tmp_path, monkeypatch
):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted = Path(place.staged(str(dest), SHARD))
    planted.symlink_to(victim)
    monkeypatch.setattr(place, "staged", lambda _dest, path: str(aside(dest, "incoming", path)))
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
    assert not aside(dest, "incoming", SHARD).exists()
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
    assert os.listdir(dest.parent) == [".weights.busy"]


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
        (dest / SHARD).rename(place.staged(str(dest), SHARD))
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


def with_free(monkeypatch, size, files=10_000, all_files=100_000):
    """Let the file system have this many free bytes and files."""
    known = os.statvfs("/")

    def measure(_path):
        values = list(known)
        values[1] = 1  # f_frsize
        values[4], values[5], values[7] = size, all_files, files  # f_bavail, f_files, f_favail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", measure)


@pytest.mark.parametrize("check", [False, True])
def test_no_space(source, dest, lock, monkeypatch, check):
    need = sum(entry["size"] for entry in lock["files"])
    with_free(monkeypatch, need - 1)
    with pytest.raises(LlmError, match="no space") as caught:
        bring(source, dest, lock, check=check)
    assert str(need) in caught.value.wanted
    assert str(need - 1) in caught.value.found
    assert caught.value.remedy
    assert os.listdir(dest.parent) == ([] if check else [".weights.busy"])


def test_no_room_for_files(source, dest, lock, monkeypatch):
    with_free(monkeypatch, 10**9, files=len(lock["files"]))
    with pytest.raises(LlmError, match="no space") as caught:
        bring(source, dest, lock)
    assert "files" in caught.value.wanted
    assert f"room for {len(lock['files'])} " in caught.value.found
    with_free(monkeypatch, 10**9, files=0, all_files=0)
    bring(source, dest, lock)
    assert is_whole(dest, lock), "a file system that counts no files has room for any number"


def test_space_is_only_needed_for_what_is_wrong(source, dest, lock, monkeypatch):
    bring(source, dest, lock)
    (dest / SHARD).unlink()
    with_free(monkeypatch, next(entry["size"] for entry in lock["files"] if entry["path"] == SHARD))
    bring(source, dest, lock)
    assert is_whole(dest, lock)


def test_what_an_earlier_run_has_left_needs_no_space_again(dest, monkeypatch):
    entry = {"path": "big.safetensors", "size": 1_000_000, "sha256": "0" * 64}
    Path(place.staged(str(dest), entry["path"])).write_bytes(b"x" * 900_000)
    with_free(monkeypatch, 100_000)
    fetch._check_space(str(dest), [entry])
    with_free(monkeypatch, 1000)
    with pytest.raises(LlmError):
        fetch._check_space(str(dest), [entry])


def test_a_disk_that_fills_up_leaves_nothing_half_in_place(source, dest, lock, monkeypatch):
    def full(out, block):
        if len(block) > 100:
            out.write(block[:50])
            raise OSError(28, "No space left on device")
        out.write(block)

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "_write_all", full)
        with pytest.raises(LlmError, match="no space") as caught:
            bring(source, dest, lock)
    assert "No space left" in caught.value.found
    assert caught.value.wanted
    assert not (dest / SHARD).exists()
    bring(source, dest, lock)
    assert is_whole(dest, lock)


def test_another_error_of_the_disk_is_not_taken_for_a_full_one(source, dest, lock, monkeypatch):
    def broken(_out, _block):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fetch, "_write_all", broken)
    with pytest.raises(OSError, match="Input/output"):
        bring(source, dest, lock)


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


def test_removal_leaves_no_trace(source, dest, lock, settle):
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
    assert [path for path in fetch.remove(str(dest)) if path.startswith(str(dest))] == []
    assert os.listdir(dest.parent) == ["weights"]
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

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            bring(source, dest, lock, jobs=1)
    assert aside(dest, "incoming", OTHER).exists()
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
    Path(place.manifest_path(str(dest))).write_text(content.replace("%s", "0" * 64))
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

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "_copy", cut_off)
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


# From elsewhere ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nothing asks the proxies of whoever runs the tests, and nothing really waits."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    open_source = sources.open_source
    fetch_file = download.fetch_file
    monkeypatch.setattr(sources, "open_source", lambda *a, **o: open_source(*a, **o, sleep=lambda _seconds: None))
    monkeypatch.setattr(download, "fetch_file", lambda *a, **o: fetch_file(*a, **o, sleep=lambda _seconds: None))


def cut_shard(lock, position, times):
    """A fault that cuts connections with the first shard; Hugging Face redirects to where it lies by its digest."""
    digest = next(entry["sha256"] for entry in lock["files"] if entry["path"] == SHARD)
    where = f"{SHARD}|{digest}"
    return hubs.Fault(where, times=times, cut=position)


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers", "https"])
def test_every_kind_of_source(source, dest, lock, kind):
    with hubs.start(kind, source, [cut_shard(lock, 50, 1)], name="acme/tiny") as server:
        where = f"{server.url}/models/acme/tiny" if kind == "https" else f"{kind}://acme/tiny"
        locked = dict(lock, revision=server.application.repository.commit)
        options = {} if kind == "https" else {"endpoint": server.url}
        result = bring(where, dest, locked, **options)
        assert result["changed"]
        assert result["fetched"] == [entry["path"] for entry in lock["files"]]
        assert is_whole(dest, lock)
        asked = len(server.requests)
        assert not bring(where, dest, locked, **options)["changed"]
        assert len(server.requests) == asked, "a folder that is right asks nobody"
    assert sorted(os.listdir(dest.parent)) == [
        ".weights.busy",
        ".weights.lock.json",
        ".weights.progress.json",
        ".weights.stamps.json",
        "weights",
    ]


def test_the_revision_of_the_lock_is_asked_for(source, dest, lock):
    with hubs.start("hf", source) as server:
        commit = server.application.repository.commit
        bring("hf://acme/tiny", dest, dict(lock, revision=commit), endpoint=server.url)
        assert all(f"/{commit}/" in request.path for request in server.requests if "resolve" in request.path)


def test_a_hub_that_refuses_says_why_and_keeps_the_secret(source, dest, lock):
    with hubs.start("hf", source, token="the-right-one") as server, pytest.raises(LlmError) as caught:
        bring("hf://acme/tiny", dest, lock, endpoint=server.url, token="the-wrong-one")
    assert "401" in caught.value.found
    assert "token" in caught.value.remedy
    assert "the-wrong-one" not in str(caught.value)


def test_a_damaged_file_at_a_hub(source, dest, lock, flip):
    flip(source / SHARD, -1)
    with hubs.start("hf", source) as server, pytest.raises(LlmError, match=f"{SHARD} is damaged") as caught:
        bring("hf://acme/tiny", dest, lock, endpoint=server.url, retries=1)
    assert caught.value.wanted != caught.value.found
    assert not (dest / SHARD).exists()
    left = verify.verify(str(dest), lock, deep=True)
    assert left["corrupt"] == []


def test_what_was_brought_stays_for_the_next_run(source, dest, lock):
    with hubs.start("hf", source, [cut_shard(lock, 40, None)]) as server:
        with pytest.raises(LlmError, match="cannot be had"):
            bring("hf://acme/tiny", dest, lock, endpoint=server.url, retries=1)
        half = aside(dest, "incoming", SHARD).stat().st_size
        assert half > 0
        server.faults.clear()
        server.requests.clear()
        bring("hf://acme/tiny", dest, lock, endpoint=server.url)
        asked = [request.headers.get("Range") for request in server.requests]
    assert f"bytes={half}-" in asked
    assert is_whole(dest, lock)


def test_secrets_are_nowhere_on_disk(source, dest, lock, tmp_path):
    with hubs.start("hf", source, token="the-right-one") as server:
        bring("hf://acme/tiny", dest, lock, endpoint=server.url, token="the-right-one")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"the-right-one" not in path.read_bytes()


@pytest.mark.parametrize("text", ["relative/folder", "ftp://host/x", "hf://one", "https://user:secret@host/x", ""])
def test_a_source_that_cannot_be_understood(dest, lock, text):
    with pytest.raises(LlmError) as caught:
        bring(text, dest, lock)
    assert "user" not in caught.value.found
    assert "secret" not in caught.value.found
    assert os.listdir(dest.parent) == []


# What else comes with it ------------------------------------------------------------------------------------------


def test_merkle_roots_and_layers_come_from_the_same_reading(tmp_path, dest, monkeypatch):
    content = bytes(range(256)) * 4096
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.safetensors").write_bytes(content)
    (tmp_path / "disk" / "empty.txt").write_bytes(b"")
    lock = lockfile.check(
        {
            "files": [
                {"path": "a.safetensors", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()},
                {"path": "empty.txt", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
            ]
        }
    )
    read = []
    digest_file = hashing.digest_file
    monkeypatch.setattr(
        hashing, "digest_file", lambda path, **options: read.append(path) or digest_file(path, **options)
    )
    result = bring(tmp_path / "disk", dest, lock)
    assert sorted(map(os.path.basename, read)) == ["a.safetensors", "empty.txt"]
    piece = merkle.piece_bytes(len(content))
    builder = merkle.Builder(piece)
    builder.update(memoryview(content))
    root, layer = builder.finish()
    assert result["merkle"] == {"a.safetensors": root}
    assert [entry.get("merkle", "") for entry in result["lock"]["files"]] == [root, ""]
    assert layers.load(str(dest), result["lock"]["files"][0], piece) == layer
    again = bring(tmp_path / "disk", dest, lock)
    assert (again["merkle"], again["lock"]) == (result["merkle"], result["lock"])
    assert bring(tmp_path / "disk", dest, result["lock"])["changed"] is False


def test_a_lock_with_a_wrong_merkle_root(source, dest, lock):
    lock["files"][-1]["merkle"] = "0" * 64
    with pytest.raises(LlmError, match="merkle root") as caught:
        bring(source, dest, lockfile.check(lock))
    assert caught.value.wanted == "0" * 64


@pytest.fixture
def patched(lock, source):
    content = (source / "config.json").read_bytes()
    entry = patch.plan(lock, "config.json", {"torch_dtype": "float16"}, content)
    return lockfile.check(
        dict(lock, files=[entry if other["path"] == "config.json" else other for other in lock["files"]])
    )


def test_a_patch_is_made_once_and_its_published_form_is_kept(source, dest, lock, patched):
    result = bring(source, dest, patched)
    assert result["patched"] == ["config.json"]
    assert json.loads((dest / "config.json").read_text())["torch_dtype"] == "float16"
    assert is_whole(dest, patched)
    assert sorted(result["merkle"]) == [entry["path"] for entry in lock["files"] if entry["size"]]
    again = bring(source, dest, patched)
    assert (again["changed"], again["merkle"]) == (False, result["merkle"])
    shutil.rmtree(source)
    aside(dest, "originals", "config.json").unlink()
    with pytest.raises(LlmError, match="no folder"):
        bring(source, dest, patched)


def test_a_patch_needs_no_source_when_the_published_form_is_there(source, dest, lock, patched):
    bring(source, dest, lock)
    shutil.rmtree(source)
    assert bring(source, dest, patched, check=True)["patched"] == ["config.json"]
    result = bring(source, dest, patched)
    assert (result["fetched"], result["restored"], result["patched"]) == ([], ["config.json"], ["config.json"])
    assert is_whole(dest, patched)
    result = bring(source, dest, lock)
    assert (result["fetched"], result["restored"]) == ([], ["config.json"])
    assert is_whole(dest, lock)


def test_back_to_an_old_revision_without_a_source(source, dest, lock, next_lock):
    bring(source, dest, lock)
    (source / "config.json").write_bytes(NEXT_CONFIG)
    bring(source, dest, next_lock)
    shutil.rmtree(source)
    would = bring(source, dest, lock, check=True)
    result = bring(source, dest, lock)
    for key in ("changed", "fetched", "restored", "removed"):
        assert would[key] == result[key]
    assert result["fetched"] == []
    assert result["restored"] == ["config.json", "tokenizer.json"]
    assert is_whole(dest, lock)
    assert bring(source, dest, next_lock)["restored"] == ["config.json"]
    assert is_whole(dest, next_lock)


def test_old_files_that_were_proved_are_kept_without_reading_them_again(
    source, dest, lock, next_lock, settle, monkeypatch
):
    bring(source, dest, lock)
    settle(dest)
    verify.verify(str(dest), lock, piece=merkle.piece_bytes(lockfile.total_bytes(lock)))
    (source / "config.json").write_bytes(NEXT_CONFIG)
    read = []
    digest_file = hashing.digest_file
    monkeypatch.setattr(
        hashing, "digest_file", lambda path, **options: read.append(path) or digest_file(path, **options)
    )
    bring(source, dest, next_lock)
    assert not [path for path in read if path.startswith(str(dest) + "/")]
    kept = {path.name for path in aside(dest, "revisions").rglob("*") if path.is_file()}
    assert kept == {"config.json", "tokenizer.json", "lock.json"}


def test_without_second_names_old_files_are_fetched_again(source, dest, lock, next_lock, monkeypatch, tmp_path):
    def refuse(*_arguments, **_options):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    shutil.copytree(source, tmp_path / "next")
    (tmp_path / "next" / "config.json").write_bytes(NEXT_CONFIG)
    bring(source, dest, lock)
    bring(tmp_path / "next", dest, next_lock)
    result = bring(source, dest, lock)
    assert result["fetched"] == ["config.json", "tokenizer.json"]
    assert is_whole(dest, lock)


def test_nothing_of_the_earlier_revision_is_replaced_before_all_is_there(source, dest, lock, flip):
    bring(source, dest, lock)
    contents = {entry["path"]: (source / entry["path"]).read_bytes() for entry in lock["files"]}
    contents["config.json"], contents["tokenizer.json"] = NEXT_CONFIG, b'{"version": "2"}'
    contents["added.txt"] = b"added"
    newer = dict(
        lock,
        files=[
            {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in sorted(contents.items())
        ],
    )
    for path in ("config.json", "tokenizer.json", "added.txt"):
        (source / path).write_bytes(contents[path])
    flip(source / "tokenizer.json", 0)
    with pytest.raises(LlmError, match="is damaged"):
        bring(source, dest, newer, jobs=1)
    (dest / "added.txt").unlink(missing_ok=True)
    assert is_whole(dest, lock)
    flip(source / "tokenizer.json", 0)
    bring(source, dest, newer)
    assert is_whole(dest, newer)


def test_two_runs_at_once(source, dest, lock):
    with (
        exclusive.writing(str(dest), "another deployment"),
        pytest.raises(LlmError, match="another run") as caught,
    ):
        bring(source, dest, lock)
    assert "another deployment" in caught.value.found
    bring(source, dest, lock)
    with exclusive.writing(str(dest), "another deployment"), pytest.raises(LlmError, match="another run"):
        fetch.remove(str(dest))
    assert is_whole(dest, lock)


def test_a_source_that_changes_while_it_is_read(source, dest, lock, monkeypatch):
    write_all = fetch._write_all

    def and_change(out, block):
        write_all(out, block)
        with open(source / OTHER, "r+b") as stream:
            stream.truncate(3)

    monkeypatch.setattr(fetch, "_write_all", and_change)
    newer = dict(lock, files=[entry for entry in lock["files"] if entry["path"] == OTHER])
    with open(source / OTHER, "ab") as stream:
        stream.write(b"x" * (hashing.READ_BYTES * 2))
    newer["files"][0] = dict(newer["files"][0], size=(source / OTHER).stat().st_size)
    with pytest.raises(LlmError, match="damaged") as caught:
        bring(source, dest, newer)
    assert "changed while it was read" in caught.value.found
    assert not (dest / OTHER).exists()


@pytest.mark.parametrize("name", ["../victim", "/etc/x", "a/../../b", "a\nb", "a\x00b", "x" * 300, tree.INSIDE + "/x"])
def test_hostile_names_in_the_lock(source, dest, name, tmp_path):
    with pytest.raises(LlmError, match="cannot be followed"):
        lockfile.check({"files": [{"path": name, "size": 1, "sha256": "0" * 64}]})
    with pytest.raises((LlmError, OSError, ValueError)):
        bring(source, dest, {"revision": "", "files": [{"path": name, "size": 1, "sha256": "0" * 64}]})
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "lib" / "victim").exists()


def test_clocks_that_jump(source, dest, lock, next_lock, monkeypatch, flip):
    """Neither stamps nor the order of revisions may be deceived by a clock that goes back and forth."""
    times = iter(range(10**9))
    jumps = (0, 4 * 10**9, 10**9, 2 * 10**9)
    monkeypatch.setattr(time, "time", lambda: float(jumps[next(times) % 4]))
    monkeypatch.setattr(time, "time_ns", lambda: jumps[next(times) % 4] * 10**9)
    bring(source, dest, lock)
    flip(dest / SHARD, -1, keep_times=True)
    (source / "config.json").write_bytes(NEXT_CONFIG)
    assert SHARD in bring(source, dest, next_lock)["repaired"]
    assert is_whole(dest, next_lock)
    bring(source, dest, lock)
    assert is_whole(dest, lock)


def test_how_far_it_is_can_be_read(source, dest, lock):
    bring(source, dest, lock)
    told = progress.read(str(aside(dest, "progress.json")))
    total = sum(entry["size"] for entry in lock["files"])
    assert (told["what"], told["done"], told["total"]) == ("fetching", total, total)


def test_a_folder_that_is_a_mount_point(source, dest, lock, next_lock, monkeypatch):
    """Then our notes lie in it: what lies beside is another file system."""
    dest.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(dest))
    bring(source, dest, lock)
    (source / "config.json").write_bytes(NEXT_CONFIG)
    bring(source, dest, next_lock)
    assert is_whole(dest, next_lock)
    assert os.listdir(dest.parent) == ["weights"]
    assert aside(dest, "revisions").is_dir()
    assert fetch.remove(str(dest))
    assert not dest.exists() or os.listdir(dest) == []


def test_removal_takes_all_that_is_ours_and_nothing_else(source, dest, next_lock, patched):
    strangers = [dest.parent / name for name in ("weights.txt", ".weights.b.lock.json", ".weightsx.lock.json", "other")]
    for stranger in strangers:
        stranger.write_text("mine")
    bring(source, dest, patched)
    (source / "config.json").write_bytes(NEXT_CONFIG)
    bring(source, dest, next_lock)
    for name in ("layers", "torrents", "share", "incoming"):
        aside(dest, name).mkdir(exist_ok=True)
        aside(dest, name, "x").write_text("x")
    (dest.parent / "..weights.lock.json.abcdefgh").write_text("what a cut-off run has left")
    would = fetch.remove(str(dest), check=True)
    gone = fetch.remove(str(dest))
    assert set(would) <= set(gone)
    assert sorted(os.listdir(dest.parent)) == sorted(path.name for path in strangers)


def test_removal_does_not_follow_a_link_in_place_of_a_note(source, dest, lock, tmp_path):
    bring(source, dest, lock)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    aside(dest, "revisions").symlink_to(tmp_path / "precious")
    fetch.remove(str(dest))
    assert (tmp_path / "precious" / "file").exists()
    assert os.listdir(dest.parent) == []


def test_a_change_is_recorded_in_the_lock_and_made_in_place(source, dest, lock):
    content = (source / "config.json").read_bytes()
    change = {"config.json": {"torch_dtype": "float16"}}
    checked = fetch.fetch(str(source), str(dest), lock, changes=change, check=True)
    done = fetch.fetch(str(source), str(dest), lock, changes=change)
    assert "patched" in str(checked["lock"])
    assert done["patched"] == ["config.json"]
    (entry,) = [entry for entry in done["lock"]["files"] if entry["path"] == "config.json"]
    placed = (dest / "config.json").read_bytes()
    assert json.loads(placed)["torch_dtype"] == "float16"
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["patched"]["sha256"] == hashlib.sha256(placed).hexdigest()
    shutil.rmtree(source)
    again = fetch.fetch(str(source), str(dest), lock, changes=change)
    assert not again["changed"]
    assert again["lock"] == done["lock"]
