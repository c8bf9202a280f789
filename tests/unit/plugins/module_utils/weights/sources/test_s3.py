# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An S3 server of a few lines; a real one is in tests/integration/test_hub_clients.py."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import unquote
from xml.sax.saxutils import escape

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import sources
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import s3
from ansible_collections.baremetal.llm.tests.testbed import hubs
from ansible_collections.baremetal.llm.tests.testbed.hubs import server as servers

from .conftest import FILES, HOSTILE

PREFIX = "models/tiny/"


class Bucket(servers.Application):
    """Objects {key: content}; ``page``: keys of a page; ``kept``: headers of the checksum of each object."""

    def __init__(self, objects: dict[str, bytes], page: int = 1000) -> None:
        self.objects = objects
        self.page = page
        self.kept = {key: {"x-amz-checksum-sha256": _base64(content)} for key, content in objects.items()}

    def answer(self, request: servers.Request) -> servers.Answer:
        key = unquote(request.path)[len("/bucket/") :]
        if not key:
            return self._list(request.query)
        if key not in self.objects:
            return servers.Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        asked = request.headers.get("X-Amz-Checksum-Mode") == "ENABLED"
        return servers.Answer(
            body=self.objects[key], headers=dict(self.kept.get(key, {})) if asked else {}, ranged=True
        )

    def _list(self, query: dict[str, str]) -> servers.Answer:
        keys = [key for key in sorted(self.objects) if key.startswith(query["prefix"])]
        start = int(query.get("continuation-token", "0"))
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys[start : start + self.page]
        )
        more = start + self.page < len(keys)
        token = f"<NextContinuationToken>{start + self.page}</NextContinuationToken>" if more else ""
        head = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        return servers.Answer(body=_result(head + contents))


def _base64(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _result(inner: str) -> bytes:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0"?><ListBucketResult xmlns="{space}">{inner}</ListBucketResult>'.encode()


@pytest.fixture
def bucket():
    application = Bucket({PREFIX + path: content for path, content in FILES.items()})
    application.objects["models/tinier/x"] = b"of another model"
    application.objects[PREFIX] = b""  # what consoles make for an empty folder
    with servers.Server(application) as server:
        yield server


@pytest.fixture
def hub(bucket, waits):
    source = sources.parse(f"s3://bucket/{PREFIX}")
    return sources.open_source(source, endpoint=bucket.url, retries=2, timeout=5.0, sleep=waits.append)


def _told(listing: sources.Listing) -> list[tuple[str, int, str]]:
    return [(file.path, file.size, file.sha256) for file in listing.files]


def test_digests_that_the_server_keeps(hub, digests):
    assert _told(hub.listing()) == digests


@pytest.mark.parametrize("page", [1, 3])
def test_pages(hub, bucket, digests, page):
    bucket.application.page = page
    assert _told(hub.listing()) == digests


def test_a_list_of_digests_names_the_files(hub, bucket, digests):
    lines = [f"{sha256}  {path}\n" for path, _size, sha256 in digests]
    bucket.application.objects[PREFIX + "SHA256SUMS"] = "".join(lines).encode()
    bucket.application.objects[PREFIX + "stranger.txt"] = b"x"
    assert _told(hub.listing()) == digests
    assert not any(path.startswith("HEAD") for path in bucket.asked)


def test_a_list_that_names_an_object_that_is_not_there(hub, bucket, refused):
    bucket.application.objects[PREFIX + "SHA256SUMS"] = b"a" * 64 + b"  lost.json\n"
    assert refused(hub).wanted == "lost.json"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-amz-checksum-sha256": _base64(b"x") + "-3"},
        {"x-amz-checksum-sha256": _base64(b"x"), "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-sha256": "AAAA"},
        {"x-amz-checksum-sha256": "no base64!"},
        {"x-amz-checksum-crc32": "AAAAAA=="},
    ],
)
def test_checksums_that_are_not_of_the_whole_object(hub, bucket, headers):
    bucket.application.kept[PREFIX + "config.json"] = headers
    assert {file.path: file.sha256 for file in hub.listing().files}["config.json"] == ""


def test_reading(hub, whole):
    for path, content in FILES.items():
        assert whole(hub, path, len(content) // 2) == content[len(content) // 2 :]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.isprintable() and name])
def test_names_that_lead_elsewhere(hub, bucket, refused, name):
    bucket.application.objects[PREFIX + name] = b""
    refused(hub)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>sign in",
        b"<Error><Code>x</Code></Error>",
        _result("<IsTruncated>true</IsTruncated>"),
        _result("<Contents><Key>models/tiny/x</Key><Size>-1</Size></Contents>"),
        _result("<Contents><Key>models/tiny/x</Key></Contents>"),
        _result("<Contents><Key>elsewhere/x</Key><Size>1</Size></Contents>"),
        _result(""),
        b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><ListBucketResult>&d;</ListBucketResult>',
    ],
)
def test_listings_of_another_shape(hub, bucket, refused, body):
    bucket.faults.append(hubs.Fault(body=body))
    assert refused(hub).remedy


def test_pages_in_a_circle(hub, bucket, refused):
    again = "<IsTruncated>true</IsTruncated><NextContinuationToken>7</NextContinuationToken>"
    bucket.faults.append(hubs.Fault(body=_result(again), times=None))
    assert "does not end" in refused(hub).summary
    assert len(bucket.requests) == 2


def test_escaped_keys(hub, bucket):
    one = "<Contents><Key>models/tiny/with+blank+%2B+plus%25</Key><Size>0</Size></Contents>"
    listing = _result(f"<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{one}")
    bucket.application.objects[PREFIX + "with blank + plus%"] = b""
    bucket.faults.append(hubs.Fault(body=listing))
    assert [file.path for file in hub.listing().files] == ["with blank + plus%"]


def test_only_requests_with_keys_are_signed_and_no_secret_is_sent(bucket, hub):
    hub.listing()
    assert all(request.headers["Authorization"] is None for request in bucket.requests)
    bucket.requests.clear()
    source = sources.parse(f"s3://bucket/{PREFIX}")
    keys = {"access_key": "the-access-key", "secret_key": "the-secret-key", "token": "the-session-token"}
    sources.open_source(source, endpoint=bucket.url, **keys).listing()
    for request in bucket.requests:
        assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=the-access-key/")
        assert request.headers["X-Amz-Security-Token"] == "the-session-token"
        assert "the-secret-key" not in str(request)


def test_another_host_gets_no_signature(bucket, digests):
    keys = {"access_key": "a", "secret_key": "b", "token": "c"}
    with hubs.start("https", FILES) as other:
        hub = sources.open_source(sources.parse("s3://bucket/x"), endpoint=bucket.url, **keys)
        location = f"{other.url}/models/acme/tiny/config.json"
        bucket.faults.append(hubs.Fault(status=307, headers={"Location": location}))
        with hub.stream("config.json") as response:
            assert response.read(100) == FILES["config.json"]
        assert not [name for name in other.requests[0].headers if name.lower().startswith(("x-amz", "authorization"))]


def test_a_clock_that_is_wrong(bucket, hub, refused):
    bucket.faults.append(hubs.Fault(status=403, body=b"<Error><Code>RequestTimeTooSkewed</Code></Error>"))
    error = refused(hub)
    assert "RequestTimeTooSkewed" in error.found
    assert "clock" in error.remedy


def test_keys_that_cannot_be_sent():
    with pytest.raises(LlmError) as caught:
        s3.Signer("access", "secret-with-line-feed\n", "", "r")
    assert "secret-with" not in str(caught.value)
