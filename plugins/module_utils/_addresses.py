# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses of an interface can be a node's. Asks the kernel, changes nothing."""

from __future__ import annotations

__metaclass__ = type

import socket
import struct
from collections import namedtuple

from . import _rtnetlink
from ._errors import KindnetError
from ._node_table import BITS, SPECIAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, NamedTuple, Tuple

    class Address(NamedTuple):
        """One address as the kernel tells it."""

        family: int  # 4 or 6
        packed: bytes
        prefix: int
        scope: int
        flags: int
else:
    Address = namedtuple("Address", "family packed prefix scope flags")

# linux/rtnetlink.h, linux/if_addr.h
RTM_NEWADDR, RTM_GETADDR = 20, 22
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
RT_SCOPE_UNIVERSE = 0
# SECONDARY and TEMPORARY are the same bit: of IPv4 a further address of a network, of IPv6 one that changes for privacy.
SECONDARY, DADFAILED, DEPRECATED, TENTATIVE, PERMANENT = 0x01, 0x08, 0x20, 0x40, 0x80
IFADDRMSG = struct.Struct("=BBBBI")
RTATTR = struct.Struct("=HH")
FAMILIES = {socket.AF_INET: 4, socket.AF_INET6: 6}


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
    return [text_of(a) for _key, a in sorted(keyed)]


def addresses_of(index: int) -> List[Address]:
    """All addresses of the interface with this index."""
    return [address for its_index, address in _read("addresses of interface %d" % index) if its_index == index]


def by_index() -> Dict[int, List[Address]]:
    """All addresses of this host by the index of their interface, in the kernel's order."""
    found: Dict[int, List[Address]] = {}
    for index, address in _read("addresses of this host"):
        found.setdefault(index, []).append(address)
    return found


def text_of(address: Address) -> str:
    return socket.inet_ntop(socket.AF_INET6 if address.family == 6 else socket.AF_INET, address.packed)


def _read(what: str) -> List[Tuple[int, Address]]:
    request = IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    return [(index, address) for index, address in _rtnetlink.dump(what, RTM_GETADDR, request, RTM_NEWADDR, _parse) if address.family]


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
