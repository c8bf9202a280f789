# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects below a prefix in a bucket of S3 or of a server that speaks its protocol.

Source: Amazon's API reference of S3 (ListObjectsV2, HeadObject) and its description of Signature Version 4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
import xml.parsers.expat
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ...errors import LlmError
from .. import hashing
from . import common, http, sums

REGION = "us-east-1"
# 1000 keys a page, so this is more than common.MOST_FILES needs.
MOST_PAGES = 1000
ASKED_AT_A_TIME = 8

_EMPTY = hashlib.sha256(b"").hexdigest()
_KEEP = "-_.~"  # besides letters and digits: what is not escaped in what is signed


class Signer:
    """Signs requests without a body (Signature Version 4, in headers).

    :param session_token: of temporary keys, empty for lasting ones
    """

    def __init__(self, access_key: str, secret_key: str, session_token: str, region: str) -> None:
        for what, text in (("access_key", access_key), ("secret_key", secret_key), ("region", region)):
            if not re.fullmatch(r"[!-~]+", text):
                raise LlmError(
                    f"the {what} cannot be used",
                    wanted="printable ASCII characters without blanks",
                    found="others, such as a line feed at the end" if text else "nothing",
                    remedy="give access_key and secret_key together, from a vault",
                )
        self.access_key = access_key
        self.region = region
        self._secret_key = secret_key
        self._session_token = session_token

    def __call__(self, method: str, url: str, headers: dict[str, str]) -> dict[str, str]:
        """Return the headers that sign ``method`` on ``url`` now; x-amz-* of ``headers`` are signed too."""
        return self.headers(method, url, headers, time.gmtime())

    def headers(self, method: str, url: str, headers: dict[str, str], now: time.struct_time) -> dict[str, str]:
        """Like a call, for the moment ``now`` in UTC."""
        parts = http.split(url)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", now)
        added = {"X-Amz-Content-SHA256": _EMPTY, "X-Amz-Date": stamp}
        if self._session_token:
            added["X-Amz-Security-Token"] = self._session_token
        given = {name: value for name, value in headers.items() if name.lower().startswith("x-amz-")}
        usual_port = ":80" if parts.scheme == "http" else ":443"
        host = re.sub(f"{usual_port}$", "", parts.netloc.lower())  # as it is sent
        signed = {name.lower(): value.strip() for name, value in {**given, **added, "Host": host}.items()}
        names = ";".join(sorted(signed))
        lines = [method, parts.path or "/", _canonical_query(parts.query)]
        lines += [f"{name}:{signed[name]}" for name in sorted(signed)]
        request = "\n".join([*lines, "", names, _EMPTY])
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{self._secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        added["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return added


def _canonical_query(query: str) -> str:
    pairs = [(quote(name, _KEEP), quote(value, _KEEP)) for name, value in parse_qsl(query, keep_blank_values=True)]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def base_url(bucket: str, endpoint: str, region: str) -> str:
    """Return the URL of ``bucket``: a path below ``endpoint``, or a host of Amazon's when there is none."""
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}"
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    # A bucket's certificate covers one label, so a name with dots goes into the path.
    if "." in bucket or not re.fullmatch(r"[a-z0-9-]+", bucket):
        return f"https://s3.{region}.{domain}/{bucket}"
    return f"https://{bucket}.s3.{region}.{domain}"


class S3(common.Hub):
    """The objects of ``source.name`` below ``source.path``; ``base`` is the URL of the bucket."""

    def __init__(self, source: common.Source, client: http.Client, base: str) -> None:
        super().__init__(source, client)
        self.base = base
        self.prefix = f"{source.path}/" if source.path else ""

    def listing(self) -> common.Listing:
        """Return the objects; digests are those of an object SHA256SUMS, or those that the server keeps of each."""
        found = self._objects()
        files = [self._file(key, size) for key, size in found if not key.endswith("/")]
        files = common.checked(self.source, files)
        lists = [file for file in files if file.path == sums.NAME]
        if lists:
            where = self.url(sums.NAME)
            digests = sums.parse(self.client.text(where, sums.MOST_BYTES), http.bare(where))
            files = self._named(files, digests)
        else:
            digests = dict(hashing.parallel(self._kept_digest, files, ASKED_AT_A_TIME))
        whole = [file._replace(sha256=digests.get(file.path, "")) for file in files]
        return common.Listing("", common.checked(self.source, whole), [])

    def url(self, path: str) -> str:
        """Return where the object ``path``, below the prefix, can be had."""
        return f"{self.base}/{quote(self.prefix + path, '/' + _KEEP)}"

    def _file(self, key: str, size: int) -> common.Remote:
        if not key.startswith(self.prefix):
            raise common.misshapen(self.source, f"a key that does not begin with {self.prefix!r}", repr(key))
        return common.remote(self.source, key[len(self.prefix) :], size)

    def _named(self, files: list[common.Remote], digests: dict[str, str]) -> list[common.Remote]:
        there = {file.path for file in files}
        lost = sorted(set(digests) - there)
        if lost:
            raise LlmError(
                f"{self.source.text} lacks files that its {sums.NAME} names",
                wanted=", ".join(lost[:5]),
                found=f"{len(lost)} files are not there",
                remedy="upload them, or make the list again",
            )
        return [file for file in files if file.path in digests]

    def _kept_digest(self, file: common.Remote) -> tuple[str, str]:
        """SHA-256 of the whole object, where the server has kept one; that of a multipart upload ends in -N."""
        headers = self.client.head(self.url(file.path), {"X-Amz-Checksum-Mode": "ENABLED"})
        text = headers.get("x-amz-checksum-sha256", "")
        whole = headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT"
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        return file.path, raw.hex() if whole and len(raw) == 32 else ""

    def _objects(self) -> list[tuple[str, int]]:
        found, seen, token = [], set(), ""
        while True:
            asked = {"encoding-type": "url", "list-type": "2", "max-keys": "1000", "prefix": self.prefix}
            asked.update({"continuation-token": token} if token else {})
            query = urlencode(sorted(asked.items()), quote_via=quote, safe=_KEEP)
            page = _read_page(self.source, self.client.content(f"{self.base}/?{query}"))
            found += page["objects"]
            token = page["next"]
            if not token:
                return found
            if token in seen or len(seen) == MOST_PAGES or len(found) > common.MOST_FILES:
                raise LlmError(
                    f"the listing of {self.source.text} does not end",
                    wanted=f"at most {common.MOST_FILES} objects",
                    found=f"{len(found)} after {len(seen) + 1} pages",
                    remedy="give a prefix that holds one model and nothing else",
                )
            seen.add(token)


def _read_page(source: common.Source, raw: bytes) -> dict:
    """Return {objects: [(key, bytes)], next: token} from the XML of ListObjectsV2."""
    path: list[str] = []
    texts: dict[str, str] = {}
    objects: list[tuple[str, str]] = []
    values: dict[str, str] = {}

    def start(name: str, _attributes: dict) -> None:
        path.append(name.rpartition("}")[2])
        texts["/".join(path)] = ""

    def end(_name: str) -> None:
        where = "/".join(path)
        if where == "ListBucketResult/Contents":
            objects.append((texts.get(where + "/Key", ""), texts.get(where + "/Size", "")))
            for name in ("/Key", "/Size"):
                texts.pop(where + name, None)
        elif len(path) == 2:
            values[path[1]] = texts[where]
        path.pop()

    def data(text: str) -> None:
        where = "/".join(path)
        texts[where] = texts.get(where, "") + text

    def refuse(*_doctype: object) -> None:
        raise common.misshapen(source, "a document type, which no such answer has", "DOCTYPE")

    parser = xml.parsers.expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = data, refuse
    try:
        parser.Parse(raw, True)
    except xml.parsers.expat.ExpatError as error:
        raise common.misshapen(source, "no XML", str(error)) from error
    if "ListBucketResult" not in texts or not all(re.fullmatch(r"\d{1,15}", size) for _key, size in objects):
        raise common.misshapen(source, "no ListBucketResult", raw[:80])
    escaped = values.get("EncodingType") == "url"
    truncated = values.get("IsTruncated", "").strip() == "true"
    following = values.get("NextContinuationToken", "")
    if truncated and not following:
        raise common.misshapen(source, "a page that is not the last, and no token for the next", "no token")
    return {
        "objects": [(_decoded(key, escaped), int(size)) for key, size in objects],
        "next": following if truncated else "",
    }


def _decoded(key: str, escaped: bool) -> str:
    # With encoding-type=url a blank is written as a plus sign.
    return unquote(key.replace("+", " ")) if escaped else key
