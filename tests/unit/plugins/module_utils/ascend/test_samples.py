# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds the parsers against recorded outputs, where a machine has them; expectations.yml was checked by hand."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.baremetal.llm.plugins.module_utils.ascend import files, hccn, npu_smi

ROOT = Path(__file__).resolve().parents[5]
SAMPLES = Path(os.environ.get("LLM_SAMPLES") or ROOT.parent / "shared" / "samples") / "ascend"
EXPECTED = yaml.safe_load(Path(__file__).with_name("expectations.yml").read_text(encoding="utf-8"))
THERE = sorted(path.name for path in SAMPLES.glob("*") if not path.name.startswith("INDEX."))
PRESENT = [name for name in THERE if name in EXPECTED]
# Recorded for others: pages of exporters and libraries, and commands that are not read here.
NOT_READ = re.compile(
    r"gpustack__|npu-exporter__|npu-smi_info_watch|npu-smi_info_-t_(ecc|power|temp|topo)"
    r"|hccn_tool_-(fec|lldp|link_stat|optical|route|stat)_|hccn_tool_-tls_-s"
)
UNREAD = [name for name in THERE if NOT_READ.match(name)]
TEXT_PARSERS = {
    "map": npu_smi.parse_map,
    "list": npu_smi.parse_list,
    "common": npu_smi.parse_common,
    "usages": npu_smi.parse_usages,
    "memory": npu_smi.parse_memory,
    "product": npu_smi.parse_product,
    "health": npu_smi.parse_health,
    "failure": npu_smi.failure,
    "link": hccn.link,
    "net_health": hccn.net_health,
    "ip": hccn.ip,
    "gateway": hccn.gateway,
    "netdetect": hccn.netdetect,
    "tls": hccn.tls,
    "ping": hccn.ping,
    "conf": hccn.parse_conf,
    "info": files.parse_info,
    "install": files.parse_install,
}


def table(text: str) -> dict:
    """What parse_table tells, with one line for each chip and each process."""
    told = npu_smi.parse_table(text)
    assert all(set(chip) == set(told["chips"][0]) for chip in told["chips"])
    keys = ("npu_id", "chip_id", "device", "phy_id", "name", "health", "power_w", "temperature_c", "bus_id")
    keys += ("aicore_percent", "memory_kind", "memory_used_mib", "memory_total_mib")
    rows = [" ".join("-" if chip[key] is None else str(chip[key]) for key in keys) for chip in told["chips"]]
    processes = [" ".join(str(value) for value in process.values()) for process in told["processes"]]
    return dict(told, chips=rows, processes=processes)


def board(text: str) -> dict:
    """What parse_board tells, without what is empty."""
    return {key: value for key, value in npu_smi.parse_board(text).items() if value not in ("", None)}


def pci(text: str, root: Path) -> list[dict]:
    """What the reader of the bus finds in a tree made of what lspci printed."""
    for slot, device in re.findall(r"^(\S+) Processing accelerators: .* Device (\w{4})", text, re.M):
        folder = root / "sys" / "bus" / "pci" / "devices" / f"0000:{slot}"
        folder.mkdir(parents=True)
        for name, value in (("vendor", "0x19e5"), ("device", f"0x{device}"), ("class", "0x120000")):
            (folder / name).write_text(value + "\n", encoding="ascii")
    return files.pci(str(root))


def nodes(text: str, root: Path) -> dict:
    """What the reader of device nodes finds in a tree made of what ls printed."""
    (root / "dev").mkdir()
    for name in text.split():
        (root / "dev" / name).touch()
    return files.device_nodes(str(root))


@pytest.mark.parametrize("name", PRESENT)
def test_sample(name, tmp_path):
    text = (SAMPLES / name).read_bytes().decode("utf-8", "replace")
    for parser, expected in EXPECTED[name].items():
        if parser in ("pci", "nodes"):
            told = {"pci": pci, "nodes": nodes}[parser](text, tmp_path)
        else:
            told = {**TEXT_PARSERS, "table": table, "board": board}[parser](text)
        # YAML and JSON know no whole numbers as keys.
        assert json.loads(json.dumps(told)) == json.loads(json.dumps(expected)), parser


def test_every_sample_has_an_expectation():
    assert set(THERE) - set(EXPECTED) - set(UNREAD) == set()
    assert set(EXPECTED) & set(UNREAD) == set()


@pytest.mark.parametrize("name", UNREAD)
def test_what_others_print_is_no_answer(name):
    text = (SAMPLES / name).read_bytes().decode("utf-8", "replace")
    told = npu_smi.parse_table(text)
    assert (told["chips"], told["processes"], told["problems"]) == ([], [], [])
    assert npu_smi.parse_map(text)["chips"] == []
    assert npu_smi.parse_list(text)["total"] is None
    assert [TEXT_PARSERS[key](text) for key in ("failure", "link", "net_health", "gateway", "netdetect", "tls")] == [
        None
    ] * 6
    assert hccn.ip(text) == {"ip": None, "netmask": None}
    assert hccn.ping(text)["sent"] is None
    for key in ("common", "usages", "memory", "product", "health", "info", "conf"):
        assert isinstance(TEXT_PARSERS[key](text), dict)
    assert board(text).get("software_version") is None
