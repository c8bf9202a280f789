# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real hosts: what is up, what a snapshot sees, and that nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fleet
import pytest
import yaml
from fleet import lifecycle, within
from fleet.programs import started

ROOT = Path(__file__).resolve().parents[3]
STATES = ROOT / "tests" / "testbed" / "states"
PROGRAM = ROOT / "tests" / "testbed" / "fleet.py"
HOSTS = {
    "node-1": {
        "interfaces": [
            {"name": "eth1", "address": "10.9.9.1", "mtu": 9000, "bridge_mtu": 4000},
            {"name": "spare", "address": "10.9.8.1", "down": True},
        ],
        "files": {
            "/etc/marker": {"content": "one\n", "mode": "0640"},
            "/sys/bus/pci/devices/0000:c1:00.0/vendor": "0x19e5\n",
            "/sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
            "/proc/driver/nvidia/version": "NVRM version: 1\n",
            "/proc/version": "Linux version 5.10\n",
            "/dev/davinci0": "",
        },
    },
    "node-2": {"eth0": {"name": "ens3f0", "mtu": 1400}, "hostname": "second.example"},
    "node-3": {"commands_after": [["ip", "route", "add", "blackhole", "10.8.8.0/24"]]},
}


@pytest.fixture(scope="module")
def place(make_place):
    """A fleet of three hosts that is up."""
    place = make_place("a")
    try:
        fleet.up(place.describe(HOSTS, groups={"serving": ["node-1", "node-2"]}), place.dir)
        yield place
    finally:
        fleet.down(place.dir)


@pytest.fixture
def other(make_place):
    """Folder, name and network for one more fleet, taken down at the end."""
    place = make_place("b")
    yield place
    fleet.down(place.dir)


def ssh_words(place) -> list[str]:
    return [*json.loads((place.dir / "fleet.json").read_text(encoding="utf-8"))["ssh"], "-o", "BatchMode=yes"]


def ssh(place, host: str, command: str) -> subprocess.CompletedProcess:
    argv = [*ssh_words(place), f"root@{fleet.hosts(place.dir)[host]['address']}", command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def said(place, host: str, command: str) -> str:
    done = ssh(place, host, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def program(*arguments: str | Path) -> subprocess.CompletedProcess:
    argv = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def traces(place) -> list[str]:
    """Whatever the machine still has of a fleet."""
    commands = (["ip", "netns", "list"], ["ip", "-o", "link"], ["ip", "-o", "address"], ["ip", "route"])
    found = [line for argv in commands for line in subprocess.check_output(argv, text=True).splitlines()]
    found = [line for line in found if f"{place.name}-" in line or place.net in line]
    found += [line for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines() if str(place.dir) in line]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(place.dir).encode() in (entry / "cmdline").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode())
    claims = lifecycle.CLAIMS
    found += [str(path) for path in claims.iterdir() if os.readlink(path) == str(place.dir)] if claims.is_dir() else []
    return found + [str(path) for path in place.dir.glob("*")]


def machine() -> tuple:
    """Interfaces, their addresses and the routes of the machine, without those of test hosts."""
    links = json.loads(subprocess.check_output(["ip", "-j", "address"]))
    told = [
        (link["ifname"], link["mtu"], link["flags"], [(one["local"], one["prefixlen"]) for one in link["addr_info"]])
        for link in links
        if not link["ifname"].endswith("-ctl")
    ]
    routes = subprocess.check_output(["ip", "route"], text=True).splitlines()
    return told, [line for line in routes if "-ctl " not in line]


def test_a_reboot_ends_all_processes_and_keeps_the_disks(make_place):
    place = make_place("c")
    content = {"disks": {"/data": "1T"}, "commands_after": [["ip", "route", "replace", "blackhole", "10.8.8.0/24"]]}
    try:
        fleet.up(place.describe({"h1": content, "h2": {}}), place.dir)
        said(place, "h1", "echo kept > /etc/kept; echo kept > /data/kept; echo gone > /run/gone; echo gone > /tmp/gone")
        said(place, "h1", "setsid sleep 1000 > /dev/null 2>&1 < /dev/null & ip route del blackhole 10.8.8.0/24")
        before, other = fleet.hosts(place.dir)["h1"], fleet.hosts(place.dir)["h2"]
        after = fleet.reboot(before)
        assert after == fleet.hosts(place.dir)["h1"]
        assert (after["pid"], after["up"]) != (before["pid"], False)
        assert not within.is_up(before)
        assert fleet.hosts(place.dir)["h2"] == other
        assert said(
            place, "h1", "cat /etc/kept /data/kept; ls /run /tmp; df --output=size -h /data | tail -1"
        ).split() == [
            *("kept", "kept", "/run:", "lock", "sshd", "/tmp:", "1.0T"),
        ]
        assert [process["argv"][0].split()[0] for process in fleet.snapshot(after)["processes"]] == ["sshd:"]
        assert "blackhole 10.8.8.0/24" in said(place, "h1", "ip route")
        fleet.crash(after)
        assert not fleet.hosts(place.dir)["h1"]["up"]
        fleet.crash(after)
        assert program("reboot", "--dir", place.dir, "h1", "h2").returncode == 0
        assert all(host["up"] for host in fleet.hosts(place.dir).values())
        assert program("crash", "--dir", place.dir, "h3").stderr == "fleet: the fleet has no host h3\n"
    finally:
        fleet.down(place.dir)
    assert traces(place) == []
    with pytest.raises(fleet.FleetError, match="no host h1 is up"):
        fleet.reboot(after)


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# A fleet that is up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "hostname"), [("node-1", "node-1"), ("node-2", "second.example"), ("node-3", "node-3")]
)
def test_ssh_by_key_sees_the_hosts_name(place, host, hostname):
    assert (
        said(place, host, "hostname; cat /etc/hostname; readlink /proc/1/exe")
        == f"{hostname}\n{hostname}\n/usr/sbin/sshd"
    )


def test_ssh_refuses_a_host_with_another_key(place, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    other_key = (tmp_path / "key.pub").read_text(encoding="ascii")
    (tmp_path / "known").write_text(f"{place.net}.1 {other_key}", encoding="ascii")
    argv = ["ssh", "-i", str(place.dir / "keys/user_key"), "-o", f"UserKnownHostsFile={tmp_path / 'known'}"]
    argv += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", f"root@{place.net}.1", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 255
    assert "IDENTIFICATION HAS CHANGED" in done.stderr


def test_hosts_know_and_reach_each_other(place):
    command = "python3 -c 'import socket; print(socket.create_connection((\"node-2\", 22), 5).recv(4))'"
    assert said(place, "node-1", command) == "b'SSH-'"


def test_files_of_a_host_are_its_own(place):
    said(place, "node-1", "echo 1 > /srv/only-here")
    assert said(place, "node-1", "cat /srv/only-here; cat /etc/marker; stat -c %a /etc/marker") == "1\none\n640"
    assert ssh(place, "node-2", "cat /srv/only-here /etc/marker").returncode == 1
    assert not Path("/srv/only-here").exists()
    assert said(place, "node-2", "ls -A /root /home /tmp /var/tmp") == "/home:\n\n/root:\n\n/tmp:\n\n/var/tmp:"


def test_processes_of_a_host_are_its_own(place):
    assert len(said(place, "node-1", "ls -d /proc/[0-9]*").split()) < 10
    assert said(place, "node-3", "ls /sys/class/net; cat /proc/self/mounts | grep -c fleet-; true") == "eth0\nlo\n0"


def test_interfaces(place):
    assert said(place, "node-1", "cd /sys/class/net; cat eth1/mtu spare/operstate eth0/operstate") == "9000\ndown\nup"
    assert said(place, "node-2", "ls /sys/class/net; cat /sys/class/net/ens3f0/mtu") == "ens3f0\nlo\n1400"
    addresses = said(place, "node-1", "ip -o -4 address show")
    assert "10.9.9.1/24" in addresses
    assert "10.9.8.1/24" in addresses
    assert "via" in said(place, "node-2", "ip route show default dev ens3f0")
    assert "blackhole 10.8.8.0/24" in said(place, "node-3", "ip route")
    port = fleet.hosts(place.dir)["node-1"]["interfaces"][1]["port"]
    link = json.loads(subprocess.check_output(["ip", "-n", f"{place.name}-sw", "-j", "link", "show", port]))
    assert (link[0]["mtu"], link[0]["master"]) == (4000, "br0")


def test_faked_parts_of_proc_sys_and_dev(place):
    assert said(place, "node-1", "cd /sys/bus/pci/devices; ls; cat 0000:c1:00.0/vendor") == "0000:c1:00.0\n0x19e5"
    assert said(place, "node-1", "cat /sys/class/infiniband/mlx5_0/ports/1/state") == "4: ACTIVE"
    assert (
        said(place, "node-1", "cat /proc/driver/nvidia/version /proc/version") == "NVRM version: 1\nLinux version 5.10"
    )
    assert said(place, "node-1", "stat -c '%F %t %T' /dev/davinci0; cat /dev/davinci0") == "character special file 1 3"
    assert ssh(place, "node-2", "ls /dev/davinci0 /sys/class/infiniband/mlx5_0").returncode == 2


@pytest.mark.parametrize(
    ("state", "command", "words"),
    [("a2_910b4", "npu-smi info; ls /dev/davinci0", "910B4"), ("h100x8", "nvidia-smi -L; ls /dev/nvidia0", "H100")],
)
def test_a_state_becomes_a_host_with_accelerators(other, state, command, words):
    fleet.up(other.describe({"node-1": {"state": str(STATES / f"{state}.yml")}}), other.dir)
    answer = said(other, "node-1", command)
    assert words in answer
    assert len(said(other, "node-1", "ls /sys/bus/pci/devices").splitlines()) >= 8
    # To ask is no change.
    assert fleet.snapshot(fleet.hosts(other.dir)["node-1"])["files"] == {}


def test_cgroups_are_those_of_the_machine(place):
    expected = sorted(path.name for path in Path("/sys/fs/cgroup").iterdir())
    assert said(place, "node-1", "ls -A /sys/fs/cgroup").split() == sorted(expected)


def test_ansible_reaches_every_host(place, short_folder):
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_HOME": str(short_folder / "ansible"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    argv = [str(Path(sys.executable).with_name("ansible")), "-i", str(place.dir / "inventory.yml"), "-o", "-m", "ping"]
    done = subprocess.run(
        [*argv, "serving,node-3"], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if '"ping": "pong"' in line)
    assert [line.split()[0] for line in lines] == ["node-1", "node-2", "node-3"]


def test_up_again_changes_nothing(place):
    before = {path.name: path.stat().st_mtime_ns for path in place.dir.iterdir()}
    pids = [host["pid"] for host in fleet.hosts(place.dir).values()]
    assert fleet.up(place.description, place.dir)["changed"] is False
    assert {path.name: path.stat().st_mtime_ns for path in place.dir.iterdir()} == before
    assert [host["pid"] for host in fleet.hosts(place.dir).values()] == pids


def test_another_description_does_not_replace_a_fleet(place, tmp_path):
    content = yaml.safe_load(place.description.read_text(encoding="utf-8"))
    content["mtu"] = 1450
    (tmp_path / "fleet.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(fleet.FleetError, match="take it down first"):
        fleet.up(tmp_path / "fleet.yml", place.dir)
    assert all(host["up"] for host in fleet.hosts(place.dir).values())


# Snapshots --------------------------------------------------------------------------------------------------------


def test_snapshot_sees_what_was_written_and_nothing_else(place):
    host = fleet.hosts(place.dir)["node-3"]
    assert fleet.snapshot(host)["files"] == {}
    # Reading is no change, and neither is a login.
    said(place, "node-3", "cat /etc/passwd; ls /usr/bin; true")
    assert fleet.snapshot(host)["files"] == {}
    said(place, "node-3", "umask 022; echo text > /etc/new; mkdir /opt/made; chmod 700 /etc/passwd; rm /etc/issue")
    files = fleet.snapshot(host)["files"]
    told = {path: (one["type"], one["mode"]) for path, one in files.items()}
    assert told == {
        "/etc/issue": ("removed", "0000"),
        "/etc/new": ("file", "0644"),
        "/etc/passwd": ("file", "0700"),
        "/opt/made": ("dir", "0755"),
    }
    assert files["/etc/new"]["size"] == 5
    assert files["/etc/new"]["sha256"] == "b9e68e1bea3e5b19ca6b2f98b73a54b73daafaa250484902e09982e07a12e733"


def test_snapshot_sees_processes_sockets_addresses_and_routes(place):
    host = fleet.hosts(place.dir)["node-3"]
    before = fleet.snapshot(host)
    assert before["listening"] == [f"tcp {place.net}.3:22"]
    said(
        place,
        "node-3",
        "(nohup python3 -m http.server --bind 127.0.0.1 8099 > /dev/null 2>&1 &);"
        "ip address add 10.7.7.7/32 dev eth0; ip route add 10.6.6.0/24 dev eth0",
    )
    wait_for(lambda: "tcp 127.0.0.1:8099" in fleet.snapshot(host)["listening"])
    after = fleet.snapshot(host)
    assert ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8099"] in [
        one["argv"] for one in after["processes"]
    ]
    new = [line for line in after["addresses"] if line not in before["addresses"]]
    assert len(new) == 1
    assert "10.7.7.7/32" in new[0]
    assert "10.6.6.0/24 dev eth0 scope link" in after["routes"]


def test_program_lists_and_prints_snapshots(place):
    lines = program("list", "--dir", place.dir).stdout.splitlines()
    assert lines[0] == f"node-1 {place.net}.1 {place.name}-node-1 up"
    assert list(json.loads(program("snapshot", "--dir", place.dir, "node-2").stdout)) == ["node-2"]
    assert "has no host node-9" in program("snapshot", "--dir", place.dir, "node-9").stderr


def test_snapshot_needs_a_host_that_is_up(place):
    with pytest.raises(fleet.FleetError, match="node-1 is not up"):
        fleet.snapshot({**fleet.hosts(place.dir)["node-1"], "started": 1})


# Up and down ------------------------------------------------------------------------------------------------------


def test_second_fleet_beside_the_first_and_nothing_left(place, other):
    before = machine()
    fleet.up(other.describe({"node-1": {}, "node-2": {}}), other.dir)
    assert said(other, "node-1", "hostname") == "node-1"
    assert said(place, "node-1", "cat /etc/marker") == "one"
    # A service, a program of ours in a namespace of the fleet, and a connection that waits there.
    said(other, "node-1", "nohup sleep 1000 > /dev/null 2>&1 &")
    inside = subprocess.Popen(["ip", "netns", "exec", f"{other.name}-node-2", "sleep", "1000"])
    session = subprocess.Popen([*ssh_words(other), f"root@{other.net}.2", "sleep", "1000"])
    pids = [host["pid"] for host in fleet.hosts(other.dir).values()]
    wait_for(lambda: len(fleet.snapshot(fleet.hosts(other.dir)["node-2"])["processes"]) > 1)
    assert fleet.down(other.dir) is True
    assert [pid for pid in [*pids, inside.pid] if started(pid) is not None] == []
    assert inside.wait(10) == -signal.SIGKILL
    assert session.wait(10) == 255
    assert traces(other) == []
    assert machine() == before
    assert fleet.down(other.dir) is False
    assert said(place, "node-1", "cat /etc/marker") == "one"


def test_down_ends_connections_to_a_host_that_is_cut_off(other):
    fleet.up(other.describe({"node-1": {}}), other.dir)
    session = subprocess.Popen([*ssh_words(other), f"root@{other.net}.1", "sleep", "1000"])
    host = fleet.hosts(other.dir)["node-1"]
    wait_for(lambda: ["sleep", "1000"] in [one["argv"] for one in fleet.snapshot(host)["processes"]])
    port = host["interfaces"][0]["port"]
    subprocess.run(["ip", "-n", f"{other.name}-sw", "link", "set", port, "down"], check=True)
    fleet.down(other.dir)
    # The host could not say that it ended: without help, ssh would wait for a quarter of an hour.
    assert session.wait(20) == 255


def test_a_host_that_has_died_comes_back(other):
    other.describe({"node-1": {}})
    pid = fleet.up(other.description, other.dir)["hosts"]["node-1"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not fleet.hosts(other.dir)["node-1"]["up"])
    assert fleet.up(other.description, other.dir)["changed"] is True
    assert said(other, "node-1", "hostname") == "node-1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_up_after_an_up_that_was_ended(other, number):
    other.describe({"node-1": {"commands_after": [["sleep", "1000"]]}, "node-2": {}})
    argv = [sys.executable, str(PROGRAM), "up", "--fleet", str(other.description), "--dir", str(other.dir)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    record = other.dir / "fleet.json"
    wait_for(lambda: record.exists() and json.loads(record.read_text(encoding="utf-8"))["hosts"])
    pids = [host["pid"] for host in json.loads(record.read_text(encoding="utf-8"))["hosts"].values()]
    process.send_signal(number)
    process.wait(30)
    # Told to end, it removes what it has made; killed, it cannot.
    assert (traces(other) == []) == (number == signal.SIGTERM)
    assert fleet.up(other.describe({"node-1": {}, "node-2": {}}), other.dir)["changed"] is True
    assert [pid for pid in pids if started(pid) is not None] == []
    assert said(other, "node-2", "hostname") == "node-2"


@pytest.mark.parametrize("delay", [0.12, 0.16, 0.2, 0.24, 0.28])
def test_down_after_an_up_that_was_killed_anywhere(other, delay):
    other.describe({"node-1": {}, "node-2": {}, "node-3": {}})
    argv = [sys.executable, str(PROGRAM), "up", "--fleet", str(other.description), "--dir", str(other.dir)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait(30)
    fleet.down(other.dir)
    assert traces(other) == []


def test_down_when_the_folder_is_gone(other):
    pid = fleet.up(other.describe({"node-1": {}}), other.dir)["hosts"]["node-1"]["pid"]
    subprocess.run(["umount", "-l", str(other.dir / "live")], check=True)
    shutil.rmtree(other.dir)
    assert fleet.down(other.dir) is True
    assert started(pid) is None
    assert traces(other) == []


def test_an_up_that_fails_leaves_nothing(other):
    other.describe({"node-1": {}, "node-2": {"commands_after": [["ls", "/nowhere"]]}})
    done = program("up", "--fleet", other.description, "--dir", other.dir)
    assert done.returncode == 1
    assert "ls /nowhere failed on node-2" in done.stderr
    assert traces(other) == []


def test_a_host_that_cannot_boot_says_why(other):
    other.describe({"node-1": {"files": {"/proc/new/file": ""}}})
    with pytest.raises(fleet.FleetError, match="host node-1 cannot be started"):
        fleet.up(other.description, other.dir)
    other.describe({"node-1": {"files": {"/etc/ssh/testbed/sshd_config": "Nonsense yes\n"}}})
    with pytest.raises(fleet.FleetError, match="Bad configuration option"):
        fleet.up(other.description, other.dir)
    assert traces(other) == []


def test_a_host_that_ended_at_once_is_not_up(place):
    # A zombie that was never seen alive and a process that has gone look alike to the kernel.
    assert not within.is_up({"pid": 2**22 + 1, "started": None})
    assert not within.is_up({**fleet.hosts(place.dir)["node-1"], "started": None})


@pytest.mark.parametrize("own", ["name", "net"])
def test_name_and_network_of_another_fleet_are_refused(place, other, own):
    setattr(other, own, getattr(place, own))
    with pytest.raises(fleet.FleetError, match=f"belongs to the fleet in {place.dir}"):
        fleet.up(other.describe({"node-1": {}}), other.dir)
    assert fleet.down(other.dir) is False
    assert said(place, "node-1", "cat /etc/marker") == "one"


def test_a_namespace_that_is_not_ours_is_never_touched(other):
    stranger = f"{other.name}-node-1"
    subprocess.run(["ip", "netns", "add", stranger], check=True)
    try:
        with pytest.raises(fleet.FleetError, match="no fleet known here has made"):
            fleet.up(other.describe({"node-1": {}}), other.dir)
        assert fleet.down(other.dir) is False
        assert stranger in subprocess.check_output(["ip", "netns", "list"], text=True)
    finally:
        subprocess.run(["ip", "netns", "delete", stranger], check=True)


def test_a_network_that_the_machine_uses_is_refused(place, other):
    address = f"{other.net}.77/32"
    subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
    try:
        with pytest.raises(fleet.FleetError, match="is not free"):
            fleet.up(other.describe({"node-1": {}}), other.dir)
    finally:
        subprocess.run(["ip", "address", "delete", address, "dev", "lo"], check=True)


def test_only_root_can(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(fleet.FleetError, match="need root"):
        fleet.up(tmp_path / "fleet.yml", tmp_path)
