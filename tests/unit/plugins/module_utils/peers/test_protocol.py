# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import socket

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.peers import protocol
from ansible_collections.baremetal.llm.plugins.module_utils.peers.protocol import Channel, ProtocolError, Secret
from hypothesis import given
from hypothesis import strategies as st

SECRET = Secret("the token", "run 1")
STRANGE = "it does not speak the protocol of this probe"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
MESSAGES = st.dictionaries(st.text(), VALUES)


@pytest.fixture
def channels():
    """The visitor's and the listener's end of one conversation."""
    here, there = socket.socketpair()
    yield Channel(here, SECRET, visiting=True), Channel(there, SECRET, visiting=False)
    here.close()
    there.close()


@given(message=MESSAGES, token=st.text(), run=st.text(), nonce=st.text())
def test_a_message_arrives_as_it_was_sent(message, token, run, nonce):
    secret = Secret(token, run)
    line = protocol.seal(secret, nonce, "visitor 1", message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert protocol.unseal(secret, nonce, "visitor 1", line) == message


@given(message=MESSAGES, data=st.data())
def test_a_message_that_was_changed_is_refused(message, data):
    line = bytearray(protocol.seal(SECRET, "n", "visitor 1", message)[:-1])
    position = data.draw(st.integers(0, len(line) - 1))
    line[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        protocol.unseal(SECRET, "n", "visitor 1", bytes(line))


@given(line=st.binary(max_size=200))
def test_garbage_is_refused(line):
    with pytest.raises(ProtocolError):
        protocol.unseal(SECRET, "", "visitor 0", line)


@pytest.mark.parametrize(
    ("secret", "nonce", "place"),
    [
        (Secret("another token", "run 1"), "n", "visitor 1"),
        (Secret("the token", "run 2"), "n", "visitor 1"),
        (SECRET, "m", "visitor 1"),
        (SECRET, "n", "visitor 2"),
        (SECRET, "n", "listener 1"),
    ],
)
def test_a_line_belongs_to_one_token_run_conversation_and_place(secret, nonce, place):
    line = protocol.seal(secret, nonce, place, {"kind": "hello"})
    with pytest.raises(ProtocolError, match="does not know the token"):
        protocol.unseal(SECRET, "n", "visitor 1", line)


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", "[" * 100_000])
def test_a_sealed_text_that_is_no_object_is_refused(text):
    found = protocol._seal_of(SECRET, "n", "visitor 1", text)
    with pytest.raises(ProtocolError, match="no JSON"):
        protocol.unseal(SECRET, "n", "visitor 1", f"{protocol.MARKER} {found} {text}".encode())


def test_the_token_is_not_in_a_line():
    assert b"the token" not in protocol.seal(SECRET, "", "visitor 0", {"kind": "hello"})


def test_a_conversation(channels):
    visitor, listener = channels
    for number in range(3):
        visitor.send({"number": number}, 5)
        assert listener.receive(5)["number"] == number
        listener.send({"answer": number}, 5)
        assert visitor.receive(5) == {"answer": number}


def test_a_line_that_is_said_again_is_refused(channels):
    visitor, listener = channels
    line = visitor.sealed({"kind": "hello"})
    listener.feed(line + line)
    assert listener.next()["kind"] == "hello"
    with pytest.raises(ProtocolError):
        listener.next()


@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_lines_that_arrive_in_pieces(cuts):
    with socket.socket() as sock:
        visitor, listener = Channel(sock, SECRET, True), Channel(sock, SECRET, False)
        stream = visitor.sealed({"number": 0}) + visitor.sealed({"number": 1})
        found = []
        for cut in [*cuts, len(stream)]:
            listener.feed(stream[:cut])
            stream = stream[cut:]
            while (message := listener.next()) is not None:
                found.append(message["number"])
        assert found == [0, 1]


def test_a_line_without_an_end_is_refused(channels):
    visitor, listener = channels
    visitor.sock.sendall(b"x" * 1000)
    with pytest.raises(ProtocolError, match="a line of more than 500 bytes"):
        listener.receive(5, limit=500)


def test_a_line_that_is_too_long_is_refused_even_when_it_is_whole(channels):
    _visitor, listener = channels
    listener.feed(b"x" * 600 + b"\n")
    with pytest.raises(ProtocolError, match="a line of more than 500 bytes"):
        listener.next(500)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\n", b"\xff\xfe\n"])
def test_other_protocols(channels, said):
    visitor, listener = channels
    visitor.sock.sendall(said)
    with pytest.raises(ProtocolError, match=STRANGE):
        listener.receive(5)


def test_a_side_that_says_nothing_or_leaves(channels):
    visitor, listener = channels
    with pytest.raises(socket.timeout):
        listener.receive(0.01)
    with pytest.raises(socket.timeout):
        listener.receive(0.0)
    visitor.sock.sendall(protocol.MARKER.encode())
    visitor.sock.close()
    with pytest.raises(ProtocolError, match="closed the connection"):
        listener.receive(5)


def test_the_payload_between_two_lines(channels):
    visitor, listener = channels
    visitor.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    visitor.send({"kind": "take"}, 5)
    visitor.send_payload(5)
    visitor.send({"kind": "mtu"}, 5)
    assert listener.receive(5)["kind"] == "take"
    listener.receive_payload(5)
    assert listener.receive(5) == {"kind": "mtu"}


def test_a_payload_that_stays_away(channels):
    visitor, listener = channels
    visitor.sock.sendall(bytes(protocol.PAYLOAD_BYTES - 1))
    with pytest.raises(socket.timeout):
        listener.receive_payload(0.05)


def test_a_socket_without_a_path_has_no_mtu(channels):
    assert channels[0].mtu() is None


@given(said=VALUES | st.lists(st.dictionaries(st.sampled_from(["port", "ok", "reason", "ms", "from"]), VALUES)))
def test_what_a_peer_reports_is_checked(said):
    for entry in protocol.checked_connections(said, [1, 22]):
        assert list(entry) == ["port", "ok", "reason", "ms"]
        assert entry["port"] in (1, 22) and not isinstance(entry["port"], (bool, float))
        assert entry["ok"] is None or isinstance(entry["ok"], bool)
        assert isinstance(entry["reason"], str) and len(entry["reason"]) <= protocol.TEXT_CHARACTERS
        json.dumps(entry, allow_nan=False)


def test_a_report_of_a_peer():
    good = {"port": 22, "ok": False, "reason": "re\x1b[31mfused", "ms": 0.5}
    others = [{**good, "port": 23}, {**good, "ok": "yes"}, {"port": 22}, 5, {"port": [22], "ok": True}]
    found = protocol.checked_connections([good, *others], [22])
    assert found == [{"port": 22, "ok": False, "reason": "re [31mfused", "ms": 0.5}]


@pytest.mark.parametrize("said", [float("nan"), float("inf"), True, "5", None, 1e11, 10**400])
def test_what_is_no_number(said):
    assert protocol.number_of(said) is None
