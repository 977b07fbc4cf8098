# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From each backend to each other one on running nodes: no packet of a pod is lost, reset, or seen to come from the wrong address."""

from __future__ import annotations

import json
import os
import shlex
import time
from contextlib import ExitStack
from typing import Iterator

import pytest
from nodes import NFT, Node, assert_converged, assert_masquerades, lab, play, until
from traffic import OUTSIDE, Pod, Traffic

Nodes = dict[str, Node]
SAVES = {"iptables-nft": "iptables-nft-save", "iptables-legacy": "iptables-legacy-save", "nftables": NFT}
FLUSH = {
    "iptables-nft": "iptables-nft -t nat -F KIND-MASQ-AGENT",
    "iptables-legacy": "iptables-legacy -w 5 -t nat -F KIND-MASQ-AGENT",
    "nftables": "nft flush chain inet kindnet KIND-MASQ-AGENT",
}
# Each to each, beginning with what the converge left.
WAY = ("iptables-nft", "nftables", "iptables-legacy", "nftables", "iptables-nft", "iptables-legacy", "iptables-nft")
# For how long playbook runs and passes go on beside another program, at least: once through all backends, or so many seconds.
SECONDS = float(os.environ.get("KINDNET_CONCURRENCY_SECONDS", "0"))

# Rewrites a chain of its own in table nat all the time, as kube-proxy does, and looks whether all of it is there.
RIVAL = """
generation=0
while :; do
  generation=$((generation + 1))
  {
    echo '*nat'
    echo ':RIVAL - [0:0]'
    for port in $(seq 30); do
      echo "-A RIVAL -p tcp -m tcp --dport $port -m comment --comment g$generation -j RETURN"
    done
    echo COMMIT
  } | iptables-nft-restore -w 10 --noflush || echo "restore $generation failed" >>/run/rival.lost
  [ "$(iptables-nft -t nat -S RIVAL | grep -c " g$generation ")" = 30 ] || echo "generation $generation" >>/run/rival.lost
  [ "$(iptables-nft -t nat -S POSTROUTING | grep -c -- '-j RIVAL')" = 1 ] || echo "jump $generation" >>/run/rival.lost
  echo $generation >/run/rival.generation
  sleep 0.1
done
"""


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


@pytest.fixture
def rivals(nodes: Nodes) -> Iterator[None]:
    for node in nodes.values():
        node.sh("iptables-nft -t nat -N RIVAL; iptables-nft -t nat -I POSTROUTING -m mark --mark 0x4000/0x4000 -j RIVAL")
        node.sh("rm -f /run/rival.*; : >/run/rival.lost; echo 0 >/run/rival.generation")
        node.sh(f"systemd-run --quiet --unit=rival sh -c {shlex.quote(RIVAL)}")
    yield
    for node in nodes.values():
        node.sh("systemctl stop rival; iptables-nft -t nat -D POSTROUTING -m mark --mark 0x4000/0x4000 -j RIVAL")
        node.sh("iptables-nft -t nat -F RIVAL; iptables-nft -t nat -X RIVAL; rm -f /run/rival.*")


def generation(node: Node) -> int:
    # Empty for the moment in which it is written.
    return int(until("a number is there", lambda: node.read("/run/rival.generation").strip() or None))


def test_neither_loses_a_rule_to_another_program(nodes: Nodes, rivals: None) -> None:
    """Runs of the playbook that change something each time, passes of the timer that have something to repair, and the other one at full speed."""
    begun, before = time.monotonic(), {name: generation(node) for name, node in nodes.items()}
    turn = 1  # the first is where the chain is
    while time.monotonic() < begun + SECONDS or turn <= len(SAVES):
        backend = WAY[turn % (len(WAY) - 1)]
        options = {"kindnet_masq_backend": backend, "kindnet_non_masquerade_cidrs": ["192.0.2.0/24"] * (turn % 2)}
        run = play("kindnet.yml", "--tags=masquerade", f"--extra-vars={json.dumps(options)}")
        assert run.rc == 0 and len(run.changed) == len(nodes), run.output
        for node in nodes.values():
            node.sh(FLUSH[backend])
        turn += 1
    run = play("kindnet.yml", "--tags=masquerade", "--extra-vars=kindnet_masq_backend=iptables-nft")
    assert run.rc == 0, run.output
    for name, node in nodes.items():
        assert node.do_pass() == "0"
        seen = generation(node)
        until(f"the other program of {name} goes on", lambda n=node, s=seen: generation(n) > s + 2 or None)
        assert generation(node) > before[name] + 10
        assert node.read("/run/rival.lost") == ""
        assert_masquerades(node)


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
