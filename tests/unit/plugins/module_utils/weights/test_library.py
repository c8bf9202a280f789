# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a hub's client library is run, with libraries of three lines; tests/integration has the real ones."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils import commands
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import fetch, library, place, tree, verify
from ansible_collections.baremetal.llm.tests.testbed.hubs import authority

SHARD = "model-00001-of-00002.safetensors"
TOKEN = "token-of-a-test"
BODY = """
import json, os, shutil, sys

def get(name, path, told):
    with open(os.environ["FAKE_LOG"], "a") as log:
        with open("/proc/self/cmdline") as stream:
            argv = stream.read().split("\\0")
        print(json.dumps([name, path, told, argv, dict(os.environ), os.getcwd()]), file=log)
    fault = os.environ.get("FAKE_FAULT", "")
    if fault == "raise":
        raise RuntimeError("no way with " + os.environ.get("HF_TOKEN", "nothing"))
    target = os.path.join(told["local_dir"], path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(os.path.join(os.environ["FAKE_HUB"], path), target)
    if fault == "wrong" and path.endswith(".safetensors"):
        with open(target, "r+b") as stream:
            stream.write(b"wrong")
"""
PACKAGES = {
    "huggingface_hub/__init__.py": """
def hf_hub_download(name, path, **told):
    get(name, path, told)
""",
    "modelscope/__init__.py": "",
    "modelscope/hub/__init__.py": "",
    "modelscope/hub/file_download.py": """
def model_file_download(name, path, **told):
    get(name, path, told)
""",
    "openmind_hub/__init__.py": """
def om_hub_download(name, path, **told):
    get(name, path, told)
""",
}


@pytest.fixture
def source(tmp_path, write_model):
    return write_model(tmp_path / "disk" / "model")


@pytest.fixture
def dest(tmp_path):
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib" / "weights"


@pytest.fixture
def log(tmp_path, source, monkeypatch):
    """Where the fake libraries write what they were told; they are found by the interpreter of the tests."""
    for name, text in PACKAGES.items():
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BODY + text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_HUB", str(source))
    return tmp_path / "log"


def told(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def bring(dest, lock, kind="hf", **options):
    options = {"client": "library", "client_python": sys.executable, **options}
    return fetch.fetch(f"{kind}://acme/tiny", str(dest), lock, **options)


@pytest.mark.parametrize(
    ("kind", "endpoint", "token"),
    [
        ("hf", "HF_ENDPOINT", "HF_TOKEN"),
        ("modelscope", "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN"),
        ("modelers", "OPENMIND_HUB_ENDPOINT", "BAREMETAL_LLM_TOKEN"),
    ],
)
def test_exactly_the_locked_files_are_asked_for(dest, lock, log, tmp_path, kind, endpoint, token):
    commit = "a" * 40
    ca_file = authority.make(tmp_path / "tls").ca_file
    options = {"endpoint": "https://mirror.example", "token": TOKEN, "ca_file": ca_file}
    result = bring(dest, dict(lock, revision=commit), kind, **options)
    assert result["fetched"] == [entry["path"] for entry in lock["files"]]
    assert verify.verify(str(dest), lock, deep=True)["verified"]
    asked = told(log)
    assert sorted(call[1] for call in asked) == result["fetched"]
    for name, _path, options, argv, environment, folder in asked:
        assert name == "acme/tiny"
        assert options["revision"] == commit
        assert folder == tree.aside(str(dest), "incoming")
        assert (environment[endpoint], environment[token]) == ("https://mirror.example", TOKEN)
        assert environment["REQUESTS_CA_BUNDLE"] == environment["SSL_CERT_FILE"]
        assert environment["REQUESTS_CA_BUNDLE"].startswith(folder)
        assert environment["HOME"].startswith(folder), "nothing is read from, or left in, the user's home"
        assert not any(TOKEN in part for part in argv)
    assert sorted(result["merkle"]) == [entry["path"] for entry in lock["files"] if entry["size"]]
    assert not os.path.exists(tree.aside(str(dest), "incoming"))
    assert not os.path.exists(tree.aside(str(dest), "library.json"))


def test_what_is_there_as_locked_is_not_asked_for_again(dest, lock, log, source):
    shutil.copyfile(source / SHARD, place.staged(str(dest), SHARD))
    Path(place.staged(str(dest), "config.json")).write_text("half")
    bring(dest, lock)
    assert {call[1] for call in told(log)} == {entry["path"] for entry in lock["files"]} - {SHARD}
    assert verify.verify(str(dest), lock, deep=True)["verified"]


def test_wrong_bytes_are_got_anew_once_and_then_refused(dest, lock, log, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "wrong")
    with pytest.raises(LlmError, match="damaged at the source") as caught:
        bring(dest, lock)
    assert SHARD in caught.value.summary
    assert caught.value.remedy
    assert [call[1] for call in told(log)].count(SHARD) == 2
    assert not (dest / SHARD).exists()
    assert not os.path.exists(os.path.join(tree.aside(str(dest), "incoming"), SHARD))
    monkeypatch.delenv("FAKE_FAULT")
    bring(dest, lock)
    assert verify.verify(str(dest), lock, deep=True)["verified"]


@pytest.mark.usefixtures("log")
def test_what_a_library_remembers_of_a_wrong_file_is_forgotten(dest, lock):
    incoming = Path(place.staged(str(dest), SHARD)).parent
    (incoming / SHARD).write_bytes(b"wrong")
    (incoming / ".cache").mkdir()
    (incoming / ".cache" / "memory").write_text("had it")
    seen = []
    place_file = place.place

    def look(*arguments, **options):
        seen.append((incoming / ".cache" / "memory").exists())
        place_file(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "place", look)
        bring(dest, lock)
    assert seen
    assert not any(seen)


@pytest.mark.usefixtures("log")
def test_a_library_that_fails_says_why_and_keeps_the_secret(dest, lock, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "raise")
    with pytest.raises(LlmError, match="huggingface_hub did not bring") as caught:
        bring(dest, lock, token=TOKEN)
    assert "no way with ***" in caught.value.found
    assert TOKEN not in str(caught.value)
    assert not dest.exists()


@pytest.mark.usefixtures("log")
def test_an_interpreter_without_the_library(dest, lock, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    with pytest.raises(LlmError, match="did not bring") as caught:
        bring(dest, lock, client_python="/no/such/python")
    assert "no such file" in caught.value.found
    assert "client_python" in caught.value.remedy


def test_a_token_is_not_sent_for_everybody_to_read(dest, lock, log):
    with pytest.raises(LlmError, match="everybody"):
        bring(dest, lock, endpoint="http://mirror.example", token=TOKEN)
    assert not log.exists()


def test_authorities_of_the_system_are_trusted_too(tmp_path, monkeypatch):
    (tmp_path / "system.pem").write_text("those of the system")
    (tmp_path / "ours.pem").write_text("ours")
    monkeypatch.setattr(library, "_SYSTEM_AUTHORITIES", (str(tmp_path / "absent"), str(tmp_path / "system.pem")))
    monkeypatch.setattr(library.ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=None))
    both = library._authorities(str(tmp_path), str(tmp_path / "ours.pem"))
    assert Path(both).read_text() == "those of the system\nours"
    assert library._authorities(str(tmp_path), "") == ""


@pytest.mark.parametrize("where", ["https://host/base/", "s3://bucket/prefix"])
def test_sources_that_have_no_library(dest, lock, where):
    with pytest.raises(LlmError, match="no client library"):
        fetch.fetch(where, str(dest), lock, client="library")


def test_the_library_ends_with_the_run_that_started_it(tmp_path):
    """Else it would go on writing where the next run writes."""
    program = tmp_path / "parent.py"
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"kind": "hf", "name": "n", "revision": None, "folder": str(tmp_path), "files": ["x"]}))
    package = tmp_path / "packages" / "huggingface_hub"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, time\n"
        "def hf_hub_download(*a, **o):\n"
        f"    open({str(tmp_path / 'pid')!r} + '.part', 'w').write(str(os.getpid()))\n"
        f"    os.rename({str(tmp_path / 'pid')!r} + '.part', {str(tmp_path / 'pid')!r})\n"
        "    time.sleep(600)\n"
    )
    program.write_text(
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', open(sys.argv[1]).read(), sys.argv[2]])\n"
        f"while not os.path.exists({str(tmp_path / 'pid')!r}):\n"
        "    time.sleep(0.01)\n"
        "os._exit(0)\n"
    )
    (tmp_path / "program.py").write_text(library.PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    outcome = commands.run([sys.executable, str(program), str(tmp_path / "program.py"), str(spec)], 60, env=environment)
    assert outcome.ok, outcome
    child = Path("/proc") / (tmp_path / "pid").read_text()
    for _try in range(500):
        try:
            if (child / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("it lives on")
