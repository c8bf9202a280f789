# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Orders the versions of Ascend drivers, firmware and CANN. Pure."""

from __future__ import annotations

import re

# What precedes the number of a part, from the earliest. T builds are handed out before the first candidate (8.0.T63,
# 8.0.RC1, 8.0.0). The end of a version comes before a further number of it: 24.1.0 is older than 24.1.0.1. A B part
# (21.0.4.B030) names a build of the version before it.
_RANKS = {"t": 0, "alpha": 1, "beta": 2, "rc": 3, "end": 4, "": 5, "b": 5}
_END = (_RANKS["end"], 0)
_PART = re.compile(r"(t|alpha|beta|rc|b|)([0-9]{1,9})")
_MAX_LENGTH = 64
_MAX_PARTS = 12


def key(text: object) -> tuple | None:
    """Return what sorts as the versions do, None for anything that is no version; never raises.

    24.1.rc3 < 24.1.rc3.1 < 24.1.0 < 24.1.0.1 < 25.0.rc1, and 8.0.T63 < 8.0.RC3 < 8.0.0 = 8.0, whatever the case.
    """
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        return None
    # Tags of the published driver write 9.0.0-rc.1.
    plain = re.sub(r"[.-](rc|alpha|beta)\.?", r".\1", text.strip().lower())
    parts = [_PART.fullmatch(part) for part in plain.split(".")]
    if not 2 <= len(parts) <= _MAX_PARTS or not all(parts):
        return None
    ranked: list[tuple[int, int]] = []
    for part in parts:
        rank = _RANKS[part.group(1)]
        if rank < _RANKS["end"]:
            _strip_zeros(ranked)  # 8.0.RC3 and 8.0.0-rc.3 are one
        ranked.append((rank, int(part.group(2))))
    if ranked[0][0] != _RANKS[""]:
        return None
    _strip_zeros(ranked)
    return (*ranked, _END)


def _strip_zeros(ranked: list[tuple[int, int]]) -> None:
    """Take trailing zeros off, all but the first number: 8.0 and 8.0.0 are one."""
    while len(ranked) > 1 and ranked[-1] == (_RANKS[""], 0):
        ranked.pop()
