# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what Linux tells of one host, by asking the readers of this package one after the other.

Everything comes from /proc, /sys, system calls and Docker's socket, so a bare host needs no package to be read. A part
that cannot be read leaves its value empty and adds a line to ``problems``; nothing here raises for the state of a host.
"""

from __future__ import annotations

import functools
import importlib.util
import os

from . import (
    clock,
    docker,
    kernel,
    memory,
    names,
    network,
    ports,
    processor,
    pythons,
    rdma,
    read_rate,
    routes,
    security,
    storage,
    weights,
)
from .source import Source

# What modules of other collections import on a host, with the Python that runs them: community.docker's.
PYTHON_MODULES = ("requests",)

_NO_CPU = {"model": "", "vendor": "", "cores": 0, "flags": [], "governors": []}
_NO_DOCKER = {"client": "", "socket": False, "engine": None, "reason": "", "images": {}}
_NO_KERNEL = {"release": "", "machine": "", "libc": "", "headers": False}


class HostReader:
    """Reads one host; ``problems`` collects what could not be read.

    :param timeout: seconds allowed for each program or service that is asked
    :param root: put before every path of /proc, /sys, /dev and /etc
    """

    def __init__(self, timeout: float = 10.0, root: str = "") -> None:
        self.source = Source(root, timeout)

    @property
    def problems(self) -> list[str]:
        """What could not be read, one sentence each."""
        return self.source.problems

    def read(
        self,
        paths: list[str],
        pythons_first: list[str],
        libraries: list[str] | None = None,
        *,
        peer: str = "",
        find_pythons: bool = False,
        rate: dict | None = None,
        images: list[str] | None = None,
        weights_in: list[str] | None = None,
    ) -> dict:
        """Return the facts of this host.

        :param paths: looked at in particular
        :param pythons_first: Pythons that are asked before those on the PATH
        :param libraries: sonames that the dynamic loader is asked for
        :param peer: address or name of another machine; the route is then the one to it
        :param find_pythons: ask the Pythons on the PATH also when none is given by path
        :param rate: {path, bytes, seconds} of a reading rate to measure
        :param images: container images that Docker Engine is asked for
        :param weights_in: folders in which the headers of weights are read, the first that has any
        """
        source, hostname = self.source, os.uname().nodename
        part, ask = source.part, functools.partial
        devices = part("rdma", ask(rdma.devices, source), [])
        interfaces = part("interfaces", ask(network.interfaces, source, rdma.by_interface(devices)), [])
        interface, address = self._route(peer, interfaces)
        return {
            "hostname": hostname,
            "hostname_addresses": part("hostname_addresses", ask(names.own_addresses, source, hostname), []),
            "user": {"uid": os.geteuid()},
            "os": part("os", ask(kernel.distribution, source), {"id": "", "version": "", "name": ""}),
            "kernel": part("kernel", ask(kernel.read, source), _NO_KERNEL),
            "sysctl": kernel.sysctl(source),
            "thp": kernel.thp(source),
            "selinux": security.selinux(source),
            "firewall": security.firewall(source),
            "cpu": part("cpu", ask(processor.read, source), _NO_CPU),
            "memory": part("memory", ask(memory.read, source), memory.EMPTY),
            "numa": part("numa", ask(memory.numa, source), {"nodes": 0, "memory_bytes": []}),
            "limits": memory.limits(),
            "interfaces": interfaces,
            "route_interface": interface,
            "route_source": address,
            "proxies": names.proxies(source),
            "ports_in_use": part("ports_in_use", ask(ports.read, source), []),
            "disks": part("disks", ask(storage.disks, source), []),
            "paths": storage.paths(source, paths),
            "read_rate": read_rate.measure(rate["path"], rate["bytes"], rate["seconds"]) if rate else None,
            "pythons": pythons.find(source, pythons_first) if pythons_first or find_pythons else [],
            "libraries": {name: pythons.loads(name) for name in libraries or []},
            "docker": part("docker", ask(docker.read, source, images or []), _NO_DOCKER),
            "python_modules": {name: importlib.util.find_spec(name) is not None for name in PYTHON_MODULES},
            "weights": weights.first(weights_in or []),
            "rdma": devices,
            "rdma_nodes": rdma.nodes(source),
            "clock": clock.read(),
            "problems": source.problems,
        }

    def _route(self, peer: str, interfaces: list[dict]) -> tuple[str, str]:
        """Return (interface, source address) of the route to ``peer``; without one of the default route, and empty."""
        if peer:
            return self.source.part("route", functools.partial(routes.to_peer, self.source, peer, interfaces), ("", ""))
        return self.source.part("route", functools.partial(routes.default_interface, self.source), ""), ""
