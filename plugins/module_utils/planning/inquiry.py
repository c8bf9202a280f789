# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is looked at before there is a plan, and who is probed with one. Pure."""

from __future__ import annotations

from .. import distribution, requirements
from ..catalog.models import MODELS
from ..catalog.releases import RELEASES, newest

DEFAULT_ENGINE = "vllm_cpu"
DEFAULT_DEPLOYMENT = "default"
DEFAULT_STATE_DIR = "/var/lib/baremetal-llm"


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

    :return: accelerator (npu, gpu or empty), paths, pythons, find_pythons, libraries, run_dir, images, weights
    """
    engine = own.get("llm_engine", DEFAULT_ENGINE)
    known = RELEASES.get(engine, {})
    release = known.get(str(own.get("llm_engine_version", ""))) or (known[newest(engine)] if known else {})
    found = places(own, collection_dir)
    in_environment = own.get("llm_runtime", release.get("runtime")) == "venv"
    return {
        "accelerator": release.get("accelerator", ""),
        "paths": sorted({path for path in found.values() if path and not distribution.is_remote(path)}),
        "pythons": [own["llm_engine_python"]] if "llm_engine_python" in own else [],
        "find_pythons": in_environment,
        "libraries": release.get("libraries", []) if in_environment else [],
        "run_dir": found["run_dir"],
        "images": [own["llm_image"]] if "llm_image" in own else [],
        # Whoever has the weights already tells what they are made of.
        "weights": [
            path
            for path in (found["weights_path"], found["weights_source"])
            if path and not distribution.is_remote(path)
        ],
    }


def probe(document: dict, host: str) -> dict:
    """Return what the probe between the nodes of a replica group needs on ``host``; empty for a group of one.

    :return: address, peers [{host, address}], ports, ring (hosts in order of rank), devices [{phy_id, ip}],
        peer_devices {host: devices}
    """
    group = next(group for group in document["groups"] if host in [node["host"] for node in group["nodes"]])
    # A host that did not answer has no address to be probed at, and is told of as such.
    nodes = [node for node in group["nodes"] if node["address"]]
    own = [node for node in nodes if node["host"] == host]
    if len(nodes) < 2 or not own:
        return {}
    peers = [node for node in nodes if node["host"] != host]
    return {
        "address": own[0]["address"],
        "peers": [{"host": node["host"], "address": node["address"]} for node in peers],
        "ports": list(requirements.ports_of(document, group)),
        "ring": [node["host"] for node in nodes],
        "devices": own[0].get("npu_addresses", []),
        "peer_devices": {node["host"]: node["npu_addresses"] for node in peers if node.get("npu_addresses")},
    }


def lock_path(hosts: list[dict], collection_dir: str) -> str:
    """Return the path of the lock on the control node, empty when the lock is made from the source later."""
    values = (hosts[0].get("settings") or {}) if hosts else {}
    bundled = MODELS.get(str(values.get("llm_model")), {}).get("bundled")
    return values.get("llm_weights_lock") or (f"{collection_dir}/{bundled}.lock.json" if bundled else "")


def archive_path(hosts: list[dict]) -> str:
    """Return the path of the image's archive on the control node, empty where there is none."""
    values = (hosts[0].get("settings") or {}) if hosts else {}
    return str(values.get("llm_image_archive") or "")


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
