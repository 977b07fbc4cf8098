# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dual-stack nodes among single-stack ones: between any two, what both have."""

from __future__ import annotations

import copy
import json

from nodes import CHAIN, CONFLIST, PROTOCOL, Node, assert_converged, declared_table, of_family, play

Nodes = dict[str, Node]


def narrowed(node: Node, family: int) -> Node:
    """The node, did it have that family alone."""
    other = copy.copy(node)
    other.node_ips = of_family(family, node.node_ips)
    other.pod_cidrs = of_family(family, node.pod_cidrs)
    return other


def test_two_of_a_family_each_and_one_of_both(nodes: Nodes) -> None:
    dual = nodes["k8s-guide-control-plane"]
    four, six = narrowed(nodes["k8s-guide-worker"], 4), narrowed(nodes["k8s-guide-worker2"], 6)
    mixed = {n.name: n for n in (dual, four, six)}

    run = play("kindnet.yml", f"--extra-vars={json.dumps({'kindnet_node_table': declared_table(mixed)})}")
    assert (run.rc, run.failed) == (0, []), run.output
    assert dual.own_routes(4) == {four.pod_cidr(4): four.node_ip(4)}
    assert dual.own_routes(6) == {six.pod_cidr(6): six.node_ip(6)}
    assert (four.own_routes(4), four.routes(PROTOCOL, 6)) == ({dual.pod_cidr(4): dual.node_ip(4)}, [])
    assert (six.routes(PROTOCOL, 4), six.own_routes(6)) == ([], {dual.pod_cidr(6): dual.node_ip(6)})
    for node in mixed.values():
        assert node.do_pass() == "0"
        assert_converged(node, mixed)
    assert [r["dst"] for r in json.loads(four.read(CONFLIST))["plugins"][0]["ipam"]["routes"]] == ["0.0.0.0/0"]
    assert [r["dst"] for r in json.loads(six.read(CONFLIST))["plugins"][0]["ipam"]["routes"]] == ["::/0"]
    # Of the cluster, not of the node: what a pod of one family sends to the cluster is not masqueraded anywhere.
    assert all(CHAIN in node.sh(f"{save} -t nat") for node in mixed.values() for save in ("iptables-save", "ip6tables-save"))

    again = play("kindnet.yml")
    assert (again.rc, again.failed) == (0, []), again.output
    for node in nodes.values():
        assert_converged(node, nodes)


def test_verification_finds_nothing() -> None:
    run = play("verify.yml")
    assert (run.rc, run.changed) == (0, []), run.output
