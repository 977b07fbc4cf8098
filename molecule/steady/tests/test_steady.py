# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A converged node stays as it is, whoever looks at it how often: no route of any family is touched."""

from __future__ import annotations

from contextlib import ExitStack

from nodes import Node, RouteWatch, RuleWatch, assert_converged, play


def test_ten_passes_and_ten_runs_change_nothing(nodes: dict[str, Node]) -> None:
    for node in nodes.values():
        assert node.do_pass() == "0"
    with ExitStack() as stack:
        watches = {node: [stack.enter_context(RouteWatch(node)), stack.enter_context(RuleWatch(node))] for node in nodes.values()}
        for _unused in range(10):
            for node in nodes.values():
                assert node.do_pass() == "0"
        for _unused in range(10):
            run = play("kindnet.yml")
            assert (run.rc, run.changed, run.failed) == (0, [], []), run.output
        for node, (routes, rules) in watches.items():
            assert (routes.changes(), rules.changes()) == ([], []), node
    for node in nodes.values():
        assert_converged(node, nodes)


def test_a_change_would_have_been_seen(nodes: dict[str, Node]) -> None:
    node, peer = list(nodes.values())[:2]
    with RouteWatch(node) as watch:
        for family in (4, 6):
            node.sh(f"ip -{family} route del {peer.pod_cidr(family)}")
        assert node.do_pass() == "0"
        seen = watch.changes()
    for family in (4, 6):
        lines = [line for line in seen if peer.pod_cidr(family) in line]
        assert [line.startswith("Deleted ") for line in lines] == [True, False], seen
