# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From peers and the kernel's routes to a plan. Pure: no socket, no clock, no file.

What is ours is known by its protocol number. What is not ours is never changed: where it is right it serves the peer, where it is
in the way that is reported. Only kindnetd's own routes are taken over, and only when that is asked for.
"""

from __future__ import annotations

__metaclass__ = type

import socket
from collections import namedtuple

from ._plan import Change, Plan, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

    Section = Dict[str, Any]

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

    class Live(NamedTuple):
        """What is in the kernel."""

        own: Tuple[Route, ...]  # those of our protocol in our table
        # Every route that has a part in the plan; None: not read, because ``own`` is just as wanted and a pass has nothing to do
        everything: Optional[Tuple[Route, ...]] = None
        links: Dict[int, str] = {}  # names of interfaces by index, for messages

    class Peer(NamedTuple):
        """One route that is wanted."""

        family: int
        dst: bytes
        prefix: int
        gateway: bytes
        node: str
        cidr: str
        next_hop: str

    class Op(NamedTuple):
        """What the adapter needs to make a change."""

        route: Route
        node: str  # "" when the route belongs to no node of the table
        after: str  # the subject of a change without which this one is not made; "" if there is none

    class Verdict(NamedTuple):
        """What becomes of one route, for the module's result."""

        subject: str
        node: str
        dst: str
        next_hop: str
        action: str
        reason: str
else:
    Hop = namedtuple("Hop", "gateway oif flags weight")
    Route = namedtuple(
        "Route",
        "family table dst prefix tos metric protocol scope type flags gateway oif prefsrc hops nexthop_id extra",
        defaults=(0, b"", 0, b"", (), 0, ()),
    )
    Live = namedtuple("Live", "own everything links", defaults=(None, {}))
    Peer = namedtuple("Peer", "family dst prefix gateway node cidr next_hop")
    Op = namedtuple("Op", "route node after")
    Verdict = namedtuple("Verdict", "subject node dst next_hop action reason")

AF_INET, AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)
PROTOCOL = 107
KERNEL, BOOT = 2, 3
DEFAULT_TABLE, MAIN_TABLE, LOCAL_TABLE = 253, 254, 255
UNIVERSE, LINK = 0, 253
UNICAST, LOCAL, ANYCAST, THROW = 1, 2, 4, 9
DEAD, LINKDOWN = 0x01, 0x10
RTA_SRC = 2

# What the kernel takes when no metric is given, and what `ip route` and kindnetd leave.
METRIC = {AF_INET: 0, AF_INET6: 1024}
BITS = {AF_INET: 32, AF_INET6: 128}

PROTOCOLS = {0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp", 186: "bgp", 188: "ospf"}
TYPES = {2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw", 10: "nat"}
SCOPES = {200: "site", 253: "link", 254: "host", 255: "nowhere"}


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


def packed(text: str) -> Tuple[int, bytes]:
    """Family and bytes of canonical text; ipaddress would cost more than the dump."""
    family = AF_INET6 if ":" in text else AF_INET
    return family, socket.inet_pton(family, text)


def parse_peer(entry: Sequence[str]) -> Peer:
    node, cidr, next_hop = entry
    address, _slash, prefix = cidr.partition("/")
    family, dst = packed(address)
    return Peer(family, dst, int(prefix), packed(next_hop)[1], node, cidr, next_hop)


def is_as_wanted(section: Section, own: Sequence[Route]) -> bool:
    """Whether the routes of ours are exactly those of ``section``: nothing is missing, left over or different."""
    entries = section.get("peers", ())
    if len(own) != len(entries):
        return False
    inet_pton = socket.inet_pton
    wanted: Dict[Tuple[bytes, int], bytes] = {}
    for _node, cidr, next_hop in entries:
        address, _slash, prefix = cidr.partition("/")
        family = AF_INET6 if ":" in cidr else AF_INET
        wanted[inet_pton(family, address), int(prefix)] = inet_pton(family, next_hop)
    for route in own:
        # Once found it is taken out, so a second route to the same destination is one too many.
        if wanted.pop((route.dst, route.prefix), None) != route.gateway or not _is_plain(route):
            return False
    return not wanted


def could_be_taken_over(section: Section, live: Iterable[Route]) -> bool:
    """Whether there is a route of kindnetd's that a takeover would adopt or remove. ``live`` are those of protocol boot."""
    if not section.get("takeover"):
        return False
    known = _known_addresses(section)
    return any(_is_kindnetds(r, known) for r in live)


def relevance(section: Section) -> Callable[[Route], bool]:
    """Which routes have a part in the plan: those of ours and what IPv6 may have joined them to, those to a wanted destination, those that
    lead to a next hop, and in a takeover those of kindnetd and what is beside them.

    So a host with a full routing table costs no memory for it, and what is planned is the same.
    """
    protocol, table = section["protocol"], section["table"]
    peers = [parse_peer(p) for p in section.get("peers", ())]
    wanted = {(p.dst, p.prefix) for p in peers}
    hops = {(p.family, int.from_bytes(p.gateway, "big")) for p in peers}
    clusters = [_network(c) for c in section.get("cluster_cidrs", ())]
    covering: Dict[Tuple[int, int], Set[int]] = {}

    def relevant(route: Route) -> bool:
        family, prefix = route.family, route.prefix
        if route.table == table and (
            route.protocol in (protocol, BOOT)
            or (route.dst, prefix) in wanted
            or (family == AF_INET6 and route.hops)
            or any(_inside(route, c) for c in clusters)
        ):
            return True
        networks = covering.get((family, prefix))
        shift = BITS[family] - prefix
        if networks is None:
            networks = covering[family, prefix] = {h >> shift for f, h in hops if f == family}
        return int.from_bytes(route.dst, "big") >> shift in networks

    return relevant


def plan(section: Section, live: Live) -> Plan:
    """What it takes to have exactly the routes of ``section``.

    A destination that cannot be served is a problem of that peer alone. New routes come before old ones go.
    """
    if section.get("state") == "absent":
        return _Planner(section, live).run()
    if live.everything is None:
        return Plan(notes=_notes_on_links(live), details={"unchanged": len(live.own), "routes": ()})
    return _Planner(section, live).run()


def removal_guard(
    recorded: Sequence[Sequence[str]],
    wanted: Sequence[Sequence[str]],
    own: Iterable[Route],
    max_removals: Optional[int],
    meant: Sequence[str] = (),
) -> Tuple[List[str], int, bool]:
    """Which peers a change of the table would lose, how many may be lost, and whether that would be every one there was.

    A peer is lost when its name is gone and so is one of its pod CIDRs; a host that is renamed, or that has another address or
    pod CIDR, is not lost. A route of ours whose next hop nobody knows stands for a peer as well.

    :param meant: peers that are meant to go, by name. They do not count.
    """
    names = {name for name, _cidr, _hop in wanted}
    cidrs = {cidr for _name, cidr, _hop in wanted}
    before: Dict[str, bool] = {}  # peer: still wanted
    for name, cidr, _hop in recorded:
        if name in meant:
            continue
        before[name] = before.get(name, True) and (name in names or cidr in cidrs)
    known = {hop for _name, _cidr, hop in recorded} | {hop for _name, _cidr, hop in wanted}
    strangers: Dict[str, List[str]] = {}
    for route in own:
        dst, hop = cidr_text(route), _address(route.family, route.hops[0].gateway if route.hops else route.gateway)
        if not hop:
            continue
        if dst not in cidrs and hop not in known:
            strangers.setdefault(hop, []).append(dst)
        elif not recorded:
            before.setdefault(hop, True)
    lost = sorted(name for name, kept in before.items() if not kept)
    lost += ["%s via %s" % (", ".join(sorted(dsts)), hop) for hop, dsts in sorted(strangers.items())]
    total = len(before) + len(strangers)
    allowed = max(2, total // 10) if max_removals is None else max_removals
    return lost, allowed, bool(lost) and len(lost) == total


class _Planner:
    """One planning; the state that the steps below share."""

    def __init__(self, section: Section, live: Live) -> None:
        self.section = section
        self.links = live.links
        self.protocol = int(section["protocol"])
        self.table = int(section["table"])
        self.everything = live.everything if live.everything is not None else live.own
        self.peers = [parse_peer(p) for p in section.get("peers", ())]
        self.known = _known_addresses(section) if section.get("takeover") else frozenset()
        self.clusters = [_network(c) for c in section.get("cluster_cidrs", ())]
        self.on_link = OnLink(self.everything, self.table)
        self.early: List[Change] = []
        self.main: List[Change] = []
        self.late: List[Change] = []
        self.problems: List[Problem] = []
        self.notes: List[str] = []
        self.verdicts: List[Verdict] = []
        self.subjects: Set[str] = set()
        self.unchanged = 0

    def run(self) -> Plan:
        at: Dict[Tuple[int, bytes, int], List[Route]] = {}
        for route in self.everything:
            if route.table == self.table:
                at.setdefault((route.family, route.dst, route.prefix), []).append(route)
        for routes in at.values():
            self._set_apart(routes)
        for peer in self.peers:
            self._peer(peer, at.pop((peer.family, peer.dst, peer.prefix), []))
        for routes in at.values():
            for route in routes:
                self._leftover(route, routes)
        self.notes.extend(_notes_on_links(Live(tuple(r for r in self.everything if self._is_own(r)), None, self.links)))
        details = {"unchanged": self.unchanged, "routes": tuple(self.verdicts)}
        return Plan(tuple(self.early + self.main + self.late), tuple(self.problems), tuple(self.notes), details)

    def _is_own(self, route: Route) -> bool:
        return route.table == self.table and route.protocol == self.protocol

    def _set_apart(self, routes: List[Route]) -> None:
        """Take out of ``routes`` what is ours and cannot be deleted alone.

        Asked to delete an IPv6 route without a next hop, the kernel takes all of a multipath route of the same metric as well, whoever made it.
        """
        joined = {r.metric for r in routes if r.family == AF_INET6 and r.hops}
        stuck = [r for r in routes if self._is_own(r) and r.metric in joined and r.type == UNICAST and not _has_gateway(r)]
        for route in stuck:
            routes.remove(route)
            subject = self._subject(route, beside=True)
            message = "a multipath route of the same metric is beside it, so it was left alone. %s" % _remedy(
                "ip -6 route del %s" % cidr_text(route)
            )
            self.problems.append(Problem(subject, message))
            self.verdicts.append(Verdict(subject, "", cidr_text(route), "", "conflict", message))

    def _peer(self, peer: Peer, routes: List[Route]) -> None:
        """Everything about one wanted destination. ``routes`` are all that lead to it, in the kernel's order."""
        metric = METRIC[peer.family]
        own = [r for r in routes if self._is_own(r)]
        at_key = [r for r in routes if _competes(r) and r.metric == metric]
        exact = next((r for r in own if r.gateway == peer.gateway and _is_plain(r)), None)
        if exact is not None and any(_is_deleted_as(exact, r) for r in own[own.index(exact) + 1 :]):
            exact = None  # it could not be told from the double behind it, so one of them is made the only one
        adopted = None
        if exact is None:
            others = [r for r in at_key if not self._is_own(r)]
            adopted = others[0] if len(others) == 1 and _is_kindnetds(others[0], self.known) else None
        rivals = [r for r in routes if not self._is_own(r) and _competes(r) and r is not adopted]

        entangled = next((r for r in own if r.family == AF_INET6 and r.hops), None)
        if entangled is not None:
            # The kernel joins IPv6 routes of one metric into one multipath route, under the protocol of the first of them.
            self._conflict(peer, entangled, "somebody appended a next hop to the route of ours", _delete_hops(entangled, peer.gateway, self.links))
            return

        # The kernel takes the lowest metric, and of equal ones the first.
        ahead = self._first_ahead(rivals, routes, exact, metric)
        if ahead is not None:
            if _leads_to(ahead, peer.gateway):
                if exact is not None:
                    self.unchanged += 1
                else:
                    self._verdict(peer, "foreign", "a route of another protocol is right: %s" % self._text(ahead))
            else:
                self._conflict(peer, ahead, "a foreign route is in the way", "ip %sroute del %s" % (_family_option(ahead), self._command(ahead)))
            self._remove_all(peer, own, exact, "a foreign route is ahead of it")
            return

        if exact is not None:
            self.unchanged += 1
            self._remove_all(peer, own, exact, "doubles a route of ours")
            return
        behind = _lowest(rivals)
        if not own and adopted is None and behind is not None and _leads_to(behind, peer.gateway):
            self._verdict(peer, "foreign", "a route of another protocol is right: %s" % self._text(behind))
            return
        trouble = self.on_link.trouble(peer.family, peer.gateway)
        if trouble and (adopted is None or adopted.gateway != peer.gateway):
            self._off_link(peer, trouble)
            return
        if behind is not None:
            self.notes.append(
                "route %s of %s: goes ahead of a foreign route of a higher metric, which stays: %s" % (peer.cidr, peer.node, self._text(behind))
            )
        if at_key:
            # All of them are ours, or one is kindnetd's. The kernel deletes the first that a request fits, so they go from the
            # front, each by its own description, until one is left to be replaced.
            for double in at_key[:-1]:
                self._remove(self.early, double, peer.node, "doubles a route of ours")
            reason = "kindnetd's, taken over" if at_key[-1] is adopted else _difference(at_key[-1], peer)
            self._change(self.main, "replace", peer, at_key[-1], reason)
        else:
            self._change(self.main, "add", peer, None, "missing" if not own else _difference(own[0], peer))
        self._remove_all(peer, own, None, "another one takes its place", without=at_key)

    def _first_ahead(self, rivals: List[Route], routes: List[Route], exact: Optional[Route], metric: int) -> Optional[Route]:
        """The foreign route that the kernel takes, or could take, instead of a route of ours; None if there is none."""
        ahead = _lowest([r for r in rivals if r.metric <= metric])
        if ahead is None or exact is None or ahead.metric < metric:
            return ahead
        # Equal metrics: IPv4 takes the first. IPv6 weighs them by what it knows of their neighbours, so it could be either.
        if exact.family == AF_INET and _position(routes, exact) < _position(routes, ahead):
            return None
        return ahead

    def _leftover(self, route: Route, routes: List[Route]) -> None:
        """A route to no peer's pod CIDR. ``routes`` are all to this destination."""
        if self._is_own(route):
            if route.family == AF_INET6 and route.hops:
                subject = self._subject(route, beside=True)  # the same, whatever else is there
                message = "it is stale, but somebody appended a next hop to it, so it was left alone. %s" % _remedy(
                    "ip -6 route del %s" % self._command(route)
                )
                self.problems.append(Problem(subject, message))
                self.verdicts.append(Verdict(subject, "", cidr_text(route), "", "conflict", message))
                return
            reason = "routes of ours are taken out" if self.section.get("state") == "absent" else "no peer has this pod CIDR"
            self._remove(self.late, route, "", reason)
        elif self.known and _is_kindnetds(route, self.known) and any(_inside(route, c) for c in self.clusters):
            if any(r is not route and r.metric == route.metric and _competes(r) and not self._is_own(r) for r in routes):
                return  # kindnetd leaves one alone at its place
            self._remove(self.late, route, "", "kindnetd's, and no peer has this pod CIDR")

    def _change(self, where: List[Change], action: str, peer: Peer, before: Optional[Route], reason: str) -> None:
        route = Route(
            peer.family, self.table, peer.dst, peer.prefix, 0, METRIC[peer.family], self.protocol, UNIVERSE, UNICAST, gateway=peer.gateway
        )
        subject = "route %s" % peer.cidr
        self.subjects.add(subject)
        where.append(Change(subject, action, self._text(before) if before else "", self._text(route), reason, Op(route, peer.node, "")))
        self.verdicts.append(Verdict(subject, peer.node, peer.cidr, peer.next_hop, action, reason))

    def _remove_all(self, peer: Peer, own: List[Route], but: Optional[Route], reason: str, without: Sequence[Route] = ()) -> None:
        after = "route %s" % peer.cidr
        for route in own:
            if route is not but and not any(route is w for w in without):
                self._remove(self.late, route, peer.node, reason, after)

    def _remove(self, where: List[Change], route: Route, node: str, reason: str, after: str = "") -> None:
        subject = self._subject(route, beside=bool(node))
        where.append(Change(subject, "remove", self._text(route), "", reason, Op(route, node, after)))
        next_hop = _address(route.family, route.gateway)
        self.verdicts.append(Verdict(subject, node, cidr_text(route), next_hop, "remove", reason))

    def _subject(self, route: Route, beside: bool = False) -> str:
        """A name for a route, different from that of any other to the same destination.

        :param beside: the destination is a wanted one, whose name belongs to the wanted route.
        """
        subject = "route %s" % cidr_text(route)
        if beside or subject in self.subjects:
            subject = "%s %s" % (subject, self._text(route))
        number, unique = 1, subject
        while unique in self.subjects:
            number += 1
            unique = "%s #%d" % (subject, number)
        self.subjects.add(unique)
        return unique

    def _verdict(self, peer: Peer, action: str, reason: str) -> None:
        subject = "route %s" % peer.cidr
        self.subjects.add(subject)
        self.verdicts.append(Verdict(subject, peer.node, peer.cidr, peer.next_hop, action, reason))

    def _conflict(self, peer: Peer, route: Route, what: str, command: str) -> None:
        message = "peer %s: %s and was left alone: %s. %s" % (peer.node, what, self._text(route), _remedy(command, peer.next_hop))
        self.problems.append(Problem("route %s" % peer.cidr, message))
        self._verdict(peer, "conflict", message)

    def _off_link(self, peer: Peer, trouble: str) -> None:
        message = "peer %s: its next hop %s %s. Correct kindnet_node_ips of %s, or the interface of the node network on this host." % (
            peer.node,
            peer.next_hop,
            trouble,
            peer.node,
        )
        self.problems.append(Problem("route %s" % peer.cidr, message))
        self._verdict(peer, "fail", message)

    def _text(self, route: Route) -> str:
        return route_text(route, self.links)

    def _command(self, route: Route) -> str:
        """The route as arguments of ``ip route``, so that a person can find or delete it."""
        words = [TYPES[route.type]] if route.type in TYPES else []
        words.append(cidr_text(route))
        if route.gateway:
            words += ["via", _address(route.family, route.gateway)]
        if route.oif and route.oif in self.links and route.type == UNICAST:
            words += ["dev", self.links[route.oif]]
        if route.table != MAIN_TABLE:
            words += ["table", str(route.table)]
        if route.metric:
            words += ["metric", str(route.metric)]
        return " ".join(words + ["proto", PROTOCOLS.get(route.protocol, str(route.protocol))])


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
            if direct and not (family == AF_INET6 and _has_gateway(best)):
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


def route_text(route: Route, links: Dict[int, str]) -> str:
    """A route as ``ip route`` prints it, less its destination."""
    words = [TYPES[route.type]] if route.type in TYPES else []
    if route.gateway:
        words += ["via", _address(route.family, route.gateway)]
    if route.oif in links:
        words += ["dev", links[route.oif]]
    for hop in route.hops:
        words += ["nexthop"] + (["via", _address(route.family, hop.gateway)] if hop.gateway else [])
        words += ["dev", links[hop.oif]] if hop.oif in links else []
    if route.nexthop_id:
        words += ["nhid", str(route.nexthop_id)]
    if route.table != MAIN_TABLE:
        words += ["table", str(route.table)]
    words += ["proto", PROTOCOLS.get(route.protocol, str(route.protocol))]
    if route.scope in SCOPES and route.family == AF_INET:
        words += ["scope", SCOPES[route.scope]]
    if route.prefsrc:
        words += ["src", _address(route.family, route.prefsrc)]
    if route.tos:
        words += ["tos", "0x%02x" % route.tos]
    if route.metric:
        words += ["metric", str(route.metric)]
    return " ".join(words)


def cidr_text(route: Route) -> str:
    return "%s/%d" % (_address(route.family, route.dst), route.prefix)


def _address(family: int, address: bytes) -> str:
    return socket.inet_ntop(family, address) if address else ""


def _is_plain(route: Route) -> bool:
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


def _competes(route: Route) -> bool:
    """Whether packets of every kind may take this route; one for a tos or a source of its own is another matter."""
    return not route.tos and RTA_SRC not in route.extra


def _leads_to(route: Route, gateway: bytes) -> bool:
    return route.type == UNICAST and not route.hops and route.gateway == gateway


def _has_gateway(route: Route) -> bool:
    return bool(route.gateway) or any(h.gateway for h in route.hops)


def _lowest(routes: Sequence[Route]) -> Optional[Route]:
    return min(routes, key=lambda r: r.metric) if routes else None  # the first of equal ones


def _position(routes: Sequence[Route], route: Route) -> int:
    return next(i for i, r in enumerate(routes) if r is route)


def _is_kindnetds(route: Route, known: Iterable[bytes]) -> bool:
    """As kindnetd makes them, which is also what a bare ``ip route add`` leaves: only ever looked at for a takeover."""
    return route.protocol == BOOT and _is_plain(route) and bool(route.gateway) and route.gateway in known


def _known_addresses(section: Section) -> frozenset[bytes]:
    hops = [hop for _node, _cidr, hop in section.get("peers", ())]
    return frozenset(packed(a)[1] for a in hops + list(section.get("known_addresses", ())))


def _network(cidr: str) -> Tuple[int, int, int]:
    address, _slash, prefix = cidr.partition("/")
    family, dst = packed(address)
    return family, int.from_bytes(dst, "big"), int(prefix)


def _inside(route: Route, network: Tuple[int, int, int]) -> bool:
    family, first, prefix = network
    if route.family != family or route.prefix < prefix:
        return False
    shift = BITS[family] - prefix
    return int.from_bytes(route.dst, "big") >> shift == first >> shift


def _is_deleted_as(route: Route, other: Route) -> bool:
    """Whether the kernel, asked to delete ``other``, could take ``route`` for it.

    Of several next hops it compares the first ones only, and it compares nothing that the request leaves out.
    """
    if (route.metric, route.tos, route.type) != (other.metric, other.tos, other.type):
        return False
    return bool(other.hops or other.nexthop_id) or other.gateway in (b"", route.gateway)


def _difference(route: Route, peer: Peer) -> str:
    """Why a route of ours is not the wanted one."""
    if route.type != UNICAST:
        return "is of type %s" % TYPES.get(route.type, str(route.type))
    if route.hops:
        return "has several next hops"
    if route.gateway != peer.gateway:
        return "%s is now at %s" % (peer.node, peer.next_hop)
    if route.metric != METRIC[route.family]:
        return "has metric %d" % route.metric
    if route.tos:
        return "is for tos 0x%02x" % route.tos
    if route.prefsrc:
        return "has a source hint"
    if route.scope != UNIVERSE:
        return "has scope %s" % SCOPES.get(route.scope, str(route.scope))
    return "has attributes that it should not have"


def _family_option(route: Route) -> str:
    return "-6 " if route.family == AF_INET6 else ""


def _delete_hops(route: Route, gateway: bytes, links: Dict[int, str]) -> str:
    """The command that takes the foreign next hops out of a multipath route."""
    table = " table %d" % route.table if route.table != MAIN_TABLE else ""
    commands = []
    for hop in route.hops:
        if hop.gateway != gateway:
            via = " via %s" % _address(route.family, hop.gateway) if hop.gateway else ""
            dev = " dev %s" % links[hop.oif] if hop.oif in links else ""
            commands.append("ip -6 route del %s%s%s metric %d%s" % (cidr_text(route), via, dev, route.metric, table))
    return "; ".join(commands)


def _remedy(command: str, next_hop: str = "") -> str:
    """What to do about a route that is not ours to change."""
    return "Find out who made it; remove it with '%s'%s." % (command, ", or let it lead to %s" % next_hop if next_hop else "")


def _notes_on_links(live: Live) -> Tuple[str, ...]:
    """Routes that are right and lead nowhere, one note for each interface."""
    down: Dict[int, int] = {}
    for route in live.own:
        if route.flags & (DEAD | LINKDOWN):
            down[route.oif] = down.get(route.oif, 0) + 1
    return tuple(
        "%d of the routes lead out of %s, which has no link" % (count, live.links.get(oif, "interface %d" % oif)) for oif, count in sorted(down.items())
    )
