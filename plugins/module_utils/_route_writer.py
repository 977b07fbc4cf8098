# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of the kernel's routes: encoded by pyroute2, sent many at a time. The only code that makes any.

Encoding would be most of what a change costs. So pyroute2 encodes one message of each form, and those that differ from it in
destination and next hop alone are made from that. The kernel takes the messages of one datagram in their order, one after the other,
goes on after one that it refuses, and answers each by its number.
"""

from __future__ import annotations

__metaclass__ = type

import errno
import select
import socket
import struct

from ._netlink import (
    NETLINK_ROUTE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NLMSGHDR,
    RTA_DST,
    RTA_GATEWAY,
    RTA_NH_ID,
    RTATTR,
    RTM_NEWROUTE,
    RTMSG,
    SOL_NETLINK,
    U32,
)
from ._route import FLAG_ONLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Sequence, Tuple

    from ._route import Route

    Form = Tuple[bytes, int, int]  # a message, and where in it destination and next hop are

NETLINK_CAP_ACK = 10
NLM_F_ACK = 0x4
CODE = struct.Struct("=i")
ATTRIBUTES = NLMSGHDR.size + RTMSG.size  # where they begin

# linux/rtnetlink.h, linux/netlink.h
RTM_DELROUTE = 25
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
RT_TABLE_UNSPEC = 0  # in the place of a number that takes more than a byte, and is an attribute
COMMANDS = {
    "add": (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),  # only where no route of this destination, table, metric and tos is
    "replace": (RTM_NEWROUTE, NLM_F_REPLACE),  # in one step; only where there is one to replace
    "remove": (RTM_DELROUTE, 0),  # this very route: the kernel compares protocol, next hop, type, scope and metric too
}

RECEIVE_BUFFER = 1 << 20
ANSWER = 2048  # how much of it an answer takes at most
DATAGRAM = 4096  # as much as the smallest send buffer takes
PATIENCE = 5  # seconds. The kernel answers before it takes the next datagram, so this ends only what would never end.


class Writer:
    """Makes changes, each acknowledged by the kernel. Opened once for all of them."""

    def __init__(self) -> None:
        from . import _pyroute2_dep  # paid for when there is something to change

        self._rtmsg: Any = _pyroute2_dep.load()
        self._forms: Dict[Tuple[object, ...], Form] = {}
        self._number = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        except OSError:
            pass  # before Linux 4.3: a refusal repeats what was refused
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.bind((0, 0))
        # Answers that find no room are dropped, so no more are asked for at once than there is room for.
        self._most = max(1, self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // ANSWER)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *unused: object) -> None:
        self._socket.close()

    def apply(self, operations: Sequence[Tuple[str, Route]]) -> List[int]:
        """Make changes in this order. Of each, 0 or the kernel's errno; ENOBUFS where nobody knows, as the answer was lost.

        :param operations: what to do, a key of COMMANDS, and the route.
        """
        codes: List[int] = []
        messages: List[bytes] = []
        size = 0
        for action, route in operations:
            message = self._message(action, route)
            if messages and (len(messages) == self._most or size + len(message) > DATAGRAM):
                codes += self._exchange(messages)
                messages, size = [], 0
            messages.append(message)
            size += len(message)
        return codes + self._exchange(messages)

    def _message(self, action: str, route: Route) -> bytes:
        kind = (action, len(route.gateway), route._replace(dst=b"", gateway=b""))
        form = self._forms.get(kind)
        if form is None:
            message = self._encode(action, route)
            form = message, _place(message, RTA_DST, route.dst), _place(message, RTA_GATEWAY, route.gateway)
            if min(form[1:]) < 0:
                return message  # without a destination or a next hop, or it is elsewhere: of no use for others
            self._forms[kind] = form
        message, dst_at, gateway_at = form
        changed = bytearray(message)
        changed[dst_at : dst_at + len(route.dst)] = route.dst
        changed[gateway_at : gateway_at + len(route.gateway)] = route.gateway
        return bytes(changed)

    def _encode(self, action: str, route: Route) -> bytes:
        message = self._rtmsg()
        message["header"]["type"], message["header"]["flags"] = COMMANDS[action]
        message.update(_fields(route))
        message["attrs"] = _attributes(route)
        message.encode()
        data = bytes(message.data)
        if route.nexthop_id:  # which pyroute2 has no name for
            data += RTATTR.pack(RTATTR.size + U32.size, RTA_NH_ID) + U32.pack(route.nexthop_id)
        return U32.pack(len(data)) + data[U32.size :]

    def _exchange(self, messages: Sequence[bytes]) -> List[int]:
        """Send messages as one datagram; what the kernel says to each."""
        if not messages:
            return []
        first = self._number + 1
        datagram = bytearray()
        for message in messages:
            self._number += 1
            length, kind, flags, _number, _sender = NLMSGHDR.unpack_from(message)
            datagram += NLMSGHDR.pack(length, kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._number, 0) + message[NLMSGHDR.size :]
        try:
            self._socket.sendto(datagram, (0, 0))
        except OSError as e:
            return [e.errno or errno.EIO] * len(messages)  # none of them has come to the kernel
        answers = self._answers(first, len(messages))
        return [answers.get(first + i, errno.ENOBUFS) for i in range(len(messages))]

    def _answers(self, first: int, count: int) -> Dict[int, int]:
        """Those that came to ``count`` messages, by their numbers, which begin with ``first``."""
        answers: Dict[int, int] = {}
        patience = PATIENCE * 1000
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while len(answers) < count:
            try:
                data, sender = self._socket.recvfrom(2 * DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not poll.poll(patience):
                    break
                continue
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                patience = 0  # answers were dropped: what is there now is all that there will be
                continue
            _length, kind, _flags, number, _sender = NLMSGHDR.unpack_from(data)
            if sender[0] == 0 and kind == NLMSG_ERROR and first <= number < first + count:
                answers[number] = -CODE.unpack_from(data, NLMSGHDR.size)[0]
        return answers


def _place(message: bytes, attribute: int, value: bytes) -> int:
    """Where the value of an attribute is in a message; -1 if it is not there."""
    at = ATTRIBUTES
    while at + RTATTR.size <= len(message):
        length, kind = RTATTR.unpack_from(message, at)
        if kind == attribute and message[at + RTATTR.size : at + length] == value:
            return at + RTATTR.size
        at += (length + 3) & ~3 or RTATTR.size
    return -1


def _fields(route: Route) -> Dict[str, int]:
    """The fixed part of a message, struct rtmsg, in pyroute2's words."""
    return {
        "family": route.family,
        "dst_len": route.prefix,
        "tos": route.tos,
        "table": route.table if route.table < 256 else RT_TABLE_UNSPEC,
        "proto": route.protocol,
        "scope": route.scope,
        "type": route.type,
        "flags": route.flags & FLAG_ONLINK,
    }


def _attributes(route: Route) -> List[Tuple[str, Any]]:
    """All else that names a route to the kernel, in pyroute2's words."""

    def text(address: bytes) -> str:
        return socket.inet_ntop(route.family, address)

    found: List[Tuple[str, Any]] = []
    if route.prefix:
        found.append(("RTA_DST", text(route.dst)))
    if route.table >= 256:
        found.append(("RTA_TABLE", route.table))
    if route.metric:
        found.append(("RTA_PRIORITY", route.metric))
    if route.prefsrc:
        found.append(("RTA_PREFSRC", text(route.prefsrc)))
    if route.nexthop_id:
        return found
    if route.hops:
        hops = [
            {"oif": hop.oif, "hops": hop.weight - 1, "flags": 0, "attrs": [("RTA_GATEWAY", text(hop.gateway))] if hop.gateway else []} for hop in route.hops
        ]
        return [*found, ("RTA_MULTIPATH", hops)]
    if route.gateway:
        found.append(("RTA_GATEWAY", text(route.gateway)))
    if route.oif:
        found.append(("RTA_OIF", route.oif))
    return found
