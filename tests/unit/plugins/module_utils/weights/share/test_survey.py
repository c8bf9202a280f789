# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockfile, merkle, patch, place, tree, verify
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import survey

PIECE = merkle.piece_bytes(1)
CONTENTS = {
    "config.json": b'{"torch_dtype": "bfloat16"}',
    "deep/a.data": hashlib.shake_128(b"a").digest(3 * PIECE + 5),
    "empty": b"",
    "one.data": hashlib.shake_128(b"one").digest(PIECE),
}


class Host:
    """A folder, the lock of what belongs there, and the piece layers of its files."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.path = folder / "weights"
        self.dest = str(self.path)
        self.known, entries = {}, []
        for name, data in contents.items():
            builder = merkle.Builder(PIECE)
            builder.update(memoryview(data))
            root, self.known[name] = builder.finish()
            digest = hashlib.sha256(data).hexdigest()
            entries.append({"path": name, "size": len(data), "sha256": digest, "merkle": root})
        self.lock = lockfile.check({"files": entries})

    def write(self, name: str, data: bytes, where: str = "") -> Path:
        path = Path(tree.aside(self.dest, where), name) if where else self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def look(self) -> dict[str, survey.File]:
        return survey.look(self.dest, self.lock, self.lock["files"], self.known)

    def incoming(self, name: str) -> str:
        return os.path.join(tree.aside(self.dest, "incoming"), name)

    def patch(self) -> None:
        changed = patch.plan(self.lock, "config.json", {"torch_dtype": "float16"}, CONTENTS["config.json"])
        self.lock["files"] = [changed if e["path"] == "config.json" else e for e in self.lock["files"]]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path, CONTENTS)


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_of_nothing_everything_is_missing_and_empty_files_are_left_out(host):
    found = host.look()
    assert sorted(found) == ["config.json", "deep/a.data", "one.data"]
    assert found["deep/a.data"] == survey.File(host.incoming("deep/a.data"), [False] * 4)


def test_good_files_are_served_from_where_they_are(host):
    for name, data in CONTENTS.items():
        host.write(name, data)
    found = host.look()
    assert found["deep/a.data"] == survey.File(str(host.path / "deep/a.data"), [True] * 4, placed=True)
    assert all(file.placed for file in found.values())
    survey.check_space(host.dest, host.lock, found)
    survey.prepare(host.dest, host.lock, found)
    assert not os.path.lexists(tree.aside(host.dest, "incoming"))


def test_of_a_damaged_file_the_good_pieces_are_copied_and_the_file_is_left_alone(host):
    wrong = damaged(CONTENTS["deep/a.data"], PIECE + 1)
    live = host.write("deep/a.data", wrong)
    found = host.look()["deep/a.data"]
    assert found == survey.File(host.incoming("deep/a.data"), [True, False, True, True], origin=str(live))
    survey.prepare(host.dest, host.lock, {"deep/a.data": found})
    copy = Path(found.file)
    assert copy.read_bytes() == live.read_bytes() == wrong
    assert not copy.samefile(live)
    entry = host.lock["files"][1]
    assert survey.good_bytes(entry, found, PIECE) == 2 * PIECE + 5
    assert survey.good_bytes(entry, found._replace(good=[True, True, True, False]), PIECE) == 3 * PIECE


def test_what_was_received_before_is_judged_by_its_pieces(host):
    host.write("deep/a.data", damaged(CONTENTS["deep/a.data"], 0)[: 2 * PIECE + 7], where="incoming")
    host.write("deep/a.data", damaged(CONTENTS["deep/a.data"], PIECE))
    found = host.look()["deep/a.data"]
    assert found == survey.File(host.incoming("deep/a.data"), [False, True, False, False])


def test_a_file_that_is_longer_keeps_its_pieces_and_loses_the_rest(host):
    host.write("one.data", CONTENTS["one.data"] + b"more")
    found = host.look()
    assert found["one.data"].good == [True]
    survey.prepare(host.dest, host.lock, found)
    assert Path(host.incoming("one.data")).read_bytes() == CONTENTS["one.data"]


def test_a_file_of_another_revision_is_not_copied(host):
    host.write("one.data", b"x" * PIECE)
    assert host.look()["one.data"] == survey.File(host.incoming("one.data"), [False])


def test_links_and_second_names_in_our_folder_are_never_written_through(host, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(CONTENTS["one.data"])
    folder = Path(host.incoming("deep"))
    folder.mkdir(parents=True)
    Path(host.incoming("config.json")).symlink_to(precious)
    os.link(precious, host.incoming("one.data"))
    found = host.look()
    assert not any(found["config.json"].good + found["one.data"].good)
    survey.prepare(host.dest, host.lock, found)
    assert not os.path.lexists(host.incoming("config.json"))
    assert not os.path.lexists(host.incoming("one.data"))
    assert precious.read_bytes() == CONTENTS["one.data"]


def test_a_patched_file_is_served_as_it_was_published(host):
    host.patch()
    host.write("config.json", CONTENTS["config.json"], where="originals")
    host.write("config.json", b'{\n  "torch_dtype": "float16"\n}\n')
    found = host.look()["config.json"]
    assert found == survey.File(place.published_path(host.dest, host.lock["files"][0]), [True], placed=True)


def test_a_patched_file_whose_published_form_is_lost_or_damaged_is_received_again(host):
    host.patch()
    host.write("config.json", b'{\n  "torch_dtype": "float16"\n}\n')
    assert host.look()["config.json"] == survey.File(host.incoming("config.json"), [False])
    host.write("config.json", b"{}", where="originals")
    assert host.look()["config.json"] == survey.File(host.incoming("config.json"), [False])


def test_the_published_form_in_the_place_of_the_patched_one_is_not_sent_again(host):
    host.patch()
    live = host.write("config.json", CONTENTS["config.json"])
    found = host.look()["config.json"]
    assert (found.good, found.origin) == ([True], str(live))


@pytest.fixture
def disk(monkeypatch):
    """A file system of which one says how much is free."""
    free = {"f_bavail": 1 << 40, "f_frsize": 1, "f_files": 1 << 20, "f_favail": 1 << 20}
    monkeypatch.setattr(survey.os, "statvfs", lambda _path: type("Space", (), free))
    return free


def test_a_disk_without_room_is_told_before_any_byte(host, disk, tmp_path):
    host.write("one.data", CONTENTS["one.data"])
    found = host.look()
    need = sum(len(CONTENTS[name]) for name in ("config.json", "deep/a.data")) + survey._SPARE_BYTES
    disk["f_bavail"] = need
    survey.check_space(host.dest, host.lock, found)
    disk["f_bavail"] = need - 1
    with pytest.raises(LlmError, match="no space") as caught:
        survey.check_space(host.dest, host.lock, found)
    assert str(need) in caught.value.wanted
    assert str(need - 1) in caught.value.found
    assert host.dest in caught.value.found


def test_what_is_here_in_part_needs_only_the_rest_and_a_copy_needs_all(host, disk):
    host.write("deep/a.data", CONTENTS["deep/a.data"][: 2 * PIECE], where="incoming")
    found = {"deep/a.data": host.look()["deep/a.data"]}
    disk["f_bavail"] = PIECE + 5 + survey._SPARE_BYTES
    survey.check_space(host.dest, host.lock, found)
    copied = {"deep/a.data": found["deep/a.data"]._replace(origin="somewhere")}
    with pytest.raises(LlmError, match="no space"):
        survey.check_space(host.dest, host.lock, copied)


def test_a_disk_without_inodes_is_told_unless_it_makes_them_as_it_goes(host, disk):
    disk["f_favail"] = 1
    with pytest.raises(LlmError, match="no room for more files"):
        survey.check_space(host.dest, host.lock, host.look())
    disk.update(f_files=0, f_favail=0)
    survey.check_space(host.dest, host.lock, host.look())


def test_a_kernel_that_cannot_copy_is_done_without(host, monkeypatch):
    def refuse(*_arguments: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(survey.os, "copy_file_range", refuse)
    wrong = damaged(CONTENTS["deep/a.data"], 3)
    host.write("deep/a.data", wrong)
    survey.prepare(host.dest, host.lock, host.look())
    assert Path(host.incoming("deep/a.data")).read_bytes() == wrong


def test_a_lock_with_a_root_that_is_not_the_files_is_told(host, settle):
    for name, data in CONTENTS.items():
        host.write(name, data)
    settle(host.path)
    verify.verify(host.dest, host.lock, piece=PIECE)
    for entry in host.lock["files"]:
        if entry["path"] == "one.data":
            entry["merkle"] = "0" * 64
    with pytest.raises(LlmError, match="contradicts itself"):
        host.look()


def test_bytes_that_are_as_locked_and_no_safetensors_are_shared_all_the_same(tmp_path):
    contents = {"broken.safetensors": b"no header"}
    host = Host(tmp_path, contents)
    host.write("broken.safetensors", b"no header")
    assert host.look()["broken.safetensors"].placed
