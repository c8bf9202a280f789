# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleets of emulated servers: what `fleet.py` brings up, written as whole machines with weights, disks and Docker.

    servers.py SERVERS.yml > fleet.yml

SERVERS.yml: {name, network, groups, vars, servers: {NAME: {state, changes, memory_gib, docker, rdma, host}}}.
``state`` names a ready-made state of an emulated host and ``changes`` what differs in it; ``host`` goes before what
this module makes of the host and is for fleet.py. ``docker`` is true (an emulated engine that tells of itself), false,
or "real". Servers get addresses in their order, their NPUs too.
"""

from __future__ import annotations

import ipaddress
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

if __package__:
    from . import states
    from .engines import install
else:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.testbed import states
    from tests.testbed.engines import install

EMULATORS_ON_HOST = "/usr/local/lib/llm-testbed"
GIB = 1024**3
MEMORY_GIB = 1536  # the guides' machines
SOURCE = "/data/source"
SOURCE_BYTES = 1400 * 10**9  # apparent size only: more than any model of the catalog
NPUS_FROM = ipaddress.IPv4Address("10.20.1.0")
ADDRESSES_A_HOST = 16
# They survive a reboot. Only numbers: a file system of memory may be larger than the memory.
DISKS = {"/data": "4T", "/var/lib/docker": "1T"}
REAL = "real"
# Devices of the driver as a whole, and of RDMA. Every file below /dev becomes a device that answers like /dev/null.
NVIDIA_FILES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
RDMA_FILES = ("/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm")
# As `nvidia-ctk runtime configure --runtime=docker` leaves it.
NVIDIA_RUNTIME = '{"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}\n'
# What containers of Ascend engines mount of the host beside what emulators read; here it is there to be mounted.
ASCEND_FILES = ("/usr/local/dcmi/libdcmi.so", "/usr/local/Ascend/driver/lib64/driver/libascend_hal.so")


def fleet(servers: dict, spoil: dict[str, Callable[[dict], None]] | None = None) -> dict:
    """Return the description that fleet.py takes; functions in ``spoil`` change the state of the host they are for."""
    given = servers["servers"]
    made = [_state(name, one, place) for place, (name, one) in enumerate(given.items())]
    for name, change in (spoil or {}).items():
        change(made[list(given).index(name)])
    whole = dict(zip(given, states.fleet(made), strict=True))
    network = ipaddress.IPv4Network(servers["network"])
    hosts = {name: _host(one, str(network[place + 1]), whole[name]) for place, (name, one) in enumerate(given.items())}
    return {
        "name": servers["name"],
        "network": servers["network"],
        "hosts": hosts,
        "groups": servers.get("groups", {}),
        "vars": {"llm_state_dir": "/data/llm", "llm_weights_source": SOURCE, **servers.get("vars", {})},
    }


def _state(name: str, one: dict, place: int) -> dict:
    template = states.load(one["state"])
    first = "" if template["ascend"] is None else str(NPUS_FROM + ADDRESSES_A_HOST * (place + 1))
    return states.host(template, hostname=name, first_address=first, **one.get("changes", {}))


def _host(one: dict, address: str, state: dict) -> dict:
    host = one.get("host", {})
    real = {"docker": True, "disks": DISKS} if one.get("docker", True) == REAL else {}
    return {
        **real,
        "address": address,
        "state": state,
        **{key: value for key, value in host.items() if key not in ("files", "commands_after")},
        "files": {**_files(one, state), **host.get("files", {})},
        "commands_after": [*_commands(one, state), *host.get("commands_after", [])],
    }


def _files(one: dict, state: dict) -> dict:
    total = one.get("memory_gib", MEMORY_GIB) * GIB // 1024
    files = {
        "/proc/meminfo": f"MemTotal: {total} kB\nMemFree: {total // 2} kB\nMemAvailable: {total * 9 // 10} kB\n"
        "SwapTotal: 0 kB\nSwapFree: 0 kB\n",
    }
    rdma = one.get("rdma", state["nvidia"] is not None)
    if rdma:
        files.update(_rdma())
    if one.get("docker", True) == REAL:
        files.update(_mounted(state, rdma))
    return files


def _mounted(state: dict, rdma: bool) -> dict:
    """What containers are given of a host and no emulator lays out."""
    files = dict.fromkeys(ASCEND_FILES if state["ascend"] is not None else (), "")
    files.update(dict.fromkeys(RDMA_FILES if rdma else (), ""))
    if state["nvidia"] is not None:
        files.update({**dict.fromkeys(NVIDIA_FILES, ""), "/etc/docker/daemon.json": NVIDIA_RUNTIME})
        # The engine asks for it once, when it starts.
        with tempfile.TemporaryDirectory() as folder:
            install.hook(folder)
            for path in Path(folder).rglob("*"):
                if path.is_file():
                    content = {
                        "content": path.read_text(encoding="utf-8"),
                        "mode": f"{path.stat().st_mode & 0o777:04o}",
                    }
                    files[f"/{path.relative_to(folder)}"] = content
    return files


def _rdma() -> dict:
    """One RoCE port as the kernel shows it."""
    port = "/sys/class/infiniband/mlx5_0/ports/1"
    return {
        f"{port}/state": "4: ACTIVE\n",
        f"{port}/phys_state": "5: LinkUp\n",
        f"{port}/link_layer": "Ethernet\n",
        f"{port}/rate": "400 Gb/sec (4X NDR)\n",
        f"{port}/gids/0": "fe80:0000:0000:0000:0000:00ff:fe00:0001\n",
        f"{port}/gids/1": "0000:0000:0000:0000:0000:ffff:0ae7:0801\n",
        f"{port}/gid_attrs/types/0": "IB/RoCE v1\n",
        f"{port}/gid_attrs/types/1": "RoCE v2\n",
        f"{port}/gid_attrs/ndevs/0": "eth0\n",
        f"{port}/gid_attrs/ndevs/1": "eth0\n",
    }


def _commands(one: dict, state: dict) -> list[list[str]]:
    runtimes = ["--runtime", "nvidia"] if state["nvidia"] is not None else []
    engine = one.get("docker", True)
    commands = []
    if engine != REAL:
        for path, size in DISKS.items():
            mode = "710" if path.endswith("docker") else "755"
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode={mode}", "tmpfs", path]
            commands += [["mkdir", "-p", path], mount]
    commands += [
        ["mkdir", "-p", SOURCE, "/data/llm"],
        ["truncate", "-s", str(SOURCE_BYTES), f"{SOURCE}/model-00001-of-00001.safetensors"],
    ]
    if engine is True:
        commands.append([f"{EMULATORS_ON_HOST}/docker_engine", *runtimes, *one.get("docker_options", [])])
    return commands


def main() -> int:
    """Print the description of a fleet."""
    yaml.safe_dump(fleet(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
