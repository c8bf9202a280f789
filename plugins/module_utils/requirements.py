# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan needs of its hosts, written down as data: {host, check, ...}. verdicts.py judges each by its check. Pure.

A requirement of a whole replica group has ``hosts`` in place of ``host``.
"""

from __future__ import annotations

from . import distribution
from .catalog import hardware
from .engines import vllm_serve

# A file system that is filled to its last byte fails in ways that no later message explains.
DISK_MARGIN = 1.02
# Weights pass through host memory on their way to the accelerators: the guide of the 300I Duo asks for 1.3 times a
# node's share and calls the factor unproven, so less than that is a warning, and less than the share a failure.
HOST_MEMORY_ADVISED = 1.3
DOCKER_ROOT = "/var/lib/docker"
# Clocks further apart than this make the logs of several nodes unreadable together; a minute breaks certificates.
CLOCK_WARN_S, CLOCK_FAIL_S = 1.0, 60.0


def of_node(document: dict, group: dict, node: dict, release: dict, own: dict) -> list[dict]:
    """Return what ``node`` of ``group`` must have.

    :param release: the engine's release of the catalog
    :param own: the converted settings of the host
    """
    nodes, in_containers = group["nodes"], document["engine"]["runtime"] == "docker"
    libc = "" if in_containers else release["libc"]
    wanted = [{"check": "machine", "machines": release["machines"], "libc": libc}]
    wanted += [{"check": "cpu_flags", "any_of": release["cpu_flags_any"]}] if "cpu_flags_any" in release else []
    # community.docker's modules, which make the containers, import requests on the host.
    of_docker = [{"check": "docker"}, {"check": "python_modules", "names": ["requests"]}]
    wanted += of_docker if in_containers else _of_environment(release, own)
    wanted += _of_memory(document, node, nodes, release)
    wanted += [
        {"check": "interface", "name": node["interface"]},
        *(
            {"check": "port", "port": port, "what": what, "address": node["address"]}
            for port, what in ports_of(document, group).items()
        ),
        *_of_source(document, node),
        {"check": "disk", "parts": _parts(document, node, release)},
        {"check": "writable", "paths": [node["state_dir"], node["weights_path"]]},
    ]
    wanted += [{"check": "hostname"}, {"check": "proxies"}] if len(nodes) > 1 else []
    of_accelerator = {"npu": _of_npu, "gpu": _of_gpu}.get(release.get("accelerator"))
    if of_accelerator:
        wanted += [{"check": "governor"}, *of_accelerator(document, node, nodes, release)]
    return [{"host": node["host"], **requirement} for requirement in wanted]


def _of_source(document: dict, node: dict) -> list[dict]:
    """Only the seed fetches; what a hub or a server has is seen when it is asked."""
    if node["host"] != document["weights"]["seed"] or distribution.is_remote(node["weights_source"]):
        return []
    return [
        {
            "check": "weights_source",
            "path": node["weights_source"],
            "installed": node["weights_path"],
            "bytes": document["weights"]["bytes"],
            "published": document["weights"]["published"],
        }
    ]


def of_group(document: dict, group: dict, release: dict) -> list[dict]:
    """Return what the nodes of a replica group must have in common and between them; nothing for a single node."""
    nodes = group["nodes"]
    if len(nodes) < 2:
        return []
    hosts = [node["host"] for node in nodes]
    ports = ports_of(document, group)
    wanted = [
        {"check": "unique_hostnames"},
        {"check": "connections", "ports": list(ports)},
        {"check": "path_mtu"},
        {"check": "clock_skew", "warn_s": CLOCK_WARN_S, "fail_s": CLOCK_FAIL_S},
        {"check": "equal", "what": "mtu", "interfaces": {node["host"]: node["interface"] for node in nodes}},
    ]
    image = document["engine"].get("image") or {}
    if document["engine"]["runtime"] == "docker":
        wanted.append({"check": "equal", "what": "image", "image": image.get("reference", "")})
    kind = release.get("accelerator")
    wanted += [{"check": "equal", "what": what, "kind": kind} for what in _EQUAL.get(kind, ())]
    wanted += [{"check": "npu_addresses"}, {"check": "npu_ping"}] if kind == "npu" else []
    return [{"hosts": hosts, **requirement} for requirement in wanted]


_EQUAL = {
    "npu": ("driver", "firmware", "device", "count", "tls"),
    "gpu": ("driver", "device", "count"),
}


def ports_of(document: dict, group: dict) -> dict[int, str]:
    """Return {port: what it is for} of the ports that the nodes of a group listen on."""
    engine = document["engine"]
    form, alone = group["parallel"]["form"], len(group["nodes"]) == 1
    ports = {document["serving"]["port"]: "API"}
    for what, port in engine.get("group_ports", {}).items():
        of_form = form in _FORMS_OF_PORT.get(what, (form,))
        if of_form and (not alone or what in engine["node_ports"]):
            ports[port] = what
    ports.update(distribution.ports(document["weights"]))
    return ports


# A release names the ports of all forms that it can carry a replica in; only those of the plan's are listened on.
_FORMS_OF_PORT = {
    vllm_serve.RPC: ("data_parallel",),
    vllm_serve.MASTER: ("mp", "sglang", "mindie"),
    vllm_serve.RAY: ("ray",),
}


def _of_environment(release: dict, own: dict) -> list[dict]:
    return [
        {"check": "libraries", "names": release["libraries"]},
        {"check": "python", **python(release, own)},
    ]


def python(release: dict, own: dict) -> dict:
    """Return the Python that the engine's environment is made from: {version, implementation, path}."""
    return {
        "version": release["python"],
        "implementation": release["implementation"],
        "path": own.get("llm_engine_python", ""),
    }


def _of_memory(document: dict, node: dict, nodes: list[dict], release: dict) -> list[dict]:
    if not release.get("accelerator"):
        return [{"check": "memory", "bytes": node["memory"]["bytes"], "rows": node["memory"]["rows"]}]
    share = -(-document["weights"]["bytes"] // len(nodes))
    return [{"check": "host_memory", "bytes": share, "advised": int(share * HOST_MEMORY_ADVISED)}]


def _parts(document: dict, node: dict, release: dict) -> list[dict]:
    engine = (
        {"what": "engine", "path": node["venvs_dir"], "bytes": int(node["venv"]["bytes"] * DISK_MARGIN)}
        if document["engine"]["runtime"] == "venv"
        else {"what": "image", "path": DOCKER_ROOT, "bytes": _image_bytes(document, release)}
    )
    weights = int(document["weights"]["bytes"] * DISK_MARGIN)
    return [engine, {"what": "weights", "path": node["weights_path"], "bytes": weights}]


def _image_bytes(document: dict, release: dict) -> int:
    return (document["engine"]["image"] or {}).get("bytes") or release["image_bytes"]


def _of_devices(document: dict, node: dict, release: dict) -> list[dict]:
    kind = release["accelerator"]
    return [
        {
            "check": "devices",
            "kind": kind,
            "families": release["families"],
            "count": node["devices"],
            "engine": document["engine"]["id"],
        },
        {"check": "precision", "kind": kind, "precision": document["model"]["precision"]},
        {"check": "device_memory", "kind": kind, "model": document["model"]["id"], **node["memory"]},
        {"check": "idle", "kind": kind, "mib": hardware.IDLE_MIB[kind]},
    ]


def _of_npu(document: dict, node: dict, nodes: list[dict], release: dict) -> list[dict]:
    wanted = [*_of_devices(document, node, release), {"check": "npu_driver", "driver": release["driver"]}]
    wanted += [{"check": "npu_firmware"}, {"check": "npu_nodes"}]
    # Within one server the chips talk over HCCS or PCIe; the RoCE ports matter between servers.
    return [*wanted, {"check": "npu_network"}] if len(nodes) > 1 else wanted


def _of_gpu(document: dict, node: dict, nodes: list[dict], release: dict) -> list[dict]:
    wanted = [
        *_of_devices(document, node, release),
        {"check": "gpu_driver", "cuda": release["cuda"], **hardware.CUDA_DRIVERS[release["cuda"]]},
        {"check": "gpu_health"},
        {"check": "gpu_fabric"},
        {"check": "container_toolkit"},
        {"check": "daemon_reload"},
    ]
    return [*wanted, {"check": "rdma"}] if len(nodes) > 1 else wanted
