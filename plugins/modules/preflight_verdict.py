#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_verdict
short_description: Hold a plan against what was discovered
version_added: 0.1.0
description:
  - Returns every verdict at once; what was wanted, what was found, on which host, and the remedy.
  - It reports and does not fail for a verdict; the caller decides by RV(passed).
  - Runs on the control node, wherever the task is.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  plan:
    description:
      - The plan, as M(baremetal.llm.serving_plan) returns it.
    type: dict
    required: true
  facts:
    description:
      - The facts of each host by its name in the inventory, as M(baremetal.llm.host_info) returns them, with what
        M(baremetal.llm.npu_info), M(baremetal.llm.gpu_info) and M(baremetal.llm.peer_probe) returned below C(npu),
        C(gpu) and C(peers); P(baremetal.llm.discovered#filter) joins them.
    type: dict
    required: true
  fail_on:
    description:
      - Lowest level that makes RV(passed) false.
    type: str
    choices:
      - fail
      - warn
    default: fail
"""

EXAMPLES = r"""
- name: Judge
  baremetal.llm.preflight_verdict:
    plan: "{{ decided.plan }}"
    facts: "{{ {'localhost': host} }}"
  run_once: true
  register: preflight
"""

RETURN = r"""
passed:
  description: Whether no verdict is as bad as O(fail_on).
  returned: success
  type: bool
verdicts:
  description: Each with C(host), C(check), C(level) (V(ok), V(warn), V(fail)), C(wanted), C(found), C(remedy).
  returned: success
  type: list
  elements: dict
table:
  description: The verdicts as lines for a person, the worst first, those that are well by their number.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import control
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError


def main():
    module = AnsibleModule(argument_spec=control.VERDICT, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **control.verdict(module.params, not module.check_mode))
    except LlmError as error:
        module.fail_json(**error.as_result())


if __name__ == "__main__":
    main()
