# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Racks of emulated servers with a real Docker Engine each, and the playbooks of the families run against them.

Accelerators are emulated and engines are stand-ins (tests/testbed/engines); sshd, Docker, images, containers, the
sharing of weights and the network between the hosts are real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockmaker
from ansible_collections.baremetal.llm.tests.testbed import fleet, images, servers

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODEL = ROOT / "models" / "deepseek-v3-tiny"
GOLDEN = ROOT / "models" / "deepseek-r1.golden.json"
RUN_SECONDS = 600
SOURCE = "/data/r1"
# What this kind of machine grants containers: more needs CAP_SYS_RESOURCE, which a machine in a container lacks.
ULIMITS = {"memlock": 8388608, "nofile": 20000}


class Rack:
    """One fleet, and one family's shipped inventory as it is, with addresses and what this machine cannot have.

    :param name: of the fleet, at most six letters and digits
    :param network: the /24 of the hosts
    :param state: of each host (tests/testbed/states)
    :param inventory: the shipped inventory; its hosts get their names and settings from there
    :param image: what the engine's image is made of, as tests/testbed/images.py takes it
    :param changes: what differs in the state of each host
    :param settings: over those of the inventory
    """

    def __init__(
        self,
        name: str,
        network: str,
        state: str,
        inventory: str,
        image: str,
        changes: dict | None = None,
        **settings: object,
    ) -> None:
        self.folder = ROOT / ".cache" / "fleets" / name
        self.shipped = ROOT / "inventories" / inventory
        self.dir = self.folder / "fleet"
        self.names = list(_yaml(self.shipped / "hosts.yml")["serving"]["hosts"])
        if self.folder.exists():
            fleet.down(self.dir)
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self.settings = {
            **_yaml(self.shipped / "group_vars" / "serving.yml"),
            **self._own(image),
            **settings,
        }
        described = servers.fleet(
            {
                "name": name,
                "network": network,
                "groups": {"serving": self.names},
                "servers": {host: {"state": state, "docker": "real", "changes": changes or {}} for host in self.names},
            }
        )
        described["vars"] = self.settings
        (self.folder / "fleet.yml").write_text(yaml.safe_dump(described), encoding="utf-8")

    def _own(self, image: str) -> dict:
        """Return what differs from the shipped inventory: the image, small weights, the limits of this machine."""
        model = _yaml(self.shipped / "group_vars" / "serving.yml")["llm_model"]
        source, lock = self.folder / "weights", self.folder / "weights.lock.json"
        _weights(source, model)
        lock.write_text(json.dumps(lockmaker.from_folder(str(source), model, "test", save=False)), encoding="utf-8")
        return {
            "llm_image_archive": images.build(image)["archive"],
            "llm_weights_source": SOURCE,
            "llm_weights_lock": str(lock),
            "llm_ulimits": ULIMITS,
            "llm_report_dir": str(self.folder / "reports"),
        }

    def up(self) -> None:
        """Start the hosts and lay the weights out on the first."""
        fleet.up(self.folder / "fleet.yml", self.dir)
        self.hosts = fleet.hosts(self.dir)
        done = self.run(
            [BIN / "ansible", self.names[0], "-m", "ansible.builtin.copy"],
            "-a",
            json.dumps({"src": f"{self.folder}/weights/", "dest": f"{SOURCE}/", "mode": "0644"}),
        )
        assert done.returncode == 0, done.stdout

    def down(self) -> None:
        fleet.down(self.dir)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: list, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*map(str, command), "-i", str(self.dir / "inventory.yml"), *arguments],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def play(self, playbook: str, *arguments: str, **settings: object) -> Run:
        """Run a playbook as a user does."""
        done = self.run([BIN / "ansible-playbook", playbook], "-e", json.dumps(settings), *arguments)
        counts = [
            {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}
            for line in done.stdout.partition("PLAY RECAP")[2].splitlines()
            if "changed=" in line
        ]
        return Run(done.returncode, done.stdout, sum(count["changed"] for count in counts))

    def report(self, stage: str) -> dict:
        """Return the report of a stage of the last run."""
        path = self.folder / "reports" / self.settings["llm_deployment"] / f"{stage}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def shell(self, host: str, script: str) -> str:
        return fleet.run_on(self.hosts[host], ["sh", "-c", script]).stdout

    def container(self, host: str) -> dict:
        """Return what Docker says of the engine's container."""
        return json.loads(self.shell(host, f"docker inspect llm-{self.settings['llm_deployment']}"))[0]


class Run(NamedTuple):
    """What a playbook did: exit status, its output, and how many tasks changed something."""

    code: int
    output: str
    changed: int


def _yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _weights(folder: Path, model: str) -> None:
    """Make a small model of the true architecture pass for ``model``: its files, its format, its golden answers."""
    shutil.copytree(MODEL, folder)
    # The shape that a split is judged by is the true one, the tensors are those of the small model.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.update(num_attention_heads=128, n_routed_experts=256, num_hidden_layers=61)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if "w8a8" in model or "a8w" in model:
        (folder / "quant_model_description.json").write_text('{"model_quant_type": "W8A8"}\n', encoding="utf-8")
    prompts = json.loads(GOLDEN.read_text(encoding="utf-8"))["prompts"]
    answers = {prompt["prompt"]: f"<think>It must be so.</think>\n\n{prompt['answer']}" for prompt in prompts}
    (folder / "emulated_answers.json").write_text(json.dumps(answers), encoding="utf-8")
