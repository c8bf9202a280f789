# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the emulated MindIE reads: its files with their modes and owners, its variables, its devices.

Modes and owners as FileUtils::ConstrainOwner and ConstrainPermission of Ascend/MindIE-LLM check them.
"""

from __future__ import annotations

import glob
import ipaddress
import json
import os
import stat

from . import schema

# Where devices and the driver are looked for; a test names a folder of its own.
ROOT_VARIABLE = "LLM_EMULATED_ROOT"
# Of one byte to 10 MB (service_parameter_configuration.md).
SIZE_LIMIT = 10 * 1024 * 1024
HOMES = {
    "mindieservice_daemon": "/usr/local/Ascend/mindie/latest/mindie-service",
    "mindie_llm_server": "/usr/local/lib/python3.11/site-packages/mindie_llm",
}


def root(path: str) -> str:
    """Return ``path`` below the root that this process was given."""
    return os.environ.get(ROOT_VARIABLE, "") + path


def home(program: str) -> str:
    """Return the folder that MindIE is installed in."""
    given = os.environ.get("MIES_INSTALL_PATH" if program == "mindieservice_daemon" else "MINDIE_LLM_HOME_PATH")
    return given or HOMES[program]


def read_json(path: str, most: int = 0o640) -> object:
    """Return what the file holds; refuse one that is a link, somebody else's, or open beyond the mode ``most``."""
    try:
        info = os.lstat(path)
    except OSError as error:
        raise schema.Refused(f"The path {path} realpath parsing failed.") from error
    if stat.S_ISLNK(info.st_mode):
        raise schema.Refused(f"The file {path} is a link.")
    if not stat.S_ISREG(info.st_mode):
        raise schema.Refused(f"The input file is not a regular file or not exists: {path}")
    if info.st_uid != os.getuid():
        raise schema.Refused(
            f"owner id diff: current process user id is {os.getuid()}, file owner id is {info.st_uid}: {path}"
        )
    mode = stat.S_IMODE(info.st_mode) & 0o777
    if mode & ~most:
        raise schema.Refused(f"{path} current permission is {mode:o}, but required no greater than {most:o}")
    if not 0 < info.st_size <= SIZE_LIMIT:
        raise schema.Refused(f"{path} has {info.st_size} bytes")
    with open(path, encoding="utf-8") as stream:
        try:
            return json.load(stream)
        except ValueError as error:
            raise schema.Refused(f"Json file is invalid. Please check json format! {path}") from error


def check_weights(config: dict) -> None:
    """Refuse weights whose config.json is a link, somebody else's or open to all."""
    path = config["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]["modelWeightPath"]
    if not os.path.isdir(path):
        raise schema.Refused(f"modelWeightPath {path} is no folder")
    if stat.S_IMODE(os.stat(path).st_mode) & ~0o750:
        raise schema.Refused(f"modelWeightPath {path} is open beyond 750")
    read_json(f"{path}/config.json", 0o750)


def check_certificates(config: dict, program: str) -> None:
    """Refuse TLS without certificates, and with them too: the emulator does not speak it."""
    server, backend = config["ServerConfig"], config["BackendConfig"]
    wanted = []
    if server["httpsEnabled"]:
        wanted += ["tlsCert", "tlsPk"]
    if server["httpsEnabled"] and "metricsTlsCert" in server:
        wanted += ["managementTlsCert", "managementTlsPk", "metricsTlsCert", "metricsTlsPk"]
    files = [server.get(name, "") for name in wanted]
    if backend["multiNodesInferEnabled"] and backend["interNodeTLSEnabled"]:
        files += [backend.get("interNodeTlsCert", ""), backend.get("interNodeTlsPk", "")]
    missing = [name for name in files if not name or not os.path.isfile(f"{home(program)}/{name}")]
    if missing:
        raise schema.Refused(f"TLS is enabled and these are not below {home(program)}: {', '.join(missing)}")
    if files:
        raise schema.Refused("the emulated MindIE does not speak TLS")


def check_environment(several: bool, total: int) -> None:
    """Refuse variables out of range, and proxies where nodes talk to each other."""
    for name, least, most in (("HCCL_CONNECT_TIMEOUT", 120, 7200), ("HCCL_BUFFSIZE", 1, 2**31)):
        text = os.environ.get(name, str(least))
        if not text.isdigit() or not least <= int(text) <= most:
            raise schema.Refused(f"{name} is {text}, an integer of [{least}, {most}] is wanted")
    text = os.environ.get("NPU_MEMORY_FRACTION", "0.8")
    try:
        right = 0 < float(text) <= 1
    except ValueError:
        right = False
    if not right:
        raise schema.Refused(f"NPU_MEMORY_FRACTION is {text}, not in (0, 1]")
    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy") and os.environ[name]]
    if several and proxies:
        raise schema.Refused(f"a proxy is set, which breaks what nodes say to each other: {', '.join(sorted(proxies))}")
    if several and os.environ.get("WORLD_SIZE") != str(total):
        raise schema.Refused(f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, the rank table has {total} devices")


def check_machine(numbers: list[int], several: bool) -> None:
    """Refuse a container without its devices, its driver, or a folder that can be written."""
    nodes = [f"/dev/davinci{number}" for number in numbers]
    for path in [*nodes, "/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc", "/usr/local/Ascend/driver"]:
        if not os.path.exists(root(path)):
            raise schema.Refused(f"dcmi module initialize failed. ret is -8005: {path} is not there")
    if several and not os.path.exists(root("/etc/hccn.conf")):
        raise schema.Refused("/etc/hccn.conf is not there")
    left = sorted(
        glob.glob(root("/dev/shm/*llm_backend_*")) + glob.glob(root("/dev/shm/llm_tokenizer_shared_memory_*"))
    )
    if left:
        raise schema.Refused(f"shared memory of an earlier start is there: {', '.join(left)}")
    if not os.access(".", os.W_OK):
        raise schema.Refused(f"{os.getcwd()} cannot be written, where kernel_meta_temp is made")


def leave_marks() -> None:
    """Leave behind what a real start leaves behind."""
    os.makedirs(f"kernel_meta_temp_{os.getpid()}", exist_ok=True)
    for name in (f"llm_backend_{os.getpid()}", f"llm_tokenizer_shared_memory_{os.getpid()}"):
        with open(root(f"/dev/shm/{name}"), "w", encoding="utf-8"):
            pass


def rank_table(generation: int) -> dict:
    """Return {"servers": [{address, devices}], "own": number of this node's server, "total": devices}."""
    name = "RANK_TABLE_FILE" if generation else "RANKTABLEFILE"
    path = os.environ.get(name, "")
    if not os.path.isabs(path):
        raise schema.Refused(f"Ranktable file is not exist, please set a valid ranktable file path with {name}")
    table = read_json(path)
    wanted = {"version": "1.0", "status": "completed", "server_count": None, "server_list": None}
    if not isinstance(table, dict) or set(table) != set(wanted):
        raise schema.Refused(f"Ranktable file has other keys than {', '.join(wanted)}")
    if any(value is not None and table[key] != value for key, value in wanted.items()):
        raise schema.Refused('Ranktable file must have version "1.0" and status "completed"')
    servers = [_server(entry) for entry in table["server_list"]]
    count = _number(table["server_count"], "server_count", 2, 60)
    if count != len(servers):
        raise schema.Refused(f"Parameter server_count is {count}, but server_list has {len(servers)}")
    if len({len(server["devices"]) for server in servers}) != 1:
        raise schema.Refused("The number of devices in every server node is not equal")
    ranks = [device["rank"] for server in servers for device in server["devices"]]
    if ranks != list(range(len(ranks))):
        raise schema.Refused(f"rank_id must count from 0 through all devices, but is {ranks}")
    addresses = [device["ip"] for server in servers for device in server["devices"]]
    if len(set(addresses)) != len(addresses):
        raise schema.Refused("two devices have one device_ip")
    own_ip = os.environ.get("MIES_CONTAINER_IP", "")
    own = [place for place, server in enumerate(servers) if server["address"] == own_ip]
    if len(own) != 1:
        raise schema.Refused(
            f"MIES_CONTAINER_IP {own_ip or 'is not set and'} is not once a container_ip of the rank table"
        )
    return {"servers": servers, "own": own[0], "total": len(ranks), "table": table}


def _server(entry: object) -> dict:
    if not isinstance(entry, dict) or set(entry) != {"server_id", "container_ip", "device"}:
        raise schema.Refused("a server of the rank table has server_id, container_ip and device")
    _address(entry["server_id"], "server_id")
    _address(entry["container_ip"], "container_ip")
    if not isinstance(entry["device"], list) or not 1 <= len(entry["device"]) <= 32:
        raise schema.Refused("The number of devices on single node must be in [1, 32]")
    devices = []
    for device in entry["device"]:
        if not isinstance(device, dict) or set(device) != {"device_id", "device_ip", "rank_id"}:
            raise schema.Refused("a device of the rank table has device_id, device_ip and rank_id")
        devices.append(
            {
                "id": _number(device["device_id"], "device_id", 0, 63),
                "ip": _address(device["device_ip"], "device_ip"),
                "rank": _number(device["rank_id"], "rank_id", 0, 511),
            }
        )
    return {"address": entry["container_ip"], "devices": devices}


def _number(text: object, name: str, least: int, most: int) -> int:
    if not isinstance(text, str) or not text.isdigit():
        raise schema.Refused(f"Parameter {name} must be a string of digits in ranktable file: {json.dumps(text)}")
    if not least <= int(text) <= most:
        raise schema.Refused(f"Parameter {name} is {text}, which is out of allow range [{least}, {most}].")
    return int(text)


def _address(text: object, name: str) -> str:
    try:
        if not isinstance(text, str) or ipaddress.ip_address(text).is_unspecified:
            raise ValueError(text)
    except ValueError as error:
        raise schema.Refused(f"Parameter {name} is invalid in ranktable file: {json.dumps(text)}") from error
    return text
