# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.engines import vllm_mindspore
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.tests.unit.plugins.module_utils.engines import ascend_plans
from hypothesis import given
from hypothesis import strategies as st

VERSION, DUO = "0.5.1", vllm_mindspore.DUO
WAIT = "/data/llm/deployments/r1/launch/wait_for_ray.py"
# Stands in for the package of that name: what the cluster has is in the environment.
FAKE_RAY = """
import json, os

calls = []


def init(address, log_to_driver):
    print("init", address, log_to_driver)


def nodes():
    return [{"NodeManagerAddress": at, "Alive": alive} for at, alive in json.loads(os.environ["NODES"]).items()]


def cluster_resources():
    return json.loads(os.environ["RESOURCES"])


def shutdown():
    print("shutdown")
"""


def specs(count=2, family=DUO, precision="a8w4", args=(), wanted=None, keys=0):
    replica = ascend_plans.group(vllm_mindspore, VERSION, count, family, 8, wanted or {}, {"family": family})
    plan = ascend_plans.plan("vllm_mindspore", VERSION, replica, precision, args, keys)
    return plan, replica, [vllm_mindspore.launch(plan, replica, node) for node in replica["nodes"]]


def sizes(devices: list[int], wanted: dict | None = None, family: str = "", **shape: int) -> tuple:
    found = vllm_mindspore.parallel(ascend_plans.model(**shape), VERSION, devices, wanted or {}, family)
    return found["tensor_parallel"], found["pipeline_parallel"], found["form"]


def test_commands_of_a8w4_on_two_300i_duo():
    head, worker = specs()[2]
    own = ["--resources", '{"NPU": 8}', "--object-store-memory", "4294967296", "--disable-usage-stats"]
    assert head["before"] == [
        [
            *("ray", "start", "--head", "--port", "6379", "--include-dashboard", "false"),
            *("--node-ip-address", "192.0.2.11", *own),
        ],
        ["python3", WAIT, "cluster", "192.0.2.11:6379", "300", "NPU", "16", "192.0.2.11", "192.0.2.12"],
    ]
    assert head["argv"] == [
        "vllm-mindspore", "serve", "/data/llm/weights/r1", "--served-model-name", "r1", "--host", "192.0.2.11",
        "--port", "8000", "--max-model-len", "16384", "--max-num-seqs", "16", "--tensor-parallel-size", "8",
        "--pipeline-parallel-size", "2", "--distributed-executor-backend", "ray", "--quantization", "golden-stick",
        "--dtype", "float16", "--trust-remote-code", "--max-num-batched-tokens", "16384", "--block-size", "128",
        "--gpu-memory-utilization", "0.8", "--no-enable-prefix-caching",
    ]  # fmt: skip
    assert worker["before"] == [["python3", WAIT, "head", "192.0.2.11:6379", "300"]]
    assert worker["argv"] == [
        *("ray", "start", "--address", "192.0.2.11:6379", "--node-ip-address", "192.0.2.12", *own, "--block"),
    ]


def test_commands_of_a8w8_on_two_a2():
    spec = specs(family="ascend_a2", precision="a8w8")[2][0]
    assert spec["argv"][13:] == [
        "--tensor-parallel-size", "16", "--distributed-executor-backend", "ray", "--quantization", "golden-stick",
        "--trust-remote-code", "--max-num-batched-tokens", "4096", "--block-size", "128",
        "--gpu-memory-utilization", "0.9",
    ]  # fmt: skip
    assert {mount["source"] for mount in spec["mounts"]} >= {"/etc/hccn.conf"}
    assert spec["env"]["MS_ENABLE_INTERNAL_BOOST"] == "on"
    assert "VLLM_PP_LAYER_PARTITION" not in spec["env"]


@pytest.mark.parametrize(
    "count, wanted, layers",
    [
        (2, {}, "31,30"),
        (3, {}, "11,10,10,10,10,10"),
        (3, {"tensor_parallel": 8, "pipeline_parallel": 3}, "21,20,20"),
    ],
)
def test_environment_of_the_300i_duo(count, wanted, layers):
    spec = specs(count, wanted=wanted)[2][-1]
    assert {
        "VLLM_MS_MODEL_BACKEND": "MindFormers",
        "VLLM_PP_LAYER_PARTITION": layers,
        "MS_ENABLE_LCCL": "off",
        "MS_ENABLE_INTERNAL_BOOST": "off",
        "MS_DEV_RUNTIME_CONF": "only_local_comm:true",
        "DEVICE_NUM_PER_NODE": "8",
        "ASCEND_RT_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
    }.items() <= spec["env"].items()
    # 0.5.1 ends with an exception where it is set.
    assert "MINDFORMERS_MODEL_CONFIG" not in spec["env"]


def test_the_300i_duo_has_no_mounts_for_a_network_it_lacks():
    spec = specs()[2][0]
    assert {mount["source"] for mount in spec["mounts"]} == {
        "/usr/local/dcmi",
        "/usr/local/sbin/npu-smi",
        "/usr/local/Ascend/driver/lib64",
        "/usr/local/Ascend/driver/version.info",
        "/etc/ascend_install.info",
    }
    assert all(mount["read_only"] for mount in spec["mounts"])
    assert spec["devices"][-3:] == ["/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"]


def test_the_engine_can_read_its_files():
    spec = specs()[2][0]
    assert {(one["owner"], one["mode"]) for one in spec["files"]} == {("0:0", "0640")}
    assert spec["user"] == "0:0"


@pytest.mark.parametrize("family, mode", [(DUO, "AI_CPU"), ("ascend_a2", "AIV")])
def test_communication(family, mode):
    plan, replica, launched = specs(family=family)
    found = vllm_mindspore.communication(plan, replica)
    assert found["HCCL_OP_EXPANSION_MODE"] == mode
    assert found.keys().isdisjoint(launched[0]["env"])


def test_only_the_head_has_an_api():
    head, worker = specs(keys=1)[2]
    assert (head["port"], head["ports"], head["secret_env"]) == (8000, {8000: "API", 6379: "Ray"}, ["VLLM_API_KEY"])
    assert head["readiness"] == {"url": "http://192.0.2.11:8000/health", "log": ""}
    assert (worker["port"], worker["ports"], worker["secret_env"]) == (0, {}, [])
    assert worker["readiness"] == {"url": "", "log": r"Ray runtime started\."}


def test_one_node_needs_no_ray():
    (spec,) = specs(1, family="ascend_a2")[2]
    assert spec["before"] == []
    assert spec["files"] == []
    assert "ray" not in spec["argv"]
    assert spec["ports"] == {8000: "API"}


@pytest.mark.parametrize(
    "devices, wanted, family, expected",
    [
        ([8, 8], {}, DUO, (8, 2, "ray")),
        ([8, 8, 8], {}, DUO, (4, 6, "ray")),
        ([8], {}, DUO, (8, 1, "single")),
        ([8, 8], {}, "ascend_a2", (16, 1, "ray")),
        ([8, 8], {}, "", (8, 2, "ray")),
        ([8, 8], {"tensor_parallel": 16}, "", (16, 1, "ray")),
        ([8, 8, 8], {}, "", (4, 6, "ray")),
        ([8, 8, 8], {"tensor_parallel": 8}, DUO, (8, 3, "ray")),
        ([8, 8, 8], {"pipeline_parallel": 3}, DUO, (8, 3, "ray")),
        ([8, 8], {"tensor_parallel": 4, "pipeline_parallel": 4, "data_parallel": 1}, DUO, (4, 4, "ray")),
    ],
)
def test_sizes(devices, wanted, family, expected):
    assert sizes(devices, wanted, family) == expected


@pytest.mark.parametrize(
    "devices, wanted, family",
    [
        ([8, 8], {"tensor_parallel": 16}, DUO),
        ([8, 8, 8], {"tensor_parallel": 24}, "ascend_a2"),
        ([8, 8, 8], {"tensor_parallel": 12}, "ascend_a2"),
        ([8, 8, 8], {}, "ascend_a2"),
        ([8] * 4, {}, DUO),
        ([8, 8], {"tensor_parallel": 8, "pipeline_parallel": 3}, DUO),
        ([8, 8], {"data_parallel": 2}, "ascend_a2"),
        ([8, 8], {"pipeline_parallel": 1024}, DUO),
        ([8, 8], {"tensor_parallel": 5}, ""),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(devices, wanted, family):
    with pytest.raises(LlmError, match="cannot spread this model") as caught:
        sizes(devices, wanted, family)
    assert "tensor_parallel 8 with pipeline_parallel" in caught.value.wanted
    assert caught.value.remedy == "set llm_parallel to one of these"


def test_why_names_the_source_or_says_that_there_is_none():
    model = ascend_plans.model()
    assert "tp4pp6.yaml" in vllm_mindspore.parallel(model, VERSION, [8, 8, 8], {}, DUO)["why"]
    chosen = vllm_mindspore.parallel(model, VERSION, [8, 8, 8], {"tensor_parallel": 8}, DUO)["why"]
    assert "nobody has published" in chosen
    assert "tensor 4 x pipeline 6" in chosen


def test_tensor_parallelism_over_nodes_is_refused_on_the_300i_duo_even_where_sizes_were_chosen_without_its_name():
    replica = ascend_plans.group(vllm_mindspore, VERSION, 2, DUO, 8, {"tensor_parallel": 16})
    assert replica["parallel"]["tensor_parallel"] == 16
    plan = ascend_plans.plan("vllm_mindspore", VERSION, replica, "a8w4")
    with pytest.raises(LlmError, match="network of their own") as caught:
        vllm_mindspore.launch(plan, replica, replica["nodes"][0])
    assert "tensor_parallel 8 with pipeline_parallel 2" in caught.value.wanted


@pytest.mark.parametrize("layers, stages, expected", [(61, 1, "61"), (61, 4, "16,15,15,15"), (6, 3, "2,2,2")])
def test_layers_of_stages(layers, stages, expected):
    assert vllm_mindspore.layers_of_stages(layers, stages) == expected


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"llm_engine_args": ["--seed", "1"]}, "does not support a seed"),
        ({"llm_engine_args": ["--seed=1"]}, "does not support a seed"),
        ({"llm_engine_args": ["--quantization", "ascend"]}, "--quantization"),
        ({"llm_engine_args": ["--dtype=bfloat16"]}, "--dtype"),
        ({"llm_api_keys": 2}, "one API key"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(LlmError, match=message):
        vllm_mindspore.check(settings, [{"host": "duo-1"}])


def test_settings_that_are_taken():
    vllm_mindspore.check({"llm_engine_args": ["--swap-space=0", "--max-num-batched-tokens", "8192"]}, [])
    spec = specs(args=["--max-num-batched-tokens", "8192"])[2][0]
    assert "16384" not in dict(ascend_plans.options(spec["argv"]))["--max-num-batched-tokens"]
    assert any("--max-num-batched-tokens 16384 is left out" in note for note in spec["notes"])


@given(
    count=st.integers(1, 4),
    family=st.sampled_from([DUO, "ascend_a2"]),
    precision=st.sampled_from(["a8w4", "a8w8"]),
    wanted=st.fixed_dictionaries(
        {},
        optional={
            "tensor_parallel": st.sampled_from([1, 2, 3, 4, 8, 16, 24]),
            "pipeline_parallel": st.integers(1, 8),
            "data_parallel": st.sampled_from([1, 2]),
        },
    ),
    args=st.lists(st.sampled_from(["--block-size=64", "--enable-prefix-caching", "--swap-space=0"]), unique=True),
)
def test_ranks_of_every_accepted_plan_differ_only_where_they_must(count, family, precision, wanted, args):
    try:
        replica, launched = specs(count, family, precision, args, wanted)[1:]
    except LlmError as error:
        assert error.wanted
        assert error.found
        assert error.remedy
        return
    found = replica["parallel"]
    assert found["tensor_parallel"] * found["pipeline_parallel"] * found["data_parallel"] == 8 * count
    assert wanted.items() <= {key: found[key] for key in wanted}.items()
    if "VLLM_PP_LAYER_PARTITION" in launched[0]["env"]:
        stages = [int(one) for one in launched[0]["env"]["VLLM_PP_LAYER_PARTITION"].split(",")]
        assert (sum(stages), len(stages)) == (61, found["pipeline_parallel"])
    names = [name.replace("--no-", "--") for name, value in ascend_plans.options(launched[0]["argv"])]
    assert len(names) == len(set(names))
    assert "--seed" not in names
    for node, spec in zip(replica["nodes"], launched, strict=True):
        assert {key: spec[key] for key in ("env", "mounts", "devices", "files", "env_scripts")} == {
            key: launched[0][key] for key in ("env", "mounts", "devices", "files", "env_scripts")
        }
        if node["rank"]:
            text = json.dumps([launched[1]["before"], launched[1]["argv"]])
            own = json.dumps([spec["before"], spec["argv"]])
            assert own == text.replace(replica["nodes"][1]["address"], node["address"])
    json.dumps(launched)


@pytest.fixture
def wait(tmp_path):
    """Function that runs the rendered file, with a package named ray beside it, and returns what came of it."""
    spec = specs()[2][0]
    (rendered,) = spec["files"]
    assert (rendered["name"], rendered["mode"]) == ("wait_for_ray.py", "0640")
    (tmp_path / rendered["name"]).write_text(rendered["content"], encoding="utf-8")
    (tmp_path / "ray.py").write_text(FAKE_RAY, encoding="utf-8")

    def run(*arguments: str, nodes: dict | None = None, npus: int = 0) -> subprocess.CompletedProcess:
        env = {**os.environ, "NODES": json.dumps(nodes or {}), "RESOURCES": json.dumps({"NPU": float(npus)})}
        argv = [sys.executable, str(tmp_path / rendered["name"]), *arguments]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_wait_can_be_read_by_python_3_9():
    ast.parse(vllm_mindspore.WAIT_SOURCE, feature_version=(3, 9))


def test_the_wait_ends_when_all_have_joined(wait):
    ended = wait(
        *("cluster", "192.0.2.11:6379", "5", "NPU", "16", "192.0.2.11", "192.0.2.12"),
        nodes={"192.0.2.11": True, "192.0.2.12": True},
        npus=16,
    )
    assert ended.returncode == 0, ended.stderr
    assert "init 192.0.2.11:6379 False" in ended.stdout
    assert "has 16 NPU on 2 nodes" in ended.stdout


@pytest.mark.parametrize(
    "nodes, npus, told",
    [
        ({"192.0.2.11": True}, 8, "has 8 of 16 NPU after 0.0 s; did not join: 192.0.2.12"),
        ({"192.0.2.11": True, "192.0.2.12": False}, 16, "did not join: 192.0.2.12"),
        ({"192.0.2.11": True, "192.0.2.12": True}, 15, "has 15 of 16 NPU after 0.0 s; did not join: none"),
    ],
)
def test_the_wait_says_who_is_missing(wait, nodes, npus, told):
    ended = wait(*("cluster", "192.0.2.11:6379", "0", "NPU", "16", "192.0.2.11", "192.0.2.12"), nodes=nodes, npus=npus)
    assert ended.returncode == 1
    assert told in ended.stderr


def test_the_wait_for_the_head_ends_when_it_listens(wait):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert wait("head", f"127.0.0.1:{server.getsockname()[1]}", "5").returncode == 0


def test_the_wait_for_the_head_says_that_it_does_not_listen(wait):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ended = wait("head", f"127.0.0.1:{port}", "0")
    assert ended.returncode == 1
    assert f"no Ray at 127.0.0.1:{port} after 0.0 s" in ended.stderr
