# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import threading

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.machine import names
from hypothesis import given
from hypothesis import strategies as st

HOSTS = """127.0.0.1 localhost
127.0.1.1\tnode1.example node1  # the installer's line
192.0.2.10 NODE1 # node2
#192.0.2.11 node1
not-an-address node1
192.0.2.10 node1
::1 localhost ip6-only
"""


@pytest.fixture
def resolver(monkeypatch):
    """Function that sets what the system's resolver does; returns the list of what it was asked."""

    def use(answer) -> list:
        asked = []

        def getaddrinfo(name, _port, family, _kind):
            asked.append((name, family))
            return answer()

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return use


def told(*addresses: str) -> list:
    return [(2, 2, 17, "", (address, 0)) for address in addresses]


def test_the_hosts_file_comes_first(fake, source, resolver):
    asked = resolver(lambda: told("203.0.113.1"))
    fake("/etc/hosts", HOSTS)
    assert names.own_addresses(source, "node1") == ["127.0.1.1", "192.0.2.10"]
    assert names.resolve(source, "localhost") == ["127.0.0.1", "::1"]
    assert asked == []


def test_a_name_that_the_hosts_file_has_not(fake, source, resolver):
    asked = resolver(lambda: told("2001:db8::1", "203.0.113.1", "203.0.113.1"))
    fake("/etc/hosts", HOSTS)
    assert names.resolve(source, "node2") == ["203.0.113.1", "2001:db8::1"]
    assert asked == [(b"node2", socket.AF_UNSPEC)]


def test_a_name_that_the_hosts_file_has_in_ipv6_only(fake, source, resolver):
    asked = resolver(lambda: told("203.0.113.1"))
    fake("/etc/hosts", HOSTS)
    assert names.own_addresses(source, "ip6-only") == ["203.0.113.1"]
    assert asked == [(b"ip6-only", socket.AF_INET)]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_an_address_stands_for_itself(source, resolver, address):
    resolver(lambda: told("203.0.113.1"))
    assert names.resolve(source, address) == [address]


def test_a_name_that_nobody_knows_is_no_problem_of_reading(source, resolver):
    def fail():
        raise socket.gaierror(-2, "Name or service not known")

    resolver(fail)
    assert names.own_addresses(source, "node1") == []
    assert source.problems == []


def test_a_resolver_that_hangs(source, resolver, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(names, "_RESOLVE_SECONDS", 0.1)
    resolver(lambda: held.wait() and told())
    try:
        assert names.own_addresses(source, "node1") == []
        assert source.problems == ["the name 'node1' could not be resolved within 0.1 s"]
    finally:
        held.set()


@given(text=st.text() | st.builds(lambda cut, extra: HOSTS[:cut] + extra, st.integers(0, 200), st.text()))
def test_any_hosts_file(text):
    for address in names.parse_hosts(text, "node1"):
        assert address in text and names.family_of(address)


# Proxies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_proxies(monkeypatch):
    """An environment without a proxy."""
    for name in [name for name in os.environ if name.lower() in (*names.PROXY_NAMES, "no_proxy")]:
        monkeypatch.delenv(name)


def test_proxies_of_the_environment_and_of_the_host(fake, source, monkeypatch, no_proxies):
    fake(
        "/etc/environment",
        'PATH="/bin"\nhttp_proxy="http://file:1"\nexport HTTPS_PROXY=http://user:secret@proxy.example:3128/\n'
        "no_proxy=localhost\nALL_PROXY=\n",
    )
    monkeypatch.setenv("http_proxy", "http://[2001:db8::1]:8080")
    monkeypatch.setenv("NO_PROXY", "192.0.2.0/24")
    assert names.proxies(source) == {"HTTPS_PROXY": "proxy.example:3128", "http_proxy": "[2001:db8::1]:8080"}


def test_no_proxies(source, no_proxies):
    assert names.proxies(source) == {}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("http://proxy:3128", "proxy:3128"),
        ("proxy:3128", "proxy:3128"),
        ("socks5h://proxy", "proxy"),
        (" https://user:p@ss@proxy.example:8080/path ", "proxy.example:8080"),
        ("http://user:p#s?s@192.0.2.1:1", "192.0.2.1:1"),
        ("http://user:pa/ss@proxy:1", ""),  # where the password ends is a guess
        ("http://user:12/34@proxy:1", ""),
        ("http://user:secret", ""),
        ("user:secret@", ""),
        ("http://", ""),
        ("proxy:3128?x", ""),
        ("\udcff\n", ""),
    ],
)
def test_the_place_of_a_proxy(value, place):
    assert names.proxy_place(value) == place


@given(password=st.text(min_size=1), user=st.text())
def test_passwords_never_show(password, user):
    place = names.proxy_place(f"http://{user}:{password}@proxy.example:3128")
    assert place in ("", "proxy.example:3128")


@given(value=st.text())
def test_any_proxy(value):
    assert names.proxy_place(value) in value
