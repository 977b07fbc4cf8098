# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of every scenario are given."""

from __future__ import annotations

import pytest
from nodes import Node, families_of, load_nodes

NODES = load_nodes()


@pytest.fixture(scope="session")
def nodes() -> dict[str, Node]:
    return NODES


@pytest.fixture(params=sorted(NODES))
def node(request: pytest.FixtureRequest) -> Node:
    """Each node in turn."""
    return NODES[request.param]


@pytest.fixture(params=families_of([cidr for node in NODES.values() for cidr in node.pod_cidrs]), ids="IPv{}".format)
def family(request: pytest.FixtureRequest) -> int:
    """Each family that has pods in turn."""
    return request.param


@pytest.fixture
def peers(node: Node) -> dict[str, Node]:
    return {n: p for n, p in NODES.items() if p is not node}
