# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""RDMA devices of a host, by what the kernel tells in /sys."""

from __future__ import annotations

import re

from .source import Source

_DEVICES = "/sys/class/infiniband"
_MAX_GIDS = 256  # the largest table in use (mlx5); it is filled from the start
_GAP = 32  # empty entries after which the rest of a table is taken to be empty
_GID = re.compile(r"[0-9a-f]{4}(:[0-9a-f]{4}){7}")
_NO_GID = ":".join(["0000"] * 8)


def devices(source: Source) -> list[dict]:
    """Return the RDMA devices {name, netdevs[], ports[]} that the kernel knows.

    ``netdevs`` are the network interfaces of the device itself and those that its GIDs belong to (bonds, VLANs).
    """
    return [_device(source, name) for name in source.names(_DEVICES)]


def nodes(source: Source) -> list[str]:
    """Return the names under /dev/infiniband, which programs open to use RDMA."""
    return source.names("/dev/infiniband")


def by_interface(found: list[dict]) -> dict[str, list[str]]:
    """Return {name of a network interface: names of the RDMA devices on it}."""
    names: dict[str, list[str]] = {}
    for device in found:
        for netdev in device["netdevs"]:
            names.setdefault(netdev, []).append(device["name"])
    return names


def _device(source: Source, name: str) -> dict:
    folder = f"{_DEVICES}/{name}"
    ports = [_port(source, f"{folder}/ports/{port}", port) for port in source.names(f"{folder}/ports")]
    owners = {gid["netdev"] for port in ports for gid in port["gids"]}
    return {
        "name": name,
        "netdevs": sorted({*source.names(f"{folder}/device/net"), *owners} - {""}),
        "ports": ports,
    }


def _port(source: Source, folder: str, number: str) -> dict:
    values = {key: source.attribute(f"{folder}/{key}") for key in ("state", "phys_state", "link_layer", "rate")}
    return {"port": number, **values, "gids": _gids(source, folder)}


def _gids(source: Source, folder: str) -> list[dict]:
    found = []
    there = set(source.names(f"{folder}/gids"))
    last = -1
    for index in range(min(_MAX_GIDS, len(there))):
        gid = source.attribute(f"{folder}/gids/{index}")
        if not _GID.fullmatch(gid) or gid == _NO_GID:
            if index - last > _GAP:
                break
            continue
        last = index
        found.append(
            {
                "index": index,
                "gid": gid,
                "type": source.attribute(f"{folder}/gid_attrs/types/{index}"),
                "netdev": source.attribute(f"{folder}/gid_attrs/ndevs/{index}"),
            }
        )
    return found
