# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of one Ascend host: driver, firmware, device nodes and the RoCE ports of its NPUs."""

from __future__ import annotations

from ..ascend import versions
from ..catalog import hardware
from .devices import available
from .levels import FAIL, OK, WARN, Verdict, listed


def _npu_driver(requirement: dict, facts: dict) -> list[Verdict]:
    if not available("npu", facts):
        return []
    version, driver = facts["npu"]["driver_version"], requirement["driver"]
    found = versions.key(version)
    if found is None:
        return [Verdict(WARN, f"driver {driver['advised']} or newer", version or "a driver of unknown version", "-")]
    level = FAIL if found < versions.key(driver["least"]) else WARN if found < versions.key(driver["advised"]) else OK
    least = "" if driver["least"] == driver["advised"] else f", at least {driver['least']}"
    judged = [
        Verdict(
            level,
            f"driver {driver['advised']} or newer{least}",
            version,
            f"install HDK {driver['advised']} or newer on all nodes and reboot, or choose an older llm_engine_version",
        )
    ]
    return judged + _kernel(version, facts)


def _kernel(version: str, facts: dict) -> list[Verdict]:
    rule = hardware.DRIVER_KERNELS.get(version.lower())
    release = facts["kernel"]["release"]
    if not rule or release.startswith(rule["kernel"] + "."):
        return []
    return [
        Verdict(
            FAIL,
            f"kernel {rule['kernel']} for driver {version}",
            release,
            f"boot a kernel {rule['kernel']}, or install a driver that supports this one",
        )
    ]


def _npu_firmware(_requirement: dict, facts: dict) -> list[Verdict]:
    """The driver's own verdict on its firmware, and the window that the driver's version.info states."""
    if not available("npu", facts):
        return []
    npu = facts["npu"]
    window = (npu["versions"].get("driver") or {}).get("compatible_version_fw", "")
    wanted = f"firmware that driver {npu['driver_version']} goes with" + (f" ({window})" if window else "")
    found = f"{npu['firmware_version'] or 'unknown'}, compatibility {npu['compatibility'] or 'not told'}"
    bad = npu["compatibility"] == "NOK" or _outside(npu["firmware_version"], window)
    remedy = "install the firmware of the same HDK, then reboot"
    return [Verdict(FAIL if bad else OK, wanted, found, remedy)]


def _outside(version: str, window: str) -> bool:
    """True when ``version`` is known not to lie in ``window``, such as [7.0.0,7.1.99]."""
    bounds = [versions.key(part) for part in window.strip("[]").split(",")]
    found = versions.key(version)
    if found is None or len(bounds) != 2 or None in bounds:
        return False
    return not bounds[0] <= found <= bounds[1]


def _npu_nodes(_requirement: dict, facts: dict) -> list[Verdict]:
    if not available("npu", facts):
        return []
    nodes, chips = facts["npu"]["device_nodes"], len(facts["npu"]["chips"])
    lacking = [name for name in ("manager", "devmm_svm", "hisi_hdc") if not nodes[name]]
    names = {"manager": "davinci_manager"}
    few = len(nodes["davinci"]) < chips
    return [
        Verdict(
            FAIL if lacking or few else OK,
            f"/dev/davinci0 to {chips - 1}, davinci_manager, devmm_svm, hisi_hdc",
            f"{len(nodes['davinci'])} davinci nodes"
            + (", no " + listed([names.get(name, name) for name in lacking]) if lacking else ""),
            "reload the driver or reboot; containers get these nodes",
        )
    ]


def _npu_network(_requirement: dict, facts: dict) -> list[Verdict]:
    """Each NPU's RoCE port is up, has an address, and has the one that /etc/hccn.conf will give it at the next boot."""
    npu = facts.get("npu") or {}
    if not available("npu", facts):
        return []
    if npu["lost"] and not npu["network"]:
        return []  # with a chip missing, the others' physical ids are not certain and were not asked by
    if npu["network_supported"] is not True:
        level = OK if npu["network_supported"] is False else FAIL
        reason = npu["network_reason"] or "hccn_tool did not answer"
        return [
            Verdict(level, "the state of the NPUs' own network", reason, "install the driver's hccn_tool; run as root")
        ]
    judged = [
        verdict
        for verdict in (_links(npu), _health(npu), _addresses(npu), _configured(npu), _unknown(npu))
        if verdict is not None
    ]
    return judged or [Verdict(OK, "every NPU port up and addressed", f"{len(npu['network'])} ports", "-")]


def dark_ports(npu: dict) -> set[int]:
    """Return the phy ids of NPU ports that are known to be down or without an address."""
    return {port["phy_id"] for port in npu["network"] if port["link"] == "DOWN" or not port["ip"]}


def _links(npu: dict) -> Verdict | None:
    down = [port["phy_id"] for port in npu["network"] if port["link"] == "DOWN"]
    if not down:
        return None
    return Verdict(
        FAIL,
        "link UP on every NPU port",
        "DOWN on device " + listed(down),
        "look at the optical module, the cable and the switch port (hccn_tool -i N -optical -g, -lldp -g)",
    )


def _health(npu: dict) -> Verdict | None:
    down = {port["phy_id"] for port in npu["network"] if port["link"] == "DOWN"}
    # Init only says that no address to detect is set; Success and Init are both counted as well by NPU exporters.
    ill = [
        f"device {port['phy_id']} {port['net_health']}"
        for port in npu["network"]
        if port["phy_id"] not in down and port["net_health"] not in ("Success", "Init", None, "")
    ]
    if not ill:
        return None
    return Verdict(
        FAIL,
        "net health Success on every NPU port",
        listed(ill),
        "the gateway or netdetect address does not answer: correct it in /etc/hccn.conf or on the switch",
    )


def _addresses(npu: dict) -> Verdict | None:
    bare = [port["phy_id"] for port in npu["network"] if not port["ip"] and port["link"] != "DOWN"]
    if not bare:
        return None
    return Verdict(
        FAIL,
        "an address on every NPU port",
        "none on device " + listed(bare),
        "hccn_tool -i N -ip -s address A netmask M, and the same in /etc/hccn.conf",
    )


def _configured(npu: dict) -> Verdict | None:
    # Only what moves traffic: a different address to detect does not.
    wrong = [entry for entry in npu["conf_disagreements"] if entry["key"] in ("address", "netmask", "gateway")]
    if not wrong:
        return None
    return Verdict(
        FAIL,
        "/etc/hccn.conf as the devices are",
        listed([f"device {entry['phy_id']} {entry['key']} {entry['device']}, file {entry['conf']}" for entry in wrong]),
        "make both the same: the file is what the device has after a reboot, and what some engines read",
    )


def _unknown(npu: dict) -> Verdict | None:
    untold = [port["phy_id"] for port in npu["network"] if port["link"] is None]
    if not untold:
        return None
    return Verdict(WARN, "the link state of every NPU port", "not told by device " + listed(untold), "run as root")


CHECKS = {
    "npu_driver": _npu_driver,
    "npu_firmware": _npu_firmware,
    "npu_nodes": _npu_nodes,
    "npu_network": _npu_network,
}
