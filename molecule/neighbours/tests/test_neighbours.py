# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods beside systemd-networkd, NetworkManager, firewalld and what Docker leaves behind: with each handled, without, and handled again."""

from __future__ import annotations

import re
from typing import Iterator

import pytest
from nodes import NFT, PROTOCOL, SAVE, TIMER, Node, Run, assert_converged, lab, play, until

Nodes = dict[str, Node]
Pods = dict[str, tuple[str, str]]  # by node: the pod's address, and what a command is preceded by to run there

NETWORKD, MANAGER, FIREWALL = "k8s-guide-networkd", "k8s-guide-networkmanager", "k8s-guide-firewalld"
NETWORKD_FILE = "/etc/systemd/networkd.conf.d/zz-kindnet.conf"
MANAGER_FILE = "/etc/NetworkManager/conf.d/zz-kindnet.conf"
POLICY_FILE = "/etc/firewalld/policies/kindnet.xml"
FILES = {NETWORKD: NETWORKD_FILE, MANAGER: MANAGER_FILE, FIREWALL: POLICY_FILE}
MARK = '-m comment --comment "kindnet.host: packets from and to pods are forwarded" -j ACCEPT'
DOCKER_USER = [f"-A DOCKER-USER -s 10.244.0.0/16 {MARK}", f"-A DOCKER-USER -d 10.244.0.0/16 {MARK}", "-A DOCKER-USER -j RETURN"]

RESTART_NETWORKD = "systemctl restart systemd-networkd; until networkctl --no-legend list eth0 | grep -qw configured; do sleep 0.1; done"


def start_pod(node: Node) -> tuple[str, str]:
    lab("pods", "add", node.name, "neighbour")
    pid = node.sh("ctr task list | awk '$1 == \"neighbour\" { print $2 }'").strip()
    enter = f"nsenter --target {pid} --net "
    (link,) = node.json(f"{enter}ip -json -4 address show dev eth0")
    return link["addr_info"][0]["local"], enter


@pytest.fixture(scope="module")
def pods(nodes: Nodes) -> Iterator[Pods]:
    places = {}
    for node in nodes.values():
        places[node.name] = start_pod(node)
    yield places
    for node in nodes.values():
        lab("pods", "remove", node.name, "neighbour")
        node.sh("rm -rf /run/cni-ipam-state /run/kindnet-lab /var/lib/cni")  # what a runtime keeps of pods it once had


def unreached(nodes: Nodes, pods: Pods) -> set[tuple[str, str]]:
    """Between which pods, and from which node to which pod, a ping does not pass."""
    failed = set()
    for name, node in nodes.items():
        for end, (address, _unused) in pods.items():
            if end == name:
                continue
            for start, enter in ((f"pod of {name}", pods[name][1]), (name, "")):
                if node.run(f"{enter}ping -n -q -c 1 -W 1 {address}").rc != 0:
                    failed.add((start, end))
    return failed


def veths(node: Node) -> dict[str, str]:
    """What NetworkManager makes of the interfaces of pods."""
    rows = [line.split(":", 1) for line in node.sh("nmcli --terse --fields DEVICE,STATE device").splitlines()]
    return {name: state for name, state in rows if name.startswith("veth")}


def docker_user(node: Node) -> list[str]:
    return [line for line in node.sh("iptables -S DOCKER-USER").splitlines() if line.startswith("-A")]


def without_passes(node: Node) -> None:
    node.sh(f"systemctl stop {TIMER}; systemctl stop kindnet-reconcile.service")


def assert_handled(nodes: Nodes, pods: Pods) -> None:
    for name, node in nodes.items():
        # The nat rules of others that firewalld's node has are firewalld's own, in native chains, so auto takes nftables there.
        assert_converged(node, nodes, NFT if name == FIREWALL else SAVE)
    assert unreached(nodes, pods) == set()
    assert docker_user(nodes[NETWORKD]) == DOCKER_USER
    assert set(veths(nodes[MANAGER]).values()) == {"unmanaged"}
    for name, path in FILES.items():
        assert nodes[name].host.file(path).exists


def test_networkmanager_would_take_the_interfaces_of_pods(nodes: Nodes) -> None:
    """Before there is a pod that it could do harm to."""
    node = nodes[MANAGER]
    node.sh("ip link add name vethdeadbeef type veth peer name somebody0 && ip link set vethdeadbeef up && udevadm settle")
    try:
        assert veths(node) == {"vethdeadbeef": "unmanaged"}
        node.sh(f"mv {MANAGER_FILE} /run/zz.conf; nmcli general reload conf")
        until("NetworkManager takes it", lambda: veths(node)["vethdeadbeef"] != "unmanaged" or None)
        node.sh(f"mv /run/zz.conf {MANAGER_FILE}; nmcli general reload conf")
        until("NetworkManager leaves it alone", lambda: veths(node)["vethdeadbeef"] == "unmanaged" or None)
    finally:
        node.sh("ip link del vethdeadbeef")


def test_pods_reach_each_other(nodes: Nodes, pods: Pods) -> None:
    assert_handled(nodes, pods)


def test_nobody_was_restarted(node: Node) -> None:
    assert node.sh("systemctl show --property=Id,InvocationID systemd-networkd NetworkManager firewalld") == node.read("/run/invocations")


def test_each_has_what_is_for_it_and_no_more(node: Node) -> None:
    here = node.sh(f"ls -d {' '.join(FILES.values())} 2>/dev/null || true").split()
    assert here == [FILES[node.name]]


def test_a_restart_of_networkd_keeps_routes_with_the_file_and_drops_them_without(nodes: Nodes) -> None:
    node = nodes[NETWORKD]
    without_passes(node)
    try:
        node.sh("ip route add 198.51.100.0/24 via 172.18.0.32")  # somebody else's
        routes = node.routes()
        assert len([r for r in routes if r["protocol"] == PROTOCOL]) == 2
        node.sh(RESTART_NETWORKD)
        assert node.routes() == routes
        node.sh(f"mv {NETWORKD_FILE} /run/zz.conf; {RESTART_NETWORKD}")
        assert [r for r in node.routes() if "gateway" in r] == []
        node.sh(f"mv /run/zz.conf {NETWORKD_FILE}")
        assert node.do_pass() == "0"
        assert len(node.routes(PROTOCOL)) == 2
    finally:
        node.sh(f"systemctl start {TIMER}")


def test_networkmanager_leaves_pods_alone_and_what_somebody_else_named(nodes: Nodes, pods: Pods) -> None:
    node = nodes[MANAGER]
    assert list(veths(node).values()) == ["unmanaged"]
    node.sh("ip link add name somebody0 type veth peer name somebody1")
    try:
        states = node.sh("udevadm settle; nmcli --terse --fields DEVICE,STATE device").splitlines()
        assert "somebody0:unmanaged" in states
    finally:
        node.sh("ip link del somebody0")


def test_a_reload_of_firewalld_leaves_our_table_alone(nodes: Nodes, pods: Pods) -> None:
    node = nodes[FIREWALL]
    without_passes(node)
    try:
        node.sh("firewall-cmd --quiet --reload")
        assert_handled(nodes, pods)
    finally:
        node.sh(f"systemctl start {TIMER}")


def masquerade_by(backend: str) -> None:
    done = play("kindnet.yml", f"--limit={FIREWALL}", "--tags=masquerade", f"-ekindnet_masq_backend={backend}")
    assert done.rc == 0 and done.changed, done.output


def test_a_pass_makes_up_for_a_reload_of_firewalld(nodes: Nodes, pods: Pods) -> None:
    """Which takes away what iptables made, of everybody."""
    node = nodes[FIREWALL]
    masquerade_by("iptables-nft")
    try:
        assert_converged(node, nodes, SAVE)
        without_passes(node)
        node.sh("firewall-cmd --quiet --reload")
        assert node.chain_lines() == []
        assert node.do_pass() == "0"
        assert_converged(node, nodes, SAVE)
    finally:
        node.sh(f"systemctl start {TIMER}")
        masquerade_by("nftables")
    assert node.chain_lines() == []
    assert_handled(nodes, pods)


def test_firewalld_opens_nothing_on_the_host(nodes: Nodes, pods: Pods) -> None:
    node = nodes[FIREWALL]
    node.sh("systemd-run --quiet --collect --unit=listener /usr/bin/python3 -m http.server 8099")
    try:
        connect = f"/usr/bin/python3 -c 'import socket; socket.create_connection((\"{node.node_ips[0]}\", 8099), 2)'"
        assert node.run(f"for i in 1 2 3 4 5 6 7 8 9; do {connect} && exit 0; sleep 0.2; done; exit 1").rc == 0
        assert node.run(f"{pods[FIREWALL][1]}{connect}").rc != 0
        assert nodes[MANAGER].run(f"{pods[MANAGER][1]}{connect}").rc != 0
    finally:
        node.sh("systemctl stop listener")


def test_a_pass_restores_the_rules_of_docker_user(nodes: Nodes, pods: Pods) -> None:
    node = nodes[NETWORKD]
    cursor = node.cursor()
    node.sh("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN")
    assert node.do_pass() == "0"
    assert docker_user(node) == DOCKER_USER
    (line,) = [line for line in node.journal(cursor) if "filter/FORWARD" in line]
    assert "add " in line and "policy of FORWARD is DROP" in line


class TestUndone:
    """Each neighbour as it would be without us: pods notice, verify.yml names it with its remedy, and the playbook puts it right."""

    @pytest.fixture(scope="class")
    def verified(self, nodes: Nodes, pods: Pods) -> Run:
        for node in nodes.values():
            without_passes(node)
        nodes[NETWORKD].sh(f"rm {NETWORKD_FILE}; iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN")
        nodes[MANAGER].sh(f"rm {MANAGER_FILE}; nmcli general reload conf")
        nodes[FIREWALL].sh(f"rm {POLICY_FILE}; firewall-cmd --quiet --zone=public --add-masquerade --permanent; firewall-cmd --quiet --reload")
        return play("verify.yml")

    def test_pods_notice(self, verified: Run, nodes: Nodes, pods: Pods) -> None:
        failed = unreached(nodes, pods)
        for name in (NETWORKD, FIREWALL):
            assert (f"pod of {MANAGER}", name) in failed
            assert (MANAGER, name) in failed

    def test_verify_names_each_with_its_remedy(self, verified: Run) -> None:
        assert verified.rc != 0
        said = verified.messages(NETWORKD)
        assert "systemd-networkd: drops routes" in said and "ManageForeignRoutes=no" in said
        assert "FORWARD of iptables-nft: drops" in said and "iptables-nft -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT" in said
        assert f"{NETWORKD_FILE}: is gone" in said  # by the pass's own look
        said = verified.messages(MANAGER)
        assert "NetworkManager: manages interfaces of pods (veth" in said and "unmanaged-devices+=" in said
        said = verified.messages(FIREWALL)
        assert "firewalld: rejects forwarded packets" in said and "--new-policy allow-pods" in said
        assert "firewalld zone public: masquerades" in said and "--remove-masquerade" in said

    def test_the_playbook_puts_them_right(self, verified: Run, nodes: Nodes, pods: Pods) -> None:
        nodes[FIREWALL].sh("rm /etc/firewalld/zones/public.xml*")  # firewall-cmd made it
        assert play("kindnet.yml", "--check", "--tags", "neighbours").pairs() == play("kindnet.yml", "--tags", "neighbours").pairs()
        for node in nodes.values():
            node.sh(f"systemctl start {TIMER}")
            assert node.do_pass() == "0"
        # NetworkManager had it, and took its gateway's address away.
        lab("pods", "remove", MANAGER, "neighbour")
        pods[MANAGER] = start_pod(nodes[MANAGER])
        assert_handled(nodes, pods)
        assert play("verify.yml").rc == 0


def test_left_to_the_operator(nodes: Nodes, pods: Pods) -> None:
    options = [f"-ekindnet_manage_{item}=false" for item in ("networkd", "networkmanager", "firewalld", "forward")]
    left = play("kindnet.yml", "--tags", "neighbours", *options)
    assert left.rc == 0, left.output
    for name, path in FILES.items():
        assert not nodes[name].host.file(path).exists
    assert docker_user(nodes[NETWORKD]) == DOCKER_USER[2:]
    for remedy in ("ManageForeignRoutes=no", "unmanaged-devices+=", "--new-policy allow-pods", "-I DOCKER-USER -s 10.244.0.0/16"):
        assert remedy in " ".join(left.output.split()), remedy

    # What an operator makes of the advice about firewalld is the operator's: it helps, and stays.
    node = nodes[FIREWALL]
    advice = play("verify.yml").messages(FIREWALL)
    commands, theirs = as_advised(advice)
    try:
        for command in commands:
            node.sh(f"{command} >/dev/null")
        assert node.do_pass() == "0"
        assert {(start, end) for start, end in unreached(nodes, pods) if end == FIREWALL and start.endswith(MANAGER)} == set()
        policy = node.read(theirs)
        again = play("kindnet.yml", "--tags", "neighbours", *options)
        assert again.rc == 0 and again.changed == [] and "firewalld rejects" not in " ".join(again.output.split())
        assert "firewalld: rejects" not in play("verify.yml").messages(FIREWALL)
        assert play("kindnet.yml", "--tags", "neighbours").rc == 0
        assert_handled(nodes, pods)
        assert node.read(theirs) == policy
    finally:
        node.sh(f"rm -f {theirs}*; firewall-cmd --quiet --reload")
    assert node.do_pass() == "0"
    assert_handled(nodes, pods)


def as_advised(advice: str) -> tuple[list[str], str]:
    """The commands that an operator is told to run about firewalld, and the file of the policy that they make."""
    (name,) = re.findall(r"'firewall-cmd --permanent --new-policy (\S+)'", advice)
    options = re.findall(r"--add-[a-z-]+=(?:'[^']+'|\w+)", advice)
    assert len(options) == 4, advice
    commands = [f"firewall-cmd --permanent --policy={name} {option}" for option in options]
    return [f"firewall-cmd --permanent --new-policy {name}", *commands, "firewall-cmd --reload"], f"/etc/firewalld/policies/{name}.xml"
