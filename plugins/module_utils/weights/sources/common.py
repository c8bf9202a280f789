# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all sources of weights have in common: their parts, and what is refused in whatever they say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import LlmError
from .. import tree
from . import http

# The largest models have some hundred files; a repository with this many is no model.
MOST_FILES = 100_000

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")
_REMEDY = "see whether the endpoint is the hub that it should be; if it is, do not trust this repository"


class Source(NamedTuple):
    """Where weights come from: ``kind`` is folder, hf, modelscope, modelers, https or s3.

    ``name``: owner/name of a hub's repository, or the bucket; ``revision``: as given, empty for the default branch;
    ``endpoint``: the base URL of https; ``path``: the folder, or the prefix in the bucket; ``text``: as it was given
    """

    kind: str
    name: str
    revision: str
    endpoint: str
    path: str
    text: str


class Remote(NamedTuple):
    """A file at a source; ``sha256`` or ``git_sha1`` is what the source says of it, empty where it says nothing."""

    path: str
    size: int
    sha256: str
    git_sha1: str


class Listing(NamedTuple):
    """All files of one revision. ``revision`` is a commit where the hub tells it; ``notes`` are for people."""

    revision: str
    files: list[Remote]
    notes: list[str]


class Hub:
    """A source that can be listed and read. ``ref`` is the revision that its addresses name."""

    def __init__(self, source: Source, client: http.Client | None, ref: str = "") -> None:
        self.source = source
        self.client = client
        self.ref = ref

    def listing(self) -> Listing:
        """Return all files, checked; raises LlmError when the source cannot be listed or says what cannot be."""
        raise NotImplementedError

    def url(self, path: str) -> str:
        """Return where the file ``path`` can be had."""
        raise NotImplementedError

    @contextlib.contextmanager
    def stream(self, path: str, offset: int = 0) -> Iterator[http.Response]:
        """Read the file ``path`` from byte ``offset`` on, see http.Client.stream."""
        with self.client.stream(self.url(path), offset) as response:
            yield response


def checked(source: Source, files: list[Remote]) -> list[Remote]:
    """Return ``files`` in order, or raise LlmError for names that lead elsewhere, names given twice, or no files."""
    if not files:
        raise LlmError(
            f"{source.text} holds no files",
            wanted="the shards of a model",
            found="an empty listing",
            remedy="correct the name and the revision",
        )
    if len(files) > MOST_FILES:
        raise LlmError(f"{source.text} holds too many files for a model", wanted=f"at most {MOST_FILES}")
    seen: set[str] = set()
    for file in files:
        if tree.check_relative(file.path) in seen:
            raise LlmError(f"{source.text} names a file twice", found=file.path, remedy=_REMEDY)
        seen.add(file.path)
    folders = {path.rpartition("/")[0] for path in seen}
    while folders:
        if folders & seen:
            raise LlmError(f"{source.text} has a file where a folder is", found=sorted(folders & seen)[0])
        folders = {folder.rpartition("/")[0] for folder in folders} - {""}
    return sorted(files)


def remote(source: Source, path: object, size: object, *, sha256: object = None, git_sha1: object = None) -> Remote:
    """Return a Remote from what a hub said, with the types and lengths checked; raises LlmError."""
    if not isinstance(path, str):
        raise misshapen(source, "a file without a name", repr(path))
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**63:
        raise misshapen(source, f"no length for {path[:200]!r}", repr(size))
    return Remote(path, size, _digest(source, path, sha256, _SHA256), _digest(source, path, git_sha1, _SHA1))


def _digest(source: Source, path: str, value: object, form: re.Pattern) -> str:
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or not form.match(value.lower()):
        raise misshapen(source, f"no usable digest for {path[:200]!r}", repr(value))
    return value.lower()


def misshapen(source: Source, what: str, found: object) -> LlmError:
    """Return the error for an answer that is not as the hub's API is documented."""
    return LlmError(
        f"{source.text} is listed in a form that cannot be read: {what}",
        wanted="what the API of the hub documents",
        found=str(found)[:200],
        remedy=_REMEDY,
    )


def is_commit(revision: str) -> bool:
    """True for the full name of a git commit."""
    return bool(_SHA1.match(revision))


def field(source: Source, data: object, *names: str) -> object:
    """Return data[names[0]][names[1]]...; raises LlmError where that is not there."""
    for name in names:
        if not isinstance(data, dict) or name not in data:
            raise misshapen(source, f"no field {'.'.join(names)}", repr(data))
        data = data[name]
    return data


def items(source: Source, data: object, what: str) -> list[dict]:
    """Return ``data`` when it is a list of objects; raises LlmError."""
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise misshapen(source, f"{what} is no list of objects", repr(data))
    return data
