# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a hub keeps of one repository."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# As hubs' .gitattributes have it: weights are kept by their SHA-256, texts as git blobs.
LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".png")


class File(NamedTuple):
    """A file of the repository; ``lfs``: kept by its SHA-256, and by a pointer to it in git."""

    path: str
    content: bytes
    sha256: str
    blob: str
    lfs: bool

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.content)


class Repository:
    """Files of one commit, which a branch and a tag lead to."""

    def __init__(self, name: str, files: Mapping[str, bytes] | Path) -> None:
        self.name = name
        contents = files if isinstance(files, Mapping) else _read(files)
        self.files = {path: _file(path, contents[path]) for path in sorted(contents)}
        listing = "".join(f"{file.sha256} {path}\n" for path, file in self.files.items())
        self.commit = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()

    def resolve(self, revision: str, branch: str) -> str:
        """Return the commit that ``revision`` stands for, empty when there is none such."""
        return self.commit if revision in (branch, "v1", self.commit) else ""

    def folders(self) -> set[str]:
        """Return all folders of the repository."""
        found = set()
        for path in self.files:
            parts = path.split("/")[:-1]
            found |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
        return found

    def below(self, folder: str, recursive: bool) -> tuple[list[str], list[File]]:
        """Return (folders, files) below ``folder``, which is empty for the top."""
        start = f"{folder}/" if folder else ""

        def belongs(path: str) -> bool:
            return path.startswith(start) and (recursive or "/" not in path[len(start) :])

        return sorted(filter(belongs, self.folders())), [file for path, file in self.files.items() if belongs(path)]


def _read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _file(path: str, content: bytes) -> File:
    sha256 = hashlib.sha256(content).hexdigest()
    lfs = path.endswith(LFS_SUFFIXES)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    return File(path, content, sha256, git_sha1(pointer if lfs else content), lfs)


def git_sha1(content: bytes) -> str:
    """Return the name that git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
