# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.baremetal.llm.plugins.filter.weights import share_engine, weights_chain, weights_table


def ready(**reasons):
    return {"__weights_ready": {"engines": {"libtorrent": "", "rsync": "", **reasons}}}


def test_the_best_engine_that_all_can_run():
    assert share_engine("ab", {"a": ready(), "b": ready()}) == "libtorrent"
    assert share_engine("ab", {"a": ready(), "b": ready(libtorrent="no wheel")}) == "rsync"
    assert share_engine("ab", {"a": ready(), "b": ready()}, "rsync") == "rsync"


@pytest.mark.parametrize("wanted", ["auto", "libtorrent"])
def test_none_names_the_hosts_and_why(wanted):
    found = {"a": ready(rsync="not installed"), "b": ready(libtorrent="no wheel for riscv64"), "c": {}}
    with pytest.raises(AnsibleFilterError) as caught:
        share_engine("abc", found, wanted)
    said = str(caught.value)
    assert "libtorrent on b: no wheel for riscv64" in said
    assert "libtorrent on c: the host did not say" in said
    assert ("rsync on a: not installed" in said) == (wanted == "auto")


def test_a_host_without_a_result_is_told_of():
    table = weights_table({"a": {}, "b": {"verified": {"msg": "unreachable"}}})
    assert not table["equal"]
    assert "not verified" in table["text"]


def test_a_host_that_sees_the_files_of_the_seed_holds_what_it_holds():
    wrong = {"corrupt": [], "missing": [], "unexpected": []}
    proved = {"tree": "ab" * 32, "files": 2, "bytes": 9, "verified": True, **wrong}
    shared = {"verified": {"skipped": True}, "shared": {"shared": True}}
    table = weights_table({"a": {"verified": proved, "shared": {"shared": False}}, "b": shared})
    assert table["equal"]
    assert not weights_table({"b": shared})["equal"]


def found(*, missing=(), corrupt=(), unexpected=()):
    problems = [{"path": path, "reason": "sha256"} for path in corrupt]
    result = {"tree": "x", "missing": list(missing), "corrupt": problems, "unexpected": list(unexpected)}
    return {"__weights_found": result}


@pytest.mark.parametrize(
    ("of_seed", "of_next", "giver"),
    [
        (found(), found(), "a"),
        (found(missing=["x"]), found(), "b"),
        (found(corrupt=["x"]), found(), "b"),
        (found(unexpected=["x"]), found(), "b"),
        (found(corrupt=["config.json"]), found(), "a"),
        (found(missing=["x"]), found(corrupt=["config.json"]), "b"),
        (found(missing=["x"]), found(missing=["y"]), "a"),
        ({}, {}, "a"),
        ({"__weights_found": {"msg": "there is no folder"}}, {"__weights_found": {"skipped": True}}, "a"),
    ],
)
def test_a_host_that_has_everything_gives(of_seed, of_next, giver):
    weights = {"seed": "a", "chain": [{"host": name} for name in "abc"], "patch": {"config.json": {}}}
    chain = weights_chain(weights, ["a", "b"], {"a": of_seed, "b": of_next, "c": found()})
    assert [link["host"] for link in chain] == sorted("abc", key=lambda name: name != giver)


def test_a_seed_that_does_not_answer_is_named_unless_another_host_has_all():
    weights = {"seed": "a", "chain": [{"host": "b"}, {"host": "c"}], "patch": {}}
    with pytest.raises(AnsibleFilterError, match="a, which is to fetch the weights, did not answer"):
        weights_chain(weights, ["b", "c"], {"b": {}, "c": {}})
    assert weights_chain(weights, ["b", "c"], {"b": {}, "c": found()})[0]["host"] == "c"
