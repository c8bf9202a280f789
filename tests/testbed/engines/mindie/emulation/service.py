# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The emulated MindIE itself: reads, checks, waits for the others, answers, and ends when one of them ends."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import signal
import socket
import threading

import openai_server

from . import inputs, peers, schema

# A JSON file {prompt: answer}.
ANSWERS_VARIABLE = "LLM_EMULATED_ANSWERS"
ANSWERS_FILE = "emulated_answers.json"
# Which MindIE this is taken for; without it the one that had this program first.
VERSION_VARIABLE = "LLM_EMULATED_VERSION"
VERSIONS = {"mindieservice_daemon": "2.0.T3.1", "mindie_llm_server": "3.0.0"}
# What the real daemon says to its own end: it calls abort() (src/server/daemon/llm_daemon.cpp).
ABORTED, REFUSED = 128 + signal.SIGABRT, 255
READY = "Daemon start success!"
# src/server/endpoint/.../prometheus_metrics.cpp
METRICS = ("request_received_total", "request_success_total", "num_requests_running", "num_requests_waiting")


def main(program: str, arguments: list[str]) -> int:
    """Run until a signal comes or a node is lost; return the exit status."""
    version = os.environ.get(VERSION_VARIABLE, VERSIONS[program])
    say(f"This is an emulator that stands for MindIE {version} in tests; it computes nothing.")
    try:
        if arguments:
            raise schema.Refused("the emulated MindIE takes no arguments")
        own_group()
        return run(program, version)
    except schema.Refused as error:
        say(f"[ERROR] {error}")
        say("Failed to init endpoint! Please check the service log or console output.")
        return REFUSED


def say(text: str) -> None:
    """Print a line at once, for what starts the program reads it from a pipe."""
    print(text, flush=True)


def own_group() -> None:
    """Become the leader of a process group, which the real daemon does first and which a session's leader cannot."""
    try:
        os.setpgid(0, 0)
    except OSError as error:
        raise schema.Refused(f"Failed to set process group. errno is {error.errno}") from error


def generation(version: str) -> int:
    """Return the generation of config.json."""
    major, minor = version.split(".")[:2]
    return 2 if int(major) > 2 else int(int(minor) > 0)


def run(program: str, version: str) -> int:
    """Check everything, then serve."""
    age = generation(version)
    config = read(program, age)
    backend = config["BackendConfig"]
    several = backend["multiNodesInferEnabled"]
    table = inputs.rank_table(age) if several else None
    total = table["total"] if table else len(backend["npuDeviceIds"][0])
    schema.check_sizes(config, total)
    inputs.check_environment(several, total)
    own = table["servers"][table["own"]]["devices"] if table else []
    inputs.check_machine([device["id"] for device in own] or backend["npuDeviceIds"][0], several)
    inputs.check_weights(config)
    inputs.check_certificates(config, program)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    inputs.leave_marks()
    return serve(config, table, stop)


def read(program: str, age: int) -> dict:
    """Return config.json, checked."""
    home = inputs.home(program)
    if program == "mindieservice_daemon" and os.path.realpath(".") != os.path.realpath(home):
        raise schema.Refused(f"the daemon must be started in {home}, and not in {os.getcwd()}")
    path = os.environ.get("MIES_CONFIG_JSON_PATH") or f"{home}/conf/config.json"
    config = inputs.read_json(path)
    say(f"ConfigManager: Load Config from {path}.")
    schema.check(config, age)
    return config


def digest_of(config: dict, table: dict) -> str:
    """Return a digest of what must be the same on all nodes: everything but the addresses to listen on."""
    server = {name: value for name, value in config["ServerConfig"].items() if not name.lower().endswith("ipaddress")}
    text = json.dumps([{**config, "ServerConfig": server}, table["table"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def serve(config: dict, table: dict | None, stop: threading.Event) -> int:
    """Take the ports, wait for the other nodes, answer; end with them."""
    server, port = config["ServerConfig"], config["BackendConfig"].get("multiNodesInferPort", 1120)
    address = os.environ.get("MIES_CONTAINER_IP") or server["ipAddress"]
    is_master = table is None or table["own"] == 0
    healthy = threading.Event()
    threads = []
    if is_master:
        threads.append(business(config, address, healthy, stop))
    threads += internal(config, healthy, stop)
    connections: list[socket.socket] = []
    if table and is_master:
        with peers.listen(address, port) as listening:
            connections = peers.gather(listening, len(table["servers"]), digest_of(config, table), stop)
    elif table:
        master = (table["servers"][0]["address"], port)
        connections = peers.join(address, master, table["own"], digest_of(config, table), stop)
    for thread in threads:
        thread.start()
    healthy.set()
    say(READY)
    lost = peers.wait_until_lost(connections, stop)
    healthy.clear()
    stop.set()
    say("[ERROR] a node of the rank table is lost" if lost else "Received exit signal")
    for thread in threads:
        thread.join()
    return ABORTED


def business(config: dict, address: str, healthy: threading.Event, stop: threading.Event) -> threading.Thread:
    """Return what answers OpenAI's API; its port is taken at once."""
    port = config["ServerConfig"]["port"]
    model = config["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
    taken = take(address, port)
    return threading.Thread(
        target=openai_server.serve,
        args=(address, port, model["modelName"], answers(model["modelWeightPath"]), healthy.is_set, stop),
        kwargs={"taken": taken},
        daemon=True,
    )


def take(address: str, port: int) -> socket.socket:
    """Return a socket that is bound to the port."""
    try:
        return openai_server.listen(address, port)
    except OSError as error:
        raise schema.Refused(f"cannot listen on {address}:{port}: {error.strerror}") from error


def answers(weights: str) -> dict[str, str]:
    """Return {prompt: answer} of the file that the environment names, or of that among the weights."""
    path = os.environ.get(ANSWERS_VARIABLE) or os.path.join(weights, ANSWERS_FILE)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def internal(config: dict, healthy: threading.Event, stop: threading.Event) -> list[threading.Thread]:
    """Return what answers on the management port and, where it is another, on the metrics port."""
    server = config["ServerConfig"]
    address = os.environ.get("MIES_CONTAINER_MANAGEMENT_IP") or server.get("managementIpAddress", server["ipAddress"])
    found = []
    for port in {server.get("managementPort", server["port"]), server["metricsPort"]} - {server["port"]}:
        paths = [f"health {port == server.get('managementPort')}", f"metrics {port == server['metricsPort']}"]
        found.append(threading.Thread(target=_answer, args=(take(address, port), paths, healthy, stop), daemon=True))
    return found


def _answer(taken: socket.socket, paths: list[str], healthy: threading.Event, stop: threading.Event) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            """The log has its own lines."""

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if "health True" in paths and path in ("/health", "/v2/health/live", "/v2/health/ready"):
                self._send(200 if healthy.is_set() else 500, "")
            elif "metrics True" in paths and path == "/metrics" and os.environ.get("MIES_SERVICE_MONITOR_MODE") == "1":
                self._send(200, "".join(f'{name}{{model_name="emulated"}} 0\n' for name in METRICS))
            else:
                self._send(404, "")

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    server = http.server.ThreadingHTTPServer(taken.getsockname(), Handler, bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = taken
    server.server_activate()
    threading.Thread(target=server.serve_forever, args=(peers.POLL_SECONDS,), daemon=True).start()
    stop.wait()
    server.shutdown()
    server.server_close()
