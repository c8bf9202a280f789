# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of the accelerators of one host that hold for both vendors.

What a check cannot see because an earlier one has already failed it leaves alone: one fault is one verdict.
"""

from __future__ import annotations

from ..accelerators import devices_of
from ..catalog import hardware
from ..planning.memory import MIB
from ..planning.text import human_bytes
from .levels import FAIL, OK, WARN, Verdict, listed

TOOL = {"npu": "npu-smi", "gpu": "nvidia-smi"}
NOUN = {"npu": "NPU", "gpu": "GPU"}
# The total that a tool prints lacks what firmware keeps: two cards of one kind differ by some MiB.
MEMORY_TOLERANCE = 0.02


def available(kind: str, facts: dict) -> bool:
    """True when the vendor's tool listed accelerators on the host."""
    return bool((facts.get(kind) or {}).get("available"))


def label(kind: str, device: dict) -> str:
    """Return the name of one accelerator for a person."""
    if kind == "gpu":
        return f"GPU {device['index']}" if device["index"] is not None else f"GPU at {device['bus_id']}"
    return f"NPU {device['npu_id']}" + (f" chip {device['chip_id']}" if device["chip_id"] else "")


def family_of(device: dict) -> str:
    """Return the family of an accelerator, empty for one that the catalog does not know."""
    entry = hardware.chip(str(device["name"]))
    return entry["family"] if entry else ""


def _devices(requirement: dict, facts: dict) -> list[Verdict]:
    """All accelerators are there, are of a family that the engine runs on, and are well."""
    kind = requirement["kind"]
    wanted = f"{requirement['count']} {NOUN[kind]}s: {hardware.titles(requirement['families'])}"
    told = facts.get(kind) or {}
    if not available(kind, facts):
        reason = told.get("reason") or f"the host was not asked for its {NOUN[kind]}s"
        return [
            Verdict(FAIL, wanted, reason, f"make {TOOL[kind]} answer on this host; a driver wants a reboot to load")
        ]
    devices = devices_of(facts, kind)
    return [*_count(requirement, told, devices, wanted), *_families(requirement, devices), *_health(kind, devices)]


def _count(requirement: dict, told: dict, devices: list[dict], wanted: str) -> list[Verdict]:
    kind, lost = requirement["kind"], told["lost"]
    if len(devices) >= requirement["count"] and not lost:
        return [Verdict(OK, wanted, f"{len(devices)} x {listed(sorted({device['name'] for device in devices}))}", "-")]
    gone = listed([f"{entry['bus_id']}: {entry['reason']}" for entry in lost])
    return [
        Verdict(
            FAIL,
            wanted,
            f"{len(devices)}" + (f"; not listed by {TOOL[kind]}: {gone}" if lost else ""),
            "power the host off and on and reseat the card; if the host has fewer by design, set llm_accelerators"
            if not lost
            else "reboot the host; a device that stays away has failed",
        )
    ]


def _families(requirement: dict, devices: list[dict]) -> list[Verdict]:
    others = sorted({device["name"] for device in devices if family_of(device) not in requirement["families"]})
    if not others:
        return []
    unknown = [name for name in others if not hardware.chip(name)]
    return [
        Verdict(
            WARN if unknown == others else FAIL,
            f"{hardware.titles(requirement['families'])} for {requirement['engine']}",
            listed(others) + (", which the catalog does not know" if unknown == others else ""),
            f"choose an engine that runs on it (llm_engine), or hosts that {requirement['engine']} runs on",
        )
    ]


def _health(kind: str, devices: list[dict]) -> list[Verdict]:
    ill = [device for device in devices if kind == "npu" and device["health"] not in ("OK", "Warning")]
    warned = [device for device in devices if kind == "npu" and device["health"] == "Warning"]
    judged = []
    for level, group in ((FAIL, ill), (WARN, warned)):
        if group:
            judged.append(
                Verdict(
                    level,
                    "health OK on every chip",
                    listed(
                        [f"{label(kind, device)} {device['health'] or 'unknown'}{_codes(device)}" for device in group]
                    ),
                    "look the error codes up in the vendor's list (npu-smi info -t health); reset or replace the card",
                )
            )
    return judged


def _codes(device: dict) -> str:
    return f" ({' '.join(device['error_codes'])})" if device.get("error_codes") else ""


def _precision(requirement: dict, facts: dict) -> list[Verdict]:
    if not available(requirement["kind"], facts):
        return []
    judged = []
    for family in sorted({family_of(device) for device in devices_of(facts, requirement["kind"])} - {""}):
        lack = hardware.FAMILIES[family]["lacks"].get(requirement["precision"])
        if lack:
            level, reason = lack
            judged.append(
                Verdict(
                    level,
                    f"arithmetic in {requirement['precision']}",
                    f"{hardware.FAMILIES[family]['title']}: {reason}",
                    "choose the model in another format (llm_model), or other accelerators",
                )
            )
    return judged


def _device_memory(requirement: dict, facts: dict) -> list[Verdict]:
    """Every device holds its part of the model; its memory is what its name says."""
    kind = requirement["kind"]
    if not available(kind, facts):
        return []
    devices = devices_of(facts, kind)
    parts = ", ".join(f"{row['what']} {human_bytes(row['bytes'])}" for row in requirement["rows"])
    wanted = f"{human_bytes(requirement['bytes'])} on each {NOUN[kind]} for {requirement['model']} ({parts})"
    unknown = [device for device in devices if not device["memory_total_mib"]]
    small = [
        device
        for device in devices
        if device["memory_total_mib"] and device["memory_total_mib"] * MIB * requirement["share"] < requirement["bytes"]
    ]
    if unknown or small:
        found = [f"{label(kind, device)} {device['name']} {_memory_text(device)}" for device in small or unknown]
        return [
            Verdict(
                FAIL if small else WARN,
                wanted,
                listed(found) + f", of which an engine may use {requirement['share']:.0%}",
                "use accelerators with more memory, more hosts in the replica group, or a smaller format of the model",
            )
        ]
    return _named_memory(kind, devices) or [Verdict(OK, wanted, f"{_memory_text(devices[0])} and alike", "-")]


def _memory_text(device: dict) -> str:
    total = device["memory_total_mib"]
    return human_bytes(total * MIB) if total else "of unknown size"


def _named_memory(kind: str, devices: list[dict]) -> list[Verdict]:
    odd = []
    for device in devices:
        entry = hardware.chip(device["name"])
        low, high = entry["memory_mib"] if entry else (0, 1 << 40)
        if not low * (1 - MEMORY_TOLERANCE) <= device["memory_total_mib"] <= high * (1 + MEMORY_TOLERANCE):
            odd.append(f"{label(kind, device)} {device['name']} with {device['memory_total_mib']} MiB")
    if not odd:
        return []
    return [
        Verdict(WARN, "the memory that a card of this name has", listed(odd), "compare with a card that is known good")
    ]


def _idle(requirement: dict, facts: dict) -> list[Verdict]:
    """Nothing else uses the accelerators, be it seen as a process or only as memory."""
    kind = requirement["kind"]
    if not available(kind, facts):
        return []
    own = set(facts.get("service", {}).get("pids", []))
    if facts.get("service", {}).get("running"):
        return [Verdict(OK, f"idle {NOUN[kind]}s", "used by this deployment", "-")]
    foreign = [process for process in facts[kind]["processes"] if process["pid"] not in own]
    used = [
        f"{label(kind, device)} {device['memory_used_mib']} MiB"
        for device in devices_of(facts, kind)
        if (device["memory_used_mib"] or 0) > requirement["mib"]
    ]
    processes = [f"{process['name']} (pid {process['pid']})" for process in foreign]
    found = [*processes, *used]
    hidden = "" if foreign or not used else "; no process is listed, so a container or a dead process holds it"
    return [
        Verdict(
            FAIL if found else OK,
            f"idle {NOUN[kind]}s: no process, at most {requirement['mib']} MiB used",
            listed(found) + hidden if found else "idle",
            "end these processes or containers; memory that stays after that needs a reset of the card",
        )
    ]


CHECKS = {
    "devices": _devices,
    "precision": _precision,
    "device_memory": _device_memory,
    "idle": _idle,
}
