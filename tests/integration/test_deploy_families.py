# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every playbook of a family with the inventory that is shipped for it, on the guides' machines.

See family_bed.py for what is real and what stands in. The racks are up one after another: first those of the families
that only have to come up, then that of the Atlas 800I A2, on which a deployment goes through its life.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .family_bed import BIN, ROOT, Rack, Site, finished, wait

VLLM_ASCEND = "standin:vllm_ascend:0.13.0"
VLLM = "standin:vllm:0.33.0"
MINDSPORE = "standin:vllm_mindspore:0.5.1:310P3"
# Newer than in the recording that the state was made from: what CUDA 12.9 asks for.
NEWER = {"nvidia": {"driver_version": "580.95.05", "fabric_manager": {"version": "580.95.05"}}}
# /dev/fuse, for a device that containers do not have unless it is given to them: /dev/null, which all others are
# here, every container has.
FUSE = (10, 229)
LOST = "/dev/davinci_manager"
ASCEND_DEVICES = {f"/dev/davinci{number}" for number in range(8)} | {LOST, "/dev/devmm_svm", "/dev/hisi_hdc"}
NVIDIA_DEVICES = {f"/dev/nvidia{number}" for number in range(8)}
PROBE_SECONDS = 60
W8A8 = "deploy_ascend_w8a8.yml"


@contextlib.contextmanager
def up(name: str, network: str, machines: dict[str, dict]) -> Iterator[Rack]:
    rack = Rack(name, network, machines)
    try:
        rack.up()
        yield rack
    finally:
        rack.down()


def deployed(site: Site, playbook: str) -> None:
    """Deploy, and see that it serves and how its containers are made."""
    site.publish()
    run = site.play(playbook)
    assert run.code == 0, run.output[-6000:]
    assert site.report("accept")["passed"] is True
    assert site.serves(generation=1)
    assert {site.container(host)["Image"] for host in site.names} == {site.image["id"]}
    for host in site.names:
        confined(site.container(host))


def confined(container: dict) -> None:
    """Nothing is there that the engine does not need."""
    host = container["HostConfig"]
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert set(host["CapAdd"] or []) <= {"IPC_LOCK", "SYS_NICE", "CAP_IPC_LOCK", "CAP_SYS_NICE"}
    assert (host["NetworkMode"], host["IpcMode"], host["PidMode"]) == ("host", "private", "")
    assert not host["PortBindings"] and not host["PublishAllPorts"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    writable = {mount["Target"].rpartition("/")[2] for mount in host["Mounts"] if not mount.get("ReadOnly")}
    assert writable == {"work", "logs"}


def removed(site: Site) -> None:
    """Stop with llm_remove, and see that nothing of the collection is left but the image."""
    run = site.play("stop.yml", llm_remove=True)
    assert run.code == 0, run.output[-4000:]
    for host in site.names:
        assert site.rack.containers(host) == {}
        left = site.rack.shell(host, f"find {site.settings['llm_state_dir']} ! -type d")
        assert left == ""
        assert not site.rack.shell(host, f"ls -d {site.run_dir()} || true")


# The families --------------------------------------------------------------------------------------------------------


def test_deepseek_r1_a8w8_on_three_300i_duo_and_a8w4_on_two():
    with up("fduo", "10.231.81.0/24", {f"duo-{number}": {"state": "duo_310p3"} for number in (1, 2, 3)}) as rack:
        three = Site(rack, "ascend_300i_duo", MINDSPORE)
        deployed(three, "deploy_ascend_300i_duo.yml")
        assert three.report("plan")["plan"]["groups"][0]["parallel"]["pipeline_parallel"] > 1
        removed(three)
        two = Site(rack, "ascend_300i_duo_a8w4", MINDSPORE)
        deployed(two, "deploy_ascend_300i_duo.yml")
        assert two.report("plan")["plan"]["model"]["id"] == "deepseek-r1-a8w4"
        assert rack.containers("duo-3") == {}


def test_deepseek_r1_fp8_on_two_h100():
    machines = {f"h100-{number}": {"state": "h100x8", "changes": NEWER} for number in (1, 2)}
    with up("fh100", "10.231.82.0/24", machines) as rack:
        site = Site(rack, "nvidia_fp8", VLLM)
        deployed(site, "deploy_nvidia_fp8.yml")
        container = site.container("h100-2")
        assert container["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == [str(number) for number in range(8)]
        assert {each["PathOnHost"] for each in container["HostConfig"]["Devices"]} > NVIDIA_DEVICES


def test_deepseek_r1_bf16_on_four_a100_and_int8_on_two():
    machines = {f"dgx-{number}": {"state": "dgx_a100", "changes": NEWER} for number in (1, 2, 3, 4)}
    with up("fdgx", "10.231.83.0/24", machines) as rack:
        four = Site(rack, "nvidia_bf16", VLLM)
        deployed(four, "deploy_nvidia_bf16.yml")
        removed(four)
        two = Site(rack, "nvidia_w8a8", VLLM)
        deployed(two, "deploy_nvidia_w8a8.yml")


# The life of a deployment on Atlas 800I A2 ---------------------------------------------------------------------------


@pytest.fixture(scope="module", name="rack")
def fixture_rack():
    """Return a rack of four Atlas 800I A2, and a server with smaller cards."""
    machines = {f"a2-{number}": {"state": "a2_910b4_1"} for number in (1, 2, 3, 4)}
    other = f"rm {LOST} && mknod {LOST} c {FUSE[0]} {FUSE[1]}"
    machines["a2-2"]["host"] = {"commands_after": [["sh", "-c", other]]}
    machines["small"] = {"state": "a2_910b4"}
    with up("fa2", "10.231.84.0/24", machines) as rack:
        yield rack


def test_deepseek_r1_bf16_on_four_a2(rack):
    site = Site(rack, "ascend_bf16", VLLM_ASCEND)
    deployed(site, "deploy_ascend_bf16.yml")
    removed(site)


@pytest.fixture(scope="module", name="site")
def fixture_site(rack):
    """Return the site of W8A8, which serves."""
    site = Site(rack, "ascend_w8a8", VLLM_ASCEND)
    deployed(site, W8A8)
    return site


def test_containers_have_the_devices_and_folders_of_the_engine_alone(site):
    for host in site.names:
        container = site.container(host)["HostConfig"]
        assert {each["PathOnHost"] for each in container["Devices"]} == ASCEND_DEVICES
        mounts = {mount["Target"]: mount.get("ReadOnly", False) for mount in container["Mounts"]}
        assert mounts.pop(f"{site.run_dir()}/work") is False and mounts.pop(f"{site.run_dir()}/logs") is False
        assert all(mounts.values()) and f"/data/llm/weights/{site.model}" in mounts
        assert container["ShmSize"] >= 2**30


def test_a_second_run_in_the_playbooks_folder_changes_nothing(site):
    before = site.traces()
    run = finished(site.start(site.command(W8A8), folder=ROOT / "playbooks"))
    assert (run.code, run.changed) == (0, 0), run.output[-6000:]
    assert site.traces() == before and site.serves(generation=1)


def test_check_mode_of_an_installed_collection_tells_what_a_setting_would_change(site, tmp_path):
    galaxy = [BIN / "ansible-galaxy", "collection"]
    for command in (
        [*galaxy, "build", ROOT, "--output-path", tmp_path],
        [*galaxy, "install", tmp_path / "baremetal-llm-0.1.0.tar.gz", "-p", tmp_path, "--no-deps", "--force"],
    ):
        done = finished(site.start(command, folder=tmp_path))
        assert done.code == 0, done.output
    before = site.traces()
    command = site.command("baremetal.llm.deploy_ascend_w8a8", "--check", "--diff", "-vv", llm_max_num_seqs=7)
    run = finished(site.start(command, folder=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(tmp_path)))
    assert run.code == 0, run.output[-6000:]
    assert f"plays in {tmp_path}/ansible_collections/baremetal/llm/playbooks" in run.output
    # Settings of the guards, and the containers, on both hosts.
    assert run.changed == 4
    assert len(re.findall(r"""^-\s.*["']16["'],?\n\+\s.*["']7["']""", run.output, re.MULTILINE)) == 2
    assert site.traces() == before and site.serves(generation=1)


def test_what_a_killed_run_has_begun_the_next_one_ends_and_the_group_starts_once(site):
    head, other = site.names
    old = site.container(head)["Id"]
    process = site.start(site.command(f"playbooks/{W8A8}", llm_max_num_seqs=7))
    while "Lay out what the other ranks run" not in process.stdout.readline():
        assert process.poll() is None
    # The container of one host is made anew, and that of the other one waits for its engine.
    site.rack.shell(other, "pkill -STOP -x dockerd")
    try:
        wait(lambda: site.rank(head)["why"] == f"waiting for rank 1 ({other}: other plan)")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finally:
        site.rack.shell(other, "pkill -CONT -x dockerd")
    assert site.container(head)["Id"] != old and site.health() == 0
    run = site.play(W8A8, llm_max_num_seqs=7)
    assert run.code == 0, run.output[-6000:]
    assert site.serves(generation=2)
    site.settings["llm_max_num_seqs"] = 7
    site.write_inventory()


def test_a_group_comes_back_after_a_crash_of_a_container(site):
    other = site.names[1]
    generation = site.rank(other)["generation"]
    site.rack.shell(other, f"kill -KILL {site.container(other)['State']['Pid']}")
    wait(lambda: site.serves(generation + 1))
    assert site.container(other)["RestartCount"] == 1
    assert [end["host"] for end in site.rank(site.names[0])["exits"]][-1:] == [other]


def test_a_group_comes_back_after_a_reboot_of_its_head(site):
    head = site.names[0]
    generation = site.rank(head)["generation"]
    site.rack.reboot(head)
    wait(lambda: site.serves(generation + 1))
    assert site.container(head)["State"]["Running"]


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="taken")
def fixture_taken(site):
    """Take a device from a running container as the host's `systemctl daemon-reload` does; return the generation.

    The guard looks once a minute; whatever else there is to test goes on in the meantime.
    """
    other = site.names[1]
    generation, container = site.rank(other)["generation"], site.container(other)["Id"]
    group = Path(f"/sys/fs/cgroup/devices/baremetal-llm-testbed/{site.rack.name}-{other}/{container}")
    (group / "devices.deny").write_text(f"c {FUSE[0]}:{FUSE[1]} rwm", encoding="ascii")
    opened = site.rack.shell(other, f"docker exec llm-{site.deployment} sh -c ': < {LOST}' 2>&1 || true")
    assert "Operation not permitted" in opened
    return generation


def image_for(architecture: str, path: Path) -> str:
    """Write an image without files, as `docker save` does, for an architecture."""
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    listed = [{"Config": name, "RepoTags": ["test/other:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for member, content in (
            ("layer.tar", layer.getvalue()),
            (name, config),
            ("manifest.json", json.dumps(listed).encode()),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


REFUSED = {
    "three hosts": ({}, ["a2-1", "a2-2", "a2-3"], ["256 experts evenly by 24 NPUs", "found: 3 nodes"]),
    "no such interface": ({"llm_interface": "eth9"}, None, ["a2-1: there is no interface eth9", "eth0, lo"]),
    "an interface without the address": (
        {"llm_interface": "lo"},
        None,
        ["127.0.0.1 on a2-1 and a2-2", "remedy: set llm_interface"],
    ),
    "a variable that the host contradicts": (
        {"llm_comm_env": {"HCCL_IF_IP": "10.9.9.9"}},
        None,
        ["a2-1: llm_comm_env sets HCCL_IF_IP to 10.9.9.9", "found: 10.231.84.1 on eth0"],
    ),
    "an unknown version": ({"llm_engine_version": "0.12.5"}, None, ["wanted: one of 0.9.1", "found: 0.12.5"]),
    "arguments against the plan": (
        {"llm_engine_args": ["--tensor-parallel-size", "2"]},
        None,
        ["llm_engine_args sets --tensor-parallel-size", "remedy: remove --tensor-parallel-size"],
    ),
    "an image by its tag": (
        {"llm_image": "quay.io/ascend/vllm-ascend:v0.13.0-openeuler"},
        ["a2-1", "a2-2"],
        ["quay.io/ascend/vllm-ascend:v0.13.0-openeuler", "@sha256:"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_before_a_host_is_touched(site, taken, what):
    assert taken
    settings, hosts, words = REFUSED[what]
    before = site.traces()
    without = ("llm_image_archive",) if "llm_image" in settings else ()
    inventory = site.other_inventory("refused", hosts or site.names, without)
    # A plan alone may name an image by its tag: it makes no containers.
    run = site.play(W8A8 if "llm_image" in settings else "plan.yml", inventory=inventory, **settings)
    assert run.code != 0
    told = run.error()
    assert all(word in told for word in ["wanted: ", "found: ", "remedy: ", *words]), told
    assert site.traces() == before


def test_unequal_cards_in_a_group_are_refused(site, taken):
    assert taken
    before = site.traces()
    run = site.play("preflight.yml", inventory=site.other_inventory("refused", ["a2-1", "small"]))
    told = run.error()
    assert run.code != 0 and all(word in told for word in ("small", "910B4-1", "wanted", "remedy: ")), run.output[
        -5000:
    ]
    assert site.traces() == before


def test_an_image_of_another_architecture_is_refused(site, taken, tmp_path):
    assert taken
    before = site.traces()
    run = site.play(W8A8, llm_image_archive=image_for("arm64", tmp_path / "arm64.tar"))
    told = run.error()
    assert run.code != 0 and all(word in told for word in ("arm64", "wanted", "found", "remedy")), told
    assert site.traces() == before


def test_a_part_of_a_group_is_refused(site):
    run = site.play(W8A8, "--limit", "a2-1")
    told = run.error()
    assert run.code != 0 and "a2-2 is left out of this run; wanted: " in told and "remedy: remove --limit" in told


def test_a_container_that_has_lost_its_devices_is_made_anew_and_the_group_comes_back(site, taken):
    other = site.names[1]
    wait(lambda: site.serves(taken + 1), PROBE_SECONDS + 60)
    assert site.rank(other)["generation"] == taken + 1
    log = site.rack.shell(other, f"cat {site.run_dir()}/logs/engine.log")
    assert f"ends: the container has lost {LOST}; Docker has to make it anew" in log
    site.rack.shell(other, f"docker exec llm-{site.deployment} sh -c ': < {LOST}'")


def test_an_image_that_one_host_lacks_is_told(site):
    image = site.rack.shell("a2-1", "tar --create --files-from /dev/null | docker import -").strip()
    before = site.traces()
    inventory = site.other_inventory("refused", site.names, ("llm_image_archive",))
    run = site.play(W8A8, inventory=inventory, llm_image=image)
    told = run.error()
    assert run.code != 0 and "a2-2" in told and image in told and "remedy: " in told, run.output[-4000:]
    assert site.traces() == before


# Beside another deployment, and the end ------------------------------------------------------------------------------


def test_a_second_deployment_on_the_same_hosts_needs_ports_of_its_own(site):
    before = site.traces()
    second = {"llm_deployment": "second", "llm_api_port": 8100}
    refused = site.play(W8A8, **second)
    told = refused.error()
    assert refused.code != 0
    assert "a2-1 port: wanted TCP port 29590 (rank guard) free" in told and "llm_port_offset" in told
    assert site.traces() == before
    run = site.play(W8A8, **second, llm_port_offset=100)
    assert run.code == 0, run.output[-6000:]
    assert all(site.rack.running(host) == ["llm-r1-w8a8", "llm-second"] for host in site.names)
    stopped = site.play("stop.yml", llm_remove=True, **second)
    assert stopped.code == 0, stopped.output[-4000:]
    assert site.health() == 200


def test_stop_ends_the_containers_and_keeps_them(site):
    stopped = site.play("stop.yml")
    assert stopped.code == 0, stopped.output[-4000:]
    assert [site.rack.running(host) for host in site.names] == [[], []]
    assert [list(site.rack.containers(host)) for host in site.names] == [["llm-r1-w8a8"]] * 2


def test_an_engine_that_dies_at_its_start_is_told_with_its_cause_and_ended(site):
    run = site.play(W8A8, llm_engine_args=["--no-such-option"])
    told = run.error()
    assert run.code != 0
    assert all(word in told for word in ("found: rank ", " (a2-", "--no-such-option", "remedy: ")), told
    assert [site.rack.running(host) for host in site.names] == [[], []]
    assert site.report("launch")["seconds"] < 60


def test_stop_removes_all_that_was_installed_but_images(site):
    images_there = {host: traces[1] for host, traces in site.traces().items()}
    removed(site)
    assert {host: traces[1] for host, traces in site.traces().items()} == images_there


@pytest.mark.parametrize("version", ["2.0.T3.1", "3.0.0"])
def test_mindie_serves_the_same_model_on_the_same_hosts(rack, version):
    image = f"standin:mindie:{version}"
    site = Site(rack, "ascend_w8a8", image, llm_engine="mindie", llm_engine_version=version)
    deployed(site, W8A8)
    removed(site)
