# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockfile, patch
from hypothesis import given
from hypothesis import strategies as st

CONFIG = b'{"model_type": "deepseek_v3", "torch_dtype": "bfloat16"}'
CHANGE = {"config.json": {"torch_dtype": "float16"}}


def lock_of(files: dict[str, bytes], revision: str = "r1") -> dict:
    return lockfile.check(
        {
            "model": "m",
            "revision": revision,
            "files": [
                {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for path, content in files.items()
            ],
        }
    )


def test_a_value_that_is_there_already_needs_no_patch():
    content = b'{"torch_dtype": "float16"}'
    lock = lock_of({"config.json": content}, "r1")
    assert patch.plan(lock, "config.json", {"torch_dtype": "float16"}, content) == lock["files"][0]


def test_a_value_of_another_type_is_another_value():
    content = b'{"x": 1}'
    lock = lock_of({"config.json": content}, "r1")
    assert "patched" in patch.plan(lock, "config.json", {"x": True}, content)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_object_cannot_be_changed(content):
    with pytest.raises(LlmError, match="cannot be changed"):
        patch.plan(lock_of({"config.json": content}, "r1"), "config.json", {"x": 1}, content)


def test_a_patch_of_another_file_than_the_locked_one():
    with pytest.raises(LlmError, match="not as locked"):
        patch.plan(lock_of({"config.json": CONFIG}), "config.json", {"x": 1}, b"{}")
    with pytest.raises(LlmError, match=r"no absent\.json"):
        patch.plan(lock_of({"config.json": CONFIG}), "absent.json", {"x": 1}, b"{}")


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.floats(allow_nan=False), max_size=5)
)
def test_a_patch_keeps_everything_else(data):
    content = json.dumps(data).encode()
    lock = lock_of({"config.json": content}, "r1")
    entry = patch.plan(lock, "config.json", {"torch_dtype": "float16"}, content)
    result = patch.patched("config.json", content, {"torch_dtype": "float16"})
    assert json.loads(result) == {**data, "torch_dtype": "float16"}
    assert entry["patched"]["sha256"] == hashlib.sha256(result).hexdigest()
    assert list(json.loads(result))[: len(data)] == list(data)


def nowhere(_entry):
    return []


def nothing(_entry):
    return ""


def never(entry):
    raise AssertionError(f"{entry['path']} was brought")


def test_the_lock_is_completed_from_where_the_published_form_lies(tmp_path):
    lock = lock_of({"config.json": CONFIG, "a.safetensors": b"x"})
    (tmp_path / "wrong").write_bytes(b"{}")
    (tmp_path / "right").write_bytes(CONFIG)
    (tmp_path / "link").symlink_to(tmp_path / "right")

    def places(_entry):
        return [str(tmp_path / name) for name in ("absent", "link", "wrong", "right")]

    done = patch.complete(lock, CHANGE, places, never)
    assert lockfile.check(done) == done
    assert done["files"][1]["patched"]["set"] == CHANGE["config.json"]
    assert lockfile.identity(done) == lockfile.identity(lock)
    assert patch.complete(done, CHANGE, nowhere, never) == done
    assert patch.complete(lock, {}, nowhere, never) == lock


def test_what_lies_nowhere_is_brought(tmp_path):
    lock = lock_of({"config.json": CONFIG})
    (tmp_path / "brought").write_bytes(CONFIG)
    done = patch.complete(lock, CHANGE, nowhere, lambda entry: str(tmp_path / "brought"))
    assert "patched" in done["files"][0]
    assert patch.complete(lock, CHANGE, nowhere, nothing) == lock


def test_a_file_that_the_lock_does_not_name_cannot_be_changed():
    with pytest.raises(LlmError, match=r"no config\.json"):
        patch.complete(lock_of({"a.safetensors": b"x"}), CHANGE, nowhere, nothing)
