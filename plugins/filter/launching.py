# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role engine needs from the plan to make a container."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.baremetal.llm.plugins.module_utils import launching
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError


def launch_files(plan, host):
    """Return [{name, content, mode, owner}] of what lies in run_dir/launch on ``host``."""
    return _told(launching.files, plan, host)


def engine_container(plan, host):
    """Return the options of community.docker.docker_container for the container of ``host``."""
    return _told(launching.container, plan, host)


def _told(function, *arguments):
    try:
        return function(*arguments)
    except LlmError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self):
        return {"engine_container": engine_container, "launch_files": launch_files}
