# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of hosts, as this host resolves them, and the proxies it is told to use."""

from __future__ import annotations

import functools
import os
import re
import socket

from .kernel import parse_os_release
from .source import Source, in_time

_RESOLVE_SECONDS = 3.0  # a name server that is gone holds the C library for 5 s or more each try
_MAX_ADDRESSES = 64
_ENVIRONMENT = "/etc/environment"
PROXY_NAMES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")
_PLACE = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def resolve(source: Source, name: str) -> list[str]:
    """Return the addresses of ``name``, IPv4 first; an address stands for itself, /etc/hosts comes before the rest."""
    if family_of(name) is not None:
        return [name]
    found = parse_hosts(source.head("/etc/hosts", 1 << 20), name) or _ask(source, name, socket.AF_UNSPEC)
    return sorted(found, key=_is_ipv6)[:_MAX_ADDRESSES]


def _is_ipv6(address: str) -> bool:
    return ":" in address


def own_addresses(source: Source, hostname: str) -> list[str]:
    """Return the IPv4 addresses that the own name resolves to; nothing when it resolves to none."""
    listed = parse_hosts(source.head("/etc/hosts", 1 << 20), hostname)
    return [address for address in listed if not _is_ipv6(address)] or _ask(source, hostname, socket.AF_INET)


def family_of(address: str) -> int | None:
    """Return AF_INET or AF_INET6 for an address (IPv6 with or without %scope), None for anything else."""
    for family, text in ((socket.AF_INET, address), (socket.AF_INET6, address.partition("%")[0])):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return family
    return None


def parse_hosts(text: str, name: str) -> list[str]:
    """Return the addresses that a file like /etc/hosts gives to ``name``, each once."""
    found = []
    for line in text.split("\n"):
        address, *names = line.partition("#")[0].split() or [""]
        if address not in found and name.lower() in map(str.lower, names) and family_of(address) is not None:
            found.append(address)
    return found


def _ask(source: Source, name: str, family: int) -> list[str]:
    answers = in_time({name: functools.partial(_system_addresses, name, family)}, _RESOLVE_SECONDS)
    if name not in answers:
        source.problems.append(f"the name {name!r} could not be resolved within {_RESOLVE_SECONDS:g} s")
    return answers.get(name, [])


def _system_addresses(name: str, family: int) -> list[str]:
    try:
        # Bytes: for text, Python loads its tables of international names.
        told = socket.getaddrinfo(name.encode("ascii"), None, family, socket.SOCK_DGRAM)
    except (OSError, ValueError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in told))


def proxies(source: Source) -> dict[str, str]:
    """Return {name of the variable: host:port} of the proxies set in the environment or in /etc/environment.

    Credentials are left out; a value that cannot be understood is empty.
    """
    told = {**parse_os_release(source.head(_ENVIRONMENT, 1 << 16)), **os.environ}
    return {name: proxy_place(value) for name, value in sorted(told.items()) if name.lower() in PROXY_NAMES and value}


def proxy_place(value: str) -> str:
    """Return host:port of a proxy's URL, empty when it is not plain which part that is."""
    authority, _slash, rest = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://", "", value.strip()).partition("/")
    # All before the last @ may be a password; one that holds a slash makes the rest a guess.
    place = authority.rsplit("@", 1)[-1]
    return place if "@" not in rest and _PLACE.fullmatch(place) else ""
