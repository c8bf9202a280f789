# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded changes of a model's JSON files: the lock holds the digest as published and the digest as changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Callable

from ..errors import LlmError

# Of a configuration file that a patch changes; the largest published ones have some hundred kilobytes.
MOST_PATCHED_BYTES = 16 << 20


def plan(lock: dict, path: str, changes: dict, content: bytes) -> dict:
    """Return the entry of ``path`` in ``lock`` with a record of what ``changes`` make of it.

    :param changes: keys of the JSON object and their new values, such as {"torch_dtype": "float16"}
    :param content: the file as published
    :return: the entry; without a patch where the file has those values already
    :raises LlmError: the lock names no such file, or ``content`` is not it
    """
    entry = next((entry for entry in lock["files"] if entry["path"] == path), None)
    if entry is None:
        raise LlmError(
            f"the lock names no {path} to change",
            wanted=path,
            found=f"{len(lock['files'])} other files",
            remedy="lock the whole repository",
        )
    prove(path, content, entry)
    plain = {key: value for key, value in entry.items() if key != "patched"}
    data = _json_object(path, content)
    if json.dumps({**data, **changes}) == json.dumps(data):
        return plain
    result = patched(path, content, changes)
    record = {"set": changes, "size": len(result), "sha256": hashlib.sha256(result).hexdigest()}
    return {**plain, "patched": record}


def patched(path: str, content: bytes, changes: dict) -> bytes:
    """Return the changed file, the same bytes on every host: keys in their order, new ones last, indented by 2."""
    return (json.dumps({**_json_object(path, content), **changes}, indent=2) + "\n").encode()


def _json_object(path: str, content: bytes) -> dict:
    try:
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise LlmError(
            f"{path} cannot be changed", wanted="a JSON object", found="something else", remedy="lock another revision"
        )
    return data


def prove(path: str, content: bytes, wanted: dict) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != wanted["sha256"]:
        raise LlmError(
            f"{path} is not as locked",
            wanted=f"SHA-256 {wanted['sha256']}",
            found=f"SHA-256 {found}",
            remedy="fetch it again, or make the lock again",
        )


def complete(
    lock: dict, changes: dict[str, dict], places: Callable[[dict], list[str]], bring: Callable[[dict], str]
) -> dict:
    """Return ``lock`` with a record of each of ``changes`` {path: {key: value}} that it does not have yet.

    :param places: function of an entry that gives paths where its bytes as published may lie
    :param bring: function of an entry that brings them, and gives the path; empty when that cannot be done now
    :raises LlmError: the lock names no such file, it cannot be brought, or it is no JSON object
    """
    files = {entry["path"]: entry for entry in lock["files"]}
    for path, wanted in sorted(changes.items()):
        entry = files.get(path)
        if entry and entry.get("patched", {}).get("set") == wanted:
            continue
        content = _content(entry, places, bring) if entry else b""
        if content is not None:
            files[path] = plan(lock, path, wanted, content)
    return dict(lock, files=[files[path] for path in sorted(files)])


def _content(entry: dict, places: Callable[[dict], list[str]], bring: Callable[[dict], str]) -> bytes | None:
    for path in places(entry):
        content = _read(path, entry)
        if content is not None:
            return content
    brought = bring(entry)
    return _read(brought, entry) if brought else None


def _read(path: str, entry: dict) -> bytes | None:
    """Return the bytes at ``path`` when they are those of ``entry`` as published."""
    with contextlib.suppress(OSError):
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            content = stream.read(MOST_PATCHED_BYTES)
        if hashlib.sha256(content).hexdigest() == entry["sha256"]:
            return content
    return None
