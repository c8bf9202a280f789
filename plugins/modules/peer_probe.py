#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: peer_probe
short_description: Probe the network between the hosts of a group, both ways
version_added: 0.2.0
description:
  - Run it once on every host of a group, with any number of forks and in any order. Each host listens on the TCP ports
    of the plan for the moment of the probe, visits its peers there, compares clocks, sends full segments both ways,
    and lets each peer probe back. On Ascend the network devices of the NPUs ping each other with C(hccn_tool).
  - The listener is a process that stays behind for those hosts that come later. It ends by itself when every peer has
    been met or O(window) is over, or by C(SIGTERM). Its command line begins with C(BAREMETAL_LLM_PROBE) and the
    address, and it gives way to the listener of a later run. It writes no file and leaves nothing behind.
  - It answers only who knows O(token), connects only to the addresses in O(peers), and runs nothing of what it is told.
    The token itself is not sent.
  - It reports and does not judge. A peer that does not listen yet is no finding; that pair is complete when the peer
    comes. Join the results of all hosts to have every pair.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
attributes:
  check_mode:
    support: full
    details:
      - It behaves the same in check mode, listener included, for it changes nothing on the host.
options:
  host:
    description:
      - Inventory name of this host.
    type: str
    required: true
  address:
    description:
      - IPv4 address of this host in the plan. Listeners open on it, and connections start from it.
    type: str
    required: true
  peers:
    description:
      - The hosts of the group. This host may be among them.
    type: list
    elements: dict
    required: true
    suboptions:
      host:
        description:
          - Inventory name of the host.
        type: str
        required: true
      address:
        description:
          - IPv4 address of the host in the plan.
        type: str
        required: true
  ports:
    description:
      - TCP ports of the plan. A port that is in use is no error; peers then only see that something accepts.
    type: list
    elements: int
    default: []
  run:
    description:
      - Name of the run, the same on all hosts.
    type: str
    required: true
  token:
    description:
      - Secret of the run, the same on all hosts.
    type: str
    required: true
  window:
    description:
      - Seconds after which the listener ends, whoever is missing. With few forks it has to last until the last host.
        The module makes no visits after it either.
    type: float
    default: 60.0
  settle:
    description:
      - Seconds to wait for a peer to come from its side, when something is in the way to it.
    type: float
    default: 3.0
  timeout:
    description:
      - Seconds after which the module ends with what it has.
    type: float
    default: 30.0
  devices:
    description:
      - Network devices of the NPUs of this host.
    type: list
    elements: dict
    default: []
    suboptions:
      phy_id:
        description:
          - Physical id of the device.
        type: int
        required: true
      ip:
        description:
          - Address of the device.
        type: str
        required: true
  peer_devices:
    description:
      - Network devices of all hosts by inventory name, each a list as O(devices). This host may be among them.
    type: dict
    default: {}
  ring:
    description:
      - Inventory names in the order of the ring; without, that of O(peers).
    type: list
    elements: str
    default: []
  device_pattern:
    description:
      - Which devices ping which. With V(ring) each pings the one of its own index on every other host, and the
        index after it on the next host of the ring; with V(full) it pings every device of other hosts.
    type: str
    choices:
      - ring
      - full
      - none
    default: ring
  device_ping:
    description:
      - How devices are pinged, V(roce) by C(-ping) or V(hccs) by C(-hccs_ping) as on A3.
    type: str
    choices:
      - roce
      - hccs
    default: roce
  hccn_tool:
    description:
      - Path of C(hccn_tool).
    type: str
    default: /usr/local/Ascend/driver/tools/hccn_tool
"""

EXAMPLES = r"""
- name: Probe between all hosts of the group
  baremetal.llm.peer_probe:
    host: node1
    address: 192.0.2.11
    peers:
      - host: node1
        address: 192.0.2.11
      - host: node2
        address: 192.0.2.12
    ports:
      - 8000
      - 13389
    run: "20260101T120000"
    token: "{{ probe_token }}"
  register: probed
"""

RETURN = r"""
connections:
  description: One entry per direction and port, with C(from), C(to), C(port), C(ok), C(reason) and C(ms) of the
    connect. C(ok) is null where nothing is known, such as when the peer does not listen yet. Those from a peer are
    there when it has probed back.
  returned: always
  type: list
  elements: dict
clocks:
  description: Clocks that were compared, C(from), C(to), C(offset_s) of the clock of C(to) less that of C(from), and
    C(uncertainty_s).
  returned: always
  type: list
  elements: dict
paths:
  description: What a direction carries, with C(from), C(to), C(ok), C(mtu) in bytes as the sender's kernel has it,
    C(passes) as the largest TCP segment in bytes that passed where full ones did not, and C(reason).
    C(ok) is null where it could not be measured.
  returned: always
  type: list
  elements: dict
device_pings:
  description: Pings of network devices, C(from), C(to), C(from_phy_id), C(to_phy_id), C(to_ip), C(sent), C(received),
    C(reason). C(sent) and C(received) are null where they are not known.
  returned: always
  type: list
  elements: dict
not_probed:
  description: Pairs of network devices that the time did not last for, C(from), C(to), C(from_phy_id), C(to_phy_id),
    C(to_ip).
  returned: always
  type: list
  elements: dict
listening:
  description: Per port C(port), C(state) (V(listening), V(in_use) or V(refused)) and C(reason).
  returned: always
  type: list
  elements: dict
peers_met:
  description: Names of the peers with which both directions are known.
  returned: always
  type: list
  elements: str
seconds:
  description: How long it took.
  returned: always
  type: float
problems:
  description: What could not be understood or done, one sentence each.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.peers.prober import probe


def main():
    device = {"phy_id": {"type": "int", "required": True}, "ip": {"type": "str", "required": True}}
    peer = {"host": {"type": "str", "required": True}, "address": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "peers": {"type": "list", "elements": "dict", "required": True, "options": peer},
            "ports": {"type": "list", "elements": "int", "default": []},
            "run": {"type": "str", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "window": {"type": "float", "default": 60.0},
            "settle": {"type": "float", "default": 3.0},
            "timeout": {"type": "float", "default": 30.0},
            "devices": {"type": "list", "elements": "dict", "default": [], "options": device},
            "peer_devices": {"type": "dict", "default": {}},
            "ring": {"type": "list", "elements": "str", "default": []},
            "device_pattern": {"type": "str", "choices": ["ring", "full", "none"], "default": "ring"},
            "device_ping": {"type": "str", "choices": ["roce", "hccs"], "default": "roce"},
            "hccn_tool": {"type": "str", "default": "/usr/local/Ascend/driver/tools/hccn_tool"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **probe(module.params))


if __name__ == "__main__":
    main()
