# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shares weights with rsync alone, where libtorrent cannot run: the same chain, whole files in the place of pieces.

Every host runs a daemon that serves the files it holds, and takes those that it lacks, in the order of the lock, from
the host before it; so each hop lags behind by one file. A file is proved against the lock and put in its place while
the next one is on its way, and is passed on from then on. A host that does not answer, or has nothing and no hope of
more, is gone around; one that sends something wrong is not asked for that file again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from ... import atomic
from ...errors import LlmError
from .. import hashing, layers, lockfile, merkle, place, tree, verify
from . import chain, rsync_daemon, rsync_pull, rsync_sources, status, survey

STATUS_S = 1.0
# Between two rounds of questions: while there is nothing to take, and while something comes.
WAITING_S, TAKING_S = 0.25, 1.0
# Files that are proved at a time: hashing one keeps up with 10 Gb/s, two with a disk's writes in between.
PROVERS = 2
# A file that was wrong so often is taken from the beginning: what there is of it may be what does harm.
MOST_STRIKES = 2
_NOTE = "note.json"
_FOLDER_MODE = 0o750


def run(spec: dict, number: int = 0) -> None:
    """Share all files of the lock until SIGTERM; returns when that came or when it cannot go on, which the status says.

    :param spec: as checked by the agent
    :param number: of this worker; rsync has one for all files
    """
    worker = Worker(spec, number)
    signal.signal(signal.SIGTERM, worker.end)
    try:
        worker.share()
    except (LlmError, OSError) as error:
        worker.fail(error)


class Worker:
    """One daemon and one transfer at a time; see ``run``."""

    def __init__(self, spec: dict, number: int = 0) -> None:
        self.spec, self.number = spec, number
        self.dest, self.lock = os.path.realpath(spec["dest"]), spec["lock"]
        self.folder = os.path.join(status.folder(self.dest), f"rsync-{number}")
        self.incoming = tree.aside(self.dest, "incoming")
        self.port = spec["port"] + number
        self.piece = merkle.piece_bytes(lockfile.total_bytes(self.lock))
        self.entries = {entry["path"]: entry for entry in self.lock["files"]}
        self.hosts = {link["address"]: link["host"] for link in spec["chain"]}
        addresses = [link["address"] for link in spec["chain"]]
        uplinks = chain.order(addresses, spec["address"])
        self.sources = rsync_sources.Sources(uplinks, addresses.index(spec["address"]), time.monotonic())
        self.old = place.installed(self.dest)
        self.held: set[str] = set()
        self.strikes: dict[str, int] = {}
        self.proving: dict[str, tuple[str, Future]] = {}
        self.received: dict[str, int] = {}
        self.state = status.new(lockfile.total_bytes(self.lock))
        self.daemon: rsync_daemon.Daemon | None = None
        self.ending = False
        self.guard = threading.Lock()  # of what is known of the sources
        self.news = threading.Event()
        self._batch: tuple[str, list[str], int] = ("", [], 0)
        self._noted: tuple[int, bool] = (-1, False)
        self._began = self._reported = time.monotonic()
        self._counted = 0

    def end(self, *_signal: object) -> None:
        """Ask the worker to stop, as SIGTERM does."""
        self.ending = True

    def share(self) -> None:
        """Serve what is here, receive what is missing, and serve on until the end is asked for."""
        rsync_daemon.require()
        os.makedirs(self.folder, mode=_FOLDER_MODE, exist_ok=True)
        rsync_daemon.end_left_behind(self.folder)
        self._look()
        self._publish(False)
        asker = threading.Thread(target=self._ask_all, daemon=True)
        with ThreadPoolExecutor(PROVERS) as self.provers:
            try:
                self._serve()
                self.state["state"] = "sharing"
                for path in self.missing():
                    # An earlier run that was cut off may have had it whole.
                    if self._staged_size(path) == self.entries[path]["size"]:
                        self.proving[path] = ("", self.provers.submit(self._prove, path))
                asker.start()
                while not self.ending:
                    self._turn()
            finally:
                self.ending = True
                if asker.is_alive():
                    asker.join(rsync_pull.CONNECT_S + rsync_pull.STOP_S)
                if self.daemon:
                    self.daemon.stop()
        self._collect()
        self._report()

    def fail(self, error: Exception) -> None:
        """Note why this worker cannot go on."""
        self.state = status.fail(self.state, error)
        status.write(self.dest, self.number, self.state)

    # What is here -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Find what is here already, see that the rest fits on the disk, and copy what is only damaged."""
        result = verify.verify(self.dest, self.lock) if os.path.isdir(self.dest) else None
        wrong = {problem["path"] for problem in result["corrupt"]} | set(result["missing"]) if result else self.entries
        found = {}
        for path, entry in self.entries.items():
            if path not in wrong and ("patched" not in entry or self._is_original(entry)):
                self.held.add(path)
            elif not entry["size"]:
                self._place_empty(path)
                self.held.add(path)
            elif place.from_revisions(self.dest, entry, old=self.old, owner=tuple(self.spec["owner"])):
                self.held.add(path)
            else:
                found[path] = self._find(path, entry)
        survey.check_space(self.dest, self.lock, found)
        survey.prepare(self.dest, self.lock, found)
        self.state["bytes_resumed"] = self.state["bytes_done"] = self._done()

    def _is_original(self, entry: dict) -> bool:
        try:
            return hashing.digest_file(place.published_path(self.dest, entry)).sha256 == entry["sha256"]
        except OSError:
            return False

    def _place_empty(self, path: str) -> None:
        staged = place.staged(self.dest, path)
        os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, place.FILE_MODE))
        self._place(path)

    def _find(self, path: str, entry: dict) -> survey.File:
        """What the survey says of a file without its pieces: what there is of it counts as its beginning."""
        there = self._staged_size(path)
        whole = max(0, there) // self.piece
        good = [at < whole for at in range(merkle.pieces_of(entry["size"], self.piece))]
        staged = os.path.join(self.incoming, path)
        return survey.File(staged, good, origin=self._damaged(entry) if there < 0 else "")

    def _damaged(self, entry: dict) -> str:
        """Return the file that differs in little from the one that is wanted, empty where there is none.

        One of another revision is not: all of it would be copied and compared.
        """
        path = tree.resolve(self.dest, entry["path"])
        before = next((old for old in (self.old or {"files": []})["files"] if old["path"] == entry["path"]), None)
        same = before is None or before["sha256"] == entry["sha256"]
        return path if same and os.path.isfile(path) and os.path.getsize(path) == entry["size"] else ""

    def missing(self) -> list[str]:
        """Return the paths that are not here yet, in the order of the lock."""
        return [path for path in self.entries if path not in self.held]

    def _staged_size(self, path: str) -> int:
        """Return how long the file is that was or is being received; -1 where there is none."""
        try:
            return os.lstat(os.path.join(self.incoming, path)).st_size
        except OSError:
            return -1

    def _done(self) -> int:
        """Return how many bytes are here: of a file that is compared block by block nobody knows before its end."""
        sizes = {path: max(0, self._staged_size(path)) for path in self.missing() if not self._compares(path)}
        return sum(entry["size"] for path, entry in self.entries.items() if path in self.held) + sum(sizes.values())

    # Serving ------------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        os.makedirs(self.dest, mode=_FOLDER_MODE, exist_ok=True)
        os.makedirs(tree.aside(self.dest, "originals"), mode=_FOLDER_MODE, exist_ok=True)
        modules = {
            rsync_daemon.WEIGHTS: self.dest,
            rsync_daemon.ORIGINALS: tree.aside(self.dest, "originals"),
            rsync_daemon.NOTE: os.path.join(self.folder, "note"),
        }
        text = rsync_daemon.config(
            self.folder, modules, self.spec["address"], self.port, sorted(self.hosts), self._reader()
        )
        self.daemon = rsync_daemon.Daemon(self.folder, text)
        self.daemon.start(self.spec["address"], self.port)

    def _reader(self) -> tuple[int, int]:
        """Return the user that the daemon becomes: the weights' owner where all folders are his, else ourselves.

        Folders that are made on the way become his only when all files are in place.
        """
        owner = tuple(self.spec["owner"])
        folders = {os.path.dirname(place.published_path(self.dest, entry)) for entry in self.lock["files"]}
        with contextlib.suppress(FileNotFoundError):
            if {(os.stat(path).st_uid, os.stat(path).st_gid) for path in folders | {self.dest}} == {owner}:
                return owner
        return os.geteuid(), os.getegid()

    def _publish(self, hopeful: bool) -> None:
        """Say which files are whole here, and whether more will be."""
        if self._noted != (len(self.held), hopeful):
            folder = os.path.join(self.folder, "note")
            os.makedirs(folder, mode=0o755, exist_ok=True)
            atomic.write_text(os.path.join(folder, _NOTE), rsync_sources.encode(self.held, hopeful), 0o644)
            self._noted = (len(self.held), hopeful)

    # Receiving ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Take the next files, or wait a moment for news."""
        self._tick()
        lacking = [path for path in self.missing() if path not in self.proving]
        if not lacking:
            self._publish(bool(self.proving))
            if not self.proving:
                self.state["state"] = status.STATES[-1]
            self._wait()
            return
        now = time.monotonic()
        with self.guard:
            step = self.sources.next({path: self.entries[path]["size"] for path in lacking}, now)
            lost = self.sources.lost(lacking, now)
        self._publish(bool(step.address or self.proving))
        if step.paths:
            self._take(step)
        elif lost and len(lost) == len(lacking) and not self.proving:
            raise self._lost_error(lost[0])
        else:
            self._wait()

    def _wait(self) -> None:
        self.news.wait(rsync_pull.TICK_S)
        self.news.clear()

    def _take(self, step: rsync_sources.Next) -> None:
        """Take files from a host; those that have come are handed on to be proved."""
        paths, compare = self._alike(step.paths)
        for path in paths:
            place.staged(self.dest, path)
        sizes = {path: max(0, self._staged_size(path)) for path in paths}
        module = rsync_daemon.ORIGINALS if "patched" in self.entries[paths[0]] else rsync_daemon.WEIGHTS
        wish = rsync_pull.Wish(
            url=rsync_pull.url(step.address, self.port, module),
            own=self.spec["address"],
            folder=self.incoming,
            paths=paths,
            listing=os.path.join(self.folder, "wanted"),
            compare=compare,
            most=max(self.entries[path]["size"] for path in paths),
            there=sum(sizes.values()),
            rate=self.spec["rate_limit"],
        )
        before = self.received.get(step.address, 0)
        self._batch = (step.address, paths, before - sum(sizes.values()))
        result = rsync_pull.pull(wish, self._tick)
        self._count()
        self._batch = ("", [], 0)
        if result.received is not None:
            self.received[step.address] = before + result.received
        self._judge(step.address, paths, result)

    def _alike(self, paths: tuple[str, ...]) -> tuple[list[str], bool]:
        """Return the first path and those after it that are taken in the same way, and whether blocks are compared."""
        ways = [(self._compares(path), "patched" in self.entries[path]) for path in paths]
        return [path for path, way in zip(paths, ways) if way == ways[0]], ways[0][0]

    def _compares(self, path: str) -> bool:
        """True where there is something of the full length already; what is shorter is gone on with."""
        return self._staged_size(path) >= self.entries[path]["size"]

    def _judge(self, address: str, paths: list[str], result: rsync_pull.Result) -> None:
        """Draw the conclusions from a transfer."""
        now = time.monotonic()
        if result.kind in (rsync_pull.SPACE, rsync_pull.LOCAL):
            raise self._disk_error(result)
        come = [path for path in paths if self._staged_size(path) >= self.entries[path]["size"]]
        with self.guard:
            if result.kind in (rsync_pull.BUSY, rsync_pull.REFUSED, rsync_pull.CUT):
                self.sources.silent(address, now)
            elif result.kind == rsync_pull.ABSENT:
                for path in set(paths) - set(come):
                    self.sources.lacks(address, path)
            elif result.kind in (rsync_pull.TOO_LONG, rsync_pull.OK):
                # What is too short there, or too long, is not the file that the lock names.
                for path in set(paths) - set(come) if result.kind == rsync_pull.OK else paths:
                    self.sources.wrong(address, path, now)
        for path in come if result.kind != rsync_pull.TOO_LONG else []:
            # One that was cut off may be long enough and not right yet; its source is not to blame then.
            blamed = address if result.kind == rsync_pull.OK else ""
            self.proving[path] = (blamed, self.provers.submit(self._prove, path))

    def _prove(self, path: str) -> bool:
        """Read a file that has come; put it in its place and return True when it is what the lock says."""
        entry, staged = self.entries[path], place.staged(self.dest, path)
        try:
            found = hashing.digest_file(staged, piece=self.piece)
        except FileNotFoundError:
            return False
        if (found.sha256, found.size) != (entry["sha256"], entry["size"]):
            return False
        if found.merkle != entry.get("merkle", found.merkle):
            raise _merkle_error(entry, found.merkle)
        layers.store(self.dest, entry["sha256"], found.layer)
        self._place(path)
        return True

    def _place(self, path: str) -> None:
        staged = os.path.join(self.incoming, path)
        place.place(self.dest, self.entries[path], staged, old=self.old, owner=tuple(self.spec["owner"]))

    def _collect(self) -> None:
        """Take note of the files that have been proved, or have not."""
        for path, (address, proof) in list(self.proving.items()):
            if not proof.done():
                continue
            del self.proving[path]
            if proof.result():
                self.held.add(path)
                continue
            self.strikes[path] = self.strikes.get(path, 0) + 1
            if address:
                with self.guard:
                    self.sources.wrong(address, path, time.monotonic())
            if self.strikes[path] >= MOST_STRIKES:
                self.strikes[path] = 0
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.incoming, path))

    # Asking the others ----------------------------------------------------------------------------------------------

    def _ask_all(self) -> None:
        """In a thread of its own: ask the hosts for their notes, in the order in which files are taken from them."""
        while not self.ending:
            lacking = self.missing()
            for address in self.sources.addresses if lacking else []:
                if not self.sources.may_ask(address, time.monotonic()):
                    continue
                note = self._ask(address)
                now = time.monotonic()
                with self.guard:
                    if note:
                        self.sources.heard(address, note, now)
                    else:
                        self.sources.silent(address, now)
                    enough = self.sources.suffices(address, lacking, now)
                self.news.set()
                if enough or self.ending:
                    break
            time.sleep(TAKING_S if self._batch[0] else WAITING_S)

    def _ask(self, address: str) -> rsync_sources.Note | None:
        folder = os.path.join(self.folder, "heard")
        path = os.path.join(folder, _NOTE)
        os.makedirs(folder, mode=_FOLDER_MODE, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        url = rsync_pull.url(address, self.port, rsync_daemon.NOTE)
        listing = os.path.join(self.folder, "asked")
        most = rsync_sources.MOST_NOTE_BYTES
        wish = rsync_pull.Wish(url, self.spec["address"], folder, [_NOTE], listing, False, most, 0, 0)
        if rsync_pull.pull(wish, lambda: self.ending).kind != rsync_pull.OK:
            return None
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return rsync_sources.decode(stream.read(rsync_sources.MOST_NOTE_BYTES))
        except OSError:
            return None

    # What others see ----------------------------------------------------------------------------------------------

    def _tick(self) -> bool:
        """Do what is due, also during a transfer; True when the end was asked for."""
        self._collect()
        self._publish(self._noted[1])
        if self.daemon.ended():
            self.daemon.start(self.spec["address"], self.port)
        self._count()
        if time.monotonic() - self._reported >= STATUS_S:
            self._report()
        return self.ending

    def _count(self) -> None:
        """While rsync runs, what it brings is what its files grow by."""
        address, paths, before = self._batch
        if address:
            grown = before + sum(self._staged_size(path) for path in paths if self._staged_size(path) > 0)
            self.received[address] = max(self.received.get(address, 0), grown)

    def _report(self) -> None:
        now = time.monotonic()
        received = sum(self.received.values())
        passed = max(now - self._reported, 1e-3)
        self.state.update(
            bytes_done=self._done(),
            bytes_received=received,
            rate=int((received - self._counted) / passed) if received > self._counted else 0,
            peers=self._peers(),
        )
        self.state["bytes_sent"] = sum(peer["sent"] for peer in self.state["peers"])
        if self.state["state"] not in status.ENDED:
            self.state["seconds"] = round(now - self._began, 3)
        self._reported, self._counted = now, received
        status.write(self.dest, self.number, self.state)

    def _peers(self) -> list[dict]:
        # Only who lacks something asks.
        sent, asking = self.daemon.look() if self.daemon else ({}, set())
        asking |= rsync_daemon.served(self.port)
        found = []
        for address, host in self.hosts.items():
            if address == self.spec["address"]:
                continue
            peer = {"host": host, "received": self.received.get(address, 0), "sent": sent.get(address, 0)}
            flags = {
                "connected": address in asking or address == self._batch[0],
                "asking": address in asking,
                "banned": self.sources.banned(address),
            }
            if peer["received"] or peer["sent"] or any(flags.values()):
                found.append({**peer, **flags})
        return found

    def _disk_error(self, result: rsync_pull.Result) -> LlmError:
        ancestor = survey.existing(self.dest)
        space = os.statvfs(ancestor)
        return LlmError(
            f"the weights cannot be written: {result.said}",
            wanted=f"room for {self.state['bytes_total'] - self._done()} more bytes",
            found=f"{space.f_bavail * space.f_frsize} bytes free on the file system of {ancestor}",
            remedy="free space there or see what is wrong with the disk, then run this again; it goes on from here",
        )

    def _lost_error(self, path: str) -> LlmError:
        hosts = [self.hosts[address] for address in self.sources.wrong_from(path)]
        return LlmError(
            f"{path} is not what the lock says on any host that has it",
            wanted=f"SHA-256 {self.entries[path]['sha256']}, {self.entries[path]['size']} bytes",
            found=f"something else on {', '.join(hosts)}",
            remedy="run weights_verify with deep: true there, then fetch the file again on the seed",
        )


def _merkle_error(entry: dict, found: str) -> LlmError:
    return LlmError(
        f"the lock contradicts itself on {entry['path']}",
        wanted=f"merkle root {entry['merkle']}",
        found=f"a file with the SHA-256 of the lock and the merkle root {found}",
        remedy="make the lock again with weights_lock",
    )
