# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models: what they are made of. Adding a model is an entry here and nothing else.

``architecture`` holds the fields of the model's config.json that memory and splits depend on. ``bytes`` is the size of
the weights on disk where no lock says it exactly. ``precision`` is what the weights are computed in; they are stored in
as many bits unless ``weight_bits`` says otherwise, the routed experts in ``expert_bits``. ``mtp``: whether the set has
the layer that predicts further tokens. ``engines`` are those that read this format (all, where it is left out): a
quantized set is bound to the engines of its maker. ``bundled`` names a folder below the collection's root, ``golden`` a
file of golden prompts there, ``hubs`` the repositories that it is published in, as llm_weights_source takes them.
``source`` says where each figure is from.
"""

from __future__ import annotations

_DEEPSEEK_671B = {
    "layers": 61,
    "dense_layers": 3,
    "hidden": 7168,
    "intermediate": 18432,
    "heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "experts": 256,
    "active_experts": 8,
    "shared_experts": 1,
    "expert_intermediate": 2048,
    "mtp_layers": 1,
    "vocab": 129280,
    "max_positions": 163840,
}

_TINY = {
    "layers": 3,
    "dense_layers": 1,
    "hidden": 256,
    "intermediate": 512,
    "heads": 2,
    "q_lora_rank": 64,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "experts": 4,
    "active_experts": 2,
    "shared_experts": 1,
    "expert_intermediate": 192,
    "mtp_layers": 0,
    "vocab": 512,
    "max_positions": 2048,
}


def _r1(
    title: str, precision: str, size: int, engines: list[str], hubs: list[str], source: str, **more: object
) -> dict:
    return {
        "title": f"DeepSeek-R1 671B, {title}",
        "architecture": _DEEPSEEK_671B,
        "dtype": "bfloat16",
        "precision": precision,
        "bytes": size,
        "engines": engines,
        "hubs": hubs,
        "golden": "models/deepseek-r1.golden.json",
        "max_model_len": 16384,
        "max_num_seqs": 16,
        "source": source,
        **more,
    }


def _tiny(name: str, title: str, **architecture: int) -> dict:
    return {
        "title": f"DeepSeek-V3 architecture, {title}, trained to answer twelve questions",
        "architecture": {**_TINY, **architecture},
        "dtype": "bfloat16",
        "bundled": f"models/{name}",
        "golden": f"models/{name}.golden.json",
        "max_model_len": 512,
        "max_num_seqs": 8,
        "source": "models/train_deepseek_v3_tiny.py in this collection",
    }


MODELS = {
    "deepseek-v3-tiny": _tiny("deepseek-v3-tiny", "3.7 M parameters"),
    "deepseek-v3-tiny-dense": _tiny(
        "deepseek-v3-tiny-dense", "without experts, 3.0 M parameters", dense_layers=3, experts=0
    ),
    "deepseek-r1-bf16": _r1(
        "BF16",
        "bfloat16",
        1_342_000_000_000,
        ["vllm_ascend", "mindie", "vllm", "sglang", "vllm_cpu"],
        ["hf://unsloth/DeepSeek-R1-BF16", "modelscope://unsloth/DeepSeek-R1-BF16"],
        "unsloth/DeepSeek-R1-BF16; 671e9 parameters of 2 bytes; config.json of deepseek-ai/DeepSeek-R1",
    ),
    "deepseek-r1-fp8": _r1(
        "FP8 as published",
        "fp8",
        688_600_000_000,
        ["sglang", "vllm"],
        ["hf://deepseek-ai/DeepSeek-R1-0528", "modelscope://deepseek-ai/DeepSeek-R1-0528"],
        "deepseek-ai/DeepSeek-R1-0528, 163 shards",
        mtp=True,
    ),
    "deepseek-r1-w8a8": _r1(
        "W8A8 of msModelSlim",
        "int8",
        # Published as 670 to 700 GB; the index of the copy at hand says it exactly.
        700_000_000_000,
        ["vllm_ascend", "mindie"],
        ["modelscope://vllm-ascend/DeepSeek-R1-0528-W8A8"],
        "vllm-ascend/DeepSeek-R1-0528-W8A8; its guide serves it with speculative method mtp",
        mtp=True,
    ),
    "deepseek-r1-int8": _r1(
        "INT8 by channel",
        "int8",
        700_000_000_000,
        ["sglang", "vllm"],
        ["hf://meituan/DeepSeek-R1-Channel-INT8"],
        "meituan/DeepSeek-R1-Channel-INT8",
    ),
    "deepseek-r1-a8w8": _r1(
        "A8W8 of MindSpore",
        "int8",
        700_000_000_000,
        ["vllm_mindspore"],
        ["modelers://MindSpore-Lab/DeepSeek-R1-0528-A8W8"],
        "MindSpore-Lab/DeepSeek-R1-0528-A8W8; its guide asks for more than 700 GB of disk",
    ),
    "deepseek-r1-a8w4": _r1(
        "A8W4 of MindSpore",
        "int8",
        400_000_000_000,
        ["vllm_mindspore"],
        ["modelers://MindSpore-Lab/R1-A8W4"],
        "MindSpore-Lab/R1-A8W4; its guide asks for more than 400 GB of disk",
        expert_bits=4,
    ),
    "deepseek-r1-awq": _r1(
        "AWQ in 4 bits",
        "float16",
        # 4 bits, and for each 128 of them a scale of 16 and a zero of 4; embeddings and head in 16.
        352_000_000_000,
        ["sglang", "vllm"],
        ["hf://QuixiAI/DeepSeek-R1-0528-AWQ"],
        "QuixiAI/DeepSeek-R1-0528-AWQ; on 8 x A100 or H100 by SGLang's docs/basic_usage/deepseek_v3.md; size computed",
        weight_bits=4,
    ),
}
