# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import docker
from ansible_collections.baremetal.llm.plugins.module_utils.machine.source import Source
from hypothesis import given
from hypothesis import strategies as st

INFO = {
    "ServerVersion": "27.3.1",
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "Driver": "overlay2",
    "DefaultRuntime": "runc",
    "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "/usr/bin/nvidia-container-runtime"}},
    "DockerRootDir": "/var/lib/docker",
    "LiveRestoreEnabled": False,
}
VERSION = {
    "ApiVersion": "1.47",
    "Version": "27.3.1",
    "Components": [{"Name": "Engine", "Version": "27.3.1"}, {"Name": "runc", "Version": "1.1.14"}],
}
ENGINE = {
    "version": "27.3.1",
    "api_version": "1.47",
    "cgroup_driver": "systemd",
    "cgroup_version": "2",
    "storage_driver": "overlay2",
    "default_runtime": "runc",
    "runtimes": ["nvidia", "runc"],
    "root_dir": "/var/lib/docker",
    "live_restore": False,
    "runc_version": "1.1.14",
}


def http(body: bytes | dict, status: str = "200 OK") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n".encode() + raw


@pytest.fixture
def engine():
    """Function that starts an engine on the socket of a host; ``answer(path)`` gives its bytes, None hangs."""
    # The path of a socket has at most 107 letters, so not below the folder of the test.
    root = Path(tempfile.mkdtemp())
    (root / "var/run").mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root) + docker.SOCKET)
    held = threading.Event()
    threads: list[threading.Thread] = []

    def serve(answer) -> None:
        while True:
            try:
                caller, _address = listener.accept()
            except OSError:
                return
            with caller:
                path = caller.recv(4096).split()[1].decode()
                raw = answer(path)
                try:
                    caller.sendall(raw or b"")
                except OSError:
                    continue  # hung up: the answer was too long
                if raw is None:
                    held.wait()

    def start(answer, timeout: float = 20) -> Source:
        listener.listen()
        threads.append(threading.Thread(target=serve, args=(answer,), daemon=True))
        threads[0].start()
        return Source(str(root), timeout)

    yield start
    held.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()
    shutil.rmtree(root)


def test_an_engine_that_answers(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = []

    def answer(path):
        asked.append(path)
        return http({"/info": INFO, "/version": VERSION}[path])

    found = docker.read(engine(answer), [])
    assert found == {"client": "", "socket": True, "engine": ENGINE, "reason": "", "images": {}}
    assert asked == ["/info", "/version"]


def test_no_socket(source, monkeypatch, tmp_path):
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert docker.read(source, []) == {
        "client": str(tmp_path / "docker"),
        "socket": False,
        "engine": None,
        "reason": "there is no /var/run/docker.sock",
        "images": {},
    }
    assert source.problems == []


def test_images(engine):
    there = "quay.io/ascend/vllm-ascend@sha256:" + "a" * 64
    paths = {
        "/info": INFO,
        "/version": VERSION,
        "/images/" + there.replace("@", "%40").replace(":", "%3A") + "/json": {"Id": "sha256:b"},
    }

    def answer(path):
        return http(paths[path]) if path in paths else http({"message": "no such image"}, "404 Not Found")

    odd = "../../containers/x?y\r\nz"
    assert docker.read(engine(answer), [there, "absent", odd])["images"] == {there: "sha256:b", "absent": "", odd: ""}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the answer is not HTTP"),
        (b"\xff\xfe\x00" * 50, "the answer is not HTTP"),
        (b"HTTP/1.0 200 OK\r\n", "the answer is no JSON object"),
        (http(b""), "the answer is no JSON object"),
        (http(b'{"ServerVersion": "27'), "the answer is no JSON object"),
        (http(b"[1, 2]"), "the answer is no JSON object"),
        (http(b"[" * 100_000), "the answer is no JSON object"),
        (http({}, "500 Internal Server Error"), "the engine answers with HTTP status 500"),
        (http(b"{" + b" " * (2 << 20)), "the answer is longer than 1048576 bytes"),
    ],
)
def test_engines_that_answer_garbage(engine, answer, reason):
    found = docker.read(engine(lambda _path: answer), [])
    assert found["engine"] is None
    assert found["reason"] == f"/var/run/docker.sock /info: {reason}"


def test_an_engine_that_hangs(engine):
    found = docker.read(engine(lambda _path: None, timeout=0.2), [])
    assert found["engine"] is None
    assert found["reason"] == "/var/run/docker.sock /info: the engine does not answer: timed out"


def test_an_engine_that_never_comes_to_an_end(monkeypatch):
    class Dripping:
        settimeout = staticmethod(lambda _seconds: None)
        recv = staticmethod(lambda _size: b"x")

    ticks = iter(range(100))
    monkeypatch.setattr(docker.time, "monotonic", lambda: next(ticks))
    with pytest.raises(TimeoutError):
        docker._all(Dripping, 50)
    assert next(ticks) == 51


def test_a_file_in_the_place_of_the_socket(fake, source):
    fake("/var/run/docker.sock", "x")
    found = docker.read(source, [])
    assert found["socket"] is True and found["engine"] is None
    assert found["reason"].startswith("/var/run/docker.sock /info: the engine does not answer: ")


def test_an_engine_that_tells_other_kinds_of_values():
    told = docker.engine_of(
        dict.fromkeys(INFO, 7), {"ApiVersion": None, "Version": "1.0", "Components": ["runc", {"Name": "runc"}]}
    )
    assert told == {
        **dict.fromkeys(ENGINE, ""), "version": "1.0", "runtimes": [], "live_restore": None
    }  # fmt: skip


def test_a_deadline_that_is_over():
    assert docker.get("/none", "/info", time.monotonic() - 1) == (None, "the engine does not answer: timed out")


@given(raw=st.binary(max_size=300) | st.builds(lambda raw: http(INFO)[: len(raw)] + raw, st.binary(max_size=300)))
def test_any_answer(raw):
    told, reason = docker.parse_answer(raw)
    assert (told is None) == bool(reason)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*INFO, "Name", "Version"]), inner),
    max_leaves=8,
)


@given(
    info=st.dictionaries(st.sampled_from(list(INFO)), JSON),
    version=st.dictionaries(st.sampled_from(list(VERSION)), JSON),
)
def test_any_json(info, version):
    told = docker.engine_of(info, version)
    assert set(told) == set(ENGINE)
    assert told["live_restore"] in (True, False, None)
    assert all(isinstance(name, str) for name in told["runtimes"])
