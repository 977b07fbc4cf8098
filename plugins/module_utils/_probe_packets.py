# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Echo requests as bytes, and what comes back. Pure. They are what ping sends, so whatever lets ping pass lets these."""

from __future__ import annotations

__metaclass__ = type

import socket
import struct
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, NamedTuple, Optional, Tuple

    class Echo(NamedTuple):
        """One of ours, on its way."""

        kind: str  # REQUEST or REPLY
        source: str
        destination: str
        sequence: int
        size: int  # bytes of the whole packet

    class Refusal(NamedTuple):
        """What a router or host said of one of ours."""

        source: str
        what: str
        mtu: int  # that it passes; 0 if that was not the reason
else:
    Echo = namedtuple("Echo", "kind source destination sequence size")
    Refusal = namedtuple("Refusal", "source what mtu")

REQUEST, REPLY = "request", "reply"
ECHO = {4: {8: REQUEST, 0: REPLY}, 6: {128: REQUEST, 129: REPLY}}  # types of ICMP (RFC 792) and of ICMPv6 (RFC 4443)
PROTOCOL = {4: 1, 6: 58}
HEADERS = {4: 28, 6: 48}  # bytes of IP and ICMP headers
HEADER = struct.Struct("!BBHHH")
# Of errors, by type and code; the code None stands for any other.
REFUSALS: Dict[int, Dict[Tuple[int, Optional[int]], str]] = {
    4: {
        (3, 0): "Network Unreachable", (3, 1): "Host Unreachable", (3, 4): "Fragmentation Needed", (3, 13): "Communication Prohibited",
        (3, None): "Destination Unreachable", (11, None): "Time to live exceeded", (5, None): "Redirect",
    },
    6: {
        (1, 0): "No Route", (1, 1): "Administratively Prohibited", (1, 3): "Address Unreachable", (1, None): "Destination Unreachable",
        (2, None): "Packet Too Big", (3, None): "Hop limit exceeded",
    },
}
HARMLESS = ("Redirect",)  # it says that there is a shorter way, and passes the packet on

# Instructions of a classic BPF (linux/bpf_common.h): load a byte, mask, compare, load the length of an IPv4 header, load a half word, return.
_LDB, _AND, _JEQ, _LDX_MSH, _LDH_IND, _LDH, _RET = 0x30, 0x54, 0x15, 0xB1, 0x48, 0x28, 0x06


def request(family: int, identifier: int, sequence: int, size: int) -> bytes:
    """An echo request that makes a packet of ``size`` bytes. The kernel fills in the checksum of ICMPv6 itself."""
    body = b"kindnet.host walk ".ljust(max(0, size - HEADERS[family]), b".")[: max(0, size - HEADERS[family])]
    kind = next(number for number, what in ECHO[family].items() if what == REQUEST)
    packet = HEADER.pack(kind, 0, 0, identifier, sequence) + body
    if family == 6:
        return packet
    return HEADER.pack(kind, 0, checksum(packet), identifier, sequence) + body


def checksum(data: bytes) -> int:
    """That of the internet (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_of(packet: bytes, identifier: int) -> Optional[Echo]:
    """What an IP packet is, if it is one of ours."""
    family, length, source, destination = _ip(packet)
    if not family or len(packet) < length + HEADER.size:
        return None
    kind, _code, _sum, its_identifier, sequence = HEADER.unpack_from(packet, length)
    if its_identifier != identifier or kind not in ECHO[family]:
        return None
    return Echo(ECHO[family][kind], source, destination, sequence, len(packet))


def refusal_of(family: int, source: str, icmp: bytes, identifier: int) -> Optional[Refusal]:
    """What an ICMP message says of a packet of ours; None if it is about another, or is none of those that say no."""
    if len(icmp) < HEADER.size:
        return None
    kind, code, _sum, _unused, low = HEADER.unpack_from(icmp)
    what = REFUSALS[family].get((kind, code)) or REFUSALS[family].get((kind, None))
    if not what or what in HARMLESS:
        return None
    inner = icmp[HEADER.size :]
    its_family, length, _source, _destination = _ip(inner)
    if its_family != family or len(inner) < length + HEADER.size or HEADER.unpack_from(inner, length)[3] != identifier:
        return None
    mtu = low if what == "Fragmentation Needed" else struct.unpack_from("!I", icmp, 4)[0] if what == "Packet Too Big" else 0
    return Refusal(source, what, mtu)


def packet_filter(family: int, identifier: int) -> List[Tuple[int, int, int, int]]:
    """Instructions for the kernel to hand over nothing but our packets, which a busy host has few of."""
    if family == 4:
        tests = [(_LDB, 0), (_AND, 0xF0), (_JEQ, 0x40), (_LDB, 9), (_JEQ, PROTOCOL[4]), (_LDX_MSH, 0), (_LDH_IND, 4), (_JEQ, identifier)]
    else:
        tests = [(_LDB, 0), (_AND, 0xF0), (_JEQ, 0x60), (_LDB, 6), (_JEQ, PROTOCOL[6]), (_LDH, 44), (_JEQ, identifier)]
    program = []
    for at, (code, value) in enumerate(tests):
        # A comparison that fails goes to the last instruction, which takes nothing.
        program.append((code, 0, len(tests) - at if code == _JEQ else 0, value))
    return program + [(_RET, 0, 0, 0xFFFF), (_RET, 0, 0, 0)]


def _ip(packet: bytes) -> Tuple[int, int, str, str]:
    """Version, length of the header, source and destination; the version is 0 if it is no ping's."""
    if len(packet) >= 20 and packet[0] >> 4 == 4 and packet[9] == PROTOCOL[4]:
        return 4, (packet[0] & 0xF) * 4, socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20])
    if len(packet) >= 40 and packet[0] >> 4 == 6 and packet[6] == PROTOCOL[6]:
        return 6, 40, socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])
    return 0, 0, "", ""
