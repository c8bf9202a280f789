# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings a fleet up and down, whatever an earlier run has left, and lets single hosts crash and boot again."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from . import docker, image, network
from .description import FLEET_NAME, check_folder, load
from .errors import FleetError
from .inventory import inventory, known_hosts, ssh_options
from .programs import run, started
from .within import is_up, run_on

# Who holds which name and which network: links NAME -> folder and 10.x.y.0 -> folder.
CLAIMS = Path("/run/baremetal-llm-testbed")
BOOT = Path(__file__).with_name("boot.py")
PROGRAMS = ("ip", "ss", "nsenter", "ssh-keygen", "/usr/sbin/sshd", "/usr/bin/python3")
MADE = ("inventory.yml", "fleet.json", "known_hosts", "keys", "logs", "live", "docker")
# Folders of which a boot finds nothing but what the host started with.
FORGOTTEN = ("run", "tmp")
# An idle machine needs 0.05 s for sshd to listen; a busy one must not make a test fail.
LISTENS_WITHIN_S = 30
ENDS_WITHIN_S = 20
MNT_DETACH = 2


def up(description: str | Path, folder: str | Path) -> dict:
    """Bring up the fleet that the YAML file ``description`` describes, with all its files in ``folder``.

    Return the content of fleet.json and a key ``changed``, False when the fleet was up already. Raise FleetError, with
    nothing left of the fleet, when it cannot come up.
    """
    _need_root()
    folder, fleet = check_folder(folder), load(description)
    if any(host["docker"] for host in fleet["hosts"].values()):
        _need(docker.PROGRAMS, "docker.io")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder) as lock:
        digest = hashlib.sha256(json.dumps(fleet, sort_keys=True).encode()).hexdigest()
        record = _read(folder)
        if record and _is_whole(record):
            if record["digest"] != digest:
                raise FleetError(f"another fleet is up in {folder}: take it down first")
            return {**record, "changed": False}
        _remove(folder)
        _claim(fleet, folder)
        # Whatever the caller's is, users of a host who are not root must be able to read its files.
        umask = os.umask(0o022)
        try:
            record = _make(fleet, folder, digest, lock)
        except BaseException:
            _remove(folder)
            raise
        finally:
            os.umask(umask)
    return {**record, "changed": True}


def down(folder: str | Path) -> bool:
    """Remove the fleet of ``folder`` and every file that ``up`` made there; return False when there was nothing."""
    _need_root()
    folder = check_folder(folder)
    with _locked(folder):
        return _remove(folder)


def hosts(folder: str | Path) -> dict[str, dict]:
    """Return {name: host} of the fleet that is up in ``folder``, or {}; each with a key ``up``."""
    record = _read(check_folder(folder))
    if not record or record["status"] != "up":
        return {}
    return {name: {**host, "up": is_up(host)} for name, host in record["hosts"].items()}


def crash(host: dict) -> None:
    """End every process of ``host``, an entry of ``hosts()``, at once, as the loss of its power does.

    Its disks stay as they are, and so do the interfaces and the firewall of its network. ``reboot`` starts it again.
    """
    _need_root()
    folder = _folder_of(host)
    with _locked(folder):
        _stop(_entry(folder, host["name"])[1])


def reboot(host: dict) -> dict:
    """Crash ``host``, an entry of ``hosts()``, if it runs, and boot it again; return its new entry.

    /run and /tmp are as at its first boot, other files are as they were. Services and ``commands_after`` are started.
    Raise FleetError when it does not come up.
    """
    _need_root()
    folder = _folder_of(host)
    with _locked(folder) as lock:
        record, found = _entry(folder, host["name"])
        _stop(found)
        for name in FORGOTTEN:
            shutil.rmtree(Path(found["folder"], "upper", name), ignore_errors=True)
        umask = os.umask(0o022)
        try:
            _boot({host["name"]: found}, lock)
        finally:
            os.umask(umask)
        _write_json(folder / "fleet.json", record)
        _settle({host["name"]: found})
    return {**found, "up": True}


def _folder_of(host: dict) -> Path:
    return Path(host["folder"]).parents[1]


def _entry(folder: Path, name: str) -> tuple[dict, dict]:
    """Return the record of the fleet that is up in ``folder`` and the entry of one of its hosts."""
    record = _read(folder)
    if not record or record["status"] != "up" or name not in record["hosts"]:
        raise FleetError(f"no host {name} is up in {folder}")
    return record, record["hosts"][name]


def _make(fleet: dict, folder: Path, digest: str, lock: int) -> dict:
    record = {"status": "starting", "name": fleet["name"], "network": fleet["network"], "digest": digest, "hosts": {}}
    _write_json(folder / "fleet.json", record)
    live, keys, logs = folder / "live", folder / "keys", folder / "logs"
    live.mkdir()
    logs.mkdir()
    # Upper layers must be on a file system that has the extended attributes of overlayfs; this one also forgets.
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "testbed", str(live)], keep=(lock,))
    image.make_keys(keys, run)
    for name in fleet["hosts"]:
        for part in ("upper", "work", "root"):
            (live / name / part).mkdir(parents=True)
        image.lay_out(live / name / "base", fleet, name, keys)
    network.make(fleet, lock)
    for number, (name, host) in enumerate(fleet["hosts"].items()):
        record["hosts"][name] = {
            "name": name,
            "address": host["address"],
            "hostname": host["hostname"],
            "netns": network.namespace(fleet["name"], name),
            "interfaces": [
                {**interface, "port": network.port(number, index)} for index, interface in enumerate(host["interfaces"])
            ],
            "folder": str(live / name),
            "log": str(logs / f"{name}.log"),
            "commands_after": host["commands_after"],
            "disks": _disks(host, live / name / "disks", folder / "docker" / name, lock),
            "docker": host["docker"],
            "docker_log": str(logs / f"{name}.docker.log") if host["docker"] else "",
            "services": [],
        }
        if host["docker"]:
            service = {"argv": docker.argv(fleet["name"], name), "log": record["hosts"][name]["docker_log"]}
            record["hosts"][name]["services"].append(service)
    _boot(record["hosts"], lock)
    _write_json(folder / "fleet.json", record)
    _settle(record["hosts"])
    (folder / "known_hosts").write_text(known_hosts(fleet, folder), encoding="ascii")
    text = yaml.safe_dump(inventory(fleet, folder), sort_keys=False, width=4096)
    (folder / "inventory.yml").write_text(f"---\n{text}", encoding="utf-8")
    record.update(
        status="up",
        switch=network.namespace(fleet["name"], network.SWITCH),
        control=network.control(fleet["name"]),
        ssh=["ssh", "-i", str(keys / "user_key"), *ssh_options(folder)],
    )
    _write_json(folder / "fleet.json", record)
    return record


def _disks(host: dict, live: Path, real: Path, lock: int) -> list[list[str]]:
    """Make the disks of a described host; return [[folder, where the host sees it]].

    Those with a size are file systems of memory below ``live``, which only claim to be that large. The data of the
    engine lies on the machine's own disk, the folder ``real``, unless one of them is in its place: images are large.
    """
    disks = []
    for number, (path, size) in enumerate(host["disks"].items()):
        place = live / str(number)
        place.mkdir(parents=True)
        run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={size}", "testbed", str(place)], keep=(lock,))
        disks.append([str(place), path])
    if host["docker"] and docker.DATA not in host["disks"]:
        real.mkdir(parents=True)
        real.chmod(docker.DATA_MODE)
        disks.append([str(real), docker.DATA])
        if host["docker_images"]:
            docker.take_images(Path(host["docker_images"]), real)
    return disks


def _settle(records: dict[str, dict]) -> None:
    """Return when sshd and services of the hosts answer and their commands have been run."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(_wait_for_sshd, records.values()))
        list(pool.map(docker.wait, [host for host in records.values() if host["docker"]]))
    for name, host in records.items():
        for argv in host["commands_after"]:
            done = run_on(host, argv)
            if done.returncode:
                raise FleetError(f"{' '.join(argv)} failed on {name}: {(done.stderr or done.stdout).strip()}")


def _boot(records: dict[str, dict], lock: int) -> None:
    """Start the process 1 of every host and add its pid and start time to the records."""
    argv = [image.SSHD, "-D", "-e", "-f", "/etc/ssh/testbed/sshd_config"]
    given = [{**host, "argv": argv, "replaced": image.REPLACED} for host in records.values()]
    # A program of its own, because a process that has threads, as a test run may, cannot fork safely.
    answers = json.loads(run([sys.executable, "-I", "-S", str(BOOT), str(lock)], json.dumps(given), keep=(lock,)))
    for name, answer in answers.items():
        if answer["error"]:
            raise FleetError(f"host {name} cannot be started: {answer['error']}")
        records[name].update(pid=answer["pid"], started=started(answer["pid"]))


def _wait_for_sshd(host: dict) -> None:
    """Return when port 22 of ``host`` listens; asked of the kernel, so that the log shows no stray connection."""
    end = time.monotonic() + LISTENS_WITHIN_S
    while is_up(host):
        with contextlib.suppress(OSError), open(f"/proc/{host['pid']}/net/tcp", encoding="ascii") as file:
            # Local address and state: port 22 is 0016, LISTEN is 0A (proc_pid_net(5)).
            if any(line.split()[1].endswith(":0016") and line.split()[3] == "0A" for line in file.readlines()[1:]):
                return
        if time.monotonic() > end:
            raise FleetError(f"sshd of {host['name']} does not listen within {LISTENS_WITHIN_S} s")
        time.sleep(0.01)
    words = Path(host["log"]).read_text(encoding="utf-8", errors="replace")[-2000:].strip()
    raise FleetError(f"sshd of {host['name']} has ended: {words}")


def _claim(fleet: dict, folder: Path) -> None:
    """Take name and network for this folder, or raise FleetError; before that nothing of this name is ever touched."""
    CLAIMS.mkdir(mode=0o755, exist_ok=True)
    names = [fleet["name"], fleet["network"].split("/")[0]]
    taken = []
    try:
        for name in names:
            try:
                (CLAIMS / name).symlink_to(folder)
            except FileExistsError:
                owner = os.readlink(CLAIMS / name)
                raise FleetError(f"{name} belongs to the fleet in {owner}: take that down first") from None
            taken.append(name)
        network.refuse_foreign(fleet)
    except BaseException:
        for name in taken:
            (CLAIMS / name).unlink()
        raise


def _claimed(folder: Path) -> list[str]:
    """Names and networks that this folder has claimed."""
    if not CLAIMS.is_dir():
        return []
    return [path.name for path in sorted(CLAIMS.iterdir()) if path.is_symlink() and os.readlink(path) == str(folder)]


def _remove(folder: Path) -> bool:
    """Remove all that was made for ``folder``; the claims, which say what is ours, go last."""
    record, claimed = _read(folder), _claimed(folder)
    names = [name for name in claimed if FLEET_NAME.fullmatch(name)]
    nets = [f"{name}/24" for name in claimed if not FLEET_NAME.fullmatch(name)]
    _end_processes(record, names)
    for name in names:
        docker.remove_cgroups(name)
        network.remove(name, nets[0] if nets else "0.0.0.0/32")
    _unmount(folder / "live")
    found = [folder / name for name in MADE if os.path.lexists(folder / name)]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in claimed:
        (CLAIMS / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        CLAIMS.rmdir()
    return bool(found or claimed)


def _end_processes(record: dict | None, names: list[str]) -> None:
    """Kill the processes of all hosts of the record and whatever else is in the networks of the fleets ``names``."""
    inits = [host for host in (record or {}).get("hosts", {}).values() if "pid" in host]
    _kill(inits, lambda: [pid for name in names for pid in network.pids(name)])


def _stop(host: dict) -> None:
    _kill([host], lambda: network.pids_in(host["netns"]))


def _kill(inits: list[dict], others: Callable[[], list[int]]) -> None:
    """Kill the processes 1 ``inits``, with which the kernel ends all below them, and those that ``others`` names."""
    end = time.monotonic() + ENDS_WITHIN_S
    while True:
        left = [host["pid"] for host in inits if is_up(host)]
        left += [pid for pid in others() if started(pid) is not None]
        if not left:
            return
        if time.monotonic() > end:
            raise FleetError(f"processes {', '.join(map(str, left))} do not end")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _unmount(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    while any(
        line.split()[1] == str(path) for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    ):
        if libc.umount2(os.fsencode(path), MNT_DETACH):
            raise FleetError(f"{path} cannot be unmounted: {os.strerror(ctypes.get_errno())}")


def _is_whole(record: dict) -> bool:
    return (
        record["status"] == "up"
        and all(is_up(host) for host in record["hosts"].values())
        and all(docker.answers(host) for host in record["hosts"].values() if host["docker"])
        and set(network.namespaces(record["name"])) >= {host["netns"] for host in record["hosts"].values()}
        and Path("/sys/class/net", network.control(record["name"])).exists()
    )


@contextlib.contextmanager
def _locked(folder: Path):
    """Keep a second program out of the same folder. Gives the descriptor that holds the lock, -1 without a folder."""
    if not folder.is_dir():
        yield -1
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _read(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "fleet.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None  # the claims tell as well what is ours


def _write_json(path: Path, content: dict) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def _need_root() -> None:
    if os.geteuid():
        raise FleetError("test hosts need root: namespaces, mounts and sshd are made here")
    _need(PROGRAMS, "iproute2, util-linux, openssh-server, python3")


def _need(programs: tuple[str, ...], packages: str) -> None:
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        raise FleetError(f"test hosts need {', '.join(missing)} (Debian: {packages})")
