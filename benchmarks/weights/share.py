# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One seed, N nodes, links of a known rate: the project's own agent, and rsync from the seed to all at once.

The floor is S/B, the time in which S bytes leave one link of rate B without any header; a plain copy takes 1.046 of it.
The agents of the nodes are up and wait, for their start on cores that they share here says nothing of hosts. The clock
runs from the start of the seed's agent until the status of the last node says that all is in place, proved and flushed.
Then every file of every node is read and compared.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "testbed"), str(Path(__file__).resolve().parent)]

import verify  # noqa: E402
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import seed, status  # noqa: E402
from links import Links  # noqa: E402

AGENT = "ansible_collections.baremetal.llm.plugins.module_utils.weights.share.agent"
# In memory, so that no disk is measured.
MEMORY = Path("/dev/shm")  # noqa: S108
PORT = 36900
MIB = 1 << 20
# Of a set of 16 files, in bytes: what lies beside the shards of a model. The shards share the rest evenly.
SMALL = (700, 12_345, 33_000, 1_800_000)
SHARDS = 12
POLL_S = 0.05
# Against hanging: a healthy run takes a little more than the floor.
MOST_FLOORS, MOST_START_S = 3.0, 60.0


class Weights(NamedTuple):
    """A set of weights on the seed: its folder, its lock with merkle roots, its torrents, the bytes of all files."""

    path: Path
    lock: dict
    torrents: list[str]
    size: int


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Give an empty folder in memory, removed at the end with what a killed run has left."""
    for left in MEMORY.glob("llm-share-bench-*"):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            shutil.rmtree(left)
    folder = MEMORY / f"llm-share-bench-{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def make_weights(folder: Path, mib: int, processes: int = 1) -> Weights:
    """Write 16 files of ``mib`` MiB in all below ``folder``/model, and what the seed makes of them."""
    path = folder / "model"
    path.mkdir(parents=True)
    rest = mib * MIB - sum(SMALL)
    sizes = [*SMALL, *[rest // SHARDS] * SHARDS]
    entries = [verify.make_shard(path / f"model-{at:05}-of-00016.safetensors", size) for at, size in enumerate(sizes)]
    lock = {"format": 1, "model": "bench", "revision": "1", "files": entries}
    made = seed.make(str(path), lock, processes)
    return Weights(
        path, made["lock"], [one["path"] for one in made["torrents"]], sum(entry["size"] for entry in entries)
    )


class Chain:
    """The agents of a seed and of its nodes on hosts of a network.

    :param library: folder with the unpacked wheel
    """

    def __init__(self, links: Links, folder: Path, weights: Weights, library: str, rate_mbit: float) -> None:
        self.links, self.weights, self.folder = links, weights, folder
        self.places = [weights.path, *[folder / f"node-{host}" / "model" for host in range(1, links.count + 1)]]
        self.spec = {
            "lock": weights.lock,
            "port": PORT,
            "chain": [{"host": f"node-{host}", "address": links.address(host)} for host in range(links.count + 1)],
            "engine": "libtorrent",
            "processes": len(weights.torrents),
            "torrents": weights.torrents,
            "library": library,
            "rate_limit": 0,
            "owner": [-1, -1],
            "linger": 600,
            "speed_mbps": int(rate_mbit),
            "shared_token": "",
        }
        self.agents: dict[int, subprocess.Popen] = {}

    def start(self, host: int) -> None:
        """Start the agent of a host."""
        dest = self.places[host]
        dest.parent.mkdir(exist_ok=True)
        spec = self.folder / f"spec-{host}.json"
        own = {"dest": str(dest), "host": f"node-{host}", "address": self.links.address(host)}
        spec.write_text(json.dumps({**self.spec, **own}), encoding="utf-8")
        program = f"import sys; from {AGENT} import main; sys.exit(main(sys.argv[1]))"
        with open(self.folder / f"agent-{host}.log", "wb") as log:
            self.agents[host] = self.links.popen(
                host, [sys.executable, "-c", program, str(spec)], stdout=log, stderr=log, cwd=ROOT
            )

    def await_state(self, hosts: list[int], states: tuple[str, ...], seconds: float) -> dict[int, float]:
        """Return when each host came into one of ``states``; whatever fails or lasts longer ends the benchmark."""
        came: dict[int, float] = {}
        end = time.monotonic() + seconds
        while len(came) < len(hosts):
            for host in hosts:
                found = status.read(str(self.places[host]))
                if found["state"] in states:
                    came.setdefault(host, time.monotonic())
                if found["state"] == status.FAILED or self.agents[host].poll() is not None or time.monotonic() > end:
                    log = (self.folder / f"agent-{host}.log").read_text(errors="replace")
                    sys.exit(f"node {host} of {len(self.agents) - 1}: {found}\n{log[-3000:]}")
            time.sleep(POLL_S)
        return came

    def stop(self) -> dict[int, float]:
        """End all agents and return the CPU seconds that each of them used, its workers included."""
        for process in self.agents.values():
            process.send_signal(signal.SIGTERM)
        return {host: reaped(process) for host, process in self.agents.items()}


def reaped(process: subprocess.Popen) -> float:
    """Wait for the end of ``process``; return its CPU seconds and those of the children that it waited for."""
    _pid, how, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(how)
    return usage.ru_utime + usage.ru_stime


class Machine:
    """How busy this machine is from its making to ``share``."""

    def __init__(self) -> None:
        self.load = os.getloadavg()[0]
        self.cores = os.cpu_count() or 1
        self._before = self._ticks()

    def share(self, seconds: float, own_cpu: float) -> dict:
        """Return {load, busy, own}: of all cores, the parts that were busy and that were ours."""
        idle, every = (now - then for now, then in zip(self._ticks(), self._before, strict=True))
        busy = 1 - idle / every if every else 0.0
        return {"load": round(self.load, 1), "busy": round(busy, 2), "own": round(own_cpu / seconds / self.cores, 2)}

    def _ticks(self) -> tuple[int, int]:
        # Line "cpu" of proc_stat(5): user nice system idle iowait irq softirq steal.
        fields = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)


def traffic(links: Links) -> list[dict[str, int]]:
    return [links.counters(host) for host in range(links.count + 1)]


def grown(before: list[dict[str, int]], after: list[dict[str, int]]) -> list[dict[str, int]]:
    return [{side: now[side] - then[side] for side in now} for then, now in zip(before, after, strict=True)]


def refuse_wrong(weights: Weights, places: list[Path]) -> None:
    """End the benchmark unless every file of every place is as the lock says, read with nothing of the project's."""

    def proved(place: Path, entry: dict) -> bool:
        with open(place / entry["path"], "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == entry["sha256"]

    wanted = [(place, entry) for place in places for entry in weights.lock["files"]]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda one: proved(*one), wanted))
    if not all(results):
        sys.exit(f"{results.count(False)} of {len(results)} files are not what was shared")


def share(nodes: int, mib: int, rate_mbit: float, library: str, processes: int = 1) -> dict:
    """Share ``mib`` MiB with ``nodes`` nodes over links of ``rate_mbit``; return what it took."""
    with workplace() as folder, Links(nodes, rate_mbit, prefix="bshare") as links:
        weights = make_weights(folder / "seed", mib, processes)
        chain = Chain(links, folder, weights, library, rate_mbit)
        receivers = list(range(1, nodes + 1))
        for host in receivers:
            chain.start(host)
        chain.await_state(receivers, ("sharing",), MOST_START_S)
        machine, before = Machine(), traffic(links)
        floor = weights.size * 8 / (rate_mbit * 1e6) if rate_mbit else 0.0
        begin = time.monotonic()
        chain.start(0)
        came = chain.await_state(receivers, ("complete",), MOST_START_S + MOST_FLOORS * floor)
        seconds = max(came.values()) - begin
        moved = grown(before, traffic(links))
        cpu = chain.stop()
        refuse_wrong(weights, chain.places[1:])
        return {
            "nodes": nodes,
            "bytes": weights.size,
            "rate_mbit": rate_mbit,
            "floor": floor,
            "seconds": seconds,
            "times": [came[host] - begin for host in receivers],
            "seed_nic": moved[0]["tx"],
            "max_nic": max(one["rx"] for one in moved[1:]),
            "cpu_seed": cpu[0],
            "cpu_node": statistics.median(cpu[host] for host in receivers),
            "cpu_all": sum(cpu.values()),
            "machine": machine.share(seconds, sum(cpu.values())),
        }


class RsyncDaemon:
    """An rsync daemon on host 0 that gives out one folder."""

    def __init__(self, links: Links, folder: Path, source: Path) -> None:
        self.links = links
        config = folder / "rsyncd.conf"
        config.write_text(
            f"port = {PORT}\nuse chroot = no\nuid = 0\ngid = 0\nlock file = {folder}/rsyncd.lock\n"
            f"max connections = 1000\n[weights]\npath = {source}\nread only = yes\n",
            encoding="utf-8",
        )
        self.process = links.popen(0, ["rsync", "--daemon", "--no-detach", f"--config={config}"])
        # It says nothing when it is ready: a list of its modules is the first answer that it gives.
        end = time.monotonic() + MOST_START_S
        while links.run(1, ["rsync", f"rsync://{links.address(0)}:{PORT}/"]).returncode:
            if time.monotonic() > end:
                sys.exit("the rsync daemon does not answer")
            time.sleep(POLL_S)

    def pull(self, host: int, target: Path) -> subprocess.Popen:
        """Start a pull of everything by a host."""
        target.mkdir(parents=True)
        url = f"rsync://{self.links.address(0)}:{PORT}/weights/"
        return self.links.popen(host, ["rsync", "-rW", "--inplace", url, str(target)])

    def stop(self) -> float:
        """End it and return its CPU seconds."""
        self.process.terminate()
        return reaped(self.process)


def star(nodes: int, mib: int, rate_mbit: float) -> dict:
    """Copy ``mib`` MiB from the seed to all nodes at once by rsync; return what it took."""
    with workplace() as folder, Links(nodes, rate_mbit, prefix="bstar") as links:
        weights = make_weights(folder / "seed", mib)
        daemon = RsyncDaemon(links, folder, weights.path)
        machine, before = Machine(), traffic(links)
        places = [folder / f"node-{host}" for host in range(1, nodes + 1)]
        begin = time.monotonic()
        pulls = [daemon.pull(host, place) for host, place in enumerate(places, 1)]
        cpu = [reaped(pull) for pull in pulls]
        seconds = time.monotonic() - begin
        if any(pull.returncode for pull in pulls):
            sys.exit("a pull by rsync failed")
        moved = grown(before, traffic(links))
        cpu_seed = daemon.stop()
        refuse_wrong(weights, places)
        return {
            "nodes": nodes,
            "bytes": weights.size,
            "rate_mbit": rate_mbit,
            "floor": weights.size * 8 / (rate_mbit * 1e6) if rate_mbit else 0.0,
            "seconds": seconds,
            "seed_nic": moved[0]["tx"],
            "max_nic": max(one["rx"] for one in moved[1:]),
            "cpu_seed": cpu_seed,
            "cpu_node": statistics.median(cpu),
            "cpu_all": cpu_seed + sum(cpu),
            "machine": machine.share(seconds, cpu_seed + sum(cpu)),
        }
