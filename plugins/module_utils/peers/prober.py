# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes between one host and its peers: what the module peer_probe does, once on every host in any order.

A host that begins before its peers finds nobody listening and is soon over; its listener stays behind and answers those
that come later, who then report both directions. So the results of all hosts together hold every pair (see matrix).
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from typing import Callable

from ..machine import detached
from . import listener, visitor
from .devices import ping_devices
from .matrix import better, by_pair
from .protocol import MARKER, PROCESS_NAME, Secret

VISITS_AT_ONCE = 8  # a visit takes milliseconds, and many hosts may share a machine
MOST_PEERS = 1024  # more hosts than any group has; bounds the work
GRACE_S = 2.0  # after its window, before the kernel ends a listener


def probe(settings: dict, clock: Callable[[], float] = time.time) -> dict:
    """Probe between this host and its peers and return what was found; see the module peer_probe for both.

    ``settings``: host, address, peers, ports, run, token, window, settle, timeout, and those of the devices.
    """
    return Prober(settings, clock).run()


class Prober:
    """One run on one host."""

    def __init__(self, settings: dict, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.clock = clock
        self.began = time.monotonic()
        self.end = self.began + settings["timeout"]
        # Who is visited probes back, so no visit may outlast the listener of this host.
        self.visits_end = self.began + min(settings["timeout"], settings["window"])
        self.over = False  # what visits find from then on does not count
        self.problems: list[str] = []
        self.records: dict[str, list[dict]] = {}  # of visits made and taken, by peer
        self.met: set[str] = set()
        self.changed = threading.Condition()
        self.peers = self._peers()
        self.unvisited: set[str] = set()
        self.listening: list[dict] = []
        self.group: visitor.Group | None = None

    def run(self) -> dict:
        """Probe and return the result."""
        pings: dict = {"device_pings": [], "not_probed": [], "problems": []}
        if self.peers:
            link = self._open()
            self._visit_all(link)
            pings = ping_devices(self.settings, self.end)
            if link is not None:
                link.close()
        return self._result(pings)

    def _peers(self) -> dict[str, str]:
        """Return the addresses of the other hosts; those of no use are a problem each."""
        found: dict[str, str] = {}
        peers = self.settings["peers"]
        if len(peers) > MOST_PEERS:
            self.problems.append(f"only the first {MOST_PEERS} of {len(peers)} peers are probed")
        for entry in peers[:MOST_PEERS]:
            name, address = str(entry.get("host") or ""), str(entry.get("address") or "")
            if not name or name == self.settings["host"]:
                continue
            try:
                socket.inet_pton(socket.AF_INET, address)
            except OSError:
                self.problems.append(f"{address!r} of the peer {name} is no IPv4 address")
                continue
            found[name] = address
        return found

    # The listener -------------------------------------------------------------------------------------------------

    def _open(self) -> socket.socket | None:
        """Listen in a process of its own; return the connection to it, None when there is no port to listen on."""
        settings = self.settings
        ports = list(dict.fromkeys(settings["ports"]))
        sockets, self.listening = listener.open_ports(settings["address"], ports)
        self.group = visitor.Group(
            host=settings["host"],
            address=settings["address"],
            peers=self.peers,
            ports=[port for port in ports if 0 < port < 65536],
            listening={entry["port"]: entry["state"] for entry in self.listening},
            secret=Secret(settings["token"], settings["run"]),
            clock=self.clock,
        )
        if not sockets:
            return None
        here, there = socket.socketpair()
        stay = listener.Listener(self.group, sockets, there, settings["window"])
        title = f"{MARKER} {settings['address']} run {settings['run']} host {settings['host']}"
        most = settings["window"] + GRACE_S
        try:
            detached.run(stay.serve, stay.files(), PROCESS_NAME, title, most)
        except OSError as error:
            self.problems.append(f"no listener can be started: {error.strerror}")
            here.close()
            here = None
        finally:
            for sock in (*sockets, there):
                sock.close()
        return here

    def _hear(self, link: socket.socket) -> None:
        """Note the pairs that the listener of this host completes, until it ends."""
        with link.makefile("rb") as lines:
            try:
                for line in lines:
                    said = json.loads(line)
                    self._note(said["met"], said["record"])
            except (OSError, ValueError):
                return

    def _note(self, name: str, record: dict) -> None:
        with self.changed:
            if not self.over:
                self.records.setdefault(name, []).append(record)
                self.met.add(name)
                self.changed.notify_all()

    # Visits -------------------------------------------------------------------------------------------------------

    def _visit_all(self, link: socket.socket | None) -> None:
        """Visit every peer, and those that something is in the way to a second time: a busy machine may be late."""
        if link is not None:
            threading.Thread(target=self._hear, args=(link,), daemon=True).start()
        unsettled = self._visit_some(set(self.peers), link)
        if link is not None:
            # They may come by themselves.
            with self.changed:
                self.changed.wait_for(
                    lambda: not (unsettled - self.met), min(self.settings["settle"], self._remaining())
                )
        self._visit_some(unsettled - self.met, link)
        with self.changed:
            self.over = True
        if link is not None:
            with contextlib.suppress(OSError):  # the listener may be over, having met everybody
                link.shutdown(socket.SHUT_WR)

    def _visit_some(self, names: set[str], link: socket.socket | None) -> set[str]:
        """Visit the peers ``names`` until the time is up; return those that something is in the way to."""
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        for name in sorted(names):
            waiting.put(name)
        unsettled: set[str] = set()
        with self.changed:
            self.unvisited |= names
        for _worker in range(min(VISITS_AT_ONCE, len(names))):
            threading.Thread(target=self._work, args=(waiting, unsettled, link), daemon=True).start()
        with self.changed:
            self.changed.wait_for(lambda: not self.unvisited, self._remaining())
            return set(unsettled)

    def _work(self, waiting: queue.SimpleQueue, unsettled: set[str], link: socket.socket | None) -> None:
        while self._remaining() > 0:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            with self.changed:
                come = name in self.met
            # One that has come meanwhile has completed the pair.
            found = None if come else visitor.visit(self.group, name)
            with self.changed:
                if self.over:
                    return
                self.unvisited.discard(name)
                self.changed.notify_all()
                if found is None:
                    continue
                self.records.setdefault(name, []).append(found)
                if found["met"]:
                    self.met.add(name)
                    self._tell(link, name)
                if found["unsettled"]:
                    unsettled.add(name)

    @staticmethod
    def _tell(link: socket.socket | None, name: str) -> None:
        """Tell the listener of this host that it need not wait for a peer any more."""
        if link is None:
            return
        with contextlib.suppress(OSError):  # it may have ended
            link.sendall(json.dumps({"met": name}).encode() + b"\n")

    def _remaining(self) -> float:
        return max(0.0, self.visits_end - time.monotonic())

    # The result ---------------------------------------------------------------------------------------------------

    def _result(self, pings: dict) -> dict:
        with self.changed:
            records = [record for name in sorted(self.records) for record in self.records[name]]
            # A talk that broke off is none where the same pair was completed from the other side.
            told = [
                record
                for name, all_of_it in self.records.items()
                for record in all_of_it
                if name not in self.met or record.get("met", True)
            ]
            met = sorted(self.met)
            unvisited = sorted(self.unvisited)
        late = f"no end within the {self.visits_end - self.began:g} s of the probe"
        never = [
            {"from": self.settings["host"], "to": name, "port": port, "ok": None, "reason": late, "ms": None}
            for name in unvisited
            for port in self.group.ports
        ]
        connections = [entry for record in records for entry in record["connections"]] + never
        problems = self.problems + [text for record in told for text in record["problems"]] + pings["problems"]
        return {
            "connections": by_pair(connections, ("from", "to", "port"), better),
            "clocks": by_pair([entry for record in records for entry in record["clocks"]], ("from", "to"), better),
            "paths": by_pair([entry for record in records for entry in record["paths"]], ("from", "to"), better),
            "device_pings": pings["device_pings"],
            "not_probed": pings["not_probed"],
            "listening": self.listening,
            "peers_met": met,
            "seconds": round(time.monotonic() - self.began, 3),
            "problems": list(dict.fromkeys(problems)),
        }
