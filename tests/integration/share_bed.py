# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that share weights: network namespaces of testbed/links.py, in each the agent as it runs on a server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.baremetal.llm.plugins.module_utils.weights import (
    hashing,
    lockfile,
    merkle,
    torrent,
    tree,
)
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import status
from ansible_collections.baremetal.llm.tests.testbed.links import Links

# Where the wheel of libtorrent is unpacked: the development environment has it.
LIBRARY = os.environ.get("LLM_LIBTORRENT") or sysconfig.get_paths()["platlib"]
PORT = 36900
# Far above what any of this takes: a state that is not reached until then never is.
DEADLINE_S = 90.0
_AGENT = (
    "import sys; from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import agent;"
    "sys.exit(agent.main(sys.argv[1]))"
)


class Model:
    """Files with known content, their lock with merkle roots, and their torrents."""

    def __init__(self, folder: Path, sizes: dict[str, int], seed: int = 1) -> None:
        self.folder = folder
        for path, size in sizes.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(hashlib.shake_256(f"{seed} {path}".encode()).digest(size))
        self.total = sum(sizes.values())
        self.piece = merkle.piece_bytes(self.total)
        found = {path: hashing.digest_file(str(folder / path), piece=self.piece) for path in sizes}
        files = [
            {"path": path, "size": digest.size, "sha256": digest.sha256, "merkle": digest.merkle}
            for path, digest in found.items()
        ]
        self.lock = lockfile.check({"format": 1, "model": "test", "revision": "1", "files": files})
        self.layers = {path: digest.layer for path, digest in found.items()}

    def torrents(self, folder: Path, processes: int) -> list[str]:
        """Write the torrents for so many processes, and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, group in enumerate(torrent.groups(self.lock, processes)):
            path = folder / f"{number}.torrent"
            path.write_bytes(torrent.build(self.lock, group, self.layers, self.piece))
            paths.append(str(path))
        return paths


class Host:
    """One host of the bed: its folder, and its agent while that runs."""

    def __init__(self, bed: Bed, index: int) -> None:
        self.bed, self.index, self.name = bed, index, f"n{index}"
        self.folder = bed.folder / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dest = self.folder / "model"
        self._spec = self.folder / "spec.json"
        self.process: subprocess.Popen | None = None
        self._counted = {"rx": 0, "tx": 0}

    def hold(self, *paths: str) -> Host:
        """Lay down files of the model, all of them where none is named."""
        for path in paths or [entry["path"] for entry in self.bed.model.lock["files"]]:
            (self.dest / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.bed.model.folder / path, self.dest / path)
        return self

    def start(self, **changes: object) -> Host:
        """Start the agent; ``changes`` are keys of its spec."""
        spec = {**self.bed.spec(self.index), "dest": str(self.dest), **changes}
        self._spec.write_text(json.dumps(spec), encoding="utf-8")
        self._counted = self.bed.links.counters(self.index)
        status.clear(str(self.dest))
        self.process = self.again()
        return self

    def again(self) -> subprocess.Popen:
        """Start an agent with the spec that the host has, whether another one runs or not."""
        with (self.folder / "agent.log").open("ab") as log:
            return self.bed.links.popen(
                self.index, [sys.executable, "-c", _AGENT, str(self._spec)], stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End every process of the host at once, as a power cut does to what they know."""
        end = time.monotonic() + DEADLINE_S
        while pids := self.pids():
            assert time.monotonic() < end, f"{self.name}: {pids} do not end"
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if self.process:
                self.process.poll()
            time.sleep(0.01)
        if self.process:
            self.process.wait(DEADLINE_S)

    def pids(self) -> list[int]:
        """Return the processes in the host's namespace."""
        name = f"{self.bed.links.name}-{self.index}"
        said = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True).stdout
        return [int(word) for word in said.split()]

    def stop(self) -> int:
        """Ask the agent to end, as a service manager does, and return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    @property
    def state(self) -> dict:
        """What the agent says."""
        return status.read(str(self.dest))

    def received(self) -> int:
        """Return the bytes that came over the wire since the agent was started last."""
        return self.bed.links.counters(self.index)["rx"] - self._counted["rx"]

    def sent(self) -> int:
        """Return the bytes that went over the wire since the agent was started last."""
        return self.bed.links.counters(self.index)["tx"] - self._counted["tx"]

    def inodes(self) -> dict[str, int]:
        """Return the inode of each file: another one is another copy."""
        return {str(path.relative_to(self.dest)): path.stat().st_ino for path in self.dest.rglob("*")}

    def log(self) -> str:
        """Return what the agent wrote."""
        return (self.folder / "agent.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, what: str, fits: Callable[[dict], bool]) -> dict:
        """Return the status as soon as it fits."""
        end = time.monotonic() + DEADLINE_S
        while True:
            state = self.state
            if state["state"] and fits(state):
                return state
            ended = self.process.poll() is not None
            assert not ended and time.monotonic() < end, f"{self.name} waits for {what}: {state} {self.log()[-2000:]}"
            time.sleep(0.02)

    def complete(self) -> dict:
        """Return the status once all files are in place."""
        return self.wait("all", lambda state: state["state"] == "complete")

    def until(self, count: float) -> None:
        """Wait until so many bytes came over the wire since the start."""
        end = time.monotonic() + DEADLINE_S
        while self.received() < count:
            assert time.monotonic() < end, f"{self.name} has received {self.received()} of {count}: {self.state}"
            time.sleep(0.02)

    def sound(self) -> bool:
        """True when sha256sum finds every file as locked, and nothing else lies there."""
        entries = self.bed.model.lock["files"]
        if not self.dest.is_dir():
            return False
        sums = "".join(f"{entry['sha256']}  {entry['path']}\n" for entry in entries)
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet"],
            cwd=self.dest,
            input=sums,
            capture_output=True,
            text=True,
            check=False,
        )
        there = sorted(entry.path for entry in tree.walk(str(self.dest)))
        return done.returncode == 0 and there == sorted(entry["path"] for entry in entries)


class Bed:
    """A chain of hosts for one model.

    :param folder: where the hosts' folders lie
    :param count: number of the last host; 0 is the seed
    """

    def __init__(self, links: Links, folder: Path, engine: str, model: Model, count: int, processes: int = 1) -> None:
        self.links, self.folder, self.engine, self.model = links, folder, engine, model
        self.processes = processes
        self.torrents = model.torrents(folder / "torrents", processes)
        self.chain = [{"host": f"n{index}", "address": links.address(index)} for index in range(count + 1)]
        self.hosts = [Host(self, index) for index in range(count + 1)]
        self.seed = self.hosts[0].hold()

    def close(self) -> None:
        """End what runs on the hosts."""
        for host in self.hosts:
            host.kill()

    def sound(self) -> list[str]:
        """Return the names of the hosts that have all files as locked and nothing else, see Host.sound."""
        return [host.name for host in self.hosts if host.sound()]

    def spec(self, index: int) -> dict:
        """Return the spec of a host's agent."""
        return {
            "lock": self.model.lock,
            "host": f"n{index}",
            "address": self.links.address(index),
            "port": PORT,
            "chain": self.chain,
            "engine": self.engine,
            "processes": self.processes,
            "torrents": self.torrents,
            "library": LIBRARY,
            "linger": 600,
            "speed_mbps": int(self.links.rate_mbit),
        }

    def start(self, *indexes: int) -> Bed:
        """Start the agents of these hosts, of all where none is named."""
        for index in indexes or range(len(self.hosts)):
            self.hosts[index].start()
        return self

    def __getitem__(self, index: int) -> Host:
        return self.hosts[index]


def make_hostile(host: Host, folder: Path) -> None:
    """Start on a host what serves other bytes than the lock names, and says of all of them that they are right."""
    bed = host.bed
    model = Model(folder, {entry["path"]: entry["size"] for entry in bed.model.lock["files"]}, seed=666)
    address = bed.links.address(host.index)
    if bed.engine == "rsync":
        note = folder.parent / "note"
        note.mkdir()
        files = [entry["path"] for entry in model.lock["files"]]
        (note / "note.json").write_text(json.dumps({"files": files, "hopeful": True}), encoding="utf-8")
        lines = [f"address = {address}", f"port = {PORT}", "uid = 0", "gid = 0"]
        lines += ["[weights]", f"path = {folder}", "[note]", f"path = {note}", ""]
        config = folder.parent / "hostile.conf"
        config.write_text("\n".join(lines), encoding="utf-8")
        argv = ["rsync", "--daemon", "--no-detach", f"--config={config}"]
    else:
        argv = [sys.executable, "-c", _HOSTILE, LIBRARY, f"{address}:{PORT}", bed.torrents[0], str(folder)]
    with (folder.parent / "hostile.log").open("wb") as log:
        bed.links.popen(host.index, argv, stdout=log, stderr=log)
    end = time.monotonic() + DEADLINE_S
    while not bed.links.run(host.index, ["ss", "-lntH", "sport", "=", str(PORT)]).stdout:
        assert time.monotonic() < end, (folder.parent / "hostile.log").read_text(encoding="utf-8")
        time.sleep(0.05)


_HOSTILE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import libtorrent as lt
off = ("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp", "enable_incoming_utp", "enable_outgoing_utp")
session = lt.session({"listen_interfaces": sys.argv[2], **dict.fromkeys(off, False)})
torrent = lt.load_torrent_file(sys.argv[3])
torrent.save_path = sys.argv[4]
files = torrent.ti.layout()
real = [at for at in range(files.num_files()) if not files.file_flags(at) & files.flag_pad_file]
torrent.renamed_files = {at: sys.argv[4] + "/" + files.file_path(at).split("/", 1)[1] for at in real}
# In seed mode libtorrent would look before it sends.
torrent.have_pieces = [True] * torrent.ti.num_pieces()
torrent.flags = lt.torrent_flags.no_verify_files
session.add_torrent(torrent)
while True:
    time.sleep(1)
"""


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 1]))
