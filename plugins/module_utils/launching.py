# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a node of the plan to what is laid out on its host and to the container that is made there. Pure."""

from __future__ import annotations

import json

from .errors import LlmError
from .planning.document import GUARD

GUARD_FILE, RANK_FILE, SECRETS_FILE = "rank_guard.py", "rank.json", "secrets.json"
# The guard ends the engine, and what it left, before it ends itself.
GUARD_SECONDS = 15
# Below these folders of the run folder; only the first is read-only in the container.
LAUNCH, WORK, LOGS = "launch", "work", "logs"


def files(plan: dict, host: str) -> list[dict]:
    """Return [{name, content, mode, owner}] of what lies in run_dir/launch on ``host`` beside the guard itself."""
    group, node = _place(plan, host)
    own = [{"name": RANK_FILE, "content": _json(rank(plan, group, node)), "mode": "0644", "owner": ""}]
    return own + [{key: one[key] for key in ("name", "content", "mode", "owner")} for one in node["launch"]["files"]]


def rank(plan: dict, group: dict, node: dict) -> dict:
    """Return what the guard of a rank needs to know; see runtime/rank_guard.py."""
    launch = node["launch"]
    return {
        "deployment": plan["deployment"],
        "group": group["name"],
        "rank": node["rank"],
        "world": len(group["nodes"]),
        "hosts": [one["host"] for one in group["nodes"]],
        "head": group["nodes"][0]["address"],
        "port": plan["engine"]["group_ports"][GUARD],
        "digest": group["digest"],
        "run_dir": node["run_dir"],
        "api_port": launch["port"],
        "before": launch["before"],
        "env_scripts": launch["env_scripts"],
        # What an environment script of the vendor must not undo.
        "keep": sorted({*launch["env"], *node["comm_env"]["group"], *node["comm_env"]["node"]}),
        "workdir": launch["workdir"],
        "stop_seconds": launch["stop_seconds"],
        "probe_devices": launch["probe_devices"],
        "secrets": f"{node['run_dir']}/{LAUNCH}/{SECRETS_FILE}",
    }


def container(plan: dict, host: str) -> dict:
    """Return what the container of ``host`` is made of, in the words of community.docker.docker_container."""
    group, node = _place(plan, host)
    launch, run_dir = node["launch"], node["run_dir"]
    mounts = [
        _mount(node["weights_path"], node["weights_path"], True),
        _mount(f"{run_dir}/{LAUNCH}", f"{run_dir}/{LAUNCH}", True),
        _mount(f"{run_dir}/{WORK}", f"{run_dir}/{WORK}", False),
        _mount(f"{run_dir}/{LOGS}", f"{run_dir}/{LOGS}", False),
        *(_mount(one["source"], one["target"], one["read_only"]) for one in launch["mounts"]),
        *(_mount(f"{run_dir}/{LAUNCH}/{one['name']}", one["target"], True) for one in launch["files"] if one["target"]),
    ]
    return {
        "name": f"llm-{plan['deployment']}",
        "entrypoint": ["python3", f"{run_dir}/{LAUNCH}/{GUARD_FILE}", f"{run_dir}/{LAUNCH}/{RANK_FILE}", "--"],
        "command": launch["argv"],
        "env": {**launch["env"], "BAREMETAL_LLM_RUN": run_dir, "SPT_NOENV": "1"},
        "env_file": f"{run_dir}/comm.env",
        "devices": [f"{path}:{path}:rwm" for path in launch["devices"]],
        "device_requests": _requests(node) if launch["gpus"] else [],
        "mounts": mounts,
        "capabilities": launch["cap_add"],
        "cap_drop": launch["cap_drop"],
        "security_opts": launch["security_opt"],
        "ulimits": [f"{name}:{limit}:{limit}" for name, limit in sorted(launch["ulimits"].items())],
        "shm_size": str(launch["shm_bytes"]),
        "ipc_mode": launch["ipc"],
        "stop_timeout": launch["stop_seconds"] + GUARD_SECONDS,
        "working_dir": launch["workdir"],
        "user": launch["user"],
        "labels": {
            "baremetal.llm.deployment": plan["deployment"],
            "baremetal.llm.group": group["name"],
            "baremetal.llm.rank": str(node["rank"]),
            "baremetal.llm.digest": group["digest"],
        },
    }


def _requests(node: dict) -> list[dict]:
    return [
        {"driver": "nvidia", "device_ids": [str(one) for one in node["device_ids"]], "capabilities": [["gpu"]]},
    ]


def _mount(source: str, target: str, read_only: bool) -> dict:
    return {"type": "bind", "source": source, "target": target, "read_only": read_only}


def _place(plan: dict, host: str) -> tuple[dict, dict]:
    """Return the group and the node of ``host`` in ``plan``."""
    for group in plan["groups"]:
        for node in group["nodes"]:
            if node["host"] == host:
                return group, node
    raise LlmError(
        f"{host} has no place in the plan of deployment {plan['deployment']}",
        wanted="one of " + ", ".join(node["host"] for group in plan["groups"] for node in group["nodes"]),
        found=host,
        remedy="plan again with this host in the group 'serving'",
    )


def _json(value: dict) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
