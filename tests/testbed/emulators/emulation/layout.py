# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lays out everything a reader looks at besides the three tools: version files, PCI devices, device nodes, stubs.

Runs on the control side; the tree it makes is mounted or copied into a host, or read in place by a test.
"""

from __future__ import annotations

import json
import os

from . import state as states

EMULATORS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
LINKS = {
    "npu_smi": ("npu-smi", "usr/local/bin/npu-smi"),
    "hccn_tool": ("hccn_tool", "usr/local/Ascend/driver/tools/hccn_tool"),
    "nvidia_smi": ("nvidia-smi", "usr/bin/nvidia-smi"),
}
# PCI ids of the chips, as lspci prints them; those of 310 and 950 are not taken from a recording.
NPU_DEVICES = {
    "910A": "0xd801",
    "910B": "0xd802",
    "A3": "0xd803",
    "310P": "0xd500",
    "310": "0xd100",
    "950": "0xd806",
}
HUAWEI, NVIDIA = "0x19e5", "0x10de"
# Classes: processing accelerator, 3D controller, other bridge.
NPU_CLASS, GPU_CLASS, SWITCH_CLASS = "0x120000", "0x030200", "0x068000"
NVSWITCH_DEVICE = "0x22a3"
MANAGER_PID = 2718
# Order and spelling of the lines of one device in hccn.conf.
CONF_KEYS = ("address", "netmask", "netdetect", "gateway", "arp", "send_arp_status", "tls_enable")
# Keys that version.info does not write in small letters.
CAPITALS = {"version": "Version", "innerversion": "Innerversion"}
SYSTEMCTL = """#!/bin/sh
# Knows one unit; whatever would change a unit is refused.
case "$*" in
  "is-active nvidia-fabricmanager"|"is-active nvidia-fabricmanager.service") echo {state}; exit {code} ;;
  is-active*) echo inactive; exit 3 ;;
  *) echo "testbed: refused: systemctl $*" >&2; exit 1 ;;
esac
"""


def lay_out(state: dict, root: str, emulators: str = EMULATORS) -> None:
    """Create the files of the host `state` under the folder `root`; `emulators` is where the links shall lead."""
    state = states.validate(state)
    _write(root, states.PATH.lstrip("/"), json.dumps(state, indent=1) + "\n")
    wanted = {"npu_smi": state["ascend"], "hccn_tool": state["ascend"], "nvidia_smi": state["nvidia"]}
    for tool, part in wanted.items():
        fault = state["faults"][tool]
        if part is not None and not (fault and fault["missing"]):
            _link(root, LINKS[tool][1], os.path.join(emulators, LINKS[tool][0]))
    if state["ascend"] is not None:
        _ascend(state["ascend"], root)
    if state["nvidia"] is not None:
        _nvidia(state["nvidia"], root)


def _ascend(ascend: dict, root: str) -> None:
    for bus_id in dict.fromkeys(chip["bus_id"] for chip in ascend["chips"]):
        _pci(root, bus_id, HUAWEI, NPU_DEVICES[ascend["layout"]], NPU_CLASS)
    for chip in ascend["chips"]:
        _write(root, f"dev/davinci{chip['phy_id']}", "")
    for name in ("davinci_manager", "devmm_svm", "hisi_hdc"):
        _write(root, f"dev/{name}", "")
    install = ascend["install"]
    prefix = "usr/local/Ascend" if install is None else install["path"].lstrip("/")
    driver = {"version": ascend["version"], **ascend["versions"]["driver"]}
    firmware = {"version": ascend["firmware"], **ascend["versions"]["firmware"]}
    _write(root, f"{prefix}/driver/version.info", _version_info(driver))
    _write(root, f"{prefix}/firmware/version.info", _version_info(firmware))
    if install is not None:
        _write(root, "etc/ascend_install.info", _install_info(install))
    conf = _hccn_conf(ascend["network"])
    if conf:
        _write(root, "etc/hccn.conf", conf, 0o640)
    for package in ascend["cann"]:
        _cann(root, package)


def _version_info(pairs: dict) -> str:
    return "".join(f"{CAPITALS.get(key, key)}={value}\n" for key, value in pairs.items())


def _install_info(install: dict) -> str:
    lines = [
        f"UserName={install['user']}",
        f"UserGroup={install['group']}",
        f"Driver_Install_Type={install['type']}",
        f"Driver_Install_Path_Param={install['path']}",
        f"Driver_Install_For_All={'yes' if install['for_all'] else 'no'}",
        "Driver_Install_Mode=normal",
        f"Firmware_Install_Type={install['type']}",
        f"Firmware_Install_Path_Param={install['path']}",
    ]
    return "\n".join(lines) + "\n"


def _hccn_conf(network: list) -> str:
    text = ""
    for device in network:
        for key in CONF_KEYS:
            value = None if device["conf"] is None else device["conf"][key]
            if value is not None:
                text += f"{key}_{device['phy_id']}={value}\n"
    return text


def _cann(root: str, package: dict) -> None:
    """Write the install file of one toolkit, and the link `latest` beside its version's folder."""
    path = package["path"].rstrip("/")
    lines = [
        "package_name=Ascend-cann-toolkit",
        f"version={package['version']}",
        f"compatible_version={package['compatible_version']}",
        f"arch={os.path.basename(path).split('-')[0]}",
        "os=linux",
        f"path={path}",
    ]
    _write(root, f"{path.lstrip('/')}/ascend_toolkit_install.info", "\n".join(lines) + "\n")
    folder, version = os.path.split(os.path.dirname(path))
    latest = os.path.join(root, folder.lstrip("/"), "latest")
    if not os.path.lexists(latest):
        os.symlink(version, latest)


def _nvidia(nvidia: dict, root: str) -> None:
    for gpu in nvidia["gpus"]:
        short = gpu["bus_id"][-12:].lower()
        _pci(root, short, NVIDIA, gpu["device_id"], GPU_CLASS)
        os.makedirs(os.path.join(root, "sys/bus/pci/drivers/nvidia"), exist_ok=True)
        _link(root, f"sys/bus/pci/devices/{short}/driver", "../../drivers/nvidia")
        text = f"Model: \t\t {gpu['name']}\nGPU UUID: \t {gpu['uuid']}\nBus Location: \t {short}\n"
        _write(root, f"proc/driver/nvidia/gpus/{short}/information", text)
        _write(root, f"dev/nvidia{gpu['index']}", "")
    version = nvidia["kernel_module"]["version"] or nvidia["driver_version"]
    nvrm = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Sat Aug 19 01:15:15 UTC 2023\n"
    _write(root, "proc/driver/nvidia/version", nvrm + "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
    modules = ["nvidia_peermem", "nvidia"] if nvidia["kernel_module"]["peermem"] else ["nvidia"]
    _write(root, "proc/modules", "".join(f"{name} 16384 0 - Live 0x0000000000000000\n" for name in modules))
    if nvidia["kernel_module"]["peermem"]:
        _write(root, "sys/module/nvidia_peermem/initstate", "live\n")
    manager = nvidia["fabric_manager"]
    for number in range(manager["nvswitches"]):
        _pci(root, f"0000:f{number:x}:00.0", NVIDIA, NVSWITCH_DEVICE, SWITCH_CLASS)
    if manager["installed"]:
        said = f"Fabric Manager version is : {manager['version']}"
        _write(root, "usr/bin/nv-fabricmanager", f'#!/bin/sh\necho "{said}"\n', 0o755)
        # What a reader finds where no systemd answers: the processes. The kernel keeps 15 characters of a name.
        _write(root, "proc/1/comm", "systemd\n")
        if manager["active"]:
            _write(root, f"proc/{MANAGER_PID}/comm", "nv-fabricmanage\n")
        alive = ("active", 0) if manager["active"] else ("inactive", 3)
        _write(root, "usr/bin/systemctl", SYSTEMCTL.format(state=alive[0], code=alive[1]), 0o755)
    toolkit = nvidia["container_toolkit"]
    if toolkit["installed"]:
        said = f"NVIDIA Container Toolkit CLI version {toolkit['version']}"
        _write(root, "usr/bin/nvidia-ctk", f'#!/bin/sh\necho "{said}"\n', 0o755)


def _pci(root: str, bus_id: str, vendor: str, device: str, kind: str) -> None:
    folder = f"sys/bus/pci/devices/{bus_id.lower()}"
    for name, value in (("vendor", vendor), ("device", device.lower()), ("class", kind)):
        _write(root, f"{folder}/{name}", value + "\n")


def _write(root: str, path: str, text: str, mode: int = 0o644) -> None:
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(full, mode)


def _link(root: str, path: str, target: str) -> None:
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    os.symlink(target, full)
