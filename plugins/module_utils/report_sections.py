# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sections of the report page, each made from the reports by stage; one that has nothing to say is empty."""

from __future__ import annotations

import shlex

from . import report_charts as charts
from .report_html import (
    NOTHING,
    Markup,
    amount,
    badge,
    block,
    bullets,
    by_host,
    code,
    count,
    dicts,
    duration,
    each,
    el,
    facts,
    items,
    join,
    left_out,
    milliseconds,
    number,
    pick,
    plural,
    rate,
    size,
    table,
    text,
    verdict,
)
from .report_problems import failed_requests, findings, shown, wrong_files

MIB = 1024**2
REQUESTS_DRAWN = 60
POINTS_DRAWN = 1000


def plan_of(by_stage: dict) -> dict:
    """Return the plan document, empty where there is none."""
    plan = pick(by_stage, "plan", "plan")
    return plan if isinstance(plan, dict) else {}


def _hosts(by_stage: dict) -> Markup:
    rows = [
        [
            host,
            text(pick(entry, "cpu", "model")),
            count(pick(entry, "cpu", "cores")),
            size(pick(entry, "memory", "total")),
            size(pick(entry, "memory", "available")),
            text(pick(entry, "route_interface")),
            " ".join(text(part) for part in _kernel(entry) if part) or NOTHING,
        ]
        for host, entry in _facts(by_stage).items()
    ]
    headers = ["Host", "Processor", "Cores", "Memory", "Available", "Default route", "Kernel"]
    return table("Hosts", headers, rows, numeric=(2, 3, 4)) if rows else Markup()


def _accelerators(by_stage: dict) -> Markup:
    rows = [_accelerators_row(host, entry) for host, entry in _facts(by_stage).items() if _kinds(entry)]
    headers = ["Host", "Accelerators", "Memory each", "Driver", "Firmware", "Not well"]
    return table("Accelerators", headers, rows, numeric=(2,)) if rows else Markup()


def _kinds(entry: dict) -> list[str]:
    return [kind for kind in ("npu", "gpu") if isinstance(entry.get(kind), dict)]


def _accelerators_row(host: str, entry: dict) -> list:
    told = entry[_kinds(entry)[0]]
    devices = dicts(told.get("chips") or told.get("gpus"))
    names = {text(device.get("name")) for device in devices}
    sizes = [amount(device.get("memory_total_mib")) for device in devices]
    ill = [text(device.get("health"), 40) for device in devices if device.get("health") not in (None, "OK")]
    lost = [f"lost: {text(pick(device, 'bus_id'), 40)}" for device in dicts(told.get("lost"))]
    return [
        host,
        f"{len(devices)} x {', '.join(sorted(names))}" if devices else text(told.get("reason")),
        size(min(sizes) * MIB) if sizes else NOTHING,
        text(told.get("driver_version")),
        text(told.get("firmware_version")) or NOTHING,
        ", ".join([*ill, *lost]) or NOTHING,
    ]


def _kernel(entry: dict) -> list:
    return [pick(entry, "kernel", key) for key in ("machine", "release")]


def _facts(by_stage: dict) -> dict[str, dict]:
    """Return the facts by host; they lie below ``facts`` or in the entry of the host itself."""
    found = by_host(by_stage.get("discover"))
    return {host: entry["facts"] if isinstance(entry.get("facts"), dict) else entry for host, entry in found.items()}


def _plan_section(by_stage: dict) -> Markup:
    plan = plan_of(by_stage)
    nodes = [(group, node) for group in dicts(plan.get("groups")) for node in dicts(group.get("nodes"))]
    if not plan:
        summary = pick(by_stage, "plan", "summary")
        return block(summary, "The plan as text") if summary else Markup()
    notes = items(plan.get("notes"))
    return join(
        _plan_facts(plan),
        _ranks(plan, nodes),
        _memories(nodes),
        _commands(nodes),
        join(el("h3", "Notes"), bullets(notes)) if notes else "",
    )


def _plan_facts(plan: dict) -> Markup:
    weights, serving, model = plan.get("weights"), plan.get("serving"), plan.get("model")
    arguments = items(pick(serving, "engine_args"))
    return facts(
        [
            ("Model", pick(model, "id")),
            ("Served as", pick(serving, "model_name")),
            ("Data type", pick(model, "dtype")),
            ("Source", pick(model, "source")),
            (
                "Weights",
                f"{plural(amount(pick(weights, 'files')), 'file')}, {size(pick(weights, 'bytes'))}"
                if weights
                else None,
            ),
            ("Lock", pick(weights, "lock") or ("made from the source" if weights else None)),
            ("Revision", pick(weights, "revision")),
            ("Context", _unit(pick(serving, "max_model_len"), "tokens at most")),
            ("At once", _unit(pick(serving, "max_num_seqs"), "requests")),
            ("API keys", count(pick(serving, "api_keys"))),
            ("Engine arguments", " ".join(text(argument) for argument in arguments)),
            ("Start timeout", duration(plan.get("start_timeout"))),
        ]
    )


def _unit(value: object, unit: str) -> str | None:
    return f"{count(value)} {unit}" if number(value) is not None else None


def _ranks(plan: dict, nodes: list[tuple]) -> Markup:
    rows = [
        [
            text(group.get("name")),
            text(node.get("rank")),
            join(text(node.get("host")), " (head)" if node.get("host") == group.get("head") else ""),
            text(node.get("address")),
            text(node.get("interface")),
            text(pick(node, "launch", "port") or pick(plan, "serving", "port")),
            size(pick(node, "memory", "bytes")),
            count(pick(node, "memory", "full_length_requests")),
            code(node.get("weights_path")),
        ]
        for group, node in nodes
    ]
    headers = ["Group", "Rank", "Host", "Address", "Interface", "Port", "Memory", "Full-length requests", "Weights in"]
    return join(el("h3", "Who is who"), table("Ranks", headers, rows, numeric=(1, 5, 6, 7))) if rows else Markup()


def _memories(nodes: list[tuple]) -> Markup:
    """Return the memory arithmetic, once for all ranks that need the same."""
    same: dict[str, tuple[dict, list[str]]] = {}
    for _group, node in nodes:
        memory = node.get("memory")
        if dicts(pick(memory, "rows")):
            same.setdefault(text(memory, 5000), (memory, []))[1].append(text(node.get("host")))
    charted = [_memory(f"memory{at}", *entry) for at, entry in enumerate(list(same.values())[:8])]
    return join(el("h3", "Memory"), each(charted), left_out(len(same) - 8, "chart")) if same else Markup()


def _memory(name: str, memory: dict, hosts: list[str]) -> Markup:
    rows = [
        (text(row.get("what"), 60), min(amount(row.get("bytes")), 1e18), row) for row in dicts(memory.get("rows"))[:20]
    ]
    whole = sum(volume for _what, volume, _row in rows)
    where = ", ".join(hosts[:4]) + (f" and {len(hosts) - 4} more" if len(hosts) > 4 else "")
    title = f"{size(whole)} needed on {'each of ' if len(hosts) > 1 else ''}{where}"
    told = ", ".join(charts.shares([(what, volume) for what, volume, _row in rows])) + "."
    fills = [f"part{at % 6}" for at in range(len(rows))]
    chart = charts.stack(name, title, told, [(row[1], fill) for row, fill in zip(rows, fills)], "memory of the rank")
    lines = [
        [
            join(el("span", "", cls=f"swatch {fill}", aria_hidden="true"), what),
            size(row.get("bytes")),
            charts.percent(volume, whole),
            text(row.get("source")),
        ]
        for (what, volume, row), fill in zip(rows, fills)
    ]
    return join(
        chart, table(title, ["Part", "Memory", "Share", "Source"], lines, numeric=(1, 2)), _requests_fit(memory)
    )


def _requests_fit(memory: dict) -> Markup:
    fit = number(memory.get("full_length_requests"))
    return (
        el("p", f"The KV cache holds {plural(fit, 'request')} of full length.", cls="note")
        if fit is not None
        else Markup()
    )


def _commands(nodes: list[tuple]) -> Markup:
    shown = []
    for _group, node in nodes[:32]:
        argv = items(pick(node, "launch", "argv"))
        if argv:
            label = f"Command line on {text(node.get('host'))}"
            command = block(_command(argv), label)
            shown.append(el("details", el("summary", label), command, open="open" if not shown else None))
    return join(el("h3", "Command line"), each(shown), left_out(len(nodes) - 32, "command line")) if shown else Markup()


def _command(argv: list) -> str:
    """Return a command line as a person writes it into a script: one option a line."""
    lines: list[list[str]] = [[]]
    for argument in argv[:400]:
        word = text(argument, 1000) if argument != "" else ""
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n    ".join(" ".join(line) for line in lines)


def _verdicts(by_stage: dict) -> Markup:
    verdicts = dicts(pick(by_stage, "preflight", "verdicts"))
    if not verdicts:
        return Markup()
    order = {"fail": 0, "warn": 1, "ok": 2}
    levels = [text(entry.get("level"), 20) for entry in verdicts]
    counts = [badge(level, f"{count(levels.count(level))} {level}") for level in order if level in levels]
    rows = [
        [
            badge(level if level in order else "none", level),
            text(entry.get("host")),
            text(entry.get("check")),
            text(entry.get("wanted")),
            text(entry.get("found")),
            text(entry.get("remedy")) if level != "ok" else NOTHING,
        ]
        for level, entry in sorted(zip(levels, verdicts), key=lambda pair: order.get(pair[0], 1))
    ]
    headers = ["Level", "Host", "Check", "Wanted", "Found", "Remedy"]
    return join(el("p", each([join(mark, " ") for mark in counts])), table("Verdicts", headers, rows))


def _weights(by_stage: dict) -> Markup:
    hosts = by_host(by_stage.get("weights"))
    if not hosts:
        return Markup()
    rows = [_weights_row(host, entry.get("fetch"), entry.get("verify")) for host, entry in hosts.items()]
    headers = [
        "Host",
        "Verified",
        "Files",
        "Size",
        "Copied",
        "Copied at",
        "Repaired",
        "Modes set",
        "Hashed",
        "Hashed at",
        "Time",
    ]
    problems = [
        join(problem["host"], f": {problem['cause']}: {problem['found']}")
        for problem in wrong_files(by_stage["weights"])
    ]
    return join(
        table("Weights", headers, rows, numeric=(2, 3, 4, 5, 6, 7, 8, 9, 10)),
        bullets(problems),
        _shared(hosts),
        el(
            "p",
            "Copied are files that were missing or not as locked, repaired those of them that were there. "
            "Files with a known stamp are not hashed again.",
            cls="note",
        ),
    )


def _shared(hosts: dict[str, dict]) -> Markup:
    """Tell what came over each link between two hosts; nothing where nothing was shared."""
    shares = {host: entry["share"] for host, entry in hosts.items() if isinstance(entry.get("share"), dict)}
    rows = [
        [
            text(pick(peer, "host")),
            host,
            text(pick(share, "engine")),
            size(pick(peer, "received")),
            rate(pick(peer, "received"), pick(share, "seconds")),
            size(pick(share, "bytes_resumed")),
            duration(amount(pick(share, "seconds"))),
        ]
        for host, share in shares.items()
        for peer in dicts(share.get("peers"))
        if amount(pick(peer, "received"))
    ]
    headers = ["From", "To", "By", "Received", "At", "There before", "Time"]
    return table("Links", headers, rows, numeric=(3, 4, 5, 6)) if rows else Markup()


def _weights_row(host: str, fetch: object, verify: object) -> list:
    copied, moved = items(pick(fetch, "fetched")), pick(fetch, "bytes_fetched")
    # The time of a fetch is also spent on reading what is there already; only a whole copy tells a rate.
    whole = amount(moved) and amount(moved) == amount(pick(verify, "bytes"))
    hashed = pick(verify, "bytes_hashed")
    return [
        host,
        verdict(pick(verify, "verified")),
        count(pick(verify, "files")),
        size(pick(verify, "bytes")),
        f"{plural(len(copied), 'file')}, {size(amount(moved))}" if copied else "none" if fetch else NOTHING,
        rate(moved, pick(fetch, "seconds")) if whole else NOTHING,
        count(len(items(pick(fetch, "repaired")))) if fetch else NOTHING,
        count(len(items(pick(fetch, "modes_changed")))) if fetch else NOTHING,
        size(hashed),
        rate(hashed, pick(verify, "seconds")),
        duration(amount(pick(fetch, "seconds")) + amount(pick(verify, "seconds"))),
    ]


def _launch(by_stage: dict) -> Markup:
    hosts = by_host(by_stage.get("launch"))
    if not hosts:
        return Markup()
    prepared = by_host(by_stage.get("prepare"))
    rows = [_launch_row(host, entry, prepared.get(host)) for host, entry in hosts.items()]
    headers = ["Host", "Environment", "Action", "Ready", "After", "Progress", "Ended since start"]
    found = findings(by_stage["launch"])
    return join(
        table("Launch", headers, rows, numeric=(4, 6)),
        each([_finding(finding) for finding in found[:8]]),
        left_out(len(found) - 8, "finding"),
    )


def _launch_row(host: str, entry: dict, prepared: object) -> list:
    venv, wait = entry.get("venv") or pick(prepared, "venv"), entry.get("wait")
    made = {True: f"made in {duration(pick(venv, 'seconds'))}", False: "kept"}.get(_changed(venv), NOTHING)
    action = {"none": "none, it ran already"}.get(
        text(pick(entry, "service", "action")), text(pick(entry, "service", "action"))
    )
    return [
        host,
        made,
        action,
        verdict(pick(wait, "ready")),
        duration(pick(wait, "seconds")),
        text(pick(wait, "progress")),
        count(pick(entry, "service", "exits")),
    ]


def _changed(venv: object) -> bool | None:
    changed = pick(venv, "changed")
    return changed if isinstance(changed, bool) else None


def _finding(finding: dict) -> Markup:
    """Return why an engine ended, with the end of its log."""
    tail = items(finding.get("tail"))[-40:]
    return join(
        el("h3", f"Why it ended on {text(finding.get('host'))}"),
        shown(finding, with_host=False),
        block("\n".join(text(line, 1000) for line in tail), "End of the engine's log") if tail else "",
    )


def _answers(by_stage: dict) -> Markup:
    answers = dicts(pick(by_stage, "accept", "answers"))
    rests_on = items(pick(by_stage, "accept", "rests_on"))
    if not answers and not rests_on:
        return Markup()
    rows = [
        [
            verdict(answer.get("passed"), "right", "wrong"),
            text(answer.get("prompt")),
            text(answer.get("wanted")),
            join(
                text(answer.get("found")),
                el("div", text(answer["reason"]), cls="reason") if answer.get("reason") else "",
            ),
            count(answer.get("tokens")),
            duration(answer.get("seconds")),
            text(answer.get("streamed")) if "streamed" in answer else NOTHING,
        ]
        for answer in sorted(answers, key=lambda answer: answer.get("passed") is not False)
    ]
    headers = ["Answer", "Prompt", "Wanted", "Found", "Tokens", "Time", "Streamed"]
    return join(
        table("Golden prompts", headers, rows, numeric=(4, 5), limit=100) if rows else "",
        join(el("h3", "What the verdict rests on"), bullets(rests_on)) if rests_on else "",
    )


def _latency(by_stage: dict) -> Markup:
    load = pick(by_stage, "accept", "load")
    if not isinstance(load, dict) or not load:
        return Markup()
    failed = failed_requests(load)
    figures = [
        (count(load.get("requests")), "requests"),
        (count(failed), "failed"),
        (count(load.get("concurrency")), "in flight at a time"),
        (_tokens_per_s(load.get("output_tokens_per_s")), "output tokens per second"),
        (duration(load.get("seconds")), "length of the load"),
    ]
    tiles = [
        el("div", el("b", value), el("span", name), cls="tile bad" if name == "failed" and failed else "tile")
        for value, name in figures
    ]
    return join(
        el("div", each(tiles), cls="tiles"),
        _percentiles(load),
        _samples(load),
        _reasons(load),
        _compared(load.get("compared")),
    )


def _tokens_per_s(value: object) -> str:
    found = number(value)
    return NOTHING if found is None else count(found) if abs(found) >= 100 else f"{found:.1f}"


def _percentiles(load: dict) -> Markup:
    rows = [
        [name, *(milliseconds(pick(load, key, name)) for key in ("ttft_ms", "tpot_ms"))]
        for name in ("p50", "p90", "p99")
    ]
    good = amount(load.get("requests")) - failed_requests(load)
    note = (
        el("p", f"With {plural(good, 'good request')} the p99 is the slowest of them.", cls="note")
        if 0 < good < 100
        else ""
    )
    return join(table("Percentiles", ["Percentile", "First token", "Each later token"], rows, numeric=(1, 2)), note)


def _reasons(load: dict) -> Markup:
    reasons = items(load.get("reasons"))
    return join(el("h3", "Why requests failed"), bullets(reasons, 20)) if reasons else Markup()


def _samples(load: dict) -> Markup:
    """Return the charts of the single requests."""
    samples = sorted((_sample(entry) for entry in dicts(load.get("samples"))), key=lambda sample: sample["begin"])
    if not samples:
        return Markup()
    answered = [sample for sample in samples if sample["total"]]
    return join(_first_tokens(load, samples, answered), _spans(samples))


def _sample(entry: dict) -> dict:
    """Return one request in seconds; ``total`` is 0 where no answer came."""
    begin, first, total = (min(amount(entry.get(key)), 1e10) / 1000 for key in ("begin_ms", "ttft_ms", "total_ms"))
    return {"begin": begin, "first": min(first, total), "total": total, "good": not entry.get("reason")}


def _first_tokens(load: dict, samples: list[dict], answered: list[dict]) -> Markup:
    if not answered:
        return Markup()
    every = -(-len(answered) // POINTS_DRAWN)
    points = [
        (sample["begin"], sample["first"], "dot" if sample["good"] else "dot bad")
        for at, sample in enumerate(answered)
        if at % every == 0 or not sample["good"]
    ][: 2 * POINTS_DRAWN]
    lines = [
        (
            amount(pick(load, "ttft_ms", name)) / 1000,
            f"{name} {milliseconds(pick(load, 'ttft_ms', name))}",
            name == "p99",
        )
        for name in ("p50", "p99")
        if 0 < amount(pick(load, "ttft_ms", name)) < 1e12
    ]
    told = (
        f"{plural(len(answered), 'request')} with an answer of {len(samples)}; "
        + ", ".join(label for _y, label, _above in lines)
        + "."
    )
    chart = charts.scatter(
        "first-token", "Time to first token", told, points, lines, "request sent after the load began"
    )
    legend = [_key("dot", "a good answer")] + (
        [_key("dot bad", "an answer that failed")] if any(not sample["good"] for sample in answered) else []
    )
    thinned = (
        el("p", f"{len(points):,} of {len(answered):,} requests are drawn.", cls="note")
        if len(points) < len(answered)
        else ""
    )
    return join(chart, _legend(legend), thinned)


def _spans(samples: list[dict]) -> Markup:
    shown = samples[:REQUESTS_DRAWN]
    rows = [
        {
            "begin": sample["begin"],
            "parts": [
                (sample["first"], "span-first" if sample["good"] else "span-bad"),
                (sample["total"] - sample["first"], "span-rest" if sample["good"] else "span-bad"),
            ],
        }
        for sample in shown
    ]
    longest = max(sample["total"] for sample in shown)
    told = f"{plural(len(shown), 'request')} in the order they were sent; the longest took {duration(longest)}."
    chart = charts.requests("spans", "Requests, one a line", told, rows, "since the load began")
    legend = [_key("span-first", "waiting for the first token"), _key("span-rest", "the rest of the answer")]
    if not all(sample["good"] for sample in shown):
        legend.append(_key("span-bad", "failed (✕: no answer)"))
    return join(chart, _legend(legend), left_out(len(samples) - len(shown), "request"))


def _key(cls: str, words: str) -> Markup:
    return el("span", el("span", "", cls=f"swatch {cls}", aria_hidden="true"), words)


def _legend(keys: list[Markup]) -> Markup:
    return el("p", each(keys), cls="legend")


def _compared(compared: object) -> Markup:
    """Return what a baseline says, whatever it is made of."""
    if not compared:
        return el(
            "p",
            "There is no baseline for this model, engine and hardware; these figures are shown and not judged.",
            cls="note",
        )
    rows = [[name, text(value)] for name, value in _leaves(compared, "", 4)]
    return join(el("h3", "Held against the baseline"), table("Baseline", ["Figure", "Value"], rows, limit=60))


def _leaves(value: object, name: str, depth: int) -> list[tuple[str, object]]:
    if not isinstance(value, dict) or not depth:
        return [(name or "compared", value)]
    found = []
    for key, inner in list(value.items())[:100]:
        found += _leaves(inner, f"{name} {text(key, 60)}".strip(), depth - 1)
    return found


SECTIONS = (
    ("hosts", "Hosts", _hosts),
    ("accelerators", "Accelerators", _accelerators),
    ("plan", "Plan", _plan_section),
    ("verdicts", "Verdicts", _verdicts),
    ("weights", "Weights", _weights),
    ("launch", "Launch", _launch),
    ("answers", "Answers", _answers),
    ("latency", "Latency", _latency),
)
