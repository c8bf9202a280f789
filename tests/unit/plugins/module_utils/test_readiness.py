# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Readiness: what a log tells, and the wait itself against real processes."""

from __future__ import annotations

import os
import socket
import sys
import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import readiness
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.service import Service, digest_of
from hypothesis import given
from hypothesis import strategies as st

STARTING = """(APIServer pid=18042) INFO 11-22 02:45:48 [api_utils.py:347]  █  version 0.32.0
"""
LOADING = (
    STARTING
    + """(EngineCore pid=18199) INFO 11-22 02:46:14 [core.py:133] Initializing a V1 LLM engine (v0.32.0)
(Worker pid=18216) INFO 11-22 02:46:26 [cpu_model_runner.py:68] Starting to load model /m...
Loading safetensors checkpoint shards:   0% Completed | 0/13 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  38% Completed | 5/13 [00:00<00:00, 150.65it/s]
"""
)
READY = (
    LOADING
    + """(Worker pid=18216) INFO 11-22 02:46:26 [default_loader.py:501] Loading weights took 0.09 seconds
(EngineCore pid=18199) INFO 11-22 02:46:27 [kv_cache_utils.py:2327] CPU KV cache size: 310,688 tokens
(EngineCore pid=18199) INFO 11-22 02:46:30 [core.py:402] init engine (create kv cache) took 2.98 s
(APIServer pid=18042) INFO 11-22 02:46:32 [entry.py:140] Starting vLLM server on http://127.0.0.1:8000
(APIServer pid=18042) INFO:     Application startup complete.
"""
)
CORE = "(EngineCore pid=7) ERROR 11-22 02:46:14 [core.py:901] "
CAUSE = "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata"
DIED = f"""\
{CORE}EngineCore failed to start.
{CORE}Traceback (most recent call last):
{CORE}  File "loader.py", line 1, in load
{CORE}{CAUSE}
(APIServer pid=5) Traceback (most recent call last):
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""


@pytest.mark.parametrize(
    ("log", "step"),
    [
        ("", ""),
        ("nothing known\n", ""),
        (STARTING, "starting"),
        (LOADING, "weights: shard 5 of 13"),
        (READY, "API server started"),
    ],
)
def test_progress_is_the_furthest_step(log, step):
    assert readiness.progress(log) == step


def test_last_error_is_the_cause_and_not_its_report():
    assert readiness.last_error(DIED) == CAUSE


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("", ""),
        (READY, ""),
        ("OSError: [Errno 98] Address already in use\n", "OSError: [Errno 98] Address already in use"),
        ("api_server.py: error: unrecognized arguments: --x\n", "api_server.py: error: unrecognized arguments: --x"),
        (
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        ("INFO no error: all is well: SomethingError was avoided\n", ""),
    ],
)
def test_last_error(log, error):
    assert readiness.last_error(log) == error


@given(st.text())
def test_any_log_is_read(log):
    assert isinstance(readiness.progress(log), str)
    assert isinstance(readiness.last_error(log), str)


SERVER = """
import http.server, sys, time
time.sleep(float(sys.argv[2]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(name="service")
def fixture_service(tmp_path):
    service = Service(str(tmp_path / "run"), sys.executable, stop_seconds=5)
    yield service
    service.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(service, *argv):
    launch = {"argv": [sys.executable, *argv], "env": {"PATH": os.defpath}, "workdir": service.path("work"), "port": 1}
    service.start(launch, digest_of(launch, {}), {})


def test_ready_when_the_engine_answers(service):
    port = free_port()
    start(service, "-c", SERVER, str(port), "0.5")
    result = readiness.watch(service, f"http://127.0.0.1:{port}/health", 30)
    assert result["ready"] and not result["dead"] and result["findings"] == [] and result["progress"] == "ready"


def test_ends_at_once_when_the_engine_dies_and_says_why(service):
    started = time.monotonic()
    start(service, "-c", f"import sys; sys.stderr.write({DIED!r}); sys.exit(1)")
    result = readiness.watch(service, f"http://127.0.0.1:{free_port()}/health", 120)
    assert time.monotonic() - started < 60, "far from the 120 s that it was allowed"
    assert result["dead"] and not result["ready"]
    assert "incomplete metadata" in result["findings"][0]["cause"]
    assert "exit status 1" in result["findings"][0]["evidence"]


def test_an_engine_without_supervisor_is_dead(service):
    result = readiness.watch(service, f"http://127.0.0.1:{free_port()}/health", 5)
    assert result["dead"] and result["findings"][0]["cause"] == "the engine printed nothing"


def test_a_slow_engine_is_neither_ready_nor_dead(service):
    start(service, "-c", f"import time; print({LOADING!r}, flush=True); time.sleep(600)")
    result = readiness.watch(service, f"http://127.0.0.1:{free_port()}/health", 3)
    assert not result["ready"] and not result["dead"]
    assert result["progress"] == "weights: shard 5 of 13"


def test_an_answer_from_a_stranger_is_not_readiness(service):
    """Another process answers on the port while our engine is dead."""
    port = free_port()
    stranger = Service(service.run_dir + "-stranger", sys.executable, stop_seconds=5)
    try:
        start(stranger, "-c", SERVER, str(port), "0")
        assert readiness.watch(stranger, f"http://127.0.0.1:{port}/health", 30)["ready"]
        start(service, "-c", "import sys; sys.exit(1)")
        assert readiness.watch(service, f"http://127.0.0.1:{port}/health", 30)["dead"]
    finally:
        stranger.stop()


def test_restarts_before_the_wait_do_not_count(service):
    port = free_port()
    flag = service.path("crashed-once")
    crash_once = f"import os, sys\nif not os.path.exists({flag!r}):\n    open({flag!r}, 'w').close(); sys.exit(1)\n"
    start(service, "-c", crash_once + SERVER, str(port), "1")
    end = time.monotonic() + 20
    while not service.exits() and time.monotonic() < end:
        time.sleep(0.05)
    result = readiness.watch(service, f"http://127.0.0.1:{port}/health", 30, exits_before=len(service.exits()))
    assert result["ready"]
