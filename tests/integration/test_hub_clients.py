# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hubs' own client libraries against the servers of tests/testbed/hubs, and an S3 server against our signer.

What the servers answer is believed in other tests because these clients, which nobody here has written, list and
download a repository from them and find every byte right.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import botocore.session
import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import lockmaker, sources
from ansible_collections.baremetal.llm.tests.testbed import hubs

TOKEN = "hub-token-only-for-this-test"
NAME = "acme/tiny"
FILES = {
    "config.json": b'{"architectures": ["X"]}',
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 900,
    "model-00002-of-00002.safetensors": b"\x00weights" * 40_000,
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "tokenizer/deep/vocab.txt": b"one\ntwo\n",
    "with blank + plus & percent%41.txt": b"odd name",
}
# Its own metadata asks for one older version of requests alone, which the tools of this project cannot share; without
# its dependencies it runs with theirs.
OPENMIND = "openmind-hub==1.3.0 --hash=sha256:ae26a521ebe0951296e1440b5142372efd22c4cfe0583357e88d95aebbfea33d\n"
CLIENTS = {
    "hf": """
import json, sys
from huggingface_hub import HfApi, snapshot_download
endpoint, token, folder = sys.argv[1:]
print(json.dumps(HfApi(endpoint=endpoint, token=token).list_repo_files("acme/tiny")))
snapshot_download("acme/tiny", local_dir=folder, endpoint=endpoint, token=token)
""",
    "modelscope": """
import json, sys
from modelscope.hub.api import HubApi
from modelscope.hub.snapshot_download import snapshot_download
endpoint, token, folder = sys.argv[1:]
listed = HubApi(endpoint=endpoint, token=token).get_model_files("acme/tiny", recursive=True)
print(json.dumps([entry["Path"] for entry in listed]))
snapshot_download("acme/tiny", local_dir=folder, endpoint=endpoint, token=token)
""",
    "modelers": """
import json, sys
from openmind_hub import OmApi, snapshot_download
endpoint, token, folder = sys.argv[1:]
print(json.dumps(OmApi(endpoint=endpoint, token=token).list_repo_files("acme/tiny", token=token)))
snapshot_download("acme/tiny", local_dir=folder, local_dir_use_symlinks=False, endpoint=endpoint, token=token)
""",
}


@pytest.fixture
def environment(tmp_path):
    """Environment for a client: nothing of the user's own, everything below the test's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        # The plain way, which every mirror has; Xet is a protocol of its own.
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home" / "hf"),
        "MODELSCOPE_CACHE": str(tmp_path / "home" / "modelscope"),
        "HUB_WHITE_LIST_PATHS": str(tmp_path),
    }


def _run(kind: str, endpoint: str, folder: Path, environment: dict) -> list[str]:
    folder.mkdir()
    Path(environment["HOME"]).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CLIENTS[kind], endpoint, TOKEN, str(folder)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[")))


def _read(folder: Path) -> dict[str, bytes]:
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(name): (folder / name).read_bytes() for name in names if not str(name).startswith(".")}


def _locked(source: str, **options: str) -> dict:
    made = lockmaker.from_source(sources.open_source(sources.parse(source), **options))
    assert made.left_out == []
    return made.lock


def _expected(revision: str, files: dict[str, bytes]) -> dict:
    return {
        "format": 1,
        "model": NAME,
        "revision": revision,
        "files": [
            {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in sorted(files.items())
        ],
    }


@pytest.mark.parametrize("kind", ["hf", "modelscope"])
def test_the_hubs_own_client_finds_what_we_find(kind, environment, tmp_path):
    with hubs.start(kind, FILES, token=TOKEN) as server:
        environment.update({"HF_ENDPOINT": server.url, "MODELSCOPE_ENDPOINT": server.url})
        listed = _run(kind, server.url, tmp_path / "got", environment)
        locked = _locked(f"{kind}://{NAME}", endpoint=server.url, token=TOKEN)
        repository = server.application.repository
    # ModelScope's client lists folders too.
    assert set(listed) - repository.folders() == set(FILES)
    assert _read(tmp_path / "got") == FILES
    assert locked == _expected(repository.commit, FILES)


def test_the_client_of_modelers_finds_what_we_find(environment, tmp_path):
    (tmp_path / "openmind.txt").write_text(OPENMIND, encoding="utf-8")
    library = tmp_path / "library"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--target", str(library), "-r", str(tmp_path / "openmind.txt")], check=True, timeout=300)
    with (
        hubs.start("modelers", FILES, token=TOKEN, tls=tmp_path / "tls") as server,
        hubs.Proxy({f"{hubs.PUBLIC_NAME}:443": server.port}) as proxy,
    ):
        # The client talks to hosts of its publisher alone, and by https.
        endpoint = f"https://{hubs.PUBLIC_NAME}"
        environment.update(
            {
                "PYTHONPATH": str(library),
                "OPENMIND_HUB_ENDPOINT": endpoint,
                "REQUESTS_CA_BUNDLE": server.ca_file,
                "https_proxy": proxy.url,
            }
        )
        listed = _run("modelers", endpoint, tmp_path / "got", environment)
        locked = _locked(f"modelers://{NAME}", endpoint=server.url, token=TOKEN, ca_file=server.ca_file)
        commit = server.application.repository.commit
    assert sorted(listed) == sorted(FILES)
    assert _read(tmp_path / "got") == FILES
    assert locked == _expected(commit, FILES)


@contextlib.contextmanager
def _s3_server(folder: Path):
    """Run moto's server; after three requests of the set-up it wants every request signed by a known user."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            for _try in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _client(service: str, url: str, keys: tuple[str, str] = ("none", "none")):
    return botocore.session.get_session().create_client(
        service,
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
    )


def _user(url: str) -> tuple[str, str]:
    iam = _client("iam", url)
    iam.create_user(UserName="reader")
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(allow))
    return key["AccessKeyId"], key["SecretAccessKey"]


def test_an_s3_server_takes_our_signatures(tmp_path):
    """Listing in pages, digests that the server keeps, digests of a list, parts of objects, and a wrong key."""
    with _s3_server(tmp_path) as url:
        access_key, secret_key = _user(url)
        keys = {"access_key": access_key, "secret_key": secret_key}
        s3 = _client("s3", url, (access_key, secret_key))
        s3.create_bucket(Bucket="models")
        many = {**FILES, **{f"extra/{number:04}.txt": b"" for number in range(1_005 - len(FILES))}}
        for path, content in FILES.items():
            s3.put_object(Bucket="models", Key=f"kept/{path}", Body=content, ChecksumAlgorithm="SHA256")
        for path, content in many.items():
            s3.put_object(Bucket="models", Key=f"listed/{path}", Body=content)
        lines = [f"{hashlib.sha256(content).hexdigest()}  ./{path}\n" for path, content in many.items()]
        s3.put_object(Bucket="models", Key="listed/SHA256SUMS", Body="".join(lines).encode())
        s3.put_object(Bucket="models", Key="bare/model.safetensors", Body=b"x")

        assert _locked("s3://models/kept", endpoint=url, **keys) == {**_expected("", FILES), "model": "models"}
        assert _locked("s3://models/listed/", endpoint=url, **keys) == {**_expected("", many), "model": "models"}
        with pytest.raises(LlmError, match="does not say what its files have to be"):
            _locked("s3://models/bare", endpoint=url, **keys)
        with pytest.raises(LlmError, match="SignatureDoesNotMatch"):
            _locked("s3://models/kept", endpoint=url, access_key=access_key, secret_key="wrong")

        hub = sources.open_source(sources.parse("s3://models/kept"), endpoint=url, **keys)
        for path, content in FILES.items():
            start = len(content) // 3
            with hub.stream(path, start) as response:
                assert response.total == len(content)
                assert b"".join(iter(lambda answer=response: answer.read(50_000), b"")) == content[response.offset :]
                assert response.offset == start
