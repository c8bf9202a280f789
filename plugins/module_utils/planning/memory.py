# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arithmetic of memory: what one accelerator has to hold of a model that is split over many. Pure.

A model has routed experts, a layer that predicts further tokens (MTP), and the rest. How they are spread, after vLLM,
docs/serving/data_parallel_deployment.md and vllm/model_executor/models/deepseek_v2.py:

- experts over the devices of tensor x data parallel, or of tensor parallel alone
- the rest over tensor parallel, and once for each data parallel rank; what comes before the heads (the compressing
  projections of MLA), the routers and the norms lie whole on every device
- layers over the stages of the pipeline, where the largest stage is the one that has to fit
- the KV cache of MLA is one vector a token for all heads, so every tensor parallel rank keeps all of it
"""

from __future__ import annotations

from typing import Callable

from ..errors import LlmError

MIB = 1024**2
GB = 1_000_000_000
BITS_OF_PRECISION = {"float32": 32, "bfloat16": 16, "float16": 16, "fp8": 8, "int8": 8, "int4": 4}
# Embeddings, the head, routers and norms stay in 16 bits in every published set (config.json: modules not converted).
UNQUANTIZED_BITS = 16
BYTES_OF_DTYPE = {"bfloat16": 2, "float16": 2, "float32": 4}
MOST_NODES = 64  # a group larger than that is no replica any more
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def parameters(architecture: dict) -> dict[str, int]:
    """Return how many parameters the model has: those of its layers and ends, and those of one MTP layer (``mtp_``).

    :param architecture: as catalog/models.py has it; without ``experts`` every layer is dense
    :return: experts; compressing (projections of MLA before the heads) and routers (with all norms), which every tensor
        parallel rank holds whole; split, all else of the layers; ends, the embeddings and the head
    """
    shape = architecture
    hidden, experts = shape["hidden"], shape.get("experts", 0)
    layers, dense = shape["layers"], shape.get("dense_layers", shape["layers"])
    expert = 3 * hidden * shape.get("expert_intermediate", 0)
    shared = expert * shape.get("shared_experts", 0)
    router = experts * (hidden + 1)
    compressing = hidden * (shape["q_lora_rank"] + shape["kv_lora_rank"] + shape["qk_rope_head_dim"])
    norms = 2 * hidden + shape["q_lora_rank"] + shape["kv_lora_rank"]
    attention, sparse = _attention(shape), layers - dense
    ends = 2 * shape["vocab"] * hidden
    return {
        "experts": sparse * experts * expert,
        "compressing": layers * compressing,
        "routers": layers * norms + sparse * router + hidden,
        "split": layers * attention + dense * 3 * hidden * shape["intermediate"] + sparse * shared,
        "ends": ends,
        "mtp_experts": experts * expert,
        # eh_proj joins the last hidden state with the next token's embedding; a norm for each, and one at the end.
        "mtp_split": attention + compressing + norms + shared + router + 2 * hidden * hidden + 3 * hidden,
        "mtp_ends": ends,
    }


def _attention(shape: dict) -> int:
    """Return the parameters of one layer's attention that are split by heads."""
    nope, value = shape["qk_nope_head_dim"], shape["v_head_dim"]
    query = shape["q_lora_rank"] * (nope + shape["qk_rope_head_dim"])
    return shape["heads"] * (query + shape["kv_lora_rank"] * (nope + value) + value * shape["hidden"])


def parts(model: dict, weight_bytes: int, tensors: dict | None = None) -> dict:
    """Return what the weights are made of, in bytes.

    :param model: entry of the catalog
    :param weight_bytes: all of the weights, as the lock or the catalog says
    :param tensors: what machine/weights.py read from the headers, where the weights are at hand
    :return: experts, mtp and rest, which add up to the whole; of mtp mtp_experts; of rest ends and replicated; layers,
        dense_layers, expert_count; source
    """
    shape = model["architecture"]
    layers, dense = shape["layers"], shape.get("dense_layers", shape["layers"])
    about = {"layers": layers, "dense_layers": dense, "expert_count": shape.get("experts", 0)}
    if tensors and tensors.get("bytes") and not tensors.get("reason"):
        sizes = {key: tensors[key] for key in ("experts", "mtp", "mtp_experts", "rest", "ends", "replicated")}
        return {**sizes, **about, "source": f"headers of {tensors['tensors']} tensors"}
    guess = _sizes(model)
    whole = guess["experts"] + guess["mtp"] + guess["rest"]
    sizes = {key: size * weight_bytes // whole for key, size in guess.items()}
    # What rounding leaves belongs to the rest, so that the parts add up.
    sizes["rest"] = weight_bytes - sizes["experts"] - sizes["mtp"]
    return {**sizes, **about, "source": "architecture and precision of the catalog"}


def kv_bytes_per_token(model: dict) -> int:
    """Return the KV cache of one token in bytes.

    MLA keeps one compressed vector a token and layer: (kv_lora_rank + qk_rope_head_dim) elements.
    """
    shape = model["architecture"]
    return shape["layers"] * (shape["kv_lora_rank"] + shape["qk_rope_head_dim"]) * BYTES_OF_DTYPE[model["dtype"]]


def of_device(
    made_of: dict,
    kv_bytes_per_token: int,
    max_model_len: int,
    sizes: dict,
    devices_total: int,
    release: dict,
    mtp: bool = False,
) -> dict:
    """Return what one device of the largest stage needs with one request of full length.

    :param made_of: what ``parts`` returned
    :param kv_bytes_per_token: of all layers together
    :param sizes: tensor_parallel, pipeline_parallel, data_parallel, expert_parallel (experts over tensor x data)
    :param devices_total: of the replica group
    :param release: overhead_bytes and memory_share of the engine, source
    :param mtp: whether the engine loads the MTP layer
    :return: rows [{what, bytes, source}], bytes (their sum), share (of a device that may be used), weight_bytes,
        kv_bytes_per_token and kv_bytes_per_request (on this device), max_model_len, data_parallel
    """
    tensor, pipeline, data = (sizes[f"{kind}_parallel"] for kind in ("tensor", "pipeline", "data"))
    spread = tensor * data if sizes["expert_parallel"] else tensor
    stage = _up(made_of["layers"], pipeline)
    experts = _stage_experts(made_of, stage, spread, sizes["expert_parallel"])
    rest = _stage_rest(made_of, stage, tensor, pipeline)
    drafted = _mtp(made_of, tensor, spread, sizes["expert_parallel"]) if mtp else 0
    per_token = _up(kv_bytes_per_token * stage, made_of["layers"])
    per_token += _up(kv_bytes_per_token, made_of["layers"]) if drafted else 0
    source = made_of["source"]
    in_stage = f" of {stage} layers" if pipeline > 1 else ""
    rows = [
        {"what": f"experts{in_stage} over {spread} of {devices_total} devices", "bytes": experts, "source": source},
        {"what": f"other weights{in_stage} over {tensor} devices", "bytes": rest, "source": source},
        {"what": "MTP layer", "bytes": drafted, "source": source},
        {
            "what": "KV cache of one request",
            "bytes": per_token * max_model_len,
            "source": f"{per_token} bytes a token (MLA), {max_model_len} tokens",
        },
        {"what": "engine", "bytes": release["overhead_bytes"], "source": release["source"]},
    ]
    rows = [row for row in rows if row["bytes"]]
    return {
        "rows": rows,
        "bytes": sum(row["bytes"] for row in rows),
        "share": release["memory_share"],
        "weight_bytes": experts + rest + drafted,
        "kv_bytes_per_token": per_token,
        "kv_bytes_per_request": per_token * max_model_len,
        "max_model_len": max_model_len,
        "data_parallel": data,
    }


def fit(need: dict, memory_mib: int) -> dict:
    """Return whether ``need`` fits a device of ``memory_mib`` MiB, as the vendor's tool prints its total.

    :param need: what ``of_device`` returned
    :return: fits (None where the memory of the device is not known, which is 0), sequences (requests of full length at
        once over all data parallel ranks), spare_bytes (of one device, negative where it lacks some), text
    """
    if not memory_mib:
        text = f"memory of the devices is not known; each of them has to give {_gb(need['bytes'])}"
        return {"fits": None, "sequences": 0, "spare_bytes": 0, "text": text}
    usable = int(memory_mib * MIB * need["share"])
    spare = usable - need["bytes"]
    if spare < 0:
        text = (
            f"does not fit: a device needs {_gb(need['bytes'])} and gives {_gb(usable)} of its {_gb(memory_mib * MIB)}"
        )
        return {"fits": False, "sequences": 0, "spare_bytes": spare, "text": text}
    sequences = need["data_parallel"] * (1 + spare // need["kv_bytes_per_request"])
    text = f"fits, with {sequences} concurrent sequences of {need['max_model_len']} tokens"
    return {"fits": True, "sequences": sequences, "spare_bytes": spare, "text": text}


def nodes_needed(holds: Callable[[int], bool], present: int, most: int = MOST_NODES) -> dict:
    """Return the least number of nodes, from ``present`` on, over which the model can be split and fits.

    :param holds: says it for a number of nodes; an LlmError counts as no
    :return: nodes (0 where not even ``most`` do) and text, such as "needs two more nodes"; empty where none is missing
    """
    for nodes in range(present, most + 1):
        if _holds(holds, nodes):
            return {"nodes": nodes, "text": _more(nodes - present)}
    return {"nodes": 0, "text": f"not even {most} such nodes hold it"}


def _holds(holds: Callable[[int], bool], nodes: int) -> bool:
    try:
        return holds(nodes)
    except LlmError:
        return False


def _more(count: int) -> str:
    if not count:
        return ""
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    return f"needs {number} more node{'s' if count > 1 else ''}"


def _sizes(model: dict) -> dict[str, int]:
    """Return the bytes of the parts by the precision of the catalog, without scales."""
    counts = parameters(model["architecture"])
    bits = model.get("weight_bits") or BITS_OF_PRECISION[model.get("precision", model["dtype"])]
    bits_of = dict.fromkeys(counts, bits)
    bits_of.update(dict.fromkeys(("experts", "mtp_experts"), model.get("expert_bits", bits)))
    bits_of.update(dict.fromkeys(("routers", "ends", "mtp_ends"), UNQUANTIZED_BITS))
    size = {key: count * bits_of[key] // 8 for key, count in counts.items()}
    if not model.get("mtp"):
        size.update(mtp_experts=0, mtp_split=0, mtp_ends=0)
    replicated = size["compressing"] + size["routers"]
    return {
        "experts": size["experts"],
        "mtp": size["mtp_experts"] + size["mtp_split"] + size["mtp_ends"],
        "mtp_experts": size["mtp_experts"],
        "rest": size["split"] + size["ends"] + replicated,
        "ends": size["ends"],
        "replicated": replicated,
    }


def _stage_experts(made_of: dict, stage: int, spread: int, whole: bool) -> int:
    sparse = made_of["layers"] - made_of["dense_layers"]
    if not sparse:
        return 0
    of_stage = _up(made_of["experts"] * min(stage, sparse), sparse)
    return _spread(of_stage, made_of["expert_count"], spread, whole)


def _spread(size: int, experts: int, spread: int, whole: bool) -> int:
    """Return the largest share of ``size``; where a device holds ``whole`` experts, one may have one more."""
    return _up(size * _up(experts, spread), experts) if whole and experts else _up(size, spread)


def _stage_rest(made_of: dict, stage: int, tensor: int, pipeline: int) -> int:
    layers, ends, replicated = made_of["layers"], made_of["ends"], made_of["replicated"]
    split = _up((made_of["rest"] - ends - replicated) * stage, layers)
    # Embeddings are in the first stage, the head in the last; which stages are the largest differs between engines.
    end = ends if pipeline == 1 else _up(ends, 2)
    return _up(split + end, tensor) + _up(replicated * stage, layers)


def _mtp(made_of: dict, tensor: int, spread: int, whole: bool) -> int:
    experts = _spread(made_of["mtp_experts"], made_of["expert_count"], spread, whole)
    return experts + _up(made_of["mtp"] - made_of["mtp_experts"], tensor)


def _up(size: int, over: int) -> int:
    return -(-size // over)


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
