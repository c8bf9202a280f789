# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in for MindIE: what the engine file renders makes it run on two nodes, and what is wrong does not."""

from __future__ import annotations

import copy
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.engines import mindie, mindie_config
from ansible_collections.baremetal.llm.tests.testbed import states
from ansible_collections.baremetal.llm.tests.testbed.engines.mindie.emulation import schema

PROGRAMS = Path(states.__file__).resolve().parent / "engines" / "mindie"
VERSIONS = ["2.0.T3.1", "2.3.0", "3.0.0"]
DEVICES = 2
# Where no process of a test has answered after this, none will.
PATIENCE = 60.0


ADDRESSES = [f"127.0.0.{number}" for number in (2, 3, 4, 5)]
# Below the ports that the kernel gives to outgoing connections; each test process begins somewhere else.
FIRST_PORT = 11000 + os.getpid() % 2000 * 10


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on at the addresses of the tests."""
    found, number = [], FIRST_PORT
    while len(found) < count:
        if all(_is_free(address, number) for address in ADDRESSES):
            found.append(number)
        number += 1
    return found


def _is_free(address: str, number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, number))
        except OSError:
            return False
    return True


class Node:
    """One emulated host: its folders, the files of its rank and the process that reads them."""

    def __init__(self, folder: Path, spec: dict, version: str) -> None:
        self.folder, self.spec, self.version = folder, spec, version
        self.launch, self.root, self.home = folder / "run" / "launch", folder / "root", folder / "home"
        self.log = folder / "log"
        self.process: subprocess.Popen | None = None
        self.environment = {**spec["env"], **self.settings()}
        self.install()

    def settings(self) -> dict[str, str]:
        """Return what in a container is the image's: paths, and which MindIE this is."""
        return {
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MIES_INSTALL_PATH": str(self.home),
            "LLM_EMULATED_ROOT": str(self.root),
            "LLM_EMULATED_VERSION": self.version,
            "HCCL_CONNECT_TIMEOUT": "120",
        }

    def install(self) -> None:
        """Write what the role and the image bring."""
        for path in ("dev/shm", "usr/local/Ascend/driver", "etc"):
            (self.root / path).mkdir(parents=True)
        for device in self.spec["devices"]:
            (self.root / device[1:]).touch()
        (self.root / "etc/hccn.conf").touch()
        for path in (self.home / "bin", self.folder / "bin", self.launch, self.folder / "run" / "work"):
            path.mkdir(parents=True)
        (self.home / "bin/mindieservice_daemon").symlink_to(PROGRAMS / "mindieservice_daemon")
        (self.folder / "bin/mindie_llm_server").symlink_to(PROGRAMS / "mindie_llm_server")
        for file in self.spec["files"]:
            path = self.launch / file["name"]
            path.write_text(file["content"], encoding="utf-8")
            path.chmod(int(file["mode"], 8))

    def rewrite(self, name: str, change) -> None:
        """Change what a file holds."""
        path = self.launch / name
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        path.write_text(json.dumps(data), encoding="utf-8")

    def start(self, **more) -> None:
        """Start the rank as the guard does."""
        folder = self.home if self.spec["argv"][0].startswith(".") else self.spec["workdir"]
        with open(self.log, "wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable if word == "python3" else word for word in self.spec["argv"]],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                **more,
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def until(self, text: str) -> None:
        """Wait until the log has ``text``."""
        end = time.monotonic() + PATIENCE
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def ended(self) -> int:
        """Wait for the end; return the status."""
        return self.process.wait(PATIENCE)

    def refuses(self, *words: str, **more) -> None:
        """Start it and see it refuse."""
        self.start(**more)
        assert self.ended() == 255, self.said()
        assert mindie.READY not in self.said()
        for word in words:
            assert word in self.said()

    def run_before(self) -> None:
        """Run what the plan runs before the engine, on the shared memory of this node."""
        for command in self.spec["before"]:
            assert command[1] == "/dev/shm"
            subprocess.run([command[0], str(self.root / "dev/shm"), *command[2:]], check=True)


@pytest.fixture
def make_nodes(tmp_path):
    """Function that returns the nodes of a group, rendered by the engine file; their processes end with the test."""
    made: list[Node] = []

    def make(version: str = "3.0.0", hosts: int = 2, change=None) -> list[Node]:
        weights = tmp_path / "weights"
        weights.mkdir(mode=0o750)
        (weights / "config.json").write_text('{"model_type": "deepseek_v3"}', encoding="utf-8")
        (weights / "config.json").chmod(0o640)
        ports = free_ports(len(mindie_config.PORTS) + 1)
        nodes = [
            {
                "host": f"a2-{number}",
                "rank": number,
                "address": ADDRESSES[number],
                "interface": "lo",
                "devices": DEVICES,
                "device_ids": list(range(DEVICES)),
                "npu_addresses": [{"phy_id": each, "ip": f"10.20.{number}.{each + 2}"} for each in range(DEVICES)],
                "family": "ascend_a2",
                "weights_path": str(weights),
                "run_dir": str(tmp_path / f"node{number}" / "run"),
                "npu_smi": "/usr/local/sbin/npu-smi",
                "driver_dir": "/usr/local/Ascend",
                "memory": {},
            }
            for number in range(hosts)
        ]
        plan = {
            "engine": {"version": version, "group_ports": dict(zip(mindie_config.PORTS, ports[1:], strict=True))},
            "serving": {
                "model_name": "deepseek-r1",
                "port": ports[0],
                "max_model_len": 512,
                "max_num_seqs": 4,
                "engine_args": [],
            },
        }
        sizes = mindie.parallel({"architecture": {"heads": 8}}, version, [DEVICES] * hosts, {})
        group = {"head": "a2-0", "parallel": sizes, "nodes": nodes}
        if change:
            change(plan)
        for number, node in enumerate(nodes):
            made.append(Node(tmp_path / f"node{number}", mindie.launch(plan, group, node), version))
        return list(made)

    yield make
    for node in made:
        if node.process and node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def ask(url: str, body: dict | None = None) -> tuple[int, str]:
    """Return status and text of what ``url`` answers."""
    place, path = url[len("http://") :].split("/", 1)
    connection = http.client.HTTPConnection(place, timeout=PATIENCE)
    try:
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", f"/{path}", text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def api(node: Node) -> str:
    return f"http://127.0.0.2:{node.spec['port']}"


def internal(node: Node, what: str) -> str:
    port = next(number for number, name in node.spec["ports"].items() if name == what)
    return f"http://{node.spec['env']['MIES_CONTAINER_IP']}:{port}"


# all is right


@pytest.mark.parametrize("version", VERSIONS)
def test_two_nodes_come_up_together_and_the_head_answers(make_nodes, tmp_path, version):
    head, other = make_nodes(version)
    golden = tmp_path / "golden.json"
    golden.write_text(json.dumps({"What is the capital of France?": "Paris, of course."}), encoding="utf-8")
    head.environment["LLM_EMULATED_ANSWERS"] = str(golden)
    head.start()
    other.start()
    head.until(mindie.READY)
    other.until(mindie.READY)
    assert "emulator" in head.said()
    assert ask(head.spec["readiness"]["url"])[0] == 200
    assert json.loads(ask(api(head) + "/v1/models")[1])["data"][0]["id"] == "deepseek-r1"
    question = {"role": "user", "content": "What is the capital of France?"}
    request = {"model": "deepseek-r1", "messages": [question]}
    answer = json.loads(ask(api(head) + "/v1/chat/completions", request)[1])
    assert answer["choices"][0]["message"]["content"] == "Paris, of course."
    status, text = ask(api(head) + "/v1/chat/completions", {**request, "stream": True})
    assert status == 200
    assert text.rstrip().endswith("data: [DONE]")
    answer = json.loads(ask(api(head) + "/v1/completions", {"model": "deepseek-r1", "prompt": "Something else"})[1])
    assert "fixed sentence" in answer["choices"][0]["text"]
    assert "num_requests_running" in ask(internal(head, "metrics") + "/metrics")[1]
    assert ask(internal(other, "health and management") + "/health")[0] == 200


@pytest.mark.parametrize("victim", [0, 1])
def test_all_end_with_one(make_nodes, victim):
    nodes = make_nodes()
    for node in nodes:
        node.start()
    for node in nodes:
        node.until(mindie.READY)
    nodes[victim].process.kill()
    survivor = nodes[1 - victim]
    assert survivor.ended() == 128 + signal.SIGABRT
    assert "is lost" in survivor.said()


def test_a_node_alone_is_not_ready_and_goes_when_told(make_nodes):
    head = make_nodes()[0]
    head.start()
    end = time.monotonic() + PATIENCE
    while not list(Path(head.spec["workdir"]).glob("kernel_meta_temp_*")):
        assert time.monotonic() < end, head.said()
        time.sleep(0.02)
    head.process.terminate()
    assert head.ended() == 255
    assert "nodes 1 of the rank table did not come" in head.said()
    assert mindie.READY not in head.said()


def test_whoever_only_looks_at_the_port_is_no_node(make_nodes):
    head, other = make_nodes()
    host, port = internal(head, mindie_config.INFER)[len("http://") :].split(":")
    head.start()
    end, looked = time.monotonic() + PATIENCE, False
    while not looked:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            looked = True
        except OSError:
            assert time.monotonic() < end, head.said()
            time.sleep(0.02)
    other.start()
    head.until(mindie.READY)


def test_four_nodes_are_the_most(make_nodes):
    nodes = make_nodes(hosts=4)
    for node in reversed(nodes):
        node.start()
    for node in nodes:
        node.until(mindie.READY)
    nodes[2].process.kill()
    for node in nodes[:2] + nodes[3:]:
        assert node.ended() == 128 + signal.SIGABRT


def test_one_node_serves_alone(make_nodes):
    node = make_nodes(hosts=1)[0]
    node.start()
    node.until(mindie.READY)
    assert ask(api(node) + "/v1/models")[0] == 200
    node.process.terminate()
    assert node.ended() == 128 + signal.SIGABRT


def test_an_engine_starts_again_after_what_the_plan_runs_before(make_nodes):
    node = make_nodes(hosts=1)[0]
    node.start()
    node.until(mindie.READY)
    node.process.kill()
    node.ended()
    node.refuses("shared memory of an earlier start")
    node.run_before()
    node.start()
    node.until(mindie.READY)


@pytest.mark.parametrize("version", ["2.3.0", "3.0.0"])
def test_an_image_of_the_other_package_starts_too(make_nodes, version):
    node = make_nodes(version, hosts=1)[0]
    (node.folder / "bin/mindie_llm_server").unlink()
    starter = node.launch / "start_mindie.py"
    text = starter.read_text(encoding="utf-8")
    assert f'HOME = "{mindie_config.SERVICE_HOME}"' in text
    starter.write_text(text.replace(mindie_config.SERVICE_HOME, str(node.home)), encoding="utf-8")
    node.start()
    node.until(mindie.READY)


def test_an_image_of_neither_says_so(make_nodes):
    node = make_nodes(hosts=1)[0]
    (node.folder / "bin/mindie_llm_server").unlink()
    node.start()
    assert node.ended() == 1
    assert "neither mindie_llm_server nor" in node.said()


# something is wrong


def section(*names):
    """Return a function that leads to a part of config.json."""

    def lead(config: dict) -> dict:
        for name in names:
            config = config[name]
        return config

    return lead


SERVER, BACKEND = section("ServerConfig"), section("BackendConfig")
DEPLOY, SCHEDULE = section("BackendConfig", "ModelDeployConfig"), section("BackendConfig", "ScheduleConfig")
MODEL = section("BackendConfig", "ModelDeployConfig", "ModelConfig", 0)


def rendered(nodes: list[Node]) -> dict:
    """Return a node's config.json, to be changed."""
    return json.loads((nodes[0].launch / "config.json").read_text(encoding="utf-8"))


def test_a_config_that_mindie_does_not_take_is_refused(make_nodes):
    right = rendered(make_nodes(hosts=1))
    schema.check(right, 2)
    for where, change, word in (
        (SERVER, {"colour": "blue"}, "keys that this version does not know: colour"),
        (SERVER, {"tlsPkPwd": "security/pass/key_pwd.txt"}, "tlsPkPwd"),
        (SERVER, {"port": "8000"}, "ServerConfig.port should be int32"),
        (SERVER, {"port": 80}, "not in [1024, 65535]"),
        (SERVER, {"maxLinkNum": 5000}, "maxLinkNum"),
        (SERVER, {"httpsEnabled": "false"}, "httpsEnabled should be bool"),
        (SERVER, {"managementIpAddress": "0.0.0.0"}, "allowAllZeroIpListening is false"),
        (SERVER, {"ipAddress": "host"}, "format is invalid"),
        (SERVER, {"inferMode": "fast"}, "inferMode"),
        (SERVER, {"tlsCaFile": []}, "tlsCaFile"),
        (BACKEND, {"npuDeviceIds": [[0]]}, "does not equal to worldSize"),
        (BACKEND, {"npuDeviceIds": [[1, 1]]}, "repetitive"),
        (BACKEND, {"npuDeviceIds": [[0, 1], [0, 1]]}, "modelInstanceNumber"),
        (BACKEND, {"multiNodesInferPort": right["ServerConfig"]["port"]}, "cannot be equal to multiNodesInferPort"),
        (DEPLOY, {"truncation": 0}, "truncation should be bool"),
        (DEPLOY, {"maxSeqLen": 0}, "maxSeqLen"),
        (DEPLOY, {"ModelConfig": []}, "one modelParam"),
        (MODEL, {"modelName": "_x"}, "modelName"),
        (MODEL, {"npuMemSize": 0}, "npuMemSize"),
        (MODEL, {"npuMemSize": -2}, "npuMemSize"),
        (MODEL, {"backendType": "vllm"}, "backendType"),
        (MODEL, {"dp": 0}, "ModelConfig.dp"),
        (SCHEDULE, {"maxPrefillTokens": 100}, "maxPrefillTokens should not be less"),
        (SCHEDULE, {"maxPrefillBatchSize": 5}, "above maxBatchSize"),
        (SCHEDULE, {"maxIterTimes": 513}, "above maxSeqLen"),
        (SCHEDULE, {"maxPreemptCount": 1}, "cpuMemSize can not be 0"),
        (SCHEDULE, {"cacheBlockSize": 100}, "multiple of 16"),
        (SCHEDULE, {"cacheBlockSize": True}, "cacheBlockSize should be uint32"),
    ):
        wrong = copy.deepcopy(right)
        where(wrong).update(change)
        with pytest.raises(schema.Refused) as caught:
            schema.check(wrong, 2)
        assert word in str(caught.value), change


def test_a_config_without_a_compulsory_key_is_refused(make_nodes):
    right = rendered(make_nodes(hosts=1))
    for name in ("port", "allowAllZeroIpListening", "distDPServerEnabled", "tokenTimeout"):
        wrong = copy.deepcopy(right)
        del wrong["ServerConfig"][name]
        with pytest.raises(schema.Refused, match=f"missing compulsory field: {name}"):
            schema.check(wrong, 2)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_config_fits_its_generation_alone(make_nodes, number):
    config = rendered(make_nodes(VERSIONS[number], hosts=1))
    for other in (0, 1, 2):
        if other == number:
            schema.check(config, other)
        else:
            with pytest.raises(schema.Refused):
                schema.check(config, other)


@pytest.mark.parametrize(
    ("where", "change", "word"),
    [
        (SERVER, {"colour": "blue"}, "keys that this version does not know: colour"),
        (SERVER, {"httpsEnabled": True}, "TLS is enabled"),
        (MODEL, {"modelWeightPath": "/nowhere"}, "modelWeightPath /nowhere"),
        (MODEL, {"dp": 2, "tp": 8}, "do not make 2 devices"),
    ],
)
def test_a_wrong_config_keeps_the_server_from_starting(make_nodes, where, change, word):
    node = make_nodes(hosts=1)[0]
    node.rewrite("config.json", lambda config: where(config).update(change))
    node.refuses(word)


@pytest.mark.parametrize("name", ["config.json", "ranktable.json"])
@pytest.mark.parametrize("mode", [0o644, 0o660, 0o740])
def test_a_file_that_is_too_open_is_refused(make_nodes, name, mode):
    node = make_nodes()[0]
    (node.launch / name).chmod(mode)
    node.refuses(f"current permission is {mode:o}, but required no greater than 640")


@pytest.mark.parametrize("name", ["config.json", "ranktable.json"])
def test_a_link_is_refused(make_nodes, name):
    node = make_nodes()[0]
    (node.launch / name).rename(node.launch / "real.json")
    (node.launch / name).symlink_to("real.json")
    node.refuses("is a link")


def test_a_file_of_somebody_else_is_refused(make_nodes):
    """Only root can give a file away; another user sees the files of root."""
    node = make_nodes(hosts=1)[0]
    if os.getuid() == 0:
        os.chown(node.launch / "config.json", 1001, 1001)
    else:
        node.environment["MIES_CONFIG_JSON_PATH"] = "/etc/hostname"
    node.refuses("owner id diff")


def test_weights_that_mindie_does_not_take_are_refused(make_nodes, tmp_path):
    node = make_nodes(hosts=1)[0]
    (tmp_path / "weights").chmod(0o755)
    node.refuses("open beyond 750")
    (tmp_path / "weights").chmod(0o750)
    (tmp_path / "weights/config.json").rename(tmp_path / "weights/other.json")
    (tmp_path / "weights/config.json").symlink_to("other.json")
    node.refuses("config.json is a link")


def servers(number: int, **change):
    return lambda table: table["server_list"][number].update(change)


def devices(**change):
    return lambda table: table["server_list"][0]["device"][0].update(change)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda table: table.update(server_count=2), "server_count must be a string"),
        (lambda table: table.update(server_count="3"), "server_count is 3"),
        (lambda table: table.update(version="1.2"), "version"),
        (lambda table: table.pop("status"), "other keys"),
        (devices(rank_id=0), "rank_id must be a string"),
        (devices(rank_id="7"), "must count from 0"),
        (devices(device_id="64"), "out of allow range [0, 63]"),
        (devices(device_ip="0.0.0.0"), "device_ip is invalid"),
        (devices(device_ip="10.20.1.2"), "one device_ip"),
        (lambda table: table["server_list"][1]["device"].pop(), "not equal"),
        (servers(0, container_ip=""), "container_ip is invalid"),
        (servers(0, container_ip="127.0.0.9"), "not once a container_ip"),
    ],
)
def test_a_rank_table_that_mindie_does_not_take_is_refused(make_nodes, change, word):
    node = make_nodes()[0]
    node.rewrite("ranktable.json", change)
    node.refuses(word)


@pytest.mark.parametrize(
    ("version", "change", "word"),
    [
        ("2.0.T3.1", {"RANKTABLEFILE": ""}, "RANKTABLEFILE"),
        ("3.0.0", {"RANK_TABLE_FILE": ""}, "RANK_TABLE_FILE"),
        ("3.0.0", {"MIES_CONTAINER_IP": ""}, "not once a container_ip"),
        ("3.0.0", {"https_proxy": "http://proxy.example:3128"}, "a proxy is set"),
        ("3.0.0", {"WORLD_SIZE": "8"}, "WORLD_SIZE is 8"),
        ("3.0.0", {"HCCL_CONNECT_TIMEOUT": "60"}, "[120, 7200]"),
        ("3.0.0", {"NPU_MEMORY_FRACTION": "1.5"}, "not in (0, 1]"),
    ],
)
def test_variables_out_of_range_are_refused(make_nodes, version, change, word):
    node = make_nodes(version)[0]
    node.environment.update(change)
    node.refuses(word)


@pytest.mark.parametrize("path", ["dev/davinci1", "dev/devmm_svm", "usr/local/Ascend/driver", "etc/hccn.conf"])
def test_a_container_without_its_devices_is_refused(make_nodes, path):
    node = make_nodes()[0]
    gone = node.root / path
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    node.refuses(path)


def test_the_daemon_of_2_0_wants_its_own_folder(make_nodes):
    node = make_nodes("2.0.T3.1", hosts=1)[0]
    node.environment["MIES_INSTALL_PATH"] = "/nowhere"
    node.refuses("must be started in /nowhere")


def test_a_session_of_its_own_is_refused_as_the_real_daemon_does(make_nodes):
    make_nodes(hosts=1)[0].refuses("Failed to set process group", start_new_session=True)


@pytest.mark.parametrize("what", ["API", "health and management", mindie_config.INFER])
def test_a_port_that_is_taken_is_refused(make_nodes, what):
    node = make_nodes()[0]
    host, port = internal(node, what)[len("http://") :].split(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        taken.listen()
        node.refuses(f"cannot listen on {host}:{port}")


def test_nodes_that_have_read_different_configs_do_not_start(make_nodes):
    head, other = make_nodes()
    other.rewrite("config.json", lambda config: config["BackendConfig"]["ScheduleConfig"].update(maxBatchSize=5))
    head.start()
    other.start()
    assert (head.ended(), other.ended()) == (255, 255)
    assert "127.0.0.3 has read another config.json" in head.said()
    assert mindie.READY not in other.said()


def test_without_the_monitor_there_are_no_metrics(make_nodes):
    node = make_nodes(hosts=1)[0]
    del node.environment["MIES_SERVICE_MONITOR_MODE"]
    node.start()
    node.until(mindie.READY)
    assert ask(internal(node, "metrics") + "/metrics")[0] == 404
