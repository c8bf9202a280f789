# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first process of an engine's container: runs one rank's engine, and makes the ranks of a group one unit.

Started as ``python3 RUN_DIR/launch/rank_guard.py RUN_DIR/launch/rank.json -- ARGV...``. It needs nothing but the
standard library and bash, and runs on Python 3.8, the oldest one of the engines' images.

The engines of a group can only work together, and none of them can take in a rank that was started again: where one
ends, all have to begin anew, rank 0 first. The guard of rank 0, the head, listens; the others connect to it, prove that
they know the group's key (HMAC over a nonce of each side, the key itself never travels), and say their rank and the
digest of their plan. Every message after that carries a MAC of its own. When all ranks are there and idle with one
digest, the head starts the next generation. Where an engine ends, or a rank is not heard of any more, all ranks stop
their engine and say so; the head starts the next generation after a pause. A group of one rank has no socket.

What it writes, beside the engine's output on its own output::

    RUN_DIR/logs/engine.log  the engine's output, in five older files besides
    RUN_DIR/logs/rank.json   how it stands, see Guard.state()

For Docker's restart policy ``unless-stopped`` the end of a container by ``docker stop`` and by ``docker kill`` is a
person's wish: it stays away until someone starts it, and the group waits for it. A crash is none: the guard killed by
the kernel or by ``kill -9`` on the host, exit status 75 (the devices are gone) and every other end of the guard by
itself are followed by a restart, and the group comes back.

:exit status: 0 after SIGTERM, 75 (EX_TEMPFAIL) when the container has lost its devices, 78 (EX_CONFIG) when rank.json
    or secrets.json cannot be used
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import errno
import hashlib
import hmac
import json
import os
import secrets as randomness
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

BEAT_SECONDS = 5.0
# Six beats: a host that pauses for some seconds (memory reclaim, a snapshot) is no reason to load weights for an hour.
SILENCE_SECONDS = 30.0
# The proof of the key takes milliseconds; who has not given it by then is a stranger.
HANDSHAKE_SECONDS = 10.0
RETRY_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 2.0
MOST_PAUSE_SECONDS = 300.0
STEADY_SECONDS = 600.0
PROBE_SECONDS = 60.0
# What lives so long after SIGKILL is stuck in the kernel, mostly in a device's driver.
STUCK_SECONDS = 10.0
TICK_SECONDS = 0.2
LOG_BYTES = 50 * 1024 * 1024
LOG_BACKUPS = 5
TAIL_LINES = 20
TAIL_CHARS = 500
PART_BYTES = 64 * 1024
MOST_EXITS = 50
# 20 lines of 500 characters are at most 40 kB in UTF-8; JSON's escapes may double them.
MESSAGE_BYTES = 128 * 1024
GREETING_BYTES = 4096
STRANGERS = 64
# A masked word shorter than that would blacken ordinary words of the log.
SECRET_CHARS = 8
KEY_BYTES = 16
EXIT_LOST_DEVICES = 75
EXIT_SETTINGS = 78
_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_OF_BASH = ("_", "SHLVL", "PWD", "OLDPWD")
# The scripts must not see the paths as arguments of their own: nnal's set_env.sh reads what it is sourced with.
_SCRIPTS = """\
__rank_guard_out=$1
shift
__rank_guard_scripts=("$@")
set --
for __rank_guard_script in "${__rank_guard_scripts[@]}"; do
    . "$__rank_guard_script"
done
unset __rank_guard_scripts __rank_guard_script
env -0 >&"$__rank_guard_out"
"""


class GuardError(Exception):
    """What keeps this rank from starting, in words for a person."""


class LinkLost(Exception):
    """A connection that cannot be used any more, and why."""


# Settings ----------------------------------------------------------------------------------------------------------


class Settings:
    """rank.json and the secrets that it points to.

    :raises GuardError: when a file cannot be read or a value is missing or of the wrong kind
    """

    def __init__(self, path: str, argv: list[str]) -> None:
        data = _read_object(path)
        self.argv = argv
        try:
            self.group = _of(str, data["group"])
            self.deployment = _of(str, data["deployment"])
            self.rank = _of(int, data["rank"])
            self.world = _of(int, data["world"])
            self.hosts = _words(data["hosts"])
            self.head = _of(str, data["head"])
            self.port = _of(int, data["port"])
            self.digest = _of(str, data["digest"])
            self.run_dir = _of(str, data["run_dir"])
            self.before = [_words(command) for command in _of(list, data["before"])]
            self.env_scripts = [_words(entry) for entry in _of(list, data["env_scripts"])]
            self.keep = _words(data["keep"])
            self.workdir = _of(str, data["workdir"])
            self.stop_seconds = _of((int, float), data["stop_seconds"])
            self.probe_devices = _words(data["probe_devices"])
            secret = _read_object(_of(str, data["secrets"])) if data["secrets"] else {}
            self.key = bytes.fromhex(_of(str, secret.get("key", "")))
            self.secret_env = {_of(str, name): _of(str, value) for name, value in secret.get("env", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # The text of the error may hold a value of secrets.json; its kind and a key's name do not.
            what = f"{error} is missing" if isinstance(error, KeyError) else type(error).__name__
            raise GuardError(f"{path} or the secrets it names cannot be used: {what}") from None
        if not argv or not 0 <= self.rank < self.world or len(self.hosts) != self.world:
            raise GuardError(f"{path} names rank {self.rank} of {self.world}, {len(self.hosts)} hosts, {argv[:1]}")
        if [] in self.before:
            raise GuardError(f"{path} names an empty command before the engine")
        if self.world > 1 and not 0 < self.port < 65536:
            raise GuardError(f"{path} names port {self.port} for the guards")
        if self.world > 1 and len(self.key) < KEY_BYTES:
            raise GuardError(f"the group's key in {data['secrets']} is shorter than {KEY_BYTES} bytes")

    def path(self, *names: str) -> str:
        """Return a path in the run folder."""
        return os.path.join(self.run_dir, *names)

    def name(self, rank: int) -> str:
        """Return how a rank is called in texts."""
        return f"rank {rank} ({self.hosts[rank]})"


def _of(kinds, value):
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError
    return value


def _words(value) -> list[str]:
    return [_of(str, word) for word in _of(list, value)]


def _read_object(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
    except OSError as error:
        raise GuardError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise GuardError(f"{path} is no JSON") from None
    if not isinstance(data, dict):
        raise GuardError(f"{path} is no JSON object")
    return data


# Output ------------------------------------------------------------------------------------------------------------


class Log:
    """The engine's output line by line: into a file that is rotated, onto ``echo`` (a handle), and the last lines kept.

    Words in ``hidden`` are masked. Nothing of it may stop the engine: what a full disk or a reader who is gone does not
    take is dropped.
    """

    def __init__(self, path: str, hidden: list[str], echo: int = 1) -> None:
        self.path = path
        self.echo = echo
        lines = {line for word in hidden for line in word.splitlines() if len(line) >= SECRET_CHARS}
        self.hidden = [line.encode() for line in sorted(lines, key=len, reverse=True)]
        self.tail: collections.deque = collections.deque(maxlen=TAIL_LINES)
        self._part = b""
        self._handle = -1
        self._size = 0

    def size(self) -> int:
        """Return the size of the current file in bytes."""
        try:
            return os.path.getsize(self.path)
        except OSError:
            return 0

    def feed(self, data: bytes) -> None:
        """Take output in pieces as they come; a carriage return ends a line too, as progress bars use it."""
        *lines, self._part = (self._part + data).replace(b"\r", b"\n").split(b"\n")
        while len(self._part) >= PART_BYTES:
            lines.append(self._part[:PART_BYTES])
            self._part = self._part[PART_BYTES:]
        self._put([line for line in lines if line.strip()])

    def flush(self) -> None:
        """Take what came last as a line of its own."""
        if self._part:
            self.feed(b"\n")

    def say(self, text: str) -> None:
        """Write a line of the guard's own; it is no part of the engine's last lines."""
        self._write(f"rank_guard: {text}\n".encode("utf-8", "replace"))

    def _put(self, lines: list[bytes]) -> None:
        for index, line in enumerate(lines):
            for word in self.hidden:
                line = line.replace(word, b"***")
            lines[index] = line
            self.tail.append(line.decode("utf-8", "replace")[:TAIL_CHARS])
        if lines:
            self._write(b"".join(line + b"\n" for line in lines))

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._handle < 0:
                self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
                self._size = self.size()
            self._size += os.write(self._handle, data)
            if self._size >= LOG_BYTES:
                self._rotate()
        with contextlib.suppress(OSError, ValueError):
            # A pipe that takes 4096 bytes (PIPE_BUF) is ready; a logging driver that hangs must not stop the beats.
            for begin in range(0, len(data), 4096):
                if not select.select([], [self.echo], [], 0)[1]:
                    break
                os.write(self.echo, data[begin : begin + 4096])

    def _rotate(self) -> None:
        os.close(self._handle)
        self._handle = -1
        for number in range(LOG_BACKUPS, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, f"{self.path}.{number}")


# Processes ---------------------------------------------------------------------------------------------------------


def descendants() -> list[int]:
    """Return the pids of all living processes below this one; what ends is adopted by this process, see adopt()."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as stream:
                    # The command's name before it may itself hold blanks and brackets.
                    fields = stream.read().rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    parents[int(name)] = int(fields[1])
    below, found = {os.getpid()}, True
    while found:
        found = {pid for pid, parent in parents.items() if parent in below} - below
        below |= found
    return sorted(below - {os.getpid()})


def adopt() -> None:
    """Become the parent of orphaned grandchildren, as the first process of a container is by itself."""
    if os.getpid() != 1:
        import ctypes  # absent from some small Pythons, and needed outside of containers only

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def ending(status: int) -> str:
    """Return a wait status in words: "exit status 1", "killed by SIGKILL"."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
        return f"killed by signal {number}"
    return f"exit status {os.WEXITSTATUS(status)}"


def chosen_scripts(entries: list[list[str]]) -> list[str]:
    """Return of each entry the first path that exists.

    :raises GuardError: when none of an entry's paths is there
    """
    chosen = []
    for entry in entries:
        path = next((path for path in entry if os.path.isfile(path)), None)
        if path is None:
            raise GuardError(f"the image has none of the environment scripts {', '.join(entry)}")
        chosen.append(path)
    return chosen


class Engine:
    """One rank's engine: environment scripts, commands before it, itself, and all that they leave.

    ``state`` is idle, starting, running or stopping. ``ended`` says how it ended by itself, empty when it did not.
    ``meets`` says whether the other ranks find what they have to meet: the engine runs, or the first command before it
    has ended, which starts Ray where a later one waits for all nodes to join it.
    """

    def __init__(self, settings: Settings, log: Log, clock=time.monotonic) -> None:
        self.settings = settings
        self.log = log
        self.clock = clock
        self.state = "idle"
        self.ended = ""
        self.meets = False
        self.pid = 0
        self.started_epoch_s = 0.0
        self.log_from = 0
        self.stuck = False
        self._stages: list[tuple[str, list[str]]] = []
        self._stage = ""
        self._environment: dict[str, str] = {}
        self._answer = -1
        self._deadline = 0.0
        self.pipe, self._output = os.pipe()
        os.set_blocking(self.pipe, False)

    def start(self) -> None:
        """Begin with the first stage; on_child() goes on with the next ones."""
        self.state, self.ended, self.meets = "starting", "", False
        self.log.tail.clear()
        self.log_from = self.log.size()
        self._environment = dict(os.environ)
        try:
            scripts = chosen_scripts(self.settings.env_scripts)
        except GuardError as error:
            self._end(str(error))
            return
        self._stages = [("environment scripts", ["bash", "-c", _SCRIPTS, "rank_guard", *scripts])] if scripts else []
        self._stages += [(f"command before the engine ({command[0]})", command) for command in self.settings.before]
        self._stages.append(("", self.settings.argv))
        self._next()

    def _next(self) -> None:
        self._stage, argv = self._stages.pop(0)
        environment, handles = self._environment, []
        try:
            os.makedirs(self.settings.workdir, exist_ok=True)
            if self._is_scripts():
                handles = [self._new_answer()]
                argv = [*argv[:4], str(handles[0]), *argv[4:]]
            else:
                environment = dict(environment, **self.settings.secret_env)
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=environment,
                cwd=self.settings.workdir,
                pass_fds=handles,
                # A group of its own to be ended as one, and no session: the leader of one cannot make the group that
                # MindIE's daemon makes first (MindIE-LLM, llm_daemon.cpp: setpgrp).
                preexec_fn=os.setpgrp,
            )
        except (OSError, ValueError) as error:
            self._end(f"{self._label()}cannot be started: {getattr(error, 'strerror', '') or error}: {argv[0]}")
            return
        self.pid = process.pid
        # Reaped with everything else by the guard, so this object must not wait for it.
        process.returncode = 0
        if not self._stage:
            self.state, self.meets = "running", True
            self.started_epoch_s = round(time.time(), 3)

    def _new_answer(self) -> int:
        """Return a handle of a file without name that takes the environment which the scripts make."""
        self._answer, path = tempfile.mkstemp(dir=self.settings.workdir)
        os.unlink(path)
        return self._answer

    def _is_scripts(self) -> bool:
        return self._stage == "environment scripts"

    def _label(self) -> str:
        return f"{self._stage}: " if self._stage else ""

    def on_child(self, pid: int, status: int) -> None:
        """Take note that a child has ended; those that the engine left are none of its stages."""
        if pid != self.pid:
            return
        self.pid = 0
        if self.state == "stopping":
            return
        if self._is_scripts():
            try:
                self._environment = self._sourced()
            except GuardError as error:
                self._end(f"{error} ({ending(status)})")
                return
        elif not self._stage or status:
            self._end(self._label() + ending(status))
            return
        else:
            self.meets = True
        self._next()

    def _sourced(self) -> dict[str, str]:
        """Return the environment after the scripts; variables to keep, and bash's own, are as they were before."""
        with open(self._answer, "rb") as stream:
            stream.seek(0)
            entries = [entry for entry in os.fsdecode(stream.read()).split("\0") if "=" in entry]
        if not entries:
            raise GuardError("the environment scripts ended the shell")
        found = dict(entry.split("=", 1) for entry in entries)
        for name in (*_OF_BASH, *self.settings.keep):
            if name in os.environ:
                found[name] = os.environ[name]
            elif name in _OF_BASH:
                found.pop(name, None)
        return found

    def _end(self, how: str) -> None:
        self.log.flush()
        self.ended = how
        self.log.say(f"the engine of {self.settings.name(self.settings.rank)} ended: {how}")
        self._stop()

    def stop(self) -> None:
        """Begin to end it: SIGTERM to all its processes, SIGKILL after stop_seconds; idle when none is left."""
        if self.state in ("starting", "running"):
            self._stop()

    def _stop(self) -> None:
        self.state = "stopping"
        self._deadline = self.clock() + self.settings.stop_seconds
        _signal(descendants(), signal.SIGTERM)

    def tick(self) -> None:
        """Go on with stopping."""
        if self.state != "stopping":
            return
        left = descendants()
        late = self.clock() - self._deadline
        # One that has ended and was not reaped yet is none of the living, and its end is still to come.
        if not left and not self.pid:
            self.log.flush()
            self.state, self.stuck = "idle", False
        elif late >= 0:
            # Again each time: what was just being forked is seen at the next look.
            _signal(left, signal.SIGKILL)
            self.stuck = late >= STUCK_SECONDS


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def lost_devices(paths: list[str], opener=os.open) -> list[str]:
    """Return the devices that the container's device rules do not allow any more.

    ``systemctl daemon-reload`` on the host takes from a running container the devices that Docker had given it, where
    systemd manages the cgroups: opening then fails with EPERM (github.com/NVIDIA/nvidia-container-toolkit issue 48).
    Other errors tell of the device's own state.
    """
    lost = []
    for path in paths:
        try:
            os.close(opener(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno == errno.EPERM:
                lost.append(path)
    return lost


# Messages ----------------------------------------------------------------------------------------------------------


class Link:
    """A connection between two guards: JSON lines, each with a MAC once both have proven the key."""

    def __init__(self, sock: socket.socket, clock) -> None:
        self.sock = sock
        self.clock = clock
        self.heard = self.sent = self.made = clock()
        self._in = b""
        self._out = b""
        self._key = b""
        self._labels = (b"", b"")
        self._counts = [0, 0]
        sock.setblocking(False)

    def secure(self, key: bytes, mine: bytes, theirs: bytes) -> None:
        """Authenticate every message from now on with the session's ``key``; labels tell the two directions apart."""
        self._key, self._labels = key, (mine, theirs)

    def is_secured(self) -> bool:
        """True when both sides have proven the key."""
        return bool(self._key)

    def send(self, message: dict) -> None:
        """Queue ``message`` and send what the socket takes."""
        line = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        if self._key:
            line = self._mac(0, line) + b" " + line
        self._out += line + b"\n"
        self.sent = self.clock()
        self.flush()

    def flush(self) -> None:
        """Send what waits; errors show when the connection is read."""
        with contextlib.suppress(OSError):
            while self._out:
                self._out = self._out[self.sock.send(self._out) :]
        if len(self._out) > 4 * MESSAGE_BYTES:
            raise LinkLost("does not take what is sent")

    def messages(self):
        """Yield the messages that have come.

        :raises LinkLost: at the connection's end, on a line that is too long, false or no JSON object
        """
        ended = ""
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    ended = "connection lost"
                    break
                self._in += data
                self.heard = self.clock()
                if len(self._in) > self._most():
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            ended = f"connection lost ({error.strerror})"
        while b"\n" in self._in:
            line, self._in = self._in.split(b"\n", 1)
            if len(line) > self._most():
                raise LinkLost("sent a line that is too long")
            yield self._opened(line)
        if len(self._in) > self._most():
            raise LinkLost("sent a line that is too long")
        if ended:
            raise LinkLost(ended)

    def _most(self) -> int:
        return MESSAGE_BYTES if self._key else GREETING_BYTES

    def _opened(self, line: bytes) -> dict:
        if self._key:
            given, _blank, line = line.partition(b" ")
            if not hmac.compare_digest(given, self._mac(1, line)):
                raise LinkLost("sent a message with a false MAC")
        try:
            message = json.loads(line.decode())
        except (ValueError, RecursionError):
            raise LinkLost("speaks another protocol") from None
        if not isinstance(message, dict):
            raise LinkLost("speaks another protocol")
        return message

    def _mac(self, direction: int, line: bytes) -> bytes:
        self._counts[direction] += 1
        text = b"%s %d %s" % (self._labels[direction], self._counts[direction], line)
        return hmac.new(self._key, text, hashlib.sha256).hexdigest().encode()

    def beat(self) -> None:
        """Show that this side lives, and see whether the other one does.

        :raises LinkLost: when nothing was heard for SILENCE_SECONDS
        """
        now = self.clock()
        if now - self.heard >= SILENCE_SECONDS:
            raise LinkLost(f"not heard of for {SILENCE_SECONDS:.0f} s")
        if now - self.sent >= BEAT_SECONDS:
            self.send({"say": "beat"})

    def close(self) -> None:
        """Close it; a second time is no error."""
        self.sock.close()


def proof(key: bytes, what: str, *parts: object) -> str:
    """Return the HMAC by which a side proves the key; ``what`` keeps the proofs of the two sides apart."""
    text = json.dumps([what, *parts])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_proof(given: object, wanted: str) -> bool:
    """Compare in constant time; whatever was given."""
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


# A group's sides ---------------------------------------------------------------------------------------------------


class Pause:
    """How long to wait before the next start: 2 s, doubled up to 300 s, anew after 600 s of running."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def after(self, ran: float) -> float:
        """Return the pause after a generation that ran for ``ran`` seconds."""
        longer = min(MOST_PAUSE_SECONDS, self.seconds * 2)
        self.seconds = longer if self.seconds and ran < STEADY_SECONDS else FIRST_PAUSE_SECONDS
        return self.seconds


class Rank:
    """What the head knows of a rank that is connected."""

    def __init__(self, link: Link, digest: str) -> None:
        self.link = link
        self.digest = digest
        self.idle = False
        self.generation = None
        self.told = None


class Head:
    """The guard of rank 0: gathers the ranks and starts and stops their generations."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.settings = guard.settings
        self.clock = guard.clock
        self.listener = None
        self.listen_at = 0.0
        self.problem = ""
        self.strangers: list[tuple[Link, str, str]] = []
        self.refused: set[str] = set()
        self.ranks: dict[int, Rank] = {}
        self.phase = "waiting"
        self.pause = Pause()
        self.begun = self.not_before = 0.0
        self.cause = ""

    # Connections

    def _listen(self) -> None:
        if self.settings.world == 1 or self.listener or self.clock() < self.listen_at:
            return
        where = _place(self.settings)
        listener = socket.socket(where[0], socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where[4])
            listener.listen(STRANGERS)
        except OSError as error:
            # After a reboot the address may come later than the container.
            listener.close()
            self.listen_at = self.clock() + RETRY_SECONDS
            self.problem = f"cannot listen on {self.settings.head} port {self.settings.port}: {error.strerror}"
            return
        listener.setblocking(False)
        self.problem = ""
        self.listener = listener
        self.guard.watch(listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, address = self.listener.accept()
        except OSError:
            return
        link = Link(sock, self.clock)
        nonce = randomness.token_hex(32)
        if len(self.strangers) >= STRANGERS:
            self._dismiss(self.strangers[0], "too many connections")
        stranger = (link, nonce, str(address[0]))
        self.strangers.append(stranger)
        self.guard.watch(sock, lambda: self._greet(stranger))
        with contextlib.suppress(LinkLost):
            link.send({"rank_guard": 1, "nonce": nonce})

    def _dismiss(self, stranger: tuple[Link, str, str], why: str) -> None:
        link, _nonce, address = stranger
        if stranger in self.strangers:
            self.strangers.remove(stranger)
        self.guard.unwatch(link.sock)
        link.close()
        # Once for each address: who knocks all day must not fill the log.
        if address not in self.refused and len(self.refused) < STRANGERS:
            self.refused.add(address)
            self.guard.log.say(f"a connection from {address} was closed: {why}")

    def _greet(self, stranger: tuple[Link, str, str]) -> None:
        link, nonce, _address = stranger
        try:
            for message in link.messages():
                if link.is_secured():
                    self._hear(message, self._rank_of(link))
                else:
                    self._admit(stranger, nonce, message)
        except LinkLost as lost:
            rank = self._rank_of(link)
            if rank is None:
                self._dismiss(stranger, str(lost))
            else:
                self._lose(rank, str(lost))

    def _rank_of(self, link: Link) -> int | None:
        return next((rank for rank, there in self.ranks.items() if there.link is link), None)

    def _admit(self, stranger: tuple[Link, str, str], nonce: str, message: dict) -> None:
        link = stranger[0]
        rank, digest, theirs = message.get("rank"), message.get("digest"), message.get("nonce")
        parts = (self.settings.group, nonce, theirs, rank, digest)
        if not is_proof(message.get("proof"), proof(self.settings.key, "member", *parts)):
            link.send({"refused": "key"})
            raise LinkLost("it does not know the group's key")
        if not isinstance(rank, int) or not 0 < rank < self.settings.world or not isinstance(digest, str):
            link.send({"refused": "rank"})
            raise LinkLost(f"its rank is not one of 1 to {self.settings.world - 1}")
        link.send({"proof": proof(self.settings.key, "head", *parts)})
        link.secure(bytes.fromhex(proof(self.settings.key, "session", *parts)), b"head", b"member")
        if rank in self.ranks:
            self._lose(rank, "its guard was started again")
        self.strangers.remove(stranger)
        self.ranks[rank] = Rank(link, digest)

    def _lose(self, rank: int, why: str) -> None:
        there = self.ranks.pop(rank)
        self.guard.unwatch(there.link.sock)
        there.link.close()
        if self.phase in ("starting", "running"):
            self._fail(rank, why, [])

    def _hear(self, message: dict, rank: int | None) -> None:
        there = self.ranks.get(rank)
        if there is None:
            return
        say, generation = message.get("say"), message.get("generation")
        if say == "idle" and there.generation in (None, generation):
            there.idle = True
        elif say == "ended" and generation == there.generation and self.phase != "waiting":
            tail = message.get("tail")
            self._fail(rank, _text(message.get("exit")), tail if isinstance(tail, list) else [])

    # Generations

    def _missing(self) -> list[tuple[int, str]]:
        """Return the ranks that cannot be started yet, each with what is the matter if it is connected."""
        found = []
        for rank in range(1, self.settings.world):
            there = self.ranks.get(rank)
            if there is None:
                found.append((rank, ""))
            elif there.digest != self.settings.digest:
                found.append((rank, "other plan"))
            elif not there.idle:
                found.append((rank, "still stopping"))
        return found

    def _start(self) -> None:
        self.guard.generation += 1
        self.phase, self.begun = "starting", self.clock()
        self.guard.log.say(f"generation {self.guard.generation} starts on {self.settings.world} ranks")
        self.guard.engine.start()

    def _start_others(self) -> None:
        self.phase = "running"
        for rank in sorted(self.ranks):
            # A connection that fails while this is said ends the generation.
            if self.phase == "running":
                there = self.ranks[rank]
                there.idle, there.generation = False, self.guard.generation
                self._send(rank, {"say": "start", "generation": self.guard.generation})

    def _fail(self, rank: int, how: str, tail: list) -> None:
        """Stop all, and start again after a pause. Later ends of the same generation are noted only."""
        self.guard.note_exit(rank, how, tail)
        if self.phase == "stopping":
            return
        pause = self.pause.after(self.clock() - self.begun)
        self.cause = f"{self.settings.name(rank)} ended: {how}"
        self.not_before = self.clock() + pause
        self.phase = "stopping"
        self.guard.log.say(f"{self.cause}; all ranks stop, the next start is in {pause:.0f} s")
        self.guard.engine.stop()
        for number in sorted(self.ranks):
            if not self.ranks[number].idle:
                self._send(number, {"say": "stop", "why": self.cause})

    def _send(self, rank: int, message: dict) -> None:
        there = self.ranks.get(rank)
        if there is not None:
            try:
                there.link.send(message)
            except LinkLost as lost:
                self._lose(rank, str(lost))

    # What the guard calls

    def tick(self) -> None:
        """Look at the connections, and go on with the generation."""
        self._listen()
        for stranger in list(self.strangers):
            if self.clock() - stranger[0].made >= HANDSHAKE_SECONDS:
                self._dismiss(stranger, "it did not prove the group's key in time")
        for rank in sorted(self.ranks):
            try:
                self.ranks[rank].link.beat()
            except LinkLost as lost:
                self._lose(rank, str(lost))
        self._go_on()
        told = {"say": "wait", "missing": self.missing(), "why": self.why(), "state": self.state()}
        for rank in sorted(self.ranks):
            there = self.ranks.get(rank)
            if there and there.told != told:
                there.told = told
                self._send(rank, told)

    def _go_on(self) -> None:
        engine = self.guard.engine
        if self.phase in ("starting", "running") and engine.ended:
            self._fail(0, engine.ended, list(self.guard.log.tail))
        elif self.phase == "starting" and engine.meets:
            self._start_others()
        # A rank that is gone is not waited for: it says itself when it is idle again.
        elif self.phase == "stopping" and engine.state == "idle" and all(each.idle for each in self.ranks.values()):
            self.phase = "waiting"
        ready = self.phase == "waiting" and self.clock() >= self.not_before and not self.guard.leaving
        if ready and not self.problem and not self._missing():
            self._start()

    def leave(self, why: str) -> None:
        """Take note that this guard ends; the others see their connection close."""
        if self.phase in ("starting", "running"):
            self._fail(0, why, [])
        self.phase = "stopping"

    def state(self) -> str:
        """Return waiting, starting, running, stopping or failed."""
        if self.phase == "waiting" and self.cause and self.clock() < self.not_before:
            return "failed"
        if self.phase == "running" and self.guard.engine.state == "starting":
            return "starting"
        return self.phase

    def missing(self) -> list[str]:
        """Return the hosts that are waited for."""
        return [self.settings.hosts[rank] for rank, _why in self._missing()] if self.phase == "waiting" else []

    def why(self) -> str:
        """Return what it waits for or suffers from, empty while all is well."""
        if self.phase == "stopping":
            return f"stops because {self.cause}" if self.cause else "stops"
        if self.phase == "waiting" and self.problem:
            return self.problem
        if self.state() == "failed":
            return f"{self.cause}; the next start follows a pause of {self.pause.seconds:.0f} s"
        if self.phase == "waiting":
            names = [
                f"rank {rank} ({self.settings.hosts[rank]}{': ' if why else ''}{why})" for rank, why in self._missing()
            ]
            return "waiting for " + ", ".join(names)
        return ""

    def links(self) -> list[Link]:
        """Return the connections that may have something to send."""
        return [each.link for each in self.ranks.values()]


class Member:
    """The guard of another rank: follows the head."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.settings = guard.settings
        self.clock = guard.clock
        self.link: Link | None = None
        self.connecting = False
        self.retry_at = 0.0
        self.nonce = ""
        self.parts: tuple = ()
        self.told: dict = {}
        self.problem = ""
        self.idle_said = False
        self.end_said = True

    def tick(self) -> None:
        """Connect where there is no connection, and report what has changed."""
        if self.link is None:
            if self.clock() >= self.retry_at and not self.guard.leaving:
                self._connect()
            return
        try:
            if self.link.is_secured():
                self.link.beat()
                self._report()
            elif self.clock() - self.link.made >= HANDSHAKE_SECONDS:
                raise LinkLost("did not answer in time")
        except LinkLost as lost:
            self._lose(str(lost))

    def _connect(self) -> None:
        where = _place(self.settings)
        sock = socket.socket(where[0], socket.SOCK_STREAM)
        self.link = Link(sock, self.clock)
        self.connecting = True
        code = sock.connect_ex(where[4])
        if code not in (0, errno.EINPROGRESS):
            self._lose(os.strerror(code))
            return
        self.guard.watch(sock, self._event, write=True)

    def _event(self) -> None:
        try:
            if self.connecting:
                code = self.link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise LinkLost(os.strerror(code))
                self.connecting = False
                self.guard.watch(self.link.sock, self._event)
            for message in self.link.messages():
                if self.link.is_secured():
                    self._obey(message)
                elif self.parts:
                    self._believe(message)
                else:
                    self._greet(message)
        except LinkLost as lost:
            self._lose(str(lost))

    def _greet(self, message: dict) -> None:
        theirs = message.get("nonce")
        if message.get("rank_guard") != 1 or not isinstance(theirs, str):
            raise LinkLost("speaks another protocol")
        mine = randomness.token_hex(32)
        self.parts = (self.settings.group, theirs, mine, self.settings.rank, self.settings.digest)
        hello = {"rank": self.settings.rank, "digest": self.settings.digest, "nonce": mine}
        self.link.send(dict(hello, proof=proof(self.settings.key, "member", *self.parts)))

    def _believe(self, message: dict) -> None:
        if message.get("refused") in ("key", "rank"):
            raise LinkLost(f"refuses this rank's {message['refused']}")
        if not is_proof(message.get("proof"), proof(self.settings.key, "head", *self.parts)):
            raise LinkLost("does not know the group's key")
        self.link.secure(bytes.fromhex(proof(self.settings.key, "session", *self.parts)), b"member", b"head")
        self.problem = ""
        self.idle_said = False

    def _lose(self, why: str) -> None:
        self.guard.unwatch(self.link.sock)
        self.link.close()
        if self.guard.engine.state in ("starting", "running"):
            self.guard.note_exit(0, why, [])
            self.guard.log.say(f"{self.settings.name(0)}: {why}; this rank stops its engine")
        self.link, self.parts, self.told = None, (), {}
        self.problem = why
        self.retry_at = self.clock() + RETRY_SECONDS
        self.guard.engine.stop()

    def _obey(self, message: dict) -> None:
        engine = self.guard.engine
        if message.get("say") == "start" and engine.state == "idle" and not self.guard.leaving:
            self.guard.generation = _whole(message.get("generation"))
            self.idle_said = self.end_said = False
            self.guard.log.say(f"generation {self.guard.generation} starts")
            engine.start()
        elif message.get("say") == "stop":
            self.guard.log.say(f"the head stops the engine: {_text(message.get('why'))}")
            engine.stop()
        elif message.get("say") == "wait":
            self.told = message

    def _report(self) -> None:
        engine = self.guard.engine
        if engine.ended and not self.end_said:
            self._say_end(engine.ended, list(self.guard.log.tail))
        # One that goes is not ready for another start, however idle.
        if engine.state == "idle" and not self.idle_said and not self.guard.leaving:
            self.idle_said = True
            self.link.send({"say": "idle", "generation": self.guard.generation})

    def _say_end(self, how: str, tail: list) -> None:
        self.end_said = True
        self.guard.note_exit(self.settings.rank, how, tail)
        self.link.send({"say": "ended", "generation": self.guard.generation, "exit": how, "tail": tail})

    def leave(self, why: str) -> None:
        """Tell the head why this rank goes; it is the cause of the others' end."""
        if self.link and self.link.is_secured() and self.guard.engine.state in ("starting", "running"):
            with contextlib.suppress(LinkLost):
                self._say_end(why, [])

    def state(self) -> str:
        """Return waiting, starting, running, stopping or failed."""
        engine = self.guard.engine.state
        if engine != "idle":
            return engine
        return "failed" if self.told.get("state") == "failed" else "waiting"

    def missing(self) -> list[str]:
        """Return the hosts that are waited for."""
        if self.guard.engine.state != "idle":
            return []
        hosts = self.told.get("missing") if self.told else [self.settings.hosts[0]]
        return [_text(host) for host in hosts] if isinstance(hosts, list) else []

    def why(self) -> str:
        """Return what it waits for or suffers from, empty while all is well."""
        if self.guard.engine.state == "stopping":
            return _text(self.told.get("why")) or "stops"
        if self.guard.engine.state != "idle":
            return ""
        if self.told:
            return _text(self.told.get("why"))
        return f"waiting for {self.settings.name(0)}" + (f": {self.problem}" if self.problem else "")

    def links(self) -> list[Link]:
        """Return the connections that may have something to send."""
        return [self.link] if self.link and not self.connecting else []


def _place(settings: Settings) -> tuple:
    try:
        flags = socket.AI_NUMERICHOST
        return socket.getaddrinfo(settings.head, settings.port, type=socket.SOCK_STREAM, flags=flags)[0]
    except OSError:
        raise GuardError(f"{settings.head} port {settings.port} is no address to meet at") from None


def _text(value: object) -> str:
    return value[:TAIL_CHARS] if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


# The guard ---------------------------------------------------------------------------------------------------------


class Guard:
    """All of it, in one loop that never waits for anything but the next event or a fifth of a second."""

    def __init__(self, settings: Settings, clock=time.monotonic, opener=os.open) -> None:
        self.settings = settings
        self.clock = clock
        self.opener = opener
        self.log = Log(settings.path("logs", "engine.log"), [*settings.secret_env.values(), settings.key.hex()])
        self.engine = Engine(settings, self.log, clock)
        # Goes on where an earlier guard of this place was, so that a number stands for one start.
        self.generation = _whole(_earlier(settings).get("generation"))
        self.exits: list[dict] = []
        self.leaving = ""
        self.code = 0
        self.probe_at = clock() + PROBE_SECONDS
        self.selector = selectors.DefaultSelector()
        self._written = ""
        self._wakeup, self._woken = os.pipe()
        self.side = Head(self) if settings.rank == 0 else Member(self)

    def watch(self, handle, callback, write: bool = False) -> None:
        """Call ``callback`` whenever ``handle`` is ready."""
        self.unwatch(handle)
        self.selector.register(handle, selectors.EVENT_WRITE if write else selectors.EVENT_READ, callback)

    def unwatch(self, handle) -> None:
        """End watching; a second time is no error."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(handle)

    def note_exit(self, rank: int, how: str, tail: list) -> None:
        """Remember how a rank's engine ended without being told to."""
        self.exits.append(
            {
                "host": self.settings.hosts[rank],
                "rank": rank,
                "generation": self.generation,
                "exit": how,
                "tail": [_text(line) for line in tail][-TAIL_LINES:],
                "epoch_s": round(time.time(), 3),
            }
        )
        del self.exits[:-MOST_EXITS]

    def run(self) -> int:
        """Guard until a signal or the loss of the devices; return the exit status."""
        for handle in (self._wakeup, self._woken):
            os.set_blocking(handle, False)
        self.watch(self._wakeup, self._signalled)
        self.watch(self.engine.pipe, self._drain)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        # The first process of a container gets only signals that it has a handler for.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, _noted)
        self.log.say(f"{self.settings.name(self.settings.rank)} of {self.settings.world}, group {self.settings.group}")
        while True:
            for key, _events in self.selector.select(TICK_SECONDS):
                # An earlier callback of this turn may have closed it.
                if key.fd in self.selector.get_map():
                    key.data()
            self._reap()
            self.engine.tick()
            self._probe()
            self.side.tick()
            for link in self.side.links():
                with contextlib.suppress(LinkLost):
                    link.flush()
            if self.leaving and (self.engine.state == "idle" or self.engine.stuck):
                self._write_state()
                return self.code
            self._write_state()

    def _signalled(self) -> None:
        numbers = os.read(self._wakeup, 4096)
        for number in (signal.SIGTERM, signal.SIGINT):
            if number in numbers:
                self._leave("its container was stopped", 0)

    def _leave(self, why: str, code: int) -> None:
        if not self.leaving:
            self.leaving, self.code = why, code
            self.log.say(f"ends: {why}")
            self.side.leave(why)
            self.engine.stop()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            # Not without end: an engine that prints faster than it is read must not keep the beats away.
            for _turn in range(64):
                self.log.feed(os.read(self.engine.pipe, 65536))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._drain()
                self.engine.on_child(pid, status)

    def _probe(self) -> None:
        if self.clock() >= self.probe_at:
            self.probe_at = self.clock() + PROBE_SECONDS
            lost = lost_devices(self.settings.probe_devices, self.opener)
            if lost:
                why = f"the container has lost {', '.join(lost)}; Docker has to make it anew"
                self._leave(why, EXIT_LOST_DEVICES)

    def state(self) -> dict:
        """Return what logs/rank.json holds.

        ``state`` is waiting, starting, running, stopping or failed (the pause after an end), ``missing`` the hosts that
        are waited for, ``why`` a sentence for people, ``pid`` the engine's in this container or null,
        ``started_epoch_s`` when it was started or null, ``engine_log_from`` where in engine.log its output begins, and
        ``exits`` every end that nobody had asked for since this guard began; the head's has those of all ranks.
        ``guard_start_ticks`` tells this guard from an earlier one (field 22 of /proc/PID/stat, the same seen from the
        host).
        """
        engine = self.engine
        state, why = self.side.state(), self.side.why()
        if self.leaving:
            state, why = ("failed" if self.code else "stopping"), self.leaving
        if engine.stuck:
            pids = ", ".join(map(str, descendants()))
            why = f"{why}; pids {pids} did not end by SIGKILL: they wait for a disk or a device"
        runs = engine.state == "running"
        return {
            "state": state,
            "generation": self.generation,
            "missing": [] if self.leaving else self.side.missing(),
            "why": why,
            "pid": engine.pid if runs else None,
            "started_epoch_s": engine.started_epoch_s if runs else None,
            "exits": self.exits,
            "engine_log_from": engine.log_from,
            "digest": self.settings.digest,
            "guard_start_ticks": _start_ticks(),
        }

    def _write_state(self) -> None:
        text = json.dumps(self.state(), indent=2, sort_keys=True, ensure_ascii=False)
        if text == self._written:
            return
        path = self.settings.path("logs", "rank.json")
        # No fsync: the disk may be busy with weights for minutes, and the next guard writes this anew anyway.
        with contextlib.suppress(OSError):
            with open(f"{path}.new", "w", encoding="utf-8", errors="replace") as stream:
                stream.write(text + "\n")
            os.replace(f"{path}.new", path)
            self._written = text


def _noted(*_arguments: object) -> None:
    """The loop reads from the wakeup handle which signal came."""


def _earlier(settings: Settings) -> dict:
    with contextlib.suppress(GuardError):
        return _read_object(settings.path("logs", "rank.json"))
    return {}


def _start_ticks() -> int:
    with open("/proc/self/stat", "rb") as stream:
        return int(stream.read().rpartition(b")")[2].split()[19])


def _fail(path: str, why: str) -> int:
    """Say on the output and, where that can be, in logs/rank.json why this rank cannot be guarded."""
    text = f"rank_guard: {why}"
    _out(text)
    with contextlib.suppress(GuardError, OSError, KeyError, TypeError):
        logs = os.path.join(_read_object(path)["run_dir"], "logs")
        clock = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        with open(os.path.join(logs, "engine.log"), "a", encoding="utf-8") as stream:
            stream.write(f"{text} ({clock})\n")
        state = {"state": "failed", "why": why, "missing": [], "exits": [], "guard_start_ticks": _start_ticks()}
        with open(os.path.join(logs, "rank.json.new"), "w", encoding="utf-8") as stream:
            json.dump(state, stream)
        os.replace(os.path.join(logs, "rank.json.new"), os.path.join(logs, "rank.json"))
    return EXIT_SETTINGS


def _out(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode("utf-8", "replace"))


def main(arguments: list[str]) -> int:
    """Guard as the command line says: SETTINGS -- ARGV...; return the exit status."""
    if len(arguments) < 3 or arguments[1] != "--":
        _out("usage: rank_guard.py RANK_JSON -- ARGV...")
        return EXIT_SETTINGS
    os.umask(0o027)
    try:
        settings = Settings(arguments[0], arguments[2:])
        if settings.world > 1:
            _place(settings)
        os.makedirs(settings.path("logs"), exist_ok=True)
        adopt()
        return Guard(settings).run()
    except GuardError as error:
        return _fail(arguments[0], str(error))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
