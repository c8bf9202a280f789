#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_files
short_description: Write the files that an engine is launched with
version_added: 0.1.0
description:
  - Makes folders, and writes a set of files into one of them in a single task.
  - It remembers in C(.baremetal-llm.json) what it wrote, and deletes what it wrote before and is no longer asked for;
    nothing else.
  - Every file is put in place whole, with its owner and mode.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  dir:
    description:
      - Folder of the files; made with mode 0750 where O(dirs) does not name it.
    type: path
    required: true
  dirs:
    description:
      - Folders to make before, outer ones first.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      mode:
        description: Permission bits, as octal digits in quotes.
        type: str
        default: "0750"
      owner:
        description: User and group, as C(1001:1001) or by names of the host. Left as it is where empty.
        type: str
        default: ""
  files:
    description:
      - Every file that shall be there.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name in O(dir), one path component.
        type: str
        required: true
      content:
        description: What is in it.
        type: str
        required: true
      mode:
        description: Permission bits, as octal digits in quotes.
        type: str
        default: "0640"
      owner:
        description: User and group, as C(1001:1001) or by names of the host. Left as it is where empty.
        type: str
        default: ""
  guard:
    description:
      - Write the guard of the group's ranks, C(rank_guard.py) of mode 0644, too.
    type: bool
    default: false
  group_key:
    description:
      - Key by which the guards of a group know each other, as hexadecimal digits. It is written together with
        O(secret_env) as C(secrets.json) of mode 0600, when either is given.
      - Where it is empty, the key that is there stays; where none is there, a new one is made. Do that on the first
        host of a group, and give the others what its file then holds as C(key).
    type: str
  secret_env:
    description:
      - Environment variables for the engine alone, kept out of every output.
    type: dict
  secrets_owner:
    description:
      - User and group of C(secrets.json), as C(1001:1001). Left as it is where empty.
    type: str
    default: ""
  state:
    description:
      - V(absent) deletes what this module wrote into O(dir), and the folders that it made as far as they are empty.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Write the engine's files on the first host of the group
  baremetal.llm.engine_files:
    dir: /var/lib/baremetal-llm/deployments/r1/launch
    dirs:
      - path: /var/lib/baremetal-llm/deployments/r1/work
        owner: "1001:1001"
    files:
      - name: config.json
        content: "{{ config | to_nice_json }}"
        owner: "1001:1001"
    guard: true
    group_key: ""
    secret_env:
      VLLM_API_KEY: "{{ api_key }}"
  register: written
"""

RETURN = r"""
digest:
  description: Identifies names, modes, owners and contents of all files; empty with O(state=absent).
  returned: success
  type: str
written:
  description: Folders and files that were made or changed, or would be in check mode.
  returned: success
  type: list
  elements: str
removed:
  description: Paths that were deleted, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.runtime import files, rank_guard


def guard_file():
    """Return the guard as a file to write; the module's payload has its source, not a path."""
    source = rank_guard.__loader__.get_source(rank_guard.__name__)
    return {"name": "rank_guard.py", "content": source, "mode": "0644", "owner": ""}


def present(module, folder):
    params = module.params
    wanted = [*params["files"], *([guard_file()] if params["guard"] else [])]
    private = None
    if params["group_key"] is not None or params["secret_env"] is not None:
        # The key stays on the host: a result is shown and kept.
        private = files.private_file(
            folder, params["group_key"] or "", params["secret_env"] or {}, params["secrets_owner"]
        )
    return files.apply(folder, params["dirs"], wanted, private, module.check_mode)


def main():
    module = AnsibleModule(
        argument_spec={
            "dir": {"type": "path", "required": True},
            "dirs": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "mode": {"type": "str", "default": "0750"},
                    "owner": {"type": "str", "default": ""},
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0640"},
                    "owner": {"type": "str", "default": ""},
                },
            },
            "guard": {"type": "bool", "default": False},
            "group_key": {"type": "str", "no_log": True},
            "secret_env": {"type": "dict", "no_log": True},
            "secrets_owner": {"type": "str", "default": "", "no_log": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    folder = os.path.normpath(module.params["dir"])
    try:
        if module.params["state"] == "present":
            result = present(module, folder)
        else:
            result = files.remove(folder, module.check_mode)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error.filename}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
