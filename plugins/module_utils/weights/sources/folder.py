# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder on the same machine: a disk that was carried in, or a share that is mounted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ...errors import LlmError
from .. import tree
from . import common


class Piece:
    """An open file, read like the answer of a web server."""

    def __init__(self, file: int, offset: int) -> None:
        self._file = file
        self.total = os.fstat(file).st_size
        self.offset = offset if offset <= self.total else 0
        self._position = self.offset

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``, and b"" at the end."""
        block = os.pread(self._file, size, self._position)
        self._position += len(block)
        return block


class Folder(common.Hub):
    """The files below ``source.path``; what hub clients leave there is no part of it."""

    def __init__(self, source: common.Source) -> None:
        super().__init__(source, None)

    def listing(self) -> common.Listing:
        """Return the files with their lengths, without digests; links and special files are refused."""
        folder = self.source.path
        if not os.path.isdir(folder):
            raise LlmError(
                f"there is no folder {folder}",
                wanted="a folder with the weights",
                found="a file" if os.path.exists(folder) else "nothing",
                remedy="set llm_weights_source to the folder that holds the model, and mount it on this host",
            )
        entries = tree.walk(folder)
        odd = [entry.path for entry in entries if entry.kind != "file"]
        if odd:
            raise LlmError(
                f"{folder} holds links or special files",
                wanted="plain files",
                found=", ".join(odd[:5]),
                remedy="copy the files that they lead to (hub caches: download with a local folder instead)",
            )
        files = [common.Remote(entry.path, entry.size, "", "") for entry in entries]
        return common.Listing("", common.checked(self.source, files), [])

    def url(self, path: str) -> str:
        """Return the full path of ``path``; raises LlmError when a link on the way leads out of the folder."""
        return tree.resolve(self.source.path, path)

    @contextlib.contextmanager
    def stream(self, path: str, offset: int = 0) -> Iterator[Piece]:
        """Read the file ``path`` from byte ``offset`` on, from its beginning when it is shorter."""
        file = os.open(self.url(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield Piece(file, offset)
        finally:
            os.close(file)
