# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Links of a known rate, really made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.baremetal.llm.tests.testbed import links as testbed
from ansible_collections.baremetal.llm.tests.testbed.fleet.programs import started

_RECEIVE = """
import socket, sys
port = socket.create_server((sys.argv[1], 5000))
print("ready", flush=True)
peer = port.accept()[0]
count = 0
while block := peer.recv(1 << 20):
    count += len(block)
print(count)
"""
_SEND = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 5000))
peer.sendall(bytes(int(sys.argv[2])))
peer.close()
"""
_COUNT = """
import socket, sys
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.bind((sys.argv[1], 5000))
port.settimeout(0.5)
print("ready", flush=True)
seen = 0
while True:
    try:
        port.recv(2000)
        seen += 1
    except TimeoutError:
        if seen:
            break
print(seen)
"""
_PACKETS = """
import socket, sys, time
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(400):
    port.sendto(bytes(1000), (sys.argv[1], 5000))
    time.sleep(0.0005)
"""


@pytest.fixture(name="links", scope="module")
def fixture_links():
    with testbed.Links(2, rate_mbit=80, prefix="tlink") as made:
        yield made


def _start(links, host, program):
    process = links.popen(host, [sys.executable, "-c", program, links.address(host)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def _present(name):
    found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    return [word for word in found if word.startswith(f"{name}-")]


def test_bytes_cross_at_the_rate_of_the_link_and_are_counted(links):
    size = 8 << 20
    receiver = _start(links, 1, _RECEIVE)
    before = [links.counters(host) for host in range(3)]
    begin = time.monotonic()
    sent = links.run(0, [sys.executable, "-c", _SEND, links.address(1), str(size)])
    assert sent.returncode == 0, sent.stderr
    assert receiver.communicate()[0] == f"{size}\n"
    took = time.monotonic() - begin
    after = [links.counters(host) for host in range(3)]
    # The floor of physics, less the burst at each end: a machine that is busy only makes it longer.
    assert took > (size - 2 * (128 << 10)) * 8 / 80e6
    assert size <= after[0]["tx"] - before[0]["tx"] <= 1.02 * size
    assert size <= after[1]["rx"] - before[1]["rx"] <= 1.02 * size
    assert after[2]["tx"] - before[2]["tx"] < 10_000


def test_a_pulled_cable_carries_nothing_until_it_is_plugged_in(links):
    receiver = _start(links, 1, _RECEIVE)
    links.set_down(1)
    sender = links.popen(0, [sys.executable, "-c", _SEND, links.address(1), "1000"])
    with pytest.raises(subprocess.TimeoutExpired):
        sender.wait(1)
    links.set_up(1)
    assert sender.wait(30) == 0
    assert receiver.communicate()[0] == "1000\n"


@pytest.mark.parametrize(("probability", "least", "most"), [(0.5, 100, 300), (0, 390, 400)])
def test_packets_are_lost_at_random_where_asked(links, probability, least, most):
    links.drop(2, probability)
    counter = _start(links, 2, _COUNT)
    assert links.run(0, [sys.executable, "-c", _PACKETS, links.address(2)]).returncode == 0
    assert least <= int(counter.communicate()[0]) <= most


def test_nothing_is_left_after_an_error():
    try:
        with testbed.Links(1, prefix="tlink") as links:
            name = links.name
            process = links.popen(1, ["sh", "-c", "sleep 300 & sleep 300"])
            assert len(_present(name)) == 3
            raise RuntimeError("a test that goes wrong")
    except RuntimeError:
        pass
    assert process.returncode == -signal.SIGKILL
    assert not _present(name)
    assert not (testbed.RECORDS / name).exists()


def test_the_next_run_removes_what_a_killed_one_has_left_and_nothing_else(links):
    program = "import time, links\nwith links.Links(1, prefix='tlink') as made:\n"
    program += " child = made.popen(1, ['sleep', '300'], stdout=-3)\n"
    program += " print(made.name, child.pid, flush=True)\n time.sleep(300)\n"
    folder = os.path.dirname(testbed.__file__)
    killed = subprocess.Popen([sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, text=True)
    name, child = killed.stdout.readline().split()
    assert len(_present(name)) == 3
    killed.kill()
    killed.communicate()
    assert len(_present(name)) == 3
    with testbed.Links(0, prefix="tlink"):
        assert not _present(name)
        # What cannot be waited for here may stay a moment as a zombie, which runs nothing.
        assert started(int(child)) is None
        assert len(_present(links.name)) == 4
