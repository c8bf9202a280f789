# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rsync daemon that passes on what this host holds whole: the fall-back where the wheel of libtorrent cannot run.

It is bound to one address, takes only the addresses of the chain, and writes nothing. It reads the folder of the
weights itself: only whole files appear there, and what is damaged is not in the note. No second names are made for
files, as that would change their ctime and with it their stamps. There are no secrets: whoever takes the bytes proves
them against the lock, so a stranger cannot harm them; but a host that can take an address of the chain can read them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from ... import commands
from ...errors import LlmError
from .. import tree

# What a chain's hosts may read: the files as the engine has them, those that were patched as they were published, and
# the note that says which of them are whole.
WEIGHTS, ORIGINALS, NOTE = "weights", "originals", "note"
CONFIG = "rsyncd.conf"
LOG = "rsyncd.log"
# A connection that carries nothing for so long is dead; a puller that waits makes a new one for each question.
IDLE_S = 60
# A daemon that binds its port does it at once; one that cannot ends at once.
START_S = 5.0
STOP_S = 5.0
# Options of the daemon's configuration that are read here came with 3.1 (2013).
OLDEST = (3, 1)
# One line of the log for each file sent: how it begins is ours (see config).
_SENT = re.compile(r"\] sent (\S+) (\d+)$")
_ASKED = re.compile(r"\] connect from \S+ \((\S+)\)$")
# One that waits asks more often than this (TAKING_S of the worker, with room for a machine that is busy).
LATELY_S = 10.0
_VERSION = re.compile(r"\bversion v?(\d+)\.(\d+)")
# What rsync's configuration would take for something else than a path.
_UNFIT = re.compile(r"[\x00-\x1f\x7f%]|\\$|^\s|\s$")


def require() -> None:
    """Raise LlmError where there is no rsync that this engine can use."""
    found = commands.run(["rsync", "--version"], 10)
    match = _VERSION.search(found.stdout)
    if not match or (int(match[1]), int(match[2])) < OLDEST:
        raise LlmError(
            "the engine rsync cannot run here",
            wanted=f"rsync {OLDEST[0]}.{OLDEST[1]} or newer",
            found=f"rsync {match[1]}.{match[2]}" if match else found.reason or "a program that names no version",
            remedy="install the package rsync, or use the engine libtorrent",
        )


def config(
    folder: str, modules: dict[str, str], address: str, port: int, allow: list[str], user: tuple[int, int]
) -> str:
    """Return the daemon's configuration.

    :param folder: where its log and its lock lie
    :param modules: {name: folder that it reads}
    :param allow: addresses that may connect
    :param user: numbers of the user and the group that read the files; what a process of root's becomes
    """
    for path in (folder, *modules.values()):
        if _UNFIT.search(path):
            raise LlmError(
                f"the engine rsync cannot serve the folder {path!r}",
                wanted="a path without %, control characters or blanks at its ends",
                found=path,
                remedy="set llm_weights_path to another folder, or use the engine libtorrent",
            )
    root = os.geteuid() == 0
    lines = [
        f"address = {address}",
        f"port = {port}",
        # Each of the chain may have one transfer and one question under way; the rest is for those cut off unseen.
        f"max connections = {4 * max(1, len(allow))}",
        f"lock file = {os.path.join(folder, 'rsyncd.lock')}",
        f"log file = {os.path.join(folder, LOG)}",
        "transfer logging = yes",
        "log format = sent %a %b",
        f"timeout = {IDLE_S}",
        "reverse lookup = no",
        "forward lookup = no",
        "read only = yes",
        "list = no",
        "numeric ids = yes",
        f"use chroot = {'yes' if root else 'no'}",
        f"exclude = /{tree.INSIDE}/",
        f"hosts allow = {' '.join(allow)}",
        "hosts deny = *",
    ]
    lines += [f"uid = {user[0]}", f"gid = {user[1]}"] if root else []
    for name, path in sorted(modules.items()):
        lines += [f"[{name}]", f"path = {path}"]
    return "\n".join([*lines, ""])


class Daemon:
    """One `rsync --daemon`; started again when it ends by itself.

    :param folder: where configuration and log are written
    """

    def __init__(self, folder: str, text: str) -> None:
        self.folder = folder
        self.log = os.path.join(folder, LOG)
        self._config = os.path.join(folder, CONFIG)
        self._text = text
        self._process: subprocess.Popen | None = None
        self._read = 0
        self._sent: dict[str, int] = {}
        self._asked: dict[str, float] = {}

    def start(self, address: str, port: int) -> None:
        """Start it and return when it listens.

        :raises LlmError: it does not listen; what it said is told
        """
        _refuse_taken(address, port)
        write_private(self._config, self._text.encode())
        write_private(self.log, b"")
        self._read = 0
        self._process = subprocess.Popen(
            ending_with_us(["rsync", "--daemon", "--no-detach", f"--config={self._config}"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        end = time.monotonic() + START_S
        while not _listens(address, port):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise _no_port(address, port, _last_line(self.log) or "no word from rsync")
            time.sleep(0.02)

    def ended(self) -> bool:
        """True when it has ended without being told to."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """End it and the transfers that it has under way."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_S)

    def look(self) -> tuple[dict[str, int], set[str]]:
        """Return ({address: bytes sent to it, of files that came to their end}, addresses that lately asked)."""
        now = time.monotonic()
        for line in self._new_lines():
            sent, asked = _SENT.search(line), _ASKED.search(line)
            if sent:
                self._sent[sent[1]] = self._sent.get(sent[1], 0) + int(sent[2])
            if asked:
                self._asked[asked[1]] = now
        return dict(self._sent), {address for address, when in self._asked.items() if now - when < LATELY_S}

    def _new_lines(self) -> list[str]:
        try:
            with open(self.log, "rb") as stream:
                stream.seek(self._read)
                text = stream.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode("utf-8", "replace").splitlines()


def served(port: int) -> set[str]:
    """Return the addresses that have a connection with ``port`` of this host."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        for row in rows:
            address, _colon, _port = row[2].partition(":")
            # State 1 is an established connection; addresses are words in the machine's own order, see proc(5).
            if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port:
                words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                found.add(str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))))
    return found


def _refuse_taken(address: str, port: int) -> None:
    """What already listens there would be taken for our daemon."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise _no_port(address, port, str(error.strerror)) from error


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _no_port(address: str, port: int, found: str) -> LlmError:
    return LlmError(
        f"rsync cannot listen on {address}, port {port}",
        wanted="an address of this host, and a port that is free",
        found=found,
        remedy="see which program has the port (ss -ltnp), or set another address or port",
    )


def environment() -> dict[str, str]:
    """Return the environment for rsync, without what would lead it to other hosts, options or languages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RSYNC_")}
    return {**kept, "LC_ALL": "C", "LANG": "C"}


def ending_with_us(argv: list[str]) -> list[str]:
    """Return ``argv`` so that the program is ended when this process is killed, where the host has setpriv for it."""
    return ["setpriv", "--pdeathsig", "TERM", *argv] if shutil.which("setpriv") else argv


def end_left_behind(folder: str) -> list[int]:
    """Kill what an earlier worker with the same ``folder`` has left, and return the process ids.

    Ours is an rsync that was told to read our configuration, or one of our listings.
    """
    options = (f"--config={folder}/".encode(), f"--files-from={folder}/".encode())
    found = []
    for entry in Path("/proc").iterdir():
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else [b""]
        except OSError:
            continue
        if os.path.basename(argv[0]) == b"rsync" and any(word.startswith(options) for word in argv):
            found.append(int(entry.name))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def write_private(path: str, data: bytes) -> None:
    """Put down a file that only this user reads; what lay there goes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
        out.write(data)


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read(1 << 16).splitlines()
    except OSError:
        return ""
    return lines[-1][-300:] if lines else ""
