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
import json

from .. import communication, distribution, requirements, settings
from ..catalog.models import MODELS
from ..catalog.releases import RELEASES, newest
from ..engines import vllm_cpu
from ..engines.registry import ENGINES
from ..errors import LlmError
from ..weights import lockfile
from . import groups, images, inquiry, memory

FORMAT = 2
# The engine of the smallest model needs 60 to 110 s on two busy cores (measured); large weights add their reading time.
START_BASE_SECONDS = 600
# What is done on a node from weights in place to all ranks serving, in this order: one task each.
STEPS = {
    "venv": ["environment", "service", "wait", "judge"],
    "docker": [
        "communication",
        "read communication",
        "agree on communication",
        "image",
        "agree on the image",
        "files",
        "read the key",
        "container",
        "wait",
        "judge",
    ],
}
# The guards of a replica group's containers meet at the head here; below the ports that weights are shared on.
GUARD, GUARD_PORT = "rank guard", 29590


def plan(
    hosts: list[dict], collection_dir: str, lock: dict | None, launch: bool = False, archive: dict | None = None
) -> dict:
    """Return the plan.

    :param hosts: one {name, replica, settings, facts, address} a host in inventory order; facts as module host_info
        returns them, with what npu_info or gpu_info returned as ``npu`` or ``gpu``; empty for one that did not answer
    :param collection_dir: where this collection lies on the control node (bundled models)
    :param lock: the lock of the weights, None where there is none yet
    :param launch: whether the plan is to be carried out, and not only held against the hosts
    :param archive: what the image's archive says of itself {id, tags, architecture, bytes}, None without one
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
    declared = deployment.get("llm_discover") is False
    _check_declared(declared, launch)
    facts_of = {host["name"]: host.get("facts") or {} for host in hosts}
    model_id = _known("llm_model", deployment.get("llm_model"), MODELS)
    engine_id = _known("llm_engine", deployment.get("llm_engine", inquiry.DEFAULT_ENGINE), ENGINES)
    version = str(deployment.get("llm_engine_version", newest(engine_id)))
    release = RELEASES[engine_id][_known("llm_engine_version", version, RELEASES[engine_id])]
    model = MODELS[model_id]
    _check_format(model_id, model, engine_id)
    deployment.update(llm_engine=engine_id, llm_engine_version=version, llm_model=model_id)
    document = {
        "format": FORMAT,
        "deployment": deployment.get("llm_deployment", inquiry.DEFAULT_DEPLOYMENT),
        "model": {
            "id": model_id,
            "precision": model.get("precision", model["dtype"]),
            **{key: model[key] for key in ("title", "dtype", "architecture", "source")},
        },
        "engine": _engine(engine_id, version, release, deployment, archive, launch),
        "weights": _weights(model_id, model, collection_dir, inquiry.lock_path(hosts, collection_dir), lock),
        "serving": _serving(deployment, model_id, model, hosts),
        "groups": [],
        "notes": _notes(hosts, declared),
    }
    document["steps"] = STEPS[document["engine"]["runtime"]]
    document["start_timeout"] = deployment.get(
        "llm_start_timeout", _start_budget(document["weights"]["bytes"], facts_of)
    )
    for replica, members in groups.split(hosts).items():
        nodes = [
            groups.node(host, rank, by_host[host["name"]], collection_dir, declared)
            for rank, host in enumerate(members)
        ]
        group = _group(document, replica, nodes, model, release, deployment, by_host, facts_of, launch)
        document["groups"].append(group)
    nodes = inquiry.nodes_of(document)
    document["weights"].update(
        distribution.of(deployment, nodes, facts_of),
        patch=distribution.patch(
            model, nodes, facts_of, release.get("families", []), getattr(ENGINES[engine_id], "PATCHES", {}).get(version)
        ),
    )
    document["endpoints"] = [_endpoint(document, group) for group in document["groups"]]
    document["requirements"] = [
        requirement
        for group in document["groups"]
        for node in group["nodes"]
        for requirement in requirements.of_node(document, group, node, release, by_host[node["host"]])
    ] + [requirement for group in document["groups"] for requirement in requirements.of_group(document, group, release)]
    return document


def _check_declared(declared: bool, launch: bool) -> None:
    if declared and launch:
        raise LlmError(
            "a deployment cannot be made from what the inventory declares",
            wanted="llm_discover: true",
            found="llm_discover: false",
            remedy="remove llm_discover; with llm_discover=false only plan.yml has a meaning",
        )


def _notes(hosts: list[dict], declared: bool) -> list[str]:
    if declared:
        return ["made from what the inventory declares; no host was asked"]
    return [f"{host['name']} did not answer: what it has is not known" for host in hosts if not host.get("facts")]


def _group(
    document: dict,
    name: str,
    nodes: list[dict],
    model: dict,
    release: dict,
    deployment: dict,
    by_host: dict[str, dict],
    facts_of: dict[str, dict],
    launch: bool,
) -> dict:
    """Return one replica group with all that its nodes are and run."""
    engine = ENGINES[document["engine"]["id"]]
    for node in nodes if release.get("accelerator") else []:
        groups.add_devices(node, by_host[node["host"]], facts_of[node["host"]], release)
        images.check_machines(document["engine"].get("image") or {}, [node])
    groups.check_equal(nodes)
    engine.check(deployment, nodes)
    devices = [node.get("devices", 1) for node in nodes]
    wanted = deployment.get("llm_parallel", {})
    sizes = engine.parallel(model, document["engine"]["version"], devices, wanted, **_about(document, nodes[0]))
    group = {"name": name, "head": nodes[0]["host"], "parallel": sizes, "nodes": nodes}
    _add_memory(document, group, model, release, facts_of)
    if document["engine"]["runtime"] == "venv":
        for node in nodes:
            node["venv"] = _venv(release, deployment, by_host[node["host"]], node, facts_of[node["host"]])
    else:
        _add_communication(document, group, by_host, facts_of)
    _add_launches(document, group, bool(launch and all(facts_of[node["host"]] for node in nodes)))
    if document["engine"]["runtime"] == "docker":
        group["digest"] = _digest(document, nodes)
    return group


def _add_communication(document: dict, group: dict, by_host: dict[str, dict], facts_of: dict[str, dict]) -> None:
    """Add to the nodes the limits of their containers, and the variables by which the ranks reach each other."""
    for node in group["nodes"]:
        own = by_host[node["host"]]
        node.update(ulimits=own.get("llm_ulimits", {}), comm_env_override=own.get("llm_comm_env", {}))
    variables = ENGINES[document["engine"]["id"]].communication(document, group)
    for node in group["nodes"]:
        found = communication.of(document, group, node, facts_of, variables)
        document["notes"] += [note for note in found.pop("notes") if note not in document["notes"]]
        node["comm_env"] = found
    communication.check_group(group["nodes"])


def _about(document: dict, node: dict) -> dict:
    """Return what a split of the model may depend on besides numbers."""
    return {"family": node.get("family", ""), "arguments": document["serving"]["engine_args"]}


def _add_launches(document: dict, group: dict, strict: bool) -> None:
    """Add to the nodes what is run on them.

    :param strict: whether what is missing for it ends the run; else preflight says it, with all else that is wrong
    """
    engine, notes = ENGINES[document["engine"]["id"]], document["notes"]
    for node in group["nodes"]:
        try:
            node["launch"] = engine.launch(document, group, node)
            notes += [note for note in node["launch"].get("notes", []) if note not in notes]
        except LlmError as error:
            if strict:
                raise
            notes.append(f"{node['host']}: its command is not known yet: {error.summary}")


def _add_memory(document: dict, group: dict, model: dict, release: dict, facts_of: dict[str, dict]) -> None:
    """Add to the nodes what a device, or the host, has to hold, and to the group whether it fits."""
    serving, size, nodes = document["serving"], document["weights"]["bytes"], group["nodes"]
    if not release.get("accelerator"):
        need = vllm_cpu.memory(
            model, size, serving["max_model_len"], serving["max_num_seqs"], release, group["parallel"]
        )
        for node in nodes:
            node["memory"] = need
        return
    made_of = memory.parts(model, size, _tensors(nodes, facts_of))
    need = _need(document, model, release, made_of, group["parallel"], sum(node["devices"] for node in nodes))
    for node in nodes:
        node["memory"] = need
    known = [node["device_mib"] for node in nodes]
    group["fit"] = memory.fit(need, min(known))
    if group["fit"]["fits"] is False:
        group["fit"].update(_more_nodes(document, group, model, release, made_of))


def _need(document: dict, model: dict, release: dict, made_of: dict, sizes: dict, devices: int) -> dict:
    engine = document["engine"]
    loads_mtp = getattr(ENGINES[engine["id"]], "loads_mtp", None)
    return memory.of_device(
        made_of,
        memory.kv_bytes_per_token(model),
        document["serving"]["max_model_len"],
        sizes,
        devices,
        release,
        mtp=bool(model.get("mtp") and loads_mtp and loads_mtp(engine["version"], document["model"]["precision"])),
    )


def _more_nodes(document: dict, group: dict, model: dict, release: dict, made_of: dict) -> dict:
    """Return how many nodes like these would do: {nodes, text}."""
    node, engine = group["nodes"][0], ENGINES[document["engine"]["id"]]

    def holds(count: int) -> bool:
        devices = [node["devices"]] * count
        sizes = engine.parallel(model, document["engine"]["version"], devices, {}, **_about(document, node))
        need = _need(document, model, release, made_of, sizes, node["devices"] * count)
        return bool(memory.fit(need, min(one["device_mib"] for one in group["nodes"]))["fits"])

    needed = memory.nodes_needed(holds, len(group["nodes"]))
    return {"nodes": needed["nodes"], "text": f"{group['fit']['text']}; {needed['text']}"}


def _tensors(nodes: list[dict], facts_of: dict[str, dict]) -> dict | None:
    """Return what the headers of the weights say, from the first host that has them; None where none has."""
    found = [(facts_of[node["host"]].get("weights") or {}) for node in nodes]
    return next((one for one in found if one.get("tensors") and not one.get("reason")), None)


def _digest(document: dict, nodes: list[dict]) -> str:
    """Return what ranks must agree on before they start together: everything they are launched with."""
    launched = [document["engine"]["image"], [[node.get("launch"), node["comm_env"]] for node in nodes]]
    return hashlib.sha256(json.dumps(launched, sort_keys=True).encode()).hexdigest()


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


def _engine(engine_id: str, version: str, release: dict, deployment: dict, archive: dict | None, launch: bool) -> dict:
    known = release.get("runtimes", [release["runtime"]])
    runtime = deployment.get("llm_runtime", release["runtime"])
    if runtime not in known:
        raise LlmError(
            f"{engine_id} {version} runs in {'containers' if known == ['docker'] else 'a virtual environment'}",
            wanted="llm_runtime: " + " or ".join(known),
            found=f"llm_runtime: {runtime}",
            remedy="remove llm_runtime",
        )
    found = {"id": engine_id, "version": version, "runtime": runtime}
    if release.get("accelerator"):
        found.update(
            accelerator=release["accelerator"],
            memory_share=release["memory_share"],
            **{key: release[key] for key in ("cann", "cuda") if key in release},
        )
    if runtime == "docker":
        offset = deployment.get("llm_port_offset", 0)
        ports = {**release["group_ports"], GUARD: GUARD_PORT}
        found.update(
            image=images.of(deployment, archive, launch),
            group_ports={what: port + offset for what, port in ports.items()},
            # On a host alone only these are listened on.
            node_ports=release.get("node_ports", []),
        )
    elif deployment.get("llm_image") or archive:
        raise LlmError(
            "llm_image has no meaning in a virtual environment",
            wanted="llm_runtime: docker, or no image",
            found=f"llm_runtime: {runtime}",
            remedy="remove llm_image and llm_image_archive",
        )
    return found


def _weights(model_id: str, model: dict, collection_dir: str, path: str, lock: dict | None) -> dict:
    if lock and lock["model"] and lock["model"] != model_id:
        raise LlmError(
            "the lock of the weights is for another model",
            wanted=model_id,
            found=lock["model"],
            remedy="set llm_weights_lock to the lock of this model",
        )
    return {
        "golden": f"{collection_dir}/{model['golden']}" if "golden" in model else "",
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
        "port": groups.port(deployment, hosts),
        "max_model_len": length,
        "max_num_seqs": deployment.get("llm_max_num_seqs", model["max_num_seqs"]),
        "engine_args": deployment.get("llm_engine_args", []),
        "api_keys": deployment.get("llm_api_keys", 0),
    }


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
    python = inquiry.find_python(requirements.python(release, own), facts)
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
    # MindIE tells of itself on a port of its own.
    asked = (head.get("launch") or {}).get("readiness") or {}
    return {
        "group": group["name"],
        "host": head["host"],
        "url": f"{url}/v1",
        "health": asked.get("url") or f"{url}/health",
    }


def _start_budget(weight_bytes: int, facts_of: dict[str, dict]) -> int:
    measured = [(facts.get("read_rate") or {}).get("bytes_per_s") for facts in facts_of.values()]
    rate = min((rate for rate in measured if rate), default=communication.READ_BYTES_PER_SECOND)
    return START_BASE_SECONDS + int(weight_bytes / rate)
