# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Environments for real: a wheel made here, installed by its digest from a folder."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import atomic
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.runtime import venv

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(name="wheel")
def fixture_wheel(tmp_path):
    """Return (folder, requirement line) of a package of one module."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "tiny_engine-1.0-py3-none-any.whl"
    info = "tiny_engine-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_engine.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return str(folder), f"tiny-engine==1.0 --hash=sha256:{digest}\n"


def make(path, wheel, requirements=None):
    folder, line = wheel
    venv.make(path, PYTHON, requirements or line, ["--no-index", "--find-links", folder], 120)


def test_makes_recognises_and_remakes(tmp_path, wheel):
    path = str(tmp_path / "venvs" / "tiny")
    os.makedirs(os.path.dirname(path))
    wanted = venv.digest(PYTHON, wheel[1])
    assert not venv.is_whole(path, wanted)
    make(path, wheel)
    assert venv.is_whole(path, wanted)
    assert venv.is_ours(path)
    assert not venv.is_whole(path, venv.digest(PYTHON, wheel[1] + "other==1\n"))
    assert any(name.startswith("tiny_engine") for _root, _dirs, names in os.walk(path) for name in names)

    # A run that was cut off has written the first marker and not the last.
    marker = atomic.read_json(f"{path}/{venv.MARKER}")
    atomic.write_json(f"{path}/{venv.MARKER}", dict(marker, complete=False), 0o640)
    assert not venv.is_whole(path, wanted)
    make(path, wheel)
    assert venv.is_whole(path, wanted)


def test_a_package_with_another_digest_is_refused(tmp_path, wheel):
    path = str(tmp_path / "venv")
    with pytest.raises(LlmError, match="could not be installed") as caught:
        make(path, wheel, f"tiny-engine==1.0 --hash=sha256:{'0' * 64}\n")
    assert "HASH" in caught.value.found.upper()
    assert not venv.is_whole(path, venv.digest(PYTHON, wheel[1]))


def test_a_missing_package_is_named_with_the_way_out(tmp_path, wheel):
    with pytest.raises(LlmError) as caught:
        make(str(tmp_path / "venv"), wheel, f"not-there==9 --hash=sha256:{'0' * 64}\n")
    assert "not-there==9" in caught.value.found
    assert "llm_engine_wheelhouse" in caught.value.remedy


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_ours_is_kept(tmp_path, wheel, kind):
    path = tmp_path / "venv"
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("mine", encoding="utf-8")
    if kind == "folder":
        other.rename(path)
    elif kind == "file":
        path.write_text("mine", encoding="utf-8")
    else:
        path.symlink_to(other)
    with pytest.raises(LlmError, match="was not made by this collection"):
        make(str(path), wheel)
    assert not venv.is_ours(str(path))
    assert path.exists()


def test_an_empty_folder_of_a_run_cut_off_is_taken(tmp_path, wheel):
    (tmp_path / "venv").mkdir()
    make(str(tmp_path / "venv"), wheel)
    assert venv.is_whole(str(tmp_path / "venv"), venv.digest(PYTHON, wheel[1]))


def test_a_python_that_makes_no_environment_is_named(tmp_path, wheel):
    with pytest.raises(LlmError, match="cannot make a virtual environment"):
        venv.make(str(tmp_path / "venv"), "/usr/bin/false", wheel[1], [], 10)
