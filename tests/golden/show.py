# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print plans in the form of the golden files, to be read line by line. It writes no file: what is agreed to is copied.

.venv/bin/python tests/golden/show.py                    the names
.venv/bin/python tests/golden/show.py NAME               the plan of one
.venv/bin/python tests/golden/show.py --diff [NAME ...]  what differs from the golden files
"""

from __future__ import annotations

import difflib
import sys

from ansible_collections.baremetal.llm.tests.golden import machines


def difference(name: str) -> str:
    """Return the lines in which the golden file of ``name`` and its plan differ, empty for none."""
    file = machines.HERE / f"{name}.yml"
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    new = machines.written(machines.golden(machines.plan(name)))
    found = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"golden {name}", f"plan of {name}", n=2, lineterm=""
    )
    return "\n".join(found)


def main(arguments: list[str]) -> None:
    names = [name for name in arguments if name != "--diff"]
    if not arguments:
        print("\n".join(machines.DEPLOYMENTS))
    for name in names or (list(machines.DEPLOYMENTS) if arguments else []):
        shown = difference(name) if "--diff" in arguments else machines.written(machines.golden(machines.plan(name)))
        print(shown, end="\n" if "--diff" in arguments and shown else "")


if __name__ == "__main__":
    main(sys.argv[1:])
