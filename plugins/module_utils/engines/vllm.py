# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vLLM on NVIDIA GPUs, in containers, on one host or over several. Pure.

What a release has is read from the release itself: the sources in the published wheels 0.7.3, 0.8.3, 0.9.1, 0.11.0,
0.11.1, 0.12.0 and 0.33.0 (vllm/engine/arg_utils.py, vllm/entrypoints, vllm/envs.py, vllm/model_executor). Where a thing
appeared between two of them, the later one is named below.
"""

from __future__ import annotations

import json
import math

from ..catalog.models import MODELS
from ..errors import LlmError
from . import containers, vllm_serve

EXPERTS_SINCE = (0, 8, 3)  # --enable-expert-parallel
DATA_PARALLEL_SINCE = (0, 9, 1)  # --data-parallel-size-local, -address, -rpc-port, -start-rank, --headless
MULTI_NODE_SINCE = (0, 11, 1)  # --nnodes, --node-rank, --master-addr, --master-port; vllm-project/vllm pull 23691
READY_TIMEOUT_SINCE = (0, 33, 0)  # VLLM_ENGINE_READY_TIMEOUT_S
# --enable-reasoning is wanted beside --reasoning-parser in 0.8.3, deprecated in 0.9.1, unknown to 0.11.0.
REASONING_PARSER_ALONE_SINCE = (0, 9, 1)
WITHOUT_ENABLE_REASONING = (0, 11, 0)
# transformers has the architecture deepseek_v3 itself from 4.51.0 on, which is the least that 0.8.3 asks for.
OWN_ARCHITECTURE_SINCE = (0, 8, 3)
# CompressedTensorsW8A8Int8MoEMethod; "INT W8A8 MoE models are not supported in vLLM at the moment", its maintainers
# said in vllm-project/llm-compressor issue 1274 (2025-03).
INT8_EXPERTS_SINCE = (0, 9, 1)
# Fp8MoEMethod with Marlin; fp8.py of 0.7.3 switches Marlin off for block-wise FP8, which DeepSeek's is.
FP8_BLOCKS_ON_AMPERE_SINCE = (0, 9, 1)
# Releases whose envs.py has VLLM_USE_FLASHINFER_MOE_FP8: 0.11.0 to 0.12.0; 0.33.0 has --moe-backend in its place.
FLASHINFER_MOE_FP8 = ((0, 11, 0), (0, 12, 0))
# The package asks for Ray up to 0.12.0; that of 0.33.0 does not.
WITH_RAY_UNTIL = (0, 12, 0)

# Scales of DeepSeek's FP8 weights are for blocks of 128 x 128 (quantization_config of its config.json); a shard that
# is not a whole number of blocks is refused (validate_fp8_block_shape, utils/fp8_utils.py of 0.12.0).
FP8_BLOCK = 128
EXECUTOR = "--distributed-executor-backend"
OWNED = vllm_serve.OWNED | {"--gpu-memory-utilization", "--device-memory-utilization"}

# Ray would size its object store by the host's memory and not by the container's /dev/shm. Weights and activations do
# not pass through it.
RAY_OBJECT_STORE_BYTES = 2 * containers.GIB

# Weights quantized by channel to INT8, activations by token while it computes: what the publisher of the INT8 set
# describes (meituan/DeepSeek-R1-Channel-INT8, inference/bf16_cast_channel_int8.py) in the words of compressed-tensors.
# Its config.json has no quantization_config, without which vLLM would take the weights for plain ones; the names and
# shapes of the tensors (weight, weight_scale with one column) are those of vLLM's own INT8 scheme.
_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
INT8_CONFIG = {
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**_INT8, "strategy": "channel", "dynamic": False},
                "input_activations": {**_INT8, "strategy": "token", "dynamic": True},
            }
        },
        "ignore": ["lm_head"],
    }
}

# Arithmetic in FP8 begins with compute capability 8.9 (vLLM docs/features/quantization/fp8); Ampere is 8.0.
WITHOUT_FP8 = ("nvidia_ampere",)
_FP8_FLAGS = ("--quantization", "-q", "--kv-cache-dtype", "--moe-backend", "--calculate-kv-scales")
_FP8_BACKENDS = ("deep_gemm", "flashinfer", "cutlass")
_FP8_VARIABLES = ("VLLM_USE_FLASHINFER_MOE_FP8", "VLLM_USE_DEEP_GEMM", "VLLM_MOE_USE_DEEP_GEMM")


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse settings that this engine, or the chosen release of it, does not have."""
    arguments = deployment.get("llm_engine_args", [])
    vllm_serve.refuse_owned(arguments, OWNED)
    vllm_serve.refuse_keys(deployment)
    version = deployment["llm_engine_version"]
    _check_executor(arguments, version, nodes, deployment.get("llm_parallel", {}))
    if release(version) >= WITHOUT_ENABLE_REASONING and option(arguments, ("--enable-reasoning",)) is not None:
        raise LlmError(
            f"vllm {version} does not know --enable-reasoning of llm_engine_args",
            wanted="--reasoning-parser alone, which the plan sets for models that reason",
            found="--enable-reasoning",
            remedy="remove it",
        )
    model = MODELS.get(deployment.get("llm_model", ""), {})
    if model.get("precision") == "int8" and release(version) < INT8_EXPERTS_SINCE:
        raise LlmError(
            f"vllm {version} cannot compute experts in INT8",
            wanted=f"llm_engine_version: {text(INT8_EXPERTS_SINCE)} or newer",
            found=f"llm_engine_version: {version}, llm_model: {deployment['llm_model']}",
            remedy="take a newer release, or other weights: BF16 or AWQ",
        )


def parallel(
    model: dict,
    version: str,
    devices: list[int],
    wanted: dict[str, int],
    arguments: list[str] | tuple = (),
    **_about: object,
) -> dict:
    """Choose the sizes: tensor parallel within a host, pipeline parallel over hosts, unless ``wanted`` says otherwise.

    :param model: its catalog entry
    :param devices: accelerators of each host of the group, all equal
    :param wanted: llm_parallel
    :param arguments: llm_engine_args; ``--distributed-executor-backend ray`` chooses Ray
    :raises LlmError: where the sizes do not fit the model, the devices or the release
    """
    known = [found for found in splits(sum(devices)) if not _fault(model, version, devices, found)]
    fitting = [found for found in known if all(found[name] == size for name, size in wanted.items())]
    if not fitting:
        raise impossible(wanted, devices, _reason(model, version, devices, wanted), known)
    sizes = min(fitting, key=lambda found: _plainness(found, devices))
    form, why = _form(version, devices, sizes, arguments)
    experts = _spreads_experts(model, version, devices, sizes)
    if experts:
        why += "; experts whole, spread over all devices (vllm-project/recipes, DeepSeek-R1)"
    return {
        **sizes,
        "data_parallel_local": sizes["data_parallel"] // (len(devices) if form == "data_parallel" else 1),
        "expert_parallel": experts,
        "form": form,
        "why": why,
    }


def communication(_plan: dict, _group: dict) -> dict[str, str]:
    """Return the variables in which vLLM differs from what every engine over NCCL has: none."""
    return {}


def launch(plan: dict, group: dict, node: dict) -> dict:
    """Return the LaunchSpec of ``node``."""
    refuse_fp8(plan, node)
    serving = plan["serving"]
    group, arguments = _as_chosen(group, serving["engine_args"])
    head, over_ray = vllm_serve.has_api(group, node), group["parallel"]["form"] == "ray"
    ruled = dict(plan, serving=dict(serving, engine_args=arguments))
    argv = (
        _ray_worker(plan, group, node)
        if over_ray and not head
        else vllm_serve.command(ruled, group, node, flags=tuple(_flags(plan, arguments)))
    )
    return container(
        plan,
        group,
        node,
        argv,
        before=[_ray_head(plan, node)] if over_ray and head else [],
        env=_environment(plan, group, node),
        secret_env=["VLLM_API_KEY"] if serving["api_keys"] and head else [],
        ports=_ports(plan, group, node),
        notes=_notes(plan, group, node, arguments),
    )


def container(plan: dict, group: dict, node: dict, argv: list[str], **parts: object) -> dict:
    """Return the LaunchSpec of an engine on NVIDIA GPUs; ``parts`` over what all of them have.

    The device nodes are named beside the device request: without it a container loses its GPUs when the host's systemd
    reloads its units, as Docker does not know of what the toolkit's hook adds (NVIDIA/nvidia-container-toolkit issue
    48, first workaround for Docker; toolkit 1.18 no longer needs it).
    """
    head = vllm_serve.has_api(group, node)
    cards = [f"/dev/nvidia{index}" for index in node["device_ids"]]
    shared = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    # NCCL reaches the network cards through these; on a host alone there is nobody to reach.
    fabric = node.get("rdma_devices", ["/dev/infiniband"]) if len(group["nodes"]) > 1 else []
    port = plan["serving"]["port"]
    found = {
        "devices": [*cards, *shared, *fabric],
        "gpus": True,
        "probe_devices": [*cards, *shared],
        "port": port if head else 0,
        "readiness": {"url": f"http://{node['address']}:{port}/health" if head else "", "log": ""},
        **parts,
    }
    return containers.spec(node, argv, **found)


def release(version: str) -> tuple[int, ...]:
    """Return ``version`` as numbers that compare."""
    return tuple(int(part) for part in version.split(".")[:3])


def text(version: tuple[int, ...]) -> str:
    """Return the version of :func:`release` as text."""
    return ".".join(str(part) for part in version)


def option(arguments: list[str] | tuple, names: tuple[str, ...]) -> str | None:
    """Return what ``arguments`` give one of the options ``names``, also shortened; empty for a switch, None without."""
    for place, flag in enumerate(arguments):
        if not flag.startswith("-") or not vllm_serve.owned_name(flag, frozenset(names)):
            continue
        if "=" in flag:
            return flag.split("=", 1)[1]
        following = arguments[place + 1] if place + 1 < len(arguments) else "-"
        return "" if following.startswith("-") else following
    return None


def splits(total: int) -> list[dict[str, int]]:
    """Return every way to write ``total`` devices as tensor x pipeline x data parallel sizes."""
    divisors = [size for size in range(1, total + 1) if total % size == 0]
    return [
        {"tensor_parallel": tensor, "pipeline_parallel": pipeline, "data_parallel": total // tensor // pipeline}
        for tensor in divisors
        for pipeline in divisors
        if total // tensor % pipeline == 0
    ]


def shape_fault(model: dict, sizes: dict[str, int], whole_experts: bool) -> str:
    """Return why the model cannot be cut into ``sizes``, empty where it can; the same for vLLM and SGLang.

    :param whole_experts: whether experts are spread whole, in place of each being cut
    """
    shape, tensor, pipeline = model["architecture"], sizes["tensor_parallel"], sizes["pipeline_parallel"]
    if shape["heads"] % tensor:
        return f"{shape['heads']} attention heads cannot be shared out equally to {tensor} devices"
    if pipeline > shape["layers"]:
        return f"{shape['layers']} layers are fewer than {pipeline} pipeline stages"
    ranks = tensor * sizes["data_parallel"]
    if whole_experts and shape.get("experts", 0) < ranks:
        return f"{shape.get('experts', 0)} experts are fewer than the {ranks} devices that they are spread over"
    width = shape.get("expert_intermediate", 0)
    # The shared expert is cut by tensor parallelism in every case.
    if model.get("precision") == "fp8" and width % (tensor * FP8_BLOCK):
        return f"experts {width} wide cannot be cut into {tensor} parts of whole FP8 blocks of {FP8_BLOCK}"
    return ""


def impossible(wanted: dict[str, int], devices: list[int], reason: str, known: list[dict[str, int]]) -> LlmError:
    """Return the error for sizes that cannot be, with those that can and come nearest."""
    near = sorted(known, key=lambda found: _distance(wanted, found))[:3]
    return LlmError(
        f"the model cannot be split so over {_machines(devices)}: {reason}",
        wanted="llm_parallel: " + ("; or ".join(_written(found) for found in near) or "no split is possible"),
        found="llm_parallel: " + _written(wanted) if wanted else _machines(devices),
        remedy="change llm_parallel, or leave it out" if near else "change the number of hosts in the replica group",
    )


def refuse_fp8(plan: dict, node: dict) -> None:
    """Refuse what claims arithmetic in FP8 on a GPU that has none."""
    if node.get("family") not in WITHOUT_FP8:
        return
    arguments = plan["serving"]["engine_args"]
    given = {name: option(arguments, (name,)) for name in _FP8_FLAGS}
    claims = [
        f"{name} {value}".strip()
        for name, value in given.items()
        if value is not None and ("fp8" in value or value.startswith(_FP8_BACKENDS) or name == "--calculate-kv-scales")
    ]
    own = node.get("comm_env_override", {})
    claims += [f"{name}={own[name]}" for name in _FP8_VARIABLES if own.get(name, "0") != "0"]
    if claims:
        raise LlmError(
            f"{node['host']}: {node.get('chip') or 'this GPU'} cannot compute in FP8",
            wanted="compute capability 8.9 or newer for " + ", ".join(claims),
            found="8.0 (NVIDIA Ampere)",
            remedy="remove it from llm_engine_args or llm_comm_env; FP8 weights are served without it, unpacked to "
            "16 bits while computing",
        )
    version = plan["engine"]["version"]
    if (
        plan["engine"]["id"] == "vllm"
        and plan["model"]["precision"] == "fp8"
        and release(version) < FP8_BLOCKS_ON_AMPERE_SINCE
    ):
        raise LlmError(
            f"{node['host']}: vllm {version} cannot read block-wise FP8 weights on {node.get('chip') or 'Ampere'}",
            wanted=f"llm_engine_version: {text(FP8_BLOCKS_ON_AMPERE_SINCE)} or newer",
            found=f"llm_engine_version: {version}",
            remedy="take a newer release, or the model in BF16 or AWQ",
        )


def _check_executor(arguments: list[str], version: str, nodes: list[dict], wanted: dict[str, int]) -> None:
    chosen = option(arguments, (EXECUTOR,))
    if chosen is None or len(nodes) == 1:
        return
    known = ["ray", "mp"] if release(version) >= MULTI_NODE_SINCE else ["ray"]
    if chosen not in known:
        raise LlmError(
            f"vllm {version} cannot span {len(nodes)} hosts with {EXECUTOR} {chosen}".rstrip(),
            wanted=" or ".join(known),
            found=chosen or "nothing",
            remedy=f"correct {EXECUTOR} in llm_engine_args, or remove it",
        )
    if chosen == "ray" and wanted.get("data_parallel", 1) > 1:
        raise LlmError(
            "data parallel engines over several hosts run one a host, without Ray",
            wanted="llm_parallel without data_parallel, or no Ray",
            found=f"data_parallel {wanted['data_parallel']}, {EXECUTOR} ray",
            remedy=f"remove {EXECUTOR} from llm_engine_args, or data_parallel from llm_parallel",
        )


def _fault(model: dict, version: str, devices: list[int], sizes: dict[str, int]) -> str:
    tensor, data = sizes["tensor_parallel"], sizes["data_parallel"]
    if data > 1 and release(version) < DATA_PARALLEL_SINCE:
        return f"vLLM {version} has no data parallelism; it came with {text(DATA_PARALLEL_SINCE)}"
    if data > 1 and sizes["pipeline_parallel"] > 1:
        return "data and pipeline parallelism together are not offered"
    if data > 1 and len(devices) > 1 and devices[0] % tensor:
        return f"an engine on {tensor} devices does not fit whole into hosts of {devices[0]}"
    return shape_fault(model, sizes, _spreads_experts(model, version, devices, sizes))


def _reason(model: dict, version: str, devices: list[int], wanted: dict[str, int]) -> str:
    asked = [found for found in splits(sum(devices)) if all(found[name] == size for name, size in wanted.items())]
    if not asked:
        return f"the sizes do not multiply to {sum(devices)} devices"
    return _fault(model, version, devices, min(asked, key=lambda found: _plainness(found, devices)))


def _spreads_experts(model: dict, version: str, devices: list[int], sizes: dict[str, int]) -> bool:
    """True where experts are spread whole: as the recipe has it on one host, and beside data parallelism."""
    ranks = sizes["tensor_parallel"] * sizes["data_parallel"]
    recipe = len(devices) == 1 and model.get("precision") == "fp8" and sizes["pipeline_parallel"] == 1
    known = model["architecture"].get("experts", 0) > 0 and release(version) >= EXPERTS_SINCE
    return known and ranks > 1 and (recipe or sizes["data_parallel"] > 1)


def _form(version: str, devices: list[int], sizes: dict[str, int], arguments: list[str] | tuple) -> tuple[str, str]:
    page = "vLLM docs/serving/parallelism_scaling.md"
    if len(devices) == 1:
        if sizes["data_parallel"] > 1:
            return "single", "data parallel engines on one host (vLLM docs/serving/data_parallel_deployment.md)"
        return "single", f"tensor parallel over the devices of the host ({page})"
    if sizes["data_parallel"] > 1:
        return "data_parallel", "whole engines on each host (vLLM docs/serving/data_parallel_deployment.md)"
    if option(arguments, (EXECUTOR,)) == "ray":
        return "ray", f"over Ray, as llm_engine_args says ({page})"
    if release(version) < MULTI_NODE_SINCE:
        return "ray", f"over Ray: {version} spans hosts in no other way ({page} of the release)"
    return "mp", f"tensor parallel within a host, pipeline parallel over hosts ({page})"


def _flags(plan: dict, arguments: list[str]) -> list[str]:
    version, model = release(plan["engine"]["version"]), plan["model"]
    flags = ["--dtype", model["dtype"], "--gpu-memory-utilization", str(plan["engine"]["memory_share"])]
    if version < OWN_ARCHITECTURE_SINCE and option(arguments, ("--trust-remote-code",)) is None:
        flags.append("--trust-remote-code")
    if model["precision"] == "int8" and option(arguments, ("--hf-overrides",)) is None:
        flags += ["--hf-overrides", json.dumps(INT8_CONFIG, separators=(",", ":"))]
    if thinks(model):
        old = version < REASONING_PARSER_ALONE_SINCE and option(arguments, ("--enable-reasoning",)) is None
        flags += ["--enable-reasoning"] if old else []
        flags += [] if option(arguments, ("--reasoning-parser",)) is not None else ["--reasoning-parser", "deepseek_r1"]
    return flags


def thinks(model: dict) -> bool:
    """True for a model that writes its reasoning before the answer."""
    return model["id"].startswith("deepseek-r1")


def _environment(plan: dict, group: dict, node: dict) -> dict[str, str]:
    version = release(plan["engine"]["version"])
    env = {"VLLM_CACHE_ROOT": f"{node['run_dir']}/work/cache/vllm"}
    if version >= READY_TIMEOUT_SINCE and "start_timeout" in plan:
        # Its default of 600 s is less than large weights take to load.
        env["VLLM_ENGINE_READY_TIMEOUT_S"] = str(plan["start_timeout"])
    oldest, newest = FLASHINFER_MOE_FP8
    if plan["model"]["precision"] == "fp8" and node.get("family") == "nvidia_hopper" and oldest <= version <= newest:
        env["VLLM_USE_FLASHINFER_MOE_FP8"] = "1"  # vllm-project/recipes, DeepSeek-R1: on Hopper
    if group["parallel"]["form"] == "ray":
        env["RAY_USAGE_STATS_ENABLED"] = "0"
        # Attempts, about one a second, of a worker to find its head, whose Ray starts at the same moment. Ray's own 20
        # (ray/_private/ray_constants.py) may end before the head listens.
        env["RAY_NUM_REDIS_GET_RETRIES"] = "300"
    return env


def _ports(plan: dict, group: dict, node: dict) -> dict[int, str]:
    if not vllm_serve.has_api(group, node):
        return {}
    between = {"mp": vllm_serve.MASTER, "data_parallel": vllm_serve.RPC, "ray": vllm_serve.RAY}
    ports = {plan["serving"]["port"]: "API"}
    what = between.get(group["parallel"]["form"])
    return {**ports, plan["engine"]["group_ports"][what]: what} if what else ports


def _notes(plan: dict, group: dict, node: dict, arguments: list[str]) -> list[str]:
    version, precision = plan["engine"]["version"], plan["model"]["precision"]
    notes = []
    if precision == "fp8" and node.get("family") in WITHOUT_FP8:
        notes.append("FP8 weights on GPUs without FP8 arithmetic: weight-only W8A16 through Marlin (vLLM fp8 page)")
    if precision == "fp8" and node.get("family") == "nvidia_hopper" and release(version) > FLASHINFER_MOE_FP8[1]:
        notes.append(
            f"VLLM_USE_FLASHINFER_MOE_FP8 of the recipe is left out: vllm {version} does not know it; --moe-backend "
            "takes its place and chooses by itself"
        )
    if precision == "int8" and option(arguments, ("--hf-overrides",)) is None:
        notes.append(
            "the INT8 weights do not say their format; vLLM is told it by --hf-overrides. Their publisher names "
            "SGLang alone: hold the first answers against known ones"
        )
    if group["parallel"]["form"] == "ray" and release(version) > WITH_RAY_UNTIL:
        notes.append(f"the vllm {version} package no longer brings Ray: the image has to have it")
    if precision == "fp8" and release(version) < EXPERTS_SINCE:
        notes.append(f"vllm {version} cannot spread experts whole: they are cut by tensor parallelism")
    return notes


def _ray_head(plan: dict, node: dict) -> list[str]:
    port = plan["engine"]["group_ports"][vllm_serve.RAY]
    return [*_ray_start(node), "--head", "--port", str(port), "--include-dashboard", "false"]


def _ray_worker(plan: dict, group: dict, node: dict) -> list[str]:
    port = plan["engine"]["group_ports"][vllm_serve.RAY]
    return [*_ray_start(node), "--address", f"{vllm_serve.head_of(group)['address']}:{port}", "--block"]


def _ray_start(node: dict) -> list[str]:
    return [
        "ray",
        "start",
        "--node-ip-address",
        node["address"],
        "--num-gpus",
        str(node["devices"]),
        "--object-store-memory",
        str(RAY_OBJECT_STORE_BYTES),
    ]


def _as_chosen(group: dict, arguments: list[str]) -> tuple[dict, list[str]]:
    """Return the group in the form that llm_engine_args choose, and these without the flag that the form names."""
    form = group["parallel"]["form"]
    if form not in ("mp", "ray"):
        return group, arguments
    form = option(arguments, (EXECUTOR,)) or form
    rest = vllm_serve.without(arguments, frozenset({EXECUTOR}))
    return dict(group, parallel=dict(group["parallel"], form=form)), rest


def _plainness(found: dict[str, int], devices: list[int]) -> tuple:
    """Return what orders splits, the usual one first: one engine, tensor parallel within each host, few stages."""
    return (found["data_parallel"], abs(found["tensor_parallel"] - devices[0]), found["pipeline_parallel"])


def _distance(wanted: dict[str, int], found: dict[str, int]) -> tuple:
    """Return how far ``found`` is from what is wanted: how many sizes differ, by how much, how plain it is."""
    off = [name for name, size in wanted.items() if found[name] != size]
    ratio = sum(abs(math.log(found[name] / wanted[name])) for name in off)
    return (len(off), round(ratio, 6), found["data_parallel"], found["pipeline_parallel"])


def _written(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _machines(devices: list[int]) -> str:
    return f"{len(devices)} x {devices[0]} devices"
