# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The emulators as programs: what they refuse, what they write down, and each fault that a state can give them."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from ansible_collections.baremetal.llm.tests.testbed import states

QUESTIONS = {"npu-smi": ["info"], "hccn_tool": ["-i", "0", "-link", "-g"], "nvidia-smi": ["-L"]}
TOOLS = sorted(QUESTIONS)


def both(**faults) -> dict:
    """Return a host with Ascend chips and NVIDIA GPUs at once, so that every tool has something to say."""
    return {
        "ascend": states.load("a2_910b4_1")["ascend"],
        "nvidia": states.load("h100x8")["nvidia"],
        "faults": {tool.replace("-", "_"): fault for tool, fault in faults.items()},
    }


@pytest.mark.parametrize("tool", TOOLS)
def test_a_question_is_answered_and_nothing_is_written_down(run, tell, tool):
    path = tell(both())
    done = run(tool, *QUESTIONS[tool])
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout
    assert [entry.name for entry in path.parent.iterdir()] == ["state.json"]


CHANGES = [
    ("npu-smi", "set -t reset -i 0 -c 0"),
    ("npu-smi", "set -t power-limit -i 0 -c 0 -d 300"),
    ("npu-smi", "upgrade -t mcu -i 0 -f /tmp/file"),
    ("npu-smi", "clear -t ecc-info -i 0 -c 0"),
    ("hccn_tool", "-i 0 -tls -s enable 0"),
    ("hccn_tool", "-i 0 -ip -s address 10.0.0.1 netmask 255.255.255.0"),
    ("hccn_tool", "-i 0 -cfg recovery"),
    ("hccn_tool", "-i 0 -link -g -s"),
    ("nvidia-smi", "-r"),
    ("nvidia-smi", "--gpu-reset -i 0"),
    ("nvidia-smi", "-mig 1"),
    ("nvidia-smi", "-pm 1"),
    ("nvidia-smi", "-pl 300"),
    ("nvidia-smi", "-i 0 --power-limit=300"),
    ("nvidia-smi", "mig -cgi 19"),
    ("nvidia-smi", "drain -p 0000:07:00.0 -m 1"),
    ("nvidia-smi", "topo -m2"),
]


@pytest.mark.parametrize(("tool", "arguments"), CHANGES)
def test_a_change_is_refused_and_written_down(run, tell, tool, arguments):
    path = tell(both())
    done = run(tool, *arguments.split())
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"refused" in done.stderr
    name = tool.replace("-", "_")
    assert path.with_name("state.json.changes").read_text(encoding="utf-8") == f"{name} {arguments}\n"


WRONG = [
    ("npu-smi", "info -t nothing -i 0", "Error parameter of -t"),
    ("npu-smi", "info -t board -i 9", "Invalid card id."),
    ("npu-smi", "info -t board -i 0 -c 1", "Invalid chip id."),
    ("npu-smi", "info -t board", "Invalid card id."),
    ("npu-smi", "info watch -i 0", "Command or option is not found."),
    ("npu-smi", "", "Command or option is not found."),
    ("hccn_tool", "-i 9 -link -g", "The device is not exist!"),
    ("hccn_tool", "-i 0 -nothing -g", "Cmd format error"),
    ("hccn_tool", "-i 0 -link -g more", "Cmd format error"),
    ("hccn_tool", "-i 0 -ping -g pkt 3", "Cmd format error"),
    ("hccn_tool", "-i 0 -vnic -g", "The command is not supported on this product."),
    ("hccn_tool", "-i 0 -hccs_ping -g address 10.0.0.1", "The command is not supported on this product."),
    ("nvidia-smi", "--query-gpu=index,nothing --format=csv", 'Field "nothing" is not a valid field to query.'),
    ("nvidia-smi", "--query-gpu=index", "Invalid combination of input arguments."),
    ("nvidia-smi", "--query-gpu=index --format=csv,colour", "Invalid combination of input arguments."),
    ("nvidia-smi", "-x", "Invalid combination of input arguments."),
    ("nvidia-smi", "-q word", "Invalid combination of input arguments."),
    ("nvidia-smi", "-L -i 99", "No devices were found"),
]


@pytest.mark.parametrize(("tool", "arguments", "answer"), WRONG)
def test_a_wrong_question_gets_the_tools_own_error(say, tool, arguments, answer):
    said = say(tool, both(), *arguments.split())
    assert said.code != 0
    assert said.stdout.startswith(answer) or answer in said.stdout.splitlines()


def test_fields_that_a_driver_does_not_have_yet(say):
    state = both()
    state["nvidia"]["driver_version"] = "525.60.13"
    for field in ("fabric.state", "gpu_recovery_action"):
        said = say("nvidia-smi", state, f"--query-gpu={field}", "--format=csv")
        assert said.stdout == f'Field "{field}" is not a valid field to query.\n\n'


def test_network_tool_wants_root_and_a_product_with_a_network(run, tell):
    tell(both())
    done = run("hccn_tool", *QUESTIONS["hccn_tool"], LLM_TESTBED_UID="1000")
    assert done.stdout == b"permission denied: pls check this cmd run permission.\n"
    assert done.returncode != 0
    tell(states.load("duo_310p3"))
    assert run("hccn_tool", *QUESTIONS["hccn_tool"]).stdout == b"The command is not supported on this product.\n"


def test_host_without_the_hardware(run, tell):
    tell(states.load("bare"))
    assert run("npu-smi", "info").stdout == b"dcmi module initialize failed. ret is -8005\n"
    done = run("nvidia-smi")
    assert (done.returncode, done.stdout[:25]) == (9, b"NVIDIA-SMI has failed bec")


@pytest.mark.parametrize("content", ["", "[]", '{"ascend": {"layout": "910C"}}', '{"colour": "red"}'])
@pytest.mark.parametrize("tool", TOOLS)
def test_bad_state_is_an_error_of_the_testbed(run, tell, tool, content):
    tell({}).write_text(content, encoding="utf-8")
    done = run(tool)
    assert (done.returncode, done.stdout) == (70, b"")
    assert done.stderr.startswith(b"testbed: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("tool", TOOLS)
class TestFaults:
    """Each fault, with each tool."""

    @pytest.fixture
    def good(self, run, tell, tool):
        """What the tool prints without a fault."""
        tell(both())
        return run(tool, *QUESTIONS[tool]).stdout

    @pytest.fixture
    def bad(self, run, tell, tool):
        """Function that gives the tool a fault and asks it."""

        def ask(**fault) -> subprocess.CompletedProcess:
            tell(both(**{tool: fault}))
            return run(tool, *QUESTIONS[tool])

        return ask

    def test_missing(self, bad):
        done = bad(missing=True)
        assert (done.returncode, done.stdout) == (127, b"")

    def test_exit_status_with_good_output(self, bad, good):
        done = bad(exit=3)
        assert (done.returncode, done.stdout) == (3, good)

    def test_other_output_with_good_exit_status(self, bad):
        done = bad(stdout="nothing to see\n", stderr="a warning\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"nothing to see\n", b"a warning\n")

    def test_truncated(self, bad, good):
        assert bad(truncate=10).stdout == good[:10]

    def test_lines_of_a_log_between_the_lines(self, bad, good):
        lines = bad(interleave="DrvMngGetConsoleLogLevel failed. (ret=4)").stdout.splitlines()
        log = b"DrvMngGetConsoleLogLevel failed. (ret=4)"
        assert lines[0] == log
        assert [line for line in lines if line != log] == good.splitlines()

    def test_binary(self, bad):
        with pytest.raises(UnicodeDecodeError):
            bad(binary=True).stdout.decode("utf-8")

    def test_flood(self, bad, good):
        said = bad(flood=3_000_000).stdout
        assert said.startswith(good)
        assert len(said) > 3_000_000

    def test_hang(self, run, tell, tool):
        tell(both(**{tool: {"hang": 3600}}))
        with pytest.raises(subprocess.TimeoutExpired):
            run(tool, *QUESTIONS[tool], timeout=2)

    def test_only_some_calls(self, bad, tool):
        assert bad(exit=3, when="no such argument").returncode == 0
        assert bad(exit=3, when=QUESTIONS[tool][-1]).returncode == 3


FAILURES = [
    ("npu-smi", "dcmi_used", "dcmi model initialized failed, because the device is used. ret is -8020\n"),
    ("hccn_tool", "busy", "hccn_tool is busy, please try again.\n"),
    ("hccn_tool", "permission", "permission denied: pls check this cmd run permission.\n"),
    ("hccn_tool", "unsupported", "The command is not supported on this product.\n"),
    ("nvidia-smi", "no_devices", "No devices were found\n"),
]


@pytest.mark.parametrize(("tool", "failure", "answer"), FAILURES)
def test_named_failures(say, tool, failure, answer):
    said = say(tool, both(), *QUESTIONS[tool], failure=failure)
    assert said.stdout == answer
    assert said.code != 0


def test_a_card_that_vanishes_between_two_calls(run, tell):
    tell(both(**{"npu-smi": {"vanish": {"npu_id": 3, "after_calls": 2}}}))
    counts = [run("npu-smi", "info", "-l").stdout.count(b"NPU ID") for _call in range(4)]
    assert counts == [8, 8, 7, 7]
    assert run("npu-smi", "info", "-t", "board", "-i", "3").stdout.startswith(b"Invalid card id.")


def test_a_gpu_that_vanishes_between_two_calls(run, tell):
    tell(both(**{"nvidia-smi": {"vanish": {"npu_id": 3, "after_calls": 1}, "exit": 6}}))
    first, second = run("nvidia-smi", "-L"), run("nvidia-smi", "-L")
    assert (first.stdout.count(b"GPU "), second.stdout.count(b"GPU ")) == (8, 7)
    assert second.stderr == b"Unable to determine the device handle for GPU3: 0000:61:00.0: Unknown Error\n"
    assert second.returncode == 6


def test_watch_goes_on_until_its_reader_leaves(tell):
    path = tell(both())
    program = states.FOLDER.parent / "emulators" / "npu-smi"
    with subprocess.Popen(
        [program, "info", "watch"],
        env={"LLM_TESTBED_STATE": str(path), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
    ) as process:
        lines = [process.stdout.readline() for _line in range(1 + 2 * 8)]
        process.stdout.close()
        assert process.wait(60) == 0
    assert lines[0].startswith(b"NpuID(Idx)")
    assert lines[1:9] == lines[9:17]


class TestPing:
    """Who answers whom: the fleet's addresses, what the state says of them, and links that are down."""

    def lost(self, say, state: dict, address: str, *more: str, phy_id: int = 0) -> int:
        said = say("hccn_tool", state, "-i", str(phy_id), "-ping", "-g", "address", address, *more).stdout
        return said.count("recv time out seq=")

    def test_two_hosts_know_each_other_and_nobody_else(self, say):
        first = states.host("a2_910b4_1", hostname="a", first_address="10.1.0.10")
        second = states.host("a2_910b4_1", hostname="b", first_address="10.1.1.10")
        one, other = states.fleet([first, second])
        assert self.lost(say, one, "10.1.1.17") == 0
        assert self.lost(say, other, "10.1.0.10") == 0
        assert self.lost(say, one, "10.1.2.10") == 3
        assert self.lost(say, one, "10.1.2.10", "pkt", "5") == 5

    def test_a_link_that_is_down_is_not_reached_and_reaches_nobody(self, say):
        first = states.host("a2_910b4_1", first_address="10.1.0.10")
        first["ascend"]["network"][2]["link"] = "DOWN"
        second = states.host("a2_910b4_1", first_address="10.1.1.10")
        one, other = states.fleet([first, second])
        assert self.lost(say, other, "10.1.0.12") == 3
        assert self.lost(say, one, "10.1.1.10", phy_id=2) == 3
        # Some machines say DOWN and answer all the same.
        one["ascend"]["network"][2]["pings"] = True
        assert self.lost(say, one, "10.1.1.10", phy_id=2) == 0

    def test_an_address_that_one_host_does_not_reach(self, say):
        state = states.host("a2_910b4_1", ascend={"pings": {"unreachable": ["10.1.1.10"]}})
        assert self.lost(say, state, "10.1.1.10") == 3
        assert self.lost(say, state, "10.1.1.11") == 0

    def test_the_dies_of_a3_ping_by_their_own_command(self, say):
        state = states.fleet([states.load("a3")])[0]
        asked = ("-i", "3", "-hccs_ping", "-g", "address", "192.168.0.12")
        assert say("hccn_tool", state, *asked).stdout.endswith("This pkt ping success\n")
        assert "vnic ipaddr: 192.168.0.13\n" in say("hccn_tool", state, "-i", "3", "-vnic", "-g").stdout


@pytest.mark.parametrize("tool", TOOLS)
def test_an_emulator_needs_nothing_but_python_itself(tell, tool):
    # Neither site-packages nor anything from the environment.
    program = [sys.executable, "-I", "-S", str(states.FOLDER.parent / "emulators" / tool), *QUESTIONS[tool]]
    settings = {"LLM_TESTBED_STATE": str(tell(both())), "LLM_TESTBED_UID": "0"}
    done = subprocess.run(program, env=settings, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_clock_of_a_state_without_one_is_the_real_one(say):
    said = say("nvidia-smi", both()).stdout.splitlines()[0].split()
    assert said[-1] in (str(time.localtime().tm_year), str(time.localtime().tm_year + 1))
