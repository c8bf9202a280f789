# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of safetensors files that need no tensor to be read: header, offsets, and the index over the shards.

Source of the layout: the format's own description (8 bytes little-endian header length, JSON header, data); limits
as its reference reader has them: a header of at most 100,000,000 bytes that begins with a brace, metadata of text
only, offsets without holes or overlaps.

The ``total_size`` of an index is not held against the shards: tools that quantize or convert copy the index of the
model that they began with, and no engine reads it.
"""

from __future__ import annotations

import json
import os
import struct

HEADER_LIMIT = 100_000_000
# Ten times the largest index that is published (a line of some 100 bytes for each of 92,000 tensors).
INDEX_LIMIT = 100_000_000
# A git-lfs pointer has at most this many bytes (its specification).
POINTER_BYTES = 1024
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER = "it is a git-lfs pointer, not the file"


def read_header(path: str) -> tuple[dict, str]:
    """Return (tensors by name, problem) of the file at ``path``; one of the two is empty."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        start = stream.read(8)
        if LFS_POINTER.startswith(start) and len(start) == 8:
            return {}, _POINTER
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
    if not isinstance(header, dict) or not raw.startswith(b"{"):
        return {}, "its header is no JSON object"
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not _is_text_only(metadata):
        return {}, "its metadata are not pairs of texts"
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


def _is_text_only(metadata: object) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise ValueError("not an unsigned number of 64 bits")
    return value


def structure_problems(folder: str, files: list[str]) -> list[dict]:
    """Return [{path, reason, wanted, found}] for the safetensors files and indexes among ``files`` of ``folder``.

    Of other files it says only when they are git-lfs pointers. Reads headers, indexes and beginnings of small files.
    """
    problems, tensors = [], {}
    for path in files:
        full = os.path.join(folder, path)
        if path.endswith(".safetensors"):
            header, problem = _readable_header(full)
            tensors[path] = set(header)
            if problem:
                problems.append(_problem(path, "structure", "a whole safetensors file", problem))
        elif _is_pointer(full):
            problems.append(_problem(path, "structure", "the file itself", _POINTER))
    for path in files:
        if path.endswith(".safetensors.index.json"):
            problems += _index_problems(folder, path, tensors)
    return problems


def _readable_header(path: str) -> tuple[dict, str]:
    try:
        return read_header(path)
    except OSError as error:
        return {}, f"it cannot be read: {error.strerror}"


def _is_pointer(path: str) -> bool:
    """True for git-lfs pointers; what cannot be read is somebody else's finding."""
    try:
        if os.path.getsize(path) > POINTER_BYTES:
            return False
        with open(path, "rb") as stream:
            return stream.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def _index_problems(folder: str, path: str, tensors: dict[str, set]) -> list[dict]:
    wanted = _by_shard(os.path.join(folder, path))
    if wanted is None:
        return [_problem(path, "index", "a JSON object with a weight_map", "something else")]
    prefix = path.rpartition("/")[0]
    problems, holders = [], {}
    for shard, names in sorted(wanted.items()):
        where = f"{prefix}/{shard}" if prefix else shard
        if where not in tensors:
            problems.append(_problem(where, "missing", f"a shard with {len(names)} tensors", "no such file"))
            continue
        lost = sorted(names - tensors[where])
        if lost:
            problems.append(_problem(where, "index", f"tensor {lost[0]}", f"{len(lost)} tensors are not in it"))
        twice = sorted(name for name in tensors[where] if holders.setdefault(name, where) != where)
        if twice:
            found = f"{len(twice)} tensors that are in {holders[twice[0]]} too, such as {twice[0]}"
            problems.append(_problem(where, "index", "tensors that no other shard has", found))
    return problems


def _by_shard(path: str) -> dict[str, set[str]] | None:
    """Return {shard: names of its tensors} of the index at ``path``, or None where it is none."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(INDEX_LIMIT + 1)
        if len(raw) > INDEX_LIMIT:
            return None
        pairs = json.loads(raw.decode("utf-8"))["weight_map"].items()
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        return None
    wanted: dict[str, set[str]] = {}
    for name, shard in pairs:
        wanted.setdefault(str(shard), set()).add(name)
    return wanted


def _problem(path: str, reason: str, wanted: str, found: str) -> dict:
    return {"path": path, "reason": reason, "wanted": wanted, "found": found}
