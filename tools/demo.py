# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the main job with the embedded default on this machine, and undoes it.

Usage: demo.py start|stop
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

import system_packages
from common import BIN, ROOT, run, say

STATE = ROOT / ".demo"
INVENTORY = "inventories/local"
REPORTS = ROOT / "reports" / "local"


def play(playbook: str, *arguments: str) -> int:
    return run(BIN / "ansible-playbook", f"playbooks/{playbook}", "-i", INVENTORY, *arguments)


def report(stage: str) -> dict:
    return json.loads((REPORTS / f"{stage}.json").read_text(encoding="utf-8"))


def start() -> int:
    say("The first run installs the engine (vLLM for CPU, 2 GB) into .demo/ and takes some minutes.")
    system_packages.main("engine")
    status = play("deploy_local.yml")
    if status:
        say(f"\nreport: {REPORTS / 'index.html'}")
        return status
    accepted = report("accept")
    say(f"\nendpoint: {accepted['endpoint']}")
    say(f"model: {accepted['model']}")
    say(f"answer: {accepted['answers'][0]['found']}")
    say(f"report: {REPORTS / 'index.html'}")
    return 0


def remove_empty_folders() -> None:
    """What stop.yml leaves of .demo/, which the demo has made: folders without a file."""
    for folder, _folders, _files in os.walk(STATE, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def stop() -> int:
    status = play("stop.yml", "-e", "llm_remove=true")
    if status == 0:
        remove_empty_folders()
        say("\nThe demo is stopped and what it installed is deleted; its reports stay in reports/local/.")
    return status


if __name__ == "__main__":
    sys.exit({"start": start, "stop": stop}[sys.argv[1]]())
