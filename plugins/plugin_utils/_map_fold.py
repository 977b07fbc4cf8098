# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A map in few enough pieces to be read: many nodes in groups, many findings of one cause in bundles. Pure."""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from typing import Dict, Iterable, List, NamedTuple, Sequence, Set, Tuple, Union

from ._map import FINDINGS, FOREIGN, RIGHT, UNKNOWN, WRONG, Map, MapNode, Route, label

# Above so many nodes, those without findings are groups. Of those with findings, the ones with most are drawn.
MOST_NODES, MOST_ALONE, MOST_GROUPS = 50, 30, 16
# Of so few nodes, and routes, every route can be an arrow.
FEW_NODES, FEW_ROUTES = 4, 48
# So many findings of one node, or about one destination, are one bundle.
BUNDLE = 4


class Piece(NamedTuple):
    """One node, or a group of them."""

    name: str
    nodes: Tuple[MapNode, ...]
    address: str
    pod_cidrs: str

    @property
    def is_group(self) -> bool:
        return len(self.nodes) > 1

    @property
    def looked_at(self) -> bool:
        return all(n.looked_at for n in self.nodes)

    @property
    def summary(self) -> str:
        if not self.is_group or not self.looked_at:
            return self.nodes[0].summary
        not_right = sum(n.wanted - n.right for n in self.nodes)
        return "%d routes not right" % not_right if not_right else "all routes right"


class Cell(NamedTuple):
    """What becomes of the packets from one piece to another."""

    state: str  # the worst
    findings: Tuple[Route, ...]


class Bundle(NamedTuple):
    """Findings that are drawn as one arrow."""

    state: str
    sources: Tuple[str, ...]
    targets: Tuple[str, ...]  # the nodes that they lead to, or should; "" is elsewhere
    owners: Tuple[str, ...]  # the nodes whose pods they are about
    text: str


def end_of(route: Route) -> str:
    """Where an arrow ends: the node that packets are for, or are sent to if that is another one; "" is elsewhere."""
    if route.state in (WRONG, FOREIGN):
        return route.leads_to if route.leads_to != route.source else ""
    return route.target


def fits_each_route(found: Map) -> bool:
    """Whether every route can be an arrow of its own."""
    return len(found.nodes) <= FEW_NODES and sum(len(n.routes) for n in found.nodes) <= FEW_ROUTES


def arrows(found: Map) -> Tuple[Bundle, ...]:
    """What is drawn as arrows: every route of a few nodes, else what stands out."""
    if fits_each_route(found):
        return tuple(_single(r) for n in found.nodes for r in n.routes)
    return bundles(found.findings)


def pieces(found: Map) -> Tuple[Piece, ...]:
    """The nodes of a small map; of a large one, those that a finding is about, and groups of the others by their network."""
    if len(found.nodes) <= MOST_NODES:
        return tuple(_alone(n) for n in found.nodes)
    about = [name for b in bundles(found.findings) for names in (b.targets, b.sources, b.owners) if len(names) == 1 for name in names if name]
    # What many nodes lack is about what they lack, so they stay in their groups.
    alone = set(list(dict.fromkeys(about))[:MOST_ALONE])
    return tuple(_alone(n) for n in found.nodes if n.name in alone) + groups([n for n in found.nodes if n.name not in alone])


def cells(found: Map, rows: Sequence[Piece]) -> Dict[Tuple[int, int], Cell]:
    """By row and column, both places in ``rows``; none where a node meets itself."""
    place = {n.name: i for i, piece in enumerate(rows) for n in piece.nodes}
    between: Dict[Tuple[int, int], List[Route]] = {}
    unknown: Set[Tuple[int, int]] = set()
    for node in found.nodes:
        for route in node.routes:
            if route.target in place and route.state != RIGHT:
                pair = place[route.source], place[route.target]
                if route.state == UNKNOWN:
                    unknown.add(pair)
                else:
                    between.setdefault(pair, []).append(route)
    table = {}
    for i, row in enumerate(rows):
        for k, column in enumerate(rows):
            if i == k and not row.is_group:
                continue
            routes = tuple(between.get((i, k), ()))
            if routes:
                state = min((r.state for r in routes), key=FINDINGS.index)
            else:
                known = row.looked_at and found.table and (i, k) not in unknown and all(n.pod_cidrs for n in column.nodes)
                state = RIGHT if known else UNKNOWN
            table[i, k] = Cell(state, routes)
    return table


def bundles(routes: Sequence[Route]) -> Tuple[Bundle, ...]:
    """Findings, those of one cause together: what one node lacks or has, and what many nodes lack or have alike."""
    keys: Dict[Tuple[str, ...], List[int]] = {}
    for i, route in enumerate(routes):
        for key in _keys(route):
            keys.setdefault(key, []).append(i)
    left: Set[int] = set(range(len(routes)))
    made: Dict[int, Bundle] = {}
    for key in sorted(keys, key=lambda k: (-len(keys[k]), keys[k][0], k)):
        places = [i for i in keys[key] if i in left]
        if len(places) >= BUNDLE:
            left.difference_update(places)
            made[places[0]] = _bundle([routes[i] for i in places], key[0] == "from")
    for i in left:
        made[i] = _single(routes[i])
    return tuple(made[i] for i in sorted(made))


def _keys(route: Route) -> Iterable[Tuple[str, ...]]:
    yield "from", route.state, route.source
    yield "to", route.state, route.dst, route.via, route.text


def _single(route: Route) -> Bundle:
    return Bundle(route.state, (route.source,), (end_of(route),), (route.target,), label(route))


def _bundle(routes: Sequence[Route], of_one_source: bool) -> Bundle:
    sources = tuple(dict.fromkeys(r.source for r in routes))
    targets = tuple(dict.fromkeys(end_of(r) for r in routes))
    text = "%d routes %s" % (len(routes), routes[0].state) if of_one_source else label(routes[0])
    return Bundle(routes[0].state, sources, targets, tuple(dict.fromkeys(r.target for r in routes)), text)


def _alone(node: MapNode) -> Piece:
    return Piece(node.name, (node,), ", ".join(node.node_ips), ", ".join(node.pod_cidrs))


def groups(nodes: Sequence[MapNode]) -> Tuple[Piece, ...]:
    """Groups by the network of the first address, in networks as small as leave few enough groups; nodes that were not looked at are apart."""
    for shorter in (0, 4, 8, 12, 16, 32, 64):
        found: Dict[Tuple[bool, str], List[MapNode]] = {}
        for node in nodes:
            found.setdefault((not node.looked_at, _network_of(node, shorter)), []).append(node)
        if len(found) <= MOST_GROUPS or shorter == 64:
            break
    return tuple(sorted((_group(network, members) for (_unseen, network), members in found.items()), key=lambda p: p.is_group))


def _network_of(node: MapNode, shorter: int) -> str:
    address = _address(node.node_ips[0]) if node.node_ips else None
    if address is None:
        return "no address"
    length = max({4: 24, 6: 64}[address.version] - shorter, 0)
    return str(ipaddress.ip_network("%s/%d" % (address, length), strict=False))


def _address(text: str) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address, None]:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _group(network: str, members: List[MapNode]) -> Piece:
    if len(members) == 1:
        return _alone(members[0])
    return Piece("%d nodes" % len(members), tuple(members), network, "%d pod CIDRs" % sum(len(n.pod_cidrs) for n in members))
