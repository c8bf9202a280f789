# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What config.json of MindIE may hold, by generation: 0 the 2.0 line, 1 is 2.3, 2 is 3.0.

Written from Ascend/MindIE-LLM:src/config_manager/*_config.cpp (names, types, ranges, which are compulsory), from
src/server/conf/config.json at two times (which generation has what) and from the README of the deepseek-r1 example for
2.0.T3. The real server overlooks keys that it does not know; this one refuses them, for they say nothing to anybody.

A row: name, type, '!' where it must be there ('?' where it may), least and most ('-' for none), generations.
"""

from __future__ import annotations

import ipaddress
import json
import re

_TOP = """
Version string ! - - 012
ServerConfig object ! - - 012
BackendConfig object ! - - 012
LogConfig object ? - - 012
EnableDynamicAdjustTimeoutConfig bool ? - - 12
"""
_SERVER = """
ipAddress string ! - - 012
managementIpAddress string ? - - 012
port int32 ! 1024 65535 012
managementPort int32 ? 1024 65535 012
metricsPort int32 ! 1024 65535 012
allowAllZeroIpListening bool ! - - 012
maxLinkNum uint32 ! 1 4096 012
httpsEnabled bool ! - - 012
fullTextEnabled bool ? - - 012
tlsCaPath string ? - - 012
tlsCaFile texts ? 1 3 012
tlsCert string ? - - 012
tlsPk string ? - - 012
tlsPkPwd string ? - - 01
tlsCrlPath string ? - - 012
tlsCrlFiles texts ? 0 3 012
managementTlsCaFile texts ? 1 3 012
managementTlsCert string ? - - 012
managementTlsPk string ? - - 012
managementTlsPkPwd string ? - - 01
managementTlsCrlPath string ? - - 012
managementTlsCrlFiles texts ? 0 3 012
metricsTlsCaFile texts ? 1 3 12
metricsTlsCert string ? - - 12
metricsTlsPk string ? - - 12
metricsTlsPkPwd string ? - - 1
metricsTlsCrlPath string ? - - 12
metricsTlsCrlFiles texts ? 0 3 12
kmcKsfMaster string ? - - 01
kmcKsfStandby string ? - - 01
inferMode string ! - - 012
interCommTLSEnabled bool ? - - 012
interCommPort int32 ? 1024 65535 012
interCommTlsCaPath string ? - - 012
interCommTlsCaFiles texts ? 0 3 012
interCommTlsCert string ? - - 012
interCommPk string ? - - 012
interCommPkPwd string ? - - 01
interCommTlsCrlPath string ? - - 012
interCommTlsCrlFiles texts ? 0 3 012
openAiSupport string ? - - 012
tokenTimeout int32 ! 1 3600 12
e2eTimeout int32 ! 1 65535 12
maxRequestLength uint32 ? 1 100 12
distDPServerEnabled bool ! - - 12
layerwiseDisaggregated bool ? - - 12
layerwiseDisaggregatedRoleType string ? - - 12
layerwiseDisaggregatedMasterIpAddress string ? - - 12
layerwiseDisaggregatedSlaveIpAddress texts ? - - 12
layerwiseDisaggregatedDataPort int32 ? 1024 65535 12
layerwiseDisaggregatedCrtlPort numbers ? - - 12
HealthCheckConfig object ? - - 2
"""
_BACKEND = """
backendName string ! - - 012
modelInstanceNumber uint32 ! 1 10 012
npuDeviceIds devices ! - - 012
tokenizerProcessNumber uint32 ! 1 32 012
multiNodesInferEnabled bool ! - - 012
multiNodesInferPort int32 ? 1024 65535 012
interNodeTLSEnabled bool ! - - 012
interNodeTlsCaPath string ? - - 012
interNodeTlsCaFiles texts ? 1 3 012
interNodeTlsCert string ? - - 012
interNodeTlsPk string ? - - 012
interNodeTlsPkPwd string ? - - 01
interNodeTlsCrlPath string ? - - 012
interNodeTlsCrlFiles texts ? 0 3 012
interNodeKmcKsfMaster string ? - - 01
interNodeKmcKsfStandby string ? - - 01
kvPoolConfig object ? - - 12
ModelDeployConfig object ! - - 012
ScheduleConfig object ! - - 012
"""
_DEPLOY = """
maxSeqLen uint32 ! 1 - 012
maxInputTokenLen uint32 ! 1 4194304 012
truncation bool ? - - 012
ModelConfig list ! - - 012
maxLoras uint32 ? - - 12
maxLoraRank uint32 ? - - 12
"""
_MODEL = """
modelInstanceType string ? - - 012
modelName string ! - - 012
modelWeightPath string ! - - 012
worldSize uint32 ! 1 - 012
cpuMemSize uint32 ! - - 012
npuMemSize int32 ! -1 - 012
backendType string ! - - 012
trustRemoteCode bool ! - - 012
plugin_params string ? - - 12
async_scheduler_wait_time int32 ? - - 12
kv_trans_timeout int32 ? - - 12
kv_link_timeout int32 ? - - 12
dp int32 ? 1 - 12
sp int32 ? 1 - 12
cp int32 ? 1 - 12
tp int32 ? 1 - 12
moe_tp int32 ? 1 - 12
moe_ep int32 ? 1 - 12
models object ? - - 12
"""
_SCHEDULE = """
templateType string ! - - 012
templateName string ! - - 012
cacheBlockSize uint32 ! 1 128 012
maxPrefillBatchSize uint32 ! 0 819200 012
maxPrefillTokens uint32 ! 1 4194304 012
prefillTimeMsPerReq uint32 ! 0 1000 012
prefillPolicyType uint32 ! 0 3 012
decodeTimeMsPerReq uint32 ! 0 1000 012
decodePolicyType uint32 ! 0 3 012
maxBatchSize uint32 ! 1 819200 012
maxIterTimes uint32 ! 1 - 012
maxPreemptCount uint32 ! 0 819200 012
supportSelectBatch bool ! - - 012
maxQueueDelayMicroseconds uint32 ! 500 1000000 012
maxFirstTokenWaitTime uint32 ? 0 3600000 12
"""
_LOG = """
logLevel string ? - - 0
logFileSize uint32 ? 1 500 0
logFileNum uint32 ? 1 64 0
logPath string ? - - 0
dynamicLogLevel string ? - - 12
dynamicLogLevelValidHours uint32 ? 1 168 12
dynamicLogLevelValidTime string ? - - 12
"""
_HEALTH = """
npuUsageThreshold uint32 ? 0 100 2
"""
_POOL = """
backend string ? - - 12
configPath string ? - - 12
asyncWrite bool ? - - 12
"""


class Refused(Exception):
    """The server does not start; the text is what it prints."""


def check(config: object, generation: int) -> None:
    """Refuse a config.json that MindIE of this generation does not take."""
    if not isinstance(config, dict):
        raise Refused("Json file is invalid. Please check json format!")
    _section("config.json", config, _TOP, generation)
    server, backend = config["ServerConfig"], config["BackendConfig"]
    _section("ServerConfig", server, _SERVER, generation)
    _section("BackendConfig", backend, _BACKEND, generation)
    deploy, schedule = backend["ModelDeployConfig"], backend["ScheduleConfig"]
    _section("ModelDeployConfig", deploy, _DEPLOY, generation)
    _section("ScheduleConfig", schedule, _SCHEDULE, generation)
    _section("LogConfig", config.get("LogConfig", {}), _LOG, generation)
    _section("HealthCheckConfig", server.get("HealthCheckConfig", {}), _HEALTH, generation)
    _section("kvPoolConfig", backend.get("kvPoolConfig", {}), _POOL, generation)
    if len(deploy["ModelConfig"]) != 1 or not isinstance(deploy["ModelConfig"][0], dict):
        raise Refused("There should be one modelParam for Standard templateType.")
    _section("ModelConfig", deploy["ModelConfig"][0], _MODEL, generation)
    _choices(config, server, backend, schedule, deploy["ModelConfig"][0])
    _addresses(server)
    _together(server, backend, deploy, schedule)


def _section(title: str, data: dict, table: str, generation: int) -> None:
    rows = [line.split() for line in table.strip().splitlines()]
    known = {row[0]: row[1:] for row in rows if str(generation) in row[5]}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise Refused(f"{title} has keys that this version does not know: {', '.join(unknown)}")
    for name, (kind, need, least, most, _generations) in known.items():
        if name in data:
            _value(f"{title}.{name}", data[name], kind, least, most)
        elif need == "!":
            raise Refused(f"missing compulsory field: {name} of {title}")


def _value(name: str, value: object, kind: str, least: str, most: str) -> None:
    if not _is(value, kind):
        raise Refused(f"The type of param {name} should be {kind}, but got {json.dumps(value)[:60]}")
    size = len(value) if isinstance(value, list) else value
    low = least if least != "-" else ("0" if kind == "uint32" else "-")
    if (low != "-" and size < int(low)) or (most != "-" and size > int(most)):
        raise Refused(f"The value of param {name} is {json.dumps(value)[:60]}, not in [{low}, {most}]")


def _is(value: object, kind: str) -> bool:
    if kind in ("int32", "uint32"):
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "texts":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if kind == "numbers":
        return isinstance(value, list) and all(_is(each, "uint32") and each >= 0 for each in value)
    if kind == "devices":
        return isinstance(value, list) and all(_is(each, "numbers") for each in value)
    return isinstance(value, {"string": str, "bool": bool, "object": dict, "list": list}[kind])


def _choices(config: dict, server: dict, backend: dict, schedule: dict, model: dict) -> None:
    for name, value, wanted in (
        ("Version", config["Version"], ("1.0.0",)),
        ("inferMode", server["inferMode"], ("standard", "dmi")),
        ("backendName", backend["backendName"], ("mindieservice_llm_engine",)),
        ("templateType", schedule["templateType"], ("Standard", "Mix")),
        ("templateName", schedule["templateName"], ("Standard_LLM",)),
        ("backendType", model["backendType"], ("atb", "torch")),
        ("modelInstanceType", model.get("modelInstanceType", "Standard"), ("Standard", "StandardMock")),
    ):
        if value not in wanted:
            raise Refused(f"The value of {name} is {value}, it should be one of {', '.join(wanted)}")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,254}[A-Za-z0-9])?", model["modelName"]):
        raise Refused(f"The value of modelName is {model['modelName']!r}")
    if model["npuMemSize"] == 0:
        raise Refused("The value of npuMemSize is 0, it should be above, or -1")


def _addresses(server: dict) -> None:
    for name in ("ipAddress", "managementIpAddress"):
        text = server.get(name, server["ipAddress"])
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise Refused(f"Input {name} [{text}] format is invalid (neither IPv4 nor IPv6)") from error
        if address.is_unspecified and not server["allowAllZeroIpListening"]:
            raise Refused(f"{name} is {text} and allowAllZeroIpListening is false")


def _together(server: dict, backend: dict, deploy: dict, schedule: dict) -> None:
    """Refuse values that contradict each other."""
    model, sets = deploy["ModelConfig"][0], backend["npuDeviceIds"]
    ports = [server["port"], server.get("managementPort"), backend.get("multiNodesInferPort")]
    for wrong, text in (
        (len(sets) != backend["modelInstanceNumber"], "The size of npuDeviceIds does not equal to modelInstanceNumber"),
        (
            any(len(each) != model["worldSize"] for each in sets),
            "The size of npuDeviceIds (subset) does not equal to worldSize",
        ),
        (any(len(set(each)) != len(each) for each in sets), "npuDeviceID does not allow repetitive element"),
        (ports[0] == ports[2], "Endpoint port cannot be equal to multiNodesInferPort."),
        (schedule["maxPrefillBatchSize"] > schedule["maxBatchSize"], "maxPrefillBatchSize is above maxBatchSize"),
        (schedule["maxPreemptCount"] > schedule["maxBatchSize"], "maxPreemptCount is above maxBatchSize"),
        (
            schedule["maxPreemptCount"] > 0 and model["cpuMemSize"] == 0,
            "The value of modelParam.cpuMemSize can not be 0 when maxPreemptCount is not 0.",
        ),
        (
            schedule["maxPrefillTokens"] < deploy["maxInputTokenLen"] and schedule["templateType"] != "Mix",
            "The value of maxPrefillTokens should not be less than maxInputTokenLen.",
        ),
        (schedule["maxIterTimes"] > deploy["maxSeqLen"], "maxIterTimes is above maxSeqLen"),
        (schedule["cacheBlockSize"] % 16 != 0, "cacheBlockSize must be a multiple of 16"),
    ):
        if wrong:
            raise Refused(text)


def check_sizes(config: dict, total: int) -> None:
    """Refuse parallel sizes that do not fill ``total`` devices; sizes that are not there are MindIE's own choice."""
    model = config["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
    for one, other in (("dp", "tp"), ("moe_tp", "moe_ep")):
        if (one in model) != (other in model) or (one in model and model[one] * model[other] != total):
            raise Refused(f"{one} {model.get(one)} and {other} {model.get(other)} do not make {total} devices")
