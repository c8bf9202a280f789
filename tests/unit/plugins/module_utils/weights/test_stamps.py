# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import stamps


def test_stamps_lie_beside_the_folder_also_when_it_is_reached_through_a_link(tmp_path):
    (tmp_path / "models" / "r1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("models/r1")
    expected = str(tmp_path / "models" / ".r1.stamps.json")
    assert stamps.default_path(str(tmp_path / "models" / "r1")) == expected
    assert stamps.default_path(str(tmp_path / "models" / "r1") + "/") == expected
    assert stamps.default_path(str(tmp_path / "current")) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"other"),
        lambda path: os.truncate(path, 1),
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path, ns=(1, path.stat().st_mtime_ns)),
        lambda path: os.replace(path.with_name("twin"), path),
    ],
    ids=["rewritten", "truncated", "mode", "times set back", "replaced by its twin"],
)
def test_a_stamp_changes_with_the_file(tmp_path, change):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    (tmp_path / "twin").write_bytes(b"12345")
    os.utime(tmp_path / "twin", ns=(5, 5))
    os.utime(path, ns=(5, 5))
    before = stamps.of(str(path))
    while time.time_ns() <= before[2] + stamps.TICK_NS:
        time.sleep(0.002)
    change(path)
    assert stamps.of(str(path)) != before


def test_a_stamp_does_not_change_by_reading(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    before = stamps.of(str(tmp_path / "f"))
    (tmp_path / "f").read_bytes()
    assert stamps.of(str(tmp_path / "f")) == before


def test_settled_is_more_than_one_tick_before_the_reading_began():
    stamp = [1, 0, 1_000_000_000, 7, 7]
    assert not stamps.is_settled(stamp, 1_000_000_000)
    assert not stamps.is_settled(stamp, 1_000_000_000 + stamps.TICK_NS)
    assert stamps.is_settled(stamp, 1_000_000_000 + stamps.TICK_NS + 1)


def test_what_is_written_is_read(tmp_path):
    files = {"a": {"stamp": [1, 2, 3, 4, 5], "sha256": "x", "merkle": ""}}
    assert stamps.write(str(tmp_path / "s"), files, "digest")
    assert stamps.load(str(tmp_path / "s")) == (files, "digest")
    assert stamps.read(str(tmp_path / "s")) == files
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "files": []}',
        b'{"format": 1, "files": null}',
        b'{"format": 2, "files": {"a": {}}}',
        b"\xff\xff",
        b"[" * 200_000,
        json.dumps({"format": 1, "files": {"a": {}}}).encode()[:-3],
    ],
)
def test_a_damaged_file_is_as_none(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    assert stamps.load(str(tmp_path / "s")) == ({}, "")
    assert stamps.read(str(tmp_path / "s")) == {}


def test_stamps_that_cannot_be_written_are_no_error(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "file").write_text("")
    assert stamps.write(str(tmp_path / "s"), {}) is False
    assert stamps.write(str(tmp_path / "file" / "s"), {}) is False
    assert sorted(os.listdir(tmp_path)) == ["file", "s"]


def test_the_folder_of_the_stamps_is_made(tmp_path):
    # Where the weights are a file system of their own, our notes have a folder inside.
    assert stamps.write(str(tmp_path / "notes" / "s"), {})
    assert (tmp_path / "notes").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("sound", [None, 5, ["x"], {}])
def test_what_is_no_digest_says_nothing_of_a_sound_tree(tmp_path, sound):
    (tmp_path / "s").write_text(json.dumps({"format": 1, "files": {"a": {}}, "sound": sound}))
    assert stamps.load(str(tmp_path / "s")) == ({"a": {}}, "")


def test_a_file_from_the_future_is_not_settled():
    assert not stamps.is_settled([1, 0, 10**18, 7, 7], 10**18 - 3600 * 10**9)
