# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Program that brings up, lists, looks at and takes down test hosts. FLEET.md says how they work.

    fleet.py up --fleet fleet.yml --dir DIR
    fleet.py list --dir DIR
    fleet.py snapshot --dir DIR [HOST ...]
    fleet.py crash --dir DIR HOST ...
    fleet.py reboot --dir DIR HOST ...
    fleet.py down --dir DIR

As a library: put this folder on the import path and `import fleet`, which is the folder of that name.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

import fleet


def main() -> int:
    arguments = _parse()
    # A run that is told to end must take down what it has begun.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return arguments.action(arguments)
    except fleet.FleetError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Test hosts with a real sshd on this machine.")
    actions = parser.add_subparsers(required=True)
    verbs = {"up": _up, "down": _down, "list": _list, "snapshot": _snapshot, "crash": _crash, "reboot": _reboot}
    for name, action in verbs.items():
        one = actions.add_parser(name)
        one.add_argument("--dir", required=True, help="folder of the fleet: inventory, keys, logs and the hosts' files")
        one.set_defaults(action=action)
        if name == "up":
            one.add_argument("--fleet", required=True, help="description of the fleet, YAML")
        if name == "snapshot":
            one.add_argument("hosts", nargs="*", help="hosts to look at; all without")
        if name in ("crash", "reboot"):
            one.add_argument(
                "hosts", nargs="+", help="hosts to end at once" + ("" if name == "crash" else " and to boot")
            )
    return parser.parse_args()


def _up(arguments: argparse.Namespace) -> int:
    begin = time.monotonic()
    record = fleet.up(arguments.fleet, arguments.dir)
    took = f"up in {time.monotonic() - begin:.1f} s" if record["changed"] else "was up"
    print(f"{len(record['hosts'])} hosts: {took}; inventory {arguments.dir}/inventory.yml")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    print("down" if fleet.down(arguments.dir) else "nothing was up")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for name, host in fleet.hosts(arguments.dir).items():
        print(f"{name} {host['address']} {host['netns']} {'up' if host['up'] else 'dead'}")
    return 0


def _snapshot(arguments: argparse.Namespace) -> int:
    json.dump({host["name"]: fleet.snapshot(host) for host in _named(arguments)}, sys.stdout, indent=2)
    print()
    return 0


def _crash(arguments: argparse.Namespace) -> int:
    for host in _named(arguments):
        fleet.crash(host)
        print(f"{host['name']} has crashed")
    return 0


def _reboot(arguments: argparse.Namespace) -> int:
    for host in _named(arguments):
        begin = time.monotonic()
        fleet.reboot(host)
        print(f"{host['name']} is up again after {time.monotonic() - begin:.1f} s")
    return 0


def _named(arguments: argparse.Namespace) -> list[dict]:
    found = fleet.hosts(arguments.dir)
    unknown = [name for name in arguments.hosts if name not in found]
    if unknown:
        raise fleet.FleetError(f"the fleet has no host {', '.join(unknown)}")
    return [found[name] for name in arguments.hosts or found]


def _interrupt(_number: int, _frame: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
