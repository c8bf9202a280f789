# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of DeepSeek-R1 on Ascend servers as the engine files see them, and how to read a command line."""

from __future__ import annotations

R1 = {"layers": 61, "hidden": 7168, "heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "experts": 256}
PRECISIONS = {"bf16": "bfloat16", "w8a8": "int8", "a8w8": "int8", "a8w4": "int8"}
CHIPS = {"ascend_a2": "910B4-1", "ascend_a3": "Ascend910", "ascend_310p": "310P3"}
GROUP_PORTS = {"data parallel RPC": 13389, "Ray": 6379}
# Options that take no value; everything else that begins with a dash takes one.
SWITCHES = {
    "--trust-remote-code",
    "--enable-expert-parallel",
    "--headless",
    "--no-enable-prefix-caching",
    "--enable-prefix-caching",
    "--enforce-eager",
    "--async-scheduling",
}


def model(**shape: int) -> dict:
    """Return a catalog entry with the architecture of R1, but for ``shape``."""
    return {"architecture": {**R1, **shape}}


def group(engine: object, version: str, count: int, family: str, each: int, wanted: dict, given: object = None) -> dict:
    """Return a replica group of ``count`` nodes with ``each`` devices, split by the engine itself.

    :param given: what the engine's parallel() gets beside model, version, devices and wanted, as a mapping
    """
    sizes = engine.parallel(model(), version, [each] * count, wanted, **(given or {}))
    nodes = [
        {
            "host": f"node-{rank}",
            "rank": rank,
            "address": f"192.0.2.{11 + rank}",
            "interface": "eth0",
            "devices": each,
            "device_ids": list(range(each)),
            "npu_addresses": [],
            "chip": CHIPS.get(family, ""),
            "family": family,
            "weights_path": "/data/llm/weights/r1",
            "run_dir": "/data/llm/deployments/r1",
            "machine": "aarch64",
            "npu_smi": "/usr/local/sbin/npu-smi",
            "driver_dir": "/usr/local/Ascend",
            "ulimits": {},
        }
        for rank in range(count)
    ]
    return {"name": "replica_1", "head": "node-0", "parallel": sizes, "nodes": nodes}


def plan(engine_id: str, version: str, replica: dict, precision: str, args: tuple = (), keys: int = 0) -> dict:
    """Return a plan of one group that serves R1 in ``precision``."""
    return {
        "deployment": "r1",
        "model": {
            "id": f"deepseek-r1-{precision}",
            "title": "DeepSeek-R1 671B",
            "dtype": "bfloat16",
            "precision": PRECISIONS[precision],
            "architecture": R1,
        },
        "engine": {
            "id": engine_id,
            "version": version,
            "runtime": "docker",
            "accelerator": "npu",
            "memory_share": 0.92,
            "group_ports": GROUP_PORTS,
        },
        "serving": {
            "model_name": "r1",
            "port": 8000,
            "max_model_len": 16384,
            "max_num_seqs": 16,
            "engine_args": list(args),
            "api_keys": keys,
        },
        "groups": [replica],
        "start_timeout": 3000,
    }


def options(argv: list[str]) -> list[tuple[str, str]]:
    """Return the options of a command as (name, value), the value of a switch empty."""
    found = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue
        name, separator, value = word.partition("=")
        if not separator and name not in SWITCHES:
            value = rest.pop(0)
        found.append((name, value))
    return found
