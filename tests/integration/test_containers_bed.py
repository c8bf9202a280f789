# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests of containers stand on: hosts with a real Docker Engine each, and images of the machine's own packages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from ansible_collections.baremetal.llm.tests.testbed import fleet, images, servers
from ansible_collections.baremetal.llm.tests.testbed.fleet import docker, lifecycle

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "testbed" / "fleet.py"
CACHE = ROOT / ".cache" / "images"
PORT = 8123
# Far above what any of this takes: a state that is not reached until then never is.
DEADLINE_S = 60.0
LOAD_SECONDS = 300
# What this kind of machine grants: more needs CAP_SYS_RESOURCE, which a machine that is itself a container lacks.
LIMITS = ["--ulimit", "memlock=8388608", "--ulimit", "nofile=20000", "--ulimit", "stack=67108864"]
HTTP = ["python3", "-u", "-m", "http.server", str(PORT), "--directory", "/etc", "--bind"]


class Bed:
    """A fleet that is up, and what one does on its hosts."""

    def __init__(self, description: dict) -> None:
        self.name = description["name"]
        self.description = description
        # A socket's path may have 107 characters, so the folder is not pytest's. Engines need a true disk.
        self.folder = Path(tempfile.mkdtemp(prefix="llm-bed-"))
        self.file = self.folder / "fleet.yml"
        self.file.write_text(yaml.safe_dump(description), encoding="utf-8")
        self.dir = self.folder / "fleet"

    def up(self) -> None:
        fleet.up(self.file, self.dir)

    def remove(self) -> None:
        fleet.down(self.dir)
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.folder)

    def host(self, name: str) -> dict:
        return fleet.hosts(self.dir)[name]

    def run(self, name: str, *argv: str, timeout: float = LOAD_SECONDS) -> subprocess.CompletedProcess:
        return fleet.run_on(self.host(name), list(argv), timeout)

    def said(self, name: str, *argv: str) -> str:
        done = self.run(name, *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def load(self, name: str, image: dict) -> None:
        done = fleet.run_on(self.host(name), ["docker", "load"], LOAD_SECONDS, image["archive"])
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_for_http(self, address: str, asked_from: str) -> None:
        ask = f"import urllib.request as u; print(u.urlopen('http://{address}:{PORT}/hostname', timeout=5).status)"
        end = time.monotonic() + DEADLINE_S
        while (done := self.run(asked_from, "/usr/bin/python3", "-c", ask)).stdout.strip() != "200":
            assert time.monotonic() < end, done.stderr
            time.sleep(0.1)

    def traces(self) -> list[str]:
        """Whatever the machine still has of the fleet."""
        found = docker.cgroups(self.name) + [str(path) for path in self.dir.glob("*")]
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            if str(self.dir) in line:
                found.append(line)
        for entry in Path("/proc").iterdir():
            try:
                # A path of the fleet is among what the engine is told, and among what containers are mounted from.
                told = (entry / "cgroup").read_text(encoding="utf-8") if entry.name.isdigit() else ""
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace") if told else ""
            except OSError:
                continue
            if f"{docker.PARENT}/{self.name}-" in told + command:
                found.append(command)
        claims = lifecycle.CLAIMS
        links = list(claims.iterdir()) if claims.is_dir() else []
        return found + [str(path) for path in links if os.readlink(path) == str(self.dir)]


@pytest.fixture(scope="module", name="base")
def fixture_base():
    """Return the image with Python alone."""
    return images.build("base", CACHE)


@pytest.fixture(scope="module", name="bed")
def fixture_bed(base):
    """Return two hosts with an engine and the image each."""
    hosts = {f"d{number}": {"address": f"10.231.74.{number}", "docker": True} for number in (1, 2)}
    bed = Bed({"name": "ctbed", "network": "10.231.74.0/24", "hosts": hosts})
    try:
        bed.up()
        for name in hosts:
            bed.load(name, base)
        yield bed
    finally:
        bed.remove()


@pytest.fixture(name="web")
def fixture_web(bed, base):
    """Return the id of a container on the first host that serves files on the host's address."""
    run = ["docker", "run", "--detach", "--network", "host", "--restart", "unless-stopped", "--name", "web"]
    yield bed.said("d1", *run, base["reference"], *HTTP, "10.231.74.1")
    bed.said("d1", "docker", "rm", "--force", "web")


def test_an_image_has_the_id_in_every_engine_that_was_known_before_there_was_one(bed, base, tmp_path):
    again = images.build("base", tmp_path)
    assert (again["id"], again["layers"]) == (base["id"], base["layers"])
    assert Path(again["archive"]).read_bytes() == Path(base["archive"]).read_bytes()
    for name in ("d1", "d2"):
        assert bed.said(name, "docker", "images", "--no-trunc", "--quiet", base["reference"]) == base["id"]


def test_an_image_has_no_file_through_a_link_and_nothing_that_names_this_build(base):
    with tarfile.open(base["archive"]) as whole:
        layer = whole.extractfile("layer0/layer.tar")
        with tarfile.open(fileobj=layer) as members:
            found = {member.name: member for member in members}
    links = {name for name, member in found.items() if member.issym()}
    assert not [name for name in found if any(str(parent) in links for parent in Path(name).parents)]
    assert {(member.mtime, member.uid, member.gid) for member in found.values()} == {(images.EPOCH, 0, 0)}
    assert {"bin", "lib64", "usr/bin/python3", "usr/bin/bash"} <= set(found)


def test_engines_are_apart(bed, base):
    engines = [json.loads(bed.said(name, "docker", "info", "--format", "{{json .}}")) for name in ("d1", "d2")]
    assert engines[0]["ID"] != engines[1]["ID"]
    assert {engine["Driver"] for engine in engines} == {"overlay2"}
    run = ["docker", "run", "--detach", "--network", "host", "--name", "same", base["reference"], "sleep", "infinity"]
    assert bed.said("d1", *run) != bed.said("d2", *run)
    try:
        groups = docker.cgroups(bed.name)
        assert {Path(group).name for group in groups} == {"ctbed-d1", "ctbed-d2"}
    finally:
        for name in ("d1", "d2"):
            bed.said(name, "docker", "rm", "--force", "same")


@pytest.mark.usefixtures("web")
def test_a_container_listens_on_its_hosts_address_and_the_other_host_reaches_it(bed):
    bed.wait_for_http("10.231.74.1", "d2")
    with socket.create_connection(("10.231.74.1", PORT), timeout=5):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("10.231.74.2", PORT), timeout=5)


def test_a_container_has_the_devices_it_was_given_and_no_others(bed, base):
    run = ["docker", "run", "--rm", "--network", "none", "--device", "/dev/null:/dev/davinci0", "--device", "/dev/fuse"]
    told = bed.said("d1", *run, base["reference"], "sh", "-c", "echo x > /dev/davinci0; ls /dev; test -c /dev/fuse")
    assert "davinci0" in told.split() and "fuse" in told.split()
    # Without it the node can be made, and the group of processes may not use it.
    told = bed.run(
        "d1",
        *("docker", "run", "--rm", "--network", "none", base["reference"]),
        *("sh", "-c", "mknod /dev/fuse c 10 229 && : < /dev/fuse"),
    )
    assert told.returncode != 0 and "Operation not permitted" in told.stderr
    missing = bed.run("d1", "docker", "run", "--rm", "--device", "/dev/davinci7", base["reference"], "true")
    assert missing.returncode != 0 and "/dev/davinci7" in missing.stderr


def test_a_container_has_the_limits_and_the_shared_memory_it_was_given(bed, base):
    run = ["docker", "run", "--rm", "--network", "none", *LIMITS, "--shm-size", "1g", base["reference"]]
    told = bed.said("d1", *run, "bash", "-c", "ulimit -l; ulimit -n; ulimit -s; df -k --output=size /dev/shm | tail -1")
    assert told.split() == ["8192", "20000", "65536", "1048576"]


def test_a_container_whose_process_is_killed_comes_back(bed, web):
    inspect = ["docker", "inspect", "--format", "{{.State.Pid}} {{.RestartCount}}", web]
    pid = bed.said("d1", *inspect).split()[0]
    bed.said("d1", "kill", "-KILL", pid)
    end = time.monotonic() + DEADLINE_S
    while bed.said("d1", *inspect).split()[1] != "1":
        assert time.monotonic() < end
        time.sleep(0.1)
    bed.wait_for_http("10.231.74.1", "d2")
    assert bed.said("d1", *inspect).split()[0] != pid


def test_a_reboot_keeps_disks_and_images_and_brings_containers_back(bed, base, web):
    bed.said("d1", "sh", "-c", "echo kept > /etc/kept; echo gone > /run/gone; echo gone > /tmp/gone")
    bed.said("d1", "docker", "run", "--name", "once", base["reference"], "true")
    before, other = bed.host("d1"), bed.said("d2", "docker", "info", "--format", "{{.ID}}")
    inspect = ["docker", "inspect", "--format", "{{.Id}} {{.State.Status}} {{.RestartCount}}"]

    after = fleet.reboot(before)

    assert after["pid"] != before["pid"] and after == bed.host("d1")
    assert bed.said("d1", "cat", "/etc/kept") == "kept"
    assert bed.run("d1", "ls", "/run/gone", "/tmp/gone").returncode == 2
    assert bed.said("d1", "docker", "images", "--no-trunc", "--quiet", base["reference"]) == base["id"]
    bed.wait_for_http("10.231.74.1", "d2")
    assert bed.said("d1", *inspect, web).split()[:2] == [web, "running"]
    assert bed.said("d1", *inspect, "once").split()[1] == "exited"
    assert bed.said("d2", "docker", "info", "--format", "{{.ID}}") == other
    bed.said("d1", "docker", "rm", "once")


def test_a_crashed_host_is_silent_until_it_boots_again(bed, web):
    bed.wait_for_http("10.231.74.1", "d2")
    argv = [sys.executable, str(PROGRAM)]
    subprocess.run([*argv, "crash", "--dir", str(bed.dir), "d1"], check=True, capture_output=True)
    assert not bed.host("d1")["up"] and bed.host("d2")["up"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("10.231.74.1", PORT), timeout=5)
    with pytest.raises(fleet.FleetError, match="d1 is not up"):
        bed.run("d1", "true")
    told = subprocess.run(
        [*argv, "reboot", "--dir", str(bed.dir), "d1"], check=True, capture_output=True, text=True
    ).stdout
    assert "d1 is up again" in told
    bed.wait_for_http("10.231.74.1", "d2")
    assert bed.said("d1", "docker", "inspect", "--format", "{{.Id}}", "web") == web


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left_when_hosts_go_down_with_containers_on_them(base, killed):
    bed = Bed(
        {"name": "ctend", "network": "10.231.75.0/24", "hosts": {"e1": {"address": "10.231.75.1", "docker": True}}}
    )
    try:
        bed.up()
        bed.load("e1", base)
        for network in ("host", "none"):
            run = ["docker", "run", "--detach", "--restart", "always", "--network", network, base["reference"]]
            bed.said("e1", *run, "sleep", "infinity")
        assert len(bed.traces()) > 5
        if killed:
            # As a run that was killed leaves it: its record is not complete.
            (bed.dir / "fleet.json").unlink()
        fleet.down(bed.dir)
        assert bed.traces() == []
    finally:
        bed.remove()


def test_an_engine_that_has_died_makes_the_fleet_anew():
    bed = Bed(
        {"name": "ctdie", "network": "10.231.76.0/24", "hosts": {"f1": {"address": "10.231.76.1", "docker": True}}}
    )
    try:
        bed.up()
        assert fleet.up(bed.file, bed.dir)["changed"] is False
        command = ["pkill", "-KILL", "-x", "dockerd"]
        assert bed.run("f1", *command).returncode == 0
        assert fleet.up(bed.file, bed.dir)["changed"] is True
        assert bed.said("f1", "docker", "ps", "--quiet") == ""
    finally:
        bed.remove()


def test_hosts_have_images_from_the_start_and_what_one_writes_or_removes_is_its_own(base):
    content = {"docker": True, "docker_images": str(images.data(["base"], CACHE))}
    hosts = {f"g{number}": {"address": f"10.231.78.{number}", **content} for number in (1, 2)}
    bed = Bed({"name": "ctimg", "network": "10.231.78.0/24", "hosts": hosts})
    # Links need one file system.
    bed.dir = CACHE / "fleet"
    listing = ["docker", "images", "--no-trunc", "--quiet"]
    try:
        bed.up()
        assert [bed.said(name, *listing) for name in hosts] == [base["id"], base["id"]]
        write = ["docker", "run", "--rm", "--network", "none", base["reference"]]
        assert bed.said("g1", *write, "sh", "-c", "echo x >> /usr/bin/awk; wc -c < /usr/bin/awk") != "0"
        assert bed.said("g2", *write, "sh", "-c", "awk 'BEGIN { print 42 }'") == "42"
        bed.said("g1", "docker", "rmi", base["reference"])
        assert [bed.said(name, *listing) for name in hosts] == ["", base["id"]]
        assert bed.said("g2", *write, "python3", "-c", "print(6 * 7)") == "42"
    finally:
        bed.remove()


@pytest.fixture(scope="module", name="emulated")
def fixture_emulated():
    """Return an emulated Ascend server and an emulated NVIDIA server with a real engine, and a stand-in on both."""
    given = {"a1": {"state": "a2_910b4_1", "docker": "real"}, "n1": {"state": "h100x8", "docker": "real"}}
    bed = Bed(servers.fleet({"name": "ctemu", "network": "10.231.77.0/24", "servers": given}))
    try:
        bed.up()
        image = images.build("standin:vllm:0.12.0", CACHE)
        for name in given:
            bed.load(name, image)
        yield bed, image
    finally:
        bed.remove()


def test_an_emulated_ascend_server_gives_containers_what_they_mount(emulated):
    bed, image = emulated
    paths = ["/usr/local/dcmi", "/usr/local/Ascend/driver/lib64", "/usr/local/Ascend/driver/version.info"]
    paths += ["/usr/local/Ascend/driver/tools/hccn_tool", "/etc/ascend_install.info", "/etc/hccn.conf"]
    paths.append("/usr/local/bin/npu-smi")
    devices = ["/dev/davinci7", "/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"]
    run = ["docker", "run", "--rm", "--network", "host", "--volume", "/etc/llm-testbed:/etc/llm-testbed:ro"]
    run += [word for path in paths for word in ("--volume", f"{path}:{path}:ro")]
    run += [word for path in devices for word in ("--device", path)]
    told = bed.said("a1", *run, image["reference"], "sh", "-c", f"ls {' '.join(paths + devices)} && npu-smi info")
    assert "910B4-1" in told


def test_an_emulated_nvidia_server_takes_device_requests_and_an_ascend_one_refuses_them(emulated):
    bed, image = emulated
    run = ["docker", "run", "--rm", "--network", "host", "--gpus", "all", image["reference"]]
    assert "NVIDIA_VISIBLE_DEVICES=all" in bed.said("n1", *run, "env")
    refused = bed.run("a1", *run, "env")
    assert refused.returncode != 0 and "could not select device driver" in refused.stderr


def test_disks_of_an_emulated_server_outlive_a_reboot(emulated):
    bed, image = emulated
    bed.said("a1", "sh", "-c", "echo kept > /data/llm/kept")
    fleet.reboot(bed.host("a1"))
    assert bed.said("a1", "cat", "/data/llm/kept") == "kept"
    assert bed.said("a1", "docker", "images", "--no-trunc", "--quiet", image["reference"]) == image["id"]


def test_an_image_that_cannot_be_made_is_refused_in_words(tmp_path):
    with pytest.raises(images.ImageError, match="there is no image standin:other:1"):
        images.build("standin:other:1", tmp_path)
    with pytest.raises(images.ImageError, match="no-such-package is not installed"):
        images.closure(["no-such-package"])


def test_a_build_that_was_killed_is_made_again(tmp_path):
    argv = [sys.executable, str(ROOT / "tests" / "testbed" / "images.py"), "--cache", str(tmp_path), "base"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    end = time.monotonic() + DEADLINE_S
    while not list(tmp_path.glob("*.new")) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE_S)
    made = images.build("base", tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".lock", ".tar"]
    assert made["bytes"] == Path(made["archive"]).stat().st_size
