# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small model on disk as hubs publish them: two shards with an index, plain files, an empty file, a deep folder."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import stamps

DTYPES = {"BF16": 2, "F32": 4, "U8": 1}
SHARDS = {
    "model-00001-of-00002.safetensors": {"embed": ("BF16", [4, 6]), "norm": ("F32", [6])},
    "model-00002-of-00002.safetensors": {"head": ("BF16", [6, 4]), "empty": ("U8", [0, 3]), "bias": ("U8", [5])},
}
DEEP = "/".join(f"level{number}" for number in range(30)) + "/notes.txt"


def _header(tensors: dict) -> tuple[dict, int]:
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        count = DTYPES[dtype]
        for extent in shape:
            count *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + count]}
        position += count
    return header, position


def _pack(header: object, data: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.fixture
def pack():
    """Bytes of a safetensors file with this header (any JSON, or raw bytes) and this data."""
    return _pack


@pytest.fixture
def shard():
    """Bytes of a sound safetensors file with tensors {name: (dtype, shape)}."""

    def make(tensors: dict) -> bytes:
        header, size = _header(tensors)
        return _pack(header, bytes(number % 251 for number in range(size)))

    return make


def _contents() -> dict[str, bytes]:
    contents = {}
    for name, tensors in SHARDS.items():
        header, size = _header(tensors)
        contents[name] = _pack(header, bytes(number % 251 for number in range(size)))
    weight_map = {tensor: name for name, tensors in SHARDS.items() for tensor in tensors}
    contents["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    contents["config.json"] = b'{"architectures": ["DeepseekV3ForCausalLM"]}'
    contents["tokenizer.json"] = b'{"version": "1.0"}'
    contents["empty.txt"] = b""
    contents[DEEP] = b"deep"
    return contents


def _write(folder: Path) -> Path:
    for name, content in _contents().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


@pytest.fixture
def write_model():
    """Function that writes the model into a folder and returns the folder."""
    return _write


@pytest.fixture
def model(tmp_path):
    """The model's folder."""
    return _write(tmp_path / "model")


@pytest.fixture
def lock():
    """The lock of the model, made with hashlib alone."""
    return {
        "format": 1,
        "model": "toy",
        "revision": "r1",
        "files": [
            {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(_contents().items())
        ],
    }


@pytest.fixture
def settle():
    """Function that waits until every file of a folder is old enough for its stamp to be believed."""

    def wait(folder: Path) -> None:
        newest = max(os.lstat(path).st_ctime_ns for path in folder.rglob("*"))
        while time.time_ns() <= newest + stamps.TICK_NS:
            time.sleep(0.002)

    return wait


@pytest.fixture
def listing():
    """Function that returns everything a user could see changed below a folder."""

    def read(folder: Path) -> dict[str, tuple]:
        found = {}
        for path in [folder, *sorted(folder.rglob("*"))]:
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            name = str(path.relative_to(folder))
            found[name] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content)
        return found

    return read


@pytest.fixture
def flip():
    """Function that flips one bit of a file in place and, when asked, sets its times back."""

    def do(path: Path, position: int, keep_times: bool = False) -> None:
        before = path.stat()
        with open(path, "r+b") as stream:
            stream.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
            byte = stream.read(1)[0]
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte ^ 0x10]))
        if keep_times:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return do
