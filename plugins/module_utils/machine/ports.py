# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TCP ports that programs of a host listen on."""

from __future__ import annotations

import os
import re
import socket
import struct
import time

from .source import Source

_LISTEN = "0A"  # include/net/tcp_states.h
_OWNER_SECONDS = 3.0  # a host with 100,000 open files takes less than one
_ADDRESS = re.compile(r"([0-9A-Fa-f]{8}|[0-9A-Fa-f]{32}):([0-9A-Fa-f]{4})")


def read(source: Source) -> list[dict]:
    """Return the listening TCP ports {port, address, pid, process}; pid is None where this user may not see it.

    A socket that several processes share is told with the first of them, by the number of the process.
    """
    listening: dict[str, tuple[int, str]] = {}
    for table in ("tcp", "tcp6"):
        # The kernel writes listening sockets first, so a table cut off at the limit still has them.
        text = source.head(f"/proc/net/{table}", 1 << 22)
        if not text and table == "tcp":  # tcp6 is not there where IPv6 is off
            source.problems.append("/proc/net/tcp does not tell which ports are in use")
        found, misread = parse_listeners(text)
        listening.update(found)
        source.misread(f"/proc/net/{table}", misread)
    owners = _owners(source, set(listening))
    return sorted(
        (
            {"port": port, "address": address, **owners.get(inode, {"pid": None, "process": ""})}
            for inode, (port, address) in listening.items()
        ),
        key=lambda entry: (entry["port"], entry["address"], entry["pid"] or 0),
    )


def parse_listeners(text: str) -> tuple[dict[str, tuple[int, str]], int]:
    """Return {inode: (port, address)} of /proc/net/tcp or tcp6, and how many listeners could not be understood."""
    found, misread = {}, 0
    for line in text.split("\n")[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        place = _ADDRESS.fullmatch(fields[1])
        if place and re.fullmatch(r"[0-9]{1,20}", fields[9]):
            found[fields[9]] = (int(place.group(2), 16), _address(place.group(1)))
        else:
            misread += 1
    return found, misread


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    # The kernel prints each 32-bit word of the address in the machine's byte order.
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f">{len(words)}I", *words))


def _owners(source: Source, inodes: set[str]) -> dict[str, dict]:
    """Return {inode: {pid, process}}, found by one walk over the open files of every process."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[str, dict] = {}
    proc, deadline = source.at("/proc"), time.monotonic() + _OWNER_SECONDS
    processes = sorted(int(name) for name in os.listdir(proc) if name.isascii() and name.isdecimal()) if wanted else []
    for pid in processes:
        if not wanted:
            break
        if time.monotonic() > deadline:
            source.problems.append("this host has so many open files that not every listening port's owner was found")
            break
        for target in _open_files(f"{proc}/{pid}/fd"):
            inode = wanted.pop(target, None)
            if inode is not None:
                owners[inode] = {"pid": pid, "process": source.attribute(f"/proc/{pid}/comm")}
    return owners


def _open_files(folder: str) -> set[str]:
    """Return what the handles of a process point to; nothing for one of another user or one that has ended."""
    targets = set()
    try:
        handles = os.listdir(folder)
    except OSError:
        return targets
    for handle in handles:
        try:
            targets.add(os.readlink(f"{folder}/{handle}"))
        except OSError:
            continue
    return targets
