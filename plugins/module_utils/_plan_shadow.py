# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of others that decide about pods' packets otherwise than our masquerade chain does. Pure. Of a converge only, never of a pass.

Two classes of packets are followed through the rules, each as a set and not one by one: what pods send to destinations that are spared,
which must keep its source, and what they send elsewhere, which must be masqueraded. A packet here is an ordinary one: forwarded, of no
IPsec policy and without a mark, since who marks a packet means it to be treated in another way. A class gets smaller with each rule that
surely decides about a part of it. Where a rule cannot be told (an ipset, say) and may do what we want, nothing is
said of what follows: no rule is reported that does no harm.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from collections import namedtuple

from ._plan_chain import POSTROUTING, shown, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

    Ranges = Tuple[Tuple[int, int], ...]  # first and last of each, ascending, apart
    Box = Tuple[Ranges, ...]  # the packets with a value in each dimension's ranges
    Key = Tuple[str, ...]  # family, table, and the name of a chain or set
    Numbers = Tuple[int, ...]  # of a rule, behind those of the rules that lead to its chain

    class Region(NamedTuple):
        """Packets that get to a rule."""

        box: Box
        doubt: int  # 0: they surely do. Else perhaps none of them does, in chains so many jumps deep and deeper

    class Rule(NamedTuple):
        place: str  # as a person finds it
        match: Box  # what it lets through of packets, as far as its matches are understood
        exact: bool  # whether all of them are
        verdict: str
        target: str  # the chain of JUMP and GOTO, what does the NAT, else ""

    class Finding(NamedTuple):
        """A rule in our way."""

        numbers: Numbers
        place: str
        boxes: List[Box]  # the packets it decides about

    Read = Callable[[str], Optional[List[Rule]]]  # the rules of the chain of a name; None if they are not known
else:
    Region = namedtuple("Region", "box doubt")
    Rule = namedtuple("Rule", "place match exact verdict target")
    Finding = namedtuple("Finding", "numbers place boxes")

SOURCE, DESTINATION, IN, OUT, PROTOCOL = range(5)

ACCEPT, RETURN, NAT, JUMP, GOTO = "ACCEPT", "RETURN", "NAT", "JUMP", "GOTO"
OURS = "ours"  # the jump to our chain
NOTHING = ""  # the packet goes on to the next rule
UNTOLD = "?"

DEEPEST = 16  # jumps; NFT_JUMP_STACK_SIZE. The kernel refuses loops.
EVERYWHERE = DEEPEST + 2  # of a doubt: it does not end with a chain
MOST_NAMED = 3  # destinations in one message

NATS = ("MASQUERADE", "SNAT", "NETMAP")
PASSIVE = ("LOG", "NFLOG", "TRACE", "SET", "AUDIT")
MATCHES = ("comment", "addrtype", "mark", "connmark", "policy", "iprange", "tcp", "udp")  # without options they match everything
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "sctp": 132, "udplite": 136,
}
# What no router forwards, or only one that was told to: nobody misses that it is not masqueraded.
MULTICAST = {4: ("224.0.0.0/4", "255.255.255.255/32"), 6: ("ff00::/8",)}
BITS = {4: 32, 6: 128}
NAME_SIZE = 16  # of an interface, IFNAMSIZ


def shadowing(
    postrouting: Sequence[str],
    chains: Mapping[str, Sequence[str]],
    jump: Optional[Callable[[str], bool]],
    pods: Sequence[str],
    spared: Sequence[str],
) -> List[str]:
    """Rules of an iptables nat table in the way of our chain, a line each: where, the rule, what it does.

    Before our jump that is NAT of what is spared, and ACCEPT of what is not. NAT of the latter, to whichever address, is what was asked
    for. Behind our jump it is NAT of what is spared, as our chain hands it back.

    :param postrouting: the rules of POSTROUTING, as ``iptables -S`` prints them less "-A POSTROUTING".
    :param chains: those of the user-defined chains likewise. What a chain does that is not here cannot be told.
    :param jump: tells our jump; if no rule is, it is taken to be added last. None: our chain is in no table of iptables, but hooked to the
        kernel beside it, where an ACCEPT of iptables does not keep a packet from it.
    :param pods: CIDRs from which pods send. The family of the first one counts, here and in ``spared``.
    :param spared: CIDRs to which they send with their own addresses.
    """
    if not pods:
        return []
    version = _version(pods[0])

    def read(name: str) -> Optional[List[Rule]]:
        texts = postrouting if name == POSTROUTING else chains.get(name)
        if texts is None:
            return None
        rules = [_iptables_rule(name, number, text, chains, version) for number, text in enumerate(texts, 1)]
        if jump and name == POSTROUTING:  # however it is worded: it will be as we want it
            rules = [Rule(rule.place, _everything(version), True, OURS, "") if jump(text) else rule for rule, text in zip(rules, texts)]
        return rules

    found = _Walk(read, version, pods, spared).spared_that_are_translated(POSTROUTING)
    if jump:
        found.update(_Walk(read, version, pods, spared).others_that_are_not(POSTROUTING))
    return [found[numbers] for numbers in sorted(found)]


def shadowing_nft(ruleset: Any, own_table: str, pods: Sequence[str], spared: Sequence[str]) -> List[str]:
    """The same question of the tables of nf_tables itself: which rule translates the source of what is to keep it.

    In nf_tables an ``accept`` ends the walk through its own base chain only, so it keeps no packet from ours. What stands in the words of
    iptables (``xt``) cannot be told here; :func:`shadowing` tells it.

    :param ruleset: the data of ``nft -j list ruleset``.
    :param own_table: name of our table of family inet, which is left out.
    """
    chains: Dict[Key, List[Any]] = {}
    sets: Dict[Key, Any] = {}
    bases: List[Tuple[int, Key]] = []
    for entry in ruleset["nftables"]:
        ((kind, item),) = entry.items()
        if kind in ("metainfo", "table") or (item.get("family"), item.get("table")) == ("inet", own_table):
            continue
        if kind == "chain":
            key = (item["family"], item["table"], item["name"])
            chains.setdefault(key, [])
            if item.get("type") == "nat" and item.get("hook") == "postrouting":
                bases.append((item["prio"], key))
        elif kind == "rule":
            chains.setdefault((item["family"], item["table"], item["chain"]), []).append(item)
        elif kind == "set":
            sets[(item["family"], item["table"], item["name"])] = item.get("elem", [])
    lines: Dict[str, None] = {}
    for _unused, (family, table, base) in sorted(bases):
        for version in (4, 6):
            if family == {4: "ip6", 6: "ip"}[version]:
                continue

            def read(name: str, where: Key = (family, table), version: int = version) -> Optional[List[Rule]]:
                rules = chains.get(where + (name,))
                return None if rules is None else [_nft_rule(rule, sets, version) for rule in rules]

            found = _Walk(read, version, pods, spared).spared_that_are_translated(base)
            lines.update({"table %s %s, %s" % (family, table, found[numbers]): None for numbers in sorted(found)})
    return list(lines)


class _Walk:
    """One class of packets on its way through a base chain and what that leads to."""

    def __init__(self, read: Read, version: int, pods: Sequence[str], spared: Sequence[str]) -> None:
        self.read = read
        self.chains: Dict[str, Optional[List[Rule]]] = {}
        self.spared = [cidr for cidr in spared if _version(cidr) == version]
        self.multicast = _union(_network(cidr) for cidr in MULTICAST[version])
        not_lo = _without(_interfaces("+"), _interfaces("lo"))  # a forwarded packet comes and goes by another
        sources = _union(_network(cidr) for cidr in pods if _version(cidr) == version)
        self.all: Box = (sources, _everything(version)[DESTINATION], not_lo, not_lo, _everything(version)[PROTOCOL])
        self.translation_is_right = False
        self.found: Dict[Rule, Finding] = {}

    def spared_that_are_translated(self, base: str) -> Dict[Numbers, str]:
        self._follow(base, _union(_network(cidr) for cidr in self.spared))
        lines = {}
        for rule, finding in self.found.items():
            hit = [c for c in self.spared if any(_common(_network(c), box[DESTINATION]) for box in finding.boxes)]
            more = len(hit) - MOST_NAMED
            to = ", ".join(hit[:MOST_NAMED]) + (" and %d more" % more if more > 0 else "")
            what = "masquerades" if rule.target == "MASQUERADE" else "translates the source of"
            lines[finding.numbers] = "%s: %s pods' traffic to %s" % (finding.place, what, to)
        return lines

    def others_that_are_not(self, base: str) -> Dict[Numbers, str]:
        self.translation_is_right = True
        spared = _union(_network(cidr) for cidr in self.spared)
        self._follow(base, _without(_without(self.all[DESTINATION], spared), self.multicast))
        return {finding.numbers: "%s: keeps pods' traffic from being masqueraded" % finding.place for finding in self.found.values()}

    def _follow(self, base: str, destinations: Ranges) -> None:
        box = self.all[:DESTINATION] + (destinations,) + self.all[DESTINATION + 1:]
        if all(box):
            self._through(base, [Region(box, 0)], (), ())

    def _through(self, chain: str, regions: List[Region], numbers: Numbers, way: Tuple[Rule, ...]) -> List[Region]:
        """Take packets through a chain; those that come back out of it."""
        back: List[Region] = []
        for number, rule in enumerate(self._rules(chain) or (), 1):
            onward: List[Region] = []
            for region in regions:
                inside, outside = _split(region.box, rule.match)
                onward += [Region(box, region.doubt) for box in outside]
                if inside:
                    here, returned = self._at(Region(inside, region.doubt), numbers + (number,), way + (rule,))
                    onward += here
                    back += returned
            regions = onward
        # Here ends the doubt which of them went back earlier: by now all have.
        return _simplified(back + [Region(box, 0) if doubt == len(way) + 1 else Region(box, doubt) for box, doubt in regions])

    def _at(self, region: Region, numbers: Numbers, way: Tuple[Rule, ...]) -> Tuple[List[Region], List[Region]]:
        """What becomes of packets that match the last rule of ``way``: which go on to the next one, and which back to the chain before."""
        rule, in_base_chain = way[-1], len(way) == 1
        perhaps = Region(region.box, EVERYWHERE)
        matched, missed = (region, []) if rule.exact else (perhaps, [perhaps])
        if rule.verdict in (JUMP, GOTO):
            if len(way) > DEEPEST or self._rules(rule.target) is None:
                return [perhaps], []
            back = self._through(rule.target, [matched], numbers, way)
            if rule.verdict == JUMP:
                return missed or back, []
            if in_base_chain:
                for returned in back:
                    self._decide(ACCEPT, returned, numbers, way)
                return missed, []
            return missed, back
        if rule.verdict == RETURN and not in_base_chain:
            return [] if rule.exact else [Region(region.box, region.doubt or len(way))], [matched]
        if rule.verdict == NOTHING or (rule.verdict == OURS and not self.translation_is_right):
            return [region], []
        if rule.verdict == UNTOLD:
            return [perhaps], []
        right = self._decide(rule.verdict, matched, numbers, way)
        return missed if right or rule.exact else [region], []

    def _decide(self, verdict: str, region: Region, numbers: Numbers, way: Tuple[Rule, ...]) -> bool:
        """Whether a verdict is as we want it. If it is not, and is sure, that is a finding."""
        right = verdict == OURS or (verdict == NAT) == self.translation_is_right
        if not region.doubt and not right:
            # Once for a rule that several others lead to: by the first way there.
            finding = self.found.setdefault(way[-1], Finding(numbers, ", ".join(rule.place for rule in way), []))
            finding.boxes.append(region.box)
        return right

    def _rules(self, chain: str) -> Optional[List[Rule]]:
        if chain not in self.chains:
            self.chains[chain] = self.read(chain)
        return self.chains[chain]


def _iptables_rule(chain: str, number: int, text: str, chains: Collection[str], version: int) -> Rule:
    match, exact = list(_everything(version)), True
    verdict, target = NOTHING, ""
    words = tokens(text)
    at = 0
    while at < len(words):
        option = words[at]
        at += 1
        if option in ("-j", "-g"):
            target = words[at] if at < len(words) else ""
            verdict = _iptables_verdict(option, target, chains)
            break
        negated = option == "!"
        if negated and at < len(words):
            option = words[at]
            at += 1
        value = words[at] if at < len(words) else ""
        if option == "-m":
            understood: Optional[bool] = value in MATCHES
        else:
            understood = _narrow(match, _iptables_dimension(option), _iptables_values(option, value, version), negated)
        if understood:
            at += 1
        else:  # whether it has a value is not known either; that will not be taken for an option we know
            exact = False
    return Rule("%s rule %d '%s'" % (chain, number, shown(text)), tuple(match), exact, verdict, target)


def _iptables_verdict(option: str, target: str, chains: Collection[str]) -> str:
    if target in chains:
        return JUMP if option == "-j" else GOTO
    if target in NATS:
        return NAT
    if target in PASSIVE:
        return NOTHING
    return target if target in (ACCEPT, RETURN) else UNTOLD


def _iptables_dimension(option: str) -> int:
    return {"-s": SOURCE, "--src-range": SOURCE, "-d": DESTINATION, "--dst-range": DESTINATION, "-i": IN, "-o": OUT, "-p": PROTOCOL}.get(option, -1)


def _iptables_values(option: str, value: str, version: int) -> Any:
    """The ranges that an option of a match names, or whether it is true of an ordinary packet of a pod; None if that cannot be told."""
    try:
        if option in ("-s", "-d"):
            return _network(value)
        if option in ("--src-range", "--dst-range"):
            return _address_range(*value.split("-"))
        if option in ("-i", "-o"):
            return _interfaces(value)
        if option == "-p":
            return _protocol(value)
        if option in ("--dst-type", "--src-type"):
            return False if value == "LOCAL" else None
        if option == "--mark":
            return int(value.partition("/")[0], 0) == 0
        if option == "--pol":
            return value == "none"
        return True if option in ("--comment", "--dir") else None
    except (ValueError, TypeError):
        return None


def _nft_rule(rule: Mapping[str, Any], sets: Mapping[Key, Any], version: int) -> Rule:
    table = (rule["family"], rule["table"])
    match, exact = list(_everything(version)), True
    verdict, target = NOTHING, ""
    for statement in rule["expr"]:
        if not isinstance(statement, dict):  # text: nft has no JSON for it
            exact, verdict = False, UNTOLD
            continue
        ((kind, body),) = statement.items()
        if kind in ("accept", "drop", "return"):  # what is dropped has no source any more
            verdict = RETURN if kind == "return" else ACCEPT
        elif kind in ("jump", "goto"):
            verdict, target = kind.upper(), body["target"]
        elif kind in ("masquerade", "snat"):
            verdict, target = NAT, kind.upper()
            if body and body.get("family") == {4: "ip6", 6: "ip"}[version]:
                match[SOURCE] = ()
        elif kind == "match":
            exact = _nft_match(match, body, table, sets, version) and exact
        elif kind in ("counter", "log", "continue") or (kind == "xt" and body and body.get("name") == "comment"):
            continue
        else:
            # Another match, or what decides: a map, a target of iptables, a new mark.
            exact = False
            verdict = UNTOLD
    return Rule("chain %s rule with handle %d" % (rule["chain"], rule["handle"]), tuple(match), exact, verdict, target)


def _nft_match(match: List[Ranges], body: Mapping[str, Any], table: Key, sets: Mapping[Key, Any], version: int) -> bool:
    """Narrow ``match`` to what a match expression is true of; whether it is understood."""
    left, right = body["left"], body["right"]
    if body["op"] not in ("==", "!=") or not isinstance(left, dict):
        return False
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": sets.get(table + (right[1:],))}
    ((kind, of),) = left.items()
    dimension, truth = -1, None
    if kind == "payload" and of.get("protocol") in ("ip", "ip6"):
        if of["protocol"] != {4: "ip", 6: "ip6"}[version]:
            match[SOURCE] = ()  # a header that a packet of this family does not have, whatever is asked of it
            return True
        dimension = {"saddr": SOURCE, "daddr": DESTINATION, "protocol": PROTOCOL, "nexthdr": PROTOCOL}.get(of["field"], -1)
    elif kind == "meta":
        dimension = {"oifname": OUT, "oif": OUT, "iifname": IN, "iif": IN, "l4proto": PROTOCOL}.get(of["key"], -1)
    if dimension >= 0:
        read = {SOURCE: _address, DESTINATION: _address, PROTOCOL: _protocol}.get(dimension, _nft_interfaces)
        return _narrow(match, dimension, _nft_values(right, read), body["op"] == "!=")
    if kind == "meta" and of["key"] in ("nfproto", "protocol") and isinstance(right, str):
        truth = {"ipv4": version == 4, "ip": version == 4, "ipv6": version == 6, "ip6": version == 6}.get(right)
    elif isinstance(right, int) and {"meta": {"key": "mark"}} in (left, of[0] if kind == "&" else None):
        truth = right == 0
    elif kind == "fib" and of.get("result") == "type" and right == "local":
        truth = False
    return _narrow(match, -1, truth, body["op"] == "!=")


def _nft_values(right: Any, read: Callable[[Any], Ranges]) -> Optional[Ranges]:
    """The ranges of one value, or of a set of them; None if there is anything else in it."""
    try:
        if isinstance(right, dict):
            ((kind, of),) = right.items()
            if kind == "set":
                members = [_nft_values(member, read) for member in (of if isinstance(of, list) else [of])]
                return None if None in members else _union(member for member in members if member)
            if kind == "elem":
                return _nft_values(of["val"], read)
            if kind == "prefix":
                return _network("%s/%d" % (of["addr"], of["len"]))
            if kind == "range":
                return _address_range(*of)
            return None
        return read(right)
    except (ValueError, TypeError, KeyError):
        return None


def _nft_interfaces(name: str) -> Ranges:
    return _interfaces(name[:-1] + "+" if name.endswith("*") else name)


def _narrow(match: List[Ranges], dimension: int, values: Any, negated: bool) -> bool:
    """Narrow ``match`` to ``values``: ranges of a dimension, or true or false of every packet. Whether they are understood."""
    if values is None:
        return False
    if dimension >= 0:
        match[dimension] = _without(match[dimension], values) if negated else _common(match[dimension], values)
    elif values == negated:
        match[SOURCE] = ()
    return True


def _split(box: Box, by: Box) -> Tuple[Optional[Box], List[Box]]:
    """The part of ``box`` that is in ``by``, and the rest in pieces that have nothing in common."""
    inside = list(box)
    outside = []
    for dimension, ranges in enumerate(by):
        common = _common(box[dimension], ranges)
        if not common:
            return None, [box]
        rest = _without(box[dimension], ranges)
        if rest:
            outside.append(tuple(inside[:dimension]) + (rest,) + box[dimension + 1:])
        inside[dimension] = common
    return tuple(inside), outside


def _simplified(regions: Sequence[Region]) -> List[Region]:
    """Without those that others contain and are no more in doubt: else their number could double with every chain."""
    kept: List[Region] = []
    for region in sorted(regions, key=_doubt_of):
        if not any(_within(region.box, other.box) for other in kept):
            kept.append(region)
    return kept


def _doubt_of(region: Region) -> int:
    return region.doubt


def _within(box: Box, other: Box) -> bool:
    return all(_common(a, b) == a for a, b in zip(box, other))


def _common(a: Ranges, b: Ranges) -> Ranges:
    """By one walk along both: there may be thousands of each."""
    common = []
    i = j = 0
    while i < len(a) and j < len(b):
        first, last = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if first <= last:
            common.append((first, last))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(common)


def _without(a: Ranges, b: Ranges) -> Ranges:
    if not (a and b):
        return a
    ends = [(last + 1, following - 1) for (_unused, last), (following, _unused2) in zip(b, b[1:])]
    return _common(a, ((a[0][0], b[0][0] - 1), *ends, (b[-1][1] + 1, a[-1][1])))


def _union(many: Iterable[Ranges]) -> Ranges:
    joined: List[Tuple[int, int]] = []
    for first, last in sorted(item for ranges in many for item in ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _everything(version: int) -> Box:
    addresses = ((0, 2 ** BITS[version] - 1),)
    return (addresses, addresses, _interfaces("+"), _interfaces("+"), ((0, 255),))


def _version(cidr: str) -> int:
    return 6 if ":" in cidr else 4


def _network(cidr: str) -> Ranges:
    network = ipaddress.ip_network(cidr)
    return ((int(network.network_address), int(network.broadcast_address)),)


def _address(address: str) -> Ranges:
    return _address_range(address, address)


def _address_range(first: str, last: str) -> Ranges:
    return ((int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))),)


def _interfaces(name: str) -> Ranges:
    """Names as numbers, so that those that begin alike (``eth+``) are a range."""
    if name.endswith("+"):
        start = name[:-1].encode()
        return ((int.from_bytes(start.ljust(NAME_SIZE, b"\0"), "big"), int.from_bytes(start.ljust(NAME_SIZE, b"\xff"), "big")),)
    number = int.from_bytes(name.encode().ljust(NAME_SIZE, b"\0"), "big")
    return ((number, number),)


def _protocol(name: Any) -> Ranges:
    number = PROTOCOLS[name] if name in PROTOCOLS else int(name)
    return ((number, number),)
