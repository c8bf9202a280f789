# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of a module of the control node: does its work in the run itself, without starting a Python of its own."""

from __future__ import annotations

from typing import ClassVar

from ansible.plugins.action import ActionBase
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError


class ControlAction(ActionBase):
    """What module_utils/control.py has for one module: ``ARGUMENTS`` and ``work``."""

    ARGUMENTS: ClassVar[dict] = {}
    _requires_connection = False

    @staticmethod
    def work(options, really):
        """Return the result of the module; raise LlmError."""
        raise NotImplementedError

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
        try:
            result.update(self.work(options, not self._task.check_mode), changed=False)
        except LlmError as error:
            result.update(error.as_result(), failed=True)
        return result
