# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the difference to kindnetd that begin with a converge: what is wanted changes, or a run finds drift."""

from __future__ import annotations

import json
import re
from typing import Any

from nodes import (
    CHAIN,
    CONFLIST,
    SERVICE,
    TIMER,
    Node,
    RouteWatch,
    assert_converged,
    declared_table,
    expected_chain,
    play,
    until,
)

Nodes = dict[str, Node]


def extra(**variables: Any) -> str:
    return f"--extra-vars={json.dumps(variables)}"


def converge(node: Node, tags: str, *arguments: str) -> None:
    run = play("kindnet.yml", f"--limit={node}", f"--tags={tags}", *arguments)
    assert run.rc == 0, run.output


def test_a_cluster_cidr_comes_and_goes(nodes: Nodes) -> None:
    """One that comes later is not dead behind MASQUERADE; one that goes leaves no RETURN."""
    node = nodes["k8s-guide-worker"]
    both = [*node.cluster_cidrs, "10.245.0.0/16"]
    converge(node, "masquerade", extra(kindnet_cluster_cidrs=both))
    assert node.chain_lines() == expected_chain(both)
    assert node.do_pass() == "0"
    assert node.chain_lines() == expected_chain(both)
    converge(node, "masquerade")
    assert node.chain_lines() == expected_chain(node.cluster_cidrs)


def test_peers_change_and_one_cannot_be_reached(nodes: Nodes) -> None:
    node, moved, renumbered = nodes["k8s-guide-worker"], nodes["k8s-guide-control-plane"], nodes["k8s-guide-worker2"]
    rows = {row["name"]: row for row in declared_table(nodes)}
    # Two addresses of one family: the first is the next hop, in every pass.
    rows[moved.name]["node_ips"] = ["172.18.0.200", *moved.node_ips]
    rows[renumbered.name]["pod_cidrs"] = ["10.244.202.0/24"]
    # The bad one is not last, so that there is one whom it could cost its route.
    table = [{"name": "far", "node_ips": ["10.99.0.1"], "pod_cidrs": ["10.244.203.0/24"]}, *rows.values()]
    wanted = {moved.pod_cidrs[0]: "172.18.0.200", "10.244.202.0/24": renumbered.node_ips[0]}
    no_matter_the_pods = {"kindnet_force_pod_cidr_change": True}  # the renumbered one takes no part

    cursor = node.cursor()  # before it: a pass of the timer may be the first to say what the run recorded
    with RouteWatch(node) as watch:
        run = play("kindnet.yml", f"--limit={node}", "--tags=routes", extra(kindnet_node_table=table, **no_matter_the_pods))
        seen = [re.sub(r" dev .*", "", line) for line in watch.changes()]
    assert run.rc != 0
    message = run.messages(node.name)
    assert "far" in message and "10.99.0.1" in message and "on-link" in message
    assert not [p for p in (*rows, "172.18.0.200") if p != node.name and p in message]
    assert node.own_routes() == wanted
    # One replace; and the new pod CIDR before the old one goes.
    assert [line for line in seen if moved.pod_cidrs[0] in line] == [f"{moved.pod_cidrs[0]} via 172.18.0.200"]
    assert seen.index(f"10.244.202.0/24 via {renumbered.node_ips[0]}") < seen.index(f"Deleted {renumbered.pod_cidrs[0]} via {renumbered.node_ips[0]}")

    with RouteWatch(node) as watch:
        for _unused in range(6):  # kindnetd ends after five failures
            assert node.do_pass() == "1"
        assert watch.changes() == []
    assert node.own_routes() == wanted
    said = [line for line in node.journal(cursor) if "10.244.203.0/24" in line]
    assert len(said) == 1 and "far" in said[0], said
    node.sh(f"ip route del {moved.pod_cidrs[0]}")
    assert node.do_pass() == "1"
    assert node.own_routes() == wanted

    # A pass under way with the old table would be seen as one that had failed.
    converge(node, "routes", extra(**no_matter_the_pods))
    assert_converged(node, nodes)
    assert node.do_pass() == "0"
    assert_converged(node, nodes)


def test_a_node_without_a_pod_cidr_is_refused(nodes: Nodes) -> None:
    """kindnetd writes a conflist with an empty subnet."""
    without = declared_table(nodes)
    without[-1]["pod_cidrs"] = []
    for variables in ({"kindnet_node_table": without}, {"kindnet_pod_cidrs": []}):
        run = play("kindnet.yml", extra(**variables))
        assert run.rc != 0 and run.changed == [], run.output
        assert without[-1]["name"] in run.output and "pod_cidrs" in run.output
        for node in nodes.values():
            assert_converged(node, nodes)


def test_the_mtu_is_that_of_the_interface_that_reaches_the_peers(nodes: Nodes) -> None:
    """kindnetd takes that of an interface called eth0."""
    node = nodes["k8s-guide-worker"]
    # Larger, because a smaller one would break connections that are open, Ansible's to begin with.
    node.sh("ip link set eth0 name lan0 && ip link set lan0 mtu 1600 && ip link add eth0 mtu 1300 type veth peer name decoy && ip link set eth0 up")
    try:
        converge(node, "conflist")
        assert json.loads(node.read(CONFLIST))["plugins"][0]["mtu"] == 1600
        assert_converged(node, nodes)
    finally:
        node.run("ip link del eth0; ip link set lan0 mtu 1500; ip link set lan0 name eth0")
    # What auto decided holds until the next converge.
    assert node.do_pass() == "0"
    assert json.loads(node.read(CONFLIST))["plugins"][0]["mtu"] == 1600
    converge(node, "conflist")
    assert_converged(node, nodes)


def test_the_lock_of_iptables_is_waited_for_within_bounds(nodes: Nodes) -> None:
    """Only the legacy flavour has one."""
    node = nodes["k8s-guide-worker2"]
    converge(node, "masquerade", extra(kindnet_masq_backend="iptables-legacy"))
    assert node.chain_lines("iptables-nft-save") == []
    assert_converged(node, nodes, "iptables-legacy-save")
    node.sh("systemd-run --quiet --unit=holder flock /run/xtables.lock sleep infinity")
    try:
        until("the lock is held", lambda: node.run("flock --nonblock /run/xtables.lock true").rc or None)
        cursor = node.cursor()
        node.sh(f"XTABLES_LOCKFILE=/run/another.lock iptables-legacy -t nat -F {CHAIN}")
        node.sh("ip route flush proto 107")
        assert node.do_pass() == "1"
        # Named, and it cost nothing else.
        assert [line for line in node.journal(cursor) if re.search(r"problem.*lock", line)]
        assert node.chain_lines("iptables-legacy-save")[2:] == []
        assert len(node.own_routes()) == len(nodes) - 1
    finally:
        node.run("systemctl stop holder; rm -f /run/another.lock")
    assert node.do_pass() == "0"
    assert_converged(node, nodes, "iptables-legacy-save")
    converge(node, "masquerade", extra(kindnet_masq_backend="iptables-nft"))
    assert node.chain_lines("iptables-legacy-save") == []
    assert_converged(node, nodes)


def test_drift_is_predicted_and_then_gone(nodes: Nodes) -> None:
    """Check mode says of each thing that it would be changed, and changes none; the run then changes these."""
    node = nodes["k8s-guide-control-plane"]
    peer = nodes["k8s-guide-worker"]
    # Paused, because the first pass of a timer that is started would be quicker than the rest of the run.
    node.sh(f"kindnet-reconcile --pause 1h; systemctl disable --quiet --now {TIMER}; systemctl stop {SERVICE}")
    node.sh(f"ip route del {peer.pod_cidrs[0]}; iptables -t nat -F {CHAIN}; : >{CONFLIST}; rm /opt/cni/bin/ptp; sysctl -qw net.ipv4.ip_forward=0")
    predicted = play("kindnet.yml", f"--limit={node}", "--check", "--diff")
    assert predicted.rc == 0, predicted.output
    assert not node.host.service(TIMER).is_running
    assert (node.read(CONFLIST), node.sh("sysctl -n net.ipv4.ip_forward")) == ("", "0\n")
    assert peer.pod_cidrs[0] not in node.own_routes()
    for said in (f"route {peer.pod_cidrs[0]}", f"chain nat/{CHAIN}", CONFLIST, "/opt/cni/bin/ptp", "net.ipv4.ip_forward", TIMER):
        assert [c for c in predicted.changed if said in json.dumps(c["diff"])], said

    made = play("kindnet.yml", f"--limit={node}", "--diff")
    assert made.rc == 0, made.output
    assert made.pairs() == predicted.pairs()
    assert [c["diff"] for c in made.changed] == [c["diff"] for c in predicted.changed]
    assert_converged(node, nodes)
    assert node.host.service(TIMER).is_running and node.host.service(TIMER).is_enabled
    node.sh("kindnet-reconcile --resume")
    assert node.await_pass() == "0"
    assert_converged(node, nodes)
