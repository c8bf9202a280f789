# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads hosts that are laid out in a folder, with small programs in the place of npu-smi and hccn_tool."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.ascend import reader

KEYS = {
    "available",
    "reason",
    "driver_version",
    "firmware_version",
    "compatibility",
    "layout",
    "tool_version",
    "tools",
    "chips",
    "processes",
    "network",
    "network_supported",
    "network_reason",
    "hccn_conf",
    "conf_disagreements",
    "versions",
    "install",
    "cann",
    "pci",
    "lost",
    "device_nodes",
    "problems",
}
RULE = "+" + "=" * 95 + "+\n"
HEAD = "| npu-smi 24.1.0                   Version: 24.1.0                                             |\n"
HEAD += "| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|\n"
PROCESS_HEAD = "| NPU     Chip              | Process id    | Process name    | Process memory(MB)      |\n"
GIVEN_UP = "it was not asked again"


def table(cards: int = 2, health: str = "OK") -> str:
    """The table of a server of 910B3 cards; card N has bus id 0000:CN:00.0 and 1000 + N MiB in use."""
    text = HEAD + "| Chip | Bus-Id | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB) |\n" + RULE
    for card in range(cards):
        text += f"| {card}     910B3 | {health if card == 1 else 'OK'} | 90.5   40   0    / 0 |\n"
        text += f"| 0 | 0000:C{card}:00.0 | 0   0    / 0   {1000 + card} / 65536 |\n{RULE}"
    text += PROCESS_HEAD + RULE
    return text + "".join(f"| No running processes found in NPU {card} |\n{RULE}" for card in range(cards))


def mapping(cards: int = 2) -> str:
    rows = "".join(f"\t{card}      0      {card}      Ascend 910B3\n" for card in range(cards))
    return "\tNPU ID    Chip ID    Chip Logic ID    Chip Name\n" + rows


def board(card: int, software: str = "24.1.0", compatibility: str = "OK", bus: str = "") -> str:
    return (
        f"\tNPU ID : {card}\n\tSoftware Version : {software}\n\tFirmware Version : 7.5.0.1.129\n"
        f"\tCompatibility : {compatibility}\n\tBoard ID : 0x60\n\tPCI Device ID : 0xD802\n"
        f"\tPCIe Bus Info : {bus or f'0000:C{card}:00.0'}\n"
    )


def smi_answers(cards: int = 2) -> dict:
    answers = {"info": table(cards), "info -m": mapping(cards)}
    answers.update({f"info -t board -i {card}": board(card) for card in range(cards)})
    answers["info -t product -i 0"] = "\tNPU ID : 0\n\tProduct Type : Atlas 800I A2\n\tChip ID : 0\n"
    return answers


def port_answers(devices: int = 2) -> dict:
    answers = {}
    for number in range(devices):
        told = {
            "link": "link status: UP\n",
            "net_health": "net health status: Success\n",
            "ip": f"ipaddr:10.0.0.1{number}\nnetmask:255.255.255.0\n",
            "gateway": "default gateway:10.0.0.1, Iface:eth0\n",
            "netdetect": "netdetect address: 10.0.0.1\n",
            "tls": f"dev_id:{number}, tls switch[0](0:disable, 1:enable), tls preconfigured[1]\n",
        }
        answers.update({f"-i {number} -{key} -g": text for key, text in told.items()})
    return answers


def conf(devices: int = 2) -> str:
    text = ""
    for number in range(devices):
        text += f"address_{number}=10.0.0.1{number}\nnetmask_{number}=255.255.255.0\ngateway_{number}=10.0.0.1\n"
        text += f"netdetect_{number}=10.0.0.1\ntls_enable_{number}=0\n"
    return text


class Host:
    """A host laid out below ``root``; ``read`` reads it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.smi = root / "usr/local/sbin/npu-smi"
        self.tool = root / "usr/local/Ascend/driver/tools/hccn_tool"

    def file(self, name: str, text: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def program(
        self, path: Path, answers: dict, otherwise: str = "echo 'Command or option is not found.'; exit 1"
    ) -> None:
        """Write a program that prints ``answers`` by its arguments; a list is a script to run instead."""
        lines = ["#!/bin/sh", f"echo \"$*\" >> '{path}.log'", 'case "$*" in']
        for arguments, answer in answers.items():
            script = "\n".join(answer) if isinstance(answer, list) else f"cat <<'END'\n{answer}END"
            lines += [f'"{arguments}")', script, ";;"]
        self.file(str(path.relative_to(self.root)), "\n".join([*lines, f"*) {otherwise};;", "esac\n"]))
        path.chmod(0o755)

    def calls(self, path: Path) -> list[str]:
        log = Path(f"{path}.log")
        return sorted(log.read_text(encoding="utf-8").splitlines()) if log.exists() else []

    def nodes(self, *numbers: int) -> None:
        for number in numbers:
            self.file(f"dev/davinci{number}")

    def bus(self, *bus_ids: str) -> None:
        for bus_id in bus_ids:
            for name, value in (("vendor", "0x19e5"), ("device", "0xd802"), ("class", "0x120000")):
                self.file(f"sys/bus/pci/devices/{bus_id}/{name}", value + "\n")

    def read(self, timeout: float = 60.0, **options) -> dict:
        told = reader.NpuReader(root=str(self.root), timeout=timeout, **options).read()
        assert set(told) == KEYS
        assert told["available"] == bool(told["chips"])
        assert bool(told["reason"]) != told["available"]
        return told


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A host on which nothing is installed."""
    monkeypatch.setattr(reader, "_BUSY_PAUSE", 0)
    return Host(tmp_path)


@pytest.fixture
def host(bare):
    """A whole server of two 910B3 cards."""
    bare.program(bare.smi, smi_answers())
    bare.program(bare.tool, port_answers())
    bare.file("etc/hccn.conf", conf())
    bare.file("etc/ascend_install.info", "UserGroup=HwHiAiUser\nDriver_Install_Path_Param=/usr/local/Ascend\n")
    bare.file("usr/local/Ascend/driver/version.info", "Version=24.1.0\n")
    bare.file("usr/local/Ascend/firmware/version.info", "Version=7.5.0.1.129\n")
    bare.nodes(0, 1)
    bare.bus("0000:c0:00.0", "0000:c1:00.0")
    return bare


def test_a_whole_server(host):
    told = host.read()
    assert told["problems"] == []
    chip = {
        "npu_id": 1,
        "chip_id": 0,
        "logic_id": 1,
        "phy_id": 1,
        "name": "910B3",
        "product": "Atlas 800I A2",
        "health": "OK",
        "error_codes": [],
        "power_w": 90.5,
        "temperature_c": 40,
        "bus_id": "0000:C1:00.0",
        "aicore_percent": 0,
        "memory_kind": "HBM",
        "memory_total_mib": 65536,
        "memory_used_mib": 1001,
        "firmware_version": "7.5.0.1.129",
        "software_version": "24.1.0",
    }
    assert told["chips"][1] == chip
    assert len(told["chips"]) == 2
    assert (told["driver_version"], told["firmware_version"], told["compatibility"]) == ("24.1.0", "7.5.0.1.129", "OK")
    assert (told["layout"], told["tool_version"], told["processes"], told["lost"]) == ("910", "24.1.0", [], [])
    assert told["tools"] == {"npu_smi": str(host.smi), "hccn_tool": str(host.tool)}
    assert told["network"][1] == {
        "phy_id": 1,
        "link": "UP",
        "net_health": "Success",
        "ip": "10.0.0.11",
        "netmask": "255.255.255.0",
        "gateway": "10.0.0.1",
        "netdetect": "10.0.0.1",
        "tls": False,
        "conf_ip": "10.0.0.11",
        "conf_netmask": "255.255.255.0",
        "conf_gateway": "10.0.0.1",
        "conf_tls": False,
    }
    assert (told["network_supported"], told["network_reason"], told["conf_disagreements"]) == (True, "", [])
    assert told["hccn_conf"] == {"path": "/etc/hccn.conf", "readable": True, "reason": ""}
    assert host.calls(host.smi) == sorted(smi_answers())  # each once, and no more than needed
    assert host.calls(host.tool) == sorted(port_answers())


# No chip ----------------------------------------------------------------------------------------------------------


def test_a_host_without_anything(bare, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    told = bare.read()
    assert told["reason"] == "npu-smi is not on this host; no NPU is on the PCI bus"
    assert told["tools"] == {"npu_smi": "", "hccn_tool": ""}
    assert (told["driver_version"], told["compatibility"], told["lost"], told["problems"]) == ("", "", [], [])
    assert (told["network_supported"], told["network"]) == (None, [])
    assert told["hccn_conf"]["reason"] == "No such file or directory"


def test_npus_without_a_driver(bare):
    bare.bus("0000:c0:00.0", "0000:c1:00.0")
    told = bare.read()
    assert "2 devices of family 910B are on the PCI bus and no driver answers; install driver" in told["reason"]
    assert len(told["pci"]) == 2


def test_no_npu_smi_beside_a_driver(host):
    host.smi.unlink()
    told = host.read()
    assert told["driver_version"] == "24.1.0"
    assert "driver 24.1.0 is installed: see dmesg" in told["reason"]


@pytest.mark.parametrize("given", ["nothing/npu-smi", "etc/hccn.conf"])
def test_a_given_program_that_cannot_be_run(host, given):
    told = host.read(npu_smi=str(host.root / given))
    assert "npu-smi info cannot be started" in told["reason"]
    assert host.calls(host.smi) == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (["echo 'dcmi module initialize failed. ret is -8005'", "exit 1"], "not rebooted after an upgrade"),
        (["echo 'dcmi module initialize failed. ret is -8005' >&2", "exit 0"], "ret is -8005"),
        (["echo 'dcmi model initialized failed, because the device is used. ret is -8020'"], "another container"),
        (["echo 'There is no NPU card on this server.'"], "finds no NPU"),
        (["echo nonsense"], "status 0 and it printed 'nonsense'; 2 devices of family 910B are on the PCI bus"),
        (["head -c 5000000 /dev/zero"], "no chip that can be read"),
        (["head -c 300000 /dev/urandom"], "no chip that can be read"),
        (["exit 3"], "ended with status 3 and it printed nothing"),
        (["kill -9 $$"], "ended with status -9"),
    ],
)
def test_a_tool_that_shows_no_chip(host, script, reason):
    host.program(host.smi, {"info": script})
    told = host.read()
    assert reason in told["reason"]
    assert (told["chips"], told["network"], told["lost"]) == ([], [], [])
    assert told["driver_version"] == "24.1.0"
    assert host.calls(host.smi) == ["info"]
    assert host.calls(host.tool) == []


def test_the_group_of_the_driver(host, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    host.file("etc/ascend_install.info", "UserGroup=HwHiAiUser\nDriver_Install_For_All=no\n")
    host.program(host.smi, {"info": "dcmi module initialize failed. ret is -8005\n"})
    assert "installed for the group HwHiAiUser alone" in host.read()["reason"]


# Hanging ----------------------------------------------------------------------------------------------------------


def test_npu_smi_hangs(host):
    host.program(host.smi, {}, otherwise="sleep 60")
    told = host.read(timeout=2)
    assert "npu-smi info did not end within" in told["reason"]
    assert host.calls(host.smi) == ["info"]


def test_npu_smi_hangs_later(host):
    host.program(host.smi, {"info": table()}, otherwise="sleep 60")
    told = host.read(timeout=4)
    assert [chip["memory_used_mib"] for chip in told["chips"]] == [1000, 1001]
    assert [chip["logic_id"] for chip in told["chips"]] == [None, None]
    assert host.calls(host.smi) == ["info", "info -m"]
    assert len([problem for problem in told["problems"] if GIVEN_UP in problem]) == 1
    assert told["compatibility"] == ""
    assert (told["network_supported"], told["network_reason"]) == (
        None,
        "no chip has a physical id, by which hccn_tool asks",
    )


def test_hccn_tool_hangs(host):
    host.program(host.tool, {}, otherwise="sleep 60")
    told = host.read(timeout=6)
    assert told["available"] and told["compatibility"] == "OK"
    assert told["network_supported"] is None
    assert GIVEN_UP in told["network_reason"]
    assert len(host.calls(host.tool)) <= 2  # one a device, all begun before the first was given up


def test_no_time_at_all(host):
    told = host.read(timeout=0)
    assert "no time was left to ask npu-smi" in told["reason"]
    assert host.calls(host.smi) == []


# Sources that differ ----------------------------------------------------------------------------------------------


def answered(host, **changes) -> dict:
    """Read the host with other answers of npu-smi; the keys stand for info, map, board0, board1, product."""
    names = {"info": "info", "map": "info -m", "product": "info -t product -i 0"}
    names.update({f"board{card}": f"info -t board -i {card}" for card in range(2)})
    host.program(host.smi, {**smi_answers(), **{names[key]: value for key, value in changes.items()}})
    return host.read()


def test_a_good_answer_with_a_bad_status(host):
    told = answered(host, info=[f"cat <<'END'\n{table()}END", "exit 5"])
    assert len(told["chips"]) == 2
    assert told["problems"] == ["npu-smi info ended with status 5; what it printed was used"]


def test_a_card_that_vanishes(host):
    told = answered(host, board1="Invalid card id.\nError parameter of -i\n")
    assert [chip["software_version"] for chip in told["chips"]] == ["24.1.0", ""]
    assert (told["driver_version"], told["compatibility"]) == ("24.1.0", "UNKNOWN")
    assert len(told["problems"]) == 1 and "info -t board -i 1" in told["problems"][0]


def test_a_board_of_another_card(host):
    told = answered(host, board1=board(7))
    assert told["chips"][1]["software_version"] == ""
    assert told["problems"] == ["npu-smi info -t board -i 1 does not tell of NPU 1; it is not taken"]


def test_a_row_of_another_card(host):
    told = answered(host, board1=board(1, bus="0000:C7:00.0"))
    assert told["chips"][1]["bus_id"] == "" and told["chips"][1]["memory_used_mib"] is None
    assert told["chips"][0]["memory_used_mib"] == 1000
    assert any("its bus id and its use are not taken" in problem for problem in told["problems"])
    assert told["lost"] == []


def test_the_worst_card_and_versions(host):
    told = answered(host, board1=board(1, software="24.1.rc3", compatibility="NOK"))
    assert told["compatibility"] == "NOK"
    assert told["driver_version"] == "24.1.0"  # the one of version.info, as the boards differ
    assert any("software_version differs" in problem for problem in told["problems"])


def test_a_driver_that_waits_for_a_reboot(host):
    host.file("usr/local/Ascend/driver/version.info", "Version=25.2.0\n")
    told = host.read()
    assert told["driver_version"] == "24.1.0"
    assert told["problems"] == [
        "the driver's version is told differently: 24.1.0 (-t board), 25.2.0 (version.info), 24.1.0 (npu-smi info);"
        " a reboot may be due"
    ]


def test_names_that_differ(host):
    told = answered(host, map=mapping().replace("910B3", "910B4", 1))
    assert [chip["name"] for chip in told["chips"]] == ["", "910B3"]
    assert len(told["problems"]) == 1


def test_a_table_that_was_cut(host):
    host.bus("0000:c2:00.0")
    text = table(3)
    host.program(host.smi, {**smi_answers(3), "info": text[: text.index("C2:00") + 20] + "\n"})
    told = host.read()
    assert [chip["npu_id"] for chip in told["chips"]] == [0, 1]
    assert told["lost"] == []
    listed = " ".join(told["problems"])
    assert "npu-smi info -m names 3 chips, 2 could be read from the table; not NPU 2 chip 0" in listed
    assert "3 NPUs are on the PCI bus and 2 chips could be read" in listed


def test_a_card_that_dropped_off(host):
    host.bus("0000:c7:00.0")
    told = host.read()
    assert [device["bus_id"] for device in told["lost"]] == ["0000:c7:00.0"]
    assert "npu-smi does not list it" in told["lost"][0]["reason"]


def test_what_the_table_lacks_is_asked_for(host):
    answers = {**smi_answers(), "info": table().replace("1001 / 65536", "1001 / 655#6").replace("40 ", "4x ", 1)}
    answers["info -t usages -i 1"] = "NPU ID : 1\nHBM Capacity(MB) : 65536\nAicore Usage Rate(%) : 3\nChip ID : 0\n"
    answers["info -t common -i 0"] = "NPU ID : 0\nChip ID : 0\nTemperature(C) : 41\nNPU Real-time Power(W) : 91.5\n"
    answers["info -t common -i 0"] += "Chip Name : mcu\nTemperature(C) : 30\n"
    host.program(host.smi, answers)
    first, second = host.read()["chips"]
    assert (first["temperature_c"], first["power_w"]) == (41, 91.5)
    assert (second["memory_total_mib"], second["memory_used_mib"], second["aicore_percent"]) == (65536, None, 3)
    assert host.calls(host.smi) == sorted(answers)


def test_codes_of_a_chip_that_is_ill(host):
    answers = {**smi_answers(), "info": table(health="Alarm")}
    answers["info -t health -i 1 -c 0"] = "\tHealth Status : Alarm\n\tError Code : A4025021 8C03A000\n"
    host.program(host.smi, answers)
    told = host.read()
    assert [chip["error_codes"] for chip in told["chips"]] == [[], ["A4025021", "8C03A000"]]
    assert told["chips"][1]["health"] == "Alarm"
    assert told["problems"] == []


# Numbers of a device ----------------------------------------------------------------------------------------------


def test_nodes_that_were_renumbered(host):
    (host.root / "dev/davinci0").unlink()
    host.nodes(5)
    host.program(host.tool, {})
    assert [chip["phy_id"] for chip in host.read()["chips"]] == [1, 5]


@pytest.mark.parametrize("numbers", [(2,), ()])
def test_nodes_that_are_not_one_a_chip(host, numbers):
    host.nodes(*numbers)
    if not numbers:
        (host.root / "dev/davinci1").unlink()
    told = host.read()
    assert [chip["phy_id"] for chip in told["chips"]] == [None, None]
    assert host.calls(host.tool) == []


def test_the_map_gives_the_physical_id(host):
    text = "NPU ID  Chip ID  Chip Logic ID  Chip Phy-ID  Chip Name\n"
    text += "0 0 0 1 Ascend 910B3\n0 1 - - Mcu\n1 0 1 0 Ascend 910B3\n"
    told = answered(host, map=text)
    assert [(chip["logic_id"], chip["phy_id"]) for chip in told["chips"]] == [(0, 1), (1, 0)]
    assert [port["ip"] for port in told["network"]] == ["10.0.0.10", "10.0.0.11"]


def table_of_dies(phy_ids: tuple) -> str:
    text = HEAD + "| Chip  Phy-ID | Bus-Id | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB) |\n" + RULE
    for die, phy_id in enumerate(phy_ids):
        text += f"| 0     Ascend910 | OK | {'180.0' if die == 0 else '-'}   40   0    / 0 |\n"
        text += f"| {die}     {phy_id} | 0000:9{die}:00.0 | 0   0    / 0   3402 / 65536 |\n{RULE}"
    return text + PROCESS_HEAD + RULE + f"| No running processes found in NPU 0 |\n{RULE}"


def test_dies_of_one_card(host):
    mapped = "NPU ID  Chip ID  Chip Logic ID  Chip Phy-ID  Chip Name\n0 0 0 0 Ascend910\n0 1 1 1 Ascend910\n"
    host.program(host.smi, {"info": table_of_dies((0, 1)), "info -m": mapped, "info -t board -i 0": board(0)})
    told = host.read()
    assert told["layout"] == "A3"
    assert [(chip["phy_id"], chip["power_w"], chip["memory_used_mib"]) for chip in told["chips"]] == [
        (0, 180.0, 3402),
        (1, None, 3402),
    ]
    assert len(told["network"]) == 2


def test_physical_ids_that_differ(host):
    mapped = "NPU ID  Chip ID  Chip Logic ID  Chip Phy-ID  Chip Name\n0 0 0 0 Ascend910\n0 1 1 1 Ascend910\n"
    host.program(host.smi, {"info": table_of_dies((0, 7)), "info -m": mapped, "info -t board -i 0": board(0)})
    told = host.read()
    assert [chip["phy_id"] for chip in told["chips"]] == [0, None]
    assert any("is 7 in npu-smi info and 1 in -m" in problem for problem in told["problems"])
    assert [port["phy_id"] for port in told["network"]] == [0]


# Network ----------------------------------------------------------------------------------------------------------


def test_cards_without_a_network_port(host):
    text = HEAD + "| Chip    Device | Bus-Id | AICore(%)    Memory-Usage(MB) |\n" + RULE
    for die in range(2):
        text += (
            f"| 1536    310P3 | OK | NA   51   0     / 0 |\n| {die}   {die} | 0000:06:00.0 | 0   1596 / 44280 |\n{RULE}"
        )
    text += PROCESS_HEAD + RULE + f"| No running processes found in NPU 1536 |\n{RULE}"
    mapped = "NPU ID  Chip ID  Chip Logic ID  Chip Name\n1536 0 0 Ascend 310P3\n1536 1 1 Ascend 310P3\n1536 2 - Mcu\n"
    host.program(host.smi, {"info": text, "info -m": mapped})
    told = host.read()
    assert told["layout"] == "310P"
    assert [(chip["logic_id"], chip["phy_id"], chip["memory_kind"]) for chip in told["chips"]] == [
        (0, 0, "DDR"),
        (1, 1, "DDR"),
    ]
    assert (told["network_supported"], told["network"]) == (False, [])
    assert "no network port" in told["network_reason"]
    assert host.calls(host.tool) == []


def test_the_network_is_not_asked_for(host):
    told = host.read(network=False)
    assert (told["network_supported"], told["network"]) == (None, [])
    assert host.calls(host.tool) == []


def test_no_hccn_tool(host):
    host.tool.unlink()
    told = host.read()
    assert (told["network_supported"], told["network"]) == (None, [])
    assert "hccn_tool is not on this host" in told["network_reason"]


@pytest.mark.parametrize(
    ("answer", "supported", "reason"),
    [
        ("The command is not supported on this product.", False, "no network port"),
        ("permission denied: pls check this cmd run permission.", None, "run as root"),
        ("hccn_tool is busy, please try again.", None, "is busy"),
        ("nonsense", None, "hccn_tool does not say"),
    ],
)
def test_ports_that_do_not_answer(host, answer, supported, reason):
    host.program(host.tool, {}, otherwise=f"echo '{answer}'")
    told = host.read()
    assert (told["network_supported"], told["network"], told["conf_disagreements"]) == (supported, [], [])
    assert reason in told["network_reason"]
    final = "permission" in answer or "supported" in answer
    times = 2 if final else 24 if "busy" in answer else 12
    assert len(host.calls(host.tool)) == times


def test_a_busy_tool_is_asked_once_more(host):
    busy = [f"[ -f '{host.tool}.again' ] && echo 'link status: DOWN' || echo 'hccn_tool is busy, please try again.'"]
    busy.append(f"touch '{host.tool}.again'")
    host.program(host.tool, {**port_answers(), "-i 0 -link -g": busy})
    told = host.read()
    assert [port["link"] for port in told["network"]] == ["DOWN", "UP"]
    assert told["problems"] == []
    assert host.calls(host.tool).count("-i 0 -link -g") == 2


def test_ports_that_are_not_configured(host):
    unset = "Get {} failed, because no {} was preset there!\n"
    answers = port_answers()
    answers["-i 1 -ip -g"] = unset.format("ipconf", "ip")
    answers["-i 1 -gateway -g"] = [f"echo '{unset.format('gateway', 'gateway').strip()}' >&2", "exit 1"]
    answers["-i 1 -netdetect -g"] = "netdetect address: 0.0.0.0\n"
    answers["-i 1 -tls -g"] = ["exit 1"]
    host.program(host.tool, answers)
    told = host.read()
    port = told["network"][1]
    assert (port["ip"], port["netmask"], port["gateway"], port["netdetect"], port["tls"]) == ("", "", "", "", None)
    assert port["conf_ip"] == "10.0.0.11"
    assert [entry["key"] for entry in told["conf_disagreements"]] == ["address", "netmask", "gateway", "netdetect"]
    assert told["problems"] == ["tls of device 1 is not known in full: hccn_tool ended with status 1"]


def test_half_of_an_answer(host):
    host.program(host.tool, {**port_answers(), "-i 0 -ip -g": "ipaddr:10.0.0.10\nnetmask:255.0.255.0\n"})
    told = host.read()
    assert (told["network"][0]["ip"], told["network"][0]["netmask"]) == ("10.0.0.10", None)
    assert told["problems"] == ["ip of device 0 is not known in full: hccn_tool does not say"]
    assert told["conf_disagreements"] == []


def test_a_conf_elsewhere(host):
    host.file("opt/hccn.conf", conf().replace("10.0.0.11", "10.0.0.99"))
    told = host.read(hccn_conf="/opt/hccn.conf")
    assert told["hccn_conf"]["path"] == "/opt/hccn.conf"
    assert told["conf_disagreements"] == [{"phy_id": 1, "key": "address", "conf": "10.0.0.99", "device": "10.0.0.11"}]
    told = host.read(hccn_conf="/opt/nothing")
    assert (told["hccn_conf"]["readable"], told["conf_disagreements"]) == (False, [])
    assert [told["network"][0][key] for key in ("ip", "conf_ip", "conf_netmask", "conf_tls")] == ["10.0.0.10"] + [
        None
    ] * 3


def test_where_the_tools_are(bare):
    bare.file("etc/ascend_install.info", "Driver_Install_Path_Param=/opt/npu\n")
    script = ['[ "$LD_LIBRARY_PATH" = "$WANTED" ] && echo "link status: UP"']
    libraries = [f"{bare.root}/opt/npu/driver/lib64{part}" for part in ("/common", "/driver", "")]
    script.insert(0, f"WANTED='{':'.join(libraries)}'")
    smi, tool = bare.root / "usr/local/bin/npu-smi", bare.root / "opt/npu/driver/tools/hccn_tool"
    bare.program(smi, smi_answers())
    bare.program(tool, {**port_answers(), "-i 0 -link -g": script})
    bare.nodes(0, 1)
    told = bare.read()
    assert told["tools"] == {"npu_smi": str(smi), "hccn_tool": str(tool)}
    assert told["network"][0]["link"] == "UP"


def test_problems_are_bounded(host):
    noise = "".join(f"| {number} | what |\n" for number in range(5000))
    told = answered(host, info=noise + table())
    assert len(told["problems"]) == 101
    assert told["problems"][-1].endswith("problems more")
    assert len(told["chips"]) == 2
