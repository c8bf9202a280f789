# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every engine on accelerators has in common: which hosts may form a replica, and the memory of one device.

An engine that has no file of its own yet is planned by this one as far as preflight needs it. It cannot be launched,
and a deployment that asks for that is refused.
"""

from __future__ import annotations

from ..catalog import hardware
from ..errors import LlmError
from .memory import kv_bytes_per_token

MIB = 1024**2


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse settings that no accelerated engine has."""
    if deployment.get("llm_runtime", "docker") != "docker":
        raise LlmError(
            f"{deployment['llm_engine']} runs in containers",
            wanted="llm_runtime: docker",
            found=f"llm_runtime: {deployment['llm_runtime']}",
            remedy="remove llm_runtime",
        )
    addresses = [node["address"] for node in nodes if node["address"]]
    twice = sorted({address for address in addresses if addresses.count(address) > 1})
    if twice:
        raise LlmError(
            "two hosts of one replica group have the same address",
            wanted="one address a host",
            found=", ".join(twice) + " on " + " and ".join(node["host"] for node in nodes if node["address"] in twice),
            remedy="set llm_interface of these hosts to the interface that the other nodes reach",
        )


def memory(model: dict, weight_bytes: int, max_model_len: int, release: dict, devices: int) -> dict:
    """Return what one of ``devices`` accelerators needs at least: rows {what, bytes, source} and their sum.

    The weights are spread evenly; a request of full length needs its KV cache on every device that holds its layers.
    """
    per_token = kv_bytes_per_token(model)
    rows = [
        {
            "what": f"weights over {devices} devices",
            "bytes": -(-weight_bytes // devices),
            "source": "lock of the weights, or the catalog",
        },
        {
            "what": "KV cache of one request",
            "bytes": per_token * max_model_len,
            "source": f"{per_token} bytes a token (MLA)",
        },
        {"what": "engine", "bytes": release["overhead_bytes"], "source": release["source"]},
    ]
    return {"rows": rows, "bytes": sum(row["bytes"] for row in rows), "share": release["memory_share"]}


def devices_of(facts: dict, kind: str) -> list[dict]:
    """Return the accelerators that the vendor's tool of ``kind`` (npu, gpu) listed on a host."""
    found = (facts.get(kind) or {}).get("chips" if kind == "npu" else "gpus")
    return found if isinstance(found, list) else []


def wanted_devices(own: dict, facts: dict, release: dict) -> int:
    """Return how many accelerators a host should have: as its owner says, else as whole servers of its family have.

    What is listed is no measure: a device that has fallen off the bus is not in the list.
    """
    listed = devices_of(facts, release["accelerator"])
    known = [entry["family"] for entry in (hardware.chip(str(device.get("name"))) for device in listed) if entry]
    family = known[0] if known else release["families"][0]
    return own.get("llm_accelerators") or max(len(listed), hardware.FAMILIES[family]["per_host"])
