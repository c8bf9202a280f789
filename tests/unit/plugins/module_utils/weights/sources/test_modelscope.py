# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import modelscope
from ansible_collections.baremetal.llm.tests.testbed import hubs

from .conftest import FILES


def _many(count: int, folders: int = 0) -> dict[str, bytes]:
    names = [f"f{number % folders:02}/{number:05}.txt" if folders else f"{number:05}.txt" for number in range(count)]
    return dict.fromkeys(names, b"")


def test_one_listing_and_one_more_for_the_commit(opened):
    with hubs.start("modelscope", FILES) as server:
        hub = opened("modelscope", server)
        assert hub.listing().revision == server.application.repository.commit
        assert [request.query["Revision"] for request in server.requests] == ["master", hub.ref]


def test_a_listing_just_below_the_cut_is_whole(opened):
    with hubs.start("modelscope", _many(2_999)) as server:
        assert len(opened("modelscope", server).listing().files) == 2_999
        assert len(server.requests) == 2


@pytest.mark.parametrize("count", [3_000, 3_001])
def test_a_folder_that_is_cut_is_not_trusted(opened, refused, count):
    with hubs.start("modelscope", _many(count)) as server:
        error = refused(opened("modelscope", server))
    assert "cannot be trusted to be whole" in error.summary
    assert error.found == "3000 entries in one folder"


def test_3001_files_in_folders_are_listed_folder_by_folder(opened):
    with hubs.start("modelscope", _many(3_001, folders=20)) as server:
        listing = opened("modelscope", server).listing()
        assert [file.path for file in listing.files] == sorted(_many(3_001, folders=20))
        assert len(server.requests) == 2 * 22


def test_a_cut_folder_below_is_not_trusted(opened, refused):
    files = {**FILES, **{f"deep/er/{name}": b"" for name in _many(3_001)}}
    with hubs.start("modelscope", files) as server:
        assert refused(opened("modelscope", server)).found == "3000 entries in one folder, below deep/er"


def test_a_walk_has_an_end(opened, refused, monkeypatch):
    monkeypatch.setattr(modelscope, "MOST_LISTINGS", 10)
    with hubs.start("modelscope", _many(3_001, folders=20)) as server:
        assert "more than 10 listings" in refused(opened("modelscope", server)).found


@pytest.mark.parametrize("path", ["elsewhere/x", "", None, "../x", "f00", "f00x"])
def test_a_folder_that_is_not_below_its_parent(opened, refused, path, monkeypatch):
    monkeypatch.setattr(modelscope, "CUT_AT", 3)

    def lie(data: object) -> object:
        data["Data"]["Files"] = [{"Path": path, "Type": "tree"}]
        return data

    fault = hubs.Fault(where="Recursive=False&Root=f00", change=lie, times=None)
    files = {f"f00/sub{number}/{name}": b"" for number in range(2) for name in _many(3)}
    with hubs.start("modelscope", files, [fault]) as server:
        refused(opened("modelscope", server))


def test_a_hub_that_does_not_take_commits(opened, digests):
    with hubs.start("modelscope", FILES, commits=False) as server:
        hub = opened("modelscope", server)
        listing = hub.listing()
    assert (listing.revision, hub.ref) == ("master", "master")
    assert "does not tell the commit" in listing.notes[0]
    assert [(file.path, file.size, file.sha256) for file in listing.files] == digests


def test_a_commit_with_other_files_is_not_the_branch(opened):
    def other(data: object) -> object:
        data["Data"]["Files"][-1]["Sha256"] = "b" * 64
        return data

    with hubs.start("modelscope", FILES) as server:
        commit = server.application.repository.commit
        server.faults.append(hubs.Fault(where=f"Revision={commit}", change=other))
        assert opened("modelscope", server).listing().revision == "master"


@pytest.mark.parametrize("field", ["Revision", "CommittedDate"])
def test_entries_that_do_not_name_their_commit(opened, field):
    def forget(data: object) -> object:
        for entry in data["Data"]["Files"]:
            entry[field] = None
        return data

    with hubs.start("modelscope", FILES, [hubs.Fault(change=forget, times=None)]) as server:
        assert opened("modelscope", server).listing().revision == "master"


def test_an_error_with_status_200(opened, refused):
    body = b'{"Code": 10010205001, "Message": "no right", "Success": false, "Data": null}'
    with hubs.start("modelscope", FILES, [hubs.Fault(body=body)]) as server:
        assert refused(opened("modelscope", server)).found == "Code 10010205001 no right"
