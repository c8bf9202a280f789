# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts, follows and ends the agent of this host that shares a folder of weights."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import sys
import time
import traceback

from ... import atomic
from ...catalog import wheels
from ...errors import LlmError
from ...machine import detached
from .. import exclusive, lockfile, place, tree, verify
from ..progress import Progress
from . import agent, rsync_daemon, seed, status, wheel

ENGINES = ("libtorrent", "rsync")
# The agent notes itself before anything else; a busy host may be slow to let it.
BEGIN_S = 20.0
# Longer than the agent gives its workers.
END_S = agent.STOP_S + 10.0
LOOK_S = 0.2
_SPEC = "spec.json"
_MODE = 0o640


# What can share -----------------------------------------------------------------------------------------------------


def library(tools: str) -> str:
    """Return where the library for this host's Python and processor belongs, empty where none is known."""
    known = wheels.wheel(_python(), platform.machine())
    return wheel.folder(tools, known["name"], known["sha256"]) if known else ""


def _python() -> str:
    return ".".join(str(part) for part in sys.version_info[:2])


def ready(path: str, tools: str, package: str, sha256: str, *, check: bool = False) -> dict:
    """Unpack the wheel ``package`` where one is given, make the folder for torrents, and try both engines.

    :return: changed, engines {name: why it cannot run here, empty when it can}, python, machine, torrents_dir
    """
    changed = bool(package) and wheel.unpack(tools, package, sha256, check=check)
    unpacked = wheel.folder(tools, package, sha256) if package else library(tools)
    if not check:
        os.makedirs(seed.folder(path), mode=0o750, exist_ok=True)
    return {
        "changed": changed,
        "engines": {"libtorrent": wheel.reason(unpacked), "rsync": _rsync_reason()},
        "python": _python(),
        "machine": platform.machine(),
        "torrents_dir": seed.folder(path),
    }


def _rsync_reason() -> str:
    try:
        rsync_daemon.require()
    except LlmError as error:
        return error.found or str(error)
    return ""


def spec_of(params: dict) -> dict:
    """Return the spec of an agent from the options of module weights_share.

    :raises LlmError: a user or a group that this host does not know, or a lock that is none
    """
    path = os.path.realpath(params["path"])
    named = ("host", "address", "port", "chain", "processes", "engine", "rate_limit", "linger", "speed_mbps")
    return {
        **{key: params[key] for key in named},
        "dest": path,
        "lock": lockfile.load(params["lock"]),
        "torrents": [os.path.join(seed.folder(path), name) for name in params["torrents"]],
        "library": _library_of(params),
        "owner": list(place.owner_ids(params["owner"], params["group"])),
        "shared_token": params["shared_token"],
    }


def _library_of(params: dict) -> str:
    if params["wheel"]:
        return wheel.folder(params["tools_dir"], params["wheel"], params["wheel_sha256"])
    return library(params["tools_dir"])


def with_engine(spec: dict) -> dict:
    """Return ``spec`` with the engine that "auto" stands for here; all hosts of a chain must have the same."""
    if spec["engine"] != "auto":
        return spec
    return {**spec, "engine": ENGINES[bool(wheel.reason(spec["library"]))]}


# The agent ----------------------------------------------------------------------------------------------------------


def start(spec: dict, *, check: bool = False) -> dict:
    """See that an agent shares as ``spec`` says; one that does is left alone.

    :param check: write and start nothing
    :return: wrong[]: "path reason" of the files that are missing or wrong here, empty where nothing is to be done; a
        process that only serves others changes nothing
    :raises LlmError: the folder is in use for something else
    """
    spec = with_engine(agent.checked(spec))
    dest = spec["dest"]
    if agent.is_shared(spec):
        return {"wrong": []}
    before = _running_spec(dest)
    if before == spec and status.read(dest)["state"] != status.FAILED:
        return {"wrong": []}
    if before and lockfile.identity(before["lock"]) != lockfile.identity(spec["lock"]):
        raise LlmError(
            f"{dest} is being shared for another lock",
            wanted=_named(spec["lock"]),
            found=f"{_named(before['lock'])}, process {agent.running(dest)}",
            remedy="wait for it, or end it with state: stopped",
        )
    if check:
        return {"wrong": _wrong(spec, save=False)}
    end(dest)
    with exclusive.writing(dest, f"weights_share on {spec['host']}", _patience(dest)) as held:
        wrong = _wrong(spec, save=True)
        _begin(spec, held)
    return {"wrong": wrong}


def _named(lock: dict) -> str:
    return f"{lock['model'] or 'a model without a name'} {lock['revision']} ({lockfile.identity(lock)[:16]})"


def running_lock(dest: str) -> dict | None:
    """Return the lock whose files an agent of this host shares from ``dest`` now."""
    before = _running_spec(dest)
    return before["lock"] if before else None


def _running_spec(dest: str) -> dict | None:
    if not agent.running(dest):
        return None
    with contextlib.suppress(LlmError, KeyError, TypeError, ValueError):
        return agent.checked(atomic.read_json(os.path.join(status.folder(dest), _SPEC)) or {})
    return None


def _wrong(spec: dict, save: bool) -> list[str]:
    dest, lock = spec["dest"], spec["lock"]
    if not os.path.isdir(dest):
        return [f"{entry['path']} missing" for entry in lock["files"]]
    progress = Progress(tree.aside(dest, "progress.json") if save else "", "checking", lockfile.total_bytes(lock))
    found = verify.verify(dest, lock, save=save, progress=progress)
    lines = [f"{path} missing" for path in found["missing"]]
    lines += [
        f"{problem['path']} {problem['reason']}" for problem in found["corrupt"] if problem["reason"] != "structure"
    ]
    return sorted(lines + [f"{path} of another lock" for path in found["unexpected"]])


def _begin(spec: dict, held: int) -> None:
    dest = spec["dest"]
    status.make_folder(dest)
    status.clear(dest)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(status.folder(dest), status.AGENT))
    atomic.write_json(os.path.join(status.folder(dest), _SPEC), spec, _MODE)
    detached.run(lambda: _work(spec, held), [held], agent.NAME)
    end_at = time.monotonic() + BEGIN_S
    while not agent.noted(dest):
        if time.monotonic() > end_at:
            raise LlmError(
                "the process that shares the weights did not begin",
                wanted=f"a note of its own in {status.folder(dest)} within {BEGIN_S:.0f} s",
                found="none",
                remedy=f"see {os.path.join(status.folder(dest), status.LOG)}, and the kernel's log",
            )
        time.sleep(0.02)


def _work(spec: dict, held: int) -> None:
    log = os.open(
        os.path.join(status.folder(spec["dest"]), status.LOG),
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW,
        _MODE,
    )
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # Whoever wants the folder now is told of this process, not of the module that has ended.
    os.ftruncate(held, 0)
    os.pwrite(held, f"weights_share on {spec['host']}, process {os.getpid()}".encode(), 0)
    try:
        agent.Agent(spec).run()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        raise


def end(dest: str) -> bool:
    """End the agent of ``dest`` that runs on this host, orderly, and wait for it; True when there was one."""
    pid = agent.running(dest)
    if not pid:
        return False
    for number, seconds in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end_at = time.monotonic() + seconds
        while time.monotonic() < end_at:
            # Its workers hold the folder a moment longer when it is killed.
            if not agent.running(dest) and not exclusive.holder(dest):
                return True
            time.sleep(0.05)
    raise LlmError(
        f"the process {pid} that shares {dest} does not end",
        wanted=f"its end within {2 * END_S:.0f} s",
        found="a process that is stuck in the kernel",
        remedy="see what is wrong with the disk (dmesg)",
    )


def stop(dest: str, *, check: bool = False) -> bool:
    """End the agent and remove what it needs no more; True when there was anything.

    What came of files that are not whole yet stays: the next run goes on with it. What another host has put there, that
    sees the same file system, is left alone.
    """
    if agent.is_elsewhere(dest):
        return False
    needless = [status.folder(dest)]
    if status.read(dest)["state"] == "complete":
        needless.append(tree.aside(dest, "incoming"))
    leftovers = [path for path in needless if os.path.isdir(path)]
    if check:
        return bool(agent.running(dest) or leftovers)
    ended = end(dest)
    if not leftovers:
        return ended
    with exclusive.writing(dest, "weights_share", _patience(dest)):
        for path in leftovers:
            shutil.rmtree(path)
    return True


def _patience(dest: str) -> float:
    """Return how long to wait for the folder: the workers of an agent that was killed end by themselves."""
    return END_S if exclusive.holder(dest).startswith("weights_share") else 0.0


# What it says -------------------------------------------------------------------------------------------------------


def follow(spec: dict, wait_s: float) -> dict:
    """Wait for the end of the transfer, at most ``wait_s`` seconds, and return how far it is.

    :return: complete, bytes_total, bytes_done, bytes_received, bytes_sent, bytes_resumed, seconds, rate, engine, state,
        shared, peers[], error
    """
    spec = agent.checked(spec)
    if agent.is_shared(spec):
        return _shared(spec)
    end_at = time.monotonic() + wait_s
    while True:
        now = _now(spec["dest"])
        if now["state"] in (*status.ENDED, "") or time.monotonic() >= end_at:
            break
        time.sleep(max(0.0, min(LOOK_S, end_at - time.monotonic())))
    return {
        **now,
        "complete": now["state"] == "complete",
        "engine": (atomic.read_json(os.path.join(status.folder(spec["dest"]), _SPEC)) or spec).get("engine", ""),
        "shared": False,
        "error": now["error"] or {},
    }


def _now(dest: str) -> dict:
    # In this order: one that ends between the two has written its last word before.
    runs = bool(agent.running(dest))
    now = status.read(dest)
    if runs or now["state"] in (*status.ENDED, ""):
        return now
    gone = LlmError(
        "the process that shares the weights is gone",
        wanted="a process that runs until every byte is there",
        found=f"none, and {now['bytes_done']} of {now['bytes_total']} bytes",
        remedy="run this again, what came so far is kept; see the kernel's log for why it ended",
    )
    return status.fail(now, gone)


def _shared(spec: dict) -> dict:
    total = lockfile.total_bytes(spec["lock"])
    return {
        **status.together([]),
        "bytes_total": total,
        "bytes_done": total,
        "bytes_resumed": total,
        "state": "complete",
        "complete": True,
        "engine": spec["engine"],
        "shared": True,
        "error": {},
    }


def complete(spec: dict, seconds: float) -> dict:
    """Wait until every byte is in place and return the same as ``follow``.

    :raises LlmError: it failed, or took longer than ``seconds``
    """
    now = follow(spec, seconds)
    if now["complete"]:
        return now
    if now["error"]:
        error = now["error"]
        raise LlmError(error["msg"], wanted=error["wanted"], found=error["found"], remedy=error["remedy"])
    there = [peer["host"] for peer in now["peers"] if peer["connected"]]
    raise LlmError(
        f"the weights are not complete after {seconds:.0f} s",
        wanted=f"{now['bytes_total']} bytes",
        found=f"{now['bytes_done']} bytes, state {now['state'] or 'not started'}, connected with "
        + (", ".join(there) or "nobody"),
        remedy="see the other hosts of the chain; run this again, what came so far is kept",
    )
