# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With which source one packet leaves a host, and which rule says so. Pure. Of a walk only.

A packet meets the nat chains at postrouting in the order of their priority, and the first that translates its source has decided; an accept
ends its own chain and keeps no other one from it. Where a rule cannot be told (an ipset, say), it is a doubt about all that follows.
"""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from ._packet_rules import ACCEPT, DEEPEST, GOTO, JUMP, NAT, NOTHING, OTHER_FAMILY, RETURN, Base, common, everything, interfaces, iptables_rule, network
from ._plan_chain import POSTROUTING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

    from ._packet_rules import Box, NatChains, Read, Rule

    class Packet(NamedTuple):
        """A ping on its way out of a host."""

        source: str
        destination: str
        came_by: str  # interface; "" of what the host itself sends
        leaves_by: str

    class Translation(NamedTuple):
        """What becomes of a packet's source."""

        by: str  # "MASQUERADE", "SNAT", "NETMAP"; "" if it keeps its source
        rule: str  # the one that decided; "" if none said anything
        doubts: Tuple[str, ...]  # rules ahead of it that may decide otherwise

    class Hook(NamedTuple):
        """One base chain, and how to read what it leads to."""

        where: str  # as a person finds it, with a space at its end
        base: Base
        read: Read
else:
    Packet = namedtuple("Packet", "source destination came_by leaves_by")
    Translation = namedtuple("Translation", "by rule doubts")
    Hook = namedtuple("Hook", "where base read")

SRCNAT = 100  # the priority at which iptables hooks nat POSTROUTING
PING = {4: 1, 6: 58}
LOCAL_SOURCE = "--src-type LOCAL"  # what is not true of a forwarded packet, and is of a host's own


def iptables_hook(where: str, lists: Mapping[str, Sequence[str]], version: int, is_own: bool) -> Hook:
    """POSTROUTING of one flavour of iptables.

    :param lists: the rules of each chain of nat, as ``iptables -S`` prints them less "-A CHAIN".
    :param is_own: whether the packet is one that the host itself sends.
    """

    def read(name: str) -> Optional[List[Rule]]:
        texts = lists.get(name)
        if texts is None:
            return None
        rules = [iptables_rule(name, number, text, lists, version) for number, text in enumerate(texts, 1)]
        if is_own:
            rules = [rule._replace(match=everything(version), exact=False) if LOCAL_SOURCE in rule.place else rule for rule in rules]
        return rules

    return Hook(where, Base(SRCNAT, "", "", POSTROUTING), read)


def nft_hooks(chains: NatChains, version: int, is_own: bool) -> List[Hook]:
    """The base chains of nf_tables itself that see packets of this version. ``is_own`` as above."""
    found = [base for base in chains.bases if base.family != OTHER_FAMILY[version]]
    return [Hook("nft table %s %s, " % (base.family, base.table), base, chains.reader(base, version, is_own)) for base in found]


def translation(hooks: Sequence[Hook], packet: Packet) -> Translation:
    """What the rules make of the source of ``packet``."""
    doubts: List[str] = []
    keeper = ""
    for hook in sorted(hooks, key=lambda hook: hook.base.priority):
        way = _Way(hook.read, packet)
        decided = way.through(hook.base.name)
        doubts += [hook.where + place for place in way.doubts]
        if decided and decided[0] == NAT:
            return Translation(decided[2], hook.where + decided[1], tuple(doubts))
        if decided or way.returned:
            keeper = keeper or hook.where + (decided[1] if decided else way.returned)
    return Translation("", keeper, tuple(doubts))


class _Way:
    """One packet through a base chain and what that leads to."""

    def __init__(self, read: Read, packet: Packet) -> None:
        version = 6 if ":" in packet.source else 4
        self.read = read
        self.chains: Dict[str, Optional[List[Rule]]] = {}
        self.packet: Box = (
            network(packet.source),
            network(packet.destination),
            interfaces(packet.came_by),
            interfaces(packet.leaves_by),
            ((PING[version], PING[version]),),
        )
        self.doubts: List[str] = []
        self.returned = ""  # the last rule that sent it back

    def through(self, chain: str, led_by: Tuple[str, ...] = ()) -> Optional[Tuple[str, str, str]]:
        """Verdict, place and target of the rule that decides; None if the packet comes back out of the chain."""
        if chain not in self.chains:
            self.chains[chain] = self.read(chain)
        rules = self.chains[chain]
        if rules is None or len(led_by) > DEEPEST:
            self.doubts.append(led_by[-1] if led_by else chain)
            return None
        for rule in rules:
            if rule.verdict == NOTHING or not all(common(mine, its) for mine, its in zip(self.packet, rule.match)):
                continue
            if rule.verdict in (JUMP, GOTO):
                before = len(self.doubts)
                decided = self.through(rule.target, (*led_by, rule.place))
                if not rule.exact and (decided or len(self.doubts) > before):
                    del self.doubts[before:]
                    self.doubts.append(rule.place)
                elif rule.exact and (decided or rule.verdict == GOTO):
                    return decided
            elif not rule.exact or rule.verdict not in (ACCEPT, RETURN, NAT):
                self.doubts.append(rule.place)
            elif rule.verdict == RETURN:
                self.returned = rule.place
                return None
            else:
                return rule.verdict, rule.place, rule.target
        return None
