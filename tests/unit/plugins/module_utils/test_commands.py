# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import commands

LONG = 60.0  # never waited for


def python(code: str, **options) -> commands.Outcome:
    return commands.run([sys.executable, "-I", "-S", "-c", code], options.pop("timeout", LONG), **options)


def test_what_a_program_prints_and_returns():
    outcome = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert outcome == commands.Outcome(3, "out\n", "err\n", "")
    assert not outcome.ok
    assert python("").ok


def test_a_program_that_a_signal_ended():
    outcome = python("import os; os.kill(os.getpid(), 9)")
    assert (outcome.code, outcome.ok) == (-9, False)


@pytest.fixture
def typed():
    """What a user has typed ahead stands in the input of this process."""
    kept = os.dup(0)
    reading, writing = os.pipe()
    os.write(writing, b"typed ahead")
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    yield
    os.dup2(kept, 0)
    os.close(kept)


def test_there_is_no_input(typed):
    assert python("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"


def test_the_locale_is_c_whatever_the_user_has(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    code = "import os; print(os.environ['LC_ALL'], os.environ['LANG'], os.environ.get('MARK'))"
    monkeypatch.setenv("MARK", "here")
    assert python(code).stdout == "C C here\n"
    assert python(code, env={"PATH": os.defpath, "LC_ALL": "x"}).stdout == "C C None\n"


def test_the_folder_it_runs_in(tmp_path):
    assert python("import os; print(os.getcwd())", cwd=str(tmp_path)).stdout == f"{tmp_path}\n"


def test_bytes_that_are_no_text():
    assert python(r"import os; os.write(1, b'a\xff\xfeb')").stdout == "a\ufffd\ufffdb"


def test_much_output_on_both_streams():
    outcome = python("import os\nfor _ in range(40):\n os.write(2, b'e' * 10000); os.write(1, b'o' * 10000)")
    assert (len(outcome.stdout), len(outcome.stderr)) == (400_000, 400_000)


@pytest.mark.parametrize("stream", [1, 2])
def test_output_without_end_is_cut_off_and_said(monkeypatch, stream):
    monkeypatch.setattr(commands, "MOST_BYTES", 1 << 20)
    outcome = python(f"import os\nwhile True: os.write({stream}, b'x' * 65536)")
    assert outcome == commands.Outcome(None, "", "", "printed more than 1048576 bytes")
    assert len(python(f"import os; os.write({stream}, b'x' * 60000)")[stream]) == 60_000


@pytest.mark.parametrize("kind", ["absent", "a folder", "not executable", "not a program", "no interpreter"])
def test_programs_that_cannot_be_started(tmp_path, kind):
    path = tmp_path / "tool"
    if kind == "a folder":
        path.mkdir()
    elif kind != "absent":
        path.write_text("#!/no/such/interpreter\n" if kind == "no interpreter" else "\x7fELF garbage")
        path.chmod(0o644 if kind == "not executable" else 0o755)
    outcome = commands.run([str(path)], LONG)
    assert outcome.code is None
    assert outcome.reason.startswith("cannot be started: ")
    assert not outcome.ok


def test_a_folder_that_is_not_there_is_named():
    outcome = commands.run([sys.executable], LONG, cwd="/no/such/folder")
    assert outcome.reason == "cannot be started: /no/such/folder: no such file"


def test_a_program_that_hangs_gives_its_time_as_reason():
    outcome = python("import time; time.sleep(600)", timeout=0.05)
    assert outcome == commands.Outcome(None, "", "", "did not end within 0.05 s")


def test_a_program_that_refuses_to_end_is_ended():
    outcome = python(
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)", timeout=0.3
    )
    assert outcome.code is None


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_hanging_program_has_started_ends_with_it(tmp_path):
    told = tmp_path / "pid"
    for timeout in (0.2, 1, 5, 20):  # a busy machine may need longer to get as far as to start the second one
        outcome = commands.run(["sh", "-c", f"sleep 600 & echo $! > {told}.new; mv {told}.new {told}; wait"], timeout)
        assert outcome.code is None
        if told.exists():
            break
    pid = int(told.read_text())
    end = time.monotonic() + 20
    while _is_alive(pid) and time.monotonic() < end:
        time.sleep(0.005)
    assert not _is_alive(pid)


def test_a_program_that_leaves_a_daemon_with_its_output_open_does_not_hold_the_reader_up():
    outcome = commands.run(["sh", "-c", "sleep 600 & echo done"], 0.3)
    assert outcome.reason == "did not end within 0.3 s"
