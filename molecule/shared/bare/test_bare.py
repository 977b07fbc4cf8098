# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing of ours is on a node, and what is somebody else's is as it was: asked before the first converge, after check mode and after teardown."""

from __future__ import annotations

import json
import re

import pytest
from nodes import CHAIN, EPHEMERAL, PROTOCOL, Node

SNAPSHOT = EPHEMERAL / "bare.json"

# The lab's rootfs for pods, and what a runtime keeps of pods it once had, are not ours.
NAMED = "find / '(' -path /proc -o -path /sys -o -path /run/kindnet-lab -o -path /var/lib/cni ')' -prune -o '(' -iname '*kindnet*' -o -lname '*kindnet*' ')' -print"



def state(node: Node) -> dict[str, list[str]]:
    """All on a node that we might have touched, less what changes by itself."""
    tables = {
        save: rules(node.run(f"{save}-save").stdout)
        for save in ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
        if node.run(f"command -v {save}-save").rc == 0
    }
    return {
        **tables,
        "routes": sorted(node.sh("ip -N -4 route show table all; ip -N -6 route show table all").splitlines()),
        "rules": node.sh("ip -4 rule; ip -6 rule").splitlines(),
        "sysctls": sorted(set(node.sh("cd /proc/sys; grep -rs . net/ipv4/ip_forward net/ipv4/conf net/ipv6/conf || true").splitlines())),
        "files": node.sh("find /etc /opt /usr/local -xdev -printf '%p %y %m %U %G %l\\n' | sort").splitlines(),
        "contents": node.sh("find /etc /opt /usr/local -xdev -type f -exec sha256sum {} + | sort").splitlines(),
        "folders": node.sh("ls -A /var/lib /run | grep -vx utmp").splitlines(),
        "units": node.sh("systemctl list-unit-files --no-legend --no-pager --plain").splitlines(),
        "timers": sorted(line.split()[-1] for line in node.sh("systemctl list-timers --all --no-legend --no-pager --plain").splitlines()),
    }


def rules(text: str) -> list[str]:
    """A dump of iptables without comments, counters and empty built-in chains."""
    kept, table = [], ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line
        elif not line.startswith("#") and line != "COMMIT" and not re.match(r":[A-Z]+ ACCEPT ", line):
            kept.append(f"{table} {re.sub(r' *[[][0-9:]+[]]', '', line)}")
    return kept


def test_no_route_of_ours(node: Node) -> None:
    assert node.sh(f"ip -4 route show table all proto {PROTOCOL}; ip -6 route show table all proto {PROTOCOL}") == ""


def test_no_rule_of_ours(node: Node) -> None:
    for save in ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"):
        text = node.run(save).stdout
        assert CHAIN not in text and "kind-masq-agent" not in text, save


def test_no_unit_of_ours(node: Node) -> None:
    assert "kindnet" not in node.sh("systemctl list-units --all --no-pager --plain; systemctl list-unit-files --no-pager")


def test_no_file_of_ours(node: Node) -> None:
    assert node.sh(NAMED) == ""


def test_what_is_there_is_what_was_there(node: Node) -> None:
    now = state(node)
    # The first to ask after the scenario was prepared keeps the answer.
    before = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    if node.name not in before:
        before[node.name] = now
        SNAPSHOT.write_text(json.dumps(before))
        pytest.skip("taken")
    assert now == before[node.name]
