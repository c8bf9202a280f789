# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.engines import sglang
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from hypothesis import given
from hypothesis import strategies as st

SHAPE = {"layers": 61, "hidden": 7168, "heads": 128, "experts": 256, "expert_intermediate": 2048}
CHIPS = {
    "nvidia_hopper": "NVIDIA H100 80GB HBM3",
    "nvidia_ampere": "NVIDIA A100-SXM4-80GB",
    "nvidia_ada": "NVIDIA L40S",
}
# The flags that are rendered, as the fields of ServerArgs in the published wheel 0.5.23 name them
# (sglang/srt/arg_groups/fields: a field's name with '-', and its aliases) and server_args.py adds by hand.
FLAGS = {
    "--model-path", "--served-model-name", "--host", "--port", "--context-length", "--max-running-requests", "--dtype",
    "--mem-fraction-static", "--tp-size", "--pp-size", "--dist-init-addr", "--nnodes", "--node-rank", "--quantization",
    "--reasoning-parser", "--enable-metrics",
}  # fmt: skip


def _model(precision: str = "fp8", **shape: int) -> dict:
    return {"architecture": {**SHAPE, **shape}, "dtype": "bfloat16", "precision": precision}


def _plan(precision: str = "fp8", arguments: tuple[str, ...] = ()) -> dict:
    return {
        "deployment": "default",
        "model": {"id": f"deepseek-r1-{precision}", "title": "R1", **_model(precision)},
        "engine": {
            "id": "sglang", "version": "0.5.23", "runtime": "docker", "accelerator": "gpu", "memory_share": 0.85,
            "group_ports": {"rendezvous of torch.distributed": 29500}, "image": {},
        },
        "serving": {
            "model_name": "deepseek-r1", "port": 8000, "max_model_len": 16384, "max_num_seqs": 16,
            "engine_args": list(arguments), "api_keys": 0,
        },
    }  # fmt: skip


def _launched(precision: str, hosts: int, wanted: dict | None = None, **parts: object) -> list[dict]:
    """Return the LaunchSpec of every rank."""
    plan = _plan(precision, parts.pop("arguments", ()))
    devices, family = parts.pop("devices", 8), parts.pop("family", "nvidia_hopper")
    nodes = [
        {
            "host": f"gpu{rank}", "rank": rank, "address": f"10.0.0.{rank + 1}", "interface": "bond0",
            "devices": devices, "device_ids": list(range(devices)), "chip": CHIPS[family], "family": family,
            "weights_path": "/data/r1", "run_dir": "/srv/llm", "machine": "x86_64", "memory": {}, "ulimits": {},
            **parts,
        }
        for rank in range(hosts)
    ]  # fmt: skip
    sizes = sglang.parallel(_model(precision), "0.5.23", [devices] * hosts, wanted or {})
    group = {"name": "serving", "head": "gpu0", "parallel": sizes, "nodes": nodes}
    return [sglang.launch(plan, group, node) for node in nodes]


def _refused(call, *arguments: object) -> str:
    with pytest.raises(LlmError) as caught:
        call(*arguments)
    error = caught.value
    assert error.wanted and error.found and error.remedy
    return str(error)


@pytest.mark.parametrize(
    ("precision", "hosts", "tensor"),
    # SGLang docs/basic_usage/deepseek_v3.md: 8 x H200, 2 x 8 H100; 16 x A100; 4 x 8 A100; 8 x A100
    [("fp8", 1, 8), ("fp8", 2, 16), ("int8", 2, 16), ("bfloat16", 4, 32), ("int4", 1, 8)],
)
def test_sizes_of_its_guide(precision: str, hosts: int, tensor: int) -> None:
    found = sglang.parallel(_model(precision), "0.5.23", [8] * hosts, {})
    assert (found["tensor_parallel"], found["pipeline_parallel"], found["data_parallel"]) == (tensor, 1, 1)
    assert found["form"] == "sglang" and found["why"]


def test_pipeline_stages_where_tensor_parallelism_does_not_reach() -> None:
    # 2048 / 32 = 64 is half a block of FP8 scales.
    found = sglang.parallel(_model(), "0.5.23", [8] * 4, {})
    assert (found["tensor_parallel"], found["pipeline_parallel"]) == (16, 2)


@pytest.mark.parametrize(
    ("devices", "wanted", "reason"),
    [
        ([8, 8], {"data_parallel": 2}, "--attn-dp-size"),
        ([8, 8], {"tensor_parallel": 8}, ""),
        ([8] * 4, {"tensor_parallel": 32}, "whole FP8 blocks"),
        ([8], {"tensor_parallel": 5}, "do not multiply to 8"),
        ([6], {"pipeline_parallel": 1}, "128 attention heads"),
        ([4] * 3, {"pipeline_parallel": 2}, "do not fall on 3 hosts evenly"),
    ],
)
def test_sizes_that_are_asked_for(devices: list[int], wanted: dict, reason: str) -> None:
    if reason:
        assert reason in _refused(sglang.parallel, _model(), "0.5.23", devices, wanted)
    else:
        assert sglang.parallel(_model(), "0.5.23", devices, wanted)["pipeline_parallel"] == 2


@given(
    precision=st.sampled_from(["fp8", "bfloat16", "int8", "int4"]),
    hosts=st.integers(1, 4),
    devices=st.sampled_from([1, 2, 4, 8]),
    wanted=st.fixed_dictionaries(
        {},
        optional={
            "tensor_parallel": st.sampled_from([1, 2, 4, 8, 16, 32]),
            "pipeline_parallel": st.sampled_from([1, 2, 4]),
            "data_parallel": st.sampled_from([1, 2]),
        },
    ),
)
def test_ranks_agree_and_use_only_what_the_release_knows(
    precision: str, hosts: int, devices: int, wanted: dict
) -> None:
    try:
        sizes = sglang.parallel(_model(precision), "0.5.23", [devices] * hosts, wanted)
    except LlmError as error:
        assert error.wanted and error.found and error.remedy
        return
    assert sizes["tensor_parallel"] * sizes["pipeline_parallel"] == hosts * devices
    assert all(sizes[name] == size for name, size in wanted.items())
    specs = _launched(precision, hosts, wanted, devices=devices)
    commands = []
    for rank, spec in enumerate(specs):
        flags = [word for word in spec["argv"] if word.startswith("--")]
        assert len(set(flags)) == len(flags) and set(flags) <= FLAGS
        json.dumps(spec)
        own = {"--host": f"10.0.0.{rank + 1}", "--node-rank": str(rank)}
        command = list(spec["argv"])
        for name in own.keys() & set(flags):
            place = command.index(name) + 1
            assert command[place] == own[name]
            command[place] = ""
        commands.append(command)
    assert all(command == commands[0] for command in commands)
    assert ("--node-rank" in specs[0]["argv"]) == (hosts > 1)


def test_commands_over_two_hosts() -> None:
    head, second = _launched("fp8", 2)
    assert second["argv"] == [
        "python3", "-m", "sglang.launch_server", "--model-path", "/data/r1", "--served-model-name", "deepseek-r1",
        "--host", "10.0.0.2", "--port", "8000", "--context-length", "16384", "--max-running-requests", "16",
        "--dtype", "bfloat16", "--mem-fraction-static", "0.85", "--tp-size", "16", "--dist-init-addr",
        "10.0.0.1:29500", "--nnodes", "2", "--node-rank", "1", "--reasoning-parser", "deepseek-r1",
        "--enable-metrics",
    ]  # fmt: skip
    assert head["port"] == 8000 and head["readiness"]["url"] == "http://10.0.0.1:8000/health"
    assert head["ports"] == {8000: "API", 29500: "rendezvous of torch.distributed"}
    # A later rank answers /health on the same port, and nothing else.
    assert (second["port"], second["ports"], second["readiness"]["url"]) == (0, {8000: "health of the rank"}, "")
    assert (head["env"]["SGLANG_HOST_IP"], second["env"]["SGLANG_HOST_IP"]) == ("10.0.0.1", "10.0.0.2")
    assert "/dev/infiniband" in head["devices"] and head["gpus"] is True
    assert head["shm_bytes"] == 32 * 1024**3


def test_one_host_is_told_of_no_other() -> None:
    (spec,) = _launched("fp8", 1)
    assert not {"--nnodes", "--node-rank", "--dist-init-addr", "--pp-size"} & set(spec["argv"])
    assert "SGLANG_HOST_IP" not in spec["env"] and spec["ports"] == {8000: "API"}


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp8", None), ("bfloat16", None), ("int4", None), ("int8", "w8a8_int8")]
)
def test_only_a_format_that_weights_do_not_say_is_named(precision: str, expected: str | None) -> None:
    argv = _launched(precision, 2)[0]["argv"]
    assert (argv[argv.index("--quantization") + 1] if "--quantization" in argv else None) == expected


@pytest.mark.parametrize(
    ("precision", "family", "named"),
    [
        ("int8", "nvidia_ampere", True),
        ("int8", "nvidia_ada", True),
        ("int8", "nvidia_hopper", False),
        ("int4", "nvidia_ampere", True),
        ("fp8", "nvidia_hopper", True),
        ("fp8", "nvidia_ada", False),
    ],
)
def test_formats_that_its_guide_does_not_name_for_a_card_are_said(precision: str, family: str, named: bool) -> None:
    notes = _launched(precision, 2, family=family)[0]["notes"]
    assert any("does not name" in note for note in notes) != named
    assert any("DeepGEMM" in note for note in notes) == ((precision, family) == ("fp8", "nvidia_hopper"))


def test_fp8_experts_are_refused_on_ampere() -> None:
    message = _refused(lambda: _launched("fp8", 2, family="nvidia_ampere"))
    assert "gpu0" in message and "A100" in message and "llm_engine: vllm" in message


def test_claims_of_fp8_arithmetic_are_refused_on_ampere() -> None:
    arguments = ("--kv-cache-dtype", "fp8_e4m3")
    assert "--kv-cache-dtype fp8_e4m3" in _refused(
        lambda: _launched("int8", 2, family="nvidia_ampere", arguments=arguments)
    )
    assert _launched("int8", 2, family="nvidia_hopper", arguments=arguments)[0]["argv"][-2:] == list(arguments)


def test_own_parser_stands_in_place_of_the_default() -> None:
    argv = _launched("fp8", 1, arguments=("--reasoning-parser", "deepseek-v3"))[0]["argv"]
    assert argv.count("--reasoning-parser") == 1


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"llm_engine_args": ["--tp", "8"]}, "llm_parallel"),
        ({"llm_engine_args": ["--tensor-parallel-size=8"]}, "llm_parallel"),
        ({"llm_engine_args": ["--quantization", "fp8"]}, "--quantization"),
        ({"llm_engine_args": ["--api-key", "x"]}, "--api-key"),
        ({"llm_engine_args": ["--config", "a.yaml"]}, "--config"),
        ({"llm_engine_args": ["--nccl-init-addr", "a:1"]}, "--nccl-init-addr"),
        ({"llm_engine_args": ["--mem-fraction", "0.9"]}, "--mem-fraction-static"),
        ({"llm_api_keys": 1}, "gateway"),
    ],
)
def test_settings_that_are_refused(own: dict, words: str) -> None:
    deployment = {"llm_engine": "sglang", "llm_engine_version": "0.5.23", "llm_model": "deepseek-r1-fp8", **own}
    assert words in _refused(sglang.check, deployment, [{"host": "gpu0", "address": "10.0.0.1"}])


def test_settings_that_pass() -> None:
    deployment = {
        "llm_engine": "sglang", "llm_engine_version": "0.5.23", "llm_model": "deepseek-r1-fp8",
        "llm_engine_args": ["--attn-dp-size", "2", "--chunked-prefill-size", "4096"],
    }  # fmt: skip
    sglang.check(deployment, [{"host": "gpu0", "address": "10.0.0.1"}])
    assert sglang.communication(_plan(), {}) == {}
