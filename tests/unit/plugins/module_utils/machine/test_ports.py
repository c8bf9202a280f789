# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import ports
from hypothesis import given
from hypothesis import strategies as st

TCP_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
UNKNOWN = {"pid": None, "process": ""}


def tcp_line(number: int, address: str, port: int, state: str, inode: int) -> str:
    rest = "00000000:00000000 00:00000000 00000000     0        0"
    return f"   {number}: {address}:{port:04X} {'0' * len(address)}:0000 {state} {rest} {inode} 1 0000 100 0 0 10 0\n"


def opened(folder, pid: int, *targets: str) -> None:
    handles = folder / "proc" / str(pid) / "fd"
    handles.mkdir(parents=True)
    for number, target in enumerate(targets):
        (handles / str(number)).symlink_to(target)


def test_listening_ports_of_both_families(fake, source, tmp_path):
    fake(
        "/proc/net/tcp",
        TCP_HEAD
        + tcp_line(0, "0100007F", 8000, "0A", 111)
        + tcp_line(1, "00000000", 22, "0A", 112)
        + tcp_line(2, "0A0200C0", 8001, "01", 113)  # a connection, not a listener
        + tcp_line(3, "0A0200C0", 8002, "06", 0),
    )
    fake(
        "/proc/net/tcp6",
        TCP_HEAD
        + tcp_line(0, "0" * 32, 443, "0A", 114)
        + tcp_line(1, "00000000000000000000000001000000", 631, "0A", 115)
        + tcp_line(2, "0000000000000000FFFF00000A0200C0", 9000, "0A", 116)
        + tcp_line(3, "B80D0120000000000000000001000000", 9001, "0A", 117),
    )
    opened(tmp_path, 42, "/dev/null", "socket:[111]")
    fake("/proc/42/comm", "vllm serve\n")
    opened(tmp_path, 43, "socket:[114]")  # ended since: no comm
    (tmp_path / "proc" / "44").mkdir()  # of another user: no fd
    assert ports.read(source) == [
        {"port": 22, "address": "0.0.0.0", **UNKNOWN},
        {"port": 443, "address": "::", "pid": 43, "process": ""},
        {"port": 631, "address": "::1", **UNKNOWN},
        {"port": 8000, "address": "127.0.0.1", "pid": 42, "process": "vllm serve"},
        {"port": 9000, "address": "::ffff:192.0.2.10", **UNKNOWN},
        {"port": 9001, "address": "2001:db8::1", **UNKNOWN},
    ]
    assert source.problems == []


def test_a_socket_of_several_processes_is_told_with_the_first(fake, source, tmp_path):
    fake("/proc/net/tcp", TCP_HEAD + tcp_line(0, "00000000", 80, "0A", 111))
    for pid in (100, 7, 20):
        opened(tmp_path, pid, "socket:[111]")
        fake(f"/proc/{pid}/comm", f"worker {pid}\n")
    assert ports.read(source) == [{"port": 80, "address": "0.0.0.0", "pid": 7, "process": "worker 7"}]


def test_no_more_processes_are_looked_at_than_needed(fake, source, tmp_path, monkeypatch):
    fake("/proc/net/tcp", TCP_HEAD + tcp_line(0, "00000000", 80, "0A", 111))
    for pid in (5, 6, 7):
        opened(tmp_path, pid, f"socket:[{105 + pid}]")
    real, looked = ports._open_files, []
    monkeypatch.setattr(ports, "_open_files", lambda folder: looked.append(folder) or real(folder))
    assert ports.read(source)[0]["pid"] == 6
    assert looked == [f"{tmp_path}/proc/{pid}/fd" for pid in (5, 6)]


def test_sockets_that_share_a_port(fake, source):
    fake("/proc/net/tcp", TCP_HEAD + "".join(tcp_line(0, "00000000", 80, "0A", inode) for inode in (1, 2)))
    assert ports.read(source) == [{"port": 80, "address": "0.0.0.0", **UNKNOWN}] * 2


@pytest.mark.parametrize("text", ["", TCP_HEAD, TCP_HEAD + "   0: 0100007F:1F40 00000000:0000 0A 0000"])
def test_tables_that_are_empty_or_cut_off(fake, source, text):
    fake("/proc/net/tcp", text)
    assert ports.read(source) == []
    assert source.problems == ([] if text else ["/proc/net/tcp does not tell which ports are in use"])


def test_a_kernel_that_does_not_tell_its_ports(source):
    assert ports.read(source) == []
    assert source.problems == ["/proc/net/tcp does not tell which ports are in use"]


@pytest.mark.parametrize(("good", "bad"), [("0100007F:", "01:"), (":1F40", ":PORT"), (" 111 ", " inode ")])
def test_a_listener_that_cannot_be_understood_is_a_problem_of_its_own(fake, source, good, bad):
    damaged = tcp_line(0, "0100007F", 8000, "0A", 111).replace(good, bad)
    fake("/proc/net/tcp", TCP_HEAD + damaged + tcp_line(1, "00000000", 22, "0A", 112))
    assert ports.read(source) == [{"port": 22, "address": "0.0.0.0", **UNKNOWN}]
    assert source.problems == ["/proc/net/tcp has 1 lines that cannot be understood"]


def test_a_host_with_too_many_open_files(fake, source, tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "_OWNER_SECONDS", -1)
    fake("/proc/net/tcp", TCP_HEAD + tcp_line(0, "00000000", 22, "0A", 112))
    opened(tmp_path, 42, "socket:[112]")
    assert ports.read(source) == [{"port": 22, "address": "0.0.0.0", **UNKNOWN}]
    assert source.problems == ["this host has so many open files that not every listening port's owner was found"]


def test_this_machine(this_host):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        found = ports.read(this_host)
        port = listener.getsockname()[1]
    (own,) = [entry for entry in found if entry["port"] == port and entry["address"] == "127.0.0.1"]
    assert own["pid"] == os.getpid()
    assert own["process"]


TABLE = TCP_HEAD + tcp_line(0, "0100007F", 8000, "0A", 111) + tcp_line(1, "0" * 32, 443, "0A", 114)


@given(
    st.text()
    | st.builds(
        lambda at, letters: TABLE[:at] + letters + TABLE[at + 1 :], st.integers(0, len(TABLE)), st.text(max_size=3)
    )
)
def test_any_table(text):
    found, misread = ports.parse_listeners(text)
    assert misread >= 0
    for inode, (port, _address) in found.items():
        assert inode in text and f"{port:04X}" in text.upper()
