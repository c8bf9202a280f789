# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module deployment_report on the control node, in the run itself."""

from __future__ import annotations

from ansible_collections.baremetal.llm.plugins.module_utils import control
from ansible_collections.baremetal.llm.plugins.plugin_utils.control_action import ControlAction


class ActionModule(ControlAction):
    """The action of the module of the same name."""

    ARGUMENTS = control.REPORT
    work = staticmethod(control.report)
