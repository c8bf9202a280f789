# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits for an engine: follows its log, shows progress, and ends at once when the engine, or one of its ranks, dies."""

from __future__ import annotations

import re
import time
import urllib.parse

from .machine import ports
from .machine.source import Source
from .openai_client import is_healthy
from .runtime.container import ContainerService, named
from .runtime.service import Service, read_from

POLL_SECONDS = 0.5
LOG_WINDOW = 4 * 1024 * 1024
# A container whose guard has ended is started again by Docker, and one that was just started has its first process as
# the host sees it a moment later; after so many seconds without a guard nobody starts it.
GUARD_SECONDS = 5.0

# What engines print on their way, in the order of the way. Sources: the start-up log of vLLM 0.32.0 on CPU, which
# vLLM-Ascend's is as well; "took N GB" is vllm-project/vllm-ascend:vllm_ascend/worker/model_runner_v1.py@v0.9.1,
# "Graph capturing" vllm-project/vllm:vllm/v1/worker/gpu_model_runner.py; the last line is MindIE's only documented one,
# Ascend/MindIE-LLM:examples/atb_models/examples/models/deepseek-r1/README.md.
STEPS = (
    (re.compile(r"vLLM API server version|version \d+\.\d+"), "starting"),
    (re.compile(r"Initializing a V1 LLM engine|Initializing an? .*engine"), "engine starting"),
    (re.compile(r"Starting to load model"), "loading the model"),
    (re.compile(r"Loading (?:safetensors|pt) checkpoint shards:.*?\| (\d+)/(\d+)"), "weights: shard {0} of {1}"),
    (re.compile(r"Loading weights took ([\d.]+) seconds"), "weights loaded in {0} s"),
    (re.compile(r"Loading model weights took ([\d.]+) GB"), "weights loaded, {0} GB on a device"),
    (re.compile(r"(?:CPU|GPU) KV cache size: ([\d,]+) tokens"), "KV cache of {0} tokens"),
    (re.compile(r"Capturing CUDA graphs[^|]*\|[^|]*\| (\d+)/(\d+)"), "graphs: {0} of {1}"),
    (re.compile(r"Graph capturing finished in (\d+) secs"), "graphs captured in {0} s"),
    (re.compile(r"init engine .* took ([\d.]+) s"), "engine ready after {0} s"),
    (re.compile(r"Starting vLLM (?:API )?server"), "API server starting"),
    (re.compile(r"Application startup complete"), "API server started"),
    (re.compile(r"Daemon start success!"), "MindIE's daemon started"),
)
_PREFIX = re.compile(r"^\(\w+(?: pid=\d+)?\)\s*|^(?:ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b(?::.*)?$|^\S+: error: .+")
# Errors that only report that another process has failed.
_CONSEQUENCE = re.compile(
    r"See root cause above|EngineDeadError|Engine core initialization failed|Engine process failed|SystemExit"
    r"|KeyboardInterrupt"
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


def watch(
    service: Service | ContainerService,
    health_url: str,
    seconds: float,
    exits_before: int | None = 0,
    ready_log: str = "",
) -> dict:
    """Look at the engine for at most ``seconds``; return as soon as it is ready or dead.

    It is ready when it runs, answers at ``health_url``, and has printed a line in which the regular expression
    ``ready_log`` is found; of the two, those that are given. It is dead when an engine, of whichever rank, has ended
    since the wait began, or nobody is there who would start it.

    :param exits_before: how many ends there had been when the wait began (restarts after a crash); None for those that
        there are now
    :return: ready, dead, progress, findings[] {signature, cause, evidence, remedy, first, tail, host, rank, exit}, log,
        seconds, exits_before
    """
    started = guarded = time.monotonic()
    if exits_before is None:
        exits_before = len(service.endings())
    patience = GUARD_SECONDS if isinstance(service, ContainerService) else 0.0
    while True:
        endings = service.endings()[exits_before:]
        ready = _is_ready(service, health_url, ready_log)
        now = time.monotonic()
        if service.supervisor_pid() is not None:
            guarded = now
        dead = not ready and (bool(endings) or now - guarded > patience)
        elapsed = now - started
        if ready or dead or elapsed >= seconds:
            break
        time.sleep(min(POLL_SECONDS, max(0.0, seconds - elapsed)))
    log = _log_of(service)
    return {
        "ready": ready,
        "dead": dead,
        "progress": "ready" if ready else service.waiting() or progress(log),
        "findings": [_finding(service, log, endings)] if dead else [],
        "log": _log_path(service),
        "seconds": round(time.monotonic() - started, 3),
        "exits_before": exits_before,
    }


def _is_ready(service: Service | ContainerService, health_url: str, ready_log: str) -> bool:
    if service.engine_pid() is None:
        return False
    if ready_log and not re.search(ready_log, _log_of(service)):
        return False
    return not health_url or (is_healthy(health_url, timeout=2.0) and _is_its_own(service, health_url))


def _log_of(service: Service | ContainerService) -> str:
    """Return what the engine that runs now has printed."""
    begin = service.started().get("engine_log_from", 0)
    return read_from(_log_path(service), begin, LOG_WINDOW)[0]


def _log_path(service: Service | ContainerService) -> str:
    return service.path("logs", "engine.log")


def _is_its_own(service: Service, url: str) -> bool:
    """True when the process that answers at ``url`` is the service's, and not a stranger on the same port."""
    port = urllib.parse.urlsplit(url).port
    owners = {entry["pid"] for entry in ports.read(Source()) if entry["port"] == port}
    return bool(owners & set(service.processes()))


def _finding(service: Service | ContainerService, log: str, endings: list[dict]) -> dict:
    """Return why the engine is dead: the first of the ends, or that nobody is there who would start it."""
    if not endings:
        return _told(service, log, cause=service.waiting(), ending="its supervisor is gone")
    first = endings[0]
    host, rank = str(first.get("host") or ""), first.get("rank") or 0
    tail = "\n".join(str(line) for line in first.get("tail") or [])
    # The log of this host, rank 0's, tells more than its last lines, unless the next start has begun meanwhile.
    text = log if rank == 0 and (last_error(log) or not tail) else tail
    how = str(first.get("exit"))
    ending = f"{named(first)}: {how}" if host else how
    return {**_told(service, text, cause="", ending=ending, host=host), "rank": rank, "exit": how}


def _told(service: Service | ContainerService, text: str, cause: str, ending: str, host: str = "") -> dict:
    tail = [line for line in text.splitlines() if line.strip()][-20:]
    return {
        "signature": "engine-died",
        "cause": cause or last_error(text) or (tail[-1].strip() if tail else "the engine printed nothing"),
        "evidence": f"{ending}; {_log_path(service)}",
        "remedy": f"read {_log_path(service)}{' on ' + host if host else ''} from the first error on",
        "first": True,
        "tail": tail,
        "host": host,
        "rank": 0,
        "exit": ending,
    }
