# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's view of a fleet."""

from __future__ import annotations

from pathlib import Path


def inventory(fleet: dict, folder: Path) -> dict:
    """Return the inventory of a described fleet whose keys and known hosts are in ``folder``."""
    children = {}
    for name, group in fleet["groups"].items():
        content = {"hosts": {host: {} for host in group["hosts"]}, "vars": group["vars"]}
        content["children"] = {child: {} for child in group["children"]}
        children[name] = {key: value for key, value in content.items() if value}
    return {
        "all": {
            "hosts": {name: {"ansible_host": host["address"], **host["vars"]} for name, host in fleet["hosts"].items()},
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(folder / "keys" / "user_key"),
                "ansible_ssh_common_args": " ".join(ssh_options(folder)),
                "ansible_python_interpreter": "/usr/bin/python3",
                **fleet["vars"],
            },
            "children": children,
        }
    }


def ssh_options(folder: Path) -> list[str]:
    """Options with which ssh knows the hosts of this fleet and no others, and offers its key only."""
    options = [f"UserKnownHostsFile={folder / 'known_hosts'}", "GlobalKnownHostsFile=/dev/null"]
    options += ["StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
    return [word for option in options for word in ("-o", option)]


def known_hosts(fleet: dict, folder: Path) -> str:
    """Lines for ssh: the fleet's one host key under every address."""
    key = " ".join((folder / "keys" / "host_key.pub").read_text(encoding="ascii").split()[:2])
    return "".join(f"{host['address']} {key}\n" for host in fleet["hosts"].values())
