# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import archives
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError

CONFIG = json.dumps({"architecture": "arm64", "os": "linux"}).encode()
ID = hashlib.sha256(CONFIG).hexdigest()
MANIFEST = [{"Config": f"{ID}.json", "RepoTags": ["vllm-ascend:v1"], "Layers": []}]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def archive(path, entries, mode="w"):
    with tarfile.open(path, mode) as made:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return str(path)


def saved(path, manifest=None, mode="w"):
    told = json.dumps(MANIFEST if manifest is None else manifest).encode()
    return archive(path, [(f"{ID}.json", CONFIG), ("layer.tar", b"x" * 100), ("manifest.json", told)], mode)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_what_an_archive_says_of_its_image(tmp_path, mode):
    path = saved(tmp_path / "image.tar", mode=mode)
    assert archives.read(path) == {
        "id": f"sha256:{ID}",
        "tags": ["vllm-ascend:v1"],
        "architecture": "arm64",
        "bytes": os.path.getsize(path),
    }


def test_an_image_without_a_name(tmp_path):
    path = saved(tmp_path / "image.tar", [{"Config": f"{ID}.json", "RepoTags": None}])
    assert archives.read(path)["tags"] == []


def test_the_id_is_that_of_the_content_and_not_of_the_name(tmp_path):
    manifest = json.dumps([{"Config": "blobs/sha256/0000", "RepoTags": []}]).encode()
    path = archive(tmp_path / "image.tar", [("blobs/sha256/0000", CONFIG), ("manifest.json", manifest)])
    assert archives.read(path)["id"] == f"sha256:{ID}"


def test_an_archive_is_read_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    path = saved(tmp_path / "image.tar")
    read = []
    monkeypatch.setattr(archives, "_read", lambda asked, real=archives._read: read.append(asked) or real(asked))
    first = archives.read(path)
    assert archives.read(path) == first
    assert read == [path]
    saved(tmp_path / "new.tar", [{"Config": f"{ID}.json", "RepoTags": ["other:v2"]}])
    os.replace(tmp_path / "new.tar", path)
    assert archives.read(path)["tags"] == ["other:v2"]


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert archives.read(saved(tmp_path / "image.tar"))["id"] == f"sha256:{ID}"


def no_archive(tmp_path):
    (tmp_path / "image.tar").write_bytes(b"not an archive at all" * 50)


def cut_off(tmp_path):
    path = saved(tmp_path / "image.tar", mode="w:gz")
    content = (tmp_path / "image.tar").read_bytes()
    (tmp_path / "image.tar").write_bytes(content[: len(content) // 2])
    return path


def no_manifest(tmp_path):
    archive(tmp_path / "image.tar", [("etc/passwd", b"root")])


def two_images(tmp_path):
    saved(tmp_path / "image.tar", [*MANIFEST, *MANIFEST])


def no_config(tmp_path):
    saved(tmp_path / "image.tar", [{"Config": "../../etc/passwd"}])


def config_is_a_list(tmp_path):
    manifest = json.dumps([{"Config": "c.json"}]).encode()
    archive(tmp_path / "image.tar", [("c.json", b"[]"), ("manifest.json", manifest)])


def manifest_is_a_link(tmp_path):
    with tarfile.open(tmp_path / "image.tar", "w") as made:
        member = tarfile.TarInfo("manifest.json")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        made.addfile(member)


def deep(tmp_path):
    archive(tmp_path / "image.tar", [("manifest.json", b"[" * 100_000)])


def nothing(tmp_path):
    assert not list(tmp_path.glob("image.tar"))


@pytest.mark.parametrize(
    "make",
    [no_archive, cut_off, no_manifest, two_images, no_config, config_is_a_list, manifest_is_a_link, deep, nothing],
)
def test_what_is_no_archive_of_one_image_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(LlmError, match="cannot be read") as caught:
        archives.read(str(tmp_path / "image.tar"))
    assert caught.value.found
    assert "llm_image_archive" in caught.value.remedy
