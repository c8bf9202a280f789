# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories on ModelScope.

Source of the API: the client library modelscope-hub 0.5.1. Every file has its SHA-256. A listing has no pages and is
cut without a word at 3000 entries.
"""

from __future__ import annotations

from typing import Callable
from urllib.parse import quote, urlencode

from ...errors import LlmError
from .. import tree
from . import common, http

ENDPOINT = "https://www.modelscope.cn"
BRANCH = "master"
# Source: REPO_FILES_TRUNCATION_LIMIT of modelscope-hub.
CUT_AT = 3000
# A walk folder by folder is ended after so many listings, and below so many folders.
MOST_LISTINGS = 1000
MOST_DEPTH = 32


def cookie(token: str) -> Callable[[str, str, dict[str, str]], dict[str, str]]:
    """Return what adds the cookie that older parts of the hub want besides the bearer token."""

    def add(_method: str, _url: str, _headers: dict[str, str]) -> dict[str, str]:
        return {"Cookie": f"m_session_id={token}"}

    return add


class ModelScope(common.Hub):
    """One repository; ``endpoint`` is the base URL of the hub."""

    def __init__(self, source: common.Source, client: http.Client, endpoint: str) -> None:
        super().__init__(source, client, source.revision or BRANCH)
        self.endpoint = endpoint

    def listing(self) -> common.Listing:
        """Return the files; the revision becomes a commit when the hub lists that commit the same way.

        The API does not say what commit a branch stands for, but which one changed each file last.
        """
        entries = self._walk(self.ref)
        files = common.checked(self.source, [self._file(entry) for entry in entries])
        if common.is_commit(self.ref):
            return common.Listing(self.ref, files, [])
        commit = self._newest(entries)
        if commit and self._same(commit, files):
            self.ref = commit
            return common.Listing(commit, files, [])
        note = f"the hub does not tell the commit of {self.ref}; every file is locked by its SHA-256 all the same"
        return common.Listing(self.ref, files, [note])

    def url(self, path: str) -> str:
        """Return where the file ``path`` can be had."""
        asked = urlencode({"Revision": self.ref, "FilePath": path}, quote_via=quote, safe="")
        return f"{self.endpoint}/api/v1/models/{self.source.name}/repo?{asked}"

    def _same(self, commit: str, files: list[common.Remote]) -> bool:
        try:
            return sorted(self._file(entry) for entry in self._walk(commit)) == files
        except LlmError:
            return False

    def _newest(self, entries: list[dict]) -> str:
        dated = [
            (entry["CommittedDate"], entry["Revision"])
            for entry in entries
            if isinstance(entry.get("CommittedDate"), int)
            and isinstance(entry.get("Revision"), str)
            and common.is_commit(entry["Revision"])
        ]
        return max(dated)[1] if dated else ""

    def _walk(self, ref: str) -> list[dict]:
        """Return the entries of all files: in one listing, or where that is cut, of each folder by itself."""
        files: list[dict] = []
        waiting, asked = [""], 0
        while waiting:
            root = waiting.pop()
            asked += 1
            if asked > MOST_LISTINGS or root.count("/") >= MOST_DEPTH or len(files) > common.MOST_FILES:
                raise self._untrusted(root, f"more than {MOST_LISTINGS} listings or {MOST_DEPTH} levels")
            whole = self._list(ref, root, recursive=True)
            if len(whole) < CUT_AT:
                files += [entry for entry in whole if entry.get("Type") != "tree"]
                continue
            level = self._list(ref, root, recursive=False)
            if len(level) >= CUT_AT:
                raise self._untrusted(root, f"{len(level)} entries in one folder")
            files += [entry for entry in level if entry.get("Type") != "tree"]
            waiting += [self._below(root, entry) for entry in level if entry.get("Type") == "tree"]
        return files

    def _below(self, root: str, entry: dict) -> str:
        path = entry.get("Path")
        if not isinstance(path, str) or not path.startswith(f"{root}/" if root else "") or path in ("", root):
            raise common.misshapen(self.source, f"a folder that is not below {root or 'the top'!r}", repr(path))
        return tree.check_relative(path)

    def _list(self, ref: str, root: str, recursive: bool) -> list[dict]:
        asked = {"Revision": ref, "Recursive": str(recursive), **({"Root": root} if root else {})}
        query = urlencode(asked, quote_via=quote, safe="")
        answer, _headers = self.client.json(f"{self.endpoint}/api/v1/models/{self.source.name}/repo/files?{query}")
        if common.field(self.source, answer, "Code") != 200:
            raise LlmError(
                f"{self.source.text} cannot be listed",
                wanted="Code 200",
                found=f"Code {answer['Code']} {answer.get('Message')}"[:200],
                remedy="correct the name and the revision; private repositories need a token",
            )
        return common.items(self.source, common.field(self.source, answer, "Data", "Files"), "Data.Files")

    def _untrusted(self, root: str, found: str) -> LlmError:
        return LlmError(
            f"the listing of {self.source.text} cannot be trusted to be whole",
            wanted=f"less than {CUT_AT} entries a folder: the hub cuts longer listings without a word",
            found=f"{found}, below {root}" if root else found,
            remedy="take the model from another hub, or download it with git and lock the folder",
        )

    def _file(self, entry: dict) -> common.Remote:
        if entry.get("Type") != "blob":
            raise common.misshapen(self.source, "an entry that is neither blob nor tree", repr(entry.get("Type")))
        return common.remote(self.source, entry.get("Path"), entry.get("Size"), sha256=entry.get("Sha256"))
