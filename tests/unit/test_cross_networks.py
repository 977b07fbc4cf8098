# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges of pods that two hosts share, as a table of cases, and against a brute-force oracle."""

from __future__ import annotations

import ipaddress
import itertools

from ansible_collections.kindnet.host.plugins.plugin_utils._cross_networks import CONFLIST, DECLARED, POD, Use, colliding
from cross_cluster import cluster, difference, findings, the_one
from hypothesis import given, settings
from hypothesis import strategies as st


def use_of(network: str, host: str, what: str = CONFLIST) -> Use:
    return Use(ipaddress.ip_network(network), host, what, what != CONFLIST)


def test_a_host_uses_what_is_anothers_by_the_inventory() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["conflists"][0]["subnets"] = ["10.100.2.0/24"]
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"], found["subject"]) == ("overlap", ["n2", "n1"], "10.100.2.0/24")
    assert "10.100.2.0/24 in the inventory of n2" in found["message"] and "of the CNI configuration of n1" in found["message"]


def test_a_pod_has_an_address_of_another_hosts() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["pods"].append({"ips": ["10.100.2.77", "192.0.2.9"], "container": "old", "interface": ""})
    difference(hosts["n1"], "conflist", "file /etc/cni/net.d/10-kindnet.conflist")  # a run mends the file, and not the pod
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"]) == ("overlap", ["n2", "n1"]) and "10.100.2.77/32 of a pod of n1" in found["message"]


def test_what_a_run_mends_does_not_overlap() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["conflists"][0]["subnets"] = ["10.100.2.0/24"]
    hosts["n1"]["info"]["desired"]["pod_cidrs"] = ["10.100.2.0/24"]
    difference(hosts["n1"], "conflist", "file /etc/cni/net.d/10-kindnet.conflist")
    assert findings(nodes, hosts) == []


def test_a_network_of_a_container_engine_may_be_the_same_everywhere() -> None:
    nodes, hosts = cluster()
    for host in hosts.values():
        host["info"]["conflists"] = [{"path": "/etc/cni/net.d/87-podman.conflist", "ours": False, "in_use": True, "mtu": None, "subnets": ["10.88.0.0/16", ""]}]
        host["info"]["pods"].append({"ips": ["10.88.0.2"], "container": "x", "interface": ""})
    assert findings(nodes, hosts) == []
    hosts["n1"]["info"]["conflists"][0]["subnets"] = ["10.100.0.0/16"]
    assert the_one(nodes, hosts)["hosts"] == ["n1", "n0", "n2"]


def test_a_host_has_recorded_another_pod_cidr_than_the_inventory_says() -> None:
    nodes, hosts = cluster()
    hosts["n1"]["info"]["desired"]["pod_cidrs"] = ["10.100.9.0/24"]
    found = the_one(nodes, hosts)
    assert (found["check"], found["hosts"], found["subject"]) == ("pod_cidrs", ["n1"], "10.100.9.0/24") and "10.100.1.0/24" in found["message"]
    difference(hosts["n1"], "conflist", "file /etc/cni/net.d/10-kindnet.conflist")
    assert findings(nodes, hosts) == []


def network(base: int, number: int, length: int) -> str:
    return str(ipaddress.ip_network((base + number, length), strict=False))


TEN = 10 << 24
NETWORKS = st.builds(network, st.sampled_from([TEN, TEN + (1 << 24)]), st.just(0), st.integers(6, 10)) | st.builds(
    network, st.just(TEN), st.integers(0, 31), st.integers(27, 32)
)
USES = st.lists(st.builds(use_of, NETWORKS, st.sampled_from("abcdef"), st.sampled_from([DECLARED, CONFLIST, POD])), max_size=12)


@settings(max_examples=400)
@given(USES)
def test_overlaps_as_an_oracle_finds_them(uses: list[Use]) -> None:
    """Hosts are named that have to do with each other, and no others; what is apart stays apart."""
    pairs = [(a, b) for a, b in itertools.combinations(set(uses), 2) if a.host != b.host and a.cidr.overlaps(b.cidr) and (a.is_pods or b.is_pods)]
    groups = [set(group) for group in colliding(uses)]
    assert {use for group in groups for use in group} == {use for pair in pairs for use in pair}
    for a, b in pairs:
        assert sum(a in group for group in groups) == 1 and any(a in group and b in group for group in groups)
    for one, other in itertools.combinations(groups, 2):
        assert not any(a.cidr.overlaps(b.cidr) for a in one for b in other)
