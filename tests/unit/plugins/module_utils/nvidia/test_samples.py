# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds the parsers against what real hosts printed, where such samples are at hand.

The values were taken from the samples by hand. LLM_SAMPLES names the folder of samples.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.nvidia import smi, topology

ROOT = Path(__file__).resolve().parents[5]
FOLDER = Path(os.environ.get("LLM_SAMPLES") or ROOT.parent / "shared" / "samples") / "nvidia"
FILES = sorted(path.name for path in FOLDER.iterdir()) if FOLDER.is_dir() else []


def matching(*patterns: str) -> list[str]:
    return [name for name in FILES if any(fnmatch(name, pattern) for pattern in patterns)]


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def gpu(name: str, bus_id: str, **told: object) -> dict:
    """Return a GPU of which only ``told`` is known; uuid and serial are held against the text itself."""
    unknown = (
        "memory_total_mib", "memory_used_mib", "memory_reserved_mib", "mig", "ecc_mode", "ecc_uncorrected",
        "ecc_uncorrected_aggregate", "remap_pending", "remap_failure", "retired_pending", "reset_required",
        "persistence_mode", "temperature_c", "power_w",
    )  # fmt: skip
    texts = ("compute_capability", "recovery_action", "fabric_state", "fabric_status", "fabric_health")
    empty = {**dict.fromkeys(unknown), **dict.fromkeys(texts, ""), "index": 0, "mig_devices": 0}
    return {**empty, "name": name, "bus_id": bus_id, **told}


LOGS = {
    "a100__q_x__v12.xml": {
        "head": ("v12", "535.54.03", "12.2"),
        "gpu": gpu(
            "NVIDIA A100-SXM4-80GB",
            "0000:01:00.0",
            product_architecture="Ampere",
            memory_total_mib=81920,
            memory_used_mib=50,
            memory_reserved_mib=869,
            mig=True,
            mig_devices=4,
            ecc_mode=True,
            ecc_uncorrected=0,
            ecc_uncorrected_aggregate=0,
            reset_required=False,
            persistence_mode=False,
            temperature_c=27,
            power_w=67.03,
        ),
        "processes": [],
        "problems": ["nvidia-smi -q -x lists 1 GPUs where it counts '4' attached ones"],
    },
    "a10g__q_x__v11.xml": {
        "head": ("v11", "515.105.01", "11.7"),
        "gpu": gpu(
            "NVIDIA A10G",
            "0000:00:1e.0",
            product_architecture="Ampere",
            memory_total_mib=23028,
            memory_used_mib=22,
            memory_reserved_mib=435,
            ecc_mode=True,
            ecc_uncorrected=0,
            ecc_uncorrected_aggregate=0,
            remap_pending=False,
            remap_failure=False,
            persistence_mode=False,
            temperature_c=17,
            power_w=25.58,
        ),
        "processes": [{"gpu_index": 0, "pid": 725, "name": "/usr/lib/xorg/Xorg", "memory_mib": 22}],
        "problems": [],
    },
    "p100__q_x.xml": {
        "head": ("v11", "510.47.03", "11.6"),
        "gpu": gpu(
            "Tesla P100-PCIE-16GB",
            "0000:00:04.0",
            product_architecture="Pascal",
            memory_total_mib=16384,
            memory_used_mib=0,
            memory_reserved_mib=103,
            ecc_mode=True,
            ecc_uncorrected=0,
            ecc_uncorrected_aggregate=0,  # the three errors of its life were corrected
            retired_pending=False,
            persistence_mode=False,
            temperature_c=38,
            power_w=26.16,
        ),
        "processes": [],
        "problems": [],
    },
    "rtx3080__q_x__v13.xml": {
        "head": ("v13", "595.58.03", "13.2"),
        "gpu": gpu(
            "NVIDIA GeForce RTX 3080",
            "0000:0c:00.0",
            product_architecture="Ampere",
            memory_total_mib=10240,
            memory_used_mib=9184,
            memory_reserved_mib=397,
            recovery_action="None",
            reset_required=False,
            persistence_mode=False,
            temperature_c=27,
            power_w=139.62,
        ),
        "processes": [],
        "problems": [],
    },
}

# GPUs 0 to 3 and cards 0 to 3 are on one socket; a GPU and the card of its number share a switch.
PAIRS = {f"GPU{a}": {f"GPU{b}": "NV18" for b in range(8) if b != a} for a in range(8)}
for one in range(8):
    PAIRS[f"NIC{one}"] = {}
    for two in range(8):
        near = "NODE" if one // 4 == two // 4 else "SYS"
        PAIRS[f"GPU{one}"][f"NIC{two}"] = PAIRS[f"NIC{one}"][f"GPU{two}"] = "PIX" if one == two else near
        if one != two:
            PAIRS[f"NIC{one}"][f"NIC{two}"] = near


def single(cpus: str) -> dict:
    return {"links": {}, "nics": {}, "cpu_affinity": {"GPU0": cpus}, "numa_affinity": {"GPU0": "0"}, "problems": []}


TOPOLOGIES = {
    "h100__590.48.01__topo_m.txt": single("0-19"),
    "h100mig__590.48.01__topo_m.txt": single("0-19"),
    "h200__590.48.01__topo_m.txt": single("0-23"),
    "topo_m__h100x8__8nic.txt": {
        "links": PAIRS,
        "nics": {f"NIC{number}": f"mlx5_{number}" for number in range(8)},
        "cpu_affinity": {f"GPU{n}": "0-47,96-143" if n < 4 else "48-95,144-191" for n in range(8)},
        "numa_affinity": {f"GPU{n}": "0" if n < 4 else "1" for n in range(8)},
        "problems": [],
    },
}
LISTS = {
    "h100__590.48.01__list.txt": ("NVIDIA H100 80GB HBM3", 0),
    "h100mig__590.48.01__list.txt": ("NVIDIA H100 80GB HBM3", 4),
    "h200__590.48.01__list.txt": ("NVIDIA H200", 0),
}
GPU_IS_LOST = "GPU is lost. Reboot the system to recover this GPU"
# For each text: kind of the failure, version of the library, and the GPUs that could not be opened.
ERRORS = {
    "error__device_handle_unknown_error.txt": ("handle", "", [("0000:44:00.0", "Unknown Error")]),
    "error__driver_not_loaded.txt": ("not_loaded", "", []),
    "error__gpu_lost.txt": ("lost", "", [("0000:05:00.0", GPU_IS_LOST)]),
    "error__gpu_lost_new.txt": ("lost", "", [("0000:01:00.0", GPU_IS_LOST)]),
    "error__no_devices.txt": ("no_devices", "", []),
    "error__nvml_mismatch.txt": ("mismatch", "580.126", []),
    "error__nvml_mismatch_old.txt": ("mismatch", "", []),
    "query_gpu__gpu_lost.txt": ("lost", "", [("0000:0a:00.0", GPU_IS_LOST)]),
    "query_gpu__one_lost.txt": ("handle", "", [("0000:04:00.0", "Unknown Error")]),
}
QUERIES = {
    "query_gpu__gpu_lost.txt": (
        ("index", "name", "pci.bus_id", "power.draw"),
        [(0, "NVIDIA GeForce RTX 3060", "0000:05:00.0", "43.33 W")],
    ),
    "query_gpu__one_lost.txt": (
        ("index", "pci.bus_id", "name"),
        [(index, f"0000:0{index + 1}:00.0", "NVIDIA GeForce RTX 3080") for index in (0, 1, 2, 4)],
    ),
}
# What nvidia-smi -q tells as text: name, address, memory in MiB, MIG, number of processes.
TEXTS = {
    "h100__590.48.01__q_idle.txt": ("NVIDIA H100 80GB HBM3", "0000:00:09.0", 81559, False, 0),
    "h100__590.48.01__q_load.txt": ("NVIDIA H100 80GB HBM3", "0000:00:09.0", 81559, False, 3),
    "h100mig__590.48.01__q_idle.txt": ("NVIDIA H100 80GB HBM3", "0000:00:09.0", 81559, True, 0),
    "h100mig__590.48.01__q_load.txt": ("NVIDIA H100 80GB HBM3", "0000:00:09.0", 81559, True, 3),
    "h200__590.48.01__q_idle.txt": ("NVIDIA H200", "0000:83:00.0", 143771, False, 0),
    "h200__590.48.01__q_load.txt": ("NVIDIA H200", "0000:83:00.0", 143771, False, 3),
}


def test_every_sample_has_what_is_expected_of_it():
    assert set(matching("*__q_x*.xml")) <= set(LOGS)
    assert set(matching("*topo_m*")) <= set(TOPOLOGIES)
    assert set(matching("*__list.txt")) <= set(LISTS)
    assert set(matching("error__*", "query_gpu__*")) <= set(ERRORS)
    assert set(matching("query_gpu__*")) <= set(QUERIES)
    assert set(matching("*__q_*.txt")) <= set(TEXTS)


@pytest.mark.parametrize("name", matching("*.xml"))
def test_logs(name):
    expected, log = LOGS[name], smi.parse_log(text_of(name))
    assert (log["schema"], log["driver_version"], log["cuda_version"]) == expected["head"]
    (told,) = log["gpus"]
    for key in ("uuid", "serial"):
        assert f"<{key}>{told.pop(key)}</{key}>" in text_of(name)
    assert told == expected["gpu"]
    assert log["processes"] == expected["processes"]
    assert log["problems"] == expected["problems"]
    assert log["whole"] is True


@pytest.mark.parametrize("name", matching("*topo_m*"))
def test_topologies(name):
    assert topology.parse_topology(text_of(name)) == TOPOLOGIES[name]


@pytest.mark.parametrize("name", matching("*__list.txt"))
def test_lists(name):
    listed = smi.parse_list(text_of(name))
    assert [(entry["index"], entry["name"], entry["mig_devices"]) for entry in listed["gpus"]] == [(0, *LISTS[name])]
    assert f"(UUID: {listed['gpus'][0]['uuid']})" in text_of(name)
    assert listed["problems"] == []


@pytest.mark.parametrize("name", matching("error__*", "query_gpu__*"))
def test_errors(name):
    kind, version, unopened = ERRORS[name]
    failed = smi.failure(text_of(name))
    assert (failed["kind"], failed["library_version"]) == (kind, version)
    assert smi.handle_errors(text_of(name)) == [{"bus_id": address, "reason": why} for address, why in unopened]
    assert smi.parse_log(text_of(name))["problems"] == ["nvidia-smi -q -x printed no XML document"]


@pytest.mark.parametrize("name", matching("query_gpu__*"))
def test_queries(name):
    fields, rows = QUERIES[name]
    expected = [dict(zip(fields, row, strict=True)) for row in rows]
    assert smi.parse_query(text_of(name), fields) == {"rows": expected, "bad_field": "", "problems": []}


def fields_of(text: str) -> dict[str, list[str]]:
    """Return the values of nvidia-smi -q by their path of headings, such as "FB Memory Usage/Total"."""
    found: dict[str, list[str]] = {}
    headings: list[tuple[int, str]] = []
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        headings = [heading for heading in headings if heading[0] < depth]
        key, colon, value = line.partition(" : ")
        path = "/".join([name for _depth, name in headings[1:]] + [key.strip()])
        if colon:
            found.setdefault(path, []).append(value.strip())
        headings.append((depth, key.strip()))
    return found


def state_of(text: str) -> dict:
    """Return what the XML of the same moment holds, as parse_log tells it."""
    told = fields_of(text)
    address = re.search(r"^GPU ([0-9A-F:.]+)$", text, re.M).group(1)

    def number(path: str) -> int | None:
        value = told[path][0].split()[0]
        return None if value == "N/A" else int(value)

    def word(path: str) -> bool | None:
        return {"Enabled": True, "Yes": True, "Disabled": False, "No": False}.get(told.get(path, ["N/A"])[0])

    def shown(path: str) -> str:
        return told[path][0].replace("N/A", "")

    def errors(scope: str) -> int:
        kinds = ("SRAM Uncorrectable Parity", "SRAM Uncorrectable SEC-DED", "DRAM Uncorrectable")
        return sum(int(told[f"ECC Errors/{scope}/{kind}"][0]) for kind in kinds)

    state = gpu(
        told["Product Name"][0],
        address.removeprefix("0000").lower(),
        uuid=told["GPU UUID"][0],
        serial=told["Serial Number"][0],
        product_architecture=told["Product Architecture"][0],
        memory_total_mib=number("FB Memory Usage/Total"),
        memory_used_mib=number("FB Memory Usage/Used"),
        memory_reserved_mib=number("FB Memory Usage/Reserved"),
        mig=word("MIG Mode/Current"),
        mig_devices=text.count("    MIG Device\n"),
        ecc_mode=word("ECC Mode/Current"),
        ecc_uncorrected=errors("Volatile"),
        ecc_uncorrected_aggregate=errors("Aggregate"),
        remap_pending=word("Remapped Rows/Pending"),
        remap_failure=word("Remapped Rows/Remapping Failure Occurred"),
        retired_pending=word("Retired Pages/Pending Page Blacklist"),
        recovery_action=told["GPU Recovery Action"][0],
        reset_required=False,
        persistence_mode=word("Persistence Mode"),
        temperature_c=number("Temperature/GPU Current Temp"),
        power_w=float(told["GPU Power Readings/Average Power Draw"][0].split()[0]),
        fabric_state=shown("Fabric/State"),
        fabric_status=shown("Fabric/Status"),
        fabric_health=shown("Fabric/Health/Summary"),
    )
    processes = [
        {"gpu_index": 0, "pid": int(pid), "name": name, "memory_mib": int(memory.split()[0])}
        for pid, name, memory in zip(
            told.get("Processes/Process ID", []),
            told.get("Processes/Process ID/Name", []),
            told.get("Processes/Process ID/Used GPU Memory", []),
            strict=True,
        )
    ]
    return {
        "driver_version": re.search(r"Driver Version +: (\S+)", text).group(1),
        "cuda_version": re.search(r"CUDA Version +: (\S+)", text).group(1),
        "gpus": [state],
        "processes": processes,
    }


@pytest.mark.parametrize("name", matching("*__q_*.txt"))
def test_texts_written_as_xml(document, name):
    state = state_of(text_of(name))
    log = smi.parse_log(document(state, "v13"))
    assert log == {**state, "schema": "v13", "whole": True, "problems": []}
    (told,) = log["gpus"]
    facts = (told["name"], told["bus_id"], told["memory_total_mib"], told["mig"], len(log["processes"]))
    assert facts == TEXTS[name]
    assert (told["fabric_state"], told["fabric_status"], told["fabric_health"]) == ("Completed", "Success", "")
    assert (told["ecc_uncorrected"], told["recovery_action"], told["persistence_mode"]) == (0, "None", True)
    assert (log["driver_version"], log["cuda_version"]) == ("590.48.01", "13.1")


@pytest.mark.parametrize("name", matching("*"))
def test_what_is_no_log_no_matrix_and_no_list_tells_nothing(name):
    text = text_of(name)
    if name not in LOGS:
        log = smi.parse_log(text)
        assert (log["gpus"], log["processes"], log["driver_version"], log["whole"]) == ([], [], "", False)
        assert log["problems"]
    if name not in TOPOLOGIES:
        told = topology.parse_topology(text)
        assert (told["links"], told["nics"], told["cpu_affinity"]) == ({}, {}, {})
        assert told["problems"]
    if name not in LISTS:
        listed = smi.parse_list(text)  # nvlink -s begins with the same line
        assert listed["gpus"] == [] or listed["problems"]
    if name not in ERRORS:
        assert smi.handle_errors(text) == []
        assert smi.failure(text) is None
    assert smi.parse_query(text, ("index", "uuid", "pci.bus_id", "compute_cap"))["rows"] == []
    assert smi.warnings(text) == []
