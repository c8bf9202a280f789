# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check that reads files only. All of them run, whatever the first one says."""

from __future__ import annotations

import sys

import artefact
import sanity
import system_packages
from common import BIN, run, say
from steps import Step, failed, run_all, summary


def command(name: str, *arguments: str) -> Step:
    return Step(" ".join([name, *arguments]), lambda: run(BIN / name, *arguments))


STEPS = [
    command("ruff", "check"),
    command("ruff", "format", "--check"),
    command("yamllint", "--strict", "."),
    command("ansible-lint", "--strict"),
    command("antsibull-changelog", "lint"),
    command("antsibull-docs", "lint-collection-docs", "--plugin-docs", "."),
    Step("archive of the collection", artefact.main),
    Step("ansible-test sanity", lambda: sanity.main([])),
]


def main() -> int:
    system_packages.main("lint")
    results = run_all("lint", STEPS)
    say(summary("lint", results))
    return 1 if failed(results) else 0


if __name__ == "__main__":
    sys.exit(main())
