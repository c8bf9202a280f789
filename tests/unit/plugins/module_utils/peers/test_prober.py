# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes with loopback addresses of their own stand for hosts; the sockets and the listeners are real."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.peers import listener, matrix, prober, protocol, visitor
from ansible_collections.baremetal.llm.plugins.module_utils.peers.protocol import MARKER, Channel, Secret

ADDRESSES = {"a": "127.0.0.2", "b": "127.0.0.3", "c": "127.0.0.4"}
NOBODY = "127.0.0.9"


def verdicts(connections: list[dict]) -> dict:
    """Return {(from, to): the set of verdicts on all ports}."""
    found: dict = {}
    for entry in connections:
        found.setdefault((entry["from"], entry["to"]), set()).add(entry["ok"])
    return found


def both_ways(names: str, ok: bool | None = True) -> dict:
    return {(start, end): {ok} for start in names for end in names if start != end}


def only(addresses: dict, names: str) -> dict:
    return {name: addresses[name] for name in names}


# All is well ------------------------------------------------------------------------------------------------------


def assert_all_is_well(results: dict, ports: list[int]) -> None:
    merged = matrix.merge(results)
    assert verdicts(merged["connections"]) == both_ways("".join(results))
    assert len(merged["connections"]) == len(results) * (len(results) - 1) * len(ports)
    assert {entry["reason"] for entry in merged["connections"]} == {""}
    assert all(entry["ms"] >= 0 for entry in merged["connections"])
    assert {(path["from"], path["to"]): {path["ok"]} for path in merged["paths"]} == both_ways("".join(results))
    assert all(path["mtu"] > 1000 and path["passes"] is None for path in merged["paths"])
    assert merged["problems"] == []
    for result in results.values():
        assert [entry["state"] for entry in result["listening"]] == ["listening"] * len(ports)


def test_hosts_that_begin_together(hosts, ports):
    started = {name: hosts.start(hosts.settings(name, ADDRESSES, ports)) for name in ADDRESSES}
    assert_all_is_well({name: hosts.result(process) for name, process in started.items()}, ports)
    hosts.wait_until_none_is_left()


def test_hosts_that_come_one_after_another(hosts, ports):
    results = {name: hosts.probe(hosts.settings(name, ADDRESSES, ports)) for name in ADDRESSES}
    assert_all_is_well(results, ports)
    assert [results[name]["peers_met"] for name in "abc"] == [[], ["a"], ["a", "b"]]
    hosts.wait_until_none_is_left()


def test_a_port_can_be_used_right_after(hosts, ports):
    """An engine that does not set SO_REUSEADDR begins next."""
    for name in ADDRESSES:
        hosts.probe(hosts.settings(name, ADDRESSES, ports))
    hosts.wait_until_none_is_left()
    for address in ADDRESSES.values():
        for port in ports:
            with socket.socket() as engine:
                engine.bind((address, port))
                engine.listen()


def test_a_listener_stays_as_long_as_its_module_visits(hosts, ports):
    """Hosts that visit each other at the same time: no probe back may find a listener that has just ended."""
    addresses = {f"h{number}": f"127.0.0.{number}" for number in range(2, 10)}
    started = {name: hosts.start(hosts.settings(name, addresses, ports)) for name in addresses}
    results = {name: hosts.result(process) for name, process in started.items()}
    assert all(entry["ok"] is not False for result in results.values() for entry in result["connections"])
    assert {entry["ok"] for entry in matrix.merge(results)["connections"]} == {True}
    hosts.wait_until_none_is_left()


@pytest.mark.parametrize("offset", [5.0, -3600.0])
def test_a_clock_that_is_off(hosts, ports, offset):
    addresses = only(ADDRESSES, "ab")
    hosts.probe(hosts.settings("a", addresses, ports))
    (clock,) = hosts.probe(hosts.settings("b", addresses, ports), offset)["clocks"]
    assert (clock["from"], clock["to"]) == ("b", "a")
    assert abs(clock["offset_s"] + offset) <= clock["uncertainty_s"] + 0.01
    assert clock["uncertainty_s"] < 1


def test_many_ports(hosts):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _number in range(60)]
        for sock in sockets:
            sock.bind(("0.0.0.0", 0))
        ports = [sock.getsockname()[1] for sock in sockets]
    addresses = only(ADDRESSES, "ab")
    assert_all_is_well({name: hosts.probe(hosts.settings(name, addresses, ports)) for name in addresses}, ports)


# Somebody is missing or in the way --------------------------------------------------------------------------------


def test_no_peers(hosts, ports):
    empty = {
        "connections": [], "clocks": [], "paths": [], "device_pings": [], "not_probed": [], "listening": [],
        "peers_met": [], "problems": [],
    }  # fmt: skip
    for peers in ([], [{"host": "a", "address": "127.0.0.2"}]):
        result = prober.probe({**hosts.settings("a", ADDRESSES, ports), "peers": peers}, time.time)
        assert result.pop("seconds") >= 0
        assert result == empty
    assert hosts.left() == []


def test_a_host_that_never_comes(hosts, ports):
    results = {name: hosts.probe(hosts.settings(name, ADDRESSES, ports, window=4.0)) for name in "ab"}
    assert len(hosts.left()) == 2  # each still waits for the third
    merged = verdicts(matrix.merge(results)["connections"])
    assert merged == {**both_ways("abc", None), ("a", "b"): {True}, ("b", "a"): {True}}
    assert results["b"]["peers_met"] == ["a"]
    hosts.wait_until_none_is_left()  # at the window


def test_a_listener_ends_by_sigterm(hosts, ports):
    hosts.probe(hosts.settings("a", ADDRESSES, ports, window=600.0))
    (pid,) = hosts.left()
    os.kill(pid, signal.SIGTERM)
    hosts.wait_until_none_is_left()


def test_what_a_listener_holds(hosts, ports):
    hosts.probe(hosts.settings("a", ADDRESSES, ports))
    (pid,) = hosts.left()
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    files = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    assert files.count("/dev/null") == 3
    assert {name.partition(":")[0] for name in files} == {"/dev/null", "socket", "anon_inode"}
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        assert stream.read().decode().startswith(f"{MARKER} 127.0.0.2 run {hosts.run_name} host a\0")
    assert os.getsid(pid) != os.getsid(0)


def test_a_listener_gives_way_to_that_of_a_later_run(hosts, ports):
    hosts.probe(hosts.settings("a", ADDRESSES, ports))
    (pid,) = hosts.left()
    result = hosts.probe({**hosts.settings("a", ADDRESSES, ports), "token": "new"})
    assert [entry["state"] for entry in result["listening"]] == ["listening"] * 3
    assert len(hosts.left()) == 1 and pid not in hosts.left()


STRANGERS = ["says nothing", "leaves", "speaks HTTP", "says garbage without an end", "says a lot"]


@pytest.fixture
def stranger():
    """Function that lets a program that is none of ours listen on an address and port."""
    with contextlib.ExitStack() as stack:

        def listen(address: str, port: int, manner: str) -> None:
            sock = stack.enter_context(socket.socket())
            sock.bind((address, port))
            if manner == "does not accept":
                return
            sock.listen()
            stack.callback(sock.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=serve, args=(sock, manner), daemon=True).start()

        def serve(sock: socket.socket, manner: str) -> None:
            while True:
                try:
                    accepted, _address = sock.accept()
                except OSError:
                    return
                stack.callback(accepted.close)
                with contextlib.suppress(OSError):
                    if manner == "leaves":
                        accepted.close()
                    elif manner == "speaks HTTP":
                        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    elif manner == "says garbage without an end":
                        accepted.sendall(b"x" * 3000)
                    elif manner == "says a lot":
                        accepted.sendall(b"x" * 100_000)

        yield listen


def test_a_listener_of_a_module_that_was_killed_ends_at_its_window(hosts, ports, stranger):
    stranger("127.0.0.3", ports[0], "says nothing")  # it holds the module up
    process = hosts.start(hosts.settings("a", only(ADDRESSES, "ab"), ports, window=1.0))
    end = time.monotonic() + 60
    while not hosts.left() and time.monotonic() < end:
        time.sleep(0.002)
    assert len(hosts.left()) == 1
    process.kill()
    hosts.wait_until_none_is_left()


@pytest.mark.parametrize("manner", STRANGERS)
def test_a_port_that_a_stranger_has(hosts, ports, stranger, manner):
    addresses = only(ADDRESSES, "ab")
    stranger("127.0.0.2", ports[0], manner)
    results = {name: hosts.probe(hosts.settings(name, addresses, ports)) for name in addresses}
    assert [entry["state"] for entry in results["a"]["listening"]] == ["in_use", "listening", "listening"]
    merged = matrix.merge(results)
    assert verdicts(merged["connections"]) == both_ways("ab")
    (remark,) = [entry for entry in merged["connections"] if entry["reason"]]
    assert (remark["from"], remark["to"], remark["port"]) == ("b", "a", ports[0])
    assert remark["reason"] == visitor.STRANGER
    hosts.wait_until_none_is_left()


def test_a_port_that_a_program_has_without_accepting(hosts, ports, stranger):
    addresses = only(ADDRESSES, "ab")
    stranger("127.0.0.2", ports[0], "does not accept")
    results = {name: hosts.probe(hosts.settings(name, addresses, ports)) for name in addresses}
    (entry,) = [entry for entry in matrix.merge(results)["connections"] if entry["ok"] is not True]
    assert (entry["to"], entry["port"], entry["ok"]) == ("a", ports[0], None)
    assert entry["reason"] == "that host does not listen there: in_use"


def test_strangers_on_all_ports(hosts, ports, stranger):
    """As when the probe runs again while the engines serve."""
    addresses = only(ADDRESSES, "ab")
    for address in addresses.values():
        for port in ports:
            stranger(address, port, "leaves")
    results = {name: hosts.probe(hosts.settings(name, addresses, ports)) for name in addresses}
    assert hosts.left() == []
    assert verdicts(matrix.merge(results)["connections"]) == both_ways("ab")
    assert [result["peers_met"] for result in results.values()] == [[], []]


def test_a_way_that_is_blocked_in_one_direction(hosts, ports):
    """What a knows of b's address leads nowhere, while b finds a."""
    results = {"a": hosts.probe(hosts.settings("a", {"a": "127.0.0.2", "b": NOBODY}, ports))}
    results["b"] = hosts.probe(hosts.settings("b", only(ADDRESSES, "ab"), ports))
    merged = matrix.merge(results)
    assert verdicts(merged["connections"]) == {("a", "b"): {False}, ("b", "a"): {True}}
    assert all("although that host listens there" in e["reason"] for e in merged["connections"] if not e["ok"])
    hosts.wait_until_none_is_left()


def test_a_machine_that_answers_in_place_of_another(hosts, ports):
    hosts.probe(hosts.settings("c", ADDRESSES, ports))
    result = hosts.probe(hosts.settings("a", {"a": "127.0.0.2", "b": ADDRESSES["c"]}, ports, settle=0.1))
    assert verdicts(result["connections"]) == {("a", "b"): {False}}
    assert {entry["reason"] for entry in result["connections"]} == {"the host 'c' answers there"}
    assert result["peers_met"] == []


@pytest.mark.parametrize("key", ["token", "run"])
def test_hosts_of_different_runs_do_not_meet(hosts, ports, key):
    addresses = only(ADDRESSES, "ab")
    hosts.probe(hosts.settings("a", addresses, ports))
    # Its listener is still known by the name of the run.
    other = {"token": "another", "run": f"not the run {hosts.run_name}"}[key]
    result = hosts.probe({**hosts.settings("b", addresses, ports), key: other})
    assert result["peers_met"] == []
    assert {(entry["ok"], entry["reason"]) for entry in result["connections"]} == {(True, visitor.STRANGER)}
    assert result["paths"] == result["clocks"] == []


def test_a_host_that_is_not_in_the_list_of_its_peer_is_not_probed_back(hosts, ports):
    hosts.probe(hosts.settings("a", only(ADDRESSES, "ac"), ports))
    result = hosts.probe(hosts.settings("b", only(ADDRESSES, "ab"), ports, settle=0.1))
    assert verdicts(result["connections"]) == {("b", "a"): {True}}
    assert result["peers_met"] == []
    assert len(result["problems"]) == 1 and "broke off" in result["problems"][0]


def test_an_address_that_is_not_on_this_host(hosts, ports):
    result = hosts.probe(hosts.settings("a", {"a": "192.0.2.1", "b": "127.0.0.3"}, ports))
    assert {entry["state"] for entry in result["listening"]} == {"refused"}
    assert {entry["reason"] for entry in result["listening"]} == {"192.0.2.1 is no address of this host"}
    assert {entry["ok"] for entry in result["connections"]} == {None}
    assert all("cannot connect from 192.0.2.1" in entry["reason"] for entry in result["connections"])
    assert hosts.left() == []


@pytest.mark.parametrize("address", ["", "host.example", "::1", "127.0.0.2 ", "1.2.3"])
def test_addresses_that_are_none(hosts, ports, address):
    own = hosts.probe(hosts.settings("a", {"a": address, "b": "127.0.0.3"}, ports))
    assert {entry["state"] for entry in own["listening"]} == {"refused"}
    assert {entry["ok"] for entry in own["connections"]} == {None}
    other = hosts.probe(hosts.settings("a", {"a": "127.0.0.2", "b": address}, ports))
    assert other["connections"] == []
    assert other["problems"] == [f"{address!r} of the peer b is no IPv4 address"]


def test_ports_that_are_none(hosts, ports):
    addresses = only(ADDRESSES, "ab")
    asked = [0, -1, 70_000, ports[0], ports[0]]
    results = {name: hosts.probe(hosts.settings(name, addresses, asked)) for name in addresses}
    states = {entry["port"]: entry["state"] for entry in results["a"]["listening"]}
    assert states == {0: "refused", -1: "refused", 70_000: "refused", ports[0]: "listening"}
    assert len(matrix.merge(results)["connections"]) == 2
    assert verdicts(matrix.merge(results)["connections"]) == both_ways("ab")


def test_no_ports(hosts):
    result = hosts.probe(hosts.settings("a", ADDRESSES, []))
    assert (result["connections"], result["listening"], result["problems"]) == ([], [], [])


def test_the_time_is_up(hosts, ports, stranger):
    for port in ports:
        stranger("127.0.0.3", port, "says nothing")
    result = hosts.probe(hosts.settings("a", only(ADDRESSES, "ab"), ports, timeout=0.2, window=0.5))
    assert verdicts(result["connections"]) == {("a", "b"): {None}}
    assert {entry["reason"] for entry in result["connections"]} == {"no end within the 0.2 s of the probe"}


# What a listener is told ------------------------------------------------------------------------------------------


def test_a_listener_outlives_what_strangers_send(hosts, ports):
    addresses = only(ADDRESSES, "ab")
    first = hosts.probe(hosts.settings("a", addresses, ports))
    with contextlib.ExitStack() as stack:
        for said in (
            b"",
            b"\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"x" * 200_000,
            bytes(range(256)),
            MARKER.encode() + b" x {}\n",
        ):
            sock = stack.enter_context(socket.create_connection(("127.0.0.2", ports[0])))
            with contextlib.suppress(OSError):
                sock.sendall(said)
        second = hosts.probe(hosts.settings("b", addresses, ports))
    assert verdicts(matrix.merge({"a": first, "b": second})["connections"]) == both_ways("ab")
    hosts.wait_until_none_is_left()


def test_a_stranger_hears_nothing(hosts, ports):
    hosts.probe(hosts.settings("a", ADDRESSES, ports))
    with socket.create_connection(("127.0.0.2", ports[0])) as sock:
        other = Channel(sock, Secret("guessed", hosts.run_name), visiting=True)
        other.send({"kind": "hello", "name": "b", "address": "127.0.0.3"}, 5)
        sock.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""


@pytest.fixture
def talk(hosts, ports):
    """Function that talks to the listener of a as the host b, with the token; returns what a answers last."""
    hosts.probe(hosts.settings("a", only(ADDRESSES, "ab"), ports))

    def say(hello: dict, *messages: dict) -> dict | None:
        answer = None
        with socket.create_connection(("127.0.0.2", ports[0]), source_address=("127.0.0.3", 0)) as sock:
            channel = Channel(sock, Secret(hosts.token, hosts.run_name), visiting=True)
            for message in (hello, *messages):
                try:
                    channel.send(message, 60)
                    answer = channel.receive(60)
                except (OSError, listener.ProtocolError):
                    return None
            channel.close()
        return answer

    return say


HELLO = {"kind": "hello", "name": "b", "address": "127.0.0.3"}


@pytest.mark.parametrize(
    "messages",
    [
        [{}],
        [{"kind": "run", "argv": ["reboot"]}],
        [{"kind": ["probe"]}],
        [{"kind": "clock"}] * 30,
        [{"kind": "bye", "connections": "x", "clocks": [None], "paths": {"from": 1}}, {}],
        [{"kind": "probe", "ports": [1], "address": "192.0.2.1"}, {"kind": "x"}],
    ],
)
def test_messages_of_a_peer_that_make_no_sense(hosts, talk, messages):
    assert talk(HELLO, *messages) is None
    assert talk(HELLO)["name"] == "a"
    assert len(hosts.left()) == 1  # b has not been met by that


def test_a_bye_without_a_probe_back_does_not_complete_a_pair(hosts, talk):
    assert talk(HELLO, {"kind": "bye"}) == {"kind": "bye"}
    assert len(hosts.left()) == 1


def test_a_pair_is_complete_after_the_probe_back_and_the_bye(hosts, talk, ports):
    found = [{"from": "a", "to": "b", "ok": None, "mtu": 1e9, "passes": None, "reason": 5}, {"from": "x"}, {}]
    states = {str(port): "listening" for port in ports}
    answer = talk({**HELLO, "listening": states}, {"kind": "probe"}, {"kind": "bye", "paths": found, "clocks": [{}]})
    assert answer == {"kind": "bye"}
    hosts.wait_until_none_is_left()


@pytest.mark.parametrize("name", [None, "", "x" * 1000, "a", ["b"], {"b": 1}])
def test_visitors_that_are_no_peers_are_only_greeted(talk, name):
    assert talk({**HELLO, "name": name})["kind"] == "welcome"
    assert talk({**HELLO, "name": name}, {"kind": "clock"}) is None


# The process ------------------------------------------------------------------------------------------------------


def test_a_listener_is_known_by_its_name(hosts, ports):
    hosts.probe(hosts.settings("a", only(ADDRESSES, "ab"), ports, window=3.0))
    (pid,) = hosts.left()
    assert Path(f"/proc/{pid}/comm").read_text().strip() == protocol.PROCESS_NAME
