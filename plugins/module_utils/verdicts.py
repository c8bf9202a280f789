# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds the requirements of a plan against discovered facts and returns every verdict at once. Pure."""

from __future__ import annotations

import ipaddress
import re

from .planning import find_python, human_bytes

PACKAGE_OF_LIBRARY = {"libnuma.so.1": "libnuma1 (Debian, Ubuntu) or numactl-libs (openEuler, Rocky)"}
OK, WARN, FAIL = "ok", "warn", "fail"


def judge(document: dict, facts_by_host: dict[str, dict]) -> list[dict]:
    """Return [{host, check, level, wanted, found, remedy}] for every requirement of the plan, in the plan's order."""
    verdicts = []
    for requirement in document["requirements"]:
        host, check = requirement["host"], requirement["check"]
        facts = facts_by_host.get(host)
        if not facts or not isinstance(facts, dict):
            judged = [(FAIL, "facts of this host", "none", "make the host reachable: ansible -m ping " + host)]
        else:
            judged = _judged(requirement, facts)
        for level, wanted, found, remedy in judged:
            verdicts.append(
                {"host": host, "check": check, "level": level, "wanted": wanted, "found": found, "remedy": remedy}
            )
    for host, facts in facts_by_host.items():
        problems = facts.get("problems") if isinstance(facts, dict) else []
        for problem in problems if isinstance(problems, list) else []:
            verdicts.append(
                {
                    "host": host,
                    "check": "discovery",
                    "level": WARN,
                    "wanted": "every fact of the host",
                    "found": str(problem),
                    "remedy": "see to it where a later check depends on it",
                }
            )
    return verdicts


def _judged(requirement: dict, facts: dict) -> list[tuple]:
    """Return the verdicts of one check; facts that lack what it needs are a failure of their own."""
    try:
        return _CHECKS[requirement["check"]](requirement, facts)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        return [
            (
                FAIL,
                f"facts that the check {requirement['check']} can be held against",
                f"facts or a plan that lack a part ({type(error).__name__}: {error})",
                "run plan.yml again with the collection's version of now; it discovers the host anew",
            )
        ]


def passed(verdicts: list[dict]) -> bool:
    """True when no verdict is a fail."""
    return all(verdict["level"] != FAIL for verdict in verdicts)


def table(verdicts: list[dict]) -> str:
    """Return the verdicts as lines for a person, the worst first."""
    order = {FAIL: 0, WARN: 1, OK: 2}
    lines = []
    for verdict in sorted(verdicts, key=lambda verdict: order[verdict["level"]]):
        line = f"{verdict['level']:4} {verdict['host']} {verdict['check']}: "
        line += f"wanted {verdict['wanted']}; found {verdict['found']}"
        lines.append(line + (f"; remedy: {verdict['remedy']}" if verdict["level"] != OK else ""))
    return "\n".join(lines)


def _machine(requirement: dict, facts: dict) -> list[tuple]:
    kernel = facts["kernel"]
    library = re.search(r"glibc (\d+)\.(\d+)", kernel["libc"])
    least = tuple(int(part) for part in requirement["libc"].split("."))
    fits = kernel["machine"] == requirement["machine"] and library and tuple(map(int, library.groups())) >= least
    return [
        (
            OK if fits else FAIL,
            f"{requirement['machine']} with glibc {requirement['libc']} or newer",
            f"{kernel['machine']} with {kernel['libc'] or 'an unknown C library'}",
            "use a host of that architecture with a newer distribution, or another engine",
        )
    ]


def _cpu_flags(requirement: dict, facts: dict) -> list[tuple]:
    there = [flag for flag in requirement["any_of"] if flag in facts["cpu"]["flags"]]
    return [
        (
            OK if there else FAIL,
            "a processor with " + " or ".join(requirement["any_of"]),
            ", ".join(there) or f"{facts['cpu']['model'] or 'a processor'} without",
            "use a host with a newer processor; in a virtual machine, pass the host's CPU model through",
        )
    ]


def _python(requirement: dict, facts: dict) -> list[tuple]:
    python = find_python(requirement, facts)
    path = requirement["path"]
    there = ", ".join(
        f"{entry['version']} ({entry['path']}{'' if entry['makes_venv'] else ', without venv'})"
        for entry in facts["pythons"]
        if path in ("", entry["asked"])
    )
    return [
        (
            OK if python else FAIL,
            f"{requirement['implementation']} {requirement['version']} that can make virtual environments"
            + (f", at {requirement['path']}" if requirement["path"] else ""),
            f"{python['version']} at {python['path']}" if python else there or "no Python that answers",
            f"install Python {requirement['version']} with venv, or set llm_engine_python to where it is",
        )
    ]


def _libraries(requirement: dict, facts: dict) -> list[tuple]:
    lacking = [name for name in requirement["names"] if not facts["libraries"].get(name)]
    return [
        (
            FAIL if lacking else OK,
            "shared libraries " + ", ".join(requirement["names"]),
            "not there: " + ", ".join(lacking) if lacking else "there",
            "install " + ", ".join(PACKAGE_OF_LIBRARY.get(name, name) for name in lacking or requirement["names"]),
        )
    ]


def _memory(requirement: dict, facts: dict) -> list[tuple]:
    # What this deployment's own engine holds is given back when it is restarted.
    own = facts.get("service", {}).get("memory_bytes", 0)
    available = facts["memory"]["available"] + own
    parts = ", ".join(f"{row['what']} {human_bytes(row['bytes'])}" for row in requirement["rows"])
    found = f"{human_bytes(available)} of {human_bytes(facts['memory']['total'])}"
    return [
        (
            OK if available >= requirement["bytes"] else FAIL,
            f"{human_bytes(requirement['bytes'])} available ({parts})",
            found + (f" ({human_bytes(own)} held by this engine)" if own else ""),
            "end other programs, lower llm_max_model_len or llm_max_num_seqs, choose a smaller model or a larger host",
        )
    ]


def _interface(requirement: dict, facts: dict) -> list[tuple]:
    found = next((entry for entry in facts["interfaces"] if entry["name"] == requirement["name"]), None)
    state = "no such interface" if found is None else "up" if found["up"] else "down"
    return [
        (
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


def _port(requirement: dict, facts: dict) -> list[tuple]:
    own = set(facts.get("service", {}).get("pids", []))
    others = [
        entry
        for entry in facts["ports_in_use"]
        if entry["port"] == requirement["port"]
        and entry["pid"] not in own
        and _covers(entry["address"], requirement["address"])
    ]
    held = ", ".join(
        f"taken by {entry['process']} (pid {entry['pid']})" if entry["pid"] else "taken by a process of another user"
        for entry in others
    )
    return [
        (
            FAIL if others else OK,
            f"TCP port {requirement['port']} free on {requirement['address']}",
            held or "free, or held by this deployment",
            "end that process, or set llm_api_port to a free port",
        )
    ]


def _weights_source(requirement: dict, facts: dict) -> list[tuple]:
    path = requirement["path"]
    if not path:
        return [(FAIL, "a folder with the weights", "llm_weights_source is not set", "set llm_weights_source")]
    found = facts["paths"].get(path, {"kind": "nothing", "bytes": 0})
    whole = found["kind"] == "folder" and found["bytes"] >= requirement["bytes"]
    # A disk that was carried in may be gone once its weights are installed.
    installed = facts["paths"].get(requirement["installed"], {"bytes": 0})["bytes"]
    if not whole and installed >= requirement["bytes"] > 0:
        return [
            (OK, f"{path}, or the weights installed", f"{human_bytes(installed)} in {requirement['installed']}", "")
        ]
    return [
        (
            OK if whole else FAIL,
            f"{path} with {human_bytes(requirement['bytes'])} of weights",
            f"{found['kind']}" + (f" with {human_bytes(found['bytes'])}" if found["kind"] == "folder" else ""),
            "put the weights there, mount the share that holds them, or correct llm_weights_source",
        )
    ]


def _disk(requirement: dict, facts: dict) -> list[tuple]:
    """Parts on one file system share its free space; what is there already needs no more."""
    needs: dict[int, list[dict]] = {}
    for part in requirement["parts"]:
        found = facts["paths"][part["path"]]
        missing = max(0, part["bytes"] - found["bytes"])
        needs.setdefault(found["device"], []).append(dict(part, missing=missing, found=found))
    judged = []
    for parts in needs.values():
        need, free = sum(part["missing"] for part in parts), parts[0]["found"]["free"]
        judged.append(
            (
                OK if free >= need else FAIL,
                f"{human_bytes(need)} free for " + " and ".join(f"{part['what']} ({part['path']})" for part in parts),
                f"{human_bytes(free)} free on the file system of {parts[0]['found']['nearest']}",
                "free space there, or set llm_state_dir or llm_weights_path to a larger disk",
            )
        )
    return judged


def _writable(requirement: dict, facts: dict) -> list[tuple]:
    closed = [path for path in requirement["paths"] if not facts["paths"].get(path, {}).get("writable")]
    return [
        (
            FAIL if closed else OK,
            "folders this user may write: " + ", ".join(requirement["paths"]),
            "not writable: " + ", ".join(closed) if closed else f"writable for uid {facts['user']['uid']}",
            "run with become, or set llm_state_dir and llm_weights_path to folders of this user",
        )
    ]


_CHECKS = {
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
}
