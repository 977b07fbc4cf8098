# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses are on-link, judged over the routes that the kernel has. Pure."""

from __future__ import annotations

__metaclass__ = type

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
    route_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, Optional, Tuple

    from ._route import Route


class OnLink:
    """Whether the kernel takes an address as a next hop: the same look-up that it makes, over its own routes.

    IPv4 looks among the routes that lead directly to a link or to this host, and overlooks those via a gateway. IPv6 takes the
    best route of all, and that one must not be via a gateway.
    """

    def __init__(self, routes: Iterable[Route], table: int) -> None:
        self._routes = routes
        # Policy rules could say otherwise; then the kernel's refusal is reported as that of the one peer.
        self._tables = ([table] if table not in (LOCAL_TABLE, MAIN_TABLE) else []) + [LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE]
        self._index: Dict[Tuple[int, int], Dict[int, Dict[int, Route]]] = {}
        self._answers: Dict[bytes, str] = {}

    def trouble(self, family: int, address: bytes) -> str:
        """Half a sentence about what is wrong with ``address`` as a next hop; "" if nothing is."""
        if address not in self._answers:
            if not self._index:
                self._build()
            self._answers[address] = self._look(family, address)
        return self._answers[address]

    def _build(self) -> None:
        for route in self._routes:
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
            return "is not on-link: this host reaches it by %s" % route_text(best, {})
        return "is not on-link: no interface of this host is in its network"

    def _best(self, family: int, table: int, address: bytes) -> Optional[Route]:
        by_prefix = self._index.get((family, table), {})
        number = int.from_bytes(address, "big")
        for prefix in sorted(by_prefix, reverse=True):
            route = by_prefix[prefix].get(number >> (BITS[family] - prefix))
            if route is not None and route.type != THROW:  # which means: look in the next table
                return route
        return None
