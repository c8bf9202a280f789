# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs named steps one after another, whatever the one before said, and sums them up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from common import say


class Step(NamedTuple):
    name: str
    run: Callable[[], int]


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


def summary(title: str, results: Sequence[Result]) -> str:
    width = max(len(result.name) for result in results)
    lines = [f"\n{title}:"]
    for result in results:
        verdict = "ok" if result.status == 0 else "FAILED"
        lines.append(f"  {result.name:<{width}}  {result.seconds:6.1f} s  {verdict}")
    return "\n".join(lines)


def failed(results: Sequence[Result]) -> list[str]:
    return [result.name for result in results if result.status != 0]
