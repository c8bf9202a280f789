# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import struct

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import netlink, network
from hypothesis import given
from hypothesis import strategies as st

NET = "/sys/class/net"
INET6 = "20010db8000000000000000000000001 02 40 00 80 net-x\n00000000000000000000000000000001 01 80 10 80       lo\n"


@pytest.fixture
def kernel(monkeypatch):
    """Function that sets the interfaces {number: name} and the IPv4 addresses that the kernel tells."""

    def tell(names: dict[int, str], addresses: list[tuple[int, str, int]]) -> None:
        told = [{"index": index, "address": address, "prefix": prefix} for index, address, prefix in addresses]
        monkeypatch.setattr(socket, "if_nameindex", lambda: list(names.items()))
        monkeypatch.setattr(netlink, "addresses4", lambda: told)

    return tell


def test_interfaces(fake, source, kernel, tmp_path):
    addresses = [(2, "192.0.2.1", 24), (1, "127.0.0.1", 8), (2, "198.51.100.7", 32), (9, "203.0.113.1", 24)]
    kernel({2: "net-x", 1: "lo"}, addresses)
    fake("/proc/net/if_inet6", INET6)
    for name, value in (
        ("operstate", "up"),
        ("carrier", "1"),
        ("mtu", "9000"),
        ("speed", "100000"),
        ("address", "0c:42:a1:00:00:01"),
        ("type", "1"),
    ):
        fake(f"{NET}/net-x/{name}", value + "\n")
    fake(f"{NET}/net-x/device/driver", tmp_path / "drivers" / "mlx5_core")
    fake(f"{NET}/net-x/master", tmp_path / "bond0")
    for name, value in (("operstate", "unknown"), ("speed", "-1"), ("address", "00:00:00:00:00:00"), ("type", "772")):
        fake(f"{NET}/lo/{name}", value + "\n")
    assert network.interfaces(source, {"net-x": ["mlx5_0"]}) == [
        {
            "name": "lo",
            "ipv4": [{"address": "127.0.0.1", "prefix": 8}],
            "ipv6": [{"address": "::1", "prefix": 128}],
            "up": True,
            "carrier": False,
            "mtu": 0,
            "speed_mbps": None,
            "driver": "",
            "mac": "",
            "kind": "loopback",
            "master": "",
            "rdma": [],
        },
        {
            "name": "net-x",
            "ipv4": [{"address": "192.0.2.1", "prefix": 24}, {"address": "198.51.100.7", "prefix": 32}],
            "ipv6": [{"address": "2001:db8::1", "prefix": 64}],
            "up": True,
            "carrier": True,
            "mtu": 9000,
            "speed_mbps": 100000,
            "driver": "mlx5_core",
            "mac": "0c:42:a1:00:00:01",
            "kind": "physical",
            "master": "bond0",
            "rdma": ["mlx5_0"],
        },
    ]
    assert source.problems == []


def test_an_interface_that_vanishes_or_tells_garbage(fake, source, kernel):
    kernel({3: "gone", 4: "odd"}, [])
    for name in ("mtu", "speed", "address", "uevent", "type"):
        fake(f"{NET}/odd/{name}", b"\xff\xfe large\n")
    for interface in network.interfaces(source, {}):
        assert (interface["mtu"], interface["speed_mbps"], interface["mac"]) == (0, None, "")
        assert (interface["kind"], interface["up"]) == ("other", False)


def test_a_kernel_that_does_not_tell_its_addresses(source, monkeypatch):
    def refuse():
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo")])
    monkeypatch.setattr(netlink, "addresses4", refuse)
    (loopback,) = network.interfaces(source, {})
    assert loopback["ipv4"] == []
    assert source.problems == ["the kernel does not tell the IPv4 addresses of this host: Operation not permitted"]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"type": "772\n"}, "loopback"),
        ({"type": "1", "uevent": "DEVTYPE=bridge\nINTERFACE=x\n"}, "bridge"),
        ({"type": "1", "bridge/stp_state": "0"}, "bridge"),
        ({"type": "1", "uevent": "DEVTYPE=bond\n"}, "bond"),
        ({"type": "1", "bonding/mode": "802.3ad 4"}, "bond"),
        ({"type": "1", "uevent": "DEVTYPE=vlan\n", "iflink": "2", "ifindex": "5"}, "vlan"),
        ({"type": "1", "device/vendor": "0x15b3"}, "physical"),
        ({"type": "32", "device/vendor": "0x15b3"}, "physical"),
        ({"type": "1", "uevent": "INTERFACE=x\n", "iflink": "7\n", "ifindex": "8\n"}, "veth"),
        ({"type": "1", "uevent": "DEVTYPE=macvlan\n", "iflink": "7\n", "ifindex": "8\n"}, "other"),
        ({"type": "1", "iflink": "8\n", "ifindex": "8\n"}, "other"),
        ({"type": "1", "iflink": "0\n", "ifindex": "8\n"}, "other"),
        ({"type": "776", "iflink": "0\n", "ifindex": "8\n"}, "other"),
        ({}, "other"),
    ],
)
def test_kinds(fake, source, files, kind):
    for name, text in files.items():
        fake(f"{NET}/x/{name}", text)
    assert network.kind(source, "x") == kind


def test_a_vlan_by_its_file(fake, source):
    fake("/proc/net/vlan/x", "x  VID: 100\n")
    assert network.kind(source, "x") == "vlan"


def test_lines_of_if_inet6_that_cannot_be_understood(fake, source, kernel):
    kernel({1: "lo"}, [])
    fake("/proc/net/if_inet6", "short line\n" + INET6 + "2001 02 40 00 80 x\n" + INET6[:32] + " 02 ff 00 80 x\n")
    (loopback,) = network.interfaces(source, {})
    assert loopback["ipv6"] == [{"address": "::1", "prefix": 128}]
    assert source.problems == ["/proc/net/if_inet6 has 3 lines that cannot be understood"]


@given(
    st.text()
    | st.builds(
        lambda at, letters: INET6[:at] + letters + INET6[at + 1 :], st.integers(0, len(INET6)), st.text(max_size=3)
    )
)
def test_any_if_inet6(text):
    found, misread = network.parse_inet6(text)
    assert misread + sum(map(len, found.values())) == len([line for line in text.split("\n") if line.strip()])
    for entry in (entry for entries in found.values() for entry in entries):
        assert socket.inet_pton(socket.AF_INET6, entry["address"]).hex() in text.lower()
        assert 0 <= entry["prefix"] <= 128


def test_this_machine(this_host):
    found = {interface["name"]: interface for interface in network.interfaces(this_host, {})}
    assert found["lo"]["ipv4"][0] == {"address": "127.0.0.1", "prefix": 8}
    assert found["lo"]["kind"] == "loopback" and found["lo"]["mac"] == ""
    assert set(found) == {name for _index, name in socket.if_nameindex()}
    assert network.holders(list(found.values()), "127.0.0.1") == ["lo"]
    assert network.name_of(socket.if_nametoindex("lo")) == "lo"
    assert this_host.problems == []


@pytest.mark.parametrize("index", [None, 0, 2**31 - 1, 2**70])
def test_a_number_of_no_interface(index):
    assert network.name_of(index) == ""


# The routing socket -----------------------------------------------------------------------------------------------


def attribute(kind: int, raw: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(raw), kind) + raw + b"\0" * (-len(raw) % 4)


def address_message(family: int = socket.AF_INET, prefix: int = 24, rest: bytes = b"") -> bytes:
    return struct.pack("=BBBBI", family, prefix, 0, 0, 2) + rest


def message(kind: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 1, 0) + payload + b"\0" * (-len(payload) % 4)


def test_an_address_message():
    own, other = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
    rest = attribute(3, b"eth0\0") + attribute(1, other) + attribute(2, own)
    assert netlink.parse_address(address_message(rest=rest)) == {"index": 2, "address": "192.0.2.1", "prefix": 24}
    assert netlink.parse_address(address_message(rest=attribute(1, other)))["address"] == "192.0.2.2"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        address_message(),
        address_message(rest=attribute(2, b"\x01")),
        address_message(socket.AF_INET6, 64, attribute(2, b"\x01" * 4)),
        address_message(prefix=33, rest=attribute(2, b"\x01" * 4)),
        address_message(rest=attribute(2, b"\x01" * 4)[:-1]),
        address_message(rest=struct.pack("=HH", 0, 2) * 3),
    ],
)
def test_no_address_message(payload):
    assert netlink.parse_address(payload) is None


def test_messages_and_routes():
    route = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 0, 0, 1, 0) + attribute(4, struct.pack("=I", 7))
    assert netlink.messages(message(24, route) + message(3, b"x")) == [(24, route), (3, b"x")]
    assert netlink.parse_route(route) == 7
    assert netlink.parse_route(route[:-4]) is None
    assert netlink.messages(message(24, route)[:-1]) == []


@given(raw=st.binary(max_size=200))
def test_any_bytes(raw):
    for _kind, payload in [*netlink.messages(raw), (0, raw)]:
        found = netlink.parse_address(payload)
        assert found is None or socket.inet_aton(found["address"]) in payload
        netlink.parse_route(payload)


def test_this_kernel():
    lo = socket.if_nametoindex("lo")
    assert {"index": lo, "address": "127.0.0.1", "prefix": 8} in netlink.addresses4()
    assert netlink.interface_to(socket.AF_INET, "127.0.0.1") == lo


def test_a_kernel_that_refuses(monkeypatch):
    class Refusing:
        def __init__(self, *_arguments):
            pass

        def __enter__(self):
            return self

        def ignore(self, *_arguments):
            """Do nothing."""

        __exit__ = bind = settimeout = send = ignore

        @staticmethod
        def recv(_size):
            return message(2, struct.pack("=i", -101))

    monkeypatch.setattr(netlink.socket, "socket", Refusing)
    with pytest.raises(OSError, match=os.strerror(101)):
        netlink.interface_to(socket.AF_INET, "192.0.2.1")
