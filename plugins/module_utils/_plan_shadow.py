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

from collections import namedtuple

from ._packet_rules import (
    ACCEPT,
    DEEPEST,
    DESTINATION,
    GOTO,
    JUMP,
    NAT,
    NOTHING,
    OTHER_FAMILY,
    PROTOCOL,
    RETURN,
    UNTOLD,
    NatChains,
    Rule,
    common,
    everything,
    interfaces,
    iptables_rule,
    network,
    split,
    union,
    version_of,
    without,
)
from ._plan_chain import POSTROUTING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

    from ._packet_rules import Box, Ranges, Read

    Numbers = Tuple[int, ...]  # of a rule, behind those of the rules that lead to its chain

    class Region(NamedTuple):
        """Packets that get to a rule."""

        box: Box
        doubt: int  # 0: they surely do. Else perhaps none of them does, in chains so many jumps deep and deeper

    class Finding(NamedTuple):
        """A rule in our way."""

        numbers: Numbers
        place: str
        boxes: List[Box]  # the packets it decides about
else:
    Region = namedtuple("Region", "box doubt")
    Finding = namedtuple("Finding", "numbers place boxes")

OURS = "ours"  # the jump to our chain
EVERYWHERE = DEEPEST + 2  # of a doubt: it does not end with a chain
MOST_NAMED = 3  # destinations in one message
# What no router forwards, or only one that was told to: nobody misses that it is not masqueraded.
MULTICAST = {4: ("224.0.0.0/4", "255.255.255.255/32"), 6: ("ff00::/8",)}


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
    version = version_of(pods[0])

    def read(name: str) -> Optional[List[Rule]]:
        texts = postrouting if name == POSTROUTING else chains.get(name)
        if texts is None:
            return None
        rules = [iptables_rule(name, number, text, chains, version) for number, text in enumerate(texts, 1)]
        if jump and name == POSTROUTING:  # however it is worded: it will be as we want it
            rules = [Rule(rule.place, everything(version), True, OURS, "") if jump(text) else rule for rule, text in zip(rules, texts)]
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
    chains = NatChains(ruleset, own_table)
    lines: Dict[str, None] = {}
    for base in chains.bases:
        for version in (4, 6):
            if base.family == OTHER_FAMILY[version]:
                continue
            found = _Walk(chains.reader(base, version), version, pods, spared).spared_that_are_translated(base.name)
            lines.update({"table %s %s, %s" % (base.family, base.table, found[numbers]): None for numbers in sorted(found)})
    return list(lines)


class _Walk:
    """One class of packets on its way through a base chain and what that leads to."""

    def __init__(self, read: Read, version: int, pods: Sequence[str], spared: Sequence[str]) -> None:
        self.read = read
        self.chains: Dict[str, Optional[List[Rule]]] = {}
        self.spared = [cidr for cidr in spared if version_of(cidr) == version]
        self.multicast = union(network(cidr) for cidr in MULTICAST[version])
        not_lo = without(interfaces("+"), interfaces("lo"))  # a forwarded packet comes and goes by another
        sources = union(network(cidr) for cidr in pods if version_of(cidr) == version)
        self.all: Box = (sources, everything(version)[DESTINATION], not_lo, not_lo, everything(version)[PROTOCOL])
        self.translation_is_right = False
        self.found: Dict[Rule, Finding] = {}

    def spared_that_are_translated(self, base: str) -> Dict[Numbers, str]:
        self._follow(base, union(network(cidr) for cidr in self.spared))
        lines = {}
        for rule, finding in self.found.items():
            hit = [c for c in self.spared if any(common(network(c), box[DESTINATION]) for box in finding.boxes)]
            more = len(hit) - MOST_NAMED
            to = ", ".join(hit[:MOST_NAMED]) + (" and %d more" % more if more > 0 else "")
            what = "masquerades" if rule.target == "MASQUERADE" else "translates the source of"
            lines[finding.numbers] = "%s: %s pods' traffic to %s" % (finding.place, what, to)
        return lines

    def others_that_are_not(self, base: str) -> Dict[Numbers, str]:
        self.translation_is_right = True
        spared = union(network(cidr) for cidr in self.spared)
        self._follow(base, without(without(self.all[DESTINATION], spared), self.multicast))
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
                inside, outside = split(region.box, rule.match)
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
    return all(common(a, b) == a for a, b in zip(box, other))
