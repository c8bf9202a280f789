# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import (
    hashing,
    layers,
    lockfile,
    lockmaker,
    merkle,
    progress,
    sources,
    stamps,
    tree,
)
from ansible_collections.baremetal.llm.tests.testbed import hubs

NAME = "acme/tiny"
INDEX = "model.safetensors.index.json"


def _without_roots(lock: dict) -> dict:
    files = [{key: entry[key] for key in ("path", "size", "sha256")} for entry in lock["files"]]
    return {**lock, "files": files}


def test_the_lock_is_what_hashlib_says(model, lock):
    assert _without_roots(lockmaker.from_folder(str(model), "toy", "r1")) == lock


def _root(content: bytes, piece: int) -> str:
    builder = merkle.Builder(piece)
    builder.update(memoryview(content))
    return builder.finish()[0]


def test_the_roots_come_from_the_same_reading_pass(model, monkeypatch):
    read = []
    digest = hashing.digest_file
    monkeypatch.setattr(hashing, "digest_file", lambda path, **options: read.append(path) or digest(path, **options))
    made = lockmaker.from_folder(str(model), "toy", "r1")
    piece = merkle.piece_bytes(lockfile.total_bytes(made))
    roots = {entry["path"]: entry.get("merkle", "") for entry in made["files"]}
    assert roots == {path: _root((model / path).read_bytes(), piece) for path in roots}
    assert len(read) == len(roots)


def test_layers_are_kept_beside_the_folder(model):
    (model / "large.txt").write_bytes(bytes(range(256)) * 4096)
    made = lockmaker.from_folder(str(model), "toy", "r1")
    entry = next(entry for entry in made["files"] if entry["path"] == "large.txt")
    piece = merkle.piece_bytes(lockfile.total_bytes(made))
    assert len(layers.load(str(model), entry, piece)) == 32 * 4


def test_progress_is_written(model):
    made = lockmaker.from_folder(str(model), "toy", "r1")
    seen = progress.read(tree.aside(str(model), "progress.json"))
    assert (seen["done"], seen["total"]) == (lockfile.total_bytes(made),) * 2


def test_a_second_lock_of_an_unchanged_folder_reads_no_file(model, settle, monkeypatch):
    (model / "large.txt").write_bytes(bytes(1_000_000))
    settle(model)
    made = lockmaker.from_folder(str(model), "toy", "r1")
    monkeypatch.setattr(hashing, "digest_file", lambda *_arguments, **_options: pytest.fail("a file was read"))
    assert lockmaker.from_folder(str(model), "toy", "r1") == made


def test_without_save_nothing_is_written(model, listing):
    before = listing(model.parent)
    lockmaker.from_folder(str(model), "toy", "r1", save=False)
    assert listing(model.parent) == before


def test_what_hub_clients_leave_is_not_locked(model, lock):
    (model / ".cache" / "huggingface").mkdir(parents=True)
    (model / ".cache" / "huggingface" / "x.metadata").write_text("x")
    assert _without_roots(lockmaker.from_folder(str(model), "toy", "r1")) == lock


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


@pytest.mark.parametrize("name", [b"line\nfeed", b"back\\slash", b"not-utf8-\xff"])
def test_names_that_no_lock_may_hold(model, name):
    with open(os.fsencode(str(model)) + b"/" + name, "wb"):
        pass
    _refusal(model)


def test_a_file_that_changes_while_it_is_read_is_not_locked(model, monkeypatch):
    read = hashing.digest_file

    def read_and_change(path, **options):
        result = read(path, **options)
        if path.endswith("tokenizer.json"):
            with open(path, "ab") as stream:
                stream.write(b"\n")
        return result

    monkeypatch.setattr(hashing, "digest_file", read_and_change)
    assert "tokenizer.json was changed" in _refusal(model).summary


def test_a_stamp_with_another_digest_than_a_digest_makes_no_lock(model, settle):
    settle(model)
    lockmaker.from_folder(str(model), "toy", "r1")
    path = stamps.default_path(str(model))
    known = stamps.read(path)
    known["config.json"]["sha256"] = "0" * 63
    stamps.write(path, known)
    _refusal(model)


def _write_list(model, **changed: str) -> None:
    lines = []
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        name = str(path.relative_to(model))
        lines.append(f"{changed.get(name) or hashlib.sha256(path.read_bytes()).hexdigest()}  ./{name}\n")
    (model / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def test_a_folder_that_agrees_with_its_own_list(model, lock):
    _write_list(model)
    made = lockmaker.from_folder(str(model), "toy", "r1")
    assert [entry for entry in _without_roots(made)["files"] if entry["path"] != "SHA256SUMS"] == lock["files"]


def test_a_folder_that_is_not_what_its_own_list_says(model):
    _write_list(model, **{"config.json": "0" * 64})
    error = _refusal(model)
    assert (error.wanted, "config.json" in error.summary) == ("SHA-256 " + "0" * 64, True)


def test_a_folder_that_lacks_what_its_own_list_names(model):
    _write_list(model)
    (model / "tokenizer.json").unlink()
    assert _refusal(model).found == "no such file"


def test_a_list_of_more_than_belongs_into_a_lock(model):
    _write_list(model)
    with (model / "SHA256SUMS").open("a", encoding="utf-8") as stream:
        stream.write(f"{'1' * 64}  pytorch_model.bin\n{'2' * 64}  .gitattributes\n")
    lockmaker.from_folder(str(model), "toy", "r1")


@pytest.fixture
def contents(model):
    """The model's files as a hub has them."""
    return {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}


def _made(server, kind: str = "hf", **options: object) -> lockmaker.Made:
    text = f"{server.url}/models/{NAME}" if kind == "https" else f"{kind}://{NAME}"
    source = sources.open_source(sources.parse(text), endpoint=server.url, retries=1, timeout=5.0, sleep=_no_wait)
    return lockmaker.from_source(source, sleep=_no_wait, **options)


def _no_wait(_seconds: float) -> None:
    """Tests do not wait."""


def _hub_error(server, kind: str = "hf") -> LlmError:
    with pytest.raises(LlmError) as caught:
        _made(server, kind)
    return caught.value


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers", "https"])
def test_a_hub_and_a_folder_have_the_same_lock(kind, contents, lock, model):
    with hubs.start(kind, model) as server:
        made = _made(server, kind, model="toy", revision="r1")
    assert made == lockmaker.Made(lock, [], [])
    folder = sources.open_source(sources.parse(str(model)))
    assert _without_roots(lockmaker.from_source(folder, "toy", "r1").lock) == lock


def test_the_commit_and_the_name_of_the_repository_are_in_the_lock(contents):
    with hubs.start("hf", contents) as server:
        lock = _made(server).lock
        assert (lock["model"], lock["revision"]) == (NAME, server.application.repository.commit)


def test_large_files_are_not_fetched(contents):
    with hubs.start("hf", contents) as server:
        _made(server)
        fetched = [path.partition("/resolve/")[2] for path in server.asked if "/resolve/" in path]
    assert not [path for path in fetched if path.endswith(".safetensors")]
    assert len(fetched) == len(set(fetched)) + 1  # the index is read, too


def test_what_is_left_out(contents):
    strange = {
        ".gitattributes": "git",
        "sub/.gitignore": "git",
        ".msc": "left by a hub's client",
        ".cache/huggingface/x": "left by a hub's client",
        "pytorch_model.bin": "pickle",
        "original/consolidated.00.PTH": "pickle",
        "model.Q4.gguf": "another engine's",
        "logo.PNG": "media",
    }
    with hubs.start("modelscope", {**contents, **dict.fromkeys(strange, b"x")}) as server:
        made = _made(server, "modelscope")
    assert {entry["path"]: entry["reason"] for entry in made.left_out} == strange
    assert [entry["path"] for entry in made.lock["files"]] == sorted(contents)
    assert made.notes[0].startswith("2 files can run code")


def test_pickles_alone(contents):
    only = {name: content for name, content in contents.items() if ".safetensors" not in name}
    with hubs.start("hf", {**only, "pytorch_model.bin": b"x"}) as server:
        assert "1 of them in formats that can run code" in _hub_error(server).found


def test_a_wrong_git_sha1(contents):
    fault = hubs.Fault(where="/resolve/.*/config.json", content=bytes.upper, times=None)
    with hubs.start("hf", contents, [fault]) as server:
        error = _hub_error(server)
    assert (error.wanted, "config.json" in error.summary) == (
        f"git's SHA-1 {hubs.git_sha1(contents['config.json'])}",
        True,
    )


def test_an_index_that_is_not_as_the_hub_says(contents):
    fault = hubs.Fault(where="FilePath=model.safetensors.index.json", content=lambda raw: raw.replace(b"norm", b"none"))
    with hubs.start("modelscope", contents, [fault]) as server:
        assert _hub_error(server, "modelscope").wanted == f"SHA-256 {hashlib.sha256(contents[INDEX]).hexdigest()}"


@pytest.mark.parametrize("content", [lambda raw: raw + b"x", lambda raw: raw[:-1], lambda _raw: b""])
def test_a_hub_that_lies_about_the_size(contents, content):
    with hubs.start("hf", contents, [hubs.Fault(where="/resolve/.*/config.json", content=content)]) as server:
        error = _hub_error(server)
    assert error.wanted == f"{len(contents['config.json'])} bytes"


@pytest.mark.parametrize("content", [lambda raw: raw + b"x" * 99, lambda raw: raw[:-1]])
def test_a_hub_that_lies_about_the_size_and_says_no_length(contents, content):
    fault = hubs.Fault(where="/resolve/.*/config.json", content=content, headers={"Content-Length": None})
    with hubs.start("hf", contents, [fault]) as server:
        assert "is not what its listing says" in _hub_error(server).summary


def test_a_length_that_is_announced_and_not_kept(contents):
    fault = hubs.Fault(
        where="/resolve/.*/config.json", announce=len(contents["config.json"]), content=lambda raw: raw[:5]
    )
    with hubs.start("hf", contents, [fault]) as server:
        assert _made(server).lock["files"]


def test_a_login_page_in_place_of_a_file(contents):
    fault = hubs.Fault(where="/resolve/.*/config.json", body=b"<html>sign in</html>", times=None)
    with hubs.start("hf", contents, [fault]) as server:
        assert _hub_error(server).found == "20 bytes"


def test_a_connection_that_is_cut_again_and_again_goes_on(contents, lock):
    contents["vocab.json"] = bytes(range(256)) * 40
    faults = [hubs.Fault(where="/resolve/.*/vocab.json", cut=1000) for _number in range(9)]
    with hubs.start("hf", contents, faults) as server:
        entry = next(entry for entry in _made(server).lock["files"] if entry["path"] == "vocab.json")
        ranges = [request.headers["Range"] for request in server.requests if request.path.endswith("vocab.json")]
    assert entry["sha256"] == hashlib.sha256(contents["vocab.json"]).hexdigest()
    assert ranges == [None, *(f"bytes={number * 1000}-" for number in range(1, 10))]


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(contents):
    contents["vocab.json"] = bytes(range(256)) * 40
    faults = [hubs.Fault(where="vocab.json", cut=1000), hubs.Fault(where="vocab.json", whole=True)]
    with hubs.start("hf", contents, faults) as server:
        assert len(_made(server).lock["files"]) == len(contents)


def test_a_connection_that_is_cut_for_ever(contents):
    with hubs.start("hf", contents, [hubs.Fault(where="/resolve/.*/config.json", cut=0, times=None)]) as server:
        assert "breaks off again and again" in _hub_error(server).summary
        assert len([path for path in server.asked if path.endswith("config.json")]) == lockmaker.TRIES


def test_a_long_file_without_sha256_is_not_fetched(contents, monkeypatch):
    monkeypatch.setattr(lockmaker, "MOST_PROVED_BYTES", 1000)
    contents["vocab.json"] = bytes(1001)
    with hubs.start("hf", contents) as server:
        assert _hub_error(server).found == "1001 bytes, git's SHA-1 alone"
        assert not [path for path in server.asked if "/resolve/" in path]


def test_files_that_nothing_is_said_of(contents):
    def forget(data: object) -> object:
        for entry in data["Data"]["Files"]:
            if entry["Path"] == "config.json":
                entry["Sha256"] = ""
        return data

    with hubs.start("modelscope", contents, [hubs.Fault(where="/files", change=forget, times=None)]) as server:
        assert _hub_error(server, "modelscope").found == "none of config.json"


def test_an_upload_that_is_not_finished(contents):
    del contents["model-00002-of-00002.safetensors"]
    with hubs.start("hf", contents) as server:
        error = _hub_error(server)
    assert "is not whole" in error.summary
    assert error.wanted == "model-00002-of-00002.safetensors"


def test_an_index_in_a_folder_names_shards_beside_it(contents):
    inner = {f"sub/{name}": content for name, content in contents.items() if "safetensors" in name}
    with hubs.start("hf", {"config.json": b"{}", **inner}) as server:
        assert len(_made(server).lock["files"]) == len(inner) + 1


@pytest.mark.parametrize("index", [b"{}", b"[]", b"x", json.dumps({"weight_map": {"a": {}}}).encode(), b"\xff"])
def test_an_index_that_is_none(contents, index):
    with hubs.start("hf", {**contents, INDEX: index}) as server:
        assert "is no index" in _hub_error(server).summary
