# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rules are in the way of our chain: the tables of the programs that a node may have, and the words of iptables one by one.

That what is not reported does no harm, and what is reported does, packets tell in tests/integration/test_shadow.py.
"""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._plan_chain import leads_to, wanted_jump
from ansible_collections.kindnet.host.plugins.module_utils._plan_shadow import shadowing, shadowing_nft

CHAIN = "KIND-MASQ-AGENT"
JUMP = wanted_jump(CHAIN)
PODS = SPARED = ("10.244.0.0/16",)
PODS6 = ("fd00:10:244::/56",)


def shadows(text, pods=PODS, spared=SPARED, ours=True):
    """What is in the way in the rules of ``iptables -S``, to which our jump is added last unless it is there."""
    rules = [line[3:].split(" ", 1) for line in text.strip().splitlines() if line.startswith("-A ")]
    chains = {line[3:]: [] for line in text.strip().splitlines() if line.startswith("-N ")}
    for chain, rule in rules:
        if chain != "POSTROUTING":
            chains[chain].append(rule)
    postrouting = [rule for chain, rule in rules if chain == "POSTROUTING"]
    return shadowing(postrouting, chains, (lambda rule: leads_to(rule, CHAIN)) if ours else None, pods, spared)


def of(*rules, **options):
    return shadows("".join("-A POSTROUTING %s\n" % rule for rule in rules), **options)


def places(lines):
    """The number of each rule in the way, and the class whose packets it takes."""
    return [(line.split(" '")[0], "spared" if "pods' traffic to" in line else "others") for line in lines]


KUBE_PROXY = """
-N KUBE-MARK-MASQ
-N KUBE-POSTROUTING
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
"""
KUBE_PROXY_IPVS = """
-N KUBE-POSTROUTING
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m comment --comment "Kubernetes endpoints dst ip:port" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE
"""
DOCKER = """
-N DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/16 ! -o br-5e2f7c1b9a04 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
"""
CNI_PORTMAP = """
-N CNI-HOSTPORT-MASQ
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
"""
PODMAN = """
-N NETAVARK-1D8721804F16F
-N NETAVARK-HOSTPORT-MASQ
-A POSTROUTING -j NETAVARK-HOSTPORT-MASQ
-A POSTROUTING -s 10.88.0.0/16 -j NETAVARK-1D8721804F16F
-A NETAVARK-1D8721804F16F -d 10.88.0.0/16 -j ACCEPT
-A NETAVARK-1D8721804F16F ! -d 224.0.0.0/4 -j MASQUERADE
-A NETAVARK-HOSTPORT-MASQ -m comment --comment "netavark portfw masq mark" -m mark --mark 0x2000/0x2000 -j MASQUERADE
"""
LIBVIRT = """
-N LIBVIRT_PRT
-A POSTROUTING -j LIBVIRT_PRT
-A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
-A LIBVIRT_PRT -s 192.168.122.0/24 -d 255.255.255.255/32 -j RETURN
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p udp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE
"""
CALICO = """
-N cali-POSTROUTING
-N cali-fip-snat
-N cali-nat-outgoing
-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-fip-snat
-A cali-POSTROUTING -m comment --comment "cali:nYKhEzDlr11Jccal" -j cali-nat-outgoing
-A cali-POSTROUTING -o tunl0 -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE
-A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE
"""
CILIUM = """
-N CILIUM_POST_nat
-A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
-A CILIUM_POST_nat -s 10.0.1.0/24 -m set --match-set cilium_node_set_v4 dst -m comment --comment "exclude traffic to cluster nodes from masquerade" -j ACCEPT
-A CILIUM_POST_nat -s 10.0.1.0/24 ! -d 10.0.0.0/16 ! -o cilium_+ -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE
-A CILIUM_POST_nat -m mark --mark 0xa00/0xe00 -m comment --comment "exclude proxy return traffic from masquerade" -j ACCEPT
-A CILIUM_POST_nat -s 127.0.0.1/32 -o cilium_host -m comment --comment "cilium host->cluster from 127.0.0.1 masquerade" -j SNAT --to-source 10.0.1.153
"""
# As it was until 0.20, and as it is since.
FLANNEL = """
-A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
"""
FLANNEL_CHAIN = """
-N FLANNEL-POSTRTG
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
"""
STRONGSWAN = "-A POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT\n"


@pytest.mark.parametrize("table", [KUBE_PROXY, KUBE_PROXY_IPVS, DOCKER, CNI_PORTMAP, PODMAN, LIBVIRT, CALICO, CILIUM, FLANNEL, STRONGSWAN])
def test_programs_that_are_not_in_the_way(table):
    assert shadows(table) == []
    assert shadows(table + "-A POSTROUTING %s\n" % JUMP) == []
    assert shadows("-A POSTROUTING %s\n" % JUMP + table) == []


def test_all_of_them_together_hide_no_rule_that_is():
    """Not even those that nobody can tell, as they masquerade at most."""
    (line,) = shadows(KUBE_PROXY + DOCKER + PODMAN + LIBVIRT + CALICO + STRONGSWAN + "-A POSTROUTING -s 10.244.0.0/16 -o eth0 -j MASQUERADE\n")
    assert line == "POSTROUTING rule 11 '-s 10.244.0.0/16 -o eth0 -j MASQUERADE': masquerades pods' traffic to 10.244.0.0/16"


def test_a_cni_plugin_with_ip_masq():
    """ptp and bridge make a chain per pod, which knows the node's own pod CIDR only: what goes to another node is masqueraded."""
    table = """
-N CNI-2f6e0c1b7a5d4e3f90817263
-A POSTROUTING -s 10.244.1.5/32 -m comment --comment "name: \\"kindnet\\" id: \\"9b1c\\"" -j CNI-2f6e0c1b7a5d4e3f90817263
-A CNI-2f6e0c1b7a5d4e3f90817263 -d 10.244.1.0/24 -m comment --comment "name: \\"kindnet\\" id: \\"9b1c\\"" -j ACCEPT
-A CNI-2f6e0c1b7a5d4e3f90817263 ! -d 224.0.0.0/4 -m comment --comment "name: \\"kindnet\\" id: \\"9b1c\\"" -j MASQUERADE
"""
    (line,) = shadows(table)
    assert line.startswith("POSTROUTING rule 1 '-s 10.244.1.5/32 ")
    assert ", CNI-2f6e0c1b7a5d4e3f90817263 rule 2 '! -d 224.0.0.0/4 " in line
    assert line.endswith("-j MASQUERADE': masquerades pods' traffic to 10.244.0.0/16")
    assert shadows(table, spared=["10.244.1.0/24"]) == []  # a cluster of one node


def test_flannel_of_today_takes_a_cluster_cidr_that_it_does_not_know():
    assert shadows(FLANNEL_CHAIN, pods=["10.244.1.0/24"]) == []
    (line,) = shadows(FLANNEL_CHAIN, pods=["10.244.1.0/24"], spared=["10.244.0.0/16", "10.96.0.0/12"])
    assert "FLANNEL-POSTRTG rule 5 " in line
    assert line.endswith("masquerades pods' traffic to 10.96.0.0/12")


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (["-j MASQUERADE"], [("POSTROUTING rule 1", "spared")]),
        (["-s 10.0.0.0/8 -j SNAT --to-source 192.0.2.1"], [("POSTROUTING rule 1", "spared")]),
        (["-d 10.244.0.0/16 -j NETMAP --to 10.1.0.0/16"], [("POSTROUTING rule 1", "spared")]),
        (["-s 10.245.0.0/16 -j MASQUERADE"], []),
        (["! -s 10.244.0.0/16 -j MASQUERADE"], []),
        (["! -d 10.244.0.0/16 -j SNAT --to-source 192.0.2.1"], []),  # another address for what is to have another one
        (["-s 10.244.7.0/24 -p udp -o eth0 -j MASQUERADE"], [("POSTROUTING rule 1", "spared")]),
        (["-o lo -j MASQUERADE"], []),
        (["! -o lo -j MASQUERADE"], [("POSTROUTING rule 1", "spared")]),
        (["-j ACCEPT"], [("POSTROUTING rule 1", "others")]),
        (["-s 10.244.0.0/16 -j RETURN"], [("POSTROUTING rule 1", "others")]),
        (["-d 10.244.0.0/16 -j ACCEPT"], []),
        (["-d 8.8.8.8/32 -j ACCEPT"], [("POSTROUTING rule 1", "others")]),
        (["-d 224.0.0.0/24 -j RETURN", "-d 255.255.255.255/32 -j RETURN"], []),
        # What comes behind one that has it all is dead.
        (["-s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT", "-j MASQUERADE"], []),
        (["! -d 10.244.0.0/16 -j MASQUERADE", "-j ACCEPT"], []),
        (["-d 10.244.0.0/17 -j ACCEPT", "-d 10.244.128.0/17 -j ACCEPT", "-j MASQUERADE"], []),
        (["-d 10.244.0.0/17 -j ACCEPT", "-d 10.244.192.0/18 -j ACCEPT", "-j MASQUERADE"], [("POSTROUTING rule 3", "spared")]),
        (["-p tcp -j RETURN", "! -p tcp -d 10.244.0.0/16 -j RETURN", "-j MASQUERADE"], [("POSTROUTING rule 1", "others")]),
        (["-o eth+ -d 10.244.0.0/16 -j RETURN", "-o eth7 -j MASQUERADE"], []),
        (["-o eth7 -d 10.244.0.0/16 -j RETURN", "-o eth+ -j MASQUERADE"], [("POSTROUTING rule 2", "spared")]),
        # Marks, and what else is not true of an ordinary packet.
        (["-m mark --mark 0x1 -j MASQUERADE", "-m connmark --mark 0x1/0x1 -j ACCEPT"], []),
        (["-m mark ! --mark 0x1/0x1 -j ACCEPT"], [("POSTROUTING rule 1", "others")]),
        (["-m mark --mark 0x0 -j MASQUERADE"], [("POSTROUTING rule 1", "spared")]),
        (["-m addrtype --dst-type LOCAL -j MASQUERADE", "-m addrtype --src-type LOCAL -j ACCEPT"], []),
        (["-m addrtype ! --dst-type LOCAL -j MASQUERADE"], [("POSTROUTING rule 1", "spared")]),
        (["-m policy --dir out --pol none -j MASQUERADE"], [("POSTROUTING rule 1", "spared")]),
        (["-m iprange --src-range 10.244.3.1-10.244.3.9 -j MASQUERADE"], [("POSTROUTING rule 1", "spared")]),
        (["-m iprange ! --dst-range 10.244.0.0-10.244.255.255 -j MASQUERADE"], []),
        # What is not understood is not reported, nor what it may keep packets from.
        (["-m set --match-set x dst -j MASQUERADE", "-m statistic --mode random --probability 0.5 -j ACCEPT"], []),
        (["-m set --match-set x dst -j ACCEPT", "-j MASQUERADE"], []),
        (["-m set --match-set x dst -s 10.244.1.0/24 -j ACCEPT", "-s 10.244.2.0/24 -j MASQUERADE"], [("POSTROUTING rule 2", "spared")]),
        (["-p tcp -m tcp --dport 80 -j RETURN", "-s 10.244.0.0/16 -j MASQUERADE"], [("POSTROUTING rule 2", "spared")]),
        (["-m set ! --match-set x dst -j MASQUERADE", "-s 10.244.0.0/16 -j ACCEPT"], []),
        (["-m set --match-set x src -j MASQUERADE", "-s 10.244.0.0/16 -j MASQUERADE"], [("POSTROUTING rule 2", "spared")]),
        (["-m socket -j MASQUERADE"], []),
        (["-j MARK --set-xmark 0x1/0xffffffff", "-j MASQUERADE"], []),
        (["-j MISSING", "-j MASQUERADE"], []),
        (["-j LOG --log-prefix \"-j ACCEPT\"", "-j MASQUERADE"], [("POSTROUTING rule 2", "spared")]),
        (['-m comment --comment "-j MASQUERADE" -o lo -j ACCEPT'], []),
        # Behind our jump, what our chain handed back is met by the rest.
        ([JUMP, "-j MASQUERADE"], [("POSTROUTING rule 2", "spared")]),
        ([JUMP, "-j ACCEPT"], []),
        (["-o eth0 -j KIND-MASQ-AGENT", "-j ACCEPT", JUMP], []),  # a doubled jump, which the same run makes one
        (["-s 10.244.0.0/16", "-j ACCEPT"], [("POSTROUTING rule 2", "others")]),
    ],
)
def test_a_rule_at_a_time(rules, found):
    assert places(of(*rules)) == found


def test_a_line_says_where_what_and_to_whom():
    assert of("-s 10.245.0.0/16 -j ACCEPT", "-s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE", "-d 192.0.2.0/24 -j ACCEPT") == [
        "POSTROUTING rule 2 '-s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE': masquerades pods' traffic to 10.244.0.0/16",
    ]
    assert of("-d 192.0.2.0/24 -j ACCEPT", "-j SNAT --to-source 192.0.2.1", spared=["10.%d.0.0/16" % n for n in range(5)]) == [
        "POSTROUTING rule 1 '-d 192.0.2.0/24 -j ACCEPT': keeps pods' traffic from being masqueraded",
        "POSTROUTING rule 2 '-j SNAT --to-source 192.0.2.1': translates the source of pods' traffic to 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16 and 2 more",
    ]


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("-A POSTROUTING -j A\n-A POSTROUTING -j MASQUERADE\n-A A -d 10.244.0.0/16 -j RETURN", ["POSTROUTING rule 2"]),
        ("-A POSTROUTING -j A\n-A POSTROUTING -j MASQUERADE\n-A A -d 10.244.0.0/16 -j ACCEPT", []),
        ("-A POSTROUTING -g A\n-A POSTROUTING -j MASQUERADE\n-A A -d 10.244.0.0/16 -j RETURN", ["POSTROUTING rule 1"]),  # past our jump
        ("-A POSTROUTING -d 10.244.0.0/16 -g A\n-A POSTROUTING -j MASQUERADE", []),
        ("-A POSTROUTING -j A\n-A A -g B\n-A A -j MASQUERADE\n-A B -o lo -j ACCEPT", []),
        ("-A POSTROUTING -j A\n-A POSTROUTING -j MASQUERADE\n-A A -g B\n-A B -o lo -j ACCEPT", ["POSTROUTING rule 2"]),
        ("-A POSTROUTING -j A\n-A A -j B\n-A A -j MASQUERADE\n-A B -o lo -j ACCEPT", ["A rule 2"]),
        ("-A POSTROUTING -j A\n-A A -j B\n-A B -j RETURN\n-A B -j MASQUERADE", []),
        ("-A POSTROUTING -m set --match-set x dst -j A\n-A A -j MASQUERADE", []),
        ("-A POSTROUTING -j A\n-A POSTROUTING -j MASQUERADE\n-A A -m set --match-set x dst -j RETURN\n-A A -j ACCEPT", []),
        ("-A POSTROUTING -j A\n-A POSTROUTING -j MASQUERADE\n-A A -m set --match-set x dst -j RETURN", ["POSTROUTING rule 2"]),
        ("-A POSTROUTING -s 10.244.1.0/24 -j A\n-A POSTROUTING -s 10.244.2.0/24 -j A\n-A A -j MASQUERADE", ["A rule 1"]),  # once
    ],
)
def test_chains(rules, found):
    lines = shadows("-N A\n-N B\n%s" % rules)
    assert [place.split(", ")[-1] for place in (line.rpartition(" '")[0] for line in lines)] == found


def test_chains_without_end_and_for_many_pods_are_bounded():
    assert shadows("-N A\n-A POSTROUTING -j A\n-A A -j A\n-A A -j MASQUERADE") == []
    pods = [(n // 125, n % 125 + 1) for n in range(250)]
    table = "".join("-N CNI-%d-%d\n" % pod for pod in pods)
    table += "".join("-A POSTROUTING -s 10.244.%d.%d/32 -j CNI-%d-%d\n" % (pod * 2) for pod in pods)
    table += "".join("-A CNI-%d-%d -m set --match-set x dst -j RETURN\n-A CNI-%d-%d -d 10.244.%d.0/24 -j ACCEPT\n" % (pod * 2 + pod[:1]) for pod in pods)
    assert shadows(table) == []


def test_ipv6_and_the_other_family():
    options = {"pods": PODS6, "spared": ["10.244.0.0/16", *PODS6]}
    assert places(of("-s fd00:10:244::/56 ! -d ff00::/8 -j MASQUERADE", **options)) == [("POSTROUTING rule 1", "spared")]
    assert of("-s fd00:10:244::/56 -d fd00:10:244::/56 -j RETURN", "-j MASQUERADE", **options) == []
    assert of("-d ff02::1/128 -j RETURN", **options) == []
    assert places(of("-p ipv6-icmp -j ACCEPT", **options)) == [("POSTROUTING rule 1", "others")]


def test_a_chain_of_ours_beside_iptables_is_kept_from_nothing_by_its_accepts():
    assert of("-j ACCEPT", ours=False) == []
    assert places(of("-s 10.244.0.0/16 -j MASQUERADE", "-j ACCEPT", ours=False)) == [("POSTROUTING rule 1", "spared")]


def test_without_pods_nothing_is_in_the_way():
    assert of("-j MASQUERADE", pods=[]) == []
    assert places(of("-j MASQUERADE", "-j ACCEPT", spared=[])) == []
    assert of("-j ACCEPT", spared=["0.0.0.0/0"]) == []


def test_a_statement_that_nft_has_no_json_for_is_not_told():
    """It prints such a one as text."""
    where = {"family": "ip", "table": "t"}
    chain = {"chain": dict(where, name="c", type="nat", hook="postrouting", prio=100)}
    rules = [{"rule": dict(where, chain="c", handle=n, expr=[*expr, {"masquerade": None}])} for n, expr in enumerate(([], ["xt target X"]))]
    assert len(shadowing_nft({"nftables": [chain, rules[0]]}, "kindnet", PODS, SPARED)) == 1
    assert shadowing_nft({"nftables": [chain, rules[1]]}, "kindnet", PODS, SPARED) == []
