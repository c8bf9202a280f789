# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU seconds for one GiB that one host sends and another receives, over links without a limit, in memory.

The agent with libtorrent, rsync's daemon and aria2 in the same run. All of a program's life is counted, its start too;
aria2, which cannot be told whom to connect with, gets a tracker of a few lines, whose CPU is not counted.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time

import share
from ansible_collections.baremetal.llm.plugins.module_utils.weights import torrent
from links import Links

GIB = 1 << 30
TRACKER_PORT, PEER_PORT = 6969, 6881
PIECE = 1 << 20
# Answers every question with all addresses that have asked, as BEP 3 and BEP 23 (compact form) say.
TRACKER = """
import http.server, socket, sys, urllib.parse
known = set()
class Tracker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        known.add(socket.inet_aton(self.client_address[0]) + int(asked["port"][0]).to_bytes(2, "big"))
        peers = b"".join(known)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"d8:intervali1e5:peers%d:" % len(peers) + peers + b"e")
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Tracker).serve_forever()
"""
ARIA2 = [
    "aria2c",
    "--no-conf=true",
    "--quiet=true",
    "--check-integrity=true",
    "--file-allocation=none",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--bt-enable-lpd=false",
    "--enable-peer-exchange=false",
    "--disable-ipv6=true",
    f"--listen-port={PEER_PORT}",
]


def of_aria2(mib: int) -> dict:
    """Return what it takes aria2 to bring ``mib`` MiB from one host to another."""
    with share.workplace() as folder, Links(1, prefix="baria") as links:
        weights = share.make_weights(folder / "seed", mib)
        url = f"http://{links.address(0)}:{TRACKER_PORT}/announce"
        file = folder / "model.torrent"
        file.write_bytes(_torrent(weights, url))
        links.popen(0, [sys.executable, "-c", TRACKER, links.address(0), str(TRACKER_PORT)])
        time.sleep(0.5)
        machine, begin = share.Machine(), time.monotonic()
        seeding = ["--seed-ratio=0.0", "--bt-seed-unverified=true", f"--dir={weights.path.parent}", str(file)]
        seed = links.popen(0, [*ARIA2, *seeding])
        target = folder / "node-1"
        node = links.popen(1, [*ARIA2, "--seed-time=0", "--bt-tracker-interval=1", f"--dir={target}", str(file)])
        cpu_node = share.reaped(node)
        seconds = time.monotonic() - begin
        seed.terminate()
        cpu_seed = share.reaped(seed)
        if node.returncode:
            sys.exit(f"aria2 ended with {node.returncode}")
        share.refuse_wrong(weights, [target / weights.path.name])
        own = cpu_node + cpu_seed
        return {
            "bytes": weights.size,
            "seconds": seconds,
            "cpu_seed": cpu_seed,
            "cpu_node": cpu_node,
            "cpu_all": own,
            "machine": machine.share(seconds, own),
        }


def _torrent(weights: share.Weights, url: str) -> bytes:
    """Return a torrent of version 1 for the files in their order."""
    data = b"".join((weights.path / entry["path"]).read_bytes() for entry in weights.lock["files"])
    pieces = [hashlib.sha1(data[start : start + PIECE]).digest() for start in range(0, len(data), PIECE)]  # noqa: S324
    files = b"".join(
        b"d6:lengthi%de4:pathl%bee" % (entry["size"], torrent.encode(entry["path"])) for entry in weights.lock["files"]
    )
    info = b"d5:filesl%be4:name%b12:piece lengthi%de6:pieces%be" % (
        files,
        torrent.encode(weights.path.name),
        PIECE,
        torrent.encode(b"".join(pieces)),
    )
    return b"d8:announce%b4:info%be" % (torrent.encode(url), info)


def measure(mib: int, library: str) -> dict:
    """Return {engine: {seed, node, sum, mb_s}}: CPU seconds a GiB of the sender, of the receiver, of both."""
    runs = {"libtorrent": share.share(1, mib, 0, library), "rsync": share.star(1, mib, 0)}
    if shutil.which("aria2c"):
        runs["aria2"] = of_aria2(mib)
    print(f"\nCPU seconds for each GiB that is sent and received; {mib} MiB over links without a limit")
    print(f"{'':12}{'sender':>8}{'receiver':>10}{'both':>8}{'MB/s':>8}  machine")
    result = {}
    for engine, run in runs.items():
        gib = run["bytes"] / GIB
        figures = {"seed": run["cpu_seed"] / gib, "node": run["cpu_node"] / gib, "sum": run["cpu_all"] / gib}
        figures["mb_s"] = run["bytes"] / run["seconds"] / 1e6
        print(
            f"{engine:12}{figures['seed']:8.2f}{figures['node']:10.2f}{figures['sum']:8.2f}{figures['mb_s']:8.0f}"
            f"  {run['machine']}"
        )
        result[engine] = {name: round(value, 2) for name, value in figures.items()}
    return result
