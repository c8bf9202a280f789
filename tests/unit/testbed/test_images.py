# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archives of images: what an engine needs to load them, and that the same input makes the same id."""

from __future__ import annotations

import hashlib
import json
import tarfile

import pytest
from ansible_collections.baremetal.llm.tests.testbed import images

LONG = "opt/" + "a-name-that-needs-a-header-of-its-own/" * 6 + "end"


@pytest.fixture(name="layers")
def fixture_layers(tmp_path):
    """Return two layers with every kind of member; one larger than a tar's record."""
    large = tmp_path / "large"
    large.write_bytes(b"0123456789" * 5000)
    first = {"usr/bin": {"mode": 0o755}, "bin": {"mode": 0o777, "link": "usr/bin"}, "etc/a": {"mode": 0o600}}
    first["etc/a"]["content"] = b"text\n"
    return [("first", lambda _cache: first), ("second", lambda _cache: {LONG: {"mode": 0o644, "file": large}})]


def write(folder, layers):
    """Return what is told of an archive, and its files by name."""
    folder.mkdir()
    archive = folder / "image.tar"
    told = images._write("name:tag", ["PATH=/bin"], layers, archive, folder)
    assert [path.name for path in folder.iterdir()] == ["image.tar"]
    with tarfile.open(archive) as whole:
        return told, {info.name: whole.extractfile(info).read() for info in whole}


def test_an_archive_is_what_docker_save_writes(tmp_path, layers):
    told, files = write(tmp_path / "one", layers)
    (listing,) = json.loads(files["manifest.json"])
    assert listing["RepoTags"] == ["name:tag"]
    config = files[listing["Config"]]
    assert told["id"] == f"sha256:{hashlib.sha256(config).hexdigest()}"
    digests = [f"sha256:{hashlib.sha256(files[part]).hexdigest()}" for part in listing["Layers"]]
    assert told["layers"] == digests == json.loads(config)["rootfs"]["diff_ids"]
    assert len(files) == len(layers) + 2


def test_layers_hold_the_members_with_all_folders_above_them(tmp_path, layers):
    _told, files = write(tmp_path / "one", layers)
    found = []
    for part in ("layer0/layer.tar", "layer1/layer.tar"):
        path = tmp_path / "layer.tar"
        path.write_bytes(files[part])
        with tarfile.open(path) as layer:
            found.append({info.name: (info.type, info.mode, info.linkname, info.size) for info in layer})
    assert found[0] == {
        "bin": (tarfile.SYMTYPE, 0o777, "usr/bin", 0),
        "etc": (tarfile.DIRTYPE, 0o755, "", 0),
        "etc/a": (tarfile.REGTYPE, 0o600, "", 5),
        "usr": (tarfile.DIRTYPE, 0o755, "", 0),
        "usr/bin": (tarfile.DIRTYPE, 0o755, "", 0),
    }
    assert found[1][LONG] == (tarfile.REGTYPE, 0o644, "", 50000)


def test_the_same_members_make_the_same_image(tmp_path, layers):
    first, _files = write(tmp_path / "one", layers)
    again, _files = write(tmp_path / "two", layers)
    assert first == again
    changed, _files = write(tmp_path / "three", layers[:1])
    assert changed["id"] != first["id"]
