# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nvidia-smi prints for a state, against what the true tool printed for the machine it describes."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from xml.parsers import expat

import pytest

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = Path(os.environ.get("LLM_SAMPLES") or ROOT.parent / "shared" / "samples") / "nvidia"
NO_UUID = "GPU-00000000-0000-0000-0000-000000000000"

H100 = {
    "index": 0,
    "uuid": NO_UUID,
    "name": "NVIDIA H100 80GB HBM3",
    "bus_id": "00000000:00:09.0",
    "device_id": "0x2330",
    "memory_total_mib": 81559,
    "memory_reserved_mib": 479,
    "compute_capability": "9.0",
    "fabric_state": "Completed",
    "fabric_status": "Success",
    "nvlinks": 18,
}
H200 = {
    **H100,
    "name": "NVIDIA H200",
    "bus_id": "00000000:83:00.0",
    "device_id": "0x2335",
    "memory_total_mib": 143771,
    "memory_reserved_mib": 614,
}
MIG_NAMES = ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
MIG = {
    **H100,
    "mig": True,
    "mig_devices": [
        {"profile": name, "uuid": f"MIG-{number:08d}-0000-0000-0000-{number:012d}"}
        for number, name in enumerate(MIG_NAMES)
    ],
}
H100_LOAD = {**H100, "memory_used_mib": 19818, "temperature_c": 59, "power_w": 629, "utilization_percent": 100}
H200_LOAD = {**H200, "memory_used_mib": 32362, "temperature_c": 52, "power_w": 627.32, "utilization_percent": 100}
ALONE = {"matrix": {"GPU0": "X"}, "cpu_affinity": {"GPU0": "0-19"}, "numa_affinity": {"GPU0": "0"}}
ALONE_23 = {**ALONE, "cpu_affinity": {"GPU0": "0-23"}}


def gpus(*cards: dict, driver: str = "590.48.01", cuda: str = "13.1", schema: str = "v13", **settings) -> dict:
    """Return the state of a host with these GPUs."""
    return {
        "nvidia": {"driver_version": driver, "cuda_version": cuda, "schema": schema, "gpus": list(cards), **settings}
    }


def burning(*pids_and_sizes: tuple) -> list:
    """Return the processes that loaded the GPU when it was recorded."""
    names = ["/root/tools/memhog", "/root/tools/memhog", "./gpu_burn"]
    return [
        {"gpu_index": 0, "pid": pid, "name": names[place], "memory_mib": size}
        for place, (pid, size) in enumerate(pids_and_sizes)
    ]


H100_JOBS = burning((11327, 2566), (11328, 1542), (11345, 15690))
H200_JOBS = burning((10291, 2566), (10293, 1542), (10309, 28234))
H200_CLOCK = "2026-07-03T22:11:09.916"
EXACT = [
    ("h100__590.48.01__list.txt", gpus(H100), "-L"),
    ("h200__590.48.01__list.txt", gpus(H200), "-L"),
    ("h100mig__590.48.01__list.txt", gpus(MIG), "-L"),
    ("h100__590.48.01__version.txt", gpus(H100), "--version"),
    ("h100__590.48.01__nvlink_s.txt", gpus(H100), "nvlink -s"),
    ("h100mig__590.48.01__nvlink_s.txt", gpus(MIG), "nvlink -s"),
    ("h100__590.48.01__topo_m.txt", gpus(H100, topology=ALONE), "topo -m"),
    ("h200__590.48.01__topo_m.txt", gpus(H200, topology=ALONE_23), "topo -m"),
    (
        "h100__590.48.01__table_load.txt",
        gpus(H100_LOAD, clock="2026-07-14T08:12:53.742", processes=H100_JOBS),
        "",
    ),
    (
        "h100__590.48.01__table_idle.txt",
        gpus({**H100, "temperature_c": 41, "power_w": 69.4}, clock="2026-07-14T08:12:38.1"),
        "",
    ),
    (
        "h200__590.48.01__table_load.txt",
        gpus({**H200_LOAD, "power_w": 628.3}, clock=H200_CLOCK, processes=H200_JOBS),
        "",
    ),
    (
        "h200__590.48.01__query_compute_apps_load.csv",
        gpus(H200, clock=H200_CLOCK, processes=H200_JOBS),
        "--query-compute-apps=timestamp,gpu_name,gpu_bus_id,gpu_serial,gpu_uuid,pid,process_name,used_gpu_memory"
        " --format=csv",
    ),
]


def present(cases: list) -> list:
    return [pytest.param(*case, id=case[0]) for case in cases if (SAMPLES / case[0]).exists()]


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "state", "arguments"), present(EXACT))
def test_nvidia_smi_prints_what_the_true_tool_printed(say, name, state, arguments):
    assert say("nvidia-smi", state, *arguments.split()).stdout == sample(name)


A100 = {
    **H100,
    "name": "NVIDIA A100-SXM4-80GB",
    "memory_total_mib": 81920,
    "memory_used_mib": 4,
    "power_limit_w": 400,
    "fabric_state": "",
    "fabric_status": "",
}


@pytest.mark.parametrize("name", present([("table__a100x2__535.104.05.txt",)]))
def test_the_narrow_table_of_older_drivers(say, name):
    first = {**A100, "bus_id": "00000000:46:00.0", "temperature_c": 26, "power_w": 62}
    second = {**A100, "index": 1, "bus_id": "00000000:4C:00.0", "temperature_c": 31, "power_w": 65}
    state = gpus(first, second, driver="535.104.05", cuda="12.2", schema="v12")
    # The origin cut the line with the time and the table of processes.
    assert say("nvidia-smi", state).stdout.split("\n", 1)[1].startswith(sample(name))


@pytest.mark.parametrize("name", present([("table__h100__err_row.txt",)]))
def test_the_rows_of_a_gpu_that_needs_a_reset(say, name):
    sick = {**H100, "index": 5, "bus_id": "00000000:97:00.0", "temperature_c": 50, "reset_required": True}
    assert sample(name) in say("nvidia-smi", gpus(sick)).stdout


@pytest.mark.parametrize("name", present([("h100mig__590.48.01__table_idle.txt",)]))
def test_the_rows_of_a_gpu_in_mig_mode(say, name):
    card = {**MIG, "memory_used_mib": 59, "temperature_c": 42, "power_w": 98}
    said = say("nvidia-smi", gpus(card, clock="2026-07-14T09:00:26.1")).stdout
    # The table of MIG devices is not emulated.
    head = said.split("\n\n", 1)[0]
    assert sample(name).startswith(head)
    assert "Enabled" in head


QUERIED = [
    ("h200__590.48.01__query_gpu_idle.csv", {**H200, "temperature_c": 28, "power_w": 77.71}),
    (
        "h100mig__590.48.01__query_gpu_idle.csv",
        {
            **MIG,
            "memory_used_mib": 59,
            "temperature_c": 42,
            "power_w": 71.15,
            "remap_pending": None,
            "remap_failure": None,
        },
    ),
]


@pytest.mark.parametrize(("name", "card"), present(QUERIED))
def test_every_field_of_query_gpu(say, name, card):
    recorded = next(csv.DictReader(io.StringIO(sample(name)), skipinitialspace=True))
    known = re.findall('(?m)^"([^"]+)"(?: or "([^"]+)")?', say("nvidia-smi", gpus(card), "--help-query-gpu").stdout)
    fields = [first for first, _other in known]
    assert len(fields) > 20
    told = say("nvidia-smi", gpus(card), f"--query-gpu={','.join(fields)}", "--format=csv").stdout
    said = next(csv.DictReader(io.StringIO(told), skipinitialspace=True))
    # The free memory is told to the byte there, and rounded.
    for one in (said, recorded):
        del one["memory.free [MiB]"]
    assert said == {head: recorded[head] for head in said}


@pytest.mark.parametrize("name", present([("h200__590.48.01__help_query_gpu.txt",)]))
def test_every_field_is_one_of_the_true_tool(say, name):
    form = '(?m)^"([^"]+)"(?: or "([^"]+)")?$'
    assert set(re.findall(form, say("nvidia-smi", gpus(H200), "--help-query-gpu").stdout)) <= set(
        re.findall(form, sample(name))
    )


TEXTS = [
    ("h200__590.48.01__q_load.txt", gpus(H200_LOAD, clock=H200_CLOCK, processes=H200_JOBS)),
    ("h200__590.48.01__q_idle.txt", gpus({**H200, "temperature_c": 28, "power_w": 77.67})),
]
# Values that a state does not hold, or that were rounded.
UNLIKE = ("Timestamp", "Free", "Display", "GPU Part")


@pytest.mark.parametrize(("name", "state"), present(TEXTS))
def test_the_text_has_the_true_lines_in_the_true_order(say, name, state):
    said = [line for line in say("nvidia-smi", state, "-q").stdout.splitlines() if line.strip()]
    wanted = [line for line in said if not line.strip().startswith(UNLIKE) and "Requested" not in line]
    recorded = iter(sample(name).splitlines())
    missing = [line for line in wanted if line not in recorded]
    assert len(wanted) > 60
    assert missing == []


A10G = {
    **H100,
    "uuid": "GPU-9a9a6c50-2a47-2f51-a902-b82c3b127e94",
    "name": "NVIDIA A10G",
    "bus_id": "00000000:00:1E.0",
    "device_id": "0x0000",
    "product_architecture": "Ampere",
    "persistence_mode": False,
    "mig": None,
    "ecc_mode": True,
    "power_w": 25.58,
    "power_limit_w": 300,
}
A100_MIG = {
    **A100,
    "uuid": "GPU-513536b6-7d19-9063-b049-1e69664bb298",
    "serial": "1650522003820",
    "bus_id": "00000000:01:00.0",
    "device_id": "0x20B2",
    "product_architecture": "Ampere",
    "persistence_mode": False,
    "mig": True,
    "mig_devices": MIG["mig_devices"],
    "memory_used_mib": 50,
    "memory_reserved_mib": 869,
    "remap_pending": None,
    "remap_failure": None,
    "temperature_c": 27,
    "power_w": 67.03,
    "power_limit_w": 500,
}
RTX = {
    **H100,
    "uuid": "GPU-19d6d965-2acc-f646-00f8-4c76979aabb4",
    "name": "NVIDIA GeForce RTX 3080",
    "serial": "REDACTED",
    "bus_id": "00000000:0C:00.0",
    "device_id": "0x2216",
    "product_architecture": "Ampere",
    "persistence_mode": False,
    "mig": None,
    "memory_total_mib": 10240,
    "memory_reserved_mib": 397,
    "memory_used_mib": 9184,
    "ecc_mode": None,
    "ecc_uncorrected": None,
    "ecc_uncorrected_aggregate": None,
    "remap_pending": None,
    "remap_failure": None,
    "temperature_c": 27,
    "power_w": 139.62,
    "power_limit_w": 320,
    "utilization_percent": 65,
    "fabric_state": "",
    "fabric_status": "",
}
XORG = [{"gpu_index": 0, "pid": 725, "name": "/usr/lib/xorg/Xorg", "memory_mib": 22}]
# Of a state that a GPU for games or one with a display has, and no host of this testbed.
NOT_IN_A_STATE = {
    *("timestamp", "free", "attached_gpus", "product_brand", "addressing_mode", "minor_number", "fan_speed"),
    *("performance_state", "type", "pci_sub_class", "gpu_instance_id", "pci_device_id"),
}


def leaves(text: str) -> list:
    """Return the path and the text of every element, in the order of the document."""
    out, open_ones = [], []

    def start(tag: str, _attributes: dict) -> None:
        open_ones.append(tag)
        out.append(["/".join(open_ones), ""])

    def data(characters: str) -> None:
        if open_ones and out[-1][0] == "/".join(open_ones):
            out[-1][1] += characters.strip()

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: open_ones.pop()
    parser.CharacterDataHandler = data
    parser.Parse(text.encode("utf-8"), True)
    return [tuple(pair) for pair in out[1:]]


LOGS = [
    (
        "a10g__q_x__v11.xml",
        gpus(A10G, driver="515.105.01", cuda="11.7", schema="v11", processes=XORG),
        {"total", "reserved", "used", "gpu_temp", "gpu_util"},
    ),
    ("a100__q_x__v12.xml", gpus(A100_MIG, driver="535.54.03", cuda="12.2", schema="v12"), set()),
    ("rtx3080__q_x__v13.xml", gpus(RTX, driver="595.58.03", cuda="13.2", schema="v13"), set()),
]


@pytest.mark.parametrize(("name", "state", "unlike"), present(LOGS))
def test_the_xml_has_the_true_elements_in_the_true_order(say, name, state, unlike):
    text = say("nvidia-smi", state, "-q", "-x").stdout
    assert re.search("<!DOCTYPE.*>", text).group() == re.search("<!DOCTYPE.*>", sample(name)).group()

    def compared(pairs: list) -> list:
        hidden = NOT_IN_A_STATE | unlike
        return [(path, "" if path.rsplit("/", 1)[1] in hidden else value) for path, value in pairs]

    recorded = iter(compared(leaves(sample(name))))
    said = compared(leaves(text))
    missing = [pair for pair in said if pair not in recorded]
    assert len(said) > 60
    assert missing == []


FAILURES = [
    ("error__driver_not_loaded.txt", "driver_not_loaded", "590.48.01", 9),
    ("error__nvml_mismatch.txt", "nvml_mismatch", "580.126.09", 18),
    ("error__nvml_mismatch_old.txt", "nvml_mismatch", "525.60.13", 18),
    ("error__no_devices.txt", "no_devices", "590.48.01", 6),
]


@pytest.mark.parametrize(("name", "failure", "driver", "code"), present(FAILURES))
def test_a_driver_that_does_not_work(say, name, failure, driver, code):
    said = say("nvidia-smi", gpus(H100, driver=driver), failure=failure)
    assert (said.stdout, said.code) == (sample(name), code)


def four(count: int) -> dict:
    cards = [{**H100, "index": number, "bus_id": f"0000{number:04x}:01:00.0"} for number in range(count)]
    return gpus(*cards)


@pytest.mark.parametrize(
    ("name", "reason"),
    present(
        [
            ("error__gpu_lost_new.txt", "GPU is lost.  Reboot the system to recover this GPU"),
            ("error__device_handle_unknown_error.txt", "Unknown Error"),
        ]
    ),
)
def test_a_lost_gpu_is_told_on_the_other_stream_and_the_rest_keep_their_indexes(say, name, reason):
    said = say("nvidia-smi", four(4), "-L", lost=[1], lost_reason=reason)
    addresses = "(GPU[0-9]): [0-9A-F:.]+: "
    assert re.sub(addresses, "GPU: ", said.stderr) == re.sub(addresses, "GPU: ", sample(name))
    assert [line.split(":")[0] for line in said.stdout.splitlines()] == ["GPU 0", "GPU 2", "GPU 3"]
    assert said.code == 0


@pytest.mark.parametrize("name", present([("query_gpu__one_lost.txt",)]))
def test_the_list_of_a_host_with_one_lost_gpu(say, name):
    cards = [
        {**H100, "index": number, "name": "NVIDIA GeForce RTX 3080", "bus_id": f"00000000:0{number + 1}:00.0"}
        for number in range(5)
    ]
    said = say("nvidia-smi", gpus(*cards), "--query-gpu=index,pci.bus_id,name", "--format=csv,noheader", lost=[3])
    assert said.stderr + said.stdout == sample(name)


@pytest.mark.parametrize("name", present([("topo_m__h100x8__8nic.txt",)]))
def test_the_topology_of_eight_gpus_and_eight_network_cards(say, name):
    lines = sample(name).splitlines()
    rows = [line.split() for line in lines[1:17]]
    names = [row[0] for row in rows]
    topology = {
        "matrix": {row[0]: " ".join(row[1:17]) for row in rows},
        "nics": {f"NIC{number}": f"mlx5_{number}" for number in range(8)},
        "cpu_affinity": {row[0]: row[17] for row in rows[:8]},
        "numa_affinity": {row[0]: row[18] for row in rows[:8]},
    }
    said = say("nvidia-smi", gpus(*four(8)["nvidia"]["gpus"], topology=topology), "topo", "-m").stdout
    assert said.splitlines()[0].startswith("\t\x1b[4m" + "\t".join(names))
    # The origin expanded the tabs and lost the underline.
    plain = [line.split() for line in said.replace("\x1b[4m", "").replace("\x1b[0m", "").splitlines()]
    assert plain == [line.split() for line in lines]
