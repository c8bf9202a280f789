# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import sums
from hypothesis import given
from hypothesis import strategies as st

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{A}  model.safetensors\n", {"model.safetensors": A}),
        (f"{A} *model.safetensors\n{B}  x/y.json\n", {"model.safetensors": A, "x/y.json": B}),
        (f"{A.upper()}  ./x\n", {"x": A}),
        (f"{A}  two words  and more \n", {"two words  and more ": A}),
        (f"{A}  *x\n", {"*x": A}),
        (f"\\{A}  line\\nfeed\\\\n\\r\n", {"line\nfeed\\n\r": A}),
        (f"{A}  back\\slash\n", {"back\\slash": A}),
        (f"SHA256 (a (b).json) = {A}\n", {"a (b).json": A}),
        (f"# made by hand\n\n{A}  x\r\n", {"x": A}),
    ],
)
def test_what_sha256sum_writes(text, found):
    assert sums.parse(text, "a list") == found


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "# nothing\n", f"{A}  x", f"{A}\n", f"{A}  \n", f"{A} x\n", f"{A[1:]}  x\n", f"{A}a  x\n",
        "g" * 64 + "  x\n",
        f"{A}  x\n{B}  x\n", f"{A}  x\n{B}  ./x\n", f"\\{A}  x\\t\n", f"\\{A}  x\\\n", f"MD5 (x) = {A}\n", "<html>\n",
    ],
)  # fmt: skip
def test_other_lists_are_refused(text):
    with pytest.raises(LlmError) as caught:
        sums.parse(text, "a list")
    assert caught.value.remedy


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.dictionaries(NAMES.filter(lambda name: not name.startswith((".", "#"))), st.binary(max_size=20), max_size=8))
def test_whatever_coreutils_write_is_read(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("sums")
    contents = {name: content for name, content in contents.items() if len(name.encode()) < 200}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    if not contents:
        return
    listed = subprocess.run(["sha256sum", "--", *contents], cwd=folder, capture_output=True, check=True).stdout
    wanted = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert sums.parse(os.fsdecode(listed), "a list") == wanted


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        found = sums.parse(text, "a list")
    except LlmError:
        return
    assert all(len(digest) == 64 and name for name, digest in found.items())
