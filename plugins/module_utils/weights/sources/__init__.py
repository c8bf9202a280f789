# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where weights come from: hubs, web servers, S3 and folders, behind one interface."""

from __future__ import annotations

import os
import re
import time
from typing import Callable

from ...errors import LlmError
from . import common, folder, http, huggingface, modelers, modelscope, s3, web
from .common import Hub, Listing, Remote, Source
from .http import Broken, Client, Refused, Response

__all__ = [
    "Broken",
    "Client",
    "Hub",
    "Listing",
    "Refused",
    "Remote",
    "Response",
    "Source",
    "at",
    "open_source",
    "parse",
]

FORMS = (
    "/a/folder, hf://owner/name[@revision], modelscope://owner/name[@revision], modelers://owner/name[@revision], "
    "https://host/base/ or s3://bucket/prefix"
)

_HUBS = {
    "hf": (huggingface.HuggingFace, huggingface.ENDPOINT),
    "modelscope": (modelscope.ModelScope, modelscope.ENDPOINT),
    "modelers": (modelers.Modelers, modelers.ENDPOINT),
}
# What the three hubs take as the name of a repository: owner and name of letters, digits, dot, dash and underscore.
_REPOSITORY = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
# Branches, tags and commits, as git allows their names, less what no hub uses.
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w./+-]{0,199}", re.ASCII)
# Source: the rules for names of buckets in the documentation of Amazon S3; servers of others keep to them or are wider.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")


def as_given(text: str) -> str:
    """Return what users write in the form that ``parse`` takes: a folder may begin with ``~`` or a variable."""
    return text if "://" in text else os.path.abspath(os.path.expanduser(os.path.expandvars(text)))


def parse(text: str) -> Source:
    """Return the Source that ``text`` names in one of FORMS; raises LlmError for anything else."""
    if not isinstance(text, str) or not text or not text.isprintable():
        raise _unknown(text)
    kind, separator, rest = text.partition("://")
    if text.startswith("/"):
        return Source("folder", "", "", "", text, text)
    if separator and kind in _HUBS:
        return _repository(kind, rest, text)
    if kind in ("http", "https") and separator:
        parts = http.split(text)
        if parts.query or "?" in text or "#" in text:
            raise LlmError(
                "the source has a query, which may hold secrets",
                wanted="https://host/base/",
                found=http.bare(text) + "?...",
                remedy="give the address of the folder, and secrets as options of their own",
            )
        return Source("https", "", "", text.rstrip("/") + "/", "", text)
    if kind == "s3" and separator:
        bucket, _slash, prefix = rest.partition("/")
        if _BUCKET.fullmatch(bucket):
            return Source("s3", bucket, "", "", prefix.strip("/"), text)
    raise _unknown(text)


def _repository(kind: str, rest: str, text: str) -> Source:
    name, at_sign, revision = rest.partition("@")
    if not _REPOSITORY.fullmatch(name) or (at_sign and not _REVISION.fullmatch(revision)):
        raise _unknown(text)
    return Source(kind, name, revision, "", "", text)


def _unknown(text: object) -> LlmError:
    # What stands before an @ may be a secret that does not belong there.
    shown = (
        ascii(text)[:200] if not isinstance(text, str) or "@" not in text else "..." + ascii(text.rpartition("@")[2])
    )
    return LlmError("the source of the weights cannot be understood", wanted=FORMS, found=shown[:200])


def at(source: Source, revision: str) -> Source:
    """Return ``source`` at the commit ``revision`` of a lock, when it is a hub's and names no revision itself."""
    if source.kind in _HUBS and not source.revision and common.is_commit(revision):
        return source._replace(revision=revision)
    return source


def open_source(
    source: Source,
    *,
    endpoint: str = "",
    token: str = "",
    access_key: str = "",
    secret_key: str = "",
    region: str = "",
    ca_file: str = "",
    timeout: float = 30.0,
    retries: int = 5,
    sleep: Callable[[float], object] = time.sleep,
) -> Hub:
    """Return the Hub for ``source``; nothing is asked yet.

    :param endpoint: base URL of a mirror of the hub, or of an S3 server (buckets are then a part of the path)
    :param token: for hubs and web servers; with S3 the session token of temporary keys
    :param region: of S3; default us-east-1, which servers other than Amazon's take as well
    :raises LlmError: options that do not fit, or secrets that cannot be sent
    """
    if source.kind == "folder":
        return folder.Folder(source)
    options = {"ca_file": ca_file, "timeout": timeout, "retries": retries, "sleep": sleep}
    if source.kind == "s3":
        signer = s3.Signer(access_key, secret_key, token, region or s3.REGION) if access_key or secret_key else None
        base = s3.base_url(source.name, endpoint, region or s3.REGION)
        return s3.S3(source, http.Client(base, sign=signer, **options), base)
    if source.kind == "https":
        return web.Web(source, http.Client(source.endpoint, token=token, **options), source.endpoint)
    make, usual = _HUBS[source.kind]
    base = (endpoint or usual).rstrip("/")
    sign = modelscope.cookie(token) if source.kind == "modelscope" and token else None
    return make(source, http.Client(base, token=token, sign=sign, **options), base)
