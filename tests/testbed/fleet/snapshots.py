# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells what has been written on a host since it came up, and what runs and listens there."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from .errors import FleetError
from .image import OPAQUE
from .programs import run
from .within import is_up

# A file that is larger is told by size and time alone: reading weights would take longer than the test.
HASHED_UP_TO = 64 * 1024 * 1024
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def snapshot(host: dict) -> dict:
    """Return {files, processes, listening, addresses, routes} of ``host``, an entry of ``hosts()``.

    ``files`` maps each path that was written, created or removed since the host came up to {type, mode, uid, gid, size,
    sha256, mtime_ns}; the type of a removed one is "removed". ``processes`` are [{pid, argv}] with pids as the host
    sees them, containers included. The rest are sorted lines, without what changes by itself.
    """
    if not is_up(host):
        raise FleetError(f"host {host['name']} is not up")
    netns = ["ip", "-n", host["netns"], "-o"]
    sockets = run(["nsenter", f"--net=/run/netns/{host['netns']}", "ss", "-H", "-l", "-n", "-t", "-u"])
    return {
        "files": written(Path(host["folder"])),
        "processes": processes(host["pid"]),
        "listening": sorted(" ".join((line.split()[0], line.split()[4])) for line in sockets.splitlines()),
        "addresses": sorted(_plain(run([*netns, "link", "show"])) + _plain(run([*netns, "address", "show"]))),
        "routes": sorted(_plain(run([*netns, "route", "show", "table", "all"]))),
    }


def written(folder: Path) -> dict[str, dict]:
    """Files of the upper layer of the host in ``folder``; folders that are only the way to one are left out."""
    upper, files = folder / "upper", {}
    for place, folders, names in os.walk(upper):
        for name in folders + names:
            path = Path(place, name)
            found = _describe(path)
            relative = path.relative_to(upper)
            if found and not (found["type"] == "dir" and _is_way(path, folder / "base", relative)):
                files[f"/{relative}"] = found
    return dict(sorted(files.items()))


def processes(init: int) -> list[dict]:
    """Processes of the PID namespace of ``init``, read where the host itself reads them."""
    proc, found = Path(f"/proc/{init}/root/proc"), []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                raw = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended since
            found.append({"pid": int(entry.name), "argv": raw.decode("utf-8", "replace").rstrip("\0 ").split("\0")})
    return sorted(found, key=_by_pid)


def _by_pid(process: dict) -> int:
    return process["pid"]


def _describe(path: Path) -> dict | None:
    try:
        found = path.lstat()
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "device")
        if kind == "device" and found.st_rdev == 0:
            kind = "removed"  # overlayfs' whiteout
        content = None
        if kind == "link":
            content = os.fsencode(os.readlink(path))
        elif kind == "file" and found.st_size <= HASHED_UP_TO:
            content = path.read_bytes()
    except FileNotFoundError:
        return None  # it has been removed since
    return {
        "type": kind,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
        "size": 0 if kind == "dir" else found.st_size,
        "sha256": "" if content is None else hashlib.sha256(content).hexdigest(),
        "mtime_ns": found.st_mtime_ns,
    }


def _is_way(path: Path, base: Path, relative: Path) -> bool:
    """True for a folder that a layer below has too, with the same mode and owner, and that hides nothing of it."""
    below = base / relative
    if not os.path.lexists(below):
        if any(_is_opaque(base / parent) for parent in relative.parents):
            return False
        below = Path("/") / relative
    if not below.is_dir() or _is_opaque(path):
        return False
    upper, lower = path.stat(), below.stat()
    return (upper.st_mode, upper.st_uid, upper.st_gid) == (lower.st_mode, lower.st_uid, lower.st_gid)


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, OPAQUE) == b"y"
    except OSError:
        return False


def _plain(text: str) -> list[str]:
    return [" ".join(line.replace("\\", " ").split()) for line in text.splitlines()]
