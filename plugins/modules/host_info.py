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
  - Reads distribution, kernel, processor, memory, network interfaces, routes, listening ports, disks, Pythons, Docker,
    RDMA devices and the clock of a host from C(/proc), C(/sys), C(/etc), system calls and Docker's socket. No package
    is needed on the host.
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
  find_pythons:
    description:
      - Whether to ask the Python interpreters on the C(PATH). Each takes tens of milliseconds.
      - They are asked in any case when O(pythons) names one.
    type: bool
    default: false
  libraries:
    description:
      - Names of shared libraries (sonames); RV(libraries) then tells which the dynamic loader finds.
    type: list
    elements: str
    default: []
  peer:
    description:
      - Address or name of another machine. RV(route_interface) and RV(route_source) then tell of the route to it;
        nothing is sent there.
    type: str
    default: ""
  images:
    description:
      - Container images; RV(docker) then tells the id that Docker Engine knows each by.
    type: list
    elements: str
    default: []
  read_rate:
    description:
      - A place whose reading rate is measured into RV(read_rate). Without it none is measured.
    type: dict
    suboptions:
      path:
        description:
          - A file, or a folder of which the largest file is read (among the first 2000 entries, links not followed).
        type: str
        required: true
      bytes:
        description:
          - How much is read at most.
        type: int
        default: 268435456
      seconds:
        description:
          - How long is read at most.
        type: float
        default: 3.0
  weights:
    description:
      - Folders in which the headers of weights are looked for; RV(weights) tells of the first that has any.
    type: list
    elements: str
    default: []
  run_dir:
    description:
      - Run folder of a deployment on this host; RV(service) then tells what runs there, under a supervisor or in a
        container.
    type: str
    default: ""
  timeout:
    description:
      - Seconds allowed for each program or service that is asked. Docker's engine is given 5 at most.
    type: float
    default: 10.0
"""

EXAMPLES = r"""
- name: Read this host
  baremetal.llm.host_info:
    paths:
      - /var/lib/baremetal-llm
  register: host

- name: Read it with its Pythons, the way to the first node, and the rate of the disk with the weights
  baremetal.llm.host_info:
    find_pythons: true
    peer: 192.0.2.10
    read_rate:
      path: /var/lib/baremetal-llm/weights
  register: host
"""

RETURN = r"""
hostname:
  description: Name of the host.
  returned: always
  type: str
hostname_addresses:
  description: IPv4 addresses that the host's own name resolves to on it, by C(/etc/hosts) or else within 3 seconds by
    its resolver.
  returned: always
  type: list
  elements: str
user:
  description: The user that the module ran as, C(uid).
  returned: always
  type: dict
os:
  description: The distribution, C(id), C(version) and C(name) by C(/etc/os-release).
  returned: always
  type: dict
kernel:
  description: C(release), C(machine), C(libc), and whether the C(headers) that modules are built with are there.
  returned: always
  type: dict
sysctl:
  description: C(vm.swappiness), C(kernel.numa_balancing), C(vm.overcommit_memory) as numbers,
    C(net.ipv4.ip_local_port_range) and C(net.ipv4.ip_local_reserved_ports) as text; null for what the kernel has not.
  returned: always
  type: dict
thp:
  description: Mode of transparent huge pages, V(always), V(madvise) or V(never); empty where the kernel has none.
  returned: always
  type: str
selinux:
  description: V(enforcing), V(permissive) or V(disabled); empty where nothing tells of SELinux.
  returned: always
  type: str
firewall:
  description: Names of the firewalls that seem to be at work in C(active), V(firewalld), V(iptables), V(nftables) or
    V(ufw). A best effort without running a program; the iptables tables of Docker count too.
  returned: always
  type: dict
cpu:
  description: C(model), C(vendor), usable C(cores), C(flags), and the frequency C(governors) in use, sorted and each
    once; none where the frequency cannot be chosen.
  returned: always
  type: dict
memory:
  description: C(total), C(available), C(swap_total) and C(swap_free) in bytes, C(hugepages_total) and C(hugepages_free)
    as counts, and C(hugepage_bytes), the size of one. Null is not told.
  returned: always
  type: dict
numa:
  description: Count of NUMA C(nodes), and C(memory_bytes) of each in their order; 0 nodes where the kernel does not
    tell.
  returned: always
  type: dict
limits:
  description: Limits of the process that the module ran in, C(memlock_soft) and C(memlock_hard) in bytes,
    C(nofile_soft) and C(nofile_hard) as counts. Null is unlimited.
  returned: always
  type: dict
interfaces:
  description:
    - Network interfaces, each with C(name), C(ipv4), C(ipv6), C(up), C(carrier), C(mtu), C(speed_mbps), C(driver),
      C(mac), C(kind), C(master), C(rdma).
    - C(ipv4) and C(ipv6) list every address with C(address) and C(prefix). C(kind) is V(physical), V(bridge), V(bond),
      V(vlan), V(veth), V(loopback) or V(other). C(master) is the bridge or bond that it belongs to, C(rdma) the names
      of the RDMA devices on it.
  returned: always
  type: list
  elements: dict
route_interface:
  description: Interface of the IPv4 default route, or with O(peer) of the route to it; where O(peer) is an address of
    this host, the interface that has it. Empty without a route.
  returned: always
  type: str
route_source:
  description: Address that the host would send from to O(peer); empty without O(peer) or a route.
  returned: always
  type: str
proxies:
  description: Proxy variables in the module's environment or C(/etc/environment), each with C(host:port) and no
    credentials; the value is empty where it cannot be understood. C(no_proxy) is not among them.
  returned: always
  type: dict
ports_in_use:
  description: Listening TCP ports, each with C(port), C(address), C(pid), C(process).
  returned: always
  type: list
  elements: dict
disks:
  description: Mounted file systems, each with C(mount), C(device), C(fstype), C(total), C(free) in bytes. A network
    file system that does not answer within 3 seconds is left out.
  returned: always
  type: list
  elements: dict
paths:
  description:
    - For each path asked for C(kind), C(nearest), C(device), C(writable), C(total), C(free), C(bytes),
      C(bytes_complete).
    - C(kind) is V(folder), V(file), V(nothing), or V(unknown) for what could not be looked at, as on a file system
      that hangs. C(bytes) counts the files below a folder; C(bytes_complete) is false when that ended early, after
      200000 entries or 5 seconds, and C(bytes) is then what was counted.
  returned: always
  type: dict
read_rate:
  description: Result of O(read_rate), C(path), C(file), C(bytes), C(seconds), C(bytes_per_s), C(how), C(reason). C(how)
    is V(direct) past the page cache, or V(buffered). C(bytes_per_s) is null with a C(reason) when nothing was measured.
    Null without O(read_rate).
  returned: always
  type: dict
pythons:
  description: Pythons that answer, each with C(asked), C(path), C(version), C(implementation), C(makes_venv). None are
    asked without O(find_pythons) and O(pythons).
  returned: always
  type: list
  elements: dict
libraries:
  description: For each library asked for whether the dynamic loader finds it.
  returned: always
  type: dict
python_modules:
  description: Whether the Python that Ansible runs here has C(requests), which community.docker's modules import.
  returned: always
  type: dict
weights:
  description: What the safetensors files in the first of the folders O(weights) hold that has any, in bytes, by
    C(experts), C(mtp), C(rest), C(bytes) for all, C(tensors) for their number, and C(reason) where the headers do not
    tell. Empty without O(weights) or where no folder has any.
  returned: always
  type: dict
docker:
  description:
    - Path of the C(client), whether the engine's C(socket) is there, and what the C(engine) told; that is null with a
      C(reason) when it does not answer.
    - C(engine) has C(version), C(api_version), C(cgroup_driver), C(cgroup_version), C(storage_driver),
      C(default_runtime), C(runtimes), C(root_dir), C(live_restore), C(runc_version).
    - C(images) has the id of each of O(images), empty for one that is not there.
  returned: always
  type: dict
rdma:
  description:
    - RDMA devices, each with C(name), C(netdevs) and C(ports).
    - A port has C(port), C(state), C(phys_state), C(link_layer), C(rate) and C(gids), the entries of its GID table that
      are set, each with C(index), C(gid), C(type) and C(netdev).
  returned: always
  type: list
  elements: dict
rdma_nodes:
  description: Names under C(/dev/infiniband).
  returned: always
  type: list
  elements: str
clock:
  description: C(epoch_s), the host's clock in seconds, whether it is C(synchronized) by the kernel's word, and the
    C(estimated_error_s) while it is. Null is not told.
  returned: always
  type: dict
service:
  description: What runs in O(run_dir), C(runtime) (venv or docker), C(running), C(pids), C(port), C(memory_bytes),
    C(environment), C(environment_shared). A container has no environment.
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
from ansible_collections.baremetal.llm.plugins.module_utils.machine.host import HostReader
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.container import service_of


def main():
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "pythons": {"type": "list", "elements": "str", "default": []},
            "find_pythons": {"type": "bool", "default": False},
            "libraries": {"type": "list", "elements": "str", "default": []},
            "peer": {"type": "str", "default": ""},
            "images": {"type": "list", "elements": "str", "default": []},
            "weights": {"type": "list", "elements": "str", "default": []},
            "read_rate": {
                "type": "dict",
                "options": {
                    "path": {"type": "str", "required": True},
                    "bytes": {"type": "int", "default": 268435456},
                    "seconds": {"type": "float", "default": 3.0},
                },
            },
            "run_dir": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 10.0},
        },
        supports_check_mode=True,
    )
    options = module.params
    facts = HostReader(options["timeout"]).read(
        options["paths"],
        options["pythons"],
        options["libraries"],
        peer=options["peer"],
        find_pythons=options["find_pythons"],
        rate=options["read_rate"],
        images=options["images"],
        weights_in=options["weights"],
    )
    if options["run_dir"]:
        facts["service"] = service_of(os.path.realpath(options["run_dir"])).facts()
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
