# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.baremetal.llm.plugins.plugin_utils import followed_action
from ansible_collections.baremetal.llm.plugins.plugin_utils.followed_action import FollowedAction, patiently, told

GB = 10**9


@pytest.mark.parametrize(
    ("progress", "wanted"),
    [
        (
            {"what": "copying", "done": 12_300_000_000, "total": 688_600_000_000, "rate": 1_100_000_000},
            "copying: 12.3 GB of 688.6 GB, 1.1 GB/s, 10 min left",
        ),
        ({"what": "hashing", "done": 0, "total": 5, "rate": 0}, "hashing: 0 B of 5 B, 0 B/s"),
        ({"what": "hashing", "done": 5, "total": 5, "rate": 1}, "hashing: 5 B of 5 B, 1 B/s"),
        ({"what": "x", "done": 0, "total": 10**15, "rate": 10**6}, "x: 0 B of 1000.0 TB, 1.0 MB/s, 277777.8 h left"),
        ({"what": "x", "done": 1000, "total": 101_000, "rate": 1000}, "x: 1.0 kB of 101.0 kB, 1.0 kB/s, 100 s left"),
        ({}, "at work: 0 B of 0 B, 0 B/s"),
    ],
)
def test_progress_as_people_read_it(progress, wanted):
    assert told(progress) == wanted


@pytest.mark.parametrize(
    ("lock", "small"),
    [
        ({"files": [{"size": 999_999_999}]}, True),
        ({"files": [{"size": 600_000_000}, {"size": 600_000_000}]}, False),
        ({"files": []}, False),
        ({"files": "text"}, False),
        ({"files": [{"size": "12"}]}, False),
        ({"files": None}, False),
        ("/locks/model.json", False),
        (None, False),
    ],
)
def test_only_what_is_known_to_be_small_is_not_followed(lock, small):
    assert FollowedAction._is_small(lock) is small


def test_a_connection_that_comes_back(monkeypatch):
    monkeypatch.setattr(followed_action.time, "sleep", lambda seconds: None)
    answers = [AnsibleConnectionFailure("lost"), AnsibleConnectionFailure("lost"), "there"]

    def look():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(look) == "there"
    with pytest.raises(IndexError):
        patiently(look)


def test_a_connection_that_stays_away(monkeypatch):
    monkeypatch.setattr(followed_action.time, "sleep", lambda seconds: None)

    def look():
        raise AnsibleConnectionFailure("lost")

    with pytest.raises(AnsibleConnectionFailure):
        patiently(look)
