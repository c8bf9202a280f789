# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import common, huggingface
from ansible_collections.baremetal.llm.tests.testbed import hubs

from .conftest import FILES

MANY = {f"folder{number % 7}/{number:04}.txt": b"" for number in range(2_345)}


def test_the_listing_comes_in_pages(opened):
    with hubs.start("hf", MANY, page=100) as server:
        listing = opened("hf", server).listing()
        asked = [path for path in server.asked if "/tree/" in path]
    assert [file.path for file in listing.files] == sorted(MANY)
    assert len(asked) == -(-(len(MANY) + 7) // 100)


def test_all_pages_and_files_are_of_one_commit(opened, whole):
    with hubs.start("hf", MANY, page=1000) as server:
        hub = opened("hf", server, "@main")
        hub.listing()
        whole(hub, "folder0/0000.txt")
        commit = server.application.repository.commit
        assert all(commit in path or "/revision/main" in path for path in server.asked)


def test_an_answer_about_another_commit(opened, refused):
    def lie(data: object) -> object:
        return {**data, "sha": "b" * 40}

    with hubs.start("hf", FILES, [hubs.Fault(where="/revision/", change=lie)]) as server:
        commit = server.application.repository.commit
        assert refused(opened("hf", server, f"@{commit}")).found == "b" * 40


@pytest.mark.parametrize("sha", ["main", "", None, "A" * 40, "a" * 41, 5])
def test_a_commit_that_is_none(opened, refused, sha):
    def lie(data: object) -> object:
        return {**data, "sha": sha}

    with hubs.start("hf", FILES, [hubs.Fault(where="/revision/", change=lie)]) as server:
        assert "no commit" in refused(opened("hf", server)).summary


def test_pages_in_a_circle(opened, refused):
    with hubs.start("hf", FILES) as server:
        path = f"/api/models/acme/tiny/tree/{server.application.repository.commit}?recursive=true&expand=false"
        server.faults.append(hubs.Fault(where="/tree/", headers={"Link": f'<{path}>; rel="next"'}, times=None))
        error = refused(opened("hf", server))
    assert error.found == "a page that was had before, after 1"
    assert len(server.requests) == 2


def test_pages_without_end(opened, refused, monkeypatch):
    monkeypatch.setattr(huggingface, "MOST_PAGES", 5)
    with hubs.start("hf", MANY, page=10) as server:
        assert refused(opened("hf", server)).found == "5 pages"


def test_more_files_than_a_model_has(opened, refused, monkeypatch):
    monkeypatch.setattr(common, "MOST_FILES", 2_344)
    with hubs.start("hf", MANY) as server:
        assert refused(opened("hf", server)).wanted == "at most 2344"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/x", "https://elsewhere.example.com/x", "file:///x", "http://[::1"]
)
def test_pages_at_another_host(opened, refused, address):
    with hubs.start("hf", FILES) as server:
        server.faults.append(hubs.Fault(where="/tree/", headers={"Link": f'<{address}>; rel="next"'}))
        refused(opened("hf", server))
        assert len(server.requests) == 2


@pytest.mark.parametrize("link", ["", "x", "<>", '</x>; rel="prev"'])
def test_links_to_no_next_page(opened, link):
    with hubs.start("hf", FILES, [hubs.Fault(where="/tree/", headers={"Link": link})]) as server:
        assert len(opened("hf", server).listing().files) == len(FILES)


def test_a_next_page_beside_other_links(opened):
    with hubs.start("hf", MANY, page=2_000) as server:
        commit = server.application.repository.commit
        path = f"/api/models/acme/tiny/tree/{commit}?recursive=true&expand=false&cursor=MjAwMA=="
        link = f'<{path}&x>; rel="prev", <{path}>; rel="next"'
        server.faults.append(hubs.Fault(where="/tree/", headers={"Link": link}))
        assert len(opened("hf", server).listing().files) == len(MANY)


@pytest.mark.parametrize("link", ["<unclosed; rel=next", '</x>; title="y"; rel="next"', "next"])
def test_a_next_page_that_cannot_be_found_is_not_passed_over(opened, refused, link):
    with hubs.start("hf", FILES, [hubs.Fault(where="/tree/", headers={"Link": link})]) as server:
        assert "next page" in refused(opened("hf", server)).summary


def test_two_lengths_of_one_file(opened, refused):
    def lie(data: object) -> object:
        for entry in data:
            if "lfs" in entry:
                entry["lfs"]["size"] += 1
        return data

    with hubs.start("hf", FILES, [hubs.Fault(where="/tree/", change=lie)]) as server:
        assert "two lengths" in refused(opened("hf", server)).summary


@pytest.mark.parametrize("lfs", [{}, "x", {"oid": "a" * 64}, {"size": 7680}, []])
def test_large_files_that_are_not_described(opened, refused, lfs):
    def lie(data: object) -> object:
        return [{**entry, "lfs": lfs} if "lfs" in entry else entry for entry in data]

    with hubs.start("hf", FILES, [hubs.Fault(where="/tree/", change=lie)]) as server:
        assert "listed in a form that cannot be read" in refused(opened("hf", server)).summary


def test_the_token_does_not_go_where_large_files_lie(opened, whole):
    with hubs.start("hf", FILES, token="t") as server:
        hub = opened("hf", server, token="t")
        name = "model-00001-of-00002.safetensors"
        # The store itself refuses requests with a token, as those with signed addresses do.
        assert whole(hub, name, 100) == FILES[name][100:]
