# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run starts on a node: two modules if there is nothing to do, however many peers there are, and those that have to do otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from nodes import INVENTORIES, Node, Run, load_inventory, play, runs

LOOKS = ["See who has nothing to do", "Look at the host, its network, and for daemons that program the same routes"]
ROUTES = "Route to the pods of the peers"
MTU = "Write the CNI configuration"  # which records by whose addresses it chose the MTU


def started(run: Run, node: Node) -> list[str]:
    return [task.rpartition(" : ")[2] for host, task in run.modules if host == node.name]


def test_a_second_run_looks_and_starts_nothing_else(node: Node) -> None:
    last = [r for r in runs() if r.playbook == "kindnet.yml"][-1]
    assert started(last, node) == LOOKS


@pytest.fixture
def many(tmp_path: Path, nodes: dict[str, Node]) -> list[str]:
    """The options for a run in which each node has fifty further peers. Nobody connects to these, and no packet is sent there."""
    far = {"far-%d" % n: {"kindnet_node_ips": ["172.18.1.%d" % n], "kindnet_pod_cidrs": ["10.244.%d.0/24" % (n + 100)]} for n in range(1, 51)}
    inventory = load_inventory()
    inventory["kindnet_nodes"]["hosts"].update(far)
    path = tmp_path / "many.yml"
    path.write_text(yaml.safe_dump(inventory))
    return ["--limit=%s" % ",".join(nodes), "--inventory=%s" % path]


def test_with_fifty_peers_more_it_is_as_few(nodes: dict[str, Node], many: list[str]) -> None:
    assert len(INVENTORIES) == 1
    first = play("kindnet.yml", *many)
    try:
        assert (first.rc, first.failed) == (0, [])
        assert {task.rpartition(" : ")[2] for _host, task in first.pairs()} == {MTU, ROUTES}
        for node in nodes.values():
            assert len(node.own_routes()) == len(nodes) - 1 + 50
            assert started(first, node) in ([*LOOKS, ROUTES], [*LOOKS, MTU, ROUTES])
        again = play("kindnet.yml", *many)
        assert again.pairs() == []
        for node in nodes.values():
            assert started(again, node) == LOOKS
    finally:
        assert play("kindnet.yml", "--extra-vars=kindnet_force_removals=true").rc == 0


def test_what_was_damaged_is_mended_by_the_one_module_whose_it_is(nodes: dict[str, Node]) -> None:
    node, peer = list(nodes.values())[:2]
    node.sh("kindnet-reconcile --pause 5m")
    try:
        node.sh("ip route del %s" % peer.pod_cidr(4))
        predicted = play("kindnet.yml", "--check")
        made = play("kindnet.yml")
    finally:
        node.sh("kindnet-reconcile --resume")
    assert predicted.pairs() == made.pairs() == [(node.name, "kindnet.host.routes : %s" % ROUTES)]
    assert node.own_routes()[peer.pod_cidr(4)] == peer.node_ip(4)
    assert started(made, node) == [*LOOKS, ROUTES]
    assert started(made, peer) == LOOKS
