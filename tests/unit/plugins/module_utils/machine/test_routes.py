# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import netlink, network, routes
from hypothesis import given
from hypothesis import strategies as st

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0
"""
INTERFACES = [
    {"name": "eth0", "ipv4": [{"address": "192.0.2.10", "prefix": 24}], "ipv6": []},
    {"name": "eth1", "ipv4": [{"address": "198.51.100.10", "prefix": 24}], "ipv6": []},
    {"name": "lo", "ipv4": [{"address": "127.0.0.1", "prefix": 8}], "ipv6": []},
]


@pytest.fixture
def kernel(monkeypatch):
    """Function that sets what the kernel answers: the own address, and the interface (its name, or an error)."""

    def answer(own: str, leaves_by: str | OSError) -> None:
        def interface_to(_family, _address):
            if isinstance(leaves_by, OSError):
                raise leaves_by
            return 1 if leaves_by else None

        monkeypatch.setattr(routes, "_source_address", lambda _address: own)
        monkeypatch.setattr(netlink, "interface_to", interface_to)
        monkeypatch.setattr(network, "name_of", lambda index: leaves_by if index else "")

    return answer


def test_the_default_route_of_the_lowest_metric(fake, source):
    fake("/proc/net/route", ROUTES)
    assert routes.default_interface(source) == "eth0"
    assert source.problems == []


@pytest.mark.parametrize(
    "text", ["", ROUTES.splitlines()[0], ROUTES[:100], "\n".join(ROUTES.splitlines()[3:]), "x y z\n" * 3]
)
def test_no_default_route(fake, source, text):
    fake("/proc/net/route", text)
    assert routes.default_interface(source) == ""
    assert source.problems == []


@pytest.mark.parametrize(("good", "bad"), [("\t100\t", "\tmany\t"), ("\t100\t", "\t-1\t"), ("\t0003\t", "\tup\t")])
def test_with_a_default_route_that_cannot_be_understood_none_is_told(fake, source, good, bad):
    fake("/proc/net/route", ROUTES.replace(good, bad, 1))
    assert routes.default_interface(source) == ""
    assert source.problems == ["/proc/net/route has 1 lines that cannot be understood"]


def test_a_kernel_without_routes(source):
    assert routes.default_interface(source) == ""
    assert source.problems == ["/proc/net/route cannot be read: No such file or directory"]


@given(
    st.text()
    | st.builds(
        lambda at, letters: ROUTES[:at] + letters + ROUTES[at + 1 :], st.integers(0, len(ROUTES)), st.text(max_size=3)
    )
)
def test_any_table(text):
    interface, misread = routes.parse_default(text)
    assert interface in text and misread >= 0


# To another machine -----------------------------------------------------------------------------------------------


def test_the_interface_that_the_kernel_says(source, kernel):
    kernel("192.0.2.10", "eth1")  # the address of one interface, out by another
    assert routes.to_peer(source, "203.0.113.5", INTERFACES) == ("eth1", "192.0.2.10")
    assert source.problems == []


@pytest.mark.parametrize("leaves_by", ["", OSError(1, "no")])
def test_the_holder_of_the_address_where_the_kernel_does_not_say(source, kernel, leaves_by):
    kernel("198.51.100.10", leaves_by)
    assert routes.to_peer(source, "203.0.113.5", INTERFACES) == ("eth1", "198.51.100.10")


def test_an_address_that_two_interfaces_have(source, kernel):
    kernel("192.0.2.10", "")
    twice = [*INTERFACES, dict(INTERFACES[0], name="eth2")]
    assert routes.to_peer(source, "203.0.113.5", twice) == ("", "")
    assert source.problems == ["this host has no route to 203.0.113.5 (203.0.113.5)"]


def test_an_address_of_this_host_itself(source, kernel):
    kernel("192.0.2.10", "lo")
    assert routes.to_peer(source, "192.0.2.10", INTERFACES) == ("eth0", "192.0.2.10")


def test_a_name_from_the_hosts_file(source, kernel, fake):
    fake("/etc/hosts", "203.0.113.5 node2\n")
    kernel("192.0.2.10", "eth0")
    assert routes.to_peer(source, "node2", INTERFACES) == ("eth0", "192.0.2.10")


@pytest.mark.parametrize("peer", ["0.0.0.0", "::", "255.255.255.255"])
def test_an_address_that_no_machine_has(this_host, peer):
    assert routes.to_peer(this_host, peer, INTERFACES) == ("", "")
    assert this_host.problems == [f"this host has no route to {peer} ({peer})"]


@pytest.mark.parametrize("peer", ["no such name", "a" * 300, "nul\0", "\u00e9.\udcff", "..", "%"])
def test_a_name_that_does_not_resolve(this_host, peer):
    assert routes.to_peer(this_host, peer, INTERFACES) == ("", "")
    assert this_host.problems[-1].endswith("cannot be resolved to an address")


def test_the_way_to_this_machine_itself(this_host):
    interfaces = network.interfaces(this_host, {})
    assert routes.to_peer(this_host, "127.0.0.1", interfaces) == ("lo", "127.0.0.1")
    for interface in interfaces:
        for entry in interface["ipv4"]:
            assert routes.to_peer(this_host, entry["address"], interfaces)[1] == entry["address"]


def test_a_link_local_address_names_its_interface(this_host):
    linked = [
        (interface, entry["address"])
        for interface in network.interfaces(this_host, {})
        for entry in interface["ipv6"]
        if entry["address"].startswith("fe80") and interface["up"]
    ]
    for interface, address in linked:
        peer = f"{address}%{interface['name']}"
        assert routes.to_peer(this_host, peer, [interface]) == (interface["name"], address)
