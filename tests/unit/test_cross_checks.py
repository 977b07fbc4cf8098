# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cross-host checks as tables of cases, over a cluster in which all is well but for one thing; networks and ways back against a brute-force oracle."""

from __future__ import annotations

import ipaddress
import itertools
import sys
from typing import Any

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_nodes
from ansible_collections.kindnet.host.plugins.module_utils._peers_digest import digest_of, expected
from ansible_collections.kindnet.host.plugins.module_utils._wanted_routes import peers_of
from ansible_collections.kindnet.host.plugins.plugin_utils._cross_checks import cross_checks
from ansible_collections.kindnet.host.plugins.plugin_utils._cross_networks import CONFLIST, DECLARED, POD, Use, colliding
from ansible_collections.kindnet.host.plugins.plugin_utils._own_code import own_code
from hypothesis import given, settings
from hypothesis import strategies as st

CODE = ("0.2.0", "c0de000000000002")


def table(count: int = 3, families: str = "4") -> list[dict[str, Any]]:
    """Nodes n0, n1, ... with an address and a pod CIDR of each family."""
    return [
        {
            "name": "n%d" % i,
            "node_ips": (["172.18.%d.%d" % (i // 250, 1 + i % 250)] if "4" in families else []) + (["fd00:18::%x" % (i + 1)] if "6" in families else []),
            "pod_cidrs": (["10.%d.%d.0/24" % (100 + i // 250, i % 250)] if "4" in families else [])
            + (["fd00:10:0:%x::/64" % (i + 1)] if "6" in families else []),
        }
        for i in range(count)
    ]


def route(dst: str, via: str, **more: Any) -> dict[str, Any]:
    return dict({"dst": dst, "via": via, "dev": "eth0", "protocol": "107", "metric": 0, "type": "unicast", "ours": True}, **more)


def host_of(node: dict[str, Any], nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """A host of the report on which everything is as it should be."""
    peers = peers_of(parse_nodes(nodes), node["name"])
    first = node["pod_cidrs"][0].partition("/")[0]
    pod, gateway = (first[:-1] + "2", first[:-1] + "1") if ":" not in first else (first + "2", first + "1")
    return {
        "name": node["name"],
        "status": "in_sync",
        "differences": [],
        "problems": [],
        "info": {
            "managed": True,
            "versions": {"collection": CODE[0], "digest": CODE[1]},
            "desired": {"recorded": "2026-11-20T08:00:00Z", "pod_cidrs": list(node["pod_cidrs"]), "peers": digest_of(peers)},
            "peers": {"wanted": len(peers), "present": len(peers), "missing": []},
            "node_interface": {"name": "eth0", "mtu": 1500},
            "links": [{"name": "eth0", "kind": ""}, {"name": "docker0", "kind": "bridge"}, {"name": "veth1", "kind": "veth"}],
            "addresses": [{"interface": "eth0", "ip": ip, "prefix_length": 16} for ip in node["node_ips"]]
            + [{"interface": "docker0", "ip": "172.17.0.1", "prefix_length": 16}, {"interface": "veth1", "ip": gateway, "prefix_length": 32}],
            "routes": [route(cidr, hop) for _name, cidr, hop in peers]
            + [route("172.18.0.0/16", "", protocol="kernel", ours=False), route(pod + "/32", "", dev="veth1", protocol="boot", ours=False)],
            "pods": [{"ips": [pod], "container": "pod", "interface": "veth1"}],
            "conflists": [{"path": "/etc/cni/net.d/10-kindnet.conflist", "ours": True, "in_use": True, "mtu": 1500, "subnets": list(node["pod_cidrs"])}],
            "timer": {
                "active": "active",
                "enabled": "enabled",
                "since": "2026-11-26T00:00:00Z",
                "paused_seconds": None,
                "last_pass": {"result": "ok", "at": "2026-11-27T02:00:00Z"},
                "problems": [],
            },
        },
    }


def cluster(count: int = 3, families: str = "4") -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    nodes = table(count, families)
    return nodes, {node["name"]: host_of(node, nodes) for node in nodes}


def findings(nodes: list[dict[str, Any]], hosts: dict[str, dict[str, Any]], code: tuple[str, str] | None = None) -> list[dict[str, Any]]:
    found = cross_checks(nodes, list(hosts.values()), code)
    for one in found:
        assert set(one) == {"check", "hosts", "subject", "message"} and one["hosts"] and one["subject"]
        assert one["message"].endswith(".") and all(name in one["message"] for name in one["hosts"][:8]), one
    return found


def the_one(nodes: list[dict[str, Any]], hosts: dict[str, dict[str, Any]], code: tuple[str, str] | None = None) -> dict[str, Any]:
    (found,) = findings(nodes, hosts, code)
    return found


def drop_route(host: dict[str, Any], dst: str) -> None:
    host["info"]["routes"] = [r for r in host["info"]["routes"] if r["dst"] != dst]


def difference(host: dict[str, Any], concern: str, subject: str) -> None:
    host["differences"].append({"concern": concern, "subject": subject, "action": "add", "before": "", "after": "x", "reason": "missing"})


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
    hosts["n1"]["info"].update(routes=[], peers={"wanted": 0, "present": 0, "missing": []}, desired={}, notes=["routes: they changed all the while"])
    assert findings(nodes, hosts) == []
    hosts["n1"]["info"]["notes"] = ["interfaces: they changed all the while"]
    assert the_one(nodes, hosts)["check"] == "one_way"


def test_a_host_that_was_never_converged_is_only_held_against_the_network() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"].update(managed=False, versions={"collection": "", "digest": ""}, desired={}, timer={"active": "inactive", "enabled": "not installed"})
    assert findings(nodes, hosts, CODE) == []


# --- A way there and none back


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


@given(tangles())
def test_ways_back_as_an_oracle_finds_them(tangle: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]) -> None:
    nodes, hosts = tangle

    def leads(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return any(r["dst"] == b["pod_cidrs"][0] and r["via"] == b["node_ips"][0] for r in hosts[a["name"]]["info"]["routes"])

    wanted: dict[str, set[str]] = {}
    for a, b in itertools.permutations(nodes, 2):
        if leads(a, b) and not leads(b, a):
            wanted.setdefault(b["name"], set()).add(a["name"])
    found = {f["hosts"][0]: set(f["hosts"][1:]) for f in findings(nodes, hosts) if f["check"] == "one_way"}
    assert found == wanted


# --- Pod CIDRs


def use_of(network: str, host: str, what: str = CONFLIST) -> Use:
    return Use(ipaddress.ip_network(network), host, what, what != CONFLIST)


def test_a_host_uses_what_is_anothers_by_the_inventory() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["conflists"][0]["subnets"] = ["10.100.2.0/24"]
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"], found["subject"]) == ("overlap", ["n2", "n1"], "10.100.2.0/24")
    assert "10.100.2.0/24 in the inventory of n2" in found["message"] and "of the CNI configuration of n1" in found["message"]


def test_a_pod_has_an_address_of_another_hosts() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["pods"].append({"ips": ["10.100.2.77", "192.0.2.9"], "container": "old", "interface": ""})
    difference(hosts["n1"], "conflist", "file /etc/cni/net.d/10-kindnet.conflist")  # a run mends the file, and not the pod
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"]) == ("overlap", ["n2", "n1"]) and "10.100.2.77/32 of a pod of n1" in found["message"]


def test_what_a_run_mends_does_not_overlap() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["conflists"][0]["subnets"] = ["10.100.2.0/24"]
    hosts["n1"]["info"]["desired"]["pod_cidrs"] = ["10.100.2.0/24"]
    difference(hosts["n1"], "conflist", "file /etc/cni/net.d/10-kindnet.conflist")
    assert findings(nodes, hosts) == []


def test_a_network_of_a_container_engine_may_be_the_same_everywhere() -> None:
    nodes, hosts = cluster()
    for host in hosts.values():
        host["info"]["conflists"] = [{"path": "/etc/cni/net.d/87-podman.conflist", "ours": False, "in_use": True, "mtu": None, "subnets": ["10.88.0.0/16", ""]}]
        host["info"]["pods"].append({"ips": ["10.88.0.2"], "container": "x", "interface": ""})
    assert findings(nodes, hosts) == []
    hosts["n1"]["info"]["conflists"][0]["subnets"] = ["10.100.0.0/16"]
    assert the_one(nodes, hosts)["hosts"] == ["n1", "n0", "n2"]


def test_a_host_has_recorded_another_pod_cidr_than_the_inventory_says() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["desired"]["pod_cidrs"] = ["10.100.9.0/24"]
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"], found["subject"]) == ("pod_cidrs", ["n1"], "10.100.9.0/24") and "10.100.1.0/24" in found["message"]
    difference(hosts["n1"], "conflist", "file /etc/cni/net.d/10-kindnet.conflist")
    assert findings(nodes, hosts) == []


def network(base: int, number: int, length: int) -> str:
    return str(ipaddress.ip_network((base + number, length), strict=False))


TEN = 10 << 24
NETWORKS = st.builds(network, st.sampled_from([TEN, TEN + (1 << 24)]), st.just(0), st.integers(6, 10)) | st.builds(
    network, st.just(TEN), st.integers(0, 31), st.integers(27, 32)
)
USES = st.lists(st.builds(use_of, NETWORKS, st.sampled_from("abcdef"), st.sampled_from([DECLARED, CONFLIST, POD])), max_size=12)


@settings(max_examples=400)
@given(USES)
def test_overlaps_as_an_oracle_finds_them(uses: list[Use]) -> None:
    """Hosts are named that have to do with each other, and no others; what is apart stays apart."""
    pairs = [(a, b) for a, b in itertools.combinations(set(uses), 2) if a.host != b.host and a.cidr.overlaps(b.cidr) and (a.is_pods or b.is_pods)]
    groups = [set(group) for group in colliding(uses)]
    assert {use for group in groups for use in group} == {use for pair in pairs for use in pair}
    for a, b in pairs:
        assert sum(a in group for group in groups) == 1 and any(a in group and b in group for group in groups)
    for one, other in itertools.combinations(groups, 2):
        assert not any(a.cidr.overlaps(b.cidr) for a in one for b in other)


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
