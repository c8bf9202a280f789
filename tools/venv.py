# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes .venv with what pyproject.toml pins, and makes the working tree importable in it as the collection.

Usage: venv.py control|dev

A second call with nothing changed does nothing. A call that was cut off is noticed and done again from the start.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

# The first line of pip that reads [dependency-groups] is 25.1; this is the one tried with every supported Python.
PIP = "pip==26.3"
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / "unfinished"


def say(text: str) -> None:
    print(f"venv: {text}", flush=True)


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def fingerprint(group: str) -> str:
    """Changes when anything that the environment was made from does. Its own path is in every script it holds."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = groups["control"] if group == "control" else [groups["control"], groups["dev"]]
    made_from = [PIP, wanted, sys.version, sys.base_prefix, str(VENV)]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def stamp(group: str) -> Path:
    return VENV / f"installed-{group}"


def is_installed(group: str) -> bool:
    path = stamp(group)
    return path.exists() and path.read_text() == fingerprint(group) and PYTHON.exists() and not UNFINISHED.exists()


def site_packages() -> Path:
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def link_collection() -> None:
    """Ansible, pytest and the linters all look for collections in site-packages: one link serves them, with no copy."""
    link = site_packages() / "ansible_collections" / "baremetal" / "llm"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(ROOT, link.parent))


def create() -> None:
    say(f"making {VENV} with Python {sys.version.split()[0]} of {sys.base_prefix}")
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    UNFINISHED.touch()
    # Not sys.executable: that is the one just removed when this runs inside the environment itself.
    run(sys._base_executable, "-m", "venv", VENV)
    run(PYTHON, "-m", "pip", "install", "--quiet", PIP)


def install(group: str) -> None:
    UNFINISHED.touch()
    say(f"installing group {group} of pyproject.toml")
    run(PYTHON, "-m", "pip", "install", "--no-compile", f"--group={group}")
    # Compiling all the collections of the ansible package takes longer than all the rest, and a play uses few of them.
    # Some files are templates or samples that do not compile: no failure.
    subprocess.run(
        [PYTHON, "-m", "compileall", "-qq", "-j0", "-x", "/ansible_collections/", site_packages()], check=False
    )
    link_collection()
    for done in ("control", group):
        stamp(done).write_text(fingerprint(done))
    UNFINISHED.unlink()


def main(group: str) -> None:
    if is_installed(group):
        return
    started = time.monotonic()
    (ROOT / ".cache").mkdir(exist_ok=True)
    with open(ROOT / ".cache" / "venv.lock", "w") as lock:
        # Two calls at once: the second waits and finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed(group):
            return
        if not is_installed("control"):
            create()
        install(group)
    say(f"ready in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"error: {' '.join(error.cmd)}\n"
            "  wanted: status 0\n"
            f"  found: status {error.returncode}; what it printed is above\n"
            "  remedy: if no package index can be reached, name a mirror (PIP_INDEX_URL) or a folder of wheels\n"
            "          (PIP_NO_INDEX=1 PIP_FIND_LINKS=/path), then run the same command again"
        )
    except KeyboardInterrupt:
        sys.exit("venv: interrupted; the next call starts again")
