# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories on Hugging Face and its mirrors.

Source of the API: the hub's description of /api/models and the client library huggingface_hub 2.4.0. Large files have
their SHA-256 (lfs.oid); small ones are git blobs and have git's SHA-1 (oid).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from ...errors import LlmError
from . import common, http

ENDPOINT = "https://huggingface.co"
BRANCH = "main"
# The hub gives 1000 entries a page, so this is more than common.MOST_FILES needs.
MOST_PAGES = 1000

_NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')


class HuggingFace(common.Hub):
    """One repository; ``endpoint`` is the base URL of the hub."""

    def __init__(self, source: common.Source, client: http.Client, endpoint: str) -> None:
        super().__init__(source, client, source.revision or BRANCH)
        self.endpoint = endpoint

    def listing(self) -> common.Listing:
        """Return the files of the commit that the revision stands for; addresses name that commit afterwards."""
        source, base = self.source, f"{self.endpoint}/api/models/{self.source.name}"
        answer, _headers = self.client.json(f"{base}/revision/{quote(self.ref, safe='')}")
        commit = common.field(source, answer, "sha")
        if not isinstance(commit, str) or not common.is_commit(commit):
            raise common.misshapen(source, "no commit", repr(commit))
        if common.is_commit(self.ref) and commit != self.ref:
            raise common.misshapen(source, f"another commit than {self.ref}", commit)
        self.ref = commit
        files = [
            self._file(entry)
            for page in self._pages(f"{base}/tree/{commit}?recursive=true&expand=false")
            for entry in page
            if entry.get("type") != "directory"
        ]
        return common.Listing(commit, common.checked(source, files), [])

    def url(self, path: str) -> str:
        """Return where the file ``path`` can be had."""
        return f"{self.endpoint}/{self.source.name}/resolve/{quote(self.ref, safe='')}/{quote(path)}"

    def _pages(self, url: str) -> list[list[dict]]:
        pages, seen, count = [], set(), 0
        while url:
            if url in seen or len(pages) == MOST_PAGES or count > common.MOST_FILES:
                raise LlmError(
                    f"the listing of {self.source.text} does not end",
                    wanted=f"at most {MOST_PAGES} different pages",
                    found=f"a page that was had before, after {len(pages)}" if url in seen else f"{len(pages)} pages",
                    remedy="see whether the endpoint or a proxy before it is broken",
                )
            seen.add(url)
            answer, headers = self.client.json(url)
            pages.append(common.items(self.source, answer, "a page"))
            count += len(pages[-1])
            url = self._next(url, headers)
        return pages

    def _next(self, url: str, headers: Mapping[str, str]) -> str:
        """Return the address of the next page, which has to be on the same host: the listing is this hub's word."""
        link = headers.get("Link", "")
        match = _NEXT.search(link)
        if not match:
            if "next" in link.lower():
                raise common.misshapen(self.source, "a next page that cannot be found", link)
            return ""
        joined = http.join(url, match[1])
        if http.origin(joined) != self.client.home:
            raise LlmError(
                f"the listing of {self.source.text} goes on at another host",
                wanted=self.endpoint,
                found=http.bare(joined),
                remedy="use a mirror that gives its own addresses, or the hub itself",
            )
        return joined

    def _file(self, entry: dict) -> common.Remote:
        source = self.source
        if entry.get("type") != "file":
            raise common.misshapen(source, "an entry that is neither file nor directory", repr(entry.get("type")))
        lfs = entry.get("lfs")
        if lfs is None:
            return common.remote(source, entry.get("path"), entry.get("size"), git_sha1=entry.get("oid"))
        size = common.field(source, lfs, "size")
        if size != entry.get("size"):
            raise common.misshapen(source, f"two lengths for {entry.get('path')!r}", f"{entry.get('size')} and {size}")
        return common.remote(source, entry.get("path"), size, sha256=common.field(source, lfs, "oid"))
