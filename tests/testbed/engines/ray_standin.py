# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-in for `ray start`, `ray stop` and `ray status`, and for what an engine asks of a cluster.

The head is a list of nodes with their accelerators, and starts what an engine asks for on them. Joining is as strict as
Ray is: same versions, one name a node (vllm-mindspore's guide asks for that), the head's address and port.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable

import command_line
import links
import vllm_checks

PORT = 6379
VERSION = command_line.RAY
# RAY_NUM_REDIS_GET_RETRIES, one a second: how often Ray asks for a head that is not there (ray/_private/node.py).
RETRIES = 20
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 0.2
LINE = "-" * 63
GONE = "Some Ray subprocesses exited unexpectedly:"
NO_CLUSTER = (
    "Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag or "
    "`RAY_ADDRESS` environment variable."
)


class RayError(Exception):
    """What Ray prints before it gives up."""


def main(arguments: list[str]) -> int:
    """Run one command; return its exit status."""
    name, rest = (arguments or [""])[0], arguments[1:]
    if name == "--version":
        print(f"ray, version {version()}")
        return 0
    try:
        if name == "start":
            return _start(command_line.ray_start(rest), rest)
        if name == "stop":
            return _stop(_options(name, rest, "-f", "--force").force)
        if name == "status":
            return _status(_options(name, rest, "--address").address)
        raise ValueError(f"No such command '{name}'.")
    except RayError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except ValueError as error:
        print(f"Usage: ray [OPTIONS] COMMAND [ARGS]...\n\nError: {error}", file=sys.stderr)
        return 2


def _options(name: str, arguments: list[str], *option: str) -> argparse.Namespace:
    """Read the one option of a small command; one with a short name takes no value."""
    parser = argparse.ArgumentParser(prog=f"ray {name}")
    if len(option) > 1:
        parser.add_argument(*option, action="store_true")
    else:
        parser.add_argument(*option, default="")
    return parser.parse_args(arguments)


def version() -> str:
    return os.environ.get("LLM_EMULATED_RAY", VERSION)


def folder() -> str:
    """Return where Ray keeps what runs on this node."""
    return os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")


def find(address: str = "") -> str:
    """Return HOST:PORT of the cluster: given, of the variable, or the one that runs here; empty for none."""
    known = address if address not in ("", "auto") else os.environ.get("RAY_ADDRESS", "")
    if not known:
        with contextlib.suppress(OSError), open(_current(), encoding="utf-8") as stream:
            known = stream.read().strip()
    return known


def _current() -> str:
    return os.path.join(folder(), "ray_current_cluster")


def _pids() -> str:
    return os.path.join(folder(), "pids")


def accelerators(place: vllm_checks.Place) -> dict[str, float]:
    """Return {NPU or GPU: number} of this node, as Ray finds them (ray/_private/accelerators)."""
    npus = vllm_checks.numbers(place, "davinci")
    if npus:
        text = place.env.get("ASCEND_RT_VISIBLE_DEVICES", "")
        return {"NPU": float(min(len(npus), len(text.split(",")) if text else len(npus)))}
    gpus = vllm_checks.gpus(place)
    return {"GPU": float(len(gpus))} if gpus else {}


def here() -> vllm_checks.Place:
    return vllm_checks.Place(os.environ.get("LLM_EMULATED_ROOT", "/"), dict(os.environ), "")


def own_address() -> str:
    """Return the address of the way out, without a packet; Ray takes the same (ray/_private/services.py)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def _start(given: dict, arguments: list[str]) -> int:
    head_port, joined = given.get("port", PORT), given.get("address", "")
    if given.get("head", False) == bool(joined):
        raise RayError("Error: one of `--head` and `--address` must be specified")
    if _running():
        raise RayError(f"ConnectionError: Ray is trying to start, but is already running at {find()}. Please stop it.")
    _clean()
    if not given.get("block"):
        return _in_background(arguments)
    address = given.get("node_ip_address") or own_address()
    counts = {**accelerators(here()), **json.loads(given.get("resources", "{}"))}
    if "num_gpus" in given:
        counts["GPU"] = given["num_gpus"]
    counts["CPU"] = given.get("num_cpus", os.cpu_count() or 1)
    node = {
        "node": os.environ.get("LLM_EMULATED_HOSTNAME") or socket.gethostname(),
        "ip": address,
        "ray": version(),
        "python": platform.python_version(),
        "resources": {name: float(count) for name, count in counts.items()},
    }
    signal.signal(signal.SIGTERM, lambda *_arguments: sys.exit(0))
    head = None if joined else Head(address, head_port)
    try:
        return _node(node, joined or f"{address}:{head_port}")
    finally:
        with contextlib.suppress(OSError):
            os.unlink(_current())
        if head:
            head.close()


def _in_background(arguments: list[str]) -> int:
    """Start the same with --block apart from this process, its output in a file; return once it runs or has failed."""
    os.makedirs(folder(), exist_ok=True)
    path = os.path.join(folder(), "ray.log")
    with open(path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "start", *arguments, "--block"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while process.poll() is None and not os.path.exists(_current()):
        time.sleep(LOOK_SECONDS)
    with open(path, encoding="utf-8") as log:
        print(log.read(), flush=True)
    return process.returncode or 0


def _node(node: dict, address: str) -> int:
    """Be a node until the cluster is gone: start and stop what its head says."""
    link = connect(address, node["ip"])
    link.send({"join": node})
    answer = _answer(link)
    if "refused" in answer:
        raise RayError(answer["refused"])
    os.makedirs(_pids(), exist_ok=True)
    with open(os.path.join(_pids(), str(os.getpid())), "w", encoding="ascii") as stream:
        stream.write(address)
    with open(_current(), "w", encoding="utf-8") as stream:
        stream.write(address)
    print(f"Local node IP: {node['ip']}\n\n{LINE[:20]}\nRay runtime started.\n{LINE[:20]}", flush=True)
    print("--block\nThis command will now block forever until terminated by a signal.", flush=True)
    children: dict[str, list[subprocess.Popen]] = {}
    try:
        while True:
            _reap(children)
            message = link.receive(LOOK_SECONDS)
            if message and "run" in message:
                environment = {**os.environ, **message["env"]}
                process = subprocess.Popen(message["run"], env=environment, stdin=subprocess.DEVNULL)
                children.setdefault(message["driver"], []).append(process)
            elif message and "stop" in message:
                _end(children.pop(message["stop"], []))
    except links.Gone:
        print(f"{GONE}\n  raylet [exit code=1]: the head at {address} is gone", file=sys.stderr, flush=True)
        return 1
    finally:
        _end([process for group in children.values() for process in group])
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(_pids(), str(os.getpid())))


def _reap(children: dict[str, list[subprocess.Popen]]) -> None:
    for group in children.values():
        for process in group:
            process.poll()


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def connect(address: str, source: str = "") -> links.Link:
    """Return a link to the head at HOST:PORT; raises RayError when none is there."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise RayError(f"ValueError: the address {address} is not of the form HOST:PORT")
    seconds = float(os.environ.get("RAY_NUM_REDIS_GET_RETRIES", RETRIES))
    try:
        return links.connect(host, int(port), source, seconds, lambda _peer: None)
    except OSError as error:
        said = f"Failed to connect to GCS at address {address} within {seconds:g} seconds."
        raise RayError(f"ConnectionError: {said}") from error


def _answer(link: links.Link) -> dict:
    try:
        answer = link.receive(ANSWER_SECONDS)
    except links.Gone:
        answer = None
    if answer is None:
        raise RayError("ConnectionError: the head does not answer")
    return answer


def ask(address: str) -> list[dict]:
    """Return the nodes of the cluster: {id, node, ip, ray, python, resources, used}."""
    link = connect(address)
    link.send({"ask": "nodes"})
    try:
        return _answer(link)["nodes"]
    finally:
        link.close()


def driver() -> links.Link | None:
    """Return an engine's link to the cluster that runs here; None where there is none."""
    address = find()
    if not address:
        return None
    link = connect(address)
    link.send({"driver": os.getpid()})
    return link


def place(
    link: links.Link | None, kind: str, wanted: int, address: str, seconds: float, say: Callable[[str], None]
) -> list[tuple[str, int]]:
    """Return [(node, devices)] once the cluster has ``wanted`` devices free; waits for them as vLLM does.

    Wordings: vllm/v1/executor/ray_utils.py.
    """
    until, told = time.monotonic() + seconds, False
    while link:
        link.send({"place": wanted, "kind": kind, "ip": address})
        answer = _answer(link)
        if "refused" in answer:
            raise RayError(answer["refused"])
        if answer["placed"]:
            return [tuple(placed) for placed in answer["placed"]]
        if not told:
            say(f"The number of required {kind}s exceeds the total number of available {kind}s in the placement group.")
            told = True
        if time.monotonic() >= until:
            break
        time.sleep(LOOK_SECONDS)
    said = f"Cannot provide a placement group of {wanted} x {{'{kind}': 1.0}} within {seconds:g} seconds."
    raise RayError(f"ValueError: {said} See `ray status` to make sure the cluster has enough resources.")


def start(link: links.Link, node: str, program: list[str], environment: dict[str, str]) -> None:
    """Start ``program`` on ``node``; it ends with the link."""
    link.send({"run": program, "node": node, "env": environment})


def _running() -> list[int]:
    """Return the processes of Ray's that live on this node."""
    found = []
    for name in os.listdir(_pids()) if os.path.isdir(_pids()) else []:
        # A number alone may be another process by now; one that has ended has no command line.
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as stream:
            if b"ray_standin.py" in stream.read():
                found.append(int(name))
    return found


def _clean() -> None:
    """Remove what a killed one has left."""
    shutil.rmtree(_pids(), ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(_current())


def _stop(force: bool) -> int:
    running = _running()
    for pid in running:
        os.kill(pid, signal.SIGKILL if force else signal.SIGTERM)
    until = time.monotonic() + ANSWER_SECONDS
    while _running() and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    _clean()
    print(f"Stopped all {len(running)} Ray processes." if running else "Did not find any active Ray processes.")
    return 0


def _status(address: str) -> int:
    address = find(address)
    if not address:
        raise RayError(f"ConnectionError: {NO_CLUSTER}")
    print(status(ask(address)))
    return 0


def status(nodes: list[dict]) -> str:
    """Return what `ray status` prints (ray/autoscaler/_private/util.py)."""
    total: dict[str, float] = {}
    used: dict[str, float] = {}
    for node in nodes:
        for name, count in node["resources"].items():
            total[name] = total.get(name, 0.0) + count
            used[name] = used.get(name, 0.0) + node["used"].get(name, 0.0)
    lines = [f"======== Autoscaler status: {time.strftime('%Y-%m-%d %H:%M:%S')}.000000 ========", "Node status", LINE]
    lines += ["Active:", *(f" 1 node_{node['id']}" for node in nodes)]
    lines += ["Pending:", " (no pending nodes)", "Recent failures:", " (no failures)", "", "Resources", LINE, "Usage:"]
    lines += [f" {used[name]}/{total[name]} {name}" for name in sorted(total)]
    return "\n".join([*lines, "", "Demands:", " (no resource demands)"])


class Head:
    """The list of nodes; answers nodes, engines and those that only ask, each in a thread."""

    def __init__(self, address: str, port: int) -> None:
        try:
            self._server = links.listen(address, port)
        except OSError as error:
            text = f"RuntimeError: Failed to start GCS at {address}:{port}: {error.strerror}"
            raise RayError(text) from error
        self._guard = threading.Lock()
        self._nodes: dict[str, dict] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._server.close()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                link = links.accept(self._server, lambda _peer: None)
            except (OSError, ValueError):
                return
            if link:
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: links.Link) -> None:
        with contextlib.suppress(links.Gone):
            message = link.receive(ANSWER_SECONDS) or {}
            if "ask" in message:
                with self._guard:
                    link.send({"nodes": [_public(node) for node in self._nodes.values()]})
                link.receive(ANSWER_SECONDS)
            elif "join" in message:
                self._join(link, message["join"])
            elif "driver" in message:
                self._drive(link)
        link.close()

    def _join(self, link: links.Link, node: dict) -> None:
        identity = uuid.uuid4().hex
        with self._guard:
            refused = _misfit(node, list(self._nodes.values()))
            if not refused:
                self._nodes[identity] = {**node, "id": identity, "used": {}, "link": link}
        if refused:
            link.send({"refused": refused})
            link.receive(ANSWER_SECONDS)
            return
        link.send({"joined": identity})
        try:
            while True:
                link.receive(ANSWER_SECONDS)
        finally:
            with self._guard:
                del self._nodes[identity]

    def _drive(self, link: links.Link) -> None:
        """Give an engine its devices and start its workers; take both away when it goes."""
        driver, placed = uuid.uuid4().hex, []
        try:
            while True:
                message = link.receive(ANSWER_SECONDS)
                if message and "place" in message:
                    link.send(self._place(message, placed))
                elif message and "run" in message:
                    with self._guard:
                        node = self._nodes.get(message["node"])
                    if node:
                        node["link"].send({"run": message["run"], "env": message["env"], "driver": driver})
        finally:
            with self._guard:
                for node, count in placed:
                    node["used"][_kind(node)] -= count
                    node["link"].send({"stop": driver})

    def _place(self, message: dict, placed: list) -> dict:
        with self._guard:
            nodes = list(self._nodes.values())
            if not any(node["ip"] == message["ip"] and node["resources"].get(message["kind"]) for node in nodes):
                text = f"Current node has no {message['kind']} available. current_ip={message['ip']!r}."
                return {"refused": f"ValueError: {text}"}
            placed += _place(nodes, message["kind"], message["place"], message["ip"])
        return {"placed": [[node["id"], count] for node, count in placed]}


def _kind(node: dict) -> str:
    """Return which accelerator a node has."""
    return "NPU" if "NPU" in node["resources"] else "GPU"


def _public(node: dict) -> dict:
    return {key: value for key, value in node.items() if key != "link"}


def _misfit(node: dict, others: list[dict]) -> str:
    """Return why ``node`` may not join, empty when it may. The first to join is the head itself."""
    if not others:
        return ""
    first = others[0]
    if (node["ray"], node["python"]) != (first["ray"], first["python"]):
        return (
            "RuntimeError: Version mismatch: The cluster was started with:\n"
            f"    Ray: {first['ray']}\n    Python: {first['python']}\n"
            f"This process on node {node['ip']} was started with:\n"
            f"    Ray: {node['ray']}\n    Python: {node['python']}\n"
        )
    for other in others:
        if node["node"] == other["node"]:
            return f"RuntimeError: a node named {node['node']} is in the cluster already, at {other['ip']}"
        if node["ip"] == other["ip"]:
            return f"RuntimeError: a node with the address {node['ip']} is in the cluster already"
    return ""


def _place(nodes: list[dict], kind: str, wanted: int, address: str) -> list[tuple[dict, int]]:
    """Reserve ``wanted`` devices, the engine's own node first; none when they are not there."""
    order = sorted(nodes, key=lambda node: node["ip"] != address)
    placed = []
    for node in order:
        free = int(node["resources"].get(kind, 0) - node["used"].get(kind, 0))
        if free > 0 and wanted > 0:
            placed.append((node, min(free, wanted)))
            wanted -= min(free, wanted)
    if wanted:
        return []
    for node, count in placed:
        node["used"][kind] = node["used"].get(kind, 0.0) + count
    return placed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
