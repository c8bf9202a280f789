# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Groups of real rank guards on loopback, with engines of a few lines of shell."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.tests.unit.plugins.module_utils.runtime.waiting import eventually

GUARD = Path(__file__).resolve().parents[5] / "plugins" / "module_utils" / "runtime" / "rank_guard.py"
# Old images bring Python 3.8; the guard can be tried on any.
PYTHON = os.environ.get("GUARD_PYTHON", sys.executable)
# What a production guard counts in tens of seconds goes faster here.
TIMES = {
    "BEAT_SECONDS": 0.3,
    "HANDSHAKE_SECONDS": 2.0,
    "RETRY_SECONDS": 0.2,
    "FIRST_PAUSE_SECONDS": 0.2,
    "TICK_SECONDS": 0.05,
}
# Stands before the guard's own code, and leaves the command line as it is in a container.
_QUICK = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location("rank_guard", sys.argv[1])
guard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guard)
for name, value in {times!r}.items():
    setattr(guard, name, value)
{extra}
raise SystemExit(guard.main(sys.argv[2:]))
"""
FOREVER = "sleep 600"


def unused_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Rank:
    """One rank's run folder, and its guard while it runs."""

    def __init__(self, folder, settings, engine, secrets, quick=""):
        self.folder = folder
        self.settings = settings
        self.engine = engine
        self.extra = quick
        self.process = None
        for name in ("launch", "logs", "work"):
            (folder / name).mkdir(parents=True)
        self.write("rank.json", settings)
        self.write("secrets.json", secrets)
        (folder / "launch" / "rank_guard.py").write_text(GUARD.read_text())

    def write(self, name, data):
        (self.folder / "launch" / name).write_text(json.dumps(data))

    def start(self, **env):
        launch = self.folder / "launch"
        code = _QUICK.format(times=TIMES, extra=self.extra)
        argv = [PYTHON, "-c", code, str(launch / "rank_guard.py"), str(launch / "rank.json"), "--"]
        marks = {"PATH": os.environ["PATH"], "BAREMETAL_LLM_RUN": str(self.folder), **env}
        with open(self.folder / "out", "ab") as out:
            self.process = subprocess.Popen([*argv, "bash", "-c", self.engine], stdout=out, stderr=out, env=marks)
        return self

    def state(self):
        try:
            return json.loads((self.folder / "logs" / "rank.json").read_text())
        except (OSError, ValueError):
            return {}

    def log(self):
        path = self.folder / "logs" / "engine.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def out(self):
        return (self.folder / "out").read_text(errors="replace")

    def processes(self):
        """All living processes that were started in this run folder, the guard included."""
        mark, found = f"BAREMETAL_LLM_RUN={self.folder}".encode(), []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                inside = mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                zombie = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
            except (OSError, IndexError):
                continue
            if inside and not zombie:
                found.append(int(name))
        return found

    def runs(self, generation=None):
        """True when the engine runs, in this generation if one is given."""
        state = self.state()
        return state.get("state") == "running" and generation in (None, state.get("generation"))

    def crash(self):
        """End the guard and all with it, as the kernel does when the first process of a container is killed."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def end(self):
        """End the guard as Docker does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Group:
    """Ranks that belong together."""

    def __init__(self, folder):
        self.folder = folder
        self.port = unused_port()
        self.ranks = []

    def add(self, world, engine=FOREVER, key="5a" * 32, env=None, quick="", **settings):
        """Add the next rank; ``settings`` override those of rank.json."""
        rank = len(self.ranks)
        folder = self.folder / f"r{rank}"
        launch = {
            "group": "d-0",
            "deployment": "d",
            "rank": rank,
            "world": world,
            "hosts": [f"a{number + 1}" for number in range(world)],
            "head": "127.0.0.1",
            "port": self.port,
            "digest": "d1",
            "run_dir": str(folder),
            "before": [],
            "env_scripts": [],
            "keep": [],
            "workdir": str(folder / "work"),
            "stop_seconds": 5,
            "probe_devices": [],
            "secrets": str(folder / "launch" / "secrets.json"),
            **settings,
        }
        self.ranks.append(Rank(folder, launch, engine, {"key": key, "env": env or {}}, quick))
        return self.ranks[-1]

    def run(self, generation=None):
        """Wait until all engines run; where they do not, the error tells how all ranks stand."""
        done = eventually(lambda: all(rank.runs(generation) for rank in self.ranks))
        assert done, "\n".join(f"{rank.state()}\n{rank.out()}" for rank in self.ranks)
        return True


@pytest.fixture(name="free_port")
def fixture_free_port():
    """A port that an engine can listen on."""
    return unused_port()


@pytest.fixture(name="group")
def fixture_group(tmp_path):
    """A group without ranks; whatever is started in it ends with the test."""
    group = Group(tmp_path)
    yield group
    for rank in group.ranks:
        if rank.process is not None:
            rank.process.send_signal(signal.SIGCONT)
            rank.process.terminate()
    for rank in group.ranks:
        if rank.process is not None:
            try:
                rank.process.wait(20)
            except subprocess.TimeoutExpired:
                rank.process.kill()
                rank.process.wait(20)
        for pid in rank.processes():
            os.kill(pid, signal.SIGKILL)
