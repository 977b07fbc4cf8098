# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nat and filter tables of the kernel: looked at and changed through iptables, in either of its flavours. The only code that does.

A flavour is asked for by the name of its own program (``iptables-nft``, ``iptables-legacy``), never through ``iptables``, which an
administrator may point elsewhere at any time. A table that the kernel does not hold is empty and is not
asked about: merely listing a legacy table makes the kernel create it.
"""

from __future__ import annotations

__metaclass__ = type

import errno
import os
import re
import select
import socket
import struct
import time
from collections import namedtuple

from ._errors import Killed, KindnetError
from ._plan_chain import FAMILIES, POSTROUTING, Found, Place, command, leads_to, split_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Collection, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

    from ._plan_chain import Edit
    from ._plan_forward import Forward

    class Result(NamedTuple):
        status: int
        out: str
        err: str
else:
    Result = namedtuple("Result", "status out err")

FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin")
LOCK = "/run/xtables.lock"
LOADED = {"ipv4": "/proc/net/ip_tables_names", "ipv6": "/proc/net/ip6_tables_names"}
BUILT_IN = (POSTROUTING, "FORWARD")
TABLES = ("filter", "nat", "mangle", "raw", "security")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
SPARE_TIME = 20  # seconds beyond the wait for the lock, after which a program hangs rather than works
LEAST_TIME = 2.0  # seconds, with less than which no program is started

# linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NFPROTO = {"inet": 1, "ipv4": 2, "ipv6": 10}
_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_GETTABLE, _NFT_MSG_GETCHAIN = 1, 4
_NFTA_TABLE_NAME, _NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME = 1, 1, 3
_NLM_F_REQUEST, _NLMSG_ERROR = 1, 2


class Patience:
    """For how long iptables and the kernel are waited for: by a module as long as each call says, by a pass no longer altogether than it has
    time for, lest systemd ends it before it came to the other concerns.

    A call gets half of what is left, so one that hangs costs its own family and leaves something for the next. After a lock of iptables was
    waited for in vain, it is given no more than a second: 0 would mean for ever to some versions.
    """

    def __init__(self) -> None:
        self.left = float("inf")  # seconds, for all calls together
        self.lock_is_held = False

    def bound(self, seconds: float) -> None:
        """From now on, for the rest of this process."""
        self.left = min(self.left, seconds)

    def is_bound(self) -> bool:
        return self.left != float("inf")

    def time_for(self, seconds: float) -> float:
        """How much of ``seconds`` the next call may take."""
        return max(0.01, min(seconds, self.left / 2))

    def lock_wait(self, seconds: int) -> int:
        """How long the next call may wait for the lock, and still has time to say that it waited in vain."""
        return 1 if self.is_bound() and self.lock_is_held else int(max(1, min(seconds, self.left / 2 - 1)))


PATIENCE = Patience()


class Iptables:
    """One flavour of iptables, both families.

    Every method takes the family; those that may meet the xtables lock take ``lock_wait``, in seconds. Errors: :class:`KindnetError`.
    Another firewall fits beside it with the same methods, in :data:`BACKENDS`.
    """

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour

    def require(self, family: str) -> None:
        """Raise unless the programs for this family are installed."""
        for suffix in ("", "-restore"):
            self._path(family, suffix)

    def installed(self, family: str) -> bool:
        return bool(find(command(Place(self.flavour, family))))

    def has_chain(self, family: str, chain: str, lock_wait: int) -> bool:
        """Whether the nat table has ``chain``. Costs a process only where a legacy table is loaded."""
        if self.flavour == "nft":
            return nft_has(family, "nat", chain)
        if "nat" not in legacy_tables(family) or not self.installed(family):
            return False
        return self._list(family, chain, lock_wait) is not None

    def read(self, family: str, chain: str, lock_wait: int) -> Found:
        """Our chain, and all of POSTROUTING. Costs two processes, however many rules others have, and none for a missing table."""
        if self.flavour == "nft":
            if not nft_has(family, "nat"):
                return Found(None)
            if not nft_has(family, "nat", chain):
                # Also to meet a table that iptables cannot work on before anything is recorded.
                return Found(None, (self._list(family, POSTROUTING, lock_wait) or ()) if self.installed(family) else ())
        elif "nat" not in legacy_tables(family):
            return Found(None)
        rules = self._list(family, chain, lock_wait)
        return Found(rules, self._list(family, POSTROUTING, lock_wait) or ())

    def read_for_removal(self, family: str, chain: str, lock_wait: int) -> Found:
        """As :meth:`read`, and who else leads to the chain; for that the whole table is listed, if the chain is there at all."""
        if not self.has_chain(family, chain, lock_wait):
            return Found(None)
        result = self._run(family, "", ["-t", "nat", "-S"], lock_wait)
        if result.status and _incompatible(result):
            # A chain elsewhere in the table is beyond iptables, ours need not be. The kernel refuses to drop one still in use.
            return self.read(family, chain, lock_wait)
        self._raise_for(family, result)
        lines = split_lines(result.out)
        if "-N " + chain not in lines:
            return Found(None)
        own, postrouting = "-A %s " % chain, "-A %s " % POSTROUTING
        return Found(
            tuple(line[len(own):] for line in lines if line.startswith(own)),
            tuple(line[len(postrouting):] for line in lines if line.startswith(postrouting)),
            tuple(line for line in lines if not line.startswith((own, postrouting)) and leads_to(line, chain)),
        )

    def read_nat(self, family: str, lock_wait: int) -> Dict[str, Tuple[str, ...]]:
        """The rules of each chain of the nat table; {} without one, or one that iptables cannot list. Costs a process."""
        if not self.installed(family) or not (nft_has(family, "nat", POSTROUTING) if self.flavour == "nft" else "nat" in legacy_tables(family)):
            return {}
        result = self._run(family, "", ["-t", "nat", "-S"], lock_wait)
        if result.status and _incompatible(result):
            return {}
        self._raise_for(family, result)
        rules: Dict[str, List[str]] = {}
        for line in split_lines(result.out):
            verb, chain, *rest = line.split(" ", 2)
            found = rules.setdefault(chain, [])
            if verb == "-A":
                found.append(rest[0])
        return {chain: tuple(found) for chain, found in rules.items()}

    def read_counted(self, family: str, chain: str, lock_wait: int) -> Tuple[Optional[Tuple[str, ...]], Tuple[str, ...]]:
        """As :meth:`read`, the rules of our chain with what each has counted, as ``-v`` prints it."""
        if not (nft_has(family, "nat", chain) if self.flavour == "nft" else "nat" in legacy_tables(family)):
            return None, ()
        lines = self._lines(family, chain, lock_wait, "nat", ["-v"])
        return None if lines is None else _rules_of(lines, chain), self._list(family, POSTROUTING, lock_wait) or ()

    def read_forward(self, family: str, lock_wait: int) -> Optional[Forward]:
        """What forwarded packets meet in the filter table; None where they meet nothing. Costs a process, and one more with Docker."""
        from ._plan_forward import DOCKER_USER, FORWARD, Forward  # a host where nothing is dropped never pays for it

        if self.flavour == "nft":
            if not nft_has(family, "filter", FORWARD):
                return None
        elif "filter" not in legacy_tables(family):
            return None
        lines = self._lines(family, FORWARD, lock_wait, "filter")
        if lines is None:
            return None
        rules = _rules_of(lines, FORWARD)
        has_docker = any(leads_to(rule, DOCKER_USER) for rule in rules)
        docker = self._lines(family, DOCKER_USER, lock_wait, "filter") if has_docker else None
        return Forward(lines[0].split()[2], rules, None if docker is None else _rules_of(docker, DOCKER_USER))

    def commit(self, family: str, edits: Sequence[Edit], lock_wait: int, table: str = "nat") -> None:
        """Make all ``edits`` in one transaction of the kernel, or none of them."""
        script = restore_script(edits, table)
        result = self._run(family, "-restore", ["--noflush"], lock_wait, script.encode("utf-8", "surrogateescape"))
        self._raise_for(family, result, script, table)

    def count_others(self, chains: Collection[str]) -> int:
        """How many rules and chains both families hold in this flavour: but those that have to do with ``chains``, and ours for forwarding."""
        from ._plan_forward import is_ours

        count = 0
        for family in FAMILIES:
            if not (self._tables(family) and find(command(Place(self.flavour, family)) + "-save")):
                continue
            result = run([self._path(family, "-save")], b"", SPARE_TIME)
            self._raise_for(family, result)
            for line in split_lines(result.out):
                if line.startswith("-A "):
                    count += not (is_ours(line) or any(line.startswith("-A %s " % chain) or leads_to(line, chain) for chain in chains))
                elif line.startswith(":"):
                    count += line.split()[1] == "-" and line.split()[0][1:] not in chains  # built-in chains have a policy there
        return count

    def _tables(self, family: str) -> Set[str]:
        if self.flavour == "nft":
            return {table for table in TABLES if nft_has(family, table)}
        return legacy_tables(family)

    def _list(self, family: str, chain: str, lock_wait: int) -> Optional[Tuple[str, ...]]:
        """The rules of ``chain`` of the nat table; None when there is no such chain."""
        lines = self._lines(family, chain, lock_wait, "nat")
        return None if lines is None else _rules_of(lines, chain)

    def _lines(self, family: str, chain: str, lock_wait: int, table: str, options: Sequence[str] = ()) -> Optional[List[str]]:
        """What ``-S`` prints of ``chain``, its declaration first; None when there is no such chain."""
        result = self._run(family, "", ["-t", table, *options, "-S", chain], lock_wait)
        if result.status:
            if "No chain/target/match by that name" in result.err:
                return None
            # iptables-nft 1.8.9 says of a missing chain what it says of one it cannot work on.
            if _incompatible(result) and chain not in BUILT_IN and not nft_has(family, table, chain):
                return None
        self._raise_for(family, result, table=table)
        lines = split_lines(result.out)
        if not lines or lines[0].split()[:2] not in (["-N", chain], ["-P", chain]):
            # An empty answer must not pass for an empty chain: every pass would then lay it anew.
            raise KindnetError(
                command(Place(self.flavour, family)),
                "-t %s -S %s" % (table, chain),
                "printed something else than the rules of the chain: %r" % result.out[:200],
                "Run it by hand; nothing was changed.",
            )
        return lines

    def _path(self, family: str, suffix: str) -> str:
        name = command(Place(self.flavour, family)) + suffix
        path = find(name)
        if not path:
            raise KindnetError("iptables", name, "is not installed, or not in %s" % ", ".join(FOLDERS), _INSTALL[self.flavour])
        return path

    def _run(self, family: str, suffix: str, arguments: List[str], lock_wait: int, stdin: bytes = b"") -> Result:
        wait = PATIENCE.lock_wait(lock_wait)
        result = run([self._path(family, suffix), "-w", str(wait)] + arguments, stdin, wait + SPARE_TIME)
        if result.status and "xtables lock" in result.err:
            PATIENCE.lock_is_held = True
            raise KindnetError(
                LOCK,
                "waited %d s" % wait,
                "another program holds the lock of iptables (%s)" % command(Place(self.flavour, family)),
                "The table is as it was; try again, as a pass does. 'fuser -v %s' names the holder." % LOCK,
            )
        return result

    def _raise_for(self, family: str, result: Result, script: str = "", table: str = "nat") -> None:
        if not result.status:
            return
        name = command(Place(self.flavour, family))
        said = "; ".join(line.strip() for line in result.err.splitlines() if line.strip() and not line.startswith("# Warning"))
        if "Permission denied" in said or "Operation not permitted" in said or "you must be root" in said:
            raise KindnetError(name, said, "may not look at or change the %s table" % table, "Run as root (become: true), with CAP_NET_ADMIN.")
        if _incompatible(result):
            raise KindnetError(
                name,
                said,
                "the %s table holds rules made by nft itself, which iptables cannot work on; it is left as it is" % table,
                "Look with 'nft list ruleset', move those rules to a table of their own,"
                " or use the other flavour (of the roles: kindnet_masq_backend: iptables-legacy, or nftables).",
            )
        if "can't initialize" in said or "do you need to insmod" in said:
            modules = "nf_nat, xt_MASQUERADE"
            if self.flavour == "legacy":
                modules = "%s_%s, xt_MASQUERADE" % ("iptable" if family == "ipv4" else "ip6table", table)
            # The service of a pass may not load modules; this is how they are there after a reboot.
            remedy = "Load its modules (%s) with modprobe, and name them in a file of /etc/modules-load.d; or use the other flavour." % modules
            raise KindnetError(name, said, "the kernel does not offer a %s table" % table, remedy)
        line = re.search(r"line:? (\d+)", said)
        if script and line and int(line.group(1)) <= script.count("\n"):
            said += " [%s]" % script.split("\n")[int(line.group(1)) - 1]
        raise KindnetError(
            name,
            said or "status %d" % result.status,
            "the transaction was refused, the table is as it was" if script else "failed",
            "Look at it with '%s -t %s -S'. Needed of the kernel: addrtype, comment, MASQUERADE." % (name, table),
        )


BACKENDS: Dict[str, Iptables] = {flavour: Iptables(flavour) for flavour in ("nft", "legacy")}

_INSTALL = {
    "nft": "Install the package iptables (RHEL 9 and its rebuilds: iptables-nft), or use the role kindnet.host.prerequisites.",
    "legacy": "Install the package iptables (RHEL 9 and its rebuilds: iptables-legacy, from EPEL),"
    " or use another backend (of the roles: kindnet_masq_backend: iptables-nft, or nftables).",
}


def restore_script(edits: Sequence[Edit], table: str = "nat") -> str:
    """What iptables-restore reads to make ``edits``. With --noflush a line ``:CHAIN`` empties that one chain, or makes it."""
    lines = ["*" + table]
    for edit in edits:
        if edit.verb == "lay":
            lines.append(":%s - [0:0]" % edit.chain)
        elif edit.verb == "drop":
            lines += ["-F %s" % edit.chain, "-X %s" % edit.chain]
        flag = {"delete": "-D", "insert": "-I"}.get(edit.verb, "-A")
        position = " %d" % edit.position if edit.verb == "insert" else ""
        lines += ["%s %s%s %s" % (flag, edit.chain, position, rule) for rule in edit.rules]
    for line in lines:
        if "\n" in line or "\r" in line or "\0" in line:
            raise KindnetError(
                "%s/%s" % (table, edits[0].chain if table == "filter" else POSTROUTING),
                repr(line),
                "this rule has a line break in it, which iptables-restore cannot be told",
                "Delete it by its number: 'iptables -t %s -L CHAIN --line-numbers', then '-D CHAIN NUMBER'." % table,
            )
    return "\n".join(lines + ["COMMIT", ""])


def legacy_tables(family: str) -> Set[str]:
    """The legacy tables that this network namespace has."""
    path = LOADED[family]
    try:
        with open(path) as f:
            return set(f.read().split())
    except FileNotFoundError:
        return set()  # a kernel without legacy iptables, or not loaded
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be read", "Run as root (become: true).")


def default_flavour() -> Optional[str]:
    """What plain ``iptables`` is on this host; None without it."""
    path = find("iptables")
    if not path:
        return None
    result = run([path, "-V"], b"", SPARE_TIME)
    return "nft" if "nf_tables" in result.out else "legacy"  # before 1.8 there was no other, and no word about it


def find(name: str) -> Optional[str]:
    for folder in FOLDERS:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    return None


def nft_has(family: str, table: str, chain: Optional[str] = None) -> bool:
    """Ask the kernel for one nf_tables table, or one chain of it, without any program: as cheap as a system call, and creates nothing."""
    kind, attributes = _NFT_MSG_GETTABLE, _attribute(_NFTA_TABLE_NAME, table)
    if chain is not None:
        kind, attributes = _NFT_MSG_GETCHAIN, _attribute(_NFTA_CHAIN_TABLE, table) + _attribute(_NFTA_CHAIN_NAME, chain)
    body = struct.pack("=BBH", _NFPROTO[family], 0, 0) + attributes
    request = struct.pack("=IHHII", 16 + len(body), _NFNL_SUBSYS_NFTABLES << 8 | kind, _NLM_F_REQUEST, 1, 0) + body
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError as e:
        if e.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            return False  # a kernel without netfilter's netlink has no nf_tables either
        raise
    began = time.monotonic()
    try:
        sock.settimeout(PATIENCE.time_for(SPARE_TIME))
        sock.sendto(request, (0, 0))
        reply = sock.recv(65536)
    except socket.timeout:
        raise KindnetError(
            "nf_tables",
            "no answer",
            "the kernel does not say in time whether %s %s/%s is there" % (family, table, chain or ""),
            "Try again; another program may be busy with a large ruleset.",
        )
    finally:
        PATIENCE.left -= time.monotonic() - began
        sock.close()
    (answered,) = struct.unpack_from("=H", reply, 4)
    if answered != _NLMSG_ERROR:
        return True
    problem = -struct.unpack_from("=i", reply, 16)[0]
    if problem in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
        return False  # not there, or no nf_tables in this kernel
    raise KindnetError(
        "nf_tables",
        os.strerror(problem),
        "the kernel does not say whether %s %s/%s is there" % (family, table, chain or ""),
        "Run as root (become: true), with CAP_NET_ADMIN.",
    )


def _attribute(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def run(argv: List[str], stdin: bytes, timeout: float) -> Result:
    """Run a program to its end, or kill it after ``timeout`` seconds.

    Instead of subprocess, whose import alone costs a pass more than the program does. Through pipes, since a confined
    iptables (SELinux) may write to those and not to a file of ours.
    """
    allowed = PATIENCE.time_for(timeout)
    if PATIENCE.is_bound() and allowed < LEAST_TIME:
        raise KindnetError(
            argv[0], " ".join(argv[1:]), "was not run: what came before it took all the time of this pass", "See the other problems of this pass."
        )
    began = time.monotonic()
    child_in, to_child = os.pipe()
    from_child, child_out = os.pipe()
    errors_from_child, child_err = os.pipe()
    ours = [to_child, from_child, errors_from_child]
    theirs = [child_in, child_out, child_err]
    try:
        try:
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(theirs)]
            pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions)
        except OSError as e:
            raise KindnetError(argv[0], e.strerror, "cannot be run", "See that its package is installed whole.")
        finally:
            for fd in theirs:
                os.close(fd)
        try:
            said = _talk(ours, stdin, began + allowed)
        except BaseException:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise
        if said is None:
            os.kill(pid, 9)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for fd in ours:
            os.close(fd)
        PATIENCE.left -= time.monotonic() - began
    if said is None:
        raise Killed(
            argv[0],
            " ".join(argv[1:]),
            "did not end %s and was killed; a transaction not yet committed is void"
            % ("in the time that a pass has for it" if allowed < timeout else "within %g s" % timeout),
            "Run it by hand and see what it waits for.",
        )
    return Result(status, said[0].decode("utf-8", "surrogateescape"), said[1].decode("utf-8", "surrogateescape"))


def _talk(fds: List[int], stdin: bytes, deadline: float) -> Optional[Tuple[bytes, bytes]]:
    """Feed a program and collect what it prints until it closes both its outputs; None if the deadline came first.

    ``fds`` are our ends of its input, output and errors. One that is done with is closed and taken from the list.
    """
    to_child, *from_child = fds
    said: Dict[int, List[bytes]] = {fd: [] for fd in from_child}
    poll = select.poll()
    os.set_blocking(to_child, False)
    poll.register(to_child, select.POLLOUT)
    for fd in from_child:
        poll.register(fd, select.POLLIN)
    while len(fds) > (to_child in fds):
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            return None
        for fd, _unused in events:
            if fd == to_child:
                try:
                    stdin = stdin[os.write(fd, stdin):]
                except BrokenPipeError:
                    stdin = b""  # it ended early; its status and message say why
                done = not stdin
            else:
                part = os.read(fd, 65536)
                said[fd].append(part)
                done = not part
            if done:
                poll.unregister(fd)
                fds.remove(fd)
                os.close(fd)
    return b"".join(said[from_child[0]]), b"".join(said[from_child[1]])


def _rules_of(lines: Sequence[str], chain: str) -> Tuple[str, ...]:
    head = "-A %s " % chain
    return tuple(line[len(head):] for line in lines if line.startswith(head))


def _incompatible(result: Result) -> bool:
    return "is incompatible, use 'nft' tool" in result.err
