# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is damaged of IPv6 alone is right after the next completed pass, each damage with its line in the journal."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest
from nodes import (
    CHAIN,
    CONFLIST,
    PROTOCOL,
    Node,
    RouteWatch,
    RuleWatch,
    assert_converged,
    expected_chain,
    of_family,
)

Nodes = dict[str, Node]

NAT = "ip6tables -t nat"
RETURN = '-d fd00:10:244::/56 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
JUMP = expected_chain([])[1].replace("-A POSTROUTING ", "")


@dataclass
class Damage:
    name: str
    command: str
    lines: list[str]  # of the journal, as patterns: what was changed, from what, to what


DAMAGES = [
    Damage("route deleted", "ip -6 route del {dst}", ["add route {dst}: absent -> via {hop} .*"]),
    Damage(
        "all routes deleted",
        f"ip -6 route flush proto {PROTOCOL}",
        ["add route {dst}: absent -> via {hop} .*", "add route {dst2}: absent -> via {hop2} .*"],
    ),
    Damage("next hop changed", f"ip -6 route replace {{dst}} via {{hop2}} proto {PROTOCOL}", ["replace route {dst}: via {hop2} .* -> via {hop} .*"]),
    Damage(
        "metric",
        f"ip -6 route del {{dst}}; ip -6 route add {{dst}} via {{hop}} metric 50 proto {PROTOCOL}",
        ["add route {dst}.*", "remove route {dst}.*metric 50.*"],
    ),
    Damage(
        "route of a node that is gone",
        f"ip -6 route add fd00:10:244:77::/64 via {{hop}} proto {PROTOCOL}",
        ["remove route fd00:10:244:77::/64: via {hop} .* -> absent .*"],
    ),
    Damage("RETURN deleted", f"{NAT} -D {CHAIN} {RETURN}", ["replace ip6tables.*chain nat/{chain}: .* -> .*RETURN.*"]),
    Damage("RETURN dead behind MASQUERADE", f"{NAT} -D {CHAIN} {RETURN}; {NAT} -A {CHAIN} {RETURN}", ["replace ip6tables.*chain nat/{chain}: .*"]),
    Damage("rule inserted", f"{NAT} -I {CHAIN} -s 2001:db8::/32 -j ACCEPT", ["replace ip6tables.*chain nat/{chain}: .*2001:db8::/32.* -> .*"]),
    Damage("jump deleted", f"{NAT} -D POSTROUTING {JUMP}", ["add ip6tables.*jump nat/POSTROUTING to {chain}: absent -> .*"]),
    Damage("jump doubled", f"{NAT} -A POSTROUTING {JUMP}", ["(replace|remove) ip6tables.*jump nat/POSTROUTING to {chain}: .*"]),
    Damage(
        "jump and chain deleted",
        f"{NAT} -D POSTROUTING {JUMP}; {NAT} -F {CHAIN}; {NAT} -X {CHAIN}",
        ["add ip6tables.*chain nat/{chain}: absent -> .*", "add ip6tables.*jump nat/POSTROUTING to {chain}: absent -> .*"],
    ),
    Damage("conflist without its default route", f"sed -i s,::/0,::/1, {CONFLIST}", [".*10-kindnet[.]conflist.*: .*::/1.* -> .*::/0.*"]),
    Damage("conflist of another subnet", f"sed -i s/fd00:10:244/fd00:10:99/ {CONFLIST}", [".*10-kindnet[.]conflist.*: .*fd00:10:99.* -> .*"]),
    Damage("forwarding turned off", "sysctl -qw net.ipv6.conf.all.forwarding=0", ["replace sysctl net[.]ipv6[.]conf[.]all[.]forwarding: 0 -> 1 .*"]),
]


def facts(node: Node, nodes: Nodes) -> dict[str, str]:
    one, two = [p for p in nodes.values() if p is not node][:2]
    return {"dst": one.pod_cidr(6), "hop": one.node_ip(6), "dst2": two.pod_cidr(6), "hop2": two.node_ip(6), "chain": CHAIN}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.name)
def test_after_one_pass_all_is_right(damage: Damage, nodes: Nodes) -> None:
    # Each node gets its share of the damages.
    node = list(nodes.values())[DAMAGES.index(damage) % len(nodes)]
    names = facts(node, nodes)
    cursor = node.cursor()
    node.sh(damage.command.format(**names))
    assert node.do_pass() == "0"
    assert_converged(node, nodes)
    lines = node.journal(cursor)
    patterns = [p.format(**{k: re.escape(v) for k, v in names.items()}) for p in damage.lines]
    assert len(lines) == len(patterns), lines
    for pattern in patterns:
        assert [line for line in lines if re.fullmatch(pattern, line)], (pattern, lines)


def test_ten_clean_passes_write_nothing(nodes: Nodes) -> None:
    node = nodes["k8s-guide-worker"]
    assert node.do_pass() == "0"
    cursor = node.cursor()
    with RouteWatch(node) as routes, RuleWatch(node) as rules:
        for _unused in range(10):
            assert node.do_pass() == "0"
        assert (routes.changes(), rules.changes()) == ([], [])
    assert node.journal(cursor) == []
    assert_converged(node, nodes)


def test_the_default_routes_of_pods_are_those_of_their_ranges(node: Node) -> None:
    """In the order of the pod CIDRs; of a family without a pod CIDR there is none."""
    ipam = json.loads(node.read(CONFLIST))["plugins"][0]["ipam"]
    assert [r["subnet"] for (r,) in ipam["ranges"]] == node.pod_cidrs
    assert [r["dst"] for r in ipam["routes"]] == ["::/0" if cidr in of_family(6, node.pod_cidrs) else "0.0.0.0/0" for cidr in node.pod_cidrs]
