# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from pathlib import Path

import pytest
import yaml
from ansible_collections.baremetal.llm.plugins.module_utils.machine import host, network
from ansible_collections.baremetal.llm.plugins.modules import host_info
from hypothesis import given, settings
from hypothesis import strategies as st

TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n"
)
PARTS = {
    "/proc/meminfo": "MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\nSwapTotal:       2048000 kB\n",
    "/proc/cpuinfo": "vendor_id : y\nmodel name : x\nflags : avx2\n",
    "/proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n",
    "/proc/net/tcp": TCP,
    "/proc/net/if_inet6": "20010db8000000000000000000000001 02 40 00 80 lo\n",
    "/proc/self/mounts": "/dev/sda1 / ext4 rw 0 0\n",
    "/proc/modules": "nf_tables 372736 12 nft_compat, Live 0x0\n",
    "/proc/sys/vm/swappiness": "60\n",
    "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "/etc/hosts": f"127.0.1.1 {socket.gethostname()}\n",
    "/etc/environment": "https_proxy=http://user:secret@proxy:3128\n",
    "/sys/class/net/lo/mtu": "65536\n",
    "/sys/class/net/lo/type": "772\n",
    "/sys/class/infiniband/mlx5_0/ports/1/gids/0": "fe80:0000:0000:0000:0e42:a1ff:fe00:0001\n",
    "/sys/class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs/0": "lo\n",
    "/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       16384000 kB\n",
    "/sys/fs/cgroup/memory.max": "1000000\n",
    "/sys/fs/cgroup/memory.current": "1000\n",
    "/sys/fs/cgroup/memory.stat": "inactive_file 10\n",
}
KEYS = {
    "hostname", "hostname_addresses", "user", "os", "kernel", "sysctl", "thp", "selinux", "firewall", "cpu", "memory",
    "numa", "limits", "interfaces", "route_interface", "route_source", "proxies", "ports_in_use", "disks", "paths",
    "read_rate", "pythons", "libraries", "docker", "python_modules", "weights", "rdma", "rdma_nodes", "clock",
    "problems",
}  # fmt: skip


@pytest.fixture
def lay_out(fake, monkeypatch, tmp_path):
    """Function that lays out a host, with other ``content`` in one of its files, and returns its reader."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)

    def lay(**others: str | bytes) -> host.HostReader:
        for name, text in {**PARTS, **others}.items():
            fake(name, text)
        return host.HostReader(root=str(tmp_path))

    return lay


def test_a_host_that_tells_everything(lay_out):
    facts = lay_out().read([], [])
    assert set(facts) == KEYS
    assert facts["problems"] == []
    assert facts["hostname_addresses"] == ["127.0.1.1"]
    assert facts["os"] == {"id": "debian", "version": "12", "name": ""}
    assert facts["memory"]["total"] == 1_000_000
    assert facts["numa"] == {"nodes": 1, "memory_bytes": [16384000 * 1024]}
    assert (facts["route_interface"], facts["route_source"]) == ("eth0", "")
    assert facts["proxies"] == {"https_proxy": "proxy:3128"}
    assert [entry["port"] for entry in facts["ports_in_use"]] == [8000]
    assert facts["firewall"] == {"active": ["nftables"]}
    assert facts["rdma"][0]["netdevs"] == ["lo"]
    assert [entry["rdma"] for entry in facts["interfaces"] if entry["name"] == "lo"] == [["mlx5_0"]]
    assert facts["docker"] == {
        "client": "", "socket": False, "engine": None, "reason": "there is no /var/run/docker.sock", "images": {}
    }  # fmt: skip
    assert (facts["read_rate"], facts["pythons"], facts["libraries"], facts["paths"]) == (None, [], {}, {})


@given(data=st.data())
@settings(max_examples=80)
def test_whatever_the_kernel_prints_every_fact_is_there(lay_out, data):
    """Containers and compatibility layers print these files in ways of their own."""
    others = {}
    for name, text in PARTS.items():
        how = data.draw(st.sampled_from(["as it is", "as it is", "cut off", "one letter", "other bytes"]))
        content = text.encode()
        if how == "cut off":
            content = content[: data.draw(st.integers(0, len(content)))]
        elif how == "one letter":
            position = data.draw(st.integers(0, len(content) - 1))
            content = content[:position] + data.draw(st.binary(min_size=1, max_size=1)) + content[position + 1 :]
        elif how == "other bytes":
            content = data.draw(st.binary(max_size=40))
        others[name] = content
    # The name of this machine is not to be asked for: it may be gone from the file.
    others["/etc/hosts"] = PARTS["/etc/hosts"]
    facts = lay_out(**others).read([], [])
    assert set(facts) == KEYS
    assert all(isinstance(problem, str) for problem in facts["problems"])
    json.dumps(facts)


@pytest.mark.parametrize(
    ("name", "good", "bad", "fact", "empty"),
    [
        ("/proc/net/tcp", "0100007F", "01", "ports_in_use", []),
        ("/proc/net/tcp", ":1F40", ":PORT", "ports_in_use", []),
        ("/proc/net/route", "100", "many", "route_interface", ""),
        ("/proc/self/mounts", "/ ext4 rw 0 0", "", "disks", []),
        ("/etc/os-release", "=", "", "os", {"id": "", "version": "", "name": ""}),
    ],
)
def test_what_cannot_be_understood_is_empty_and_a_problem(lay_out, name, good, bad, fact, empty):
    facts = lay_out(**{name: PARTS[name].replace(good, bad)}).read([], [])
    assert facts[fact] == empty
    assert len(facts["problems"]) == 1
    assert facts["memory"]["total"] == 1_000_000  # the rest is read


def test_a_host_where_nothing_can_be_read(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments: [])
    facts = host.HostReader(root=str(tmp_path / "none")).read([str(tmp_path), ""], [])
    assert set(facts) == KEYS
    assert list(facts["paths"]) == [str(tmp_path)]
    assert len(facts["problems"]) >= 4


def test_a_part_that_fails_is_empty(lay_out, monkeypatch):
    def fail():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(network.socket, "if_nameindex", fail)
    facts = lay_out().read([], [])
    assert facts["interfaces"] == []
    assert facts["problems"] == ["interfaces of this host cannot be understood: [Errno 24] Too many open files"]


def test_pythons_are_looked_for_when_that_is_wanted(lay_out, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    reader = lay_out()
    assert reader.read([], [])["pythons"] == []
    found = reader.read([], [], find_pythons=True)["pythons"]
    assert ".".join(map(str, sys.version_info[:3])) in [python["version"] for python in found]
    assert reader.read([], [sys.executable])["pythons"][0]["asked"] == sys.executable


def test_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "weights").write_bytes(b"x" * 100_000)
    facts = host.HostReader().read(
        [str(tmp_path), "/no/such/path"],
        [],
        ["libc.so.6", "libnosuch.so.1"],
        peer="127.0.0.1",
        rate={"path": str(tmp_path), "bytes": 1 << 20, "seconds": 60.0},
    )
    assert facts["user"] == {"uid": os.geteuid()}
    assert facts["paths"]["/no/such/path"]["nearest"] == "/"
    assert facts["paths"][str(tmp_path)]["bytes"] == 100_000
    assert facts["read_rate"]["bytes"] == 100_000
    assert facts["libraries"] == {"libc.so.6": True, "libnosuch.so.1": False}
    assert (facts["route_interface"], facts["route_source"]) == ("lo", "127.0.0.1")
    assert 0 < facts["memory"]["available"] <= facts["memory"]["total"]
    assert abs(facts["clock"]["epoch_s"] - time.time()) < 3600
    json.dumps(facts)


def test_the_module_says_everything_that_is_returned():
    documented = set(yaml.safe_load(host_info.RETURN))
    assert documented == KEYS | {"service"}


def test_the_module_names_every_part_that_is_returned(lay_out):
    facts, documented = lay_out().read([str(Path(__file__).parent)], []), yaml.safe_load(host_info.RETURN)
    for name, value in facts.items():
        entry = value[0] if isinstance(value, list) and value else value
        keys = set(entry) if isinstance(entry, dict) and name not in ("paths", "proxies") else set()
        text = json.dumps(documented[name]["description"])
        assert keys <= set(re.findall(r"C\(([^)]+)\)", text)), name
