# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP echo requests to many addresses at once, from this host and from the network namespaces of its pods.

The sockets are made inside of a namespace and belong to it for good, so nothing runs in a pod, and nothing has to be installed there.
"""

from __future__ import annotations

__metaclass__ = type

import errno
import os
import select
import socket
import struct
import time
from collections import namedtuple

from ._errors import KindnetError
from ._namespaces import inside
from ._probe_packets import checksum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

    class Source(NamedTuple):
        """Where requests come from."""

        name: str
        netns: str  # path of a network namespace; "" is that of this process
        targets: Tuple[str, ...]  # addresses in canonical text
        ips: Tuple[str, ...] = ()  # of the source: a namespace that does not have them is another one by now

    class Pace(NamedTuple):
        times: int  # requests to each target
        interval: float  # seconds at least between two of them
        timeout: float  # seconds to wait for an answer to the last one
        rate: float  # requests a second of all sources together, at most

    class Due(NamedTuple):
        """One request of a schedule."""

        at: float  # seconds after the first one
        flow: int
        sequence: int
else:
    Source = namedtuple("Source", "name netns targets ips", defaults=((),))
    Pace = namedtuple("Pace", "times interval timeout rate")
    Due = namedtuple("Due", "at flow sequence")

SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
TTL_EXCEEDED = {4: 11, 6: 3}
# Of "destination unreachable" (3, of ICMPv6 1), what the code says; the others are rare enough for their number.
UNREACHABLE = {4: 3, 6: 1}
CODES = {
    4: {0: "no route to the network", 1: "no way to the host", 9: "prohibited", 10: "prohibited", 13: "prohibited"},
    6: {0: "no route", 1: "prohibited", 3: "no way to the address", 5: "prohibited", 6: "no route (rejected)"},
}
TOKEN = 8  # bytes by which an answer is known as one to this run
LONGEST = 600.0  # seconds that one run may take


class Flow:
    """From one source to one target, and what became of it."""

    def __init__(self, source: str, target: str) -> None:
        self.source, self.target = source, target
        self.family = 6 if ":" in target else 4
        self.sent: Dict[int, float] = {}  # sequence number to the time it was sent at
        self.answered: Dict[int, float] = {}  # to the seconds it took
        self.error = ""

    def result(self) -> Dict[str, object]:
        times = list(self.answered.values())
        sent, received = len(self.sent), len(times)
        return {
            "source": self.source,
            "target": self.target,
            "sent": sent,
            "received": received,
            "loss": round(100.0 * (sent - received) / sent, 1) if sent else None,
            "rtt_min_ms": milliseconds(min(times)) if times else None,
            "rtt_avg_ms": milliseconds(sum(times) / received) if times else None,
            "rtt_max_ms": milliseconds(max(times)) if times else None,
            "error": self.error if received < sent or not sent else "",
        }


def milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)


def schedule(flows: int, pace: Pace) -> Iterator[Due]:
    """When each request is due: to all targets in turn, and then again. Pure."""
    before = -1.0 / pace.rate
    last: Dict[int, float] = {}
    for sequence in range(pace.times):
        for flow in range(flows):
            before = max(before + 1.0 / pace.rate, last[flow] + pace.interval if sequence else 0.0)
            last[flow] = before
            yield Due(before, flow, sequence)


def refuse_long(flows: int, pace: Pace) -> None:
    seconds = max(flows * pace.times / pace.rate, pace.times * pace.interval) + pace.timeout
    if seconds > LONGEST:
        raise KindnetError(
            "targets",
            "%d, asked %d times each at %g requests a second" % (flows, pace.times, pace.rate),
            "would take %d s, and %d s is the limit" % (seconds, LONGEST),
            "Ask fewer targets, fewer times, or allow a higher rate.",
        )


def ping(sources: Sequence[Source], pace: Pace) -> List[Dict[str, object]]:
    """Ask every target of every source; one result for each, in their order."""
    flows = [Flow(source.name, target) for source in sources for target in source.targets]
    refuse_long(len(flows), pace)
    opened: List[socket.socket] = []
    try:
        socket_of: Dict[int, socket.socket] = {}  # of a flow
        at = 0
        for source in sources:
            own = range(at, at + len(source.targets))
            at += len(source.targets)
            by_family: Dict[int, socket.socket] = {}
            try:
                for family in sorted({flows[i].family for i in own}):
                    with inside(source.netns):
                        by_family[family] = _socket(family, next((ip for ip in source.ips if (":" in ip) is (family == 6)), ""))
                    opened.append(by_family[family])
            except OSError as e:
                # A pod may have ended since it was looked for, and its namespace be another's.
                why = "does not have its address" if e.errno == errno.EADDRNOTAVAIL else e.strerror
                for i in own:
                    flows[i].error = "not asked: %s: %s" % (source.netns or "this host", why)
                continue
            socket_of.update((i, by_family[flows[i].family]) for i in own)
        _Run(flows, socket_of, pace).run()
    finally:
        for made in opened:
            made.close()
    return [flow.result() for flow in flows]


class _Run:
    """The requests of one run and their answers."""

    def __init__(self, flows: List[Flow], socket_of: Dict[int, socket.socket], pace: Pace) -> None:
        self.flows, self.socket_of, self.pace = flows, socket_of, pace
        self.token = os.urandom(TOKEN)
        self.ident = int.from_bytes(os.urandom(2), "big")
        self.waiting = 0  # requests without an answer
        self.poll = select.poll()
        self.by_fd = {made.fileno(): made for made in socket_of.values()}
        for fd in self.by_fd:
            self.poll.register(fd, select.POLLIN)

    def run(self) -> None:
        began = time.monotonic()
        for due in schedule(len(self.flows), self.pace):
            if due.flow in self.socket_of:
                self._receive(began + due.at, until_answered=False)
                # What comes late is not caught up with: that would be a burst.
                began += max(0.0, time.monotonic() - began - due.at)
                self._send(due)
        self._receive(time.monotonic() + self.pace.timeout, until_answered=True)

    def _send(self, due: Due) -> None:
        flow = self.flows[due.flow]
        payload = self.token + struct.pack("!II", due.flow, due.sequence)
        flow.sent[due.sequence] = time.monotonic()
        try:
            self.socket_of[due.flow].sendto(request(flow.family, self.ident, due.sequence, payload), (flow.target, 0))
            self.waiting += 1
        except OSError as e:
            # As the program ping has it, such a request counts as one that was lost.
            hint = ", as of a blackhole route" if e.errno == errno.EINVAL else ""
            flow.error = "this end refuses to send: %s%s" % (e.strerror, hint)

    def _receive(self, deadline: float, until_answered: bool) -> None:
        """Take what comes until ``deadline``, or until there is nothing to wait for."""
        while not (until_answered and not self.waiting):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for fd, _events in self.poll.poll(1000 * left):
                try:
                    packet, address = self.by_fd[fd].recvfrom(2048)
                except OSError:  # an error of an earlier request, which its own packet tells of as well
                    continue
                self._take(packet, address[0], time.monotonic(), 4 if self.by_fd[fd].family == socket.AF_INET else 6)

    def _take(self, packet: bytes, sender: str, now: float, family: int) -> None:
        at = packet.find(self.token)
        head = (packet[0] & 0x0F) * 4 if family == 4 else 0  # raw sockets of IPv4 alone hand over the header
        if at < 0 or len(packet) < at + TOKEN + 8:
            return
        number, sequence = struct.unpack_from("!II", packet, at + TOKEN)
        if number >= len(self.flows) or sequence not in self.flows[number].sent:
            return
        flow, kind, code = self.flows[number], packet[head], packet[head + 1]
        if kind == REPLY[family]:
            if sender.partition("%")[0] == flow.target and sequence not in flow.answered:
                flow.answered[sequence] = now - flow.sent[sequence]
                self.waiting -= 1
        elif kind == UNREACHABLE[family]:
            flow.error = "%s says: %s" % (sender, CODES[family].get(code, "unreachable, code %d" % code))
        elif kind == TTL_EXCEEDED[family]:
            flow.error = "%s says: time exceeded, as in a loop of routes" % sender


def request(family: int, ident: int, sequence: int, payload: bytes) -> bytes:
    """An echo request. Of ICMPv6 the kernel makes the checksum."""
    head = struct.pack("!BBHHH", REQUEST[family], 0, 0, ident, sequence & 0xFFFF)
    if family == 6:
        return head + payload
    return struct.pack("!BBHHH", REQUEST[family], 0, checksum(head + payload), ident, sequence & 0xFFFF) + payload


def _socket(family: int, ip: str) -> socket.socket:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    kinds = (REPLY[family], UNREACHABLE[family], TTL_EXCEEDED[family])
    if family == 4:
        made = socket.socket(socket.AF_INET, flags, socket.IPPROTO_ICMP)
        option, blocked = (SOL_RAW, ICMP_FILTER), [0xFFFFFFFF]
    else:
        made = socket.socket(socket.AF_INET6, flags, socket.IPPROTO_ICMPV6)
        option, blocked = (socket.IPPROTO_ICMPV6, ICMP6_FILTER), [0xFFFFFFFF] * 8
    try:
        for kind in kinds:
            blocked[kind // 32] &= ~(1 << kind % 32)
        made.setsockopt(*option, struct.pack("=%dI" % len(blocked), *blocked))
        if ip:
            made.bind((ip, 0))
    except OSError:
        made.close()
        raise
    return made


def parse_sources(value: object) -> Tuple[Source, ...]:
    """Sources as the module takes them, validated."""
    from ._node_table import parse_address

    if not isinstance(value, list):
        remedy = "Give a list of mappings with name, netns, source_ips and targets, as one JSON string."
        raise KindnetError("sources", ascii(value)[:80], "is not a list", remedy)
    sources: List[Source] = []
    for entry in value:
        lists = [entry.get(key, []) for key in ("targets", "source_ips")] if isinstance(entry, dict) else []
        if not lists or not isinstance(entry.get("name", ""), str) or not all(isinstance(one, list) for one in lists):
            raise KindnetError("sources", ascii(entry)[:80], "is not a mapping with name, netns, source_ips and targets", "Correct it.")
        targets, ips = (tuple(parse_address(field, ip).text for ip in one) for field, one in zip(("targets", "source_ips"), lists))
        sources.append(Source(entry.get("name", ""), parse_netns(entry.get("netns")), targets, ips))
    return tuple(sources)


def parse_netns(value: Optional[object]) -> str:
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or not value.startswith("/"):
        raise KindnetError("netns", ascii(value)[:80], "is not a path of a network namespace", "Give one such as /run/netns/cni-1234.")
    return value


def parse_pace(count: int, interval: float, timeout: float, rate: float) -> Pace:
    for field, given, least, most in (
        ("count", count, 1, 100),
        ("interval", interval, 0.01, 10),
        ("timeout", timeout, 0.05, 30),
        ("rate", rate, 1, 1000),
    ):
        if not least <= given <= most:
            raise KindnetError(field, given, "is not from %g to %g" % (least, most), "Write a number within that.")
    return Pace(count, interval, timeout, rate)
