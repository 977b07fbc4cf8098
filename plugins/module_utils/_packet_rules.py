# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of nat tables as data: which packets one is about, and what it does with them. Pure. Of a converge and of a walk, never of a pass.

A packet here is an ordinary one: of no IPsec policy and without a mark, since who marks a packet means it to be treated in another way.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from collections import namedtuple

from ._plan_chain import shown, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

    Ranges = Tuple[Tuple[int, int], ...]  # first and last of each, ascending, apart
    Box = Tuple[Ranges, ...]  # the packets with a value in each dimension's ranges
    Key = Tuple[str, ...]  # family, table, and the name of a chain or set

    class Rule(NamedTuple):
        place: str  # as a person finds it
        match: Box  # what it lets through of packets, as far as its matches are understood
        exact: bool  # whether all of them are
        verdict: str
        target: str  # the chain of JUMP and GOTO, what does the NAT, else ""

    Read = Callable[[str], Optional[List[Rule]]]  # the rules of the chain of a name; None if they are not known

    class Base(NamedTuple):
        """A base chain of type nat at postrouting."""

        priority: int
        family: str
        table: str
        name: str
else:
    Rule = namedtuple("Rule", "place match exact verdict target")
    Base = namedtuple("Base", "priority family table name")

SOURCE, DESTINATION, IN, OUT, PROTOCOL = range(5)

ACCEPT, RETURN, NAT, JUMP, GOTO = "ACCEPT", "RETURN", "NAT", "JUMP", "GOTO"
NOTHING = ""  # the packet goes on to the next rule
UNTOLD = "?"

DEEPEST = 16  # jumps; NFT_JUMP_STACK_SIZE. The kernel refuses loops.

NATS = ("MASQUERADE", "SNAT", "NETMAP")
PASSIVE = ("LOG", "NFLOG", "TRACE", "SET", "AUDIT")
MATCHES = ("comment", "addrtype", "mark", "connmark", "policy", "iprange", "tcp", "udp")  # without options they match everything
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "sctp": 132, "udplite": 136,
}
BITS = {4: 32, 6: 128}
OTHER_FAMILY = {4: "ip6", 6: "ip"}  # of tables that see nothing of this version
NAME_SIZE = 16  # of an interface, IFNAMSIZ


class NatChains:
    """The chains of ``nft -j list ruleset`` that a packet meets at nat postrouting, and what those lead to.

    What stands in the words of iptables (``xt``) cannot be told here.

    :param without: name of a table of family inet that is left out.
    """

    def __init__(self, ruleset: Any, without: str = "") -> None:
        self.bases: List[Base] = []
        self._rules: Dict[Key, List[Any]] = {}
        self._sets: Dict[Key, Any] = {}
        for entry in ruleset["nftables"]:
            ((kind, item),) = entry.items()
            if kind in ("metainfo", "table") or (item.get("family"), item.get("table")) == ("inet", without):
                continue
            if kind == "chain":
                self._rules.setdefault((item["family"], item["table"], item["name"]), [])
                if item.get("type") == "nat" and item.get("hook") == "postrouting":
                    self.bases.append(Base(item["prio"], item["family"], item["table"], item["name"]))
            elif kind == "rule":
                self._rules.setdefault((item["family"], item["table"], item["chain"]), []).append(item)
            elif kind == "set":
                self._sets[(item["family"], item["table"], item["name"])] = item.get("elem", [])
        self.bases.sort()

    def reader(self, base: Base, version: int, is_own: bool = False) -> Read:
        """:param is_own: whether the packets are those that the host itself sends."""

        def read(name: str) -> Optional[List[Rule]]:
            rules = self._rules.get((base.family, base.table, name))
            return None if rules is None else [nft_rule(rule, self._sets, version, is_own) for rule in rules]

        return read


def iptables_rule(chain: str, number: int, text: str, chains: Collection[str], version: int) -> Rule:
    match, exact = list(everything(version)), True
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
            return network(value)
        if option in ("--src-range", "--dst-range"):
            return _address_range(*value.split("-"))
        if option in ("-i", "-o"):
            return interfaces(value)
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


def nft_rule(rule: Mapping[str, Any], sets: Mapping[Key, Any], version: int, is_own: bool) -> Rule:
    table = (rule["family"], rule["table"])
    match, exact = list(everything(version)), True
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
            if body and body.get("family") == OTHER_FAMILY[version]:
                match[SOURCE] = ()
        elif kind == "match":
            exact = _nft_match(match, body, table, sets, version, is_own) and exact
        elif kind in ("counter", "log", "continue") or (kind == "xt" and body and body.get("name") == "comment"):
            continue
        else:
            # Another match, or what decides: a map, a target of iptables, a new mark.
            exact = False
            verdict = UNTOLD
    return Rule("chain %s rule with handle %d" % (rule["chain"], rule["handle"]), tuple(match), exact, verdict, target)


def _nft_match(match: List[Ranges], body: Mapping[str, Any], table: Key, sets: Mapping[Key, Any], version: int, is_own: bool) -> bool:
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
        flags = list(of.get("flags", ()))  # with others, it may be local to an interface alone
        truth = (True if flags == ["saddr"] else None) if is_own and "saddr" in flags else False
    return _narrow(match, -1, truth, body["op"] == "!=")


def _nft_values(right: Any, read: Callable[[Any], Ranges]) -> Optional[Ranges]:
    """The ranges of one value, or of a set of them; None if there is anything else in it."""
    try:
        if isinstance(right, dict):
            ((kind, of),) = right.items()
            if kind == "set":
                members = [_nft_values(member, read) for member in (of if isinstance(of, list) else [of])]
                return None if None in members else union(member for member in members if member)
            if kind == "elem":
                return _nft_values(of["val"], read)
            if kind == "prefix":
                return network("%s/%d" % (of["addr"], of["len"]))
            if kind == "range":
                return _address_range(*of)
            return None
        return read(right)
    except (ValueError, TypeError, KeyError):
        return None


def _nft_interfaces(name: str) -> Ranges:
    return interfaces(name[:-1] + "+" if name.endswith("*") else name)


def _narrow(match: List[Ranges], dimension: int, values: Any, negated: bool) -> bool:
    """Narrow ``match`` to ``values``: ranges of a dimension, or true or false of every packet. Whether they are understood."""
    if values is None:
        return False
    if dimension >= 0:
        match[dimension] = without(match[dimension], values) if negated else common(match[dimension], values)
    elif values == negated:
        match[SOURCE] = ()
    return True


def split(box: Box, by: Box) -> Tuple[Optional[Box], List[Box]]:
    """The part of ``box`` that is in ``by``, and the rest in pieces that have nothing in common."""
    inside = list(box)
    outside = []
    for dimension, ranges in enumerate(by):
        shared = common(box[dimension], ranges)
        if not shared:
            return None, [box]
        rest = without(box[dimension], ranges)
        if rest:
            outside.append(tuple(inside[:dimension]) + (rest,) + box[dimension + 1:])
        inside[dimension] = shared
    return tuple(inside), outside


def common(a: Ranges, b: Ranges) -> Ranges:
    """By one walk along both: there may be thousands of each."""
    shared = []
    i = j = 0
    while i < len(a) and j < len(b):
        first, last = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if first <= last:
            shared.append((first, last))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(shared)


def without(a: Ranges, b: Ranges) -> Ranges:
    if not (a and b):
        return a
    ends = [(last + 1, following - 1) for (_unused, last), (following, _unused2) in zip(b, b[1:])]
    return common(a, ((a[0][0], b[0][0] - 1), *ends, (b[-1][1] + 1, a[-1][1])))


def union(many: Iterable[Ranges]) -> Ranges:
    joined: List[Tuple[int, int]] = []
    for first, last in sorted(item for ranges in many for item in ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def everything(version: int) -> Box:
    addresses = ((0, 2 ** BITS[version] - 1),)
    return (addresses, addresses, interfaces("+"), interfaces("+"), ((0, 255),))


def version_of(cidr: str) -> int:
    return 6 if ":" in cidr else 4


def network(cidr: str) -> Ranges:
    parsed = ipaddress.ip_network(cidr)
    return ((int(parsed.network_address), int(parsed.broadcast_address)),)


def _address(address: str) -> Ranges:
    return _address_range(address, address)


def _address_range(first: str, last: str) -> Ranges:
    return ((int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))),)


def interfaces(name: str) -> Ranges:
    """Names as numbers, so that those that begin alike (``eth+``) are a range."""
    if name.endswith("+"):
        start = name[:-1].encode()
        return ((int.from_bytes(start.ljust(NAME_SIZE, b"\0"), "big"), int.from_bytes(start.ljust(NAME_SIZE, b"\xff"), "big")),)
    number = int.from_bytes(name.encode().ljust(NAME_SIZE, b"\0"), "big")
    return ((number, number),)


def _protocol(name: Any) -> Ranges:
    number = PROTOCOLS[name] if name in PROTOCOLS else int(name)
    return ((number, number),)
