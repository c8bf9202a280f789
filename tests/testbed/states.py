# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""States of emulated hosts on the control side: reads the YAML files, and makes fleets out of them.

The emulators themselves read JSON, because the hosts that they run on have nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import copy
import ipaddress
import json
import sys
from pathlib import Path

import yaml

from .emulators.emulation import state as states

FOLDER = Path(__file__).resolve().parent / "states"


def names() -> list:
    """Return the names of the ready-made states, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def load(name: str | Path) -> dict:
    """Return the complete state in the YAML file `name`, or the ready-made state of that name; raise StateError."""
    path = FOLDER / f"{name}.yml" if str(name) in names() else Path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise states.StateError(f"{path}: {error}") from error
    if isinstance(content, dict):
        # Where a file keeps what its lines share.
        content.pop("shared", None)
    return states.validate(content)


def host(template: str | Path | dict, hostname: str = "", first_address: str = "", **changes) -> dict:
    """Return one host made from a template.

    :param template: a state, or what `load` takes
    :param hostname: name of the new host; the template's where it is empty
    :param first_address: address of its first device, 10.0.1.10; the others follow it. hccn.conf follows its device
    :param changes: what else differs, merged into the state key by key: `ascend={"compatibility": "NOK"}`
    """
    state = copy.deepcopy(template if isinstance(template, dict) else load(template))
    state = _merge(state, changes)
    if hostname:
        state["hostname"] = hostname
    if first_address:
        start = ipaddress.IPv4Address(first_address)
        for place, device in enumerate(state["ascend"]["network"]):
            device["ip"] = str(start + place)
            if device["conf"] is not None:
                device["conf"]["address"] = device["ip"]
    return states.validate(state)


def fleet(hosts: list) -> list:
    """Return the hosts with the addresses of all devices of all of them, so that pings between them are answered."""
    fabric = {}
    for state in hosts:
        for device in (state["ascend"] or {"network": []})["network"]:
            if device["ip"]:
                answers = device["link"] == "UP" if device["pings"] is None else device["pings"]
                fabric[device["ip"]] = {"reachable": answers, "lost": []}
            if device["vnic_ip"]:
                fabric[device["vnic_ip"]] = {"reachable": True, "lost": []}
    return [states.validate({**state, "fabric": copy.deepcopy(fabric)}) for state in hosts]


def _merge(old, new):
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}


def main() -> int:
    """Print a state as the JSON that the emulators read."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("state", help="name of a ready-made state, or a YAML file")
    try:
        print(json.dumps(load(parser.parse_args().state), indent=1))
    except states.StateError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
