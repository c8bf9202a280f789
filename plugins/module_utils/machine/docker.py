# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker of a host: its client, its socket, and what its engine tells of itself."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
import urllib.parse

from .source import Source

SOCKET = "/var/run/docker.sock"
_MAX_ANSWER = 1 << 20  # an engine's /info has some 5 KB
_MAX_SECONDS = 5.0  # an engine in order answers in a tenth of one
_HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r?\n")


def read(source: Source, images: list[str]) -> dict:
    """Return {client, socket, engine, reason, images}.

    ``engine`` is None with a ``reason`` when it does not answer. ``images`` has the id of each image asked for, an
    empty one for an image that is not there; it is empty when the engine does not answer.
    """
    there = source.exists(SOCKET)
    engine, reason = _engine(source) if there else (None, f"there is no {SOCKET}")
    return {
        "client": shutil.which("docker") or "",
        "socket": there,
        "engine": engine,
        "reason": reason,
        "images": {image: _image(source, image) for image in images} if engine else {},
    }


def _image(source: Source, reference: str) -> str:
    if ".." in reference.split("/"):
        return ""  # no image, but a way to other parts of the engine's interface
    deadline = time.monotonic() + min(source.timeout, _MAX_SECONDS)
    told, _reason = get(source.at(SOCKET), f"/images/{urllib.parse.quote(reference)}/json", deadline)
    return _text(told or {}, "Id")


def _engine(source: Source) -> tuple[dict | None, str]:
    deadline = time.monotonic() + min(source.timeout, _MAX_SECONDS)
    answers = []
    for path in ("/info", "/version"):
        told, reason = get(source.at(SOCKET), path, deadline)
        if told is None:
            return None, f"{SOCKET} {path}: {reason}"
        answers.append(told)
    return engine_of(*answers), ""


def engine_of(info: dict, version: dict) -> dict:
    """Return what matters of the answers to /info and /version; what they do not tell is empty or None."""
    live_restore, runtimes = info.get("LiveRestoreEnabled"), info.get("Runtimes")
    return {
        "version": _text(info, "ServerVersion") or _text(version, "Version"),
        "api_version": _text(version, "ApiVersion"),
        "cgroup_driver": _text(info, "CgroupDriver"),
        "cgroup_version": _text(info, "CgroupVersion"),
        "storage_driver": _text(info, "Driver"),
        "default_runtime": _text(info, "DefaultRuntime"),
        "runtimes": sorted(runtimes) if isinstance(runtimes, dict) else [],
        "root_dir": _text(info, "DockerRootDir"),
        "live_restore": live_restore if isinstance(live_restore, bool) else None,
        "runc_version": _component(version, "runc"),
    }


def _text(told: dict, key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""


def _component(version: dict, name: str) -> str:
    components = version.get("Components")
    for component in components if isinstance(components, list) else []:
        if isinstance(component, dict) and component.get("Name") == name:
            return _text(component, "Version")
    return ""


def get(path: str, what: str, deadline: float) -> tuple[dict | None, str]:
    """Ask the service at the socket ``path`` for ``what``; return its JSON object, or None and the reason."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
            _still(asker, deadline)
            asker.connect(path)
            asker.sendall(f"GET {what} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            raw = _all(asker, deadline)
    except OSError as error:
        return None, f"the engine does not answer: {error.strerror or error}"
    return parse_answer(raw)


def _still(asker: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    asker.settimeout(left)


def _all(asker: socket.socket, deadline: float) -> bytes:
    chunks, size = [], 0
    while size <= _MAX_ANSWER:
        _still(asker, deadline)
        chunk = asker.recv(1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def parse_answer(raw: bytes) -> tuple[dict | None, str]:
    """Return the JSON object of an HTTP answer, or None and the reason."""
    if len(raw) > _MAX_ANSWER:
        return None, f"the answer is longer than {_MAX_ANSWER} bytes"
    head = _HEAD.match(raw)
    if not head:
        return None, "the answer is not HTTP"
    if head.group(1) != b"200":
        return None, f"the engine answers with HTTP status {int(head.group(1))}"
    body = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)
    try:
        told = json.loads(body[1]) if len(body) == 2 else None
    except (ValueError, RecursionError):
        told = None
    return (told, "") if isinstance(told, dict) else (None, "the answer is no JSON object")
