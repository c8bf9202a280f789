# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.tests.testbed import hubs

from .conftest import FILES, HOSTILE

A = "a" * 64


def test_lengths_come_from_the_server(opened, digests):
    with hubs.start("https", FILES) as server:
        listing = opened("https", server).listing()
        assert sorted(path.split()[0] for path in server.asked) == ["GET", *["HEAD"] * len(FILES)]
    assert [(file.path, file.size, file.sha256) for file in listing.files] == digests


def test_a_server_that_compresses_the_list(opened):
    with hubs.start("https", FILES, [hubs.Fault(where="SHA256SUMS", gzip=True)]) as server:
        assert len(opened("https", server).listing().files) == len(FILES)


def test_no_list(opened, refused):
    with hubs.start("https", FILES, sums="") as server:
        assert refused(opened("https", server)).found == "status 404 Not Found"


def test_a_login_page_in_place_of_the_list(opened, refused):
    with hubs.start("https", FILES, sums="<html>\nsign in</html>\n") as server:
        assert "<html>" in refused(opened("https", server)).found


def test_a_list_that_names_a_file_that_is_not_there(opened, refused):
    with hubs.start("https", FILES, sums=f"{A}  missing.json\n") as server:
        assert "missing.json" in refused(opened("https", server)).summary


@pytest.mark.parametrize("name", [name for name in HOSTILE if name and "\n" not in name])
def test_names_that_lead_elsewhere(opened, refused, name):
    with hubs.start("https", FILES, sums=f"{A}  {name}\n") as server:
        refused(opened("https", server))
        assert server.asked == ["GET /models/acme/tiny/SHA256SUMS"]
