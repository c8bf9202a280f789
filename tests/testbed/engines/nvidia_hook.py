# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-in for `nvidia-container-runtime-hook`, on a host whose GPUs are emulated.

dockerd looks for a program of that name in its PATH when it starts, and has the driver "nvidia" only if it is there.
For a container with a device request it adds NVIDIA_VISIBLE_DEVICES to the process and calls this as a prestart hook
with the argument "prestart" and its own environment (moby/moby:daemon/nvidia_linux.go). A hook reads the state of the
container from its input, and runs outside of it (opencontainers/runtime-spec:config.md and runtime.md).

A real one mounts devices and libraries. This one writes what was asked into the container's root file system.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

# Where a stand-in of an engine looks for it, within the container.
MARKER = "run/nvidia-emulator.json"
SMI_SECONDS = 20
# What a container gets that names no capabilities (NVIDIA container toolkit, "Driver Capabilities").
CAPABILITIES = "utility,compute"


class HookError(Exception):
    """What nvidia-container-cli would say; the container does not start."""


def main(arguments: list[str], state: str) -> int:
    """Run the hook; return its exit status."""
    if arguments[-1:] != ["prestart"]:
        # As the real one, which has nothing to do at the other moments of a container.
        return 0
    try:
        prestart(json.loads(state))
    except HookError as error:
        print(f"nvidia-container-cli: {error}", file=sys.stderr)
        return 1
    return 0


def prestart(state: dict) -> None:
    """Write the marker for the container of ``state``, none for a container without GPUs."""
    bundle = state["bundle"]
    with open(os.path.join(bundle, "config.json"), encoding="utf-8") as stream:
        config = json.load(stream)
    env = dict(entry.partition("=")[::2] for entry in config["process"].get("env") or [])
    asked = env.get("NVIDIA_VISIBLE_DEVICES", "")
    if asked in ("", "void", "none"):
        return
    marker = {
        "asked": asked,
        "devices": chosen(asked, gpus()),
        "capabilities": env.get("NVIDIA_DRIVER_CAPABILITIES") or CAPABILITIES,
    }
    write(os.path.join(bundle, config["root"]["path"]), marker)


def gpus() -> list[dict]:
    """Return {index, name, uuid} of the host's GPUs, as its nvidia-smi lists them."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HookError("initialization error: load library failed: libnvidia-ml.so.1") from error
    text = done.stdout.decode("utf-8", "replace")
    found = re.findall(r"^GPU (\d+): (.+) \(UUID: (GPU-[^)]+)\)", text, re.MULTILINE)
    if done.returncode or not found:
        raise HookError("initialization error: nvml error: driver not loaded")
    return [{"index": int(index), "name": name, "uuid": uuid} for index, name, uuid in found]


def chosen(asked: str, there: list[dict]) -> list[dict]:
    """Return the GPUs that ``asked`` names, by index or UUID; raises HookError for one that is not there."""
    if asked == "all":
        return there
    by_name = {**{str(gpu["index"]): gpu for gpu in there}, **{gpu["uuid"]: gpu for gpu in there}}
    for name in asked.split(","):
        if name not in by_name:
            raise HookError(f"device error: {name}: unknown device: unknown")
    return [by_name[name] for name in asked.split(",")]


def write(root: str, marker: dict) -> None:
    """Write the marker below ``root``; a link in its place is not followed out of the container."""
    folder = os.path.join(root, os.path.dirname(MARKER))
    if os.path.islink(folder):
        raise HookError(f"mount error: {folder} is a link")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(root, MARKER)
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        json.dump(marker, stream)
    os.replace(f"{path}.new", path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.read()))
