# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines this collection knows. Adding one is a file beside this one and a line here."""

from __future__ import annotations

from . import mindie, sglang, vllm, vllm_ascend, vllm_cpu, vllm_mindspore

ENGINES = {
    "vllm_cpu": vllm_cpu,
    "vllm_ascend": vllm_ascend,
    "mindie": mindie,
    "vllm_mindspore": vllm_mindspore,
    "vllm": vllm,
    "sglang": sglang,
}
