# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Desired state as recorded on the node: /etc/kindnet/desired.json, and the lock that guards it.

One section per module, written by that module. A section that is absent is not managed.
"""

from __future__ import annotations

__metaclass__ = type

import contextlib
import fcntl
import json
import os
import time
from collections import namedtuple

from . import _files
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, NamedTuple

    class Desired(NamedTuple):
        """What is recorded. ``cluster_name`` is "" and ``sections`` empty on a host that is not managed."""

        cluster_name: str
        sections: Dict[str, Dict[str, Any]]
else:
    Desired = namedtuple("Desired", "cluster_name sections")

SCHEMA = 1
FILE = "/etc/kindnet/desired.json"
LOCK = "/run/kindnet/lock"

REINSTALL = "Run playbooks/kindnet.yml against this host; it records the file anew. Until then nothing is changed."


def load(path: str = FILE) -> Desired:
    """Read the recorded desired state.

    Errors: :class:`KindnetError` if the file may be written by others, is damaged, or has a schema this code does not know.
    """
    try:
        _files.refuse_writable_by_others(path)
    except FileNotFoundError:
        return Desired("", {})
    content = _files.read_bytes(path)
    if content is None:
        return Desired("", {})
    try:
        data = json.loads(content)
    except ValueError as e:
        raise KindnetError(path, "%d bytes" % len(content), "is damaged, it is not JSON (%s)" % e, "Move it away. " + REINSTALL)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        schema = data.get("schema") if isinstance(data, dict) else None
        raise KindnetError(
            path,
            "schema %s" % json.dumps(schema),
            "is of a schema that this code does not know; it knows %d" % SCHEMA,
            "Another version of the collection wrote it: converge with that version, or move the file away. " + REINSTALL,
        )
    name, sections = data.get("cluster_name"), data.get("sections")
    if not isinstance(name, str) or not isinstance(sections, dict) or not all(isinstance(s, dict) for s in sections.values()):
        raise KindnetError(path, "schema %d" % SCHEMA, "is damaged, cluster_name or sections is missing", "Move it away. " + REINSTALL)
    if "flavour" in sections.get("masq", {}):
        sections["masq"] = _masq_of_0_1(sections["masq"])
    return Desired(name, sections)


def _masq_of_0_1(section: Dict[str, Any]) -> Dict[str, Any]:
    """As version 0.1 recorded it: there was iptables alone, by the names of its flavours."""
    upgraded = {key: value for key, value in section.items() if key != "flavour"}
    upgraded["backend"] = "iptables-%s" % section["flavour"]
    if "former" in section:
        upgraded["former"] = [["iptables-%s" % flavour, chain] for flavour, chain in section["former"]]
    return upgraded


def require_cluster_name(cluster_name: str) -> None:
    """Raise unless this is a name: without one every cluster without one would be the same."""
    if not cluster_name.strip() or not cluster_name.isprintable():
        raise KindnetError(
            "cluster_name",
            repr(cluster_name),
            "is not a name",
            "Set kindnet_cluster_name to the name of this cluster, or leave it out, which means 'kindnet'.",
        )


def refuse_other_cluster(recorded: Desired, cluster_name: str) -> None:
    """Raise if this host's desired state is that of another cluster."""
    require_cluster_name(cluster_name)
    if recorded.sections and recorded.cluster_name != cluster_name:
        raise KindnetError(
            "cluster_name",
            cluster_name,
            "this host is recorded as a member of cluster %r (%s)" % (recorded.cluster_name, FILE),
            "Correct kindnet_cluster_name, or take the host out of %r with playbooks/teardown.yml first." % recorded.cluster_name,
        )


def store(desired: Desired, path: str = FILE) -> None:
    """Record ``desired``; with no section left the file goes."""
    if not desired.sections:
        _files.remove(path)
        return
    data = {"schema": SCHEMA, "cluster_name": desired.cluster_name, "sections": desired.sections}
    _files.write_atomic(path, json.dumps(data, separators=(",", ":"), sort_keys=True).encode() + b"\n")


@contextlib.contextmanager
def lock(timeout: float, path: str = LOCK) -> Iterator[None]:
    """Hold the lock that modules and the pass share. The kernel releases it however the holder ends.

    :param timeout: seconds to wait; 0 tries once.
    """
    deadline = time.monotonic() + timeout
    fd = _open_lock(path)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, fd):
                    break
                # Taking the collection out removed the file while we waited: that lock keeps nobody out.
                stale, fd = fd, _open_lock(path)
                os.close(stale)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise KindnetError(
                        path,
                        "waited %g s" % timeout,
                        "another run of kindnet.host holds the lock",
                        "Try again; 'fuser -v %s' names the holder." % path,
                    )
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _open_lock(path: str) -> int:
    try:
        _files.make_folder(os.path.dirname(path))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise KindnetError(path, e.strerror, "the lock cannot be opened", "Run as root.")


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
