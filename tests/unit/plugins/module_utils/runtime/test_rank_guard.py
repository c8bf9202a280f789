# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rank guard for real: processes on loopback that die, hang, lie and come back."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.runtime import rank_guard
from ansible_collections.baremetal.llm.tests.unit.plugins.module_utils.runtime.waiting import eventually
from hypothesis import given
from hypothesis import strategies as st

SOURCE = Path(rank_guard.__file__)
KEY = "5a" * 32


def named(folder, name):
    """Shell that waits for a file and goes on then, so that a test decides when."""
    return f"while [ ! -e {folder}/{name} ]; do sleep 0.05; done"


# A group -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_starts_when_all_are_there_in_whatever_order_they_come(group, order):
    for _rank in range(3):
        group.add(3)
    for position, rank in enumerate(order):
        group.ranks[rank].start()
        if position < 2:
            assert eventually(lambda rank=rank: group.ranks[rank].state().get("state") == "waiting")
    assert group.run(generation=1)
    begun = [rank.state()["started_epoch_s"] for rank in group.ranks]
    assert begun[0] == min(begun), "rank 0 first"
    assert [rank.state()["missing"] for rank in group.ranks] == [[], [], []]


def test_says_whom_it_waits_for(group):
    for _rank in range(3):
        group.add(3)
    head, member = group.ranks[0].start(), group.ranks[1].start()
    wanted = "waiting for rank 2 (a3)"
    assert eventually(lambda: head.state().get("why") == wanted and member.state().get("why") == wanted)
    assert head.state()["missing"] == member.state()["missing"] == ["a3"]
    assert head.state()["pid"] is None and head.state()["started_epoch_s"] is None


def test_a_rank_without_its_head_says_so(group):
    group.add(2)
    member = group.add(2).start()
    assert eventually(lambda: member.state().get("missing") == ["a1"])
    assert eventually(lambda: "Connection refused" in member.state()["why"])
    assert member.state()["why"].startswith("waiting for rank 0 (a1)")


def test_an_engine_that_ends_makes_all_begin_anew(group):
    for rank in range(3):
        die = f"echo ready; {named(group.folder, 'die')}; rm {group.folder}/die; echo ValueError: bad flag; exit 3"
        group.add(3, engine=die if rank == 2 else "sleep 600").start()
    assert group.run(generation=1)
    before = [rank.state()["pid"] for rank in group.ranks]
    (group.folder / "die").touch()
    assert group.run(generation=2)
    assert not set(before) & {rank.state()["pid"] for rank in group.ranks}
    (end,) = group.ranks[0].state()["exits"]
    assert (end["host"], end["rank"], end["generation"], end["exit"]) == ("a3", 2, 1, "exit status 3")
    assert end["tail"] == ["ready", "ValueError: bad flag"]
    assert group.ranks[2].state()["exits"][0]["exit"] == "exit status 3"
    assert group.ranks[1].state()["exits"] == [], "it was told to stop"


def test_the_head_s_own_engine_ends(group):
    group.add(2, engine=f"{named(group.folder, 'die')}; rm {group.folder}/die; kill -9 $$").start()
    group.add(2).start()
    assert group.run(generation=1)
    (group.folder / "die").touch()
    assert group.run(generation=2)
    assert [end["exit"] for end in group.ranks[0].state()["exits"]] == ["killed by SIGKILL"]


def test_a_group_that_fails_says_why_and_pauses(group):
    group.add(2, quick="guard.FIRST_PAUSE_SECONDS = 60.0").start()
    member = group.add(2, engine="exit 7").start()
    head = group.ranks[0]
    assert eventually(lambda: head.state().get("state") == member.state().get("state") == "failed")
    assert head.state()["why"] == "rank 1 (a2) ended: exit status 7; the next start follows a pause of 60 s"
    assert member.state()["why"] == head.state()["why"] and head.state()["generation"] == 1
    assert len(head.processes()) == len(member.processes()) == 1, "the guards alone"


def test_a_crashed_container_is_waited_for_and_joins_again(group):
    for _rank in range(3):
        group.add(3).start()
    assert group.run(generation=1)
    group.ranks[1].crash()
    head = group.ranks[0]
    assert eventually(lambda: head.state()["why"] == "waiting for rank 1 (a2)")
    assert eventually(lambda: all(len(group.ranks[rank].processes()) == 1 for rank in (0, 2)))
    assert head.state()["exits"][0]["exit"].startswith("connection lost")
    group.ranks[1].start()
    assert group.run(generation=2)


def test_the_head_s_container_crashes_and_comes_back(group):
    for _rank in range(2):
        group.add(2).start()
    assert group.run(generation=1)
    head, member = group.ranks
    head.crash()
    assert eventually(lambda: member.state()["state"] == "waiting" and len(member.processes()) == 1)
    assert member.state()["missing"] == ["a1"]
    head.start()
    assert group.run(generation=2), "the count goes on where the earlier guard was"


def test_a_stopped_container_is_waited_for(group):
    for _rank in range(2):
        group.add(2).start()
    assert group.run(generation=1)
    head, member = group.ranks
    assert member.end() == 0
    assert member.processes() == []
    assert member.state()["why"] == "its container was stopped"
    assert eventually(lambda: head.state()["missing"] == ["a2"])
    assert head.state()["exits"][0]["exit"] == "its container was stopped"
    member.start()
    assert group.run(generation=2)


def test_a_stopped_head_tells_the_others(group):
    for _rank in range(2):
        group.add(2).start()
    assert group.run(generation=1)
    head, member = group.ranks
    assert head.end() == 0
    assert eventually(lambda: member.state()["missing"] == ["a1"] and len(member.processes()) == 1)
    assert "rank 0 (a1) ended: its container was stopped" in member.log()


def test_a_rank_that_is_not_heard_of_is_lost_and_comes_back(group):
    for _rank in range(2):
        group.add(2, quick="guard.SILENCE_SECONDS = 3.0").start()
    assert group.run(generation=1)
    head, member = group.ranks
    member.process.send_signal(signal.SIGSTOP)
    assert eventually(lambda: head.state()["missing"] == ["a2"])
    assert head.state()["exits"][0]["exit"] == "not heard of for 3 s"
    member.process.send_signal(signal.SIGCONT)
    assert group.run() and head.state()["generation"] > 1


def test_a_guard_that_is_started_twice_replaces_the_first(group):
    for _rank in range(2):
        group.add(2).start()
    assert group.run(generation=1)
    head, member = group.ranks
    member.process.send_signal(signal.SIGSTOP)
    first = member.process
    member.start()
    assert eventually(lambda: [end["exit"] for end in head.state()["exits"]] == ["its guard was started again"])
    first.kill()
    first.wait(30)
    assert group.run(generation=2)


def test_ranks_with_another_plan_do_not_start_together(group):
    head = group.add(2).start()
    member = group.add(2, digest="d2").start()
    wanted = "waiting for rank 1 (a2: other plan)"
    assert eventually(lambda: head.state().get("why") == wanted and member.state().get("why") == wanted)
    assert head.state()["generation"] == 0
    member.end()
    member.write("rank.json", dict(member.settings, digest="d1"))
    member.start()
    assert group.run(generation=1)


def test_who_does_not_know_the_key_is_refused(group):
    head = group.add(2).start()
    member = group.add(2, key="6b" * 32).start()
    assert eventually(lambda: "refuses this rank's key" in member.state().get("why", ""))
    assert eventually(lambda: "127.0.0.1 was closed: it does not know the group's key" in head.log())
    assert head.state()["missing"] == ["a2"]
    assert head.log().count("was closed") == 1, "once for an address, however often it tries"
    member.end()
    member.write("secrets.json", {"key": KEY, "env": {}})
    member.start()
    assert group.run(generation=1)


@pytest.mark.parametrize("rank", [-1, 0, 2, "1", None])
def test_a_rank_that_cannot_be_is_refused(group, rank):
    group.add(2).start()
    link = connect(group.port)
    nonce = json.loads(line_of(link))["nonce"]
    parts = ("d-0", nonce, "00", rank, "d1")
    proof = rank_guard.proof(bytes.fromhex(KEY), "member", *parts)
    link.sendall(json.dumps({"rank": rank, "digest": "d1", "nonce": "00", "proof": proof}).encode() + b"\n")
    assert json.loads(line_of(link)) == {"refused": "rank"}
    link.close()


# Strangers -----------------------------------------------------------------------------------------------------------


def connect(port):
    link = eventually(lambda: reached(port))
    link.settimeout(30)
    return link


def reached(port):
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=5)
    except OSError:
        return None


def line_of(link):
    """Read one line, byte by byte, so that nothing of the next one is lost; empty at the end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = link.recv(1)
        if not piece:
            return b""
        line += piece
    return line


def is_closed(link):
    try:
        return link.recv(65536) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        b"[" * 4000 + b"\n",
        b"x" * 200_000,
        b"{}\n",
        b"null\n",
        b'{"rank": 1, "digest": "d1", "nonce": "a", "proof": "\xc3\xa9"}\n',
        b'{"rank": [1], "digest": {}, "nonce": 5, "proof": 5}\n',
        b'{"say": "idle", "generation": 0}\n',
    ],
)
def test_nonsense_is_closed_and_the_group_goes_on(group, words):
    head = group.add(2).start()
    stranger = connect(group.port)
    assert "nonce" in json.loads(line_of(stranger))
    try:
        stranger.sendall(words)
    except OSError as error:
        assert error.errno in (errno.EPIPE, errno.ECONNRESET), "closed while it was still talking"
    assert eventually(lambda: is_closed(stranger))
    stranger.close()
    group.add(2).start()
    assert group.run(generation=1)
    assert head.state()["exits"] == [] and "Traceback" not in head.out()


def test_silent_strangers_are_closed_in_time_and_keep_nobody_away(group):
    head = group.add(2).start()
    silent = [connect(group.port) for _number in range(70)]
    silent[-1].sendall(b'{"rank"')
    group.add(2).start()
    assert group.run(generation=1)
    for stranger in silent:
        line_of(stranger)
        assert eventually(lambda stranger=stranger: is_closed(stranger))
        stranger.close()
    assert head.runs(generation=1)
    assert head.log().count("was closed") == 1


def test_a_member_talks_in_pieces(group):
    """A greeting that comes byte by byte is as good as one in a packet."""
    head = group.add(2).start()
    link = connect(group.port)
    hello = json.loads(line_of(link))
    parts = ("d-0", hello["nonce"], "ff", 1, "d1")
    key = bytes.fromhex(KEY)
    greeting = {"rank": 1, "digest": "d1", "nonce": "ff", "proof": rank_guard.proof(key, "member", *parts)}
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in json.dumps(greeting).encode() + b"\n":
        link.sendall(bytes([byte]))
    assert json.loads(line_of(link)) == {"proof": rank_guard.proof(key, "head", *parts)}
    assert eventually(lambda: "still stopping" in head.state()["why"]), "known, but not idle by its own word yet"
    link.close()
    assert eventually(lambda: head.state()["why"] == "waiting for rank 1 (a2)")


def test_an_impostor_of_the_head_learns_nothing_and_starts_nothing(group):
    with socket.create_server(("127.0.0.1", group.port)) as server:
        server.settimeout(30)
        group.add(2)
        member = group.add(2, engine=f"touch {group.folder}/started; sleep 600").start()
        link = server.accept()[0]
        link.settimeout(30)
        link.sendall(b'{"rank_guard": 1, "nonce": "00"}\n')
        heard = line_of(link)
        link.sendall(b'{"proof": "' + b"0" * 64 + b'"}\n{"say": "start", "generation": 1}\n')
        heard += b"".join(iter(lambda: link.recv(65536), b""))
        link.close()
    assert KEY.encode() not in heard and bytes.fromhex(KEY) not in heard
    assert eventually(lambda: "waiting for rank 0" in member.state().get("why", ""))
    assert not (group.folder / "started").exists() and member.state()["generation"] == 0


def pair(key=b"k"):
    left, right = socket.socketpair()
    links = [rank_guard.Link(each, time.monotonic) for each in (left, right)]
    if key:
        links[0].secure(key, b"head", b"member")
        links[1].secure(key, b"member", b"head")
    return links


def close(*links):
    for link in links:
        link.close()


def test_messages_between_guards_come_whole_and_in_order():
    head, member = pair()
    sent = [{"say": "ended", "tail": ["é" * 500] * 20}, {"say": "beat"}, {"text": "a\nb"}]
    for message in sent:
        head.send(message)
    assert list(member.messages()) == sent
    close(head, member)


@pytest.mark.parametrize("forge", ["other key", "replay", "reflect", "bare"])
def test_a_forged_message_ends_the_connection(forge):
    head, member = pair()
    raw = head.sock
    line = b'{"say": "start", "generation": 9}'
    if forge == "other key":
        stranger = rank_guard.Link(socket.socketpair()[0], time.monotonic)
        stranger.secure(b"other", b"head", b"member")
        raw.send(stranger._mac(0, line) + b" " + line + b"\n")
        stranger.close()
    elif forge == "replay":
        good = head._mac(0, line) + b" " + line + b"\n"
        raw.send(good)
        assert list(member.messages()) == [json.loads(line)]
        raw.send(good)
    elif forge == "reflect":
        raw.send(member._mac(0, line) + b" " + line + b"\n")
    else:
        raw.send(line + b"\n")
    with pytest.raises(rank_guard.LinkLost, match="false MAC"):
        list(member.messages())
    close(head, member)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_whatever_comes_is_a_message_or_ends_the_connection(pieces):
    head, member = pair(key=b"")
    for piece in pieces:
        if piece:
            head.sock.send(piece)
        try:
            assert all(isinstance(message, dict) for message in member.messages())
        except rank_guard.LinkLost as lost:
            assert str(lost) == "speaks another protocol"
            break
    close(head, member)


def test_a_connection_that_does_not_take_anything_is_given_up():
    head, member = pair()
    with pytest.raises(rank_guard.LinkLost, match="does not take"):
        for _number in range(100):
            head.send({"text": "x" * 100_000})
    close(head, member)


def test_beats_are_sent_and_missed_by_the_clock():
    now = [0.0]
    left, right = socket.socketpair()
    link, other = rank_guard.Link(left, lambda: now[0]), rank_guard.Link(right, lambda: now[0])
    for moment in range(30):
        now[0] = float(moment)
        link.beat()
    assert [message["say"] for message in other.messages()] == ["beat"] * 5
    now[0] = 30.0
    with pytest.raises(rank_guard.LinkLost, match="not heard of for 30 s"):
        link.beat()
    other.beat()
    close(link, other)


def test_pauses_grow_to_five_minutes_and_begin_anew_after_ten_of_running():
    pause = rank_guard.Pause()
    assert [pause.after(ran=5.0) for _number in range(10)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert pause.after(ran=599.0) == 300
    assert [pause.after(ran=600.0), pause.after(ran=1.0)] == [2, 4]


# One rank ------------------------------------------------------------------------------------------------------------


def listens(rank):
    """True when the guard itself has a listening or connected socket."""
    folder = f"/proc/{rank.process.pid}/fd"
    return any(os.readlink(f"{folder}/{name}").startswith("socket:") for name in os.listdir(folder))


def test_a_rank_alone_needs_no_socket_and_restarts_too(group):
    rank = group.add(1, key="", engine=f"{named(group.folder, 'die')}; rm {group.folder}/die; exit 1").start()
    assert group.run(generation=1)
    assert not listens(rank)
    (group.folder / "die").touch()
    assert group.run(generation=2)
    assert rank.state()["exits"][0]["exit"] == "exit status 1"
    assert rank.end() == 0 and rank.processes() == []


def test_an_engine_that_ignores_sigterm_is_killed(group):
    rank = group.add(1, engine="trap '' TERM; echo deaf; while :; do sleep 1; done", stop_seconds=1).start()
    assert eventually(lambda: "deaf" in rank.log())
    assert rank.end() == 0
    assert rank.processes() == []


def test_grandchildren_in_their_own_session_are_reaped_and_killed(group):
    leave = "setsid sh -c 'trap \"\" TERM; echo $$ > left; while :; do sleep 1; done' & "
    zombies = "(sh -c 'exit 0' & exec sleep 0.2) & "
    rank = group.add(1, engine=leave + zombies + f"{named(group.folder, 'die')}; exit 0", stop_seconds=1).start()
    left = group.folder / "r0" / "work" / "left"
    assert eventually(lambda: left.exists() and left.read_text().strip())
    orphan = int(left.read_text())
    (group.folder / "die").touch()
    assert eventually(lambda: rank.state()["exits"])
    assert eventually(lambda: not Path(f"/proc/{orphan}").exists()), "killed, and no zombie left of it"
    children = Path(f"/proc/{rank.process.pid}/task/{rank.process.pid}/children")
    (group.folder / "die").unlink()
    assert group.run(), "in whichever generation it is by now"
    assert eventually(lambda: all(not is_zombie(pid) for pid in children.read_text().split()))


def is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return False


def test_an_engine_that_cannot_be_started_is_an_end(group):
    rank = group.add(1, workdir="/proc/none").start()
    assert eventually(lambda: rank.state().get("exits"))
    assert "cannot be started" in rank.state()["exits"][0]["exit"]
    rank.end()
    rank.write("rank.json", dict(rank.settings, before=[["/no/such/program"]], workdir=str(group.folder / "w")))
    rank.start()
    wanted = "command before the engine (/no/such/program): cannot be started: No such file or directory"
    assert eventually(lambda: rank.state()["exits"] and wanted in rank.state()["exits"][0]["exit"])


def test_commands_before_the_engine_run_in_order_and_may_leave_daemons(group):
    before = [["sh", "-c", "echo one >> order"], ["sh", "-c", "echo two >> order; setsid sleep 600 & echo $! > daemon"]]
    rank = group.add(1, before=before, engine="echo three >> order; sleep 600").start()
    work = group.folder / "r0" / "work"
    assert eventually(lambda: (work / "order").exists() and (work / "order").read_text() == "one\ntwo\nthree\n")
    daemon = int((work / "daemon").read_text())
    assert daemon in rank.processes()
    assert rank.end() == 0 and not Path(f"/proc/{daemon}").exists()


def test_a_command_before_that_fails_keeps_all_engines_away(group):
    head = group.add(2, before=[["sh", "-c", "echo no ray here >&2; exit 4"], ["touch", "late"]])
    head.engine = f"touch {group.folder}/started"
    head.start()
    member = group.add(2, engine=f"touch {group.folder}/started").start()
    assert eventually(lambda: head.state().get("exits"))
    end = head.state()["exits"][0]
    assert end["exit"] == "command before the engine (sh): exit status 4" and end["tail"] == ["no ray here"]
    assert not (group.folder / "started").exists() and not (group.folder / "r0" / "work" / "late").exists()
    assert member.state()["exits"] == []


def test_a_later_command_before_the_engine_may_wait_for_the_other_ranks(group):
    """As the head of a Ray cluster does: the first command starts Ray, the second waits until all nodes are in it."""
    head = group.add(2, before=[["touch", f"{group.folder}/ray"], ["sh", "-c", named(group.folder, "joined")]])
    member = group.add(2, before=[["test", "-e", f"{group.folder}/ray"]], engine=f"touch {group.folder}/go; sleep 600")
    head.start()
    member.start()
    assert eventually((group.folder / "go").exists)
    assert head.state()["state"] == "starting" and head.state()["pid"] is None
    (group.folder / "joined").touch()
    assert group.run(generation=1)
    assert head.state()["exits"] == member.state()["exits"] == []


def test_environment_scripts_with_alternatives_and_variables_to_keep(group):
    first, second = group.folder / "first.sh", group.folder / "second 2.sh"
    first.write_text('export A=script KEPT=script MULTI=$(printf "x\\ny"); echo "args:$#:$1"; false\n')
    second.write_text("export B=$A-seen; unset GONE; export LATE=from-script\n")
    entries = [[str(group.folder / "absent.sh"), str(first)], [str(second), str(first)]]
    engine = 'echo "A=$A B=$B KEPT=$KEPT GONE=$GONE LATE=$LATE MULTI=${MULTI@Q}"; sleep 600'
    rank = group.add(1, env_scripts=entries, keep=["KEPT", "LATE"], engine=engine)
    rank.start(KEPT="container", GONE="container", A="container")
    assert eventually(lambda: "MULTI=" in rank.log())
    assert "A=script B=script-seen KEPT=container GONE= LATE=from-script MULTI=$'x\\ny'" in rank.log()
    assert "args:0:" in rank.log(), "the scripts see no arguments"


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "the image has none of the environment scripts"), ("exit 5\n", "ended the shell (exit status 5)")],
)
def test_environment_scripts_that_are_not_there_or_end_the_shell(group, text, words):
    script = group.folder / "set_env.sh"
    if text:
        script.write_text(text)
    rank = group.add(1, env_scripts=[[str(script)]], engine=f"touch {group.folder}/started").start()
    assert eventually(lambda: rank.state().get("exits"))
    assert words in rank.state()["exits"][0]["exit"]
    assert not (group.folder / "started").exists()


def test_secrets_reach_the_engine_alone(group):
    script = group.folder / "set_env.sh"
    script.write_text(f'env > {group.folder}/seen; echo "in the script: $VLLM_API_KEY"\n')
    secret = "correct-horse-battery"
    engine = 'echo "the key is $VLLM_API_KEY."; printf %s "$VLLM_API_KEY" > key; sleep 600'
    rank = group.add(1, env={"VLLM_API_KEY": secret}, env_scripts=[[str(script)]], engine=engine).start()
    assert eventually(lambda: "the key is" in rank.log())
    assert (group.folder / "r0" / "work" / "key").read_text() == secret
    assert secret not in (group.folder / "seen").read_text()
    assert "the key is ***." in rank.log()
    files = [*(group.folder / "r0" / "logs").iterdir(), group.folder / "r0" / "out"]
    for path in files:
        assert secret not in path.read_text() and KEY not in path.read_text()
    for pid in rank.processes():
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret.encode() not in line and KEY.encode() not in line


def test_a_reader_of_the_output_who_is_gone_does_not_stop_the_engine(group):
    rank = group.add(1, engine="for i in $(seq 20000); do echo line number $i of many; done; echo done; sleep 600")
    launch = rank.folder / "launch"
    reader, writer = os.pipe()
    argv = ["python3", str(launch / "rank_guard.py"), str(launch / "rank.json"), "--", "bash", "-c", rank.engine]
    env = {"PATH": os.environ["PATH"], "BAREMETAL_LLM_RUN": str(rank.folder)}
    rank.process = subprocess.Popen(argv, stdout=writer, stderr=writer, env=env)
    os.close(writer)
    assert eventually(lambda: rank.log().endswith("done\n")), "nobody reads the pipe"
    os.close(reader)
    assert rank.end() == 0


def test_a_port_that_is_taken_is_told_and_tried_again(group):
    with socket.create_server(("127.0.0.1", group.port), reuse_port=False):
        head = group.add(2).start()
        group.add(2).start()
        assert eventually(lambda: "cannot listen on 127.0.0.1 port" in head.state().get("why", ""))
    assert group.run(generation=1)


# Devices -------------------------------------------------------------------------------------------------------------


def test_only_eperm_means_that_the_devices_are_gone():
    errors = {"/dev/a": errno.EPERM, "/dev/b": errno.EACCES, "/dev/c": errno.EBUSY, "/dev/d": errno.ENOENT}
    flags = []

    def opener(path, flag):
        flags.append(flag)
        if path in errors:
            raise OSError(errors[path], os.strerror(errors[path]), path)
        return os.open("/dev/null", os.O_RDONLY)

    assert rank_guard.lost_devices([*errors, "/dev/ok"], opener) == ["/dev/a"]
    assert set(flags) == {os.O_RDONLY | os.O_NONBLOCK}


def test_a_container_without_its_devices_ends_for_docker_to_make_it_anew(group):
    lost = f"guard.lost_devices = lambda paths, opener: paths if guard.os.path.exists('{group.folder}/lost') else []"
    rank = group.add(1, probe_devices=["/dev/davinci0"], quick=lost + "\nguard.PROBE_SECONDS = 0.2").start()
    assert group.run(generation=1)
    (group.folder / "lost").touch()
    assert rank.process.wait(60) == 75
    assert rank.processes() == []
    assert rank.state()["state"] == "failed"
    assert rank.state()["why"] == "the container has lost /dev/davinci0; Docker has to make it anew"


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"deployment": None}, "cannot be used: TypeError"),
        ({"rank": 2}, "names rank 2 of 2"),
        ({"hosts": ["a1"]}, "1 hosts"),
        ({"head": "not an address"}, "no address to meet at"),
        ({"port": 70000}, "names port 70000"),
        ({"before": ["ray start"]}, "cannot be used: TypeError"),
        ({"before": [[]]}, "an empty command"),
        ({"before": [[1]]}, "cannot be used: TypeError"),
        ({"secrets": "/no/such"}, "/no/such cannot be read: No such file or directory"),
        ({"secrets": ""}, "is shorter than"),
    ],
)
def test_settings_that_cannot_be_are_told_and_end_the_guard(group, change, words):
    rank = group.add(2, **change)
    rank.start()
    assert rank.process.wait(60) == 78
    assert words in rank.state()["why"] and rank.state()["state"] == "failed"
    assert words in rank.log() and words in rank.out()


@pytest.mark.parametrize("secrets", [{"key": "not hex, hunter2"}, {"key": KEY, "env": {"A": ["hunter2"]}}, {"key": 5}])
def test_broken_secrets_are_not_told(group, secrets):
    rank = group.add(2)
    rank.write("secrets.json", secrets)
    rank.start()
    assert rank.process.wait(60) == 78
    assert "cannot be used" in rank.state()["why"]
    assert "hunter2" not in json.dumps(rank.state()) + rank.log() + rank.out()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_settings_that_are_no_json_object(group, text):
    rank = group.add(1)
    (rank.folder / "launch" / "rank.json").write_text(text)
    rank.start()
    assert rank.process.wait(60) == 78
    assert "is no JSON" in rank.out() and "Traceback" not in rank.out()


@pytest.mark.parametrize("arguments", [[], ["rank.json"], ["rank.json", "--"], ["rank.json", "x", "y"]])
def test_a_command_line_without_engine(arguments, capfd):
    assert rank_guard.main(arguments) == 78
    assert "usage" in capfd.readouterr().out


# Small parts ---------------------------------------------------------------------------------------------------------


def test_the_guard_is_python_3_8_and_needs_nothing_else():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith(("ansible", "."))]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (256, "exit status 1"), (9, "killed by SIGKILL"), (63, "killed by signal 63")],
)
def test_endings_in_words(status, words):
    assert rank_guard.ending(status) == words


def test_the_log_is_rotated(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_guard, "LOG_BYTES", 100)
    path = tmp_path / "engine.log"
    with open(os.devnull, "wb") as echo:
        log = rank_guard.Log(str(path), [], echo.fileno())
        for number in range(80):
            log.feed(b"line %03d 456789\n" % number)
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["engine.log", *(f"engine.log.{number}" for number in range(1, 6))]
    kept = "".join((tmp_path / name).read_text() for name in [*sorted(names[1:], reverse=True), names[0]])
    numbers = [int(found) for found in re.findall(r"line (\d+)", kept)]
    assert numbers == list(range(numbers[0], 80)), "nothing is lost between the files"
    assert all((tmp_path / name).stat().st_size <= 120 for name in names)


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    with open(os.devnull, "wb") as echo:
        log = rank_guard.Log(str(tmp_path / "gone" / "engine.log"), [], echo.fileno())
        log.feed(b"one\ntwo\n")
    assert list(log.tail) == ["one", "two"] and log.size() == 0


def logged(pieces, path, hidden=()):
    path.unlink(missing_ok=True)
    with open(os.devnull, "wb") as echo:
        log = rank_guard.Log(str(path), list(hidden), echo.fileno())
        for piece in pieces:
            log.feed(piece)
        log.flush()
    return path.read_bytes() if path.exists() else b""


def test_progress_bars_long_lines_and_the_tail(tmp_path):
    path = tmp_path / "engine.log"
    assert logged([b"0%\r50%\r100%\r\n", b"\n \nend"], path) == b"0%\n50%\n100%\nend\n"
    long = logged([b"x" * 200_000], path)
    assert long.count(b"x") == 200_000 and max(map(len, long.split(b"\n"))) == rank_guard.PART_BYTES
    masked = logged([b"a hunter22hunter22 b\n", b"p hun", b"ter22 short\n"], path, ["hunter22", "short"])
    assert masked == b"a ****** b\np *** short\n"


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_the_log_does_not_depend_on_how_the_output_comes(tmp_path, pieces):
    whole = logged([b"".join(pieces)], tmp_path / "one")
    assert logged(pieces, tmp_path / "two") == whole
