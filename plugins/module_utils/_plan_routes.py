# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From peers and the kernel's routes to a plan. Pure: no socket, no clock, no file.

What is ours is known by its protocol number. What is not ours is never changed: where it is right it serves the peer, where it is
in the way that is reported. Only kindnetd's own routes are taken over, and only when that is asked for.
"""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from ._plan import Change, Plan, Problem
from ._route import (
    AF_INET,
    AF_INET6,
    DEAD,
    FLAG_ONLINK,
    LINKDOWN,
    MAIN_TABLE,
    METRIC,
    PROTOCOLS,
    SCOPES,
    TYPES,
    UNICAST,
    UNIVERSE,
    Route,
    address_text,
    cidr_text,
    competes,
    family_option,
    has_gateway,
    is_deleted_as,
    is_plain,
    leads_to,
    route_text,
)
from ._wanted_routes import ONLINK, SKIP, VIA, is_inside, is_kindnetds, known_addresses, network_of, parse_peers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

    from ._wanted_routes import Peer

    Section = Dict[str, Any]

    class Live(NamedTuple):
        """What is in the kernel."""

        own: Tuple[Route, ...]  # those of our protocol in our table
        # Every route that has a part in the plan; None: not read, because ``own`` is just as wanted and a pass has nothing to do
        everything: Optional[Tuple[Route, ...]] = None
        links: Dict[int, str] = {}  # names of interfaces by index, for messages
        kindnetd: str = ""  # the one that runs, if there is something to take over from it

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
    Live = namedtuple("Live", "own everything links kindnetd", defaults=(None, {}, ""))
    Op = namedtuple("Op", "route node after")
    Verdict = namedtuple("Verdict", "subject node dst next_hop action reason")


def plan(section: Section, live: Live) -> Plan:
    """What it takes to have exactly the routes of ``section``.

    A destination that cannot be served is a problem of that peer alone. New routes come before old ones go.
    """
    if section.get("state") == "absent":
        return _Planner(section, live).run()
    if live.everything is None:
        return Plan(notes=_notes_on_links(live), details={"unchanged": len(live.own), "routes": ()})
    return _Planner(section, live).run()


class _Planner:
    """One planning; the state that the steps below share."""

    def __init__(self, section: Section, live: Live) -> None:
        from ._on_link import OnLink  # no clean pass needs it

        self.section = section
        self.links = live.links
        self.protocol = int(section["protocol"])
        self.table = int(section["table"])
        self.everything = live.everything if live.everything is not None else live.own
        self.peers = parse_peers(section)
        self.index_of = {name: index for index, name in live.links.items()}
        # A kindnetd that is back keeps what it makes: two daemons at the same routes would be worse than either.
        self.known = known_addresses(section) if section.get("takeover") and not live.kindnetd else frozenset()
        self.clusters = [network_of(c) for c in section.get("cluster_cidrs", ())]
        self.on_link = OnLink(self.everything, self.table)
        self.early: List[Change] = []
        self.main: List[Change] = []
        self.late: List[Change] = []
        self.problems: List[Problem] = []
        if live.kindnetd:
            message = "kindnetd runs here (%s), so its routes are left alone. Stop it and keep it from starting again." % live.kindnetd
            self.problems.append(Problem("takeover", message))
        self.notes: List[str] = []
        self.verdicts: List[Verdict] = []
        self.subjects: Set[str] = set()
        self.skipped: List[str] = []
        self.unchanged = 0

    def run(self) -> Plan:
        at: Dict[Tuple[int, bytes, int], List[Route]] = {}
        for route in self.everything:
            if route.table == self.table:
                at.setdefault((route.family, route.dst, route.prefix), []).append(route)
        for routes in at.values():
            if len(routes) > 1:
                self._set_apart(routes)
        for peer in self.peers:
            routes = at.pop((peer.family, peer.dst, peer.prefix), [])
            if len(routes) == 1 and peer.gateway and peer.how != SKIP and self._is_own(routes[0]) and self._is_wanted(routes[0], peer):
                self.unchanged += 1  # as nearly all are, so nothing else is asked about it
            elif peer.how == SKIP:
                self._skip(peer, routes)
            else:
                self._peer(peer, routes)
        self._note_skipped()
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
        stuck = [r for r in routes if self._is_own(r) and r.metric in joined and r.type == UNICAST and not has_gateway(r)]
        for route in stuck:
            routes.remove(route)
            subject = self._subject(cidr_text(route), self._text(route), beside=True)
            message = "a multipath route of the same metric is beside it, so it was left alone. %s" % _remedy(
                "ip -6 route del %s" % cidr_text(route)
            )
            self.problems.append(Problem(subject, message))
            self.verdicts.append(Verdict(subject, "", cidr_text(route), "", "conflict", message))

    def _skip(self, peer: Peer, routes: List[Route]) -> None:
        """A destination that is left to the network."""
        reason = "left to the network, as %s is not on-link" % peer.address
        for route in routes:
            if self._is_own(route):
                self._leftover(route, routes, reason)
        self.skipped.append("%s (%s)" % (peer.node, peer.address))
        self._verdict(peer, "skip", reason)

    def _note_skipped(self) -> None:
        if self.skipped:
            from ._node_table import shorten

            peers = shorten(list(dict.fromkeys(self.skipped)))
            self.notes.append("not on-link, and left to the network (kindnet_non_l2 is skip), which has to route to their pods: %s" % peers)

    def _peer(self, peer: Peer, routes: List[Route]) -> None:
        """Everything about one wanted destination. ``routes`` are all that lead to it, in the kernel's order."""
        if not peer.gateway:
            self._off_link(peer, "")
            return
        metric = METRIC[peer.family]
        own = [r for r in routes if self._is_own(r)]
        at_key = [r for r in routes if competes(r) and r.metric == metric]
        exact = next((r for r in own if self._is_wanted(r, peer)), None)
        if exact is not None and any(is_deleted_as(exact, r) for r in own[own.index(exact) + 1 :]):
            exact = None  # it could not be told from the double behind it, so one of them is made the only one
        adopted = None
        if exact is None:
            others = [r for r in at_key if not self._is_own(r)]
            adopted = others[0] if len(others) == 1 and is_kindnetds(others[0], self.known) else None
        rivals = [r for r in routes if not self._is_own(r) and competes(r) and r is not adopted]

        entangled = next((r for r in own if r.family == AF_INET6 and r.hops), None)
        if entangled is not None:
            # The kernel joins IPv6 routes of one metric into one multipath route, under the protocol of the first of them.
            self._conflict(peer, entangled, "somebody appended a next hop to the route of ours", _delete_hops(entangled, peer.gateway, self.links))
            return

        # The kernel takes the lowest metric, and of equal ones the first.
        ahead = self._first_ahead(rivals, routes, exact, metric)
        if ahead is not None:
            if leads_to(ahead, peer.gateway):
                if exact is not None:
                    self.unchanged += 1
                else:
                    self._verdict(peer, "foreign", "a route of another protocol is right: %s" % self._text(ahead))
            else:
                self._conflict(peer, ahead, "a foreign route is in the way", "ip %sroute del %s" % (family_option(ahead), self._command(ahead)))
            self._remove_all(peer, own, exact, "a foreign route is ahead of it")
            return

        if exact is not None:
            self.unchanged += 1
            self._remove_all(peer, own, exact, "doubles a route of ours")
            return
        behind = _lowest(rivals)
        if not own and adopted is None and behind is not None and leads_to(behind, peer.gateway):
            self._verdict(peer, "foreign", "a route of another protocol is right: %s" % self._text(behind))
            return
        trouble = self._trouble(peer)
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
            reason = "kindnetd's, taken over" if at_key[-1] is adopted else self._difference(at_key[-1], peer)
            self._change(self.main, "replace", peer, at_key[-1], reason)
        else:
            self._change(self.main, "add", peer, None, "missing" if not own else self._difference(own[0], peer))
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

    def _is_wanted(self, route: Route, peer: Peer) -> bool:
        interface = self.index_of.get(peer.device, -1) if peer.how == ONLINK else 0
        return route.gateway == peer.gateway and is_plain(route) and (route.oif if route.flags & FLAG_ONLINK else 0) == interface

    def _trouble(self, peer: Peer) -> str:
        """Half a sentence about why the kernel would not take the peer's next hop; "" if it would."""
        if peer.how == ONLINK:
            if not peer.device:
                return "is reached by no interface of this host"
            return "" if peer.device in self.index_of else "is to be on-link on %s, which is not there" % peer.device
        return self.on_link.trouble(peer.family, peer.gateway)

    def _difference(self, route: Route, peer: Peer) -> str:
        if route.gateway == peer.gateway and is_plain(route):
            return "has no onlink flag, or not on %s" % peer.device if peer.how == ONLINK else "has the onlink flag"
        return _how_it_differs(route, peer)

    def _leftover(self, route: Route, routes: List[Route], reason: str = "no peer has this pod CIDR") -> None:
        """A route to no peer's pod CIDR. ``routes`` are all to this destination."""
        if self._is_own(route):
            if route.family == AF_INET6 and route.hops:
                subject = self._subject(cidr_text(route), self._text(route), beside=True)  # the same, whatever else is there
                message = "it is stale, but somebody appended a next hop to it, so it was left alone. %s" % _remedy(
                    "ip -6 route del %s" % self._command(route)
                )
                self.problems.append(Problem(subject, message))
                self.verdicts.append(Verdict(subject, "", cidr_text(route), "", "conflict", message))
                return
            if self.section.get("state") == "absent":
                reason = "routes of ours are taken out"
            self._remove(self.late, route, "", reason)
        elif self.known and is_kindnetds(route, self.known) and any(is_inside(route, c) for c in self.clusters):
            if any(r is not route and r.metric == route.metric and competes(r) and not self._is_own(r) for r in routes):
                return  # kindnetd leaves one alone at its place
            self._remove(self.late, route, "", "kindnetd's, and no peer has this pod CIDR")

    def _change(self, where: List[Change], action: str, peer: Peer, before: Optional[Route], reason: str) -> None:
        route = Route(
            peer.family, self.table, peer.dst, peer.prefix, 0, METRIC[peer.family], self.protocol, UNIVERSE, UNICAST, gateway=peer.gateway
        )
        if peer.how == ONLINK:
            route = route._replace(flags=FLAG_ONLINK, oif=self.index_of[peer.device])
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
        cidr, text = cidr_text(route), self._text(route)
        subject = self._subject(cidr, text, beside=bool(node))
        where.append(Change(subject, "remove", text, "", reason, Op(route, node, after)))
        self.verdicts.append(Verdict(subject, node, cidr, address_text(route.family, route.gateway), "remove", reason))

    def _subject(self, cidr: str, text: str, beside: bool = False) -> str:
        """A name for a route, different from that of any other to the same destination.

        :param text: the route less its destination.
        :param beside: the destination is a wanted one, whose name belongs to the wanted route.
        """
        subject = "route %s" % cidr
        if beside or subject in self.subjects:
            subject = "%s %s" % (subject, text)
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
        if not peer.gateway:
            message = "peer %s: %s is not on-link, and kindnet_non_l2_gateway has no gateway of its family for it. Add one." % (peer.node, peer.address)
        elif peer.how == VIA:
            message = "peer %s: %s is not on-link, and its gateway %s %s. Correct kindnet_non_l2_gateway." % (
                peer.node,
                peer.address,
                peer.next_hop,
                trouble,
            )
        elif peer.how == ONLINK:
            message = "peer %s: its next hop %s %s. Correct kindnet_non_l2_interface, or converge again once it is there." % (
                peer.node,
                peer.next_hop,
                trouble,
            )
        else:
            message = (
                "peer %s: its next hop %s %s. Correct kindnet_node_ips of %s, or the interface of the node network on this host; of a peer in"
                " another network, kindnet_non_l2 says what to do." % (peer.node, peer.next_hop, trouble, peer.node)
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
            words += ["via", address_text(route.family, route.gateway)]
        if route.oif and route.oif in self.links and route.type == UNICAST:
            words += ["dev", self.links[route.oif]]
        if route.table != MAIN_TABLE:
            words += ["table", str(route.table)]
        if route.metric:
            words += ["metric", str(route.metric)]
        return " ".join(words + ["proto", PROTOCOLS.get(route.protocol, str(route.protocol))])


def _lowest(routes: Sequence[Route]) -> Optional[Route]:
    return min(routes, key=lambda r: r.metric) if routes else None  # the first of equal ones


def _position(routes: Sequence[Route], route: Route) -> int:
    return next(i for i, r in enumerate(routes) if r is route)


def _how_it_differs(route: Route, peer: Peer) -> str:
    """Why a route of ours is not the wanted one."""
    if route.type != UNICAST:
        return "is of type %s" % TYPES.get(route.type, str(route.type))
    if route.hops:
        return "has several next hops"
    if route.gateway != peer.gateway and peer.how == VIA:
        return "%s is now reached by a gateway, %s" % (peer.node, peer.next_hop)
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


def _delete_hops(route: Route, gateway: bytes, links: Dict[int, str]) -> str:
    """The command that takes the foreign next hops out of a multipath route."""
    table = " table %d" % route.table if route.table != MAIN_TABLE else ""
    commands = []
    for hop in route.hops:
        if hop.gateway != gateway:
            via = " via %s" % address_text(route.family, hop.gateway) if hop.gateway else ""
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
