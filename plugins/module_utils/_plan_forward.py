# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a filter table drops what it does not know, as Docker makes it: the rules by which pods' packets pass all the same. Pure.

They stand as late as they can and still work, so that what somebody else's rules say of a pod's packet stays said: in DOCKER-USER, the
chain that Docker leaves to others, if FORWARD leads there, else in FORWARD; ahead of the first rule there that decides about everything.
"""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from ._plan import Change, Plan
from ._plan_chain import Edit, Op, command, family_of, leads_to, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, NamedTuple, Optional, Sequence, Tuple

    from ._plan_chain import Place, Tokens

    class Forward(NamedTuple):
        """What a forwarded packet meets in one filter table."""

        policy: str  # of FORWARD
        rules: Tuple[str, ...]  # of FORWARD
        docker_user: Optional[Tuple[str, ...]] = None  # rules of DOCKER-USER; None unless FORWARD leads there
else:
    Forward = namedtuple("Forward", "policy rules docker_user", defaults=(None,))

FORWARD = "FORWARD"
DOCKER_USER = "DOCKER-USER"
COMMENT = "kindnet.host: packets from and to pods are forwarded"

# A rule without a match that ends in one of these decides about every packet that gets there.
DECISIONS = ("ACCEPT", "DROP", "REJECT", "RETURN")
FIREWALLD = "FORWARD_direct"  # a chain that firewalld's FORWARD leads to when it works through iptables


def wanted_rules(cidrs: Sequence[str]) -> Tuple[str, ...]:
    return tuple('-%s %s -m comment --comment "%s" -j ACCEPT' % (flag, cidr, COMMENT) for cidr in cidrs for flag in ("s", "d"))


def drops(found: Optional[Forward]) -> bool:
    """Whether a packet that no rule knows is dropped. Where firewalld lays the chain it is asked itself, and not by this."""
    if found is None or any(leads_to(rule, FIREWALLD) for rule in found.rules):
        return False
    at = _decisive(found.rules)
    decision = _decision(found.rules[at]) if at < len(found.rules) else ""
    return (found.policy if decision in ("", "RETURN") else decision) in ("DROP", "REJECT")


def accepted_by_others(found: Forward, cidrs: Sequence[str]) -> bool:
    """Whether rules that are not ours accept what comes from and goes to every one of ``cidrs``, ahead of what decides."""
    chains = [found.rules] if found.docker_user is None else [found.rules, found.docker_user]
    rules = [_bare(rule) for chain in chains for rule in chain[: _decisive(chain)] if not is_ours(rule)]

    def passes(cidr: str) -> bool:
        words = [(flag, cidr, "-j", "ACCEPT") for flag in ("-s", "-d")]
        return all(word in rules for word in words) or ("-s", cidr, "-d", cidr, "-j", "ACCEPT") in rules

    return bool(cidrs) and all(passes(cidr) for cidr in cidrs)


def is_right(found: Forward, cidrs: Sequence[str]) -> bool:
    """Whether our rules are there, each once, in their chain, ahead of what decides there."""
    chain, rules = _home(found)
    places = [position for position, rule in enumerate(rules) if is_ours(rule)]
    if [tokens(rules[position]) for position in places] != [tokens(rule) for rule in wanted_rules(cidrs)]:
        return False
    strays = chain != FORWARD and any(is_ours(rule) for rule in found.rules)
    return not strays and (not places or places[-1] < _decisive(rules))


def plan_forward(place: Place, cidrs: Sequence[str], found: Optional[Forward]) -> Plan:
    """What it takes for packets of ``cidrs`` to pass. Where nothing is dropped, nothing is done: not even Docker may be running yet."""
    cidrs = [cidr for cidr in cidrs if family_of(cidr) == place.family]
    if found is None or not drops(found) or is_right(found, cidrs):
        return Plan()
    chain, rules = _home(found)
    ours = _ours(found)
    edits = [Edit("delete", where, (rule,)) for where, rule in ours]
    rest = [rule for rule in rules if not is_ours(rule)]
    position = _decisive(rest) + 1
    for rule in wanted_rules(cidrs):
        # At the end it is appended, and not inserted by a number that somebody else's change may have made too high.
        edits.append(Edit("append", chain, (rule,)) if position > len(rest) else Edit("insert", chain, (rule,), position))
        position += 1
        rest.insert(0, rule)
    reason = "the policy of FORWARD is %s" % found.policy if found.policy != "ACCEPT" else "a rule of FORWARD drops the rest"
    before = "; ".join("%s %s" % (where, _shown(rule)) for where, rule in ours)
    after = "; ".join("%s %s" % (chain, _shown(rule)) for rule in wanted_rules(cidrs))
    change = Change(subject_of(place), "replace" if ours else "add", before, after, reason, Op(place, tuple(edits)))
    return Plan((change,))


def plan_forward_removal(place: Place, found: Optional[Forward], reason: str) -> Plan:
    """What it takes for no rule of ours to be left."""
    ours = [] if found is None else _ours(found)
    if not ours:
        return Plan()
    edits = tuple(Edit("delete", where, (rule,)) for where, rule in ours)
    before = "; ".join("%s %s" % (where, _shown(rule)) for where, rule in ours)
    return Plan((Change(subject_of(place), "remove", before, "", reason, Op(place, edits)),))


def subject_of(place: Place) -> str:
    return "%s rules filter/%s of pods" % (command(place), FORWARD)


def remedy(place: Place, cidrs: Sequence[str], found: Forward) -> str:
    """What an operator types to let the pods' packets pass."""
    chain = _home(found)[0]
    mine = [cidr for cidr in cidrs if family_of(cidr) == place.family]
    return "; ".join("%s -I %s -%s %s -j ACCEPT" % (command(place), chain, flag, cidr) for cidr in mine for flag in ("s", "d"))


def is_ours(rule: str) -> bool:
    if COMMENT not in rule:
        return False
    words = tokens(rule)
    return any(words[i : i + 2] == ("--comment", COMMENT) for i in range(len(words)))


def _ours(found: Forward) -> List[Tuple[str, str]]:
    chains = ((FORWARD, found.rules), (DOCKER_USER, found.docker_user or ()))
    return [(chain, rule) for chain, rules in chains for rule in rules if is_ours(rule)]


def _home(found: Forward) -> Tuple[str, Tuple[str, ...]]:
    """The chain our rules belong in, and its rules."""
    return (FORWARD, found.rules) if found.docker_user is None else (DOCKER_USER, found.docker_user)


def _decisive(rules: Sequence[str]) -> int:
    """The index of the first rule that decides about every packet; the number of rules if none does."""
    return next((i for i, rule in enumerate(rules) if _decision(rule)), len(rules))


def _decision(rule: str) -> str:
    words = _bare(rule)
    return words[1] if words[:1] == ("-j",) and len(words) > 1 and words[1] in DECISIONS else ""


def _bare(rule: str) -> Tokens:
    """The words of a rule without its comment."""
    words = list(tokens(rule))
    while "--comment" in words:
        at = words.index("--comment")
        start = at - 2 if words[max(at - 2, 0) : at] == ["-m", "comment"] else at
        del words[start : at + 2]
    return tuple(words)


def _shown(rule: str) -> str:
    return " ".join(_bare(rule))
