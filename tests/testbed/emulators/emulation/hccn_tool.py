# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of hccn_tool: whatever it tells with -g. Whatever would set something is refused.

Wording is that of recorded outputs of 910A, 910B and A3 and of the tool's own source.
"""

from __future__ import annotations

import os

from .program import Answer, Refused
from .state import version_tuple

# Status of the tool when it prints an error; one recording has 13 for an address that is not set.
FAILED = 13
# Overrides the user that runs the emulator, so that tests need no root.
UID_VARIABLE = "LLM_TESTBED_UID"
FAILURES = {
    "busy": "hccn_tool is busy, please try again.\n",
    "permission": "permission denied: pls check this cmd run permission.\n",
    "unsupported": "The command is not supported on this product.\n",
}
NO_DEVICE = "The device is not exist!\n"
BAD_FORMAT = "Cmd format error, please use -h for help.\n"
# Packets of one ping unless it says pkt N; milliseconds of an answer.
PACKETS = 3
ANSWER_MS = 0.067
# First release whose source says `addr`; 24.x binaries say `address`.
ADDR_SINCE = (25, 5)


def answer(state: dict, arguments: list, fault: dict) -> Answer:
    """Return what `hccn_tool ARGUMENTS` says on this host."""
    if _changes(arguments):
        raise Refused
    if fault["failure"]:
        return _failed(FAILURES[fault["failure"]])
    ascend = state["ascend"]
    if str(os.environ.get(UID_VARIABLE) or os.geteuid()) != "0":
        return _failed(FAILURES["permission"])
    # 950 has another syntax, which is not emulated; 310 and 310P have no RoCE port.
    if ascend is None or ascend["layout"] in ("310", "310P", "950"):
        return _failed(FAILURES["unsupported"])
    if len(arguments) < 4 or arguments[0] != "-i" or arguments[3] != "-g":
        return _failed(BAD_FORMAT)
    devices = [device for device in ascend["network"] if str(device["phy_id"]) == arguments[1]]
    if not devices or devices[0]["phy_id"] in fault["lost"]:
        return _failed(NO_DEVICE)
    return _one(state, devices[0], arguments[2], arguments[4:])


def _changes(arguments: list) -> bool:
    """Tell whether a call is anything but a question: all of them hold -g, or ask for help or the version."""
    asks = any(word in arguments for word in ("-g", "-h", "-v", "-version"))
    return bool(arguments) and ("-s" in arguments or not asks)


def _failed(text: str) -> Answer:
    return Answer(text, code=FAILED)


def _one(state: dict, device: dict, option: str, rest: list) -> Answer:
    if option in ("-ping", "-hccs_ping"):
        if option == "-hccs_ping" and state["ascend"]["layout"] != "A3":
            return _failed(FAILURES["unsupported"])
        return _ping(state, device, rest, hccs=option == "-hccs_ping")
    teller = TELLERS.get(option)
    if teller is None or rest:
        return _failed(BAD_FORMAT)
    return teller(state["ascend"], device)


def _ping(state: dict, device: dict, rest: list, hccs: bool) -> Answer:
    options = {rest[place]: rest[place + 1] for place in range(0, len(rest) - 1, 2)}
    if len(rest) % 2 or set(options) - {"address", "pkt"} or "address" not in options:
        return _failed(BAD_FORMAT)
    address, count = options["address"], int(options.get("pkt", PACKETS))
    lost = _lost(state, device, address, count)
    lines = [f"device {device['phy_id']} PING {address}"]
    for number in range(count):
        answered = f"recv seq={number},time={ANSWER_MS:.6f}ms"
        lines.append(f"recv time out seq={number}" if number in lost else answered)
    share = 100.0 * len(lost) / count if count else 0.0
    lines.append(f"{count} packets transmitted, {count - len(lost)} received, {share:.2f}% packet loss")
    if hccs and not lost:
        lines.append("This pkt ping success")
    return Answer("\n".join(lines) + "\n")


def _lost(state: dict, device: dict, address: str, count: int) -> set:
    """Return the numbers of the packets that get no answer."""
    every = set(range(count))
    sends = device["link"] == "UP" if device["pings"] is None else device["pings"]
    if not sends or address in state["ascend"]["pings"]["unreachable"]:
        return every
    if not state["fabric"]:
        return set()
    known = state["fabric"].get(address)
    if known is None or not known["reachable"]:
        return every
    return every & set(known["lost"])


def _ip(_ascend: dict, device: dict) -> Answer:
    if not device["ip"]:
        return _failed("Get ipconf failed, because no ip was preset there!\n")
    return Answer(f"ipaddr:{device['ip']}\nnetmask:{device['netmask']}\n")


def _gateway(_ascend: dict, device: dict) -> Answer:
    if not device["gateway"]:
        return _failed("Get gateway failed, because no gateway was preset there!\n")
    return Answer(f"default gateway:{device['gateway']}, Iface:eth{device['phy_id']}\n")


def _netdetect(ascend: dict, device: dict) -> Answer:
    word = "addr" if version_tuple(ascend["version"]) >= ADDR_SINCE else "address"
    return Answer(f"netdetect {word}: {device['netdetect'] or '0.0.0.0'}\n")


def _tls(_ascend: dict, device: dict) -> Answer:
    if device["tls"] is None:
        # What the tool says without certificates is not recorded; no reader may take it for a state.
        return _failed("tls certificates are not found!\n")
    words = "(0:disable, 1:enable), tls preconfigured[1](0:non-preset, 1:preset), tls alarm time threshold[60]days"
    phy_id = device["phy_id"]
    lines = [f"dev_id:{phy_id}, tls switch[{int(device['tls'])}]{words}"]
    for name in ("pub cert", "ca1 cert", "ca2 cert"):
        lines += [
            f"dev_id:{phy_id}, [{name}] info:",
            "\t subject[/C=CN/O=Testbed/CN=device]",
            "\t issuer[/C=CN/O=Testbed/CN=Testbed CA]",
            "\t start_time[Sat Jan 31 03:10:27 2026 GMT]",
            "\t end_time[Wed Jun 18 03:10:27 2053 GMT]",
            "\t tls expiration status[0](0:normal, 1:near expiration, 2:has expired)",
        ]
    return Answer("\n".join(lines) + "\n")


def _speed(_ascend: dict, device: dict) -> Answer:
    speed = device["speed_mbps"]
    return Answer("Speed: Unknown!\n" if speed is None else f"Speed: {speed} Mb/s\n")


def _link_stat(_ascend: dict, device: dict) -> Answer:
    head = f"[devid {device['phy_id']}]"
    record = f"{head}    Tue Aug  1 14:43:40 2026    LINK UP\n" * device["link_up_count"]
    return Answer(
        f"{head}current time        : Wed Aug  2 03:09:26 2026\n"
        f"{head}link up count       : {device['link_up_count']}\n"
        f"{head}link change records :\n" + record
    )


def _lldp(_ascend: dict, device: dict) -> Answer:
    if not device["lldp_ifname"]:
        return _failed("Get lldp failed!\n")
    return Answer(f"Port ID TLV\n\tIfname: {device['lldp_ifname']}\nEnd of LLDPDU TLV\n")


def _vnic(ascend: dict, device: dict) -> Answer:
    if ascend["layout"] != "A3":
        return _failed(FAILURES["unsupported"])
    return Answer(f"vnic link status: UP\nvnic ipaddr: {device['vnic_ip']}\nvnic netmask: 255.255.0.0\n")


def _link(_ascend: dict, device: dict) -> Answer:
    return Answer(f"link status: {device['link']}\n")


def _net_health(_ascend: dict, device: dict) -> Answer:
    return Answer(f"net health status: {device['net_health']}\n")


def _stat(_ascend: dict, _device: dict) -> Answer:
    return Answer("packet statistics:\nroce_rx_err_pkt_num:0\nroce_tx_err_pkt_num:0\n")


TELLERS = {
    "-link": _link,
    "-net_health": _net_health,
    "-ip": _ip,
    "-gateway": _gateway,
    "-netdetect": _netdetect,
    "-tls": _tls,
    "-speed": _speed,
    "-stat": _stat,
    "-link_stat": _link_stat,
    "-lldp": _lldp,
    "-vnic": _vnic,
}
