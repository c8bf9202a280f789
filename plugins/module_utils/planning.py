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

from . import distribution, requirements, settings
from .catalog.models import MODELS
from .catalog.releases import RELEASES, newest
from .engines import accelerated
from .engines.registry import ENGINES
from .errors import LlmError
from .peers.protocol import PROCESS_NAME
from .weights import lockfile

FORMAT = 1
DEFAULT_ENGINE = "vllm_cpu"
DEFAULT_DEPLOYMENT = "default"
DEFAULT_PORT = 8000
SHARE_PROCESS_NAME = "llm-share"  # as weights/share/agent.py names itself
DEFAULT_STATE_DIR = "/var/lib/baremetal-llm"
# The engine of the smallest model needs 60 to 110 s on two busy cores (measured); large weights add their reading time.
START_BASE_SECONDS = 600
READ_BYTES_PER_SECOND = 500_000_000  # a SATA SSD; replaced by the measured rate of the disk where that is known


def plan(hosts: list[dict], collection_dir: str, lock: dict | None, launch: bool = False) -> dict:
    """Return the plan.

    :param hosts: one {name, replica, settings, facts} a host in inventory order; facts as module host_info returns
        them, with what npu_info or gpu_info returned as ``npu`` or ``gpu``; empty for a host that did not answer
    :param collection_dir: where this collection lies on the control node (bundled models)
    :param lock: the lock of the weights, None where there is none yet
    :param launch: whether the plan is to be carried out, and not only held against the hosts
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
    model, engine = MODELS[model_id], ENGINES[engine_id]
    _check_format(model_id, model, engine_id)
    if launch and not hasattr(engine, "launch"):
        raise LlmError(
            f"this version of the collection cannot launch {engine_id}",
            wanted="one of " + ", ".join(name for name, known in ENGINES.items() if hasattr(known, "launch")),
            found=engine_id,
            remedy="plan.yml and preflight.yml work for it; to launch it, upgrade the collection",
        )
    document = {
        "format": FORMAT,
        "deployment": deployment.get("llm_deployment", DEFAULT_DEPLOYMENT),
        "model": {
            "id": model_id,
            "title": model["title"],
            "dtype": model["dtype"],
            "precision": model.get("precision", model["dtype"]),
            "source": model["source"],
        },
        "engine": _engine(engine_id, version, release, deployment),
        "weights": _weights(model_id, model, collection_dir, lock_path(hosts, collection_dir), lock),
        "serving": _serving(deployment, model_id, model, hosts),
        "groups": [],
        "notes": [],
    }
    document["notes"] = [
        f"{host['name']} did not answer: what it has is not known" for host in hosts if not host.get("facts")
    ]
    facts_of = {host["name"]: host.get("facts") or {} for host in hosts}
    for replica, members in _groups(hosts).items():
        nodes = [_node(host, rank, by_host[host["name"]], collection_dir) for rank, host in enumerate(members)]
        engine.check(dict(deployment, llm_engine=engine_id), nodes)
        if release.get("accelerator"):
            _add_devices(document, nodes, model, release, by_host, facts_of)
        for node in nodes if release["runtime"] == "venv" else []:
            node["memory"] = engine.memory(
                model,
                document["weights"]["bytes"],
                document["serving"]["max_model_len"],
                document["serving"]["max_num_seqs"],
                release,
            )
            node["venv"] = _venv(release, deployment, by_host[node["host"]], node, facts_of[node["host"]])
            node["launch"] = engine.launch(document, node)
        document["groups"].append({"name": replica, "head": nodes[0]["host"], "nodes": nodes})
    nodes = nodes_of(document)
    document["weights"].update(
        distribution.of(deployment, nodes, facts_of),
        patch=distribution.patch(model, nodes, facts_of, release.get("families", [])),
    )
    document["endpoints"] = [_endpoint(document, group) for group in document["groups"]]
    document["start_timeout"] = deployment.get(
        "llm_start_timeout", _start_budget(document["weights"]["bytes"], facts_of)
    )
    document["requirements"] = [
        requirement
        for group in document["groups"]
        for node in group["nodes"]
        for requirement in requirements.of_node(document, node, group["nodes"], release, by_host[node["host"]])
    ] + [
        requirement
        for group in document["groups"]
        for requirement in requirements.of_group(document, group["nodes"], release)
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


def discovery(own: dict, collection_dir: str) -> dict:
    """Return what discovery has to look at on one host, as far as its own settings say.

    :return: accelerator (npu, gpu or empty), paths, pythons, find_pythons, libraries, run_dir
    """
    engine = own.get("llm_engine", DEFAULT_ENGINE)
    known = RELEASES.get(engine, {})
    release = known.get(str(own.get("llm_engine_version", ""))) or (known[newest(engine)] if known else {})
    found = places(own, collection_dir)
    return {
        "accelerator": release.get("accelerator", ""),
        "paths": sorted({path for path in found.values() if path and not distribution.is_remote(path)}),
        "pythons": [own["llm_engine_python"]] if "llm_engine_python" in own else [],
        "find_pythons": release.get("runtime") == "venv",
        "libraries": release.get("libraries", []),
        "run_dir": found["run_dir"],
        "images": [own["llm_image"]] if "llm_image" in own else [],
    }


def probe(document: dict, host: str) -> dict:
    """Return what the probe between the nodes of a replica group needs on ``host``; empty for a group of one.

    :return: address, peers [{host, address}], ports, ring (hosts in order of rank), devices [{phy_id, ip}],
        peer_devices {host: devices}
    """
    nodes = next(group["nodes"] for group in document["groups"] if host in [node["host"] for node in group["nodes"]])
    # A host that did not answer has no address to be probed at, and is told of as such.
    nodes = [node for node in nodes if node["address"]]
    own = [node for node in nodes if node["host"] == host]
    if len(nodes) < 2 or not own:
        return {}
    peers = [node for node in nodes if node["host"] != host]
    return {
        "address": own[0]["address"],
        "peers": [{"host": node["host"], "address": node["address"]} for node in peers],
        "ports": list(requirements.ports_of(document, nodes)),
        "ring": [node["host"] for node in nodes],
        "devices": own[0].get("npu_addresses", []),
        "peer_devices": {node["host"]: node["npu_addresses"] for node in peers if node.get("npu_addresses")},
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


def source_of(document: dict) -> str:
    """Return where the seed of a plan fetches the weights from."""
    return next(node["weights_source"] for node in nodes_of(document) if node["host"] == document["weights"]["seed"])


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


def _check_format(model_id: str, model: dict, engine_id: str) -> None:
    engines = model.get("engines", list(ENGINES))
    if engine_id not in engines:
        raise LlmError(
            f"{engine_id} does not read the weights of {model_id}",
            wanted="llm_engine: " + " or ".join(engines),
            found=f"llm_engine: {engine_id}",
            remedy="change llm_engine, or take the model in a format of this engine: "
            + (
                ", ".join(name for name, known in MODELS.items() if engine_id in known.get("engines", ()))
                or "none known"
            ),
        )


def _engine(engine_id: str, version: str, release: dict, deployment: dict) -> dict:
    found = {"id": engine_id, "version": version, "runtime": release["runtime"]}
    if release.get("accelerator"):
        found.update(
            accelerator=release["accelerator"],
            image=deployment.get("llm_image", ""),
            group_ports=release["group_ports"],
            **{key: release[key] for key in ("cann", "cuda") if key in release},
        )
    return found


def _add_devices(
    document: dict, nodes: list[dict], model: dict, release: dict, by_host: dict[str, dict], facts_of: dict[str, dict]
) -> None:
    """Add to each node how many accelerators it has to have, what one of them has to hold, and their own addresses."""
    for node in nodes:
        node["devices"] = accelerated.wanted_devices(by_host[node["host"]], facts_of[node["host"]], release)
    total = sum(node["devices"] for node in nodes)
    need = accelerated.memory(model, document["weights"]["bytes"], document["serving"]["max_model_len"], release, total)
    for node in nodes:
        node["memory"] = need
        if release["accelerator"] == "npu":
            network = (facts_of[node["host"]].get("npu") or {}).get("network") or []
            node["npu_addresses"] = [{"phy_id": port["phy_id"], "ip": port["ip"]} for port in network if port["ip"]]


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
        "published": model.get("hubs", []),
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
    return {entry["port"] for facts in facts_of for entry in listeners(facts)}


def listeners(facts: dict) -> list[dict]:
    """Return who listens on a host, without what earlier runs of ours have left: that ends by itself."""
    own = (PROCESS_NAME, SHARE_PROCESS_NAME)
    return [entry for entry in facts.get("ports_in_use", []) if entry.get("process") not in own]


def _node(host: dict, rank: int, own: dict, collection_dir: str) -> dict:
    facts = host.get("facts") or {}
    interface = own.get("llm_interface") or facts.get("route_interface") or "lo"
    return {
        "host": host["name"],
        "rank": rank,
        "rack": own.get("llm_rack", ""),
        "interface": interface,
        "address": _address(host["name"], interface, facts),
        "share_interface": own.get("llm_weights_interface", interface),
        "share_address": _address(host["name"], own.get("llm_weights_interface", interface), facts),
        "weights_owner": own.get("llm_weights_owner", ""),
        **places(own, collection_dir),
    }


def _address(host: str, interface: str, facts: dict) -> str:
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
    python = find_python(requirements.python(release, own), facts)
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


def _endpoint(document: dict, group: dict) -> dict:
    head = group["nodes"][0]
    url = f"http://{head['address']}:{document['serving']['port']}"
    return {"group": group["name"], "host": head["host"], "url": f"{url}/v1", "health": f"{url}/health"}


def _start_budget(weight_bytes: int, facts_of: dict[str, dict]) -> int:
    measured = [(facts.get("read_rate") or {}).get("bytes_per_s") for facts in facts_of.values()]
    rate = min((rate for rate in measured if rate), default=READ_BYTES_PER_SECOND)
    return START_BASE_SECONDS + int(weight_bytes / rate)


def summary(document: dict) -> str:
    """Return the plan as text that a person checks in a minute."""
    weights, serving, engine = document["weights"], document["serving"], document["engine"]
    lines = [
        f"deployment {document['deployment']}: {document['model']['id']} ({document['model']['title']})",
        f"engine     {engine['id']} {engine['version']} in {engine['runtime']}",
        f"weights    {weights['files']} files, {human_bytes(weights['bytes'])}, "
        f"lock {weights['lock'] or 'made from the source'}",
        f"           fetched by {weights['seed']} from {source_of(document) or 'nowhere yet'}"
        + (f", then {' > '.join(node['host'] for node in weights['chain'])}" if len(weights["chain"]) > 1 else "")
        + (f", {weights['processes']} processes" if weights["processes"] > 1 else "")
        + (f"; changed: {weights['patch']}" if weights["patch"] else ""),
        f"serving    {serving['max_model_len']} tokens, {serving['max_num_seqs']} requests at once, "
        f"port {serving['port']}, {serving['api_keys'] or 'no'} API key",
    ]
    for group in document["groups"]:
        lines.append(f"group      {group['name']}, head {group['head']}")
        for node in group["nodes"]:
            need = node["memory"]
            lines += [
                f"  rank {node['rank']}   {node['host']} at {node['address']} on {node['interface']}",
                f"    memory {human_bytes(need['bytes'])}{' a device' if 'devices' in node else ''} = "
                + " + ".join(f"{row['what']} {human_bytes(row['bytes'])}" for row in need["rows"])
                + (f"; {need['full_length_requests']} requests of full length fit" if "launch" in node else ""),
                f"    weights {node['weights_path']}",
            ]
            lines += [f"    devices {node['devices']}"] if "devices" in node else []
            lines += [f"    command {' '.join(node['launch']['argv'])}"] if "launch" in node else []
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
