# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a repository, and sources opened on hubs that run in this process."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import sources

NAME = "acme/tiny"
FILES = {
    "config.json": b'{"architectures": ["X"]}',
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 30,
    "model-00002-of-00002.safetensors": b"\x00weights" * 500,
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "tokenizer/deep/vocab.txt": b"one\ntwo\n",
    "with blank + plus & percent%41.txt": b"odd name",
}
# What no listing may lead to, wherever a hub names a file.
HOSTILE = ["../x", "/etc/passwd", "a/../../x", "a//b", "a\x00b", "a\nb", "a\\b", "x" * 300, "", "a/b/" * 900 + "c"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """The proxies of whoever runs the tests are not asked."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def waits():
    """Seconds that were waited, one entry a wait; nothing really waits."""
    return []


@pytest.fixture
def opened(waits):
    """Function that opens a source on a running server; every error is tried again twice."""

    def do(kind: str, server, revision: str = "", **options: object) -> sources.Hub:
        text = f"{server.url}/models/{NAME}" if kind == "https" else f"{kind}://{NAME}{revision}"
        options = {"endpoint": server.url, "retries": 2, "timeout": 5.0, "sleep": waits.append, **options}
        return sources.open_source(sources.parse(text), **options)

    return do


@pytest.fixture
def whole():
    """Function that reads one file of a hub."""

    def do(hub: sources.Hub, path: str, offset: int = 0) -> bytes:
        with hub.stream(path, offset) as response:
            assert response.offset == offset
            return b"".join(iter(lambda: response.read(1000), b""))

    return do


@pytest.fixture
def refused():
    """Function that returns the error that listing a hub ends in."""

    def do(hub: sources.Hub) -> LlmError:
        with pytest.raises(LlmError) as caught:
            hub.listing()
        return caught.value

    return do


@pytest.fixture
def digests():
    """(path, size, SHA-256) of the files, in order."""
    return [(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in sorted(FILES.items())]
