# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tree of `nvidia-smi -q`: one description from which the text and the XML are both printed.

Names, order and what each schema has are those of recorded outputs: v11 at 515, v12 at 535, v13 at 595, text at 590.
Only what a deployment looks at is in it.
"""

from __future__ import annotations

from typing import NamedTuple

from .state import version_tuple

# First driver branches that have a key, by recorded outputs and the release notes of the tool.
FABRIC_SINCE = 535
RECOVERY_SINCE = 570
AVERAGE_POWER_SINCE = 560
DEPRECATED = "Requested functionality has been deprecated"


class Node(NamedTuple):
    """One line or one group: name in XML, name in text, value or children, and the text's value where it differs.

    An empty name: not in that form.
    """

    tag: str
    label: str
    value: object
    text: str = ""


def major(nvidia: dict) -> int:
    """Return the branch of the driver, such as 535."""
    return (version_tuple(nvidia["driver_version"]) or (0,))[0]


def yes_no(value) -> str:
    """Return Yes, No, or N/A for null."""
    return {True: "Yes", False: "No"}.get(value, "N/A")


def enabled(value) -> str:
    """Return Enabled, Disabled, or N/A for null."""
    return {True: "Enabled", False: "Disabled"}.get(value, "N/A")


def or_na(value, unit: str = "") -> str:
    """Return the value with its unit, or N/A for null and for an empty text."""
    return "N/A" if value is None or value == "" else f"{value}{unit}"


def gpu_tree(nvidia: dict, gpu: dict) -> list:
    """Return the nodes of one GPU."""
    newest, oldest = nvidia["schema"] == "v13", nvidia["schema"] == "v11"
    nodes = [
        Node("product_name", "Product Name", gpu["name"]),
        Node("product_brand", "Product Brand", "NVIDIA"),
        Node("product_architecture", "Product Architecture", gpu["product_architecture"]),
        Node("display_active", "Display Active", "Disabled"),
        Node("persistence_mode", "Persistence Mode", enabled(gpu["persistence_mode"])),
    ]
    if not oldest:
        nodes.append(Node("addressing_mode", "Addressing Mode", "None"))
    nodes += [_mig_mode(gpu), _mig_devices(gpu)]
    nodes += [
        Node("serial", "Serial Number", gpu["serial"]),
        Node("uuid", "GPU UUID", gpu["uuid"]),
        Node("minor_number", "Minor Number", str(gpu["index"])),
        Node("multigpu_board", "MultiGPU Board", "No"),
    ]
    nodes += _reset(nvidia, gpu)
    nodes.append(_pci(gpu, newest))
    nodes.append(Node("fan_speed", "Fan Speed", "N/A"))
    nodes.append(Node("performance_state", "Performance State", "P0"))
    nodes.append(_memory(gpu))
    nodes.append(Node("compute_mode", "Compute Mode", "Default"))
    busy = "N/A" if gpu["mig"] else f"{gpu['utilization_percent']} %"
    nodes.append(Node("utilization", "Utilization", [Node("gpu_util", "GPU", busy)]))
    nodes += [_ecc_mode(gpu), _ecc_errors(gpu, newest), _retired(gpu), _remapped(gpu)]
    degrees = or_na(gpu["temperature_c"], " C")
    nodes.append(Node("temperature", "Temperature", [Node("gpu_temp", "GPU Current Temp", degrees)]))
    nodes.append(_power(nvidia, gpu))
    if major(nvidia) >= FABRIC_SINCE:
        nodes.append(_fabric(gpu, newest))
    nodes.append(_processes(nvidia, gpu))
    return nodes


def _pair_of(tag: str, label: str, names: tuple, value: str) -> Node:
    return Node(tag, label, [Node(names[0], "Current", value), Node(names[1], "Pending", value)])


def _mig_mode(gpu: dict) -> Node:
    return _pair_of("mig_mode", "MIG Mode", ("current_mig", "pending_mig"), enabled(gpu["mig"]))


def _mig_devices(gpu: dict) -> Node:
    if not gpu["mig_devices"]:
        return Node("mig_devices", "", "None")
    return Node(
        "mig_devices",
        "",
        [
            Node(
                "mig_device",
                "",
                [
                    Node("index", "", str(number)),
                    Node("gpu_instance_id", "", str(number + 3)),
                    Node("compute_instance_id", "", "0"),
                ],
            )
            for number in range(len(gpu["mig_devices"]))
        ],
    )


def _reset(nvidia: dict, gpu: dict) -> list:
    nodes = []
    since = major(nvidia) >= RECOVERY_SINCE
    if nvidia["schema"] == "v12":
        states = [DEPRECATED, DEPRECATED] if since else [yes_no(gpu["reset_required"]), "No"]
        nodes.append(
            Node(
                "gpu_reset_status",
                "GPU Reset Status",
                [
                    Node("reset_required", "Reset Required", states[0]),
                    Node("drain_and_reset_recommended", "Drain and Reset Recommended", states[1]),
                ],
            )
        )
    if since:
        nodes.append(Node("gpu_recovery_action", "GPU Recovery Action", gpu["recovery_action"]))
    return nodes


def _pci(gpu: dict, newest: bool) -> Node:
    domain, bus, device = gpu["bus_id"].split(".")[0].split(":")
    device_id = gpu["device_id"].upper().replace("0X", "") + "10DE"
    classes = [
        Node("pci_base_class", "Base Classcode", "3", "0x3"),
        Node("pci_sub_class", "Sub Classcode", "2", "0x2"),
    ]
    return Node(
        "pci",
        "PCI",
        [
            Node("pci_bus", "Bus", bus, f"0x{bus}"),
            Node("pci_device", "Device", device, f"0x{device}"),
            Node("pci_domain", "Domain", domain[-4:], f"0x{domain[-4:]}"),
            *(classes if newest else []),
            Node("pci_device_id", "Device Id", device_id, f"0x{device_id}"),
            Node("pci_bus_id", "Bus Id", gpu["bus_id"]),
        ],
    )


def free_mib(gpu: dict) -> int:
    """Return the free memory: what is neither used nor reserved."""
    return max(0, gpu["memory_total_mib"] - gpu["memory_used_mib"] - gpu["memory_reserved_mib"])


def _memory(gpu: dict) -> Node:
    return Node(
        "fb_memory_usage",
        "FB Memory Usage",
        [
            Node("total", "Total", f"{gpu['memory_total_mib']} MiB"),
            Node("reserved", "Reserved", f"{gpu['memory_reserved_mib']} MiB"),
            Node("used", "Used", f"{gpu['memory_used_mib']} MiB"),
            Node("free", "Free", f"{free_mib(gpu)} MiB"),
        ],
    )


def _ecc_mode(gpu: dict) -> Node:
    return _pair_of("ecc_mode", "ECC Mode", ("current_ecc", "pending_ecc"), enabled(gpu["ecc_mode"]))


def _ecc_errors(gpu: dict, newest: bool) -> Node:
    def counts(total) -> list:
        none, found = or_na(None if total is None else 0), or_na(total)
        sram = [Node("sram_correctable", "SRAM Correctable", none)]
        if newest:
            sram.append(Node("sram_uncorrectable_parity", "SRAM Uncorrectable Parity", none))
            sram.append(Node("sram_uncorrectable_secded", "SRAM Uncorrectable SEC-DED", none))
        else:
            sram.append(Node("sram_uncorrectable", "SRAM Uncorrectable", none))
        dram = Node("dram_uncorrectable", "DRAM Uncorrectable", found)
        return [*sram, Node("dram_correctable", "DRAM Correctable", none), dram]

    return Node(
        "ecc_errors",
        "ECC Errors",
        [
            Node("volatile", "Volatile", counts(gpu["ecc_uncorrected"])),
            Node("aggregate", "Aggregate", counts(gpu["ecc_uncorrected_aggregate"])),
        ],
    )


def _retired(gpu: dict) -> Node:
    pending = yes_no(gpu["retired_pending"])
    count = "N/A" if gpu["retired_pending"] is None else "0"
    return Node(
        "retired_pages",
        "Retired Pages",
        [
            Node("multiple_single_bit_retirement", "", [Node("retired_count", "", count)]),
            Node("double_bit_retirement", "", [Node("retired_count", "", count)]),
            Node("", "Single Bit ECC", count),
            Node("", "Double Bit ECC", count),
            Node("pending_blacklist", "Pending Page Blacklist", pending),
            Node("pending_retirement", "", pending),
        ],
    )


def _remapped(gpu: dict) -> Node:
    if gpu["remap_pending"] is None and gpu["remap_failure"] is None:
        return Node("remapped_rows", "Remapped Rows", "N/A")
    return Node(
        "remapped_rows",
        "Remapped Rows",
        [
            Node("remapped_row_corr", "Correctable Error", "0"),
            Node("remapped_row_unc", "Uncorrectable Error", "0"),
            Node("remapped_row_pending", "Pending", yes_no(gpu["remap_pending"])),
            Node("remapped_row_failure", "Remapping Failure Occurred", yes_no(gpu["remap_failure"])),
        ],
    )


def _power(nvidia: dict, gpu: dict) -> Node:
    draw = "N/A" if gpu["power_w"] is None else f"{gpu['power_w']:.2f} W"
    limit = f"{gpu['power_limit_w']:.2f} W"
    if nvidia["schema"] == "v11":
        children = [Node("power_draw", "Power Draw", draw), Node("power_limit", "Power Limit", limit)]
        return Node("power_readings", "Power Readings", children)
    name = ("power_draw", "Power Draw")
    if major(nvidia) >= AVERAGE_POWER_SINCE:
        name = ("average_power_draw", "Average Power Draw")
    children = [Node(*name, draw), Node("current_power_limit", "Current Power Limit", limit)]
    return Node("gpu_power_readings", "GPU Power Readings", children)


def _fabric(gpu: dict, newest: bool) -> Node:
    children = [
        Node("state", "State", or_na(gpu["fabric_state"])),
        Node("status", "Status", or_na(gpu["fabric_status"])),
    ]
    if newest:
        children.append(Node("health", "Health", [Node("summary", "Summary", or_na(gpu["fabric_health"]))]))
    return Node("fabric", "Fabric", children)


def _processes(nvidia: dict, gpu: dict) -> Node:
    children = [
        Node(
            "process_info",
            "",
            [
                Node("gpu_instance_id", "GPU instance ID", "N/A"),
                Node("compute_instance_id", "Compute instance ID", "N/A"),
                Node("pid", "Process ID", str(process["pid"])),
                Node("type", "Type", "C"),
                Node("process_name", "Name", process["name"]),
                Node("used_memory", "Used GPU Memory", or_na(process["memory_mib"], " MiB")),
            ],
        )
        for process in nvidia["processes"]
        if process["gpu_index"] == gpu["index"]
    ]
    return Node("processes", "Processes", children)


def as_xml(nvidia: dict, gpus: list, stamp: str) -> str:
    """Return the output of `-q -x`."""
    lines = [
        '<?xml version="1.0" ?>',
        f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_{nvidia["schema"]}.dtd">',
        "<nvidia_smi_log>",
    ]
    head = [
        Node("timestamp", "", stamp),
        Node("driver_version", "", nvidia["driver_version"]),
        Node("cuda_version", "", nvidia["cuda_version"]),
        Node("attached_gpus", "", str(len(nvidia["gpus"]))),
    ]
    for node in head:
        lines += _xml(node, 1)
    for gpu in gpus:
        lines.append(f'\t<gpu id="{gpu["bus_id"]}">')
        for node in gpu_tree(nvidia, gpu):
            lines += _xml(node, 2)
        lines.append("\t</gpu>\n")
    return "\n".join([*lines, "</nvidia_smi_log>"]) + "\n"


def escape(text: str) -> str:
    """Return the text as XML wants it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _xml(node: Node, depth: int) -> list:
    tabs = "\t" * depth
    if not node.tag:
        return []
    if node.tag == "mig_devices" and isinstance(node.value, str):
        return [f"{tabs}<mig_devices>", f"{tabs}\t{node.value}", f"{tabs}</mig_devices>"]
    if isinstance(node.value, str):
        return [f"{tabs}<{node.tag}>{escape(node.value)}</{node.tag}>"]
    lines = [f"{tabs}<{node.tag}>"]
    for child in node.value:
        lines += _xml(child, depth + 1)
    return [*lines, f"{tabs}</{node.tag}>"]


def as_text(nvidia: dict, gpus: list, stamp: str) -> str:
    """Return the output of `-q`."""
    lines = ["", "==============NVSMI LOG==============", ""]
    head = (
        ("Timestamp", stamp),
        ("Driver Version", nvidia["driver_version"]),
        ("CUDA Version", nvidia["cuda_version"]),
    )
    lines += [_pair(label, value) for label, value in head]
    lines += ["", _pair("Attached GPUs", str(len(nvidia["gpus"])))]
    for gpu in gpus:
        lines.append(f"GPU {gpu['bus_id']}")
        for node in gpu_tree(nvidia, gpu):
            lines += _text_processes(node) if node.tag == "processes" else _text(node, 1)
        lines.append("")
    return "\n".join(lines)


def _pair(label: str, value: str) -> str:
    # Values begin at column 58 at every depth.
    return f"{label.ljust(54)} : {value}"


def _text(node: Node, depth: int) -> list:
    if not node.label:
        return []
    indent = "    " * depth
    if isinstance(node.value, str):
        return [_pair(indent + node.label, node.text or node.value)]
    lines = [indent + node.label]
    for child in node.value:
        lines += _text(child, depth + 1)
    return lines


def _text_processes(node: Node) -> list:
    if not node.value:
        return [_pair("    Processes", "None")]
    lines = ["    Processes"]
    for process in node.value:
        for place, item in enumerate(process.value):
            # The first three name the process, the others describe it.
            indent = "        " if place < 3 else "            "
            lines.append(f"{(indent + item.label).ljust(41)} : {item.value}")
    return lines
