# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of rsync that takes files from another host's daemon, and what came of it.

A file that is shorter than wanted is gone on with behind what is there (both sides compare that part's checksum, and
where it differs only the differing blocks are sent); one that is long enough and wrong is compared block by block.
Measured on 64 MiB of which 40 % were there: 41,119,019 bytes sent for the 41,108,864 that were missing; with a damaged
byte in that part 41,160,024; for a damaged byte in a whole file 41,065 bytes one way and 57,398 the other.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import signal
import subprocess
import time
from typing import Callable, NamedTuple

from . import rsync_daemon

# To connect to a host of the same site; one that is off does not answer at all.
CONNECT_S = 3
# Without a byte for so long a transfer is given up, as with the other engine (peer_timeout).
SILENT_S = 20
# Both sides read what is there already before a byte travels: at the least a disk brings as much, in bytes a second.
READ_RATE = 50 << 20
# How often ``tick`` is called.
TICK_S = 0.2
STOP_S = 5.0
# What is kept of what rsync says; the last lines tell what went wrong.
_MOST_TEXT = 1 << 16

OK, ABSENT, BUSY, REFUSED, CUT, SPACE, TOO_LONG, LOCAL, STOPPED = (
    "ok",
    "absent",
    "busy",
    "refused",
    "cut",
    "space",
    "too long",
    "local",
    "stopped",
)
# Exit codes, from rsync(1): 3 and 11 are errors of this host's files, 5 is the daemon's refusal, 23 and 24 are files
# that could not be read or are not there; all the others are of the connection.
_LOCAL_CODES, _REFUSED_CODE, _PARTIAL_CODES = (3, 11), 5, (23, 24)
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
# Newer versions say on which side it was; older ones do not.
_HERE = re.compile(r"^rsync: \[(?:receiver|generator|Receiver)\].*(?:failed|denied)", re.M)
_RECEIVED = re.compile(r"^Total bytes received: (\d+)$", re.M)


class Result(NamedTuple):
    """``kind``: one of the constants above. ``received``: bytes from the other host, headers of TCP/IP not counted;
    None where rsync did not come to tell. ``said``: its last words."""

    kind: str
    received: int | None
    said: str


class Wish(NamedTuple):
    """What to take from whom.

    ``url``: of the module, with a slash at its end. ``own``: this host's address. ``folder``: where the files go.
    ``paths``: within module and folder. ``listing``: file to write the paths to. ``compare``: whether what is there
    is compared block by block, else what is behind it is taken. ``most``: bytes of the longest file. ``there``: bytes
    that are there already. ``rate``: bytes a second, 0 for no limit.
    """

    url: str
    own: str
    folder: str
    paths: list[str]
    listing: str
    compare: bool
    most: int
    there: int
    rate: int


def url(address: str, port: int, module: str) -> str:
    """Return the URL of a daemon's module."""
    host = f"[{address}]" if ":" in address else address
    return f"rsync://{host}:{port}/{module}/"


def argv(wish: Wish) -> list[str]:
    """Return the command; the names of the files are in a file, so that rsync reads no pattern in them."""
    words = [
        "rsync",
        f"--files-from={wish.listing}",
        "--from0",
        # Only plain files are ever made, and never above the folder.
        "--no-implied-dirs",
        "--inplace",
        "--no-times",
        "--no-perms",
        "--no-motd",
        "--no-human-readable",
        "--stats",
        f"--address={wish.own}",
        f"--contimeout={CONNECT_S}",
        f"--timeout={SILENT_S + wish.there // READ_RATE}",
    ]
    if wish.compare:
        # Sizes and times say nothing here.
        words += ["--no-whole-file", "--ignore-times"]
    else:
        words.append("--append-verify")
    if wish.rate:
        words.append(f"--bwlimit={max(1, wish.rate // 1024)}")
    return [*words, wish.url, wish.folder + "/"]


def names(paths: list[str]) -> bytes:
    """Return the listing of ``paths``; a leading ./ keeps # and ; from beginning a comment."""
    return b"".join(b"./" + os.fsencode(path) + b"\0" for path in paths)


def pull(wish: Wish, tick: Callable[[], bool]) -> Result:
    """Take the files; ``tick`` is called every TICK_S, and True from it ends the transfer.

    What has come so far stays, and the next run goes on from there.
    """
    rsync_daemon.write_private(wish.listing, names(wish.paths))
    process = subprocess.Popen(
        rsync_daemon.ending_with_us(argv(wish)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=rsync_daemon.environment(),
        start_new_session=True,
    )
    # A host that sends more than the lock says would fill the disk. rsync takes over the limit from the start: it has
    # yet to load, and no file is opened before the other host has answered.
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (wish.most, wish.most))
    said = None
    try:
        said = _follow(process, tick)
    finally:
        _end(process, STOP_S if said is not None else 0.0)
    if said is None:
        return Result(STOPPED, None, "")
    text = said.decode("utf-8", "replace")
    received = _RECEIVED.search(text)
    kind = OK if process.returncode == 0 else classify(process.returncode, text)
    return Result(kind, int(received[1]) if received else None, _last(text))


def classify(code: int, said: str) -> str:
    """Return what kind of failure an exit code (negative for a signal) and rsync's words are."""
    if _NO_SPACE.search(said):
        return SPACE
    if "File too large" in said or code == -signal.SIGXFSZ:
        return TOO_LONG
    if code == _REFUSED_CODE:
        return BUSY if "max connections" in said else REFUSED
    if code in _LOCAL_CODES or (code in _PARTIAL_CODES and _HERE.search(said)):
        return LOCAL
    return ABSENT if code in _PARTIAL_CODES else CUT


def _follow(process: subprocess.Popen, tick: Callable[[], bool]) -> bytes | None:
    """Return what the process says until it ends, or None when ``tick`` has asked to end it."""
    said = b""
    due = time.monotonic() + TICK_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(max(0.0, due - time.monotonic())):
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return said
                said = (said + chunk)[-_MOST_TEXT:]
            if time.monotonic() >= due:
                if tick():
                    return None
                due = time.monotonic() + TICK_S


def _end(process: subprocess.Popen, wait_s: float) -> None:
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("rsync", "@ERROR"))]
    return "; ".join(lines[-2:])[-300:]
