#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_image
short_description: Bring a container image to a host, by digest or from an archive
version_added: 0.1.0
description:
  - Looks for the image with C(community.docker.docker_image_info), pulls it from its registry or loads it from an
    archive of the control node where it is missing, and looks again.
  - Fails when the image is not the one that was asked for, or is built for another architecture than the host's.
  - A run that was cut off leaves a copy of the archive in O(staging) at most, which the next run replaces and deletes.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  reference:
    description:
      - What containers are made from, C(NAME@sha256:DIGEST) or C(sha256:ID).
    type: str
    required: true
  archive:
    description:
      - File of C(docker save) on the control node.
    type: path
    default: ""
  pull:
    description:
      - Whether to pull a missing image from its registry.
    type: bool
    default: false
  staging:
    description:
      - Folder on the host for the copy of the archive; it is deleted afterwards.
    type: path
    required: true
  machine:
    description:
      - Architecture of the host as C(uname -m) prints it; empty leaves it unchecked.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Bring the image
  baremetal.llm.engine_image:
    reference: sha256:2f1f8b9c3d5e7a6b4c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b
    archive: /srv/images/vllm-ascend.tar
    staging: /data/llm/deployments/r1/image
"""

RETURN = r"""
id:
  description: Id of the image, empty in check mode where it is missing.
  returned: success
  type: str
architecture:
  description: What it is built for, as image formats name it.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import control


def main():
    module = AnsibleModule(
        argument_spec=control.IMAGE,
        supports_check_mode=True,
    )
    module.fail_json(msg="this is done by the action plugin of the same name, which was not found")


if __name__ == "__main__":
    main()
