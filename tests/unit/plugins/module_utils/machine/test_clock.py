# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import clock


def kernel_says(monkeypatch, **values) -> None:
    class Library:
        @staticmethod
        def adjtimex(reference):
            state = reference._obj
            assert state.modes == 0  # a call that only reads
            for name, value in values.items():
                setattr(state, name, value)
            return values.get("answer", 0)

    monkeypatch.setattr(clock.ctypes, "CDLL", lambda _name: Library)


@pytest.mark.parametrize(
    ("status", "synchronized", "error"), [(0x2001, True, 0.0025), (0x2041, False, None), (0x40, False, None)]
)
def test_a_clock(monkeypatch, status, synchronized, error):
    kernel_says(monkeypatch, status=status, esterror=2500)
    found = clock.read()
    assert (found["synchronized"], found["estimated_error_s"]) == (synchronized, error)


def test_a_kernel_that_refuses(monkeypatch):
    kernel_says(monkeypatch, answer=-1)
    found = clock.read()
    assert (found["synchronized"], found["estimated_error_s"]) == (None, None)


def test_a_c_library_without_the_call(monkeypatch):
    monkeypatch.setattr(clock.ctypes, "CDLL", lambda _name: object())
    assert clock.read()["synchronized"] is None


def test_this_machine():
    before = time.time()
    found = clock.read()
    assert before - 0.001 <= found["epoch_s"] <= time.time() + 0.001
    assert found["synchronized"] in (True, False, None)
    # struct timex has 208 bytes on 64-bit Linux; the kernel writes all of them.
    assert ctypes.sizeof(clock._Timex) >= 208
