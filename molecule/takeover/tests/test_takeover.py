# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From kindnetd to this collection on running nodes, told in order: each test goes on where the one before it ended."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import ExitStack
from typing import Any, Iterator

import pytest
from nodes import (
    CHAIN,
    CONFLIST,
    PROTOCOL,
    Node,
    RouteWatch,
    RuleWatch,
    assert_converged,
    lab,
    play,
    until,
)
from traffic import OUTSIDE, Pod, Traffic

Nodes = dict[str, Node]
CONTROL, WORKER, WORKER2 = "k8s-guide-control-plane", "k8s-guide-worker", "k8s-guide-worker2"
LEGACY = CONTROL  # where kindnetd found rules of others in legacy tables, and added its own to them
BOOT = "3"

# As kindnetd writes it, blanks of its template and all.
KINDNETD_CONFLIST = """
{
	"cniVersion": "0.3.1",
	"name": "kindnet",
	"plugins": [
	{
		"type": "ptp",
		"ipMasq": false,
		"ipam": {
			"type": "host-local",
			"dataDir": "/run/cni-ipam-state",
			"routes": [
				
				
				{ "dst": "0.0.0.0/0" }
			],
			"ranges": [
				
				
				[ { "subnet": "%s" } ]
			]
		}
		,
		"mtu": %d
		
	},
	{
		"type": "portmap",
		"capabilities": {
			"portMappings": true
		}
	}
	]
}
"""  # noqa: W293

# The commands that kindnetd and its copy of ip-masq-agent issue.
KINDNETD_RULES = """
{tool} -w 5 -N KIND-MASQ-AGENT -t nat
{tool} -w 5 -A POSTROUTING -t nat -m addrtype ! --dst-type LOCAL -m comment --comment \
"kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain" -j KIND-MASQ-AGENT
{tool} -w 5 -A KIND-MASQ-AGENT -t nat -d {cidr} -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
{tool} -w 5 -A KIND-MASQ-AGENT -t nat -m comment --comment \
"kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
"""


def save_of(node: Node) -> str:
    return "iptables-legacy-save" if node.name == LEGACY else "iptables-nft-save"


def as_kindnetd_leaves_it(node: Node, nodes: Nodes) -> None:
    peers = [p for p in nodes.values() if p is not node]
    # What kind's node image has: the plugins, and forwarding.
    node.sh("sysctl -qw net.ipv4.ip_forward=1; mkdir -p /opt/cni/bin; cp /usr/lib/cni/* /opt/cni/bin/")
    for peer in peers:
        node.sh(f"ip route add {peer.pod_cidr(4)} via {peer.node_ip(4)}")
    node.sh(KINDNETD_RULES.format(tool=save_of(node).removesuffix("-save"), cidr=node.cluster_cidrs[0]))
    mtu = node.peer_interface(peers[0].node_ip(4))["mtu"]
    node.write(f"{CONFLIST}.temp", KINDNETD_CONFLIST % (node.pod_cidr(4), mtu))
    node.sh(f"mv {CONFLIST}.temp {CONFLIST}")


@pytest.fixture(scope="module")
def pods(nodes: Nodes) -> Iterator[dict[str, Pod]]:
    """One on each node, by the name of the node."""
    for node in nodes.values():
        as_kindnetd_leaves_it(node, nodes)
    try:
        for name in nodes:
            lab("pods", "add", name, "taken")
        yield {name: Pod(node, "taken") for name, node in nodes.items()}
    finally:
        for name in nodes:
            lab("pods", "remove", name, "taken")


@pytest.fixture(scope="module")
def ring(pods: dict[str, Pod]) -> list[tuple[Pod, Pod]]:
    return [(pods[CONTROL], pods[WORKER]), (pods[WORKER], pods[WORKER2]), (pods[WORKER2], pods[CONTROL])]


def taking_over(**more: Any) -> str:
    return f"--extra-vars={json.dumps({'kindnet_takeover': True, **more})}"


def counters(node: Node) -> list[int]:
    """Packets that each rule about the chain has met, in order."""
    lines = node.sh(f"{save_of(node)} -c -t nat").splitlines()
    return [int(re.match(r"\[(\d+):", line)[1]) for line in lines if line.startswith("[") and CHAIN in line]  # type: ignore[index]


def test_refused_while_kindnetd_runs(nodes: Nodes, pods: dict[str, Pod]) -> None:
    node = nodes[WORKER]
    before = node.routes(), node.nat(), node.sh(f"stat {CONFLIST}")
    node.sh("systemd-run --quiet --unit=kindnetd bash -c 'exec -a /bin/kindnetd sleep infinity'")
    try:
        pid = until("kindnetd runs", lambda: node.run("pgrep -f '^/bin/kindnetd infinity'").stdout.strip() or None)
        for arguments in (["--tags=routes"], []):
            run = play("kindnet.yml", f"--limit={node}", taking_over(), *arguments)
            assert run.rc != 0 and run.changed == [], run.output
            assert "kindnetd" in run.messages(WORKER) and pid in run.messages(WORKER) and "Stop it" in run.messages(WORKER)
    finally:
        node.sh("systemctl stop kindnetd")
    assert (node.routes(), node.nat(), node.sh(f"stat {CONFLIST}")) == before
    assert node.run("ls /etc/kindnet /var/lib/kindnet").stdout == ""


def test_nothing_is_lost(nodes: Nodes, ring: list[tuple[Pod, Pod]]) -> None:
    files = {name: node.sh(f"stat -c '%i %Y %Z' {CONFLIST}") for name, node in nodes.items()}
    with ExitStack() as stack:
        counted = {name: counters(node) for name, node in nodes.items()}
        traffic = [stack.enter_context(Traffic(a, b)) for a, b in ring]
        outside = [stack.enter_context(Traffic(a, OUTSIDE)) for a, _b in ring]
        routes = {name: stack.enter_context(RouteWatch(node)) for name, node in nodes.items()}
        rules = {name: stack.enter_context(RuleWatch(node)) for name, node in nodes.items()}
        run = play("kindnet.yml", taking_over())
        assert run.rc == 0, run.output
        for name, node in nodes.items():
            # One replace for each peer, and not a word about the rules.
            assert sorted(line.split()[0] for line in routes[name].changes()) == sorted(p.pod_cidr(4) for p in nodes.values() if p is not node)
            assert rules[name].changes() == []
            now = counters(node)
            assert len(now) == 3 and all(n >= c for n, c in zip(now, counted[name])) and now[0] > counted[name][0]
        for t in traffic:
            t.assert_nothing_lost(seen_as=t.source.address)
        for t in outside:
            t.assert_nothing_lost(seen_as=t.source.node.node_ip(4))
    for name, node in nodes.items():
        assert_converged(node, nodes, save_of(node))
        assert [r["dst"] for r in node.routes(BOOT) if "gateway" in r] == ["10.244.200.0/24"]  # somebody else's
        assert node.sh(f"stat -c '%i %Y %Z' {CONFLIST}") == files[name]
        assert CHAIN not in node.sh("iptables-nft-save" if name == LEGACY else "iptables-legacy-save")


def test_from_then_on_it_is_as_ever(nodes: Nodes) -> None:
    """The next run does not say takeover any more."""
    node = nodes[WORKER]
    with RouteWatch(node) as watch:
        run = play("kindnet.yml", "--diff", f"--limit={node}")
        assert run.rc == 0, run.output
        # That it takes over was recorded, and now it is not.
        (change,) = run.changed
        assert "takeover" in json.dumps(change["diff"])
        assert node.do_pass() == "0"
        assert watch.changes() == []


def test_the_chain_moves_to_another_flavour_without_a_gap(nodes: Nodes, pods: dict[str, Pod]) -> None:
    """Every new connection to a host outside finds a masquerade."""
    node = nodes[LEGACY]
    with Traffic(pods[LEGACY], OUTSIDE) as traffic:
        run = play("kindnet.yml", f"--limit={node}", "--tags=masquerade", f"--extra-vars={json.dumps({'kindnet_masq_backend': 'iptables-nft'})}")
        assert run.rc == 0, run.output
        assert node.chain_lines("iptables-legacy-save") == []
        assert_converged(node, nodes, "iptables-nft-save")
        traffic.assert_nothing_lost(seen_as=node.node_ip(4))


def test_a_loss_would_be_seen(nodes: Nodes, ring: list[tuple[Pod, Pod]]) -> None:
    source, target = ring[0]
    node = source.node
    node.sh("kindnet-reconcile --pause 1h")
    try:
        with Traffic(source, target) as traffic:
            node.sh(f"ip route del {target.node.pod_cidr(4)} proto {PROTOCOL}; sleep 0.3")
            node.sh(f"ip route add {target.node.pod_cidr(4)} via {target.node.node_ip(4)} proto {PROTOCOL}")
            with pytest.raises(AssertionError):
                traffic.assert_nothing_lost(seen_as=source.address)
        jump = next(line for line in node.nat("iptables-nft-save") if line.startswith("-A POSTROUTING") and CHAIN in line)
        with Traffic(source, OUTSIDE) as traffic:
            node.sh(f"iptables-nft -t nat -D {shlex.join(shlex.split(jump)[1:])}; sleep 0.3")
            node.sh(f"iptables-nft -t nat {shlex.join(shlex.split(jump))}")
            with pytest.raises(AssertionError):
                traffic.assert_nothing_lost(seen_as=node.node_ip(4))
    finally:
        node.sh("kindnet-reconcile --resume")
    assert node.do_pass() == "0"
    assert_converged(node, nodes, "iptables-nft-save")
