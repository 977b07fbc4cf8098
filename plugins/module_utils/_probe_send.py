# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real echo requests out of a network namespace, few and counted. A pod needs no ping for it, since it is this host's process that sends them."""

from __future__ import annotations

__metaclass__ = type

import os
import select
import socket
import time

from ._errors import KindnetError
from ._lookups import Namespace
from ._namespaces import inside
from ._probe_packets import REPLY, echo_of, refusal_of, request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Sequence

    Data = Dict[str, Any]

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3  # linux/in.h, linux/in6.h: DF, whatever is known of the path
SMALL = 84  # bytes of a packet, as ping's
COUNT, COUNT_LARGE = 3, 2
GAP = 0.1  # seconds between two


def send(identifier: int, source: str, destination: str, netns: str, wait: float) -> Data:
    """Send small probes, and if they come back large ones, of the MTU of the interface that they leave by, with DF.

    :param netns: path of the namespace to send from; "" for this host's.
    :param wait: seconds for the last answer.
    """
    interface = _interface_of(source, netns)
    sender = _Sender(identifier, source, destination, netns)
    try:
        small = sender.exchange(range(1, COUNT + 1), SMALL, wait)
        large = sender.exchange(range(COUNT + 1, COUNT + COUNT_LARGE + 1), interface["mtu"], wait) if small["received"] else None
    finally:
        sender.close()
    return {"small": small, "large": large, "refusals": [r._asdict() for r in dict.fromkeys(sender.refusals)]}


def _interface_of(source: str, netns: str) -> Data:
    for link in Namespace(netns).addresses().values():
        if source in [a.rpartition("/")[0] for a in link["addresses"]]:
            return link
    where = "the network namespace %s" % netns if netns else "this host"
    raise KindnetError("source", source, "nobody has it in %s" % where, "See whether the pod is still there, and run it again.")


class _Sender:
    def __init__(self, identifier: int, source: str, destination: str, netns: str) -> None:
        self.identifier, self.source, self.destination = identifier, source, destination
        self.family = 6 if ":" in destination else 4
        self.refusals: List[Any] = []
        domain, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if self.family == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        with inside(netns):
            self.socket = socket.socket(domain, socket.SOCK_RAW, protocol)
        level, option = (socket.IPPROTO_IP, IP_MTU_DISCOVER) if self.family == 4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        self.socket.setsockopt(level, option, PMTUDISC_PROBE)
        self.socket.bind((source, 0))
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()

    def exchange(self, sequences: Sequence[int], size: int, wait: float) -> Data:
        sent, errors = 0, []
        received: Dict[int, bool] = {}
        for number in sequences:
            try:
                self.socket.sendto(request(self.family, self.identifier, number, size), (self.destination, 0))
                sent += 1
            except OSError as e:  # no route, or larger than a known MTU: the kernel's answer, too
                errors.append(os.strerror(e.errno or 0))
            self._listen(received, time.monotonic() + GAP, ())
        self._listen(received, time.monotonic() + wait, sequences)
        back = [number for number in sequences if number in received]
        return {"size": size, "sent": sent, "received": len(back), "sequences": back, "errors": sorted(set(errors))}

    def _listen(self, received: Dict[int, bool], until: float, all_of: Sequence[int]) -> None:
        """Until then, or until ``all_of`` are answered."""
        while time.monotonic() < until and not (all_of and all(number in received for number in all_of)):
            ready, _unused, _unused2 = select.select([self.socket], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return
            try:
                data, (sender, *_rest) = self.socket.recvfrom(65536)
            except OSError:  # an error that a router sent, told once more as that of the socket
                continue
            self._take(data, sender, received)

    def _take(self, data: bytes, sender: str, received: Dict[int, bool]) -> None:
        if self.family == 4:
            echo, icmp = echo_of(data, self.identifier), data[(data[0] & 0xF) * 4 :]
        else:
            # Of ICMPv6 the kernel hands over no IP header; these are the fields of one that matter here.
            head = b"\x60" + b"\0" * 5 + b"\x3a\0" + socket.inet_pton(socket.AF_INET6, sender.partition("%")[0]) + b"\0" * 16
            echo, icmp = echo_of(head + data, self.identifier), data
        if echo and echo.kind == REPLY and echo.source == self.destination:
            received[echo.sequence] = True
            return
        refusal = refusal_of(self.family, sender.partition("%")[0], icmp, self.identifier)
        if refusal:
            self.refusals.append(refusal)
