#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_progress
short_description: See how far a job on a folder of weights is
version_added: 0.1.0
description:
  - Reads what M(baremetal.llm.weights_lock), M(baremetal.llm.weights_fetch), M(baremetal.llm.weights_verify) and
    M(baremetal.llm.weights_torrent) write while they run; their actions show it.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  path:
    description:
      - The folder that the job works on.
    type: path
    required: true
  job:
    description:
      - File that an asynchronous task of Ansible writes its result to; without one, no end is waited for.
    type: path
    default: ""
  wait:
    description:
      - Most seconds to wait for the end of O(job).
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: See how far the download is
  baremetal.llm.weights_progress:
    path: /var/lib/baremetal-llm/weights/deepseek-r1-w8a8
"""

RETURN = r"""
finished:
  description: Whether O(job) has ended; always false without one.
  returned: success
  type: bool
progress:
  description: C(what) is done, bytes C(done) and C(total), C(rate) in bytes a second, C(seconds); empty where no
    job has written any.
  returned: success
  type: dict
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import atomic
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import progress, tree

LOOK_SECONDS = 0.2


def ended(job):
    """True when the job has written its result; one whose file is gone was ended by somebody."""
    result = atomic.read_json(job)
    if result is None and not os.path.exists(job):
        raise LlmError(
            "the job is gone",
            wanted=f"its result in {job}",
            found="no such file",
            remedy="run this again; what was done so far is kept",
        )
    # A result without the mark is what the module printed at its end.
    return result is not None and result.get("finished", 1) in (1, True)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "job": {"type": "path", "default": ""},
            "wait": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    end = time.monotonic() + params["wait"]
    try:
        finished = bool(params["job"]) and ended(params["job"])
        while params["job"] and not finished and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            finished = ended(params["job"])
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    seen = progress.read(tree.aside(params["path"], "progress.json"))
    module.exit_json(changed=False, finished=finished, progress=seen)


if __name__ == "__main__":
    main()
