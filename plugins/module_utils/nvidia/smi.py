# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what nvidia-smi prints: the XML of ``-q -x``, ``-L``, ``--query-gpu`` and its error lines. Pure, never raises.

Names of XML elements: files nvsmi_device_v11.dtd (drivers up to 525), v12 (530 to 575) and v13 (580 and later).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.parsers import expat

MAX_CHARS = 4 * 1024 * 1024  # the largest true output, 16 GPUs with their clock tables, is below 1 MiB
SCHEMAS = ("v11", "v12", "v13")
_MAX_LINES = 20_000  # of the short outputs: -L and --query-gpu print one line for each GPU or MIG device
_MAX_PROBLEMS = 50
_MAX_DEPTH = 32  # v13 nests 7 deep
_MAX_GPUS = 256  # NVML knows fewer on one host

_ROOT_START, _ROOT_END = "<nvidia_smi_log", "</nvidia_smi_log>"
_GPU_START, _GPU_END = "<gpu ", "</gpu>"
_SCHEMA = re.compile(r"nvsmi_device_(v[0-9]{1,3})\.dtd")
_BUS_ID = re.compile(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-7])")
_UUID = re.compile(r"GPU-[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_COMPUTE = re.compile(r"[0-9]{1,2}\.[0-9]")
_COUNT = re.compile(r"([0-9]{1,18})")
_MIB = re.compile(r"([0-9]{1,9}) MiB")
_CELSIUS = re.compile(r"(-?[0-9]{1,4}) C")
_WATT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,4})?) W")
# Wordings: "for GPU3: 0000:04:00.0: ...", "for GPU 0000:05:00.0: ...", "for GPU0000:05:00.0: ...", "for gpu 0000:..".
_HANDLE = re.compile(
    r"Unable to determine the device handle for (?:gpu)? ?(?:[0-9]{1,4}: ?)?"
    r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): *([^\n<]{0,200})",
    re.IGNORECASE,
)
_INFOROM = re.compile(r"WARNING: infoROM is corrupted at gpu ([0-9A-Fa-f:.]{7,20})")
_LIST_GPU = re.compile(r"GPU ([0-9]{1,4}): ([^\n]{0,200}) \(UUID: (GPU-[0-9A-Fa-f-]{36})\)")
_LIST_MIG = re.compile(r"\s+MIG ([0-9a-z.+]{1,40})\s+Device\s+([0-9]{1,4}): \(UUID: MIG-[^()\n]{1,100}\)")
_BAD_FIELD = re.compile(r'Field "([^"\n]{1,100})" is not a valid field to query')
# What stands for "this card has no such thing"; nothing is wrong then.
_NOT_THERE = {"", "n/a", "not supported", "requested functionality has been deprecated"}
# What stands for "this could not be read".
_UNREADABLE = {"unknown error", "err!", "gpu requires reset", "gpu is lost", "insufficient permissions"}
_BARE_AMPERSAND = re.compile("&(?!(?:amp|lt|gt|quot|apos);)")
# XML has no form for these; a process may have them in its name all the same.
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF], "\ufffd")

# Words of a failure, what it is called here, and what to do about it.
_FAILURES = (
    (
        "Driver/library version mismatch",
        "mismatch",
        "the loaded kernel module and the driver's libraries differ in version: reboot, or unload and load the nvidia"
        " modules",
    ),
    (
        "couldn't communicate with the NVIDIA driver",
        "not_loaded",
        "the kernel module of the driver is not loaded: see whether the driver is installed and built for this kernel,"
        " whether the host was rebooted since, and whether secure boot refuses its signature",
    ),
    ("Driver Not Loaded", "not_loaded", "load the nvidia kernel module: modprobe nvidia"),
    (
        "couldn't find libnvidia-ml.so",
        "no_library",
        "the driver's libraries are not installed, or the loader does not look where they are",
    ),
    (
        "No devices were found",
        "no_devices",
        "the driver runs and sees no GPU that it can use: see dmesg for lines of NVRM and Xid",
    ),
    ("GPU is lost", "lost", "a GPU fell off the bus: reboot the host; see dmesg for its Xid"),
    (
        "Unable to determine the device handle",
        "handle",
        "a GPU does not answer: reboot the host; see dmesg for its Xid",
    ),
    ("Failed to initialize NVML", "nvml", "see dmesg for lines of NVRM, and whether this user may open /dev/nvidia*"),
)


def bus_id(text: str) -> str:
    """Return a PCI address as /sys writes it (0000:01:00.0: 4-digit domain, lower case), "" for anything else."""
    found = _BUS_ID.fullmatch(text.strip())
    if not found:
        return ""
    domain, bus, device, function = found.groups()
    return f"{int(domain, 16):04x}:{bus.lower()}:{device.lower()}.{function}"


def missing(text: str) -> bool:
    """True for what stands for a value that is not there or cannot be read, such as N/A or [Unknown Error]."""
    return _plain(text) in _NOT_THERE | _UNREADABLE


def failure(text: str) -> dict | None:
    """Return {kind, said, remedy, library_version} of the failure that nvidia-smi tells of, or None.

    kind is mismatch, not_loaded, no_library, no_devices, lost, handle or nvml; said is the line itself.
    """
    text = text[:MAX_CHARS]
    for words, kind, remedy in _FAILURES:
        position = text.find(words)
        if position >= 0:
            version = re.search(r"NVML library version: ([0-9.]{3,20})", text)
            return {
                "kind": kind,
                "said": _line_at(text, position),
                "remedy": remedy,
                "library_version": version.group(1) if version else "",
            }
    return None


def handle_errors(text: str) -> list[dict]:
    """Return [{bus_id, reason}] of the GPUs that nvidia-smi could not open, each once, in the order of the lines."""
    found: dict[str, str] = {}
    for match in _HANDLE.finditer(text[:MAX_CHARS]):
        found.setdefault(bus_id(match.group(1)), " ".join(match.group(2).split()).rstrip("."))
    return [{"bus_id": address, "reason": reason} for address, reason in found.items()]


def warnings(text: str) -> list[str]:
    """Return the warnings that nvidia-smi prints beside its output, one sentence each."""
    found = dict.fromkeys(match.group(1) for match in _INFOROM.finditer(text[:MAX_CHARS]))
    return [f"nvidia-smi warns that the infoROM of the GPU {bus_id(name) or name} is corrupted" for name in found]


def parse_log(text: str, of_one: bool = False) -> dict:
    """Return what ``nvidia-smi -q -x`` told, or with ``of_one`` what it told of a single GPU (-i).

    Keys: schema, driver_version, cuda_version, whole (True for a complete document each GPU of which could be taken),
    gpus[] (``index`` is the place in the document), processes[] {gpu_index, pid, name, memory_mib}, problems[]. Lines
    before and after the document do not matter. Of a damaged one the GPUs whose part is complete are returned.

    Of a GPU, a text that is not told is "", a number, True or False that is not told is None: ``mig`` is None where the
    card has no MIG, which is not False. ecc_uncorrected is the sum of the volatile counters, None where there is none.
    """
    log = {"schema": "", "driver_version": "", "cuda_version": "", "whole": False, "gpus": [], "processes": []}
    log["problems"] = problems = []
    start = text.find(_ROOT_START)
    if len(text) > MAX_CHARS:
        problems.append(
            f"nvidia-smi -q -x printed {len(text)} characters, more than the {MAX_CHARS} that are looked at"
        )
    elif "<!ENTITY" in text or re.search(r"<!DOCTYPE[^>\[]{0,300}\[", text):
        problems.append("nvidia-smi -q -x printed a document that declares entities of its own; it is not read")
    elif start < 0:
        problems.append("nvidia-smi -q -x printed no XML document")
    else:
        log["schema"] = _schema(text[:start], problems)
        _read_document(log, text[start:], of_one)
    del problems[_MAX_PROBLEMS:]
    return log


def parse_list(text: str) -> dict:
    """Return {gpus, problems} of ``nvidia-smi -L``: gpus[] {index, name, uuid, mig_devices}."""
    gpus: list[dict] = []
    problems: list[str] = []
    for line in text[:MAX_CHARS].splitlines()[:_MAX_LINES]:
        gpu, mig = _LIST_GPU.fullmatch(line.rstrip()), _LIST_MIG.fullmatch(line.rstrip())
        if gpu and _UUID.fullmatch(gpu.group(3)):
            gpus.append(
                {"index": int(gpu.group(1)), "name": gpu.group(2).strip(), "uuid": gpu.group(3), "mig_devices": 0}
            )
        elif mig and gpus:
            gpus[-1]["mig_devices"] += 1
        elif line.strip() and not _HANDLE.search(line):
            problems.append(f"nvidia-smi -L printed a line that cannot be understood: {_shown(line)}")
    del problems[_MAX_PROBLEMS:]
    return {"gpus": gpus, "problems": problems}


def parse_query(text: str, fields: tuple[str, ...]) -> dict:
    """Return {rows, bad_field, problems} of ``--query-gpu=fields --format=csv,noheader,nounits``.

    A row holds one key for each field: index is an int; uuid, pci.bus_id (as /sys writes it) and compute_cap are
    checked; all else is the text. What a GPU does not tell is None. bad_field names a field that this nvidia-smi does
    not know, which makes the whole call fail.
    """
    text = text[:MAX_CHARS]
    bad = _BAD_FIELD.search(text)
    rows: list[dict] = []
    problems: list[str] = []
    for line in [] if bad else text.splitlines()[:_MAX_LINES]:
        row = _row(line, fields)
        if row:
            rows.append(row)
        elif line.strip() and not _HANDLE.search(line):
            problems.append(f"nvidia-smi --query-gpu printed a line that cannot be understood: {_shown(line)}")
    del problems[_MAX_PROBLEMS:]
    return {"rows": rows, "bad_field": bad.group(1) if bad else "", "problems": problems}


def _row(line: str, fields: tuple[str, ...]) -> dict | None:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(fields):
        return None
    row: dict = {}
    for field, cell in zip(fields, cells):
        if missing(cell):
            row[field] = None
        elif field == "index" and re.fullmatch("[0-9]{1,4}", cell):
            row[field] = int(cell)
        elif field == "pci.bus_id" and bus_id(cell):
            row[field] = bus_id(cell)
        elif (field == "uuid" and _UUID.fullmatch(cell)) or (field == "compute_cap" and _COMPUTE.fullmatch(cell)):
            row[field] = cell
        elif field in ("index", "pci.bus_id", "uuid", "compute_cap"):
            return None
        else:
            row[field] = cell
    return row


# The XML document ------------------------------------------------------------------------------------------------


def _schema(prolog: str, problems: list[str]) -> str:
    found = _SCHEMA.search(prolog)
    if found and found.group(1) in SCHEMAS:
        return found.group(1)
    name = f"the schema {found.group(1)}, which is not known here" if found else "no schema"
    problems.append(f"nvidia-smi -q -x names {name}; it is read by the names that v11 to v13 share")
    return ""


def _read_document(log: dict, text: str, of_one: bool) -> None:
    """Fill ``log`` from the text that begins with the root element."""
    end = text.find(_ROOT_END)
    body = _mended(text[: end + len(_ROOT_END)] if end >= 0 else text)
    root, error = _element(body)
    if root is None or root.tag != _ROOT_START[1:]:
        log["problems"].append(
            "the document of nvidia-smi -q -x is not whole"
            f" ({error or 'its end is missing'}); only GPUs that are complete in it are taken"
        )
        head = body[: max(body.find(_GPU_START), 0)]
        parts = _gpu_parts(body)
        log["driver_version"], log["cuda_version"], attached = (
            _tag_text(head, tag) for tag in ("driver_version", "cuda_version", "attached_gpus")
        )
    else:
        log["whole"] = True
        parts = root.findall("gpu")
        log["driver_version"], log["cuda_version"], attached = (
            _one_line(root.findtext(tag) or "") for tag in ("driver_version", "cuda_version", "attached_gpus")
        )
    for key in ("driver_version", "cuda_version"):
        if not re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{1,4}){1,3}", log[key]):
            if not missing(log[key]) or key == "driver_version":
                log["problems"].append(f"nvidia-smi -q -x does not tell the {key}: {_shown(log[key])}")
            log[key] = ""
    if not of_one and (not _COUNT.fullmatch(attached) or int(attached) != len(parts)):  # the count is of all GPUs
        log["problems"].append(
            f"nvidia-smi -q -x lists {len(parts)} GPUs where it counts {_shown(attached)} attached ones"
        )
    _read_parts(log, parts)


def _read_parts(log: dict, parts: list) -> None:
    seen: set[str] = set()
    for position, part in enumerate(parts[:_MAX_GPUS]):
        gpu = _read_gpu(part, position, log) if part is not None else None
        if gpu is None or gpu["bus_id"] in seen:
            log["whole"] = False
            reason = "is damaged" if gpu is None else f"has the PCI address {gpu['bus_id']} of an earlier one"
            log["problems"].append(f"GPU number {position} of nvidia-smi -q -x {reason}; it is left out")
            continue
        seen.add(gpu["bus_id"])
        log["gpus"].append(gpu)
        log["processes"] += _read_processes(part, gpu, log["problems"])


class _Refused(ValueError):
    """A document that nvidia-smi never prints."""


class _Builder:
    """Builds an element out of what expat meets, to a depth that ends.

    It is given elements without a prolog, so a declaration, which could make entities, is an error of syntax.
    """

    def __init__(self) -> None:
        self.tree = ElementTree.TreeBuilder()
        self.depth = 0
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.tree.data

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _Refused(f"more than {_MAX_DEPTH} elements are nested")
        self.tree.start(tag, attributes)

    def end(self, tag: str) -> None:
        self.depth -= 1
        self.tree.end(tag)


def _element(text: str) -> tuple[ElementTree.Element | None, str]:
    """Return (element, "") or (None, what is wrong)."""
    builder = _Builder()
    try:
        builder.parser.Parse(text.encode("utf-8", "replace"), True)
        return builder.tree.close(), ""
    except (expat.ExpatError, _Refused) as error:
        return None, str(error)


def _mended(text: str) -> str:
    """Return the text with process names, which are what a user called a program, made safe for XML."""
    lines = text.translate(_CONTROL).split("\n")
    for number, line in enumerate(lines):
        head, start, rest = line.partition("<process_name>")
        name, end, tail = rest.rpartition("</process_name>")
        if start and end and not head.strip() and not tail.strip():
            safe = _BARE_AMPERSAND.sub("&amp;", name).replace("<", "&lt;")
            lines[number] = f"{head}{start}{safe}{end}{tail}"
    return "\n".join(lines)


def _gpu_parts(body: str) -> list[ElementTree.Element | None]:
    """Return one element for each ``<gpu`` in a damaged document, None for those whose part is not complete."""
    parts: list[ElementTree.Element | None] = []
    start = body.find(_GPU_START)
    while start >= 0 and len(parts) <= _MAX_GPUS:
        following = body.find(_GPU_START, start + 1)
        part = body[start : following if following >= 0 else len(body)]
        end = part.find(_GPU_END)
        parts.append(_element(part[: end + len(_GPU_END)])[0] if end >= 0 else None)
        start = following
    return parts


def _tag_text(text: str, tag: str) -> str:
    found = re.search(f"<{tag}>([^<>\n]{{0,100}})</{tag}>", text)
    return found.group(1).strip() if found else ""


class _Fields:
    """Takes values out of one element; remembers the names of those that could not be read."""

    def __init__(self, element: ElementTree.Element) -> None:
        self.element = element
        self.unread: dict[str, str] = {}

    def text(self, *paths: str) -> str:
        """Return the text of the first path that has a value, "" where none has one."""
        for path in paths:
            raw = self.element.findtext(path) or ""
            if _plain(raw) in _UNREADABLE:
                self.unread.setdefault(path, _one_line(raw))
            elif _plain(raw) not in _NOT_THERE:
                if "\n" in raw or len(raw) > 4096:  # 4096: PATH_MAX, for names of processes
                    self.unread.setdefault(path, _one_line(raw))
                    return ""
                return raw.strip()
        return ""

    def number(self, form: re.Pattern, *paths: str) -> int | float | None:
        """Return the number in a text of exactly this form, None where there is none."""
        text = self.text(*paths)
        found = form.fullmatch(text)
        if found:
            return float(found.group(1)) if form is _WATT else int(found.group(1))
        if text:
            self.unread.setdefault(paths[0], text)
        return None

    def word(self, true: str, false: str, *paths: str) -> bool | None:
        """Return True or False for the two words, None where the card tells neither."""
        text = self.text(*paths)
        if text and text not in (true, false):
            self.unread.setdefault(paths[0], text)
        return {true: True, false: False}.get(text)

    def either(self, *paths: str) -> bool | None:
        """Return True where any of the paths says Yes, False where one says No, None where none says a thing."""
        told = [self.word("Yes", "No", path) for path in paths]
        return True if True in told else False if False in told else None

    def total(self, scope: str) -> int | None:
        """Return the uncorrected ECC errors of ``scope`` (volatile or aggregate), None where no counter is told."""
        base = f"ecc_errors/{scope}"
        before = len(self.unread)
        if self.element.find(f"{base}/double_bit") is not None:  # cards before Ampere
            return self.number(_COUNT, f"{base}/double_bit/total")
        counts = [self.number(_COUNT, f"{base}/sram_uncorrectable"), self.number(_COUNT, f"{base}/dram_uncorrectable")]
        if counts[0] is None:  # two counters since the drivers 550
            counts += [self.number(_COUNT, f"{base}/sram_uncorrectable_{kind}") for kind in ("parity", "secded")]
        known = [count for count in counts if count is not None]
        # A sum with an unreadable part would look smaller than it is.
        return sum(known) if known and len(self.unread) == before else None


def _read_gpu(element: ElementTree.Element, position: int, log: dict) -> dict | None:
    """Return one GPU, None for one without a name, or whose two PCI addresses are missing or differ."""
    fields = _Fields(element)
    addresses = {bus_id(element.get("id") or ""), bus_id(fields.text("pci/pci_bus_id"))} - {""}
    if len(addresses) != 1 or (element.find("uuid") is None and element.find("product_name") is None):
        return None
    address = addresses.pop()
    uuid = fields.text("uuid")
    gpu = {
        "index": position,
        "uuid": uuid if _UUID.fullmatch(uuid) else "",
        "name": fields.text("product_name"),
        "bus_id": address,
        "serial": fields.text("serial"),
        "product_architecture": fields.text("product_architecture"),
        "compute_capability": "",  # not in the XML
        "memory_total_mib": fields.number(_MIB, "fb_memory_usage/total"),
        "memory_used_mib": fields.number(_MIB, "fb_memory_usage/used"),
        "memory_reserved_mib": fields.number(_MIB, "fb_memory_usage/reserved"),
        "mig": fields.word("Enabled", "Disabled", "mig_mode/current_mig"),
        "mig_devices": len(element.findall("mig_devices/mig_device")),
        "ecc_mode": fields.word("Enabled", "Disabled", "ecc_mode/current_ecc"),
        "ecc_uncorrected": fields.total("volatile"),
        "ecc_uncorrected_aggregate": fields.total("aggregate"),
        "remap_pending": fields.word("Yes", "No", _remapped(element, "pending")),
        "remap_failure": fields.word("Yes", "No", _remapped(element, "failure")),
        "retired_pending": fields.either("retired_pages/pending_retirement", "retired_pages/pending_blacklist"),
        "recovery_action": fields.text("gpu_recovery_action"),
        "persistence_mode": fields.word("Enabled", "Disabled", "persistence_mode"),
        "temperature_c": fields.number(_CELSIUS, "temperature/gpu_temp"),
        # power_draw is an average over a second from Ampere on, which v13 says in the element's name.
        "power_w": fields.number(
            _WATT,
            "gpu_power_readings/power_draw",
            "gpu_power_readings/average_power_draw",
            "gpu_power_readings/instant_power_draw",
            "power_readings/power_draw",
        ),
        "fabric_state": fields.text("fabric/state"),
        "fabric_status": fields.text("fabric/status"),
        "fabric_health": fields.text("fabric/health/summary"),
    }
    required = fields.word("Yes", "No", "gpu_reset_status/reset_required")
    seen = any(_plain(child.text or "") == "gpu requires reset" for child in element.iter())
    gpu["reset_required"] = _reset_required(required, gpu["recovery_action"], seen)
    for key, told in (("uuid", gpu["uuid"]), ("product_name", gpu["name"])):
        if not told:
            fields.unread.setdefault(key, fields.text(key))
    for part in ("total", "used"):
        if element.find(f"fb_memory_usage/{part}") is None:
            fields.unread.setdefault(f"fb_memory_usage/{part}", "")
    if fields.unread:
        shown = ", ".join(f"{path} is {_shown(text)}" for path, text in fields.unread.items())
        log["problems"].append(f"GPU {address} cannot be read in full: {shown}")
    return gpu


def _remapped(element: ElementTree.Element, ending: str) -> str:
    """Return the path of what remapped_rows tells of ``ending``; drivers differ in what they write before it."""
    block = element.find("remapped_rows")
    tags = [child.tag for child in (block if block is not None else ()) if child.tag.endswith(ending)]
    return f"remapped_rows/{tags[0] if tags else ending}"


def _reset_required(told: bool | None, action: str, seen: bool) -> bool | None:
    """Return True where any field says so; from 570 on gpu_recovery_action takes the place of gpu_reset_status."""
    if seen or told or "reset" in action.lower():
        return True
    return False if told is False or action == "None" else None


def _read_processes(element: ElementTree.Element, gpu: dict, problems: list[str]) -> list[dict]:
    found = []
    for entry in element.findall("processes/process_info"):
        fields = _Fields(entry)
        pid = fields.number(_COUNT, "pid")
        if pid is None:
            problems.append(f"a process on GPU {gpu['bus_id']} has no pid that can be read")
            continue
        memory = fields.number(_MIB, "used_memory")
        found.append({"gpu_index": gpu["index"], "pid": pid, "name": fields.text("process_name"), "memory_mib": memory})
        if fields.unread:
            shown = ", ".join(f"{path} is {_shown(text)}" for path, text in fields.unread.items())
            problems.append(f"process {pid} on GPU {gpu['bus_id']} cannot be read in full: {shown}")
    return found


def _plain(text: str) -> str:
    text = text.strip()
    return (text[1:-1] if text.startswith("[") and text.endswith("]") else text).strip().lower()


def _one_line(text: str) -> str:
    return " ".join(text[:1000].split())


def _line_at(text: str, position: int) -> str:
    end = text.find("\n", position)
    return text[text.rfind("\n", 0, position) + 1 : end if end >= 0 else len(text)].strip()[:300]


def _shown(text: str) -> str:
    """Return what a problem quotes: short, on one line, ASCII."""
    return ascii(_one_line(text)[:80]) if text.strip() else "nothing"
