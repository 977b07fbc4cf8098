# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interfaces of this host as the kernel tells them. Looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

import struct
from collections import namedtuple

from . import _rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, NamedTuple, Tuple

    class Link(NamedTuple):
        number: int
        name: str
        mtu: int
        is_up: bool  # and has a link
        kind: str  # "veth", "bridge", ...; "" of hardware
        mac: str
else:
    Link = namedtuple("Link", "number name mtu is_up kind mac")

# linux/rtnetlink.h, linux/if_link.h, linux/if.h
RTM_NEWLINK, RTM_GETLINK = 16, 18
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO = 1, 3, 4, 18
IFLA_INFO_KIND = 1
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
IFINFOMSG = struct.Struct("=BxHiII")
RTATTR = struct.Struct("=HH")
NESTED = 0x8000


def links() -> List[Link]:
    """All of them, in the order of their numbers."""
    return sorted(_rtnetlink.dump("interfaces of this host", RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0), RTM_NEWLINK, _parse))


def _parse(data: bytes, at: int, end: int) -> Link:
    _family, _type, index, flags, _change = IFINFOMSG.unpack_from(data, at)
    name = kind = mac = ""
    mtu = 0
    for attribute, value in _attributes(data[at + IFINFOMSG.size : end]):
        if attribute == IFLA_IFNAME:
            name = _text(value)
        elif attribute == IFLA_MTU:
            (mtu,) = struct.unpack("=I", value)
        elif attribute == IFLA_ADDRESS:
            mac = ":".join("%02x" % byte for byte in value)
        elif attribute == IFLA_LINKINFO:
            kind = next((_text(inner) for its_kind, inner in _attributes(value) if its_kind == IFLA_INFO_KIND), "")
    return Link(index, name, mtu, flags & IFF_UP > 0 and flags & IFF_LOWER_UP > 0, kind, mac)


def _attributes(data: bytes) -> List[Tuple[int, bytes]]:
    found = []
    at = 0
    while at + RTATTR.size <= len(data):
        length, kind = RTATTR.unpack_from(data, at)
        found.append((kind & ~NESTED, data[at + RTATTR.size : at + length]))
        at += max(RTATTR.size, (length + 3) & ~3)
    return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
