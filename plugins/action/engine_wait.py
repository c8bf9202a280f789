# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module engine_wait in short turns, so that progress is seen while the task runs."""

from __future__ import annotations

import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# A turn ends early when the engine is ready or dead, so its length only spaces the lines of progress; each turn costs
# the host about half a second of processor time.
TURN_SECONDS = 10.0
DEFAULT_TIMEOUT = 600.0
display = Display()


class ActionModule(ActionBase):
    """The action of the module of the same name."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        budget = float(arguments.get("timeout", DEFAULT_TIMEOUT))
        host = (task_vars or {}).get("inventory_hostname", "")
        started = time.monotonic()
        shown = ""
        while True:
            left = budget - (time.monotonic() - started)
            arguments["timeout"] = max(0.0, min(TURN_SECONDS, left))
            turn = self._execute_module(
                module_name="baremetal.llm.engine_wait", module_args=arguments, task_vars=task_vars
            )
            # The first turn says how often it had ended when the wait began; the others count from there.
            arguments.setdefault("exits_before", turn.get("exits_before"))
            elapsed = time.monotonic() - started
            if turn.get("failed") or turn.get("ready") or turn.get("dead") or elapsed >= budget:
                break
            shown = self._show(host, turn.get("progress") or "no word in its log yet", shown, elapsed, budget)
        result.update(turn)
        if "ready" in turn:
            result["seconds"] = round(elapsed, 3)
        return result

    @staticmethod
    def _show(host, progress, shown, elapsed, budget):
        """Print a line when the engine has come further; else every third turn, to show that the wait goes on."""
        if progress != shown or int(elapsed / TURN_SECONDS) % 3 == 0:
            display.display(f"  {host}: {progress} ({elapsed:.0f} s of at most {budget:.0f} s)")
        return progress
