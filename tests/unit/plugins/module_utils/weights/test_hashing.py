# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.weights import hashing, merkle
from ansible_collections.baremetal.llm.plugins.module_utils.weights.progress import Progress
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 13, 14, 15, 100])
def test_digest_sink_and_progress_over_the_edges_of_the_buffer(tmp_path, monkeypatch, size):
    monkeypatch.setattr(hashing, "READ_BYTES", 7)
    content = bytes(range(size))
    (tmp_path / "f").write_bytes(content)
    copied = bytearray()
    progress = Progress("", "hashing", size)

    found = hashing.digest_file(str(tmp_path / "f"), sink=copied.extend, progress=progress)

    assert found == (hashlib.sha256(content).hexdigest(), size, "", b"")
    assert bytes(copied) == content
    assert progress.done == size


@given(size=st.integers(0, 5 * merkle.LEAF_BYTES), block=st.integers(1, 2 * merkle.LEAF_BYTES), shift=st.integers(0, 2))
def test_the_tree_is_of_the_same_pass_whatever_the_blocks(tmp_path, size, block, shift):
    content = hashlib.sha256(b"%d" % size).digest() * (size // 32 + 1)
    (tmp_path / "f").write_bytes(content[:size])
    piece = merkle.LEAF_BYTES << shift
    builder = merkle.Builder(piece)
    builder.update(memoryview(content[:size]))
    copied = bytearray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "READ_BYTES", block)
        found = hashing.digest_file(str(tmp_path / "f"), piece=piece, sink=copied.extend)
    assert (found.merkle, found.layer) == builder.finish()
    assert found.sha256 == hashlib.sha256(content[:size]).hexdigest()
    assert bytes(copied) == content[:size]


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

    found = hashing.digest_file(str(path), sink=grow)
    assert (found.sha256, found.size) == (hashlib.sha256(b"abcdefgh").hexdigest(), 8)


def test_a_file_that_shrinks_while_it_is_read_ends_where_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "READ_BYTES", 4)
    path = tmp_path / "f"
    path.write_bytes(b"abcdefgh")
    found = hashing.digest_file(str(path), sink=lambda _block: os.truncate(path, 4))
    assert (found.sha256, found.size) == (hashlib.sha256(b"abcd").hexdigest(), 4)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "f").write_text("x")
    (tmp_path / "link").symlink_to("f")
    with pytest.raises(OSError, match="symbolic links"):
        hashing.digest_file(str(tmp_path / "link"))


def test_an_error_of_the_sink_is_the_readers_error(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(ZeroDivisionError):
        hashing.digest_file(str(tmp_path / "f"), sink=lambda block: 1 // (len(block) - 1))


def test_parallel_keeps_the_order_and_takes_zero_jobs_as_one():
    assert hashing.parallel(lambda number: number * number, range(50), 0) == [number * number for number in range(50)]


def test_parallel_really_uses_the_threads_it_is_given():
    together = threading.Barrier(3, timeout=10)
    assert len(hashing.parallel(lambda _item: together.wait(), range(3), 3)) == 3


def test_parallel_bounds_the_threads_and_with_them_the_buffers(monkeypatch):
    monkeypatch.setattr(hashing, "MOST_JOBS", 2)
    threads = hashing.parallel(lambda _item: threading.get_ident(), range(100), 50)
    assert len(set(threads)) <= 2


def test_all_buffers_together_stay_small():
    assert hashing.MOST_JOBS * hashing.READ_BYTES <= 100_000_000


def test_parallel_raises_the_error_of_an_item():
    with pytest.raises(ZeroDivisionError):
        hashing.parallel(lambda number: 1 // number, [1, 0, 2], 2)
