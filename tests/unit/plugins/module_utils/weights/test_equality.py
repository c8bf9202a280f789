# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import equality
from hypothesis import given
from hypothesis import strategies as st


def found(tree: str = "a" * 64, **changes) -> dict:
    sound = {"files": 3, "bytes": 700, "verified": True, "tree": tree, "corrupt": [], "missing": [], "unexpected": []}
    return dict(sound, **changes)


def last_line(results: dict) -> str:
    return equality.table(results)["text"].splitlines()[-1]


def test_nodes_that_hold_the_same():
    table = equality.table({"a2": found(), "a1": found()})
    assert table["equal"] is True
    assert [row["host"] for row in table["rows"]] == ["a1", "a2"]
    assert table["rows"][0] == {
        "host": "a1",
        "files": 3,
        "bytes": 700,
        "verified": True,
        "tree": "a" * 64,
        "wrong": [],
        "error": "",
    }
    assert table["text"].splitlines() == [
        "host  files  bytes  verified  tree          wrong",
        "a1    3      700    yes       aaaaaaaaaaaa  -",
        "a2    3      700    yes       aaaaaaaaaaaa  -",
        "all 2 nodes hold the same",
    ]


def test_the_one_that_differs_is_named_with_what_is_wrong_there():
    other = found(
        "b" * 64,
        verified=False,
        corrupt=[{"path": "x.safetensors", "reason": "sha256", "wanted": "", "found": ""}],
        missing=["y"],
        unexpected=["z", "zz"],
    )
    table = equality.table({"a1": found(), "a2": found(), "a3": other})
    assert table["equal"] is False
    assert table["rows"][2]["wrong"] == [
        "x.safetensors (sha256)",
        "y (missing)",
        "z (not in the lock)",
        "zz (not in the lock)",
    ]
    *_rows, line, last = table["text"].splitlines()
    assert line.endswith("x.safetensors (sha256), y (missing), z (not in the lock) and 1 more")
    assert last == "2 of 3 hold the same, these differ from them: a3"


def test_all_the_same_and_wrong():
    wrong = found(verified=False, missing=["y"])
    assert equality.table({"a1": wrong, "a2": wrong})["equal"] is True
    assert last_line({"a1": wrong, "a2": wrong}) == "all 2 nodes hold the same; it is not what the lock names"


def test_digests_that_differ_only_beyond_what_is_shown_are_told_apart():
    assert equality.table({"a1": found("a" * 64), "a2": found("a" * 63 + "b")})["equal"] is False


def test_no_majority():
    results = {"a1": found(), "a2": found("b" * 64), "a3": found(), "a4": found("b" * 64)}
    assert last_line(results) == "no majority holds the same: a1, a3 | a2, a4"


@pytest.mark.parametrize("silence", [None, {}, "text", [], {"tree": None}, {"tree": ""}, {"failed": True}])
def test_a_node_without_an_answer_is_a_row_and_never_equal(silence):
    table = equality.table({"a1": found(), "a2": found(), "a3": silence})
    assert table["equal"] is False
    assert table["rows"][2]["error"] == "no answer"
    last = "the 2 that answered hold the same; 1 of 3 did not say what they hold: a3"
    assert table["text"].splitlines()[-1] == last


def test_a_failure_is_told_by_its_first_line():
    table = equality.table({"a1": {"msg": "Failed to connect\ntraceback"}})
    assert table["equal"] is False
    assert table["rows"][0]["error"] == "Failed to connect\ntraceback"
    assert table["text"].splitlines()[1:] == [
        "a1    -      -      no        -     Failed to connect",
        "1 of 1 did not say what they hold: a1",
    ]


def test_one_node_and_none():
    assert (equality.table({"a1": found()})["equal"], last_line({"a1": found()})) == (True, "there is one node")
    assert (equality.table({})["equal"], last_line({})) == (False, "there are no nodes")


def test_names_of_strays_cannot_write_to_the_terminal():
    text = equality.table({"a1": found(verified=False, unexpected=["\x1b[31mx\n\udcff"])})["text"]
    assert "?[31mx??" in text
    text.encode()


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), st.sampled_from(["a", "b", "c", ""]), max_size=8))
def test_equal_means_that_all_answered_the_same(trees):
    results = {host: found(tree * 64) if tree else {"msg": "failed"} for host, tree in trees.items()}
    table = equality.table(results)
    assert table["equal"] == (len(set(trees.values())) == 1 and "" not in trees.values())
    assert len(table["text"].splitlines()) == len(trees) + 2
    said = table["text"].splitlines()[-1]
    counts = {tree: list(trees.values()).count(tree) for tree in set(trees.values()) - {""}}
    if len(counts) > 1 and sorted(counts.values())[-1] > sorted(counts.values())[-2]:
        most = max(counts, key=lambda tree: counts[tree])
        differ = sorted(host for host, tree in trees.items() if tree not in (most, ""))
        assert f"these differ from them: {', '.join(differ)}" in said
