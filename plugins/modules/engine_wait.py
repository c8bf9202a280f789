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
  - It reports and does not fail; the caller decides by RV(ready).
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  run_dir:
    description:
      - Folder of the service, as given to M(baremetal.llm.engine_service).
    type: path
    required: true
  health_url:
    description:
      - Answers status 200 when the engine serves.
    type: str
    required: true
  timeout:
    description:
      - Seconds the engine may take.
    type: float
    default: 600
  exits_before:
    description:
      - How often the engine had ended since its start when the wait began, as M(baremetal.llm.engine_service)
        returned it.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Wait for the engine
  baremetal.llm.engine_wait:
    run_dir: /var/lib/baremetal-llm/deployments/local
    health_url: http://127.0.0.1:8000/health
    timeout: 900
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
  description: The furthest step that its log tells of.
  returned: success
  type: str
findings:
  description: Why it ended, each with C(signature), C(cause), C(evidence), C(remedy), C(first), C(tail).
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
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.readiness import watch
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.service import Service


def main():
    module = AnsibleModule(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "health_url": {"type": "str", "required": True},
            "timeout": {"type": "float", "default": 600},
            "exits_before": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        service = Service(os.path.realpath(params["run_dir"]))
        result = watch(service, params["health_url"], params["timeout"], params["exits_before"])
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
