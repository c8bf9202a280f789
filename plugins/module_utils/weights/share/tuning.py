# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of libtorrent's session for a chain of hosts in one data centre.

Its defaults are made for home lines and swarms of strangers. Here each host takes from one other and gives to one
other, so there are no duplicates to avoid, and what counts is how soon a host passes on what it has. Source of the
names and their meaning: the reference manual of libtorrent 2.1 (settings_pack); of the values: benchmarks/weights, or
as said.
"""

from __future__ import annotations

import os

from .. import lockfile

# Of the data network where nobody said how fast it is. Too much costs memory, too little costs speed.
UNKNOWN_MBPS = 10_000
# Beyond what one session moves: its network is one thread. Published: 3.6 to 5.6 Gbit/s; measured here: 3.1.
MOST_SESSION_MBPS = 25_000
BLOCK_BYTES = 16 << 10

# Requests under way, in seconds of the link: they bridge the time in which the other side is not scheduled. In a chain
# they cost neither duplicates nor time, for a host has only one that it takes from.
REQUESTED_S = 0.1
# What waits in the sender's buffer, in seconds of the link. The news of a piece goes behind it, and the next host can
# ask for no piece before: each hop adds this time. Measured at 100 Mbit/s: 0.28 s a hop with 4 MiB, 0.21 with 256 KiB.
BUFFERED_S = 0.02
# What is received and not yet written, in seconds of the link. A host that is killed loses that much; a disk that
# pauses for longer stops the link. Measured: with 256 MiB a killed host had lost all of 256 MiB, with 8 MiB 1 %.
UNWRITTEN_S = 0.5
# Of all weights, over the sessions of a host: what a kill may cost has to stay below 5 %, with what is under way.
MOST_UNWRITTEN = 0.02

# What the kernel keeps for a connection, in seconds of the link, where that is less than it gives without being asked
# (net.core.rmem_max and wmem_max of the common distributions): below 160 Mbit/s. More fills the queue at the own link,
# where the acknowledgements for what is received wait as well, and packets are lost. Measured at 100 Mbit/s: a host
# that passed on what it received took 23.0 s for 22.4 s worth of data, with this 22.4 s. Faster links are left to the
# kernel.
KERNEL_S = 0.0105
MOST_KERNEL_BYTES = 212_992

_PLAIN_ONLY = 2  # settings_pack.enc_policy.pe_disabled
_PREFER_TCP = 0  # settings_pack.bandwidth_mixed_algo_t.prefer_tcp


def settings(spec: dict, worker: int) -> dict:
    """Return the settings for one worker's session, all but addresses, ports and alerts.

    :param spec: as the agent has it; read are speed_mbps (of the host's link, 0 for unknown), processes and lock
    :param worker: its number; all workers get the same so far as they share link and cores evenly
    """
    sessions = max(1, spec["processes"])
    rate = min((spec["speed_mbps"] or UNKNOWN_MBPS) / sessions, MOST_SESSION_MBPS) * 1e6 / 8
    cores = _cores_of(worker, sessions)
    unwritten = min(rate * UNWRITTEN_S, MOST_UNWRITTEN * lockfile.total_bytes(spec["lock"]) / sessions)
    return {
        **_PEERS,
        **_LATENCY,
        **_buffers(rate),
        "max_queued_disk_bytes": _bounded(unwritten, 512 << 10, 64 << 20),
        **_threads(cores),
    }


def _cores_of(worker: int, sessions: int) -> int:
    """Return how many cores a worker may count on: those that are left over go to the first ones."""
    cores = os.cpu_count() or 1
    return max(1, cores // sessions + (worker < cores % sessions))


# Who talks with whom, and how.
_PEERS = {
    # TCP only: uTP is made to give way to others, and works packet by packet in the program.
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "mixed_mode_algorithm": _PREFER_TCP,
    # RC4 is no protection, and it makes a copy of everything that is sent (libtorrent's issue 4097).
    "out_enc_policy": _PLAIN_ONLY,
    "in_enc_policy": _PLAIN_ONLY,
    # Accounting for headers only serves rate limits that are estimates; ours are of payload.
    "rate_limit_ip_overhead": False,
    # Everyone who asks is served at once; -1 also saves the round through the choker (libtorrent's issue 4097).
    "unchoke_slots_limit": -1,
    # Far above any chain; connections that wait for attention at the start of all hosts at once are not refused.
    "connections_limit": 1000,
    "connection_speed": 500,
    "listen_queue_size": 512,
    # Pieces to be had while choked: nobody is choked.
    "allowed_fast_set_size": 0,
    # A host that is late, or comes back, is tried again each second and never given up: whom to try is the chain's
    # choice. The wait is this times the failures so far: with 1 a seed's first byte left 2.2 s after its start, with 0
    # 0.9 s.
    # Failures are counted in five bits.
    "min_reconnect_time": 0,
    "max_failcount": 31,
    # A dead host is noticed by its silence: a healthy one says something twice a minute and answers requests.
    "peer_connect_timeout": 5,
    "handshake_timeout": 10,
    "peer_timeout": 20,
    "request_timeout": 10,
    "piece_timeout": 10,
}

# How soon things happen.
_LATENCY = {
    # A new connection is made at the next tick: the default of half a second was 2 % of the time for 256 MiB at
    # 100 Mbit/s. Ten ticks a second cost less than 1 % of a core.
    "tick_interval": 100,
    # News of a piece for those that have it already is sent by nobody: half of all messages in a chain.
    "send_redundant_have": False,
    # Seconds of requests to keep with the other side, at most max_out_request_queue; the default, 3, is for far hosts.
    "request_queue_time": 1,
    # Off: hosts that were told of a piece before it was there asked for it and waited: 0.5 s a hop instead of 0.2.
    "predictive_piece_announce": 0,
}


def _buffers(rate: float) -> dict:
    """Return what is kept where, for ``rate`` bytes a second."""
    buffered = _bounded(rate * BUFFERED_S, 256 << 10, 8 << 20)
    kernel = int(rate * KERNEL_S)
    kernel = max(kernel, 64 << 10) if kernel <= MOST_KERNEL_BYTES else 0
    return {
        "recv_socket_buffer_size": kernel,
        "send_socket_buffer_size": kernel,
        # 2000 blocks are what others accept by default, and 32 MiB, the product of 100 Gbit/s and 2.5 ms.
        "max_out_request_queue": _bounded(rate * REQUESTED_S / BLOCK_BYTES, 64, 2000),
        "max_allowed_in_request_queue": 4000,
        # The target lies between the two and follows the rate of the last second, in percent of it.
        "send_buffer_watermark": buffered,
        "send_buffer_low_watermark": buffered // 2,
        "send_buffer_watermark_factor": 50,
        # A block and its header, many times over: fewer and longer reads from a socket that is full.
        "max_peer_recv_buffer_size": 8 << 20,
    }


def _threads(cores: int) -> dict:
    """Return the threads of one session, beside the one of its network."""
    return {
        # Reads and writes that wait for the disk; NVMe is fast only when asked for much at once.
        "aio_threads": _bounded(cores, 2, 8),
        # SHA-256 takes 1.7 GB/s of a core with the instructions for it, so that one thread keeps up with a session.
        "hashing_threads": _bounded(cores // 2, 1, 4),
        # All shards of the largest models published (163) stay open.
        "file_pool_size": 512,
    }


def _bounded(value: float, least: int, most: int) -> int:
    return int(max(least, min(most, value)))
