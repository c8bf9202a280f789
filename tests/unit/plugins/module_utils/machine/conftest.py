# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host laid out in a folder: files of /proc, /sys, /dev and /etc under a root."""

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine.source import Source


@pytest.fixture
def source(tmp_path):
    """The host that ``fake`` lays out."""
    return Source(str(tmp_path), timeout=20)


@pytest.fixture
def this_host():
    """The machine that the tests run on."""
    return Source(timeout=20)


@pytest.fixture
def fake(tmp_path):
    """Function that writes a file, such as fake("/proc/meminfo", "..."); for a path it makes a symbolic link to it."""

    def write(name: str, content: str | bytes | os.PathLike) -> None:
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, os.PathLike):
            path.symlink_to(content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write
