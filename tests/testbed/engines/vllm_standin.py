# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-in for the engines of the vLLM family: `vllm serve`, `vllm-mindspore serve`, `python -m sglang.launch_server`.

Not an engine: it computes nothing and answers from a table. It is as strict about what it is given as the real ones
are said to be; STANDINS.md says how it is told which one it stands for.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import command_line
import openai_server
import ray_standin
import vllm_checks
import vllm_groups
from vllm_checks import Refused

VARIABLE = "LLM_EMULATED_ENGINE"
WAIT_SECONDS, LOAD_SECONDS, LOOK_SECONDS = 600.0, 1.0, 0.2
# What all members of a group must have alike; the rest is a rank's own.
SAME = ("weights", "tensor", "pipeline", "data", "experts", "max_model_len", "quantization", "dtype", "additional")
# A cache size that looks like one; no number of it is computed.
CACHE_TOKENS = "65,536"


class Settings(NamedTuple):
    """What the command line says. ``form``: single, data_parallel, mp, ray or sglang."""

    engine: str
    version: tuple
    weights: str
    names: list
    host: str
    port: int
    keys: list
    form: str
    tensor: int
    pipeline: int
    data: int
    local_data: int
    start_rank: int
    headless: bool
    nodes: int
    rank: int
    address: str
    group_port: int
    local_devices: int
    dtype: str
    quantization: str
    experts: bool
    max_model_len: int
    eager: bool
    additional: dict


class Stopped(Exception):
    """The process was told to end."""


def main(arguments: list[str]) -> int:
    """Run the engine until it is told to stop; return its exit status."""
    engine, version = os.environ[VARIABLE].split(":", 1)
    if arguments[:1] == ["--worker"]:
        return worker(json.loads(arguments[1]), version)
    if arguments in (["--version"], ["-v"]):
        print(version)
        return 0
    try:
        given = command_line.parse(engine, version, arguments)
    except ValueError as error:
        name = command_line.program(engine)
        print(f"usage: {name} [options]\n{name}: error: {error}", file=sys.stderr)
        return 2
    log = Log(f"APIServer pid={os.getpid()}")
    log.info(f"vLLM API server version {version}")
    log.info(f"non-default args: { ({name: value for name, value in given.items() if name != 'api_key'}) }")
    return guarded(lambda: run(settle(engine, version, given), version, log), log)


def guarded(work: Callable[[], None], log: Log) -> int:
    """Do ``work`` until it ends, fails or is told to end; return the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        work()
    except Stopped:
        log.info("Shutting down.")
        return 0
    except Refused as error:
        log.died(error)
        return 1
    return 0


def _stop(*_arguments: object) -> None:
    raise Stopped


class Log:
    """Lines with the process, the level and the clock that vLLM puts before them."""

    def __init__(self, who: str) -> None:
        self.who, self.core = who, f"EngineCore_DP0 pid={os.getpid()}"
        self.ready = False

    def line(self, who: str, level: str, text: str) -> None:
        print(f"({who}) {level} {time.strftime('%m-%d %H:%M:%S')} [standin.py:1] {text}", flush=True)

    def info(self, text: str) -> None:
        self.line(self.who, "INFO", text)

    def engine(self, text: str) -> None:
        self.line(self.core, "INFO", text)

    def died(self, error: Refused) -> None:
        """Tell of the end as vLLM does: the cause from the engine's core, then what the server makes of it."""
        what = "encountered a fatal error" if self.ready else "failed to start"
        self.line(self.core, "ERROR", f"EngineCore {what}.")
        self.line(self.core, "ERROR", "Traceback (most recent call last):")
        self.line(self.core, "ERROR", f"{error.kind}: {error.text}")
        if self.ready:
            said = "EngineCore encountered an issue. See stack trace (above) for the root cause."
            print(f"({self.who}) vllm.v1.engine.exceptions.EngineDeadError: {said}", flush=True)
        else:
            said = "Engine core initialization failed. See root cause above. Failed core proc(s):"
            print(f"({self.who}) RuntimeError: {said} {{'EngineCore_DP0': 1}}", flush=True)


def settle(engine: str, version: str, given: dict) -> Settings:
    """Make the settings of what was given; raises Refused for sizes that cannot be together."""
    tensor, pipeline, data = (given.get(f"{name}_parallel_size", 1) for name in ("tensor", "pipeline", "data"))
    nodes, rank = given.get("nnodes", 1), given.get("node_rank", 0)
    form = _form(engine, given, data, nodes)
    local_data = given.get("data_parallel_size_local", data)
    start = given.get("data_parallel_start_rank", 0)
    address, port = _meeting(form, given)
    settings = Settings(
        engine=engine,
        version=tuple(int(part) for part in version.split(".")[:3]),
        weights=given.get("model", ""),
        names=given.get("served_model_name") or [given.get("model", "")],
        host=given.get("host", "127.0.0.1" if engine == "sglang" else "0.0.0.0"),
        port=given.get("port", 30000 if engine == "sglang" else 8000),
        keys=given.get("api_key") or list(filter(None, [os.environ.get("VLLM_API_KEY", "")])),
        form=form,
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        local_data=local_data,
        start_rank=start,
        headless=given.get("headless", False) or (form == "sglang" and rank > 0),
        nodes=nodes,
        rank=rank,
        address=address,
        group_port=port,
        local_devices=0,
        dtype=given.get("dtype", ""),
        quantization=given.get("quantization") or "",
        experts=given.get("enable_expert_parallel", False),
        max_model_len=given.get("max_model_len", 0),
        eager=given.get("enforce_eager", False),
        additional=given.get("additional_config") or {},
    )
    _sizes(settings)
    return settings._replace(local_devices=_local_devices(settings))


def _form(engine: str, given: dict, data: int, nodes: int) -> str:
    if engine == "sglang":
        return "sglang" if nodes > 1 else "single"
    if given.get("distributed_executor_backend") == "ray":
        return "ray"
    if data > 1 or (given.get("headless") and nodes == 1):
        return "data_parallel"
    return "mp" if nodes > 1 else "single"


def _meeting(form: str, given: dict) -> tuple[str, int]:
    """Return where the group meets; the defaults are those of vllm/config/parallel.py."""
    if form == "sglang":
        host, separator, port = given.get("dist_init_addr", "").rpartition(":")
        if not separator or not port.isdigit():
            raise Refused("ValueError", "--dist-init-addr HOST:PORT is needed with --nnodes")
        return host, int(port)
    if form == "mp":
        return given.get("master_addr", "127.0.0.1"), given.get("master_port", 29501)
    return given.get("data_parallel_address", "127.0.0.1"), given.get("data_parallel_rpc_port", 29550)


def _sizes(settings: Settings) -> None:
    """Refuse sizes of which no placement can be made."""
    if min(settings.tensor, settings.pipeline, settings.data, settings.nodes) < 1:
        raise Refused("ValueError", "a parallel size is below 1")
    if not 0 <= settings.rank < settings.nodes:
        raise Refused("ValueError", f"node_rank ({settings.rank}) must be below nnodes ({settings.nodes})")
    world = settings.tensor * settings.pipeline
    if settings.form in ("mp", "sglang") and world % settings.nodes:
        raise Refused("ValueError", f"world size ({world}) must be divisible by nnodes ({settings.nodes})")
    if settings.form == "mp" and bool(settings.rank) != settings.headless:
        raise Refused("ValueError", "node ranks above 0, and they alone, run with --headless")
    if settings.start_rank + settings.local_data > settings.data:
        text = f"data_parallel_size_local ({settings.local_data}) from rank {settings.start_rank} on"
        raise Refused("ValueError", f"{text} must be <= data_parallel_size ({settings.data})")
    if settings.form == "data_parallel" and settings.start_rank and not settings.headless:
        raise Refused("ValueError", "data_parallel_start_rank is for --headless; other ways are not emulated")


def _local_devices(settings: Settings) -> int:
    """Return how many accelerators the processes of this node use; Ray's are counted by its workers."""
    one = settings.tensor * settings.pipeline
    if settings.form == "ray":
        return 0
    if settings.form == "data_parallel":
        return one * settings.local_data
    return one * settings.data // settings.nodes


def here() -> vllm_checks.Place:
    chip = os.environ.get("LLM_EMULATED_CHIP", "")
    return vllm_checks.Place(os.environ.get("LLM_EMULATED_ROOT", "/"), dict(os.environ), chip)


def seconds_of(name: str, default: float) -> float:
    return float(os.environ.get(name, default))


def member(settings: Settings, start: int, count: int) -> vllm_groups.Member:
    return vllm_groups.Member(start, count, {name: getattr(settings, name) for name in SAME})


def run(settings: Settings, version: str, log: Log) -> None:
    """Check, meet, load and serve; returns never but by an exception."""
    taken = None
    if not settings.headless:
        taken = _take_port(settings)
    for warning in vllm_checks.all_of(settings, here()):
        log.line(log.who, "WARNING", warning)
    log.engine(f"Initializing a V1 LLM engine (v{version}) with config: model='{settings.weights}'")
    group = meet(settings, log)
    load(settings, log)
    vllm_groups.loaded(group, is_head=not settings.headless)
    log.engine(f"GPU KV cache size: {CACHE_TOKENS} tokens")
    log.engine("init engine (profile, create kv cache, warmup model) took 0.01 seconds")
    log.ready = True
    if taken:
        _serve(settings, version, group, taken, log)
    elif settings.form == "sglang":
        _serve_health(settings, group)
    while True:
        group.check()
        time.sleep(LOOK_SECONDS)


def _take_port(settings: Settings) -> socket.socket:
    try:
        return openai_server.listen(settings.host, settings.port)
    except OSError as error:
        raise Refused("OSError", f"[Errno {error.errno}] {error.strerror}") from error


def meet(settings: Settings, log: Log) -> vllm_groups.Group:
    """Find the other members of the group; returns when all are there."""
    wait = seconds_of("LLM_EMULATED_WAIT_SECONDS", WAIT_SECONDS)
    if settings.form == "single":
        return vllm_groups.Group(vllm_groups.TORCH)
    if settings.form == "ray":
        return over_ray(settings, wait, log)
    if settings.form == "data_parallel":
        group, world = vllm_groups.Group(vllm_groups.HANDSHAKE), settings.data
        own = member(settings, settings.start_rank, settings.local_data)
    else:
        group, world = vllm_groups.Group(vllm_groups.TORCH), settings.tensor * settings.pipeline * settings.data
        own = member(settings, settings.rank * settings.local_devices, settings.local_devices)
    if settings.headless:
        vllm_groups.join(group, settings.address, settings.group_port, own, own_address(), wait)
    else:
        server = vllm_groups.listen(settings.address, settings.group_port)
        vllm_groups.head(group, server, world, own, wait, log.engine)
    return group


def own_address() -> str:
    """Return the address that this node is told to use; empty for none."""
    return os.environ.get("VLLM_HOST_IP") or os.environ.get("HCCL_IF_IP", "")


def over_ray(settings: Settings, wait: float, log: Log) -> vllm_groups.Group:
    """Have Ray start one worker on each node that has devices for this engine, and wait for them."""
    group, world = vllm_groups.Group(vllm_groups.RAY), settings.tensor * settings.pipeline * settings.data
    kind = "NPU" if settings.engine in vllm_checks.NPU_ENGINES else "GPU"
    try:
        cluster, address = ray_standin.driver(), own_address() or ray_standin.own_address()
        placed = ray_standin.place(cluster, kind, world, address, wait, log.engine)
        server = vllm_groups.listen(address, 0)
        start = 0
        for node, count in placed:
            given = {
                "settings": settings._replace(local_devices=count)._asdict(),
                "start": start,
                "address": address,
                "port": server.getsockname()[1],
            }
            program = [sys.executable, os.path.abspath(__file__), "--worker", json.dumps(given)]
            ray_standin.start(cluster, node, program, {VARIABLE: os.environ[VARIABLE]})
            start += count
    except ray_standin.RayError as error:
        kind, _colon, text = str(error).partition(": ")
        raise Refused(kind, text) from error
    vllm_groups.head(group, server, world, member(settings, 0, 0), wait, log.engine)
    return group


def worker(given: dict, version: str) -> int:
    """Be what Ray starts on a node: one process for the engine's devices there."""
    settings = Settings(**given["settings"])
    settings = settings._replace(version=tuple(settings.version), headless=True)
    log = Log(f"RayWorkerWrapper pid={os.getpid()}")
    return guarded(lambda: _work(settings, given, version, log), log)


def _work(settings: Settings, given: dict, version: str, log: Log) -> None:
    parent = os.getppid()
    wait = seconds_of("LLM_EMULATED_WAIT_SECONDS", WAIT_SECONDS)
    group = vllm_groups.Group(vllm_groups.RAY)
    log.engine(f"worker of vLLM {version}, devices from rank {given['start']} on")
    try:
        vllm_checks.all_of(settings, here())
    except Refused as error:
        vllm_groups.report_failure(given["address"], given["port"], error, wait)
        raise
    own = member(settings, given["start"], settings.local_devices)
    vllm_groups.join(group, given["address"], given["port"], own, own_address(), wait)
    load(settings, log)
    vllm_groups.loaded(group, is_head=False)
    log.ready = True
    while os.getppid() == parent:
        group.check()
        time.sleep(LOOK_SECONDS)


def load(settings: Settings, log: Log) -> None:
    """Take the time that loading takes, and tell of it shard by shard."""
    files = vllm_checks.shards(settings.weights)
    whole = seconds_of("LLM_EMULATED_LOAD_SECONDS", LOAD_SECONDS)
    log.engine(f"Starting to load model {settings.weights}...")
    for done in range(len(files) + 1):
        shown = f"{done * 100 // len(files)}% Completed | {done}/{len(files)}"
        print(f"Loading safetensors checkpoint shards: {shown} [00:00<00:00,  1.00it/s]", file=sys.stderr, flush=True)
        time.sleep(whole / (len(files) + 1))
    log.engine(f"Loading weights took {whole:.2f} seconds")


def answers_of(settings: Settings) -> dict[str, str]:
    """Return the golden answers: of the file that the variable names, else of the one among the weights."""
    path = os.environ.get("LLM_EMULATED_ANSWERS") or os.path.join(settings.weights, "emulated_answers.json")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def _serve(settings: Settings, version: str, group: vllm_groups.Group, taken: socket.socket, log: Log) -> None:
    log.info(f"Starting vLLM API server 0 on http://{settings.host}:{settings.port}")
    started = threading.Event()
    arguments = (settings.host, settings.port, settings.names, answers_of(settings), group.lost.empty)
    extra = {"version": version, "taken": taken, "started": started.set}
    threading.Thread(
        target=openai_server.serve, args=(*arguments, threading.Event(), settings.keys), kwargs=extra, daemon=True
    ).start()
    started.wait()
    print(f"(APIServer pid={os.getpid()}) INFO:     Application startup complete.", flush=True)
    if settings.engine == "sglang":
        print("The server is fired up and ready to roll!", flush=True)


def _serve_health(settings: Settings, group: vllm_groups.Group) -> None:
    """Answer /health alone, as sglang's ranks above 0 do (sglang/srt/utils.py, launch_dummy_health_check_server)."""
    taken = _take_port(settings)
    arguments = (settings.host, settings.port, settings.names, {}, group.lost.empty, threading.Event())
    threading.Thread(target=openai_server.serve, args=arguments, kwargs={"taken": taken}, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
