# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parsers of what npu-smi prints. Pure: text in, plain dicts out; nothing here raises for what the text holds.

Source of the layouts: the print functions of npu-smi in the published driver (npu_info_print.c), and captures of
versions 20.2.0 to 26.0. Cells are told apart by ``|`` and must match as a whole: half of a damaged number is none.
A value that was printed as ``NA`` or ``-`` is None; one that cannot be understood is None too and is named in
``unread`` of its chip and in ``problems``.

What no parser can see: lines that vanish so that the first line of one chip meets the second line of another. Who
reads a host holds the bus id of the table against the one of ``-t board``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LIMIT = 1 << 20  # characters that are looked at; the table of 16 chips with their processes has 8 000
_WIDTH = 1000  # longer lines are none of npu-smi's, whose widest table has 116
_HEALTH = ("OK", "Warning", "Alarm", "Critical", "UNKNOWN")  # npu_common.c
COMPATIBILITY = ("OK", "NOK", "UNKNOWN", "NOT SUPPORT")  # npu_info_print.c
_MAX_PERCENT = 100
_MAX_CELSIUS = 150  # the chips switch themselves off long before
_MAX_WATT = 5000  # far above any card
_ABSENT = ("NA", "N/A", "-", "")
# "xxx" stands for a name in published samples whose authors masked it.
_MASKED = "xxx"

_WHOLE = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
_BUS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]")
_WORD = re.compile(r"[A-Za-z][A-Za-z ]{0,30}")
_CODE = re.compile(r"(?:0[xX])?[0-9A-Fa-f]{1,16}")
_VERSION_LINE = re.compile(r"npu-smi\s+(\S{1,64})\s+Version:\s*(\S{1,64})")
_IDLE = re.compile(r"No running processes found in NPU ([0-9]{1,9})")
_CELL = r"([0-9]{1,9}|NA|-)"
_PAIR = rf"{_CELL}\s*/\s*{_CELL}"
# Power, temperature, and from 21 on the huge pages.
_FIRST_MEASURES = re.compile(rf"([0-9]{{1,5}}(?:\.[0-9]{{1,3}})?|NA|-)\s+{_CELL}(?:\s+{_PAIR})?")
# AI core percent, then one memory (310, 310P) or DDR and HBM (910, 950).
_SECOND_MEASURES = re.compile(rf"{_CELL}\s+{_PAIR}(?:\s+{_PAIR})?")

_FAILURES = (
    (
        "in_use",
        re.compile(r"dcmi mod(?:ule|el) initiali[sz]ed? failed, because the device is used[^\n]{0,40}?(-?[0-9]{1,9})"),
        "the NPUs are held by another container or virtual machine; end it, or give this host its own NPUs",
    ),
    (
        "not_loaded",
        re.compile(r"dcmi mod(?:ule|el) initiali[sz]ed? failed[^\n]{0,40}?(-?[0-9]{1,9})"),
        "the driver does not answer: it is not loaded, the host was not rebooted after an upgrade, or this user is"
        " not in the driver's group; reboot the host, or run as root",
    ),
    (
        "no_such_card",
        re.compile(r"Invalid card id"),
        "npu-smi knows no card of that id; it may have dropped off the bus",
    ),
    (
        "no_card",
        re.compile(r"There is no NPU card"),
        "npu-smi finds no NPU; see whether the cards are seated and on the PCI bus (lspci -d 19e5:)",
    ),
    (
        "bad_option",
        re.compile(r"Command or option is not found"),
        "this npu-smi does not know what it was asked; it is older or newer than those known here",
    ),
)


def failure(text: str) -> dict | None:
    """Return {kind, code (int or None), reason} of an error that npu-smi printed, None where there is none known."""
    for kind, pattern, reason in _FAILURES:
        found = pattern.search(text[:LIMIT])
        if found:
            code = int(found.group(1)) if found.groups() else None
            said = " ".join(found.group(0).split())
            return {"kind": kind, "code": code, "reason": f"npu-smi says '{said}': {reason}"}
    return None


def bus_key(bus_id: str) -> tuple[int, ...] | None:
    """Return a PCI address in a form that compares, whatever its case and width; None for anything else."""
    if not _BUS.fullmatch(bus_id):
        return None
    return tuple(int(part, 16) for part in re.split("[:.]", bus_id))


def parse_table(text: str) -> dict:
    """Return what the table of ``npu-smi info`` tells.

    {layout, tool_version, version, chips[], processes[], process_table (bool), complete (bool), problems[]}, where
    ``complete`` is false if a row was left out or the end is missing; a chip is {npu_id, chip_id, device (logic id or
    None), phy_id, name, health, power_w, temperature_c, bus_id, aicore_percent, memory_kind, memory_total_mib,
    memory_used_mib, unread[]}, a process {npu_id, chip_id, pid, name, memory_mib}.
    """
    table = _Table()
    for line in _lines(text):
        table.take(line)
    result = table.result()
    if len(text) > LIMIT:
        result["problems"].append(f"npu-smi printed {len(text)} characters; only the first {LIMIT} were looked at")
    return result


class _Table:
    """The state of one pass over the table, line by line."""

    def __init__(self) -> None:
        self.layout = ""
        self.tool_version = ""
        self.version = ""
        self.chips: list[dict] = []
        self.processes: list[dict] = []
        self.told: set[int] = set()  # NPU ids whose processes the table tells, also where it says none
        self.process_width = 0  # cells of a process row, 0 outside the process table
        self.process_table = False
        self.closed = True  # whether a rule has followed the last row of a chip
        self.left_out = False
        self.pending: dict | None = None  # the first line of a chip, until its second is met
        self.last = ""
        self.problems: list[str] = []

    def take(self, line: str) -> None:
        """Take one line; what is no line of a table (errors of another stream, what a reporter left out) is passed."""
        repeated, self.last = line == self.last, line or self.last
        if line.startswith("+") or "===" in line or "---" in line:
            self._drop_pending()
            self.closed = True
        elif len(line) > 1 and line.startswith("|") and line.endswith("|"):
            if not repeated:
                self._row([cell.strip() for cell in line[1:-1].split("|")])
        elif "|" in line:
            self._unreadable([line])

    def _drop_pending(self) -> None:
        if self.pending:
            self.left_out = True
            self.problems.append(
                f"the row of NPU {self.pending['npu_id']} in the table of npu-smi is incomplete; the chip is left out"
            )
        self.pending = None

    def _row(self, cells: list[str]) -> None:
        version = _VERSION_LINE.fullmatch(cells[0])
        idle = _IDLE.fullmatch(cells[0])
        if len(cells) == 1 and version:
            self.tool_version, self.version = version.groups()
        elif len(cells) == 1 and idle:
            self.told.add(int(idle.group(1)))
        elif len(cells) == 1:
            self._unreadable(cells)
        elif cells[0].startswith(("NPU ", "Chip")) or "Bus-Id" in cells:
            self._head(cells)
        elif self.process_width:
            self._process(cells)
        else:
            self._chip_line(cells)

    def _head(self, cells: list[str]) -> None:
        self._drop_pending()
        self.process_width = len(cells) if "Process id" in cells else 0
        if self.process_width:
            self.process_table = True
        elif cells[0] == "NPU ID" and len(cells) == 4:
            self.layout = "950"
        elif cells[0].split() == ["Chip", "Phy-ID"]:
            self.layout = "A3"
        elif cells[0].split() == ["Chip", "Device"]:
            self.layout = "310P"
        elif cells[0] == "Chip" and cells[-1].endswith("HBM-Usage(MB)"):
            self.layout = "910"

    def _chip_line(self, cells: list[str]) -> None:
        wide = len(cells) == 4
        if len(cells) not in (3, 4) or (self.layout and wide != (self.layout == "950")):
            self._unreadable(cells)
            return
        if wide:
            cells = [f"{cells[0]} {cells[1]}".strip(), *cells[2:]]
        self.closed = False
        if _BUS.fullmatch(cells[1]) or cells[1] in ("NA", "-"):
            self._second(cells, wide)
        else:
            self._first(cells, wide)

    def _unreadable(self, cells: list[str]) -> None:
        self._drop_pending()
        self.left_out = True
        self.problems.append(f"a row of npu-smi's table cannot be understood: {_shown(' | '.join(cells))}")

    def _first(self, cells: list[str], wide: bool) -> None:
        words = cells[0].split()
        if len(words) < 2 or not _WHOLE.fullmatch(words[0]) or not _WORD.fullmatch(cells[1]):
            self._unreadable(cells)
            return
        self._drop_pending()
        measures = _FIRST_MEASURES.fullmatch(cells[2])
        chip: dict[str, Any] = {"npu_id": int(words[0]), "name": " ".join(words[1:]), "wide": wide, "unread": []}
        chip["health"] = cells[1] if cells[1] in _HEALTH else ""
        chip["power_w"] = _decimal(measures.group(1), _MAX_WATT) if measures else None
        chip["temperature_c"] = _whole(measures.group(2), _MAX_CELSIUS) if measures else None
        if not chip["health"]:
            chip["unread"].append("health")
        if not measures:
            chip["unread"] += ["power_w", "temperature_c"]
        else:
            told = zip(("power_w", "temperature_c"), measures.groups())
            chip["unread"] += [key for key, text in told if chip[key] is None and text not in _ABSENT]
        self.pending = chip

    def _second(self, cells: list[str], wide: bool) -> None:
        chip, self.pending = self.pending, None
        ids = cells[0].split()
        wanted = {"910": (1,), "A3": (2,), "310P": (2,), "950": (0,), "": (0,) if wide else (1, 2)}[self.layout]
        known = [_whole(word) for word in ids]
        if not chip or chip.pop("wide") != wide or len(ids) not in wanted or (ids and known[0] is None):
            self.left_out = True
            self.problems.append(
                f"a row of npu-smi's table lacks its other half; it is left out: {_shown(' | '.join(cells))}"
            )
            return
        chip["chip_id"] = known[0] if ids else 0
        # Without a head nothing says what the second number is.
        chip["device"] = known[1] if self.layout == "310P" else None
        chip["phy_id"] = known[1] if self.layout == "A3" else None
        chip["bus_id"] = cells[1] if _BUS.fullmatch(cells[1]) else ""
        if len(ids) == 2 and known[1] is None and ids[1] not in _ABSENT:
            chip["unread"].append("phy_id" if self.layout == "A3" else "device")
        self._measure(chip, cells[2])
        self._add(chip)

    def _measure(self, chip: dict, cell: str) -> None:
        one_memory = self.layout == "310P" or (not self.layout and chip["name"].startswith("310"))
        chip["memory_kind"] = "DDR" if one_memory else "HBM"
        chip["aicore_percent"] = chip["memory_used_mib"] = chip["memory_total_mib"] = None
        measures = _SECOND_MEASURES.fullmatch(cell)
        if not measures or (measures.group(4) is None) != one_memory:
            chip["unread"] += ["aicore_percent", "memory_total_mib", "memory_used_mib"]
            return
        chip["aicore_percent"] = _whole(measures.group(1), _MAX_PERCENT)
        if chip["aicore_percent"] is None and measures.group(1) not in _ABSENT:
            chip["unread"].append("aicore_percent")
        told = measures.groups()[1:3] if one_memory else measures.groups()[3:5]
        used, total = (_whole(value) for value in told)
        if total == 0 or (used is not None and (total is None or used > total)):
            chip["unread"] += ["memory_total_mib", "memory_used_mib"]
            self.problems.append(f"{_name(chip)} cannot have {told[0]} of {told[1]} MiB in use; neither is taken")
            return
        chip["memory_used_mib"], chip["memory_total_mib"] = used, total

    def _add(self, chip: dict) -> None:
        for key in chip["unread"]:
            self.problems.append(f"{key} of {_name(chip)} cannot be understood in the table of npu-smi")
        twin = next((other for other in self.chips if _ids(other) == _ids(chip)), None)
        if twin is None:
            self.chips.append(chip)
            return
        self.problems.append(f"{_name(chip)} is in the table of npu-smi twice; what differs is not taken")
        for key, value in chip.items():
            if key != "unread" and twin[key] != value:
                twin[key] = "" if isinstance(value, str) else None
                twin["unread"].append(key)

    def _process(self, cells: list[str]) -> None:
        ids = [_whole(word) for word in cells[0].split()]
        wanted = 1 if self.layout == "950" else 2
        pid = _whole(cells[1]) if len(cells) > 1 else None
        if len(cells) != self.process_width or len(cells) < 4 or len(ids) != wanted or None in ids or pid is None:
            self.problems.append(f"a process in npu-smi's table cannot be understood: {_shown(' | '.join(cells))}")
            return
        process = {
            "npu_id": ids[0],
            "chip_id": ids[1] if wanted == 2 else 0,
            "pid": pid,
            "name": cells[2],
            "memory_mib": _whole(cells[3]),
        }
        self.told.add(ids[0])
        if process in self.processes:
            return
        if process["memory_mib"] is None and cells[3] not in _ABSENT:
            self.problems.append(f"the memory of process {pid} on {_name(process)} cannot be understood")
        self.processes.append(process)

    def result(self) -> dict:
        """Return what all lines together tell."""
        self._drop_pending()
        if self.layout == "310P" and self.chips and not any(chip["name"].startswith("310P") for chip in self.chips):
            self.layout = "310"
        if self.chips and not self.layout:
            self.problems.append("the head of npu-smi's table is missing; device numbers in it are not taken")
        if self.chips and not self.closed:
            self.problems.append("the table of npu-smi does not end with its rule; it may be cut off")
        self._check_buses()
        self._check_processes()
        return {
            "layout": self.layout,
            "tool_version": self.tool_version,
            "version": self.version,
            "chips": self.chips,
            "processes": self.processes,
            "process_table": self.process_table,
            "complete": self.closed and not self.left_out,
            "problems": self.problems,
        }

    def _check_buses(self) -> None:
        """Two cards at one address are a damaged table; the chips of one card may share theirs (300I Duo)."""
        cards: dict[tuple | None, set[int]] = {}
        for chip in self.chips:
            cards.setdefault(bus_key(chip["bus_id"]), set()).add(chip["npu_id"])
        for chip in self.chips:
            if chip["bus_id"] and len(cards[bus_key(chip["bus_id"])]) > 1:
                self.problems.append(f"{_name(chip)} has the bus id {chip['bus_id']} of another card; it is not taken")
                chip["bus_id"] = ""

    def _check_processes(self) -> None:
        totals = {_ids(chip): chip["memory_total_mib"] for chip in self.chips}
        for process in self.processes:
            total = totals.get(_ids(process))
            if total is not None and (process["memory_mib"] or 0) > total:
                self.problems.append(
                    f"process {process['pid']} cannot hold {process['memory_mib']} MiB of {_name(process)}"
                )
                process["memory_mib"] = None
        if self.chips and not self.process_table:
            self.problems.append("npu-smi printed no process table; what runs on the NPUs is not known")
        elif self.chips:
            silent = sorted({chip["npu_id"] for chip in self.chips} - self.told)
            if silent:
                listed = ", ".join(map(str, silent))
                self.problems.append(f"the process table of npu-smi says nothing of NPU {listed}; it may be cut off")


def parse_map(text: str) -> dict:
    """Return {chips[], problems[]} of ``npu-smi info -m``; a chip is {npu_id, chip_id, logic_id, phy_id, name}.

    Rows of the controller (Mcu) are no chips. Without its head the table is not read: four numbers may be three.
    """
    chips: list[dict] = []
    problems: list[str] = []
    numbers = 0
    for line in _lines(text):
        words = line.split()
        if words[:2] == ["NPU", "ID"] and words[-2:] == ["Chip", "Name"]:
            numbers = 4 if "Phy-ID" in words else 3 if "Logic" in words else 0
        elif numbers and words and _WHOLE.fullmatch(words[0]):
            _map_row(words, numbers, chips, problems)
    _drop_repeated(chips, "logic_id", problems)
    _drop_repeated(chips, "phy_id", problems)
    return {"chips": chips, "problems": problems}


def _map_row(words: list[str], numbers: int, chips: list[dict], problems: list[str]) -> None:
    values, name = words[:numbers], " ".join(words[numbers:])
    if name.lower() == "mcu":
        return
    known = [_whole(value) for value in values]
    unread = any(number is None and value not in _ABSENT for number, value in zip(known, values))
    if len(values) < numbers or not name or None in known[:3] or unread:
        problems.append(f"a row of npu-smi info -m cannot be understood: {_shown(' '.join(words))}")
        return
    chip = {
        "npu_id": known[0],
        "chip_id": known[1],
        "logic_id": known[2],
        "phy_id": known[3] if numbers == 4 else None,
        "name": name,
    }
    twin = next((other for other in chips if _ids(other) == _ids(chip)), None)
    if twin is None:
        chips.append(chip)
    elif twin != chip:
        problems.append(f"npu-smi info -m names {_name(chip)} twice, and differently; its device numbers are not taken")
        twin.update(logic_id=None, phy_id=None)


def _drop_repeated(chips: list[dict], key: str, problems: list[str]) -> None:
    values = [chip[key] for chip in chips if chip[key] is not None]
    for chip in chips:
        if chip[key] is not None and values.count(chip[key]) > 1:
            problems.append(f"npu-smi info -m gives {key} {chip[key]} to more than one chip; {_name(chip)} has none")
            chip[key] = None


def parse_list(text: str) -> dict:
    """Return {total (int or None), cards[] {npu_id, chip_count}} of ``npu-smi info -l``."""
    total, cards = None, []
    for key, value in _key_values(text):
        if key in ("Total Count", "Card Count"):
            total = _whole(value)
        elif key == "NPU ID" and _whole(value) is not None:
            cards.append({"npu_id": _whole(value), "chip_count": None})
        elif key == "Chip Count" and cards:
            cards[-1]["chip_count"] = _whole(value)
    return {"total": total, "cards": cards}


_BOARD = {
    "Product Name": "product_name",
    "Model": "model",
    "Manufacturer": "manufacturer",
    "Serial Number": "serial_number",
    "Software Version": "software_version",
    "Firmware Version": "firmware_version",
    "Compatibility": "compatibility",
    "Board ID": "board_id",
    "PCIe Bus Info": "bus_id",
    "PCI Vendor ID": "pci_vendor_id",
    "PCI Device ID": "pci_device_id",
    "Chip Type": "chip_type",
    "Chip Name": "chip_name",
}
_BOARD_NUMBERS = {"NPU ID": "npu_id", "Chip ID": "chip_id", "Chip Count": "chip_count"}


def parse_board(text: str) -> dict:
    """Return ``npu-smi info -t board``, of a card or of a chip; texts that are NA or lack are empty, numbers None."""
    told: dict[str, str] = {}
    doubtful = set()
    for key, value in _key_values(text):
        if told.setdefault(key, value) != value:
            doubtful.add(key)
    told = {key: "" if key in doubtful or value in _ABSENT else value for key, value in told.items()}
    board: dict[str, Any] = {name: told.get(key, "") for key, name in _BOARD.items()}
    board.update({name: _whole(told.get(key, "")) for key, name in _BOARD_NUMBERS.items()})
    if board["compatibility"] not in COMPATIBILITY:
        board["compatibility"] = ""
    if not _BUS.fullmatch(board["bus_id"]):
        board["bus_id"] = ""
    return board


def parse_common(text: str) -> dict:
    """Return {npu_id, chips {chip id: {aicore_percent, temperature_c, power_w, hbm_percent, memory_percent}}}.

    Of ``npu-smi info -t common``, where the chip id opens a block. The block of the mcu is the card's, no chip's.
    """
    fields = {
        "Aicore Usage Rate(%)": ("aicore_percent", _MAX_PERCENT),
        "HBM Usage Rate(%)": ("hbm_percent", _MAX_PERCENT),
        "Memory Usage Rate(%)": ("memory_percent", _MAX_PERCENT),
        "Temperature(C)": ("temperature_c", _MAX_CELSIUS),
        "NPU Real-time Power(W)": ("power_w", _MAX_WATT),
    }
    return _measured(text, fields, chip_first=True)


def parse_usages(text: str) -> dict:
    """Return {npu_id, chips {chip id: {ddr_total_mib, ddr_percent, hbm_total_mib, hbm_percent, aicore_percent}}}."""
    fields = {
        "DDR Capacity(MB)": ("ddr_total_mib", None),
        "DDR Usage Rate(%)": ("ddr_percent", _MAX_PERCENT),
        "HBM Capacity(MB)": ("hbm_total_mib", None),
        "HBM Usage Rate(%)": ("hbm_percent", _MAX_PERCENT),
        "Aicore Usage Rate(%)": ("aicore_percent", _MAX_PERCENT),
    }
    return _measured(text, fields)


def parse_memory(text: str) -> dict:
    """Return {npu_id, chips {chip id: {ddr_total_mib, ddr_physical_mib, hbm_total_mib}}} of ``-t memory``."""
    fields = {
        "DDR Capacity(MB)": ("ddr_total_mib", None),
        "Total DDR Capacity(MB)": ("ddr_physical_mib", None),
        "HBM Capacity(MB)": ("hbm_total_mib", None),
    }
    return _measured(text, fields)


def _measured(text: str, fields: dict[str, tuple[str, int | None]], chip_first: bool = False) -> dict:
    npu_id, blocks = _blocks(text, chip_first)
    chips = {}
    for chip_id, block in blocks.items():
        chips[chip_id] = {
            name: (_decimal if name == "power_w" else _whole)(block.get(key, ""), most)
            for key, (name, most) in fields.items()
        }
    return {"npu_id": npu_id, "chips": chips}


def parse_product(text: str) -> dict:
    """Return {npu_id, chips {chip id: product type}} of ``npu-smi info -t product``."""
    npu_id, blocks = _blocks(text)
    named = {chip_id: block.get("Product Type", "") for chip_id, block in blocks.items()}
    return {"npu_id": npu_id, "chips": {chip_id: name for chip_id, name in named.items() if name not in _ABSENT}}


def parse_health(text: str) -> dict:
    """Return {npu_id, chips {chip id: health}, health, error_codes[], information[]} of ``npu-smi info -t health``.

    ``chips`` comes from the view of a card, the last three from the view of one chip (``-c``).
    """
    npu_id, blocks = _blocks(text)
    health, codes, information, key = "", [], [], ""
    for name, value in _key_values(text):
        key = name or key  # a line without a key goes on with the one before
        if key == "Health Status":
            health = value if value in _HEALTH else ""
        elif key == "Error Code":
            codes += [word for word in value.split() if word not in _ABSENT and _CODE.fullmatch(word)]
        elif key == "Error Information" and value not in _ABSENT:
            information.append(value)
    told = {chip_id: block.get("Health", "") for chip_id, block in blocks.items()}
    return {
        "npu_id": npu_id,
        "chips": {chip_id: value for chip_id, value in told.items() if value in _HEALTH},
        "health": health,
        "error_codes": codes,
        "information": information,
    }


def same_name(one: str, other: str) -> bool:
    """True unless two names of a chip contradict each other; the table says 910B4 where -m says Ascend 910B4."""
    bare = [name.lower().replace("ascend", "").strip(" _-") for name in (one, other)]
    return _MASKED in bare or bare[0].startswith(bare[1]) or bare[1].startswith(bare[0])


def _blocks(text: str, chip_first: bool = False) -> tuple[int | None, dict[int, dict[str, str]]]:
    """Return the NPU id and, by chip id, the keys and values of each chip's block.

    The chip id, or the name of the mcu, opens a block (``chip_first``) or closes it. A block that holds a key twice is
    two blocks whose border is lost; nobody knows which value is whose, so none of it is taken. The empty key marks
    such a block.
    """
    npu_id, current, owner = None, {}, None
    blocks: dict[int, dict[str, str]] = {}
    doubtful: set[int | None] = {None}  # what belongs to no chip, and to the mcu
    last = ("", "")

    def close(chip_id: int | None) -> None:
        if chip_id in blocks or "" in current:
            doubtful.add(chip_id)
        elif chip_id is not None:
            blocks[chip_id] = dict(current)
        current.clear()

    for key, value in _key_values(text):
        if (key, value) == last:
            continue
        last = (key, value)
        if key == "NPU ID":
            npu_id = _whole(value)
        elif key in ("Chip ID", "Chip Name"):
            chip_id = _whole(value) if key == "Chip ID" else None
            close(owner if chip_first else chip_id)
            owner = chip_id
        elif key != "Chip Count":
            current["" if key in current else key] = value
    if chip_first:
        doubtful.add(owner)  # the mcu comes last; without its border its values would be those of the last chip
    return npu_id, {chip_id: block for chip_id, block in blocks.items() if chip_id not in doubtful}


def _key_values(text: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of lines ``key : value``; the tool's leading TAB is often lost on the way."""
    for line in _lines(text):
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text[:LIMIT].replace("\r", "\n").split("\n") if len(line) <= _WIDTH]


def _whole(text: str, most: int | None = None) -> int | None:
    if not _WHOLE.fullmatch(text) or (most is not None and int(text) > most):
        return None
    return int(text)


def _decimal(text: str, most: int | None = None) -> float | None:
    if not _DECIMAL.fullmatch(text) or (most is not None and float(text) > most):
        return None
    return float(text)


def _ids(chip: dict) -> tuple[int, int]:
    return chip["npu_id"], chip["chip_id"]


def _name(chip: dict) -> str:
    return f"NPU {chip['npu_id']} chip {chip['chip_id']}"


def _shown(text: str) -> str:
    """Return a piece of damaged output that is short and safe to print."""
    return ascii(" ".join(text.split())[:80])
