# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpacks the wheel of libtorrent that the control node sent, and says why it cannot run where it cannot.

A wheel is a zip archive; importing it needs no installer, only its folder on the module path.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import zipfile

from ... import commands
from ...errors import LlmError

# The one of libtorrent 2.1.1 has 8 MB and unpacks to 25 MB.
MOST_WHEEL_BYTES = 64 << 20
MOST_BYTES = 256 << 20
MOST_FILES = 1000
# It loads in 0.2 s from a page cache; a cold disk and a busy host take longer.
IMPORT_S = 60.0
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644
_NAME = re.compile(r"libtorrent-([0-9][0-9A-Za-z.]*)-([A-Za-z0-9_.]+)-([A-Za-z0-9_.]+)-([A-Za-z0-9_.]+)\.whl\Z")
# A wheel for another Python leaves a folder that is taken for an empty package, or for none where another is installed.
_TRY = """
import sys
sys.path.insert(0, sys.argv[1])
import libtorrent
if not (libtorrent.__file__ or "").startswith(sys.argv[1]):
    raise ImportError("there is no libtorrent for this Python in " + sys.argv[1])
"""


def folder(tools: str, wheel: str, sha256: str) -> str:
    """Return where ``wheel`` is unpacked below the folder ``tools``."""
    match = _NAME.match(os.path.basename(wheel))
    if not match:
        raise LlmError(
            f"{os.path.basename(wheel)} is no wheel of libtorrent",
            wanted="libtorrent-VERSION-PYTHON-ABI-PLATFORM.whl, under its own name",
            found=os.path.basename(wheel),
            remedy="take the wheel that fits this host's Python and processor",
        )
    return os.path.join(tools, f"libtorrent-{match[1]}-{sha256[:8]}")


def unpack(tools: str, wheel: str, sha256: str, *, check: bool = False) -> bool:
    """Unpack ``wheel`` into its folder, unless it is there; the folder appears whole or not at all.

    :param sha256: of the wheel, in hexadecimal
    :param check: write nothing
    :return: whether that was (or would be) a change
    :raises LlmError: the wheel is missing, is another one, or holds names that lead out of its folder
    """
    target = folder(tools, wheel, sha256)
    if os.path.isdir(target):
        return False
    data = _read(wheel)
    found = hashlib.sha256(data.getbuffer()).hexdigest()
    if found != sha256.lower():
        raise LlmError(
            f"the wheel {wheel} is not the one that was asked for",
            wanted=f"SHA-256 {sha256}",
            found=f"SHA-256 {found}",
            remedy="copy it again from where it was published",
        )
    if check:
        return True
    os.makedirs(tools, mode=_FOLDER_MODE, exist_ok=True)
    partial = tempfile.mkdtemp(dir=tools, prefix=".libtorrent-")
    try:
        os.chmod(partial, _FOLDER_MODE)
        _extract(data, partial)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if not os.path.isdir(target):  # else another run was faster
            raise
    return True


def _read(wheel: str) -> io.BytesIO:
    try:
        with open(wheel, "rb") as stream:
            data = stream.read(MOST_WHEEL_BYTES + 1)
    except OSError as error:
        raise LlmError(
            f"the wheel {wheel} cannot be read",
            wanted="a file on this host",
            found=str(error.strerror),
            remedy="copy it to this host first",
        ) from error
    return io.BytesIO(data)


def _extract(data: io.BytesIO, target: str) -> None:
    try:
        with zipfile.ZipFile(data) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MOST_FILES or sum(member.file_size for member in members) > MOST_BYTES:
                raise _unfit(f"{len(members)} files, {sum(member.file_size for member in members)} bytes")
            for member in members:
                _extract_one(archive, member, target)
    except zipfile.BadZipFile as error:
        raise _unfit(str(error)) from error


def _extract_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: str) -> None:
    parts = member.filename.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in member.filename:
        raise _unfit(f"the name {member.filename!r}")
    path = os.path.join(target, *parts)
    os.makedirs(os.path.dirname(path), mode=_FOLDER_MODE, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    with open(file, "wb") as out, archive.open(member) as stream:
        # A member that is longer than it says is a broken archive (zipfile checks length and CRC).
        shutil.copyfileobj(stream, out)


def _unfit(found: str) -> LlmError:
    return LlmError(
        "the wheel of libtorrent cannot be unpacked",
        wanted="a zip archive with plain names inside",
        found=found,
        remedy="take the wheel from where it was published",
    )


def reason(library: str) -> str:
    """Return why libtorrent in the folder ``library`` cannot run with this Python, empty when it can."""
    if not os.path.isdir(library):
        return f"there is no folder {library or 'with the unpacked wheel'}"
    tried = commands.run([sys.executable, "-I", "-c", _TRY, library], IMPORT_S)
    if tried.ok:
        return ""
    last = (tried.stderr.strip().splitlines() or [""])[-1]
    python = ".".join(str(part) for part in sys.version_info[:2])
    said = tried.reason or last or f"ended with status {tried.code}"
    return f"Python {python} on {os.uname().machine} cannot load it: {said[:300]}"
