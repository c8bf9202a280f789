# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import wheel

NAME = "libtorrent-2.1.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"


@pytest.fixture
def make(tmp_path):
    """Function that writes a wheel with these members and returns (path, SHA-256)."""

    def write(members: dict[str, str], name: str = NAME) -> tuple[str, str]:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in members.items():
                archive.writestr(member, text)
        return str(path), hashlib.sha256(path.read_bytes()).hexdigest()

    return write


@pytest.fixture
def tools(tmp_path):
    return str(tmp_path / "tools")


def everything(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def test_a_wheel_is_unpacked_once_and_can_be_imported(make, tools):
    path, digest = make({"libtorrent/__init__.py": "__version__ = '2.1.1'", "libtorrent-2.1.1.dist-info/RECORD": ""})
    assert wheel.unpack(tools, path, digest, check=True) is True
    assert everything(tools) == []
    assert wheel.unpack(tools, path, digest) is True
    folder = wheel.folder(tools, path, digest)
    assert everything(tools) == [f"libtorrent-2.1.1-{digest[:8]}"]
    assert wheel.reason(folder) == ""
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o755
    os.unlink(path)
    assert wheel.unpack(tools, path, digest) is False


def test_another_file_than_was_asked_for_is_not_unpacked(make, tools):
    path, digest = make({"libtorrent/__init__.py": ""})
    with pytest.raises(LlmError, match="not the one") as caught:
        wheel.unpack(tools, path, "0" * 64)
    assert digest in caught.value.found
    assert everything(tools) == []


@pytest.mark.parametrize(
    "name", ["../evil.py", "/evil.py", "libtorrent/../../evil.py", "a//b", "./a", "a\\b", "libtorrent/.."]
)
def test_names_that_lead_out_of_the_folder_are_refused_and_nothing_stays(make, tools, name):
    path, digest = make({"libtorrent/__init__.py": "", name: "evil"})
    with pytest.raises(LlmError, match="cannot be unpacked"):
        wheel.unpack(tools, path, digest)
    assert everything(tools) == []
    assert not list(Path(tools).parent.glob("**/evil.py"))


def test_what_is_no_archive_is_refused(tmp_path, tools):
    path = tmp_path / NAME
    path.write_bytes(b"no archive")
    with pytest.raises(LlmError, match="cannot be unpacked"):
        wheel.unpack(tools, str(path), hashlib.sha256(b"no archive").hexdigest())
    assert everything(tools) == []


def test_an_archive_of_too_much_is_refused(make, tools, monkeypatch):
    path, digest = make({"libtorrent/__init__.py": "x" * 100, "more": "x"})
    monkeypatch.setattr(wheel, "MOST_BYTES", 100)
    with pytest.raises(LlmError, match="cannot be unpacked"):
        wheel.unpack(tools, path, digest)
    monkeypatch.setattr(wheel, "MOST_BYTES", 101)
    monkeypatch.setattr(wheel, "MOST_FILES", 1)
    with pytest.raises(LlmError, match="cannot be unpacked"):
        wheel.unpack(tools, path, digest)


def test_a_wheel_that_is_not_there_is_told(tmp_path, tools):
    with pytest.raises(LlmError, match="cannot be read") as caught:
        wheel.unpack(tools, str(tmp_path / NAME), "0" * 64)
    assert caught.value.found == "No such file or directory"


@pytest.mark.parametrize("name", ["vllm-1.0-py3-none-any.whl", "libtorrent.whl", "libtorrent-..-a-b-c.whl", ""])
def test_other_names_are_no_wheel_of_libtorrent(tools, name):
    with pytest.raises(LlmError, match="no wheel"):
        wheel.folder(tools, name, "0" * 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("raise ImportError('GLIBC_2.17 not found')", "GLIBC_2.17 not found"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "status -4"),
        ("syntax error", "SyntaxError"),
    ],
)
def test_why_it_cannot_run_is_told_with_python_and_processor(make, tools, content, said):
    path, digest = make({"libtorrent/__init__.py": content})
    wheel.unpack(tools, path, digest)
    reason = wheel.reason(wheel.folder(tools, path, digest))
    assert said in reason
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]} on {os.uname().machine}" in reason


def test_one_for_another_python_cannot_be_imported(make, tools):
    path, digest = make({"libtorrent/__init__.cpython-27-sparc-linux-gnu.so": "elf", "libtorrent/py.typed": ""})
    wheel.unpack(tools, path, digest)
    assert "no libtorrent for this Python" in wheel.reason(wheel.folder(tools, path, digest))


def test_no_folder_is_a_reason_too(tools):
    assert tools in wheel.reason(tools)
    assert wheel.reason("")
