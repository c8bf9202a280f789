# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import rsync_sources
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share.rsync_sources import Next, Note, Sources
from hypothesis import given
from hypothesis import strategies as some

MIB = 1 << 20
SIZES = {"a": 10 * MIB, "b": 10 * MIB, "c": 10 * MIB}
# When nobody is waited for any more merely because he may be late.
LATER = rsync_sources.START_S + 1


def sources(now: float = 0.0) -> Sources:
    """Two hosts before this one, the seed being the farther, and one behind it."""
    return Sources(["n1", "seed", "n3"], 2, now)


def note(*files: str, hopeful: bool = False) -> Note:
    return Note(frozenset(files), hopeful)


def test_takes_from_the_host_before_it_what_that_has():
    known = sources()
    known.heard("n1", note("b", "c"), 0.0)
    known.heard("seed", note("a", "b", "c"), 0.0)
    assert known.next(SIZES, 0.0) == Next("n1", ("b",))


def test_short_files_are_taken_together_in_the_order_of_the_lock():
    known = sources()
    known.heard("n1", note("a", "b", "c"), 0.0)
    assert known.next({"c": 5, "a": 5, "b": 5}, 0.0) == Next("n1", ("c", "a", "b"))
    most = rsync_sources.BATCH_BYTES
    assert known.next({"a": most, "b": 1}, 0.0) == Next("n1", ("a",))
    assert known.next({"a": 1, "b": most - 1, "c": 1}, 0.0) == Next("n1", ("a", "b"))


def test_waits_for_a_host_that_may_only_be_late_and_then_goes_around_it():
    known = sources()
    known.heard("seed", note("a"), LATER)
    assert known.next(SIZES, rsync_sources.START_S - 0.1) == Next("n1")
    assert known.next(SIZES, LATER) == Next("seed", ("a",))


def test_a_host_that_falls_silent_is_gone_around_and_returned_to():
    known = sources()
    known.heard("n1", note("a"), LATER)
    known.heard("seed", note("a", "b", "c"), LATER)
    known.silent("n1", LATER)
    assert known.next(SIZES, LATER + rsync_sources.SILENT_S - 0.1) == Next("n1")
    assert known.next(SIZES, LATER + rsync_sources.SILENT_S) == Next("seed", ("a",))
    known.heard("n1", note("a"), LATER + 10)
    assert known.next(SIZES, LATER + 10) == Next("n1", ("a",))


def test_a_host_with_hope_is_waited_for_and_one_without_is_gone_around():
    known = sources()
    known.heard("seed", note("a"), LATER)
    known.heard("n1", note(hopeful=True), LATER)
    assert known.next(SIZES, LATER) == Next("n1")
    assert known.next(SIZES, LATER + rsync_sources.STALE_S) == Next("seed", ("a",)), "it said so long ago"
    known.heard("n1", note(hopeful=False), LATER)
    assert known.next(SIZES, LATER) == Next("seed", ("a",))


def test_a_host_behind_gives_what_it_has_and_is_never_waited_for():
    known = sources()
    known.heard("n1", note(), LATER)
    known.heard("seed", note(), LATER)
    known.heard("n3", note(hopeful=True), LATER)
    assert known.next(SIZES, LATER) == Next()
    known.heard("n3", note("c"), LATER)
    assert known.next(SIZES, LATER) == Next("n3", ("c",))


def test_who_sent_something_wrong_is_not_asked_for_it_again_and_not_waited_for():
    known = sources()
    known.heard("n1", note("a", "b", hopeful=True), LATER)
    known.heard("seed", note("a", "c"), LATER)
    known.wrong("n1", "a", LATER)
    assert known.banned("n1") and not known.banned("seed")
    assert known.next({"a": 1, "b": 1}, LATER) == Next("n1", ("b",))
    assert known.next({"a": 1}, LATER) == Next("seed", ("a",))
    assert known.next({"c": 1}, LATER) == Next("seed", ("c",))


def test_what_a_host_turned_out_to_lack_is_asked_of_the_next():
    known = sources()
    known.heard("n1", note("a"), LATER)
    known.heard("seed", note("a"), LATER)
    known.lacks("n1", "a")
    known.lacks("n3", "a")
    assert known.next({"a": 1}, LATER) == Next("seed", ("a",))


def test_a_file_is_lost_when_nobody_is_left_who_might_bring_it():
    known = sources()
    known.heard("seed", note("a", "b"), LATER)
    known.wrong("seed", "a", LATER)
    end = LATER + rsync_sources.LOST_S
    assert known.lost(SIZES, end - 0.1) == []
    assert known.lost(SIZES, end) == ["a"]
    assert known.wrong_from("a") == ["seed"]
    known.heard("n3", note("a"), end)
    assert known.lost(SIZES, end) == [], "the host behind has it"
    known.silent("n3", end)
    known.heard("n1", note(hopeful=True), end)
    assert known.lost(SIZES, end) == [], "the host before may get it"


def test_hosts_that_do_not_answer_are_asked_now_and_then():
    known = sources()
    known.silent("n1", 0.5)
    assert known.may_ask("n1", 0.6), "its agent may be about to start"
    known.silent("n1", LATER)
    assert not known.may_ask("n1", LATER + 0.1)
    assert known.may_ask("n1", LATER + rsync_sources.AGAIN_S)


def test_no_one_else_is_asked_while_one_suffices():
    known = sources()
    known.heard("n1", note("a"), LATER)
    known.heard("seed", note(), LATER)
    assert known.suffices("n1", ["a"], LATER)
    assert not known.suffices("n1", ["b"], LATER)
    assert not known.suffices("seed", ["a"], LATER)


@given(some.frozensets(some.text(max_size=20)), some.booleans())
def test_a_note_is_read_as_it_was_written(files, hopeful):
    assert rsync_sources.decode(rsync_sources.encode(files, hopeful)) == Note(files, hopeful)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"files": []}',
        '{"files": "a", "hopeful": true}',
        '{"files": [], "hopeful": 1}',
    ],
)
def test_what_is_no_note_is_none(text):
    assert rsync_sources.decode(text) is None


def test_what_is_no_path_in_a_note_is_left_out():
    assert rsync_sources.decode('{"files": ["a", 1, null, ["b"]], "hopeful": false}') == note("a")
