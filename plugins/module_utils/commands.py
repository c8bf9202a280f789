# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs other programs the one way this collection does: argv, C locale, no input, always a timeout."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a program did.

    ``code`` is its exit status, or None when it could not be started or ran past its time; ``reason`` then says why.
    """

    code: int | None
    stdout: str
    stderr: str
    reason: str

    @property
    def ok(self) -> bool:
        """True when the program ended by itself with status 0."""
        return self.code == 0


def run(argv: list[str], timeout: float, env: dict[str, str] | None = None, cwd: str | None = None) -> Outcome:
    """Run ``argv`` for at most ``timeout`` seconds and return its Outcome; never raises for what the program does."""
    environment = dict(os.environ if env is None else env, LC_ALL="C", LANG="C")
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
            # A group of its own, so that the programs it has started end with it.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        return Outcome(None, "", "", f"cannot be started: {error.filename or argv[0]}: no such file")
    except OSError as error:
        return Outcome(None, "", "", f"cannot be started: {error.strerror}")
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        return Outcome(None, "", "", f"did not end within {timeout:g} s")
    except BaseException:
        _end(process)
        raise
    return Outcome(process.returncode, _text(stdout), _text(stderr), "")


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # One that is stuck in the kernel, as tools of a hung driver are, ends later or never; nobody waits for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    for stream in (process.stdout, process.stderr):
        stream.close()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
