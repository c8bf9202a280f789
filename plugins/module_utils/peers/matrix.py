# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Joins what the probes of all hosts have found into one account of the group. Pure."""

from __future__ import annotations

from typing import Callable

NOBODY = "never tried to an end: the host was not probed, or its window was over before its peers came"


def merge(results_by_host: dict[str, dict]) -> dict:
    """Return what the results of peer_probe, by inventory name, tell together.

    ``connections`` holds every direction between two hosts that have a result or are named in one, on every port,
    exactly once; ``ok`` is None where nobody knows. ``clocks`` and ``paths`` are there once per direction that was
    measured, ``listening`` by host; ``device_pings``, ``not_probed`` and ``problems`` are all of all hosts.
    A result that is none, such as that of a host that failed, counts as empty.
    """
    results = {host: result if isinstance(result, dict) else {} for host, result in results_by_host.items()}
    connections = _all(results, "connections")
    listening = {host: result.get("listening") or [] for host, result in results.items()}
    return {
        "connections": _complete(by_pair(connections, ("from", "to", "port"), better), listening),
        "clocks": by_pair(_all(results, "clocks"), ("from", "to"), better),
        "paths": by_pair(_all(results, "paths"), ("from", "to"), better),
        "device_pings": _all(results, "device_pings"),
        "not_probed": _all(results, "not_probed"),
        "listening": listening,
        "problems": [f"{host}: {text}" for host in sorted(results) for text in results[host].get("problems") or []],
    }


def _all(results: dict[str, dict], key: str) -> list[dict]:
    return [entry for host in sorted(results) for entry in results[host].get(key) or []]


def _complete(connections: list[dict], listening: dict[str, list[dict]]) -> list[dict]:
    """Return the connections with those that nobody has tried."""
    hosts = set(listening) | {entry[end] for entry in connections for end in ("from", "to")}
    ports = {entry["port"] for entry in connections}
    known = {(entry["from"], entry["to"], entry["port"]): entry for entry in connections}
    for start in hosts:
        for end in hosts - {start}:
            for port in ports:
                missing = {"from": start, "to": end, "port": port, "ok": None, "reason": NOBODY, "ms": None}
                known.setdefault((start, end, port), missing)
    return [known[key] for key in sorted(known)]


def by_pair(entries: list[dict], keys: tuple[str, ...], choose: Callable[[dict, dict], dict]) -> list[dict]:
    """Return one entry per value of ``keys``, sorted by it; ``choose`` takes one of two."""
    kept: dict[tuple, dict] = {}
    for entry in entries:
        key = tuple(entry[name] for name in keys)
        kept[key] = choose(kept[key], entry) if key in kept else entry
    return [kept[key] for key in sorted(kept)]


def better(one: dict, other: dict) -> dict:
    """Return the finding that says more of two about the same thing.

    Of clocks that is the more certain one. Else a success says more than a failure, and a failure more than an attempt
    that found nobody; a success that had failed at another time keeps the reason of that failure.
    """
    if "uncertainty_s" in one:
        return min(one, other, key=lambda entry: (entry["uncertainty_s"], entry["offset_s"]))
    worse, best = sorted((one, other), key=_weight)
    if best["ok"] is True and worse["ok"] is False and not best["reason"]:
        return dict(best, reason=f"failed at another time: {worse['reason']}")
    return best


def _weight(entry: dict) -> tuple:
    # A success without a remark counts more than one with; the text decides between equals, so that order does not.
    return ({None: 0, False: 1, True: 2}[entry["ok"]], not entry["reason"], entry["reason"])
