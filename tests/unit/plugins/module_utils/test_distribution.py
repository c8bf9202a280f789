# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import distribution
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from hypothesis import given
from hypothesis import strategies as st


def node(host, address="", rack="", source="/source", path="/weights"):
    return {
        "host": host,
        "rack": rack,
        "share_address": address,
        "share_interface": "eth0",
        "weights_source": source,
        "weights_path": path,
    }


def facts(speed=None, cores=64, **paths):
    return {
        "interfaces": [{"name": "eth0", "speed_mbps": speed}],
        "cpu": {"cores": cores},
        "paths": {"/" + name: {"kind": "folder", "bytes": held} for name, held in paths.items()},
    }


def decide(nodes, facts_of, **deployment):
    return distribution.of(deployment, nodes, facts_of)


def test_the_seed_comes_first_and_each_rack_is_entered_once():
    nodes = [
        node("a", "1", "r1"),
        node("b", "2", "r2"),
        node("c", "3", "r1"),
        node("d", "4", "r3"),
        node("e", "5", "r2"),
    ]
    assert [one["host"] for one in distribution.chain(nodes, "b")] == ["b", "e", "a", "c", "d"]


@given(
    st.lists(st.tuples(st.sampled_from(["", "r1", "r2", "r3"]), st.booleans()), min_size=1, max_size=12),
    st.integers(0, 11),
)
def test_any_chain(members, at):
    nodes = [node(f"h{number}", str(number) if there else "", rack) for number, (rack, there) in enumerate(members)]
    seed = nodes[at % len(nodes)]
    found = distribution.chain(nodes, seed["host"])
    assert {one["host"] for one in found} == {one["host"] for one in nodes if one["share_address"]}
    if seed["share_address"]:
        assert found[0]["host"] == seed["host"]
        racks = {one["host"]: one["rack"] for one in nodes}
        entered = [rack for rack, _members in itertools.groupby(racks[one["host"]] for one in found)]
        assert len(entered) == len(set(entered))


def test_who_fetches():
    nodes = [node("a", "1"), node("b", "2"), node("c", "3")]
    nothing = {name: facts() for name in "abc"}
    assert decide(nodes, nothing)["seed"] == "a"
    assert decide(nodes, nothing | {"a": {}})["seed"] == "b"
    assert decide(nodes, nothing | {"c": facts(weights=5)})["seed"] == "c"
    assert decide(nodes, nothing | {"c": facts(weights=5), "b": facts(source=5)})["seed"] == "b"
    assert decide(nodes, nothing | {"b": facts(source=0)})["seed"] == "a"
    assert decide(nodes, nothing, llm_weights_seed="c")["seed"] == "c"
    with pytest.raises(LlmError, match="llm_weights_seed"):
        decide(nodes, nothing, llm_weights_seed="d")


@pytest.mark.parametrize(
    ("speed", "cores", "wanted"),
    [
        (None, 64, 1),
        (-1, 64, 1),
        (1000, 64, 1),
        (10_000, 64, 3),
        (25_000, 64, 7),
        (100_000, 256, 16),
        (25_000, 8, 2),
        (25_000, 1, 1),
    ],
)
def test_processes_fill_the_slowest_wire_as_far_as_cores_allow(speed, cores, wanted):
    nodes = [node("a", "1"), node("b", "2")]
    found = decide(nodes, {"a": facts(speed, cores), "b": facts(400_000, 256)})
    slowest = wanted if speed and speed > 0 else 16
    assert found["processes"] == (min(slowest, max(1, cores // 4)))


def test_what_was_set_is_taken():
    found = decide([node("a", "1")], {"a": facts(100_000)}, llm_weights_processes=3, llm_weights_bandwidth=800)
    assert (found["processes"], found["rate_limit"]) == (3, 100_000_000)


def test_ports():
    chain = [{"host": "a"}, {"host": "b"}]
    assert list(distribution.ports({"chain": chain, "port": 5000, "processes": 3})) == [5000, 5001, 5002]
    assert distribution.ports({"chain": chain[:1], "port": 5000, "processes": 3}) == {}


NPU = {"npu": {"chips": [{"name": "310P3"}]}}
A2 = {"npu": {"chips": [{"name": "910B3"}]}}


@pytest.mark.parametrize(
    ("found", "families", "patched"),
    [
        ([NPU, NPU], ["ascend_310p", "ascend_a2"], True),
        ([A2, A2], ["ascend_310p", "ascend_a2"], False),
        ([NPU, A2], ["ascend_310p"], False),
        ([{}, {}], ["ascend_310p"], True),
        ([{}, {}], ["ascend_310p", "ascend_a2"], False),
        ([{}, {}], [], False),
    ],
)
def test_cards_without_bfloat16_get_float16(found, families, patched):
    nodes = [node("a"), node("b")]
    wanted = {"config.json": {"torch_dtype": "float16"}} if patched else {}
    facts_of = {"a": found[0], "b": found[1]}
    assert distribution.patch({"dtype": "bfloat16"}, nodes, facts_of, families) == wanted
    assert distribution.patch({"dtype": "float16"}, nodes, facts_of, families) == {}


@pytest.mark.parametrize(
    ("source", "remote"),
    [
        ("/data", False),
        ("", False),
        ("hf://a/b", True),
        ("s3://b/p", True),
        ("https://h/", True),
    ],
)
def test_remote_sources(source, remote):
    assert distribution.is_remote(source) is remote
