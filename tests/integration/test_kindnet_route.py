# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_route as root in namespaces of its own. The oracle is ``ip``."""

from __future__ import annotations

__metaclass__ = type

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from route_host import RouteHost, node, quartet
from waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ME = node("me", "172.18.0.2 fd00:18::2", "10.244.0.0/24 fd00:10:244::/64")
ONE = node("one", "172.18.0.3 fd00:18::3", "10.244.1.0/24 fd00:10:244:1::/64")
TWO = node("two", "172.18.0.4 fd00:18::4", "10.244.2.0/24 fd00:10:244:2::/64")
NODES = [ME, ONE, TWO]
A4, A6 = "10.244.1.0/24", "fd00:10:244:1::/64"
OURS4 = "via 172.18.0.3 dev eth0 proto 107"
OURS6 = "via fd00:18::3 dev eth0 proto 107 metric 1024"


@pytest.fixture(scope="module")
def server():
    h = RouteHost()
    yield h
    h.close()


@pytest.fixture
def host(server):
    server.fresh()
    return server


# name: what is there before; to which destination; what `ip route` prints for it afterwards; which peer fails; action of that route
CASES = {
    "nothing": ("true", A4, [OURS4], None, "add"),
    "nothing, IPv6": ("true", A6, [OURS6], None, "add"),
    # IPv4: foreign routes at the same metric
    "foreign and right": (f"ip route add {A4} via 172.18.0.3 proto static", A4, ["via 172.18.0.3 dev eth0 proto static"], None, "foreign"),
    "foreign and right, from a bare add": (f"ip route add {A4} via 172.18.0.3", A4, ["via 172.18.0.3 dev eth0"], None, "foreign"),
    "foreign and right with a source hint": (
        f"ip route add {A4} via 172.18.0.3 src 172.18.0.2 proto bird", A4, ["via 172.18.0.3 dev eth0 proto bird src 172.18.0.2"], None, "foreign",
    ),
    "foreign by a nexthop object, right": (
        f"ip nexthop add id 7 via 172.18.0.3 dev eth0; ip route add {A4} nhid 7 proto static",
        A4, ["nhid 7 via 172.18.0.3 dev eth0 proto static"], None, "foreign",
    ),
    "foreign and wrong": (f"ip route add {A4} via 172.18.0.9 proto static", A4, ["via 172.18.0.9 dev eth0 proto static"], "one", "conflict"),
    "foreign blackhole": (f"ip route add blackhole {A4} proto static", A4, ["blackhole proto static"], "one", "conflict"),
    "foreign to a link": (f"ip route add {A4} dev eth1 proto static", A4, ["dev eth1 proto static scope link"], "one", "conflict"),
    "foreign multipath with the right one": (
        f"ip route add {A4} proto static nexthop via 172.18.0.3 nexthop via 172.18.0.9",
        A4, ["proto static nexthop via 172.18.0.3 dev eth0 weight 1 nexthop via 172.18.0.9 dev eth0 weight 1"], "one", "conflict",
    ),
    # IPv4: foreign routes elsewhere
    "foreign at a higher metric, right": (
        f"ip route add {A4} via 172.18.0.3 proto static metric 50", A4, ["via 172.18.0.3 dev eth0 proto static metric 50"], None, "foreign",
    ),
    "foreign at a higher metric, wrong": (
        f"ip route add {A4} via 172.18.0.9 proto static metric 50", A4, [OURS4, "via 172.18.0.9 dev eth0 proto static metric 50"], None, "add",
    ),
    "foreign for a tos": (
        f"ip route add {A4} via 172.18.0.9 tos 0x10 proto static", A4, ["tos 0x10 via 172.18.0.9 dev eth0 proto static", OURS4], None, "add",
    ),
    "foreign in another table": (f"ip route add {A4} via 172.18.0.9 proto static table 100", A4, [OURS4], None, "add"),
    "of our protocol in another table": (f"ip route add {A4} via 172.18.0.9 proto 107 table 100", A4, [OURS4], None, "add"),
    "foreign to a part of it": ("ip route add 10.244.1.128/25 via 172.18.0.9", A4, [OURS4], None, "add"),
    # IPv4: ours, not as wanted
    "ours by another next hop": (f"ip route add {A4} via 172.18.0.9 proto 107", A4, [OURS4], None, "replace"),
    "ours with a metric": (f"ip route add {A4} via 172.18.0.3 proto 107 metric 50", A4, [OURS4], None, "add"),
    "ours with another metric and next hop": (f"ip route add {A4} via 172.18.0.9 proto 107 metric 50", A4, [OURS4], None, "add"),
    "ours with a source hint": (f"ip route add {A4} via 172.18.0.3 proto 107 src 172.18.0.2", A4, [OURS4], None, "replace"),
    "ours with an mtu": (f"ip route add {A4} via 172.18.0.3 proto 107 mtu 1300", A4, [OURS4], None, "replace"),
    "ours to a link": (f"ip route add {A4} dev eth0 proto 107", A4, [OURS4], None, "replace"),
    "ours as a blackhole": (f"ip route add blackhole {A4} proto 107", A4, [OURS4], None, "replace"),
    "ours by a nexthop object": (
        f"ip nexthop add id 7 via 172.18.0.3 dev eth0; ip route add {A4} nhid 7 proto 107", A4, [OURS4], None, "replace",
    ),
    "ours for a tos": (f"ip route add {A4} via 172.18.0.3 tos 0x10 proto 107", A4, [OURS4], None, "add"),
    "ours as a multipath": (f"ip route add {A4} proto 107 nexthop via 172.18.0.3 nexthop via 172.18.0.9", A4, [OURS4], None, "replace"),
    "ours twice, the wrong one first": (
        f"ip route add {A4} via 172.18.0.9 proto 107; ip route append {A4} via 172.18.0.8 proto 107", A4, [OURS4], None, "replace",
    ),
    "ours twice, a multipath behind": (
        f"ip route add {A4} via 172.18.0.3 proto 107; ip route append {A4} proto 107 nexthop via 172.18.0.3 nexthop via 172.18.0.9",
        A4, [OURS4], None, "replace",
    ),
    "ours twice, the right one first": (
        f"ip route add {A4} via 172.18.0.3 proto 107; ip route append {A4} via 172.18.0.9 proto 107", A4, [OURS4], None, "remove",
    ),
    "ours twice, the same but for the mtu": (
        f"ip route add {A4} via 172.18.0.3 proto 107; ip route append {A4} via 172.18.0.3 proto 107 mtu 1300", A4, [OURS4], None, "replace",
    ),
    "ours three times": (
        f"ip route add {A4} via 172.18.0.3 proto 107; ip route append {A4} dev eth0 proto 107; ip route append {A4} via 172.18.0.9 proto 107",
        A4, [OURS4], None, "remove",
    ),
    "ours twice, to a link and right, IPv6": (
        f"ip route add {A6} via fd00:18::3 proto 107; ip route append {A6} dev eth0 proto 107", A6, [OURS6], None, "replace",
    ),
    "ours twice, one of them right": (
        f"ip route add {A4} via 172.18.0.9 proto 107; ip route append {A4} via 172.18.0.3 proto 107", A4, [OURS4], None, "remove",
    ),
    # IPv4: ours and foreign ones
    "ours is right, a foreign one behind": (
        f"ip route add {A4} via 172.18.0.3 proto 107; ip route append {A4} via 172.18.0.9 proto static",
        A4, [OURS4, "via 172.18.0.9 dev eth0 proto static"], None, None,
    ),
    "ours is right, a foreign one ahead": (
        f"ip route add {A4} via 172.18.0.3 proto 107; ip route prepend {A4} via 172.18.0.9 proto static",
        A4, ["via 172.18.0.9 dev eth0 proto static", OURS4], "one", "conflict",
    ),
    "ours is wrong, a foreign one behind, wrong": (
        f"ip route add {A4} via 172.18.0.8 proto 107; ip route append {A4} via 172.18.0.9 proto static",
        A4, ["via 172.18.0.9 dev eth0 proto static"], "one", "conflict",
    ),
    "ours is wrong, a foreign one behind, right": (
        f"ip route add {A4} via 172.18.0.8 proto 107; ip route append {A4} via 172.18.0.3 proto static",
        A4, ["via 172.18.0.3 dev eth0 proto static"], None, "foreign",
    ),
    "ours is wrong, a foreign one at a higher metric": (
        f"ip route add {A4} via 172.18.0.8 proto 107; ip route add {A4} via 172.18.0.9 proto static metric 9",
        A4, [OURS4, "via 172.18.0.9 dev eth0 proto static metric 9"], None, "replace",
    ),
    # IPv6
    "foreign and right, IPv6": (f"ip route add {A6} via fd00:18::3 proto static", A6, ["via fd00:18::3 dev eth0 proto static metric 1024"], None, "foreign"),
    "foreign and wrong, IPv6": (f"ip route add {A6} via fd00:18::9 proto static", A6, ["via fd00:18::9 dev eth0 proto static metric 1024"], "one", "conflict"),
    "foreign ahead and wrong, IPv6": (
        f"ip route add {A6} via fd00:18::9 metric 512", A6, ["via fd00:18::9 dev eth0 metric 512"], "one", "conflict",
    ),
    "foreign ahead and right, IPv6": (f"ip route add {A6} via fd00:18::3 metric 512", A6, ["via fd00:18::3 dev eth0 metric 512"], None, "foreign"),
    "foreign behind and right, IPv6": (f"ip route add {A6} via fd00:18::3 metric 2048", A6, ["via fd00:18::3 dev eth0 metric 2048"], None, "foreign"),
    "foreign behind and wrong, IPv6": (
        f"ip route add {A6} via fd00:18::9 metric 2048", A6, [OURS6, "via fd00:18::9 dev eth0 metric 2048"], None, "add",
    ),
    "foreign blackhole, IPv6": (f"ip route add blackhole {A6}", A6, ["blackhole dev lo metric 1024"], "one", "conflict"),
    "foreign to a link, IPv6": (f"ip route add {A6} dev eth1", A6, ["dev eth1 metric 1024"], "one", "conflict"),
    "foreign multipath, IPv6": (
        f"ip route add {A6} proto static nexthop via fd00:18::3 nexthop via fd00:18::9",
        A6, ["proto static metric 1024 nexthop via fd00:18::3 dev eth0 weight 1 nexthop via fd00:18::9 dev eth0 weight 1"], "one", "conflict",
    ),
    "foreign multipath behind, IPv6": (
        f"ip route add {A6} metric 2000 proto static nexthop via fd00:18::8 nexthop via fd00:18::9",
        A6, [OURS6, "proto static metric 2000 nexthop via fd00:18::8 dev eth0 weight 1 nexthop via fd00:18::9 dev eth0 weight 1"], None, "add",
    ),
    "a next hop appended to ours, IPv6": (
        f"ip route add {A6} via fd00:18::3 proto 107; ip route append {A6} via fd00:18::9 proto static",
        A6, ["proto 107 metric 1024 nexthop via fd00:18::3 dev eth0 weight 1 nexthop via fd00:18::9 dev eth0 weight 1"], "one", "conflict",
    ),
    "a next hop appended to ours, which is wrong, IPv6": (
        f"ip route add {A6} via fd00:18::8 proto 107; ip route append {A6} via fd00:18::9 proto static",
        A6, ["proto 107 metric 1024 nexthop via fd00:18::8 dev eth0 weight 1 nexthop via fd00:18::9 dev eth0 weight 1"], "one", "conflict",
    ),
    "ours is right, a foreign one ahead, IPv6": (
        f"ip route add {A6} via fd00:18::3 proto 107; ip route add {A6} via fd00:18::9 proto static metric 9",
        A6, ["via fd00:18::9 dev eth0 proto static metric 9", OURS6], "one", "conflict",
    ),
    "ours by another next hop, IPv6": (f"ip route add {A6} via fd00:18::9 proto 107", A6, [OURS6], None, "replace"),
    "ours with a metric, IPv6": (f"ip route add {A6} via fd00:18::3 proto 107 metric 512", A6, [OURS6], None, "add"),
    "ours with an mtu, IPv6": (f"ip route add {A6} via fd00:18::3 proto 107 mtu 1300", A6, [OURS6], None, "replace"),
    "ours to a link, IPv6": (f"ip route add {A6} dev eth0 proto 107", A6, [OURS6], None, "replace"),
    "ours as a blackhole, IPv6": (f"ip route add blackhole {A6} proto 107", A6, [OURS6], None, "replace"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_state(host, case):
    before, dst, after, failing, action = CASES[case]
    host.sh(before)
    foreign = host.foreign()
    elsewhere = host.sh("ip route show table 100 2>/dev/null || true")
    real = quartet(host, nodes=NODES, node_name="me", expect_failure=failing is not None)
    assert host.lines(dst) == after
    assert host.foreign() == foreign
    assert host.sh("ip route show table 100 2>/dev/null || true") == elsewhere
    # Whatever becomes of this one, all the others are routed.
    others = {("10.244.1.0/24", OURS4), (A6, OURS6), ("10.244.2.0/24", OURS4.replace("0.3", "0.4")), ("fd00:10:244:2::/64", OURS6.replace("::3", "::4"))}
    for other, line in others:
        if other != dst:
            assert host.lines(other) == [line]
    assert host.lines("10.244.0.0/24") == [] == host.lines("fd00:10:244::/64")
    told = {(r["dst"], r["action"]) for r in real["routes"]}
    assert (dst, action) in told if action else dst not in {d for d, _a in told}
    if failing:
        (problem,) = real["problems"]
        assert problem["subject"] == "route %s" % dst and "peer %s:" % failing in problem["message"]
        assert real["msg"].startswith("me: route %s: peer %s: " % (dst, failing))
        if action == "conflict":
            # The remedy is what it says it is. Somebody who means it can paste it.
            host.sh(problem["message"].split("'")[1])
            assert "failed" not in host.module(nodes=NODES, node_name="me")
            assert any(line in (OURS4, OURS6) for line in host.lines(dst))
    if action == "foreign":
        assert real["unchanged"] == 0 and {r["node"] for r in real["routes"] if r["action"] == "foreign"} == {"one"}


def test_absent_takes_out_what_is_ours_and_nothing_else(host):
    host.sh("""
        ip route add 10.244.9.0/24 via 172.18.0.9; ip route add 10.244.8.0/24 via 172.18.0.9 proto 107 table 100
        ip route add fd00:9::/64 via fd00:18::9 metric 77; ip route add 10.244.1.0/24 via 172.18.0.7 metric 9""")
    before = host.routes()
    quartet(host, nodes=NODES, node_name="me")
    assert host.routes() != before and "10.244.1.0/24" in host.desired()
    # Also what somebody else gave our number to.
    host.sh("""ip route add blackhole 10.9.9.0/24 proto 107; ip route add 10.244.1.0/24 via 172.18.0.9 proto 107 metric 7
        ip route add fd00:77::/64 dev eth1 proto 107""")
    gone = quartet(host, state="absent")
    assert {r["action"] for r in gone["routes"]} == {"remove"} and len(gone["routes"]) == 7
    assert host.routes() == before and host.desired() == ""


def test_a_route_of_ours_that_cannot_be_deleted_alone(host):
    host.sh(f"""
        ip -6 route add {A6} metric 5 proto static nexthop via fd00:18::8 nexthop via fd00:18::9
        ip -6 route append {A6} dev eth0 metric 5 proto 107
        ip -6 route add fd00:9::/64 via fd00:18::8 proto 107; ip -6 route append fd00:9::/64 via fd00:18::9
        ip -6 route append fd00:9::/64 dev eth0 proto 107""")
    before = host.lines(A6), host.lines("fd00:9::/64")
    real = quartet(host, nodes=NODES, node_name="me", expect_failure=True, force_removals=True)
    assert (host.lines(A6), host.lines("fd00:9::/64")) == before and len(real["problems"]) == 4
    real = quartet(host, state="absent", expect_failure=True)
    assert (host.lines(A6), host.lines("fd00:9::/64")) == before
    # As the kernel has it: this is what must not happen.
    host.sh("ip -6 route del fd00:9::/64 dev eth0 metric 1024 proto 107")
    assert host.lines("fd00:9::/64") == ["dev eth0 proto 107 metric 1024"]


def test_a_changed_next_hop_is_one_replace(host):
    host.module(nodes=NODES, node_name="me")
    with monitor(host) as events:
        moved = [ME, dict(ONE, node_ips=["172.18.0.33", "fd00:18::33"]), TWO]
        result = quartet(host, nodes=moved, node_name="me")
    assert [r["action"] for r in result["routes"]] == ["replace", "replace"] and result["unchanged"] == 2
    assert not [e for e in events if e.startswith("Deleted")], events
    assert sorted(events) == [
        "10.244.1.0/24 via 172.18.0.33 dev eth0 proto 107",
        "fd00:10:244:1::/64 via fd00:18::33 dev eth0 proto 107 metric 1024 pref medium",
    ]


def test_a_changed_pod_cidr_is_routed_before_the_old_route_goes(host):
    host.module(nodes=[ME, ONE], node_name="me")
    with monitor(host) as events:
        quartet(host, nodes=[ME, dict(ONE, pod_cidrs=["10.244.5.0/24", "fd00:10:244:5::/64"])], node_name="me")
    assert [("Deleted" in e, "244:5::" in e or "244.5." in e) for e in events] == [(False, True)] * 2 + [(True, False)] * 2, events


def test_a_clean_run_and_a_clean_pass_do_nothing(host):
    host.module(nodes=NODES, node_name="me")
    written = host.sh("stat -c '%i %Y %Z' /etc/kindnet/desired.json")
    with monitor(host) as events:
        for _each in range(3):
            assert host.module(nodes=NODES, node_name="me", read_only=True)["changed"] is False
            assert host.a_pass() == {"changes": [], "problems": [], "notes": []}
    assert events == []
    assert host.sh("stat -c '%i %Y %Z' /etc/kindnet/desired.json") == written


def test_a_pass_repairs(host):
    host.module(nodes=NODES, node_name="me")
    wanted = host.routes()
    host.sh("""ip route del 10.244.1.0/24; ip route change 10.244.2.0/24 via 172.18.0.9 proto 107; ip -6 route del fd00:10:244:1::/64
        ip route add 10.244.7.0/24 via 172.18.0.9 proto 107""")
    seen = host.a_pass(read_only=True)
    assert host.a_pass()["changes"] == seen["changes"] and len(seen["changes"]) == 4
    assert sorted(map(str, host.routes())) == sorted(map(str, wanted))
    assert host.a_pass(read_only=True)["changes"] == []


def test_a_peer_that_is_not_on_link_costs_that_peer(host):
    host.sh("""ip route add default via 172.18.0.1; ip route add 172.18.0.60/32 via 172.18.0.1; ip route add blackhole fd00:18::70
        ip -6 route add fd00:18::80 via fd00:18::1; ip route add 10.244.9.0/24 via 172.18.0.9 proto 107; sysctl -qw net.ipv6.conf.all.forwarding=1""")
    bad = {
        "far": ("10.20.0.9", "10.244.20.0/24", "fail"),
        "broadcast": ("172.18.255.255", "10.244.21.0/24", "fail"),
        "myself": ("172.30.0.2", "10.244.22.0/24", "fail"),
        "far6": ("fd00:99::9", "fd00:10:244:20::/64", "fail"),
        "blackhole6": ("fd00:18::70", "fd00:10:244:22::/64", "fail"),
        "gateway6": ("fd00:18::80", "fd00:10:244:23::/64", "fail"),
        "any6": ("fd00:18::", "fd00:10:244:24::/64", "add"),
        "hostroute": ("172.18.0.60", "10.244.23.0/24", "add"),
    }
    nodes = [ME, *[node(n, ip, cidr) for n, (ip, cidr, _action) in bad.items()], ONE, TWO]
    real = quartet(host, nodes=nodes, node_name="me", expect_failure=True, force_removals=True)
    told = {r["node"]: r["action"] for r in real["routes"] if r["node"] in bad}
    assert told == {n: action for n, (_ip, _cidr, action) in bad.items()}
    for name, (ip, cidr, action) in bad.items():
        assert bool(host.lines(cidr)) == (action == "add"), name
        assert action == "add" or ("peer %s: its next hop %s is" % (name, ip)) in real["msg"]
        if action == "fail" and name != "myself":
            # The kernel thinks so too.
            with pytest.raises(AssertionError, match="Error|No route|unreachable|Invalid"):
                host.sh("ip route add %s via %s" % (cidr, ip))
    assert host.lines(A4) == [OURS4] and host.lines(A6) == [OURS6] and host.lines("10.244.9.0/24") == []


def test_an_off_link_peer_keeps_the_route_it_has(host):
    host.module(nodes=NODES, node_name="me")
    host.sh("ip route del 10.244.2.0/24; ip route del 172.18.0.0/16 dev eth0")
    before = host.lines(A4)
    result = host.module(nodes=NODES, node_name="me")
    assert [(r["node"], r["action"]) for r in result["routes"]] == [("two", "fail")] and host.lines(A4) == before


def test_a_link_that_is_down(host):
    host.module(nodes=NODES, node_name="me")
    host.sh("ip link set far0 down")
    until("its routes are marked", lambda: host.sh("ip route show proto 107; ip -6 route show proto 107").count(" linkdown") == 4)
    result = host.module(nodes=NODES, node_name="me")
    assert result["changed"] is False and result["notes"] == ["4 of the routes lead out of eth0, which has no link"], result
    host.sh("ip link set eth0 down")
    result = quartet(host, nodes=NODES, node_name="me", expect_failure=True, expect_change=False)
    assert {r["action"] for r in result["routes"]} == {"fail"} and len(result["routes"]) == 4
    host.sh("ip link set eth0 up; ip link set far0 up; ip -6 addr replace fd00:18::2/64 dev eth0 nodad")
    assert "failed" not in host.module(nodes=NODES, node_name="me") and host.lines(A4) == [OURS4]


def test_policy_rules_are_the_kernels_to_judge(host):
    # The table with the link's route is not asked for packets any more: no plan knows, the kernel's refusal costs those peers.
    host.sh("ip route add blackhole 10.0.0.0/8; ip rule add prio 5 to 172.18.0.4 unreachable; ip route add table 100 172.18.0.3 dev eth0")
    result = host.module(nodes=[ME, ONE, TWO], node_name="me", table="300")
    assert {(r["node"], r["action"]) for r in result["routes"] if "." in r["dst"]} == {("one", "add"), ("two", "fail")}, result
    assert "EHOSTUNREACH" in result["msg"] or "ENETUNREACH" in result["msg"] or "EINVAL" in result["msg"]
    assert host.lines(A4, "table 300") == [OURS4]


@pytest.mark.parametrize("table", ["100", "5000"])
def test_another_table(host, table):
    host.sh("ip route add %s via 172.18.0.9; ip route add table %s 10.1.0.0/16 via 172.18.0.1" % (A4, table))
    foreign = host.foreign()
    quartet(host, nodes=NODES, node_name="me", table=table)
    assert host.lines(A4, "table " + table) == [OURS4] and host.lines(A6, "table " + table) == [OURS6]
    assert host.foreign() == foreign
    recorded, routes = host.desired(), host.routes()
    refused = host.module(nodes=NODES, node_name="me")
    assert refused["failed"] and "recorded in table %s" % table in refused["msg"]
    assert host.desired() == recorded and host.routes() == routes
    quartet(host, state="absent")
    assert host.routes() == foreign


def test_dual_stack_among_single_stack(host):
    four, six = node("four", "172.18.0.7", "10.244.7.0/24"), node("six", "fd00:18::8", "fd00:10:244:8::/64")
    both = node("both", "fd00:18::6 172.18.0.6 172.18.0.66", "10.244.6.0/24 fd00:10:244:6::/64")
    quartet(host, nodes=[four, six, both], node_name="both")
    assert [len(host.lines(c)) for c in ("10.244.7.0/24", "fd00:10:244:8::/64", "10.244.6.0/24", "fd00:10:244:6::/64")] == [1, 1, 0, 0]
    host.module(state="absent")
    host.module(nodes=[four, six, both, ME], node_name="me")
    assert host.lines("10.244.6.0/24") == ["via 172.18.0.6 dev eth0 proto 107"]  # the first of its family, each time


REFUSED = {
    "two lost of two": ([ME], {}, ["one", "two"]),
    "the last one": ([ME], {"max_removals": 5}, ["one", "two"]),
    "more than allowed": ([ME, ONE], {"max_removals": 0}, ["two"]),
    "this host is missing": ([ONE, TWO], {}, ["me"]),
    "empty": ([], {}, ["empty"]),
    "another cluster": (NODES, {"cluster_name": "other"}, ["kindnet", "other"]),
    "outside of the cluster": (NODES, {"cluster_cidrs": ["10.0.0.0/16"]}, ["pod_cidrs of me", "10.0.0.0/16"]),
    "host bits": ([ME, dict(ONE, pod_cidrs=["10.244.1.1/24"])], {}, ["one", "10.244.1.0/24"]),
    "the kernel's protocol": (NODES, {"protocol": 2}, ["protocol", "107"]),
    "the kernel's table": (NODES, {"table": "local"}, ["table", "local"]),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("persist", [True, False])
def test_refused_and_nothing_is_changed(host, case, persist):
    nodes, options, words = REFUSED[case]
    if case == "the kernel's protocol":
        words = ["protocol"]
    host.module(nodes=NODES, node_name="me")
    before, recorded = host.routes(), host.desired()
    for check in (True, False):
        result = host.module(check=check, nodes=nodes, node_name="me", persist=persist, read_only=True, **options)
        assert result["failed"] and result["host"] == "me" and result["remedy"], result
        assert "exception" not in result and all(w in result["msg"] for w in words), result
        assert host.routes() == before and host.desired() == recorded


def test_guard_counts_what_is_there_without_a_record(host):
    many = [ME] + [node("n%d" % i, "172.18.3.%d" % i, "10.244.%d.0/24" % i) for i in range(1, 31)]
    host.module(nodes=many, node_name="me", persist=False)
    assert host.desired() == ""
    for kept in (many[:4], many[:27]):
        result = host.module(nodes=kept, node_name="me", persist=False, read_only=True)
        assert result["failed"] and "172.18.3.30" in result["msg"] and "10.244.30.0/24" in result["msg"], result
    # Three of thirty are 10 %; and a changed address and a new pod CIDR of those that stay are none.
    quartet(host, nodes=many[:28], node_name="me", persist=False)
    assert host.lines("10.244.28.0/24") == [] and host.lines("10.244.27.0/24") != []
    quartet(host, nodes=[ME, dict(many[1], name="renamed")], node_name="me", persist=False, force_removals=True)
    assert len([r for r in host.routes() if r.get("protocol") == "107"]) == 1


def test_rename_and_new_addresses_are_no_removals(host):
    host.module(nodes=NODES, node_name="me")
    changed = [
        ME,
        dict(ONE, name="renamed"),
        dict(TWO, node_ips=["172.18.0.44", "fd00:18::44"], pod_cidrs=["10.244.42.0/24", "fd00:10:244:42::/64"]),
    ]
    quartet(host, nodes=changed, node_name="me", max_removals=0)


def test_takeover_adopts_in_place(host):
    host.sh("""
        ip route add 10.244.1.0/24 via 172.18.0.3; ip route add 10.244.2.0/24 via 172.18.0.44; ip -6 route add fd00:10:244:1::/64 via fd00:18::3
        ip route add 10.244.9.0/24 via 172.18.0.4; ip route add 10.244.8.0/24 via 172.18.0.8; ip route add 10.77.0.0/24 via 172.18.0.4
        ip route add 10.244.7.0/24 via 172.18.0.4 proto static; ip route add 10.244.6.0/24 via 172.18.0.4 metric 5
        ip route add blackhole 10.244.5.0/24; ip route add 10.244.4.0/24 via 172.18.0.4 table 100""")
    nodes = [ME, ONE, dict(TWO, node_ips=["172.18.0.4", "172.18.0.44", "fd00:18::4"])]
    bare = quartet(host, nodes=nodes, node_name="me", expect_failure=True)
    assert {(r["node"], r["action"]) for r in bare["routes"]} == {("one", "foreign"), ("two", "conflict"), ("two", "add")}
    host.module(state="absent")
    with monitor(host) as events:
        taken = quartet(host, nodes=nodes, node_name="me", takeover=True, cluster_cidrs=["10.244.0.0/16", "fd00:10:244::/56"])
    assert {(r["dst"], r["action"]) for r in taken["routes"]} == {
        ("10.244.1.0/24", "replace"), ("fd00:10:244:1::/64", "replace"), ("10.244.2.0/24", "replace"), ("fd00:10:244:2::/64", "add"),
        ("10.244.9.0/24", "remove"),
    }  # fmt: skip
    assert [e for e in events if e.startswith("Deleted")] == ["Deleted 10.244.9.0/24 via 172.18.0.4 dev eth0"]
    assert host.lines(A4) == [OURS4] and host.lines(A6) == [OURS6] and host.lines("10.244.2.0/24") == [OURS4.replace(".3", ".4")]
    assert [len(host.lines("10.%s.0/24" % n)) for n in ("244.8", "77.0", "244.7", "244.6", "244.5")] == [1] * 5
    assert host.lines("10.244.4.0/24", "table 100")
    # Killed after adopting and before removing: the pass goes on.
    host.sh("ip route add 10.244.9.0/24 via 172.18.0.4")
    assert host.a_pass()["changes"] == [["route 10.244.9.0/24", "remove"]] and host.lines("10.244.9.0/24") == []


def start_kindnetd(enter=lambda *command: command):
    kindnetd = subprocess.Popen(enter("bash", "-c", "exec -a /bin/kindnetd sleep 60"))
    deadline = time.monotonic() + 30
    while Path("/proc/%d/cmdline" % kindnetd.pid).read_bytes() != b"/bin/kindnetd\x0060\0":
        assert time.monotonic() < deadline
    return kindnetd


@pytest.mark.parametrize("in_the_way", [True, False], ids=["in this host's network", "in a network of its own"])
def test_takeover_is_refused_while_kindnetd_runs(host, in_the_way):
    host.sh("ip route add 10.244.1.0/24 via 172.18.0.3")
    before = host.routes()
    kindnetd = start_kindnetd(host.command) if in_the_way else start_kindnetd()
    try:
        for check in (True, False) if in_the_way else ():
            refused = host.module(nodes=NODES, node_name="me", takeover=True, check=check)
            assert refused["failed"] and "kindnetd still runs here (pid %d: /bin/kindnetd 60)" % kindnetd.pid in refused["msg"]
            assert (host.routes(), host.desired()) == (before, "")
            # Without a takeover nothing of kindnetd's is touched, and that it runs is for others to judge.
            assert not host.module(nodes=NODES, node_name="me", check=check, persist=False).get("failed")
            host.module(state="absent")
    finally:
        if in_the_way:
            kindnetd.kill()
            kindnetd.wait()
    try:
        quartet(host, nodes=NODES, node_name="me", takeover=True)
        assert host.lines(A4) == [OURS4]
    finally:
        kindnetd.kill()
        kindnetd.wait()


def test_a_pass_takes_nothing_from_a_kindnetd_that_is_back(host):
    quartet(host, nodes=NODES, node_name="me", takeover=True, cluster_cidrs=["10.244.0.0/16", "fd00:10:244::/56"])
    kindnetd = start_kindnetd(host.command)
    try:
        assert host.a_pass() == {"changes": [], "problems": [], "notes": []}  # there is nothing to take
        # A node that the inventory does not know, and one whose route kindnetd has made its own again.
        host.sh("ip route add 10.244.9.0/24 via 172.18.0.4; ip route del 10.244.1.0/24; ip route add 10.244.1.0/24 via 172.18.0.3")
        host.sh("ip route del 10.244.2.0/24 proto 107")  # and one of ours that is gone
        done = host.a_pass()
        assert done["changes"] == [["route 10.244.2.0/24", "add"]]
        (problem,) = done["problems"]
        assert problem["subject"] == "takeover" and "pid %d: /bin/kindnetd 60" % kindnetd.pid in problem["message"]
        before = host.routes()
        assert host.a_pass()["changes"] == [] and host.routes() == before
        assert "takeover: kindnetd runs here" in host.reconcile("--check")
    finally:
        kindnetd.kill()
        kindnetd.wait()
    assert sorted(host.a_pass()["changes"]) == [["route 10.244.1.0/24", "replace"], ["route 10.244.9.0/24", "remove"]]
    assert host.lines(A4) == [OURS4] and host.a_pass() == {"changes": [], "problems": [], "notes": []}


def test_takeover_of_a_route_with_one_of_ours_beside_it(host):
    host.sh("ip route add 10.244.1.0/24 via 172.18.0.9 proto 107; ip route append 10.244.1.0/24 via 172.18.0.3")
    quartet(host, nodes=NODES, node_name="me", takeover=True)
    assert host.lines(A4) == [OURS4]


def test_takeover_without_cluster_cidrs_removes_nothing(host):
    host.sh("ip route add 10.244.1.0/24 via 172.18.0.3; ip route add 10.244.9.0/24 via 172.18.0.4")
    taken = quartet(host, nodes=NODES, node_name="me", takeover=True)
    assert {r["action"] for r in taken["routes"]} == {"replace", "add"} and host.lines("10.244.9.0/24") == ["via 172.18.0.4 dev eth0"]


def test_without_pyroute2(host):
    arguments = {"nodes": NODES, "node_name": "me", "without_pyroute2": True}
    for check in (True, False):
        missing = host.module(check=check, read_only=True, **arguments)
        assert missing["failed"] and "pyroute2" in missing["msg"] and "python3-pyroute2" in missing["remedy"], missing
        assert "exception" not in missing and host.desired() == ""
    predicted = host.module(check=True, tools_predicted=True, **arguments)
    real = host.module(nodes=NODES, node_name="me", tools_predicted=True)
    assert predicted["changes"] == real["changes"] and real["changed"]
    # With nothing to change nothing is missing.
    assert host.module(**arguments)["changed"] is False


def test_without_permission(host):
    for check in (True, False):
        refused = host.module(check=check, nodes=NODES, node_name="me", uid=65534)
        assert refused["failed"] and "root" in refused["remedy"] and "uid 65534" in refused["msg"], refused
    assert host.desired() == ""


def test_the_reader_sees_what_ip_sees(host):
    host.sh("""ip nexthop add id 7 via 172.18.0.9 dev eth0
        ip route add default via 172.18.0.1; ip route add 10.1.0.0/24 via 172.18.0.9 metric 5 src 172.18.0.2 proto static; ip route add 10.2.0.0/24 nhid 7
        ip route add 10.3.0.0/24 nexthop via 172.18.0.7 weight 3 nexthop via 172.18.0.8; ip route add blackhole 10.4.0.0/24; ip route add throw 10.5.0.0/24
        ip route add 10.6.0.0/24 dev eth1 table 5000; ip route add 10.7.0.0/24 via 172.18.0.9 tos 0x10; ip route add 10.8.0.0/24 via inet6 fd00:18::9
        ip -6 route add default via fd00:18::1 metric 7; ip route add unreachable fd00:9::/64; ip route add fd00:8::/64 from fd00:7::/64 via fd00:18::9
        ip -6 route add fd00:6::/64 proto ra nexthop via fd00:18::7 nexthop via fd00:18::8; ip link set far1 down""")
    script = """if True:
        import json, socket, sys
        from ansible_collections.kindnet.host.plugins.module_utils import _netlink
        text = lambda r, a: socket.inet_ntop(r.family, a) if a else None
        found = [r for f in (2, 10) for t in (254, 255, 253, 5000) for r in _netlink.dump(f, t)]
        print(json.dumps([[str(int(r.family)), r.table, "%s/%d" % (text(r, r.dst), r.prefix), r.metric, r.tos, r.protocol, r.scope, r.type,
            text(r, r.gateway), r.oif, text(r, r.prefsrc), [[text(r, h.gateway), h.oif, h.weight] for h in r.hops], r.nexthop_id, bool(r.flags & 16)]
            for r in found]))
    """
    environment = dict(os.environ, PYTHONPATH=os.path.abspath(".ansible/collections"))
    read = json.loads(subprocess.run(host.command(sys.executable, "-c", script), capture_output=True, text=True, check=True, env=environment).stdout)
    index = {link["ifname"]: link["ifindex"] for link in json.loads(host.sh("ip -json link"))}
    types = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6, "unreachable": 7, "throw": 9}
    told = []
    for family, default in (("2", "0.0.0.0/0"), ("10", "::/0")):
        for r in json.loads(host.sh("ip -%s -N -json -details route show table all" % ("4" if family == "2" else "6"))):
            dst = default if r["dst"] == "default" else r["dst"]
            dst = dst if "/" in dst else dst + ("/32" if family == "2" else "/128")
            hops = [[h.get("gateway"), index[h["dev"]], h["weight"]] for h in r.get("nexthops", ())]
            told.append([
                family, int(r.get("table", 254)), dst, r.get("metric", 0), int(r.get("tos", "0"), 16), int(r["protocol"]), int(r["scope"]),
                types.get(r["type"]) or int(r["type"]), r.get("gateway"), index[r["dev"]] if "dev" in r else 0, r.get("prefsrc"), hops, r.get("nhid", 0),
                "linkdown" in r["flags"],
            ])  # fmt: skip
    assert len(told) > 25 and sorted(map(str, read)) == sorted(map(str, told))


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - kindnet.host.kindnet_route:
        node_name: me
        nodes: %s
      register: routed
    - ansible.builtin.copy:
        content: "{{ routed }}"
        dest: /run/routed.json
"""
LISTENER = """
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/dev/log")
open("/run/listening", "w").close()
with open("/run/heard", "wb", buffering=0) as f:
    while True:
        f.write(s.recv(1 << 20) + b"\\n")
"""


@pytest.mark.parametrize("as_string", [False, True])
def test_the_table_is_told_to_nobody_and_nothing_else_is_hidden(host, as_string):
    host.sh("""mount -t tmpfs none /dev; mkdir /dev/shm
        mknod /dev/null c 1 3; mknod /dev/zero c 1 5; mknod /dev/random c 1 8; mknod /dev/urandom c 1 9; mknod /dev/tty c 5 0; chmod 666 /dev/*""")
    listener = subprocess.Popen(host.command(sys.executable, "-c", LISTENER))
    try:
        nodes = json.dumps(json.dumps(NODES)) if as_string else json.dumps(NODES)
        host.sh("until [ -e /run/listening ]; do sleep 0.05; done; cat >/run/play.yml <<'END'\n%s\nEND" % (PLAYBOOK % nodes))
        play = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,", "-c", "local", "--diff", "-vvv"]
        play += ["-e", "ansible_python_interpreter=%s" % sys.executable, "/run/play.yml"]
        environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.abspath(".ansible/collections"))
        done = subprocess.run(host.command(*play), capture_output=True, text=True, timeout=600, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        listener.kill()
        listener.wait()
    (invoked,) = [line for line in host.sh("cat /run/heard").splitlines() if "kindnet_route" in line and "Invoked with" in line]
    routed = json.loads(host.sh("cat /run/routed.json"))
    for place in (invoked, json.dumps(routed["invocation"]) if "invocation" in routed else "", done.stdout.partition("invocation:")[2].partition("notes:")[0]):
        assert "172.18.0.3" not in place and "10.244.1" not in place, place
    assert "node_name=me" in invoked
    # What was done is told in full.
    assert {"dst": A4, "next_hop": "172.18.0.3", "node": "one", "action": "add", "reason": "missing"} in routed["routes"]
    assert "+route 10.244.1.0/24: via 172.18.0.3 proto 107" in done.stdout and "VALUE_SPECIFIED" not in json.dumps(routed["routes"])
    assert host.lines(A4) == [OURS4] and "172.18.0.3" in host.desired()


class monitor:
    """The events of ``ip monitor route`` while the block runs, as a list that is full when it has ended."""

    def __init__(self, host):
        self.host = host

    def __enter__(self):
        self.process = subprocess.Popen(self.host.command("ip", "monitor", "route"), stdout=subprocess.PIPE, text=True)
        # A route of a table that no test uses tells when it listens, and when all there was has been told.
        while not self._marked("4242"):
            pass
        self.events = []
        return self.events

    def _marked(self, table):
        self.host.sh("ip route replace blackhole 192.0.2.0/24 table %s; ip route del blackhole 192.0.2.0/24 table %s" % (table, table))
        import select

        ready, _w, _x = select.select([self.process.stdout], [], [], 0.2)
        if not ready:
            return False
        while "Deleted blackhole 192.0.2.0/24" not in self.process.stdout.readline():
            pass
        return True

    def __exit__(self, kind, *unused):
        self.host.sh("ip route add blackhole 192.0.2.0/24 table 4243; ip route del blackhole 192.0.2.0/24 table 4243")
        while True:
            line = self.process.stdout.readline()
            if "192.0.2.0/24 table 4243" in line:
                if line.startswith("Deleted"):
                    break
                continue
            if "192.0.2.0/24" not in line:
                self.events.append(" ".join(line.split()))
        self.process.kill()
        self.process.wait()
