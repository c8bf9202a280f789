# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one engine under supervisord, without root and without systemd.

A run folder holds everything of one service::

    launch.json        what shall run: argv, environment (secrets too), working folder; mode 0600
    started.json       what was started: digest of the launch, supervisor's pid and start time, where its log began
    start_engine.py    becomes the engine: reads launch.json and calls execve
    work/              the engine's home and caches
    supervisord.conf   restart on crash, log rotation
    supervisord.pid    logs/engine.log  logs/supervisord.log

The environment travels in launch.json, not in supervisord.conf, where quoting and ``%`` would need escapes and where
secrets would stand in a file that people paste into tickets. There is no control socket: a socket path is limited to
107 bytes, and signals and the two files say all there is to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import time

from .. import atomic, commands
from ..errors import LlmError
from .processes import RUN_VARIABLE, arguments, is_zombie, marked, parent, pss_bytes

# The engine has failed to start when it ends within this time; supervisord then tries again, three times in all.
# 30 s is past the imports and the opening of the shards, where a wrong flag or a damaged file shows.
START_SECONDS = 30
START_RETRIES = 3
FOLDER_MODE = 0o750
LOG_BYTES = 50 * 1024 * 1024
LOG_BACKUPS = 5
# Of the supervisor, of the guard of a container's rank, and the folder that Ascend's libraries are told to log to.
_OWN_LOGS = re.compile(r"(engine|supervisord)\.log(\.\d+)?|rank\.json(\.new)?|ascend")
_EXITED = re.compile(r"(?:exited: engine \(|gave up: engine|spawnerr: )(.*)")

_STARTER = '''\
"""Becomes the engine that launch.json beside this file describes. Written by baremetal.llm."""

import json
import os

folder = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(folder, "launch.json"), encoding="utf-8") as stream:
    launch = json.load(stream)
os.chdir(launch["workdir"])
os.execve(launch["argv"][0], launch["argv"], launch["env"])
'''

_CONFIG = """\
; Written by baremetal.llm; the next deployment writes it again.
[supervisord]
pidfile={run_dir}/supervisord.pid
logfile={run_dir}/logs/supervisord.log
childlogdir={run_dir}/logs
directory={run_dir}
umask=027
minfds=1024
identifier=baremetal-llm

[program:engine]
command="{python}" "{run_dir}/start_engine.py"
autostart=true
autorestart=true
startsecs={start_seconds}
startretries={start_retries}
stopsignal=TERM
stopwaitsecs={stop_seconds}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={run_dir}/logs/engine.log
stdout_logfile_maxbytes={log_bytes}
stdout_logfile_backups={log_backups}
"""


class Service:
    """One engine in ``run_dir``; ``python`` is the interpreter of the environment that supervisord is installed in.

    :param stop_seconds: how long the engine may take to end by itself
    """

    def __init__(self, run_dir: str, python: str = "", stop_seconds: int = 30) -> None:
        if re.search(r'["%;\n]', run_dir + python):
            raise LlmError(
                f"the folder {run_dir!r} cannot be named in supervisord's configuration",
                wanted="a path without quotes, percent signs, semicolons and line breaks",
                found=run_dir,
                remedy="set llm_state_dir to another folder",
            )
        self.run_dir = run_dir
        self.python = python
        self.stop_seconds = stop_seconds

    def path(self, *names: str) -> str:
        """Return a path in the run folder."""
        return os.path.join(self.run_dir, *names)

    # What is there ---------------------------------------------------------------------------------------------

    def supervisor_pid(self) -> int | None:
        """Return the pid of this service's living supervisord; a stranger with a reused pid has other arguments."""
        try:
            with open(self.path("supervisord.pid"), encoding="ascii") as stream:
                pid = int(stream.read())
        except (OSError, ValueError):
            return None
        return pid if self.path("supervisord.conf") in arguments(pid) and not is_zombie(pid) else None

    def processes(self) -> list[int]:
        """Return the pids of everything that was started in this run folder, the supervisor included."""
        return marked(self.run_dir)

    def engine_pid(self) -> int | None:
        """Return the pid of the engine's first process: the supervisor's child."""
        supervisor = self.supervisor_pid()
        return next((pid for pid in self.processes() if supervisor and parent(pid) == supervisor), None)

    def memory_bytes(self) -> int:
        """Return the resident memory of all processes of the service; pages that they share count once (PSS)."""
        return sum(pss_bytes(pid) for pid in self.processes())

    def facts(self) -> dict:
        """Return {runtime, running, pids, port, memory_bytes, environment, environment_shared} for discovery.

        ``port`` is None when nothing runs. ``environment`` is the virtual environment of the last launch, and
        ``environment_shared`` says whether another deployment beside this one uses it too.
        """
        running = self.engine_pid() is not None
        environment = _environment_of(self.run_dir)
        beside = os.path.dirname(self.run_dir)
        others = os.listdir(beside) if os.path.isdir(beside) else []
        return {
            "runtime": "venv",
            "running": running,
            "pids": self.processes(),
            "port": (atomic.read_json(self.path("launch.json")) or {}).get("port") if running else None,
            "memory_bytes": self.memory_bytes(),
            "environment": environment,
            "environment_shared": any(
                environment and _environment_of(os.path.join(beside, name)) == environment
                for name in others
                if name != os.path.basename(self.run_dir)
            ),
        }

    def exits(self) -> list[str]:
        """Return how the engine ended since it was last started, one line an end; empty when it did not."""
        begin = self.started().get("supervisor_log_from", 0)
        text = read_from(self.path("logs", "supervisord.log"), begin, limit=1024 * 1024)[0]
        return [match.group(1).rstrip(")") for match in _EXITED.finditer(text)]

    def endings(self) -> list[dict]:
        """Return the same as {host, rank, exit, tail}, as an engine of several ranks tells of its ends."""
        return [{"host": "", "rank": 0, "exit": line, "tail": []} for line in self.exits()]

    def waiting(self) -> str:
        """Return what the engine's start waits for; a service on its own waits for nothing."""
        return ""

    def started(self) -> dict:
        """Return the content of started.json, empty when nothing was started."""
        return atomic.read_json(self.path("started.json")) or {}

    def is_running(self, digest: str) -> bool:
        """True when the launch with this digest is what runs now."""
        return self.started().get("digest") == digest and self.engine_pid() is not None

    # What shall be there -----------------------------------------------------------------------------------------

    def own_variables(self) -> dict[str, str]:
        """Return the environment variables that the service itself adds to the engine's."""
        # setproctitle, which vLLM names its workers with, would overwrite the environment that tells them as ours.
        return {RUN_VARIABLE: self.run_dir, "SPT_NOENV": "1"}

    def start(self, launch: dict, digest: str, inputs: dict) -> None:
        """Write the files and start supervisord, which outlives this process and starts the engine."""
        os.makedirs(self.path("logs"), mode=FOLDER_MODE, exist_ok=True)
        os.chmod(self.run_dir, FOLDER_MODE)
        os.makedirs(launch["workdir"], mode=FOLDER_MODE, exist_ok=True)
        marked = dict(launch["env"], **self.own_variables())
        atomic.write_json(self.path("launch.json"), dict(launch, env=marked), 0o600)
        atomic.write_text(self.path("start_engine.py"), _STARTER, 0o640)
        atomic.write_text(self.path("supervisord.conf"), self._config(), 0o640)
        marks = {
            "digest": digest,
            "inputs": inputs,
            "started_epoch_s": round(time.time(), 3),
            "engine_log_from": _size(self.path("logs", "engine.log")),
            "supervisor_log_from": _size(self.path("logs", "supervisord.log")),
        }
        # Before the start: a run that is cut off in between finds no engine with this digest and starts it.
        atomic.write_json(self.path("started.json"), marks, 0o640)
        done = commands.run(
            [self.python, "-m", "supervisor.supervisord", "-c", self.path("supervisord.conf")],
            timeout=60,
            env={"PATH": os.defpath, RUN_VARIABLE: self.run_dir},
            cwd=self.run_dir,
        )
        if not done.ok:
            raise LlmError(
                "the supervisor of the engine could not be started",
                wanted=f"supervisord of {self.python}",
                found=(done.reason or done.stderr.strip() or done.stdout.strip())[-400:],
                remedy=f"read {self.path('logs', 'supervisord.log')}",
            )
        # The daemon writes its pid a moment after the command that made it has returned.
        end = time.monotonic() + 10
        while self.supervisor_pid() is None and time.monotonic() < end:
            time.sleep(0.05)

    def _config(self) -> str:
        return _CONFIG.format(
            run_dir=self.run_dir,
            python=self.python,
            start_seconds=START_SECONDS,
            start_retries=START_RETRIES,
            stop_seconds=self.stop_seconds,
            log_bytes=LOG_BYTES,
            log_backups=LOG_BACKUPS,
        )

    def stop(self) -> list[int]:
        """End the supervisor, the engine and every process that they left; return the pids that were there."""
        found = self.processes()
        supervisor = self.supervisor_pid()
        if supervisor:
            _signal(supervisor, signal.SIGTERM)
            self._wait_gone(self.stop_seconds + 10)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                _signal(pid, number)
            self._wait_gone(10)
        left = self.processes()
        if left:
            raise LlmError(
                "processes of the engine did not end",
                wanted="no process of this service",
                found="pids " + ", ".join(map(str, left)),
                remedy="end them by hand; a process in uninterruptible sleep waits for a disk or a device",
            )
        return found

    def _wait_gone(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.processes() and time.monotonic() < end:
            time.sleep(0.2)

    def remove(self, check: bool = False) -> list[str]:
        """Delete what this class and the engine wrote, and folders that are empty then; return what is (to be) gone."""
        names = ["launch.json", "started.json", "start_engine.py", "supervisord.conf", "supervisord.pid", "work"]
        logs = os.listdir(self.path("logs")) if os.path.isdir(self.path("logs")) else []
        names += [f"logs/{name}" for name in sorted(logs) if _OWN_LOGS.fullmatch(name)]
        gone = [self.path(name) for name in names if os.path.lexists(self.path(name))]
        if check:
            return gone
        for path in gone:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        for folder in (self.path("logs"), self.run_dir):
            if os.path.isdir(folder) and not os.listdir(folder):
                os.rmdir(folder)
                gone.append(folder)
        return gone


def digest_of(launch: dict, inputs: dict) -> str:
    """Return what identifies a running engine: how it is launched, and what it was launched on (``inputs``)."""
    return hashlib.sha256(json.dumps([launch, inputs], sort_keys=True).encode()).hexdigest()


def read_from(path: str, begin: int, limit: int) -> tuple[str, int]:
    """Return (text of the file at ``path`` from byte ``begin``, its last ``limit`` bytes at most; size of the file).

    A file shorter than ``begin`` was rotated meanwhile and is read from its start.
    """
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            begin = begin if begin <= size else 0
            stream.seek(max(begin, size - limit))
            return stream.read(limit).decode("utf-8", "replace"), size
    except OSError:
        return "", 0


def _environment_of(run_dir: str) -> str:
    """Return the virtual environment that the launch in ``run_dir`` uses, empty when there is none."""
    argv = (atomic.read_json(os.path.join(run_dir, "launch.json")) or {}).get("argv") or [""]
    return os.path.dirname(os.path.dirname(argv[0]))


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
