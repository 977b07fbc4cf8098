# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's routes, read over a raw netlink socket. The only code that does; what changes them is _route_writer.

Reading is part of every pass and has to be cheap: importing pyroute2 alone would cost ten times what the dump does. The
kernel filters by table and protocol where it can (strict checking, Linux 4.20); what it lets through is filtered again here.
"""

from __future__ import annotations

__metaclass__ = type

import errno
import os
import socket
import struct

from ._errors import KindnetError
from ._route import RTA_SRC, Hop, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, List, Optional, Tuple

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_GET_STRICT_CHK = 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300
RTM_F_CLONED = 0x200

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_PREF, RTA_NH_ID = 9, 12, 15, 20, 30

NLMSGHDR = struct.Struct("=IHHII")
RTMSG = struct.Struct("=BBBBBBBBI")
RTATTR = struct.Struct("=HH")
RTNEXTHOP = struct.Struct("=HBBi")
U32 = struct.Struct("=I")

# A plain route as the kernel writes it, in one piece: header, rtmsg, then the attributes below in their order.
PLAIN4 = struct.Struct("=16x8BI HHI HH4s HH4s HHI")
PLAIN4_ATTRIBUTES = ((8, RTA_TABLE), (8, RTA_DST), (8, RTA_GATEWAY), (8, RTA_OIF))
PLAIN6 = struct.Struct("=16x8BI HHI HH16s HHI HH16s HHI HH32x HHB3x")
PLAIN6_ATTRIBUTES = ((8, RTA_TABLE), (20, RTA_DST), (8, RTA_PRIORITY), (20, RTA_GATEWAY), (8, RTA_OIF), (36, RTA_CACHEINFO), (5, RTA_PREF))

# A dump is one message after another while the table changes beneath; the kernel says so, and it is read again.
ATTEMPTS = 20
ZERO = {socket.AF_INET: bytes(4), socket.AF_INET6: bytes(16)}


class Interrupted(Exception):
    """The table changed while it was dumped."""


def dump(family: int, table: int, protocol: int = 0, keep: Optional[Callable[[Route], bool]] = None) -> List[Route]:
    """The routes of one table, in the order in which the kernel holds them; a table that does not exist has none.

    :param protocol: only routes of this protocol; 0: of every one.
    :param keep: which of them to return.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as s:
            try:
                s.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
            except OSError:
                pass  # before Linux 4.20: everything is dumped, and filtered here
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            s.bind((0, 0))
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return _dump_once(s, attempt, family, table, protocol, keep)
                except Interrupted:
                    continue
    except OSError as e:
        if e.errno in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP) and family == socket.AF_INET6:
            return []  # a kernel without IPv6 has no IPv6 routes
        raise KindnetError(
            "routes of table %d" % table, errno.errorcode.get(e.errno or 0, str(e.errno)), "cannot be read (%s)" % e.strerror, "Look at dmesg."
        )
    raise KindnetError(
        "routes of table %d" % table,
        "%d attempts" % ATTEMPTS,
        "changed all the while they were read",
        "Find what changes them with 'ip monitor route', then try again.",
    )


def _dump_once(
    s: socket.socket, sequence: int, family: int, table: int, protocol: int, keep: Optional[Callable[[Route], bool]]
) -> List[Route]:
    body = RTMSG.pack(family, 0, 0, 0, table if table < 256 else 0, protocol, 0, 0, 0) + RTATTR.pack(8, RTA_TABLE) + U32.pack(table)
    s.sendto(NLMSGHDR.pack(16 + len(body), RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, sequence, 0) + body, (0, 0))
    routes: List[Route] = []
    interrupted = False
    while True:
        try:
            data, sender = s.recvfrom(1 << 16)
        except OSError as e:
            if e.errno == errno.ENOBUFS:  # messages were lost: the dump has a hole, start again on what is left of it
                interrupted = True
                continue
            raise
        if sender[0] != 0:
            continue  # not from the kernel
        at, end = 0, len(data)
        while at < end:
            length, kind, flags, number, _pid = NLMSGHDR.unpack_from(data, at)
            if number == sequence:
                if kind == RTM_NEWROUTE:
                    route = parse_route(data, at, at + length)
                    if (
                        route is not None
                        and route.family == family
                        and route.table == table
                        and (not protocol or route.protocol == protocol)
                        and (keep is None or keep(route))
                    ):
                        routes.append(route)
                elif kind in (NLMSG_DONE, NLMSG_ERROR):
                    code = -int.from_bytes(data[at + 16 : at + 20], "little" if struct.pack("=H", 1)[0] else "big", signed=True)
                    if code == errno.ENOENT:
                        return []
                    if code:
                        raise OSError(code, os.strerror(code))
                    if interrupted or flags & NLM_F_DUMP_INTR:
                        raise Interrupted
                    return routes
                if flags & NLM_F_DUMP_INTR:
                    interrupted = True
            at += (length + 3) & ~3


def parse_route(data: bytes, at: int, end: int) -> Optional[Route]:
    """One RTM_NEWROUTE message, header included; None for an entry of the cache, which is no route."""
    if end - at == PLAIN4.size:
        (
            family, prefix, source, tos, _table, protocol, scope, kind, flags,
            l1, t1, table, l2, t2, dst, l3, t3, gateway, l4, t4, oif,
        ) = PLAIN4.unpack_from(data, at)  # fmt: skip
        if ((l1, t1), (l2, t2), (l3, t3), (l4, t4)) == PLAIN4_ATTRIBUTES and family == socket.AF_INET and not flags & RTM_F_CLONED:
            return Route(family, table, dst, prefix, tos, 0, protocol, scope, kind, flags, gateway, oif)
    elif end - at == PLAIN6.size:
        (
            family, prefix, source, tos, _table, protocol, scope, kind, flags,
            l1, t1, table, l2, t2, dst, l3, t3, metric, l4, t4, gateway, l5, t5, oif, l6, t6, l7, t7, preference,
        ) = PLAIN6.unpack_from(data, at)  # fmt: skip
        attributes = ((l1, t1), (l2, t2), (l3, t3), (l4, t4), (l5, t5), (l6, t6), (l7, t7))
        if attributes == PLAIN6_ATTRIBUTES and family == socket.AF_INET6 and not flags & RTM_F_CLONED and not preference:
            return Route(family, table, dst, prefix, tos, metric, protocol, scope, kind, flags, gateway, oif)
    family, prefix, source, tos, table, protocol, scope, kind, flags = RTMSG.unpack_from(data, at + 16)
    if flags & RTM_F_CLONED or family not in ZERO:
        return None
    dst, gateway, prefsrc = ZERO[family], b"", b""
    oif = metric = nexthop_id = 0
    hops: Tuple[Hop, ...] = ()
    extra: List[int] = [RTA_SRC] if source else []
    at += 28
    while at + 4 <= end:
        length, attribute = RTATTR.unpack_from(data, at)
        if attribute == RTA_DST:
            dst = data[at + 4 : at + length]
        elif attribute == RTA_GATEWAY:
            gateway = data[at + 4 : at + length]
        elif attribute == RTA_OIF:
            (oif,) = U32.unpack_from(data, at + 4)
        elif attribute == RTA_TABLE:
            (table,) = U32.unpack_from(data, at + 4)
        elif attribute == RTA_PRIORITY:
            (metric,) = U32.unpack_from(data, at + 4)
        elif attribute == RTA_PREFSRC:
            prefsrc = data[at + 4 : at + length]
        elif attribute == RTA_MULTIPATH:
            hops = tuple(_hops(data, at + 4, at + length))
        elif attribute == RTA_NH_ID:
            (nexthop_id,) = U32.unpack_from(data, at + 4)
        elif attribute == RTA_CACHEINFO or (attribute == RTA_PREF and not data[at + 4]) or (attribute == RTA_SRC and source):
            pass  # counters, and the preference that every IPv6 route has
        else:
            extra.append(attribute)
        at += (length + 3) & ~3
    return Route(
        family, table, dst, prefix, tos, metric, protocol, scope, kind, flags, gateway, oif, prefsrc, hops, nexthop_id, tuple(extra)
    )


def _hops(data: bytes, at: int, end: int) -> Iterable[Hop]:
    while at + RTNEXTHOP.size <= end:
        size, flags, weight, oif = RTNEXTHOP.unpack_from(data, at)
        gateway, attribute_at = b"", at + RTNEXTHOP.size
        while attribute_at + 4 <= at + size:
            length, attribute = RTATTR.unpack_from(data, attribute_at)
            if attribute == RTA_GATEWAY:
                gateway = data[attribute_at + 4 : attribute_at + length]
            attribute_at += (length + 3) & ~3
        yield Hop(gateway, oif, flags, weight + 1)
        at += (size + 3) & ~3


def link_index(name: str) -> int:
    """The index of an interface; -1 if there is none of this name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return -1


def link_names() -> Dict[int, str]:
    """Interfaces by index, for messages."""
    return dict(socket.if_nameindex())
