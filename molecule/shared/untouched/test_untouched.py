# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a node is what was there when the scenario was prepared, somebody else's routes, rules and files with it."""

from __future__ import annotations

import json
import re

import pytest
from nodes import EPHEMERAL, Node

SNAPSHOT = EPHEMERAL / "untouched.json"


def state(node: Node) -> dict[str, list[str]]:
    """All on a node that we might have touched, less what changes by itself."""
    tables = {
        save: rules(node.run(f"{save}-save").stdout)
        for save in ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
        if node.run(f"command -v {save}-save").rc == 0
    }
    return {
        **tables,
        "routes": sorted(re.sub(r" expires \d+sec", "", node.sh("ip -N -4 route show table all; ip -N -6 route show table all")).splitlines()),
        "rules": node.sh("ip -4 rule; ip -6 rule").splitlines(),
        "sysctls": sorted(set(node.sh("cd /proc/sys; grep -rs . net/ipv4/ip_forward net/ipv4/conf net/ipv6/conf || true").splitlines())),
        "files": node.sh("find /etc /opt /usr/local -xdev -printf '%p %y %m %U %G %l\\n' | sort").splitlines(),
        "contents": node.sh("find /etc /opt /usr/local -xdev -type f -exec sha256sum {} + | sort").splitlines(),
        "folders": node.sh("ls -A /var/lib /run | grep -vx utmp").splitlines(),
        # Transient ones are sessions, our own SSH connections among them.
        "units": node.sh("systemctl list-unit-files --no-legend --no-pager --plain | grep -vw transient | awk '{ print $1, $2 }'").splitlines(),
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


def test_what_is_there_is_what_was_there(node: Node) -> None:
    now = state(node)
    # The first to ask after the scenario was prepared keeps the answer.
    before = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    if node.name not in before:
        before[node.name] = now
        SNAPSHOT.write_text(json.dumps(before))
        pytest.skip("taken")
    assert now == before[node.name]
