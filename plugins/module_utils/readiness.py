# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits for an engine: follows its log, shows progress, and ends at once when the engine dies."""

from __future__ import annotations

import re
import time
import urllib.parse

from .machine import ports
from .machine.source import Source
from .openai_client import is_healthy
from .runtime.service import Service, read_from

POLL_SECONDS = 0.5
LOG_WINDOW = 4 * 1024 * 1024

# What vLLM prints on its way, in the order of the way. Source: the start-up log of vLLM 0.32.0 on CPU.
STEPS = (
    (re.compile(r"vLLM API server version|version \d+\.\d+"), "starting"),
    (re.compile(r"Initializing a V1 LLM engine|Initializing an? .*engine"), "engine starting"),
    (re.compile(r"Starting to load model"), "loading the model"),
    (re.compile(r"Loading (?:safetensors|pt) checkpoint shards:.*?\| (\d+)/(\d+)"), "weights: shard {0} of {1}"),
    (re.compile(r"Loading weights took ([\d.]+) seconds"), "weights loaded in {0} s"),
    (re.compile(r"(?:CPU|GPU) KV cache size: ([\d,]+) tokens"), "KV cache of {0} tokens"),
    (re.compile(r"init engine .* took ([\d.]+) s"), "engine ready after {0} s"),
    (re.compile(r"Starting vLLM (?:API )?server"), "API server starting"),
    (re.compile(r"Application startup complete"), "API server started"),
)
_PREFIX = re.compile(r"^\(\w+(?: pid=\d+)?\)\s*|^(?:ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b(?::.*)?$|^\S+: error: .+")
# Errors that only report that another process has failed.
_CONSEQUENCE = re.compile(
    r"See root cause above|Engine core initialization failed|Engine process failed|SystemExit|KeyboardInterrupt"
)


def progress(log: str) -> str:
    """Return the furthest step that the log tells of, empty when it tells of none."""
    reached = ""
    for pattern, text in STEPS:
        found = list(pattern.finditer(log))
        if found:
            reached = text.format(*found[-1].groups())
    return reached


def last_error(log: str) -> str:
    """Return the error that the log ends with: the last exception that is a cause and not a report of another one."""
    causes, reports = [], []
    for line in log.splitlines():
        text = _strip(line)
        if _EXCEPTION.match(text):
            (reports if _CONSEQUENCE.search(text) else causes).append(text)
    return (causes or reports or [""])[-1][:600]


def _strip(line: str) -> str:
    """Remove the process names, levels and clocks that vLLM puts before a line."""
    text = line.strip()
    while True:
        shorter = _PREFIX.sub("", text, count=1)
        if shorter == text:
            return text
        text = shorter


def watch(service: Service, health_url: str, seconds: float, exits_before: int = 0) -> dict:
    """Look at the engine for at most ``seconds``; return as soon as it is ready or dead.

    :param exits_before: how often the engine had ended since its start when the wait began (restarts after a crash)
    :return: ready, dead, progress, findings[] {signature, cause, evidence, remedy, first}, log, seconds
    """
    started = time.monotonic()
    log_path = service.path("logs", "engine.log")
    begin = service.started().get("engine_log_from", 0)
    while True:
        exits = service.exits()[exits_before:]
        ready = (
            service.engine_pid() is not None
            and is_healthy(health_url, timeout=2.0)
            and _is_its_own(service, health_url)
        )
        dead = not ready and (bool(exits) or service.supervisor_pid() is None)
        elapsed = time.monotonic() - started
        if ready or dead or elapsed >= seconds:
            break
        time.sleep(min(POLL_SECONDS, max(0.0, seconds - elapsed)))
    log = read_from(log_path, begin, LOG_WINDOW)[0]
    return {
        "ready": ready,
        "dead": dead,
        "progress": "ready" if ready else progress(log),
        "findings": [_finding(log, exits, log_path)] if dead else [],
        "log": log_path,
        "seconds": round(time.monotonic() - started, 3),
    }


def _is_its_own(service: Service, url: str) -> bool:
    """True when the process that answers at ``url`` is the service's, and not a stranger on the same port."""
    port = urllib.parse.urlsplit(url).port
    owners = {entry["pid"] for entry in ports.read(Source()) if entry["port"] == port}
    return bool(owners & set(service.processes()))


def _finding(log: str, exits: list[str], log_path: str) -> dict:
    tail = [line for line in log.splitlines() if line.strip()][-20:]
    ending = exits[0] if exits else "its supervisor is gone"
    return {
        "signature": "engine-died",
        "cause": last_error(log) or (tail[-1].strip() if tail else "the engine printed nothing"),
        "evidence": f"{ending}; {log_path}",
        "remedy": f"read {log_path} from the first error on",
        "first": True,
        "tail": tail,
    }
