# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module weights_verify against `sha256sum` on the same cached files, in the same run.

    benchmarks/weights/verify.py [--mib N] [--runs N]

Each side runs as a process of its own from its start to its end; sides take turns, and what counts is the median of
the ratios (more than 1: the module is faster). Where sha256sum computes in plain C, `openssl dgst`, which has the
processor's SHA instructions as the module has, is the fairer side: both are told. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = "ansible_collections.baremetal.llm.plugins.modules.weights_verify"
# In memory, so that no disk is measured; where there is no room, beside the other leftovers of this folder.
FAST = Path("/dev/shm")  # noqa: S108
LEFTOVERS = ROOT / ".cache" / "benchmarks" / "verify"
SHARDS = 16
SMALL_FILES = 200
SMALL_BYTES = 4096


def make_shard(path: Path, size: int) -> dict:
    """Write a sound safetensors file of about ``size`` bytes that nobody can compress; return its entry of a lock."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for part in itertools.chain([struct.pack("<Q", len(header)) + header], _random(size)):
            stream.write(part)
            digest.update(part)
    return {"path": path.name, "size": path.stat().st_size, "sha256": digest.hexdigest()}


def _random(size: int) -> Iterator[bytes]:
    # In small parts: what this process holds counts as memory of its children too.
    for start in range(0, size, 1 << 20):
        yield os.urandom(min(1 << 20, size - start))


def make_folder(folder: Path, sizes: list[int]) -> dict:
    """Write one shard of each size into ``folder`` and return the lock."""
    folder.mkdir(parents=True)
    width = len(str(len(sizes)))
    entries = [make_shard(folder / f"model-{at:0{width}}.safetensors", size) for at, size in enumerate(sizes)]
    return {"format": 1, "model": "bench", "revision": "1", "files": entries}


def timed(command: list[str], stdin: bytes = b"") -> tuple[float, float, str]:
    """Return (seconds from start to end, most memory in MB, output) of a command that has to succeed."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
    process.stdin.write(stdin)
    process.stdin.close()
    output = process.stdout.read()
    _pid, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} ended with {process.returncode}: {output.decode()[-1000:]}")
    return seconds, usage.ru_maxrss * 1024 / 1e6, output.decode()


def verification(folder: Path, lock: dict, arguments: Path, deep: bool) -> tuple[float, float, dict]:
    """Run the module; return (seconds, most memory in MB, its result), which has to be that all is well."""
    options = {"path": str(folder), "lock": lock, "deep": deep}
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}), encoding="utf-8")
    seconds, memory, output = timed([sys.executable, "-m", MODULE, str(arguments)])
    result = json.loads(output)
    if not result["verified"]:
        sys.exit(f"the folder was not verified: {output[-1000:]}")
    return seconds, memory, result


def rivals(folder: Path) -> dict[str, tuple[list[str], bytes]]:
    """Return {name: (command, its input)} of what the module is compared with."""
    files = sorted(str(path) for path in folder.iterdir())
    listed = b"".join(name.encode() + b"\0" for name in files)
    parallel = ["xargs", "-0", "-n", "1", "-P", str(len(os.sched_getaffinity(0)))]
    found = {
        "parallel_sha256sum": ([*parallel, "sha256sum"], listed),
        "one_sha256sum": (["sha256sum", *files], b""),
    }
    if shutil.which("openssl"):
        found["parallel_openssl"] = ([*parallel, "openssl", "dgst", "-sha256"], listed)
        found["one_openssl"] = (["openssl", "dgst", "-sha256", *files], b"")
    return found


def compare(folder: Path, lock: dict, arguments: Path, runs: int) -> dict:
    """Return the medians of the ratios to each rival, and the most memory that the module took."""
    ratios: dict[str, list[float]] = {}
    most = 0.0
    for _run in range(runs):
        for name, (command, stdin) in rivals(folder).items():
            ours, memory, _result = verification(folder, lock, arguments, deep=True)
            ratios.setdefault(name, []).append(timed(command, stdin)[0] / ours)
            most = max(most, memory)
    return {
        **{f"vs_{name}": round(statistics.median(values), 3) for name, values in ratios.items()},
        "max_rss_mb": round(most, 1),
    }


def unchanged(folder: Path, arguments: Path, runs: int) -> dict:
    """Return what a verification of SMALL_FILES files costs that were verified before."""
    lock = make_folder(folder, [SMALL_BYTES] * SMALL_FILES)
    # Until every stamp is old enough to be believed.
    time.sleep(0.1)
    verification(folder, lock, arguments, deep=False)
    measured = [verification(folder, lock, arguments, deep=False) for _run in range(runs)]
    if any(result["bytes_hashed"] for _seconds, _memory, result in measured):
        sys.exit("an unchanged tree was read again")
    return {
        "unchanged_200_files_s": statistics.median(result["seconds"] for _seconds, _memory, result in measured),
        "unchanged_200_files_process_s": round(statistics.median(seconds for seconds, _memory, _r in measured), 3),
    }


def measure(folder_mib: int = 1024, runs: int = 5) -> dict:
    """Return the figures for a folder of ``folder_mib`` MiB in SHARDS files, each the median of ``runs`` pairs."""
    room = FAST.is_dir() and shutil.disk_usage(FAST).free > 2 * folder_mib << 20
    base = (FAST if room else LEFTOVERS) / f"baremetal-llm-verify-{os.getpid()}"
    base.mkdir(parents=True)
    try:
        # A tenth smaller each time, as the last shards of a model are.
        weights = [0.9**at for at in range(SHARDS)]
        sizes = [int((folder_mib << 20) * weight / sum(weights)) for weight in weights]
        lock = make_folder(base / "large", sizes)
        return {
            "mib": folder_mib,
            "cores": len(os.sched_getaffinity(0)),
            **compare(base / "large", lock, base / "arguments.json", runs),
            **unchanged(base / "small", base / "arguments.json", runs),
        }
    finally:
        shutil.rmtree(base)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    figures = measure(options.mib, options.runs)
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
