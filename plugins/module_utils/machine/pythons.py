# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pythons and shared libraries of a host."""

from __future__ import annotations

import ctypes
import json
import os

from .. import commands
from .source import Source

NAMES = ("python3.11", "python3.12", "python3.13", "python3", "python3.10", "python3.9")
_LONGEST_ANSWER = 1 << 16  # a path is at most 4096 bytes; more is not the answer that was asked for
_QUERY = (
    "import json, os, platform, sys\n"
    "try:\n    import ensurepip, venv\n    makes_venv = True\nexcept ImportError:\n    makes_venv = False\n"
    "path = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)\n"
    "print(json.dumps({'path': path, 'version': platform.python_version(),"
    " 'implementation': platform.python_implementation(), 'makes_venv': makes_venv}))\n"
)


def find(source: Source, preferred: list[str]) -> list[dict]:
    """Return the Pythons of this host that answer: {asked, path, version, implementation, makes_venv}.

    ``asked`` is the path that was called, ``path`` the interpreter behind it, outside any virtual environment.
    """
    asked: set[str] = set()
    found: dict[tuple[str, str], dict] = {}
    # Every folder of the PATH: the first of a name may be a launcher for a version that is not there.
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    candidates = [(name, os.path.join(folder, name)) for name in NAMES for folder in folders if folder]
    for name, path in [*((name, name) for name in preferred), *candidates]:
        if path in asked or (name != path and not os.path.exists(path)):
            continue
        asked.add(path)
        python, reason = _ask(path, source.timeout)
        if python:
            found.setdefault((path if name == path else "", python["path"]), dict(python, asked=path))
        elif name == path:
            source.problems.append(f"{path} is no Python that answers: {reason}")
    return list(found.values())


def _ask(path: str, timeout: float) -> tuple[dict | None, str]:
    try:
        answer = commands.run([path, "-I", "-c", _QUERY], timeout)
    except ValueError as error:  # a path that no program can have
        return None, str(error)
    python = python_of(answer.stdout) if answer.ok else None
    return python, answer.reason or answer.stderr.strip()[-200:] or f"it printed {answer.stdout[:80]!r}"


def python_of(answer: str) -> dict | None:
    """Return what a Python told of itself, None for anything else, such as what a wrapper prints."""
    kinds = {"path": str, "version": str, "implementation": str, "makes_venv": bool}
    try:
        told = json.loads(answer) if len(answer) <= _LONGEST_ANSWER else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not all(isinstance(told.get(key), kind) for key, kind in kinds.items()):
        return None
    return {key: told[key] for key in kinds}


def loads(name: str) -> bool:
    """True when the dynamic loader finds the shared library."""
    try:
        ctypes.CDLL(name)
    except (OSError, ValueError):
        return False
    return True
