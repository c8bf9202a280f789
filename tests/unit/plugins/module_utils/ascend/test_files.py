# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.ascend import files
from hypothesis import given
from hypothesis import strategies as st

INSTALL = "UserName=HwHiAiUser\nUserGroup=HwHiAiUser\nDriver_Install_Type=full\n"
INSTALL += "Driver_Install_Path_Param=/opt/Ascend/\nDriver_Install_For_All=no\n"


@pytest.fixture
def lay(tmp_path):
    """Function that writes a file of a tree, such as lay("etc/x", "...")."""

    def write(name: str, content: str | bytes = "") -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def device(lay, bus_id: str, device_id: str, vendor: str = "0x19e5", kind: str = "0x120000") -> None:
    for name, value in (("vendor", vendor), ("device", device_id), ("class", kind)):
        lay(f"sys/bus/pci/devices/{bus_id}/{name}", value + "\n")


def test_nothing_is_there(tmp_path):
    root = str(tmp_path)
    assert files.install(root) == {"path": "", "user": "", "group": "", "for_all": None, "type": ""}
    assert files.versions("/usr/local/Ascend", root) == {"driver": {}, "firmware": {}}
    assert files.cann("/usr/local/Ascend", root) == []
    assert files.pci(root) == []
    assert files.device_nodes(root) == {"davinci": [], "manager": False, "devmm_svm": False, "hisi_hdc": False}
    assert files.read_text(str(tmp_path / "nothing")) == ("", "No such file or directory")
    assert files.read_text(root) == ("", "Is a directory")


def test_install(lay, tmp_path):
    lay("etc/ascend_install.info", INSTALL)
    assert files.install(str(tmp_path)) == {
        "path": "/opt/Ascend",
        "user": "HwHiAiUser",
        "group": "HwHiAiUser",
        "for_all": False,
        "type": "full",
    }


@pytest.mark.parametrize(
    ("text", "path", "for_all"),
    [
        ("Driver_Install_Path_Param=relative\nDriver_Install_For_All=perhaps", "", None),
        ("Driver_Install_For_All=YES", "", True),
        ("Driver_Install_Path_Param", "", None),
        ("", "", None),
    ],
)
def test_damaged_install(text, path, for_all):
    told = files.parse_install(text)
    assert (told["path"], told["for_all"]) == (path, for_all)


def test_versions(lay, tmp_path):
    lay("opt/Ascend/driver/version.info", "Version=24.1.0\nInnerversion=V1\n")
    lay("opt/Ascend/firmware/version.info", b"Version=7.5.0.1.129\n\xff\xfe=\n")
    told = files.versions("/opt/Ascend", str(tmp_path))
    assert told == {"driver": {"version": "24.1.0", "innerversion": "V1"}, "firmware": {"version": "7.5.0.1.129"}}


def test_cann_is_told_once(lay, tmp_path):
    base = "opt/Ascend/ascend-toolkit"
    lay(
        f"{base}/8.1.RC1/aarch64-linux/ascend_toolkit_install.info",
        "version=8.1.RC1\npath=/x\ncompatible_version=[V1]\n",
    )
    (tmp_path / base / "latest").symlink_to("8.1.RC1")
    lay("opt/Ascend/cann-9.0.0/ascend_toolkit_install.info", "version=9.0.0\n")
    lay("opt/Ascend/nnae/8.0.RC3/ascend_nnae_install.info", "no version")
    assert files.cann("/opt/Ascend", str(tmp_path)) == [
        {"version": "8.1.RC1", "path": "/x", "compatible_version": "[V1]"},
        {"version": "9.0.0", "path": "/opt/Ascend/cann-9.0.0", "compatible_version": ""},
    ]


@pytest.mark.parametrize(
    ("device_id", "family"),
    [("0xd100", "310"), ("0xd500", "310P"), ("0xd801", "910A"), ("0xD802", "910B"), ("0xd803", "A3")],
)
def test_families(lay, tmp_path, device_id, family):
    device(lay, "0000:c1:00.0", device_id)
    assert files.pci(str(tmp_path)) == [{"bus_id": "0000:c1:00.0", "device_id": device_id.lower(), "family": family}]


def test_other_devices_are_no_npu(lay, tmp_path):
    device(lay, "0000:01:00.0", "0x1822", kind="0x020000")  # a network card of the vendor
    device(lay, "0000:02:00.0", "0xa250", kind="0x120000")  # its compression engine
    device(lay, "0000:03:00.0", "0xd802", vendor="0x10de")
    device(lay, "0000:04:00.0", "0xd802")
    lay("sys/bus/pci/devices/0000:04:00.0/physfn")  # a virtual function
    device(lay, "0000:05:00.0", "0xd8ff")
    device(lay, "0000:06:00.0", "0xd8ff", kind="0x020000")
    lay("sys/bus/pci/devices/0000:07:00.0/vendor", b"\xff" * 100)
    assert files.pci(str(tmp_path)) == [{"bus_id": "0000:05:00.0", "device_id": "0xd8ff", "family": ""}]


def test_device_nodes(lay, tmp_path):
    for name in ("davinci0", "davinci10", "davinci2", "davinci_manager", "devmm_svm", "davincix", "xdavinci3"):
        lay(f"dev/{name}")
    assert files.device_nodes(str(tmp_path)) == {
        "davinci": [0, 2, 10],
        "manager": True,
        "devmm_svm": True,
        "hisi_hdc": False,
    }


@given(st.text(max_size=300))
def test_nothing_raises(text):
    assert isinstance(files.parse_info(text), dict)
    assert files.parse_install(text)["for_all"] in (None, True, False)


def test_files_are_not_read_without_end(lay, tmp_path):
    lay("large", b"a=1\n" * 1_000_000)
    text, reason = files.read_text(str(tmp_path / "large"))
    assert (len(text), reason) == (files.LIMIT, "")
