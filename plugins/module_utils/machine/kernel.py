# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel and distribution of a host, and the kernel's settings that serving depends on."""

from __future__ import annotations

import os
import re

from .source import Source, number

_SYSCTL_NUMBERS = ("vm.swappiness", "kernel.numa_balancing", "vm.overcommit_memory")
_SYSCTL_TEXTS = ("net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports")


def read(source: Source) -> dict:
    """Return release, machine (uname -m), C library, and whether modules can be built for this kernel."""
    name = os.uname()
    return {
        "release": name.release,
        "machine": name.machine,
        "libc": _libc(),
        "headers": source.exists(f"/lib/modules/{name.release}/build"),
    }


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # another C library than glibc does not know the name
        return ""


def sysctl(source: Source) -> dict:
    """Return the settings by name: numbers, and lists of ports as text; None for one that this kernel has not."""
    found: dict[str, int | str | None] = {}
    for name in _SYSCTL_NUMBERS:
        text = source.attribute(_sysctl_path(name))
        found[name] = number(text)
        if text and found[name] is None:
            source.problems.append(f"{name} is set to {text[:40]!r}, which is no number")
    for name in _SYSCTL_TEXTS:
        there = source.exists(_sysctl_path(name))
        found[name] = " ".join(source.attribute(_sysctl_path(name)).split()) if there else None
    return found


def _sysctl_path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def thp(source: Source) -> str:
    """Return the mode of transparent huge pages: always, madvise or never; empty where the kernel has none."""
    chosen = re.search(r"\[(always|madvise|never)\]", source.attribute("/sys/kernel/mm/transparent_hugepage/enabled"))
    return chosen.group(1) if chosen else ""


def distribution(source: Source) -> dict:
    """Return {id, version, name} of the distribution, empty where /etc/os-release does not tell."""
    told = parse_os_release(source.head("/etc/os-release", 1 << 16) or source.head("/usr/lib/os-release", 1 << 16))
    if not told:
        source.problems.append("/etc/os-release does not tell which distribution this is")
    return {
        "id": told.get("ID", ""),
        "version": told.get("VERSION_ID", ""),
        "name": told.get("PRETTY_NAME") or told.get("NAME", ""),
    }


def parse_os_release(text: str) -> dict[str, str]:
    """Return the NAME=value lines of a file like /etc/os-release or /etc/environment, without quotes."""
    found = {}
    for line in text.split("\n"):
        setting = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", line)
        if setting:
            value = setting.group(2).strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found[setting.group(1)] = value[1:-1] if quoted else value
    return found
