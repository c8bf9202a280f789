# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vLLM's CPU build: real vLLM on hosts without an accelerator.

In a virtual environment it serves on one host, in containers on several: with tensor parallelism over them, or with
data parallelism for models without experts.
"""

from __future__ import annotations

from ..errors import LlmError
from ..planning.memory import kv_bytes_per_token
from . import containers, vllm_serve

GIB = 1024**3
# Smallest cache that vLLM's VLLM_CPU_KVCACHE_SPACE (whole GiB) can ask for.
KV_CACHE_STEP = GIB
OWNED = vllm_serve.OWNED | {"--enforce-eager", "--compilation-config", "-cc"}
# The rotary kernel of vLLM's CPU build reads the strided views that MLA hands it as if they were contiguous: positions
# are lost and DeepSeek answers wrongly, fluently. Found by golden answers and then against the same operation in plain
# torch (0.32.0: errors of the size of the values for more than one token or head); the native one is right.
COMPILATION = '{"custom_ops": ["-rotary_embedding"]}'


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse what this engine cannot do; ``deployment`` has the settings, ``nodes`` the hosts of one replica group."""
    if len(nodes) != 1 and deployment.get("llm_runtime", "venv") == "venv":
        raise LlmError(
            "vllm_cpu serves on one host in a virtual environment",
            wanted="a replica group of one host, or llm_runtime: docker",
            found=f"{len(nodes)} hosts: " + ", ".join(node["host"] for node in nodes),
            remedy="put each host into a group replica_* of its own, or set llm_runtime and llm_image",
        )
    vllm_serve.refuse_keys(deployment)
    vllm_serve.refuse_owned(deployment.get("llm_engine_args", []), OWNED)


def parallel(model: dict, version: str, devices: list[int], wanted: dict[str, int], **_about: object) -> dict:
    """Return the split over hosts: one rank a host, tensor parallel unless data parallelism is asked for."""
    ranks = len(devices)
    sizes = {
        "tensor_parallel": wanted.get("tensor_parallel", 1 if wanted.get("data_parallel", 1) > 1 else ranks),
        "pipeline_parallel": wanted.get("pipeline_parallel", 1),
        "data_parallel": wanted.get("data_parallel", 1),
    }
    product = sizes["tensor_parallel"] * sizes["pipeline_parallel"] * sizes["data_parallel"]
    if (
        product != ranks
        or sizes["pipeline_parallel"] > 1
        or 1 not in (sizes["tensor_parallel"], sizes["data_parallel"])
    ):
        raise LlmError(
            "vllm_cpu runs one rank a host, all of them in one tensor or one data parallel group",
            wanted=f"llm_parallel: tensor_parallel {ranks} or data_parallel {ranks}",
            found=", ".join(f"{name} {size}" for name, size in sizes.items()),
            remedy="remove llm_parallel",
        )
    heads, experts = model["architecture"]["heads"], model["architecture"].get("experts", 0)
    if heads % sizes["tensor_parallel"]:
        raise LlmError(
            f"the model's {heads} attention heads cannot be spread over {sizes['tensor_parallel']} hosts",
            wanted=f"a divisor of {heads}",
            found=f"{sizes['tensor_parallel']} hosts in one replica group",
            remedy="take hosts out of the group, or make several groups replica_*",
        )
    if experts and sizes["data_parallel"] > 1:
        raise LlmError(
            f"vllm_cpu {version} cannot run experts data parallel",
            wanted="data_parallel 1, or a model without experts",
            # Seen with 0.32.0: it starts, and the first request ends in NotImplementedError of a collective.
            found=f"data_parallel {sizes['data_parallel']}, {experts} experts",
            remedy="remove data_parallel from llm_parallel",
        )
    form = "single" if ranks == 1 else "data_parallel" if sizes["data_parallel"] > 1 else "mp"
    why = {"single": "one host", "mp": "one rank a host", "data_parallel": "one engine a host"}[form]
    return {**sizes, "data_parallel_local": 1, "expert_parallel": False, "form": form, "why": why}


def memory(model: dict, weight_bytes: int, max_model_len: int, max_num_seqs: int, release: dict, sizes: dict) -> dict:
    """Return what one rank needs: rows {what, bytes, source}, their sum, and how many full-length requests fit."""
    per_token = kv_bytes_per_token(model)
    wanted = per_token * max_model_len * max_num_seqs
    cache = max(1, -(-wanted // KV_CACHE_STEP)) * KV_CACHE_STEP
    rows = [
        {
            "what": "weights",
            # Embeddings and norms are on every rank; counted as if all were spread, which is little for one host more.
            "bytes": -(-weight_bytes // sizes["tensor_parallel"]),
            "source": "lock of the weights, or the catalog",
        },
        {"what": "KV cache", "bytes": cache, "source": f"{per_token} bytes a token (MLA), rounded up to whole GiB"},
        {"what": "engine", "bytes": release["overhead_bytes"], "source": release["source"]},
    ]
    return {
        "rows": rows,
        "bytes": sum(row["bytes"] for row in rows),
        "kv_cache_bytes": cache,
        "kv_bytes_per_token": per_token,
        "full_length_requests": cache // (per_token * max_model_len),
    }


def communication(plan: dict, group: dict) -> dict[str, str]:
    """Return what this engine asks of the communication beside what is derived: nothing."""
    return {}


def launch(plan: dict, group: dict, node: dict) -> dict:
    """Return the LaunchSpec of ``node``: of a container, or argv, env, secret_env, workdir, port in an environment."""
    flags = (
        "--dtype",
        plan["model"]["dtype"],
        # Compiling for the CPU takes minutes at every start and gains little at this size.
        "--enforce-eager",
        "--compilation-config",
        COMPILATION,
    )
    if plan["engine"]["runtime"] == "venv":
        return _in_environment(plan, group, node, flags)
    api = vllm_serve.has_api(group, node)
    return containers.spec(
        node,
        vllm_serve.command(plan, group, node, flags=flags),
        env=_env(node),
        secret_env=["VLLM_API_KEY"] if plan["serving"]["api_keys"] and api else [],
        ports=_ports(plan, api),
        port=plan["serving"]["port"] if api else 0,
        readiness={"url": f"http://{node['address']}:{plan['serving']['port']}/health" if api else "", "log": ""},
        stop_seconds=30,
    )


def _ports(plan: dict, api: bool) -> dict:
    return {plan["serving"]["port"]: "API"} if api else {}


def _env(node: dict) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(node["memory"]["kv_cache_bytes"] // GIB),
        "VLLM_CACHE_ROOT": f"{node['run_dir']}/work/cache/vllm",
        # Tensor parallel ranks compile a function of the embedding in spite of --enforce-eager, which ends in
        # InvalidCxxCompiler at the first request where there is no compiler (seen with 0.32.0).
        "TORCHDYNAMO_DISABLE": "1",
    }


def _in_environment(plan: dict, group: dict, node: dict, flags: tuple[str, ...]) -> dict:
    serving, venv = plan["serving"], node["venv"]
    # The module and not the command `vllm`: the command asks for a distribution named vllm, which the repackaged build
    # does not have. Both start the same server.
    program = (f"{venv['path']}/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model")
    work = f"{node['run_dir']}/work"
    env = {
        "PATH": f"{venv['path']}/bin:/usr/local/bin:/usr/bin:/bin",
        **containers.environment(work),
        **_env(node),
        "VLLM_HOST_IP": node["address"],
        "GLOO_SOCKET_IFNAME": node["interface"],
    }
    return {
        "argv": vllm_serve.command(plan, group, node, program, flags),
        "env": env,
        "secret_env": ["VLLM_API_KEY"] if serving["api_keys"] else [],
        "workdir": work,
        "port": serving["port"],
        "stop_seconds": 30,
    }
