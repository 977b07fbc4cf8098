# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One dump of links or addresses from the kernel, asked for anew when it changed meanwhile. Routes, of which a pass reads many, have a way of their own."""

from __future__ import annotations

__metaclass__ = type

import errno
import socket
import struct

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, TypeVar

    T = TypeVar("T")

# linux/netlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300
NLMSGHDR = struct.Struct("=IHHII")
ATTEMPTS = 20
TIMEOUT = 5.0  # seconds for the kernel to go on with its answer


class Interrupted(Exception):
    """What is dumped changed meanwhile."""


def dump(what: str, request: int, body: bytes, answer: int, parse: Callable[[bytes, int, int], T]) -> List[T]:
    """What ``parse`` makes of each message of the kind ``answer``, of which it is given the data, where the body begins, and where it ends.

    :param what: what is asked for, in an error.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as s:
            s.bind((0, 0))
            s.settimeout(TIMEOUT)
            for attempt in range(1, ATTEMPTS + 1):
                s.sendto(NLMSGHDR.pack(NLMSGHDR.size + len(body), request, NLM_F_REQUEST | NLM_F_DUMP, attempt, 0) + body, (0, 0))
                try:
                    return _answers(s, attempt, answer, parse)
                except Interrupted:
                    continue
    except OSError as e:
        name = errno.errorcode.get(e.errno or 0, str(e.errno))
        raise KindnetError(what, name, "cannot be read (%s)" % e.strerror, "Look at dmesg.")
    raise KindnetError(what, "%d attempts" % ATTEMPTS, "changed all the while they were read", "Try again.")


def _answers(s: socket.socket, sequence: int, answer: int, parse: Callable[[bytes, int, int], T]) -> List[T]:
    found: List[T] = []
    interrupted = False
    while True:
        data, sender = s.recvfrom(1 << 16)
        at = 0
        while sender[0] == 0 and at < len(data):
            length, kind, flags, number, _port = NLMSGHDR.unpack_from(data, at)
            if number == sequence:
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == answer:
                    found.append(parse(data, at + NLMSGHDR.size, at + length))
                elif kind == NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, at + NLMSGHDR.size)[0], "the kernel refuses to tell")
                elif kind == NLMSG_DONE:
                    if interrupted:
                        raise Interrupted
                    return found
            at += (length + 3) & ~3
