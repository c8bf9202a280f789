# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""State of one emulated host: what may be in it, its defaults, and where an emulator finds it.

A state is a plain dict. ``validate`` completes it with defaults and refuses whatever it does not know, so that a
misspelt key cannot make a test pass for the wrong reason.
"""

from __future__ import annotations

import json

# Where an emulator looks, unless the variable names another file.
PATH = "/etc/llm-testbed/state.json"
VARIABLE = "LLM_TESTBED_STATE"

REQUIRED = object()


class StateError(Exception):
    """A state that cannot be used; the text says where and why."""


class Field:
    """One key of a mapping: what it holds and what it is when it is left out."""

    def __init__(self, kind, default=REQUIRED):
        self.kind = kind
        self.default = default


class Choice:
    """A text out of a fixed list."""

    def __init__(self, *values: str):
        self.values = values


class Nullable:
    """The kind, or null."""

    def __init__(self, kind):
        self.kind = kind


NUMBER = (int, float)
TEXT = Field(str, "")
FLAG = Field(Nullable(bool), None)
ZERO = Field(int, 0)

CHIP = {
    "npu_id": Field(int),
    "chip_id": Field(int, 0),
    "logic_id": Field(int),
    "phy_id": Field(int),
    "name": Field(str),
    "health": Field(Choice("OK", "Warning", "Alarm", "Critical", "UNKNOWN"), "OK"),
    "error_codes": Field([str], []),
    "error_information": Field([str], []),
    "power_w": Field(Nullable(NUMBER), None),
    "temperature_c": Field(int, 40),
    "bus_id": Field(str),
    "aicore_percent": ZERO,
    "ctrlcpu_percent": ZERO,
    "memory_bandwidth_percent": ZERO,
    "memory_total_mib": Field(int),
    "memory_used_mib": ZERO,
    # What `-t memory` and `-t usages` call the capacity, where it is not what the table says.
    "memory_capacity_mib": Field(Nullable(int), None),
    # All of it, the part that the firmware keeps included; 310P only.
    "memory_physical_mib": Field(Nullable(int), None),
    "ddr_total_mib": ZERO,
    "ddr_used_mib": ZERO,
    "hugepages_total": ZERO,
    "hugepages_used": ZERO,
    "serial_number": Field(str, "NA"),
    "slot_id": Field(str, "NA"),
    "compatibility": Field(Nullable(Choice("OK", "NOK", "UNKNOWN", "NOT SUPPORT")), None),
}

NETWORK = {
    "phy_id": Field(int),
    "link": Field(Choice("UP", "DOWN"), "UP"),
    "net_health": Field(str, "Success"),
    "ip": TEXT,
    "netmask": Field(str, "255.255.255.0"),
    "gateway": TEXT,
    "netdetect": TEXT,
    "tls": Field(Nullable(bool), False),
    "vnic_ip": TEXT,
    "speed_mbps": Field(Nullable(int), 200000),
    "link_up_count": Field(int, 1),
    "lldp_ifname": TEXT,
    # Whether the device sends pings; null: when its link is up.
    "pings": FLAG,
    # Lines of this device in hccn.conf; null: none. Left out: the same as the device itself says.
    "conf": Field(
        Nullable(
            {
                "address": Field(Nullable(str), None),
                "netmask": Field(Nullable(str), None),
                "netdetect": Field(Nullable(str), None),
                "gateway": Field(Nullable(str), None),
                "arp": Field(Nullable(str), None),
                "send_arp_status": Field(Nullable(int), None),
                "tls_enable": Field(Nullable(int), None),
            }
        ),
        "same",
    ),
}

ASCEND = {
    "layout": Field(Choice("910A", "910B", "A3", "310P", "310", "950")),
    "version": Field(str),
    # The second version of the table's first line, where it differs.
    "version_long": TEXT,
    "firmware": Field(str, "7.8.0.6.201"),
    "compatibility": Field(Choice("OK", "NOK", "UNKNOWN", "NOT SUPPORT"), "OK"),
    "product": Field(str, "NA"),
    "board": Field(
        {
            "product_name": Field(str, "NA"),
            "model": Field(str, "NA"),
            "manufacturer": Field(str, "Huawei"),
            "board_id": Field(str, "0x60"),
            "pcb_id": Field(str, "A"),
            "bom_id": Field(str, "1"),
            "subsystem_vendor_id": Field(str, "0x19E5"),
            "subsystem_device_id": Field(str, "0x3003"),
            "vdie_id": Field(str, "NA"),
            "ndie_id": Field(str, "NA"),
        },
        {},
    ),
    "aicore": Field({"count": Field(int, 20), "freq_mhz": Field(int, 1800), "current_mhz": Field(int, 1800)}, {}),
    "memory_clock_mhz": Field(int, 1600),
    # Controller of the card; null where the tool shows none.
    "mcu": Field(
        Nullable({"temperature_c": Field(int, 40), "power_w": Field(Nullable(NUMBER), None)}), {"temperature_c": 40}
    ),
    "chips": Field([CHIP], []),
    "processes": Field(
        [{"npu_id": Field(int), "chip_id": Field(int, 0), "pid": Field(int), "name": Field(str), "memory_mib": ZERO}],
        [],
    ),
    "process_table": Field(bool, True),
    "network": Field([NETWORK], []),
    "pings": Field({"unreachable": Field([str], [])}, {}),
    "topology": Field({"link": Field(str, "HCCS"), "cpu_affinity": Field([str], [])}, {}),
    "versions": Field({"driver": Field({"*": str}, {}), "firmware": Field({"*": str}, {})}, {}),
    "install": Field(
        Nullable(
            {
                "path": Field(str, "/usr/local/Ascend"),
                "user": Field(str, "HwHiAiUser"),
                "group": Field(str, "HwHiAiUser"),
                "for_all": Field(bool, True),
                "type": Field(str, "full"),
            }
        ),
        {},
    ),
    "cann": Field([{"version": Field(str), "path": Field(str), "compatible_version": TEXT}], []),
}

GPU = {
    "index": Field(int),
    "uuid": Field(str),
    "name": Field(str),
    "serial": Field(str, "0000000000000"),
    "bus_id": Field(str),
    "device_id": Field(str),
    "product_architecture": Field(str, "Hopper"),
    "memory_total_mib": Field(int),
    "memory_used_mib": ZERO,
    "memory_reserved_mib": ZERO,
    "compute_capability": Field(str),
    "mig": Field(Nullable(bool), False),
    "mig_devices": Field([{"profile": Field(str), "uuid": Field(str)}], []),
    "ecc_mode": Field(Nullable(bool), True),
    "ecc_uncorrected": Field(Nullable(int), 0),
    "ecc_uncorrected_aggregate": Field(Nullable(int), 0),
    "remap_pending": Field(Nullable(bool), False),
    "remap_failure": Field(Nullable(bool), False),
    "retired_pending": FLAG,
    "recovery_action": Field(str, "None"),
    "reset_required": Field(bool, False),
    "persistence_mode": Field(bool, True),
    # Empty: the GPU has none, which the tool prints as N/A.
    "fabric_state": TEXT,
    "fabric_status": TEXT,
    "fabric_health": TEXT,
    "temperature_c": Field(Nullable(int), 35),
    "power_w": Field(Nullable(NUMBER), 70.0),
    "power_limit_w": Field(NUMBER, 700.0),
    "utilization_percent": ZERO,
    "nvlinks": ZERO,
    "nvlink_gbs": Field(str, "26.562"),
}

NVIDIA = {
    "driver_version": Field(str),
    "nvml_version": TEXT,
    "cuda_version": Field(str),
    "schema": Field(Choice("v11", "v12", "v13"), "v12"),
    # Clock of the outputs, 2026-07-14T08:12:53.742; empty: the real one.
    "clock": TEXT,
    "gpus": Field([GPU], []),
    "processes": Field(
        [{"gpu_index": Field(int), "pid": Field(int), "name": Field(str), "memory_mib": Field(Nullable(int), 0)}], []
    ),
    "topology": Field(
        {
            # Row of the matrix as blank separated words, own column included.
            "matrix": Field({"*": str}, {}),
            "nics": Field({"*": str}, {}),
            "cpu_affinity": Field({"*": str}, {}),
            "numa_affinity": Field({"*": str}, {}),
        },
        {},
    ),
    "fabric_manager": Field(
        {
            "installed": Field(bool, False),
            "active": Field(bool, False),
            "version": TEXT,
            "nvswitches": ZERO,
        },
        {},
    ),
    "container_toolkit": Field({"installed": Field(bool, False), "version": TEXT}, {}),
    # Version of the loaded module; empty: the driver's.
    "kernel_module": Field({"version": TEXT, "peermem": Field(bool, False)}, {}),
}

FAULT = {
    # Only calls whose arguments, joined by blanks, hold this text are touched.
    "when": TEXT,
    "missing": Field(bool, False),
    "hang": Field(NUMBER, 0),
    "stdout": Field(Nullable(str), None),
    "stderr": TEXT,
    "exit": Field(Nullable(int), None),
    "truncate": Field(Nullable(int), None),
    "interleave": TEXT,
    "binary": Field(bool, False),
    "flood": ZERO,
    "lost": Field([int], []),
    "lost_reason": Field(str, "Unknown Error"),
    "vanish": Field(Nullable({"npu_id": Field(int), "after_calls": Field(int)}), None),
}

# Failures that a tool has a text for.
FAILURES = {
    "npu_smi": ("dcmi_init", "dcmi_init_nonroot", "dcmi_used"),
    "hccn_tool": ("busy", "permission", "unsupported"),
    "nvidia_smi": ("driver_not_loaded", "nvml_mismatch", "no_devices"),
}

HOST = {
    "hostname": Field(str, "localhost"),
    "ascend": Field(Nullable(ASCEND), None),
    "nvidia": Field(Nullable(NVIDIA), None),
    # Every device address of the fleet; empty: all addresses answer.
    "fabric": Field({"*": {"reachable": Field(bool, True), "lost": Field([int], [])}}, {}),
    "faults": Field(
        {
            tool: Field(Nullable({**FAULT, "failure": Field(Choice("", *failures), "")}), None)
            for tool, failures in FAILURES.items()
        },
        {},
    ),
}


def validate(state: dict) -> dict:
    """Return a complete copy of ``state``; raise StateError for what it may not hold."""
    complete = _check(state, HOST, "state")
    if complete["ascend"]:
        _network_defaults(complete["ascend"])
    return complete


def find(environment: dict) -> str:
    """Return the path of the state for a program with this environment."""
    return environment.get(VARIABLE) or PATH


def load(path: str) -> dict:
    """Return the complete state in the JSON file ``path``; raise StateError."""
    try:
        with open(path, encoding="utf-8") as stream:
            return validate(json.load(stream))
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: {error}") from error


def version_tuple(version: str) -> tuple:
    """Return the leading numbers of a version: 24.1.rc3 is (24, 1); x.x.x is ()."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _network_defaults(ascend: dict) -> None:
    for device in ascend["network"]:
        if device["conf"] == "same":
            device["conf"] = {
                "address": device["ip"] or None,
                "netmask": device["netmask"] if device["ip"] else None,
                "netdetect": device["netdetect"] or None,
                "gateway": device["gateway"] or None,
                "arp": None,
                "send_arp_status": None,
                "tls_enable": None if device["tls"] is None else int(device["tls"]),
            }


def _check(value, kind, where: str):
    if isinstance(kind, Nullable):
        return None if value is None else _check(value, kind.kind, where)
    if isinstance(kind, Choice):
        if value not in kind.values:
            raise StateError(f"{where}: {value!r} is none of {', '.join(kind.values)}")
        return value
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise StateError(f"{where}: wants a list, not {value!r}")
        return [_check(item, kind[0], f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(kind, dict):
        return _check_mapping(value, kind, where)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = kind if isinstance(kind, tuple) else (kind,)
        raise StateError(f"{where}: wants {' or '.join(name.__name__ for name in names)}, not {value!r}")
    return value


def _check_mapping(value, kind: dict, where: str) -> dict:
    if not isinstance(value, dict):
        raise StateError(f"{where}: wants a mapping, not {value!r}")
    if "*" in kind:
        return {str(key): _check(item, kind["*"], f"{where}.{key}") for key, item in value.items()}
    unknown = [str(key) for key in value if key not in kind]
    if unknown:
        raise StateError(f"{where}: unknown keys: {', '.join(sorted(unknown))}")
    complete = {}
    for key, field in kind.items():
        if key in value:
            complete[key] = _check(value[key], field.kind, f"{where}.{key}")
        elif field.default is REQUIRED:
            raise StateError(f"{where}: lacks {key}")
        elif field.default == "same":
            complete[key] = field.default
        else:
            complete[key] = _check(field.default, field.kind, f"{where}.{key}")
    return complete
