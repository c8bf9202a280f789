# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs every molecule scenario."""

from __future__ import annotations

import sys

import system_packages
from common import BIN, CACHE, ROOT, environment, run, say


def main() -> int:
    scenarios = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    if not scenarios:
        say("no scenario under molecule/")
        return 0
    for purpose in ("hosts", "docker", "engine"):
        system_packages.main(purpose)
    say(f"scenarios: {', '.join(scenarios)}")
    # molecule keeps its state under Ansible's home; and unless told where scenarios are it wants them elsewhere.
    env = environment(ANSIBLE_HOME=str(CACHE / "molecule"), MOLECULE_GLOB="molecule/*/molecule.yml")
    return run(BIN / "molecule", "test", "--all", "--report", "--command-borders", env=env)


if __name__ == "__main__":
    sys.exit(main())
