# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a chain takes: T = start + S/B * overhead + (N - 1) * lag, fitted to a run and carried over to 700 GB.

A node passes on a piece once it has all of it, so that each hop adds the time of one piece, of what lies before it in
buffers, and of whatever the programs wait for each other.
"""

from __future__ import annotations

import math

from ansible_collections.baremetal.llm.plugins.module_utils.weights import merkle

MODEL_BYTES = 700_000_000_000
RATES_GBIT = (10, 25, 100)
NODES = (4, 16, 64)
# Ethernet 1518 and its 20 bytes between frames, for 1448 bytes of data: MTU 1500, TCP with timestamps. 1.007 at 9000.
OVERHEAD = 1538 / 1448
# One NVMe disk for data centres, in bytes a second; published figures are 3 to 6 GB/s of sequential writing.
DISK_BYTES_S = 3e9


def fit(times: list[float]) -> tuple[float, float]:
    """Return (seconds of the first node, seconds of each further one), least squares over the nodes in their order."""
    count = len(times)
    if count == 1:
        return times[0], 0.0
    middle, mean = (count - 1) / 2, sum(times) / count
    lag = sum((at - middle) * (time - mean) for at, time in enumerate(times)) / sum(
        (at - middle) ** 2 for at in range(count)
    )
    return mean - middle * lag, lag


def explain(runs: list[dict], cpu_node: float) -> dict:
    """Print the model of each run and the extrapolation; return {nodes: {first, lag, fixed}} in seconds."""
    print("\nHop lag: T = first node + (N - 1) * lag, by least squares over the nodes of each run")
    found, fixed = {}, 0.0
    for run in runs:
        first, lag = fit(run["times"])
        bytes_s = run["rate_mbit"] * 1e6 / 8
        part = merkle.piece_bytes(run["bytes"]) / bytes_s
        fixed = max(fixed, lag - part)
        print(
            f"N={run['nodes']:<3} B={run['rate_mbit']:g} Mbit/s: first {first:.2f} s = {first / run['floor']:.3f} S/B, "
            f"lag {lag * 1000:.0f} ms, of which one piece {part * 1000:.0f} ms, all else {(lag - part) * 1000:.0f} ms"
        )
        found[str(run["nodes"])] = {"first_s": round(first, 3), "lag_s": round(lag, 4), "fixed_s": round(lag - part, 4)}
    _extrapolate(max(0.0, fixed), cpu_node)
    return found


def _extrapolate(fixed: float, cpu_node: float) -> None:
    piece = merkle.piece_bytes(MODEL_BYTES)
    print(
        f"\n700 GB, extrapolated, not measured. Overhead {OVERHEAD:.3f} (MTU 1500); a lag of one piece of "
        f"{piece >> 20} MiB and {fixed * 1000:.0f} ms,\nthe largest all-else above, as if no faster link shortened it; "
        f"cores for {cpu_node:.1f} CPU-s a GiB received and sent on,\nas measured here, one process for each of them; "
        f"a disk that writes {DISK_BYTES_S / 1e9:g} GB/s: the slower of link and disk\nholds for the whole chain."
    )
    print(
        f"{'Gbit/s':>7}{'nodes':>7}{'S/B s':>8}{'link s':>8}{'ratio':>7}{'disk s':>8}{'cores':>7}{'rsync star s':>14}"
    )
    for rate in RATES_GBIT:
        bytes_s = rate * 1e9 / 8
        floor = MODEL_BYTES / bytes_s
        cores = bytes_s / (1 << 30) * cpu_node
        for nodes in NODES:
            hops = (nodes - 1) * (piece / bytes_s + fixed)
            link = floor * OVERHEAD + hops
            disk = max(floor * OVERHEAD, MODEL_BYTES / DISK_BYTES_S) + hops
            star = floor * OVERHEAD * nodes
            print(
                f"{rate:7}{nodes:7}{floor:8.0f}{link:8.0f}{link / floor:7.3f}{disk:8.0f}"
                f"{math.ceil(cores):7}{star:14.0f}"
            )
