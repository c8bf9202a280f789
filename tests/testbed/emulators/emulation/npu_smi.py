# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of npu-smi: `info` in all its forms. Whatever would set something is refused.

Keys, their order and their widths are those of recorded outputs at 20.2 to 26.0 and of the tool's own source.
"""

from __future__ import annotations

from . import npu_table
from .program import Answer, Refused
from .state import version_tuple

USAGE = "Usage: npu-smi info <watch|proc|-h|-m|-l|-t type> [Options...]\n"
TOP_USAGE = "Usage: npu-smi <info|set|upgrade|clear|-h|-v> [Options...]\n"
# The tool's status for bad arguments is not recorded anywhere; what counts is that it is not 0.
BAD = 1
# Status when dcmi cannot be initialized: not recorded either.
DCMI = 255
FAILURES = {
    "dcmi_init": "dcmi module initialize failed. ret is -8005\n",
    "dcmi_init_nonroot": "DrvMngGetConsoleLogLevel failed. (ret=4)\ndcmi module initialize failed. ret is -8005\n",
    "dcmi_used": "dcmi model initialized failed, because the device is used. ret is -8020\n",
}
CHANGING = {"set", "upgrade", "clear"}
PCI_DEVICE = {"910A": "0xD801", "910B": "0xD802", "A3": "0xD803", "310P": "0xD500", "310": "0xD100", "950": "0xD806"}
TOPO_LEGEND = """
Legend:

  X    = Self
  SYS  = Path traversing PCIe and NUMA nodes. Nodes are connected through SMP, such as QPI, UPI.
  PHB  = Path traversing PCIe and the PCIe host bridge of a CPU.
  PIX  = Path traversing a single PCIe switch
  PXB  = Path traversing multipul PCIe switches
  HCCS = Connection traversing HCCS.
  NA   = Unknown relationship.
"""
WATCH_HEAD = ("NpuID(Idx)", "ChipId(Idx)", "Pwr(W)", "Temp(C)", "AI Core(%)", "AI Cpu(%)", "Ctrl Cpu(%)", "Memory(%)")
ECC_KINDS = (
    "Single Bit Error Count",
    "Double Bit Error Count",
    "Single Bit Aggregate Total Err Cnt",
    "Double Bit Aggregate Total Err Cnt",
    "Single Bit Isolated Pages Count",
    "Double Bit Isolated Pages Count",
)


def answer(state: dict, arguments: list, fault: dict) -> Answer:
    """Return what `npu-smi ARGUMENTS` says on this host."""
    if arguments and arguments[0] in CHANGING:
        raise Refused
    if fault["failure"]:
        return Answer(FAILURES[fault["failure"]], code=DCMI)
    ascend = state["ascend"]
    if ascend is None:
        return Answer(FAILURES["dcmi_init"], code=DCMI)
    ascend = {**ascend, "chips": [chip for chip in ascend["chips"] if chip["npu_id"] not in fault["lost"]]}
    if arguments in (["-v"], ["--version"]):
        return Answer(f"npu-smi version: {ascend['version']}\n")
    if not arguments or arguments[0] != "info":
        return Answer("Command or option is not found.\n" + TOP_USAGE, code=BAD)
    return _info(ascend, arguments[1:])


def _info(ascend: dict, arguments: list) -> Answer:
    if not arguments:
        return Answer(npu_table.table(ascend)) if ascend["chips"] else Answer("There is no NPU card on this server.\n")
    if arguments == ["watch"]:
        return _watch(ascend)
    if arguments == ["-h"]:
        return Answer(USAGE)
    if arguments == ["-l"]:
        return Answer(_list(ascend))
    if arguments == ["-m"]:
        return Answer(_mapping(ascend))
    return _typed(ascend, arguments)


def _typed(ascend: dict, arguments: list) -> Answer:
    """Answer `-t TYPE -i NPU [-c CHIP]`, the options in any order."""
    options = {arguments[place]: arguments[place + 1] for place in range(0, len(arguments) - 1, 2)}
    if len(arguments) % 2 or len(options) * 2 != len(arguments) or set(options) - {"-t", "-i", "-c"}:
        return Answer("Command or option is not found.\n" + USAGE, code=BAD)
    if options == {"-t": "topo"}:
        return Answer(_topo(ascend))
    view = VIEWS.get(options.get("-t", ""))
    if view is None:
        return Answer("Invalid type.\nError parameter of -t\n" + USAGE, code=BAD)
    card = [chip for chip in ascend["chips"] if str(chip["npu_id"]) == options.get("-i")]
    if not card:
        return Answer("Invalid card id.\nError parameter of -i\n" + USAGE, code=BAD)
    if "-c" not in options:
        return Answer(view(ascend, card, None))
    chosen = [chip for chip in card if str(chip["chip_id"]) == options["-c"]]
    if not chosen:
        return Answer("Invalid chip id.\nError parameter of -c\n" + USAGE, code=BAD)
    return Answer(view(ascend, card, chosen[0]))


def _lines(pairs, width: int = 30) -> str:
    return "".join(f"\t{key.ljust(width)} : {value}\n" for key, value in pairs)


def _blocks(card: list, blocks: list, width: int = 30) -> str:
    """Return the head of a card and its blocks, parted by empty lines."""
    head = [("NPU ID", card[0]["npu_id"]), ("Chip Count", len(card))]
    return "\n".join(_lines(block, width) for block in [head, *blocks])


def _per_chip(values, mcu=None, width: int = 30):
    """Return a view that prints `values(ascend, chip)` of each chip, its id last, or those of one chip alone."""

    def view(ascend: dict, card: list, chosen: dict) -> str:
        if chosen is not None:
            return _lines(values(ascend, chosen), width)
        blocks = [[*values(ascend, chip), ("Chip ID", chip["chip_id"])] for chip in card]
        if mcu is not None and ascend["mcu"] is not None:
            blocks.append([*mcu(ascend["mcu"]), ("Chip Name", "MCU")])
        return _blocks(card, blocks, width)

    return view


def _list(ascend: dict) -> str:
    cards = _cards(ascend)
    if not cards:
        return "There is no NPU card on this server.\n"
    total = "Card Count" if ascend["layout"] == "310" else "Total Count"
    heads = [[("NPU ID", npu_id), ("Chip Count", len(card))] for npu_id, card in cards.items()]
    return "\n".join(_lines(block) for block in [[(total, len(cards))], *heads])


def _cards(ascend: dict) -> dict:
    cards = {}
    for chip in ascend["chips"]:
        cards.setdefault(chip["npu_id"], []).append(chip)
    return cards


def _mapping(ascend: dict) -> str:
    with_phy = ascend["layout"] in ("A3", "950")
    rows = [("NPU ID", "Chip ID", "Chip Logic ID", *(("Chip Phy-ID",) if with_phy else ()), "Chip Name")]
    for npu_id, card in _cards(ascend).items():
        for chip in card:
            name = chip["name"] if chip["name"].startswith("Ascend") else f"Ascend {chip['name']}"
            phy = (chip["phy_id"],) if with_phy else ()
            rows.append((npu_id, chip["chip_id"], chip["logic_id"], *phy, name))
        if ascend["mcu"] is not None:
            rows.append((npu_id, len(card), "-", *(("-",) if with_phy else ()), "Mcu"))
    return "".join("\t" + " ".join(str(word).ljust(30) for word in row[:-1]) + f" {row[-1]}\n" for row in rows)


def _board(ascend: dict, card: list, chosen: dict) -> str:
    board = ascend["board"]
    if chosen is not None:
        return _lines(
            [
                ("NPU ID", chosen["npu_id"]),
                ("Chip ID", chosen["chip_id"]),
                ("Chip Type", "Ascend"),
                ("Chip Name", chosen["name"]),
                ("Chip Version", "V1"),
                ("Board ID", board["board_id"]),
                ("PCB ID", board["pcb_id"]),
                ("BOM ID", board["bom_id"]),
                ("VDie ID", board["vdie_id"]),
                ("NDie ID", board["ndie_id"]),
                ("Chip Position ID", chosen["chip_id"]),
                ("PCIe Bus Info", chosen["bus_id"]),
                ("Firmware Version", ascend["firmware"]),
            ]
        )
    first = card[0]
    pairs = [
        ("NPU ID", first["npu_id"]),
        ("Product Name", board["product_name"]),
        ("Model", board["model"]),
        ("Manufacturer", board["manufacturer"]),
        ("Serial Number", first["serial_number"]),
        ("Software Version", ascend["version"]),
        ("Firmware Version", ascend["firmware"]),
        ("Compatibility", first["compatibility"] or ascend["compatibility"]),
        ("Board ID", board["board_id"]),
        ("PCB ID", board["pcb_id"]),
        ("BOM ID", board["bom_id"]),
        ("PCIe Bus Info", first["bus_id"]),
        ("Slot ID", first["slot_id"]),
        ("Class ID", "NA"),
        ("PCI Vendor ID", "0x19E5"),
        ("PCI Device ID", PCI_DEVICE[ascend["layout"]]),
        ("Subsystem Vendor ID", board["subsystem_vendor_id"]),
        ("Subsystem Device ID", board["subsystem_device_id"]),
        ("Chip Count", len(card)),
    ]
    if ascend["layout"] == "310P":
        pairs.append(("Chip Fault", 0))
    return _lines(pairs)


def _common(ascend: dict, card: list, chosen: dict) -> str:
    if chosen is not None:
        return _lines(_common_values(ascend, chosen))
    blocks = [[("Chip ID", chip["chip_id"]), *_common_values(ascend, chip)] for chip in card]
    if ascend["mcu"] is not None:
        mcu = [("Chip Name", "mcu"), ("Temperature(C)", ascend["mcu"]["temperature_c"])]
        if ascend["mcu"]["power_w"] is not None:
            mcu.append(("NPU Real-time Power(W)", f"{ascend['mcu']['power_w']:.1f}"))
        blocks.append(mcu)
    return _blocks(card, blocks)


def _common_values(ascend: dict, chip: dict) -> list:
    memory = _percent(chip["memory_used_mib"], chip["memory_total_mib"])
    pairs = [("Memory Usage Rate(%)", memory)]
    if _has_hbm(ascend):
        ddr = _percent(chip["ddr_used_mib"], chip["ddr_total_mib"])
        pairs = [("Memory Usage Rate(%)", ddr), ("HBM Usage Rate(%)", memory)]
    pairs += [
        ("Aicore Usage Rate(%)", chip["aicore_percent"]),
        ("Aicore Freq(MHZ)", ascend["aicore"]["freq_mhz"]),
        ("Aicore curFreq(MHZ)", ascend["aicore"]["current_mhz"]),
    ]
    if not _has_hbm(ascend):
        return [*pairs, ("Temperature(C)", chip["temperature_c"])]
    return [
        *pairs,
        ("Aicore Count", ascend["aicore"]["count"]),
        ("Temperature(C)", chip["temperature_c"]),
        ("NPU Real-time Power(W)", npu_table.power(ascend, chip)),
    ]


def _usages_values(ascend: dict, chip: dict) -> list:
    pages = [
        ("DDR Hugepages Total(page)", chip["hugepages_total"]),
        ("DDR Hugepages Usage Rate(%)", _percent(chip["hugepages_used"], chip["hugepages_total"])),
    ]
    used, capacity = _percent(chip["memory_used_mib"], chip["memory_total_mib"]), _capacity(chip)
    core = ("Aicore Usage Rate(%)", chip["aicore_percent"])
    cpus = [("Aicpu Usage Rate(%)", 0), ("Ctrlcpu Usage Rate(%)", chip["ctrlcpu_percent"])]
    bandwidth = chip["memory_bandwidth_percent"]
    if not _has_hbm(ascend):
        engines = [(f"DVPP {name} Usage Rate(%)", 0) for name in ("VDEC", "VPC", "VENC", "JPEGE", "JPEGD")]
        head = [("DDR Capacity(MB)", capacity), ("DDR Usage Rate(%)", used), *pages, core, *cpus]
        return [*head, ("Vectorcore Usage Rate(%)", 0), ("DDR Bandwidth Usage Rate(%)", bandwidth), *engines]
    newer = version_tuple(ascend["version"]) >= (25,)
    return [
        ("DDR Capacity(MB)", chip["ddr_total_mib"]),
        ("DDR Usage Rate(%)", _percent(chip["ddr_used_mib"], chip["ddr_total_mib"])),
        *pages,
        ("HBM Capacity(MB)", capacity),
        ("HBM Usage Rate(%)", used),
        core,
        *([("Aivector Usage Rate(%)", 0)] if newer else []),
        *cpus,
        ("DDR Bandwidth Usage Rate(%)", 0),
        ("HBM Bandwidth Usage Rate(%)", bandwidth),
        *([("NPU Utilization(%)", chip["aicore_percent"]), ("Aicube Usage Rate(%)", 0)] if newer else []),
    ]


def _memory_values(ascend: dict, chip: dict) -> list:
    clock = ascend["memory_clock_mhz"]
    if not _has_hbm(ascend):
        physical = chip["memory_physical_mib"]
        whole = [] if physical is None else [("Total DDR Capacity(MB)", physical)]
        return [*whole, ("DDR Capacity(MB)", _capacity(chip)), ("DDR Clock Speed(MHz)", clock)]
    return [
        ("DDR Capacity(MB)", chip["ddr_total_mib"]),
        ("DDR Clock Speed(MHz)", 0),
        ("HBM Capacity(MB)", _capacity(chip)),
        ("HBM Clock Speed(MHz)", clock),
        ("HBM Temperature(C)", chip["temperature_c"]),
        ("HBM Manufacturer ID", "0x56"),
    ]


def _health(ascend: dict, card: list, chosen: dict) -> str:
    if chosen is None:
        blocks = [[("Health", chip["health"]), ("Chip ID", chip["chip_id"])] for chip in card]
        if ascend["mcu"] is not None:
            blocks.append([("Health", "OK"), ("Chip Name", "MCU")])
        return _blocks(card, blocks)
    first, *rest = chosen["error_information"] or ["NA"]
    codes = " ".join(chosen["error_codes"]) or "NA"
    pairs = [("Health Status", chosen["health"]), ("Error Code", codes), ("Error Information", first)]
    return _lines(pairs) + "".join(f"\n\t{'':30} : {line}\n" for line in rest)


def _temp_values(_ascend: dict, chip: dict) -> list:
    return [("NPU Temperature (C)", chip["temperature_c"])]


def _temp_mcu(mcu: dict) -> list:
    return [("LM75A_TE (C)", mcu["temperature_c"]), ("LM75B_TE (C)", mcu["temperature_c"])]


def _power_values(ascend: dict, chip: dict) -> list:
    return [("NPU Real-time Power(W)", npu_table.power(ascend, chip))]


def _product_values(ascend: dict, _chip: dict) -> list:
    return [("Product Type", ascend["product"])]


def _ecc_values(_ascend: dict, _chip: dict) -> list:
    return [(f"{memory} {kind}", 0) for memory in ("DDR", "HBM") for kind in ECC_KINDS]


# The key column of `-t ecc` is wider than all others.
VIEWS = {
    "board": _board,
    "common": _common,
    "usages": _per_chip(_usages_values),
    "memory": _per_chip(_memory_values),
    "health": _health,
    "temp": _per_chip(_temp_values, _temp_mcu),
    "power": _per_chip(_power_values),
    "product": _per_chip(_product_values),
    "ecc": _per_chip(_ecc_values, width=40),
}


def _topo(ascend: dict) -> str:
    names = [f"NPU{chip['phy_id']}" for chip in ascend["chips"]]
    affinity = ascend["topology"]["cpu_affinity"]
    text = "\t   " + "".join(name.ljust(11) for name in names) + "CPU Affinity\n"
    for place, name in enumerate(names):
        cells = ["X" if other == name else ascend["topology"]["link"] for other in names]
        text += name.ljust(11) + "".join(cell.ljust(11) for cell in cells)
        text += (affinity[place] if place < len(affinity) else "NA") + "\n"
    return text + TOPO_LEGEND


def _watch(ascend: dict) -> Answer:
    head = "".join(word.ljust(12) for word in WATCH_HEAD) + "Memory BW(%)\n"
    rows = ""
    for chip in ascend["chips"]:
        memory = _percent(chip["memory_used_mib"], chip["memory_total_mib"])
        words = [chip["npu_id"], chip["chip_id"], npu_table.power(ascend, chip), chip["temperature_c"]]
        words += [chip["aicore_percent"], 0, chip["ctrlcpu_percent"], memory, chip["memory_bandwidth_percent"]]
        rows += "".join(str(word).ljust(12) for word in words) + "\n"
    return Answer(head, again=rows)


def _has_hbm(ascend: dict) -> bool:
    return ascend["layout"] not in ("310", "310P")


def _capacity(chip: dict) -> int:
    return chip["memory_total_mib"] if chip["memory_capacity_mib"] is None else chip["memory_capacity_mib"]


def _percent(used: int, total: int) -> int:
    return used * 100 // total if total else 0
