# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network namespaces stand for hosts on a bridge, with narrow places and packet filters between them.

They need root, network namespaces, ip (iproute2) and iptables; where one of these is missing no test is made of them.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.peers import matrix

PORTS = [8000, 13389]
NAMES = ("a", "b", "c")


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


class Network:
    """Three namespaces on a bridge in a fourth one, 198.18.0.1 to 198.18.0.3."""

    def __init__(self) -> None:
        self.prefix = f"llm{os.getpid()}"
        self.switch = f"{self.prefix}s"
        self.addresses = {name: f"198.18.0.{number}" for number, name in enumerate(NAMES, 1)}

    def namespace(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def build(self) -> None:
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "sw0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "sw0", "mtu", "9000", "up")
        for name in NAMES:
            space, inside, outside = self.namespace(name), "eth0", f"p{name}"
            run("ip", "netns", "add", space)
            run("ip", "-n", self.switch, "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
            run("ip", "-n", self.switch, "link", "set", outside, "mtu", "9000", "master", "sw0", "up")
            run("ip", "-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", inside)
            # Packets as long as on a wire: a whole buffer would pass any MTU of a veth.
            run("ip", "-n", space, "link", "set", inside, "mtu", "9000", "gso_max_segs", "1", "up")
            run("ip", "-n", space, "link", "set", "lo", "up")

    def narrow(self, name: str) -> None:
        """Make the switch's port of a host drop what is longer than 1500 bytes, as a switch without jumbo frames."""
        run("ip", "-n", self.switch, "link", "set", f"p{name}", "mtu", "1500")
        # The bridge takes the least MTU of its ports as its own; that plays no part for what it passes on.

    def filter(self, name: str, *rule: str) -> None:
        run("ip", "netns", "exec", self.namespace(name), "iptables", "-A", *rule)

    def destroy(self) -> None:
        for space in (*(self.namespace(name) for name in NAMES), self.switch):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@pytest.fixture
def network():
    network = Network()
    try:
        network.build()
        yield network
    finally:
        network.destroy()


@pytest.fixture
def probe(hosts, network):
    """Function that probes between hosts, all together or one after another, and returns the union."""

    def run_all(names=NAMES, together: bool = True, **more) -> dict:
        addresses = {name: network.addresses[name] for name in names}
        settings = {name: hosts.settings(name, addresses, PORTS, **more) for name in names}
        if together:
            started = {name: hosts.start(settings[name], namespace=network.namespace(name)) for name in names}
            results = {name: hosts.result(process) for name, process in started.items()}
        else:
            results = {name: hosts.probe(settings[name], namespace=network.namespace(name)) for name in names}
        return matrix.merge(results)

    return run_all


def verdicts(entries: list[dict]) -> dict:
    found: dict = {}
    for entry in entries:
        found.setdefault(f"{entry['from']}{entry['to']}", set()).add(entry["ok"])
    return found


ALL_WELL = {start + end: {True} for start in NAMES for end in NAMES if start != end}
BOTH_ORDERS = pytest.mark.parametrize("together", [True, False], ids=["together", "one after another"])


@BOTH_ORDERS
def test_a_network_that_is_well(hosts, probe, together):
    found = probe(NAMES, together)
    assert verdicts(found["connections"]) == verdicts(found["paths"]) == ALL_WELL
    assert {path["mtu"] for path in found["paths"]} == {9000}
    hosts.wait_until_none_is_left()


@BOTH_ORDERS
def test_a_switch_that_drops_long_frames(network, probe, together):
    network.narrow("b")
    found = probe(NAMES, together)
    assert verdicts(found["connections"]) == ALL_WELL  # short messages pass
    paths = {path["from"] + path["to"]: path for path in found["paths"]}
    assert {ends for ends, path in paths.items() if path["ok"] is False} == {"ab", "cb", "ba", "bc"}
    for ends in ("ab", "cb", "ba", "bc"):
        assert (paths[ends]["mtu"], paths[ends]["passes"]) == (9000, 1400)
        assert "segments of 1400 bytes pass" in paths[ends]["reason"]
    assert paths["ac"]["ok"] and paths["ca"]["ok"]


@BOTH_ORDERS
def test_long_packets_that_are_lost_in_one_direction(network, probe, together):
    network.filter("a", "INPUT", "-p", "tcp", "-m", "length", "--length", "1240:65535", "-j", "DROP")
    found = probe(NAMES, together)
    assert verdicts(found["connections"]) == ALL_WELL
    lost = {path["from"] + path["to"]: path["passes"] for path in found["paths"] if not path["ok"]}
    assert lost == {"ba": 512, "ca": 512}  # with all headers a segment of 1200 bytes is 1240
    assert len(found["paths"]) == 6


@BOTH_ORDERS
def test_a_host_that_drops_what_comes_in(network, probe, together):
    network.filter("a", "INPUT", "-p", "tcp", "--syn", "-j", "DROP")
    found = probe(NAMES, together)
    assert verdicts(found["connections"]) == {**ALL_WELL, "ba": {False}, "ca": {False}}
    reasons = {entry["reason"] for entry in found["connections"] if not entry["ok"]}
    assert reasons == {"no answer within 2 s: dropped on the way, or the host is down"}


@BOTH_ORDERS
def test_a_host_that_rejects_what_comes_in(network, probe, together):
    network.filter("b", "INPUT", "-p", "tcp", "--syn", "-j", "REJECT", "--reject-with", "icmp-host-prohibited")
    found = probe(NAMES, together)
    assert verdicts(found["connections"]) == {**ALL_WELL, "ab": {False}, "cb": {False}}
    # The kernel bounds the rate of its refusals, so that some attempts may hear nothing.
    assert "No route to host" in {entry["reason"] for entry in found["connections"] if not entry["ok"]}


@BOTH_ORDERS
@pytest.mark.parametrize("how", [["DROP"], ["REJECT"], ["REJECT", "--reject-with", "tcp-reset"]], ids=" ".join)
def test_one_port_that_is_blocked(network, probe, together, how):
    network.filter("b", "INPUT", "-p", "tcp", "--dport", "13389", "-j", *how)
    found = probe(NAMES, together)
    closed = {(entry["from"] + entry["to"], entry["port"]) for entry in found["connections"] if entry["ok"] is False}
    assert closed == {("ab", 13389), ("cb", 13389)}
    assert all(entry["ok"] is not None for entry in found["connections"])


def test_a_host_that_is_down(network, probe):
    run("ip", "-n", network.namespace("c"), "link", "set", "eth0", "down")
    found = probe(NAMES[:2], window=5.0)
    assert verdicts(found["connections"]) == {"ab": {True}, "ba": {True}}
    addresses_of_all = probe(NAMES, settle=0.2, window=5.0)
    assert verdicts(addresses_of_all["connections"])["ac"] == {False}
    assert verdicts(addresses_of_all["connections"])["ab"] == {True}
