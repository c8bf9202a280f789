# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small client of the OpenAI chat API, standard library only, so that any managed node can ask its own engine."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.parse
from collections.abc import Iterator

from .errors import LlmError

ANSWER_LIMIT = 16 * 1024 * 1024


class ChatClient:
    """Asks one endpoint.

    :param base_url: such as http://127.0.0.1:8000/v1
    :param model: the served model's name
    :param api_key: empty for none
    :param timeout: seconds for one answer, and for each silence within a stream
    """

    def __init__(self, base_url: str, model: str, api_key: str = "", timeout: float = 60.0) -> None:
        parts = _split(base_url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise LlmError("the endpoint is no URL", wanted="http://HOST:PORT/v1", found=base_url)
        if not re.fullmatch(r"[!-~]*", api_key):
            # Checked here, for the error of the HTTP library prints the key.
            raise LlmError(
                "the API key cannot be sent",
                wanted="printable ASCII characters without blanks",
                found="others, such as a line feed at the end",
                remedy="correct llm_api_keys where it is kept; a block '|' in YAML ends in a line feed, '|-' does not",
            )
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.timeout = timeout
        self._parts = parts
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def models(self) -> list[str]:
        """Return the names that the endpoint serves."""
        data = json.loads(self._request("GET", "/models", None)[1])
        return [entry["id"] for entry in data["data"]]

    def chat(self, prompt: str, max_tokens: int) -> dict:
        """Return {text, finish_reason, prompt_tokens, completion_tokens, seconds} of one greedy answer."""
        started = time.monotonic()
        data = json.loads(self._request("POST", "/chat/completions", self._body(prompt, max_tokens, stream=False))[1])
        choice, usage = data["choices"][0], data.get("usage")
        return {
            "text": _text(choice["message"]["content"]),
            "finish_reason": choice.get("finish_reason"),
            "prompt_tokens": _tokens(usage, "prompt_tokens"),
            "completion_tokens": _tokens(usage, "completion_tokens"),
            "seconds": time.monotonic() - started,
        }

    def stream(self, prompt: str, max_tokens: int) -> dict:
        """Like chat, streamed; adds ``ttft_s`` (to the first text) and ``chunks`` (pieces that carried text)."""
        started = time.monotonic()
        first = None
        text, chunks, finish, usage = "", 0, None, {}
        for event in self._events(self._body(prompt, max_tokens, stream=True)):
            if event.get("error"):
                raise LlmError("the endpoint broke the stream off", wanted="an answer", found=str(event["error"])[:300])
            usage = event.get("usage") or usage
            for choice in event.get("choices") or []:
                piece = _text((choice.get("delta") or {}).get("content"))
                finish = choice.get("finish_reason") or finish
                if piece:
                    first = time.monotonic() if first is None else first
                    text, chunks = text + piece, chunks + 1
        return {
            "text": text,
            "chunks": chunks,
            "finish_reason": finish,
            "prompt_tokens": _tokens(usage, "prompt_tokens"),
            "completion_tokens": _tokens(usage, "completion_tokens"),
            "ttft_s": (first or time.monotonic()) - started,
            "seconds": time.monotonic() - started,
        }

    def _body(self, prompt: str, max_tokens: int, stream: bool) -> dict:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": stream,
        }
        return dict(body, stream_options={"include_usage": True}) if stream else body

    def _open(
        self, method: str, path: str, body: dict | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        # Proxies of the environment are not used: an engine answers on the data network.
        connection = kind(self._parts.hostname, self._parts.port, timeout=self.timeout)
        payload = None if body is None else json.dumps(body).encode()
        connection.request(method, self._parts.path.rstrip("/") + path, payload, self._headers)
        return connection, connection.getresponse()

    def _request(self, method: str, path: str, body: dict | None) -> tuple[int, str]:
        connection, response = self._open(method, path, body)
        try:
            text = response.read(ANSWER_LIMIT).decode("utf-8", "replace")
        finally:
            connection.close()
        self._check_status(response.status, path, text)
        return response.status, text

    def _check_status(self, status: int, path: str, text: str) -> None:
        if status != 200:
            raise LlmError(
                f"{self.base_url}{path} answered with status {status}",
                wanted="status 200",
                found=text.strip()[:300],
                remedy="check the API key, the model's name and the engine's log",
            )

    def _events(self, body: dict) -> Iterator[dict]:
        connection, response = self._open("POST", "/chat/completions", body)
        try:
            if response.status != 200:
                self._check_status(response.status, "/chat/completions", response.read(4096).decode("utf-8", "replace"))
            for line in iter(response.readline, b""):
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])
                if line.strip() == b"data: [DONE]":
                    return
        finally:
            connection.close()
        raise LlmError("the stream ended before its end mark", wanted="data: [DONE]", found="a closed connection")


# What a request can raise for the state of the endpoint; callers turn it into a reason.
REQUEST_ERRORS = (
    OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError,
    LlmError,
)  # fmt: skip


def _split(url: str) -> urllib.parse.SplitResult | None:
    """Return the parts of ``url``, None when it is none, such as one whose port is no number."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts if parts.port is None or parts.port else None
    except ValueError:
        return None


def _text(content: object) -> str:
    if content is not None and not isinstance(content, str):
        raise TypeError(f"the answer holds {type(content).__name__} where text belongs")
    return content or ""


def _tokens(usage: object, key: str) -> int:
    count = usage.get(key) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0


def is_healthy(url: str, timeout: float) -> bool:
    """True when GET ``url`` answers 200 within ``timeout`` seconds."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return False
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
