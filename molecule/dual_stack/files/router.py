# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advertise this host as a default router on eth0, every half second."""

import socket
import struct
import time

ADVERTISEMENT, LIFETIME = 134, 1800  # RFC 4861, 4.2

with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
    while True:
        s.sendto(struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 64, 0, LIFETIME, 0, 0), ("ff02::1", 0))
        time.sleep(0.5)
