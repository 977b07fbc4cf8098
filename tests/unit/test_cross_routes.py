# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways there and none back, as a table of cases, and against a brute-force oracle."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from cross_cluster import cluster, drop_route, findings, route, the_one
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "back, in_words",
    [
        (None, "no route"),
        (route("10.100.0.0/24", "172.18.0.9", protocol="boot", ours=False), "via 172.18.0.9 dev eth0 proto boot"),
        (route("10.100.0.0/24", "", type="blackhole", dev="", protocol="static", ours=False), "blackhole proto static"),
    ],
)
def test_one_routes_to_the_other_and_not_back(back: dict[str, Any] | None, in_words: str) -> None:
    nodes, hosts = cluster()
    drop_route(hosts["n1"], "10.100.0.0/24")
    hosts["n1"]["info"]["peers"].update(present=1, missing=["10.100.0.0/24"])
    if back:
        hosts["n1"]["info"]["routes"].append(back)
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"], found["subject"]) == ("one_way", ["n1", "n0"], "route 10.100.0.0/24")
    assert "10.100.0.0/24 of n0 (%s)" % in_words in found["message"]


def test_a_better_foreign_route_hides_ours() -> None:
    nodes, hosts = cluster(families="6")
    ours = next(r for r in hosts["n1"]["info"]["routes"] if r["dst"] == nodes[0]["pod_cidrs"][0])
    ours["metric"] = 1024
    hosts["n1"]["info"]["routes"].append(route(ours["dst"], "fd00:18::9", metric=10, ours=False, protocol="ra"))
    assert the_one(nodes, hosts)["check"] == "one_way"
    hosts["n1"]["info"]["routes"][-1]["metric"] = 2048
    assert findings(nodes, hosts) == []


@pytest.mark.parametrize("key", ["differences", "problems"])
def test_a_missing_route_that_the_report_has_is_not_said_again(key: str) -> None:
    nodes, hosts = cluster()
    drop_route(hosts["n1"], "10.100.0.0/24")
    hosts["n1"]["info"]["peers"].update(present=1, missing=["10.100.0.0/24"])
    hosts["n1"][key].append({"concern": "routes", "subject": "route 10.100.0.0/24", "message": ""})
    assert findings(nodes, hosts) == []
    hosts["n1"][key][0]["subject"] = "route 10.100.2.0/24"
    assert the_one(nodes, hosts)["check"] == "one_way"


def test_what_may_be_among_the_differences_that_were_not_told_is_not_said_either() -> None:
    """Of more differences than a module tells, only the number is known; a node that lost all its routes is no news about those that still route to it."""
    nodes, hosts = cluster()
    drop_route(hosts["n1"], "10.100.0.0/24")
    hosts["n1"]["info"]["peers"].update(present=1, missing=["10.100.0.0/24"])
    assert the_one(nodes, hosts)["check"] == "one_way"
    hosts["n1"]["differences"].append({"concern": "routes", "subject": "route 10.100.9.0/24", "message": ""})
    hosts["n1"]["differences_left_out"] = 1
    assert findings(nodes, hosts) == []


def test_neither_way_is_no_one_way() -> None:
    nodes, hosts = cluster(2)
    drop_route(hosts["n0"], "10.100.1.0/24")
    drop_route(hosts["n1"], "10.100.0.0/24")
    assert [f for f in findings(nodes, hosts) if f["check"] == "one_way"] == []


def test_a_peer_that_is_left_to_the_network_has_a_way() -> None:
    nodes, hosts = cluster(2)
    drop_route(hosts["n1"], "10.100.0.0/24")
    hosts["n1"]["info"]["peers"].update(wanted=0, present=0)
    assert findings(nodes, hosts) == []


def test_a_wider_route_may_lead_back_and_the_default_route_does_not() -> None:
    nodes, hosts = cluster(2)
    drop_route(hosts["n1"], "10.100.0.0/24")
    hosts["n1"]["info"]["peers"].update(present=0, missing=["10.100.0.0/24"])
    hosts["n1"]["info"]["routes"].append(route("0.0.0.0/0", "172.18.0.254", ours=False, protocol="static"))
    assert the_one(nodes, hosts)["check"] == "one_way"
    hosts["n1"]["info"]["routes"].append(route("10.0.0.0/8", "172.18.0.254", ours=False, protocol="static"))
    assert findings(nodes, hosts) == []


def test_a_host_without_any_way_back_is_one_finding() -> None:
    nodes, hosts = cluster(30)
    hosts["n3"]["info"]["peers"].update(present=0, missing=[r["dst"] for r in hosts["n3"]["info"]["routes"] if r["ours"]])
    hosts["n3"]["info"]["routes"] = []
    found = the_one(nodes, hosts)
    assert found["hosts"][0] == "n3" and len(found["hosts"]) == 30
    assert found["subject"] == "routes to 29 pod CIDRs" and "and 21 more" in found["message"]


def test_only_the_family_that_has_no_way_back() -> None:
    nodes, hosts = cluster(2, "46")
    cidr = nodes[0]["pod_cidrs"][1]
    drop_route(hosts["n1"], cidr)
    hosts["n1"]["info"]["peers"]["missing"] = [cidr]
    assert the_one(nodes, hosts)["subject"] == "route %s" % cidr


@st.composite
def tangles(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """A cluster in which any route may be missing or lead to anybody."""
    nodes, hosts = cluster(draw(st.integers(2, 5)))
    ips = [node["node_ips"][0] for node in nodes]
    for node in nodes:
        host = hosts[node["name"]]
        missing = []
        for peer in nodes:
            cidr = peer["pod_cidrs"][0]
            how = draw(st.sampled_from(["right", "right", "none", "elsewhere"]))
            if peer is node or how == "right":
                continue
            drop_route(host, cidr)
            missing.append(cidr)
            if how == "elsewhere":
                host["info"]["routes"].append(route(cidr, draw(st.sampled_from([ip for ip in ips if ip not in peer["node_ips"]])), ours=False))
        host["info"]["peers"]["missing"] = missing
    return nodes, hosts


@given(tangles(), st.booleans())
def test_hosts_that_leave_out_what_is_right_have_the_same_findings(tangle: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]], recorded: bool) -> None:
    nodes, hosts = tangle
    told = findings(nodes, hosts)
    for host in hosts.values():
        right = [r for r in host["info"]["routes"] if r["ours"]]
        host["info"].update(routes=[r for r in host["info"]["routes"] if not r["ours"]], routes_left_out=len(right))
        if not recorded:  # and what the run would change is said otherwise, so nothing may be missing
            host["info"]["desired"]["peers"] = ""
            host["looked_at"] = ["routes"]
    assert findings(nodes, hosts) == told


@pytest.mark.parametrize("more", [{"looked_at": []}, {"looked_at": ["routes"], "differences_left_out": 1}])
def test_what_is_left_out_by_a_record_that_nobody_knows_is_no_way(more: dict[str, Any]) -> None:
    nodes, hosts = cluster(2)
    hosts["n0"]["info"].update(routes=[], routes_left_out=1)
    hosts["n0"]["info"]["desired"]["peers"] = ""
    drop_route(hosts["n1"], "10.100.0.0/24")
    hosts["n1"]["info"]["peers"].update(present=0, missing=["10.100.0.0/24"])
    hosts["n0"].update(more)
    assert findings(nodes, hosts) == []
    hosts["n0"].update(looked_at=["routes"], differences_left_out=0)
    assert the_one(nodes, hosts)["check"] == "one_way"


@given(tangles())
def test_ways_back_as_an_oracle_finds_them(tangle: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]) -> None:
    nodes, hosts = tangle

    def leads(source: dict[str, Any], target: dict[str, Any]) -> bool:
        rows = hosts[source["name"]]["info"]["routes"]
        return any(r["dst"] == target["pod_cidrs"][0] and r["via"] == target["node_ips"][0] for r in rows)

    wanted: dict[str, set[str]] = {}
    for one, other in itertools.permutations(nodes, 2):
        if leads(one, other) and not leads(other, one):
            wanted.setdefault(other["name"], set()).add(one["name"])
    found = {f["hosts"][0]: set(f["hosts"][1:]) for f in findings(nodes, hosts) if f["check"] == "one_way"}
    assert found == wanted
