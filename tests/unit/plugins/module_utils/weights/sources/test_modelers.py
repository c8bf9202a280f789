# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import modelers
from ansible_collections.baremetal.llm.tests.testbed import hubs

from .conftest import FILES


def test_every_folder_is_listed_at_the_commit(opened):
    with hubs.start("modelers", FILES) as server:
        hub = opened("modelers", server)
        hub.listing()
        commit = server.application.repository.commit
    asked = [(request.query["path"], request.query["ref"]) for request in server.requests]
    assert asked == [("", "main"), ("", commit), ("tokenizer", commit), ("tokenizer/deep", commit)]


def test_a_hub_that_does_not_take_commits(opened, digests, whole):
    with hubs.start("modelers", FILES, commits=False) as server:
        hub = opened("modelers", server)
        listing = hub.listing()
        assert (listing.revision, hub.ref) == (server.application.repository.commit, "main")
        assert [(file.path, file.size) for file in listing.files] == [entry[:2] for entry in digests]
        assert whole(hub, "config.json") == FILES["config.json"]


def test_a_branch_that_moves_while_it_is_listed(opened, refused):
    seen = []

    def move(data: object) -> object:
        if data["data"] and data["data"].get("last_commit"):
            seen.append(1)
            data["data"]["last_commit"]["commit"]["commit_sha"] = f"{len(seen):040}"
        return data

    with hubs.start("modelers", FILES, [hubs.Fault(change=move, times=None)], commits=False) as server:
        assert "was changed while it was listed" in refused(opened("modelers", server)).summary


def test_digests_that_only_the_info_of_a_file_has(opened):
    with hubs.start("modelers", FILES) as server, hubs.start("modelers", FILES, etags=False) as terse:
        assert opened("modelers", terse).listing() == opened("modelers", server).listing()
        assert sum(path.endswith("/info") for path in terse.asked) == len(FILES)


@pytest.mark.parametrize("sha", ["", None, "main", 5])
def test_a_commit_that_is_none(opened, refused, sha):
    def lie(data: object) -> object:
        data["data"]["last_commit"]["commit"]["commit_sha"] = sha
        return data

    with hubs.start("modelers", FILES, [hubs.Fault(change=lie)]) as server:
        assert "no commit" in refused(opened("modelers", server)).summary


@pytest.mark.parametrize("path", ["tokenizer", "", "elsewhere", "tokenizerx/y", None, "tokenizer/../../x"])
def test_folders_that_are_not_below_their_parent(opened, refused, path):
    def lie(data: object) -> object:
        data["data"]["tree"] = [{"type": "dir", "path": path}]
        return data

    with hubs.start("modelers", FILES, [hubs.Fault(where="path=tokenizer&", change=lie)]) as server:
        refused(opened("modelers", server))


def test_a_folder_that_is_there_twice(opened, refused):
    def double(data: object) -> object:
        data["data"]["tree"] *= 2
        return data

    only = {"folder/config.json": b"{}"}
    with hubs.start("modelers", only, [hubs.Fault(where="path=&", change=double, times=None)]) as server:
        assert "twice" in refused(opened("modelers", server)).summary


def test_folders_that_are_too_deep(opened, refused):
    endless = {"/".join(["a"] * 50) + "/x": b""}
    with hubs.start("modelers", endless) as server:
        assert "too many folders" in refused(opened("modelers", server)).summary
        assert len(server.requests) <= modelers.MOST_DEPTH + 2


def test_more_folders_than_a_model_has(opened, refused, monkeypatch):
    monkeypatch.setattr(modelers, "MOST_FOLDERS", 20)
    with hubs.start("modelers", {f"f{number}/x": b"" for number in range(21)}) as server:
        assert "too many folders" in refused(opened("modelers", server)).summary
