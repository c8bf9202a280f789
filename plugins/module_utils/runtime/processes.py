# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What /proc tells of the processes of a deployment, in containers too: the host sees them all."""

from __future__ import annotations

import os
import re

# Every process of a deployment has it, with the path of the run folder, in the environment it was started with.
RUN_VARIABLE = "BAREMETAL_LLM_RUN"


def marked(run_dir: str) -> list[int]:
    """Return the pids of the living processes that were started with the mark of ``run_dir``."""
    mark = f"{RUN_VARIABLE}={run_dir}".encode()
    return [pid for pid in _pids() if mark in _read(f"/proc/{pid}/environ").split(b"\0") and not is_zombie(pid)]


def arguments(pid: int) -> list[str]:
    """Return the words of a process's command line."""
    return os.fsdecode(_read(f"/proc/{pid}/cmdline")).split("\0")


def is_zombie(pid: int) -> bool:
    """True for a process that has ended, reaped or not."""
    fields = _stat_fields(pid)
    return not fields or fields[0] in (b"Z", b"X")


def parent(pid: int) -> int:
    """Return the pid of the parent, 0 where there is none."""
    fields = _stat_fields(pid)
    return int(fields[1]) if len(fields) > 1 else 0


def start_ticks(pid: int) -> int:
    """Return when the process was started in clock ticks since the boot, the same in every pid namespace; 0 if gone."""
    fields = _stat_fields(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def inner_pid(pid: int) -> int:
    """Return the number by which the process is known in its own pid namespace, 0 when it is gone."""
    found = re.search(rb"^NSpid:.*?(\d+)$", _read(f"/proc/{pid}/status"), re.M)
    return int(found.group(1)) if found else 0


def pss_bytes(pid: int) -> int:
    """Return the resident memory of a process; pages that several share count by their part."""
    found = re.search(rb"^Pss:\s+(\d+) kB", _read(f"/proc/{pid}/smaps_rollup"), re.M)
    return int(found.group(1)) * 1024 if found else 0


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the command's name, which may itself hold blanks and brackets."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
