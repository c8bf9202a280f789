# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""preflight.yml over ssh against eight emulated servers of two families: each fault is found, once, and no other.

The servers are network namespaces with an sshd of their own, and emulators in the place of the vendors' tools.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "testbed")]

import fleet as fleets  # noqa: E402
from tests.testbed import servers  # noqa: E402

BIN = Path(sys.executable).parent
FOLDER = ROOT / ".cache" / "fleets"
RUN_SECONDS = 300
FAMILIES = {
    "ascend": {
        "llm_deployment": "ascend",
        "llm_engine": "vllm_ascend",
        "llm_engine_version": "0.13.0",
        "llm_model": "deepseek-r1-w8a8",
    },
    "nvidia": {
        "llm_deployment": "nvidia",
        "llm_engine": "vllm",
        "llm_engine_version": "0.12.0",
        "llm_model": "deepseek-r1-fp8",
    },
}
NAMES = {"ascend": ["a1", "a2", "a3", "a4"], "nvidia": ["n1", "n2", "n3", "n4"]}
# Newer than the recording that the state was made from: what the image's CUDA 12.9 asks for.
H100 = {
    "state": "h100x8",
    "changes": {
        "nvidia": {
            "driver_version": "580.95.05",
            "cuda_version": "13.0",
            "fabric_manager": {"version": "580.95.05"},
        }
    },
}


def describe(name: str, third: int) -> dict:
    """Return eight servers that are well: two replicas of two Atlas 800I A2, two of two H100 servers."""
    return {
        "name": name,
        "network": f"10.231.{third}.0/24",
        "groups": {
            **{family: {"hosts": NAMES[family], "vars": FAMILIES[family]} for family in NAMES},
            "replica_a": NAMES["ascend"][:2],
            "replica_b": NAMES["ascend"][2:],
            "replica_c": NAMES["nvidia"][:2],
            "replica_d": NAMES["nvidia"][2:],
            "serving": {"children": ["ascend", "nvidia"]},
        },
        "servers": {
            **{host: {"state": "a2_910b4_1"} for host in NAMES["ascend"]},
            **{host: dict(H100) for host in NAMES["nvidia"]},
        },
    }


class Fleet:
    """A fleet that is up, and preflight against it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def preflight(self, family: str, *arguments: str) -> tuple[int, str, list[dict]]:
        """Run preflight.yml against one family; return its status, its output and the verdicts of its report."""
        report = self.folder / "reports" / family / "preflight.json"
        report.unlink(missing_ok=True)
        code, output = self.play(family, *arguments)
        assert report.is_file(), output[-4000:]
        return code, output, json.loads(report.read_text(encoding="utf-8"))["verdicts"]

    def play(self, family: str, *arguments: str) -> tuple[int, str]:
        """Run preflight.yml against one family; return its status and its output."""
        done = subprocess.run(
            [
                str(BIN / "ansible-playbook"),
                "playbooks/preflight.yml",
                "-i",
                str(self.folder / "inventory.yml"),
                "--limit",
                f"localhost,{family}",
                "-e",
                json.dumps({"llm_report_dir": str(self.folder / "reports")}),
                *arguments,
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=RUN_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def snapshots(self) -> dict:
        """Return what was written, runs and listens on each host, without the logins of this test."""
        found = {name: fleets.snapshot(host) for name, host in fleets.hosts(self.folder).items()}
        for host in found.values():
            host["processes"] = [one for one in host["processes"] if not one["argv"][0].startswith("sshd: ")]
        return found


@pytest.fixture(name="bring_up")
def fixture_bring_up():
    """Return a function that brings up a fleet; it is taken down at the end of the test."""
    folders = []

    def bring_up(description: dict, spoil: dict | None = None) -> Fleet:
        folder = FOLDER / description["name"]
        folders.append(folder)
        fleets.down(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "fleet.yml"
        path.write_text(yaml.safe_dump(servers.fleet(description, spoil)), encoding="utf-8")
        fleets.up(path, folder)
        return Fleet(folder)

    yield bring_up
    for folder in folders:
        fleets.down(folder)
        shutil.rmtree(folder, ignore_errors=True)


def has_faults(verdicts: list[dict], *wanted: tuple[str, str, str]) -> bool:
    """True when exactly these (host, check, level) are not ok; each of them tells all four parts."""
    found = [one for one in verdicts if one["level"] != "ok"]
    for one in found:
        assert all(one[part] not in ("", "-") for part in ("host", "wanted", "found", "remedy")), one
    told = [f"{one['host']} {one['check']}: {one['found']}" for one in found]
    assert sorted((one["host"], one["check"], one["level"]) for one in found) == list(wanted), "\n".join(told)
    return True


def _conf_of_device_6(state: dict) -> None:
    state["ascend"]["network"][6]["conf"]["address"] = "10.20.99.99"


def _lost_npu(state: dict) -> None:
    state["faults"]["npu_smi"] = {"vanish": {"npu_id": 5, "after_calls": 0}}


def _cards_of_32_gb(state: dict) -> None:
    for chip in state["ascend"]["chips"]:
        chip.update(name="910B4", memory_total_mib=32768)


def _dark_port_and_tls(state: dict) -> None:
    state["ascend"]["network"][3].update(link="DOWN", net_health="Fault")
    for device in state["ascend"]["network"]:
        device["tls"] = True


def _mig(state: dict) -> None:
    state["nvidia"]["gpus"][3]["mig"] = True


def _old_fabric_manager(state: dict) -> None:
    state["nvidia"]["fabric_manager"]["version"] = "570.133.20"


def test_ten_faults_are_ten_verdicts(bring_up):
    description = describe("ten", 40)
    hosts = description["servers"]
    # Both with jumbo frames, and a switch port that does not pass them.
    # The kernel would hand segments of 64 KiB over as one packet, which no switch would: eth0 has to cut them itself.
    cut = {"commands_after": [["ip", "link", "set", "eth0", "gso_max_segs", "1"]]}
    hosts["n1"]["host"] = {"eth0": {"mtu": 9000}, "hosts_file": ["127.0.1.1 n1"], **cut}
    hosts["n2"]["host"] = {"eth0": {"mtu": 9000, "bridge_mtu": 1500}, **cut}
    hosts["n4"]["host"] = {
        "commands_after": [["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "29500", "-j", "DROP"]]
    }
    fleet = bring_up(
        description,
        {
            "a1": _conf_of_device_6,
            "a2": _lost_npu,
            "a3": _cards_of_32_gb,
            "a4": _dark_port_and_tls,
            "n2": _mig,
            "n3": _old_fabric_manager,
        },
    )

    code, output, verdicts = fleet.preflight("ascend")
    assert has_faults(
        verdicts,
        ("a1", "npu_network", "fail"),
        ("a2", "devices", "fail"),
        ("a3", "device_memory", "fail"),
        ("a4", "npu_network", "fail"),
        ("a4", "tls", "fail"),
    )
    assert code == 2
    found = {(one["host"], one["check"]): one["found"] for one in verdicts}
    assert found["a1", "npu_network"] == "device 6 address 10.20.1.22, file 10.20.99.99"
    assert "0000:02:00.0" in found["a2", "devices"]
    assert found["a4", "npu_network"] == "DOWN on device 3"
    for host, check in found:
        if (host, check) in (("a1", "npu_network"), ("a4", "tls")):
            assert re.search(rf"fail {host} {check}: wanted .*; found .*; remedy: ", re.sub(r"\s+", " ", output))

    code, output, verdicts = fleet.preflight("nvidia")
    assert has_faults(
        verdicts,
        ("n1", "hostname", "fail"),
        ("n2", "gpu_health", "fail"),
        ("n2", "path_mtu", "fail"),
        ("n3", "gpu_fabric", "fail"),
        ("n4", "connections", "fail"),
    )
    assert code == 2
    found = {(one["host"], one["check"]): one["found"] for one in verdicts}
    assert found["n2", "gpu_health"] == "MIG on: GPU 3"
    assert "29500" in found["n4", "connections"]
    assert "8000" not in found["n4", "connections"]


def _busy_npu(state: dict) -> None:
    state["ascend"]["chips"][4]["memory_used_mib"] = 52553
    process = {"npu_id": 4, "chip_id": 0, "pid": 957687, "name": "pt_main_thread", "memory_mib": 49207}
    state["ascend"]["processes"] = [process]


def _old_driver(state: dict) -> None:
    state["ascend"]["version"] = "23.0.7"


def _ill_npu(state: dict) -> None:
    state["ascend"]["chips"][7].update(health="Alarm", error_codes=["A4025021"])


def _no_npu_driver(state: dict) -> None:
    state["faults"]["npu_smi"] = {"stdout": "dcmi module initialize failed. ret is -8005\n", "exit": 1}


def _lost_gpu(state: dict) -> None:
    state["faults"]["nvidia_smi"] = {"lost": [3]}


def _memory_errors(state: dict) -> None:
    state["nvidia"]["gpus"][0]["ecc_uncorrected"] = 2


def _no_toolkit(state: dict) -> None:
    state["nvidia"]["container_toolkit"] = {"installed": False, "version": ""}


def _other_driver(state: dict) -> None:
    state["nvidia"].update(driver_version="590.48.01", nvml_version="590.48.01")
    state["nvidia"]["fabric_manager"]["version"] = "590.48.01"


def test_ten_other_faults_are_ten_verdicts(bring_up):
    description = describe("other", 41)
    hosts = description["servers"]
    hosts["a1"]["docker"] = False
    hosts["n3"]["host"] = {"hostname": "n4"}
    fleet = bring_up(
        description,
        {
            "a1": _busy_npu,
            "a2": _old_driver,
            "a3": _ill_npu,
            "a4": _no_npu_driver,
            "n1": _lost_gpu,
            "n2": _memory_errors,
            "n3": _no_toolkit,
            "n4": _other_driver,
        },
    )
    assert has_faults(
        fleet.preflight("ascend")[2],
        ("a1", "docker", "fail"),
        ("a1", "idle", "fail"),
        ("a2", "npu_driver", "fail"),
        ("a3", "devices", "fail"),
        ("a4", "devices", "fail"),
    )
    assert has_faults(
        fleet.preflight("nvidia")[2],
        ("n1", "devices", "fail"),
        ("n2", "gpu_health", "fail"),
        ("n3", "container_toolkit", "fail"),
        ("n4", "driver", "fail"),
        ("n4", "unique_hostnames", "fail"),
    )


def test_a_fleet_that_is_well_passes_and_is_left_as_it_was(bring_up):
    fleet = bring_up(describe("well", 42))
    # The emulators' own compiled files, and what sshd writes at a first login, are there before.
    for family in FAMILIES:
        fleet.preflight(family)
    before = fleet.snapshots()
    for family in FAMILIES:
        code, output, verdicts = fleet.preflight(family)
        assert has_faults(verdicts)
        assert code == 0, output[-4000:]
        assert {int(count) for count in re.findall(r"changed=(\d+)", output)} == {0}
        assert len(verdicts) > 80
    assert fleet.snapshots() == before
    code, output = fleet.play("ascend", "--check", "--diff")
    assert code == 0, output[-4000:]
    assert fleet.snapshots() == before


def test_a_host_that_is_gone_is_one_verdict_and_the_others_are_judged(bring_up):
    description = describe("gone", 43)
    fleet = bring_up(description, {"a3": _ill_npu})
    inventory = yaml.safe_load((fleet.folder / "inventory.yml").read_text(encoding="utf-8"))
    assert "a2" in json.dumps(inventory)
    # Port 9 of the host: nobody listens there.
    code, _output, verdicts = fleet.preflight(
        "ascend", "-e", json.dumps({"ansible_port": "{{ 9 if inventory_hostname == 'a2' else 22 }}"})
    )
    assert code == 2
    assert has_faults(verdicts, ("a2", "facts", "fail"), ("a3", "devices", "fail"))
    assert "Connection refused" in next(one["found"] for one in verdicts if one["check"] == "facts")
