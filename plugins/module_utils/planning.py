# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan: a pure function from settings, catalog and discovered facts to one document with every decision.

Later stages carry it out and decide nothing. What the plan needs of the hosts is written down as requirements, which
preflight holds against the facts; only what makes a plan impossible to write is refused here.
"""

from __future__ import annotations

import difflib
import hashlib

from . import settings
from .catalog.models import MODELS
from .catalog.releases import RELEASES, newest
from .engines.registry import ENGINES
from .errors import LlmError
from .weights import lockfile

FORMAT = 1
DEFAULT_ENGINE = "vllm_cpu"
DEFAULT_DEPLOYMENT = "default"
DEFAULT_PORT = 8000
DEFAULT_STATE_DIR = "/var/lib/baremetal-llm"
# The engine of the smallest model needs 60 to 110 s on two busy cores (measured); large weights add their reading time.
START_BASE_SECONDS = 600
READ_BYTES_PER_SECOND = 500_000_000  # a SATA SSD; replaced by the measured rate of the disk where that is known
# A file system that is filled to its last byte fails in ways that no later message explains.
DISK_MARGIN = 1.02


def plan(hosts: list[dict], collection_dir: str, lock: dict | None) -> dict:
    """Return the plan.

    :param hosts: one {name, replica, settings, facts} a host in inventory order; facts as module host_info returns them
    :param collection_dir: where this collection lies on the control node (bundled models)
    :param lock: the lock of the weights, None where there is none yet
    :raises LlmError: for settings that contradict each other, the catalog or the engine
    """
    if not hosts:
        raise LlmError(
            "there is no host to serve on",
            wanted="at least one host in the group 'serving'",
            found="none",
            remedy="add hosts to the group 'serving' of the inventory, and check --limit",
        )
    by_host = {host["name"]: settings.convert(host["name"], host.get("settings") or {}) for host in hosts}
    deployment = settings.of_deployment(by_host)
    model_id = _known("llm_model", deployment.get("llm_model"), MODELS)
    engine_id = _known("llm_engine", deployment.get("llm_engine", DEFAULT_ENGINE), ENGINES)
    version = str(deployment.get("llm_engine_version", newest(engine_id)))
    release = RELEASES[engine_id][_known("llm_engine_version", version, RELEASES[engine_id])]
    model = MODELS[model_id]
    weights = _weights(model_id, model, collection_dir, lock_path(hosts, collection_dir), lock)
    serving = _serving(deployment, model_id, model, hosts)
    document = {
        "format": FORMAT,
        "deployment": deployment.get("llm_deployment", DEFAULT_DEPLOYMENT),
        "model": {"id": model_id, "title": model["title"], "dtype": model["dtype"], "source": model["source"]},
        "engine": {"id": engine_id, "version": version, "runtime": release["runtime"]},
        "weights": weights,
        "serving": serving,
        "groups": [],
        "notes": [],
    }
    engine = ENGINES[engine_id]
    facts_of = {host["name"]: host.get("facts") or {} for host in hosts}
    for replica, members in _groups(hosts).items():
        nodes = [_node(host, rank, by_host[host["name"]], collection_dir) for rank, host in enumerate(members)]
        engine.check(deployment, nodes)
        for node in nodes:
            node["memory"] = engine.memory(
                model, weights["bytes"], serving["max_model_len"], serving["max_num_seqs"], release
            )
            node["venv"] = _venv(release, deployment, by_host[node["host"]], node, facts_of[node["host"]])
            node["launch"] = engine.launch(document, node)
        document["groups"].append({"name": replica, "head": nodes[0]["host"], "nodes": nodes})
    document["endpoints"] = [_endpoint(document, group) for group in document["groups"]]
    document["start_timeout"] = deployment.get("llm_start_timeout", _start_budget(weights["bytes"]))
    document["requirements"] = [
        requirement
        for group in document["groups"]
        for node in group["nodes"]
        for requirement in _requirements(document, node, release, by_host[node["host"]])
    ]
    return document


def places(own: dict, collection_dir: str) -> dict:
    """Return the paths that belong to one host; discovery looks at them and the plan uses them.

    :param own: the converted settings of the host
    :return: state_dir, run_dir, venvs_dir, weights_path, weights_source; a source that is not known is empty
    """
    state_dir = own.get("llm_state_dir", DEFAULT_STATE_DIR)
    model_id = own.get("llm_model", "")
    bundled = MODELS.get(model_id, {}).get("bundled")
    return {
        "state_dir": state_dir,
        "run_dir": f"{state_dir}/deployments/{own.get('llm_deployment', DEFAULT_DEPLOYMENT)}",
        "venvs_dir": f"{state_dir}/venvs",
        "weights_path": own.get("llm_weights_path") or f"{state_dir}/weights/{model_id}",
        "weights_source": own.get("llm_weights_source") or (f"{collection_dir}/{bundled}" if bundled else ""),
    }


def lock_path(hosts: list[dict], collection_dir: str) -> str:
    """Return the path of the lock on the control node, empty when the lock is made from the source later."""
    values = (hosts[0].get("settings") or {}) if hosts else {}
    bundled = MODELS.get(str(values.get("llm_model")), {}).get("bundled")
    return values.get("llm_weights_lock") or (f"{collection_dir}/{bundled}.lock.json" if bundled else "")


def find_python(requirement: dict, facts: dict) -> dict | None:
    """Return the Python of a host that meets ``requirement`` {version, implementation, path}, or None.

    A ``path`` (llm_engine_python) is the user's choice: no other Python will do.
    """
    for python in facts.get("pythons", []):
        if requirement["path"] not in ("", python["asked"]):
            continue
        release = ".".join(python["version"].split(".")[:2])
        if (
            release == requirement["version"]
            and python["implementation"] == requirement["implementation"]
            and python["makes_venv"]
        ):
            return python
    return None


def nodes_of(document: dict) -> list[dict]:
    """Return every node of every group of a plan."""
    return [node for group in document["groups"] for node in group["nodes"]]


def _known(variable: str, value: str | None, known: dict) -> str:
    if value in known:
        return str(value)
    near = difflib.get_close_matches(str(value), list(known), n=1)
    raise LlmError(
        f"{variable} is not set" if value is None else f"{variable} {value!r} is not in the catalog",
        wanted="one of " + ", ".join(known),
        found="nothing" if value is None else str(value),
        remedy=f"did you mean {near[0]}?" if near else f"set {variable} to one of the names above",
    )


def _groups(hosts: list[dict]) -> dict[str, list[dict]]:
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


def _weights(model_id: str, model: dict, collection_dir: str, path: str, lock: dict | None) -> dict:
    if lock and lock["model"] and lock["model"] != model_id:
        raise LlmError(
            "the lock of the weights is for another model",
            wanted=model_id,
            found=lock["model"],
            remedy="set llm_weights_lock to the lock of this model",
        )
    return {
        "golden": f"{collection_dir}/{model['bundled']}.golden.json" if "bundled" in model else "",
        "lock": path,
        "revision": lock["revision"] if lock else "",
        "files": len(lock["files"]) if lock else 0,
        "bytes": lockfile.total_bytes(lock) if lock else model.get("bytes", 0),
    }


def _serving(deployment: dict, model_id: str, model: dict, hosts: list[dict]) -> dict:
    limit = model["architecture"]["max_positions"]
    length = deployment.get("llm_max_model_len", model["max_model_len"])
    if length > limit:
        raise LlmError(
            "llm_max_model_len is longer than the model's positions reach",
            wanted=f"at most {limit}",
            found=str(length),
            remedy="lower llm_max_model_len",
        )
    return {
        "model_name": model_id,
        "port": deployment.get("llm_api_port") or _port(deployment, hosts),
        "max_model_len": length,
        "max_num_seqs": deployment.get("llm_max_num_seqs", model["max_num_seqs"]),
        "engine_args": deployment.get("llm_engine_args", []),
        "api_keys": deployment.get("llm_api_keys", 0),
    }


def _port(deployment: dict, hosts: list[dict]) -> int:
    """Return the port this deployment already serves on, else the first from 8000 on that is free on every host."""
    facts_of = [host.get("facts") or {} for host in hosts]
    serving = [facts for facts in facts_of if facts.get("service", {}).get("port")]
    own = {facts["service"]["port"] for facts in serving}
    # A host that was added is no reason to move the others' port, unless the port is taken there.
    if len(own) == 1 and not own & _taken([facts for facts in facts_of if facts not in serving]):
        return own.pop()
    taken = _taken(facts_of)
    return next(port for port in range(DEFAULT_PORT, 65536) if port not in taken)


def _taken(facts_of: list[dict]) -> set[int]:
    return {entry["port"] for facts in facts_of for entry in facts.get("ports_in_use", [])}


def _node(host: dict, rank: int, own: dict, collection_dir: str) -> dict:
    facts = host.get("facts") or {}
    interface = own.get("llm_interface") or facts.get("route_interface") or "lo"
    return {
        "host": host["name"],
        "rank": rank,
        "interface": interface,
        "address": _address(host["name"], interface, facts),
        **places(own, collection_dir),
    }


def _address(host: str, interface: str, facts: dict) -> str:
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
    return addresses[0]


def _venv(release: dict, deployment: dict, own: dict, node: dict, facts: dict) -> dict:
    wheel = deployment.get("llm_engine_wheel")
    if wheel and "llm_engine_wheel_sha256" not in deployment:
        raise LlmError(
            "llm_engine_wheel is given without its digest",
            wanted="llm_engine_wheel_sha256",
            found="nothing",
            remedy="set llm_engine_wheel_sha256 to what the publisher states",
        )
    package = (
        f"vllm @ {wheel if '://' in wheel else 'file://' + wheel} --hash=sha256:{deployment['llm_engine_wheel_sha256']}"
        if wheel
        else f"{release['package']} --hash=sha256:{release['package_sha256']}"
    )
    content = hashlib.sha256(f"{release['lock_sha256']}\n{package}\n{release['python']}".encode()).hexdigest()
    python = find_python(_python_requirement(release, own), facts)
    return {
        "path": f"{node['venvs_dir']}/{release['lock'].rsplit('.', 1)[0]}-{content[:12]}",
        "python": python["path"] if python else "",
        "lock": release["lock"],
        "lock_sha256": release["lock_sha256"],
        "package": package,
        "index": deployment.get("llm_engine_index", ""),
        "wheelhouse": own.get("llm_engine_wheelhouse", ""),
        "bytes": release["venv_bytes"],
    }


def _python_requirement(release: dict, own: dict) -> dict:
    return {
        "version": release["python"],
        "implementation": release["implementation"],
        "path": own.get("llm_engine_python", ""),
    }


def _endpoint(document: dict, group: dict) -> dict:
    head = group["nodes"][0]
    url = f"http://{head['address']}:{document['serving']['port']}"
    return {"group": group["name"], "host": head["host"], "url": f"{url}/v1", "health": f"{url}/health"}


def _start_budget(weight_bytes: int) -> int:
    return START_BASE_SECONDS + weight_bytes // READ_BYTES_PER_SECOND


def _requirements(document: dict, node: dict, release: dict, own: dict) -> list[dict]:
    """Return what ``node`` must have: {host, check, ...}; verdicts.py knows how to judge each check."""
    host = node["host"]
    return [
        {"host": host, "check": "machine", "machine": release["machine"], "libc": release["libc"]},
        {"host": host, "check": "cpu_flags", "any_of": release["cpu_flags_any"]},
        {"host": host, "check": "libraries", "names": release["libraries"]},
        {"host": host, "check": "python", **_python_requirement(release, own)},
        {"host": host, "check": "memory", "bytes": node["memory"]["bytes"], "rows": node["memory"]["rows"]},
        {"host": host, "check": "interface", "name": node["interface"]},
        {"host": host, "check": "port", "port": document["serving"]["port"], "address": node["address"]},
        {
            "host": host,
            "check": "weights_source",
            "path": node["weights_source"],
            "installed": node["weights_path"],
            "bytes": document["weights"]["bytes"],
        },
        {
            "host": host,
            "check": "disk",
            "parts": [
                {"what": "engine", "path": node["venvs_dir"], "bytes": int(node["venv"]["bytes"] * DISK_MARGIN)},
                {
                    "what": "weights",
                    "path": node["weights_path"],
                    "bytes": int(document["weights"]["bytes"] * DISK_MARGIN),
                },
            ],
        },
        {"host": host, "check": "writable", "paths": [node["state_dir"], node["weights_path"]]},
    ]


def summary(document: dict) -> str:
    """Return the plan as text that a person checks in a minute."""
    weights, serving, engine = document["weights"], document["serving"], document["engine"]
    lines = [
        f"deployment {document['deployment']}: {document['model']['id']} ({document['model']['title']})",
        f"engine     {engine['id']} {engine['version']} in {engine['runtime']}",
        f"weights    {weights['files']} files, {human_bytes(weights['bytes'])}, "
        f"lock {weights['lock'] or 'made from the source'}",
        f"serving    {serving['max_model_len']} tokens, {serving['max_num_seqs']} requests at once, "
        f"port {serving['port']}, {serving['api_keys'] or 'no'} API key",
    ]
    for group in document["groups"]:
        lines.append(f"group      {group['name']}, head {group['head']}")
        for node in group["nodes"]:
            need = node["memory"]
            lines += [
                f"  rank {node['rank']}   {node['host']} at {node['address']} on {node['interface']}",
                f"    memory {human_bytes(need['bytes'])} = "
                + " + ".join(f"{row['what']} {human_bytes(row['bytes'])}" for row in need["rows"])
                + f"; {need['full_length_requests']} requests of full length fit",
                f"    weights {node['weights_path']}",
                f"    command {' '.join(node['launch']['argv'])}",
            ]
    lines += [f"endpoint   {endpoint['url']}" for endpoint in document["endpoints"]]
    lines += [f"note       {note}" for note in document["notes"]]
    return "\n".join(lines)


def human_bytes(count: int) -> str:
    """Return ``count`` bytes in decimal units, as disks and hubs state them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"
