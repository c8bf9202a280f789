# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All tests, by cost, pytest last: its count closes the output. A failure stops nothing that comes after it."""

from __future__ import annotations

import sys

import docs
import lint
import scenarios
import system_packages
from common import BIN, run, say
from steps import Step, failed, run_all, summary


def main() -> int:
    # First, so that a missing package is told at once and not after the linters.
    for purpose in system_packages.PURPOSES:
        if purpose != "comparison":
            system_packages.main(purpose)
    results = run_all("test", [Step("lint", lint.main), Step("docs", docs.main), Step("molecule", scenarios.main)])
    say(summary("test, before pytest", results))
    status = run(BIN / "pytest")
    if names := failed(results):
        say(f"\nfailed before pytest: {', '.join(names)}")
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
