# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import sources
from ansible_collections.baremetal.llm.plugins.module_utils.weights.sources import http
from ansible_collections.baremetal.llm.tests.testbed import hubs
from hypothesis import given
from hypothesis import strategies as st

from .conftest import FILES, HOSTILE

COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision", "endpoint", "path"),
    [
        ("/mnt/disk/model", "folder", "", "", "", "/mnt/disk/model"),
        ("hf://deepseek-ai/DeepSeek-R1", "hf", "deepseek-ai/DeepSeek-R1", "", "", ""),
        ("hf://a/b@refs/pr/1", "hf", "a/b", "refs/pr/1", "", ""),
        ("modelscope://vllm-ascend/R1_W8A8@v1.0", "modelscope", "vllm-ascend/R1_W8A8", "v1.0", "", ""),
        ("modelers://IPADS/x.y", "modelers", "IPADS/x.y", "", "", ""),
        ("https://host/base", "https", "", "", "https://host/base/", ""),
        ("http://host:8080/base//", "https", "", "", "http://host:8080/base/", ""),
        ("s3://bucket", "s3", "bucket", "", "", ""),
        ("s3://bucket/a/b/", "s3", "bucket", "", "", "a/b"),
    ],
)
def test_every_form(text, kind, name, revision, endpoint, path):
    assert sources.parse(text) == sources.Source(kind, name, revision, endpoint, path, text)


@pytest.mark.parametrize(
    "text",
    [
        "", "relative/folder", "hf://", "hf://name", "hf://a/b/c", "hf://a/..", "hf://../b", "hf://a/b@",
        "hf://a/b@x y", "hf://a/b@../../x",
        "hf://a/b@-x", "hf://a/b?x=1", "hf:a/b", "ftp://host/x", "file:///etc", "s3://", "s3://a/b",
        "s3://bu/../x", "s3://user:key@bucket/x", "https://", "https://host/x?token=1", "https://host/x#y",
        "https://user:hidden@host/x", "http://host:99999/x", "/a\nb", "/a\x00b", None, 5, ["/a"],
    ],
)  # fmt: skip
def test_other_forms_are_refused(text):
    with pytest.raises(LlmError) as caught:
        sources.parse(text)
    assert "hidden" not in str(caught.value)
    assert "user:key" not in str(caught.value)


@given(st.text())
def test_any_text_is_understood_or_refused(text):
    for start in ("", "hf://", "s3://", "https://", "/"):
        try:
            source = sources.parse(start + text)
        except LlmError:
            continue
        assert source.text == start + text


def test_a_commit_of_a_lock_is_asked_for_where_the_source_names_no_revision():
    assert sources.at(sources.parse("hf://a/b"), COMMIT).revision == COMMIT
    assert sources.at(sources.parse("hf://a/b@v1"), COMMIT).revision == "v1"
    assert sources.at(sources.parse("hf://a/b"), "r1").revision == ""
    assert sources.at(sources.parse("/a/b"), COMMIT).revision == ""


def _opened(text: str, **options: str) -> sources.Hub:
    return sources.open_source(sources.parse(text), **options)


@pytest.mark.parametrize(
    ("text", "options", "url"),
    [
        ("hf://a/b", {}, "https://huggingface.co/a/b/resolve/main/x%20y/z.json"),
        ("hf://a/b@refs/pr/1", {}, "https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x%20y/z.json"),
        ("hf://a/b", {"endpoint": "https://mirror/hf/"}, "https://mirror/hf/a/b/resolve/main/x%20y/z.json"),
        ("modelscope://a/b", {}, "https://www.modelscope.cn/api/v1/models/a/b/repo?Revision=master&FilePath=x%20y%2Fz.json"),
        ("modelers://a/b@v1", {}, "https://modelers.cn/api/v1/file/a/b/v1/media/x%20y/z.json"),
        ("https://host/base", {}, "https://host/base/x%20y/z.json"),
        ("s3://bucket/p", {}, "https://bucket.s3.us-east-1.amazonaws.com/p/x%20y/z.json"),
        ("s3://bucket/p", {"region": "cn-north-1"}, "https://bucket.s3.cn-north-1.amazonaws.com.cn/p/x%20y/z.json"),
        ("s3://bu.cket", {"region": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/bu.cket/x%20y/z.json"),
        ("s3://bucket/p", {"endpoint": "http://minio:9000/"}, "http://minio:9000/bucket/p/x%20y/z.json"),
    ],
)  # fmt: skip
def test_where_files_are(text, options, url):
    assert _opened(text, **options).url("x y/z.json") == url


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("hf://a/b", {"endpoint": "huggingface.co"}),
        ("hf://a/b", {"endpoint": "https://user:pass@mirror"}),
        ("hf://a/b", {"endpoint": "http://mirror", "token": "secret-token"}),
        ("hf://a/b", {"token": "secret\n"}),
        ("s3://bucket", {"access_key": "only-one"}),
        ("s3://bucket", {"secret_key": "only-one"}),
        ("s3://bucket", {"access_key": "a", "secret_key": "secret\n"}),
        ("s3://bucket", {"access_key": "a", "secret_key": "b", "region": "eu west"}),
        ("https://host/x", {"ca_file": "/no/such/file"}),
    ],
)
def test_options_that_do_not_fit(text, options):
    with pytest.raises(LlmError) as caught:
        _opened(text, **options)
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers", "https"])
def test_all_files_with_what_proves_them(kind, opened, digests):
    with hubs.start(kind, FILES, token="t") as server:
        listing = opened(kind, server, token="t").listing()
        repository = server.application.repository
    assert [(file.path, file.size) for file in listing.files] == [(path, size) for path, size, _sha256 in digests]
    for file, (_path, _size, sha256) in zip(listing.files, digests, strict=True):
        if file.sha256:
            assert file.sha256 == sha256
        else:
            assert file.git_sha1 == hubs.git_sha1(FILES[file.path])
    assert listing.revision == ("" if kind == "https" else repository.commit)
    assert listing.notes == []


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers", "https"])
def test_all_bytes_also_from_the_middle(kind, opened, whole):
    with hubs.start(kind, FILES, token="t") as server:
        hub = opened(kind, server, token="t")
        for path, content in FILES.items():
            assert whole(hub, path) == content
            assert whole(hub, path, len(content) // 2) == content[len(content) // 2 :]


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers", "https"])
def test_a_revision_by_its_commit_or_tag(kind, opened):
    with hubs.start(kind, FILES) as server:
        commit = server.application.repository.commit
        for revision in ("@v1", f"@{commit}"):
            assert opened(kind, server, revision).listing().revision == ("" if kind == "https" else commit)


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
def test_a_revision_that_is_not_there(kind, opened):
    with hubs.start(kind, FILES) as server, pytest.raises(sources.Refused, match="status 404"):
        opened(kind, server, "@v2").listing()


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers", "https"])
def test_a_token_that_is_wrong_or_missing(kind, opened):
    with hubs.start(kind, FILES, token="right-token") as server:
        for token in ("wrong-token", ""):
            with pytest.raises(sources.Refused) as caught:
                opened(kind, server, token=token).listing()
            assert caught.value.status in (401, 404)
            assert "wrong-token" not in str(caught.value)


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
@pytest.mark.parametrize(
    "body", [b"", b"<html>sign in</html>", b"null", b"[]", b"{}", b"[[]]", b'"x"', b'{"data": [], "Code": 200}']
)
def test_answers_of_another_shape(kind, body, opened, refused):
    with hubs.start(kind, FILES, [hubs.Fault(body=body, times=None)]) as server:
        assert refused(opened(kind, server)).remedy


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
@pytest.mark.parametrize("where", ["/revision/", "/tree/", "/repo/files", "path="])
def test_hubs_that_fail_for_a_while(kind, where, opened, waits):
    with hubs.start(kind, FILES, [hubs.Fault(where=where, status=502), hubs.Fault(where=where, cut=5)]) as server:
        assert len(opened(kind, server).listing().files) == len(FILES)
        # A fault that this hub has no such request for is left over.
        assert len(waits) == sum(fault.times == 0 for fault in server.faults)


def _entries(data: object) -> list[dict]:
    """The entries of an answer of any hub, to be changed in place."""
    if isinstance(data, list):
        return data
    if isinstance(data, dict):
        inner = data.get("Data") or data.get("data") or {}
        return inner.get("Files") or inner.get("tree") or []
    return []


def _spoil(field: str, value: object):
    """Return what sets a field of the first file in a listing; hubs write names of fields differently."""

    def change(data: object) -> object:
        for entry in _entries(data):
            if (entry.get("type") or entry.get("Type")) in ("file", "blob"):
                entry[field if field in entry else field.capitalize()] = value
                break
        return data

    return change


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
@pytest.mark.parametrize("name", [*HOSTILE, None, 5, ["x"]])
def test_names_that_lead_elsewhere(kind, name, opened, refused):
    with hubs.start(kind, FILES, [hubs.Fault(change=_spoil("path", name), times=None)]) as server:
        refused(opened(kind, server))


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
@pytest.mark.parametrize("size", [-1, 1.5, "24", True, None, 2**63, [24]])
def test_lengths_that_are_none(kind, size, opened, refused):
    with hubs.start(kind, FILES, [hubs.Fault(change=_spoil("size", size), times=None)]) as server:
        assert "length" in refused(opened(kind, server)).summary


@pytest.mark.parametrize(("kind", "field"), [("hf", "oid"), ("modelscope", "Sha256"), ("modelers", "etag")])
@pytest.mark.parametrize("digest", ["x" * 40, "a" * 39, "g" * 64, 5, ["a" * 64], "a" * 64 + "\n"])
def test_digests_that_are_none(kind, field, digest, opened, refused):
    with hubs.start(kind, FILES, [hubs.Fault(change=_spoil(field, digest), times=None)]) as server:
        assert "no usable digest" in refused(opened(kind, server)).summary


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
def test_a_name_given_twice(kind, opened, refused):
    def double(data: object) -> object:
        files = [entry for entry in _entries(data) if (entry.get("type") or entry.get("Type")) in ("file", "blob")]
        _entries(data).extend(files[:1])
        return data

    with hubs.start(kind, FILES, [hubs.Fault(change=double, times=None)]) as server:
        assert refused(opened(kind, server)).found == "config.json"


@pytest.mark.parametrize("kind", ["hf", "modelscope"])
def test_a_file_where_a_folder_is(kind, opened, refused):
    with hubs.start(kind, FILES, [hubs.Fault(change=_spoil("path", "tokenizer"), times=None)]) as server:
        assert refused(opened(kind, server)).found == "tokenizer"


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
def test_entries_of_no_known_kind(kind, opened, refused):
    with hubs.start(kind, FILES, [hubs.Fault(change=_spoil("type", "symlink"), times=None)]) as server:
        assert "neither" in refused(opened(kind, server)).summary


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers"])
def test_an_empty_repository(kind, opened, refused):
    with hubs.start(kind, {}) as server:
        assert "holds no files" in refused(opened(kind, server)).summary


@pytest.mark.parametrize("kind", ["hf", "modelscope", "modelers", "https"])
def test_a_hub_that_never_answers(kind, opened, refused):
    faults = [hubs.Fault(hang=True, times=None)]
    with hubs.start(kind, FILES, faults) as server:
        assert "no answer within the time" in refused(opened(kind, server, timeout=0.1, retries=0)).found


def test_errors_are_what_callers_expect():
    assert issubclass(sources.Broken, OSError)
    assert issubclass(sources.Refused, LlmError)
    assert sources.Client is http.Client
