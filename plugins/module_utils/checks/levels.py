# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What checks return."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, FAIL = "ok", "warn", "fail"


class Verdict(NamedTuple):
    """One judgement of one host: ``level`` is ok, warn or fail; the others are sentences for a person."""

    level: str
    wanted: str
    found: str
    remedy: str


class HostVerdict(NamedTuple):
    """A judgement of a check over several hosts, with the host that it names."""

    host: str
    level: str
    wanted: str
    found: str
    remedy: str


def listed(values: list, most: int = 8) -> str:
    """Return values for a person, the first ``most`` of them."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
