# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import (
    exclusive,
    hashing,
    lockfile,
    merkle,
    patch,
    place,
    torrent,
    tree,
)
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import seed


@pytest.fixture
def reads(monkeypatch):
    """Paths of the files that are read, in the order in which they are."""
    seen = []
    whole = hashing.digest_file

    def note(path: str, **how: object):
        seen.append(path)
        return whole(path, **how)

    monkeypatch.setattr(hashing, "digest_file", note)
    return seen


def test_torrents_are_made_in_one_pass_and_a_second_run_reads_and_changes_nothing(model, lock, settle, reads):
    settle(model)
    lock = lockfile.check(lock)
    made = seed.make(str(model), lock, 2)
    assert made["changed"]
    assert sorted(reads) == sorted(str(model / entry["path"]) for entry in lock["files"])
    assert sum(entry["bytes"] for entry in made["torrents"]) == lockfile.total_bytes(lock)
    assert sum(entry["files"] for entry in made["torrents"]) == sum(1 for entry in lock["files"] if entry["size"])
    for entry, group in zip(made["torrents"], torrent.groups(lock, 2), strict=True):
        assert torrent.check(Path(entry["path"]).read_bytes(), made["lock"], group)
        assert entry["infohash"] in entry["name"]
    reads.clear()
    again = seed.make(str(model), made["lock"], 2)
    assert (again["changed"], reads) == (False, [])
    assert {**again, "changed": True, "before": []} == made
    assert lockfile.identity(made["lock"]) == lockfile.identity(lock)


def test_those_of_another_lock_are_removed_and_one_that_was_damaged_is_made_again(model, lock):
    lock = lockfile.check(lock)
    first = seed.make(str(model), lock, 3)["torrents"]
    second = seed.make(str(model), lock, 1)
    assert second["changed"]
    assert os.listdir(seed.folder(str(model))) == [second["torrents"][0]["name"]]
    assert sorted(second["before"]) == sorted(entry["name"] for entry in first)
    path = Path(second["torrents"][0]["path"])
    right = path.read_bytes()
    path.write_bytes(right[:-1])
    assert seed.make(str(model), lock, 1)["changed"]
    assert path.read_bytes() == right


def test_check_mode_writes_nothing(model, lock, listing):
    lock = lockfile.check(lock)
    before = listing(model.parent)
    assert seed.make(str(model), lock, 1, check=True)["changed"]
    assert listing(model.parent) == before
    made = seed.make(str(model), lock, 1)
    before = listing(model.parent)
    told = seed.make(str(model), lock, 1, check=True)
    assert (told["changed"], told["torrents"]) == (False, made["torrents"])
    told = seed.make(str(model), lock, 2, check=True)
    assert (told["changed"], len(told["torrents"])) == (True, 2)
    assert listing(model.parent) == before


def test_weights_that_are_not_whole_are_not_shared(model, lock, flip):
    (model / "tokenizer.json").unlink()
    flip(model / "config.json", 3)
    with pytest.raises(LlmError, match="not whole") as caught:
        seed.make(str(model), lockfile.check(lock), 1)
    assert "tokenizer.json" in caught.value.found
    assert "config.json (sha256)" in caught.value.found
    assert not os.path.exists(seed.folder(str(model)))


def test_a_root_in_the_lock_that_is_not_the_files_is_told(model, lock):
    lock = lockfile.check(lock)
    next(entry for entry in lock["files"] if entry["path"] == "config.json")["merkle"] = "0" * 64
    with pytest.raises(LlmError):
        seed.make(str(model), lock, 1)


def test_a_patched_file_is_shared_as_it_was_published(model, lock):
    lock, content = lockfile.check(lock), (model / "config.json").read_bytes()
    changed = patch.plan(lock, "config.json", {"torch_dtype": "float16"}, content)
    lock["files"] = [changed if entry["path"] == "config.json" else entry for entry in lock["files"]]
    original = Path(place.published_path(str(model), changed))
    original.parent.mkdir()
    shutil.move(model / "config.json", original)
    place.finish(str(model), lock)
    made = seed.make(str(model), lock, 1)
    builder = merkle.Builder(merkle.piece_bytes(1))
    builder.update(memoryview(content))
    entry = next(entry for entry in made["lock"]["files"] if entry["path"] == "config.json")
    assert entry["merkle"] == builder.finish()[0]
    assert entry["patched"] == changed["patched"]
    original.write_bytes(b"{}")
    with pytest.raises(LlmError, match="as it was published"):
        seed.make(str(model), lock, 1)
    original.unlink()
    with pytest.raises(LlmError, match="as it was published"):
        seed.make(str(model), lock, 1)


def test_the_token_stays_the_same_and_is_another_one_elsewhere(model, lock, write_model, tmp_path):
    lock = lockfile.check(lock)
    token = seed.make(str(model), lock, 1)["shared_token"]
    assert token == seed.make(str(model), lock, 2)["shared_token"]
    assert token != seed.make(str(write_model(tmp_path / "other")), lock, 1)["shared_token"]
    assert (Path(tree.aside(str(model), "share")) / "token").read_text() == token + "\n"


def test_a_folder_that_somebody_writes_is_left_alone(model, lock):
    with exclusive.writing(str(model), "a test"), pytest.raises(LlmError, match="another run"):
        seed.make(str(model), lockfile.check(lock), 1)
