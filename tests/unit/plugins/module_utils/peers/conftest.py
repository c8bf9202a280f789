# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts for the tests of the probe: processes with loopback addresses of their own, or network namespaces."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.peers import listener

# One host: the settings and the offset of its clock come in, the result goes out; as the module does it.
HOST = """
import json, sys, time
from ansible_collections.baremetal.llm.plugins.module_utils.peers import prober
settings, offset = json.load(sys.stdin)
print(json.dumps(prober.probe(settings, lambda: time.time() + offset)))
"""
_counter = itertools.count()


class Hosts:
    """Starts the probe of hosts as processes, and ends what they leave behind."""

    def __init__(self, folder: Path) -> None:
        self.token = f"token of {folder}"
        self.run_name = f"{os.getpid()}-{next(_counter)}"
        self.started: list[subprocess.Popen] = []

    def settings(self, name: str, addresses: dict[str, str], ports: list[int], **more) -> dict:
        """Return the settings of the host ``name``; ``addresses`` are those it knows of all hosts."""
        return {
            "host": name,
            "address": addresses[name],
            "peers": [{"host": peer, "address": address} for peer, address in addresses.items()],
            "ports": ports,
            "run": self.run_name,
            "token": self.token,
            "window": 90.0,
            "settle": 3.0,
            "timeout": 30.0,
            "devices": [],
            "peer_devices": {},
            "ring": list(addresses),
            "device_pattern": "ring",
            "device_ping": "roce",
            "hccn_tool": "/no/such/hccn_tool",
            **more,
        }

    def start(self, settings: dict, offset: float = 0.0, namespace: str = "") -> subprocess.Popen:
        """Start the probe of one host; result() waits for it."""
        argv = ["ip", "netns", "exec", namespace] if namespace else []
        process = subprocess.Popen(
            [*argv, sys.executable, "-c", HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.started.append(process)
        process.stdin.write(json.dumps([settings, offset]))
        process.stdin.close()
        return process

    def result(self, process: subprocess.Popen) -> dict:
        """Return what a host's probe found; it ends although its listener may go on."""
        text = process.stdout.read()
        process.stdout.close()
        assert process.wait() == 0
        return json.loads(text)

    def probe(self, settings: dict, offset: float = 0.0, namespace: str = "") -> dict:
        """Run the probe of one host to its end."""
        return self.result(self.start(settings, offset, namespace))

    def left(self) -> list[int]:
        """Return the listeners of this run that are still there."""
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if line.startswith(listener.MARKER) and f" run {self.run_name} " in line:
                    found.append(pid)
        return found

    def wait_until_none_is_left(self, most: float = 60.0) -> None:
        """Wait for the listeners to end by themselves."""
        end = time.monotonic() + most
        while self.left() and time.monotonic() < end:
            time.sleep(0.01)
        assert self.left() == []

    def close(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            process.stdout.close()
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hosts(tmp_path):
    hosts = Hosts(tmp_path)
    yield hosts
    hosts.close()


@pytest.fixture
def ports():
    """Three ports that are free on all loopback addresses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _number in range(3)]
        for sock in sockets:
            sock.bind(("0.0.0.0", 0))
        return [sock.getsockname()[1] for sock in sockets]
