# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows how far the module of the same name is."""

from __future__ import annotations

from ansible_collections.baremetal.llm.plugins.plugin_utils.followed_action import FollowedAction


class ActionModule(FollowedAction):
    """The action of the module of the same name."""

    MODULE = "baremetal.llm.weights_fetch"
    FOLDER = "dest"
