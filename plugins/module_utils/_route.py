# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One route as the kernel tells it, and as ``ip route`` prints it. Pure: no socket is opened."""

from __future__ import annotations

__metaclass__ = type

import socket
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, NamedTuple, Set, Tuple

    class Hop(NamedTuple):
        """One next hop of a multipath route."""

        gateway: bytes
        oif: int
        flags: int
        weight: int

    class Route(NamedTuple):
        """One route as the kernel tells it, addresses packed."""

        family: int
        table: int
        dst: bytes
        prefix: int
        tos: int
        metric: int
        protocol: int
        scope: int
        type: int
        flags: int = 0
        gateway: bytes = b""  # b"" if there is none
        oif: int = 0
        prefsrc: bytes = b""
        hops: Tuple[Hop, ...] = ()  # of a multipath route, else empty
        nexthop_id: int = 0
        extra: Tuple[int, ...] = ()  # attributes beyond these, such as metrics or an encapsulation
else:
    Hop = namedtuple("Hop", "gateway oif flags weight")
    Route = namedtuple(
        "Route",
        "family table dst prefix tos metric protocol scope type flags gateway oif prefsrc hops nexthop_id extra",
        defaults=(0, b"", 0, b"", (), 0, ()),
    )

AF_INET, AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)
PROTOCOL = 107
KERNEL, BOOT = 2, 3
DEFAULT_TABLE, MAIN_TABLE, LOCAL_TABLE = 253, 254, 255
UNIVERSE, LINK = 0, 253
UNICAST, LOCAL, ANYCAST, THROW = 1, 2, 4, 9
DEAD, FLAG_ONLINK, LINKDOWN = 0x01, 0x04, 0x10
RTA_SRC = 2

# What the kernel takes when no metric is given, and what `ip route` and kindnetd leave.
METRIC = {AF_INET: 0, AF_INET6: 1024}
BITS = {AF_INET: 32, AF_INET6: 128}

PROTOCOLS = {0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp", 186: "bgp", 188: "ospf"}
TYPES = {2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw", 10: "nat"}
SCOPES = {200: "site", 253: "link", 254: "host", 255: "nowhere"}


def packed(text: str) -> Tuple[int, bytes]:
    """Family and bytes of canonical text; ipaddress would cost more than the dump."""
    family = AF_INET6 if ":" in text else AF_INET
    return family, socket.inet_pton(family, text)


def covering(addresses: Iterable[Tuple[int, bytes]]) -> Callable[[Route], bool]:
    """Which routes lead to one of ``addresses``, the default route included."""
    numbers: Dict[int, Set[int]] = {}
    for family, address in addresses:
        numbers.setdefault(family, set()).add(int.from_bytes(address, "big"))
    networks: Dict[Tuple[int, int], Set[int]] = {}

    def covers(route: Route) -> bool:
        family, prefix = route.family, route.prefix
        shift = BITS[family] - prefix
        known = networks.get((family, prefix))
        if known is None:
            known = networks[family, prefix] = {n >> shift for n in numbers.get(family, ())}
        return int.from_bytes(route.dst, "big") >> shift in known

    return covers


def route_text(route: Route, links: Dict[int, str]) -> str:
    """A route as ``ip route`` prints it, less its destination."""
    words = [TYPES[route.type]] if route.type in TYPES else []
    if route.gateway:
        words += ["via", address_text(route.family, route.gateway)]
    if route.oif in links:
        words += ["dev", links[route.oif]]
    for hop in route.hops:
        words += ["nexthop"] + (["via", address_text(route.family, hop.gateway)] if hop.gateway else [])
        words += ["dev", links[hop.oif]] if hop.oif in links else []
    if route.flags & FLAG_ONLINK:
        words.append("onlink")
    if route.nexthop_id:
        words += ["nhid", str(route.nexthop_id)]
    if route.table != MAIN_TABLE:
        words += ["table", str(route.table)]
    words += ["proto", PROTOCOLS.get(route.protocol, str(route.protocol))]
    if route.scope in SCOPES and route.family == AF_INET:
        words += ["scope", SCOPES[route.scope]]
    if route.prefsrc:
        words += ["src", address_text(route.family, route.prefsrc)]
    if route.tos:
        words += ["tos", "0x%02x" % route.tos]
    if route.metric:
        words += ["metric", str(route.metric)]
    return " ".join(words)


def cidr_text(route: Route) -> str:
    return "%s/%d" % (address_text(route.family, route.dst), route.prefix)


def address_text(family: int, address: bytes) -> str:
    return socket.inet_ntop(family, address) if address else ""


def family_option(route: Route) -> str:
    return "-6 " if route.family == AF_INET6 else ""


def is_plain(route: Route) -> bool:
    """A route of ours as we make it, whatever its destination and next hop."""
    return (
        route.type == UNICAST
        and route.scope == UNIVERSE
        and route.metric == METRIC[route.family]
        and not route.tos
        and not route.hops
        and not route.prefsrc
        and not route.nexthop_id
        and not route.extra
    )


def competes(route: Route) -> bool:
    """Whether packets of every kind may take this route; one for a tos or a source of its own is another matter."""
    return not route.tos and RTA_SRC not in route.extra


def leads_to(route: Route, gateway: bytes) -> bool:
    return route.type == UNICAST and not route.hops and route.gateway == gateway


def has_gateway(route: Route) -> bool:
    return bool(route.gateway) or any(h.gateway for h in route.hops)


def is_deleted_as(route: Route, other: Route) -> bool:
    """Whether the kernel, asked to delete ``other``, could take ``route`` for it.

    Of several next hops it compares the first ones only, and it compares nothing that the request leaves out.
    """
    if (route.metric, route.tos, route.type) != (other.metric, other.tos, other.type):
        return False
    return bool(other.hops or other.nexthop_id) or other.gateway in (b"", route.gateway)
