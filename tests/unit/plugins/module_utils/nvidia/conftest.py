# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For the tests of the NVIDIA readers: a writer of what nvidia-smi -q -x prints in its three schemas."""

from __future__ import annotations

from xml.sax.saxutils import escape

import pytest

BLANK_GPU = {
    "index": 0,
    "uuid": "GPU-11111111-2222-3333-4444-555555555555",
    "name": "NVIDIA H100 80GB HBM3",
    "bus_id": "0000:01:00.0",
    "serial": "1650000000000",
    "product_architecture": "Hopper",
    "compute_capability": "",
    "memory_total_mib": 81559,
    "memory_used_mib": 4,
    "memory_reserved_mib": 479,
    "mig": False,
    "mig_devices": 0,
    "ecc_mode": True,
    "ecc_uncorrected": 0,
    "ecc_uncorrected_aggregate": 0,
    "remap_pending": False,
    "remap_failure": False,
    "retired_pending": None,
    "recovery_action": "None",
    "reset_required": False,
    "persistence_mode": True,
    "temperature_c": 30,
    "power_w": 70.5,
    "fabric_state": "Completed",
    "fabric_status": "Success",
    "fabric_health": "",
}


def _amount(value: float | None, unit: str) -> str:
    shown = f"{value:.2f}" if isinstance(value, float) else str(value)
    return "N/A" if value is None else f"{shown} {unit}"


def _word(value: bool | None, true: str, false: str) -> str:
    return {True: true, False: false}.get(value, "N/A")


def _tag(name: str, text: object) -> str:
    return f"<{name}>{escape(str(text))}</{name}>"


def _block(name: str, *lines: str) -> list[str]:
    return [f"<{name}>", *("\t" + line for line in lines), f"</{name}>"]


def _counters(scope: str, total: int | None, schema: str, old_card: bool) -> list[str]:
    """Return the counters of one scope; v13 tells two of the SRAM, cards before Ampere tell their own names."""
    if old_card:
        single = _block("single_bit", _tag("total", 7))
        double = _block("double_bit", _tag("device_memory", "N/A"), _tag("total", "N/A" if total is None else total))
        return _block(scope, *single, *double)
    names = ["sram_uncorrectable", "dram_uncorrectable"]
    if schema == "v13":
        names = ["sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable"]
    rest, values = total, []
    for left in range(len(names), 0, -1):
        values.append("N/A" if rest is None else rest // left)
        rest = None if rest is None else rest - rest // left
    return _block(scope, _tag("sram_correctable", 9), *(map(_tag, names, values)), _tag("dram_correctable", 9))


def _gpu(gpu: dict, processes: list[dict], schema: str, old_card: bool) -> list[str]:
    address = "0000" + gpu["bus_id"].upper()
    mig_device = _block("mig_device", *_block("fb_memory_usage", _tag("total", "9984 MiB")))
    lines = [
        _tag("product_name", gpu["name"] or "N/A"),
        _tag("product_architecture", gpu["product_architecture"] or "N/A"),
        _tag("persistence_mode", _word(gpu["persistence_mode"], "Enabled", "Disabled")),
        *_block("mig_mode", _tag("current_mig", _word(gpu["mig"], "Enabled", "Disabled")), _tag("pending_mig", "N/A")),
        *_block("mig_devices", *(mig_device * gpu["mig_devices"] or ["None"])),
        _tag("serial", gpu["serial"] or "N/A"),
        _tag("uuid", gpu["uuid"]),
        _tag("minor_number", 3),
    ]
    if schema == "v12":
        lines += _block("gpu_reset_status", _tag("reset_required", _word(gpu["reset_required"], "Yes", "No")))
    if schema == "v13":
        lines.append(_tag("gpu_recovery_action", gpu["recovery_action"] or "N/A"))
    lines += _block("pci", _tag("pci_bus_id", address))
    memory = [_tag(name, _amount(gpu[f"memory_{name}_mib"], "MiB")) for name in ("total", "reserved", "used")]
    lines += _block("fb_memory_usage", *memory)
    lines += _block("bar1_memory_usage", _tag("total", "131072 MiB"), _tag("used", "1 MiB"))
    lines += _block("ecc_mode", _tag("current_ecc", _word(gpu["ecc_mode"], "Enabled", "Disabled")))
    lines += _block(
        "ecc_errors",
        *_counters("volatile", gpu["ecc_uncorrected"], schema, old_card),
        *_counters("aggregate", gpu["ecc_uncorrected_aggregate"], schema, old_card),
    )
    lines += _block("retired_pages", _tag("pending_retirement", _word(gpu["retired_pending"], "Yes", "No")))
    if gpu["remap_pending"] is None and gpu["remap_failure"] is None:
        lines.append(_tag("remapped_rows", "N/A"))
    else:
        told = [_tag(f"remapped_row_{key}", _word(gpu[f"remap_{key}"], "Yes", "No")) for key in ("pending", "failure")]
        lines += _block("remapped_rows", _tag("remapped_row_corr", 5), *told)
    lines += _block("temperature", _tag("gpu_temp", _amount(gpu["temperature_c"], "C")), _tag("memory_temp", "77 C"))
    power = _amount(gpu["power_w"], "W")
    if schema == "v11":
        lines += _block("power_readings", _tag("power_draw", power), _tag("power_limit", "700.00 W"))
    elif schema == "v12":
        lines += _block("gpu_power_readings", _tag("power_draw", power), _tag("max_power_limit", "700.00 W"))
    else:
        instant = "N/A" if gpu["power_w"] is None else "1.00 W"  # what is told where there is no average
        lines += _block("gpu_power_readings", _tag("average_power_draw", power), _tag("instant_power_draw", instant))
    if schema != "v11":
        health = _block("health", _tag("summary", gpu["fabric_health"] or "N/A")) if schema == "v13" else []
        states = [_tag(key, gpu[f"fabric_{key}"] or "N/A") for key in ("state", "status")]
        lines += _block("fabric", *states, *health)
    for process in processes:
        lines += _block(
            "process_info",
            _tag("pid", process["pid"]),
            _tag("type", "C"),
            _tag("process_name", process["name"] or "N/A"),
            _tag("used_memory", _amount(process["memory_mib"], "MiB")),
        )
    inner = _block("processes", *lines[lines.index("<process_info>") :]) if processes else _block("processes")
    body = lines[: lines.index("<process_info>")] if processes else lines
    return [f'<gpu id="{address}">', *("\t" + line for line in [*body, *inner]), "</gpu>"]


def write_log(state: dict, schema: str = "v13", old_card: bool = False) -> str:
    """Return the document that nvidia-smi would print for what parse_log returns."""
    lines = [_tag("timestamp", "Tue Jul 14 09:00:44 2026")]
    lines += [_tag(key, state[key]) for key in ("driver_version", "cuda_version")]
    lines.append(_tag("attached_gpus", len(state["gpus"])))
    for gpu in state["gpus"]:
        own = [process for process in state["processes"] if process["gpu_index"] == gpu["index"]]
        lines += _gpu(gpu, own, schema, old_card)
    head = f'<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_{schema}.dtd">\n'
    return head + "\n".join(_block("nvidia_smi_log", *lines)) + "\n"


def _make_state(count: int = 2, processes: tuple[dict, ...] = (), **values: object) -> dict:
    gpus = [
        dict(
            BLANK_GPU,
            index=number,
            bus_id=f"0000:{number + 1:02x}:00.0",
            uuid=f"GPU-{number:08d}-2222-3333-4444-555555555555",
            **values,
        )
        for number in range(count)
    ]
    return {"driver_version": "590.48.01", "cuda_version": "13.1", "gpus": gpus, "processes": list(processes)}


@pytest.fixture
def document():
    """Function that writes the XML of a state: document(state, schema, old_card)."""
    return write_log


@pytest.fixture
def make_state():
    """Function that makes the state of healthy GPUs 0000:01:00.0 and on: make_state(count, processes, name=...)."""
    return _make_state


@pytest.fixture
def blank_gpu():
    """One GPU as parse_log returns it."""
    return dict(BLANK_GPU)


class Tree:
    """A fake root with /proc and /sys, and a folder of programs that is the whole PATH but for a shell's own."""

    def __init__(self, root, programs) -> None:
        self.root = root
        self.programs = programs

    def file(self, name: str, content: str) -> None:
        """Write a file of the tree, such as file("proc/modules", "...")."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def device(self, bus_id: str, vendor: str = "0x10de", kind: str = "0x030200", driver: str = "nvidia") -> None:
        """Put a device on the PCI bus."""
        base = f"sys/bus/pci/devices/{bus_id}"
        for name, content in (("vendor", vendor), ("class", kind), ("device", "0x2330")):
            self.file(f"{base}/{name}", content + "\n")
        if driver:
            target = self.root / "sys/bus/pci/drivers" / driver
            target.mkdir(parents=True, exist_ok=True)
            (self.root / base / "driver").symlink_to(target)

    def program(self, name: str, script: str) -> str:
        """Write a shell script that the PATH finds, and return its path."""
        path = self.programs / name
        path.write_text("#!/bin/sh\nPATH=/usr/bin:/bin\n" + script + "\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def smi(self, log: str, query: str = "", topo: str = "", end: str = "exit 0", listing: str = "") -> str:
        """Write an nvidia-smi that prints these texts, then does ``end``."""
        for name, text in (("log", log), ("query", query), ("topo", topo), ("listing", listing)):
            (self.programs / f"{name}.txt").write_text(text, encoding="utf-8")
        return self.program(
            "nvidia-smi",
            f"cd '{self.programs}'\n"
            'case "$1" in\n'
            f'-q) [ "$2" = -x ] || exit 2; [ -n "$4" ] && exec cat "one-$4.txt"; cat log.txt; {end};;\n'
            f"--query-gpu=index,uuid,pci.bus_id,compute_cap) cat query.txt; {end};;\n"
            f'topo) [ "$2" = -m ] && cat topo.txt; {end};;\n'
            f"-L) cat listing.txt; {end};;\n"
            "*) exit 2;;\nesac",
        )


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """An empty Tree."""
    root, programs = tmp_path / "root", tmp_path / "programs"
    programs.mkdir()
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    (root / "proc").mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return Tree(root, programs)
