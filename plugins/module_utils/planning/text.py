# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan as text that a person checks in a minute. Pure."""

from __future__ import annotations

import shlex

from .. import requirements
from . import inquiry

COMMAND_WIDTH = 70  # what a callback prints on one line, its own marks counted


def summary(document: dict) -> str:
    """Return the plan as text."""
    weights, serving, engine = document["weights"], document["serving"], document["engine"]
    lines = [
        f"deployment {document['deployment']}: {document['model']['id']} ({document['model']['title']})",
        f"engine     {engine['id']} {engine['version']} in {engine['runtime']}" + _image(engine),
        f"weights    {weights['files']} files, {human_bytes(weights['bytes'])}, "
        f"lock {weights['lock'] or 'made from the source'}",
        f"           fetched by {weights['seed']} from {inquiry.source_of(document) or 'nowhere yet'}"
        + (f", then {' > '.join(node['host'] for node in weights['chain'])}" if len(weights["chain"]) > 1 else "")
        + (f", {weights['processes']} processes" if weights["processes"] > 1 else "")
        + (f"; changed: {weights['patch']}" if weights["patch"] else ""),
        f"serving    {serving['max_model_len']} tokens, {serving['max_num_seqs']} requests at once, "
        f"port {serving['port']}, {serving['api_keys'] or 'no'} API key",
    ]
    for group in document["groups"]:
        lines += _group(document, group)
    lines += [f"endpoint   {endpoint['url']}" for endpoint in document["endpoints"]]
    lines += [f"note       {note}" for note in document["notes"]]
    return "\n".join(lines)


def _image(engine: dict) -> str:
    image = engine.get("image") or {}
    if engine["runtime"] != "docker":
        return ""
    return f", image {image['archive'] or image['reference']}" if image else ", no image named yet"


def _group(document: dict, group: dict) -> list[str]:
    nodes = group["nodes"]
    lines = [f"group      {group['name']}, head {group['head']}"]
    sizes = group["parallel"]
    if len(nodes) > 1 or "devices" in nodes[0]:
        lines.append(
            f"  split    tensor {sizes['tensor_parallel']} x pipeline {sizes['pipeline_parallel']} x data "
            f"{sizes['data_parallel']}{', experts over all' if sizes['expert_parallel'] else ''}: {sizes['why']}"
        )
    lines += _memory(group)
    ports = requirements.ports_of(document, group)
    lines.append("  ports    " + ", ".join(f"{port} {what}" for port, what in ports.items()))
    lines += _table([_row(node) for node in nodes])
    for node in nodes:
        lines += _commands(node)
    return lines


def _memory(group: dict) -> list[str]:
    """Return what a device, or a host without any, has to hold; every node of a group the same."""
    need = group["nodes"][0]["memory"]
    lines = [f"  memory   {group['fit']['text']}"] if "fit" in group else []
    rows = " + ".join(f"{row['what']} {human_bytes(row['bytes'])}" for row in need["rows"])
    unit = "a device" if "devices" in group["nodes"][0] else "a host"
    more = f"; {need['full_length_requests']} requests of full length fit" if "full_length_requests" in need else ""
    return [*lines, f"  memory   {human_bytes(need['bytes'])} {unit} = {rows}{more}"]


def _row(node: dict) -> list[str]:
    chips = f"{node['devices']} x {node['chip'] or node['family']}" if "devices" in node else "no accelerator"
    return [
        f"rank {node['rank']}",
        node["host"],
        node["address"] or "address not known yet",
        node["interface"] or "interface not known yet",
        chips,
        node["weights_path"],
    ]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _commands(node: dict) -> list[str]:
    launch = node.get("launch") or {}
    lines = []
    for argv in [*launch.get("before", []), launch.get("argv", [])]:
        lines += [f"  {node['host']}:"] if argv and not lines else []
        lines += _wrapped(argv)
    return lines


def _wrapped(argv: list[str]) -> list[str]:
    """Return a command as a shell takes it, over as many lines as it needs to be read."""
    lines = [""]
    for word in map(shlex.quote, argv):
        if lines[-1] and len(lines[-1]) + len(word) >= COMMAND_WIDTH and word.startswith("-"):
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return ["    " + line + (" \\" if place < len(lines) - 1 else "") for place, line in enumerate(lines)]


def human_bytes(count: int) -> str:
    """Return ``count`` bytes in decimal units, as disks and hubs state them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"
