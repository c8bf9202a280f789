# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pings the network devices of Ascend NPUs on other hosts from those of this one, with hccn_tool.

Devices of one host ping at the same time, each of them one address after another. What the deadline leaves no time for
is listed as not probed.
"""

from __future__ import annotations

import ipaddress
import os
import threading
import time

from .. import commands
from ..ascend import hccn

PACKETS = 3
# Three packets that are all lost take the tool about 3 s; one that hangs must leave time for others.
PING_S = 5.0
BUSY_TRIES = 3  # the tool serves one caller at a time
BUSY_PAUSE_S = 0.2
MOST_DEVICES = 64  # of a host; the largest known one has 16
_OPTIONS = {"roce": "-ping", "hccs": "-hccs_ping"}


def pairs(settings: dict) -> tuple[list[list[dict]], list[str]]:
    """Return what each device of this host is to ping, in this order, and what is wrong with the settings.

    ``full``: every device of every other host. ``ring``: the device of the same index on the next host of the ring and
    the one after it there, then the same index on all other hosts. Indexes are positions in the lists as given.
    """
    problems: list[str] = []
    if settings["device_pattern"] == "none" or not settings["devices"]:
        return [], problems
    host = settings["host"]
    own = _checked(host, settings["devices"], problems)
    theirs = settings["peer_devices"]
    remote = {name: _checked(name, theirs[name], problems) for name in theirs if name != host}
    wanted = []
    for index, device in enumerate(own):
        if settings["device_pattern"] == "full":
            targets = [(name, target) for name in _others(settings, remote) for target in remote[name]]
        else:
            targets = _ring_targets(_others(settings, remote), remote, index, len(own), problems)
        wanted.append(
            [
                {
                    "from": host,
                    "to": name,
                    "from_phy_id": device["phy_id"],
                    "to_phy_id": target["phy_id"],
                    "to_ip": target["ip"],
                }
                for name, target in targets
            ]
        )
    return wanted, list(dict.fromkeys(problems))


def _others(settings: dict, remote: dict) -> list[str]:
    """Return the hosts with devices, from the one that follows this host in the ring."""
    order = list(dict.fromkeys([*settings["ring"], *remote]))
    start = order.index(settings["host"]) + 1 if settings["host"] in order else 0
    return [name for name in order[start:] + order[:start] if name in remote]


def _ring_targets(others: list[str], remote: dict, index: int, count: int, problems: list[str]) -> list[tuple]:
    targets = []
    for place, name in enumerate(others):
        devices = remote[name]
        if len(devices) != count:
            problems.append(f"{name} has {len(devices)} network devices, this host has {count}")
        if index < len(devices):
            targets.append((name, devices[index]))
        if place == 0 and len(devices) > 1:
            targets.insert(1, (name, devices[(index + 1) % len(devices)]))
    return targets


def _checked(host: str, devices: object, problems: list[str]) -> list[dict]:
    """Return the devices {phy_id, ip} that can be pinged by these."""
    kept = []
    for device in devices[:MOST_DEVICES] if isinstance(devices, list) else []:
        try:
            address = ipaddress.ip_address(str(device["ip"]))
            kept.append({"phy_id": int(device["phy_id"]), "ip": str(address)})
        except (KeyError, TypeError, ValueError):
            problems.append(f"a network device of {host} has no address and physical id: {str(device)[:80]}")
    if not kept:
        problems.append(f"{host} has no network device that can be pinged")
    return kept


def ping_devices(settings: dict, end: float) -> dict:
    """Ping until ``end`` of the monotonic clock; return {device_pings, not_probed, problems}.

    ``settings``: host, devices, peer_devices, ring, device_pattern, device_ping, hccn_tool; see the module peer_probe.
    """
    wanted, problems = pairs(settings)
    done: list[list[dict]] = [[] for _device in wanted]
    threads = [
        threading.Thread(target=_ping_from, args=(settings, targets, end, found), daemon=True)
        for targets, found in zip(wanted, done)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "device_pings": [ping for found in done for ping in found],
        "not_probed": [pair for targets, found in zip(wanted, done) for pair in targets[len(found) :]],
        "problems": problems,
    }


def _ping_from(settings: dict, targets: list[dict], end: float, found: list[dict]) -> None:
    for pair in targets:
        if end - time.monotonic() <= 0:
            return
        found.append({**pair, **_ping(settings, pair, end)})


def _ping(settings: dict, pair: dict, end: float) -> dict:
    """Return {sent, received, reason} of one ping; both counts are None where they are not known."""
    tool = settings["hccn_tool"]
    argv = [tool, "-i", str(pair["from_phy_id"]), _OPTIONS[settings["device_ping"]], "-g"]
    argv += ["address", pair["to_ip"], "pkt", str(PACKETS)]
    for _attempt in range(BUSY_TRIES):
        outcome = commands.run(argv, max(0.1, min(PING_S, end - time.monotonic())), env=_environment(tool))
        text = f"{outcome.stdout}\n{outcome.stderr}"
        known = hccn.failure(text)
        if not known or known["kind"] != "busy" or end - time.monotonic() < 2 * BUSY_PAUSE_S:
            break
        time.sleep(BUSY_PAUSE_S)
    if outcome.code is None:
        return {"sent": None, "received": None, "reason": f"hccn_tool {outcome.reason}"}
    # Its standard output alone where that tells: warnings of the driver may stand in the other one.
    counted = hccn.ping(outcome.stdout)
    if counted["sent"] is None:
        counted = hccn.ping(text)
    if counted["sent"] is None and outcome.code:
        counted["reason"] += f" (status {outcome.code})"
    return counted


def _environment(tool: str) -> dict[str, str]:
    """Return the environment in which hccn_tool finds the libraries of its driver, two folders above it."""
    driver = os.path.dirname(os.path.dirname(os.path.abspath(tool)))
    libraries = [f"{driver}/{part}" for part in ("lib64/common", "lib64/driver", "lib64")]
    there = os.environ.get("LD_LIBRARY_PATH", "")
    return dict(os.environ, LD_LIBRARY_PATH=":".join([*libraries, there] if there else libraries))
