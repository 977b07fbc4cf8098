# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes lack what the playbook is to bring."""

from __future__ import annotations

import pytest
from nodes import Node, play


@pytest.mark.parametrize("tool", ["iptables", "nft", "containerd", "/usr/lib/cni/ptp", "/opt/cni/bin/ptp"])
def test_no_tool(node: Node, tool: str) -> None:
    assert node.run(f"command -v {tool}").rc != 0


@pytest.mark.parametrize("library", ["pyroute2", "apt", "yaml"])
def test_no_library(node: Node, library: str) -> None:
    assert node.run(f"/usr/bin/python3 -c 'import {library}'").rc != 0


def test_no_packages_but_those_of_the_node_itself(node: Node) -> None:
    assert node.sh("cat /etc/apt/sources.list; ls -A /etc/apt/sources.list.d") == "deb [trusted=yes] file:/srv/packages ./\n"


@pytest.mark.parametrize(
    ("tag", "missing"),
    [("masquerade", "iptables-nft: is not installed"), ("routes", "pyroute2"), ("conflist", "Install the reference plugins")],
)
def test_what_a_run_of_one_tag_would_miss_is_not_predicted(nodes: dict[str, Node], tag: str, missing: str) -> None:
    """The role that installs it does not take part."""
    for mode in (["--check"], []):
        run = play("kindnet.yml", f"--tags={tag}", *mode)
        assert run.rc != 0 and run.changed == [], run.output
        assert missing in run.output, run.output
    for node in nodes.values():
        assert node.sh("ls -A /run/kindnet") == "lock\n"
        node.sh("rm -r /run/kindnet")


def test_nothing_is_predicted_that_is_not_to_be_installed() -> None:
    run = play("kindnet.yml", "--check", "--extra-vars=kindnet_install_packages=false")
    assert run.rc != 0 and "containernetworking-plugins" in run.output, run.output
    assert [c["task"] for c in run.changed if "nstall packages" in c["task"]] == []
