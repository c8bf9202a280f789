# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A visit to peers that know the token and yet do not behave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.peers import visitor
from ansible_collections.baremetal.llm.plugins.module_utils.peers.protocol import Channel, ProtocolError, Secret
from hypothesis import given
from hypothesis import strategies as st

SECRET = Secret("token", "run")


@pytest.fixture
def visit():
    """Function that visits a peer which answers messages by their kind from a table, and leaves where it says None."""
    with contextlib.ExitStack() as stack:

        def converse(sock: socket.socket, answers: dict) -> None:
            channel = Channel(sock, SECRET, visiting=False)
            with contextlib.suppress(OSError, ProtocolError):
                while True:
                    answer = answers.get(channel.receive(60)["kind"])
                    if answer is None:
                        channel.close()
                        return
                    channel.send(answer, 60)

        def serve(listening: socket.socket, answers: dict) -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _address = listening.accept()
                    stack.callback(sock.close)
                    threading.Thread(target=converse, args=(sock, answers), daemon=True).start()

        def make(answers: dict) -> dict:
            listening = stack.enter_context(socket.socket())
            listening.bind(("127.0.0.3", 0))
            listening.listen()
            stack.callback(listening.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=serve, args=(listening, answers), daemon=True).start()
            port = listening.getsockname()[1]
            group = visitor.Group("a", "127.0.0.2", {"b": "127.0.0.3"}, [port], {port: "listening"}, SECRET, time.time)
            return visitor.visit(group, "b")

        yield make


WELCOME = {"kind": "welcome", "name": "b", "address": "127.0.0.3", "listening": {}}
CLOCK = {"kind": "clock", "time": 5.0}


@pytest.mark.parametrize(
    "answers",
    [
        {"hello": WELCOME},
        {"hello": WELCOME, "clock": CLOCK},
        {"hello": WELCOME, "clock": CLOCK, "probe": {"found": []}},
        {"hello": {**WELCOME, "listening": {"\u00b2": 1, "9" * 5000: 2, "5": None}}, "clock": {"time": "now"}},
        {"hello": {**WELCOME, "listening": [1]}, "clock": {"time": [1]}, "probe": {"found": {"port": 1}}},
    ],
)
def test_a_peer_that_breaks_off(visit, answers):
    found = visit(answers)
    assert (found["met"], found["unsettled"]) == (False, True)
    assert [entry["ok"] for entry in found["connections"]] == [True]
    assert len(found["problems"]) == 1 and found["problems"][0].startswith("the talk of a with b broke off: ")


@pytest.mark.parametrize("welcome", [{"kind": "other"}, {}, {"kind": ["welcome"], "name": "b"}])
def test_a_greeting_that_is_none(visit, welcome):
    found = visit({"hello": welcome})
    assert [(entry["ok"], entry["reason"]) for entry in found["connections"]] == [(True, visitor.STRANGER)]
    assert (found["met"], found["unsettled"]) == (False, False)


def test_a_peer_that_reports_nonsense_and_has_another_address(visit):
    report = {"found": [None, {"port": 1, "ok": True}, {"port": "x"}]}
    greeting = {**WELCOME, "address": "192.0.2.9"}
    found = visit({"hello": greeting, "clock": {"time": None}, "probe": report, "bye": {"kind": "bye"}})
    assert found["met"]
    assert len(found["connections"]) == 1
    assert found["clocks"] == []
    assert found["problems"] == ["b says its address is 192.0.2.9, a knows it by 127.0.0.3"]
    # A connection that breaks is no path that drops segments.
    assert [path["ok"] for path in found["paths"]] == [None, None]
    assert all(path["reason"].startswith("not measured: ") for path in found["paths"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(said=VALUES | st.dictionaries(st.text(alphabet="0123456789\u00b2\u0664-", max_size=7), VALUES))
def test_whatever_a_peer_says_of_its_ports(said):
    for port, state in visitor.states_of(said).items():
        assert 0 <= port < 100_000
        assert len(state) <= 20
    json.dumps(visitor.states_of(said))
