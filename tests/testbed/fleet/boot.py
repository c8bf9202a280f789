# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Program that makes hosts: JSON list of them on its input, JSON of their processes on its output.

Each host is a process 1 of its own PID, mount, UTS and IPC namespaces in a network namespace that is there already.
It runs sshd on an overlay root, and before it the host's services. It needs nothing but the standard library, and none
of this package.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import stat
import sys
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
# sched.h and sys/mount.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x20000000,
    0x40000000,
)
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2

# Name, major, minor: Documentation/admin-guide/devices.txt of Linux. `fuse` is what container engines want.
NODES = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
]
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


def main() -> None:
    hosts, lock = json.load(sys.stdin), int(sys.argv[1])
    # Held until every host runs or has failed, and not by the hosts.
    os.set_inheritable(lock, False)
    # All at once, then read: the kernel does the mounts of several hosts side by side.
    pipes = {host["name"]: start(host) for host in hosts}
    answers = {}
    for name, pipe in pipes.items():
        with open(pipe, encoding="utf-8") as file:
            said = file.read()
        pid = re.search(r"^pid (\d+)$", said, re.MULTILINE)
        error = said.replace(pid[0], "").strip() if pid else said or "it did not start"
        answers[name] = {"pid": int(pid[1]) if pid else 0, "error": error}
    json.dump(answers, sys.stdout)


def start(host: dict) -> int:
    """Start the process 1 of ``host``; return a pipe that gives its pid, then an error if one occurs before sshd."""
    reading, writing = os.pipe()  # closed on exec: end of file means that sshd runs
    if os.fork():
        os.close(writing)
        return reading
    status = 1
    try:
        os.setsid()
        with open(f"/run/netns/{host['netns']}", "rb") as netns:
            call(LIBC.setns, netns.fileno(), CLONE_NEWNET)
        call(LIBC.unshare, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID)
        # Only children of a process that has unshared its PID namespace are in the new one.
        child = os.fork()
        if not child:
            become(host)
        os.write(writing, f"pid {child}\n".encode())
        status = 0
    except BaseException:
        # Short enough to be written in one piece (PIPE_BUF): the pid and the error come from two processes.
        os.write(writing, f"{traceback.format_exc(limit=3)[-3000:]}\n".encode())
    finally:
        os._exit(status)


def become(host: dict) -> None:
    """Turn this process into process 1 of ``host``. Never returns."""
    log = os.open(host["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # Opened before the host's own root hides where they are.
    services = [
        (service, os.open(service["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        for service in host["services"]
    ]
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.umask(0)
    os.chdir(host["folder"])
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Two lower layers, so that the upper one starts empty and holds exactly what is written on the host.
    mount("overlay", "root", "overlay", 0, "lowerdir=base:/,upperdir=upper,workdir=work")
    mount("proc", "root/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # Mounted from here, it shows the interfaces of this network namespace.
    mount("sysfs", "root/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if os.path.isdir("/sys/fs/cgroup"):
        mount("/sys/fs/cgroup", "root/sys/fs/cgroup", None, MS_BIND | MS_REC)
    make_devices("root/dev", "base/dev")
    for part in ("proc", "sys"):
        if os.path.isdir(f"base/{part}"):
            fake(f"base/{part}", f"root/{part}", host["replaced"])
    for source, target in host["disks"]:
        mount(source, f"root{target}", None, MS_BIND)
    hostname = host["hostname"].encode()
    call(LIBC.sethostname, hostname, len(hostname))
    os.chdir("root")
    # The same folder twice stacks the old root under the new one, and the unmount takes it away: pivot_root(2).
    call(LIBC.pivot_root, b".", b".")
    call(LIBC.umount2, b".", MNT_DETACH)
    os.chdir("/")
    os.umask(0o022)
    for service, output in services:
        serve(service["argv"], output)
    execute(host["argv"])


def execute(argv: list[str]) -> None:
    """Become the program ``argv[0]``."""
    words = [word.encode() for word in argv]
    environment = [f"{key}={value}".encode() for key, value in ENVIRONMENT.items()]
    call(LIBC.execve, words[0], strings(words), strings(environment))


def serve(argv: list[str], output: int) -> None:
    """Start ``argv`` as a child of process 1, in a session of its own, so that the kernel ends both together."""
    if os.fork():
        os.close(output)
        return
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        # A full path: to search for a program Python needs modules, and has none in this root.
        execute(argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def strings(words: list[bytes]) -> ctypes.Array:
    """Return the words as C wants them: pointers, the last one null."""
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def make_devices(dev: str, wanted: str) -> None:
    """Fill ``dev`` with the basic nodes and with whatever is in the tree ``wanted``."""
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755,size=1m")
    for name, major, minor in NODES:
        os.mknod(f"{dev}/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    for name, target in LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{dev}/{name}", 0o755)
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("mqueue", f"{dev}/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for folder, folders, files in os.walk(wanted):
        place = os.path.join(dev, os.path.relpath(folder, wanted))
        for name in folders:
            os.makedirs(os.path.join(place, name), exist_ok=True)
        for name in files:
            copy_device(os.path.join(folder, name), os.path.join(place, name))


def copy_device(source: str, target: str) -> None:
    """Make ``target`` the same node; a plain file stands for a device that answers like /dev/null."""
    found = os.lstat(source)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(found.st_mode):
        os.mknod(target, stat.S_IMODE(found.st_mode) | stat.S_IFCHR, os.makedev(1, 3))
    else:
        os.mknod(target, found.st_mode, found.st_rdev)


def fake(tree: str, target: str, replaced: list[str]) -> None:
    """Lay ``tree`` over ``target``, a folder of proc or sysfs, where nothing can be created.

    A file that is there is covered by one mount, and so is each folder in ``replaced`` (relative to the root). A folder
    that lacks something which the tree has gets the tree laid over it, and shows both.
    """
    names = os.listdir(tree)
    if any(not os.path.lexists(f"{target}/{name}") for name in names):
        lower = ":".join(path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,") for path in (tree, target))
        mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"lowerdir={lower}")
        return
    for name in names:
        inner, covered = f"{tree}/{name}", f"{target}/{name}"
        if not os.path.isdir(inner) or inner.partition("/")[2] in replaced:
            mount(inner, covered, None, MS_BIND)
        else:
            fake(inner, covered, replaced)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    if LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def call(function, *arguments) -> None:
    if function(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{function.__name__}: {os.strerror(code)}")


if __name__ == "__main__":
    main()
