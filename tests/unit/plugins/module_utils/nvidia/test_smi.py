# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.nvidia import smi
from hypothesis import given
from hypothesis import strategies as st

HANDLE_LINE = "Unable to determine the device handle for GPU3: 0000:04:00.0: Unknown Error\n"
FIELDS = ("index", "uuid", "pci.bus_id", "compute_cap")
UUID = "GPU-11111111-2222-3333-4444-555555555555"
TRISTATE = st.sampled_from([True, False, None])
COUNT = st.one_of(st.none(), st.integers(0, 10**12))
MIB = st.one_of(st.none(), st.integers(0, 10**6))
NAME = st.text("abcXYZ019/.-_ &<>\"'=;", min_size=1, max_size=30).map(str.strip).filter(
    lambda name: not smi.missing(name)
)  # fmt: skip


@st.composite
def states(draw, most: int = 4):
    """A schema, whether its cards are older than Ampere, and what parse_log should return."""
    schema = draw(st.sampled_from(["v11", "v12", "v13"]))
    gpus, processes = [], []
    for index in range(draw(st.integers(1, most))):
        action = draw(st.sampled_from(["None", "Reset", "Reboot", "Drain P2P", ""])) if schema == "v13" else ""
        required = {"None": False, "Reset": True}.get(action)
        gpus.append(
            {
                "index": index,
                "uuid": f"GPU-{draw(st.integers(0, 2**32 - 1)):08x}-0000-1111-2222-333333333333",
                "name": draw(NAME),
                "bus_id": f"{draw(st.integers(0, 65535)):04x}:{index:02x}:00.{draw(st.integers(0, 7))}",
                "serial": draw(st.sampled_from(["", "1650522003820"])),
                "product_architecture": draw(st.sampled_from(["Hopper", "Ampere", ""])),
                "compute_capability": "",
                "memory_total_mib": draw(MIB),
                "memory_used_mib": draw(MIB),
                "memory_reserved_mib": draw(MIB),
                "mig": draw(TRISTATE),
                "mig_devices": draw(st.integers(0, 7)),
                "ecc_mode": draw(TRISTATE),
                "ecc_uncorrected": draw(COUNT),
                "ecc_uncorrected_aggregate": draw(COUNT),
                "remap_pending": draw(TRISTATE),
                "remap_failure": draw(TRISTATE),
                "retired_pending": draw(TRISTATE),
                "recovery_action": action,
                "reset_required": draw(TRISTATE) if schema == "v12" else required,
                "persistence_mode": draw(TRISTATE),
                "temperature_c": draw(st.one_of(st.none(), st.integers(-40, 120))),
                "power_w": draw(st.one_of(st.none(), st.integers(0, 150_000).map(lambda hundredths: hundredths / 100))),
                "fabric_state": "" if schema == "v11" else draw(st.sampled_from(["", "Completed", "In Progress"])),
                "fabric_status": "" if schema == "v11" else draw(st.sampled_from(["", "Success"])),
                "fabric_health": draw(st.sampled_from(["", "Healthy"])) if schema == "v13" else "",
            }
        )
        for pid in draw(st.lists(st.integers(1, 2**22), max_size=3)):
            processes.append({"gpu_index": index, "pid": pid, "name": draw(NAME), "memory_mib": draw(MIB)})
    state = {"driver_version": "590.48.01", "cuda_version": "13.1", "gpus": gpus, "processes": processes}
    return schema, draw(st.booleans()), state


def sound(log: dict, text: str) -> None:
    """Assert what holds for any input: the form, and that no number is told that the text does not have."""
    assert set(log) == {
        "schema", "driver_version", "cuda_version", "whole", "gpus", "processes", "problems",
    }  # fmt: skip
    assert log["driver_version"] in text
    assert all(isinstance(problem, str) and "\n" not in problem for problem in log["problems"])
    for gpu in log["gpus"]:
        told = [(gpu[f"memory_{kind}_mib"], "MiB") for kind in ("total", "used", "reserved")]
        for value, unit in [*told, (gpu["temperature_c"], "C")]:
            assert value is None or re.search(rf"(?<![0-9])0*{value} {unit}", text)
        assert gpu["power_w"] is None or str(int(gpu["power_w"])) in text
        for key in ("mig", "ecc_mode", "remap_pending", "remap_failure", "retired_pending", "reset_required"):
            assert gpu[key] in (True, False, None)
        assert gpu["name"] == "" or gpu["name"].split()[0][:1]
    assert all(str(process["pid"]) in text for process in log["processes"])


# What is written is read ------------------------------------------------------------------------------------------


@given(drawn=states())
def test_every_schema_is_read_as_it_was_written(document, drawn):
    schema, old_card, state = drawn
    log = smi.parse_log(document(state, schema, old_card))
    assert log == {**state, "schema": schema, "whole": True, "problems": []}


def test_a_process_on_two_gpus_is_listed_for_both(document, make_state):
    processes = [{"gpu_index": gpu, "pid": 42, "name": "vllm", "memory_mib": 70000 + gpu} for gpu in (0, 1)]
    assert smi.parse_log(document(make_state(2, tuple(processes))))["processes"] == processes


def test_no_gpus_in_a_whole_document(document, make_state):
    log = smi.parse_log(document(make_state(0)))
    assert log["whole"] is True
    assert (log["gpus"], log["problems"]) == ([], [])


@pytest.mark.parametrize("name", ["v10", "v14", ""])
def test_a_schema_that_is_not_known_is_read_and_told(document, make_state, name):
    text = document(make_state()).replace("nvsmi_device_v13.dtd", f"nvsmi_device_{name}.dtd")
    log = smi.parse_log(text)
    assert log["schema"] == ""
    assert len(log["gpus"]) == 2
    assert "names " in log["problems"][0]


def test_a_count_that_differs_from_the_list_is_told(document, make_state):
    text = document(make_state()).replace("<attached_gpus>2<", "<attached_gpus>8<")
    log = smi.parse_log(text)
    assert len(log["gpus"]) == 2
    assert log["problems"] == ["nvidia-smi -q -x lists 2 GPUs where it counts '8' attached ones"]


# Cells that hold no value -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "is_problem"),
    [
        ("N/A", False), ("[N/A]", False), ("[Not Supported]", False), ("Not Supported", False),
        ("Requested functionality has been deprecated", False),
        ("Unknown Error", True), ("[Unknown Error]", True), ("ERR!", True), ("[GPU requires reset]", True),
        ("GPU requires reset", True), ("[GPU is lost]", True), ("[Insufficient Permissions]", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("<total>81559 MiB<", "memory_total_mib"), ("<current_mig>Disabled<", "mig"),
        ("<current_ecc>Enabled<", "ecc_mode"), ("<gpu_temp>30 C<", "temperature_c"),
        ("<remapped_row_pending>No<", "remap_pending"), ("<state>Completed<", "fabric_state"),
    ],
)  # fmt: skip
def test_a_cell_without_a_value(document, make_state, cell, is_problem, written, key):
    text = document(make_state(1)).replace(written, re.sub(">.*<", f">{cell}<", written))
    log = smi.parse_log(text)
    (gpu,) = log["gpus"]
    assert gpu[key] == ("" if key == "fabric_state" else None)
    assert gpu["reset_required"] is ("reset" in cell)
    assert bool(log["problems"]) is is_problem


@pytest.mark.parametrize(
    ("total", "kept"),
    [("80 GiB", None), ("81559", None), ("81559 MB", None), ("-1 MiB", None), ("8 1559 MiB", None), ("1e5 MiB", None)],
)
def test_memory_in_another_form_is_not_guessed(document, make_state, total, kept):
    log = smi.parse_log(document(make_state(1)).replace("<total>81559 MiB<", f"<total>{total}<"))
    assert log["gpus"][0]["memory_total_mib"] is kept
    assert total in log["problems"][0]


@pytest.mark.parametrize("word", ["enabled", "On", "Yes", "Pending"])
def test_a_word_that_is_not_known_is_neither_true_nor_false(document, make_state, word):
    log = smi.parse_log(document(make_state(1)).replace("<current_mig>Disabled<", f"<current_mig>{word}<"))
    assert log["gpus"][0]["mig"] is None
    assert word in log["problems"][0]


@pytest.mark.parametrize(
    ("counters", "total", "problems"),
    [
        ("<sram_uncorrectable>2</sram_uncorrectable><dram_uncorrectable>3</dram_uncorrectable>", 5, 0),
        ("<sram_uncorrectable>N/A</sram_uncorrectable><dram_uncorrectable>3</dram_uncorrectable>", 3, 0),
        ("<sram_uncorrectable>ERR!</sram_uncorrectable><dram_uncorrectable>3</dram_uncorrectable>", None, 1),
        ("<sram_uncorrectable>many</sram_uncorrectable><dram_uncorrectable>3</dram_uncorrectable>", None, 1),
        (
            "<sram_uncorrectable_parity>1</sram_uncorrectable_parity>"
            "<sram_uncorrectable_secded>2</sram_uncorrectable_secded><dram_uncorrectable>4</dram_uncorrectable>",
            7,
            0,
        ),
        ("<double_bit><device_memory>1</device_memory><total>6</total></double_bit>", 6, 0),
        ("<double_bit><device_memory>1</device_memory><total>N/A</total></double_bit>", None, 0),
        ("<sram_correctable>9</sram_correctable>", None, 0),
    ],
)
def test_uncorrected_errors_of_ecc(document, make_state, counters, total, problems):
    text = re.sub(r"<volatile>.*?</volatile>", f"<volatile>{counters}</volatile>", document(make_state(1)), flags=re.S)
    log = smi.parse_log(text)
    assert log["gpus"][0]["ecc_uncorrected"] == total
    assert len(log["problems"]) == problems


def test_errors_of_a_mig_device_are_not_those_of_the_gpu(document, make_state):
    inner = "<ecc_errors><volatile><sram_uncorrectable>5</sram_uncorrectable></volatile></ecc_errors></mig_device>"
    text = document(make_state(1, mig=True, mig_devices=2)).replace("</mig_device>", inner)
    assert smi.parse_log(text)["gpus"][0]["ecc_uncorrected"] == 0


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("<pending_blacklist>Yes</pending_blacklist><pending_retirement>N/A</pending_retirement>", True),
        ("<pending_blacklist>Yes</pending_blacklist><pending_retirement>No</pending_retirement>", True),
        ("<pending_blacklist>No</pending_blacklist>", False),
        ("<pending_retirement>Yes</pending_retirement>", True),
        ("<retired_count>0</retired_count>", None),
    ],
)
def test_retired_pages(document, make_state, tags, expected):
    text = document(make_state(1)).replace("<pending_retirement>N/A</pending_retirement>", tags)
    assert smi.parse_log(text)["gpus"][0]["retired_pending"] is expected


# Damage -----------------------------------------------------------------------------------------------------------


@given(drawn=states(), data=st.data())
def test_a_document_that_is_cut_short(document, drawn, data):
    schema, old_card, state = drawn
    text = document(state, schema, old_card)
    end = text.index("</nvidia_smi_log>") + len("</nvidia_smi_log>")
    log = smi.parse_log(text[: data.draw(st.integers(0, end - 1))])
    assert log["problems"]
    assert log["whole"] is False
    for gpu in log["gpus"]:
        assert gpu == state["gpus"][gpu["index"]]
    assert log["processes"] == [
        process for process in state["processes"] if process["gpu_index"] in {gpu["index"] for gpu in log["gpus"]}
    ]


@given(drawn=states(), data=st.data())
def test_a_document_whose_beginning_is_lost(document, drawn, data):
    schema, old_card, state = drawn
    text = document(state, schema, old_card)
    log = smi.parse_log(text[data.draw(st.integers(1, len(text))) :])
    assert log["problems"] or len(log["gpus"]) == len(state["gpus"])
    sound(log, text)


@given(drawn=states(most=3), data=st.data())
def test_bytes_that_flip(document, drawn, data):
    schema, old_card, state = drawn
    raw = bytearray(document(state, schema, old_card).encode())
    for position in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=8)):
        raw[position] ^= data.draw(st.integers(1, 255))
    text = raw.decode("utf-8", "replace")
    log = smi.parse_log(text)
    sound(log, text)
    assert log["problems"] or len(log["gpus"]) == len(state["gpus"])


@given(drawn=states(most=3), data=st.data())
def test_error_lines_between_the_lines(document, drawn, data):
    schema, old_card, state = drawn
    lines = document(state, schema, old_card).splitlines(keepends=True)
    for place in data.draw(st.lists(st.integers(0, len(lines)), min_size=1, max_size=4)):
        lines.insert(place, HANDLE_LINE)
    log = smi.parse_log("".join(lines))
    assert log == {**state, "schema": schema, "whole": True, "problems": []}
    assert smi.handle_errors("".join(lines)) == [{"bus_id": "0000:04:00.0", "reason": "Unknown Error"}]


@given(drawn=states(most=3), data=st.data())
def test_an_error_line_within_a_line(document, drawn, data):
    """A value that the line falls into is not told; what is told is true."""
    schema, old_card, state = drawn
    text = document(state, schema, old_card)
    place = data.draw(st.integers(0, len(text)))
    log = smi.parse_log(text[:place] + HANDLE_LINE + text[place:])
    by_address = {gpu["bus_id"]: gpu for gpu in state["gpus"]}
    for gpu in log["gpus"]:
        for key, value in gpu.items():
            # The line can hide the beginning of a GPU, and so move those after it up.
            told = value in (None, "") or key == "index"
            assert value == by_address[gpu["bus_id"]][key] or (told and log["problems"]), key
    names = {process["name"] for process in state["processes"]} | {""}
    assert all(process["name"] in names for process in log["processes"])
    pids = {process["pid"] for process in state["processes"]}
    assert all(process["pid"] in pids for process in log["processes"])


@pytest.mark.parametrize(
    ("tag", "key"), [("product_name", "name"), ("serial", "serial"), ("state", "fabric_state"), ("uuid", "uuid")]
)
@pytest.mark.parametrize("at_end", [True, False])
def test_an_error_line_within_a_text(document, make_state, tag, key, at_end):
    old, new = (f"</{tag}>", HANDLE_LINE + f"</{tag}>") if at_end else (f"<{tag}>", f"<{tag}>{HANDLE_LINE}")
    log = smi.parse_log(document(make_state(1)).replace(old, new))
    assert log["gpus"][0][key] == ""
    assert f"{tag} is " in log["problems"][0]


@given(text=st.text(max_size=300))
def test_any_text(text):
    wrapped = f"<nvidia_smi_log><gpu id='0000:01:00.0'>{text}</gpu></nvidia_smi_log>"
    for one in (text, wrapped):
        sound(smi.parse_log(one), one)
        assert smi.parse_log(one)["problems"]
        smi.parse_list(one)
        assert smi.parse_query(one, FIELDS)["bad_field"] == ""
        smi.failure(one)
        assert smi.handle_errors(one) == []


@given(raw=st.binary(max_size=300))
def test_any_bytes(raw):
    log = smi.parse_log("<nvidia_smi_log>" + raw.decode("utf-8", "replace"))
    assert log["gpus"] == []
    assert log["problems"]


BOMB = """<?xml version="1.0"?>
<!DOCTYPE nvidia_smi_log [
<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
]>
<nvidia_smi_log><driver_version>&c;</driver_version></nvidia_smi_log>
"""


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        BOMB.replace("<!ENTITY", "<!ELEMENT"),
        '<!ENTITY a "x"><nvidia_smi_log/>',
        '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd" [<!ATTLIST gpu id ID "x">]><nvidia_smi_log/>',
    ],
)
def test_documents_that_declare_something_are_refused(text):
    log = smi.parse_log(text)
    assert (log["gpus"], log["driver_version"], log["whole"]) == ([], "", False)
    assert log["problems"] == ["nvidia-smi -q -x printed a document that declares entities of its own; it is not read"]


def test_declarations_and_entities_within_the_document(document, make_state):
    text = document(make_state())
    for put in ('<!DOCTYPE x SYSTEM "file:///etc/passwd">', "&c;", "<![INCLUDE[", "</gpu>"):
        log = smi.parse_log(text.replace("<product_name>", put + "<product_name>", 1))
        assert log["whole"] is False
        assert [gpu["index"] for gpu in log["gpus"]] == [1]
        assert log["problems"]


def test_depth_without_end(document, make_state):
    deep = "<a>" * 1000 + "</a>" * 1000
    log = smi.parse_log(document(make_state()).replace("<product_name>", deep + "<product_name>", 1))
    assert [gpu["index"] for gpu in log["gpus"]] == [1]
    assert "more than 32 elements are nested" in log["problems"][0]


def test_output_without_end(document, make_state):
    text = document(make_state())
    log = smi.parse_log(text.replace("<gpu ", " " * 5_000_000 + "<gpu "))
    assert log["gpus"] == []
    assert "more than the 4194304 that are looked at" in log["problems"][0]
    for filler in ("<a>", "<gpu ", "<gpu id='x'></gpu>", "<process_name>", "<!DOCTYPE", "&", "\n", "<driver_version>"):
        log = smi.parse_log("<nvidia_smi_log>" + filler * (400_000 // len(filler)))
        assert log["gpus"] == []
        assert 0 < len(log["problems"]) <= 50
        assert max(map(len, log["problems"])) < 500


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("</gpu>\n\t<gpu", "<gpu", [1]),  # one GPU within another
        ("</gpu>\n\t<gpu", "</gpu></nvidia_smi_log><nvidia_smi_log><gpu", [0]),
        ('<gpu id="00000000:02:00.0">', '<gpu id="00000000:03:00.0">', [0]),  # two addresses in one GPU
        (":02:00.0", ":01:00.0", [0]),  # one address in two GPUs
        (":02:00.0", ":02:00", [0]),  # an address in another form
        ("<nvidia_smi_log>", "<nvidia_smi_log><wrong>", [0, 1]),
        ("<fb_memory_usage>", "<fb_memory_usage></fb_memory_usage><fb_memory_usage_>", []),
    ],
)
def test_wrong_nesting_and_contradictions(document, make_state, old, new, left):
    text = document(make_state())
    assert old in text
    log = smi.parse_log(text.replace(old, new))
    assert [gpu["index"] for gpu in log["gpus"]] == left
    assert log["problems"]


def test_a_gpu_without_its_main_parts(document, make_state):
    text = re.sub(r"<fb_memory_usage>.*?</fb_memory_usage>|<uuid>.*?</uuid>", "", document(make_state(1)), flags=re.S)
    log = smi.parse_log(text)
    (gpu,) = log["gpus"]
    assert (gpu["memory_total_mib"], gpu["memory_used_mib"], gpu["uuid"]) == (None, None, "")
    assert "uuid is nothing, fb_memory_usage/total is nothing, fb_memory_usage/used is nothing" in log["problems"][0]


@pytest.mark.parametrize(
    "name", ["a && b", "<script>", "x</process_name>y", "tab\x01bell\x07", "a&amp;b", "&lol;", "#&"]
)
def test_names_of_processes_that_are_no_xml(document, make_state, name):
    process = {"gpu_index": 0, "pid": 7, "name": "PLACE", "memory_mib": 5}
    log = smi.parse_log(document(make_state(1, (process,))).replace("PLACE", name))
    assert log["problems"] == []
    shown = name.replace("&amp;", "&").replace("\x01", "\ufffd").replace("\x07", "\ufffd")
    assert log["processes"] == [dict(process, name=shown)]


def test_a_process_that_cannot_be_read(document, make_state):
    processes = tuple({"gpu_index": 0, "pid": pid, "name": "x", "memory_mib": 5} for pid in (7, 8))
    text = document(make_state(1, processes)).replace("<pid>7<", "<pid>-7<").replace("5 MiB", "5 GiB")
    log = smi.parse_log(text)
    assert log["processes"] == [dict(processes[1], memory_mib=None)]
    assert len(log["problems"]) == 2


# Short outputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "address", "reason"),
    [
        ("for GPU3: 0000:04:00.0: Unknown Error", "0000:04:00.0", "Unknown Error"),
        ("for GPU 0000:05:00.0: GPU is lost.  Reboot the system", "0000:05:00.0", "GPU is lost. Reboot the system"),
        ("for GPU0000:65:00.0: Unknown Error", "0000:65:00.0", "Unknown Error"),
        ("for gpu 00000000:0A:00.0: Not Found.", "0000:0a:00.0", "Not Found"),
        ("for GPU12: 00010000:AF:1F.7: Unknown Error", "10000:af:1f.7", "Unknown Error"),
    ],
)
def test_gpus_that_cannot_be_opened(line, address, reason):
    text = f"x\nUnable to determine the device handle {line}\nUnable to determine the device handle {line}"
    assert smi.handle_errors(text) == [{"bus_id": address, "reason": reason}]
    assert smi.parse_list(text.partition("\n")[2])["problems"] == []


@pytest.mark.parametrize(
    "text", ["", "0000:01:00.0", "Unable to determine the device handle for GPU3", "for GPU3: 0000:04:00.0: Unknown"]
)
def test_no_gpu_is_made_up(text):
    assert smi.handle_errors(text) == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("00000000:01:00.0", "0000:01:00.0"), ("0000:AF:00.0", "0000:af:00.0"), (" 0000:01:00.0\n", "0000:01:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"), ("01:00.0", ""), ("0000:01:00", ""), ("0000:01:00.8", ""),
        ("xyz", ""), ("", ""), ("[N/A]", ""),
    ],
)  # fmt: skip
def test_addresses(written, read):
    assert smi.bus_id(written) == read


def test_list_with_mig():
    text = (
        f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {UUID})\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-00000000-0000-0000-0000-000000000000)\n"
        "  MIG 1g.10gb+me  Device  1: (UUID: MIG-GPU-00000001-0000-0000-0000-000000000001/9/0)\n"
        f"{HANDLE_LINE}GPU 4: NVIDIA H200 (UUID: {UUID.replace('1', 'a')})\n"
    )
    assert smi.parse_list(text) == {
        "gpus": [
            {"index": 0, "name": "NVIDIA H100 80GB HBM3", "uuid": UUID, "mig_devices": 2},
            {"index": 4, "name": "NVIDIA H200", "uuid": UUID.replace("1", "a"), "mig_devices": 0},
        ],
        "problems": [],
    }


@pytest.mark.parametrize(
    "line",
    ["GPU 0: NVIDIA H100", f"GPU 0: H100 (UUID: {UUID}", f"GPU x: H100 (UUID: {UUID})", "  MIG 1g", "No devices found"],
)
def test_list_lines_that_are_no_gpu(line):
    listed = smi.parse_list(line)
    assert listed["gpus"] == []
    assert len(listed["problems"]) == 1


def test_query():
    text = f"0, {UUID}, 00000000:01:00.0, 9.0\n{HANDLE_LINE}4, [Unknown Error], 00000000:AF:00.0, [N/A]\n\n"
    assert smi.parse_query(text, FIELDS) == {
        "rows": [
            {"index": 0, "uuid": UUID, "pci.bus_id": "0000:01:00.0", "compute_cap": "9.0"},
            {"index": 4, "uuid": None, "pci.bus_id": "0000:af:00.0", "compute_cap": None},
        ],
        "bad_field": "",
        "problems": [],
    }


def test_query_of_a_field_that_is_not_known():
    text = 'Field "compute_cap" is not a valid field to query.\n\n'
    assert smi.parse_query(text, FIELDS) == {"rows": [], "bad_field": "compute_cap", "problems": []}


@pytest.mark.parametrize(
    "line",
    [
        f"0, {UUID}, 00000000:01:00.0", f"x, {UUID}, 00000000:01:00.0, 9.0", f"0, {UUID[:-1]}, 00000000:01:00.0, 9.0",
        f"0, {UUID}, 01:00.0, 9.0", f"0, {UUID}, 00000000:01:00.0, nine", f"0, {UUID}, 00000000:01:00.0, 9.0, more",
        "No devices were found", "\x00\x01",
    ],
)  # fmt: skip
def test_query_lines_that_are_no_row(line):
    query = smi.parse_query(line, FIELDS)
    assert query["rows"] == []
    assert len(query["problems"]) == 1


@pytest.mark.parametrize(
    ("text", "kind", "version"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure", "not_loaded", ""),
        ("Failed to initialize NVML: Driver Not Loaded", "not_loaded", ""),
        ("Failed to initialize NVML: Driver/library version mismatch", "mismatch", ""),
        (
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.126\n",
            "mismatch",
            "580.126",
        ),
        ("No devices were found\n", "no_devices", ""),
        ("Failed to initialize NVML: Unknown Error", "nvml", ""),
        ("Failed to initialize NVML: Insufficient Permissions", "nvml", ""),
        ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure", "no_library", ""),
        ("Unable to determine the device handle for GPU 0000:05:00.0: GPU is lost.  Reboot the system", "lost", ""),
        (HANDLE_LINE, "handle", ""),
    ],
)
def test_failures(text, kind, version):
    failed = smi.failure("some line\n" + text)
    assert (failed["kind"], failed["library_version"]) == (kind, version)
    assert failed["said"] == text.partition("\n")[0]
    assert failed["remedy"]


@pytest.mark.parametrize("text", ["", "no devices", "NVIDIA-SMI 535.104.05", "command not found"])
def test_no_failure(text):
    assert smi.failure(text) is None


def test_warnings():
    text = "WARNING: infoROM is corrupted at gpu 0000:AF:00.0\n" * 3
    assert smi.warnings(text) == ["nvidia-smi warns that the infoROM of the GPU 0000:af:00.0 is corrupted"]
    assert smi.warnings("all is well") == []
