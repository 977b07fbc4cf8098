# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of the sysctl concern, and what it takes for a setting."""

from __future__ import annotations

__metaclass__ = type

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _before, _sysctl
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError

FORWARD, RA, FORWARD6 = "net/ipv4/ip_forward", "net/ipv6/conf/eth0/accept_ra", "net/ipv6/conf/all/forwarding"
SECTION = {"sysctls": [[RA, "2"], [FORWARD6, "1"], [FORWARD, "1"]]}
TEXT = _sysctl.file_text(SECTION["sysctls"])
RIGHT = {RA: "2", FORWARD6: "1", FORWARD: "1"}
KNOWN = {k: {"before": "0", "ours": v} for k, v in RIGHT.items()}


def subjects(plan):
    return [(c.subject, c.action, c.before, c.after) for c in plan.changes if c.op[0] == "set"]


@pytest.mark.parametrize(
    "values, expected",
    [
        ({}, []),
        ({FORWARD: "0"}, [("sysctl net.ipv4.ip_forward", "replace", "0", "1")]),
        # in the given order: accept_ra comes before forwarding
        (
            {FORWARD6: "0", RA: "1"},
            [("sysctl net.ipv6.conf.eth0.accept_ra", "replace", "1", "2"), ("sysctl net.ipv6.conf.all.forwarding", "replace", "0", "1")],
        ),
        ({RA: None}, []),  # the interface is gone
    ],
)
def test_live_values_in_a_pass(values, expected):
    plan = _sysctl.plan(SECTION, _sysctl.Actual(dict(RIGHT, **values), TEXT, None))
    assert subjects(plan) == expected
    assert len(plan.changes) == len(expected) and not plan.problems


def test_unknown_setting_is_a_problem_and_stops_nothing():
    plan = _sysctl.plan(SECTION, _sysctl.Actual(dict(RIGHT, **{FORWARD6: None, FORWARD: "0"}), TEXT, None))
    assert [p.subject for p in plan.problems] == ["sysctl net.ipv6.conf.all.forwarding"]
    assert [s[0] for s in subjects(plan)] == ["sysctl net.ipv4.ip_forward"]


@pytest.mark.parametrize("file, action", [(None, "add"), ("net.ipv4.ip_forward = 0\n", "replace"), (TEXT[:-3], "replace")])
def test_the_file_is_repaired(file, action):
    (change,) = _sysctl.plan(SECTION, _sysctl.Actual(RIGHT, file, None)).changes
    assert (change.subject, change.action, change.op) == (_sysctl.FILE, action, ("write", TEXT))


def test_first_converge_remembers_before_it_changes():
    plan = _sysctl.plan(SECTION, _sysctl.Actual({RA: "1", FORWARD6: "0", FORWARD: "1"}, None, {}))
    assert [c.op[0] for c in plan.changes] == ["remember", "write", "set", "set"]
    assert {k: e["before"] for k, e in plan.changes[0].op.things.items()} == {RA: "1", FORWARD6: "0", FORWARD: "1"}


def test_a_pass_records_no_prior_values():
    assert not _sysctl.plan(SECTION, _sysctl.Actual(RIGHT, TEXT, None)).changes


def test_prior_values_are_never_overwritten():
    assert _before.merged({FORWARD: {"before": "0", "ours": "1"}}, {FORWARD: "1"}, {FORWARD: "2"}) == {FORWARD: {"before": "0", "ours": "2"}}


def test_absent_restores_what_is_ours_forwarding_first():
    before = {RA: {"before": "1", "ours": "2"}, FORWARD6: {"before": "0", "ours": "1"}, FORWARD: {"before": "1", "ours": "1"}}
    plan = _sysctl.plan({"state": "absent"}, _sysctl.Actual(RIGHT, TEXT, before))
    assert subjects(plan) == [
        ("sysctl net.ipv6.conf.all.forwarding", "replace", "1", "0"),
        ("sysctl net.ipv6.conf.eth0.accept_ra", "replace", "2", "1"),
    ]
    assert [c.op[0] for c in plan.changes] == ["set", "set", "remove", "forget"]


def test_absent_leaves_what_somebody_else_set():
    before = {RA: {"before": "1", "ours": "2"}}
    plan = _sysctl.plan({"state": "absent"}, _sysctl.Actual({RA: "0"}, None, before))
    assert not subjects(plan) and "eth0.accept_ra" in plan.notes[0]


def test_absent_twice_changes_nothing():
    assert _sysctl.plan({"state": "absent"}, _sysctl.Actual({}, None, {})).changes == ()


@pytest.mark.parametrize(
    "key, path",
    [
        ("net.ipv4.ip_forward", FORWARD),
        ("net/ipv4/ip_forward", FORWARD),
        ("net.ipv6.conf.eth0/7.accept_ra", "net/ipv6/conf/eth0.7/accept_ra"),
        ("net/ipv6/conf/eth0.7/accept_ra", "net/ipv6/conf/eth0.7/accept_ra"),
    ],
)
def test_notations_of_a_key(key, path):
    assert _sysctl.parse_key(key) == path
    assert _sysctl.parse_key(_sysctl.dotted(path)) == path


@pytest.mark.parametrize("key", ["kernel.panic", "net", "net.ipv4", "net/../kernel/panic", "net./.x", "net.ipv4.ip_forward\nkernel.panic", "", None, 5])
def test_a_key_that_is_no_network_setting(key):
    with pytest.raises(KindnetError, match="^sysctls: "):
        _sysctl.resolve({"state": "present", "sysctls": {key: 1}}, None)


@pytest.mark.parametrize("value", [True, None, "", "1\nkernel.panic = 1", [1]])
def test_a_value_that_is_none(value):
    with pytest.raises(KindnetError, match="is not a value"):
        _sysctl.resolve({"state": "present", "sysctls": {"net.ipv4.ip_forward": value}}, None)


def test_the_same_key_in_two_notations():
    with pytest.raises(KindnetError, match="given twice"):
        _sysctl.resolve({"state": "present", "sysctls": {"net.ipv4.ip_forward": 1, "net/ipv4/ip_forward": 0}}, None)


def test_no_setting_at_all():
    with pytest.raises(KindnetError, match="names no setting"):
        _sysctl.resolve({"state": "present", "sysctls": {}}, None)


REDIRECTS, LO, DEFAULT6 = "net/ipv4/conf/all/accept_redirects", "net/ipv4/conf/lo/forwarding", "net/ipv6/conf/default/forwarding"


def test_what_a_switch_sets_anew_is_remembered_where_it_would_not_come_back():
    section = {"sysctls": [[FORWARD, "1"], [FORWARD6, "1"]]}
    following = {REDIRECTS: "0", LO: "1", "net/ipv4/conf/eth0/forwarding": "0", DEFAULT6: "0"}
    plan = _sysctl.plan(section, _sysctl.Actual({FORWARD: "0", FORWARD6: "0"}, None, {}, None, following))
    entries = plan.changes[0].op.things
    assert entries == {
        FORWARD: {"before": "0", "ours": "1"},
        FORWARD6: {"before": "0", "ours": "1"},
        REDIRECTS: {"before": "0", "ours": "0"},
        LO: {"before": "1", "ours": "1"},
    }
    # Nothing is learned from a host that forwards by now, and nobody hears of what is not among the options.
    again = _sysctl.plan(section, _sysctl.Actual({FORWARD: "0", FORWARD6: "1"}, None, entries, None, {DEFAULT6: "0"}))
    assert again.notes == () and [c.op[0] for c in again.changes] == ["write", "set"]

    gone = _sysctl.plan({"state": "absent"}, _sysctl.Actual({FORWARD: "1", FORWARD6: "1", REDIRECTS: "0", LO: "1"}, None, entries))
    assert [s[0][7:] for s in subjects(gone)] == [_sysctl.dotted(k) for k in (FORWARD, FORWARD6, REDIRECTS, LO)]
    assert [s[2:] for s in subjects(gone)][2:] == [("1", "0"), ("0", "1")]


def test_what_somebody_wants_beside_a_switch_comes_after_it_and_accept_ra_before():
    wanted = {"net.ipv4.conf.all.accept_redirects": 1, "net.ipv4.ip_forward": 1, "net.ipv6.conf.eth0.accept_ra": 2}
    section = _sysctl.resolve({"state": "present", "sysctls": wanted}, None)
    assert section["sysctls"] == [[RA, "2"], [FORWARD, "1"], [REDIRECTS, "1"]]
    plan = _sysctl.plan(section, _sysctl.Actual({RA: "2", FORWARD: "0", REDIRECTS: "1"}, None, None))
    assert [s[0] for s in subjects(plan)] == ["sysctl net.ipv4.ip_forward", "sysctl net.ipv4.conf.all.accept_redirects"]
