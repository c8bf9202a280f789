# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import chain
from hypothesis import given
from hypothesis import strategies as st

GIVES = chain.Link(True, True, 0)
EMPTY = chain.Link(True, False, 0)
HOSTS = [f"10.0.0.{at}" for at in range(5)]
UP = ["10.0.0.2", "10.0.0.1", "10.0.0.0"]


@pytest.fixture
def choice():
    """Of the fourth host of five, at time 0."""
    return chain.Choice(chain.order(HOSTS, HOSTS[3]), 3, 0.0)


def run(choice: chain.Choice, start: float, seconds: float, links) -> list[str]:
    """Step four times a second; ``links`` gives them by time. Return what was wanted last."""
    wanted = []
    for tick in range(int(seconds * 4) + 1):
        wanted = choice.step(start + tick / 4, links(start + tick / 4))
    return wanted


def flowing(address: str, also: dict | None = None):
    """Links of which that with ``address`` brings more all the time."""
    return lambda now: {address: chain.Link(True, True, int(now * 1000)), **(also or {})}


def test_those_before_come_first_the_nearest_ahead_then_those_behind():
    assert chain.order(HOSTS, HOSTS[2]) == [HOSTS[1], HOSTS[0], HOSTS[3], HOSTS[4]]
    assert chain.order(HOSTS, HOSTS[0]) == HOSTS[1:]
    assert chain.order(HOSTS[:1], HOSTS[0]) == []


def test_alone_there_is_nobody_to_choose():
    alone = chain.Choice([], 0, 0.0)
    assert alone.step(100.0, {}) == []
    assert alone.allowed([]) == []


def test_while_it_brings_something_the_one_before_is_kept_for_ever(choice):
    assert run(choice, 1.0, 100, flowing(UP[0])) == UP[:1]


def test_without_a_connection_the_next_one_up_is_tried_and_the_nearer_ones_go_on_being_tried(choice):
    assert run(choice, 0.0, chain.SILENT_S - 0.5, lambda _now: {}) == UP[:1]
    assert run(choice, chain.SILENT_S, 0, lambda _now: {}) == UP[:2]
    assert run(choice, chain.SILENT_S, chain.SILENT_S, lambda _now: {}) == UP[:3]


def test_one_that_owes_pieces_and_brings_none_is_left(choice):
    assert run(choice, 0.0, chain.SILENT_S, lambda _now: {UP[0]: GIVES}) == UP[:2]


def test_one_that_has_nothing_itself_is_given_time_to_go_around_a_dead_one(choice):
    assert run(choice, 0.0, chain.EMPTY_S - 1, lambda _now: {UP[0]: EMPTY}) == UP[:1]
    assert run(choice, chain.EMPTY_S, 0, lambda _now: {UP[0]: EMPTY}) == UP[:2]


def test_back_to_the_one_before_as_soon_as_it_has_something(choice):
    run(choice, 0.0, chain.SILENT_S, lambda _now: {})
    assert run(choice, 4.0, 10, flowing(UP[1])) == UP[:2]
    assert run(choice, 15.0, 10, flowing(UP[1], also={UP[0]: EMPTY})) == UP[:2]
    ahead = {UP[0]: GIVES, UP[1]: chain.Link(True, True, 26_000)}
    assert choice.step(26.0, ahead) == UP[:1]
    assert UP[1] not in choice.allowed(UP[:1])


def test_back_to_one_that_is_about_to_have_something_but_only_once(choice):
    run(choice, 0.0, chain.SILENT_S, lambda _now: {})
    near = {UP[0]: chain.Link(True, False, 0, near=True)}
    assert run(choice, 4.0, 0, flowing(UP[1], also=near)) == UP[:1]
    assert run(choice, 4.25, chain.EMPTY_S, lambda _now: near) == UP[:2]
    assert run(choice, 30.0, 60, flowing(UP[1], also=near)) == UP[:2]


def test_one_that_was_left_because_it_stalled_comes_back_only_with_bytes(choice):
    run(choice, 0.0, chain.SILENT_S, lambda _now: {UP[0]: GIVES})
    assert run(choice, 4.0, 10, flowing(UP[1], also={UP[0]: GIVES})) == UP[:2]
    assert choice.step(15.0, {UP[0]: chain.Link(True, True, 16384), UP[1]: GIVES}) == UP[:1]


def test_a_connection_that_comes_and_goes_without_bytes_is_no_sign_of_life(choice):
    old = chain.Link(True, True, 5000)
    choice.step(0.0, {UP[0]: old})
    wanted = run(choice, 0.25, chain.SILENT_S + 0.5, lambda now: {UP[0]: old} if int(now * 4) % 2 else {})
    assert wanted == UP[:2]


def test_behind_this_host_is_asked_last_and_nobody_is_left_untried(choice):
    assert run(choice, 0.0, 60, lambda _now: {}) == [*UP, HOSTS[4]]


def test_those_behind_are_always_let_in_and_those_before_only_when_wanted(choice):
    wanted = choice.step(0.0, {})
    assert choice.allowed(wanted) == [UP[0], HOSTS[4]]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(HOSTS),
            st.builds(chain.Link, st.booleans(), st.booleans(), st.integers(0, 10**9), st.booleans()),
        ),
        max_size=60,
    )
)
def test_whatever_is_seen_the_one_before_is_always_wanted_and_never_oneself(seen):
    made = chain.Choice(chain.order(HOSTS, HOSTS[3]), 3, 0.0)
    for tick, links in enumerate(seen):
        wanted = made.step(tick * 1.0, links)
        assert wanted[0] == UP[0]
        assert HOSTS[3] not in wanted
        assert wanted == made.addresses[: len(wanted)]
        assert set(wanted) <= set(made.allowed(wanted))
