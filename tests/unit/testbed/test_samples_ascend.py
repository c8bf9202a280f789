# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What npu-smi and hccn_tool print for a state, against what the true tools printed for the machine it describes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import layout
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import state as emulated

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = Path(os.environ.get("LLM_SAMPLES") or ROOT.parent / "shared" / "samples") / "ascend"

# npu, chip, phy id; name, health, watts, degrees, AI core %; bus id; used and total memory.
A2_24 = """0 0 0 910B3 OK 98.9 38 0 0000:C1:00.0 3382 65536
1 0 1 910B3 OK 101.0 39 0 0000:C2:00.0 3594 65536
2 0 2 910B3 OK 98.2 39 0 0000:81:00.0 3594 65536
3 0 3 910B3 OK 99.3 40 0 0000:82:00.0 3595 65536
4 0 4 910B3 OK 95.0 40 0 0000:01:00.0 3597 65536
5 0 5 910B3 OK 102.8 44 0 0000:02:00.0 3594 65536
6 0 6 910B3 OK 102.4 44 0 0000:41:00.0 3593 65536
7 0 7 910B3 OK 92.5 43 0 0000:42:00.0 3594 65536"""
A1_22 = """0 0 0 910A OK 67.2 43 0 0000:61:00.0 0 32768
1 0 1 910A OK 63.3 38 0 0000:DB:00.0 0 32768
2 0 2 910A OK 64.8 34 0 0000:B2:00.0 0 32768
3 0 3 910A OK 191.7 42 0 0000:3E:00.0 0 32768
4 0 4 910A OK 66.4 44 0 0000:60:00.0 0 32768
5 0 5 910A OK 62.7 33 0 0000:DA:00.0 0 32768
6 0 6 910A OK 64.5 35 0 0000:B1:00.0 0 32768
7 0 7 910A OK 191.4 40 0 0000:3D:00.0 0 32768"""
A3_24 = """0 0 0 Ascend910 OK 182.0 36 0 0000:9D:00.0 3402 65536
0 1 1 Ascend910 OK - 35 0 0000:9F:00.0 3200 65536
1 0 2 Ascend910 OK 181.0 35 0 0000:99:00.0 3396 65536
1 1 3 Ascend910 OK - 36 0 0000:9B:00.0 3205 65536
2 0 4 Ascend910 OK 176.9 34 0 0000:95:00.0 3395 65536
2 1 5 Ascend910 OK - 34 0 0000:97:00.0 3203 65536
3 0 6 Ascend910 OK 181.2 36 0 0000:91:00.0 3395 65536
3 1 7 Ascend910 OK - 35 0 0000:93:00.0 3203 65536
4 0 8 Ascend910 OK 179.8 36 0 0000:8D:00.0 52553 65536
4 1 9 Ascend910 OK - 37 0 0000:8F:00.0 52358 65536
5 0 10 Ascend910 OK 183.8 37 0 0000:89:00.0 52567 65536
5 1 11 Ascend910 OK - 36 0 0000:8B:00.0 52345 65536
6 0 12 Ascend910 OK 185.9 37 0 0000:85:00.0 52552 65536
6 1 13 Ascend910 OK - 36 0 0000:87:00.0 52358 65536
7 0 14 Ascend910 OK 182.1 34 0 0000:81:00.0 52554 65536
7 1 15 Ascend910 OK - 36 0 0000:83:00.0 52358 65536"""
A3_26 = """0 0 0 Ascend910 OK 204.0 43 100 0000:9D:00.0 59807 65536
0 1 1 Ascend910 OK - 40 60 0000:9F:00.0 59536 65536
5 0 10 Ascend910 OK 159.6 39 0 0000:89:00.0 3140 65536
5 1 11 Ascend910 OK - 40 0 0000:8B:00.0 2882 65536"""
DUO = """1536 0 0 310P3 OK - 51 0 0000:06:00.0 1596 44280
1536 1 1 310P3 OK - 50 0 0000:06:00.0 1325 43693
1792 0 2 310P3 OK - 51 0 0000:07:00.0 1452 44280
1792 1 3 310P3 OK - 51 0 0000:07:00.0 1444 43693
2048 0 4 310P3 OK - 50 0 0000:08:00.0 1353 44280
2048 1 5 310P3 OK - 49 0 0000:08:00.0 1529 43693
2304 0 6 310P3 OK - 52 0 0000:09:00.0 1656 44280
2304 1 7 310P3 OK - 50 0 0000:09:00.0 1278 43693"""
I310_20 = """215 0 0 310 OK 12.8 56 0 0000:DA:00.0 2703 8192
215 1 1 310 OK 12.8 57 0 0000:DC:00.0 2703 8192
215 2 2 310 OK 12.8 57 0 0000:DD:00.0 2703 8192
215 3 3 310 OK 12.8 55 0 0000:DB:00.0 2703 8192"""
I310_21 = """6 0 3 310 OK 12.8 73 0 0000:89:00.0 2703 8192
6 1 4 310 OK 12.8 74 0 0000:8A:00.0 2867 8192
6 2 5 310 OK 12.8 70 0 0000:8B:00.0 2867 8192
6 3 6 310 OK 12.8 65 0 0000:8C:00.0 2867 8192"""
B1_23 = """0 0 0 910B1 OK 88.4 46 0 0000:C1:00.0 4175 65536
1 0 1 910B1 OK 92.1 47 0 0000:01:00.0 4175 65536
7 0 7 910B1 OK 92.7 48 0 0000:42:00.0 4174 65536"""
ALARM = """0 0 0 910B4-1 OK 91.8 36 0 0000:C1:00.0 3451 65536
1 0 1 910B4-1 OK 89.4 37 0 0000:C2:00.0 3436 65536
7 0 7 910B4-1 Alarm 310.5 88 96 0000:42:00.0 65000 65536"""
B4_26 = "0 0 0 910B4 OK 82.6 32 0 0000:C1:00.0 2871 32768"
B4_1 = "0 0 0 910B4-1 OK 103.5 39 0 0000:C1:00.0 3451 65536"
P3 = "96 0 0 310P3 OK - 46 0 0000:04:00.0 1836 21527"
N950 = "0 0 0 xxx OK 204.4 56 0 0000:91:00.0 4439 86016"
EIGHT = "\n".join(f"{number} 0 {number} 910B4-1 OK 90.1 34 0 0000:C1:00.0 3451 65536" for number in range(8))


def npus(kind: str, version: str, rows: str, extra: dict | None = None, **settings) -> dict:
    """Return the state of a host with these chips; `extra` goes into each of them."""
    chips = []
    for row in rows.splitlines():
        npu, chip, phy, name, health, watts, degrees, busy, bus, used, total = row.split()
        chips.append(
            {
                "npu_id": int(npu),
                "chip_id": int(chip),
                "logic_id": int(phy),
                "phy_id": int(phy),
                "name": name,
                "health": health,
                "power_w": None if watts == "-" else float(watts),
                "temperature_c": int(degrees),
                "aicore_percent": int(busy),
                "bus_id": bus,
                "memory_used_mib": int(used),
                "memory_total_mib": int(total),
                **(extra or {}),
            }
        )
    return {"ascend": {"layout": kind, "version": version, "chips": chips, **settings}}


def same(text: str) -> str:
    """Take the sample as it is."""
    return text


def no_margin(text: str) -> str:
    """The sample's origin lost or expanded the tabs at the beginning of lines."""
    return re.sub(r"(?m)^[ \t]+", "", text)


def no_ids(text: str) -> str:
    """The sample's origin put xxx where the chip's name was, and lost the tabs."""
    return no_margin(text).replace("Ascend 910B3", "Ascend xxx").replace("Ascend 310P3", "Ascend xxx")


def up_to_processes(text: str) -> str:
    """The sample's origin cut or changed the table of processes."""
    lines = text.splitlines()
    cut = next((number for number, line in enumerate(lines) if "Process id" in line), len(lines) + 1)
    return "\n".join(lines[: cut - 1])


def true_rows(text: str) -> str:
    """As above; and the last chip of the sample was made up, its memory in a column that is too wide."""
    return up_to_processes(text).replace("65000 / 65536        |", "65000/ 65536         |")


def one_blank(text: str) -> str:
    """The rows of the sample do not agree on their own blanks."""
    return re.sub(" +", " ", text)


def no_gap(text: str) -> str:
    """The sample's origin left out rows, and wrote three dots for them."""
    lines = text.splitlines()
    gaps = [number for number, line in enumerate(lines) if line == "..."]
    # The rule after the dots belongs to the rows that are left out.
    return "\n".join(line for number, line in enumerate(lines) if number not in gaps and number - 1 not in gaps)


def no_last_rule(text: str) -> str:
    """The sample's origin lost the last rule."""
    lines = text.splitlines()
    return "\n".join(lines[:-1] if lines[-1].startswith("+=") else lines)


def busy(npu_ids, pids: list, name: str, memory: int) -> list:
    """Return a process on each of two chips of these cards."""
    places = [(npu_id, chip_id) for npu_id in npu_ids for chip_id in (0, 1)]
    return [
        {"npu_id": place[0], "chip_id": place[1], "pid": pids[number], "name": name, "memory_mib": memory}
        for number, place in enumerate(places)
    ]


VLLM = busy(range(4, 8), [957687, 957770, 957790, 957852, 957876, 957912, 957957, 958011], "pt_main_thread", 49207)
WORKERS = busy([0], [1774110, 1777209], "VLLMWorker_PP", 56684)
OLD_PAGES = {"hugepages_used": 15, "hugepages_total": 15, "ddr_total_mib": 15077, "ddr_used_mib": 1867}
DUO_BOARD = {
    "product_name": "IT21PD2G10",
    "board_id": "0xb1",
    "pcb_id": "E",
    "bom_id": "3",
    "subsystem_vendor_id": "0x0200",
    "subsystem_device_id": "0x0110",
}
A1_BOARD = {
    "board_id": "0x02",
    "pcb_id": "NA",
    "vdie_id": "42C711D4 20B03704 4A10C8D4 14CC040A D2102003",
    "ndie_id": "27216594 20401010 4E10C8D4 14CC040A A4102003",
}
DUO_CARD = """2944 0 0 310P3 OK - 60 0 0000:0C:00.0 1596 44280
2944 1 1 310P3 OK - 59 0 0000:0C:00.0 1325 43693"""
DUO_ONE = DUO_CARD.replace("2944", "1").replace("0C", "01")
# The maps of one 910A host and of one with four Duo cards.
MAP_DUO = "\n".join(
    f"{npu} {chip} {2 * place + chip} 310P3 OK - 50 0 0000:0{npu}:00.0 1 44280"
    for place, npu in enumerate((1, 2, 4, 5))
    for chip in (0, 1)
)
ALARM_CODES = {
    "health": "Alarm",
    "error_codes": ["A4025021", "8C03A000", "8C084E00"],
    "error_information": [
        "ascend_monitor adda heart beat lost error",
        "node type=process-manager, sensor type=General Software, "
        "event state=The process start failed or exit abnormally",
        "node type=adda, sensor type=Heartbeat Sensor, event state=Heartbeat Lost.",
    ],
}
TOPO = {"link": "HCCS", "cpu_affinity": ["144-167", "0-23", "144-167", "0-23", "96-119", "48-71", "96-119", "48-71"]}
FULL_910 = {"ddr_total_mib": 15171, "ddr_used_mib": 460}

NPU_SMI = [
    ("npu-smi_info__910B3__24.1.0.3__8x64GB", npus("910B", "24.1.0.3", A2_24), "info", up_to_processes),
    ("npu-smi_info__910B1__23.0.rc2", npus("910B", "23.0.rc2", B1_23, process_table=False), "info", no_gap),
    ("npu-smi_info__910B4-1__25.2.0__alarm", npus("910B", "25.2.0", ALARM), "info", true_rows),
    ("npu-smi_info__910B4__26.0.rc1", npus("910B", "26.0.rc1", B4_26), "info", no_last_rule),
    ("npu-smi_info__910C-A3__24.1.rc3.3__8npu16die", npus("A3", "24.1.rc3.3", A3_24, processes=VLLM), "info", same),
    ("npu-smi_info__910C-A3__26.0.rc1__processes", npus("A3", "26.0.rc1", A3_26, processes=WORKERS), "info", same),
    ("npu-smi_info__310P3-Duo__24.1.0.1__4card8chip", npus("310P", "24.1.0.1", DUO), "info", same),
    ("npu-smi_info__310P3__24.1.rc3.1", npus("310P", "24.1.rc3.1", P3), "info", same),
    ("npu-smi_info__310__20.2.0", npus("310", "20.2.0", I310_20, process_table=False), "info", same),
    (
        "npu-smi_info__310__21.0.4",
        npus("310", "21.0.4", I310_21, {"hugepages_total": 970}, version_long="21.0.4.B030", process_table=False),
        "info",
        one_blank,
    ),
    ("npu-smi_info__950", npus("950", "x.x.x", N950), "info", same),
    ("npu-smi_info_-l__910B__8npu", npus("910B", "25.5.1", EIGHT), "info -l", no_margin),
    ("npu-smi_info_-l__no_card", npus("910B", "25.5.1", ""), "info -l", same),
    ("npu-smi_info_-m__910A__23.0.5", npus("910A", "23.0.5", A1_22, mcu=None), "info -m", same),
    ("npu-smi_info_-m__310P-Duo__with_mcu", npus("310P", "24.1.0", MAP_DUO), "info -m", no_ids),
    (
        "npu-smi_info_-t_board__910B4-1__25.5.1",
        npus(
            "910B",
            "25.5.1",
            B4_1,
            {"serial_number": "1025C9048791", "slot_id": "0"},
            board={"product_name": "IT21HMDC_Bin5"},
        ),
        "info -t board -i 0",
        no_margin,
    ),
    (
        "npu-smi_info_-t_board__310P3-Duo__25.5.1",
        npus("310P", "25.5.1", DUO_CARD, {"serial_number": "2106030737ZERC003572"}, board=DUO_BOARD),
        "info -t board -i 2944",
        no_margin,
    ),
    (
        "npu-smi_info_-t_board_-c__910A__23.0.5",
        npus("910A", "23.0.5", A1_22, firmware="7.1.0.7.220", board=A1_BOARD),
        "info -i 0 -c 0 -t board",
        same,
    ),
    ("npu-smi_info_-t_board__invalid_card", npus("910A", "23.0.7", B1_23), "info -i 2 -t board", same),
    (
        "npu-smi_info_-t_common__310P-Duo",
        npus(
            "310P",
            "24.1.0",
            DUO_ONE,
            aicore={"freq_mhz": 1080, "current_mhz": 960},
            mcu={"temperature_c": 48, "power_w": 45.2},
        ),
        "info -t common -i 1",
        no_margin,
    ),
    (
        "npu-smi_info_-t_common__910B__800I-A2",
        npus("910B", "24.1.0", "1 0 1 910B4 OK 130.4 46 6 0000:01:00.0 59800 65536"),
        "info -t common -i 1",
        no_margin,
    ),
    (
        "npu-smi_info_-t_common__910__mcu",
        npus(
            "910A",
            "23.0.5",
            "0 0 0 910A OK 69.0 46 0 0000:01:00.0 0 32768",
            {"ddr_total_mib": 15171, "ddr_used_mib": 950},
            aicore={"count": 32, "freq_mhz": 1000, "current_mhz": 1000},
            mcu={"temperature_c": 48, "power_w": 45.2},
        ),
        "info -t common -i 0",
        no_margin,
    ),
    (
        "npu-smi_info_-t_usages__310P-Duo",
        npus("310P", "24.1.0", DUO_ONE, {"ctrlcpu_percent": 2, "memory_bandwidth_percent": 51}),
        "info -t usages -i 1",
        # The two chips are not equally busy in the sample.
        lambda text: no_margin(text).replace(
            "Ctrlcpu Usage Rate(%)          : 3", "Ctrlcpu Usage Rate(%)          : 2"
        ),
    ),
    (
        "npu-smi_info_-t_usages__910",
        npus("910A", "23.0.5", "0 0 0 910A OK 69.0 46 0 0000:01:00.0 0 32768", {**FULL_910, "ctrlcpu_percent": 9}),
        "info -t usages -i 0",
        no_margin,
    ),
    (
        "npu-smi_info_-t_usages__910B__25.5.1",
        npus("910B", "25.5.1", B4_1, {"ctrlcpu_percent": 6}),
        "info -t usages -i 0",
        no_margin,
    ),
    (
        "npu-smi_info_-t_memory__310P3-Duo",
        npus("310P", "25.5.1", DUO_CARD, {"memory_physical_mib": 49152}, memory_clock_mhz=451),
        "info -t memory -i 2944",
        # The first chip has 2 MB less here than in every other sample.
        lambda text: no_margin(text).replace(": 44278\n", ": 44280\n"),
    ),
    ("npu-smi_info_-t_health__310P3-Duo", npus("310P", "25.5.1", DUO_CARD), "info -t health -i 2944", no_margin),
    ("npu-smi_info_-t_health_-c__ok", npus("910A", "23.0.5", A1_22), "info -i 0 -c 0 -t health", same),
    (
        "npu-smi_info_-t_health__alarm__910A",
        npus("910A", "23.0.7", A1_22, ALARM_CODES),
        "info -i 0 -c 0 -t health",
        same,
    ),
    ("npu-smi_info_-t_power__910B__25.5.1", npus("910B", "25.5.1", B4_1), "info -t power -i 0", no_margin),
    (
        "npu-smi_info_-t_temp__910B__25.5.1",
        npus("910B", "25.5.1", B4_1, mcu={"temperature_c": 36}),
        "info -t temp -i 0",
        no_margin,
    ),
    (
        "npu-smi_info_-t_product__310P3-Duo",
        npus("310P", "25.5.1", DUO_CARD, product="Atlas 300I Duo", mcu=None),
        "info -t product -i 2944",
        no_margin,
    ),
    ("npu-smi_info_-t_ecc__910", npus("910A", "23.0.5", A1_22), "info -i 0 -t ecc", no_margin),
    ("npu-smi_info_-t_topo__910B__8npu", npus("910B", "25.5.1", EIGHT, topology=TOPO), "info -t topo", same),
]
FAILED_DCMI = [
    ("npu-smi_info__dcmi_init_failed", "dcmi_init"),
    ("npu-smi_info__dcmi_init_failed_nonroot", "dcmi_init_nonroot"),
    ("npu-smi_info__dcmi_device_used", "dcmi_used"),
]


def present(cases: list) -> list:
    return [pytest.param(*case, id=case[0]) for case in cases if (SAMPLES / f"{case[0]}.txt").exists()]


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "state", "arguments", "normalise"), present(NPU_SMI))
def test_npu_smi_prints_what_the_true_tool_printed(say, name, state, arguments, normalise):
    assert normalise(say("npu-smi", state, *arguments.split()).stdout) == normalise(sample(name))


@pytest.mark.parametrize("name", present([("npu-smi_info__910A__22.0.3.1",)]))
def test_the_old_table_of_910a(say, name):
    state = npus("910A", "22.0.3.1", A1_22, OLD_PAGES, process_table=False)
    # What each chip uses of its ordinary memory, in the order of the cards.
    for place, used in enumerate((1867, 1867, 1868, 1866, 1867, 1865, 1865, 1866)):
        state["ascend"]["chips"][place]["ddr_used_mib"] = used
    assert say("npu-smi", state, "info").stdout == sample(name)


@pytest.mark.parametrize("name", present([("npu-smi__bad_option",)]))
@pytest.mark.parametrize(
    "arguments", ["xyz", "info -x", "info -t board -i", "info -t board -t board", "info -z 1 -i 0"]
)
def test_an_unknown_option_is_refused_and_the_usage_follows(say, name, arguments):
    said = say("npu-smi", npus("910B", "25.5.1", B4_1), *arguments.split())
    assert said.code != 0
    assert said.stdout.startswith(sample(name) + "Usage: npu-smi ")


@pytest.mark.parametrize(("name", "failure"), present(FAILED_DCMI))
def test_dcmi_that_does_not_start(say, name, failure):
    said = say("npu-smi", npus("910B", "25.5.1", B4_1), "info", failure=failure)
    assert (said.stdout, said.code) == (sample(name), 255)


@pytest.mark.parametrize("name", present([("npu-smi_info_watch__910B",)]))
def test_watch_prints_a_line_for_each_chip_again_and_again(say, name):
    head, *rows = sample(name).splitlines(keepends=True)
    chip = "2 0 2 910B4-1 OK 90.1 34 0 0000:C1:00.0 3451 65536"
    said = say("npu-smi", npus("910B", "25.5.1", chip, {"ctrlcpu_percent": 2}), "info", "watch")
    assert (said.stdout, said.again) == (head, rows[0])


def device(**settings) -> dict:
    """Return the state of a host with one network device."""
    return {"ascend": {"layout": "910B", "version": "24.1.0", "network": [{"phy_id": 0, **settings}]}}


HEALTHS = ["detect_ip_set", "fault", "init", "receive_timeout", "socket_fail", "socket_failed", "success"]
HEALTHS += ["thread_error", "time_exceeded", "unknown", "unreachable"]
SOURCE = {"layout": "910B", "version": "25.5.1", "network": [{"phy_id": 0, "netdetect": "11.12.165.1"}]}
HCCN = [
    ("link_-g__up", device(), "-link -g"),
    ("link_-g__down", device(link="DOWN"), "-link -g"),
    ("ip_-g", device(ip="192.161.200.10"), "-ip -g"),
    ("ip_-g__unset", device(), "-ip -g"),
    ("gateway_-g", device(gateway="11.12.165.1"), "-gateway -g"),
    ("netdetect_-g__old", device(netdetect="11.12.165.1"), "-netdetect -g"),
    ("netdetect_-g__new", {"ascend": SOURCE}, "-netdetect -g"),
    ("stat_-g__short", device(), "-stat -g"),
    *[
        (f"net_health_-g__{health}", device(net_health=health.replace("_", " ").capitalize()), "-net_health -g")
        for health in HEALTHS
    ],
]


@pytest.mark.parametrize(
    ("name", "state", "arguments"), present([(f"hccn_tool_-{name}", *rest) for name, *rest in HCCN])
)
def test_hccn_tool_prints_what_the_true_tool_printed(say, name, state, arguments):
    assert say("hccn_tool", state, "-i", "0", *arguments.split()).stdout == sample(name)


@pytest.mark.parametrize(
    ("name", "switch"), present([("hccn_tool_-tls_-g__switch0", False), ("hccn_tool_-tls_-g__switch1", True)])
)
def test_the_line_of_the_tls_switch(say, name, switch):
    said = say("hccn_tool", device(tls=switch), "-i", "0", "-tls", "-g").stdout
    # The samples went through grep.
    assert "".join(line for line in said.splitlines(keepends=True) if "switch" in line) == sample(name)


def no_times(text: str) -> str:
    """Every answer of the emulator takes equally long; one origin lost the first line."""
    return re.sub("(?m)time=.*$", "time=", re.sub("^device.*\n", "", text))


@pytest.mark.parametrize(
    ("name", "address", "lost"),
    present([("hccn_tool_-ping_-g__ok", "11.12.165.80", []), ("hccn_tool_-ping_-g__loss33", "10.10.100.10", [0])]),
)
def test_ping(say, name, address, lost):
    state = {**device(), "fabric": {address: {"lost": lost}}}
    said = say("hccn_tool", state, "-i", "0", "-ping", "-g", "address", address).stdout
    assert said.splitlines()[0] == f"device 0 PING {address}"
    assert no_times(said) == no_times(sample(name))


@pytest.mark.parametrize("name", present([("hccn_tool_-link_stat_-g",)]))
def test_link_statistics_have_the_same_keys(say, name):
    said = say("hccn_tool", device(link_up_count=2), "-i", "0", "-link_stat", "-g").stdout
    assert said.splitlines()[1:3] == sample(name).splitlines()[1:3]


def conf(addresses: str, mask: str, **others) -> list:
    """Return devices 0, 1, ... whose lines in hccn.conf hold these addresses."""
    return [
        {"phy_id": number, "conf": {"address": address, "netmask": mask, **others}}
        for number, address in enumerate(addresses.split())
    ]


EIGHT_ADDRESSES = " ".join(f"127.0.0.{last}" for last in (45, 226, 83, 190, 208, 247, 118))
CONF_FILES = [
    (
        "hccn.conf__8npu",
        conf(
            EIGHT_ADDRESSES, "255.255.0.0", netdetect="127.0.0.1", gateway="127.0.0.1", send_arp_status=1, tls_enable=0
        ),
    ),
    ("hccn.conf__noroute", conf(" ".join(f"10.20.11.{last}" for last in range(11, 19)), "255.255.255.0")),
]


@pytest.mark.parametrize(("name", "network"), present(CONF_FILES))
def test_hccn_conf(tmp_path, name, network):
    state = npus("910B", "24.1.0", "", network=network)
    layout.lay_out(state, str(tmp_path))
    written = (tmp_path / "etc/hccn.conf").read_text(encoding="utf-8")
    # Seven of eight devices are described above.
    assert sample(name).startswith(written)
    assert written.count("address_") == len(network)


@pytest.mark.parametrize("name", present([("driver_version.info__23.0.7",)]))
def test_version_info(tmp_path, name):
    pairs = dict(line.split("=", 1) for line in sample(name).splitlines())
    driver = {key.lower(): value for key, value in pairs.items()}
    layout.lay_out(npus("910A", "23.0.7", "", versions={"driver": driver}), str(tmp_path))
    assert (tmp_path / "usr/local/Ascend/driver/version.info").read_text(encoding="utf-8") == sample(name)


@pytest.mark.parametrize("name", present([("ascend_install.info__24.1.0",)]))
def test_install_info(tmp_path, name):
    layout.lay_out(npus("910B", "24.1.0", ""), str(tmp_path))
    assert (tmp_path / "etc/ascend_install.info").read_text(encoding="utf-8") == sample(name)


def test_every_state_above_is_whole():
    for case in NPU_SMI:
        assert emulated.validate(case[1])["ascend"]["layout"] in layout.NPU_DEVICES
