# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the torrents of a folder of weights that is whole; one reading pass at most, none where all was noted."""

from __future__ import annotations

import contextlib
import os
import secrets

from ... import atomic
from ...errors import LlmError
from .. import exclusive, hashing, layers, lockfile, merkle, place, torrent, tree, verify
from ..progress import Progress
from . import agent, status

_SUFFIX = ".torrent"
_MODE = 0o640


def folder(path: str) -> str:
    """Return where the torrents for the folder ``path`` lie, on the seed and on the hosts that they are copied to."""
    return tree.aside(path, "torrents")


def make(path: str, lock: dict, processes: int, *, jobs: int = 0, check: bool = False) -> dict:
    """Prove every file of ``path``, complete the lock by merkle roots, and write one torrent for each group of files.

    :param processes: groups at most
    :param jobs: files that are read at a time, 0 is one a core
    :param check: write nothing; without what an earlier run noted there are no torrents to name then
    :return: changed, lock, torrents [{name, path, infohash, files, bytes}], before (names of those that were there),
        shared_token
    :raises LlmError: a file is missing or not as locked
    """
    piece = merkle.piece_bytes(lockfile.total_bytes(lock))
    with contextlib.nullcontext() if check or agent.running(path) else exclusive.writing(path, "weights_torrent"):
        before = _present(path)
        completed, known = _prove(path, lock, piece, jobs, check)
        if completed is None:
            return {"changed": True, "lock": lock, "torrents": [], "before": before, "shared_token": ""}
        made = [_torrent(path, completed, group) for group in torrent.groups(completed, processes)]
        changed = sorted(before) != sorted(entry["name"] for entry in made)
        if not check:
            changed = _write(path, completed, made, known, piece)
        token = agent.read_token(path) if check else _token(path)
    return {"changed": changed, "lock": completed, "torrents": made, "before": before, "shared_token": token}


def _present(path: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder(path)) if name.endswith(_SUFFIX)]
    except OSError:
        return []


def _prove(path: str, lock: dict, piece: int, jobs: int, check: bool) -> tuple[dict | None, dict[str, bytes]]:
    """Return the lock with all roots, and the layers by path; (None, {}) where check mode would have to store some."""
    progress = Progress("" if check else tree.aside(path, "progress.json"), "checking", lockfile.total_bytes(lock))
    found = verify.verify(path, lock, jobs=jobs, save=not check, piece=piece, progress=progress)
    wrong = found["missing"] + [f"{problem['path']} ({problem['reason']})" for problem in found["corrupt"]]
    if wrong:
        raise LlmError(
            f"{path} is not whole, so it cannot be shared",
            wanted=f"{len(lock['files'])} files as locked",
            found=f"{len(wrong)} missing or wrong: {', '.join(wrong[:5])}",
            remedy="run weights_fetch on this host first",
        )
    roots = dict(found["merkle"])
    known = {}
    for entry in lock["files"]:
        if "patched" in entry and entry["size"]:
            roots[entry["path"]], known[entry["path"]] = _original(path, entry, piece)
    files = [_with_root(entry, roots.get(entry["path"], "")) for entry in lock["files"]]
    for entry in files:
        if entry["size"] and entry["path"] not in known:
            layer = layers.load(path, entry, piece)
            if layer is None:
                return _unnoted(check, entry), {}
            known[entry["path"]] = layer
    return dict(lock, files=files), known


def _unnoted(check: bool, entry: dict) -> None:
    if not check:
        raise LlmError(
            f"the piece layer of {entry['path']} was not kept",
            wanted="a layer beside the weights, as the reading of the file leaves it",
            found="none, or one that cannot be read",
            remedy="see that this user may write beside the weights, then run this again",
        )


def _original(path: str, entry: dict, piece: int) -> tuple[str, bytes]:
    """Return root and layer of the published form of a patched file, which is a small one."""
    try:
        found = hashing.digest_file(place.published_path(path, entry), piece=piece)
    except OSError as error:
        raise _lost(entry, str(error.strerror)) from error
    if found.sha256 != entry["sha256"]:
        raise _lost(entry, f"SHA-256 {found.sha256}")
    return found.merkle, found.layer


def _lost(entry: dict, found: str) -> LlmError:
    return LlmError(
        f"{entry['path']} as it was published is not there, only its patched form",
        wanted=f"SHA-256 {entry['sha256']}",
        found=found,
        remedy="run weights_fetch on this host first",
    )


def _with_root(entry: dict, root: str) -> dict:
    if not entry["size"]:
        return entry
    if root and entry.get("merkle", root) != root:
        raise LlmError(
            f"the lock contradicts itself on {entry['path']}",
            wanted=f"merkle root {entry['merkle']}",
            found=f"a file with the SHA-256 of the lock and the merkle root {root}",
            remedy="make the lock again with weights_lock",
        )
    return dict(entry, merkle=root) if root else entry


def _torrent(path: str, lock: dict, group: list[str]) -> dict:
    digest = torrent.infohash(lock, group)
    wanted = set(group)
    return {
        "name": digest + _SUFFIX,
        "path": os.path.join(folder(path), digest + _SUFFIX),
        "infohash": digest,
        "files": len(group),
        "bytes": sum(entry["size"] for entry in lock["files"] if entry["path"] in wanted),
    }


def _write(path: str, lock: dict, made: list[dict], known: dict[str, bytes], piece: int) -> bool:
    """Write the torrents that are not there as they should be, and remove those of other locks."""
    os.makedirs(folder(path), mode=0o750, exist_ok=True)
    changed = False
    for entry, group in zip(made, torrent.groups(lock, len(made))):
        data = torrent.build(lock, group, known, piece)
        if _read(entry["path"], len(data)) != data:
            with open(os.open(entry["path"] + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE), "wb") as stream:
                stream.write(data)
            os.replace(entry["path"] + ".new", entry["path"])
            changed = True
    keep = {entry["name"] for entry in made}
    for name in os.listdir(folder(path)):
        if _SUFFIX in name and name not in keep:
            os.unlink(os.path.join(folder(path), name))
            changed = True
    return changed


def _read(path: str, most: int) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(most + 1)
    except OSError:
        return b""


def _token(path: str) -> str:
    """Return the text by which another host knows that it sees this very file system; made when there is none."""
    token = agent.read_token(path)
    if not token:
        token = secrets.token_hex(16)
        status.make_folder(path)
        atomic.write_text(os.path.join(status.folder(path), status.MARK), token + "\n", _MODE)
    return token
