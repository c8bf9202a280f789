# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import verdicts
from ansible_collections.baremetal.llm.plugins.module_utils.planning import document
from hypothesis import given
from hypothesis import strategies as st

GIB = 1024**3
STATE = "/var/lib/baremetal-llm"
WEIGHTS = f"{STATE}/weights/deepseek-v3-tiny"
SOURCE = "/collection/models/deepseek-v3-tiny"
NEED = 4_580_742_824  # the golden plan's memory
DISK = 2_652_000_000 + 7_141_020


@pytest.fixture
def plan(make_plan, make_host):
    """The plan of the demo model for the host 'laptop'."""
    return make_plan(make_host())


@pytest.fixture
def verdict(plan):
    """Function that returns the verdicts of one check as (level, wanted, found, remedy)."""

    def judge(facts: dict, check: str) -> list[tuple]:
        judged = verdicts.judge(plan, {"laptop": facts})
        assert all(entry["host"] == "laptop" for entry in judged)
        return [
            (entry["level"], entry["wanted"], entry["found"], entry["remedy"])
            for entry in judged
            if entry["check"] == check
        ]

    return judge


@pytest.fixture
def level(verdict):
    """Function that returns the level of the only verdict of one check."""

    def judge(facts: dict, check: str) -> str:
        ((found, wanted, what, remedy),) = verdict(facts, check)
        assert wanted and what and remedy
        return found

    return judge


def test_a_host_that_fits_passes_in_the_order_of_the_plan(plan, facts):
    judged = verdicts.judge(plan, {"laptop": facts})
    assert {entry["level"] for entry in judged} == {"ok"}
    assert verdicts.passed(judged)
    assert [entry["check"] for entry in judged] == [requirement["check"] for requirement in plan["requirements"]]


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        ({"libc": "glibc 2.28"}, "ok"),
        ({"libc": "glibc 2.27"}, "fail"),
        ({"libc": "glibc 2.4"}, "fail"),
        ({"libc": "glibc 3.0"}, "ok"),
        ({"libc": ""}, "fail"),
        ({"libc": "musl 1.2"}, "fail"),
        ({"machine": "aarch64"}, "fail"),
    ],
)
def test_machine(level, facts, kernel, wanted):
    facts["kernel"].update(kernel)
    assert level(facts, "machine") == wanted


@pytest.mark.parametrize(
    ("flags", "wanted"), [(["avx2"], "ok"), (["avx512f"], "ok"), (["avx"], "fail"), ([], "fail"), (["avx2x"], "fail")]
)
def test_cpu_flags(level, facts, flags, wanted):
    facts["cpu"]["flags"] = flags
    assert level(facts, "cpu_flags") == wanted


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, "ok"),
        ({"version": "3.12.1"}, "fail"),
        ({"version": "3.1.11"}, "fail"),
        ({"makes_venv": False}, "fail"),
        ({"implementation": "PyPy"}, "fail"),
    ],
)
def test_python(verdict, facts, change, wanted):
    facts["pythons"][0].update(change)
    ((level, _wanted, found, _remedy),) = verdict(facts, "python")
    assert level == wanted
    assert facts["pythons"][0]["version"] in found  # told also when it does not do
    assert ("without venv" in found) == (change.get("makes_venv") is False)


def test_no_python_at_all(verdict, facts):
    facts["pythons"] = []
    assert verdict(facts, "python")[0][0] == "fail"


@pytest.mark.parametrize(("available", "wanted"), [(NEED, "ok"), (NEED - 1, "fail"), (0, "fail")])
def test_memory_to_the_byte(level, facts, available, wanted):
    facts["memory"]["available"] = available
    assert level(facts, "memory") == wanted


def test_memory_that_the_own_engine_holds_counts_as_free(verdict, facts):
    facts["memory"]["available"] = NEED - 3 * GIB
    facts["service"]["memory_bytes"] = 3 * GIB
    ((level, _wanted, found, _remedy),) = verdict(facts, "memory")
    assert level == "ok"
    assert "3.2 GB held by this engine" in found
    facts["service"]["memory_bytes"] -= 1
    assert verdict(facts, "memory")[0][0] == "fail"


def test_memory_tells_all_its_parts(verdict, facts):
    facts["memory"].update(total=2 * GIB, available=1 * GIB)
    assert verdict(facts, "memory")[0][:3] == (
        "fail",
        "4.6 GB available (weights 7.0 MB, KV cache 1.1 GB, engine 3.5 GB)",
        "1.1 GB of 2.1 GB",
    )


def test_r1_in_bf16_does_not_fit_a_laptop(make_host, facts):
    facts["paths"] = {
        path: dict(facts["paths"][STATE], bytes=0)
        for path in (STATE, f"{STATE}/venvs", f"{STATE}/weights/deepseek-r1-bf16")
    }
    facts["paths"]["/mnt/r1"] = dict(facts["paths"][STATE], kind="folder", bytes=1_342_000_000_000)
    host = make_host(facts=facts, llm_model="deepseek-r1-bf16", llm_weights_source="/mnt/r1")
    judged = verdicts.judge(document.plan([host], "/collection", None), {"laptop": facts})
    by_check = {entry["check"]: entry for entry in judged}
    assert by_check["memory"]["level"] == "fail"
    assert "weights 1.34 TB, KV cache 19.3 GB" in by_check["memory"]["wanted"]
    assert by_check["memory"]["found"] == "12.9 GB of 17.2 GB"
    assert by_check["disk"]["level"] == "fail"
    assert "1.37 TB free" in by_check["disk"]["wanted"]
    assert by_check["weights_source"]["level"] == "ok"
    assert not verdicts.passed(judged)


@pytest.mark.parametrize(("up", "wanted"), [(True, "ok"), (False, "fail")])
def test_interface(level, facts, up, wanted):
    facts["interfaces"][0]["up"] = up
    assert level(facts, "interface") == wanted


def test_an_interface_that_has_gone(verdict, facts):
    facts["interfaces"] = facts["interfaces"][1:]
    assert verdict(facts, "interface")[0][:3] == ("fail", "eth0 up", "no such interface")


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("192.0.2.10", "fail"),
        ("0.0.0.0", "fail"),
        ("::", "fail"),
        ("::ffff:192.0.2.10", "fail"),
        ("127.0.0.1", "ok"),
        ("192.0.2.100", "ok"),
        ("::1", "ok"),
    ],
)
def test_a_port_that_somebody_holds(verdict, facts, address, wanted):
    facts["ports_in_use"] = [{"port": 8000, "address": address, "pid": 99, "process": "nginx"}]
    ((level, _wanted, found, _remedy),) = verdict(facts, "port")
    assert level == wanted
    assert ("nginx (pid 99)" in found) == (wanted == "fail")


def test_another_port_does_not_matter(level, facts):
    facts["ports_in_use"] = [{"port": 8001, "address": "0.0.0.0", "pid": 99, "process": "nginx"}]
    assert level(facts, "port") == "ok"


def test_the_port_that_the_own_engine_holds_counts_as_free(level, facts):
    facts["ports_in_use"] = [{"port": 8000, "address": "192.0.2.10", "pid": 99, "process": "python"}]
    facts["service"].update(running=True, port=8000, pids=[98, 99])
    assert level(facts, "port") == "ok"
    facts["ports_in_use"].append({"port": 8000, "address": "0.0.0.0", "pid": 100, "process": "nginx"})
    assert level(facts, "port") == "fail"


def test_a_port_held_by_a_process_that_this_user_may_not_see(verdict, facts):
    facts["ports_in_use"] = [{"port": 8000, "address": "0.0.0.0", "pid": None, "process": ""}]
    level, _wanted, found, _remedy = verdict(facts, "port")[0]
    assert (level, found) == ("fail", "taken by a process of another user")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"kind": "folder", "bytes": 7_001_000}, "ok"),
        ({"kind": "folder", "bytes": 7_000_999}, "fail"),
        ({"kind": "file", "bytes": 0}, "fail"),
        ({"kind": "nothing", "bytes": 0}, "fail"),
    ],
)
def test_weights_source(level, facts, found, wanted):
    facts["paths"][SOURCE].update(found)
    assert level(facts, "weights_source") == wanted


def test_a_source_that_is_gone_is_no_matter_once_its_weights_are_installed(verdict, facts):
    facts["paths"][SOURCE].update({"kind": "nothing", "bytes": 0})
    assert verdict(facts, "weights_source")[0][0] == "fail"
    facts["paths"][WEIGHTS]["bytes"] = 7_001_000
    assert verdict(facts, "weights_source")[0][0] == "ok"


@pytest.mark.parametrize(("there", "wanted"), [({"libnuma.so.1": True}, "ok"), ({"libnuma.so.1": False}, "fail")])
def test_libraries(verdict, facts, there, wanted):
    facts["libraries"] = there
    level, _wanted, _found, remedy = verdict(facts, "libraries")[0]
    assert level == wanted
    assert "libnuma1" in remedy


def test_a_weights_source_that_nobody_looked_at(level, facts):
    del facts["paths"][SOURCE]
    assert level(facts, "weights_source") == "fail"


def test_a_model_without_a_source(make_host, facts):
    plan = document.plan([make_host(facts=facts, llm_model="deepseek-r1-bf16")], "/collection", None)
    found = {entry["check"]: entry for entry in verdicts.judge(plan, {"laptop": facts})}["weights_source"]
    assert (found["level"], found["found"]) == ("fail", "llm_weights_source is not set")


@pytest.mark.parametrize(("free", "wanted"), [(DISK, "ok"), (DISK - 1, "fail")])
def test_parts_on_one_file_system_share_its_space(verdict, facts, free, wanted):
    for path in (f"{STATE}/venvs", WEIGHTS):
        facts["paths"][path]["free"] = free
    ((level, what, _found, _remedy),) = verdict(facts, "disk")
    assert level == wanted
    assert what == f"2.7 GB free for engine ({STATE}/venvs) and weights ({WEIGHTS})"


def test_parts_on_two_file_systems_are_judged_apart(verdict, facts):
    facts["paths"][f"{STATE}/venvs"].update(device=1, free=DISK)
    facts["paths"][WEIGHTS].update(device=2, free=7_141_019)
    assert [entry[0] for entry in verdict(facts, "disk")] == ["ok", "fail"]
    facts["paths"][WEIGHTS]["free"] += 1
    assert [entry[0] for entry in verdict(facts, "disk")] == ["ok", "ok"]


def test_what_is_there_already_needs_no_space(level, facts):
    for path, held in ((f"{STATE}/venvs", 2_652_000_000), (WEIGHTS, 10**12)):
        facts["paths"][path].update(kind="folder", bytes=held, free=0)
    assert level(facts, "disk") == "ok"
    facts["paths"][f"{STATE}/venvs"]["bytes"] -= 1
    assert level(facts, "disk") == "fail"


@pytest.mark.parametrize("path", [f"{STATE}/venvs", WEIGHTS])
def test_space_that_nobody_looked_at_is_no_pass(level, facts, path):
    del facts["paths"][path]
    assert level(facts, "disk") == "fail"


@pytest.mark.parametrize("path", [STATE, WEIGHTS])
@pytest.mark.parametrize("how", ["closed", "not looked at"])
def test_folders_that_may_not_be_written(verdict, facts, path, how):
    if how == "closed":
        facts["paths"][path]["writable"] = False
    else:
        del facts["paths"][path]
    level, _wanted, found, remedy = verdict(facts, "writable")[0]
    assert (level, found) == ("fail", f"not writable: {path}")
    assert "become" in remedy


# Facts that are not as they should be -----------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [{}, None, {"failed": True}])
def test_a_host_without_facts_is_one_fault_and_not_one_a_check(plan, empty):
    ((level, remedy),) = [(entry["level"], entry["remedy"]) for entry in verdicts.judge(plan, {"laptop": empty})]
    assert (level, remedy) == ("fail", "make the host reachable: ansible -m ping laptop")
    assert len(verdicts.judge(plan, {})) == 1


def test_why_a_host_did_not_answer_is_told(plan):
    judged = verdicts.judge(plan, {"laptop": {"unreachable": True, "msg": "connection timed out"}})
    assert [(entry["check"], entry["found"]) for entry in judged] == [("facts", "connection timed out")]


def test_problems_of_discovery_are_warnings(plan, facts):
    facts["problems"] = ["/proc/x cannot be read", "no clock"]
    judged = verdicts.judge(plan, {"laptop": facts})
    assert [(entry["level"], entry["found"]) for entry in judged if entry["check"] == "discovery"] == [
        ("warn", "/proc/x cannot be read"),
        ("warn", "no clock"),
    ]
    assert verdicts.passed(judged)


def test_a_plan_of_another_version_fails_and_says_so(plan, facts):
    plan["requirements"].append({"host": "laptop", "check": "of_the_future"})
    last = verdicts.judge(plan, {"laptop": facts})[-1]
    assert (last["check"], last["level"]) == ("of_the_future", "fail")
    assert last["remedy"]


def test_facts_of_a_service_that_was_never_asked(plan, facts):
    del facts["service"]
    assert verdicts.passed(verdicts.judge(plan, {"laptop": facts}))


def _branches(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [branch for key, inner in value.items() for branch in [(*path, key), *_branches(inner, (*path, key))]]
    if isinstance(value, list):
        return [branch for key, inner in enumerate(value) for branch in [(*path, key), *_branches(inner, (*path, key))]]
    return []


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(data=st.data())
def test_damaged_facts_never_raise_and_never_lose_a_check(plan, facts, data):
    damaged = copy.deepcopy(facts)
    for _number in range(data.draw(st.integers(1, 3))):
        branches = _branches(damaged)
        if not branches:
            break
        path = data.draw(st.sampled_from(branches))
        holder = damaged
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            del holder[path[-1]]
        else:
            holder[path[-1]] = data.draw(JUNK)
    judged = verdicts.judge(plan, {"laptop": damaged})
    assert {requirement["check"] for requirement in plan["requirements"]} <= {entry["check"] for entry in judged}
    for entry in judged:
        assert entry["level"] in ("ok", "warn", "fail")
        assert all(isinstance(value, str) for value in entry.values())
        assert entry["remedy"]
    json.dumps(judged)
    verdicts.table(judged)


@given(facts=JUNK)
def test_anything_in_place_of_facts_fails(plan, facts):
    judged = verdicts.judge(plan, {"laptop": facts})
    assert not verdicts.passed(judged)


# For a person -----------------------------------------------------------------------------------------------------


def test_the_table_has_the_worst_first_and_remedies_for_what_is_not_ok(plan, facts):
    facts["problems"] = ["no clock"]
    facts["memory"]["available"] = 0
    lines = verdicts.table(verdicts.judge(plan, {"laptop": facts})).splitlines()
    assert [line.split()[0] for line in lines] == ["fail", "warn", "ok"]
    assert lines[0].startswith("fail laptop memory: wanted 4.6 GB available")
    assert ["; remedy: " in line for line in lines] == [True, True, False]
    well = len(plan["requirements"]) - 1
    assert lines[2].startswith(f"ok   {well} of {well + 2} on laptop: machine, cpu_flags, ")


def test_nothing_to_judge():
    assert verdicts.judge({"requirements": []}, {}) == []
    assert verdicts.passed([])
    assert verdicts.table([]) == ""


def test_judging_changes_neither_plan_nor_facts(plan, facts):
    before = copy.deepcopy((plan, facts))
    verdicts.judge(plan, {"laptop": facts})
    assert (plan, facts) == before
