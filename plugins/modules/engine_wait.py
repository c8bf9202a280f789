#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_wait
short_description: Wait until an engine serves, and end at once when it dies
version_added: 0.1.0
description:
  - Follows the engine's log and shows its progress while the task runs.
  - Ends within a second of the engine's death, with the error that its log ends with.
  - With O(runtime=docker) it looks at the files and processes of an engine's container on its host, without asking
    Docker. On the host of rank 0 it shows which ranks are waited for, and ends as soon as the engine of any rank has
    ended since the wait began.
  - It reports and does not fail; the caller decides by RV(ready).
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  run_dir:
    description:
      - Folder of the service, as given to M(baremetal.llm.engine_service), or of the rank in its container.
    type: path
    required: true
  runtime:
    description:
      - Whether the engine runs from a virtual environment or in a container.
    type: str
    choices: [venv, docker]
    default: venv
  health_url:
    description:
      - Answers status 200 when the engine serves. Not asked where empty.
    type: str
    default: ""
  ready_log:
    description:
      - Regular expression of the line that the engine prints when it is ready. Not looked for where empty.
      - Where both this and O(health_url) are given both are waited for; where neither is, the engine has to run.
    type: str
    default: ""
  timeout:
    description:
      - Seconds the engine may take.
    type: float
    default: 600
  exits_before:
    description:
      - How often the engine had ended since its start when the wait began, as M(baremetal.llm.engine_service)
        returned it. V(0) for a container that was just started.
      - Without it those that there had been when the task began do not count.
    type: int
"""

EXAMPLES = r"""
- name: Wait for the engine
  baremetal.llm.engine_wait:
    run_dir: /var/lib/baremetal-llm/deployments/local
    health_url: http://127.0.0.1:8000/health
    timeout: 900
  register: engine
  failed_when: not engine.ready

- name: Wait for a group of containers on the host of its first rank
  baremetal.llm.engine_wait:
    run_dir: /var/lib/baremetal-llm/deployments/r1
    runtime: docker
    health_url: http://192.0.2.10:1026/health
    ready_log: Daemon start success!
    timeout: 3600
    exits_before: 0
  register: engine
  failed_when: not engine.ready
"""

RETURN = r"""
ready:
  description: Whether the engine serves.
  returned: success
  type: bool
dead:
  description: Whether it has ended.
  returned: success
  type: bool
progress:
  description: What is waited for, as V(waiting for rank 1 (a2\)), or the furthest step that the log tells of.
  returned: success
  type: str
findings:
  description: Why it ended, each with C(signature), C(cause), C(evidence), C(remedy), C(first), C(tail), and the
    C(host) (empty for this one), C(rank) and C(exit) of the engine that ended first.
  returned: success
  type: list
  elements: dict
log:
  description: Path of the engine's log on the host.
  returned: success
  type: str
seconds:
  description: How long the wait took.
  returned: success
  type: float
exits_before:
  description: How often the engine had ended when the wait began.
  returned: success
  type: int
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.readiness import watch
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.container import ContainerService
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.service import Service


def main():
    module = AnsibleModule(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "runtime": {"type": "str", "choices": ["venv", "docker"], "default": "venv"},
            "health_url": {"type": "str", "default": ""},
            "ready_log": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 600},
            "exits_before": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        kind = ContainerService if params["runtime"] == "docker" else Service
        service = kind(os.path.realpath(params["run_dir"]))
        result = watch(
            service, params["health_url"], params["timeout"], params["exits_before"], ready_log=params["ready_log"]
        )
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except re.error as error:
        module.fail_json(msg=f"{os.uname().nodename}: ready_log is no regular expression: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
