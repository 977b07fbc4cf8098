# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing of IPv4, which these nodes have too, is touched."""

from __future__ import annotations

import json

from nodes import CONFLIST, Node, play


def test_addresses_were_taken_from_ansible_host(nodes: dict[str, Node], node: Node) -> None:
    assert set(node.own_routes(6).values()) == {p.node_ip(6) for p in nodes.values() if p is not node}


def test_ipv4_is_not_forwarded(node: Node) -> None:
    assert node.sh("sysctl -n net.ipv4.ip_forward") == "0\n"
    assert "ipv4" not in node.sh("grep -v '^#' /etc/sysctl.d/zz-kindnet.conf")


def test_pods_have_one_default_route(node: Node) -> None:
    assert json.loads(node.read(CONFLIST))["plugins"][0]["ipam"]["routes"] == [{"dst": "::/0"}]


def test_verification_finds_nothing() -> None:
    run = play("verify.yml")
    assert (run.rc, run.changed) == (0, []), run.output
