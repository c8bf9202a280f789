# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The deployments of the guides: the inventories that are shipped, on the machines that the guides name.

What is planned for are the files below inventories/ themselves. A deployment here adds what the facts of its machines
are, and of the settings only the versions, addresses and values that its guide names and the inventory does not.
"""

from __future__ import annotations

import ipaddress
import shlex
from pathlib import Path

import yaml
from ansible_collections.baremetal.llm.plugins.module_utils import launching
from ansible_collections.baremetal.llm.plugins.module_utils.planning import document

HERE = Path(__file__).parent
INVENTORIES = HERE.parents[1] / "inventories"
COLLECTION = "/collection"
# The addresses of NPUs and of network cards for RDMA; those of hosts are the inventories'.
DEVICE_NETWORK = ipaddress.ip_network("198.51.100.0/24")
# Characters of an argument that still stands on the line of its option.
LONGEST = 120
# Where the guide on two Atlas 800I A2 has its head and its weights; it does not give the second node's address.
GUIDE_2_HOSTS = {"a2-1": "10.226.72.51", "a2-2": "10.226.72.52"}
GUIDE_2 = {
    "llm_engine_version": "0.9.1",
    "llm_interface": "enp61s0f0",
    "llm_max_model_len": 8192,
    "llm_weights_path": "/models/DeepSeek-R1-0528-W8A8",
}


def _address(node: int, device: int) -> str:
    return str(DEVICE_NETWORK[1 + 8 * node + device])


def _host(address: str, interface: str, machine: str) -> dict:
    return {
        "kernel": {"machine": machine},
        "interfaces": [
            # Before the one that is wanted, as `hostname -I` may list it.
            {"name": "docker0", "ipv4": [{"address": "172.17.0.1", "prefix": 16}], "ipv6": [], "up": True},
            {"name": interface, "ipv4": [{"address": address, "prefix": 24}], "ipv6": [], "up": True},
            {"name": "lo", "ipv4": [{"address": "127.0.0.1", "prefix": 8}], "ipv6": [], "up": True},
        ],
        "route_interface": interface,
        "ports_in_use": [{"port": 22, "address": "0.0.0.0", "pid": 7, "process": "sshd"}],
        "sysctl": {"net.ipv4.ip_local_port_range": "32768\t60999", "net.ipv4.ip_local_reserved_ports": ""},
        "rdma": [],
    }


def _npus(name: str, mebibytes: tuple[int, int], npu_smi: str, addresses: list[str]) -> dict:
    """Return what npu_info tells of eight chips; every second one has the second number of MiB."""
    return {
        "chips": [{"phy_id": number, "name": name, "memory_total_mib": mebibytes[number % 2]} for number in range(8)],
        "network": [{"phy_id": number, "ip": address} for number, address in enumerate(addresses)],
        "tools": {"npu_smi": npu_smi},
        "install": {"path": "/usr/local/Ascend"},
    }


def atlas_800i_a2(node: int, address: str) -> dict:
    """Eight 910B4-1 of 64 GB, each with a RoCE port and address of its own."""
    npus = [_address(node, number) for number in range(8)]
    return {
        **_host(address, "enp61s0f0", "aarch64"),
        "npu": _npus("910B4-1", (65536, 65536), "/usr/local/bin/npu-smi", npus),
    }


def atlas_300i_duo(node: int, address: str) -> dict:
    """Four cards of two 310P3 of 48 GB, which have no port of their own."""
    del node
    return {
        **_host(address, "enp125s0f0", "aarch64"),
        "npu": _npus("310P3", (44280, 43693), "/usr/local/sbin/npu-smi", []),
    }


def _gpus(name: str, mebibytes: int) -> dict:
    return {"gpus": [{"index": number, "name": name, "memory_total_mib": mebibytes} for number in range(8)]}


def dgx_a100(node: int, address: str) -> dict:
    """Eight A100 SXM of 80 GB and eight InfiniBand ports; the two of storage are down."""
    del node
    ports = [(number, "4: ACTIVE" if number not in (4, 5) else "1: DOWN") for number in range(10)]
    return {
        **_host(address, "enp226s0", "x86_64"),
        "gpu": _gpus("NVIDIA A100-SXM4-80GB", 81920),
        "rdma": [
            {
                "name": f"mlx5_{number}",
                "ports": [{"port": "1", "state": state, "link_layer": "InfiniBand", "gids": []}],
            }
            for number, state in ports
        ],
    }


def h100(node: int, address: str) -> dict:
    """Eight H100 SXM of 80 GB and eight RoCE ports."""
    facts = {**_host(address, "eno1", "x86_64"), "gpu": _gpus("NVIDIA H100 80GB HBM3", 81559)}
    for number in range(8):
        own = ipaddress.IPv4Address(_address(node, number))
        high, low = divmod(int(own), 65536)
        gid = f"0000:0000:0000:0000:0000:ffff:{high:04x}:{low:04x}"
        facts["interfaces"].append(
            {"name": f"rdma{number}", "ipv4": [{"address": str(own), "prefix": 24}], "ipv6": [], "up": True}
        )
        facts["rdma"].append(
            {
                "name": f"mlx5_{number}",
                "ports": [
                    {
                        "port": "1",
                        "state": "4: ACTIVE",
                        "link_layer": "Ethernet",
                        "gids": [{"index": 3, "gid": gid, "type": "RoCE v2", "netdev": f"rdma{number}"}],
                    }
                ],
            }
        )
    return facts


def h200(node: int, address: str) -> dict:
    """Eight H200 SXM; on a host alone nothing goes over RDMA."""
    del node
    return {**_host(address, "eno1", "x86_64"), "gpu": _gpus("NVIDIA H200", 143771)}


# What a deployment is made of: the inventory, the machine of its hosts, further settings, and other hosts than the
# inventory's. Its name is that of its golden file.
DEPLOYMENTS: dict[str, tuple] = {
    "guide_0_mindie_2.0.T3.1_w8a8_two_a2": (
        "ascend_w8a8", atlas_800i_a2, {"llm_engine": "mindie", "llm_engine_version": "2.0.T3.1"}, None,
    ),
    "guide_0_mindie_2.0.T3.1_bf16_four_a2": (
        "ascend_bf16", atlas_800i_a2, {"llm_engine": "mindie", "llm_engine_version": "2.0.T3.1"}, None,
    ),
    "guide_0_vllm_0.7.3_bf16_four_a100": ("nvidia_bf16", dgx_a100, {"llm_engine_version": "0.7.3"}, None),
    "guide_0_vllm_0.33.0_bf16_four_a100": ("nvidia_bf16", dgx_a100, {}, None),
    "guide_0_vllm_0.33.0_int8_two_a100": ("nvidia_w8a8", dgx_a100, {}, None),
    "guide_1_vllm_0.33.0_fp8_one_h200": ("nvidia_fp8", h200, {}, {"h200-1": "192.0.2.51"}),
    "guide_1_vllm_0.33.0_fp8_two_h100": ("nvidia_fp8", h100, {}, None),
    "guide_2_vllm_ascend_0.9.1_w8a8_two_a2": ("ascend_w8a8", atlas_800i_a2, GUIDE_2, GUIDE_2_HOSTS),
    "guide_3_vllm_mindspore_0.5.1_a8w8_three_duo": ("ascend_300i_duo", atlas_300i_duo, {}, None),
    "guide_3_vllm_mindspore_0.5.1_a8w4_two_duo": ("ascend_300i_duo_a8w4", atlas_300i_duo, {}, None),
    "vllm_ascend_0.13.0_w8a8_two_a2": ("ascend_w8a8", atlas_800i_a2, {}, None),
    "vllm_ascend_0.23.0_bf16_four_a2": ("ascend_bf16", atlas_800i_a2, {"llm_engine_version": "0.23.0"}, None),
    "mindie_3.0.0_w8a8_two_a2": (
        "ascend_w8a8", atlas_800i_a2, {"llm_engine": "mindie", "llm_engine_version": "3.0.0"}, None,
    ),
    "sglang_0.5.23_int8_two_a100": ("nvidia_w8a8", dgx_a100, {"llm_engine": "sglang"}, None),
}  # fmt: skip


def plan(name: str) -> dict:
    """Return the plan of a deployment."""
    inventory, machine, settings, hosts = DEPLOYMENTS[name]
    folder = INVENTORIES / inventory
    listed = yaml.safe_load((folder / "hosts.yml").read_text(encoding="utf-8"))["serving"]["hosts"]
    values = yaml.safe_load((folder / "group_vars" / "serving.yml").read_text(encoding="utf-8"))
    addresses = hosts or {host: own["ansible_host"] for host, own in listed.items()}
    return document.plan(
        [
            {
                "name": host,
                "replica": "",
                "settings": {**values, **settings},
                "facts": machine(number, address),
                "address": address,
            }
            for number, (host, address) in enumerate(addresses.items())
        ],
        COLLECTION,
        None,
    )


def golden(made: dict) -> dict:
    """Return what a golden file has of a plan: all that a person would otherwise type, and why.

    What is the same on all nodes of a group stands in ``every_node``, the rest in ``nodes``.
    """
    engine, serving = made["engine"], made["serving"]
    return {
        "engine": {key: engine[key] for key in ("id", "version", "group_ports")},
        "serving": serving,
        "start_timeout": made["start_timeout"],
        "notes": made["notes"],
        "groups": [_group(made, group) for group in made["groups"]],
    }


def _group(made: dict, group: dict) -> dict:
    nodes = {node["host"]: _node(made, node) for node in group["nodes"]}
    shared = _shared(list(nodes.values()))
    return {
        "name": group["name"],
        "head": group["head"],
        "parallel": group["parallel"],
        "fit": group["fit"],
        "every_node": shared,
        "nodes": {host: _without(node, shared) for host, node in nodes.items()},
    }


def _node(made: dict, node: dict) -> dict:
    launch, container = node["launch"], launching.container(made, node["host"])
    return {
        "address": node["address"],
        "interface": node["interface"],
        "argv": lines(launch["argv"]),
        "before": [lines(argv) for argv in launch["before"]],
        "entrypoint": container["entrypoint"],
        "env": container["env"],
        "env_scripts": launch["env_scripts"],
        "secret_env": launch["secret_env"],
        "comm_env": {part: node["comm_env"][part] for part in ("group", "node")},
        "devices": container["devices"],
        "gpus": [number for request in container["device_requests"] for number in request["device_ids"]],
        "mounts": [
            f"{one['source']}:{one['target']}:{'ro' if one['read_only'] else 'rw'}" for one in container["mounts"]
        ],
        "files": {one["name"]: {key: one[key] for key in one if key != "name"} for one in launch["files"]},
        "capabilities": {"add": container["capabilities"], "drop": container["cap_drop"]},
        "security_opts": container["security_opts"],
        "ulimits": container["ulimits"],
        "shm_size": container["shm_size"],
        "ipc_mode": container["ipc_mode"],
        "user": container["user"],
        "working_dir": container["working_dir"],
        "readiness": launch["readiness"],
        "port": launch["port"],
        "ports": {str(port): what for port, what in launch["ports"].items()},
        "probe_devices": launch["probe_devices"],
        "logs": launch["logs"],
        "stop_seconds": launch["stop_seconds"],
    }


def lines(argv: list[str]) -> list[str]:
    """Return a command as a person reads it: the program, then each option with its values, quoted as a shell has it.

    shlex.split of all lines makes the command again.
    """
    found: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--") or len(word) > LONGEST:
            found.append([])
        found[-1].append(word)
    return [shlex.join(words) for words in found if words]


def _shared(nodes: list[dict]) -> dict:
    """Return what all of ``nodes`` have alike, entry by entry; of a node alone nothing."""
    if len(nodes) < 2:
        return {}
    found = {}
    for key, value in nodes[0].items():
        others = [node.get(key) for node in nodes]
        if all(other == value for other in others):
            found[key] = value
        elif all(isinstance(other, dict) for other in others):
            inner = _shared(others)
            found.update({key: inner} if inner else {})
    return found


def _without(node: dict, shared: dict) -> dict:
    """Return ``node`` without what is in ``shared``."""
    found = {}
    for key, value in node.items():
        if key not in shared:
            found[key] = value
        elif value != shared[key]:
            found[key] = _without(value, shared[key])
    return found


class _Dumper(yaml.SafeDumper):
    """YAML as this project writes it: lists indented, texts of several lines as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def written(value: dict) -> str:
    """Return ``value`` as a golden file is written."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=True, width=130, explicit_start=True, allow_unicode=True)
