# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import sources


def _opened(folder) -> sources.Hub:
    return sources.open_source(sources.parse(str(folder)))


def test_files_with_their_lengths(model, lock):
    (model / ".cache" / "huggingface").mkdir(parents=True)
    (model / ".cache" / "huggingface" / "x.metadata").write_text("x", encoding="utf-8")
    files = _opened(model).listing().files
    assert [(file.path, file.size) for file in files] == [(entry["path"], entry["size"]) for entry in lock["files"]]


@pytest.mark.parametrize("offset", [0, 10, 10_000])
def test_reading_from_the_middle_and_behind_the_end(model, offset):
    content = (model / "model-00001-of-00002.safetensors").read_bytes()
    with _opened(model).stream("model-00001-of-00002.safetensors", offset) as piece:
        assert piece.offset == (offset if offset < len(content) else 0)
        assert piece.total == len(content)
        assert b"".join(iter(lambda: piece.read(7), b"")) == content[piece.offset :]


def test_no_folder(tmp_path, refused):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert refused(_opened(tmp_path / "none")).found == "nothing"
    assert refused(_opened(tmp_path / "file")).found == "a file"
    (tmp_path / "empty").mkdir()
    assert "holds no files" in refused(_opened(tmp_path / "empty")).summary


def test_links_are_not_followed(model, tmp_path, refused):
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    (model / "linked.json").symlink_to(tmp_path / "secret")
    os.mkfifo(model / "pipe")
    assert refused(_opened(model)).found == "linked.json, pipe"
    for path in ("linked.json", "../secret"):
        with pytest.raises(LlmError), _opened(model).stream(path):
            pytest.fail("it was read")
