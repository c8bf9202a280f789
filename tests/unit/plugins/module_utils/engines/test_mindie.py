# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""MindIE's engine file: settings, sizes, and what each node is started with."""

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.engines import mindie, mindie_config
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from hypothesis import given
from hypothesis import strategies as st

VERSIONS = ["2.0.T3.1", "2.3.0", "3.0.0"]
R1 = {"architecture": {"layers": 61, "hidden": 7168, "heads": 128, "experts": 256}}
RUN = "/var/lib/baremetal-llm/default/run"


def make_node(number: int) -> dict:
    return {
        "host": f"a2-{number}",
        "rank": number,
        "address": f"192.0.2.{10 + number}",
        "interface": "eth0",
        "devices": 8,
        "device_ids": list(range(8)),
        "npu_addresses": [{"phy_id": each, "ip": f"10.20.{number}.{each + 2}"} for each in range(8)],
        "chip": "910B4-1",
        "family": "ascend_a2",
        "weights_path": "/data/weights/deepseek-r1-w8a8",
        "run_dir": RUN,
        "machine": "aarch64",
        "npu_smi": "/usr/local/sbin/npu-smi",
        "driver_dir": "/usr/local/Ascend",
        "memory": {"share": 0.92},
        "ulimits": {},
    }


def make(version: str = "2.3.0", hosts: int = 2) -> tuple[dict, dict]:
    """Return a plan and its only group."""
    nodes = [make_node(number) for number in range(hosts)]
    group = {"name": "replica_0", "head": "a2-0", "parallel": mindie.parallel(R1, version, [8] * hosts, {})}
    group["nodes"] = nodes
    plan = {
        "deployment": "default",
        "engine": {"id": "mindie", "version": version, "runtime": "docker", "group_ports": dict(mindie_config.PORTS)},
        "serving": {
            "model_name": "deepseek-r1-w8a8",
            "port": 8000,
            "max_model_len": 16384,
            "max_num_seqs": 16,
            "engine_args": [],
            "api_keys": 0,
        },
        "groups": [group],
    }
    return plan, group


def launched(version: str = "2.3.0", hosts: int = 2, number: int = 0) -> dict:
    plan, group = make(version, hosts)
    return mindie.launch(plan, group, group["nodes"][number])


def content(spec: dict, name: str) -> dict:
    return json.loads(next(file["content"] for file in spec["files"] if file["name"] == name))


def nodes_for_check(count: int = 2, **more) -> list[dict]:
    return [{"host": f"a2-{number}", "address": f"192.0.2.{10 + number}", **more} for number in range(count)]


# check


def test_settings_that_mindie_can_serve_are_taken():
    mindie.check({"llm_engine": "mindie"}, nodes_for_check(4, family="ascend_a2"))


@pytest.mark.parametrize(
    ("deployment", "nodes", "words"),
    [
        ({"llm_api_keys": 2}, nodes_for_check(), ["API keys", "2 keys", "gateway"]),
        ({"llm_engine_args": ["--config-file=/x"]}, nodes_for_check(), ["--config-file", "config.json"]),
        ({}, nodes_for_check(2, family="ascend_310p"), ["300I Duo", "a2-0, a2-1", "vllm_mindspore"]),
        ({}, nodes_for_check(1, family="ascend_310p"), ["ascend_310p on a2-0", "ascend_a2"]),
        ({}, nodes_for_check(1, family="ascend_a3"), ["ascend_a3 on a2-0"]),
        ({}, nodes_for_check(5), ["at most 4", "5 hosts", "a2-4"]),
        ({}, [{"host": "a2-0", "address": "2001:db8::1"}], ["a2-0", "IPv4", "2001:db8::1"]),
        ({}, [{"host": "a2-0", "address": "0.0.0.0"}], ["a2-0", "0.0.0.0"]),
    ],
)
def test_what_mindie_cannot_do_is_refused(deployment, nodes, words):
    with pytest.raises(LlmError) as caught:
        mindie.check({"llm_engine": "mindie", **deployment}, nodes)
    assert caught.value.wanted
    assert caught.value.remedy
    for word in words:
        assert word in str(caught.value)


def test_a_refused_flag_is_named_without_its_value():
    with pytest.raises(LlmError) as caught:
        mindie.check(
            {"llm_engine": "mindie", "llm_engine_args": ["--token=geheim", "--pass geheim"]}, nodes_for_check()
        )
    assert "geheim" not in str(caught.value)


# parallel


def test_two_servers_get_the_sizes_of_the_published_profile():
    assert mindie.parallel(R1, "2.3.0", [8, 8], {}) == {
        "tensor_parallel": 8,
        "pipeline_parallel": 1,
        "data_parallel": 2,
        "data_parallel_local": 1,
        "expert_parallel": True,
        "moe_expert_parallel": 4,
        "moe_tensor_parallel": 4,
        "form": "mindie",
        "why": "MindIE's own profile for two Atlas 800I A2 (docs/zh/user_guide/feature/kv_cache_pool.md)",
    }


@pytest.mark.parametrize(("version", "hosts"), [("2.0.T3.1", 2), ("2.0.T3.1", 4), ("2.3.0", 4), ("3.0.0", 1)])
def test_elsewhere_tensors_are_spread_over_all_devices(version, hosts):
    sizes = mindie.parallel(R1, version, [8] * hosts, {})
    assert (sizes["data_parallel"], sizes["tensor_parallel"], sizes["expert_parallel"]) == (1, 8 * hosts, False)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [({"data_parallel": 4}, (4, 8, 8, 4)), ({"tensor_parallel": 16}, (2, 16, 8, 4)), ({"tensor_parallel": 32}, None)],
)
def test_sizes_can_be_chosen(wanted, expected):
    sizes = mindie.parallel(R1, "3.0.0", [8] * 4, wanted)
    found = tuple(
        sizes[name] for name in ("data_parallel", "tensor_parallel", "moe_expert_parallel", "moe_tensor_parallel")
    )
    assert found == (expected or (1, 32, 1, 32))


@pytest.mark.parametrize(
    ("version", "devices", "wanted", "words"),
    [
        ("2.3.0", [8, 8], {"pipeline_parallel": 2}, ["no pipeline parallelism"]),
        ("2.3.0", [8, 8], {"data_parallel": 3}, ["data parallel 3", "data 2 x tensor 8"]),
        ("2.3.0", [8, 8], {"data_parallel": 2, "tensor_parallel": 4}, ["product of 16"]),
        ("2.0.T3.1", [8, 8], {"data_parallel": 2}, ["2.0.T3.1 has no data parallelism", "data 1 x tensor 16"]),
        ("2.0.T3.1", [8, 8, 8], {}, ["128 heads", "two or four servers"]),
        ("2.3.0", [8] * 5, {}, ["at most 4 servers", "40 on 5 hosts"]),
        ("2.3.0", [16] * 3, {}, ["32 NPUs", "48 on 3 hosts"]),
    ],
)
def test_impossible_sizes_are_refused_with_the_possible_ones(version, devices, wanted, words):
    with pytest.raises(LlmError) as caught:
        mindie.parallel(R1, version, devices, wanted)
    for word in words:
        assert word in str(caught.value)


def test_three_servers_take_whole_servers_for_a_copy_of_the_attention():
    sizes = mindie.parallel({"architecture": {"heads": 128, "experts": 240}}, "3.0.0", [8] * 3, {})
    assert (sizes["data_parallel"], sizes["tensor_parallel"]) == (3, 8)


@given(
    hosts=st.integers(1, 6),
    devices=st.sampled_from([1, 2, 4, 8, 16]),
    heads=st.sampled_from([4, 16, 40, 64, 128]),
    experts=st.sampled_from([0, 8, 160, 256]),
    version=st.sampled_from(VERSIONS),
    wanted=st.dictionaries(st.sampled_from(["data_parallel", "tensor_parallel"]), st.integers(1, 64)),
)
def test_sizes_fill_the_devices_or_are_refused(hosts, devices, heads, experts, version, wanted):
    model = {"architecture": {"heads": heads, "experts": experts}}
    try:
        sizes = mindie.parallel(model, version, [devices] * hosts, wanted)
    except LlmError as error:
        assert error.remedy
        return
    assert sizes["tensor_parallel"] * sizes["data_parallel"] == hosts * devices
    assert sizes["moe_tensor_parallel"] * sizes["moe_expert_parallel"] == hosts * devices
    assert heads % sizes["tensor_parallel"] == 0
    assert all(sizes[name] == size for name, size in wanted.items())


# config.json


@pytest.mark.parametrize("version", VERSIONS)
def test_config_says_what_the_plan_says(version):
    config = content(launched(version), "config.json")
    server, backend = config["ServerConfig"], config["BackendConfig"]
    assert config["Version"] == "1.0.0"
    assert (server["ipAddress"], server["managementIpAddress"]) == ("192.0.2.10", "192.0.2.10")
    assert (server["port"], server["managementPort"], server["metricsPort"]) == (8000, 1026, 1027)
    assert (server["interCommPort"], backend["multiNodesInferPort"]) == (1121, 1120)
    assert backend["multiNodesInferEnabled"] is True
    assert (backend["npuDeviceIds"], backend["ModelDeployConfig"]["ModelConfig"][0]["worldSize"]) == (
        [[0, 1, 2, 3, 4, 5, 6, 7]],
        8,
    )
    deploy, schedule = backend["ModelDeployConfig"], backend["ScheduleConfig"]
    assert (deploy["maxSeqLen"], deploy["maxInputTokenLen"]) == (16384, 16383)
    assert schedule["maxPrefillTokens"] >= deploy["maxInputTokenLen"]
    assert (schedule["maxBatchSize"], schedule["maxPrefillBatchSize"]) == (16, 16)
    assert deploy["truncation"] is False
    assert deploy["ModelConfig"][0]["modelWeightPath"] == "/data/weights/deepseek-r1-w8a8"


@pytest.mark.parametrize("version", VERSIONS)
def test_tls_is_off_explicitly_and_said_so(version):
    spec = launched(version)
    config = content(spec, "config.json")
    choices = (
        config["ServerConfig"]["httpsEnabled"],
        config["ServerConfig"]["interCommTLSEnabled"],
        config["BackendConfig"]["interNodeTLSEnabled"],
    )
    assert choices == (False, False, False)
    assert sum("HTTP" in note or "TLS" in note for note in spec["notes"]) == 2


def test_tls_is_on_where_certificates_are_given():
    plan, group = make()
    plan["serving"]["tls"] = {"directory": "/etc/llm/mindie", "https": True, "nodes": True}
    spec = mindie.launch(plan, group, group["nodes"][0])
    config = content(spec, "config.json")
    assert config["ServerConfig"]["httpsEnabled"] is True
    assert config["BackendConfig"]["interNodeTLSEnabled"] is True
    assert [mount["target"] for mount in spec["mounts"] if mount["source"] == "/etc/llm/mindie"] == [
        "/usr/local/Ascend/mindie/latest/mindie-service/security",
        "/usr/local/lib/python3.11/site-packages/mindie_llm/security",
    ]
    assert spec["readiness"] == {"url": "", "log": r"Daemon\ start\ success!"}
    assert not any("TLS" in note for note in spec["notes"])


@pytest.mark.parametrize("tls", [{"https": True}, {"nodes": True}, {"cert": "/x"}])
def test_tls_that_cannot_be_is_refused(tls):
    plan, group = make()
    plan["serving"]["tls"] = tls
    with pytest.raises(LlmError, match="TLS of MindIE"):
        mindie.launch(plan, group, group["nodes"][0])


def test_generations_differ_in_their_keys():
    first, second, third = (content(launched(version), "config.json") for version in VERSIONS)
    assert "tokenTimeout" not in first["ServerConfig"]
    assert second["ServerConfig"]["tokenTimeout"] == third["ServerConfig"]["tokenTimeout"] == 600
    assert "tlsPkPwd" in second["ServerConfig"]
    assert "tlsPkPwd" not in third["ServerConfig"]
    assert "metricsTlsCert" not in first["ServerConfig"]
    assert first["LogConfig"]["logLevel"] == "Info"
    assert "EnableDynamicAdjustTimeoutConfig" not in first
    model = first["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
    assert not {"dp", "tp", "moe_ep", "moe_tp"} & set(model)


def test_sizes_stand_in_the_config_of_two_servers_only():
    model = content(launched("2.3.0"), "config.json")["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
    assert [model[name] for name in ("dp", "sp", "tp", "moe_ep", "moe_tp")] == [2, 1, 8, 4, 4]
    model = content(launched("2.3.0", 4), "config.json")["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
    assert "tp" not in model


def test_config_differs_between_nodes_in_their_addresses_alone():
    plan, group = make()
    one, other = (mindie_config.render(plan, group, node) for node in group["nodes"])
    assert one != other
    assert one.replace("192.0.2.10", "192.0.2.11") == other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_name": "-deepseek"}, ["model name", "-deepseek"]),
        ({"model_name": "deep seek"}, ["deep seek"]),
        ({"port": 80}, ["80 for API", "1024"]),
        ({"port": 1120}, ["1120 for multi-node inference", "also API"]),
    ],
)
def test_names_and_ports_that_mindie_refuses_are_refused_before(change, words):
    plan, group = make()
    plan["serving"].update(change)
    with pytest.raises(LlmError) as caught:
        mindie.launch(plan, group, group["nodes"][0])
    for word in words:
        assert word in str(caught.value)


def test_a_path_that_mindie_refuses_names_its_host():
    plan, group = make()
    group["nodes"][1]["weights_path"] = "/data/deep seek"
    with pytest.raises(LlmError, match="a2-1"):
        mindie.launch(plan, group, group["nodes"][1])


# rank table


def strings(value: object) -> bool:
    if isinstance(value, dict):
        return all(strings(each) for each in value.values())
    return all(strings(each) for each in value) if isinstance(value, list) else isinstance(value, str)


@pytest.mark.parametrize("hosts", [2, 4])
def test_rank_table_counts_all_devices_in_texts(hosts):
    specs = [launched("2.3.0", hosts, number) for number in range(hosts)]
    table = content(specs[0], "ranktable.json")
    assert strings(table)
    assert (table["version"], table["status"], table["server_count"]) == ("1.0", "completed", str(hosts))
    devices = [device for server in table["server_list"] for device in server["device"]]
    assert [device["rank_id"] for device in devices] == [str(rank) for rank in range(8 * hosts)]
    assert devices[9] == {"device_id": "1", "device_ip": "10.20.1.3", "rank_id": "9"}
    assert [server["container_ip"] for server in table["server_list"]] == [
        f"192.0.2.{10 + each}" for each in range(hosts)
    ]
    assert all(content(spec, "ranktable.json") == table for spec in specs)


def test_rank_table_follows_ranks_and_not_the_order_of_the_inventory():
    plan, group = make()
    group["nodes"].reverse()
    table = content(mindie.launch(plan, group, group["nodes"][0]), "ranktable.json")
    assert table["server_list"][0]["server_id"] == "192.0.2.10"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda node: node.update(npu_addresses=[]), ["a2-1", "device 0: none"]),
        (lambda node: node["npu_addresses"].pop(3), ["a2-1", "device 3: none", "hccn_tool -i 3"]),
        (lambda node: node["npu_addresses"][2].update(ip="10.20.1"), ["a2-1", "device 2: 10.20.1"]),
        (lambda node: node["npu_addresses"][2].update(ip="0.0.0.0"), ["a2-1", "device 2: 0.0.0.0"]),
        (lambda node: node["npu_addresses"][2].update(ip=None), ["a2-1", "device 2: none"]),
        (lambda node: node["npu_addresses"][7].update(ip="10.20.0.2"), ["device 0 of a2-0", "device 7 of a2-1"]),
    ],
)
def test_device_addresses_that_cannot_be_are_refused(change, words):
    plan, group = make()
    change(group["nodes"][1])
    with pytest.raises(LlmError) as caught:
        mindie.launch(plan, group, group["nodes"][0])
    for word in words:
        assert word in str(caught.value)


# launch


def test_2_0_is_started_where_it_is_installed():
    spec = launched("2.0.T3.1")
    home = "/usr/local/Ascend/mindie/latest/mindie-service"
    assert (spec["argv"], spec["workdir"]) == (["./bin/mindieservice_daemon"], home)
    assert [(file["name"], file["target"]) for file in spec["files"]] == [
        ("config.json", f"{home}/conf/config.json"),
        ("ranktable.json", ""),
    ]


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_later_versions_are_started_where_they_can_write(version):
    spec = launched(version)
    assert spec["argv"] == ["python3", f"{RUN}/launch/start_mindie.py"]
    assert spec["workdir"] == f"{RUN}/work"
    assert spec["env"]["MIES_CONFIG_JSON_PATH"] == f"{RUN}/launch/config.json"
    compile(spec["files"][2]["content"], "start_mindie.py", "exec")


@pytest.mark.parametrize("version", VERSIONS)
def test_files_are_the_users_own_and_closed(version):
    spec = launched(version)
    assert spec["user"] == "0:0"
    assert {(file["mode"], file["owner"]) for file in spec["files"]} == {("0640", "0:0")}


@pytest.mark.parametrize("version", VERSIONS)
def test_environment_of_two_servers(version):
    head, other = launched(version)["env"], launched(version, number=1)["env"]
    assert (head["MIES_CONTAINER_IP"], other["MIES_CONTAINER_IP"]) == ("192.0.2.10", "192.0.2.11")
    assert {name for name in head if head[name] != other[name]} == {"MIES_CONTAINER_IP"}
    assert head["RANKTABLEFILE"] == head["RANK_TABLE_FILE"] == f"{RUN}/launch/ranktable.json"
    assert (head["WORLD_SIZE"], head["NPU_MEMORY_FRACTION"]) == ("16", "0.92")
    assert (head["MINDIE_LOG_TO_STDOUT"], head["MIES_SERVICE_MONITOR_MODE"]) == ("1", "1")
    assert head["http_proxy"] == head["HTTPS_PROXY"] == ""
    assert all(isinstance(value, str) for value in head.values())
    assert ("MASTER_IP" in head) == (version != "2.0.T3.1")


def test_one_server_needs_no_rank_table():
    spec = launched("2.3.0", 1)
    assert not {"RANKTABLEFILE", "RANK_TABLE_FILE", "MASTER_IP"} & set(spec["env"])
    assert [file["name"] for file in spec["files"]] == ["config.json", "start_mindie.py"]
    assert content(spec, "config.json")["BackendConfig"]["multiNodesInferEnabled"] is False
    assert "/etc/hccn.conf" not in [mount["source"] for mount in spec["mounts"]]


def test_only_the_head_answers():
    head, other = launched(), launched(number=1)
    assert (head["port"], other["port"]) == (8000, 0)
    assert head["readiness"] == {
        "url": "http://192.0.2.10:1026/v2/health/ready",
        "log": r"Daemon\ start\ success!",
    }
    assert other["readiness"]["url"] == ""
    assert head["ports"] == {
        1026: "health and management",
        1027: "metrics",
        8000: "API",
        1120: "multi-node inference",
        29500: "rendezvous of torch.distributed",
    }
    assert set(other["ports"]) == {1026, 1027}


def test_devices_mounts_and_what_an_earlier_engine_left():
    spec = launched()
    assert spec["devices"] == [
        *(f"/dev/davinci{number}" for number in range(8)),
        "/dev/davinci_manager",
        "/dev/devmm_svm",
        "/dev/hisi_hdc",
    ]
    assert [mount["source"] for mount in spec["mounts"]] == [
        "/usr/local/Ascend/driver",
        "/usr/local/dcmi",
        "/usr/local/sbin/npu-smi",
        "/etc/hccn.conf",
    ]
    assert all(mount["read_only"] for mount in spec["mounts"])
    assert [command[3] for command in spec["before"]] == ["*llm_backend_*", "llm_tokenizer_shared_memory_*"]
    assert all(command[:2] == ["find", "/dev/shm"] and command[-1] == "-delete" for command in spec["before"])
    assert set(spec["probe_devices"]) <= set(spec["devices"])


def test_ports_of_the_plan_are_taken():
    plan, group = make()
    plan["engine"]["group_ports"] = {name: number + 100 for name, number in mindie_config.PORTS.items()}
    config = content(mindie.launch(plan, group, group["nodes"][0]), "config.json")
    assert config["BackendConfig"]["multiNodesInferPort"] == 1220
    assert config["ServerConfig"]["managementPort"] == 1126


def test_communication_is_the_same_on_all_nodes_and_fits_the_version():
    for version, more in (("2.0.T3.1", set()), ("3.0.0", {"HCCL_OP_EXPANSION_MODE", "HCCL_ALGO"})):
        plan, group = make(version)
        found = mindie.communication(plan, group)
        assert found["HCCL_CONNECT_TIMEOUT"] == "7200"
        assert found["HCCL_DETERMINISTIC"] == "true"
        assert {"HCCL_OP_EXPANSION_MODE", "HCCL_ALGO"} & set(found) == more
    plan, group = make("3.0.0", 1)
    assert mindie.communication(plan, group) == {"HCCL_BUFFSIZE": "120"}


def test_launching_changes_nothing_of_the_plan():
    plan, group = make()
    before = copy.deepcopy(plan)
    mindie.launch(plan, group, group["nodes"][0])
    assert plan == before
