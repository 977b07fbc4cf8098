# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a report to a map: who the nodes are, which pods run there, and what becomes of each route that one of them should have. Pure.

What is right is what the node table of the report says; what is there is what the hosts said. A host that said nothing was not looked at: nothing
of it is right.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from functools import lru_cache
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ..module_utils._peers_digest import expected
from ._cross_hosts import could_tell
from ._told_routes import is_cut, is_rest_right, leaves_out, told_routes

RIGHT, MISSING, FOREIGN, WRONG, UNKNOWN = "right", "missing", "foreign", "wrong", "unknown"
# What an operator has to look at first comes first.
FINDINGS = (MISSING, WRONG, FOREIGN)
STATES = FINDINGS + (UNKNOWN, RIGHT)

# Up to this many nodes, each route is kept. Of more nodes, the right ones are counted: there would be a million of them at 1,000.
EACH_ROUTE = 50

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class Pod(NamedTuple):
    name: str
    ips: Tuple[str, ...]
    interface: str  # the host's end of its veth


class Route(NamedTuple):
    """A route that a node has, or should have."""

    source: str  # the node that has it
    dst: str
    target: str  # the node whose pods these are; "" if it is none of the table
    state: str
    via: str  # the next hop that it has; "" if there is none
    wanted: str  # the next hop that the node table says; "" if it wants no such route
    leads_to: str  # the node whose address ``via`` is; "" if it is none's
    text: str  # what is the matter with it, as half a sentence; "" if nothing is


class MapNode(NamedTuple):
    name: str
    node_ips: Tuple[str, ...]
    pod_cidrs: Tuple[str, ...]
    status: str  # of its host in the report; "" if the run was not about it
    looked_at: bool  # it said what its routes are
    pods: Tuple[Pod, ...]
    routes: Tuple[Route, ...]  # each one, or, of a large cluster, all but the right ones
    right: int  # how many are right
    wanted: int  # how many there should be

    @property
    def summary(self) -> str:
        """In how far its routes are right, in a few words."""
        if not self.looked_at:
            return "not looked at"
        if not self.wanted:
            return "no route wanted"
        return "%d of %d routes right" % (self.right, self.wanted)


class Map(NamedTuple):
    cluster_name: str
    nodes: Tuple[MapNode, ...]
    table: bool  # there is a node table; without one nothing is known to be missing
    findings: Tuple[Route, ...]  # what stands out, the worst first, then in the order of the nodes


def label(route: Route) -> str:
    """A route in a few words, such as ``10.244.1.0/24 via 172.18.0.3``."""
    words = route.dst
    if route.state == MISSING:
        return "%s missing, wanted via %s" % (words, route.wanted)
    if route.via:
        words += " via %s" % route.via
    return "%s (%s)" % (words, route.text) if route.text else words


def map_of(report: Mapping[str, Any]) -> Map:
    """The map of ``report``, which is the content of drift.json."""
    hosts = {str(h.get("name", "")): h for h in report.get("hosts") or ()}
    table = bool(report.get("nodes"))
    entries = [_entry(n) for n in report.get("nodes") or ()]
    known = {name for name, _ips, _cidrs in entries}
    entries += [_derived(name, host) for name, host in hosts.items() if name not in known]
    digests = expected([{"name": name, "node_ips": ips, "pod_cidrs": cidrs} for name, ips, cidrs in entries if name in known])
    book = _Book(entries, digests, len(entries) <= EACH_ROUTE)
    nodes = tuple(book.node(entry, hosts.get(entry[0])) for entry in entries)
    findings = tuple(r for state in FINDINGS for n in nodes for r in n.routes if r.state == state)
    return Map(str(report.get("cluster_name") or ""), nodes, table, findings)


def _texts(values: Any) -> Tuple[str, ...]:
    return tuple(str(v) for v in values or ())


def _entry(node: Mapping[str, Any]) -> Tuple[str, Tuple[str, ...], Tuple[str, ...]]:
    return str(node.get("name", "")), _texts(node.get("node_ips")), _texts(node.get("pod_cidrs"))


def _derived(name: str, host: Mapping[str, Any]) -> Tuple[str, Tuple[str, ...], Tuple[str, ...]]:
    """What a host says of itself, if the node table says nothing of it."""
    info = host.get("info") or {}
    interface = (info.get("node_interface") or {}).get("name")
    ips = [a.get("ip") for a in info.get("addresses") or () if interface and a.get("interface") == interface]
    return name, _texts(ips), _texts((info.get("desired") or {}).get("pod_cidrs"))


@lru_cache(maxsize=16384)  # the same few thousand, asked for a million times
def _network(text: str) -> Optional[Network]:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None  # "default", or nothing that is a destination


def _holds(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version, which mypy does not see


def _family(text: str) -> int:
    return 6 if ":" in text else 4


class _Book:
    """What the routes of every node are compared with; made once for all of them."""

    def __init__(self, entries: Sequence[Tuple[str, Tuple[str, ...], Tuple[str, ...]]], known: Mapping[str, str], each: bool) -> None:
        """
        :param known: the nodes of the table, each with the digest of its peers.
        """
        self.each = each
        self.known = known
        self.owner: Dict[str, str] = {}  # the node by a pod CIDR
        self.wanted: Dict[str, str] = {}  # the next hop by a pod CIDR; "" where the node has no address of that family
        self.at: Dict[str, str] = {}  # the node by an address
        for name, ips, cidrs in entries:
            for ip in ips:
                self.at.setdefault(ip, name)
            for cidr in cidrs:
                self.owner[cidr] = name
                self.wanted[cidr] = next((ip for ip in ips if _family(ip) == _family(cidr)), "")
        self.addresses = [network for network in map(_network, self.at) if network]
        self.networks = [(network, cidr) for cidr in self.owner for network in [_network(cidr)] if network]

    def node(self, entry: Tuple[str, Tuple[str, ...], Tuple[str, ...]], host: Optional[Mapping[str, Any]]) -> MapNode:
        name, ips, cidrs = entry
        info = (host or {}).get("info") or {}
        pods = tuple(Pod(str(p.get("name") or p.get("container") or ""), _texts(p.get("ips")), str(p.get("interface") or "")) for p in info.get("pods") or ())
        status = str(host.get("status", "")) if host else ""
        # Without a table, hosts' own words are all there is, and no route is wanted for certain.
        wanted = [c for c in self.owner if self.owner[c] != name and self.owner[c] in self.known] if name in self.known else []
        if not could_tell(info, "routes"):
            return MapNode(name, ips, cidrs, status, False, pods, self._not_looked_at(name, wanted), 0, len(wanted))
        look = _Look(self, entry, host or {}, info)
        found, right = look.routes(wanted)
        return MapNode(name, ips, cidrs, status, True, pods, tuple(found), right, len(wanted))

    def _not_looked_at(self, name: str, wanted: Iterable[str]) -> Tuple[Route, ...]:
        if not self.each:
            return ()
        return tuple(Route(name, c, self.owner[c], UNKNOWN, "", self.wanted[c], "", "not looked at") for c in wanted)


class _Look:
    """A look at the routes of one node."""

    def __init__(
        self, book: _Book, entry: Tuple[str, Tuple[str, ...], Tuple[str, ...]], host: Mapping[str, Any], info: Mapping[str, Any]
    ) -> None:
        name, ips, own = entry
        self.book, self.name, self.own = book, name, set(own)
        self.families = set(map(_family, ips))
        self.leaves_out = leaves_out(host)
        self.is_cut = is_cut(host)
        self.is_rest_right = is_rest_right(host, book.known.get(name, ""))
        self.own_networks = [n for n in map(_network, own) if n]
        self.at: Dict[str, List[Mapping[str, Any]]] = {}
        for route in told_routes(host):
            self.at.setdefault(str(route.get("dst", "")), []).append(route)
        # The run compared with more than the node table, such as with gateways to other networks: what it named is not right.
        self.named = {str(c) for c in (info.get("peers") or {}).get("missing") or ()}
        for item in list(host.get("differences") or ()) + list(host.get("problems") or ()):
            words = str(item.get("subject", "")).split()
            if len(words) > 1 and words[0] == "route":
                self.named.add(words[1])
        self.links = [n for n in (_network("%s/%s" % (a.get("ip"), a.get("prefix_length"))) for a in info.get("addresses") or ()) if n]

    def routes(self, wanted: Sequence[str]) -> Tuple[List[Route], int]:
        """All but the right ones of a large cluster, and how many are right."""
        found: List[Route] = []
        right = 0
        for cidr in wanted:
            route = self._peer(cidr, self.at.pop(cidr, []), found)
            right += route.state == RIGHT
            if self.book.each or route.state != RIGHT:
                found.append(route)
        for routes in self.at.values():
            found.extend(r for r in map(self._other, routes) if r)
        return found, right

    def _peer(self, cidr: str, routes: List[Mapping[str, Any]], found: List[Route]) -> Route:
        """What becomes of packets to the pods ``cidr``. Routes that the kernel does not come to are added to ``found``."""
        wanted = self.book.wanted[cidr]
        if len(routes) == 1 and routes[0].get("ours") and routes[0].get("via") == wanted and routes[0].get("type", "unicast") == "unicast":
            return self._route(cidr, RIGHT, wanted, "")  # all but a few; there may be a million
        if not routes:
            if self.leaves_out and cidr not in self.named and wanted and _family(cidr) in self.families:
                return self._route(cidr, RIGHT, wanted, "") if self.is_rest_right else self._route(cidr, UNKNOWN, "", "not told")
            if cidr not in self.named and not self._on_link(wanted):
                return self._route(cidr, UNKNOWN, "", "not told" if self.is_cut else "not on-link, left to the network")
            return self._route(cidr, MISSING, "", "")
        routes = sorted(routes, key=lambda r: (int(r.get("metric") or 0), not r.get("ours")))
        found.extend(self._route(cidr, FOREIGN, str(r.get("via") or ""), _made_by(r)) for r in routes[1:] if not r.get("ours"))
        route = routes[0]
        via, kind = str(route.get("via") or ""), str(route.get("type") or "unicast")
        shares = [str(r.get("via") or "") for r in routes[1:] if r.get("ours") and route.get("ours") and r.get("metric") == route.get("metric")]
        if shares:  # each next hop of a multipath route is told as one route
            return self._route(cidr, WRONG, via, "and via %s" % ", ".join(shares))
        if not route.get("ours"):
            same = via == wanted and kind == "unicast"
            return self._route(cidr, FOREIGN, via, _made_by(route) + (", and right" if same else ", in the way of ours" if len(routes) > 1 else ""))
        if kind != "unicast":
            return self._route(cidr, WRONG, via, kind)
        if via == wanted:
            return self._route(cidr, RIGHT, via, "")
        if via and cidr not in self.named and not self._on_link(wanted):
            return self._route(cidr, UNKNOWN, via, "not told") if self.is_cut else self._route(cidr, RIGHT, via, "by a gateway")
        return self._route(cidr, WRONG, via, "not via %s" % wanted if wanted else "no next hop is known")

    def _other(self, route: Mapping[str, Any]) -> Optional[Route]:
        """A route to anything else than a peer's pod CIDR; None if it is none of the map's business."""
        dst, via = str(route.get("dst", "")), str(route.get("via") or "")
        if route.get("ours"):
            if self.name not in self.book.known:
                right = dst in self.book.owner and self.book.at.get(via) == self.book.owner[dst]
                return self._route(dst, RIGHT if right else UNKNOWN, via, "" if right else "there is no node table")
            return self._route(dst, WRONG, via, "its own pods" if dst in self.own else "of no node")
        network = _network(dst)
        if network is None or not via and any(_holds(own, network) for own in self.own_networks):
            return None  # a pod of its own
        if network.prefixlen == 0 or any(_holds(network, address) for address in self.book.addresses):
            return None  # how peers are reached, not pods
        within = [cidr for outer, cidr in self.book.networks if _holds(outer, network)]
        text = _made_by(route) + (", within the pods of %s" % self.book.owner[within[0]] if within and dst not in within else "")
        return self._route(dst, FOREIGN, via, text, self.book.owner[within[0]] if within else "")

    def _route(self, dst: str, state: str, via: str, text: str, target: str = "") -> Route:
        return Route(self.name, dst, target or self.book.owner.get(dst, ""), state, via, self.book.wanted.get(dst, ""), self.book.at.get(via, ""), text)

    def _on_link(self, address: str) -> bool:
        """Whether ``address`` is in a network of one of its interfaces, as far as is known."""
        network = _network(address) if address else None
        return not self.links or network is None or any(_holds(link, network) for link in self.links)


def _made_by(route: Mapping[str, Any]) -> str:
    kind = str(route.get("type") or "unicast")
    words = ["proto %s" % (route.get("protocol") or "unknown")]
    if kind != "unicast":
        words.insert(0, kind)
    if route.get("dev") and not route.get("via"):
        words.append("dev %s" % route["dev"])
    if route.get("metric"):
        words.append("metric %s" % route["metric"])
    return " ".join(words)
