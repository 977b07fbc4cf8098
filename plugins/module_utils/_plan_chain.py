# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The masquerade chain and its jump, as kindnetd lays them: which rules are wanted, and what it takes to get there. Pure.

A rule is handled as the text that ``iptables -S`` prints for it, less its ``-A CHAIN``, and compared token by token. A wrong
chain is laid anew as a whole, since a rule appended to repair it would be dead behind MASQUERADE; a right one is
not touched, so that its counters survive.
"""

from __future__ import annotations

__metaclass__ = type

import re
from collections import namedtuple

from ._plan import Change, Plan, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Hashable, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

    T = TypeVar("T")
    Tokens = Tuple[str, ...]

    class Place(NamedTuple):
        """One nat table: of a flavour of iptables, or our own of nftables, which has both families."""

        flavour: str  # "nft" or "legacy"; "nftables"
        family: str  # "ipv4" or "ipv6"; "inet"

    class Masquerading(NamedTuple):
        """What is masqueraded of one family, as networks in canonical text."""

        spared: Tuple[str, ...]  # destinations that see the sender's own address
        destinations: Tuple[str, ...] = ()  # of the others only these are masqueraded; () for all
        sources: Tuple[str, ...] = ()  # only what these send; () for everybody
        random_fully: bool = False  # choose source ports at random

    class Found(NamedTuple):
        """What a nat table holds of ours."""

        rules: Optional[Tuple[str, ...]]  # of our chain; None when there is no such chain
        postrouting: Tuple[str, ...] = ()  # every rule of POSTROUTING, since a jump is put back where it stood
        references: Tuple[str, ...] = ()  # rules of further chains that lead to ours; looked for only where it is to go

    class Edit(NamedTuple):
        """One step of a transaction."""

        verb: str  # "lay" (make or empty the chain, then fill it), "delete", "insert", "append" (one rule), "drop" (the chain)
        chain: str
        rules: Tuple[str, ...] = ()
        position: int = 0  # of "insert", counted from 1

    class Op(NamedTuple):
        """What a change asks of the adapter. Edits of one place make one transaction, in the order of the plan."""

        place: Place
        edits: Tuple[Edit, ...]
else:
    Place = namedtuple("Place", "flavour family")
    Masquerading = namedtuple("Masquerading", "spared destinations sources random_fully", defaults=((), (), False))
    Found = namedtuple("Found", "rules postrouting references", defaults=((), ()))
    Edit = namedtuple("Edit", "verb chain rules position", defaults=((), 0))
    Op = namedtuple("Op", "place edits")

FLAVOURS = ("nft", "legacy")
FAMILIES = ("ipv4", "ipv6")
NFT_PLACE = Place("nftables", "inet")
NFT_TABLE = "kindnet"  # our table of nftables
POSTROUTING = "POSTROUTING"
LAST, FIRST, BEFORE = "last", "first", "before "  # where the jump stands in POSTROUTING; the third is followed by a chain or target

OWN_COMMENT = '--comment "kind-masq-agent: '  # how the comments of all our rules, and of kindnetd's, begin
RETURN_COMMENT = "kind-masq-agent: local traffic is not subject to MASQUERADE"
MASQUERADE_COMMENT = "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"
JUMP_COMMENT = "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom %s chain"
EVERYTHING = ("0.0.0.0/0", "::/0")

# A comment may hold a line break, which iptables prints as it is, inside the quotes: lines end only outside of them. Otherwise
# somebody's comment could pass for a rule.
_LINE = re.compile(r'(?:[^"\n]+|"(?:[^"\\]|\\.)*")+', re.DOTALL)
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

MOST_NAMED = 6  # faults and rules named in one message; the rest is counted


def command(place: Place) -> str:
    """The program of a place, which is also what an operator would type to look at it."""
    if place == NFT_PLACE:
        return "nft"
    return "%s-%s" % ("iptables" if place.family == "ipv4" else "ip6tables", place.flavour)


def return_rule(cidr: str) -> str:
    return _addressed("", cidr) + '-m comment --comment "%s" -j RETURN' % RETURN_COMMENT


def masquerade_rule(source: str = "", destination: str = "", random_fully: bool = False) -> str:
    end = " --random-fully" if random_fully else ""
    return _addressed(source, destination) + '-m comment --comment "%s" -j MASQUERADE%s' % (MASQUERADE_COMMENT, end)


def wanted_rules(masquerading: Masquerading) -> Tuple[str, ...]:
    """The rules of the chain: with no more than cluster CIDRs to spare, those of kindnetd to the letter."""
    return tuple(return_rule(cidr) for cidr in masquerading.spared) + tuple(
        masquerade_rule(source, destination, masquerading.random_fully)
        for source in masquerading.sources or ("",)
        for destination in masquerading.destinations or ("",)
    )


def _addressed(source: str, destination: str) -> str:
    # iptables prints no network that is everything.
    return "".join("%s %s " % (flag, cidr) for flag, cidr in (("-s", source), ("-d", destination)) if cidr and cidr not in EVERYTHING)


def wanted_jump(chain: str) -> str:
    return '-m addrtype ! --dst-type LOCAL -m comment --comment "%s" -j %s' % (JUMP_COMMENT % chain, chain)


def family_of(cidr: str) -> str:
    return "ipv6" if ":" in cidr else "ipv4"


def split_lines(text: str) -> List[str]:
    """The lines that ``iptables -S`` meant to print."""
    return _LINE.findall(text)


def tokens(rule: str) -> Tokens:
    """The words of a rule, without the quotes and escapes that iptables puts around what has more than letters."""
    return tuple(
        _ESCAPE.sub(r"\1", match.group(1)) if match.group(1) is not None else match.group(2) for match in _TOKEN.finditer(rule)
    )


def leads_to(rule: str, chain: str) -> bool:
    """Whether ``chain`` is where the rule jumps or goes to."""
    if chain not in rule:
        return False
    words = tokens(rule)
    # A comment "-j" is followed by another option, never by a chain's name, which cannot begin with a dash.
    return any(words[i] in ("-j", "-g") and words[i + 1] == chain for i in range(len(words) - 1))


def is_ours(chain: str, found: Found) -> bool:
    """Whether a chain is ours, or kindnetd's: it, or a jump to it, has a comment of ours, or it is empty and nobody uses it."""
    if not found.rules and not found.references and not any(leads_to(rule, chain) for rule in found.postrouting):
        return True
    return any(OWN_COMMENT in rule for rule in found.rules or ()) or any(
        OWN_COMMENT in rule and leads_to(rule, chain) for rule in found.postrouting
    )


def plan_chain(place: Place, chain: str, masquerading: Masquerading, found: Found, position: str = LAST) -> Plan:
    """What it takes for ``chain`` to say what is masqueraded, and to be entered by one jump, which stands where ``position`` says.

    ``last`` is where a missing jump is put; one that is there may stand anywhere. The other positions are enforced.
    """
    changes = []
    wanted = wanted_rules(masquerading)
    faults = ["chain missing"] if found.rules is None else chain_faults(wanted, found.rules, tokens, _name)
    if faults:
        changes.append(
            Change(
                chain_subject(place, chain),
                "add" if found.rules is None else "replace",
                "" if found.rules is None else listed(found.rules) or "empty",
                listed(wanted),
                named(faults),
                Op(place, (Edit("lay", chain, wanted),)),
            )
        )
    jump = _plan_jump(place, chain, found, position)
    if jump:
        changes.append(jump)
    return Plan(tuple(changes))


def plan_removal(place: Place, chain: str, found: Found, reason: str) -> Plan:
    """What it takes for ``chain`` and every jump to it from POSTROUTING to be gone.

    A chain that other rules lead to stays as it is, whole, and is a problem: those rules are not ours to delete.
    """
    if found.rules is None:
        return Plan()
    if found.references:
        return Plan(problems=(Problem(chain_subject(place, chain), "%s. %s" % still_used(place, found)),))
    changes = []
    jumps = [rule for rule in found.postrouting if leads_to(rule, chain)]
    if jumps:
        deletions = tuple(Edit("delete", POSTROUTING, (rule,)) for rule in jumps)
        changes.append(Change(jump_subject(place, chain), "remove", listed(jumps), "", reason, Op(place, deletions)))
    drop = Op(place, (Edit("drop", chain),))
    changes.append(Change(chain_subject(place, chain), "remove", listed(found.rules) or "empty", "", reason, drop))
    return Plan(tuple(changes))


def still_used(place: Place, found: Found) -> Tuple[str, str]:
    """The problem and the remedy of a chain that has to go while rules which are not ours lead to it."""
    return (
        "is still in use by rules that are not ours: %s" % named(["'%s'" % shown(rule) for rule in found.references]),
        "Delete those with '%s -t nat -D ...' first; until then the chain stays as it is." % command(place),
    )


def chain_subject(place: Place, chain: str) -> str:
    return "%s chain nat/%s" % (command(place), chain)


def jump_subject(place: Place, chain: str) -> str:
    return "%s jump nat/%s to %s" % (command(place), POSTROUTING, chain)


def chain_faults(wanted: Sequence[T], found: Sequence[T], key: Callable[[T], Hashable], name: Callable[[T], str]) -> List[str]:
    """What is wrong with a chain, fault by fault; empty exactly when it is the wanted one. Rules of any backend: ``key`` tells whether
    two are the same, ``name`` what a person calls one."""
    have = [key(rule) for rule in found]
    want = [key(rule) for rule in wanted]
    if have == want:
        return []
    if not have:
        return ["chain is empty"]
    last = want[-1]
    end = have.index(last) if last in have else len(have)
    faults = []
    for words, rule in zip(want, wanted):
        count = have.count(words)
        if not count:
            faults.append("%s missing" % name(rule))
        elif count > 1:
            faults.append("%s %s" % (name(rule), "doubled" if count == 2 else "there %d times" % count))
        if count and have.index(words) > end:
            faults.append("%s is dead behind MASQUERADE" % name(rule))
    known = set(want)
    for position, words in enumerate(have):
        if words not in known:
            what = "%s is not wanted" % name(found[position])
            faults.append(what + (", and dead behind MASQUERADE" if position > end else ""))
    return faults or ["rules out of order"]


def _plan_jump(place: Place, chain: str, found: Found, position: str) -> Optional[Change]:
    wanted = wanted_jump(chain)
    jumps = [(number, rule) for number, rule in enumerate(found.postrouting, 1) if leads_to(rule, chain)]
    others = [rule for rule in found.postrouting if not leads_to(rule, chain)]
    wrong = [rule for _unused, rule in jumps if tokens(rule) != tokens(wanted)]
    most = _most_ahead(others, position)
    late = len(jumps) == 1 and jumps[0][0] - 1 > most
    if len(jumps) == 1 and not wrong and not late:
        return None  # with "last" wherever it stands: rules that others appended behind it later are none of our business
    # By their text and not by their number: somebody else's rule may have moved them since they were read.
    edits = tuple(Edit("delete", POSTROUTING, (rule,)) for _unused, rule in jumps)
    ahead = min(jumps[0][0] - 1 if jumps else len(others), most)
    if ahead == len(others):
        edits += (Edit("append", POSTROUTING, (wanted,)),)
    else:
        edits += (Edit("insert", POSTROUTING, (wanted,), ahead + 1),)
    faults = ["rule '%s' is not the wanted jump" % shown(rule) for rule in wrong]
    if len(jumps) > 1:
        count = "jump doubled" if len(jumps) == 2 else "jump there %d times" % len(jumps)
        faults.insert(0, "%s, as rules %s" % (count, named([str(number) for number, _unused in jumps])))
    if late:
        faults.append("jump is rule %d, behind '%s'" % (jumps[0][0], shown(others[most])))
    return Change(
        jump_subject(place, chain),
        "replace" if jumps else "add",
        listed([rule for _unused, rule in jumps]),
        listed([wanted]),
        named(faults) if jumps else "jump missing",
        Op(place, edits),
    )


def planned_postrouting(chain: str, postrouting: Sequence[str], position: str) -> List[str]:
    """POSTROUTING as :func:`plan_chain` makes it."""
    others = [rule for rule in postrouting if not leads_to(rule, chain)]
    ahead = next((number for number, rule in enumerate(postrouting) if leads_to(rule, chain)), len(others))
    ahead = min(ahead, _most_ahead(others, position))
    return others[:ahead] + [wanted_jump(chain)] + others[ahead:]


def _most_ahead(others: Sequence[str], position: str) -> int:
    """How many rules of others may stand ahead of our jump."""
    if position == FIRST:
        return 0
    if position == LAST:
        return len(others)
    target = position[len(BEFORE):]
    return next((ahead for ahead, rule in enumerate(others) if leads_to(rule, target)), len(others))


def shown(rule: str) -> str:
    """A rule as a person reads it: without the comments that say whose it is, and on one line whatever it holds."""
    text = rule
    for comment in (RETURN_COMMENT, MASQUERADE_COMMENT):
        text = text.replace('-m comment --comment "%s" ' % comment, "")
    text = re.sub(r'-m comment --comment "%s" ' % re.escape(JUMP_COMMENT).replace("%s", r"\S+"), "", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def _name(rule: str) -> str:
    """What a person calls a rule of the chain."""
    words = tokens(rule)
    if words == tokens(masquerade_rule()):
        return "MASQUERADE"
    cidr = words[1] if words[:1] == ("-d",) and len(words) > 1 else ""
    if words == tokens(return_rule(cidr)):
        return "RETURN for %s" % (cidr or "everything")
    return "rule '%s'" % shown(rule)


def named(items: Sequence[str]) -> str:
    more = len(items) - MOST_NAMED
    return ", ".join(items[:MOST_NAMED]) + (" and %d more" % more if more > 0 else "")


def listed(rules: Sequence[str]) -> str:
    more = len(rules) - 4 * MOST_NAMED
    return "; ".join(shown(rule) for rule in rules[: 4 * MOST_NAMED]) + ("; and %d more rules" % more if more > 0 else "")
