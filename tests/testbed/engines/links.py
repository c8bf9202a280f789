# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections between the processes of a stand-in: lines of JSON, a sign of life each second, and who is gone.

Nothing here is what a real engine speaks; ports, addresses and who waits for whom are.
"""

from __future__ import annotations

import contextlib
import json
import queue
import select
import socket
import threading
import time
from collections.abc import Callable

# Each side says that it lives every second; one that is silent for this long is gone.
BEAT_SECONDS = 1.0
SILENCE_SECONDS = 10.0
RETRY_SECONDS = 0.2


class Gone(Exception):
    """The other side has closed the connection, or is silent."""


class Link:
    """One connection; ``lost`` is called with its peer, once, when it ends."""

    def __init__(self, connection: socket.socket, lost: Callable[[str], None]) -> None:
        self.peer = "[{}]:{}".format(*connection.getpeername()[:2])
        self._connection, self._lost = connection, lost
        self._inbox: queue.Queue = queue.Queue()
        self._guard = threading.Lock()
        self._closed = threading.Event()
        connection.settimeout(SILENCE_SECONDS)
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, message: dict) -> None:
        """Send ``message``; one that cannot be sent is lost, which the reader will notice."""
        with contextlib.suppress(OSError), self._guard:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> dict | None:
        """Return the next message, None when there is none within ``seconds``; raises Gone after the end."""
        try:
            message = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if message is None:
            self._inbox.put(None)
            raise Gone(self.peer)
        return message

    def close(self) -> None:
        """End the connection; what was sent still arrives."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._connection.makefile("rb"):
                message = json.loads(line)
                if message:
                    self._inbox.put(message)
        self._closed.set()
        self._inbox.put(None)
        self._lost(self.peer)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            self.send({})


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket; raises OSError when the address is none of this machine, or in use."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((address, port))
        server.listen(128)
    except OSError:
        server.close()
        raise
    return server


def accept(server: socket.socket, lost: Callable[[str], None]) -> Link | None:
    """Return a link to who connects next, None when nobody does for a moment; raises OSError for a closed server."""
    if not select.select([server], [], [], RETRY_SECONDS)[0]:
        return None
    return Link(server.accept()[0], lost)


def connect(address: str, port: int, source: str, seconds: float, lost: Callable[[str], None]) -> Link:
    """Try to connect for ``seconds``; raises OSError when nobody listens until then.

    :param source: own address, empty for what the route gives
    """
    until = time.monotonic() + seconds
    while True:
        try:
            connection = socket.create_connection((address, port), 5.0, (source, 0) if source else None)
            return Link(connection, lost)
        except OSError:
            if time.monotonic() >= until:
                raise
            time.sleep(RETRY_SECONDS)
