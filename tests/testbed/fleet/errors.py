# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one error that this package raises for what a caller or the machine did."""

from __future__ import annotations


class FleetError(Exception):
    """A fleet cannot be described, started or looked at; the text says why."""
