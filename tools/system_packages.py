# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees to the programs and libraries that come from the operating system and not from pyproject.toml.

Usage: system_packages.py lint|hosts|engine

As root on Debian or Ubuntu it installs what is missing; anywhere else it names it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys

from common import environment, fail, run, say

# program or library: the Debian package that it comes from
PURPOSES = {
    # ansible-test's sanity tests call it
    "lint": {"shellcheck": "shellcheck"},
    # hosts made of network namespaces, each with its own sshd
    "hosts": {"ip": "iproute2", "sshd": "openssh-server"},
    # vLLM's CPU build is linked against it
    "engine": {"libnuma.so.1": "libnuma1"},
}
# A user's PATH may lack the folders that daemons are in.
SEARCH = os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"])


def is_there(name: str) -> bool:
    if ".so" not in name:
        return shutil.which(name, path=SEARCH) is not None
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


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
