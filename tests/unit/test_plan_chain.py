# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of the masquerade chain: what it sees wrong, and that its edits lead to exactly the wanted rules."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._firewall import restore_script
from ansible_collections.kindnet.host.plugins.module_utils._plan_chain import (
    Found,
    Masquerading,
    Place,
    command,
    leads_to,
    plan_chain,
    plan_removal,
    shown,
    split_lines,
    tokens,
    wanted_jump,
    wanted_rules,
)
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Place("nft", "ipv4")
CHAIN = "KIND-MASQ-AGENT"
SPARED = Masquerading(("10.244.0.0/16", "10.96.0.0/12"))

# As iptables-save prints what kindnetd lays, less "-A CHAIN".
R1 = '-d 10.244.0.0/16 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
R2 = '-d 10.96.0.0/12 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
OLD = '-d 10.245.0.0/16 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
M = '-m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE'
JUMP = (
    '-m addrtype ! --dst-type LOCAL -m comment --comment "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL '
    'destination traffic to our custom KIND-MASQ-AGENT chain" -j KIND-MASQ-AGENT'
)
GOTO = JUMP.replace("-j KIND", "-g KIND")
BARE = "-j KIND-MASQ-AGENT"
FOREIGN = ['-o eth9 -j SNAT --to-source 192.0.2.1', '-m comment --comment "-j KIND-MASQ-AGENT" -j ACCEPT', "-j KIND-MASQ-AGENT2"]


def test_the_rules_are_kindnetds_to_the_letter():
    assert wanted_rules(SPARED) == (R1, R2, M)
    assert wanted_jump(CHAIN) == JUMP


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (None, "chain missing"),
        ([], "chain is empty"),
        ([R2, M], "RETURN for 10.244.0.0/16 missing"),
        ([R1, R2], "MASQUERADE missing"),
        ([R2, M, R1], "RETURN for 10.244.0.0/16 is dead behind MASQUERADE"),
        ([M, R1, R2], "RETURN for 10.244.0.0/16 is dead behind MASQUERADE, RETURN for 10.96.0.0/12 is dead behind MASQUERADE"),
        ([R1, R1, R2, M], "RETURN for 10.244.0.0/16 doubled"),
        ([R1, R2, M, R1], "RETURN for 10.244.0.0/16 doubled"),
        ([R1, R2, M, M, M], "MASQUERADE there 3 times"),
        ([R2, R1, M], "rules out of order"),
        ([R1, OLD, R2, M], "RETURN for 10.245.0.0/16 is not wanted"),
        ([R1, R2, M, "-s 10.0.0.1/32 -j ACCEPT"], "rule '-s 10.0.0.1/32 -j ACCEPT' is not wanted, and dead behind MASQUERADE"),
        (["-j ACCEPT", R1, R2, M], "rule '-j ACCEPT' is not wanted"),
        (["! " + R1, R2, M], "RETURN for 10.244.0.0/16 missing, rule '! -d 10.244.0.0/16 -j RETURN' is not wanted"),
        ([R1, R2, M.replace("outbound", "Outbound")], None),
        ([R1, R2, M + " --random"], None),
    ],
)
def test_a_wrong_chain_is_laid_anew_and_the_reason_names_the_fault(rules, reason):
    found = Found(None if rules is None else tuple(rules), () if rules is None else (JUMP,))
    plan = plan_chain(HERE, CHAIN, SPARED, found)
    change = plan.changes[0]
    assert change.subject == "iptables-nft chain nat/KIND-MASQ-AGENT"
    assert change.action == ("add" if rules is None else "replace")
    assert change.after == "-d 10.244.0.0/16 -j RETURN; -d 10.96.0.0/12 -j RETURN; -j MASQUERADE"
    assert bool(change.before) is (rules is not None)
    if reason:
        assert change.reason == reason
    assert restore_script(change.op.edits).splitlines() == [
        "*nat",
        ":KIND-MASQ-AGENT - [0:0]",
        "-A KIND-MASQ-AGENT " + R1,
        "-A KIND-MASQ-AGENT " + R2,
        "-A KIND-MASQ-AGENT " + M,
        "COMMIT",
    ]
    assert len(plan.changes) == (2 if rules is None else 1)  # the jump is right where there is a chain


@pytest.mark.parametrize(
    ("postrouting", "reason", "script"),
    [
        ([], "jump missing", ["-A POSTROUTING " + JUMP]),
        (FOREIGN, "jump missing", ["-A POSTROUTING " + JUMP]),
        ([JUMP], None, None),
        ([FOREIGN[0], JUMP, FOREIGN[1]], None, None),
        (
            [FOREIGN[0], JUMP, JUMP],
            "jump doubled, as rules 2, 3",
            ["-D POSTROUTING " + JUMP, "-D POSTROUTING " + JUMP, "-A POSTROUTING " + JUMP],
        ),
        (
            [FOREIGN[0], JUMP, FOREIGN[1], JUMP],
            "jump doubled, as rules 2, 4",
            ["-D POSTROUTING " + JUMP, "-D POSTROUTING " + JUMP, "-I POSTROUTING 2 " + JUMP],
        ),
        (
            [JUMP, FOREIGN[1], JUMP, JUMP],
            "jump there 3 times, as rules 1, 3, 4",
            ["-D POSTROUTING " + JUMP] * 3 + ["-I POSTROUTING 1 " + JUMP],
        ),
        (
            [BARE, FOREIGN[0]],
            "rule '-j KIND-MASQ-AGENT' is not the wanted jump",
            ["-D POSTROUTING " + BARE, "-I POSTROUTING 1 " + JUMP],
        ),
        (
            [FOREIGN[0], GOTO],
            "rule '-m addrtype ! --dst-type LOCAL -g KIND-MASQ-AGENT' is not the wanted jump",
            ["-D POSTROUTING " + GOTO, "-A POSTROUTING " + JUMP],
        ),
        (
            [JUMP, BARE],
            "jump doubled, as rules 1, 2, rule '-j KIND-MASQ-AGENT' is not the wanted jump",
            ["-D POSTROUTING " + JUMP, "-D POSTROUTING " + BARE, "-A POSTROUTING " + JUMP],
        ),
    ],
)
def test_the_jump_is_repaired_without_emptying_the_chain(postrouting, reason, script):
    plan = plan_chain(HERE, CHAIN, SPARED, Found((R1, R2, M), tuple(postrouting)))
    if reason is None:
        assert plan.changes == ()
        return
    (change,) = plan.changes
    assert change.subject == "iptables-nft jump nat/POSTROUTING to KIND-MASQ-AGENT"
    assert change.reason == reason
    assert restore_script(change.op.edits).splitlines() == ["*nat"] + script + ["COMMIT"]


def test_a_plan_for_nothing_wrong_is_empty():
    assert plan_chain(HERE, CHAIN, SPARED, Found((R1, R2, M), (JUMP,))) == plan_removal(HERE, CHAIN, Found(None), "")


def test_removal_takes_every_jump_then_the_chain():
    plan = plan_removal(Place("legacy", "ipv6"), CHAIN, Found((R1, M), (FOREIGN[0], JUMP, GOTO)), "state is absent")
    assert [(c.subject, c.action, c.after, c.reason) for c in plan.changes] == [
        ("ip6tables-legacy jump nat/POSTROUTING to KIND-MASQ-AGENT", "remove", "", "state is absent"),
        ("ip6tables-legacy chain nat/KIND-MASQ-AGENT", "remove", "", "state is absent"),
    ]
    edits = [edit for change in plan.changes for edit in change.op.edits]
    assert restore_script(edits).splitlines() == [
        "*nat",
        "-D POSTROUTING " + JUMP,
        "-D POSTROUTING " + GOTO,
        "-F KIND-MASQ-AGENT",
        "-X KIND-MASQ-AGENT",
        "COMMIT",
    ]


def test_a_chain_in_use_elsewhere_is_not_removed_and_who_uses_it_is_named():
    plan = plan_removal(HERE, CHAIN, Found((R1, M), (JUMP,), ("-A OUTPUT -j KIND-MASQ-AGENT",)), "state is absent")
    assert plan.changes == ()
    assert "'-A OUTPUT -j KIND-MASQ-AGENT'" in plan.problems[0].message


@pytest.mark.parametrize(
    ("rule", "leads"),
    [
        (JUMP, True),
        (GOTO, True),
        (BARE, True),
        ("-p tcp -j KIND-MASQ-AGENT", True),
        (FOREIGN[1], False),
        (FOREIGN[2], False),
        ("-m comment --comment KIND-MASQ-AGENT -j ACCEPT", False),
        ("-m comment --comment -j -m comment --comment KIND-MASQ-AGENT -j ACCEPT", False),
        ('-m comment --comment "a\\" -j KIND-MASQ-AGENT" -j ACCEPT', False),
        ("-j LOG --log-prefix KIND-MASQ-AGENT", False),
    ],
)
def test_a_jump_is_known_by_its_target_alone(rule, leads):
    assert leads_to(rule, CHAIN) is leads


def test_a_comment_with_a_line_break_is_one_line_and_cannot_pass_for_a_rule():
    evil = '-A POSTROUTING -m comment --comment "a\n-A POSTROUTING -j KIND-MASQ-AGENT\\"\nb" -j ACCEPT'
    text = "-P POSTROUTING ACCEPT\n%s\n-A POSTROUTING -o lo -j ACCEPT\n" % evil
    assert split_lines(text) == ["-P POSTROUTING ACCEPT", evil, "-A POSTROUTING -o lo -j ACCEPT"]
    assert tokens(evil)[5] == 'a\n-A POSTROUTING -j KIND-MASQ-AGENT"\nb'
    assert "\n" not in shown(evil)


def test_splitting_ends_on_output_that_breaks_off_within_quotes():
    assert split_lines('-A X -m comment --comment "' + "a\\b" * 20000)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Place("nft", "ipv4"), "iptables-nft"),
        (Place("nft", "ipv6"), "ip6tables-nft"),
        (Place("legacy", "ipv4"), "iptables-legacy"),
        (Place("legacy", "ipv6"), "ip6tables-legacy"),
    ],
)
def test_a_flavour_is_asked_for_by_its_own_name(place, name):
    assert command(place) == name


class Table:
    """A nat table as iptables-restore treats one."""

    def __init__(self, rules, postrouting):
        self.chains = {"POSTROUTING": list(postrouting)}
        if rules is not None:
            self.chains[CHAIN] = list(rules)

    def restore(self, script):
        for line in script.splitlines()[1:-1]:
            flag, _unused, rest = line.partition(" ")
            if flag.startswith(":"):
                self.chains[flag[1:]] = []
                continue
            chain, _unused, rule = rest.partition(" ")
            if flag == "-A":
                self.chains[chain].append(rule)
            elif flag == "-D":
                self.chains[chain].remove(rule)
            elif flag == "-I":
                number, _unused, rule = rule.partition(" ")
                assert 1 <= int(number) <= len(self.chains[chain]) + 1
                self.chains[chain].insert(int(number) - 1, rule)
            elif flag == "-F":
                self.chains[chain] = []
            else:
                assert flag == "-X"
                assert not self.chains[chain] and not any(leads_to(rule, chain) for rule in self.chains["POSTROUTING"])
                del self.chains[chain]

    def found(self):
        rules = self.chains.get(CHAIN)
        return Found(None if rules is None else tuple(rules), tuple(self.chains["POSTROUTING"]))


some_rules = st.lists(st.sampled_from([R1, R2, M, OLD, "-j ACCEPT"]), max_size=7)
some_postrouting = st.lists(st.sampled_from([JUMP, GOTO, BARE] + FOREIGN), max_size=9)


@settings(deadline=None, max_examples=500)
@given(rules=some_rules, postrouting=some_postrouting, cidrs=st.permutations(SPARED.spared))
def test_whatever_is_there_one_run_makes_it_exact(rules, postrouting, cidrs):
    table = Table(rules, postrouting)
    before = table.found()
    changes = plan_chain(HERE, CHAIN, Masquerading(tuple(cidrs)), before).changes
    table.restore(restore_script([edit for change in changes for edit in change.op.edits]))
    after = table.found()
    assert after.rules == wanted_rules(Masquerading(tuple(cidrs)))
    assert [rule for rule in after.postrouting if leads_to(rule, CHAIN)] == [JUMP]
    assert [rule for rule in after.postrouting if not leads_to(rule, CHAIN)] == [r for r in postrouting if not leads_to(r, CHAIN)]
    stood = [position for position, rule in enumerate(postrouting) if leads_to(rule, CHAIN)]
    assert after.postrouting.index(JUMP) == (stood[0] if stood else len(postrouting))
    assert plan_chain(HERE, CHAIN, Masquerading(tuple(cidrs)), after).changes == ()
    assert bool(changes) is (before != after)


@settings(deadline=None, max_examples=200)
@given(rules=some_rules, postrouting=some_postrouting)
def test_removal_leaves_what_others_have(rules, postrouting):
    table = Table(rules, postrouting)
    changes = plan_removal(HERE, CHAIN, table.found(), "state is absent").changes
    table.restore(restore_script([edit for change in changes for edit in change.op.edits]))
    assert table.chains == {"POSTROUTING": [rule for rule in postrouting if not leads_to(rule, CHAIN)]}
