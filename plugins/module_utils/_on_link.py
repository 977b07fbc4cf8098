# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses are on-link, and in which network, judged over the routes that the kernel has. Pure."""

from __future__ import annotations

__metaclass__ = type

from bisect import bisect_left
from collections import namedtuple

from ._route import (
    AF_INET,
    AF_INET6,
    ANYCAST,
    BITS,
    DEAD,
    DEFAULT_TABLE,
    LINK,
    LOCAL,
    LOCAL_TABLE,
    MAIN_TABLE,
    RTA_SRC,
    THROW,
    UNICAST,
    has_gateway,
    packed,
    route_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

    from ._route import Route

    class Overlap(NamedTuple):
        """A pod CIDR that shares addresses with a network by which this host reaches nodes."""

        node: str
        cidr: str
        network: Route
        neighbour: str  # the node that is in that network
        address: str
else:
    Overlap = namedtuple("Overlap", "node cidr network neighbour address")


NOT_ON_LINK = "is not on-link"


class OnLink:
    """Whether the kernel takes an address as a next hop: the same look-up that it makes, over its own routes.

    IPv4 looks among the routes that lead directly to a link or to this host, and overlooks those via a gateway. IPv6 takes the
    best route of all, and that one must not be via a gateway.
    """

    def __init__(self, routes: Iterable[Route], table: int) -> None:
        # Policy rules could say otherwise; then the kernel's refusal is reported as that of the one peer.
        self._tables = ([table] if table not in (LOCAL_TABLE, MAIN_TABLE) else []) + [LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE]
        self._index: Dict[Tuple[int, int], Dict[int, Dict[int, Route]]] = {}
        self._answers: Dict[bytes, str] = {}
        self._build(routes)

    def trouble(self, family: int, address: bytes) -> str:
        """Half a sentence about what is wrong with ``address`` as a next hop; "" if nothing is."""
        if address not in self._answers:
            self._answers[address] = self._look(family, address)
        return self._answers[address]

    def is_elsewhere(self, family: int, address: bytes) -> bool:
        """Whether ``address`` is on none of this host's links. One of its own is another trouble."""
        return self.trouble(family, address).startswith(NOT_ON_LINK)

    def network(self, family: int, address: bytes) -> Optional[Route]:
        """The route to the network of ``address`` on its link; None if it is on no link, or alone there, or only the default route leads to it.

        Of this host's own addresses, the network that they are in.
        """
        number = int.from_bytes(address, "big")
        for table in self._tables:
            if table == LOCAL_TABLE:
                continue
            by_prefix = self._index.get((family, table), {})
            link = 0
            for prefix in sorted(by_prefix, reverse=True):
                route = by_prefix[prefix].get(number >> (BITS[family] - prefix))
                if route is None or (link and route.oif != link):
                    continue
                if route.type == THROW:
                    break
                if route.type != UNICAST or has_gateway(route) or not prefix:
                    return None
                if prefix < BITS[family]:
                    return route
                link = route.oif  # a host route: the network is what leads to the same link
        return None

    def _build(self, routes: Iterable[Route]) -> None:
        for route in routes:
            if route.tos or RTA_SRC in route.extra or route.flags & DEAD:
                continue
            if route.family == AF_INET and route.scope < LINK:
                continue
            bits = BITS[route.family] - route.prefix
            networks = self._index.setdefault((route.family, route.table), {}).setdefault(route.prefix, {})
            key = int.from_bytes(route.dst, "big") >> bits
            if key not in networks or route.metric < networks[key].metric:
                networks[key] = route

    def _look(self, family: int, address: bytes) -> str:
        for table in self._tables:
            best = self._best(family, table, address)
            if best is None:
                continue
            if best.type == LOCAL:
                return "is an address of this host itself"
            direct = best.type == UNICAST or (best.type == ANYCAST and family == AF_INET6)
            if direct and not (family == AF_INET6 and has_gateway(best)):
                return ""
            if table not in (LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE):
                continue  # a table of its own is asked first, then the usual ones
            return "%s: the route to it is '%s'" % (NOT_ON_LINK, route_text(best, {}))
        return "%s: no interface of this host is in its network" % NOT_ON_LINK

    def _best(self, family: int, table: int, address: bytes) -> Optional[Route]:
        by_prefix = self._index.get((family, table), {})
        number = int.from_bytes(address, "big")
        for prefix in sorted(by_prefix, reverse=True):
            route = by_prefix[prefix].get(number >> (BITS[family] - prefix))
            if route is not None and route.type != THROW:  # which means: look in the next table
                return route
        return None


def node_addresses(nodes: Iterable[Any], node_name: str) -> List[Tuple[str, str]]:
    """Name and address of every node, by the families that this host has: what its peers' next hops and its own address are taken from."""
    nodes = list(nodes)
    families = {":" in ip for node in nodes if node.name == node_name for ip in node.node_ips}
    firsts = ((node.name, next((ip for ip in node.node_ips if (":" in ip) == family), "")) for node in nodes for family in sorted(families))
    return [(name, ip) for name, ip in firsts if ip]


def overlap_with_node_network(nodes: Sequence[Any], node_name: str, on_link: OnLink) -> Optional[Overlap]:
    """The first pod CIDR of the table that overlaps a network by which this host reaches its peers; None if all is well.

    That no node's address is a pod's is known by now. An address of such a network that no node has may be anybody's: a gateway's, or that of the next node.
    """
    cidrs = []
    for node in nodes:
        for cidr in node.pod_cidrs:
            address, _slash, prefix = cidr.partition("/")
            family, dst = packed(address)
            first = int.from_bytes(dst, "big")
            cidrs.append((family, first, first | ((1 << (BITS[family] - int(prefix))) - 1), node.name, cidr))
    cidrs.sort()  # disjoint as they are, their ends are sorted too
    ends = [(family, last) for family, _first, last, _name, _cidr in cidrs]
    seen = set()
    for name, ip in node_addresses(nodes, node_name):
        route = on_link.network(*packed(ip))
        if route is None or (route.family, route.dst, route.prefix) in seen:
            continue
        seen.add((route.family, route.dst, route.prefix))
        first = int.from_bytes(route.dst, "big")
        at = bisect_left(ends, (route.family, first))
        if at < len(cidrs) and cidrs[at][0] == route.family and cidrs[at][1] <= first | ((1 << (BITS[route.family] - route.prefix)) - 1):
            return Overlap(cidrs[at][3], cidrs[at][4], route, name, ip)
    return None
