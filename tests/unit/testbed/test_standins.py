# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-ins of engines, as processes: each form comes up, answers, and ends with its peers; each refusal."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import openai_client, readiness
from ansible_collections.baremetal.llm.tests.testbed.engines import install, openai_server

ONE, TWO = "127.0.0.2", "127.0.0.3"
# No test waits for as long as this; it only ends those that hang.
PATIENCE = 60
ASCEND, CUDA = "vllm_ascend:0.13.0", "vllm:0.12.0"
MINDSPORE, SGLANG = "vllm_mindspore:0.5.1", "sglang:0.5.23"
NPU = {"GLOO_SOCKET_IFNAME": "lo", "HCCL_SOCKET_IFNAME": "lo", "HCCL_CONNECT_TIMEOUT": "7200"}


def free_port(address: str = ONE) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def write_weights(folder: Path, **config) -> Path:
    """Write three shards of a model that is nothing but well-formed."""
    folder.mkdir(parents=True)
    where = {}
    for number in range(3):
        header = json.dumps({f"t{number}": {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}}).encode()
        name = f"model-{number + 1:05}-of-00003.safetensors"
        (folder / name).write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
        where[f"t{number}"] = name
    about = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_attention_heads": 128}
    files = {
        "model.safetensors.index.json": {"metadata": {"total_size": 48}, "weight_map": where},
        "config.json": {**about, "torch_dtype": "bfloat16", **config},
        "quant_model_description.json": {},
        "emulated_answers.json": {"What is 2+2?": "It is four."},
    }
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder


def write_host(root: Path, npus: int = 8, gpus: int = 0) -> Path:
    """Write what a container gets of a host, with plain files for devices."""
    names = [f"dev/davinci{number}" for number in range(npus)] + ["dev/shm/empty"]
    if npus:
        names += ["dev/davinci_manager", "dev/devmm_svm", "dev/hisi_hdc", "usr/local/bin/npu-smi"]
        names += ["usr/local/dcmi/lib", "usr/local/Ascend/driver/version.info"]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if gpus:
        marker = {"devices": [{"index": number} for number in range(gpus)]}
        (root / "run").mkdir()
        (root / "run/nvidia-emulator.json").write_text(json.dumps(marker), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """Folder of the installed stand-ins; they are alike for all engines."""
    root = tmp_path_factory.mktemp("image")
    install.image(str(root), "vllm_ascend", "0.13.0")
    return root / install.FOLDER


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "weights")


class Process:
    """A program whose output goes to a file."""

    def __init__(self, path: Path, command: list[str], env: dict[str, str]) -> None:
        self.path = path
        with path.open("w", encoding="utf-8") as stream:
            self.popen = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def until(self, pattern: str) -> None:
        """Wait for a line; fail when the process ends before."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.log):
            ended = self.popen.poll() is not None
            assert not ended or re.search(pattern, self.log), self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)

    def ended(self) -> int:
        return self.popen.wait(PATIENCE)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(PATIENCE)


@pytest.fixture
def start(tmp_path, code):
    """Function that starts a program of the stand-ins: start(engine, arguments, root=, **variables) -> Process."""
    begun: list[Process] = []

    def go(engine: str, arguments: list, root: Path, program: str = "vllm_standin.py", **env: str) -> Process:
        given = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(code),
            "LLM_EMULATED_ENGINE": engine,
            "LLM_EMULATED_ROOT": str(root),
            "LLM_EMULATED_LOAD_SECONDS": "0",
            "LLM_EMULATED_WAIT_SECONDS": str(PATIENCE),
            **env,
        }
        module = ["-m", "sglang.launch_server"] if engine == SGLANG else [str(code / program)]
        command = [sys.executable, *module, *map(str, arguments)]
        begun.append(Process(tmp_path / f"{len(begun)}.log", command, given))
        return begun[-1]

    yield go
    for process in begun:
        process.kill()


def ask(port: int, model: str = "r1", address: str = ONE) -> str:
    return openai_client.ChatClient(f"http://{address}:{port}/v1", model).chat("What is 2+2?", 64)["text"]


READY = "Application startup complete"
# Steps of plugins/module_utils/readiness.py that an engine without graphs passes.
STEPS = {
    "starting", "engine starting", "loading the model", "weights: shard {0} of {1}", "weights loaded in {0} s",
    "KV cache of {0} tokens", "engine ready after {0} s", "API server starting", "API server started",
}  # fmt: skip


# One node ------------------------------------------------------------------------------------------------------------


def single(weights: Path, port: int, *more) -> list:
    return ["serve", weights, "--host", ONE, "--port", port, "--served-model-name", "r1", *more]


def test_one_node_serves_and_ends_when_told_to(start, weights, tmp_path):
    port = free_port()
    process = start(ASCEND, single(weights, port, "-tp", 8), write_host(tmp_path / "a"), **NPU)
    process.until(READY)
    assert ask(port) == "It is four."
    assert openai_client.is_healthy(f"http://{ONE}:{port}/health", 5)
    assert readiness.progress(process.log) == "API server started"
    process.popen.send_signal(signal.SIGTERM)
    assert process.ended() == 0


def test_steps_of_the_start_are_those_that_readiness_knows(start, weights, tmp_path):
    process = start(ASCEND, single(weights, free_port(), "-tp", 8), write_host(tmp_path / "a"), **NPU)
    process.until(READY)
    told = {text for pattern, text in readiness.STEPS if pattern.search(process.log)}
    assert told >= STEPS


def test_the_key_of_the_environment_is_wanted(start, weights, tmp_path):
    port = free_port()
    process = start(ASCEND, single(weights, port, "-tp", 8), write_host(tmp_path / "a"), VLLM_API_KEY="k1")
    process.until(READY)
    assert openai_client.ChatClient(f"http://{ONE}:{port}/v1", "r1", "k1").models() == ["r1"]
    with pytest.raises(openai_client.LlmError, match="status 401"):
        openai_client.ChatClient(f"http://{ONE}:{port}/v1", "r1", "k2").models()
    assert "k1" not in process.log


def test_a_taken_port_is_an_error(start, weights, tmp_path):
    with socket.create_server((ONE, 0)) as other:
        port = other.getsockname()[1]
        process = start(ASCEND, single(weights, port, "-tp", 8), write_host(tmp_path / "a"), **NPU)
        assert process.ended() == 1
    assert "OSError: [Errno 98] Address already in use" in process.log


def test_the_version_is_told(start, tmp_path):
    process = start(ASCEND, ["--version"], tmp_path)
    assert (process.ended(), process.log) == (0, "0.13.0\n")


# Refusals ------------------------------------------------------------------------------------------------------------


def spoil_nothing(_root: Path, _weights: Path) -> None:
    """For refusals of arguments and variables alone."""


def lose(*names: str):
    """Return a function that removes files of the host or of the weights."""

    def spoil(root: Path, weights: Path) -> None:
        for name in names:
            path = root / name if (root / name).exists() else weights / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def cut_a_shard(_root: Path, weights: Path) -> None:
    path = weights / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def miss_a_tensor(_root: Path, weights: Path) -> None:
    path = weights / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"]["more"] = "model-00001-of-00003.safetensors"
    path.write_text(json.dumps(index), encoding="utf-8")


def wrong_total(_root: Path, weights: Path) -> None:
    path = weights / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["metadata"]["total_size"] = 49
    path.write_text(json.dumps(index), encoding="utf-8")


def small_shm(root: Path, _weights: Path) -> None:
    # A file system without room, that every Linux has.
    shutil.rmtree(root / "dev/shm")
    (root / "dev/shm").symlink_to("/sys")


TORCHAIR = json.dumps({"torchair_graph_config": {"enabled": True}})
EIGHT = ["-tp", "8"]
REFUSALS = {
    "no model": (ASCEND, [*EIGHT], {}, lose("config.json"), "Invalid repository ID or local directory specified"),
    "no index": (ASCEND, [*EIGHT], {}, lose("model.safetensors.index.json"), "Cannot find any model weights with"),
    "no shard": (ASCEND, [*EIGHT], {}, lose("model-00002-of-00003.safetensors"), "FileNotFoundError: No such file"),
    "cut shard": (ASCEND, [*EIGHT], {}, cut_a_shard, "incomplete metadata, file not fully covered"),
    "lost tensor": (ASCEND, [*EIGHT], {}, miss_a_tensor, "were not initialized from checkpoint: {'more'}"),
    "total": (ASCEND, [*EIGHT], {}, wrong_total, "the shards hold 48 bytes of tensors, the index says 49"),
    "quantization": (
        ASCEND, [*EIGHT, "--quantization", "ascend"], {}, lose("quant_model_description.json"),
        "Cannot find the config file for ascend",
    ),
    "heads": (ASCEND, ["-tp", "3"], {}, spoil_nothing, "(128) must be divisible by tensor parallel size (3)"),
    "bfloat16 on 310P": (
        MINDSPORE, [*EIGHT], {"LLM_EMULATED_CHIP": "310P3"}, spoil_nothing, "DT_BFLOAT16 is not supported on",
    ),
    "one device too few": (ASCEND, [*EIGHT], {}, lose("dev/davinci7"), "number of visible devices (7)"),
    "hidden device": (ASCEND, [*EIGHT], {"ASCEND_RT_VISIBLE_DEVICES": "0,1"}, spoil_nothing, "devices (2)"),
    "unknown device": (ASCEND, [*EIGHT], {"ASCEND_RT_VISIBLE_DEVICES": "9"}, spoil_nothing, "error code is 207004"),
    "no manager": (ASCEND, [*EIGHT], {}, lose("dev/davinci_manager"), "/dev/davinci_manager cannot be opened"),
    "no svm": (ASCEND, [*EIGHT], {}, lose("dev/devmm_svm"), "/dev/devmm_svm cannot be opened"),
    "no hdc": (ASCEND, [*EIGHT], {}, lose("dev/hisi_hdc"), "/dev/hisi_hdc cannot be opened"),
    "no npu-smi": (ASCEND, [*EIGHT], {}, lose("usr/local/bin/npu-smi"), "/usr/local/bin/npu-smi is missing"),
    "no dcmi": (ASCEND, [*EIGHT], {}, lose("usr/local/dcmi"), "/usr/local/dcmi is missing"),
    "no driver": (
        ASCEND, [*EIGHT], {}, lose("usr/local/Ascend/driver/version.info"), "driver/version.info is missing",
    ),
    "no GPU": (CUDA, [*EIGHT], {}, spoil_nothing, "local_world_size (8) must be less than or equal to the number"),
    "shared memory": (ASCEND, [*EIGHT], {}, small_shm, "/dev/shm has 0 MiB"),
    "timeout": (ASCEND, [*EIGHT], {"HCCL_CONNECT_TIMEOUT": "119"}, spoil_nothing, "is not in [120, 7200]"),
    "foreign address": (ASCEND, [*EIGHT], {"HCCL_IF_IP": "192.0.2.77"}, spoil_nothing, "no address of this machine"),
    "no such interface": (ASCEND, [*EIGHT], {"HCCL_SOCKET_IFNAME": "nic9"}, spoil_nothing, "no such interface"),
    "wrong interface": (
        ASCEND, [*EIGHT], {"HCCL_IF_IP": ONE, "HCCL_SOCKET_IFNAME": "^lo"}, spoil_nothing, "HCCL_SOCKET_IFNAME=^lo",
    ),
    "gloo": (ASCEND, [*EIGHT], {"GLOO_SOCKET_IFNAME": "nic9"}, spoil_nothing, "Unable to find address for: nic9"),
    "unknown key": (
        ASCEND, [*EIGHT, "--additional-config", TORCHAIR], {}, spoil_nothing, "AscendConfig: torchair_graph_config",
    ),
    "torchair at tensor parallel 8": (
        "vllm_ascend:0.9.1", [*EIGHT, "--additional-config", TORCHAIR], {"VLLM_USE_V1": "1"}, spoil_nothing,
        "tensor parallel size 8 is above 4",
    ),
    "torchair on the old engine": (
        "vllm_ascend:0.9.1", ["-tp", "4", "--additional-config", TORCHAIR], {}, spoil_nothing,
        "Torchair graph mode is only supported for V1 Engine",
    ),
    "ACL graph at 0.9.1": (
        "vllm_ascend:0.9.1", ["-tp", "4"], {"VLLM_USE_V1": "1"}, spoil_nothing, "ACL Graph does not support deepseek",
    ),
    "local ranks": (
        ASCEND, ["-dp", "2", "--data-parallel-size-local", "3"], {}, spoil_nothing, "must be <= data_parallel_size (2)",
    ),
    "nodes": (
        CUDA, [*EIGHT, "--nnodes", "3", "--node-rank", "0"], {}, spoil_nothing, "must be divisible by nnodes (3)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_what_is_wrong_is_refused(start, weights, tmp_path, name):
    engine, arguments, env, spoil, text = REFUSALS[name]
    root = write_host(tmp_path / "a", npus=0 if engine == CUDA else 8)
    spoil(root, weights)
    process = start(engine, single(weights, free_port(), *arguments), root, **{**NPU, **env})
    assert process.ended() == 1
    assert text in process.log
    assert text in readiness.last_error(process.log)


WRONG_LINES = {
    "unknown": (ASCEND, ["--no-such-flag", "1"], "unrecognized arguments: --no-such-flag"),
    "not yet": ("vllm_ascend:0.9.1", ["--nnodes", "2"], "unrecognized arguments: --nnodes"),
    "no number": (ASCEND, ["--max-model-len", "many"], "argument --max-model-len"),
    "no JSON": (ASCEND, ["--compilation-config", "{"], "argument --compilation-config"),
    "no value": (ASCEND, ["--port"], "argument --port"),
}


@pytest.mark.parametrize("name", sorted(WRONG_LINES))
def test_a_command_line_is_read_as_strictly_as_by_that_version(start, weights, tmp_path, name):
    engine, arguments, text = WRONG_LINES[name]
    process = start(engine, ["serve", str(weights), *arguments], write_host(tmp_path / "a"))
    assert process.ended() == 2
    assert text in process.log


def test_a_limit_of_memory_is_an_error(weights, code):
    """Asked apart from a start: weights as large as a limit that Python can live in would be large files."""
    asked = (
        "import os, resource, types, vllm_checks as checks\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "os.stat = lambda _path: types.SimpleNamespace(st_size=2**32)\n"
        f"settings = types.SimpleNamespace(weights={str(weights)!r}, local_devices=8, tensor=8, pipeline=1)\n"
        "checks.address_space(settings)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], env={"PYTHONPATH": str(code)}, capture_output=True, text=True, check=False
    )
    assert "RLIMIT_AS is 2147483648 bytes, this node's weights are 12884901888" in done.stderr


# Groups --------------------------------------------------------------------------------------------------------------


def changed(line: list, change: dict) -> list:
    """Return ``line`` with other values behind the options of ``change``, or with these added."""
    line = list(line)
    for option, value in change.items():
        if option not in line:
            line += [option, None]
        line[line.index(option) + 1] = value
    return line


class Pair:
    """Two processes of a group; ``port`` is that of the API."""

    def __init__(self, head: Process, member: Process, port: int) -> None:
        self.head, self.member, self.port = head, member, port


@pytest.fixture
def pair(start, weights, tmp_path):
    """Function that starts both processes of a form: pair(form, wait=, only=) -> Pair."""

    def go(form: str, wait: int = PATIENCE, only: str = "both", change: dict | None = None) -> Pair:
        port, meeting = free_port(), free_port()
        engine = {"data_parallel": ASCEND, "mp": CUDA, "sglang": SGLANG}[form]
        common = {
            "data_parallel": [
                *single(weights, port, "-tp", 4, "-dp", 4, "--data-parallel-size-local", 2),
                *("--data-parallel-address", ONE, "--data-parallel-rpc-port", meeting, "--enable-expert-parallel"),
            ],
            "mp": [
                *single(weights, port, "-tp", 16, "--nnodes", 2, "--master-addr", ONE, "--master-port", meeting),
                *("--distributed-executor-backend", "mp"),
            ],
            "sglang": [
                *("--model-path", weights, "--served-model-name", "r1", "--tp", 16, "--nnodes", 2),
                *("--dist-init-addr", f"{ONE}:{meeting}", "--port", port),
            ],
        }[form]
        first = {"data_parallel": [], "mp": ["--node-rank", 0], "sglang": ["--node-rank", 0, "--host", ONE]}[form]
        second = {
            "data_parallel": ["--headless", "--data-parallel-start-rank", 2],
            "mp": ["--node-rank", 1, "--headless"],
            "sglang": ["--node-rank", 1, "--host", TWO],
        }[form]
        head = member = None
        env = {"LLM_EMULATED_WAIT_SECONDS": str(wait), "GLOO_SOCKET_IFNAME": "lo"}
        npus, gpus = (8, 0) if engine == ASCEND else (0, 8)
        if only != "member":
            root = write_host(tmp_path / "one", npus, gpus)
            head = start(engine, [*common, *first], root, VLLM_HOST_IP=ONE, **env)
        if only != "head":
            root = write_host(tmp_path / "two", npus, gpus)
            member = start(engine, changed([*common, *second], change or {}), root, VLLM_HOST_IP=TWO, **env)
        return Pair(head, member, port)

    return go


FORMS = ["data_parallel", "mp", "sglang"]


@pytest.mark.parametrize("form", FORMS)
def test_a_group_comes_up_and_answers(pair, form):
    group = pair(form)
    group.head.until(READY)
    assert ask(group.port) == "It is four."
    assert group.member.popen.poll() is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dies", ["head", "member"])
def test_a_group_ends_with_each_of_its_processes(pair, form, dies):
    group = pair(form)
    group.head.until(READY)
    group.member.until("init engine")
    survivor = group.member if dies == "head" else group.head
    getattr(group, dies).kill()
    assert survivor.ended() == 1
    assert "Connection closed by peer" in survivor.log
    assert "EngineDeadError" in survivor.log


ALONE = {
    ("data_parallel", "head"): "2 of 4 data parallel ranks have reported within 2 seconds",
    ("data_parallel", "member"): "RuntimeError: Did not receive response from front-end process within",
    ("mp", "head"): "torch.distributed.DistStoreError: Timed out after 2 seconds waiting for clients. 8/16 clients",
    ("mp", "member"): "torch.distributed.DistNetworkError: The client socket has timed out after 1000ms",
    ("sglang", "head"): "Timed out after 2 seconds waiting for clients. 8/16 clients joined.",
    ("sglang", "member"): "The client socket has timed out after 1000ms while trying to connect to (127.0.0.2,",
}


@pytest.mark.parametrize(("form", "who"), sorted(ALONE))
def test_one_without_its_peers_gives_up(pair, form, who):
    process = getattr(pair(form, wait=1, only=who), who)
    assert process.ended() == 1
    assert ALONE[form, who] in readiness.last_error(process.log)


UNEQUAL = {
    "another rank": ("--data-parallel-start-rank", 0, "message from remote engine 0, expected it to be local"),
    "another length": ("--max-model-len", 99, "Configuration mismatch detected for engine 2"),
    "another split": ("-tp", 2, "tensor is 2 there, 4 at the head"),
}


@pytest.mark.parametrize("name", sorted(UNEQUAL))
def test_a_group_of_unequal_members_does_not_start(pair, name):
    option, value, text = UNEQUAL[name]
    group = pair("data_parallel", change={option: value})
    assert (group.head.ended(), group.member.ended()) == (1, 1)
    assert text in group.head.log
    assert text in group.member.log


def test_a_head_with_an_address_that_is_not_its_own_does_not_start(start, weights, tmp_path):
    line = single(weights, free_port(), "-tp", 4, "-dp", 2, "--data-parallel-address", "192.0.2.77")
    process = start(ASCEND, line, write_host(tmp_path / "a"))
    assert process.ended() == 1
    assert "zmq.error.ZMQError: Cannot assign requested address (addr='tcp://192.0.2.77:" in process.log


def test_ranks_of_sglang_above_0_answer_health_alone(pair):
    group = pair("sglang")
    group.head.until(READY)
    end = time.monotonic() + PATIENCE
    while not openai_client.is_healthy(f"http://{TWO}:{group.port}/health", 5):
        assert time.monotonic() < end, group.member.log
        time.sleep(0.05)


# The server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A server whose readiness a test sets: {url, port, state}."""
    state, stop, listening = {"ready": True}, threading.Event(), threading.Event()
    port = free_port()
    thread = threading.Thread(
        target=openai_server.serve,
        args=(ONE, port, ["r1", "alias"], {"Hello": "one two three"}, lambda: state["ready"], stop, "key"),
        kwargs={"version": "1.2.3", "started": listening.set},
    )
    thread.start()
    assert listening.wait(PATIENCE)
    yield {"url": f"http://{ONE}:{port}", "port": port, "state": state}
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def request(server: dict, path: str, body: bytes | None = None, key: str = "key") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(ONE, server["port"], timeout=PATIENCE)
    try:
        connection.request("POST" if body else "GET", path, body, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def chat(**body) -> bytes:
    return json.dumps({"model": "r1", "messages": [{"role": "user", "content": "Hello"}], **body}).encode()


def test_health_follows_the_engine(server):
    assert request(server, "/health")[0] == 200
    server["state"]["ready"] = False
    assert request(server, "/health")[0] == 503
    assert request(server, "/v1/chat/completions", chat())[0] == 503


def test_answers_are_those_of_the_table_whole_and_streamed(server):
    client = openai_client.ChatClient(f"{server['url']}/v1", "alias", "key")
    whole, streamed = client.chat("Hello", 64), client.stream("Hello", 64)
    for answer in (whole, streamed):
        assert (answer["text"], answer["finish_reason"]) == ("one two three", "stop")
        assert (answer["prompt_tokens"], answer["completion_tokens"]) == (1, 3)
    assert streamed["chunks"] == 3
    assert client.chat("Hello", 2)["finish_reason"] == "length"
    assert client.stream("Hello", 2)["text"] == "one two"
    assert client.chat("Unknown", 64)["text"] == openai_server.OTHERWISE


def test_completions_have_a_text(server):
    status, body = request(server, "/v1/completions", json.dumps({"model": "r1", "prompt": "Hello"}).encode())
    assert (status, json.loads(body)["choices"][0]["text"]) == (200, "one two three")


def test_what_is_known_without_a_key(server):
    assert json.loads(request(server, "/version", key="")[1]) == {"version": "1.2.3"}
    request(server, "/v1/chat/completions", chat())
    metrics = request(server, "/metrics", key="")[1].decode()
    assert 'vllm:generation_tokens_total{engine="0",model_name="r1"} 3.0' in metrics
    assert 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="r1"} 1.0' in metrics


WRONG_REQUESTS = {
    "key": ("/v1/models", None, "other", 401),
    "no key": ("/v1/chat/completions", chat(), "", 401),
    "model": ("/v1/chat/completions", chat(model="r2"), "key", 404),
    "path": ("/v1/nothing", chat(), "key", 404),
    "method": ("/v1/chat/completions", None, "key", 405),
    "no JSON": ("/v1/chat/completions", b"{", "key", 400),
    "no object": ("/v1/chat/completions", b"[]", "key", 400),
    "no messages": ("/v1/chat/completions", chat(messages=[]), "key", 400),
    "no user": ("/v1/chat/completions", chat(messages=[{"role": "system", "content": "x"}]), "key", 400),
    "role": ("/v1/chat/completions", chat(messages=[{"role": "king", "content": "x"}]), "key", 400),
    "content": ("/v1/chat/completions", chat(messages=[{"role": "user", "content": 1}]), "key", 400),
    "tokens": ("/v1/chat/completions", chat(max_tokens=0), "key", 400),
    "options": ("/v1/chat/completions", chat(stream_options={"include_usage": True}), "key", 400),
    "several": ("/v1/chat/completions", chat(n=2), "key", 400),
    "no prompt": ("/v1/completions", json.dumps({"model": "r1"}).encode(), "key", 400),
}


@pytest.mark.parametrize("name", sorted(WRONG_REQUESTS))
def test_a_wrong_request_gets_its_status(server, name):
    path, body, key, status = WRONG_REQUESTS[name]
    assert request(server, path, body, key)[0] == status


# The hook ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hook(tmp_path):
    """Function that calls the hook for a container: hook(asked, gpus=) -> (done, marker or None)."""

    def call(asked: str | None, gpus: int = 2, **env: str):
        programs, rootfs = tmp_path / "bin", tmp_path / "rootfs"
        programs.mkdir()
        rootfs.mkdir()
        listed = "".join(f"echo 'GPU {n}: NVIDIA H100 (UUID: GPU-{n}{n})'\n" for n in range(gpus))
        (programs / "nvidia-smi").write_text(f"#!/bin/sh\n{listed or 'exit 9'}\n", encoding="utf-8")
        (programs / "nvidia-smi").chmod(0o755)
        entries = [f"{name}={value}" for name, value in env.items()]
        entries += [] if asked is None else [f"NVIDIA_VISIBLE_DEVICES={asked}"]
        config = {"process": {"env": ["PATH=/bin", *entries]}, "root": {"path": str(rootfs)}}
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        state = {"ociVersion": "1.0.2", "id": "c", "status": "creating", "pid": 1, "bundle": str(tmp_path)}
        program = Path(install.HERE) / "nvidia_hook.py"
        done = subprocess.run(
            [sys.executable, str(program), "prestart"],
            input=json.dumps(state), env={"PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        marker = rootfs / "run/nvidia-emulator.json"
        return done, json.loads(marker.read_text(encoding="utf-8")) if marker.exists() else None

    return call


@pytest.mark.parametrize(("asked", "indexes"), [("all", [0, 1]), ("1", [1]), ("1,0", [1, 0]), ("GPU-11", [1])])
def test_the_hook_gives_what_was_asked_for(hook, asked, indexes):
    done, marker = hook(asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert [device["index"] for device in marker["devices"]] == indexes
    assert (marker["asked"], marker["capabilities"]) == (asked, "utility,compute")


@pytest.mark.parametrize("asked", [None, "", "void", "none"])
def test_the_hook_gives_nothing_to_who_asks_for_nothing(hook, asked):
    done, marker = hook(asked)
    assert (done.returncode, marker) == (0, None)


def test_the_hook_stops_a_container_that_asks_for_what_is_not_there(hook):
    done, marker = hook("0,7")
    assert (done.returncode, marker) == (1, None)
    assert "nvidia-container-cli: device error: 7: unknown device: unknown" in done.stderr


def test_the_hook_stops_a_container_on_a_host_without_a_driver(hook):
    done, marker = hook("all", gpus=0)
    assert (done.returncode, marker) == (1, None)
    assert "nvml error: driver not loaded" in done.stderr


# Ray -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ray(start, tmp_path):
    """Function that runs a command of ray on one of two nodes: ray(node, *arguments, **variables) -> Process."""

    def go(node: str, *arguments: str, npus: int = 8, **env: str) -> Process:
        root = tmp_path / node
        if not root.exists():
            write_host(root, npus)
            folders.append(root)
        given = {"RAY_TMPDIR": str(root), "LLM_EMULATED_HOSTNAME": node, "RAY_NUM_REDIS_GET_RETRIES": "1", **env}
        return start(MINDSPORE, list(arguments), root, "ray_standin.py", **given)

    folders: list[Path] = []
    yield go
    for root in folders:
        # What runs in the background is no child of the test's.
        if (root / "ray").exists():
            start(MINDSPORE, ["stop", "--force"], root, "ray_standin.py", RAY_TMPDIR=str(root)).ended()


@pytest.fixture
def cluster(ray):
    """Two nodes with eight NPUs each: {first, second, address}."""
    address = f"{ONE}:{free_port()}"
    first = ray("one", "start", "--head", "--port", address.split(":")[1], "--node-ip-address", ONE, "--block")
    first.until("Ray runtime started")
    second = ray("two", "start", "--address", address, "--node-ip-address", TWO, "--block")
    second.until("Ray runtime started")
    return {"first": first, "second": second, "address": address}


def test_the_status_of_a_cluster_counts_its_npus(ray, cluster):
    said = ray("one", "status")
    assert said.ended() == 0
    assert " 0.0/16.0 NPU" in said.log
    assert said.log.count(" 1 node_") == 2
    assert cluster["first"].popen.poll() is None


def test_the_package_counts_too(code, cluster):
    asked = "import ray; ray.init(); print(ray.cluster_resources()['NPU'], sorted(n['NodeManagerHostname'] for n in "
    done = subprocess.run(
        [sys.executable, "-c", asked + "ray.nodes()))"],
        env={"PYTHONPATH": str(code), "RAY_ADDRESS": cluster["address"]},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "16.0 ['one', 'two']\n"


def test_ray_stops_what_runs_on_its_node(ray, cluster):
    assert ray("two", "stop").ended() == 0
    assert cluster["second"].ended() == 0
    assert cluster["first"].popen.poll() is None


def test_ray_in_the_background_leaves_no_output_open_and_starts_again(ray):
    port = str(free_port())
    arguments = ["start", "--head", "--port", port, "--node-ip-address", ONE]
    first = ray("one", *arguments)
    assert first.ended() == 0
    assert "Ray runtime started" in first.log
    again = ray("one", *arguments)
    assert again.ended() == 1
    assert f"already running at {ONE}:{port}" in again.log
    assert "Stopped all 1 Ray processes." in stopped(ray, "--force")
    assert ray("one", *arguments).ended() == 0
    assert " 0.0/8.0 NPU" in ray_says(ray, "status")
    assert "Stopped all 1 Ray processes." in stopped(ray)
    assert "Did not find any active Ray processes." in stopped(ray)


def stopped(ray, *arguments: str) -> str:
    return ray_says(ray, "stop", *arguments)


def ray_says(ray, *arguments: str) -> str:
    said = ray("one", *arguments)
    assert said.ended() == 0
    return said.log


def test_nodes_end_with_their_head(cluster):
    cluster["first"].kill()
    assert cluster["second"].ended() == 1
    assert "Some Ray subprocesses exited unexpectedly" in cluster["second"].log


MISFITS = {
    "name": ({"LLM_EMULATED_HOSTNAME": "one"}, TWO, "a node named one is in the cluster already"),
    "address": ({}, ONE, "a node with the address 127.0.0.2 is in the cluster already"),
    "version": ({"LLM_EMULATED_RAY": "2.47.0"}, TWO, "Version mismatch: The cluster was started with:"),
}


@pytest.mark.parametrize("name", sorted(MISFITS))
def test_who_does_not_fit_may_not_join(ray, name):
    env, address, text = MISFITS[name]
    port = str(free_port())
    first = ray("one", "start", "--head", "--port", port, "--node-ip-address", ONE, "--block")
    first.until("Ray runtime started")
    second = ray("two", "start", "--address", f"{ONE}:{port}", "--node-ip-address", address, "--block", **env)
    assert second.ended() == 1
    assert text in second.log


def test_a_node_without_a_head_gives_up(ray):
    node = ray("two", "start", "--address", f"{ONE}:{free_port()}", "--node-ip-address", TWO, "--block")
    assert node.ended() == 1
    assert "Failed to connect to GCS at address" in node.log


def test_no_cluster_has_no_status(ray):
    said = ray("one", "status")
    assert said.ended() == 1
    assert "Could not find any running Ray instance" in said.log


def over_ray(weights: Path, port: int, size: int = 16) -> list:
    return single(weights, port, "-tp", size, "--distributed-executor-backend", "ray", "--quantization", "golden-stick")


def engine_over_ray(start, weights, tmp_path, port, **env) -> Process:
    given = {"RAY_TMPDIR": str(tmp_path / "one"), "VLLM_HOST_IP": ONE, **env}
    return start(MINDSPORE, over_ray(weights, port), tmp_path / "one", **given)


@pytest.mark.parametrize("dies", ["nothing", "engine", "second"])
def test_an_engine_over_ray_answers_and_ends_with_its_workers(start, weights, tmp_path, ray, cluster, dies):
    port = free_port()
    engine = engine_over_ray(start, weights, tmp_path, port)
    engine.until(READY)
    assert ask(port) == "It is four."
    said = ray("one", "status")
    assert said.ended() == 0
    assert " 16.0/16.0 NPU" in said.log
    if dies == "second":
        cluster["second"].kill()
        assert engine.ended() == 1
        assert "ray.exceptions.ActorDiedError" in engine.log
    if dies == "engine":
        engine.kill()
        end = time.monotonic() + PATIENCE
        while " 0.0/16.0 NPU" not in said.log:
            assert time.monotonic() < end, said.log
            said = ray("one", "status")
            said.ended()


def test_an_engine_waits_for_devices_and_gives_up(start, weights, tmp_path, ray):
    port = str(free_port())
    ray("one", "start", "--head", "--port", port, "--node-ip-address", ONE, "--block").until("runtime started")
    engine = engine_over_ray(start, weights, tmp_path, free_port(), LLM_EMULATED_WAIT_SECONDS="1")
    assert engine.ended() == 1
    assert "Cannot provide a placement group of 16 x {'NPU': 1.0} within 1 seconds" in engine.log


def test_an_engine_whose_address_is_no_node_does_not_start(start, weights, tmp_path, cluster):
    engine = engine_over_ray(start, weights, tmp_path, free_port(), VLLM_HOST_IP="127.0.0.4")
    assert engine.ended() == 1
    assert "Current node has no NPU available. current_ip='127.0.0.4'" in engine.log
    assert cluster["second"].popen.poll() is None


def test_a_worker_that_refuses_ends_the_engine_with_its_reason(start, weights, tmp_path, cluster):
    (tmp_path / "two/usr/local/bin/npu-smi").unlink()
    engine = engine_over_ray(start, weights, tmp_path, free_port())
    assert engine.ended() == 1
    assert "/usr/local/bin/npu-smi is missing" in engine.log
    assert cluster["second"].popen.poll() is None
