# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables a user sets (``llm_*``): their types, their scope, and the errors for wrong ones.

Surveys and ``-e`` deliver every value as text, so each is converted here, once, and nowhere else.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from typing import Any, Callable

from . import communication
from .errors import LlmError

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}\Z")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("text on one line, not empty")
    return str(value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValueError("lower-case letters, digits, '.', '_' and '-', at most 63, the first a letter or digit")
    return str(value)


def _path(value: Any) -> str:
    text = _text(value)
    if not text.startswith("/") or "/../" in text + "/":
        raise ValueError("an absolute path without '..'")
    return text.rstrip("/") or "/"


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,12}", str(value)) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return convert


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("64 hexadecimal digits")
    return value.lower()


def _choice(*choices: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return str(value)

    return convert


def _source(value: Any) -> str:
    text = _text(value)
    if text.startswith("/"):
        return _path(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("hf", "modelscope", "modelers", "https", "http", "s3") or not rest:
        raise ValueError(
            "an absolute path, hf://, modelscope:// or modelers://OWNER/NAME[@REVISION], https://HOST/FOLDER/, "
            "or s3://BUCKET/PREFIX"
        )
    if "@" in rest.split("/", 1)[0]:
        # The plan is printed and saved.
        raise ValueError("a source without credentials; those belong into llm_weights_token or llm_weights_secret_key")
    return text


def _secret(value: Any) -> str:
    """A secret stays where it is; that it is there is all that the plan may know."""
    if not isinstance(value, str) or not value or re.search(r"[\x00-\x20\x7f]", value):
        raise ValueError("text without spaces, not empty")
    return "given"


def _url(value: Any) -> str:
    text = _text(value)
    if not re.match(r"https?://[^/@]+(/|\Z)", text):
        raise ValueError("an http or https URL without credentials")
    return text


def _owner(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}(:[A-Za-z0-9_.-]{1,64})?", value):
        raise ValueError("USER or USER:GROUP, names or numbers")
    return value


def _index(value: Any) -> str:
    text = _text(value)
    if "@" in text.split("://", 1)[-1].split("/", 1)[0]:
        # The plan is printed and saved.
        raise ValueError("a URL without credentials; those belong into pip's own configuration on the host")
    return text


def _yes_no(value: Any) -> bool:
    if str(value).lower() not in ("true", "false", "yes", "no"):
        raise ValueError("true or false")
    return str(value).lower() in ("true", "yes")


def _flags(value: Any) -> list[str]:
    if isinstance(value, str):
        value = shlex.split(value)
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float)) for item in value):
        raise ValueError("a list with one command-line argument an entry, such as ['--max-num-seqs', '4']")
    return [_text(str(item)) for item in value]


def _from_text(value: Any) -> Any:
    """Surveys and -e deliver a mapping as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _limits(value: Any) -> dict[str, int]:
    value = _from_text(value)
    if not isinstance(value, dict) or not all(
        re.fullmatch(r"[a-z]{2,12}", str(name)) and re.fullmatch(r"-1|\d{1,15}", str(limit))
        for name, limit in value.items()
    ):
        raise ValueError("a mapping of limits to whole numbers, such as {memlock: -1}; -1 is no limit")
    return {str(name): int(limit) for name, limit in value.items()}


def _sizes(value: Any) -> dict[str, int]:
    known = ("tensor_parallel", "pipeline_parallel", "data_parallel")
    value = _from_text(value)
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise ValueError("a mapping with some of " + ", ".join(known))
    return {key: _whole(1, 1024)(size) for key, size in value.items()}


# name: (conversion, "deployment" when all hosts must agree or "host", description)
SETTINGS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "llm_deployment": (_name, "deployment", "name of the deployment"),
    "llm_model": (_name, "deployment", "model of the catalog"),
    "llm_engine": (_name, "deployment", "engine id"),
    "llm_engine_version": (_text, "deployment", "version of the engine"),
    "llm_runtime": (_choice("docker", "venv"), "deployment", "how the engine runs"),
    "llm_image": (_text, "deployment", "container image: NAME@sha256:DIGEST, or sha256:ID of one that the hosts have"),
    "llm_image_archive": (
        _path,
        "deployment",
        "file of `docker save` on the control node",
    ),
    "llm_discover": (_yes_no, "deployment", "false plans from what the inventory declares, without asking the hosts"),
    "llm_weights_source": (_source, "host", "where the seed fetches the weights: its folder, a hub, a server"),
    "llm_weights_endpoint": (_url, "deployment", "mirror of the hub, or the S3 service"),
    "llm_weights_token": (_secret, "host", "token of the hub; it never reaches the plan"),
    "llm_weights_access_key": (_secret, "host", "access key of S3; it never reaches the plan"),
    "llm_weights_secret_key": (_secret, "host", "secret key of S3; it never reaches the plan"),
    "llm_weights_region": (_text, "deployment", "region of S3"),
    "llm_weights_ca_file": (_path, "host", "certificates, PEM, that the hub is trusted by"),
    "llm_weights_client": (_choice("builtin", "library"), "deployment", "what fetches from a hub"),
    "llm_weights_client_python": (_path, "host", "Python that has the hub's own library"),
    "llm_weights_seed": (_text, "deployment", "host that fetches the weights"),
    "llm_weights_interface": (_text, "host", "network interface that shares the weights"),
    "llm_weights_port": (_whole(1024, 65000), "deployment", "first port of sharing"),
    "llm_weights_processes": (_whole(1, 64), "deployment", "processes a host that share"),
    "llm_weights_bandwidth": (
        _whole(0, 1_000_000),
        "deployment",
        "most Mbit/s a host sends or receives; 0: no limit",
    ),
    "llm_weights_engine": (_choice("auto", "libtorrent", "rsync"), "deployment", "what shares the weights"),
    "llm_weights_wheels": (
        _path,
        "deployment",
        "folder on the control node with the wheels of libtorrent",
    ),
    "llm_weights_owner": (_owner, "host", "owner of the installed files"),
    "llm_weights_deep": (_yes_no, "deployment", "whether installed files are read again, whatever the stamps say"),
    "llm_weights_keep": (_whole(0, 100), "deployment", "old revisions that prune_weights.yml leaves"),
    "llm_rack": (_text, "host", "rack of the host; the weights pass from rack to rack once"),
    "llm_weights_lock": (_path, "deployment", "lock file of the weights, on the control node"),
    "llm_weights_path": (_path, "host", "where the engine reads the weights"),
    "llm_interface": (_text, "host", "network interface that serves"),
    "llm_accelerators": (_whole(1, 64), "host", "accelerators that the host has to have"),
    "llm_accelerator": (_text, "host", "name of the chip where it is not discovered, as its vendor's tool prints it"),
    "llm_accelerator_mib": (
        _whole(1024, 1_000_000),
        "host",
        "MiB of one accelerator where not discovered",
    ),
    "llm_ulimits": (_limits, "host", "limits of the engine's container"),
    "llm_comm_env": (communication.variables, "host", "variables of HCCL, NCCL or Gloo"),
    "llm_port_offset": (_whole(0, 20000), "deployment", "added to the ports between nodes, for a second deployment"),
    "llm_api_port": (_whole(1, 65535), "deployment", "port of the API"),
    "llm_api_keys": (
        _whole(0, 1000),
        "deployment",
        "how many API keys there are; the keys themselves never reach the plan",
    ),
    "llm_max_model_len": (_whole(1, 10_000_000), "deployment", "tokens of prompt and answer together"),
    "llm_max_num_seqs": (_whole(1, 4096), "deployment", "requests that are served at once"),
    "llm_parallel": (_sizes, "deployment", "override of the parallel sizes"),
    "llm_engine_args": (_flags, "deployment", "further flags of the engine"),
    "llm_report_dir": (_path, "deployment", "folder for the reports, on the control node"),
    "llm_state_dir": (_path, "host", "folder for everything that is installed"),
    "llm_start_timeout": (_whole(10, 86400), "deployment", "seconds the engine may take to become ready"),
    "llm_engine_python": (_path, "host", "Python that the engine's environment is made from"),
    "llm_engine_index": (_index, "deployment", "further package index for the engine's environment"),
    "llm_engine_wheelhouse": (_path, "host", "folder with all files of the engine's environment, for offline sites"),
    "llm_engine_wheel": (_text, "deployment", "wheel of the engine (path or URL) in place of the catalog's"),
    "llm_engine_wheel_sha256": (_sha256, "deployment", "SHA-256 of llm_engine_wheel"),
    "llm_remove": (_yes_no, "deployment", "whether stop.yml also removes what was installed"),
}


# Of these the plan knows only how many there are, or that there is one; and no message shows them.
SECRETS = ("llm_api_keys", "llm_weights_token", "llm_weights_access_key", "llm_weights_secret_key")


def convert(host: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the ``llm_*`` values of one host in their own types.

    :raises LlmError: for unknown names (with the nearest known one) and values of the wrong form
    """
    return {name: _one(host, name, value) for name, value in sorted(values.items()) if value is not None}


def _one(host: str, name: str, value: Any) -> Any:
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1)
        raise LlmError(
            f"{host}: {name} is no variable of this collection",
            wanted=near[0] if near else "one of " + ", ".join(SETTINGS),
            found=name,
            remedy=f"rename it to {near[0]}" if near else "remove it from the inventory or the extra variables",
        )
    try:
        return SETTINGS[name][0](value)
    except ValueError as error:
        raise LlmError(
            f"{host}: {name} has the wrong form",
            wanted=str(error),
            found="a value that is not shown" if name in SECRETS else repr(value)[:120],
            remedy=f"correct {name} in the inventory or the extra variables",
        ) from error


def of_deployment(by_host: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the values that hold for the whole deployment, which every host must agree on."""
    merged: dict[str, Any] = {}
    for name, (_convert, scope, _description) in SETTINGS.items():
        if scope != "deployment":
            continue
        first: tuple[str, Any] | None = None
        for host, values in by_host.items():
            found = values.get(name)
            if first is not None and found != first[1]:
                raise LlmError(
                    f"{name} differs between {first[0]} and {host}",
                    wanted="one value for the whole deployment",
                    found=f"{first[1]!r} and {found!r}",
                    remedy=f"set {name} for the group 'serving', not for single hosts",
                )
            first = (host, found)
        if first is not None and first[1] is not None:
            merged[name] = first[1]
    return merged
