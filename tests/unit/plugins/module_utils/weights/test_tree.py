# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import tree
from hypothesis import given
from hypothesis import strategies as st

HOSTILE_NAMES = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../x",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "..\\x",
    "a\x00b",
    "a\nb",
    "a\tb",
    "a\x1b[31mb",
    "a\x7f",
    "a\ud800b",
    ".baremetal-llm/notes.json",
    ".baremetal-llm",
    ".baremetal-llm/lock.json",
    "a" * 256,
    "a/" + "\u6a21" * 86,
    "a/" * 1500 + "b",
]


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, None, 5, True, [], {}, b"a"])
def test_names_that_cannot_be_followed_are_refused_with_a_remedy(name):
    with pytest.raises(LlmError) as caught:
        tree.check_relative(name)
    assert caught.value.remedy
    caught.value.found.encode()  # printable, whatever was in the name


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b",
        "..a",
        "a..b",
        "...",
        "a b",
        "模型.safetensors",
        ".gitattributes",
        "a" * 255,
        "\u6a21" * 85,
        "a/" * 1499 + "bb",
        "sub/.baremetal-llm",
        ".baremetal-llmx",
    ],
)
def test_plain_names_are_taken(name):
    assert tree.check_relative(name) == name


@given(st.text(alphabet=st.sampled_from("a./\\\x00\n\ud800é"), max_size=12))
def test_a_name_that_is_taken_stays_inside(name):
    try:
        tree.check_relative(name)
    except LlmError:
        return
    inside = os.path.normpath(os.path.join("/root/folder", name))
    assert inside == "/root/folder/" + name  # normal form, and below the folder
    name.encode("utf-8")


def test_walk_lists_links_and_special_files_and_follows_none(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "plain").write_bytes(b"12345")
    (folder / "sub" / "deep").write_bytes(b"1")
    (folder / "to-file").symlink_to(outside / "secret")
    (folder / "to-folder").symlink_to(outside)
    (folder / "to-itself").symlink_to(".")
    (folder / "broken").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")

    found = {entry.path: (entry.kind, entry.size) for entry in tree.walk(str(folder))}

    assert found == {
        "plain": ("file", 5),
        "sub/deep": ("file", 1),
        "to-file": ("link", 0),
        "to-folder": ("link", 0),
        "to-itself": ("link", 0),
        "broken": ("link", 0),
        "pipe": ("other", 0),
    }


def test_walk_leaves_out_what_hub_clients_leave_and_nothing_else(tmp_path):
    for name in (".cache/huggingface/a.metadata", ".cache/huggingface/download/b.lock", ".msc", ".mv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    for name in (".cache/other/c", "sub/.msc", ".cache/huggingface.bin", ".mscx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [entry.path for entry in tree.walk(str(tmp_path))] == sorted(
        [".cache/huggingface.bin", ".cache/other/c", ".mscx", "sub/.msc"]
    )


def test_a_link_named_like_a_hub_folder_is_listed(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "huggingface").symlink_to("/etc")
    assert [entry.kind for entry in tree.walk(str(tmp_path))] == ["link"]


def test_resolve_refuses_links_at_every_level(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("x")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(outside / "f")
    (folder / "inner").symlink_to(outside)
    (folder / "same").symlink_to("plain")
    (folder / "plain").write_text("x")
    for name in ("link", "inner/f", "same"):
        with pytest.raises(LlmError, match="symbolic link"):
            tree.resolve(str(folder), name)
    assert tree.resolve(str(folder), "plain") == str(folder / "plain")


def test_resolve_takes_a_folder_that_is_itself_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("x")
    (tmp_path / "current").symlink_to("real")
    assert tree.resolve(str(tmp_path / "current"), "f") == str(tmp_path / "real" / "f")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.PT", "a/b.pth", "x.Pkl", "x.ckpt", "x.npy", "x.h5"])
def test_pickles_are_known_in_any_case(name):
    assert tree.is_pickle(name)


@pytest.mark.parametrize("name", ["a.safetensors", "bin", "x.binary", "x.pt.txt", "tokenizer.json"])
def test_other_formats_are_no_pickles(name):
    assert not tree.is_pickle(name)


def test_the_error_of_a_name_of_300_characters_is_short():
    with pytest.raises(LlmError) as caught:
        tree.check_relative("a" * 300)
    assert "300 characters" in caught.value.found
    assert len(caught.value.found) < 150


@pytest.mark.parametrize("dest", ["/w/model", "/w/model/", "/w/./model", "/w/x/../model"])
def test_our_notes_lie_beside_the_folder(dest):
    assert tree.aside(dest, "lock.json") == "/w/.model.lock.json"
    assert tree.aside(dest, "revisions/abc") == "/w/.model.revisions/abc"


def test_our_notes_lie_beside_the_folder_that_a_link_leads_to(tmp_path):
    (tmp_path / "models" / "r1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("models/r1")
    assert tree.aside(str(tmp_path / "current"), "lock.json") == str(tmp_path / "models" / ".r1.lock.json")


def test_our_notes_lie_inside_a_folder_that_is_a_file_system_and_are_no_part_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path))
    note = tree.aside(str(tmp_path), "layers/x")
    assert note == str(tmp_path / ".baremetal-llm" / "layers" / "x")
    os.makedirs(os.path.dirname(note))
    with open(note, "wb"):
        pass
    (tmp_path / "config.json").write_text("{}")
    assert [entry.path for entry in tree.walk(str(tmp_path))] == ["config.json"]


def test_a_link_or_a_file_named_as_our_notes_is_listed(tmp_path):
    (tmp_path / ".baremetal-llm").symlink_to("/etc")
    assert [entry.kind for entry in tree.walk(str(tmp_path))] == ["link"]
    (tmp_path / ".baremetal-llm").unlink()
    (tmp_path / ".baremetal-llm").write_text("x")
    assert [entry.kind for entry in tree.walk(str(tmp_path))] == ["file"]
