# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.baremetal.llm.plugins.filter import planning as filters
from ansible_collections.baremetal.llm.plugins.module_utils.planning import document, text

MODEL = "deepseek-v3-tiny"
HOSTVARS = {
    "a": {
        "ansible_host": "192.0.2.1",
        "llm_model": MODEL,
        "llm_api_keys": ["sk-first"],
        "__discover_facts": {"route_interface": "eth0"},
        "xllm_other": 1,
    },
    "b": {"llm_model": MODEL, "llm_interface": "eth1"},
    "c": {},
}


def serving(names=("a", "b", "c"), groups=None, family=None, hostvars=None):
    return filters.serving_hosts(list(names), HOSTVARS if hostvars is None else hostvars, groups or {}, family)


def test_what_the_planner_gets():
    assert serving() == [
        {
            "name": "a",
            "replica": "",
            "settings": {"llm_model": MODEL, "llm_api_keys": 1},
            "facts": {"route_interface": "eth0"},
            "address": "192.0.2.1",
        },
        {
            "name": "b",
            "replica": "",
            "settings": {"llm_model": MODEL, "llm_interface": "eth1"},
            "facts": {},
            "address": "",
        },
        {"name": "c", "replica": "", "settings": {}, "facts": {}, "address": ""},
    ]


@pytest.mark.parametrize(("reached_at", "address"), [("192.0.2.7", "192.0.2.7"), ("a2-1.example", ""), ("::1", "")])
def test_where_the_inventory_reaches_a_host(reached_at, address):
    (host,) = serving(["a"], hostvars={"a": {"ansible_host": reached_at}})
    assert host["address"] == address


def test_a_run_for_a_part_of_a_replica_group_is_refused():
    groups = {"serving": ["a", "b", "c"], "replica_1": ["a", "b"], "replica_2": ["c"]}
    with pytest.raises(AnsibleFilterError, match=r"b is left out.*all hosts of replica_1.*only a.*--limit"):
        serving(["a", "c"], groups)
    with pytest.raises(AnsibleFilterError, match=r"c is left out.*the group serving"):
        serving(["a", "b"], {"serving": ["a", "b", "c"]})


def test_a_run_for_whole_replica_groups():
    groups = {"serving": ["a", "b", "c"], "replica_1": ["a", "b"], "replica_2": ["c"]}
    assert [host["name"] for host in serving(["c"], groups)] == ["c"]


def test_the_order_of_the_play_is_kept():
    assert [host["name"] for host in serving(("c", "a"))] == ["c", "a"]


def test_replica_groups():
    groups = {
        "all": ["a", "b", "c"],
        "serving": ["a", "b"],
        "replica_1": ["a"],
        "replica_2": ["b", "other"],
        "replicas": ["c"],
    }
    assert [host["replica"] for host in serving(groups=groups)] == ["replica_1", "replica_2", ""]


def test_a_host_in_two_replica_groups_is_refused_with_both():
    with pytest.raises(AnsibleFilterError, match=r"b is in two replica groups.*replica_1 and replica_2"):
        serving(groups={"replica_1": ["a", "b"], "replica_2": ["b"]})


def test_hosts_of_other_plays_may_be_in_any_groups():
    groups = {"replica_1": ["a", "other"], "replica_2": ["other"]}
    assert [host["replica"] for host in serving(("a",), groups)] == ["replica_1"]


def test_settings_of_the_host_go_before_those_of_the_family():
    family = {"llm_engine": "vllm_cpu", "llm_interface": "eth9"}
    found = {host["name"]: host["settings"] for host in serving(family=family)}
    assert found["a"]["llm_interface"] == "eth9"
    assert found["b"]["llm_interface"] == "eth1"
    assert found["c"] == family
    assert family == {"llm_engine": "vllm_cpu", "llm_interface": "eth9"}


@pytest.mark.parametrize(("keys", "count"), [(["x", "y"], 2), ([], 0), (None, 0), ("", 0)])
def test_keys_are_counted(keys, count):
    assert serving(("a",), hostvars={"a": {"llm_api_keys": keys}})[0]["settings"] == {"llm_api_keys": count}


@pytest.mark.parametrize("keys", ["sk-secret", {"key": "sk-secret"}, 5])
def test_keys_that_are_no_list_are_refused_and_not_shown(keys):
    """The length of a text is no number of keys, and its first letter no key."""
    with pytest.raises(AnsibleFilterError, match="a list with one key an entry") as caught:
        serving(("a",), hostvars={"a": {"llm_api_keys": keys}})
    assert "sk-secret" not in str(caught.value)


def test_no_key_ever_reaches_the_plan(frozen_catalog, facts, demo_lock):
    hostvars = {"a": {"llm_model": MODEL, "llm_api_keys": ["sk-secret"], "__discover_facts": facts}}
    hosts = serving(("a",), hostvars=hostvars)
    plan = document.plan(hosts, "/collection", demo_lock)
    assert "sk-secret" not in json.dumps(hosts) + json.dumps(plan) + text.summary(plan)
    assert plan["groups"][0]["nodes"][0]["launch"]["secret_env"] == ["VLLM_API_KEY"]


def test_places_are_those_of_the_planner():
    variables = {"llm_model": MODEL, "llm_state_dir": "/srv/", "llm_api_keys": ["x"], "other": 1}
    found = filters.places(variables, "a", "/collection", {"llm_deployment": "chat"})
    assert found == {
        "state_dir": "/srv",
        "run_dir": "/srv/deployments/chat",
        "venvs_dir": "/srv/venvs",
        "weights_path": f"/srv/weights/{MODEL}",
        "weights_source": f"/collection/models/{MODEL}",
    }


def test_places_refuse_wrong_settings_with_the_host():
    with pytest.raises(AnsibleFilterError, match=r"a: llm_state_dir has the wrong form.*remedy"):
        filters.places({"llm_state_dir": "relative"}, "a", "/collection")


PLAN = {
    "deployment": "chat",
    "groups": [{"nodes": [{"host": "a", "rank": 0}, {"host": "b", "rank": 1}]}, {"nodes": [{"host": "c", "rank": 0}]}],
}


def test_the_node_of_a_host():
    assert [filters.plan_node(PLAN, name)["rank"] for name in "abc"] == [0, 1, 0]


def test_a_host_that_the_plan_does_not_know():
    with pytest.raises(AnsibleFilterError, match="z has no place in the plan of deployment chat"):
        filters.plan_node(PLAN, "z")


def test_pick_takes_what_is_there():
    assert filters.pick({"x": 1, "y": None, "z": 3}, {"one": "x", "none": "y", "gone": "w"}) == {"one": 1, "none": None}


def test_the_filters_have_their_names():
    assert set(filters.FilterModule().filters()) == {
        "discovered",
        "discovery",
        "pick",
        "places",
        "plan_node",
        "probes",
        "serving_hosts",
        "stage_error",
    }


# What the modules of discovery and of preflight are given ------------------------------------------------------------

FLEET = {
    "a1": {"ansible_host": "192.0.2.1", "llm_engine": "vllm_ascend", "llm_model": "deepseek-r1-w8a8"},
    "a2": {"ansible_host": "192.0.2.2", "llm_engine": "vllm_ascend", "llm_model": "deepseek-r1-w8a8"},
    "n1": {"llm_engine": "vllm", "llm_image": "vllm/vllm-openai@sha256:0"},
    "c1": {"llm_engine_python": "/opt/python3.11"},
    "l1": {"ansible_connection": "local"},
}
GROUPS = {"serving": list(FLEET), "replica_a": ["a1", "a2"], "replica_n": ["n1"]}


def test_what_discovery_looks_at_follows_from_the_engine():
    found = filters.discovery(FLEET, list(FLEET), GROUPS, "/c")
    assert {host: entry["accelerator"] for host, entry in found.items()} == {
        "a1": "npu",
        "a2": "npu",
        "n1": "gpu",
        "c1": "",
        "l1": "",
    }
    assert {host: entry["find_pythons"] for host, entry in found.items() if entry["find_pythons"]} == {
        "c1": True,
        "l1": True,
    }
    assert found["n1"]["images"] == ["vllm/vllm-openai@sha256:0"]
    assert found["c1"]["pythons"] == ["/opt/python3.11"]
    assert found["c1"]["libraries"] == ["libnuma.so.1"] and found["a1"]["libraries"] == []


def test_the_route_is_asked_to_the_head_or_for_the_head_to_the_next_node():
    found = filters.discovery(FLEET, list(FLEET), GROUPS, "/c")
    assert (found["a1"]["peer"], found["a2"]["peer"]) == ("192.0.2.2", "192.0.2.1")
    assert found["n1"]["peer"] == ""  # alone in its group
    assert found["l1"]["peer"] == ""  # not reached over a network
    assert filters.discovery(FLEET, ["a2", "n1"], {}, "/c")["a2"]["peer"] == "n1"  # one group of all, by its name


def test_an_engine_that_is_not_known_is_left_to_the_planner():
    found = filters.discovery({"a": {"llm_engine": "vlm"}}, ["a"], {}, "/c")["a"]
    assert (found["accelerator"], found["find_pythons"], found["libraries"]) == ("", False, [])


def test_discovery_names_the_host_of_a_wrong_value():
    with pytest.raises(AnsibleFilterError, match="a2: llm_accelerators has the wrong form"):
        filters.discovery({**FLEET, "a2": {"llm_accelerators": "many"}}, list(FLEET), GROUPS, "/c")


def test_what_several_modules_found_is_joined():
    hostvars = {
        "a": {
            "__discover_facts": {"hostname": "a"},
            "__discover_npu": {"available": True, "problems": []},
            "__discover_gpu": {"skipped": True},
            "__preflight_peers": {"problems": [], "connections": []},
        },
        "b": {"__discover_facts": {"unreachable": True, "msg": "timed out"}, "__discover_npu": {"skipped": True}},
        "c": {"__discover_facts": {"failed": True, "msg": "no python", "hostname": "c"}},
        "d": {},
    }
    assert filters.discovered(list(hostvars), hostvars) == {
        "a": {
            "hostname": "a",
            "npu": {"available": True, "problems": []},
            "peers": {"problems": [], "connections": []},
        },
        "b": {"unreachable": True, "msg": "timed out"},
        "c": {"failed": True, "msg": "no python"},
        "d": {},
    }
    assert [host["facts"] for host in filters.serving_hosts(["b", "c", "d"], hostvars, {})] == [{}, {}, {}]


def _node(host, address, npus=()):
    return {"host": host, "address": address, "npu_addresses": [{"phy_id": npu, "ip": f"10.0.0.{npu}"} for npu in npus]}


def test_each_host_is_told_of_its_peers_and_of_no_other_group():
    form = {"form": "data_parallel"}
    plan = {
        "serving": {"port": 8000},
        "engine": {"group_ports": {"data parallel RPC": 13389, "Ray": 6379}, "node_ports": []},
        "weights": {"chain": [{"host": "a1"}, {"host": "a2"}], "port": 29600, "processes": 2},
        "groups": [
            {"parallel": form, "nodes": [_node("a1", "192.0.2.1", [0, 1]), _node("a2", "192.0.2.2"), _node("a3", "")]},
            {"parallel": form, "nodes": [_node("b1", "192.0.2.9")]},
        ],
    }
    found = filters.probes(plan)
    assert found["a1"] == {
        "address": "192.0.2.1",
        "peers": [{"host": "a2", "address": "192.0.2.2"}],
        "ports": [8000, 13389, 29600, 29601],
        "ring": ["a1", "a2"],
        "devices": [{"phy_id": 0, "ip": "10.0.0.0"}, {"phy_id": 1, "ip": "10.0.0.1"}],
        "peer_devices": {},
    }
    assert list(found["a2"]["peer_devices"]) == ["a1"]
    assert found["a3"] == {} == found["b1"]


class _Task:
    name = "Judge"


def test_the_error_of_the_host_that_failed_by_itself():
    hostvars = {
        "a": {},
        "b": {
            "ansible_failed_result": {"msg": "no way", "wanted": "a way", "found": "none", "remedy": "build one"},
            "ansible_failed_task": _Task,
        },
    }
    assert filters.stage_error(["a", "b"], hostvars) == {
        "host": "b",
        "task": "Judge",
        "msg": "no way",
        "wanted": "a way",
        "found": "none",
        "remedy": "build one",
    }
    assert filters.stage_error(["a"], hostvars)["msg"] == "no message"
