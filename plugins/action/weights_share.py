# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings the library of module weights_share to the host, and shows how far the share is while a task waits for it."""

from __future__ import annotations

import os
import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.baremetal.llm.plugins.module_utils.catalog.wheels import wheel
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.plugin_utils import wheels
from ansible_collections.baremetal.llm.plugins.plugin_utils.followed_action import LOOK_SECONDS, patiently, told

MODULE = "baremetal.llm.weights_share"
DEFAULT_TIMEOUT = 86_400.0
# Nothing new for so long while others are there: no host of the chain has what is missing, or none can be reached. A
# host that comes back within it is no reason to end.
STALLED_SECONDS = 900.0
display = Display()


class ActionModule(ActionBase):
    """The action of the module of the same name."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        # Only the control node knows this folder.
        folder = arguments.pop("wheels", "")
        state = arguments.get("state", "complete")
        if state == "ready":
            result.update(self._ready(arguments, str(folder or ""), task_vars))
        elif state == "complete" and not self._task.check_mode:
            result.update(self._complete(arguments, task_vars))
        else:
            result.update(self._turn(arguments, task_vars))
        return result

    def _turn(self, arguments, task_vars):
        return self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)

    def _ready(self, arguments, folder, task_vars):
        """Install the wheel where the library is not there and this host can have it."""
        seen = self._turn(arguments, task_vars)
        known = wheel(seen.get("python", ""), seen.get("machine", ""))
        usable = not (seen.get("engines") or {}).get("libtorrent")
        if seen.get("failed") or not known or usable or self._task.check_mode:
            return seen
        try:
            local = wheels.find(known, folder)
        except LlmError as error:
            # Whether another engine will do is decided for all hosts together.
            return {**seen, "engines": {**seen["engines"], "libtorrent": str(error)}}
        remote = self._connection._shell.join_path(self._make_tmp_path(), known["name"])
        self._transfer_file(local, remote)
        self._fixup_perms2([os.path.dirname(remote), remote])
        given = {**arguments, "wheel": remote, "wheel_sha256": known["sha256"]}
        return self._turn(given, task_vars)

    def _complete(self, arguments, task_vars):
        begun = self._turn({**arguments, "state": "started"}, task_vars)
        if begun.get("failed"):
            return begun
        host = (task_vars or {}).get("inventory_hostname", "")
        budget = float(arguments.get("timeout", DEFAULT_TIMEOUT))
        started, shown = time.monotonic(), 0.0
        moved, last = 0.0, None
        look = {**arguments, "state": "followed", "wait": LOOK_SECONDS}
        while True:
            seen = patiently(lambda: self._turn(look, task_vars))
            elapsed = time.monotonic() - started
            if (seen.get("state"), seen.get("bytes_done")) != last:
                moved, last = elapsed, (seen.get("state"), seen.get("bytes_done"))
            stalled = seen.get("state") == "sharing" and elapsed - moved >= STALLED_SECONDS
            if seen.get("failed") or seen.get("complete") or seen.get("error") or stalled or elapsed >= budget:
                break
            if elapsed >= shown * 1.3:
                shown = elapsed
                display.display(f"  {host}: {self._told(seen)}")
        seen["changed"] = bool(begun.get("changed") or seen.get("changed"))
        return seen if seen.get("failed") or seen.get("complete") else self._failure(seen, host, elapsed)

    @staticmethod
    def _told(seen):
        progress = {"what": seen.get("state", "sharing"), "done": seen.get("bytes_done")}
        return told({**progress, "total": seen.get("bytes_total"), "rate": seen.get("rate")})

    @staticmethod
    def _failure(seen, host, elapsed):
        error = seen.get("error") or {
            "msg": f"the weights are not complete after {elapsed:.0f} s",
            "wanted": f"{seen.get('bytes_total')} bytes",
            "found": f"{seen.get('bytes_done')} bytes, state {seen.get('state')}",
            "remedy": "see the other hosts, one of them has to have all; run this again, what came is kept",
        }
        return {**seen, "failed": True, **error, "msg": f"{host}: {error['msg']}"}
