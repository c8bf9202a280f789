# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings the files of a lock from a folder on the same machine (disk, NFS) to where the engine reads them."""

from __future__ import annotations

import os
import shutil
import stat
import time

from .. import atomic
from ..errors import LlmError
from . import hashing, lockfile, stamps, tree, verify

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640


def manifest_path(dest: str) -> str:
    """Return where the lock of what was installed in ``dest`` is kept: beside it, for removal and for people.

    Files that lay in ``dest`` already, as locked, are not in it: they are somebody's, and removal leaves them.
    """
    parent, name = os.path.split(os.path.realpath(dest))
    return os.path.join(parent, f".{name}.lock.json")


def fetch(source: str, dest: str, lock: dict, *, jobs: int = 0, deep: bool = False, check: bool = False) -> dict:
    """Make ``dest`` hold exactly the files of ``lock``; only what is missing or wrong there is copied from ``source``.

    Every file is hashed while it is copied, and renamed into place only when it is right, so a reader never sees
    half of one and a run that is cut off goes on where it was. Files of an earlier lock that this function installed
    are removed once all files of this one are in place.

    :return: changed, fetched[], removed[], repaired[] (those that were there and wrong), bytes_fetched,
        modes_changed[], before (the state that was found), seconds
    :raises LlmError: no space, no source, a source file that is not as locked, strange files in ``dest``
    """
    started = time.monotonic()
    state = _state(dest, lock, jobs, deep, save=not check)
    obsolete = sorted(set(state["unexpected"]) & set(_installed(dest)))
    _refuse_unexpected(dest, sorted(set(state["unexpected"]) - set(obsolete)))
    wrong = set(state["missing"]) | {problem["path"] for problem in state["corrupt"]}
    wanted = [entry for entry in lock["files"] if entry["path"] in wrong]
    _refuse_pickles(source)
    _check_source(source, wanted)
    _check_space(dest, wanted)
    if not check:
        _make_folders(dest, lock)
        _note_installed(dest, lock, wanted, obsolete)
        hashing.parallel(lambda entry: _copy(source, dest, entry), wanted, jobs or hashing.cores())
        for path in obsolete:
            os.unlink(os.path.join(dest, path))
        _note_installed(dest, lock, wanted, [])
    modes = _apply_modes(dest, lock, check)
    return {
        "changed": bool(wanted or obsolete or modes),
        "removed": obsolete,
        "fetched": [entry["path"] for entry in wanted],
        "repaired": sorted(problem["path"] for problem in state["corrupt"]),
        "bytes_fetched": sum(entry["size"] for entry in wanted),
        "modes_changed": modes,
        "before": state,
        "seconds": round(time.monotonic() - started, 3),
    }


def _state(dest: str, lock: dict, jobs: int, deep: bool, save: bool) -> dict:
    if not os.path.lexists(dest):
        return {"missing": [entry["path"] for entry in lock["files"]], "corrupt": [], "unexpected": []}
    _remove_partials(dest, save)
    return verify.verify(dest, lock, deep=deep, jobs=jobs, save=save)


def _remove_partials(dest: str, really: bool) -> None:
    """Remove what an earlier run of ours that was cut off has left; the name is ours alone."""
    if really and os.path.isdir(dest):
        for entry in tree.walk(dest):
            if entry.path.endswith(tree.PARTIAL_SUFFIX):
                os.unlink(os.path.join(dest, entry.path))


def _refuse_unexpected(dest: str, unexpected: list[str]) -> None:
    strange = [name for name in unexpected if not name.endswith(tree.PARTIAL_SUFFIX)]
    if strange:
        pickles = [name for name in strange if tree.is_pickle(name)]
        raise LlmError(
            f"{dest} holds files that are not in the lock" + (", pickles among them" if pickles else ""),
            wanted="only the files of the lock",
            found=", ".join((pickles or strange)[:5]),
            remedy="move them away (nothing is deleted that was not put there by this collection)",
        )


def _refuse_pickles(source: str) -> None:
    """They would not be copied, but a source that holds them is not what its lock was made from."""
    pickles = [entry.path for entry in tree.walk(source) if tree.is_pickle(entry.path)] if os.path.isdir(source) else []
    if pickles:
        raise LlmError(
            f"the source {source} holds formats that can run code when they are loaded",
            wanted="safetensors only",
            found=", ".join(pickles[:5]),
            remedy="remove them from the source, or set llm_weights_source to a folder without them",
        )


def _check_source(source: str, wanted: list[dict]) -> None:
    if wanted and not os.path.isdir(source):
        raise LlmError(
            f"there is no folder {source} to copy the weights from",
            wanted=f"a folder with {len(wanted)} files",
            found="a file" if os.path.exists(source) else "nothing",
            remedy="set llm_weights_source to the folder that holds the model, and mount it on this host",
        )
    for entry in wanted:
        full = tree.resolve(source, entry["path"])
        found = f"{os.path.getsize(full)} bytes" if os.path.isfile(full) else "no such file"
        if found != f"{entry['size']} bytes":
            raise LlmError(
                f"{entry['path']} in the source {source} is not as locked",
                wanted=f"{entry['size']} bytes",
                found=found,
                remedy="fetch the source again from where it was published",
            )


def _check_space(dest: str, wanted: list[dict]) -> None:
    need = sum(entry["size"] for entry in wanted)
    ancestor = os.path.abspath(dest)
    while not os.path.exists(ancestor):
        ancestor = os.path.dirname(ancestor)
    free = shutil.disk_usage(ancestor).free
    if need > free:
        raise LlmError(
            f"{dest} has no space for the weights",
            wanted=f"{need} bytes free",
            found=f"{free} bytes free on the file system of {ancestor}",
            remedy="free space there, or set llm_weights_path to a larger disk",
        )


def _note_installed(dest: str, lock: dict, wanted: list[dict], obsolete: list[str]) -> None:
    """Write the manifest before the first byte, so that what a run that is cut off has left can be removed too."""
    before = atomic.read_json(manifest_path(dest))
    installed = _installed(dest)
    ours = {entry["path"] for entry in wanted} | set(installed)
    files = [entry for entry in lock["files"] if entry["path"] in ours] + [installed[path] for path in obsolete]
    manifest = dict(lock, files=sorted(files, key=lambda entry: entry["path"]))
    if not files and before is not None:
        os.unlink(manifest_path(dest))
    elif files and manifest != before:
        atomic.write_json(manifest_path(dest), manifest, FILE_MODE)


def _installed(dest: str) -> dict[str, dict]:
    """Return the entries of the manifest by path: what this collection has put into ``dest``."""
    try:
        return {entry["path"]: entry for entry in lockfile.load(manifest_path(dest))["files"]}
    except LlmError:
        return {}


def _make_folders(dest: str, lock: dict) -> None:
    for folder in _folders(dest, lock):
        os.makedirs(folder, exist_ok=True)


def _folders(dest: str, lock: dict) -> list[str]:
    inside = set()
    for entry in lock["files"]:
        parts = entry["path"].split("/")[:-1]
        inside |= {os.path.join(dest, *parts[: depth + 1]) for depth in range(len(parts))}
    return [dest, *sorted(inside)]


def _copy(source: str, dest: str, entry: dict) -> None:
    origin, target = tree.resolve(source, entry["path"]), tree.resolve(dest, entry["path"])
    partial = target + tree.PARTIAL_SUFFIX
    with open(
        os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE), "wb", buffering=0
    ) as out:
        found, _count = hashing.sha256_file(origin, sink=lambda block: _write_all(out, block))
        os.fchmod(out.fileno(), FILE_MODE)
        os.fsync(out.fileno())
    if found != entry["sha256"]:
        os.unlink(partial)
        raise LlmError(
            f"{entry['path']} in the source {source} is damaged",
            wanted=f"SHA-256 {entry['sha256']}",
            found=f"SHA-256 {found}",
            remedy="fetch the source again from where it was published; nothing wrong was put in place",
        )
    os.replace(partial, target)


def _write_all(out, block: memoryview) -> None:
    """An unbuffered write may take only a part, as at a full disk or a signal."""
    while block:
        block = block[out.write(block) :]


def _apply_modes(dest: str, lock: dict, check: bool) -> list[str]:
    targets = [(folder, DIRECTORY_MODE) for folder in _folders(dest, lock)]
    targets += [(os.path.join(dest, entry["path"]), FILE_MODE) for entry in lock["files"]]
    changed = []
    for path, mode in targets:
        if os.path.lexists(path) and stat.S_IMODE(os.stat(path).st_mode) != mode:
            changed.append(path)
            if not check:
                os.chmod(path, mode)
    return changed


def remove(dest: str, check: bool = False) -> list[str]:
    """Delete the files that were installed in ``dest``, and the folders that are empty then; return what is gone.

    What was installed stands in the manifest beside ``dest``; without one nothing was, and nothing is deleted.
    """
    manifest = manifest_path(dest)
    if not os.path.isfile(manifest):
        return []
    lock = lockfile.load(manifest)
    files = [tree.resolve(dest, entry["path"]) for entry in lock["files"]]
    files += [path + tree.PARTIAL_SUFFIX for path in files]
    gone = [*files, stamps.default_path(dest), manifest]
    gone = [path for path in gone if os.path.isfile(path)]
    if check:
        return gone
    for path in gone:
        os.unlink(path)
    for folder in reversed(_folders(dest, lock)):
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)
            gone.append(folder)
    return gone
