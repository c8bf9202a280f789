# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The turns of the wait: what is shown, and what one turn hands to the next."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.baremetal.llm.plugins.action import engine_wait


@pytest.fixture(name="play")
def fixture_play(monkeypatch):
    """Function that runs the action on prepared turns; returns (result, arguments of each turn, lines shown)."""

    def play(turns, **arguments):
        asked, shown = [], []
        action = engine_wait.ActionModule.__new__(engine_wait.ActionModule)
        action._task = SimpleNamespace(args={"run_dir": "/r", "timeout": 600, **arguments})
        left = list(turns)

        def execute(module_name, module_args, task_vars):
            asked.append(dict(module_args, module_name=module_name, host=task_vars["inventory_hostname"]))
            return left.pop(0)

        monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
        monkeypatch.setattr(action, "_execute_module", execute, raising=False)
        monkeypatch.setattr(engine_wait.display, "display", shown.append)
        return action.run(task_vars={"inventory_hostname": "a1"}), asked, shown

    return play


def turn(progress, ready=False, dead=False, exits_before=3):
    return {"ready": ready, "dead": dead, "progress": progress, "exits_before": exits_before, "findings": []}


def test_shows_what_is_waited_for_and_counts_ends_from_the_first_turn(play):
    turns = [turn("waiting for rank 1 (a2)"), turn("weights: shard 1 of 2"), turn("ready", ready=True)]
    result, asked, shown = play(turns, runtime="docker")
    assert result["ready"] and "seconds" in result
    assert [line.split(" (0 s")[0] for line in shown] == [
        "  a1: waiting for rank 1 (a2)",
        "  a1: weights: shard 1 of 2",
    ]
    assert [each.get("exits_before") for each in asked] == [None, 3, 3]
    assert all(each["runtime"] == "docker" and each["timeout"] <= engine_wait.TURN_SECONDS for each in asked)


def test_a_count_that_was_given_stays(play):
    _result, asked, _shown = play([turn(""), turn("", dead=True, exits_before=0)], exits_before=0)
    assert [each["exits_before"] for each in asked] == [0, 0]


@pytest.mark.parametrize("end", [{"failed": True, "msg": "x"}, turn("", dead=True), turn("", ready=True)])
def test_ends_with_the_turn_that_knows(play, end):
    result, asked, shown = play([end])
    assert len(asked) == 1 and shown == [] and end.items() <= {**result, **end}.items()
    assert result.get("failed") == end.get("failed") and result.get("dead") == end.get("dead")


def test_ends_when_the_time_is_over(play):
    result, asked, _shown = play([turn("waiting for rank 1 (a2)")], timeout=0)
    assert not result["ready"] and len(asked) == 1 and result["progress"] == "waiting for rank 1 (a2)"
