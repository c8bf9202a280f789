# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the description of a fleet and refuses whatever could touch something that is not the fleet's own.

The result is plain data: every default filled in, every name checked.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path, PurePosixPath

import yaml

from .errors import FleetError

# The name begins the names of namespaces and interfaces. Linux ends interface names at 15 characters.
FLEET_NAME = re.compile(r"[a-z0-9]{1,6}")
# A DNS label: the name is a path component, a namespace and a host name.
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
INTERFACE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What stays printable and unquoted in an ssh option, in an inventory and in a mount option.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+@=-]*")

TEST_NETWORKS = ipaddress.ip_network("10.0.0.0/8")
# 68 is the least of IPv4 (RFC 791), 65535 the most that a veth takes.
MTU_RANGE = (68, 65535)
# The name of the switch's namespace; no host may be called so.
SWITCH = "sw"
# What `mount -o size=` takes: a number, and what it is multiplied by (tmpfs(5)).
SIZE = re.compile(r"[1-9][0-9]{0,11}[kmgtKMGT]?")
# Folders of a host that others are mounted on or that start empty at every boot.
NO_DISKS = ("/", "/dev", "/proc", "/sys", "/run", "/tmp", "/var/run")

_FLEET_KEYS = {"name", "network", "mtu", "hosts", "groups", "vars"}
_HOST_KEYS = {
    "address",
    "state",
    "files",
    "interfaces",
    "eth0",
    "hostname",
    "hosts_file",
    "commands_after",
    "disks",
    "docker",
    "docker_images",
    "vars",
}
_INTERFACE_KEYS = {"name", "address", "mtu", "bridge_mtu", "down"}
_GROUP_KEYS = {"hosts", "children", "vars"}


def load(path: str | Path) -> dict:
    """Return the checked description in the YAML file ``path``; paths of states in it are relative to that file."""
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FleetError(f"the description {path} cannot be read: {error}") from error
    return check(raw, path.resolve().parent)


def check(raw: object, folder: Path) -> dict:
    """Return ``raw`` with every default filled in; raise FleetError for what is not allowed in it."""
    raw = _mapping(raw, "the fleet", _FLEET_KEYS)
    name = _name(raw.get("name"), FLEET_NAME, "the fleet's name (1 to 6 lower-case letters and digits)")
    network = _network(raw.get("network"))
    mtu = _mtu(raw.get("mtu", 1500), "mtu of the fleet")
    hosts = {}
    for host, given in _mapping(raw.get("hosts"), "hosts").items():
        _name(host, HOST_NAME, "a host's name (lower-case letters, digits and dashes)")
        if host == SWITCH:
            raise FleetError(f"no host can be called {SWITCH}: that is the switch's name")
        hosts[host] = _host(host, given, network, mtu, folder)
    if not hosts:
        raise FleetError("the fleet has no hosts")
    _no_address_twice(hosts, network)
    return {
        "name": name,
        "network": str(network),
        "gateway": str(network[254]),
        "mtu": mtu,
        "hosts": hosts,
        "groups": _groups(raw.get("groups", {}), hosts),
        "vars": _mapping(raw.get("vars", {}), "vars of the fleet"),
    }


def check_folder(folder: str | Path) -> Path:
    """Return the absolute path of a fleet's folder; raise FleetError where ssh or a mount would need quotes for it."""
    path = Path(folder).resolve()
    if not PLAIN_PATH.fullmatch(str(path)) or path == Path("/"):
        raise FleetError(f"the folder {path} cannot hold a fleet: use letters, digits and /_.+@=- only")
    return path


def _host(host: str, given: object, network: ipaddress.IPv4Network, mtu: int, folder: Path) -> dict:
    given = _mapping(given, f"host {host}", _HOST_KEYS)
    eth0 = _mapping(given.get("eth0", {}), f"eth0 of {host}", {"name", "mtu", "bridge_mtu"})
    first = {**eth0, "name": eth0.get("name", "eth0"), "address": f"{_address(given.get('address'), network, host)}/24"}
    extra = given.get("interfaces", [])
    if not isinstance(extra, list):
        raise FleetError(f"interfaces of {host} is not a list")
    interfaces = [_interface(host, one, mtu) for one in [first, *extra]]
    names = [interface["name"] for interface in interfaces]
    if len(set(names)) < len(names) or "lo" in names:
        raise FleetError(f"{host} has two interfaces of one name: {', '.join(['lo', *names])}")
    return {
        "address": interfaces[0]["address"].split("/")[0],
        "interfaces": interfaces,
        "hostname": _name(given.get("hostname", host), re.compile(r"[A-Za-z0-9.-]{1,64}"), f"hostname of {host}"),
        "hosts_file": _lines(given.get("hosts_file", []), f"hosts_file of {host}"),
        "files": {path: _file(path, content) for path, content in _mapping(given.get("files", {}), "files").items()},
        "state": _state(given.get("state"), host, folder),
        "commands_after": _commands(given.get("commands_after", []), host),
        "disks": _disks(given.get("disks", {}), host),
        "docker": _flag(given.get("docker", False), f"docker of {host}"),
        "docker_images": _images(given.get("docker_images", ""), given, host),
        "vars": _mapping(given.get("vars", {}), f"vars of {host}"),
    }


def _interface(host: str, given: object, mtu: int) -> dict:
    given = _mapping(given, f"an interface of {host}", _INTERFACE_KEYS)
    name = _name(given.get("name"), INTERFACE_NAME, f"the name of an interface of {host}")
    own = _mtu(given.get("mtu", mtu), f"mtu of {name} of {host}")
    address = given.get("address", "")
    if address:
        try:
            parsed = ipaddress.ip_interface(address if "/" in str(address) else f"{address}/24")
        except ValueError as error:
            raise FleetError(f"the address of {name} of {host} is none: {error}") from error
        if parsed.version != 4 or not parsed.ip.is_private or parsed.ip.is_loopback:
            raise FleetError(f"the address {address} of {name} of {host} is not a private IPv4 address")
        address = str(parsed)
    return {
        "name": name,
        "address": address,
        "mtu": own,
        "bridge_mtu": _mtu(given.get("bridge_mtu", own), f"bridge_mtu of {name} of {host}"),
        "down": bool(given.get("down", False)),
    }


def _file(path: object, given: object) -> dict:
    """Content of one file of a host: {content, mode} or {link}."""
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or path.endswith("/"):
        raise FleetError(f"the path of a file of a host must be absolute and plain: {path!r}")
    if isinstance(given, str):
        given = {"content": given}
    given = _mapping(given, f"the file {path}", {"content", "mode", "link"})
    if "link" in given:
        return {"link": str(given["link"])}
    mode = given.get("mode", 0o644)
    try:
        mode = int(mode, 8) if isinstance(mode, str) else int(mode)
    except (TypeError, ValueError) as error:
        raise FleetError(f"the mode of {path} is none: {mode!r}") from error
    if not isinstance(given.get("content", ""), str) or not 0 <= mode <= 0o7777:
        raise FleetError(f"the file {path} needs a text as content and a mode such as '0644'")
    return {"content": given.get("content", ""), "mode": mode}


def _state(given: object, host: str, folder: Path) -> dict | None:
    if given is None or isinstance(given, dict):
        return given
    if not isinstance(given, str):
        raise FleetError(f"the state of {host} is neither a path nor a mapping")
    try:
        state = yaml.safe_load((folder / given).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FleetError(f"the state of {host} cannot be read: {error}") from error
    state = _mapping(state, f"the state of {host}")
    # Where a file of a state keeps what its lines share.
    return {key: value for key, value in state.items() if key != "shared"}


def _disks(given: object, host: str) -> dict[str, str]:
    disks = {}
    for path, size in _mapping(given, f"disks of {host}").items():
        if not isinstance(path, str) or not PLAIN_PATH.fullmatch(path) or str(PurePosixPath(path)) != path:
            raise FleetError(f"the disk {path!r} of {host} needs an absolute and plain path")
        if path in NO_DISKS or path.startswith(("/dev/", "/proc/", "/sys/")) or ".." in path.split("/"):
            raise FleetError(f"a disk of {host} cannot be at {path}")
        if not isinstance(size, (str, int)) or not SIZE.fullmatch(str(size)):
            raise FleetError(f"the size of the disk {path} of {host} is none: {size!r}")
        disks[path] = str(size)
    return dict(sorted(disks.items()))


def _images(path: object, given: dict, host: str) -> str:
    """Return the folder with what the engine has from the start; a disk of memory cannot have links to it."""
    if path == "":
        return ""
    if not isinstance(path, str) or not PLAIN_PATH.fullmatch(path):
        raise FleetError(f"docker_images of {host} is not an absolute and plain path: {path!r}")
    if given.get("docker") is not True or "/var/lib/docker" in given.get("disks", {}):
        raise FleetError(f"docker_images of {host} needs docker: true and no disk at /var/lib/docker")
    return path


def _flag(given: object, what: str) -> bool:
    if not isinstance(given, bool):
        raise FleetError(f"{what} is neither true nor false: {given!r}")
    return given


def _commands(given: object, host: str) -> list[list[str]]:
    good = isinstance(given, list) and all(
        isinstance(argv, list) and argv and all(isinstance(word, (str, int)) for word in argv) for argv in given
    )
    if not good:
        raise FleetError(f"commands_after of {host} is not a list of argument lists")
    return [[str(word) for word in argv] for argv in given]


def _groups(given: object, hosts: dict) -> dict:
    groups = {}
    for name, group in _mapping(given, "groups").items():
        _name(name, GROUP_NAME, "the name of a group")
        if name in ("all", "ungrouped") or name in hosts:
            raise FleetError(f"no group can be called {name}")
        group = _mapping({"hosts": group} if isinstance(group, list) else group, f"group {name}", _GROUP_KEYS)
        members, children = group.get("hosts", []), group.get("children", [])
        strangers = [host for host in members if host not in hosts] + [one for one in children if one not in given]
        if strangers:
            raise FleetError(f"group {name} names {', '.join(map(str, strangers))}, which the fleet does not have")
        groups[name] = {
            "hosts": list(members),
            "children": list(children),
            "vars": _mapping(group.get("vars", {}), f"vars of group {name}"),
        }
    return groups


def _no_address_twice(hosts: dict, network: ipaddress.IPv4Network) -> None:
    seen = {str(network[254]): "the machine itself"}
    for host, one in hosts.items():
        for interface in one["interfaces"]:
            address = interface["address"].split("/")[0]
            if address in seen:
                raise FleetError(f"{host} and {seen[address]} have the same address {address}")
            if address:
                seen[address] = host


def _network(given: object) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(given)
    except (ValueError, TypeError) as error:
        raise FleetError(f"network is none: {error}") from error
    if network.prefixlen != 24 or not network.subnet_of(TEST_NETWORKS):
        raise FleetError(f"network must be a /24 of {TEST_NETWORKS}: {network}")
    return network


def _address(given: object, network: ipaddress.IPv4Network, host: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.IPv4Address(given)
    except (ValueError, TypeError) as error:
        raise FleetError(f"the address of {host} is none: {error}") from error
    if address not in network or address in (network[0], network[255]):
        raise FleetError(f"the address {address} of {host} is not one of {network}")
    return address


def _mtu(given: object, what: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not MTU_RANGE[0] <= given <= MTU_RANGE[1]:
        raise FleetError(f"{what} is not a number from {MTU_RANGE[0]} to {MTU_RANGE[1]}: {given!r}")
    return given


def _lines(given: object, what: str) -> list[str]:
    if isinstance(given, str):
        given = given.splitlines()
    if not isinstance(given, list) or not all(isinstance(line, str) for line in given):
        raise FleetError(f"{what} is neither a text nor a list of lines")
    return given


def _name(given: object, pattern: re.Pattern, what: str) -> str:
    if not isinstance(given, str) or not pattern.fullmatch(given):
        raise FleetError(f"{what} cannot be {given!r}")
    return given


def _mapping(given: object, what: str, keys: set | None = None) -> dict:
    if not isinstance(given, dict):
        raise FleetError(f"{what} is not a mapping")
    unknown = [str(key) for key in given if keys is not None and key not in keys]
    if unknown:
        raise FleetError(f"{what} has unknown keys: {', '.join(unknown)}")
    return given
