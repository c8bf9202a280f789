# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows how far the module of the same name is."""

from __future__ import annotations

from ansible_collections.baremetal.llm.plugins.plugin_utils.followed_action import FollowedAction


class ActionModule(FollowedAction):
    """The action of the module of the same name."""

    MODULE = "baremetal.llm.weights_lock"

    def folder(self, arguments):
        """A hub is asked for digests, which is soon done; a folder has to be read."""
        source = str(arguments.get("path") or arguments.get("source") or "")
        return "" if "://" in source else source
