# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vLLM-Ascend: DeepSeek on Atlas A2 and A3 servers, data parallel over the nodes. Pure.

Each release is launched as its own tutorial launches it, named in ``RECIPES``; what a release reads and what it ignores
is from the source of that release (packages vllm-ascend and vllm of the same version). HCCL's variables that say where
a rank is reached are communication.py's.
"""

from __future__ import annotations

import difflib
import json

from ..catalog.releases import RELEASES
from ..errors import LlmError
from . import containers, vllm_serve

_OLD_TUTORIAL = "vllm-project/vllm-ascend:docs/source/tutorials/multi_node.md"
_R1_TUTORIAL = "vllm-project/vllm-ascend:docs/source/tutorials/models/DeepSeek-R1.md, validated on v0.13.0"
_TORCHAIR = {"ascend_scheduler_config": {"enabled": True}, "torchair_graph_config": {"enabled": True}}
# mtp: DeepSeek's own layer for guessing the next tokens; the quantized set of vllm-ascend has it
# (tests/e2e/nightly/multi_node/config/DeepSeek-R1-W8A8-A2.yaml runs DeepSeek-R1-0528-W8A8 with it on two A2).
_MTP = {"num_speculative_tokens": 3, "method": "mtp"}
_FULL_DECODE = {"cudagraph_mode": "FULL_DECODE_ONLY"}

# What each release's tutorial adds to the sizes and addresses. `additional`, `speculative` and `compilation` are the
# values of --additional-config, --speculative-config and --compilation-config; `buffer` is HCCL_BUFFSIZE in MB for
# groups of several nodes; `waits` says that the release reads VLLM_ENGINE_READY_TIMEOUT_S (vllm/envs.py: in 0.18.0 and
# 0.23.0, not in 0.9.1 to 0.13.0).
RECIPES: dict[str, dict] = {
    "0.9.1": {
        "source": f"{_OLD_TUTORIAL}@v0.9.1",
        "prefix_caching": False,
        "additional": _TORCHAIR,
        "speculative": {},
        "compilation": {},
        # vLLM 0.9.1 falls back to V0 on anything but CUDA unless it is told otherwise (vllm/engine/arg_utils.py), and
        # graphs are V1's alone (vllm_ascend/ascend_config.py, check_ascend_config).
        "env": {"VLLM_USE_V1": "1", "OMP_NUM_THREADS": "100"},
        "buffer": 1024,
        "waits": False,
    },
    "0.11.0": {
        "source": f"{_OLD_TUTORIAL}, as of v0.11.0",
        "prefix_caching": False,
        "additional": _TORCHAIR,
        "speculative": {},
        "compilation": {},
        # 0 would be refused (vllm_ascend/platform.py).
        "env": {"VLLM_USE_V1": "1", "OMP_NUM_THREADS": "100"},
        "buffer": 1024,
        "waits": False,
    },
    "0.13.0": {
        "source": _R1_TUTORIAL,
        "prefix_caching": True,
        "additional": {},
        "speculative": _MTP,
        "compilation": _FULL_DECODE,
        "env": {"OMP_NUM_THREADS": "1", "VLLM_ASCEND_BALANCE_SCHEDULING": "1"},
        "buffer": 200,
        "waits": False,
    },
    "0.18.0": {
        "source": _R1_TUTORIAL,
        "prefix_caching": True,
        "additional": {},
        "speculative": _MTP,
        "compilation": _FULL_DECODE,
        "env": {"OMP_NUM_THREADS": "1", "VLLM_ASCEND_BALANCE_SCHEDULING": "1"},
        "buffer": 200,
        "waits": True,
    },
    "0.23.0": {
        "source": _R1_TUTORIAL,
        "prefix_caching": True,
        # The variable is deprecated in this release in favour of the key (vllm_ascend/envs.py).
        "additional": {"enable_balance_scheduling": True},
        "speculative": _MTP,
        "compilation": _FULL_DECODE,
        "env": {"OMP_NUM_THREADS": "1"},
        "buffer": 200,
        "waits": True,
    },
}

# What a release reads of --additional-config, from its source; of any other key it says nothing.
KNOWN_KEYS = {
    "0.9.1": [
        "ascend_scheduler_config", "dynamic_eplb", "enable_cpu_binding", "enable_prefill_optimizations",
        "enable_weight_nz_layout", "expert_map_path", "gate_eplb", "lmhead_tp_size", "num_iterations_eplb_update",
        "num_wait_worker_iterations", "refresh", "torchair_graph_config",
    ],
    "0.11.0": [
        "ascend_scheduler_config", "chunked_prefill_for_mla", "dynamic_eplb", "enable_cpu_binding",
        "enable_shared_expert_dp", "eplb_policy_type", "expert_map_path", "expert_map_record_path", "gate_eplb",
        "init_redundancy_expert", "kv_cache_dtype", "lmhead_tensor_parallel_size", "multistream_overlap_shared_expert",
        "num_iterations_eplb_update", "num_wait_worker_iterations", "oproj_tensor_parallel_size",
        "recompute_scheduler_enable", "refresh", "torchair_graph_config", "weight_prefetch_config",
    ],
    "0.13.0": [
        "SLO_limits_for_dynamic_batch", "ascend_compilation_config", "dump_config_path", "dynamic_eplb",
        "enable_async_exponential", "enable_cpu_binding", "enable_kv_nz", "enable_npugraph_ex",
        "enable_shared_expert_dp", "eplb_config", "eplb_policy_type", "expert_map_path", "expert_map_record_path",
        "finegrained_tp_config", "gate_eplb", "init_redundancy_expert", "layer_sharding", "mix_placement",
        "multistream_overlap_gate", "multistream_overlap_shared_expert", "num_iterations_eplb_update",
        "num_wait_worker_iterations", "pa_shape_list", "recompute_scheduler_enable", "refresh",
        "weight_prefetch_config", "xlite_graph_config",
    ],
    "0.18.0": [
        "SLO_limits_for_dynamic_batch", "ascend_compilation_config", "ascend_fusion_config", "dump_config_path",
        "enable_async_exponential", "enable_cpu_binding", "enable_kv_nz", "enable_mc2_hierarchy_comm",
        "enable_shared_expert_dp", "enable_sparse_c8", "eplb_config", "finegrained_tp_config", "layer_sharding",
        "multistream_overlap_gate", "multistream_overlap_shared_expert", "pa_shape_list", "recompute_scheduler_enable",
        "refresh", "weight_prefetch_config", "xlite_graph_config",
    ],
    "0.23.0": [
        "SLO_limits_for_dynamic_batch", "ascend_compilation_config", "ascend_fusion_config", "ascend_log_path",
        "c8_enable_reshape_optim", "dp_allreduce_on_npu", "dump_config", "dump_config_path",
        "enable_async_exponential", "enable_balance_scheduling", "enable_cpu_binding", "enable_dsa_cp",
        "enable_flashcomm1", "enable_flashcomm2_parallel_size", "enable_fused_mc2", "enable_hamming_sparse",
        "enable_kv_nz", "enable_matmul_allreduce", "enable_mc2_hierarchy_comm", "enable_mlapo", "enable_prefill_mc2",
        "enable_reduce_sample", "enable_shared_expert_dp", "enable_sleep_mode_extra_cleanup", "enable_sparse_li_c8",
        "enable_sparse_sfa_c8", "enable_transpose_kv_cache_by_block", "eplb_config", "finegrained_tp_config",
        "hamming_sparse", "layer_sharding", "mega_moe_max_tokens", "mix_placement", "msmonitor_use_daemon",
        "multistream_dsv4_dsa_overlap", "multistream_overlap_gate", "multistream_overlap_shared_expert",
        "pa_shape_list", "profiling_chunk_config", "recompute_scheduler_enable", "refresh", "rejection_sampler_config",
        "weight_nz_mode", "weight_prefetch_config", "xlite_graph_config",
    ],
}  # fmt: skip
# The same for what stands in torchair_graph_config.
KNOWN_TORCHAIR_KEYS = {
    "0.9.1": [
        "enable_kv_nz", "enable_multistream_mla", "enable_multistream_moe", "enable_super_kernel",
        "enable_view_optimize", "enabled", "graph_batch_sizes", "graph_batch_sizes_init", "use_cached_graph",
        "use_cached_kv_cache_bytes",
    ],
    "0.11.0": [
        "enable_frozen_parameter", "enable_kv_nz", "enable_multistream_mla", "enable_super_kernel",
        "enable_view_optimize", "enabled", "graph_batch_sizes", "graph_batch_sizes_init", "mode", "use_cached_graph",
        "use_cached_kv_cache_bytes",
    ],
}  # fmt: skip
# Keys that people carry along from another release, and what became of them.
_GONE = {
    "ascend_scheduler_config": "removed with 0.12; vLLM's own scheduler serves",
    "torchair_graph_config": "removed with 0.12; ACL graphs took its place, see --compilation-config",
    "lmhead_tp_size": "lmhead_tensor_parallel_size in 0.11, finegrained_tp_config after it",
    "lmhead_tensor_parallel_size": "lmhead_tp_size in 0.9.1, finegrained_tp_config from 0.13 on",
    "enable_multistream_moe": "multistream_overlap_shared_expert from 0.11 on",
    "scheduler_config": "enable_balance_scheduling stands by itself in 0.23.0",
}
# Graphs of MLA take these many heads on a device (vllm-ascend, faqs.md; issues 1451 and 1643 for DeepSeek on 0.9).
_HEADS_OF_TORCHAIR = (32, 64, 128)
# dp4tp4 is what every tutorial takes for 16 devices; that of R1 advises it over dp2tp8.
_TENSOR = 4
# Tokens in one step, of every tutorial.
_TOKENS = 4096

OWNED = vllm_serve.OWNED | {"--quantization", "-q", "--distributed-executor-backend"}
_CONFIG = "--additional-config"
_COMPILATION = ("--compilation-config", "-cc", "-O")

# In the image, whatever the host's prefix is.
_DRIVER = "/usr/local/Ascend/driver"
_TOOLKITS = ["/usr/local/Ascend/ascend-toolkit/set_env.sh", "/usr/local/Ascend/cann/set_env.sh"]
_NNAL = ["/usr/local/Ascend/nnal/atb/set_env.sh"]


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse settings that this engine or this release does not have."""
    version = deployment["llm_engine_version"]
    for node in nodes:
        _check_family(node, version)
    vllm_serve.refuse_keys(deployment)
    arguments = deployment.get("llm_engine_args", [])
    vllm_serve.refuse_owned(arguments, OWNED)
    _check_config(arguments, version)


def parallel(model: dict, version: str, devices: list[int], wanted: dict[str, int], **_about: object) -> dict:
    """Return the sizes: tensor parallelism within a node, data parallelism over everything, experts over all devices.

    :raises LlmError: for sizes that do not fit the devices, the model's heads and experts, or the release
    """
    each, total = devices[0], sum(devices)
    _check_experts(model["architecture"].get("experts", 0), each, total, version)
    possible = _tensors(model, version, each)
    tensor = _tensor(total, wanted, possible)
    if tensor not in possible:
        found = f"tensor_parallel {tensor}" if tensor else f"{model['architecture']['heads']} heads"
        raise _refusal(model, version, each, found, possible, total)
    data = total // tensor
    if wanted.get("pipeline_parallel", 1) != 1:
        raise _refusal(model, version, each, f"pipeline_parallel {wanted['pipeline_parallel']}", possible, total)
    if wanted.get("data_parallel", data) != data:
        raise _refusal(
            model, version, each, f"tensor_parallel {tensor}, data_parallel {wanted['data_parallel']}", possible, total
        )
    return {
        "tensor_parallel": tensor,
        "pipeline_parallel": 1,
        "data_parallel": data,
        "data_parallel_local": each // tensor,
        "expert_parallel": model["architecture"].get("experts", 0) > 0,
        "form": "single" if len(devices) == 1 else "data_parallel",
        "why": _why(version, tensor, data, wanted),
    }


def loads_mtp(version: str, precision: str) -> bool:
    """True where the layer that guesses further tokens is loaded beside the model."""
    return bool(RECIPES[version]["speculative"]) and precision != "bfloat16"


def communication(plan: dict, group: dict) -> dict[str, str]:
    """Return the variables of HCCL that the release's tutorial sets beside where a rank is reached."""
    version, family = plan["engine"]["version"], group["nodes"][0].get("family", "")
    old = "torchair_graph_config" in KNOWN_KEYS[version]
    found = {}
    if old or len(group["nodes"]) > 1:
        found["HCCL_BUFFSIZE"] = str(RECIPES[version]["buffer"])
    if not old and family == "ascend_a3":
        found["HCCL_OP_EXPANSION_MODE"] = "AIV"
    if not old and family == "ascend_a2" and len(group["nodes"]) > 1:
        found.update(HCCL_INTRA_PCIE_ENABLE="1", HCCL_INTRA_ROCE_ENABLE="0")
    return found


def launch(plan: dict, group: dict, node: dict) -> dict:
    """Return the LaunchSpec of ``node``."""
    version, serving = plan["engine"]["version"], plan["serving"]
    _check_family(node, version)
    recipe = RECIPES[version]
    flags, notes = _flags(plan, recipe)
    env = {
        **recipe["env"],
        "OMP_PROC_BIND": "false",
        # Against memory that is free but in pieces too small (vllm-ascend, faqs.md, and the tutorial of R1).
        "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
        "ASCEND_PROCESS_LOG_PATH": f"{node['run_dir']}/logs/ascend",
    }
    if recipe["waits"]:
        env["VLLM_ENGINE_READY_TIMEOUT_S"] = str(plan["start_timeout"])
    else:
        notes.append(f"vLLM {version} does not read VLLM_ENGINE_READY_TIMEOUT_S: how long it waits cannot be set")
    api = vllm_serve.has_api(group, node)
    return containers.spec(
        node,
        vllm_serve.command(plan, group, node, flags=tuple(flags)),
        env=env,
        secret_env=["VLLM_API_KEY"] if api and serving["api_keys"] else [],
        env_scripts=env_scripts(version),
        devices=device_files(node),
        mounts=driver_mounts(node),
        ports=_ports(plan, group) if api else {},
        port=serving["port"] if api else 0,
        readiness={"url": f"http://{node['address']}:{serving['port']}/health" if api else "", "log": ""},
        logs=[f"{node['run_dir']}/logs/engine.log", f"{node['run_dir']}/logs/ascend"],
        probe_devices=["/dev/davinci_manager"],
        notes=notes,
    )


def device_files(node: dict) -> list[str]:
    """Return the device files of a node's NPUs and those that all of them need."""
    return [f"/dev/davinci{number}" for number in node["device_ids"]] + [
        "/dev/davinci_manager",
        "/dev/devmm_svm",
        "/dev/hisi_hdc",
    ]


def driver_mounts(node: dict) -> list[dict]:
    """Return what the image lacks of the host's driver, and what it tells about the NPUs' network; all read-only.

    The image looks for the driver below /usr/local/Ascend and for npu-smi in /usr/local/bin, wherever the host has
    them.
    """
    driver = f"{node['driver_dir'].rstrip('/')}/driver"
    return [
        containers.mount("/usr/local/dcmi"),
        containers.mount(node["npu_smi"], "/usr/local/bin/npu-smi"),
        containers.mount(f"{driver}/lib64", f"{_DRIVER}/lib64"),
        containers.mount(f"{driver}/version.info", f"{_DRIVER}/version.info"),
        containers.mount(f"{driver}/tools/hccn_tool", f"{_DRIVER}/tools/hccn_tool"),
        containers.mount("/etc/ascend_install.info"),
        containers.mount("/etc/hccn.conf"),
    ]


def env_scripts(version: str) -> list[list[str]]:
    """Return the scripts of CANN and its libraries: from 8.5 on the toolkit may lie in a folder named cann."""
    release = RELEASES["vllm_ascend"][version]
    major, minor = (int(part) for part in release["cann"].split(".")[:2])
    return [_TOOLKITS if (major, minor) >= (8, 5) else _TOOLKITS[:1], _NNAL]


def _check_family(node: dict, version: str) -> None:
    """Refuse a node whose NPUs this release has no build for; one whose NPUs are not known is left to preflight."""
    known, family = RELEASES["vllm_ascend"][version]["families"], node.get("family", "")
    if not family or family in known:
        return
    duo = family == "ascend_310p"
    raise LlmError(
        f"{node['host']}: vllm_ascend {version} does not serve this model on its NPUs",
        wanted=" or ".join(known)
        + (" (its makers list no DeepSeek among the models of the Atlas 300I Duo)" if duo else ""),
        found=f"{family} ({node.get('chip') or 'as declared'})",
        remedy="set llm_engine: vllm_mindspore and take a model in its format" if duo else "set llm_engine_version",
    )


def _check_experts(experts: int, each: int, total: int, version: str) -> None:
    """Refuse devices that the experts cannot be divided by: a rank takes experts // devices, and none takes the rest.

    0.13 to 0.23 fail on parts of unequal length (vllm_ascend/eplb/core/eplb_utils.py, generate_global_placement); the
    older ones count with equal parts (vllm_ascend/ops/fused_moe.py@0.9.1, torchair/ops/torchair_fused_moe.py@0.11.0).
    """
    if experts % total == 0:
        return
    nodes = [count for count in range(1, experts // each + 1) if experts % (count * each) == 0]
    raise LlmError(
        f"vllm_ascend {version} cannot divide the model's {experts} experts evenly by {total} NPUs",
        wanted=f"a replica group of {', '.join(str(count) for count in nodes) or 'other'} nodes of {each} NPUs",
        found=f"{total // each} nodes",
        remedy="add hosts to the group or take some out, or make several groups replica_*",
    )


def _tensors(model: dict, version: str, each: int) -> list[int]:
    """Return the tensor parallel sizes that fit in a node and divide the model's heads as the release needs it."""
    heads = model["architecture"]["heads"]
    fitting = [size for size in range(1, each + 1) if each % size == 0 and heads % size == 0]
    if version == "0.9.1":
        return [size for size in fitting if heads // size in _HEADS_OF_TORCHAIR]
    return fitting


def _tensor(total: int, wanted: dict[str, int], possible: list[int]) -> int:
    """Return the tensor parallel size that is asked for, follows from what is asked for, or is the best known."""
    if "tensor_parallel" in wanted:
        return wanted["tensor_parallel"]
    if "data_parallel" in wanted and total % wanted["data_parallel"] == 0:
        return total // wanted["data_parallel"]
    return max((size for size in possible if size <= _TENSOR), default=0)


def _refusal(model: dict, version: str, each: int, found: str, possible: list[int], total: int) -> LlmError:
    """Return the error for sizes that do not work, with the reason and the sizes that do."""
    heads = model["architecture"]["heads"]
    reason = (
        f"tensor parallelism stays within a node of {each} NPUs and divides the model's {heads} heads, there is no "
        f"pipeline, and tensor x data is {total}"
    )
    if version == "0.9.1":
        reason += (
            "; in 0.9.1 torchair graphs of MLA take 32, 64 or 128 heads on a device, that is tensor_parallel up to 4"
        )
    return LlmError(
        f"vllm_ascend {version} cannot spread this model like that: {reason}",
        wanted=", or ".join(f"tensor_parallel {size} with data_parallel {total // size}" for size in reversed(possible))
        or "a model whose heads can be divided so",
        found=found,
        remedy="remove llm_parallel, or set it to one of these" if possible else "take another llm_engine_version",
    )


def _why(version: str, tensor: int, data: int, wanted: dict[str, int]) -> str:
    if wanted:
        return f"llm_parallel; the release's tutorial has tensor {_TENSOR} ({RECIPES[version]['source']})"
    return f"data {data} x tensor {tensor} within the nodes, as the tutorial advises ({RECIPES[version]['source']})"


def _check_config(arguments: list[str], version: str) -> None:
    """Refuse an --additional-config of which the release would ignore a part, or with which it cannot run."""
    for flag in arguments:
        written = flag.split("=", 1)[0].replace("_", "-")
        if written != _CONFIG and vllm_serve.owned_name(flag, frozenset({_CONFIG})):
            raise LlmError(
                f"llm_engine_args sets {_CONFIG} in a form that is not checked",
                wanted=f"{_CONFIG} and one JSON object",
                found=flag.split("=", 1)[0],
                remedy="write all of it as one JSON object",
            )
    text = vllm_serve.value_of(arguments, _CONFIG)
    given = None if text is None else _parsed(text)
    eager = vllm_serve.value_of(arguments, "--enforce-eager") is not None
    if given is not None:
        _check_keys(given, KNOWN_KEYS[version], _CONFIG, version)
        if "torchair_graph_config" in given:
            inner = given["torchair_graph_config"]
            _check_keys(
                inner if isinstance(inner, dict) else {}, KNOWN_TORCHAIR_KEYS[version], "torchair_graph_config", version
            )
        _check_graphs(given, eager, version)


def _parsed(text: str) -> dict:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise LlmError(
            f"{_CONFIG} in llm_engine_args is no JSON object",
            wanted="such as '{\"enable_cpu_binding\": true}'",
            found=text[:120] or "nothing",
            remedy="correct llm_engine_args",
        )
    return value


def _check_keys(given: dict, known: list[str], where: str, version: str) -> None:
    for key in given:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1)
        raise LlmError(
            f"vllm_ascend {version} ignores {key} in {where} without a word",
            wanted="keys that it reads: " + ", ".join(known),
            found=key + (f" ({_GONE[key]})" if key in _GONE else ""),
            remedy=f"did you mean {near[0]}?" if near else f"remove {key} from llm_engine_args",
        )


def _check_graphs(given: dict, eager: bool, version: str) -> None:
    """Refuse what check_ascend_config of 0.9.1 and 0.11.0 ends with an exception on every node."""
    if version not in KNOWN_TORCHAIR_KEYS:
        return
    inner = given.get("torchair_graph_config")
    torchair = isinstance(inner, dict) and bool(inner.get("enabled"))
    if torchair and eager:
        raise LlmError(
            f"vllm_ascend {version} cannot compile graphs and be eager at once",
            wanted="torchair_graph_config or --enforce-eager",
            found="both in llm_engine_args",
            remedy="remove one of them",
        )
    if version == "0.9.1" and not torchair and not eager:
        raise LlmError(
            "vllm_ascend 0.9.1 has no ACL graphs for DeepSeek",
            wanted='"torchair_graph_config": {"enabled": true} in --additional-config, or --enforce-eager',
            found="neither in llm_engine_args",
            remedy="add one of them, or remove --additional-config to take the plan's",
        )


def _flags(plan: dict, recipe: dict) -> tuple[list[str], list[str]]:
    """Return the flags of the release's tutorial, less those that the user gives, and notes of what was left out."""
    serving, version = plan["serving"], plan["engine"]["version"]
    arguments, notes = serving["engine_args"], []
    quantized = plan["model"]["precision"] != plan["model"]["dtype"]
    eager = vllm_serve.value_of(arguments, "--enforce-eager") is not None
    additional, speculative, compilation = (
        recipe["additional"],
        recipe["speculative"] if quantized else {},
        {} if eager else recipe["compilation"],
    )
    if eager and "torchair_graph_config" in additional:
        additional = {key: value for key, value in additional.items() if key != "torchair_graph_config"}
    if recipe["speculative"] and not quantized:
        notes.append(
            "no speculative decoding: the tutorial has it for the quantized weights, and whether these have the layer "
            "for it is not known; --speculative-config in llm_engine_args adds it"
        )
    if eager:
        notes.append("--enforce-eager in llm_engine_args: the plan's graphs are left out")
    if "enable_balance_scheduling" in additional:
        notes.append(
            f"balance scheduling is set in {_CONFIG}: VLLM_ASCEND_BALANCE_SCHEDULING is deprecated in {version}"
        )
    offered: list[tuple[tuple[str, ...], list[str]]] = [
        (("--seed",), ["--seed", "1024"]),
        (("--trust-remote-code",), ["--trust-remote-code"]),
        (("--max-num-batched-tokens",), ["--max-num-batched-tokens", str(_tokens(serving, additional))]),
        # What the plan's arithmetic of memory counts with.
        (("--gpu-memory-utilization",), ["--gpu-memory-utilization", str(plan["engine"]["memory_share"])]),
        (("--enable-prefix-caching",), [] if recipe["prefix_caching"] else ["--no-enable-prefix-caching"]),
        (("--speculative-config",), ["--speculative-config", _json(speculative)] if speculative else []),
        (_COMPILATION, ["--compilation-config", _json(compilation)] if compilation else []),
        ((_CONFIG,), [_CONFIG, _json(additional)] if additional else []),
    ]
    flags = ["--quantization", "ascend"] if quantized else []
    for names, offer in offered:
        given = next((flag.split("=", 1)[0] for flag in arguments if _sets(flag, names)), "")
        if given and offer:
            notes.append(f"llm_engine_args sets {given}: the plan's {' '.join(offer)} is left out")
        flags += [] if given else offer
    return flags, notes


def _tokens(serving: dict, additional: dict) -> int:
    """Return the tokens of one step: a whole prompt's where the scheduler cannot take a prompt in parts.

    The tutorials of 0.9.1 and 0.11.0 have 4096 beside a longer --max-model-len, which the scheduler that they switch on
    refuses at the start (vllm_ascend/core/schedule_config.py of both, AscendSchedulerConfig.__post_init__).

    :param additional: the plan's --additional-config; one in llm_engine_args goes before it
    """
    given = vllm_serve.value_of(serving["engine_args"], _CONFIG)
    scheduler = (additional if given is None else _parsed(given)).get("ascend_scheduler_config")
    whole = isinstance(scheduler, dict) and scheduler.get("enabled") and not scheduler.get("enable_chunked_prefill")
    return max(_TOKENS, serving["max_model_len"]) if whole else _TOKENS


def _sets(flag: str, names: tuple[str, ...]) -> bool:
    """True when ``flag`` sets the option of one of ``names``; -O takes its value without a blank."""
    return bool(vllm_serve.owned_name(flag, frozenset(names))) or ("-O" in names and flag.startswith("-O"))


def _json(value: dict) -> str:
    return json.dumps(value, separators=(",", ":"))


def _ports(plan: dict, group: dict) -> dict[int, str]:
    """Return {port: what} that the head listens on."""
    ports = {plan["serving"]["port"]: "API"}
    if group["parallel"]["form"] == "data_parallel":
        ports[plan["engine"]["group_ports"][vllm_serve.RPC]] = vllm_serve.RPC
    return ports
