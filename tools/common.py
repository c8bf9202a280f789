# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools beside this file share: where things are, and how a command is run and an error is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
BIN = ROOT / ".venv" / "bin"


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment with the virtual environment's commands first: the tools call one another by name."""
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **extra}
    if not sys.stdout.isatty():
        # Some of the tools colour what goes into a file, too.
        env.setdefault("NO_COLOR", "1")
    return env


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> int:
    """Runs a command with its output where the caller's goes, and returns its status."""
    return subprocess.run([str(part) for part in command], cwd=cwd, env=env or environment(), check=False).returncode


def say(text: str) -> None:
    print(text, flush=True)


def fail(what: str, *, wanted: str, found: str, remedy: str) -> None:
    sys.exit(f"error: {what}\n  wanted: {wanted}\n  found: {found}\n  remedy: {remedy}")


def source_files() -> list[str]:
    """Paths of what is in git or would be: the tree without anything that is made in it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        fail("cannot list the files of the project", wanted="a git clone", found=str(error), remedy="clone it with git")
    return sorted({path for path in listing.split("\0") if path and os.path.lexists(ROOT / path)})
