# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With kindnet_watch, what is damaged is right again within a second, by the clock of the journal; and without it again, nothing of it is left."""

from __future__ import annotations

import json
import re
from typing import Iterator

import pytest
from nodes import CHAIN, CONFLIST, MONOTONIC, NFT, SERVICE, TIMER, Node, assert_converged, play, until

WATCH = "kindnet-watch.service"
NAT = "iptables -t nat"
SECOND = 1_000_000  # µs

DAMAGE = {
    "route": ("ip route del {dst}", "add route {dst}: .*"),
    "all routes": ("ip route flush proto 107", "add route {dst}: .*"),
    "rule": (f"{NAT} -D {CHAIN} 1", f"replace .*chain nat/{CHAIN}: .*"),
    "jump": (f"{NAT} -D POSTROUTING $({NAT} -S POSTROUTING | sed 1d | grep -n {CHAIN} | cut -d: -f1)", f"add .*jump nat/POSTROUTING to {CHAIN}: .*"),
    "conflist": (f"rm {CONFLIST}", "add .*10-kindnet[.]conflist.*"),
    "conflist's folder": ("rm -r /etc/cni", "add .*10-kindnet[.]conflist.*"),
    "plugin's link": ("rm /opt/cni/bin/ptp", "add .*/opt/cni/bin/ptp.*"),
}


def converge(node: Node, wanted: bool, *arguments: str, tags: str = "reconcile", **variables: str) -> list[str]:
    """The tasks that changed something, or would have."""
    extra = json.dumps({"kindnet_watch": wanted, **variables})
    run = play("kindnet.yml", f"--limit={node}", f"--tags={tags}", f"--extra-vars={extra}", *arguments)
    assert run.rc == 0, run.output
    return [task for _host, task in run.pairs()]


@pytest.fixture(scope="module")
def node(nodes: dict[str, Node]) -> Iterator[Node]:
    node = nodes["k8s-guide-worker"]
    predicted = converge(node, True, "--check")
    assert predicted and predicted == converge(node, True)
    assert converge(node, True) == []
    # Nothing is to be repaired by the timer.
    node.sh(f"systemctl stop {TIMER}")
    yield node
    node.run(f"systemctl start {TIMER}")
    predicted = converge(node, False, "--check")
    assert predicted and predicted == converge(node, False)
    assert converge(node, False) == []
    assert "kindnet-watch" not in node.sh("systemctl list-units --all --no-pager --plain; systemctl list-unit-files --no-pager; find /etc /run/systemd")
    assert "watch:      off" in node.run("kindnet-reconcile --status").stdout


def settled(node: Node) -> str:
    """Wait until no pass begins or is under way; when the last one began."""
    properties = ("ActiveState", "ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic")

    def probe() -> str | None:
        shown = node.show(SERVICE, *properties)
        quiet = shown["ActiveState"] == "inactive" and node.monotonic() - int(shown[properties[2]] or 0) > 1.5 * SECOND
        return shown[properties[1]] if quiet else None

    return until("there are no more passes", probe)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_repaired_within_a_second(damage: str, node: Node, nodes: dict[str, Node]) -> None:
    peer = next(p for p in nodes.values() if p is not node)
    command, pattern = (text.format(dst=peer.pod_cidrs[0]) for text in DAMAGE[damage])
    assert_repaired(node, command, pattern)
    assert_converged(node, nodes)


def test_so_is_a_rule_of_nftables_from_the_moment_it_is_recorded(node: Node, nodes: dict[str, Node]) -> None:
    try:
        assert converge(node, True, tags="masquerade", kindnet_masq_backend="nftables")
        settled(node)
        assert_converged(node, nodes, NFT)
        for command in (f"nft flush chain inet kindnet {CHAIN}", "nft delete table inet kindnet", "nft flush ruleset"):
            assert_repaired(node, command, ".*nft table inet kindnet.*")
            assert_converged(node, nodes, NFT)
    finally:
        converge(node, True, tags="masquerade", kindnet_masq_backend="iptables-nft")
    settled(node)
    assert_converged(node, nodes)


def assert_repaired(node: Node, command: str, pattern: str) -> None:
    """What ``command`` damages is said to be right again less than a second after it, and then no more passes come."""
    settled(node)
    cursor = node.cursor()
    began = int(node.sh(f"{command}; {MONOTONIC}"))

    def repaired() -> int | None:
        out = node.sh(f"journalctl --sync; journalctl --quiet --output=json --output-fields=MESSAGE --after-cursor='{cursor}'")
        entries = [json.loads(line) for line in out.splitlines()]
        times = [int(e["__MONOTONIC_TIMESTAMP"]) for e in entries if re.fullmatch(pattern, str(e["MESSAGE"]))]
        return times[0] if times else None

    took = until(f"{command}: repaired", repaired, 15) - began
    assert took < SECOND, took
    settled(node)


def test_it_sleeps_and_is_small(node: Node) -> None:
    settled(node)
    pid = node.show(WATCH, "MainPID")["MainPID"]
    switches = f"grep ctxt_switches /proc/{pid}/status"
    before = node.sh(switches)
    last = settled(node)
    node.sh("sleep 4")
    assert node.sh(switches) == before and settled(node) == last
    peak = int(node.sh(f"grep VmHWM /proc/{pid}/status").split()[1])
    assert peak <= 15 * 1024, peak


def test_it_is_as_its_unit_says(node: Node) -> None:
    assert node.host.service(WATCH).is_running and node.host.service(WATCH).is_enabled
    status = json.loads(node.run("kindnet-reconcile --status --json").stdout)
    assert (status["watch"], status["timer"]["active"]) == ({"active": "active", "enabled": "enabled"}, "inactive")
    last = node.sh(f"systemd-analyze security --no-pager {WATCH}").splitlines()[-1]
    exposure = re.search(r"(\d+\.\d+)", last)
    assert exposure and float(exposure.group(1)) <= 3.0, last


def test_it_comes_back_when_it_is_killed(node: Node, nodes: dict[str, Node]) -> None:
    old = node.show(WATCH, "MainPID")["MainPID"]
    node.sh(f"kill -9 {old}")
    until("it runs again", lambda: node.show(WATCH, "MainPID")["MainPID"] not in ("0", old) or None)
    assert converge(node, True) in ([], ["kindnet.host.reconcile : Install kindnet-reconcile and start its timer"])
    node.sh(f"systemctl stop {TIMER}")
    assert_converged(node, nodes)
