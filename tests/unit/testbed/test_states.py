# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""States: what they may hold, the ready-made ones, hosts made from them, and the tree that a host gets."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from ansible_collections.baremetal.llm.tests.testbed import states
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import layout
from ansible_collections.baremetal.llm.tests.testbed.emulators.emulation import state as emulated
from hypothesis import given
from hypothesis import strategies as st

CHIP = {
    "npu_id": 0,
    "logic_id": 0,
    "phy_id": 0,
    "name": "910B4",
    "bus_id": "0000:C1:00.0",
    "memory_total_mib": 32768,
}
BAD = [
    ({"colour": 1}, "state: unknown keys: colour"),
    ({"hostname": 1}, "state.hostname: wants str, not 1"),
    ([], "state: wants a mapping, not []"),
    ({"ascend": {"version": "1"}}, "state.ascend: lacks layout"),
    ({"ascend": {"layout": "910C", "version": "1"}}, "state.ascend.layout: '910C' is none of 910A, "),
    ({"ascend": {"layout": "A3", "version": 25}}, "state.ascend.version: wants str, not 25"),
    ({"ascend": {"layout": "A3", "version": "1", "chips": {}}}, "state.ascend.chips: wants a list"),
    (
        {"ascend": {"layout": "A3", "version": "1", "chips": [CHIP, {**CHIP, "temperature_c": True}]}},
        "state.ascend.chips[1].temperature_c: wants int, not True",
    ),
    (
        {"ascend": {"layout": "A3", "version": "1", "chips": [{**CHIP, "power_w": "9"}]}},
        "state.ascend.chips[0].power_w: wants int or float, not '9'",
    ),
    ({"faults": {"npu-smi": {}}}, "state.faults: unknown keys: npu-smi"),
    ({"faults": {"npu_smi": {"hangs": 1}}}, "state.faults.npu_smi: unknown keys: hangs"),
    ({"faults": {"hccn_tool": {"failure": "dcmi_init"}}}, "state.faults.hccn_tool.failure: 'dcmi_init' is none of "),
    ({"fabric": {"10.0.0.1": {"up": True}}}, "state.fabric.10.0.0.1: unknown keys: up"),
]


@pytest.mark.parametrize(("state", "error"), BAD)
def test_whatever_is_not_known_is_refused_by_its_place(state, error):
    with pytest.raises(emulated.StateError) as caught:
        emulated.validate(state)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize("name", states.names())
def test_a_complete_state_stays_as_it_is(name):
    state = states.load(name)
    assert emulated.validate(json.loads(json.dumps(state))) == state


def test_the_ready_made_states():
    sizes = {}
    for name in states.names():
        state = states.load(name)
        chips = state["ascend"]["chips"] if state["ascend"] else []
        cards = state["nvidia"]["gpus"] if state["nvidia"] else []
        assert len({chip["phy_id"] for chip in chips}) == len(chips)
        sizes[name] = (len(chips), len(cards), sum(item["memory_total_mib"] for item in chips + cards))
    assert sizes == {
        "a2_910b3": (8, 0, 8 * 65536),
        "a2_910b4": (8, 0, 8 * 32768),
        "a2_910b4_1": (8, 0, 8 * 65536),
        "a3": (16, 0, 16 * 65536),
        "ascend_950": (8, 0, 8 * 86016),
        "bare": (0, 0, 0),
        "dgx_a100": (0, 8, 8 * 81920),
        "duo_310p3": (8, 0, 4 * (44280 + 43693)),
        "h100x8": (0, 8, 8 * 81559),
        "h200x8": (0, 8, 8 * 143771),
    }


def test_a_file_that_is_no_state(tmp_path):
    for content in ("a: [", "- 1", "hostname: [1]"):
        path = tmp_path / "state.yml"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(emulated.StateError):
            states.load(path)
    with pytest.raises(emulated.StateError, match="nowhere"):
        states.load(tmp_path / "nowhere.yml")


def test_a_state_as_json():
    code = "import sys; from ansible_collections.baremetal.llm.tests.testbed import states; sys.exit(states.main())"
    good = subprocess.run([sys.executable, "-c", code, "a3"], capture_output=True, check=True)
    assert json.loads(good.stdout) == states.load("a3")
    bad = subprocess.run([sys.executable, "-c", code, "nothing"], capture_output=True, check=False)
    assert bad.returncode == 1
    assert b"No such file" in bad.stderr
    assert b"Traceback" not in bad.stderr


def test_hosts_made_from_one_template():
    first = states.host("a2_910b4_1", hostname="n1", first_address="10.9.0.10")
    second = states.host(first, hostname="n2", first_address="10.9.1.250", ascend={"compatibility": "NOK"})
    assert (first["hostname"], second["hostname"]) == ("n1", "n2")
    assert [device["ip"] for device in first["ascend"]["network"]][:2] == ["10.9.0.10", "10.9.0.11"]
    assert second["ascend"]["network"][7]["ip"] == "10.9.2.1"
    assert second["ascend"]["network"][7]["conf"]["address"] == "10.9.2.1"
    assert (first["ascend"]["compatibility"], second["ascend"]["compatibility"]) == ("OK", "NOK")
    assert second["ascend"]["chips"] == first["ascend"]["chips"]
    with pytest.raises(emulated.StateError, match="unknown keys: colour"):
        states.host("bare", colour="red")


def test_lines_of_hccn_conf_may_differ_from_the_device_or_be_missing(tmp_path):
    network = [
        {"phy_id": 0, "ip": "10.0.0.1", "conf": {"address": "10.0.0.9", "arp": "-i eth0 -s 10.0.0.2 aa:bb"}},
        {"phy_id": 1, "ip": "10.0.0.2", "conf": None},
        {"phy_id": 2, "ip": "10.0.0.3", "gateway": "10.0.0.254", "tls": True},
    ]
    layout.lay_out({"ascend": {"layout": "910B", "version": "24.1.0", "network": network}}, str(tmp_path))
    path = tmp_path / "etc/hccn.conf"
    assert path.read_text(encoding="utf-8").splitlines() == [
        "address_0=10.0.0.9",
        "arp_0=-i eth0 -s 10.0.0.2 aa:bb",
        "address_2=10.0.0.3",
        "netmask_2=255.255.255.0",
        "gateway_2=10.0.0.254",
        "tls_enable_2=1",
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def _files(root) -> set:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_tree_of_an_ascend_host(tmp_path):
    state = states.load("duo_310p3")
    layout.lay_out(state, str(tmp_path))
    devices = {
        f"sys/bus/pci/devices/0000:0{number}:00.0/{name}"
        for number in range(6, 10)
        for name in ("vendor", "device", "class")
    }
    nodes = {f"dev/davinci{number}" for number in range(8)} | {"dev/davinci_manager", "dev/devmm_svm", "dev/hisi_hdc"}
    toolkit = "usr/local/Ascend/ascend-toolkit"
    assert _files(tmp_path) == {
        "etc/llm-testbed/state.json",
        "etc/ascend_install.info",
        "usr/local/Ascend/driver/version.info",
        "usr/local/Ascend/firmware/version.info",
        "usr/local/bin/npu-smi",
        "usr/local/Ascend/driver/tools/hccn_tool",
        f"{toolkit}/8.2.RC1/x86_64-linux/ascend_toolkit_install.info",
        f"{toolkit}/latest",
        *devices,
        *nodes,
    }
    assert (tmp_path / toolkit / "latest/x86_64-linux/ascend_toolkit_install.info").is_file()
    chip = tmp_path / "sys/bus/pci/devices/0000:06:00.0"
    assert [(chip / name).read_text(encoding="utf-8") for name in ("vendor", "device", "class")] == [
        "0x19e5\n",
        "0xd500\n",
        "0x120000\n",
    ]
    assert json.loads((tmp_path / "etc/llm-testbed/state.json").read_text(encoding="utf-8")) == state
    asked = subprocess.run(
        [tmp_path / "usr/local/bin/npu-smi", "info", "-l"],
        env={**os.environ, "LLM_TESTBED_STATE": str(tmp_path / "etc/llm-testbed/state.json")},
        capture_output=True,
        check=True,
    )
    assert asked.stdout.startswith(b"\tTotal Count                    : 4\n")


def test_tree_of_an_nvidia_host(tmp_path):
    layout.lay_out(states.load("dgx_a100"), str(tmp_path))
    devices = tmp_path / "sys/bus/pci/devices"
    kinds = sorted((path / "class").read_text(encoding="utf-8").strip() for path in devices.iterdir())
    assert kinds == ["0x030200"] * 8 + ["0x068000"] * 6
    assert (devices / "0000:07:00.0/device").read_text(encoding="utf-8") == "0x20b2\n"
    assert {(path / "vendor").read_text(encoding="utf-8") for path in devices.iterdir()} == {"0x10de\n"}
    assert "Kernel Module  535.104.05 " in (tmp_path / "proc/driver/nvidia/version").read_text(encoding="utf-8")
    assert "GPU-00000000-" in (tmp_path / "proc/driver/nvidia/gpus/0000:07:00.0/information").read_text(
        encoding="utf-8"
    )
    assert (tmp_path / "sys/module/nvidia_peermem").is_dir()

    def ask(name: str, *arguments: str) -> tuple:
        done = subprocess.run([tmp_path / "usr/bin" / name, *arguments], capture_output=True, check=False)
        return done.returncode, done.stdout.decode()

    assert ask("nv-fabricmanager", "--version") == (0, "Fabric Manager version is : 535.104.05\n")
    assert ask("nvidia-ctk", "--version") == (0, "NVIDIA Container Toolkit CLI version 1.17.8\n")
    assert ask("systemctl", "is-active", "nvidia-fabricmanager") == (0, "active\n")
    assert ask("systemctl", "is-active", "sshd") == (3, "inactive\n")
    assert ask("systemctl", "restart", "nvidia-fabricmanager") == (1, "")


def test_tree_of_hosts_that_lack_something(tmp_path):
    layout.lay_out(states.load("bare"), str(tmp_path / "bare"))
    assert _files(tmp_path / "bare") == {"etc/llm-testbed/state.json"}
    state = states.host(
        "h100x8",
        faults={"nvidia_smi": {"missing": True}},
        nvidia={"fabric_manager": {"active": False}, "container_toolkit": {"installed": False}},
    )
    layout.lay_out(state, str(tmp_path / "h100"), emulators="/opt/emulators")
    assert not (tmp_path / "h100/usr/bin/nvidia-smi").is_symlink()
    assert not (tmp_path / "h100/usr/bin/nvidia-ctk").exists()
    asked = [tmp_path / "h100/usr/bin/systemctl", "is-active", "nvidia-fabricmanager"]
    assert subprocess.run(asked, capture_output=True, check=False).returncode == 3


def test_links_lead_where_the_emulators_are_on_the_host(tmp_path):
    layout.lay_out(states.load("a3"), str(tmp_path), emulators="/opt/emulators")
    assert os.readlink(tmp_path / "usr/local/bin/npu-smi") == "/opt/emulators/npu-smi"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["hostname", "ascend", "nvidia", "fabric", "faults", "other"])


@given(st.dictionaries(KEYS, ANYTHING))
def test_any_content_is_a_state_or_a_state_error(content):
    try:
        complete = emulated.validate(content)
    except emulated.StateError as error:
        assert str(error).startswith("state")
    else:
        assert set(complete) == {"hostname", "ascend", "nvidia", "fabric", "faults"}
