# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models: what they are made of. Adding a model is an entry here and nothing else.

``architecture`` holds the fields of the model's config.json that memory depends on. ``bytes`` is the size of the
weights on disk where no lock says it exactly. ``bundled`` names a folder below the collection's root. ``source`` says
where each figure is from.
"""

from __future__ import annotations

_DEEPSEEK_671B = {
    "layers": 61,
    "hidden": 7168,
    "heads": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "max_positions": 163840,
}

MODELS = {
    "deepseek-v3-tiny": {
        "title": "DeepSeek-V3 architecture, 3.7 M parameters, trained to answer twelve questions",
        "architecture": {
            "layers": 3,
            "hidden": 256,
            "heads": 4,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "max_positions": 2048,
        },
        "dtype": "bfloat16",
        "bundled": "models/deepseek-v3-tiny",
        "max_model_len": 512,
        "max_num_seqs": 8,
        "source": "models/train_deepseek_v3_tiny.py in this collection",
    },
    "deepseek-r1-bf16": {
        "title": "DeepSeek-R1 671B, BF16",
        "architecture": _DEEPSEEK_671B,
        "dtype": "bfloat16",
        "bytes": 1_342_000_000_000,
        "max_model_len": 16384,
        "max_num_seqs": 16,
        "source": "unsloth/DeepSeek-R1-BF16; 671e9 parameters of 2 bytes; config.json of deepseek-ai/DeepSeek-R1",
    },
}
