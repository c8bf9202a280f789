# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what a host tells of its NVIDIA hardware and services without nvidia-smi: PCI, /proc, and a few programs.

``root`` goes before every path, so that a tree can be laid out elsewhere. Nothing here raises for the state of a host.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import Callable

from .. import commands
from . import smi

VENDOR = "0x10de"  # NVIDIA in the PCI ID database
# PCI classes: 0300 VGA controller, 0302 3D controller (data centre GPUs), 0680 other bridge (NVSwitch).
_GPU_CLASSES, _NVSWITCH_CLASS = ("0x0300", "0x0302"), "0x0680"
FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/bin")  # /opt/bin: hosts whose /usr is read-only
_MAX_FILE = 256 * 1024
_MAX_ENTRIES = 100_000  # of a folder: more than any host has PCI devices or processes
_VERSION = re.compile(r"(?<![0-9.])([0-9]{1,4}(?:\.[0-9]{1,4}){1,3}(?:[-~+][0-9A-Za-z.]{1,20})?)")
_COMM = "nv-fabricmanage"  # the kernel keeps 15 characters of a process's name

Run = Callable[[list], commands.Outcome]


def find_program(name: str, root: str = "") -> str:
    """Return the path of a program on the PATH or in the usual folders, "" where there is none."""
    found = shutil.which(name)
    if found:
        return found
    paths = (f"{root}{folder}/{name}" for folder in FOLDERS)
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def pci_devices(root: str, problems: list[str]) -> dict:
    """Return {gpus: [{bus_id, device_id, driver}], nvswitches}; gpus is None where the PCI bus cannot be read.

    ``driver`` is the kernel driver that a GPU is bound to, "" for none.
    """
    base = f"{root}/sys/bus/pci/devices"
    try:
        names = sorted(os.listdir(base))[:_MAX_ENTRIES]
    except OSError as error:
        problems.append(f"{base} cannot be read: {error.strerror}")
        return {"gpus": None, "nvswitches": 0}
    gpus, nvswitches = [], 0
    for name in names:
        folder = f"{base}/{name}"
        if _file(f"{folder}/vendor").strip().lower() != VENDOR:
            continue
        kind = _file(f"{folder}/class").strip().lower()[:6]
        if kind in _GPU_CLASSES and smi.bus_id(name):
            driver = os.path.basename(os.path.realpath(f"{folder}/driver"))
            gpus.append(
                {
                    "bus_id": smi.bus_id(name),
                    "device_id": _file(f"{folder}/device").strip().lower(),
                    "driver": driver if os.path.exists(f"{folder}/driver") else "",
                }
            )
        nvswitches += kind == _NVSWITCH_CLASS
    return {"gpus": gpus, "nvswitches": nvswitches}


def driver_gpus(root: str) -> list[str]:
    """Return the PCI addresses of the GPUs that the kernel module has taken, from /proc/driver/nvidia/gpus."""
    try:
        names = os.listdir(f"{root}/proc/driver/nvidia/gpus")[:_MAX_ENTRIES]
    except OSError:
        return []
    return sorted(smi.bus_id(name) for name in names if smi.bus_id(name))


def kernel_module(root: str) -> dict:
    """Return {version, peermem}: of the loaded nvidia module, "" where none is; whether a peer memory module is loaded.

    nvidia_peermem is the driver's own, nv_peer_mem the one that came with network drivers before it.
    """
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug ..." or, of the open one,
    # "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build ..."
    line = re.search(r"NVRM version:[^\n]{0,200}", _file(f"{root}/proc/driver/nvidia/version"))
    version = re.search(r"\s([0-9]{3}\.[0-9]{1,4}(?:\.[0-9]{1,4})?)(?=\s|$)", line.group(0)) if line else None
    modules = {line.split(" ", 1)[0] for line in _file(f"{root}/proc/modules").splitlines()}
    return {
        "version": version.group(1) if version else "",
        "peermem": bool(modules & {"nvidia_peermem", "nv_peer_mem"}),
    }


def fabric_manager(root: str, run: Run, nvswitches: int, problems: list[str]) -> dict:
    """Return {installed, active, version, nvswitches} of the service that sets up NVSwitches.

    ``active`` is None where neither systemd nor /proc tells.
    """
    program = find_program("nv-fabricmanager", root) or find_program("nvidia-fabricmanager", root)
    version = _version_of(run([program, "--version"]), program, problems) if program else ""
    return {
        "installed": bool(program),
        "active": _service_active(root, run),
        "version": version,
        "nvswitches": nvswitches,
    }


def container_toolkit(root: str, run: Run, problems: list[str]) -> dict:
    """Return {installed, version, path} of the NVIDIA container toolkit."""
    program = find_program("nvidia-ctk", root) or find_program("nvidia-container-cli", root)
    version = _version_of(run([program, "--version"]), program, problems) if program else ""
    return {"installed": bool(program), "version": version, "path": program}


def device_links(root: str) -> bool:
    """True when /dev/char has links to NVIDIA's nodes.

    Without them systemd takes the GPUs away from running containers when it reloads, as runc gives it rules by link.
    """
    try:
        # 195: NVIDIA's major number, Documentation/admin-guide/devices.txt
        return any(name.startswith("195:") for name in os.listdir(f"{root}/dev/char")[:_MAX_ENTRIES])
    except OSError:
        return False


def _service_active(root: str, run: Run) -> bool | None:
    """Ask systemd where it runs; a fabric manager that a container started is seen as a process only."""
    systemctl = shutil.which("systemctl")
    said = run([systemctl, "is-active", "nvidia-fabricmanager"]).stdout.strip() if systemctl else ""
    process = _process_runs(root)
    if said == "active" or process:
        return True
    return False if said in ("inactive", "failed", "activating", "deactivating") else process


def _process_runs(root: str) -> bool | None:
    try:
        numbers = [name for name in os.listdir(f"{root}/proc")[:_MAX_ENTRIES] if name.isdigit()]
    except OSError:
        return None
    return any(_file(f"{root}/proc/{number}/comm").strip() == _COMM for number in numbers) if numbers else None


def _version_of(answer: commands.Outcome, program: str, problems: list[str]) -> str:
    """Return the version in the first lines of what a program printed.

    Seen: "Fabric Manager version is : 535.104.05", "NVIDIA Container Toolkit CLI version 1.13.5" and
    "cli-version: 1.14.3".
    """
    line = re.search(r"version[^\n]{0,100}", (answer.stdout + "\n" + answer.stderr)[:4096], re.IGNORECASE)
    found = _VERSION.search(line.group(0)) if line else None
    if not found:
        problems.append(f"{program} does not tell its version: {answer.reason or 'it printed none'}")
    return found.group(1) if found else ""


def _file(path: str) -> str:
    """Return the start of a file of /proc or /sys, "" where it cannot be read, which many of them refuse at times."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_MAX_FILE)
    except OSError:
        return ""
