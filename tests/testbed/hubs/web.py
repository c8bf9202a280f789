# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder of files on a web server, with SHA256SUMS unless it is told not to have one."""

from __future__ import annotations

from urllib.parse import unquote

from .repository import Repository
from .server import Answer, Application, Request


class Web(Application):
    """Serves the files of ``repository`` below /models/NAME/."""

    def __init__(self, repository: Repository, *, token: str = "", sums: str | None = None) -> None:
        self.repository = repository
        self.token = token
        lines = [f"{file.sha256}  {path}\n" for path, file in repository.files.items()]
        self.sums = "".join(lines) if sums is None else sums

    def answer(self, request: Request) -> Answer:
        """Return the file, or what a web server says instead."""
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return Answer(401, b"unauthorized")
        if request.method not in ("GET", "HEAD"):
            return Answer(405, b"not allowed")
        start = f"/models/{self.repository.name}/"
        path = unquote(request.path)
        if not path.startswith(start):
            return Answer(404, b"not found")
        name = path[len(start) :]
        if name == "SHA256SUMS" and self.sums:
            return Answer(body=self.sums.encode("utf-8", "surrogateescape"), ranged=True)
        file = self.repository.files.get(name)
        return Answer(body=file.content, ranged=True) if file else Answer(404, b"not found")
