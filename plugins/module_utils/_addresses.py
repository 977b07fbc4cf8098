# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses of an interface can be a node's. Asks the kernel, changes nothing."""

from __future__ import annotations

__metaclass__ = type

import errno
import socket
import struct
from collections import namedtuple

from ._errors import KindnetError
from ._node_table import BITS, SPECIAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, NamedTuple, Tuple

    class Address(NamedTuple):
        """One address as the kernel tells it."""

        family: int  # 4 or 6
        packed: bytes
        prefix: int
        scope: int
        flags: int
else:
    Address = namedtuple("Address", "family packed prefix scope flags")

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
RTM_NEWADDR, RTM_GETADDR = 20, 22
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
RT_SCOPE_UNIVERSE = 0
# SECONDARY and TEMPORARY are the same bit: of IPv4 a further address of a network, of IPv6 one that changes for privacy.
SECONDARY, DADFAILED, DEPRECATED, TENTATIVE, PERMANENT = 0x01, 0x08, 0x20, 0x40, 0x80
NLMSGHDR = struct.Struct("=IHHII")
IFADDRMSG = struct.Struct("=BBBBI")
RTATTR = struct.Struct("=HH")
FAMILIES = {socket.AF_INET: 4, socket.AF_INET6: 6}
ATTEMPTS = 20


class Interrupted(Exception):
    """The addresses changed while they were dumped."""


def candidates(interface: str) -> List[str]:
    """Addresses of ``interface`` by which peers can reach this host, the best one first.

    Errors: :class:`KindnetError` if there is no such interface.
    """
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        names = ", ".join(sorted(name for _index, name in socket.if_nameindex()))
        raise KindnetError("kindnet_node_interface", interface, "is no interface of this host (%s)" % names, "Name the one that reaches the peers.")
    return choose(addresses_of(index))


def choose(addresses: List[Address]) -> List[str]:
    """Those that are neither temporary, deprecated, link-local, loopback nor unusable, in an order that only they themselves decide.

    IPv4 first; of a family the primary ones before those added to the same network, configured ones before those that a lease or a router
    gave, and those of a network before single ones, as which services that move between hosts are often kept.
    """
    keyed = []
    for a in addresses:
        secondary = bool(a.flags & SECONDARY)
        unusable = a.flags & (DEPRECATED | TENTATIVE | DADFAILED) or (a.family == 6 and secondary)
        number = int.from_bytes(a.packed, "big")
        if unusable or a.scope != RT_SCOPE_UNIVERSE or any(r.first <= number <= r.last for r, _what in SPECIAL[a.family]):
            continue
        keyed.append(((a.family, secondary, not a.flags & PERMANENT, a.prefix == BITS[a.family], number), a))
    return [socket.inet_ntop(socket.AF_INET6 if a.family == 6 else socket.AF_INET, a.packed) for _key, a in sorted(keyed)]


def addresses_of(index: int) -> List[Address]:
    """All addresses of the interface with this index."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as s:
            s.bind((0, 0))
            s.settimeout(5.0)
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return _dump(s, attempt, index)
                except Interrupted:
                    continue
    except OSError as e:
        name = errno.errorcode.get(e.errno or 0, str(e.errno))
        raise KindnetError("addresses of interface %d" % index, name, "cannot be read (%s)" % e.strerror, "Look at dmesg.")
    raise KindnetError("addresses of interface %d" % index, "%d attempts" % ATTEMPTS, "changed all the while they were read", "Try again.")


def _dump(s: socket.socket, sequence: int, index: int) -> List[Address]:
    body = IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    s.sendto(NLMSGHDR.pack(NLMSGHDR.size + len(body), RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence, 0) + body, (0, 0))
    found: List[Address] = []
    interrupted = False
    while True:
        data, sender = s.recvfrom(1 << 16)
        at = 0
        while sender[0] == 0 and at < len(data):
            length, kind, flags, number, _port = NLMSGHDR.unpack_from(data, at)
            if number == sequence:
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == RTM_NEWADDR:
                    its_index, address = _parse(data, at + NLMSGHDR.size, at + length)
                    if its_index == index and address.family:
                        found.append(address)
                elif kind == NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, at + NLMSGHDR.size)[0], "the kernel refuses to tell")
                elif kind == NLMSG_DONE:
                    if interrupted:
                        raise Interrupted
                    return found
            at += (length + 3) & ~3


def _parse(data: bytes, at: int, end: int) -> Tuple[int, Address]:
    family, prefix, flags, scope, index = IFADDRMSG.unpack_from(data, at)
    at += IFADDRMSG.size
    address = local = b""
    while at + RTATTR.size <= end:
        length, kind = RTATTR.unpack_from(data, at)
        value = data[at + RTATTR.size : at + length]
        if kind == IFA_ADDRESS:
            address = value
        elif kind == IFA_LOCAL:  # on a point-to-point link IFA_ADDRESS is the other end
            local = value
        elif kind == IFA_FLAGS:  # all 32 bits of what the header has 8 of
            (flags,) = struct.unpack("=I", value)
        at += (length + 3) & ~3
    return index, Address(FAMILIES.get(family, 0), local or address, prefix, scope, flags)
