# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes a virtual environment from a list of requirements with digests, and knows whether it is whole."""

from __future__ import annotations

import hashlib
import os
import shutil

from .. import atomic, commands
from ..errors import LlmError

MARKER = ".baremetal-llm.json"
FORMAT = 1


def digest(python: str, requirements: str) -> str:
    """Return what identifies the content of an environment: its base Python and every pinned file."""
    return hashlib.sha256(f"{FORMAT}\n{python}\n{requirements}".encode()).hexdigest()


def is_whole(path: str, wanted: str) -> bool:
    """True when ``path`` was made by this collection to its end, from the content ``wanted`` (a digest)."""
    marker = atomic.read_json(os.path.join(path, MARKER)) or {}
    return marker.get("digest") == wanted and marker.get("complete") is True and os.path.exists(f"{path}/bin/python")


def make(path: str, python: str, requirements: str, pip_arguments: list[str], timeout: float) -> None:
    """Make the environment at ``path``; what an earlier run left unfinished there is made anew.

    The marker is written first (unfinished) and last (complete), so a run that was cut off is recognised.

    :raises LlmError: when the folder is not ours, the base Python cannot make environments, or pip fails
    """
    _claim(path)
    marker = {"format": FORMAT, "digest": digest(python, requirements), "complete": False}
    os.makedirs(path, mode=0o750)
    atomic.write_json(os.path.join(path, MARKER), marker, 0o640)
    made = commands.run([python, "-I", "-m", "venv", path], 120)
    if not made.ok:
        raise LlmError(
            f"{python} cannot make a virtual environment",
            wanted="a Python with the modules venv and ensurepip",
            found=_last(made),
            remedy="install it (Debian: apt-get install python3-venv), or set llm_engine_python",
        )
    listing = os.path.join(path, "requirements.txt")
    atomic.write_text(listing, requirements, 0o640)
    # Bytecode is left to the first start: compiling all of it takes as long as the rest of the installation.
    base = [f"{path}/bin/python", "-m", "pip", "install", "--no-input", "--no-compile", "--disable-pip-version-check"]
    installed = commands.run([*base, "--no-deps", "--require-hashes", *pip_arguments, "-r", listing], timeout)
    if not installed.ok:
        raise LlmError(
            "the engine's packages could not be installed",
            wanted=f"every package of {listing} with the digest it names",
            found=_last(installed),
            remedy="give pip a package index that has them (llm_engine_index or pip's own configuration), "
            "or a folder with the files (llm_engine_wheelhouse)",
        )
    atomic.write_json(os.path.join(path, MARKER), dict(marker, complete=True), 0o640)


def _claim(path: str) -> None:
    if os.path.lexists(path):
        if not is_ours(path) and not _is_empty(path):
            raise LlmError(
                f"{path} is there and was not made by this collection",
                wanted="a free path, or an environment with our marker",
                found="something else",
                remedy="move it away, or set llm_state_dir to another folder",
            )
        shutil.rmtree(path)


def _is_empty(path: str) -> bool:
    """A run cut off before its first file leaves an empty folder."""
    return os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path)


def is_ours(path: str) -> bool:
    """True when this collection made ``path``, wholly or in part."""
    return not os.path.islink(path) and atomic.read_json(os.path.join(path, MARKER)) is not None


def _last(outcome: commands.Outcome) -> str:
    lines = [line for line in (outcome.stderr + outcome.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (outcome.reason or " ".join((errors or lines)[-3:]) or f"exit status {outcome.code}")[-600:]
