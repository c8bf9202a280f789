# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All tests; a failure stops nothing after it.

Two lanes go beside each other: most of either waits for hosts and engines. What measures time and links has the machine
to itself; it comes last, and its count closes the output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import system_packages
from common import BIN, run, say
from steps import Command, failed, run_beside, summary

TOOLS = Path(__file__).resolve().parent
INTEGRATION = "tests/integration"
ENGINE = tuple(f"{INTEGRATION}/test_{name}.py" for name in ("containers_bed", "deploy_local", "real_parsers"))
FAMILIES = (f"{INTEGRATION}/test_deploy_families.py",)
LANES = (
    (
        Command("lint", (sys.executable, TOOLS / "lint.py")),
        Command("docs", (sys.executable, TOOLS / "docs.py")),
        Command("units", (BIN / "pytest", "tests/unit", "-n", "auto")),
        Command("engine", (BIN / "pytest", *ENGINE)),
    ),
    (
        Command("molecule", (sys.executable, TOOLS / "scenarios.py")),
        Command("families", (BIN / "pytest", *FAMILIES)),
    ),
)


def main() -> int:
    # First, so that a missing package is told at once and not after the linters.
    for purpose in system_packages.PURPOSES:
        if purpose != "comparison":
            system_packages.main(purpose)
    results = run_beside("test", LANES)
    say(summary("test, before what is alone", results))
    status = run(BIN / "pytest", INTEGRATION, *(f"--ignore={path}" for path in (*ENGINE, *FAMILIES)))
    if names := failed(results):
        say(f"\nfailed before: {', '.join(names)}")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
