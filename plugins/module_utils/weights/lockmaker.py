# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes a lock: from a folder by reading it, from a hub by what the hub says and what can be proved of that."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Callable, NamedTuple

from ..errors import LlmError
from . import hashing, lockfile, merkle, safetensors, stamps, tree
from .progress import Progress
from .sources import Broken, Hub, Remote, sums
from .verify import Digests

# Of a file that is fetched only to be hashed. Hubs keep what is larger than 10 MB by its SHA-256.
MOST_PROVED_BYTES = 64 << 20
# Files that are fetched at a time, and held in memory; the wait for answers counts, not the wire.
FETCHED_AT_A_TIME = 4
# How often a file that is cut off is gone on with while no more of it comes.
TRIES = 5
READ_BYTES = 1 << 20

# Weights of other engines, and what is only looked at. Endings of file names, in small letters.
OTHER_ENGINES = (".gguf", ".ggml", ".onnx", ".onnx_data", ".msgpack", ".tflite", ".ot", ".mlmodel", ".engine", ".om")
MEDIA = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".bmp", ".ico", ".mp4", ".mov", ".mp3", ".wav", ".pdf")


class Made(NamedTuple):
    """A lock, what of the source is not in it ([{path, reason}]), and what a person should know of it."""

    lock: dict
    left_out: list[dict]
    notes: list[str]


def from_folder(folder: str, model: str, revision: str, *, jobs: int = 0, save: bool = True) -> dict:
    """Hash every file of ``folder`` in one reading pass, SHA-256 and merkle root, and return its lock.

    :param save: keep stamps, piece layers and progress beside the folder
    :raises LlmError: for folders that must not be locked: empty, with links, pickles or damaged safetensors, or
        other than its own SHA256SUMS says
    """
    if not os.path.isdir(folder):
        raise LlmError(
            f"there is no folder {folder} to lock",
            wanted="a folder with the weights",
            found="a file" if os.path.exists(folder) else "nothing",
            remedy="set llm_weights_source to the folder that holds the model",
        )
    entries = tree.walk(folder)
    _refuse_strange(folder, entries)
    names = [entry.path for entry in entries]
    total = sum(entry.size for entry in entries)
    digests = Digests(folder, stamps.default_path(folder), piece=merkle.piece_bytes(total), store=save)
    with Progress(tree.aside(folder, "progress.json") if save else "", "hashing", total) as progress:
        found = hashing.parallel(lambda name: digests.of(name, progress), names, jobs or hashing.cores())
    if save:
        digests.save()
    _hold_against_list(folder, dict(zip(names, found)))
    files = [
        {"path": entry.path, "size": entry.size, "sha256": digest, "merkle": digests.roots.get(entry.path, "")}
        for entry, digest in zip(entries, found)
    ]
    return lockfile.check({"model": model, "revision": revision, "files": files})


def _refuse_strange(folder: str, entries: list[tree.Entry]) -> None:
    names = [entry.path for entry in entries]
    if not any(name.endswith(".safetensors") for name in names):
        raise LlmError(
            f"{folder} holds no safetensors file",
            wanted="the shards of a model",
            found=f"{len(names)} files" if names else "an empty folder",
            remedy="set llm_weights_source to the folder that holds the model",
        )
    odd = [entry.path for entry in entries if entry.kind != "file"]
    if odd:
        raise LlmError(
            f"{folder} holds links or special files",
            wanted="plain files",
            found=", ".join(odd[:5]),
            remedy="copy the files that they lead to (hub caches: download with a local folder instead)",
        )
    pickles = [name for name in names if tree.is_pickle(name)]
    if pickles:
        raise LlmError(
            f"{folder} holds formats that can run code when they are loaded",
            wanted="safetensors only",
            found=", ".join(pickles[:5]),
            remedy="remove them from the source, or lock a revision without them",
        )
    problems = safetensors.structure_problems(folder, names)
    if problems:
        first = problems[0]
        raise LlmError(
            f"{first['path']} in {folder} is damaged ({len(problems)} problems in all)",
            wanted=first["wanted"],
            found=first["found"],
            remedy="fetch it again from where it was published",
        )


def _hold_against_list(folder: str, found: dict[str, str]) -> None:
    """Refuse a folder that is not what the publisher's own list in it says; other files may be there too."""
    if sums.NAME not in found:
        return
    where = tree.resolve(folder, sums.NAME)
    with open(where, "rb") as stream:
        raw = stream.read(sums.MOST_BYTES)
    listed = sums.parse(raw.decode("utf-8", "surrogateescape"), where)
    wrong = sorted(name for name, digest in listed.items() if found.get(name) != digest and not _reason(name))
    if wrong:
        raise LlmError(
            f"{wrong[0]} in {folder} is not what {sums.NAME} says ({len(wrong)} such files)",
            wanted=f"SHA-256 {listed[wrong[0]]}",
            found=f"SHA-256 {found[wrong[0]]}" if wrong[0] in found else "no such file",
            remedy=f"fetch it again from where it was published, or remove {sums.NAME} if it is of another revision",
        )


def from_source(
    hub: Hub,
    model: str = "",
    revision: str = "",
    *,
    jobs: int = 0,
    save: bool = True,
    sleep: Callable[[float], object] = time.sleep,
) -> Made:
    """Return the lock of what ``hub`` has; folders are read, of hubs only files without a SHA-256 are fetched.

    Left out are pickles, weights of other engines, pictures and git's own files.

    :param revision: what the lock says of it; by default the commit that the hub told
    :raises LlmError: what cannot be proved, no safetensors, a shard that the index names and that is not there
    """
    if hub.source.kind == "folder":
        return Made(from_folder(hub.source.path, model, revision, jobs=jobs, save=save), [], [])
    listing = hub.listing()
    kept = [file for file in listing.files if not _reason(file.path)]
    left_out = [{"path": file.path, "reason": _reason(file.path)} for file in listing.files if _reason(file.path)]
    if not any(file.path.endswith(".safetensors") for file in kept):
        pickles = sum(1 for file in listing.files if tree.is_pickle(file.path))
        raise LlmError(
            f"{hub.source.text} holds no safetensors file",
            wanted="the shards of a model",
            found=f"{len(listing.files)} files, {pickles} of them in formats that can run code when they are loaded",
            remedy="take a revision, or another publisher's copy, with safetensors",
        )
    _refuse_unproved(hub, kept)
    jobs = min(jobs or FETCHED_AT_A_TIME, FETCHED_AT_A_TIME)
    digests = hashing.parallel(lambda file: file.sha256 or _prove(hub, file, sleep)[0], kept, jobs)
    proved = [file._replace(sha256=digest) for file, digest in zip(kept, digests)]
    _refuse_incomplete(hub, proved, sleep)
    files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in proved]
    lock = {"model": model or hub.source.name, "revision": revision or listing.revision, "files": files}
    return Made(lockfile.check(lock), left_out, listing.notes + _notes(left_out))


def _reason(path: str) -> str:
    """Return why a file of a hub is not locked, empty when it is."""
    lower = path.lower()
    if any(part.startswith(".git") for part in path.split("/")):
        return "git"
    if any(path == name or (name.endswith("/") and path.startswith(name)) for name in tree.HUB_LEFTOVERS):
        return "left by a hub's client"
    if tree.is_pickle(path):
        return "pickle"
    if lower.endswith(OTHER_ENGINES):
        return "another engine's"
    return "media" if lower.endswith(MEDIA) else ""


def _notes(left_out: list[dict]) -> list[str]:
    pickles = [entry["path"] for entry in left_out if entry["reason"] == "pickle"]
    if not pickles:
        return []
    return [f"{len(pickles)} files can run code when they are loaded; they are never fetched: {', '.join(pickles[:5])}"]


def _refuse_unproved(hub: Hub, files: list[Remote]) -> None:
    bare = [file.path for file in files if not file.sha256 and not file.git_sha1]
    if bare:
        raise LlmError(
            f"{hub.source.text} does not say what its files have to be ({len(bare)} of {len(files)} files)",
            wanted="a SHA-256 of each file",
            found=f"none of {', '.join(bare[:5])}",
            remedy=f"put a list {sums.NAME} beside the files, or download them and lock the folder",
        )
    long = [file for file in files if not file.sha256 and file.size > MOST_PROVED_BYTES]
    if long:
        raise LlmError(
            f"{long[0].path} of {hub.source.text} has no SHA-256, and is too long to be fetched for it",
            wanted=f"a SHA-256, or at most {MOST_PROVED_BYTES} bytes",
            found=f"{long[0].size} bytes, git's SHA-1 alone",
            remedy="download the repository and lock the folder",
        )


def _refuse_incomplete(hub: Hub, files: list[Remote], sleep: Callable[[float], object]) -> None:
    """Refuse a repository whose index names shards that are not in it."""
    there = {file.path for file in files}
    for file in files:
        if not file.path.endswith(".safetensors.index.json") or file.size > MOST_PROVED_BYTES:
            continue
        try:
            shards = set(json.loads(_prove(hub, file, sleep)[1])["weight_map"].values())
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise LlmError(
                f"{file.path} of {hub.source.text} is no index",
                wanted="a JSON object with a weight_map",
                found=type(error).__name__,
                remedy="take another revision",
            ) from error
        prefix = file.path.rpartition("/")[0]
        lost = sorted({str(shard) for shard in shards if f"{prefix}/{shard}".lstrip("/") not in there})
        if lost:
            raise LlmError(
                f"{hub.source.text} is not whole: {file.path} names {len(lost)} shards that are not there",
                wanted=", ".join(lost[:5]),
                found="no such files",
                remedy="wait until its publisher has uploaded them, or take another revision",
            )


def _prove(hub: Hub, file: Remote, sleep: Callable[[float], object]) -> tuple[str, bytes]:
    """Fetch ``file``, hold it against what the hub says of it, and return (SHA-256, content)."""
    content = bytearray()
    failed = 0
    while True:
        before = len(content)
        try:
            _go_on(hub, file, content)
            break
        except Broken as error:
            failed = failed + 1 if len(content) <= before else 0
            if failed == TRIES:
                raise LlmError(
                    f"{file.path} of {hub.source.text} breaks off again and again",
                    wanted=f"{file.size} bytes",
                    found=f"{len(content)} bytes; {error}",
                    remedy="see to the connection to the hub, then run this again",
                ) from error
            sleep(2.0**failed / 2)
    if len(content) != file.size:
        raise _lie(hub, file, f"{file.size} bytes", f"{len(content)} bytes, or more")
    sha256 = hashlib.sha256(content).hexdigest()
    if file.sha256 and sha256 != file.sha256:
        raise _lie(hub, file, f"SHA-256 {file.sha256}", sha256)
    blob = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    blob.update(content)
    if file.git_sha1 and blob.hexdigest() != file.git_sha1:
        raise _lie(hub, file, f"git's SHA-1 {file.git_sha1}", blob.hexdigest())
    return sha256, bytes(content)


def _go_on(hub: Hub, file: Remote, content: bytearray) -> None:
    """Add to ``content`` what is still to come, at most one byte more than there should be."""
    with hub.stream(file.path, len(content)) as response:
        if response.total is not None and response.total != file.size:
            raise _lie(hub, file, f"{file.size} bytes", f"{response.total} bytes")
        del content[response.offset :]
        while len(content) <= file.size:
            block = response.read(min(READ_BYTES, file.size + 1 - len(content)))
            if not block:
                return
            content += block


def _lie(hub: Hub, file: Remote, wanted: str, found: str) -> LlmError:
    return LlmError(
        f"{file.path} of {hub.source.text} is not what its listing says",
        wanted=wanted,
        found=found,
        remedy="see whether a proxy, a cache or a login page answers in place of the hub; do not trust it before",
    )
