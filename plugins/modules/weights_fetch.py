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
  - Brings only what is missing or wrong at the destination, from a folder on the same machine (a disk, a mounted
    share), a model hub, a web server or an S3 store.
  - Every file is hashed while it is on its way and renamed into place only when it is right, so a reader never
    sees half of one, and a run that is cut off goes on where it was.
  - Files that replace others wait until all are there, so a failure leaves the earlier revision whole.
  - Files that it installed for an earlier lock are kept beside the destination as an old revision, from which they
    come back without being fetched; M(baremetal.llm.weights_prune) deletes old revisions. Other files at the
    destination that are not in the lock are refused, never deleted.
  - While it runs, how far it is stands in the file C(.NAME.progress.json) beside the destination.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  source:
    description:
      - Where the weights come from; needed with O(state=present).
      - A folder, or C(hf://owner/name), C(modelscope://owner/name), C(modelers://owner/name), each with an optional
        C(@revision), C(https://host/base/) or C(s3://bucket/prefix).
      - Hubs are asked for the revision of the lock where that is a commit and O(source) names none.
    type: str
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
      - Files that are brought or hashed at a time; V(0) is one a core, and at least 8 for files from elsewhere.
    type: int
    default: 0
  patch:
    description:
      - What JSON files of the model have to say besides, by file; C(torch_dtype) of C(config.json) has to be C(float16)
        for cards without bfloat16. The lock that is returned records the change with its own digest; other hosts make
        it by themselves.
    type: dict
    default: {}
  owner:
    description:
      - User, by name or number, that the folder and its files belong to; left as it is where empty.
    type: str
    default: ""
  group:
    description:
      - Group, by name or number, that the folder and its files belong to; left as it is where empty.
    type: str
    default: ""
  endpoint:
    description:
      - Base URL of a mirror of the hub, or of an S3 server.
    type: str
    default: ""
  token:
    description:
      - Token for the hub or the web server; with S3 the session token of temporary keys.
    type: str
    default: ""
  access_key:
    description:
      - Access key for S3.
    type: str
    default: ""
  secret_key:
    description:
      - Secret key for S3.
    type: str
    default: ""
  region:
    description:
      - Region for S3.
    type: str
    default: ""
  ca_file:
    description:
      - PEM file on the host with certificates of a private authority, trusted besides those of the system.
    type: path
    default: ""
  timeout:
    description:
      - Seconds for a connection, and for each silence within an answer.
    type: float
    default: 30.0
  retries:
    description:
      - How often a request that failed is made again, and a connection that brings little is opened again.
    type: int
    default: 5
  client:
    description:
      - V(library) lets the hub's own client library bring the files, for sites whose mirror or proxy knows only that.
        What it brings is proved in the same way.
    type: str
    choices: [builtin, library]
    default: builtin
  client_python:
    description:
      - Interpreter on the host that has the library (C(huggingface_hub), C(modelscope) or C(openmind_hub)), with
        O(client=library); empty is the one that runs this module.
    type: path
    default: ""
  state:
    description:
      - V(absent) deletes the files that were installed in O(dest), folders that are empty then, and everything that
        is kept beside O(dest), old revisions too; nothing else.
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

- name: Install the weights from a mirror of Hugging Face
  baremetal.llm.weights_fetch:
    source: hf://deepseek-ai/DeepSeek-R1-0528
    endpoint: https://hf.mirror.example.com
    token: "{{ vault_hub_token }}"
    dest: /var/lib/baremetal-llm/weights/deepseek-r1-0528
    lock: /etc/baremetal-llm/locks/deepseek-r1-0528.json

- name: Install the weights from an S3 store in the datacentre
  baremetal.llm.weights_fetch:
    source: s3://models/deepseek-r1-0528
    endpoint: https://s3.example.com
    access_key: "{{ vault_s3_access_key }}"
    secret_key: "{{ vault_s3_secret_key }}"
    dest: /var/lib/baremetal-llm/weights/deepseek-r1-0528
    lock: /etc/baremetal-llm/locks/deepseek-r1-0528.json
"""

RETURN = r"""
fetched:
  description: Paths of the files that were brought, or would be in check mode.
  returned: when O(state=present)
  type: list
  elements: str
restored:
  description: Paths of the files that came back from what lay on the host, as an old revision.
  returned: when O(state=present)
  type: list
  elements: str
repaired:
  description: Those of RV(fetched) and RV(restored) that were there and wrong.
  returned: when O(state=present)
  type: list
  elements: str
bytes_fetched:
  description: Bytes of the files in RV(fetched).
  returned: when O(state=present)
  type: int
modes_changed:
  description: Paths whose permission bits or owner were set right.
  returned: when O(state=present)
  type: list
  elements: str
patched:
  description: Paths of the files of which the patched form was made, as the lock records it.
  returned: when O(state=present)
  type: list
  elements: str
removed:
  description:
    - With O(state=present) paths of an earlier lock that are an old revision now, with O(state=absent) full paths
      that were deleted.
  returned: success
  type: list
  elements: str
merkle:
  description: Root of the SHA-256 tree (BEP 52) of each file that is not empty, by path; empty in check mode.
  returned: when O(state=present)
  type: dict
lock:
  description: The lock with these roots.
  returned: when O(state=present)
  type: dict
seconds:
  description: How long it took.
  returned: when O(state=present)
  type: float
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import fetch, lockfile, place, sources


def changes_of(patch):
    """Return the option ``patch`` when it has the right form."""
    if not all(isinstance(values, dict) for values in patch.values()):
        raise LlmError(
            "patch has the wrong form",
            wanted="a mapping of files to mappings of keys to values",
            found=repr(patch)[:120],
            remedy="write it as {config.json: {torch_dtype: float16}}",
        )
    return patch


def present(module, lock):
    params = module.params
    result = fetch.fetch(
        sources.as_given(params["source"]),
        params["dest"],
        lock,
        jobs=params["jobs"],
        deep=params["deep"],
        check=module.check_mode,
        owner=place.owner_ids(params["owner"], params["group"]),
        changes=changes_of(params["patch"]),
        **{name: params[name] for name in fetch.Options._fields},
    )
    before = result.pop("before")
    wrong = {problem["path"]: problem["reason"] for problem in before["corrupt"]}
    brought = sorted(result["fetched"] + result["restored"])
    lines = [f"{path} {wrong.get(path, 'missing')}\n" for path in brought]
    lines += [f"{path} of an earlier lock\n" for path in result["removed"]]
    after = [f"{path} as locked\n" for path in brought]
    after += [f"{path} patched as locked\n" for path in result["patched"]]
    result["diff"] = {"before": "".join(lines), "after": "".join(after)} if result["changed"] else {}
    module.exit_json(**result)


def main():
    text = {"type": "str", "default": ""}
    secret = {"type": "str", "default": "", "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str"},
            "dest": {"type": "path", "required": True},
            "lock": {"type": "raw"},
            "deep": {"type": "bool", "default": False},
            "jobs": {"type": "int", "default": 0},
            "patch": {"type": "dict", "default": {}},
            "owner": text,
            "group": text,
            "endpoint": text,
            "token": secret,
            "access_key": secret,
            "secret_key": secret,
            "region": text,
            "ca_file": {"type": "path", "default": ""},
            "timeout": {"type": "float", "default": 30.0},
            "retries": {"type": "int", "default": 5},
            "client": {"type": "str", "choices": ["builtin", "library"], "default": "builtin"},
            "client_python": {"type": "path", "default": ""},
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
