# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The accelerators of a host, as discovery told of them or as its owner declares them. Pure."""

from __future__ import annotations

from .catalog import hardware


def devices_of(facts: dict, kind: str) -> list[dict]:
    """Return the accelerators that the vendor's tool of ``kind`` (npu, gpu) listed on a host."""
    found = (facts.get(kind) or {}).get("chips" if kind == "npu" else "gpus")
    return found if isinstance(found, list) else []


def wanted_devices(own: dict, facts: dict, release: dict) -> int:
    """Return how many accelerators a host should have: as its owner says, else as whole servers of its family have.

    What is listed is no measure: a device that has fallen off the bus is not in the list.
    """
    listed = devices_of(facts, release["accelerator"])
    names = [str(device.get("name")) for device in listed] or [own.get("llm_accelerator", "")]
    known = [entry["family"] for entry in map(hardware.chip, names) if entry]
    family = known[0] if known else release["families"][0]
    return own.get("llm_accelerators") or max(len(listed), hardware.FAMILIES[family]["per_host"])
