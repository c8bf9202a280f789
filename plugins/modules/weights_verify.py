#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_verify
short_description: Hold a folder of weights against its lock
version_added: 0.1.0
description:
  - SHA-256 of all files in parallel, structure of safetensors files and their index, and no file more or less
    than the lock names.
  - An unchanged file costs one stat; stamps of size, times and inode are kept beside the folder.
  - Files that are read leave the page cache as it was; what an engine holds in memory stays there.
  - How far it is stands in a file beside the folder while it reads, see M(baremetal.llm.weights_progress).
  - It reports and does not fail for what it finds; the caller decides by RV(verified).
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  path:
    description:
      - Folder with the weights.
    type: path
    required: true
  lock:
    description:
      - The lock, as a mapping or as the path of a JSON file on the host.
      - A file that the lock says is patched has to be as it is after the patch.
    type: raw
    required: true
  deep:
    description:
      - Read every file again, whatever the stamps say.
    type: bool
    default: false
  jobs:
    description:
      - Threads that hash; V(0) is one a core, and more than 64 are never started.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Prove every byte
  baremetal.llm.weights_verify:
    path: /var/lib/baremetal-llm/weights/deepseek-r1-w8a8
    lock: /var/lib/baremetal-llm/locks/deepseek-r1-w8a8.json
    deep: true
  register: weights
  failed_when: not weights.verified

- name: Refuse nodes that hold something else than the first
  ansible.builtin.assert:
    that: hostvars[item].weights.tree == weights.tree
  loop: "{{ ansible_play_hosts }}"
"""

RETURN = r"""
verified:
  description: Whether nothing is missing, corrupt or unexpected.
  returned: success
  type: bool
files:
  description: Files of the lock that are there.
  returned: success
  type: int
bytes:
  description: Their bytes.
  returned: success
  type: int
bytes_hashed:
  description: Bytes that were read and hashed in this run.
  returned: success
  type: int
cached:
  description: Files that were known by their stamp.
  returned: success
  type: int
missing:
  description: Paths of the lock that are not there.
  returned: success
  type: list
  elements: str
corrupt:
  description:
    - Files that are not as locked, each with C(path), C(reason), C(wanted), C(found).
    - The reasons are C(truncated), C(size), C(sha256), C(unreadable), C(merkle) (the bytes are right and the lock
      contradicts itself), and for files that are as locked and cannot be loaded C(structure), C(index), C(missing).
  returned: success
  type: list
  elements: dict
unexpected:
  description: Paths that are there and not in the lock.
  returned: success
  type: list
  elements: str
merkle:
  description:
    - Roots of the SHA-256 trees of files as published, by path, of those files whose root is known on this host.
      An empty file has an empty one.
  returned: success
  type: dict
tree:
  description:
    - Digest of everything that was found, strays by their name and size. Two nodes hold the same if and only if
      theirs is the same.
  returned: success
  type: str
generation:
  description: Changes whenever a file is replaced or rewritten; an engine started on another generation has to
    be restarted.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockfile, tree, verify
from ansible_collections.baremetal.llm.plugins.module_utils.weights.progress import Progress


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "raw", "required": True},
            "deep": {"type": "bool", "default": False},
            "jobs": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    notes = "" if module.check_mode else tree.aside(params["path"], "progress.json")
    try:
        lock = lockfile.load(params["lock"])
        result = verify.verify(
            params["path"],
            lock,
            deep=params["deep"],
            jobs=params["jobs"],
            save=not module.check_mode,
            progress=Progress(notes, "verifying", lockfile.total_bytes(lock)),
        )
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
