# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes that a section of desired.json wants: to which peer, by which next hop, and whether the kernel has just these.

Pure. A clean pass needs no more of the planning than this.
"""

from __future__ import annotations

__metaclass__ = type

import socket
from collections import namedtuple

from ._route import AF_INET, AF_INET6, BITS, BOOT, FLAG_ONLINK, Route, covering, is_plain, packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

    Section = Dict[str, Any]

    class Peer(NamedTuple):
        """One route that is wanted."""

        family: int
        dst: bytes
        prefix: int
        gateway: bytes
        node: str
        cidr: str
        next_hop: str
        how: str = ""  # of a peer that is not on-link: SKIP, VIA or ONLINK
        device: str = ""  # with ONLINK, the interface
        address: str = ""  # its own, where next_hop is that of a gateway
else:
    Peer = namedtuple("Peer", "family dst prefix gateway node cidr next_hop how device address", defaults=("", "", ""))

# What becomes of a peer that is not on-link
FAIL, SKIP, ONLINK, VIA = "fail", "skip", "onlink", "via"


def peers_of(nodes: Iterable[Any], node_name: str) -> List[List[str]]:
    """The wanted routes as they are recorded: node, pod CIDR, next hop.

    The next hop is the peer's first address of the same family, so it is the same one in every pass. Of a family that this node has no
    address of it gets no route: what it sent by it would have no way back.
    """
    nodes = list(nodes)
    families = {":" in ip for node in nodes if node.name == node_name for ip in node.node_ips}
    peers = []
    for node in nodes:
        if node.name == node_name:
            continue  # the node's own pods have host routes of their own, made by ptp
        for cidr in node.pod_cidrs:
            next_hop = next((ip for ip in node.node_ips if (":" in ip) == (":" in cidr)), None)
            if next_hop is not None and (":" in cidr) in families:
                peers.append([node.name, cidr, next_hop])
    return peers


def parse_peers(section: Section) -> List[Peer]:
    """The wanted routes of a section, those of peers that are not on-link as it was decided about them."""
    decided: Dict[str, Sequence[str]] = section.get("non_l2", {})
    return [parse_peer(entry, decided.get(entry[2], ())) for entry in section.get("peers", ())]


def parse_peer(entry: Sequence[str], decided: Sequence[str] = ()) -> Peer:
    node, cidr, next_hop = entry
    address, _slash, prefix = cidr.partition("/")
    family, dst = packed(address)
    peer = Peer(family, dst, int(prefix), packed(next_hop)[1], node, cidr, next_hop)
    if not decided:
        return peer
    if decided[0] == VIA:
        gateway = decided[1]
        return peer._replace(how=VIA, address=next_hop, next_hop=gateway, gateway=packed(gateway)[1] if gateway else b"")
    return peer._replace(how=decided[0], address=next_hop, device=decided[1] if decided[0] == ONLINK else "")


def is_as_wanted(section: Section, own: Sequence[Route], index_of: Callable[[str], int] = lambda name: -1) -> bool:
    """Whether the routes of ours are exactly those of ``section``: nothing is missing, left over or different.

    :param index_of: the index of an interface; -1 if there is none.
    """
    entries = section.get("peers", ())
    decided: Dict[str, Sequence[str]] = section.get("non_l2", {})
    if not decided and len(own) != len(entries):
        return False
    inet_pton = socket.inet_pton
    # To the next hop, and where this is said to be on-link, the interface
    wanted: Dict[Tuple[bytes, int], Tuple[bytes, int]] = {}
    for _node, cidr, next_hop in entries:
        interface = 0
        if decided and next_hop in decided:
            how = decided[next_hop]
            if how[0] == SKIP:
                continue
            if not how[1]:
                return False
            if how[0] == VIA:
                next_hop = how[1]
            else:
                interface = index_of(how[1])
        address, _slash, prefix = cidr.partition("/")
        family = AF_INET6 if ":" in cidr else AF_INET
        wanted[inet_pton(family, address), int(prefix)] = (inet_pton(family, next_hop), interface)
    for route in own:
        # Once found it is taken out, so a second route to the same destination is one too many.
        found = (route.gateway, route.oif if route.flags & FLAG_ONLINK else 0)
        if wanted.pop((route.dst, route.prefix), None) != found or not is_plain(route):
            return False
    return not wanted


def could_be_taken_over(section: Section, live: Iterable[Route]) -> bool:
    """Whether there is a route of kindnetd's that a takeover would adopt or remove. ``live`` are those of protocol boot."""
    if not section.get("takeover"):
        return False
    known = known_addresses(section)
    found = [r for r in live if is_kindnetds(r, known)]
    if not found:
        return False
    wanted = {(p.dst, p.prefix) for p in parse_peers(section)}
    clusters = [network_of(c) for c in section.get("cluster_cidrs", ())]
    return any((r.dst, r.prefix) in wanted or any(is_inside(r, c) for c in clusters) for r in found)


def relevance(section: Section) -> Callable[[Route], bool]:
    """Which routes have a part in the plan: those of ours and what IPv6 may have joined them to, those to a wanted destination, those that
    lead to a next hop, and in a takeover those of kindnetd and what is beside them.

    So a host with a full routing table costs no memory for it, and what is planned is the same.
    """
    protocol, table = section["protocol"], section["table"]
    peers = parse_peers(section)
    wanted = {(p.dst, p.prefix) for p in peers}
    leads_to_a_hop = covering((p.family, p.gateway) for p in peers if p.gateway)
    clusters = [network_of(c) for c in section.get("cluster_cidrs", ())]

    def relevant(route: Route) -> bool:
        if route.table == table and (
            route.protocol in (protocol, BOOT)
            or (route.dst, route.prefix) in wanted
            or (route.family == AF_INET6 and route.hops)
            or any(is_inside(route, c) for c in clusters)
        ):
            return True
        return leads_to_a_hop(route)

    return relevant


def is_kindnetds(route: Route, known: Iterable[bytes]) -> bool:
    """As kindnetd makes them, which is also what a bare ``ip route add`` leaves: only ever looked at for a takeover."""
    return route.protocol == BOOT and is_plain(route) and bool(route.gateway) and route.gateway in known


def known_addresses(section: Section) -> frozenset[bytes]:
    hops = [hop for _node, _cidr, hop in section.get("peers", ())]
    return frozenset(packed(a)[1] for a in hops + list(section.get("known_addresses", ())))


def network_of(cidr: str) -> Tuple[int, int, int]:
    address, _slash, prefix = cidr.partition("/")
    family, dst = packed(address)
    return family, int.from_bytes(dst, "big"), int(prefix)


def is_inside(route: Route, network: Tuple[int, int, int]) -> bool:
    family, first, prefix = network
    if route.family != family or route.prefix < prefix:
        return False
    shift = BITS[family] - prefix
    return int.from_bytes(route.dst, "big") >> shift == first >> shift
