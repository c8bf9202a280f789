# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Container images: what llm_image may say, and what is wanted before one is run. Pure.

A tag can be moved, so nothing is run by one: an image is named by the digest of its registry, by its id, or it comes as
an archive whose id is read from the archive itself.
"""

from __future__ import annotations

import re

from ..errors import LlmError

_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_ID = re.compile(r"sha256:[0-9a-f]{64}")
# As `uname -m` and as image formats name the same machines.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def of(deployment: dict, archive: dict | None, launch: bool) -> dict:
    """Return {reference, id, archive, pull, architecture, bytes}; empty where no image is named.

    ``reference`` is what containers are made from; ``id`` the image's id where it is known beforehand.

    :param deployment: its llm_image and llm_image_archive
    :param archive: what the archive on the control node says of itself {id, tags, architecture, bytes}, None without
    :param launch: whether containers are to be made of it in this run
    """
    named = deployment.get("llm_image", "")
    if archive:
        return _from_archive(named, archive, deployment["llm_image_archive"])
    if _DIGEST.fullmatch(named):
        return {"reference": named, "id": "", "archive": "", "pull": True, "architecture": "", "bytes": 0}
    if _ID.fullmatch(named):
        return {"reference": named, "id": named, "archive": "", "pull": False, "architecture": "", "bytes": 0}
    if launch:
        raise LlmError(
            "no image to run is named" if not named else f"llm_image {named!r} can be moved to another image",
            wanted="llm_image: NAME@sha256:DIGEST of a registry, or sha256:ID of an image that the hosts have, or "
            "llm_image_archive: a file of `docker save` on the control node",
            found=named or "nothing",
            remedy="take the digest from the registry (docker buildx imagetools inspect TAG), or save the image to a "
            "file on a machine that has it",
        )
    return {"reference": named, "id": "", "archive": "", "pull": False, "architecture": "", "bytes": 0} if named else {}


def _from_archive(named: str, archive: dict, path: str) -> dict:
    fits = not named or named in archive["tags"] or named == archive["id"]
    if not fits:
        raise LlmError(
            "llm_image_archive holds another image",
            wanted=f"llm_image: {named}",
            found=f"{path}: {', '.join(archive['tags']) or 'no name'}, {archive['id']}",
            remedy="correct llm_image or llm_image_archive; with an archive llm_image may be left out",
        )
    return {
        "reference": archive["id"],
        "id": archive["id"],
        "archive": path,
        "pull": False,
        "architecture": archive["architecture"],
        "bytes": archive["bytes"],
    }


def check_machines(image: dict, nodes: list[dict]) -> None:
    """Refuse an image that is built for other machines than the nodes are, as far as both are known beforehand."""
    built = image.get("architecture", "")
    other = [node for node in nodes if built and ARCHITECTURES.get(node.get("machine", ""), built) != built]
    if other:
        raise LlmError(
            f"{other[0]['host']}: the image is built for other machines",
            wanted=f"an image for {other[0]['machine']} ({ARCHITECTURES[other[0]['machine']]})",
            found=f"{image['archive'] or image['reference']}: {built}",
            remedy="take the image of the hosts' architecture",
        )
