# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of replica groups over several nodes, from what the inventory declares and from what hosts told."""

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.catalog import models, releases
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.planning import document, groups, inquiry, text
from hypothesis import given
from hypothesis import strategies as st

DECLARED = {
    "llm_discover": False,
    "llm_engine": "vllm_ascend",
    "llm_engine_version": "0.13.0",
    "llm_model": "deepseek-r1-w8a8",
    "llm_accelerator": "910B4-1",
    "llm_weights_source": "modelscope://a/b",
}
DIGEST = "quay.example/vllm@sha256:" + "a" * 64


def declared(count=2, replica="", start=1, **settings):
    return [
        {
            "name": f"a{number}",
            "replica": replica,
            "settings": {**DECLARED, **settings},
            "facts": {},
            "address": f"192.0.2.{number}",
        }
        for number in range(start, start + count)
    ]


def answered(name, address, chip="910B4-1", mib=65536, **settings):
    """Return an Atlas 800I A2 that was asked."""
    chips = [{"phy_id": number, "name": chip, "memory_total_mib": mib} for number in range(8)]
    ports = [{"phy_id": number, "ip": f"10.20.{address}.{number}"} for number in range(8)]
    facts = {
        "kernel": {"machine": "aarch64", "release": "5.10", "libc": "glibc 2.34"},
        "route_interface": "enp61s0f0",
        "interfaces": [
            {"name": "enp61s0f0", "ipv4": [{"address": f"192.0.2.{address}", "prefix": 24}]},
            {"name": "bond0", "ipv4": [{"address": f"198.51.100.{address}", "prefix": 24}]},
            {"name": "idle0", "ipv4": []},
        ],
        "npu": {
            "chips": chips,
            "network": ports,
            "tools": {"npu_smi": "/usr/local/sbin/npu-smi", "hccn_tool": ""},
            "install": {"path": "/opt/Ascend"},
            "problems": [],
        },
    }
    given_settings = {key: value for key, value in DECLARED.items() if key not in ("llm_discover", "llm_accelerator")}
    return {
        "name": name,
        "replica": "",
        "settings": {**given_settings, **settings},
        "facts": facts,
        "address": f"192.0.2.{address}",
    }


def plan(hosts, **arguments):
    return document.plan(hosts, "/collection", None, **arguments)


def refusal(hosts, **arguments):
    with pytest.raises(LlmError) as caught:
        plan(hosts, **arguments)
    return caught.value


# From what is declared -----------------------------------------------------------------------------------------------


def test_a_plan_of_machines_that_are_not_there_yet():
    made = plan(declared())
    (group,) = made["groups"]
    assert [node["address"] for node in group["nodes"]] == ["192.0.2.1", "192.0.2.2"]
    assert {key: group["parallel"][key] for key in ("tensor_parallel", "data_parallel", "data_parallel_local")} == {
        "tensor_parallel": 4,
        "data_parallel": 4,
        "data_parallel_local": 2,
    }
    assert group["fit"]["fits"] is True
    assert "no host was asked" in made["notes"][0]
    assert json.loads(json.dumps(made))["groups"][0]["digest"] == group["digest"]


def test_what_would_have_to_be_bought():
    made = plan(declared(1))
    assert made["groups"][0]["fit"]["fits"] is False
    assert made["groups"][0]["fit"]["text"].endswith("needs one more node")
    assert made["groups"][0]["fit"]["text"] in text.summary(made)


def test_more_chips_or_another_card_than_a_whole_server_has():
    small = plan(declared(2, llm_accelerator="910B4"))["groups"][0]
    assert small["nodes"][0]["device_mib"] == 32768 and small["fit"]["fits"] is False
    told = plan(declared(2, llm_accelerator="some card", llm_accelerator_mib=98304))["groups"][0]
    assert told["nodes"][0]["device_mib"] == 98304 and told["fit"]["fits"] is True
    assert plan(declared(2, llm_accelerators=4))["groups"][0]["nodes"][0]["device_ids"] == [0, 1, 2, 3]


def test_what_is_declared_is_not_deployed():
    assert refusal(declared(llm_image=DIGEST), launch=True).found == "llm_discover: false"


def test_a_host_known_by_name_alone():
    (host,) = declared(1, llm_accelerators=16, llm_accelerator="Ascend910")
    assert plan([dict(host, address="")])["groups"][0]["nodes"][0]["address"] == "a1"


def test_mindie_is_planned_before_its_rank_table_can_be_written():
    made = plan(declared(llm_engine="mindie", llm_engine_version="2.0.T3.1"))
    assert "launch" not in made["groups"][0]["nodes"][0]
    assert any("a1: its command is not known yet" in note for note in made["notes"])
    assert text.summary(made)


@given(st.integers(1, 8), st.sampled_from(["910B4-1", "910B4", "910B3"]))
def test_more_nodes_never_hold_less(count, chip):
    def fits(nodes):
        try:
            return plan(declared(nodes, llm_accelerator=chip))["groups"][0]["fit"]["fits"]
        except LlmError:
            return None

    larger = [found for found in map(fits, range(count, 9)) if found is not None]
    assert larger == sorted(larger)


# From what hosts told ------------------------------------------------------------------------------------------------


def test_what_a_host_told_goes_into_its_rank():
    made = plan([answered("a1", 1), answered("a2", 2)])
    first, second = made["groups"][0]["nodes"]
    assert (first["npu_smi"], first["driver_dir"]) == ("/usr/local/sbin/npu-smi", "/opt/Ascend")
    assert second["npu_addresses"][3] == {"phy_id": 3, "ip": "10.20.2.3"}
    assert second["comm_env"]["node"]["HCCL_IF_IP"] == "192.0.2.2"
    assert first["comm_env"]["group"] == second["comm_env"]["group"]
    assert "HCCL_IF_IP=192.0.2.2" in second["comm_env"]["text"]
    assert first["launch"]["port"] == 8000 and second["launch"]["port"] == 0


def test_the_address_that_the_inventory_uses_is_taken_where_the_interface_holds_it():
    host = answered("a1", 1)
    host["facts"]["interfaces"][0]["ipv4"].insert(0, {"address": "203.0.113.9", "prefix": 24})
    assert groups.address("a1", "enp61s0f0", host["facts"], "192.0.2.1") == "192.0.2.1"
    assert groups.address("a1", "enp61s0f0", host["facts"], "192.0.2.77") == "203.0.113.9"
    assert groups.address("a1", "enp61s0f0", host["facts"]) == "203.0.113.9"


def test_an_interface_that_is_not_there_or_holds_no_address():
    error = refusal([answered("a1", 1, llm_interface="eth7"), answered("a2", 2)])
    assert error.summary == "a1: there is no interface eth7" and "bond0" in error.wanted
    error = refusal([answered("a1", 1, llm_interface="idle0"), answered("a2", 2)])
    assert error.summary == "a1: interface idle0 has no IPv4 address"


def test_three_hosts_where_two_or_four_are_needed():
    error = refusal([answered(f"a{number}", number) for number in (1, 2, 3)])
    assert "256 experts" in error.summary + error.wanted + error.found
    assert error.remedy


def test_unequal_cards_in_a_group_are_named_by_host():
    hosts = [answered("a1", 1), answered("a2", 2, chip="Ascend910")]
    error = refusal(hosts)
    assert "different accelerators" in error.summary
    assert error.found == "a1 ascend_a2, a2 ascend_a3"
    error = refusal([answered("a1", 1), answered("a2", 2, llm_accelerators=16)])
    assert error.found == "a1 8, a2 16"


def test_the_smallest_device_is_what_has_to_fit():
    hosts = [answered("a1", 1), answered("a2", 2, mib=32768)]
    assert plan(hosts)["groups"][0]["fit"]["fits"] is False


def test_a_host_that_did_not_answer_does_not_end_the_plan():
    hosts = [answered("a1", 1), dict(answered("a2", 2), facts={})]
    assert "a2 did not answer: what it has is not known" in plan(hosts)["notes"]


def test_two_replicas_are_planned_each_for_itself():
    hosts = [*declared(2, "replica_1"), *declared(2, "replica_2", start=3)]
    made = plan(hosts)
    assert [group["head"] for group in made["groups"]] == ["a1", "a3"]
    assert [node["rank"] for node in inquiry.nodes_of(made)] == [0, 1, 0, 1]
    assert made["groups"][0]["digest"] != made["groups"][1]["digest"]
    assert [endpoint["url"] for endpoint in made["endpoints"]] == [
        "http://192.0.2.1:8000/v1",
        "http://192.0.2.3:8000/v1",
    ]


# Ports, versions, arguments ------------------------------------------------------------------------------------------


def test_a_second_deployment_moves_its_ports():
    plain, moved = plan(declared()), plan(declared(llm_port_offset=100))
    for what, port in plain["engine"]["group_ports"].items():
        assert moved["engine"]["group_ports"][what] == port + 100
    argv = moved["groups"][0]["nodes"][1]["launch"]["argv"]
    assert argv[argv.index("--data-parallel-rpc-port") + 1] == "13489"


def test_only_the_ports_of_the_chosen_form_are_asked_for():
    asked = {one["port"]: one["what"] for one in plan(declared())["requirements"] if one["check"] == "port"}
    assert asked == {8000: "API", 13389: "data parallel RPC", 29590: "rank guard"}


def test_a_version_that_nobody_knows_names_the_nearest():
    error = refusal(declared(llm_engine_version="0.13.1"))
    assert error.remedy == "did you mean 0.13.0?" and "0.18.0" in error.wanted


@pytest.mark.parametrize("argument", ["--tensor-parallel-size=8", "--headless", "-dp=2", "--data_parallel_rpc_port"])
def test_arguments_that_contradict_the_plan(argument):
    assert "which the plan decides" in refusal(declared(llm_engine_args=[argument])).summary


def test_sizes_that_cannot_be():
    error = refusal(declared(llm_parallel={"tensor_parallel": 3}))
    assert error.wanted and error.found and error.remedy


def test_a_runtime_that_the_engine_does_not_have():
    error = refusal(declared(llm_runtime="venv"))
    assert error.summary == "vllm_ascend 0.13.0 runs in containers" and error.wanted == "llm_runtime: docker"


def test_no_image_is_no_matter_until_it_is_run():
    hosts = [answered("a1", 1), answered("a2", 2)]
    assert plan(hosts)["engine"]["image"] == {}
    assert refusal(hosts, launch=True).summary == "no image to run is named"


def test_an_image_for_other_machines_is_refused_before_anything_is_copied():
    hosts = [answered(f"a{number}", number, llm_image_archive="/srv/i.tar") for number in (1, 2)]
    archive = {"id": "sha256:" + "b" * 64, "tags": [], "architecture": "amd64", "bytes": 5}
    error = refusal(hosts, launch=True, archive=archive)
    assert error.summary == "a1: the image is built for other machines"
    archive["architecture"] = "arm64"
    made = plan(hosts, launch=True, archive=archive)
    assert made["engine"]["image"]["reference"] == archive["id"]
    image = next(part for one in made["requirements"] if one["check"] == "disk" for part in one["parts"][:1])
    assert image["bytes"] == 5


# The digest of a group -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"llm_max_num_seqs": 8}, {"llm_comm_env": {"HCCL_BUFFSIZE": "300"}}, {"llm_port_offset": 1}]
)
def test_ranks_that_were_planned_differently_do_not_agree(settings):
    first, again, other = plan(declared()), plan(declared()), plan(declared(**settings))
    assert first["groups"][0]["digest"] == again["groups"][0]["digest"] != other["groups"][0]["digest"]


def test_the_users_variables_reach_every_rank_and_are_told():
    made = plan(declared(llm_comm_env={"HCCL_BUFFSIZE": "300"}))
    assert {node["comm_env"]["group"]["HCCL_BUFFSIZE"] for node in made["groups"][0]["nodes"]} == {"300"}
    assert any("HCCL_BUFFSIZE" in note for note in made["notes"])


def test_variables_of_the_group_that_differ_between_hosts_are_refused():
    hosts = declared(2)
    hosts[1]["settings"] = {**hosts[1]["settings"], "llm_comm_env": {"HCCL_BUFFSIZE": "300"}}
    error = refusal(hosts)
    assert "HCCL_BUFFSIZE" in error.summary and "a1" in error.summary + error.found


def test_planning_changes_nothing_that_it_is_given():
    hosts = [answered("a1", 1), answered("a2", 2)]
    before, catalog = copy.deepcopy(hosts), copy.deepcopy([models.MODELS, releases.RELEASES])
    plan(hosts)
    assert hosts == before and catalog == [models.MODELS, releases.RELEASES]


def test_mindie_is_asked_where_it_tells_of_itself():
    hosts = [answered(f"a{number}", number, llm_engine="mindie", llm_engine_version="3.0.0") for number in (1, 2)]
    (endpoint,) = plan(hosts)["endpoints"]
    assert endpoint["url"] == "http://192.0.2.1:8000/v1"
    assert endpoint["health"] == "http://192.0.2.1:1026/v2/health/ready"
    assert plan(declared())["endpoints"][0]["health"] == "http://192.0.2.1:8000/health"


# Files of the model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "patch"),
    [
        ({"llm_engine": "mindie", "llm_engine_version": "2.0.T3.1"}, {"config.json": {"model_type": "deepseekv2"}}),
        ({"llm_engine": "mindie", "llm_engine_version": "3.0.0"}, {}),
        ({}, {}),
        (
            {
                "llm_engine": "vllm_mindspore",
                "llm_engine_version": "0.5.1",
                "llm_model": "deepseek-r1-a8w4",
                "llm_accelerator": "310P3",
            },
            {"config.json": {"torch_dtype": "float16"}},
        ),
    ],
)
def test_what_the_models_files_have_to_say_besides(settings, patch):
    assert plan(declared(**settings))["weights"]["patch"] == patch
