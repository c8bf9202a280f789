# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import hashing


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 13, 14, 15, 100])
def test_digest_and_sink_over_the_edges_of_the_buffer(tmp_path, monkeypatch, size):
    monkeypatch.setattr(hashing, "READ_BYTES", 7)
    content = bytes(range(size))
    (tmp_path / "f").write_bytes(content)
    copied = bytearray()

    digest, count = hashing.sha256_file(str(tmp_path / "f"), sink=copied.extend)

    assert digest == hashlib.sha256(content).hexdigest()
    assert count == size
    assert bytes(copied) == content


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "READ_BYTES", 4)
    path = tmp_path / "f"
    path.write_bytes(b"abcd")
    grown = []

    def grow(_block):
        if not grown:
            grown.append(True)
            with open(path, "ab") as stream:
                stream.write(b"efgh")

    assert hashing.sha256_file(str(path), sink=grow) == (hashlib.sha256(b"abcdefgh").hexdigest(), 8)


def test_parallel_keeps_the_order_and_takes_zero_jobs_as_one():
    assert hashing.parallel(lambda number: number * number, range(50), 0) == [number * number for number in range(50)]


def test_parallel_really_uses_the_threads_it_is_given():
    together = threading.Barrier(3, timeout=10)
    assert len(hashing.parallel(lambda _item: together.wait(), range(3), 3)) == 3


def test_parallel_raises_the_error_of_an_item():
    with pytest.raises(ZeroDivisionError):
        hashing.parallel(lambda number: 1 // number, [1, 0, 2], 2)
