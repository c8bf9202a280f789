# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import pythons
from ansible_collections.baremetal.llm.plugins.module_utils.machine.source import Source
from hypothesis import given
from hypothesis import strategies as st

TOLD = {"path": "/usr/bin/python3.11", "version": "3.11.7", "implementation": "CPython", "makes_venv": True}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Function that puts a shell script on a PATH that holds nothing else but the shell's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, script: str) -> str:
        path = folder / name
        path.write_text("#!/bin/sh\n" + script + "\n")
        path.chmod(0o755)
        return str(path)

    return make


def telling(told: object) -> str:
    return f"echo '{json.dumps(told)}'"


def test_pythons_on_the_path_in_order_and_each_once(program, source):
    eleven = program("python3.11", telling(TOLD))
    program("python3", telling(TOLD))
    nine = program("python3.9", telling(dict(TOLD, path="/usr/bin/python3.9", version="3.9.18")))
    assert pythons.find(source, []) == [
        dict(TOLD, asked=eleven),
        dict(TOLD, asked=nine, path="/usr/bin/python3.9", version="3.9.18"),
    ]
    assert source.problems == []


def test_a_python_that_was_asked_for_comes_first_under_the_name_it_was_asked_by(program, source):
    on_path = program("python3.11", telling(TOLD))
    mine = program("mine", telling(TOLD))
    assert [python["asked"] for python in pythons.find(source, [mine])] == [mine, on_path]


def test_a_python_that_was_asked_for_and_is_not_there_is_a_problem(program, source):
    assert pythons.find(source, ["/no/such/python"]) == []
    assert len(source.problems) == 1
    assert "/no/such/python" in source.problems[0]


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "echo boom >&2; exit 3",
        "true",
        "echo garbage",
        "printf '\\377\\376'",
        "kill -9 $$",
        "echo '[]'",
        "echo 5",
        "echo '{}'",
        telling(dict(TOLD, path="/" + "x" * (1 << 16))),
        "head -c 100000 /dev/zero | tr '\\0' '['",
        telling({"path": "/x"}),
        telling(dict(TOLD, version=None)),
        telling(dict(TOLD, version=3.11)),
        telling(dict(TOLD, path=["/x"])),
        telling(dict(TOLD, makes_venv="no")),
        telling(dict(TOLD, implementation={})),
        telling(TOLD) + "; echo and more",
        telling(TOLD) + "; exit 1",
    ],
)
def test_pythons_that_lie_or_print_garbage(program, source, script):
    script = "PATH=/usr/bin:/bin\n" + script
    assert pythons.find(source, [program("mine", script)]) == []
    assert len(source.problems) == 1
    assert "is no Python that answers: " in source.problems[0]
    assert not source.problems[0].endswith(": ")  # it says why
    source.problems.clear()
    program("python3.11", script)
    assert pythons.find(source, []) == []
    assert source.problems == []  # nobody asked for this one


def test_a_python_that_tells_more_than_it_was_asked(program, source):
    mine = program("mine", telling(dict(TOLD, asked="/other", secret="x")))
    assert pythons.find(source, [mine]) == [dict(TOLD, asked=mine)]


def test_a_python_that_hangs(program):
    source = Source(timeout=0.05)
    assert pythons.find(source, [program("mine", "PATH=/usr/bin:/bin; sleep 600")]) == []
    assert source.problems[0].endswith("did not end within 0.05 s")


def test_this_python_tells_the_truth(this_host, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (python,) = pythons.find(this_host, [sys.executable])
    assert python["asked"] == sys.executable
    assert python["version"] == ".".join(map(str, sys.version_info[:3]))
    assert python["implementation"] == "CPython"
    # Outside of any virtual environment: what is made from it does not break with the environment of the tests.
    query = "import sys; print(sys.prefix == sys.base_prefix)"
    asked = subprocess.run([python["path"], "-I", "-c", query], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "True"


@pytest.mark.parametrize("path", ["/no/such\0python", ""])
def test_a_path_that_no_program_can_have(program, source, path):
    assert pythons.find(source, [path]) == []
    assert len(source.problems) == 1


def test_libraries():
    assert pythons.loads("libc.so.6")
    assert not pythons.loads("libnosuch.so.1")
    assert not pythons.loads("nul\0.so")


@given(st.text() | st.builds(lambda cut, extra: json.dumps(TOLD)[:cut] + extra, st.integers(0, 120), st.text()))
def test_any_answer(text):
    told = pythons.python_of(text)
    assert told is None or set(told) == set(TOLD)
