#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_report
short_description: Write a stage's report and the page over all of them
version_added: 0.1.0
description:
  - Writes C(DIR/DEPLOYMENT/STAGE.json), and one self-contained C(index.html) over all stages that lie there.
  - A report is the record of a run and no state of a host, so it is never reported as a change; check mode
    writes nothing.
  - Runs on the control node, wherever the task is.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  dir:
    description:
      - Folder for the reports of all deployments.
    type: path
    required: true
  deployment:
    description:
      - Name of the deployment.
    type: str
    required: true
  stage:
    description:
      - The stage that has ended.
    type: str
    required: true
    choices: [discover, plan, preflight, prepare, weights, launch, accept, expose]
  data:
    description:
      - What the stage found or did.
    type: dict
    required: true
  passed:
    description:
      - Whether the stage reached its aim.
    type: bool
    required: true
  started:
    description:
      - When the stage began, as seconds of the epoch.
    type: float
    required: true
"""

EXAMPLES = r"""
- name: Report the verdicts
  baremetal.llm.deployment_report:
    dir: /srv/reports
    deployment: local
    stage: preflight
    passed: true
    started: 1793000000
    data:
      verdicts: []
"""

RETURN = r"""
page:
  description: Path of the page.
  returned: success
  type: str
path:
  description: Path of the stage's report.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import control
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError


def main():
    module = AnsibleModule(argument_spec=control.REPORT, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **control.report(module.params, not module.check_mode))
    except LlmError as error:
        module.fail_json(**error.as_result())


if __name__ == "__main__":
    main()
