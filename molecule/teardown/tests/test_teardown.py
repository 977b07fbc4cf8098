# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks/teardown.yml brings back, and what it leaves alone, told in order."""

from __future__ import annotations

import json
from typing import Any, Iterator

import pytest
from nodes import CONFLIST, PROTOCOL, Node, assert_converged, lab, play
from untouched.test_untouched import state

Nodes = dict[str, Node]
CONTROL, WORKER, WORKER2 = "k8s-guide-control-plane", "k8s-guide-worker", "k8s-guide-worker2"
BEFORE = "/var/lib/kindnet/before.json"
KINDNETD = {"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "ptp", "mtu": 1234}]}

# Neither a default of the kernel's nor what a converge makes of it; apart from what `state` looks at, where one is changed by somebody.
KEEPALIVE = "net.ipv4.tcp_keepalive_time"

# Somebody's, in places of ours, on hosts that forward already or not.
PRIORS = {
    CONTROL: f"""
        sysctl -qw net.ipv4.ip_forward=1 {KEEPALIVE}=1111
        mkdir -p /opt/cni/bin; cp /usr/lib/cni/ptp /opt/cni/bin/; ln -s /usr/libexec/cni/portmap /opt/cni/bin/
        rm -rf /etc/cni""",
    WORKER: f"""
        umask 077; echo '{json.dumps(KINDNETD)}' >{CONFLIST}; chown 1:2 {CONFLIST}
        echo 'net.ipv4.ip_forward = 0' >/etc/sysctl.d/zz-kindnet.conf
        sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth0.forwarding=1 # set anew whenever the first is
        ip route add 10.244.2.0/24 via 172.18.0.4 proto static""",
    WORKER2: f"""
        printf '{{' >{CONFLIST}
        mkdir -p /etc/iproute2/rt_protos.d; echo '107 somebody' >/etc/iproute2/rt_protos.d/kindnet.conf
        ip route add 10.244.0.0/24 via 172.18.0.100 metric 50""",
}
UNDO = {
    CONTROL: f"sysctl -qw {KEEPALIVE}=7200",
    WORKER: """
        rm /etc/sysctl.d/zz-kindnet.conf; ip route del 10.244.2.0/24 proto static
        sysctl -qw net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.eth0.forwarding=0""",
    WORKER2: "rm /etc/iproute2/rt_protos.d/kindnet.conf; ip route del 10.244.0.0/24 metric 50",
}


@pytest.fixture(scope="module")
def before(nodes: Nodes) -> Iterator[dict[str, dict[str, list[str]]]]:
    """What was there, by node."""
    for name, node in nodes.items():
        node.sh(PRIORS[name])
    yield {name: state(node) for name, node in nodes.items()}
    for name, node in nodes.items():
        node.sh(UNDO[name])


def extra(**variables: Any) -> str:
    return f"--extra-vars={json.dumps(variables)}"


def at_rest(node: Node) -> dict[str, Any]:
    """Less the IPv6 addresses of a pod's interface, which the kernel takes its time with."""
    return {**state(node), "routes": node.routes()}


def test_converged(nodes: Nodes, before: dict[str, Any]) -> None:
    wanted = extra(kindnet_sysctls={KEEPALIVE: 2222})
    run = play("kindnet.yml", wanted)
    assert run.rc == 0, run.output
    assert_converged(nodes[CONTROL], nodes)
    # A right route of somebody else's serves the peer, and one of a higher metric is behind ours.
    assert sorted(nodes[WORKER].own_routes()) == ["10.244.0.0/24"]
    assert sorted(nodes[WORKER2].own_routes()) == ["10.244.0.0/24", "10.244.1.0/24"]
    for name, node in nodes.items():
        assert json.loads(node.read(CONFLIST))["plugins"][0]["mtu"] == 1500
        assert node.sh(f"sysctl -n net.ipv4.ip_forward {KEEPALIVE}").split() == ["1", "2222"]
        assert state(node)["contents"] != before[name]["contents"]
    # What is there by now was not there before.
    kept = {name: node.read(BEFORE) for name, node in nodes.items()}
    run = play("kindnet.yml", f"--limit={WORKER}", extra(kindnet_sysctls={KEEPALIVE: 2222}, kindnet_reconcile_interval=11, kindnet_mtu=1400))
    assert run.rc == 0 and {c["host"] for c in run.changed} == {WORKER}
    assert {name: node.read(BEFORE) for name, node in nodes.items()} == kept


def test_refused_where_pods_run(nodes: Nodes) -> None:
    node = nodes[CONTROL]
    lab("pods", "add", CONTROL, "stays")
    try:
        (pod,) = (r["dst"] for r in node.routes() if r.get("dev", "").startswith("veth"))
        now = at_rest(node)
        run = play("teardown.yml", f"--limit={node}")
        assert run.rc != 0 and run.changed == []
        assert pod in run.messages(CONTROL) and "stays" in run.messages(CONTROL) and "kindnet_teardown_force" in run.messages(CONTROL)
        assert at_rest(node) == now
        forced = play("teardown.yml", "--check", f"--limit={node}", extra(kindnet_teardown_force=True))
        assert forced.rc == 0 and len(forced.changed) > 4
        assert at_rest(node) == now
    finally:
        lab("pods", "remove", CONTROL, "stays")
        node.sh("rm -rf /run/cni-ipam-state /var/lib/cni /run/kindnet-lab")  # what the plugins and the lab keep of it


def test_what_was_before_is_back(nodes: Nodes, before: dict[str, Any]) -> None:
    for node in nodes.values():
        node.sh("kindnet-reconcile --pause 1h")
    # Somebody else's by now.
    nodes[CONTROL].sh(f"sysctl -qw {KEEPALIVE}=3333")
    nodes[WORKER].sh("ip route replace 10.244.0.0/24 via 172.18.0.100 proto static")
    predicted = play("teardown.yml", "--check", "--diff")
    assert predicted.rc == 0, predicted.output
    run = play("teardown.yml", "--diff")
    assert run.rc == 0, run.output
    # The last task looks again for what the first ones left, and has nothing to look for in check mode.
    last = "Remove what is left of kindnet-reconcile"
    assert [p for p in run.pairs() if p[1] != last] == predicted.pairs()
    diffs = {(c["host"], c["task"]): c["diff"] for c in predicted.changed}
    assert [c["task"] for c in run.changed if c["task"] != last and c["diff"] != diffs[c["host"], c["task"]]] == []

    assert nodes[WORKER].sh("ip route del 10.244.0.0/24 via 172.18.0.100 proto static") == ""
    assert nodes[CONTROL].sh(f"sysctl -n {KEEPALIVE}") == "3333\n" and "tcp_keepalive_time: is 3333 and not ours" in run.output
    assert [nodes[n].sh(f"sysctl -n {KEEPALIVE}") for n in (WORKER, WORKER2)] == ["7200\n", "7200\n"]
    for name, node in nodes.items():
        now = state(node)
        assert {k: v for k, v in now.items() if v != before[name][k]} == {}, name
        assert node.routes(PROTOCOL) == [] and node.sh("ls -A /var/lib /run").count("kindnet\n") == 0


def test_a_second_teardown_takes_nothing_of_others(nodes: Nodes, before: dict[str, Any]) -> None:
    # Rules of a kindnetd on a host that was never ours, or is no longer.
    node = nodes[WORKER]
    node.sh("iptables -t nat -N KIND-MASQ-AGENT; iptables -t nat -A POSTROUTING -j KIND-MASQ-AGENT")
    try:
        assert play("teardown.yml").changed == []
        assert len(node.chain_lines()) == 2
    finally:
        node.sh("iptables -t nat -D POSTROUTING -j KIND-MASQ-AGENT; iptables -t nat -X KIND-MASQ-AGENT")
    for name, node in nodes.items():
        assert state(node) == before[name], name


def test_a_chain_that_others_use_costs_nothing_else(nodes: Nodes, before: dict[str, Any]) -> None:
    node = nodes[WORKER2]
    run = play("kindnet.yml", f"--limit={node}")
    assert run.rc == 0, run.output
    rule = "-A SOMEBODYS -o eth7 -j KIND-MASQ-AGENT"
    node.sh(f"kindnet-reconcile --pause 1h; iptables -t nat -N SOMEBODYS; iptables -t nat {rule}")
    chain = node.chain_lines()
    for _again in range(2):
        run = play("teardown.yml", f"--limit={node}")
        assert run.rc != 0 and [f["task"] for f in run.failed] == ["Tell what could not be taken out"] and rule in run.messages(WORKER2)
        now = state(node)
        assert [k for k in ("routes", "rules", "sysctls", "units", "timers", "ip6tables-nft") if now.get(k) != before[WORKER2].get(k)] == []
        assert node.chain_lines() == chain and not node.host.file(BEFORE).exists
    node.sh("iptables -t nat -F SOMEBODYS; iptables -t nat -X SOMEBODYS")
    run = play("teardown.yml", f"--limit={node}")
    assert run.rc == 0 and "Remove the masquerade chain" in [c["task"] for c in run.changed], run.output
    assert state(node) == before[WORKER2]


def test_a_difference_would_be_seen(nodes: Nodes, before: dict[str, Any]) -> None:
    node = nodes[WORKER2]
    for change, back, what in (
        ("touch /etc/left", "rm /etc/left", "files"),
        (f"echo >>{CONFLIST}", f"printf '{{' >{CONFLIST}", "contents"),
        ("ip route add 10.244.9.0/24 via 172.18.0.3", "ip route del 10.244.9.0/24", "routes"),
        ("iptables -t nat -A SOMEBODY -j RETURN", "iptables -t nat -D SOMEBODY -j RETURN", "iptables-nft"),
        ("sysctl -qw net.ipv4.conf.eth0.rp_filter=1", "sysctl -qw net.ipv4.conf.eth0.rp_filter=0", "sysctls"),
    ):
        node.sh(change)
        assert what in [k for k, v in state(node).items() if v != before[node.name][k]]
        node.sh(back)
    assert state(node) == before[node.name]
