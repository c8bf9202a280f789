# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder on a web server, with the list SHA256SUMS of its files in it."""

from __future__ import annotations

from urllib.parse import quote

from .. import hashing
from . import common, http, sums

# Lengths that are asked for at a time: a server's time to answer counts, not its wire.
ASKED_AT_A_TIME = 8


class Web(common.Hub):
    """The files below ``base``, which ends in a slash."""

    def __init__(self, source: common.Source, client: http.Client, base: str) -> None:
        super().__init__(source, client)
        self.base = base

    def listing(self) -> common.Listing:
        """Return the files that SHA256SUMS names, with the lengths that the server gives."""
        where = self.url(sums.NAME)
        digests = sums.parse(self.client.text(where, sums.MOST_BYTES), where)
        named = [common.remote(self.source, name, 0, sha256=digest) for name, digest in digests.items()]
        named = common.checked(self.source, named)
        sizes = hashing.parallel(lambda file: self.client.size(self.url(file.path)), named, ASKED_AT_A_TIME)
        return common.Listing("", [file._replace(size=size) for file, size in zip(named, sizes)], [])

    def url(self, path: str) -> str:
        """Return where the file ``path`` can be had."""
        return self.base + quote(path)
