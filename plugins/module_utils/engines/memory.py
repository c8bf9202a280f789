# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arithmetic of memory that does not depend on the engine."""

from __future__ import annotations

BYTES_OF_DTYPE = {"bfloat16": 2, "float16": 2, "float32": 4}


def kv_bytes_per_token(model: dict) -> int:
    """Return the KV cache of one token in bytes.

    MLA keeps one compressed vector a token and layer: (kv_lora_rank + qk_rope_head_dim) elements.
    """
    shape = model["architecture"]
    return shape["layers"] * (shape["kv_lora_rank"] + shape["qk_rope_head_dim"]) * BYTES_OF_DTYPE[model["dtype"]]
