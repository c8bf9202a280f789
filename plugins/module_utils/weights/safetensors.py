# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of safetensors files that need no tensor to be read: header, offsets, and the index over the shards.

Source of the layout: the format's own description (8 bytes little-endian header length, JSON header, data); limits
as its reference reader has them: a header of at most 100,000,000 bytes, offsets without holes or overlaps.
"""

from __future__ import annotations

import json
import os
import struct

HEADER_LIMIT = 100_000_000
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_header(path: str) -> tuple[dict, str]:
    """Return (tensors by name, problem) of the file at ``path``; one of the two is empty."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        start = stream.read(8)
        if LFS_POINTER.startswith(start) and len(start) == 8:
            return {}, "it is a git-lfs pointer, not the weights"
        if len(start) < 8:
            return {}, f"it ends after {size} bytes, before its header"
        (length,) = struct.unpack("<Q", start)
        if length > HEADER_LIMIT or length > size - 8:
            return {}, f"its header claims {length} bytes in a file of {size}"
        raw = stream.read(length)
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}, "its header is not JSON"
    if not isinstance(header, dict):
        return {}, "its header is no JSON object"
    header.pop("__metadata__", None)
    return header, _offsets_problem(header, size - 8 - length)


def _offsets_problem(header: dict, data_bytes: int) -> str:
    spans = []
    for name, tensor in header.items():
        try:
            begin, end = (_whole(value) for value in tensor["data_offsets"])
            bits = DTYPE_BITS[tensor["dtype"]]
            count = 1
            for extent in tensor["shape"]:
                count = _whole(count * _whole(extent))
        except (KeyError, TypeError, ValueError):
            return f"tensor {name!r} has no usable dtype, shape or offsets"
        if end - begin != (count * bits + 7) // 8:
            return f"tensor {name!r} has {end - begin} bytes for {count} elements of {tensor['dtype']}"
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            return f"tensor {name!r} begins at byte {begin} instead of {position}"
        position = end
    if position != data_bytes:
        return f"its tensors end at byte {position} of {data_bytes}: it was cut off or has strange bytes"
    return ""


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise ValueError("not an unsigned number of 64 bits")
    return value


def structure_problems(folder: str, files: list[str]) -> list[dict]:
    """Return [{path, reason, wanted, found}] for the safetensors files and indexes among ``files`` of ``folder``."""
    problems, tensors = [], {}
    for path in files:
        if path.endswith(".safetensors"):
            header, problem = _readable_header(os.path.join(folder, path))
            tensors[path] = set(header)
            if problem:
                problems.append(_problem(path, "structure", "a whole safetensors file", problem))
    for path in files:
        if path.endswith(".safetensors.index.json"):
            problems += _index_problems(folder, path, tensors)
    return problems


def _readable_header(path: str) -> tuple[dict, str]:
    try:
        return read_header(path)
    except OSError as error:
        return {}, f"it cannot be read: {error.strerror}"


def _index_problems(folder: str, path: str, tensors: dict[str, set]) -> list[dict]:
    try:
        with open(os.path.join(folder, path), encoding="utf-8") as stream:
            weight_map = json.load(stream)["weight_map"]
        pairs = sorted(weight_map.items())
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        return [_problem(path, "index", "a JSON object with a weight_map", "something else")]
    prefix = path.rpartition("/")[0]
    problems = []
    for shard in sorted({str(shard) for _name, shard in pairs}):
        where = f"{prefix}/{shard}" if prefix else shard
        wanted = {name for name, holder in pairs if holder == shard}
        if where not in tensors:
            problems.append(_problem(where, "missing", f"a shard with {len(wanted)} tensors", "no such file"))
        elif wanted - tensors[where]:
            lost = sorted(wanted - tensors[where])
            problems.append(_problem(where, "index", f"tensor {lost[0]}", f"{len(lost)} tensors are not in it"))
    return problems


def _problem(path: str, reason: str, wanted: str, found: str) -> dict:
    return {"path": path, "reason": reason, "wanted": wanted, "found": found}
