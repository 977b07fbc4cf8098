# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode told the truth, and a second run had nothing to do."""

from __future__ import annotations

import pytest
from nodes import Node, Run, runs


@pytest.fixture(scope="module")
def three() -> list[Run]:
    """The runs of the playbook so far: predicted, made, repeated."""
    found = [r for r in runs() if r.playbook == "kindnet.yml"]
    assert [r.check for r in found] == [True, False, False]
    return found


def test_nothing_failed(three: list[Run]) -> None:
    assert [(r.failed, r.unreachable) for r in three] == [([], [])] * 3


def test_what_was_predicted_is_what_was_changed(three: list[Run]) -> None:
    predicted, made, _unused = three
    assert predicted.pairs() == made.pairs()


def test_every_node_was_changed(three: list[Run], node: Node) -> None:
    assert [p for p in three[1].pairs() if p[0] == node.name]


def test_the_predicted_diff_is_that_of_the_change(three: list[Run]) -> None:
    predicted, made = ({(c["host"], c["task"]): c["diff"] for c in run.changed} for run in three[:2])
    for (host, task), diff in predicted.items():
        # What a package manager says when it installs is its own.
        assert diff == made[host, task] or task.endswith("Install packages"), (host, task)
    assert any(diff for diff in predicted.values())


def test_a_second_run_changes_nothing(three: list[Run]) -> None:
    assert three[2].pairs() == []
