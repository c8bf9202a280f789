# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import email.utils
import errno
import gzip
import itertools
import socket
import time

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import sources
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import http
from ansible_collections.baremetal.llm.tests.testbed import hubs
from hypothesis import given
from hypothesis import strategies as st

CONTENT = bytes(range(256)) * 2000
FILES = {
    "data.bin": CONTENT,
    "data.json": b'{"a": [1, 2]}',
    "page.html": b"<html>sign in</html>",
    "odd.txt": b"\xff\xfe",
}
BASE = "/models/acme/tiny/"
SECRET = "hf_secret-token"


@pytest.fixture
def served():
    with hubs.start("https", FILES) as server:
        yield server


@pytest.fixture
def client(served, waits):
    return http.Client(served.url, timeout=5.0, retries=3, sleep=waits.append)


def _address(server, name: str) -> str:
    return f"{server.url}{BASE}{name}"


def _read(response) -> bytes:
    return b"".join(iter(lambda: response.read(7_777), b""))


def test_json_and_headers(client, served):
    served.faults.append(hubs.Fault(headers={"X-Some": "thing"}))
    data, headers = client.json(_address(served, "data.json"))
    assert data == {"a": [1, 2]}
    assert headers.get("x-some") == "thing"


def test_no_header_says_more_than_it_must(client, served):
    client.json(_address(served, "data.json"))
    sent = dict(served.requests[0].headers.items())
    assert sent == {
        "Host": served.url.partition("//")[2],
        "User-Agent": "baremetal.llm",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }


@pytest.mark.parametrize(
    ("name", "found"),
    [("page.html", "an HTML page"), ("data.bin", f"{len(CONTENT)} bytes of no type"), ("odd.txt", "2 bytes")],
)
def test_what_is_no_json(client, served, name, found):
    with pytest.raises(LlmError) as caught:
        client.json(_address(served, name))
    assert found in caught.value.found
    assert caught.value.remedy
    assert len(served.requests) == 1


def test_deep_json_is_no_json(client, served):
    served.faults.append(hubs.Fault(body=b"[" * 1_000_000))
    with pytest.raises(LlmError, match="did not answer with JSON"):
        client.json(_address(served, "data.json"))


def test_text(client, served):
    assert client.text(_address(served, "data.json")) == '{"a": [1, 2]}'
    with pytest.raises(LlmError, match="no text"):
        client.text(_address(served, "odd.txt"))


def test_an_answer_without_end_is_not_kept(client, served):
    assert client.content(_address(served, "data.bin"), len(CONTENT)) == CONTENT
    with pytest.raises(LlmError, match="longer than anything"):
        client.content(_address(served, "data.bin"), len(CONTENT) - 1)


def test_what_proxies_compress_is_taken_as_text_but_not_as_a_file(client, served):
    served.faults += [hubs.Fault(gzip=True), hubs.Fault(gzip=True)]
    assert client.json(_address(served, "data.json"))[0] == {"a": [1, 2]}
    with pytest.raises(LlmError, match="comes compressed"), client.stream(_address(served, "data.bin")):
        pytest.fail("it was read")
    served.faults.append(hubs.Fault(gzip=True, method="HEAD"))
    with pytest.raises(LlmError, match="no known length"):
        client.size(_address(served, "data.bin"))


def test_a_small_answer_that_unpacks_without_end(client, served):
    bomb = gzip.compress(bytes(50_000_000))
    served.faults.append(hubs.Fault(body=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(LlmError, match="longer than anything"):
        client.content(_address(served, "data.json"), 1_000_000)


@pytest.mark.parametrize("body", [gzip.compress(b"x" * 999, mtime=0)[:-9], b"no gzip"])
def test_damaged_compression_is_asked_for_again(client, served, waits, body):
    served.faults.append(hubs.Fault(body=body, headers={"Content-Encoding": "gzip"}))
    assert client.json(_address(served, "data.json"))[0] == {"a": [1, 2]}
    assert len(waits) == 1


def test_another_coding(client, served):
    served.faults.append(hubs.Fault(headers={"Content-Encoding": "br"}))
    with pytest.raises(LlmError, match="coding"):
        client.json(_address(served, "data.json"))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_recovers(client, served, waits, status):
    served.faults.append(hubs.Fault(status=status, times=3))
    assert client.json(_address(served, "data.json"))[0] == {"a": [1, 2]}
    assert [0.5 <= waits[0] <= 1, 1 <= waits[1] <= 2, 2 <= waits[2] <= 4, len(waits)] == [True, True, True, 3]


@pytest.mark.parametrize("method", ["json", "size", "stream"])
def test_a_server_that_never_recovers(client, served, method):
    served.faults += [hubs.Fault(status=500, times=None), hubs.Fault(status=500, times=None, method="HEAD")]
    with pytest.raises(LlmError) as caught:
        if method == "stream":
            with client.stream(_address(served, "data.bin")):
                pytest.fail("it was read")
        getattr(client, method)(_address(served, "data.json"))
    assert caught.value.found == "status 500, 4 times"
    assert len(served.requests) == 4


def test_retry_after_in_seconds(client, served, waits):
    served.faults.append(hubs.Fault(status=429, headers={"Retry-After": "17"}))
    client.json(_address(served, "data.json"))
    assert waits == [17.0]


@pytest.mark.parametrize("wrong_by", [0, 7 * 24 * 3600])
def test_retry_after_as_a_date_is_by_the_clock_of_the_server(client, served, waits, wrong_by):
    now = time.time() + wrong_by
    headers = {
        "Retry-After": email.utils.formatdate(now + 42, usegmt=True),
        "Date": email.utils.formatdate(now, usegmt=True),
    }
    served.faults.append(hubs.Fault(status=503, headers=headers))
    client.json(_address(served, "data.json"))
    assert waits == [42.0]


@pytest.mark.parametrize("text", ["soon", "-5", "", "Wed, 99 Foo 2026 00:00:00 GMT", "1e9", "inf"])
def test_retry_after_that_says_nothing(client, served, waits, text):
    served.faults.append(hubs.Fault(status=429, headers={"Retry-After": text}))
    client.json(_address(served, "data.json"))
    assert [0.5 <= waited <= 1 for waited in waits] == [True]


def test_retry_after_that_is_past(client, served, waits):
    served.faults.append(hubs.Fault(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}))
    client.json(_address(served, "data.json"))
    assert waits == [0.0]


def test_nobody_waits_for_days(client, served, waits):
    served.faults.append(hubs.Fault(status=429, headers={"Retry-After": "86400"}))
    with pytest.raises(LlmError) as caught:
        client.json(_address(served, "data.json"))
    assert (caught.value.found, waits) == ("86400 s", [])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_what_is_refused_is_not_asked_for_again(served, waits, status):
    served.faults.append(hubs.Fault(status=status, headers={"X-Error-Message": "No \x1b[31mway"}))
    client = http.Client(served.url, token=SECRET, sleep=waits.append)
    with pytest.raises(sources.Refused) as caught:
        client.json(_address(served, "data.json") + "?Signature=hidden")
    error = caught.value
    assert (error.status, error.found, len(served.requests)) == (status, f"status {status} No ?[31mway", 1)
    assert error.remedy
    assert SECRET not in str(error)
    assert "hidden" not in str(error)


def test_the_code_of_an_s3_server_is_told(client, served):
    served.faults.append(hubs.Fault(status=403, body=b"<Error><Code>RequestTimeTooSkewed</Code></Error>"))
    with pytest.raises(sources.Refused, match="status 403 RequestTimeTooSkewed"):
        client.json(_address(served, "data.json"))


def test_an_answer_that_is_cut_is_asked_for_again(client, served, waits):
    served.faults += [hubs.Fault(cut=3), hubs.Fault(cut=0)]
    assert client.json(_address(served, "data.json"))[0] == {"a": [1, 2]}
    assert len(waits) == 2


def test_an_answer_that_is_always_cut(client, served):
    served.faults.append(hubs.Fault(cut=3, times=None))
    with pytest.raises(LlmError, match="cut with 10 bytes to come"):
        client.json(_address(served, "data.json"))
    assert len(served.requests) == 4


def test_an_answer_whose_end_is_not_known_is_not_believed(client, served):
    served.faults.append(hubs.Fault(headers={"Content-Length": None}, times=None))
    with pytest.raises(LlmError, match="does not say where its answer ends"):
        client.text(_address(served, "data.json"))


def test_a_file_whose_end_is_not_known_is_read(client, served):
    served.faults.append(hubs.Fault(headers={"Content-Length": None}))
    with client.stream(_address(served, "data.bin")) as response:
        assert response.total is None
        assert _read(response) == CONTENT


def test_a_stream_that_is_cut_goes_on_where_it_was(client, served):
    served.faults.append(hubs.Fault(cut=100_000))
    got = b""
    with pytest.raises(sources.Broken), client.stream(_address(served, "data.bin")) as response:
        assert (response.offset, response.total) == (0, len(CONTENT))
        while True:
            got += response.read(30_000)
    assert got == CONTENT[:100_000]
    with client.stream(_address(served, "data.bin"), len(got)) as response:
        assert (response.offset, response.total) == (100_000, len(CONTENT))
        assert got + _read(response) == CONTENT


def test_a_server_that_ignores_ranges(client, served):
    served.faults.append(hubs.Fault(whole=True))
    with client.stream(_address(served, "data.bin"), 1000) as response:
        assert (response.offset, response.total, _read(response)) == (0, len(CONTENT), CONTENT)


def test_a_range_that_begins_elsewhere_is_refused(client, served):
    served.faults.append(hubs.Fault(shift=1))
    with pytest.raises(LlmError) as caught, client.stream(_address(served, "data.bin"), 1000):
        pytest.fail("it was read")
    assert caught.value.found == f"bytes 1001-{len(CONTENT) - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("header", [None, "bytes 1000-", "items 1000-2000/3000", "bytes 1000-2000/x"])
def test_a_part_that_is_not_named_is_refused(client, served, header):
    served.faults.append(hubs.Fault(status=206, headers={"Content-Range": header}, whole=True))
    with pytest.raises(LlmError, match="another part"), client.stream(_address(served, "data.bin"), 1000):
        pytest.fail("it was read")


def test_an_offset_behind_the_end_begins_again(client, served):
    with client.stream(_address(served, "data.bin"), len(CONTENT) + 5) as response:
        assert (response.offset, response.total, _read(response)) == (0, len(CONTENT), CONTENT)


def test_length(client, served):
    assert client.size(_address(served, "data.bin")) == len(CONTENT)
    assert served.asked == [f"HEAD {BASE}data.bin"]
    served.faults.append(hubs.Fault(headers={"Content-Length": None}, method="HEAD"))
    with pytest.raises(LlmError, match="no known length"):
        client.size(_address(served, "data.bin"))


@pytest.mark.parametrize("read", ["json", "stream"])
def test_a_server_that_falls_silent(served, waits, read):
    client = http.Client(served.url, timeout=0.2, retries=1, sleep=waits.append)
    served.faults.append(hubs.Fault(hang=True, times=None))
    with pytest.raises(LlmError, match="no answer within the time, 2 times"):
        if read == "json":
            client.json(_address(served, "data.json"))
        with client.stream(_address(served, "data.bin")):
            pytest.fail("it was read")


def test_a_stream_that_falls_silent(served):
    client = http.Client(served.url, timeout=0.2)
    served.faults.append(hubs.Fault(slow=60))
    with (
        pytest.raises(sources.Broken, match="no answer within"),
        client.stream(_address(served, "data.bin")) as response,
    ):
        _read(response)


def test_an_answer_that_trickles_for_ever(served, monkeypatch):
    monkeypatch.setattr(http, "WHOLE_ANSWER", 0.01)
    client = http.Client(served.url, timeout=10.0, retries=0)
    served.faults.append(hubs.Fault(slow=0.01, body=b" " * 100_000))
    with pytest.raises(LlmError, match=r"did not end within 0\.1 s"):
        client.json(_address(served, "data.json"))


def test_a_port_where_nobody_listens(waits):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        with pytest.raises(LlmError, match="Connection refused, 3 times"):
            http.Client(url, retries=2, sleep=waits.append).json(url)
    assert len(waits) == 2


def test_a_host_that_has_no_name_is_not_asked_again(monkeypatch, waits):
    def fail(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(LlmError, match="no such name"):
        http.Client("http://hub.example.com", sleep=waits.append).json("http://hub.example.com/x")
    assert waits == []


def test_a_name_server_that_is_away_for_a_moment(monkeypatch, client, served, waits):
    connect, errors = (
        socket.create_connection,
        [socket.gaierror(socket.EAI_AGAIN, "try again"), OSError(errno.EIO, "x")],
    )

    def sometimes(*arguments: object, **options: object) -> socket.socket:
        if errors:
            raise errors.pop()
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", sometimes)
    assert client.json(_address(served, "data.json"))[0] == {"a": [1, 2]}
    assert len(waits) == 2


def test_redirects_are_followed_and_no_other_host_sees_the_token(waits):
    with hubs.start("https", FILES) as other, hubs.start("https", FILES, token=SECRET) as server:
        client = http.Client(server.url, token=SECRET, sleep=waits.append)
        server.faults.append(hubs.Fault(status=307, headers={"Location": f"{other.url}{BASE}data.json"}))
        assert client.json(_address(server, "anything"))[0] == {"a": [1, 2]}
        other.faults.append(hubs.Fault(status=302, headers={"Location": _address(server, "data.json")}))
        assert client.json(_address(other, "anything"))[0] == {"a": [1, 2]}
        assert [request.headers["Authorization"] for request in other.requests] == [None, None]
        assert [request.headers["Authorization"] for request in server.requests] == [f"Bearer {SECRET}"] * 2


def test_the_same_host_on_another_port_or_by_another_name_is_another_host(served):
    client = http.Client("http://127.0.0.1:1", token=SECRET)
    client.json(_address(served, "data.json"))
    client = http.Client(served.url.replace("127.0.0.1", "localhost"), token=SECRET)
    client.json(_address(served, "data.json"))
    assert [request.headers["Authorization"] for request in served.requests] == [None, None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_host(client, served, status):
    served.faults.append(hubs.Fault(status=status, headers={"Location": "data.json"}))
    assert client.json(_address(served, "elsewhere"))[0] == {"a": [1, 2]}


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://user:password@127.0.0.1/x",
        "data:application/json,{}",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "//\x7f/x",
        None,
        "",
    ],
)
def test_redirects_that_are_not_followed(client, served, location):
    served.faults.append(hubs.Fault(status=302, headers={"Location": location}))
    with pytest.raises(LlmError) as caught:
        client.json(_address(served, "data.json"))
    assert "password" not in str(caught.value.found)
    assert len(served.requests) == 1


def test_redirects_without_end(client, served):
    served.faults.append(hubs.Fault(status=302, headers={"Location": "data.json"}, times=None))
    with pytest.raises(LlmError, match="redirects without end"):
        client.json(_address(served, "data.json"))
    assert len(served.requests) == http.MOST_REDIRECTS


def test_a_redirect_from_https_to_http_is_not_followed(served, tmp_path):
    with hubs.start("https", FILES, tls=tmp_path) as server:
        client = http.Client(server.url, ca_file=server.ca_file)
        server.faults.append(hubs.Fault(status=302, headers={"Location": _address(served, "data.json")}))
        with pytest.raises(LlmError, match="everybody can read"):
            client.json(_address(server, "data.json"))
    assert served.requests == []


def test_a_private_authority(tmp_path, waits):
    with hubs.start("https", FILES, tls=tmp_path) as server:
        assert http.Client(server.url, ca_file=server.ca_file).size(_address(server, "data.bin")) == len(CONTENT)
        with pytest.raises(LlmError, match="is not who it says"):
            http.Client(server.url, sleep=waits.append).json(_address(server, "data.json"))
    assert waits == []


def test_a_file_that_holds_no_certificates(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing", encoding="utf-8")
    for name in ("ca.pem", "none.pem"):
        with pytest.raises(LlmError, match=r"\.pem cannot be used"):
            http.Client("https://hub.example.com", ca_file=str(tmp_path / name))


@pytest.mark.parametrize("token", [SECRET + "\n", "two words", "t\u00f6ken", "a\r\nX-Other: b"])
def test_tokens_that_cannot_be_sent(token):
    with pytest.raises(LlmError) as caught:
        http.Client("https://hub.example.com", token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("host", ["hub.example.com", "10.1.2.3", "[2001:db8::1]"])
def test_no_token_travels_in_the_open(host):
    with pytest.raises(LlmError, match="everybody to read"):
        http.Client(f"http://{host}:8080", token=SECRET)
    http.Client(f"http://{host}:8080")
    http.Client(f"https://{host}:8080", token=SECRET)
    http.Client("http://[::1]:8080", token=SECRET)


def test_a_proxy_for_http(monkeypatch, served):
    with hubs.Proxy({"hub.example.com:80": served.port}, login="user:p%40ss") as proxy:
        proxy.login = "user:p@ss"
        monkeypatch.setenv("http_proxy", proxy.url)
        client = http.Client("http://hub.example.com")
        assert client.json(f"http://hub.example.com{BASE}data.json")[0] == {"a": [1, 2]}
        assert proxy.asked == ["GET hub.example.com:80"]
    assert served.requests[0].headers["Host"] == "hub.example.com"
    assert served.requests[0].headers["Proxy-Authorization"] is None


def test_a_proxy_for_https_sees_no_token(monkeypatch, tmp_path):
    name = hubs.PUBLIC_NAME
    with (
        hubs.start("https", FILES, tls=tmp_path, token=SECRET) as server,
        hubs.Proxy({f"{name}:443": server.port}, login="user:pass") as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url)
        client = http.Client(f"https://{name}", token=SECRET, ca_file=server.ca_file)
        assert client.json(f"https://{name}{BASE}data.json")[0] == {"a": [1, 2]}
        assert proxy.asked == [f"CONNECT {name}:443"]
        assert all(SECRET not in str(headers) for headers in proxy.seen)
        assert server.requests[0].headers["Proxy-Authorization"] is None
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        client = http.Client(server.url, token=SECRET, ca_file=server.ca_file)
        assert client.json(_address(server, "data.json"))[0] == {"a": [1, 2]}
        assert len(proxy.asked) == 1


def test_a_proxy_that_refuses(monkeypatch, served, waits):
    with hubs.Proxy({}, login="user:secret-of-the-proxy") as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(LlmError, match="status 407"):
            http.Client(served.url, sleep=waits.append).json(_address(served, "data.json"))


@pytest.mark.parametrize("proxy", ["socks5://user:hidden@proxy:1080", "https://proxy:3128", "http://", "http://x:y:z"])
def test_proxies_that_cannot_be_used(monkeypatch, served, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(LlmError, match="proxy for 127") as caught:
        http.Client(served.url).json(_address(served, "data.json"))
    assert "hidden" not in str(caught.value)


@given(st.text(max_size=60), st.sampled_from(["", "http://host/", "https://", "http://a@", "http://host:", "//", "h"]))
def test_any_text_is_a_plain_address_or_refused(text, start):
    try:
        parts = http.split(start + text)
    except LlmError:
        return
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert all("!" <= letter <= "~" for letter in itertools.chain(parts.netloc, parts.path, parts.query))


@given(st.text(max_size=60))
def test_what_is_quoted_stays_so(text):
    once = http.split("http://host/a%20b?x=%2F").geturl()
    assert once == "http://host/a%20b?x=%2F"
    try:
        parts = http.split("http://host/" + text.replace("?", "").replace("#", ""))
    except LlmError:
        return
    assert http.split(parts.geturl()) == parts
