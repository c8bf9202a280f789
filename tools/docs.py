# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the documentation: pages of docs/, and pages of modules and roles from what they say of themselves."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from common import BIN, CACHE, ROOT, run, say

WORK = CACHE / "docs"
SOURCE = WORK / "source"
OUTPUT = ROOT / "docs" / "build"


def copy_pages() -> None:
    shutil.rmtree(SOURCE, ignore_errors=True)
    # Not our own output, and not the settings, which Sphinx reads from docs/ itself.
    shutil.copytree(ROOT / "docs", SOURCE, ignore=shutil.ignore_patterns("build", "conf.py", "__pycache__"))


def name_index(page: Path) -> None:
    """Its heading is made by capitalising the collection's name."""
    title = "Modules, plugins and roles"
    page.write_text(page.read_text().replace("Baremetal.Llm\n=============", f"{title}\n{'=' * len(title)}", 1))


def main() -> int:
    # Sphinx leaves pages standing whose source is gone.
    shutil.rmtree(OUTPUT, ignore_errors=True)
    copy_pages()
    reference = SOURCE / "reference"
    reference.mkdir()
    generate = [BIN / "antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error"]
    if status := run(*generate, "--dest-dir", reference, "baremetal.llm"):
        return status
    name_index(reference / "index.rst")
    # -W with --keep-going: every warning is shown, and any of them fails the build.
    build = [BIN / "sphinx-build", "-q", "-W", "--keep-going", "-c", ROOT / "docs", "-d", WORK / "doctrees"]
    if status := run(*build, SOURCE, OUTPUT):
        return status
    say(f"pages: {(OUTPUT / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
