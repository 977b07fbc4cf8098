# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rules of others stand in the way of the masquerade chain on this host. Reads through all of nat, so a pass never asks."""

from __future__ import annotations

__metaclass__ = type

import ipaddress

from . import _nftables
from ._firewall import BACKENDS
from ._plan_chain import EVERYTHING, FLAVOURS, LAST, NFT_TABLE, Found, Place, command, is_ours, leads_to, planned_postrouting
from ._plan_shadow import shadowing, shadowing_nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    from ._plan_chain import Masquerading

    Section = Dict[str, Any]

MOST = 10  # rules named; a plugin that masquerades by itself has one for each pod


def shadowed_by(section: Section, families: Dict[str, Masquerading]) -> List[str]:
    """A line for each rule of others that decides about pods' packets otherwise than our chain is asked to."""
    found: List[str] = []
    native = _nftables.nat_ruleset()
    for family, masquerading in families.items():
        pods, spared = _asked(section, family, masquerading)
        for flavour in FLAVOURS:
            found += _in_iptables(Place(flavour, family), section, pods, spared)
        found += ["nft %s" % line for line in shadowing_nft(native, NFT_TABLE, pods, spared)]
    more = len(found) - MOST
    return found[:MOST] + (["and %d more rules" % more] if more > 0 else [])


def _in_iptables(place: Place, section: Section, pods: List[str], spared: List[str]) -> List[str]:
    lists = BACKENDS[place.flavour].read_nat(place.family, section["lock_wait"])
    if not lists:
        return []
    chain, backend = section["chain"], "iptables-%s" % place.flavour
    postrouting = lists.pop("POSTROUTING", ())
    for former in [name for where, name in section.get("former", ()) if where == backend]:
        if is_ours(former, Found(lists.get(former), postrouting)):  # it goes in this very run
            postrouting = tuple(rule for rule in postrouting if not leads_to(rule, former))
    if section["backend"] != backend:
        lines = shadowing(postrouting, lists, None, pods, spared)
    else:
        planned = planned_postrouting(chain, postrouting, section.get("jump_position", LAST))
        lines = shadowing(planned, lists, lambda rule: leads_to(rule, chain), pods, spared)
    return ["%s -t nat %s" % (command(place), line) for line in lines]


def _asked(section: Section, family: str, masquerading: Masquerading) -> Tuple[List[str], List[str]]:
    """From where pods send what is masqueraded, and to where with their own addresses."""
    pods = [cidr for cidr in section["cluster_cidrs"] if (":" in cidr) == (family == "ipv6")]
    spared = list(masquerading.spared)
    if masquerading.destinations:
        spared += _complement(masquerading.destinations)
    if masquerading.sources:
        pods = _intersection(pods, masquerading.sources)
    return pods, spared


def _intersection(some: List[str], others: Tuple[str, ...]) -> List[str]:
    pairs = [(ipaddress.ip_network(one), ipaddress.ip_network(other)) for one in some for other in others]
    return [str(max(pair, key=lambda network: network.prefixlen)) for pair in pairs if pair[0].overlaps(pair[1])]


def _complement(cidrs: Tuple[str, ...]) -> List[str]:
    rest: List[Any] = [ipaddress.ip_network(EVERYTHING[":" in cidrs[0]])]
    for cidr in map(ipaddress.ip_network, cidrs):
        rest = [part for one in rest for part in _without(one, cidr)]
    return [str(one) for one in rest]


def _without(one: Any, cidr: Any) -> List[Any]:
    if not one.overlaps(cidr):
        return [one]
    return list(one.address_exclude(cidr)) if cidr.subnet_of(one) and cidr != one else []
