# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import host
from hypothesis import given, settings
from hypothesis import strategies as st

KIB, GIB = 1024, 1024**3
MEMINFO = """MemTotal:       16384000 kB
MemFree:         1000000 kB
MemAvailable:    8192000 kB
SwapTotal:       2048000 kB
HugePages_Total:       0
"""
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
TCP_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def tcp_line(number: int, address: str, port: int, state: str, inode: int) -> str:
    rest = "00000000:00000000 00:00000000 00000000     0        0"
    return f"   {number}: {address}:{port:04X} {'0' * len(address)}:0000 {state} {rest} {inode} 1 0000 100 0 0 10 0\n"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Function that writes a file of a fake /proc or /sys, such as fake("proc/meminfo", "...")."""
    for name in ("proc", "sys"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(host, name.upper(), str(tmp_path / name))

    def write(name: str, content: str | bytes) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


@pytest.fixture
def reader():
    return host.HostReader(timeout=20)


# Memory -----------------------------------------------------------------------------------------------------------


def test_memory(fake, reader):
    fake("proc/meminfo", MEMINFO)
    assert reader.memory() == {
        "total": 16384000 * KIB,
        "available": 8192000 * KIB,
        "swap_total": 2048000 * KIB,
    }
    assert reader.problems == []


@pytest.mark.parametrize("content", [None, "", "MemTotal:", "MemTotal:       1638", "garbage\n" * 50, b"\xff" * 100])
def test_memory_that_is_not_told_is_a_problem(fake, reader, content):
    if content is not None:
        fake("proc/meminfo", content)
    assert reader.memory() == {"total": 0, "available": 0, "swap_total": 0}
    assert "the memory of this host is not known" in reader.problems


def test_meminfo_that_was_cut_off(fake, reader):
    fake("proc/meminfo", MEMINFO[: MEMINFO.index("SwapTotal") + 14])
    assert reader.memory() == {"total": 16384000 * KIB, "available": 8192000 * KIB, "swap_total": 0}


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
def test_limits_of_the_cgroup(fake, reader, version, limit, used, cache, wanted):
    fake("proc/meminfo", MEMINFO)
    if version == 2:
        fake("sys/fs/cgroup/memory.max", f"{limit}\n")
        fake("sys/fs/cgroup/memory.current", f"{used}\n")
        fake("sys/fs/cgroup/memory.stat", f"anon 5\ninactive_file {cache}\nactive_file 7\n")
    else:
        fake("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{limit}\n")
        fake("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{used}\n")
        fake("sys/fs/cgroup/memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {cache}\n")
    memory = reader.memory()
    assert (memory["total"], memory["available"]) == wanted
    assert reader.problems == []


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
def test_a_cgroup_without_a_limit(fake, reader, name, value):
    fake("proc/meminfo", MEMINFO)
    fake(f"sys/fs/cgroup/{name}", value)
    fake("sys/fs/cgroup/memory.current", "1000\n")
    fake("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n")
    assert reader.memory()["total"] == 16384000 * KIB


# Processor --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "model", "flags"),
    [
        (
            "model name\t: Intel X\nflags\t\t: sse avx2 avx512f\n\nmodel name\t: other\n",
            "Intel X",
            ["avx2", "avx512f", "sse"],
        ),
        ("processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd01\n", "0xd01", ["asimd", "fp"]),
        ("", "", []),
        ("flags", "", []),
    ],
)
def test_processor(fake, reader, text, model, flags):
    fake("proc/cpuinfo", text)
    cpu = reader.cpu()
    assert (cpu["model"], cpu["flags"]) == (model, flags)
    assert cpu["cores"] == len(os.sched_getaffinity(0))


# Network ----------------------------------------------------------------------------------------------------------


def test_the_default_route_of_the_lowest_metric(fake, reader):
    fake("proc/net/route", ROUTES)
    assert reader.route_interface() == "eth0"


@pytest.mark.parametrize(
    "text", ["", ROUTES.splitlines()[0], ROUTES[:100], "\n".join(ROUTES.splitlines()[3:]), "x y z\n" * 3]
)
def test_no_default_route(fake, reader, text):
    fake("proc/net/route", text)
    assert reader.route_interface() == ""


def test_listening_ports_of_both_families(fake, reader, tmp_path):
    fake(
        "proc/net/tcp",
        TCP_HEAD
        + tcp_line(0, "0100007F", 8000, "0A", 111)
        + tcp_line(1, "00000000", 22, "0A", 112)
        + tcp_line(2, "0A0200C0", 8001, "01", 113)  # a connection, not a listener
        + tcp_line(3, "0A0200C0", 8002, "06", 0),
    )
    fake(
        "proc/net/tcp6",
        TCP_HEAD
        + tcp_line(0, "0" * 32, 443, "0A", 114)
        + tcp_line(1, "00000000000000000000000001000000", 631, "0A", 115)
        + tcp_line(2, "0000000000000000FFFF00000A0200C0", 9000, "0A", 116)
        + tcp_line(3, "B80D0120000000000000000001000000", 9001, "0A", 117),
    )
    (tmp_path / "proc" / "42" / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "42" / "fd" / "3").symlink_to("socket:[111]")
    (tmp_path / "proc" / "42" / "fd" / "4").symlink_to("/dev/null")
    fake("proc/42/comm", "vllm serve\n")
    (tmp_path / "proc" / "43" / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "43" / "fd" / "9").symlink_to("socket:[114]")  # ended since: no comm
    (tmp_path / "proc" / "44").mkdir()  # of another user: no fd
    unknown = {"pid": None, "process": ""}
    assert reader.ports_in_use() == [
        {"port": 22, "address": "0.0.0.0", **unknown},
        {"port": 443, "address": "::", "pid": 43, "process": ""},
        {"port": 631, "address": "::1", **unknown},
        {"port": 8000, "address": "127.0.0.1", "pid": 42, "process": "vllm serve"},
        {"port": 9000, "address": "::ffff:192.0.2.10", **unknown},
        {"port": 9001, "address": "2001:db8::1", **unknown},
    ]


@pytest.mark.parametrize("text", ["", TCP_HEAD, TCP_HEAD + "   0: 0100007F:1F40 00000000:0000 0A 0000"])
def test_tables_that_are_empty_or_cut_off(fake, reader, text):
    fake("proc/net/tcp", text)
    assert reader.ports_in_use() == []


def test_interfaces(fake, reader, monkeypatch, tmp_path):
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(2, "net-x"), (1, "lo")])
    monkeypatch.setattr(host.HostReader, "_addresses4", staticmethod(lambda name: [name]))
    fake("proc/net/if_inet6", "20010db8000000000000000000000001 02 40 00 80 net-x\nshort line\n")
    for name, value in (("operstate", "up"), ("carrier", "1"), ("mtu", "9000"), ("speed", "100000")):
        fake(f"sys/class/net/net-x/{name}", value + "\n")
    (tmp_path / "drivers" / "mlx5_core").mkdir(parents=True)
    (tmp_path / "sys" / "class" / "net" / "net-x" / "device").mkdir()
    (tmp_path / "sys" / "class" / "net" / "net-x" / "device" / "driver").symlink_to(tmp_path / "drivers" / "mlx5_core")
    fake("sys/class/net/lo/operstate", "unknown\n")
    fake("sys/class/net/lo/speed", "-1\n")
    assert reader.interfaces() == [
        {
            "name": "lo",
            "ipv4": ["lo"],
            "ipv6": [],
            "up": True,
            "carrier": False,
            "mtu": 0,
            "speed_mbps": None,
            "driver": "",
        },
        {
            "name": "net-x",
            "ipv4": ["net-x"],
            "ipv6": [{"address": "2001:db8::1", "prefix": 64}],
            "up": True,
            "carrier": True,
            "mtu": 9000,
            "speed_mbps": 100000,
            "driver": "mlx5_core",
        },
    ]


def test_rdma(fake, reader, tmp_path):
    assert reader.rdma() == []
    fake("sys/class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n")
    fake("sys/class/infiniband/mlx5_0/ports/1/link_layer", "Ethernet\n")
    (tmp_path / "sys" / "class" / "infiniband" / "hns_0").mkdir()
    assert reader.rdma() == [
        {"name": "hns_0", "ports": []},
        {"name": "mlx5_0", "ports": [{"port": "1", "state": "4: ACTIVE", "link_layer": "Ethernet", "rate": ""}]},
    ]


# Disks and paths --------------------------------------------------------------------------------------------------


def test_disks(fake, reader, monkeypatch):
    asked = []

    def usage(mount):
        asked.append(mount)
        if mount == "/gone":
            raise FileNotFoundError(2, "gone")
        return SimpleNamespace(total=100, free=40)

    monkeypatch.setattr(host.shutil, "disk_usage", usage)
    fake(
        "proc/self/mounts",
        "proc /proc proc rw 0 0\n"
        "/dev/sda1 / ext4 rw 0 0\n"
        "/dev/sdb1 /mnt/my\\040disk\\011\\134x xfs rw 0 0\n"
        "server:/export /nfs nfs4 rw 0 0\n"
        "/dev/sdc1 /gone ext4 rw 0 0\n"
        "overlay / overlay rw 0 0\n"
        "cgroup /sys/fs/cgroup cgroup2 rw 0 0\n",
    )
    assert reader.disks() == [
        {"mount": "/", "device": "overlay", "fstype": "overlay", "total": 100, "free": 40},
        {"mount": "/mnt/my disk\t\\x", "device": "/dev/sdb1", "fstype": "xfs", "total": 100, "free": 40},
        {"mount": "/nfs", "device": "server:/export", "fstype": "nfs4", "total": 100, "free": 40},
    ]
    assert "/proc" not in asked


def test_a_path_that_is_a_folder(reader, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "f").write_bytes(b"12345")
    (tmp_path / "a" / "b" / "g").write_bytes(b"123")
    (tmp_path / "a" / "loop").symlink_to(".")
    found = reader.path(str(tmp_path / "a"))
    assert found["bytes"] == 8
    assert (found["kind"], found["nearest"], found["writable"]) == ("folder", str(tmp_path / "a"), True)
    assert 0 < found["free"] <= found["total"]
    assert found["device"] == os.stat(tmp_path).st_dev


@pytest.mark.parametrize("name", ["none", "none/at/all", "file/below", "broken"])
def test_a_path_where_nothing_is(reader, tmp_path, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").symlink_to("nowhere")
    found = reader.path(str(tmp_path / name))
    nearest = tmp_path / "file" if name.startswith("file") else tmp_path
    assert (found["kind"], found["nearest"], found["bytes"]) == ("nothing", str(nearest), 0)
    assert found["writable"] == (nearest == tmp_path)
    assert found["free"] > 0


def test_a_path_that_is_a_file(reader, tmp_path):
    (tmp_path / "file").write_text("x")
    assert reader.path(str(tmp_path / "file"))["kind"] == "file"


def test_a_file_system_that_does_not_answer_is_a_problem(reader, tmp_path, monkeypatch):
    def stale(_path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(host.shutil, "disk_usage", stale)
    found = reader.path(str(tmp_path))
    assert (found["total"], found["free"]) == (0, 0)
    assert reader.problems == [f"the file system of {tmp_path} cannot be asked: Stale file handle"]


# Pythons ----------------------------------------------------------------------------------------------------------

TOLD = {"path": "/usr/bin/python3.11", "version": "3.11.7", "implementation": "CPython", "makes_venv": True}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Function that puts a shell script on a PATH that holds nothing else but the shell's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, script: str) -> str:
        path = folder / name
        path.write_text("#!/bin/sh\n" + script + "\n")
        path.chmod(0o755)
        return str(path)

    return make


def telling(told: object) -> str:
    return f"echo '{json.dumps(told)}'"


def test_pythons_on_the_path_in_order_and_each_once(program, reader):
    eleven = program("python3.11", telling(TOLD))
    program("python3", telling(TOLD))
    nine = program("python3.9", telling(dict(TOLD, path="/usr/bin/python3.9", version="3.9.18")))
    assert reader.pythons([]) == [
        dict(TOLD, asked=eleven),
        dict(TOLD, asked=nine, path="/usr/bin/python3.9", version="3.9.18"),
    ]
    assert reader.problems == []


def test_a_python_that_was_asked_for_comes_first_under_the_name_it_was_asked_by(program, reader):
    on_path = program("python3.11", telling(TOLD))
    mine = program("mine", telling(TOLD))
    assert [python["asked"] for python in reader.pythons([mine])] == [mine, on_path]


def test_a_python_that_was_asked_for_and_is_not_there_is_a_problem(program, reader):
    assert reader.pythons(["/no/such/python"]) == []
    assert len(reader.problems) == 1
    assert "/no/such/python" in reader.problems[0]


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "echo boom >&2; exit 3",
        "true",
        "echo garbage",
        "printf '\\377\\376'",
        "kill -9 $$",
        "echo '[]'",
        "echo 5",
        "echo '{}'",
        "head -c 100000 /dev/zero | tr '\\0' '['",
        telling({"path": "/x"}),
        telling(dict(TOLD, version=None)),
        telling(dict(TOLD, version=3.11)),
        telling(dict(TOLD, path=["/x"])),
        telling(dict(TOLD, makes_venv="no")),
        telling(dict(TOLD, implementation={})),
        telling(TOLD) + "; echo and more",
        telling(TOLD) + "; exit 1",
    ],
)
def test_pythons_that_lie_or_print_garbage(program, reader, script):
    script = "PATH=/usr/bin:/bin\n" + script
    assert reader.pythons([program("mine", script)]) == []
    assert len(reader.problems) == 1
    assert "is no Python that answers: " in reader.problems[0]
    assert not reader.problems[0].endswith(": ")  # it says why
    reader.problems.clear()
    program("python3.11", script)
    assert reader.pythons([]) == []
    assert reader.problems == []  # nobody asked for this one


def test_a_python_that_tells_more_than_it_was_asked(program, reader):
    mine = program("mine", telling(dict(TOLD, asked="/other", secret="x")))
    assert reader.pythons([mine]) == [dict(TOLD, asked=mine)]


def test_a_python_that_hangs(program):
    reader = host.HostReader(timeout=0.05)
    assert reader.pythons([program("mine", "PATH=/usr/bin:/bin; sleep 600")]) == []
    assert reader.problems[0].endswith("did not end within 0.05 s")


def test_this_python_tells_the_truth(reader, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (python,) = reader.pythons([sys.executable])
    assert python["asked"] == sys.executable
    assert python["version"] == ".".join(map(str, sys.version_info[:3]))
    assert python["implementation"] == "CPython"
    # Outside of any virtual environment: what is made from it does not break with the environment of the tests.
    query = "import sys; print(sys.prefix == sys.base_prefix)"
    asked = subprocess.run([python["path"], "-I", "-c", query], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "True"


# All of it --------------------------------------------------------------------------------------------------------

PARTS = {
    "proc/meminfo": MEMINFO,
    "proc/cpuinfo": "model name : x\nflags : avx2\n",
    "proc/net/route": ROUTES,
    "proc/net/tcp": TCP_HEAD + tcp_line(0, "0100007F", 8000, "0A", 111),
    "proc/net/tcp6": TCP_HEAD + tcp_line(0, "0" * 32, 443, "0A", 114),
    "proc/net/if_inet6": "20010db8000000000000000000000001 02 40 00 80 lo\n",
    "proc/self/mounts": "/dev/sda1 / ext4 rw 0 0\n",
    "sys/class/net/lo/mtu": "65536\n",
    "sys/fs/cgroup/memory.max": "1000000\n",
    "sys/fs/cgroup/memory.current": "1000\n",
    "sys/fs/cgroup/memory.stat": "inactive_file 10\n",
}
KEYS = {
    "libraries",
    "hostname", "user", "kernel", "cpu", "memory", "interfaces", "route_interface", "ports_in_use", "disks", "paths",
    "pythons", "docker", "rdma", "clock", "problems",
}  # fmt: skip


@given(data=st.data())
@settings(max_examples=80)
def test_whatever_the_kernel_prints_every_fact_is_there(fake, monkeypatch, tmp_path, data):
    """Containers and compatibility layers print these files in ways of their own."""
    monkeypatch.setenv("PATH", str(tmp_path))
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
        fake(name, content)
    reader = host.HostReader()
    facts = reader.read([], [])
    assert set(facts) == KEYS
    assert all(isinstance(problem, str) for problem in facts["problems"])
    json.dumps(facts)


@pytest.mark.parametrize(
    ("name", "content", "fact", "empty"),
    [
        (
            "proc/net/tcp",
            TCP_HEAD + tcp_line(0, "0100007F", 8000, "0A", 1).replace("0100007F", "01"),
            "ports_in_use",
            [],
        ),
        (
            "proc/net/tcp",
            TCP_HEAD + tcp_line(0, "0100007F", 8000, "0A", 1).replace(":1F40", ":PORT"),
            "ports_in_use",
            [],
        ),
        ("proc/net/route", ROUTES.replace("100", "many"), "route_interface", ""),
        ("proc/self/mounts", "/dev/sda1\n", "disks", []),
        ("sys/class/net/lo/mtu", "large\n", "interfaces", []),
    ],
)
def test_a_part_that_cannot_be_understood_is_empty_and_a_problem(
    fake, monkeypatch, tmp_path, name, content, fact, empty
):
    monkeypatch.setenv("PATH", str(tmp_path))
    for part, text in PARTS.items():
        fake(part, text)
    fake(name, content)
    facts = host.HostReader().read([], [])
    assert facts[fact] == empty
    assert [problem for problem in facts["problems"] if fact in problem]
    assert facts["memory"]["total"] == 1_000_000  # the rest is read


def test_a_host_where_nothing_can_be_read(fake, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = host.HostReader().read([str(tmp_path), ""], [])
    assert set(facts) == KEYS
    assert list(facts["paths"]) == [str(tmp_path)]
    assert len(facts["problems"]) >= 4


def test_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        facts = host.HostReader().read([str(tmp_path), "/no/such/path"], [])
        port = listener.getsockname()[1]
    loopback = next(interface for interface in facts["interfaces"] if interface["name"] == "lo")
    assert loopback["ipv4"] == [{"address": "127.0.0.1", "prefix": 8}]
    (own,) = [entry for entry in facts["ports_in_use"] if entry["port"] == port and entry["address"] == "127.0.0.1"]
    assert own["pid"] == os.getpid()
    assert own["process"]
    assert 0 < facts["memory"]["available"] <= facts["memory"]["total"]
    assert facts["cpu"]["cores"] >= 1 and facts["cpu"]["flags"]
    assert facts["kernel"]["release"] == os.uname().release
    assert facts["user"] == {"uid": os.geteuid()}
    assert facts["paths"]["/no/such/path"]["nearest"] == "/"
    assert any(disk["mount"] == "/" for disk in facts["disks"])
    assert abs(facts["clock"]["epoch_s"] - time.time()) < 3600
    json.dumps(facts)
