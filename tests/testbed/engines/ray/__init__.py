# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people and scripts ask of the package `ray`, answered by the stand-in's head."""

from __future__ import annotations

import ray_standin

__version__ = ray_standin.version()
_cluster = {"address": ""}


def init(address: str | None = None, **_settings: object) -> None:
    """Connect to the cluster that runs; raises ConnectionError when there is none."""
    found = ray_standin.find(address or "")
    if not found:
        raise ConnectionError(ray_standin.NO_CLUSTER)
    try:
        ray_standin.ask(found)
    except ray_standin.RayError as error:
        raise ConnectionError(str(error)) from error
    _cluster["address"] = found


def is_initialized() -> bool:
    return bool(_cluster["address"])


def shutdown() -> None:
    _cluster["address"] = ""


def nodes() -> list[dict]:
    """Return the nodes with Ray's own names of the parts."""
    return [
        {
            "NodeID": node["id"],
            "Alive": True,
            "NodeManagerAddress": node["ip"],
            "NodeManagerHostname": node["node"],
            "Resources": node["resources"],
        }
        for node in ray_standin.ask(_cluster["address"])
    ]


def cluster_resources() -> dict[str, float]:
    """Return {resource: sum over all nodes}."""
    total: dict[str, float] = {}
    for node in nodes():
        for name, count in node["Resources"].items():
            total[name] = total.get(name, 0.0) + count
    return total
