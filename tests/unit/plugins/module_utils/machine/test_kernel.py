# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import kernel, security
from hypothesis import given
from hypothesis import strategies as st

OS_RELEASE = 'PRETTY_NAME="openEuler 22.03 (LTS-SP4)"\nNAME=openEuler\n# note\nID=\'openEuler\'\nVERSION_ID="22.03"\r\n'


def test_kernel(source, fake):
    release = os.uname().release
    assert kernel.read(source) == {
        "release": release,
        "machine": os.uname().machine,
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
        "headers": False,
    }
    fake(f"/lib/modules/{release}/build/Makefile", "x")
    assert kernel.read(source)["headers"] is True


@pytest.mark.parametrize("answer", [ValueError("unrecognized configuration name"), OSError(22, "x"), None])
def test_another_c_library(source, monkeypatch, answer):
    def confstr(_name):
        if answer:
            raise answer

    monkeypatch.setattr(kernel.os, "confstr", confstr)
    assert kernel.read(source)["libc"] == ""


def test_sysctl(source, fake):
    fake("/proc/sys/vm/swappiness", "60\n")
    fake("/proc/sys/kernel/numa_balancing", "1\n")
    fake("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
    fake("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n")
    assert kernel.sysctl(source) == {
        "vm.swappiness": 60,
        "kernel.numa_balancing": 1,
        "vm.overcommit_memory": None,
        "net.ipv4.ip_local_port_range": "32768 60999",
        "net.ipv4.ip_local_reserved_ports": "",
    }
    assert source.problems == []


def test_sysctl_that_is_no_number(source, fake):
    fake("/proc/sys/vm/swappiness", "many\n")
    found = kernel.sysctl(source)
    assert found["vm.swappiness"] is None and found["net.ipv4.ip_local_port_range"] is None
    assert source.problems == ["vm.swappiness is set to 'many', which is no number"]


@pytest.mark.parametrize(
    ("text", "mode"),
    [("always [madvise] never\n", "madvise"), ("[always] madvise never", "always"), ("always", ""), ("[x]", "")],
)
def test_transparent_huge_pages(source, fake, text, mode):
    fake("/sys/kernel/mm/transparent_hugepage/enabled", text)
    assert kernel.thp(source) == mode


def test_a_kernel_without_transparent_huge_pages(source):
    assert kernel.thp(source) == ""


def test_distribution(source, fake):
    wanted = {"id": "openEuler", "version": "22.03", "name": "openEuler 22.03 (LTS-SP4)"}
    fake("/usr/lib/os-release", OS_RELEASE)
    assert kernel.distribution(source) == wanted
    fake("/etc/os-release", "ID=debian\nNAME='Debian'\n")
    assert kernel.distribution(source) == {"id": "debian", "version": "", "name": "Debian"}
    assert source.problems == []


def test_no_distribution(source):
    assert kernel.distribution(source) == {"id": "", "version": "", "name": ""}
    assert source.problems == ["/etc/os-release does not tell which distribution this is"]


@given(st.text() | st.builds(lambda cut, extra: OS_RELEASE[:cut] + extra, st.integers(0, 90), st.text()))
def test_any_settings(text):
    for name, value in kernel.parse_os_release(text).items():
        assert name in text and value in text


def test_this_machine(this_host):
    assert kernel.read(this_host)["release"]
    assert kernel.sysctl(this_host)["vm.swappiness"] is not None
    assert kernel.distribution(this_host)["id"]
    assert kernel.thp(this_host) in ("always", "madvise", "never", "")
    assert security.selinux(this_host) in ("enforcing", "permissive", "disabled", "")
    assert set(security.firewall(this_host)["active"]) <= {"firewalld", "iptables", "nftables", "ufw"}
    assert this_host.problems == []


# What guards a host -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "mode"),
    [
        ({"/sys/fs/selinux/enforce": "1"}, "enforcing"),
        ({"/sys/fs/selinux/enforce": "0\n", "/etc/selinux/config": "SELINUX=enforcing\n"}, "permissive"),
        ({"/etc/selinux/config": "SELINUX=disabled\n"}, "disabled"),
        ({"/sys/fs/selinux/enforce": "x"}, ""),
        ({}, ""),
    ],
)
def test_selinux(source, fake, files, mode):
    for name, text in files.items():
        fake(name, text)
    assert security.selinux(source) == mode


@pytest.mark.parametrize(
    ("name", "text", "active"),
    [
        ("/sys/fs/cgroup/system.slice/firewalld.service/cgroup.procs", "7\n", ["firewalld"]),
        ("/sys/fs/cgroup/systemd/system.slice/firewalld.service/cgroup.procs", "7\n", ["firewalld"]),
        ("/proc/net/ip_tables_names", "nat\nfilter\n", ["iptables"]),
        ("/proc/net/ip_tables_names", "", []),
        ("/proc/modules", "x 1 0 - Live 0x0\nnf_tables 372736 12 nft_compat, Live 0x0\n", ["nftables"]),
        ("/proc/modules", "nf_tables 372736 0 - Live 0x0\n", []),
        ("/proc/modules", "nf_tables\nnf_tables 1 many\n", []),
        ("/etc/ufw/ufw.conf", "# x\nENABLED=yes\n", ["ufw"]),
        ("/etc/ufw/ufw.conf", "ENABLED=no\n", []),
    ],
)
def test_firewalls(source, fake, name, text, active):
    fake(name, text)
    assert security.firewall(source) == {"active": active}
