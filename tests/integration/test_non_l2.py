# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers in another layer 2 domain, with a real router between them, and packets across."""

from __future__ import annotations

__metaclass__ = type

import os
import subprocess
import time

import pytest
from route_host import RouteHost, node, quartet

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ME = node("me", "172.19.0.2 fd00:19::2", "10.244.0.0/24 fd00:10:244::/64")
NEAR = node("near", "172.18.0.3 fd00:18::3", "10.244.1.0/24 fd00:10:244:1::/64")
FAR = node("far", "10.20.0.9 fd00:20::9", "10.244.20.0/24 fd00:10:244:20::/64")
NODES = [ME, FAR, NEAR]  # not the last, so that there is one whom it could cost its route
FAR4, FAR6 = "10.244.20.0/24", "fd00:10:244:20::/64"
GATEWAYS = ["172.19.0.1", "fd00:19::1"]
NEAR_ROUTES = ["via 172.18.0.3 dev eth0 proto 107", "via fd00:18::3 dev eth0 proto 107 metric 1024"]


class Place:
    """A network namespace of its own."""

    def __init__(self):
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        deadline = time.monotonic() + 30
        while os.readlink("/proc/%d/ns/net" % self.process.pid) == os.readlink("/proc/self/ns/net"):
            assert time.monotonic() < deadline
        self.sh("ip link set lo up")

    def sh(self, script):
        subprocess.run(["nsenter", "--target", str(self.process.pid), "--net", "sh", "-euc", script], check=True)

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server():
    h = RouteHost()
    yield h
    h.close()


@pytest.fixture
def host(server):
    """This host, a router, and behind it the peer: with a pod on either side, and no way between them but by the router."""
    server.fresh()
    router, peer = Place(), Place()
    router.sh("ip link add r0 type veth peer name eth2 netns %d; ip link add r1 type veth peer name eth0 netns %d" % (server.process.pid, peer.process.pid))
    server.sh("""ip link set eth2 up; ip addr add 172.19.0.2/24 dev eth2; ip addr add fd00:19::2/64 dev eth2 nodad; ip addr add fe80::2/64 dev eth2 nodad
        ip addr add 10.244.0.5/32 dev lo; ip addr add fd00:10:244::5/128 dev lo nodad
        ip route add 10.20.0.0/24 via 172.19.0.1; ip route add fd00:20::/64 via fd00:19::1""")
    router.sh("""sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip link set r0 up; ip link set r1 up
        ip addr add 172.19.0.1/24 dev r0; ip addr add fd00:19::1/64 dev r0 nodad; ip addr add 10.20.0.1/24 dev r1; ip addr add fd00:20::1/64 dev r1 nodad
        ip route add 10.244.20.0/24 via 10.20.0.9; ip route add fd00:10:244:20::/64 via fd00:20::9
        ip route add 10.244.0.0/24 via 172.19.0.2; ip route add fd00:10:244::/64 via fd00:19::2""")
    peer.sh("""ip link set eth0 up; ip addr add 10.20.0.9/24 dev eth0; ip addr add fd00:20::9/64 dev eth0 nodad
        ip route add default via 10.20.0.1; ip route add default via fd00:20::1
        ip addr add 10.244.20.5/32 dev lo; ip addr add fd00:10:244:20::5/128 dev lo nodad""")
    server.router = router
    deadline = time.monotonic() + 30
    # The kernel takes its time with the first neighbours of a new link.
    while not (reaches(server, "10.20.0.9", "172.19.0.2") and reaches(server, "fd00:20::9", "fd00:19::2")):
        assert time.monotonic() < deadline
    yield server
    router.close()
    peer.close()


def reaches(host, address, source):
    command = host.command("ping", "-c", "2", "-i", "0.2", "-W", "2", "-I", source, address)
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def pods_reach_each_other(host):
    return [reaches(host, "10.244.20.5", "10.244.0.5"), reaches(host, "fd00:10:244:20::5", "fd00:10:244::5")]


def near_routes(host):
    return host.lines("10.244.1.0/24") + host.lines("fd00:10:244:1::/64")


def test_fail_is_the_default_and_costs_the_far_peer_alone(host):
    real = quartet(host, nodes=NODES, node_name="me", expect_failure=True)
    assert {(r["node"], r["action"]) for r in real["routes"]} == {("far", "fail"), ("near", "add")}
    assert "peer far: its next hop 10.20.0.9 is not on-link" in real["msg"] and "kindnet_non_l2" in real["msg"]
    assert near_routes(host) == NEAR_ROUTES and pods_reach_each_other(host) == [False, False]


def test_skip_leaves_it_to_the_network(host):
    # What an earlier converge, from when it was near, has left.
    host.sh("ip route add 10.244.20.0/24 via 172.18.0.20 proto 107")
    real = quartet(host, nodes=NODES, node_name="me", non_l2="skip")
    assert {(r["node"], r["action"]) for r in real["routes"]} == {("far", "skip"), ("near", "add"), ("", "remove")}
    (note,) = real["notes"]
    assert "left to the network" in note and "far (10.20.0.9)" in note and "far (fd00:20::9)" in note and "near" not in note
    assert near_routes(host) == NEAR_ROUTES and host.lines(FAR4) == host.lines(FAR6) == []
    # The network knows the way, once this host sends there what it has no route for.
    assert pods_reach_each_other(host) == [False, False]
    host.sh("ip route add default via 172.19.0.1; ip route add default via fd00:19::1")
    assert pods_reach_each_other(host) == [True, True]


def test_via_a_gateway(host):
    real = quartet(host, nodes=NODES, node_name="me", non_l2="via", non_l2_gateways=GATEWAYS)
    assert {(r["dst"], r["next_hop"]) for r in real["routes"] if r["node"] == "far"} == {(FAR4, GATEWAYS[0]), (FAR6, GATEWAYS[1])}
    assert host.lines(FAR4) == ["via 172.19.0.1 dev eth2 proto 107"]
    assert host.lines(FAR6) == ["via fd00:19::1 dev eth2 proto 107 metric 1024"]
    assert near_routes(host) == NEAR_ROUTES and pods_reach_each_other(host) == [True, True]
    # A pass keeps to what was decided.
    host.sh("ip route del 10.244.20.0/24; ip -6 route change fd00:10:244:20::/64 via fd00:19::99 proto 107 metric 1024")
    assert sorted(host.a_pass()["changes"]) == [["route " + FAR4, "add"], ["route " + FAR6, "replace"]]
    assert pods_reach_each_other(host) == [True, True] and host.a_pass(read_only=True)["changes"] == []
    quartet(host, state="absent")
    assert host.lines(FAR4) == host.lines(FAR6) == []


def test_via_gateways_by_peer(host):
    nodes = [*NODES, node("other", "10.20.0.10", "10.244.21.0/24")]
    real = quartet(host, nodes=nodes, node_name="me", non_l2="via", non_l2_gateways={"far": GATEWAYS}, expect_failure=True)
    assert [(p["subject"], p["message"].split(". ")[0]) for p in real["problems"]] == [
        ("route 10.244.21.0/24", "peer other: 10.20.0.10 is not on-link, and kindnet_non_l2_gateway has no gateway of its family for it")
    ]
    assert pods_reach_each_other(host) == [True, True]


def test_via_a_gateway_that_is_not_on_link(host):
    real = quartet(host, nodes=NODES, node_name="me", non_l2="via", non_l2_gateways=["10.20.0.1", "fd00:19::1"], expect_failure=True)
    (problem,) = real["problems"]
    assert "its gateway 10.20.0.1 is not on-link" in problem["message"]
    assert host.lines(FAR4) == [] and near_routes(host) == NEAR_ROUTES and pods_reach_each_other(host) == [False, True]
    with pytest.raises(AssertionError, match="Nexthop has invalid gateway"):
        host.sh("ip route add 10.244.20.0/24 via 10.20.0.1")  # the kernel thinks so too


@pytest.mark.parametrize("interface", ["", "eth2"])
def test_onlink(host, interface):
    # The router answers for what is behind it.
    host.router.sh("sysctl -qw net.ipv4.conf.r0.proxy_arp=1 net.ipv6.conf.r0.proxy_ndp=1; ip -6 neigh add proxy fd00:20::9 dev r0")
    arguments = {"non_l2_interface": interface} if interface else {}
    quartet(host, nodes=NODES, node_name="me", non_l2="onlink", **arguments)
    assert host.lines(FAR4) == ["via 10.20.0.9 dev eth2 proto 107 onlink"]
    assert host.lines(FAR6) == ["via fd00:20::9 dev eth2 proto 107 metric 1024 onlink"]
    assert near_routes(host) == NEAR_ROUTES and pods_reach_each_other(host) == [True, True]
    # Also where the interface that the kernel would take is another one by now.
    host.sh("ip route replace 10.20.0.0/24 via 172.18.0.99; ip route change 10.244.20.0/24 via 10.20.0.9 dev eth0 onlink proto 107")
    assert host.a_pass()["changes"] == [["route " + FAR4, "replace"]]
    assert host.lines(FAR4) == ["via 10.20.0.9 dev eth2 proto 107 onlink"]
    host.sh("ip link del eth2")
    gone = host.a_pass()
    assert gone["changes"] == [] and [p["subject"] for p in gone["problems"]] == ["route " + FAR4, "route " + FAR6]
    assert "eth2, which is not there" in gone["problems"][0]["message"] and near_routes(host) == NEAR_ROUTES


def test_one_mode_after_another(host):
    """Each is one replace where there was a route; and a peer that is near by now is routed to as any."""
    quartet(host, nodes=NODES, node_name="me", non_l2="via", non_l2_gateways=GATEWAYS)
    changed = quartet(host, nodes=NODES, node_name="me", non_l2="onlink")
    assert {(r["node"], r["action"]) for r in changed["routes"]} == {("far", "replace")}
    host.sh("ip addr add 10.20.0.2/24 dev eth2; ip -6 route del fd00:20::/64; ip addr add fd00:20::2/64 dev eth2 nodad")
    # By the network of the new address; the flag that was needed is not there any more.
    host.sh("ip route del 10.20.0.0/24 via 172.19.0.1")
    changed = quartet(host, nodes=NODES, node_name="me", non_l2="via", non_l2_gateways=GATEWAYS)
    assert {(r["node"], r["action"]) for r in changed["routes"]} == {("far", "replace")}
    assert host.lines(FAR4) == ["via 10.20.0.9 dev eth2 proto 107"] and host.lines(FAR6) == ["via fd00:20::9 dev eth2 proto 107 metric 1024"]


def test_a_skipped_peer_is_no_removal(host):
    """The guard counts members, not routes."""
    nodes = [ME, *(node("far%d" % i, "10.20.1.%d" % i, "10.244.%d.0/24" % (100 + i)) for i in range(1, 6))]
    quartet(host, nodes=nodes, node_name="me", non_l2="via", non_l2_gateways=GATEWAYS)
    changed = quartet(host, nodes=nodes, node_name="me", non_l2="skip", max_removals=0)
    assert [r["action"] for r in changed["routes"]].count("remove") == 5
    refused = host.module(nodes=[nodes[0], nodes[1]], node_name="me", non_l2="skip")
    assert refused["failed"] and "far5" in refused["msg"]


def test_bad_input_changes_nothing(host):
    before = host.routes()
    for arguments, said in (
        ({"non_l2": "via"}, "non_l2_gateways"),
        ({"non_l2": "via", "non_l2_gateways": "router"}, "is not an IP address"),
        ({"non_l2": "via", "non_l2_gateways": ["172.19.0.1", "172.19.0.5"]}, "one gateway per family"),
        ({"non_l2": "onlink", "non_l2_interface": "../eth0"}, "is not the name of an interface"),
        ({"non_l2": "drop"}, "non_l2"),
    ):
        for check in (True, False):
            refused = host.module(nodes=NODES, node_name="me", check=check, **arguments)
            assert refused["failed"] and said in refused["msg"], refused
            assert (host.routes(), host.desired()) == (before, "")
