# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of ``vllm serve``, which vLLM's CUDA and CPU builds, vLLM-Ascend and vllm-mindspore share. Pure.

Three forms carry a replica over several nodes: ``data_parallel`` (each node runs whole engines, those after the first
without an API), ``mp`` (one engine over all nodes, started on each) and ``ray`` (one engine over a Ray cluster, started
on the head alone).
"""

from __future__ import annotations

from ..errors import LlmError

# Names of group_ports in catalog/releases.py.
RPC = "data parallel RPC"
MASTER = "rendezvous of torch.distributed"
RAY = "Ray"

# The plan decides these; given again in llm_engine_args they would contradict it.
OWNED = frozenset({
    "--model", "--served-model-name", "--host", "--port", "--max-model-len", "--max-num-seqs", "--dtype", "--api-key",
    "--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp", "--config",
    "--data-parallel-size-local", "-dpl", "--data-parallel-address", "-dpa", "--data-parallel-rpc-port", "-dpp",
    "--data-parallel-start-rank", "-dpr", "--data-parallel-rank", "-dpn", "--data-parallel-backend", "-dpb",
    "--uds", "--headless", "--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port",
    "--enable-expert-parallel", "-ep",
})  # fmt: skip
# Of the API alone: a rank without one ends over them (0.32.0: ValueError of --headless with --api-server-count).
OF_API = frozenset({"--api-server-count", "-asc"})
OWNERS = {
    "--max-model-len": "llm_max_model_len",
    "--max-num-seqs": "llm_max_num_seqs",
    "--port": "llm_api_port",
    "--host": "llm_interface",
    "--model": "llm_model",
    "--api-key": "llm_api_keys",
    "--tensor-parallel-size": "llm_parallel",
    "-tp": "llm_parallel",
    "--pipeline-parallel-size": "llm_parallel",
    "-pp": "llm_parallel",
    "--data-parallel-size": "llm_parallel",
    "-dp": "llm_parallel",
}


def refuse_keys(deployment: dict) -> None:
    """Refuse more API keys than the variable VLLM_API_KEY holds."""
    if deployment.get("llm_api_keys", 0) > 1:
        raise LlmError(
            f"{deployment.get('llm_engine', 'the engine')} takes one API key",
            wanted="one key in llm_api_keys",
            found=f"{deployment['llm_api_keys']} keys",
            remedy="give one key; several belong to a gateway in front of the engine",
        )


def refuse_owned(arguments: list[str], owned: frozenset[str] = OWNED, owners: dict[str, str] | None = None) -> None:
    """Refuse flags of llm_engine_args that the plan decides.

    :param owned: the flags in their full spelling
    :param owners: the variable that decides a flag, where one does
    """
    for flag in arguments:
        name = owned_name(flag, owned)
        if name:
            raise LlmError(
                f"llm_engine_args sets {name}, which the plan decides",
                wanted=(OWNERS if owners is None else owners).get(name, "the plan's value"),
                found=flag.split("=", 1)[0],
                remedy=f"remove {name} from llm_engine_args",
            )


def owned_name(flag: str, owned: frozenset[str]) -> str:
    """Return the owned flag that ``flag`` sets, empty for none.

    vLLM's parser takes any unambiguous beginning of a name, '_' for '-', and for a switch --x also --no-x, or from 0.33
    on --disable-y where x is enable-y.
    """
    name = flag.split("=", 1)[0].replace("_", "-")
    name = "--" + name[5:] if name.startswith("--no-") else name
    name = "--enable-" + name[10:] if name.startswith("--disable-") else name
    name = name.split(".", 1)[0]
    if name in owned:
        return name
    return next(
        (known for known in sorted(owned) if name.startswith("--") and len(name) > 2 and known.startswith(name)), ""
    )


def without(arguments: list[str], names: frozenset[str]) -> list[str]:
    """Return ``arguments`` without the options ``names``, in whichever spelling, and their values, one each."""
    kept: list[str] = []
    skip = False
    for flag in arguments:
        if skip:
            skip = False
        elif flag.startswith("-") and owned_name(flag, names):
            skip = "=" not in flag
        else:
            kept.append(flag)
    return kept


def value_of(arguments: list[str], name: str) -> str | None:
    """Return what ``arguments`` give the option ``name``: its value, empty for a bare switch, None where it is not."""
    for place, flag in enumerate(arguments):
        given, separator, value = flag.partition("=")
        if given.replace("_", "-") != name:
            continue
        if separator:
            return value
        following = arguments[place + 1] if place + 1 < len(arguments) else "-"
        return "" if following.startswith("-") else following
    return None


def command(
    plan: dict, group: dict, node: dict, program: tuple[str, ...] = ("vllm", "serve"), flags: tuple[str, ...] = ()
) -> list[str]:
    """Return the command of ``node``'s rank.

    :param flags: what the engine adds behind the flags that all have, before llm_engine_args
    """
    serving = plan["serving"]
    return [
        *program,
        node["weights_path"],
        "--served-model-name",
        serving["model_name"],
        "--host",
        node["address"],
        "--port",
        str(serving["port"]),
        "--max-model-len",
        str(serving["max_model_len"]),
        "--max-num-seqs",
        str(serving["max_num_seqs"]),
        *_FORMS[group["parallel"]["form"]](plan, group, node),
        *flags,
        *(serving["engine_args"] if has_api(group, node) else without(serving["engine_args"], OF_API)),
    ]


def has_api(group: dict, node: dict) -> bool:
    """True when the rank of ``node`` answers requests: the head alone does."""
    return node["host"] == group["head"]


def head_of(group: dict) -> dict:
    """Return the head's node."""
    return next(node for node in group["nodes"] if node["host"] == group["head"])


def _single(_plan: dict, group: dict, _node: dict) -> list[str]:
    sizes = group["parallel"]
    flags = _sizes(sizes)
    flags += ["--data-parallel-size", str(sizes["data_parallel"])] if sizes["data_parallel"] > 1 else []
    return flags + _experts(sizes)


def _data_parallel(plan: dict, group: dict, node: dict) -> list[str]:
    sizes = group["parallel"]
    flags = [
        *_sizes(sizes),
        "--data-parallel-size",
        str(sizes["data_parallel"]),
        "--data-parallel-size-local",
        str(sizes["data_parallel_local"]),
        "--data-parallel-address",
        head_of(group)["address"],
        "--data-parallel-rpc-port",
        str(plan["engine"]["group_ports"][RPC]),
        *_experts(sizes),
    ]
    if not has_api(group, node):
        flags += ["--headless", "--data-parallel-start-rank", str(node["rank"] * sizes["data_parallel_local"])]
    return flags


def _mp(plan: dict, group: dict, node: dict) -> list[str]:
    flags = [
        *_sizes(group["parallel"]),
        "--distributed-executor-backend",
        "mp",
        "--nnodes",
        str(len(group["nodes"])),
        "--node-rank",
        str(node["rank"]),
        "--master-addr",
        head_of(group)["address"],
        "--master-port",
        str(plan["engine"]["group_ports"][MASTER]),
        *_experts(group["parallel"]),
    ]
    return flags if has_api(group, node) else [*flags, "--headless"]


def _ray(_plan: dict, group: dict, _node: dict) -> list[str]:
    return [*_sizes(group["parallel"]), "--distributed-executor-backend", "ray", *_experts(group["parallel"])]


_FORMS = {"single": _single, "data_parallel": _data_parallel, "mp": _mp, "ray": _ray}


def _sizes(sizes: dict) -> list[str]:
    flags = ["--tensor-parallel-size", str(sizes["tensor_parallel"])]
    if sizes["pipeline_parallel"] > 1:
        flags += ["--pipeline-parallel-size", str(sizes["pipeline_parallel"])]
    return flags


def _experts(sizes: dict) -> list[str]:
    return ["--enable-expert-parallel"] if sizes["expert_parallel"] else []
