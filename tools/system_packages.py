# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees to the programs and libraries that come from the operating system and not from pyproject.toml.

Usage: system_packages.py PURPOSE, one of PURPOSES

As root on Debian or Ubuntu it installs what is missing; anywhere else it names it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

from common import environment, fail, run, say

# program, library, or module of the system's own Python: the Debian package that it comes from
PURPOSES = {
    # ansible-test's sanity tests call it
    "lint": {"shellcheck": "shellcheck"},
    # hosts made of network namespaces, each with its own sshd, and a firewall on some of them
    "hosts": {"ip": "iproute2", "sshd": "openssh-server", "iptables": "iptables"},
    # what shares weights where libtorrent cannot run
    "sharing": {"rsync": "rsync"},
    # what sharing is measured against
    "comparison": {"aria2c": "aria2"},
    # a real engine on each test host, what community.docker's modules import there, and what images are made of
    "docker": {
        "dockerd": "docker.io",
        "module:requests": "python3-requests",
        "libgomp.so.1": "libgomp1",
        "ps": "procps",
        "hostname": "hostname",
    },
    # vLLM's CPU build is linked against the one, and its packages are locked for the other
    "engine": {"libnuma.so.1": "libnuma1", "python3.11": "python3.11-venv"},
}
# Debian's Python comes without what makes environments: to be there is not enough.
PROBES = {"python3.11": ["-c", "import ensurepip, venv"]}
SYSTEM_PYTHON = "/usr/bin/python3"
# A user's PATH may lack the folders that daemons are in.
SEARCH = os.pathsep.join([environment()["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"])


def is_there(name: str) -> bool:
    kind, separator, module = name.partition(":")
    if separator:
        asked = [SYSTEM_PYTHON, "-c", f"import {module}"]
        return kind == "module" and subprocess.run(asked, capture_output=True, check=False).returncode == 0
    if ".so" not in name:
        return any(
            answers(path, name) for folder in SEARCH.split(os.pathsep) if (path := shutil.which(name, path=folder))
        )
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def answers(path: str, name: str) -> bool:
    """A name on PATH may be a launcher for a version that is not there."""
    if name not in PROBES:
        return True
    return subprocess.run([path, *PROBES[name]], capture_output=True, check=False).returncode == 0


def missing(purpose: str) -> dict[str, str]:
    return {name: package for name, package in PURPOSES[purpose].items() if not is_there(name)}


def main(purpose: str) -> None:
    wanted = missing(purpose)
    if not wanted:
        return
    packages = " ".join(wanted.values())
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {packages} with apt-get")
        apt = environment(DEBIAN_FRONTEND="noninteractive")
        # Another installation may be under way.
        wait = "-oDPkg::Lock::Timeout=300"
        run("apt-get", "update", "-qq", wait, env=apt)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", wait, *wanted.values(), env=apt)
        wanted = missing(purpose)
    if wanted:
        fail(
            f"what '{purpose}' needs of the operating system is not all there",
            wanted=", ".join(PURPOSES[purpose]),
            found=f"no {', '.join(wanted)}",
            remedy=f"as root, with Debian's names of the packages: apt-get install {packages}",
        )


if __name__ == "__main__":
    main(sys.argv[1])
