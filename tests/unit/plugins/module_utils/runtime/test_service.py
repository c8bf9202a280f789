# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The supervisor for real: supervisord of the test environment, and engines of a few lines of Python."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import atomic
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.service import (
    RUN_VARIABLE,
    Service,
    digest_of,
    read_from,
)

SLEEPER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
time.sleep(600)
"""


@pytest.fixture(name="service")
def fixture_service(tmp_path):
    service = Service(str(tmp_path / "run dir" / "local"), sys.executable, stop_seconds=5)
    yield service
    service.stop()


def launch_of(service, code, **env):
    return {
        "argv": [sys.executable, "-c", code],
        "env": {"PATH": os.defpath, **env},
        "workdir": service.path("work"),
        "port": 8123,
    }


def start(service, code, **env):
    launch = launch_of(service, code, **env)
    digest = digest_of(launch, {})
    service.start(launch, digest, {})
    return digest


def eventually(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_starts_is_recognised_and_stops_without_leaving_a_process(service):
    digest = start(service, SLEEPER)
    assert eventually(lambda: len(service.processes()) == 3), "supervisor, engine, the engine's child"
    assert service.is_running(digest)
    assert not service.is_running("another")
    facts = service.facts()
    assert facts["running"] and facts["port"] == 8123 and facts["memory_bytes"] > 1_000_000
    there = service.processes()
    assert sorted(service.stop()) == sorted(there)
    assert service.processes() == []
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in there)
    assert service.facts()["port"] is None


def test_restarts_an_engine_that_crashed(service):
    start(service, SLEEPER)
    assert eventually(lambda: service.engine_pid() is not None)
    first = service.engine_pid()
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: service.engine_pid() not in (None, first))
    assert service.exits() and "SIGKILL" in service.exits()[0]


def test_tells_how_a_broken_engine_ended_and_gives_up(service):
    start(service, "import sys; print('no model here', file=sys.stderr); sys.exit(3)")
    assert eventually(lambda: any("exit status 3" in line for line in service.exits()))
    assert eventually(lambda: service.exits()[-1:] and service.engine_pid() is None, 30)
    log = read_from(service.path("logs", "engine.log"), 0, 10_000)[0]
    assert "no model here" in log


def test_stops_the_orphans_of_a_supervisor_that_was_killed(service):
    start(service, SLEEPER)
    assert eventually(lambda: len(service.processes()) == 3)
    os.kill(service.supervisor_pid(), signal.SIGKILL)
    assert eventually(lambda: service.supervisor_pid() is None)
    assert service.processes(), "the engine outlives its supervisor"
    service.stop()
    assert service.processes() == []


def test_a_stranger_with_our_pid_is_not_our_supervisor(service):
    os.makedirs(service.run_dir)
    atomic.write_text(service.path("supervisord.pid"), str(os.getpid()), 0o640)
    assert service.supervisor_pid() is None
    assert service.stop() == []
    os.kill(os.getpid(), 0)


@pytest.mark.parametrize("content", ["", "abc", "-5", "999999999", "12 13"])
def test_a_damaged_pid_file_names_no_process(service, content):
    os.makedirs(service.run_dir)
    atomic.write_text(service.path("supervisord.pid"), content, 0o640)
    assert service.supervisor_pid() is None


def test_environment_with_quotes_percent_and_newline_arrives_and_stays_private(service):
    value = "a\"b'c %(x)s ; # \\ $HOME\nline two"
    start(
        service,
        "import json, os, time; json.dump(dict(os.environ), open('env.json', 'w')); time.sleep(600)",
        STRANGE=value,
    )
    assert eventually(lambda: atomic.read_json(service.path("work", "env.json")) is not None)
    seen = atomic.read_json(service.path("work", "env.json"))
    assert seen["STRANGE"] == value
    assert seen[RUN_VARIABLE] == service.run_dir
    assert "HOSTNAME" not in seen and "VIRTUAL_ENV" not in seen, "nothing of the caller's environment"
    assert os.stat(service.path("launch.json")).st_mode & 0o777 == 0o600
    assert os.stat(service.run_dir).st_mode & 0o777 == 0o750


def test_remove_keeps_what_others_put_there(service):
    start(service, SLEEPER)
    assert eventually(lambda: service.engine_pid() is not None)
    service.stop()
    with open(service.path("logs", "notes.txt"), "w", encoding="utf-8") as stream:
        stream.write("mine")
    planned = service.remove(check=True)
    assert all(os.path.exists(path) for path in planned)
    gone = service.remove()
    assert set(planned) <= set(gone)
    assert os.listdir(service.run_dir) == ["logs"]
    assert os.listdir(service.path("logs")) == ["notes.txt"]
    os.unlink(service.path("logs", "notes.txt"))
    service.remove()
    assert not os.path.exists(service.run_dir)


def test_remove_deletes_what_a_container_has_left(tmp_path):
    service = Service(str(tmp_path / "run"), "")
    for name in ("work/cache/x", "logs/engine.log.2", "logs/rank.json", "logs/rank.json.new", "logs/ascend/plog/1.log"):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
    service.remove()
    assert not os.path.exists(service.run_dir)


def test_a_supervisor_that_is_not_installed_is_told(tmp_path):
    service = Service(str(tmp_path / "run"), "/usr/bin/false")
    with pytest.raises(LlmError, match="supervisor of the engine could not be started"):
        start(service, SLEEPER)


@pytest.mark.parametrize("name", ['a"b', "a%b", "a;b", "a\nb"])
def test_a_folder_that_the_configuration_cannot_hold_is_refused(tmp_path, name):
    with pytest.raises(LlmError, match="cannot be named"):
        Service(str(tmp_path / name))


def test_shared_environments_are_seen(tmp_path):
    for name in ("one", "two", "three"):
        os.makedirs(tmp_path / name)
    launch = {"argv": ["/venvs/a/bin/python"]}
    atomic.write_json(str(tmp_path / "one" / "launch.json"), launch, 0o600)
    assert Service(str(tmp_path / "one")).facts()["environment"] == "/venvs/a"
    assert not Service(str(tmp_path / "one")).facts()["environment_shared"]
    atomic.write_json(str(tmp_path / "two" / "launch.json"), launch, 0o600)
    assert Service(str(tmp_path / "one")).facts()["environment_shared"]


def test_read_from_follows_a_rotated_log(tmp_path):
    path = tmp_path / "log"
    path.write_text("0123456789", encoding="utf-8")
    assert read_from(str(path), 4, 100) == ("456789", 10)
    assert read_from(str(path), 0, 3) == ("789", 10)
    assert read_from(str(path), 50, 100) == ("0123456789", 10)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    assert read_from(str(path), 0, 100) == ("", 0)
