# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our table of nftables: what it is to hold, what is wrong with one, which parts are filled anew, and what nft says and is told of it."""

from __future__ import annotations

import copy
import ipaddress

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _nftables
from ansible_collections.kindnet.host.plugins.module_utils._plan_chain import Masquerading
from ansible_collections.kindnet.host.plugins.module_utils._plan_table import (
    Table,
    intervals,
    is_ours,
    plan_table,
    plan_table_removal,
    spell,
    wanted_table,
)
from hypothesis import given
from hypothesis import strategies as st

CHAIN = "KIND-MASQ-AGENT"
V4 = Masquerading(("10.244.0.0/16", "10.96.0.0/12"))
V6 = Masquerading(("fd00:10:244::/56",))
WANTED = wanted_table(CHAIN, {"ipv4": V4, "ipv6": V6}, "last")


def shown(cidrs, family=4):
    return [spell("x_ipv%d" % family, interval) for interval in intervals(cidrs)]


@pytest.mark.parametrize(
    ("cidrs", "elements"),
    [
        (["10.0.0.0/8"], ["10.0.0.0/8"]),
        (["10.244.0.0/16", "10.0.0.0/8"], ["10.0.0.0/8"]),
        (["10.0.0.0/8", "11.0.0.0/8"], ["10.0.0.0/7"]),
        (["11.0.0.0/8", "12.0.0.0/8"], ["11.0.0.0-12.255.255.255"]),
        (["0.0.0.0/1", "128.0.0.0/1"], ["0.0.0.0/0"]),
        (["0.0.0.0/0", "10.0.0.0/8"], ["0.0.0.0/0"]),
        (["240.0.0.0/4"], ["240.0.0.0/4"]),
        (["224.0.0.0/4", "240.0.0.0/4"], ["224.0.0.0/3"]),
        (["192.0.2.1/32", "192.0.2.3/32"], ["192.0.2.1", "192.0.2.3"]),
        ([], []),
    ],
)
def test_what_overlaps_or_touches_is_one_interval(cidrs, elements):
    assert shown(cidrs) == elements
    assert intervals(list(reversed(cidrs))) == intervals(cidrs)


def test_intervals_of_ipv6():
    assert shown(["::/0"], 6) == ["::/0"]
    assert shown(["fd00::/8", "fe00::/8", "::ffff:10.0.0.0/104"], 6) == ["::ffff:10.0.0.0/104", "fd00::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]


networks = st.builds(
    lambda bits, length: str(ipaddress.ip_network((bits >> (32 - length) << (32 - length), length))), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@given(st.lists(networks, max_size=8))
def test_intervals_hold_what_the_networks_hold(cidrs):
    wanted = [(int(n[0]), int(n[-1])) for n in ipaddress.collapse_addresses(map(ipaddress.ip_network, cidrs))]
    found = intervals(cidrs)
    assert all(b[0] > a[1] + 1 for a, b in zip(found, found[1:]))
    assert sum(last - first + 1 for first, last in found) == sum(last - first + 1 for first, last in wanted)
    assert all(any(first <= a and b <= last for first, last in found) for a, b in wanted)


@pytest.mark.parametrize(
    ("masquerading", "position", "sets", "masquerade"),
    [
        (Masquerading(("10.0.0.0/8",)), "last", {"non_masquerade_ipv4"}, ("meta nfproto ipv4", "counter", "masquerade")),
        (Masquerading(("10.0.0.0/8",), ("0.0.0.0/0",)), "last", {"non_masquerade_ipv4"}, ("meta nfproto ipv4", "counter", "masquerade")),
        (
            Masquerading(("10.0.0.0/8",), ("1.0.0.0/8",), ("10.244.0.0/16",), True),
            "first",
            {"non_masquerade_ipv4", "masquerade_ipv4", "source_ipv4"},
            ("ip saddr @source_ipv4", "ip daddr @masquerade_ipv4", "counter", "masquerade fully-random"),
        ),
    ],
)
def test_only_what_is_needed_is_wanted(masquerading, position, sets, masquerade):
    table = wanted_table(CHAIN, {"ipv4": masquerading}, position)
    assert set(table.sets) == sets and table.rules[-1][:-1] == masquerade and len(table.rules) == 2
    assert table.base == "nat postrouting %d accept" % {"first": 99, "last": 101}[position]


RETURN4, RETURN6, MASQUERADE4, MASQUERADE6 = WANTED.rules
FAULTS = [
    (WANTED._replace(rules=None), "chain missing", (CHAIN,), ()),
    (WANTED._replace(rules=()), "chain is empty", (CHAIN,), ()),
    (WANTED._replace(rules=WANTED.rules[1:]), "rule 'ip daddr @non_masquerade_ipv4 return' missing", (CHAIN,), ()),
    (WANTED._replace(rules=(RETURN6, RETURN4, MASQUERADE4, MASQUERADE6)), "rules out of order", (CHAIN,), ()),
    (WANTED._replace(rules=WANTED.rules + (("accept",),)), "rule 'accept' is not wanted, and dead behind MASQUERADE", (CHAIN,), ()),
    (WANTED._replace(rules=(RETURN4, RETURN4, RETURN6, MASQUERADE4, MASQUERADE6)), "rule 'ip daddr @non_masquerade_ipv4 return' doubled", (CHAIN,), ()),
    (WANTED._replace(entry=()), "jump missing", ("postrouting",), ()),
    (WANTED._replace(entry=(), base=""), "base chain postrouting missing", ("postrouting",), ()),
    (
        WANTED._replace(entry=WANTED.entry * 2),
        "rule 'fib daddr type != local jump KIND-MASQ-AGENT' doubled of postrouting",
        ("postrouting",),
        (),
    ),
    (
        WANTED._replace(sets=dict(WANTED.sets, non_masquerade_ipv4=intervals(["10.244.0.0/16", "192.0.2.0/24"]))),
        "10.96.0.0/12 missing in set non_masquerade_ipv4, 192.0.2.0/24 is not wanted in set non_masquerade_ipv4",
        ("non_masquerade_ipv4",),
        (),
    ),
    (WANTED._replace(sets={"non_masquerade_ipv4": WANTED.sets["non_masquerade_ipv4"]}), "set non_masquerade_ipv6 missing", ("non_masquerade_ipv6",), ()),
    (WANTED._replace(sets=dict(WANTED.sets, source_ipv4=())), "set source_ipv4 is not wanted", (), ("set source_ipv4",)),
    (WANTED._replace(base="nat postrouting 100 accept"), "base chain postrouting is 'nat postrouting 100 accept', not", ("postrouting",), ()),
    (WANTED._replace(strangers=("map m",)), "map m is not wanted", (), ("map m",)),
    (WANTED._replace(strangers=("chain OTHER", "set s")), "chain OTHER is not wanted, set s is not wanted", (), ("chain OTHER", "set s")),
    (WANTED._replace(strangers=("counter c", "quota q", "limit l")), "counter c is not wanted", (), ("counter c", "quota q", "limit l")),
    (WANTED._replace(strangers=("chain non_masquerade_ipv4",)), "chain non_masquerade_ipv4 is not", (), ("chain non_masquerade_ipv4",)),
    # What cannot go, or is in the way, costs the table.
    (WANTED._replace(strangers=("a flag such as dormant",)), "a flag such as dormant is not wanted", (), ()),
    (WANTED._replace(strangers=("flowtable f", "map m")), "flowtable f is not wanted, map m is not wanted", (), ()),
    (WANTED._replace(strangers=("chain postrouting",), base="", entry=()), "chain postrouting is not wanted", (), ()),
    (WANTED._replace(strangers=("set non_masquerade_ipv6",), sets={"non_masquerade_ipv4": WANTED.sets["non_masquerade_ipv4"]}), "set non_", (), ()),
]


@pytest.mark.parametrize(("found", "reason", "parts", "unwanted"), FAULTS)
def test_what_is_wrong_is_named_and_only_that_is_filled_anew(found, reason, parts, unwanted):
    (change,) = plan_table(WANTED, found).changes
    assert (change.subject, change.action) == ("nft table inet kindnet", "replace")
    assert change.reason.startswith(reason)
    assert change.op.table == WANTED and (change.op.parts, change.op.unwanted) == (parts, unwanted)
    told = list(_nftables.sets_ahead(change.op)) + list(_nftables.commands(change.op))
    assert ({"delete": {"table": {"name": "kindnet", "family": "inet"}}} in told) is not bool(parts or unwanted)
    flushed = {(kind, one["flush"][kind]["name"]) for one in told if "flush" in one for kind in one["flush"]}
    filled = parts or (() if unwanted else (*WANTED.sets, CHAIN, "postrouting"))
    in_use = set(change.op.sets).difference(change.op.ahead)
    assert flushed == {
        *(("set", name) for name in WANTED.sets if name in filled and name not in in_use),
        *(("chain", name) for name in (CHAIN, "postrouting") if name in filled),
        *(tuple(thing.split()) for thing in unwanted if thing.startswith("chain ")),
    }
    deleted = [kind + " " + one["delete"][kind]["name"] for one in told if "delete" in one for kind in one["delete"] if kind not in ("table", "element")]
    assert deleted == (["chain postrouting"] if change.op.rebased else []) + list(unwanted)


def test_no_rule_comes_together_with_a_new_set_that_it_asks():
    for found in (None, WANTED._replace(sets={"non_masquerade_ipv4": WANTED.sets["non_masquerade_ipv4"]})):
        (change,) = plan_table(WANTED, found).changes
        new = {name for name in WANTED.sets if found is None or name not in found.sets}
        made = [[one["add"]["set"]["name"] for one in told(change.op) if "set" in one.get("add", {})] for told in (_nftables.sets_ahead, _nftables.commands)]
        assert set(made[0]) == new and not new.intersection(made[1])
        assert not any("rule" in one.get("add", {}) for one in _nftables.sets_ahead(change.op))


def test_of_a_set_in_use_only_what_differs_is_touched():
    found = WANTED._replace(sets=dict(WANTED.sets, non_masquerade_ipv4=intervals(["10.244.0.0/16", "192.0.2.0/24"])))
    (change,) = plan_table(WANTED, found).changes
    told = [one for one in _nftables.commands(change.op) if not {"table", "chain"} & {kind for data in one.values() for kind in data}]

    def one(verb, addr, length):
        elem = [{"prefix": {"addr": addr, "len": length}}]
        return {verb: {"element": {"table": "kindnet", "name": "non_masquerade_ipv4", "elem": elem, "family": "inet"}}}

    assert told == [one("delete", "192.0.2.0", 24), one("add", "10.96.0.0", 12)] and change.op.ahead == ()


def test_elements_are_taken_out_as_they_are_there():
    """What stands beside a network of ours is merged with it where the two are compared, and not where one of them is to go."""
    beside = (*intervals(["10.244.0.0/16"]), *intervals(["10.245.0.0/16"]))
    found = WANTED._replace(sets=dict(WANTED.sets, non_masquerade_ipv4=intervals(["10.244.0.0/15"])), elements={"non_masquerade_ipv4": beside})
    (change,) = plan_table(WANTED._replace(sets=dict(WANTED.sets, non_masquerade_ipv4=intervals(["10.244.0.0/16"]))), found).changes
    told = [(verb, one[verb]["element"]["elem"]) for one in _nftables.commands(change.op) for verb in one if "element" in one[verb]]
    assert told == [("delete", [{"prefix": {"addr": "10.245.0.0", "len": 16}}])]


def test_a_set_that_our_chain_by_its_former_name_asks_is_in_use():
    found = WANTED._replace(rules=None, entry=(), strangers=("chain OLD",), sets=dict(WANTED.sets, non_masquerade_ipv4=intervals(["10.244.0.0/16"])))
    (change,) = plan_table(WANTED, found).changes
    assert change.op.ahead == () and "non_masquerade_ipv4" in change.op.sets


def test_a_wrong_set_that_no_rule_asks_comes_ahead():
    """As a run leaves it that was ended after the first of its transactions, and whose networks were then corrected."""
    wrong = dict(WANTED.sets, non_masquerade_ipv4=intervals(["10.99.0.0/16"]))
    (change,) = plan_table(WANTED, Table("", (), CHAIN, None, wrong)).changes
    assert change.op.ahead == ("non_masquerade_ipv4",)
    assert [one["flush"]["set"]["name"] for one in _nftables.sets_ahead(change.op) if "flush" in one] == ["non_masquerade_ipv4"]
    assert not any("element" in data or "set" in data for one in _nftables.commands(change.op) for data in one.values())


def test_sets_alone_are_of_a_run_that_was_ended_and_are_gone_on_with():
    found = Table("", (), CHAIN, None, dict(WANTED.sets))
    assert is_ours(found)
    (change,) = plan_table(WANTED, found).changes
    assert change.op.parts == (CHAIN, "postrouting") and (change.op.ahead, change.op.unwanted) == ((), ())
    assert not is_ours(Table("", (), CHAIN, None, {"somebody_ipv4": ()}))


def test_right_missing_and_unwanted():
    assert plan_table(WANTED, WANTED).changes == ()
    assert plan_table(WANTED, None).changes[0].action == "add"
    assert plan_table_removal(None, "x").changes == ()
    assert list(_nftables.commands(plan_table_removal(WANTED, "x").changes[0].op))[-1] == {"delete": {"table": {"name": "kindnet", "family": "inet"}}}


@pytest.mark.parametrize(
    ("found", "ours"),
    [
        (None, True),
        (WANTED, True),
        (Table("", (), CHAIN, None, {}), True),
        (Table("", (), CHAIN, None, {}, ("chain mine",)), False),
        (Table("filter postrouting 0 drop", (), CHAIN, None, {}), False),
        (WANTED._replace(entry=(), rules=()), True),  # after nft flush table inet kindnet
        (WANTED._replace(entry=(), rules=(("accept",),)), False),
        (Table("", (), CHAIN, (("accept", 'comment "about kind-masq-agent: x"'),), {}), False),
    ],
)
def test_whose_table_it_is(found, ours):
    assert is_ours(found) is ours


# As nft 1.0.6 prints it; what other versions print otherwise is in the cases.
PRINTED = [
    {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
    {"table": {"family": "inet", "name": "kindnet", "handle": 1}},
    {
        "set": {
            "family": "inet", "name": "non_masquerade_ipv4", "table": "kindnet", "type": "ipv4_addr", "handle": 1, "flags": ["interval"],
            "elem": [{"prefix": {"addr": "10.96.0.0", "len": 12}}, {"prefix": {"addr": "10.244.0.0", "len": 16}}],
        }
    },
    {"chain": {"family": "inet", "table": "kindnet", "name": CHAIN, "handle": 7}},
    {
        "chain": {
            "family": "inet", "table": "kindnet", "name": "postrouting", "handle": 12, "type": "nat", "hook": "postrouting", "prio": 101, "policy": "accept",
        }
    },
    {
        "rule": {
            "family": "inet", "table": "kindnet", "chain": CHAIN, "handle": 8, "comment": "kind-masq-agent: local traffic is not subject to MASQUERADE",
            "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "@non_masquerade_ipv4"}},
                {"counter": {"packets": 3, "bytes": 99}},
                {"return": None},
            ],
        }
    },
    {
        "rule": {
            "family": "inet", "table": "kindnet", "chain": CHAIN, "handle": 10,
            "comment": "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)",
            "expr": [
                {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv4"}},
                {"counter": {"packets": 0, "bytes": 0}},
                {"masquerade": {"flags": "fully-random"}},
            ],
        }
    },
    {
        "rule": {
            "family": "inet", "table": "kindnet", "chain": "postrouting", "handle": 13,
            "comment": "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain",
            "expr": [
                {"match": {"op": "!=", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}},
                {"counter": {"packets": 0, "bytes": 0}},
                {"jump": {"target": CHAIN}},
            ],
        }
    },
]  # fmt: skip
RANDOM = wanted_table(CHAIN, {"ipv4": V4._replace(random_fully=True)}, "last")


def edited(**paths):
    printed = copy.deepcopy(PRINTED)
    for place, value in paths.items():
        number, _unused, key = place.partition("_")
        next(iter(printed[int(number[1:])].values()))[key] = value
    return printed


@pytest.mark.parametrize(
    "printed",
    [
        PRINTED,
        edited(n2_flags="interval"),
        edited(n2_elem=[{"range": ["10.96.0.0", "10.111.255.255"]}, {"elem": {"val": {"prefix": {"addr": "10.244.0.0", "len": 16}}, "comment": "x"}}]),
        edited(n2_elem=[{"prefix": {"addr": a, "len": n}} for a, n in (("10.96.0.0", 12), ("10.244.0.0", 17), ("10.244.128.0", 17))]),
        edited(n6_expr=PRINTED[6]["rule"]["expr"][:2] + [{"masquerade": {"flags": ["fully-random"]}}]),
    ],
)
def test_what_nft_prints_of_the_wanted_table_is_it(printed):
    assert plan_table(RANDOM, _nftables.table_of(printed, CHAIN)).changes == ()


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (edited(n1_flags="dormant"), "a flag such as dormant is not wanted"),
        (edited(n2_timeout=60), "set non_masquerade_ipv4 is not wanted"),
        (edited(n2_flags=["interval", "timeout"]), "set non_masquerade_ipv4 is not wanted"),
        (edited(n2_type="inet_service"), "set non_masquerade_ipv4 is not wanted"),
        (edited(n4_policy="drop"), "base chain postrouting is 'nat postrouting 101 drop'"),
        (edited(n4_hook="output"), "base chain postrouting is 'nat output 101 accept'"),
        (edited(n3_hook="forward"), "chain KIND-MASQ-AGENT is not wanted"),
        (edited(n5_comment="mine"), "rule 'ip daddr @non_masquerade_ipv4 return' missing"),
        (edited(n7_expr=[{"jump": {"target": CHAIN}}]), "rule 'fib daddr type != local jump KIND-MASQ-AGENT' missing of postrouting"),
        (edited(n6_expr=[{"masquerade": {"port": 7}}]), "rule 'meta nfproto ipv4 masquerade fully-random' missing"),
    ],
)
def test_what_nft_prints_of_another_one_is_not(printed, reason):
    (change,) = plan_table(RANDOM, _nftables.table_of(printed, CHAIN)).changes
    assert change.reason.startswith(reason), change.reason


def test_a_statement_that_nft_has_no_json_for_is_a_rule_as_any_other():
    """It prints such a one as text; a rule that holds it is to be undone, not an answer that nobody understands."""
    assert _nftables.rule_of({"expr": ["xt target X", {"masquerade": None}]}) == ("xt target X", "masquerade")
