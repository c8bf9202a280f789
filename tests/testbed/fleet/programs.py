# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs programs of the machine for the fleet, and tells processes apart for sure."""

from __future__ import annotations

import subprocess

from .errors import FleetError


def run(argv: list[str], stdin: str = "", timeout: float = 60, keep: tuple[int, ...] = ()) -> str:
    """Return what ``argv`` prints; raise FleetError with its own words when it fails.

    ``keep`` are descriptors that the program inherits: a lock stays held until it ends, even if this process is killed.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, pass_fds=keep
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"{argv[0]} cannot be run: {error}") from error
    if done.returncode:
        raise FleetError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def started(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name, in parentheses, can hold anything; state is field 3 and starttime field 22 (proc(5)).
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
