# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the NVIDIA GPUs of one host, and what they need around them. Reports, and never judges."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from .. import commands
from . import platform, smi, topology

_FIELDS = ("index", "uuid", "pci.bus_id", "compute_cap")
_WORKERS = 5  # one for each program that is asked at the same time
_MAX_SINGLE = 32  # GPUs that are asked for one by one; more than any host has


class GpuReader:
    """Reads one host.

    :param nvidia_smi: path or name of nvidia-smi; searched for when empty
    :param timeout: seconds for the whole read
    :param root: goes before every path of /proc and /sys, and of the usual folders of programs
    """

    def __init__(self, nvidia_smi: str = "", timeout: float = 10.0, root: str = "") -> None:
        self.nvidia_smi = nvidia_smi
        self.timeout = timeout
        self.root = root
        self.problems: list[str] = []
        self._deadline = 0.0

    def read(self) -> dict:
        """Return the facts of the GPUs of this host; never raises for its state.

        Keys: available, reason, driver_version, cuda_version, schema, gpus[], lost[], processes[], topology,
        fabric_manager, container_toolkit, device_links, kernel_module, pci[], tools, problems[]. ``available`` is
        False only when not one GPU could be read; ``reason`` then says why and what to do.
        """
        self._deadline = time.monotonic() + self.timeout
        self.problems = []
        tool = self._tool()
        pci = platform.pci_devices(self.root, self.problems)
        asked = self._ask_all(tool, pci["nvswitches"])
        log = smi.parse_log(asked["log"].stdout)
        query = self._numbers(tool, asked["query"])
        if not log["gpus"]:
            log = self._one_by_one(tool, query) or log
        links = topology.parse_topology(asked["topo"].stdout)
        answers = [asked[name] for name in ("log", "query", "topo")]
        errors = "\n".join([answer.stderr for answer in answers] + [answer.stdout for answer in answers])
        lost = self._lost(log, query, pci["gpus"], errors)
        if tool:
            self._tell(log, query, links, asked, errors)
        _number(log, query, bool(lost), self.problems)
        module = platform.kernel_module(self.root)
        return {
            "available": bool(log["gpus"]),
            "reason": "" if log["gpus"] else self._reason(tool, asked["log"], pci["gpus"], module["version"]),
            "driver_version": log["driver_version"],
            "cuda_version": log["cuda_version"],
            "schema": log["schema"],
            "gpus": log["gpus"],
            "lost": lost,
            "processes": log["processes"],
            "topology": {key: links[key] for key in ("links", "nics", "cpu_affinity", "numa_affinity")},
            "fabric_manager": asked["fabric_manager"],
            "container_toolkit": asked["container_toolkit"],
            "device_links": platform.device_links(self.root),
            "kernel_module": module,
            "pci": pci["gpus"] or [],
            "tools": {"nvidia_smi": tool},
            "problems": list(dict.fromkeys(self.problems)),
        }

    def _tool(self) -> str:
        if not self.nvidia_smi:
            return platform.find_program("nvidia-smi", self.root)
        return shutil.which(self.nvidia_smi) or ""

    def _run(self, argv: list[str]) -> commands.Outcome:
        """Run a program in what is left of the time."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return commands.Outcome(None, "", "", f"was not asked: the {self.timeout:g} s of this read were over")
        return commands.run(argv, left)

    def _ask_all(self, tool: str, nvswitches: int) -> dict:
        """Ask every program at the same time; each takes seconds where no persistence daemon keeps the driver awake."""
        nothing = commands.Outcome(None, "", "", "nvidia-smi is not there")
        query = f"--query-gpu={','.join(_FIELDS)}"
        calls = {"log": ["-q", "-x"], "query": [query, "--format=csv,noheader,nounits"], "topo": ["topo", "-m"]}
        # Lists of their own: two threads fill them.
        of_manager: list[str] = []
        of_toolkit: list[str] = []
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            asked = {name: pool.submit(self._run, [tool, *arguments]) for name, arguments in calls.items() if tool}
            asked["fabric_manager"] = pool.submit(platform.fabric_manager, self.root, self._run, nvswitches, of_manager)
            asked["container_toolkit"] = pool.submit(platform.container_toolkit, self.root, self._run, of_toolkit)
            answers = {name: call.result() for name, call in asked.items()}
        self.problems += of_manager + of_toolkit
        return {**dict.fromkeys(calls, nothing), **answers}

    def _numbers(self, tool: str, answer: commands.Outcome) -> dict:
        """Return {rows, problems} with the index of every GPU; from -L where this nvidia-smi does not know a field."""
        query = smi.parse_query(answer.stdout or answer.stderr, _FIELDS)
        if not query["bad_field"]:
            return query
        listed = smi.parse_list(self._run([tool, "-L"]).stdout)
        rows = [
            {"index": gpu["index"], "uuid": gpu["uuid"], "pci.bus_id": None, "compute_cap": None}
            for gpu in listed["gpus"]
        ]
        told = f"this nvidia-smi does not know the field {query['bad_field']}; no compute capability is told"
        return {"rows": rows, "problems": [told, *listed["problems"]]}

    def _one_by_one(self, tool: str, query: dict) -> dict | None:
        """Return a log made of one answer for each GPU: a lost GPU can keep nvidia-smi from telling of all at once."""
        addresses = [row["pci.bus_id"] for row in query["rows"] if row["pci.bus_id"]][:_MAX_SINGLE]
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            calls = [pool.submit(self._run, [tool, "-q", "-x", "-i", address]) for address in addresses]
            logs = [smi.parse_log(call.result().stdout, of_one=True) for call in calls]
        merged: dict | None = None
        for address, log in zip(addresses, logs):
            if [gpu["bus_id"] for gpu in log["gpus"]] != [address]:
                continue
            if merged is None:
                told = "nvidia-smi -q -x told of no GPU at all; each was asked for by itself"
                merged = dict(log, whole=False, gpus=[], processes=[], problems=[told])
            position = len(merged["gpus"])
            merged["gpus"].append(dict(log["gpus"][0], index=position))
            merged["processes"] += [dict(process, gpu_index=position) for process in log["processes"]]
            merged["problems"] += log["problems"]
        return merged

    def _lost(self, log: dict, query: dict, on_bus: list[dict] | None, errors: str) -> list[dict]:
        """Return [{bus_id, reason}] of the GPUs that are there and not in nvidia-smi's list, or that it cannot open."""
        lost = {error["bus_id"]: error["reason"] for error in smi.handle_errors(errors)}
        listed = {gpu["bus_id"] for gpu in log["gpus"]} | {row["pci.bus_id"] for row in query["rows"]}
        failed = smi.failure(errors)
        whole = log["whole"] or bool(query["rows"] and not query["problems"])
        # A list that may be cut short proves nothing about a GPU that is not in it.
        if whole or (failed and failed["kind"] == "no_devices"):
            for device in on_bus or []:
                bound = f"bound to the driver {device['driver']}" if device["driver"] else "bound to no driver"
                if device["bus_id"] not in listed:
                    lost.setdefault(device["bus_id"], f"on the PCI bus, {bound}, and not listed by nvidia-smi")
            for address in platform.driver_gpus(self.root):
                if address not in listed:
                    lost.setdefault(address, "known to the driver, and not listed by nvidia-smi")
        return [{"bus_id": address, "reason": lost[address]} for address in sorted(lost)]

    def _tell(self, log: dict, query: dict, links: dict, asked: dict, errors: str) -> None:
        """Add what is wrong with the answers; of a tool that gave no GPU the reason already tells."""
        self.problems += smi.warnings(errors)
        if not log["gpus"]:
            return
        self.problems += log["problems"]
        for name, call, told in (("query", "--query-gpu", query), ("topo", "topo -m", links)):
            reason = asked[name].reason
            self.problems += [f"nvidia-smi {call} {reason}"] if reason else told["problems"]

    def _reason(self, tool: str, answer: commands.Outcome, on_bus: list[dict] | None, loaded: str) -> str:
        """Return why no GPU could be read, and what to do about it."""
        bus = "the PCI bus cannot be read"
        if on_bus is not None:
            bus = f"the PCI bus has {len(on_bus) or 'no'} NVIDIA GPU{'s' if len(on_bus) > 1 else ''}"
        if not tool:
            missing = f"{self.nvidia_smi} is no program here" if self.nvidia_smi else "nvidia-smi is not on this host"
            return f"{missing}, and {bus}" + ("; install the NVIDIA driver" if on_bus and not self.nvidia_smi else "")
        if answer.reason:
            hint = "; a driver that hangs needs a reboot, see dmesg" if answer.reason.startswith("did not end") else ""
            return f"nvidia-smi -q -x {answer.reason}, and {bus}{hint}"
        text = answer.stdout + "\n" + answer.stderr
        failed = smi.failure(text)
        if not failed:
            said = ascii(" ".join(text[:2000].split())[:200])
            return f"nvidia-smi -q -x ended with {answer.code} and printed no GPU that can be read: {said}; {bus}"
        versions = [
            f"{name} {version}"
            for name, version in (("kernel module", loaded), ("library", failed["library_version"]))
            if version
        ]
        shown = f" ({', '.join(versions)})" if versions and failed["kind"] == "mismatch" else ""
        return f"nvidia-smi ended with {answer.code}: {failed['said']}{shown}; {bus}; {failed['remedy']}"


def _number(log: dict, query: dict, lost: bool, problems: list[str]) -> None:
    """Give GPUs and processes the index of nvidia-smi, which leaves gaps where the XML only has an order."""
    by_address, by_uuid = _by(query["rows"], "pci.bus_id"), _by(query["rows"], "uuid")
    indexes: dict[int, int] = {}
    for gpu in log["gpus"]:
        row = by_address.get(gpu["bus_id"]) or by_uuid.get(gpu["uuid"])
        if row and row["index"] is not None:
            indexes[gpu["index"]] = row["index"]
            gpu["compute_capability"] = row["compute_cap"] or gpu["compute_capability"]
    if len(indexes) == len(log["gpus"]) == len(set(indexes.values())):
        for entry, key in [(gpu, "index") for gpu in log["gpus"]] + [(one, "gpu_index") for one in log["processes"]]:
            entry[key] = indexes[entry[key]]
    elif query["rows"] or lost or not log["whole"]:
        problems.append(
            "the indexes of the GPUs are their order in the XML and may be wrong: a GPU is missing somewhere"
        )
    known = {gpu["bus_id"] for gpu in log["gpus"]}
    for address in by_address if log["gpus"] else ():
        if address not in known:
            problems.append(f"GPU {address} is told by nvidia-smi --query-gpu and not by -q -x")


def _by(rows: list[dict], key: str) -> dict[str, dict]:
    """Return the rows by the value of ``key``."""
    return {row[key]: row for row in rows if row[key]}
