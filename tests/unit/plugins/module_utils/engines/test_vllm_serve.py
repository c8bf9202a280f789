# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.engines import vllm_serve
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError

SIZES = {
    "tensor_parallel": 4,
    "pipeline_parallel": 1,
    "data_parallel": 4,
    "data_parallel_local": 2,
    "expert_parallel": True,
}


def planned(form, hosts=2, arguments=(), **sizes):
    serving = {"model_name": "m", "port": 8000, "max_model_len": 512, "max_num_seqs": 4, "engine_args": [*arguments]}
    ports = {vllm_serve.RPC: 13389, vllm_serve.MASTER: 29500, vllm_serve.RAY: 6379}
    nodes = [
        {"host": f"a{rank}", "rank": rank, "address": f"192.0.2.{rank}", "weights_path": "/w"} for rank in range(hosts)
    ]
    group = {"head": "a0", "parallel": {**SIZES, **sizes, "form": form}, "nodes": nodes}
    plan = {"serving": serving, "engine": {"group_ports": ports}}
    return [vllm_serve.command(plan, group, node, flags=("--own", "1")) for node in nodes]


def differing(head, other):
    return [word for word in other if word not in head], [word for word in head if word not in other]


def test_data_parallel_ranks_differ_in_what_makes_them_ranks():
    head, other = planned("data_parallel")
    assert head == [
        "vllm", "serve", "/w", "--served-model-name", "m", "--host", "192.0.2.0", "--port", "8000",
        "--max-model-len", "512", "--max-num-seqs", "4", "--tensor-parallel-size", "4", "--data-parallel-size", "4",
        "--data-parallel-size-local", "2", "--data-parallel-address", "192.0.2.0", "--data-parallel-rpc-port", "13389",
        "--enable-expert-parallel", "--own", "1",
    ]  # fmt: skip
    assert differing(head, other)[0] == ["192.0.2.1", "--headless", "--data-parallel-start-rank"]
    assert other[other.index("--data-parallel-start-rank") + 1] == "2"


def test_mp_ranks_have_their_number_and_the_heads_address():
    head, other = planned("mp", pipeline_parallel=2, data_parallel=1)
    for rank, argv in enumerate((head, other)):
        assert argv[argv.index("--node-rank") + 1] == str(rank)
        assert argv[argv.index("--master-addr") + 1] == "192.0.2.0"
        assert argv[argv.index("--nnodes") + 1] == "2"
        assert argv[argv.index("--pipeline-parallel-size") + 1] == "2"
        assert ("--headless" in argv) == (rank > 0)


def test_ray_and_a_single_host_name_no_peer():
    for form in ("ray", "single"):
        (argv,) = planned(form, hosts=1, data_parallel=1, expert_parallel=False)
        assert "--master-addr" not in argv and "--data-parallel-address" not in argv
        assert ("ray" in argv) == (form == "ray")
    (argv,) = planned("single", hosts=1, data_parallel=2)
    assert argv[argv.index("--data-parallel-size") + 1] == "2"


def test_what_the_user_adds_comes_last():
    assert planned("mp", arguments=["--x", "y"])[1][-4:] == ["--own", "1", "--x", "y"]


@pytest.mark.parametrize(
    "arguments", [["--api-server-count", "2", "--x"], ["--api_server_count=2", "--x"], ["-asc", "2", "--x"]]
)
def test_what_is_the_apis_alone_goes_to_the_head_alone(arguments):
    head, other = planned("data_parallel", arguments=arguments)
    assert head[-len(arguments) :] == arguments
    assert other[-3:] == ["--own", "1", "--x"]


@pytest.mark.parametrize(
    ("flag", "owned"),
    [
        ("--port", "--port"),
        ("--port=9", "--port"),
        ("--max_model_len", "--max-model-len"),
        ("--tensor-par", "--tensor-parallel-size"),
        ("-tp", "-tp"),
        ("-tp=2", "-tp"),
        ("--no-enable-expert-parallel", "--enable-expert-parallel"),
        ("--disable-expert-parallel", "--enable-expert-parallel"),
        ("--headless", "--headless"),
        ("--block-size", ""),
        ("--seed", ""),
        ("--", ""),
        ("32", ""),
        ("--disable-log-stats", ""),
    ],
)
def test_which_flags_the_plan_decides(flag, owned):
    assert vllm_serve.owned_name(flag, vllm_serve.OWNED) == owned


def test_a_flag_of_the_plan_is_refused_with_the_variable_that_sets_it():
    with pytest.raises(LlmError, match="--tensor-parallel-size, which the plan decides") as caught:
        vllm_serve.refuse_owned(["--seed", "1", "--tensor_parallel_size=8"])
    assert caught.value.wanted == "llm_parallel"
    vllm_serve.refuse_owned(["--seed", "1"])


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--a", "1"], "1"),
        (["--a=1"], "1"),
        (["--a"], ""),
        (["--a", "--b"], ""),
        (["--b", "1"], None),
        ([], None),
    ],
)
def test_the_value_of_an_option(arguments, value):
    assert vllm_serve.value_of(arguments, "--a") == value
