# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hub's own client library as the way to bring files: for sites whose mirror or proxy knows only that.

A small program runs under an interpreter that has the library. It is told the files by a file, and the token by its
environment; what it brings is proved here like everything else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import sys
import threading
from collections.abc import Iterator

from .. import atomic, commands
from ..errors import LlmError
from . import hashing, place, sources, tree
from .progress import WRITE_S, Progress

PACKAGES = {"hf": "huggingface_hub", "modelscope": "modelscope", "modelers": "openmind_hub"}
ENDPOINTS = {"hf": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT", "modelers": "OPENMIND_HUB_ENDPOINT"}
TOKENS = {"hf": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN", "modelers": "BAREMETAL_LLM_TOKEN"}
# 700 GB at 25 Mbit/s. A library that hangs for good must not hold the folder for ever.
MOST_SECONDS = 3 * 24 * 3600
# Of what the library says when it fails: the end, where Python names the error.
MOST_SAID = 400
# As in download.py: the first time may be a proxy's or a mirror's bad day.
CLEAN_TRIES = 2
# Where the libraries keep what they need besides the files, within the folder of files on their way.
_CACHE = ".cache"

# Debian and Ubuntu; openEuler and the Red Hat family.
_SYSTEM_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

# Under /proc/self/cwd because openmind_hub refuses folders below /var, by their name, and takes no other word for it.
PROGRAM = """
import ctypes, json, os, sys

ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: ends with the run that has started it
with open(sys.argv[1], encoding="utf-8") as stream:
    spec = json.load(stream)
os.chdir(spec["folder"])
if spec["kind"] == "hf":
    from huggingface_hub import hf_hub_download

    def get(path):
        hf_hub_download(spec["name"], path, revision=spec["revision"], local_dir=".", cache_dir=".cache/library")

elif spec["kind"] == "modelscope":
    from modelscope.hub.file_download import model_file_download

    def get(path):
        model_file_download(
            spec["name"],
            path,
            revision=spec["revision"],
            local_dir=".",
            endpoint=spec["endpoint"] or None,
            token=os.environ.get("MODELSCOPE_API_TOKEN"),
        )

else:
    from openmind_hub import om_hub_download

    def get(path):
        om_hub_download(
            spec["name"],
            path,
            revision=spec["revision"],
            local_dir="/proc/self/cwd",
            cache_dir="/proc/self/cwd/.cache/library",
            local_dir_use_symlinks=False,
            endpoint=spec["endpoint"] or None,
            token=os.environ.get("BAREMETAL_LLM_TOKEN"),
        )


for path in spec["files"]:
    get(path)
"""


def bring(
    source: sources.Source,
    dest: str,
    entries: list[dict],
    options: object,
    piece: int,
    jobs: int,
    progress: Progress,
) -> dict[str, hashing.Digest]:
    """Let the library bring ``entries`` of the source to ``incoming``; return the digests by path, all as locked.

    :param options: with endpoint, token, ca_file and client_python, see fetch.Options
    :param piece: length of a piece in bytes for the merkle tree; 0 makes none
    :param jobs: files that are hashed at a time
    :raises LlmError: this kind of source has no library, the interpreter does not have it, it fails, or files are not
        as locked; nothing wrong is left then
    """
    _package(source)
    # Refuses what a library would do without a word, such as a token that travels in plain text.
    sources.open_source(source, endpoint=options.endpoint, token=options.token, ca_file=options.ca_file)
    found = _prove(dest, entries, piece, jobs)  # what a run that was cut off has left
    progress.add(sum(entry["size"] for entry in entries if entry["path"] in found))
    for _try in range(CLEAN_TRIES):
        left = [entry for entry in entries if entry["path"] not in found]
        if left:
            _run(source, dest, left, options, progress)
            found.update(_prove(dest, left, piece, jobs))
    wrong = [entry for entry in entries if entry["path"] not in found]
    if wrong:
        raise LlmError(
            f"{wrong[0]['path']} is damaged at the source {source.text}",
            wanted=f"SHA-256 {wrong[0]['sha256']}",
            found=f"other bytes, {CLEAN_TRIES} times ({len(wrong)} files in all)",
            remedy="use another mirror, or see whether the lock is of this revision; nothing wrong was put in place",
        )
    return found


def _prove(dest: str, entries: list[dict], piece: int, jobs: int) -> dict[str, hashing.Digest]:
    """Return the digests of those that are there as locked; others are deleted, and the library's memory of them."""
    digests = hashing.parallel(lambda entry: _digest(place.staged(dest, entry["path"]), piece), entries, jobs)
    found = {}
    for entry, digest in zip(entries, digests):
        if digest and digest.sha256 == entry["sha256"]:
            found[entry["path"]] = digest
        elif digest:
            os.unlink(place.staged(dest, entry["path"]))
            # A library that remembers a wrong file as had would not get it anew.
            shutil.rmtree(os.path.join(tree.aside(dest, "incoming"), _CACHE), ignore_errors=True)
    return found


def _digest(path: str, piece: int) -> hashing.Digest | None:
    try:
        return hashing.digest_file(path, piece=piece)
    except OSError:
        return None


def _package(source: sources.Source) -> str:
    if source.kind not in PACKAGES:
        raise LlmError(
            f"there is no client library for {source.text}",
            wanted="a source of hf://, modelscope:// or modelers://",
            found=source.kind,
            remedy="leave out client, or set it to builtin",
        )
    return PACKAGES[source.kind]


def _run(source: sources.Source, dest: str, entries: list[dict], options: object, progress: Progress) -> None:
    spec_path = tree.aside(dest, "library.json")
    spec = {
        "kind": source.kind,
        "name": source.name,
        "revision": source.revision or None,
        "endpoint": options.endpoint,
        "folder": tree.aside(dest, "incoming"),
        "files": [entry["path"] for entry in entries],
    }
    atomic.write_json(spec_path, spec, 0o640)
    argv = [options.client_python or sys.executable, "-c", PROGRAM, spec_path]
    with _watched([os.path.join(spec["folder"], path) for path in spec["files"]], progress):
        outcome = commands.run(argv, MOST_SECONDS, env=_environment(source.kind, spec["folder"], options))
    os.unlink(spec_path)
    if not outcome.ok:
        package = _package(source)
        raise LlmError(
            f"{package} did not bring the files of {source.text}",
            wanted=f"{package} in {argv[0]}, and the files of the lock at the hub",
            found=_said(outcome, options.token),
            remedy=f"set client_python to an interpreter that has {package}, or client to builtin",
        )


def _authorities(folder: str, ca_file: str) -> str:
    """Return a file with the certificates of the system and of ``ca_file``: the libraries take one file alone."""
    if not ca_file:
        return ""
    known = [ssl.get_default_verify_paths().cafile, *_SYSTEM_AUTHORITIES]
    system = next((path for path in known if path and os.path.isfile(path)), "")
    texts = []
    for path in filter(None, (system, ca_file)):
        with open(path, encoding="utf-8") as stream:
            texts.append(stream.read())
    both = os.path.join(folder, _CACHE, "authorities.pem")
    os.makedirs(os.path.dirname(both), mode=0o750, exist_ok=True)
    atomic.write_text(both, "\n".join(texts), 0o640)
    return both


def _environment(kind: str, folder: str, options: object) -> dict[str, str]:
    """Return the environment of the program: nothing is kept in, or read from, the home of the user."""
    home = os.path.join(folder, _CACHE, "home")
    authorities = _authorities(folder, options.ca_file)
    settings = {
        "HOME": home,
        "XDG_CACHE_HOME": home,
        "HF_HOME": home,
        "MODELSCOPE_CACHE": home,
        "HUB_WHITE_LIST_PATHS": "/proc/self/cwd",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OM_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
        ENDPOINTS[kind]: options.endpoint,
        TOKENS[kind]: options.token,
        "REQUESTS_CA_BUNDLE": authorities,
        "SSL_CERT_FILE": authorities,
    }
    return {**os.environ, **{name: value for name, value in settings.items() if value}}


def _said(outcome: commands.Outcome, token: str) -> str:
    if outcome.reason:
        return outcome.reason
    text = outcome.stderr.replace(token, "***") if token else outcome.stderr
    lines = [line for line in text.splitlines() if line.strip()]
    last = "".join(letter if letter.isprintable() else "?" for letter in (lines or ["nothing"])[-1])
    return f"status {outcome.code}: {last[-MOST_SAID:]}"


@contextlib.contextmanager
def _watched(paths: list[str], progress: Progress) -> Iterator[None]:
    """Tell ``progress`` of the files that have come; the libraries tell nobody but a terminal."""
    done = threading.Event()
    seen = [0] * len(paths)

    def look() -> None:
        for at, path in enumerate(paths):
            with contextlib.suppress(OSError):
                size = os.lstat(path).st_size
                progress.add(size - seen[at])
                seen[at] = size

    def watch() -> None:
        while not done.wait(WRITE_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        look()
