# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SGLang on NVIDIA GPUs, in containers, on one host or over several. Pure.

One command runs on every host; only rank 0 serves the API. What 0.5.23 has is read from its published wheel
(sglang/srt/arg_groups/fields, sglang/srt/entrypoints); which format of DeepSeek-R1 runs on what is from
sgl-project/sglang:docs/basic_usage/deepseek_v3.md.
"""

from __future__ import annotations

from ..errors import LlmError
from . import containers, vllm_serve
from .vllm import WITHOUT_FP8, container, impossible, option, refuse_fp8, shape_fault, splits, thinks

# The plan decides these, in every spelling that 0.5.23 takes.
OWNED = frozenset({
    "--model-path", "--model", "--served-model-name", "--host", "--port", "--context-length", "--max-running-requests",
    "--dtype", "--mem-fraction-static", "--quantization", "--api-key", "--admin-api-key", "--config",
    "--tp-size", "--tensor-parallel-size", "--pp-size", "--pipeline-parallel-size", "--dp-size",
    "--data-parallel-size", "--dist-init-addr", "--nccl-init-addr", "--nnodes", "--node-rank", "--enable-metrics",
})  # fmt: skip
OWNERS = {
    "--model-path": "llm_model",
    "--model": "llm_model",
    "--host": "llm_interface",
    "--port": "llm_api_port",
    "--context-length": "llm_max_model_len",
    "--max-running-requests": "llm_max_num_seqs",
    "--tp-size": "llm_parallel",
    "--tensor-parallel-size": "llm_parallel",
    "--pp-size": "llm_parallel",
    "--pipeline-parallel-size": "llm_parallel",
    "--dp-size": "llm_parallel",
    "--data-parallel-size": "llm_parallel",
}
# The weights say their format themselves, and FP8 must not be named again (deepseek_v3.md); the INT8 set says nothing
# and is served with this (meituan/DeepSeek-R1-Channel-INT8, README).
QUANTIZATION = {"int8": "w8a8_int8"}
# Formats and families that its page on DeepSeek has together: FP8 on H100, H200, H20, B200; INT8 on A100, A800, L40S;
# AWQ on H100 and A100. BF16 on all that are named there.
NAMED = {
    "fp8": ("nvidia_hopper", "nvidia_blackwell"),
    "int8": ("nvidia_ampere", "nvidia_ada"),
    "int4": ("nvidia_hopper", "nvidia_ampere"),
    "bfloat16": ("nvidia_hopper", "nvidia_ampere"),
}
# `docker run --shm-size 32g` of SGLang's installation page, for the eight GPUs of a server.
SHM_BYTES_A_DEVICE = 4 * containers.GIB


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse settings that this engine does not have."""
    vllm_serve.refuse_owned(deployment.get("llm_engine_args", []), OWNED, OWNERS)
    if deployment.get("llm_api_keys", 0):
        # --api-key stands in the process list, and a key from --config is logged with all other settings at the start
        # (_server_args_for_logging, entrypoints/engine.py); it reads no key from the environment.
        raise LlmError(
            "sglang cannot keep an API key secret",
            wanted="no llm_api_keys",
            found=f"{deployment['llm_api_keys']} in llm_api_keys",
            remedy="remove llm_api_keys and put a gateway that checks keys in front, or take llm_engine: vllm",
        )


def parallel(model: dict, _version: str, devices: list[int], wanted: dict[str, int], **_about: object) -> dict:
    """Choose the sizes: tensor parallel over all devices of all hosts, unless ``wanted`` says otherwise.

    :param model: its catalog entry
    :param devices: accelerators of each host of the group, all equal
    :param wanted: llm_parallel
    :raises LlmError: where the sizes do not fit the model or the devices
    """
    known = [found for found in splits(sum(devices)) if not _fault(model, devices, found)]
    fitting = [found for found in known if all(found[name] == size for name, size in wanted.items())]
    if not fitting:
        raise impossible(wanted, devices, _reason(model, devices, wanted), known)
    sizes = min(fitting, key=lambda found: found["pipeline_parallel"])
    return {
        **sizes,
        "data_parallel_local": 1,
        "expert_parallel": False,
        "form": "sglang",
        "why": "tensor parallel over all devices, of several hosts too (SGLang docs/basic_usage/deepseek_v3.md)"
        if sizes["pipeline_parallel"] == 1
        else "pipeline stages, tensor parallel within each (SGLang --pp-size)",
    }


def communication(_plan: dict, _group: dict) -> dict[str, str]:
    """Return the variables in which SGLang differs from what every engine over NCCL has: none."""
    return {}


def launch(plan: dict, group: dict, node: dict) -> dict:
    """Return the LaunchSpec of ``node``."""
    refuse_fp8(plan, node)
    if plan["model"]["precision"] == "fp8" and node.get("family") in WITHOUT_FP8:
        # layers/quantization/fp8.py unpacks FP8 by itself for linear layers alone; its experts compute in FP8.
        raise LlmError(
            f"{node['host']}: sglang cannot serve FP8 experts on {node.get('chip') or 'NVIDIA Ampere'}",
            wanted="compute capability 8.9 or newer",
            found="8.0 (NVIDIA Ampere)",
            remedy="take the model in BF16, INT8 or AWQ, or llm_engine: vllm, which unpacks FP8 weights",
        )
    port = plan["serving"]["port"]
    head = vllm_serve.has_api(group, node)
    several = len(group["nodes"]) > 1
    ports = {port: "API" if head else "health of the rank"}
    if head and several:
        ports[plan["engine"]["group_ports"][vllm_serve.MASTER]] = vllm_serve.MASTER
    return container(
        plan,
        group,
        node,
        _command(plan, group, node),
        # Else it takes the address of whichever route the kernel would use (srt/utils/network.py).
        env={"SGLANG_HOST_IP": node["address"]} if several else {},
        shm_bytes=SHM_BYTES_A_DEVICE * node["devices"],
        ports=ports,
        notes=_notes(plan, node),
    )


def _command(plan: dict, group: dict, node: dict) -> list[str]:
    serving, sizes, model = plan["serving"], group["parallel"], plan["model"]
    arguments = serving["engine_args"]
    command = [
        "python3",
        "-m",
        "sglang.launch_server",
        "--model-path",
        node["weights_path"],
        "--served-model-name",
        serving["model_name"],
        "--host",
        node["address"],
        "--port",
        str(serving["port"]),
        "--context-length",
        str(serving["max_model_len"]),
        "--max-running-requests",
        str(serving["max_num_seqs"]),
        "--dtype",
        model["dtype"],
        "--mem-fraction-static",
        str(plan["engine"]["memory_share"]),
        "--tp-size",
        str(sizes["tensor_parallel"]),
    ]
    command += ["--pp-size", str(sizes["pipeline_parallel"])] if sizes["pipeline_parallel"] > 1 else []
    command += _several(plan, group, node) if len(group["nodes"]) > 1 else []
    quantization = QUANTIZATION.get(model["precision"])
    command += ["--quantization", quantization] if quantization else []
    if thinks(model) and option(arguments, ("--reasoning-parser",)) is None:
        command += ["--reasoning-parser", "deepseek-r1"]
    # Without it there is no /metrics.
    return [*command, "--enable-metrics", *arguments]


def _several(plan: dict, group: dict, node: dict) -> list[str]:
    rendezvous = plan["engine"]["group_ports"][vllm_serve.MASTER]
    return [
        "--dist-init-addr",
        f"{vllm_serve.head_of(group)['address']}:{rendezvous}",
        "--nnodes",
        str(len(group["nodes"])),
        "--node-rank",
        str(node["rank"]),
    ]


def _fault(model: dict, devices: list[int], sizes: dict[str, int]) -> str:
    pipeline, hosts = sizes["pipeline_parallel"], len(devices)
    if sizes["data_parallel"] > 1:
        return (
            "SGLang shares out attention within the tensor parallel devices in place of running several engines "
            "(--attn-dp-size in llm_engine_args)"
        )
    # _calculate_rank_ranges, entrypoints/engine.py: a host holds whole stages, or a stage takes whole hosts.
    if hosts % pipeline and pipeline % hosts:
        return f"{pipeline} pipeline stages do not fall on {hosts} hosts evenly"
    return shape_fault(model, sizes, whole_experts=False)


def _reason(model: dict, devices: list[int], wanted: dict[str, int]) -> str:
    asked = [found for found in splits(sum(devices)) if all(found[name] == size for name, size in wanted.items())]
    if not asked:
        return f"the sizes do not multiply to {sum(devices)} devices"
    return _fault(model, devices, min(asked, key=lambda found: (found["data_parallel"], found["pipeline_parallel"])))


def _notes(plan: dict, node: dict) -> list[str]:
    precision, family = plan["model"]["precision"], node.get("family")
    notes = []
    if precision == "fp8" and family == "nvidia_hopper":
        notes.append(
            "the first start on a host compiles DeepGEMM for about ten minutes (SGLang docs/basic_usage/deepseek_v3.md)"
        )
    if family and family not in NAMED.get(precision, (family,)):
        notes.append(f"SGLang's page on DeepSeek does not name {precision} weights for {node.get('chip') or family}")
    return notes
