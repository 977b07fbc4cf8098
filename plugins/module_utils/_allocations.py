# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Allocations of host-local on this host: looked at, and released under its own lock. The only code that does."""

from __future__ import annotations

__metaclass__ = type

import contextlib
import fcntl
import ipaddress
import json
import os
import stat
import subprocess
import time

from . import _files, _namespaces
from ._conflist_data import plugins_of, stores_of
from ._errors import KindnetError
from ._plan_allocations import Allocation, Seen, canonical, range_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

PTP = "ptp"
LOCK = "lock"
POLL = 0.05  # seconds between two tries for a lock
LONGEST = 4096  # bytes; a file of host-local's has a hundred


def stores(conflist: Optional[Dict[str, Any]]) -> Tuple[Dict[str, Tuple[str, ...]], Dict[str, str]]:
    """Of ``conflist``, the folders of allocations whose pods can be told, with their ranges, and of the others the plugin."""
    judged: Dict[str, Tuple[str, ...]] = {}
    others: Dict[str, str] = {}
    for plugin in plugins_of(conflist):
        for store, subnets in stores_of(dict(conflist or {}, plugins=[plugin])).items():
            if plugin.get("type") == PTP:
                judged[store] = judged.get(store, ()) + subnets
            else:
                others[store] = str(plugin.get("type"))
    return {store: subnets for store, subnets in judged.items() if store not in others}, others


def read(store: str, subnets: Sequence[str]) -> List[Allocation]:
    """The allocations in ``store``, in the order of their addresses."""
    found = []
    for name in _files.names_in(store) or ():
        ip = canonical(name)
        if ip is None:
            continue
        path = os.path.join(store, name)
        try:
            st = os.lstat(path)
            if not stat.S_ISREG(st.st_mode):
                found.append(Allocation(store, name, "", "", st.st_mtime, "is no regular file"))
                continue
            with open(path, "rb") as f:
                lines = f.read(LONGEST).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:  # released meanwhile
            continue
        except OSError as e:
            found.append(Allocation(store, name, "", "", 0.0, "cannot be read (%s)" % e.strerror))
            continue
        container, ifname = (lines + ["", ""])[:2]
        doubt = "" if name == ip else "is not how host-local names it, which is %s" % ip
        found.append(Allocation(store, name, container.strip(), ifname.strip(), st.st_mtime, doubt, range_of(ip, subnets)))
    return sorted(found, key=lambda a: (":" in a.ip, ipaddress.ip_address(a.ip).packed))


def look() -> Seen:
    """What speaks for addresses that are in use.

    A plugin that makes a pod's network at this moment is looked for first: once it has ended, what it made is there to be seen.
    """
    adding = _adding()
    addresses, doubts = _namespaces.addresses()
    return Seen(frozenset(adding), frozenset(_plain(a) for a in addresses), tuple(_routes()), tuple(doubts))


@contextlib.contextmanager
def locked(folders: Sequence[str], timeout: float) -> Iterator[None]:
    """host-local's own locks: meanwhile it neither gives nor takes an address."""
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        for folder in sorted(folders):
            path = os.path.join(folder, LOCK)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o750)
            except OSError as e:
                raise KindnetError(path, e.strerror, "cannot be opened", "See what it is; host-local makes it.")
            stack.callback(os.close, fd)
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise KindnetError(path, "waited %g s" % timeout, "host-local holds it", "Look who does: fuser -v %s. Then run this again." % path)
                    time.sleep(POLL)
        yield


def release(allocation: Allocation) -> None:
    """As host-local does; its lock is held."""
    path = os.path.join(allocation.store, allocation.ip)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be removed", "Run as root on a writable file system.")


def _adding() -> Set[str]:
    found = set()
    for pid in _namespaces.pids():
        try:
            with open("/proc/%s/environ" % pid, "rb") as f:
                variables = dict(v.partition(b"=")[::2] for v in f.read().split(b"\0"))
        except OSError:  # it ended. Where root may not look, neither may it into that process's namespace, which is a doubt
            continue
        if b"CNI_COMMAND" in variables:
            found.add(variables.get(b"CNI_CONTAINERID", b"").decode("utf-8", "replace"))
    return found


def _routes() -> Iterator[Any]:
    for family in ("-4", "-6"):
        argv = ["ip", "-json", family, "route", "show", "table", "all"]
        try:
            done = subprocess.run(argv, capture_output=True, env=_namespaces.ENVIRONMENT, timeout=_namespaces.TIMEOUT * 6, check=False)
            routes = json.loads(done.stdout or b"[]")
        except (OSError, ValueError, subprocess.SubprocessError) as e:
            raise KindnetError("routes", " ".join(argv), "cannot be listed (%s)" % e, "Install iproute2, and see what the command says.")
        if done.returncode != 0:
            said = ascii(done.stderr[:200].decode("utf-8", "replace").strip())[1:-1]
            raise KindnetError("routes", " ".join(argv), "fails (%s)" % said, "See what the command says.")
        for route in routes:
            if route["dst"] != "default":
                yield ipaddress.ip_network(route["dst"], strict=False)


def _plain(address: str) -> str:
    return canonical(address) or address
