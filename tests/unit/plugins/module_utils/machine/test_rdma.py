# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import rdma
from hypothesis import given
from hypothesis import strategies as st

BASE = "/sys/class/infiniband"
LINK_LOCAL = "fe80:0000:0000:0000:0e42:a1ff:fe00:0001"
MAPPED = "0000:0000:0000:0000:0000:ffff:c000:020a"
ZERO = "0000:0000:0000:0000:0000:0000:0000:0000"


def gid(fake, device: str, index: int, value: str, kind: str = "RoCE v2", netdev: str = "ens1f0") -> None:
    port = f"{BASE}/{device}/ports/1"
    fake(f"{port}/gids/{index}", value + "\n")
    if value != ZERO:  # for an entry that is not set, the kernel refuses to tell the rest
        fake(f"{port}/gid_attrs/types/{index}", kind + "\n")
        fake(f"{port}/gid_attrs/ndevs/{index}", netdev + "\n")


def test_no_devices(source):
    assert rdma.devices(source) == [] and rdma.nodes(source) == []
    assert source.problems == []


def test_devices_with_their_ports(fake, source, tmp_path):
    for name, value in (
        ("state", "4: ACTIVE"),
        ("phys_state", "5: LinkUp"),
        ("link_layer", "Ethernet"),
        ("rate", "400 Gb/sec (4X NDR)"),
    ):
        fake(f"{BASE}/mlx5_0/ports/1/{name}", value + "\n")
    gid(fake, "mlx5_0", 0, LINK_LOCAL, "IB/RoCE v1")
    gid(fake, "mlx5_0", 1, ZERO)
    gid(fake, "mlx5_0", 2, MAPPED, "RoCE v2", "ens1f0.100")
    fake(f"{BASE}/mlx5_0/device/net/ens1f0/mtu", "9000\n")
    (tmp_path / BASE.lstrip("/") / "hns_0").mkdir()
    found = rdma.devices(source)
    assert found == [
        {"name": "hns_0", "netdevs": [], "ports": []},
        {
            "name": "mlx5_0",
            "netdevs": ["ens1f0", "ens1f0.100"],
            "ports": [
                {
                    "port": "1",
                    "state": "4: ACTIVE",
                    "phys_state": "5: LinkUp",
                    "link_layer": "Ethernet",
                    "rate": "400 Gb/sec (4X NDR)",
                    "gids": [
                        {"index": 0, "gid": LINK_LOCAL, "type": "IB/RoCE v1", "netdev": "ens1f0"},
                        {"index": 2, "gid": MAPPED, "type": "RoCE v2", "netdev": "ens1f0.100"},
                    ],
                }
            ],
        },
    ]
    assert rdma.by_interface(found) == {"ens1f0": ["mlx5_0"], "ens1f0.100": ["mlx5_0"]}
    assert source.problems == []


def test_a_bond_is_found_by_its_gids(fake, source):
    for interface in ("ens1f0", "ens1f1"):
        fake(f"{BASE}/mlx5_bond_0/device/net/{interface}/mtu", "9000\n")
    gid(fake, "mlx5_bond_0", 3, MAPPED, netdev="bond0")
    for index in range(3):
        gid(fake, "mlx5_bond_0", index, ZERO)
    (device,) = rdma.devices(source)
    assert device["netdevs"] == ["bond0", "ens1f0", "ens1f1"]


def test_a_table_is_not_read_to_its_end_when_the_rest_is_empty(fake, source):
    for index in range(100):
        gid(fake, "mlx5_0", index, {0: LINK_LOCAL, 20: MAPPED, 99: MAPPED}.get(index, ZERO))
    (device,) = rdma.devices(source)
    assert [entry["index"] for entry in device["ports"][0]["gids"]] == [0, 20]


def test_a_table_is_read_up_to_a_limit(fake, source):
    for index in range(300):
        gid(fake, "mlx5_0", index, MAPPED)
    (device,) = rdma.devices(source)
    assert len(device["ports"][0]["gids"]) == 256


@pytest.mark.parametrize("value", ["", "fe80::1", "garbage", LINK_LOCAL[:-1], LINK_LOCAL + ":0000"])
def test_an_entry_that_is_no_gid_is_passed_over(fake, source, value):
    gid(fake, "mlx5_0", 0, value)
    gid(fake, "mlx5_0", 1, MAPPED)
    (device,) = rdma.devices(source)
    assert [entry["index"] for entry in device["ports"][0]["gids"]] == [1]


def test_device_nodes(fake, source):
    for name in ("uverbs0", "rdma_cm"):
        fake(f"/dev/infiniband/{name}", "")
    assert rdma.nodes(source) == ["rdma_cm", "uverbs0"]


@given(content=st.binary(max_size=60), index=st.integers(0, 3))
def test_any_content(fake, source, content, index):
    for name in ("gids", "gid_attrs/types", "gid_attrs/ndevs"):
        fake(f"{BASE}/mlx5_0/ports/1/{name}/{index}", content)
    (device,) = rdma.devices(source)
    assert device["name"] == "mlx5_0"
    assert source.problems == []
