# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks the kernel's routing socket for IPv4 addresses and for the way to an address (rtnetlink(7))."""

from __future__ import annotations

import os
import socket
import struct

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 22, 24, 26
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF = 1, 4
_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_SECONDS = 2.0
_MAX_ANSWERS = 1000  # of up to 64 KiB each


def addresses4() -> list[dict]:
    """Return every IPv4 address {index (of the interface), address, prefix}.

    :raises OSError: where the kernel does not answer
    """
    request = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
    found = []
    for kind, payload in _ask(_GETADDR, _DUMP, request):
        address = parse_address(payload) if kind == _NEWADDR else None
        if address:
            found.append(address)
    return found


def interface_to(family: int, address: str) -> int | None:
    """Return the number of the interface that packets to ``address`` leave by, None where no route leads there.

    :raises OSError: where the kernel does not answer
    """
    raw = socket.inet_pton(family, address)
    request = _ROUTE.pack(family, len(raw) * 8, 0, 0, 0, 0, 0, 0, 0)
    request += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(raw), _RTA_DST) + raw
    for kind, payload in _ask(_GETROUTE, 0, request):
        if kind == _NEWROUTE:
            return parse_route(payload)
    return None


def parse_address(payload: bytes) -> dict | None:
    """Return {index, address, prefix} of one RTM_NEWADDR message, None for one that is no IPv4 address."""
    if len(payload) < _ADDRESS.size:
        return None
    family, prefix, _flags, _scope, index = _ADDRESS.unpack_from(payload)
    told = _attributes(payload[_ADDRESS.size :])
    # On a point-to-point link IFA_ADDRESS is the other end.
    raw = told.get(_IFA_LOCAL, told.get(_IFA_ADDRESS, b""))
    if family != socket.AF_INET or len(raw) != 4 or prefix > 32:
        return None
    return {"index": index, "address": socket.inet_ntoa(raw), "prefix": prefix}


def parse_route(payload: bytes) -> int | None:
    """Return the number of the interface of one RTM_NEWROUTE message."""
    raw = _attributes(payload[_ROUTE.size :]).get(_RTA_OIF, b"")
    return struct.unpack("=I", raw)[0] if len(raw) == 4 else None


def messages(raw: bytes) -> list[tuple[int, bytes]]:
    """Return the (kind, payload) of each whole message in what the socket gave."""
    found = []
    while len(raw) >= _HEADER.size:
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(raw)
        if not _HEADER.size <= length <= len(raw):
            break
        found.append((kind, raw[_HEADER.size : length]))
        raw = raw[(length + 3) & ~3 :]
    return found


def _attributes(raw: bytes) -> dict[int, bytes]:
    found = {}
    while len(raw) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(raw)
        if not _ATTRIBUTE.size <= length <= len(raw):
            break
        found[kind] = raw[_ATTRIBUTE.size : length]
        raw = raw[(length + 3) & ~3 :]
    return found


def _ask(kind: int, flags: int, request: bytes) -> list[tuple[int, bytes]]:
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as asker:
        asker.settimeout(_SECONDS)
        asker.bind((0, 0))
        asker.send(_HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | flags, 1, 0) + request)
        for _turn in range(_MAX_ANSWERS):
            for answer, payload in messages(asker.recv(1 << 16)):
                if answer == _ERROR:
                    _refused(payload)
                if answer in (_DONE, _ERROR):
                    return found
                found.append((answer, payload))
            if not flags & _DUMP:
                break
    return found


def _refused(payload: bytes) -> None:
    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code > 0:
        raise OSError(code, os.strerror(code))
