# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import settings
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "0123456789abcdef" * 4
NAME = (
    [("r1", "r1"), ("deepseek-v3-tiny", "deepseek-v3-tiny"), ("0.a_b", "0.a_b"), ("a" * 63, "a" * 63)],
    ["", "R1", "-a", ".a", "a b", "a/b", "../a", "a\n", "a" * 64, 5, True, ["r1"], {}],
)
TEXT = (
    [("0.32.0", "0.32.0"), ("eth0", "eth0"), ("https://x/simple", "https://x/simple")],
    ["", "  ", "a\nb", "a\x00", "a\x1b[0m", 5, 0.32, True, [], {}],
)
PATH = (
    [("/data", "/data"), ("/data/", "/data"), ("/data/..hidden/x", "/data/..hidden/x"), ("/", "/"), ("//", "/")],
    ["", "data", "./data", "~/data", "/data/../etc", "/..", "/data/..", "/a\nb", 5, type(None), ["/data"]],
)


def whole(low, high):
    good = [(low, low), (high, high), (str(low), low), (str(high), high)]
    bad = [
        low - 1,
        high + 1,
        str(high + 1),
        "",
        " 1",
        "1 ",
        "1\n",
        "1.5",
        "1e3",
        "0x10",
        "-1",
        "+1",
        1.0,
        True,
        [1],
        {},
    ]
    return good, bad


YES_NO = (
    [(True, True), (False, False), ("true", True), ("False", False), ("yes", True), ("NO", False)],
    ["", "1", 1, 0, "on", "maybe", [], {}],
)
SECRET = ([("hf_x", "given")], ["", "two words", "line\nbreak", 5, ["x"]])

CASES = {
    "llm_deployment": NAME,
    "llm_model": NAME,
    "llm_engine": NAME,
    "llm_engine_version": TEXT,
    "llm_image": TEXT,
    "llm_interface": TEXT,
    "llm_engine_index": TEXT,
    "llm_engine_wheel": TEXT,
    "llm_runtime": ([("docker", "docker"), ("venv", "venv")], ["", "Docker", "podman", True, ["venv"], {}]),
    "llm_weights_source": (
        [
            *PATH[0],
            ("hf://deepseek-ai/DeepSeek-R1@main", "hf://deepseek-ai/DeepSeek-R1@main"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("https://mirror.example/r1/", "https://mirror.example/r1/"),
        ],
        [
            "",
            "data/w",
            "/a/../b",
            "ftp://host/x",
            "file:///data/w",
            "https://",
            "https://user:secret@host/x",
            "s3://key@bucket/x",
            5,
        ],
    ),
    "llm_weights_endpoint": (
        [("https://hf-mirror.example", "https://hf-mirror.example"), ("http://[::1]:80/x", "http://[::1]:80/x")],
        ["", "hf-mirror.example", "ftp://x", "https://user:pw@host", "https:///x", 5],
    ),
    "llm_weights_token": SECRET,
    "llm_weights_access_key": SECRET,
    "llm_weights_secret_key": SECRET,
    "llm_weights_region": TEXT,
    "llm_weights_ca_file": PATH,
    "llm_weights_client": ([("builtin", "builtin"), ("library", "library")], ["", "hf", True]),
    "llm_weights_client_python": PATH,
    "llm_weights_seed": TEXT,
    "llm_weights_interface": TEXT,
    "llm_weights_port": whole(1024, 65000),
    "llm_weights_processes": whole(1, 64),
    "llm_weights_bandwidth": whole(0, 1_000_000),
    "llm_weights_engine": ([("auto", "auto"), ("rsync", "rsync")], ["", "aria2", True]),
    "llm_weights_wheels": PATH,
    "llm_weights_owner": (
        [("mind", "mind"), ("1000:HwHiAiUser", "1000:HwHiAiUser")],
        ["", "a b", "a:b:c", ":x", "x:", 1000, "root;id"],
    ),
    "llm_weights_deep": YES_NO,
    "llm_weights_keep": whole(0, 100),
    "llm_image_archive": PATH,
    "llm_discover": YES_NO,
    "llm_accelerator": TEXT,
    "llm_port_offset": whole(0, 20000),
    "llm_accelerator_mib": whole(1024, 1_000_000),
    "llm_ulimits": (
        [({"memlock": -1}, {"memlock": -1}), ('{"nofile": "20000"}', {"nofile": 20000}), ({}, {})],
        ["memlock", "", [], 5, {"memlock": "much"}, {"memlock": 1.5}, {"mem lock": 1}, {"memlock": -2}, "{"],
    ),
    "llm_comm_env": (
        [({"NCCL_DEBUG": "INFO"}, {"NCCL_DEBUG": "INFO"}), ('{"HCCL_BUFFSIZE": "200"}', {"HCCL_BUFFSIZE": "200"})],
        ["NCCL_DEBUG=INFO", [], 5, {"A B": "1"}, {"A": {}}, {"A": True}, {"A": "x\ny"}, "{"],
    ),
    "llm_rack": TEXT,
    "llm_weights_lock": PATH,
    "llm_weights_path": PATH,
    "llm_report_dir": PATH,
    "llm_state_dir": PATH,
    "llm_engine_python": PATH,
    "llm_engine_wheelhouse": PATH,
    "llm_accelerators": whole(1, 64),
    "llm_api_port": whole(1, 65535),
    "llm_api_keys": whole(0, 1000),
    "llm_max_model_len": whole(1, 10_000_000),
    "llm_max_num_seqs": whole(1, 4096),
    "llm_start_timeout": whole(10, 86400),
    "llm_engine_wheel_sha256": (
        [(DIGEST, DIGEST), (DIGEST.upper(), DIGEST)],
        ["", DIGEST[1:], DIGEST + "0", "g" * 64, DIGEST + "\n", 5, type(None)],
    ),
    "llm_remove": YES_NO,
    "llm_engine_args": (
        [
            ([], []),
            (["--max-num-seqs", "4"], ["--max-num-seqs", "4"]),
            (["--seed", 7, 0.5], ["--seed", "7", "0.5"]),
            ("--seed 7 --chat-template 'a b'", ["--seed", "7", "--chat-template", "a b"]),
            ("--seed 7\n--swap-space=1\n", ["--seed", "7", "--swap-space=1"]),
            ("", []),
        ],
        [{}, 5, [[]], [None], [{"--seed": 7}], [""], ["a\nb"], "--unclosed 'quote"],
    ),
    "llm_parallel": (
        [
            ({}, {}),
            ({"tensor_parallel": 8}, {"tensor_parallel": 8}),
            (
                {"tensor_parallel": "8", "pipeline_parallel": "2", "data_parallel": 1},
                {"tensor_parallel": 8, "pipeline_parallel": 2, "data_parallel": 1},
            ),
            ('{"tensor_parallel": "8"}', {"tensor_parallel": 8}),
        ],
        [
            [],
            5,
            "",
            "8",
            "tensor_parallel=8",
            "[" * 10_000,
            {"tp": 8},
            {"tensor_parallel": 0},
            {"tensor_parallel": 1025},
            {"tensor_parallel": True},
            {"tensor_parallel": None},
            {5: 5},
        ],
    ),
}


def test_every_variable_has_cases():
    assert set(CASES) == set(settings.SETTINGS)


@pytest.mark.parametrize(
    ("name", "value", "wanted"), [(name, *case) for name, (good, _bad) in CASES.items() for case in good]
)
def test_good_values(name, value, wanted):
    found = settings.convert("node1", {name: value})
    assert found == {name: wanted}
    assert type(found[name]) is type(wanted)
    assert settings.convert("node1", found) == found


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_good, bad) in CASES.items() for value in bad])
def test_bad_values_are_told_with_host_name_and_form(name, value):
    with pytest.raises(LlmError) as caught:
        settings.convert("node1", {name: value})
    assert caught.value.summary == f"node1: {name} has the wrong form"
    assert caught.value.wanted and caught.value.found
    assert name in caught.value.remedy


def test_none_is_as_not_set():
    assert settings.convert("node1", {"llm_model": None, "llm_engine_args": None}) == {}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("llm_modle", "llm_model"),
        ("llm_max_model_length", "llm_max_model_len"),
        ("llm_apikeys", "llm_api_keys"),
        ("llm_weight_path", "llm_weights_path"),
    ],
)
def test_an_unknown_name_gets_the_near_one(name, near):
    with pytest.raises(LlmError) as caught:
        settings.convert("node1", {name: "x"})
    assert caught.value.wanted == near
    assert caught.value.remedy == f"rename it to {near}"


def test_an_unknown_name_near_to_none_gets_them_all():
    with pytest.raises(LlmError) as caught:
        settings.convert("node1", {"llm_qqqqqqqqqqqqqqqqqqqqqq": "x"})
    assert all(name in caught.value.wanted for name in settings.SETTINGS)
    assert "remove it" in caught.value.remedy


def test_api_keys_that_reach_this_point_are_not_shown():
    with pytest.raises(LlmError) as caught:
        settings.convert("node1", {"llm_api_keys": ["sk-secret"]})
    assert "sk-secret" not in str(caught.value)


def test_a_long_value_is_shortened():
    with pytest.raises(LlmError) as caught:
        settings.convert("node1", {"llm_model": "x" * 10_000})
    assert len(caught.value.found) <= 120


@given(
    st.dictionaries(
        st.sampled_from(sorted(settings.SETTINGS)) | st.text(max_size=5).map("llm_".__add__),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_any_values_are_converted_or_refused(values):
    try:
        found = settings.convert("node1", values)
    except LlmError as error:
        assert error.remedy
        return
    assert settings.convert("node1", found) == found
    json.dumps(found)


# Over all hosts ---------------------------------------------------------------------------------------------------


def test_what_all_hosts_agree_on_holds_for_the_deployment():
    one = {"llm_model": "m", "llm_api_port": 8000, "llm_interface": "eth0", "llm_parallel": {"tensor_parallel": 2}}
    assert settings.of_deployment({"a": one, "b": dict(one, llm_interface="eth1")}) == {
        "llm_model": "m",
        "llm_api_port": 8000,
        "llm_parallel": {"tensor_parallel": 2},
    }


@pytest.mark.parametrize("name", sorted(name for name, entry in settings.SETTINGS.items() if entry[1] == "deployment"))
@pytest.mark.parametrize("other", ["set", "not set"])
def test_what_hosts_differ_in_is_told_with_both(name, other):
    value = settings.convert("a", {name: CASES[name][0][-1][0]})[name]
    second = {name: "different"} if other == "set" else {}
    with pytest.raises(LlmError, match=f"{name} differs between a and b") as caught:
        settings.of_deployment({"a": {name: value}, "b": second})
    assert repr(value) in caught.value.found


@pytest.mark.parametrize("name", sorted(name for name, entry in settings.SETTINGS.items() if entry[1] == "host"))
def test_what_may_differ_is_no_value_of_the_deployment(name):
    assert settings.of_deployment({"a": {name: "/x"}, "b": {name: "/y"}, "c": {}}) == {}


def test_a_difference_between_the_second_and_third_host_is_found():
    with pytest.raises(LlmError, match="between b and c"):
        settings.of_deployment({name: {"llm_model": model} for name, model in (("a", "m"), ("b", "m"), ("c", "n"))})


def test_no_hosts():
    assert settings.of_deployment({}) == {}
