# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the matrix of ``nvidia-smi topo -m``: how GPUs and network cards are connected. Pure, never raises.

The real tool separates cells by TABs and underlines the header row with ANSI codes even into a pipe; copies of its
output have blanks instead. Every pair of devices is printed twice, so a damaged cell shows itself.
"""

from __future__ import annotations

import re

MAX_CHARS = 256 * 1024  # 16 GPUs with 32 network cards are below 32 KiB
_MAX_LINES = 2_000
_MAX_PROBLEMS = 20
_ANSI = re.compile("\x1b\\[[0-9;]{0,20}m")
_DEVICE = re.compile(r"GPU[0-9]{1,3}|NIC[0-9]{1,3}|mlx[0-9]{1,2}_[0-9a-z_]{1,20}")  # mlx5_0: drivers before 525
# The legend of the tool; SOC and PSB are older drivers' names.
_LINK = re.compile(r"X|SYS|NODE|PHB|PXB|PIX|PIX\*|PSB|SOC|NV[0-9]{1,2}|N/A")
_CPUS = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?){0,200}")
_NUMA = re.compile(r"[0-9]{1,4}(?:[-,][0-9]{1,4}){0,50}")
_NIC_NAME = re.compile(r"\s*(NIC[0-9]{1,3}):\s*([A-Za-z][A-Za-z0-9_.-]{0,31})\s*")


def parse_topology(text: str) -> dict:
    """Return the connections that the matrix tells for certain.

    links {device: {other device: word such as NV18, PIX or SYS}}, nics {NIC0: mlx5_0}, cpu_affinity and numa_affinity
    {GPU0: text}, problems[]. A link is told only where the rows of both devices say the same.
    """
    problems: list[str] = []
    lines = [_ANSI.sub("", line).rstrip("\r\n") for line in text[:MAX_CHARS].split("\n")[:_MAX_LINES]]
    told = {"links": {}, "nics": _nics(lines), "cpu_affinity": {}, "numa_affinity": {}, "problems": problems}
    header = next((number for number, line in enumerate(lines) if _is_header(line)), None)
    if header is None:
        problems.append("nvidia-smi topo -m printed no matrix")
        return dict(told, nics={})
    names, extra = _columns(lines[header])
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines[header + 1 :], header + 2):
        name = line.split()[0] if line.split() else ""
        if not _DEVICE.fullmatch(name):
            break
        if number == len(lines):
            problems.append(f"topo -m ends in the row of {name}")
            break
        if name in rows or name not in names:
            problems.append(f"topo -m has a row for {name} that its header does not announce once")
            continue
        cells, rest = _cells(line, len(names))
        rows[name] = _row(name, names, cells, problems)
        if name.startswith("GPU"):
            _affinities(name, rest, extra, told)
    for name in names:
        if name not in rows:
            problems.append(f"topo -m has no row for {name}")
    told["links"] = _agreed(rows, problems)
    missing = [name for name in names if name.startswith("NIC") and name not in told["nics"]]
    if missing:
        problems.append(f"topo -m does not tell which devices {', '.join(missing)} are")
    del problems[_MAX_PROBLEMS:]
    return told


def _is_header(line: str) -> bool:
    words = line.split()
    return bool(words) and bool(_DEVICE.fullmatch(words[0])) and "X" not in words and line[:1].isspace()


def _columns(line: str) -> tuple[list[str], int]:
    """Return the devices of the header, and how many columns follow them."""
    names = []
    for word in line.split():
        if not _DEVICE.fullmatch(word) or word in names:
            break
        names.append(word)
    return names, len(re.findall(r"CPU Affinity|NUMA Affinity|GPU NUMA ID", line))


def _cells(line: str, count: int) -> tuple[list[str], list[str]]:
    """Return the cells of the devices and those after them; only TABs keep an empty cell."""
    cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
    return cells[1 : count + 1], cells[count + 1 :]


def _row(name: str, names: list[str], cells: list[str], problems: list[str]) -> dict[str, str]:
    """Return {other device: word} of one row, nothing where its own cell is not where it belongs."""
    if len(cells) != len(names) or cells[names.index(name)] != "X" or cells.count("X") != 1:
        problems.append(f"the row of {name} in topo -m is damaged")
        return {}
    found = {}
    for other, cell in zip(names, cells):
        if not _LINK.fullmatch(cell):
            problems.append(f"topo -m tells {cell[:20]!a} for {name} and {other}, which is not known here")
        elif other != name:
            found[other] = cell
    return found


def _affinities(name: str, rest: list[str], extra: int, told: dict) -> None:
    """Add what the cells after the links tell, where none of them is cut off."""
    filled = [cell for cell in rest if cell]
    cells = filled if len(filled) == extra else rest  # the tool prints more TABs than columns here
    if len(cells) < extra:
        told["problems"].append(f"topo -m does not tell the affinity of {name} in full")
        return
    for key, form, cell in zip(("cpu_affinity", "numa_affinity"), (_CPUS, _NUMA), cells):
        if form.fullmatch(cell):
            told[key][name] = cell


def _agreed(rows: dict[str, dict[str, str]], problems: list[str]) -> dict[str, dict[str, str]]:
    """Return the links whose two cells are the same."""
    links: dict[str, dict[str, str]] = {}
    for name, row in rows.items():
        kept = {}
        for other, word in row.items():
            twin = rows.get(other, {}).get(name)
            if twin == word:
                kept[other] = word
            elif twin and name < other:
                problems.append(f"topo -m tells {word} for {name} and {other}, but {twin} the other way round")
        if kept:
            links[name] = kept
    return links


def _nics(lines: list[str]) -> dict[str, str]:
    start = next((number for number, line in enumerate(lines) if line.strip() == "NIC Legend:"), len(lines))
    found = (_NIC_NAME.fullmatch(line) for line in lines[start + 1 :])
    return {match.group(1): match.group(2) for match in found if match}
