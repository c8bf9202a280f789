# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host visits another: connects to its ports, compares clocks, measures the path, and lets it probe back.

Nothing here raises for what a peer does or for how the network is; what was found is in the records that come back.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from typing import Callable, NamedTuple

from .protocol import HELLO_BYTES, Channel, ProtocolError, Secret, checked_connections, drop, number_of, text_of

CONNECT_S = 2.0  # Linux repeats a lost SYN after 1 s (tcp_retries, RFC 6298), so one loss is forgiven
ANSWER_S = 2.0  # for the greeting of a listener, which takes milliseconds; a stranger may never answer
REPORT_S = 8.0  # the peer's own connects (twice CONNECT_S + ANSWER_S at the worst)
STALL_S = 1.0  # the least retransmission timeout is 0.2 s: a payload that lost a segment is through by then
SEGMENTS = (1400, 1200, 512)  # TCP payload: fits tunnels over 1500 bytes, IPv6's least MTU of 1280, and any IPv4 path
SMALL_SEGMENT = 512  # for the conversation itself, which must pass where large segments do not
CLOCK_ROUNDS = 3
_OWN_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE}
STRANGER = "a program accepts there, but it is not the listener of this probe"
NOT_YET = "refused: nobody listens there yet, or a packet filter refuses"


class Group(NamedTuple):
    """One host's view of the group that is probed."""

    host: str  # inventory name of this host
    address: str  # IPv4 address of this host
    peers: dict[str, str]  # inventory name to IPv4 address, this host left out
    ports: list[int]  # TCP ports of the plan
    listening: dict[int, str]  # state of each port on this host: listening, in_use or refused
    secret: Secret
    clock: Callable[[], float]

    def introduction(self, brief: bool) -> dict:
        """Return what this host says of itself; ``brief`` leaves out what may not fit into one segment."""
        said = {"name": self.host, "address": self.address}
        return said if brief else dict(said, listening={str(port): state for port, state in self.listening.items()})


class Knock:
    """One attempt to connect to a port of a peer and to be greeted by its listener.

    ``ok`` is None while it has not come to an end; ``accepted`` tells whether the connection was made, ``channel`` is
    open when the peer's own listener greeted, ``ms`` is how long the connect took.
    """

    def __init__(self, name: str, address: str, port: int) -> None:
        self.name, self.address, self.port = name, address, port
        self.ok: bool | None = None
        self.reason = ""
        self.ms: float | None = None
        self.accepted = self.refused = False
        self.channel: Channel | None = None
        self.welcome: dict = {}
        self.sock: socket.socket | None = None
        self.end = 0.0
        self.began = 0.0

    def fail(self, ok: bool | None, reason: str) -> None:
        """Come to an end without a greeting."""
        self.ok, self.reason = ok, reason
        self.close()

    def close(self) -> None:
        """Drop the connection, if there is one."""
        if self.sock is not None:
            drop(self.sock)
        self.sock = self.channel = None

    def record(self, host: str) -> dict:
        """Return the finding as a connection from ``host``."""
        found = {"port": self.port, "ok": self.ok, "reason": self.reason, "ms": self.ms}
        return {"from": host, "to": self.name, **found}


def knock(
    group: Group,
    targets: list[tuple[str, int]],
    connect_s: float = CONNECT_S,
    segment: int = SMALL_SEGMENT,
    brief: bool = False,
) -> list[Knock]:
    """Connect to all ``targets`` (name of a peer, port) at the same time and greet whoever accepts.

    ``segment`` bounds the TCP segments of both directions, 0 leaves them to the kernel.
    """
    knocks = [Knock(name, group.peers[name], port) for name, port in targets]
    with selectors.DefaultSelector() as selector:
        for one in knocks:
            _begin(group, one, selector, connect_s, segment)
        while selector.get_map():
            nearest = min(key.data.end for key in selector.get_map().values())
            for key, _events in selector.select(max(0.0, nearest - time.monotonic())):
                _go_on(group, key.data, selector, brief)
            now = time.monotonic()
            for one in [key.data for key in selector.get_map().values() if key.data.end <= now]:
                selector.unregister(one.sock)
                if one.accepted:
                    one.fail(True, STRANGER)
                else:
                    one.fail(False, f"no answer within {connect_s:g} s: dropped on the way, or the host is down")
    return knocks


def _begin(group: Group, one: Knock, selector: selectors.BaseSelector, connect_s: float, segment: int) -> None:
    one.began = time.monotonic()
    one.end = one.began + connect_s
    try:
        one.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.sock.setblocking(False)
        one.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if segment:
            one.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        # The plan's own address, so that the path between the addresses of the plan is what is measured.
        one.sock.bind((group.address, 0))
        code = one.sock.connect_ex((one.address, one.port))
    except (OSError, OverflowError) as error:
        one.fail(None, f"this host cannot connect from {group.address}: {getattr(error, 'strerror', '') or error}")
        return
    if code in (0, errno.EINPROGRESS):
        selector.register(one.sock, selectors.EVENT_WRITE, one)
    else:
        _not_connected(one, code)


def _not_connected(one: Knock, code: int) -> None:
    one.refused = code == errno.ECONNREFUSED
    if one.refused:
        one.fail(None, NOT_YET)
    elif code in _OWN_TROUBLE:
        one.fail(None, f"this host cannot connect: {os.strerror(code)}")
    else:
        one.fail(False, os.strerror(code))


def _go_on(group: Group, one: Knock, selector: selectors.BaseSelector, brief: bool) -> None:
    """Take the next step of a knock whose socket is ready."""
    if not one.accepted:
        code = one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            selector.unregister(one.sock)
            _not_connected(one, code)
            return
        one.accepted = True
        one.ms = round((time.monotonic() - one.began) * 1000, 2)
        one.end = time.monotonic() + ANSWER_S
        one.channel = Channel(one.sock, group.secret, visiting=True)
        selector.modify(one.sock, selectors.EVENT_READ, one)
    try:
        _greet(group, one, brief)
    except BlockingIOError:
        return
    except (OSError, ProtocolError):
        selector.unregister(one.sock)
        one.fail(True, STRANGER)
        return
    if one.welcome:
        selector.unregister(one.sock)
        _judge_welcome(one)


def _greet(group: Group, one: Knock, brief: bool) -> None:
    """Send the hello once, then look for the answer."""
    if not one.channel.has_spoken:
        # A fresh connection takes a few KiB at once.
        one.sock.sendall(one.channel.sealed({"kind": "hello", "brief": brief, **group.introduction(brief)}))
        return
    data = one.sock.recv(4096)
    if not data:
        raise ProtocolError("it closed the connection")
    one.channel.feed(data)
    one.welcome = one.channel.next(HELLO_BYTES) or {}


def _judge_welcome(one: Knock) -> None:
    if one.welcome.get("kind") != "welcome":
        one.fail(True, STRANGER)
    elif one.welcome.get("name") != one.name:
        one.fail(False, f"the host {str(one.welcome.get('name'))[:80]!r} answers there")
    else:
        one.ok = True


def states_of(said: object) -> dict[int, str]:
    """Return the listening states of a greeting by port."""
    if not isinstance(said, dict):
        return {}
    return {int(port): text_of(state)[:20] for port, state in said.items() if port.isdecimal() and len(port) < 6}


def sound_out(group: Group, name: str, listening: dict[int, str] | None = None) -> tuple[list[Knock], dict[int, str]]:
    """Knock at every port of a peer; return the knocks with their verdicts and the peer's listening states.

    ``listening`` are those states where they are known. Open channels are the caller's to close. A refusal means
    something only once the peer is known to listen, so refused ports are tried again after the first greeting.
    """
    knocks = knock(group, [(name, port) for port in group.ports])
    greeting = next((one.welcome for one in knocks if one.channel), None)
    if listening is None:
        if greeting is None:
            return knocks, {}
        listening = states_of(greeting.get("listening"))
        again = [one.port for one in knocks if one.refused and listening.get(one.port) == "listening"]
        anew = {one.port: one for one in knock(group, [(name, port) for port in again])}
        knocks = [anew.get(one.port, one) for one in knocks]
    for one in knocks:
        state = listening.get(one.port, "not asked to")
        if one.refused and state == "listening":
            one.ok, one.reason = False, "refused, although that host listens there: a packet filter on the way or on it"
        elif one.refused:
            one.reason = f"that host does not listen there: {state}"
    return knocks, listening


def visit(group: Group, name: str) -> dict:
    """Visit one peer and let it probe back.

    Returns {met, unsettled, connections, clocks, paths, problems}; ``met`` when both directions are known,
    ``unsettled`` when something is in the way of this direction, so that the peer may still come from its side.
    """
    result: dict = {"met": False, "unsettled": False, "connections": [], "clocks": [], "paths": [], "problems": []}
    knocks, _states = sound_out(group, name)
    result["connections"] = [one.record(group.host) for one in knocks]
    greeted = [one for one in knocks if one.channel]
    try:
        if greeted:
            for spare in greeted[1:]:
                spare.close()
            _check_address(group, greeted[0], result)
            _talk(group, greeted[0], result)
        result["unsettled"] = not result["met"] and any(one.ok is False for one in knocks)
    except (OSError, ProtocolError) as error:
        result["problems"].append(f"the talk of {group.host} with {name} broke off: {error}")
        result["unsettled"] = True
    finally:
        for one in knocks:
            one.close()
    return result


def _check_address(group: Group, one: Knock, result: dict) -> None:
    said = one.welcome.get("address")
    if said != one.address:
        text = f"{one.name} says its address is {str(said)[:40]}, {group.host} knows it by {one.address}"
        result["problems"].append(text)


def _talk(group: Group, one: Knock, result: dict) -> None:
    """Compare the clocks, let the peer probe back, measure the path, exchange what was found."""
    channel, name = one.channel, one.name
    result["clocks"] = compare_clocks(group, name, channel)
    channel.send({"kind": "probe"}, ANSWER_S)
    result["paths"] = measure_paths(group, name, one.port)
    report = channel.receive(REPORT_S)
    back = [
        {"from": name, "to": group.host, **entry} for entry in checked_connections(report.get("found"), group.ports)
    ]
    found = {key: result[key] for key in ("connections", "clocks", "paths")}
    channel.send({"kind": "bye", **found}, ANSWER_S)
    channel.receive(ANSWER_S)
    result["connections"] = result["connections"] + back
    result["met"] = True


def compare_clocks(group: Group, name: str, channel: Channel) -> list[dict]:
    """Return the peer's clock less this host's, from the round with the shortest way, as NTP does (RFC 5905)."""
    rounds = []
    for _round in range(CLOCK_ROUNDS):
        before = group.clock()
        channel.send({"kind": "clock"}, ANSWER_S)
        theirs = number_of(channel.receive(ANSWER_S).get("time"))
        after = group.clock()
        # A clock that has been set meanwhile tells nothing.
        if theirs is not None and after >= before:
            rounds.append(((after - before) / 2, theirs - (before + after) / 2))
    if not rounds:
        return []
    uncertainty, offset = min(rounds)
    found = {"offset_s": round(offset, 6), "uncertainty_s": round(uncertainty, 6)}
    return [{"from": group.host, "to": name, **found}]


# The path ---------------------------------------------------------------------------------------------------------


class Passage:
    """One try to move the payload one way; ``mtu`` is the path MTU that its sender has last told, in bytes."""

    def __init__(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason  # state: passed, stalled or broken
        self.mtu: int | None = None


def push(channel: Channel, timeout: float, passage: Passage) -> None:
    """Send the payload to the peer and wait until it has it."""
    passage.mtu = channel.mtu()
    channel.send({"kind": "take"}, timeout)
    channel.send_payload(timeout)
    channel.receive(timeout)
    passage.mtu = channel.mtu()  # the kernel may have learned of a narrow place by now


def pull(channel: Channel, timeout: float, passage: Passage) -> None:
    """Let the peer send the payload."""
    channel.send({"kind": "give"}, timeout)
    passage.mtu = _mtu_of(channel.receive(timeout))
    channel.receive_payload(timeout)
    channel.send({"kind": "mtu"}, timeout)
    passage.mtu = _mtu_of(channel.receive(timeout))


def _mtu_of(message: dict) -> int | None:
    said = number_of(message.get("mtu"))
    return int(said) if said else None


def measure_paths(group: Group, name: str, port: int) -> list[dict]:
    """Return what a path carries to the peer and from it."""
    found = together([lambda: _measure(group, name, port, push), lambda: _measure(group, name, port, pull)])
    ends = ((group.host, name), (name, group.host))
    return [{"from": start, "to": end, **path} for (start, end), path in zip(ends, found)]


def _measure(group: Group, name: str, port: int, way: Callable) -> dict:
    """Return {ok, mtu, passes, reason} of one direction."""
    first = _carry(group, name, port, way, 0, STALL_S)
    if first.state == "passed":
        return {"ok": True, "mtu": first.mtu, "passes": None, "reason": ""}
    # Full segments get a second chance beside the smaller ones: a busy host may be as slow as a path that drops them.
    sizes = (0, *SEGMENTS)
    tried = together([lambda size=size: _carry(group, name, port, way, size, 2 * STALL_S) for size in sizes])
    full = tried[0]
    if full.state == "passed":
        return {"ok": True, "mtu": full.mtu, "passes": None, "reason": ""}
    broken = [one.reason for one in (first, *tried) if one.state == "broken"]
    if broken:
        return {"ok": None, "mtu": first.mtu, "passes": None, "reason": f"not measured: {broken[0]}"}
    passes = max((size for size, one in zip(sizes, tried) if one.state == "passed"), default=None)
    what = f"segments of {passes} bytes pass" if passes else "only single short messages pass"
    reason = f"full segments are lost on the way and nothing tells the sender: {what}"
    return {"ok": False, "mtu": first.mtu, "passes": passes, "reason": reason}


def _carry(group: Group, name: str, port: int, way: Callable, segment: int, timeout: float) -> Passage:
    """Move the payload one way on a connection of its own, with segments of at most ``segment`` bytes, 0 for full."""
    (one,) = knock(group, [(name, port)], segment=segment, brief=True)
    if one.channel is None:
        return Passage("broken", one.reason)
    passage = Passage("passed")
    try:
        way(one.channel, timeout, passage)
    except socket.timeout:
        passage.state = "stalled"
    except (OSError, ProtocolError) as error:
        passage.state, passage.reason = "broken", str(error)
    finally:
        one.close()
    return passage


def together(calls: list[Callable]) -> list:
    """Return what the calls return, in their order; they run at the same time and must not raise."""
    found: list = [None] * len(calls)

    def put(index: int) -> None:
        found[index] = calls[index]()

    threads = [threading.Thread(target=put, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
