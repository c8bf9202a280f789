# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.nvidia.reader import GpuReader

KEYS = {
    "available", "reason", "driver_version", "cuda_version", "schema", "gpus", "lost", "processes", "topology",
    "fabric_manager", "container_toolkit", "device_links", "kernel_module", "pci", "tools", "problems",
}  # fmt: skip
TOPO = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-9\nGPU1\tNV18\t X \t0-9\n\nLegend:\n"
LOST = (
    "Unable to determine the device handle for GPU1: 0000:02:00.0: GPU is lost.  Reboot the system to recover this GPU"
)


def read(tree, **parameters):
    """Return what is read; whatever it is has every key and can be sent as JSON."""
    result = GpuReader(root=str(tree.root), **{"timeout": 20, **parameters}).read()
    assert set(result) == KEYS
    json.dumps(result)
    assert result["available"] is bool(result["gpus"])
    assert bool(result["reason"]) is not result["available"]
    assert all("\n" not in text for text in [result["reason"], *result["problems"]])
    return result


def rows(state, skip=()):
    return "".join(
        f"{gpu['index']}, {gpu['uuid']}, 0000{gpu['bus_id'].upper()}, 9.0\n"
        for gpu in state["gpus"]
        if gpu["index"] not in skip
    )


def on_bus(tree, state):
    for gpu in state["gpus"]:
        tree.device(gpu["bus_id"])


# A host where all is well -----------------------------------------------------------------------------------------


def test_a_healthy_host(tree, document, make_state):
    processes = ({"gpu_index": 1, "pid": 7, "name": "python", "memory_mib": 1000},)
    state = make_state(2, processes)
    path = tree.smi(document(state), rows(state), TOPO)
    on_bus(tree, state)
    tree.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  590.48.01  Mon\n")
    assert read(tree) == {
        "available": True,
        "reason": "",
        "driver_version": "590.48.01",
        "cuda_version": "13.1",
        "schema": "v13",
        "gpus": [dict(gpu, compute_capability="9.0") for gpu in state["gpus"]],
        "lost": [],
        "processes": list(processes),
        "topology": {
            "links": {"GPU0": {"GPU1": "NV18"}, "GPU1": {"GPU0": "NV18"}},
            "nics": {},
            "cpu_affinity": {"GPU0": "0-9", "GPU1": "0-9"},
            "numa_affinity": {},
        },
        "fabric_manager": {"installed": False, "active": None, "version": "", "nvswitches": 0},
        "container_toolkit": {"installed": False, "version": "", "path": ""},
        "device_links": False,
        "kernel_module": {"version": "590.48.01", "peermem": False},
        "pci": [{"bus_id": gpu["bus_id"], "device_id": "0x2330", "driver": "nvidia"} for gpu in state["gpus"]],
        "tools": {"nvidia_smi": path},
        "problems": [],
    }


@pytest.mark.parametrize("code", [1, 6, 9, 15, 255])
def test_the_exit_status_does_not_decide(tree, document, make_state, code):
    state = make_state()
    tree.smi(document(state), rows(state), TOPO, end=f"exit {code}")
    on_bus(tree, state)
    result = read(tree)
    assert result["available"] is True
    assert (result["lost"], result["problems"]) == ([], [])


def test_nvidia_smi_in_a_usual_folder(tree, document, make_state):
    script = tree.smi(document(make_state()))
    (tree.root / "usr/bin").mkdir(parents=True)
    os.rename(script, tree.root / "usr/bin/nvidia-smi")
    result = read(tree)
    assert result["tools"] == {"nvidia_smi": f"{tree.root}/usr/bin/nvidia-smi"}
    assert result["available"] is True


def test_a_fabric_manager_of_another_version_is_reported_and_not_judged(tree, document, make_state):
    state = make_state()
    tree.smi(document(state), rows(state), TOPO)
    tree.program("nv-fabricmanager", "echo 'Fabric Manager version is : 535.104.05'")
    tree.program("systemctl", "echo active")
    tree.program("nvidia-ctk", "echo 'NVIDIA Container Toolkit CLI version 1.17.4'")
    tree.device("0000:c0:00.0", kind="0x068000")
    result = read(tree)
    assert result["fabric_manager"] == {"installed": True, "active": True, "version": "535.104.05", "nvswitches": 1}
    assert result["driver_version"] == "590.48.01"
    assert result["container_toolkit"]["version"] == "1.17.4"
    assert result["problems"] == []


# GPUs that are lost -----------------------------------------------------------------------------------------------


def without(state, *indexes):
    return dict(state, gpus=[gpu for gpu in state["gpus"] if gpu["index"] not in indexes])


@pytest.mark.parametrize("code", [0, 15])
@pytest.mark.parametrize("stream", ["", ">&2"])
def test_a_lost_gpu_leaves_a_gap(tree, document, make_state, code, stream):
    state = make_state(4, ({"gpu_index": 3, "pid": 7, "name": "x", "memory_mib": 1},))
    log = document(without(state, 1))
    tree.smi(log, rows(state, skip=[1]), TOPO, end=f"echo '{LOST}' {stream}; exit {code}")
    on_bus(tree, state)
    result = read(tree)
    assert [gpu["index"] for gpu in result["gpus"]] == [0, 2, 3]
    assert [gpu["compute_capability"] for gpu in result["gpus"]] == ["9.0"] * 3
    assert [process["gpu_index"] for process in result["processes"]] == [3]
    assert result["lost"] == [
        {"bus_id": "0000:02:00.0", "reason": "GPU is lost. Reboot the system to recover this GPU"}
    ]
    assert result["problems"] == []


@pytest.mark.parametrize(
    ("driver", "bound"), [("nvidia", "the driver nvidia"), ("vfio-pci", "the driver vfio-pci"), ("", "no driver")]
)
def test_a_lost_gpu_that_only_the_pci_bus_knows(tree, document, make_state, driver, bound):
    state = make_state(2)
    tree.smi(document(state), rows(state), TOPO)
    on_bus(tree, state)
    tree.device("0000:0a:00.0", driver=driver)
    assert read(tree)["lost"] == [
        {"bus_id": "0000:0a:00.0", "reason": f"on the PCI bus, bound to {bound}, and not listed by nvidia-smi"}
    ]


def test_a_lost_gpu_that_only_the_driver_knows(tree, document, make_state):
    state = make_state(2)
    tree.smi(document(state), rows(state), TOPO)
    on_bus(tree, state)
    tree.file("proc/driver/nvidia/gpus/0000:0a:00.0/information", "")
    lost = [{"bus_id": "0000:0a:00.0", "reason": "known to the driver, and not listed by nvidia-smi"}]
    assert read(tree)["lost"] == lost


def test_all_gpus_are_lost(tree, make_state):
    state = make_state(2)
    tree.smi("No devices were found\n", "No devices were found\n", "", end="exit 6")
    on_bus(tree, state)
    result = read(tree)
    assert [entry["bus_id"] for entry in result["lost"]] == ["0000:01:00.0", "0000:02:00.0"]
    assert "No devices were found; the PCI bus has 2 NVIDIA GPUs" in result["reason"]


def test_a_gpu_that_vanishes_between_two_calls(tree, document, make_state):
    state = make_state(2)
    tree.smi(document(state), rows(state, skip=[1]) + LOST + "\n", TOPO)
    on_bus(tree, state)
    result = read(tree)
    assert [gpu["index"] for gpu in result["gpus"]] == [0, 1]
    assert [entry["bus_id"] for entry in result["lost"]] == ["0000:02:00.0"]
    assert "may be wrong" in result["problems"][0]


def test_a_gpu_that_only_one_call_tells_of(tree, document, make_state):
    state = make_state(3)
    tree.smi(document(without(state, 1)), rows(state), TOPO)
    on_bus(tree, state)
    result = read(tree)
    assert [gpu["index"] for gpu in result["gpus"]] == [0, 2]
    assert result["lost"] == []
    assert result["problems"] == ["GPU 0000:02:00.0 is told by nvidia-smi --query-gpu and not by -q -x"]


def test_a_document_that_is_cut_makes_no_gpu_lost(tree, document, make_state):
    state = make_state(3)
    text = document(state)
    tree.smi(text[: text.rindex("<gpu ") + 300], "", TOPO)
    on_bus(tree, state)
    result = read(tree)
    assert [gpu["index"] for gpu in result["gpus"]] == [0, 1]
    assert result["lost"] == []
    assert any("not whole" in problem for problem in result["problems"])
    assert any("may be wrong" in problem for problem in result["problems"])


def test_a_lost_gpu_that_keeps_the_log_from_being_told(tree, document, make_state):
    state = make_state(4, ({"gpu_index": 3, "pid": 7, "name": "x", "memory_mib": 1},))
    tree.smi(LOST + "\n", rows(state, skip=[1]) + LOST + "\n", "")
    on_bus(tree, state)
    for gpu in state["gpus"]:
        alone = document(dict(state, gpus=[gpu])).replace("<attached_gpus>1<", "<attached_gpus>4<")
        (tree.programs / f"one-{gpu['bus_id']}.txt").write_text(alone, encoding="utf-8")
    result = read(tree)
    assert result["available"] is True
    assert result["gpus"] == [dict(gpu, compute_capability="9.0") for gpu in without(state, 1)["gpus"]]
    assert result["processes"] == state["processes"]
    assert [entry["bus_id"] for entry in result["lost"]] == ["0000:02:00.0"]
    assert result["problems"] == [
        "nvidia-smi -q -x told of no GPU at all; each was asked for by itself",
        "nvidia-smi topo -m printed no matrix",
    ]


def test_gpus_that_answer_for_another_are_not_taken(tree, document, make_state):
    state = make_state(3)
    tree.smi("", rows(state), TOPO)
    for gpu, told in zip(state["gpus"], (2, 1, None), strict=True):
        text = "" if told is None else document(dict(state, gpus=[state["gpus"][told]]))
        (tree.programs / f"one-{gpu['bus_id']}.txt").write_text(text, encoding="utf-8")
    result = read(tree)
    assert [gpu["index"] for gpu in result["gpus"]] == [1]
    assert [gpu["bus_id"] for gpu in result["gpus"]] == ["0000:02:00.0"]
    assert [problem[:16] for problem in result["problems"][1:]] == ["GPU 0000:01:00.0", "GPU 0000:03:00.0"]


# Indexes ----------------------------------------------------------------------------------------------------------


def test_an_older_nvidia_smi_that_does_not_know_compute_cap(tree, document, make_state):
    state = make_state(2)
    listing = "".join(f"GPU {gpu['index'] + 4}: {gpu['name']} (UUID: {gpu['uuid']})\n" for gpu in state["gpus"])
    query = 'Field "compute_cap" is not a valid field to query.\n'
    tree.smi(document(state, "v11"), query, TOPO, end="exit 0", listing=listing)
    result = read(tree)
    assert [(gpu["index"], gpu["compute_capability"]) for gpu in result["gpus"]] == [(4, ""), (5, "")]
    assert result["problems"] == ["this nvidia-smi does not know the field compute_cap; no compute capability is told"]


def test_gpus_of_one_uuid_are_told_apart_by_their_address(tree, document, make_state):
    state = make_state(2)
    for gpu in state["gpus"]:
        gpu["uuid"] = "GPU-00000000-0000-0000-0000-000000000000"
    text = rows(state).replace("0, GPU", "9, GPU", 1)
    tree.smi(document(state), text, TOPO)
    assert [gpu["index"] for gpu in read(tree)["gpus"]] == [9, 1]


def test_two_rows_with_one_index_are_not_believed(tree, document, make_state):
    state = make_state(2)
    tree.smi(document(state), rows(state).replace("1, GPU", "0, GPU", 1), TOPO)
    result = read(tree)
    assert [gpu["index"] for gpu in result["gpus"]] == [0, 1]
    assert "may be wrong" in result["problems"][0]


# Hosts that cannot be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "parameters", "reason"),
    [
        (0, {}, "nvidia-smi is not on this host, and the PCI bus has no NVIDIA GPU"),
        (8, {}, "nvidia-smi is not on this host, and the PCI bus has 8 NVIDIA GPUs; install the NVIDIA driver"),
        (1, {"nvidia_smi": "/no/such/tool"}, "/no/such/tool is no program here, and the PCI bus has 1 NVIDIA GPU"),
    ],
)
def test_no_nvidia_smi(tree, make_state, gpus, parameters, reason):
    on_bus(tree, make_state(gpus))
    result = read(tree, **parameters)
    assert result["reason"] == reason
    assert len(result["pci"]) == gpus
    assert (result["lost"], result["problems"], result["tools"]) == ([], [], {"nvidia_smi": ""})


def test_no_pci_bus(tmp_path, tree):
    tree.root = tmp_path / "nothing"
    result = read(tree)
    assert result["reason"] == "nvidia-smi is not on this host, and the PCI bus cannot be read"
    assert result["problems"] == [f"{tree.root}/sys/bus/pci/devices cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        (
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.126",
            [
                "Driver/library version mismatch (kernel module 570.124.06, library 580.126)",
                "reboot, or unload and load",
            ],
        ),
        (
            "Failed to initialize NVML: Driver/library version mismatch",
            ["Driver/library version mismatch (kernel module 570.124.06);", "reboot, or unload and load"],
        ),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure",
            ["couldn't communicate", "is installed and built for this kernel", "rebooted", "secure boot"],
        ),
        (LOST, ["GPU is lost", "reboot the host"]),
        (
            "Segmentation fault (core dumped)",
            ["ended with 18 and printed no GPU that can be read: 'Segmentation fault"],
        ),
        ("", ["ended with 18 and printed no GPU that can be read: ''"]),
    ],
)
@pytest.mark.parametrize("stream", ["", ">&2"])
def test_failures_with_their_remedy(tree, make_state, said, parts, stream):
    on_bus(tree, make_state(2))
    tree.file(
        "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Rel\n"
    )
    tree.program("nvidia-smi", f"cat {stream} <<'END'\n{said}\nEND\nexit 18")
    result = read(tree)
    assert all(part in result["reason"] for part in parts)
    assert "the PCI bus has 2 NVIDIA GPUs" in result["reason"]
    assert [entry["bus_id"] for entry in result["lost"]] == (["0000:02:00.0"] if said == LOST else [])
    assert result["problems"] == []


@pytest.mark.parametrize(
    "script",
    [
        "echo garbage",
        "printf '\\377\\376\\000\\001'",
        "head -c 5000000 /dev/zero | tr '\\0' '<'",
        "echo '<nvidia_smi_log></nvidia_smi_log>'",
        "echo '<!DOCTYPE x [<!ENTITY a \"b\">]><nvidia_smi_log>&a;</nvidia_smi_log>'",
        "kill -9 $$",
    ],
)
def test_garbage(tree, script):
    tree.program("nvidia-smi", script)
    result = read(tree)
    assert "printed no GPU that can be read" in result["reason"]
    assert len(result["reason"]) < 500
    assert result["topology"]["links"] == {}


def test_an_nvidia_smi_that_hangs(tree, make_state):
    on_bus(tree, make_state(8))
    tree.program("nvidia-smi", "exec sleep 600")
    tree.program("nvidia-ctk", "exec sleep 600")
    result = read(tree, timeout=0.3)
    assert re.fullmatch(
        r"nvidia-smi -q -x did not end within 0\.[0-9]+ s, and the PCI bus has 8 NVIDIA GPUs;"
        r" a driver that hangs needs a reboot, see dmesg",
        result["reason"],
    )
    assert "did not end within" in result["problems"][0]  # the container toolkit


def test_a_call_that_hangs_beside_one_that_answers(tree, document, make_state):
    state = make_state(2)
    tree.smi(document(state))
    tree.program("nvidia-smi", f'[ "$1" = -q ] && exec cat {tree.programs}/log.txt\nexec sleep 600')
    result = read(tree, timeout=2)
    assert [gpu["index"] for gpu in result["gpus"]] == [0, 1]
    assert len(result["problems"]) == 2
    assert all("did not end within" in problem for problem in result["problems"])


def test_no_time_at_all(tree, document, make_state):
    tree.smi(document(make_state()))
    result = read(tree, timeout=0)
    assert "was not asked: the 0 s of this read were over" in result["reason"]


def test_the_calls_run_at_the_same_time(tree, document, make_state):
    """Each waits until the two others have begun, so that one after the other would never end."""
    state = make_state(2)
    tree.smi(document(state), rows(state), TOPO)
    script = (tree.programs / "nvidia-smi").read_text(encoding="utf-8")
    wait = f"cd '{tree.programs}'; : > began.$1; until [ $(ls began.* | wc -l) = 3 ]; do sleep 0.02; done\n"
    tree.program("nvidia-smi", wait + script)
    assert read(tree)["problems"] == []


def test_a_program_that_may_not_be_run(tree):
    path = tree.programs / "tool"
    path.write_text("no program", encoding="utf-8")
    path.chmod(0o755)
    result = read(tree, nvidia_smi=str(path))
    assert "nvidia-smi -q -x cannot be started: " in result["reason"]


def test_read_can_be_called_again(tree, document, make_state):
    state = make_state(2)
    reader = GpuReader(root=str(tree.root), timeout=20)
    assert reader.read()["available"] is False
    tree.smi(document(state), "garbage", TOPO)
    first, second = reader.read(), reader.read()
    assert first == second
    assert len(first["problems"]) == 1


def test_this_machine():
    result = GpuReader(timeout=20).read()
    assert set(result) == KEYS
    assert bool(result["reason"]) is not result["available"]
    json.dumps(result)
