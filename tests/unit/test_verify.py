# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kindnet_verify makes of what the host's tools say."""

from __future__ import annotations

__metaclass__ = type

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _plan_chain, _plan_forward
from ansible_collections.kindnet.host.plugins.module_utils._node_table import Node
from ansible_collections.kindnet.host.plugins.modules import kindnet_verify as verify

HOP = "172.18.0.3"
GOOD = {"dst": "10.244.1.2", "gateway": HOP, "dev": "eth0", "prefsrc": "172.18.0.2", "flags": []}


@pytest.mark.parametrize(
    "answer, expected",
    [
        (GOOD, ""),
        ("Network is unreachable", "there is none (Network is unreachable)"),
        (None, "there is none (no answer)"),
        (dict(GOOD, gateway="172.18.0.4"), "leads via 172.18.0.4 dev eth0, and not via 172.18.0.3"),
        ({k: v for k, v in GOOD.items() if k != "gateway"}, "as if its pods were on the link"),
        (dict(GOOD, type="local", dev="lo"), "leads nowhere (local)"),
        (dict(GOOD, type="blackhole"), "leads nowhere (blackhole)"),
        (dict(GOOD, flags=["linkdown"]), "over dev eth0, which has no link"),
    ],
)
def test_route_problem(answer, expected):
    assert expected in verify.route_problem(answer, HOP)
    assert bool(expected) == bool(verify.route_problem(answer, HOP))


def test_peers_that_are_not_on_link(monkeypatch):
    """What was decided about them is what a packet is expected to do."""
    peers = [Node(name, (ip,), ("10.244.%d.0/24" % i,)) for i, (name, ip) in enumerate([("near", HOP), ("far", "10.20.0.9"), ("left", "10.20.0.8")], 1)]
    hops = {"10.244.1.2": HOP, "10.244.2.2": "172.18.0.1"}
    monkeypatch.setattr(verify, "route_lookups", lambda addresses: {a: dict(GOOD, dst=a, gateway=hops[a]) for a in addresses})
    findings = verify.Findings()
    verify.routes(findings, peers, [4], {"10.20.0.9": ["via", "172.18.0.1"], "10.20.0.8": ["skip"]})
    assert (findings.problems, findings.routes) == ([], 2)
    assert len(findings.notes) == 1 and "left (10.20.0.8)" in findings.notes[0]
    findings = verify.Findings()
    verify.routes(findings, peers[:2], [4], {"10.20.0.9": ["onlink", "eth0"]})
    assert [p["subject"] for p in findings.problems] == ["route to 10.244.2.0/24 of far"]


@pytest.mark.parametrize("cidr, address", [("10.244.1.0/24", "10.244.1.2"), ("fd00:1::/64", "fd00:1::2")])
def test_first_pod(cidr, address):
    assert verify.first_pod(cidr) == address


NFT_CHAINS = [
    {"metainfo": {}},
    {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
    {"chain": {"family": "inet", "table": "mine", "name": "fwd", "hook": "forward", "policy": "drop"}},
    {"chain": {"family": "inet", "table": "mine", "name": "in", "hook": "input", "policy": "drop"}},
    {"chain": {"family": "inet", "table": "mine", "name": "sub"}},
    {"chain": {"family": "inet", "table": "open", "name": "fwd", "hook": "forward", "policy": "accept"}},
]


def test_dropping_chains():
    assert verify.dropping_chains(NFT_CHAINS) == ["nft inet mine fwd"]


CIDR = "10.244.0.0/16"


@pytest.mark.parametrize(
    "policy, rules, expected",
    [
        ("ACCEPT", (), ""),
        ("DROP", (), "iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT"),
        ("ACCEPT", ("-j REJECT --reject-with icmp-host-prohibited",), "kindnet_manage_forward"),
        ("DROP", ("-j ACCEPT",), ""),
        ("DROP", ("-s 10.244.0.0/16 -j ACCEPT", "-d 10.244.0.0/16 -j ACCEPT"), ""),
        ("DROP", ("-s 10.244.0.0/16 -j ACCEPT",), "drops what no rule accepts"),
        ("DROP", _plan_forward.wanted_rules([CIDR]), ""),
    ],
)
def test_forward_problem(policy, rules, expected):
    found = _plan_forward.Forward(policy, rules)
    problem = verify.forward_problem(_plan_chain.Place("legacy", "ipv4"), found, ["fd00::/48", CIDR])
    assert expected in problem and bool(problem) == bool(expected)


def test_without_cluster_cidrs_nothing_accepts_the_pods():
    found = _plan_forward.Forward("DROP", ())
    assert "no cluster CIDR" in verify.forward_problem(_plan_chain.Place("nft", "ipv4"), found, [])


def test_managed_veths():
    text = "eth0:connected (externally)\nveth12345678:disconnected\nvethabcdef01:unmanaged\nveth1:connected\nlo:unmanaged\n"
    assert verify.managed_veths(text) == ["veth12345678"]
