# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What weights cost: sharing them with nodes, the CPU of it, and verifying them. The last line is one JSON object.

    benchmarks/weights/main.py [--library DIR] [--runs N]

DIR is the folder of an unpacked wheel of libtorrent; without it, that of the development environment is taken.
Sharing needs root, and the Debian packages iproute2, iptables and rsync, and aria2 where it is to be compared with.
Other work on the machine only ever makes a transfer longer: transfers run before it (nice), and the shortest of the
runs counts; all are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cpu
import libtorrent
import model
import share
import verify
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import wheel

CHAINS = ((8, 256, 100.0), (16, 256, 100.0))
# All nodes share this machine's cores: a link is slower from this on because they are at their end, not the chain.
# Then the rate is halved, and what is measured is the chain again.
CORES_AT_END = 0.9
LEAST_RATE = 25.0
COPY = (64, 100.0)
STAR = (8, 32, 100.0)
CPU_MIB = 1024
NICE = -10


def chains(library: str, runs: int) -> tuple[dict, list[dict]]:
    """Print the table of all transfers; return the figures that count by number of nodes, and the run of each."""
    copy = share.star(1, *COPY)
    plain = {side: copy[side] / copy["bytes"] for side in ("seed_nic", "max_nic")}
    print("Time in S/B; bytes of the interfaces over S, and over those of one plain copy of S (rsync, one node)")
    print(f"{'':22}{'S MiB':>6}{'Mbit/s':>8}{'T s':>7}{'T/(S/B)':>9}{'seed sends':>18}{'most received':>18}  machine")
    _row("rsync, 1 node", copy, plain)
    figures, best = {}, []
    for nodes, mib, rate in CHAINS:
        done = []
        while len(done) < runs:
            done.append(share.share(nodes, mib, rate, library))
            _row(f"chain, {nodes} nodes", done[-1], plain)
            if done[-1]["machine"]["busy"] >= CORES_AT_END and rate > LEAST_RATE:
                rate, done = rate / 2, []
        best.append(min(done, key=lambda run: run["seconds"]))
        figures[str(nodes)] = _figures(best[-1], done, plain)
    star = share.star(*STAR)
    _row(f"rsync star, {star['nodes']} nodes", star, plain)
    figures["rsync_star"] = {"nodes": star["nodes"], "ratio": round(star["seconds"] / star["floor"], 3)}
    return figures, best


def _figures(best: dict, done: list[dict], plain: dict) -> dict:
    return {
        "ratio": round(best["seconds"] / best["floor"], 3),
        "ratios": [round(run["seconds"] / run["floor"], 3) for run in done],
        # Of the plain copy's, whose headers are the same; the most of all runs.
        "seed_tx": round(max(run["seed_nic"] / run["bytes"] for run in done) / plain["seed_nic"], 4),
        "max_rx": round(max(run["max_nic"] / run["bytes"] for run in done) / plain["max_nic"], 4),
        "rate_mbit": best["rate_mbit"],
        "mib": best["bytes"] >> 20,
        "machine": best["machine"],
    }


def _row(name: str, run: dict, plain: dict) -> None:
    shares = [run[key] / run["bytes"] for key in ("seed_nic", "max_nic")]
    over_plain = [part / plain[key] for part, key in zip(shares, ("seed_nic", "max_nic"), strict=True)]
    print(
        f"{name:22}{run['bytes'] >> 20:6}{run['rate_mbit']:8g}{run['seconds']:7.2f}{run['seconds'] / run['floor']:9.3f}"
        f"{shares[0]:9.4f}{over_plain[0]:9.4f}{shares[1]:9.4f}{over_plain[1]:9.4f}  {run['machine']}",
        flush=True,
    )


def verified() -> dict:
    """Run the benchmark of verifying, and return its figures."""
    # In a process of its own: the kernel counts the memory of the process that starts another as the other's, too.
    done = subprocess.run([sys.executable, verify.__file__], check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout.rstrip())
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", help="folder with the unpacked wheel")
    parser.add_argument("--runs", type=int, default=2, help="runs of each chain")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("network namespaces need root")
    folder = options.library or str(Path(libtorrent.__file__).parents[1])
    if reason := wheel.reason(folder):
        sys.exit(f"libtorrent cannot be used: {reason}")
    os.nice(NICE)
    figures, best = chains(folder, options.runs)
    costs = cpu.measure(CPU_MIB, folder)
    # A node in the middle does both.
    lags = model.explain(best, costs["libtorrent"]["sum"])
    print(flush=True)
    print(json.dumps({"share": figures, "lag": lags, "cpu_s_per_gib": costs, "verify": verified()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
