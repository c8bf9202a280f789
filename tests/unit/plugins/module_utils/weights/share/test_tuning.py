# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How libtorrent is set for links of any speed."""

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import tuning
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20


R1 = 700 * 10**9


def _settings(speed_mbps, processes=1, worker=0, size=R1):
    lock = {"files": [{"size": size}]}
    return tuning.settings({"speed_mbps": speed_mbps, "processes": processes, "lock": lock}, worker)


def test_a_slow_link_has_short_queues_so_that_news_of_pieces_is_not_late():
    found = _settings(100)
    assert found["send_buffer_watermark"] == 256 << 10
    assert found["send_buffer_low_watermark"] == 128 << 10
    assert found["max_out_request_queue"] == 76
    assert found["max_queued_disk_bytes"] == 6_250_000


@pytest.mark.parametrize(("speed", "processes"), [(0, 1), (100, 1), (100_000, 4)])
def test_a_kill_never_costs_much_of_the_weights(speed, processes):
    found = _settings(speed, processes, size=256 * MIB)
    assert processes * found["max_queued_disk_bytes"] <= 0.02 * 256 * MIB
    assert _settings(speed, size=1000)["max_queued_disk_bytes"] == MIB // 2


def test_a_fast_link_has_long_ones():
    found = _settings(100_000, processes=4)
    assert found["send_buffer_watermark"] == 8 * MIB
    assert found["max_out_request_queue"] == 2000
    assert found["max_queued_disk_bytes"] == 64 * MIB


@pytest.mark.parametrize(("speed", "wanted"), [(10, 65536), (100, 131_250), (160, 210_000), (170, 0), (25_000, 0)])
def test_the_kernel_keeps_little_for_a_slow_link_and_what_it_likes_for_a_fast_one(speed, wanted):
    found = _settings(speed)
    assert found["recv_socket_buffer_size"] == found["send_socket_buffer_size"] == wanted


def test_workers_share_the_link():
    assert _settings(40_000, processes=4) == _settings(10_000) | _threads(_settings(40_000, processes=4))


def test_a_link_of_unknown_speed_is_taken_for_one_of_10_gbit():
    assert _settings(0) == _settings(10_000)


@pytest.mark.parametrize(
    ("cores", "processes", "worker", "aio", "hashing"),
    [(1, 1, 0, 2, 1), (2, 4, 3, 2, 1), (64, 4, 0, 8, 4), (10, 4, 0, 3, 1), (10, 4, 2, 2, 1), (None, 1, 0, 2, 1)],
)
def test_workers_share_the_cores(monkeypatch, cores, processes, worker, aio, hashing):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    found = _settings(10_000, processes, worker)
    assert (found["aio_threads"], found["hashing_threads"]) == (aio, hashing)


@given(st.integers(0, 10**6), st.integers(1, 64), st.integers(0, 63))
def test_whatever_the_link_is_the_settings_can_be_used(speed, processes, worker):
    found = _settings(speed, processes, worker)
    # The types of settings_pack, whose integers have 32 bits.
    assert all(isinstance(value, (bool, int)) and 0 <= value + 1 < 1 << 31 for value in found.values())
    assert 0 < found["send_buffer_low_watermark"] <= found["send_buffer_watermark"] <= 8 * MIB
    assert 64 <= found["max_out_request_queue"] <= 2000 <= found["max_allowed_in_request_queue"]
    assert MIB // 2 <= found["max_queued_disk_bytes"] <= 64 * MIB
    assert found["aio_threads"] >= 2
    assert found["hashing_threads"] >= 1


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_faster_link_never_has_less(one, other):
    slower, faster = _settings(min(one, other)), _settings(max(one, other))
    kernel = {"recv_socket_buffer_size", "send_socket_buffer_size"}
    assert all(slower[name] <= faster[name] for name in slower.keys() - kernel)


def test_nothing_but_plain_tcp_is_spoken_and_nobody_is_choked():
    found = _settings(0)
    assert not found["enable_incoming_utp"]
    assert not found["enable_outgoing_utp"]
    assert found["in_enc_policy"] == found["out_enc_policy"] == 2
    assert found["unchoke_slots_limit"] == -1


def test_what_the_worker_says_itself_is_left_to_it():
    assert not {"listen_interfaces", "outgoing_interfaces", "alert_mask", "enable_dht", "enable_lsd"} & set(
        _settings(0)
    )


def _threads(found):
    return {name: found[name] for name in ("aio_threads", "hashing_threads")}
