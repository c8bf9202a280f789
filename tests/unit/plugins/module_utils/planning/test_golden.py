# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plans of the guides' deployments, line by line, and the guides themselves against them.

A golden file is what a person has read and agreed to. Where a plan changes on purpose, tests/golden/show.py shows what
it has become; the lines that are right are copied into the file, and docs/guides.md is corrected.
"""

from __future__ import annotations

import functools
import re
import shlex

import pytest
import yaml
from ansible_collections.baremetal.llm.tests.golden import machines, show

DOCUMENT = machines.HERE.parents[1] / "docs" / "guides.md"
GUIDES = sorted(machines.HERE.glob("guides/*.yml"))


@functools.cache
def _loaded(name: str) -> dict:
    return yaml.safe_load((machines.HERE / f"{name}.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", name="plans")
def _plans() -> dict[str, dict]:
    return {name: machines.plan(name) for name in machines.DEPLOYMENTS}


def test_every_deployment_has_a_golden_file_and_no_file_is_left_over():
    assert sorted(file.stem for file in machines.HERE.glob("*.yml")) == sorted(machines.DEPLOYMENTS)


@pytest.mark.parametrize("name", machines.DEPLOYMENTS)
def test_the_plan_is_the_golden_one(plans, name):
    found = machines.golden(plans[name])
    assert found == _loaded(name), f"{name} has changed:\n{show.difference(name)}"


@pytest.mark.parametrize("name", machines.DEPLOYMENTS)
def test_a_golden_file_holds_the_whole_of_every_command(plans, name):
    """What is shared stands once and options stand beside their values; nothing of a command may be lost by that."""
    (group,) = _loaded(name)["groups"]
    for node in plans[name]["groups"][0]["nodes"]:
        whole = _merged(group["every_node"], group["nodes"][node["host"]])
        assert [word for line in whole["argv"] for word in shlex.split(line)] == node["launch"]["argv"]
        assert [[word for line in argv for word in shlex.split(line)] for argv in whole["before"]] == (
            node["launch"]["before"]
        )
        assert {file: one["content"] for file, one in whole["files"].items()} == {
            one["name"]: one["content"] for one in node["launch"]["files"]
        }
        assert node["launch"]["env"].items() <= whole["env"].items()


@pytest.mark.parametrize("name", machines.DEPLOYMENTS)
def test_a_plan_names_its_source_and_fits_its_machines(plans, name):
    (group,) = plans[name]["groups"]
    assert group["fit"]["fits"] is True
    assert re.search(r"README|docs/|\.md|\.yaml|profile", group["parallel"]["why"])


def _merged(shared: dict, own: dict) -> dict:
    found = dict(shared)
    for key, value in own.items():
        old = found.get(key)
        found[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return found


# A guide: what it sets, by kind, and the deployments that carry it out. A value that the plan has as it is needs no
# word; every other one has a row in the guide's table, which begins with the same words.


def _sections() -> dict[str, list[list[str]]]:
    """Return the rows of each guide's table in docs/guides.md, by the title of the section."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            rows = found.setdefault(line[3:].strip(), [])
        elif line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
    return {title: rows[1:] for title, rows in found.items() if rows}


def _guide(file) -> dict:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _options(lines: list[str]) -> dict[str, str]:
    words = [word for line in lines for word in shlex.split(line)]
    found = {}
    for place, word in enumerate(words):
        if word.startswith("--"):
            following = words[place + 1] if place + 1 < len(words) else "--"
            found[word] = "" if following.startswith("--") else following
    return found


def _has(node: dict, kind: str, name: str, value: str) -> bool:
    """True when the plan of ``node`` has what a guide sets, exactly as it is there."""
    environment = {**node["env"], **node["comm_env"]["group"], **node["comm_env"]["node"]}
    mounts = [mount.rsplit(":", 1)[0] for mount in node["mounts"]]
    return {
        "flags": _options(node["argv"]).get(name) == value,
        "named": name in _options(node["argv"]),
        "variables": environment.get(name) == value,
        "variable_named": name in environment,
        "scripts": name in [script for scripts in node["env_scripts"] for script in scripts],
        "devices": f"{name}:{name}:rwm" in node["devices"],
        "mounts": f"{name.rstrip('/')}:{value.rstrip('/')}" in mounts,
        "file": name in node["files"],
        "user": node["user"] == value,
        "program": node["argv"][0] == name,
        "nodes": node["count"] == value,
        "version": node["version"] == value,
        # Of docker run and in words: nothing that a plan has under the same name.
        "docker": False,
        "words": False,
    }[kind]


def _nodes_of(guide: dict, entry: dict) -> list[dict]:
    """Return the nodes that an entry of a guide speaks of: all, the head, or the others."""
    found = []
    for name in entry.get("deployments", guide["deployments"]):
        golden = _loaded(name)
        (group,) = golden["groups"]
        about = {"count": str(len(group["nodes"])), "version": golden["engine"]["version"], **group["every_node"]}
        nodes = {host: _merged(about, own) for host, own in group["nodes"].items()}
        where = entry.get("where", "all")
        found += [
            node for host, node in nodes.items() if where == "all" or (host == group["head"]) == (where == "head")
        ]
    return found


def _taken_over(guide: dict, entry: dict) -> bool:
    nodes = _nodes_of(guide, entry)
    return bool(nodes) and all(_has(node, entry["kind"], entry["name"], str(entry["value"])) for node in nodes)


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: file.stem)
def test_whatever_a_guide_sets_is_in_the_plan_or_in_its_table(file):
    guide = _guide(file)
    told = {name for row in _sections()[guide["title"]] for name in re.findall(r"`([^`]+)`", row[0])}
    missing = [
        f"{entry['kind']}: {entry['name']} {entry['value']}".strip()
        for entry in guide["sets"]
        if entry["name"] not in told and not _taken_over(guide, entry)
    ]
    assert missing == []


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: file.stem)
def test_a_table_names_only_what_its_guide_sets_and_the_plan_has_otherwise(file):
    """A row whose value the plan has taken over, or that the guide never had, is out of date."""
    guide = _guide(file)
    for row in _sections()[guide["title"]]:
        names = re.findall(r"`([^`]+)`", row[0])
        assert names, row[0]
        for name in names:
            entries = [entry for entry in guide["sets"] if entry["name"] == name]
            assert entries, f"{name} is nothing that {guide['title']} sets"
            assert not all(_taken_over(guide, entry) for entry in entries), f"the plan has {name} as the guide has it"


def test_every_row_says_what_the_plan_has_and_why_and_by_which_source():
    sections = _sections()
    assert len(sections) == 5
    for title, rows in sections.items():
        for row in rows:
            assert len(row) == 4 and all(row), f"{title}: {row}"
