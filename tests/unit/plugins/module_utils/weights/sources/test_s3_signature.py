# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our signatures against those of botocore, Amazon's own."""

from __future__ import annotations

import datetime
import re
from unittest import mock
from urllib.parse import quote, urlencode

import botocore.auth
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import s3
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567abcxyz0189/+=", min_size=1, max_size=40)
WORDS = st.text(max_size=20)
MOMENTS = st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2200, 1, 1))
UNRESERVED = "-_.~"


@given(
    st.sampled_from(["GET", "HEAD"]),
    st.sampled_from(["http://127.0.0.1:9000", "https://bucket.s3.eu-west-1.amazonaws.com", "https://S3.Example.com:443",
                     "http://h:80", "http://[::1]:9000"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), st.text(
        st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5),
    st.booleans(),
    KEYS,
    KEYS,
    st.one_of(st.just(""), KEYS),
    st.sampled_from(["us-east-1", "cn-north-4", "x"]),
    MOMENTS,
)  # fmt: skip
def test_the_same_signature(method, base, key, query, checksum, access_key, secret_key, session, region, moment):
    url = f"{base}/bucket/{quote(key, '/' + UNRESERVED)}"
    if query:
        url += "?" + urlencode(sorted(query.items()), quote_via=quote, safe=UNRESERVED)
    headers = {"X-Amz-Checksum-Mode": "ENABLED"} if checksum else {}
    ours = s3.Signer(access_key, secret_key, session, region).headers(method, url, headers, moment.timetuple())

    request = AWSRequest(method=method, url=url, headers=headers)
    # Over https botocore leaves the empty body unsigned unless it is told otherwise.
    request.context["payload_signing_enabled"] = True
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda *_arguments, **_options: moment):
        signer = botocore.auth.S3SigV4Auth(Credentials(access_key, secret_key, session or None), "s3", region)
        signer.add_auth(request)

    assert _parts(ours["Authorization"]) == _parts(request.headers["Authorization"])
    assert ours["X-Amz-Date"] == request.headers["X-Amz-Date"]
    assert ours["X-Amz-Content-SHA256"] == request.headers["X-Amz-Content-SHA256"]
    assert ours.get("X-Amz-Security-Token") == request.headers.get("X-Amz-Security-Token")


def _parts(authorization: str) -> list[str]:
    return re.split(r",? ", authorization)
