# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes a lock from a folder of weights."""

from __future__ import annotations

import os

from ..errors import LlmError
from . import hashing, lockfile, safetensors, stamps, tree
from .verify import Digests


def from_folder(folder: str, model: str, revision: str, *, jobs: int = 0, save: bool = True) -> dict:
    """Hash every file of ``folder`` and return its lock.

    :raises LlmError: for folders that must not be locked: empty, with links, pickles or damaged safetensors
    """
    if not os.path.isdir(folder):
        raise LlmError(
            f"there is no folder {folder} to lock",
            wanted="a folder with the weights",
            found="a file" if os.path.exists(folder) else "nothing",
            remedy="set llm_weights_source to the folder that holds the model",
        )
    entries = tree.walk(folder)
    _refuse_strange(folder, entries)
    names = [entry.path for entry in entries]
    digests = Digests(folder, stamps.default_path(folder))
    sums = hashing.parallel(digests.of, names, jobs or hashing.cores())
    if save:
        digests.save()
    files = [{"path": entry.path, "size": entry.size, "sha256": digest} for entry, digest in zip(entries, sums)]
    return lockfile.check({"model": model, "revision": revision, "files": files})


def _refuse_strange(folder: str, entries: list[tree.Entry]) -> None:
    names = [entry.path for entry in entries]
    if not any(name.endswith(".safetensors") for name in names):
        raise LlmError(
            f"{folder} holds no safetensors file",
            wanted="the shards of a model",
            found=f"{len(names)} files" if names else "an empty folder",
            remedy="set llm_weights_source to the folder that holds the model",
        )
    odd = [entry.path for entry in entries if entry.kind != "file"]
    if odd:
        raise LlmError(
            f"{folder} holds links or special files",
            wanted="plain files",
            found=", ".join(odd[:5]),
            remedy="copy the files that they lead to (hub caches: download with a local folder instead)",
        )
    pickles = [name for name in names if tree.is_pickle(name)]
    if pickles:
        raise LlmError(
            f"{folder} holds formats that can run code when they are loaded",
            wanted="safetensors only",
            found=", ".join(pickles[:5]),
            remedy="remove them from the source, or lock a revision without them",
        )
    problems = safetensors.structure_problems(folder, names)
    if problems:
        first = problems[0]
        raise LlmError(
            f"{first['path']} in {folder} is damaged ({len(problems)} problems in all)",
            wanted=first["wanted"],
            found=first["found"],
            remedy="fetch it again from where it was published",
        )
