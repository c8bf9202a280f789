# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the three emulators have in common: state, faults, and the list of changes that somebody asked for."""

from __future__ import annotations

import copy
import os
import sys
import time
from typing import NamedTuple

from . import state as states

# Status of a program that was asked for something its authors forbid on this testbed.
REFUSED = 1
# Status of an emulator that cannot work at all; as sysexits.h has it for an internal error.
BROKEN = 70
# What a shell answers for a program that is not there.
MISSING = 127
# Bytes that are no UTF-8 and no text.
BINARY = bytes(range(256)) * 8
# Line that fills an output nobody stops.
FLOOD = "[WARN] driver log line without meaning, repeated without end\n"


class Answer(NamedTuple):
    """What a program prints and how it ends; ``again`` is printed every second, for ever."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0
    again: str = ""


class Refused(Exception):
    """Raised for a call that would change a device."""


def run(tool: str, answer, arguments: list) -> int:
    """Answer one call of ``tool`` by ``answer(state, arguments, fault)`` and return the exit status."""
    path = states.find(os.environ)
    try:
        state = states.load(path)
    except states.StateError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return BROKEN
    fault = fault_of(state, tool, arguments)
    if fault["missing"]:
        print(f"{tool.replace('_', '-')}: command not found", file=sys.stderr)
        return MISSING
    if fault["vanish"] and _calls(path, tool) > fault["vanish"]["after_calls"]:
        fault["lost"] = [*fault["lost"], fault["vanish"]["npu_id"]]
    try:
        said = answer(state, arguments, fault)
    except Refused:
        return _refuse(path, tool, arguments)
    return _print(said, fault)


def fault_of(state: dict, tool: str, arguments: list) -> dict:
    """Return the fault that this call meets; all its keys are there, harmless where none is set."""
    fault = state["faults"][tool]
    if fault is None or fault["when"] not in " ".join(arguments):
        return states.validate({"faults": {tool: {}}})["faults"][tool]
    return copy.deepcopy(fault)


def _calls(path: str, tool: str) -> int:
    """Return the number of this call, counted in a file beside the state."""
    counter = f"{path}.{tool}.calls"
    with open(counter, "a+", encoding="ascii") as stream:
        stream.write(".")
        return stream.tell()


def _refuse(path: str, tool: str, arguments: list) -> int:
    with open(f"{path}.changes", "a", encoding="utf-8") as stream:
        stream.write(" ".join([tool, *arguments]) + "\n")
    print("testbed: this call would change a device; it was written down and refused", file=sys.stderr)
    return REFUSED


def _print(said: Answer, fault: dict) -> int:
    if fault["hang"]:
        time.sleep(fault["hang"])
    stdout = said.stdout if fault["stdout"] is None else fault["stdout"]
    if fault["interleave"]:
        stdout = _interleave(stdout, fault["interleave"])
    raw = BINARY if fault["binary"] else stdout.encode("utf-8")
    if fault["flood"]:
        raw += FLOOD.encode("ascii") * (fault["flood"] // len(FLOOD) + 1)
    if fault["truncate"] is not None:
        raw = raw[: fault["truncate"]]
    sys.stderr.write(said.stderr + fault["stderr"])
    sys.stderr.flush()
    try:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        while said.again and fault["truncate"] is None:
            sys.stdout.buffer.write(said.again.encode("utf-8"))
            sys.stdout.buffer.flush()
            time.sleep(1)
    except (BrokenPipeError, KeyboardInterrupt):
        # The reader has enough; the descriptor is replaced so that the interpreter does not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return said.code if fault["exit"] is None else fault["exit"]


def _interleave(text: str, line: str) -> str:
    """Put ``line`` before the first line and after every second one, as a program does that shares a stream."""
    lines = text.splitlines(keepends=True)
    out = [line.rstrip("\n") + "\n"]
    for number, original in enumerate(lines, 1):
        out.append(original)
        if number % 2 == 0:
            out.append(out[0])
    return "".join(out)
