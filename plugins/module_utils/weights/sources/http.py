# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks hubs and web servers: retries what passes, bounds what is read, and shows the token to its own host alone."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import ipaddress
import json
import random
import re
import socket
import ssl
import time
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from typing import Callable

from ...errors import LlmError

# Of one answer that is kept in memory. The longest that a hub gives, 3000 entries of ModelScope, has about 2 MiB.
MOST_BYTES = 16 << 20
# As browsers have it.
MOST_REDIRECTS = 20
# A server that asks to wait longer than this is not waited for.
MOST_WAIT_S = 300.0
FIRST_WAIT_S = 1.0
READ_BYTES = 1 << 16
# An answer kept in memory has to be there within this many times the time that one silence may last.
WHOLE_ANSWER = 10

_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_RAW = ("", "identity", "aws-chunked")
_REMEDIES = {
    401: "set a token that may read the repository (kept in a vault), or correct it",
    403: "use a token or key that may read it (gated models: accept their terms on the hub's site first), "
    "and see that the clock of this host is right",
    404: "correct the name and the revision; private repositories need a token",
    407: "set the proxy's user and password in the environment of the play",
}


class Broken(OSError):
    """The connection was cut, or fell silent, before the end; what came until then may be kept."""


class Refused(LlmError):
    """The server said no; ``status`` is the HTTP status."""

    def __init__(self, summary: str, *, status: int, **parts: str) -> None:
        super().__init__(summary, **parts)
        self.status = status


class _Again(Exception):
    """Worth another try: ``reason`` says what happened, ``wait_s`` what the server asks for, None when nothing."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s


class Response:
    """The body of one answer.

    ``offset``: position of its first byte in the whole file, 0 when the server ignored the range that was asked for;
    ``total``: bytes of the whole file, None when the server does not say.
    """

    def __init__(self, raw: http.client.HTTPResponse, where: str, offset: int, total: int | None) -> None:
        self._raw = raw
        self.where = where
        self.headers: Mapping[str, str] = raw.headers
        self.offset = offset
        self.total = total

    def read(self, size: int) -> bytes:
        """Return what has come, at most ``size`` bytes, and b"" at the end.

        :raises Broken: the connection was cut before the announced end, or nothing came within the time
        """
        try:
            block = self._raw.read1(size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Broken(f"{self.where}: {_reason(error)}") from error
        # Of an answer with a length, this is what is still to come; chunked ones raise when they are cut.
        if not block and size and self._raw.length:
            raise Broken(f"{self.where}: the connection was cut with {self._raw.length} bytes to come")
        return block


class Client:
    """Gets files and JSON from one host, and follows its redirects to others.

    Proxies are taken from the environment (http_proxy, https_proxy, no_proxy). Safe to use from many threads.

    :param home: URL of the host that gets the token or the signature; no other host ever does
    :param token: sent as a bearer token
    :param sign: function (method, url, headers) -> more headers, which signs requests to ``home``
    :param ca_file: PEM file with certificates of a private authority, trusted besides those of the system
    :param timeout: seconds for a connection, and for each silence within an answer
    :param retries: how often a request is tried again after the first time
    :param sleep: waits that many seconds
    """

    def __init__(
        self,
        home: str,
        *,
        token: str = "",
        sign: Callable[[str, str, dict[str, str]], dict[str, str]] | None = None,
        ca_file: str = "",
        timeout: float = 30.0,
        retries: int = 5,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.home = origin(home)
        self.timeout = timeout
        self.retries = retries
        self._token = _checked_token(token, self.home)
        self._sign = sign
        self._sleep = sleep
        self._context = _context(ca_file)

    def json(self, url: str, most_bytes: int = MOST_BYTES) -> tuple[object, Mapping[str, str]]:
        """Return (what the JSON at ``url`` says, the headers).

        :raises LlmError: it cannot be had, is too long, or no JSON
        """
        raw, headers = self._body(url, most_bytes)
        try:
            return json.loads(raw.decode("utf-8")), headers
        except (ValueError, RecursionError) as error:
            raise LlmError(
                f"{bare(url)} did not answer with JSON",
                wanted="JSON",
                found=_sort(raw, headers),
                remedy="see whether a proxy or a login page answers in its place, and correct the endpoint",
            ) from error

    def text(self, url: str, most_bytes: int = MOST_BYTES) -> str:
        """Return the UTF-8 text at ``url``; raises LlmError when it cannot be had, is too long, or no text."""
        raw, headers = self._body(url, most_bytes)
        try:
            return raw.decode("utf-8")
        except ValueError as error:
            raise LlmError(f"{bare(url)} is no text", wanted="UTF-8", found=_sort(raw, headers)) from error

    def content(self, url: str, most_bytes: int = MOST_BYTES) -> bytes:
        """Return the bytes at ``url``; raises LlmError when they cannot be had or are too many."""
        return self._body(url, most_bytes)[0]

    def head(self, url: str, headers: dict[str, str] | None = None) -> Mapping[str, str]:
        """Return the headers that the file at ``url`` would come with; raises LlmError when it cannot be had."""
        with self._retried("HEAD", url, headers or {}) as (raw, _where):
            return raw.headers

    def size(self, url: str) -> int:
        """Return the length of the file at ``url`` without getting it; raises LlmError when it cannot be had."""
        headers = self.head(url)
        length = _length(headers)
        if length is None or headers.get("Content-Encoding", "").strip().lower() not in _RAW:
            raise LlmError(
                f"{bare(url)} has no known length",
                wanted="a Content-Length of the file as it is",
                found="none",
                remedy="serve the files uncompressed, with a server that gives their length, such as nginx",
            )
        return length

    @contextlib.contextmanager
    def stream(self, url: str, offset: int = 0) -> Iterator[Response]:
        """Get the file at ``url`` from byte ``offset`` on.

        Until the answer begins, errors that pass are retried here; afterwards Response.read raises Broken.

        :raises LlmError: refused by the server, no such file, or every try failed
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._retried("GET", url, headers, (200, 206, 416) if offset else (200,)) as (raw, where):
            if raw.status != 416:
                yield self._response(raw, where, offset)
                return
        # The file ends before the offset, so what the caller has is not of this file.
        with self._retried("GET", url, {}) as (raw, where):
            yield self._response(raw, where, 0)

    def _response(self, raw: http.client.HTTPResponse, where: str, offset: int) -> Response:
        encoding = raw.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _RAW:
            raise LlmError(
                f"{where} comes compressed, though that was not asked for",
                wanted="the file as it is",
                found=f"Content-Encoding {_printable(encoding)}",
                remedy="turn compression off for this path, at the server or at the proxy",
            )
        if raw.status == 200:
            return Response(raw, where, 0, _length(raw.headers))
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", raw.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != offset:
            raise LlmError(
                f"{where} answers with another part than was asked for",
                wanted=f"the bytes from {offset} on",
                found=_printable(raw.headers.get("Content-Range", "no Content-Range")),
                remedy="leave out the proxy or cache that answers in its place",
            )
        return Response(raw, where, offset, None if match[3] == "*" else int(match[3]))

    def _body(self, url: str, most_bytes: int) -> tuple[bytes, Mapping[str, str]]:
        for left in range(self.retries, -1, -1):
            try:
                with self._retried("GET", url, {}) as (raw, where):
                    return self._whole(raw, where, most_bytes), raw.headers
            except Broken as error:
                if not left:
                    raise _exhausted(url, str(error), self.retries) from error
                self._sleep(_pause(self.retries - left))
        raise AssertionError("unreachable")

    def _whole(self, raw: http.client.HTTPResponse, where: str, most_bytes: int) -> bytes:
        if raw.length is None and not raw.chunked:
            raise Broken(f"{where}: the server does not say where its answer ends")
        response = Response(raw, where, 0, None)
        end = time.monotonic() + WHOLE_ANSWER * self.timeout
        found = bytearray()
        while True:
            block = response.read(READ_BYTES)
            if not block:
                return _plain(bytes(found), raw.headers, where, most_bytes)
            found += block
            if len(found) > most_bytes:
                raise _too_long(where, most_bytes)
            if time.monotonic() > end:
                raise Broken(f"{where}: the answer did not end within {WHOLE_ANSWER * self.timeout:g} s")

    @contextlib.contextmanager
    def _retried(
        self, method: str, url: str, headers: dict[str, str], good: tuple[int, ...] = (200,)
    ) -> Iterator[tuple[http.client.HTTPResponse, str]]:
        for done in range(self.retries + 1):
            try:
                connection, raw, where = self._follow(method, url, headers, good)
                break
            except _Again as again:
                if done == self.retries:
                    raise _exhausted(url, again.reason, self.retries) from again
                self._sleep(_pause(done) if again.wait_s is None else again.wait_s)
        try:
            yield raw, where
        finally:
            raw.close()
            connection.close()

    def _follow(
        self, method: str, url: str, headers: dict[str, str], good: tuple[int, ...]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, str]:
        for _hop in range(MOST_REDIRECTS):
            connection, raw = self._ask(method, url, headers)
            if raw.status in good:
                return connection, raw, bare(url)
            try:
                if raw.status not in _REDIRECTS:
                    _refuse(raw, url)
                url = _next_url(url, raw.headers.get("Location", ""))
            finally:
                raw.close()
                connection.close()
        raise LlmError(f"{bare(url)} redirects without end", wanted=f"at most {MOST_REDIRECTS} redirects")

    def _ask(
        self, method: str, url: str, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection, target, for_proxy = self._connection(url)
        sent = {"User-Agent": "baremetal.llm", "Accept": "*/*", "Accept-Encoding": "identity", **headers, **for_proxy}
        if origin(url) == self.home:
            if self._token:
                sent["Authorization"] = f"Bearer {self._token}"
            if self._sign:
                sent.update(self._sign(method, url, sent))
        try:
            connection.request(method, target, headers=sent)
            return connection, connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise LlmError(
                f"{bare(url)} is not who it says",
                wanted="a certificate of a known authority",
                found=error.verify_message or "one that cannot be verified",
                remedy="set ca_file to the certificate of the private authority, or correct the clock of this host",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                raise LlmError(
                    f"{bare(url)} cannot be reached",
                    wanted="a host that can be found",
                    found="no such name",
                    remedy="correct the endpoint, the name server, or set https_proxy in the environment of the play",
                ) from error
            raise _Again(_reason(error)) from error

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """Return (connection, what to ask it for, headers for the proxy), by the proxy that the environment names."""
        parts = split(url)
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        proxy = _proxy(parts)
        if not proxy:
            return self._open(parts.scheme, parts.hostname, parts.port), path, {}
        connection = self._open(parts.scheme, proxy.hostname, proxy.port or 80)
        if parts.scheme == "http":
            return connection, urllib.parse.urlunsplit(("http", parts.netloc, path, "", "")), _for_proxy(proxy)
        connection.set_tunnel(parts.hostname, parts.port or 443, _for_proxy(proxy))
        return connection, path, {}

    def _open(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self.timeout)


def split(url: str) -> urllib.parse.SplitResult:
    """Return the parts of ``url``, whose path and query are quoted where they need it.

    :raises LlmError: it is no http(s) URL, or holds a user or a password
    """
    try:
        parts = urllib.parse.urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        sound = sound and re.fullmatch(r"[!-~]+", parts.netloc)
    except ValueError:
        sound = False
    if not sound:
        raise _no_address(url)
    if "@" in parts.netloc:
        raise LlmError(
            f"the address of {parts.hostname} holds a user or a password",
            wanted="an address without them",
            found="an @ before the host's name",
            remedy="give secrets as options of their own (token, access_key, secret_key), from a vault",
        )
    # What is quoted stays so; what no request line may hold (blanks, control and other characters) is quoted now.
    quoted = [urllib.parse.quote(part, safe="%/:=&?~+!$,;@()*[]'") for part in (parts.path, parts.query)]
    return parts._replace(path=quoted[0], query=quoted[1], fragment="")


def join(url: str, reference: str) -> str:
    """Return the address that ``reference``, as an answer of ``url`` gives it, stands for; raises LlmError."""
    try:
        return urllib.parse.urljoin(url, reference)
    except ValueError as error:
        raise _no_address(reference) from error


def _no_address(text: str) -> LlmError:
    return LlmError(
        "an address cannot be followed",
        wanted="a URL such as https://hub.example.com/path",
        found=_printable(text.partition("?")[0].rpartition("@")[2]),
        remedy="correct the endpoint or the source; if a server redirected there, do not trust it",
    )


def bare(url: str) -> str:
    """Return ``url`` for people: without its query, which may be signed and then is a secret."""
    parts = split(url)
    return _printable(urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")))


def origin(url: str) -> tuple[str, str, int]:
    """Return (scheme, host, port) of ``url``: what a token is shown to."""
    parts = split(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _checked_token(token: str, home: tuple[str, str, int]) -> str:
    if not re.fullmatch(r"[!-~]*", token):
        raise LlmError(
            "the token cannot be sent",
            wanted="printable ASCII characters without blanks",
            found="others, such as a line feed at the end",
            remedy="correct it where it is kept; a block '|' in YAML ends in a line feed, '|-' does not",
        )
    if token and home[0] == "http" and not _is_local(home[1]):
        raise LlmError(
            f"the token would travel to {home[1]} for everybody to read",
            wanted="https",
            found="http",
            remedy="use the https address of the hub, or leave out the token",
        )
    return token


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _context(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ValueError) as error:
            raise LlmError(
                f"the certificates in {ca_file} cannot be used",
                wanted="a PEM file",
                found=str(error),
                remedy="put the certificate of the private authority there, readable for this user",
            ) from error
    return context


def _proxy(parts: urllib.parse.SplitResult) -> urllib.parse.SplitResult | None:
    proxies = urllib.request.getproxies_environment()
    text = proxies.get(parts.scheme) or proxies.get("all", "")
    if not text or urllib.request.proxy_bypass_environment(parts.netloc, proxies):
        return None
    try:
        proxy = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        sound = proxy.scheme == "http" and proxy.hostname and proxy.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise LlmError(
            f"the proxy for {parts.hostname} cannot be used",
            wanted="http://HOST:PORT",
            found=_printable(text.rpartition("@")[2]),
            remedy="correct https_proxy (or http_proxy, all_proxy) in the environment of the play, or set no_proxy",
        )
    return proxy


def _for_proxy(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    names = [urllib.parse.unquote(text or "") for text in (proxy.username, proxy.password)]
    return {"Proxy-Authorization": "Basic " + base64.b64encode(":".join(names).encode()).decode()}


def _next_url(url: str, location: str) -> str:
    if not location:
        raise LlmError(f"{bare(url)} redirects to nowhere", wanted="a Location", found="none")
    joined = join(url, location)
    if split(url).scheme == "https" and split(joined).scheme == "http":
        raise LlmError(
            f"{bare(url)} redirects to a connection that everybody can read and change",
            wanted="https",
            found=bare(joined),
            remedy="correct the server, or give its http address if that is what you want",
        )
    return joined


def _refuse(raw: http.client.HTTPResponse, url: str) -> None:
    """Raise what the status of an answer that is no success means."""
    if raw.status in _AGAIN:
        raise _Again(f"status {raw.status}", _asked_wait(raw.headers, url))
    said = raw.headers.get("X-Error-Message", "") or _code(raw) or raw.reason or ""
    raise Refused(
        f"{bare(url)} is refused",
        wanted="status 200",
        found=f"status {raw.status} {_printable(said)}".strip(),
        remedy=_REMEDIES.get(raw.status, "see what the server's documentation says of this status"),
        status=raw.status,
    )


def _code(raw: http.client.HTTPResponse) -> str:
    """What S3 servers say besides the status, such as RequestTimeTooSkewed."""
    try:
        match = re.search(rb"<Code>([A-Za-z]{1,80})</Code>", raw.read1(READ_BYTES))
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    return match[1].decode() if match else ""


def _asked_wait(headers: Mapping[str, str], url: str) -> float | None:
    """Return the seconds that Retry-After asks for: a number, or a date by the clock of the server."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        wait_s = float(text)
    else:
        try:
            until = email.utils.parsedate_to_datetime(text).timestamp()
            wait_s = until - _server_time(headers)
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    if wait_s > MOST_WAIT_S:
        raise LlmError(
            f"{bare(url)} wants nothing to be asked for a long time",
            wanted=f"at most {MOST_WAIT_S:g} s",
            found=f"{wait_s:.0f} s",
            remedy="run this again later, use a token (hubs allow more with one), or a mirror",
        )
    return max(0.0, wait_s)


def _server_time(headers: Mapping[str, str]) -> float:
    try:
        return email.utils.parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return time.time()


def _pause(done: int) -> float:
    """Seconds to wait after the try number ``done``: twice as long each time, and not all hosts at the same moment."""
    return min(MOST_WAIT_S, FIRST_WAIT_S * 2.0**done) * (1 + random.SystemRandom().random()) / 2


def _exhausted(url: str, reason: str, retries: int) -> LlmError:
    return LlmError(
        f"{bare(url)} cannot be had",
        wanted="an answer",
        found=f"{_printable(reason)}, {retries + 1} times",
        remedy="see whether the hub is up and reachable from this host (https_proxy, no_proxy), then run this again",
    )


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "").strip()
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _plain(raw: bytes, headers: Mapping[str, str], where: str, most_bytes: int) -> bytes:
    """Undo the compression that some proxies add unasked."""
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding in _RAW:
        return raw
    if encoding not in ("gzip", "x-gzip"):
        raise LlmError(f"{where} comes in a coding that was not asked for", found=_printable(encoding))
    machine = zlib.decompressobj(wbits=31)
    try:
        plain = machine.decompress(raw, most_bytes + 1)
    except zlib.error as error:
        raise Broken(f"{where}: damaged compression") from error
    if len(plain) > most_bytes:
        raise _too_long(where, most_bytes)
    if not machine.eof:
        raise Broken(f"{where}: the compressed answer was cut")
    return plain


def _too_long(where: str, most_bytes: int) -> LlmError:
    return LlmError(f"{where} is longer than anything expected there", wanted=f"at most {most_bytes} bytes")


def _sort(raw: bytes, headers: Mapping[str, str]) -> str:
    """Say what an answer is that should have been something else."""
    if raw.lstrip()[:1] == b"<":
        return "an HTML page"
    return f"{len(raw)} bytes of {_printable(headers.get('Content-Type', 'no type'))}"


def _reason(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "no answer within the time"
    return _printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _printable(text: object) -> str:
    """What a stranger says, fit for a terminal and a log: printable, at most 300 characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:300])
