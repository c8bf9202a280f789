# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules that run on the control node: their options, and what they do with them.

Each function takes the options and whether it may write, and returns the module's result; it raises LlmError.
"""

from __future__ import annotations

from . import archives, reports, verdicts
from .errors import LlmError
from .planning import document, inquiry, text
from .weights import lockfile

PLAN = {
    "hosts": {"type": "list", "elements": "dict", "required": True},
    "collection_dir": {"type": "path", "required": True},
    "launch": {"type": "bool", "default": False},
}
VERDICT = {
    "plan": {"type": "dict", "required": True},
    "facts": {"type": "dict", "required": True},
    "fail_on": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
}
IMAGE = {
    "reference": {"type": "str", "required": True},
    "archive": {"type": "path", "default": ""},
    "pull": {"type": "bool", "default": False},
    "staging": {"type": "path", "required": True},
    "machine": {"type": "str", "default": ""},
}
REPORT = {
    "dir": {"type": "path", "required": True},
    "deployment": {"type": "str", "required": True},
    "stage": {"type": "str", "required": True, "choices": list(reports.STAGES)},
    "data": {"type": "dict", "required": True},
    "passed": {"type": "bool", "required": True},
    "started": {"type": "float", "required": True},
}


def plan(options: dict, _really: bool) -> dict:
    """Decide a deployment; the result of module serving_plan."""
    hosts, collection_dir = options["hosts"], options["collection_dir"]
    path = inquiry.lock_path(hosts, collection_dir)
    lock = lockfile.load(path) if path else None
    image = inquiry.archive_path(hosts)
    archive = archives.read(image) if image else None
    decided = document.plan(hosts, collection_dir, lock, options["launch"], archive)
    return {"plan": decided, "summary": text.summary(decided)}


def verdict(options: dict, _really: bool) -> dict:
    """Hold a plan against facts; the result of module preflight_verdict."""
    judged = verdicts.judge(options["plan"], options["facts"])
    return {
        "passed": verdicts.passed(judged, options["fail_on"]),
        "verdicts": judged,
        "table": verdicts.table(judged),
    }


def report(options: dict, really: bool) -> dict:
    """Write the report of a stage; the result of module deployment_report."""
    written = reports.stage_report(
        options["deployment"], options["stage"], options["passed"], options["started"], options["data"]
    )
    try:
        path, page = reports.write(options["dir"], written, really=really)
    except OSError as error:
        raise LlmError(
            "the report cannot be written",
            wanted="a folder that this user may write",
            found=f"{error.filename}: {error.strerror}",
            remedy="set llm_report_dir",
        ) from error
    return {"path": path, "page": page}
