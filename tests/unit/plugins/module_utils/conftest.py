# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small OpenAI-like endpoint for the tests of what asks one."""

from __future__ import annotations

import http.server
import json
import socket
import threading

import pytest


class Endpoint:
    """An OpenAI-like endpoint that answers every request by ``script(handler, body)`` and remembers the requests."""

    def __init__(self, script) -> None:
        self.requests: list[dict] = []
        self.released = threading.Event()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_one(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                endpoint.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
                script(self, body)

            do_GET = do_POST = handle_one

            def answer(self, data, status=200):
                raw = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def stream(self, *lines):
                """Send raw lines as a stream and close the connection."""
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for line in lines:
                    self.wfile.write(line if isinstance(line, bytes) else f"data: {json.dumps(line)}\n\n".encode())
                    self.wfile.flush()

            def log_message(self, *_arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.root}/v1"

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def endpoint():
    """Function that starts an Endpoint with a script."""
    started = []

    def start(script) -> Endpoint:
        started.append(Endpoint(script))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def dead_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]
