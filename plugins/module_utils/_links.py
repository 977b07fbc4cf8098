# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which link of this host leads to an address. Asks the kernel, changes nothing."""

from __future__ import annotations

__metaclass__ = type

import fcntl
import socket
import struct

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Tuple

# linux/netlink.h, linux/rtnetlink.h, linux/sockios.h
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
RTA_DST, RTA_OIF = 1, 4
RTN_UNICAST = 1
SIOCGIFMTU = 0x8921
NLMSGHDR = struct.Struct("=IHHII")
RTMSG = struct.Struct("=BBBBBBBBI")
RTATTR = struct.Struct("=HH")
IFREQ = struct.Struct("16si20x")


class RouteLookup:
    """Lookups over one netlink socket; use as a context manager."""

    def __init__(self) -> None:
        try:
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
            self._ioctl = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as e:
            raise KindnetError("mtu", "auto", "the kernel cannot be asked for routes (%s)" % e.strerror, "Give mtu as a number of bytes.")
        self._netlink.settimeout(5.0)
        self._sequence = 0

    def __enter__(self) -> RouteLookup:
        return self

    def __exit__(self, *unused: object) -> None:
        self._netlink.close()
        self._ioctl.close()

    def interface_to(self, ip: str) -> Optional[Tuple[str, int]]:
        """Name and MTU of the interface over which ``ip`` is reached; None if no route leads there, or it is this host's own."""
        index = self._route(ip)
        if not index:
            return None
        try:
            name = socket.if_indextoname(index)
            answer = fcntl.ioctl(self._ioctl, SIOCGIFMTU, IFREQ.pack(name.encode(), 0))
        except OSError:  # the interface went away in between
            return None
        return name, IFREQ.unpack(answer)[1]

    def _route(self, ip: str) -> int:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        address = socket.inet_pton(family, ip)
        body = RTMSG.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + RTATTR.pack(RTATTR.size + len(address), RTA_DST) + address
        self._sequence += 1
        try:
            self._netlink.sendto(NLMSGHDR.pack(NLMSGHDR.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, self._sequence, 0) + body, (0, 0))
            while True:
                message = self._netlink.recv(65536)
                length, kind, _flags, sequence, _port = NLMSGHDR.unpack_from(message)
                if sequence == self._sequence:
                    break
        except OSError as e:
            raise KindnetError("mtu", "auto", "the kernel did not answer for the route to %s (%s)" % (ip, e), "Try again.")
        if kind != RTM_NEWROUTE:  # the lookup's errno: no route, prohibited, unreachable
            return 0
        if RTMSG.unpack_from(message, NLMSGHDR.size)[7] != RTN_UNICAST:
            return 0
        offset = NLMSGHDR.size + RTMSG.size
        while offset + RTATTR.size <= length:
            size, attribute = RTATTR.unpack_from(message, offset)
            if attribute == RTA_OIF:
                return int(struct.unpack_from("=I", message, offset + RTATTR.size)[0])
            offset += max(RTATTR.size, (size + 3) & ~3)
        return 0
