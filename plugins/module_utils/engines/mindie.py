# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""MindIE: Huawei's own engine on Atlas 800I A2, on up to four servers. Pure.

Source of what is said here, where nothing else is named: Ascend/MindIE-LLM, docs/en/user_guide/user_manual
(prefill_decode_mixed_deployment, environment_variable, service_parameter_configuration) and
examples/atb_models/examples/models/deepseek-r1/README.md.
"""

from __future__ import annotations

import ipaddress
import re

from ..errors import LlmError
from . import mindie_config
from .containers import mount, spec
from .mindie_config import INFER, MANAGEMENT, MASTER, METRICS, SERVICE_HOME, WHEEL_HOME, generation, port

MOST_NODES, MOST_DEVICES = 4, 32
FAMILY, PCIE_FAMILY = "ascend_a2", "ascend_310p"
# Sizes of the experts' split in MindIE's own two-server profile for A2 (src/server/scripts/A2_double_machine: dp 2,
# tp 8, moe_ep 4, moe_tp 4; the same in docs/zh/user_guide/feature/kv_cache_pool.md).
PROFILE_DEVICES, PROFILE_DATA, MOE_TENSOR = 16, 2, 4
_PROFILE_SOURCE = "MindIE's own profile for two Atlas 800I A2 (docs/zh/user_guide/feature/kv_cache_pool.md)"
_WHOLE_SOURCE = "what MindIE does without sizes in config.json, as its README for DeepSeek-R1 runs it on two and four"
READY = "Daemon start success!"
# What config.json of the weights has to say for a release, besides what it says: 2.0.T3 knows no deepseek_v3 (README of
# deepseek-r1 of that release).
PATCHES = {"2.0.T3.1": {"model_type": "deepseekv2"}}
# The daemon gives its endpoint 5 s and its processes 15 s (src/server/daemon/llm_daemon.cpp).
STOP_SECONDS = 45
# README of deepseek-r1; used where the plan does not say which share its arithmetic took.
MEMORY_FRACTION = 0.95
START_FILE = "start_mindie.py"
# From 2.3 on MindIE is delivered as a .run package (mindieservice_daemon) or as wheels (mindie_llm_server), and the
# version does not say which an image holds: the documentation of 2.3 at hiascend.com knows only the first, while
# docker/build.sh of 3.0 makes the second unless told otherwise.
_START = f'''\
"""Becomes MindIE's server, whichever of its two packages the image holds. Written by baremetal.llm."""

import os
import shutil
import sys

HOME = "{SERVICE_HOME}"
daemon = HOME + "/bin/mindieservice_daemon"
server = shutil.which("mindie_llm_server")
if server:
    os.execv(server, [server])
if os.access(daemon, os.X_OK):
    os.chdir(HOME)
    os.execv(daemon, [daemon])
sys.exit("this image has neither mindie_llm_server nor " + daemon)
'''
# Older files of these names in /dev/shm make a second start in the same container fail, which is what happens when the
# group starts again: a new container has a /dev/shm of its own, a new engine in the old container has not.
_DEV = "/dev"
_LEFT_BEHIND = ("*llm_backend_*", "llm_tokenizer_shared_memory_*")
# Of the multi-server part of the documentation: a proxy in the container breaks what the nodes say to each other.
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def check(deployment: dict, nodes: list[dict]) -> None:
    """Refuse what MindIE cannot do; ``deployment`` has the settings, ``nodes`` the hosts of one replica group."""
    _check_hardware(nodes)
    if deployment.get("llm_api_keys", 0):
        raise LlmError(
            "MindIE knows no API keys",
            wanted="no llm_api_keys for this engine",
            found=f"{deployment['llm_api_keys']} keys",
            remedy="let a gateway in front of MindIE ask for the key, and close its port to everybody else",
        )
    if deployment.get("llm_engine_args"):
        raise LlmError(
            "MindIE takes no further flags: all is said in config.json, which the plan writes",
            wanted="no llm_engine_args for this engine",
            # Both that it has are the plan's: --config-file and --expert-parallel (llm_daemon.cpp).
            found=", ".join(re.split(r"[= ]", flag, maxsplit=1)[0] for flag in deployment["llm_engine_args"]),
            remedy="remove llm_engine_args; llm_max_model_len, llm_max_num_seqs and llm_parallel are translated",
        )


def _check_hardware(nodes: list[dict]) -> None:
    names = ", ".join(node["host"] for node in nodes)
    families = {node["host"]: node.get("family", "") for node in nodes}
    if len(nodes) > 1 and PCIE_FAMILY in families.values():
        raise LlmError(
            "MindIE cannot spread a model over hosts with Atlas 300I Duo cards, which have no network of their own",
            wanted="one host, or Atlas 800I A2 servers",
            found=f"{len(nodes)} hosts: {names}",
            remedy="take vllm_mindspore, whose ranks talk over the hosts' network",
        )
    others = sorted(host for host, family in families.items() if family and family != FAMILY)
    if others:
        raise LlmError(
            "this collection runs MindIE on Atlas 800I A2 only",
            wanted=f"hosts of the family {FAMILY}",
            found=", ".join(f"{families[host]} on {host}" for host in others),
            remedy="choose another engine for these hosts",
        )
    if len(nodes) > MOST_NODES:
        raise LlmError(
            f"MindIE serves one model on at most {MOST_NODES} servers and {MOST_DEVICES} NPUs",
            wanted=f"a replica group of at most {MOST_NODES} hosts",
            found=f"{len(nodes)} hosts: {names}",
            remedy="make several groups replica_* of them",
        )
    for node in nodes:
        if node.get("address") and not _is_ipv4(node["address"]):
            raise LlmError(
                f"MindIE wants an IPv4 address of {node['host']}",
                wanted="an IPv4 address that the other nodes reach, not 0.0.0.0",
                found=node["address"],
                remedy="set llm_interface of this host to an interface with such an address",
            )


def _is_ipv4(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 and not address.is_unspecified


def parallel(model: dict, version: str, devices: list[int], wanted: dict[str, int], **_about: object) -> dict:
    """Return the sizes of a group whose nodes have ``devices`` NPUs each.

    :param wanted: overrides: tensor_parallel, pipeline_parallel, data_parallel
    :return: as every engine, and moe_tensor_parallel, moe_expert_parallel: how the experts are split
    :raises LlmError: for sizes that cannot be, with the possible ones
    """
    total, shape = sum(devices), model["architecture"]
    if len(devices) > MOST_NODES or total > MOST_DEVICES:
        raise LlmError(
            f"MindIE serves one model on at most {MOST_NODES} servers and {MOST_DEVICES} NPUs",
            wanted=f"at most {MOST_DEVICES} NPUs",
            found=f"{total} on {len(devices)} hosts",
            remedy="make several groups replica_* of the hosts",
        )
    if wanted.get("pipeline_parallel", 1) != 1:
        raise LlmError(
            "MindIE has no pipeline parallelism",
            wanted="pipeline_parallel 1",
            found=f"pipeline_parallel {wanted['pipeline_parallel']}",
            remedy="remove it from llm_parallel",
        )
    possible = _possible(shape, version, devices)
    data, tensor, why = _choice(possible, version, total, wanted)
    if (data, tensor) not in possible:
        raise _impossible(shape, version, total, (data, tensor), possible)
    experts, slices = possible[(data, tensor)]
    return {
        "tensor_parallel": tensor,
        "pipeline_parallel": 1,
        "data_parallel": data,
        "data_parallel_local": max(1, data // len(devices)),
        "expert_parallel": experts > 1,
        "moe_expert_parallel": experts,
        "moe_tensor_parallel": slices,
        "form": "mindie",
        "why": why,
    }


def _choice(possible: dict, version: str, total: int, wanted: dict[str, int]) -> tuple[int, int, str]:
    """Return (data parallel, tensor parallel, why); it may be impossible."""
    if "data_parallel" in wanted or "tensor_parallel" in wanted:
        data = wanted.get("data_parallel") or max(1, total // wanted["tensor_parallel"])
        return data, wanted.get("tensor_parallel") or max(1, total // data), "llm_parallel"
    if generation(version) and total == PROFILE_DEVICES and (PROFILE_DATA, total // PROFILE_DATA) in possible:
        return PROFILE_DATA, total // PROFILE_DATA, _PROFILE_SOURCE
    if (1, total) in possible or not possible:
        return 1, total, _WHOLE_SOURCE
    data, tensor = min(possible)
    return data, tensor, "the fewest copies of the attention that its heads can be divided for"


def _possible(shape: dict, version: str, devices: list[int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Return {(data parallel, tensor parallel): (experts' groups, slices of an expert)} that can be."""
    total, found = sum(devices), {}
    for data in range(1, total + 1):
        tensor = total // data
        split = _experts(shape, data, total)
        # A group of tensors fills whole hosts or a part of one.
        whole = devices[0] % tensor == 0 or tensor % devices[0] == 0
        if (
            total % data == 0
            and shape["heads"] % tensor == 0
            and whole
            and split
            and (data == 1 or generation(version))
        ):
            found[(data, tensor)] = split
    return found


def _experts(shape: dict, data: int, total: int) -> tuple[int, int] | None:
    """Return (groups of experts, slices of an expert), whose product is the number of devices; None where none fits.

    With whole tensors MindIE slices every expert over all devices. Otherwise the slices of its own profile are kept.
    """
    if data == 1 or not shape.get("experts", 1):
        return (1, total)
    slices = MOE_TENSOR if total % MOE_TENSOR == 0 else 1
    groups = total // slices
    return (groups, slices) if shape.get("experts", groups) % groups == 0 else None


def _impossible(shape: dict, version: str, total: int, sizes: tuple[int, int], possible: dict) -> LlmError:
    data, tensor = sizes
    old = "" if generation(version) or data == 1 else f"; {version} has no data parallelism"
    listed = ", ".join(f"data {one} x tensor {other}" for one, other in sorted(possible)) or "none on this many NPUs"
    return LlmError(
        f"MindIE cannot spread this model as data parallel {data} x tensor parallel {tensor}",
        wanted=f"a product of {total} NPUs, {shape['heads']} heads divided evenly, whole hosts; possible: {listed}",
        found=f"data_parallel {data}, tensor_parallel {tensor}, {total} NPUs{old}",
        remedy="change llm_parallel, or the number of hosts" if possible else "take two or four servers",
    )


def communication(plan: dict, group: dict) -> dict[str, str]:
    """Return the variables of HCCL that MindIE asks for; the same on all nodes."""
    # 120 MB is MindIE's own default (environment_variable), and what its set_env.sh sets.
    found = {"HCCL_BUFFSIZE": "120"}
    if len(group["nodes"]) > 1:
        # Of the README: reading the weights takes longer than the 120 s that HCCL waits; 7200 is the most it takes.
        found.update(HCCL_CONNECT_TIMEOUT="7200", HCCL_EXEC_TIMEOUT="0", HCCL_DETERMINISTIC="true")
        if generation(plan["engine"]["version"]):
            # Of MindIE's script for two servers (src/server/scripts/A2_double_machine).
            found.update(HCCL_OP_EXPANSION_MODE="AIV", HCCL_ALGO="level0:NA;level1:pipeline")
    return found


def launch(plan: dict, group: dict, node: dict) -> dict:
    """Return the LaunchSpec of ``node``'s rank.

    :raises LlmError: for names, ports or device addresses that MindIE refuses
    """
    age, several = generation(plan["engine"]["version"]), len(group["nodes"]) > 1
    is_head = node["host"] == group["head"]
    launch_dir, work = f"{node['run_dir']}/launch", f"{node['run_dir']}/work"
    api = plan["serving"]["port"] if is_head else 0
    management = f"http://{node['address']}:{port(plan, MANAGEMENT)}/v2/health/ready"
    tls = mindie_config.tls_of(plan)
    return spec(
        node,
        # 2.0 wants to be started where it is installed, as its README does it.
        ["python3", f"{launch_dir}/{START_FILE}"] if age else ["./bin/mindieservice_daemon"],
        workdir=work if age else SERVICE_HOME,
        before=[["find", f"{_DEV}/shm", "-name", name, "-type", "f", "-delete"] for name in _LEFT_BEHIND],
        env=_environment(plan, group, node),
        env_scripts=_scripts(age),
        # MindIE wants the files it reads to be its own user's (FileUtils::ConstrainOwner).
        user="0:0",
        devices=_devices(node),
        mounts=_mounts(node, several, tls, age),
        files=_files(plan, group, node, age),
        ports=_ports(plan, is_head, several),
        port=api,
        # Its certificates are not the role's to know: with HTTPS the log alone says that it is ready.
        readiness={"url": management if is_head and not tls["https"] else "", "log": re.escape(READY)},
        logs=[f"{work}/mindie/log"],
        stop_seconds=STOP_SECONDS,
        probe_devices=["/dev/davinci_manager", f"/dev/davinci{node['device_ids'][0]}"],
        notes=_notes(plan, several, tls, age),
    )


def _environment(plan: dict, group: dict, node: dict) -> dict[str, str]:
    age, nodes = generation(plan["engine"]["version"]), group["nodes"]
    launch_dir = f"{node['run_dir']}/launch"
    fraction = node.get("memory", {}).get("share") or MEMORY_FRACTION
    env = {
        "MIES_CONFIG_JSON_PATH": f"{launch_dir}/config.json",
        "MIES_CONTAINER_IP": node["address"],
        "WORLD_SIZE": str(sum(each["devices"] for each in nodes)),
        "ATB_LLM_HCCL_ENABLE": "1",
        "ATB_LLM_COMM_BACKEND": "hccl",
        "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
        # More threads make the reading of weights slow.
        "OMP_NUM_THREADS": "1",
        "NPU_MEMORY_FRACTION": f"{fraction:g}",
        "MINDIE_LOG_TO_STDOUT": "1",
        # Without it there are no metrics.
        "MIES_SERVICE_MONITOR_MODE": "1",
        **dict.fromkeys(_PROXIES, ""),
    }
    if age:
        # Of MindIE's script for A2 (src/server/scripts/A2_double_machine).
        env.update(
            TASK_QUEUE_ENABLE="1",
            ATB_WORKSPACE_MEM_ALLOC_ALG_TYPE="3",
            INF_NAN_MODE_ENABLE="1",
            MINDIE_ASYNC_SCHEDULING_ENABLE="1",
        )
    if len(nodes) > 1:
        # 2.0 reads the first name, later versions the second.
        env.update(RANKTABLEFILE=f"{launch_dir}/ranktable.json", RANK_TABLE_FILE=f"{launch_dir}/ranktable.json")
        if age:
            env.update(MASTER_IP=_head(group)["address"], MASTER_PORT=str(port(plan, MASTER)))
    return env


def _head(group: dict) -> dict:
    return next(node for node in group["nodes"] if node["host"] == group["head"])


def _scripts(age: int) -> list[list[str]]:
    """Return the scripts to source: CANN, its library of transformers, MindIE's models, MindIE."""
    root = "/usr/local/Ascend"
    kernels = f"{root}/nnal/atb/set_env.sh"
    if not age:
        return [
            [f"{root}/ascend-toolkit/set_env.sh"],
            [kernels],
            [f"{root}/llm_model/set_env.sh", f"{root}/atb-models/set_env.sh"],
            [f"{root}/mindie/set_env.sh", f"{SERVICE_HOME}/set_env.sh"],
        ]
    wheel = f"{WHEEL_HOME}/set_env.sh"
    return [
        [f"{root}/cann/set_env.sh", f"{root}/ascend-toolkit/set_env.sh"],
        [kernels],
        # In an image of wheels one script is both.
        [f"{root}/atb-models/set_env.sh", wheel],
        [f"{root}/mindie/set_env.sh", f"{SERVICE_HOME}/set_env.sh", wheel],
    ]


def _devices(node: dict) -> list[str]:
    own = [f"/dev/davinci{number}" for number in node["device_ids"]]
    return [*own, "/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"]


def _mounts(node: dict, several: bool, tls: dict, age: int) -> list[dict]:
    found = [mount(f"{node['driver_dir']}/driver"), mount("/usr/local/dcmi"), mount(node["npu_smi"])]
    found += [mount("/etc/hccn.conf")] if several else []
    if tls["directory"]:
        homes = [SERVICE_HOME, WHEEL_HOME] if age else [SERVICE_HOME]
        found += [mount(tls["directory"], f"{home}/security") for home in homes]
    return found


def _files(plan: dict, group: dict, node: dict, age: int) -> list[dict]:
    def file(name: str, content: str, target: str = "") -> dict:
        # Wider than 0640 and MindIE refuses to read it (param_checker.cpp, ranktable_config.cpp: FILE_MODE_640).
        return {"name": name, "content": content, "mode": "0640", "owner": "0:0", "target": target}

    # 2.0 finds it where it is installed; later versions are told by MIES_CONFIG_JSON_PATH.
    config = mindie_config.render(plan, group, node)
    found = [file("config.json", config, "" if age else f"{SERVICE_HOME}/conf/config.json")]
    if len(group["nodes"]) > 1:
        found.append(file("ranktable.json", mindie_config.rank_table(group)))
    if age:
        found.append(file(START_FILE, _START))
    return found


def _ports(plan: dict, is_head: bool, several: bool) -> dict[int, str]:
    ports = {port(plan, what): what for what in (MANAGEMENT, METRICS)}
    if is_head:
        ports[plan["serving"]["port"]] = "API"
        if several:
            ports[port(plan, INFER)] = INFER
            ports.update({port(plan, MASTER): MASTER} if generation(plan["engine"]["version"]) else {})
    return ports


def _notes(plan: dict, several: bool, tls: dict, age: int) -> list[str]:
    notes = []
    if not tls["https"]:
        notes.append("MindIE answers plain HTTP: its own default, HTTPS, wants certificates")
    if several and not tls["nodes"]:
        notes.append(
            "MindIE's nodes talk to each other without TLS, which wants certificates: keep their network to them"
        )
    notes.append(
        f"MindIE takes prompts of up to {max(1, plan['serving']['max_model_len'] - 1)} tokens, longer ones are refused"
    )
    return notes
