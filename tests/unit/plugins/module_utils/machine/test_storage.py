# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import storage
from hypothesis import given
from hypothesis import strategies as st

MOUNTS = (
    "proc /proc proc rw 0 0\n"
    "/dev/sda1 / ext4 rw 0 0\n"
    "/dev/sdb1 /mnt/my\\040disk\\011\\134x xfs rw 0 0\n"
    "server:/export /nfs nfs4 rw 0 0\n"
    "/dev/sdc1 /gone ext4 rw 0 0\n"
    "overlay / overlay rw 0 0\n"
    "cgroup /sys/fs/cgroup cgroup2 rw 0 0\n"
)


@pytest.fixture
def statvfs(monkeypatch):
    """Function that sets what statvfs answers by path: 100 KiB with 40 free, or what ``others`` do."""

    def use(**others) -> list[str]:
        asked = []

        def answer(path):
            asked.append(path)
            others.get(path.strip("/"), int)()
            return SimpleNamespace(f_blocks=100, f_bavail=40, f_frsize=1024)

        monkeypatch.setattr(storage.os, "statvfs", answer)
        return asked

    return use


def gone():
    raise FileNotFoundError(2, "gone")


def test_disks(fake, source, statvfs):
    asked = statvfs(gone=gone)
    fake("/proc/self/mounts", MOUNTS)
    space = {"total": 100 * 1024, "free": 40 * 1024}
    assert storage.disks(source) == [
        {"mount": "/", "device": "overlay", "fstype": "overlay", **space},
        {"mount": "/mnt/my disk\t\\x", "device": "/dev/sdb1", "fstype": "xfs", **space},
        {"mount": "/nfs", "device": "server:/export", "fstype": "nfs4", **space},
    ]
    assert "/proc" not in asked
    assert source.problems == []


def test_a_network_file_system_that_hangs(fake, source, statvfs, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(storage, "_MOUNT_SECONDS", 0.1)
    statvfs(nfs=held.wait)
    fake("/proc/self/mounts", MOUNTS + "fs:/ /lustre lustre rw 0 0\n")
    try:
        assert "/lustre" in [disk["mount"] for disk in storage.disks(source)]
        assert source.problems == ["the file system at /nfs does not answer (nfs4)"]
    finally:
        held.set()


def test_mounts_that_cannot_be_understood(fake, source, statvfs):
    statvfs()
    fake("/proc/self/mounts", "/dev/sda1\n/dev/sdb1 /data xfs rw 0 0\n")
    assert [disk["mount"] for disk in storage.disks(source)] == ["/data"]
    assert source.problems == ["/proc/self/mounts has 1 lines that cannot be understood"]


@given(text=st.text() | st.builds(lambda cut, extra: MOUNTS[:cut] + extra, st.integers(0, len(MOUNTS)), st.text()))
def test_any_mounts(text):
    found, misread = storage.parse_mounts(text)
    assert len(found) + misread <= text.count("\n") + 1


def test_this_machine(this_host):
    disks = storage.disks(this_host)
    assert any(disk["mount"] == "/" for disk in disks)
    assert all(0 <= disk["free"] <= disk["total"] for disk in disks)


# Paths ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def look(this_host):
    """Function that looks at one path of this machine."""

    def one(path: object) -> dict:
        return storage.paths(this_host, [str(path)])[str(path)]

    return one


def test_a_path_that_is_a_folder(look, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "f").write_bytes(b"12345")
    (tmp_path / "a" / "b" / "g").write_bytes(b"123")
    found = look(tmp_path / "a")
    assert (found["bytes"], found["bytes_complete"]) == (8, True)
    assert (found["kind"], found["nearest"], found["writable"]) == ("folder", str(tmp_path / "a"), True)
    assert 0 < found["free"] <= found["total"]
    assert found["device"] == os.stat(tmp_path).st_dev


def test_links_below_a_folder_are_not_followed(look, tmp_path):
    (tmp_path / "outside").write_bytes(b"1" * 1000)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(".")
    (tmp_path / "a" / "out").symlink_to("../outside")
    assert look(tmp_path / "a")["bytes"] == len(".") + len("../outside")
    (tmp_path / "link").symlink_to("a")
    assert look(tmp_path / "link")["kind"] == "folder"


@pytest.mark.parametrize("name", ["none", "none/at/all", "file/below", "broken"])
def test_a_path_where_nothing_is(look, this_host, tmp_path, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").symlink_to("nowhere")
    found = look(tmp_path / name)
    nearest = tmp_path / "file" if name.startswith("file") else tmp_path
    assert (found["kind"], found["nearest"], found["bytes"]) == ("nothing", str(nearest), 0)
    assert found["bytes_complete"] is True
    assert found["writable"] == (nearest == tmp_path)
    assert found["free"] > 0
    assert this_host.problems == []


def test_a_path_that_is_a_file(look, tmp_path):
    (tmp_path / "file").write_text("x")
    assert look(tmp_path / "file")["kind"] == "file"


@pytest.mark.parametrize("path", ["a\0b", "relative/none", "/" + "x" * 5000, "\udcff"])
def test_odd_paths(look, path):
    assert look(path)["kind"] in ("nothing", "folder", "unknown")


def test_a_path_that_this_user_may_not_look_at(look, this_host, tmp_path, monkeypatch):
    real = os.stat

    def stat(path, *arguments, **options):
        if str(path).startswith(str(tmp_path / "closed")):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(storage.os, "stat", stat)
    found = look(tmp_path / "closed")
    assert (found["kind"], found["bytes_complete"]) == ("unknown", False)
    assert this_host.problems == [f"what is at {tmp_path}/closed cannot be told: Permission denied"]


def test_a_file_system_that_does_not_answer_is_a_problem(look, this_host, tmp_path, monkeypatch):
    def stale(_path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(storage.os, "statvfs", stale)
    found = look(tmp_path)
    assert (found["total"], found["free"]) == (0, 0)
    assert this_host.problems == [f"the file system of {tmp_path} cannot be asked how much space it has"]


def test_a_path_that_hangs_holds_no_other(this_host, tmp_path, monkeypatch):
    held, real = threading.Event(), storage.look
    monkeypatch.setattr(storage, "_PATH_SECONDS", 0.5)
    monkeypatch.setattr(storage, "look", lambda path, end: held.wait() if path == "/hangs" else real(path, end))
    try:
        found = storage.paths(this_host, ["/hangs", str(tmp_path), ""])
        assert list(found) == ["/hangs", str(tmp_path)]
        assert (found["/hangs"]["kind"], found["/hangs"]["free"]) == ("unknown", 0)
        assert set(found["/hangs"]) == set(found[str(tmp_path)])
        assert found[str(tmp_path)]["kind"] == "folder"
        assert this_host.problems == ["/hangs did not answer within 0.5 s"]
    finally:
        held.set()


def test_a_walk_ends_at_its_limit_and_says_so(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}").write_bytes(b"1" * 10)
    assert storage.tree_bytes(str(tmp_path), time.monotonic() + 60, 10) == (100, True)
    assert storage.tree_bytes(str(tmp_path), time.monotonic() + 60, 4) == (40, False)
    assert storage.tree_bytes(str(tmp_path), time.monotonic() - 1) == (0, False)


def test_a_count_that_is_not_complete_is_a_problem(look, this_host, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"123")
    monkeypatch.setattr(storage, "_WALK_SECONDS", -1)
    found = look(tmp_path)
    assert (found["bytes"], found["bytes_complete"]) == (0, False)
    assert this_host.problems == [f"not every file below {tmp_path} could be counted; at least 0 bytes are there"]


def test_a_folder_of_another_user_below_makes_the_count_incomplete(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "gone").mkdir()
    (tmp_path / "file").write_bytes(b"123")
    real, closed = os.scandir, {"closed": PermissionError(13, "Permission denied"), "gone": FileNotFoundError(2, "x")}

    def scandir(path):
        if os.path.basename(path) in closed:
            raise closed[os.path.basename(path)]
        return real(path)

    monkeypatch.setattr(storage.os, "scandir", scandir)
    assert storage.tree_bytes(str(tmp_path), time.monotonic() + 60) == (3, False)
    closed.pop("closed")
    assert storage.tree_bytes(str(tmp_path), time.monotonic() + 60) == (3, True)
