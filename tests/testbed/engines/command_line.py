# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of the emulated program, read by the table of its version (tests/flags, tests/testbed/flags.py)."""

from __future__ import annotations

from testbed import flags

PACKAGES = {
    "vllm_ascend": "vllm-ascend",
    "vllm": "vllm",
    "vllm_mindspore": "vllm-mindspore",
    "sglang": "sglang",
}
# The release of Ray whose options the stand-in takes, whichever version it says it is.
RAY = "2.60.0"
# sglang's names for what vLLM calls otherwise, and what it takes one of where vLLM takes several.
SGLANG = {
    "model_path": "model",
    "tp_size": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "context_length": "max_model_len",
}
LISTS = ("served_model_name", "api_key")


def program(engine: str) -> str:
    """Return the name that the program has in its own complaints."""
    return {"vllm_mindspore": "vllm-mindspore", "sglang": "launch_server.py"}.get(engine, "vllm")


def parse(engine: str, version: str, arguments: list[str]) -> dict:
    """Return {setting: value} in vLLM's names; raises ValueError for what this version does not take."""
    table = flags.load(PACKAGES[engine], version)
    if engine == "sglang":
        found = table.parse(arguments)
        found = {SGLANG.get(name, name): value for name, value in found.items()}
        return {name: [value] if name in LISTS else value for name, value in found.items()}
    if arguments[:1] != ["serve"]:
        raise ValueError(f"invalid choice: {arguments[0] if arguments else ''!r} (choose from 'serve')")
    found = table.parse(arguments[1:])
    if "model_tag" in found:
        found["model"] = found.pop("model_tag")
    if not found.get("model"):
        raise ValueError("the following arguments are required: model_tag")
    return found


def ray_start(arguments: list[str]) -> dict:
    """Return {option: value} of `ray start`; raises ValueError for what it does not take."""
    return flags.load("ray", RAY).parse(arguments)
