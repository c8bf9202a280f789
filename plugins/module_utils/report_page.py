# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTML page over the stage reports of a deployment. It loads nothing and needs no JavaScript.

Reports are read with care: any key may be missing or of an odd type, and every text in them may be hostile.
"""

from __future__ import annotations

import calendar
import time

from . import report_charts as charts
from .report_html import (
    Markup,
    amount,
    badge,
    count,
    dicts,
    duration,
    each,
    el,
    facts,
    join,
    left_out,
    link,
    number,
    pick,
    text,
)
from .report_problems import failed_requests, problems, shown
from .report_sections import SECTIONS, plan_of
from .report_style import STYLE

STAGES = ("discover", "plan", "preflight", "prepare", "weights", "launch", "accept", "expose")
# What every deployment goes through until it is proven; prepare and expose are not part of all of them.
NEEDED = ("discover", "plan", "preflight", "weights", "launch", "accept")
# Stages that were run hours apart would leave a timeline of slivers.
APART = 4
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(reports: list[dict]) -> str:
    """Return the page over ``reports``, the stage reports of one deployment."""
    by_stage = _by_stage(reports)
    sections = [(name, title, section(by_stage)) for name, title, section in (_TIMELINE, *SECTIONS)]
    sections = [entry for entry in sections if entry[2]]
    body = join(
        _header(by_stage),
        _nav(sections),
        el("main", each([_section(*entry) for entry in sections])),
        _footer(by_stage),
    )
    name = text(_deployment(by_stage), 100)
    head = join(
        Markup('<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'),
        el("title", f"{name}: {_outcome(by_stage)[1]}"),
        el("style", Markup(STYLE)),
    )
    page = el("html", el("head", head), "\n", el("body", body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


# ---- the reports


def _by_stage(reports: object) -> dict[str, dict]:
    """Return the reports by stage in the order of the stages; of two reports of a stage the last one counts."""
    named = {report["stage"]: report for report in dicts(reports) if isinstance(report.get("stage"), str)}
    unknown = [stage for stage in named if stage not in STAGES][:20]
    return {stage: named[stage] for stage in (*STAGES, *unknown) if stage in named}


def _deployment(by_stage: dict) -> object:
    names = [report.get("deployment") for report in by_stage.values()] + [plan_of(by_stage).get("deployment")]
    return next((name for name in names if name), "Deployment")


def _failed(by_stage: dict) -> str:
    """Return the stage that failed, empty when none did."""
    failed = [stage for stage, report in by_stage.items() if report.get("passed") is False or report.get("error")]
    return failed[0] if failed else ""


def _outcome(by_stage: dict) -> tuple[str, str]:
    """Return (level, words) for the whole deployment."""
    stage = _failed(by_stage)
    if stage:
        return "fail", f"Failed at {text(stage, 40)}"
    if not by_stage:
        return "none", "No stage has run yet"
    unknown = [stage for stage, report in by_stage.items() if report.get("passed") is not True]
    if unknown:
        return "none", f"It is not known whether {text(unknown[0], 40)} passed"
    if "accept" not in by_stage:
        return "none", f"Passed up to {text(list(by_stage)[-1], 40)}; no answer is checked yet"
    answers = dicts(by_stage["accept"].get("answers"))
    if not answers or not all(answer.get("passed") is True for answer in answers):
        return "none", "Passed, but the report of the stage accept does not show right answers"
    return "ok", "Passed: it serves, and its answers are right"


def _epoch(clock: object) -> float | None:
    """Return the seconds of a time like 2026-01-31T12:00:00Z, None for another text."""
    try:
        return float(calendar.timegm(time.strptime(clock, "%Y-%m-%dT%H:%M:%SZ")))
    except (TypeError, ValueError, OverflowError):
        return None


def _clock(value: object) -> str:
    return (
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(_epoch(value)))
        if _epoch(value) is not None
        else text(value, 40)
    )


# ---- headline


def _header(by_stage: dict) -> Markup:
    level, words = _outcome(by_stage)
    title = pick(plan_of(by_stage), "model", "title")
    return el(
        "header",
        el("p", badge(level, words), cls="outcome"),
        el("h1", text(_deployment(by_stage), 100)),
        el("p", text(title), cls="subtitle") if title else "",
        _failure(by_stage),
        _headline(by_stage),
        cls=level,
    )


def _headline(by_stage: dict) -> Markup:
    plan, reports = plan_of(by_stage), list(by_stage.values())
    begun, ended = (
        sorted(filter(_epoch, (report.get(key) for report in reports)), key=_epoch) for key in ("started", "finished")
    )
    took = sum(amount(report.get("seconds")) for report in reports)
    return facts(
        [
            ("Endpoint", _endpoints(by_stage)),
            ("Model", pick(plan, "model", "id") or pick(by_stage, "accept", "model")),
            ("Engine", " ".join(text(part) for part in _engine(plan))),
            ("Checked", _checked(by_stage)),
            ("Started", _clock(begun[0]) if begun else None),
            ("Finished", _clock(ended[-1]) if ended else None),
            ("Time in stages", duration(took) if reports else None),
        ]
    )


def _engine(plan: dict) -> list:
    parts = [pick(plan, "engine", key) for key in ("id", "version", "runtime")]
    return [part for part in (*parts[:2], f"({text(parts[2])})" if parts[2] else None) if part]


def _endpoints(by_stage: dict) -> Markup:
    """Return the URLs that serve, or would after the stages that are still to come."""
    urls = [pick(by_stage, "accept", "endpoint")]
    urls += [endpoint.get("url") for endpoint in dicts(plan_of(by_stage).get("endpoints"))]
    unique = list(dict.fromkeys(url for url in urls if isinstance(url, str) and url))
    shown = [el("div", link(url)) for url in unique[:8]]
    if not shown:
        return Markup()
    serves = pick(by_stage, "accept", "passed") is True
    state = "" if serves else el("div", "not proven to serve" if _failed(by_stage) else "not checked yet", cls="soft")
    return join(each(shown), left_out(len(unique) - 8, "endpoint"), state)


def _checked(by_stage: dict) -> str:
    """Return in one line what was looked at."""
    parts = []
    answers, load = dicts(pick(by_stage, "accept", "answers")), pick(by_stage, "accept", "load")
    if answers:
        right = sum(answer.get("passed") is True for answer in answers)
        parts.append(f"{right} of {len(answers)} golden answers right")
    if number(pick(load, "requests")):
        parts.append(f"{count(pick(load, 'requests'))} requests under load, {count(failed_requests(load))} failed")
    return "; ".join(parts)


def _failure(by_stage: dict) -> Markup:
    """Return what went wrong: the stage's error first, then what the stage found out about it."""
    stage = _failed(by_stage)
    if not stage:
        return Markup()
    found = problems(stage, by_stage[stage])
    hosts = list(dict.fromkeys(text(problem["host"]) for problem in found if problem.get("host")))
    where = f" on {', '.join(hosts[:3])}{' and others' if len(hosts) > 3 else ''}" if hosts else ""
    return el(
        "section",
        el("h2", f"Failed at {text(stage, 40)}{where}"),
        each([shown(problem, len(hosts) > 1) for problem in found[:6]]),
        left_out(len(found) - 6, "problem"),
        cls="failure",
        aria_label="What went wrong",
    )


# ---- sections


def _section(name: str, title: str, content: Markup) -> Markup:
    return el("section", el("h2", title), content, id=name)


def _nav(sections: list[tuple]) -> Markup:
    links = each([el("a", title, href=f"#{name}") for name, title, _content in sections])
    return el("nav", links, aria_label="Sections") if sections else Markup()


def _footer(by_stage: dict) -> Markup:
    files = ", ".join(f"{text(stage, 40)}.json" for stage in by_stage) or "no report"
    return el("footer", el("p", f"Made from {files}. These files lie beside this page and hold every value in full."))


def _timeline(by_stage: dict) -> Markup:
    rows = [
        {
            "label": f"{_sign(report)} {text(stage, 12)}",
            "begin": _epoch(report.get("started")),
            "parts": [(min(amount(report.get("seconds")), 1e9), _fill(report))],
            "value": duration(report.get("seconds")),
        }
        for stage, report in by_stage.items()
    ]
    if not rows:
        return Markup()
    together = _set_begins(rows)
    told = "; ".join(
        f"{text(stage, 40)} {_result(report)} after {duration(report.get('seconds'))}"
        for stage, report in by_stage.items()
    )
    axis = "since the first stage began" if together else "length of each stage"
    title = "Stages over time" if together else "Length of the stages"
    notes = [] if together else ["The stages were not run in one go, so every bar begins at zero."]
    notes += [f"Not reached: {', '.join(_still_to_come(by_stage))}."] if _still_to_come(by_stage) else []
    return join(
        charts.bars("stages", title, told + ".", rows, axis), each([el("p", note, cls="note") for note in notes])
    )


def _still_to_come(by_stage: dict) -> list[str]:
    last = max((STAGES.index(stage) for stage in by_stage if stage in STAGES), default=-1)
    return [stage for stage in STAGES[last + 1 :] if stage in NEEDED]


def _set_begins(rows: list[dict]) -> bool:
    """Set where each bar begins; return False when all begin at zero because the stages lie too far apart."""
    begins = [row["begin"] for row in rows]
    took = sum(row["parts"][0][0] for row in rows)
    known = None not in begins
    # A start is known to the second, so short stages may seem to lie that much apart.
    span = max(row["begin"] + row["parts"][0][0] for row in rows) - min(begins) if known else 0.0
    together = known and span <= APART * took + len(rows)
    for row in rows:
        row["begin"] = row["begin"] - min(begins) if together else 0.0
    return together


def _result(report: dict) -> str:
    return {True: "passed", False: "failed"}.get(_passed(report), "ended")


def _sign(report: dict) -> str:
    return {True: "✓", False: "✕"}.get(_passed(report), "•")


def _fill(report: dict) -> str:
    return {True: "fill-ok", False: "fill-fail"}.get(_passed(report), "fill-none")


def _passed(report: dict) -> bool | None:
    return report.get("passed") if isinstance(report.get("passed"), bool) else None


_TIMELINE = ("timeline", "Timeline", _timeline)
