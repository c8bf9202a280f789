#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: load_test
short_description: A short load with every answer held against its golden one
version_added: 0.1.0
description:
  - Sends streamed requests, some at a time, and returns percentiles of time to first token and time per output token.
  - A request fails when it gets no answer or another one than the golden. The task fails when one of them does;
    every figure is in its result all the same.
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
  requests:
    description:
      - How many requests are sent.
    type: int
    default: 24
  concurrency:
    description:
      - How many are in flight at a time.
    type: int
    default: 4
"""

EXAMPLES = r"""
- name: Put a short load on the endpoint
  baremetal.llm.load_test:
    url: http://127.0.0.1:8000/v1
    model: deepseek-v3-tiny
    prompts: "{{ golden.prompts }}"
    requests: 24
    concurrency: 4
  register: load
"""

RETURN = r"""
requests:
  description: Requests that were sent.
  returned: success
  type: int
failed:
  description: Requests without the golden answer, V(0) when all is well. Ansible makes a V(true) of more.
  returned: always
  type: int
failed_requests:
  description: Requests without the golden answer, as a number whatever Ansible does.
  returned: always
  type: int
reasons:
  description: Why they failed.
  returned: success
  type: list
  elements: str
concurrency:
  description: Requests in flight at a time.
  returned: success
  type: int
ttft_ms:
  description: Time to first token in milliseconds, C(p50), C(p90), C(p99).
  returned: success
  type: dict
tpot_ms:
  description: Time per output token after the first in milliseconds, C(p50), C(p90), C(p99).
  returned: success
  type: dict
output_tokens:
  description: Tokens of the good answers.
  returned: success
  type: int
output_tokens_per_s:
  description: Output tokens per second over the whole load.
  returned: success
  type: float
compared:
  description: The baseline that the figures were held against; empty while there is none for this model,
    engine and hardware.
  returned: success
  type: dict
samples:
  description: Each request with C(begin_ms), C(ttft_ms), C(total_ms), C(tokens), C(reason).
  returned: success
  type: list
  elements: dict
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.acceptance import check_prompts, load
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
            "requests": {"type": "int", "default": 24},
            "concurrency": {"type": "int", "default": 4},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        client = ChatClient(params["url"], params["model"], params["api_key"], params["timeout"])
        result = load(client, check_prompts(params["prompts"]), params["requests"], params["concurrency"])
    except LlmError as error:
        module.fail_json(**error.as_result())
    result.update(changed=False, compared={}, failed=result["failed_requests"])
    if result["failed"]:
        result["msg"] = (
            f"{params['url']}: {result['failed_requests']} of {result['requests']} requests failed under load; "
            f"wanted: none; found: {'; '.join(result['reasons'])}; remedy: read the engine's log"
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
