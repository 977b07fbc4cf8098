# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet-watch.service: starts a pass as soon as the kernel tells of a change to what is ours. It looks at nothing and repairs nothing itself.

It sleeps in poll(2) without a timeout. What it wakes for comes from netlink (routes, rules of nf_tables) and inotify (files); what has no events, as
iptables-legacy and settings of the kernel, is left to the timer. Started through systemd, a pass is the timer's: one unit, one lock, one journal.

What happens during a pass may be the pass's own doing or somebody else's, of which it may have seen nothing. So one more pass looks; it finds
nothing to do, hence makes no event, and that is the end of it. Somebody who changes things back each time meets the limit on passes per minute.
"""

from __future__ import annotations

__metaclass__ = type

import ctypes
import errno
import gc
import os
import select
import socket
import struct
import sys
import time
from collections import deque, namedtuple

from . import _desired
from ._errors import KindnetError
from ._netlink import NLMSGHDR, RTA_DST, RTATTR, RTM_NEWROUTE, RTMSG
from ._plan_chain import NFT_TABLE
from ._reconcile import ERROR, as_kindnet_error, fail, refuse_others_than_root, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Deque, Dict, FrozenSet, Iterable, NamedTuple, NoReturn, Optional, Sequence, Set, Tuple

    class Interests(NamedTuple):
        """What is ours on this host, as far as there are events about it."""

        protocol: int = 0  # of routes; 0: none
        chains: FrozenSet[str] = frozenset()  # that rules of ours are in
        uses_nft: bool = False
        files: FrozenSet[str] = frozenset()
else:
    Interests = namedtuple("Interests", "protocol chains uses_nft files", defaults=(0, frozenset(), False, frozenset()))

SERVICE = "kindnet-reconcile.service"
CURRENT = "/usr/local/lib/kindnet/current"
SYSCTL_FILE = "/etc/sysctl.d/zz-kindnet.conf"

QUIET = 0.1  # seconds without an event, after which what happened is over
LONGEST = 0.4  # seconds to wait for that
PASSES, PERIOD = 20, 60.0  # so many passes in so many seconds, and no more

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, NFNLGRP_NFTABLES = 7, 11, 7
RTPROT_KERNEL, RT_TABLE_MAIN, RTN_UNICAST = 2, 254, 1
LINK_LOCAL = b"\xfe\x80"

# Of nf_tables: which messages name a chain, and by which attribute. Each names its table by the first.
NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN = 10, 15
NFTA_TABLE = 1
CHAIN_ATTRIBUTE = {3: 3, 5: 3, 6: 2, 8: 2}  # NFT_MSG_NEWCHAIN and DELCHAIN: NFTA_CHAIN_NAME; NEWRULE and DELRULE: NFTA_RULE_CHAIN
NFGENMSG = 4  # bytes

# linux/filter.h, which sees a message as the network would: what begins at byte 16 is the rtmsg.
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33  # beyond net.core.rmem_max, whose usual 212 kB overflow by a thousand rules of others at once
MOST_WAITING = 1 << 23  # bytes, taken while they wait to be read alone
INSTRUCTION = struct.Struct("=HBBI")
BPF_LD_B_ABS, BPF_JEQ, BPF_RET = 0x30, 0x15, 0x06
PROTOCOL_AT = 16 + 5

IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
IN_ONLYDIR = 0x1000000
ASKED = IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
FOLDER_LOST = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED
INOTIFY_EVENT = struct.Struct("=iIII")


def interests_of(sections: Dict[str, Dict[str, Any]]) -> Interests:
    """What the recorded desired state asks to be kept. Pure."""
    present = {name: section for name, section in sections.items() if section.get("state") != "absent"}
    masq, forward = present.get("masq", {}), present.get("neighbours", {}).get("forward")
    chains: Set[str] = set()
    if masq:
        chains |= {masq["chain"], "POSTROUTING"}
    if forward:
        chains |= {"FORWARD", "DOCKER-USER"}
    files = set(present.get("cni_plugins", {}).get("links", ()))
    if "conflist" in present:
        files.add(present["conflist"]["path"])
    if "sysctl" in present:
        files.add(SYSCTL_FILE)
    protocol = present["routes"]["protocol"] if "routes" in present else 0
    return Interests(protocol, frozenset(chains), masq.get("backend", "iptables-legacy") != "iptables-legacy" or bool(forward), frozenset(files))


def is_about_our_routes(data: bytes, protocol: int) -> bool:
    """Whether one of these messages tells of a route of ours, or of a network that a peer may be reached by from now on. Pure.

    When an interface goes down, IPv4 routes go without a word; when it is up again, the kernel adds the one to its network.
    """
    for kind, at, end in messages(data):
        family, prefix, _source, _tos, table, proto, _scope, route_type, _flags = RTMSG.unpack_from(data, at)
        if protocol and proto == protocol:
            return True
        is_network = kind == RTM_NEWROUTE and proto == RTPROT_KERNEL and table == RT_TABLE_MAIN and route_type == RTN_UNICAST
        if is_network and prefix < (32 if family == socket.AF_INET else 128):
            destination = dict(attributes(data, at + RTMSG.size, end)).get(RTA_DST, b"")
            # Every interface has that one when it comes up, as those of pods.
            if not destination.startswith(LINK_LOCAL):
                return True
    return False


def is_about_our_rules(data: bytes, chains: FrozenSet[str]) -> bool:
    """Whether one of these messages tells of our table, or of a chain that rules of ours are in. Pure."""
    for kind, at, end in messages(data):
        if kind >> 8 != NFNL_SUBSYS_NFTABLES or kind & 0xFF == NFT_MSG_NEWGEN:
            continue
        names = {a: value.rstrip(b"\0").decode("utf-8", "replace") for a, value in attributes(data, at + NFGENMSG, end)}
        if names.get(NFTA_TABLE) == NFT_TABLE or names.get(CHAIN_ATTRIBUTE.get(kind & 0xFF, 0)) in chains:
            return True
    return False


def messages(data: bytes) -> Iterable[Tuple[int, int, int]]:
    """Of each netlink message: its type, where its content begins, and where it ends."""
    at = 0
    while at + NLMSGHDR.size <= len(data):
        length, kind, _flags, _sequence, _port = NLMSGHDR.unpack_from(data, at)
        if length < NLMSGHDR.size:
            return
        yield kind, at + NLMSGHDR.size, at + length
        at += (length + 3) & ~3


def attributes(data: bytes, at: int, end: int) -> Iterable[Tuple[int, bytes]]:
    """The first few, which name what the message is about."""
    for _attribute in range(3):
        if at + RTATTR.size > end:
            return
        length, kind = RTATTR.unpack_from(data, at)
        if length < RTATTR.size:
            return
        yield kind & 0x3FFF, data[at + RTATTR.size : at + length]
        at += (length + 3) & ~3


class Routes:
    """Events of routes. The kernel leaves out those of other protocols, so that a full BGP feed wakes nobody."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self.socket = subscribe(NETLINK_ROUTE, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE)
        program = b"".join(
            INSTRUCTION.pack(*instruction)
            for instruction in (
                (BPF_LD_B_ABS, 0, 0, PROTOCOL_AT),
                (BPF_JEQ, 2, 0, protocol or RTPROT_KERNEL),
                (BPF_JEQ, 1, 0, RTPROT_KERNEL),
                (BPF_RET, 0, 0, 0),
                (BPF_RET, 0, 0, 0xFFFFFFFF),
            )
        )
        held = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("HP", len(program) // INSTRUCTION.size, ctypes.addressof(held))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)

    def matters(self) -> bool:
        return drain(self.socket, lambda data: is_about_our_routes(data, self._protocol))


class Rules:
    """Events of nf_tables, which iptables-nft works through, too."""

    def __init__(self, chains: FrozenSet[str]) -> None:
        self._chains = chains
        self.socket = subscribe(NETLINK_NETFILTER, NFNLGRP_NFTABLES)

    def matters(self) -> bool:
        return drain(self.socket, lambda data: is_about_our_rules(data, self._chains))


def subscribe(protocol: int, *groups: int) -> socket.socket:
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    s.bind((0, 0))  # without a port of its own it would hear nothing
    try:
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, MOST_WAITING)
    except PermissionError:  # root of a container that has users of its own: what overflows is a pass
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MOST_WAITING)
    for group in groups:
        s.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    return s


def drain(s: socket.socket, matters: Callable[[bytes], bool]) -> bool:
    """Read all there is to read; whether some of it matters. What was lost may have."""
    found = False
    while True:
        try:
            data, sender = s.recvfrom(1 << 16)
        except BlockingIOError:
            return found
        except OSError as e:
            if e.errno != errno.ENOBUFS:
                raise
            found = True
            continue
        found = found or (sender[0] == 0 and matters(data))


class Files:
    """Events of files, which may come and go together with their folders. Python has no module for inotify."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            problem = os.strerror(ctypes.get_errno())
            raise KindnetError("inotify", problem, "cannot be used", "If it is too many of them, raise fs.inotify.max_user_instances.")
        self._paths: Dict[Tuple[int, str], Set[str]] = {}  # of each folder, by its number, the names that lead to a path

    def watch(self, paths: Iterable[str]) -> None:
        """From now on these, and each folder on the way to them, as it is now."""
        self._paths = {}
        numbers: Dict[str, int] = {}
        for path in paths:
            folder = "/"
            for name in path.strip("/").split("/"):
                if folder not in numbers:  # the same number again for a folder that is watched already
                    numbers[folder] = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), ASKED)
                if numbers[folder] < 0:
                    break
                self._paths.setdefault((numbers[folder], name), set()).add(path)
                folder = os.path.join(folder, name)

    def changed(self) -> Set[str]:
        """Those of the paths that something has happened to since."""
        changed: Set[str] = set()
        while True:
            try:
                data = os.read(self.fd, 1 << 14)
            except BlockingIOError:
                return changed
            at = 0
            while at < len(data):
                number, mask, _cookie, length = INOTIFY_EVENT.unpack_from(data, at)
                at += INOTIFY_EVENT.size + length
                name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
                if mask & IN_Q_OVERFLOW or mask & FOLDER_LOST:
                    changed.update(path for (n, _name), paths in self._paths.items() if mask & IN_Q_OVERFLOW or n == number for path in paths)
                else:
                    changed |= self._paths.get((number, name), set())


class Limit:
    """At most PASSES in any PERIOD. Pure but for what it remembers."""

    def __init__(self) -> None:
        self._began: Deque[float] = deque()
        self._met = -PERIOD  # when it last held a pass back
        self.is_new = False  # whether it holds this one back, and none before for long

    def delay(self, now: float) -> float:
        """Count a pass, which is to begin after so many seconds."""
        while self._began and self._began[0] <= now - PERIOD:
            self._began.popleft()
        wait = self._began[-PASSES] + PERIOD - now if len(self._began) >= PASSES else 0.0
        self.is_new = wait > 0 and now - self._met >= PERIOD
        if wait > 0:
            self._met = now + wait
        self._began.append(now + wait)
        return wait


def settle(now: Callable[[], float], wait: Callable[[float], bool]) -> None:
    """Return QUIET seconds after the last event that matters, or LONGEST after the first, which has been. ``wait`` says whether there was another."""
    end = now() + LONGEST
    quiet = now() + QUIET
    while now() < min(quiet, end):
        if wait(min(quiet, end) - now()):
            quiet = now() + QUIET


class Watch:
    """The sources of events, and what to do about them."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._files = Files()
        self._poll.register(self._files.fd, select.POLLIN)
        self._interests = Interests()
        self._routes: Optional[Routes] = None
        self._rules: Optional[Rules] = None
        self._code = os.path.realpath(CURRENT)
        self._read_record()

    def _read_record(self) -> None:
        try:
            interests = interests_of(_desired.load().sections)
        except (KindnetError, KeyError, TypeError, AttributeError):
            interests = self._interests  # passes say what is wrong with it
        if self._routes is None or interests.protocol != self._interests.protocol:
            self._exchange(self._routes, Routes(interests.protocol))
        if self._rules is None or (interests.chains, interests.uses_nft) != (self._interests.chains, self._interests.uses_nft):
            self._exchange(self._rules, rules_or_none(interests))
        self._interests = interests
        self._files.watch((_desired.FILE, CURRENT, *interests.files))

    def _exchange(self, old: Any, new: Any) -> None:
        if old is not None:
            self._poll.unregister(old.socket)
            old.socket.close()
        if new is not None:
            self._poll.register(new.socket, select.POLLIN)
        if isinstance(new, Routes):
            self._routes = new
        else:
            self._rules = new

    def matters(self) -> bool:
        """Take in all that has happened; whether a pass should look."""
        found = self._routes is not None and self._routes.matters()
        found = (self._rules is not None and self._rules.matters()) or found
        changed = self._files.changed()
        if changed:
            if CURRENT in changed and os.path.realpath(CURRENT) != self._code and os.path.isdir(CURRENT):
                os.execv(sys.argv[0], sys.argv)  # another version; its watch begins anew
            self._read_record()  # and look which folders there are now
        # The module that wrote the record applies it, too.
        return found or not changed <= {_desired.FILE, CURRENT}

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Sleep until something happens, or so long; whether it matters."""
        self._poll.poll(None if seconds is None else max(0, seconds) * 1000)
        return self.matters()


def rules_or_none(interests: Interests) -> Optional[Rules]:
    if not interests.uses_nft:
        return None
    try:
        return Rules(interests.chains)
    except OSError as e:
        if e.errno != errno.EPROTONOSUPPORT:
            raise
        return None  # a kernel without nf_tables


def start_pass() -> None:
    """Have systemd make a pass that begins after now, and wait for its end."""
    since = time.monotonic()
    systemctl("start", SERVICE)
    began = systemctl("show", "--property=ExecMainStartTimestampMonotonic", "--value", SERVICE)
    if began.isdigit() and int(began) < since * 1e6:
        systemctl("start", SERVICE)  # the first has joined a pass that had begun, and may have looked before


def systemctl(*arguments: str) -> str:
    """What it printed; what it has to complain of goes to the journal. Without subprocess, which is as large as all the rest."""
    reading, writing = os.pipe()
    try:
        command = ("systemctl", "--quiet", "--no-ask-password", *arguments)
        child = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
    finally:
        os.close(writing)
    with open(reading, encoding="utf-8") as output:
        text = output.read()
    os.waitpid(child, 0)
    return text.strip()


def main(argv: Sequence[str] = ()) -> int:
    """What kindnet-watch.service runs, until it is stopped."""
    gc.enable()  # the command turned it off, for a pass
    try:
        refuse_others_than_root()
        serve()
    except Exception as e:
        return fail(as_kindnet_error("kindnet-watch", e))  # systemd starts it again


def serve() -> NoReturn:
    watch, limit = Watch(), Limit()
    happened = False
    while True:
        while not happened:
            happened = watch.wait()
        settle(time.monotonic, watch.wait)
        delay = limit.delay(time.monotonic())
        if limit.is_new:
            say(
                ERROR,
                "problem: kindnet-watch: %d passes in %g s: something changes back what they repair, or much else beside it. Passes on events are held"
                " back; the timer's go on. Find out who with 'ip monitor route' and 'nft monitor'." % (PASSES, PERIOD),
            )
        time.sleep(delay)
        watch.matters()  # up to now; the pass sees it
        start_pass()
        happened = watch.matters()
