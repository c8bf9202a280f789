# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.catalog.releases import RELEASES
from ansible_collections.baremetal.llm.plugins.module_utils.engines import vllm_ascend
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.tests.unit.plugins.module_utils.engines import ascend_plans
from hypothesis import given
from hypothesis import strategies as st

VERSIONS = ["0.9.1", "0.11.0", "0.13.0", "0.18.0", "0.23.0"]
TORCHAIR = '{"ascend_scheduler_config":{"enabled":true},"torchair_graph_config":{"enabled":true}}'
MTP = '{"num_speculative_tokens":3,"method":"mtp"}'


def specs(version="0.13.0", count=2, family="ascend_a2", precision="w8a8", args=(), wanted=None, keys=0):
    each = {"ascend_a2": 8, "ascend_a3": 16}[family]
    replica = ascend_plans.group(vllm_ascend, version, count, family, each, wanted or {})
    plan = ascend_plans.plan("vllm_ascend", version, replica, precision, args, keys)
    return plan, replica, [vllm_ascend.launch(plan, replica, node) for node in replica["nodes"]]


def checked(version: str, *args: str, nodes=({"host": "node-0"},), **settings):
    deployment = {"llm_engine": "vllm_ascend", "llm_engine_version": version, "llm_engine_args": list(args), **settings}
    vllm_ascend.check(deployment, list(nodes))


def test_recipes_and_keys_are_there_for_every_release():
    assert list(vllm_ascend.RECIPES) == list(vllm_ascend.KNOWN_KEYS) == list(RELEASES["vllm_ascend"]) == VERSIONS


@pytest.mark.parametrize(
    "version, flags",
    [
        ("0.9.1", ["--no-enable-prefix-caching", "--additional-config", TORCHAIR]),
        ("0.11.0", ["--no-enable-prefix-caching", "--additional-config", TORCHAIR]),
        ("0.13.0", ["--speculative-config", MTP, "--compilation-config", '{"cudagraph_mode":"FULL_DECODE_ONLY"}']),
        ("0.18.0", ["--speculative-config", MTP, "--compilation-config", '{"cudagraph_mode":"FULL_DECODE_ONLY"}']),
        (
            "0.23.0",
            [
                "--speculative-config",
                MTP,
                "--compilation-config",
                '{"cudagraph_mode":"FULL_DECODE_ONLY"}',
                "--additional-config",
                '{"enable_balance_scheduling":true}',
            ],
        ),
    ],
)
def test_command_of_r1_w8a8_on_two_a2(version, flags):
    head, worker = specs(version)[2]
    common = [
        "vllm", "serve", "/data/llm/weights/r1", "--served-model-name", "r1", "--host", "192.0.2.11", "--port", "8000",
        "--max-model-len", "16384", "--max-num-seqs", "16", "--tensor-parallel-size", "4", "--data-parallel-size", "4",
        "--data-parallel-size-local", "2", "--data-parallel-address", "192.0.2.11", "--data-parallel-rpc-port", "13389",
        "--enable-expert-parallel",
    ]  # fmt: skip
    # The scheduler of the older two takes a prompt in one step or not at all.
    tokens = "16384" if version in ("0.9.1", "0.11.0") else "4096"
    behind = [
        "--quantization", "ascend", "--seed", "1024", "--trust-remote-code", "--max-num-batched-tokens", tokens,
        "--gpu-memory-utilization", "0.92", *flags,
    ]  # fmt: skip
    assert head["argv"] == common + behind
    assert worker["argv"] == [
        *("192.0.2.12" if place == 6 else word for place, word in enumerate(common)),
        "--headless",
        "--data-parallel-start-rank",
        "2",
        *behind,
    ]


@pytest.mark.parametrize(
    "version, env",
    [
        ("0.9.1", {"VLLM_USE_V1": "1", "OMP_NUM_THREADS": "100"}),
        ("0.11.0", {"VLLM_USE_V1": "1", "OMP_NUM_THREADS": "100"}),
        ("0.13.0", {"OMP_NUM_THREADS": "1", "VLLM_ASCEND_BALANCE_SCHEDULING": "1"}),
        (
            "0.18.0",
            {"OMP_NUM_THREADS": "1", "VLLM_ASCEND_BALANCE_SCHEDULING": "1", "VLLM_ENGINE_READY_TIMEOUT_S": "3000"},
        ),
        ("0.23.0", {"OMP_NUM_THREADS": "1", "VLLM_ENGINE_READY_TIMEOUT_S": "3000"}),
    ],
)
def test_environment_is_that_of_the_release(version, env):
    spec = specs(version)[2][0]
    own = {name: value for name, value in spec["env"].items() if name.startswith(("VLLM_", "OMP_", "PYTORCH"))}
    assert own == {
        **env,
        "OMP_PROC_BIND": "false",
        "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
        "VLLM_NO_USAGE_STATS": "1",
    }
    assert any("VLLM_ENGINE_READY_TIMEOUT_S" in note for note in spec["notes"]) == (
        "VLLM_ENGINE_READY_TIMEOUT_S" not in env
    )


def test_only_the_head_has_an_api_and_its_ports_and_its_key():
    head, worker = specs(keys=1)[2]
    assert (head["port"], head["ports"], head["secret_env"]) == (
        8000,
        {8000: "API", 13389: "data parallel RPC"},
        ["VLLM_API_KEY"],
    )
    assert head["readiness"] == {"url": "http://192.0.2.11:8000/health", "log": ""}
    assert (worker["port"], worker["ports"], worker["secret_env"]) == (0, {}, [])
    assert worker["readiness"] == {"url": "", "log": ""}


def test_container_gets_devices_and_driver_and_nothing_writable_or_privileged():
    spec = specs()[2][0]
    assert spec["devices"] == [f"/dev/davinci{number}" for number in range(8)] + [
        "/dev/davinci_manager",
        "/dev/devmm_svm",
        "/dev/hisi_hdc",
    ]
    assert {(mount["source"], mount["target"]) for mount in spec["mounts"]} == {
        ("/usr/local/dcmi", "/usr/local/dcmi"),
        ("/usr/local/sbin/npu-smi", "/usr/local/bin/npu-smi"),
        ("/usr/local/Ascend/driver/lib64", "/usr/local/Ascend/driver/lib64"),
        ("/usr/local/Ascend/driver/version.info", "/usr/local/Ascend/driver/version.info"),
        ("/usr/local/Ascend/driver/tools/hccn_tool", "/usr/local/Ascend/driver/tools/hccn_tool"),
        ("/etc/ascend_install.info", "/etc/ascend_install.info"),
        ("/etc/hccn.conf", "/etc/hccn.conf"),
    }
    assert all(mount["read_only"] for mount in spec["mounts"])
    assert "privileged" not in spec


def test_devices_are_those_that_discovery_numbered_and_the_driver_is_where_the_host_has_it():
    node = {"device_ids": [4, 5], "driver_dir": "/opt/ascend/", "npu_smi": "/opt/npu-smi"}
    assert vllm_ascend.device_files(node)[:2] == ["/dev/davinci4", "/dev/davinci5"]
    sources = {mount["source"]: mount["target"] for mount in vllm_ascend.driver_mounts(node)}
    assert sources["/opt/ascend/driver/lib64"] == "/usr/local/Ascend/driver/lib64"


@pytest.mark.parametrize("version, first", [("0.9.1", 1), ("0.11.0", 1), ("0.13.0", 2), ("0.23.0", 2)])
def test_scripts_of_cann_lie_elsewhere_from_8_5_on(version, first):
    toolkit, nnal = vllm_ascend.env_scripts(version)
    assert toolkit == ["/usr/local/Ascend/ascend-toolkit/set_env.sh", "/usr/local/Ascend/cann/set_env.sh"][:first]
    assert nnal == ["/usr/local/Ascend/nnal/atb/set_env.sh"]


@pytest.mark.parametrize(
    "version, count, family, expected",
    [
        ("0.9.1", 2, "ascend_a2", {"HCCL_BUFFSIZE": "1024"}),
        ("0.11.0", 1, "ascend_a3", {"HCCL_BUFFSIZE": "1024"}),
        (
            "0.13.0",
            2,
            "ascend_a2",
            {"HCCL_BUFFSIZE": "200", "HCCL_INTRA_PCIE_ENABLE": "1", "HCCL_INTRA_ROCE_ENABLE": "0"},
        ),
        ("0.18.0", 1, "ascend_a3", {"HCCL_OP_EXPANSION_MODE": "AIV"}),
        ("0.23.0", 2, "ascend_a3", {"HCCL_OP_EXPANSION_MODE": "AIV", "HCCL_BUFFSIZE": "200"}),
    ],
)
def test_communication_is_what_the_tutorial_sets(version, count, family, expected):
    plan, replica, launched = specs(version, count, family)
    assert vllm_ascend.communication(plan, replica) == expected
    assert not [name for spec in launched for name in spec["env"] if name.startswith("HCCL_")]


@pytest.mark.parametrize(
    "count, each, sizes",
    [
        (2, 8, {"tensor_parallel": 4, "data_parallel": 4, "data_parallel_local": 2, "form": "data_parallel"}),
        (4, 8, {"tensor_parallel": 4, "data_parallel": 8, "data_parallel_local": 2, "form": "data_parallel"}),
        (1, 16, {"tensor_parallel": 4, "data_parallel": 4, "data_parallel_local": 4, "form": "single"}),
        (2, 16, {"tensor_parallel": 4, "data_parallel": 8, "data_parallel_local": 4, "form": "data_parallel"}),
    ],
)
def test_default_sizes(count, each, sizes):
    found = vllm_ascend.parallel(ascend_plans.model(), "0.13.0", [each] * count, {})
    assert sizes.items() <= found.items()
    assert found["expert_parallel"] is True
    assert found["pipeline_parallel"] == 1


def test_a_model_without_experts_has_none_spread():
    assert vllm_ascend.parallel(ascend_plans.model(experts=0), "0.13.0", [8], {})["expert_parallel"] is False


@pytest.mark.parametrize("version", VERSIONS[1:])
@pytest.mark.parametrize("wanted", [{"tensor_parallel": 8}, {"data_parallel": 2}])
def test_tp8_is_possible_where_graphs_take_sixteen_heads(version, wanted):
    found = vllm_ascend.parallel(ascend_plans.model(), version, [8, 8], wanted)
    assert (found["tensor_parallel"], found["data_parallel"]) == (8, 2)
    assert found["why"].startswith("llm_parallel")


@pytest.mark.parametrize("wanted", [{"tensor_parallel": 8}, {"data_parallel": 2}, {"tensor_parallel": 16}])
def test_tp8_is_refused_by_091_with_the_reason_and_what_is_possible(wanted):
    with pytest.raises(LlmError) as caught:
        vllm_ascend.parallel(ascend_plans.model(), "0.9.1", [8, 8], wanted)
    assert "torchair" in str(caught.value)
    assert "tensor_parallel 4 with data_parallel 4" in caught.value.wanted
    assert "tensor_parallel 8" not in caught.value.wanted


@pytest.mark.parametrize(
    "wanted",
    [
        {"tensor_parallel": 16},
        {"tensor_parallel": 3},
        {"pipeline_parallel": 2},
        {"tensor_parallel": 4, "data_parallel": 2},
        {"data_parallel": 5},
    ],
)
def test_sizes_that_do_not_fit_are_refused(wanted):
    with pytest.raises(LlmError, match="tensor x data is 16"):
        vllm_ascend.parallel(ascend_plans.model(), "0.18.0", [8, 8], wanted)


def test_experts_that_cannot_be_divided_evenly_are_refused_with_the_counts_that_can():
    with pytest.raises(LlmError, match="256 experts evenly by 24 NPUs") as caught:
        vllm_ascend.parallel(ascend_plans.model(), "0.18.0", [8, 8, 8], {})
    assert "group of 1, 2, 4, 8, 16, 32 nodes" in caught.value.wanted
    assert caught.value.found == "3 nodes"


def test_heads_that_graphs_of_091_cannot_take_are_refused_without_a_choice():
    with pytest.raises(LlmError) as caught:
        vllm_ascend.parallel(ascend_plans.model(heads=4), "0.9.1", [8], {})
    assert caught.value.found == "4 heads"


def test_bf16_is_not_quantized_and_has_no_guessed_tokens():
    for version in VERSIONS:
        spec = specs(version, 4, precision="bf16")[2][0]
        names = [name for name, value in ascend_plans.options(spec["argv"])]
        assert "--quantization" not in names
        assert "--speculative-config" not in names
        assert ("no speculative decoding" in " ".join(spec["notes"])) == (version not in ("0.9.1", "0.11.0"))


def test_flags_of_the_user_take_the_place_of_the_plans_and_the_plan_says_so():
    args = ("--max-num-batched-tokens=8192", "--speculative_config", "{}", "--enable-prefix-caching")
    spec = specs("0.9.1", args=args)[2][0]
    found = ascend_plans.options(spec["argv"])
    assert ("--max-num-batched-tokens", "8192") in found
    assert ("--max-num-batched-tokens", "16384") not in found
    assert ("--no-enable-prefix-caching", "") not in found
    assert any("--no-enable-prefix-caching is left out" in note for note in spec["notes"])
    assert any("--max-num-batched-tokens 16384 is left out" in note for note in spec["notes"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [2048, 4096, 32768])
@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        {"enabled": True},
        {"enabled": True, "enable_chunked_prefill": False},
        {"enabled": True, "enable_chunked_prefill": True},
        {"enabled": False},
    ],
)
def test_a_step_has_room_for_every_prompt_that_the_scheduler_cannot_split(version, length, scheduler):
    """AscendSchedulerConfig.__post_init__ of 0.9.1 and 0.11.0 ends with a ValueError otherwise."""
    plan, replica = specs(version)[:2]
    if scheduler is not None:
        config = {"ascend_scheduler_config": scheduler, "torchair_graph_config": {"enabled": True}}
        plan["serving"]["engine_args"] = ["--additional-config", json.dumps(config)]
    plan["serving"]["max_model_len"] = length
    found = ascend_plans.options(vllm_ascend.launch(plan, replica, replica["nodes"][0])["argv"])
    additional = json.loads(dict(found).get("--additional-config", "{}")).get("ascend_scheduler_config", {})
    whole = additional.get("enabled") and not additional.get("enable_chunked_prefill")
    assert int(dict(found)["--max-num-batched-tokens"]) == (max(4096, length) if whole else 4096)


@pytest.mark.parametrize("given", ["-O3", "-O", "-cc.cudagraph_mode", "--compilation-config"])
def test_graphs_of_the_user_take_the_place_of_the_plans(given):
    spec = specs(args=(given, "3"))[2][0]
    assert '{"cudagraph_mode":"FULL_DECODE_ONLY"}' not in spec["argv"]


@pytest.mark.parametrize("version", VERSIONS)
def test_eager_leaves_graphs_out(version):
    spec = specs(version, args=("--enforce-eager",))[2][0]
    text = " ".join(spec["argv"])
    assert "torchair" not in text
    assert "cudagraph" not in text
    assert any("graphs are left out" in note for note in spec["notes"])


@pytest.mark.parametrize("version", ["0.13.0", "0.18.0", "0.23.0"])
@pytest.mark.parametrize("key", ["ascend_scheduler_config", "torchair_graph_config"])
def test_keys_of_old_releases_are_refused(version, key):
    with pytest.raises(LlmError, match="ignores") as caught:
        checked(version, "--additional-config", json.dumps({key: {"enabled": True}}))
    assert "removed with 0.12" in caught.value.found


@pytest.mark.parametrize(
    "version, config",
    [
        ("0.23.0", {"scheduler_config": {"enable_balance_scheduling": True}}),
        ("0.18.0", {"enable_balance_scheduling": True}),
        ("0.13.0", {"enable_multistream_moe": True}),
        ("0.11.0", {"torchair_graph_config": {"enabled": True, "enable_multistream_moe": True}}),
        ("0.11.0", {"lmhead_tp_size": 2}),
        ("0.9.1", {"torchair_graph_config": {"enabled": True, "mode": "max-autotune"}}),
    ],
)
def test_keys_that_a_release_ignores_are_refused(version, config):
    with pytest.raises(LlmError, match="ignores"):
        checked(version, f"--additional_config={json.dumps(config)}")


@pytest.mark.parametrize(
    "version, config",
    [
        ("0.23.0", {"enable_balance_scheduling": False}),
        ("0.13.0", {"enable_cpu_binding": True}),
        ("0.11.0", {"enable_cpu_binding": True}),
        ("0.9.1", {"torchair_graph_config": {"enabled": True, "use_cached_graph": True}}),
    ],
)
def test_keys_that_a_release_reads_are_taken(version, config):
    checked(version, "--additional-config", json.dumps(config))


@pytest.mark.parametrize(
    "args",
    [
        ("--additional-config", "no json"),
        ("--additional-config", "[1]"),
        ("--additional-config",),
        ("--additional-config.enable_cpu_binding", "true"),
        ("--additional-conf", "{}"),
        ("--quantization", "ascend"),
        ("-q", "ascend"),
        ("--headless",),
        ("--tensor-parallel-size", "8"),
        ("--distributed-executor-backend=ray",),
    ],
)
def test_arguments_that_contradict_the_plan_or_are_not_checked_are_refused(args):
    with pytest.raises(LlmError, match="llm_engine_args"):
        checked("0.13.0", *args)


def test_091_cannot_be_without_graphs_unless_eager():
    with pytest.raises(LlmError, match="no ACL graphs for DeepSeek"):
        checked("0.9.1", "--additional-config", '{"enable_cpu_binding": true}')
    checked("0.9.1", "--additional-config", '{"enable_cpu_binding": true}', "--enforce-eager")
    with pytest.raises(LlmError, match="eager at once"):
        checked("0.9.1", "--additional-config", TORCHAIR, "--enforce-eager")


def test_the_300i_duo_is_refused_with_the_way_out():
    node = {"host": "duo-1", "family": "ascend_310p", "chip": "310P3"}
    with pytest.raises(LlmError, match="duo-1") as caught:
        checked("0.18.0", nodes=[node])
    assert "vllm_mindspore" in caught.value.remedy
    assert "310P3" in caught.value.found


def test_a_release_without_a_build_for_a3_refuses_it():
    with pytest.raises(LlmError, match="does not serve") as caught:
        specs("0.9.1", 1, "ascend_a3")
    assert caught.value.remedy == "set llm_engine_version"


def test_two_api_keys_are_refused():
    with pytest.raises(LlmError, match="one API key"):
        checked("0.13.0", llm_api_keys=2)


@given(
    version=st.sampled_from(VERSIONS),
    count=st.integers(1, 8),
    family=st.sampled_from(["ascend_a2", "ascend_a3"]),
    precision=st.sampled_from(["w8a8", "bf16"]),
    wanted=st.fixed_dictionaries(
        {},
        optional={
            "tensor_parallel": st.sampled_from([1, 2, 3, 4, 8, 16]),
            "pipeline_parallel": st.sampled_from([1, 2]),
            "data_parallel": st.sampled_from([1, 2, 4, 8, 16, 32]),
        },
    ),
    args=st.lists(
        st.sampled_from(["--enforce-eager", "--seed=7", "--no-enable-prefix-caching", "--gpu-memory-utilization=0.8"]),
        unique=True,
    ),
)
def test_ranks_of_every_accepted_plan_differ_only_where_they_must(version, count, family, precision, wanted, args):
    try:
        plan, replica, launched = specs(version, count, family, precision, args, wanted)
    except LlmError as error:
        assert error.wanted
        assert error.found
        assert error.remedy
        return
    sizes = replica["parallel"]
    total = sum(node["devices"] for node in replica["nodes"])
    assert sizes["tensor_parallel"] * sizes["pipeline_parallel"] * sizes["data_parallel"] == total
    assert sizes["data_parallel_local"] * count == sizes["data_parallel"]
    assert wanted.items() <= {key: sizes[key] for key in wanted}.items()
    starts = []
    for node, spec in zip(replica["nodes"], launched, strict=True):
        found = ascend_plans.options(spec["argv"])
        names = [name.replace("--no-", "--") for name, value in found]
        assert len(names) == len(set(names))
        assert ("--host", node["address"]) in found
        rest = {name: value for name, value in found if name != "--host"}
        headless = rest.pop("--headless", None)
        starts.append(int(rest.pop("--data-parallel-start-rank", "0")))
        assert (headless is None) == (node["rank"] == 0)
        assert rest == {name: value for name, value in ascend_plans.options(launched[0]["argv"]) if name != "--host"}
        assert {key: spec[key] for key in ("env", "mounts", "devices", "env_scripts", "notes", "cap_add")} == {
            key: launched[0][key] for key in ("env", "mounts", "devices", "env_scripts", "notes", "cap_add")
        }
        assert all(isinstance(value, str) for value in spec["env"].values())
    assert starts == [rank * sizes["data_parallel_local"] for rank in range(count)]
    assert vllm_ascend.communication(plan, replica).keys().isdisjoint(launched[0]["env"])
    json.dumps(launched)
