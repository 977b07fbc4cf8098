# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks between hosts as tables of cases, over a cluster in which all is well but for one thing; and that they cost no more per host with many."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_nodes
from ansible_collections.kindnet.host.plugins.module_utils._peers_digest import digest_of, expected
from ansible_collections.kindnet.host.plugins.module_utils._wanted_routes import peers_of
from ansible_collections.kindnet.host.plugins.plugin_utils._cross_checks import cross_checks
from ansible_collections.kindnet.host.plugins.plugin_utils._own_code import own_code
from cross_cluster import CODE, cluster, difference, findings, host_of, table, the_one


@pytest.mark.parametrize("families", ["4", "6", "46"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_where_all_is_well_nothing_is_said(families: str, count: int) -> None:
    nodes, hosts = cluster(count, families)
    assert findings(nodes, hosts) == findings(nodes, hosts, CODE) == findings([], hosts) == []


@pytest.mark.parametrize("nothing", [None, {}])
def test_of_a_host_that_did_not_tell_nothing_is_said(nothing: Any) -> None:
    nodes, hosts = cluster()
    hosts["n1"].update(status="unreachable", info=nothing)
    assert findings(nodes, hosts) == []
    assert cross_checks(nodes, [dict(host, info=nothing) for host in hosts.values()]) == []
    assert cross_checks([], []) == []


@pytest.mark.parametrize("name", ["versions", "desired", "peers", "node_interface", "links", "addresses", "routes", "pods", "conflists", "timer"])
def test_a_value_that_a_host_could_not_tell_is_neither_right_nor_wrong(name: str) -> None:
    nodes, hosts = cluster()
    del hosts["n1"]["info"][name]
    assert findings(nodes, hosts, CODE) == []


def test_routes_that_a_host_could_not_read_are_not_missing() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"].update(routes=[], peers={"wanted": 0, "present": 0, "missing": []}, desired={}, unseen=["routes"])
    assert findings(nodes, hosts) == []
    hosts["n1"]["info"]["unseen"] = ["interfaces"]
    assert the_one(nodes, hosts)["check"] == "one_way"


def test_a_host_that_was_never_converged_is_only_held_against_the_network() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"].update(managed=False, versions={"collection": "", "digest": ""}, desired={}, timer={"active": "inactive", "enabled": "not installed"})
    assert findings(nodes, hosts, CODE) == []


# --- MTUs


def test_one_interface_has_another_mtu_and_its_pods_follow() -> None:
    nodes, hosts = cluster(4)
    hosts["n2"]["info"]["node_interface"]["mtu"] = 1400
    hosts["n2"]["info"]["conflists"][0]["mtu"] = 1400
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"]) == ("mtu", ["n2"])
    assert "1500 on 3 of 4 hosts, but 1400 on n2 (eth0)" in found["message"]


def test_pods_of_one_host_have_another_mtu() -> None:
    nodes, hosts = cluster(4)
    hosts["n2"]["info"]["conflists"][0]["mtu"] = 1400
    found = the_one(nodes, hosts)
    assert (found["check"], found["subject"], found["hosts"]) == ("mtu", "MTU of pods", ["n2"])
    difference(hosts["n2"], "conflist", "file /etc/cni/net.d/10-kindnet.conflist")
    assert findings(nodes, hosts) == []


@pytest.mark.parametrize("unknown", [0, None])
def test_an_mtu_that_is_not_known_differs_from_none(unknown: Any) -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["node_interface"]["mtu"] = unknown
    hosts["n1"]["info"]["conflists"][0]["mtu"] = None
    assert findings(nodes, hosts) == []


# --- Addresses


@pytest.mark.parametrize(
    "interface, kind, ip, owners",
    [
        ("eth1", "", "192.0.2.7", ["n0", "n1"]),  # of nobody by the inventory
        ("bond0", "bond", "192.0.2.7", ["n0", "n1"]),
        ("docker0", "bridge", "172.18.0.3", ["n2", "n0", "n1"]),  # a node's, wherever it is
    ],
)
def test_one_address_on_two_hosts(interface: str, kind: str, ip: str, owners: list[str]) -> None:
    nodes, hosts = cluster()
    for name in ("n0", "n1"):
        hosts[name]["info"]["links"].append({"name": interface, "kind": kind})
        hosts[name]["info"]["addresses"].append({"interface": interface, "ip": ip, "prefix_length": 24})
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"], found["subject"]) == ("address", owners, ip) and "n0 has it on %s" % interface in found["message"]


def test_the_address_of_a_host_that_is_down_on_another() -> None:
    nodes, hosts = cluster()
    hosts["n2"]["info"] = None
    hosts["n0"]["info"]["addresses"].append({"interface": "eth0", "ip": "172.18.0.3", "prefix_length": 16})
    assert the_one(nodes, hosts)["hosts"] == ["n2", "n0"]


@pytest.mark.parametrize("name, kind", [("x0", "bridge"), ("x0", "veth"), ("x0", "dummy"), ("lo", ""), ("x0", None)])
def test_addresses_that_are_a_hosts_own_affair(name: str, kind: str | None) -> None:
    """Of an interface of which a host could not tell what it is, nothing is said either."""
    nodes, hosts = cluster()
    for host in hosts.values():
        host["info"]["links"] += [] if kind is None else [{"name": name, "kind": kind}]
        host["info"]["addresses"].append({"interface": name, "ip": "10.96.0.10", "prefix_length": 32})
    assert findings(nodes, hosts) == []


def test_a_node_that_is_a_container_has_its_address_on_a_veth() -> None:
    nodes, hosts = cluster()
    for host in hosts.values():
        host["info"]["links"][0]["kind"] = "veth"
    assert findings(nodes, hosts) == []
    hosts["n0"]["info"]["addresses"].append({"interface": "eth0", "ip": "192.0.2.7", "prefix_length": 24})
    hosts["n1"]["info"]["addresses"].append({"interface": "eth0", "ip": "192.0.2.7", "prefix_length": 24})
    assert the_one(nodes, hosts)["check"] == "address"


# --- Older desired state, older code


@pytest.mark.parametrize("families", ["4", "6", "46"])
def test_what_a_host_ought_to_have_recorded_is_told_in_advance(families: str) -> None:
    """By the very function that records it."""
    nodes = table(6, families)
    if families == "46":
        nodes[1]["node_ips"], nodes[1]["pod_cidrs"] = nodes[1]["node_ips"][:1], nodes[1]["pod_cidrs"][:1]
        nodes[2]["pod_cidrs"] = nodes[2]["pod_cidrs"][1:]
    parsed = parse_nodes(nodes)
    canonical = [{"name": n.name, "node_ips": n.node_ips, "pod_cidrs": n.pod_cidrs} for n in parsed]
    assert expected(canonical) == {node.name: digest_of(peers_of(parsed, node.name)) for node in parsed}


@pytest.mark.parametrize(
    "then, told",
    [
        (lambda nodes: nodes[:3], "it does not know 10.100.3.0/24 of n3"),
        (lambda nodes: [dict(n, pod_cidrs=["10.100.9.0/24"]) if n["name"] == "n3" else n for n in nodes], "it still has 10.100.9.0/24"),
        (lambda nodes: [dict(n, node_ips=["172.18.0.9"]) if n["name"] == "n3" else n for n in nodes], "2026-11-20T08:00:00Z"),
        (lambda nodes: [dict(n, name="old") if n["name"] == "n3" else n for n in nodes], "2026-11-20T08:00:00Z"),
    ],
)
def test_a_host_was_not_converged_since_the_inventory_changed(then: Any, told: str) -> None:
    nodes, hosts = cluster(4)
    hosts["n1"] = host_of(nodes[1], then(nodes))
    found = [f for f in findings(nodes, hosts) if f["check"] == "desired"]
    assert [f["hosts"] for f in found] == [["n1"]] and told in found[0]["message"]


def test_a_host_that_the_inventory_does_not_have_is_held_against_nothing() -> None:
    nodes, hosts = cluster()
    assert [f["check"] for f in findings(nodes[:2], {"n2": hosts["n2"]})] == []


@pytest.mark.parametrize(
    "codes, ours, hosts, word",
    [
        ([CODE, ("0.1.0", "0ld"), CODE], None, ["n1"], "older"),
        ([("0.10.0", "new"), CODE, CODE], None, ["n1", "n2"], "older"),
        ([CODE, ("0.2.0", "edited"), CODE], None, ["n1"], "other"),
        ([CODE, CODE, CODE], ("0.3.0", "new"), ["n0", "n1", "n2"], "older"),
        ([CODE, CODE, ("0.3.0", "new")], CODE, ["n2"], "newer"),
        ([("", "unknown"), CODE, CODE], CODE, ["n0"], "older"),
    ],
)
def test_code_that_is_not_that_of_the_others(codes: Any, ours: Any, hosts: list[str], word: str) -> None:
    nodes, all_hosts = cluster()
    for host, (collection, digest) in zip(all_hosts.values(), codes):
        host["info"]["versions"] = {"collection": collection, "digest": digest}
    found = the_one(nodes, all_hosts, ours)
    assert (found["check"], found["hosts"]) == ("code", hosts) and "%s code than" % word in found["message"]


def test_the_code_of_this_checkout() -> None:
    version, digest = own_code()
    assert version == CODE[0] and len(digest) == 16


# --- What keeps hosts in sync


def test_a_timer_that_does_not_run_and_since_when() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["timer"].update(active="inactive", since="2026-11-26T17:00:00Z")
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"], found["subject"]) == ("timer", ["n1"], "kindnet-reconcile.timer")
    assert "is inactive since 2026-11-26T17:00:00Z" in found["message"] and "systemctl start" in found["message"]


def test_a_timer_that_does_not_come_back() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["timer"].update(enabled="disabled")
    assert "gone after a reboot" in the_one(nodes, hosts)["message"]


def test_a_host_without_systemds_word_runs_no_less() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["timer"].update(active="", enabled="", since="", last_pass={"result": "unknown", "at": ""})
    assert findings(nodes, hosts) == []


@pytest.mark.parametrize(
    "timer, listed, words",
    [
        ({"last_pass": {"result": "failed", "at": "2026-11-27T02:00:00Z"}}, [], "failed, the last one at 2026-11-27T02:00:00Z"),
        ({"problems": [{"subject": "route X", "message": ""}]}, [], "cannot repair route X"),
        ({"last_pass": {"result": "failed", "at": ""}, "problems": [{"subject": "route X", "message": ""}, {"subject": "b", "message": ""}]}, ["b"], "route X"),
        ({"last_pass": {"result": "failed", "at": ""}, "problems": [{"subject": "b", "message": ""}]}, ["b"], ""),
        ({"last_pass": {"result": "running", "at": ""}}, [], ""),
        ({"last_pass": {"result": "none yet since boot", "at": ""}}, [], ""),
    ],
)
def test_passes_that_fail(timer: dict[str, Any], listed: list[str], words: str) -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["timer"].update(timer)
    hosts["n1"]["problems"] = [{"concern": "routes", "subject": subject, "message": ""} for subject in listed]
    found = findings(nodes, hosts)
    assert [f["check"] for f in found] == (["pass"] if words else [])
    assert all(words in f["message"] for f in found)


@pytest.mark.parametrize("seconds, words", [(1, "1s"), (90, "1m30s"), (7200, "2h"), (90061, "1d1h")])
def test_a_pause_is_a_state(seconds: int, words: str) -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["timer"]["paused_seconds"] = seconds
    found = the_one(nodes, hosts)
    assert found["check"] == "pause" and "paused for another %s. Somebody asked for that" % words in found["message"]


# --- What it costs


def calls_of(count: int) -> int:
    """How many calls of functions the checks make with as many hosts, each of which has the same few routes and the same address, network and MTU."""
    nodes, hosts = cluster(4)
    many = table(count)
    for node in many:
        host = dict(hosts["n1"], name=node["name"], info=dict(hosts["n1"]["info"]))
        host["info"]["pods"] = [{"ips": ["10.100.7.9"]}]
        host["info"]["addresses"] = [{"interface": "eth0", "ip": "192.0.2.7", "prefix_length": 24}]
        host["info"]["timer"] = dict(host["info"]["timer"], active="inactive")
        hosts[node["name"]] = host
    calls = 0

    def count_calls(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    reported = list(hosts.values())
    sys.setprofile(count_calls)
    try:
        assert len(cross_checks(many, reported)) > count
    finally:
        sys.setprofile(None)
    return calls


def test_a_thousand_hosts_cost_no_more_than_ten_times_a_hundred() -> None:
    assert calls_of(1000) < 10 * calls_of(100) * 1.3
