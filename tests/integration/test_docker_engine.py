# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What host_info reads of Docker, against a real Docker Engine that the test starts and ends."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import docker
from ansible_collections.baremetal.llm.plugins.module_utils.machine.source import Source

IMAGE = "baremetal-llm-test:1"
START_SECONDS = 60


@pytest.fixture(scope="module", name="engine")
def fixture_engine():
    """Return the root below which an engine of our own has its socket, and the command that talks to it."""
    # A socket's path may have 107 characters, so the folder is not pytest's.
    root = Path(tempfile.mkdtemp(prefix="llm-docker-"))
    socket = root / "var" / "run" / "docker.sock"
    socket.parent.mkdir(parents=True)
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "dockerd",
                f"--host=unix://{socket}",
                f"--data-root={root}/data",
                f"--exec-root={root}/exec",
                f"--pidfile={root}/pid",
                "--bridge=none",
                "--iptables=false",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    talk = ["docker", "--host", f"unix://{socket}"]
    try:
        end = time.monotonic() + START_SECONDS
        while subprocess.run([*talk, "version"], capture_output=True, check=False).returncode:
            assert process.poll() is None and time.monotonic() < end, (root / "log").read_text(errors="replace")[-3000:]
            time.sleep(0.2)
        yield root, talk
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(root)


def test_a_real_engine_tells_of_itself_and_of_its_images(engine):
    root, talk = engine
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    imported = subprocess.run([*talk, "import", "-", IMAGE], input=layer.getvalue(), capture_output=True, check=True)
    told = subprocess.run(
        [*talk, "info", "--format", "{{.ServerVersion}} {{.CgroupDriver}} {{.CgroupVersion}} {{.DefaultRuntime}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    version, cgroup_driver, cgroup_version, runtime = told.stdout.split()

    found = docker.read(Source(str(root)), [IMAGE, "baremetal-llm-test:2"])

    assert found["reason"] == ""
    assert found["engine"]["version"] == version
    assert found["engine"]["cgroup_driver"] == cgroup_driver
    assert found["engine"]["cgroup_version"] == cgroup_version
    assert found["engine"]["default_runtime"] == runtime
    assert runtime in found["engine"]["runtimes"]
    assert found["engine"]["root_dir"] == f"{root}/data"
    assert found["engine"]["runc_version"]
    assert found["images"] == {IMAGE: imported.stdout.decode().strip(), "baremetal-llm-test:2": ""}
