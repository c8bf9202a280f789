# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import acceptance
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.openai_client import ChatClient
from hypothesis import given
from hypothesis import strategies as st

PROMPTS = [
    {"id": "sum", "prompt": "two and two?", "answer": "four of them", "max_tokens": 8},
    {"id": "sky", "prompt": "colour of the sky?", "answer": "it is blue", "max_tokens": 8},
]
ANSWERS = {prompt["prompt"]: prompt["answer"] for prompt in PROMPTS}
DONE = b"data: [DONE]\n\n"


def reply(handler, body, text: str, tokens: int = 3) -> None:
    """Answer as an engine does: streamed word by word when a stream was asked for."""
    if not body["stream"]:
        handler.answer({"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": tokens}})
        return
    words = [{"choices": [{"delta": {"content": word}}]} for word in text.replace(" ", " \0").split("\0")]
    handler.stream(*words, {"choices": [], "usage": {"completion_tokens": tokens}}, DONE)


def question(body) -> str:
    return body["messages"][0]["content"]


def right(handler, body) -> None:
    reply(handler, body, ANSWERS[question(body)])


def client_of(server, timeout=30) -> ChatClient:
    return ChatClient(server.url, "tiny", "", timeout)


# Golden prompts ---------------------------------------------------------------------------------------------------


def test_right_answers_pass_and_the_first_is_streamed_too(endpoint):
    server = endpoint(right)
    result = acceptance.probe(client_of(server), PROMPTS)
    assert result["passed"] is True
    assert [(answer["id"], answer["streamed"], answer["passed"]) for answer in result["answers"]] == [
        ("sum", False, True),
        ("sky", False, True),
        ("sum", True, True),
    ]
    assert all(answer["found"] == answer["wanted"] for answer in result["answers"])
    assert all(answer["tokens"] == 3 and answer["reason"] == "" for answer in result["answers"])
    assert [request["body"]["stream"] for request in server.requests] == [False, False, True]
    json.dumps(result)


def test_blanks_around_an_answer_do_not_matter(endpoint):
    server = endpoint(lambda handler, body: reply(handler, body, f"\n {ANSWERS[question(body)]} \n"))
    assert acceptance.probe(client_of(server), PROMPTS)["passed"]


@pytest.mark.parametrize("text", ["", "it is Blue", "it is blue it is blue", "it is", "!!!!!!!!", "it  is blue"])
def test_one_wrong_answer_fails(endpoint, text):
    server = endpoint(
        lambda handler, body: (
            right(handler, body) if question(body) != "colour of the sky?" else reply(handler, body, text)
        )
    )
    result = acceptance.probe(client_of(server), PROMPTS)
    assert result["passed"] is False
    (wrong,) = [answer for answer in result["answers"] if not answer["passed"]]
    assert (wrong["id"], wrong["found"], wrong["reason"]) == ("sky", text, "another answer than the golden one")


def test_a_stream_that_comes_in_one_piece_fails(endpoint):
    def whole(handler, body):
        if body["stream"]:
            handler.stream({"choices": [{"delta": {"content": ANSWERS[question(body)]}}]}, DONE)
        else:
            right(handler, body)

    result = acceptance.probe(client_of(endpoint(whole)), PROMPTS)
    assert not result["passed"]
    assert [answer["reason"] for answer in result["answers"]] == [
        "",
        "",
        "the answer came in one piece though a stream was asked for",
    ]


def test_a_stream_that_is_wrong_where_the_plain_answer_is_right_fails(endpoint):
    server = endpoint(
        lambda handler, body: reply(handler, body, "no no no") if body["stream"] else right(handler, body)
    )
    assert not acceptance.probe(client_of(server), PROMPTS)["passed"]


@pytest.mark.parametrize(
    "script",
    [
        lambda handler, body: handler.answer(b"overloaded", 503),
        lambda handler, body: handler.answer(b"not JSON"),
        lambda handler, body: handler.answer({"choices": [{"message": {"content": 5}}], "usage": 5}),
        lambda handler, body: handler.answer([]),
        lambda handler, body: handler.stream({"choices": [{"delta": None}]}),
        lambda handler, body: None,
    ],
    ids=["503", "no JSON", "no text", "a list", "cut off", "closed"],
)
def test_no_answers_fail_with_a_reason_each(endpoint, script):
    client = client_of(endpoint(script))
    result = acceptance.probe(client, PROMPTS)
    assert not result["passed"]
    assert len(result["answers"]) == 3
    for answer in result["answers"]:
        assert answer["reason"].startswith("no answer: ")
        assert len(answer["reason"]) > len("no answer: ")
    load = acceptance.load(client, PROMPTS, 3, 2)
    assert (load["requests"], load["failed_requests"]) == (3, 3)


def test_nobody_there(dead_port):
    result = acceptance.probe(ChatClient(f"http://127.0.0.1:{dead_port}/v1", "tiny"), PROMPTS)
    assert "refused" in result["answers"][0]["reason"]


def test_an_endpoint_that_says_nothing(endpoint):
    server = endpoint(lambda handler, body: server.released.wait(60))
    result = acceptance.probe(client_of(server, timeout=0.05), PROMPTS[:1])
    assert "timed out" in result["answers"][0]["reason"]


def test_no_prompts_prove_nothing(endpoint):
    assert acceptance.probe(client_of(endpoint(right)), [])["passed"] is False
    with pytest.raises(LlmError, match="no golden prompts"):
        acceptance.check_prompts([])


@pytest.mark.parametrize("key", ["id", "prompt", "answer", "max_tokens"])
def test_a_prompt_that_lacks_a_part(key):
    broken = {name: value for name, value in PROMPTS[1].items() if name != key}
    with pytest.raises(LlmError) as caught:
        acceptance.check_prompts([PROMPTS[0], broken])
    assert caught.value.summary == "golden prompt 2 is not whole"
    assert caught.value.found == f"no {key}"


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": 42},
        {"answer": None},
        {"answer": ["x"]},
        {"prompt": 5},
        {"prompt": None},
        {"max_tokens": "many"},
        {"max_tokens": None},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": [8]},
    ],
)
def test_a_prompt_of_the_wrong_form(changes):
    (key,) = changes
    with pytest.raises(LlmError) as caught:
        acceptance.check_prompts([PROMPTS[0], dict(PROMPTS[1], **changes)])
    assert caught.value.summary == "golden prompt 2 has the wrong form"
    assert caught.value.found.startswith(key)


def test_prompts_that_are_whole_come_back_with_numbers():
    assert acceptance.check_prompts([dict(PROMPTS[0], max_tokens="8")]) == PROMPTS[:1]


# Load -------------------------------------------------------------------------------------------------------------


def test_a_load_of_right_answers(endpoint):
    server = endpoint(right)
    result = acceptance.load(client_of(server), PROMPTS, 7, 3)
    assert (result["requests"], result["failed_requests"], result["reasons"], result["concurrency"]) == (7, 0, [], 3)
    assert result["output_tokens"] == 21
    assert result["output_tokens_per_s"] > 0
    assert [question(request["body"]) for request in server.requests].count("two and two?") == 4  # in turns
    assert len(result["samples"]) == 7
    for sample in result["samples"]:
        assert 0 <= sample["ttft_ms"] <= sample["total_ms"]
    assert None not in {**result["ttft_ms"], **result["tpot_ms"]}.values()
    json.dumps(result)


def test_as_many_at_a_time_as_asked_for_and_never_more(endpoint):
    lock, state = threading.Lock(), {"now": 0, "most": 0}
    together = threading.Barrier(3, timeout=30)

    def counted(handler, body):
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        together.wait()
        with lock:
            state["now"] -= 1
        right(handler, body)

    assert acceptance.load(client_of(endpoint(counted)), PROMPTS, 9, 3)["failed_requests"] == 0
    assert state["most"] == 3


def test_wrong_and_missing_answers_fail_and_do_not_count(endpoint):
    def mixed(handler, body):
        if question(body) == "two and two?":
            right(handler, body)
        elif len(server.requests) % 4 == 0:
            reply(handler, body, "green", tokens=500)
        else:
            handler.answer(b"overloaded", 503)

    server = endpoint(mixed)
    result = acceptance.load(client_of(server), PROMPTS, 8, 1)
    assert (result["requests"], result["failed_requests"]) == (8, 4)
    assert result["output_tokens"] == 4 * 3
    assert len(result["reasons"]) == 2
    assert "another answer than the golden one for sky" in result["reasons"]


def test_all_wrong_has_no_percentiles(endpoint):
    result = acceptance.load(client_of(endpoint(lambda handler, body: reply(handler, body, "green"))), PROMPTS, 2, 1)
    assert result["failed_requests"] == 2
    assert result["ttft_ms"] == result["tpot_ms"] == {"p50": None, "p90": None, "p99": None}
    assert result["output_tokens_per_s"] == 0


def test_answers_of_one_token_have_no_time_for_each_further_one(endpoint):
    server = endpoint(lambda handler, body: reply(handler, body, ANSWERS[question(body)], tokens=1))
    result = acceptance.load(client_of(server), PROMPTS, 2, 1)
    assert result["failed_requests"] == 0
    assert result["tpot_ms"]["p50"] is None
    assert result["ttft_ms"]["p50"] is not None


def test_time_for_each_token_by_hand():
    class Canned:
        def stream(self, prompt, max_tokens):
            return {"text": "a", "ttft_s": 0.1, "seconds": 0.5, "completion_tokens": 5, "chunks": 5}

    result = acceptance.load(Canned(), [{"id": "x", "prompt": "x", "answer": "a", "max_tokens": 5}], 4, 2)
    assert result["ttft_ms"] == {"p50": 100.0, "p90": 100.0, "p99": 100.0}
    assert result["tpot_ms"] == {"p50": 100.0, "p90": 100.0, "p99": 100.0}  # 400 ms for four further tokens
    assert result["output_tokens"] == 20


@pytest.mark.parametrize(("requests", "concurrency"), [(0, 1), (1, 0), (-1, 4), (4, -1)])
def test_a_load_of_nothing_is_refused(requests, concurrency):
    with pytest.raises(LlmError, match="proves nothing"):
        acceptance.load(None, PROMPTS, requests, concurrency)


# Percentiles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], (None, None, None)),
        ([7], (7, 7, 7)),
        ([2, 1], (1, 2, 2)),
        ([3, 1, 2], (2, 3, 3)),
        (range(1, 11), (5, 9, 10)),
        (range(10, 0, -1), (5, 9, 10)),
        (range(1, 101), (50, 90, 99)),
        (range(1, 1001), (500, 900, 990)),
        ([1.23456], (1.23, 1.23, 1.23)),
    ],
)
def test_percentiles_by_hand(values, wanted):
    assert acceptance.percentiles(list(values)) == {"p50": wanted[0], "p90": wanted[1], "p99": wanted[2]}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300))
def test_percentiles_are_the_smallest_values_that_enough_lie_below(values):
    found = acceptance.percentiles(values)
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert found[name] in values
        assert sum(value <= found[name] for value in values) * 100 >= percent * len(values)
        assert sum(value < found[name] for value in values) * 100 < percent * len(values)


# Models that reason -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text", "good"),
    [
        ("391", "391", True),
        ("391", "It is **391**.", True),
        ("391", "<think>17 * 23 is 391</think>It is 390.", False),
        ("391", "<think>hm, 400?</think>\n\n391", True),
        ("391", "1391", False),
        ("391", "3911", False),
        ("Au", "Gold's symbol is Au.", True),
        ("Au", "August", False),
        ("\u5317\u4eac", "\u662f\u5317\u4eac\u5e02\u3002", True),
        ("a.b", "a-b", False),
    ],
)
def test_an_answer_that_has_to_hold_the_golden_one(answer, text, good):
    assert acceptance.is_golden({"answer": answer, "match": "contains"}, text) is good


def test_an_answer_has_to_be_equal_unless_the_prompt_says_otherwise():
    assert not acceptance.is_golden({"answer": "391"}, "It is 391.")
    assert acceptance.is_golden({"answer": "391", "match": "equal"}, " 391\n")


def test_a_way_to_compare_that_nobody_knows_is_refused():
    with pytest.raises(LlmError, match="wrong form") as caught:
        acceptance.check_prompts([dict(PROMPTS[0], match="roughly")])
    assert "match: 'roughly'" in caught.value.found
