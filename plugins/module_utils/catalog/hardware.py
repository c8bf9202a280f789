# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accelerators: families and chips. Adding a card is an entry here and nothing else.

``per_host`` is how many devices a whole server of the family has; ``lacks`` names precisions that its arithmetic does
not have, with the level and the reason. ``memory_mib`` is the range (lowest, highest) of the total that the vendor's
tool prints for one device; the same card prints different totals under different drivers.
"""

from __future__ import annotations

import re

_NO_FP8 = ("warn", "its arithmetic has no FP8: vLLM unpacks such weights to 16 bits while it computes, which is slower")
_NO_BF16 = ("fail", "it has no bfloat16: weights must be served as float16 (torch_dtype in config.json)")

FAMILIES = {
    "ascend_a2": {
        "title": "Atlas A2 (910B)",
        "kind": "npu",
        "per_host": 8,
        "npu_network": True,
        "lacks": {},
        "source": "Atlas 800I A2 and 800T A2: eight NPUs, each with a RoCE port",
    },
    "ascend_a3": {
        "title": "Atlas A3 (910C)",
        "kind": "npu",
        "per_host": 16,
        "npu_network": True,
        "lacks": {},
        "source": "Atlas 800 A3: eight NPUs of two dies",
    },
    "ascend_910a": {
        "title": "Atlas 800 (910A)",
        "kind": "npu",
        "per_host": 8,
        "npu_network": True,
        "lacks": {"bfloat16": _NO_BF16},
        "source": "Atlas 800 training server",
    },
    "ascend_310p": {
        "title": "Atlas 300I Duo, Pro (310P)",
        "kind": "npu",
        "per_host": 8,
        "npu_network": False,
        "lacks": {"bfloat16": _NO_BF16},
        "source": "four Atlas 300I Duo cards of two chips; PCIe cards without a network port of their own",
    },
    "ascend_950": {
        "title": "Ascend 950",
        "kind": "npu",
        "per_host": 8,
        "npu_network": True,
        "lacks": {},
        "source": "npu-smi of the open driver tree",
    },
    "nvidia_ampere": {
        "title": "NVIDIA Ampere",
        "kind": "gpu",
        "per_host": 8,
        "lacks": {"fp8": _NO_FP8},
        "source": "compute capability 8.0; FP8 arithmetic begins with 8.9 (vLLM, quantization/fp8)",
    },
    "nvidia_ada": {
        "title": "NVIDIA Ada",
        "kind": "gpu",
        "per_host": 8,
        "lacks": {},
        "source": "compute capability 8.9",
    },
    "nvidia_hopper": {
        "title": "NVIDIA Hopper",
        "kind": "gpu",
        "per_host": 8,
        "lacks": {},
        "source": "compute capability 9.0",
    },
    "nvidia_blackwell": {
        "title": "NVIDIA Blackwell",
        "kind": "gpu",
        "per_host": 8,
        "lacks": {},
        "source": "compute capability 10.0",
    },
}

_HAMI = "HAMi ascend-device-plugin, memory by chip name"

# The first whose pattern fits the whole name as npu-smi or nvidia-smi prints it.
CHIPS = (
    {"name": r"910B4-1", "family": "ascend_a2", "memory_mib": (65536, 65536), "source": _HAMI},
    {"name": r"910B4", "family": "ascend_a2", "memory_mib": (32768, 32768), "source": _HAMI},
    {"name": r"910B(1|2|2C|3)", "family": "ascend_a2", "memory_mib": (65536, 65536), "source": _HAMI},
    {"name": r"910(A|ProA|ProB)?", "family": "ascend_910a", "memory_mib": (32768, 32768), "source": _HAMI},
    {"name": r"Ascend910|910_93\d*", "family": "ascend_a3", "memory_mib": (65536, 65536), "source": _HAMI},
    {
        "name": r"310P\d?",
        "family": "ascend_310p",
        # 21527: 24 GB cards; 43054 to 44280: the two chips of a 96 GB Duo print different totals.
        "memory_mib": (21527, 44280),
        "source": "recorded outputs of 24.1.rc3.1, 24.1.0.1 and 25.2.0",
    },
    {"name": r"Ascend950.*", "family": "ascend_950", "memory_mib": (86016, 131072), "source": "one recorded output"},
    {
        "name": r".*\bA100\b.*80GB.*",
        "family": "nvidia_ampere",
        "memory_mib": (80000, 82000),
        "source": "81920 under driver 535, 81251 to 81559 under others",
    },
    {"name": r".*\bA100\b.*40GB.*", "family": "nvidia_ampere", "memory_mib": (39000, 41000), "source": "data sheet"},
    {"name": r".*\bA800\b.*80GB.*", "family": "nvidia_ampere", "memory_mib": (80000, 82000), "source": "data sheet"},
    {"name": r".*\bL40S?\b.*", "family": "nvidia_ada", "memory_mib": (45000, 49200), "source": "data sheet"},
    {
        "name": r".*\bH(100|800)\b.*",
        "family": "nvidia_hopper",
        "memory_mib": (80000, 97900),
        "source": "81559 (HBM3, 80 GB); 95830 (NVL, 94 GB)",
    },
    {"name": r".*\bH20\b.*", "family": "nvidia_hopper", "memory_mib": (95000, 145000), "source": "data sheet"},
    {"name": r".*\bH200\b.*", "family": "nvidia_hopper", "memory_mib": (140000, 144400), "source": "143771 under 590"},
    {"name": r".*\bG?B200\b.*", "family": "nvidia_blackwell", "memory_mib": (180000, 196000), "source": "data sheet"},
)

# Kernels that a driver release asks for. Where a host has another, the driver's modules do not build or load.
DRIVER_KERNELS = {
    "24.1.rc3": {"kernel": "5.10", "source": "deployment guide of the 300I Duo: this HDK asks for kernel 5.10"},
}

# Memory that an idle device shows as used: 3.3 to 3.6 GB on 910B, 1.3 to 1.8 GB on 310P (recorded outputs), some MB on
# NVIDIA. More than this without a process in the list is somebody's, often in a container.
IDLE_MIB = {"npu": 5120, "gpu": 1024}

# Oldest driver that runs an image of a CUDA release: `least` by minor-version compatibility, below it nothing starts;
# `native` has every feature, kernels compiled at run time among them. From the CUDA toolkit's release notes, tables of
# the minimum driver for minor-version compatibility and of the toolkit drivers.
CUDA_DRIVERS = {
    "12.4": {"least": "525.60.13", "native": "550.54.14"},
    "12.6": {"least": "525.60.13", "native": "560.28.03"},
    "12.8": {"least": "525.60.13", "native": "570.26"},
    "12.9": {"least": "525.60.13", "native": "575.51.03"},
    "13.0": {"least": "580.65.06", "native": "580.65.06"},
}


def chip(name: str) -> dict | None:
    """Return the entry of a chip by the name that its vendor's tool prints, None for one that is not known."""
    return next((entry for entry in CHIPS if re.fullmatch(entry["name"], name)), None)


def titles(families: list[str]) -> str:
    """Return the names of families for a person."""
    return " or ".join(FAMILIES[family]["title"] for family in families)
