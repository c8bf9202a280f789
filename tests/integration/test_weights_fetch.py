# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Weights brought by processes that are killed, onto disks that fill up, and by the hubs' own client libraries."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import exclusive, fetch, lockfile, tree, verify
from ansible_collections.baremetal.llm.tests.testbed import hubs

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NAME = "acme/tiny"
TOKEN = "hub-token-only-for-this-test"
MIB = 1 << 20
# Its own metadata asks for one older version of requests alone, which the tools of this project cannot share.
OPENMIND = "openmind-hub==1.3.0 --hash=sha256:ae26a521ebe0951296e1440b5142372efd22c4cfe0583357e88d95aebbfea33d\n"
PROGRAM = """
import json, sys
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import fetch
told = json.loads(sys.argv[1])
print("begun", flush=True)
try:
    fetch.fetch(told.pop("source"), told.pop("dest"), told.pop("lock"), **told)
except LlmError as error:
    sys.exit(str(error))
"""


def _contents(seed: int, count: int = 6, size: int = MIB) -> dict[str, bytes]:
    files = {
        f"part/{number}.txt": hashlib.sha256(b"%d %d" % (seed, number)).digest() * (size // 32)
        for number in range(count)
    }
    return {**files, "config.json": b'{"seed": %d}' % seed, "empty.txt": b"", "same.txt": b"same" * 10_000}


def _lock(contents: dict[str, bytes], revision: str = "") -> dict:
    return lockfile.check(
        {
            "model": NAME,
            "revision": revision,
            "files": [
                {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for path, content in contents.items()
            ],
        }
    )


def _write(folder: Path, contents: dict[str, bytes]) -> Path:
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def _read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def fixture_no_proxy(monkeypatch):
    """The proxies of whoever runs the tests are not asked."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(name="dest")
def fixture_dest(tmp_path):
    """Return the folder that the engine reads, not there yet, alone in its parent."""
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib" / "weights"


def _start(source: str, dest: Path, lock: dict, **options: object) -> subprocess.Popen:
    told = json.dumps({"source": source, "dest": str(dest), "lock": lock, **options})
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, told],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Kills -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "https"])
def test_a_fetch_that_is_killed_again_and_again_converges(dest, tmp_path, kind):
    """From one revision to the next: what a reader finds is at every moment a whole file of one of them."""
    first, second = _contents(1), _contents(2)
    lock = _lock(second, "r2")
    fetch.fetch(str(_write(tmp_path / "first", first)), str(dest), _lock(first, "r1"))
    disk = _write(tmp_path / "second", second)
    with contextlib.ExitStack() as stack:
        source = str(disk)
        if kind == "https":
            server = stack.enter_context(hubs.start("https", disk, name="base"))
            source = f"{server.url}/models/base/"
        finished = False
        for milliseconds in range(0, 4000, 15):
            process = _start(source, dest, lock, jobs=2)
            assert process.stdout.readline() == "begun\n"
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGKILL)
            finished = process.wait(60) == 0
            process.stderr.close()
            process.stdout.close()
            for path, content in _read(dest).items():
                assert content in (first.get(path), second.get(path)), f"{path} after {milliseconds} ms"
            if finished:
                break
    assert finished
    assert _read(dest) == second
    assert fetch.fetch(str(disk), str(dest), lock)["changed"] is False
    result = fetch.fetch("/no/source", str(dest), _lock(first, "r1"))
    assert result["fetched"] == [], "the earlier revision was kept whole"
    assert _read(dest) == first
    assert fetch.remove(str(dest))
    assert os.listdir(dest.parent) == []


def test_one_of_two_runs_ends_and_names_the_other(dest, tmp_path):
    contents = _contents(1)
    disk = _write(tmp_path / "disk", contents)
    with exclusive.writing(str(dest), "a deployment that takes long"):
        process = _start(str(disk), dest, _lock(contents))
        _out, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"a deployment that takes long, process {os.getpid()}" in said
    assert not dest.exists()
    both = [_start(str(disk), dest, _lock(contents)) for _number in range(2)]
    codes = []
    for process in both:
        _out, said = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert process.returncode == 0 or "another run" in said
    assert 0 in codes
    assert _read(dest) == contents


# Disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture(name="small_disk")
def fixture_small_disk(tmp_path):
    """Function that mounts a file system in memory with these options; root may."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "weights-test", str(folder)], check=True, timeout=60)
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True, timeout=60)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(small_disk, tmp_path):
    contents = _contents(1)
    source = str(_write(tmp_path / "source", contents))
    disk = small_disk("size=4m")
    with pytest.raises(LlmError, match="no space") as caught:
        fetch.fetch(source, str(disk / "weights"), _lock(contents))
    assert caught.value.wanted == f"{sum(map(len, contents.values()))} bytes free"
    assert "bytes free on the file system of" in caught.value.found
    assert not (disk / "weights").exists()


def test_a_disk_with_too_few_inodes(small_disk, tmp_path):
    contents = {f"{number}.txt": b"x" for number in range(200)}
    source = str(_write(tmp_path / "source", contents))
    disk = small_disk("size=16m,nr_inodes=100")
    with pytest.raises(LlmError, match="no space") as caught:
        fetch.fetch(source, str(disk / "weights"), _lock(contents))
    assert "files" in caught.value.wanted
    assert "room for" in caught.value.found


def test_a_disk_that_somebody_else_fills_meanwhile(small_disk):
    contents = _contents(1)
    disk = small_disk("size=9m")
    dest, filler = disk / "weights", disk / "filler"

    def fill(content: bytes) -> bytes:
        filler.write_bytes(b"x" * (5 * MIB))
        return content

    with hubs.start("https", contents, [hubs.Fault("part/3", content=fill)], name="base") as server:
        with pytest.raises(LlmError, match="no space") as caught:
            fetch.fetch(f"{server.url}/models/base/", str(dest), _lock(contents))
        assert "No space left" in caught.value.found
        assert caught.value.remedy
        for path, content in _read(dest).items():
            assert content == contents[path]
        filler.unlink()
        fetch.fetch(f"{server.url}/models/base/", str(dest), _lock(contents))
    assert _read(dest) == contents


def test_a_disk_of_its_own(small_disk, tmp_path):
    """The folder is a mount point: nothing can be renamed into it from beside."""
    first, second = _contents(1, 2), _contents(2, 2)
    disk = small_disk("size=32m")
    fetch.fetch(str(_write(tmp_path / "first", first)), str(disk), _lock(first, "r1"))
    fetch.fetch(str(_write(tmp_path / "second", second)), str(disk), _lock(second, "r2"))
    assert verify.verify(str(disk), _lock(second), deep=True)["verified"]
    assert fetch.fetch("/no/source", str(disk), _lock(first, "r1"))["fetched"] == []
    assert {path.name for path in disk.iterdir()} == {"config.json", "empty.txt", "part", "same.txt", tree.INSIDE}
    fetch.remove(str(disk))
    assert os.listdir(disk) == []


# Client libraries --------------------------------------------------------------------------------------------------


LIBRARY_FILES = {**_contents(1, 2), "tokenizer/deep/vocab.txt": b"one\n", "model.safetensors": b"w" * 300_000}


def _by_library(kind: str, dest: Path, server: hubs.Server, **options: object) -> dict:
    lock = _lock(LIBRARY_FILES, server.application.repository.commit)
    options = {"endpoint": server.url, "token": TOKEN, "client": "library", **options}
    return fetch.fetch(f"{kind}://{NAME}", str(dest), lock, **options)


@pytest.mark.parametrize("kind", ["hf", "modelscope"])
def test_the_hubs_own_client_brings_the_files(kind, dest, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with hubs.start(kind, LIBRARY_FILES, token=TOKEN) as server:
        result = _by_library(kind, dest, server)
        assert result["fetched"] == sorted(LIBRARY_FILES)
        assert _read(dest) == LIBRARY_FILES
        asked = len(server.requests)
        assert not _by_library(kind, dest, server)["changed"]
        assert len(server.requests) == asked
    assert not (tmp_path / "home").exists(), "nothing is kept in the user's home"
    assert [path.name for path in dest.parent.iterdir() if path.is_dir() and path != dest] == [".weights.layers"]


@pytest.mark.parametrize("kind", ["hf", "modelscope"])
def test_wrong_bytes_that_the_hubs_own_client_takes_are_refused(kind, dest):
    wrong = {**LIBRARY_FILES, "model.safetensors": b"W" + LIBRARY_FILES["model.safetensors"][1:]}
    with (
        hubs.start(kind, wrong, token=TOKEN) as server,
        pytest.raises(LlmError, match="damaged at the source") as caught,
    ):
        _by_library(kind, dest, server)
    assert "model.safetensors" in caught.value.summary
    assert not (dest / "model.safetensors").exists()


def test_the_client_of_modelers_brings_the_files(dest, tmp_path, monkeypatch):
    (tmp_path / "openmind.txt").write_text(OPENMIND, encoding="utf-8")
    library = tmp_path / "library"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--target", str(library), "-r", str(tmp_path / "openmind.txt")], check=True, timeout=300)
    monkeypatch.setenv("PYTHONPATH", f"{library}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with (
        hubs.start("modelers", LIBRARY_FILES, token=TOKEN, tls=tmp_path / "tls") as server,
        hubs.Proxy({f"{hubs.PUBLIC_NAME}:443": server.port}) as proxy,
    ):
        # The client talks to hosts of its publisher alone, and by https.
        monkeypatch.setenv("https_proxy", proxy.url)
        result = _by_library("modelers", dest, server, endpoint=f"https://{hubs.PUBLIC_NAME}", ca_file=server.ca_file)
    assert result["fetched"] == sorted(LIBRARY_FILES)
    assert _read(dest) == LIBRARY_FILES


# Modules -----------------------------------------------------------------------------------------------------------


def _module(name: str, *flags: str, **arguments: object) -> tuple[dict, str]:
    """Run a module as a user does; return its result and everything that was printed."""
    command = [str(BIN / "ansible"), "localhost", "-m", f"baremetal.llm.{name}", "-a", json.dumps(arguments), *flags]
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json",
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    told = json.loads(done.stdout[done.stdout.index("{") :])
    return told["plays"][0]["tasks"][0]["hosts"]["localhost"], done.stdout + done.stderr


def test_the_modules(dest, tmp_path):
    first, second = _contents(1, 1), _contents(2, 1)
    disk = _write(tmp_path / "first", first)
    arguments = {"source": str(disk), "dest": str(dest), "lock": _lock(first, "r1"), "token": TOKEN}
    would, _said = _module("weights_fetch", "--check", "--diff", **arguments)
    assert (would["changed"], would["fetched"]) == (True, sorted(first))
    assert "config.json missing" in would["diff"]["before"]
    assert not dest.exists()
    did, said = _module("weights_fetch", "--diff", **arguments)
    assert (did["changed"], did["fetched"], did["diff"]) == (True, would["fetched"], would["diff"])
    assert TOKEN not in said
    assert sorted(did["merkle"]) == [path for path in sorted(first) if first[path]]
    again, _said = _module("weights_fetch", **arguments)
    assert again["changed"] is False

    _write(disk, second)
    assert _module("weights_fetch", **{**arguments, "lock": _lock(second, "r2")})[0]["changed"]
    would, _said = _module("weights_prune", "--check", "--diff", path=str(dest))
    did, _said = _module("weights_prune", "--diff", path=str(dest))
    again, _said = _module("weights_prune", path=str(dest))
    assert (would["changed"], would["removed"], would["bytes"]) == (True, did["removed"], did["bytes"])
    assert [revision["revision"] for revision in did["removed"]] == ["r1"]
    assert did["bytes"] == len(first["part/0.txt"]) + len(first["config.json"])
    assert "r1" in did["diff"]["before"]
    assert (again["changed"], again["removed"]) == (False, [])
    assert _module("weights_prune", path=str(dest), keep=-1)[0]["failed"]
    assert _read(dest) == second

    failed, _said = _module("weights_fetch", **{**arguments, "source": "/no/source", "deep": True})
    assert failed["failed"]
    assert failed["wanted"]
    assert failed["found"] == "nothing"
    assert failed["remedy"]
    gone, _said = _module("weights_fetch", dest=str(dest), state="absent")
    assert gone["changed"]
    assert os.listdir(dest.parent) == []
