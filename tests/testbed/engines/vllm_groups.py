# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the processes of a stand-in's group find each other: a head that listens, members that report to it.

A group counts in units: ranks of data parallelism, or devices of a world. The head starts loading when every unit is
reported once and with the same settings, and is ready when every member has loaded.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

import links
from vllm_checks import Refused

# How long a new connection may take to say who it is, and how often a wait looks at everything else.
HELLO_SECONDS = 10.0
LOOK_SECONDS = 0.2


class Member(NamedTuple):
    """What one process reports: ``count`` units from ``start`` on; ``same`` must be equal in the whole group."""

    start: int
    count: int
    same: dict


class Words(NamedTuple):
    """What the real engine says: waiting({joined}, {world}, {seconds}), alone({address}, {port}, {seconds}), other."""

    waiting_kind: str
    waiting: str
    alone_kind: str
    alone: str
    lost_kind: str
    lost: str


_GLOO_LOST = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer {peer}"
# torch's TCPStore, which mp, Ray's workers and sglang meet through (vllm-project/vllm issues 17056 and 19670).
TORCH = Words(
    "torch.distributed.DistStoreError",
    "Timed out after {seconds} seconds waiting for clients. {joined}/{world} clients joined.",
    "torch.distributed.DistNetworkError",
    "The client socket has timed out after {milliseconds}ms while trying to connect to ({address}, {port}).",
    "RuntimeError",
    _GLOO_LOST,
)
# Ray tells of an actor's end by itself (ray/exceptions.py).
RAY = TORCH._replace(
    lost_kind="ray.exceptions.ActorDiedError",
    lost="The actor died unexpectedly before finishing this task: {peer}",
)
# vLLM's own handshake of data parallelism (vllm/v1/engine/core.py, startup_handshake). A real head waits for ever; the
# time is this testbed's.
HANDSHAKE = TORCH._replace(
    waiting_kind="RuntimeError",
    waiting="{joined} of {world} data parallel ranks have reported within {seconds} seconds",
    alone_kind="RuntimeError",
    alone="Did not receive response from front-end process within {minutes:g} minutes",
)


class Group:
    """The links of one process to the others; ``lost`` holds the peers that went away."""

    def __init__(self, words: Words) -> None:
        self.links: list[links.Link] = []
        self.lost: queue.Queue = queue.Queue()
        self.words = words

    def check(self) -> None:
        """Raise Refused when a peer is gone."""
        if not self.lost.empty():
            peer = self.lost.get()
            self.lost.put(peer)
            raise Refused(self.words.lost_kind, self.words.lost.format(peer=peer))

    def close(self) -> None:
        for link in self.links:
            link.close()


def listen(address: str, port: int) -> socket.socket:
    """Return the head's listening socket; raises Refused as vLLM does for an address that is not this machine's."""
    try:
        return links.listen(address, port)
    except OSError as error:
        text = f"{error.strerror} (addr='tcp://{address}:{port}')"
        raise Refused("zmq.error.ZMQError", text) from error


def head(group: Group, server: socket.socket, world: int, own: Member, seconds: float, say: Callable) -> None:
    """Listen until all ``world`` units are reported; then tell the members to load."""
    here = dict.fromkeys(range(own.start, own.start + own.count), "head")
    until, reported = time.monotonic() + seconds, -1
    with server:
        while len(here) < world:
            if len(here) != reported:
                reported = len(here)
                say(f"Waiting for {world - reported} of {world} ranks to connect.")
            group.check()
            if time.monotonic() >= until:
                said = group.words.waiting.format(joined=len(here), world=world, seconds=int(seconds) + 1)
                raise Refused(group.words.waiting_kind, said)
            _accept(group, server, here, world, own)
    for link in group.links:
        link.send({"go": True})


def _accept(group: Group, server: socket.socket, here: dict[int, str], world: int, own: Member) -> None:
    link = links.accept(server, group.lost.put)
    if link is None:
        return
    try:
        hello = link.receive(HELLO_SECONDS)
    except links.Gone:
        hello = None
    if hello and "failed" in hello:
        raise Refused(*hello["failed"])
    if not hello or "start" not in hello:
        link.close()
        return
    group.links.append(link)
    wrong = _wrong(hello, here, world, own)
    if wrong:
        link.send({"refused": wrong})
        _until_gone(link)
        raise Refused("RuntimeError", wrong)
    here.update(dict.fromkeys(range(hello["start"], hello["start"] + hello["count"]), link.peer))


def _until_gone(link: links.Link) -> None:
    """Wait until the other side has read the last word and left, for what is closed too early can be lost."""
    with contextlib.suppress(links.Gone):
        link.receive(HELLO_SECONDS)


def _wrong(hello: dict, here: dict[int, str], world: int, own: Member) -> str:
    """Return what is wrong with a member's report, in the words of vllm/v1/engine/utils.py; empty for nothing."""
    for unit in range(hello["start"], hello["start"] + hello["count"]):
        if unit >= world:
            return f"Message from engine with unexpected data parallel rank: {unit}"
        if unit in here:
            return f"HELLO message from remote engine {unit}, expected it to be {_where(here[unit])}"
    for name in sorted(set(own.same) | set(hello["same"])):
        ours, theirs = own.same.get(name), hello["same"].get(name)
        if ours != theirs:
            return (
                f"Configuration mismatch detected for engine {hello['start']}. All DP workers must have identical "
                f"configurations: {name} is {theirs} there, {ours} at the head."
            )
    return ""


def _where(holder: str) -> str:
    return "local" if holder == "head" else f"at {holder}"


def join(group: Group, address: str, port: int, own: Member, source: str, seconds: float) -> None:
    """Report to the head and wait until it says that all are there."""
    words = group.words
    until = time.monotonic() + seconds
    said = words.alone.format(
        address=address, port=port, milliseconds=int(seconds * 1000), minutes=seconds / 60, seconds=int(seconds)
    )
    try:
        link = links.connect(address, port, source, seconds, group.lost.put)
    except OSError as error:
        raise Refused(words.alone_kind, said) from error
    group.links.append(link)
    link.send(own._asdict())
    answer = _next(link, until - time.monotonic(), group)
    if answer is None:
        raise Refused(words.alone_kind, said)
    if "refused" in answer:
        raise Refused("RuntimeError", answer["refused"])


def _next(link: links.Link, seconds: float, group: Group) -> dict | None:
    """Return the next message; the loss of the head is the loss of the group."""
    try:
        return link.receive(max(0.0, seconds))
    except links.Gone as gone:
        raise Refused(group.words.lost_kind, group.words.lost.format(peer=gone)) from gone


def report_failure(address: str, port: int, failure: Refused, seconds: float) -> None:
    """Tell the head why this member never joins, as Ray does for a worker that raises."""
    with contextlib.suppress(OSError):
        link = links.connect(address, port, "", seconds, lambda _peer: None)
        link.send({"failed": [failure.kind, failure.text]})
        _until_gone(link)


def loaded(group: Group, is_head: bool) -> None:
    """Meet again after the weights are loaded: members report, the head waits for all of them."""
    if not is_head:
        group.links[0].send({"loaded": True})
        while _next(group.links[0], LOOK_SECONDS, group) is None:
            group.check()
        return
    for link in group.links:
        while _next(link, LOOK_SECONDS, group) is None:
            group.check()
    for link in group.links:
        link.send({"all": True})
