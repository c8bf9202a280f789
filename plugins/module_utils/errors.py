# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception that the collection's logic raises for a reader.

Source of the four parts: a person who reads an error at night needs the host, what was wanted, what was found
and what to do; anything less sends them to the logs.
"""

from __future__ import annotations


class LlmError(Exception):
    """An error with its remedy.

    :param summary: one sentence that says what went wrong
    :param wanted: what would have been right
    :param found: what was there instead
    :param remedy: what the reader can do about it
    """

    def __init__(self, summary: str, *, wanted: str = "", found: str = "", remedy: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.wanted = wanted
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.summary]
        for label, text in (("wanted", self.wanted), ("found", self.found), ("remedy", self.remedy)):
            if text:
                parts.append(f"{label}: {text}")
        return "; ".join(parts)

    def as_result(self, host: str = "") -> dict:
        """Return the keyword arguments for ``fail_json``; ``host`` is the name of the machine that speaks."""
        message = f"{host}: {self}" if host else str(self)
        return {"msg": message, "wanted": self.wanted, "found": self.found, "remedy": self.remedy}
