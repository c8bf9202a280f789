# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of one NVIDIA host: driver, memory errors, MIG, fabric, container toolkit."""

from __future__ import annotations

import re

from .devices import available, label
from .levels import FAIL, OK, WARN, Verdict, listed


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _gpu_driver(requirement: dict, facts: dict) -> list[Verdict]:
    if not available("gpu", facts):
        return []
    version = facts["gpu"]["driver_version"]
    found = _numbers(version)
    least, native = _numbers(requirement["least"]), _numbers(requirement["native"])
    level = WARN if not found else FAIL if found < least else WARN if found < native else OK
    return [
        Verdict(
            level,
            f"driver {requirement['native']} or newer for CUDA {requirement['cuda']}",
            version or "a driver of unknown version",
            "install a newer driver on all nodes"
            + (", or take the risk that kernels compiled at run time do not load" if level == WARN else ""),
        )
    ]


def _gpu_health(_requirement: dict, facts: dict) -> list[Verdict]:
    """MIG is off, no memory error waits for a reset."""
    if not available("gpu", facts):
        return []
    gpus = facts["gpu"]["gpus"]
    kinds = (
        (FAIL, "MIG off", "MIG on", lambda gpu: gpu["mig"] is True, "nvidia-smi -i N -mig 0, then reset the GPU"),
        (
            FAIL,
            "no uncorrected memory errors since the driver was loaded",
            "errors",
            lambda gpu: (gpu["ecc_uncorrected"] or 0) > 0,
            "drain the host and reset the GPU; replace it when they come back",
        ),
        (
            FAIL,
            "no row remapping or page retirement pending",
            "pending",
            lambda gpu: gpu["remap_pending"] is True or gpu.get("retired_pending") is True,
            "reset the GPU or reboot the host",
        ),
        (
            FAIL,
            "no failed row remapping",
            "failed",
            lambda gpu: gpu.get("remap_failure") is True,
            "replace the GPU: it has no spare rows left",
        ),
        (
            FAIL,
            "no GPU that asks for a reset",
            "reset required",
            lambda gpu: gpu.get("reset_required") is True,
            "reset the GPU or reboot the host",
        ),
    )
    judged = []
    for level, wanted, what, is_so, remedy in kinds:
        hit = [label("gpu", gpu) for gpu in gpus if is_so(gpu)]
        if hit:
            judged.append(Verdict(level, wanted, f"{what}: {listed(hit)}", remedy))
    return judged or [Verdict(OK, "GPUs without MIG and without memory errors", f"{len(gpus)} GPUs", "-")]


def _gpu_fabric(_requirement: dict, facts: dict) -> list[Verdict]:
    """On boards with NVSwitch the fabric manager runs, in the driver's version, and has finished."""
    if not available("gpu", facts):
        return []
    gpu, manager = facts["gpu"], facts["gpu"]["fabric_manager"]
    states = {(entry["fabric_state"], entry["fabric_status"]) for entry in gpu["gpus"] if entry["fabric_state"]}
    if not manager["nvswitches"] and not states:
        return []
    wanted = f"the fabric manager running in version {gpu['driver_version']}, fabric Completed and Success"
    if manager["nvswitches"] and manager["active"] is not True:
        found = "installed and not running" if manager["installed"] else "not installed"
        remedy = "install nvidia-fabricmanager in the driver's version; systemctl enable --now nvidia-fabricmanager"
        return [Verdict(FAIL, wanted, f"{manager['nvswitches']} NVSwitches; fabric manager {found}", remedy)]
    if manager["version"] and manager["version"] != gpu["driver_version"]:
        return [
            Verdict(
                FAIL,
                wanted,
                f"fabric manager {manager['version']}, driver {gpu['driver_version']}",
                "install the fabric manager of the driver's version and hold both packages; CUDA fails with error 802",
            )
        ]
    unfinished = sorted(f"{state} {status}".strip() for state, status in states - {("Completed", "Success")})
    return [
        Verdict(
            FAIL if unfinished else OK,
            wanted,
            listed(unfinished) or "so",
            "wait for the fabric manager, or read its log: journalctl -u nvidia-fabricmanager",
        )
    ]


def _container_toolkit(_requirement: dict, facts: dict) -> list[Verdict]:
    if not available("gpu", facts):
        return []
    toolkit, engine = facts["gpu"]["container_toolkit"], facts["docker"].get("engine") or {}
    registered = "nvidia" in engine.get("runtimes", [])
    found = toolkit["version"] or ("installed" if toolkit["installed"] else "not installed")
    if engine and not registered:
        found += ", no runtime nvidia in Docker"
    return [
        Verdict(
            OK if toolkit["installed"] and (registered or not engine) else FAIL,
            "the NVIDIA container toolkit, known to Docker",
            found,
            "install nvidia-container-toolkit; nvidia-ctk runtime configure --runtime=docker; restart Docker",
        )
    ]


def _daemon_reload(_requirement: dict, facts: dict) -> list[Verdict]:
    """Containers keep their GPUs when systemd reloads, which any change of a unit on the host makes it do."""
    engine = facts["docker"].get("engine")
    if not available("gpu", facts) or not engine:
        return []
    driver, linked = engine["cgroup_driver"], facts["gpu"]["device_links"]
    return [
        Verdict(
            WARN if driver == "systemd" and not linked else OK,
            "containers that keep their GPUs when systemd reloads",
            f"cgroup driver {driver or 'unknown'}, {'' if linked else 'no '}links in /dev/char",
            "nvidia-ctk system create-dev-char-symlinks --create-all at every boot, or Docker's cgroup driver cgroupfs",
        )
    ]


CHECKS = {
    "daemon_reload": _daemon_reload,
    "gpu_driver": _gpu_driver,
    "gpu_health": _gpu_health,
    "gpu_fabric": _gpu_fabric,
    "container_toolkit": _container_toolkit,
}
