# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What guards a host and may stand in the way of serving: SELinux and firewalls. No program is run."""

from __future__ import annotations

from .kernel import parse_os_release
from .source import Source, number

# A unit has its folder while it has processes: cgroup version 2, and version 1 with systemd's own hierarchy.
_UNITS = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice", "/sys/fs/cgroup/unified/system.slice")


def selinux(source: Source) -> str:
    """Return enforcing, permissive or disabled, empty where nothing tells of SELinux, as in a container."""
    mode = {"1": "enforcing", "0": "permissive"}.get(source.attribute("/sys/fs/selinux/enforce"), "")
    return mode or ("disabled" if source.exists("/etc/selinux/config") else "")


def firewall(source: Source) -> dict:
    """Return {active[]}, the firewalls that show: firewalld, iptables, nftables, ufw. A best effort.

    Rules themselves are not read; a rule set that was loaded by hand shows as iptables or nftables only.
    """
    active = []
    if any(source.exists(f"{folder}/firewalld.service") for folder in _UNITS):
        active.append("firewalld")
    tables = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")
    if any(source.attribute(table) for table in tables):
        active.append("iptables")
    if _module_users(source.head("/proc/modules", 1 << 20), "nf_tables"):
        active.append("nftables")
    if parse_os_release(source.head("/etc/ufw/ufw.conf", 1 << 16)).get("ENABLED", "").lower() == "yes":
        active.append("ufw")
    return {"active": active}


def _module_users(text: str, module: str) -> int:
    """Return how often a kernel module is in use, by /proc/modules: name, size, users, ..."""
    for line in text.split("\n"):
        fields = line.split()
        if len(fields) > 2 and fields[0] == module:
            return number(fields[2]) or 0
    return 0
