# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stand-in of the vLLM family looks at before it starts: one check a function, each raises Refused.

Where the wording of the real error is known it is used; STANDINS.md says which are this testbed's own.
"""

from __future__ import annotations

import array
import fcntl
import glob
import json
import os
import re
import resource
import socket
import struct
from typing import NamedTuple

# Devices that every process on an NPU opens besides its own (vllm-ascend:docs/source/installation.md).
NPU_MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
# What must come from the host into a container; one of each entry (same page).
NPU_MOUNTS = (
    ("usr/local/bin/npu-smi", "usr/local/sbin/npu-smi"),
    ("{driver}/driver/version.info",),
    ("usr/local/dcmi",),
)
NPU_ENGINES = ("vllm_ascend", "vllm_mindspore")
NVIDIA_MARKER = "run/nvidia-emulator.json"
# Bytes that shared memory must have (--shm-size=1g in vllm-ascend's installation.md).
SHM_BYTES = 1 << 30
# Seconds; Ascend's description of HCCL_CONNECT_TIMEOUT.
HCCL_TIMEOUTS = (120, 7200)
# A header of safetensors is no longer (huggingface/safetensors:safetensors/src/tensor.rs).
HEADER_LIMIT = 100_000_000
SIOCGIFCONF = 0x8912
SYS_ADMIN = 21
# Keys of --additional-config; vllm-ascend's page user_guide/configuration/additional_config at each release. From a
# release on until the next entry. Real releases before 0.24 ignore an unknown key silently, which helps nobody.
_FROM_0_9 = {
    "torchair_graph_config", "ascend_scheduler_config", "refresh", "expert_map_path", "kv_cache_dtype",
    "enable_prefill_optimizations",
}  # fmt: skip
_FROM_0_11 = {
    "torchair_graph_config", "ascend_scheduler_config", "weight_prefetch_config", "refresh", "expert_map_path",
    "kv_cache_dtype", "enable_shared_expert_dp", "lmhead_tensor_parallel_size", "oproj_tensor_parallel_size",
    "multistream_overlap_shared_expert", "dynamic_eplb", "num_iterations_eplb_update", "gate_eplb",
    "num_wait_worker_iterations", "expert_map_record_path", "init_redundancy_expert",
}  # fmt: skip
_FROM_0_13 = {
    "xlite_graph_config", "weight_prefetch_config", "finegrained_tp_config", "ascend_compilation_config",
    "eplb_config", "refresh", "dump_config_path", "enable_async_exponential", "enable_shared_expert_dp",
    "multistream_overlap_shared_expert", "multistream_overlap_gate", "recompute_scheduler_enable",
    "enable_cpu_binding", "SLO_limits_for_dynamic_batch", "enable_npugraph_ex", "pa_shape_list", "enable_kv_nz",
    "layer_sharding",
}  # fmt: skip
# vllm-ascend pull request 9064, first in the 0.20 line.
_FROM_0_20 = _FROM_0_13 | {
    "dump_config", "enable_sparse_c8", "enable_mc2_hierarchy_comm", "profiling_chunk_config", "scheduler_config",
    "enable_balance_scheduling", "enable_flashcomm1", "enable_matmul_allreduce", "enable_flashcomm2_parallel_size",
    "flashcomm2_parallel_size", "msmonitor_use_daemon", "enable_mlapo", "weight_nz_mode", "enable_fused_mc2",
    "enable_transpose_kv_cache_by_block", "enable_dsa_cp", "rejection_sampler_config",
}  # fmt: skip
ADDITIONAL_KEYS = (((0, 20), _FROM_0_20), ((0, 13), _FROM_0_13), ((0, 10), _FROM_0_11), ((0, 0), _FROM_0_9))


class Refused(Exception):
    """The engine does not start; ``kind`` is the name of the exception that the real one prints."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


class Place(NamedTuple):
    """Where the engine runs: root of the file system, variables of the environment, name of the chip."""

    root: str
    env: dict
    chip: str

    def path(self, relative: str) -> str:
        return os.path.join(self.root, relative)


def all_of(settings, place: Place) -> list[str]:
    """Make every check for the ranks of this node; return lines of warning. Raises Refused."""
    config = model_config(settings.weights)
    heads(config, settings)
    additional_config(settings, config, place.env)
    quantization(settings)
    half_precision(settings, config, place.chip)
    shards(settings.weights)
    if settings.local_devices:
        enough_devices(settings.local_devices, devices(settings, place))
    communication(place.env)
    shared_memory(place)
    address_space(settings)
    return privileged()


def model_config(weights: str) -> dict:
    path = os.path.join(weights, "config.json")
    try:
        with open(path, encoding="utf-8") as stream:
            config = json.load(stream)
    except (OSError, ValueError) as error:
        text = f"Invalid repository ID or local directory specified: '{weights}'. config.json: {error}"
        raise Refused("ValueError", text) from error
    if not config.get("architectures"):
        raise Refused("ValueError", "No model architectures are specified")
    return config


def heads(config: dict, settings) -> None:
    count, size = config.get("num_attention_heads"), settings.tensor
    if count and count % size:
        text = f"Total number of attention heads ({count}) must be divisible by tensor parallel size ({size})."
        raise Refused("ValueError", text)


def additional_config(settings, config: dict, env: dict) -> None:
    if settings.engine != "vllm_ascend":
        return
    known = next(keys for since, keys in ADDITIONAL_KEYS if settings.version >= since)
    for key in settings.additional:
        if key not in known:
            text = f"1 validation error for AscendConfig: {key}: this version knows no such key"
            raise Refused("ValueError", text)
    if settings.version < (0, 10):
        _graphs_of_0_9(settings, config, env)


def _graphs_of_0_9(settings, config: dict, env: dict) -> None:
    """Refuse what vllm-ascend 0.9.1 does (vllm_ascend/ascend_config.py@v0.9.1, check_ascend_config; #1404)."""
    torchair = _enabled(settings.additional.get("torchair_graph_config"))
    scheduler = _enabled(settings.additional.get("ascend_scheduler_config"))
    if (torchair or scheduler) and env.get("VLLM_USE_V1") != "1":
        name = "Torchair graph mode" if torchair else "Ascend scheduler"
        raise Refused("NotImplementedError", f"{name} is only supported for V1 Engine.")
    if torchair and settings.tensor > 4:
        text = f"torchair graph mode: tensor parallel size {settings.tensor} is above 4"
        raise Refused("NotImplementedError", text)
    if torchair and settings.eager:
        text = "Can not enable torchair graph mode with `enforce_eager=True`"
        raise Refused("RuntimeError", text)
    if not torchair and not settings.eager and "deepseek" in config.get("model_type", ""):
        text = "ACL Graph does not support deepseek. Try torchair graph mode, or set `enforce_eager=True`."
        raise Refused("NotImplementedError", text)


def _enabled(part: object) -> bool:
    return isinstance(part, dict) and part.get("enabled") is True


def quantization(settings) -> None:
    described = os.path.join(settings.weights, "quant_model_description.json")
    if settings.quantization in ("ascend", "golden-stick") and not os.path.isfile(described):
        raise Refused("ValueError", f"Cannot find the config file for {settings.quantization}")


def half_precision(settings, config: dict, chip: str) -> None:
    """The 310P computes in float16 alone; the weights' own type counts where no flag gives another."""
    kind = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    if settings.dtype not in ("", "auto"):
        kind = {"half": "float16"}.get(settings.dtype, settings.dtype)
    if chip.startswith("310P") and kind != "float16":
        raise Refused("RuntimeError", f"DT_{kind.upper()} is not supported on Ascend{chip}; float16 is")


def shards(weights: str) -> list[str]:
    """Return the files of weights in order, after a look at each: there, complete, and with what the index says."""
    indexes = sorted(glob.glob(os.path.join(glob.escape(weights), "*.safetensors.index.json")))
    if not indexes:
        alone = sorted(glob.glob(os.path.join(glob.escape(weights), "*.safetensors")))
        if len(alone) != 1:
            raise Refused("RuntimeError", f"Cannot find any model weights with `{weights}`")
        _tensors(alone[0])
        return alone
    with open(indexes[0], encoding="utf-8") as stream:
        index = json.load(stream)
    wanted: dict[str, set] = {}
    for tensor, name in index["weight_map"].items():
        wanted.setdefault(name, set()).add(tensor)
    total = 0
    for name in sorted(wanted):
        sizes = _tensors(os.path.join(weights, name))
        lacking = sorted(wanted[name] - set(sizes))
        if lacking:
            text = f"Following weights were not initialized from checkpoint: {{'{lacking[0]}'}}"
            raise Refused("ValueError", text)
        total += sum(sizes.values())
    said = index.get("metadata", {}).get("total_size", total)
    if said != total:
        raise Refused("ValueError", f"the shards hold {total} bytes of tensors, the index says {said}")
    return [os.path.join(weights, name) for name in sorted(wanted)]


def _tensors(path: str) -> dict[str, int]:
    """Return {name: bytes} of one file of safetensors."""
    try:
        with open(path, "rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            header = json.loads(stream.read(min(length, HEADER_LIMIT)))
            size = os.fstat(stream.fileno()).st_size
    except FileNotFoundError as error:
        raise Refused("FileNotFoundError", f"No such file or directory: {path}") from error
    except (OSError, ValueError, struct.error) as error:
        raise Refused("SafetensorError", "Error while deserializing header: invalid header deserialization") from error
    header.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in header.values()]
    if size != 8 + length + max(ends, default=0):
        text = f"Error while deserializing header: incomplete metadata, file not fully covered: {path}"
        raise Refused("SafetensorError", text)
    return {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}


def devices(settings, place: Place) -> list[int]:
    """Return the accelerators that this process may use."""
    if settings.engine in NPU_ENGINES:
        mounts(place)
        managers(place)
        return _npus(place)
    return gpus(place)


def mounts(place: Place) -> None:
    driver = _driver(place)
    for choices in NPU_MOUNTS:
        paths = [choice.format(driver=driver) for choice in choices]
        if not any(os.path.exists(place.path(path)) for path in paths):
            raise Refused("RuntimeError", f"/{paths[0]} is missing: it was not mounted from the host")


def _driver(place: Place) -> str:
    """Return the folder that holds the driver, as the installer wrote it down, without the first slash."""
    try:
        with open(place.path("etc/ascend_install.info"), encoding="utf-8") as stream:
            found = re.search(r"^Driver_Install_Path_Param=(.+)$", stream.read(), re.MULTILINE)
    except OSError:
        found = None
    return (found[1] if found else "/usr/local/Ascend").strip().strip("/")


def managers(place: Place) -> None:
    for name in NPU_MANAGERS:
        if not _opens(place.path(f"dev/{name}")):
            text = f"aclInit failed, error code is 507008: /dev/{name} cannot be opened"
            raise Refused("RuntimeError", text)


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _npus(place: Place) -> list[int]:
    there = numbers(place, "davinci")
    text = place.env.get("ASCEND_RT_VISIBLE_DEVICES", "")
    if not text:
        return there
    # The variable counts what the container sees from 0 on, whatever the numbers of the nodes are.
    wanted = [int(part) if part.strip().isdigit() else -1 for part in text.split(",")]
    if any(number not in range(len(there)) for number in wanted):
        said = f"set ASCEND_RT_VISIBLE_DEVICES:{text} error, input data rang[0-{len(there)})"
        raise Refused("RuntimeError", f"aclrtGetDeviceCount, error code is 207004. EE1001: {said}")
    return [there[number] for number in wanted]


def numbers(place: Place, prefix: str) -> list[int]:
    """Return the numbers of the device nodes /dev/PREFIXn that can be opened."""
    found = []
    for name in os.listdir(place.path("dev")) if os.path.isdir(place.path("dev")) else []:
        match = re.fullmatch(prefix + r"(\d+)", name)
        if match and _opens(place.path(f"dev/{name}")):
            found.append(int(match[1]))
    return sorted(found)


def gpus(place: Place) -> list[int]:
    """Return the GPUs that the container got: by the hook of Docker's device request, or as device nodes."""
    try:
        with open(place.path(NVIDIA_MARKER), encoding="utf-8") as stream:
            given = [device["index"] for device in json.load(stream)["devices"]]
    except OSError:
        given = numbers(place, "nvidia") if _opens(place.path("dev/nvidiactl")) else []
    text = place.env.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return given
    chosen = [part.strip() for part in text.split(",")]
    return [given[int(part)] for part in chosen if part.isdigit() and int(part) < len(given)]


def enough_devices(wanted: int, visible: list[int]) -> None:
    if wanted > len(visible):
        text = f"local_world_size ({wanted}) must be less than or equal to the number of visible devices"
        raise Refused("AssertionError", f"{text} ({len(visible)}).")


def communication(env: dict) -> None:
    """Check the variables that name interfaces and addresses: each must be this machine's, and they must agree."""
    held = addresses()
    hccl_timeout(env)
    own = env.get("HCCL_IF_IP", "")
    if own and not _holds(held, set(held), own):
        raise Refused("RuntimeError", f"EI0001: HCCL_IF_IP: {own} is no address of this machine")
    for name in ("HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        chosen = matching(env.get(name, ""), set(held))
        if not chosen:
            raise Refused("RuntimeError", f"EI0001: {name}={env[name]}: no such interface")
        if name.startswith("HCCL") and own and not _holds(held, chosen, own):
            raise Refused("RuntimeError", f"EI0001: {name}={env[name]} does not hold HCCL_IF_IP={own}")
    gloo = env.get("GLOO_SOCKET_IFNAME", "")
    if gloo and gloo not in held:
        where = "[enforce fail at ../third_party/gloo/gloo/transport/tcp/device.cc:84]"
        raise Refused("RuntimeError", f"{where} ifa != nullptr. Unable to find address for: {gloo}")
    # The address that peers are told must be reachable where gloo listens.
    for address in filter(None, (own, env.get("VLLM_HOST_IP", ""))):
        if not _holds(held, {gloo} if gloo else set(held), address):
            raise Refused("RuntimeError", f"GLOO_SOCKET_IFNAME={gloo or 'unset'} does not hold {address}")


def hccl_timeout(env: dict) -> None:
    text = env.get("HCCL_CONNECT_TIMEOUT", "")
    low, high = HCCL_TIMEOUTS
    if text and not (text.isdigit() and low <= int(text) <= high):
        raise Refused("RuntimeError", f"EI0001: HCCL_CONNECT_TIMEOUT={text} is not in [{low}, {high}]")


def matching(text: str, names: set[str]) -> set[str]:
    """Return the interfaces that a value of HCCL_SOCKET_IFNAME or NCCL_SOCKET_IFNAME means; all for an empty one.

    Both read: names by their beginning, =names exactly, ^names all others (NCCL's and HCCL's pages of variables).
    """
    inverse, exact = text.startswith("^"), "=" in text[:2]
    parts = [part for part in text.lstrip("^=").split(",") if part]
    if not parts:
        return names
    chosen = {name for name in names if any(name == part if exact else name.startswith(part) for part in parts)}
    return names - chosen if inverse else chosen


def addresses() -> dict[str, set[str]]:
    """Return {interface: its IPv4 addresses} of this network namespace."""
    found: dict[str, set[str]] = {name: set() for _index, name in socket.if_nameindex()}
    # struct ifconf and struct ifreq of 64-bit Linux: 40 bytes each, a name and a sockaddr_in.
    room = array.array("B", bytes(40 * 256))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("iL", len(room), room.buffer_info()[0])
        used = struct.unpack("iL", fcntl.ioctl(control, SIOCGIFCONF, asked))[0]
    data = room.tobytes()[:used]
    for start in range(0, used, 40):
        name = data[start : start + 16].split(b"\0")[0].decode().split(":")[0]
        found.setdefault(name, set()).add(socket.inet_ntoa(data[start + 20 : start + 24]))
    return found


def _holds(held: dict[str, set[str]], interfaces: set[str], address: str) -> bool:
    """True when one of ``interfaces`` has ``address``; the loopback has all of 127.0.0.0/8."""
    if "lo" in interfaces and address.startswith("127."):
        return True
    return any(address in held.get(name, set()) for name in interfaces)


def shared_memory(place: Place) -> None:
    about = os.statvfs(place.path("dev/shm"))
    size = about.f_frsize * about.f_blocks
    if size < SHM_BYTES:
        text = f"unable to allocate shared memory(shm): /dev/shm has {size >> 20} MiB, wanted {SHM_BYTES >> 20}"
        raise Refused("RuntimeError", text)


def address_space(settings) -> None:
    """A limit of memory below this node's share of the weights ends in the middle of loading."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    size = sum(os.stat(path).st_size for path in shards(settings.weights))
    share = size * settings.local_devices // (settings.tensor * settings.pipeline) if settings.local_devices else 0
    if limit != resource.RLIM_INFINITY and limit < share:
        raise Refused("MemoryError", f"RLIMIT_AS is {limit} bytes, this node's weights are {share}")


def privileged() -> list[str]:
    """Return a warning when the process has CAP_SYS_ADMIN; real engines do not look."""
    with open("/proc/self/status", encoding="ascii") as stream:
        effective = int(re.search(r"^CapEff:\s*([0-9a-f]+)$", stream.read(), re.MULTILINE)[1], 16)
    return ["the container has CAP_SYS_ADMIN: it runs privileged"] if effective >> SYS_ADMIN & 1 else []
