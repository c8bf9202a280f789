# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory of a host: what there is, huge pages, NUMA nodes, and the limits of this process."""

from __future__ import annotations

import re
import resource

from .source import Source, number

_NODES = "/sys/devices/system/node"
EMPTY = {
    "total": 0,
    "available": 0,
    "swap_total": 0,
    "swap_free": None,
    "hugepages_total": None,
    "hugepages_free": None,
    "hugepage_bytes": None,
}


def read(source: Source) -> dict:
    """Return memory, swap (bytes) and huge pages (count, bytes of one), bounded by the cgroup where it has a limit."""
    values = parse_meminfo(source.text("/proc/meminfo"))
    total, available = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    if not total:
        source.problems.append("the memory of this host is not known")
    elif "MemAvailable" not in values:
        source.problems.append("/proc/meminfo does not tell how much memory is available")
    limit = _cgroup_limit(source)
    if limit and limit["limit"] < total:
        total = limit["limit"]
        available = min(available, max(0, limit["limit"] - limit["used"]))
    return {
        "total": total,
        "available": available,
        "swap_total": values.get("SwapTotal", 0),
        "swap_free": values.get("SwapFree"),
        "hugepages_total": values.get("HugePages_Total"),
        "hugepages_free": values.get("HugePages_Free"),
        "hugepage_bytes": values.get("Hugepagesize"),
    }


def parse_meminfo(text: str) -> dict[str, int]:
    """Return {name: bytes, or a count for lines without a unit} of the lines that are whole."""
    return {
        key: int(value) * (1024 if unit else 1)
        for key, value, unit in re.findall(r"^(?:Node +[0-9]+ +)?(\w+):[ \t]+([0-9]{1,20})( kB)?\n", text, re.M)
    }


def _cgroup_limit(source: Source) -> dict | None:
    """Return {limit, used} of the memory cgroup at the root of what this process sees (containers), if any.

    Pages of files count as used there but are given back when needed, so they are taken off.
    """
    for folder, limit, used, cache in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = (number(source.attribute(f"{folder}/{name}")) for name in (limit, used))
        if most is not None and now is not None:
            found = re.search(rf"^{cache} ([0-9]{{1,20}})$", source.attribute(f"{folder}/memory.stat"), re.M)
            return {"limit": most, "used": max(0, now - int(found.group(1) if found else 0))}
    return None


def numa(source: Source) -> dict:
    """Return {nodes, memory_bytes[]}, in order of the nodes' numbers; no nodes where the kernel does not tell."""
    numbers = sorted(int(name[4:]) for name in source.names(_NODES) if re.fullmatch(r"node[0-9]{1,5}", name))
    totals = [parse_meminfo(source.head(f"{_NODES}/node{node}/meminfo", 1 << 16)).get("MemTotal") for node in numbers]
    for node, total in zip(numbers, totals):
        if total is None:
            source.problems.append(f"the memory of NUMA node {node} is not known")
    return {"nodes": len(numbers), "memory_bytes": totals}


def limits() -> dict:
    """Return the limits of this process, memlock in bytes and nofile as a count; None is unlimited."""
    found = {}
    for name, which in (("memlock", resource.RLIMIT_MEMLOCK), ("nofile", resource.RLIMIT_NOFILE)):
        for kind, value in zip(("soft", "hard"), resource.getrlimit(which)):
            found[f"{name}_{kind}"] = None if value == resource.RLIM_INFINITY else value
    return found
