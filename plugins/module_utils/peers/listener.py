# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Listens on the ports of the plan for the moment of the probe, in a process of its own.

The module of one host may be over long before the next host's begins, so the listener stays behind: it ends by itself
when every peer has met this host, at the end of its window, or by SIGTERM. It keeps nothing but its sockets. Its
command line begins with the marker and its own address, so it can be told from other programs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time

from . import visitor
from .protocol import (
    HELLO_BYTES,
    MARKER,
    Channel,
    ProtocolError,
    checked_connections,
    drop,
    has_verdict,
    number_of,
    text_of,
)
from .visitor import Group

HELLO_S = 2.0
IDLE_S = 15.0  # a visitor measures its path between two messages: up to 3 s of payload and 8 s of knocking
REQUESTS = 16  # of one conversation; a visit makes 6
MOST_CONNECTIONS = 400  # below the common limit of 1024 open files
CALL_S = 0.5  # between two calls on the peers that have not been met
FIRST_CALL_S = 1.0  # later than a visit of a host that is well
GIVE_WAY_S = 1.0  # a listener of an earlier run ends within milliseconds
BACKLOG = 128
_TCP_LISTEN = "0A"  # include/net/tcp_states.h
_REASONS = {
    errno.EADDRINUSE: ("in_use", "in use on this host already"),
    errno.EADDRNOTAVAIL: ("refused", "{address} is no address of this host"),
    errno.EACCES: ("refused", "this user may not listen on it"),
}


def open_ports(address: str, ports: list[int]) -> tuple[list[socket.socket], list[dict]]:
    """Listen on every port; return the sockets and [{port, state, reason}] of all ports."""
    sockets, states = [], []
    waits_until = 0.0
    for port in ports:
        sock, code = _listen(address, port)
        if code == errno.EADDRINUSE and end_leftovers(address, port):
            waits_until = time.monotonic() + GIVE_WAY_S
        # The sockets of a process that ends are closed one by one, after it can no longer be seen.
        while code == errno.EADDRINUSE and time.monotonic() < waits_until:
            time.sleep(0.01)
            sock, code = _listen(address, port)
        if sock is not None:
            sockets.append(sock)
            states.append({"port": port, "state": "listening", "reason": ""})
            continue
        state, reason = _REASONS.get(code, ("refused", os.strerror(code) if code else "no IPv4 address and TCP port"))
        states.append({"port": port, "state": state, "reason": reason.format(address=address)})
    return sockets, states


def _listen(address: str, port: int) -> tuple[socket.socket | None, int]:
    """Return a listening socket, or None and why not as errno (0: no such address or port can be)."""
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return None, error.errno
    try:
        if not port > 0:
            raise OverflowError("0 would be any port")
        socket.inet_pton(socket.AF_INET, address)
        # Connections of before that are closing do not count as in use; another listener does all the same.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except (OSError, OverflowError) as error:
        sock.close()
        return None, getattr(error, "errno", None) or 0
    return sock, 0


def end_leftovers(address: str, port: int) -> bool:
    """End the listeners of earlier runs that have this address and port; True when there was one."""
    left = leftovers(address, port)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    return bool(left)


def leftovers(address: str, port: int) -> list[int]:
    """Return the processes of this user and this network that listen there for a probe."""
    start = f"{MARKER} {address} ".encode()
    inodes = _listening_inodes(address, port)
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                mine = stream.read(200).startswith(start)
            if mine and os.stat(f"/proc/{pid}").st_uid == os.geteuid() and _network(pid) == _network("self"):
                files = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
                if files & inodes:
                    found.append(int(pid))
    return found


def _listening_inodes(address: str, port: int) -> set[str]:
    """Return the sockets that listen on an address and port, in the form of the links in /proc/PID/fd."""
    # The kernel prints the address as a number in the byte order of the machine (net/ipv4/tcp_ipv4.c).
    number = int.from_bytes(socket.inet_aton(address), sys.byteorder)
    wanted = [f"{number:08X}:{port:04X}", _TCP_LISTEN]
    try:
        with open("/proc/net/tcp", encoding="ascii", errors="replace") as stream:
            lines = [line.split() for line in stream]
    except OSError:
        return set()
    return {f"socket:[{fields[9]}]" for fields in lines if len(fields) > 9 and [fields[1], fields[3]] == wanted}


def _network(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


class Listener:
    """Answers the visitors of one host, and calls on the peers that have not come.

    :param sockets: the listening sockets
    :param link: socket to the module of this host; a line of JSON for each pair that is complete, both ways; the
        module shuts its side down when it visits no more
    :param window: seconds after which it ends
    """

    def __init__(self, group: Group, sockets: list[socket.socket], link: socket.socket, window: float) -> None:
        self.group = group
        self.sockets = sockets
        self.link = link
        self.end = time.monotonic() + window
        self.pending = set(group.peers)
        self._lock = threading.Lock()
        self._linked = threading.Lock()
        self._busy: dict[str, int] = {}  # connections by the peer they are with, "" before it has said its name
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._visiting = True  # the module of this host; its peers probe back meanwhile
        self._calls = 0
        self._calling = False
        self._next_call = time.monotonic() + FIRST_CALL_S

    def files(self) -> list[int]:
        """Return the open files that it needs."""
        return [sock.fileno() for sock in (*self.sockets, self.link, self._wake_reader, self._wake_writer)]

    def serve(self) -> None:
        """Answer until all peers have been met or the window is over."""
        heard = bytearray()
        with selectors.DefaultSelector() as selector:
            for sock in (*self.sockets, self.link, self._wake_reader):
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ)
            while not self._over():
                now = time.monotonic()
                wait = min(self.end, self.end if self._calling else self._next_call) - now
                for key, _events in selector.select(max(0.0, wait)):
                    if key.fileobj is self._wake_reader:
                        self._wake_reader.recv(4096)
                    elif key.fileobj is self.link:
                        if not self._hear(heard):
                            selector.unregister(self.link)
                            self._visiting = False
                    else:
                        self._accept(key.fileobj)
                self._call()

    def _over(self) -> bool:
        with self._lock:
            idle = not self.pending and not self._busy and not self._calling and not self._visiting
        return idle or time.monotonic() >= self.end

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")

    # The module of this host --------------------------------------------------------------------------------------

    def _hear(self, heard: bytearray) -> bool:
        """Take what the module says: the peers that it has met; False when it visits no more."""
        try:
            data = self.link.recv(65_536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        heard += data
        while b"\n" in heard:
            line, _newline, rest = bytes(heard).partition(b"\n")
            heard[:] = rest
            self._met(json.loads(line)["met"])
        return bool(data)

    def _tell(self, name: str, record: dict) -> None:
        """Tell the module of a pair that is complete; it may be over, and then nobody asks.

        A line is far smaller than the buffer of the socket, so that this never waits.
        """
        line = json.dumps({"met": name, "record": record}).encode() + b"\n"
        with self._linked, contextlib.suppress(OSError):
            self.link.sendall(line)

    def _met(self, name: str) -> None:
        with self._lock:
            self.pending.discard(name)
        self._wake()

    def _count(self, name: str, change: int) -> None:
        with self._lock:
            self._busy[name] = self._busy.get(name, 0) + change
            if not self._busy[name]:
                del self._busy[name]

    # Visitors -----------------------------------------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _address = listening.accept()
        except BlockingIOError:
            return
        except OSError:
            time.sleep(0.05)  # out of files: those of others close soon
            return
        with self._lock:
            many = sum(self._busy.values()) >= MOST_CONNECTIONS
        if many:
            drop(sock)
            return
        self._count("", 1)
        threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        name = ""
        channel = Channel(sock, self.group.secret, visiting=False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hello = channel.receive(HELLO_S, HELLO_BYTES)
            said = text_of(hello.get("name"))
            channel.send({"kind": "welcome", **self.group.introduction(hello.get("brief") is True)}, HELLO_S)
            if said in self.group.peers:
                self._count(said, 1)
                self._count("", -1)
                name = said
                Conversation(self, name, channel, visitor.states_of(hello.get("listening"))).hold()
        except (OSError, ProtocolError):
            pass  # the visitor has what it came for, or is none
        finally:
            drop(sock)
            self._count(name, -1)
            self._wake()

    def complete(self, name: str, record: dict) -> None:
        """Note that both directions of the pair with a peer are known, by ``record``."""
        self._tell(name, record)
        self._met(name)

    # Calls on peers that have not come ----------------------------------------------------------------------------

    def _call(self) -> None:
        """Now and then see in the background whether a peer that is pending listens by now."""
        if self._calling or time.monotonic() < self._next_call:
            return
        with self._lock:
            absent = [name for name in self.group.peers if name in self.pending and name not in self._busy]
        self._next_call = time.monotonic() + CALL_S
        if absent:
            self._calling = True
            threading.Thread(target=self._call_on, args=(absent,), daemon=True).start()

    def _call_on(self, absent: list[str]) -> None:
        try:
            # One port each, another one every time: a single one may be blocked.
            port = self.group.ports[self._calls % len(self.group.ports)]
            self._calls += 1
            knocks = visitor.knock(self.group, [(name, port) for name in absent], connect_s=1.0)
            there = [one.name for one in knocks if one.channel]
            for one in knocks:
                one.close()
            for name in there:
                found = visitor.visit(self.group, name)
                if found["met"]:
                    self.complete(name, found)
        finally:
            self._next_call = time.monotonic() + CALL_S
            self._calling = False
            self._wake()


class Conversation:
    """What is answered to one peer over one connection."""

    def __init__(self, listener: Listener, name: str, channel: Channel, states: dict[int, str]) -> None:
        self.listener, self.group = listener, listener.group
        self.name, self.channel, self.states = name, channel, states
        self.connections: list[dict] = []

    def hold(self) -> None:
        """Answer until the visitor leaves."""
        answers = {
            "clock": self._clock,
            "take": self._take,
            "give": self._give,
            "mtu": self._mtu,
            "probe": self._probe,
            "bye": self._bye,
        }
        for _request in range(REQUESTS):
            message = self.channel.receive(IDLE_S)
            answer = answers.get(str(message.get("kind")))
            if answer is None:
                return
            answer(message)

    def _say(self, **message) -> None:
        self.channel.send(message, visitor.ANSWER_S)

    def _clock(self, _message: dict) -> None:
        self._say(kind="clock", time=self.group.clock())

    def _take(self, _message: dict) -> None:
        self.channel.receive_payload(IDLE_S)
        self._say(kind="taken")

    def _give(self, _message: dict) -> None:
        self._say(kind="given", mtu=self.channel.mtu())
        self.channel.send_payload(IDLE_S)

    def _mtu(self, _message: dict) -> None:
        self._say(kind="mtu", mtu=self.channel.mtu())

    def _probe(self, _message: dict) -> None:
        """Connect to the visitor's ports, at the address that this host knows of it."""
        knocks, _states = visitor.sound_out(self.group, self.name, self.states)
        for one in knocks:
            one.close()
        self.connections = [one.record(self.group.host) for one in knocks]
        self._say(kind="report", found=self.connections)

    def _bye(self, message: dict) -> None:
        """Take what the visitor found, so that this host knows it too."""
        pair = {"from": self.name, "to": self.group.host}
        theirs = [{**pair, **entry} for entry in checked_connections(message.get("connections"), self.group.ports)]
        record = {
            "connections": self.connections + theirs,
            "clocks": [{**pair, **entry} for entry in _checked_clocks(message.get("clocks"))],
            "paths": _checked_paths(message.get("paths"), self.name, self.group.host),
            "problems": [],
        }
        if self.connections:
            self.listener.complete(self.name, record)
        self._say(kind="bye")


def _checked_clocks(said: object) -> list[dict]:
    kept = []
    for entry in said[:1] if isinstance(said, list) else []:
        if not isinstance(entry, dict):
            continue
        found = {key: number_of(entry.get(key)) for key in ("offset_s", "uncertainty_s")}
        if None not in found.values():
            kept.append(found)
    return kept


def _checked_paths(said: object, visiting: str, here: str) -> list[dict]:
    """Return the two directions of a visitor's paths that are well formed."""
    kept = []
    ends = {visiting: here, here: visiting}
    for entry in said[:2] if isinstance(said, list) else []:
        if not isinstance(entry, dict) or str(entry.get("from")) not in ends or not has_verdict(entry):
            continue
        start = str(entry["from"])
        mtu, passes = (number_of(entry.get(key)) for key in ("mtu", "passes"))
        kept.append(
            {
                "from": start,
                "to": ends[start],
                "ok": None if entry["ok"] is None else bool(entry["ok"]),
                "mtu": None if mtu is None else int(mtu),
                "passes": None if passes is None else int(passes),
                "reason": text_of(entry.get("reason")),
            }
        )
    return kept
