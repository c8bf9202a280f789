# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way from a host to others: the default route, and the route to one machine."""

from __future__ import annotations

import re
import socket

from . import names, netlink, network
from .source import Source, number

# linux/route.h
_UP, _REJECT = 0x1, 0x200
_DISCARD_PORT = 9  # connecting a UDP socket sends nothing; any port will do


def default_interface(source: Source) -> str:
    """Return the interface of the default IPv4 route with the lowest metric, or an empty string."""
    interface, misread = parse_default(source.text("/proc/net/route"))
    source.misread("/proc/net/route", misread)
    return interface


def parse_default(text: str) -> tuple[str, int]:
    """Return the interface of the best default route of /proc/net/route, and how many of them cannot be understood.

    With one of those nothing says which is the best, so there is none then.
    """
    routes, misread = [], 0
    for line in text.split("\n")[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        metric = number(fields[6])
        if metric is None or not re.fullmatch(r"[0-9A-Fa-f]{4,8}", fields[3]):
            misread += 1
        elif int(fields[3], 16) & (_UP | _REJECT) == _UP:
            routes.append((metric, fields[0]))
    return (min(routes)[1] if routes and not misread else ""), misread


def to_peer(source: Source, peer: str, interfaces: list[dict]) -> tuple[str, str]:
    """Return the interface towards another machine and the source address the kernel would use; empty without a route.

    For an address of this host itself it is the interface that has the address.

    :param peer: address or name
    :param interfaces: what network.interfaces() returned
    """
    addresses = names.resolve(source, peer)
    if not addresses:
        source.problems.append(f"the other machine {peer!r} cannot be resolved to an address")
        return "", ""
    for address in addresses:
        own = _source_address(address)
        interface = _interface(address, own, interfaces) if own else ""
        if interface:
            return interface, own
    source.problems.append(f"this host has no route to {peer} ({', '.join(addresses[:4])})")
    return "", ""


def _source_address(address: str) -> str:
    """Return the own address of a UDP socket connected to ``address``, empty when there is no route."""
    family = names.family_of(address)
    plain, _percent, scope = address.partition("%")
    # The kernel takes the address of all zeros for this host itself.
    if family is None or not any(socket.inet_pton(family, plain)):
        return ""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            where = (plain, _DISCARD_PORT)
            probe.connect(where if family == socket.AF_INET else (*where, 0, _scope(scope)))
            return str(probe.getsockname()[0]).partition("%")[0]
    except (OSError, OverflowError):
        return ""


def _scope(text: str) -> int:
    """Return the number of the interface that an IPv6 address names after its %, 0 for none."""
    value = number(text)
    return value if value is not None else socket.if_nametoindex(text) if text else 0


def _interface(address: str, own: str, interfaces: list[dict]) -> str:
    plain, _percent, scope = address.partition("%")
    if scope:
        return network.name_of(_scope(scope))
    holders = network.holders(interfaces, own)
    if own == plain and holders:
        return holders[0]
    try:
        leaves_by = network.name_of(netlink.interface_to(names.family_of(address), plain))
    except OSError:
        leaves_by = ""
    # Several interfaces may have one address; which of them it is then only the routing socket knows.
    return leaves_by or (holders[0] if len(holders) == 1 else "")
