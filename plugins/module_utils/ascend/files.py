# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the files that driver, firmware and CANN leave on a host, the PCI bus and the device nodes.

``root`` goes before every path that is read, so that tests can lay out a tree; it is empty on a host. Nothing here
raises for the state of a host: what is not there is empty.
"""

from __future__ import annotations

import glob
import os
import re

LIMIT = 1 << 18  # bytes of a file that are read; the largest that is read here has 3 000
INSTALL_INFO = "/etc/ascend_install.info"
DEFAULT_PATH = "/usr/local/Ascend"
PCI_DEVICES = "/sys/bus/pci/devices"
_VENDOR = "0x19e5"  # Huawei
# 0xd801, 0xd802 and 0xd500 from captures of npu-smi -t board and lspci; 0xd100 and 0xd803 as commonly listed.
FAMILIES = {"0xd100": "310", "0xd500": "310P", "0xd801": "910A", "0xd802": "910B", "0xd803": "A3"}
# The NPUs of this vendor that are not in the table above: all known have 0xd..., and are processing accelerators,
# the class that HiSilicon's compression engines (0xa250) have too.
_NPU_DEVICE = re.compile(r"0xd[0-9a-f]{3}")
_CLASS_ACCELERATOR = "0x12"
_KEY_VALUE = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,60})=(.*)")
# From 8.5 on CANN is in cann or cann-<version>; the arch folder is there in some packages only.
_CANN_FILES = (
    "ascend-toolkit/*/ascend_toolkit_install.info",
    "ascend-toolkit/*/*-linux/ascend_toolkit_install.info",
    "cann*/ascend_toolkit_install.info",
    "cann*/*-linux/ascend_toolkit_install.info",
    "nnae/*/ascend_nnae_install.info",
    "nnae/*/*-linux/ascend_nnae_install.info",
    "nnrt/*/ascend_nnrt_install.info",
    "nnrt/*/*-linux/ascend_nnrt_install.info",
)
_MAX_CANN = 64


def read_text(path: str) -> tuple[str, str]:
    """Return (text, reason): what a file holds, or why it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(LIMIT).decode("utf-8", "replace"), ""
    except OSError as error:
        return "", error.strerror or str(error)


def parse_info(text: str) -> dict[str, str]:
    """Return the lines ``Key=value`` of a .info file with their keys in lower case."""
    found = {}
    for line in text[:LIMIT].splitlines():
        entry = _KEY_VALUE.fullmatch(line.strip())
        if entry:
            found[entry.group(1).lower()] = entry.group(2).strip()
    return found


def parse_install(text: str) -> dict:
    """Return {path, user, group, for_all (bool or None), type} of ascend_install.info; empty where it does not say."""
    told = parse_info(text)
    path = told.get("driver_install_path_param", "")
    return {
        "path": path.rstrip("/") if path.startswith("/") else "",
        "user": told.get("username", ""),
        "group": told.get("usergroup", ""),
        "for_all": {"yes": True, "no": False}.get(told.get("driver_install_for_all", "").lower()),
        "type": told.get("driver_install_type", ""),
    }


def install(root: str = "") -> dict:
    """Return what ascend_install.info of this host says, see parse_install."""
    return parse_install(read_text(root + INSTALL_INFO)[0])


def versions(path: str, root: str = "") -> dict[str, dict[str, str]]:
    """Return {driver, firmware}, each the keys of its version.info below ``path``."""
    return {part: parse_info(read_text(f"{root}{path}/{part}/version.info")[0]) for part in ("driver", "firmware")}


def cann(path: str, root: str = "") -> list[dict]:
    """Return the CANN packages {version, path, compatible_version} below ``path``, each once."""
    found = {}
    for pattern in _CANN_FILES:
        for name in sorted(glob.glob(glob.escape(root + path) + "/" + pattern))[:_MAX_CANN]:
            real = os.path.realpath(name)  # "latest" is a link to one of the others
            told = parse_info(read_text(real)[0])
            if told.get("version") and real not in found:
                found[real] = {
                    "version": told["version"],
                    "path": told.get("path") or os.path.dirname(name)[len(root) :],
                    "compatible_version": told.get("compatible_version", ""),
                }
    return [found[name] for name in sorted(found)]


def pci(root: str = "") -> list[dict]:
    """Return the NPUs on the PCI bus {bus_id, device_id, family}; the family of an unknown one is empty.

    Virtual functions are left out: they belong to virtual machines and npu-smi of this host does not list them.
    """
    folder = root + PCI_DEVICES
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = []
    for name in names:
        vendor, device, kind = (
            read_text(f"{folder}/{name}/{part}")[0].strip().lower() for part in ("vendor", "device", "class")
        )
        known = device in FAMILIES or (_NPU_DEVICE.fullmatch(device) and kind.startswith(_CLASS_ACCELERATOR))
        if vendor == _VENDOR and known and not os.path.lexists(f"{folder}/{name}/physfn"):
            found.append({"bus_id": name, "device_id": device, "family": FAMILIES.get(device, "")})
    return found


def device_nodes(root: str = "") -> dict:
    """Return {davinci[], manager, devmm_svm, hisi_hdc}: numbers of /dev/davinciN, and whether the managers exist."""
    try:
        names = os.listdir(root + "/dev")
    except OSError:
        names = []
    numbers = [re.fullmatch(r"davinci([0-9]{1,4})", name) for name in names]
    return {
        "davinci": sorted(int(number.group(1)) for number in numbers if number),
        "manager": "davinci_manager" in names,
        "devmm_svm": "devmm_svm" in names,
        "hisi_hdc": "hisi_hdc" in names,
    }
