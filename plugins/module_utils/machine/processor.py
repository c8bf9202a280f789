# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processor of a host."""

from __future__ import annotations

import os
import re

from .source import Source

# The first processor's block; the whole file has one for each core and takes the kernel long to write.
_FIRST_BLOCK = 1 << 14
_CPUS = "/sys/devices/system/cpu"
# MIDR implementer codes, as util-linux's sys-utils/lscpu-arm.c names them.
_ARM_VENDORS = {"0x41": "ARM", "0x48": "HiSilicon", "0x4e": "NVIDIA", "0x70": "Phytium", "0xc0": "Ampere"}


def read(source: Source) -> dict:
    """Return model, vendor, usable cores, the flags that decide which builds run, and the frequency governors."""
    told = parse_cpuinfo(source.head("/proc/cpuinfo", _FIRST_BLOCK))
    if not any(told.values()):
        source.problems.append("/proc/cpuinfo does not tell what the processor is")
    return {**told, "cores": len(os.sched_getaffinity(0)), "governors": _governors(source)}


def parse_cpuinfo(text: str) -> dict:
    """Return {model, vendor, flags[]} of the first processor that is told of, empty what is not told."""
    model, flags, vendor = (
        re.search(rf"^(?:{names})[ \t]*:[ \t]*(\S.*)$", text, re.M)
        for names in ("model name|CPU part", "flags|Features", "vendor_id|CPU implementer")
    )
    maker = vendor.group(1).strip() if vendor else ""
    return {
        "model": model.group(1).strip() if model else "",
        "vendor": _ARM_VENDORS.get(maker.lower(), maker),
        "flags": sorted(set(flags.group(1).split())) if flags else [],
    }


def _governors(source: Source) -> list[str]:
    policies = [name for name in source.names(f"{_CPUS}/cpufreq") if re.fullmatch(r"policy[0-9]+", name)]
    found = {source.attribute(f"{_CPUS}/cpufreq/{name}/scaling_governor") for name in policies}
    return sorted(found - {""})
