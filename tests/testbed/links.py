# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts on one switch with links of a known rate, for transfers. LINKS.md says how they work.

with Links(8, rate_mbit=100) as links:
    server = links.popen(0, ["rsync", "--daemon", "--no-detach", ...])
    links.run(1, ["rsync", f"rsync://{links.address(0)}/weights/", "/tmp/1/"])
    print(links.counters(1))
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

# One file for each network that there is, locked by the process that made it. Whoever can lock it finds it left behind.
RECORDS = Path("/run/baremetal-llm-links")
NETNS = Path("/run/netns")
# Nothing outside can be reached from the namespaces, so the same addresses serve every network at once.
ADDRESS = "10.77.0.{}"
MOST_HOSTS = 250
# Small enough that a link is never faster than its rate for long, large enough for one segment of TCP of 64 KiB.
BURST = "128k"
# What waits at most at a link before packets are dropped.
QUEUE = "20ms"
# A namespace, and a process that was killed, end in the kernel's own time.
GONE_AFTER_S = 20.0
RUN_S = 60.0

_PREFIX = re.compile(r"[a-z]{1,6}\Z")


class LinksError(Exception):
    """The network cannot be made, changed or removed; the text says why."""


class Links:
    """Context manager: hosts 0 to ``count`` in network namespaces of their own, each with a link to one switch.

    :param count: number of the last host; there are ``count`` + 1
    :param rate_mbit: rate of each link in each direction in Mbit/s, headers included; 0 for no limit
    :param prefix: begins the names of the namespaces, 1 to 6 lower-case letters
    """

    def __init__(self, count: int, rate_mbit: float = 0, prefix: str = "links") -> None:
        if not _PREFIX.match(prefix) or not 0 <= count < MOST_HOSTS:
            raise LinksError(f"{count} hosts with the prefix {prefix!r}: 0 to {MOST_HOSTS - 1}, 1 to 6 letters")
        self.count = count
        self.rate_mbit = rate_mbit
        self.prefix = prefix
        self.name = ""
        self._record = -1
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> Links:
        if os.geteuid():
            raise LinksError("network namespaces need root")
        with _records():
            _remove_left_behind()
            self.name, self._record = _claim(self.prefix)
        try:
            for where, lines in plan(self.name, self.count).items():
                _run(["ip", *(["-n", where] if where else []), "-batch", "-"], "\n".join([*lines, ""]))
            if self.rate_mbit:
                for where, lines in shaping(self.name, self.count, self.rate_mbit).items():
                    _run(["tc", "-n", where, "-batch", "-"], "\n".join([*lines, ""]))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs on the hosts and remove them; again does no harm."""
        if self._record < 0:
            return
        try:
            with _records():
                _remove(self.name)
            for process in self._processes:
                process.wait(GONE_AFTER_S)
        finally:
            os.close(self._record)
            self._record = -1

    def address(self, host: int) -> str:
        """Return the host's IPv4 address."""
        return ADDRESS.format(self._known(host) + 1)

    def popen(self, host: int, argv: list[str], **options: object) -> subprocess.Popen:
        """Start ``argv`` on the host with the options of subprocess.Popen; it ends with the network at the latest."""
        process = subprocess.Popen(self._on(host, argv), **{"stdin": subprocess.DEVNULL, **options})
        self._processes.append(process)
        return process

    def run(self, host: int, argv: list[str], timeout: float = RUN_S) -> subprocess.CompletedProcess:
        """Run ``argv`` on the host and return what it printed and its status.

        :raises subprocess.TimeoutExpired: it did not end in ``timeout`` seconds; it was killed
        """
        return subprocess.run(
            self._on(host, argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )

    def counters(self, host: int) -> dict[str, int]:
        """Return the bytes that the host's interface has sent and received: {"tx", "rx"}.

        The kernel carries segments of up to 64 KiB over a cable like this one and counts one header for each of them:
        the figures are those of the data plus less than 1 %, while the link's rate counts every header.
        """
        where = _namespace(self.name, self._known(host))
        found = json.loads(_run(["ip", "-n", where, "-s", "-j", "link", "show", "eth0"]))
        return {side: found[0]["stats64"][side]["bytes"] for side in ("tx", "rx")}

    def set_down(self, host: int) -> None:
        """Pull the host's cable: nothing comes or goes, and no connection is told."""
        self._port(host, "down")

    def set_up(self, host: int) -> None:
        """Plug the host's cable in again."""
        self._port(host, "up")

    def drop(self, host: int, probability: float) -> None:
        """Lose packets that come to the host with ``probability`` from now on; 0 ends it."""
        where = self._on(host, ["iptables", "-w", "5"])
        _run([*where, "-F", "INPUT"])
        if probability:
            for index in range(self.count + 1):
                # A loss is one packet, as on a wire, and not the 64 KiB that the kernel would carry as one.
                end = _namespace(self.name, index)
                _run(["ip", "-n", end, "link", "set", "dev", "eth0", "gso_max_segs", "1"])
            chance = ["-m", "statistic", "--mode", "random", "--probability", f"{probability:.6f}"]
            _run([*where, "-A", "INPUT", *chance, "-j", "DROP"])

    def _port(self, host: int, state: str) -> None:
        _run(["ip", "-n", _namespace(self.name, "sw"), "link", "set", "dev", f"h{self._known(host)}", state])

    def _known(self, host: int) -> int:
        if not 0 <= host <= self.count:
            raise LinksError(f"there is no host {host}: 0 to {self.count}")
        return host

    def _on(self, host: int, argv: list[str]) -> list[str]:
        # nsenter becomes the program, so the process that is started is the one that is known.
        return ["nsenter", f"--net={NETNS / _namespace(self.name, self._known(host))}", "--", *argv]


def plan(name: str, count: int) -> dict[str, list[str]]:
    """Return lines for `ip -batch` by namespace, in their order; "" is the machine's own namespace."""
    switch = _namespace(name, "sw")
    plans = {
        "": [f"netns add {switch}"],
        switch: ["link add br0 type bridge stp_state 0 mcast_snooping 0", "link set dev br0 addrgenmode none up"],
    }
    for host in range(count + 1):
        own = _namespace(name, host)
        plans[""].append(f"netns add {own}")
        plans[""].append(f"link add h{host} netns {switch} type veth peer name eth0 netns {own}")
        plans[switch].append(f"link set dev h{host} addrgenmode none master br0 up")
        address = f"address add {ADDRESS.format(host + 1)}/24 dev eth0"
        plans[own] = ["link set dev lo up", address, "link set dev eth0 addrgenmode none up"]
    return plans


def shaping(name: str, count: int, rate_mbit: float) -> dict[str, list[str]]:
    """Return lines for `tc -batch` by namespace that hold both directions of each link to ``rate_mbit``."""
    kept = f"root tbf rate {round(rate_mbit * 1e6)}bit burst {BURST} latency {QUEUE}"
    hosts = range(count + 1)
    plans = {_namespace(name, host): [f"qdisc add dev eth0 {kept}"] for host in hosts}
    return {**plans, _namespace(name, "sw"): [f"qdisc add dev h{host} {kept}" for host in hosts]}


def _namespace(name: str, host: int | str) -> str:
    return f"{name}-{host}"


@contextlib.contextmanager
def _records():
    """Hold the records: nobody else makes or removes a network meanwhile."""
    RECORDS.mkdir(mode=0o700, exist_ok=True)
    with open(RECORDS / ".lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _claim(prefix: str) -> tuple[str, int]:
    """Return a name that nothing on this machine has, and its record, locked."""
    number = os.getpid()
    while True:
        name = f"{prefix}{number}"
        if not (RECORDS / name).exists() and not _namespaces(name):
            break
        number += 1
    record = os.open(RECORDS / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(record, fcntl.LOCK_EX)
    return name, record


def _remove_left_behind() -> None:
    for path in RECORDS.iterdir():
        if path.name.startswith("."):
            continue
        with open(path, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            _remove(path.name)


def _remove(name: str) -> None:
    """Kill what is in the network's namespaces by its number, remove them and, last, the record."""
    end = time.monotonic() + GONE_AFTER_S
    while pids := [int(word) for where in _namespaces(name) for word in _run(["ip", "netns", "pids", where]).split()]:
        if time.monotonic() > end:
            raise LinksError(f"processes {pids} of {name} do not end")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for where in _namespaces(name):
        _run(["ip", "netns", "delete", where])
    (RECORDS / name).unlink(missing_ok=True)


def _namespaces(name: str) -> list[str]:
    if not NETNS.is_dir():
        return []
    return sorted(path.name for path in NETNS.iterdir() if path.name.startswith(f"{name}-"))


def _run(argv: list[str], stdin: str = "") -> str:
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=RUN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LinksError(f"{argv[0]} cannot be run: {error}") from error
    if done.returncode:
        raise LinksError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
