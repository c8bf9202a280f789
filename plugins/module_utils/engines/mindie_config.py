# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two files that MindIE reads: config.json and the rank table. Pure.

config.json is written whole, so that nothing depends on what an image holds. Sources, by generation: 2.0 as the README
of the deepseek-r1 example printed it for 2.0.T3; later ones as Ascend/MindIE-LLM:src/server/conf/config.json has it
(2.3 with the passwords of private keys, 3.0 without); types and ranges as src/config_manager/*.cpp checks them.
"""

from __future__ import annotations

import ipaddress
import json
import re

from ..errors import LlmError

INFER = "multi-node inference"
COMM = "communication between services"
MANAGEMENT = "health and management"
METRICS = "metrics"
MASTER = "rendezvous of torch.distributed"
# Defaults of src/server/conf/config.json; the last is torch's own default, MindIE names none (MASTER_PORT).
PORTS = {INFER: 1120, COMM: 1121, MANAGEMENT: 1026, METRICS: 1027, MASTER: 29500}
LEAST_PORT = 1024  # CheckMaxMinValue of every port in server_config.cpp and backend_config.cpp

# Where MindIE is installed: by its .run package, or by its wheel (prefill_decode_mixed_deployment.md).
SERVICE_HOME = "/usr/local/Ascend/mindie/latest/mindie-service"
WHEEL_HOME = "/usr/local/lib/python3.11/site-packages/mindie_llm"

# docs/en/user_guide/user_manual/prefill_decode_mixed_deployment.md: 1000 is the default, 300 the advice.
LINKS = 300
# Default of both timeouts is 600 s. The whole of an answer of R1 takes longer: 16384 tokens at 20 a second are 820 s.
TOKEN_TIMEOUT_S, ANSWER_TIMEOUT_S = 600, 3600
# Default of maxPrefillBatchSize.
PREFILL_BATCH = 50
# model_deploy_config.cpp, CheckModelNameLength.
_MODEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,254}[A-Za-z0-9])?")
# SafePath::CheckSpecialChars.
_PATH = re.compile(r"(?!.*\.\.)/[A-Za-z0-9_./-]+")
TLS_KEYS = ("directory", "https", "nodes")


def generation(version: str) -> int:
    """Return 0 for the 2.0 line, 1 for 2.3, 2 for 3.0 and later: they differ in the keys of config.json."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return 2 if major >= 3 else int((major, minor) > (2, 0))


def port(plan: dict, what: str) -> int:
    """Return the port of ``what``: the plan's, or MindIE's own default where the plan has none."""
    return int(plan["engine"].get("group_ports", {}).get(what, PORTS[what]))


def tls_of(plan: dict) -> dict:
    """Return {https, nodes, directory}: which connections are encrypted, and the host's folder of certificates.

    :raises LlmError: for keys that have no meaning, or certificates that are wanted and not there
    """
    tls = dict(plan["serving"].get("tls") or {})
    unknown = sorted(set(tls) - set(TLS_KEYS))
    if unknown:
        raise LlmError(
            "TLS of MindIE has a setting that nothing reads",
            wanted="keys of " + ", ".join(TLS_KEYS),
            found=", ".join(unknown),
            remedy="remove it",
        )
    found = {"https": bool(tls.get("https")), "nodes": bool(tls.get("nodes")), "directory": tls.get("directory", "")}
    if (found["https"] or found["nodes"]) and not found["directory"]:
        raise LlmError(
            "TLS of MindIE wants certificates",
            wanted="a folder that is laid out as MindIE's own folder 'security': ca/, certs/, keys/, grpc/",
            found="no directory",
            remedy="name the folder, or leave TLS off within a network that only the nodes share",
        )
    return found


def render(plan: dict, group: dict, node: dict) -> str:
    """Return config.json for ``node``. But for the two addresses it is the same on all nodes of the group.

    :raises LlmError: for a model name, path or port that MindIE refuses
    """
    _check_names(plan, node)
    age, tls = generation(plan["engine"]["version"]), tls_of(plan)
    config = {
        "Version": "1.0.0",
        "ServerConfig": _server(plan, node, age, tls),
        "BackendConfig": _backend(plan, group, node, age, tls),
        "LogConfig": _log(age),
    }
    if age:
        config["EnableDynamicAdjustTimeoutConfig"] = False
    return json.dumps(config, indent=4) + "\n"


def _check_names(plan: dict, node: dict) -> None:
    name, path = plan["serving"]["model_name"], node["weights_path"]
    if not _MODEL_NAME.fullmatch(name):
        raise LlmError(
            "MindIE does not take this model name",
            wanted="1 to 256 letters, digits, '_', '.' and '-', a letter or digit first and last",
            found=name,
            remedy="choose another name",
        )
    if not _PATH.fullmatch(path):
        raise LlmError(
            f"MindIE does not take the path of the weights on {node['host']}",
            wanted="letters, digits, '_', '.', '-' and '/', without '..'",
            found=path,
            remedy="set llm_weights_path of this host",
        )
    taken: dict[int, str] = {}
    for what, number in _ports(plan):
        if number < LEAST_PORT or number in taken:
            other = f" and also {taken[number]}" if number in taken else ""
            raise LlmError(
                "MindIE does not take this port",
                wanted=f"a port of its own for each purpose, {LEAST_PORT} or above",
                found=f"{number} for {what}{other}",
                remedy="set llm_api_port, or llm_port_offset for the others",
            )
        taken[number] = what


def _ports(plan: dict) -> list[tuple[str, int]]:
    return [("API", plan["serving"]["port"]), *((what, port(plan, what)) for what in PORTS)]


def _server(plan: dict, node: dict, age: int, tls: dict) -> dict:
    address = node["address"]
    server: dict = {
        "ipAddress": address,
        "managementIpAddress": address,
        "port": plan["serving"]["port"],
        "managementPort": port(plan, MANAGEMENT),
        "metricsPort": port(plan, METRICS),
        "allowAllZeroIpListening": False,
        "maxLinkNum": LINKS,
        "httpsEnabled": tls["https"],
        "fullTextEnabled": False,
        "tlsCaPath": "security/ca/",
        "tlsCaFile": ["ca.pem"],
        **_certificates("tls", "security/certs/", "", age),
        "managementTlsCaFile": ["management_ca.pem"],
        **_certificates("managementTls", "security/management/certs/", "management/", age),
    }
    if age:
        server["metricsTlsCaFile"] = ["metrics_ca.pem"]
        server.update(_certificates("metricsTls", "security/metrics/certs/", "metrics/", age))
    if age < 2:
        server.update(kmcKsfMaster="tools/pmt/master/ksfa", kmcKsfStandby="tools/pmt/standby/ksfb")
    server.update(inferMode="standard", **_between_services(plan, tls, age), openAiSupport="vllm")
    if age:
        server.update(tokenTimeout=TOKEN_TIMEOUT_S, e2eTimeout=ANSWER_TIMEOUT_S, distDPServerEnabled=False)
    if age > 1:
        server["HealthCheckConfig"] = {"npuUsageThreshold": 10}
    return server


def _certificates(prefix: str, revoked: str, folder: str, age: int) -> dict:
    """Return where the certificates of one listening port lie below MindIE's home; read only with httpsEnabled."""
    found: dict = {
        f"{prefix}Cert": f"security/certs/{folder}server.pem",
        f"{prefix}Pk": f"security/keys/{folder}server.key.pem",
    }
    if age < 2:
        found[f"{prefix}PkPwd"] = f"security/pass/{folder}key_pwd.txt"
    return {**found, f"{prefix}CrlPath": revoked, f"{prefix}CrlFiles": ["server_crl.pem"]}


def _between_services(plan: dict, tls: dict, age: int) -> dict:
    """Return the settings of interComm, which only disaggregated prefill uses (inferMode dmi)."""
    found: dict = {
        "interCommTLSEnabled": tls["nodes"],
        "interCommPort": port(plan, COMM),
        "interCommTlsCaPath": "security/grpc/ca/",
        "interCommTlsCaFiles": ["ca.pem"],
        "interCommTlsCert": "security/grpc/certs/server.pem",
        "interCommPk": "security/grpc/keys/server.key.pem",
    }
    if age < 2:
        found["interCommPkPwd"] = "security/grpc/pass/key_pwd.txt"
    return {**found, "interCommTlsCrlPath": "security/grpc/certs/", "interCommTlsCrlFiles": ["server_crl.pem"]}


def _backend(plan: dict, group: dict, node: dict, age: int, tls: dict) -> dict:
    backend: dict = {
        "backendName": "mindieservice_llm_engine",
        "modelInstanceNumber": 1,
        # Logical numbers. A rank table overrides them, but the two sizes must agree all the same (backend_config.cpp).
        "npuDeviceIds": [list(range(node["devices"]))],
        "tokenizerProcessNumber": 8,
        "multiNodesInferEnabled": len(group["nodes"]) > 1,
        "multiNodesInferPort": port(plan, INFER),
        "interNodeTLSEnabled": tls["nodes"],
        "interNodeTlsCaPath": "security/grpc/ca/",
        "interNodeTlsCaFiles": ["ca.pem"],
        "interNodeTlsCert": "security/grpc/certs/server.pem",
        "interNodeTlsPk": "security/grpc/keys/server.key.pem",
        "interNodeTlsCrlPath": "security/grpc/certs/",
        "interNodeTlsCrlFiles": ["server_crl.pem"],
    }
    if age < 2:
        backend.update(
            interNodeTlsPkPwd="security/grpc/pass/mindie_server_key_pwd.txt",
            interNodeKmcKsfMaster="tools/pmt/master/ksfa",
            interNodeKmcKsfStandby="tools/pmt/standby/ksfb",
        )
    if age:
        backend["kvPoolConfig"] = {"backend": "", "configPath": ""}
    backend["ModelDeployConfig"] = _model(plan, group, node, age)
    backend["ScheduleConfig"] = _schedule(plan, age)
    return backend


def _model(plan: dict, group: dict, node: dict, age: int) -> dict:
    length = plan["serving"]["max_model_len"]
    model: dict = {
        "modelInstanceType": "Standard",
        "modelName": plan["serving"]["model_name"],
        "modelWeightPath": node["weights_path"],
        "worldSize": node["devices"],
        # Memory to swap requests to; none is preempted (maxPreemptCount 0). 2.0.T3's README has 5, later defaults 0.
        "cpuMemSize": 0 if age else 5,
        "npuMemSize": -1,
        "backendType": "atb",
        "trustRemoteCode": False,
    }
    if age:
        model.update(async_scheduler_wait_time=120, kv_trans_timeout=10, kv_link_timeout=1080)
        model.update(_sizes(group["parallel"]))
    return {
        "maxSeqLen": length,
        "maxInputTokenLen": _input(length),
        # A prompt that is too long is refused, not cut. Type: bool in 2.0 and in the source of 3.0, which refuses a
        # number (model_deploy_config.cpp); the documentation of later versions takes -1, 0, 1 as well.
        "truncation": False,
        "ModelConfig": [model],
    }


def _sizes(parallel: dict) -> dict:
    """Return the parallel sizes. Left out where the tensors are spread over all devices, which is MindIE's default."""
    if parallel["data_parallel"] == 1 and parallel.get("moe_expert_parallel", 1) == 1:
        return {}
    return {
        "dp": parallel["data_parallel"],
        "sp": 1,
        "tp": parallel["tensor_parallel"],
        "moe_ep": parallel["moe_expert_parallel"],
        "moe_tp": parallel["moe_tensor_parallel"],
    }


def _input(length: int) -> int:
    """Return the longest prompt: MindIE takes min(maxInputTokenLen, maxSeqLen - 1)."""
    return max(1, length - 1)


def _schedule(plan: dict, age: int) -> dict:
    length, together = plan["serving"]["max_model_len"], plan["serving"]["max_num_seqs"]
    schedule = {
        "templateType": "Standard",
        "templateName": "Standard_LLM",
        "cacheBlockSize": 128,
        "maxPrefillBatchSize": min(together, PREFILL_BATCH),
        # Must not be below maxInputTokenLen (config_manager_impl.cpp).
        "maxPrefillTokens": _input(length),
        "prefillTimeMsPerReq": 150,
        "prefillPolicyType": 0,
        "decodeTimeMsPerReq": 50,
        "decodePolicyType": 0,
        "maxBatchSize": together,
        # The longest answer.
        "maxIterTimes": _input(length),
        "maxPreemptCount": 0,
        "supportSelectBatch": False,
        "maxQueueDelayMicroseconds": 5000,
    }
    return {**schedule, "maxFirstTokenWaitTime": 2500} if age else schedule


def _log(age: int) -> dict:
    if age:
        return {"dynamicLogLevel": "", "dynamicLogLevelValidHours": 2, "dynamicLogLevelValidTime": ""}
    return {"logLevel": "Info", "logFileSize": 20, "logFileNum": 20, "logPath": "logs/mindie-server.log"}


def rank_table(group: dict) -> str:
    """Return ranktable.json of a group, the same on all nodes; every value is a text.

    Source: Ascend/MindIE-LLM:docs/zh/user_guide/user_manual/rank_table_file_configuration.md and
    src/config_manager/ranktable_config.cpp. The first server has rank 0 and is the master.

    :raises LlmError: for a device whose address is unknown, none, or another's
    """
    nodes = sorted(group["nodes"], key=lambda node: node["rank"])
    owners: dict[str, str] = {}
    servers, rank = [], 0
    for node in nodes:
        devices = []
        for number, address in _device_addresses(node):
            if address in owners:
                raise LlmError(
                    f"two NPUs have the same address: {owners[address]}, and device {number} of {node['host']}",
                    wanted="an address of its own for each NPU",
                    found=address,
                    remedy=f"hccn_tool -i {number} -ip -s address ADDRESS netmask MASK on {node['host']}",
                )
            owners[address] = f"device {number} of {node['host']}"
            devices.append({"device_id": str(number), "device_ip": address, "rank_id": str(rank)})
            rank += 1
        servers.append({"server_id": node["address"], "container_ip": node["address"], "device": devices})
    table = {"version": "1.0", "status": "completed", "server_count": str(len(servers)), "server_list": servers}
    return json.dumps(table, indent=4) + "\n"


def _device_addresses(node: dict) -> list[tuple[int, str]]:
    """Return [(physical id, address)] of the node's devices in their order."""
    known = {int(entry["phy_id"]): str(entry.get("ip") or "") for entry in node.get("npu_addresses") or []}
    found = []
    for number in node["device_ids"]:
        address = known.get(number, "")
        if not _usable(address):
            raise LlmError(
                f"an NPU of {node['host']} has no usable address, and MindIE's nodes reach each other by it",
                wanted=f"an address for each of the devices {', '.join(str(each) for each in node['device_ids'])}",
                found=f"device {number}: {address or 'none'}",
                remedy=f"hccn_tool -i {number} -ip -g on {node['host']} shows it; set it, and the netmask, with -ip -s",
            )
        found.append((number, address))
    return found


def _usable(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_unspecified or parsed.is_multicast or parsed.is_loopback)
