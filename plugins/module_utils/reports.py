# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports: one JSON file a stage, and one page over all of them."""

from __future__ import annotations

import os
import time

from . import atomic
from .report_page import render

STAGES = ("discover", "plan", "preflight", "prepare", "weights", "launch", "accept", "expose")
FORMAT = 1


def stage_report(deployment: str, stage: str, passed: bool, started: float, data: dict) -> dict:
    """Return the report of a stage that ends now; ``data`` is what the stage found or did."""
    now = time.time()
    return {
        "format": FORMAT,
        "deployment": deployment,
        "stage": stage,
        "passed": passed,
        "started": _clock(started),
        "finished": _clock(now),
        "seconds": round(max(0.0, now - started), 3),
        **data,
    }


def _clock(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def write(folder: str, report: dict, really: bool = True) -> tuple[str, str]:
    """Write ``report`` and the page; return (path of the report, path of the page).

    The page shows the stages up to this one: what lies there of later stages is from an earlier run.
    """
    target = os.path.join(folder, report["deployment"])
    path, page = os.path.join(target, report["stage"] + ".json"), os.path.join(target, "index.html")
    if really:
        os.makedirs(target, mode=0o750, exist_ok=True)
        atomic.write_json(path, report, 0o640)
        atomic.write_text(page, render(read(target, report["stage"])), 0o640)
    return path, page


def read(target: str, upto: str) -> list[dict]:
    """Return the stage reports in ``target`` in the order of the stages, the stage ``upto`` being the last."""
    names = STAGES[: STAGES.index(upto) + 1]
    reports = (atomic.read_json(os.path.join(target, name + ".json")) for name in names)
    return [report for report in reports if report]
