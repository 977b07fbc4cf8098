# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods of a real runtime on the nodes, and the packets between them."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Any, Iterator

import pytest
from nodes import CHAIN, EPHEMERAL, NFT, ROOT, SAVE, Node, families_of, in_family, lab, numbers, play, until

KERNEL = "2"  # the protocol of routes that the kernel makes for addresses
OUTSIDE = Node("outside", {"kindnet_node_ips": ["172.18.0.100", "fc00:f853:ccd:e793::100"], "kindnet_pod_cidrs": []}, [])

# Says to the client which address the connection came from.
SERVER = "import socket; s = socket.create_server(('', %d), family=socket.AF_INET%s); c, a = s.accept(); c.sendall(a[0].encode())"
CLIENT = "import socket; c = socket.create_connection(('%s', %d), 5); print(c.recv(99).decode())"


@dataclass
class Place:
    """Where a connection begins or ends: a pod, or a node itself."""

    node: Node
    addresses: dict[int, str]  # by family
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
        place = Place(node, {}, f"nsenter --target {pid} --net ", pod)
        place.addresses = {family: addresses_of(place, "eth0", family)[0]["local"] for family in families_of(node.pod_cidrs)}
        places.append(place)
    yield places
    lab("pods", "down")
    for node in nodes.values():
        node.sh("rm -rf /run/cni-ipam-state /run/kindnet-lab /var/lib/cni")  # what a runtime keeps of pods it once had


def addresses_of(place: Place, link: str, family: int) -> list[dict[str, Any]]:
    """Those that others may know."""
    (found,) = place.json(f"ip -json -{family} address show dev {link}")
    return [a for a in found["addr_info"] if a["scope"] == "global"]


def seen_from(client: Place, server: Place, port: int, family: int) -> str:
    """The address that ``server`` sees when ``client`` connects to it."""
    unit = f"server-{port}"
    program = SERVER % (port, 6 if family == 6 else "")
    server.node.sh(f'systemd-run --quiet --collect --unit={unit} {server.enter}/usr/bin/python3 -c "{program}"')
    try:
        until(f"{unit} listens", lambda: f":{port} " in server.node.sh(f"{server.enter}ss -Hltn") or None)
        return client.node.sh(f'{client.enter}/usr/bin/python3 -c "{CLIENT % (server.addresses[family], port)}"').strip()
    finally:
        server.node.run(f"systemctl stop {unit}")


def at(node: Node) -> Place:
    return Place(node, {family: node.node_ip(family) for family in families_of(node.node_ips)}, "", node.name)


def network_of(node: Node, family: int) -> Any:
    return ipaddress.ip_network(node.pod_cidr(family))


def test_two_on_each_node_of_its_own_cidr(pods: list[Place], node: Node, family: int) -> None:
    mine = [p for p in pods if p.node is node]
    assert len(mine) == 2
    assert all(ipaddress.ip_address(p.addresses[family]) in network_of(node, family) for p in mine)


def test_what_a_pod_sees(pods: list[Place], family: int) -> None:
    for pod in pods:
        network = network_of(pod.node, family)
        gateway = str(network[1])
        assert [a["prefixlen"] for a in addresses_of(pod, "eth0", family)] == [network.prefixlen]
        routes = {r["dst"]: r.get("gateway") for r in pod.json(f"ip -json -{family} route show") if r["dst"] != "fe80::/64"}
        assert routes == {"default": gateway, str(network): gateway, gateway: None}, pod.name


def test_what_a_pod_sees_of_a_family_that_it_has_not(pods: list[Place]) -> None:
    for pod in pods:
        for family in {4, 6} - set(pod.addresses):
            assert [a for link in pod.json(f"ip -json -{family} address show dev eth0") for a in link.get("addr_info", ()) if a["scope"] == "global"] == []
            assert [r for r in pod.json(f"ip -json -{family} route show") if r["dst"] != "fe80::/64"] == []


def test_what_the_node_sees(pods: list[Place], node: Node, family: int) -> None:
    mine = {p.addresses[family] for p in pods if p.node is node}
    network = network_of(node, family)
    single = [r for r in node.routes("", family) if "/" not in r["dst"] and r["dst"] != "default" and r["protocol"] != KERNEL]
    hosts = {r["dst"]: r for r in single if ipaddress.ip_address(r["dst"]) in network}
    assert set(hosts) == mine
    veths = [r["dev"] for r in hosts.values()]
    assert len(set(veths)) == len(veths)
    for veth in veths:
        assert [a["local"] for a in addresses_of(at(node), veth, family)] == [str(network[1])]


def test_mtu_of_a_pod_is_that_of_the_way_to_the_peers(pods: list[Place], family: int) -> None:
    for pod in pods:
        peer = next(p for p in pods if p.node is not pod.node)
        (link,) = pod.json("ip -json link show dev eth0")
        assert link["mtu"] == pod.node.peer_interface(peer.node.node_ip(family))["mtu"]


def test_ping_across_nodes_passes_two_routers(pods: list[Place], family: int) -> None:
    for a in pods:
        b = next(p for p in pods if p.node is not a.node)
        assert "ttl=62 " in a.node.sh(f"{a.enter}ping -c 1 -W 5 {b.addresses[family]}"), (a.name, b.name)


def test_ping_on_one_node_passes_one_router(pods: list[Place], family: int) -> None:
    for a in pods:
        b = next(p for p in pods if p.node is a.node and p is not a)
        assert "ttl=63 " in a.node.sh(f"{a.enter}ping -c 1 -W 5 {b.addresses[family]}"), (a.name, b.name)


def test_pods_see_each_others_own_addresses(pods: list[Place], family: int) -> None:
    for i, a in enumerate(pods):
        for j, b in enumerate(pods):
            if a.node is not b.node and (i + j) % 2:  # each node to each other node
                assert seen_from(a, b, 7000 + 10 * i + j, family) == a.addresses[family], (a.name, b.name)


def test_a_host_outside_sees_the_node(pods: list[Place], family: int) -> None:
    for i, pod in enumerate(pods):
        assert seen_from(pod, at(OUTSIDE), 7200 + i, family) == pod.node.node_ip(family), pod.name


def test_a_peer_node_sees_the_node(pods: list[Place], nodes: dict[str, Node], family: int) -> None:
    pod = pods[0]
    peer = next(n for n in nodes.values() if n is not pod.node)
    assert seen_from(pod, at(peer), 7300, family) == pod.node.node_ip(family)


def test_a_node_reaches_pods_of_its_peers(pods: list[Place], nodes: dict[str, Node], family: int) -> None:
    pod = pods[0]
    peer = next(n for n in nodes.values() if n is not pod.node)
    assert seen_from(at(peer), pod, 7301, family) == peer.node_ip(family)


def test_what_decides_is_the_chain(pods: list[Place], family: int) -> None:
    """Counters of the very rules, so that no other masquerade can be what passed the tests above."""

    def packets(node: Node) -> tuple[int, int]:
        if SAVE == NFT:
            lines = node.sh(f"nft list chain inet kindnet {CHAIN}").splitlines()
            ours = [line for line in lines if f"ip{'6' if family == 6 else ''} daddr" in line or f"nfproto ipv{family}" in line]
            returned, masqueraded = numbers(ours, r"packets (\d+)")
            return returned, masqueraded
        lines = [line for line in node.sh(in_family(family, f"{SAVE} -c -t nat")).splitlines() if f"-A {CHAIN} " in line]
        (returned,) = numbers([line for line in lines if "-j RETURN" in line], r"^\[(\d+):")
        (masqueraded,) = numbers([line for line in lines if "-j MASQUERADE" in line], r"^\[(\d+):")
        return returned, masqueraded

    a = pods[0]
    b = next(p for p in pods if p.node is not a.node)
    before = packets(a.node)
    seen_from(a, b, 7400, family)
    between = packets(a.node)
    assert (between[0] > before[0], between[1]) == (True, before[1])
    seen_from(a, at(OUTSIDE), 7401, family)
    after = packets(a.node)
    assert (after[0], after[1] > between[1]) == (between[0], True)


def test_kindnet_info_tells_of_them_as_ctr_ip_and_the_firewall_do(pods: list[Place], nodes: dict[str, Node]) -> None:
    counted = {node.name: counters(node) for node in nodes.values()}
    playbook = EPHEMERAL / "info.yml"
    ask = {"kindnet.host.kindnet_info": {"node_name": "{{ inventory_hostname }}"}, "register": "told"}
    keep = {"content": "{{ told | to_json }}", "dest": f"{EPHEMERAL}/info-{{{{ inventory_hostname }}}}.json", "mode": "0600"}
    here = {"delegate_to": "localhost", "become": False, "vars": {"ansible_connection": "local"}}
    playbook.write_text(json.dumps([{"hosts": "kindnet_nodes", "gather_facts": False, "become": True, "tasks": [ask, {"ansible.builtin.copy": keep, **here}]}]))
    done = play(str(playbook))
    assert done.rc == 0, done.output
    for node in nodes.values():
        told = json.loads((EPHEMERAL / f"info-{node.name}.json").read_text())
        assert told["notes"] == [] and told["changed"] is False
        mine = [pod for pod in pods if pod.node is node]
        assert {pod["name"]: sorted(pod["ips"]) for pod in told["pods"]} == {pod.name: sorted(pod.addresses.values()) for pod in mine}
        links = {link["ifname"]: link for link in node.json("ip -json link show type veth")}
        for pod in told["pods"]:
            assert (pod["namespace"], pod["container"]) == ("default", f"default-{pod['name']}")
            assert pod["netns"] == f"/proc/{node.sh('ctr task list | awk -v pod=%s %s' % (pod['name'], PID_OF)).strip()}/ns/net"
            (of_the_pod,) = {route["dev"] for ip in pod["ips"] for route in node.json(f"ip -json route get {ip}")}
            assert pod["interface"] == of_the_pod
            (veth,) = [v for v in told["veths"] if v["container"] == pod["container"]]
            assert (veth["name"], veth["mtu"], veth["up"]) == (of_the_pod, links[of_the_pod]["mtu"], True)
        assert counted[node.name] == counters(node) == {
            (chain["family"], rule["packets"], rule["bytes"]) for chain in told["masquerade"] for rule in chain["rules"]
        }
        assert all((chain["present"], chain["jumps"]) == (True, 1) for chain in told["masquerade"])
        routes = sum(len(peer.pod_cidrs) for peer in nodes.values() if peer is not node)
        assert told["peers"] == {"wanted": routes, "present": routes, "missing": []}
        assert (told["timer"]["active"], told["timer"]["enabled"]) == ("active", "enabled")
        assert told["timer"]["last_pass"]["result"] in ("ok", "running")  # one may be under way
        assert told["versions"]["digest"] == node.sh("basename $(readlink -f /usr/local/lib/kindnet/current)").strip()


PID_OF = "'$1 == pod { print $2 }'"


def counters(node: Node) -> set[tuple[str, int, int]]:
    """Family, packets and bytes of each rule of the chain."""
    found = set()
    for family in families_of(node.cluster_cidrs):
        if SAVE == NFT:
            lines = [line for line in node.sh(f"nft list chain inet kindnet {CHAIN}").splitlines() if "counter" in line]
            of_this = [line for line in lines if ("ip6 daddr" in line or "nfproto ipv6" in line) == (family == 6)]
        else:
            of_this = [line for line in node.sh(in_family(family, f"{SAVE} -c -t nat")).splitlines() if f" -A {CHAIN} " in line]
        for line in of_this:
            packets, octets = re.findall(r"packets (\d+) bytes (\d+)" if SAVE == NFT else r"^\[(\d+):(\d+)\]", line)[0]
            found.add((f"ipv{family}", int(packets), int(octets)))
    return found


def test_these_tests_can_fail(pods: list[Place], family: int) -> None:
    """Without the chain's jump a host outside sees no node's address, and gets no answer to where it could send none."""
    a, b = pods[0], next(p for p in pods if p.node is not pods[0].node)
    nat = in_family(family, f"{'iptables' if SAVE == NFT else SAVE.removesuffix('-save')} -t nat")
    if SAVE == NFT:
        without_jump = "nft flush chain inet kindnet postrouting"
    else:
        (jump,) = [r for r in a.node.nat(in_family(family, SAVE)) if r.startswith("-A POSTROUTING") and r.endswith(f"-j {CHAIN}")]
        without_jump = f"{nat} {jump.replace('-A', '-D', 1)}"
    a.node.sh("systemctl stop kindnet-reconcile.timer; systemctl stop kindnet-reconcile.service")
    try:
        # A masquerade ahead of the chain is what a wrong host would do to traffic between pods.
        a.node.sh(f"{nat} -I POSTROUTING -j MASQUERADE")
        assert seen_from(a, b, 7500, family) == a.node.node_ip(family)
        a.node.sh(f"{nat} -D POSTROUTING -j MASQUERADE")
        a.node.sh(without_jump)
        with pytest.raises(AssertionError):
            seen_from(a, at(OUTSIDE), 7501, family)
    finally:
        a.node.sh("systemctl start kindnet-reconcile.timer")
        assert a.node.do_pass() == "0"
    assert seen_from(a, at(OUTSIDE), 7502, family) == a.node.node_ip(family)
