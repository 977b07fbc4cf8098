# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing of ours is on a node: asked before the first converge, after check mode and after teardown."""

from __future__ import annotations

from nodes import CHAIN, PROTOCOL, Node

# The lab's rootfs for pods, and what a runtime keeps of pods it once had, are not ours.
NAMED = (
    "find / '(' -path /proc -o -path /sys -o -path /run/kindnet-lab -o -path /var/lib/cni ')' -prune"
    " -o '(' -iname '*kindnet*' -o -lname '*kindnet*' ')' -print"
)


def test_no_route_of_ours(node: Node) -> None:
    assert node.sh(f"ip -4 route show table all proto {PROTOCOL}; ip -6 route show table all proto {PROTOCOL}") == ""


def test_no_rule_of_ours(node: Node) -> None:
    for save in ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"):
        text = node.run(save).stdout
        assert CHAIN not in text and "kind-masq-agent" not in text, save
    assert node.table() == []


def test_no_unit_of_ours(node: Node) -> None:
    assert "kindnet" not in node.sh("systemctl list-units --all --no-pager --plain; systemctl list-unit-files --no-pager")


def test_no_file_of_ours(node: Node) -> None:
    assert node.sh(NAMED) == ""
