# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the probes of two hosts say to each other: sealed JSON lines, and raw payload of a known length.

A line is ``BAREMETAL_LLM_PROBE <seal> <json>``. The seal is an HMAC under the token of the run over the run, the
visitor's nonce, the place of the line in its conversation and the text, so the token itself never leaves a host, and a
line of another run, another conversation or another place is refused. What a peer says is data: it is checked for its
types and never run or written down.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import struct
import time
from typing import NamedTuple

MARKER = "BAREMETAL_LLM_PROBE"
PROCESS_NAME = "llm-probe"  # of a listener that waits for its peers; the kernel keeps 15 characters
HELLO_BYTES = 8_192  # a greeting with the state of some 200 ports
LINE_BYTES = 65_536  # a report of some 500 connections
PAYLOAD_BYTES = 65_536  # 7 segments of a 9000 byte path, 45 of a 1500 byte path: always more than one full segment
TEXT_CHARACTERS = 300  # of a reason that a peer gives
_IP_MTU = 14  # linux/in.h; the socket module has no name for it
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: no port of the plan is left in TIME_WAIT


class ProtocolError(Exception):
    """What arrived is no line of this conversation; its text says why."""


class Secret(NamedTuple):
    """What the hosts of one run share: the ``token`` nobody else knows and the ``run`` it is for."""

    token: str
    run: str


def seal(secret: Secret, nonce: str, place: str, message: dict) -> bytes:
    """Return ``message`` as the line for ``place`` of the conversation ``nonce``."""
    text = json.dumps(message)
    return f"{MARKER} {_seal_of(secret, nonce, place, text)} {text}\n".encode()


def unseal(secret: Secret, nonce: str, place: str, line: bytes) -> dict:
    """Return the message of a line; ProtocolError for anything but the line that belongs to this place."""
    try:
        marker, found, text = line.decode("ascii").rstrip("\n").split(" ", 2)
    except ValueError:
        raise ProtocolError("it does not speak the protocol of this probe") from None
    if marker != MARKER:
        raise ProtocolError("it does not speak the protocol of this probe")
    if not hmac.compare_digest(found, _seal_of(secret, nonce, place, text)):
        raise ProtocolError("it does not know the token of this run")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("what it says is no JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("what it says is no JSON object")
    return message


def _seal_of(secret: Secret, nonce: str, place: str, text: str) -> str:
    # As JSON, so that no part can reach into the next.
    sealed = json.dumps([secret.run, nonce, place, text])
    return hmac.new(secret.token.encode("utf-8", "surrogatepass"), sealed.encode(), hashlib.sha256).hexdigest()


class Channel:
    """One conversation over one connected socket.

    ``visiting`` is true on the side that made the connection; that side chooses the nonce and speaks first.
    Every wait has its own time limit in seconds; it passes as ``socket.timeout``.
    """

    def __init__(self, sock: socket.socket, secret: Secret, visiting: bool) -> None:
        self.sock = sock
        self._secret = secret
        self._mine, self._theirs = ("visitor", "listener") if visiting else ("listener", "visitor")
        self._nonce = ""
        self._sent = self._received = 0
        self._buffer = bytearray()

    @property
    def has_spoken(self) -> bool:
        """True once this side has sealed a line."""
        return self._sent > 0

    def sealed(self, message: dict) -> bytes:
        """Return the next line of this side; the visitor's first one carries the nonce of all that follow."""
        first = self._mine == "visitor" and self._sent == 0
        if first:
            nonce = secrets.token_hex(8)
            line = seal(self._secret, "", "visitor 0", dict(message, nonce=nonce))
            self._nonce = nonce
        else:
            line = seal(self._secret, self._nonce, f"{self._mine} {self._sent}", message)
        self._sent += 1
        return line

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        self._buffer += data

    def next(self, limit: int = LINE_BYTES) -> dict | None:
        """Return the next message, None while its line is not whole; ProtocolError when it is none or too long."""
        end = self._buffer.find(b"\n", 0, limit)
        if end < 0:
            if len(self._buffer) >= limit:
                raise ProtocolError(f"it sent a line of more than {limit} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        first = self._theirs == "visitor" and self._received == 0
        place = f"{self._theirs} {self._received}"
        message = unseal(self._secret, "" if first else self._nonce, place, line)
        if first:
            self._nonce = str(message.get("nonce", ""))
        self._received += 1
        return message

    def send(self, message: dict, timeout: float) -> None:
        """Send one message within ``timeout`` seconds."""
        self.sock.settimeout(timeout)
        self.sock.sendall(self.sealed(message))

    def receive(self, timeout: float, limit: int = LINE_BYTES) -> dict:
        """Return the next message; all of its line must arrive within ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while True:
            message = self.next(limit)
            if message is not None:
                return message
            self.feed(self._arriving(end, 4096))

    def send_payload(self, timeout: float) -> None:
        """Send the payload within ``timeout`` seconds."""
        self.sock.settimeout(timeout)
        self.sock.sendall(bytes(PAYLOAD_BYTES))

    def receive_payload(self, timeout: float) -> None:
        """Take the payload, which must arrive within ``timeout`` seconds."""
        end = time.monotonic() + timeout
        missing = PAYLOAD_BYTES - len(self._buffer)
        del self._buffer[:PAYLOAD_BYTES]
        while missing > 0:
            missing -= len(self._arriving(end, min(missing, 65_536)))

    def _arriving(self, end: float, most: int) -> bytes:
        remaining = end - time.monotonic()
        if remaining <= 0:
            raise socket.timeout("timed out")
        self.sock.settimeout(remaining)
        data = self.sock.recv(most)
        if not data:
            raise ProtocolError("it closed the connection")
        return data

    def mtu(self) -> int | None:
        """Return the path MTU in bytes that the kernel holds for this connection, None where it does not tell."""
        try:
            return self.sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        except OSError:
            return None

    def close(self) -> None:
        """Drop the connection at once, so that neither side keeps anything of it."""
        drop(self.sock)


def drop(sock: socket.socket) -> None:
    """Close a socket with a reset: a connection that has served leaves no TIME_WAIT behind."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass
    finally:
        sock.close()


def checked_connections(said: object, ports: list[int]) -> list[dict]:
    """Return those connections {port, ok, reason, ms} of a peer's report that are well formed and about ``ports``."""
    kept = []
    for entry in said if isinstance(said, list) else []:
        if not isinstance(entry, dict) or entry.get("port") not in ports or not has_verdict(entry):
            continue
        kept.append(
            {
                "port": int(entry["port"]),
                "ok": None if entry["ok"] is None else bool(entry["ok"]),
                "reason": text_of(entry.get("reason")),
                "ms": number_of(entry.get("ms")),
            }
        )
    return kept


def has_verdict(entry: dict) -> bool:
    """True when ``ok`` is there and is true, false or null."""
    return entry.get("ok", "") in (True, False, None)


def text_of(said: object) -> str:
    """Return a short text without control characters, empty for anything that is no text."""
    if not isinstance(said, str):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in said[:TEXT_CHARACTERS])


def number_of(said: object) -> float | None:
    """Return a finite number of at most ten digits, None for anything else."""
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not -1e10 < said < 1e10:
        return None
    return said
