# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import openai_client
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.openai_client import REQUEST_ERRORS, ChatClient
from hypothesis import given, settings
from hypothesis import strategies as st

DONE = b"data: [DONE]\n\n"


def completion(content="four", **changes) -> dict:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return dict({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}, **changes)


def piece(content, finish=None) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}


def client_of(server, **options) -> ChatClient:
    return ChatClient(server.url, "tiny", **dict({"timeout": 30}, **options))


def failure(call) -> Exception:
    with pytest.raises(REQUEST_ERRORS) as caught:
        call()
    return caught.value


def test_a_chat(endpoint):
    server = endpoint(lambda handler, body: handler.answer(completion()))
    answer = client_of(server).chat("two and two?", 7)
    assert answer.pop("seconds") >= 0
    assert answer == {"text": "four", "finish_reason": "stop", "prompt_tokens": 9, "completion_tokens": 4}
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["body"] == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "two and two?"}],
        "max_tokens": 7,
        "temperature": 0,
        "stream": False,
    }


def test_a_stream(endpoint):
    server = endpoint(
        lambda handler, body: handler.stream(
            b": a comment\n\n", ROLE, piece("fo"), b"event: x\n", piece("ur"), piece(None, "stop"), USAGE, DONE
        )
    )
    answer = client_of(server).stream("two and two?", 7)
    assert 0 <= answer.pop("ttft_s") <= answer.pop("seconds")
    assert answer == {
        "text": "four",
        "chunks": 2,
        "finish_reason": "stop",
        "prompt_tokens": 9,
        "completion_tokens": 3,
    }
    assert server.requests[0]["body"]["stream"] is True
    assert server.requests[0]["body"]["stream_options"] == {"include_usage": True}


def test_nothing_after_the_end_mark_is_read(endpoint):
    server = endpoint(lambda handler, body: handler.stream(piece("a"), DONE, b"data: garbage\n\n", piece("b")))
    assert client_of(server).stream("x", 1)["text"] == "a"


def test_a_stream_in_chunked_encoding_and_with_other_line_ends(endpoint):
    def chunked(handler, _body):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        raw = b"".join(f"data: {json.dumps(part)}\r\n\r\n".encode() for part in (piece("模"), piece("型"), USAGE))
        raw += DONE
        for start in range(0, len(raw), 7):
            part = raw[start : start + 7]
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    assert client_of(endpoint(chunked)).stream("x", 1)["text"] == "模型"


def test_the_models(endpoint):
    server = endpoint(lambda handler, body: handler.answer({"data": [{"id": "a"}, {"id": "b"}]}))
    assert client_of(server).models() == ["a", "b"]
    assert server.requests[0]["path"] == "/v1/models"


def test_a_slash_at_the_end_of_the_url_does_not_matter(endpoint):
    server = endpoint(lambda handler, body: handler.answer(completion()))
    ChatClient(server.url + "/", "tiny").chat("x", 1)
    assert server.requests[0]["path"] == "/v1/chat/completions"


# Keys and proxies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "header"), [("sk-1", "Bearer sk-1"), ("", None)])
def test_the_key_is_sent_with_every_request(endpoint, key, header):
    server = endpoint(lambda handler, body: handler.answer(dict(completion(), data=[])))
    client = client_of(server, api_key=key)
    client.chat("x", 1)
    client.models()
    assert [request["headers"].get("Authorization") for request in server.requests] == [header, header]


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret\r\nX: y", "sk secret", "sk-sécret", "sk-secret\x00"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key):
    with pytest.raises(LlmError) as caught:
        ChatClient("http://127.0.0.1:1/v1", "tiny", key)
    assert "cret" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"])
def test_proxies_of_the_environment_are_ignored(endpoint, monkeypatch, dead_port, name):
    monkeypatch.setenv(name, f"http://127.0.0.1:{dead_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    server = endpoint(lambda handler, body: handler.answer(completion()))
    assert client_of(server).chat("x", 1)["text"] == "four"
    assert openai_client.is_healthy(f"{server.root}/health", 30)


def test_a_redirect_is_not_followed_and_the_key_stays(endpoint):
    other = endpoint(lambda handler, body: handler.answer(completion()))

    def redirect(handler, _body):
        handler.send_response(307)
        handler.send_header("Location", f"{other.url}/chat/completions")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    error = failure(lambda: client_of(endpoint(redirect), api_key="sk-1").chat("x", 1))
    assert "status 307" in str(error)
    assert other.requests == []


# Endpoints that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503, 204])
@pytest.mark.parametrize("call", ["chat", "stream", "models"])
def test_another_status_than_200(endpoint, status, call):
    server = endpoint(lambda handler, body: handler.answer(b"" if status == 204 else b"the reason " * 1000, status))
    client = client_of(server)
    error = failure(client.models if call == "models" else lambda: getattr(client, call)("x", 1))
    assert isinstance(error, LlmError)
    assert f"answered with status {status}" in error.summary
    assert server.url in error.summary
    assert error.remedy
    assert len(error.found) <= 300


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        None,
        "text",
        5,
        {},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        {"choices": [None]},
        {"choices": [[]]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {}}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": ["four"]}}]},
        {"error": {"message": "overloaded"}},
    ],
)
def test_answers_of_another_kind(endpoint, answer):
    failure(lambda: client_of(endpoint(lambda handler, body: handler.answer(answer))).chat("x", 1))


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "x",
        {},
        {"completion_tokens": None},
        {"completion_tokens": "4"},
        {"completion_tokens": True},
        {"completion_tokens": -4},
    ],
)
def test_usage_that_is_not_told_counts_nothing(endpoint, usage):
    server = endpoint(lambda handler, body: handler.answer(completion(usage=usage)))
    assert client_of(server).chat("x", 1)["completion_tokens"] == 0
    streaming = endpoint(lambda handler, body: handler.stream(piece("a"), {"choices": [], "usage": usage}, DONE))
    assert client_of(streaming).stream("x", 1)["completion_tokens"] == 0


def test_an_answer_without_text_is_an_empty_one(endpoint):
    assert client_of(endpoint(lambda handler, body: handler.answer(completion(None)))).chat("x", 1)["text"] == ""


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [piece("a")],
        [piece("a"), b"data: [DON"],
        [b"data: {\n\n", DONE],
        [b"data: \xff\n\n", DONE],
        [b"data: []\n\n", DONE],
        [b"data: 5\n\n", DONE],
        [b"data: null\n\n", DONE],
        [{"choices": 5}, DONE],
        [{"choices": [None]}, DONE],
        [{"choices": [{"delta": 5}]}, DONE],
        [piece(5), DONE],
        [piece(["a"]), DONE],
        [json.dumps(completion()).encode()],
    ],
)
def test_streams_that_are_cut_off_or_of_another_kind(endpoint, lines):
    failure(lambda: client_of(endpoint(lambda handler, body: handler.stream(*lines))).stream("x", 1))


def test_a_stream_that_is_closed_before_its_end_says_so(endpoint):
    error = failure(lambda: client_of(endpoint(lambda handler, body: handler.stream(piece("a")))).stream("x", 1))
    assert (error.summary, error.wanted) == ("the stream ended before its end mark", "data: [DONE]")


def test_an_error_within_a_stream_is_told(endpoint):
    broken = {"error": {"message": "the engine died", "code": 500}}
    error = failure(
        lambda: client_of(endpoint(lambda handler, body: handler.stream(piece("a"), broken, DONE))).stream("x", 1)
    )
    assert "the engine died" in error.found


@pytest.mark.parametrize("delta", [None, {}, {"role": "assistant"}, {"content": None}])
def test_pieces_without_text_are_no_chunks(endpoint, delta):
    part = {"choices": [{"delta": delta, "finish_reason": None}]}
    server = endpoint(lambda handler, body: handler.stream(part, piece("a"), {"choices": None}, {}, DONE))
    assert client_of(server).stream("x", 1)["chunks"] == 1


def test_a_connection_that_is_closed_in_the_middle_of_an_answer(endpoint):
    def cut(handler, _body):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": ')

    failure(lambda: client_of(endpoint(cut)).chat("x", 1))


def test_a_connection_that_is_closed_in_the_middle_of_a_chunk(endpoint):
    def cut(handler, _body):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\ndata: ")

    failure(lambda: client_of(endpoint(cut)).stream("x", 1))


def test_a_connection_that_is_closed_without_an_answer(endpoint):
    failure(lambda: client_of(endpoint(lambda handler, body: None)).chat("x", 1))


def test_something_else_than_http(endpoint):
    failure(
        lambda: client_of(endpoint(lambda handler, body: handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n"))).chat("x", 1)
    )


def test_nobody_there(dead_port):
    assert isinstance(failure(lambda: ChatClient(f"http://127.0.0.1:{dead_port}/v1", "tiny").chat("x", 1)), OSError)


@pytest.mark.parametrize("call", ["chat", "stream"])
def test_an_endpoint_that_says_nothing(endpoint, call):
    server = endpoint(lambda handler, body: server.released.wait(60))
    client = client_of(server, timeout=0.05)
    assert "timed out" in str(failure(lambda: getattr(client, call)("x", 1)))


def test_a_stream_that_falls_silent(endpoint):
    def silent(handler, _body):
        handler.stream(piece("a"))
        server.released.wait(60)

    server = endpoint(silent)
    assert "timed out" in str(failure(lambda: client_of(server, timeout=0.3).stream("x", 1)))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://x/v1",
        "http://",
        "http:///v1",
        "http://[::1/v1",
        "http://x:port/v1",
        "http://x:99999/v1",
        "http://x:0/v1",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_url(url):
    with pytest.raises(LlmError, match="no URL") as caught:
        ChatClient(url, "tiny")
    assert caught.value.wanted == "http://HOST:PORT/v1"
    assert not openai_client.is_healthy(url, 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "delta", "content", "usage", "completion_tokens", "error"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    )
)
@settings(max_examples=200)
def test_any_json_is_an_answer_or_one_of_the_known_errors(data):
    client = ChatClient("http://x/v1", "tiny")
    client._request = lambda *_arguments: (200, json.dumps(data))
    client._events = lambda _body: iter([data])
    for call in (client.chat, client.stream):
        try:
            answer = call("x", 1)
        except REQUEST_ERRORS:
            continue
        assert isinstance(answer["text"], str)
        tokens = answer["completion_tokens"]
        assert isinstance(tokens, int) and not isinstance(tokens, bool)


# Health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (204, False), (302, False), (404, False), (503, False)])
def test_health_is_a_200(endpoint, status, healthy):
    server = endpoint(lambda handler, body: handler.answer(b"", status))
    assert openai_client.is_healthy(f"{server.root}/health", 30) is healthy
    assert server.requests[0]["path"] == "/health"


def test_health_of_what_does_not_answer(endpoint, dead_port):
    assert not openai_client.is_healthy(f"http://127.0.0.1:{dead_port}/health", 30)
    silent = endpoint(lambda handler, body: silent.released.wait(60))
    assert not openai_client.is_healthy(f"{silent.root}/health", 0.05)
    other = endpoint(lambda handler, body: handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n"))
    assert not openai_client.is_healthy(f"{other.root}/health", 30)
