# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a description may say, and what is made of it before anything is started."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
from fleet import FleetError, description, image, inventory, network
from hypothesis import given
from hypothesis import strategies as st

GOOD = {
    "name": "ab1",
    "network": "10.1.2.0/24",
    "hosts": {
        "node-1": {"address": "10.1.2.1"},
        "node-2": {
            "address": "10.1.2.2",
            "eth0": {"name": "ens3", "mtu": 9000, "bridge_mtu": 1500},
            "interfaces": [{"name": "roce0", "address": "10.9.9.2", "mtu": 4200}, {"name": "spare", "down": True}],
            "vars": {"rank": 1},
        },
    },
    "groups": {"serving": ["node-1", "node-2"], "outer": {"children": ["serving"], "vars": {"port": 8000}}},
}


@pytest.fixture
def good():
    return copy.deepcopy(GOOD)


def put(tree: dict, path: tuple, value: object) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


def test_defaults_are_filled_in(good, tmp_path):
    fleet = description.check(good, tmp_path)
    assert fleet["gateway"] == "10.1.2.254"
    assert fleet["mtu"] == 1500
    assert fleet["hosts"]["node-1"] == {
        "address": "10.1.2.1",
        "interfaces": [{"name": "eth0", "address": "10.1.2.1/24", "mtu": 1500, "bridge_mtu": 1500, "down": False}],
        "hostname": "node-1",
        "hosts_file": [],
        "files": {},
        "state": None,
        "commands_after": [],
        "disks": {},
        "docker": False,
        "docker_images": "",
        "vars": {},
    }
    assert fleet["hosts"]["node-2"]["interfaces"] == [
        {"name": "ens3", "address": "10.1.2.2/24", "mtu": 9000, "bridge_mtu": 1500, "down": False},
        {"name": "roce0", "address": "10.9.9.2/24", "mtu": 4200, "bridge_mtu": 4200, "down": False},
        {"name": "spare", "address": "", "mtu": 1500, "bridge_mtu": 1500, "down": True},
    ]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("hosts", "node-1", "docker"), "yes", "docker of node-1 is neither true nor false"),
        (("hosts", "node-1", "docker_images"), "images", "absolute and plain"),
        (("hosts", "node-1", "docker_images"), "/images", "needs docker: true"),
        (("hosts", "node-1", "disks"), ["/data"], "disks of node-1"),
        (("hosts", "node-1", "disks"), {"data": "1G"}, "absolute and plain"),
        (("hosts", "node-1", "disks"), {"/data/": "1G"}, "absolute and plain"),
        (("hosts", "node-1", "disks"), {"/a,b": "1G"}, "absolute and plain"),
        (("hosts", "node-1", "disks"), {"/data/../etc": "1G"}, "cannot be at"),
        (("hosts", "node-1", "disks"), {"/": "1G"}, "cannot be at"),
        (("hosts", "node-1", "disks"), {"/dev/shm": "1G"}, "cannot be at"),
        (("hosts", "node-1", "disks"), {"/data": "1G,mode=777"}, "size of the disk /data"),
        (("hosts", "node-1", "disks"), {"/data": 0}, "size of the disk /data"),
        (("name",), "", "fleet's name"),
        (("name",), "a-b", "fleet's name"),
        (("name",), "toolong1", "fleet's name"),
        (("name",), "ok\n", "fleet's name"),
        (("name",), 7, "fleet's name"),
        (("network",), "192.168.0.0/24", "must be a /24 of 10.0.0.0/8"),
        (("network",), "10.0.0.0/8", "must be a /24"),
        (("network",), "10.1.2.1/24", "network is none"),
        (("network",), None, "network is none"),
        (("mtu",), 60, "mtu of the fleet"),
        (("mtu",), True, "mtu of the fleet"),
        (("hosts",), {}, "no hosts"),
        (("hosts",), [], "not a mapping"),
        (("hosts", "sw"), {"address": "10.1.2.9"}, "switch"),
        (("hosts", "../x"), {"address": "10.1.2.9"}, "host's name"),
        (("hosts", "Node"), {"address": "10.1.2.9"}, "host's name"),
        (("hosts", "c"), {"address": "10.1.2.1"}, "same address 10.1.2.1"),
        (("hosts", "c"), {"address": "10.1.2.254"}, "the machine itself"),
        (("hosts", "c"), {"address": "10.1.3.1"}, "not one of 10.1.2.0/24"),
        (("hosts", "c"), {"address": "10.1.2.255"}, "not one of"),
        (("hosts", "c"), {}, "address of c is none"),
        (("hosts", "node-1", "memory"), 1, "unknown keys: memory"),
        (("hosts", "node-1", "hostname"), "a b", "hostname"),
        (("hosts", "node-1", "state"), 5, "neither a path nor a mapping"),
        (("hosts", "node-1", "state"), "nowhere.yml", "cannot be read"),
        (("hosts", "node-1", "files"), {"etc/x": ""}, "absolute and plain"),
        (("hosts", "node-1", "files"), {"/etc/../x": ""}, "absolute and plain"),
        (("hosts", "node-1", "files"), {"/x": {"mode": "abc"}}, "mode"),
        (("hosts", "node-1", "files"), {"/x": {"content": 5}}, "needs a text"),
        (("hosts", "node-1", "interfaces"), [{"name": "eth0"}], "two interfaces of one name"),
        (("hosts", "node-1", "interfaces"), [{"name": "lo"}], "two interfaces of one name"),
        (("hosts", "node-1", "interfaces"), [{"name": "x; reboot"}], "name of an interface"),
        (("hosts", "node-1", "interfaces"), [{"name": "a", "address": "8.8.8.8"}], "not a private"),
        (("hosts", "node-1", "interfaces"), [{"name": "a", "mtu": "9000"}], "mtu of a of node-1"),
        (("hosts", "node-1", "interfaces"), {}, "not a list"),
        (("hosts", "node-1", "commands_after"), ["reboot"], "list of argument lists"),
        (("hosts", "node-1", "commands_after"), [[]], "list of argument lists"),
        (("hosts", "node-1", "hosts_file"), 5, "hosts_file"),
        (("groups", "serving"), ["node-9"], "names node-9"),
        (("groups", "all"), [], "no group can be called all"),
        (("groups", "a b"), [], "name of a group"),
    ],
)
def test_what_is_refused(good, tmp_path, path, value, words):
    put(good, path, value)
    with pytest.raises(FleetError, match=words):
        description.check(good, tmp_path)


@given(st.text(max_size=8))
def test_a_name_is_safe_or_refused(name):
    raw = copy.deepcopy(GOOD)
    raw["name"] = name
    try:
        fleet = description.check(raw, Path("/"))
    except FleetError:
        return
    assert fleet["name"].isascii()
    assert fleet["name"].isalnum()
    assert len(network.control(fleet["name"])) <= 15


@pytest.mark.parametrize("content", ["", "[", "a: 1", "- 1", "\x00"])
def test_a_file_that_is_no_description(tmp_path, content):
    path = tmp_path / "fleet.yml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FleetError):
        description.load(path)


@pytest.mark.parametrize("folder", ["/", "/tmp/a b", "/tmp/a'b", "/tmp/a\nb", "/tmp/ä"])
def test_folders_that_need_quotes_are_refused(folder):
    with pytest.raises(FleetError, match="cannot hold a fleet"):
        description.check_folder(folder)


def test_state_is_read_beside_the_description(good, tmp_path):
    (tmp_path / "state.yml").write_text("chips: 8\n", encoding="utf-8")
    put(good, ("hosts", "node-1", "state"), "state.yml")
    assert description.check(good, tmp_path)["hosts"]["node-1"]["state"] == {"chips": 8}


def test_plan_of_the_network(good, tmp_path):
    plans = network.plan(description.check(good, tmp_path))
    assert list(plans) == ["", "ab1-sw", "ab1-node-1", "ab1-node-2"]
    machine = plans[""]
    # Nothing but one interface is left in the machine's own namespace.
    assert machine[1] == "link add ab1-ctl mtu 1500 type veth peer name ctl netns ab1-sw"
    assert all(" netns ab1-" in line for line in machine if line.startswith("link add"))
    assert "link add h1.0 netns ab1-sw type veth peer name ens3 netns ab1-node-2" in machine
    assert "link set h1.0 mtu 1500 addrgenmode none master br0" in plans["ab1-sw"]
    assert plans["ab1-node-2"] == [
        "link set lo up",
        "link set ens3 mtu 9000 addrgenmode none",
        "address add 10.1.2.2/24 brd + dev ens3",
        "link set ens3 up",
        "link set roce0 mtu 4200 addrgenmode none",
        "address add 10.9.9.2/24 brd + dev roce0",
        "link set roce0 up",
        "link set spare mtu 1500 addrgenmode none",
        "route add default via 10.1.2.254 dev ens3",
    ]


def test_inventory(good, tmp_path):
    made = inventory.inventory(description.check(good, tmp_path), tmp_path)["all"]
    assert made["hosts"] == {"node-1": {"ansible_host": "10.1.2.1"}, "node-2": {"ansible_host": "10.1.2.2", "rank": 1}}
    assert made["children"] == {
        "serving": {"hosts": {"node-1": {}, "node-2": {}}},
        "outer": {"children": {"serving": {}}, "vars": {"port": 8000}},
    }
    assert made["vars"]["ansible_python_interpreter"] == "/usr/bin/python3"
    assert "StrictHostKeyChecking=yes" in made["vars"]["ansible_ssh_common_args"]
    assert f"UserKnownHostsFile={tmp_path}/known_hosts" in made["vars"]["ansible_ssh_common_args"]
    json.dumps(made)


# Layer of a host --------------------------------------------------------------------------------------------------


@pytest.fixture
def lay_out(good, short_folder, tmp_path):
    """Function that lays out node-1 with further settings and returns its folder."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "host_key").write_text("secret\n", encoding="ascii")
    (keys / "user_key.pub").write_text("ssh-ed25519 AAAA\n", encoding="ascii")

    def make(**settings):
        good["hosts"]["node-1"].update(settings)
        image.lay_out(short_folder / tmp_path.name, description.check(good, tmp_path), "node-1", keys)
        return short_folder / tmp_path.name

    return make


def test_files_of_a_host(lay_out):
    base = lay_out(
        hostname="Other.example",
        hosts_file=["127.0.1.1 Other.example"],
        files={"/opt/a/b": {"content": "text", "mode": "0750"}, "/etc/machine-id": "mine\n", "/opt/l": {"link": "a/b"}},
    )
    assert (base / "etc/hostname").read_text(encoding="utf-8") == "Other.example\n"
    lines = (base / "etc/hosts").read_text(encoding="utf-8").splitlines()
    # The one that the test gives comes first, so that it is the one that counts.
    assert lines[2:] == ["127.0.1.1 Other.example", "10.1.2.1 Other.example node-1", "10.1.2.2 node-2"]
    assert (base / "opt/a/b").read_text(encoding="utf-8") == "text"
    assert (base / "opt/a/b").stat().st_mode & 0o7777 == 0o750
    assert (base / "opt/l").readlink().as_posix() == "a/b"
    assert (base / "etc/machine-id").read_text(encoding="utf-8") == "mine\n"
    assert (base / "etc/ssh/testbed/host_key").stat().st_mode & 0o7777 == 0o600
    assert "ListenAddress 10.1.2.1\n" in (base / "etc/ssh/testbed/sshd_config").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["/bin/tool", "/lib/x/y", "/etc"])
def test_a_file_that_would_hide_the_machines_programs_is_refused(lay_out, path):
    with pytest.raises(FleetError, match=r"is a link|is a folder"):
        lay_out(files={path: ""})


def test_a_host_has_the_emulators_of_its_own(lay_out):
    base = lay_out(state=str(image.EMULATORS.parent / "states" / "h100x8.yml"))
    # A link into the clone would lead nowhere: hosts see no home folders.
    target = (base / "usr/bin/nvidia-smi").readlink()
    assert target.as_posix() == "/usr/local/lib/llm-testbed/nvidia-smi"
    assert os.access(base / target.relative_to("/"), os.X_OK)
    assert [path.is_file() for path in base.rglob("__pycache__")] == [True]


def test_a_state_that_is_wrong(lay_out):
    with pytest.raises(FleetError, match="state of a host is wrong"):
        lay_out(state={"nonsense": 1})
