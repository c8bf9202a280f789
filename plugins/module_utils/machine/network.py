# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network interfaces of a host."""

from __future__ import annotations

import re
import socket

from . import netlink
from .source import Source, number

_NET = "/sys/class/net"
# linux/if_arp.h
_ETHERNET, _LOOPBACK = "1", "772"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5,19}")  # 20 bytes on InfiniBand


def interfaces(source: Source, rdma: dict[str, list[str]]) -> list[dict]:
    """Return every network interface with its addresses, MTU, speed (Mb/s), driver, kind and RDMA devices.

    :param rdma: names of the RDMA devices by interface
    """
    named = socket.if_nameindex()
    addresses4 = _addresses4(source, dict(named))
    addresses6, misread = parse_inet6(source.head("/proc/net/if_inet6", 1 << 20))
    source.misread("/proc/net/if_inet6", misread)
    found = []
    for _index, name in named:
        base = f"{_NET}/{name}"
        found.append(
            {
                "name": name,
                "ipv4": addresses4.get(name, []),
                "ipv6": addresses6.get(name, []),
                "up": source.attribute(f"{base}/operstate") in ("up", "unknown"),
                "carrier": source.attribute(f"{base}/carrier") == "1",
                "mtu": number(source.attribute(f"{base}/mtu")) or 0,
                "speed_mbps": number(source.attribute(f"{base}/speed")),
                "driver": source.link(f"{base}/device/driver"),
                "mac": _mac(source.attribute(f"{base}/address")),
                "kind": kind(source, name),
                "master": source.link(f"{base}/master"),
                "rdma": rdma.get(name, []),
            }
        )
    return sorted(found, key=lambda interface: interface["name"])


def kind(source: Source, name: str) -> str:
    """Return physical, bridge, bond, vlan, veth, loopback or other; virtual machines' cards are physical to them."""
    base = f"{_NET}/{name}"
    hardware = source.attribute(f"{base}/type")
    told = re.search(r"^DEVTYPE=(\S+)$", source.attribute(f"{base}/uevent"), re.M)
    devtype = told.group(1) if told else ""
    if hardware == _LOOPBACK:
        return "loopback"
    if devtype == "bridge" or source.exists(f"{base}/bridge"):
        return "bridge"
    if devtype == "bond" or source.exists(f"{base}/bonding"):
        return "bond"
    if devtype == "vlan" or source.exists(f"/proc/net/vlan/{name}"):
        return "vlan"
    if source.exists(f"{base}/device"):
        return "physical"
    link, index = (source.attribute(f"{base}/{key}") for key in ("iflink", "ifindex"))
    # veth tells no type of its own: an Ethernet device without hardware whose link is another device, its peer.
    if hardware == _ETHERNET and not devtype and link and link not in (index, "0"):
        return "veth"
    return "other"


def _mac(text: str) -> str:
    return text if _MAC.fullmatch(text) and text.strip("0:") else ""


def _addresses4(source: Source, names: dict[int, str]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    try:
        told = netlink.addresses4()
    except OSError as error:
        source.problems.append(f"the kernel does not tell the IPv4 addresses of this host: {error.strerror or error}")
        return {}
    for entry in told:
        if entry["index"] in names:
            address = {"address": entry["address"], "prefix": entry["prefix"]}
            found.setdefault(names[entry["index"]], []).append(address)
    return found


def parse_inet6(text: str) -> tuple[dict[str, list[dict]], int]:
    """Return {interface: [{address, prefix}]} of /proc/net/if_inet6, and how many lines could not be understood."""
    found: dict[str, list[dict]] = {}
    misread = 0
    for line in filter(None, map(str.strip, text.split("\n"))):
        fields = line.split()
        numbers = r"[0-9a-fA-F]{32} [0-9a-fA-F]+ [0-9a-fA-F]{2} [0-9a-fA-F]+ [0-9a-fA-F]+"
        prefix = int(fields[2], 16) if len(fields) == 6 and re.fullmatch(numbers, " ".join(fields[:5])) else 129
        if prefix > 128:
            misread += 1
            continue
        address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0]))
        found.setdefault(fields[5], []).append({"address": address, "prefix": prefix})
    return found, misread


def holders(found: list[dict], address: str) -> list[str]:
    """Return the names of the interfaces that have ``address``."""
    return [
        interface["name"]
        for interface in found
        if any(entry["address"] == address for entry in (*interface["ipv4"], *interface["ipv6"]))
    ]


def name_of(index: int | None) -> str:
    """Return the name of an interface by its number, empty when there is none."""
    try:
        return socket.if_indextoname(index) if index else ""
    except (OSError, OverflowError):
        return ""
