# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs named steps, one after another or in lanes beside each other, whatever others said, and sums them up."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from common import ROOT, environment, say


class Step(NamedTuple):
    name: str
    run: Callable[[], int]


class Command(NamedTuple):
    name: str
    argv: tuple[str | Path, ...]


class Result(NamedTuple):
    name: str
    status: int
    seconds: float


def run_all(title: str, steps: Sequence[Step]) -> list[Result]:
    results = []
    for step in steps:
        say(f"\n==> {title}: {step.name}")
        started = time.monotonic()
        status = step.run()
        results.append(Result(step.name, status, time.monotonic() - started))
    return results


def run_beside(title: str, lanes: Sequence[Sequence[Command]]) -> list[Result]:
    """Run the commands of each lane one after another, the lanes at once; show what each has said when it has ended."""
    whole = threading.Lock()

    def go(lane: Sequence[Command]) -> list[Result]:
        return [_run_quietly(title, command, whole) for command in lane]

    with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        return [result for results in pool.map(go, lanes) for result in results]


def _run_quietly(title: str, command: Command, whole: threading.Lock) -> Result:
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        argv = [str(part) for part in command.argv]
        status = subprocess.run(
            argv, cwd=ROOT, env=environment(NO_COLOR="1"), stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
        output.seek(0)
        with whole:
            say(f"\n==> {title}: {command.name}\n{output.read()}")
    return Result(command.name, status, time.monotonic() - started)


def summary(title: str, results: Sequence[Result]) -> str:
    width = max(len(result.name) for result in results)
    lines = [f"\n{title}:"]
    for result in results:
        verdict = "ok" if result.status == 0 else "FAILED"
        lines.append(f"  {result.name:<{width}}  {result.seconds:6.1f} s  {verdict}")
    return "\n".join(lines)


def failed(results: Sequence[Result]) -> list[str]:
    return [result.name for result in results if result.status != 0]
