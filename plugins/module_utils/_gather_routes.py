# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes that matter to pods: ours, those of others in our networks, and those by which peers are reached. Looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

from . import _netlink
from ._links import RouteLookup
from ._route import (
    AF_INET,
    AF_INET6,
    BITS,
    FLAG_ONLINK,
    MAIN_TABLE,
    PROTOCOL,
    PROTOCOLS,
    TYPES,
    UNICAST,
    address_text,
    cidr_text,
    competes,
    covering,
    is_plain,
    leads_to,
    packed,
)
from ._wanted_routes import SKIP, network_of, parse_peers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Set, Tuple

    from ._route import Route

    Section = Dict[str, Any]

FAMILIES = (AF_INET, AF_INET6)
ASKED = 16  # peers; one that the kernel has a way to is enough


def lying_in(cidrs: Iterable[str]) -> Callable[[Route], bool]:
    """Which routes lead to a part of one of ``cidrs``, or to all of it."""
    networks: Dict[int, Dict[int, Set[int]]] = {family: {} for family in FAMILIES}
    for family, first, prefix in map(network_of, cidrs):
        networks[family].setdefault(prefix, set()).add(first >> (BITS[family] - prefix))

    def lies(route: Route) -> bool:
        number = int.from_bytes(route.dst, "big")
        bits = BITS[route.family]
        return any(prefix <= route.prefix and number >> (bits - prefix) in known for prefix, known in networks[route.family].items())

    return lies


def read(section: Section, cidrs: Iterable[str]) -> List[Route]:
    """One dump per family.

    :param section: the recorded one, or {}.
    """
    protocol, table = section.get("protocol", PROTOCOL), section.get("table", MAIN_TABLE)
    hops = list(dict.fromkeys(packed(hop) for _node, _cidr, hop in section.get("peers", ())))
    in_ours, leads_to_a_hop = lying_in(cidrs), covering(hops)
    found: List[Route] = []
    reaching: List[Route] = []
    for number in sorted({MAIN_TABLE, table}):
        for family in FAMILIES:
            for route in _netlink.dump(family, number, 0, lambda r: r.protocol == protocol or in_ours(r) or leads_to_a_hop(r)):
                (found if route.protocol == protocol or in_ours(route) else reaching).append(route)
    return list(dict.fromkeys(found + closest(reaching, hops)))  # the walk of an IPv6 table may tell a route twice


def closest(routes: Iterable[Route], addresses: Iterable[Tuple[int, bytes]]) -> List[Route]:
    """Pure. Of routes that cover ``addresses`` the ones that the kernel would take to one of them: those of the longest prefix."""
    by_prefix: Dict[Tuple[int, int], Dict[int, List[Route]]] = {}
    for route in routes:
        networks = by_prefix.setdefault((route.family, route.prefix), {})
        networks.setdefault(int.from_bytes(route.dst, "big") >> (BITS[route.family] - route.prefix), []).append(route)
    lengths = sorted(by_prefix, key=lambda key: -key[1])
    found: List[Route] = []
    for family, address in addresses:
        number = int.from_bytes(address, "big")
        for its_family, prefix in lengths:
            best = by_prefix[its_family, prefix].get(number >> (BITS[family] - prefix)) if its_family == family else None
            if best:
                found += best
                break
    return list(dict.fromkeys(found))


def rows(routes: Iterable[Route], section: Section, links: Dict[int, str]) -> List[Dict[str, Any]]:
    """Pure. As data, one for each next hop."""
    protocol, table = section.get("protocol", PROTOCOL), section.get("table", MAIN_TABLE)
    found = []
    for route in routes:
        for gateway, oif in [(hop.gateway, hop.oif) for hop in route.hops] or [(route.gateway, route.oif)]:
            found.append(
                {
                    "dst": cidr_text(route),
                    "via": address_text(route.family, gateway),
                    "dev": links.get(oif, ""),
                    "protocol": PROTOCOLS.get(route.protocol, str(route.protocol)),
                    "metric": route.metric,
                    "type": TYPES.get(route.type, "unicast" if route.type == UNICAST else str(route.type)),
                    "ours": route.protocol == protocol and route.table == table,
                }
            )
    return found


def as_recorded(section: Section, routes: Iterable[Route]) -> List[Route]:
    """Pure. Of ``routes`` those of which there is nothing to tell but that they are there: ours, to a recorded peer by its own address, each as we
    make them and the only one to its destination. None where there are peers that are not on-link: what was decided of those is not to be guessed.
    """
    if section.get("non_l2"):
        return []
    wanted = {(peer.family, peer.dst, peer.prefix): peer.gateway for peer in parse_peers(section)}
    by_destination: Dict[Tuple[int, bytes, int], List[Route]] = {}
    for route in routes:
        by_destination.setdefault((route.family, route.dst, route.prefix), []).append(route)
    return [
        route
        for key, (route, *others) in by_destination.items()
        if key in wanted
        and not others
        and route.protocol == section.get("protocol", PROTOCOL)
        and route.table == section.get("table", MAIN_TABLE)
        and is_plain(route)
        and route.gateway == wanted[key]
        and not route.flags & FLAG_ONLINK
    ]


def peers(section: Section, routes: Iterable[Route]) -> Dict[str, Any]:
    """Pure. Of the recorded peers those to which a route leads as it should, whoever made it."""
    by_destination: Dict[Tuple[int, bytes, int], List[Route]] = {}
    for route in routes:
        if route.table == section.get("table", MAIN_TABLE) and competes(route):
            by_destination.setdefault((route.family, route.dst, route.prefix), []).append(route)
    wanted = [peer for peer in parse_peers(section) if peer.how != SKIP]
    missing = [
        peer.cidr
        for peer in wanted
        if not any(peer.gateway and leads_to(route, peer.gateway) for route in by_destination.get((peer.family, peer.dst, peer.prefix), ()))
    ]
    return {"wanted": len(wanted), "present": len(wanted) - len(missing), "missing": missing}


def host_routes() -> Dict[str, str]:
    """The interface that each address is behind by a route of its own, as the plugin ptp makes one for each pod."""
    links = _netlink.link_names()
    found: Dict[str, str] = {}
    for family in FAMILIES:
        for route in _netlink.dump(family, MAIN_TABLE, 0, lambda r: r.prefix == BITS[r.family] and r.type == UNICAST and not r.gateway and r.oif > 0):
            found.setdefault(address_text(family, route.dst), links.get(route.oif, ""))
    return found


def node_interface(section: Section) -> Dict[str, Any]:
    """The interface that leads to the peers, by the first of them that the kernel has a way to."""
    hops = list(dict.fromkeys(peer.next_hop for peer in parse_peers(section) if peer.next_hop))
    with RouteLookup() as lookup:
        for hop in hops[:ASKED]:
            found = lookup.interface_to(hop)
            if found:
                return {"name": found[0], "mtu": found[1]}
    return {"name": "", "mtu": 0}
