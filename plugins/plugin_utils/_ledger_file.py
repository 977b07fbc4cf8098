# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger as a file: a plain YAML file beside the inventory, to be read by people and committed. Controller only.

Its form is that of a YAML inventory with one group and no host, so that it may lie in a directory that Ansible reads as an
inventory. Hosts are sorted and take one line each, so that a change is a line or two in a diff.
"""

from __future__ import annotations

__metaclass__ = type

import contextlib
import fcntl
import os
import re
import stat
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import yaml

from ..module_utils import _files
from ..module_utils._errors import KindnetError
from ..module_utils._node_table import Range, parse_address, parse_cidr
from ._plan_ledger import Ledger, LedgerPlan, NodeIps, first_overlap

SCHEMA = 1
NAME = "kindnet-ledger.yml"
GROUP = "kindnet_ledger"
KEYS = ("schema", "cluster_name", "pod_cidrs", "freed_pod_cidrs")
OPTIONAL_KEYS = ("node_ips", "removed_hosts")  # there when there is something in them

HEAD = """\
---
# The ledger of kindnet.host: which host holds which pod CIDR. The playbooks
# write it; commit it together with the inventory. A host that is listed keeps
# what it holds; only playbooks/remove_node.yml frees it. This is the form of an
# inventory without hosts, so that it may lie in an inventory directory.
"""
NODE_IPS = """\
    # Read once from each host's kindnet_node_interface. Delete a line, or run
    # with -e kindnet_reread_node_ips=true, to have it read again.
"""
REMOVED = """\
    # Removed. Should one of them join again, take its name out here.
"""
FREED = "    # The last to be given again, from the top.\n"

RESTORE = "Bring back the file as it was last committed, or mend it by hand; it is left as it is until then."

# Of the words that YAML does not take for strings, those that could be a host's name.
_WORDS = frozenset(["y", "n", "yes", "no", "true", "false", "on", "off", "null"])
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*\Z")

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """YAML that takes no key twice: after a bad merge the last of two entries would win in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Dict[Any, Any]:
        seen = set()
        for key, _value in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, "%s is there twice" % key.value, key.start_mark)
            seen.add(str(key.value))
        mapping: Dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def find(sources: Iterable[str], explicit: Optional[str] = None, required: bool = True) -> str:
    """The path of the ledger, whether it exists yet or not.

    :param sources: the inventory sources as Ansible has them (``ansible_inventory_sources``). The ledger lies in the folder of a source, that is
        in the directory itself if the source is one. If several folders have none, the first one gets it.
    :param explicit: ``kindnet_ledger``; a relative path is relative to the folder of the first source.
    :param required: whether having no place for it is an error; else it is "".
    """
    folders = inventory_folders(sources)
    if explicit:
        return os.path.join(folders[0] if folders else os.getcwd(), os.path.expanduser(explicit))
    if not folders and not required:
        return ""
    if not folders:
        raise KindnetError(
            "kindnet_ledger",
            "not set",
            "no inventory source is a file or a directory, so there is no place beside it for the ledger",
            "Set kindnet_ledger to the path of a file that you keep, or kindnet_pod_cidrs of every host.",
        )
    paths = [os.path.join(folder, NAME) for folder in folders]
    existing = [path for path in paths if os.path.exists(path)]
    if len(existing) > 1:
        raise KindnetError(
            "kindnet_ledger",
            ", ".join(existing),
            "several inventory sources have a ledger",
            "Set kindnet_ledger to the one that counts, and remove the others.",
        )
    return (existing or paths)[0]


def inventory_folders(sources: Iterable[str]) -> List[str]:
    """The folders of the inventory sources that are files or directories, each once."""
    return list(dict.fromkeys(place if os.path.isdir(place) else os.path.dirname(place) for place in inventory_places(sources)))


def inventory_places(sources: Iterable[str]) -> List[str]:
    """The inventory sources that are files or directories. A host list, /dev/null or a pipe has no place to keep anything."""
    return [os.path.abspath(source) for source in sources if "," not in source and (os.path.isfile(source) or os.path.isdir(source))]


def load(path: str) -> Optional[Ledger]:
    """Read the ledger; None when there is none yet. Errors: :class:`KindnetError` naming the path and what is wrong in it."""
    content = _read(path)
    return parse(content, path) if content else None


def _read(path: str) -> bytes:
    """The content of the file; empty if there is none, and while the lock is held before the first block is given."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return b""
    except OSError as e:
        raise KindnetError(path, e.strerror, "the ledger cannot be read", "See that it is a file that you may read.")


def parse(content: bytes, path: str) -> Ledger:
    """The ledger in ``content``."""
    try:
        data = yaml.load(content, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as e:
        mark = getattr(e, "problem_mark", None)
        where = "line %d: %s" % (mark.line + 1, getattr(e, "problem", "")) if mark else str(e)
        raise KindnetError(path, where, "the ledger is damaged, it is not YAML", RESTORE)
    group = data.get(GROUP) if isinstance(data, dict) else None
    entries = group.get("vars") if isinstance(group, dict) else None
    if not isinstance(entries, dict) or "schema" not in entries:
        raise KindnetError(path, "%d bytes" % len(content), "is not a ledger, it has no %s: vars: schema" % GROUP, RESTORE)
    if entries["schema"] != SCHEMA:
        raise KindnetError(
            path,
            "schema %s" % entries["schema"],
            "the ledger is of a schema that this version does not know; it knows %d" % SCHEMA,
            "Use the version of kindnet.host that wrote it, or a later one.",
        )
    if sorted(map(str, entries)) != sorted([*KEYS, *(k for k in OPTIONAL_KEYS if k in entries)]):
        raise KindnetError(path, ", ".join(map(str, entries)), "the ledger is damaged, its keys are not %s" % ", ".join(KEYS), RESTORE)
    name, held, freed = entries["cluster_name"], entries["pod_cidrs"], entries["freed_pod_cidrs"]
    if not isinstance(name, str) or not isinstance(held, dict):
        raise KindnetError(path, "cluster_name, pod_cidrs", "the ledger is damaged, they are not a string and a mapping", RESTORE)
    for host in held:
        if not isinstance(host, str) or not host:
            raise KindnetError(path, host, "the ledger is damaged, a host's name is not a string", "Put it into quotes.")
    ledger = Ledger(
        name,
        {h: _blocks(path, h, b) for h, b in held.items()},
        _blocks(path, "freed_pod_cidrs", freed),
        _node_ips(path, entries.get("node_ips") or {}),
        _names(path, entries.get("removed_hosts") or []),
    )
    _disjoint(ledger, path)
    return ledger


def dump(ledger: Ledger) -> str:
    """The content of the file; the same ledger always gives the same."""
    lines = [HEAD, "%s:\n" % GROUP, "  vars:\n", "    schema: %d\n" % SCHEMA, "    cluster_name: %s\n" % _scalar(ledger.cluster_name)]
    hosts = ["      %s: [%s]\n" % (_scalar(h), ", ".join(_cidr(b) for b in blocks)) for h, blocks in sorted(ledger.pod_cidrs.items())]
    lines += ["    pod_cidrs:\n", *hosts] if hosts else ["    pod_cidrs: {}\n"]
    freed = ["      - %s\n" % _cidr(b) for b in ledger.freed]
    lines += [FREED, "    freed_pod_cidrs:\n", *freed] if freed else ["    freed_pod_cidrs: []\n"]
    if ledger.node_ips:
        lines += [NODE_IPS, "    node_ips:\n"]
        for host, (interface, ips) in sorted(ledger.node_ips.items()):
            lines.append("      %s: {%s: [%s]}\n" % (_scalar(host), _scalar(interface), ", ".join('"%s"' % ip if ":" in ip else ip for ip in ips)))
    if ledger.removed:
        lines += [REMOVED, "    removed_hosts:\n", *("      - %s\n" % _scalar(host) for host in ledger.removed)]
    return "".join(lines)


def update(path: str, decide: Callable[[Optional[Ledger]], LedgerPlan], check_mode: bool, timeout: float) -> LedgerPlan:
    """Read the ledger, let ``decide`` plan and check everything that hangs on it, and write the ledger if it changes.

    The lock is taken only when there is something to write, and if the ledger is another one by then, all is decided again. A ledger that may
    only be read is an error as soon as there is something to write, in check mode too.

    :param decide: from the ledger, or None, to the plan. It raises to have nothing written.
    :param timeout: seconds to wait for the lock; 0 tries once.
    """
    content = _read(path)
    planned = decide(parse(content, path) if content else None)
    if not planned.plan.changes:
        return planned
    _refuse_unwritable(path)
    if check_mode:
        return planned
    with _lock(path, timeout):
        now = _read(path)
        if now != content:
            planned = decide(parse(now, path) if now else None)
        if planned.plan.changes and planned.ledger is not None:
            _store(planned.ledger, path)
    return planned


def _store(ledger: Ledger, path: str) -> None:
    content = dump(ledger).encode()
    target = os.path.realpath(path)
    temporary = _files.temporary_name(target)
    try:
        old = os.stat(target)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(content)
            f.flush()
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.fchown(fd, old.st_uid, old.st_gid)  # a run as root does not take the file from its owner
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
            os.fsync(fd)
        os.rename(temporary, target)
        _files.sync_folder(os.path.dirname(target))
    except OSError as e:
        raise _unwritable(path, e)


@contextlib.contextmanager
def _lock(path: str, timeout: float) -> Iterator[None]:
    """Hold the lock of the ledger, which is on the file itself: nothing is left beside the inventory."""
    deadline = time.monotonic() + timeout
    while True:
        fd = _open(path)
        try:
            _wait(fd, path, deadline)
            # A holder before us has put another file in its place, or has taken its empty one away.
            if _same(fd, path):
                break
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    try:
        yield
    finally:
        if os.fstat(fd).st_size == 0 and _same(fd, path):
            with contextlib.suppress(OSError):
                os.unlink(os.path.realpath(path))
        os.close(fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as e:
        raise _unwritable(path, e)


def _wait(fd: int, path: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise KindnetError(
                    path, "locked", "another run of kindnet.host holds the ledger", "Try again when it has ended; 'fuser -v %s' names it." % path
                )
            time.sleep(0.05)
        except OSError as e:
            raise KindnetError(path, e.strerror, "the ledger cannot be locked", "Keep it on a file system that has locks, see kindnet_ledger.")


def _same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _refuse_unwritable(path: str) -> None:
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise _unwritable(path, FileNotFoundError(0, "there is no folder %s" % folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(path, PermissionError(0, "the folder %s is read-only" % folder))
    # Neither root nor the rename that replaces the file would heed its mode.
    if os.path.exists(target) and not (os.access(target, os.W_OK) and os.stat(target).st_mode & 0o222):
        raise _unwritable(path, PermissionError(0, "it is read-only"))


def _unwritable(path: str, error: OSError) -> KindnetError:
    return KindnetError(
        path,
        error.strerror,
        "the ledger cannot be written, so nothing is given out",
        "Make the file and its folder writable for whoever runs the playbook, or set kindnet_ledger to another place.",
    )


def _blocks(path: str, owner: str, value: Any) -> Tuple[Range, ...]:
    if not isinstance(value, list):
        raise KindnetError(path, "%s: %s" % (owner, value), "the ledger is damaged, this is not a list of CIDRs", RESTORE)
    return tuple(parse_cidr("%s: %s" % (path, owner), item) for item in value)


def _node_ips(path: str, entries: Any) -> Dict[str, NodeIps]:
    """A mapping of host to interface to addresses."""
    if not isinstance(entries, dict):
        raise KindnetError(path, "node_ips", "the ledger is damaged, this is not a mapping", RESTORE)
    found = {}
    for host, value in entries.items():
        pairs = list(value.items()) if isinstance(value, dict) else []
        if not isinstance(host, str) or len(pairs) != 1 or not isinstance(pairs[0][0], str) or not isinstance(pairs[0][1], list) or not pairs[0][1]:
            raise KindnetError(path, "node_ips: %s" % host, "the ledger is damaged, this is not {interface: [address]}", RESTORE)
        interface, ips = pairs[0]
        found[host] = NodeIps(interface, tuple(parse_address("%s: node_ips: %s" % (path, host), ip).text for ip in ips))
    return found


def _names(path: str, value: Any) -> Tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise KindnetError(path, "removed_hosts", "the ledger is damaged, this is not a list of names", RESTORE)
    return tuple(value)


def _disjoint(ledger: Ledger, path: str) -> None:
    owned = [(block, host) for host, blocks in ledger.pod_cidrs.items() for block in blocks]
    overlap = first_overlap(owned + [(block, "freed_pod_cidrs") for block in ledger.freed])
    if overlap:
        (one, owner), (other, name) = overlap
        raise KindnetError(
            path,
            "%s (%s), %s (%s)" % (one.text, owner, other.text, name),
            "the ledger has one block twice, as two branches give it when each adds a host",
            "Take out the line of whichever host is not converged yet; the next run gives it another block.",
        )


def _scalar(text: str) -> str:
    """A string as YAML, in quotes only where it must be."""
    if _PLAIN.match(text) and text.lower() not in _WORDS:
        return text
    return '"%s"' % "".join(_quoted(c) for c in text)


def _quoted(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else "\\U%08x" % ord(char)


def _cidr(block: Range) -> str:
    return '"%s"' % block.text if block.family == 6 else block.text
