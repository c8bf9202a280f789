# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`python3 -m sglang.launch_server`, as a stand-in."""

from __future__ import annotations

import sys

import vllm_standin

if __name__ == "__main__":
    sys.exit(vllm_standin.main(sys.argv[1:]))
