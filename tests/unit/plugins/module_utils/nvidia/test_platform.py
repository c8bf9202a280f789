# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import commands
from ansible_collections.baremetal.llm.plugins.module_utils.nvidia import platform

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs-builder@U16)\n"


def run(argv):
    return commands.run(argv, 20)


@pytest.fixture
def problems():
    return []


def test_devices_of_the_pci_bus(tree, problems):
    tree.device("0000:01:00.0")
    tree.device("0000:AF:00.0", kind="0x030000", driver="vfio-pci")
    tree.device("10000:02:00.0", driver="")
    tree.device("0000:c0:00.0", kind="0x068000")  # NVSwitch
    tree.device("0000:01:00.1", kind="0x040300")  # its audio
    tree.device("0000:02:00.0", vendor="0x1a03", kind="0x030000")  # a display of the board
    (tree.root / "sys/bus/pci/devices/0000:ff:00.0").mkdir()
    found = platform.pci_devices(str(tree.root), problems)
    assert found == {
        "gpus": [
            {"bus_id": "0000:01:00.0", "device_id": "0x2330", "driver": "nvidia"},
            {"bus_id": "0000:af:00.0", "device_id": "0x2330", "driver": "vfio-pci"},
            {"bus_id": "10000:02:00.0", "device_id": "0x2330", "driver": ""},
        ],
        "nvswitches": 1,
    }
    assert problems == []


def test_no_pci_bus(tmp_path, problems):
    assert platform.pci_devices(str(tmp_path), problems) == {"gpus": None, "nvswitches": 0}
    assert problems == [f"{tmp_path}/sys/bus/pci/devices cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("version", "modules", "expected"),
    [
        (CLOSED, "nvidia_peermem 16384 0 - Live 0x0\n", {"version": "535.104.05", "peermem": True}),
        (OPEN, "nvidia 1 2\nnv_peer_mem 16384 0\n", {"version": "570.124.06", "peermem": True}),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06\n", "", {"version": "580.65.06"}),
        (CLOSED, "nvidia_peermem_other 1\nnvidia 1 1 nvidia_peermem,\n", {"version": "535.104.05", "peermem": False}),
        ("", "", {"version": "", "peermem": False}),
        ("NVRM version: garbage 1.2.3.4.5 x\n", "\x00\xff", {"version": "", "peermem": False}),
        ("GCC version: gcc 535.104.05\n", "", {"version": ""}),
    ],
)
def test_kernel_module(tree, version, modules, expected):
    tree.file("proc/driver/nvidia/version", version)
    tree.file("proc/modules", modules)
    assert platform.kernel_module(str(tree.root)) == {"peermem": False, **expected}


def test_kernel_module_of_a_host_without_one(tree):
    assert platform.kernel_module(str(tree.root)) == {"version": "", "peermem": False}


def test_gpus_of_the_driver(tree):
    for name in ("0000:01:00.0", "00000000:AF:00.0", "nothing"):
        tree.file(f"proc/driver/nvidia/gpus/{name}/information", "Model: x\n")
    assert platform.driver_gpus(str(tree.root)) == ["0000:01:00.0", "0000:af:00.0"]
    assert platform.driver_gpus(str(tree.root / "none")) == []


def test_programs_are_found_on_the_path_then_in_the_usual_folders(tree):
    root = str(tree.root)
    assert platform.find_program("nvidia-smi", root) == ""
    before = ""
    for folder in ("opt/bin", "usr/local/bin", "usr/bin"):
        tree.file(f"{folder}/nvidia-smi", "#!/bin/sh\n")
        assert platform.find_program("nvidia-smi", root) == before  # the new one may not be run yet
        (tree.root / folder / "nvidia-smi").chmod(0o755)
        before = f"{root}/{folder}/nvidia-smi"
        assert platform.find_program("nvidia-smi", root) == before
    path = tree.program("nvidia-smi", "")
    assert platform.find_program("nvidia-smi", root) == path


@pytest.mark.parametrize(
    ("systemctl", "process", "active"),
    [
        ("echo active", None, True),
        ("echo active", "bash", True),
        ("echo inactive; exit 3", "bash", False),
        ("echo failed; exit 3", "bash", False),
        ("echo inactive; exit 3", "nv-fabricmanage", True),  # one in a container
        ("echo System has not been booted with systemd >&2; exit 1", "bash", False),
        ("echo System has not been booted with systemd >&2; exit 1", "nv-fabricmanage", True),
        ("echo unknown", None, None),
        ("", None, None),
        (None, None, None),
        (None, "bash", False),
        (None, "nv-fabricmanage", True),
        (None, "nv-fabricmanagers", False),
    ],
)
def test_whether_the_fabric_manager_is_active(tree, problems, systemctl, process, active):
    if systemctl is not None:
        tree.program("systemctl", f'[ "$*" = "is-active nvidia-fabricmanager" ] || exit 9\n{systemctl}')
    if process:
        tree.file("proc/4711/comm", process + "\n")
        tree.file("proc/4712/stat", "")  # a process that ends while it is looked at
    found = platform.fabric_manager(str(tree.root), run, 4, problems)
    assert found == {"installed": False, "active": active, "version": "", "nvswitches": 4}
    assert problems == []


def test_versions_of_programs(tree, problems):
    tree.program("nv-fabricmanager", '[ "$1" = --version ] && echo "Fabric Manager version is : 535.104.05"')
    path = tree.program(
        "nvidia-ctk", 'echo "NVIDIA Container Toolkit CLI version 1.17.4-rc.2"; echo "commit: 9b69590c"'
    )
    root = str(tree.root)
    assert platform.fabric_manager(root, run, 0, problems)["version"] == "535.104.05"
    assert platform.container_toolkit(root, run, problems) == {
        "installed": True,
        "version": "1.17.4-rc.2",
        "path": path,
    }
    assert problems == []


def test_the_older_container_toolkit(tree, problems):
    path = tree.program("nvidia-container-cli", 'printf "cli-version: 1.14.3\\nlib-version: 1.14.2\\nbuild date: 2023"')
    found = platform.container_toolkit(str(tree.root), run, problems)
    assert found == {"installed": True, "version": "1.14.3", "path": path}


@pytest.mark.parametrize(
    "script", ["", "echo usage", "exit 127", "echo version unknown", "echo '10.0.0.1.2.3 version'"]
)
def test_programs_that_do_not_tell_their_version(tree, problems, script):
    path = tree.program("nvidia-ctk", script)
    found = platform.container_toolkit(str(tree.root), run, problems)
    assert found == {"installed": True, "version": "", "path": path}
    assert problems == [f"{path} does not tell its version: it printed none"]
    tree.program("nv-fabricmanager", script)
    assert platform.fabric_manager(str(tree.root), run, 0, problems)["version"] == ""


def test_no_container_toolkit(tree, problems):
    found = platform.container_toolkit(str(tree.root), run, problems)
    assert found == {"installed": False, "version": "", "path": ""}
    assert problems == []


def test_links_to_the_nodes(tree):
    root = str(tree.root)
    assert platform.device_links(root) is False
    (tree.root / "dev/char").mkdir(parents=True)
    (tree.root / "dev/char/1:3").symlink_to("../null")
    assert platform.device_links(root) is False
    (tree.root / "dev/char/195:0").symlink_to("../nvidia0")
    assert platform.device_links(root) is True
