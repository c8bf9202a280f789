# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parsers of what hccn_tool prints and of /etc/hccn.conf. Pure; nothing here raises for what the text holds.

Source of the words: hccn_tool of the published driver (tool_ops.c, tool_tls.c, cmd.c) and captures of older builds.
A value is None where it is not known; an address is an empty text where none is set.
"""

from __future__ import annotations

import ipaddress
import re

LIMIT = 1 << 20  # characters that are looked at; the file of 16 devices has under 3 000
# tool_ops.c, g_net_health_status; "Socket failed" is an older build's.
NET_HEALTH = (
    "Success",
    "Socket fail",
    "Socket failed",
    "Receive timeout",
    "Unreachable",
    "Time exceeded",
    "Fault",
    "Init",
    "Thread error",
    "Detect ip set",
    "Unknown",
)
# Keys of hccn.conf that hold an address, and what the same is called of a device.
_ADDRESSES = {"address": "ip", "netmask": "netmask", "gateway": "gateway", "netdetect": "netdetect"}
_MAX_DEVICE = 1023  # physical ids are 0 to 15 on the largest known server
_MAX_PACKETS = 1_000_000

_LINK = re.compile(r"^[ \t]*link status:[ \t]*(UP|DOWN)[ \t\r]*$", re.M)
_NET_HEALTH = re.compile(r"^[ \t]*net health status:[ \t]*([A-Za-z ]{1,30}?)[ \t\r]*$", re.M)
_IP = re.compile(r"^[ \t]*ipaddr:[ \t]*(\S{1,45})[ \t\r]*$", re.M)
_NETMASK = re.compile(r"^[ \t]*netmask:[ \t]*(\S{1,45})[ \t\r]*$", re.M)
_GATEWAY = re.compile(r"^[ \t]*default gateway:[ \t]*([^\s,]{1,45})(?:,[ \t]*Iface:[ \t]*\S{1,20})?[ \t\r]*$", re.M)
_NETDETECT = re.compile(r"^[ \t]*netdetect addr(?:ess)?:[ \t]*(\S{1,45})[ \t\r]*$", re.M)
_TLS = re.compile(r"\btls switch\[([01])\]")
_PING = re.compile(r"^[ \t]*([0-9]{1,9}) packets transmitted, ([0-9]{1,9}) received\b", re.M)
_ENTRY = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,40})_([0-9]{1,4})=(.*)")

_FAILURES = (
    ("busy", re.compile(r"hccn_tool is busy"), "hccn_tool is busy; another program asks it"),
    ("permission", re.compile(r"permission denied", re.I), "hccn_tool refuses this user; run as root"),
    (
        "unsupported",
        re.compile(r"not supported on this product", re.I),
        "this product has no network port of its own on the NPU",
    ),
    ("unset", re.compile(r"failed, because no \S{1,20} was preset", re.I), "nothing is set"),
)


def failure(text: str) -> dict | None:
    """Return {kind, reason} of an error that hccn_tool printed, None where there is none known.

    ``kind`` is busy, permission, unsupported, or unset, which is an answer: nothing has been configured.
    """
    for kind, pattern, reason in _FAILURES:
        if pattern.search(text[:LIMIT]):
            return {"kind": kind, "reason": reason}
    return None


def link(text: str) -> str | None:
    """Return UP or DOWN of ``-link -g``, None where it is not told."""
    return _only(_LINK, text)


def net_health(text: str) -> str | None:
    """Return the word of ``-net_health -g``, one of NET_HEALTH, or None."""
    told = _only(_NET_HEALTH, text)
    return told if told in NET_HEALTH else None


def ip(text: str) -> dict:
    """Return {ip, netmask} of ``-ip -g``: None where not known, empty where none is set."""
    if _is_unset(text):
        return {"ip": "", "netmask": ""}
    return {"ip": _address(_only(_IP, text)), "netmask": _netmask(_only(_NETMASK, text))}


def gateway(text: str) -> str | None:
    """Return the address of ``-gateway -g``: None where not known, empty where none is set."""
    return "" if _is_unset(text) else _address(_only(_GATEWAY, text))


def netdetect(text: str) -> str | None:
    """Return the address of ``-netdetect -g``: None where not known, empty where none is set."""
    return "" if _is_unset(text) else _address(_only(_NETDETECT, text))


def tls(text: str) -> bool | None:
    """Return whether the TLS switch of ``-tls -g`` is on; None where it is not told."""
    told = _only(_TLS, text)
    return None if told is None else told == "1"


def ping(text: str) -> dict:
    """Return {sent, received, reason} of ``-ping -g``; both counts are None where they are not told."""
    found = set(_PING.findall(text[:LIMIT]))
    if len(found) == 1:
        sent, received = (int(count) for count in found.pop())
        if 0 < sent <= _MAX_PACKETS and received <= sent:
            lost = sent - received
            return {"sent": sent, "received": received, "reason": f"{lost} of {sent} packets were lost" if lost else ""}
    known = failure(text)
    reason = known["reason"] if known else "hccn_tool did not say how many packets came back"
    return {"sent": None, "received": None, "reason": reason}


def parse_conf(text: str) -> dict:
    """Return {devices {phy id: {key: value}}, problems[]} of hccn.conf.

    Addresses that are none, and keys that are given twice with different values, are left out and named.
    """
    devices: dict[int, dict[str, str]] = {}
    problems: list[str] = []
    if len(text) > LIMIT:
        problems.append(f"hccn.conf has {len(text)} characters; only the first {LIMIT} were looked at")
    doubtful = set()
    for line in text[:LIMIT].replace("\r", "\n").split("\n"):
        stripped = line.strip()
        entry = _ENTRY.fullmatch(stripped)
        if entry and int(entry.group(2)) <= _MAX_DEVICE:
            key, number, value = entry.group(1), int(entry.group(2)), entry.group(3).strip()
            if devices.setdefault(number, {}).setdefault(key, value) != value:
                doubtful.add((number, key))
        elif stripped and not stripped.startswith("#"):
            problems.append(f"a line of hccn.conf cannot be understood: {stripped[:60]!a}")
    for number, key in sorted(doubtful):
        problems.append(f"hccn.conf gives {key} of device {number} twice, and differently; neither is taken")
        del devices[number][key]
    for number, keys in sorted(devices.items()):
        problems += _check_device(number, keys)
    return {"devices": devices, "problems": problems}


def _check_device(number: int, keys: dict[str, str]) -> list[str]:
    problems = []
    for key in _ADDRESSES:
        if key in keys and _read(key, keys[key]) is None:
            value = keys.pop(key)
            problems.append(f"{key} of device {number} in hccn.conf is no address: {value[:60]!a}")
    if "tls_enable" in keys and keys["tls_enable"] not in ("0", "1"):
        problems.append(f"tls_enable of device {number} in hccn.conf is neither 0 nor 1")
        del keys["tls_enable"]
    if "address" in keys and "netmask" not in keys:
        problems.append(f"hccn.conf has an address and no netmask for device {number}; it may be cut off")
    return problems


def conf_switch(keys: dict[str, str]) -> bool | None:
    """Return tls_enable of one device of hccn.conf, None where the file does not say."""
    return {"0": False, "1": True}.get(keys.get("tls_enable", ""))


def disagreements(conf: dict[int, dict[str, str]], network: list[dict]) -> list[dict]:
    """Return [{phy_id, key, conf, device}] where hccn.conf and a device tell different things.

    ``conf`` is parse_conf's devices, ``network`` holds {phy_id, ip, netmask, gateway, netdetect, tls}. What either
    side does not tell is no disagreement, but an address that only one of them has is one: it is lost, or comes back,
    at the next boot. Addresses from DHCP (udhcpc_enable) are not in the file.
    """
    found = []
    for device in network:
        keys = conf.get(device["phy_id"], {})
        leased = keys.get("udhcpc_enable") == "1"
        for key, name in (
            ("address", "ip"),
            ("netmask", "netmask"),
            ("gateway", "gateway"),
            ("netdetect", "netdetect"),
        ):
            if device[name] is None or (leased and key != "netdetect"):
                continue
            told = _read(key, keys.get(key, "")) or ""
            if told != device[name]:
                found.append({"phy_id": device["phy_id"], "key": key, "conf": told, "device": device[name]})
        switch = conf_switch(keys)
        if None not in (switch, device["tls"]) and switch != device["tls"]:
            told, real = str(int(bool(switch))), str(int(device["tls"]))
            found.append({"phy_id": device["phy_id"], "key": "tls_enable", "conf": told, "device": real})
    return found


def _only(pattern: re.Pattern, text: str) -> str | None:
    """Return what the pattern finds, None where it finds nothing or different things."""
    found = set(pattern.findall(text[:LIMIT]))
    return found.pop() if len(found) == 1 else None


def _is_unset(text: str) -> bool:
    known = failure(text)
    return bool(known) and known["kind"] == "unset"


def _read(key: str, value: str) -> str | None:
    if not value:
        return ""
    return _netmask(value) if key == "netmask" else _address(value)


def _address(text: str | None) -> str | None:
    """Return an address in its usual form, empty for the one that stands for none, None for what is no address."""
    try:
        address = str(ipaddress.ip_address(text or ""))
    except ValueError:
        return None
    return "" if ipaddress.ip_address(address).is_unspecified else address


def _netmask(text: str | None) -> str | None:
    address = _address(text)
    if not address or ":" in address:
        return address
    bits = format(int(ipaddress.IPv4Address(address)), "032b")
    return None if "01" in bits else address
