# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of one host: what its kernel, processor, memory, network and disks have to be."""

from __future__ import annotations

import ipaddress
import re

from ..planning.groups import listeners
from ..planning.inquiry import find_python
from ..planning.text import human_bytes
from .levels import FAIL, OK, WARN, Verdict, listed

PACKAGE_OF_LIBRARY = {"libnuma.so.1": "libnuma1 (Debian, Ubuntu) or numactl-libs (openEuler, Rocky)"}


def _machine(requirement: dict, facts: dict) -> list[Verdict]:
    kernel, libc = facts["kernel"], requirement["libc"]
    fits = kernel["machine"] in requirement["machines"] and (not libc or _libc_is(kernel["libc"], libc))
    return [
        Verdict(
            OK if fits else FAIL,
            " or ".join(requirement["machines"]) + (f" with glibc {libc} or newer" if libc else ""),
            kernel["machine"] + (f" with {kernel['libc'] or 'an unknown C library'}" if libc else ""),
            "use a host of that architecture with a newer distribution, or another engine",
        )
    ]


def _libc_is(found: str, least: str) -> bool:
    library = re.search(r"glibc (\d+)\.(\d+)", found)
    return bool(library) and tuple(map(int, library.groups())) >= tuple(int(part) for part in least.split("."))


def _cpu_flags(requirement: dict, facts: dict) -> list[Verdict]:
    there = [flag for flag in requirement["any_of"] if flag in facts["cpu"]["flags"]]
    return [
        Verdict(
            OK if there else FAIL,
            "a processor with " + " or ".join(requirement["any_of"]),
            ", ".join(there) or f"{facts['cpu']['model'] or 'a processor'} without",
            "use a host with a newer processor; in a virtual machine, pass the host's CPU model through",
        )
    ]


def _python(requirement: dict, facts: dict) -> list[Verdict]:
    python = find_python(requirement, facts)
    path = requirement["path"]
    there = ", ".join(
        f"{entry['version']} ({entry['path']}{'' if entry['makes_venv'] else ', without venv'})"
        for entry in facts["pythons"]
        if path in ("", entry["asked"])
    )
    return [
        Verdict(
            OK if python else FAIL,
            f"{requirement['implementation']} {requirement['version']} that can make virtual environments"
            + (f", at {requirement['path']}" if requirement["path"] else ""),
            f"{python['version']} at {python['path']}" if python else there or "no Python that answers",
            f"install Python {requirement['version']} with venv, or set llm_engine_python to where it is",
        )
    ]


def _libraries(requirement: dict, facts: dict) -> list[Verdict]:
    lacking = [name for name in requirement["names"] if not facts["libraries"].get(name)]
    return [
        Verdict(
            FAIL if lacking else OK,
            "shared libraries " + ", ".join(requirement["names"]),
            "not there: " + ", ".join(lacking) if lacking else "there",
            "install " + ", ".join(PACKAGE_OF_LIBRARY.get(name, name) for name in lacking or requirement["names"]),
        )
    ]


def _memory(requirement: dict, facts: dict) -> list[Verdict]:
    # What this deployment's own engine holds is given back when it is restarted.
    own = facts.get("service", {}).get("memory_bytes", 0)
    available = facts["memory"]["available"] + own
    parts = ", ".join(f"{row['what']} {human_bytes(row['bytes'])}" for row in requirement["rows"])
    found = f"{human_bytes(available)} of {human_bytes(facts['memory']['total'])}"
    return [
        Verdict(
            OK if available >= requirement["bytes"] else FAIL,
            f"{human_bytes(requirement['bytes'])} available ({parts})",
            found + (f" ({human_bytes(own)} held by this engine)" if own else ""),
            "end other programs, lower llm_max_model_len or llm_max_num_seqs, choose a smaller model or a larger host",
        )
    ]


def _interface(requirement: dict, facts: dict) -> list[Verdict]:
    found = next((entry for entry in facts["interfaces"] if entry["name"] == requirement["name"]), None)
    state = "no such interface" if found is None else "up" if found["up"] else "down"
    return [
        Verdict(
            OK if state == "up" else FAIL,
            f"{requirement['name']} up",
            state,
            f"bring it up: ip link set {requirement['name']} up",
        )
    ]


def _covers(listening: str, wanted: str) -> bool:
    """True when a socket that listens on one address also takes what is sent to the other."""
    address = ipaddress.ip_address(listening)
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_unspecified or ipaddress.ip_address(wanted) in (address, mapped)


# Of which setting a port is; all others are those between the nodes.
_PORT_SETTINGS = {"API": "llm_api_port", "weights": "llm_weights_port"}


def _port(requirement: dict, facts: dict) -> list[Verdict]:
    own = set(facts.get("service", {}).get("pids", []))
    others = [
        entry
        for entry in listeners(facts)
        if entry["port"] == requirement["port"]
        and entry["pid"] not in own
        and _covers(entry["address"], requirement["address"])
    ]
    held = ", ".join(
        f"taken by {entry['process']} (pid {entry['pid']})" if entry["pid"] else "taken by a process of another user"
        for entry in others
    )
    return [
        Verdict(
            FAIL if others else OK,
            f"TCP port {requirement['port']} ({requirement['what']}) free on {requirement['address']}",
            held or "free, or held by this deployment",
            f"end that process, or set {_PORT_SETTINGS.get(requirement['what'], 'llm_port_offset')}",
        )
    ]


def _weights_source(requirement: dict, facts: dict) -> list[Verdict]:
    path = requirement["path"]
    if not path:
        known = "".join(f", or {source}" for source in requirement["published"])
        remedy = f"set llm_weights_source to a folder of this host{known}"
        return [Verdict(FAIL, "a source of the weights", "llm_weights_source is not set", remedy)]
    found = facts["paths"].get(path, {"kind": "nothing", "bytes": 0})
    whole = found["kind"] == "folder" and found["bytes"] >= requirement["bytes"]
    # A disk that was carried in may be gone once its weights are installed.
    installed = facts["paths"].get(requirement["installed"], {"bytes": 0})["bytes"]
    if not whole and installed >= requirement["bytes"] > 0:
        return [
            Verdict(
                OK, f"{path}, or the weights installed", f"{human_bytes(installed)} in {requirement['installed']}", ""
            )
        ]
    return [
        Verdict(
            OK if whole else FAIL,
            f"{path} with {human_bytes(requirement['bytes'])} of weights",
            f"{found['kind']}" + (f" with {human_bytes(found['bytes'])}" if found["kind"] == "folder" else ""),
            "put the weights there, mount the share that holds them, or correct llm_weights_source",
        )
    ]


def _disk(requirement: dict, facts: dict) -> list[Verdict]:
    """Parts on one file system share its free space; what is there already needs no more."""
    needs: dict[object, list[dict]] = {}
    for part in requirement["parts"]:
        found = _space(part["path"], facts)
        missing = max(0, part["bytes"] - found["bytes"])
        needs.setdefault(found["device"], []).append(dict(part, missing=missing, found=found))
    judged = []
    for parts in needs.values():
        need, free = sum(part["missing"] for part in parts), parts[0]["found"]["free"]
        judged.append(
            Verdict(
                OK if free >= need else FAIL,
                f"{human_bytes(need)} free for " + " and ".join(f"{part['what']} ({part['path']})" for part in parts),
                f"{human_bytes(free)} free on the file system of {parts[0]['found']['nearest']}",
                "free space there, or set llm_state_dir or llm_weights_path to a larger disk",
            )
        )
    return judged


def _space(path: str, facts: dict) -> dict:
    """Return {bytes, free, device, nearest} of a path; one that was not looked at is judged by the mounted disks."""
    mounts = [disk for disk in facts["disks"] if (path + "/").startswith(disk["mount"].rstrip("/") + "/")]
    mounted = max(mounts, key=lambda disk: len(disk["mount"])) if mounts else None
    found = facts["paths"].get(path) if mounted else facts["paths"][path]
    if found is None:
        return {"bytes": 0, "free": mounted["free"], "device": mounted["mount"], "nearest": mounted["mount"]}
    return dict(found, device=mounted["mount"]) if mounted else found


def _writable(requirement: dict, facts: dict) -> list[Verdict]:
    closed = [path for path in requirement["paths"] if not facts["paths"].get(path, {}).get("writable")]
    return [
        Verdict(
            FAIL if closed else OK,
            "folders this user may write: " + ", ".join(requirement["paths"]),
            "not writable: " + ", ".join(closed) if closed else f"writable for uid {facts['user']['uid']}",
            "run with become, or set llm_state_dir and llm_weights_path to folders of this user",
        )
    ]


def _docker(_requirement: dict, facts: dict) -> list[Verdict]:
    docker = facts["docker"]
    engine = docker.get("engine")
    return [
        Verdict(
            OK if engine else FAIL,
            "a Docker Engine that answers this user",
            f"Docker Engine {engine['version']}" if engine else docker.get("reason") or "no Docker Engine",
            "install and start Docker Engine; run with become, or as a user of the group docker",
        )
    ]


def _python_modules(requirement: dict, facts: dict) -> list[Verdict]:
    there = facts.get("python_modules") or {}
    missing = [name for name in requirement["names"] if not there.get(name)]
    return [
        Verdict(
            FAIL if missing else OK,
            "for the Python that Ansible runs there: " + ", ".join(requirement["names"]),
            "not found: " + ", ".join(missing) if missing else "found",
            "install " + listed([f"python3-{name}" for name in missing]) + " of the host's distribution"
            if missing
            else "",
        )
    ]


def _host_memory(requirement: dict, facts: dict) -> list[Verdict]:
    own = facts.get("service", {}).get("memory_bytes", 0)
    available = facts["memory"]["available"] + own
    level = FAIL if available < requirement["bytes"] else WARN if available < requirement["advised"] else OK
    return [
        Verdict(
            level,
            f"{human_bytes(requirement['advised'])} of host memory available, 1.3 times its share of the weights",
            f"{human_bytes(available)} of {human_bytes(facts['memory']['total'])}",
            "end other programs or add memory; the weights pass through it on their way to the accelerators",
        )
    ]


def _hostname(_requirement: dict, facts: dict) -> list[Verdict]:
    addresses = facts["hostname_addresses"]
    loopback = [address for address in addresses if ipaddress.ip_address(address).is_loopback]
    return [
        Verdict(
            FAIL if loopback else OK,
            f"the host's own name {facts['hostname']} to stand for an address that other nodes reach",
            listed(addresses) or "no address",
            f"take {facts['hostname']} out of the line of {listed(loopback) or '127.0.1.1'} in /etc/hosts and give it "
            "the address of the serving interface; Gloo, HCCL and Ray bind to what it stands for",
        )
    ]


def _proxies(_requirement: dict, facts: dict) -> list[Verdict]:
    proxies = {name: value for name, value in facts["proxies"].items() if name.lower() != "no_proxy"}
    return [
        Verdict(
            WARN if proxies else OK,
            "no proxy between the nodes",
            listed([f"{name} is {value}" for name, value in sorted(proxies.items())]) or "none set",
            "unset them for the engine, or name the nodes' addresses in no_proxy",
        )
    ]


def _governor(_requirement: dict, facts: dict) -> list[Verdict]:
    others = [governor for governor in facts["cpu"]["governors"] if governor != "performance"]
    return [
        Verdict(
            WARN if others else OK,
            "the frequency governor performance",
            listed(others) or "performance, or none",
            "cpupower frequency-set -g performance",
        )
    ]


def _rdma(_requirement: dict, facts: dict) -> list[Verdict]:
    ports = [dict(port, device=device["name"]) for device in facts["rdma"] for port in device["ports"]]
    if not ports:
        return [
            Verdict(
                WARN,
                "RDMA devices between the nodes",
                "none",
                "install the NIC's driver (DOCA-OFED or rdma-core); without RDMA, NCCL goes over TCP without a word",
            )
        ]
    active = [port for port in ports if "ACTIVE" in port["state"]]
    judged = [
        Verdict(
            OK if active else FAIL,
            "an RDMA port that is active",
            listed([f"{port['device']}/{port['port']} {port['state']}" for port in active or ports]),
            "look at cables, switch and subnet manager; ibv_devinfo shows the state",
        )
    ]
    ethernet = [port for port in active if port["link_layer"] == "Ethernet"]
    unrouted = [port["device"] for port in ethernet if not any("v2" in gid["type"] for gid in port["gids"])]
    if unrouted:
        judged.append(
            Verdict(
                FAIL,
                "a RoCE v2 entry in the GID table of each Ethernet port",
                "none on " + listed(unrouted),
                "give the port's network interface an address; its GID then appears with type RoCE v2",
            )
        )
    return judged


CHECKS = {
    "machine": _machine,
    "cpu_flags": _cpu_flags,
    "libraries": _libraries,
    "python": _python,
    "memory": _memory,
    "interface": _interface,
    "port": _port,
    "weights_source": _weights_source,
    "disk": _disk,
    "writable": _writable,
    "docker": _docker,
    "python_modules": _python_modules,
    "host_memory": _host_memory,
    "hostname": _hostname,
    "proxies": _proxies,
    "governor": _governor,
    "rdma": _rdma,
}
