# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A replica of two Atlas 800I A2 and one of two H100 servers, whole and well, and the plans for them."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import verdicts
from ansible_collections.baremetal.llm.plugins.module_utils.planning import document

GIB = 1024**3
TB = 10**12


def host_facts(name: str, address: str, weights: str) -> dict:
    return {
        "hostname": name,
        "user": {"uid": 0},
        "kernel": {"release": "5.10.0-216.0.0.115.oe2203sp4.aarch64", "machine": "aarch64", "libc": "glibc 2.34"},
        "cpu": {"model": "Kunpeng-920", "cores": 192, "flags": ["asimd"], "governors": ["performance"]},
        "memory": {"total": 1536 * GIB, "available": 1400 * GIB, "swap_total": 0},
        "interfaces": [
            {"name": "enp61s0f0", "ipv4": [{"address": address, "prefix": 24}], "ipv6": [], "up": True, "mtu": 1500},
            {"name": "lo", "ipv4": [{"address": "127.0.0.1", "prefix": 8}], "ipv6": [], "up": True, "mtu": 65536},
        ],
        "route_interface": "enp61s0f0",
        "ports_in_use": [{"port": 22, "address": "0.0.0.0", "pid": 7, "process": "sshd"}],
        "disks": [
            {"mount": "/", "device": "/dev/sda2", "fstype": "ext4", "total": TB, "free": TB // 2},
            {"mount": "/data", "device": "/dev/nvme0n1", "fstype": "xfs", "total": 4 * TB, "free": 3 * TB},
        ],
        "paths": {
            path: {
                "kind": kind,
                "nearest": "/data",
                "device": 2,
                "writable": True,
                "total": 4 * TB,
                "free": 3 * TB,
                "bytes": held,
            }
            for path, kind, held in (
                ("/data/llm", "folder", 0),
                (f"/data/llm/weights/{weights}", "nothing", 0),
                ("/data/source", "folder", 1400 * 10**9),
            )
        },
        "pythons": [],
        "libraries": {},
        "python_modules": {"requests": True},
        "docker": {
            "client": "/usr/bin/docker",
            "socket": True,
            "reason": "",
            "engine": {
                "version": "28.2.2",
                "cgroup_driver": "cgroupfs",
                "runtimes": ["io.containerd.runc.v2", "nvidia"],
            },
            "images": {},
        },
        "rdma": [
            {
                "name": "mlx5_0",
                "ports": [
                    {
                        "port": "1",
                        "state": "4: ACTIVE",
                        "link_layer": "Ethernet",
                        "gids": [{"index": 3, "gid": "::ffff:10.0.0.1", "type": "RoCE v2", "netdev": "enp61s0f0"}],
                    }
                ],
            }
        ],
        "clock": {"epoch_s": 1_700_000_000.0, "synchronized": True},
        "hostname_addresses": [address],
        "proxies": {},
        "problems": [],
        "service": {"running": False, "pids": [], "port": None, "memory_bytes": 0},
    }


def npu_facts(node: int) -> dict:
    return {
        "available": True,
        "reason": "",
        "driver_version": "25.5.1",
        "firmware_version": "7.8.0.5.216",
        "compatibility": "OK",
        "chips": [
            {
                "npu_id": number,
                "chip_id": 0,
                "logic_id": number,
                "phy_id": number,
                "name": "910B4-1",
                "health": "OK",
                "bus_id": f"0000:C{number}:00.0",
                "memory_total_mib": 65536,
                "memory_used_mib": 3400,
                "error_codes": [],
            }
            for number in range(8)
        ],
        "lost": [],
        "processes": [],
        "network": [
            {
                "phy_id": number,
                "link": "UP",
                "net_health": "Success",
                "ip": f"29.1.{node}.{number + 1}",
                "netmask": "255.255.0.0",
                "gateway": "29.1.0.254",
                "tls": 0,
                "conf_ip": f"29.1.{node}.{number + 1}",
            }
            for number in range(8)
        ],
        "conf_disagreements": [],
        "network_supported": True,
        "network_reason": "",
        "versions": {"driver": {"compatible_version_fw": "[7.0.0,7.8.99]"}, "firmware": {}},
        "device_nodes": {"davinci": list(range(8)), "manager": True, "devmm_svm": True, "hisi_hdc": True},
        "problems": [],
    }


def gpu_facts() -> dict:
    return {
        "available": True,
        "reason": "",
        "driver_version": "590.48.01",
        "cuda_version": "13.1",
        "gpus": [
            {
                "index": number,
                "uuid": f"GPU-{number}",
                "name": "NVIDIA H100 80GB HBM3",
                "bus_id": f"00000000:{number}8:00.0",
                "memory_total_mib": 81559,
                "memory_used_mib": 4,
                "mig": False,
                "ecc_uncorrected": 0,
                "remap_pending": False,
                "remap_failure": False,
                "retired_pending": None,
                "reset_required": False,
                "fabric_state": "Completed",
                "fabric_status": "Success",
            }
            for number in range(8)
        ],
        "lost": [],
        "processes": [],
        "fabric_manager": {"installed": True, "active": True, "version": "590.48.01", "nvswitches": 4},
        "container_toolkit": {"installed": True, "version": "1.18.1", "path": "/usr/bin/nvidia-ctk"},
        "device_links": False,
        "problems": [],
    }


def peers_of(names: list[str], ports: list[int], devices: int) -> dict[str, dict]:
    """Results of the probe on each host, as when every host has met every other."""
    pairs = {name: [other for other in names if other != name] for name in names}
    return {
        name: {
            "connections": [
                {"from": source, "to": target, "port": port, "ok": True, "reason": "", "ms": 0.2}
                for other in pairs[name]
                for source, target in ((name, other), (other, name))
                for port in ports
            ],
            "clocks": [{"from": name, "to": other, "offset_s": 0.01, "uncertainty_s": 0.001} for other in pairs[name]],
            "paths": [
                {"from": name, "to": other, "ok": True, "mtu": 1500, "passes": None, "reason": ""}
                for other in pairs[name]
            ],
            "device_pings": [
                {
                    "from": name,
                    "to": other,
                    "from_phy_id": number,
                    "to_phy_id": number,
                    "to_ip": "29.1.0.1",
                    "sent": 3,
                    "received": 3,
                    "reason": "",
                }
                for other in pairs[name]
                for number in range(devices)
            ],
            "not_probed": [],
            "problems": [],
        }
        for name in names
    }


class Group:
    """A replica group whose facts a test changes before it judges."""

    def __init__(self, facts: dict[str, dict], settings: dict) -> None:
        self.facts = facts
        self.settings = settings

    def plan(self) -> dict:
        hosts = [
            {"name": name, "replica": "replica_1", "settings": dict(self.settings), "facts": facts}
            for name, facts in self.facts.items()
        ]
        return document.plan(copy.deepcopy(hosts), "/collection", None)

    def judge(self) -> list[dict]:
        return verdicts.judge(self.plan(), self.facts)

    def faults(self) -> list[tuple[str, str, str]]:
        """Return (host, check, level) of all that is not well."""
        return [(one["host"], one["check"], one["level"]) for one in self.judge() if one["level"] != "ok"]

    def the_fault(self) -> dict:
        """Return the one verdict that is not ok."""
        (found,) = [one for one in self.judge() if one["level"] != "ok"]
        assert all(found[key] not in ("", "-") for key in ("host", "wanted", "found", "remedy"))
        return found


def _group(names: list[str], settings: dict, subject: str, make: callable, ports: list[int], devices: int) -> Group:
    settings = dict({"llm_state_dir": "/data/llm", "llm_weights_source": "/data/source"}, **settings)
    facts = {}
    peers = peers_of(names, ports, devices)
    for number, name in enumerate(names):
        facts[name] = host_facts(name, f"10.0.0.{number + 1}", settings["llm_model"])
        facts[name][subject] = make(number)
        facts[name]["peers"] = peers[name]
    return Group(facts, settings)


@pytest.fixture
def ascend():
    """Function that makes a replica of Atlas 800I A2 with vLLM-Ascend and W8A8."""

    def make(*names: str, **settings) -> Group:
        names = names or ("a1", "a2")
        chosen = {"llm_model": "deepseek-r1-w8a8", "llm_engine": "vllm_ascend", "llm_engine_version": "0.13.0"}
        return _group(list(names), {**chosen, **settings}, "npu", npu_facts, [8000, 13389], 8)

    return make


@pytest.fixture
def nvidia():
    """Function that makes a replica of H100 servers with vLLM and FP8."""

    def make(*names: str, **settings) -> Group:
        names = names or ("n1", "n2")
        chosen = {"llm_model": "deepseek-r1-fp8", "llm_engine": "vllm", "llm_engine_version": "0.33.0"}
        return _group(list(names), {**chosen, **settings}, "gpu", lambda number: gpu_facts(), [8000, 29500], 0)

    return make
