# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.baremetal.llm.plugins.module_utils.peers import matrix
from hypothesis import given
from hypothesis import strategies as st


def connection(start: str, end: str, ok: bool | None, reason: str = "", port: int = 8000) -> dict:
    return {"from": start, "to": end, "port": port, "ok": ok, "reason": reason, "ms": 0.1 if ok else None}


def result(*connections: dict, **more) -> dict:
    listening = [{"port": 8000, "state": "listening", "reason": ""}]
    empty = {"clocks": [], "paths": [], "device_pings": [], "not_probed": [], "listening": listening, "problems": []}
    return {**empty, "connections": list(connections), **more}


def verdicts(merged: dict) -> dict:
    return {(entry["from"], entry["to"], entry["port"]): entry["ok"] for entry in merged["connections"]}


def test_the_host_that_came_later_completes_the_pair():
    first = result(connection("a", "b", None, "nobody listens there yet"))
    second = result(connection("b", "a", True), connection("a", "b", True))
    merged = matrix.merge({"a": first, "b": second})
    assert verdicts(merged) == {("a", "b", 8000): True, ("b", "a", 8000): True}
    assert [entry["reason"] for entry in merged["connections"]] == ["", ""]


def test_a_failure_says_more_than_nobody_there():
    first = result(connection("a", "b", None, "nobody listens there yet"))
    second = result(connection("b", "a", True), connection("a", "b", False, "timed out"))
    assert verdicts(matrix.merge({"a": first, "b": second})) == {("a", "b", 8000): False, ("b", "a", 8000): True}


def test_a_success_that_failed_at_another_time_says_so():
    merged = matrix.merge(
        {"a": result(connection("a", "b", False, "timed out")), "b": result(connection("a", "b", True))}
    )
    (entry,) = [entry for entry in merged["connections"] if entry["from"] == "a"]
    assert (entry["ok"], entry["reason"]) == (True, "failed at another time: timed out")


def test_pairs_that_nobody_completed():
    merged = matrix.merge({"a": result(connection("a", "b", None, "x")), "b": None, "c": {}})
    assert verdicts(merged) == {(s, e, 8000): None for s in "abc" for e in "abc" if s != e}
    assert {entry["reason"] for entry in merged["connections"]} == {"x", matrix.NOBODY}
    assert merged["listening"]["b"] == []


def test_no_hosts_and_one_host():
    empty = {key: [] for key in ("connections", "clocks", "paths", "device_pings", "not_probed", "problems")}
    assert matrix.merge({}) == {**empty, "listening": {}}
    assert matrix.merge({"a": result(listening=[])}) == {**empty, "listening": {"a": []}}


def test_the_most_certain_clock_and_all_else():
    clocks = [
        {"from": "a", "to": "b", "offset_s": offset, "uncertainty_s": uncertainty}
        for offset, uncertainty in ((0.5, 0.3), (0.2, 0.01), (0.4, 0.2))
    ]
    path = {"from": "a", "to": "b", "ok": False, "mtu": 9000, "passes": 1400, "reason": "lost"}
    broken = {**path, "ok": None, "passes": None, "reason": "broke"}
    merged = matrix.merge(
        {
            "a": result(clocks=clocks[:2], paths=[path], device_pings=[1], problems=["odd"]),
            "b": result(clocks=clocks[2:], paths=[broken], device_pings=[2], not_probed=[3]),
        }
    )
    assert merged["clocks"] == [clocks[1]]
    assert merged["paths"] == [path]
    assert (merged["device_pings"], merged["not_probed"], merged["problems"]) == ([1, 2], [3], ["a: odd"])


CONNECTIONS = st.lists(
    st.builds(
        connection,
        st.just("a"),
        st.just("b"),
        st.sampled_from([True, False, None]),
        st.sampled_from(["", "one", "two"]),
        st.sampled_from([1, 2]),
    ),
    max_size=6,
)


@given(entries=CONNECTIONS, data=st.data())
def test_the_order_of_hosts_and_findings_does_not_matter(entries, data):
    shuffled = data.draw(st.permutations(entries))
    half = len(entries) // 2
    one = matrix.merge({"a": result(*entries[:half]), "b": result(*entries[half:])})
    other = matrix.merge({"b": result(*shuffled), "a": result()})
    assert verdicts(one) == verdicts(other)
    assert len(one["connections"]) == len(verdicts(one))
    for key, ok in verdicts(one).items():
        found = [entry["ok"] for entry in entries if (entry["from"], entry["to"], entry["port"]) == key]
        assert ok == (True if True in found else False if False in found else None)
