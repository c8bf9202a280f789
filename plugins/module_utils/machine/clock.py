# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clock of a host, and whether something keeps it in step."""

from __future__ import annotations

import ctypes
import time

_STA_UNSYNC = 0x0040  # linux/timex.h: the clock is not synchronized


class _Timex(ctypes.Structure):
    """The head of struct timex (linux/timex.h), and room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),  # 0: only read
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),  # microseconds
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def read() -> dict:
    """Return {epoch_s, synchronized, estimated_error_s}; None where the kernel does not tell.

    The error is the kernel's own estimate in seconds, known only while the clock is synchronized.
    """
    state = _adjtimex()
    synchronized = None if state is None else not state.status & _STA_UNSYNC
    return {
        "epoch_s": round(time.time(), 3),
        "synchronized": synchronized,
        "estimated_error_s": state.esterror / 1e6 if state is not None and synchronized else None,
    }


def _adjtimex() -> _Timex | None:
    state = _Timex()
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.byref(state))
    except (OSError, AttributeError):  # a C library without it
        return None
    return None if answer < 0 else state
