# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom a host of the chain takes from: the one before it, else the next one up, and back as soon as that is sensible.

Pure: what is seen of the links and the time go in, addresses come out.
"""

from __future__ import annotations

from typing import NamedTuple

# Seconds without a connection, or with one that owes pieces and brings none. Recommended: 2 to 4 s without a peer.
SILENT_S = 3.0
# Seconds that one may have nothing new. It waits itself then, most likely for one above it that has just died, and
# will go around that one by itself within SILENT_S for each dead one; going around it too would double the traffic.
EMPTY_S = 20.0

# How far behind this host the one before it may be to be taken from again. Two that take from the same host do so in
# step, the later one for ever a little behind, and that host sends everything twice until one of them waits.
NEAR_BYTES = 64 << 20


class Link(NamedTuple):
    """What is seen of the connection with one address.

    ``offers``: it has pieces that are missing here. ``received``: payload bytes that it brought, by any count that
    changes when more come. ``near``: it lacks no more than NEAR_BYTES of what is here.
    """

    connected: bool = False
    offers: bool = False
    received: int = 0
    near: bool = False


ABSENT = Link()


def order(addresses: list[str], own: str) -> list[str]:
    """Return whom the host ``own`` takes from, best first: those before it, the nearest first, then those behind it.

    Those behind it only ever have more than those before it where files of the latter were lost or damaged.
    """
    position = addresses.index(own)
    return addresses[:position][::-1] + addresses[position + 1 :]


class Choice:
    """Decides, step by step, with whom to be connected.

    :param addresses: as from ``order``
    :param before: how many of them come before this host in the chain
    """

    def __init__(self, addresses: list[str], before: int, now: float) -> None:
        self.addresses = addresses
        self.before = before
        self.current = 0
        self._since = now
        self._met = False
        self._seen: dict[str, int] = {}
        self._stalled: set[str] = set()

    def step(self, now: float, links: dict[str, Link]) -> list[str]:
        """Return the addresses to be connected with now: the one to take from, and those before it in the order.

        The latter are tried because each of them is better as soon as it has, or is about to have, something to give.
        One that was left although it could be reached is believed only when it brings something.
        """
        there = {address: link.received for address, link in links.items() if link.connected}
        grown = {address for address, received in there.items() if received != self._seen.get(address, 0)}
        self._seen.update(there)
        self._stalled -= grown
        if not self.addresses:
            return []
        better = next((at for at in range(self.current) if self._gives(links, at, grown)), None)
        if better is not None:
            self._take(better, now)
        address = self.addresses[self.current]
        link = links.get(address, ABSENT)
        if address in grown:
            self._take(self.current, now)
        elif now - self._since >= (EMPTY_S if link.connected and not link.offers else SILENT_S):
            if self._met or link.connected:
                self._stalled.add(address)
            # From the last one nothing leads further; then all are tried at once, and the best that gives is taken.
            self._take(min(self.current + 1, len(self.addresses) - 1), now)
        self._met |= link.connected
        return self.addresses[: self.current + 1]

    def _gives(self, links: dict[str, Link], at: int, grown: set[str]) -> bool:
        address = self.addresses[at]
        link = links.get(address, ABSENT)
        may = link.connected and (link.offers or link.near) and address not in self._stalled
        return may or address in grown

    def _take(self, at: int, now: float) -> None:
        self.current, self._since, self._met = at, now, False

    def allowed(self, wanted: list[str]) -> list[str]:
        """Return whose connections to keep and accept: those wanted, and all behind this host, which take from it.

        One before this host that is not wanted must go, or it would bring what the better one brings as well.
        """
        return sorted({*wanted, *self.addresses[self.before :]})
