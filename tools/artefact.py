# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the archive of the collection, holds it against what is in git, and reads it as its users' tools do."""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from common import BIN, environment, run, say, source_files

WRITTEN_BY_THE_BUILD = {"MANIFEST.json", "FILES.json"}
NEEDED = ["README.md", "COPYING", "CHANGELOG.md", "meta/runtime.yml", "meta/execution-environment.yml"]


def build(folder: Path) -> Path | None:
    if run(BIN / "ansible-galaxy", "collection", "build", "--output-path", folder):
        return None
    return next(folder.glob("*.tar.gz"))


def problems_of(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        files = {member.name for member in opened.getmembers() if not member.isdir()}
    problems = [
        f"{path} is in the archive and not in git: add it to build_ignore in galaxy.yml, or to git"
        for path in sorted(files - set(source_files()) - WRITTEN_BY_THE_BUILD)
    ]
    problems += [f"{path} is not in the archive" for path in NEEDED if path not in files]
    say(f"{len(files)} files")
    return problems


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = build(folder)
        if archive is None:
            return 1
        problems = problems_of(archive)
        for problem in problems:
            say(f"error: {problem}")
        # Offline: the dependencies in galaxy.yml have to be met by what the ansible package brings.
        into_folder = environment(ANSIBLE_COLLECTIONS_PATH=str(folder))
        statuses = [
            run(BIN / "ansible-galaxy", "collection", "install", "--offline", "--force", archive, env=into_folder),
            run(BIN / "ansible-builder", "introspect", "--sanitize", folder),
        ]
    return 1 if problems or any(statuses) else 0


if __name__ == "__main__":
    sys.exit(main())
