# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The masquerade chain in nf_tables itself: one table of our own, what it is to hold, and what it takes to get there. Pure.

The networks are interval sets, the rules are the few of the chain in nft's words, one tuple of statements per rule. Nothing of
others can be in the table, and nothing outside of it leads into it. What is wrong is put right part by part (a set, a chain), so that
counters survive elsewhere and the base chain stays hooked: only what cannot be taken out of a table makes it a new one.

A set that no rule asks yet is filled in a transaction of its own, before rules that ask it: since Linux commit 7e43e0a1141d (7.0, 6.18.17) packets see
the rules of a transaction an instant before the elements that come with them, and a set that seems empty spares nobody. Of a set in use only the
elements that differ are touched: kernels before that (commit a60f7bf4a152) miss what goes and comes again in one transaction.
"""

from __future__ import annotations

__metaclass__ = type

import socket
from collections import namedtuple

from ._plan import Change, Plan
from ._plan_chain import EVERYTHING, FAMILIES, FIRST, JUMP_COMMENT, MASQUERADE_COMMENT, NFT_PLACE, NFT_TABLE, RETURN_COMMENT, chain_faults, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

    from ._plan_chain import Masquerading, Place

    Rule = Tuple[str, ...]  # statements in nft's words, the comment last
    Interval = Tuple[int, int]  # first and last address

    class Table(NamedTuple):
        """What our table holds. Sets are by name; an unknown kind of thing in it is a stranger."""

        base: str  # of the base chain: type, hook, priority and policy; "" when it is missing
        entry: Tuple[Rule, ...]  # rules of the base chain
        chain: str  # the chain that the jump leads to
        rules: Optional[Tuple[Rule, ...]]  # of that chain; None when it is missing
        sets: Mapping[str, Tuple[Interval, ...]]
        strangers: Tuple[str, ...] = ()  # what we put there never, or no more
        elements: Mapping[str, Tuple[Interval, ...]] = {}  # of sets, as they are there: neighbours may not be one interval

    class Op(NamedTuple):
        """What a change asks of the adapter; without a table, to delete it."""

        place: Place
        table: Optional[Table]
        parts: Tuple[str, ...] = ()  # names of sets and chains that are to be put right; () for all, in a table that is made anew
        unwanted: Tuple[str, ...] = ()  # what to delete, such as "set source_ipv4"
        ahead: Tuple[str, ...] = ()  # sets that no rule asks yet, and come first; with no parts all of them, in a table that is not there
        rebased: bool = False  # the base chain is to go first, since another takes its place
        sets: Mapping[str, Tuple[Interval, ...]] = {}  # the sets that are there, with what is in them; none of a table that is made anew
else:
    Table = namedtuple("Table", "base entry chain rules sets strangers elements", defaults=((), {}))
    Op = namedtuple("Op", "place table parts unwanted ahead rebased sets", defaults=((), (), (), False, {}))

SUBJECT = "nft table inet %s" % NFT_TABLE
BASE_CHAIN = "postrouting"

# iptables' nat table and most others sit at 100 (srcnat). Beside them the order of hooking decides, so ours has a place of its own.
BASE = {position: "nat postrouting %d accept" % priority for position, priority in ((FIRST, 99), ("last", 101))}

IP = {"ipv4": "ip", "ipv6": "ip6"}
# What a set is for, and what its name begins with.
SPARED, DESTINATIONS, SOURCES = "non_masquerade", "masquerade", "source"
OUR_SETS = tuple("%s_%s" % (use, family) for use in (SPARED, DESTINATIONS, SOURCES) for family in FAMILIES)
REMOVABLE = ("map", "chain", "set", "counter", "quota", "limit")  # in this order: rules and maps lead to the others, and go first
OURS = "kind-masq-agent: "  # how the comments of all our rules begin


def wanted_table(chain: str, families: Mapping[str, Masquerading], position: str) -> Table:
    """The table for these families; only what a family needs is in it."""
    sets: Dict[str, Tuple[Interval, ...]] = {}
    returns: List[Rule] = []
    masquerades: List[Rule] = []
    for family in FAMILIES:
        if family not in families:
            continue
        masquerading = families[family]
        words: List[str] = []
        for use, where, cidrs in ((SOURCES, "saddr", masquerading.sources), (DESTINATIONS, "daddr", masquerading.destinations)):
            if cidrs and not any(cidr in EVERYTHING for cidr in cidrs):
                sets["%s_%s" % (use, family)] = intervals(cidrs)
                words.append("%s %s @%s_%s" % (IP[family], where, use, family))
        name = "%s_%s" % (SPARED, family)
        sets[name] = intervals(masquerading.spared)
        returns.append(("%s daddr @%s" % (IP[family], name), "counter", "return", comment(RETURN_COMMENT)))
        verdict = "masquerade fully-random" if masquerading.random_fully else "masquerade"
        masquerades.append((*(words or ["meta nfproto %s" % family]), "counter", verdict, comment(MASQUERADE_COMMENT)))
    jump = ("fib daddr type != local", "counter", "jump %s" % chain, comment(JUMP_COMMENT % chain))
    return Table(BASE[position], (jump,), chain, tuple(returns + masquerades), sets)


def plan_table(wanted: Table, found: Optional[Table]) -> Plan:
    """What it takes for our table to be the wanted one: one change, for all of it is made or nothing."""
    if found is None:
        op = Op(NFT_PLACE, wanted, ahead=tuple(wanted.sets))
        return Plan((Change(SUBJECT, "add", "", described(wanted), "table missing", op),))
    unwanted = tuple("set " + name for name in found.sets if name not in wanted.sets) + found.strangers
    parts = {name: set_faults(name, wanted.sets[name], found.sets.get(name)) for name in wanted.sets}
    parts[wanted.chain] = chain_faults(wanted.rules or (), found.rules, tuple, _name) if found.rules is not None else ["chain missing"]
    parts[BASE_CHAIN] = _entry_faults(wanted, found)
    faults = ["%s is not wanted" % one for one in unwanted] + [fault for name in parts for fault in parts[name]]
    if not faults:
        return Plan()
    op = Op(NFT_PLACE, wanted)
    if all(_can_be_taken_out(stranger, wanted) for stranger in found.strangers):
        asked = {word[1:] for rule in _rules(found) for statement in rule for word in statement.split() if word.startswith("@")}
        if any(stranger.startswith("chain ") for stranger in found.strangers):
            asked.update(found.sets)  # such as our chain by its former name, whose rules are not told
        op = op._replace(
            parts=tuple(name for name in parts if parts[name]),
            unwanted=unwanted,
            ahead=tuple(name for name in wanted.sets if name not in found.sets or (parts[name] and name not in asked)),
            rebased=_is_rebased(wanted, found),
            sets={name: found.elements.get(name, found.sets[name]) for name in wanted.sets if name in found.sets},
        )
    return Plan((Change(SUBJECT, "replace", described(found), described(wanted), named(faults), op),))


def plan_table_removal(found: Optional[Table], reason: str) -> Plan:
    if found is None:
        return Plan()
    return Plan((Change(SUBJECT, "remove", described(found), "", reason, Op(NFT_PLACE, None)),))


def is_ours(found: Optional[Table]) -> bool:
    """Whether a table of our name is ours: a rule in it has a comment of ours, or there is no rule and nothing but what we put there."""
    if found is None:
        return True
    if not (_rules(found) or found.strangers):  # somebody flushed it, or a run was ended between sets and rules
        return found.base in ("", *BASE.values()) and all(name in OUR_SETS for name in found.sets)
    return any(statement.startswith('comment "%s' % OURS) for rule in _rules(found) for statement in rule)


def _rules(table: Table) -> Tuple[Rule, ...]:
    return table.entry + (table.rules or ())


def _can_be_taken_out(stranger: str, wanted: Table) -> bool:
    """Whether it can go without the whole table: it has no name that we need, and nothing of ours may lead to it."""
    kind, _unused, name = stranger.partition(" ")
    names = wanted.sets if kind in ("map", "set") else (wanted.chain, BASE_CHAIN) if kind == "chain" else ()
    return kind in REMOVABLE and name not in names


def _is_rebased(wanted: Table, found: Table) -> bool:
    return found.base not in ("", wanted.base)  # one that exists cannot be altered


def set_faults(name: str, wanted: Sequence[Interval], found: Optional[Sequence[Interval]]) -> List[str]:
    if found is None:
        return ["set %s missing" % name]
    if tuple(found) == tuple(wanted):
        return []  # of many networks the comparison one by one is dear
    faults = ["%s missing in set %s" % (spell(name, interval), name) for interval in wanted if interval not in found]
    return faults + ["%s is not wanted in set %s" % (spell(name, interval), name) for interval in found if interval not in wanted]


def _entry_faults(wanted: Table, found: Table) -> List[str]:
    if not found.base:
        return ["base chain %s missing" % BASE_CHAIN]
    if _is_rebased(wanted, found):
        return ["base chain %s is '%s', not '%s'" % (BASE_CHAIN, found.base, wanted.base)]
    if not found.entry:
        return ["jump missing"]
    return ["%s of %s" % (fault, BASE_CHAIN) for fault in chain_faults(wanted.entry, found.entry, tuple, _name)]


def comment(text: str) -> str:
    return 'comment "%s"' % text


def intervals(cidrs: Sequence[str]) -> Tuple[Interval, ...]:
    """The addresses of networks as the fewest intervals: what overlaps or touches is one, however it was written."""
    return merged(interval_of(cidr) for cidr in cidrs)


def interval_of(cidr: str) -> Interval:
    address, _unused, length = cidr.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    size = 1 << (8 * len(packed) - int(length or 8 * len(packed)))
    first = int.from_bytes(packed, "big")
    return first, first + size - 1


def merged(found: Iterable[Interval]) -> Tuple[Interval, ...]:
    one: List[Interval] = []
    for first, last in sorted(found):
        if one and first <= one[-1][1] + 1:
            one[-1] = (one[-1][0], max(last, one[-1][1]))
        else:
            one.append((first, last))
    return tuple(one)


def spell(set_name: str, interval: Interval) -> str:
    """An interval as nft prints it: a network where it is one, else its ends."""
    first, last = interval
    bits, family = (128, socket.AF_INET6) if set_name.endswith("ipv6") else (32, socket.AF_INET)
    size = last - first + 1
    text = socket.inet_ntop(family, first.to_bytes(bits // 8, "big"))
    if size & (size - 1) == 0 and first % size == 0:
        return text if size == 1 else "%s/%d" % (text, bits - size.bit_length() + 1)
    return "%s-%s" % (text, socket.inet_ntop(family, last.to_bytes(bits // 8, "big")))


def described(table: Table) -> str:
    """A table as a person reads it, in one line."""
    parts = ["%s: %s" % (name, named([spell(name, interval) for interval in table.sets[name]]) or "empty") for name in table.sets]
    parts += ["%s: %s" % (BASE_CHAIN, "; ".join([table.base] + [shown(rule) for rule in table.entry]))] if table.base else []
    parts += ["%s: %s" % (table.chain, "; ".join(shown(rule) for rule in table.rules) or "empty")] if table.rules is not None else []
    return ". ".join(parts + list(table.strangers)) or "empty"


def shown(rule: Rule) -> str:
    """A rule without its counter and without the comments that say whose it is, on one line whatever it holds."""
    words = " ".join(word for word in rule if word != "counter" and not word.startswith('comment "%s' % OURS))
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in words)


def _name(rule: Rule) -> str:
    return "rule '%s'" % shown(rule)
