# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts of a chain on loopback addresses, each with the agent's real processes, libtorrent and a disk."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import atomic
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import (
    exclusive,
    lockfile,
    merkle,
    patch,
    place,
    torrent,
    tree,
    verify,
)
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import agent, control, seed, status

MIB = 1 << 20
PORT = 29700
DEADLINE_S = 60
SIZES = {
    "model-00001-of-00002.data": 6 * MIB + 5,
    "model-00002-of-00002.data": 3 * MIB,
    "config.json": 0,
    "empty/.keep": 0,
    "deep/er/tokenizer.model": 300_001,
    "deep/one": 1,
}
# Above the write queue of 8 MiB (for 100 Mbit/s), which one that is killed has not written.
LARGE = {"large.data": 40 * MIB}
QUEUE = 8 * MIB
PIECE = merkle.piece_bytes(sum(SIZES.values()))
RUN = (
    "import sys; from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import agent; "
    "sys.exit(agent.main(sys.argv[1]))"
)
# Serves a torrent, or takes it, as a program that nobody wrote for this: (library, torrent, folder, own address, port,
# "have" or "lack", address to connect with or "").
OUTSIDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import libtorrent
address, port = sys.argv[4], int(sys.argv[5])
session = libtorrent.session({
    "listen_interfaces": f"{address}:{port}", "outgoing_interfaces": address, "enable_dht": False, "enable_lsd": False,
    "enable_upnp": False, "enable_natpmp": False, "unchoke_slots_limit": -1, "enable_outgoing_utp": False,
})
with open(sys.argv[2], "rb") as stream:
    parameters = libtorrent.load_torrent_buffer(stream.read())
parameters.save_path = sys.argv[3]
parameters.flags = libtorrent.torrent_flags.no_verify_files
if sys.argv[6] == "have":
    parameters.have_pieces = [True] * parameters.ti.num_pieces()
handle = session.add_torrent(parameters)
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    if sys.argv[7]:
        handle.connect_peer((sys.argv[7], port))
    time.sleep(0.2)
    now = handle.status()
    print(now.total_payload_download, now.total_payload_upload, flush=True)
"""


def contents(sizes: dict[str, int]) -> dict[str, bytes]:
    made = {name: hashlib.shake_128(name.encode()).digest(size) for name, size in sizes.items()}
    made["config.json"] = b'{"torch_dtype": "bfloat16"}\n'
    return made


@pytest.fixture(scope="session")
def library():
    """Folder from which libtorrent is imported."""
    return str(Path(importlib.util.find_spec("libtorrent").origin).parents[1])


class Site:
    """A seed with weights, and any number of other hosts on 127.0.0.1 to 127.0.0.9."""

    def __init__(
        self, folder: Path, library: str, processes: int = 1, patched: bool = True, sizes: dict[str, int] | None = None
    ) -> None:
        self.folder, self.library = folder, library
        self.contents = contents(SIZES if sizes is None else sizes)
        self.running: list[subprocess.Popen] = []
        self.write(1)
        entries = [
            {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in self.contents.items()
        ]
        self.lock = lockfile.check({"model": "toy", "revision": "r1", "files": entries})
        if patched:
            changed = patch.plan(self.lock, "config.json", {"torch_dtype": "float16"}, self.contents["config.json"])
            self.lock["files"] = [changed if e["path"] == "config.json" else e for e in self.lock["files"]]
            original = Path(tree.aside(str(self.dest(1)), "originals")) / "config.json"
            original.parent.mkdir()
            shutil.move(self.dest(1) / "config.json", original)
            place.finish(str(self.dest(1)), self.lock)
        made = seed.make(str(self.dest(1)), self.lock, processes)
        self.lock, self.torrents = made["lock"], [entry["path"] for entry in made["torrents"]]
        self.token = made["shared_token"]

    def dest(self, number: int) -> Path:
        return self.folder / f"host{number}" / "weights"

    def write(self, number: int) -> None:
        for name, data in self.contents.items():
            path = self.dest(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def spec(self, number: int, hosts: int, **changes: object) -> dict:
        chain = [{"host": f"host{at}", "address": f"127.0.0.{at}"} for at in range(1, hosts + 1)]
        return {
            "dest": str(self.dest(number)),
            "lock": self.lock,
            "host": f"host{number}",
            "address": f"127.0.0.{number}",
            "port": PORT,
            "chain": chain,
            "processes": len(self.torrents),
            "torrents": self.torrents,
            "library": self.library,
            **changes,
        }

    def start(self, spec: dict) -> subprocess.Popen:
        self.dest(int(spec["host"][4:])).parent.mkdir(exist_ok=True)
        if not exclusive.holder(spec["dest"]):
            status.clear(spec["dest"])  # else what an earlier run has left would be taken for this one's
        file = self.folder / f"{spec['host']}.json"
        file.write_text(json.dumps(spec), encoding="utf-8")
        process = subprocess.Popen([sys.executable, "-c", RUN, str(file)], start_new_session=True)
        self.running.append(process)
        return process

    def outsider(self, torrent_file: str, folder: Path, address: str, does: str, towards: str) -> subprocess.Popen:
        folder.mkdir(parents=True, exist_ok=True)
        argv = [self.library, torrent_file, str(folder), address, str(PORT), does, towards]
        process = subprocess.Popen([sys.executable, "-c", OUTSIDER, *argv], stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    def state(self, number: int) -> dict:
        return status.read(str(self.dest(number)))

    def wait(self, *numbers: int, state: str = "complete") -> list[dict]:
        """Wait until the hosts are in this state; return their status as it is then."""
        until(lambda: all(self.state(number)["state"] == state for number in numbers), lambda: self.dump(numbers))
        time.sleep(1.2)  # the counts of those who served are written once a second
        return [self.state(number) for number in numbers]

    def dump(self, numbers: tuple[int, ...]) -> str:
        return "\n".join(json.dumps(self.state(number)) for number in numbers)

    def is_whole(self, number: int) -> bool:
        found = verify.verify(str(self.dest(number)), self.lock, deep=True, save=False)
        return found["verified"]

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(DEADLINE_S)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, signal.SIGKILL)


def until(true, told=lambda: "") -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, told()
        time.sleep(0.05)


@pytest.fixture
def make_site(tmp_path, library):
    """Function that makes a site; its processes are ended after the test."""
    made = []

    def make(**how: object) -> Site:
        made.append(Site(tmp_path / f"site{len(made)}", library, **how))
        return made[-1]

    yield make
    for site in made:
        site.end()


@pytest.fixture
def site(make_site):
    """One site with one group of files."""
    return make_site()


def total(site: Site) -> int:
    return lockfile.total_bytes(site.lock)


def flip(path: Path, position: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("processes", [1, 3])
def test_every_link_of_a_chain_carries_every_byte_once(make_site, processes):
    site = make_site(processes=processes)
    for number in (1, 2, 3, 4):
        site.start(site.spec(number, 4))
    found = site.wait(1, 2, 3, 4)
    for number, now in enumerate(found, 1):
        assert site.is_whole(number)
        most = 0.05 * total(site) if number == 1 else 1.05 * total(site)
        assert now["bytes_received"] <= most
        assert now["bytes_total"] == now["bytes_done"] == total(site)
        assert now["bytes_resumed"] == (total(site) if number == 1 else 0)
    assert found[0]["bytes_sent"] <= 1.05 * total(site)
    assert [peer["host"] for peer in found[0]["peers"]] == ["host2"]
    assert {peer["host"]: peer["received"] for peer in found[2]["peers"]} == {"host2": total(site), "host4": 0}


def test_files_are_put_in_place_with_modes_patches_and_notes(site):
    for number in (1, 2):
        site.start(site.spec(number, 2))
    site.wait(1, 2)
    dest = str(site.dest(2))
    assert json.loads((site.dest(2) / "config.json").read_text())["torch_dtype"] == "float16"
    assert (site.dest(2) / "empty/.keep").read_bytes() == b""
    for entry in tree.walk(dest):
        assert stat.S_IMODE(os.lstat(os.path.join(dest, entry.path)).st_mode) == place.FILE_MODE
    assert not os.path.lexists(tree.aside(dest, "incoming"))
    found = verify.verify(dest, site.lock, piece=PIECE)
    # All but the patched file, which was written a moment ago and must be read.
    assert found["verified"]
    assert found["bytes_hashed"] <= len(site.contents["config.json"]) + 100
    assert lockfile.identity(place.installed(dest)) == lockfile.identity(site.lock)


def test_a_flipped_byte_costs_one_piece_and_the_live_file_is_not_written(site):
    for number in (1, 2):
        site.start(site.spec(number, 2))
    site.wait(1, 2)
    site.end()
    damaged = site.dest(2) / "model-00001-of-00002.data"
    flip(damaged, 3 * MIB + 17)
    with open(damaged, "rb") as reader:
        before = reader.read()
        for number in (1, 2):
            site.start(site.spec(number, 2))
        found = site.wait(1, 2)[1]
        reader.seek(0)
        assert reader.read() == before
    assert [peer["received"] for peer in found["peers"]] == [PIECE]
    assert found["bytes_resumed"] == total(site) - PIECE
    assert site.is_whole(2)


def test_one_that_is_killed_goes_on_where_it_was(make_site):
    site = make_site(patched=False, sizes=LARGE)
    link = {"speed_mbps": 100}
    site.start(site.spec(1, 3, rate_limit=10 * MIB, **link))
    victim = site.start(site.spec(2, 3, **link))
    site.start(site.spec(3, 3, **link))
    until(lambda: site.state(2)["bytes_done"] >= 0.4 * total(site), lambda: site.dump((1, 2, 3)))
    done = site.state(2)["bytes_done"]
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    site.start(site.spec(2, 3, **link))
    found = site.wait(2, 3)[0]
    assert found["bytes_resumed"] >= done - QUEUE - 2 * PIECE
    assert found["bytes_resumed"] + found["bytes_received"] <= 1.01 * total(site)
    assert site.is_whole(2)
    assert site.is_whole(3)


def test_workers_die_with_an_agent_that_is_killed(site):
    process = site.start(site.spec(1, 2))
    site.wait(1)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert workers
    assert Path(f"/proc/{workers[0]}/comm").read_text() == "llm-share\n"
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not exclusive.holder(str(site.dest(1))))
    process.wait()


def test_a_worker_that_dies_is_replaced(site):
    process = site.start(site.spec(1, 2))
    site.wait(1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    first = children.read_text().split()
    os.kill(int(first[0]), signal.SIGSEGV)
    until(lambda: children.read_text().split() not in ([], first))
    site.start(site.spec(2, 2))
    site.wait(1, 2)
    assert site.is_whole(2)


def test_a_dead_host_in_the_middle_is_gone_around_and_a_late_one_joins(site):
    site.start(site.spec(1, 4))
    site.start(site.spec(4, 4))
    found = site.wait(1, 4)[1]
    assert {peer["host"] for peer in found["peers"]} == {"host1"}
    site.start(site.spec(2, 4))
    assert site.wait(2)[0]["bytes_received"] <= 1.05 * total(site)
    assert site.is_whole(2)
    assert site.is_whole(4)


def test_a_host_goes_back_to_the_one_before_it(make_site):
    site = make_site(patched=False)
    site.start(site.spec(1, 3, rate_limit=MIB))
    site.start(site.spec(3, 3))
    until(lambda: site.state(3)["bytes_done"] > 0, lambda: site.dump((1, 3)))
    site.start(site.spec(2, 3))
    found = site.wait(1, 2, 3)
    received = {peer["host"]: peer["received"] for peer in found[2]["peers"]}
    assert received["host1"] > 0
    assert received["host2"] > 0
    assert found[2]["bytes_received"] <= 1.05 * total(site)
    assert site.is_whole(3)


def test_wrong_data_are_refused_and_the_next_host_is_asked(make_site):
    site = make_site(patched=False)
    site.start(site.spec(1, 3))
    site.wait(1)
    folder = site.folder / "hostile"
    name = folder / lockfile.identity(site.lock)[:16]
    for path, data in site.contents.items():
        (name / path).parent.mkdir(parents=True, exist_ok=True)
        (name / path).write_bytes(bytes(len(data)))
    site.outsider(site.torrents[0], folder, "127.0.0.2", "have", "")
    site.start(site.spec(3, 3))
    found = site.wait(3)[0]
    peers = {peer["host"]: peer for peer in found["peers"]}
    assert peers["host2"]["banned"]
    assert peers["host1"]["received"] > 0
    assert site.is_whole(3)


def test_a_stranger_gets_nothing(site):
    site.start(site.spec(1, 2))
    site.wait(1)
    stranger = site.outsider(site.torrents[0], site.folder / "stranger", "127.0.0.9", "lack", "127.0.0.1")
    member = site.outsider(site.torrents[0], site.folder / "member", "127.0.0.2", "lack", "127.0.0.1")
    until(lambda: int(member.stdout.readline().split()[0]) >= PIECE)
    for process in (stranger, member):
        process.kill()
    rest = stranger.stdout.read().splitlines()
    assert rest
    assert {line.split()[0] for line in rest} == {"0"}


def test_a_lock_that_was_tampered_with_is_refused_before_any_byte(site):
    site.start(site.spec(1, 2))
    for key, value in (("merkle", "0" * 64), ("size", 4 * MIB), ("sha256", "1" * 64)):
        lock = json.loads(json.dumps(site.lock))
        next(entry for entry in lock["files"] if entry["size"] == 3 * MIB)[key] = value
        process = site.start(site.spec(2, 2, lock=lock))
        assert process.wait(DEADLINE_S) == 1
        now = site.state(2)
        assert now["state"] == "failed"
        assert now["error"]["msg"] == "a torrent does not belong to the lock"
        assert now["bytes_received"] == 0
        assert not site.dest(2).exists()


def test_files_of_nobody_we_know_are_refused(site):
    site.dest(2).mkdir(parents=True)
    (site.dest(2) / "mine.txt").write_text("mine")
    assert site.start(site.spec(2, 2)).wait(DEADLINE_S) == 1
    assert "not in the lock" in site.state(2)["error"]["msg"]
    assert (site.dest(2) / "mine.txt").read_text() == "mine"


def test_a_port_that_is_taken_is_told(site):
    site.outsider(site.torrents[0], site.folder / "other", "127.0.0.2", "lack", "")
    site.start(site.spec(2, 2))
    error = site.wait(2, state="failed")[0]["error"]
    assert str(PORT) in error["msg"]
    assert error["remedy"]


def test_the_one_who_sees_the_seeds_file_system_does_nothing(site):
    spec = site.spec(2, 2, dest=str(site.dest(1)), shared_token=site.token)
    before = sorted(path.name for path in site.dest(1).parent.iterdir())
    assert site.start(spec).wait(DEADLINE_S) == 0
    assert sorted(path.name for path in site.dest(1).parent.iterdir()) == before
    assert control.start(spec) == {"wrong": []}
    now = control.follow(spec, 0)
    assert (now["shared"], now["complete"], now["bytes_received"]) == (True, True, 0)


def test_started_is_done_once_replaced_for_another_chain_and_refused_for_another_lock(site):
    specs = [site.spec(number, 2, linger=60) for number in (1, 2)]
    dests = [spec["dest"] for spec in specs]
    try:
        assert [bool(control.start(spec)["wrong"]) for spec in specs] == [False, True]
        found = [control.complete(spec, DEADLINE_S) for spec in specs]
        assert [now["complete"] for now in found] == [True, True]
        assert found[1]["engine"] == "libtorrent"
        before = agent.running(dests[1])
        assert before
        assert control.start(specs[1]) == {"wrong": []}
        assert agent.running(dests[1]) == before
        with pytest.raises(LlmError, match="another run"):
            exclusive.writing(dests[1], "a test").__enter__()
        other = dict(site.lock, files=site.lock["files"][:-1], revision="r2")
        with pytest.raises(LlmError, match="another lock") as caught:
            control.start(dict(specs[1], lock=other))
        assert "r1" in caught.value.found
        assert agent.running(dests[1]) == before
        control.start(site.spec(2, 3))
        assert agent.running(dests[1]) not in (0, before)
    finally:
        stopped = [control.stop(dest) for dest in dests]
    assert stopped == [True, True]
    assert [control.stop(dest) for dest in dests] == [False, False]
    assert not os.path.lexists(status.folder(dests[1]))
    assert site.is_whole(2)


def test_an_agent_that_was_killed_is_told(site):
    spec = site.spec(2, 2)
    control.start(spec)
    until(lambda: site.state(2)["state"] == "sharing")
    os.kill(agent.running(spec["dest"]), signal.SIGKILL)
    until(lambda: not agent.running(spec["dest"]))
    with pytest.raises(LlmError, match="is gone"):
        control.complete(spec, DEADLINE_S)
    control.stop(spec["dest"])


def test_it_ends_by_itself_when_nobody_asks_any_more(site):
    processes = [site.start(site.spec(number, 2, linger=1)) for number in (1, 2)]
    assert [process.wait(DEADLINE_S) for process in processes] == [0, 0]
    assert site.is_whole(2)


def test_a_new_revision_keeps_what_is_the_same_and_brings_the_rest(site):
    for number in (1, 2):
        site.start(site.spec(number, 2))
    site.wait(1, 2)
    site.end()
    newer = site.folder / "newer"
    newer.mkdir()
    content = dict(site.contents)
    content["deep/one"] = b"2"
    content["more.txt"] = b"more"
    old_lock = site.lock
    for name, data in content.items():
        path = site.dest(1) / name
        path.write_bytes(data)
    entries = [
        {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in content.items()
    ]
    made = seed.make(str(site.dest(1)), lockfile.check({"revision": "r2", "files": entries}), 1)
    site.lock, site.torrents = made["lock"], [entry["path"] for entry in made["torrents"]]
    for number in (1, 2):
        site.start(site.spec(number, 2))
    found = site.wait(1, 2)[1]
    assert site.is_whole(2)
    # The configuration is not patched any more, and its published form was kept.
    assert sum(peer["received"] for peer in found["peers"]) == len(b"2") + len(b"more")
    kept = Path(tree.aside(str(site.dest(2)), "revisions")) / lockfile.identity(old_lock)
    assert atomic.read_json(str(kept / "lock.json"))["revision"] == "r1"


def test_torrents_follow_from_the_lock_alone(site):
    for path, group in zip(site.torrents, torrent.groups(site.lock, 1), strict=True):
        data = Path(path).read_bytes()
        assert Path(path).stem == torrent.infohash(site.lock, group)
        assert torrent.build(site.lock, group, torrent.check(data, site.lock, group), PIECE) == data
