# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ModelScope's API for models, as its client library modelscope-hub 0.5.1 uses it."""

from __future__ import annotations

from .repository import File, Repository
from .server import Answer, Application, Request

BRANCH = "master"
# Source: REPO_FILES_TRUNCATION_LIMIT of the client library.
CUT_AT = 3000
COMMITTED = 1_700_000_000


class ModelScope(Application):
    """One repository. ``commits``: whether a commit is taken as a revision, as branches and tags are."""

    def __init__(self, repository: Repository, *, token: str = "", commits: bool = True) -> None:
        self.repository = repository
        self.token = token
        self.commits = commits

    def answer(self, request: Request) -> Answer:
        """Return what the hub answers."""
        base = f"/api/v1/models/{self.repository.name}"
        cookie = f"m_session_id={self.token}"
        if self.token and cookie not in request.headers.get("Cookie", "").split("; "):
            return _error(404, 10010205001, "the model does not exist or you have no right to see it")
        if request.method not in ("GET", "HEAD") or not (request.path + "/").startswith(base + "/"):
            return _error(404, 10010205001, "the model does not exist or you have no right to see it")
        what = request.path[len(base) :]
        if what == "":
            return _good({"Name": self.repository.name.split("/")[1], "Path": self.repository.name.split("/")[0]})
        if what == "/revisions":
            branch = {"Revision": BRANCH, "CreatedAt": COMMITTED}
            return _good({"RevisionMap": {"Branches": [branch], "Tags": [{"Revision": "v1", "CreatedAt": COMMITTED}]}})
        if what == "/repo/files":
            return self._files(request.query)
        if what == "/repo":
            return self._file(request.query)
        return _error(404, 404, "no such address")

    def _knows(self, revision: str) -> bool:
        if revision == self.repository.commit and not self.commits:
            return False
        return bool(self.repository.resolve(revision, BRANCH))

    def _files(self, query: dict[str, str]) -> Answer:
        if not self._knows(query.get("Revision", BRANCH)):
            return _error(404, 10010205002, "the revision does not exist")
        root = query.get("Root", "").strip("/")
        if root and root not in self.repository.folders():
            return _error(404, 10010205003, "the folder does not exist")
        recursive = query.get("Recursive", "False").lower()
        if recursive not in ("true", "false"):
            return _error(400, 10010101001, "Recursive is no boolean")
        folders, files = self.repository.below(root, recursive == "true")
        entries = [self._entry(path, None) for path in folders] + [self._entry(file.path, file) for file in files]
        return _good({"Files": entries[:CUT_AT], "IsVisual": 0})

    def _entry(self, path: str, file: File | None) -> dict:
        return {
            "Name": path.rpartition("/")[2],
            "Path": path,
            "Type": "blob" if file else "tree",
            "Size": file.size if file else 0,
            "Sha256": file.sha256 if file else "",
            "IsLFS": bool(file and file.lfs),
            "Revision": self.repository.commit,
            "CommittedDate": COMMITTED,
            "CommitMessage": "all of it",
            "CommitterName": "acme",
        }

    def _file(self, query: dict[str, str]) -> Answer:
        if not self._knows(query.get("Revision", BRANCH)):
            return _error(404, 10010205002, "the revision does not exist")
        file = self.repository.files.get(query.get("FilePath", ""))
        if not file:
            return _error(404, 10010205004, "the file does not exist")
        return Answer(body=file.content, headers={"ETag": f'"{file.sha256}"'}, ranged=True)


def _good(data: dict) -> Answer:
    return Answer(data={"Code": 200, "Data": data, "Message": "success", "RequestId": "r", "Success": True})


def _error(status: int, code: int, message: str) -> Answer:
    return Answer(status, data={"Code": code, "Data": None, "Message": message, "RequestId": "r", "Success": False})
