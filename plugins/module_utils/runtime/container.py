# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs of one rank in an engine's container, seen from its host; Docker itself is not asked.

The container's first process is rank_guard.py, whose files in the run folder say how the rank stands; its processes
are the host's processes too, told by the mark in their environment.
"""

from __future__ import annotations

import os

from .. import atomic
from . import processes
from .service import Service


class ContainerService:
    """One rank's engine in ``run_dir``, with those methods of Service that look and do not act."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def path(self, *names: str) -> str:
        """Return a path in the run folder."""
        return os.path.join(self.run_dir, *names)

    def processes(self) -> list[int]:
        """Return the host's pids of everything in the container, the guard and what a person runs in it included."""
        return processes.marked(self.run_dir)

    def supervisor_pid(self) -> int | None:
        """Return the host's pid of the living guard."""
        wanted = {self.path("launch", "rank_guard.py"), self.path("launch", "rank.json")}
        return next((pid for pid in self.processes() if wanted <= set(processes.arguments(pid))), None)

    def engine_pid(self) -> int | None:
        """Return the host's pid of the engine's first process; None while commands before it run."""
        guard = self.supervisor_pid()
        inner = self._state_of(guard).get("pid")
        if not inner:
            return None
        children = (pid for pid in self.processes() if processes.parent(pid) == guard)
        return next((pid for pid in children if processes.inner_pid(pid) == inner), None)

    def memory_bytes(self) -> int:
        """Return the resident memory of all processes of the container; pages that they share count once (PSS)."""
        return sum(processes.pss_bytes(pid) for pid in self.processes())

    def settings(self) -> dict:
        """Return rank.json of the launch, empty when there is none."""
        return atomic.read_json(self.path("launch", "rank.json")) or {}

    def state(self) -> dict:
        """Return what the guard that lives now has written (rank_guard.Guard.state), empty when it has not yet."""
        return self._state_of(self.supervisor_pid())

    def _state_of(self, guard: int | None) -> dict:
        state = atomic.read_json(self.path("logs", "rank.json")) or {}
        # A file that an earlier guard has left tells nothing of this one.
        if guard is None or state.get("guard_start_ticks") != processes.start_ticks(guard):
            return {}
        return state

    def endings(self) -> list[dict]:
        """Return {host, rank, generation, exit, tail, epoch_s} of every engine that ended by itself under this guard.

        On the host of rank 0 these are the ends of all ranks, the first one of a generation being its cause. What an
        earlier guard has left does not count: the container may just have been made anew.
        """
        exits = self.state().get("exits")
        return [entry for entry in exits if isinstance(entry, dict)] if isinstance(exits, list) else []

    def exits(self) -> list[str]:
        """Return the same in a line each."""
        return [
            f"{named(entry)}, generation {entry.get('generation')}: {entry.get('exit')}" for entry in self.endings()
        ]

    def waiting(self) -> str:
        """Return what the start waits for, as "waiting for rank 1 (a2)"; empty while the engine starts or runs.

        Where no guard lives, it is what the last one has failed with.
        """
        guard = self.supervisor_pid()
        state = self._state_of(guard) if guard else atomic.read_json(self.path("logs", "rank.json")) or {}
        if not state or (guard is None and state.get("state") != "failed"):
            return "waiting for its container"
        return str(state.get("why") or "") if state.get("state") in ("waiting", "stopping", "failed") else ""

    def started(self) -> dict:
        """Return {digest, generation, started_epoch_s, engine_log_from} of what runs, empty when no guard lives."""
        state = self.state()
        names = ("digest", "generation", "started_epoch_s", "engine_log_from")
        return {name: state[name] for name in names if name in state}

    def facts(self) -> dict:
        """Return what runs here for discovery, as Service.facts does; ``port`` is the API's, None without one."""
        running = self.engine_pid() is not None
        return {
            "runtime": "docker",
            "running": running,
            "pids": self.processes(),
            "port": (self.settings().get("api_port") or None) if running else None,
            "memory_bytes": self.memory_bytes(),
            "environment": "",
            "environment_shared": False,
        }


def named(entry: dict) -> str:
    """Return how the rank of an ending is called: "rank 1 (a2)"."""
    return f"rank {entry.get('rank')} ({entry.get('host')})"


def service_of(run_dir: str) -> Service | ContainerService:
    """Return what looks at the engine in ``run_dir``, by the files that its last launch has left there."""
    contained = ContainerService(run_dir)
    return contained if contained.settings() and Service(run_dir).supervisor_pid() is None else Service(run_dir)
