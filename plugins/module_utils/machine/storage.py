# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of a host, and what is at paths of particular interest."""

from __future__ import annotations

import functools
import os
import re
import stat
import time

from .source import Source, in_time

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "beegfs", "gpfs", "glusterfs", "fuse.glusterfs")
_LOCAL = ("overlay", "zfs", "tmpfs")
_MOUNT_SECONDS = 3.0  # for all network mounts together; a server in order answers in milliseconds
_WALK_SECONDS = 5.0  # for all paths together
_PATH_SECONDS = 6.0  # a walk that has not ended a second after its time hangs in the file system
_WALK_ENTRIES = 200_000  # in one path; an engine's environment has some 60,000


def disks(source: Source) -> list[dict]:
    """Return the mounted disk file systems {mount, device, fstype, total, free} in bytes."""
    mounts, misread = parse_mounts(source.text("/proc/self/mounts"))
    source.misread("/proc/self/mounts", misread)
    remote = {mount: functools.partial(_space, mount) for mount, entry in mounts.items() if entry["fstype"] in _NETWORK}
    spaces = in_time(remote, _MOUNT_SECONDS)
    found = []
    for mount in sorted(mounts):
        if mount in remote and mount not in spaces:
            source.problems.append(f"the file system at {mount} does not answer ({mounts[mount]['fstype']})")
        space = spaces.get(mount) if mount in remote else _space(mount)
        if space:
            found.append({**mounts[mount], **space})
    return found


def parse_mounts(text: str) -> tuple[dict[str, dict], int]:
    """Return {mount: {mount, device, fstype}} of the disks in /proc/self/mounts, and how many lines are no mounts."""
    found, misread = {}, 0
    for line in filter(None, text.split("\n")):
        fields = line.split(" ")
        if len(fields) < 4:
            misread += 1
            continue
        device, mount, fstype = map(_unescape, fields[:3])
        if device.startswith("/") or fstype in (*_LOCAL, *_NETWORK):
            found[mount] = {"mount": mount, "device": device, "fstype": fstype}
    return found, misread


def _unescape(field: str) -> str:
    """Undo the octal escapes (blank, tab, newline, backslash) of /proc/self/mounts."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def _space(path: str) -> dict | None:
    """Return {total, free} of the file system at ``path`` in bytes, None when it cannot be asked."""
    try:
        told = os.statvfs(path)
    except (OSError, ValueError):
        return None
    return {"total": told.f_blocks * told.f_frsize, "free": told.f_bavail * told.f_frsize}


def paths(source: Source, wanted: list[str]) -> dict[str, dict]:
    """Return what is at each path, and the space on the file system that it is, or would be, on."""
    deadline = time.monotonic() + _WALK_SECONDS
    answers = in_time({path: functools.partial(look, path, deadline) for path in wanted if path}, _PATH_SECONDS)
    found = {}
    for path in filter(None, wanted):
        facts, problems = answers.get(path) or (_unknown(), [f"{path} did not answer within {_PATH_SECONDS:g} s"])
        found[path] = facts
        source.problems.extend(problem for problem in problems if problem not in source.problems)
    return found


def _unknown() -> dict:
    return {
        "kind": "unknown",
        "nearest": "",
        "device": None,
        "writable": False,
        "total": 0,
        "free": 0,
        "bytes": 0,
        "bytes_complete": False,
    }


def look(path: str, deadline: float) -> tuple[dict, list[str]]:
    """Return the facts of one path and the problems there were; the walk over a folder ends at ``deadline``."""
    facts, problems = _unknown(), []
    facts["kind"], reason = _kind(path)
    if reason:
        problems.append(f"what is at {path} cannot be told: {reason}")
    ancestor = os.path.abspath(path)
    while not os.path.exists(ancestor) and os.path.dirname(ancestor) != ancestor:
        ancestor = os.path.dirname(ancestor)
    facts["nearest"] = ancestor
    space = _space(ancestor)
    if space is None:
        problems.append(f"the file system of {ancestor} cannot be asked how much space it has")
    try:
        facts["device"] = os.stat(ancestor).st_dev
        facts["writable"] = os.access(ancestor, os.W_OK | os.X_OK)
    except OSError as error:
        problems.append(f"{ancestor} cannot be looked at: {error.strerror}")
    facts.update(space or {})
    if facts["kind"] == "folder":
        facts["bytes"], facts["bytes_complete"] = tree_bytes(path, deadline)
        if not facts["bytes_complete"]:
            problems.append(f"not every file below {path} could be counted; at least {facts['bytes']} bytes are there")
    else:
        facts["bytes_complete"] = facts["kind"] != "unknown"
    return facts, problems


def _kind(path: str) -> tuple[str, str]:
    """Return folder, file, nothing or unknown, and for the last why."""
    try:
        return ("folder" if stat.S_ISDIR(os.stat(path).st_mode) else "file"), ""
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "nothing", ""
    except OSError as error:
        return "unknown", error.strerror or str(error)


def tree_bytes(folder: str, deadline: float, most: int = _WALK_ENTRIES) -> tuple[int, bool]:
    """Return the bytes of the files below ``folder``, links not followed, and whether all of them were counted."""
    total, seen, complete, folders = 0, 0, True, [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > most or time.monotonic() > deadline:
                        return total, False
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += _size(entry)
        except FileNotFoundError:  # gone since
            continue
        except OSError:  # a folder of another user
            complete = False
    return total, complete


def _size(entry: os.DirEntry) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
