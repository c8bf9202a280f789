# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.ascend import versions
from hypothesis import given
from hypothesis import strategies as st

ORDERED = (
    "7.0.T10",
    "7.1.0.7.220",
    "7.1.0.11.220",
    "8.0.T63",
    "8.0.RC3",
    "8.0.0",
    "8.2.RC1.alpha003",
    "8.2.RC1",
    "8.5.0.beta1",
    "8.5.0",
    "9.0.0-rc.1",
    "9.0.0",
    "20.2.0",
    "21.0.4",
    "21.0.4.B030",
    "22.0.3.1",
    "22.0.4",
    "23.0.rc2",
    "23.0.5",
    "24.1.rc3",
    "24.1.rc3.1",
    "24.1.RC3.7",
    "24.1.0",
    "24.1.0.1",
    "24.1.0.3",
    "25.0.rc1",
    "25.5.1",
    "26.0.rc1",
    "26.0.rc3",
)


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(ORDERED)))
def test_order(older, newer):
    assert versions.key(older) < versions.key(newer)
    assert versions.key(older.swapcase()) == versions.key(older)


@pytest.mark.parametrize(
    ("one", "other"),
    [("8.0", "8.0.0"), ("8.0.RC3", "8.0.0-rc.3"), ("24.1.rc3", " 24.1.RC3\n"), ("24.1.0", "24.01.0")],
)
def test_forms_of_one_version(one, other):
    assert versions.key(one) == versions.key(other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x.x.x",
        "NA",
        "24",
        "24.1.",
        ".24.1",
        "24..1",
        "24.1.rc",
        "rc1.2",
        "24.1 .0",
        "24,1",
        "1." * 40 + "1",
        None,
        24,
    ],
)
def test_what_is_no_version(text):
    assert versions.key(text) is None


@given(st.text(alphabet="0123456789.-rcRCtTalphbe \u0661", max_size=80) | st.text(max_size=80))
def test_nothing_raises_and_all_compare(text):
    found = versions.key(text)
    assert found is None or (found < versions.key("24.1.0")) != (found >= versions.key("24.1.0"))
