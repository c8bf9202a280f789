# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import exclusive, lockfile, tree
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import agent, control, seed, status, wheel

CHAIN = [{"host": "seed", "address": "127.0.0.1"}, {"host": "here", "address": "127.0.0.2"}]


@pytest.fixture
def spec(model, lock):
    """Of the second of two hosts, which has everything already; nothing here starts it."""
    return {"dest": str(model), "lock": lock, "host": "here", "address": "127.0.0.2", "port": 29600, "chain": CHAIN}


def note_agent(dest: str, **changes: object) -> None:
    """Note this very process as the agent, as it would itself."""
    status.make_folder(dest)
    note = {"pid": os.getpid(), "started": agent._started_at(os.getpid()), "boot": agent._boot(), **changes}
    Path(status.folder(dest), status.AGENT).write_text(json.dumps(note))


def note_spec(spec: dict) -> None:
    Path(status.folder(spec["dest"]), "spec.json").write_text(json.dumps(control.with_engine(agent.checked(spec))))


def test_a_spec_is_completed_and_its_lock_checked(spec):
    found = agent.checked({**spec, "processes": 0})
    assert (found["engine"], found["processes"], found["linger"]) == ("libtorrent", 1, 600)
    assert found == agent.checked(found)
    with pytest.raises(LlmError, match="names no files"):
        agent.checked({**spec, "lock": {"files": []}})


@pytest.mark.parametrize("addresses", [[], ["127.0.0.1"], ["127.0.0.2", "127.0.0.2"], ["127.0.0.2", "::1", "::1"]])
def test_a_chain_without_this_host_or_with_one_twice_is_refused(spec, addresses):
    chain = [{"host": f"h{at}", "address": address} for at, address in enumerate(addresses)]
    with pytest.raises(LlmError, match="chain"):
        agent.checked({**spec, "chain": chain})


def test_the_file_system_of_the_seed_is_known_by_its_token(spec, model):
    here = agent.checked({**spec, "shared_token": "abc"})
    assert not agent.is_shared(here)
    status.make_folder(str(model))
    token = Path(status.folder(str(model)), "token")
    token.write_text("another\n")
    assert not agent.is_shared(here)
    token.write_text("abc\n")
    assert agent.is_shared(here)
    assert not agent.is_shared({**here, "address": "127.0.0.1"})
    assert not agent.is_shared({**here, "shared_token": ""})
    token.write_bytes(b"\xff\xfe")
    assert not agent.is_shared(here)


def test_a_process_is_taken_for_the_agent_only_when_it_is_that_very_one(model):
    dest = str(model)
    assert agent.running(dest) == 0
    note_agent(dest)
    assert agent.running(dest) == os.getpid()
    for changes in ({"started": "1"}, {"boot": "another"}, {"pid": "1"}, {"pid": None}, {"started": None}):
        note_agent(dest, **changes)
        assert agent.running(dest) == 0


def test_one_that_has_ended_is_not_running_even_where_nobody_asks_about_it(model):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    note_agent(str(model), pid=process.pid, started=agent._started_at(process.pid))
    assert agent.running(str(model)) == process.pid
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert agent.running(str(model)) == 0
    process.wait()


def test_what_another_host_put_there_is_not_stopped(model):
    dest = str(model)
    note_agent(dest, boot="another")
    assert control.stop(dest) is False
    assert os.path.isdir(status.folder(dest))


def test_stopping_removes_what_is_ours_and_leaves_the_weights(model, listing):
    dest, before = str(model), listing(model)
    assert control.stop(dest) is False
    status.make_folder(dest)
    status.write(dest, 0, dict(status.new(1), state="complete"))
    note_agent(dest, finished=True, started=0)
    os.makedirs(tree.aside(dest, "incoming"))
    assert control.stop(dest, check=True) is True
    assert os.path.isdir(status.folder(dest))
    assert control.stop(dest) is True
    assert not os.path.exists(status.folder(dest))
    assert not os.path.exists(tree.aside(dest, "incoming"))
    assert listing(model) == before


def test_stopping_keeps_what_came_of_files_that_are_not_whole(model):
    dest = str(model)
    status.make_folder(dest)
    status.write(dest, 0, dict(status.new(2), state="failed"))
    incoming = tree.aside(dest, "incoming")
    os.makedirs(incoming)
    (model.parent / os.path.basename(incoming) / "part").write_bytes(b"x")
    assert control.stop(dest) is True
    assert os.listdir(incoming) == ["part"]
    assert control.stop(dest) is False


def test_files_that_are_nobodys_are_refused_pickles_first(model, lock):
    agent.refuse_strangers(str(model), lock)
    (model / "zz.txt").write_text("mine")
    (model / "x.pkl").write_text("mine")
    with pytest.raises(LlmError, match="pickles") as caught:
        agent.refuse_strangers(str(model), lock)
    assert caught.value.found == "x.pkl"


def test_check_mode_says_what_is_wrong_and_starts_nothing(spec, model, listing, settle):
    settle(model)
    assert control.start(spec, check=True) == {"wrong": []}
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").unlink()
    (model / "more").write_text("")
    before = listing(model.parent)
    assert control.start(spec, check=True)["wrong"] == [
        "config.json truncated",
        "more of another lock",
        "tokenizer.json missing",
    ]
    assert listing(model.parent) == before
    absent = {**spec, "dest": str(model.parent / "absent")}
    assert len(control.start(absent, check=True)["wrong"]) == len(spec["lock"]["files"])


def test_one_that_runs_with_the_same_spec_is_left_alone_and_another_lock_is_refused(spec, lock):
    note_agent(spec["dest"])
    note_spec(spec)
    assert control.start(spec) == {"wrong": []}
    other = {**lock, "revision": "r2", "files": lock["files"][1:]}
    with pytest.raises(LlmError, match="another lock") as caught:
        control.start({**spec, "lock": other})
    assert "toy r2" in caught.value.wanted
    assert "toy r1" in caught.value.found
    assert str(os.getpid()) in caught.value.found


def test_a_folder_that_another_job_writes_is_not_shared(spec):
    with exclusive.writing(spec["dest"], "weights_fetch"), pytest.raises(LlmError, match="another run") as caught:
        control.start(spec)
    assert "weights_fetch" in caught.value.found


def test_nothing_that_was_started_is_no_end(spec):
    now = control.follow(spec, 0)
    assert (now["state"], now["complete"], now["error"]) == ("", False, {})
    with pytest.raises(LlmError, match="not complete after 0 s") as caught:
        control.complete(spec, 0)
    assert "not started" in caught.value.found


def test_one_that_is_gone_before_its_end_is_told_with_what_it_had(spec):
    note_agent(spec["dest"], started="1")
    status.write(spec["dest"], 0, {**status.new(100), "state": "sharing", "bytes_done": 40})
    with pytest.raises(LlmError, match="is gone") as caught:
        control.complete(spec, 5)
    assert "40 of 100 bytes" in caught.value.found


def test_what_a_worker_failed_of_is_told_in_its_own_words(spec):
    error = LlmError("no room", wanted="2 bytes", found="1 byte", remedy="make room")
    note_agent(spec["dest"])
    status.write(spec["dest"], 0, status.fail(status.new(100), error))
    with pytest.raises(LlmError) as caught:
        control.complete(spec, 5)
    assert str(caught.value) == str(error)


def test_after_the_time_it_is_told_who_was_connected(spec):
    note_agent(spec["dest"])
    peers = [{"host": "seed", "received": 1, "sent": 0, "connected": True}]
    status.write(spec["dest"], 0, {**status.new(100), "state": "sharing", "peers": peers})
    with pytest.raises(LlmError) as caught:
        control.complete(spec, 0)
    assert caught.value.found == "0 bytes, state sharing, connected with seed"


def test_ready_says_what_can_run_here(tmp_path, monkeypatch):
    monkeypatch.setattr(control.wheels, "wheel", lambda _python, _machine: {})
    monkeypatch.setenv("PATH", str(tmp_path))
    path = str(tmp_path / "weights")
    found = control.ready(path, str(tmp_path / "tools"), "", "", check=True)
    assert found["changed"] is False
    assert found["engines"]["libtorrent"]
    assert found["engines"]["rsync"]
    assert not os.path.exists(found["torrents_dir"])
    control.ready(path, str(tmp_path / "tools"), "", "")
    assert os.path.isdir(seed.folder(path))


@pytest.mark.parametrize(("reason", "engine"), [("", "libtorrent"), ("no glibc", "rsync")])
def test_auto_is_what_can_run_here(spec, monkeypatch, reason, engine):
    monkeypatch.setattr(wheel, "reason", lambda _library: reason)
    assert control.with_engine(agent.checked({**spec, "engine": "auto"}))["engine"] == engine
    assert control.with_engine(agent.checked({**spec, "engine": "rsync"}))["engine"] == "rsync"


def test_options_of_the_module_become_a_spec(model, lock):
    params = {
        **{"path": str(model), "lock": lock, "host": "here", "address": "127.0.0.2", "port": 1, "chain": CHAIN},
        **{"torrents": ["a.torrent", "/b.torrent"], "processes": 2, "engine": "auto", "wheel": "", "wheel_sha256": ""},
        **{"tools_dir": "/opt/tools", "rate_limit": 5, "owner": "", "group": "0", "linger": 7, "speed_mbps": 9},
        "shared_token": "abc",
    }
    found = agent.checked(control.spec_of(params))
    assert found["torrents"] == [os.path.join(seed.folder(str(model)), "a.torrent"), "/b.torrent"]
    assert found["owner"] == [-1, 0]
    assert found["library"] == control.library("/opt/tools")
    assert lockfile.identity(found["lock"]) == lockfile.identity(lockfile.check(lock))
    with pytest.raises(LlmError, match="no user"):
        control.spec_of({**params, "owner": "nobody-of-this-name"})
