#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_fetch
short_description: Bring the files of a lock to where the engine reads them
version_added: 0.1.0
description:
  - Copies from a folder on the same machine (a disk, a mounted share) only what is missing or wrong at the
    destination.
  - Every file is hashed while it is copied and renamed into place only when it is right, so a reader never
    sees half of one,
    and a run that is cut off goes on where it was.
  - Files that it installed for an earlier lock are removed once all files of this one are in place. Other files at the
    destination that are not in the lock are refused, never deleted.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  source:
    description:
      - Folder with the weights; needed with O(state=present).
    type: path
  dest:
    description:
      - Folder that the engine reads; made with mode 0750, its files with mode 0640.
    type: path
    required: true
  lock:
    description:
      - The lock, as a mapping or as the path of a JSON file on the host; needed with O(state=present).
    type: raw
  deep:
    description:
      - Read every file at the destination again, whatever the stamps of an earlier verification say.
    type: bool
    default: false
  jobs:
    description:
      - Files that are copied or hashed at a time; V(0) is one a core.
    type: int
    default: 0
  state:
    description:
      - V(absent) deletes the files that were installed in O(dest), and folders that are empty then; nothing else.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Install the weights from the disk that was carried in
  baremetal.llm.weights_fetch:
    source: /mnt/disk/DeepSeek-R1-W8A8
    dest: /var/lib/baremetal-llm/weights/deepseek-r1-w8a8
    lock: "{{ lookup('ansible.builtin.file', 'deepseek-r1-w8a8.json') | from_json }}"
"""

RETURN = r"""
fetched:
  description: Paths of the files that were copied, or would be in check mode.
  returned: when O(state=present)
  type: list
  elements: str
repaired:
  description: Those of RV(fetched) that were there and wrong.
  returned: when O(state=present)
  type: list
  elements: str
bytes_fetched:
  description: Bytes of these files.
  returned: when O(state=present)
  type: int
modes_changed:
  description: Paths whose permission bits were set right.
  returned: when O(state=present)
  type: list
  elements: str
removed:
  description: Paths that were deleted, with O(state=present) those of an earlier lock.
  returned: success
  type: list
  elements: str
seconds:
  description: How long it took.
  returned: when O(state=present)
  type: float
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import fetch, lockfile


def present(module, lock):
    params = module.params
    result = fetch.fetch(
        params["source"], params["dest"], lock, jobs=params["jobs"], deep=params["deep"], check=module.check_mode
    )
    before = result.pop("before")
    wrong = {problem["path"]: problem["reason"] for problem in before["corrupt"]}
    lines = [f"{path} {wrong.get(path, 'missing')}\n" for path in result["fetched"]]
    lines += [f"{path} of an earlier lock\n" for path in result["removed"]]
    after = [f"{path} as locked\n" for path in result["fetched"]]
    result["diff"] = {"before": "".join(lines), "after": "".join(after)} if result["changed"] else {}
    module.exit_json(**result)


def main():
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path"},
            "dest": {"type": "path", "required": True},
            "lock": {"type": "raw"},
            "deep": {"type": "bool", "default": False},
            "jobs": {"type": "int", "default": 0},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("source", "lock"))],
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "present":
            present(module, lockfile.load(module.params["lock"]))
        gone = fetch.remove(module.params["dest"], check=module.check_mode)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(
            msg=f"{os.uname().nodename}: {error.filename or module.params['dest']}: {error.strerror}; "
            "what was copied so far is kept and the next run goes on from there"
        )
    module.exit_json(changed=bool(gone), removed=gone)


if __name__ == "__main__":
    main()
