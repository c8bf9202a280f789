# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes files so that a reader, or a run that was cut off, never sees half of one."""

from __future__ import annotations

import json
import os
import tempfile


def write_text(path: str, text: str, mode: int) -> None:
    """Put ``text`` at ``path`` with permission bits ``mode`` by a rename within the same folder."""
    folder = os.path.dirname(path)
    handle, partial = tempfile.mkstemp(dir=folder, prefix="." + os.path.basename(path) + ".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def write_json(path: str, data: object, mode: int) -> None:
    """Like write_text, with ``data`` as indented JSON, keys in order."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", mode)


def read_json(path: str) -> dict | None:
    """Return the JSON object in ``path``, or None when there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
