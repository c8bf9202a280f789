#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_lock
short_description: Make the lock of a set of weights
version_added: 0.1.0
description:
  - Hashes every file of a folder with SHA-256, in parallel, and returns the lock that later proves every copy.
  - Refuses folders that must not be locked; links, pickles, safetensors files that are cut off or do not fit
    their index.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  path:
    description:
      - Folder with the weights.
    type: path
    required: true
    aliases: [source]
  dest:
    description:
      - Where to write the lock as JSON; nothing is written without it.
    type: path
  model:
    description:
      - Name of the model for the lock.
    type: str
    default: ""
  revision:
    description:
      - Revision that the weights were published as, best a commit.
    type: str
    default: ""
  jobs:
    description:
      - Threads that hash; V(0) is one a core.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Lock what lies on the disk that was carried in
  baremetal.llm.weights_lock:
    path: /mnt/disk/DeepSeek-R1-W8A8
    dest: /var/lib/baremetal-llm/locks/deepseek-r1-w8a8.json
    model: deepseek-r1-w8a8
"""

RETURN = r"""
lock:
  description: C(model), C(revision) and C(files), each with C(path), C(size), C(sha256).
  returned: success
  type: dict
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import atomic
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockmaker


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True, "aliases": ["source"]},
            "dest": {"type": "path"},
            "model": {"type": "str", "default": ""},
            "revision": {"type": "str", "default": ""},
            "jobs": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params, dest = module.params, module.params["dest"]
    try:
        lock = lockmaker.from_folder(
            params["path"], params["model"], params["revision"], jobs=params["jobs"], save=not module.check_mode
        )
        before = atomic.read_json(dest) if dest else None
        changed = bool(dest) and before != lock
        if changed and not module.check_mode:
            os.makedirs(os.path.dirname(os.path.abspath(dest)), mode=0o750, exist_ok=True)
            atomic.write_json(dest, lock, 0o640)
    except LlmError as error:
        module.fail_json(**error.as_result())
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    texts = [json.dumps(value, indent=2, sort_keys=True) + "\n" if value else "" for value in (before, lock)]
    diff = {"before": texts[0], "after": texts[1], "before_header": dest, "after_header": dest} if changed else {}
    module.exit_json(changed=changed, lock=lock, diff=diff)


if __name__ == "__main__":
    main()
