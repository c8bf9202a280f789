# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables of the options that engines take, as tests/flags/ has them, and a parser as strict as the engines' own.

It is stricter where a program that renders commands made a mistake: the same option twice (the engines take the last),
a positional behind an option, the end of options (``--``), and a value glued to a short option (``-tp2``).
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parents[1] / "flags"
# vLLM's human_readable_int: digits with a decimal (k, m, g, t) or binary (K, M, G, T) suffix.
SIZE = re.compile(r"-?\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]")
# argparse's own pattern: such words are values where no option looks like one of them.
NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")
# click's BoolParamType.
WORDS_OF_BOOL = ("1", "true", "t", "yes", "y", "on", "0", "false", "f", "no", "n", "off")
# The words in front of an engine's options, and the package whose table is meant.
PROGRAMS = (
    (("vllm", "serve"), "vllm"),
    (("vllm-mindspore", "serve"), "vllm"),
    (("-m", "vllm.entrypoints.openai.api_server"), "vllm"),
    (("-m", "sglang.launch_server"), "sglang"),
    (("ray", "start"), "ray"),
)


class FlagError(ValueError):
    """The command line is not one that the engine takes."""


class Program(NamedTuple):
    """A command taken apart: what it starts (a row of PROGRAMS) and the words behind that."""

    words: tuple
    kind: str
    arguments: list


def program(argv: list[str]) -> Program:
    """Take a rendered command apart; raise FlagError where it starts nothing that a table is for."""
    for words, kind in PROGRAMS:
        for start in (0, 1):
            given = argv[start : start + len(words)]
            if [Path(given[0]).name, *given[1:]] == list(words) if given else False:
                return Program(words, kind, list(argv[start + len(words) :]))
    raise FlagError(f"starts no program that is known: {' '.join(argv[:4])}")


def versions(package: str) -> list[str]:
    """Return the versions of ``package`` that there are tables of, the oldest first."""
    names = [path.stem[len(package) + 1 :] for path in FOLDER.glob(f"{package}-*.json")]
    found = [name for name in names if name[:1].isdigit()]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


@functools.cache
def load(package: str, version: str) -> Table:
    """Return the table of a release; raise FlagError where there is none."""
    path = FOLDER / f"{package}-{version}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FlagError(f"there is no table of {package} {version}: {error}") from error
    if "same_as" not in data:
        return Table(data)
    options = [dict(option) for option in load(*data["same_as"]).options]
    for option in options:
        for name, more in data["choices_added"].items():
            # The plugins add to choices and make none.
            if name in option["names"] and "choices" in option:
                option["choices"] = [*option["choices"], *more]
    return Table({**load(*data["same_as"]).data, **data, "options": options})


class Table:
    """The options of one release: ``data`` as in its file, ``options`` its list of options."""

    def __init__(self, data: dict) -> None:
        self.data = data
        self.options: list[dict] = data["options"]
        self._names = {name: option for option in self.options for name in option["names"]}

    def has(self, name: str) -> bool:
        """True when the release knows the option by exactly this name."""
        return name in self._names

    def parse(self, argv: list[str]) -> dict:
        """Return {destination: value} of what ``argv`` gives; values are converted.

        :param argv: the words behind the program's name
        :raises FlagError: for what the release would not take
        """
        words, found, given = list(argv), {}, set()
        positionals = [option for option in self.options if not option["names"]]
        while words:
            word = words.pop(0)
            if not self._is_option(word):
                if not positionals:
                    raise FlagError(f"unrecognized arguments: {word}")
                found[positionals.pop(0)["dest"]] = word
                continue
            positionals = []
            spelled, joined, value = word.partition("=")
            name, inner = self._name(spelled)
            option = self._names[name]
            if option["dest"] in found and not option.get("repeat") and not (inner and option["dest"] in given):
                raise FlagError(f"argument {name}: given twice")
            values = self._values(option, name, [value] if joined else None, words)
            if inner:
                given.add(option["dest"])
                values = [json.dumps(_merged(found.get(option["dest"]), inner, values[0]))]
            found[option["dest"]] = self._read(option, name, values, found.get(option["dest"]))
        missing = [found_of["names"][0] for found_of in self.options if _is_missing(found_of, found)]
        if missing:
            raise FlagError(f"the following arguments are required: {', '.join(missing)}")
        return found

    def _name(self, spelled: str) -> tuple[str, list[str]]:
        """Return the option's full name, and the keys behind it: vLLM reads ``--x.y 1`` as ``--x '{"y": 1}'``."""
        name, keys = spelled, []
        if self.data["underscores"]:
            name, *keys = spelled.split(".")
            name = name.replace("_", "-") if name.startswith("--") else name
        if name in self._names:
            return name, keys
        candidates = sorted(known for known in self._names if known.startswith(name))
        if not (self.data["abbreviations"] and name.startswith("--") and candidates):
            raise FlagError(f"unrecognized arguments: {spelled}")
        if len(candidates) > 1:
            raise FlagError(f"ambiguous option: {spelled} could match {', '.join(candidates)}")
        return candidates[0], keys

    def _is_option(self, word: str) -> bool:
        if word == "--":
            raise FlagError("-- ends the options")
        return len(word) > 1 and word.startswith("-") and not NEGATIVE.fullmatch(word) and " " not in word.split("=")[0]

    def _values(self, option: dict, name: str, joined: list[str] | None, words: list[str]) -> list[str]:
        """Return an option's values: the one behind its ``=``, else those that follow it, taken from ``words``."""
        count = option["nargs"]
        least, most = {"?": (0, 1), "*": (0, len(words)), "+": (1, len(words))}.get(count, (count, count))
        values = list(joined or [])
        if joined and count == 0:
            raise FlagError(f"argument {name}: ignored explicit argument {joined[0]!r}")
        while joined is None and words and len(values) < most and not self._is_option(words[0]):
            values.append(words.pop(0))
        if len(values) < least:
            raise FlagError(f"argument {name}: expected {'at least one' if count == '+' else least} argument(s)")
        return values

    def _read(self, option: dict, name: str, values: list[str], before: object) -> object:
        if option["nargs"] == 0:
            return name not in option.get("negative", [])
        converted = [_convert(option, name, value) for value in values]
        if option["nargs"] in (1, "?"):
            converted = converted[0] if converted else None
        return [*(before or []), converted] if option.get("repeat") else converted


def _is_missing(option: dict, found: dict) -> bool:
    return bool(option.get("required")) and option["dest"] not in found


def _merged(before: object, keys: list[str], word: str) -> dict:
    """Return ``before`` with the value of ``--x.key.key`` in it; the value is JSON, or else text."""
    try:
        value = json.loads(word)
    except ValueError:
        value = word
    whole = dict(before) if isinstance(before, dict) else {}
    if len(keys) > 1:
        value = _merged(whole.get(keys[0]), keys[1:], word)
    elif keys[0] in whole:
        raise FlagError(f"{keys[0]} is given twice")
    return {**whole, keys[0]: value}


def _convert(option: dict, name: str, word: str) -> object:
    if option.get("none") and word in ("", "None"):
        return None
    try:
        value = _TYPES[option["type"]](word)
    except ValueError as error:
        raise FlagError(f"argument {name}: invalid {option['type']} value: {word!r}") from error
    if "choices" in option and value not in option["choices"]:
        raise FlagError(f"argument {name}: invalid choice: {word!r} (choose from {option['choices']})")
    if "keys" in option:
        _known_keys(option, name, value)
    return value


def _known_keys(option: dict, name: str, value: object) -> None:
    if not isinstance(value, dict):
        raise FlagError(f"argument {name}: wants a JSON object, not {value!r}")
    unknown = sorted(set(value) - set(option["keys"]))
    if unknown:
        raise FlagError(f"argument {name}: unknown keys {', '.join(unknown)}")


def _size(word: str) -> str | int:
    if not SIZE.fullmatch(word):
        raise ValueError(word)
    return int(word) if word.lstrip("-").isdigit() else word


def _size_or_auto(word: str) -> str | int:
    return word if word == "auto" else _size(word)


def _json_or_text(word: str) -> object:
    return json.loads(word) if re.fullmatch(r"(?s)\s*{.*}\s*", word) else word


def _bool(word: str) -> bool:
    if word.lower() not in WORDS_OF_BOOL:
        raise ValueError(word)
    return word.lower() in WORDS_OF_BOOL[: len(WORDS_OF_BOOL) // 2]


def _pairs(word: str) -> dict:
    """vLLM before 0.9: KEY=INTEGER, several with commas."""
    found = {}
    for pair in word.split(","):
        key, value = pair.split("=")
        found[key.strip()] = int(value)
    return found


_TYPES = {
    "text": str,
    "pairs": _pairs,
    "int": int,
    "float": float,
    "bool": _bool,
    "json": json.loads,
    "json_or_text": _json_or_text,
    "size": _size,
    "size_or_auto": _size_or_auto,
}
