# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import hashing, lockmaker, stamps


def test_the_lock_is_what_hashlib_says(model, lock):
    assert lockmaker.from_folder(str(model), "toy", "r1") == lock


def test_a_second_lock_of_an_unchanged_folder_reads_no_file(model, lock, settle, monkeypatch):
    settle(model)
    lockmaker.from_folder(str(model), "toy", "r1")
    monkeypatch.setattr(hashing, "sha256_file", lambda *_arguments: pytest.fail("a file was read"))
    assert lockmaker.from_folder(str(model), "toy", "r1") == lock


def test_without_save_nothing_is_written(model, listing):
    before = listing(model.parent)
    lockmaker.from_folder(str(model), "toy", "r1", save=False)
    assert listing(model.parent) == before


def test_what_hub_clients_leave_is_not_locked(model, lock):
    (model / ".cache" / "huggingface").mkdir(parents=True)
    (model / ".cache" / "huggingface" / "x.metadata").write_text("x")
    assert lockmaker.from_folder(str(model), "toy", "r1") == lock


def _refusal(model):
    with pytest.raises(LlmError) as caught:
        lockmaker.from_folder(str(model), "toy", "r1")
    assert caught.value.remedy
    return caught.value


def test_no_folder(tmp_path):
    assert _refusal(tmp_path / "none").found == "nothing"
    (tmp_path / "file").write_text("x")
    assert _refusal(tmp_path / "file").found == "a file"


def test_an_empty_folder(tmp_path):
    assert _refusal(tmp_path).found == "an empty folder"


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert _refusal(tmp_path).found == "1 files"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/x.PT", "x.pkl"])
def test_pickles(model, name):
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"\x80\x04")
    assert _refusal(model).found == name


def test_links_and_special_files(model, tmp_path):
    (tmp_path / "elsewhere").write_text("x")
    (model / "linked.json").symlink_to(tmp_path / "elsewhere")
    (model / "folder").symlink_to("/etc")
    os.mkfifo(model / "pipe")
    assert _refusal(model).found == "folder, linked.json, pipe"


def test_a_damaged_shard(model):
    os.truncate(model / "model-00001-of-00002.safetensors", 60)
    assert "model-00001-of-00002.safetensors" in _refusal(model).summary


def test_a_shard_that_the_index_names_and_that_is_not_there(model):
    (model / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in _refusal(model).summary


@pytest.mark.parametrize("name", [b"line\nfeed", b"back\\slash", b"not-utf8-\xff", b"tokenizer.json.baremetal-partial"])
def test_names_that_no_lock_may_hold(model, name):
    with open(os.fsencode(str(model)) + b"/" + name, "wb"):
        pass
    _refusal(model)


def test_a_file_that_changes_while_it_is_read_is_not_locked(model, monkeypatch):
    read = hashing.sha256_file

    def read_and_change(path, sink=None):
        result = read(path, sink)
        if path.endswith("tokenizer.json"):
            with open(path, "ab") as stream:
                stream.write(b"\n")
        return result

    monkeypatch.setattr(hashing, "sha256_file", read_and_change)
    assert "tokenizer.json was changed" in _refusal(model).summary


def test_a_stamp_with_another_digest_than_a_digest_makes_no_lock(model, settle):
    settle(model)
    lockmaker.from_folder(str(model), "toy", "r1")
    path = stamps.default_path(str(model))
    known = stamps.read(path)
    known["config.json"]["sha256"] = "0" * 63
    stamps.write(path, known)
    _refusal(model)
