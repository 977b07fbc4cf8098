# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From each backend to each other one on running nodes: no packet of a pod is lost, reset, or seen to come from the wrong address."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Iterator

import pytest
from nodes import NFT, Node, assert_converged, assert_masquerades, lab, play
from traffic import OUTSIDE, Pod, Traffic

Nodes = dict[str, Node]
SAVES = {"iptables-nft": "iptables-nft-save", "iptables-legacy": "iptables-legacy-save", "nftables": NFT}
# Each to each, beginning with what the converge left.
WAY = ("iptables-nft", "nftables", "iptables-legacy", "nftables", "iptables-nft", "iptables-legacy", "iptables-nft")


@pytest.fixture(scope="module")
def pods(nodes: Nodes) -> Iterator[list[Pod]]:
    for name in nodes:
        lab("pods", "add", name, "switched")
    yield [Pod(node, "switched") for node in nodes.values()]
    for name in nodes:
        lab("pods", "remove", name, "switched")
    for node in nodes.values():
        node.sh("rm -rf /run/cni-ipam-state /run/kindnet-lab /var/lib/cni")  # what a runtime keeps of pods it once had


def test_the_way_is_from_each_to_each() -> None:
    assert {(a, b) for a in SAVES for b in SAVES if a != b} == set(zip(WAY, WAY[1:]))


def test_no_packet_notices(nodes: Nodes, pods: list[Pod]) -> None:
    ring = list(zip(pods, pods[1:] + pods[:1]))
    with ExitStack() as stack:
        inside = [stack.enter_context(Traffic(source, target)) for source, target in ring]
        outside = [stack.enter_context(Traffic(pod, OUTSIDE)) for pod in pods]
        for backend in WAY[1:]:
            run = play("kindnet.yml", "--tags=masquerade", f"--extra-vars=kindnet_masq_backend={backend}")
            assert run.rc == 0 and len(run.changed) == len(nodes), run.output
            for node in nodes.values():
                assert_masquerades(node, SAVES[backend])
            for traffic in inside:
                traffic.assert_nothing_lost(seen_as=traffic.source.address)
            for traffic in outside:
                traffic.assert_nothing_lost(seen_as=traffic.source.node.node_ip(4))
        for node in nodes.values():
            assert node.do_pass() == "0"
            assert_converged(node, nodes, SAVES[WAY[-1]])


def test_a_wrong_address_would_be_seen(nodes: Nodes, pods: list[Pod]) -> None:
    (node, *_others), pod = list(nodes.values()), pods[0]
    node.sh("kindnet-reconcile --pause 1h")
    try:
        with Traffic(pod, pods[1]) as traffic:
            node.sh("iptables-nft -t nat -I POSTROUTING -p tcp -j MASQUERADE; sleep 0.5; iptables-nft -t nat -D POSTROUTING -p tcp -j MASQUERADE")
            with pytest.raises(AssertionError):
                traffic.assert_nothing_lost(seen_as=pod.address)
    finally:
        node.sh("kindnet-reconcile --resume")
