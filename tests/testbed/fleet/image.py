# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lays out what a host has beside the machine's own files: one folder, the middle layer of its root."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import stat
import sys
from pathlib import Path

from . import docker
from .errors import FleetError

EMULATORS = Path(__file__).resolve().parents[1] / "emulators"
# Where a host has them: the clone itself may lie in a folder that hosts do not see.
EMULATORS_ON_HOST = "/usr/local/lib/llm-testbed"
OPAQUE = "trusted.overlay.opaque"

# Folders of the machine that a host starts without, and their modes.
EMPTY = {"root": 0o700, "home": 0o755, "tmp": 0o1777, "run": 0o755, "var/tmp": 0o1777}
# Folders of proc and sysfs of which a host shows only its own, never the machine's as well.
REPLACED = ["sys/bus/pci/devices", "sys/class/infiniband", "proc/driver"]

SSHD = "/usr/sbin/sshd"
SSHD_CONFIG = """\
ListenAddress {address}
HostKey /etc/ssh/testbed/host_key
AuthorizedKeysFile /etc/ssh/testbed/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
# Every test of a batch may log in at once.
MaxStartups 200
MaxSessions 200
Subsystem sftp internal-sftp
"""


def lay_out(base: Path, fleet: dict, name: str, keys: Path) -> None:
    """Fill the folder ``base`` for host ``name`` of the described ``fleet``; ``keys`` holds the keys of the fleet."""
    host = fleet["hosts"][name]
    base.mkdir(parents=True)
    for path, mode in EMPTY.items():
        _folder(base, path)
        (base / path).chmod(mode)
        os.setxattr(base / path, OPAQUE, b"y")
    _folder(base, "run/sshd")
    _folder(base, "run/lock")
    for path in host["disks"]:
        _folder(base, path.lstrip("/"))
    if host["docker"]:
        _folder(base, docker.DATA.lstrip("/"))
        # The machine's engine may have its settings there, and the key by which engines are told apart.
        _folder(base, docker.SETTINGS.lstrip("/"))
        os.setxattr(base / docker.SETTINGS.lstrip("/"), OPAQUE, b"y")
    for path, content in _own_files(fleet, name, keys).items():
        _write(base, path, {"content": content, "mode": 0o600 if path.startswith("/etc/ssh/") else 0o644})
    if host["state"] is not None:
        _emulate(host["state"], base)
    for path, file in host["files"].items():
        _write(base, path, file)
    _agree_with_machine(base)
    for path in REPLACED:
        if (base / path).is_dir():
            os.setxattr(base / path, OPAQUE, b"y")


def _own_files(fleet: dict, name: str, keys: Path) -> dict[str, str]:
    """Files that make a host one of its own: who it is, whom it knows, and who may log in."""
    host, own = fleet["hosts"][name], f"{fleet['name']}-{name}"
    # glibc takes the first line that fits, so that a test can give a wrong address to a name.
    known = [
        f"{one['address']} {' '.join(dict.fromkeys([one['hostname'], key]))}" for key, one in fleet["hosts"].items()
    ]
    return {
        "/etc/hostname": f"{host['hostname']}\n",
        "/etc/hosts": "\n".join(["127.0.0.1 localhost", "::1 localhost", *host["hosts_file"], *known, ""]),
        # No name server can be reached: this one refuses at once, where another would be waited for.
        "/etc/resolv.conf": "nameserver 127.0.0.1\n",
        "/etc/machine-id": f"{hashlib.sha256(own.encode()).hexdigest()[:32]}\n",
        "/etc/ssh/testbed/sshd_config": SSHD_CONFIG.format(address=host["address"]),
        "/etc/ssh/testbed/host_key": (keys / "host_key").read_text(encoding="ascii"),
        "/etc/ssh/testbed/authorized_keys": (keys / "user_key.pub").read_text(encoding="ascii"),
    }


def _emulate(state: dict, base: Path) -> None:
    """Let the emulators, and a copy of them, lay out what a host with such accelerators shows."""
    if str(EMULATORS) not in sys.path:
        sys.path.append(str(EMULATORS))
    try:
        names = ("emulation.layout", "emulation.said", "emulation.state")
        layout, said, states = map(importlib.import_module, names)
    except ImportError as error:
        raise FleetError(f"a state needs the emulators under {EMULATORS}: {error}") from error
    copy = base / EMULATORS_ON_HOST.lstrip("/")
    _folder(base, str(copy.parent.relative_to(base)))
    shutil.copytree(EMULATORS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    # A file where Python would put compiled modules: it goes without, and to ask an emulator writes nothing.
    (copy / "emulation" / "__pycache__").touch()
    try:
        layout.lay_out(state, str(base), emulators=EMULATORS_ON_HOST)
        said.remember(state, str(base))
    except states.StateError as error:
        raise FleetError(f"the state of a host is wrong: {error}") from error
    _leave_out_of_proc(base / "proc")


def _leave_out_of_proc(proc: Path) -> None:
    """Remove what no host can show: proc takes no new entries, and of its processes only the first is known by number.

    The emulators lay it out for readers that look at the tree in place.
    """
    for path in list(proc.iterdir()) if proc.is_dir() else []:
        if path.name == "1" or (not path.name.isdigit() and Path("/proc", path.name).exists()):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write(base: Path, path: str, file: dict) -> None:
    target = base / path.lstrip("/")
    _folder(base, str(target.parent.relative_to(base)))
    if target.is_dir() and not target.is_symlink():
        raise FleetError(f"{path} is a folder of the host and cannot be a file")
    target.unlink(missing_ok=True)
    if "link" in file:
        target.symlink_to(file["link"])
    else:
        target.write_text(file["content"], encoding="utf-8")
        target.chmod(file["mode"])


def _folder(base: Path, path: str) -> None:
    """Make a folder of the layer; refuse a way through a link, which would lead out of the layer."""
    place = base
    for part in Path(path).parts:
        place = place / part
        machine = Path("/") / place.relative_to(base)
        # /bin and /lib are links to /usr/bin and /usr/lib: a folder in their place would hide all programs.
        if place.is_symlink() or (machine.is_symlink() and not place.exists()):
            raise FleetError(f"/{place.relative_to(base)} is a link: use the path that it leads to")
        if not place.is_dir():
            place.mkdir(mode=0o755)


def _agree_with_machine(base: Path) -> None:
    """Give folders that the machine has as well its mode and owner: the upper of two merged folders tells them."""
    for folder, folders, _files in os.walk(base):
        for name in list(folders):
            path = Path(folder, name)
            relative = str(path.relative_to(base))
            machine = Path("/") / relative
            if relative in EMPTY or relative in ("dev", "proc", "sys") or path.is_symlink():
                folders.remove(name)
            elif machine.is_dir() and not machine.is_symlink():
                found = machine.stat()
                os.chown(path, found.st_uid, found.st_gid)
                path.chmod(stat.S_IMODE(found.st_mode))


def make_keys(keys: Path, run) -> None:
    """Make the host key and the user key of a fleet in ``keys``; ``run`` runs an argument list."""
    if keys.exists():
        shutil.rmtree(keys)
    keys.mkdir(mode=0o700)
    for name in ("host_key", "user_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"testbed-{name}", "-f", str(keys / name)])
