# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vllm-mindspore: DeepSeek on Atlas 300I Duo and Atlas A2 servers, over a Ray cluster of the group's own. Pure.

What the vendor's env_main.sh, env_sub.sh and run_vllm.sh do by hand: the head starts Ray, waits until all NPUs have
joined and serves; the other nodes join and stay. The variables are in the container's environment, because Ray's
workers get what `ray start` was started with, and not what the engine's own command sets later.
"""

from __future__ import annotations

import json

from ..errors import LlmError
from . import containers, vllm_ascend, vllm_serve

DUO = "ascend_310p"
# mindspore-ai/vllm-mindspore:docs/model_cards_310p/deepseek/deepseek_r1_671b.md (branch of vLLM 0.9.1).
_CARD = "vllm-mindspore, docs/model_cards_310p/deepseek/deepseek_r1_671b.md"
# mindspore-lab/mindformers:research/deepseek3/deepseek_r1_671b/predict_deepseek_r1_61layers_tp4pp6.yaml, W8A8 in
# float16 with 41 GB a chip; the model card names its folder for the sizes it does not show itself.
_THREE = "mindformers, research/deepseek3/deepseek_r1_671b/predict_deepseek_r1_61layers_tp4pp6.yaml"
_A2 = "vllm-mindspore, tutorial deepseek_parallel: tensor parallelism over all NPUs of two Atlas 800I A2, by Ray"
# Chips in a group of 300I Duo: tensor, pipeline and where the vendor has published them.
_DUO_SIZES = {8: (8, 1, _CARD), 16: (8, 2, _CARD), 24: (4, 6, _THREE)}

# The plan decides the quantization by the weights' format. A seed may end the service: deployment guide of the 300I
# Duo, 5.2.
OWNED = vllm_serve.OWNED | {"--quantization", "-q", "--distributed-executor-backend", "--seed"}

# What the command vllm-mindspore sets before it starts (vllm_mindspore/scripts.py@0.5.1), for the processes that Ray
# starts beside it. HCCL's are in communication(). Not taken over: two misspelt names that nothing reads.
_ENVIRONMENT = {
    "USE_TORCH": "FALSE",
    "USE_TF": "FALSE",
    "CUSTOM_MATMUL_SHUFFLE": "on",
    "ASCEND_LAUNCH_BLOCKING": "0",
    "TE_PARALLEL_COMPILER": "0",
    "LCCL_DETERMINISTIC": "0",
    "MS_ENABLE_GRACEFUL_EXIT": "0",
    "MS_ENABLE_INTERNAL_BOOST": "on",
    "MS_ENABLE_LCCL": "off",
    "MS_JIT_MODULES": "vllm_mindspore,research",
    "GLOG_v": "3",
    "RAY_CGRAPH_get_timeout": "360",
    "MS_NODE_TIMEOUT": "180",
    "MS_DEV_RUNTIME_CONF": "graph_capture_max_number:19",
    "MS_ALLOC_CONF": "enable_vmm:true",
    # The name that 0.5.1 asks for; vLLM_MODEL_BACKEND, of the guides, is deprecated there (vllm_mindspore/utils.py).
    "VLLM_MS_MODEL_BACKEND": "MindFormers",
}
# What the model card adds for the 300I Duo. DISABLE_SHAPE_RESAHPE is spelt like that there.
_DUO_ENVIRONMENT = {
    "MS_ENABLE_INTERNAL_BOOST": "off",
    "MS_ENABLE_TRACE_MEMORY": "on",
    "DISABLE_SHAPE_RESAHPE": "on",
    "MS_DEV_RUNTIME_CONF": "only_local_comm:true",
    "MS_INTERNAL_ENABLE_CUSTOM_KERNEL_LIST": "AddRmsNorm,RmsNormQuant,InferenceSwiGLU,TransposeBatchMatmulTranspose",
}
# The model card, and the tutorial for A2: share of a device's memory, and tokens in one step.
_DUO_SHARE, _DUO_TOKENS = 0.8, 16384
_A2_SHARE, _A2_TOKENS = 0.9, 4096

WAIT_FILE = "wait_for_ray.py"
# As long as vLLM's own helper waits (vllm, examples/online_serving/multi-node-serving.sh).
WAIT_SECONDS = 300
# Ray takes 30 % of the memory, and goes to disk where /dev/shm is smaller; through it go only small messages here.
_OBJECT_STORE_BYTES = 4 * containers.GIB

# Runs in the container with its Python, 3.9 or newer. The part that knows Ray is the last function.
WAIT_SOURCE = '''"""Wait for a Ray cluster: for its head to listen, or for all of its accelerators to have joined."""

import socket
import sys
import time


def head(address, port, seconds):
    """Return once the head of the cluster accepts connections."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                sys.exit(f"no Ray at {address}:{port} after {seconds} s ({error}): see the log of the head's engine")
        time.sleep(1)


def cluster(address, port, resource, wanted, seconds, members):
    """Return once the cluster has `wanted` of `resource` and all members."""
    import ray

    until = time.monotonic() + seconds
    ray.init(address=f"{address}:{port}", log_to_driver=False)
    while True:
        joined = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        missing = [member for member in members if member not in joined]
        found = int(ray.cluster_resources().get(resource, 0))
        if found >= wanted and not missing:
            break
        if time.monotonic() > until:
            sys.exit(
                f"the Ray cluster has {found} of {wanted} {resource} after {seconds} s; "
                f"did not join: {', '.join(missing) or 'none, but some have too few'}"
            )
        time.sleep(1)
    ray.shutdown()
    print(f"the Ray cluster has {found} {resource} on {len(joined)} nodes", flush=True)


if __name__ == "__main__":
    what, at, seconds, *rest = sys.argv[1:]
    place, separator, number = at.rpartition(":")
    if what == "head":
        head(place, int(number), float(seconds))
    else:
        cluster(place, int(number), rest[0], int(rest[1]), float(seconds), rest[2:])
'''


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse settings that this engine does not have; ``nodes`` may be any hosts of one replica group."""
    vllm_serve.refuse_keys(deployment)
    arguments = deployment.get("llm_engine_args", [])
    if any(vllm_serve.owned_name(flag, frozenset({"--seed"})) for flag in arguments):
        raise LlmError(
            "vllm_mindspore does not support a seed: it may end the service",
            wanted="no --seed",
            found="--seed in llm_engine_args",
            remedy="remove --seed from llm_engine_args",
        )
    vllm_serve.refuse_owned(arguments, OWNED)


def parallel(
    model: dict, version: str, devices: list[int], wanted: dict[str, int], family: str = "", **_about: object
) -> dict:
    """Return the sizes: tensor and pipeline, over Ray where there are several nodes.

    :param family: of the NPUs; on the 300I Duo, which has no network of its own, tensor parallelism stays in a node.
        Where it is not known they are taken for that, unless the sizes wanted say otherwise: launch() looks again
    :raises LlmError: for sizes that do not fit the devices or the model
    """
    each, total = devices[0], sum(devices)
    heads, layers = model["architecture"]["heads"], model["architecture"]["layers"]
    possible = [
        (size, total // size)
        for size in range(total, 0, -1)
        if total % size == 0
        and heads % size == 0
        and total // size <= layers
        and (each % size == 0 or size % each == 0)
        and not (family == DUO and size > each)
    ]
    tensor, pipeline, source = _published(family, total, possible)
    if "tensor_parallel" in wanted or "pipeline_parallel" in wanted:
        tensor = wanted.get("tensor_parallel") or total // wanted["pipeline_parallel"]
        pipeline = wanted.get("pipeline_parallel") or total // tensor
    if (tensor, pipeline) not in possible or wanted.get("data_parallel", 1) != 1:
        raise _refusal(version, heads, total, each, (tensor, pipeline), possible, family)
    return {
        "tensor_parallel": tensor,
        "pipeline_parallel": pipeline,
        "data_parallel": 1,
        "data_parallel_local": 1,
        "expert_parallel": False,
        "form": "single" if len(devices) == 1 else "ray",
        "why": _why(tensor, pipeline, source, _published(family, total, possible)),
    }


def communication(_plan: dict, group: dict) -> dict[str, str]:
    """Return HCCL's variables: those of the engine's own command, for the processes that Ray starts beside it."""
    return {
        "HCCL_DETERMINISTIC": "false",
        "HCCL_EXEC_TIMEOUT": "7200",
        # AI_CPU: docs/model_cards_310p/qwen/qwen3-32b.md, for the 300I Duo; AIV is what scripts.py has for all.
        "HCCL_OP_EXPANSION_MODE": "AI_CPU" if _is_duo(group) else "AIV",
    }


def launch(plan: dict, group: dict, node: dict) -> dict:
    """Return the LaunchSpec of ``node``."""
    _check_local(group)
    serving, api = plan["serving"], vllm_serve.has_api(group, node)
    flags, notes = _flags(plan, group)
    alone = group["parallel"]["form"] == "single"
    launch_dir = f"{node['run_dir']}/launch"
    serve = vllm_serve.command(plan, group, node, program=("vllm-mindspore", "serve"), flags=tuple(flags))
    before = [] if alone else _before(plan, group, node, f"{launch_dir}/{WAIT_FILE}")
    ports = {serving["port"]: "API"} if api else {}
    if api and not alone:
        ports[_ray_port(plan)] = vllm_serve.RAY
        notes.append("Ray listens on further ports: 10002 to 19999 for its workers, and some that it draws")
    if group["parallel"]["pipeline_parallel"] > 1:
        notes.append("pipeline parallelism is work in progress in the features list of vllm-mindspore")
    return containers.spec(
        node,
        serve if api else [*_join(plan, group, node), "--block"],
        before=before,
        env=_environment(plan, group, node),
        secret_env=["VLLM_API_KEY"] if api and serving["api_keys"] else [],
        env_scripts=[[f"/usr/local/Ascend/{folder}/set_env.sh" for folder in ("ascend-toolkit", "cann")]],
        # As the deployment guide of the 300I Duo runs the image; the files in launch are root's.
        user="0:0",
        devices=vllm_ascend.device_files(node),
        mounts=_mounts(group, node),
        files=[] if alone else [_wait_file()],
        ports=ports,
        port=serving["port"] if api else 0,
        readiness={
            "url": f"http://{node['address']}:{serving['port']}/health" if api else "",
            # ray/scripts/scripts.py@2.48.0, start
            "log": "" if api else r"Ray runtime started\.",
        },
        logs=[f"{node['run_dir']}/logs/engine.log", f"{node['run_dir']}/logs/ascend"],
        probe_devices=["/dev/davinci_manager"],
        notes=notes,
    )


def _is_duo(group: dict) -> bool:
    return group["nodes"][0].get("family", "") == DUO


def _published(family: str, total: int, possible: list[tuple[int, int]]) -> tuple[int, int, str]:
    """Return tensor, pipeline and source of the sizes that the vendor has for so many devices; zeros where none."""
    if family in ("", DUO):
        known = _DUO_SIZES.get(total, (0, 0, ""))
        return known if known[:2] in possible else (0, 0, "")
    return (total, 1, _A2) if (total, 1) in possible else (0, 0, "")


def _refusal(
    version: str,
    heads: int,
    total: int,
    each: int,
    found: tuple[int, int],
    possible: list[tuple[int, int]],
    family: str,
) -> LlmError:
    duo = ", and on the 300I Duo, whose chips have no network between nodes, within a node" if family == DUO else ""
    return LlmError(
        f"vllm_mindspore {version} cannot spread this model like that: tensor parallelism divides the model's {heads} "
        f"heads into whole nodes or parts of one of {each} NPUs{duo}; tensor x pipeline is {total}, data_parallel is 1",
        wanted=", or ".join(f"tensor_parallel {tensor} with pipeline_parallel {stages}" for tensor, stages in possible),
        found=f"tensor_parallel {found[0]}, pipeline_parallel {found[1]}" if found[0] else f"{total} NPUs, nothing set",
        remedy="set llm_parallel to one of these",
    )


def _why(tensor: int, pipeline: int, source: str, known: tuple[int, int, str]) -> str:
    if (tensor, pipeline) == known[:2]:
        return f"tensor {tensor} x pipeline {pipeline} ({source})"
    return f"llm_parallel: tensor {tensor} x pipeline {pipeline}, which nobody has published a run of" + (
        f"; the vendor's own is tensor {known[0]} x pipeline {known[1]} ({known[2]})" if known[0] else ""
    )


def _check_local(group: dict) -> None:
    """Refuse tensor parallelism over nodes on the 300I Duo, which the sizes' own check may not have known of."""
    each, tensor = group["nodes"][0]["devices"], group["parallel"]["tensor_parallel"]
    if _is_duo(group) and tensor > each:
        total = sum(node["devices"] for node in group["nodes"])
        raise LlmError(
            "tensor parallelism over nodes needs NPUs with a network of their own, which the 300I Duo does not have",
            wanted=f"tensor_parallel {each} with pipeline_parallel {total // each} ({_CARD})",
            found=f"tensor_parallel {tensor} over nodes of {each} chips each",
            remedy="set llm_parallel so",
        )


def _flags(plan: dict, group: dict) -> tuple[list[str], list[str]]:
    """Return the vendor's flags, less those that the user gives, and notes of what was left out."""
    arguments, duo = plan["serving"]["engine_args"], _is_duo(group)
    tokens, share = (_DUO_TOKENS, _DUO_SHARE) if duo else (_A2_TOKENS, _A2_SHARE)
    quantized = plan["model"]["precision"] != plan["model"]["dtype"]
    # Golden Stick made the sets of MindSpore-Lab; `ascend` is for those of ModelSlim
    # (vllm_mindspore/model_executor/layers/quantization/__init__.py@0.5.1).
    flags = ["--quantization", "golden-stick"] if quantized else []
    # The chip has no bfloat16 (vllm_mindspore/platforms/ascend.py, supported_dtypes).
    flags += ["--dtype", "float16"] if duo else []
    offered = [
        ["--trust-remote-code"],
        ["--max-num-batched-tokens", str(tokens)],
        ["--block-size", "128"],
        # Not more than the plan's arithmetic of memory counts with, nor than the vendor takes.
        ["--gpu-memory-utilization", str(min(share, plan["engine"]["memory_share"]))],
        *([["--no-enable-prefix-caching"]] if duo else []),
    ]
    notes = []
    for offer in offered:
        name = offer[0].replace("--no-", "--")
        given = next(
            (flag.split("=", 1)[0] for flag in arguments if vllm_serve.owned_name(flag, frozenset({name}))), ""
        )
        if given:
            notes.append(f"llm_engine_args sets {given}: the plan's {' '.join(offer)} is left out")
        else:
            flags += offer
    return flags, notes


def _environment(plan: dict, group: dict, node: dict) -> dict[str, str]:
    stages = group["parallel"]["pipeline_parallel"]
    env = {
        **_ENVIRONMENT,
        **(_DUO_ENVIRONMENT if _is_duo(group) else {}),
        "DEVICE_NUM_PER_NODE": str(node["devices"]),
        # As the NPUs are numbered in the container.
        "ASCEND_RT_VISIBLE_DEVICES": ",".join(str(number) for number in range(node["devices"])),
        "ASCEND_PROCESS_LOG_PATH": f"{node['run_dir']}/logs/ascend",
    }
    if stages > 1:
        env["VLLM_PP_LAYER_PARTITION"] = layers_of_stages(plan["model"]["architecture"]["layers"], stages)
    return env


def layers_of_stages(layers: int, stages: int) -> str:
    """Return how many layers each pipeline stage has, the first ones one more: 31,30 for 61 layers in two.

    The vendor has it so for two stages and for six (offset in its configurations). It must be said: vLLM gives the
    rest to other stages than MindFormers does (vllm/distributed/utils.py; mf_models/config.py, get_mf_offset).
    """
    base, rest = divmod(layers, stages)
    return ",".join(str(base + (stage < rest)) for stage in range(stages))


def _before(plan: dict, group: dict, node: dict, wait: str) -> list[list[str]]:
    """Return what runs to its end before the engine: on the head Ray and the wait for all, else that for the head."""
    address = f"{vllm_serve.head_of(group)['address']}:{_ray_port(plan)}"
    if not vllm_serve.has_api(group, node):
        return [["python3", wait, "head", address, str(WAIT_SECONDS)]]
    total = sum(member["devices"] for member in group["nodes"])
    start = ["ray", "start", "--head", "--port", str(_ray_port(plan)), "--include-dashboard", "false"]
    members = [member["address"] for member in group["nodes"]]
    return [
        start + _own(node),
        ["python3", wait, "cluster", address, str(WAIT_SECONDS), "NPU", str(total), *members],
    ]


def _join(plan: dict, group: dict, node: dict) -> list[str]:
    return ["ray", "start", "--address", f"{vllm_serve.head_of(group)['address']}:{_ray_port(plan)}", *_own(node)]


def _own(node: dict) -> list[str]:
    """Return what `ray start` is told of a node: guessing takes the default route's address and asks pyACL for NPUs."""
    return [
        "--node-ip-address",
        node["address"],
        "--resources",
        json.dumps({"NPU": node["devices"]}),
        "--object-store-memory",
        str(_OBJECT_STORE_BYTES),
        "--disable-usage-stats",
    ]


def _ray_port(plan: dict) -> int:
    return plan["engine"]["group_ports"][vllm_serve.RAY]


def _wait_file() -> dict:
    return {"name": WAIT_FILE, "content": WAIT_SOURCE, "mode": "0640", "owner": "0:0", "target": ""}


def _mounts(group: dict, node: dict) -> list[dict]:
    """Return vLLM-Ascend's mounts; the 300I Duo has no RoCE ports, and so neither their tool nor their file."""
    mounts = vllm_ascend.driver_mounts(node)
    if not _is_duo(group):
        return mounts
    return [mount for mount in mounts if not mount["source"].endswith(("hccn_tool", "hccn.conf"))]
