#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: npu_info
short_description: Read the Ascend NPUs of one host
version_added: 0.1.0
description:
  - Reads chips, memory, health, processes, driver and firmware with C(npu-smi), the network ports of the NPUs with
    C(hccn_tool), and the files that driver, firmware and CANN leave on the host.
  - It reports and does not judge. What cannot be read is V(null) or empty and adds a line to RV(problems); a host
    without NPUs or without a driver has RV(available) V(false) and says why in RV(reason).
  - The NPU id, the logic id and the physical id of a chip are three different numbers. C(hccn_tool) and
    C(/dev/davinciN) go by the physical id.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  npu_smi:
    description:
      - Path of C(npu-smi). Empty looks below the driver, in C(/usr/local/bin), C(/usr/local/sbin) and on the C(PATH).
    type: str
    default: ""
  hccn_tool:
    description:
      - Path of C(hccn_tool). Empty looks below the driver, then in the same folders as for O(npu_smi).
    type: str
    default: ""
  hccn_conf:
    description:
      - Path of C(hccn.conf). Empty is C(/etc/hccn.conf). Reading it commonly needs root.
    type: str
    default: ""
  network:
    description:
      - Whether to ask the NPUs for their network ports.
    type: bool
    default: true
  timeout:
    description:
      - Seconds allowed for the whole reading. A tool that hangs is not asked again.
    type: float
    default: 30.0
"""

EXAMPLES = r"""
- name: Read the NPUs of this host
  baremetal.llm.npu_info:
  register: npus

- name: Read the chips alone, with a tool that is elsewhere
  baremetal.llm.npu_info:
    npu_smi: /opt/ascend/bin/npu-smi
    network: false
  register: npus
"""

RETURN = r"""
available:
  description: Whether at least one chip could be read.
  returned: always
  type: bool
reason:
  description: Why no chip could be read and what to do, empty where RV(available) is V(true).
  returned: always
  type: str
driver_version:
  description: Version of the driver as the boards tell it, else C(version.info), else the table of C(npu-smi).
  returned: always
  type: str
firmware_version:
  description: Version of the firmware if all boards tell the same, else the one of C(version.info).
  returned: always
  type: str
compatibility:
  description:
    - Whether driver and firmware fit, V(OK), V(NOK), V(UNKNOWN) or V(NOT SUPPORT), the worst of all cards; empty where
      none tells.
  returned: always
  type: str
layout:
  description: Layout of the table, V(910), V(A3), V(310P), V(310), V(950), or empty.
  returned: always
  type: str
tool_version:
  description: Version of C(npu-smi).
  returned: always
  type: str
tools:
  description: Paths of C(npu_smi) and C(hccn_tool), empty where not found.
  returned: always
  type: dict
chips:
  description:
    - The chips, each with C(npu_id), C(chip_id), C(logic_id), C(phy_id), C(name), C(product), C(health),
      C(error_codes), C(power_w), C(temperature_c), C(bus_id), C(aicore_percent), C(memory_kind) (V(HBM) or V(DDR)),
      C(memory_total_mib), C(memory_used_mib), C(firmware_version), C(software_version).
  returned: always
  type: list
  elements: dict
processes:
  description: Processes on the chips, each with C(npu_id), C(chip_id), C(pid), C(name), C(memory_mib).
  returned: always
  type: list
  elements: dict
network:
  description:
    - Network port of each device, with C(phy_id), C(link) (V(UP) or V(DOWN)), C(net_health), C(ip), C(netmask),
      C(gateway), C(netdetect), C(tls) (bool), and the same from C(hccn.conf) as C(conf_ip), C(conf_netmask),
      C(conf_gateway), C(conf_tls).
    - A value is V(null) where it is not known; an address is empty where none is set.
  returned: always
  type: list
  elements: dict
network_supported:
  description: Whether the NPUs have network ports, V(null) where that is not known.
  returned: always
  type: bool
network_reason:
  description: Why RV(network) is empty.
  returned: always
  type: str
hccn_conf:
  description: C(path) of C(hccn.conf), whether it is C(readable), and the C(reason) if not.
  returned: always
  type: dict
conf_disagreements:
  description: Where C(hccn.conf) and a device differ, each with C(phy_id), C(key), C(conf), C(device).
  returned: always
  type: list
  elements: dict
versions:
  description: What C(version.info) of C(driver) and C(firmware) say, with their keys in lower case.
  returned: always
  type: dict
install:
  description:
    - How the driver was installed, C(path), C(user), C(group), C(type), and C(for_all), whether all users may use it.
  returned: always
  type: dict
cann:
  description: CANN packages, each with C(version), C(path), C(compatible_version).
  returned: always
  type: list
  elements: dict
pci:
  description: NPUs on the PCI bus, each with C(bus_id), C(device_id), C(family).
  returned: always
  type: list
  elements: dict
lost:
  description: NPUs on the PCI bus that C(npu-smi) does not list, each with C(bus_id), C(reason).
  returned: always
  type: list
  elements: dict
device_nodes:
  description: Numbers of C(davinci) nodes, and whether C(manager), C(devmm_svm) and C(hisi_hdc) exist.
  returned: always
  type: dict
problems:
  description: What could not be read, or is told differently by two sources, one sentence each.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.ascend.reader import NpuReader


def main():
    module = AnsibleModule(
        argument_spec={
            "npu_smi": {"type": "str", "default": ""},
            "hccn_tool": {"type": "str", "default": ""},
            "hccn_conf": {"type": "str", "default": ""},
            "network": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 30.0},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **NpuReader(**module.params).read())


if __name__ == "__main__":
    main()
