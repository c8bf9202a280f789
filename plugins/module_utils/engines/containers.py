# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What engines in containers have in common: the LaunchSpec and its defaults. Pure.

Paths inside a container equal those on the host. Every container has the weights (read-only), and of its run folder
``launch`` (read-only), ``work`` and ``logs``; the network is the host's, so ports are not mapped.
"""

from __future__ import annotations

GIB = 1024**3

# Docker's default capabilities without those no engine has a use for.
CAP_DROP = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"]
# Pinned memory for RDMA; binding memory to NUMA nodes, which Docker's seccomp profile ties to SYS_NICE.
CAP_ADD = ["IPC_LOCK", "SYS_NICE"]
# RDMA pins what it transfers; 64 MiB of stack and a million files are what the vendors' compose files ask for.
ULIMITS = {"memlock": -1, "stack": 67_108_864, "nofile": 1_048_576}
# Collectives and message queues between the ranks of one host. A limit of a tmpfs, not a reservation.
SHM_BYTES_A_DEVICE = 2 * GIB
STOP_SECONDS = 60


def spec(node: dict, argv: list[str], **parts: object) -> dict:
    """Return a LaunchSpec: ``parts`` over the defaults for ``node``.

    :return: argv, before, env, secret_env, env_scripts, workdir, user, devices, gpus, mounts, cap_add, cap_drop,
        security_opt, ulimits, shm_bytes, ipc, files, ports, port, readiness, logs, stop_seconds, probe_devices, notes
    """
    unknown = set(parts) - set(_DEFAULTS) - {"env", "ulimits"}
    if unknown:
        raise ValueError(f"a LaunchSpec has no {', '.join(sorted(unknown))}")
    work = f"{node['run_dir']}/work"
    found: dict = {"argv": list(argv), **{name: _copy(value) for name, value in _DEFAULTS.items()}}
    found.update(workdir=work, shm_bytes=SHM_BYTES_A_DEVICE * max(1, node.get("devices", 1)))
    found.update({name: value for name, value in parts.items() if name not in ("env", "ulimits")})
    found["env"] = {**environment(work), **parts.get("env", {})}  # type: ignore[dict-item]
    found["ulimits"] = {**ULIMITS, **parts.get("ulimits", {}), **node.get("ulimits", {})}  # type: ignore[dict-item]
    return found


_DEFAULTS: dict[str, object] = {
    "before": [],
    "secret_env": [],
    "env_scripts": [],
    "workdir": "",
    "user": "",
    "devices": [],
    "gpus": False,
    "mounts": [],
    "cap_add": CAP_ADD,
    "cap_drop": CAP_DROP,
    "security_opt": ["no-new-privileges:true"],
    "shm_bytes": 0,
    "ipc": "private",
    "files": [],
    "ports": {},
    "port": 0,
    "readiness": {"url": "", "log": ""},
    "logs": [],
    "stop_seconds": STOP_SECONDS,
    "probe_devices": [],
    "notes": [],
}


def mount(source: str, target: str = "", read_only: bool = True) -> dict:
    """Return a mount of a path of the host, at the same path in the container unless ``target`` names another."""
    return {"source": source, "target": target or source, "read_only": read_only}


def environment(work: str) -> dict[str, str]:
    """Return the variables that every engine gets, ``work`` being its home."""
    return {
        "HOME": work,
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": f"{work}/cache",
        # Nothing is fetched and nothing is reported from a serving host.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _copy(value: object) -> object:
    if isinstance(value, list):
        return list(value)
    return dict(value) if isinstance(value, dict) else value
