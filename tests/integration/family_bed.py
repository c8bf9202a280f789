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
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockmaker
from ansible_collections.baremetal.llm.tests.testbed import fleet, images, servers

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODEL = ROOT / "models" / "deepseek-v3-tiny"
GOLDEN = ROOT / "models" / "deepseek-r1.golden.json"
RUN_SECONDS = 300
DEADLINE_S = 60
# What this kind of machine grants containers: more needs CAP_SYS_RESOURCE, which a machine in a container lacks.
ULIMITS = {"memlock": 8388608, "nofile": 20000}


class Run(NamedTuple):
    """What a playbook did: exit status, its output, and how many tasks changed something."""

    code: int
    output: str
    changed: int

    def error(self) -> str:
        """Return the first error, which is the one that a person has to read."""
        found = re.search(r"^\[ERROR\]: (?:Task failed: )?(?:Action failed: )?(.*)", self.output, re.MULTILINE)
        return found[1] if found else ""


class Rack:
    """One fleet of equal servers, with some unlike ones beside them.

    :param name: of the fleet, at most six letters and digits
    :param network: the /24 of the hosts
    :param machines: {host: what tests/testbed/servers.py takes}; all have a Docker Engine, unless told otherwise
    """

    def __init__(self, name: str, network: str, machines: dict[str, dict]) -> None:
        self.name = name
        self.folder = ROOT / ".cache" / "fleets" / name
        self.dir = self.folder / "fleet"
        if self.folder.exists():
            fleet.down(self.dir)
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        given = {host: {"docker": servers.REAL, **one} for host, one in machines.items()}
        described = servers.fleet({"name": name, "network": network, "servers": given})
        described["vars"] = {}
        (self.folder / "fleet.yml").write_text(yaml.safe_dump(described), encoding="utf-8")
        self.hosts: dict[str, dict] = {}

    def up(self) -> None:
        fleet.up(self.folder / "fleet.yml", self.dir)
        self.hosts = fleet.hosts(self.dir)

    def down(self) -> None:
        fleet.down(self.dir)
        shutil.rmtree(self.folder, ignore_errors=True)

    def reboot(self, host: str) -> None:
        self.hosts[host] = fleet.reboot(self.hosts[host])

    def shell(self, host: str, script: str) -> str:
        """Return what a script prints on a host; its failure is an error."""
        done = fleet.run_on(self.hosts[host], ["sh", "-c", script])
        assert done.returncode == 0, f"{host}: {script}: {done.stdout}{done.stderr}"
        return done.stdout

    def containers(self, host: str) -> dict[str, str]:
        """Return {name: id} of all containers, also of those that do not run."""
        lines = self.shell(host, "docker ps --all --no-trunc --format '{{.Names}} {{.ID}}'").splitlines()
        return dict(sorted(line.split() for line in lines))

    def running(self, host: str) -> list[str]:
        return sorted(self.shell(host, "docker ps --format '{{.Names}}'").split())


class Site:
    """A shipped inventory as it is, but for addresses and for what this machine cannot have, on the hosts of a rack.

    :param inventory: the shipped one; its hosts are those of the same names in the rack
    :param image: what the engine's image is made of, as tests/testbed/images.py takes it
    :param settings: over those of the inventory
    """

    def __init__(self, rack: Rack, inventory: str, image: str, **settings: object) -> None:
        self.rack = rack
        shipped = ROOT / "inventories" / inventory
        self.names = list(_yaml(shipped / "hosts.yml")["serving"]["hosts"])
        theirs = _yaml(shipped / "group_vars" / "serving.yml")
        self.model = theirs["llm_model"]
        self.deployment = theirs["llm_deployment"]
        self.source = f"/data/published/{self.model}"
        self.weights, lock = rack.folder / self.model, rack.folder / f"{self.model}.lock.json"
        if not self.weights.exists():
            _weights(self.weights, self.model)
            held = lockmaker.from_folder(str(self.weights), self.model, "test", save=False)
            lock.write_text(json.dumps(held), encoding="utf-8")
        self.image = images.build(image)
        self.settings = {
            **theirs,
            "llm_image_archive": self.image["archive"],
            "llm_weights_source": self.source,
            "llm_weights_lock": str(lock),
            "llm_ulimits": ULIMITS,
            "llm_report_dir": str(rack.folder / "reports"),
            **settings,
        }
        self.inventory = self.write_inventory()

    def write_inventory(self) -> Path:
        """Write the inventory with the settings as they are now."""
        return self.other_inventory(self.deployment, self.names)

    def other_inventory(self, name: str, serving: list[str], without: tuple[str, ...] = ()) -> Path:
        """Write an inventory of these hosts with the settings of this site, ``without`` some of them."""
        settings = {key: value for key, value in self.settings.items() if key not in without}
        found = _yaml(self.rack.dir / "inventory.yml")
        found["all"]["hosts"] = {host: found["all"]["hosts"][host] for host in serving}
        found["all"]["children"] = {"serving": {"hosts": dict.fromkeys(serving), "vars": settings}}
        path = self.rack.folder / f"{name}.yml"
        path.write_text(yaml.safe_dump(found), encoding="utf-8")
        return path

    def publish(self) -> None:
        """Lay the weights out on the first host, from where the playbook takes them."""
        where = {"src": f"{self.weights}/", "dest": f"{self.source}/", "mode": "0644"}
        command = [BIN / "ansible", self.names[0], "-i", self.inventory, "-m", "ansible.builtin.copy"]
        done = self.start([*command, "-a", json.dumps(where)])
        output = done.communicate(timeout=RUN_SECONDS)[0]
        assert done.returncode == 0, output

    def start(self, command: list, folder: Path = ROOT, **variables: str) -> subprocess.Popen:
        """Start a command of Ansible as a user does."""
        return subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(self, playbook: str, *arguments: str, inventory: Path | None = None, **settings: object) -> list:
        given = ["-e", json.dumps(settings)] if settings else []
        return [BIN / "ansible-playbook", playbook, "-i", inventory or self.inventory, *given, *arguments]

    def play(self, playbook: str, *arguments: str, inventory: Path | None = None, **settings: object) -> Run:
        """Run a playbook of the clone from the clone's root."""
        return finished(self.start(self.command(f"playbooks/{playbook}", *arguments, inventory=inventory, **settings)))

    def report(self, stage: str) -> dict:
        """Return the report of a stage of the last run."""
        path = Path(self.settings["llm_report_dir"]) / self.deployment / f"{stage}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def run_dir(self) -> str:
        return f"{self.settings['llm_state_dir']}/deployments/{self.deployment}"

    def container(self, host: str) -> dict:
        """Return what Docker says of the engine's container."""
        return json.loads(self.rack.shell(host, f"docker inspect llm-{self.deployment}"))[0]

    def rank(self, host: str) -> dict:
        """Return what the guard says of its rank."""
        return json.loads(self.rack.shell(host, f"cat {self.run_dir()}/logs/rank.json"))

    def health(self) -> int:
        """Return the status with which the endpoint answers, 0 when it does not."""
        url = f"http://{self.rack.hosts[self.names[0]]['address']}:{self.settings.get('llm_api_port', 8000)}/health"
        script = f"import urllib.request as u; print(u.urlopen('{url}', timeout=2).status)"
        done = fleet.run_on(self.rack.hosts[self.names[0]], ["python3", "-c", script])
        return int(done.stdout) if done.returncode == 0 else 0

    def serves(self, generation: int) -> bool:
        """True when all ranks run in this generation and the endpoint answers."""
        ranks = [self.rank(host) for host in self.names]
        return all((rank["state"], rank["generation"]) == ("running", generation) for rank in ranks) and (
            self.health() == 200
        )

    def traces(self) -> dict[str, tuple]:
        """Return what there is of deployments on each host: containers, images, files but for logs and the weights'
        own notes, which every run writes.
        """
        names = r"\( -path '*/logs' -o -path './weights/.*' \) -prune"
        files = f"cd {self.settings['llm_state_dir']} && find . {names} -o -type f -printf '%p %s %T@\\n' | sort"
        images_there = "docker images --no-trunc --format '{{.ID}}' | sort"
        return {
            host: (self.rack.containers(host), self.rack.shell(host, images_there), self.rack.shell(host, files))
            for host in self.names
        }


def finished(process: subprocess.Popen) -> Run:
    """Wait for a playbook and return what it did."""
    try:
        output = process.communicate(timeout=RUN_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    counts = re.findall(r"changed=(\d+)", output.partition("PLAY RECAP")[2])
    return Run(process.returncode, output, sum(map(int, counts)))


def wait(what: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


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
