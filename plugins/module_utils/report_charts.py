# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Charts of the report page as inline SVG. Every scale is linear and begins at zero.

Positions along x are percentages of the plot's width, so a chart follows the width of the screen while its type stays
readable; what stands beside the plot (labels of rows, values) lies in margins that the style sheet keeps free.
"""

from __future__ import annotations

import math

from .report_html import Markup, each, el, join, size, text

_TIME_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (0.001, "ms"))
_BYTE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_LEAST_WIDTH = 0.4  # percent; a bar that is shorter would not be seen


def bars(name: str, title: str, description: str, rows: list[dict], axis: str) -> Markup:
    """Return horizontal bars over time.

    :param rows: {label, begin, parts: [(seconds, class)], value}, times in seconds
    """
    step = 30
    ticks, top, unit = scale(max((_end(row) for row in rows), default=0.0), _TIME_UNITS)
    height = step * len(rows)
    drawn = [_bar(row, step * at, step, top) for at, row in enumerate(rows)]
    return _figure(name, "bars", title, description, height, join(_x_axis(ticks, height, unit, axis), each(drawn)))


def requests(name: str, title: str, description: str, rows: list[dict], axis: str) -> Markup:
    """Return one thin bar a request over time; a request without an answer is a cross at its beginning."""
    step = 9
    ticks, top, unit = scale(max((_end(row) for row in rows), default=0.0), _TIME_UNITS)
    height = step * len(rows) + step
    drawn = []
    for at, row in enumerate(rows):
        middle = step * at + step
        share = 100 * row["begin"] / top
        answered = any(seconds for seconds, _cls in row["parts"])
        drawn.append(_parts(row, top, middle - 3, 6) if answered else _text("✕", share, middle + 4, cls="cross"))
    return _figure(name, "requests", title, description, height, join(_x_axis(ticks, height, unit, axis), each(drawn)))


def scatter(name: str, title: str, description: str, points: list[tuple], lines: list[tuple], axis: str) -> Markup:
    """Return points over time.

    :param points: (x in seconds, y in seconds, class)
    :param lines: (y in seconds, label, True for a label above the line)
    """
    height = 190
    x_ticks, x_top, x_unit = scale(max((x for x, _y, _cls in points), default=0.0), _TIME_UNITS)
    highest = max([y for _x, y, _cls in points] + [y for y, _label, _above in lines], default=0.0)
    y_ticks, y_top, y_unit = scale(highest, _TIME_UNITS, most=4)

    def level(value: float) -> float:
        return height - height * min(1.0, value / y_top)

    grid = []
    for value, label in y_ticks:
        grid.append(_line(0, level(value), 100, level(value), "grid"))
        grid.append(_text(f"{label} {y_unit}", 0, level(value) + 4, dx=-8, text_anchor="end"))
    dots = [el("circle", cx=_percent(100 * x / x_top), cy=f"{level(y):.1f}", r="3.5", cls=cls) for x, y, cls in points]
    marks = []
    for value, label, above in lines:
        marks.append(_line(0, level(value), 100, level(value), "mark"))
        marks.append(_text(label, 100, level(value) + (-5 if above else 14), cls="halo", text_anchor="end"))
    return _figure(
        name,
        "scatter",
        title,
        description,
        height,
        join(_x_axis(x_ticks, height, x_unit, axis), each(grid), each(dots), each(marks)),
    )


def stack(name: str, title: str, description: str, parts: list[tuple], axis: str) -> Markup:
    """Return one bar of parts; ``parts`` has (bytes, class)."""
    height = 34
    ticks, top, unit = scale(sum(value for value, _cls in parts), _BYTE_UNITS)
    drawn, begin = [], 0.0
    for value, cls in parts:
        if value:
            drawn.append(_rect(100 * begin / top, 100 * value / top, 4, 26, cls))
        begin += value
    return _figure(name, "stack", title, description, height, join(_x_axis(ticks, height, unit, axis), each(drawn)))


def scale(highest: float, units: tuple, most: int = 5) -> tuple[list[tuple[float, str]], float, str]:
    """Return ([(value, label)], end of the scale, unit), in round steps from zero to ``highest`` or beyond."""
    highest = highest if highest > 1e-6 else 1.0
    factor, unit = next((entry for entry in units if highest >= 1.5 * entry[0]), units[-1])
    raw = highest / factor / most
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * magnitude for nice in (1, 2, 5, 10) if nice * magnitude >= raw * 0.999)
    steps = max(1, math.ceil(highest / factor / step - 1e-6))
    return [(at * step * factor, f"{at * step:.6g}") for at in range(steps + 1)], steps * step * factor, unit


def shares(rows: list[tuple[str, float]]) -> list[str]:
    """Return "what size (percent)" for each of ``rows``."""
    whole = sum(value for _what, value in rows) or 1.0
    return [f"{what} {size(value)} ({percent(value, whole)})" for what, value in rows]


def percent(part: float, whole: float) -> str:
    """Return a share in percent; a part that is there is never 0 %."""
    share = 100 * part / whole if whole else 0.0
    return "<1\u00a0%" if 0 < share < 0.5 else f"{share:.0f}\u00a0%"


def _end(row: dict) -> float:
    return row["begin"] + sum(seconds for seconds, _cls in row["parts"])


def _bar(row: dict, top_px: float, step: float, top: float) -> Markup:
    middle = top_px + step / 2
    return join(
        _text(row["label"], 0, middle + 5, dx=-10, text_anchor="end", cls="label"),
        _line(0, top_px + step, 100, top_px + step, "rule"),
        _parts(row, top, top_px + 7, step - 14),
        _text(row["value"], 100, middle + 5, dx=92, text_anchor="end", cls="value"),
    )


def _parts(row: dict, top: float, y: float, height: float) -> Markup:
    drawn, begin = [], row["begin"]
    for seconds, cls in row["parts"]:
        drawn.append(_rect(100 * begin / top, 100 * seconds / top, y, height, cls))
        begin += seconds
    return each(drawn)


def _rect(x: float, width: float, y: float, height: float, cls: str) -> Markup:
    wide = max(_LEAST_WIDTH, width)
    left = min(x, 100 - wide)
    return el("rect", x=_percent(left), width=_percent(wide), y=f"{y:.1f}", height=f"{height:.1f}", cls=cls)


def _x_axis(ticks: list[tuple[float, str]], height: float, unit: str, title: str) -> Markup:
    """Return the vertical grid, the labels below it and the title of the axis."""
    top = ticks[-1][0]
    parts = []
    for value, label in ticks:
        share = 100 * value / top
        parts.append(_line(share, 0, share, height, "grid"))
        parts.append(_text(label, share, height + 17, text_anchor="middle"))
    return join(each(parts), _text(f"{title} ({unit})", 0, height + 37, cls="title"))


def _line(x1: float, y1: float, x2: float, y2: float, cls: str) -> Markup:
    return el("line", x1=_percent(x1), y1=f"{y1:.1f}", x2=_percent(x2), y2=f"{y2:.1f}", cls=cls)


def _text(words: str, x: float, y: float, **attributes: object) -> Markup:
    return el("text", text(words, 60), x=_percent(x), y=f"{y:.1f}", **attributes)


def _percent(value: float) -> str:
    return f"{min(100.0, max(0.0, value)):.2f}%"


def _figure(name: str, kind: str, title: str, description: str, height: float, drawing: Markup) -> Markup:
    """Return the drawing with room for the axis below it, and the words that say the same."""
    words = join(el("title", title, id=f"{name}-title"), el("desc", text(description, 4000), id=f"{name}-desc"))
    names = f"{name}-title {name}-desc"
    image = el("svg", words, drawing, role="img", aria_labelledby=names, height=f"{height + 44:.0f}", cls=kind)
    return el("figure", el("figcaption", title), image, cls=kind)
