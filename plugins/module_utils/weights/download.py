# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Downloads one file of a lock: goes on where an earlier try was cut off, and is right or not there at all."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Callable

from ..errors import LlmError
from . import hashing, merkle, sources
from .progress import Progress

READ_BYTES = 1 << 20
# A connection that brought at least this much was worth it, and does not count as a failed try.
WORTH_BYTES = 8 << 20
MOST_WAIT_S = 60.0
# A connection that brings less than SLOW_BYTES in SLOW_S is as good as dead: at that rate a shard takes two weeks.
SLOW_S = 300.0
SLOW_BYTES = 1 << 20
# How often a file is got anew when its bytes are wrong: the first time may be a proxy's or a mirror's bad day.
CLEAN_TRIES = 2


class _Writer:
    """A file that grows at its end, with the digests of what is in it."""

    def __init__(self, file: int, piece: int, progress: Progress | None) -> None:
        self.file = file
        self.piece = piece
        self.progress = progress
        self.size = 0
        self._begin()

    def _begin(self) -> None:
        self._sha256 = hashlib.sha256()
        self._tree = merkle.Builder(self.piece) if self.piece else None

    def add(self, block: memoryview) -> None:
        """Write ``block`` at the end."""
        left = block
        while left:  # a write may take only a part, as at a full disk or a signal
            left = left[os.write(self.file, left) :]
        self.note(block)

    def note(self, block: memoryview) -> None:
        """Count ``block``, which is there already."""
        self._sha256.update(block)
        if self._tree:
            self._tree.update(block)
        self.size += len(block)
        if self.progress:
            self.progress.add(len(block))

    def clear(self) -> None:
        """Begin anew with an empty file."""
        os.ftruncate(self.file, 0)
        os.lseek(self.file, 0, os.SEEK_SET)
        if self.progress:
            self.progress.add(-self.size)
        self.size = 0
        self._begin()

    def digest(self) -> hashing.Digest:
        """Return the digests of the file, after which nothing can be added."""
        root, layer = self._tree.finish() if self._tree else ("", b"")
        return hashing.Digest(self._sha256.hexdigest(), self.size, root, layer)


def fetch_file(
    hub: sources.Hub,
    entry: dict,
    partial: str,
    *,
    piece: int = 0,
    progress: Progress | None = None,
    retries: int = 5,
    sleep: Callable[[float], object] = time.sleep,
) -> hashing.Digest:
    """Complete the file ``partial`` from ``hub`` and return its digests, which are those of the lock's ``entry``.

    :param piece: length of a piece in bytes for the merkle tree; 0 makes none
    :param progress: told of all bytes, of those that were there already too
    :param retries: how often a connection may be cut, without much having come, before it is given up
    :raises LlmError: the source cannot be reached, or has other bytes than locked; nothing wrong is left then
    """
    file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        writer = _Writer(file, piece, progress)
        _take_up(writer, entry["size"])
        clean = 0
        while True:
            clean += writer.size == 0
            _complete(hub, entry, writer, retries, sleep)
            found = writer.digest()
            if found.sha256 == entry["sha256"]:
                return found
            writer.clear()
            if clean >= CLEAN_TRIES or not entry["size"]:
                raise LlmError(
                    f"{entry['path']} is damaged at the source {hub.source.text}",
                    wanted=f"SHA-256 {entry['sha256']}",
                    found=f"SHA-256 {found.sha256}, {max(clean, 1)} times",
                    remedy="use another mirror, or see whether the lock is of this revision; nothing was put in place",
                )
    finally:
        os.close(file)


def _take_up(writer: _Writer, size: int) -> None:
    """Count what an earlier run has left; more than the whole file is none of it."""
    left = os.fstat(writer.file).st_size
    if left > size:
        writer.clear()
        return
    view = memoryview(bytearray(min(READ_BYTES, max(left, 1))))
    with open(os.dup(writer.file), "rb", buffering=0) as stream:
        for got in iter(lambda: stream.readinto(view), 0):
            writer.note(view[:got])


def _complete(hub: sources.Hub, entry: dict, writer: _Writer, retries: int, sleep: Callable[[float], object]) -> None:
    """Bring the file to its length, over as many connections as it takes."""
    failed, reached = 0, writer.size
    while writer.size < entry["size"]:
        try:
            _get(hub, entry, writer)
            reason = "the answer ended early"
        except sources.Broken as error:
            reason = str(error)
        if writer.size >= entry["size"]:
            return
        failed = 0 if writer.size >= reached + WORTH_BYTES else failed + 1
        reached = max(reached, writer.size)
        if failed > retries:
            raise LlmError(
                f"{entry['path']} cannot be had from {hub.source.text}",
                wanted=f"{entry['size']} bytes",
                found=f"{writer.size} bytes, then {reason}, {failed} times",
                remedy="run this again: it goes on from there; see whether a proxy or the hub cuts long connections",
            )
        if failed:
            sleep(min(MOST_WAIT_S, 2.0 ** (failed - 1)))


def _get(hub: sources.Hub, entry: dict, writer: _Writer) -> None:
    """Read one answer to its end."""
    offset = writer.size
    try:
        with hub.stream(entry["path"], offset) as response:
            _read(response, hub, entry, writer)
    except sources.Refused:
        raise
    except LlmError:
        if not offset or writer.size != offset:
            raise
        # A server or a proxy that does not know how to give a part may still give the whole.
        with hub.stream(entry["path"], 0) as response:
            _read(response, hub, entry, writer)


def _read(response: sources.Response, hub: sources.Hub, entry: dict, writer: _Writer) -> None:
    size = entry["size"]
    if response.total is not None and response.total != size:
        raise _other_length(hub, entry, str(response.total))
    if response.offset != writer.size:
        writer.clear()
    began, before = time.monotonic(), writer.size
    while True:
        block = response.read(READ_BYTES)
        if not block:
            return
        if time.monotonic() - began > SLOW_S:
            if writer.size - before < SLOW_BYTES:
                raise sources.Broken(f"{SLOW_S:g} s brought less than {SLOW_BYTES} bytes")
            began, before = time.monotonic(), writer.size
        if writer.size + len(block) > size:
            writer.clear()
            raise _other_length(hub, entry, f"more than {size}")
        writer.add(memoryview(block))


def _other_length(hub: sources.Hub, entry: dict, found: str) -> LlmError:
    return LlmError(
        f"{entry['path']} at the source {hub.source.text} is not as locked",
        wanted=f"{entry['size']} bytes",
        found=f"{found} bytes",
        remedy="see whether the lock is of this revision, and whether a proxy answers in the hub's place",
    )
