# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders states of NPUs in every layout of npu-smi and holds what the parsers tell against them, whole and damaged."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.ascend import npu_smi
from hypothesis import given
from hypothesis import strategies as st

# Layout: chips of a card, header of the second line, name, whether the last memory is HBM, form of the cells.
LAYOUTS = {
    "910": (1, "Chip", "910B3", True),
    "A3": (2, "Chip  Phy-ID", "Ascend910", True),
    "310P": (2, "Chip    Device", "310P3", False),
    "310": (4, "Chip    Device", "310", False),
    "950": (1, "", "Ascend950DT", True),
}
RULE, THIN = "+" + "=" * 90 + "+", "+" + "-" * 90 + "+"
# Neither digits nor blanks: a digit that becomes another, or a leading one that becomes a blank, nobody can see.
NOISE = "x#|+=:;/.-\ufffd\n"
STDERR = "[ERROR] DRV(1): drvMngGetX failed. (ret=4) 12345 / 65536"


@st.composite
def states(draw, layouts=tuple(LAYOUTS)):
    """A layout with its chips, as parse_table should tell them, and processes."""
    layout = draw(st.sampled_from(layouts))
    per_card, _head, name, has_hbm = LAYOUTS[layout]
    cards = sorted(draw(st.sets(st.integers(0, 4000), min_size=1, max_size=4)))
    chips, processes = [], []
    for place, npu_id in enumerate(cards):
        for chip_id in range(per_card):
            number = place * per_card + chip_id
            total = draw(st.sampled_from((8192, 21527, 32768, 44280, 65536)))
            chip = {"npu_id": npu_id, "chip_id": chip_id, "name": name, "unread": []}
            chip["device"] = number if layout in ("310", "310P") else None
            chip["phy_id"] = number if layout == "A3" else None
            chip["health"] = draw(st.sampled_from(("OK", "Warning", "Alarm", "Critical", "UNKNOWN")))
            chip["power_w"] = draw(st.none() | st.integers(0, 9999).map(lambda tenths: tenths / 10))
            chip["temperature_c"] = draw(st.integers(0, 120))
            chip["bus_id"] = f"0000:{number + 1:02X}:00.0"
            chip["aicore_percent"] = draw(st.none() | st.integers(0, 100))
            chip["memory_kind"] = "HBM" if has_hbm else "DDR"
            chip["memory_used_mib"], chip["memory_total_mib"] = draw(st.integers(0, total)), total
            chips.append(chip)
            for pid in draw(st.lists(st.integers(1, 9_999_999), max_size=2, unique=True)):
                memory = draw(st.integers(0, total))
                processes.append(
                    {"npu_id": npu_id, "chip_id": chip_id, "pid": pid, "name": "VLLM x", "memory_mib": memory}
                )
    return layout, chips, processes


def shown(value) -> str:
    return "NA" if value is None else str(value)


def render(layout: str, chips: list[dict], processes: list[dict], container: bool = False) -> str:
    """The output of npu-smi info for a state."""
    _count, head, _name, has_hbm = LAYOUTS[layout]
    wide = layout == "950"
    memories = "Memory-Usage(MB)  HBM-Usage(MB)" if has_hbm else "Memory-Usage(MB)"
    lines = [THIN, "| npu-smi 25.2.0                   Version: 25.2.0        |", THIN]
    lines.append(f"| {'NPU ID | Name' if wide else 'NPU   Name'} | Health | Power(W)  Temp(C)  Hugepages-Usage(page)|")
    lines += [f"| {' | ' if wide else head} | Bus-Id | AICore(%)  {memories} |", RULE]
    for chip in chips:
        ids = "       |" if wide else str(chip["chip_id"])
        second = chip["device"] if chip["phy_id"] is None else chip["phy_id"]
        ids += f"     {second}" if second is not None else ""
        name = f"{chip['npu_id']:<6} | {chip['name']}" if wide else f"{chip['npu_id']:<5} {chip['name']}"
        memory = ("0    / 0          " if has_hbm else "") + f"{chip['memory_used_mib']:<5}/ {chip['memory_total_mib']}"
        measures = f"{shown(chip['power_w']):<11} {chip['temperature_c']:<17} 15   / 15"
        lines.append(f"| {name:<25} | {chip['health']:<13} | {measures:<50}|")
        lines.append(f"| {ids:<25} | {chip['bus_id']:<13} | {shown(chip['aicore_percent']):<11} {memory:<38}|")
        lines.append(RULE)
    tail = " | Process id in container |" if container else " |"
    lines += [
        THIN,
        f"| {'NPU ID' if wide else 'NPU     Chip'} | Process id | Process name | Process memory(MB){tail}",
        RULE,
    ]
    for npu_id in sorted({chip["npu_id"] for chip in chips}):
        own = [process for process in processes if process["npu_id"] == npu_id]
        for process in own:
            ids = f"{npu_id}" if wide else f"{npu_id}       {process['chip_id']}"
            told = f"{process['pid']:<13} | {process['name']:<18} | {process['memory_mib']:<20}"
            lines.append(f"| {ids:<17} | {told} |" + (" NA |" if container else ""))
        lines += [RULE] if own else [f"| No running processes found in NPU {npu_id}       |", RULE]
    return "\n".join(lines) + "\n"


@st.composite
def damage(draw, text: str, noise: str = NOISE) -> str:
    """The text, cut, with bytes changed, lines lost (never three in a row), repeated, or put between."""
    lines = text.split("\n")
    places = st.integers(0, len(lines) - 1)
    lost: set[int] = set()
    for place in draw(st.sets(places, max_size=3)):
        if not lost & {place - 1, place + 1}:
            lost.add(place)
    repeated, between = draw(st.sets(places, max_size=2)), draw(st.sets(places, max_size=2))
    kept = []
    for place, line in enumerate(lines):
        kept += [] if place in lost else [line] * (2 if place in repeated else 1)
        kept += [STDERR] if place in between else []
    damaged = list("\n".join(kept))
    for place in draw(st.sets(st.integers(0, len(damaged) - 1), max_size=3)):
        damaged[place] = draw(st.sampled_from(noise))
    return "".join(damaged)[: draw(st.none() | st.integers(0, len(damaged)))]


@given(states(), st.booleans())
def test_every_layout_is_told_as_it_is(state, container):
    layout, chips, processes = state
    told = npu_smi.parse_table(render(layout, chips, processes, container))
    assert told["problems"] == []
    assert (told["layout"], told["tool_version"], told["version"]) == (layout, "25.2.0", "25.2.0")
    assert told["complete"] and told["process_table"]
    assert told["chips"] == chips
    assert told["processes"] == processes


@given(st.data())
def test_a_damaged_table_tells_less_but_nothing_else(data):
    layout, chips, processes = data.draw(states())
    told = npu_smi.parse_table(data.draw(damage(render(layout, chips, processes))))
    real = {(chip["npu_id"], chip["chip_id"]): chip for chip in chips}
    numbers = ("device", "phy_id", "power_w", "temperature_c", "aicore_percent", "memory_used_mib", "memory_total_mib")
    for chip in told["chips"]:
        for key in numbers:
            assert chip[key] in (None, real[chip["npu_id"], chip["chip_id"]][key]), key
        assert chip["memory_used_mib"] is None or chip["memory_used_mib"] <= chip["memory_total_mib"]
    listed = {(process["npu_id"], process["chip_id"], process["pid"]): process["memory_mib"] for process in processes}
    for process in told["processes"]:
        memory = listed[process["npu_id"], process["chip_id"], process["pid"]]
        assert process["memory_mib"] in (None, memory)
    if len(told["chips"]) < len(chips):
        assert told["problems"] or not told["complete"] or not told["chips"]


@given(st.text(alphabet="| 0123456789/.:+-=NPUChipOKBus\n", max_size=300) | st.text(max_size=300))
def test_nothing_raises(text):
    for parse in (
        npu_smi.parse_table,
        npu_smi.parse_map,
        npu_smi.parse_list,
        npu_smi.parse_board,
        npu_smi.parse_common,
        npu_smi.parse_usages,
        npu_smi.parse_memory,
        npu_smi.parse_product,
        npu_smi.parse_health,
    ):
        assert isinstance(parse(text), dict)
    assert npu_smi.failure(text) is None


@given(st.binary(max_size=2000))
def test_bytes_that_are_no_text(raw):
    assert npu_smi.parse_table(raw.decode("utf-8", "replace"))["chips"] == []


@pytest.mark.parametrize(
    "piece", ["|", "| 0 | 1 |\n", "9" * 100, "+\n", " / ", "x : y\n", "\x00", "Chip ID : 0\nkey : 1\n"]
)
def test_megabytes(piece):
    text = piece * (5_000_000 // len(piece))
    assert npu_smi.parse_table(text)["chips"] == []
    assert npu_smi.parse_map(text)["chips"] == []
    assert npu_smi.parse_usages(text)["chips"] in (
        {},
        {0: dict.fromkeys(npu_smi.parse_usages("Chip ID : 0")["chips"][0])},
    )
    assert any("characters" in problem for problem in npu_smi.parse_table(text)["problems"])


# One thing wrong at a time ----------------------------------------------------------------------------------------

CHIP = {
    "npu_id": 0,
    "chip_id": 0,
    "device": None,
    "phy_id": None,
    "name": "910B3",
    "health": "OK",
    "power_w": 98.9,
    "temperature_c": 38,
    "bus_id": "0000:C1:00.0",
    "aicore_percent": 7,
    "memory_kind": "HBM",
    "memory_used_mib": 3382,
    "memory_total_mib": 65536,
    "unread": [],
}
TWO = [CHIP, dict(CHIP, npu_id=1, bus_id="0000:C2:00.0", memory_used_mib=3594)]


@pytest.mark.parametrize(
    ("old", "new", "changed", "problem"),
    [
        ("3382 / 65536", "70000/ 65536", {"memory_used_mib": None, "memory_total_mib": None}, "70000 of 65536"),
        ("3382 / 65536", "0    / 0", {"memory_used_mib": None, "memory_total_mib": None}, "0 of 0"),
        ("3382 / 65536", "NA   / 65536", {"memory_used_mib": None}, ""),
        (
            "3382 / 65536",
            "3382 / 655#6",
            {"memory_used_mib": None, "memory_total_mib": None, "aicore_percent": None},
            "memory",
        ),
        ("| OK ", "| Gut ", {"health": ""}, "health of NPU 0 chip 0"),
        (" 38 ", " 380 ", {"temperature_c": None}, "temperature_c of NPU 0 chip 0"),
        ("| 7 ", "| 101 ", {"aicore_percent": None}, "aicore_percent of NPU 0 chip 0"),
        ("98.9", "98.9W", {"power_w": None, "temperature_c": None}, "power_w of NPU 0 chip 0"),
        ("0000:C1:00.0", "NA", {"bus_id": ""}, ""),
        ("0000:C1:00.0", "0000:C2:00.0", {"bus_id": ""}, "of another card"),
        ("910B3", "Ascend 910B3", {"name": "Ascend 910B3"}, ""),
    ],
)
def test_one_damaged_value(old, new, changed, problem):
    told = npu_smi.parse_table(render("910", TWO, []).replace(old, new, 1))
    first = {key: value for key, value in told["chips"][0].items() if key != "unread"}
    assert first == {key: value for key, value in dict(CHIP, **changed).items() if key != "unread"}
    assert told["complete"]
    assert (problem in " ".join(told["problems"])) if problem else told["problems"] == []


def test_the_head_tells_what_the_second_number_is():
    chips = [dict(CHIP, phy_id=5, name="Ascend910")]
    text = render("A3", chips, [])
    assert npu_smi.parse_table(text)["chips"] == chips
    headless = npu_smi.parse_table("\n".join(text.splitlines()[5:]))
    assert headless["chips"] == [dict(chips[0], phy_id=None)]
    assert headless["layout"] == ""
    assert "the head of npu-smi's table is missing; device numbers in it are not taken" in headless["problems"]


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        ((6,), [1]),
        ((7,), [1]),
        ((9,), [0]),
        ((10,), [0]),
        ((7, 9), []),
        ((7, 8), [1]),
        ((6, 7, 8), [1]),
        ((8,), [0, 1]),
    ],
)
def test_half_of_a_row_is_no_chip(lost, left):
    lines = render("910", TWO, []).splitlines()
    told = npu_smi.parse_table("\n".join(line for place, line in enumerate(lines) if place not in lost))
    assert told["chips"] == [TWO[place] for place in left]
    if lost != (6, 7, 8):
        assert told["complete"] == (len(left) == 2)


def test_a_chip_that_is_there_twice():
    twice = npu_smi.parse_table(render("910", [CHIP, dict(CHIP, memory_used_mib=5, temperature_c=39)], []))
    assert len(twice["chips"]) == 1
    assert twice["chips"][0]["memory_used_mib"] is None and twice["chips"][0]["temperature_c"] is None
    assert twice["chips"][0]["memory_total_mib"] == 65536
    assert any("NPU 0 chip 0 is in the table of npu-smi twice" in problem for problem in twice["problems"])


def test_a_table_that_was_cut():
    text = render("910", TWO, [])
    assert npu_smi.parse_table(text[: text.index("3594 /") + 9])["chips"] == [CHIP]
    cut = npu_smi.parse_table(text[: text.index("No running")])
    assert cut["chips"] == TWO
    assert "the process table of npu-smi says nothing of NPU 0, 1; it may be cut off" in cut["problems"]


def test_a_process_larger_than_its_chip():
    process = {"npu_id": 0, "chip_id": 0, "pid": 7, "name": "python", "memory_mib": 70000}
    told = npu_smi.parse_table(render("910", [CHIP], [process]))
    assert told["processes"] == [dict(process, memory_mib=None)]
    assert told["problems"] == ["process 7 cannot hold 70000 MiB of NPU 0 chip 0"]


# Other subcommands ------------------------------------------------------------------------------------------------


def render_map(rows: list[dict], physical: bool) -> str:
    head = ["NPU ID", "Chip ID", "Chip Logic ID", *(["Chip Phy-ID"] if physical else []), "Chip Name"]
    lines = ["\t" + "".join(f"{word:<31}" for word in head)]
    for row in rows:
        values = [row["npu_id"], row["chip_id"], row["logic_id"], *([row["phy_id"]] if physical else []), row["name"]]
        lines.append("\t" + "".join(f"{'-' if value is None else value:<31}" for value in values))
        lines.append("\t" + "".join(f"{value:<31}" for value in [row["npu_id"], 9, *["-"] * (len(head) - 3), "Mcu"]))
    return "\n".join(lines) + "\n"


@st.composite
def maps(draw):
    physical = draw(st.booleans())
    numbers = draw(st.permutations(range(draw(st.integers(1, 16)))))
    rows = [
        {
            "npu_id": 7 * place,
            "chip_id": place % 2,
            "logic_id": place,
            "phy_id": number if physical else None,
            "name": "Ascend 910B4",
        }
        for place, number in enumerate(numbers)
    ]
    return rows, physical


@given(maps())
def test_the_map_is_told_as_it_is(case):
    rows, physical = case
    assert npu_smi.parse_map(render_map(rows, physical)) == {"chips": rows, "problems": []}


@given(st.data())
def test_a_damaged_map_tells_less_but_nothing_else(data):
    rows, physical = data.draw(maps())
    told = npu_smi.parse_map(data.draw(damage(render_map(rows, physical), NOISE.replace("\n", ""))))
    real = {(row["npu_id"], row["chip_id"]): row for row in rows}
    for row in told["chips"]:
        assert row["logic_id"] in (None, real[row["npu_id"], row["chip_id"]]["logic_id"])
        assert row["phy_id"] in (None, real[row["npu_id"], row["chip_id"]]["phy_id"])


def test_a_map_that_contradicts_itself():
    row = {"npu_id": 0, "chip_id": 0, "logic_id": 0, "phy_id": None, "name": "Ascend 910B4"}
    told = npu_smi.parse_map(render_map([row, dict(row, logic_id=1)], False))
    assert told["chips"] == [dict(row, logic_id=None)]
    assert len(told["problems"]) == 1
    told = npu_smi.parse_map(render_map([row, dict(row, npu_id=1)], False))
    assert [chip["logic_id"] for chip in told["chips"]] == [None, None]
    assert len(told["problems"]) == 2


USAGES = {
    "DDR Capacity(MB)": "ddr_total_mib",
    "DDR Usage Rate(%)": "ddr_percent",
    "HBM Capacity(MB)": "hbm_total_mib",
    "HBM Usage Rate(%)": "hbm_percent",
    "Aicore Usage Rate(%)": "aicore_percent",
}
COMMON = {
    "Memory Usage Rate(%)": "memory_percent",
    "HBM Usage Rate(%)": "hbm_percent",
    "Aicore Usage Rate(%)": "aicore_percent",
    "Temperature(C)": "temperature_c",
}


def render_blocks(keys: dict[str, str], chips: dict[int, dict], chip_first: bool) -> str:
    lines = [("NPU ID", 4), ("Chip Count", len(chips))]
    for chip_id, values in chips.items():
        block = [(key, values[name]) for key, name in keys.items()]
        lines += [("Chip ID", chip_id), *block] if chip_first else [*block, ("Chip ID", chip_id)]
    lines += [("Chip Name", "mcu"), ("Temperature(C)", 99)] if chip_first else []
    return "".join(f"\t{key:<30} : {value}\n" for key, value in lines)


@given(st.data())
def test_blocks_belong_to_their_chip(data):
    chip_first = data.draw(st.booleans())
    keys, parse = (COMMON, npu_smi.parse_common) if chip_first else (USAGES, npu_smi.parse_usages)
    values = st.fixed_dictionaries({name: st.integers(0, 100) for name in keys.values()})
    chips = {chip_id: data.draw(values) for chip_id in range(data.draw(st.integers(1, 4)))}
    text = render_blocks(keys, chips, chip_first)
    told = parse(text)
    assert told["npu_id"] == 4
    assert {chip_id: {name: chip[name] for name in keys.values()} for chip_id, chip in told["chips"].items()} == chips
    for chip_id, chip in parse(data.draw(damage(text, NOISE.replace("\n", ""))))["chips"].items():
        for name in keys.values():
            assert chip[name] in (None, chips[chip_id][name])


def test_a_board_that_contradicts_itself():
    text = "NPU ID : 3\nSoftware Version : 25.5.1\nFirmware Version : NA\nCompatibility : Fine\nPCIe Bus Info : here\n"
    told = npu_smi.parse_board(text)
    assert (told["npu_id"], told["software_version"], told["firmware_version"]) == (3, "25.5.1", "")
    assert (told["compatibility"], told["bus_id"]) == ("", "")
    assert npu_smi.parse_board(text + "Software Version : 25.5.2\n")["software_version"] == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("910B4", "Ascend 910B4", True),
        ("Ascend910", "Ascend 910_93", True),
        ("910B3", "Ascend xxx", True),
        ("910B3", "Ascend 910B4", False),
        ("310P3", "Ascend 910B4", False),
    ],
)
def test_names_of_a_chip(one, other, same):
    assert npu_smi.same_name(one, other) is same


def test_bus_ids_compare_whatever_their_form():
    assert npu_smi.bus_key("0000:C1:00.0") == npu_smi.bus_key("00000000:c1:00.0") == (0, 0xC1, 0, 0)
    assert npu_smi.bus_key("") is None
