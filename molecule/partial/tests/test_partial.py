# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that see a part of the nodes, or know a part of what there is to know: no node loses a route that the inventory did not take away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml
from nodes import Node, assert_converged, declared_table, lab, load_inventory, play, start_play

Nodes = dict[str, Node]


def extra(**variables: Any) -> str:
    return f"--extra-vars={json.dumps(variables)}"


def inventory_of(path: Path, hosts: list[str], **variables: Any) -> Path:
    """The scenario's inventory with these hosts alone."""
    inventory = load_inventory()
    group = inventory["kindnet_nodes"]
    group["hosts"] = {name: group["hosts"][name] for name in hosts}
    group["vars"].update(variables)
    path.write_text(yaml.safe_dump(inventory))
    return path


@pytest.fixture(autouse=True)
def converged(nodes: Nodes) -> Iterator[None]:
    """Every test begins and ends with all routes, which two passes do not change either."""
    for node in nodes.values():
        assert_converged(node, nodes)
    yield
    for node in nodes.values():
        assert node.do_pass() == "0"
        assert_converged(node, nodes)


def test_one_node_is_down(nodes: Nodes) -> None:
    down = nodes["k8s-guide-worker2"]
    lab("nodes", "stop", down.name)
    try:
        run = play("kindnet.yml")
        assert (run.unreachable, run.failed, run.changed) == ([down.name], [], [])
        for node in nodes.values():
            if node is not down:
                assert_converged(node, nodes)
    finally:
        lab("nodes", "start", down.name)
    down.await_pass(since=0)


def test_limited_to_one_node(nodes: Nodes) -> None:
    run = play("kindnet.yml", "--limit=k8s-guide-control-plane")
    assert (run.rc, run.changed, run.failed) == (0, [], []), run.output


def test_limited_to_one_node_that_lost_all(nodes: Nodes) -> None:
    """It gets routes to all, also to those whom the run does not see."""
    node = nodes["k8s-guide-worker"]
    node.sh("kindnet-reconcile --pause 1h; ip route flush proto 107")
    try:
        run = play("kindnet.yml", "--limit=k8s-guide-worker", "--tags=routes")
        assert (run.rc, {host for host, _task in run.pairs()}) == (0, {node.name}), run.output
        assert_converged(node, nodes)
    finally:
        node.sh("kindnet-reconcile --resume")


def test_no_facts_or_those_of_others(nodes: Nodes, tmp_path: Path) -> None:
    """Facts of one host in the cache, and wrong ones: none of it decides anything."""
    wrong = {"ansible_default_ipv4": {"address": "172.18.9.9"}, "ansible_all_ipv4_addresses": ["172.18.9.9"], "ansible_hostname": "nobody"}
    (tmp_path / "k8s-guide-worker").write_text(json.dumps(wrong))
    run = play(
        "kindnet.yml",
        ANSIBLE_GATHERING="explicit",
        ANSIBLE_CACHE_PLUGIN="ansible.builtin.jsonfile",
        ANSIBLE_CACHE_PLUGIN_CONNECTION=str(tmp_path),
    )
    assert (run.rc, run.changed, run.failed) == (0, [], []), run.output


def test_each_node_from_an_inventory_of_its_own(nodes: Nodes, tmp_path: Path) -> None:
    table = declared_table(nodes)
    for node in nodes.values():
        node.sh("kindnet-reconcile --pause 1h; ip route flush proto 107")
    try:
        runs = {name: start_play("kindnet.yml", "--tags=routes", inventory=inventory_of(tmp_path / name, [name], kindnet_node_table=table)) for name in nodes}
        for name, result in runs.items():
            run = result()
            assert (run.rc, {host for host, _task in run.pairs()}) == (0, {name}), run.output
        for node in nodes.values():
            assert_converged(node, nodes)
    finally:
        for node in nodes.values():
            node.sh("kindnet-reconcile --resume")


def test_each_node_from_an_inventory_of_its_own_without_the_table(nodes: Nodes, tmp_path: Path) -> None:
    """An inventory of one node says that it has no peers: that would take them all away, and is refused."""
    name = "k8s-guide-worker"
    run = play("kindnet.yml", "--tags=routes", inventory=inventory_of(tmp_path / name, [name]))
    assert run.rc != 0 and run.changed == [], run.output
    assert all(peer in run.messages(name) for peer in nodes if peer != name)


def test_the_nodes_of_a_kubernetes_cluster_are_the_same_nodes(nodes: Nodes, tmp_path: Path) -> None:
    """What kubectl prints of them serves as the inventory; only how to log in comes from elsewhere."""
    items = [
        {
            "metadata": {"name": row["name"]},
            "spec": {"podCIDR": row["pod_cidrs"][0], "podCIDRs": row["pod_cidrs"]},
            "status": {"addresses": [{"type": "Hostname", "address": row["name"]}] + [{"type": "InternalIP", "address": ip} for ip in row["node_ips"]]},
        }
        for row in declared_table(nodes)
    ]
    group = load_inventory()["kindnet_nodes"]
    (tmp_path / "nodes.json").write_text(json.dumps({"kind": "List", "items": items}))
    source = {"plugin": "kindnet.host.kube_nodes", "file": "../nodes.json", "cluster_cidrs": group["vars"].pop("kindnet_cluster_cidrs")}
    log_in = {"hosts": {name: {k: v for k, v in host.items() if k.startswith("ansible_user")} for name, host in group["hosts"].items()}}
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (inventory / "cluster.kube_nodes.yml").write_text(yaml.safe_dump(source))
    (inventory / "log_in.yml").write_text(yaml.safe_dump({"kindnet_nodes": {**log_in, "vars": group["vars"]}}))
    for node in nodes.values():
        node.sh("kindnet-reconcile --pause 1h; ip route flush proto 107")
    try:
        run = play("kindnet.yml", inventory=inventory)
        assert (run.rc, run.failed) == (0, []), run.output
        assert [(host, task.rpartition(" : ")[2]) for host, task in run.pairs()] == [(name, "Route to the pods of the peers") for name in sorted(nodes)]
    finally:
        for node in nodes.values():
            node.sh("kindnet-reconcile --resume")


def test_a_host_taken_out_of_the_inventory(nodes: Nodes, tmp_path: Path) -> None:
    """Exactly its routes go. It itself, whom nobody asked, keeps its own."""
    gone = nodes["k8s-guide-worker2"]
    left = {name: node for name, node in nodes.items() if node is not gone}
    inventory = inventory_of(tmp_path / "left", list(left))
    predicted = play("kindnet.yml", "--tags=routes", "--check", "--diff", inventory=inventory)
    assert_converged(gone, nodes)
    for node in left.values():
        assert_converged(node, nodes)
    run = play("kindnet.yml", "--tags=routes", "--diff", inventory=inventory)
    assert run.rc == 0, run.output
    assert (run.pairs(), {host for host, _task in run.pairs()}) == (predicted.pairs(), set(left))
    for node in left.values():
        assert node.do_pass() == "0"
        assert_converged(node, left)
    assert gone.do_pass() == "0"
    assert_converged(gone, nodes)
    assert play("kindnet.yml", "--tags=routes").rc == 0


def test_too_many_taken_out(nodes: Nodes) -> None:
    """None goes, and all are named; then, forced, all go."""
    node = nodes["k8s-guide-worker"]
    # Routes ask for a next hop that is on-link, not for one that answers.
    rows = [{"name": f"fleet-{i}", "node_ips": [f"172.18.1.{i}"], "pod_cidrs": [f"10.244.{100 + i}.0/24"]} for i in range(1, 7)]
    fleet = {**node.own_routes(), **{r["pod_cidrs"][0]: r["node_ips"][0] for r in rows}}
    only = [f"--limit={node}", "--tags=routes"]
    assert play("kindnet.yml", *only, extra(kindnet_node_table=declared_table(nodes) + rows)).rc == 0
    assert node.own_routes() == fleet

    for check in ([], ["--check"]):
        run = play("kindnet.yml", *only, *check)
        assert run.rc != 0 and run.changed == [], run.output
        assert all(r["name"] in run.messages(node.name) for r in rows)
        assert node.own_routes() == fleet
    assert node.do_pass() == "0"
    assert node.own_routes() == fleet

    # A part of them, within what is allowed, goes.
    assert play("kindnet.yml", *only, extra(kindnet_node_table=declared_table(nodes) + rows[:4])).rc == 0
    assert node.own_routes() == {dst: hop for dst, hop in fleet.items() if dst not in ("10.244.105.0/24", "10.244.106.0/24")}
    assert play("kindnet.yml", *only, extra(kindnet_force_removals=True)).rc == 0


def test_a_batch_that_fails_stops_the_rest(nodes: Nodes) -> None:
    """One host at a time, the first of which has somebody else's route in the way; without batches the others go on."""
    first, *others = nodes.values()
    taken, hop = sorted(first.own_routes().items())[0]
    row = {"name": "fleet-1", "node_ips": ["172.18.1.1"], "pod_cidrs": ["10.244.101.0/24"]}
    bigger = extra(kindnet_node_table=declared_table(nodes) + [row])
    first.sh(f"kindnet-reconcile --pause 1h; ip route del {taken} via {hop}; ip route add blackhole {taken}")
    try:
        run = play("kindnet.yml", "--tags=routes", bigger, "--extra-vars=kindnet_serial=1")
        assert run.rc != 0 and {f["host"] for f in run.failed} == {first.name} and taken in run.messages(first.name), run.output
        assert {host for host, _task in run.pairs()} <= {first.name}
        assert [n for n in others if "10.244.101.0/24" in n.own_routes()] == []

        run = play("kindnet.yml", "--tags=routes", bigger)
        assert run.rc != 0 and {f["host"] for f in run.failed} == {first.name}, run.output
        assert {host for host, _task in run.pairs()} == {n.name for n in others}
        assert [n for n in others if "10.244.101.0/24" not in n.own_routes()] == []
    finally:
        first.sh(f"ip route del blackhole {taken}; kindnet-reconcile --resume")
        assert play("kindnet.yml", "--tags=routes").rc == 0
