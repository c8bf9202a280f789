# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import stat

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import commands
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights.share import rsync_daemon

MODULES = {"weights": "/w/model", "note": "/w/.model.share/note"}


def config(**changes) -> list[str]:
    plain = {
        "folder": "/w/.model.share/rsync-0",
        "modules": MODULES,
        "address": "10.0.0.2",
        "port": 36900,
        "allow": ["10.0.0.1", "10.0.0.2"],
        "user": (990, 991),
    }
    return rsync_daemon.config(**{**plain, **changes}).splitlines()


def test_the_daemon_is_bound_to_one_address_and_open_to_the_chain_only():
    lines = config()
    assert "address = 10.0.0.2" in lines and "port = 36900" in lines
    assert "hosts allow = 10.0.0.1 10.0.0.2" in lines and "hosts deny = *" in lines
    first = lines.index("[note]")
    assert {"read only = yes", "list = no", "hosts deny = *"} <= set(lines[:first]), "for all modules"
    assert lines[first:] == ["[note]", "path = /w/.model.share/note", "[weights]", "path = /w/model"]


def test_a_daemon_of_roots_gives_up_what_it_does_not_need(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert {"use chroot = yes", "uid = 990", "gid = 991"} <= set(config())
    monkeypatch.setattr(os, "geteuid", lambda: 990)
    assert "use chroot = no" in config() and not [line for line in config() if line.startswith(("uid", "gid"))]


@pytest.mark.parametrize("path", ["/w/a%b", "/w/a\nb", "/w/a\\", " /w/a", "/w/a "])
def test_a_path_that_the_configuration_would_change_is_refused(path):
    with pytest.raises(LlmError, match="cannot serve the folder"):
        config(modules={"weights": path})


@pytest.mark.parametrize(
    ("said", "found"),
    [("rsync  version 3.0.9  protocol version 30\n", "rsync 3.0"), ("nothing of use", "names no version")],
)
def test_an_rsync_that_does_not_fit_is_told(monkeypatch, said, found):
    monkeypatch.setattr(commands, "run", lambda argv, timeout: commands.Outcome(0, said, "", ""))
    with pytest.raises(LlmError) as caught:
        rsync_daemon.require()
    assert found in caught.value.found and "rsync 3.1" in caught.value.wanted


@pytest.mark.parametrize("said", ["rsync  version 3.1.3  protocol version 31\n", "rsync  version v4.0.0 protocol"])
def test_an_rsync_that_fits_is_taken(monkeypatch, said):
    monkeypatch.setattr(commands, "run", lambda argv, timeout: commands.Outcome(0, said, "", ""))
    rsync_daemon.require()


def test_the_environment_leads_rsync_nowhere_else(monkeypatch):
    monkeypatch.setenv("RSYNC_PROXY", "10.9.9.9:3128")
    monkeypatch.setenv("RSYNC_CONNECT_PROG", "touch /tmp/x")
    found = rsync_daemon.environment()
    assert not [name for name in found if name.startswith("RSYNC_")] and found["LC_ALL"] == "C"


def test_the_log_tells_who_asked_and_what_was_sent(tmp_path):
    daemon = rsync_daemon.Daemon(str(tmp_path), "")
    log = tmp_path / rsync_daemon.LOG
    assert daemon.look() == ({}, set())
    log.write_text(
        "2026/11/22 08:47:48 [32648] connect from UNDETERMINED (10.0.0.3)\n"
        "2026/11/22 08:47:48 [32648] sent 10.0.0.3 41113923\n"
        "2026/11/22 08:47:48 [32648] sent 41119019 bytes  received 59 bytes  total size 67108864\n"
        "2026/11/22 08:47:49 [32650] sent 10.0.0.3 7"
    )
    assert daemon.look() == ({"10.0.0.3": 41113923}, {"10.0.0.3"})
    with log.open("a", encoding="utf-8") as stream:
        stream.write("7\n")
    assert daemon.look()[0] == {"10.0.0.3": 41113923 + 77}, "a line is read when it is whole"


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LlmError, match=f"cannot listen on 127.0.0.1, port {port}"):
            rsync_daemon.Daemon(str(tmp_path), "").start("127.0.0.1", port)


def test_connections_with_a_port_are_seen():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert rsync_daemon.served(port) == set()
        with socket.create_connection(("127.0.0.1", port)):
            assert rsync_daemon.served(port) == {"127.0.0.1"}


def test_private_files_replace_what_lay_there(tmp_path):
    other = tmp_path / "other"
    other.write_text("kept")
    link = tmp_path / "conf"
    link.symlink_to(other)
    rsync_daemon.write_private(str(link), b"new")
    assert link.read_bytes() == b"new" and not link.is_symlink() and other.read_text() == "kept"
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
