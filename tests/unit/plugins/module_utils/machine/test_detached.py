# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import detached

MOST_S = 30


@pytest.fixture
def told(tmp_path):
    """Function that waits for what a detached process writes to the file "told"; it is ended after the test."""
    path = tmp_path / "told"
    pids = []

    def wait() -> list[str]:
        end = time.monotonic() + MOST_S
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        lines = path.read_text().splitlines()
        pids.append(int(lines[0]))
        return lines

    yield wait
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def tell(path: Path) -> None:
    """Say in one step: pid, session, name, command line, folder, open files; then wait to be ended."""
    files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name != "3"]
    lines = [
        str(os.getpid()),
        str(os.getsid(0)),
        Path("/proc/self/comm").read_text().strip(),
        Path("/proc/self/cmdline").read_bytes().decode().rstrip("\0"),
        os.getcwd(),
        *sorted(files),
    ]
    path.with_suffix(".new").write_text("\n".join(lines))
    path.with_suffix(".new").rename(path)
    time.sleep(MOST_S)


def test_it_is_alone_and_keeps_what_it_was_told_to(told, tmp_path):
    kept = os.open(tmp_path / "kept", os.O_RDWR | os.O_CREAT)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    detached.run(lambda: tell(tmp_path / "told"), [kept], "llm-test", "a title")
    pid, session, name, title, folder, *files = told()
    os.close(kept)
    os.close(other)
    assert int(pid) != os.getpid()
    assert session not in (pid, str(os.getsid(0)))
    assert (name, title, folder) == ("llm-test", "a title", "/")
    assert str(tmp_path / "kept") in files
    assert str(tmp_path / "other") not in files
    assert files.count(os.devnull) == 3


def test_the_kernel_ends_it_when_its_time_is_over(told, tmp_path):
    detached.run(lambda: tell(tmp_path / "told"), [], "llm-test", most_s=0.5)
    pid = int(told()[0])
    end = time.monotonic() + MOST_S
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_error_in_it_never_comes_back_to_the_caller(tmp_path):
    def fail() -> None:
        raise ValueError

    detached.run(fail, [], "llm-test")
    assert os.getpid() == int(Path("/proc/self/stat").read_text().split()[0])


TITLE = """
import sys
from ansible_collections.baremetal.llm.plugins.module_utils.machine import detached
detached.set_title(sys.stdin.read())
with open("/proc/self/cmdline", "rb") as stream:
    sys.stdout.buffer.write(stream.read())
"""


@pytest.mark.parametrize("length", [0, 1, 20, 40, 80, 200, 1000, 100_000])
@pytest.mark.parametrize("environment", [{}, {"HOME": "/root", "FILLER": "y" * 300}])
def test_titles_of_any_length(tmp_path, length, environment):
    (tmp_path / "s").write_text(TITLE)
    python = [sys.executable, "s"]
    title = "T" * length
    told = subprocess.run(python, cwd=tmp_path, env=environment, input=title.encode(), capture_output=True, check=True)
    room = len(f"{sys.executable} s ") + sum(len(f"{key}={value} ") for key, value in environment.items())
    if length:
        assert told.stdout.rstrip(b"\0").decode() == title[: room - 1]
    else:
        assert told.stdout.decode().split("\0")[:2] == python
