# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library that shares weights: which file a host's Python needs, and its SHA-256.

libtorrent, because it alone of the engines compared can be told its peers, has SHA-256 trees (BitTorrent v2), and
comes as one file for every Python and processor of our hosts.
"""

from __future__ import annotations

VERSION = "2.1.1"

# SHA-256 by (Python, processor), of the files as published for manylinux2014 (glibc 2.17).
SHA256 = {
    ("3.9", "aarch64"): "42c805ca7c55ca0c78423d597e08ea32b72349952c36c343bc5b0ae7c11f1925",
    ("3.10", "aarch64"): "b400fb2c5beefd9d3931a5cd64366c4e18b9a1734243f59da0192ad03fda8509",
    ("3.11", "aarch64"): "2841a67cf5ca155704d04076749bb84562f6b851b9a5301d234d132544f2f076",
    ("3.12", "aarch64"): "580b07d04b30c9d85f73ceaab5184035e815ee4ff3f37ba5b8f887292ae949f1",
    ("3.13", "aarch64"): "d456d5c772e64267211eca995f5a61cfa9e476de9494b300b42fd6fdf71675ca",
    ("3.9", "x86_64"): "1e1d59aa8df8ea33491d29c243cc20150cb88b1e9f50e6bf8d3351cda15d8806",
    ("3.10", "x86_64"): "d54a0de00d98261f90d970d7572b024a0fc90939e241df61dd134513801ff8ac",
    ("3.11", "x86_64"): "36c823ddd89283cd37f03a8cc0dae17f096ba45247e029713ee0f8f00b8ecf08",
    ("3.12", "x86_64"): "90c11511a67c118e2fd6043c717d42663e60da03ab8d4851b2ad5a500a5e0134",
    ("3.13", "x86_64"): "c81d768e04915c1627ac108a6abfa64c740bdd1a1634d5fffcdc56ed6e6d915f",
}


def wheel(python: str, machine: str) -> dict:
    """Return {name, sha256, requirement, python, machine} of the file for a host; empty when there is none.

    :param python: release of the host's Python, such as 3.11
    :param machine: its processor as uname says it
    """
    digest = SHA256.get((python, machine))
    if not digest:
        return {}
    tag = "cp" + python.replace(".", "")
    return {
        "name": f"libtorrent-{VERSION}-{tag}-{tag}-manylinux_2_17_{machine}.manylinux2014_{machine}.whl",
        "sha256": digest,
        "requirement": f"libtorrent=={VERSION}",
        "python": python,
        "machine": machine,
    }
