# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The masquerade chain with its counters, wherever on this host it is. Looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

import re

from . import _nftables, _plan_table
from ._errors import KindnetError
from ._firewall import BACKENDS, PATIENCE
from ._plan_chain import FAMILIES, FLAVOURS, NFT_PLACE, Place, command, family_of, leads_to, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

CHAIN = "KIND-MASQ-AGENT"
NFTABLES = "nftables"
LOCK_WAIT = 5  # seconds
TIME = 20.0  # seconds for all programs together, as a pass gives them: whoever asks is not to wait for one that hangs
# Quoted text, which may say anything, or what -v adds ahead of the target.
_COUNTED = re.compile(r'"(?:[^"\\]|\\.)*"| -c (\d+) (\d+)(?= -[jg] |\Z)', re.DOTALL)

# What is of the other family, in the words of ours or as nft prints it
_OF_OTHERS = {
    "ipv4": re.compile(r'(ip6 |meta nfproto ipv6|.*"protocol": "ip6")'),
    "ipv6": re.compile(r'(ip |meta nfproto ipv4|.*"protocol": "ip")'),
}


def masquerade(section: Dict[str, Any]) -> Tuple[List[Dict[str, Any]], List[str]]:
    """The chain of the recorded section, or of the usual name: where it ought to be, and where else it is. Beside it, what could not be looked at."""
    PATIENCE.bound(TIME)
    chain: str = section.get("chain", CHAIN)
    families = [f for f in FAMILIES if any(family_of(cidr) == f for cidr in section.get("cluster_cidrs", ()))]
    wanted = {(section.get("backend", ""), family) for family in families}
    found: List[Dict[str, Any]] = []
    notes: List[str] = []
    for flavour in FLAVOURS:
        for family in FAMILIES:
            try:
                found += _of_iptables(flavour, family, chain, wanted)
            except KindnetError as e:
                notes.append("%s: %s" % (command(Place(flavour, family)), e))
    try:
        found += _of_nftables(chain, wanted)
    except KindnetError as e:
        notes.append("%s: %s" % (command(NFT_PLACE), e))
    return found, notes


def _of_iptables(flavour: str, family: str, chain: str, wanted: Set[Tuple[str, str]]) -> List[Dict[str, Any]]:
    backend = "iptables-%s" % flavour
    rules, postrouting = BACKENDS[flavour].read_counted(family, chain, LOCK_WAIT)
    jumps = sum(leads_to(rule, chain) for rule in postrouting)
    if rules is None and (backend, family) not in wanted:
        return []
    return [_entry(family, backend, chain, None if rules is None else [counted(rule) for rule in rules], jumps)]


def counted(rule: str) -> Tuple[str, int, int]:
    """Pure. A rule as ``iptables -v -S`` prints it, less its counters, and these: packets, bytes."""
    for match in _COUNTED.finditer(rule):
        if match.group(1):
            return shown(rule[: match.start()] + rule[match.end() :]), int(match.group(1)), int(match.group(2))
    return shown(rule), 0, 0


def _of_nftables(chain: str, wanted: Set[Tuple[str, str]]) -> List[Dict[str, Any]]:
    found = _nftables.read_counted(chain)
    entries = []
    for family in FAMILIES:
        own = None if found is None else of_family(family, chain, found)
        if own or (NFTABLES, family) in wanted:
            jumps = sum("jump %s" % chain in words or "goto %s" % chain in words for _chain, words, _packets, _bytes in found or ())
            entries.append(_entry(family, NFTABLES, chain, own, jumps))
    return entries


def of_family(family: str, chain: str, rules: Sequence[Tuple[str, Sequence[str], int, int]]) -> List[Tuple[str, int, int]]:
    """Pure. Of the chain's rules those that may match a packet of ``family``: the table has both."""
    other = _OF_OTHERS[family]
    return [
        (_plan_table.shown(tuple(words)), packets, octets)
        for its_chain, words, packets, octets in rules
        if its_chain == chain and not any(other.match(word) for word in words)
    ]


def _entry(family: str, backend: str, chain: str, rules: Optional[List[Tuple[str, int, int]]], jumps: int) -> Dict[str, Any]:
    return {
        "family": family,
        "backend": backend,
        "chain": chain,
        "present": rules is not None,
        "jumps": jumps,
        "rules": [{"rule": rule, "packets": packets, "bytes": octets} for rule, packets, octets in rules or ()],
    }
