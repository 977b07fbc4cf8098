# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is of the legacy flavour alone: rules of the other one are reported, and a restore by somebody else is made good within one pass."""

from __future__ import annotations

from nodes import SAVE, Node, assert_converged, assert_masquerades

Nodes = dict[str, Node]


def test_a_full_restore_by_somebody_is_made_good_by_one_pass(node: Node, nodes: Nodes) -> None:
    saved = node.sh("iptables-legacy-save -t nat | grep -v KIND-MASQ-AGENT")
    node.sh(f"iptables-legacy-restore <<'EOF'\n{saved}EOF")
    assert node.do_pass() == "0"
    assert_masquerades(node, SAVE)
    assert_converged(node, nodes, SAVE)


def test_what_auto_would_choose_is_not_said_where_it_was_not_asked(node: Node) -> None:
    assert "backend:" not in node.sh("kindnet-reconcile --check")
