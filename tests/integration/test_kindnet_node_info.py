# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which address of an interface is a node's, and what a host says it has recorded. The kernel's own list is the oracle."""

from __future__ import annotations

import ipaddress
import json
import random
import sys
from typing import Any, Iterator

import pytest
from cni_sandbox import ROOT, Sandbox

MODULE = "ansible_collections.kindnet.host.plugins.modules.kindnet_node_info"
COLLECTIONS = str(ROOT / ".ansible/collections")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("host"))
    yield sandbox
    sandbox.close()


def ask(host: Sandbox, **options: Any) -> dict[str, Any]:
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"name": "me", **options}})
    done = host.run(sys.executable, "-m", MODULE, stdin=arguments, check=False, env={"PYTHONPATH": COLLECTIONS})
    return json.loads(done.stdout)


def addresses(host: Sandbox, interface: str) -> list[dict[str, Any]]:
    (link,) = json.loads(host.sh("ip -json address show dev %s" % interface))
    return link["addr_info"]


@pytest.fixture
def eth1(host: Sandbox) -> Iterator[str]:
    host.sh("ip link add eth1 type veth peer name eth1p; ip link set eth1 up; ip link set eth1p up")
    yield "eth1"
    host.sh("ip link del eth1")


V4 = ("192.0.2.9/24", "192.0.2.8/24", "198.51.100.4/24", "192.0.2.1/32")
V6 = ("2001:db8::9/64 nodad", "2001:db8::8/64 nodad", "fd00:5::4/64 nodad", "2001:db8::1/128 nodad")
NEVER = (
    "192.0.2.2/24 valid_lft 900 preferred_lft 0",
    "169.254.7.7/16",
    "203.0.113.9/24 scope link",
    "2001:db8::2/64 nodad valid_lft 900 preferred_lft 0",
    "fd00:5::1/64 nodad valid_lft 900 preferred_lft 0",
)
LEASED = ("192.0.2.3/24 valid_lft 900 preferred_lft 800", "2001:db8::3/64 nodad valid_lft 900 preferred_lft 800")


def test_never_one_that_peers_could_not_use(host: Sandbox, eth1: str) -> None:
    for address in NEVER:
        host.sh("ip address add %s dev eth1" % address)
    assert len([a for a in addresses(host, eth1) if a["scope"] == "global"]) >= 3
    assert ask(host, interface=eth1)["addresses"] == []
    host.sh("ip address add 192.0.2.9/24 dev eth1")
    assert ask(host, interface=eth1)["addresses"] == ["192.0.2.9"]


def test_never_a_temporary_one(host: Sandbox, eth1: str) -> None:
    """The kernel makes one beside each address that a router's prefix gives."""
    host.sh("sysctl -qw net.ipv6.conf.eth1.use_tempaddr=2")
    host.sh("ip address add 2001:db8::77/64 dev eth1 nodad mngtmpaddr valid_lft 900 preferred_lft 800")
    temporary = [a["local"] for a in addresses(host, eth1) if a.get("temporary")]
    assert temporary, "the kernel made none, so this test would show nothing"
    assert ask(host, interface=eth1)["addresses"] == ["2001:db8::77"]


def test_never_one_that_is_not_known_to_be_alone(host: Sandbox, eth1: str) -> None:
    host.sh("sysctl -qw net.ipv6.conf.eth1.dad_transmits=30; ip address add 2001:db8::66/64 dev eth1")
    assert [a for a in addresses(host, eth1) if a["local"] == "2001:db8::66"][0].get("tentative")
    assert ask(host, interface=eth1)["addresses"] == []


def test_the_same_one_in_whatever_order_they_came(host: Sandbox, eth1: str) -> None:
    shuffle = random.Random(7)
    for _unused in range(6):
        host.sh("ip address flush dev eth1")
        many = [*V4[1:], *V6, *NEVER, *LEASED]
        shuffle.shuffle(many)
        host.sh("ip address add %s dev eth1" % V4[0])  # the first of a network is its primary one
        for address in many:
            host.sh("ip address add %s dev eth1" % address)
        found = ask(host, interface=eth1)["addresses"]
        assert (found[0], next(a for a in found if ":" in a)) == ("192.0.2.9", "2001:db8::8")
        usable = {a.split("/", 1)[0] for a in (*V4, *V6, *LEASED)}
        assert set(found) == usable, "each of them could do, some better than others"
        assert [ipaddress.ip_address(a).version for a in found] == sorted(ipaddress.ip_address(a).version for a in found)


def test_configured_before_leased_and_a_network_before_a_single_one(host: Sandbox, eth1: str) -> None:
    host.sh("ip address add %s dev eth1; ip address add 198.51.100.99/24 dev eth1; ip address add 192.0.2.1/32 dev eth1" % LEASED[0])
    assert ask(host, interface=eth1)["addresses"] == ["198.51.100.99", "192.0.2.1", "192.0.2.3"]


def test_the_own_end_of_a_point_to_point_link(host: Sandbox, eth1: str) -> None:
    host.sh("ip address add 192.0.2.50 peer 192.0.2.51/32 dev eth1")
    assert ask(host, interface=eth1)["addresses"] == ["192.0.2.50"]


def test_an_interface_that_is_not_there(host: Sandbox) -> None:
    result = ask(host, interface="eth9")
    assert result["failed"] and "eth9" in result["msg"] and "lo" in result["msg"]


def test_without_an_interface_none(host: Sandbox) -> None:
    assert ask(host)["addresses"] == []
    assert ask(host, interface="lo")["addresses"] == []


def test_what_is_recorded(host: Sandbox) -> None:
    assert ask(host)["pod_cidrs"] == {}
    ipam = {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:10:244::/64"}]]}
    sections = {
        "routes": {"node_name": "old-name", "peers": [["b", "10.244.1.0/24", "192.0.2.2"], ["b", "fd00:10:244:1::/64", "2001:db8::2"]]},
        "conflist": {"conflist": {"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "ptp", "ipam": ipam}]}},
    }
    host.write("/etc/kindnet/desired.json", json.dumps({"schema": 1, "cluster_name": "kindnet", "sections": sections}))
    for name in ("10.244.0.2", "fd00:10:244::2", "lock", "last_reserved_ip.0"):
        host.write("/run/cni-ipam-state/kindnet/" + name, "pod")
    result = ask(host)
    assert result["pod_cidrs"] == {"old-name": ["10.244.0.0/24", "fd00:10:244::/64"], "b": ["10.244.1.0/24", "fd00:10:244:1::/64"]}
    assert result["allocations"] == ["10.244.0.2", "fd00:10:244::2"]
    assert ask(host, cluster_name="another")["pod_cidrs"] == {}


def test_what_kindnetd_left_or_a_lost_record(host: Sandbox) -> None:
    """Pods have their addresses from the file that is in use, whoever wrote it."""
    host.sh("rm -rf /etc/kindnet /run/cni-ipam-state")
    ranges = [[{"subnet": "10.244.3.0/24"}], [{"subnet": ""}]]  # the second is what kindnetd writes without a pod CIDR
    ipam = {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": ranges}
    text = json.dumps({"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "ptp", "ipam": ipam}]})
    host.write("/etc/cni/net.d/10-kindnet.conflist", text)
    host.write("/run/cni-ipam-state/kindnet/10.244.3.7", "pod")
    try:
        routes = {"node_name": "me", "peers": [["b", "10.244.1.0/24", "192.0.2.2"]]}
        for cluster_name, sections in (("", None), ("kindnet", {}), ("kindnet", {"routes": routes})):
            if sections is not None:
                host.write("/etc/kindnet/desired.json", json.dumps({"schema": 1, "cluster_name": cluster_name, "sections": sections}))
            result = ask(host)
            assert result["pod_cidrs"]["me"] == ["10.244.3.0/24"] and result["allocations"] == ["10.244.3.7"]
        assert result["pod_cidrs"]["b"] == ["10.244.1.0/24"]
        assert ask(host, cluster_name="another")["pod_cidrs"] == {}
        host.write("/etc/cni/net.d/10-kindnet.conflist", text[:40])
        assert "me" not in ask(host)["pod_cidrs"], "damaged, it says nothing"
    finally:
        host.sh("rm -rf /etc/kindnet /etc/cni /run/cni-ipam-state")
