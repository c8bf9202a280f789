# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-test's sanity tests on a copy of the tree, with what the package index gives and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from common import BIN, CACHE, ROOT, environment, fail, run, say, source_files

# ansible-test keeps its environments under the home folder. This one is the clone's own, and kept between runs.
HOME = CACHE / "ansible-test"
# The pip that each ansible-core puts into the environments it makes (get_venv_packages in ansible-test).
PIP_OF_CORE = {"2.19": "24.2", "2.20": "25.2", "2.21": "25.2"}
# What modules have to run on, and the newest that ansible-core knows.
PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
# Stands in for the script that ansible-test would download from its own file host, which few sites can reach.
GET_PIP = """\
import runpy
import sys

sys.path.insert(0, {wheel!r})
sys.argv[1:] = ["install", "--quiet", "--no-index", "--no-deps", {wheel!r}]
runpy.run_module("pip", run_name="__main__")
"""


def export_tree(tree: Path) -> None:
    for path in source_files():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target, follow_symlinks=False)


def provide_pip() -> None:
    core = ".".join(version("ansible-core").split(".")[:2])
    if core not in PIP_OF_CORE:
        fail(
            "no pip is known for this ansible-core",
            wanted=f"one of {', '.join(PIP_OF_CORE)}",
            found=core,
            remedy="add it to PIP_OF_CORE in tools/sanity.py",
        )
    pip = PIP_OF_CORE[core]
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    wheel = cache / f"pip-{pip}-py3-none-any.whl"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), f"pip=={pip}"]
    if not wheel.exists() and run(*download):
        sys.exit(f"error: pip {pip}, which ansible-test needs, could not be downloaded; what pip said is above")
    (cache / f"get_pip_{pip.replace('.', '_')}.py").write_text(GET_PIP.format(wheel=str(wheel)))
    # pip's settings (an index of the site, say) are read from the home folder.
    for settings in (".config/pip", ".pip"):
        there, here = Path.home() / settings, HOME / settings
        if there.is_dir() and not here.is_symlink():
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(there)


def python_folders() -> list[str]:
    """Folders of real Pythons. pyenv's launchers are found on PATH under every version's name and fail for most."""
    folders = [Path(sys.base_prefix) / "bin"]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        folders += sorted(Path(root).glob("versions/*/bin"))
    return [str(folder) for folder in folders]


def usable_pythons(path: str) -> list[str]:
    found = []
    for python in PYTHONS:
        command = shutil.which(f"python{python}", path=path)
        if command and subprocess.run([command, "-c", ""], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            found.append(python)
    return found


def main(arguments: list[str]) -> int:
    provide_pip()
    env = environment(HOME=str(HOME))
    env["PATH"] = os.pathsep.join([*python_folders(), env["PATH"]])
    found = usable_pythons(env["PATH"])
    absent = [python for python in PYTHONS if python not in found]
    say(f"with Python {', '.join(found)}" + (f"; not on this machine: {', '.join(absent)}" if absent else ""))
    with tempfile.TemporaryDirectory() as folder:
        # ansible-test takes a folder for a collection only where its path says so. And the path is outside the clone,
        # or ansible-test would ask the clone's git, which knows nothing of a copy.
        tree = Path(folder) / "ansible_collections" / "baremetal" / "llm"
        export_tree(tree)
        return run(BIN / "ansible-test", "sanity", "--local", *arguments, cwd=tree, env=env)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
