# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode predicted without a tool on the node, the playbook has installed."""

from __future__ import annotations

from nodes import Node, runs


def test_the_installation_was_predicted(node: Node) -> None:
    predicted, made = [r for r in runs() if r.playbook == "kindnet.yml"][:2]
    for run in (predicted, made):
        assert [task for host, task in run.pairs() if host == node.name and task.endswith("Install packages")], run


def test_tools_are_there(node: Node) -> None:
    for tool in ("iptables-nft", "iptables-legacy", "/usr/lib/cni/ptp"):
        assert node.run(f"command -v {tool}").rc == 0, tool
    assert node.run("/usr/bin/python3 -c 'import pyroute2'").rc == 0
