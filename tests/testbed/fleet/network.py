# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes and removes the network of a fleet: a switch in a namespace of its own, and cables to hosts and machine.

All that the machine itself gets is one interface, NAME-ctl, with the address .254 of the fleet's network.
"""

from __future__ import annotations

import ipaddress
import json
import time
from pathlib import Path

from .description import SWITCH
from .errors import FleetError
from .programs import run

NETNS = Path("/run/netns")
# A namespace ends when its last process has, which the kernel does in its own time.
GONE_AFTER_S = 20


def namespace(fleet_name: str, host: str) -> str:
    """Name of a host's network namespace. Only a fleet's own name comes before the first dash."""
    return f"{fleet_name}-{host}"


def control(fleet_name: str) -> str:
    """Name of the machine's interface to the fleet."""
    return f"{fleet_name}-ctl"


def port(host_index: int, interface_index: int) -> str:
    """Name of the switch's end of a cable; numbers, because names of hosts may be too long for it."""
    return f"h{host_index}.{interface_index}"


def namespaces(fleet_name: str) -> list[str]:
    """Names of the network namespaces that there are of a fleet."""
    if not NETNS.is_dir():
        return []
    return sorted(path.name for path in NETNS.iterdir() if path.name.startswith(f"{fleet_name}-"))


def refuse_foreign(fleet: dict) -> None:
    """Raise FleetError when the machine already uses the name or the network for something else."""
    found = namespaces(fleet["name"])
    links = [link["ifname"] for link in json.loads(run(["ip", "-j", "link", "show"]))]
    found += [name for name in links if name == control(fleet["name"])]
    if found:
        raise FleetError(f"the machine has {', '.join(found)} already, which no fleet known here has made")
    network = ipaddress.ip_network(fleet["network"])
    for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"])):
        if route["dst"] != "default" and network.overlaps(ipaddress.ip_network(route["dst"], strict=False)):
            raise FleetError(f"the machine uses {route['dst']} already ({route.get('dev')}), so {network} is not free")


def make(fleet: dict, lock: int) -> None:
    """Make the namespaces, the switch and all cables of a described fleet; ``lock`` is held until all is made."""
    for namespace_name, lines in plan(fleet).items():
        where = ["-n", namespace_name] if namespace_name else []
        run(["ip", *where, "-batch", "-"], "\n".join([*lines, ""]), keep=(lock,))


def plan(fleet: dict) -> dict[str, list[str]]:
    """Lines for `ip -batch` by namespace, in their order; "" is the machine's own namespace."""
    switch, outside = namespace(fleet["name"], SWITCH), control(fleet["name"])
    prefix = ipaddress.ip_network(fleet["network"]).prefixlen
    machine = [f"netns add {switch}", f"link add {outside} mtu {fleet['mtu']} type veth peer name ctl netns {switch}"]
    # Without an address of its own making nothing of IPv6 changes by itself while a test looks.
    machine += [f"link set {outside} addrgenmode none", f"address add {fleet['gateway']}/{prefix} dev {outside}"]
    bridge = [
        "link set lo up",
        "link add br0 type bridge stp_state 0 mcast_snooping 0",
        "link set br0 addrgenmode none",
    ]
    bridge += ["link set br0 up", *_plug("ctl", fleet["mtu"])]
    plans = {"": machine, switch: bridge}
    for number, (name, host) in enumerate(fleet["hosts"].items()):
        own = namespace(fleet["name"], name)
        machine.append(f"netns add {own}")
        plans[own] = ["link set lo up"]
        for index, interface in enumerate(host["interfaces"]):
            end = port(number, index)
            machine.append(f"link add {end} netns {switch} type veth peer name {interface['name']} netns {own}")
            bridge += _plug(end, interface["bridge_mtu"])
            plans[own] += _interface(interface)
        plans[own].append(f"route add default via {fleet['gateway']} dev {host['interfaces'][0]['name']}")
    machine.append(f"link set {outside} up")
    return plans


def _plug(end: str, mtu: int) -> list[str]:
    return [f"link set {end} mtu {mtu} addrgenmode none master br0", f"link set {end} up"]


def _interface(interface: dict) -> list[str]:
    name = interface["name"]
    lines = [f"link set {name} mtu {interface['mtu']} addrgenmode none"]
    if interface["address"]:
        lines.append(f"address add {interface['address']} brd + dev {name}")
    if not interface["down"]:
        lines.append(f"link set {name} up")
    return lines


def pids(fleet_name: str) -> list[int]:
    """Processes that are in a namespace of the fleet."""
    return [pid for name in namespaces(fleet_name) for pid in pids_in(name)]


def pids_in(name: str) -> list[int]:
    """Processes that are in the network namespace ``name``."""
    return [int(word) for word in run(["ip", "netns", "pids", name]).split()]


def remove(fleet_name: str, network: str) -> None:
    """Remove interface, namespaces and with them all cables; return when they are gone. No process may be left."""
    outside = control(fleet_name)
    if Path("/sys/class/net", outside).exists():
        # Connections of the machine into the network, such as ssh's shared ones, would wait for answers for minutes.
        run(["ss", "-K", "dst", network])
        run(["ip", "link", "delete", outside])
    for name in namespaces(fleet_name):
        run(["ip", "netns", "delete", name])
    end = time.monotonic() + GONE_AFTER_S
    while namespaces(fleet_name) or Path("/sys/class/net", outside).exists():
        if time.monotonic() > end:
            raise FleetError(f"the namespaces of {fleet_name} do not go away")
        time.sleep(0.02)
