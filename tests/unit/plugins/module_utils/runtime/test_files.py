# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a launch: what is written, what is taken away again, and what is never shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.runtime import files
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[5]
ME = f"{os.getuid()}:{os.getgid()}"
KEY = "ab" * 32


def tree(folder):
    """Everything below ``folder`` with its mode, and the content of files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode & 0o7777
        found[str(path.relative_to(folder))] = (mode, path.read_text() if path.is_file() else None)
    return found


def apply(folder, *wanted, dirs=(), private=None, check=False):
    given_files = [{"name": name, "content": content, "mode": "0640", "owner": ""} for name, content in wanted]
    return files.apply(str(folder), list(dirs), given_files, private, check)


def test_writes_with_owner_and_mode_once(tmp_path):
    folder = tmp_path / "run" / "launch"
    dirs = [
        {"path": str(tmp_path / "run"), "mode": "0750", "owner": ""},
        {"path": str(tmp_path / "run" / "work"), "mode": "0700", "owner": ME},
    ]
    wanted = [{"name": "config.json", "content": "{}\n", "mode": "0600", "owner": ME}]
    first = files.apply(str(folder), dirs, wanted, None, False)
    assert first["changed"] and first["removed"] == []
    assert first["written"] == sorted(
        str(path) for path in (*map(Path, (d["path"] for d in dirs)), folder, folder / "config.json")
    )
    there = tree(tmp_path)
    assert there["run/launch/config.json"] == (0o600, "{}\n")
    assert (there["run"][0], there["run/work"][0], there["run/launch"][0]) == (0o750, 0o700, 0o750)
    second = files.apply(str(folder), dirs, wanted, None, False)
    assert second == {"changed": False, "digest": first["digest"], "written": [], "removed": [], "diff": []}
    assert tree(tmp_path) == there


def test_what_is_no_longer_asked_for_goes_and_nothing_else(tmp_path):
    folder = tmp_path / "launch"
    apply(folder, ("a", "1"), ("b", "2"))
    (folder / "mine").write_text("a person's")
    result = apply(folder, ("b", "2"))
    assert result["removed"] == [str(folder / "a")] and result["written"] == [] and result["changed"]
    assert sorted(path.name for path in folder.iterdir()) == [files.MANIFEST, "b", "mine"]
    assert apply(folder, ("b", "2"))["changed"] is False


def test_a_run_that_was_cut_off_leaves_nothing_unknown(tmp_path, monkeypatch):
    folder = tmp_path / "launch"
    apply(folder, ("old", "1"))
    write = files._write

    def cut_off(entry):
        if entry.path.endswith("z"):
            raise KeyboardInterrupt
        write(entry)

    monkeypatch.setattr(files, "_write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        apply(folder, ("a", "1"), ("z", "2"))
    monkeypatch.undo()
    assert sorted(files.manifest(str(folder))["files"]) == ["a", "old", "z"]
    result = apply(folder, ("b", "3"))
    assert sorted(result["removed"]) == [str(folder / "a"), str(folder / "old")]
    assert sorted(path.name for path in folder.iterdir()) == [files.MANIFEST, "b"]


def test_a_failing_write_leaves_the_earlier_file_whole_and_no_partial_one(tmp_path, monkeypatch):
    apply(tmp_path, ("a", "1"))

    def full(_handle):
        raise OSError(28, "No space left on device", "a")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files._write(files.Entry(str(tmp_path / "a"), "2", 0o640, None))
    assert sorted(path.name for path in tmp_path.iterdir()) == [files.MANIFEST, "a"]
    assert (tmp_path / "a").read_text() == "1"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    folder = tmp_path / "launch"
    folder.mkdir()
    (folder / "a").symlink_to(outside)
    assert apply(folder, ("a", "theirs"))["changed"], "the same content behind a link is not ours"
    assert outside.read_text() == "theirs" and not (folder / "a").is_symlink()


@pytest.mark.parametrize("change", ["content", "mode", "gone"])
def test_what_someone_changed_is_put_right(tmp_path, change):
    apply(tmp_path, ("a", "1"))
    path = tmp_path / "a"
    if change == "content":
        path.write_text("2")
    elif change == "mode":
        path.chmod(0o644)
    else:
        path.unlink()
    assert apply(tmp_path, ("a", "1"), check=True)["written"] == [str(path)]
    assert apply(tmp_path, ("a", "1"))["written"] == [str(path)]
    assert tree(tmp_path)["a"] == (0o640, "1")


def test_check_mode_says_the_same_and_writes_nothing(tmp_path):
    folder = tmp_path / "launch"
    apply(folder, ("a", "1"), ("b", "2"))
    before = tree(tmp_path)
    dirs = [{"path": str(tmp_path / "work"), "mode": "", "owner": ""}]
    said = apply(folder, ("a", "9"), ("c", "3"), dirs=dirs, check=True)
    assert tree(tmp_path) == before
    done = apply(folder, ("a", "9"), ("c", "3"), dirs=dirs)
    assert said == done
    assert done["removed"] == [str(folder / "b")]


def test_diff_shows_contents_but_no_secret(tmp_path):
    private = files.private_file(str(tmp_path), "", {"API_KEY": "hunter2hunter2"}, "")
    key = json.loads(private.content)["key"]
    result = apply(tmp_path, ("a", "1\n"), private=private)
    shown = json.dumps(result)
    assert "hunter2" not in shown and key not in shown and "1\\n" in shown
    private = files.private_file(str(tmp_path), "", {"API_KEY": "otherotherother"}, "")
    again = apply(tmp_path, ("a", "1\n"), private=private)
    assert again["written"] == [str(tmp_path / files.SECRETS)] and len(again["diff"]) == 1
    assert "other" not in json.dumps(again).replace("another", "") and again["digest"] != result["digest"]
    gone = apply(tmp_path, ("a", "1\n"))
    assert gone["removed"] == [str(tmp_path / files.SECRETS)] and "other" not in json.dumps(gone)


def test_the_key_is_made_once_and_kept(tmp_path):
    private = files.private_file(str(tmp_path), "", {}, "")
    key = json.loads(private.content)["key"]
    assert len(bytes.fromhex(key)) == files.KEY_BYTES
    apply(tmp_path, private=private)
    assert (tmp_path / files.SECRETS).stat().st_mode & 0o777 == 0o600
    again = files.private_file(str(tmp_path), "", {"A": 1}, "")
    assert json.loads(again.content) == {"key": key, "env": {"A": "1"}}
    assert json.loads(files.private_file(str(tmp_path), KEY, {}, "").content)["key"] == KEY


@pytest.mark.parametrize("key", ["zz" * 32, "ab", "ab" * 15 + "a", "AB" * 16 + "\n"])
def test_a_key_that_is_none_is_refused_and_not_named(tmp_path, key):
    with pytest.raises(LlmError) as caught:
        files.private_file(str(tmp_path), key, {}, "")
    assert key not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b", "a\nb", files.MANIFEST, files.SECRETS])
def test_a_name_that_is_no_single_component_is_refused(tmp_path, name):
    with pytest.raises(LlmError, match="cannot be written"):
        apply(tmp_path / "launch", (name, "x"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("mode", "rw-", "the mode"),
        ("mode", "416", None),
        ("mode", "1777", "the mode"),
        ("owner", "nobody-knows:0", "the owner"),
        ("owner", "0", "the owner"),
    ],
)
def test_modes_and_owners_that_are_none_are_refused(tmp_path, part, value, words):
    wanted = {"name": "a", "content": "", "mode": "0640", "owner": "", part: value}
    if words is None:
        assert files._file(str(tmp_path), wanted).mode == 0o416
        return
    with pytest.raises(LlmError, match=words):
        files.apply(str(tmp_path / "launch"), [], [wanted], None, False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_and_a_name_twice_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(LlmError, match="is a folder"):
        apply(tmp_path, ("a", "1"))
    with pytest.raises(LlmError, match="asked for twice"):
        apply(tmp_path, ("b", "1"), ("b", "2"))
    with pytest.raises(LlmError, match="is no folder"):
        (tmp_path / "file").write_text("")
        apply(tmp_path, dirs=[{"path": str(tmp_path / "file")}])
    with pytest.raises(LlmError, match="absolute"):
        apply(tmp_path, dirs=[{"path": "work"}])


def test_remove_takes_what_was_written_and_leaves_the_rest(tmp_path):
    folder, work, logs = (tmp_path / name for name in ("launch", "work", "logs"))
    dirs = [{"path": str(path)} for path in (work, logs)]
    private = files.private_file(str(folder), KEY, {}, "")
    apply(folder, ("a", "1"), dirs=dirs, private=private)
    (logs / "engine.log").write_text("kept")
    before = tree(tmp_path)
    said = files.remove(str(folder), check=True)
    assert tree(tmp_path) == before
    done = files.remove(str(folder), check=False)
    assert said == done and done["changed"] and KEY not in json.dumps(done)
    assert sorted(tree(tmp_path)) == ["logs", "logs/engine.log"]
    assert files.remove(str(folder), check=False)["changed"] is False


def test_a_folder_that_was_there_before_is_not_removed(tmp_path):
    folder = tmp_path / "launch"
    folder.mkdir(mode=0o700)
    apply(folder, ("a", "1"))
    assert folder.stat().st_mode & 0o777 == 0o750
    files.remove(str(folder), check=False)
    assert folder.is_dir() and list(folder.iterdir()) == []


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text(max_size=5), max_size=4))
def test_the_digest_tells_sets_apart_whatever_their_order(contents):
    entries = [files.Entry(f"/x/{name}", text, 0o640, None) for name, text in contents.items()]
    digest = files.digest_of(entries)
    assert digest == files.digest_of(entries[::-1])
    for index, entry in enumerate(entries):
        for other in (entry._replace(content=entry.content + "!"), entry._replace(mode=0o600)):
            assert files.digest_of([*entries[:index], other, *entries[index + 1 :]]) != digest


def run_module(check=False, **options):
    """Run the module as a host does, and return (its result, everything that it printed)."""
    code = (
        "import json, sys\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.baremetal.llm.plugins.modules import engine_files\n"
        "with patch_module_args(json.load(sys.stdin)):\n"
        "    engine_files.main()\n"
    )
    given_options = dict(options, _ansible_check_mode=check)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given_options),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout), done.stdout + done.stderr


def test_module_writes_the_guard_and_the_secrets_without_telling_them(tmp_path):
    folder = tmp_path / "launch"
    options = {
        "dir": str(folder),
        "files": [{"name": "rank.json", "content": "{}"}],
        "guard": True,
        "group_key": KEY,
        "secret_env": {"VLLM_API_KEY": "hunter2hunter2"},
    }
    said, _text = run_module(check=True, **options)
    assert said["changed"] and not folder.exists()
    done, text = run_module(**options)
    assert done["changed"] and "hunter2" not in text and KEY not in text
    written = ROOT / "plugins" / "module_utils" / "runtime" / "rank_guard.py"
    assert (folder / "rank_guard.py").read_text() == written.read_text()
    assert (folder / "rank_guard.py").stat().st_mode & 0o777 == 0o644
    assert json.loads((folder / "secrets.json").read_text())["env"] == {"VLLM_API_KEY": "hunter2hunter2"}
    again, _text = run_module(**options)
    assert not again["changed"] and again["digest"] == done["digest"]
    gone, _text = run_module(dir=str(folder), state="absent")
    assert gone["changed"] and not folder.exists()


def test_module_makes_a_key_where_none_is_given_and_does_not_tell_it(tmp_path):
    first, text = run_module(dir=str(tmp_path), group_key="")
    key = json.loads((tmp_path / "secrets.json").read_text())["key"]
    assert len(key) == 64 and key not in text and first["changed"]
    second, _text = run_module(dir=str(tmp_path), group_key="")
    assert json.loads((tmp_path / "secrets.json").read_text())["key"] == key and not second["changed"]


def test_module_names_host_and_remedy(tmp_path):
    failed, _text = run_module(dir=str(tmp_path), files=[{"name": "../x", "content": ""}])
    assert failed["failed"] and os.uname().nodename in failed["msg"] and failed["remedy"]
