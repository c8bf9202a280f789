# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""weights.yml over ssh against three emulated servers with Atlas 300I Duo cards, from a hub on the seed's own network.

The hub is the local one that the hub's own client library was held to; hosts, sshd and links are real.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "testbed")]

import fleet as fleets  # noqa: E402
from ansible_collections.baremetal.llm.tests.testbed import hubs  # noqa: E402
from tests.testbed import servers  # noqa: E402

BIN = Path(sys.executable).parent
FOLDER = ROOT / ".cache" / "fleets" / "wplay"
MODEL = ROOT / "models" / "deepseek-v3-tiny"
RUN_SECONDS = 300
TOKEN = "hub-token-of-the-test"
HOSTS = ["d1", "d2", "d3"]
# Serves until its input ends.
HUB = """
import sys
from ansible_collections.baremetal.llm.tests.testbed import hubs
with hubs.start("modelers", sys.argv[1], token=sys.argv[2]) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
INSTALLED = Path("/data/llm/weights/deepseek-r1-a8w8")


class Rack:
    """Three hosts, a hub that the first of them reaches, and weights.yml run against them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts = fleets.hosts(folder)
        self.vault = folder / "secret.json"
        self.hub = subprocess.Popen(
            ["nsenter", "-t", str(self.hosts["d1"]["pid"]), "-n", "--", sys.executable, "-c", HUB, str(MODEL), TOKEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.url = self.hub.stdout.readline().strip()
        self.vault.write_text(json.dumps({"llm_weights_token": TOKEN}), encoding="utf-8")

    def begin(self, *arguments: str, **settings: object) -> subprocess.Popen:
        """Start weights.yml; all of what it says goes to one pipe."""
        given = {
            "llm_weights_source": "modelers://acme/tiny",
            "llm_weights_endpoint": self.url,
            "llm_report_dir": str(self.folder / "reports"),
            **settings,
        }
        return subprocess.Popen(
            [
                str(BIN / "ansible-playbook"),
                "playbooks/weights.yml",
                "-i",
                str(self.folder / "inventory.yml"),
                "-e",
                f"@{self.vault}",
                "-e",
                json.dumps(given),
                *arguments,
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, *arguments: str, **settings: object) -> tuple[int, str]:
        """Run weights.yml; return its status and its output."""
        process = self.begin(*arguments, **settings)
        output, _nothing = process.communicate(timeout=RUN_SECONDS)
        return process.returncode, output

    def report(self) -> dict:
        """Return the report of the last run."""
        path = self.folder / "reports" / "default" / "weights.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def sums(self, host: str) -> dict[str, str]:
        """Return the SHA-256 of every installed file of a host, by the system's own program."""
        done = fleets.run_on(self.hosts[host], ["sh", "-c", f"cd {INSTALLED} && find . -type f -exec sha256sum {{}} +"])
        return {line[66:].removeprefix("./"): line[:64] for line in done.stdout.splitlines()}

    def shell(self, host: str, script: str) -> str:
        return fleets.run_on(self.hosts[host], ["sh", "-c", script]).stdout


def published() -> dict[str, str]:
    """Return what the hub publishes, with config.json as these cards need it."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in MODEL.iterdir() if path.is_file()}
    config = {**json.loads((MODEL / "config.json").read_text(encoding="utf-8")), "torch_dtype": "float16"}
    found["config.json"] = hashlib.sha256((json.dumps(config, indent=2) + "\n").encode()).hexdigest()
    return found


def recap(output: str) -> dict[str, int]:
    return {host: int(count) for host, count in re.findall(r"^(d\d) .*changed=(\d+)", output, re.M)}


@pytest.fixture(scope="module", name="rack")
def fixture_rack():
    description = {
        "name": "wplay",
        "network": "10.231.74.0/24",
        "groups": {"serving": HOSTS},
        "servers": {host: {"state": "duo_310p3"} for host in HOSTS},
        "vars": {"llm_engine": "vllm_mindspore", "llm_model": "deepseek-r1-a8w8"},
    }
    fleets.down(FOLDER)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "fleet.yml").write_text(yaml.safe_dump(servers.fleet(description)), encoding="utf-8")
    fleets.up(FOLDER / "fleet.yml", FOLDER)
    rack = Rack(FOLDER)
    yield rack
    rack.hub.communicate("")
    fleets.down(FOLDER)
    shutil.rmtree(FOLDER)


def test_from_the_hub_to_every_host(rack):
    code, output = rack.play()
    assert code == 0, output[-9000:]
    assert {host: rack.sums(host) for host in HOSTS} == dict.fromkeys(HOSTS, published())
    assert "all 3 nodes hold the same" in output
    report = rack.report()
    assert TOKEN not in output + json.dumps(report)
    assert [report["hosts"][host].get("fetch", {}).get("patched") for host in HOSTS] == [["config.json"], None, None]
    # Each byte has come once, and from the neighbour.
    sources = {
        host: [peer["host"] for peer in report["hosts"][host]["share"]["peers"] if peer["received"]] for host in HOSTS
    }
    assert sources == {"d1": [], "d2": ["d1"], "d3": ["d2"]}
    assert rack.shell("d2", "pgrep -x llm-share") == ""

    code, output = rack.play(llm_weights_deep=True)
    assert (code, recap(output)) == (0, {host: 0 for host in HOSTS}), output[-4000:]
    hosts = rack.report()["hosts"]
    assert [hosts[host]["read"]["bytes_hashed"] for host in HOSTS[1:]] == [hosts["d1"]["verify"]["bytes"]] * 2


def test_one_host_at_a_time_and_without_the_library(rack):
    """With one fork no two hosts are ever worked on together; and an engine that cannot be had is no end."""
    rack.shell("d2", "rm -rf /data/llm")
    rack.shell("d3", "rm -rf /data/llm")
    empty = rack.folder / "wheels"
    empty.mkdir(exist_ok=True)
    code, output = rack.play("--forks", "1", llm_weights_wheels=str(empty))
    assert code == 0, output[-9000:]
    assert {rack.report()["hosts"][host]["share"]["engine"] for host in HOSTS} == {"rsync"}
    assert {host: rack.sums(host) for host in HOSTS} == dict.fromkeys(HOSTS, published())


def test_a_run_that_is_killed_and_one_beside_it(rack):
    rack.shell("d3", "rm -rf /data/llm")
    first = rack.begin(llm_weights_bandwidth=1)
    try:
        for line in first.stdout:
            if "Wait for every byte" in line:
                break
        # Another deployment of other weights, to the same place: it is told who is there, and touches nothing.
        rack.shell("d1", f"cp -r {INSTALLED} /data/other && echo >> /data/other/chat_template.jinja")
        beside = {"llm_model": "deepseek-r1-a8w4", "llm_weights_source": "/data/other"}
        code, output = rack.play(llm_deployment="other", llm_weights_path=str(INSTALLED), **beside)
        assert code != 0
        assert "weights_share on d1" in output, output[-4000:]
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    # What it has begun goes on without it; the next run takes over, with other settings.
    assert rack.shell("d3", "pgrep -x llm-share") != ""
    code, output = rack.play()
    assert code == 0, output[-9000:]
    assert rack.report()["hosts"]["d3"]["share"]["bytes_resumed"] > 0
    assert {host: rack.sums(host) for host in HOSTS} == dict.fromkeys(HOSTS, published())
    assert rack.shell("d3", "pgrep -x llm-share") == ""


def test_a_lock_to_be_kept_in_the_inventory(tmp_path):
    path = tmp_path / "mine" / "r1.lock.json"
    with hubs.start("hf", str(MODEL)) as server:
        settings = {"llm_weights_source": "hf://acme/tiny", "llm_weights_endpoint": server.url}
        settings.update(llm_model="deepseek-r1-fp8", llm_weights_lock=str(path))
        command = [str(BIN / "ansible-playbook"), "playbooks/lock_weights.yml", "-e", json.dumps(settings)]
        outputs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False) for _run in range(2)]
        commit = server.application.repository.commit
    assert [done.returncode for done in outputs] == [0, 0], outputs[0].stdout[-3000:]
    assert ["changed=1" in done.stdout for done in outputs] == [True, False]
    lock = json.loads(path.read_text(encoding="utf-8"))
    assert (lock["model"], lock["revision"]) == ("deepseek-r1-fp8", commit)
    assert {entry["path"]: entry["sha256"] for entry in lock["files"]} == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in MODEL.iterdir()
    }
    command[3] = "{}"
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "none of them" in refused.stdout
