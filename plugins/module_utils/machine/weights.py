# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the weights in a folder are made of, by the headers of their safetensors files: no tensor is read.

Names of tensors are those of DeepSeek's own files (deepseek-ai/DeepSeek-R1, model.safetensors.index.json), which
the tools that quantize keep: model.layers.N.mlp.experts.M..., and layers behind num_hidden_layers for what predicts
further tokens (MTP).
"""

from __future__ import annotations

import json
import os
import re
import time

from ..weights.safetensors import INDEX_LIMIT, read_header
from .source import in_time

SECONDS = 20.0  # all headers of the largest published set take one or two; a file system that hangs takes for ever
MAX_SHARDS = 4096
CONFIG_LIMIT = 1 << 20  # a config.json has some kilobytes
EMPTY = {
    "tensors": 0, "bytes": 0, "experts": 0, "mtp": 0, "mtp_experts": 0, "rest": 0, "ends": 0, "replicated": 0,
    "layers": 0, "dtypes": {}, "reason": "",
}  # fmt: skip
_INDEX = ".safetensors.index.json"
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,5})\.")
_EXPERT = re.compile(r"\.(?:routed_)?experts\.")
_ENDS = re.compile(r"(?:^|\.)(?:embed_tokens|lm_head)\.")
# What every tensor parallel rank holds whole: projections of MLA before the heads, routers, norms.
_REPLICATED = re.compile(r"\.(?:q_a_proj|kv_a_proj_with_mqa|gate)\.|norm\.|\.bias\Z")


class _Unreadable(Exception):
    """The headers do not tell; the text says why."""


def tensors(folder: str, seconds: float = SECONDS) -> dict:
    """Return what the safetensors files of ``folder`` hold.

    :param seconds: how long is read at most
    :return: count of tensors; bytes of them all, which experts, mtp and rest add up to; of mtp mtp_experts, of rest
        ends (embeddings and head) and replicated (whole on every tensor parallel rank); count of layers without MTP;
        dtypes {name: bytes}; reason, which is empty unless the headers do not tell: all else is 0 then
    """
    deadline = time.monotonic() + seconds
    answers = in_time({folder: lambda: _answer(folder, deadline)}, seconds)
    return answers.get(folder) or _nothing(f"{folder} did not answer within {seconds:.0f} s")


def first(folders: list[str]) -> dict:
    """Return what the first of ``folders`` holds that has any tensors; empty where none has."""
    found = (tensors(folder) for folder in folders)
    return next((one for one in found if one["tensors"]), {})


def _answer(folder: str, deadline: float) -> dict:
    try:
        return _read(folder, deadline)
    except _Unreadable as error:
        return _nothing(str(error))
    except OSError as error:
        return _nothing(f"{folder} cannot be read: {error.strerror or error}")


def _nothing(reason: str) -> dict:
    return {**EMPTY, "dtypes": {}, "reason": reason}


def _read(folder: str, deadline: float) -> dict:
    shards = _shards(folder)
    last = _hidden_layers(folder)
    found = {**EMPTY, "dtypes": {}}
    layers = set()
    for shard in shards:
        if time.monotonic() > deadline:
            raise _Unreadable(f"the {len(shards)} files of {folder} were not all read in time")
        header, problem = read_header(os.path.join(folder, shard))
        if problem:
            raise _Unreadable(f"{shard}: {problem}")
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            layers.add(_add(found, name, tensor["dtype"], end - begin, last))
    found["layers"] = len({layer for layer in layers if layer is not None and (last is None or layer < last)})
    return found


def _add(found: dict, name: str, dtype: str, size: int, last: int | None) -> int | None:
    """Add one tensor to what was found, and return the number of its layer, None for one of no layer."""
    at = _LAYER.search(name)
    layer = int(at.group(1)) if at else None
    expert = bool(_EXPERT.search(name))
    found["tensors"] += 1
    found["bytes"] += size
    found["dtypes"][dtype] = found["dtypes"].get(dtype, 0) + size
    if layer is not None and last is not None and layer >= last:
        found["mtp"] += size
        found["mtp_experts"] += size if expert else 0
    elif expert:
        found["experts"] += size
    else:
        found["rest"] += size
        found["ends"] += size if _ENDS.search(name) else 0
        found["replicated"] += size if _REPLICATED.search(name) else 0
    return layer


def _shards(folder: str) -> list[str]:
    """Return the files that hold the tensors: those of an index that are all there, else all that there are."""
    names = sorted(os.listdir(folder))
    there = [name for name in names if name.endswith(".safetensors") and os.path.isfile(os.path.join(folder, name))]
    if not there:
        raise _Unreadable(f"{folder} has no safetensors files")
    missing = []
    # Tools that quantize leave the index of the model they began with beside their own.
    for index in [name for name in names if name.endswith(_INDEX)]:
        wanted = _listed(folder, index)
        lost = sorted(wanted - set(there))
        if not lost:
            return sorted(wanted)
        missing.append(f"{len(lost)} of {len(wanted)} files of {index} are missing, such as {lost[0]}")
    if missing:
        raise _Unreadable(missing[0])
    if len(there) > MAX_SHARDS:
        raise _Unreadable(f"{folder} has {len(there)} safetensors files")
    return there


def _listed(folder: str, index: str) -> set[str]:
    try:
        shards = {str(shard) for shard in _json(folder, index, INDEX_LIMIT)["weight_map"].values()}
    except (KeyError, AttributeError, TypeError) as error:
        raise _Unreadable(f"{index} has no weight_map") from error
    if not 0 < len(shards) <= MAX_SHARDS or any("/" in shard for shard in shards):
        raise _Unreadable(f"{index} lists no files of its own folder")
    return shards


def _hidden_layers(folder: str) -> int | None:
    """Return the number of layers without MTP by config.json, None where it does not tell: nothing is MTP then."""
    try:
        told = _json(folder, "config.json", CONFIG_LIMIT)
    except (_Unreadable, OSError):
        return None
    count = told.get("num_hidden_layers") if isinstance(told, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None


def _json(folder: str, name: str, limit: int) -> dict:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):  # a named pipe would hold the module
        raise _Unreadable(f"{name} is no file")
    with open(path, "rb") as stream:
        raw = stream.read(limit + 1)
    try:
        return json.loads(raw.decode("utf-8")) if len(raw) <= limit else {}
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"{name} is not JSON") from error
