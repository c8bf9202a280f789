# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.peers import devices

OK = "echo 'device 0 PING x'; echo '3 packets transmitted, 3 received, 0.00% packet loss'"


def devices_of(node: int, count: int) -> list[dict]:
    return [{"phy_id": index, "ip": f"192.0.{node}.{index + 1}"} for index in range(count)]


def settings_for(nodes: int, count: int, own: int = 0, **more) -> dict:
    names = [f"n{node}" for node in range(nodes)]
    return {
        "host": names[own],
        "devices": devices_of(own, count),
        "peer_devices": {name: devices_of(node, count) for node, name in enumerate(names)},
        "ring": names,
        "device_pattern": "ring",
        "device_ping": "roce",
        "hccn_tool": "/no/such/hccn_tool",
        **more,
    }


def targets(wanted: list[list[dict]]) -> list[list[tuple]]:
    return [[(pair["to"], pair["to_phy_id"]) for pair in pairs] for pairs in wanted]


@pytest.fixture
def tool(tmp_path):
    """Function that makes a hccn_tool of a shell script; it notes its arguments in the file ``calls``."""

    def make(script: str) -> str:
        path = tmp_path / "driver" / "tools" / "hccn_tool"
        path.parent.mkdir(parents=True)
        path.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n{script}\n')
        path.chmod(0o755)
        return str(path)

    return make


def ping(settings: dict, seconds: float = 60.0) -> dict:
    return devices.ping_devices(settings, time.monotonic() + seconds)


def test_a_ring_pings_the_same_index_everywhere_and_one_neighbour():
    wanted, problems = devices.pairs(settings_for(3, 2, own=2))
    assert targets(wanted) == [[("n0", 0), ("n0", 1), ("n1", 0)], [("n0", 1), ("n0", 0), ("n1", 1)]]
    assert problems == []


def test_over_all_hosts_a_ring_pings_every_same_index_pair_both_ways():
    found = set()
    for own in range(4):
        for pairs in devices.pairs(settings_for(4, 8, own))[0]:
            assert len(pairs) == 4
            found |= {(pair["from"], pair["from_phy_id"], pair["to"], pair["to_phy_id"]) for pair in pairs}
    names = [f"n{node}" for node in range(4)]
    assert {(a, i, b, i) for a in names for b in names for i in range(8) if a != b} <= found
    assert len(found) == 4 * 8 * 4


def test_full_and_none():
    wanted, _problems = devices.pairs(settings_for(3, 2, device_pattern="full"))
    assert targets(wanted) == [[("n1", 0), ("n1", 1), ("n2", 0), ("n2", 1)]] * 2
    assert devices.pairs(settings_for(3, 2, device_pattern="none")) == ([], [])
    assert devices.pairs(settings_for(3, 2, devices=[])) == ([], [])


def test_the_order_of_the_ring_is_the_given_one():
    wanted, _problems = devices.pairs(settings_for(3, 2, ring=["n0", "n2", "n1"]))
    assert targets(wanted)[0] == [("n2", 0), ("n2", 1), ("n1", 0)]


def test_one_device_has_no_neighbour():
    assert targets(devices.pairs(settings_for(2, 1))[0]) == [[("n1", 0)]]


def test_a_host_with_fewer_devices_is_a_problem():
    settings = settings_for(2, 3)
    del settings["peer_devices"]["n1"][2]
    wanted, problems = devices.pairs(settings)
    assert targets(wanted) == [[("n1", 0), ("n1", 1)], [("n1", 1), ("n1", 0)], [("n1", 1)]]
    assert problems == ["n1 has 2 network devices, this host has 3"]


@pytest.mark.parametrize(
    "told", [None, "x", {}, [None], [5], [{}], [{"phy_id": "x", "ip": "192.0.2.1"}], [{"phy_id": 1}]]
)
def test_devices_that_are_none_are_a_problem(told):
    settings = settings_for(2, 1)
    settings["peer_devices"]["n1"] = told
    wanted, problems = devices.pairs(settings)
    assert targets(wanted) == [[]]
    assert "n1 has no network device that can be pinged" in problems


@pytest.mark.parametrize("address", ["", "no.address", "192.0.2.1; reboot", "-x", "192.0.2.300"])
def test_only_addresses_are_pinged(tool, tmp_path, address):
    settings = settings_for(2, 1, hccn_tool=tool(OK))
    settings["peer_devices"]["n1"][0]["ip"] = address
    assert ping(settings)["device_pings"] == []
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(("kind", "option"), [("roce", "-ping"), ("hccs", "-hccs_ping")])
def test_a_ping_that_is_answered(tool, tmp_path, kind, option):
    found = ping(settings_for(2, 1, hccn_tool=tool(OK), device_ping=kind))
    ends = {"from": "n0", "to": "n1", "from_phy_id": 0, "to_phy_id": 0, "to_ip": "192.0.1.1"}
    assert found["device_pings"] == [{**ends, "sent": 3, "received": 3, "reason": ""}]
    assert (found["not_probed"], found["problems"]) == ([], [])
    assert (tmp_path / "calls").read_text() == f"-i 0 {option} -g address 192.0.1.1 pkt 3\n"


def test_the_tool_finds_the_libraries_of_its_driver(tool, tmp_path):
    found = ping(settings_for(2, 1, hccn_tool=tool(f'echo "$LD_LIBRARY_PATH" > {tmp_path}/libraries\n{OK}')))
    assert found["device_pings"][0]["received"] == 3
    paths = (tmp_path / "libraries").read_text().strip().split(":")
    assert paths[:3] == [f"{tmp_path}/driver/{part}" for part in ("lib64/common", "lib64/driver", "lib64")]


@pytest.mark.parametrize(
    ("script", "sent", "received", "reason"),
    [
        ("echo '3 packets transmitted, 2 received, 33.33% packet loss'", 3, 2, "1 of 3 packets were lost"),
        ("echo '3 packets transmitted, 0 received, 100.00% packet loss'; exit 1", 3, 0, "3 of 3 packets were lost"),
        ("echo noise >&2; " + OK, 3, 3, ""),
        ("echo 'permission denied: pls check this cmd run permission.'; exit 1", None, None, "run as root"),
        ("true", None, None, "did not say"),
        ("exit 7", None, None, "status 7"),
        ("printf '\\377\\376'; kill -9 $$", None, None, "status -9"),
        ("head -c 3000000 /dev/zero", None, None, "did not say"),
    ],
)
def test_other_answers(tool, script, sent, received, reason):
    (found,) = ping(settings_for(2, 1, hccn_tool=tool(script)))["device_pings"]
    assert (found["sent"], found["received"]) == (sent, received)
    assert reason in found["reason"]
    assert bool(found["reason"]) == (received != 3)


def test_a_tool_that_is_not_there():
    found = ping(settings_for(2, 2))
    assert len(found["device_pings"]) == 4
    assert all(one["sent"] is None and "no such file" in one["reason"] for one in found["device_pings"])


def test_a_tool_that_is_busy_for_a_moment(tool, tmp_path):
    path = tool(
        f"[ $(wc -l < {tmp_path}/calls) -ge 2 ] || {{ echo 'hccn_tool is busy, please try again.'; exit 1; }}; {OK}"
    )
    assert ping(settings_for(2, 1, hccn_tool=path))["device_pings"][0]["received"] == 3


def test_a_tool_that_stays_busy(tool, tmp_path):
    path = tool("echo 'hccn_tool is busy, please try again.'; exit 1")
    (found,) = ping(settings_for(2, 1, hccn_tool=path))["device_pings"]
    assert found["sent"] is None and "busy" in found["reason"]
    assert len((tmp_path / "calls").read_text().splitlines()) == devices.BUSY_TRIES


def test_a_ping_that_hangs_leaves_time_for_the_others(tool, monkeypatch):
    monkeypatch.setattr(devices, "PING_S", 0.3)
    settings = settings_for(3, 1, hccn_tool=tool(f"[ $6 = 192.0.1.1 ] && sleep 600\n{OK}"))
    hung, other = ping(settings)["device_pings"]
    assert (hung["to"], hung["sent"]) == ("n1", None)
    assert "did not end within" in hung["reason"]
    assert (other["to"], other["received"]) == ("n2", 3)


def test_what_the_time_does_not_last_for_is_listed(tool):
    settings = settings_for(32, 8, hccn_tool=tool("sleep 600"))
    found = ping(settings, seconds=0.5)
    assert len(found["device_pings"]) + len(found["not_probed"]) == 8 * 32
    assert found["not_probed"] and found["device_pings"]
    assert "sent" not in found["not_probed"][0]
    assert ping(settings, seconds=-1)["device_pings"] == []
