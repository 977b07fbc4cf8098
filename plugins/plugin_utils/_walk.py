# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A packet's way from hop to hop, there and back, put together from what each node answered about it alone. Pure.

Every node was asked about the packet by each interface that it may come in by. Which of these answers count is decided here: the first node's
next hop says who is asked next. A way ends where it arrives, where a kernel says no, or where nobody could be asked.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from collections import namedtuple

from ..module_utils._lookups import SINGLE
from ..module_utils._node_table import family_of
from ._walk_ends import ABSENT, NODE, OUTSIDE, POD, holder_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

    from ..module_utils._node_table import Node
    from ._walk_ends import End

    Data = Dict[str, Any]

    class Cluster(NamedTuple):
        """All that is known of it."""

        nodes: Sequence[Node]
        answers: Mapping[str, Data]  # of kindnet_walk by node; {"why": text} of one that could not be asked
        cluster_cidrs: Sequence[str] = ()

    class Limit(NamedTuple):
        """How many bytes a packet may have at one place of a way."""

        node: str
        what: str  # as an operator finds it
        size: int

    class Translated(NamedTuple):
        node: str
        by: str  # MASQUERADE, SNAT
        rule: str
        source: str
        doubts: Tuple[str, ...]

    class Detour(NamedTuple):
        node: str
        over: str
        to: str
        rule: str  # the route
else:
    Cluster = namedtuple("Cluster", "nodes answers cluster_cidrs", defaults=((),))
    Limit = namedtuple("Limit", "node what size")
    Translated = namedtuple("Translated", "node by rule source doubts")
    Detour = namedtuple("Detour", "node over to rule")

THERE, BACK = "there", "back"
# How a way ends
ARRIVED, LEFT, LOST, UNKNOWN = "arrived", "left", "lost", "unknown"
MOST_HOPS = 32  # more than one cluster's routes can mean; the default of a ttl is twice that
DEAD = ("linkdown", "dead")
REFUSED = ("Invalid cross-device link", "Invalid argument")  # how kernels say that they do not take a packet from there
STRICT = 1  # of rp_filter


class Way:
    """One direction."""

    def __init__(self, direction: str, source: End, destination: End) -> None:
        self.direction, self.source, self.destination = direction, source, destination
        self.hops: List[Data] = []
        self.end = ""
        self.node = ""  # where it ends
        self.reason = ""  # why there, as what follows the node's name in a sentence
        self.translated: List[Translated] = []
        self.is_source_sure = True  # False where a rule that nobody could read may give it another one
        self.detours: List[Detour] = []
        self.limits: List[Limit] = []
        self.size = 0  # MTU of the interface that it starts from, in bytes; 0 if not known
        self.remarks: List[str] = []
        self.silent: List[Tuple[str, str]] = []  # nodes whose next hop did not answer when it was asked last, and what is to be said of it

    def over(self, end: str, node: str, reason: str) -> None:
        self.end, self.node, self.reason = end, node, reason

    @property
    def least(self) -> int:
        return min((limit.size for limit in self.limits), default=0)

    @property
    def narrowest(self) -> Optional[Limit]:
        """The first place that a packet of the first interface's size does not pass."""
        return next((limit for limit in self.limits if self.size > limit.size == self.least), None)


def walk(cluster: Cluster, source: End, destination: End) -> Tuple[Way, Way]:
    there = Way(THERE, source, destination)
    _Walker(cluster, there, None).go()
    back = Way(BACK, destination, source)
    _Walker(cluster, back, there).go()
    return there, back


class _Walker:
    def __init__(self, cluster: Cluster, way: Way, there: Optional[Way]) -> None:
        self.cluster, self.way = cluster, way
        self.family = family_of(way.source.address)
        # As it is written in the packet: the answer to one whose source was translated goes to that address, and is turned back where that was done.
        self.source, self.destination = way.source.address, way.destination.address
        self.turn: List[Translated] = list(there.translated) if there else []
        self.is_source_sure = there.is_source_sure if there else True
        if self.turn:
            self.destination = self.turn[-1].source or self.destination

    def go(self) -> None:
        way = self.way
        node, iif = way.source.node, ""
        if self.turn and not self.turn[-1].source:
            way.over(UNKNOWN, self.turn[-1].node, "gives it a source that cannot be told (%s), so the way of the answer cannot either" % self.turn[-1].rule)
            return
        if way.source.kind == POD:
            if not self._leave_the_pod():
                return
            iif = way.source.interface or self._way_to(node, self.source)
        elif way.source.kind == ABSENT:
            way.over(UNKNOWN, node, "has no pod with %s that is known, so nobody answers from there" % way.source.address)
            return
        elif way.source.kind == OUTSIDE:
            # What a host outside does is its own business; what it can know is the address of a node.
            if not self.turn and not self.is_source_sure:
                way.over(UNKNOWN, "", "where %s sends its answer depends on that source" % way.source.name)
                return
            if not self.turn:
                way.over(UNKNOWN, "", "%s has to know a way to %s by itself" % (way.source.name, self.destination))
                return
            node = self.turn[-1].node
            iif = self._interface_with(node, self.destination)
            self._hop(way.source.name, OUTSIDE, note="not looked at: it is no node")
        self._through_nodes(node, iif)

    def _through_nodes(self, node: str, iif: str) -> None:
        seen: Set[Tuple[str, str, str, str]] = set()
        while not self.way.end:
            state = (node, iif, self.source, self.destination)
            if state in seen or len(seen) > MOST_HOPS:
                names = [hop["where"] for hop in self.way.hops if hop["kind"] == NODE]
                self.way.over(LOST, node, "gets it again: it goes round between %s until its ttl is used up" % " and ".join(dict.fromkeys(names)))
                return
            seen.add(state)
            node, iif = self._at(node, iif)

    def _leave_the_pod(self) -> bool:
        """What the pod itself does with it; whether it gets out."""
        way = self.way
        answer = self._pod(way.source)
        if answer.get("error"):
            self._hop(way.source.name, POD, note="not looked at: %s" % answer["error"])
            return True
        entry = _entry(answer, self.source, self.destination, "")
        link = answer["interfaces"].get(entry["dev"] if entry and not entry["error"] else "", {})
        way.size = link.get("mtu", 0)
        hop = self._hop(way.source.name, POD, entry, mtu=way.size)
        if entry is None:
            hop["note"] = "was not asked"
        elif entry["error"]:
            way.over(LOST, way.source.name, "has no route to %s in its own network namespace (%s)" % (self._named(self.destination), entry["error"]))
            return False
        elif entry["mtu"]:
            way.limits.append(Limit(way.source.name, "the route of %s" % way.source.name, entry["mtu"]))
        return True

    def _at(self, node: str, iif: str) -> Tuple[str, str]:
        """One node; which one is next, and by which of its interfaces."""
        way = self.way
        answer = self.cluster.answers.get(node, {"why": "it is no node of this run"})
        if "why" in answer:
            self._hop(node, NODE, note="not looked at: %s" % answer["why"])
            way.over(UNKNOWN, node, "could not be looked at (%s)" % answer["why"])
            return node, iif
        if iif:
            self._limit(node, answer, iif)
            if not way.size and way.source.kind == POD and iif == way.source.interface:
                way.size = answer["interfaces"].get(iif, {}).get("mtu", 0)  # the pod could not be asked; ptp gives both ends one MTU
        entry = _entry(answer, self.source, self.destination, iif)
        if entry is None and way.translated:  # to a source that nobody was asked about; where it goes seldom depends on that
            entry = _entry(answer, way.source.address, self.destination, iif)
        if entry is None:
            self._hop(node, NODE, note="was not asked about %s to %s by %s" % (self.source, self.destination, iif or "itself"))
            way.over(UNKNOWN, node, "was not asked what it does with %s to %s that comes in by %s" % (self.source, self.destination, iif or "itself"))
            return node, iif
        hop = self._hop(node, NODE, entry, answer=answer)
        is_local = not entry["error"] and entry["type"] == "local"
        off = "" if is_local else _forwarding_off(answer, iif, self.family)
        if off:
            way.over(LOST, node, "does not forward what comes in by %s: %s is 0" % (iif, off))
        elif entry["error"]:
            way.over(LOST, node, self._refusal(node, answer, entry))
        elif is_local:
            return self._local(node, iif, hop)
        else:
            self._translate(node, answer, entry, hop)
            return self._onward(node, answer, entry, hop)
        return node, iif

    def _local(self, node: str, iif: str, hop: Data) -> Tuple[str, str]:
        way = self.way
        if self.turn and self.destination == self.turn[-1].source and node == self.turn[-1].node:
            # The kernel remembers the connection, and gives the answer the pod's address before it looks for a route.
            self.turn.pop()
            self.destination = self.turn[-1].source if self.turn else way.destination.address
            hop["turned_to"] = self.destination
            if self.destination not in self._addresses_here(node):
                return node, iif
        if way.destination.node in ("", node) and way.destination.kind != POD:
            way.over(ARRIVED, node, "has the address %s itself" % self.destination)
        else:
            whose = "%s has it" % way.destination.name if way.destination.kind == POD else "it is %s's" % way.destination.node
            way.over(LOST, node, "takes it for its own: it has the address %s itself, and %s" % (self.destination, whose))
        return node, iif

    def _onward(self, node: str, answer: Data, entry: Data, hop: Data) -> Tuple[str, str]:
        """From a node that sends it on."""
        way, dev = self.way, entry["dev"]
        if not way.size and way.source.kind == NODE and node == way.source.node:
            way.size = answer["interfaces"].get(dev, {}).get("mtu", 0)
        self._limit(node, answer, dev, entry)
        next_hop = entry["via"] or self.destination
        if entry["neighbour"]["state"] == "FAILED":
            # The kernel keeps that as long as it likes, so it may be long ago.
            who = self._owner(next_hop)[0]
            way.silent.append((node, "got no answer from its next hop %s%s on %s when it asked last (neighbour entry FAILED)" % (
                next_hop, " (%s)" % who if who else "", dev)))
        if set(DEAD) & set(entry["flags"]) or not answer["interfaces"].get(dev, {"up": True})["up"]:
            way.over(LOST, node, "sends it by %s, which is down or has no link" % dev)
        elif self._is_the_pods(node, entry):
            self._into_the_pod()
        elif way.destination.kind == ABSENT and node == way.destination.node and _is_for_one(entry):
            # As ptp makes it for a pod; but which one it is, this host could not tell.
            reason = "sends it by '%s', which is for that address alone, and could not tell which pod has it; that pod was not looked at"
            way.over(UNKNOWN, node, reason % entry["matched"])
        elif way.destination.kind == ABSENT and node == way.destination.node:
            way.over(LOST, node, "has no pod with %s, and sends it by '%s'" % (self.destination, entry["matched"]))
        else:
            return self._to(node, next_hop, answer, entry, hop)
        return node, ""

    def _is_the_pods(self, node: str, entry: Data) -> bool:
        """Whether the packet leaves this node into the pod that it is for. Behind a bridge no pod has an interface of its own."""
        pod = self.way.destination
        return pod.kind == POD and node == pod.node and not entry["via"] and entry["dev"] == (pod.interface or entry["dev"])

    def _to(self, node: str, next_hop: str, answer: Data, entry: Data, hop: Data) -> Tuple[str, str]:
        """To whom it goes over the node network."""
        way = self.way
        owner, interface = self._owner(next_hop)
        target = self._target()
        if owner:
            hop["next"] = owner
            if target and owner != target:
                way.detours.append(Detour(node, owner, target, entry["matched"]))
            return owner, interface
        if target:
            gateway = next((ip for n in self.cluster.nodes if n.name == target for ip in n.node_ips if answer["gateways"].get(ip) == next_hop), "")
            if gateway:
                self._hop(next_hop, OUTSIDE, note="gateway to %s (kindnet_non_l2), not looked at" % target)
                way.remarks.append("what the gateway %s does was not looked at" % next_hop)
                return target, self._interface_with(target, gateway)
            if entry["via"]:
                way.over(LOST, node, "sends it to %s on %s, which is no node (route '%s'), and not to %s" % (next_hop, entry["dev"], entry["matched"], target))
            else:
                way.over(LOST, node, "looks for %s on the link of %s itself (route '%s'), and it is behind %s" % (
                    next_hop, entry["dev"], entry["matched"], target))
            return node, ""
        hop["next"] = next_hop
        way.over(LEFT, node, "hands it to %s on %s, which is no node" % (next_hop, entry["dev"]))
        return node, ""

    def _into_the_pod(self) -> None:
        way = self.way
        answer = self._pod(way.destination)
        if answer.get("error"):
            self._hop(way.destination.name, POD, note="not looked at: %s" % answer["error"])
            way.remarks.append("%s itself was not looked at: %s" % (way.destination.name, answer["error"]))
            way.over(ARRIVED, way.destination.node, "")
            return
        links: Data = answer["interfaces"]
        name = next((n for n in sorted(links) if self.destination in [a.rpartition("/")[0] for a in links[n]["addresses"]]), "")
        entry = _entry(answer, self.source, self.destination, name)
        self._hop(way.destination.name, POD, entry, mtu=links[name]["mtu"] if name else 0)
        if not name:
            way.over(LOST, way.destination.name, "has lost its address %s" % self.destination)
            return
        way.limits.append(Limit(way.destination.name, "%s of %s" % (name, way.destination.name), links[name]["mtu"]))
        if entry is not None and (entry["error"] or entry["type"] != "local"):
            said = entry["error"] or "it is '%s' to it" % entry["type"]
            back = entry["back"]["error"]
            why = "has no route back to %s" % self._named(self.source) if back else "does not take it (%s)" % said
            way.over(LOST, way.destination.name, why)
            return
        way.over(ARRIVED, way.destination.name, "")

    def _translate(self, node: str, answer: Data, entry: Data, hop: Data) -> None:
        if self.way.direction == BACK or self.way.translated:
            return
        said = entry.get("translation")
        if not said:
            self.way.is_source_sure = False
            self.way.remarks += ["%s: %s" % (node, note) for note in answer["notes"] or ["was not asked which rule translates the source"]]
            return
        hop["translation"] = said
        if said["doubts"]:
            self.way.is_source_sure = False
            self.way.remarks.append("%s: whether the source is translated cannot be told for sure: %s" % (node, said["doubts"][0]))
        if said["by"] and said["source"] != self.source:
            self.way.translated.append(Translated(node, said["by"], said["rule"], said["source"], tuple(said["doubts"])))
            self.source = said["source"] or self.source

    def _limit(self, node: str, answer: Data, dev: str, entry: Optional[Data] = None) -> None:
        link = answer["interfaces"].get(dev)
        if link:
            self.way.limits.append(Limit(node, "%s of %s" % (dev, node), link["mtu"]))
        if entry and entry["mtu"]:
            self.way.limits.append(Limit(node, "the route '%s' of %s" % (entry["matched"], node), entry["mtu"]))

    def _refusal(self, node: str, answer: Data, entry: Data) -> str:
        """Why a kernel says no, as what follows its name."""
        iif, back = entry["iif"], entry["back"]
        way_back = " back" if self.way.direction == BACK else ""
        if entry["error"] in REFUSED and iif and not entry["in_the_way"].startswith(("blackhole", "unreachable", "prohibit", "throw")):
            if self.source in self._addresses_here(node):
                return "takes no packet from %s by %s: it has that address itself" % (self.source, iif)
            value, key = _reverse_path(answer, iif)
            if value and back["error"]:
                # Of the first packet already: the filter looks for the way back.
                return "has no route back to %s, so its reverse-path filter (%s = %d) drops what comes from there" % (self._named(self.source), key, value)
            if value == STRICT and back.get("dev") != iif:
                return "drops it by its reverse-path filter (%s = 1): %s comes in by %s, and the way back to it leads by %s" % (
                    key, self._named(self.source), iif, back.get("dev"))
            if value:
                return "drops it by its reverse-path filter (%s = %d)" % (key, value)
        if entry["in_the_way"] and "via" not in entry["in_the_way"].split() and "dev" not in entry["in_the_way"].split():
            return "drops what goes to %s: the route '%s' says so" % (self._named(self.destination), entry["in_the_way"])
        end = self.way.destination
        if node == end.node and end.kind in (POD, ABSENT) and self.destination == end.address:
            if end.kind == ABSENT:
                return "has no pod with %s (%s)" % (self.destination, entry["error"])
            return "has no route to its own pod %s (%s), which the plugin ptp makes (%s)" % (end.name, end.address, entry["error"])
        if entry["error"] == "Network is unreachable":
            return "has no route%s to %s" % (way_back, self._named(self.destination))
        return "has no way%s to %s ('%s': %s)" % (way_back, self._named(self.destination), entry["question"], entry["error"])

    def _named(self, address: str) -> str:
        """The pod CIDR that an address is of, since that is what a route is for; else the address."""
        return holder_of(address, self.cluster.nodes)[1] or address

    def _target(self) -> str:
        """The node that the packet, as it is written now, is for; "" if that is outside."""
        for node in self.cluster.nodes:
            if self.destination in node.node_ips:
                return node.name
        return holder_of(self.destination, self.cluster.nodes)[0] or (self.way.destination.node if self.destination == self.way.destination.address else "")

    def _owner(self, address: str) -> Tuple[str, str]:
        """The node that has an address of the node network, and on which interface; both "" if none has."""
        for node in self.cluster.nodes:
            if address in node.node_ips:
                return node.name, self._interface_with(node.name, address)
        for name in sorted(self.cluster.answers):
            interface = self._interface_with(name, address)
            if interface:
                return name, interface
        return "", ""

    def _interface_with(self, node: str, address: str) -> str:
        for name, link in sorted(self.cluster.answers.get(node, {}).get("interfaces", {}).items()):
            if address in [a.rpartition("/")[0] for a in link["addresses"]]:
                return str(name)
        return ""

    def _way_to(self, node: str, address: str) -> str:
        """The interface by which a node reaches an address; "" if it is not known."""
        lookups = self.cluster.answers.get(node, {}).get("lookups", ())
        return next((str(e["back"].get("dev", "")) for e in lookups if e["source"] == address), "")

    def _addresses_here(self, node: str) -> List[str]:
        links = self.cluster.answers.get(node, {}).get("interfaces", {})
        return [a.rpartition("/")[0] for link in links.values() for a in link["addresses"]]

    def _pod(self, end: End) -> Data:
        answer = self.cluster.answers.get(end.node, {})
        if "why" in answer:
            return {"error": "its node could not be asked"}
        found: Data = answer.get("pods", {}).get(end.address, {"error": "its network namespace is not known"})
        return found

    def _hop(self, where: str, kind: str, entry: Optional[Data] = None, answer: Optional[Data] = None, note: str = "", mtu: int = 0) -> Data:
        hop: Data = {
            "direction": self.way.direction, "where": where, "kind": kind, "source": self.source, "destination": self.destination, "note": note, "next": "",
            "forward": {"verdict": "not evaluated", "why": ""} if kind == NODE else None,
        }
        if entry is not None:
            for key in ("iif", "question", "error", "type", "via", "dev", "matched", "neighbour"):
                hop[key] = entry.get(key, "")
            hop["route_mtu"] = entry.get("mtu", 0)
            hop["learned_mtu"] = entry.get("learned_mtu", 0)
            hop["in_the_way"] = entry.get("in_the_way", "")
        if mtu:
            hop["mtu"] = mtu
        if answer is not None and entry is not None:
            hop["mtu"] = answer["interfaces"].get(entry.get("dev") or entry["iif"], {}).get("mtu", 0)
            hop["forwarding"] = _forwarding(answer, entry["iif"], self.family)
            hop["rp_filter"] = _reverse_path(answer, entry["iif"])[0] if self.family == 4 and entry["iif"] else None
        self.way.hops.append(hop)
        return hop


def _is_for_one(entry: Data) -> bool:
    """Whether the route is for this address and no other, and leads to it without a next hop."""
    address = entry["destination"]
    return not entry["via"] and entry["matched"].partition(" ")[0] in (address, "%s/%d" % (address, SINGLE[family_of(address)]))


def owners_of(cluster: Cluster) -> Dict[str, str]:
    """The node of each address that nodes are known by."""
    found = {ip: node.name for node in cluster.nodes for ip in node.node_ips}
    for name in sorted(cluster.answers):
        for link in cluster.answers[name].get("interfaces", {}).values():
            for address in link["addresses"]:
                found.setdefault(address.rpartition("/")[0], name)
    return found


def _entry(answer: Data, source: str, destination: str, iif: str) -> Optional[Data]:
    for entry in answer["lookups"]:
        if (entry["source"], entry["destination"], entry["iif"]) == (source, destination, iif):
            found: Data = entry
            return found
    return None


def _forwarding(answer: Data, iif: str, family: int) -> Optional[str]:
    """The setting that decides about packets that come in there; None of what the host itself sends."""
    if not iif:
        return None
    key = "net.ipv4.conf.%s.forwarding" % iif if family == 4 else "net.ipv6.conf.all.forwarding"
    value: Optional[str] = answer["sysctls"].get(key)
    if family == 6 and value == "0" and answer["sysctls"].get("net.ipv6.conf.%s.force_forwarding" % iif) == "1":
        return "1"
    return value


def _forwarding_off(answer: Data, iif: str, family: int) -> str:
    """The setting that is off; "" if packets that come in there are forwarded."""
    if not iif or _forwarding(answer, iif, family) != "0":
        return ""
    if family == 6:
        return "net.ipv6.conf.all.forwarding"
    return "net.ipv4.ip_forward" if answer["sysctls"].get("net.ipv4.conf.all.forwarding") == "0" else "net.ipv4.conf.%s.forwarding" % iif


def _reverse_path(answer: Data, iif: str) -> Tuple[int, str]:
    """What counts of the reverse-path filter there, the larger of two settings, and its name."""
    keys = ["net.ipv4.conf.%s.rp_filter" % i for i in (iif, "all")]
    values = [int(answer["sysctls"].get(key, "0") or 0) for key in keys]
    return max(values), keys[values.index(max(values))]


def is_inside(address: str, cluster: Cluster) -> bool:
    """Whether packets to an address keep their source: it is of the cluster."""
    if holder_of(address, cluster.nodes)[0]:
        return True
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(cidr) for cidr in cluster.cluster_cidrs)
