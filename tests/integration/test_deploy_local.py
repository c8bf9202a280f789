# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job, end to end, with real vLLM: what a user does, in the order of a deployment's life."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
import urllib.parse
from pathlib import Path

import ansible_runner
import pytest

from .conftest import BIN, MODEL, ROOT, Site

GOLDEN = json.loads((ROOT / "models" / "deepseek-v3-tiny.golden.json").read_text(encoding="utf-8"))["prompts"]
LOCK = json.loads((ROOT / "models" / "deepseek-v3-tiny.lock.json").read_text(encoding="utf-8"))
SECRET = "sk-e2e-only-for-this-test"
SHARDS = sorted(entry["path"] for entry in LOCK["files"] if entry["path"].endswith(".safetensors"))


def request(site: Site, prompt: dict, key: str) -> tuple[int, dict]:
    """Ask the endpoint with nothing of the project in between; return status and answer."""
    parts = urllib.parse.urlsplit(site.report("accept")["endpoint"])
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    body = {
        "model": "deepseek-v3-tiny",
        "messages": [{"role": "user", "content": prompt["prompt"]}],
        "temperature": 0,
        "max_tokens": prompt["max_tokens"],
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def ask(site: Site, prompt: dict) -> str:
    status, answer = request(site, prompt, (site.settings.get("llm_api_keys") or [""])[0])
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"]


def flip_bit(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size * 2 // 3)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 0x40]))


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_check_mode_on_a_fresh_host_tells_all_and_changes_nothing(fresh_check):
    run, left = fresh_check
    assert run.code == 0, run.output[-4000:]
    assert run.changed == 3, "weights, environment, engine"
    assert "+model-00001" in run.output and '+    "vllm.entrypoints' in run.output
    assert left == []


def test_deploy_serves_golden_answers_after_the_playbook_has_ended(deployed):
    site, run = deployed
    assert run.changed == 3
    assert [ask(site, prompt) for prompt in GOLDEN] == [prompt["answer"] for prompt in GOLDEN]


def test_progress_was_shown_while_the_engine_started(deployed):
    assert "s of at most" in deployed[1].output


def test_reports_say_what_the_verdict_rests_on(deployed):
    site, _run = deployed
    accept = site.report("accept")
    assert accept["passed"] is True
    assert accept["load"]["failed_requests"] == 0 and accept["load"]["ttft_ms"]["p50"] > 0
    assert any(answer["streamed"] for answer in accept["answers"])
    assert f"{len(GOLDEN) + 1} of {len(GOLDEN) + 1} answers" in accept["rests_on"][0]
    assert all(site.report(stage)["passed"] for stage in ("discover", "plan", "preflight", "weights", "launch"))
    page = (site.reports / "index.html").read_text(encoding="utf-8")
    assert accept["endpoint"] in page and "<svg" in page


def test_what_is_installed_is_private_and_whole(deployed):
    site, _run = deployed
    assert stat.S_IMODE(site.weights.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in site.weights.iterdir()} == {0o640}
    assert {path.name for path in site.weights.iterdir()} == {entry["path"] for entry in LOCK["files"]}
    assert stat.S_IMODE((site.run_dir / "launch.json").stat().st_mode) == 0o600
    verify = site.report("weights")["hosts"]["localhost"]["verify"]
    assert verify["verified"] and verify["bytes"] == sum(entry["size"] for entry in LOCK["files"])


def test_a_second_deploy_changes_nothing(deployed):
    site, _run = deployed
    before = site.engine_pid()
    run = site.play("deploy_local.yml")
    assert (run.code, run.changed) == (0, 0), run.output[-4000:]
    assert site.engine_pid() == before
    verify = site.report("weights")["hosts"]["localhost"]["verify"]
    assert verify["bytes_hashed"] == 0 and verify["cached"] == len(LOCK["files"])


def test_a_survey_with_text_values_restarts_the_engine_once(deployed):
    """AWX runs playbooks through ansible-runner and hands every survey answer over as text."""
    site, _run = deployed
    site.settings["llm_max_model_len"] = "256"
    site.settings["llm_api_keys"] = [SECRET]
    before = site.engine_pid()
    (site.folder / "runner").mkdir()
    job = ansible_runner.run(
        private_data_dir=str(site.folder / "runner"),
        project_dir=str(ROOT),
        playbook="playbooks/deploy_local.yml",
        inventory=str(ROOT / "inventories" / "local"),
        extravars=site.settings,
        envvars={"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        quiet=True,
    )
    assert job.status == "successful", "".join(job.stdout)[-4000:]
    assert job.stats["changed"] == {"localhost": 1}
    assert site.engine_pid() != before
    assert site.report("plan")["plan"]["serving"]["max_model_len"] == 256
    again = site.play("deploy_local.yml")
    assert (again.code, again.changed) == (0, 0), again.output[-4000:]


def test_the_api_key_is_asked_for_and_told_to_nobody(deployed):
    site, _run = deployed
    assert [request(site, GOLDEN[0], key)[0] for key in ("", "wrong", SECRET)] == [401, 401, 200]
    run = site.play("deploy_local.yml", "--check", "--diff", "-vvv", llm_max_num_seqs=4)
    assert run.code == 0 and run.changed == 1
    shown = run.output.replace(json.dumps({**site.settings, "llm_max_num_seqs": 4}), "")
    assert SECRET not in shown
    assert not [path for path in site.reports.iterdir() if SECRET in path.read_text(encoding="utf-8")]
    assert not [pid for pid, command in site.processes().items() if SECRET in command]
    holders = {path.name for path in site.run_dir.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()}
    assert holders == {"launch.json"}


def test_a_flipped_bit_is_repaired_alone_and_the_engine_loads_the_repaired_file(deployed):
    site, _run = deployed
    damaged, before, engine = SHARDS[1], inodes(site.weights), site.engine_pid()
    flip_bit(site.weights / damaged)
    run = site.play("deploy_local.yml")
    assert run.code == 0, run.output[-4000:]
    assert site.report("weights")["hosts"]["localhost"]["fetch"]["fetched"] == [damaged]
    after = inodes(site.weights)
    assert {name for name in after if after[name] != before[name]} == {damaged}
    assert site.engine_pid() != engine, "it may have loaded the damaged file"
    assert site.report("accept")["passed"]


def test_a_crashed_engine_comes_back_by_itself(deployed):
    site, _run = deployed
    crashed = site.engine_pid()
    os.kill(crashed, signal.SIGKILL)
    run = site.play("deploy_local.yml")
    assert (run.code, run.changed) == (0, 0), run.output[-4000:]
    assert site.engine_pid() != crashed
    assert ask(site, GOLDEN[0]) == GOLDEN[0]["answer"]


def test_an_inventory_without_hosts_is_told(tmp_path, site):
    for content in ("", "[serving]\n"):
        (tmp_path / "hosts").write_text(content, encoding="utf-8")
        run = site.play("deploy_local.yml", inventory=str(tmp_path / "hosts"))
        assert run.code != 0 and "there is no host to serve on" in run.output


# Bad input: one clear error each, nothing half-done, and the deployment that serves goes on serving. -----------------


def refused(run, *texts: str) -> None:
    assert run.code != 0 and run.changed == 0, run.output[-4000:]
    flat = " ".join(run.output.split())
    for text in (*texts, "wanted", "found", "remedy"):
        assert text in flat, f"{text!r} is not in: {flat[-3000:]}"


@pytest.fixture(name="steady")
def fixture_steady(deployed):
    """Return the serving site, and hold that the test has left its engine alone."""
    site, _run = deployed
    before = site.engine_pid()
    yield site
    assert site.engine_pid() == before
    assert ask(site, GOLDEN[0]) == GOLDEN[0]["answer"]


@pytest.fixture(name="source")
def fixture_source(tmp_path):
    return shutil.copytree(MODEL, tmp_path / "source")


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        (
            {"llm_model": "deepseek-v3-tinny"},
            ["'deepseek-v3-tinny' is not in the catalog", "did you mean deepseek-v3-tiny"],
        ),
        ({"llm_engine": "vllm-cpu"}, ["'vllm-cpu' is not in the catalog", "did you mean vllm_cpu"]),
        ({"llm_max_model_length": 8}, ["llm_max_model_length is no variable", "rename it to llm_max_model_len"]),
        ({"llm_max_model_len": "many"}, ["llm_max_model_len has the wrong form"]),
        ({"llm_interface": "eth77"}, ["there is no interface eth77"]),
        ({"llm_engine_python": "/bin/sh"}, ["localhost python", "/bin/sh", "llm_engine_python"]),
        ({"llm_engine_args": ["--port=1"]}, ["llm_engine_args sets --port", "llm_api_port"]),
        (
            {"llm_model": "deepseek-r1-bf16", "llm_weights_lock": "/nowhere.json"},
            ["/nowhere.json cannot be read"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_settings_are_refused_before_anything_is_touched(steady, settings, texts):
    refused(steady.play("deploy_local.yml", **settings), *texts)


def test_all_verdicts_come_at_once(steady):
    """A model that does not fit, has no source, and a port that somebody holds: three fails in one run."""
    other = steady.sibling("other", llm_model="deepseek-r1-bf16", llm_weights_source="/nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = other.play("deploy_local.yml", llm_api_port=taken.getsockname()[1])
    refused(run, "localhost memory", "localhost weights_source", "localhost port", f"(pid {os.getpid()})", "1.3", "TB")
    fails = [verdict["check"] for verdict in other.report("preflight")["verdicts"] if verdict["level"] == "fail"]
    assert set(fails) >= {"memory", "weights_source", "port"}
    assert other.report("preflight")["passed"] is False


def test_no_space_is_told_by_preflight(steady, tmp_path):
    """A file system of 64 KiB for the weights."""
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(target)], check=True)
    try:
        run = steady.sibling("other", llm_weights_path=f"{target}/weights").play("deploy_local.yml")
    finally:
        subprocess.run(["umount", str(target)], check=True)
    refused(run, "localhost disk", "weights", "llm_weights_path")


def test_a_missing_source_is_told(steady, tmp_path):
    other = steady.sibling("other", llm_weights_path=str(tmp_path / "weights"))
    run = other.play("deploy_local.yml", llm_weights_source=str(tmp_path / "nothing"))
    refused(run, "localhost weights_source", "nothing")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_source_puts_nothing_wrong_in_place(steady, source, tmp_path, damage):
    shard = source / SHARDS[2]
    if damage == "truncated":
        os.truncate(shard, shard.stat().st_size // 2)
    elif damage == "flipped":
        flip_bit(shard)
    else:
        shard.unlink()
    # Enough bytes for preflight, which counts them and cannot know which they are.
    target = tmp_path / "target"
    other = steady.sibling("other", llm_weights_source=str(source), llm_weights_path=str(target))
    run = other.play("deploy_local.yml")
    assert run.code != 0 and not (target / SHARDS[2]).exists()
    flat = " ".join(run.output.split())
    assert all(text in flat for text in ("wanted", "found", "remedy", str(source))), flat[-3000:]
    assert damage == "flipped" or "weights_source" in flat or SHARDS[2] in flat
    for path in target.glob("*"):
        wanted = next(entry for entry in LOCK["files"] if entry["path"] == path.name)
        assert path.stat().st_size == wanted["size"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "tokenizer.pkl"])
def test_a_pickle_among_the_weights_is_refused_and_kept(steady, name):
    stray = steady.weights / name
    stray.write_bytes(b"\x80\x04.")
    try:
        refused(steady.play("deploy_local.yml"), name, "pickles among them", "move them away")
        assert stray.read_bytes() == b"\x80\x04."
    finally:
        stray.unlink()


def test_a_missing_engine_package_is_named(steady, tmp_path):
    empty = tmp_path / "wheelhouse"
    empty.mkdir()
    fresh = Site(tmp_path / "fresh", "fresh", llm_engine_wheelhouse=str(empty))
    run = fresh.play("deploy_local.yml")
    flat = " ".join(run.output.split())
    assert run.code != 0 and not fresh.processes()
    assert all(text in flat for text in ("could not be installed", "==", "llm_engine_wheelhouse", "remedy")), flat[
        -3000:
    ]


def test_an_engine_that_dies_ends_the_run_with_its_own_error(steady):
    other = steady.sibling("other", llm_engine_args=["--no-such-flag"])
    started = time.monotonic()
    run = other.play("deploy_local.yml")
    flat = " ".join(run.output.split())
    assert run.code != 0
    assert "the engine died" in flat and "unrecognized arguments: --no-such-flag" in flat, flat[-3000:]
    assert time.monotonic() - started < 300, "half of what it was allowed: death was noticed, not waited out"
    assert other.processes() == {}, "nothing is left in a crash loop"
    assert other.report("launch")["passed"] is False
    assert (other.run_dir / "logs" / "engine.log").exists()


def test_damaged_weights_that_were_locked_as_they_are_fail_acceptance(steady, source, tmp_path):
    """No digest can help when the lock was made from damaged files: the answers tell."""
    for name in SHARDS:
        raw = bytearray((source / name).read_bytes())
        middle = len(raw) // 4 * 2
        for place in range(middle + 1, middle + 4097, 2):
            raw[place] ^= 0x40  # the top bit of a bfloat16's exponent
        (source / name).write_bytes(raw)
    lock = tmp_path / "lock.json"
    damaged = {**LOCK, "files": [entry_of(source, entry["path"]) for entry in LOCK["files"]]}
    lock.write_text(json.dumps(damaged), encoding="utf-8")
    other = steady.sibling(
        "damaged",
        llm_weights_source=str(source),
        llm_weights_path=str(tmp_path / "weights"),
        llm_weights_lock=str(lock),
    )
    run = other.play("deploy_local.yml")
    assert run.code != 0
    assert "answers wrongly" in " ".join(run.output.split()), run.output[-3000:]
    assert other.report("accept")["passed"] is False
    assert any(not answer["passed"] for answer in other.report("accept")["answers"])
    assert other.play("stop.yml").code == 0
    assert other.processes() == {}


def entry_of(folder: Path, name: str) -> dict:
    data = (folder / name).read_bytes()
    return {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_stop_leaves_no_process_and_remove_leaves_no_file(deployed):
    site, _run = deployed
    there = site.processes()
    assert len(there) >= 3
    run = site.play("stop.yml")
    assert run.code == 0 and run.changed == 1, run.output[-3000:]
    assert site.processes() == {}
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in there)
    assert site.play("stop.yml").changed == 0
    kept = site.state / "weights" / "notes.txt"
    kept.write_text("mine", encoding="utf-8")
    # The environment is shared: it goes with the last deployment that uses it.
    for name in os.listdir(site.state / "deployments"):
        assert site.sibling(name).play("stop.yml", llm_remove="true").code == 0
    left = [path for path in site.state.rglob("*") if not path.is_dir()]
    assert left == [kept]
