# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTML for the report page: values of any type become text, text is escaped unless it is ``Markup`` already."""

from __future__ import annotations

import html
import json
import math
import re

from .planning.text import human_bytes

NOTHING = "–"
TEXT_LIMIT = 600
BLOCK_LIMIT = 12_000
ROW_LIMIT = 200

_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
# Control characters, lone surrogates (they cannot be written as UTF-8), and what turns the reading direction.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_LINKABLE = re.compile(r"https?://[\w.\-\[\]:%]+(?:[/?#][^\s<>\"'`\\]*)?", re.IGNORECASE | re.ASCII)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


# ---- reading values of unknown shape


def pick(value: object, *path: str) -> object:
    """Return what lies at ``path`` in nested dicts, None where a part of the path is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def dicts(value: object) -> list[dict]:
    """Return the dicts of a list, nothing for another type."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def items(value: object) -> list:
    """Return a list as it is; one value is a list of one, nothing is an empty one."""
    return value if isinstance(value, list) else [] if value in (None, "", {}) else [value]


def by_host(report: object) -> dict[str, dict]:
    """Return {host: entry} of a stage report that has ``hosts``."""
    hosts = pick(report, "hosts")
    return (
        {text(host): entry for host, entry in hosts.items() if isinstance(entry, dict)}
        if isinstance(hosts, dict)
        else {}
    )


def number(value: object) -> float | None:
    """Return a finite number, None for everything else (true is no number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def amount(value: object) -> float:
    """Return a number that is not negative; 0 for everything else."""
    return max(0.0, number(value) or 0.0)


def text(value: object, limit: int = TEXT_LIMIT) -> str:
    """Return any value as printable text of at most ``limit`` characters and a note of how many are left out."""
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    try:
        whole = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return "(cannot be shown)"
    cut = _TERMINAL_CODES.sub("", whole[: 2 * limit].replace("\r\n", "\n").replace("\r", "\n"))
    shown = _UNPRINTABLE.sub("\ufffd", cut[:limit])
    left = max(0, len(cut) - limit) + max(0, len(whole) - 2 * limit)
    return f"{shown} … ({left:,} more characters)" if left else shown


# ---- numbers in units that a person reads


def count(value: object) -> str:
    """Return a whole number with separators."""
    found = number(value)
    return NOTHING if found is None else f"{found:,.0f}" if abs(found) < 1e15 else f"{found:.3g}"


def plural(value: float, one: str, many: str = "") -> str:
    """Return "1 file", "2 files"."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def size(value: object) -> str:
    """Return bytes in decimal units."""
    found = number(value)
    return NOTHING if found is None or not 0 <= found < 1e21 else human_bytes(int(found)).replace(" ", "\u00a0")


def rate(volume: object, seconds: object) -> str:
    """Return bytes a second, nothing where one of both is zero."""
    moved, took = amount(volume), amount(seconds)
    return f"{size(moved / took)}/s" if moved and took and moved / took < 1e18 else NOTHING


def duration(value: object) -> str:
    """Return seconds as a person says them."""
    found = number(value)
    if found is None or not 0 <= found < 1e12:
        return NOTHING
    if found < 9.995:
        return f"{found:.2f}\u00a0s"
    if found < 59.95:
        return f"{found:.1f}\u00a0s"
    whole = round(found)
    if whole < 3600:
        return f"{whole // 60}\u00a0min {whole % 60}\u00a0s"
    return f"{whole // 3600:,}\u00a0h {whole % 3600 // 60}\u00a0min"


def milliseconds(value: object) -> str:
    """Return milliseconds; from ten seconds on as seconds."""
    found = number(value)
    if found is None or not 0 <= found < 1e15:
        return NOTHING
    if found >= 10_000:
        return f"{found / 1000:,.1f}\u00a0s"
    return f"{found:.1f}\u00a0ms" if found < 100 else f"{found:,.0f}\u00a0ms"


# ---- elements


def el(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element. Content and attributes are escaped; an attribute that is None is left out.

    ``cls`` stands for class and an underscore for a hyphen.
    """
    head = "".join(
        f' {"class" if key == "cls" else key.replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{head}>{join(*content)}</{name}>")


def join(*parts: object) -> Markup:
    """Return the parts as one piece of HTML, each escaped unless it is ``Markup``."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(_string(part)) for part in parts))


def _string(part: object) -> str:
    # Texts come here cut to their limit, with a note of what is left out; they are not to be cut a second time.
    return text(part, BLOCK_LIMIT) if part != "" else ""


def each(parts: list) -> Markup:
    """Return a list of parts as one piece of HTML."""
    return join(*parts)


def badge(level: str, words: str) -> Markup:
    """Return a coloured word; the colour is never alone, a sign and the word say the same."""
    sign = {"ok": "✓", "warn": "!", "fail": "✕"}.get(level, "•")
    return el("span", el("span", sign, aria_hidden="true"), " ", words, cls=f"badge {level}")


def verdict(good: object, yes: str = "yes", no: str = "no") -> Markup:
    """Return a badge for a truth value; what is neither true nor false is not known."""
    return badge("ok", yes) if good is True else badge("fail", no) if good is False else badge("none", "not known")


def link(url: object) -> Markup:
    """Return a link for an http(s) URL, and plain text for everything else."""
    shown = text(url)
    safe = isinstance(url, str) and url == shown and _LINKABLE.fullmatch(url)
    return el("a", shown, href=shown, rel="noreferrer") if safe else el("span", shown, cls="mono")


def code(value: object) -> Markup:
    """Return a value in the type of paths and identifiers."""
    return el("code", text(value)) if text(value) != NOTHING else Markup(NOTHING)


def block(value: object, label: str) -> Markup:
    """Return text of several lines that scrolls within itself."""
    return el("pre", Markup(html.escape(text(value, BLOCK_LIMIT))), tabindex="0", aria_label=label)


def table(label: str, headers: list[str], rows: list[list], numeric: tuple = (), limit: int = ROW_LIMIT) -> Markup:
    """Return a table that scrolls within itself; ``numeric`` has the numbers of the columns set to the right."""

    def cells(name: str, row: list, **more: str) -> Markup:
        marked = [el(name, value, cls="num" if at in numeric else _kind(value), **more) for at, value in enumerate(row)]
        return el("tr", each(marked))

    body = each([cells("td", row) for row in rows[:limit]])
    whole = el("table", el("thead", cells("th", headers, scope="col")), el("tbody", body))
    note = left_out(len(rows) - limit, "row")
    return join(el("div", whole, cls="scroll", role="region", tabindex="0", aria_label=label), note)


def _kind(value: object) -> str | None:
    """Names of hosts and the like are not broken at their hyphens."""
    return "word" if isinstance(value, str) and len(value) <= 24 and " " not in value else None


def left_out(left: int, what: str) -> Markup:
    """Return the note of a list that is cut, nothing when it is whole."""
    return (
        el("p", f"{plural(left, f'more {what}', f'more {what}s')} not shown here.", cls="note")
        if left > 0
        else Markup()
    )


def facts(pairs: list[tuple[str, object]]) -> Markup:
    """Return names with values; those without a value are left out."""
    said = [(name, value if isinstance(value, Markup) else text(value, 4 * TEXT_LIMIT)) for name, value in pairs]
    rows = [el("div", el("dt", name), el("dd", value)) for name, value in said if value not in ("", NOTHING)]
    return el("dl", each(rows), cls="facts") if rows else Markup()


def bullets(values: list, limit: int = 50) -> Markup:
    """Return a list of sentences."""
    if not values:
        return Markup()
    return join(
        el("ul", each([el("li", value if isinstance(value, Markup) else text(value)) for value in values[:limit]])),
        left_out(len(values) - limit, "entry"),
    )
