# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One state folder and one serving engine for all scenarios: an engine needs more than a minute to start."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# An engine start takes 60 to 110 s on two busy cores; a run that hangs must not eat the whole session.
RUN_SECONDS = 900
MODEL = ROOT / "models" / "deepseek-v3-tiny"


class Run(NamedTuple):
    """What a playbook did: exit status, its output, and the counts of its recap."""

    code: int
    output: str
    changed: int
    failed: int


class Site:
    """One place to deploy to: a state folder, a report folder, and the playbooks run against them."""

    def __init__(self, folder: Path, deployment: str = "e2e", **settings: object) -> None:
        self.folder = folder
        self.deployment = deployment
        self.state = folder / "state"
        self.reports = folder / "reports" / deployment
        self.weights = self.state / "weights" / MODEL.name
        self.run_dir = self.state / "deployments" / deployment
        self.settings = {
            "llm_state_dir": str(self.state),
            "llm_report_dir": str(folder / "reports"),
            "llm_deployment": deployment,
            **settings,
        }

    def sibling(self, deployment: str, **settings: object) -> Site:
        """Return another deployment on the same state folder: it shares the engine's environment and the weights."""
        return Site(self.folder, deployment, **settings)

    def play(self, playbook: str, *arguments: str, inventory: str = "inventories/local", **settings: object) -> Run:
        """Run a playbook as a user does, with ``settings`` on top of the site's own."""
        command = [
            str(BIN / "ansible-playbook"),
            f"playbooks/{playbook}",
            "-i",
            inventory,
            "-e",
            json.dumps({**self.settings, **settings}),
            *arguments,
        ]
        env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=RUN_SECONDS,
            check=False,
        )
        output = done.stdout + done.stderr
        recap = re.search(r"changed=(\d+)\s+unreachable=\d+\s+failed=(\d+)", output)
        return Run(done.returncode, output, *(int(count) for count in recap.groups()) if recap else (-1, -1))

    def report(self, stage: str) -> dict:
        return json.loads((self.reports / f"{stage}.json").read_text(encoding="utf-8"))

    def processes(self) -> dict[int, str]:
        """Return {pid: command} of everything that runs from this site's folder, found without the project's code."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                environment = (entry / "environ").read_bytes() if command else b""
            except OSError:
                continue
            if str(self.run_dir).encode() in command + environment:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode("utf-8", "replace")
        return found

    def engine_pid(self) -> int:
        """Return the pid of the API server's process."""
        return next(pid for pid, command in self.processes().items() if "vllm.entrypoints" in command)


@pytest.fixture(scope="session", name="site")
def fixture_site():
    """Return the site that the tests share; whatever a test leaves running there is ended at the end."""
    folder = ROOT / ".cache" / "e2e"
    site = Site(folder)
    assert not site.processes(), "an earlier run is still under way"
    shutil.rmtree(folder, ignore_errors=True)
    yield site
    for run_dir in site.state.glob("deployments/*"):
        site.sibling(run_dir.name).play("stop.yml")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", name="fresh_check")
def fixture_fresh_check(site):
    """Return a run in check mode on a host where nothing is installed yet, and what was there after it."""
    run = site.play("deploy_local.yml", "--check", "--diff")
    return run, sorted(site.folder.rglob("*")) if site.folder.exists() else []


@pytest.fixture(scope="session", name="deployed")
def fixture_deployed(site, fresh_check):
    """Return the site with the engine serving, and the run that brought it there."""
    assert fresh_check
    run = site.play("deploy_local.yml")
    assert run.code == 0, run.output[-4000:]
    return site, run


def pytest_collection_modifyitems(items):
    """Run what needs the engine's environment while the deployment that made it is still there."""
    last = [item for item in items if item.name.startswith("test_stop_leaves_no_process")]
    borrowers = [item for item in items if item.path.name == "test_real_parsers.py"]
    if last and borrowers:
        items[:] = [item for item in items if item not in borrowers]
        place = items.index(last[0])
        items[place:place] = borrowers
