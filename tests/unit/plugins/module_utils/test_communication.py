# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import ipaddress

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import communication
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from hypothesis import given
from hypothesis import strategies as st

WEIGHTS = 700_000_000_000


def mapped(address: str) -> str:
    text = ipaddress.IPv4Address(address).packed.hex()
    return f"0000:0000:0000:0000:0000:ffff:{text[:4]}:{text[4:]}"


def rdma(name: str, address: str = "", index: int = 3, layer: str = "Ethernet", state: str = "4: ACTIVE") -> dict:
    link_local = {"index": 0, "gid": "fe80:0000:0000:0000:0e42:a1ff:fe00:0001", "type": "RoCE v2", "netdev": "x"}
    first = {"index": index - 1, "gid": mapped(address or "192.0.2.1"), "type": "IB/RoCE v1", "netdev": "x"}
    second = {"index": index, "gid": mapped(address or "192.0.2.1"), "type": "RoCE v2", "netdev": "x"}
    gids = [link_local, *([first, second] if address else [])]
    port = {"port": "1", "state": state, "phys_state": "", "link_layer": layer, "rate": "", "gids": gids}
    return {"name": name, "netdevs": [], "ports": [port]}


def facts(number: int, *devices: dict, **more) -> dict:
    """The host with 192.0.2.NUMBER/24 on eth0 and 10.0.RAIL.NUMBER/24 on rail0 to rail7."""
    rails = [
        {"name": f"rail{rail}", "ipv4": [{"address": f"10.0.{rail}.{number}", "prefix": 24}], "ipv6": []}
        for rail in range(8)
    ]
    eth0 = {"name": "eth0", "ipv4": [{"address": f"192.0.2.{number}", "prefix": 24}], "ipv6": []}
    return {"interfaces": [eth0, *rails], "rdma": list(devices), **more}


def nodes(count: int = 2) -> list[dict]:
    return [
        {"host": f"node{rank}", "rank": rank, "address": f"192.0.2.{rank + 1}", "interface": "eth0"}
        for rank in range(count)
    ]


def plan(accelerator: str = "npu", engine: str = "vllm_ascend") -> dict:
    found = {"engine": {"id": engine, "version": "0"}, "serving": {}, "weights": {"bytes": WEIGHTS}}
    if accelerator:
        found["engine"]["accelerator"] = accelerator
    return found


def of(what: dict, members: list[dict], known: dict | None = None, rank: int = 0, engine: dict | None = None) -> dict:
    known = {node["host"]: facts(node["rank"] + 1) for node in members} if known is None else known
    return communication.of(what, {"name": "serving", "nodes": members}, members[rank], known, engine or {})


def gpu(members: list[dict], known: dict, rank: int = 0, engine: dict | None = None) -> dict:
    return of(plan("gpu", "vllm"), members, known, rank, engine)


def refusal(*arguments) -> LlmError:
    with pytest.raises(LlmError) as caught:
        of(*arguments)
    return caught.value


def with_override(members: list[dict], rank: int, **values: str) -> list[dict]:
    changed = copy.deepcopy(members)
    changed[rank]["comm_env_override"] = values
    return changed


def test_npu():
    found = [of(plan(), nodes(), rank=rank) for rank in range(2)]
    assert [one["node"] for one in found] == [
        {
            "GLOO_SOCKET_IFNAME": "eth0",
            "HCCL_IF_IP": f"192.0.2.{number}",
            "HCCL_SOCKET_IFNAME": "eth0",
            "TP_SOCKET_IFNAME": "eth0",
            "VLLM_HOST_IP": f"192.0.2.{number}",
        }
        for number in (1, 2)
    ]
    # 120 s of HCCL's own, 5 s for the second node, and 700 GB at 500 MB/s.
    assert found[0]["group"] == {"HCCL_CONNECT_TIMEOUT": "1525", "HCCL_IF_BASE_PORT": "61000"} == found[1]["group"]
    assert found[0]["notes"] == []


def test_only_engines_of_the_vllm_family_are_told_the_host_address():
    assert "VLLM_HOST_IP" not in of(plan(engine="mindie"), nodes())["node"]
    assert "VLLM_HOST_IP" in of(plan(engine="vllm_mindspore"), nodes())["node"]


def test_the_timeout_of_hccl_follows_nodes_and_disks():
    known = {f"node{rank}": facts(rank + 1, read_rate={"bytes_per_s": 2e9 + rank * 1e9}) for rank in range(4)}
    assert of(plan(), nodes(4), known)["group"]["HCCL_CONNECT_TIMEOUT"] == str(120 + 3 * 5 + 350)
    assert of(plan(), nodes(1))["group"]["HCCL_CONNECT_TIMEOUT"] == "120"
    known = {f"node{rank}": facts(rank + 1, read_rate={"bytes_per_s": 1e6}) for rank in range(2)}
    assert of(plan(), nodes(2), known)["group"]["HCCL_CONNECT_TIMEOUT"] == "7200"
    unmeasured = {f"node{rank}": facts(rank + 1, read_rate=None) for rank in range(2)}
    assert of(plan(), nodes(2), unmeasured)["group"]["HCCL_CONNECT_TIMEOUT"] == "1525"


@given(
    count=st.integers(1, 64),
    size=st.integers(0, 10**13),
    rate=st.one_of(st.none(), st.floats(1, 1e11)),
)
def test_the_timeout_of_hccl_keeps_its_bounds_and_grows(count, size, rate):
    known = {f"node{rank}": {"read_rate": {"bytes_per_s": rate}} for rank in range(count + 1)}
    what = {**plan(), "weights": {"bytes": size}}
    seconds = [int(of(what, nodes(many), known)["group"]["HCCL_CONNECT_TIMEOUT"]) for many in (count, count + 1)]
    assert 120 <= seconds[0] <= seconds[1] <= 7200


@pytest.mark.parametrize(
    ("local", "reserved", "told"),
    [
        ("32768\t60999", "", False),
        ("1024\t65535", "", True),
        ("1024\t65535", "8000,61000-61031", False),
        ("1024\t65535", "61000-61030", True),
        ("1024 61000", "", True),
        ("61031 65535", "", True),
        ("61032 65535", "", False),
        ("", "", False),
        (None, None, False),
    ],
)
def test_ports_of_hccl_that_the_kernel_may_give_away(local, reserved, told):
    settings = {"net.ipv4.ip_local_port_range": local, "net.ipv4.ip_local_reserved_ports": reserved}
    notes = of(plan(), nodes(1), {"node0": facts(1, sysctl=settings)})["notes"]
    assert [("61000-61031" in note and "node0" in note) for note in notes] == [True] * told


def test_ports_of_hccl():
    assert list(communication.hccl_ports(plan())) == list(range(61000, 61032))
    assert communication.hccl_ports(plan("gpu")) == communication.hccl_ports(plan("")) == {}


def test_a_host_without_an_address_yet_gets_none():
    members = [{**nodes(1)[0], "address": "", "interface": ""}]
    assert of(plan(), members, {})["node"] == {}
    assert gpu(members, {})["node"] == {}


def test_cpu():
    found = of(plan("", "vllm_cpu"), nodes(2), {}, 1)
    assert found["node"] == {"GLOO_SOCKET_IFNAME": "eth0", "VLLM_HOST_IP": "192.0.2.2"}
    assert found["group"] == {} and found["notes"] == []


def test_gpu_with_roce():
    known = {
        "node0": facts(1, rdma("mlx5_10", "10.0.1.1"), rdma("mlx5_2", "10.0.0.1")),
        "node1": facts(2, rdma("mlx5_0", "10.0.0.2", 5), rdma("mlx5_1", "10.0.1.2", 5)),
    }
    found = [gpu(nodes(), known, rank) for rank in range(2)]
    assert found[0]["node"] == {
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_IB_GID_INDEX": "3",
        "NCCL_IB_HCA": "=mlx5_2:1,mlx5_10:1",
        "NCCL_SOCKET_IFNAME": "=eth0",
        "VLLM_HOST_IP": "192.0.2.1",
    }
    assert (found[1]["node"]["NCCL_IB_HCA"], found[1]["node"]["NCCL_IB_GID_INDEX"]) == ("=mlx5_0:1,mlx5_1:1", "5")
    assert found[0]["group"] == {} and found[0]["notes"] == []


def test_gpu_with_infiniband_names_no_gid():
    known = {
        f"node{rank}": facts(rank + 1, rdma("mlx5_0", layer="InfiniBand"), rdma("mlx5_1", f"10.0.0.{rank + 1}"))
        for rank in range(2)
    }
    found = gpu(nodes(), known)
    assert found["node"]["NCCL_IB_HCA"] == "=mlx5_0:1"
    assert "NCCL_IB_GID_INDEX" not in found["node"] and found["notes"] == []


@pytest.mark.parametrize(
    "device",
    [
        None,
        rdma("mlx5_0", "10.0.0.2", state="1: DOWN"),
        rdma("mlx5_0"),
        rdma("mlx5_0", "169.254.3.4"),
        rdma("mlx5_0", layer="InfiniBand"),
    ],
    ids=["no device", "not active", "no address", "link-local", "other fabric"],
)
def test_a_node_without_rdma_puts_the_whole_group_on_sockets(device):
    known = {"node0": facts(1, rdma("mlx5_0", "10.0.0.1")), "node1": facts(2, *([device] if device else []))}
    for rank in range(2):
        found = gpu(nodes(), known, rank)
        assert found["group"] == {"NCCL_IB_DISABLE": "1"}
        assert not {"NCCL_IB_HCA", "NCCL_IB_GID_INDEX"} & set(found["node"])
        assert "node1" in found["notes"][0] and "sockets" in found["notes"][0]


def test_a_port_that_only_one_node_has_is_left_out():
    known = {
        "node0": facts(1, rdma("mlx5_0", "10.0.0.1"), rdma("mlx5_1", "10.0.7.1")),
        "node1": facts(2, rdma("mlx5_0", "10.0.0.2")),
    }
    found = gpu(nodes(), known)
    assert found["node"]["NCCL_IB_HCA"] == "=mlx5_0:1"
    assert found["notes"] == ["NCCL does not use mlx5_1 of node0: not every other node is in its network"]


def test_the_gid_of_the_common_network_is_taken():
    port = rdma("mlx5_0", "10.0.7.1", 3)
    port["ports"][0]["gids"].append({"index": 7, "gid": mapped("10.0.0.1"), "type": "RoCE v2", "netdev": "vlan"})
    found = gpu(nodes(), {"node0": facts(1, port), "node1": facts(2, rdma("mlx5_0", "10.0.0.2"))})
    assert found["node"]["NCCL_IB_GID_INDEX"] == "7"


def test_routed_roce_is_used_and_told():
    known = {"node0": facts(1, rdma("mlx5_0", "10.0.0.1")), "node1": facts(2, rdma("mlx5_0", "10.0.1.2"))}
    found = gpu(nodes(), known)
    assert found["node"]["NCCL_IB_HCA"] == "=mlx5_0:1"
    assert "10.0.0.0/24, 10.0.1.0/24" in found["notes"][0]


def test_a_gid_index_that_differs_between_ports_is_left_to_nccl():
    known = {
        f"node{rank}": facts(rank + 1, rdma("a", f"10.0.0.{rank + 1}", 3), rdma("b", f"10.0.1.{rank + 1}", 4))
        for rank in range(2)
    }
    found = gpu(nodes(), known)
    assert "NCCL_IB_GID_INDEX" not in found["node"]
    assert "indexes 3, 4" in found["notes"][0]


def test_rdma_that_is_not_known_is_left_to_nccl():
    known = {"node0": facts(1, rdma("mlx5_0", "10.0.0.1")), "node1": {}}
    found = gpu(nodes(), known)
    assert found["group"] == {} and "NCCL_IB_HCA" not in found["node"]
    assert found["notes"] == ["which RDMA node1 has is not known: it is left to NCCL"]


def test_one_node_needs_no_rdma():
    found = gpu(nodes(1), {"node0": facts(1, rdma("mlx5_0", "10.0.0.1"))})
    assert set(found["node"]) == {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "VLLM_HOST_IP"}


def test_the_engine_goes_before_what_is_derived():
    found = of(plan(), nodes(), engine={"HCCL_BUFFSIZE": "200", "HCCL_CONNECT_TIMEOUT": "7200"})
    assert found["group"]["HCCL_CONNECT_TIMEOUT"] == "7200" and found["group"]["HCCL_BUFFSIZE"] == "200"
    found = of(plan(), nodes(), engine={"GLOO_SOCKET_IFNAME": "lo"})
    assert found["group"]["GLOO_SOCKET_IFNAME"] == "lo" and "GLOO_SOCKET_IFNAME" not in found["node"]
    known = {f"node{rank}": facts(rank + 1, rdma("mlx5_0", f"10.0.0.{rank + 1}")) for rank in range(2)}
    assert "NCCL_IB_HCA" not in gpu(nodes(), known, engine={"NCCL_IB_DISABLE": "1"})["node"]


def test_the_user_goes_before_all_and_is_told():
    what = plan()
    what["serving"] = {"comm_env": {"HCCL_CONNECT_TIMEOUT": "600", "HCCL_DETERMINISTIC": "true"}}
    found = of(what, nodes(), engine={"HCCL_CONNECT_TIMEOUT": "7200"})
    assert found["group"]["HCCL_CONNECT_TIMEOUT"] == "600" and found["group"]["HCCL_DETERMINISTIC"] == "true"
    assert found["notes"] == ["node0: llm_comm_env sets HCCL_CONNECT_TIMEOUT to 600; the plan had 7200"]


def test_a_host_goes_before_the_deployment():
    what = plan("gpu", "vllm")
    what["serving"] = {"comm_env": {"NCCL_SOCKET_IFNAME": "eth"}}
    members = with_override(nodes(), 0, NCCL_SOCKET_IFNAME="=eth0")
    known = {f"node{rank}": facts(rank + 1) for rank in range(2)}
    assert of(what, members, known, 0)["node"]["NCCL_SOCKET_IFNAME"] == "=eth0"
    assert of(what, members, known, 1)["node"]["NCCL_SOCKET_IFNAME"] == "eth"


def test_another_interface_with_its_address():
    members = with_override(nodes(), 0, HCCL_IF_IP="10.0.3.1", HCCL_SOCKET_IFNAME="rail3")
    found = of(plan(), members)
    assert (found["node"]["HCCL_IF_IP"], found["node"]["HCCL_SOCKET_IFNAME"]) == ("10.0.3.1", "rail3")
    assert len(found["notes"]) == 2


@pytest.mark.parametrize(
    ("values", "wanted", "found"),
    [
        ({"HCCL_IF_IP": "192.0.2.2"}, "an address of this host", "192.0.2.1 on eth0"),
        ({"VLLM_HOST_IP": "localhost"}, "an address of this host", "192.0.2.1 on eth0"),
        ({"HCCL_SOCKET_IFNAME": "eno1"}, "eth0, rail0", "no interface of that name"),
        ({"GLOO_SOCKET_IFNAME": "rail0"}, "the interface that holds 192.0.2.1", "rail0 holds 10.0.0.1"),
        ({"GLOO_SOCKET_IFNAME": "rail"}, "eth0, rail0", "no interface of that name"),
        ({"NCCL_SOCKET_IFNAME": "rail"}, "the interface that holds 192.0.2.1", "rail holds 10.0.0.1, 10.0.1.1"),
        ({"NCCL_SOCKET_IFNAME": "^eth"}, "the interface that holds 192.0.2.1", "10.0.7.1"),
        ({"NCCL_SOCKET_IFNAME": "=rail"}, "eth0, rail0", "no interface of that name"),
        ({"HCCL_IF_IP": "10.0.3.1", "HCCL_SOCKET_IFNAME": "eth0"}, "the interface that holds 10.0.3.1", "192.0.2.1"),
        ({"HCCL_CONNECT_TIMEOUT": "60"}, "from 120 to 7200", "60"),
        ({"HCCL_CONNECT_TIMEOUT": "two hours"}, "from 120 to 7200", "two hours"),
    ],
)
def test_what_contradicts_the_host_is_refused(values, wanted, found):
    what = plan()
    what["serving"] = {"comm_env": values}
    error = refusal(what, nodes())
    assert error.summary.startswith("node0: llm_comm_env sets ") and "llm_interface" in error.remedy
    assert wanted in error.wanted and found in error.found


@pytest.mark.parametrize("value", ["eth", "=eth0", "^rail", "^=rail0,rail1", "rail0,eth0", "=eth0,rail1"])
def test_patterns_that_take_the_interface(value):
    assert of(plan(), with_override(nodes(), 0, NCCL_SOCKET_IFNAME=value))["node"]["NCCL_SOCKET_IFNAME"] == value


@pytest.mark.parametrize(
    ("value", "index"),
    [("mlx5_1", "4"), ("=mlx5_0", "3"), ("=mlx5_0:1", "3"), ("^mlx5_0", "4"), ("^=mlx5_1:1", "3")],
)
def test_the_gid_index_follows_the_devices_that_the_user_takes(value, index):
    known = {
        f"node{rank}": facts(rank + 1, rdma("mlx5_0", f"10.0.0.{rank + 1}", 3), rdma("mlx5_1", "10.0.1.9", 4))
        for rank in range(2)
    }
    found = gpu(with_override(nodes(), 0, NCCL_IB_HCA=value), known)
    assert found["node"]["NCCL_IB_HCA"] == value and found["node"]["NCCL_IB_GID_INDEX"] == index


@pytest.mark.parametrize(
    ("values", "wanted", "found"),
    [
        ({"NCCL_IB_HCA": "mlx4"}, "mlx5_0:1", "no such port"),
        ({"NCCL_IB_HCA": "=mlx5_0:2"}, "mlx5_0:1", "no such port"),
        ({"NCCL_IB_HCA": "^mlx5"}, "mlx5_0:1", "no such port"),
        ({"NCCL_IB_HCA": "mlx5_1"}, "mlx5_0:1", "no such port"),
        ({"NCCL_IB_GID_INDEX": "9"}, "['0', '2', '3']", "no GID there on mlx5_0:1"),
    ],
)
def test_rdma_that_is_not_there_is_refused(values, wanted, found):
    down = rdma("mlx5_1", "10.0.0.9", state="1: DOWN")
    known = {f"node{rank}": facts(rank + 1, rdma("mlx5_0", f"10.0.0.{rank + 1}"), down) for rank in range(2)}
    members = with_override(nodes(), 0, **values)
    with pytest.raises(LlmError) as caught:
        gpu(members, known)
    assert wanted in caught.value.wanted and found in caught.value.found


def test_a_gid_index_that_is_there_or_left_to_nccl_is_taken():
    known = {f"node{rank}": facts(rank + 1, rdma("mlx5_0", f"10.0.0.{rank + 1}")) for rank in range(2)}
    for value in ("2", "-1"):
        found = gpu(with_override(nodes(), 0, NCCL_IB_GID_INDEX=value), known)
        assert found["node"]["NCCL_IB_GID_INDEX"] == value


def test_a_host_that_was_not_asked_is_believed():
    members = with_override(nodes(), 0, HCCL_IF_IP="203.0.113.5", HCCL_SOCKET_IFNAME="eno9")
    assert of(plan(), members, {})["node"]["HCCL_IF_IP"] == "203.0.113.5"


@pytest.mark.parametrize("others", [{}, {"NCCL_DEBUG": "WARN"}])
def test_a_group_variable_of_one_host_is_refused(others):
    members = with_override(nodes(3), 1, NCCL_DEBUG="INFO")
    members[0]["comm_env_override"] = members[2]["comm_env_override"] = others
    error = refusal(plan(), members)
    assert error.summary == "node0 and node1 differ in NCCL_DEBUG"
    assert "INFO on node1" in error.found and f"{others.get('NCCL_DEBUG', 'not set')} on node0" in error.found


def test_a_group_is_equal():
    members = [{"host": f"node{rank}", "comm_env": of(plan(), nodes(), rank=rank)} for rank in range(2)]
    communication.check_group(members)
    communication.check_group(members[:1])
    members[1]["comm_env"]["group"]["HCCL_BUFFSIZE"] = "64"
    with pytest.raises(LlmError, match="node0 and node1 differ in HCCL_BUFFSIZE") as caught:
        communication.check_group(members)
    assert caught.value.found == "not set on node0, 64 on node1"


def test_the_file():
    text = communication.render({"group": {"B": "1 2", "A": '{"x": 1}'}, "node": {"C": "=eth0"}})
    assert text == '# the same on every node of the group\nA={"x": 1}\nB=1 2\n# of this node\nC==eth0\n'
    found = of(plan(), nodes())
    assert found["text"] == communication.render(found)


BAD = [("A", "x\ny"), ("A", ""), ("A", " x"), ("A", "x "), ("A", "'x'"), ("A", '"x"'), ("A", "x\0"), ("1A", "x"),
       ("A B", "x"), ("A=", "x"), ("", "x")]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_a_file_cannot_hold_is_refused(name, value):
    with pytest.raises(LlmError, match="cannot be written to an env file"):
        communication.render({"group": {name: value}, "node": {}})
    with pytest.raises(ValueError, match=r"a name of|text on one line|without quotes"):
        communication.variables({name: value})


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,10}", fullmatch=True), st.text(min_size=1, max_size=30)))
def test_a_file_says_what_was_meant(values):
    try:
        text = communication.render({"group": {}, "node": values})
    except LlmError:
        odd = [
            value for value in values.values() if value != value.strip() or value[0] in "'\"" or not value.isprintable()
        ]
        assert odd
        return
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == values
    assert [line.strip() for line in lines] == lines


@pytest.mark.parametrize("value", [{"NCCL_IB_TIMEOUT": 22, "A": "x"}, '{"NCCL_IB_TIMEOUT": 22, "A": "x"}'])
def test_the_users_variables(value):
    assert communication.variables(value) == {"NCCL_IB_TIMEOUT": "22", "A": "x"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("NCCL_DEBUG=INFO", "a mapping"),
        (["A"], "a mapping"),
        ({"A": True}, "a text for A"),
        ({"A": None}, "a text for A"),
        ({"A": 1.5}, "a text for A"),
        ({"VLLM_API_KEY": "x"}, "no secret such as VLLM_API_KEY"),
        ({"hub_token": "x"}, "no secret such as hub_token"),
    ],
)
def test_what_is_no_variable(value, wanted):
    with pytest.raises(ValueError, match=wanted):
        communication.variables(value)
