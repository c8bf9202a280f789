#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_torrent
short_description: Make the torrents by which a folder of weights is shared
version_added: 0.3.0
description:
  - Run it on the seed, the host that has every file. It proves each file against the lock, learns the merkle root of
    each, and writes BitTorrent v2 torrents beside the folder, one for each group of files.
  - One reading pass does all of it. Where M(baremetal.llm.weights_fetch) or an earlier run has noted roots and piece
    layers and nothing has changed since, nothing is read.
  - The torrents are private, name no tracker, and follow from the lock alone, so every host can prove them.
author:
  - The baremetal.llm authors (@baremetal-llm)
seealso:
  - module: baremetal.llm.weights_share
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  path:
    description:
      - Folder with the weights.
    type: path
    required: true
  lock:
    description:
      - The lock, as a mapping or as the path of a JSON file on the host.
    type: raw
    required: true
  processes:
    description:
      - Groups of files, each with about as many bytes, each shared by a process of its own. One process fills 5 to 10
        Gb/s.
    type: int
    default: 1
  jobs:
    description:
      - Files that are read at a time; V(0) is one a core.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Make the torrents
  baremetal.llm.weights_torrent:
    path: /var/lib/baremetal-llm/weights/deepseek-r1-w8a8
    lock: "{{ lookup('ansible.builtin.file', 'deepseek-r1-w8a8.json') | from_json }}"
    processes: 4
  register: torrents
"""

RETURN = r"""
lock:
  description: The lock with the merkle root of every file, which the other hosts need.
  returned: success
  type: dict
torrents:
  description:
    - One for each group of files. Empty in check mode where roots are not known yet.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the file, the same on every host.
      type: str
    path:
      description: Its full path on this host.
      type: str
    infohash:
      description: The info-hash of version 2, in hexadecimal.
      type: str
    files:
      description: How many files the group has; empty files are in no group.
      type: int
    bytes:
      description: Bytes of these files.
      type: int
shared_token:
  description:
    - Text that lies beside the folder. A host that finds the same text beside its own folder sees the same file system.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockfile
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import seed


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "raw", "required": True},
            "processes": {"type": "int", "default": 1},
            "jobs": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        lock = lockfile.load(params["lock"])
        path = os.path.realpath(params["path"])
        result = seed.make(path, lock, params["processes"], jobs=params["jobs"], check=module.check_mode)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error.filename or params['path']}: {error.strerror}")
    before, after = result.pop("before"), [entry["name"] for entry in result["torrents"]]
    result["diff"] = {"before": _lines(before), "after": _lines(after)} if result["changed"] else {}
    module.exit_json(**result)


def _lines(names):
    return "".join(f"{name}\n" for name in sorted(names))


if __name__ == "__main__":
    main()
