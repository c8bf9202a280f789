# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of nvidia-smi that a deployment asks for. Whatever would change a GPU is refused.

Layouts are those of recorded outputs of the drivers 535 and 590; exit statuses those of the tool's manual.
"""

from __future__ import annotations

import time

from . import nvidia_tree
from .nvidia_tree import enabled, free_mib, major, yes_no
from .program import Answer, Refused

BAD_ARGUMENT = 2
INVALID = "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n"
# First branch whose table has wider cells and wider bus ids.
WIDE_SINCE = 545
# Questions; every other option, and every other sub-command, may change a GPU or writes to the host.
QUESTIONS = {"-q", "-x", "-L", "-i", "-h", "-d", "--query", "--xml-format", "--list-gpus", "--version"}
QUESTIONS |= {"--help", "--format", "--id", "--query-gpu", "--help-query-gpu", "--query-compute-apps"}
FIRST_QUESTIONS = {("topo", "-m"), ("topo", "--matrix"), ("nvlink", "-s"), ("nvlink", "--status")}
LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
"""
# Second names of fields.
ALIASES = {
    "name": "gpu_name",
    "serial": "gpu_serial",
    "uuid": "gpu_uuid",
    "pci.bus_id": "gpu_bus_id",
    "power.limit": "gpu.power.requested_limit",
}
LOST_LINE = "Unable to determine the device handle for GPU{index}: {bus}: {reason}\n"


def answer(state: dict, arguments: list, fault: dict) -> Answer:
    """Return what `nvidia-smi ARGUMENTS` says on this host."""
    if _changes(arguments):
        raise Refused
    nvidia = state["nvidia"]
    failure = fault["failure"] or ("" if nvidia else "driver_not_loaded")
    if failure:
        return _failed(failure, nvidia)
    if not nvidia["gpus"]:
        return _failed("no_devices", nvidia)
    gpus = [gpu for gpu in nvidia["gpus"] if gpu["index"] not in fault["lost"]]
    said = _say(nvidia, gpus, arguments)
    lost = [gpu for gpu in nvidia["gpus"] if gpu["index"] in fault["lost"]]
    # The tool writes the domain with four digits here and with eight elsewhere.
    notes = [
        LOST_LINE.format(index=gpu["index"], bus=gpu["bus_id"][-12:], reason=fault["lost_reason"])
        for gpu in lost
        if said.code == 0 and arguments not in (["--version"], ["--help-query-gpu"], ["-h"])
    ]
    return said._replace(stderr="".join(notes))


def _failed(failure: str, nvidia) -> Answer:
    texts = {
        "driver_not_loaded": (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
            "Make sure that the latest NVIDIA driver is installed and running.\n\n",
            9,
        ),
        "nvml_mismatch": ("Failed to initialize NVML: Driver/library version mismatch\n" + _library(nvidia), 18),
        "no_devices": ("No devices were found\n", 6),
    }
    text, code = texts[failure]
    return Answer(text, code=code)


def _library(nvidia) -> str:
    """Return the second line of a version mismatch, which drivers from 535 on print."""
    if nvidia is None or major(nvidia) < 535:
        return ""
    return f"NVML library version: {_nvml(nvidia)}\n"


def _nvml(nvidia: dict) -> str:
    return nvidia["nvml_version"] or ".".join(nvidia["driver_version"].split(".")[:2])


def _changes(arguments: list) -> bool:
    if arguments and not arguments[0].startswith("-"):
        return tuple(arguments[:2]) not in FIRST_QUESTIONS
    return any(word.startswith("-") and word.split("=")[0] not in QUESTIONS for word in arguments)


def _say(nvidia: dict, gpus: list, arguments: list) -> Answer:
    options, unknown = _options(arguments)
    if unknown:
        return Answer(INVALID, code=BAD_ARGUMENT)
    if "-i" in options or "--id" in options:
        wanted = (options.get("-i") or options.get("--id") or "").split(",")
        gpus = [gpu for gpu in gpus if {str(gpu["index"]), gpu["uuid"], gpu["bus_id"]} & set(wanted)]
        if not gpus:
            return Answer("No devices were found\n", code=6)
    for option, teller in TELLERS.items():
        if option in options:
            return teller(nvidia, gpus, options)
    if set(options) - {"-i", "--id"}:
        return Answer(INVALID, code=BAD_ARGUMENT)
    return Answer(_table(nvidia, gpus))


def _options(arguments: list) -> tuple:
    """Return the options with their values, and whether a word belongs to none of them."""
    if arguments and not arguments[0].startswith("-"):
        return {" ".join(arguments[:2]): ""}, len(arguments) > 2
    options, waiting = {}, ""
    for word in arguments:
        if word.startswith("-"):
            name, _equals, value = word.partition("=")
            options[name] = value
            waiting = name if name in ("-i", "-d", "--id") and not value else ""
        elif waiting:
            options[waiting], waiting = word, ""
        else:
            return options, True
    return options, False


def _clock(nvidia: dict) -> tuple:
    """Return the time as the tables print it and as the lists do."""
    if nvidia["clock"]:
        moment, fraction = nvidia["clock"].split(".")
        parts = time.strptime(moment, "%Y-%m-%dT%H:%M:%S")
    else:
        parts, fraction = time.localtime(), "000"
    # strftime would pad the day with a zero.
    return time.asctime(parts), time.strftime("%Y/%m/%d %H:%M:%S.", parts) + fraction


def _query(nvidia: dict, gpus: list, options: dict) -> Answer:
    stamp = _clock(nvidia)[0]
    as_xml = "-x" in options or "--xml-format" in options
    return Answer((nvidia_tree.as_xml if as_xml else nvidia_tree.as_text)(nvidia, gpus, stamp))


def _list(_nvidia: dict, gpus: list, _options: dict) -> Answer:
    lines = []
    for gpu in gpus:
        lines.append(f"GPU {gpu['index']}: {gpu['name']} (UUID: {gpu['uuid']})")
        for number, device in enumerate(gpu["mig_devices"]):
            lines.append(f"  MIG {device['profile'].ljust(12)}Device {number:2d}: (UUID: {device['uuid']})")
    return Answer("\n".join(lines) + "\n")


def _versions(nvidia: dict, _gpus: list, _options: dict) -> Answer:
    pairs = [
        ("NVIDIA-SMI version", nvidia["driver_version"]),
        ("NVML version", _nvml(nvidia)),
        ("DRIVER version", nvidia["driver_version"]),
        ("CUDA Version", nvidia["cuda_version"]),
    ]
    return Answer("".join(f"{key.ljust(19)} : {value}\n" for key, value in pairs))


def _nvlink(_nvidia: dict, gpus: list, _options: dict) -> Answer:
    lines = []
    for gpu in gpus:
        lines.append(f"GPU {gpu['index']}: {gpu['name']} (UUID: {gpu['uuid']})")
        if gpu["mig"]:
            lines.append("Nvlink queries are not supported for Devices in MIG mode")
            continue
        lines += [f"\t Link {link}: {gpu['nvlink_gbs']} GB/s" for link in range(gpu["nvlinks"])]
    return Answer("\n".join(lines) + "\n")


def _topology(nvidia: dict, gpus: list, _options: dict) -> Answer:
    topology = nvidia["topology"]
    matrix = topology["matrix"] or _plain_matrix(nvidia)
    seen = {f"GPU{gpu['index']}" for gpu in gpus}
    every = list(matrix)
    names = [name for name in every if not name.startswith("GPU") or name in seen]
    heads = ["CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]
    lines = ["\t\x1b[4m" + "\t".join([*names, *heads]) + "\x1b[0m"]
    for name in names:
        words = matrix[name].split()
        row = {other: words[place] for place, other in enumerate(every)}
        cells = [" X " if row[other] == "X" else row[other] for other in names]
        if name.startswith("GPU"):
            cells += [topology["cpu_affinity"].get(name, "N/A"), topology["numa_affinity"].get(name, "N/A"), "", "N/A"]
        else:
            # Rows of network cards have no affinity; the tool ends them with the tabs all the same.
            cells += ["", "", "", ""]
        lines.append("\t".join([name, *cells]))
    text = "\n".join(lines) + "\n" + LEGEND
    if topology["nics"]:
        text += "\nNIC Legend:\n\n" + "".join(f"  {name}: {device}\n" for name, device in topology["nics"].items())
    return Answer(text)


def _plain_matrix(nvidia: dict) -> dict:
    """Return the matrix of GPUs that nothing but the processors connects."""
    indexes = [gpu["index"] for gpu in nvidia["gpus"]]
    return {f"GPU{row}": " ".join("X" if row == other else "SYS" for other in indexes) for row in indexes}


def _bracketed(value) -> str:
    return "[N/A]" if value in (None, "", "N/A") else str(value)


def _fields(nvidia: dict) -> dict:
    """Return the fields that --query-gpu has with this driver: unit and value of each."""
    fields = {
        "index": ("", lambda gpu: gpu["index"]),
        "uuid": ("", lambda gpu: gpu["uuid"]),
        "name": ("", lambda gpu: gpu["name"]),
        "serial": ("", lambda gpu: gpu["serial"]),
        "count": ("", lambda _gpu: len(nvidia["gpus"])),
        "driver_version": ("", lambda _gpu: nvidia["driver_version"]),
        "pci.bus_id": ("", lambda gpu: gpu["bus_id"]),
        "memory.total": ("MiB", lambda gpu: gpu["memory_total_mib"]),
        "memory.reserved": ("MiB", lambda gpu: gpu["memory_reserved_mib"]),
        "memory.used": ("MiB", lambda gpu: gpu["memory_used_mib"]),
        "memory.free": ("MiB", free_mib),
        "compute_cap": ("", lambda gpu: gpu["compute_capability"]),
        "persistence_mode": ("", lambda gpu: enabled(gpu["persistence_mode"])),
        "mig.mode.current": ("", lambda gpu: enabled(gpu["mig"])),
        "mig.mode.pending": ("", lambda gpu: enabled(gpu["mig"])),
        "ecc.mode.current": ("", lambda gpu: enabled(gpu["ecc_mode"])),
        "ecc.errors.uncorrected.volatile.total": ("", lambda gpu: gpu["ecc_uncorrected"]),
        "ecc.errors.uncorrected.aggregate.total": ("", lambda gpu: gpu["ecc_uncorrected_aggregate"]),
        "remapped_rows.pending": ("", lambda gpu: yes_no(gpu["remap_pending"])),
        "remapped_rows.failure": ("", lambda gpu: yes_no(gpu["remap_failure"])),
        "retired_pages.pending": ("", lambda gpu: yes_no(gpu["retired_pending"])),
        "temperature.gpu": ("", lambda gpu: gpu["temperature_c"]),
        "power.draw": ("W", lambda gpu: None if gpu["power_w"] is None else f"{gpu['power_w']:.2f}"),
        "power.limit": ("W", lambda gpu: f"{gpu['power_limit_w']:.2f}"),
        "utilization.gpu": ("%", lambda gpu: None if gpu["mig"] else gpu["utilization_percent"]),
    }
    if major(nvidia) >= nvidia_tree.FABRIC_SINCE:
        fields["fabric.state"] = ("", lambda gpu: gpu["fabric_state"])
        fields["fabric.status"] = ("", lambda gpu: gpu["fabric_status"])
    if major(nvidia) >= nvidia_tree.RECOVERY_SINCE:
        fields["gpu_recovery_action"] = ("", lambda gpu: gpu["recovery_action"])
    return {**fields, **{ALIASES[name]: field for name, field in fields.items() if name in ALIASES}}


def _query_gpu(nvidia: dict, gpus: list, options: dict) -> Answer:
    return _csv(_fields(nvidia), options["--query-gpu"], gpus, options)


def _query_apps(nvidia: dict, gpus: list, options: dict) -> Answer:
    stamp = _clock(nvidia)[1]
    by_index = {gpu["index"]: gpu for gpu in gpus}
    apps = [
        (process, by_index[process["gpu_index"]]) for process in nvidia["processes"] if process["gpu_index"] in by_index
    ]
    fields = {
        "timestamp": ("", lambda _app: stamp),
        "pid": ("", lambda app: app[0]["pid"]),
        "process_name": ("", lambda app: app[0]["name"]),
        "name": ("", lambda app: app[0]["name"]),
        "used_gpu_memory": ("MiB", lambda app: app[0]["memory_mib"]),
        "used_memory": ("MiB", lambda app: app[0]["memory_mib"]),
        "gpu_name": ("", lambda app: app[1]["name"]),
        "gpu_uuid": ("", lambda app: app[1]["uuid"]),
        "gpu_serial": ("", lambda app: app[1]["serial"]),
        "gpu_bus_id": ("", lambda app: app[1]["bus_id"]),
    }
    return _csv(fields, options["--query-compute-apps"], apps, options)


def _csv(fields: dict, asked: str, things: list, options: dict) -> Answer:
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in fields:
            return Answer(f'Field "{name}" is not a valid field to query.\n\n', code=BAD_ARGUMENT)
    form = options.get("--format", "").split(",")
    if form[0] != "csv" or set(form[1:]) - {"noheader", "nounits"}:
        return Answer(INVALID, code=BAD_ARGUMENT)
    units = "nounits" not in form
    lines = []
    if "noheader" not in form:
        lines.append(", ".join(f"{name} [{fields[name][0]}]" if fields[name][0] and units else name for name in names))
    for thing in things:
        cells = []
        for name in names:
            unit, value = fields[name]
            text = _bracketed(value(thing))
            cells.append(f"{text} {unit}" if unit and units and not text.startswith("[") else text)
        lines.append(", ".join(cells))
    return Answer("".join(f"{line}\n" for line in lines))


def _help_fields(nvidia: dict, _gpus: list, _options: dict) -> Answer:
    text = 'List of valid properties to query for the switch "--query-gpu":\n\n'
    for name in _fields(nvidia):
        if name in ALIASES.values():
            continue
        names = f'"{name}" or "{ALIASES[name]}"' if name in ALIASES else f'"{name}"'
        text += f"{names}\nA property of the GPU.\n\n"
    return Answer(text)


def _help(_nvidia: dict, _gpus: list, _options: dict) -> Answer:
    return Answer("NVIDIA System Management Interface\n\nnvidia-smi [OPTION1 [ARG1]] [OPTION2 [ARG2]] ...\n")


# The first that is among the options speaks.
TELLERS = {
    "topo -m": _topology,
    "topo --matrix": _topology,
    "nvlink -s": _nvlink,
    "nvlink --status": _nvlink,
    "-h": _help,
    "--help": _help,
    "--version": _versions,
    "--help-query-gpu": _help_fields,
    "--query-gpu": _query_gpu,
    "--query-compute-apps": _query_apps,
    "-L": _list,
    "--list-gpus": _list,
    "-q": _query,
    "--query": _query,
}


def _table(nvidia: dict, gpus: list) -> str:
    wide = major(nvidia) >= WIDE_SINCE
    cells = (41, 24, 22) if wide else (41, 22, 22)
    inner = sum(cells) + 2
    rule = "+" + "+".join("-" * width for width in cells) + "+"
    pad = "  " if wide else ""
    first_rule = rule if wide else "|" + rule[1:]
    versions = f" NVIDIA-SMI {nvidia['driver_version'].ljust(23)}Driver Version: "
    versions += nvidia["driver_version"].ljust(15 if wide else 13) + f"CUDA Version: {nvidia['cuda_version']}"
    lines = [
        f"{_clock(nvidia)[0]}       ",
        f"+{'-' * inner}+",
        "|" + versions.ljust(inner) + "|",
        first_rule,
        f"| GPU  Name                 Persistence-M | Bus-Id        {pad}Disp.A | Volatile Uncorr. ECC |",
        f"| Fan  Temp   Perf          Pwr:Usage/Cap | {pad}        Memory-Usage | GPU-Util  Compute M. |",
        f"|                                         | {pad}                     |               MIG M. |",
        "|" + "+".join("=" * width for width in cells) + "|",
    ]
    for gpu in gpus:
        lines += [*_rows(gpu, wide), rule]
    return "\n".join([*lines, "", *_process_table(nvidia, gpus, inner)]) + "\n"


def _rows(gpu: dict, wide: bool) -> list:
    """Return the three lines of a GPU; one that needs a reset shows ERR! where its values were."""
    sick = gpu["reset_required"]
    persistence = "On" if gpu["persistence_mode"] else "Off"
    display = "N/A" if sick else "Off"
    errors = "On" if gpu["mig"] else "N/A" if sick or gpu["ecc_uncorrected"] is None else str(gpu["ecc_uncorrected"])
    degrees = "N/A" if gpu["temperature_c"] is None else f"{gpu['temperature_c']}C"
    fan = "ERR!" if sick else " N/A"
    draw, limit = ("N/A ", "N/A ")
    if not sick and gpu["power_w"] is not None:
        draw, limit = f"{round(gpu['power_w'])}W", f"{round(gpu['power_limit_w'])}W"
    watts = f"{draw.rjust(16)} / {limit.rjust(5)}" if wide else f"{draw.rjust(17)} / {limit.rjust(4)}"
    busy = "N/A" if gpu["mig"] or sick else f"{gpu['utilization_percent']}%"
    mig = "ERR!" if sick else enabled(gpu["mig"])
    used, total = f"{gpu['memory_used_mib']}MiB", f"{gpu['memory_total_mib']}MiB"
    memory = f"{used.rjust(11)} / {total.rjust(9)} " if wide else f"{used.rjust(10)} / {total.rjust(8)} "
    pad = "  " if wide else ""
    first = (
        f"{gpu['index']:4d}  {gpu['name'][:30].ljust(30)}{persistence.rjust(3) if persistence == 'Off' else ' On'}  "
    )
    return [
        f"|{first}| {pad}{gpu['bus_id']} {display} |{errors.rjust(21)} |",
        f"|{fan}{degrees.rjust(6)}    P0{watts} |{memory}|{busy.rjust(8)}      Default |",
        f"|{' ' * 41}|{' ' * (24 if wide else 22)}|{mig.rjust(21)} |",
    ]


def _process_table(nvidia: dict, gpus: list, inner: int) -> list:
    extra = inner - 87
    lines = [
        f"+{'-' * inner}+",
        "|" + " Processes:".ljust(inner) + "|",
        "|  GPU   GI   CI              PID   Type   Process name".ljust(inner - 10) + "GPU Memory |",
        "|        ID   ID".ljust(inner - 10) + "Usage      |",
        f"|{'=' * inner}|",
    ]
    seen = {gpu["index"] for gpu in gpus}
    mine = [process for process in nvidia["processes"] if process["gpu_index"] in seen]
    for process in mine:
        memory = "N/A" if process["memory_mib"] is None else f"{process['memory_mib']}MiB"
        start = f"|{process['gpu_index']:5d}   N/A  N/A {process['pid']:15d}      C   "
        lines.append(start + process["name"][:31].ljust(32 + extra) + memory.rjust(12) + " |")
    if not mine:
        lines.append("|" + "  No running processes found".ljust(inner) + "|")
    return [*lines, f"+{'-' * inner}+"]
