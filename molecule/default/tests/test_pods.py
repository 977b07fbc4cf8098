# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods of a real runtime on the nodes, and the packets between them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Iterator

import pytest
from nodes import CHAIN, ROOT, Node, lab, numbers, until

OUTSIDE = Node("outside", {"kindnet_node_ips": ["172.18.0.100"], "kindnet_pod_cidrs": []}, [])

# Says to the client which address the connection came from.
SERVER = "import socket; s = socket.create_server(('', %d)); c, a = s.accept(); c.sendall(a[0].encode())"
CLIENT = "import socket; c = socket.create_connection(('%s', %d), 5); print(c.recv(99).decode())"


@dataclass
class Place:
    """Where a connection begins or ends: a pod, or a node itself."""

    node: Node
    address: str
    enter: str = ""  # what a command is preceded by to run there
    name: str = ""

    def json(self, command: str) -> Any:
        return self.node.json(f"{self.enter}{command}")


@pytest.fixture(scope="module")
def pods(nodes: dict[str, Node]) -> Iterator[list[Place]]:
    lab("pods", "up")
    rows = [line.split() for line in (ROOT / "lab/pods.tsv").read_text().splitlines() if not line.startswith("#")]
    places = []
    for node_name, pod in rows:
        node = nodes[node_name]
        pid = node.sh(f"ctr task list | awk '$1 == \"{pod}\" {{ print $2 }}'").strip()
        enter = f"nsenter --target {pid} --net "
        (link,) = node.json(f"{enter}ip -json -4 address show dev eth0")
        (address,) = link["addr_info"]
        places.append(Place(node, address["local"], enter, pod))
    yield places
    lab("pods", "down")


def seen_from(client: Place, server: Place, port: int) -> str:
    """The address that ``server`` sees when ``client`` connects to it."""
    unit = f"server-{port}"
    server.node.sh(f"systemd-run --quiet --collect --unit={unit} {server.enter}/usr/bin/python3 -c \"{SERVER % port}\"")
    try:
        until(f"{unit} listens", lambda: f":{port} " in server.node.sh(f"{server.enter}ss -Hltn") or None)
        return client.node.sh(f"{client.enter}/usr/bin/python3 -c \"{CLIENT % (server.address, port)}\"").strip()
    finally:
        server.node.run(f"systemctl stop {unit}")


def at(place: Node) -> Place:
    return Place(place, place.node_ips[0], "", place.name)


def test_two_on_each_node_of_its_own_cidr(pods: list[Place], node: Node) -> None:
    mine = [p for p in pods if p.node is node]
    assert len(mine) == 2
    assert all(ipaddress.ip_address(p.address) in ipaddress.ip_network(node.pod_cidrs[0]) for p in mine)


def test_what_a_pod_sees(pods: list[Place]) -> None:
    for pod in pods:
        network = ipaddress.ip_network(pod.node.pod_cidrs[0])
        gateway = str(network[1])
        (link,) = pod.json("ip -json -4 address show dev eth0")
        assert [a["prefixlen"] for a in link["addr_info"]] == [network.prefixlen]
        routes = {r["dst"]: r.get("gateway") for r in pod.json("ip -json -4 route show")}
        assert routes == {"default": gateway, str(network): gateway, gateway: None}, pod.name


def test_what_the_node_sees(pods: list[Place], node: Node) -> None:
    mine = {p.address for p in pods if p.node is node}
    network = ipaddress.ip_network(node.pod_cidrs[0])
    hosts = {r["dst"]: r for r in node.routes() if "/" not in r["dst"] and r["dst"] != "default" and ipaddress.ip_address(r["dst"]) in network}
    assert set(hosts) == mine
    veths = [r["dev"] for r in hosts.values()]
    assert len(set(veths)) == len(veths)
    for veth in veths:
        (link,) = node.json(f"ip -json -4 address show dev {veth}")
        assert [a["local"] for a in link["addr_info"]] == [str(network[1])]


def test_mtu_of_a_pod_is_that_of_the_way_to_the_peers(pods: list[Place]) -> None:
    for pod in pods:
        peer = next(p for p in pods if p.node is not pod.node)
        (link,) = pod.json("ip -json link show dev eth0")
        assert link["mtu"] == pod.node.peer_interface(peer.node.node_ips[0])["mtu"]


def test_ping_across_nodes_passes_two_routers(pods: list[Place]) -> None:
    for a in pods:
        b = next(p for p in pods if p.node is not a.node)
        assert "ttl=62 " in a.node.sh(f"{a.enter}ping -c 1 -W 5 {b.address}"), (a.name, b.name)


def test_ping_on_one_node_passes_one_router(pods: list[Place]) -> None:
    for a in pods:
        b = next(p for p in pods if p.node is a.node and p is not a)
        assert "ttl=63 " in a.node.sh(f"{a.enter}ping -c 1 -W 5 {b.address}"), (a.name, b.name)


def test_pods_see_each_others_own_addresses(pods: list[Place]) -> None:
    for i, a in enumerate(pods):
        for j, b in enumerate(pods):
            if a.node is not b.node and (i + j) % 2:  # each node to each other node
                assert seen_from(a, b, 7000 + 10 * i + j) == a.address, (a.name, b.name)


def test_a_host_outside_sees_the_node(pods: list[Place]) -> None:
    for i, pod in enumerate(pods):
        assert seen_from(pod, at(OUTSIDE), 7200 + i) == pod.node.node_ips[0], pod.name


def test_a_peer_node_sees_the_node(pods: list[Place], nodes: dict[str, Node]) -> None:
    pod = pods[0]
    peer = next(n for n in nodes.values() if n is not pod.node)
    assert seen_from(pod, at(peer), 7300) == pod.node.node_ips[0]


def test_a_node_reaches_pods_of_its_peers(pods: list[Place], nodes: dict[str, Node]) -> None:
    pod = pods[0]
    peer = next(n for n in nodes.values() if n is not pod.node)
    assert seen_from(at(peer), pod, 7301) == peer.node_ips[0]


def test_what_decides_is_the_chain(pods: list[Place]) -> None:
    """Counters of the very rules, so that no other masquerade can be what passed the tests above."""

    def packets(node: Node) -> tuple[int, int]:
        lines = [line for line in node.sh("iptables-save -c -t nat").splitlines() if f"-A {CHAIN} " in line]
        (returned,) = numbers([line for line in lines if "-j RETURN" in line], r"^\[(\d+):")
        (masqueraded,) = numbers([line for line in lines if "-j MASQUERADE" in line], r"^\[(\d+):")
        return returned, masqueraded

    a = pods[0]
    b = next(p for p in pods if p.node is not a.node)
    before = packets(a.node)
    seen_from(a, b, 7400)
    between = packets(a.node)
    assert (between[0] > before[0], between[1]) == (True, before[1])
    seen_from(a, at(OUTSIDE), 7401)
    after = packets(a.node)
    assert (after[0], after[1] > between[1]) == (between[0], True)


def test_these_tests_can_fail(pods: list[Place]) -> None:
    """Without the chain's jump a host outside sees no node's address, and gets no answer to where it could send none."""
    a, jump = pods[0], [line for line in pods[0].node.nat() if line.startswith("-A POSTROUTING") and line.endswith(f"-j {CHAIN}")][0]
    b = next(p for p in pods if p.node is not a.node)
    a.node.sh("systemctl stop kindnet-reconcile.timer; systemctl stop kindnet-reconcile.service")
    try:
        # A masquerade ahead of the chain is what a wrong host would do to traffic between pods.
        a.node.sh("iptables -t nat -I POSTROUTING -j MASQUERADE")
        assert seen_from(a, b, 7500) == a.node.node_ips[0]
        a.node.sh("iptables -t nat -D POSTROUTING -j MASQUERADE")
        a.node.sh(f"iptables -t nat {jump.replace('-A', '-D', 1)}")
        with pytest.raises(AssertionError):
            seen_from(a, at(OUTSIDE), 7501)
    finally:
        a.node.sh("systemctl start kindnet-reconcile.timer")
        assert a.node.do_pass() == "0"
    assert seen_from(a, at(OUTSIDE), 7502) == a.node.node_ips[0]
