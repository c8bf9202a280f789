#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Read one host once
version_added: 0.1.0
description:
  - Reads kernel, processor, memory, network interfaces, listening ports, disks, Pythons, RDMA devices and the
    clock of a host
    from C(/proc), C(/sys) and system calls. No package is needed on the host.
  - It reports and does not judge. What cannot be read leaves its value empty and adds a line to RV(problems).
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  paths:
    description:
      - Paths to look at in particular; RV(paths) then tells what is there and how much space their file system has.
    type: list
    elements: str
    default: []
  pythons:
    description:
      - Python interpreters to ask before those on the C(PATH).
    type: list
    elements: str
    default: []
  libraries:
    description:
      - Names of shared libraries (sonames); RV(libraries) then tells which the dynamic loader finds.
    type: list
    elements: str
    default: []
  run_dir:
    description:
      - Run folder of a deployment on this host; RV(service) then tells what runs there.
    type: str
    default: ""
  timeout:
    description:
      - Seconds allowed for each program that is asked.
    type: float
    default: 10.0
"""

EXAMPLES = r"""
- name: Read this host
  baremetal.llm.host_info:
    paths:
      - /var/lib/baremetal-llm
  register: host
"""

RETURN = r"""
hostname:
  description: Name of the host.
  returned: always
  type: str
user:
  description: The user that the module ran as, C(uid).
  returned: always
  type: dict
kernel:
  description: C(release), C(machine) and C(libc).
  returned: always
  type: dict
cpu:
  description: C(model), usable C(cores) and C(flags).
  returned: always
  type: dict
memory:
  description: C(total), C(available) and C(swap_total) in bytes.
  returned: always
  type: dict
interfaces:
  description: Network interfaces, each with C(name), C(ipv4), C(ipv6), C(up), C(carrier), C(mtu),
    C(speed_mbps), C(driver).
  returned: always
  type: list
  elements: dict
route_interface:
  description: Interface of the default route, empty without one.
  returned: always
  type: str
ports_in_use:
  description: Listening TCP ports, each with C(port), C(address), C(pid), C(process).
  returned: always
  type: list
  elements: dict
disks:
  description: Mounted file systems, each with C(mount), C(device), C(fstype), C(total), C(free) in bytes.
  returned: always
  type: list
  elements: dict
paths:
  description: For each path asked for C(kind), C(nearest), C(device), C(writable), C(total), C(free), C(bytes).
  returned: always
  type: dict
pythons:
  description: Pythons that answer, each with C(asked), C(path), C(version), C(implementation), C(makes_venv).
  returned: always
  type: list
  elements: dict
libraries:
  description: For each library asked for whether the dynamic loader finds it.
  returned: always
  type: dict
docker:
  description: Path of the C(client), and whether the engine's C(socket) is there.
  returned: always
  type: dict
rdma:
  description: RDMA devices with their ports.
  returned: always
  type: list
  elements: dict
clock:
  description: C(epoch_s), the host's clock in seconds.
  returned: always
  type: dict
service:
  description: What runs in O(run_dir), C(running), C(pids), C(port), C(memory_bytes), C(environment),
    C(environment_shared).
  returned: when O(run_dir) is given
  type: dict
problems:
  description: What could not be read, one sentence each.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.host import HostReader
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.service import Service


def main():
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "pythons": {"type": "list", "elements": "str", "default": []},
            "libraries": {"type": "list", "elements": "str", "default": []},
            "run_dir": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    facts = HostReader(module.params["timeout"]).read(
        module.params["paths"], module.params["pythons"], module.params["libraries"]
    )
    if module.params["run_dir"]:
        facts["service"] = Service(os.path.realpath(module.params["run_dir"])).facts()
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
