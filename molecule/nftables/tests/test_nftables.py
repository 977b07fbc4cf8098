# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is of nftables alone: damage of its table, a host that has no iptables, and what others do at the same time."""

from __future__ import annotations

import pytest
from nodes import NFT, Node, assert_converged, assert_masquerades, play

Nodes = dict[str, Node]
DAMAGE = {
    "delete element inet kindnet non_masquerade_ipv4 { 10.244.0.0/16 }": "10.244.0.0/16 missing in set non_masquerade_ipv4",
    "insert rule inet kindnet KIND-MASQ-AGENT masquerade": "rule 'masquerade' is not wanted",
    "flush chain inet kindnet postrouting": "jump missing",
    "delete table inet kindnet": "table missing",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_pass_repairs_it_and_says_what_it_was(nodes: Nodes, damage: str) -> None:
    node = nodes["k8s-guide-worker"]
    cursor = node.cursor()
    kept = node.sh("nft --json list tables")
    foreign = node.sh("nft --stateless list table ip nat")
    node.sh(f"nft '{damage}'")
    assert node.do_pass() == "0"
    assert_masquerades(node, NFT)
    assert [line for line in node.journal(cursor) if "nft table inet kindnet" in line and DAMAGE[damage] in line], node.journal(cursor)
    assert (node.sh("nft --json list tables").count('"table"'), node.sh("nft --stateless list table ip nat")) == (kept.count('"table"'), foreign)


def test_a_clean_pass_touches_nothing_and_counters_go_on(node: Node, nodes: Nodes) -> None:
    before = node.sh("nft --json list table inet kindnet")
    assert node.do_pass() == "0"
    after = node.sh("nft --json list table inet kindnet")
    handles = [text.split('"handle": ')[1].split(",")[0].rstrip("}") for text in (before, after)]
    assert handles[0] == handles[1]
    assert_converged(node, nodes, NFT)


def test_a_host_without_iptables_works_with_nftables_alone(nodes: Nodes) -> None:
    node = nodes["k8s-guide-worker2"]
    node.sh("mkdir /run/hidden; mv /usr/sbin/xtables-*-multi /run/hidden/")
    try:
        assert node.run("iptables -V").rc != 0
        node.sh("nft delete table inet kindnet")
        assert node.do_pass() == "0"
        assert node.table() != []
        node.sh("nft delete table inet kindnet")
        run = play("kindnet.yml", f"--limit={node}", "--tags=masquerade", "--extra-vars=kindnet_masq_backend=auto")
        assert run.rc == 0, run.output
        assert node.table() != []
        run = play("kindnet.yml", f"--limit={node}", "--tags=masquerade")
        assert run.rc == 0, run.output
    finally:
        node.sh("mv /run/hidden/* /usr/sbin/; rmdir /run/hidden")
    assert_converged(node, nodes, NFT)
