# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings the files of a lock to where the engine reads them: from a folder, a hub, a web server or S3."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple

from ..errors import LlmError
from . import (
    download,
    exclusive,
    hashing,
    layers,
    library,
    lockfile,
    merkle,
    patch,
    place,
    sources,
    stamps,
    tree,
    verify,
)
from .progress import Progress
from .share import control

# As many as the hubs' own client libraries take: what counts is the time until an answer begins, not the cores.
DOWNLOADS = 8
# What verify says of files whose bytes are not as locked. Whatever else it finds, the same bytes would have again.
_WRONG_BYTES = ("truncated", "size", "sha256", "unreadable")
# What is kept aside of a folder, see tree.aside; the folder itself and the locks of revisions are in place.py.
_NOTES = ("lock.json", "placed", "stamps.json", "progress.json", "library.json")
_FOLDERS = ("incoming", "revisions", "originals", "layers", "torrents", "share")
# For what is needed besides the files: notes, and folders of our own.
SPARE_INODES = 64


class Options(NamedTuple):
    """How a source is reached; see sources.open_source. ``client`` is builtin or library, see library.py."""

    endpoint: str = ""
    token: str = ""
    access_key: str = ""
    secret_key: str = ""
    region: str = ""
    ca_file: str = ""
    timeout: float = 30.0
    retries: int = 5
    client: str = "builtin"
    client_python: str = ""


class _Job(NamedTuple):
    """What the steps of one fetch share. ``old`` is the lock of what was installed before, ``piece`` see merkle.py."""

    source: sources.Source
    dest: str
    lock: dict
    options: Options
    jobs: int
    piece: int
    owner: tuple[int, int]
    old: dict | None


def fetch(
    source: str | sources.Source,
    dest: str,
    lock: dict,
    *,
    jobs: int = 0,
    deep: bool = False,
    check: bool = False,
    owner: tuple[int, int] = (-1, -1),
    changes: dict[str, dict] | None = None,
    **options: object,
) -> dict:
    """Make ``dest`` hold exactly the files of ``lock``; only what is missing or wrong there is brought from ``source``.

    Every file is proved while it is on its way, and renamed into place only when it is right. A file that replaces
    another waits until all are there, so that a failure leaves the earlier revision whole. What is cut off goes on
    where it was. Files of an earlier lock that this collection installed are kept as an old revision.

    :param source: see sources.FORMS
    :param jobs: files that are brought or hashed at a time; 0 chooses
    :param changes: {path: {key: value}} that JSON files of the model have to say besides; recorded in the lock
    :param options: the fields of Options
    :return: changed, fetched[], restored[] (from what lay on this host), removed[], repaired[] (those that were there
        and wrong), bytes_fetched, modes_changed[], patched[], merkle{} (roots by path; empty in check mode), lock
        (with these roots), before (the state that was found), seconds
    :raises LlmError: no space, no source, a source file that is not as locked, strange files in ``dest``, another run
    """
    started = time.monotonic()
    if isinstance(source, str):
        source = sources.parse(source)
    job = _Job(
        sources.at(source, lock["revision"]),
        dest,
        lock,
        Options(**options),
        jobs,
        0 if check else merkle.piece_bytes(lockfile.total_bytes(lock)),
        owner,
        place.installed(dest),
    )
    if not check:
        place.make_parent(dest)
    with _full_disk_told(dest):
        result = _undisturbed(job, changes or {}, deep) if not check and _is_shared_now(job) else None
        if result is None:
            with contextlib.nullcontext() if check else exclusive.writing(dest, "weights_fetch"):
                job = job._replace(lock=_patched(job, changes or {}, check))
                result = _fetch(job, deep, check)
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def _is_shared_now(job: _Job) -> bool:
    lock = control.running_lock(job.dest)
    return lock is not None and lockfile.identity(lock) == lockfile.identity(job.lock)


def _undisturbed(job: _Job, changes: dict[str, dict], deep: bool) -> dict | None:
    """Return the result where a run before this one shares these very files and nothing is to be done.

    Else that share is ended, and begins anew when the files are right.
    """
    job = job._replace(lock=_patched(job, changes, True), piece=0)
    result = _fetch(job, deep, True)
    if not result["changed"]:
        return result
    control.end(job.dest)
    return None


def _fetch(job: _Job, deep: bool, check: bool) -> dict:
    dest, lock = job.dest, job.lock
    state = _state(job, deep, check)
    if job.old:
        # Those of before know the files that this lock does not name.
        job.old["stamps"].update(stamps.read(stamps.default_path(dest)))
    _refuse_unexpected(dest, state["unexpected"], lock)
    wrong = {problem["path"] for problem in state["corrupt"] if problem["reason"] in _WRONG_BYTES}
    absent = wrong | set(state["missing"])
    wanted = [entry for entry in lock["files"] if entry["path"] in absent or _lacks_original(dest, entry)]
    found = hashing.parallel(lambda entry: place.held(dest, entry, job.piece), wanted, _jobs(job))
    kept = {entry["path"]: held for entry, held in zip(wanted, found) if held}
    missing = [entry for entry in wanted if entry["path"] not in kept]
    _refuse_pickles(job.source)
    _check_source(job.source, missing)
    _check_space(dest, missing)
    roots = dict(state.get("merkle", {}))
    if not check:
        roots.update({path: held.digest.merkle for path, held in kept.items()})
        roots.update(_bring(job, missing))
        # From here on files of an earlier revision are replaced.
        refused = _bring_back(job, wanted, kept)
        roots.update(_bring(job, refused))
        missing += refused
        _place_staged(job, missing)
        roots.update(_other_roots(job, roots))
        lock = _completed(lock, roots)
    done = place.finish(dest, lock, owner=job.owner, check=check, old=job.old)
    if not check:
        layers.drop(dest, {entry["sha256"] for entry in lock["files"]})
    fetched = sorted(entry["path"] for entry in missing)
    restored = sorted(entry["path"] for entry in wanted if entry["path"] not in fetched and entry["path"] in kept)
    return {
        "changed": bool(fetched or restored or any(done.values())),
        **done,
        "fetched": fetched,
        "restored": restored,
        "repaired": sorted(wrong & {entry["path"] for entry in wanted}),
        "bytes_fetched": sum(entry["size"] for entry in missing),
        "merkle": {path: root for path, root in sorted(roots.items()) if root},
        "lock": lock,
        "before": state,
    }


def _patched(job: _Job, changes: dict[str, dict], check: bool) -> dict:
    """Return the lock with a record of what is to be changed in the files as published."""
    source = job.source.path if job.source.kind == "folder" else ""

    def places(entry: dict) -> list[str]:
        roots = [tree.aside(job.dest, "originals"), job.dest, tree.aside(job.dest, "incoming"), source]
        return [os.path.join(root, entry["path"]) for root in roots if root]

    def bring(entry: dict) -> str:
        if check or source:
            return ""
        staged = place.staged(job.dest, entry["path"])
        _getter(job, [entry], Progress("", "fetching", entry["size"]))(entry, staged)
        return staged

    return patch.complete(job.lock, changes, places, bring)


def _jobs(job: _Job) -> int:
    return job.jobs or hashing.cores()


# What is there, and what may be done -------------------------------------------------------------------------------


def _state(job: _Job, deep: bool, check: bool) -> dict:
    dest, lock = job.dest, job.lock
    if not os.path.lexists(dest):
        return {"missing": [entry["path"] for entry in lock["files"]], "corrupt": [], "unexpected": []}
    progress = Progress(_progress_path(dest, check), "verifying", lockfile.total_bytes(lock))
    return verify.verify(dest, lock, deep=deep, jobs=job.jobs, save=not check, piece=job.piece, progress=progress)


def _progress_path(dest: str, check: bool = False) -> str:
    return "" if check else tree.aside(dest, "progress.json")


def _lacks_original(dest: str, entry: dict) -> bool:
    """True for a patched file whose published form, which other hosts are given, is not there."""
    return "patched" in entry and not os.path.isfile(place.published_path(dest, entry))


def _refuse_unexpected(dest: str, unexpected: list[str], lock: dict) -> None:
    # Something other than a file under a name of the lock is strange, whoever has put it there.
    strange = sorted(set(unexpected) - (place.ours(dest) - {entry["path"] for entry in lock["files"]}))
    if strange:
        pickles = [name for name in strange if tree.is_pickle(name)]
        raise LlmError(
            f"{dest} holds files that are not in the lock" + (", pickles among them" if pickles else ""),
            wanted="only the files of the lock",
            found=", ".join((pickles or strange)[:5]),
            remedy="move them away (nothing is deleted that was not put there by this collection)",
        )


def _refuse_pickles(source: sources.Source) -> None:
    """They would not be copied, but a source that holds them is not what its lock was made from."""
    folder = source.path if source.kind == "folder" else ""
    pickles = [entry.path for entry in tree.walk(folder) if tree.is_pickle(entry.path)] if os.path.isdir(folder) else []
    if pickles:
        raise LlmError(
            f"the source {folder} holds formats that can run code when they are loaded",
            wanted="safetensors only",
            found=", ".join(pickles[:5]),
            remedy="remove them from the source, or set llm_weights_source to a folder without them",
        )


def _check_source(source: sources.Source, wanted: list[dict]) -> None:
    """See that a folder has what is wanted, before anything is written; others are asked file by file."""
    if source.kind != "folder" or not wanted:
        return
    if not os.path.isdir(source.path):
        raise LlmError(
            f"there is no folder {source.path} to copy the weights from",
            wanted=f"a folder with {len(wanted)} files",
            found="a file" if os.path.exists(source.path) else "nothing",
            remedy="set llm_weights_source to the folder that holds the model, and mount it on this host",
        )
    for entry in wanted:
        full = tree.resolve(source.path, entry["path"])
        found = f"{os.path.getsize(full)} bytes" if os.path.isfile(full) else "no such file"
        if found != f"{entry['size']} bytes":
            raise LlmError(
                f"{entry['path']} in the source {source.path} is not as locked",
                wanted=f"{entry['size']} bytes",
                found=found,
                remedy="fetch the source again from where it was published",
            )


def _check_space(dest: str, wanted: list[dict]) -> None:
    """Compare what is to come with what is free: bytes, and files where the file system has a number of them."""
    ancestor, free = _free(dest)
    need = sum(entry["size"] - _there(dest, entry) for entry in wanted)
    if need > free.f_bavail * free.f_frsize:
        raise _no_space(dest, f"{need} bytes free", f"{free.f_bavail * free.f_frsize} bytes free", ancestor)
    files = len(wanted) + len({os.path.dirname(entry["path"]) for entry in wanted}) + SPARE_INODES
    if wanted and free.f_files and files > free.f_favail:
        raise _no_space(dest, f"room for {files} files and folders", f"room for {free.f_favail}", ancestor)


def _free(dest: str) -> tuple[str, os.statvfs_result]:
    ancestor = os.path.abspath(dest)
    while not os.path.exists(ancestor):
        ancestor = os.path.dirname(ancestor)
    return ancestor, os.statvfs(ancestor)


def _there(dest: str, entry: dict) -> int:
    """Return how many bytes of a file an earlier run has left in ``incoming``, as the file system counts them."""
    try:
        status = os.lstat(os.path.join(tree.aside(dest, "incoming"), entry["path"]))
    except OSError:
        return 0
    return min(entry["size"], status.st_blocks * 512)  # stat(2): in units of 512 bytes, whatever the file system


def _no_space(dest: str, wanted: str, found: str, where: str) -> LlmError:
    return LlmError(
        f"{dest} has no space for the weights",
        wanted=wanted,
        found=f"{found} on the file system of {where}",
        remedy="free space there (weights_prune deletes old revisions), or set llm_weights_path to a larger disk",
    )


@contextlib.contextmanager
def _full_disk_told(dest: str) -> Iterator[None]:
    """What fills the disk in the meantime is told as what was there before is."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        ancestor, free = _free(dest)
        found = f"{free.f_bavail * free.f_frsize} bytes and room for {free.f_favail} files left"
        raise _no_space(dest, "space until the last byte", f"{error.strerror}, {found}", ancestor) from error


# Bringing ----------------------------------------------------------------------------------------------------------


def _bring_back(job: _Job, wanted: list[dict], kept: dict[str, place.Held]) -> list[dict]:
    """Put in place what lies on this host; return the entries that have to be fetched all the same."""
    refused = []
    for entry in wanted:
        held = kept.get(entry["path"])
        if held:
            layers.store(job.dest, entry["sha256"], held.digest.layer)
            if not place.bring_back(job.dest, entry, held.path, old=job.old, owner=job.owner):
                refused.append(entry)
    return refused


def _bring(job: _Job, wanted: list[dict]) -> dict[str, str]:
    """Complete ``wanted`` in incoming, and put those in place that replace nothing; return merkle roots by path."""
    if not wanted:
        return {}
    workers = job.jobs or (hashing.cores() if job.source.kind == "folder" else max(DOWNLOADS, hashing.cores()))
    with Progress(_progress_path(job.dest), "fetching", lockfile.total_bytes({"files": wanted})) as progress:
        get = _getter(job, wanted, progress)

        def bring(entry: dict) -> str:
            staged = place.staged(job.dest, entry["path"])
            found = get(entry, staged)
            layers.store(job.dest, entry["sha256"], found.layer)
            if not os.path.lexists(os.path.join(job.dest, entry["path"])):
                place.place(job.dest, entry, staged, old=job.old, owner=job.owner)
            return found.merkle

        # The largest first: the last to end is then a small one.
        ordered = sorted(wanted, key=lambda entry: -entry["size"])
        return dict(zip((entry["path"] for entry in ordered), hashing.parallel(bring, ordered, workers)))


def _place_staged(job: _Job, wanted: list[dict]) -> None:
    for entry in wanted:
        staged = os.path.join(tree.aside(job.dest, "incoming"), entry["path"])
        if os.path.lexists(staged):
            place.place(job.dest, entry, staged, old=job.old, owner=job.owner)


def _getter(job: _Job, wanted: list[dict], progress: Progress) -> Callable[[dict, str], hashing.Digest]:
    """Return the function (entry, path) -> Digest that completes the file at ``path``, proved."""
    options = job.options
    if job.source.kind == "folder":
        return lambda entry, staged: _copy(job, entry, staged, progress)
    if options.client == "library":
        brought = library.bring(job.source, job.dest, wanted, options, job.piece, _jobs(job), progress)
        return lambda entry, _staged: brought[entry["path"]]
    reach = {name: value for name, value in options._asdict().items() if not name.startswith("client")}
    hub = sources.open_source(job.source, **reach)
    return lambda entry, staged: download.fetch_file(
        hub, entry, staged, piece=job.piece, progress=progress, retries=options.retries
    )


def _copy(job: _Job, entry: dict, staged: str, progress: Progress) -> hashing.Digest:
    source = job.source.path
    origin = tree.resolve(source, entry["path"])
    before = _shape(origin)
    with open(
        os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb", buffering=0
    ) as out:
        found = hashing.digest_file(
            origin, piece=job.piece, sink=lambda block: _write_all(out, block), progress=progress
        )
    if found.sha256 != entry["sha256"]:
        os.unlink(staged)
        changed = ", and it was changed while it was read" if _shape(origin) != before else ""
        raise LlmError(
            f"{entry['path']} in the source {source} is damaged",
            wanted=f"SHA-256 {entry['sha256']}",
            found=f"SHA-256 {found.sha256}{changed}",
            remedy="fetch the source again from where it was published; nothing wrong was put in place",
        )
    return found


def _shape(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _write_all(out: object, block: memoryview) -> None:
    """An unbuffered write may take only a part, as at a full disk or a signal."""
    while block:
        block = block[out.write(block) :]


# Merkle roots ------------------------------------------------------------------------------------------------------


def _other_roots(job: _Job, roots: dict[str, str]) -> dict[str, str]:
    """Return the roots that are not in ``roots``: of patched files, whose published form lies elsewhere."""
    found = {}
    for entry in job.lock["files"]:
        if entry["size"] and not roots.get(entry["path"]):
            digest = hashing.digest_file(place.published_path(job.dest, entry), piece=job.piece)
            if digest.sha256 != entry["sha256"]:
                raise LlmError(
                    f"{entry['path']} was changed after it was put in place",
                    wanted=f"SHA-256 {entry['sha256']}",
                    found=f"SHA-256 {digest.sha256}",
                    remedy="see what writes to that folder, then run this again",
                )
            layers.store(job.dest, entry["sha256"], digest.layer)
            found[entry["path"]] = digest.merkle
    return found


def _completed(lock: dict, roots: dict[str, str]) -> dict:
    """Return ``lock`` with all merkle roots, or raise LlmError where it has another one."""
    files = []
    for entry in lock["files"]:
        root = roots.get(entry["path"], "")
        if entry.get("merkle", root) != root:
            raise LlmError(
                f"the lock gives a merkle root for {entry['path']} that is not of the bytes with its SHA-256",
                wanted=entry["merkle"],
                found=root,
                remedy="make the lock again with weights_lock, and see who has changed it",
            )
        files.append({**entry, "merkle": root} if root else entry)
    return lockfile.check(dict(lock, files=files))


# Removal -----------------------------------------------------------------------------------------------------------


class _Traces(NamedTuple):
    """What there is of ours: full paths of files in the folder, of notes aside, and folders that the files lie in."""

    files: list[str]
    notes: list[str]
    folders: list[str]


def remove(dest: str, check: bool = False) -> list[str]:
    """Delete the files that were installed in ``dest``, folders that are empty then, and all that is kept aside.

    What was installed stands in the manifest beside ``dest``; without one nothing was, and nothing in it is deleted.

    :return: full paths of what is gone
    :raises LlmError: the manifest cannot be read, or another run writes there
    """
    traces = _traces(dest)
    if check or not traces.files + traces.notes:
        return traces.files + traces.notes
    busy = tree.aside(dest, "busy")
    with exclusive.writing(dest, "weights_fetch"):
        traces = _traces(dest)
        for path in traces.files:
            os.unlink(path)
        folders = [folder for folder in traces.folders if _remove_if_empty(folder)]
        for path in [*traces.notes, busy]:
            _delete(path)
    inside = os.path.dirname(busy)
    if os.path.basename(inside) == tree.INSIDE:
        _remove_if_empty(inside)
    return [*traces.files, *folders, *traces.notes]


def _traces(dest: str) -> _Traces:
    paths = set(place.ours(dest))
    if os.path.isfile(place.manifest_path(dest)):
        paths |= {entry["path"] for entry in lockfile.load(place.manifest_path(dest))["files"]}
    files = [tree.resolve(dest, path) for path in sorted(paths)]
    folders = place.folders(dest, {"files": [{"path": path} for path in paths]}) if paths else []
    return _Traces([path for path in files if os.path.isfile(path)], _notes(dest), folders[::-1])


def _notes(dest: str) -> list[str]:
    """Return what is kept aside, with what cut-off runs have left of it; the manifest, which tells the rest, last."""
    notes = [tree.aside(dest, name) for name in _FOLDERS]
    for name in reversed(_NOTES):
        path = tree.aside(dest, name)
        folder, base = (glob.escape(part) for part in os.path.split(path))
        notes += [*sorted(glob.glob(os.path.join(folder, f".{base}.*"))), path]
    return [path for path in notes if os.path.lexists(path)]


def _delete(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _remove_if_empty(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True
