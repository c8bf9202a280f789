# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A proxy as companies have it, for one test. It leads names of the world to servers of this machine."""

from __future__ import annotations

import base64
import contextlib
import http.server
import select
import socket
import threading
from urllib.parse import urlsplit

from .server import Threads


class Proxy:
    """Runs on a free port of 127.0.0.1 while it is entered.

    :param routes: {"host:port" that is asked for: port on this machine}; anything else is answered with 502
    :param login: "user:password", without which nothing is passed on
    """

    def __init__(self, routes: dict[str, int], login: str = "") -> None:
        self.routes = routes
        self.login = login
        self.asked: list[str] = []
        self.seen: list[dict[str, str]] = []
        self._http = Threads(("127.0.0.1", 0), _handler(self))
        self.port = self._http.server_address[1]
        self.url = f"http://{login + '@' if login else ''}127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _handler(proxy: Proxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Tests read ``proxy.asked``, not the terminal."""

        def do_CONNECT(self) -> None:
            there = self._open(self.path)
            if there:
                self.send_response(200)
                self.end_headers()
                _pump(self.connection, there)
            self.close_connection = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            there = self._open(f"{parts.hostname}:{parts.port or 80}")
            if there:
                lines = [f"GET {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
                skipped = ("host", "connection", "proxy-authorization")
                lines += [f"{name}: {value}" for name, value in self.headers.items() if name.lower() not in skipped]
                there.sendall("\r\n".join([*lines, "", ""]).encode())
                _pump(self.connection, there)
            self.close_connection = True

        def _open(self, target: str) -> socket.socket | None:
            proxy.asked.append(f"{self.command} {target}")
            proxy.seen.append(dict(self.headers.items()))
            wanted = "Basic " + base64.b64encode(proxy.login.encode()).decode()
            if proxy.login and self.headers.get("Proxy-Authorization") != wanted:
                self._say(407)
            elif target not in proxy.routes:
                self._say(502)
            else:
                return socket.create_connection(("127.0.0.1", proxy.routes[target]), 10)
            return None

        def _say(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def _pump(one: socket.socket, other: socket.socket) -> None:
    with other, contextlib.suppress(OSError):
        while True:
            for ready in select.select([one, other], [], [], 30)[0]:
                block = ready.recv(1 << 16)
                if not block:
                    return
                (other if ready is one else one).sendall(block)
