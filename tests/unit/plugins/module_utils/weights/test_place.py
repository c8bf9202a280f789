# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import (
    exclusive,
    lockfile,
    patch,
    place,
    stamps,
    tree,
)
from hypothesis import given
from hypothesis import strategies as st

CONFIG = b'{\n  "architectures": ["X"],\n  "torch_dtype": "bfloat16",\n  "layers": 61\n}'
FIRST = {
    "config.json": CONFIG,
    "deep/er/only-first.txt": b"first alone",
    "empty.txt": b"",
    "same.safetensors": b"s" * 5000,
    "shard.safetensors": b"1" * 9000,
}
SECOND = {
    "config.json": b'{"torch_dtype": "bfloat16", "layers": 3}',
    "empty.txt": b"",
    "new/only-second.txt": b"second alone",
    "same.safetensors": b"s" * 5000,
    "shard.safetensors": b"2" * 9000,
}
THIRD = {"other.safetensors": b"3" * 100, "shard.safetensors": b"3" * 9000}


def lock_of(contents, revision, patched=()):
    lock = lockfile.check(
        {
            "model": "toy",
            "revision": revision,
            "files": [
                {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for path, content in contents.items()
            ],
        }
    )
    for at, entry in enumerate(lock["files"]):
        if entry["path"] in patched:
            lock["files"][at] = patch.plan(lock, entry["path"], {"torch_dtype": "float16"}, contents[entry["path"]])
    return lockfile.check(lock)


@pytest.fixture
def dest(tmp_path):
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib" / "weights"


def write(dest, entry, content):
    """Complete a file in incoming, as a fetch does."""
    path = place.staged(str(dest), entry["path"])
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(file, content)
    finally:
        os.close(file)
    return path


def is_right(dest, entry):
    path = dest / entry["path"]
    wanted = lockfile.placed(entry)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted["sha256"]


def install(dest, lock, contents, **options):
    """Bring ``dest`` to ``lock``; return (paths that had to be written, what finish says)."""
    old = place.installed(str(dest))
    written = []
    for entry in lock["files"]:
        if is_right(dest, entry) or place.from_revisions(str(dest), entry, old=old):
            continue
        place.place(str(dest), entry, write(dest, entry, contents[entry["path"]]), old=old)
        written.append(entry["path"])
    return written, place.finish(str(dest), lock, **options)


def tree_of(folder):
    """Everything below a folder as {path: (mode, content)}, without the numbers of revisions."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(folder))] = (oct(status.st_mode), content)
    return found


def contents_of(dest):
    return {str(path.relative_to(dest)): path.read_bytes() for path in sorted(dest.rglob("*")) if path.is_file()}


def aside(dest, *parts):
    return Path(tree.aside(str(dest), parts[0])).joinpath(*parts[1:])


def revision(dest, lock, path):
    return aside(dest, "revisions", lockfile.identity(lock), "files", path)


# One file ----------------------------------------------------------------------------------------------------------


def test_a_file_is_ready_before_it_is_seen(dest):
    lock = lock_of(FIRST, "r1")
    entry = lock["files"][-1]
    path = write(dest, entry, FIRST[entry["path"]])
    seen = []

    def rename(origin, target):
        seen.append((origin, target, stat.S_IMODE(os.stat(origin).st_mode), place.ours(str(dest))))
        os.replace(origin, target)

    place.place(str(dest), entry, path, rename=rename)

    assert seen == [(path, str(dest / entry["path"]), 0o640, {entry["path"]})]
    assert contents_of(dest) == {entry["path"]: FIRST[entry["path"]]}


def test_the_bytes_are_on_disk_before_the_name_is(dest, monkeypatch):
    lock = lock_of(FIRST, "r1")
    entry = lock["files"][-1]
    path = write(dest, entry, FIRST[entry["path"]])
    inode = os.stat(path).st_ino
    done = []
    fsync = os.fsync

    def note(file):
        done.append(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    place.place(str(dest), entry, path, rename=lambda *_paths: done.append("renamed"))
    assert done.index(inode) < done.index("renamed")


@pytest.mark.parametrize("size", [0, 8999, 9001])
def test_a_file_of_another_size_is_not_put_in_place(dest, size):
    lock = lock_of(FIRST, "r1")
    entry = lock["files"][-1]
    with pytest.raises(LlmError, match="not the file") as caught:
        place.place(str(dest), entry, write(dest, entry, b"1" * size))
    assert caught.value.found == f"{size} bytes"
    assert not dest.exists()


def test_a_link_in_incoming_is_neither_followed_nor_placed(dest, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"1" * 9000)
    entry = lock_of(FIRST, "r1")["files"][-1]
    path = Path(place.staged(str(dest), entry["path"]))
    path.symlink_to(victim)
    with pytest.raises(OSError):
        place.place(str(dest), entry, str(path))
    assert place.staged(str(dest), entry["path"]) == str(path)
    assert not path.is_symlink()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    assert victim.read_bytes() == b"1" * 9000


def test_folders_on_the_way_to_incoming_that_are_links_are_replaced(dest, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    incoming = aside(dest, "incoming")
    incoming.symlink_to(outside)
    path = place.staged(str(dest), "deep/er/x.txt")
    Path(path).write_text("x")
    assert list(outside.iterdir()) == []
    (incoming / "deep").rename(tmp_path / "moved")
    (incoming / "deep").symlink_to(outside)
    Path(place.staged(str(dest), "deep/er/x.txt")).write_text("x")
    assert list(outside.iterdir()) == []


def test_a_folder_or_a_second_name_in_incoming_makes_way(dest, tmp_path):
    Path(place.staged(str(dest), "x/y")).write_text("z")
    place.staged(str(dest), "x")
    assert not (aside(dest, "incoming") / "x").exists()
    Path(place.staged(str(dest), "x")).write_text("precious")
    os.link(aside(dest, "incoming") / "x", tmp_path / "second")
    place.staged(str(dest), "x")
    assert not (aside(dest, "incoming") / "x").exists(), "to write there would write into the other file too"
    assert (tmp_path / "second").read_text() == "precious"
    Path(place.staged(str(dest), "x")).write_text("kept")
    assert Path(place.staged(str(dest), "x")).read_text() == "kept"


@pytest.mark.parametrize("path", ["../victim", "/etc/x", "a/../../b", "", "a\nb", tree.INSIDE + "/x"])
def test_hostile_names_lead_nowhere(dest, path):
    entry = {"path": path, "size": 1, "sha256": "0" * 64}
    for call in (
        lambda: place.staged(str(dest), path),
        lambda: place.place(str(dest), entry, str(dest)),
        lambda: place.published_path(str(dest), entry),
        lambda: place.published_path(str(dest), dict(entry, patched={})),
    ):
        with pytest.raises((LlmError, OSError)):
            call()
    assert os.listdir(dest.parent) == []


def test_a_link_inside_the_folder_is_not_followed(dest, tmp_path):
    (tmp_path / "outside").mkdir()
    dest.mkdir()
    (dest / "deep").symlink_to(tmp_path / "outside")
    lock = lock_of(FIRST, "r1")
    entry = lock["files"][1]
    with pytest.raises(LlmError, match="symbolic link"):
        place.place(str(dest), entry, write(dest, entry, FIRST[entry["path"]]))
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_folder_where_a_file_belongs(dest):
    entry = lock_of(FIRST, "r1")["files"][-1]
    (dest / entry["path"] / "mine").mkdir(parents=True)
    with pytest.raises(LlmError, match="is a folder"):
        place.place(str(dest), entry, write(dest, entry, FIRST[entry["path"]]))
    assert (dest / entry["path"] / "mine").is_dir()


# Revisions ---------------------------------------------------------------------------------------------------------


def test_the_first_revision(dest):
    lock = lock_of(FIRST, "r1")
    written, done = install(dest, lock, FIRST)
    assert sorted(written) == sorted(FIRST)
    assert contents_of(dest) == FIRST
    assert done == {"removed": [], "modes_changed": [], "patched": []}
    assert lockfile.load(place.manifest_path(str(dest))) == lock
    assert sorted(os.listdir(dest.parent)) == [".weights.lock.json", "weights"]


def test_modes_whatever_the_umask(dest):
    before = os.umask(0o077)
    try:
        install(dest, lock_of(FIRST, "r1"), FIRST)
    finally:
        os.umask(before)
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in [dest, *dest.rglob("*")]}
    assert modes == {(True, 0o750), (False, 0o640)}


def test_what_was_there_before_is_kept_and_comes_back_without_a_byte(dest):
    first, second = lock_of(FIRST, "r1"), lock_of(SECOND, "r2")
    install(dest, first, FIRST)
    inode = (dest / "shard.safetensors").stat().st_ino

    written, done = install(dest, second, SECOND)

    assert contents_of(dest) == SECOND
    assert sorted(written) == ["config.json", "new/only-second.txt", "shard.safetensors"]
    assert done["removed"] == ["deep/er/only-first.txt"]
    assert not (dest / "deep").exists()
    assert lockfile.load(place.manifest_path(str(dest))) == second
    changed = ["config.json", "deep/er/only-first.txt", "shard.safetensors"]
    assert {path: revision(dest, first, path).read_bytes() for path in changed} == {p: FIRST[p] for p in changed}
    assert not revision(dest, first, "same.safetensors").exists()
    assert revision(dest, first, "shard.safetensors").stat().st_ino == inode

    written, done = install(dest, first, FIRST)

    assert written == []
    assert contents_of(dest) == FIRST
    assert (dest / "shard.safetensors").stat().st_ino == inode
    assert done["removed"] == ["new/only-second.txt"]
    assert [path.name for path in aside(dest, "revisions").iterdir()] == [lockfile.identity(second)]
    assert sorted(os.listdir(dest.parent)) == [".weights.lock.json", ".weights.revisions", "weights"]


def test_what_is_damaged_is_replaced_and_not_kept(dest, flip):
    first, second = lock_of(FIRST, "r1"), lock_of(SECOND, "r2")
    install(dest, first, FIRST)
    flip(dest / "shard.safetensors", 17)
    flip(dest / "deep/er/only-first.txt", 3)
    install(dest, second, SECOND)
    assert contents_of(dest) == SECOND
    kept = sorted(path.name for path in aside(dest, "revisions").rglob("*") if path.is_file())
    assert kept == ["config.json", "lock.json"]


def test_a_kept_file_that_rots_is_not_brought_back(dest, flip):
    first, second = lock_of(FIRST, "r1"), lock_of(SECOND, "r2")
    install(dest, first, FIRST)
    install(dest, second, SECOND)
    flip(revision(dest, first, "shard.safetensors"), 17)
    assert install(dest, first, FIRST)[0] == ["shard.safetensors"]
    assert contents_of(dest) == FIRST


def test_a_repair_of_the_same_revision_keeps_nothing(dest, flip):
    first = lock_of(FIRST, "r1")
    install(dest, first, FIRST)
    flip(dest / "shard.safetensors", 17)
    assert install(dest, first, FIRST)[0] == ["shard.safetensors"]
    assert not aside(dest, "revisions").exists()


def test_files_of_others_are_neither_kept_nor_noted(dest):
    dest.mkdir()
    (dest / "same.safetensors").write_bytes(FIRST["same.safetensors"])
    first, third = lock_of(FIRST, "r1"), lock_of(THIRD, "r3")
    install(dest, first, FIRST)
    noted = {entry["path"] for entry in lockfile.load(place.manifest_path(str(dest)))["files"]}
    assert noted == set(FIRST) - {"same.safetensors"}
    assert place.obsolete(str(dest), third) == sorted(noted - set(THIRD))
    install(dest, third, THIRD)
    assert (dest / "same.safetensors").read_bytes() == FIRST["same.safetensors"]


def test_when_nothing_is_ours_there_is_no_manifest(dest):
    dest.mkdir()
    for path, content in THIRD.items():
        (dest / path).write_bytes(content)
    place.finish(str(dest), lock_of(THIRD, "r3"))
    assert sorted(os.listdir(dest.parent)) == ["weights"]


def test_a_known_stamp_saves_reading_the_old_file(dest, settle, monkeypatch):
    first, second = lock_of(FIRST, "r1"), lock_of(SECOND, "r2")
    install(dest, first, FIRST)
    settle(dest)
    known = {
        entry["path"]: {"stamp": stamps.of(str(dest / entry["path"])), "sha256": entry["sha256"]}
        for entry in first["files"]
    }
    stamps.write(stamps.default_path(str(dest)), known)
    old = place.installed(str(dest))
    read = []
    monkeypatch.setattr(place.hashing, "digest_file", lambda path, **_options: read.append(path))
    assert place.keep_old(str(dest), old, second["files"][-1])
    assert read == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_second_names_the_old_file_is_moved(dest, monkeypatch, code):
    first, second = lock_of(FIRST, "r1"), lock_of(SECOND, "r2")
    install(dest, first, FIRST)

    def refuse(*_arguments, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    install(dest, second, SECOND)
    assert contents_of(dest) == SECOND
    assert revision(dest, first, "shard.safetensors").read_bytes() == FIRST["shard.safetensors"]
    assert revision(dest, first, "deep/er/only-first.txt").exists()
    assert "shard.safetensors" in install(dest, first, FIRST)[0]
    assert contents_of(dest) == FIRST


def test_another_error_of_link_is_told(dest, monkeypatch):
    first, second = lock_of(FIRST, "r1"), lock_of(SECOND, "r2")
    install(dest, first, FIRST)

    def refuse(*_arguments, **_options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="Input/output"):
        install(dest, second, SECOND)
    assert contents_of(dest) == FIRST


def test_check_mode_writes_nothing(dest):
    install(dest, lock_of(FIRST, "r1", patched=["config.json"]), FIRST)
    second = lock_of(SECOND, "r2", patched=["config.json"])
    (dest / "same.safetensors").chmod(0o600)
    before = tree_of(dest.parent)
    done = place.finish(str(dest), second, check=True)
    assert done == {
        "removed": ["deep/er/only-first.txt"],
        "modes_changed": [str(dest / "same.safetensors")],
        "patched": ["config.json"],
    }
    assert place.held(str(dest), lock_of(FIRST, "r1")["files"][0]).path == str(aside(dest, "originals", "config.json"))
    place.prune(str(dest), 0, check=True)
    assert tree_of(dest.parent) == before


def test_owner_and_modes(dest, monkeypatch):
    """Changing the owner needs root, so the calls are looked at."""
    given_away = []
    monkeypatch.setattr(os, "fchown", lambda _file, *owner: given_away.append(owner))
    monkeypatch.setattr(os, "chown", lambda path, *owner: given_away.append((os.path.basename(path), *owner)))
    lock = lock_of(THIRD, "r3")
    for entry in lock["files"]:
        place.place(str(dest), entry, write(dest, entry, THIRD[entry["path"]]), owner=(12345, -1))
    done = place.finish(str(dest), lock, owner=(12345, -1))
    assert given_away[:2] == [(12345, -1)] * 2
    assert given_away[2:] == [(name, 12345, -1) for name in ("weights", *THIRD)]
    assert len(done["modes_changed"]) == 3
    assert place.finish(str(dest), lock, owner=(os.getuid(), os.getgid()))["modes_changed"] == []


def test_names_of_owners():
    assert place.owner_ids("", "") == (-1, -1)
    assert place.owner_ids("root", "root") == (0, 0)
    assert place.owner_ids("1234", "5678") == (1234, 5678)
    with pytest.raises(LlmError, match="no user nobody-of-that-name"):
        place.owner_ids("nobody-of-that-name", "")
    with pytest.raises(LlmError, match="no group"):
        place.owner_ids("", "-1")


@pytest.mark.parametrize("content", [b"not JSON", b"{}", b'{"files": [{"path": "../x", "size": 1, "sha256": "0"}]}'])
def test_a_manifest_that_cannot_be_read_claims_nothing(dest, content):
    install(dest, lock_of(FIRST, "r1"), FIRST)
    Path(place.manifest_path(str(dest))).write_bytes(content)
    assert place.installed(str(dest)) is None
    assert place.ours(str(dest)) == set()


@given(st.binary(max_size=200))
def test_a_journal_of_any_bytes_claims_only_plain_names(tmp_path_factory, content):
    dest = tmp_path_factory.mktemp("journal") / "weights"
    Path(place.journal_path(str(dest))).write_bytes(b'\n"a/b"\n' + content + b'\n"../c"\n"c')
    claimed = place.ours(str(dest))
    assert "a/b" in claimed
    assert all(tree.check_relative(path) for path in claimed)


# Prune -------------------------------------------------------------------------------------------------------------


def three(dest):
    locks = [lock_of(contents, f"r{number}") for number, contents in ((1, FIRST), (2, SECOND), (3, THIRD))]
    for lock, contents in zip(locks, (FIRST, SECOND, THIRD), strict=True):
        install(dest, lock, contents)
    return locks


def test_prune_deletes_old_revisions_and_nothing_else(dest):
    first, second, third = three(dest)
    os.utime(aside(dest, "revisions", lockfile.identity(first), "lock.json"), (2**31, 2**31))  # the clock jumped
    would = place.prune(str(dest), 1, check=True)
    done = place.prune(str(dest), 1)
    assert done == would
    assert [revision["revision"] for revision in done["removed"]] == ["r1"]
    assert done["removed"][0]["files"] == 3
    sizes = [len(FIRST[path]) for path in ("config.json", "deep/er/only-first.txt", "shard.safetensors")]
    assert done["bytes"] == sum(sizes)
    assert [path.name for path in aside(dest, "revisions").iterdir()] == [lockfile.identity(second)]
    assert contents_of(dest) == THIRD
    assert place.prune(str(dest), 1) == {"removed": [], "bytes": 0}
    assert len(place.prune(str(dest))["removed"]) == 1
    assert not aside(dest, "revisions").exists()
    assert lockfile.load(place.manifest_path(str(dest))) == third


def test_the_revision_that_was_replaced_last_stays_longest(dest):
    first, second, third = three(dest)
    install(dest, first, FIRST)
    install(dest, third, THIRD)
    removed = place.prune(str(dest), 1)["removed"]
    assert [revision["revision"] for revision in removed] == ["r2"]
    assert revision(dest, first, "shard.safetensors").exists()
    assert not revision(dest, second, "shard.safetensors").exists()


def test_half_a_revision_is_pruned_first(dest):
    first, second, _third = three(dest)
    aside(dest, "revisions", lockfile.identity(second), "lock.json").unlink()
    removed = place.prune(str(dest), 1)["removed"]
    assert [revision["identity"] for revision in removed] == [lockfile.identity(second)]
    assert revision(dest, first, "shard.safetensors").exists()


def test_nothing_to_prune(dest):
    assert place.prune(str(dest)) == {"removed": [], "bytes": 0}
    assert os.listdir(dest.parent) == []


def test_prune_waits_for_nobody(dest):
    three(dest)
    with exclusive.writing(str(dest), "a test"), pytest.raises(LlmError, match="another run"):
        place.prune(str(dest))
    assert aside(dest, "revisions").exists()


# Patches -----------------------------------------------------------------------------------------------------------


def test_a_patch_is_recorded_and_made(dest):
    lock = lock_of(FIRST, "r1", patched=["config.json"])
    entry = lock["files"][0]
    assert entry["sha256"] == hashlib.sha256(CONFIG).hexdigest()
    assert entry["patched"]["set"] == {"torch_dtype": "float16"}

    _written, done = install(dest, lock, FIRST)

    result = (dest / "config.json").read_bytes()
    assert done["patched"] == ["config.json"]
    assert result == b'{\n  "architectures": [\n    "X"\n  ],\n  "torch_dtype": "float16",\n  "layers": 61\n}\n'
    assert hashlib.sha256(result).hexdigest() == entry["patched"]["sha256"]
    assert len(result) == entry["patched"]["size"]
    assert (aside(dest, "originals") / "config.json").read_bytes() == CONFIG
    assert place.published_path(str(dest), entry) == str(aside(dest, "originals") / "config.json")
    assert place.finish(str(dest), lock) == {"removed": [], "modes_changed": [], "patched": []}
    assert lockfile.identity(lock) == lockfile.identity(lock_of(FIRST, "r1"))


def test_a_patch_comes_and_goes_without_a_byte(dest):
    plain, patched = lock_of(FIRST, "r1"), lock_of(FIRST, "r1", patched=["config.json"])
    install(dest, plain, FIRST)
    for _round in range(2):
        assert install(dest, patched, FIRST)[0] == []
        assert json.loads((dest / "config.json").read_bytes())["torch_dtype"] == "float16"
        assert install(dest, plain, FIRST)[0] == []
        assert (dest / "config.json").read_bytes() == CONFIG
        assert sorted(os.listdir(dest.parent)) == [".weights.lock.json", "weights"]


@pytest.mark.parametrize("before", [(), ("config.json",)])
@pytest.mark.parametrize("after", [(), ("config.json",)])
def test_revisions_hold_the_published_form(dest, before, after):
    first, second = lock_of(FIRST, "r1", before), lock_of(SECOND, "r2", after)
    install(dest, first, FIRST)
    install(dest, second, SECOND)
    assert revision(dest, first, "config.json").read_bytes() == CONFIG
    assert is_right(dest, second["files"][0])
    assert install(dest, first, FIRST)[0] == []
    assert is_right(dest, first["files"][0])


def test_a_reader_never_sees_the_published_form_of_a_patched_file(dest):
    lock = lock_of(FIRST, "r1", patched=["config.json"])
    place.place(str(dest), lock["files"][0], write(dest, lock["files"][0], CONFIG))
    assert not (dest / "config.json").exists()


@pytest.mark.parametrize("which", ["published", "patched"])
def test_both_forms_are_proved(dest, which):
    lock = lock_of(FIRST, "r1", patched=["config.json"])
    entry = lock["files"][0]
    if which == "patched":
        entry["patched"]["sha256"] = "0" * 64
    place.place(str(dest), entry, write(dest, entry, CONFIG))
    if which == "published":
        (aside(dest, "originals") / "config.json").write_bytes(CONFIG[:-1] + b" ")
    with pytest.raises(LlmError, match="not as locked"):
        place.finish(str(dest), lock)
    assert not (dest / "config.json").exists()


# Cut off between any two calls -------------------------------------------------------------------------------------


class Dead(BaseException):
    """The process is gone: no handler of its own runs any more."""


def _no_disk(_file):
    """A killed process loses nothing that it has written; a test of ten thousand calls need not wait for a disk."""


class Mortal:
    """Lets ``left`` changing calls to the system pass; from then on every one fails, as after a kill."""

    NAMES = ("open", "write", "link", "rename", "replace", "unlink", "mkdir", "rmdir", "fsync", "fchmod", "chmod")

    def __init__(self, patch, left):
        self.left = left
        patch.setattr(os, "fsync", _no_disk)
        for name in self.NAMES:
            patch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call):
        def mortal(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                raise Dead
            return call(*arguments, **options)

        return mortal


def walk_through(dest, steps):
    for lock, contents in steps:
        install(dest, lock, contents)


STEPS = {
    "first": [(FIRST, "r1", ())],
    "next": [(FIRST, "r1", ()), (SECOND, "r2", ())],
    "patched": [(FIRST, "r1", ()), (SECOND, "r2", ("config.json",))],
    "unpatched": [(FIRST, "r1", ("config.json",)), (SECOND, "r2", ())],
    "patch only": [(FIRST, "r1", ()), (FIRST, "r1", ("config.json",))],
    "back": [(FIRST, "r1", ("config.json",)), (SECOND, "r2", ()), (FIRST, "r1", ("config.json",))],
}


def known_of(found):
    """Without what is left of files that were being written under a passing name, which nothing ever reads."""
    return {path: entry for path, entry in found.items() if not os.path.basename(path).startswith(".lock.json.")}


@pytest.mark.parametrize("name", STEPS)
def test_a_run_cut_off_anywhere_converges(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "fsync", _no_disk)
    steps = [(lock_of(contents, label, patched), contents) for contents, label, patched in STEPS[name]]
    (tmp_path / "straight").mkdir()
    walk_through(tmp_path / "straight" / "weights", steps)
    wanted = tree_of(tmp_path / "straight")
    final_lock, final_contents = steps[-1]
    before = steps[0][1] if len(steps) > 1 else {}
    (tmp_path / "before").mkdir()
    walk_through(tmp_path / "before" / "weights", steps[:-1])
    for calls in range(10_000):
        folder = tmp_path / f"cut{calls}"
        shutil.copytree(tmp_path / "before", folder)
        dest = folder / "weights"
        seen_before = contents_of(dest) if dest.exists() else before
        with pytest.MonkeyPatch.context() as patch:
            mortal = Mortal(patch, calls)
            with contextlib.suppress(Dead):
                install(dest, final_lock, final_contents)
        _only_whole_files(dest, seen_before, final_lock)
        install(dest, final_lock, final_contents)
        assert known_of(tree_of(folder)) == wanted, f"cut off at call {calls}"
        if mortal.left >= 0:
            return
    pytest.fail("the run never came to its end")


def _only_whole_files(dest, before, lock):
    """What a reader sees at any moment: of every file the old or the new bytes."""
    new = {entry["path"]: lockfile.placed(entry)["sha256"] for entry in lock["files"]}
    for path, content in contents_of(dest).items() if dest.exists() else []:
        assert content == before.get(path) or hashlib.sha256(content).hexdigest() == new[path]


def test_a_third_lock_after_one_that_was_cut_off(tmp_path, monkeypatch):
    """Whatever was reached of the second, the third comes out right, and nothing of the first is lost."""
    monkeypatch.setattr(os, "fsync", _no_disk)
    locks = [lock_of(contents, "r", ()) for contents in (FIRST, SECOND, THIRD)]
    install(tmp_path / "before" / "weights", locks[0], FIRST)
    for calls in range(0, 10_000, 3):
        folder = tmp_path / f"cut{calls}"
        shutil.copytree(tmp_path / "before", folder)
        dest = folder / "weights"
        with pytest.MonkeyPatch.context() as patch:
            mortal = Mortal(patch, calls)
            with contextlib.suppress(Dead):
                install(dest, locks[1], SECOND)
        install(dest, locks[2], THIRD)
        assert contents_of(dest) == THIRD, f"cut off at call {calls}"
        if mortal.left < 0:
            assert revision(dest, locks[0], "shard.safetensors").read_bytes() == FIRST["shard.safetensors"]
        assert install(dest, locks[0], FIRST)[0] == []
        if mortal.left >= 0:
            return
    pytest.fail("the run never came to its end")


def test_prune_cut_off_anywhere_converges(tmp_path):
    three(tmp_path / "before" / "weights")
    for calls in range(1_000):
        folder = tmp_path / f"cut{calls}"
        shutil.copytree(tmp_path / "before", folder)
        dest = folder / "weights"
        with pytest.MonkeyPatch.context() as patch:
            mortal = Mortal(patch, calls)
            with contextlib.suppress(Dead):
                place.prune(str(dest))
        assert contents_of(dest) == THIRD
        place.prune(str(dest))
        assert not aside(dest, "revisions").exists()
        if mortal.left >= 0:
            return
    pytest.fail("the run never came to its end")
