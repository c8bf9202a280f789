# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.ascend import hccn
from hypothesis import given
from hypothesis import strategies as st

PARSERS = (hccn.link, hccn.net_health, hccn.gateway, hccn.netdetect, hccn.tls)
TLS = "dev_id:0, tls switch[{}](0:disable, 1:enable), tls preconfigured[1](0:non-preset, 1:preset)"
addresses = st.ip_addresses(v=4).map(str).filter(lambda address: address != "0.0.0.0")


@given(addresses, st.integers(1, 32))
def test_addresses(address, bits):
    mask = ".".join(str(((1 << 32) - (1 << (32 - bits))) >> shift & 255) for shift in (24, 16, 8, 0))
    assert hccn.ip(f"ipaddr:{address}\nnetmask:{mask}\n") == {"ip": address, "netmask": mask}
    assert hccn.gateway(f"default gateway:{address}, Iface:eth7\n") == address
    assert hccn.gateway(f"default gateway:{address}\n") == address
    assert hccn.netdetect(f"netdetect address: {address}\n") == address
    assert hccn.netdetect(f"netdetect addr: {address}\n") == address


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (hccn.link, "", None),
        (hccn.link, "link status: UPPER", None),
        (hccn.link, "link status: UP\nlink status: DOWN", None),
        (hccn.link, "warning\n  link status: UP\r\n", "UP"),
        (hccn.net_health, "net health status: Excellent", None),
        (hccn.net_health, "net health status: Socket fail", "Socket fail"),
        (hccn.ip, "ipaddr:10.0.0.300\nnetmask:255.0.255.0", {"ip": None, "netmask": None}),
        (hccn.ip, "ipaddr:10.0.0.3", {"ip": "10.0.0.3", "netmask": None}),
        (hccn.ip, "Get ip failed, because no ip was preset there!", {"ip": "", "netmask": ""}),
        (hccn.ip, "Get ipconf failed, because no ip was preset there!", {"ip": "", "netmask": ""}),
        (hccn.gateway, "default gateway:10.0.0, Iface:eth0", None),
        (hccn.gateway, "Get gateway failed, because no gateway was preset there!", ""),
        (hccn.netdetect, "netdetect address: 0.0.0.0", ""),
        (hccn.netdetect, "netdetect address: 10.0.0.1 10", None),
        (hccn.tls, TLS.format(0), False),
        (hccn.tls, TLS.format(1), True),
        (hccn.tls, TLS.format(2), None),
        (hccn.tls, TLS.format(0) + "\n" + TLS.format(1), None),
        (hccn.tls, "no certificate", None),
    ],
)
def test_answers(parse, text, told):
    assert parse(text) == told


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hccn_tool is busy, please try again.", "busy"),
        ("permission denied: pls check this cmd run permission.", "permission"),
        ("The command is not supported on this product.", "unsupported"),
        ("Get ipconf failed, because no ip was preset there!", "unset"),
    ],
)
def test_failures(text, kind):
    assert hccn.failure(f"noise\n{text}\n")["kind"] == kind
    if kind != "unset":
        assert [parse(text) for parse in PARSERS] == [None] * len(PARSERS)
        assert hccn.ping(text) == {"sent": None, "received": None, "reason": hccn.failure(text)["reason"]}


@pytest.mark.parametrize(
    ("text", "sent", "received"),
    [
        ("3 packets transmitted, 3 received, 0.00% packet loss", 3, 3),
        ("recv time out seq=0\n3 packets transmitted, 0 received, 100.00% packet loss", 3, 0),
        ("3 packets transmitted, 4 received, 0.00% packet loss", None, None),
        ("0 packets transmitted, 0 received, 0.00% packet loss", None, None),
        ("13 packets transmitted, x received", None, None),
        ("3 packets transmitted, 3 received\n3 packets transmitted, 2 received", None, None),
        ("recv seq=0,time=0.1ms", None, None),
    ],
)
def test_ping(text, sent, received):
    told = hccn.ping(text)
    assert (told["sent"], told["received"]) == (sent, received)
    assert bool(told["reason"]) == (sent is None or received < sent)


@given(st.text(max_size=200) | st.text(alphabet="link status: UP\n[]0:.", max_size=200))
def test_nothing_raises(text):
    for parse in (*PARSERS, hccn.ip, hccn.ping, hccn.parse_conf, hccn.failure):
        parse(text)


def test_megabytes():
    for piece in ("link status: ", "a_0=1\n", "netmask:", "9", "\n"):
        text = piece * (5_000_000 // len(piece))
        assert [parse(text) for parse in PARSERS] == [None] * len(PARSERS)
        assert any("characters" in problem for problem in hccn.parse_conf(text)["problems"])


# hccn.conf --------------------------------------------------------------------------------------------------------

CONF = """# written by hand
address_0=10.0.0.10
netmask_0=255.255.255.0
gateway_0=10.0.0.1
netdetect_0=10.0.0.1
arp_0=-i eth0 -s 10.0.0.11 bc:1e:85:d8:ca:dd
send_arp_status_0=1
tls_enable_0=0
"""
PORT = {
    "phy_id": 0,
    "ip": "10.0.0.10",
    "netmask": "255.255.255.0",
    "gateway": "10.0.0.1",
    "netdetect": "10.0.0.1",
    "tls": False,
}


def test_conf():
    told = hccn.parse_conf(CONF)
    assert told["problems"] == []
    assert told["devices"][0]["arp"] == "-i eth0 -s 10.0.0.11 bc:1e:85:d8:ca:dd"
    assert told["devices"][0]["send_arp_status"] == "1"
    assert hccn.parse_conf(CONF.replace("\n", "\r\n"))["devices"] == told["devices"]


@pytest.mark.parametrize(
    ("text", "left", "problem"),
    [
        ("address_0=10.0.0.10\n", {"address": "10.0.0.10"}, "no netmask for device 0"),
        ("address_0=10.0.0\n", {}, "address of device 0 in hccn.conf is no address"),
        ("netmask_0=255.0.255.0\n", {}, "netmask of device 0 in hccn.conf is no address"),
        ("gateway_0=10.0.0.1\ngateway_0=10.0.0.2\n", {}, "gives gateway of device 0 twice"),
        ("gateway_0=10.0.0.1\ngateway_0=10.0.0.1\n", {"gateway": "10.0.0.1"}, ""),
        ("tls_enable_0=yes\n", {}, "tls_enable of device 0"),
        ("mtu_0=4096\naddress\n", {"mtu": "4096"}, "a line of hccn.conf cannot be understood: 'address'"),
    ],
)
def test_damaged_conf(text, left, problem):
    told = hccn.parse_conf(text)
    assert told["devices"].get(0, {}) == left
    assert (problem in " ".join(told["problems"])) if problem else told["problems"] == []


@pytest.mark.parametrize(
    ("port", "conf", "told"),
    [
        ({}, CONF, []),
        ({"ip": "10.0.0.99"}, CONF, [("address", "10.0.0.10", "10.0.0.99")]),
        ({"ip": ""}, CONF, [("address", "10.0.0.10", "")]),
        ({"ip": None, "netmask": None, "tls": None}, CONF, []),  # what is not known is no disagreement
        ({"tls": True}, CONF, [("tls_enable", "0", "1")]),
        ({"netmask": "255.255.0.0"}, CONF, [("netmask", "255.255.255.0", "255.255.0.0")]),
        ({"netdetect": ""}, CONF, [("netdetect", "10.0.0.1", "")]),
        ({}, CONF.replace("gateway_0=10.0.0.1\n", ""), [("gateway", "", "10.0.0.1")]),
        ({"tls": True}, CONF.replace("tls_enable_0=0\n", ""), []),
        ({"ip": "10.0.0.99", "netmask": "255.0.0.0", "gateway": ""}, CONF + "udhcpc_enable_0=1\n", []),
        (
            {"phy_id": 1, "gateway": "", "netdetect": ""},
            CONF,
            [("address", "", "10.0.0.10"), ("netmask", "", PORT["netmask"])],
        ),
    ],
)
def test_disagreements(port, conf, told):
    port = dict(PORT, **port)
    found = hccn.disagreements(hccn.parse_conf(conf)["devices"], [port])
    assert [(entry["key"], entry["conf"], entry["device"]) for entry in found] == told
    assert all(entry["phy_id"] == port["phy_id"] for entry in found)
