# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs programs on a host without ssh: inside the namespaces and the root of its process 1."""

from __future__ import annotations

import os
import subprocess

from .errors import FleetError
from .programs import started

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}


def is_up(host: dict) -> bool:
    """True when the process 1 of a host of fleet.json is the one that was started.

    Its start is None when it had ended before anybody could ask.
    """
    return host["started"] is not None and started(host["pid"]) == host["started"]


def run_on(host: dict, argv: list[str], timeout: float = 60, feed: str = os.devnull) -> subprocess.CompletedProcess:
    """Run ``argv`` on ``host``, an entry of ``hosts()``; return what it did or raise FleetError when it cannot run.

    :param feed: a file of the machine that the command reads as its input; hosts do not see all folders
    """
    if not is_up(host):
        raise FleetError(f"host {host['name']} is not up")
    # The user namespace is the machine's own, so --all, which would enter that too, is not used.
    entered = ["nsenter", "-t", str(host["pid"]), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", *argv]
    try:
        with open(feed, "rb") as given:
            return subprocess.run(
                entered,
                stdin=given,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env=ENVIRONMENT,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"{argv[0]} cannot be run on {host['name']}: {error}") from error
