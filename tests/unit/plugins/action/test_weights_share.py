# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.action import weights_share


class Waiting(weights_share.ActionModule):
    """The action without a task: the host answers what is given, and each look takes a minute."""

    def __init__(self, answers):
        self.answers = list(answers)
        self.asked = []

    def _turn(self, arguments, task_vars):
        self.asked.append(arguments["state"])
        return dict(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


@pytest.fixture
def wait(monkeypatch):
    minutes = iter(range(0, 10**6, 60))
    monkeypatch.setattr(weights_share.time, "monotonic", lambda: float(next(minutes)))

    def run(*answers, **arguments):
        action = Waiting([{"changed": False}, *answers])
        return action._complete({"path": "/w", **arguments}, {"inventory_hostname": "n1"}), action.asked

    return run


def sharing(done, state="sharing"):
    return {"state": state, "bytes_done": done, "bytes_total": 100, "rate": 1, "complete": False, "error": {}}


def test_it_waits_until_all_is_there(wait):
    whole = {**sharing(100, "complete"), "complete": True}
    result, asked = wait(sharing(1), sharing(50), whole)
    assert result["complete"]
    assert "failed" not in result
    assert asked == ["started", "followed", "followed", "followed"]


def test_an_error_ends_it_at_once_with_all_four_parts(wait):
    error = {"msg": "no space", "wanted": "9 bytes", "found": "3 bytes", "remedy": "free some"}
    result, asked = wait(sharing(1), {**sharing(1, "failed"), "error": error})
    assert result["failed"]
    assert {key: result[key] for key in error} == {**error, "msg": "n1: no space"}
    assert len(asked) == 3


def test_what_cannot_be_started_is_told_as_it_is(wait):
    action = Waiting([{"failed": True, "msg": "in use"}])
    assert action._complete({"path": "/w"}, {})["msg"] == "in use"


def test_nothing_new_for_long_ends_it_and_slow_progress_does_not(wait):
    slow = [sharing(done) for done in range(1, 41) for _turn in range(10)]
    result, asked = wait(*slow)
    assert result["failed"]
    assert result["found"] == "40 bytes, state sharing"
    assert len(asked) > len(slow)


def test_checking_what_is_there_may_take_its_time(wait):
    whole = {**sharing(100, "complete"), "complete": True}
    result, _asked = wait(*[sharing(0, "checking")] * 100, whole)
    assert result["complete"]


def test_the_budget_ends_it_in_any_case(wait):
    result, asked = wait(*[sharing(done) for done in range(100)], timeout=600)
    assert result["failed"]
    assert "not complete after" in result["msg"]
    assert len(asked) < 15
