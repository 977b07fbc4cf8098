# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign routes to a peer's pod CIDR, at each metric and of either family: whatever we do, they are byte for byte what they were."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Iterator

import pytest
from nodes import Node, assert_converged, declared_table, play

Nodes = dict[str, Node]
NODE = "k8s-guide-worker"
NET6 = "fc00:f853:ccd:e793"
OURS = "proto kindnet"


@dataclass
class Foreign:
    name: str
    number: int  # of the peer whose pod CIDR it leads to
    route: str  # as arguments of ip route add, less the destination
    family: int
    conflict: bool  # whether it is in the way: then it is named, and there is no route of ours

    @property
    def dst(self) -> str:
        return f"10.244.{self.number}.0/24" if self.family == 4 else f"fd00:10:244:{self.number:x}::/64"

    @property
    def peer(self) -> dict[str, Any]:
        return {
            "name": f"peer-{self.number}",
            "node_ips": [f"172.18.2.{self.number}", f"{NET6}::2:{self.number:x}"],
            "pod_cidrs": [f"10.244.{self.number}.0/24", f"fd00:10:244:{self.number:x}::/64"],
        }


# By another way than ours, which lead to 172.18.2.N and NET6::2:N. The kernel gives IPv6 routes metric 1024 if none is said.
FOREIGN = [
    Foreign("no metric", 101, "via 172.18.0.100 proto static", 4, True),
    Foreign("metric 50", 102, "via 172.18.0.100 proto static metric 50", 4, False),
    Foreign("metric 100", 103, "via 172.18.0.100 proto static metric 100", 4, False),
    Foreign("IPv6 metric 512", 104, f"via {NET6}::64 proto static metric 512", 6, True),
    Foreign("IPv6 metric 1024", 105, f"via {NET6}::64 proto static metric 1024", 6, True),
    Foreign("IPv6 metric 2048", 106, f"via {NET6}::64 proto static metric 2048", 6, False),
    Foreign("IPv6 multipath", 107, f"proto static nexthop via {NET6}::64 nexthop via {NET6}::65", 6, True),
    Foreign("IPv6 multipath with ours in it", 108, f"proto static nexthop via {NET6}::2:6c nexthop via {NET6}::65", 6, True),
    Foreign("multipath", 109, "proto static nexthop via 172.18.0.100 nexthop via 172.18.0.101", 4, True),
    Foreign("blackhole", 110, "proto static", 4, True),
    Foreign("of the kernel's default protocol", 111, "via 172.18.0.100", 4, True),
]


def text(node: Node) -> dict[str, str]:
    """All that leads to these destinations and is not ours, as the kernel has it: text and data."""
    found = {}
    for foreign in FOREIGN:
        show = f"ip -{foreign.family} -N -details {{}} route show exact {foreign.dst}"
        lines = [line for line in node.sh(show.format("-o")).splitlines() if "proto 107 " not in f"{line} "]
        rows = [r for r in node.json(show.format("-json")) if r["protocol"] != "107"]
        found[foreign.name] = "\n".join(lines) + json.dumps(rows)
        assert len(rows) >= 1, foreign.name
    return found


def ours(node: Node) -> set[str]:
    """Destinations of routes of ours among these."""
    return {f.dst for f in FOREIGN} & (set(node.own_routes(4)) | set(node.own_routes(6)))


@pytest.fixture(scope="module")
def node(nodes: Nodes) -> Iterator[Node]:
    node = nodes[NODE]
    for foreign in FOREIGN:
        kind = "blackhole " if foreign.name == "blackhole" else ""
        node.sh(f"ip -{foreign.family} route add {kind}{foreign.dst} {foreign.route}")
    yield node
    for foreign in FOREIGN:
        node.run(f"ip -{foreign.family} route flush exact {foreign.dst}")
    assert play("kindnet.yml", extra(kindnet_force_removals=True)).rc == 0
    for each in nodes.values():
        assert_converged(each, nodes)


@pytest.fixture(scope="module")
def before(node: Node) -> dict[str, str]:
    return text(node)


def extra(**variables: Any) -> str:
    return f"--extra-vars={json.dumps(variables)}"


def table(nodes: Nodes, foreign: list[Foreign]) -> dict[str, Any]:
    rows = [{**row, "node_ips": [*row["node_ips"], f"{NET6}::{row['node_ips'][0].split('.')[-1]}"]} for row in declared_table(nodes)]
    return {"kindnet_node_table": rows + [f.peer for f in foreign], "kindnet_cluster_cidrs": ["10.244.0.0/16", "fd00:10:244::/48"]}


def test_a_converge_names_those_in_the_way_and_leaves_all(node: Node, nodes: Nodes, before: dict[str, str]) -> None:
    predicted = play("kindnet.yml", f"--limit={NODE}", "--tags=routes", "--check", extra(**table(nodes, FOREIGN)))
    assert text(node) == before
    run = play("kindnet.yml", f"--limit={NODE}", "--tags=routes", extra(**table(nodes, FOREIGN)))
    assert text(node) == before
    for result in (predicted, run):
        assert result.rc != 0
        named = {f.dst for f in FOREIGN if f"route {f.dst}" in result.messages(NODE)}
        assert named == {f.dst for f in FOREIGN if f.conflict}
    assert ours(node) == {f.dst for f in FOREIGN if not f.conflict}
    # Nobody in the way costs another peer its route, nor its own peer that of the other family.
    others = {c for f in FOREIGN for c in f.peer["pod_cidrs"]} - {f.dst for f in FOREIGN}
    assert others <= set(node.own_routes(4)) | set(node.own_routes(6))


def test_passes_leave_all(node: Node, before: dict[str, str]) -> None:
    for _unused in range(3):
        assert node.do_pass() == "1"
        assert text(node) == before
    assert ours(node) == {f.dst for f in FOREIGN if not f.conflict}


def test_a_repair_leaves_all(node: Node, before: dict[str, str]) -> None:
    node.sh(f"ip -4 route flush {OURS}; ip -6 route flush {OURS}")
    assert text(node) == before
    assert node.do_pass() == "1"
    assert text(node) == before
    assert ours(node) == {f.dst for f in FOREIGN if not f.conflict}


def test_a_change_of_every_next_hop_leaves_all(node: Node, nodes: Nodes, before: dict[str, str]) -> None:
    """A replace, where ours is not alone at its destination, is what was seen to overwrite others."""
    moved = table(nodes, FOREIGN)
    for row in moved["kindnet_node_table"][len(nodes) :]:
        row["node_ips"] = [row["node_ips"][0].replace("172.18.2.", "172.18.3."), row["node_ips"][1].replace("::2:", "::3:")]
    run = play("kindnet.yml", f"--limit={NODE}", "--tags=routes", extra(**moved))
    assert run.rc != 0
    assert text(node) == before
    assert ours(node) == {f.dst for f in FOREIGN if not f.conflict}
    hops = {**node.own_routes(4), **node.own_routes(6)}
    assert all(".3." in hops[dst] or "::3:" in hops[dst] for dst in ours(node))


def test_a_prune_leaves_all(node: Node, nodes: Nodes, before: dict[str, str]) -> None:
    run = play("kindnet.yml", f"--limit={NODE}", "--tags=routes", extra(**table(nodes, []), kindnet_force_removals=True))
    assert run.rc == 0, run.output
    assert ours(node) == set()
    assert text(node) == before
    assert node.do_pass() == "0"
    assert text(node) == before


def test_teardown_leaves_all(node: Node, nodes: Nodes, before: dict[str, str]) -> None:
    assert play("kindnet.yml", f"--limit={NODE}", "--tags=routes", extra(**table(nodes, FOREIGN))).rc != 0
    assert ours(node) == {f.dst for f in FOREIGN if not f.conflict}
    run = play("teardown.yml", f"--limit={NODE}")
    assert run.rc == 0, run.output
    assert node.own_routes(4) == node.own_routes(6) == {}
    assert text(node) == before


def test_these_tests_can_fail(node: Node, before: dict[str, str]) -> None:
    """A blind replace and an append, which the kernel takes for one multipath route, would be seen."""
    first, multipath = FOREIGN[0], FOREIGN[6]
    node.sh(f"ip -4 route replace {first.dst} via 172.18.2.1 proto static")
    assert text(node)[first.name] != before[first.name]
    node.sh(f"ip -6 route append {multipath.dst} via {NET6}::2:1 proto static")
    assert text(node)[multipath.name] != before[multipath.name]
