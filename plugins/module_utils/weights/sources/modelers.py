# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories on Modelers.

Source of the API: the client library openmind_hub 1.3.0. One folder is listed at a time. A file's etag is its SHA-256
(64 digits) or git's SHA-1 (40 digits).
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from ...errors import LlmError
from .. import tree
from . import common, http

ENDPOINT = "https://modelers.cn"
BRANCH = "main"
# Folders of one repository, and how deep they may lie.
MOST_FOLDERS = 1000
MOST_DEPTH = 32


class Modelers(common.Hub):
    """One repository; ``endpoint`` is the base URL of the hub."""

    def __init__(self, source: common.Source, client: http.Client, endpoint: str) -> None:
        super().__init__(source, client, source.revision or BRANCH)
        self.endpoint = endpoint

    def listing(self) -> common.Listing:
        """Return the files; addresses name the commit afterwards, where the hub takes it."""
        given, commit = self.ref, self._commit()
        files = self._walk_at(commit)
        if files is None:
            self.ref = given
            files = self._walk()
            if self._commit() != commit:
                raise LlmError(
                    f"{self.source.text} was changed while it was listed",
                    wanted=f"commit {commit} all the time",
                    found="another commit at the end",
                    remedy="run this again",
                )
        return common.Listing(commit, common.checked(self.source, files), [])

    def url(self, path: str) -> str:
        """Return where the file ``path`` can be had."""
        return f"{self._base()}/{quote(self.ref, safe='')}/media/{quote(path)}"

    def _base(self) -> str:
        return f"{self.endpoint}/api/v1/file/{self.source.name}"

    def _data(self, tail: str, path: str) -> dict:
        query = urlencode({"path": path, "ref": self.ref}, quote_via=quote, safe="")
        answer, _headers = self.client.json(f"{self._base()}{tail}?{query}")
        return common.field(self.source, answer, "data")

    def _commit(self) -> str:
        commit = common.field(self.source, self._data("", ""), "last_commit", "commit", "commit_sha")
        if not isinstance(commit, str) or not common.is_commit(commit):
            raise common.misshapen(self.source, "no commit", repr(commit))
        return commit

    def _walk_at(self, ref: str) -> list[common.Remote] | None:
        """Return the files of the revision ``ref``, None when the hub does not know it."""
        self.ref = ref
        try:
            return self._walk()
        except http.Refused as error:
            if error.status != 404:
                raise
            return None

    def _walk(self) -> list[common.Remote]:
        files: list[common.Remote] = []
        waiting, done = [""], set()
        while waiting:
            folder = waiting.pop()
            if folder in done:
                raise common.misshapen(self.source, "a folder is in the tree twice", repr(folder))
            done.add(folder)
            if len(done) > MOST_FOLDERS or folder.count("/") >= MOST_DEPTH or len(files) > common.MOST_FILES:
                raise LlmError(
                    f"{self.source.text} has too many folders for a model",
                    wanted=f"at most {MOST_FOLDERS}, {MOST_DEPTH} deep",
                    remedy="see whether the endpoint is the hub that it should be",
                )
            for entry in common.items(self.source, common.field(self.source, self._data("", folder), "tree"), "a tree"):
                path = self._below(folder, entry)
                if entry.get("type") == "dir":
                    waiting.append(path)
                elif entry.get("type") == "file":
                    files.append(self._file(path, entry))
                else:
                    raise common.misshapen(self.source, "an entry that is neither file nor dir", repr(entry))
        return files

    def _below(self, folder: str, entry: dict) -> str:
        path = entry.get("path")
        if not isinstance(path, str) or not path.startswith(f"{folder}/" if folder else "") or path in ("", folder):
            raise common.misshapen(self.source, f"an entry that is not below {folder or 'the top'!r}", repr(path))
        return tree.check_relative(path)

    def _file(self, path: str, entry: dict) -> common.Remote:
        if not entry.get("etag") or "size" not in entry:
            entry = self._data("/info", path)
        etag = common.field(self.source, entry, "etag")
        digest = etag.strip('"') if isinstance(etag, str) else etag
        kind = "sha256" if isinstance(digest, str) and len(digest) == 64 else "git_sha1"
        return common.remote(self.source, path, common.field(self.source, entry, "size"), **{kind: digest})
