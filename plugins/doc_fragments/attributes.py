# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that several modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of modules: those that only read, and those that change a host."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and say what it would do, without changing the host.
    support: full
  diff_mode:
    description: Shows what it changed, or would change, in diff mode.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
"""

    READER = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and say what it would do, without changing the host.
    support: full
    details:
      - It only reads, so check mode makes no difference.
  diff_mode:
    description: Shows what it changed, or would change, in diff mode.
    support: none
    details:
      - It changes nothing.
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
"""
