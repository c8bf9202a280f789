# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import launching
from ansible_collections.baremetal.llm.plugins.module_utils.engines import containers
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError

RUN = "/data/llm/deployments/r1"


def node(rank):
    bare = {"run_dir": RUN, "devices": 2, "device_ids": [0, 1], "ulimits": {"memlock": 8388608}}
    spec = containers.spec(
        bare,
        ["vllm", "serve", "/w"],
        env={"A": "1"},
        devices=["/dev/davinci0"],
        mounts=[containers.mount("/etc/hccn.conf")],
        files=[
            {"name": "own.json", "content": "{}", "mode": "0640", "owner": "1001:1001", "target": "/opt/own.json"},
            {"name": "wait.py", "content": "pass", "mode": "0644", "owner": "", "target": ""},
        ],
        gpus=True,
        env_scripts=[["/cann/set_env.sh"]],
    )
    comm = {"group": {"HCCL_BUFFSIZE": "200"}, "node": {"HCCL_IF_IP": f"192.0.2.{rank}"}}
    place = {"host": f"a{rank}", "rank": rank, "address": f"192.0.2.{rank}", "weights_path": "/w"}
    return {**bare, **place, "launch": spec, "comm_env": comm}


@pytest.fixture(name="plan")
def fixture_plan():
    group = {"name": "replica_1", "head": "a0", "digest": "d" * 64, "nodes": [node(0), node(1)]}
    return {"deployment": "r1", "engine": {"group_ports": {"rank guard": 29590}}, "groups": [group]}


def test_the_guard_of_a_rank_is_told_of_its_group(plan):
    files = {one["name"]: one for one in launching.files(plan, "a1")}
    told = json.loads(files["rank.json"]["content"])
    assert {key: told[key] for key in ("rank", "world", "hosts", "head", "port", "group", "digest")} == {
        "rank": 1,
        "world": 2,
        "hosts": ["a0", "a1"],
        "head": "192.0.2.0",
        "port": 29590,
        "group": "replica_1",
        "digest": "d" * 64,
    }
    assert told["secrets"] == f"{RUN}/launch/secrets.json"
    assert {"A", "HCCL_BUFFSIZE", "HCCL_IF_IP", "HOME"} <= set(told["keep"])
    assert set(files) == {"rank.json", "own.json", "wait.py"}
    assert files["own.json"]["owner"] == "1001:1001"


def test_the_container_has_what_the_plan_says_and_no_more(plan):
    made = launching.container(plan, "a1")
    assert made["name"] == "llm-r1"
    assert made["entrypoint"] == ["python3", f"{RUN}/launch/rank_guard.py", f"{RUN}/launch/rank.json", "--"]
    assert made["command"] == ["vllm", "serve", "/w"]
    assert made["devices"] == ["/dev/davinci0:/dev/davinci0:rwm"]
    assert made["device_requests"] == [{"driver": "nvidia", "device_ids": ["0", "1"], "capabilities": [["gpu"]]}]
    assert "memlock:8388608:8388608" in made["ulimits"]
    assert made["env"]["A"] == "1"
    assert made["env"]["BAREMETAL_LLM_RUN"] == RUN
    assert made["security_opts"] == ["no-new-privileges:true"]
    assert "privileged" not in made
    writable = {one["target"] for one in made["mounts"] if not one["read_only"]}
    assert writable == {f"{RUN}/work", f"{RUN}/logs"}
    targets = [one["target"] for one in made["mounts"]]
    assert len(targets) == len(set(targets))
    assert {"/w", f"{RUN}/launch", "/etc/hccn.conf", "/opt/own.json"} < set(targets)
    assert made["labels"]["baremetal.llm.rank"] == "1"


def test_a_container_without_gpus_asks_for_none(plan):
    plan["groups"][0]["nodes"][1]["launch"]["gpus"] = False
    assert launching.container(plan, "a1")["device_requests"] == []


def test_nothing_of_the_plan_is_changed(plan):
    before = copy.deepcopy(plan)
    launching.container(plan, "a0")
    launching.files(plan, "a0")
    assert plan == before


def test_a_host_without_a_place(plan):
    with pytest.raises(LlmError, match="a9 has no place") as caught:
        launching.container(plan, "a9")
    assert caught.value.wanted == "one of a0, a1"


def test_a_launch_spec_has_no_other_parts():
    with pytest.raises(ValueError, match="privileged"):
        containers.spec({"run_dir": RUN}, ["x"], privileged=True)


def test_what_one_spec_is_given_does_not_show_in_the_next():
    first = containers.spec({"run_dir": RUN}, ["x"])
    first["cap_add"].append("SYS_ADMIN")
    first["ulimits"]["core"] = 0
    assert "SYS_ADMIN" not in containers.spec({"run_dir": RUN}, ["x"])["cap_add"]
    assert "core" not in containers.spec({"run_dir": RUN}, ["x"])["ulimits"]
