# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import status


def state(kind: str, **changes: object) -> dict:
    return {**status.new(100), "state": kind, **changes}


def peer(host: str, received: int = 0, sent: int = 0, **flags: bool) -> dict:
    return {"host": host, "received": received, "sent": sent, **flags}


def test_what_is_written_is_read_and_cleared(tmp_path):
    dest = str(tmp_path / "weights")
    status.make_folder(dest)
    for worker in (0, 11):
        status.write(dest, worker, state("sharing", bytes_done=worker, rate=2))
    found = status.read(dest)
    assert (found["state"], found["bytes_total"], found["bytes_done"], found["rate"]) == ("sharing", 200, 11, 4)
    status.clear(dest)
    assert status.read(dest)["state"] == ""


def test_no_folder_is_no_status_and_no_error(tmp_path):
    dest = str(tmp_path / "weights")
    status.write(dest, 0, state("sharing"))
    assert status.read(dest)["state"] == ""


@pytest.mark.parametrize(
    ("kinds", "together"),
    [
        ([], ""),
        (["complete", "checking", "sharing"], "checking"),
        (["complete", "placing"], "placing"),
        (["complete", "complete"], "complete"),
        (["failed", "sharing"], "sharing"),
        (["failed", "complete"], "failed"),
        (["failed"], "failed"),
    ],
)
def test_the_whole_is_as_far_as_its_least_part(kinds, together):
    error = LlmError("no room", wanted="2 bytes", found="1 byte", remedy="make room")
    found = status.together(
        [status.fail(state("sharing"), error) if kind == "failed" else state(kind) for kind in kinds]
    )
    assert found["state"] == together
    said = {"msg": "no room", "wanted": "2 bytes", "found": "1 byte", "remedy": "make room"}
    assert found["error"] == (said if "failed" in kinds else None)


def test_complete_is_said_only_when_the_agent_has_done_the_rest(tmp_path):
    dest = str(tmp_path / "weights")
    status.make_folder(dest)
    status.write(dest, 0, state("complete"))
    assert status.read(dest)["state"] == "placing"
    (tmp_path / ".weights.share" / status.AGENT).write_text('{"finished": true}')
    assert status.read(dest)["state"] == "complete"


def test_peers_of_all_workers_are_one_list():
    found = status.together(
        [
            state("sharing", peers=[peer("b", 1, 2, connected=True), peer("a", 5)]),
            state("sharing", peers=[peer("b", 10, 20, connected=False, banned=True, asking=True)]),
        ]
    )
    flags = {"connected": True, "asking": True, "banned": True}
    assert found["peers"] == [
        {"host": "a", "received": 5, "sent": 0, "connected": False, "asking": False, "banned": False},
        {"host": "b", "received": 11, "sent": 22, **flags},
    ]


def test_any_other_error_is_told_with_its_kind():
    assert status.parts(ValueError("x"))["msg"] == "ValueError: x"


def test_something_else_in_the_place_of_our_folder_is_refused(tmp_path):
    (tmp_path / ".weights.share").symlink_to(tmp_path)
    with pytest.raises(LlmError, match="no folder"):
        status.make_folder(str(tmp_path / "weights"))
