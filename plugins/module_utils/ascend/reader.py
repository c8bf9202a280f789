# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the Ascend NPUs of one host with npu-smi, hccn_tool and the files of the driver.

It reports and does not judge. What cannot be understood is None or empty and has a line in ``problems``; a tool that
is missing, hangs or prints nonsense is a reason, never an exception.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import commands
from . import files, hccn, npu_smi

HCCN_CONF = "/etc/hccn.conf"
_SMI_FOLDERS = ("/usr/local/bin", "/usr/local/sbin")  # both occur: the first in containers, the second on hosts
_NPU_SMI_WORKERS = 4  # cards that are asked at a time; each answer takes the driver about half a second
_HCCN_WORKERS = 8
_BUSY_PAUSE = 0.3  # seconds before a busy hccn_tool is asked once more
_MAX_PROBLEMS = 100
_CUT = 400  # characters of a sentence
_WORST_FIRST = ("NOK", "NOT SUPPORT", "UNKNOWN", "OK")  # of Compatibility
_WITHOUT_NETWORK = ("310", "310P")  # layouts and names of cards that have no network port on the NPU
# Parsers of hccn by the option that each is for.
_ASKED = {
    "link": "-link",
    "net_health": "-net_health",
    "ip": "-ip",
    "gateway": "-gateway",
    "netdetect": "-netdetect",
    "tls": "-tls",
}
_CONF_KEYS = {"address": "ip", "netmask": "netmask", "gateway": "gateway"}


class _Tool:
    """One vendor tool: where it is, and whether it is still worth asking.

    :param deadline: time.monotonic() at which the whole reading should be over
    """

    def __init__(self, name: str, path: str, environment: dict[str, str], deadline: float) -> None:
        self.name = name
        self.path = path
        self.given_up = ""  # why it is not asked any more
        self._environment = environment
        self._deadline = deadline
        self._lock = threading.Lock()

    def ask(self, *arguments: str, share: float = 1.0) -> commands.Outcome:
        """Run the tool for at most ``share`` of the time that is left; one that has hung is not run again."""
        left = (self._deadline - time.monotonic()) * share
        if not self.given_up and left <= 0:
            self.give_up(f"no time was left to ask {self.name}")
        if self.given_up:
            return commands.Outcome(None, "", "", self.given_up)
        outcome = commands.run([self.path, *arguments], left, env=self._environment)
        if outcome.code is None:
            asked = " ".join((self.name, *arguments))
            self.give_up(f"{asked} {outcome.reason}; it was not asked again")
            outcome = outcome._replace(reason=self.given_up)
        return outcome

    def give_up(self, reason: str) -> None:
        """Keep the first reason for which this tool is not asked again."""
        with self._lock:
            self.given_up = self.given_up or reason


class NpuReader:
    """Reads the Ascend NPUs of one host.

    :param npu_smi: path of npu-smi; empty looks where the driver's installer puts it, then on the PATH
    :param hccn_tool: path of hccn_tool; empty looks below the driver
    :param hccn_conf: path of hccn.conf; empty is /etc/hccn.conf
    :param network: whether to ask the NPUs for their network ports
    :param timeout: seconds for the whole reading
    :param root: goes before every path that is looked at; empty on a host
    """

    def __init__(
        self,
        npu_smi: str = "",
        hccn_tool: str = "",
        hccn_conf: str = "",
        network: bool = True,
        timeout: float = 10.0,
        root: str = "",
    ) -> None:
        self.root = root
        self.timeout = timeout
        self.network = network
        self.hccn_conf = hccn_conf or HCCN_CONF
        self.problems: list[str] = []
        self._given = {"npu_smi": npu_smi, "hccn_tool": hccn_tool}

    def read(self) -> dict:
        """Return the facts of this host's NPUs; the keys are those of the module npu_info."""
        deadline = time.monotonic() + self.timeout
        installed = files.install(self.root)
        path = installed["path"] or files.DEFAULT_PATH
        versions = files.versions(path, self.root)
        nodes = files.device_nodes(self.root)
        on_bus = files.pci(self.root)
        smi, tool = self._tools(path, deadline)
        table, reason, kind = self._table(smi)
        chips = table["chips"]
        unread = {_ids(chip): chip.pop("unread") for chip in chips}
        reason = "" if chips else self._why(reason, kind, installed, versions["driver"].get("version", ""), on_bus)
        boards: dict[int, dict] = {}
        if chips:
            self._number(chips, smi, nodes["davinci"])
            boards = self._boards(chips, smi)
            self._hold_against_boards(chips, boards, table["layout"], unread)
            self._fill(chips, smi, unread)
            self._describe(chips, boards, smi)
        for chip in chips:
            chip.pop("device")
        conf, devices = self._conf()
        supported, network_reason, network = self._network(chips, table["layout"], tool, devices)
        if smi and smi.given_up and chips:
            self.problems.append(smi.given_up)
        return {
            "available": bool(chips),
            "reason": reason,
            "driver_version": self._driver_version(boards, versions["driver"], table["version"]),
            "firmware_version": self._agreed(boards, "firmware_version") or versions["firmware"].get("version", ""),
            "compatibility": _worst(chips, boards),
            "layout": table["layout"],
            "tool_version": table["tool_version"],
            "tools": {"npu_smi": smi.path if smi else "", "hccn_tool": tool.path if tool else ""},
            "chips": chips,
            "processes": table["processes"],
            "network": network,
            "network_supported": supported,
            "network_reason": network_reason,
            "hccn_conf": conf,
            "conf_disagreements": hccn.disagreements(devices, network) if devices is not None else [],
            "versions": versions,
            "install": installed,
            "cann": files.cann(path, self.root),
            "pci": on_bus,
            "lost": self._lost(chips, on_bus, table["complete"]),
            "device_nodes": nodes,
            "problems": self._told_problems(),
        }

    def _told_problems(self) -> list[str]:
        told = [problem[:_CUT] for problem in dict.fromkeys(self.problems)]
        more = len(told) - _MAX_PROBLEMS
        return [*told[:_MAX_PROBLEMS], f"and {more} problems more"] if more > 0 else told

    # Tools ---------------------------------------------------------------------------------------------------------

    def _tools(self, path: str, deadline: float) -> tuple[_Tool | None, _Tool | None]:
        """Return npu-smi and hccn_tool, None for one that is not there."""
        libraries = [f"{self.root}{path}/driver/{part}" for part in ("lib64/common", "lib64/driver", "lib64")]
        there = os.environ.get("LD_LIBRARY_PATH", "")
        environment = dict(os.environ, LD_LIBRARY_PATH=":".join([*libraries, there] if there else libraries))
        below = f"{self.root}{path}/driver/tools"
        folders = [*(self.root + folder for folder in _SMI_FOLDERS), *self._search_path()]
        smi = self._given["npu_smi"] or _first_program(f"{folder}/npu-smi" for folder in (below, *folders))
        tool = self._given["hccn_tool"] or _first_program(f"{folder}/hccn_tool" for folder in (below, *folders))
        return (
            _Tool("npu-smi", smi, environment, deadline) if smi else None,
            _Tool("hccn_tool", tool, environment, deadline) if tool else None,
        )

    def _search_path(self) -> list[str]:
        listed = os.environ.get("PATH", os.defpath).split(os.pathsep)
        return [self.root + folder for folder in listed if folder.startswith("/")]

    def _answer(self, smi: _Tool, *arguments: str) -> str:
        """Return what a call of npu-smi prints, empty where it fails; the failure is a problem."""
        return self._answers(smi, [arguments])[0]

    def _answers(self, smi: _Tool, calls: list[tuple[str, ...]]) -> list[str]:
        """Return what several calls print, made at the same time; problems come in the order of the calls."""
        if not calls:
            return []
        with ThreadPoolExecutor(min(len(calls), _NPU_SMI_WORKERS)) as pool:
            answers = list(pool.map(lambda arguments: self._ask(smi, arguments), calls))
        self.problems += [problem for _text, problem in answers if problem]
        return [text for text, _problem in answers]

    @staticmethod
    def _ask(smi: _Tool, arguments: tuple[str, ...]) -> tuple[str, str]:
        """Return (text, problem) of one call of npu-smi."""
        outcome = smi.ask(*arguments, share=0.5)
        asked = " ".join(("npu-smi", *arguments))
        known = npu_smi.failure(outcome.stdout) or npu_smi.failure(outcome.stderr)
        if outcome.code is None:
            return "", outcome.reason
        if known:
            return "", f"{asked}: {known['reason']}"
        return outcome.stdout, f"{asked} ended with status {outcome.code}" if outcome.code else ""

    # Chips ---------------------------------------------------------------------------------------------------------

    def _table(self, smi: _Tool | None) -> tuple[dict, str, str]:
        """Return the table of npu-smi and, where no chip is in it, the reason and the kind of failure."""
        if not smi:
            return npu_smi.parse_table(""), "npu-smi is not on this host", "missing"
        outcome = smi.ask("info")
        table = npu_smi.parse_table(outcome.stdout)
        known = npu_smi.failure(outcome.stdout) or npu_smi.failure(outcome.stderr)
        self.problems += table["problems"]
        if table["chips"]:
            if outcome.code != 0:
                self.problems.append(f"npu-smi info ended with status {outcome.code}; what it printed was used")
            if known:
                self.problems.append(known["reason"])
            return table, "", ""
        if outcome.code is None:
            return table, outcome.reason, "silent"
        if known:
            return table, known["reason"], known["kind"]
        printed = " ".join((outcome.stdout[:_CUT] or outcome.stderr[:_CUT]).split())[:120]
        said = f"it printed {printed!a}" if printed else "it printed nothing"
        reason = f"npu-smi info shows no chip that can be read; it ended with status {outcome.code} and {said}"
        return table, reason, "unclear"

    @staticmethod
    def _why(reason: str, kind: str, installed: dict, version: str, on_bus: list[dict]) -> str:
        """Return why no chip could be read, with what the files and the bus tell of it, and what to do."""
        parts = [reason]
        if kind == "not_loaded" and installed["for_all"] is False and os.geteuid() != 0:
            parts.append(f"the driver is installed for the group {installed['group'] or 'of its user'} alone")
        families = " and ".join(sorted({device["family"] or device["device_id"] for device in on_bus}))
        bus = f"{len(on_bus)} devices of family {families} are on the PCI bus" if on_bus else "no NPU is on the PCI bus"
        if kind not in ("missing", "silent", "not_loaded", "no_card"):
            parts.append(bus)
        elif on_bus:
            parts.append(f"{bus} and no driver answers")
            parts.append(
                f"driver {version} is installed: see dmesg, then reboot"
                if version
                else "install driver and firmware of this family, then reboot"
            )
        else:
            parts.append(f"{bus}: see whether the cards are seated" if version else bus)
        return "; ".join(parts)

    def _number(self, chips: list[dict], smi: _Tool, davinci: list[int]) -> None:
        """Give every chip its logic id and its physical id, None where two sources differ or none tells."""
        mapped = npu_smi.parse_map(self._answer(smi, "info", "-m"))
        self.problems += mapped["problems"]
        by_ids = {_ids(row): row for row in mapped["chips"]}
        self._compare_counts(chips, by_ids)
        for chip in chips:
            row = by_ids.get(_ids(chip), {"logic_id": None, "phy_id": None, "name": chip["name"]})
            chip["logic_id"] = self._same(chip, "logic id", chip["device"], row["logic_id"])
            chip["phy_id"] = self._same(chip, "physical id", chip["phy_id"], row["phy_id"])
            if not npu_smi.same_name(chip["name"], row["name"]):
                self.problems.append(
                    f"{_name(chip)} is {chip['name']!a} in npu-smi info and {row['name']!a} in -m; neither is taken"
                )
                chip["name"] = ""
        logic = [row["logic_id"] for row in mapped["chips"]] or [chip["logic_id"] for chip in chips]
        told = any(chip["phy_id"] is not None for chip in chips) or any(
            row["phy_id"] is not None for row in mapped["chips"]
        )
        # Without a number from the tool, node i of the sorted nodes is logic id i, if there is a node for each.
        if not told and len(davinci) == len(logic) and set(logic) == set(range(len(logic))):
            for chip in chips:
                chip["phy_id"] = None if chip["logic_id"] is None else davinci[chip["logic_id"]]
        for key in ("logic_id", "phy_id"):
            self._drop_repeated(chips, key)

    def _compare_counts(self, chips: list[dict], mapped: dict[tuple, dict]) -> None:
        listed = {_ids(chip) for chip in chips}
        lacking = sorted(set(mapped) - listed)
        unknown = sorted(listed - set(mapped)) if mapped else []
        if lacking:
            names = ", ".join(f"NPU {npu} chip {chip}" for npu, chip in lacking)
            self.problems.append(
                f"npu-smi info -m names {len(mapped)} chips, {len(chips)} could be read from the table; not {names}"
            )
        if unknown:
            names = ", ".join(f"NPU {npu} chip {chip}" for npu, chip in unknown)
            self.problems.append(f"npu-smi info -m does not name what is in the table: {names}")

    def _same(self, chip: dict, what: str, one: int | None, other: int | None) -> int | None:
        if one is not None and other is not None and one != other:
            self.problems.append(
                f"{what} of {_name(chip)} is {one} in npu-smi info and {other} in -m; neither is taken"
            )
            return None
        return other if one is None else one

    def _drop_repeated(self, chips: list[dict], key: str) -> None:
        values = [chip[key] for chip in chips]
        for chip in chips:
            if chip[key] is not None and values.count(chip[key]) > 1:
                self.problems.append(f"{key} {chip[key]} of {_name(chip)} is another chip's too; it is not taken")
                chip[key] = None

    def _lost(self, chips: list[dict], on_bus: list[dict], complete: bool) -> list[dict]:
        """Return the NPUs on the PCI bus that npu-smi does not list {bus_id, reason}; none where it lists nothing.

        Where the table is damaged, its rows may be what is missing, not the NPUs.
        """
        listed = {npu_smi.bus_key(chip["bus_id"]) for chip in chips}
        missing = [device["bus_id"] for device in on_bus if npu_smi.bus_key(device["bus_id"]) not in listed]
        if not chips or not missing:
            return []
        if complete and None not in listed:
            reason = "npu-smi does not list it: it dropped off, or is not passed to this container"
            return [{"bus_id": bus_id, "reason": f"it is on the PCI bus and {reason}"} for bus_id in missing]
        self.problems.append(
            f"{len(on_bus)} NPUs are on the PCI bus and {len(chips)} chips could be read from npu-smi's table;"
            f" not found in it: {', '.join(missing)}"
        )
        return []

    def _boards(self, chips: list[dict], smi: _Tool) -> dict[int, dict]:
        """Return what ``-t board`` tells of each card that still answers."""
        cards = sorted({chip["npu_id"] for chip in chips})
        answers = self._answers(smi, [("info", "-t", "board", "-i", str(card)) for card in cards])
        boards = {}
        for card, answer in zip(cards, answers):
            board = npu_smi.parse_board(answer)
            if board["npu_id"] == card:
                boards[card] = board
            elif answer.strip():
                self.problems.append(f"npu-smi info -t board -i {card} does not tell of NPU {card}; it is not taken")
        return boards

    def _hold_against_boards(self, chips: list[dict], boards: dict[int, dict], layout: str, unread: dict) -> None:
        """Take away what the table's second line told of a card whose bus id is not the one of its board.

        Such a line is another chip's. Cards of more than one PCI device are not held against the one that the board
        names.
        """
        if layout not in ("910", "950", "310P"):
            return
        for chip in chips:
            board = npu_smi.bus_key(boards.get(chip["npu_id"], {}).get("bus_id", ""))
            if board and chip["bus_id"] and board != npu_smi.bus_key(chip["bus_id"]):
                self.problems.append(
                    f"{_name(chip)} has bus id {chip['bus_id']} in npu-smi info and"
                    f" {boards[chip['npu_id']]['bus_id']} in -t board; its bus id and its use are not taken"
                )
                chip.update(bus_id="", aicore_percent=None, memory_total_mib=None, memory_used_mib=None)
                unread[_ids(chip)] += ["aicore_percent", "memory_total_mib"]

    def _fill(self, chips: list[dict], smi: _Tool, unread: dict[tuple, list[str]]) -> None:
        """Ask further for what the table printed and nobody could understand. What is in use is told by it alone."""
        sources = (
            ("usages", npu_smi.parse_usages, {"memory_total_mib", "aicore_percent"}),
            ("memory", npu_smi.parse_memory, {"memory_total_mib"}),
            ("common", npu_smi.parse_common, {"aicore_percent", "temperature_c", "power_w"}),
        )
        for kind, parse, keys in sources:
            asked: dict[int, dict] = {}
            for chip in chips:
                lacking = [key for key in keys.intersection(unread[_ids(chip)]) if chip[key] is None]
                if not lacking:
                    continue
                card = chip["npu_id"]
                if card not in asked:
                    told = parse(self._answer(smi, "info", "-t", kind, "-i", str(card)))
                    asked[card] = told["chips"] if told["npu_id"] == card else {}
                told_chip = asked[card].get(chip["chip_id"], {})
                total = told_chip.get(f"{chip['memory_kind'].lower()}_total_mib")
                for key in lacking:
                    chip[key] = (total or None) if key == "memory_total_mib" else told_chip.get(key)

    def _describe(self, chips: list[dict], boards: dict[int, dict], smi: _Tool) -> None:
        """Add product, versions and error codes to every chip."""
        first = chips[0]["npu_id"]
        product = npu_smi.parse_product(self._answer(smi, "info", "-t", "product", "-i", str(first)))
        named = set(product["chips"].values()) if product["npu_id"] == first else set()
        model = {key: boards.get(first, {}).get(key) for key in ("board_id", "pci_device_id")}
        for chip in chips:
            board = boards.get(chip["npu_id"], {})
            # One card is asked; the others are of its product if their board is the same.
            alike = chip["npu_id"] == first or (all(model.values()) and model.items() <= board.items())
            chip["product"] = next(iter(named)) if alike and len(named) == 1 else ""
            chip["software_version"] = board.get("software_version", "")
            chip["firmware_version"] = board.get("firmware_version", "")
            chip["error_codes"] = []
        ill = [chip for chip in chips if chip["health"] != "OK"]
        targets = [("-i", str(chip["npu_id"]), "-c", str(chip["chip_id"])) for chip in ill]
        answers = self._answers(smi, [("info", "-t", "health", *target) for target in targets])
        for chip, answer in zip(ill, answers):
            told = npu_smi.parse_health(answer)
            chip["error_codes"] = told["error_codes"]
            chip["health"] = chip["health"] or told["health"]

    def _agreed(self, boards: dict[int, dict], key: str) -> str:
        """Return what all boards that were read say, empty where they differ or none says."""
        values = {board[key].lower(): board[key] for board in boards.values() if board[key]}
        if len(values) > 1:
            listed = ", ".join(f"NPU {card}: {board[key] or '?'}" for card, board in sorted(boards.items()))
            self.problems.append(f"{key} differs between the cards: {listed}")
        return next(iter(values.values())) if len(values) == 1 else ""

    def _driver_version(self, boards: dict[int, dict], driver: dict[str, str], of_table: str) -> str:
        told = (
            ("-t board", self._agreed(boards, "software_version")),
            ("version.info", driver.get("version", "")),
            ("npu-smi info", of_table),
        )
        known = [(source, version) for source, version in told if version]
        if len({version.lower() for _source, version in known}) > 1:
            listed = ", ".join(f"{version} ({source})" for source, version in known)
            self.problems.append(f"the driver's version is told differently: {listed}; a reboot may be due")
        return known[0][1] if known else ""

    # Network -------------------------------------------------------------------------------------------------------

    def _conf(self) -> tuple[dict, dict[int, dict] | None]:
        """Return {path, readable, reason} of hccn.conf and its entries by device, None if it cannot be read."""
        text, reason = files.read_text(self.root + self.hccn_conf)
        told = hccn.parse_conf(text)
        self.problems += told["problems"]
        return {"path": self.hccn_conf, "readable": not reason, "reason": reason}, None if reason else told["devices"]

    def _network(
        self, chips: list[dict], layout: str, tool: _Tool | None, conf: dict[int, dict] | None
    ) -> tuple[bool | None, str, list[dict]]:
        """Return whether the NPUs have network ports (None: not known), a reason if not, and what the ports tell."""
        if not chips:
            return None, "no chip could be read", []
        if layout in _WITHOUT_NETWORK or all(chip["name"].startswith(_WITHOUT_NETWORK) for chip in chips):
            return False, "these cards have no network port on the NPU; hosts talk over their own network cards", []
        if not self.network:
            return None, "the network ports were not asked for", []
        if layout == "950":
            return None, "hccn_tool of the Ascend 950 asks by die and port, which is not read here", []
        if not tool:
            return None, "hccn_tool is not on this host; in a container, mount it with the driver", []
        numbers = sorted(chip["phy_id"] for chip in chips if chip["phy_id"] is not None)
        if len(numbers) < len(chips):
            self.problems.append("the network ports of chips without a physical id were not asked")
        if not numbers:
            return None, "no chip has a physical id, by which hccn_tool asks", []
        with ThreadPoolExecutor(_HCCN_WORKERS) as pool:
            asked = list(pool.map(lambda number: self._port(tool, number), numbers))
        failures = [failure for _port, failed in asked for failure in failed]
        if not any(_known(port) for port, _failed in asked):
            kinds = {kind for kind, _what, _reason in failures}
            return (False if kinds == {"unsupported"} else None), failures[0][2], []
        self.problems += [f"{what} is not known in full: {reason}" for _kind, what, reason in failures]
        return True, "", [self._with_conf(port, conf) for port, _failed in asked]

    def _port(self, tool: _Tool, number: int) -> tuple[dict, list[tuple[str, str, str]]]:
        """Return what one device's port tells, and (kind, what, reason) of what it does not."""
        port = {"phy_id": number, "link": None, "net_health": None, "ip": None, "netmask": None}
        port.update(gateway=None, netdetect=None, tls=None)
        failures = []
        for key, option in _ASKED.items():
            text, kind, reason = self._ask_port(tool, number, option)
            told = getattr(hccn, key)(text)
            told = told if isinstance(told, dict) else {key: told}
            port.update(told)
            if None in told.values():
                failures.append((kind, f"{key} of device {number}", reason or "hccn_tool does not say"))
            if kind in ("silent", "permission", "unsupported"):
                break  # it says the same to every question
        return port, failures

    def _ask_port(self, tool: _Tool, number: int, option: str) -> tuple[str, str, str]:
        """Return (text, kind of failure or empty, reason) of one call; a busy tool is asked once more."""
        text, kind, reason = self._ask_once(tool, number, option)
        if kind == "busy":
            time.sleep(_BUSY_PAUSE)
            text, kind, reason = self._ask_once(tool, number, option)
        return text, kind, reason

    @staticmethod
    def _ask_once(tool: _Tool, number: int, option: str) -> tuple[str, str, str]:
        outcome = tool.ask("-i", str(number), option, "-g", share=0.5)
        if outcome.code is None:
            return "", "silent", outcome.reason
        for text in (outcome.stdout, outcome.stderr):
            known = hccn.failure(text)
            if known:
                # That nothing is set is an answer, which the parsers understand.
                return (text, "", "") if known["kind"] == "unset" else ("", known["kind"], known["reason"])
        return outcome.stdout, "", f"hccn_tool ended with status {outcome.code}" if outcome.code else ""

    @staticmethod
    def _with_conf(port: dict, conf: dict[int, dict] | None) -> dict:
        """Return the port with what hccn.conf says of it, None where the file cannot be read."""
        keys = {} if conf is None else conf.get(port["phy_id"], {})
        told = {f"conf_{name}": None if conf is None else keys.get(key, "") for key, name in _CONF_KEYS.items()}
        return {**port, **told, "conf_tls": hccn.conf_switch(keys)}


def _known(told: dict) -> bool:
    """True when a port tells anything."""
    return any(value is not None for key, value in told.items() if key != "phy_id")


def _first_program(paths: Any) -> str:
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def _worst(chips: list[dict], boards: dict[int, dict]) -> str:
    """Return the worst Compatibility of all cards; a card that does not tell is UNKNOWN if another does."""
    told = [boards.get(card, {}).get("compatibility", "") for card in {chip["npu_id"] for chip in chips}]
    if not any(told):
        return ""
    return next(word for word in _WORST_FIRST if word in [value or "UNKNOWN" for value in told])


def _ids(chip: dict) -> tuple[int, int]:
    return chip["npu_id"], chip["chip_id"]


def _name(chip: dict) -> str:
    return f"NPU {chip['npu_id']} chip {chip['chip_id']}"
