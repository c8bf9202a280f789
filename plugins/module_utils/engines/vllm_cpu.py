# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vLLM's CPU build: real vLLM on a host without an accelerator. One replica on one host."""

from __future__ import annotations

from ..errors import LlmError
from .memory import kv_bytes_per_token

GIB = 1024**3
# Smallest cache that vLLM's VLLM_CPU_KVCACHE_SPACE (whole GiB) can ask for.
KV_CACHE_STEP = GIB
# The plan decides these; given again in llm_engine_args they would contradict it.
OWNED_FLAGS = {
    "--model", "--served-model-name", "--host", "--port", "--max-model-len", "--max-num-seqs", "--dtype", "--api-key",
    "--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp", "--config",
    "--uds", "--headless", "--nnodes", "-n", "--node-rank", "-r", "--enforce-eager",
    "--compilation-config", "-cc",
}  # fmt: skip
# The rotary kernel of vLLM's CPU build reads the strided views that MLA hands it as if they were contiguous: positions
# are lost and DeepSeek answers wrongly, fluently. Found by golden answers and then against the same operation in plain
# torch (0.32.0: errors of the size of the values for more than one token or head); the native one is right.
COMPILATION = '{"custom_ops": ["-rotary_embedding"]}'
OWNER_OF_FLAG = {
    "--max-model-len": "llm_max_model_len",
    "--max-num-seqs": "llm_max_num_seqs",
    "--port": "llm_api_port",
    "--host": "llm_interface",
    "--model": "llm_model",
    "--api-key": "llm_api_keys",
}


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse what this engine cannot do; ``deployment`` has the settings, ``nodes`` the hosts of one replica group."""
    if len(nodes) != 1:
        raise LlmError(
            "vllm_cpu serves on one host",
            wanted="a replica group of one host",
            found=f"{len(nodes)} hosts: " + ", ".join(node["host"] for node in nodes),
            remedy="put each host into a group replica_* of its own",
        )
    sizes = {name: size for name, size in deployment.get("llm_parallel", {}).items() if size != 1}
    if sizes:
        raise LlmError(
            "vllm_cpu has no accelerators to spread a model over",
            wanted="parallel sizes of 1",
            found=", ".join(f"{name} {size}" for name, size in sizes.items()),
            remedy="remove llm_parallel",
        )
    if deployment.get("llm_runtime", "venv") != "venv":
        raise LlmError(
            "vllm_cpu runs in a virtual environment",
            wanted="llm_runtime: venv",
            found=f"llm_runtime: {deployment['llm_runtime']}",
            remedy="remove llm_runtime",
        )
    if deployment.get("llm_image"):
        raise LlmError("llm_image has no meaning in a virtual environment", remedy="remove llm_image")
    if deployment.get("llm_api_keys", 0) > 1:
        raise LlmError(
            "vllm_cpu takes one API key",
            wanted="one key in llm_api_keys",
            found=f"{deployment['llm_api_keys']} keys",
            remedy="give one key; several belong to a gateway in front of the engine",
        )
    for flag in deployment.get("llm_engine_args", []):
        name = _owned(flag)
        if name:
            raise LlmError(
                f"llm_engine_args sets {name}, which the plan decides",
                wanted=OWNER_OF_FLAG.get(name, "the plan's value"),
                found=flag.split("=", 1)[0],
                remedy=f"remove {name} from llm_engine_args",
            )


def _owned(flag: str) -> str:
    """Return the owned flag that ``flag`` sets, empty for none.

    vLLM's parser takes any unambiguous beginning of a name, '_' for '-', and --no-x where --x is a switch.
    """
    name = flag.split("=", 1)[0].replace("_", "-")
    name = "--" + name[5:] if name.startswith("--no-") else name
    name = "-cc" if name.startswith("-cc.") else name
    if name in OWNED_FLAGS:
        return name
    return next(
        (owned for owned in sorted(OWNED_FLAGS) if name.startswith("--") and len(name) > 2 and owned.startswith(name)),
        "",
    )


def memory(model: dict, weight_bytes: int, max_model_len: int, max_num_seqs: int, release: dict) -> dict:
    """Return what one rank needs: rows {what, bytes, source}, their sum, and how many full-length requests fit."""
    per_token = kv_bytes_per_token(model)
    wanted = per_token * max_model_len * max_num_seqs
    cache = max(1, -(-wanted // KV_CACHE_STEP)) * KV_CACHE_STEP
    rows = [
        {"what": "weights", "bytes": weight_bytes, "source": "lock of the weights, or the catalog"},
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


def launch(plan: dict, node: dict) -> dict:
    """Return the LaunchSpec of ``node``: argv, env, secret_env, workdir, readiness."""
    serving, venv = plan["serving"], node["venv"]
    argv = [
        f"{venv['path']}/bin/python",
        # The module and not the command `vllm`: the command asks for a distribution named vllm, which the repackaged
        # build does not have. Both start the same server.
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        node["weights_path"],
        "--served-model-name",
        serving["model_name"],
        "--host",
        node["address"],
        "--port",
        str(serving["port"]),
        "--dtype",
        plan["model"]["dtype"],
        "--max-model-len",
        str(serving["max_model_len"]),
        "--max-num-seqs",
        str(serving["max_num_seqs"]),
        # Compiling for the CPU takes minutes at every start and gains little at this size.
        "--enforce-eager",
        "--compilation-config",
        COMPILATION,
        *serving["engine_args"],
    ]
    work = f"{node['run_dir']}/work"
    env = {
        "PATH": f"{venv['path']}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": work,
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(node["memory"]["kv_cache_bytes"] // GIB),
        "VLLM_HOST_IP": node["address"],
        "GLOO_SOCKET_IFNAME": node["interface"],
        "VLLM_CACHE_ROOT": f"{work}/cache/vllm",
        "XDG_CACHE_HOME": f"{work}/cache",
        # Nothing is fetched and nothing is reported from a serving host.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    return {
        "argv": argv,
        "env": env,
        "secret_env": ["VLLM_API_KEY"] if serving["api_keys"] else [],
        "workdir": work,
        "port": serving["port"],
        "stop_seconds": 30,
    }
