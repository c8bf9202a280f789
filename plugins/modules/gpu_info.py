#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Read the NVIDIA GPUs of one host
version_added: 0.1.0
description:
  - Reads the GPUs that C(nvidia-smi) tells of, how they are connected, and what they need around them, from
    C(nvidia-smi), C(/proc), C(/sys), systemd, the fabric manager and the container toolkit.
  - It reports and does not judge. What cannot be read is V(null) or empty and adds a line to RV(problems).
  - A host without GPUs, or with a broken driver, is no failure of the module; see RV(available) and RV(reason).
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes.reader
options:
  nvidia_smi:
    description:
      - Path or name of C(nvidia-smi).
      - When empty it is searched for on the C(PATH) and in C(/usr/bin), C(/usr/local/bin) and C(/opt/bin).
    type: str
    default: ""
  timeout:
    description:
      - Seconds allowed for the whole read.
    type: float
    default: 30.0
seealso:
  - module: baremetal.llm.host_info
"""

EXAMPLES = r"""
- name: Read the GPUs of this host
  baremetal.llm.gpu_info:
  register: gpus

- name: Show why they cannot be used
  ansible.builtin.debug:
    var: gpus.reason
  when: not gpus.available
"""

RETURN = r"""
available:
  description: V(false) only when not one GPU could be read.
  returned: always
  type: bool
reason:
  description: Why no GPU could be read and what to do about it; empty when RV(available) is V(true).
  returned: always
  type: str
driver_version:
  description: Version of the driver that C(nvidia-smi) tells.
  returned: always
  type: str
cuda_version:
  description: Newest CUDA version that the driver runs.
  returned: always
  type: str
schema:
  description: Version of the XML of C(nvidia-smi), V(v11), V(v12) or V(v13); empty for one that is not known.
  returned: always
  type: str
gpus:
  description: The GPUs in the order of C(nvidia-smi). Texts that are not told are empty, all else is V(null) then.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Index that C(nvidia-smi) and CUDA in PCI order use. There are gaps where a GPU is lost.
      type: int
    uuid:
      description: UUID of the GPU.
      type: str
    name:
      description: Product name.
      type: str
    bus_id:
      description: PCI address as C(/sys) writes it.
      type: str
    serial:
      description: Serial number.
      type: str
    product_architecture:
      description: Architecture, such as V(Hopper).
      type: str
    compute_capability:
      description: CUDA compute capability, such as V(9.0).
      type: str
    memory_total_mib:
      description: Memory in MiB.
      type: int
    memory_used_mib:
      description: Memory in use in MiB, without what is reserved.
      type: int
    memory_reserved_mib:
      description: Memory in MiB that the driver keeps for itself.
      type: int
    mig:
      description: Whether MIG is on. V(null) for a card that has no MIG, which is not V(false).
      type: bool
    mig_devices:
      description: Number of MIG devices.
      type: int
    ecc_mode:
      description: Whether ECC is on; V(null) for a card that has none.
      type: bool
    ecc_uncorrected:
      description: Sum of the uncorrected ECC errors since the driver was loaded; V(null) where no counter is told.
      type: int
    ecc_uncorrected_aggregate:
      description: Sum of the uncorrected ECC errors in the life of the GPU.
      type: int
    remap_pending:
      description: Whether the remapping of a memory row waits for a reset.
      type: bool
    remap_failure:
      description: Whether the remapping of a memory row has failed.
      type: bool
    retired_pending:
      description: Whether the retirement of a memory page waits for a reset.
      type: bool
    recovery_action:
      description: What the driver says is needed, V(None) for nothing; empty before the drivers 570.
      type: str
    reset_required:
      description: Whether any field of the GPU says that it needs a reset.
      type: bool
    persistence_mode:
      description: Whether the persistence mode is on.
      type: bool
    temperature_c:
      description: Temperature in degrees Celsius.
      type: int
    power_w:
      description: Power draw in watts.
      type: float
    fabric_state:
      description: State of the NVLink fabric as printed, V(Completed) when it is set up; empty without a fabric.
      type: str
    fabric_status:
      description: Status of the NVLink fabric as printed, V(Success) when it is good; empty without a fabric.
      type: str
    fabric_health:
      description: Summary of the health of the NVLink fabric as printed.
      type: str
lost:
  description:
    - GPUs that are there and that C(nvidia-smi) does not list or cannot open, each with C(bus_id) and C(reason).
    - Known from the PCI bus, the driver and what C(nvidia-smi) says, not from its exit status.
  returned: always
  type: list
  elements: dict
processes:
  description: Processes on the GPUs, each with C(gpu_index), C(pid), C(name), C(memory_mib). One on several GPUs is
    listed for each.
  returned: always
  type: list
  elements: dict
topology:
  description:
    - C(links) has for each GPU and network card how it is connected to each other one, such as V(NV18), V(PIX), V(SYS).
    - C(nics) has the device of each network card, C(cpu_affinity) and C(numa_affinity) the cores and NUMA node of each
      GPU.
  returned: always
  type: dict
fabric_manager:
  description: Whether the fabric manager is C(installed), whether it is C(active) (V(null) where nothing tells), its
    C(version), and the number of C(nvswitches) on the PCI bus.
  returned: always
  type: dict
device_links:
  description: Whether C(/dev/char) has links to the GPUs' nodes; without them a C(systemctl daemon-reload) takes the
    GPUs away from running containers where Docker's cgroup driver is systemd.
  returned: always
  type: bool
container_toolkit:
  description: Whether the NVIDIA container toolkit is C(installed), its C(version) and C(path).
  returned: always
  type: dict
kernel_module:
  description: C(version) of the nvidia kernel module that is loaded, empty without one; C(peermem), whether a module
    for peer memory (GPUDirect RDMA) is loaded.
  returned: always
  type: dict
pci:
  description: GPUs on the PCI bus, each with C(bus_id), C(device_id), and the C(driver) that it is bound to.
  returned: always
  type: list
  elements: dict
tools:
  description: C(nvidia_smi), the path of the program that was asked, empty without one.
  returned: always
  type: dict
problems:
  description: What could not be read, one sentence each.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils.nvidia.reader import GpuReader


def main():
    module = AnsibleModule(
        argument_spec={
            "nvidia_smi": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 30.0},
        },
        supports_check_mode=True,
    )
    result = GpuReader(module.params["nvidia_smi"], module.params["timeout"]).read()
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
