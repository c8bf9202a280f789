# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shares the weights of one folder: sees what is there, has one worker process receive and serve each group of files.

The agent holds the folder for writing as long as it lives. Everything it needs is imported before it forks, because
the archive that the code came in may be deleted while it runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import time

from ... import atomic
from ...errors import LlmError
from ...machine import detached
from .. import exclusive, layers, lockfile, place, stamps, torrent, tree
from ..progress import Progress
from . import rsync_worker, status, survey, worker

NAME = "llm-share"
# A worker that dies by a signal (the kernel's when memory is out, a fault in the library) begins again so often.
RESPAWNS = 3
# Above the STOP_S of a worker: what does not end by itself until then is stuck.
STOP_S = 20.0
TURN_S = 1.0
_PR_SET_PDEATHSIG = 1  # prctl(2)
_MODE = 0o640
# A worker that has come to its end says so by the last of these.
_SIGNALS = {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1}
_DEFAULTS = {
    "engine": "libtorrent",
    "processes": 1,
    "torrents": [],
    "library": "",
    "rate_limit": 0,
    "owner": [-1, -1],
    "linger": 600,
    "speed_mbps": 0,
    "shared_token": "",
}


def main(path: str) -> int:
    """Run the agent for the spec in the JSON file at ``path`` in the foreground; return 1 when it failed, else 0."""
    with open(path, encoding="utf-8") as stream:
        spec = checked(json.load(stream))
    return 0 if run(spec) else 1


def checked(spec: dict) -> dict:
    """Return ``spec`` complete and in its normal form.

    :raises LlmError: a lock that is none, or a chain without this host
    """
    spec = {**_DEFAULTS, **spec, "lock": lockfile.check(spec["lock"])}
    chain = [{"host": link["host"], "address": link["address"]} for link in spec["chain"]]
    addresses = [link["address"] for link in chain]
    if addresses.count(spec["address"]) != 1 or len(set(addresses)) != len(addresses):
        raise LlmError(
            "the chain of hosts cannot be used",
            wanted=f"every address once, {spec['address']} of this host among them",
            found=", ".join(addresses) or "no address",
            remedy="see the addresses of the hosts in the inventory",
        )
    return {**spec, "chain": chain, "processes": max(1, int(spec["processes"]))}


def is_shared(spec: dict) -> bool:
    """True when this host, which is not the seed, sees the very file system that the seed has the weights on."""
    if not spec["shared_token"] or spec["chain"][0]["address"] == spec["address"]:
        return False
    return read_token(spec["dest"]) == spec["shared_token"]


def read_token(dest: str) -> str:
    """Return the token that the seed of ``dest`` has put down, empty where there is none."""
    try:
        with open(os.path.join(status.folder(dest), status.MARK), encoding="utf-8") as stream:
            return stream.read(200).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def noted(dest: str) -> dict:
    """Return what the last agent of ``dest`` noted of itself, empty where there is nothing."""
    return atomic.read_json(os.path.join(status.folder(dest), status.AGENT)) or {}


def running(dest: str) -> int:
    """Return the process of the agent that shares ``dest`` on this host now, 0 where there is none."""
    note = noted(dest)
    pid = note.get("pid")
    mine = isinstance(pid, int) and note.get("boot") == _boot() and note.get("started") == _started_at(pid)
    return pid if mine and note["started"] else 0


def is_elsewhere(dest: str) -> bool:
    """True when the last agent of ``dest`` ran on another host, or before this one was started anew."""
    note = noted(dest)
    return bool(note) and note.get("boot") != _boot()


def _boot() -> str:
    """Return what no two hosts have in common, and no two starts of one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return os.uname().nodename


def run(spec: dict) -> bool:
    """Share as ``spec`` says until SIGTERM, or until all is complete and nobody asked for ``linger`` seconds.

    :return: whether everything is in place
    """
    if is_shared(spec):
        return True
    detached.set_name(NAME)
    with exclusive.writing(spec["dest"], f"weights_share on {spec['host']}"):
        return Agent(spec).run()


class Agent:
    """The coordinator of one run; see ``run``."""

    def __init__(self, spec: dict) -> None:
        self.spec, self.dest, self.lock = spec, spec["dest"], spec["lock"]
        # Pieces are what libtorrent knows; rsync takes whole files, looks for itself, and has one process for all.
        self.by_pieces = spec["engine"] == "libtorrent"
        everything = [entry["path"] for entry in self.lock["files"]]
        self.groups = torrent.groups(self.lock, spec["processes"]) if self.by_pieces else [everything]
        self.spec["processes"] = max(1, len(self.groups))
        self.data: list[bytes] = []
        self.known: dict[str, bytes] = {}
        self.found: dict[str, survey.File] = {}
        self.workers: dict[int, int] = {}
        self.deaths = [0] * len(self.groups)
        self.finished = False
        self.old: dict | None = None
        self.error: Exception | None = None

    def run(self) -> bool:
        """Prepare, spawn, wait, finish."""
        status.make_folder(self.dest)
        status.clear(self.dest)
        self._write_self()
        for number, group in enumerate(self.groups):
            status.write(self.dest, number, status.new(self._bytes(group)))
        try:
            self._prepare()
        except (LlmError, OSError) as error:
            self._fail(error)
            return False
        # From here on signals are waited for, not caught.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for number, group in enumerate(self.groups):
            self._spawn(number, {path: self.found[path] for path in group if path in self.found})
        try:
            self._watch()
        finally:
            self._stop()
        if not self.finished and status.read_workers(self.dest)["state"] == "complete":
            self._finish()
        return self.finished

    def _bytes(self, group: list[str]) -> int:
        wanted = set(group)
        return sum(entry["size"] for entry in self.lock["files"] if entry["path"] in wanted)

    def _write_self(self) -> None:
        pid = os.getpid()
        note = {"pid": pid, "started": _started_at(pid), "boot": _boot(), "finished": self.finished}
        atomic.write_json(os.path.join(status.folder(self.dest), status.AGENT), note, _MODE)

    # Before the first byte ------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        refuse_strangers(self.dest, self.lock)
        self.old = old = place.installed(self.dest)
        if not self.by_pieces:
            return
        self._read_torrents()
        owner = tuple(self.spec["owner"])
        progress = Progress(tree.aside(self.dest, "progress.json"), "checking", lockfile.total_bytes(self.lock))
        self.found = survey.look(self.dest, self.lock, self.lock["files"], self.known, save=True, progress=progress)
        for entry in self.lock["files"]:
            file = self.found.get(entry["path"])
            if file and not file.placed and place.from_revisions(self.dest, entry, old=old, owner=owner):
                whole = [True] * len(file.good)
                self.found[entry["path"]] = survey.File(place.published_path(self.dest, entry), whole, placed=True)
        survey.check_space(self.dest, self.lock, self.found)
        survey.prepare(self.dest, self.lock, self.found)
        self._place_empty(old, owner)

    def _read_torrents(self) -> None:
        """Prove the torrents that this host was given; their layers tell good pieces from bad."""
        if len(self.spec["torrents"]) != len(self.groups):
            raise LlmError(
                "the torrents do not fit the lock",
                wanted=f"{len(self.groups)} torrents, one for each group of files",
                found=f"{len(self.spec['torrents'])}",
                remedy="hand out the torrents and the lock that weights_torrent returns, with the same processes",
            )
        for path, group in zip(self.spec["torrents"], self.groups):
            with open(path, "rb") as stream:
                data = stream.read(worker.MOST_TORRENT_BYTES + 1)
            self.known.update(torrent.check(data, self.lock, group))
            self.data.append(data)

    def _place_empty(self, old: dict | None, owner: tuple[int, int]) -> None:
        """Make the files that have no bytes; no torrent brings them."""
        for entry in self.lock["files"]:
            if entry["size"] == 0 and not is_empty_file(place.published_path(self.dest, entry)):
                path = place.staged(self.dest, entry["path"])
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _MODE))
                place.place(self.dest, entry, path, old=old, owner=owner)

    # Workers --------------------------------------------------------------------------------------------------------

    def _spawn(self, number: int, files: dict[str, survey.File]) -> None:
        """Start the worker of a group; without ``files`` it looks first what is there."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.workers[pid] = number
            return
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == parent:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
                self._work(number, files)
        except BaseException as error:
            state = status.fail(status.new(self._bytes(self.groups[number])), error)
            status.write(self.dest, number, state)
        finally:
            # Never back into the agent's own code.
            os._exit(0)

    def _work(self, number: int, files: dict[str, survey.File]) -> None:
        if not self.by_pieces:
            rsync_worker.run(self.spec, number)
            return
        if not files:
            status.write(self.dest, number, status.new(self._bytes(self.groups[number])))
            wanted = set(self.groups[number])
            entries = [entry for entry in self.lock["files"] if entry["path"] in wanted]
            files = survey.look(self.dest, self.lock, entries, self.known)
            survey.prepare(self.dest, self.lock, files)
        worker.run(self.spec, number, files, self.data[number])

    def _watch(self) -> None:
        """Wait until a signal, or everything, is over."""
        idle_since = time.monotonic()
        with Progress(tree.aside(self.dest, "progress.json"), "receiving", 0) as progress:
            while True:
                told = signal.sigtimedwait(_SIGNALS, TURN_S)
                if told and told.si_signo == signal.SIGTERM:
                    return
                self._reap()
                now = status.read_workers(self.dest)
                progress.total = now["bytes_total"] - now["bytes_resumed"]
                came = now["bytes_done"] - now["bytes_resumed"] - progress.done
                if came > 0:
                    progress.add(came)
                if now["state"] == "complete" and not self.finished:
                    self._finish()
                if any(peer["asking"] for peer in now["peers"]) or now["state"] not in status.ENDED:
                    idle_since = time.monotonic()
                over = time.monotonic() - idle_since >= self.spec["linger"]
                if self.error or (over and now["state"] in status.ENDED) or not (self.workers or self.finished):
                    return

    def _reap(self) -> None:
        while self.workers:
            pid, how = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self.workers.pop(pid, None)
            if number is None or not os.WIFSIGNALED(how):
                continue
            self.deaths[number] += 1
            if self.deaths[number] <= RESPAWNS:
                self._spawn(number, {})
                continue
            error = LlmError(
                f"the process that shares group {number} dies again and again",
                wanted="a process that runs to its end",
                found=f"signal {os.WTERMSIG(how)}, {self.deaths[number]} times",
                remedy="see the kernel's log for memory that ran out, then run this again",
            )
            status.write(self.dest, number, status.fail(status.new(self._bytes(self.groups[number])), error))

    def _stop(self) -> None:
        """End the workers, which bring what they have to the disk first."""
        for pid in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while self.workers and time.monotonic() < end:
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
            with contextlib.suppress(ChildProcessError):
                pid, _how = os.waitpid(-1, os.WNOHANG)
                self.workers.pop(pid, None)
        for pid in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # After the last byte --------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Apply patches, set old files aside, and remember what every file is, so that nobody has to read it again."""
        try:
            place.finish(self.dest, self.lock, owner=tuple(self.spec["owner"]), old=self.old)
            self._remember()
            self.finished = True
            self._write_self()
        except (LlmError, OSError) as error:
            self._fail(error)

    def _remember(self) -> None:
        """Keep layers and stamps: each piece was proved against the root that the lock ties to the SHA-256."""
        for entry in self.lock["files"]:
            layers.store(self.dest, entry["sha256"], self.known.get(entry["path"], b""))
        time.sleep(2 * stamps.TICK_NS / 1e9)
        path = stamps.default_path(self.dest)
        known = stamps.read(path)
        for entry in self.lock["files"]:
            if "patched" not in entry:
                stamp = stamps.of(tree.resolve(self.dest, entry["path"]))
                if stamps.is_settled(stamp, stamps.now_ns()):
                    digests = {"sha256": entry["sha256"], "merkle": entry.get("merkle", "")}
                    known[entry["path"]] = {"stamp": stamp, **digests}
        stamps.write(path, known)

    def _fail(self, error: Exception) -> None:
        self.error = error
        for number, group in enumerate(self.groups):
            status.write(self.dest, number, status.fail(status.new(self._bytes(group)), error))


def is_empty_file(path: str) -> bool:
    """True for a file of no bytes."""
    return os.path.isfile(path) and not os.path.getsize(path)


def refuse_strangers(dest: str, lock: dict) -> None:
    """Raise LlmError when ``dest`` holds files that neither the lock names nor this collection has put there."""
    named = {entry["path"] for entry in lock["files"]} | place.ours(dest)
    present = [entry.path for entry in tree.walk(dest)] if os.path.isdir(dest) else []
    strange = [path for path in present if path not in named]
    if strange:
        pickles = [path for path in strange if tree.is_pickle(path)]
        raise LlmError(
            f"{dest} holds files that are not in the lock" + (", pickles among them" if pickles else ""),
            wanted="only the files of the lock",
            found=", ".join((pickles or strange)[:5]),
            remedy="move them away (nothing is deleted that was not put there by this collection)",
        )


def _started_at(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty when it has ended or never was."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            # Fields 3 (state) and 22 of proc(5); one that has ended and was not asked about stays as a zombie.
            fields = stream.read().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""
