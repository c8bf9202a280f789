# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shares one group of files with libtorrent: takes them from the host before this one, serves whoever comes after.

Files lie where they belong: what is good already is served from there, what comes is written to ``incoming`` and
moved to its place, without a gap for those it is served to, when all pieces are proved and on the disk.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import time
from typing import Callable

from ...errors import LlmError
from .. import lockfile, merkle, place, tree
from . import chain, status, survey, tuning

LOOK_S = 0.25  # between two looks at the peers
STATUS_S = 1.0
CONNECT_S = 0.25  # between two tries to connect with a host that refuses; one that is silent is waited for
FLUSH_S = 600.0  # for the write queue, which holds some MiB, to reach a disk that others keep busy too
RENAME_S = 60.0
STOP_S = 10.0
# Far above the largest published models: 3.4 TB in pieces of 4 MiB. The defaults of libtorrent 2.1.1 (10 MB, 3 million
# tokens) are near to what weights need.
MOST_TORRENT_BYTES = 64 << 20
_LIMITS = {
    "max_buffer_size": MOST_TORRENT_BYTES,
    "max_pieces": 1 << 23,
    "max_decode_tokens": 1 << 24,
    "max_decode_depth": 100,
}
_EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_BLOCKED = 1  # ip_filter.access_flags.blocked


def run(spec: dict, number: int, files: dict[str, survey.File], data: bytes) -> None:
    """Share group ``number`` until SIGTERM; returns when that came or when it cannot go on, which the status says.

    :param spec: as checked by the agent
    :param files: what the survey found of the files of this group
    :param data: the torrent of this group, proved
    """
    worker = Worker(spec, number, files, data)
    signal.signal(signal.SIGTERM, worker.end)
    try:
        worker.share()
    except (LlmError, OSError) as error:
        worker.fail(error)


def ordered(paths: list[str]) -> list[str]:
    """Return paths in the order of a torrent's file tree: by the bytes of each name, folder by folder."""
    return sorted(paths, key=lambda path: [part.encode() for part in path.split("/")])


class Worker:
    """One session with one torrent; see ``run``."""

    def __init__(self, spec: dict, number: int, files: dict[str, survey.File], data: bytes) -> None:
        self.spec, self.number, self.data = spec, number, data
        self.dest, self.lock = spec["dest"], spec["lock"]
        self.piece = merkle.piece_bytes(lockfile.total_bytes(self.lock))
        self.entries = {entry["path"]: entry for entry in self.lock["files"] if entry["path"] in files}
        self.paths = ordered(list(files))
        self.files = [files[path] for path in self.paths]
        self.old = place.installed(self.dest)
        self.hosts = {link["address"]: link["host"] for link in spec["chain"]}
        addresses = [link["address"] for link in spec["chain"]]
        self.port = spec["port"] + number
        uplinks = chain.order(addresses, spec["address"])
        before = addresses.index(spec["address"])
        self.choice = chain.Choice(uplinks, before, time.monotonic())
        self.traffic = Traffic(self.hosts, before)
        # The host that takes from this one; it is called on once.
        self.behind = addresses[before + 1 : before + 2]
        self.state = status.new(sum(entry["size"] for entry in self.entries.values()))
        self.began = time.monotonic()
        self.ending = False
        self.allowed: list[str] = []
        self.tried: dict[str, float] = {}
        self._idle = False
        self.wanted: list[str] = []
        self.lt = self.session = self.handle = None
        self.arrived: list[object] = []
        self._due = {"look": 0.0, "status": 0.0}

    def end(self, *_signal: object) -> None:
        """Ask the worker to stop, as SIGTERM does."""
        self.ending = True

    # The session --------------------------------------------------------------------------------------------------

    def share(self) -> None:
        """Open the session, receive what is missing, put it in place, and serve until the end is asked for."""
        held = sum(self._good_bytes(path, file) for path, file in zip(self.paths, self.files))
        self.state.update(bytes_resumed=held, bytes_done=held, state="sharing")
        self._open()
        try:
            while not self.ending and not self._is_whole():
                self._turn(LOOK_S)
            if not self.ending:
                self._place()
            while not self.ending:
                self._turn(LOOK_S)
        finally:
            self._close()

    def _good_bytes(self, path: str, file: survey.File) -> int:
        return survey.good_bytes(self.entries[path], file, self.piece)

    def _open(self) -> None:
        sys.path.insert(0, self.spec["library"])
        try:
            import libtorrent
        except ImportError as error:
            raise LlmError(
                "libtorrent cannot run here",
                wanted=f"its unpacked wheel in {self.spec['library']}",
                found=str(error)[:300],
                remedy="bring the wheel with weights_share, state: ready, or use the engine rsync",
            ) from error
        self.lt = libtorrent
        kinds = libtorrent.alert.category_t
        fixed = {
            "listen_interfaces": f"{_bracketed(self.spec['address'])}:{self.port}",
            # Else the kernel chooses, and the others accept nothing but the addresses of the chain.
            "outgoing_interfaces": self.spec["address"],
            "listen_system_port_fallback": False,
            "max_retry_port_bind": 0,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "alert_mask": kinds.error_notification
            | kinds.status_notification
            | kinds.storage_notification
            | kinds.peer_notification
            | kinds.connect_notification,
        }
        self.session = libtorrent.session({**tuning.settings(self.spec, self.number), **fixed})
        self._allow([])
        self.handle = self.session.add_torrent(self._parameters())

    def _parameters(self) -> object:
        flags = self.lt.torrent_flags
        parameters = self.lt.load_torrent_buffer(self.data, _LIMITS)
        parameters.save_path = tree.aside(self.dest, "incoming")
        parameters.flags = (
            flags.apply_ip_filter
            | flags.disable_dht
            | flags.disable_lsd
            | flags.disable_pex
            | flags.override_trackers
            | flags.override_web_seeds
            # Pieces become whole one after the other, so that the next host can have them at once.
            | flags.sequential_download
            # The survey has just read them.
            | flags.no_verify_files
        )
        self.numbers = self._file_numbers(parameters.ti.layout())
        parameters.renamed_files = dict(zip(self.numbers, (file.file for file in self.files)))
        parameters.have_pieces = [good for file in self.files for good in file.good]
        if self.spec["rate_limit"]:
            # Limits of the session spare peers of the local network; those of a torrent do not.
            share = max(1, self.spec["rate_limit"] // self.spec["processes"])
            parameters.upload_limit = parameters.download_limit = share
        return parameters

    def _file_numbers(self, storage: object) -> list[int]:
        """Return libtorrent's number of each file; its names may have been made fit for other systems."""
        real = [at for at in range(storage.num_files()) if not storage.file_flags(at) & storage.flag_pad_file]
        sizes = [storage.file_size(at) for at in real]
        firsts = [storage.file_offset(at) // self.piece for at in real]
        counted = [0]
        for file in self.files[:-1]:
            counted.append(counted[-1] + len(file.good))
        if sizes != [self.entries[path]["size"] for path in self.paths] or firsts != counted:
            raise LlmError(
                "libtorrent reads the torrent in another way",
                wanted=f"{len(self.paths)} files in the order of their names",
                found=f"{len(real)} files",
                remedy="use the version of libtorrent that this collection names",
            )
        return real

    def _allow(self, addresses: list[str]) -> None:
        """Close the session to all but ``addresses``; connections with others are cut."""
        rules = self.lt.ip_filter()
        for network in _EVERYWHERE:
            rules.add_rule(str(network[0]), str(network[-1]), _BLOCKED)
        for address in addresses:
            rules.add_rule(address, address, 0)
        self.session.set_ip_filter(rules)
        self.allowed = addresses

    def _close(self) -> None:
        """Let what was received reach the disk; what does not within STOP_S is received again next time."""
        if self.handle is not None and self.state["state"] == "sharing":
            self.session.pause()
            self.handle.flush_cache()
            self._await("cache_flushed_alert", lambda _alert: True, STOP_S)
        self._report()

    # What happens ---------------------------------------------------------------------------------------------------

    def _turn(self, seconds: float) -> None:
        """Wait for something to happen, at most ``seconds``; then see whether anything is due."""
        self.session.wait_for_alert(int(seconds * 1000))
        self._take_alerts()
        now = time.monotonic()
        if now >= self._due["look"]:
            self._due["look"] = now + LOOK_S
            self._look(now)
        if now >= self._due["status"]:
            self._due["status"] = now + STATUS_S
            self._report()

    def _take_alerts(self) -> None:
        for alert in self.session.pop_alerts():
            kind = type(alert).__name__
            if kind in ("file_error_alert", "torrent_error_alert"):
                raise self._disk_error(alert)
            if kind == "listen_failed_alert":
                raise LlmError(
                    f"{self.spec['address']} port {self.port} cannot be listened on",
                    wanted="an address of this host, and a port that is free",
                    found=alert.error.message(),
                    remedy="see what listens there (ss -ltnp), or set another port or address",
                )
            if kind == "peer_ban_alert":
                self.traffic.ban(alert.endpoint[0])
            if kind == "peer_connect_alert":
                self.traffic.meet(alert.endpoint[0])
            if kind in ("cache_flushed_alert", "file_renamed_alert", "file_rename_failed_alert"):
                self.arrived.append(alert)

    def _disk_error(self, alert: object) -> LlmError:
        ancestor = survey.existing(self.dest)
        space = os.statvfs(ancestor)
        free = space.f_bavail * space.f_frsize
        missing = self.state["bytes_total"] - self.state["bytes_done"]
        return LlmError(
            f"the weights cannot be written: {alert.message()[:300]}",
            wanted=f"room for {missing} more bytes of this group",
            found=f"{free} bytes free on the file system of {ancestor}",
            remedy="free space there or see what is wrong with the disk, then run this again; it goes on from here",
        )

    def _await(self, kind: str, fits: Callable[[object], bool], seconds: float) -> object | None:
        """Return the next alert of a kind that fits, None when it did not come in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for alert in self.arrived:
                if type(alert).__name__ in kind.split() and fits(alert):
                    self.arrived.remove(alert)
                    return alert
            self._turn(LOOK_S)
        return None

    def _look(self, now: float) -> None:
        """See who is connected and what came, and connect with whom the chain says."""
        peers = self.handle.get_peer_info()
        self.traffic.add(peers, self.lt.peer_info.remote_interested)
        if self.state["state"] != "sharing":
            if len(self.allowed) < len(self.hosts):
                self._allow(sorted(self.hosts))
            self._call_on()
            return
        if self._idle:
            self._wake()
        wanted = self.choice.step(now, self._links(peers))
        if wanted:
            self.traffic.take_from(wanted[-1])
        allowed = self.choice.allowed(wanted)
        if allowed != self.allowed:
            self._idle = not set(self.allowed) <= set(allowed)
            self._allow(allowed)
        self._connect({*wanted} - {peer.ip[0] for peer in peers}, now)
        self._call_on()

    def _call_on(self) -> None:
        """Tell the host behind that this one is there: libtorrent 2.1.1 looks for hosts only once a second."""
        for address in self.behind:
            self.handle.connect_peer((address, self.port))
        self.behind = []

    def _wake(self) -> None:
        """Ask anew for what had been asked of a host that was cut off.

        libtorrent 2.1.1 asks a host when it hears of a piece, and not when a piece is free to be asked for again.
        """
        self._idle = False
        self.handle.set_flags(self.lt.torrent_flags.upload_mode)
        self.handle.unset_flags(self.lt.torrent_flags.upload_mode)

    def _connect(self, addresses: set[str], now: float) -> None:
        """Try the addresses whose turn it is, from scratch: libtorrent 2.1.1 gives one up that has failed twice.

        It forgets an address that it may not connect with for a moment, and what had failed with it.
        """
        due = {address for address in addresses if now - self.tried.get(address, -CONNECT_S) >= CONNECT_S}
        if due & self.tried.keys():
            allowed = self.allowed
            self._allow([address for address in allowed if address not in due])
            self._allow(allowed)
        for address in due:
            self.tried[address] = now
            self.handle.connect_peer((address, self.port))

    def _links(self, peers: list) -> dict[str, chain.Link]:
        pending = self.lt.peer_info.connecting | self.lt.peer_info.handshake
        links = {}
        for peer in peers:
            if not peer.flags & pending:
                links[peer.ip[0]] = chain.Link(
                    True, bool(peer.flags & self.lt.peer_info.interesting), peer.total_download
                )
        return links

    def _is_whole(self) -> bool:
        now = self.handle.status()
        return now.state in (now.states.seeding, now.states.finished)

    # The end of the transfer ------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Bring all to the disk and each file to its place; it is served all the while."""
        moving = [(path, file) for path, file in zip(self.paths, self.files) if not file.placed]
        if moving:
            self.state["state"] = "placing"
            self._report()
            self._flush()
            owner = tuple(self.spec["owner"])
            for path, file in moving:
                place.place(self.dest, self.entries[path], file.file, old=self.old, owner=owner, rename=self._rename)
        self.state.update(state="complete", bytes_done=self.state["bytes_total"])
        self._report()
        os.kill(os.getppid(), signal.SIGUSR1)

    def _flush(self) -> None:
        self.handle.flush_cache()
        if self._await("cache_flushed_alert", lambda _alert: True, FLUSH_S) is None:
            raise LlmError(
                f"the disk of {self.dest} does not take what was received",
                wanted=f"the end of the write queue within {FLUSH_S:.0f} s",
                found="a queue that is not empty",
                remedy="see what is wrong with the disk (dmesg), then run this again",
            )

    def _rename(self, staged: str, target: str) -> None:
        """Move a file through libtorrent, which goes on reading it under its new name."""
        number = next(at for at, file in zip(self.numbers, self.files) if file.file == staged)
        self.handle.rename_file(number, target)
        answer = self._await(
            "file_renamed_alert file_rename_failed_alert", lambda alert: alert.index == number, RENAME_S
        )
        if type(answer).__name__ != "file_renamed_alert":
            raise LlmError(
                f"{target} cannot be put in place",
                wanted="a rename within one file system",
                found=answer.error.message() if answer else f"no answer within {RENAME_S:.0f} s",
                remedy="see what is wrong with the file system, then run this again",
            )

    # What others see ----------------------------------------------------------------------------------------------

    def _report(self) -> None:
        if self.handle is not None:
            now = self.handle.status()
            self.state.update(
                bytes_received=now.total_download,
                bytes_sent=now.total_upload,
                rate=now.download_payload_rate,
                peers=self.traffic.peers(now.total_payload_download, now.total_payload_upload),
            )
            if self.state["state"] == "sharing":
                self.state["bytes_done"] = max(self.state["bytes_done"], self._done(now))
        if self.state["state"] not in status.ENDED:
            self.state["seconds"] = round(time.monotonic() - self.began, 3)
        status.write(self.dest, self.number, self.state)

    def _done(self, now: object) -> int:
        # Bytes of blocks that are not proved yet are counted by libtorrent; the last piece of a file may be short.
        return min(now.total_wanted_done, self.state["bytes_total"])

    def fail(self, error: Exception) -> None:
        """Note why this worker cannot go on."""
        self.state = status.fail(self.state, error)
        status.write(self.dest, self.number, self.state)


class Traffic:
    """Bytes of payload that each host brought and took, whatever connections they came over.

    :param hosts: names by address, those before this host in the chain first
    :param before: how many those are
    """

    def __init__(self, hosts: dict[str, str], before: int) -> None:
        self.hosts = hosts
        self._above = set(list(hosts)[:before])
        self._most = {address: (0, 0) for address in hosts}
        self._there: set[str] = set()
        self._asking: set[str] = set()
        self._banned: set[str] = set()
        self._met = ["", ""]

    def add(self, peers: list, interested: int) -> None:
        """Take the counts of the connections that there are.

        :param interested: the flag of a peer that lacks what this host has
        """
        self._there = {peer.ip[0] for peer in peers} & set(self.hosts)
        self._asking = {peer.ip[0] for peer in peers if peer.flags & interested} & self._there
        for peer in peers:
            if peer.ip[0] in self._there:
                # libtorrent goes on counting where an earlier connection with the same peer has ended.
                most = self._most[peer.ip[0]]
                self._most[peer.ip[0]] = (max(most[0], peer.total_download), max(most[1], peer.total_upload))

    def meet(self, address: str) -> None:
        """Note a new connection, which may be over before anybody looks at it."""
        if address in self.hosts and address not in self._above:
            self._met[1] = address

    def take_from(self, address: str) -> None:
        """Note whom the chain has chosen to take from."""
        self._met[0] = address

    def ban(self, address: str) -> None:
        """Note that a host brought wrong data."""
        self._banned |= {address} & set(self.hosts)

    def peers(self, received: int, sent: int) -> list[dict]:
        """Return {host, received, sent, connected, asking, banned} of every host with which there was anything.

        :param received: payload bytes of all; what came since a connection was last looked at is given to the host
            that was chosen to take from
        :param sent: likewise, for the host behind this one that was met last
        """
        counts = {address: list(most) for address, most in self._most.items()}
        for way, total in enumerate((received, sent)):
            if self._met[way]:
                counts[self._met[way]][way] += max(0, total - sum(count[way] for count in counts.values()))
        found = []
        for address, host in self.hosts.items():
            flags = {
                "connected": address in self._there,
                "asking": address in self._asking,
                "banned": address in self._banned,
            }
            if any(counts[address]) or any(flags.values()):
                found.append({"host": host, "received": counts[address][0], "sent": counts[address][1], **flags})
        return found


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
