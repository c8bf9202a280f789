# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight of 16 hosts against three rounds of `ansible -m ping` over the same hosts, in the same run.

    benchmarks/preflight.py [--hosts N] [--pairs N]

The hosts are emulated servers on this machine, each with its own sshd, so that both sides share its cores: the ratio is
what counts, and a fleet that answers from its own cores only makes it smaller. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "testbed")]

import fleet as fleets  # noqa: E402
from tests.testbed import servers  # noqa: E402

BIN = Path(sys.executable).parent
FOLDER = ROOT / ".cache" / "benchmarks" / "preflight"
ROUNDS = 3


def describe(count: int) -> dict:
    """Return ``count`` Atlas 800I A2 in replicas of two."""
    names = [f"a{number:02}" for number in range(count)]
    settings = {
        "llm_deployment": "bench",
        "llm_engine": "vllm_ascend",
        "llm_engine_version": "0.13.0",
        "llm_model": "deepseek-r1-w8a8",
        "llm_report_dir": str(FOLDER / "reports"),
    }
    return {
        "name": "bench",
        "network": "10.231.60.0/24",
        "groups": {
            "serving": {"hosts": names, "vars": settings},
            **{f"replica_{number}": names[number : number + 2] for number in range(0, count, 2)},
        },
        "servers": {name: {"state": "a2_910b4_1"} for name in names},
    }


def seconds(*command: str) -> float:
    """Return how long ``command`` takes; a failure ends the benchmark."""
    begin = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return time.monotonic() - begin


def compare(inventory: str, pairs: int) -> dict:
    ping = [str(BIN / "ansible"), "-i", inventory, "serving", "-m", "ansible.builtin.ping"]
    preflight = [str(BIN / "ansible-playbook"), "playbooks/preflight.yml", "-i", inventory]
    # Connections and compiled files of both sides are there before the first measurement.
    seconds(*preflight)
    measured = []
    for number in range(pairs):
        pings = sum(seconds(*ping) for _round in range(ROUNDS))
        once = seconds(*preflight)
        measured.append((once, pings))
        print(f"pair {number + 1}: preflight {once:.1f} s, {ROUNDS} rounds of ping {pings:.1f} s, {once / pings:.2f}")
    ratios = [once / pings for once, pings in measured]
    return {
        "ratio": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)},
        "preflight_s": statistics.median(once for once, _pings in measured),
        "pings_s": statistics.median(pings for _once, pings in measured),
        "pairs": pairs,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    fleets.down(FOLDER)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "fleet.yml"
    path.write_text(yaml.safe_dump(servers.fleet(describe(options.hosts))), encoding="utf-8")
    try:
        fleets.up(path, FOLDER)
        result = compare(str(FOLDER / "inventory.yml"), options.pairs)
    finally:
        fleets.down(FOLDER)
        shutil.rmtree(FOLDER, ignore_errors=True)
    print(json.dumps({"hosts": options.hosts, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
