# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import exclusive, tree

# Holds the folder of its argument until its input ends.
HOLDER = """
import sys
from ansible_collections.baremetal.llm.plugins.module_utils.weights import exclusive
with exclusive.writing(sys.argv[1], "another run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def dest(tmp_path):
    """A folder that does not exist yet, in one that does not either."""
    return str(tmp_path / "weights" / "model")


@pytest.fixture
def other(dest):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, dest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_nobody_holds_a_folder_that_is_new(dest):
    assert exclusive.holder(dest) == ""
    assert not os.path.exists(os.path.dirname(dest))


def test_the_holder_says_what_it_does_and_is_gone_afterwards(dest):
    with exclusive.writing(dest, "sharing"):
        assert exclusive.holder(dest) == f"sharing, process {os.getpid()}"
    assert exclusive.holder(dest) == ""
    with exclusive.writing(dest, "x"):
        assert exclusive.holder(dest) == f"x, process {os.getpid()}"  # and nothing of the longer one before


def test_it_is_let_go_after_an_error_too(dest):
    with pytest.raises(ZeroDivisionError), exclusive.writing(dest, "sharing"):
        raise ZeroDivisionError
    assert exclusive.holder(dest) == ""


def test_a_second_writer_is_told_who_the_first_is(dest, other):
    with pytest.raises(LlmError, match="written by another run") as caught, exclusive.writing(dest, "mine"):
        pytest.fail("both hold the folder")
    assert caught.value.found == f"another run, process {other.pid}"
    assert caught.value.remedy
    assert exclusive.holder(dest) == f"another run, process {other.pid}"


def test_two_threads_of_one_process_do_not_share_it(dest):
    with exclusive.writing(dest, "first"), pytest.raises(LlmError), exclusive.writing(dest, "second"):
        pytest.fail("both hold the folder")


def test_it_is_free_when_the_holder_is_killed(dest, other):
    other.kill()
    other.wait()
    with exclusive.writing(dest, "mine"):
        assert exclusive.holder(dest) == f"mine, process {os.getpid()}"


def test_one_who_waits_gets_it_when_the_other_ends(dest, other):
    ending = threading.Timer(0.3, other.stdin.close)
    ending.start()
    with exclusive.writing(dest, "mine", wait_s=60):
        assert other.wait(timeout=60) == 0
    ending.join()


def test_a_child_that_inherits_the_file_goes_on_holding(dest):
    with exclusive.writing(dest, "sharing") as file:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[file])
    try:
        with pytest.raises(LlmError), exclusive.writing(dest, "mine"):
            pytest.fail("the child does not hold it")
    finally:
        child.communicate()
    assert exclusive.holder(dest) == ""


def test_two_folders_are_two(tmp_path):
    with exclusive.writing(str(tmp_path / "a"), "one"), exclusive.writing(str(tmp_path / "b"), "two"):
        assert exclusive.holder(str(tmp_path / "a")).startswith("one")


def test_a_link_in_place_of_the_note_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("precious")
    os.symlink(tmp_path / "precious", tree.aside(str(tmp_path / "model"), "busy"))
    with pytest.raises(OSError, match="symbolic links"), exclusive.writing(str(tmp_path / "model"), "mine"):
        pytest.fail("the link was followed")
    assert (tmp_path / "precious").read_text() == "precious"
    assert exclusive.holder(str(tmp_path / "model")) == ""


def test_who_holds_is_asked_without_getting_in_the_way(dest, other):
    exclusive.holder(dest)
    other.stdin.close()
    assert other.wait(timeout=60) == 0
    exclusive.holder(dest)
    with exclusive.writing(dest, "mine"):
        pass
