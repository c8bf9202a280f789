# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists of SHA-256 digests as sha256sum writes them.

Source: GNU coreutils' manual: DIGEST, a blank, a blank or an asterisk (read as binary), NAME. A line that begins with
a backslash has a name in which backslash, line feed and carriage return are written as two characters.
"""

from __future__ import annotations

import re

from ...errors import LlmError

NAME = "SHA256SUMS"
# 100,000 lines with names of 160 characters.
MOST_BYTES = 24 << 20

_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_TAGGED = re.compile(r"(\\?)SHA256 \((.+)\) = ([0-9a-fA-F]{64})", re.DOTALL)
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_REMEDY = "make it with: find . -type f ! -name SHA256SUMS -printf '%P\\0' | xargs -0 sha256sum > SHA256SUMS"


def parse(text: str, where: str) -> dict[str, str]:
    """Return {name: SHA-256} from the text of a SHA256SUMS; a leading "./" of a name is taken off.

    :param where: what the list is called in errors
    :raises LlmError: a line that cannot be read, a name given twice, or no line at all
    """
    found: dict[str, str] = {}
    if text and not text.endswith("\n"):
        raise _error(where, "a last line that ends in a line feed", "one that was cut")
    for number, line in enumerate(text.split("\n")[:-1], 1):
        line = line[:-1] if line.endswith("\r") else line
        if not line or line.startswith("#"):
            continue
        name, digest = _read(line, f"{where}, line {number}")
        if name in found:
            raise _error(where, "each name once", name)
        found[name] = digest
    if not found:
        raise _error(where, "lines with a SHA-256 and a name", "none")
    return found


def _read(line: str, where: str) -> tuple[str, str]:
    plain, tagged = _LINE.fullmatch(line), _TAGGED.fullmatch(line)
    if plain:
        escaped, digest, name = plain.groups()
    elif tagged:
        escaped, name, digest = tagged.groups()
    else:
        raise _error(where, "SHA-256, two blanks, name", line)
    if escaped:
        if re.sub(r"\\[\\nr]", "", name).count("\\"):
            raise _error(where, "a name in which backslashes are doubled", line)
        name = re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)
    while name.startswith("./"):
        name = name[2:]
    return name, digest.lower()


def _error(where: str, wanted: str, found: str) -> LlmError:
    return LlmError(f"{where} cannot be read", wanted=wanted, found=ascii(found[:120]), remedy=_REMEDY)
