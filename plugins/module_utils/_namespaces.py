# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network namespaces of this host, each once, the addresses in them, and a way in for what is made there. Looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

import contextlib
import ctypes
import errno
import json
import os
import re
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, List, Set, Tuple

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
CLONE_NEWNET = 0x40000000  # linux/sched.h
TIMEOUT = 10.0  # seconds for one namespace to list its addresses; it takes some milliseconds
NETWORK = re.compile(r"net:\[([0-9]+)\]\Z")  # how the kernel writes one, and its inode
GONE = (errno.ENOENT, errno.ESRCH)  # what the kernel says of a process that ended meanwhile


@contextlib.contextmanager
def inside(path: str) -> Iterator[None]:
    """This thread is in the network namespace at ``path`` meanwhile; "" is its own. What it makes there, such as a socket, belongs to that for good."""
    if not path:
        yield
        return
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # whatever it is, nobody waits for it
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)


def _enter(fd: int) -> None:
    # os.setns is in Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def addresses() -> Tuple[Set[str], List[str]]:
    """The addresses of all namespaces, and the places that could not be looked at.

    A namespace lives while a process or thread is in it, a file descriptor is open on it, or it is mounted somewhere, as all that runtimes
    make are; so it is looked for in each of these, and in each mount namespace.
    """
    found: Set[str] = set()
    doubts: List[str] = []
    opened: Dict[int, int] = {}  # open meanwhile, or the kernel might use the number again
    try:
        for place, known in _places(doubts):
            if known in opened:
                continue
            try:
                fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as e:
                if e.errno not in GONE:
                    doubts.append("%s: %s" % (place, e.strerror))
                continue
            number = os.fstat(fd).st_ino
            if number in opened or known and number != known:
                os.close(fd)
                continue
            opened[number] = fd
            try:
                found.update(_addresses_in(fd))
            except (OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
                doubts.append("%s: its addresses cannot be listed (%s)" % (place, e))
    finally:
        for fd in opened.values():
            os.close(fd)
    return found, doubts


def pids() -> List[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _places(doubts: List[str]) -> Iterator[Tuple[str, int]]:
    """Paths that lead to network namespaces, many of them to the same, and the inode of each where it is known.

    A mount hidden by a later one leads elsewhere, for its runtime as well. No pod lives by it alone.
    """
    mounts: Set[Tuple[int, int, int]] = set()
    for pid in pids():
        process = "/proc/" + pid
        try:
            for thread in os.listdir(process + "/task"):
                yield "%s/task/%s/ns/net" % (process, thread), 0
            for descriptor in os.listdir(process + "/fd"):
                path = "%s/fd/%s" % (process, descriptor)
                number_of = NETWORK.match(_link(path))
                if number_of:
                    yield path, int(number_of.group(1))
            root = os.stat(process + "/root")
            view = (os.stat(process + "/ns/mnt").st_ino, root.st_dev, root.st_ino)
            if view not in mounts:
                mounts.add(view)
                with open(process + "/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
                    lines = f.read().splitlines()
                for line in lines:
                    fields = line.split(" ")
                    number_of = NETWORK.match(fields[3])
                    if number_of:
                        yield process + "/root" + re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), fields[4]), int(number_of.group(1))
        except OSError as e:
            if e.errno not in GONE:
                doubts.append("%s: %s" % (e.filename or process, e.strerror))


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError as e:
        if e.errno in GONE:  # closed meanwhile
            return ""
        raise


def _addresses_in(fd: int) -> Iterator[str]:
    argv = ["nsenter", "--net=/proc/self/fd/%d" % fd, "ip", "-json", "address", "show"]
    done = subprocess.run(argv, capture_output=True, env=ENVIRONMENT, timeout=TIMEOUT, check=False, pass_fds=[fd])
    if done.returncode != 0:
        raise ValueError(ascii(done.stderr[:200].decode("utf-8", "replace").strip())[1:-1])
    for link in json.loads(done.stdout or b"[]"):
        for address in link.get("addr_info", ()):
            for key in ("local", "address"):  # the second is that of the other end
                if key in address:
                    yield address[key]
