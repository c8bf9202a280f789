# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import verdicts
from hypothesis import given
from hypothesis import strategies as st


def spoil(group, pairs, key, **change):
    for facts in group.facts.values():
        for entry in facts["peers"][key]:
            if (entry["from"], entry["to"]) in pairs:
                entry.update(change)


def test_a_blocked_port_is_told_with_both_ends_and_the_direction(nvidia):
    group = nvidia()
    spoil(group, [("n1", "n2")], "connections", ok=False, reason="timed out")
    found = group.the_fault()
    assert (found["host"], found["check"]) == ("n2", "connections")
    assert found["found"] == "n1 to n2: 8000 (timed out), 29500 (timed out)"


def test_a_host_that_nobody_reaches_is_one_fault(ascend):
    group = ascend("a1", "a2", "a3", "a4", llm_model="deepseek-r1-bf16")
    spoil(group, [(name, "a3") for name in ("a1", "a2", "a4")], "connections", ok=False, reason="refused")
    assert group.faults() == [("a3", "connections", "fail")]


def test_two_hosts_apart_are_two_faults(ascend):
    group = ascend(*(f"a{number}" for number in range(1, 9)), llm_model="deepseek-r1-bf16")
    pairs = [(name, bad) for bad in ("a2", "a4") for name in group.facts if name != bad]
    spoil(group, pairs, "connections", ok=False, reason="refused")
    assert sorted(group.faults()) == [("a2", "connections", "fail"), ("a4", "connections", "fail")]


def test_a_port_that_somebody_holds_is_not_told_as_unreachable_too(nvidia):
    group = nvidia()
    group.facts["n2"]["ports_in_use"] = [{"port": 29500, "address": "0.0.0.0", "pid": 99, "process": "python"}]
    spoil(group, [("n1", "n2")], "connections", ok=False, reason="a stranger answers")
    assert group.faults() == [("n2", "port", "fail")]


def test_a_port_between_nodes_that_is_taken_names_the_setting_that_moves_it(nvidia):
    group = nvidia()
    group.facts["n2"]["ports_in_use"] = [{"port": 29590, "address": "0.0.0.0", "pid": 99, "process": "python3"}]
    fault = group.the_fault()
    assert (fault["found"], fault["remedy"]) == (
        "taken by python3 (pid 99)",
        "end that process, or set llm_port_offset",
    )


def test_hosts_that_were_not_probed(nvidia):
    group = nvidia()
    for facts in group.facts.values():
        del facts["peers"]
    assert group.the_fault()["found"] == "the hosts were not probed"


def test_a_black_hole_for_large_packets(ascend):
    group = ascend("a1", "a2", "a3", "a4", llm_model="deepseek-r1-bf16")
    spoil(group, [("a1", "a2"), ("a2", "a1"), ("a3", "a2"), ("a2", "a3")], "paths", ok=False, mtu=9000, passes=1400)
    found = next(entry for entry in group.judge() if entry["check"] == "path_mtu")
    assert (found["host"], found["level"]) == ("a2", "fail")
    assert "a1 to a2: not with MTU 9000, only up to 1400" in found["found"]


def test_interfaces_of_different_mtu(ascend):
    group = ascend()
    group.facts["a2"]["interfaces"][0]["mtu"] = 9000
    found = group.the_fault()
    assert (found["host"], found["check"], found["found"]) == ("a2", "mtu", "9000")


@pytest.mark.parametrize(("offset", "level"), [(0.9, None), (-5.0, "warn"), (3600.0, "fail")])
def test_clocks(ascend, offset, level):
    group = ascend()
    spoil(group, [("a1", "a2")], "clocks", offset_s=offset)
    spoil(group, [("a2", "a1")], "clocks", offset_s=-offset)
    assert group.faults() == ([("a2", "clock_skew", level)] if level else [])


def test_an_offset_that_is_not_certain_is_no_skew(ascend):
    group = ascend()
    spoil(group, [("a1", "a2"), ("a2", "a1")], "clocks", offset_s=3.0, uncertainty_s=2.5)
    assert group.faults() == []


def test_one_hostname_twice(ascend):
    group = ascend()
    group.facts["a2"]["hostname"] = "a1"
    assert group.the_fault()["check"] == "unique_hostnames"


def test_a_hostname_that_stands_for_loopback(ascend):
    group = ascend()
    group.facts["a1"]["hostname_addresses"] = ["127.0.1.1"]
    found = group.the_fault()
    assert (found["check"], found["level"]) == ("hostname", "fail")
    assert "/etc/hosts" in found["remedy"]


def test_a_proxy(ascend):
    group = ascend()
    group.facts["a1"]["proxies"] = {"http_proxy": "proxy.example:3128", "no_proxy": "10.0.0.0/8"}
    assert group.the_fault()["found"] == "http_proxy is proxy.example:3128"


def test_images_that_differ(ascend):
    image = "quay.io/ascend/vllm-ascend@sha256:" + "a" * 64
    group = ascend(llm_image=image)
    for number, facts in enumerate(group.facts.values()):
        facts["docker"]["images"] = {image: f"sha256:{number}"}
    assert group.the_fault()["check"] == "image"
    group.facts["a2"]["docker"]["images"] = {}
    assert group.faults() == []  # not there yet


def test_what_community_docker_imports_on_a_host(ascend):
    group = ascend()
    group.facts["a2"]["python_modules"]["requests"] = False
    found = group.the_fault()
    assert (found["host"], found["check"]) == ("a2", "python_modules")
    assert "python3-requests" in found["remedy"]


def test_no_docker_engine(ascend):
    group = ascend()
    group.facts["a1"]["docker"].update(engine=None, reason="permission denied")
    assert group.the_fault()["found"] == "permission denied"


@pytest.mark.parametrize(("available", "level"), [(1400, None), (400, "warn"), (300, "fail")])
def test_host_memory(ascend, available, level):
    group = ascend()
    group.facts["a1"]["memory"]["available"] = available * 1024**3
    assert group.faults() == ([("a1", "host_memory", level)] if level else [])


def test_image_and_weights_on_one_disk_share_it(ascend):
    group = ascend()
    facts = group.facts["a1"]
    facts["disks"] = [{"mount": "/", "device": "/dev/sda", "fstype": "xfs", "total": 10**12, "free": 720 * 10**9}]
    for path in facts["paths"].values():
        path["free"] = 720 * 10**9
    assert group.the_fault()["check"] == "disk"  # 714 GB of weights and 18 GB of image
    facts["disks"][0]["free"] = 740 * 10**9
    for path in facts["paths"].values():
        path["free"] = 740 * 10**9
    assert group.faults() == []


def test_a_host_that_did_not_answer_leaves_the_others_judged(ascend):
    group = ascend("a1", "a2", "a3", "a4", llm_model="deepseek-r1-bf16")
    plan = group.plan()
    facts = dict(group.facts, a2={"unreachable": True, "msg": "timed out"})
    for host in ("a1", "a3", "a4"):
        facts[host] = copy.deepcopy(facts[host])
    judged = verdicts.judge(plan, facts)
    faults = [(entry["host"], entry["check"]) for entry in judged if entry["level"] == "fail"]
    assert ("a2", "facts") in faults
    assert {host for host, _check in faults} == {"a2"}
    assert any(entry["host"] == "a3" and entry["level"] == "ok" for entry in judged)


# Facts that are not as they should be -----------------------------------------------------------------------------


def branches(value, path=()):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [found for key, below in inner for found in [(*path, key), *branches(below, (*path, key))]]


JUNK = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just([]) | st.just({}) | st.just([None])


@pytest.mark.parametrize("family", ["ascend", "nvidia"])
@given(data=st.data())
def test_damaged_facts_never_raise(request, family, data):
    group = request.getfixturevalue(family)()
    plan, damaged = group.plan(), copy.deepcopy(group.facts)
    for _number in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(branches(damaged)))
        holder = damaged
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            del holder[path[-1]]
        else:
            holder[path[-1]] = data.draw(JUNK)
    judged = verdicts.judge(plan, damaged)
    for entry in judged:
        assert entry["level"] in ("ok", "warn", "fail")
        assert all(isinstance(value, str) for value in entry.values())
    json.dumps(judged)
    verdicts.table(judged)
