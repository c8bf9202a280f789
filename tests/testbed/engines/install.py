# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts the stand-ins into the root file system of a test's image, and the hook onto a test's host."""

from __future__ import annotations

import os
import shutil

HERE = os.path.dirname(os.path.realpath(__file__))
TESTS = os.path.dirname(os.path.dirname(HERE))
FOLDER = "opt/llm-standins"
CODE = (
    "command_line.py", "links.py", "openai_server.py", "ray_standin.py", "vllm_checks.py", "vllm_groups.py",
    "vllm_standin.py", "ray/__init__.py", "sglang/__init__.py", "sglang/launch_server.py",
)  # fmt: skip
# Programs by engine; sglang is started as a module of Python.
PROGRAMS = {"vllm_ascend": ("vllm",), "vllm": ("vllm",), "vllm_mindspore": ("vllm-mindspore",), "sglang": ()}
# What every user of the image may run.
PROGRAM_MODE = 0o755


def image(root: str, engine: str, version: str, chip: str = "") -> dict[str, str]:
    """Install the stand-in of ``engine`` below ``root``; return the variables that the image must set.

    The image needs python3 (3.9 or newer) besides. ``chip``: what the image is built for, such as 310P3.
    """
    for name in CODE:
        _copy(os.path.join(HERE, name), root, name)
    # The parser looks for its tables beside its own folder.
    _copy(os.path.join(TESTS, "testbed", "flags.py"), root, "testbed/flags.py")
    for name in os.listdir(os.path.join(TESTS, "flags")):
        if name.endswith(".json"):
            _copy(os.path.join(TESTS, "flags", name), root, f"flags/{name}")
    for program in PROGRAMS[engine]:
        _program(root, f"usr/local/bin/{program}", "vllm_standin.py")
    _program(root, "usr/local/bin/ray", "ray_standin.py")
    return {
        "LLM_EMULATED_ENGINE": f"{engine}:{version}",
        "LLM_EMULATED_CHIP": chip,
        "PYTHONPATH": f"/{FOLDER}",
    }


def hook(root: str) -> None:
    """Install the hook below ``root``, the file system of a host; before its dockerd starts."""
    _copy(os.path.join(HERE, "nvidia_hook.py"), root, "nvidia_hook.py")
    _program(root, "usr/bin/nvidia-container-runtime-hook", "nvidia_hook.py")


def _copy(source: str, root: str, name: str) -> None:
    target = os.path.join(root, FOLDER, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)


def _program(root: str, path: str, code: str) -> None:
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "w", encoding="utf-8") as stream:
        stream.write(f'#!/bin/sh\nexec python3 "/{FOLDER}/{code}" "$@"\n')
    os.chmod(full, PROGRAM_MODE)
