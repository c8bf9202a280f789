#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: chat_probe
short_description: Hold an endpoint's answers against golden ones
version_added: 0.1.0
description:
  - Asks every golden prompt through C(/v1/chat/completions) at temperature 0, the first one as a stream too.
  - It reports and does not fail for a wrong answer; the caller decides by RV(passed).
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  url:
    description:
      - Base of the API, such as V(http://127.0.0.1:8000/v1).
    type: str
    required: true
  model:
    description:
      - Served name of the model.
    type: str
    required: true
  prompts:
    description:
      - Golden prompts, each with C(id), C(prompt), C(answer), C(max_tokens).
    type: list
    elements: dict
    required: true
  api_key:
    description:
      - Key of the API.
    type: str
    default: ""
  timeout:
    description:
      - Seconds for one answer.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Ask
  baremetal.llm.chat_probe:
    url: http://127.0.0.1:8000/v1
    model: deepseek-v3-tiny
    prompts:
      - id: capital
        prompt: What is the capital of France?
        answer: Paris is the capital of France.
        max_tokens: 32
  register: answers
"""

RETURN = r"""
passed:
  description: Whether every answer is the golden one.
  returned: success
  type: bool
answers:
  description: Each with C(id), C(prompt), C(wanted), C(found), C(passed), C(streamed), C(seconds), C(tokens),
    C(reason).
  returned: success
  type: list
  elements: dict
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.acceptance import check_prompts, probe
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.openai_client import ChatClient


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "model": {"type": "str", "required": True},
            "prompts": {"type": "list", "elements": "dict", "required": True},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        client = ChatClient(params["url"], params["model"], params["api_key"], params["timeout"])
        result = probe(client, check_prompts(params["prompts"]))
    except LlmError as error:
        module.fail_json(**error.as_result())
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
