# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import processor
from hypothesis import given
from hypothesis import strategies as st

X86 = "vendor_id\t: GenuineIntel\nmodel name\t: Intel X\nflags\t\t: sse avx2 avx512f\n\nmodel name\t: other\n"
KUNPENG = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x48\nCPU part\t: 0xd01\n"


@pytest.mark.parametrize(
    ("text", "model", "vendor", "flags"),
    [
        (X86, "Intel X", "GenuineIntel", ["avx2", "avx512f", "sse"]),
        (KUNPENG, "0xd01", "HiSilicon", ["asimd", "fp"]),
        (KUNPENG.replace("0x48", "0x99"), "0xd01", "0x99", ["asimd", "fp"]),
        ("model name\t: Intel X\nflags\t:\n", "Intel X", "", []),
    ],
)
def test_processor(fake, source, text, model, vendor, flags):
    fake("/proc/cpuinfo", text)
    found = processor.read(source)
    assert (found["model"], found["vendor"], found["flags"]) == (model, vendor, flags)
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert source.problems == []


@pytest.mark.parametrize("text", [None, "", "flags", b"\xff\xff"])
def test_a_processor_that_is_not_told(fake, source, text):
    if text is not None:
        fake("/proc/cpuinfo", text)
    found = processor.read(source)
    assert (found["model"], found["vendor"], found["flags"], found["governors"]) == ("", "", [], [])
    assert source.problems == ["/proc/cpuinfo does not tell what the processor is"]


def test_only_the_first_of_many_processors_is_read(fake, source):
    fake("/proc/cpuinfo", X86 + "flags\t\t: other\n" * 100_000)
    assert processor.read(source)["flags"] == ["avx2", "avx512f", "sse"]


def test_governors_each_once(fake, source):
    for number, governor in ((0, "schedutil"), (1, "performance"), (10, "schedutil")):
        fake(f"/sys/devices/system/cpu/cpufreq/policy{number}/scaling_governor", governor + "\n")
    fake("/sys/devices/system/cpu/cpufreq/policy11/other", "x")
    fake("/sys/devices/system/cpu/cpufreq/boost", "1\n")
    fake("/proc/cpuinfo", X86)
    assert processor.read(source)["governors"] == ["performance", "schedutil"]


@given(st.text() | st.builds(lambda cut, extra: X86[:cut] + extra, st.integers(0, len(X86)), st.text()))
def test_any_text(text):
    told = processor.parse_cpuinfo(text)
    assert all(flag in text for flag in told["flags"])
    assert told["model"] in text


def test_this_machine(this_host):
    found = processor.read(this_host)
    assert found["cores"] >= 1 and found["flags"]
