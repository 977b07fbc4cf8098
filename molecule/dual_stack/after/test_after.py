# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Teardown brought back what was there, and the router was heard all along."""

from __future__ import annotations

from nodes import Node


def test_settings_are_those_of_before(node: Node) -> None:
    keys = "net.ipv6.conf.eth0.accept_ra net.ipv6.conf.eth0.forwarding net.ipv6.conf.all.forwarding net.ipv4.ip_forward"
    assert node.sh(f"sysctl -n {keys}") == "1\n0\n0\n0\n"


def test_the_default_route_stays(node: Node) -> None:
    (route,) = node.json("ip -6 -json route show default proto ra")
    assert route["dev"] == "eth0"
