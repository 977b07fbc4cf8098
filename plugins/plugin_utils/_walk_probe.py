# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real probes showed: how many came back, where each was seen last, and which rule dropped them. Pure.

A probe goes there as a request and comes back as a reply. Each node of the way told where it saw either, and what its chains made of them.
"""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from ._walk import BACK, LEFT, THERE
from ._walk_ends import NODE, OUTSIDE, POD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

    from ._walk import Way

    Data = Dict[str, Any]

    class Evidence(NamedTuple):
        sent: int
        received: int
        lost: bool  # of the small ones some did not come back
        dropped_at: str  # the node whose rule dropped one; "" if none is known
        dropped_by: str
        last_node: str
        last_seen: str
        large_size: int  # bytes of the large ones with DF; 0 if none was sent
        too_large: bool  # they did not come back, and small ones did
        large_reason: str
else:
    Evidence = namedtuple("Evidence", "sent received lost dropped_at dropped_by last_node last_seen large_size too_large large_reason")

KIND = {THERE: "request", BACK: "reply"}
HOST_UNREACHABLE = ("Host Unreachable", "Address Unreachable")
NOT_EVALUATED, ACCEPTED, DROPPED = "not evaluated", "accepted", "dropped"


def evidence(there: Way, back: Way, sent: Data, seen: Mapping[str, Data], owners: Mapping[str, str]) -> Evidence:
    """What follows from the probes.

    :param sent: what kindnet_probe told of sending.
    :param seen: what it collected on each node that watched.
    :param owners: the node that has an address of the node network, for those who said no.
    """
    small, large = sent["small"], sent["large"]
    lost = small["received"] < max(1, small["sent"]) or bool(small["errors"])
    node, rule = _dropped((there, back), seen)
    if not node:
        node, rule = _unanswered((there, back), sent["refusals"], owners)
    last_node, last = _last_seen((there, back), seen, set(range(1, small["sent"] + 1)) - set(small["sequences"])) if lost else ("", "")
    refused = ["%s answers '%s'" % (_owner(r["source"], owners), r["what"]) for r in sent["refusals"] if not r["mtu"]]
    if lost and small["errors"]:
        last_node, last = there.source.name, "the kernel of %s does not send it (%s)" % (there.source.name, ", ".join(small["errors"]))
    elif lost and refused:
        last = "%s; %s" % (last, refused[0])
    too_large = bool(large) and (large["received"] < large["sent"] or bool(large["errors"]))
    large_reason = ""
    if too_large:
        said = ["%s says that it passes %d bytes" % (_owner(r["source"], owners), r["mtu"]) for r in sent["refusals"] if r["mtu"]]
        missing = set(range(small["sent"] + 1, small["sent"] + large["sent"] + 1)) - set(large["sequences"])
        large_node, large_last = _last_seen((there, back), seen, missing)
        large_reason = said[0] if said else large_last
        last_node = large_node
    return Evidence(small["sent"], small["received"], lost, node if lost else "", rule, last_node, last, large["size"] if large else 0, too_large, large_reason)


def annotate(way: Way, seen: Mapping[str, Data], silent: Mapping[str, str]) -> None:
    """Say at each node of a way where probes were seen there, and what its forward chains made of them."""
    kind = KIND[way.direction]
    for hop in way.hops:
        if hop["kind"] != NODE or hop.get("turned_to") or hop["note"]:
            continue
        found = seen.get(hop["where"])
        if found is None:
            hop["forward"] = {"verdict": NOT_EVALUATED, "why": "no probe was watched here (%s)" % silent.get(hop["where"], "not asked to")}
            continue
        hop["seen"] = [
            "%s by %s: %d (%s -> %s)" % (entry["way"], entry["interface"], len(entry["sequences"]), entry["source"], entry["destination"])
            for entry in sorted(found["seen"], key=_in_first)
            if entry["kind"] == kind
        ] or ["no probe"]
        hop["forward"] = _forward(found, kind)


def _forward(found: Data, kind: str) -> Data:
    trace = found["trace"]
    traced = [packet for packet in trace["packets"] if packet["kind"] == kind]
    at_forward = [chain for packet in traced for chain in packet["chains"] if chain["hook"] == "forward"]
    dropped = [chain for chain in at_forward if chain["verdict"] == "drop"]
    left = any(entry["kind"] == kind and entry["way"] == "out" for entry in found["seen"])
    legacy = "the rules of iptables-legacy (%s) cannot be traced" % ", ".join(trace["legacy"]) if trace["legacy"] else ""
    if dropped:
        return {"verdict": DROPPED, "why": _rule(dropped[0])}
    if trace["why"] or not traced:
        why = trace["why"] or "no probe got so far"
        return {"verdict": ACCEPTED if left else NOT_EVALUATED, "why": "probes left; %s" % why if left else why}
    if legacy and not left:
        return {"verdict": NOT_EVALUATED, "why": legacy}
    named = list(dict.fromkeys(_rule(chain) for chain in at_forward)) or ["no chain of nftables is hooked there"]
    return {"verdict": ACCEPTED, "why": "; ".join(named + ([legacy] if legacy else []))}


def _rule(chain: Data) -> str:
    by = "rule '%s'" % chain["rule"] if chain["rule"] else "policy %s" % chain["verdict"]
    return "%s %s, %s" % (chain["table"], chain["chain"], by)


def _dropped(ways: Sequence[Way], seen: Mapping[str, Data]) -> Tuple[str, str]:
    """The first node on the way that dropped a probe by a rule, and the rule."""
    for way in ways:
        for node in _nodes(way):
            for packet in seen.get(node, {"trace": {"packets": []}})["trace"]["packets"]:
                for chain in packet["chains"]:
                    if packet["kind"] == KIND[way.direction] and chain["verdict"] == "drop":
                        what = "the answer" if way.direction == BACK else "it"
                        return node, "drops %s in its %s chain: %s, by a trace of nft" % (what, chain["hook"] or "nftables", _rule(chain))
    return "", ""


def _unanswered(ways: Sequence[Way], refusals: Sequence[Data], owners: Mapping[str, str]) -> Tuple[str, str]:
    """The node whose kernel said that its next hop does not answer, and which that is."""
    for refusal in refusals:
        if refusal["what"] in HOST_UNREACHABLE:
            for way in ways:
                for hop in way.hops:
                    if hop["kind"] == NODE and hop["where"] == owners.get(refusal["source"]) and hop.get("dev"):
                        next_hop = hop["via"] or hop["destination"]
                        return hop["where"], "gets no answer from its next hop %s on %s ('%s')" % (next_hop, hop["dev"], refusal["what"])
    return "", ""


def _last_seen(ways: Sequence[Way], seen: Mapping[str, Data], missing: Set[int]) -> Tuple[str, str]:
    """Where those that did not come back were seen last: the node, and a sentence."""
    last_node, last = ways[0].source.node, "no probe left %s" % ways[0].source.name
    for way in ways:
        kind = KIND[way.direction]
        what = "the answer" if way.direction == BACK else "it"
        nodes = _nodes(way)
        for position, node in enumerate(nodes):
            found = seen.get(node)
            if found is None:
                return node, "%s; %s was not watched" % (last, node)
            came, left = (_interfaces(found, kind, direction, missing) for direction in ("in", "out"))
            starts_here = position == 0 and way.source.kind == NODE
            ends_here = position == len(nodes) - 1 and way.destination.kind == NODE
            if not came and not starts_here:
                if position == 0 and way.source.kind == OUTSIDE:
                    return last_node, "%s, and no answer comes in" % last
                if position == 0 and way.source.kind == POD:
                    return node, "%s, and nothing comes out of it" % last if way.direction == BACK else "nothing comes out of %s" % way.source.name
                return last_node, "%s and does not come in at %s" % (last, node)
            if not left and not ends_here:
                return node, "%s comes in at %s by %s and does not leave it" % (what, node, came) if came else "%s does not leave %s" % (what, node)
            last_node, last = node, "%s leaves %s by %s" % (what, node, left) if left else "%s comes in at %s" % (what, node)
        if way.direction == THERE and way.end == LEFT:
            last = "%s for %s" % (last, way.destination.name)
    return last_node, "%s, and no answer comes in" % last if ways[0].end == LEFT else "%s and is not received" % last


def _nodes(way: Way) -> List[str]:
    return list(dict.fromkeys(hop["where"] for hop in way.hops if hop["kind"] == NODE))


def _interfaces(found: Data, kind: str, way: str, missing: Set[int]) -> str:
    names = [e["interface"] for e in found["seen"] if (e["kind"], e["way"]) == (kind, way) and missing & set(e["sequences"])]
    return ", ".join(dict.fromkeys(names))


def _owner(address: str, owners: Mapping[str, str]) -> str:
    owner: Optional[str] = owners.get(address)
    return "%s (%s)" % (owner, address) if owner else address


def _in_first(entry: Data) -> Tuple[bool, str]:
    return entry["way"] != "in", entry["interface"]
