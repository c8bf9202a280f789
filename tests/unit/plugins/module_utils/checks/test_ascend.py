# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError

MINDSPORE = {"llm_engine": "vllm_mindspore", "llm_engine_version": "0.5.1"}


def test_a_group_that_is_well_has_no_fault(ascend):
    assert ascend().faults() == []
    assert ascend("a1", llm_model="deepseek-r1-a8w4", **MINDSPORE).faults() == []
    assert ascend("a1", "a2", "a3", "a4", llm_model="deepseek-r1-bf16").faults() == []


def test_every_requirement_of_a_group_that_is_well_is_told_as_ok(ascend):
    group = ascend()
    wanted = {entry["what"] if entry["check"] == "equal" else entry["check"] for entry in group.plan()["requirements"]}
    # What nothing is known of, or nothing is lacking in, has no verdict.
    assert wanted - {entry["check"] for entry in group.judge()} == {"precision", "image", "npu_addresses"}


def test_npus_that_do_not_answer_are_one_fault(ascend):
    group = ascend()
    group.facts["a2"]["npu"] = {"available": False, "reason": "dcmi -8005", "problems": ["dcmi -8005"], "chips": []}
    found = group.the_fault()
    assert (found["host"], found["check"], found["level"]) == ("a2", "devices", "fail")
    assert "8 NPUs" in found["wanted"]
    assert found["found"] == "dcmi -8005"


def test_a_lost_npu_is_one_fault_though_its_memory_is_missed_too(ascend):
    group = ascend()
    npu = group.facts["a2"]["npu"]
    del npu["chips"][3], npu["network"][3]
    npu["lost"] = [{"bus_id": "0000:C3:00.0", "reason": "on the bus, not listed"}]
    assert group.faults() == [("a2", "devices", "fail")]
    assert "0000:C3:00.0" in group.the_fault()["found"]
    npu.update(network=[], network_supported=None, network_reason="no chip has a physical id")
    group.facts["a1"]["peers"]["problems"] = ["a2 has no network device that can be pinged"]
    assert group.faults() == [("a2", "devices", "fail")]


def test_fewer_npus_than_a_server_has_unless_its_owner_says_so(ascend):
    group = ascend(llm_accelerators=4, llm_model="deepseek-r1-w8a8")
    for facts in group.facts.values():
        del facts["npu"]["chips"][4:], facts["npu"]["network"][4:]
    assert ("a1", "devices", "fail") not in group.faults()
    group.settings.pop("llm_accelerators")
    assert ("a1", "devices", "fail") in group.faults()


def test_cards_of_32_gb_are_refused_for_r1_on_two_nodes(ascend):
    group = ascend()
    for facts in group.facts.values():
        for chip in facts["npu"]["chips"]:
            chip.update(name="910B4", memory_total_mib=32768)
    assert [check for _host, check, _level in group.faults()] == ["device_memory"] * 2
    # Experts are spread over all devices: 652 GB over 64 are 10 GB each, beside 6 GB of other weights and 7 GB more.
    assert group.plan()["groups"][0]["fit"]["nodes"] == 8
    group = ascend()
    for chip in group.facts["a2"]["npu"]["chips"]:
        chip.update(name="910B4", memory_total_mib=32768)
    found = group.the_fault()  # that it differs from a1's is the same fault
    assert (found["host"], found["check"]) == ("a2", "device_memory")
    assert "34.4 GB" in found["found"]


def test_a_card_whose_memory_is_not_what_its_name_says(ascend):
    group = ascend()
    group.facts["a1"]["npu"]["chips"][0]["memory_total_mib"] = 61440
    found = group.the_fault()
    assert (found["check"], found["level"]) == ("device_memory", "warn")


def test_r1_on_300i_duo_is_refused_for_vllm_ascend_with_the_reason(ascend):
    group = ascend()
    for facts in group.facts.values():
        for chip in facts["npu"]["chips"]:
            chip.update(name="310P3", memory_total_mib=43693)
        facts["npu"].update(network_supported=False, network_reason="Atlas 300I Duo has no NPU port", network=[])
    with pytest.raises(LlmError, match="vllm_ascend") as caught:
        group.plan()
    assert "310P3" in caught.value.found
    assert "vllm_mindspore" in caught.value.remedy


def test_three_300i_duo_do_for_a8w8_and_two_for_a8w4(ascend):
    for model, count, enough in (
        ("deepseek-r1-a8w8", 3, True),
        ("deepseek-r1-a8w8", 2, False),
        ("deepseek-r1-a8w4", 2, True),
    ):
        names = [f"d{number}" for number in range(count)]
        group = ascend(*names, llm_model=model, **MINDSPORE)
        for facts in group.facts.values():
            facts["npu"].update(network_supported=False, network_reason="no NPU port", network=[])
            facts["npu"]["driver_version"] = "24.1.rc3"
            for chip in facts["npu"]["chips"]:
                chip.update(name="310P3", memory_total_mib=43693)
            for peer in facts["peers"]["device_pings"], facts["peers"]["connections"]:
                peer.clear()
            facts["peers"]["connections"] += [
                {"from": one, "to": other, "port": port, "ok": True, "reason": "", "ms": 1}
                for one in names
                for other in names
                if one != other
                for port in (8000, 6379)
            ]
        assert ({check for _host, check, _level in group.faults()} == set()) == enough


def test_kernel_of_the_hdk(ascend):
    group = ascend("d1", llm_model="deepseek-r1-a8w4", **MINDSPORE)
    facts = group.facts["d1"]
    facts["npu"]["driver_version"] = "24.1.RC3"
    assert not any(entry["wanted"].startswith("kernel") for entry in group.judge())
    facts["kernel"]["release"] = "6.6.0-28.0.0.34.oe2403.x86_64"
    assert any(entry["wanted"] == "kernel 5.10 for driver 24.1.RC3" for entry in group.judge())


@pytest.mark.parametrize(
    ("version", "driver", "level"),
    [
        ("0.13.0", "25.5.0", "ok"),
        ("0.13.0", "25.2.0", "warn"),
        ("0.13.0", "24.1.rc3", "fail"),
        ("0.13.0", "24.1.RC3", "fail"),
        ("0.13.0", "26.0.rc1", "ok"),
        ("0.23.0", "25.5.0", "fail"),
        ("0.23.0", "25.5.1", "ok"),
        ("0.13.0", "x.x.x", "warn"),
    ],
)
def test_driver(ascend, version, driver, level):
    group = ascend(llm_engine_version=version)
    for facts in group.facts.values():
        facts["npu"]["driver_version"] = driver
    levels = {entry["level"] for entry in group.judge() if entry["check"] == "npu_driver"}
    assert levels == {level}


def test_one_driver_that_is_too_old_is_not_told_as_a_difference_too(ascend):
    group = ascend()
    group.facts["a2"]["npu"]["driver_version"] = "24.1.rc3"
    assert group.faults() == [("a2", "npu_driver", "fail")]


def test_drivers_that_differ(ascend):
    group = ascend("a1", "a2", "a3", "a4", llm_model="deepseek-r1-bf16")
    group.facts["a2"]["npu"]["driver_version"] = "25.5.2"
    assert ("a2", "driver", "fail") in group.faults()
    group = ascend()
    group.facts["a1"]["npu"]["driver_version"] = "25.5.2"
    found = group.the_fault()
    assert (found["host"], found["wanted"]) == ("a2", "driver version 25.5.2, as a1 has")


@pytest.mark.parametrize(
    ("firmware", "compatibility", "window", "fails"),
    [
        ("7.8.0.5.216", "OK", "[7.0.0,7.8.99]", False),
        ("7.8.0.5.216", "NOK", "[7.0.0,7.8.99]", True),
        ("7.9.0", "OK", "[7.0.0,7.8.99]", True),
        ("6.4.12", "UNKNOWN", "[7.0.0,7.8.99]", True),
        ("7.1.0", "UNKNOWN", "", False),
        ("", "", "", False),
    ],
)
def test_firmware(ascend, firmware, compatibility, window, fails):
    group = ascend()
    for facts in group.facts.values():
        facts["npu"].update(firmware_version=firmware, compatibility=compatibility)
        facts["npu"]["versions"]["driver"]["compatible_version_fw"] = window
    levels = {entry["level"] for entry in group.judge() if entry["check"] == "npu_firmware"}
    assert levels == {"fail" if fails else "ok"}


@pytest.mark.parametrize(
    ("health", "level"), [("OK", "ok"), ("Warning", "warn"), ("Alarm", "fail"), ("Critical", "fail"), (None, "fail")]
)
def test_health(ascend, health, level):
    group = ascend()
    group.facts["a2"]["npu"]["chips"][7].update(health=health, error_codes=["A4025021"])
    if level == "ok":
        assert group.faults() == []
    else:
        assert (group.the_fault()["level"], group.the_fault()["check"]) == (level, "devices")
        assert "NPU 7" in group.the_fault()["found"]
        assert "A4025021" in group.the_fault()["found"]


def test_a_foreign_process_and_memory_without_one(ascend):
    group = ascend()
    npu = group.facts["a1"]["npu"]
    npu["chips"][4]["memory_used_mib"] = 52553
    assert "no process is listed" in group.the_fault()["found"]
    npu["processes"] = [{"npu_id": 4, "chip_id": 0, "pid": 957687, "name": "pt_main_thread", "memory_mib": 49207}]
    assert "pt_main_thread (pid 957687)" in group.the_fault()["found"]
    group.facts["a1"]["service"].update(running=True, pids=[957687])
    assert group.faults() == []


def test_a_link_that_is_down_is_one_fault_with_all_that_follows_from_it(ascend):
    group = ascend()
    port = group.facts["a2"]["npu"]["network"][3]
    port.update(link="DOWN", net_health="Fault")
    for facts in group.facts.values():
        for ping in facts["peers"]["device_pings"]:
            if (ping["from"], ping["from_phy_id"]) == ("a2", 3) or (ping["to"], ping["to_phy_id"]) == ("a2", 3):
                ping.update(received=0)
    found = group.the_fault()
    assert (found["host"], found["check"], found["found"]) == ("a2", "npu_network", "DOWN on device 3")


@pytest.mark.parametrize(("health", "ill"), [("Init", False), ("Success", False), ("Receive timeout", True)])
def test_net_health(ascend, health, ill):
    group = ascend()
    group.facts["a1"]["npu"]["network"][0]["net_health"] = health
    assert group.faults() == ([("a1", "npu_network", "fail")] if ill else [])


def test_an_address_that_is_not_set(ascend):
    group = ascend()
    group.facts["a1"]["npu"]["network"][2].update(ip="", netmask="")
    assert "none on device 2" in group.the_fault()["found"]


def test_hccn_conf_that_disagrees_with_the_device(ascend):
    group = ascend()
    group.facts["a1"]["npu"]["conf_disagreements"] = [
        {"phy_id": 6, "key": "address", "conf": "29.1.9.9", "device": "29.1.0.7"},
        {"phy_id": 7, "key": "netdetect", "conf": "0.0.0.0", "device": "29.1.0.254"},
    ]
    found = group.the_fault()
    assert found["found"] == "device 6 address 29.1.0.7, file 29.1.9.9"


def test_tls_switches_that_differ(ascend):
    group = ascend()
    for port in group.facts["a2"]["npu"]["network"]:
        port["tls"] = 1
    found = group.the_fault()
    assert (found["host"], found["check"], found["found"]) == ("a2", "tls", "on")


def test_one_npu_address_twice(ascend):
    group = ascend()
    network = group.facts["a2"]["npu"]["network"]
    network[5]["ip"] = "29.1.0.6"
    found = group.the_fault()
    assert (found["host"], found["check"]) == ("a2", "npu_addresses")
    assert "a1 device 5" in found["found"]


def test_two_subnets_without_a_gateway(ascend):
    group = ascend()
    for number, facts in enumerate(group.facts.values()):
        for port in facts["npu"]["network"]:
            port.update(ip=f"29.{number}.0.{port['phy_id'] + 1}", gateway="")
    assert [(host, check) for host, check, _level in group.faults()] == [("a2", "npu_addresses")]


def test_npus_that_do_not_reach_each_other(ascend):
    group = ascend()
    group.facts["a1"]["peers"]["device_pings"][2].update(received=0)
    found = group.the_fault()
    assert (found["host"], found["check"]) == ("a2", "npu_ping")
    assert "0 of 3 answers" in found["found"]


def test_device_nodes(ascend):
    group = ascend()
    group.facts["a1"]["npu"]["device_nodes"].update(hisi_hdc=False, manager=False)
    found = group.the_fault()
    assert found["found"] == "8 davinci nodes, no davinci_manager, hisi_hdc"


def test_hccn_tool_that_is_not_there(ascend):
    group = ascend()
    group.facts["a1"]["npu"].update(network_supported=None, network_reason="hccn_tool is not there", network=[])
    assert group.faults() == [("a1", "npu_network", "fail")]
