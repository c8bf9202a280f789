# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of `npu-smi info`.

Widths are those of recorded outputs: 910A at 22.0, 910B and A3 at 23.0 to 25.5 and at 26.0, 310P at 24.1,
310 at 20.2 and 21.0, 950.
"""

from __future__ import annotations

from typing import NamedTuple

from .state import version_tuple

HUGEPAGES = "Hugepages-Usage(page)"


class Layout(NamedTuple):
    """Widths of one table, in characters.

    ``cells``: cells of the chip rows; ``process_cells``: of the process rows; ``number``: the first word of a row;
    ``power``, ``temp``: first and second column of the last cell; ``pages``, ``memory``: what stands before the slash.
    """

    cells: tuple
    process_cells: tuple
    version: int
    number: int
    power: int
    temp: int
    pages: int
    memory: int
    head: tuple
    process_head: tuple = ("NPU     Chip", "Process id", "Process name", "Process memory(MB)")


def _last_head(power: int, temp: int, hbm: bool, pages: str = HUGEPAGES) -> tuple:
    second = "AICore(%)".ljust(power) + (
        "Memory-Usage(MB)".ljust(temp) + "HBM-Usage(MB)" if hbm else "Memory-Usage(MB)"
    )
    return "Power(W)".ljust(power) + "Temp(C)".ljust(temp) + pages, second


def layout_of(ascend: dict) -> Layout:
    """Return the widths that this kind of chip has at this version."""
    version = version_tuple(ascend["version"])
    kind = ascend["layout"]
    if kind == "310":
        head = _last_head(18, 21, False, HUGEPAGES if version >= (21,) else "")
        cells = (19, 17, 62 if version >= (21,) else 40)
        # Its rows do not stand under their head.
        return Layout(cells, (19, 17, 14, cells[2] - 15), 29, 8, 18, 15, 8, 5, ("Device", *head))
    if kind == "310P":
        return Layout((31, 17, 54), (31, 17, 26, 27), 41, 8, 13, 18, 6, 5, ("Device", *_last_head(13, 18, False)))
    if kind == "950":
        head = (
            "",
            "Power(W)    Temp(C)           Hugepages-Usage(page)",
            "NPU Util(%) Memory-Usage(MB)  HBM-Usage(MB)",
        )
        words = ("NPU ID", "Process id", "Process name", "Process memory(MB)")
        return Layout((27, 15, 53), (27, 15, 26, 26), 32, 0, 12, 18, 6, 5, head, words)
    second = "Phy-ID" if kind == "A3" else ""
    if version >= (26,):
        words = (*Layout._field_defaults["process_head"], "Process id in container")
        return Layout(
            (27, 15, 70), (27, 15, 20, 23, 25), 36, 6, 21, 24, 5, 5, (second, *_last_head(21, 24, True)), words
        )
    head = (second, *_last_head(12, 18, True))
    if version and version < (23,):
        return Layout((22, 15, 52), (22, 15, 26, 25), 26, 6, 12, 18, 5, 5, head)
    return Layout((27, 15, 52), (27, 15, 26, 25), 25, 6, 12, 18, 5, 5, head)


def table(ascend: dict) -> str:
    """Return what `npu-smi info` prints for this state."""
    layout = layout_of(ascend)
    wide = ascend["layout"] == "950"
    inner = sum(layout.cells) + 2
    head = ascend["version"].ljust(layout.version) + "Version: " + (ascend["version_long"] or ascend["version"])
    lines = [f"+{'-' * inner}+", f"| npu-smi {head}".ljust(inner + 1) + "|", _rule("-", layout.cells)]
    strong = _rule("=", (8, 18, *layout.cells[1:]) if wide else layout.cells)
    lines += [*_head(ascend, layout), strong]
    for place, chip in enumerate(ascend["chips"]):
        lines += _chip(ascend, layout, chip)
        following = ascend["chips"][place + 1 : place + 2]
        same_card = bool(following) and following[0]["npu_id"] == chip["npu_id"]
        thin = f"+{'-' * inner}+" if ascend["layout"] == "A3" else _rule("-", layout.cells)
        lines.append(thin if same_card else strong)
    if ascend["process_table"]:
        lines += _processes(ascend, layout)
    return "\n".join(lines) + "\n"


def _head(ascend: dict, layout: Layout) -> list:
    second, first_line, second_line = layout.head
    if ascend["layout"] == "950":
        return [
            _row((8, 18, *layout.cells[1:]), ("NPU ID", "Name", "Health", first_line)),
            _row((8, 18, *layout.cells[1:]), ("", "", "Bus-Id", second_line)),
        ]
    return [
        _row(layout.cells, ("NPU".ljust(layout.number) + "Name", "Health", first_line)),
        _row(layout.cells, ("Chip".ljust(layout.number) + second, "Bus-Id", second_line)),
    ]


def _chip(ascend: dict, layout: Layout, chip: dict) -> list:
    kind = ascend["layout"]
    pages = _pair(chip["hugepages_used"], chip["hugepages_total"], layout.pages)
    if kind == "310" and version_tuple(ascend["version"]) < (21,):
        pages = ""
    memory = _pair(chip["memory_used_mib"], chip["memory_total_mib"], layout.pages if kind == "950" else layout.memory)
    if kind not in ("310", "310P"):
        memory = _pair(chip["ddr_used_mib"], chip["ddr_total_mib"], layout.memory).ljust(layout.temp) + memory
    first = power(ascend, chip).ljust(layout.power) + str(chip["temperature_c"]).ljust(layout.temp) + pages
    second = str(chip["aicore_percent"]).ljust(layout.power) + memory
    if kind == "950":
        cells = (8, 18, *layout.cells[1:])
        return [
            _row(cells, (str(chip["npu_id"]), chip["name"], chip["health"], first)),
            _row(cells, ("", "", chip["bus_id"], second)),
        ]
    other = {"A3": chip["phy_id"], "310P": chip["logic_id"], "310": chip["logic_id"]}.get(kind, "")
    return [
        _row(layout.cells, (str(chip["npu_id"]).ljust(layout.number) + chip["name"], chip["health"], first)),
        _row(layout.cells, (f"{str(chip['chip_id']).ljust(layout.number)}{other}", chip["bus_id"], second)),
    ]


def power(ascend: dict, chip: dict) -> str:
    """Return the power as the table prints it: the second die of an A3 card shows a dash, others NA."""
    if chip["power_w"] is None:
        return "-" if ascend["layout"] == "A3" else "NA"
    return f"{chip['power_w']:.1f}"


def _processes(ascend: dict, layout: Layout) -> list:
    strong = _rule("=", layout.cells)
    lines = [_rule("-", layout.cells), _row(layout.process_cells, layout.process_head), strong]
    for npu_id in dict.fromkeys(chip["npu_id"] for chip in ascend["chips"]):
        mine = [process for process in ascend["processes"] if process["npu_id"] == npu_id]
        for process in mine:
            place = str(npu_id) if ascend["layout"] == "950" else str(npu_id).ljust(8) + str(process["chip_id"])
            words = [place, str(process["pid"]), process["name"], str(process["memory_mib"]), "NA"]
            lines.append(_row(layout.process_cells, words[: len(layout.process_cells)]))
        if not mine:
            lines.append(_row((sum(layout.cells) + 2,), (f"No running processes found in NPU {npu_id}",)))
        lines.append(strong)
    return lines


def _pair(used: int, total: int, width: int) -> str:
    return f"{used}".ljust(width) + f"/ {total}"


def _rule(sign: str, cells: tuple) -> str:
    return "+" + "+".join(sign * width for width in cells) + "+"


def _row(cells: tuple, texts) -> str:
    pairs = [(width, texts[place]) for place, width in enumerate(cells)]
    return "|" + "|".join((" " + text).ljust(width)[:width] for width, text in pairs) + "|"
