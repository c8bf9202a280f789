# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For the tests of the testbed: ways to ask an emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.tests.testbed import states
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import hccn_tool, npu_smi, nvidia_smi
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import state as emulated

EMULATORS = Path(states.__file__).resolve().parent / "emulators"
ANSWERS = {"npu-smi": npu_smi.answer, "hccn_tool": hccn_tool.answer, "nvidia-smi": nvidia_smi.answer}


@pytest.fixture
def say(monkeypatch):
    """Function that asks an emulator inside this process: say(program, state, *arguments) -> Answer."""
    monkeypatch.setenv(hccn_tool.UID_VARIABLE, "0")

    def ask(program: str, state: dict, *arguments: str, **fault):
        tool = program.replace("-", "_")
        complete = emulated.validate({**state, "faults": {tool: fault}})
        return ANSWERS[program](complete, list(arguments), complete["faults"][tool])

    return ask


@pytest.fixture
def tell(tmp_path):
    """Function that writes a state to where `run` finds it, and returns that path."""
    path = tmp_path / "state.json"

    def write(state: dict) -> Path:
        path.write_text(json.dumps(state), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(tmp_path):
    """Function that starts an emulator as a program, on the state that `tell` wrote."""

    def start(program: str, *arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess:
        settings = {emulated.VARIABLE: str(tmp_path / "state.json"), hccn_tool.UID_VARIABLE: "0", **environment}
        return subprocess.run(
            [sys.executable, str(EMULATORS / program), *arguments],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    return start
