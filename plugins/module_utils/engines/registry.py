# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines this collection knows. Adding one is a file beside this one and a line here."""

from __future__ import annotations

from . import accelerated, vllm_cpu

ENGINES = {
    "vllm_cpu": vllm_cpu,
    "vllm_ascend": accelerated,
    "mindie": accelerated,
    "vllm_mindspore": accelerated,
    "vllm": accelerated,
}
