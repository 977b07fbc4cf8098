# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IPv6 default route that a router's advertisements gave the nodes before they were converged: a kernel that forwards drops it, unless told."""

from __future__ import annotations

import re
from typing import Any

from nodes import Node, RouteWatch, assert_converged, lab, until

Nodes = dict[str, Node]
ACCEPT_RA = "net.ipv6.conf.eth0.accept_ra"
FORWARDING = "net.ipv6.conf.all.forwarding"


def default_routes(node: Node) -> list[dict[str, Any]]:
    return node.json("ip -6 -json route show default proto ra")


def test_a_converge_keeps_it(node: Node) -> None:
    (route,) = default_routes(node)
    assert (route["dev"], route["gateway"][:6]) == ("eth0", "fe80::")
    assert node.sh(f"sysctl -n {FORWARDING}") == "1\n"


def test_only_the_interface_that_leads_to_the_router_listens(node: Node) -> None:
    """On a pod's link it would let a pod give the node a default route."""
    values = dict(line.split(":") for line in node.sh("cd /proc/sys/net/ipv6/conf; grep . */accept_ra").splitlines())
    assert [path for path, value in values.items() if value == "2"] == ["eth0/accept_ra"]


def test_it_is_written_down_before_forwarding(node: Node) -> None:
    lines = [line for line in node.read("/etc/sysctl.d/zz-kindnet.conf").splitlines() if line.startswith("net.ipv6")]
    assert lines == [f"{ACCEPT_RA} = 2", f"{FORWARDING} = 1"]


def test_the_router_is_still_heard(node: Node) -> None:
    node.sh("ip -6 route del default proto ra")
    until("the default route comes back", lambda: default_routes(node) or None)


def test_the_kernel_would_have_dropped_it(nodes: Nodes) -> None:
    """These tests can fail. And what undid the setting is itself undone by a pass."""
    node = nodes["k8s-guide-worker"]
    node.sh("kindnet-reconcile --pause 1h")
    try:
        node.sh(f"sysctl -qw {FORWARDING}=0 {ACCEPT_RA}=1 {FORWARDING}=1")
        assert default_routes(node) == []
        cursor = node.cursor()
    finally:
        node.sh("kindnet-reconcile --resume")
    assert node.do_pass() == "0"
    (line,) = node.journal(cursor)
    assert re.fullmatch(r"replace sysctl net[.]ipv6[.]conf[.]eth0[.]accept_ra: 1 -> 2 .*", line), line
    until("the default route comes back", lambda: default_routes(node) or None)


def test_a_pass_that_turns_forwarding_on_again_keeps_it(nodes: Nodes) -> None:
    """Both settings are wrong, and the order in which they are made right decides."""
    node = nodes["k8s-guide-control-plane"]
    node.sh("kindnet-reconcile --pause 1h")
    try:
        node.sh(f"sysctl -qw {FORWARDING}=0 {ACCEPT_RA}=1")
        until("the default route is there", lambda: default_routes(node) or None)
        with RouteWatch(node) as watch:
            node.sh("kindnet-reconcile --resume")
            assert node.do_pass() == "0"
            seen = [line for line in watch.changes() if "default" in line]
    finally:
        node.sh("kindnet-reconcile --resume")
    assert seen == []
    assert node.sh(f"sysctl -n {ACCEPT_RA} {FORWARDING}") == "2\n1\n"


def test_a_node_that_was_restarted_has_it_again(nodes: Nodes) -> None:
    node = nodes["k8s-guide-worker2"]
    lab("nodes", "restart", node.name)
    # What systemd-sysctl sets at boot, before there was a pass.
    assert "accept_ra = 2" in node.sh("systemd-analyze cat-config sysctl.d")
    assert node.await_pass(since=0) == "0"
    assert_converged(node, nodes)
    assert node.sh(f"sysctl -n {ACCEPT_RA} {FORWARDING}") == "2\n1\n"
    until("the default route comes back", lambda: default_routes(node) or None)
