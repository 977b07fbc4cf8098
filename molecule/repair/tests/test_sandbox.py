# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pass may and may not do inside its service. Another program is started in its place, within the same bounds."""

from __future__ import annotations

from typing import Iterator

import pytest
from nodes import END_PASSES, SERVICE, TIMER, Node

DROP_IN = f"/run/systemd/system/{SERVICE}.d"
PROBE = "/usr/local/sbin/kindnet-probe"  # /run is not executable everywhere
ANSWER = "/run/kindnet/answer"
PLUGINS = ["bandwidth", "firewall", "host-local", "loopback", "portmap", "ptp", "sbr", "tuning"]

PLACES = """
for place in /run /run/systemd /run/kindnet /etc /etc/systemd/system /etc/cni /etc/cni/net.d /etc/sysctl.d /opt /opt/cni /opt/cni/bin \\
    /usr /usr/local/lib/kindnet /var /var/lib /var/lib/kindnet /var/lib/kindnet/history /var/lib/prometheus /var/tmp /tmp /root /home /dev/shm; do
  if (echo >"$place/kindnet-probe") 2>/dev/null; then echo "$place"; rm -f "$place/kindnet-probe"; fi
done
for setting in kernel/printk vm/swappiness net/ipv4/ip_forward net/ipv6/conf/all/forwarding; do
  if (cat "/proc/sys/$setting" >/run/kindnet/value && cat /run/kindnet/value >"/proc/sys/$setting") 2>/dev/null; then echo "$setting"; fi
done
rm -f /run/kindnet/value
"""

RULES = """
for iptables in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
  $iptables -w 5 -t nat -N KINDNET-PROBE 2>&1 && $iptables -w 5 -t nat -X KINDNET-PROBE 2>&1 && echo "$iptables made a chain"
done
"""


@pytest.fixture
def node(nodes: dict[str, Node]) -> Iterator[Node]:
    node = nodes["k8s-guide-worker"]
    node.sh(f"{END_PASSES}; mkdir -p {DROP_IN}; printf '[Service]\\nExecStart=\\nExecStart={PROBE}\\n' >{DROP_IN}/probe.conf")
    yield node
    node.sh(f"rm -r {DROP_IN} {PROBE} {ANSWER}; systemctl daemon-reload; systemctl start {TIMER}")


def asked(node: Node, script: str) -> list[str]:
    """What a program in the place of a pass finds out."""
    node.sh(f"cat >{PROBE} <<'PROBE'\n#!/bin/sh\nexec >{ANSWER}\n{script}\nPROBE\nchmod 0755 {PROBE}; systemctl daemon-reload; systemctl start {SERVICE}")
    return node.sh(f"cat {ANSWER}").splitlines()


def test_it_writes_what_it_repairs_and_nothing_else(node: Node) -> None:
    assert asked(node, PLACES) == [
        "/run/kindnet",
        "/etc/cni/net.d",
        "/etc/sysctl.d",
        "/opt/cni/bin",
        "/var/lib/kindnet/history",
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
    ]


def test_both_flavours_of_iptables_work_in_it(node: Node) -> None:
    answers = asked(node, RULES)
    for flavour in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"):
        assert f"{flavour} made a chain" in answers, answers


def test_it_has_two_capabilities(node: Node) -> None:
    # CAP_NET_ADMIN is number 12, CAP_NET_RAW 13.
    assert asked(node, "grep CapEff /proc/self/status") == ["CapEff:\t%016x" % (1 << 12 | 1 << 13)]


def test_folders_that_are_gone_altogether_are_made_again(nodes: dict[str, Node]) -> None:
    node = nodes["k8s-guide-worker"]
    links = node.sh("cd /opt/cni/bin; readlink " + " ".join(PLUGINS)).split()
    assert len(links) == len(PLUGINS)
    conflist = node.sh("cat /etc/cni/net.d/10-kindnet.conflist")
    node.sh("rm -rf /etc/cni /opt/cni /var/lib/kindnet/history")
    assert node.do_pass() == "0"
    assert "/etc/cni/net.d/10-kindnet.conflist" in node.sh("cat /var/lib/kindnet/history/repairs.jsonl")
    assert node.sh("cat /etc/cni/net.d/10-kindnet.conflist") == conflist
    assert sorted(node.sh("ls -A /opt/cni/bin").split()) == PLUGINS
    assert node.sh("cd /opt/cni/bin; readlink " + " ".join(PLUGINS)).split() == links


def test_code_that_others_may_write_is_not_run_and_the_journal_says_so(nodes: dict[str, Node]) -> None:
    node = nodes["k8s-guide-worker"]
    path = node.sh("echo $(readlink -f /usr/local/lib/kindnet/current)/kindnet_host/_files.py").strip()
    cursor = node.cursor()
    node.sh(f"chmod g+w {path}")
    try:
        assert node.do_pass() == "1"
        (line,) = set(node.journal(cursor))
        assert line.startswith(f"problem: {path}: may be written by others") and f"chmod go-w {path}" in line
    finally:
        node.sh(f"chmod g-w {path}")
    assert node.do_pass() == "0"
