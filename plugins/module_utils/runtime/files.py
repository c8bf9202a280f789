# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the set of files that an engine is launched with, and knows later which ones it wrote.

A manifest in the folder remembers the names. It is written before the files with the old and the new names, and after
them with the new ones: a run that is cut off leaves no file that a later one does not know as its own.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import pwd
import re
import secrets
import stat
import tempfile
from typing import NamedTuple

from .. import atomic
from ..errors import LlmError

MANIFEST = ".baremetal-llm.json"
SECRETS = "secrets.json"
FOLDER_MODE = 0o750
SECRET_MODE = 0o600
# 256 bits, as long as the SHA-256 that the key is used with.
KEY_BYTES = 32
_HIDDEN = "(secret, not shown)\n"


class Entry(NamedTuple):
    """A file or folder as it shall be; ``owner`` is (uid, gid), or None to leave it to who runs this."""

    path: str
    content: str
    mode: int
    owner: tuple[int, int] | None
    secret: bool = False


def apply(folder: str, dirs: list[dict], files: list[dict], private: Entry | None, check: bool) -> dict:
    """Make ``dirs`` [{path, mode, owner}] and, in ``folder``, exactly ``files`` [{name, content, mode, owner}].

    What an earlier call wrote into ``folder`` and is no longer asked for is deleted, and nothing else.

    :param private: one more file whose content is never shown, as private_file() makes it
    :param check: only say what would be done
    :return: changed, digest (of all files' names, owners, modes and contents), written[], removed[], diff[]
    :raises LlmError: for a name that is no single path component, a name twice, an unknown owner, or something in the
        way that is no file
    """
    wanted = [_file(folder, each) for each in files] + ([private] if private else [])
    folders = [_folder(each) for each in dirs]
    if folder not in [each.path for each in folders]:
        folders.append(Entry(folder, "", FOLDER_MODE, None))
    _refuse_doubles(wanted)
    for entry in wanted:
        _refuse_in_the_way(entry.path)
    new = {entry.path for entry in folders if not os.path.isdir(entry.path)}
    made = [entry for entry in folders if _make_folder(entry, check)]
    before = manifest(folder)
    names = {os.path.basename(entry.path) for entry in wanted}
    ours = {"files": sorted(names), "dirs": sorted(new | set(before["dirs"]))}
    stale = [os.path.join(folder, name) for name in before["files"] if name not in names]
    changed = [entry for entry in wanted if not _is_there(entry)]
    diff = [_difference(entry) for entry in changed]
    diff += [_deletion(folder, path) for path in stale]
    if not check:
        if before != ours:
            _write_manifest(folder, {**ours, "files": sorted(names | set(before["files"]))})
        for entry in changed:
            _write(entry)
        stale = [path for path in stale if _unlink(path)]
        if before != ours:
            _write_manifest(folder, ours)
    else:
        stale = [path for path in stale if os.path.lexists(path)]
    return {
        "changed": bool(made or changed or stale),
        "digest": digest_of(wanted),
        "written": sorted(entry.path for entry in [*made, *changed]),
        "removed": stale,
        "diff": [each for each in diff if each["before"] != each["after"]],
    }


def remove(folder: str, check: bool) -> dict:
    """Delete every file that apply() wrote into ``folder``, and the folders that it made as far as they are empty.

    :return: as apply()
    """
    before = manifest(folder)
    paths = [os.path.join(folder, name) for name in [*before["files"], MANIFEST]]
    there = [path for path in paths if os.path.lexists(path)]
    known = there[:]
    diff = [_deletion(folder, path) for path in there if os.path.basename(path) != MANIFEST]
    # The innermost first, so that one can be empty when its turn comes.
    for path in sorted(before["dirs"], key=len, reverse=True):
        if os.path.isdir(path) and all(os.path.join(path, name) in known for name in os.listdir(path)):
            known.append(path)
    if not check:
        for path in there:
            _unlink(path)
        for path in known[len(there) :]:
            os.rmdir(path)
    return {"changed": bool(known), "digest": "", "written": [], "removed": known, "diff": diff}


def manifest(folder: str) -> dict:
    """Return {files: [names], dirs: [paths]} that earlier calls wrote and made, empty lists when there are none."""
    data = atomic.read_json(os.path.join(folder, MANIFEST)) or {}
    return {kind: [each for each in data.get(kind, []) if isinstance(each, str)] for kind in ("files", "dirs")}


def private_path(folder: str) -> str:
    """Return where private_file() lies."""
    return os.path.join(folder, SECRETS)


def private_file(folder: str, key: str, env: dict, owner: str) -> Entry:
    """Return secrets.json {key, env}, mode 0600.

    :param key: the group's key as hexadecimal digits; empty for the one that is there, or else a new one
    :raises LlmError: for another key, which it does not name
    """
    if key and not re.fullmatch(r"([0-9a-f]{2}){16,}", key):
        raise LlmError(
            "the group's key is none",
            wanted="32 hexadecimal digits or more, an even count",
            found=f"{len(key)} characters",
            remedy="give the key that secrets.json holds on the first host of the group",
        )
    if not key:
        found = (atomic.read_json(private_path(folder)) or {}).get("key")
        key = found if isinstance(found, str) and found else secrets.token_hex(KEY_BYTES)
    content = _json({"key": key, "env": {name: str(value) for name, value in env.items()}})
    return Entry(private_path(folder), content, SECRET_MODE, _owner(owner), secret=True)


def digest_of(entries: list[Entry]) -> str:
    """Return what identifies a set of files; of contents only their hashes go in.

    The secret file's hash tells nothing of a short password in it, for it holds a random key beside.
    """
    lines = [
        [os.path.basename(each.path), each.mode, each.owner, hashlib.sha256(each.content.encode()).hexdigest()]
        for each in sorted(entries, key=lambda each: each.path)
    ]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


# How it shall be ---------------------------------------------------------------------------------------------------


def _json(data: dict) -> str:
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _file(folder: str, wanted: dict) -> Entry:
    name = str(wanted.get("name") or "")
    if not name or name in (".", "..", MANIFEST, SECRETS) or re.search(r"[/\0\n]", name):
        raise LlmError(
            f"the file name {name!r} cannot be written into {folder}",
            wanted=f"one path component, neither {MANIFEST} nor {SECRETS}",
            found=repr(name),
            remedy="name the file itself, without its folder",
        )
    content = wanted.get("content")
    path = os.path.join(folder, name)
    return Entry(path, "" if content is None else str(content), _mode(wanted, 0o640), _owner(wanted.get("owner")))


def _folder(wanted: dict) -> Entry:
    path = str(wanted.get("path") or "")
    if not os.path.isabs(path):
        raise LlmError(
            f"the folder {path!r} cannot be made", wanted="an absolute path", found=repr(path), remedy="name it in full"
        )
    return Entry(os.path.normpath(path), "", _mode(wanted, FOLDER_MODE), _owner(wanted.get("owner")))


def _mode(wanted: dict, default: int) -> int:
    text = str(wanted.get("mode") or "")
    if not text:
        return default
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise LlmError(
            f"the mode {text!r} of {wanted.get('name') or wanted.get('path')} is none",
            wanted='three octal digits in quotes, as "0640"',
            found=repr(text),
            remedy="put the mode in quotes",
        )
    return int(text, 8)


def _owner(text: object) -> tuple[int, int] | None:
    """Return (uid, gid) of "user:group", each a number or a name that this host knows; None for an empty one."""
    if not text:
        return None
    user, colon, group = str(text).partition(":")
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        uid = gid = -1
    if not colon or uid < 0:
        raise LlmError(
            f"the owner {str(text)!r} is not known here",
            wanted="USER:GROUP, by number or by a name of this host",
            found=str(text),
            remedy='give numbers, as "1001:1001"',
        )
    return uid, gid


def _refuse_doubles(entries: list[Entry]) -> None:
    paths = [entry.path for entry in entries]
    double = next((path for path in paths if paths.count(path) > 1), None)
    if double:
        raise LlmError(
            f"{double} is asked for twice", wanted="each file once", found="two", remedy="leave out one of them"
        )


def _refuse_in_the_way(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        raise LlmError(
            f"{path} is a folder",
            wanted="a file, or nothing there",
            found="a folder that was not made by this collection",
            remedy="move it away",
        )


# What is there -----------------------------------------------------------------------------------------------------


def _is_there(entry: Entry) -> bool:
    """True when a file (no link) has this content, mode and owner."""
    try:
        found = os.lstat(entry.path)
        if not stat.S_ISREG(found.st_mode) or not _fits(entry, found):
            return False
        with open(entry.path, "rb") as stream:
            return stream.read() == entry.content.encode()
    except FileNotFoundError:
        return False


def _fits(entry: Entry, found: os.stat_result) -> bool:
    owned = entry.owner is None or entry.owner == (found.st_uid, found.st_gid)
    return owned and stat.S_IMODE(found.st_mode) == entry.mode


def _difference(entry: Entry) -> dict:
    """Return a diff entry for Ansible: mode and owner, and the content of what is no secret."""
    before = _described(entry.path, entry.secret)
    uid, gid = entry.owner or _owner_of(entry.path)
    after = f"# {entry.mode:04o} {uid}:{gid}\n{_HIDDEN if entry.secret else entry.content}"
    if entry.secret and before == after:
        after += "(another content)\n"
    return {"before_header": entry.path, "after_header": entry.path, "before": before, "after": after}


def _deletion(folder: str, path: str) -> dict:
    before = _described(path, path == private_path(folder))
    return {"before_header": path, "after_header": path, "before": before, "after": ""}


def _owner_of(path: str) -> tuple[int, int]:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return os.geteuid(), os.getegid()
    return found.st_uid, found.st_gid


def _described(path: str, secret: bool) -> str:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ""
    head = f"# {stat.S_IMODE(found.st_mode):04o} {found.st_uid}:{found.st_gid}\n"
    if secret:
        return head + _HIDDEN
    if not stat.S_ISREG(found.st_mode):
        return head + "(no file)\n"
    with open(path, encoding="utf-8", errors="replace") as stream:
        return head + stream.read()


# Doing it ----------------------------------------------------------------------------------------------------------


def _make_folder(entry: Entry, check: bool) -> bool:
    """Make a folder, or give one that is there its mode and owner; return whether something was (to be) done."""
    if os.path.lexists(entry.path) and not os.path.isdir(entry.path):
        raise LlmError(
            f"{entry.path} is no folder", wanted="a folder, or nothing there", found="something else", remedy="move it"
        )
    there = os.path.isdir(entry.path)
    if there and _fits(entry, os.stat(entry.path)):
        return False
    if not check:
        os.makedirs(entry.path, mode=FOLDER_MODE, exist_ok=True)
        if entry.owner:
            os.chown(entry.path, *entry.owner)
        # After the owner: the kernel may take bits away when that changes.
        os.chmod(entry.path, entry.mode)
    return True


def _write(entry: Entry) -> None:
    """Put the file in place by a rename; its owner and mode are right before it has its name."""
    handle, partial = tempfile.mkstemp(dir=os.path.dirname(entry.path), prefix="." + os.path.basename(entry.path) + ".")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(entry.content.encode())
            stream.flush()
            if entry.owner:
                os.fchown(stream.fileno(), *entry.owner)
            os.fchmod(stream.fileno(), entry.mode)
            os.fsync(stream.fileno())
        os.replace(partial, entry.path)
    except BaseException:
        os.unlink(partial)
        raise


def _write_manifest(folder: str, content: dict) -> None:
    atomic.write_json(os.path.join(folder, MANIFEST), content, 0o640)


def _unlink(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        return True
    return False
