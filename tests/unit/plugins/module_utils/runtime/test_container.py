# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host sees of its containers' engines, with real guards and the wait for them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import readiness
from ansible_collections.baremetal.llm.plugins.module_utils.runtime import processes
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.container import ContainerService, service_of
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.service import Service
from ansible_collections.baremetal.llm.tests.unit.plugins.module_utils.runtime.waiting import eventually

SERVE = f"""{sys.executable} -c '
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
' """


def url(port):
    return f"http://127.0.0.1:{port}/health"


def test_facts_of_a_running_container(group, dead_port):
    rank = group.add(1, api_port=dead_port, engine="sleep 600 & sleep 600 & wait").start()
    service = service_of(str(rank.folder))
    assert isinstance(service, ContainerService)
    assert eventually(lambda: len(service.processes()) == 4 and service.engine_pid())
    assert service.supervisor_pid() == rank.process.pid
    assert processes.parent(service.engine_pid()) == rank.process.pid
    assert service.engine_pid() == rank.state()["pid"], "no pid namespace here"
    facts = service.facts()
    assert facts["running"] and facts["port"] == dead_port and facts["memory_bytes"] > 1_000_000
    assert sorted(facts["pids"]) == sorted(rank.processes())
    assert set(facts) == set(Service(str(rank.folder)).facts()), "the same for both runtimes"
    assert service.started()["digest"] == "d1" and service.started()["generation"] == 1
    assert service.waiting() == "" and service.exits() == []
    rank.end()
    assert service.facts() == {
        "runtime": "docker",
        "running": False,
        "pids": [],
        "port": None,
        "memory_bytes": 0,
        "environment": "",
        "environment_shared": False,
    }


def test_a_rank_without_api_has_no_port(group):
    rank = group.add(1, api_port=0).start()
    service = ContainerService(str(rank.folder))
    assert eventually(lambda: service.facts()["running"])
    assert service.facts()["port"] is None


def test_nothing_there_is_nothing(tmp_path):
    service = ContainerService(str(tmp_path))
    assert service.supervisor_pid() is None and service.engine_pid() is None and service.processes() == []
    assert service.started() == {} and service.exits() == [] and service.waiting() == "waiting for its container"
    assert not service.facts()["running"]
    assert isinstance(service_of(str(tmp_path)), Service)


def test_a_service_under_a_supervisor_is_told_from_a_container(tmp_path):
    """Files of a container that was there before do not hide the engine that runs now."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "rank.json").write_text('{"api_port": 1}')
    assert isinstance(service_of(str(tmp_path)), ContainerService)
    service = Service(str(tmp_path), sys.executable, stop_seconds=5)
    try:
        launch = {"argv": [sys.executable, "-c", "import time; time.sleep(600)"], "env": {"PATH": os.defpath}}
        service.start(dict(launch, workdir=str(tmp_path / "work"), port=1), "d", {})
        assert type(service_of(str(tmp_path))).__name__ == "Service"
    finally:
        service.stop()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"exits": 5, "pid": "x", "guard_start_ticks": 1}'])
def test_a_state_file_that_cannot_be_read_is_none(group, text):
    rank = group.add(1).start()
    service = ContainerService(str(rank.folder))
    assert eventually(lambda: rank.runs() and service.engine_pid())
    Path(service.path("logs", "rank.json")).write_text(text)
    assert service.engine_pid() is None and service.endings() == [] and service.waiting() == "waiting for its container"


def test_what_an_earlier_guard_has_left_does_not_count(group):
    rank = group.add(1, engine="exit 3").start()
    service = ContainerService(str(rank.folder))
    assert eventually(service.exits)
    assert service.exits()[0] == "rank 0 (a1), generation 1: exit status 3"
    rank.crash()
    assert service.endings() == [] and service.started() == {}
    rank.engine = "sleep 600"
    rank.start()
    assert eventually(service.engine_pid)
    assert service.endings() == [] and service.started()["generation"] > 1


def test_wait_for_a_group_that_serves(group, free_port):
    head = group.add(2, engine=f"sleep 1; exec {SERVE}{free_port}", api_port=free_port)
    service = ContainerService(str(head.folder))
    head.start()
    waits = readiness.watch(service, url(free_port), 3)
    assert not waits["ready"] and not waits["dead"] and waits["progress"] == "waiting for rank 1 (a2)"
    member = group.add(2).start()
    result = readiness.watch(service, url(free_port), 60, waits["exits_before"])
    assert result["ready"] and not result["dead"] and result["findings"] == [] and result["progress"] == "ready"
    assert readiness.watch(ContainerService(str(member.folder)), "", 30)["ready"], "a rank without API has to run"


def test_the_wait_ends_at_once_when_another_rank_dies_and_names_it(group, dead_port):
    head = group.add(2, quick="guard.FIRST_PAUSE_SECONDS = 30.0").start()
    group.add(2, engine="echo 'RuntimeError: HCCL timeout on rank 1'; sleep 1; exit 9").start()
    service = ContainerService(str(head.folder))
    assert eventually(service.supervisor_pid)
    started = time.monotonic()
    result = readiness.watch(service, url(dead_port), 300, 0)
    assert time.monotonic() - started < 150, "far from the 300 s that it was allowed"
    assert result["dead"] and not result["ready"]
    (finding,) = result["findings"]
    assert (finding["host"], finding["rank"], finding["exit"]) == ("a2", 1, "exit status 9")
    assert finding["cause"] == "RuntimeError: HCCL timeout on rank 1"
    assert finding["evidence"].startswith("rank 1 (a2): exit status 9; ") and "on a2" in finding["remedy"]
    assert finding["tail"] == ["RuntimeError: HCCL timeout on rank 1"]


def test_the_wait_tells_the_cause_from_the_whole_log_of_its_own_rank(group, dead_port):
    noise = "seq -f 'line %g' 30"
    head = group.add(1, engine=f"echo 'ValueError: the cause'; {noise}; exit 1", quick="guard.FIRST_PAUSE_SECONDS = 30")
    head.start()
    service = ContainerService(str(head.folder))
    result = readiness.watch(service, url(dead_port), 60, 0)
    (finding,) = result["findings"]
    assert finding["cause"] == "ValueError: the cause" and len(finding["tail"]) == 20 and finding["host"] == "a1"


def test_ends_before_the_wait_do_not_count(group, free_port):
    flag = group.folder / "crashed"
    crash_once = f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}; sleep 1; exec {SERVE}{free_port}"
    rank = group.add(1, engine=crash_once).start()
    service = ContainerService(str(rank.folder))
    assert eventually(service.endings)
    result = readiness.watch(service, url(free_port), 60, None)
    assert result["ready"] and result["exits_before"] == 1


def test_readiness_by_a_line_of_the_log(group):
    """Ready by the line of this start; the same line of an earlier one tells nothing."""
    flag = group.folder / "second"
    engine = f"if [ -e {flag} ]; then sleep 600; fi; echo 'Daemon start success!'; sleep 600"
    rank = group.add(1, engine=engine).start()
    service = ContainerService(str(rank.folder))
    assert readiness.watch(service, "", 30, 0, ready_log=r"Daemon start success!")["ready"]
    flag.touch()
    os.kill(service.engine_pid(), 9)
    assert eventually(lambda: service.started().get("generation") == 2 and service.engine_pid())
    result = readiness.watch(service, "", 2, None, ready_log=r"Daemon start success!")
    assert not result["ready"] and not result["dead"]


def test_both_the_line_and_the_url_are_waited_for(group, dead_port):
    rank = group.add(1, engine="echo 'Daemon start success!'; sleep 600").start()
    service = ContainerService(str(rank.folder))
    assert eventually(lambda: "success" in rank.log())
    assert not readiness.watch(service, url(dead_port), 1, 0, ready_log="success")["ready"]


def test_a_guard_that_cannot_begin_is_told(group, dead_port):
    rank = group.add(2, key="short")
    rank.write("secrets.json", {"key": "", "env": {}})
    rank.start()
    assert rank.process.wait(60) == 78
    result = readiness.watch(ContainerService(str(rank.folder)), url(dead_port), 60, 0)
    assert result["dead"] and "is shorter than" in result["findings"][0]["cause"]
    assert result["seconds"] >= readiness.GUARD_SECONDS, "Docker may be starting it"


def test_a_container_that_is_not_there_yet_is_waited_for_a_moment(group, dead_port):
    rank = group.add(1)
    result = readiness.watch(ContainerService(str(rank.folder)), url(dead_port), 1, 0)
    assert not result["dead"] and result["progress"] == "waiting for its container"


def test_the_number_inside_of_a_pid_namespace(tmp_path):
    """/proc/PID/status of a process in two namespaces, as the kernel writes it."""
    assert processes.inner_pid(os.getpid()) == os.getpid()
    assert processes.inner_pid(2**22 + 1) == 0
    assert processes.start_ticks(os.getpid()) > 0 and processes.start_ticks(2**22 + 1) == 0
    assert json.dumps(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("INFO 11-22 [model_runner_v1.py:1] Loading model weights took 42.1234 GB", "weights loaded, 42.1234 GB"),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  45%|####  | 5/11 [00:01]", "graphs: 5 of 11"),
        ("INFO Graph capturing finished in 18 secs, took 0.96 GiB", "graphs captured in 18 s"),
        ("INFO GPU KV cache size: 49,152 tokens", "KV cache of 49,152 tokens"),
        ("Daemon start success!", "MindIE's daemon started"),
    ],
)
def test_steps_of_other_engines(line, step):
    assert readiness.progress(line + "\n").startswith(step)
