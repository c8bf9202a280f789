# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import resource

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import memory
from hypothesis import given
from hypothesis import strategies as st

KIB, GIB = 1024, 1024**3
MEMINFO = """MemTotal:       16384000 kB
MemFree:         1000000 kB
MemAvailable:    8192000 kB
SwapTotal:       2048000 kB
SwapFree:        1024000 kB
HugePages_Total:      16
HugePages_Free:       12
Hugepagesize:       2048 kB
"""
WHOLE = {
    "total": 16384000 * KIB,
    "available": 8192000 * KIB,
    "swap_total": 2048000 * KIB,
    "swap_free": 1024000 * KIB,
    "hugepages_total": 16,
    "hugepages_free": 12,
    "hugepage_bytes": 2048 * KIB,
}


def test_memory(fake, source):
    fake("/proc/meminfo", MEMINFO)
    assert memory.read(source) == WHOLE
    assert source.problems == []


@pytest.mark.parametrize("content", [None, "", "MemTotal:", "MemTotal:       1638", "garbage\n" * 50, b"\xff" * 100])
def test_memory_that_is_not_told_is_a_problem(fake, source, content):
    if content is not None:
        fake("/proc/meminfo", content)
    assert memory.read(source) == memory.EMPTY
    assert "the memory of this host is not known" in source.problems


def test_meminfo_that_was_cut_off(fake, source):
    fake("/proc/meminfo", MEMINFO[: MEMINFO.index("SwapTotal") + 14])
    assert memory.read(source) == {**memory.EMPTY, "total": 16384000 * KIB, "available": 8192000 * KIB}


def test_a_count_that_was_cut_off_is_none(fake, source):
    fake("/proc/meminfo", MEMINFO[: MEMINFO.index("HugePages_Free") - 2])
    assert memory.read(source)["hugepages_total"] is None


def test_memory_of_which_is_not_told_how_much_is_available(fake, source):
    fake("/proc/meminfo", MEMINFO.replace("MemAvailable", "MemOther"))
    assert memory.read(source)["available"] == 0
    assert source.problems == ["/proc/meminfo does not tell how much memory is available"]


@pytest.mark.parametrize(
    ("limit", "used", "cache", "wanted"),
    [
        (4 * GIB, 1 * GIB, 0, (4 * GIB, 3 * GIB)),
        (4 * GIB, 3 * GIB, 2 * GIB, (4 * GIB, 3 * GIB)),  # pages of files are given back
        (4 * GIB, 5 * GIB, 0, (4 * GIB, 0)),
        (4 * GIB, 1 * GIB, 2 * GIB, (4 * GIB, 4 * GIB)),  # counters are read one after the other
        (15 * GIB, 1 * GIB, 0, (15 * GIB, 8192000 * KIB)),  # the host itself has less left
        (64 * GIB, 63 * GIB, 0, (16384000 * KIB, 8192000 * KIB)),  # more than the host has is no limit
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_the_cgroup(fake, source, version, limit, used, cache, wanted):
    fake("/proc/meminfo", MEMINFO)
    if version == 2:
        fake("/sys/fs/cgroup/memory.max", f"{limit}\n")
        fake("/sys/fs/cgroup/memory.current", f"{used}\n")
        fake("/sys/fs/cgroup/memory.stat", f"anon 5\ninactive_file {cache}\nactive_file 7\n")
    else:
        fake("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{limit}\n")
        fake("/sys/fs/cgroup/memory/memory.usage_in_bytes", f"{used}\n")
        fake("/sys/fs/cgroup/memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {cache}\n")
    found = memory.read(source)
    assert (found["total"], found["available"]) == wanted
    assert source.problems == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory.max", "max\n"),
        ("memory.max", ""),
        ("memory.max", "garbage"),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n"),  # what version 1 says for none
        ("memory/memory.limit_in_bytes", "-1\n"),
    ],
)
def test_a_cgroup_without_a_limit(fake, source, name, value):
    fake("/proc/meminfo", MEMINFO)
    fake(f"/sys/fs/cgroup/{name}", value)
    fake("/sys/fs/cgroup/memory.current", "1000\n")
    fake("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n")
    assert memory.read(source)["total"] == 16384000 * KIB


def node_meminfo(node: int, total: int) -> str:
    return f"Node {node} MemTotal:       {total} kB\nNode {node} MemFree:        5 kB\nNode {node} Mapped:   7 kB\n"


def test_numa_nodes_in_order_of_their_numbers(fake, source):
    for node in (0, 2, 10):
        fake(f"/sys/devices/system/node/node{node}/meminfo", node_meminfo(node, 1000 + node))
    fake("/sys/devices/system/node/online", "0,2,10\n")
    assert memory.numa(source) == {"nodes": 3, "memory_bytes": [1000 * KIB, 1002 * KIB, 1010 * KIB]}
    assert source.problems == []


@pytest.mark.parametrize("content", ["", "garbage", b"\xff\xfe", "Node 1 MemTotal:  12"])
def test_a_numa_node_whose_memory_is_not_told(fake, source, content):
    fake("/sys/devices/system/node/node0/meminfo", node_meminfo(0, 1000))
    fake("/sys/devices/system/node/node1/meminfo", content)
    assert memory.numa(source) == {"nodes": 2, "memory_bytes": [1000 * KIB, None]}
    assert source.problems == ["the memory of NUMA node 1 is not known"]


def test_a_kernel_without_numa(source):
    assert memory.numa(source) == {"nodes": 0, "memory_bytes": []}
    assert source.problems == []


def test_limits_of_this_process(monkeypatch):
    told = {resource.RLIMIT_MEMLOCK: (65536, resource.RLIM_INFINITY), resource.RLIMIT_NOFILE: (1024, 4096)}
    monkeypatch.setattr(memory.resource, "getrlimit", told.get)
    assert memory.limits() == {"memlock_soft": 65536, "memlock_hard": None, "nofile_soft": 1024, "nofile_hard": 4096}


def test_the_limits_that_this_process_really_has():
    found = memory.limits()
    assert all(value is None or value >= 0 for value in found.values())
    assert found["nofile_soft"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_this_machine(this_host):
    found = memory.read(this_host)
    assert 0 < found["available"] <= found["total"]
    assert 0 <= found["swap_free"] <= found["swap_total"]
    numa = memory.numa(this_host)
    assert len(numa["memory_bytes"]) == numa["nodes"]
    assert this_host.problems == []


@given(st.text() | st.builds(lambda cut, extra: MEMINFO[:cut] + extra, st.integers(0, len(MEMINFO)), st.text()))
def test_numbers_come_from_the_text_alone(text):
    for value in memory.parse_meminfo(text).values():
        assert str(value) in text or str(value // 1024) in text
