# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modelers' API for files, as its client library openmind_hub 1.3.0 uses it."""

from __future__ import annotations

from urllib.parse import unquote

from .repository import File, Repository
from .server import Answer, Application, Request

BRANCH = "main"


class Modelers(Application):
    """One repository.

    ``commits``: whether a commit is taken as a revision; ``etags``: whether the tree has them, or only the info of
    each file
    """

    def __init__(self, repository: Repository, *, token: str = "", commits: bool = True, etags: bool = True) -> None:
        self.repository = repository
        self.token = token
        self.commits = commits
        self.etags = etags

    def answer(self, request: Request) -> Answer:
        """Return what the hub answers."""
        name = self.repository.name
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "unauthorized", "no right to see it")
        if request.method != "GET":
            return _error(405, "not_allowed", "GET only")
        if request.path == f"/api/v1/model/{name}":
            owner, short = name.split("/")
            return _good({"id": "1", "name": short, "owner": owner, "fullname": short, "visibility": "public"})
        base = f"/api/v1/file/{name}"
        if request.path == base:
            return self._tree(request.query)
        if request.path == base + "/info":
            return self._info(request.query)
        if request.path.startswith(base + "/"):
            revision, _media, path = request.path[len(base) + 1 :].partition("/media/")
            return self._media(unquote(revision), unquote(path))
        return _error(404, "model_not_exist", "not found")

    def _knows(self, revision: str) -> bool:
        if revision == self.repository.commit and not self.commits:
            return False
        return bool(self.repository.resolve(revision, BRANCH))

    def _commit(self) -> dict:
        return {"commit_sha": self.repository.commit, "message": "all of it", "created": "2026-01-02T03:04:05+08:00"}

    def _tree(self, query: dict[str, str]) -> Answer:
        if not self._knows(unquote(query.get("ref", BRANCH))):
            return _error(404, "ref_not_exist", "no such revision")
        folder = query.get("path", "")
        if folder in self.repository.files:
            return _error(404, "not_dir", "a file")
        if folder and folder not in self.repository.folders():
            return _error(404, "branch_or_path_not_found", "no such folder")
        folders, files = self.repository.below(folder, recursive=False)
        tree = [{"type": "dir", "path": path, "name": path.rpartition("/")[2], "commit": {}} for path in folders]
        tree += [self._entry(file, self.etags) for file in files]
        return _good({"tree": tree, "last_commit": {"commit": self._commit()}})

    def _entry(self, file: File, etag: bool) -> dict:
        entry = {
            "type": "file",
            "path": file.path,
            "name": file.path.rpartition("/")[2],
            "size": file.size,
            "is_lfs": file.lfs,
            "commit": self._commit(),
        }
        return {**entry, "etag": file.sha256 if file.lfs else file.blob} if etag else entry

    def _info(self, query: dict[str, str]) -> Answer:
        if not self._knows(query.get("ref", BRANCH)):
            return _error(404, "ref_not_exist", "no such revision")
        file = self.repository.files.get(query.get("path", ""))
        if not file:
            return _error(404, "not_file", "no such file")
        return _good({**self._entry(file, True), "branch_last_commit": self.repository.commit})

    def _media(self, revision: str, path: str) -> Answer:
        if not self._knows(revision):
            return _error(404, "ref_not_exist", "no such revision")
        file = self.repository.files.get(path)
        return Answer(body=file.content, ranged=True) if file else _error(404, "branch_or_path_not_found", "no file")


def _good(data: dict) -> Answer:
    return Answer(data={"code": "", "msg": "", "data": data})


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, data={"code": code, "msg": message, "data": None})
