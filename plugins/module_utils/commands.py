# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs other programs the one way this collection does: argv, C locale, no input, always a timeout."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import NamedTuple

# Of each stream. The longest output that is asked for, the XML of 16 GPUs, has less than half a megabyte.
MOST_BYTES = 16 << 20


class Outcome(NamedTuple):
    """What a program did.

    ``code`` is its exit status, or None when it could not be started or ran past its time; ``reason`` then says why.
    """

    code: int | None
    stdout: str
    stderr: str
    reason: str

    @property
    def ok(self) -> bool:
        """True when the program ended by itself with status 0."""
        return self.code == 0


def run(argv: list[str], timeout: float, env: dict[str, str] | None = None, cwd: str | None = None) -> Outcome:
    """Run ``argv`` for at most ``timeout`` seconds and return its Outcome; never raises for what the program does.

    A program that prints more than MOST_BYTES is ended: what prints without end would fill the host's memory.
    """
    environment = dict(os.environ if env is None else env, LC_ALL="C", LANG="C")
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
            # A group of its own, so that the programs it has started end with it.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        return Outcome(None, "", "", f"cannot be started: {error.filename or argv[0]}: no such file")
    except OSError as error:
        return Outcome(None, "", "", f"cannot be started: {error.strerror}")
    try:
        streams, reason = _read(process, time.monotonic() + timeout)
        if not reason:
            process.wait(timeout)
    except subprocess.TimeoutExpired:
        reason = "time"
    except BaseException:
        _end(process)
        raise
    if reason:
        _end(process)
        said = f"did not end within {timeout:g} s" if reason == "time" else f"printed more than {MOST_BYTES} bytes"
        return Outcome(None, "", "", said)
    process.stdout.close()
    process.stderr.close()
    return Outcome(process.returncode, *streams, "")


def _read(process: subprocess.Popen, end: float) -> tuple[list[str], str]:
    """Return both streams as text, and "time" or "bytes" when they did not come to their end."""
    chunks: dict[object, list[bytes]] = {process.stdout: [], process.stderr: []}
    sizes = dict.fromkeys(chunks, 0)
    with selectors.DefaultSelector() as selector:
        for stream in chunks:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                return [], "time"
            for key, _events in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                chunks[key.fileobj].append(chunk)
                sizes[key.fileobj] += len(chunk)
            if max(sizes.values()) > MOST_BYTES:
                return [], "bytes"
    return [_text(b"".join(parts)) for parts in chunks.values()], ""


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # One that is stuck in the kernel, as tools of a hung driver are, ends later or never; nobody waits for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    for stream in (process.stdout, process.stderr):
        stream.close()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
