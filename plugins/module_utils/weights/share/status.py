# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processes that share weights say of themselves, in small files that others may read at any time."""

from __future__ import annotations

import contextlib
import json
import os
import stat

from ... import atomic
from ...errors import LlmError
from .. import tree

# In the order in which a worker goes through them; a worker that cannot go on is in "failed" instead.
STATES = ("checking", "sharing", "placing", "complete")
FAILED = "failed"
ENDED = ("complete", FAILED)

# What the agent says of itself: {pid, started, boot, finished}.
AGENT = "agent.json"
# Text that the seed puts down, by which others know that they see the same file system.
MARK = "token"
LOG = "agent.log"

_COUNTS = ("bytes_total", "bytes_done", "bytes_received", "bytes_sent", "bytes_resumed", "rate")
# ``asking``: it is connected and lacks what this host has.
_NO_FLAGS = {"connected": False, "asking": False, "banned": False}
_MODE = 0o640


def folder(dest: str) -> str:
    """Return where all that belongs to the sharing of ``dest`` lies: spec, status, logs, token."""
    return tree.aside(dest, "share")


def make_folder(dest: str) -> None:
    """Make the folder of the sharing; LlmError where something else lies at its place."""
    path = folder(dest)
    with contextlib.suppress(FileExistsError):
        os.makedirs(path, mode=0o750)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise LlmError(
            f"{path} is no folder",
            wanted="a folder of our own, or nothing",
            found="a link" if os.path.islink(path) else "a file",
            remedy="remove it, and see who put it there",
        )


def new(total: int) -> dict:
    """Return the status of a worker that begins, for ``total`` bytes."""
    return {
        "pid": os.getpid(),
        "state": STATES[0],
        "bytes_total": total,
        "bytes_done": 0,
        "bytes_received": 0,
        "bytes_sent": 0,
        "bytes_resumed": 0,
        "rate": 0,
        "peers": [],
        "seconds": 0.0,
        "error": None,
    }


def write(dest: str, worker: int, state: dict) -> None:
    """Put down the status of a worker; one that cannot be written is no reason to stop."""
    path = _path(dest, worker)
    try:
        atomic.write_json(path, state, _MODE)
    except OSError:
        # A full disk has no room for a second file, and that is what the status has to tell.
        with contextlib.suppress(OSError), open(path, "r+", encoding="utf-8") as stream:
            stream.write(json.dumps(state))
            stream.truncate()


def fail(state: dict, error: Exception) -> dict:
    """Return ``state`` with the four parts of what went wrong."""
    return {**state, "state": FAILED, "rate": 0, "error": parts(error)}


def parts(error: Exception) -> dict:
    """Return {msg, wanted, found, remedy} of an error."""
    if isinstance(error, LlmError):
        return {"msg": error.summary, "wanted": error.wanted, "found": error.found, "remedy": error.remedy}
    return {"msg": f"{type(error).__name__}: {error}", "wanted": "", "found": "", "remedy": ""}


def clear(dest: str) -> None:
    """Remove the status of all workers, those of an earlier run with more of them too."""
    for worker in _workers(dest):
        with contextlib.suppress(OSError):
            os.unlink(_path(dest, worker))


def read(dest: str) -> dict:
    """Return the status of the whole, see ``together``; complete only when the agent has done what comes last."""
    found = read_workers(dest)
    agent = atomic.read_json(os.path.join(folder(dest), AGENT)) or {}
    if found["state"] == "complete" and not agent.get("finished"):
        found["state"] = "placing"
    return found


def read_workers(dest: str) -> dict:
    """Return all workers' status as one, see ``together``."""
    found = [atomic.read_json(_path(dest, worker)) for worker in _workers(dest)]
    return together([state for state in found if state])


def together(found: list[dict]) -> dict:
    """Return the status of many workers as one: counts added up, the least advanced state, the first error.

    ``state`` is empty where there is none. It is "failed" only once no other worker has anything left to do.
    """
    errors = [state["error"] for state in found if state.get("error")]
    busy = [state["state"] for state in found if state["state"] != FAILED]
    least = min(busy, key=STATES.index) if busy else ""
    if errors and least in ("", STATES[-1]):
        least = FAILED
    return {
        "state": least,
        **{count: sum(state[count] for state in found) for count in _COUNTS},
        "seconds": max((state["seconds"] for state in found), default=0.0),
        "peers": _peers(found),
        "error": errors[0] if errors else None,
    }


def _peers(found: list[dict]) -> list[dict]:
    by_host: dict[str, dict] = {}
    for peer in (peer for state in found for peer in state["peers"]):
        sums = by_host.setdefault(peer["host"], {"host": peer["host"], "received": 0, "sent": 0, **_NO_FLAGS})
        for count in ("received", "sent"):
            sums[count] += peer[count]
        for flag in _NO_FLAGS:
            sums[flag] = sums[flag] or peer.get(flag, False)
    return sorted(by_host.values(), key=lambda peer: peer["host"])


def _path(dest: str, worker: int) -> str:
    return os.path.join(folder(dest), f"status-{worker}.json")


def _workers(dest: str) -> list[int]:
    try:
        names = os.listdir(folder(dest))
    except OSError:
        return []
    numbers = [name[len("status-") : -len(".json")] for name in names if name.startswith("status-")]
    return sorted(int(number) for number in numbers if number.isdigit())
