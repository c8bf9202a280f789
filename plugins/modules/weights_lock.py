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
  - Returns the lock that later proves every copy of the weights; the files with their lengths and SHA-256.
  - A folder is read once, in parallel. Of a hub's repository the listing is taken, and what the listing does not prove
    is fetched and proved; files that have only git's SHA-1 are checked by that and locked by SHA-256.
  - Refuses what must not be locked; links, pickles, safetensors files that are cut off or do not fit their index,
    listings that are cut, names that lead out of the folder, files without any digest.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  path:
    description:
      - Folder with the weights. One of O(path) and O(source) is needed.
    type: path
  source:
    description:
      - Where the weights are published; C(hf://owner/name[@revision]), C(modelscope://owner/name[@revision]),
        C(modelers://owner/name[@revision]), C(https://host/base/) with a list C(SHA256SUMS) in it, or
        C(s3://bucket/prefix) with such a list or with SHA-256 checksums of all objects. A folder is taken as well.
      - Secrets do not belong in it.
    type: str
  endpoint:
    description:
      - Base URL of a mirror of the hub, or of the S3 server; by default the hub itself, or Amazon.
    type: str
    default: ""
  token:
    description:
      - Token for the hub or the web server; with S3 the session token of temporary keys. Only that host sees it.
    type: str
    default: ""
  access_key:
    description:
      - Access key for S3; without one requests are not signed.
    type: str
    default: ""
  secret_key:
    description:
      - Secret key for S3.
    type: str
    default: ""
  region:
    description:
      - Region of S3; by default C(us-east-1), which servers other than Amazon's take as well.
    type: str
    default: ""
  ca_file:
    description:
      - PEM file with the certificate of a private authority, trusted besides those of the host.
    type: path
  timeout:
    description:
      - Seconds for a connection, and for each silence within an answer.
    type: float
    default: 30.0
  dest:
    description:
      - Where to write the lock as JSON; nothing is written without it.
    type: path
  model:
    description:
      - Name of the model for the lock; by default that of the repository.
    type: str
    default: ""
  revision:
    description:
      - Revision that the lock says the weights were published as; by default the commit that the hub tells.
    type: str
    default: ""
  jobs:
    description:
      - Files that are hashed at a time; V(0) is one a core.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Lock what lies on the disk that was carried in
  baremetal.llm.weights_lock:
    path: /mnt/disk/DeepSeek-R1-W8A8
    dest: /var/lib/baremetal-llm/locks/deepseek-r1-w8a8.json
    model: deepseek-r1-w8a8

- name: Lock a revision of a hub, through a mirror
  baremetal.llm.weights_lock:
    source: hf://deepseek-ai/DeepSeek-R1@main
    endpoint: https://hub.example.com
    token: "{{ vault_hub_token }}"
    dest: locks/deepseek-r1.json
  delegate_to: localhost

- name: Lock what lies in a bucket
  baremetal.llm.weights_lock:
    source: s3://models/DeepSeek-R1-W8A8
    endpoint: https://minio.example.com:9000
    access_key: "{{ vault_s3_access_key }}"
    secret_key: "{{ vault_s3_secret_key }}"
    ca_file: /etc/pki/site-ca.pem
    model: deepseek-r1-w8a8
"""

RETURN = r"""
lock:
  description: C(model), C(revision) and C(files), each with C(path), C(size), C(sha256); of folders also C(merkle),
    the root of the tree that transfers are proved by (none for empty files).
  returned: success
  type: dict
left_out:
  description: Files of the source that are not in the lock, each with C(path) and C(reason).
  returned: success
  type: list
  elements: dict
notes:
  description: What a person should know of the lock.
  returned: success
  type: list
  elements: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import atomic
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockmaker, sources


def make(params, save):
    source = sources.parse(sources.as_given(params["path"] or params["source"]))
    hub = sources.open_source(
        source,
        endpoint=params["endpoint"],
        token=params["token"],
        access_key=params["access_key"],
        secret_key=params["secret_key"],
        region=params["region"],
        ca_file=params["ca_file"] or "",
        timeout=params["timeout"],
    )
    return lockmaker.from_source(hub, params["model"], params["revision"], jobs=params["jobs"], save=save)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "source": {"type": "str"},
            "endpoint": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "access_key": {"type": "str", "default": "", "no_log": True},
            "secret_key": {"type": "str", "default": "", "no_log": True},
            "region": {"type": "str", "default": ""},
            "ca_file": {"type": "path"},
            "timeout": {"type": "float", "default": 30.0},
            "dest": {"type": "path"},
            "model": {"type": "str", "default": ""},
            "revision": {"type": "str", "default": ""},
            "jobs": {"type": "int", "default": 0},
        },
        required_one_of=[("path", "source")],
        mutually_exclusive=[("path", "source")],
        supports_check_mode=True,
    )
    dest = module.params["dest"]
    try:
        made = make(module.params, save=not module.check_mode)
        lock = made.lock
        before = atomic.read_json(dest) if dest else None
        changed = bool(dest) and before != lock
        if changed and not module.check_mode:
            os.makedirs(os.path.dirname(os.path.abspath(dest)), mode=0o750, exist_ok=True)
            atomic.write_json(dest, lock, 0o640)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error.filename}: {error.strerror}")
    texts = [json.dumps(value, indent=2, sort_keys=True) + "\n" if value else "" for value in (before, lock)]
    diff = {"before": texts[0], "after": texts[1], "before_header": dest, "after_header": dest} if changed else {}
    module.exit_json(changed=changed, lock=lock, left_out=made.left_out, notes=made.notes, diff=diff)


if __name__ == "__main__":
    main()
