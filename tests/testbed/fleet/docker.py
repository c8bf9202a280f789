# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Docker Engine on a host of its own: how it is started, how one knows that it answers, and what it leaves."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import time
from pathlib import Path

from .errors import FleetError
from .programs import run
from .within import ENVIRONMENT, is_up

PROGRAMS = ("dockerd", "containerd", "runc")
DATA = "/var/lib/docker"
SETTINGS = "/etc/docker"
SOCKET = "/run/docker.sock"
# What of an engine's data is images, and how it is copied.
IMAGES = {"image": "-a", "overlay2": "-al"}
COPIED_WITHIN_S = 300
# As the engine's own packages make it.
DATA_MODE = 0o710
CGROUPS = Path("/sys/fs/cgroup")
# One folder for all fleets, so that nobody's group is ever taken for one of theirs.
PARENT = "baremetal-llm-testbed"
# An idle machine needs 0.5 s; one that also brings back containers after a reboot needs more.
ANSWERS_WITHIN_S = 90
GONE_WITHIN_S = 20


def argv(fleet_name: str, host: str) -> list[str]:
    """Return the command line of the engine of ``host``.

    Containers share the host's network, or have none: the engine leaves addresses, routes and firewall alone. Groups of
    processes are the machine's, so that each engine needs a folder of its own among them.
    """
    return [
        str(shutil.which("dockerd", path=ENVIRONMENT["PATH"])),
        f"--host=unix://{SOCKET}",
        f"--data-root={DATA}",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        f"--cgroup-parent=/{PARENT}/{fleet_name}-{host}",
    ]


def take_images(images: Path, data: Path) -> None:
    """Give the engine whose data will be in ``data`` the images of ``images``, the data of one without containers.

    Layers are only ever read, so that links do, which takes seconds for gigabytes; descriptions are copied.
    """
    if not all((images / part).is_dir() for part in IMAGES):
        raise FleetError(f"{images} holds no images of a Docker Engine with overlay2")
    for part, how in IMAGES.items():
        run(["cp", how, str(images / part), str(data / part)], timeout=COPIED_WITHIN_S)


def wait(host: dict) -> None:
    """Return when the engine of ``host``, an entry of fleet.json, answers; raise FleetError with its last words."""
    end = time.monotonic() + ANSWERS_WITHIN_S
    while is_up(host) and time.monotonic() < end:
        if answers(host):
            return
        time.sleep(0.05)
    words = Path(host["docker_log"]).read_text(encoding="utf-8", errors="replace")[-2000:].strip()
    raise FleetError(f"the Docker Engine of {host['name']} does not answer within {ANSWERS_WITHIN_S} s: {words}")


def remove_cgroups(fleet_name: str) -> None:
    """Remove the groups that the engines of the fleet have made, in every hierarchy. No process may be left."""
    end = time.monotonic() + GONE_WITHIN_S
    for parent in _parents():
        for group in parent.glob(f"{fleet_name}-*"):
            _remove_tree(group, end)
        # Another fleet may have its own in there, or be about to.
        with contextlib.suppress(OSError):
            parent.rmdir()


def cgroups(fleet_name: str) -> list[str]:
    """Paths of the groups that there are of the fleet."""
    return sorted(str(group) for parent in _parents() for group in parent.glob(f"{fleet_name}-*"))


def _parents() -> list[Path]:
    """Version 1 has a folder for each controller, version 2 none (cgroups(7))."""
    return [path for path in (CGROUPS / PARENT, *CGROUPS.glob(f"*/{PARENT}")) if path.is_dir()]


def _remove_tree(group: Path, end: float) -> None:
    for folder, _folders, _files in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                break
            except OSError as error:
                # The kernel takes killed processes out of a group in its own time.
                if time.monotonic() > end:
                    raise FleetError(f"the group {folder} cannot be removed: {error}") from error
                time.sleep(0.02)
            else:
                break


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def answers(host: dict) -> bool:
    """True when the engine of ``host`` answers; asked through the process 1, whose root is the host's."""
    connection = _Connection(f"/proc/{host['pid']}/root{SOCKET}")
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
