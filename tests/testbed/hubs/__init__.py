# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Model hubs and web servers on this machine, in threads of the caller's process, see HUBS.md."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import huggingface, modelers, modelscope, web
from .authority import PUBLIC_NAME, make
from .proxy import Proxy
from .repository import Repository, git_sha1
from .server import Fault, Server

__all__ = ["KINDS", "PUBLIC_NAME", "Fault", "Proxy", "Repository", "Server", "git_sha1", "start"]

KINDS = {
    "hf": huggingface.HuggingFace,
    "modelscope": modelscope.ModelScope,
    "modelers": modelers.Modelers,
    "https": web.Web,
}


@contextlib.contextmanager
def start(
    kind: str,
    files: os.PathLike | str | Mapping[str, bytes],
    faults: list[Fault] | None = None,
    *,
    name: str = "acme/tiny",
    token: str = "",
    tls: os.PathLike | str | None = None,
    **options: object,
) -> Iterator[Server]:
    """Run a hub of this kind (see KINDS) that has one repository, and yield its Server, whose ``url`` is the endpoint.

    :param files: the folder with the repository's files, or {path: content}
    :param faults: what goes wrong; ``server.faults`` may be changed while it runs
    :param token: without it nothing is told
    :param tls: folder to make certificates in; the server then speaks https and ``ca_file`` is its authority
    :param options: what the kind has besides
    """
    repository = Repository(name, files if isinstance(files, Mapping) else Path(files))
    made = make(Path(tls)) if tls else None
    hub = KINDS[kind](repository, token=token, **options)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(hub, faults, made))
        if hub.store is not None:
            hub.store_url = stack.enter_context(Server(hub.store, server.faults, made)).url
        yield server
