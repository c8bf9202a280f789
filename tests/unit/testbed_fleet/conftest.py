# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For the tests of the test hosts: the package itself, and names that no other test run on this machine has."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "testbed"))

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _own_name() -> str:
    number, name = os.getpid(), ""
    for _digit in range(4):
        number, digit = divmod(number, len(_DIGITS))
        name = _DIGITS[digit] + name
    return f"t{name}"


class Place:
    """Folder, name and network for one fleet, and the description that is written there."""

    def __init__(self, folder: Path, letter: str) -> None:
        pid = os.getpid()
        self.name = f"{_own_name()}{letter}"
        # 4 networks for each process; processes that run side by side have numbers that are near each other.
        self.net = f"10.{100 + pid % 100}.{pid // 100 % 60 * 4 + 'abcd'.index(letter)}"
        self.dir = folder / self.name
        self.description = folder / f"{self.name}.yml"

    def describe(self, hosts: dict, **more) -> Path:
        """Write a description; each host gets the next address of the network."""
        given = {
            name: {"address": f"{self.net}.{number}", **host} for number, (name, host) in enumerate(hosts.items(), 1)
        }
        content = {"name": self.name, "network": f"{self.net}.0/24", "hosts": given, **more}
        self.description.write_text(yaml.safe_dump(content), encoding="utf-8")
        return self.description


@pytest.fixture(scope="module")
def make_place(short_folder):
    """Function that makes a Place of the letter a, b, c or d."""

    def make(letter: str) -> Place:
        return Place(short_folder, letter)

    return make


@pytest.fixture(scope="module")
def short_folder():
    """Folder whose path is short: ssh's control sockets, which are in it, may have 104 characters."""
    if os.geteuid():
        pytest.fail("test hosts need root: run these tests as root, as the project's CI does")
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    yield folder
    shutil.rmtree(folder)
