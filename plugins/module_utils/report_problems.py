# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a stage failed, out of its report: problems of {host, cause, wanted, found, evidence, remedy, task}."""

from __future__ import annotations

from .report_html import Markup, amount, by_host, dicts, el, facts, items, pick, plural, text

# What Ansible's results say when they say nothing.
_SILENT = ("", "no message", "Assertion failed", "Unknown error.")
# What ansible-core puts before messages of its own.
_PREFIXES = ("Task failed: ", "Module failed: ")
_LABELS = ("wanted", "found", "remedy")


def problems(stage: str, report: dict) -> list[dict]:
    """Return the stage's error, then what the stage found out about it and the error does not tell."""
    details = _DETAILS[stage](report) if stage in _DETAILS else []
    if stage == "preflight" and details:
        return details  # its error repeats the verdicts
    error = _error(report.get("error"))
    told = text(report.get("error"), 20_000)
    found = error + [detail for detail in details if not _is_told(detail, told)]
    found = found or details or [{"cause": "the report tells of no cause"}]
    if not any(problem.get("remedy") for problem in found):
        found[0]["remedy"] = f"look into {text(stage, 40)}.json beside this page, and into the log of the host"
    return found


def findings(report: object) -> list[dict]:
    """Return why engines ended, those that ended first at the front."""
    found = [
        {**finding, "host": host}
        for host, entry in by_host(report).items()
        for finding in dicts(pick(entry, "wait", "findings"))
    ]
    return sorted(found, key=lambda finding: finding.get("first") is not True)


def wrong_files(report: object) -> list[dict]:
    """Return the files that are not as locked, by host and kind."""
    found = []
    for host, entry in by_host(report).items():
        for kind in ("missing", "corrupt", "unexpected"):
            names = [text(pick(name, "path") or name, 120) for name in items(pick(entry, "verify", kind))]
            if names:
                listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                found.append({"host": host, "cause": f"{plural(len(names), 'file')} {kind}", "found": listed})
    return found


def failed_requests(load: object) -> float:
    """Return how many requests of a load test failed; counted where the report does not say it as a number."""
    failed = pick(load, "failed_requests")
    if isinstance(failed, (int, float)) and not isinstance(failed, bool):
        return amount(failed)
    return float(sum(bool(sample.get("reason")) for sample in dicts(pick(load, "samples"))))


def shown(problem: dict, with_host: bool) -> Markup:
    """Return a problem as HTML, the remedy in bold."""
    remedy = problem.get("remedy")
    return facts(
        [
            ("Host", problem.get("host") if with_host else None),
            ("Cause", problem.get("cause")),
            ("Wanted", problem.get("wanted")),
            ("Found", problem.get("found")),
            ("Evidence", problem.get("evidence")),
            ("Remedy", el("strong", text(remedy)) if remedy else None),
            ("Task", problem.get("task")),
        ]
    )


def _error(error: object) -> list[dict]:
    """Return the stage's error as a problem; a message that holds all four parts is taken apart."""
    if not error:
        return []
    if not isinstance(error, dict):
        return [{"cause": error}]
    cause, parts = text(error["msg"], 4000) if error.get("msg") else "", {}
    for label in reversed(_LABELS):
        before, mark, after = cause.rpartition(f"; {label}: ")
        if mark:
            cause, parts[label] = before, after
    for prefix in (*_PREFIXES, f"{text(error.get('host'))}: "):
        cause = cause[len(prefix) :] if cause.startswith(prefix) else cause
    problem = {key: error.get(key) for key in ("host", "task")}
    problem.update({label: error.get(label) or parts.get(label) for label in _LABELS})
    if cause not in _SILENT:
        return [dict(problem, cause=cause)]
    if any(problem[label] for label in _LABELS) or problem["task"]:
        return [dict(problem, cause="a task failed and gave no message")]
    return []


def _is_told(detail: dict, told: str) -> bool:
    """Say whether an error tells of a detail; very short texts are found in everything and prove nothing."""
    texts = [text(detail.get(key), 2000) for key in ("cause", "found")]
    return any(len(said) >= 12 and said in told for said in texts)


def _failed_verdicts(report: dict) -> list[dict]:
    keys = ("host", "wanted", "found", "remedy")
    return [
        {"cause": f"the check {text(verdict.get('check'), 60)} failed", **{key: verdict.get(key) for key in keys}}
        for verdict in dicts(report.get("verdicts"))
        if verdict.get("level") == "fail"
    ]


def _wrong_answers(report: dict) -> list[dict]:
    found = [
        {
            "cause": f"prompt {text(answer.get('id'), 60)}: {text(answer.get('reason'))}",
            "wanted": answer.get("wanted"),
            "found": answer.get("found"),
        }
        for answer in dicts(report.get("answers"))
        if answer.get("passed") is False
    ]
    load = report.get("load")
    failed = failed_requests(load)
    if failed:
        reasons = "; ".join(text(reason, 200) for reason in items(pick(load, "reasons"))[:3])
        found.append({"cause": f"{plural(failed, 'request')} failed under load", "found": reasons})
    return found


_DETAILS = {
    "preflight": _failed_verdicts,
    "weights": wrong_files,
    "launch": findings,
    "accept": _wrong_answers,
}
