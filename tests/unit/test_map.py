# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map of a report, as tables: what state each route is in, and how a large map is folded."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._peers_digest import expected
from ansible_collections.kindnet.host.plugins.plugin_utils._map import FOREIGN, MISSING, RIGHT, UNKNOWN, WRONG, label, map_of
from ansible_collections.kindnet.host.plugins.plugin_utils._map_fold import BUNDLE, MOST_GROUPS, bundles, cells, end_of, pieces
from reports import address, differs, failed, foreign, guide, large, leave_out, missing, names_of, pod_cidr, report_of, route, unreachable, wrong

A, B, C = "k8s-guide-control-plane", "k8s-guide-worker", "k8s-guide-worker2"
TO_B, TO_C = pod_cidr(1), pod_cidr(2)


def replaced(dst, *routes):
    """The first node has ``routes`` instead of its one to ``dst``, and the run names nothing."""

    def fault(report):
        info = report["hosts"][0]["info"]
        info["routes"] = [r for r in info["routes"] if r["dst"] != dst] + list(routes)

    return fault


def elsewhere(position):
    """A node is in another network than the others."""

    def fault(report):
        report["nodes"][position]["node_ips"] = ["192.0.2.9"]

    return fault


def cut(report):
    """The first node has more differences than its modules tell."""
    report["hosts"][0]["differences_left_out"] = 7


def named(subject):
    return differs(0, "routes", subject, "replace", "something", "via 192.0.2.9 proto kindnet", "its next hop differs")


# The state of the first node's routes to the second node, whose pods are TO_B, and what is said of each.
CASES = [
    ("as it should be", [], [(RIGHT, "10.244.1.0/24 via 172.18.0.3")]),
    ("none", [replaced(TO_B)], [(MISSING, "10.244.1.0/24 missing, wanted via 172.18.0.3")]),
    ("ours leads to another node", [replaced(TO_B, route(TO_B, address(2)))], [(WRONG, "10.244.1.0/24 via 172.18.0.4 (not via 172.18.0.3)")]),
    ("ours is a blackhole", [replaced(TO_B, route(TO_B, "", type="blackhole"))], [(WRONG, "10.244.1.0/24 (blackhole)")]),
    (
        "ours has a second next hop",
        [replaced(TO_B, route(TO_B, address(1)), route(TO_B, address(2)))],
        [(WRONG, "10.244.1.0/24 via 172.18.0.3 (and via 172.18.0.4)")],
    ),
    (
        "somebody else's is right",
        [replaced(TO_B, route(TO_B, address(1), protocol="static"))],
        [(FOREIGN, "10.244.1.0/24 via 172.18.0.3 (proto static, and right)")],
    ),
    ("somebody else's is not", [replaced(TO_B, route(TO_B, address(2), protocol="bird"))], [(FOREIGN, "10.244.1.0/24 via 172.18.0.4 (proto bird)")]),
    (
        "somebody else's is in front of ours",
        [replaced(TO_B, route(TO_B, address(1), metric=20), route(TO_B, address(2), protocol="bird", metric=10))],
        [(FOREIGN, "10.244.1.0/24 via 172.18.0.4 (proto bird metric 10, in the way of ours)")],
    ),
    (
        "somebody else's is behind ours",
        [replaced(TO_B, route(TO_B, address(1)), route(TO_B, address(2), protocol="bird", metric=10))],
        [(FOREIGN, "10.244.1.0/24 via 172.18.0.4 (proto bird metric 10)"), (RIGHT, "10.244.1.0/24 via 172.18.0.3")],
    ),
    (
        "a part of it leads elsewhere",
        [foreign(0, "10.244.1.128/25", "172.18.0.99")],
        [(RIGHT, "10.244.1.0/24 via 172.18.0.3"), (FOREIGN, "10.244.1.128/25 via 172.18.0.99 (proto static, within the pods of k8s-guide-worker)")],
    ),
    ("by a gateway, as the run wants it", [elsewhere(1), replaced(TO_B, route(TO_B, "172.18.0.1"))], [(RIGHT, "10.244.1.0/24 via 172.18.0.1 (by a gateway)")]),
    (
        "by a gateway, and the run wants another",
        [elsewhere(1), replaced(TO_B, route(TO_B, "172.18.0.1")), named("route 10.244.1.0/24")],
        [(WRONG, "10.244.1.0/24 via 172.18.0.1 (not via 192.0.2.9)")],
    ),
    (
        "by a gateway, of a node that did not tell all",
        [elsewhere(1), cut, replaced(TO_B, route(TO_B, "172.18.0.1"))],
        [(UNKNOWN, "10.244.1.0/24 via 172.18.0.1 (not told)")],
    ),
    ("none, of a node that did not tell all", [elsewhere(1), cut, replaced(TO_B)], [(UNKNOWN, "10.244.1.0/24 (not told)")]),
    ("left to the network", [elsewhere(1), replaced(TO_B)], [(UNKNOWN, "10.244.1.0/24 (not on-link, left to the network)")]),
    (
        "not on-link, and the run misses it",
        [elsewhere(1), replaced(TO_B), named("route 10.244.1.0/24")],
        [(MISSING, "10.244.1.0/24 missing, wanted via 192.0.2.9")],
    ),
    ("the host cannot be reached", [unreachable(0)], [(UNKNOWN, "10.244.1.0/24 (not looked at)")]),
]  # fmt: skip


@pytest.mark.parametrize("faults, expected", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_routes_to_a_peer(faults, expected):
    node = map_of(report_of(3, faults)).nodes[0]
    assert [(r.state, label(r)) for r in node.routes if r.target == B] == expected
    assert [r.state for r in node.routes if r.target == C] == [UNKNOWN if not node.looked_at else RIGHT]


# Routes that lead to the pods of no peer.
OTHERS = [
    ("ours, of a node that is gone", route("10.244.9.0/24", "172.18.0.9"), [(WRONG, "10.244.9.0/24 via 172.18.0.9 (of no node)")]),
    ("ours, of its own pods", route(pod_cidr(0), address(1)), [(WRONG, "10.244.0.0/24 via 172.18.0.3 (its own pods)")]),
    (
        "of its own pods, to another node",
        route("10.244.0.7/32", address(1), protocol="static"),
        [(FOREIGN, "10.244.0.7/32 via 172.18.0.3 (proto static, within the pods of %s)" % A)],
    ),
    ("of a pod here", route("10.244.0.7/32", "", "veth7", "boot"), []),
    ("of the cluster, to nobody's pods", route("10.244.77.0/24", "172.18.0.1", protocol="bird"), [(FOREIGN, "10.244.77.0/24 via 172.18.0.1 (proto bird)")]),
    ("the way to the peers", route("172.18.0.0/24", "", "eth1", "kernel"), []),
    ("the way to everybody", route("default", "172.18.0.1", protocol="dhcp"), []),
    ("the same, in digits", route("0.0.0.0/0", "172.18.0.1", protocol="dhcp"), []),
]  # fmt: skip


@pytest.mark.parametrize("extra, expected", [c[1:] for c in OTHERS], ids=[c[0] for c in OTHERS])
def test_other_routes(extra, expected):
    node = map_of(report_of(3, [lambda report: report["hosts"][0]["info"]["routes"].append(extra)])).nodes[0]
    assert [(r.state, label(r)) for r in node.routes if r.state != RIGHT] == expected
    assert (node.right, node.wanted) == (2, 2)


def test_nodes_have_their_addresses_and_pods():
    node = map_of(guide()).nodes[1]
    assert (node.name, node.node_ips, node.pod_cidrs, node.status) == (B, ("172.18.0.3",), ("10.244.1.0/24",), "drifted")
    assert [(p.name, p.ips, p.interface) for p in node.pods] == [("pod-3", ("10.244.1.2",), "veth1a2b3c10"), ("pod-4", ("10.244.1.3",), "veth1a2b3c11")]
    assert node.summary == "1 of 2 routes right"


@pytest.mark.parametrize("size", [3, 50, 51])
def test_a_host_without_information_has_nothing_right(size):
    report = report_of(size, [unreachable(1)])
    report["hosts"] = report["hosts"][:-1]  # and one that the run was not about
    nodes = map_of(report).nodes
    for node in (nodes[1], nodes[-1]):
        assert (node.looked_at, node.right, node.wanted, node.summary) == (False, 0, size - 1, "not looked at")
        assert not [r for r in node.routes if r.state != UNKNOWN]
    assert nodes[0].right == size - 1, "that a peer cannot be reached does not make the route to it wrong"


@pytest.mark.parametrize("unseen, looked_at", [("routes", False), ("pods", True)])
def test_routes_that_could_not_be_read_are_not_missing(unseen, looked_at):
    report = report_of(3)
    report["hosts"][0]["info"].update(routes=[], notes=[unseen + ": cannot be told (OSError: no)"], unseen=[unseen])
    found = map_of(report)
    assert found.nodes[0].looked_at == looked_at
    assert {r.state for r in found.nodes[0].routes} == {MISSING if looked_at else UNKNOWN}


def test_a_failed_host_was_looked_at_if_it_gave_its_routes():
    assert map_of(report_of(3, [failed(1)])).nodes[1].summary == "2 of 2 routes right"


def record(report):
    """Each host has recorded what the node table says."""
    digests = expected(report["nodes"])
    for host in report["hosts"]:
        if host["info"]:
            host["info"]["desired"]["peers"] = digests[host["name"]]
    return report


@pytest.mark.parametrize("size", [45, 60])
def test_hosts_that_leave_out_what_is_right_make_the_same_map(size):
    assert map_of(leave_out(record(large(size)))) == map_of(large(size))
    # With a record of something else, by what the run found, also of what it would change because the record is older.
    older = leave_out(large(size), [(names_of(size)[11], pod_cidr(4))])
    assert older["hosts"][11]["info"]["routes_left_out"] == size - 1
    assert map_of(older) == map_of(large(size))


def test_a_route_to_a_node_that_is_none_any_more_is_told_by_its_difference():
    def shrunk():
        report = report_of(60, [differs(0, "routes", "route " + pod_cidr(59), "remove", "via %s dev eth0 proto 107" % address(59), "", "it is none")])
        report["nodes"].pop()
        report["hosts"] = report["hosts"][:1]
        return report

    found = map_of(leave_out(shrunk(), [(names_of(60)[0], pod_cidr(59))]))
    assert [(r.state, r.dst) for r in found.findings] == [(WRONG, pod_cidr(59))] and found == map_of(shrunk())


def test_what_is_left_out_is_right_only_if_somebody_knows():
    report = leave_out(report_of(60))
    report["hosts"][5].update(looked_at=["host"])
    report["hosts"][5]["info"]["desired"]["peers"] = expected(report["nodes"])[report["hosts"][5]["name"]]
    report["hosts"][5]["info"]["peers"] = {"wanted": 0, "present": 0, "missing": []}  # which is what there is when that could not be told
    report["hosts"][6].update(differences_left_out=1)
    found = map_of(report)
    assert [n.right for n in found.nodes] == [59] * 5 + [0, 0] + [59] * 53 and not found.findings
    assert {r.state for n in found.nodes[5:7] for r in n.routes} == {UNKNOWN}
    assert cells(found, pieces(found))


def test_without_a_node_table_nothing_is_missing():
    report = report_of(3, [missing(0, 1), unreachable(2)])
    report["nodes"] = []
    found = map_of(report)
    assert [(n.name, n.node_ips, n.pod_cidrs) for n in found.nodes] == [(A, (address(0),), (pod_cidr(0),)), (B, (address(1),), (pod_cidr(1),)), (C, (), ())]
    assert [(r.source, r.dst, r.state) for n in found.nodes for r in n.routes] == [(A, TO_C, UNKNOWN), (B, pod_cidr(0), RIGHT), (B, TO_C, UNKNOWN)]


def test_both_families():
    def second(report):
        for i, (node, host) in enumerate(zip(report["nodes"], report["hosts"])):
            node["node_ips"].append("fd00:18::%d" % (i + 2))
            node["pod_cidrs"].append("fd00:10:244:%d::/64" % i)
            host["info"]["addresses"].append({"interface": "eth0", "ip": "fd00:18::%d" % (i + 2), "prefix_length": 64})
            host["info"]["routes"] += [route("fd00:10:244:%d::/64" % k, "fd00:18::%d" % (k + 2)) for k in range(3) if k != i and (i, k) != (0, 2)]

    found = map_of(report_of(3, [second]))
    assert [(n.right, n.wanted) for n in found.nodes] == [(3, 4), (4, 4), (4, 4)]
    assert [label(r) for r in found.findings] == ["fd00:10:244:2::/64 missing, wanted via fd00:18::4"]


def test_where_arrows_end():
    ends = {(r.state, r.dst): end_of(r) for n in map_of(guide()).nodes for r in n.routes}
    assert ends[MISSING, TO_C] == C
    assert ends[WRONG, pod_cidr(0)] == "", "an address of no node"
    assert ends[FOREIGN, "10.244.2.128/25"] == A, "where it leads, not whose pods these are"
    assert ends[RIGHT, TO_C] == C


def test_the_worst_comes_first():
    assert [r.state for r in map_of(guide()).findings] == [MISSING, WRONG, FOREIGN]


def test_findings_of_one_cause_are_one_bundle():
    many = [missing(0, k) for k in range(1, 1 + BUNDLE)] + [missing(k, 9) for k in range(1, 1 + BUNDLE)] + [wrong(7, 2, address(3))]
    found = bundles(map_of(report_of(10, many)).findings)
    assert [(b.state, len(b.sources), len(b.targets), b.text) for b in found] == [
        (MISSING, 1, BUNDLE, "4 routes missing"),
        (MISSING, BUNDLE, 1, "10.244.9.0/24 missing, wanted via 172.18.0.11"),
        (WRONG, 1, 1, "10.244.2.0/24 via 172.18.0.5 (not via 172.18.0.4)"),
    ]


@pytest.mark.parametrize("size, alone", [(50, 50), (51, 12), (1000, 12)])
def test_a_large_map_is_folded(size, alone):
    found = map_of(large(size))
    rows = pieces(found)
    assert sorted(n.name for row in rows for n in row.nodes) == sorted(n.name for n in found.nodes), "every node is somewhere, and once"
    assert sum(not row.is_group for row in rows) == alone
    assert len(rows) - alone <= MOST_GROUPS
    table = cells(found, rows)
    place = {n.name: i for i, row in enumerate(rows) for n in row.nodes}
    for finding in found.findings:
        if finding.target:
            assert finding in table[place[finding.source], place[finding.target]].findings
    assert sum(len(c.findings) for c in table.values()) == sum(bool(r.target) for r in found.findings)
    unseen = {place[n.name] for n in found.nodes if not n.looked_at}
    assert unseen and {c.state for (i, _k), c in table.items() if i in unseen} == {UNKNOWN}
    assert {c.state for (i, _k), c in table.items() if i not in unseen and not c.findings} == {RIGHT}


def test_groups_are_few_whatever_the_addresses():
    def scattered(report):
        for i, (node, host) in enumerate(zip(report["nodes"], report["hosts"])):
            host["info"] = None
            node["node_ips"] = ["10.%d.%d.1" % (i // 100, i % 100)] if i % 3 else ["fd00:%x::1" % i]

    rows = pieces(map_of(report_of(300, [scattered])))
    assert len(rows) <= MOST_GROUPS
    assert sum(len(row.nodes) for row in rows) == 300
