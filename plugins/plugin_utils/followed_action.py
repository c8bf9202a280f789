# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Actions of modules that run for minutes or hours: they show how far they are, and outlive a lost connection."""

from __future__ import annotations

import os
import time

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Below this a module is over before anybody wonders; 1 GB is hashed in a second and copied in a few.
SMALL_BYTES = 1_000_000_000
# Each look costs the host about half a second of processor time.
LOOK_SECONDS = 10.0
# Two minutes: what a switch needs to come back.
LOST_TRIES = 12
# A week: the work itself has its own timeouts, this only bounds what nobody waits for any more.
MOST_SECONDS = 7 * 24 * 3600
_UNITS = ("B", "kB", "MB", "GB", "TB")
display = Display()


def patiently(look):
    """Return what ``look`` returns; a connection that is lost is tried again, since the job goes on without it."""
    for _try in range(LOST_TRIES):
        try:
            return look()
        except AnsibleConnectionFailure:
            time.sleep(LOOK_SECONDS)
    return look()


def told(progress):
    """Return how far a job is as people read it, from what module weights_progress returned."""
    done, total, rate = (progress.get(key) or 0 for key in ("done", "total", "rate"))
    left = f", {_duration((total - done) / rate)} left" if rate and total > done else ""
    return f"{progress.get('what', 'at work')}: {_size(done)} of {_size(total)}, {_size(rate)}/s{left}"


def _size(count):
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{value:.0f} B"


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class FollowedAction(ActionBase):
    """Runs ``MODULE`` in the background of the host and shows the progress of the folder in its option ``FOLDER``."""

    _supports_async = True
    MODULE = ""
    FOLDER = "path"

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        folder = self.folder(arguments)
        # Small ones, and those that the user runs by async, need no help.
        if self._task.async_val or not folder or self._is_small(arguments.get("lock")):
            wrap = bool(self._task.async_val)
            result.update(
                self._execute_module(self.MODULE, module_args=arguments, task_vars=task_vars, wrap_async=wrap)
            )
            return result
        result.update(self._follow(arguments, str(folder), task_vars))
        return result

    def folder(self, arguments):
        """Return the folder whose progress is shown, empty when there is none."""
        return arguments.get(self.FOLDER)

    @staticmethod
    def _is_small(lock):
        files = lock.get("files") if isinstance(lock, dict) else None
        sizes = [entry.get("size") for entry in files or [] if isinstance(entry, dict)]
        return bool(sizes) and all(isinstance(size, int) for size in sizes) and sum(sizes) < SMALL_BYTES

    def _follow(self, arguments, folder, task_vars):
        job = self._start(arguments, task_vars)
        if "results_file" not in job:
            return job
        look = {"path": folder, "job": job["results_file"], "wait": LOOK_SECONDS}
        host = (task_vars or {}).get("inventory_hostname", "")
        started, shown = time.time(), 0.0
        while True:
            seen = patiently(
                lambda: self._execute_module("baremetal.llm.weights_progress", module_args=look, task_vars=task_vars)
            )
            if seen.get("failed") or seen.get("finished"):
                break
            # More and more seldom: hours of work need no line every ten seconds.
            if time.time() - started >= shown * 1.3:
                shown = time.time() - started
                display.display(f"  {host}: {told(seen.get('progress') or {})}")
        if seen.get("failed"):
            return seen
        return self._collect(job, task_vars)

    def _start(self, arguments, task_vars):
        self._task.async_val = MOST_SECONDS
        try:
            return self._execute_module(self.MODULE, module_args=arguments, task_vars=task_vars, wrap_async=True)
        finally:
            # Otherwise the executor would wait for the job a second time.
            self._task.async_val = 0

    def _collect(self, job, task_vars):
        arguments = {"jid": job["ansible_job_id"], "_async_dir": os.path.dirname(job["results_file"])}
        result, _erased = [
            self._execute_module(
                "ansible.legacy.async_status", module_args={**arguments, "mode": mode}, task_vars=task_vars
            )
            for mode in ("status", "cleanup")
        ]
        for key in ("ansible_job_id", "results_file", "started", "finished", "stdout", "stderr", "stdout_lines"):
            result.pop(key, None)
        return result
