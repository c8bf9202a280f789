# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from itertools import product

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.engines import containers, vllm
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from hypothesis import given
from hypothesis import strategies as st

SHAPE = {"layers": 61, "hidden": 7168, "heads": 128, "experts": 256, "expert_intermediate": 2048}
PORTS = {"rendezvous of torch.distributed": 29500, "data parallel RPC": 13389, "Ray": 6379}
EVERY = ("0.7.3", "0.8.3", "0.9.1", "0.11.0", "0.11.1", "0.12.0", "0.33.0")
CHIPS = {
    "nvidia_hopper": "NVIDIA H100 80GB HBM3",
    "nvidia_ampere": "NVIDIA A100-SXM4-80GB",
    "nvidia_blackwell": "NVIDIA B200",
}

# What each release's own parser knows of the flags that are rendered: option strings of add_argument in
# vllm/engine/arg_utils.py and vllm/entrypoints of the published wheel. Nothing else may appear in a command.
ALWAYS = {
    "--served-model-name", "--host", "--port", "--max-model-len", "--max-num-seqs", "--dtype",
    "--gpu-memory-utilization", "--tensor-parallel-size", "--pipeline-parallel-size",
    "--distributed-executor-backend", "--reasoning-parser", "--trust-remote-code", "--hf-overrides",
}  # fmt: skip
DATA = {
    "--data-parallel-size", "--data-parallel-size-local", "--data-parallel-address", "--data-parallel-rpc-port",
    "--data-parallel-start-rank", "--headless",
}  # fmt: skip
NODES = {"--nnodes", "--node-rank", "--master-addr", "--master-port"}
FLAGS = {
    "0.7.3": ALWAYS | {"--enable-reasoning"},
    "0.8.3": ALWAYS | {"--enable-reasoning", "--enable-expert-parallel", "--data-parallel-size"},
    "0.9.1": ALWAYS | DATA | {"--enable-reasoning", "--enable-expert-parallel"},
    "0.11.0": ALWAYS | DATA | {"--enable-expert-parallel"},
    "0.11.1": ALWAYS | DATA | NODES | {"--enable-expert-parallel"},
    "0.12.0": ALWAYS | DATA | NODES | {"--enable-expert-parallel"},
    "0.33.0": ALWAYS | DATA | NODES | {"--enable-expert-parallel"},
}
# ray 2.40.0, `ray start`: python/ray/scripts/scripts.py
RAY_FLAGS = {
    "--head", "--port", "--address", "--node-ip-address", "--num-gpus", "--object-store-memory",
    "--include-dashboard", "--block",
}  # fmt: skip
# In which the ranks of one group may differ.
OWN = {"--host", "--node-rank", "--headless", "--data-parallel-start-rank"}


def _model(precision: str = "fp8", **shape: int) -> dict:
    return {"architecture": {**SHAPE, **shape}, "dtype": "bfloat16", "precision": precision}


def _plan(version: str = "0.12.0", precision: str = "fp8", arguments: tuple[str, ...] = (), keys: int = 0) -> dict:
    return {
        "deployment": "default",
        "model": {"id": f"deepseek-r1-{precision}", "title": "R1", **_model(precision)},
        "engine": {
            "id": "vllm", "version": version, "runtime": "docker", "accelerator": "gpu", "memory_share": 0.92,
            "group_ports": PORTS, "image": {},
        },
        "serving": {
            "model_name": "deepseek-r1", "port": 8000, "max_model_len": 16384, "max_num_seqs": 16,
            "engine_args": list(arguments), "api_keys": keys,
        },
        "start_timeout": 1900,
    }  # fmt: skip


def _group(sizes: dict, hosts: int, devices: int = 8, family: str = "nvidia_hopper", **own: object) -> dict:
    nodes = [
        {
            "host": f"gpu{rank}", "rank": rank, "address": f"10.0.0.{rank + 1}", "interface": "bond0",
            "devices": devices, "device_ids": list(range(devices)), "chip": CHIPS[family], "family": family,
            "weights_path": "/data/r1", "run_dir": "/srv/llm", "machine": "x86_64", "memory": {}, "ulimits": {},
            **own,
        }
        for rank in range(hosts)
    ]  # fmt: skip
    return {"name": "serving", "head": "gpu0", "parallel": sizes, "nodes": nodes}


def _launched(version: str, precision: str, hosts: int, wanted: dict | None = None, **parts: object) -> list[dict]:
    """Return the LaunchSpec of every rank."""
    plan = _plan(version, precision, parts.pop("arguments", ()), parts.pop("keys", 0))
    devices = parts.get("devices", 8)
    sizes = vllm.parallel(_model(precision), version, [devices] * hosts, wanted or {}, plan["serving"]["engine_args"])
    group = _group(sizes, hosts, **parts)
    return [vllm.launch(plan, group, node) for node in group["nodes"]]


def _flags(argv: list[str]) -> list[str]:
    return [word for word in argv if word.startswith("--")]


def _without_own(argv: list[str]) -> list[str]:
    """Return a command without the flags in which ranks may differ, and without their values."""
    kept, place = [], 0
    while place < len(argv):
        if argv[place] in OWN:
            place += 1 if argv[place] == "--headless" else 2
        else:
            kept.append(argv[place])
            place += 1
    return kept


def _refused(call, *arguments: object) -> str:
    with pytest.raises(LlmError) as caught:
        call(*arguments)
    error = caught.value
    assert error.wanted and error.found and error.remedy
    return str(error)


@pytest.mark.parametrize(
    ("precision", "version", "hosts", "expected"),
    [
        # vllm-project/recipes: DeepSeek-R1, 8 x H200
        ("fp8", "0.12.0", 1, (8, 1, 1, True, "single")),
        # 2 x 8 H100, 2 x 8 A100 (INT8), 4 x 8 A100 (BF16), 8 x A100 (AWQ)
        ("fp8", "0.33.0", 2, (8, 2, 1, False, "mp")),
        ("int8", "0.33.0", 2, (8, 2, 1, False, "mp")),
        ("bfloat16", "0.12.0", 4, (8, 4, 1, False, "mp")),
        ("int4", "0.12.0", 1, (8, 1, 1, False, "single")),
        # The guide's own version knows neither nodes nor whole experts.
        ("bfloat16", "0.7.3", 4, (8, 4, 1, False, "ray")),
        ("fp8", "0.7.3", 1, (8, 1, 1, False, "single")),
        ("fp8", "0.11.0", 2, (8, 2, 1, False, "ray")),
    ],
)
def test_sizes_of_the_guides(precision: str, version: str, hosts: int, expected: tuple) -> None:
    found = vllm.parallel(_model(precision), version, [8] * hosts, {})
    assert (
        found["tensor_parallel"], found["pipeline_parallel"], found["data_parallel"], found["expert_parallel"],
        found["form"],
    ) == expected  # fmt: skip
    assert found["why"]


@pytest.mark.parametrize(
    ("hosts", "wanted", "expected"),
    [
        (1, {"data_parallel": 8}, {"tensor_parallel": 1, "data_parallel_local": 8, "form": "single"}),
        (2, {"data_parallel": 2}, {"tensor_parallel": 8, "data_parallel_local": 1, "form": "data_parallel"}),
        (2, {"data_parallel": 4}, {"tensor_parallel": 4, "data_parallel_local": 2, "form": "data_parallel"}),
        (2, {"tensor_parallel": 16}, {"pipeline_parallel": 1, "form": "mp"}),
        (2, {"pipeline_parallel": 4}, {"tensor_parallel": 4, "form": "mp"}),
        (3, {}, {"tensor_parallel": 8, "pipeline_parallel": 3, "form": "mp"}),
    ],
)
def test_sizes_that_are_asked_for(hosts: int, wanted: dict, expected: dict) -> None:
    found = vllm.parallel(_model(), "0.33.0", [8] * hosts, wanted)
    assert {**wanted, **expected}.items() <= found.items()
    assert found["expert_parallel"] == (found["data_parallel"] > 1)


def test_devices_that_heads_cannot_be_shared_out_to_make_more_stages() -> None:
    found = vllm.parallel(_model("bfloat16"), "0.33.0", [6], {})
    assert (found["tensor_parallel"], found["pipeline_parallel"]) == (2, 3)


@pytest.mark.parametrize(
    ("model", "version", "devices", "wanted", "reason", "near"),
    [
        (_model(heads=12), "0.33.0", [8], {"tensor_parallel": 8}, "12 attention heads", "tensor_parallel 4"),
        (_model("bfloat16", layers=3), "0.33.0", [8], {"pipeline_parallel": 8}, "3 layers are fewer than 8", "2"),
        (_model(experts=4), "0.33.0", [8], {"data_parallel": 8}, "4 experts are fewer than the 8", "llm_parallel"),
        (_model(), "0.33.0", [8] * 4, {"tensor_parallel": 32}, "whole FP8 blocks of 128", "tensor_parallel 16"),
        (_model(), "0.33.0", [8], {"tensor_parallel": 3}, "do not multiply to 8", "tensor_parallel 4"),
        (_model(), "0.33.0", [8], {"tensor_parallel": 8, "data_parallel": 8}, "do not multiply", "llm_parallel"),
        (_model(), "0.7.3", [8], {"data_parallel": 2}, "has no data parallelism", "tensor_parallel 8"),
        (_model(), "0.33.0", [8, 8], {"data_parallel": 2, "pipeline_parallel": 2}, "not offered", "tensor_parallel 8"),
        (_model(), "0.33.0", [4] * 4, {"tensor_parallel": 8, "data_parallel": 2}, "hosts of 4", "tensor_parallel 8"),
    ],
)
def test_impossible_sizes_are_refused_with_the_reason_and_what_is_possible(
    model: dict, version: str, devices: list[int], wanted: dict, reason: str, near: str
) -> None:
    message = _refused(vllm.parallel, model, version, devices, wanted)
    assert reason in message and near in message


@given(
    version=st.sampled_from(EVERY),
    precision=st.sampled_from(["fp8", "bfloat16", "int8", "int4"]),
    hosts=st.integers(1, 4),
    devices=st.sampled_from([1, 2, 4, 8]),
    wanted=st.fixed_dictionaries(
        {},
        optional={
            "tensor_parallel": st.sampled_from([1, 2, 4, 8, 16, 32]),
            "pipeline_parallel": st.sampled_from([1, 2, 4]),
            "data_parallel": st.sampled_from([1, 2, 4, 8, 16]),
        },
    ),
    ray=st.booleans(),
)
def test_ranks_agree_and_use_only_what_the_release_knows(
    version: str, precision: str, hosts: int, devices: int, wanted: dict, ray: bool
) -> None:
    ray = ray and hosts > 1 and wanted.get("data_parallel", 1) == 1
    arguments = (vllm.EXECUTOR, "ray") if ray else ()
    try:
        sizes = vllm.parallel(_model(precision), version, [devices] * hosts, wanted, arguments)
    except LlmError as error:
        assert error.wanted and error.found and error.remedy
        return
    assert sizes["tensor_parallel"] * sizes["pipeline_parallel"] * sizes["data_parallel"] == hosts * devices
    assert all(sizes[name] == size for name, size in wanted.items())
    assert SHAPE["heads"] % sizes["tensor_parallel"] == 0
    if sizes["form"] == "data_parallel":
        assert sizes["data_parallel_local"] * sizes["tensor_parallel"] == devices
        assert sizes["data_parallel_local"] * hosts == sizes["data_parallel"]

    specs = _launched(version, precision, hosts, wanted, devices=devices, arguments=arguments)
    followers = specs[1:] if sizes["form"] == "ray" else []
    for spec in specs:
        assert len(set(_flags(spec["argv"]))) == len(_flags(spec["argv"]))
        assert set(_flags(spec["argv"])) <= (RAY_FLAGS if spec in followers else FLAGS[version])
        assert all(set(_flags(command)) <= RAY_FLAGS for command in spec["before"])
        assert all(isinstance(word, str) and word for word in spec["argv"])
        assert all(isinstance(value, str) for value in spec["env"].values())
        json.dumps(spec)
    if followers:
        assert [spec["argv"] for spec in followers] == [
            [word.replace("10.0.0.2", f"10.0.0.{rank + 2}") for word in followers[0]["argv"]]
            for rank in range(len(followers))
        ]
    else:
        assert len({tuple(_without_own(spec["argv"])) for spec in specs}) == 1
    assert [spec["port"] for spec in specs] == [8000] + [0] * (hosts - 1)
    assert len({json.dumps(spec["env"]) for spec in specs}) == 1
    ranks = [spec["argv"][spec["argv"].index("--node-rank") + 1] for spec in specs if "--node-rank" in spec["argv"]]
    assert ranks in ([], [str(rank) for rank in range(hosts)])


def test_command_on_one_host() -> None:
    (spec,) = _launched("0.12.0", "fp8", 1)
    # vllm-project/recipes, DeepSeek-R1, 8 x H200: --tensor-parallel-size 8 --enable-expert-parallel
    assert spec["argv"] == [
        "vllm", "serve", "/data/r1", "--served-model-name", "deepseek-r1", "--host", "10.0.0.1", "--port", "8000",
        "--max-model-len", "16384", "--max-num-seqs", "16", "--tensor-parallel-size", "8", "--enable-expert-parallel",
        "--dtype", "bfloat16", "--gpu-memory-utilization", "0.92", "--reasoning-parser", "deepseek_r1",
    ]  # fmt: skip
    assert spec["before"] == []
    assert spec["readiness"] == {"url": "http://10.0.0.1:8000/health", "log": ""}
    assert spec["ports"] == {8000: "API"}


def test_commands_over_two_hosts() -> None:
    head, second = _launched("0.33.0", "fp8", 2)
    # vLLM docs/serving/parallelism_scaling.md, multiprocessing over two hosts
    shape = [
        "--max-model-len", "16384", "--max-num-seqs", "16", "--tensor-parallel-size", "8",
        "--pipeline-parallel-size", "2", "--distributed-executor-backend", "mp", "--nnodes", "2",
    ]  # fmt: skip
    tail = ["--dtype", "bfloat16", "--gpu-memory-utilization", "0.92", "--reasoning-parser", "deepseek_r1"]
    rendezvous = ["--master-addr", "10.0.0.1", "--master-port", "29500"]
    serve = ["vllm", "serve", "/data/r1", "--served-model-name", "deepseek-r1"]
    assert head["argv"] == [
        *serve, "--host", "10.0.0.1", "--port", "8000", *shape, "--node-rank", "0", *rendezvous, *tail,
    ]  # fmt: skip
    assert second["argv"] == [
        *serve, "--host", "10.0.0.2", "--port", "8000", *shape, "--node-rank", "1", *rendezvous, "--headless", *tail,
    ]  # fmt: skip
    assert head["ports"] == {8000: "API", 29500: "rendezvous of torch.distributed"}
    assert second["ports"] == {} and second["readiness"]["url"] == ""


def test_commands_of_data_parallel_hosts() -> None:
    head, second = _launched("0.33.0", "fp8", 2, {"data_parallel": 4})
    data = [
        "--tensor-parallel-size", "4", "--data-parallel-size", "4", "--data-parallel-size-local", "2",
        "--data-parallel-address", "10.0.0.1", "--data-parallel-rpc-port", "13389", "--enable-expert-parallel",
    ]  # fmt: skip
    assert head["argv"][13:25] == [*data, "--dtype"]
    assert second["argv"][13:28] == [*data, "--headless", "--data-parallel-start-rank", "2", "--dtype"]
    assert head["ports"] == {8000: "API", 13389: "data parallel RPC"}


def test_commands_over_ray() -> None:
    head, second = _launched("0.7.3", "bfloat16", 2)
    start = ["ray", "start", "--node-ip-address"]
    size = ["--num-gpus", "8", "--object-store-memory", str(2 * 1024**3)]
    assert head["before"] == [
        [*start, "10.0.0.1", *size, "--head", "--port", "6379", "--include-dashboard", "false"],
    ]
    assert head["argv"][13:] == [
        "--tensor-parallel-size", "8", "--pipeline-parallel-size", "2", "--distributed-executor-backend", "ray",
        "--dtype", "bfloat16", "--gpu-memory-utilization", "0.92", "--trust-remote-code", "--enable-reasoning",
        "--reasoning-parser", "deepseek_r1",
    ]  # fmt: skip
    assert second["argv"] == [*start, "10.0.0.2", *size, "--address", "10.0.0.1:6379", "--block"]
    assert second["before"] == [] and second["port"] == 0
    assert head["ports"] == {8000: "API", 6379: "Ray"}
    assert head["shm_bytes"] > 2 * vllm.RAY_OBJECT_STORE_BYTES


def test_ranks_over_ray_have_time_to_find_a_head_that_starts_with_them() -> None:
    specs = _launched("0.7.3", "bfloat16", 2)
    assert [spec["env"]["RAY_NUM_REDIS_GET_RETRIES"] for spec in specs] == ["300", "300"]
    assert "RAY_NUM_REDIS_GET_RETRIES" not in _launched("0.33.0", "bfloat16", 2)[0]["env"]


@pytest.mark.parametrize("flag", [(vllm.EXECUTOR, "ray"), (f"{vllm.EXECUTOR}=ray",), ("--distributed_executor", "ray")])
def test_ray_is_chosen_by_the_flag_of_vllm(flag: tuple[str, ...]) -> None:
    arguments = ("--seed", "7", *flag, "--max-logprobs", "3")
    assert vllm.parallel(_model(), "0.33.0", [8, 8], {}, arguments)["form"] == "ray"
    chosen = _launched("0.33.0", "fp8", 2, arguments=arguments)
    assert chosen[1]["argv"][:2] == ["ray", "start"]
    assert chosen[0]["argv"].count(vllm.EXECUTOR) == 1
    assert chosen[0]["argv"][-4:] == ["--seed", "7", "--max-logprobs", "3"]
    assert any("no longer brings Ray" in note for note in chosen[0]["notes"])
    # The same where the sizes were chosen without the flags.
    plan, group = _plan("0.33.0", arguments=arguments), _group(vllm.parallel(_model(), "0.33.0", [8, 8], {}), 2)
    assert [vllm.launch(plan, group, node) for node in group["nodes"]] == chosen


@pytest.mark.parametrize(
    ("family", "version", "precision", "expected"),
    [
        ("nvidia_hopper", "0.12.0", "fp8", "1"),
        ("nvidia_hopper", "0.33.0", "fp8", None),
        ("nvidia_hopper", "0.7.3", "fp8", None),
        ("nvidia_hopper", "0.12.0", "bfloat16", None),
        ("nvidia_ampere", "0.12.0", "fp8", None),
    ],
)
def test_flashinfer_is_asked_for_where_it_is_known(
    family: str, version: str, precision: str, expected: str | None
) -> None:
    specs = _launched(version, precision, 1 if version == "0.7.3" else 2, family=family)
    assert all(spec["env"].get("VLLM_USE_FLASHINFER_MOE_FP8") == expected for spec in specs)
    left_out = (family, version, precision) == ("nvidia_hopper", "0.33.0", "fp8")
    assert any("VLLM_USE_FLASHINFER_MOE_FP8" in note for note in specs[0]["notes"]) == left_out


def test_engines_are_waited_for_as_long_as_the_plan_says() -> None:
    assert _launched("0.33.0", "fp8", 1)[0]["env"]["VLLM_ENGINE_READY_TIMEOUT_S"] == "1900"
    assert "VLLM_ENGINE_READY_TIMEOUT_S" not in _launched("0.12.0", "fp8", 1)[0]["env"]


def test_fp8_weights_on_ampere_are_served_unpacked_and_said_so() -> None:
    spec = _launched("0.33.0", "fp8", 2, family="nvidia_ampere")[0]
    assert any("W8A16" in note and "Marlin" in note for note in spec["notes"])


@pytest.mark.parametrize(
    "claim",
    [
        ("--quantization", "fp8"),
        ("-q", "fp8_per_block"),
        ("--kv-cache-dtype", "fp8_e4m3"),
        ("--kv-cache-dtype=fp8",),
        ("--kv_cache_dtype", "fp8"),
        ("--moe-backend", "deep_gemm"),
        ("--moe-backend", "flashinfer_cutlass"),
        ("--calculate-kv-scales",),
    ],
)
def test_claims_of_fp8_arithmetic_are_refused_on_ampere_alone(claim: tuple[str, ...]) -> None:
    message = _refused(lambda: _launched("0.33.0", "fp8", 2, family="nvidia_ampere", arguments=claim))
    assert "8.9" in message and "A100" in message and "gpu0" in message
    assert _launched("0.33.0", "fp8", 2, arguments=claim)


@pytest.mark.parametrize("name", ["VLLM_USE_FLASHINFER_MOE_FP8", "VLLM_USE_DEEP_GEMM"])
def test_claims_of_fp8_arithmetic_in_variables_are_refused_on_ampere(name: str) -> None:
    parts = {"family": "nvidia_ampere", "comm_env_override": {name: "1"}}
    assert f"{name}=1" in _refused(lambda: _launched("0.12.0", "fp8", 2, **parts))
    parts["comm_env_override"] = {name: "0"}
    assert _launched("0.12.0", "fp8", 2, **parts)


@pytest.mark.parametrize("arguments", [("--kv-cache-dtype", "auto"), ("--quantization", "awq_marlin"), ("--seed", "8")])
def test_what_claims_no_fp8_passes_on_ampere(arguments: tuple[str, ...]) -> None:
    assert _launched("0.33.0", "int4", 1, family="nvidia_ampere", arguments=arguments)


def test_a_release_that_cannot_unpack_fp8_blocks_is_refused_on_ampere() -> None:
    assert "0.9.1 or newer" in _refused(lambda: _launched("0.7.3", "fp8", 2, family="nvidia_ampere"))
    assert _launched("0.7.3", "fp8", 2)


def test_int8_weights_are_told_their_format() -> None:
    argv = _launched("0.33.0", "int8", 2)[1]["argv"]
    config = json.loads(argv[argv.index("--hf-overrides") + 1])["quantization_config"]
    weights, activations = (config["config_groups"]["group_0"][part] for part in ("weights", "input_activations"))
    assert (weights["num_bits"], weights["strategy"], weights["dynamic"]) == (8, "channel", False)
    assert (activations["num_bits"], activations["strategy"], activations["dynamic"]) == (8, "token", True)
    given_by_user = _launched("0.33.0", "int8", 2, arguments=("--hf-overrides", "{}"))[0]
    assert given_by_user["argv"].count("--hf-overrides") == 1
    assert not any("--hf-overrides" in note for note in given_by_user["notes"])


def test_own_choices_stand_in_place_of_defaults() -> None:
    argv = _launched("0.33.0", "fp8", 1, arguments=("--reasoning-parser", "deepseek_v3"))[0]["argv"]
    assert argv.count("--reasoning-parser") == 1 and argv[-1] == "deepseek_v3"
    old = _launched("0.7.3", "bfloat16", 1, arguments=("--trust-remote-code", "--enable-reasoning"))[0]["argv"]
    assert old.count("--trust-remote-code") == old.count("--enable-reasoning") == old.count("--reasoning-parser") == 1


@pytest.mark.parametrize(
    ("version", "reasoning", "trust"),
    [("0.7.3", True, True), ("0.8.3", True, False), ("0.9.1", False, False), ("0.33.0", False, False)],
)
def test_spelling_of_each_release(version: str, reasoning: bool, trust: bool) -> None:
    argv = _launched(version, "bfloat16", 1)[0]["argv"]
    assert ("--enable-reasoning" in argv) == reasoning
    assert ("--trust-remote-code" in argv) == trust
    assert argv[argv.index("--reasoning-parser") + 1] == "deepseek_r1"


def test_a_model_that_does_not_reason_gets_no_parser() -> None:
    plan, group = _plan("0.33.0"), _group(vllm.parallel(_model(), "0.33.0", [8], {}), 1)
    plan["model"]["id"] = "deepseek-v3-fp8"
    assert "--reasoning-parser" not in vllm.launch(plan, group, group["nodes"][0])["argv"]


def test_container_of_a_host_with_gpus() -> None:
    plan, sizes = _plan(keys=1), vllm.parallel(_model("bfloat16"), "0.12.0", [2, 2], {})
    group = _group(sizes, 2, devices=2, device_ids=[2, 3])
    head, second = (vllm.launch(plan, group, node) for node in group["nodes"])
    cards = ["/dev/nvidia2", "/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    assert head["devices"] == second["devices"] == [*cards, "/dev/infiniband"]
    assert head["probe_devices"] == cards
    assert head["gpus"] is True and head["ipc"] == "private"
    assert "IPC_LOCK" in head["cap_add"] and head["ulimits"]["memlock"] == -1
    assert head["shm_bytes"] == 2 * containers.SHM_BYTES_A_DEVICE
    assert (head["secret_env"], second["secret_env"]) == (["VLLM_API_KEY"], [])
    assert not any("NCCL" in name or name == "VLLM_HOST_IP" for name in head["env"])


def test_devices_of_rdma_are_those_of_the_host_and_none_on_a_host_alone() -> None:
    assert "/dev/infiniband" not in _launched("0.12.0", "fp8", 1)[0]["devices"]
    assert "/dev/infiniband" not in _launched("0.12.0", "fp8", 2, rdma_devices=[])[1]["devices"]


def _settings(**own: object) -> dict:
    return {
        "llm_engine": "vllm",
        "llm_engine_version": "0.33.0",
        "llm_model": "deepseek-r1-fp8",
        **own,
    }


NODE = {"host": "gpu0", "address": "10.0.0.1"}
TWO = [NODE, {"host": "gpu1", "address": "10.0.0.2"}]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"llm_engine_args": ["--tensor-parallel-size", "4"]}, "llm_parallel"),
        ({"llm_engine_args": ["-tp=4"]}, "llm_parallel"),
        ({"llm_engine_args": ["--gpu-memory-util", "0.99"]}, "--gpu-memory-utilization"),
        ({"llm_engine_args": ["--nnodes", "2"]}, "--nnodes"),
        ({"llm_engine_args": ["--headless"]}, "--headless"),
        ({"llm_engine_args": ["--enable-reasoning"]}, "does not know --enable-reasoning"),
        ({"llm_api_keys": 2}, "one key"),
        ({"llm_engine_args": [vllm.EXECUTOR, "external_launcher"]}, "ray or mp"),
        ({"llm_engine_args": [vllm.EXECUTOR]}, "ray or mp"),
        ({"llm_engine_version": "0.11.0", "llm_engine_args": [vllm.EXECUTOR, "mp"]}, "wanted: ray"),
        ({"llm_parallel": {"data_parallel": 2}, "llm_engine_args": [vllm.EXECUTOR, "ray"]}, "without Ray"),
        ({"llm_engine_version": "0.7.3", "llm_model": "deepseek-r1-int8"}, "experts in INT8"),
    ],
)
def test_settings_that_are_refused(own: dict, words: str) -> None:
    assert words in _refused(vllm.check, _settings(**own), TWO)


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"llm_engine_args": [vllm.EXECUTOR, "ray"]},
        {"llm_engine_args": [vllm.EXECUTOR, "mp"]},
        {"llm_engine_args": ["--kv-cache-dtype", "fp8", "--enable-prefix-caching"], "llm_api_keys": 1},
        {"llm_engine_version": "0.7.3", "llm_model": "deepseek-r1-bf16", "llm_engine_args": ["--enable-reasoning"]},
    ],
)
def test_settings_that_pass(own: dict) -> None:
    vllm.check(_settings(**own), TWO)


def test_every_form_is_reached() -> None:
    forms = {
        vllm.parallel(_model(), version, [8] * hosts, {"data_parallel": data})["form"]
        for version, hosts, data in product(("0.9.1", "0.33.0"), (1, 2), (1, 2))
    }
    assert forms == {"single", "ray", "mp", "data_parallel"}


def test_nothing_is_added_to_the_variables_of_nccl() -> None:
    assert vllm.communication(_plan(), _group({}, 2)) == {}
