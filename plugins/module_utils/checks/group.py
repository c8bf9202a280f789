# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks over the hosts of a replica group: what must be equal, and what must pass between them.

Each takes the requirement, the facts of all hosts, and ``ill``: the (host, check) pairs that have failed already, whose
consequences are not told again. Hosts without facts are left out: that they did not answer is a verdict of its own.
"""

from __future__ import annotations

import collections
import ipaddress

from ..accelerators import devices_of
from ..peers.matrix import merge
from .devices import available
from .levels import FAIL, OK, WARN, HostVerdict, listed
from .npu import dark_ports

Ill = set  # of (host, check)


def _answering(requirement: dict, facts_of: dict[str, dict]) -> dict[str, dict]:
    return {host: facts_of[host] for host in requirement["hosts"] if facts_of.get(host)}


# ----- equality -----


def _driver(requirement: dict, facts: dict) -> object:
    return facts[requirement["kind"]]["driver_version"] or None


def _firmware(_requirement: dict, facts: dict) -> object:
    return facts["npu"]["firmware_version"] or None


def _device(requirement: dict, facts: dict) -> object:
    devices = devices_of(facts, requirement["kind"])
    return listed(sorted({f"{device['name']} of {device['memory_total_mib']} MiB" for device in devices})) or None


def _count(requirement: dict, facts: dict) -> object:
    return len(devices_of(facts, requirement["kind"]))


def _tls(_requirement: dict, facts: dict) -> object:
    switches = {port["tls"] for port in facts["npu"]["network"]} - {None}
    return " and ".join(sorted("on" if switch else "off" for switch in switches)) or None


def _image(requirement: dict, facts: dict) -> object:
    return (facts["docker"].get("images") or {}).get(requirement["image"]) or None


def _mtu(requirement: dict, facts: dict) -> object:
    name = requirement["interfaces"][facts["inventory_hostname"]]
    return next((entry["mtu"] for entry in facts["interfaces"] if entry["name"] == name), None)


# what: (name for a person, value of one host, checks whose failure says it already, remedy)
EQUALITIES = {
    "driver": (
        "driver version",
        _driver,
        ("npu_driver", "gpu_driver"),
        "install one driver version on all nodes and reboot them",
    ),
    "firmware": (
        "firmware version",
        _firmware,
        ("npu_driver", "npu_firmware"),
        "install one firmware version on all nodes and reboot them",
    ),
    "device": (
        "accelerator",
        _device,
        ("devices", "device_memory", "precision"),
        "put hosts with the same accelerators into one replica group",
    ),
    "count": ("number of accelerators", _count, ("devices",), "give every host of a replica group as many"),
    "tls": (
        "TLS switch of the NPU ports",
        _tls,
        (),
        "hccn_tool -i N -tls -s enable 0 (or 1) on every device of every node: one value for all",
    ),
    "image": ("image id", _image, (), "load one image, by its digest, on all nodes"),
    "mtu": ("MTU of the serving interface", _mtu, ("interface",), "set one MTU on all nodes and on the switch"),
}


def _equal(requirement: dict, facts_of: dict[str, dict], ill: Ill) -> list[HostVerdict]:
    """One value on every host; the odd ones are named against the most frequent value, or the head's in a tie."""
    noun, value_of, carriers, remedy = EQUALITIES[requirement["what"]]
    kind = requirement.get("kind")
    values = {
        host: value_of(requirement, dict(facts, inventory_hostname=host))
        for host, facts in _answering(requirement, facts_of).items()
        if not any((host, check) in ill for check in carriers) and (kind is None or available(kind, facts))
    }
    values = {host: value for host, value in values.items() if value is not None}
    if len(values) < 2:
        return []
    common = collections.Counter(values.values()).most_common(1)[0][0]
    odd = [host for host, value in values.items() if value != common]
    like = next(host for host, value in values.items() if value == common)
    if not odd:
        return [HostVerdict(like, OK, f"one {noun} in the group", str(common), "-")]
    return [HostVerdict(host, FAIL, f"{noun} {common}, as {like} has", str(values[host]), remedy) for host in odd]


def _unique_hostnames(requirement: dict, facts_of: dict[str, dict], _ill: Ill) -> list[HostVerdict]:
    seen: dict[str, str] = {}
    judged = []
    for host, facts in _answering(requirement, facts_of).items():
        name = facts["hostname"]
        if name in seen:
            remedy = "give each node a name of its own (hostnamectl set-hostname); Ray tells nodes apart by it"
            judged.append(HostVerdict(host, FAIL, "a hostname of its own", f"{name}, as {seen[name]} has", remedy))
        seen.setdefault(name, host)
    return judged or [HostVerdict(requirement["hosts"][0], OK, "hostnames that differ", listed(list(seen)), "-")]


def _npu_addresses(requirement: dict, facts_of: dict[str, dict], ill: Ill) -> list[HostVerdict]:
    """Addresses of NPU ports are unique in the group, and in one subnet unless they have a gateway."""
    owners: dict[str, str] = {}
    judged, networks = [], {}
    for host, facts in _answering(requirement, facts_of).items():
        if (host, "npu_network") in ill or not available("npu", facts):
            continue
        twice = []
        for port in facts["npu"]["network"]:
            if port["ip"] in owners:
                twice.append(f"device {port['phy_id']} {port['ip']}, as {owners[port['ip']]}")
            elif port["ip"]:
                owners[port["ip"]] = f"{host} device {port['phy_id']}"
        if twice:
            remedy = "give each NPU port an address of its own, in /etc/hccn.conf too"
            judged.append(HostVerdict(host, FAIL, "NPU addresses of its own", listed(twice), remedy))
        networks[host] = _networks(facts["npu"]["network"])
    return judged + _one_subnet(networks)


def _networks(ports: list[dict]) -> set[str]:
    """Return the subnets of the ports that have no gateway to leave them by."""
    return {
        str(ipaddress.ip_network(f"{port['ip']}/{port['netmask']}", strict=False))
        for port in ports
        if port["ip"] and port["netmask"] and not port["gateway"]
    }


def _one_subnet(networks: dict[str, set[str]]) -> list[HostVerdict]:
    if len(networks) < 2 or not all(networks.values()):
        return []
    common = set.intersection(*networks.values())
    if common:
        return []
    host = list(networks)[-1]
    others = listed(sorted(set.union(*(networks[name] for name in networks if name != host))))
    remedy = "put all NPU ports into one subnet, or give each a gateway (hccn_tool -i N -gateway -s gateway G)"
    return [HostVerdict(host, FAIL, f"NPU ports in {others}", listed(sorted(networks[host])) + ", no gateway", remedy)]


# ----- what passes between the hosts -----


def _matrix(requirement: dict, facts_of: dict[str, dict]) -> dict | None:
    told = {host: facts["peers"] for host, facts in _answering(requirement, facts_of).items() if facts.get("peers")}
    return merge(told) if told else None


def _culprits(pairs: list[tuple[str, str]], hosts: list[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return [(host, pairs)]: the fewest hosts that all bad pairs have in common, found greedily.

    One host behind a wrong switch port spoils its pairs with all others: that is one fault and not many. In a tie it
    is the host that was not reached.
    """
    left, found = list(pairs), []
    while left:
        weight = collections.Counter(name for pair in left for name in set(pair))
        reached = collections.Counter(to for _source, to in left)
        host = max(weight, key=lambda name: (weight[name], reached[name], hosts.index(name)))
        found.append((host, [pair for pair in left if host in pair]))
        left = [pair for pair in left if host not in pair]
    return found


def _no_probe(requirement: dict, what: str) -> list[HostVerdict]:
    remedy = "run preflight.yml; it probes before it judges"
    return [HostVerdict(requirement["hosts"][0], FAIL, what, "the hosts were not probed", remedy)]


def _connections(requirement: dict, facts_of: dict[str, dict], ill: Ill) -> list[HostVerdict]:
    """Every host reaches every other on every port of the plan."""
    what = f"TCP {listed(requirement['ports'])} open between all nodes"
    matrix = _matrix(requirement, facts_of)
    if matrix is None:
        return _no_probe(requirement, what)
    hosts = list(_answering(requirement, facts_of))
    bad: dict[tuple[str, str], list[str]] = {}
    for entry in matrix["connections"]:
        taken = (entry["to"], "port") in ill
        if entry["ok"] is not True and entry["from"] in hosts and entry["to"] in hosts and not taken:
            reason = entry["reason"] or "not probed to an end"
            bad.setdefault((entry["from"], entry["to"]), []).append(f"{entry['port']} ({reason})")
    judged = [
        HostVerdict(
            host,
            FAIL,
            what,
            listed([f"{source} to {to}: {listed(bad[source, to])}" for source, to in pairs], 4),
            f"open these ports in the firewall of {host} for the other nodes' addresses, and on switches between; "
            "do not switch the firewall off",
        )
        for host, pairs in _culprits(list(bad), hosts)
    ]
    return judged or [HostVerdict(requirement["hosts"][0], OK, what, "so, both ways", "-")]


def _path_mtu(requirement: dict, facts_of: dict[str, dict], ill: Ill) -> list[HostVerdict]:
    matrix = _matrix(requirement, facts_of)
    if matrix is None:
        return []
    hosts = list(_answering(requirement, facts_of))
    bad = {}
    for entry in matrix["paths"]:
        if entry["ok"] is False and entry["from"] in hosts and entry["to"] in hosts:
            bad[entry["from"], entry["to"]] = entry
    bad = {pair: entry for pair, entry in bad.items() if not {(name, "connections") for name in pair} & ill}
    what = "packets of the interfaces' own size to pass between all nodes"
    judged = []
    for host, pairs in _culprits(list(bad), hosts):
        texts = [
            f"{source} to {to}: not with MTU {bad[source, to]['mtu']}"
            + (f", only up to {bad[source, to]['passes']}" if bad[source, to]["passes"] else "")
            for source, to in pairs
        ]
        remedy = f"set the switch ports of {host} to the MTU of its interface, or lower the MTU on all nodes"
        judged.append(HostVerdict(host, FAIL, what, listed(texts, 4), remedy))
    return judged or [HostVerdict(requirement["hosts"][0], OK, what, "so", "-")]


def _clock_skew(requirement: dict, facts_of: dict[str, dict], _ill: Ill) -> list[HostVerdict]:
    matrix = _matrix(requirement, facts_of)
    if matrix is None:
        return []
    hosts = list(_answering(requirement, facts_of))
    # An offset counts only as far as it is certain.
    skews = {
        (entry["from"], entry["to"]): abs(entry["offset_s"]) - entry["uncertainty_s"]
        for entry in matrix["clocks"]
        if entry["from"] in hosts and entry["to"] in hosts and entry["offset_s"] is not None
    }
    bad = {pair: skew for pair, skew in skews.items() if skew > requirement["warn_s"]}
    what = f"clocks within {requirement['warn_s']:g} s of each other"
    judged = []
    for host, pairs in _culprits(list(bad), hosts):
        worst = max(bad[pair] for pair in pairs)
        level = FAIL if worst > requirement["fail_s"] else WARN
        found = f"{worst:.1f} s apart from " + listed(sorted({name for pair in pairs for name in pair} - {host}))
        judged.append(HostVerdict(host, level, what, found, "run chronyd or ntpd on all nodes against one server"))
    loose = [host for host in hosts if facts_of[host]["clock"].get("synchronized") is False]
    found = "so" + (f"; the kernel knows of nothing that keeps the clock of {listed(loose)}" if loose else "")
    return judged or [HostVerdict(requirement["hosts"][0], OK, what, found, "-")]


def _npu_ping(requirement: dict, facts_of: dict[str, dict], ill: Ill) -> list[HostVerdict]:
    """Devices reach devices over the NPUs' own network; the deciding probe, whatever link and health say."""
    matrix = _matrix(requirement, facts_of)
    hosts = [host for host in _answering(requirement, facts_of) if available("npu", facts_of[host])]
    if matrix is None or not all(facts_of[host]["npu"]["network_supported"] for host in hosts):
        return []
    dark = {(host, phy_id) for host in hosts for phy_id in dark_ports(facts_of[host]["npu"])}
    wrong = {host for host in hosts if (host, "npu_network") in ill or (host, "npu_addresses") in ill}
    bad: dict[tuple[str, str], list[str]] = {}
    for entry in matrix["device_pings"]:
        ends = {(entry["from"], entry["from_phy_id"]), (entry["to"], entry["to_phy_id"])}
        # A device that is known to be dark or wrongly addressed answers nobody; that is told already.
        if ends & dark or {entry["from"], entry["to"]} & wrong:
            continue
        if entry["sent"] and entry["received"] == entry["sent"]:
            continue
        lost = f"{entry['received']} of {entry['sent']} answers" if entry["sent"] else entry["reason"]
        bad.setdefault((entry["from"], entry["to"]), []).append(
            f"{entry['from_phy_id']} to {entry['to_phy_id']} ({entry['to_ip']}): {lost}"
        )
    what = "every NPU to reach its peers on the other nodes"
    judged = [
        HostVerdict(
            host,
            FAIL,
            what,
            listed([f"{source} to {to}: device {listed(bad[source, to], 3)}" for source, to in pairs], 4),
            f"look at the switch ports, VLAN and gateway of these devices of {host} (hccn_tool -i N -lldp -g)",
        )
        for host, pairs in _culprits(list(bad), hosts)
    ]
    missed = [entry for entry in matrix.get("not_probed", []) if entry["from"] in hosts]
    if missed and not judged:
        found = f"{len(missed)} pairs of devices were not probed in time"
        return [HostVerdict(requirement["hosts"][0], WARN, what, found, "raise preflight_probe_timeout")]
    return judged or [HostVerdict(requirement["hosts"][0], OK, what, f"{len(matrix['device_pings'])} pings", "-")]


CHECKS = {
    "equal": _equal,
    "unique_hostnames": _unique_hostnames,
    "npu_addresses": _npu_addresses,
    "connections": _connections,
    "path_mtu": _path_mtu,
    "clock_skew": _clock_skew,
    "npu_ping": _npu_ping,
}
