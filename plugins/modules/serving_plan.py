#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_plan
short_description: Decide a deployment once
version_added: 0.1.0
description:
  - A pure function from inventory, catalog and discovered facts to one document that holds every decision of a
    deployment.
  - Runs on the control node, wherever the task is. Reads only the lock of the weights.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  hosts:
    description:
      - The serving hosts in order of the inventory, as the filter P(baremetal.llm.serving_hosts#filter) makes
        them, each with C(name), C(replica), C(settings) (its C(llm_*) variables) and C(facts) (what
        M(baremetal.llm.host_info) returned).
    type: list
    elements: dict
    required: true
  collection_dir:
    description:
      - Where this collection lies on the control node; bundled models are found there.
    type: path
    required: true
  launch:
    description:
      - Whether the plan is to be carried out, and not only held against the hosts; an engine that this version of the
        collection cannot launch is then refused.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Decide
  baremetal.llm.serving_plan:
    hosts: "{{ ansible_play_hosts_all | baremetal.llm.serving_hosts(hostvars, groups) }}"
    collection_dir: "{{ role_path | dirname | dirname }}"
  run_once: true
  register: decided
"""

RETURN = r"""
plan:
  description: The plan. Every later stage carries it out and decides nothing.
  returned: success
  type: dict
summary:
  description: The plan as text for a person.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import control
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError


def main():
    module = AnsibleModule(argument_spec=control.PLAN, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **control.plan(module.params, not module.check_mode))
    except LlmError as error:
        module.fail_json(**error.as_result())


if __name__ == "__main__":
    main()
