#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_prune
short_description: Delete old revisions of weights
version_added: 0.1.0
description:
  - Deletes files that M(baremetal.llm.weights_fetch) has kept when another lock replaced them. The weights that the
    engine reads are left as they are.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  path:
    description:
      - Folder that the engine reads.
    type: path
    required: true
  keep:
    description:
      - How many old revisions stay, those that were replaced last.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Keep the revision before this one and free the rest
  baremetal.llm.weights_prune:
    path: /var/lib/baremetal-llm/weights/deepseek-r1-0528
    keep: 1
"""

RETURN = r"""
removed:
  description: The revisions that were deleted, or would be in check mode, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    identity:
      description: Digest of which bytes the revision names.
      type: str
    model:
      description: Its model, as its lock has it.
      type: str
    revision:
      description: Its revision, as its lock has it.
      type: str
    files:
      description: Number of files that were kept of it.
      type: int
    bytes:
      description: Bytes that come free.
      type: int
bytes:
  description: Bytes that come free in all.
  returned: success
  type: int
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import place


def main():
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "keep": {"type": "int", "default": 0}},
        supports_check_mode=True,
    )
    path, keep = module.params["path"], module.params["keep"]
    try:
        if keep < 0:
            raise LlmError("keep is no number of revisions", wanted="0 or more", found=str(keep))
        result = place.prune(path, keep, check=module.check_mode)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error.filename or path}: {error.strerror}")
    lines = [f"{one['model']} {one['revision']} ({one['identity'][:12]})\n" for one in result["removed"]]
    diff = {"before": "".join(lines), "after": ""} if lines else {}
    module.exit_json(changed=bool(lines), diff=diff, **result)


if __name__ == "__main__":
    main()
