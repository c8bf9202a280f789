# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

from ansible_collections.baremetal.llm.plugins.module_utils.checks import devices, gpu, group, machine, npu

PAGE = Path(__file__).parents[5] / "docs" / "preflight.md"
# Their verdicts have the name of what has to be equal.
CHECKS = {*machine.CHECKS, *devices.CHECKS, *npu.CHECKS, *gpu.CHECKS, *group.CHECKS, *group.EQUALITIES} - {"equal"}


def test_every_check_is_on_the_page_and_no_other():
    rows = [line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = {name.strip("` ") for row in rows for name in row.split(",")}
    modules = {"host_info", "npu_info", "gpu_info", "peer_probe"}
    assert listed - modules == CHECKS | {"facts", "discovery"}
