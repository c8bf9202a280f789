# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From which host of the chain to take which files next, with the engine rsync. Pure: notes and the time go in.

Each host publishes a note: the files that it holds whole, and whether it has hope of the others, that is, takes one
now or waits for a host before it that does. So a host tells one before it that is only slow from one that is stuck,
and does not go around the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

# Seconds that a host may be silent, at the start of all and later, before it is gone around: agents of a site start
# within some seconds, and a whole file is what is sent twice for one that was only late.
START_S, SILENT_S = 6.0, 3.0
# Seconds until one that was gone around is asked again.
AGAIN_S = 3.0
# A hope that was told so long ago is none.
STALE_S = 10.0
# Seconds after which a file that was wrong from all that had it counts as lost.
LOST_S = 30.0
# What one run of rsync takes at most of files that are short: they are passed on when it has ended, and to start it
# costs some 50 ms.
BATCH_BYTES, BATCH_FILES = 8 << 20, 100
# A note has 3,001 paths of 3,000 bytes at the very most.
MOST_NOTE_BYTES = 16 << 20


class Note(NamedTuple):
    """What a host says of itself: paths that it holds whole, and whether more are on their way to it."""

    files: frozenset[str]
    hopeful: bool


class Next(NamedTuple):
    """Take ``paths`` from ``address``; without paths wait for that host, without an address for any."""

    address: str = ""
    paths: tuple[str, ...] = ()


def encode(files: Iterable[str], hopeful: bool) -> str:
    """Return a note as text."""
    return json.dumps({"files": sorted(files), "hopeful": hopeful})


def decode(text: str) -> Note | None:
    """Return the note in ``text``, None where it is none."""
    try:
        data = json.loads(text)
        files, hopeful = data["files"], data["hopeful"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(files, list) or not isinstance(hopeful, bool):
        return None
    return Note(frozenset(path for path in files if isinstance(path, str)), hopeful)


class Sources:
    """What is known of the other hosts.

    :param addresses: from chain.order: those before this host, the nearest first, then those behind it
    :param before: how many of them come before this host
    """

    def __init__(self, addresses: list[str], before: int, now: float) -> None:
        self.addresses = addresses
        self.before = before
        # Until when a silent host is waited for.
        self._patience = dict.fromkeys(addresses, now + START_S)
        self._notes: dict[str, tuple[Note, float]] = {}
        self._silent: dict[str, float] = {}
        self._wrong: dict[str, dict[str, float]] = {}

    def heard(self, address: str, note: Note, now: float) -> None:
        """A host has answered with its note."""
        self._silent.pop(address, None)
        self._notes[address] = (note, now)
        self._patience[address] = now + SILENT_S

    def silent(self, address: str, now: float) -> None:
        """A host has not answered, or a transfer from it was cut off."""
        self._notes.pop(address, None)
        self._silent[address] = now

    def lacks(self, address: str, path: str) -> None:
        """A host does not have a file that it has named."""
        if address in self._notes:
            note, when = self._notes[address]
            self._notes[address] = (note._replace(files=note.files - {path}), when)

    def wrong(self, address: str, path: str, now: float) -> None:
        """What a host has sent for ``path`` was not what the lock says; nothing more is taken for it from there."""
        self._wrong.setdefault(path, {})[address] = now

    def wrong_from(self, path: str) -> list[str]:
        """Return the addresses that sent something wrong for ``path``."""
        return sorted(self._wrong.get(path, {}))

    def banned(self, address: str) -> bool:
        """True for a host that sent something wrong."""
        return any(address in wrong for wrong in self._wrong.values())

    def may_ask(self, address: str, now: float) -> bool:
        """True unless a host that was gone around has just failed to answer."""
        return now < self._patience[address] or now - self._silent.get(address, now - AGAIN_S) >= AGAIN_S

    def suffices(self, address: str, missing: Iterable[str], now: float) -> bool:
        """True when, with what this host has said, no other one after it need be asked."""
        return bool(self._offers(address, missing)) or self._hopeful(address, now)

    def next(self, missing: dict[str, int], now: float) -> Next:
        """Return what to do next.

        :param missing: {path: bytes} of the files still to come, in the order in which they are wanted
        """
        for address in self.addresses:
            offers = self._offers(address, missing)
            if offers:
                return Next(address, _batch(offers, missing))
            if self._hopeful(address, now):
                return Next(address)
        return Next()

    def lost(self, missing: Iterable[str], now: float) -> list[str]:
        """Return the paths that were wrong from all that had them, with nobody left who might bring them."""
        if any(self._hopeful(address, now) for address in self.addresses):
            return []
        return [
            path
            for path in missing
            if path in self._wrong
            and now - max(self._wrong[path].values()) >= LOST_S
            and not any(self._offers(address, [path]) for address in self.addresses)
        ]

    def _offers(self, address: str, missing: Iterable[str]) -> list[str]:
        note = self._notes.get(address)
        if note is None:
            return []
        return [path for path in missing if path in note[0].files and address not in self._wrong.get(path, {})]

    def _hopeful(self, address: str, now: float) -> bool:
        """True for a host that is worth waiting for: one that has hope itself, or may only be late.

        Only of hosts before this one: one behind it waits for this one, and both would wait for ever.
        """
        if self.addresses.index(address) >= self.before or self.banned(address):
            return False
        if address not in self._notes:
            return now < self._patience[address]
        note, when = self._notes[address]
        return note.hopeful and now - when < STALE_S


def _batch(paths: list[str], sizes: dict[str, int]) -> tuple[str, ...]:
    """Return the first of ``paths``, and those after it as long as together they are short."""
    taken, total = [], 0
    for path in paths[:BATCH_FILES]:
        total += sizes[path]
        if taken and total > BATCH_BYTES:
            break
        taken.append(path)
    return tuple(taken)
