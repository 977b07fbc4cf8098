# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules by which packets of pods pass a filter table that drops: a table of tables, and what iptables-restore would make of each plan."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._plan_chain import Place, tokens
from ansible_collections.kindnet.host.plugins.module_utils._plan_forward import (
    DOCKER_USER,
    FORWARD,
    Forward,
    accepted_by_others,
    drops,
    is_ours,
    is_right,
    plan_forward,
    plan_forward_removal,
    remedy,
)

V4, V6 = Place("nft", "ipv4"), Place("legacy", "ipv6")
CIDR, CIDR6 = "10.244.0.0/16", "fd00:10:244::/56"
# As iptables -S prints them, written by hand.
FROM = '-s 10.244.0.0/16 -m comment --comment "kindnet.host: packets from and to pods are forwarded" -j ACCEPT'
TO = FROM.replace("-s ", "-d ", 1)
OURS = (FROM, TO)
FOREIGN = "-s 192.0.2.0/24 -j DROP"
JUMP = "-j DOCKER-USER"
DOCKER = (JUMP, "-j DOCKER-ISOLATION-STAGE-1", "-o docker0 -j DOCKER", "-i docker0 ! -o docker0 -j ACCEPT")
REJECT = "-j REJECT --reject-with icmp-host-prohibited"
RETURN = "-j RETURN"


def restored(found, changes):
    """The table after iptables-restore has read the edits; an edit that it would refuse is an error."""
    chains = {FORWARD: list(found.rules)}
    if found.docker_user is not None:
        chains[DOCKER_USER] = list(found.docker_user)
    for change in changes:
        for edit in change.op.edits:
            rules = chains[edit.chain]
            (rule,) = edit.rules
            if edit.verb == "delete":
                at = [tokens(r) for r in rules].index(tokens(rule))
                del rules[at]
            elif edit.verb == "insert":
                assert 1 <= edit.position <= len(rules) + 1
                rules.insert(edit.position - 1, rule)
            else:
                assert edit.verb == "append"
                rules.append(rule)
    docker = chains.get(DOCKER_USER)
    return Forward(found.policy, tuple(chains[FORWARD]), None if docker is None else tuple(docker))


@pytest.mark.parametrize(
    "found, expected",
    [
        (None, False),
        (Forward("ACCEPT", ()), False),
        (Forward("DROP", ()), True),
        (Forward("DROP", ("-j ACCEPT",)), False),
        (Forward("DROP", ('-m comment --comment "all -j ok" -j ACCEPT',)), False),
        (Forward("DROP", ("-i eth7 -j ACCEPT",)), True),
        (Forward("DROP", (RETURN, "-j ACCEPT")), True),
        (Forward("ACCEPT", (RETURN, REJECT)), False),
        (Forward("ACCEPT", (FOREIGN,)), False),
        (Forward("ACCEPT", (FOREIGN, REJECT)), True),
        (Forward("ACCEPT", ("-j DROP",)), True),
        (Forward("DROP", DOCKER, (RETURN,)), True),
        (Forward("ACCEPT", ("-i lo -j ACCEPT", "-j FORWARD_direct", "-j FORWARD_ZONES", REJECT)), False),  # firewalld's own
    ],
)
def test_drops(found, expected):
    assert drops(found) is expected


@pytest.mark.parametrize(
    "found, expected",
    [
        (Forward("DROP", ("-s 10.244.0.0/16 -j ACCEPT", "-d 10.244.0.0/16 -j ACCEPT")), True),
        (Forward("DROP", ("-s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT",)), True),
        (Forward("DROP", ('-s 10.244.0.0/16 -m comment --comment "pods -j out" -j ACCEPT', "-d 10.244.0.0/16 -j ACCEPT")), True),
        (Forward("DROP", DOCKER, ("-s 10.244.0.0/16 -j ACCEPT", "-d 10.244.0.0/16 -j ACCEPT", RETURN)), True),
        (Forward("DROP", DOCKER, (RETURN, "-s 10.244.0.0/16 -j ACCEPT", "-d 10.244.0.0/16 -j ACCEPT")), False),
        (Forward("DROP", ("-s 10.244.0.0/16 -j ACCEPT",)), False),
        (Forward("DROP", ("-s 10.0.0.0/8 -p tcp -j ACCEPT", "-d 10.244.0.0/16 -j ACCEPT")), False),
        (Forward("DROP", ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",)), False),
        (Forward("DROP", ("-s 10.244.0.0/16 -j DROP", "-d 10.244.0.0/16 -j ACCEPT")), False),
        (Forward("DROP", OURS), False),  # ours are not others'
        (Forward("DROP", ()), False),
    ],
)
def test_accepted_by_others(found, expected):
    assert accepted_by_others(found, [CIDR]) is expected


def test_nothing_accepts_what_is_not_known():
    assert accepted_by_others(Forward("DROP", ()), []) is False


# found, then what it is to become
TABLES = {
    "Docker's": (Forward("DROP", DOCKER, (RETURN,)), Forward("DROP", DOCKER, OURS + (RETURN,))),
    "Docker's, without its RETURN": (Forward("DROP", DOCKER, ()), Forward("DROP", DOCKER, OURS)),
    "somebody's rules in DOCKER-USER": (Forward("DROP", DOCKER, (FOREIGN, RETURN)), Forward("DROP", DOCKER, (FOREIGN,) + OURS + (RETURN,))),
    "a policy alone": (Forward("DROP", ()), Forward("DROP", OURS)),
    "a policy behind somebody's rules": (Forward("DROP", (FOREIGN,)), Forward("DROP", (FOREIGN,) + OURS)),
    "a last rule": (Forward("ACCEPT", (FOREIGN, REJECT)), Forward("ACCEPT", (FOREIGN,) + OURS + (REJECT,))),
    "one deleted": (Forward("DROP", (TO,)), Forward("DROP", OURS)),
    "doubled": (Forward("DROP", OURS + OURS), Forward("DROP", OURS)),
    "out of order": (Forward("DROP", (TO, FROM)), Forward("DROP", OURS)),
    "dead": (Forward("ACCEPT", (REJECT,) + OURS), Forward("ACCEPT", OURS + (REJECT,))),
    "dead behind Docker's RETURN": (Forward("DROP", DOCKER, (RETURN,) + OURS), Forward("DROP", DOCKER, OURS + (RETURN,))),
    "of another range": (
        Forward("DROP", (FROM.replace("10.244", "10.99"), TO.replace("10.244", "10.99"))),
        Forward("DROP", OURS),
    ),
    "Docker came later": (Forward("DROP", DOCKER + OURS, (RETURN,)), Forward("DROP", DOCKER, OURS + (RETURN,))),
    "in both": (Forward("DROP", DOCKER + OURS, OURS + (RETURN,)), Forward("DROP", DOCKER, OURS + (RETURN,))),
}


@pytest.mark.parametrize("name", TABLES)
def test_plan(name):
    found, wanted = TABLES[name]
    plan = plan_forward(V4, [CIDR6, CIDR], found)
    (change,) = plan.changes
    assert change.action == ("replace" if any(map(is_ours, found.rules + (found.docker_user or ()))) else "add")
    after = restored(found, plan.changes)
    assert after == wanted
    assert is_right(after, [CIDR])
    assert plan_forward(V4, [CIDR6, CIDR], after).changes == ()


@pytest.mark.parametrize(
    "found",
    [
        None,
        Forward("ACCEPT", ()),
        Forward("ACCEPT", OURS),  # Docker is off just now; harmless, and right again when it comes back
        Forward("ACCEPT", DOCKER, (RETURN,)),
        Forward("DROP", OURS + (FOREIGN,)),
        Forward("DROP", (FOREIGN, FROM, "-i eth7 -j LOG", TO)),
        Forward("DROP", DOCKER, (FOREIGN,) + OURS + (RETURN, FOREIGN)),
    ],
)
def test_nothing_to_do(found):
    assert plan_forward(V4, [CIDR], found).changes == ()


def test_two_ranges_of_a_family_and_one_of_the_other():
    found = Forward("DROP", (FOREIGN, "-j DROP"))
    rules = restored(found, plan_forward(V6, [CIDR6, CIDR, "fd00:1::/64"], found).changes).rules
    assert [tokens(rule)[:2] for rule in rules] == [
        ("-s", "192.0.2.0/24"),
        ("-s", CIDR6),
        ("-d", CIDR6),
        ("-s", "fd00:1::/64"),
        ("-d", "fd00:1::/64"),
        ("-j", "DROP"),
    ]


@pytest.mark.parametrize("name", TABLES)
def test_removal(name):
    _unused, there = TABLES[name]
    after = restored(there, plan_forward_removal(V4, there, "gone").changes)
    assert not any(map(is_ours, after.rules + (after.docker_user or ())))
    assert [r for r in there.rules if not is_ours(r)] == list(after.rules)
    assert plan_forward_removal(V4, after, "gone").changes == ()


def test_only_a_comment_makes_a_rule_ours():
    assert is_ours(FROM)
    assert not is_ours('-s 10.244.0.0/16 -m comment --comment "not kindnet.host: packets from and to pods are forwarded" -j ACCEPT')
    assert not is_ours("-s 10.244.0.0/16 -j ACCEPT")


def test_remedy():
    assert remedy(V4, [CIDR], Forward("DROP", DOCKER, ())) == (
        "iptables-nft -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT; iptables-nft -I DOCKER-USER -d 10.244.0.0/16 -j ACCEPT"
    )
    assert remedy(V6, [CIDR, CIDR6], Forward("DROP", ())).startswith("ip6tables-legacy -I FORWARD -s fd00:10:244::/56 -j ACCEPT; ")
