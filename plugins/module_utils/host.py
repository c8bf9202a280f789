# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what Linux tells of one host: network, memory, disks, ports, processor, Pythons.

Everything comes from /proc, /sys and system calls, so a bare host needs no package to be read. A part that cannot be
read leaves its value empty and adds a line to ``problems``; nothing here raises for the state of a host.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import re
import shutil
import socket
import struct
import time
from typing import Any, Callable

from . import commands

PROC = "/proc"
SYS = "/sys"
_SIOCGIFADDR = 0x8915  # linux/sockios.h
_SIOCGIFNETMASK = 0x891B
_TCP_LISTEN = "0A"  # include/net/tcp_states.h
PYTHON_NAMES = ("python3.11", "python3.12", "python3.13", "python3", "python3.10", "python3.9")
_PYTHON_QUERY = (
    "import json, os, platform, sys\n"
    "try:\n    import ensurepip, venv\n    makes_venv = True\nexcept ImportError:\n    makes_venv = False\n"
    "path = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)\n"
    "print(json.dumps({'path': path, 'version': platform.python_version(),"
    " 'implementation': platform.python_implementation(), 'makes_venv': makes_venv}))\n"
)


class HostReader:
    """Reads one host; ``problems`` collects what could not be read.

    :param timeout: seconds allowed for each program that is asked
    """

    def __init__(self, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self.problems: list[str] = []

    def read(self, paths: list[str], pythons: list[str], libraries: list[str] | None = None) -> dict:
        """Return the facts of this host.

        ``paths`` are looked at in particular, ``pythons`` are tried first, ``libraries`` (sonames) are loaded.
        """
        return {
            "hostname": socket.gethostname(),
            "user": {"uid": os.geteuid()},
            "kernel": self._part(self.kernel, {"release": "", "machine": "", "libc": ""}),
            "cpu": self._part(self.cpu, {"model": "", "cores": 0, "flags": []}),
            "memory": self._part(self.memory, {"total": 0, "available": 0, "swap_total": 0}),
            "interfaces": self._part(self.interfaces, []),
            "route_interface": self._part(self.route_interface, ""),
            "ports_in_use": self._part(self.ports_in_use, []),
            "disks": self._part(self.disks, []),
            "paths": {path: self.path(path) for path in paths if path},
            "pythons": self.pythons(pythons),
            "libraries": {name: _loads(name) for name in libraries or []},
            "docker": self.docker(),
            "rdma": self._part(self.rdma, []),
            "clock": {"epoch_s": round(time.time(), 3)},
            "problems": self.problems,
        }

    def _part(self, read: Callable[[], Any], empty: Any) -> Any:
        try:
            return read()
        except (OSError, ValueError, IndexError, struct.error) as error:
            self.problems.append(f"{read.__name__} of this host cannot be understood: {error}")
            return empty

    def _text(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {error.strerror}")
            return ""

    @staticmethod
    def _attribute(path: str) -> str:
        """Return a one-line file of /sys; many of them refuse to be read in some states, which is no problem."""
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return stream.read().strip()
        except OSError:
            return ""

    def kernel(self) -> dict:
        """Return release, machine (uname -m) and glibc version."""
        name = os.uname()
        library, version = platform.libc_ver()
        return {"release": name.release, "machine": name.machine, "libc": f"{library} {version}".strip()}

    def cpu(self) -> dict:
        """Return model, usable cores, and the flags that decide which builds run."""
        text = self._text(f"{PROC}/cpuinfo")
        model = re.search(r"^(?:model name|CPU part)\s*:\s*(.+)$", text, re.M)
        flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
        return {
            "model": model.group(1).strip() if model else "",
            "cores": len(os.sched_getaffinity(0)),
            "flags": sorted(flags.group(1).split()) if flags else [],
        }

    def memory(self) -> dict:
        """Return total, available and swap in bytes, bounded by the cgroup where it has a limit."""
        values = {
            key: int(value) * 1024
            for key, value in re.findall(r"^(\w+):\s+(\d+) kB$", self._text(f"{PROC}/meminfo"), re.M)
        }
        total, available = values.get("MemTotal", 0), values.get("MemAvailable", 0)
        limit = self._cgroup_limit()
        if limit and limit["limit"] < total:
            total = limit["limit"]
            available = min(available, max(0, limit["limit"] - limit["used"]))
        if not total:
            self.problems.append("the memory of this host is not known")
        return {"total": total, "available": available, "swap_total": values.get("SwapTotal", 0)}

    def _cgroup_limit(self) -> dict | None:
        """Return {limit, used} of the memory cgroup at the root of what this process sees (containers), if any.

        Pages of files count as used there but are given back when needed, so they are taken off.
        """
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        ):
            root = f"{SYS}/fs/cgroup/"
            values = [self._attribute(root + name) for name in (limit, used)]
            if all(value.isdigit() for value in values):
                folder = os.path.dirname(root + limit)
                found = re.search(rf"^{cache} (\d+)$", self._attribute(folder + "/memory.stat"), re.M)
                return {"limit": int(values[0]), "used": max(0, int(values[1]) - int(found.group(1) if found else 0))}
        return None

    def interfaces(self) -> list[dict]:
        """Return every network interface with its IPv4 and IPv6 addresses, MTU, speed (Mb/s) and driver."""
        addresses6 = self._addresses6()
        found = []
        for _index, name in socket.if_nameindex():
            base = f"{SYS}/class/net/{name}"
            speed = self._attribute(f"{base}/speed")
            found.append(
                {
                    "name": name,
                    "ipv4": self._addresses4(name),
                    "ipv6": addresses6.get(name, []),
                    "up": self._attribute(f"{base}/operstate") in ("up", "unknown"),
                    "carrier": self._attribute(f"{base}/carrier") == "1",
                    "mtu": int(self._attribute(f"{base}/mtu") or 0),
                    "speed_mbps": int(speed) if speed.isdigit() else None,
                    "driver": os.path.basename(os.path.realpath(f"{base}/device/driver"))
                    if os.path.exists(f"{base}/device/driver")
                    else "",
                }
            )
        return sorted(found, key=lambda interface: interface["name"])

    @staticmethod
    def _addresses4(name: str) -> list[dict]:
        request = struct.pack("256s", name.encode()[:15])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                address = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24]
                mask = fcntl.ioctl(probe.fileno(), _SIOCGIFNETMASK, request)[20:24]
            except OSError:
                return []
        prefix = bin(int.from_bytes(mask, "big")).count("1")
        return [{"address": socket.inet_ntoa(address), "prefix": prefix}]

    def _addresses6(self) -> dict[str, list[dict]]:
        found: dict[str, list[dict]] = {}
        for line in self._attribute(f"{PROC}/net/if_inet6").splitlines():
            fields = line.split()
            if len(fields) == 6:
                address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0]))
                found.setdefault(fields[5], []).append({"address": address, "prefix": int(fields[2], 16)})
        return found

    def route_interface(self) -> str:
        """Return the interface of the default IPv4 route with the lowest metric, or an empty string."""
        routes = []
        for line in self._text(f"{PROC}/net/route").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
                routes.append((int(fields[6]), fields[0]))
        return min(routes)[1] if routes else ""

    def ports_in_use(self) -> list[dict]:
        """Return the listening TCP ports {port, address, pid, process}; pid is None where this user may not see it."""
        listening = {}
        for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
            for line in self._attribute(f"{PROC}/net/{table}").splitlines()[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[3] == _TCP_LISTEN:
                    address, port = fields[1].split(":")
                    listening[fields[9]] = (int(port, 16), _socket_address(address, family))
        owners = _socket_owners(set(listening))
        return sorted(
            (
                {"port": port, "address": address, **owners.get(inode, {"pid": None, "process": ""})}
                for inode, (port, address) in listening.items()
            ),
            key=lambda entry: (entry["port"], entry["address"]),
        )

    def disks(self) -> list[dict]:
        """Return the mounted disk file systems {mount, device, fstype, total, free} in bytes."""
        found = {}
        for line in self._text(f"{PROC}/self/mounts").splitlines():
            device, mount, fstype = (_unescape(field) for field in line.split()[:3])
            if device.startswith("/") or fstype in ("overlay", "nfs", "nfs4", "zfs", "ceph", "lustre", "tmpfs"):
                try:
                    usage = shutil.disk_usage(mount)
                except OSError:
                    continue
                found[mount] = {
                    "mount": mount,
                    "device": device,
                    "fstype": fstype,
                    "total": usage.total,
                    "free": usage.free,
                }
        return [found[mount] for mount in sorted(found)]

    def path(self, path: str) -> dict:
        """Return what is at ``path``, and the space on the file system that it is, or would be, on."""
        ancestor = os.path.abspath(path)
        while not os.path.exists(ancestor):
            ancestor = os.path.dirname(ancestor)
        try:
            usage = shutil.disk_usage(ancestor)
            total, free = usage.total, usage.free
        except OSError as error:
            self.problems.append(f"the file system of {ancestor} cannot be asked: {error.strerror}")
            total = free = 0
        kind = "folder" if os.path.isdir(path) else "file" if os.path.exists(path) else "nothing"
        return {
            "kind": kind,
            "nearest": ancestor,
            "device": os.stat(ancestor).st_dev,
            "writable": os.access(ancestor, os.W_OK | os.X_OK),
            "total": total,
            "free": free,
            "bytes": _tree_bytes(path) if kind == "folder" else 0,
        }

    def pythons(self, preferred: list[str]) -> list[dict]:
        """Return the Pythons of this host that answer: {asked, path, version, implementation, makes_venv}.

        ``asked`` is the path that was called, ``path`` the interpreter behind it, outside any virtual environment.
        """
        asked: set[str] = set()
        found: dict[tuple[str, str], dict] = {}
        # Every folder of the PATH: the first of a name may be a launcher for a version that is not there.
        folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
        candidates = [(name, os.path.join(folder, name)) for name in PYTHON_NAMES for folder in folders if folder]
        for name, path in [*((name, name) for name in preferred), *candidates]:
            if path in asked or (name != path and not os.path.exists(path)):
                continue
            asked.add(path)
            answer = commands.run([path, "-I", "-c", _PYTHON_QUERY], self.timeout)
            python = _python_of(answer.stdout) if answer.ok else None
            if python:
                found.setdefault((path if name == path else "", python["path"]), dict(python, asked=path))
            elif name == path:
                reason = answer.reason or answer.stderr.strip()[-200:] or f"it printed {answer.stdout[:80]!r}"
                self.problems.append(f"{path} is no Python that answers: {reason}")
        return list(found.values())

    def docker(self) -> dict:
        """Return whether a Docker client and its socket are there; the engine itself is asked by who needs it."""
        return {"client": shutil.which("docker") or "", "socket": os.path.exists("/var/run/docker.sock")}

    def rdma(self) -> list[dict]:
        """Return the RDMA devices {name, ports[]} that the kernel knows."""
        base = f"{SYS}/class/infiniband"
        names = sorted(os.listdir(base)) if os.path.isdir(base) else []
        return [{"name": name, "ports": self._rdma_ports(f"{base}/{name}/ports")} for name in names]

    def _rdma_ports(self, folder: str) -> list[dict]:
        numbers = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        return [
            {
                "port": number,
                "state": self._attribute(f"{folder}/{number}/state"),
                "link_layer": self._attribute(f"{folder}/{number}/link_layer"),
                "rate": self._attribute(f"{folder}/{number}/rate"),
            }
            for number in numbers
        ]


def _python_of(answer: str) -> dict | None:
    """Return what a Python told of itself, None for anything else, such as what a wrapper prints."""
    kinds = {"path": str, "version": str, "implementation": str, "makes_venv": bool}
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not all(isinstance(told.get(key), kind) for key, kind in kinds.items()):
        return None
    return {key: told[key] for key in kinds}


def _loads(name: str) -> bool:
    """True when the dynamic loader finds the shared library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _unescape(field: str) -> str:
    """Undo the octal escapes (blank, tab, newline, backslash) of /proc/self/mounts."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def _socket_address(text: str, family: int) -> str:
    raw = bytes.fromhex(text)
    # The kernel prints each 32-bit word of the address in the machine's byte order.
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    return socket.inet_ntop(family, struct.pack(f">{len(words)}I", *words))


def _socket_owners(inodes: set[str]) -> dict[str, dict]:
    owners: dict[str, dict] = {}
    for pid in filter(str.isdigit, os.listdir(PROC)):
        try:
            handles = os.listdir(f"{PROC}/{pid}/fd")
        except OSError:
            continue
        for handle in handles:
            try:
                target = os.readlink(f"{PROC}/{pid}/fd/{handle}")
            except OSError:
                continue
            inode = target[8:-1] if target.startswith("socket:[") else ""
            if inode in inodes:
                owners[inode] = {"pid": int(pid), "process": _process_name(pid)}
    return owners


def _process_name(pid: str) -> str:
    try:
        with open(f"{PROC}/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _tree_bytes(folder: str) -> int:
    total = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total
