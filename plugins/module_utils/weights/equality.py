# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether all nodes hold the same weights, in one table."""

from __future__ import annotations

import collections

# Enough to tell two digests apart by eye; the comparison is by all 64.
TREE_DIGITS = 12
# Of the wrong files of a host; the result of its verification has them all.
FILES_SHOWN = 3
_HEADINGS = ("host", "files", "bytes", "verified", "tree", "wrong")


def table(results: dict[str, object]) -> dict:
    """Compare the nodes of one deployment.

    :param results: {host: result of verify.verify, or {"msg": ...} of one that failed; anything else is no answer}
    :return: equal (all answered, and hold the same), rows[] of {host, files, bytes, verified, tree, wrong[], error},
        text (the rows as a table, and what follows from them)
    """
    rows = [_row(host, results[host]) for host in sorted(results)]
    trees = collections.Counter(row["tree"] for row in rows if row["tree"])
    equal = len(trees) == 1 and all(row["tree"] for row in rows)
    lines = _columns([_HEADINGS, *(_cells(row) for row in rows)])
    return {"equal": equal, "rows": rows, "text": "\n".join([*lines, _sum(rows, trees)])}


def _row(host: str, result: object) -> dict:
    row = {"host": host, "files": 0, "bytes": 0, "verified": False, "tree": "", "wrong": [], "error": ""}
    if not isinstance(result, dict) or not isinstance(result.get("tree"), str) or not result["tree"]:
        said = result.get("msg") if isinstance(result, dict) else None
        return dict(row, error=str(said or "no answer"))
    wrong = [f"{problem['path']} ({problem['reason']})" for problem in result["corrupt"]]
    wrong += [f"{path} (missing)" for path in result["missing"]]
    wrong += [f"{path} (not in the lock)" for path in result["unexpected"]]
    return dict(row, wrong=wrong, **{key: result[key] for key in ("files", "bytes", "verified", "tree")})


def _cells(row: dict) -> tuple[str, ...]:
    if row["error"]:
        return (row["host"], "-", "-", "no", "-", row["error"].splitlines()[0])
    more = len(row["wrong"]) - FILES_SHOWN
    wrong = ", ".join(row["wrong"][:FILES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    verified = "yes" if row["verified"] else "no"
    return (row["host"], str(row["files"]), str(row["bytes"]), verified, row["tree"][:TREE_DIGITS], wrong or "-")


def _columns(lines: list[tuple[str, ...]]) -> list[str]:
    # Names of strays come from whoever put them there.
    lines = [tuple(_printable(cell) for cell in line) for line in lines]
    widths = [max(len(line[at]) for line in lines) for at in range(len(_HEADINGS) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]]) for line in lines]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _sum(rows: list[dict], trees: collections.Counter) -> str:
    """Return the line that says what the table shows."""
    silent = [row["host"] for row in rows if not row["tree"]]
    parts = [_sameness(rows, trees)] if trees else []
    if silent:
        parts.append(f"{len(silent)} of {len(rows)} did not say what they hold: {_printable(', '.join(silent))}")
    if trees and not silent and len(trees) == 1 and not all(row["verified"] for row in rows):
        parts.append("it is not what the lock names")
    return "; ".join(parts) or "there are no nodes"


def _sameness(rows: list[dict], trees: collections.Counter) -> str:
    answered = [row for row in rows if row["tree"]]
    (most, count), *others = trees.most_common()
    if len(rows) == 1:
        return "there is one node"
    if not others:
        return f"all {count} nodes hold the same" if count == len(rows) else f"the {count} that answered hold the same"
    if others[0][1] == count:
        groups = [[row["host"] for row in answered if row["tree"] == tree] for tree in trees]
        return f"no majority holds the same: {_printable(' | '.join(', '.join(group) for group in groups))}"
    differ = [row["host"] for row in answered if row["tree"] != most]
    return f"{count} of {len(answered)} hold the same, these differ from them: {_printable(', '.join(differ))}"
