# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How links of a known rate are made, without making any."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.tests.testbed import links


def test_each_host_gets_an_address_and_a_port_of_the_switch():
    plans = links.plan("links7", 2)
    assert list(plans) == ["", "links7-sw", "links7-0", "links7-1", "links7-2"]
    assert "link add h2 netns links7-sw type veth peer name eth0 netns links7-2" in plans[""]
    assert "link set dev h2 addrgenmode none master br0 up" in plans["links7-sw"]
    assert "address add 10.77.0.3/24 dev eth0" in plans["links7-2"]


def test_namespaces_are_made_before_cables_lead_there():
    lines = links.plan("links7", 3)[""]
    made = [line.split()[-1] for line in lines if line.startswith("netns add ")]
    assert made == ["links7-sw", "links7-0", "links7-1", "links7-2", "links7-3"]
    for number, line in enumerate(lines):
        if line.startswith("link add "):
            own, switch = line.split()[-1], line.split()[4]
            assert {f"netns add {own}", f"netns add {switch}"} <= set(lines[:number])


def test_both_ends_of_each_link_are_held_to_the_rate():
    plans = links.shaping("links7", 1, 12.5)
    assert plans == {
        "links7-0": ["qdisc add dev eth0 root tbf rate 12500000bit burst 128k latency 20ms"],
        "links7-1": ["qdisc add dev eth0 root tbf rate 12500000bit burst 128k latency 20ms"],
        "links7-sw": [
            "qdisc add dev h0 root tbf rate 12500000bit burst 128k latency 20ms",
            "qdisc add dev h1 root tbf rate 12500000bit burst 128k latency 20ms",
        ],
    }


@pytest.mark.parametrize(("count", "prefix"), [(-1, "links"), (250, "links"), (1, "Links"), (1, "a-b"), (1, "")])
def test_what_no_namespace_can_be_named_after_is_refused(count, prefix):
    with pytest.raises(links.LinksError, match="0 to 249, 1 to 6 letters"):
        links.Links(count, prefix=prefix)


def test_a_host_that_is_not_there_has_no_address():
    with pytest.raises(links.LinksError, match="no host 3: 0 to 2"):
        links.Links(2).address(3)
