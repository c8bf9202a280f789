# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replica groups and their nodes: who is rank what, at which address, with which accelerators, on which port. Pure."""

from __future__ import annotations

import ipaddress

from .. import accelerators
from ..catalog import hardware
from ..errors import LlmError
from ..peers.protocol import PROCESS_NAME
from . import inquiry

DEFAULT_PORT = 8000
SHARE_PROCESS_NAME = "llm-share"  # as weights/share/agent.py names itself
# Where the vendors' installers put things unless told otherwise, and where discovery found them if it did.
DRIVER_DIR = "/usr/local/Ascend"
NPU_SMI = "/usr/local/bin/npu-smi"


def split(hosts: list[dict]) -> dict[str, list[dict]]:
    """Return the hosts by replica group, in inventory order; all in one group where there is no group replica_*."""
    groups: dict[str, list[dict]] = {}
    for host in hosts:
        groups.setdefault(host.get("replica") or "serving", []).append(host)
    if "serving" in groups and len(groups) > 1:
        raise LlmError(
            "some hosts of the group 'serving' are in no replica group",
            wanted="every host in a group replica_*, or none",
            found=", ".join(host["name"] for host in groups["serving"]) + " in none",
            remedy="put them into a replica_* group",
        )
    return groups


def node(host: dict, rank: int, own: dict, collection_dir: str, declared: bool) -> dict:
    """Return the node of ``host``.

    :param own: its converted settings
    :param declared: whether the plan is made from what the inventory says, without asking the hosts
    """
    facts = host.get("facts") or {}
    interface = own.get("llm_interface") or facts.get("route_interface") or ("" if declared else "lo")
    share = own.get("llm_weights_interface", interface)
    hint = str(host.get("address") or "")
    return {
        "host": host["name"],
        "rank": rank,
        "rack": own.get("llm_rack", ""),
        "interface": interface,
        "address": hint or host["name"] if declared else address(host["name"], interface, facts, hint),
        "share_interface": share,
        "share_address": "" if declared else address(host["name"], share, facts, hint),
        "weights_owner": own.get("llm_weights_owner", ""),
        **inquiry.places(own, collection_dir),
    }


def address(host: str, interface: str, facts: dict, hint: str = "") -> str:
    """Return the IPv4 address of ``interface``, empty for a host that did not answer.

    :param hint: the address that the inventory reaches the host at; taken where the interface holds it among others
    """
    if not facts:
        return ""
    found = {entry["name"]: entry for entry in facts.get("interfaces", [])}
    if interface not in found:
        raise LlmError(
            f"{host}: there is no interface {interface}",
            wanted=f"llm_interface: one of {', '.join(sorted(found)) or 'none (the host told of none)'}",
            found=interface,
            remedy="correct llm_interface, or remove it to take the interface of the default route",
        )
    addresses = [entry["address"] for entry in found[interface]["ipv4"]]
    if not addresses:
        with_address = sorted(name for name, entry in found.items() if entry["ipv4"])
        raise LlmError(
            f"{host}: interface {interface} has no IPv4 address",
            wanted="an address to serve on",
            found="none; interfaces with one: " + (", ".join(with_address) or "none"),
            remedy="set llm_interface to one that has an address, or give this one an address",
        )
    return hint if hint in addresses else addresses[0]


def is_address(text: str) -> bool:
    """True for an IPv4 address."""
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


def add_devices(node: dict, own: dict, facts: dict, release: dict) -> None:
    """Add to ``node`` its accelerators: how many, their ids, what they are, and their own addresses."""
    kind = release["accelerator"]
    listed = accelerators.devices_of(facts, kind)
    count = accelerators.wanted_devices(own, facts, release)
    names = sorted({str(device.get("name")) for device in listed})
    chip = names[0] if names else own.get("llm_accelerator", "")
    entry = hardware.chip(chip) or {}
    npu = facts.get("npu") or {}
    node.update(
        devices=count,
        device_ids=_ids(listed, kind) if len(listed) == count else list(range(count)),
        chip=chip,
        family=entry.get("family", release["families"][0]),
        device_mib=_memory_mib(listed) or own.get("llm_accelerator_mib", 0) or entry.get("memory_mib", (0, 0))[0],
        machine=(facts.get("kernel") or {}).get("machine", ""),
    )
    if kind == "gpu" and facts:
        node["rdma_devices"] = ["/dev/infiniband"] if facts.get("rdma") else []
    if kind == "npu":
        node.update(
            npu_addresses=[
                {"phy_id": port["phy_id"], "ip": port["ip"]} for port in npu.get("network") or [] if port["ip"]
            ],
            npu_smi=(npu.get("tools") or {}).get("npu_smi") or NPU_SMI,
            driver_dir=(npu.get("install") or {}).get("path") or DRIVER_DIR,
        )


def _ids(listed: list[dict], kind: str) -> list[int]:
    """Return the numbers that the devices' nodes in /dev carry."""
    found = [device.get("phy_id" if kind == "npu" else "index") for device in listed]
    return sorted(found) if all(isinstance(one, int) for one in found) else list(range(len(found)))


def _memory_mib(listed: list[dict]) -> int:
    """Return the memory of the smallest device that is listed; 0 where none tells it."""
    told = [device.get("memory_total_mib") for device in listed]
    known = [size for size in told if isinstance(size, int) and size > 0]
    return min(known, default=0)


def check_equal(nodes: list[dict]) -> None:
    """Refuse a replica group whose nodes share an address, or differ in what a split of the model rests on."""
    addresses = [node["address"] for node in nodes if node["address"]]
    twice = sorted({one for one in addresses if addresses.count(one) > 1})
    if twice:
        raise LlmError(
            "two hosts of one replica group have the same address",
            wanted="one address a host",
            found=", ".join(twice) + " on " + " and ".join(node["host"] for node in nodes if node["address"] in twice),
            remedy="set llm_interface of these hosts to the interface that the other nodes reach",
        )
    for key, what in (("family", "accelerators"), ("devices", "numbers of accelerators")):
        found = {node["host"]: node.get(key) for node in nodes}
        if len(set(found.values())) > 1:
            raise LlmError(
                f"the hosts of one replica group have different {what}",
                wanted="the same on every host: a model is split evenly",
                found=", ".join(f"{host} {value}" for host, value in found.items()),
                remedy="put hosts that differ into groups replica_* of their own, or correct llm_accelerators",
            )


def port(deployment: dict, hosts: list[dict]) -> int:
    """Return the port this deployment already serves on, else the first from 8000 on that is free on every host."""
    facts_of = [host.get("facts") or {} for host in hosts]
    serving = [facts for facts in facts_of if facts.get("service", {}).get("port")]
    own = {facts["service"]["port"] for facts in serving}
    if deployment.get("llm_api_port"):
        return deployment["llm_api_port"]
    # A host that was added is no reason to move the others' port, unless the port is taken there.
    if len(own) == 1 and not own & _taken([facts for facts in facts_of if facts not in serving]):
        return own.pop()
    taken = _taken(facts_of)
    return next(number for number in range(DEFAULT_PORT, 65536) if number not in taken)


def _taken(facts_of: list[dict]) -> set[int]:
    return {entry["port"] for facts in facts_of for entry in listeners(facts)}


def listeners(facts: dict) -> list[dict]:
    """Return who listens on a host, without what earlier runs of ours have left: that ends by itself."""
    own = (PROCESS_NAME, SHARE_PROCESS_NAME)
    return [entry for entry in facts.get("ports_in_use", []) if entry.get("process") not in own]
