# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection's readers make of an emulated host is what its state says, key by key."""

from __future__ import annotations

import functools
import os
import tempfile

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import commands
from ansible_collections.baremetal.llm.plugins.module_utils.ascend.reader import NpuReader
from ansible_collections.baremetal.llm.plugins.module_utils.nvidia.reader import GpuReader
from ansible_collections.baremetal.llm.tests.testbed import states
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import (
    hccn_tool,
    layout,
    npu_smi,
    nvidia_smi,
    program,
)
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import state as emulated
from hypothesis import given
from hypothesis import strategies as st

ANSWERS = {"npu-smi": npu_smi.answer, "hccn_tool": hccn_tool.answer, "nvidia-smi": nvidia_smi.answer}
ASCEND = [name for name in states.names() if states.load(name)["ascend"]]
NVIDIA = [name for name in states.names() if states.load(name)["nvidia"]]
SAME_OF_CHIP = (
    *("npu_id", "chip_id", "logic_id", "phy_id", "name", "health", "power_w", "temperature_c", "bus_id"),
    *("aicore_percent", "memory_total_mib", "memory_used_mib", "error_codes"),
)
SAME_OF_GPU = (
    *("index", "uuid", "name", "serial", "product_architecture", "memory_total_mib", "memory_used_mib"),
    *("memory_reserved_mib", "compute_capability", "mig", "ecc_mode", "ecc_uncorrected", "ecc_uncorrected_aggregate"),
    *("remap_pending", "remap_failure", "retired_pending", "persistence_mode", "temperature_c", "power_w"),
)
LAYOUTS = {"910A": "910", "910B": "910"}
# Seconds for one read; no test waits for it.
PATIENCE = 300


@pytest.fixture(autouse=True)
def inside(monkeypatch):
    """Answer the calls of emulators inside this process, which is what makes hundreds of them affordable."""
    true_run, load = commands.run, functools.lru_cache(maxsize=1)(emulated.load)
    monkeypatch.setenv(hccn_tool.UID_VARIABLE, "0")

    def run(argv, timeout, **settings):
        name = os.path.basename(argv[0])
        if name not in ANSWERS:
            return true_run(argv, timeout, **settings)
        state = load(os.environ[emulated.VARIABLE])
        fault = program.fault_of(state, name.replace("-", "_"), argv[1:])
        said = ANSWERS[name](state, argv[1:], fault)
        return commands.Outcome(said.code, said.stdout, said.stderr, "")

    monkeypatch.setattr(commands, "run", run)


def read(reader, state: dict) -> dict:
    """Return what the reader makes of a host in this state."""
    with tempfile.TemporaryDirectory() as root:
        layout.lay_out(state, root)
        os.environ[emulated.VARIABLE] = os.path.join(root, emulated.PATH.lstrip("/"))
        try:
            return reader(root=root, timeout=PATIENCE).read()
        finally:
            del os.environ[emulated.VARIABLE]


def short(bus_id: str) -> str:
    """Return an address as /sys has it."""
    return bus_id[-12:].lower()


def same_chips(facts: dict, state: dict) -> None:
    ascend = emulated.validate(state)["ascend"]
    assert facts["available"] is bool(ascend["chips"])
    told = [{key: chip[key] for key in SAME_OF_CHIP} for chip in facts["chips"]]
    assert told == [{key: chip[key] for key in SAME_OF_CHIP} for chip in ascend["chips"]]
    assert facts["processes"] == ascend["processes"]
    assert facts["lost"] == []
    assert facts["problems"] == []
    for chip in facts["chips"]:
        assert (chip["software_version"], chip["firmware_version"]) == (ascend["version"], ascend["firmware"])
        assert chip["product"] == ("" if ascend["product"] == "NA" else ascend["product"])
        assert chip["memory_kind"] == ("DDR" if ascend["layout"] in ("310", "310P") else "HBM")


def same_network(facts: dict, state: dict) -> None:
    devices = emulated.validate(state)["ascend"]["network"]
    wanted = [
        {
            "phy_id": device["phy_id"],
            "link": device["link"],
            "net_health": device["net_health"],
            "ip": device["ip"],
            "netmask": device["netmask"] if device["ip"] else "",
            "gateway": device["gateway"],
            "netdetect": device["netdetect"],
            "tls": device["tls"],
            "conf_ip": device["conf"]["address"] or "",
            "conf_netmask": device["conf"]["netmask"] or "",
            "conf_gateway": device["conf"]["gateway"] or "",
            "conf_tls": None if device["conf"]["tls_enable"] is None else bool(device["conf"]["tls_enable"]),
        }
        for device in devices
    ]
    assert facts["network"] == wanted


@pytest.mark.parametrize("name", ASCEND)
def test_ready_made_ascend_host(name):
    state = states.load(name)
    ascend = state["ascend"]
    facts = read(NpuReader, state)
    same_chips(facts, state)
    same_network(facts, state)
    assert facts["reason"] == ""
    assert (facts["driver_version"], facts["firmware_version"]) == (ascend["version"], ascend["firmware"])
    assert (facts["compatibility"], facts["tool_version"]) == (ascend["compatibility"], ascend["version"])
    assert facts["layout"] == LAYOUTS.get(ascend["layout"], ascend["layout"])
    assert facts["install"] == ascend["install"]
    assert facts["cann"] == ascend["cann"]
    assert facts["conf_disagreements"] == []
    assert facts["device_nodes"] == {
        "davinci": [chip["phy_id"] for chip in ascend["chips"]],
        "manager": True,
        "devmm_svm": True,
        "hisi_hdc": True,
    }
    assert {device["bus_id"] for device in facts["pci"]} == {short(chip["bus_id"]) for chip in ascend["chips"]}


def same_gpus(facts: dict, state: dict) -> None:
    nvidia = emulated.validate(state)["nvidia"]
    major = int(nvidia["driver_version"].split(".")[0])
    assert [{key: gpu[key] for key in SAME_OF_GPU} for gpu in facts["gpus"]] == [
        {key: gpu[key] for key in SAME_OF_GPU} for gpu in nvidia["gpus"]
    ]
    for place, gpu in enumerate(nvidia["gpus"]):
        told = facts["gpus"][place]
        assert told["bus_id"] == short(gpu["bus_id"])
        assert told["mig_devices"] == len(gpu["mig_devices"])
        assert told["recovery_action"] == (gpu["recovery_action"] if major >= 570 else "")
        if major >= 535:
            assert (told["fabric_state"], told["fabric_status"]) == (gpu["fabric_state"], gpu["fabric_status"])
        if nvidia["schema"] == "v13":
            assert told["fabric_health"] == gpu["fabric_health"]
        if nvidia["schema"] == "v12" and major < 570:
            assert told["reset_required"] is gpu["reset_required"]
    assert facts["processes"] == nvidia["processes"]
    assert (facts["driver_version"], facts["cuda_version"]) == (nvidia["driver_version"], nvidia["cuda_version"])
    assert facts["schema"] == nvidia["schema"]
    assert facts["lost"] == []
    assert facts["problems"] == []


def links_of(matrix: dict) -> dict:
    names = list(matrix)
    return {
        name: {names[place]: word for place, word in enumerate(row.split()) if names[place] != name}
        for name, row in matrix.items()
    }


@pytest.mark.parametrize("name", NVIDIA)
def test_ready_made_nvidia_host(name):
    state = states.load(name)
    nvidia = state["nvidia"]
    facts = read(GpuReader, state)
    same_gpus(facts, state)
    assert (facts["available"], facts["reason"]) == (True, "")
    assert facts["topology"] == {
        "links": links_of(nvidia["topology"]["matrix"]),
        "nics": nvidia["topology"]["nics"],
        "cpu_affinity": nvidia["topology"]["cpu_affinity"],
        "numa_affinity": nvidia["topology"]["numa_affinity"],
    }
    assert facts["fabric_manager"] == nvidia["fabric_manager"]
    assert facts["kernel_module"] == {"version": nvidia["driver_version"], "peermem": True}
    assert facts["container_toolkit"]["version"] == nvidia["container_toolkit"]["version"]
    assert {(card["bus_id"], card["device_id"]) for card in facts["pci"]} == {
        (short(gpu["bus_id"]), gpu["device_id"]) for gpu in nvidia["gpus"]
    }


def test_the_same_through_true_processes(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv(hccn_tool.UID_VARIABLE, "0")
    state = states.host("a2_910b4_1")
    for part in ("chips", "network"):
        del state["ascend"][part][1:]
    facts = read(NpuReader, state)
    same_chips(facts, state)
    same_network(facts, state)
    assert facts["tools"]["npu_smi"].endswith("/usr/local/bin/npu-smi")
    same_gpus(read(GpuReader, states.load("h100x8")), states.load("h100x8"))


def test_host_without_accelerators():
    npus, cards = read(NpuReader, states.load("bare")), read(GpuReader, states.load("bare"))
    assert (npus["available"], npus["chips"]) == (False, [])
    assert (cards["available"], cards["gpus"]) == (False, [])
    assert npus["reason"]
    assert cards["reason"]


def test_lost_devices_are_found_on_the_bus():
    npus = read(NpuReader, states.host("a2_910b4_1", faults={"npu_smi": {"lost": [3]}}))
    assert [entry["bus_id"] for entry in npus["lost"]] == ["0000:82:00.0"]
    assert [chip["npu_id"] for chip in npus["chips"]] == [0, 1, 2, 4, 5, 6, 7]
    cards = read(GpuReader, states.host("h100x8", faults={"nvidia_smi": {"lost": [3]}}))
    assert cards["lost"] == [{"bus_id": "0000:61:00.0", "reason": "Unknown Error"}]
    assert [gpu["index"] for gpu in cards["gpus"]] == [0, 1, 2, 4, 5, 6, 7]


# Random hosts ----------------------------------------------------------------------------------------------------

VERSIONS = {
    "910A": ["22.0.3.1", "23.0.5"],
    "910B": ["23.0.rc2", "24.1.rc3", "24.1.0.3", "25.2.0", "25.5.1", "26.0.rc1"],
    "A3": ["24.1.rc3.3", "25.5.1", "26.0.rc1"],
    "310P": ["24.1.rc3.1", "25.5.1"],
}
NAMES = {
    "910A": ["910A"],
    "910B": ["910B1", "910B2C", "910B3", "910B4", "910B4-1"],
    "A3": ["Ascend910"],
    "310P": ["310P3"],
}
WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_.:/", min_size=1, max_size=15)
HEALTHY_OR_NOT = [
    "Success",
    "Init",
    "Socket fail",
    "Receive timeout",
    "Unreachable",
    "Time exceeded",
    "Fault",
    "Unknown",
]


@st.composite
def ascend_hosts(draw) -> dict:
    """Hosts with one to three cards of one kind."""
    kind = draw(st.sampled_from(sorted(VERSIONS)))
    # A3 has two dies on each card, 310P one chip or two.
    per_card = {"A3": 2, "310P": draw(st.sampled_from([1, 2]))}.get(kind, 1)
    chips = []
    name, total = draw(st.sampled_from(NAMES[kind])), draw(st.sampled_from([21527, 32768, 65536, 110000]))
    for card in range(draw(st.integers(1, 3))):
        npu_id = 96 + 256 * card if kind == "310P" else card
        for chip_id in range(per_card):
            power = draw(st.integers(0, 9999)) / 10
            silent = kind == "310P" or (kind == "A3" and chip_id == 1)
            health = draw(st.sampled_from(["OK", "Warning", "Alarm", "Critical", "UNKNOWN"]))
            chips.append(
                {
                    "npu_id": npu_id,
                    "chip_id": chip_id,
                    "logic_id": len(chips),
                    "phy_id": len(chips),
                    "name": name,
                    "health": health,
                    "error_codes": draw(st.lists(st.from_regex("[0-9A-F]{8}", fullmatch=True), max_size=2))
                    if health != "OK"
                    else [],
                    "power_w": None if silent else power,
                    "temperature_c": draw(st.integers(0, 120)),
                    "bus_id": f"0000:{0xC1 + (card if kind == '310P' else len(chips)):02X}:00.0",
                    "aicore_percent": draw(st.integers(0, 100)),
                    "memory_total_mib": total,
                    "memory_used_mib": draw(st.integers(0, total)),
                    "ddr_total_mib": 15077 if kind == "910A" else 0,
                    "ddr_used_mib": draw(st.integers(0, 15077)) if kind == "910A" else 0,
                }
            )
    places = st.sampled_from([(chip["npu_id"], chip["chip_id"]) for chip in chips])
    # The table has the processes of a card together, in the order of the cards.
    found = sorted(draw(st.lists(places, max_size=3)))
    processes = [
        {
            "npu_id": npu_id,
            "chip_id": chip_id,
            # No two processes have the same number.
            "pid": 1000 * (place + 1) + draw(st.integers(0, 999)),
            "name": draw(WORDS),
            "memory_mib": draw(st.integers(0, total)),
        }
        for place, (npu_id, chip_id) in enumerate(found)
    ]
    network = [] if kind == "310P" else [draw(devices(chip["phy_id"])) for chip in chips]
    return {
        "ascend": {
            "layout": kind,
            "version": draw(st.sampled_from(VERSIONS[kind])),
            "chips": chips,
            "processes": processes,
            "network": network,
            "product": draw(st.sampled_from(["NA", "Atlas 800I A2"])),
        }
    }


@st.composite
def devices(draw, phy_id: int) -> dict:
    """Network devices; one without an address has no gateway either."""
    address = draw(st.sampled_from(["", f"10.0.{phy_id}.7"]))
    known = {"gateway": f"10.0.{phy_id}.1"} if address and draw(st.booleans()) else {}
    return {
        "phy_id": phy_id,
        "ip": address,
        "link": draw(st.sampled_from(["UP", "DOWN"])),
        "net_health": draw(st.sampled_from(HEALTHY_OR_NOT)),
        "netdetect": draw(st.sampled_from(["", "10.0.0.1"])),
        "tls": draw(st.booleans()),
        **known,
    }


@given(ascend_hosts())
def test_random_ascend_hosts(state):
    facts = read(NpuReader, state)
    same_chips(facts, state)
    same_network(facts, state)


@st.composite
def nvidia_hosts(draw) -> dict:
    """Hosts with one to four GPUs behind one driver."""
    schema, driver = draw(
        st.sampled_from(
            [
                ("v11", "515.105.01"),
                ("v12", "535.104.05"),
                ("v12", "570.133.20"),
                ("v13", "590.48.01"),
                ("v13", "595.58.03"),
            ]
        )
    )
    maybe = st.sampled_from([True, False, None])
    cards = []
    for index in range(draw(st.integers(1, 4))):
        mig = draw(maybe)
        remap = draw(st.sampled_from([(None, None), (True, False), (False, True), (False, False)]))
        errors = draw(st.none() | st.integers(0, 99))
        cards.append(
            {
                "index": index,
                "uuid": f"GPU-{draw(st.integers(0, 2**28 - 1)):07x}{index}-0000-1111-2222-333333333333",
                "name": draw(
                    st.sampled_from(["NVIDIA H200", "NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-32GB", "A & <B>"])
                ),
                "serial": draw(st.from_regex("[0-9]{13}", fullmatch=True)),
                "bus_id": f"00000000:{0x10 + index:02X}:00.0",
                "device_id": "0x2330",
                "memory_total_mib": 81559,
                "memory_used_mib": draw(st.integers(0, 80000)),
                "memory_reserved_mib": draw(st.integers(0, 1000)),
                "compute_capability": draw(st.sampled_from(["7.0", "8.0", "9.0", "10.3"])),
                "mig": mig,
                "mig_devices": [{"profile": "1g.10gb", "uuid": "MIG-0"}] * (draw(st.integers(0, 3)) if mig else 0),
                "ecc_mode": draw(maybe),
                "ecc_uncorrected": errors,
                "ecc_uncorrected_aggregate": errors,
                "remap_pending": remap[0],
                "remap_failure": remap[1],
                "retired_pending": draw(maybe),
                "persistence_mode": draw(st.booleans()),
                "fabric_state": draw(st.sampled_from(["", "Not Started", "In Progress", "Completed"])),
                "fabric_status": draw(st.sampled_from(["", "Success", "Unknown Error code"])),
                "temperature_c": draw(st.none() | st.integers(-5, 120)),
                "power_w": draw(st.none() | st.integers(0, 99999).map(float)),
                "recovery_action": draw(st.sampled_from(["None", "Reset", "Reboot", "Drain P2P"])),
            }
        )
    processes = [
        {
            "gpu_index": card["index"],
            "pid": draw(st.integers(1, 4194304)),
            "name": draw(WORDS),
            "memory_mib": draw(st.none() | st.integers(0, 80000)),
        }
        for card in cards
        if draw(st.booleans())
    ]
    settings = {"driver_version": driver, "cuda_version": "12.8", "schema": schema}
    return {"nvidia": {**settings, "gpus": cards, "processes": processes}}


@given(nvidia_hosts())
def test_random_nvidia_hosts(state):
    same_gpus(read(GpuReader, state), state)
