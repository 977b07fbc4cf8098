# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A converged node, point by point: what somebody who knows kindnet looks for."""

from __future__ import annotations

import copy
import ipaddress
import json
import re

import pytest
from nodes import (
    CHAIN,
    CONFLIST,
    FORWARDING,
    NFT,
    PROTOCOL,
    SAVE,
    SERVICE,
    TIMER,
    Node,
    assert_converged,
    assert_masquerades,
    by_text,
    expected_conflist,
    expected_routes,
    families_of,
    in_family,
    of_family,
    until,
)

Nodes = dict[str, Node]


class TestRoutes:
    def test_one_per_peer_and_pod_cidr_and_nothing_else_of_ours(self, node: Node, nodes: Nodes, family: int) -> None:
        assert node.routes(PROTOCOL, family) == by_text(expected_routes(node, nodes, family))

    def test_none_of_a_family_that_no_pod_has(self, node: Node) -> None:
        for family in {4, 6} - set(families_of(node.pod_cidrs)):
            assert node.routes(PROTOCOL, family) == []

    def test_none_of_another_protocol_to_a_pod_cidr(self, node: Node, nodes: Nodes, family: int) -> None:
        cidrs = [c for n in nodes.values() for c in n.pod_cidrs]
        assert [r for r in node.routes("", family) if r["dst"] in cidrs and r["protocol"] != PROTOCOL] == []

    def test_none_to_its_own_pod_cidr(self, node: Node, family: int) -> None:
        assert [r for r in node.routes("", family) if r["dst"] in node.pod_cidrs] == []

    def test_their_protocol_has_a_name(self, node: Node, peers: Nodes, family: int) -> None:
        lines = node.sh(f"ip -{family} route show proto kindnet").splitlines()
        wanted = {cidr for p in peers.values() for cidr in of_family(family, p.pod_cidrs)}
        assert {line.split()[0] for line in lines} == wanted
        assert all(" proto kindnet" in line for line in node.sh(f"ip -{family} route show").splitlines() if line.split()[0] in wanted)

    def test_the_kernel_takes_them(self, node: Node, peers: Nodes, family: int) -> None:
        for peer in peers.values():
            for cidr in of_family(family, peer.pod_cidrs):
                (route,) = node.json(f"ip -json route get {ipaddress.ip_network(cidr)[2]}")
                assert route["gateway"] == peer.node_ip(family)


class TestMasquerade:
    def test_it_is_kindnetds_to_the_letter_and_nowhere_else(self, node: Node) -> None:
        assert_masquerades(node)

    @pytest.mark.skipif(SAVE == NFT, reason="by nftables alone")
    def test_nft_sees_the_same(self, node: Node, family: int) -> None:
        if CHAIN not in node.run(in_family(family, "iptables-nft-save -t nat")).stdout:
            pytest.skip("this node's rules are in legacy tables")
        # Without nft on a node, its rules were read by iptables alone.
        if node.run("command -v nft").rc != 0:
            pytest.skip("no nft here")
        objects = node.json(f"nft --json list table {'ip6' if family == 6 else 'ip'} nat")["nftables"]
        rules = [o["rule"] for o in objects if "rule" in o]
        assert len([r for r in rules if r["chain"] == CHAIN]) == len(of_family(family, node.cluster_cidrs)) + 1
        assert len([r for r in rules if r["chain"] == "POSTROUTING" and {"jump": {"target": CHAIN}} in r["expr"]]) == 1


class TestConflist:
    def test_as_data(self, node: Node, nodes: Nodes) -> None:
        assert json.loads(node.read(CONFLIST)) == expected_conflist(node, nodes)

    def test_only_root_writes_it(self, node: Node) -> None:
        file, folder = node.sh(f"stat -c '%F %a %U %G' {CONFLIST} /etc/cni/net.d").splitlines()
        assert file == "regular file 644 root root"
        assert folder in ("directory 755 root root", "directory 700 root root")  # the latter is how some packages make it

    def test_it_is_the_one_that_a_runtime_loads(self, node: Node) -> None:
        names = node.sh("ls -A /etc/cni/net.d").split()
        assert min(names) == "10-kindnet.conflist"
        assert [n for n in names if "kindnet" in n] == ["10-kindnet.conflist"]

    def test_every_plugin_is_where_a_runtime_looks_and_speaks_the_version(self, node: Node) -> None:
        for plugin in ("ptp", "host-local", "portmap", "loopback"):
            answer = node.json(f"CNI_COMMAND=VERSION /opt/cni/bin/{plugin} </dev/null")
            assert "0.3.1" in answer["supportedVersions"], plugin


class TestHost:
    def test_forwards(self, node: Node, family: int) -> None:
        assert node.sh(f"sysctl -n {FORWARDING[family]}") == "1\n"

    def test_forwards_after_a_reboot(self, node: Node, family: int) -> None:
        # What systemd applies at boot: of each key the last file wins.
        lines = node.sh("systemd-analyze cat-config sysctl.d").splitlines()
        key = FORWARDING[family].replace(".", "[./]")
        values = [m.group(1) for m in (re.match(rf"\s*-?{key}\s*=\s*(\d+)", line) for line in lines) if m]
        assert values and values[-1] == "1"

    def test_none_of_our_units_has_failed(self, node: Node) -> None:
        assert "kindnet" not in node.sh("systemctl --failed --no-legend --plain")


class TestReconcile:
    def test_timer_runs_now_and_after_a_reboot(self, node: Node) -> None:
        assert node.host.service(TIMER).is_running
        assert node.host.service(TIMER).is_enabled

    def test_every_ten_seconds_to_well_under_one(self, node: Node) -> None:
        timer = node.show(TIMER, "TimersMonotonic", "AccuracyUSec", "RandomizedDelayUSec")
        assert "OnUnitActiveUSec=10s" in timer["TimersMonotonic"]
        assert re.fullmatch(r"\d+(us|ms)", timer["AccuracyUSec"])
        assert timer["RandomizedDelayUSec"] == "0"
        # While a pass runs, the next one is not due at any time.
        until("the next pass is due", lambda: node.show(TIMER, "NextElapseUSecMonotonic")["NextElapseUSecMonotonic"] not in ("", "infinity") or None)

    def test_passes_complete_in_sync(self, node: Node) -> None:
        assert node.await_pass() == "0"
        assert node.show(SERVICE, "Result")["Result"] == "success"

    def test_is_hardened(self, node: Node) -> None:
        last = node.sh(f"systemd-analyze security --no-pager {SERVICE}").splitlines()[-1]
        exposure = re.search(r"(\d+\.\d+)", last)
        assert exposure and float(exposure.group(1)) <= 3.0, last

    def test_only_root_writes_what_it_trusts(self, node: Node) -> None:
        loose = "find /etc/kindnet /usr/local/lib/kindnet /usr/local/sbin/kindnet-reconcile ! -type l '(' -perm /022 -o ! -uid 0 ')'"
        assert node.run("test -s /etc/kindnet/desired.json").rc == 0
        assert node.run(loose).stdout == ""
        assert node.sh("stat -c '%a %U %G' /etc/kindnet /etc/kindnet/desired.json") == "755 root root\n644 root root\n"


class TestTheseTestsCanFail:
    """The assertions above that other scenarios build on, against a state that is wrong in one point."""

    def test_by_a_route(self, node: Node, nodes: Nodes, family: int) -> None:
        peer = next(n for n in nodes.values() if n is not node)
        other = copy.copy(peer)
        other.pod_cidrs = [c.replace(":244:", ":245:").replace("10.244", "10.245") if c == peer.pod_cidr(family) else c for c in peer.pod_cidrs]
        with pytest.raises(AssertionError):
            assert_converged(node, {**nodes, peer.name: other})

    def test_by_a_next_hop(self, node: Node, nodes: Nodes, family: int) -> None:
        peer = next(n for n in nodes.values() if n is not node)
        other = copy.copy(peer)
        other.node_ips = [peer.node_ip(family)[:-1] + "f0" if family == 6 else "172.18.0.250", *peer.node_ips]
        with pytest.raises(AssertionError):
            assert_converged(node, {**nodes, peer.name: other})

    def test_by_a_rule(self, node: Node, nodes: Nodes, family: int) -> None:
        other = copy.copy(node)
        other.cluster_cidrs = [*node.cluster_cidrs, "fd00:10:245::/56" if family == 6 else "10.245.0.0/16"]
        with pytest.raises(AssertionError):
            assert_converged(other, {**nodes, node.name: other})

    def test_by_the_conflist(self, node: Node, nodes: Nodes, family: int) -> None:
        other = copy.copy(node)
        wrong = "fd00:10:244:fe::/64" if family == 6 else "10.244.254.0/24"
        other.pod_cidrs = [wrong if c == node.pod_cidr(family) else c for c in node.pod_cidrs]
        with pytest.raises(AssertionError):
            assert_converged(other, {**nodes, node.name: other})
