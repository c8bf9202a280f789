# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An HTTP server for one test, that can be told to behave badly."""

from __future__ import annotations

import dataclasses
import gzip
import http.server
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from . import authority


class Request(NamedTuple):
    """What was asked: ``path`` without its query and still quoted, ``query`` with the last value of each name."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    base: str

    @property
    def parts(self) -> list[str]:
        """The path's parts, each unquoted by itself."""
        return [unquote(part) for part in self.path.strip("/").split("/")]


@dataclasses.dataclass
class Answer:
    """What is answered; ``data`` is sent as JSON, else ``body``. ``ranged``: parts of it can be asked for."""

    status: int = 200
    body: bytes = b""
    data: object = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    ranged: bool = False


@dataclasses.dataclass
class Fault:
    """One way to behave badly, for the first ``times`` requests (None: all) whose path and query match ``where``.

    ``status`` and ``headers``: sent in place of the right ones, with ``body`` (default: the right one); a header that
    is None is left out;
    ``change``: function on the JSON that would be sent; ``content``: function on the bytes that would be sent;
    ``cut``: the connection ends after so many bytes of the body; ``announce``: Content-Length says this;
    ``hang``: nothing is ever answered; ``slow``: one byte of the body at a time, so many seconds apart;
    ``gzip``: compressed, whatever was asked for; ``whole``: ranges are ignored; ``shift``: ranges begin elsewhere
    """

    where: str = ""
    times: int | None = 1
    status: int | None = None
    headers: dict[str, str | None] = dataclasses.field(default_factory=dict)
    body: bytes | None = None
    change: Callable[[object], object] | None = None
    content: Callable[[bytes], bytes] | None = None
    cut: int | None = None
    announce: int | None = None
    hang: bool = False
    slow: float = 0.0
    gzip: bool = False
    whole: bool = False
    shift: int = 0
    method: str = "GET"


class Application:
    """What a server serves: ``answer`` gives the right answer to a request. ``store``: where large files lie."""

    store: Application | None = None
    store_url = ""

    def answer(self, request: Request) -> Answer:
        """Return the answer; raises no error for anything that a client may ask."""
        raise NotImplementedError


class Threads(http.server.ThreadingHTTPServer):
    """A server whose threads end with the test, and that says nothing about clients that hang up."""

    daemon_threads = True

    def handle_error(self, *_request: object) -> None:
        """Tests see what a client got."""


class Server:
    """Runs ``application`` on a free port of 127.0.0.1 while it is entered; ``requests`` notes what was asked."""

    def __init__(
        self, application: Application, faults: list[Fault] | None = None, made: authority.Made | None = None
    ) -> None:
        self.application = application
        self.faults = [] if faults is None else faults
        self.requests: list[Request] = []
        self.ca_file = made.ca_file if made else ""
        self.stopping = threading.Event()
        self._guard = threading.Lock()
        self._http = Threads(("127.0.0.1", 0), _handler(self))
        if made:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(made.server_file)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        self.url = f"{'https' if made else 'http'}://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """Method and path of all requests."""
        return [f"{request.method} {request.path}" for request in self.requests]

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def take(self, method: str, target: str) -> Fault | None:
        """Return the fault that this request meets, and count it."""
        with self._guard:
            for fault in self.faults:
                if fault.method == method and fault.times != 0 and re.search(fault.where, target):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Tests read ``server.requests``, not the terminal."""

        def do_GET(self) -> None:
            self._serve()

        def do_HEAD(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            request = Request(self.command, parts.path, query, self.headers, server.url)
            server.requests.append(request)
            fault = server.take(self.command, self.path) or Fault()
            if fault.hang:
                server.stopping.wait(60)
                self.close_connection = True
                return
            self._send(_spoilt(server.application.answer(request), fault), fault)

        def _send(self, answer: Answer, fault: Fault) -> None:
            body = answer.body
            if answer.ranged and not fault.whole:
                body = self._part(answer, fault.shift)
            if fault.gzip:
                body = gzip.compress(body)
                answer.headers["Content-Encoding"] = "gzip"
            self.send_response_only(answer.status)
            headers = {"Date": self.date_time_string()}
            headers["Content-Length"] = str(len(body) if fault.announce is None else fault.announce)
            headers.update(answer.headers)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            self.close_connection = self.close_connection or headers["Content-Length"] is None
            if self.command == "HEAD":
                return
            if fault.cut is not None or fault.announce is not None:
                body, self.close_connection = body[: fault.cut], True
            self._write(body, fault.slow)

        def _part(self, answer: Answer, shift: int) -> bytes:
            answer.headers["Accept-Ranges"] = "bytes"
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if not match or answer.status != 200:
                return answer.body
            total = len(answer.body)
            first, last = int(match[1]) + shift, min(int(match[2] or total - 1), total - 1)
            if first >= total:
                answer.status, answer.headers["Content-Range"] = 416, f"bytes */{total}"
                return b""
            answer.status, answer.headers["Content-Range"] = 206, f"bytes {first}-{last}/{total}"
            return answer.body[first : last + 1]

        def _write(self, body: bytes, slow: float) -> None:
            try:
                if not slow:
                    self.wfile.write(body)
                    return
                for position in range(len(body)):
                    self.wfile.write(body[position : position + 1])
                    self.wfile.flush()
                    if server.stopping.wait(slow):
                        return
            except OSError:
                self.close_connection = True

    return Handler


def _spoilt(answer: Answer, fault: Fault) -> Answer:
    if answer.data is not None or fault.change:
        data = fault.change(answer.data) if fault.change else answer.data
        answer.body = json.dumps(data).encode()
        answer.headers.setdefault("Content-Type", "application/json")
    if fault.content:
        answer.body = fault.content(answer.body)
    if fault.status is not None:
        answer.status = fault.status
    if fault.body is not None:
        answer.body, answer.ranged = fault.body, False
    answer.headers.update(fault.headers)
    return answer
