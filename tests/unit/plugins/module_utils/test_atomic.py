# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import atomic


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_mode_is_the_one_asked_for(tmp_path, mode, umask):
    before = os.umask(umask)
    try:
        atomic.write_text(str(tmp_path / "f"), "text", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
    assert (tmp_path / "f").read_text() == "text"


def test_a_secret_is_never_readable_for_others_before_its_mode_is_set(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fchmod", lambda handle, _mode: seen.append(stat.S_IMODE(os.fstat(handle).st_mode)))
    before = os.umask(0)
    try:
        atomic.write_text(str(tmp_path / "f"), "secret", 0o600)
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_name_in_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic.write_text("f", "text", 0o600)
    assert os.listdir(tmp_path) == ["f"]


def test_json_is_the_same_text_for_the_same_data(tmp_path):
    atomic.write_json(str(tmp_path / "f"), {"b": "模", "a": [1]}, 0o600)
    assert (tmp_path / "f").read_text(encoding="utf-8") == '{\n  "a": [\n    1\n  ],\n  "b": "模"\n}\n'
    assert atomic.read_json(str(tmp_path / "f")) == {"a": [1], "b": "模"}


@pytest.mark.parametrize("data", [{"a": object()}, {"a": "\ud800"}])
def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, data):
    atomic.write_json(str(tmp_path / "f"), {"old": 1}, 0o600)
    with pytest.raises((TypeError, ValueError)):
        atomic.write_json(str(tmp_path / "f"), data, 0o600)
    assert os.listdir(tmp_path) == ["f"]
    assert atomic.read_json(str(tmp_path / "f")) == {"old": 1}


@pytest.mark.parametrize("call", ["fsync", "fchmod", "replace"])
def test_being_cut_off_anywhere_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    atomic.write_text(str(tmp_path / "f"), "old", 0o600)

    def cut(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, cut)
        with pytest.raises(KeyboardInterrupt):
            atomic.write_text(str(tmp_path / "f"), "new", 0o600)
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "f").symlink_to("victim")
    atomic.write_text(str(tmp_path / "f"), "text", 0o600)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "f").is_symlink()


def test_a_reader_never_sees_half_of_a_file(tmp_path):
    path = str(tmp_path / "f")
    versions = [{"rows": [number] * 20_000} for number in range(2)]
    atomic.write_json(path, versions[0], 0o600)
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            seen.append(atomic.read_json(path))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(12):
            atomic.write_json(path, versions[number % 2], 0o600)
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(data in versions for data in seen)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"null", b'"x"', b"\xff\xfe", b"[" * 200_000, b'{"a":' * 200_000]
)
def test_what_is_no_object_reads_as_none(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    assert atomic.read_json(str(tmp_path / "f")) is None


def test_what_cannot_be_read_reads_as_none(tmp_path):
    assert atomic.read_json(str(tmp_path / "none")) is None
    assert atomic.read_json(str(tmp_path)) is None
    assert atomic.read_json("a\x00b") is None
