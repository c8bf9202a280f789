# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts proved files where the engine reads them, keeps what lay there before, and remembers what was installed.

A file is completed and proved in ``incoming`` beside the folder, and renamed over the old one when its mode, its
owner and its bytes are on disk: a reader sees the old file or the new one. Every step can be cut off; the next run
finds what is there and goes on. What was installed stands in the manifest; a run under way adds to a journal.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import grp
import json
import os
import pwd
import shutil
import stat
from typing import Callable, NamedTuple

from .. import atomic
from ..errors import LlmError
from . import exclusive, hashing, lockfile, patch, stamps, tree

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
# File systems that cannot give a file a second name say one of these; then the old file is moved instead.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


# What was installed ------------------------------------------------------------------------------------------------


def manifest_path(dest: str) -> str:
    """Return where the lock of what was installed in ``dest`` is kept, for removal and for people.

    Files that lay in ``dest`` already, as locked, are not in it: they are somebody's, and removal leaves them.
    """
    return tree.aside(dest, "lock.json")


def journal_path(dest: str) -> str:
    """Return where a run under way notes each file that it puts in place, before it does."""
    return tree.aside(dest, "placed")


def installed(dest: str) -> dict | None:
    """Return the lock of the files that were installed in ``dest``, None where there is none that can be read.

    Its key "stamps" holds those of the last verification, with which unchanged files need not be read again.
    """
    try:
        lock = lockfile.load(manifest_path(dest))
    except LlmError:
        return None
    return dict(lock, stamps=stamps.read(stamps.default_path(dest)))


def ours(dest: str) -> set[str]:
    """Return the paths that this collection has put into ``dest``, those of a run that was cut off among them."""
    old = installed(dest)
    return {entry["path"] for entry in old["files"]} | _journal(dest) if old else _journal(dest)


def _journal(dest: str) -> set[str]:
    try:
        with open(journal_path(dest), encoding="utf-8", errors="replace") as stream:
            lines = stream.read().split("\n")
    except OSError:
        return set()
    paths = set()
    for line in lines:
        # The last line may have been cut off.
        with contextlib.suppress(ValueError, LlmError):
            paths.add(tree.check_relative(json.loads(line)))
    return paths


def _note(dest: str, path: str) -> None:
    """Note that ``path`` is ours. One appending write, so that several processes may note at a time."""
    file = os.open(journal_path(dest), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.write(file, f"\n{json.dumps(path)}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)


# One file ----------------------------------------------------------------------------------------------------------


def staged(dest: str, path: str) -> str:
    """Return where the file ``path`` of a lock is completed; the folders are made, through no symbolic link.

    What lies there and could not be written without harm (a link, a folder, a file with a second name) is removed.
    """
    full = _own(dest, "incoming", path)
    try:
        status = os.lstat(full)
    except FileNotFoundError:
        return full
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(full)
    elif not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.unlink(full)
    return full


def published_path(dest: str, entry: dict) -> str:
    """Return where the bytes of ``entry`` as they were published lie: in ``dest``, or aside where they are patched."""
    if "patched" in entry:
        return os.path.join(tree.aside(dest, "originals"), tree.check_relative(entry["path"]))
    return tree.resolve(dest, entry["path"])


def place(
    dest: str,
    entry: dict,
    staged_path: str,
    *,
    old: dict | None = None,
    owner: tuple[int, int] = (-1, -1),
    rename: Callable[[str, str], object] | None = None,
) -> None:
    """Put the proved file ``staged_path`` in its place; what an earlier lock had there is kept first.

    A file that the lock patches goes to ``originals``; ``finish`` makes the patched form from it.

    :param old: what ``installed`` has returned before the first file was placed
    :param owner: numbers of user and group, -1 leaves either as it is
    :param rename: moves (from, to) in one step, in place of the system's own call
    :raises LlmError: the staged file has not the size of the entry, or something is in the way
    """
    _make_ready(staged_path, entry, owner)
    target = _target(dest, entry)
    keep_old(dest, old, entry)
    _note(dest, entry["path"])
    (rename or os.replace)(staged_path, target)


def _make_ready(path: str, wanted: dict, owner: tuple[int, int]) -> None:
    """Set mode and owner, and bring the bytes to the disk, before anybody can read the file under its name."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size != wanted["size"]:
            raise LlmError(
                f"{path} is not the file that was to be put in place",
                wanted=f"a file of {wanted['size']} bytes",
                found=f"{status.st_size} bytes" if stat.S_ISREG(status.st_mode) else "no plain file",
                remedy="run this again; if it comes back, see what else writes there",
            )
        if owner != (-1, -1):
            os.fchown(file, *owner)
        os.fchmod(file, FILE_MODE)
        os.fsync(file)
    finally:
        os.close(file)


def _target(dest: str, entry: dict) -> str:
    if "patched" in entry:
        return _own(dest, "originals", entry["path"])
    target = tree.resolve(dest, entry["path"])
    _make_folders(dest, entry["path"])
    if os.path.isdir(target):
        raise LlmError(
            f"{target} is a folder where a file belongs",
            wanted="a file, or nothing",
            found="a folder",
            remedy="move it away",
        )
    return target


def keep_old(dest: str, old: dict | None, entry: dict) -> bool:
    """Give the file that ``entry`` replaces a second name in ``revisions``, when it is one of ``old`` and sound.

    :return: whether it is kept there
    """
    before = _named(old, entry["path"])
    if before is None or before["sha256"] == entry["sha256"]:
        return False
    return _keep(dest, old, before)


def _keep(dest: str, old: dict, before: dict) -> bool:
    origin = published_path(dest, before)
    if not _is_whole(origin, before, {} if "patched" in before else old.get("stamps", {}).get(before["path"], {})):
        return False
    _link(origin, _own(dest, "revisions", f"{_revision(dest, old)}/files/{before['path']}"))
    return True


def _named(lock: dict | None, path: str) -> dict | None:
    return next((entry for entry in lock["files"] if entry["path"] == path), None) if lock else None


def _is_whole(path: str, wanted: dict, stamp: dict | None = None) -> bool:
    """True when the file holds the wanted bytes: as its stamp says, where it has not changed since, else by reading."""
    try:
        if isinstance(stamp, dict) and stamp.get("stamp") == stamps.of(path) and not os.path.islink(path):
            return stamp.get("sha256") == wanted["sha256"]
    except OSError:
        return False
    return _read_if_whole(path, wanted, 0) is not None


def _read_if_whole(path: str, wanted: dict, piece: int) -> hashing.Digest | None:
    """Return the digests of a plain file that holds the wanted bytes, else None."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != wanted["size"]:
            return None
        found = hashing.digest_file(path, piece=piece)
    except OSError:
        return None
    return found if found.sha256 == wanted["sha256"] else None


def _link(origin: str, target: str) -> None:
    try:
        os.link(origin, target, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samefile(origin, target):
            os.unlink(target)
            os.link(origin, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(origin, target)


# Folders -----------------------------------------------------------------------------------------------------------


def make_parent(dest: str) -> None:
    """Make the folder that ``dest`` lies in, as open as the umask says: other users have to get through it."""
    os.makedirs(os.path.dirname(os.path.realpath(dest)), exist_ok=True)


def _own(dest: str, what: str, path: str) -> str:
    """Return the full path of ``path`` in our own folder ``what``; folders are made, anything else on the way goes."""
    folder = tree.aside(dest, what)
    make_parent(dest)
    os.makedirs(os.path.dirname(folder), mode=DIRECTORY_MODE, exist_ok=True)
    for part in ("", *tree.check_relative(path).split("/")[:-1]):
        folder = os.path.join(folder, part) if part else folder
        if os.path.lexists(folder) and not stat.S_ISDIR(os.lstat(folder).st_mode):
            os.unlink(folder)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, DIRECTORY_MODE)
    return os.path.join(folder, path.split("/")[-1])


def _make_folders(dest: str, path: str) -> None:
    make_parent(dest)
    folder = os.path.dirname(os.path.realpath(dest))
    for part in (os.path.basename(os.path.realpath(dest)), *path.split("/")[:-1]):
        folder = os.path.join(folder, part)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
            os.chmod(folder, DIRECTORY_MODE)  # whatever the umask


def folders(dest: str, lock: dict) -> list[str]:
    """Return ``dest`` and the folders in it that the files of ``lock`` lie in, outer ones first."""
    inside = set()
    for entry in lock["files"]:
        parts = entry["path"].split("/")[:-1]
        inside |= {os.path.join(dest, *parts[: depth + 1]) for depth in range(len(parts))}
    return [dest, *sorted(inside)]


def _sync(folder: str) -> None:
    """Bring the names in ``folder`` to the disk; file systems that have no such thing refuse it with EINVAL."""
    with contextlib.suppress(FileNotFoundError):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(file)


# All files are there -----------------------------------------------------------------------------------------------


def obsolete(dest: str, lock: dict) -> list[str]:
    """Return the paths in ``dest`` that this collection has put there for another lock than ``lock``."""
    named = {entry["path"] for entry in lock["files"]}
    return sorted(path for path in ours(dest) - named if os.path.lexists(tree.resolve(dest, path)))


def finish(
    dest: str, lock: dict, *, owner: tuple[int, int] = (-1, -1), check: bool = False, old: dict | None = None
) -> dict:
    """Do what is left when every file of ``lock`` is in place: patches, files of the earlier lock, modes, manifest.

    :param check: write nothing, only say what would be done
    :param old: what ``installed`` has returned, where its stamps are known to be newer than those on disk
    :return: removed[] (paths of the earlier lock that went to revisions), modes_changed[] (full paths), patched[]
    :raises LlmError: a file that a patch is made from, or the patched form, is not as locked
    """
    old = old or installed(dest)
    removed = obsolete(dest, lock)
    patched = [entry for entry in lock["files"] if "patched" in entry and not _is_patched(dest, entry)]
    if not check:
        for entry in patched:
            _apply_patch(dest, entry, owner)
        for path in removed:
            _set_aside(dest, old, path)
        _remove_empty_folders(dest, lock)
    modes = apply_modes(dest, lock, owner, check)
    if not check:
        for folder in [*folders(dest, lock), tree.aside(dest, "originals")]:
            _sync(folder)
        _make_newest(dest, old, lock)
        _write_manifest(dest, lock)
        _tidy(dest, lock)
    return {"removed": removed, "modes_changed": modes, "patched": [entry["path"] for entry in patched]}


def _set_aside(dest: str, old: dict | None, path: str) -> None:
    """Move a file that no lock names any more to revisions; what is damaged, or of no whole revision, is deleted."""
    before = _named(old, path)
    if before is not None:
        _keep(dest, old, before)
    with contextlib.suppress(FileNotFoundError):  # moved, where no second name could be given
        os.unlink(tree.resolve(dest, path))


def _remove_empty_folders(dest: str, lock: dict) -> None:
    """Remove the folders in which only files of ours lay that ``lock`` does not name."""
    for path in sorted(ours(dest) - {entry["path"] for entry in lock["files"]}):
        folder = os.path.dirname(tree.resolve(dest, path))
        while folder != os.path.realpath(dest):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                break
            folder = os.path.dirname(folder)


def apply_modes(dest: str, lock: dict, owner: tuple[int, int] = (-1, -1), check: bool = False) -> list[str]:
    """Give all folders 0750, all files 0640 and both the owner; return the full paths where that was a change."""
    targets = [(folder, DIRECTORY_MODE) for folder in folders(dest, lock)]
    targets += [(tree.resolve(dest, entry["path"]), FILE_MODE) for entry in lock["files"]]
    changed = []
    for path, mode in targets:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        owned = all(wanted in (-1, found) for wanted, found in zip(owner, (status.st_uid, status.st_gid)))
        if owned and stat.S_IMODE(status.st_mode) == mode:
            continue
        changed.append(path)
        if not check:
            if not owned:
                os.chown(path, *owner)
            os.chmod(path, mode)
    return changed


def _write_manifest(dest: str, lock: dict) -> None:
    path = manifest_path(dest)
    mine = ours(dest)
    files = [entry for entry in lock["files"] if entry["path"] in mine]
    manifest = dict(lock, files=files)
    if files and manifest != atomic.read_json(path):
        atomic.write_json(path, manifest, FILE_MODE)
    elif not files and os.path.lexists(path):
        os.unlink(path)
    _sync(os.path.dirname(path))


def _tidy(dest: str, lock: dict) -> None:
    """Remove what was only needed until the manifest was written, and what a run that was cut off has left."""
    folder, name = os.path.split(manifest_path(dest))
    for half in [journal_path(dest), *glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.*"))]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(half)
    patched = {entry["path"] for entry in lock["files"] if "patched" in entry}
    _remove_all_but(tree.aside(dest, "originals"), patched)
    _remove_all_but(tree.aside(dest, "incoming"), set())
    for name in _revisions(dest):
        _drop_current(dest, name, lock)
    _remove_if_empty(tree.aside(dest, "revisions"))


def _remove_if_empty(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _remove_all_but(folder: str, keep: set[str]) -> None:
    if not keep:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return
    for entry in tree.walk(folder) if os.path.isdir(folder) else []:
        if entry.path not in keep:
            os.unlink(os.path.join(folder, entry.path))


def owner_ids(owner: str, group: str) -> tuple[int, int]:
    """Return the numbers of a user and a group given by name or number; -1 for an empty one.

    :raises LlmError: this host knows no such name
    """
    return _number(owner, "user", lambda name: pwd.getpwnam(name).pw_uid), _number(
        group, "group", lambda name: grp.getgrnam(name).gr_gid
    )


def _number(name: str, kind: str, find: Callable[[str], int]) -> int:
    if not name:
        return -1
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return find(name)
    except KeyError as error:
        raise LlmError(
            f"there is no {kind} {name} on this host",
            wanted=f"the {kind} that the engine runs as",
            found="no such name",
            remedy=f"make the {kind} first, or give its number",
        ) from error


# Old revisions -----------------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """A file on this host that has the bytes of an entry, proved: its full path and its digests."""

    path: str
    digest: hashing.Digest


def held(dest: str, entry: dict, piece: int = 0) -> Held | None:
    """Return where the bytes of ``entry`` as published lie on this host already, other than in their place in ``dest``.

    Looked at: files of old revisions, and the published or the patched form where a patch comes or goes.

    :param piece: length of a piece in bytes for the merkle tree; 0 makes none
    """
    for path in _holders(dest, entry):
        digest = _read_if_whole(path, entry, piece)
        if digest:
            return Held(path, digest)
    return None


def bring_back(
    dest: str, entry: dict, origin: str, *, old: dict | None = None, owner: tuple[int, int] = (-1, -1)
) -> bool:
    """Put ``entry`` in place by a second name for the file ``origin``, see ``held``.

    :return: False where the file system has no second names; the file has to be fetched then
    """
    if origin == published_path(dest, entry):
        return True
    path = staged(dest, entry["path"])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    try:
        os.link(origin, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    place(dest, entry, path, old=old, owner=owner)
    return True


def from_revisions(dest: str, entry: dict, *, old: dict | None = None, owner: tuple[int, int] = (-1, -1)) -> bool:
    """Put ``entry`` in place from what lies on this host already; return whether it is in place, proved."""
    found = held(dest, entry)
    return bool(found) and bring_back(dest, entry, found.path, old=old, owner=owner)


def _holders(dest: str, entry: dict) -> list[str]:
    """Return the paths at which the bytes of ``entry`` may lie."""
    paths = [os.path.join(tree.aside(dest, "originals"), entry["path"])]
    if "patched" in entry:
        paths.append(tree.resolve(dest, entry["path"]))
    for name in _revisions(dest):
        lock = _revision_lock(dest, name)
        files = lock["files"] if lock else []
        paths += [_kept(dest, name, held["path"]) for held in files if held["sha256"] == entry["sha256"]]
    return paths


def _kept(dest: str, name: str, path: str) -> str:
    return os.path.join(tree.aside(dest, "revisions"), name, "files", path)


def _revisions(dest: str) -> list[str]:
    try:
        return sorted(os.listdir(tree.aside(dest, "revisions")))
    except FileNotFoundError:
        return []


def _revision_note(dest: str, name: str) -> str:
    return os.path.join(tree.aside(dest, "revisions"), name, "lock.json")


def _revision_lock(dest: str, name: str) -> dict | None:
    try:
        return lockfile.load(_revision_note(dest, name))
    except LlmError:
        return None


def _number_of(dest: str, name: str) -> int:
    """Return the place of a revision in the order in which they were replaced; no clock, which may jump, is asked."""
    number = (atomic.read_json(_revision_note(dest, name)) or {}).get("number")
    return number if isinstance(number, int) else -1


def _revision(dest: str, old: dict) -> str:
    """Return the name of the folder for files of ``old``, made with its lock inside."""
    name = lockfile.identity(old)
    if _revision_lock(dest, name) is None:
        _write_revision(dest, name, old)
    return name


def _write_revision(dest: str, name: str, lock: dict) -> None:
    note = _own(dest, "revisions", f"{name}/lock.json")
    number = 1 + max([_number_of(dest, other) for other in _revisions(dest)], default=0)
    atomic.write_json(note, {**lockfile.check(lock), "number": max(number, 1)}, FILE_MODE)


def _make_newest(dest: str, old: dict | None, lock: dict) -> None:
    """Note that ``old`` is the revision that was replaced last, when files of it were kept."""
    name = lockfile.identity(old) if old else ""
    if not name or name == lockfile.identity(lock) or name not in _revisions(dest):
        return
    if any(_number_of(dest, other) >= _number_of(dest, name) for other in _revisions(dest) if other != name):
        _write_revision(dest, name, old)


def _drop_current(dest: str, name: str, lock: dict) -> None:
    """Forget the files of a revision that ``lock`` has brought back, and the revision when it has no others."""
    current = {(entry["path"], entry["sha256"]) for entry in lock["files"]}
    kept = _revision_lock(dest, name)
    for entry in kept["files"] if kept else []:
        if (entry["path"], entry["sha256"]) in current:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_kept(dest, name, entry["path"]))
    folder = os.path.join(tree.aside(dest, "revisions"), name)
    if not os.path.isdir(os.path.join(folder, "files")) or not tree.walk(os.path.join(folder, "files")):
        _remove_revision(dest, name)


def _remove_revision(dest: str, name: str) -> None:
    """Delete the folder of a revision; its lock goes first, so that half a folder counts as none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_revision_note(dest, name))
    shutil.rmtree(os.path.join(tree.aside(dest, "revisions"), name))


def prune(dest: str, keep: int = 0, check: bool = False) -> dict:
    """Delete old revisions except the ``keep`` that were replaced last; the files of ``dest`` itself stay.

    :return: removed[] ({identity, model, revision, files, bytes} of each, oldest first), bytes (that come free)
    :raises LlmError: another run writes there
    """
    if check or not _revisions(dest):
        return _prune(dest, keep, check)
    with exclusive.writing(dest, "weights_prune"):
        return _prune(dest, keep, check)


def _prune(dest: str, keep: int, check: bool) -> dict:
    names = sorted(_revisions(dest), key=lambda name: (_number_of(dest, name), name))
    names = names[: max(0, len(names) - keep)]
    removed = [_described(dest, name) for name in names]
    for name in [] if check else names:
        _remove_revision(dest, name)
    if not check:
        _remove_if_empty(tree.aside(dest, "revisions"))
    return {"removed": removed, "bytes": sum(revision["bytes"] for revision in removed)}


def _described(dest: str, name: str) -> dict:
    lock = _revision_lock(dest, name) or {}
    folder = os.path.join(tree.aside(dest, "revisions"), name, "files")
    found = [os.lstat(os.path.join(folder, entry.path)) for entry in tree.walk(folder)] if os.path.isdir(folder) else []
    return {
        "identity": name,
        "model": lock.get("model", ""),
        "revision": lock.get("revision", ""),
        "files": len(found),
        # A file that has another name elsewhere takes no room of its own.
        "bytes": sum(status.st_size for status in found if status.st_nlink == 1),
    }


# Patches -----------------------------------------------------------------------------------------------------------


def _is_patched(dest: str, entry: dict) -> bool:
    return _is_whole(tree.resolve(dest, entry["path"]), entry["patched"])


def _apply_patch(dest: str, entry: dict, owner: tuple[int, int]) -> None:
    """Put the patched form of ``entry`` in place, made from the published one; both are proved."""
    path, record = entry["path"], entry["patched"]
    with open(os.open(published_path(dest, entry), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
        content = stream.read(patch.MOST_PATCHED_BYTES)
    patch.prove(path, content, entry)
    result = patch.patched(path, content, record["set"])
    patch.prove(f"{path}, patched,", result, record)
    partial = staged(dest, path)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE), "wb") as stream:
        stream.write(result)
    _make_ready(partial, record, owner)
    target = _target(dest, {"path": path})
    _note(dest, path)
    os.replace(partial, target)
