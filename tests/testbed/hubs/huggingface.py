# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hugging Face's API for models, as its client library 2.4.0 uses it and as its answers are documented."""

from __future__ import annotations

import base64
from urllib.parse import quote, unquote

from .repository import File, Repository
from .server import Answer, Application, Request

BRANCH = "main"


class Store(Application):
    """Where large files lie: another host, with addresses that are signed, which wants no token."""

    SIGNATURE = "signed-by-the-hub"

    def __init__(self, repository: Repository) -> None:
        self.by_sha256 = {file.sha256: file for file in repository.files.values()}

    def answer(self, request: Request) -> Answer:
        """Return the file that the path names by its SHA-256."""
        if "Authorization" in request.headers or "Cookie" in request.headers:
            return Answer(400, b"<Error><Code>InvalidArgument</Code></Error>")
        if request.query.get("Signature") != self.SIGNATURE:
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        file = self.by_sha256.get(request.path.strip("/"))
        return Answer(body=file.content, ranged=True) if file else Answer(404, b"")


class HuggingFace(Application):
    """One repository. ``page``: entries of a page of the listing."""

    def __init__(self, repository: Repository, *, token: str = "", page: int = 1000) -> None:
        self.repository = repository
        self.token = token
        self.page = page
        self.store = Store(repository)

    def answer(self, request: Request) -> Answer:
        """Return what the hub answers."""
        if request.headers.get("Authorization") not in (f"Bearer {self.token}", None if not self.token else ""):
            return _error(401, "", "Invalid credentials in Authorization header")
        name = self.repository.name
        if request.path.startswith(f"/api/models/{name}/tree/") and request.method == "GET":
            return self._tree(request, request.path.split("/", 6)[6])
        if request.path.startswith(f"/api/models/{name}") and request.method == "GET":
            return self._info(request.path[len(f"/api/models/{name}") :])
        if request.path.startswith(f"/{name}/resolve/") and request.method in ("GET", "HEAD"):
            revision, _slash, path = request.path[len(f"/{name}/resolve/") :].partition("/")
            return self._resolve(request, unquote(revision), unquote(path))
        # The hub does not say whether a repository that cannot be seen exists.
        return _error(401 if not self.token else 404, "RepoNotFound", "Repository not found")

    def _info(self, tail: str) -> Answer:
        revision = BRANCH if not tail else unquote(tail[len("/revision/") :]) if tail.startswith("/revision/") else ""
        commit = self.repository.resolve(revision, BRANCH)
        if not commit:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [{"rfilename": path} for path in self.repository.files]
        return Answer(data={"id": self.repository.name, "sha": commit, "private": False, "siblings": siblings})

    def _tree(self, request: Request, tail: str) -> Answer:
        revision, _slash, folder = (unquote(part) for part in tail.partition("/"))
        if not self.repository.resolve(revision, BRANCH):
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if folder and folder not in self.repository.folders():
            return _error(404, "EntryNotFound", f"{folder} does not exist")
        if request.query.get("recursive", "false").lower() not in ("true", "false"):
            return _error(400, "", "recursive: invalid boolean")
        folders, files = self.repository.below(folder, request.query.get("recursive", "").lower() == "true")
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
        entries += [_entry(file) for file in files]
        try:
            start = int(base64.b64decode(request.query.get("cursor", ""), validate=True) or 0)
        except ValueError:
            return _error(400, "", "Invalid cursor")
        answer = Answer(data=entries[start : start + self.page])
        if start + self.page < len(entries):
            kept = {name: value for name, value in request.query.items() if name != "cursor"}
            kept["cursor"] = base64.b64encode(str(start + self.page).encode()).decode()
            query = "&".join(f"{name}={quote(value, safe='')}" for name, value in kept.items())
            answer.headers["Link"] = f'<{request.base}{request.path}?{query}>; rel="next"'
        return answer

    def _resolve(self, request: Request, revision: str, path: str) -> Answer:
        commit = self.repository.resolve(revision, BRANCH)
        if not commit:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        file = self.repository.files.get(path)
        if not file:
            return _error(404, "EntryNotFound", "Entry not found", commit)
        headers = {"X-Repo-Commit": commit}
        if not file.lfs:
            return Answer(body=file.content, headers={**headers, "ETag": f'"{file.blob}"'}, ranged=True)
        headers.update({"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"'})
        headers["Location"] = f"{self.store_url}/{file.sha256}?Signature={Store.SIGNATURE}"
        return Answer(302, b"Found. Redirecting", headers=headers)


def _entry(file: File) -> dict:
    entry = {"type": "file", "oid": file.blob, "size": file.size, "path": file.path}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 120 + len(str(file.size))}
        entry["xetHash"] = file.sha256[::-1]
    return entry


def _error(status: int, code: str, message: str, commit: str = "") -> Answer:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    headers.update({"X-Repo-Commit": commit} if commit else {})
    return Answer(status, data={"error": message}, headers=headers)
