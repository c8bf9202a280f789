# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test hosts with a real sshd, made of network namespaces and overlay roots. FLEET.md says how they work."""

from __future__ import annotations

from .errors import FleetError
from .lifecycle import crash, down, hosts, reboot, up
from .snapshots import snapshot
from .within import run_on

__all__ = ["FleetError", "crash", "down", "hosts", "reboot", "run_on", "snapshot", "up"]
