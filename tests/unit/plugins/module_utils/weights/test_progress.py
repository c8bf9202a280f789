# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import threading
import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import progress
from ansible_collections.baremetal.llm.plugins.module_utils.weights.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it: a list of its one number."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def written(path) -> dict:
    return json.loads(path.read_text())


def test_it_is_written_at_the_beginning_and_at_the_end(tmp_path, clock):
    path = tmp_path / "progress.json"
    with Progress(str(path), "copying", 300) as counter:
        assert written(path) == {"what": "copying", "done": 0, "total": 300, "rate": 0, "seconds": 0.0}
        clock[0] += 0.5
        counter.add(100)
        assert written(path)["done"] == 0  # not yet due
        counter.add(200)
    assert written(path) == {"what": "copying", "done": 300, "total": 300, "rate": 600, "seconds": 0.5}
    assert path.stat().st_mode & 0o777 == 0o640


def test_it_is_written_now_and_then(tmp_path, clock):
    path = tmp_path / "progress.json"
    counter = Progress(str(path), "copying", 300)
    counter.add(10)
    assert not path.exists()
    for done in (20, 30, 40):
        clock[0] += progress.WRITE_S
        counter.add(10)
        assert written(path)["done"] == done


def test_it_is_written_when_the_job_fails(tmp_path, clock):
    path = tmp_path / "progress.json"
    with pytest.raises(ZeroDivisionError), Progress(str(path), "copying", 300) as counter:
        counter.add(7)
        raise ZeroDivisionError
    assert written(path)["done"] == 7


def test_all_threads_count(tmp_path):
    counter = Progress("", "copying", 0)

    def work():
        for _time in range(2000):
            counter.add(1)

    threads = [threading.Thread(target=work) for _thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.done == 8000


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch, clock):
    monkeypatch.chdir(tmp_path)
    with Progress("", "copying", 1) as counter:
        clock[0] += 10
        counter.add(1)
    assert list(tmp_path.iterdir()) == []
    assert (counter.done, counter.state()["seconds"]) == (1, 10.0)


def test_a_file_that_cannot_be_written_is_no_reason_to_end(tmp_path, clock):
    with Progress(str(tmp_path / "no" / "folder"), "copying", 1) as counter:
        clock[0] += 10
        counter.add(1)
    assert counter.done == 1


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff"])
def test_what_cannot_be_read_is_empty(tmp_path, content):
    if content is not None:
        (tmp_path / "p").write_bytes(content)
    assert progress.read(str(tmp_path / "p")) == {}


def test_what_is_written_is_read(tmp_path, clock):
    with Progress(str(tmp_path / "p"), "copying", 5) as counter:
        counter.add(5)
    assert progress.read(str(tmp_path / "p")) == counter.state()
