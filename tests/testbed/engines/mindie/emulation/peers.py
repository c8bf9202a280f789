# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the nodes of one emulated MindIE find each other and notice that one is lost.

The slaves connect to the master's multiNodesInferPort, as the real ones do; what passes there is this file's own. Each
says which server of the rank table it is and what it has read, and the master lets all go when all are there.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time

from .schema import Refused

# Seconds for all nodes to come; HCCL_CONNECT_TIMEOUT of the real one, whose default this is.
WAIT_SECONDS = 120.0
POLL_SECONDS = 0.1
LINE_LIMIT = 4096


def patience() -> float:
    """Return for how many seconds a node waits for the others."""
    return float(os.environ.get("HCCL_CONNECT_TIMEOUT", WAIT_SECONDS))


def listen(address: str, port: int) -> socket.socket:
    """Return the master's socket; refuse a port that is taken."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((address, port))
    except OSError as error:
        server.close()
        raise Refused(f"cannot listen on {address}:{port} for the other nodes: {error.strerror}") from error
    server.listen()
    return server


def gather(server: socket.socket, count: int, digest: str, stop: threading.Event) -> list[socket.socket]:
    """Return the connections of the slaves 1 to ``count`` - 1, in no order, when all have come and been let go."""
    until, slaves = time.monotonic() + patience(), {}
    while len(slaves) < count - 1:
        if not _readable([server], stop):
            if stop.is_set() or time.monotonic() > until:
                missing = [str(each) for each in range(1, count) if each not in slaves]
                raise Refused(f"nodes {', '.join(missing)} of the rank table did not come")
            continue
        connection, (host, _port) = server.accept()
        said = _line(connection, 5.0)
        if "digest" not in said:
            # Whoever only looks whether the port is open.
            connection.close()
            continue
        if said["digest"] != digest:
            connection.close()
            raise Refused(f"{host} has read another config.json or rank table")
        number = said.get("server")
        if number in slaves or number not in range(1, count):
            connection.close()
            raise Refused(f"{host} says it is server {number}, which is there already or in no rank table")
        slaves[number] = connection
    for connection in slaves.values():
        connection.sendall(b'{"go": true}\n')
    return list(slaves.values())


def join(own: str, master: tuple[str, int], number: int, digest: str, stop: threading.Event) -> list[socket.socket]:
    """Return the connection to the master when it has let this node go."""
    until = time.monotonic() + patience()
    while True:
        try:
            # From its own address, so that a rank table with another node's address shows.
            connection = socket.create_connection(master, timeout=5, source_address=(own, 0))
            break
        except OSError as error:
            if stop.wait(POLL_SECONDS) or time.monotonic() > until:
                raise Refused(f"the master does not answer at {master[0]}:{master[1]}: {error}") from error
    connection.sendall(json.dumps({"server": number, "digest": digest}).encode() + b"\n")
    while not _readable([connection], stop):
        if stop.is_set() or time.monotonic() > until:
            raise Refused("the master does not let this node go")
    if _line(connection, 5.0).get("go") is not True:
        raise Refused("the master has refused this node, or is gone")
    return [connection]


def wait_until_lost(connections: list[socket.socket], stop: threading.Event) -> bool:
    """Return True when the other side of a connection is gone, False when ``stop`` is set first."""
    while not stop.is_set():
        # Nothing is said after the beginning: what can be read is an end.
        if _readable(connections, stop):
            return True
    return False


def _readable(sockets: list[socket.socket], stop: threading.Event) -> bool:
    """Wait for a moment; return whether one of ``sockets`` has something to read."""
    if not sockets:
        stop.wait(POLL_SECONDS)
        return False
    return bool(select.select(sockets, [], [], POLL_SECONDS)[0])


def _line(connection: socket.socket, seconds: float) -> dict:
    """Return what the other side says in one line within ``seconds``, nothing where that cannot be read."""
    connection.settimeout(seconds)
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < LINE_LIMIT:
            piece = connection.recv(LINE_LIMIT)
            if not piece:
                return {}
            text += piece
        said = json.loads(text)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
