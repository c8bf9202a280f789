# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers that an emulator gives to the usual questions, written down beforehand.

Hosts of a large fleet share the cores of one machine: there the start of a Python for each question would cost more
than all that is tested. Only whole answers without a fault are kept, and only root may read them, as hccn_tool wants.
"""

from __future__ import annotations

import os

from . import hccn_tool, npu_smi, program
from . import state as states

HCCN_QUESTIONS = ("-link", "-net_health", "-ip", "-gateway", "-netdetect", "-tls")
PACKETS = "3"


def remember(state: dict, root: str) -> None:
    """Write the answers of the host ``state`` below ``root``, where the emulators on it look for them."""
    state = states.validate(state)
    folder = os.path.join(root, states.PATH.lstrip("/") + ".said")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if state["ascend"] is None:
        return
    for tool, name, answer, questions in (
        ("npu_smi", "npu-smi", npu_smi.answer, _of_npu_smi(state["ascend"])),
        ("hccn_tool", "hccn_tool", hccn_tool.answer, _of_hccn_tool(state)),
    ):
        if state["faults"][tool] is None:
            _write(folder, tool, name, answer, state, questions)


def _write(folder: str, tool: str, name: str, answer, state: dict, questions: list) -> None:
    fault = program.fault_of(state, tool, [])
    for question in questions:
        said = answer(state, question, fault)
        if said.code == 0 and not said.stderr and not said.again:
            path = os.path.join(folder, " ".join([name, *question]))
            with open(path, "w", encoding="utf-8", opener=_private) as stream:
                stream.write(said.stdout)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o400)


def _of_npu_smi(ascend: dict) -> list:
    cards = dict.fromkeys(str(chip["npu_id"]) for chip in ascend["chips"])
    boards = [["info", "-t", kind, "-i", card] for card in cards for kind in ("board", "product")]
    return [["info"], ["info", "-m"], *boards]


def _of_hccn_tool(state: dict) -> list:
    devices = [str(device["phy_id"]) for device in state["ascend"]["network"]]
    asked = [["-i", device, question, "-g"] for device in devices for question in HCCN_QUESTIONS]
    pings = [
        ["-i", device, "-ping", "-g", "address", address, "pkt", PACKETS]
        for device in devices
        for address in state["fabric"]
    ]
    return asked + pings
