# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what an archive of ``docker save`` says of the image in it, without a container engine."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile

from . import atomic
from .errors import LlmError

# Two small JSON files are all that is read; a hostile archive may claim any size.
MOST_BYTES = 16 * 1024**2


def read(path: str) -> dict:
    """Return {id, tags, architecture, bytes} of the one image in the archive at ``path``.

    The id is the SHA-256 of the image's configuration, so it is proved and not believed. What an archive said is
    remembered as long as the file is the same by size, time and inode: to read a compressed one takes minutes.
    """
    try:
        status = os.stat(path)
        cache = _cache(path, status)
        known = atomic.read_json(cache)
        found = known or _read(path)
    except (OSError, EOFError, tarfile.TarError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error) or type(error).__name__) from error
    if not known:
        _remember(cache, found)
    return {**found, "bytes": status.st_size}


def _cache(path: str, status: os.stat_result) -> str:
    mark = f"{os.path.realpath(path)}\n{status.st_size}\n{status.st_mtime_ns}\n{status.st_ino}"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "baremetal-llm", "images", hashlib.sha256(mark.encode()).hexdigest() + ".json")


def _remember(cache: str, found: dict) -> None:
    try:
        os.makedirs(os.path.dirname(cache), mode=0o750, exist_ok=True)
        atomic.write_json(cache, found, 0o640)
    except OSError:
        # It is only read again the next time.
        return


def _read(path: str) -> dict:
    with tarfile.open(path, "r:*") as archive:
        manifest = json.loads(_content(archive, "manifest.json"))
        if not isinstance(manifest, list) or len(manifest) != 1 or not isinstance(manifest[0], dict):
            raise ValueError(f"{len(manifest) if isinstance(manifest, list) else 'no list of'} images in manifest.json")
        config = _content(archive, str(manifest[0].get("Config")))
    described = json.loads(config)
    if not isinstance(described, dict):
        raise ValueError("the image's configuration is no mapping")
    return {
        "id": "sha256:" + hashlib.sha256(config).hexdigest(),
        "tags": [str(tag) for tag in manifest[0].get("RepoTags") or []],
        "architecture": str(described.get("architecture", "")),
    }


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        member = archive.getmember(name)
    except KeyError as error:
        raise ValueError(f"it has no {name[:120]}") from error
    stream = archive.extractfile(member) if member.isreg() and member.size <= MOST_BYTES else None
    if stream is None:
        raise ValueError(f"{name[:120]} is no file of at most {MOST_BYTES} bytes")
    return stream.read()


def _unreadable(path: str, why: str) -> LlmError:
    return LlmError(
        f"the image's archive {path} cannot be read",
        wanted="a file that `docker save NAME` wrote, as it is or compressed with gzip, bzip2 or xz",
        found=why[:300],
        remedy="save it again, compare its SHA-256 with the original's, and set llm_image_archive",
    )
