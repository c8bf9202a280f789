#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_share
short_description: Bring weights from one host to all others, in the time of one copy
version_added: 0.3.0
description:
  - Run it on every host of the chain. Each host takes the files from the host before it and serves the host behind it,
    so every link carries every byte once. Where the host before it does not answer it takes the next one up the chain.
  - Every piece is proved against the lock before it counts, whoever sent it. What lies on a host already and is good is
    not sent again, what is damaged is repaired by the pieces that are wrong, and a run that was cut off goes on.
  - The files are put in place when all of them are proved and on the disk, so a reader never sees half of one.
  - The work is done by processes that stay behind (C(llm-share)). They listen on O(address) alone, accept nobody but
    the addresses of O(chain), and end by themselves when nobody has asked for anything for O(linger) seconds.
  - A host that sees the file system of the seed has nothing to do and says so in RV(shared).
author:
  - The baremetal.llm authors (@baremetal-llm)
seealso:
  - module: baremetal.llm.weights_torrent
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  path:
    description:
      - Folder that the engine reads; made with mode 0750, its files with mode 0640.
    type: path
    required: true
  lock:
    description:
      - The lock that M(baremetal.llm.weights_torrent) returned on the seed, as a mapping or as the path of a JSON file
        on the host.
    type: raw
  host:
    description:
      - Inventory name of this host.
    type: str
  address:
    description:
      - Address of this host on the network that the weights go over; one of O(chain).
    type: str
  port:
    description:
      - TCP port of the first process; each further one has the next port.
    type: int
    default: 29600
  chain:
    description:
      - All hosts in their order, the seed first, this host among them.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description:
          - Inventory name of the host.
        type: str
        required: true
      address:
        description:
          - Its address.
        type: str
        required: true
  torrents:
    description:
      - The torrents, in the order in which M(baremetal.llm.weights_torrent) returned them. Names are looked up in
        RV(torrents_dir), where they must have been copied to. Engine V(rsync) needs none.
    type: list
    elements: str
    default: []
  processes:
    description:
      - As given to M(baremetal.llm.weights_torrent).
    type: int
    default: 1
  engine:
    description:
      - What carries the bytes, the same on all hosts. V(rsync) needs no library, passes on whole files instead of
        pieces, and proves each file when it has come.
      - V(auto) is V(libtorrent) where it can run on this host.
    type: str
    choices: [auto, libtorrent, rsync]
    default: auto
  wheel:
    description:
      - Path on the host of the wheel of libtorrent for its Python and processor, which O(state=ready) unpacks below
        O(tools_dir). Nothing is installed into any Python.
    type: path
    default: ""
  wheel_sha256:
    description:
      - SHA-256 of O(wheel).
    type: str
    default: ""
  wheels:
    description:
      - Folder on the control node with wheels of libtorrent, from which O(state=ready) takes the one that the host
        needs. Empty downloads it there once.
    type: path
    default: ""
  tools_dir:
    description:
      - Folder for the unpacked wheel.
    type: path
    default: /var/lib/baremetal-llm/tools
  rate_limit:
    description:
      - Bytes a second that this host sends, and receives, at most; V(0) is no limit.
    type: int
    default: 0
  owner:
    description:
      - User that the files belong to, by name or number; empty leaves the user that runs the module.
    type: str
    default: ""
  group:
    description:
      - Group that the files belong to, by name or number.
    type: str
    default: ""
  linger:
    description:
      - Seconds that this host goes on serving after everything is complete and nobody is connected.
    type: int
    default: 600
  speed_mbps:
    description:
      - Speed of the link in Mbit/s, by which queues are measured; V(0) is unknown.
    type: int
    default: 0
  shared_token:
    description:
      - What M(baremetal.llm.weights_torrent) returned on the seed.
    type: str
    default: ""
  timeout:
    description:
      - Seconds that O(state=complete) waits.
    type: float
    default: 86400
  wait:
    description:
      - Seconds that O(state=followed) waits for the end.
    type: float
    default: 0
  state:
    description:
      - V(ready) unpacks the wheel and says which engines can run here.
      - V(started) sees that this host takes part, and returns at once. Processes that share the same are left alone,
        those of another chain are replaced, those of another lock are an error.
      - V(followed) returns how far it is, at the end or after O(wait) seconds.
      - V(complete) does both until every byte is in place, and fails when that does not come about.
      - V(stopped) ends the processes and removes what they need no more; the weights stay, and what came of files that
        are not whole yet.
    type: str
    choices: [ready, started, followed, complete, stopped]
    default: complete
"""

EXAMPLES = r"""
- name: Take part
  baremetal.llm.weights_share:
    path: /var/lib/baremetal-llm/weights/deepseek-r1-w8a8
    lock: "{{ hostvars['node1'].torrents.lock }}"
    torrents: "{{ hostvars['node1'].torrents.torrents | map(attribute='name') }}"
    host: "{{ inventory_hostname }}"
    address: 192.0.2.12
    chain:
      - {host: node1, address: 192.0.2.11}
      - {host: node2, address: 192.0.2.12}
    state: started

- name: Say how far it is
  baremetal.llm.weights_share:
    path: /var/lib/baremetal-llm/weights/deepseek-r1-w8a8
    lock: "{{ hostvars['node1'].torrents.lock }}"
    host: "{{ inventory_hostname }}"
    address: 192.0.2.12
    chain:
      - {host: node1, address: 192.0.2.11}
      - {host: node2, address: 192.0.2.12}
    state: followed
    wait: 60
"""

RETURN = r"""
engines:
  description: Why V(libtorrent) and V(rsync) cannot run here, empty where they can.
  returned: when O(state=ready)
  type: dict
  contains:
    libtorrent:
      description: The reason.
      type: str
    rsync:
      description: The reason.
      type: str
python:
  description: Version of the Python that runs the module, such as 3.11.
  returned: when O(state=ready)
  type: str
machine:
  description: Processor, such as x86_64.
  returned: when O(state=ready)
  type: str
torrents_dir:
  description: Folder on this host for the torrents.
  returned: when O(state=ready)
  type: str
wrong:
  description: Files that were missing or wrong when it began, each with the reason.
  returned: when O(state=started) or O(state=complete)
  type: list
  elements: str
complete:
  description: Whether every byte is in place, proved and on the disk.
  returned: when O(state=followed) or O(state=complete)
  type: bool
state:
  description: One of checking, sharing, placing, complete and failed; empty where nothing was started.
  returned: when O(state=followed) or O(state=complete)
  type: str
engine:
  description: What carries the bytes.
  returned: when O(state=followed) or O(state=complete)
  type: str
shared:
  description: Whether this host sees the file system of the seed, so that nothing had to be brought.
  returned: when O(state=followed) or O(state=complete)
  type: bool
bytes_total:
  description: Bytes of all files.
  returned: when O(state=followed) or O(state=complete)
  type: int
bytes_done:
  description: Bytes that are here and proved.
  returned: when O(state=followed) or O(state=complete)
  type: int
bytes_resumed:
  description: Those of RV(bytes_done) that were here and good at the beginning.
  returned: when O(state=followed) or O(state=complete)
  type: int
bytes_received:
  description: Bytes that came from other hosts, with what the protocol adds.
  returned: when O(state=followed) or O(state=complete)
  type: int
bytes_sent:
  description: Bytes that went to other hosts, with what the protocol adds.
  returned: when O(state=followed) or O(state=complete)
  type: int
rate:
  description: Bytes a second that come in now.
  returned: when O(state=followed) or O(state=complete)
  type: int
seconds:
  description: How long it took, or takes by now.
  returned: when O(state=followed) or O(state=complete)
  type: float
peers:
  description: What went over the link with each other host.
  returned: when O(state=followed) or O(state=complete)
  type: list
  elements: dict
  contains:
    host:
      description: Inventory name.
      type: str
    received:
      description: Bytes of files that came from it.
      type: int
    sent:
      description: Bytes of files that went to it.
      type: int
    connected:
      description: Whether there is a connection now.
      type: bool
    asking:
      description: Whether it is connected and lacks what this host has.
      type: bool
    banned:
      description: Whether it sent something wrong and is not asked any more.
      type: bool
error:
  description: What went wrong; empty where nothing did.
  returned: when O(state=followed) or O(state=complete)
  type: dict
  contains:
    msg:
      description: What went wrong.
      type: str
    wanted:
      description: What would have been right.
      type: str
    found:
      description: What was there instead.
      type: str
    remedy:
      description: What to do about it.
      type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import control

LINK = {"host": {"type": "str", "required": True}, "address": {"type": "str", "required": True}}


def act(params, check):
    """Return what the module returns for the state that is asked for."""
    path = os.path.realpath(params["path"])
    if params["state"] == "ready":
        return control.ready(path, params["tools_dir"], params["wheel"], params["wheel_sha256"], check=check)
    if params["state"] == "stopped":
        return {"changed": control.stop(path, check=check)}
    spec = control.spec_of(params)
    if params["state"] == "followed":
        return {"changed": False, **control.follow(spec, params["wait"])}
    begun = control.start(spec, check=check)
    result = {"changed": bool(begun["wrong"]), **begun, "diff": diff(begun["wrong"])}
    if params["state"] == "complete" and not check:
        result.update(control.complete(spec, params["timeout"]))
    return result


def diff(wrong):
    if not wrong:
        return {}
    right = [f"{line.rpartition(' ')[0]} as locked\n" for line in wrong]
    return {"before": "".join(f"{line}\n" for line in wrong), "after": "".join(right)}


def main():
    needed = ("lock", "host", "address", "chain")
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "raw"},
            "host": {"type": "str"},
            "address": {"type": "str"},
            "port": {"type": "int", "default": 29600},
            "chain": {"type": "list", "elements": "dict", "default": [], "options": LINK},
            "torrents": {"type": "list", "elements": "str", "default": []},
            "processes": {"type": "int", "default": 1},
            "engine": {"type": "str", "choices": ["auto", "libtorrent", "rsync"], "default": "auto"},
            "wheel": {"type": "path", "default": ""},
            "wheel_sha256": {"type": "str", "default": ""},
            "wheels": {"type": "path", "default": ""},
            "tools_dir": {"type": "path", "default": "/var/lib/baremetal-llm/tools"},
            "rate_limit": {"type": "int", "default": 0},
            "owner": {"type": "str", "default": ""},
            "group": {"type": "str", "default": ""},
            "linger": {"type": "int", "default": 600},
            "speed_mbps": {"type": "int", "default": 0},
            # No secret: it only has to be another one on every seed.
            "shared_token": {"type": "str", "default": "", "no_log": False},
            "timeout": {"type": "float", "default": 86400},
            "wait": {"type": "float", "default": 0},
            "state": {
                "type": "str",
                "choices": ["ready", "started", "followed", "complete", "stopped"],
                "default": "complete",
            },
        },
        required_if=[("state", state, needed) for state in ("started", "followed", "complete")],
        required_together=[("wheel", "wheel_sha256")],
        supports_check_mode=True,
    )
    try:
        result = act(module.params, module.check_mode)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error.filename or module.params['path']}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
