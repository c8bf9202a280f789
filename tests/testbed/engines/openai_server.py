# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HTTP side of every stand-in: OpenAI's API as vLLM serves it, with answers from a table.

Standard library only, Python 3.9 or newer: this file is copied into the images of tests.
"""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence

# What any prompt gets that the table does not hold.
OTHERWISE = "This is the fixed sentence of an emulated engine, which knows no other answer."
# A body beyond this is refused, so that a test cannot fill the memory.
BODY_LIMIT = 16 * 1024 * 1024
# How often the listening thread looks whether it shall end.
POLL_SECONDS = 0.1
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# Paths below this want the key, the others never do; as vLLM's own middleware has it.
GUARDED = "/v1"
# Names and kinds as vLLM documents them (vllm-project/vllm:docs/design/metrics.md).
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
COUNTERS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
SUCCESS = "vllm:request_success_total"
REASONS = ("stop", "length", "abort")


class Refusal(Exception):
    """A request that gets no answer, with its HTTP status and the name that vLLM gives to the kind of error."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.param = status, kind, message, param


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet: vLLM takes its port before it loads weights.

    :raises OSError: the address is in use, or is none of this machine
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError:
        taken.close()
        raise
    return taken


def serve(
    host: str,
    port: int,
    model: str | Sequence[str],
    answers: dict[str, str],
    ready: Callable[[], bool],
    stop: threading.Event,
    api_key: str | Sequence[str] = "",
    *,
    version: str = "0.0.0",
    taken: socket.socket | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Answer requests until ``stop`` is set.

    :param model: served name, or several for the same model
    :param answers: {prompt: answer}; a chat's prompt is its last message of the user
    :param ready: whether /health says 200; 503 otherwise
    :param api_key: key or keys that /v1 wants; empty for none
    :param taken: what ``listen`` returned, when the port was taken before
    :param started: called once requests are accepted
    :raises OSError: the port is in use
    """
    state = _State(model, answers, ready, api_key, version)
    server = _Server((host, port), _handler(state), bind_and_activate=False)
    server.socket.close()
    server.socket = taken or listen(host, port)
    server.server_address = server.socket.getsockname()
    server.server_activate()
    loop = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    loop.start()
    if started:
        started()
    stop.wait()
    server.shutdown()
    server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_request: object) -> None:
        """A client that hangs up is no event."""


class _State:
    """What all requests share; ``count`` is the metrics' numbers."""

    def __init__(
        self,
        model: str | Sequence[str],
        answers: dict[str, str],
        ready: Callable[[], bool],
        api_key: str | Sequence[str],
        version: str,
    ) -> None:
        self.models = [model] if isinstance(model, str) else list(model)
        self.keys = [key for key in ([api_key] if isinstance(api_key, str) else api_key) if key]
        self.answers, self.ready, self.version = answers, ready, version
        self.created = int(time.time())
        self.count: dict[str, int] = {}
        self._guard = threading.Lock()

    def add(self, name: str, number: int = 1) -> None:
        with self._guard:
            self.count[name] = self.count.get(name, 0) + number


def _handler(state: _State) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """The engine's log has its own lines."""

        def do_GET(self) -> None:
            self._guarded(self._get)

        def do_POST(self) -> None:
            self._guarded(self._post)

        def _guarded(self, answer: Callable[[str, bytes], None]) -> None:
            """Answer one request; what is wrong with it becomes vLLM's form of an error."""
            path = self.path.split("?")[0]
            try:
                body = self._body()
                if path.startswith(GUARDED) and not _has_key(state.keys, self.headers.get("Authorization", "")):
                    self._json(401, {"error": "Unauthorized"})
                else:
                    answer(path, body)
            except Refusal as error:
                said = {"message": error.message, "type": error.kind, "param": error.param, "code": error.status}
                self._json(error.status, {"error": said})
            except OSError:
                self.close_connection = True

        def _body(self) -> bytes:
            text = self.headers.get("Content-Length") or "0"
            if not text.isdigit() or int(text) > BODY_LIMIT:
                self.close_connection = True
                raise Refusal(400, "BadRequestError", f"Content-Length {text[:40]} is not accepted")
            return self.rfile.read(int(text))

        def _get(self, path: str, _body: bytes) -> None:
            if path == "/health":
                self._send(200 if state.ready() else 503, b"", "text/plain")
            elif path == "/v1/models":
                self._json(200, _models(state))
            elif path == "/version":
                self._json(200, {"version": state.version})
            elif path == "/metrics":
                self._send(200, _metrics(state).encode(), "text/plain; version=0.0.4; charset=utf-8")
            else:
                self._missing(path in (CHAT, COMPLETIONS))

        def _post(self, path: str, body: bytes) -> None:
            if path not in (CHAT, COMPLETIONS):
                self._missing(path in ("/health", "/v1/models", "/version", "/metrics"))
                return
            if not state.ready():
                raise Refusal(503, "ServiceUnavailableError", "EngineCore encountered an issue.")
            request = _request(body, path == CHAT)
            _check_model(state, request)
            request["model"] = request["model"] or state.models[0]
            pieces, reason = _pieces(state.answers.get(request["prompt"], OTHERWISE), request["max_tokens"])
            usage = _usage(request["prompt"], pieces)
            state.add(COUNTERS[0], usage["prompt_tokens"])
            state.add(COUNTERS[1], usage["completion_tokens"])
            state.add(reason)
            if request["stream"]:
                self._stream(_events(request, pieces, reason, usage))
            else:
                self._json(200, _whole(request, pieces, reason, usage))

        def _missing(self, other_method: bool) -> None:
            self._json(*((405, {"detail": "Method Not Allowed"}) if other_method else (404, {"detail": "Not Found"})))

        def _json(self, status: int, data: object) -> None:
            self._send(status, json.dumps(data).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, events: list[str]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in events:
                data = f"data: {event}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    return Handler


def _has_key(keys: list[str], header: str) -> bool:
    return not keys or any(header == f"Bearer {key}" for key in keys)


def _models(state: _State) -> dict:
    entries = [
        {"id": name, "object": "model", "created": state.created, "owned_by": "vllm", "root": name, "parent": None}
        for name in state.models
    ]
    return {"object": "list", "data": entries}


def _metrics(state: _State) -> str:
    labels = f'engine="0",model_name="{state.models[0]}"'
    lines = []
    for name in GAUGES:
        lines += [f"# TYPE {name} gauge", f"{name}{{{labels}}} 0.0"]
    for name in COUNTERS:
        lines += [f"# TYPE {name} counter", f"{name}{{{labels}}} {float(state.count.get(name, 0))}"]
    lines.append(f"# TYPE {SUCCESS} counter")
    for reason in REASONS:
        number = float(state.count.get(reason, 0))
        lines.append(f'{SUCCESS}{{engine="0",finished_reason="{reason}",model_name="{state.models[0]}"}} {number}')
    return "\n".join(lines) + "\n"


def _request(body: bytes, chat: bool) -> dict:
    """Return {chat, model, prompt, max_tokens (0: no limit), stream, include_usage} of a request's body."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad(f"JSON decode error: {type(error).__name__}") from error
    if not isinstance(data, dict):
        raise _bad("the body is no object")
    stream = data.get("stream") or False
    options = data.get("stream_options") or {}
    if not isinstance(stream, bool) or not isinstance(options, dict):
        raise _bad("stream is a boolean, stream_options an object", "stream")
    if options and not stream:
        raise _bad("Stream options can only be defined when `stream=True`.", "stream_options")
    if data.get("n") not in (None, 1):
        raise _bad("this engine gives one answer a request", "n")
    return {
        "chat": chat,
        "model": data.get("model"),
        "prompt": _last_of_user(data.get("messages")) if chat else _prompt(data.get("prompt")),
        "max_tokens": _max_tokens(data, chat),
        "stream": stream,
        "include_usage": options.get("include_usage") is True,
    }


def _bad(message: str, param: str | None = None) -> Refusal:
    return Refusal(400, "BadRequestError", message, param)


def _check_model(state: _State, request: dict) -> None:
    name = request["model"]
    if name is not None and name not in state.models:
        raise Refusal(404, "NotFoundError", f"The model `{name}` does not exist.", "model")


def _max_tokens(data: dict, chat: bool) -> int:
    name = "max_completion_tokens" if chat and data.get("max_completion_tokens") is not None else "max_tokens"
    number = data.get(name)
    if number is None:
        return 0
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise _bad(f"{name} must be at least 1, got {json.dumps(number)[:40]}.", name)
    return number


def _prompt(prompt: object) -> str:
    if not isinstance(prompt, str) or not prompt:
        raise _bad("prompt is a text that is not empty", "prompt")
    return prompt


def _last_of_user(messages: object) -> str:
    if not isinstance(messages, list) or not messages:
        raise _bad("messages is a list that is not empty", "messages")
    texts = [_text(message) for message in messages if _role(message) == "user"]
    if not texts:
        raise _bad("messages hold none of the user", "messages")
    return texts[-1]


def _role(message: object) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise _bad("each message is an object with a known role", "messages")
    return role


def _text(message: dict) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if not isinstance(content, str):
        raise _bad("the content of a message is a text or a list of parts", "messages")
    return content


def _pieces(answer: str, limit: int) -> tuple[list[str], str]:
    """Return the answer's tokens, which are words with the blanks before them, and why it ends."""
    tokens = re.findall(r"\s*\S+|\s+$", answer)
    return (tokens[:limit], "length") if limit and len(tokens) > limit else (tokens, "stop")


def _usage(prompt: str, pieces: list[str]) -> dict:
    asked = len(prompt.split())
    return {"prompt_tokens": asked, "completion_tokens": len(pieces), "total_tokens": asked + len(pieces)}


def _frame(request: dict, kind: str) -> dict:
    prefix = "chatcmpl" if request["chat"] else "cmpl"
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
    }


def _whole(request: dict, pieces: list[str], reason: str, usage: dict) -> dict:
    text = "".join(pieces)
    choice = {"index": 0, "finish_reason": reason, "logprobs": None}
    if request["chat"]:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    kind = "chat.completion" if request["chat"] else "text_completion"
    return {**_frame(request, kind), "choices": [choice], "usage": usage}


def _events(request: dict, pieces: list[str], reason: str, usage: dict) -> list[str]:
    """Return what each event of the stream carries, the end mark too."""
    chat = request["chat"]
    frame = _frame(request, "chat.completion.chunk" if chat else "text_completion")

    def chunk(text: str, finish: str | None, opening: bool = False) -> dict:
        delta = {"role": "assistant", "content": text} if opening else {"content": text}
        choice = {"index": 0, "finish_reason": finish, "logprobs": None}
        return {**frame, "choices": [{**choice, "delta": delta} if chat else {**choice, "text": text}]}

    chunks = [chunk("", None, opening=True)] if chat else []
    chunks += [chunk(piece, None) for piece in pieces]
    chunks.append(chunk("", reason))
    if request["include_usage"]:
        chunks.append({**frame, "choices": [], "usage": usage})
    return [*(json.dumps(data) for data in chunks), "[DONE]"]
