# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import worker
from hypothesis import given
from hypothesis import strategies as st

ASKS = 1
HOSTS = {"10.0.0.1": "seed", "10.0.0.2": "before", "10.0.0.4": "behind"}


def peer(address: str, down: int, up: int = 0, flags: int = 0) -> SimpleNamespace:
    return SimpleNamespace(ip=(address, 29600), total_download=down, total_upload=up, flags=flags)


@pytest.fixture
def traffic():
    """Of the third host of four."""
    return worker.Traffic(HOSTS, 2)


def counts(traffic: worker.Traffic, received: int, sent: int) -> dict[str, tuple[int, int]]:
    return {found["host"]: (found["received"], found["sent"]) for found in traffic.peers(received, sent)}


def test_of_hosts_with_which_there_was_nothing_nothing_is_said(traffic):
    traffic.add([], ASKS)
    assert traffic.peers(0, 0) == []


def test_bytes_are_kept_when_a_connection_is_over(traffic):
    traffic.add([peer("10.0.0.2", 100), peer("10.0.0.4", 0, 70)], ASKS)
    traffic.add([peer("10.0.0.2", 0), peer("10.0.0.2", 150)], ASKS)
    traffic.add([], ASKS)
    assert counts(traffic, 150, 70) == {"before": (150, 0), "behind": (0, 70)}


def test_what_came_between_two_looks_goes_to_those_that_it_must_have_been(traffic):
    traffic.take_from("10.0.0.1")
    traffic.take_from("10.0.0.2")
    traffic.meet("10.0.0.4")
    traffic.meet("10.0.0.9")
    traffic.add([peer("10.0.0.1", 30)], ASKS)
    assert counts(traffic, 100, 50) == {"seed": (30, 0), "before": (70, 0), "behind": (0, 50)}


def test_strangers_are_not_counted(traffic):
    traffic.add([peer("10.0.0.9", 5, 5, ASKS)], ASKS)
    traffic.ban("10.0.0.9")
    assert traffic.peers(5, 5) == []


def test_who_is_there_who_asks_and_who_is_banned_is_told(traffic):
    traffic.add([peer("10.0.0.2", 1), peer("10.0.0.4", 0, 0, ASKS | 64)], ASKS)
    traffic.ban("10.0.0.1")
    flags = {found["host"]: (found["connected"], found["asking"], found["banned"]) for found in traffic.peers(1, 0)}
    assert flags == {
        "seed": (False, False, True),
        "before": (True, False, False),
        "behind": (True, True, False),
    }


@given(st.sets(st.text("ab.-/\u00e9Z", min_size=1, max_size=8), max_size=12))
def test_files_are_in_the_order_of_the_torrents_own_tree(names):
    paths = [name for name in names if all(part for part in name.split("/"))]
    paths = [path for path in paths if not any(other.startswith(path + "/") for other in paths)]
    tree: dict = {}
    for path in paths:
        place = tree
        *folders, last = path.encode().split(b"/")
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = {}
    seen: list[str] = []

    def visit(place: dict, above: bytes) -> None:
        # BEP 3: keys are in the order of their raw bytes, and that is how a torrent is read.
        for name in sorted(place):
            visit(place[name], above + b"/" + name)
        if not place and above:
            seen.append(above[1:].decode())

    visit(tree, b"")
    assert worker.ordered(paths) == seen
