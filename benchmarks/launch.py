# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launch costs: tasks a host against the steps of the plan, and the time to plan 32 nodes.

    benchmarks/launch.py [--nodes N] [--runs N]

Tasks are counted in a real run over two emulated servers with Docker Engine and a stand-in engine: those that ran on a
host from weights in place to all ranks serving, skipped ones left out. The plan is made as plan.yml makes it, and in
one process; seconds are the shortest of the runs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from ansible_collections.baremetal.llm.plugins.module_utils.planning import document  # noqa: E402
from family_bed import BIN, Rack, Site  # noqa: E402

FOLDER = ROOT / ".cache" / "benchmarks" / "launch"
# Tasks of the stage itself: they note the time and write the report.
OF_THE_STAGE = ("Note the time", "Write the report")


def hosts(count: int) -> list[dict]:
    """Return ``count`` declared Atlas 800I A2, as module serving_plan takes them."""
    settings = {
        "llm_discover": False,
        "llm_deployment": "bench",
        "llm_engine": "vllm_ascend",
        "llm_engine_version": "0.13.0",
        "llm_model": "deepseek-r1-w8a8",
        "llm_accelerator": "910B4-1",
        "llm_weights_source": "/data/source",
    }
    return [
        {"name": f"a{number:02}", "replica": "", "settings": settings, "facts": {}, "address": f"192.0.2.{number + 1}"}
        for number in range(count)
    ]


def plan_seconds(count: int, runs: int) -> dict:
    """Return how long one process takes for the plan of one replica of ``count`` nodes, and the whole of plan.yml."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    inventory = FOLDER / "hosts.yml"
    described = {host["name"]: {"ansible_host": host["address"]} for host in hosts(count)}
    inventory.write_text(yaml.safe_dump({"serving": {"hosts": described, "vars": hosts(1)[0]["settings"]}}), "utf-8")
    given = json.dumps({"llm_report_dir": str(FOLDER / "reports")})
    command = [str(BIN / "ansible-playbook"), "playbooks/plan.yml", "-i", str(inventory), "-e", given]
    return {
        "nodes": count,
        "plan_s": min(seconds(lambda: document.plan(hosts(count), str(ROOT), None)) for _run in range(runs)),
        "playbook_s": min(seconds(lambda: run(command)) for _run in range(runs)),
    }


def seconds(work) -> float:
    begin = time.monotonic()
    work()
    return round(time.monotonic() - begin, 3)


def run(command: list[str], **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def launch_tasks() -> dict:
    """Return the tasks that ran on each host while a replica of two was launched, and the steps of its plan."""
    rack = Rack("blnch", "10.231.61.0/24", {name: {"state": "a2_910b4_1"} for name in ("a2-1", "a2-2")})
    try:
        rack.up()
        site = Site(rack, "ascend_w8a8", "standin:vllm_ascend:0.13.0")
        site.publish()
        command = [str(word) for word in site.command("playbooks/deploy_ascend_w8a8.yml")]
        told = json.loads(run(command, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json"))
        steps = site.report("plan")["plan"]["steps"]
        took = site.report("launch")["seconds"]
    finally:
        rack.down()
    counts: Counter[str] = Counter()
    for task in launched(told):
        counts.update(host for host, result in task["hosts"].items() if not result.get("skipped"))
    return {"steps": len(steps), "tasks": dict(counts), "most_tasks": max(counts.values()), "seconds": took}


def launched(told: dict) -> list[dict]:
    """Return the tasks of the stage launch, without the files that are only included."""
    tasks = [task for play in told["plays"] for task in play["tasks"]]
    names = [task["task"]["name"].split(" : ")[-1] for task in tasks]
    begin = max(place for place, name in enumerate(names) if name.startswith("Start in a container"))
    end = next(place for place in range(begin, len(names)) if names[place] == "Write the report")
    return [
        task
        for task, name in zip(tasks[begin:end], names[begin:end], strict=True)
        if name not in OF_THE_STAGE and not any("include" in result for result in task["hosts"].values())
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    result = {"plan": plan_seconds(arguments.nodes, arguments.runs), "launch": launch_tasks()}
    print(json.dumps(result))
    return 0 if result["launch"]["most_tasks"] <= result["launch"]["steps"] else 1


if __name__ == "__main__":
    sys.exit(main())
