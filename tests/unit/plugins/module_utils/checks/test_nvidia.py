# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest


def test_a_group_that_is_well_has_no_fault(nvidia):
    assert nvidia().faults() == []
    assert nvidia("n1", "n2", "n3", "n4", llm_model="deepseek-r1-bf16").faults() == []


def test_fp8_does_not_fit_one_h100_server(nvidia):
    found = nvidia("n1").the_fault()
    assert (found["check"], found["level"]) == ("device_memory", "fail")
    assert "experts over 8 of 8 devices 81.8 GB" in found["wanted"]


def test_fp8_on_a100_is_a_warning_with_its_reason(nvidia):
    group = nvidia()
    for facts in group.facts.values():
        for gpu in facts["gpu"]["gpus"]:
            gpu.update(name="NVIDIA A100-SXM4-80GB", memory_total_mib=81920, fabric_state="", fabric_status="")
    assert [(check, level) for _host, check, level in group.faults()] == [("precision", "warn")] * 2


@pytest.mark.parametrize(
    ("version", "driver", "level"),
    [
        ("0.33.0", "590.48.01", "ok"),
        ("0.33.0", "580.65.06", "ok"),
        ("0.33.0", "575.57.08", "fail"),
        ("0.12.0", "575.57.08", "ok"),
        ("0.12.0", "570.133.20", "warn"),
        ("0.12.0", "525.60.13", "warn"),
        ("0.12.0", "525.60.12", "fail"),
        ("0.12.0", "", "warn"),
    ],
)
def test_driver(nvidia, version, driver, level):
    group = nvidia(llm_engine_version=version)
    for facts in group.facts.values():
        facts["gpu"]["driver_version"] = driver
        facts["gpu"]["fabric_manager"]["version"] = driver
    assert {entry["level"] for entry in group.judge() if entry["check"] == "gpu_driver"} == {level}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"mig": True}, "MIG on: GPU 3"),
        ({"ecc_uncorrected": 2}, "errors: GPU 3"),
        ({"remap_pending": True}, "pending: GPU 3"),
        ({"retired_pending": True}, "pending: GPU 3"),
        ({"remap_failure": True}, "failed: GPU 3"),
        ({"reset_required": True}, "reset required: GPU 3"),
    ],
)
def test_health(nvidia, change, part):
    group = nvidia()
    group.facts["n2"]["gpu"]["gpus"][3].update(change)
    found = group.the_fault()
    assert (found["host"], found["check"], found["level"], found["found"]) == ("n2", "gpu_health", "fail", part)


def test_what_a_gpu_does_not_tell_is_no_fault(nvidia):
    group = nvidia()
    for gpu in group.facts["n1"]["gpu"]["gpus"]:
        gpu.update(mig=None, ecc_uncorrected=None, remap_pending=None, remap_failure=None, reset_required=None)
    assert group.faults() == []


@pytest.mark.parametrize(
    ("manager", "part"),
    [
        ({"active": False}, "installed and not running"),
        ({"active": False, "installed": False, "version": ""}, "not installed"),
        ({"version": "580.95.05"}, "fabric manager 580.95.05, driver 590.48.01"),
    ],
)
def test_fabric_manager(nvidia, manager, part):
    group = nvidia()
    group.facts["n1"]["gpu"]["fabric_manager"].update(manager)
    found = group.the_fault()
    assert (found["check"], found["level"]) == ("gpu_fabric", "fail")
    assert part in found["found"]


def test_fabric_that_has_not_finished(nvidia):
    group = nvidia()
    group.facts["n1"]["gpu"]["gpus"][0].update(fabric_state="In Progress", fabric_status="")
    assert group.the_fault()["found"] == "In Progress"


def test_cards_without_nvswitch_need_no_fabric_manager(nvidia):
    group = nvidia()
    for facts in group.facts.values():
        facts["gpu"]["fabric_manager"] = {"installed": False, "active": None, "version": "", "nvswitches": 0}
        for gpu in facts["gpu"]["gpus"]:
            gpu.update(fabric_state="", fabric_status="")
    assert group.faults() == []


@pytest.mark.parametrize(
    ("toolkit", "runtimes"),
    [({"installed": False, "version": ""}, ["nvidia"]), ({}, ["io.containerd.runc.v2"])],
)
def test_container_toolkit(nvidia, toolkit, runtimes):
    group = nvidia()
    group.facts["n2"]["gpu"]["container_toolkit"].update(toolkit)
    group.facts["n2"]["docker"]["engine"]["runtimes"] = runtimes
    assert group.the_fault()["check"] == "container_toolkit"


def test_gpus_that_a_reload_of_systemd_takes_away(nvidia):
    group = nvidia()
    group.facts["n2"]["docker"]["engine"]["cgroup_driver"] = "systemd"
    found = group.the_fault()
    assert (found["check"], found["level"]) == ("daemon_reload", "warn")
    group.facts["n2"]["gpu"]["device_links"] = True
    assert group.faults() == []


def test_a_lost_gpu(nvidia):
    group = nvidia()
    del group.facts["n2"]["gpu"]["gpus"][3]
    group.facts["n2"]["gpu"]["lost"] = [{"bus_id": "0000:38:00.0", "reason": "Unknown Error"}]
    found = group.the_fault()
    assert (found["check"], found["found"]) == ("devices", "7; not listed by nvidia-smi: 0000:38:00.0: Unknown Error")


def test_rdma(nvidia):
    group = nvidia()
    port = group.facts["n1"]["rdma"][0]["ports"][0]
    port["gids"][0]["type"] = "IB/RoCE v1"
    assert group.the_fault()["wanted"].startswith("a RoCE v2 entry")
    port["state"] = "1: DOWN"
    assert group.the_fault()["found"] == "mlx5_0/1 1: DOWN"
    group.facts["n1"]["rdma"] = []
    assert (group.the_fault()["check"], group.the_fault()["level"]) == ("rdma", "warn")


def test_infiniband_needs_no_roce_entry(nvidia):
    group = nvidia()
    group.facts["n1"]["rdma"][0]["ports"][0].update(link_layer="InfiniBand", gids=[])
    assert group.faults() == []
