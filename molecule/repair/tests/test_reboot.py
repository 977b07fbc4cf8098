# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that go down and come back, with all that a kernel forgets."""

from __future__ import annotations

from nodes import Node, assert_converged, lab


def test_a_node_that_was_restarted_is_right_after_its_first_pass(nodes: dict[str, Node]) -> None:
    node = nodes["k8s-guide-worker"]
    lab("nodes", "restart", node.name)
    assert node.await_pass(since=0) == "0"
    assert_converged(node, nodes)
    # The others noticed nothing.
    for other in nodes.values():
        assert_converged(other, nodes)


def test_a_node_that_lost_power(nodes: dict[str, Node]) -> None:
    node = nodes["k8s-guide-worker2"]
    lab("nodes", "stop", node.name)
    for other in nodes.values():
        if other is not node:
            assert other.do_pass() == "0"
            assert_converged(other, nodes)
    lab("nodes", "start", node.name)
    assert node.await_pass(since=0) == "0"
    assert_converged(node, nodes)
