# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the weights come to every node of a plan: who fetches them, and the chain that passes them on. Pure."""

from __future__ import annotations

from .accelerators import devices_of
from .catalog import hardware
from .errors import LlmError

DEFAULT_PORT = 29600
# One process moves 0.33 to 0.43 GB/s on one core and side (measured without a wire, docs/benchmarks.md).
PROCESS_MBPS = 4000
# The engine is not running while weights are shared, but a host has other work; above 16 chains of their own nothing
# is gained at 100 Gb/s.
MOST_PROCESSES, CORES_A_PROCESS = 16, 4


def of(deployment: dict, nodes: list[dict], facts_of: dict[str, dict]) -> dict:
    """Return {seed, chain, port, processes, rate_limit, engine, client}.

    :param deployment: settings of the deployment
    :param nodes: all nodes of the plan, of all replica groups
    :param facts_of: facts by host, empty for one that did not answer
    """
    seed = _seed(deployment, nodes, facts_of)
    return {
        "seed": seed,
        "chain": chain(nodes, seed),
        "port": deployment.get("llm_weights_port", DEFAULT_PORT),
        "processes": deployment.get("llm_weights_processes") or _processes(nodes, facts_of),
        "speed_mbps": _speed(nodes, facts_of),
        "rate_limit": deployment.get("llm_weights_bandwidth", 0) * 125_000,
        "engine": deployment.get("llm_weights_engine", "auto"),
        "client": deployment.get("llm_weights_client", "builtin"),
        "endpoint": deployment.get("llm_weights_endpoint", ""),
    }


def chain(nodes: list[dict], seed: str) -> list[dict]:
    """Return [{host, address}], the seed first, rack after rack, so that each link between racks is used once.

    The seed's rack comes first; otherwise racks and hosts stay in inventory order. Nodes that did not answer have no
    address and are left out.
    """
    there = [node for node in nodes if node["share_address"]]
    racks = {node["host"]: node["rack"] for node in there}
    order = list(dict.fromkeys([racks.get(seed, ""), *racks.values()]))
    members = sorted(there, key=lambda node: (node["host"] != seed, order.index(node["rack"])))
    return [{"host": node["host"], "address": node["share_address"]} for node in members]


def ports(weights: dict) -> dict[int, str]:
    """Return {port: what it is for} of the ports on which the nodes of a plan share weights."""
    if len(weights["chain"]) < 2:
        return {}
    return {weights["port"] + number: "weights" for number in range(weights["processes"])}


def patch(
    model: dict, nodes: list[dict], facts_of: dict[str, dict], families: list[str], of_engine: dict | None = None
) -> dict:
    """Return {file: {key: value}} that the model's files have to say for these accelerators, besides what they say.

    Cards without bfloat16 refuse a config.json that asks for it (Atlas 300I Duo: torch_dtype has to be float16).

    :param of_engine: what this release of the engine wants in config.json
    """
    # Where no host was asked, what the inventory declares.
    found = {node["family"] for node in nodes if node.get("chip") and not facts_of.get(node["host"])}
    for node in nodes:
        for kind in ("npu", "gpu"):
            listed = devices_of(facts_of.get(node["host"]) or {}, kind)
            found |= {chip["family"] for chip in (hardware.chip(str(one.get("name"))) for one in listed) if chip}
    lacking = [family for family in found or set(families) if "bfloat16" in hardware.FAMILIES[family]["lacks"]]
    everywhere = lacking and len(lacking) == len(found or families)
    changes = dict(of_engine or {})
    if everywhere and model["dtype"] == "bfloat16":
        changes["torch_dtype"] = "float16"
    return {"config.json": changes} if changes else {}


def is_remote(source: str) -> bool:
    """True when weights come from a hub or a server, and not from a folder of the host."""
    return "://" in source


def _seed(deployment: dict, nodes: list[dict], facts_of: dict[str, dict]) -> str:
    """Return the host that fetches: the one that was named, else the first that has the source, else the first."""
    names = [node["host"] for node in nodes]
    named = deployment.get("llm_weights_seed")
    if named and named not in names:
        raise LlmError(
            "llm_weights_seed is no host of this deployment",
            wanted="one of " + ", ".join(names),
            found=named,
            remedy="correct llm_weights_seed, or remove it",
        )
    answered = [node for node in nodes if facts_of.get(node["host"])]
    having = [node["host"] for node in answered if _has(node["weights_source"], facts_of[node["host"]])]
    holding = [node["host"] for node in answered if _has(node["weights_path"], facts_of[node["host"]])]
    return named or (having + holding + [node["host"] for node in answered] + names)[0]


def _has(path: str, facts: dict) -> bool:
    found = (facts.get("paths") or {}).get(path) or {}
    return found.get("kind") == "folder" and found.get("bytes", 0) > 0


def _speed(nodes: list[dict], facts_of: dict[str, dict]) -> int:
    """Return the speed of the slowest interface in Mb/s, 0 where none is known."""
    speeds = []
    for node in nodes:
        known = (facts_of.get(node["host"]) or {}).get("interfaces", [])
        speeds += [entry.get("speed_mbps") for entry in known if entry["name"] == node["share_interface"]]
    return min((speed for speed in speeds if speed and speed > 0), default=0)


def _processes(nodes: list[dict], facts_of: dict[str, dict]) -> int:
    """Return how many chains fill the slowest interface, as far as the smallest host has cores for them."""
    cores = [((facts_of.get(node["host"]) or {}).get("cpu") or {}).get("cores") for node in nodes]
    fewest = min((count for count in cores if count), default=1)
    return max(1, min(-(-_speed(nodes, facts_of) // PROCESS_MBPS), fewest // CORES_A_PROCESS, MOST_PROCESSES))
