# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules in the way of our chain, and packets as the oracle: what is not reported does no harm, and what is reported does.

A pod sends through rules made at random, and what hears it tells by which address. Of each kind of destination that the rules can tell apart
there is one, so the answers must be equal, unless a rule asks for what these packets do not vary in.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._plan_chain import leads_to
from ansible_collections.kindnet.host.plugins.module_utils._plan_shadow import shadowing, shadowing_nft
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nat_sandbox import Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CHAIN = "KIND-MASQ-AGENT"
CLONE_NEWNET = 0x40000000


class Family:
    def __init__(self, version, pods, spared, sources, inside, outside, networks):
        self.version, self.pods, self.spared, self.sources, self.inside, self.outside = version, [pods], [spared], sources, inside, outside
        self.networks = ([pods, "%s/%d" % (sources[0], 32 if version == 4 else 128), spared], [spared, *networks])  # of sources, of destinations
        self.tool = "iptables" if version == 4 else "ip6tables"
        self.nft = "ip" if version == 4 else "ip6"
        self.foreign = "192.168.2.99" if version == 4 else "fd01:2::99"


V4 = Family(
    4, "10.244.1.2/31", "10.244.0.0/16", ("10.244.1.2", "10.244.1.3"), ("10.244.2.2", "10.244.3.2"), ("10.9.0.2", "192.0.2.2", "203.0.113.2"),
    ["10.244.2.0/24", "10.0.0.0/8", "192.0.2.0/24"],
)
V6 = Family(
    6, "fd00:1::2/127", "fd00::/16", ("fd00:1::2", "fd00:1::3"), ("fd00:2::2", "fd00:3::2"), ("fd09::2", "2001:db8::2", "2001:db9::2"),
    ["fd00:2::/32", "fd00::/8", "2001:db8::/32"],
)


class Network:
    """A node, with a pod on one side and, by two links, all that pods send to on the other."""

    def __init__(self):
        self.node, self.pod, self.far = Sandbox(), Sandbox(), Sandbox()
        self.ports = itertools.count(10000)
        self.node.run(
            "ip link add pod type veth peer name eth0 netns %d; ip link add cl0 type veth peer name cl0 netns %d;"
            "ip link add out0 type veth peer name out0 netns %d; for i in pod cl0 out0; do ip link set $i up; done;"
            "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding;"
            "ip addr add 10.244.1.1/24 dev pod; ip addr add 192.168.1.1/24 dev cl0; ip addr add 192.168.2.1/24 dev out0;"
            "ip route add 10.244.0.0/16 via 192.168.1.2; ip route add default via 192.168.2.2;"
            "ip addr add fd00:1::1/64 dev pod nodad; ip addr add fd01:1::1/64 dev cl0 nodad; ip addr add fd01:2::1/64 dev out0 nodad;"
            "ip route add fd00::/16 via fd01:1::2; ip route add default via fd01:2::2" % ((self.pod.process.pid,) + (self.far.process.pid,) * 2)
        )
        self.pod.run(
            "ip link set eth0 up; ip addr add 10.244.1.2/24 dev eth0; ip addr add 10.244.1.3/24 dev eth0; ip route add default via 10.244.1.1;"
            "ip addr add fd00:1::2/64 dev eth0 nodad; ip addr add fd00:1::3/64 dev eth0 nodad; ip route add default via fd00:1::1"
        )
        self.far.run(
            "for i in all default cl0 out0; do echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter; done; ip link set cl0 up; ip link set out0 up;"
            "ip addr add 192.168.1.2/24 dev cl0; ip addr add 192.168.2.2/24 dev out0;"
            "ip addr add fd01:1::2/64 dev cl0 nodad; ip addr add fd01:2::2/64 dev out0 nodad;"
            + "".join("ip addr add %s dev lo;" % address for family in (V4, V6) for address in family.inside + family.outside)
        )
        self.sender = ThreadPoolExecutor(1, initializer=enter, initargs=(self.pod.process.pid,))
        with ThreadPoolExecutor(1, initializer=enter, initargs=(self.far.process.pid,)) as there:
            self.ears = {family.version: there.submit(listen, family).result() for family in (V4, V6)}

    def close(self):
        self.sender.shutdown()
        for ear in self.ears.values():
            ear.close()
        for sandbox in (self.node, self.pod, self.far):
            sandbox.close()

    def heard(self, family, source, destination):
        """By which address the destination hears the source. The port is a new one, else conntrack knew the answer."""
        self.sender.submit(send, family, source, next(self.ports), destination).result()
        return self.ears[family.version].recvfrom(16)[1][0]

    def harm(self, family):
        """Whether what a pod sends to a spared destination has another source there, and whether what it sends elsewhere has not."""
        inside = any(self.heard(family, source, destination) != source for source in family.sources for destination in family.inside)
        return inside, any(self.heard(family, source, destination) == source for source in family.sources for destination in family.outside)


def enter(pid):
    with open("/proc/%d/ns/net" % pid) as f:
        assert ctypes.CDLL(None, use_errno=True).setns(f.fileno(), CLONE_NEWNET) == 0


def listen(family):
    ear = socket.socket(socket.AF_INET if family is V4 else socket.AF_INET6, socket.SOCK_DGRAM)
    ear.settimeout(10)
    if family is V6:
        ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    ear.bind(("", 9))
    return ear


def send(family, source, port, destination):
    with socket.socket(socket.AF_INET if family is V4 else socket.AF_INET6, socket.SOCK_DGRAM) as mouth:
        mouth.bind((source, port))
        mouth.sendto(b"x", (destination, 9))


@pytest.fixture(scope="module")
def network():
    network = Network()
    yield network
    network.close()


# Of a rule: source and destination, each an index into the family's networks and whether it is negated; something else; what it does.
ADDRESSES = st.none() | st.tuples(st.integers(0, 2), st.booleans())
NARROW = ("tcp", "udp", "cl0", "out0")  # true of some packets, of which others of their class are not sent
ELSE = ("", "", "", "unmarked", "marked", "local", "remote", *NARROW)
VERDICTS = ("accept", "return", "masquerade", "snat")


def rules(*chains):
    verdicts = VERDICTS + tuple((kind, chain) for chain in chains for kind in ("jump", "goto"))
    return st.lists(st.tuples(ADDRESSES, ADDRESSES, st.sampled_from(ELSE), st.sampled_from(verdicts)), max_size=4)


TABLES = st.tuples(rules("A", "B"), rules("B"), rules())  # POSTROUTING, A, B


def is_narrow(tables):
    return any(also in NARROW for table in tables for _unused, _unused2, also, _unused3 in table)


def in_iptables(rule, family):
    source, destination, also, verdict = rule
    words = []
    for flag, index, networks in (("-s", source, family.networks[0]), ("-d", destination, family.networks[1])):
        if index:
            words += ["!"] * index[1] + [flag, networks[index[0]]]
    words.append(
        {
            "unmarked": "-m mark ! --mark 0x4/0x4", "marked": "-m mark --mark 0x4", "local": "-m addrtype --dst-type LOCAL",
            "remote": "-m addrtype ! --dst-type LOCAL", "tcp": "-p tcp", "udp": "-p udp", "cl0": "-o cl+", "out0": "! -o cl0",
        }.get(also, "")
    )
    targets = {"accept": "-j ACCEPT", "return": "-j RETURN", "masquerade": "-j MASQUERADE", "snat": "-j SNAT --to-source %s" % family.foreign}
    words.append(targets[verdict] if isinstance(verdict, str) else "-%s %s" % (verdict[0][0], verdict[1]))
    return " ".join(words)


def in_nft(rule, family):
    source, destination, also, verdict = rule
    words = []
    for field, index, networks in (("saddr", source, family.networks[0]), ("daddr", destination, family.networks[1])):
        if index:
            words.append("%s %s %s %s" % (family.nft, field, "!=" if index[1] else "==", networks[index[0]]))
    words.append(
        {
            "unmarked": "meta mark & 0x4 == 0", "marked": "meta mark 0x4", "local": "fib daddr type local", "remote": "fib daddr type != local",
            "tcp": "meta l4proto tcp", "udp": "meta l4proto { udp, sctp }", "cl0": 'oifname "cl*"', "out0": "oif != cl0",
        }.get(also, "")
    )
    if verdict == "snat":
        words.append("snat %s to %s" % (family.nft, family.foreign))
    else:
        words.append(verdict if isinstance(verdict, str) else "%s %s" % verdict)
    return " ".join(words)


@functools.cache
def legacy_lacks(network):
    return "".join(network.node.run([tool + "-legacy", "-t", "nat", "-S"], check=False).stderr for tool in ("iptables", "ip6tables"))


def told(lines):
    return any("pods' traffic to" in line for line in lines), any("keeps pods' traffic" in line for line in lines)


@pytest.mark.parametrize(("flavour", "family", "examples"), [("nft", V4, 60), ("nft", V6, 20), ("legacy", V4, 20)], ids=["nft4", "nft6", "legacy4"])
def test_what_is_told_of_iptables_is_what_packets_meet(network, flavour, family, examples):
    if flavour == "legacy" and legacy_lacks(network):
        pytest.skip("this kernel has no legacy iptables: " + legacy_lacks(network))
    tool = "%s-%s" % (family.tool, flavour)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(TABLES, st.integers(0, 4))
    def check(tables, position):
        lines = ["*nat", ":A - [0:0]", ":B - [0:0]", ":%s - [0:0]" % CHAIN]
        ours = "-A POSTROUTING -m addrtype ! --dst-type LOCAL -j %s" % CHAIN
        postrouting = ["-A POSTROUTING " + in_iptables(rule, family) for rule in tables[0]]
        lines += postrouting[:position] + [ours] + postrouting[position:]
        lines += ["-A %s %s" % (name, in_iptables(rule, family)) for name, table in zip("AB", tables[1:]) for rule in table]
        lines += ["-A %s -d %s -j RETURN" % (CHAIN, family.spared[0]), "-A %s -j MASQUERADE" % CHAIN, "COMMIT", ""]
        network.node.run([tool + "-restore"], stdin="\n".join(lines))
        printed = network.node.out([tool, "-t", "nat", "-S"]).splitlines()
        of = {name: [line[4 + len(name):] for line in printed if line.startswith("-A %s " % name)] for name in ("POSTROUTING", "A", "B")}
        found = shadowing(of.pop("POSTROUTING"), of, lambda rule: leads_to(rule, CHAIN), family.pods, family.spared)
        harm = network.harm(family)
        assert all(said >= does for said, does in zip(told(found), harm)), (harm, found, printed)
        assert is_narrow(tables) or told(found) == harm, (harm, found, printed)

    try:
        check()
    finally:
        network.node.run("%s -t nat -F; %s -t nat -X" % (tool, tool))


@pytest.mark.parametrize(("family", "examples"), [(V4, 60), (V6, 20)], ids=["ipv4", "ipv6"])
def test_what_is_told_of_nft_is_what_packets_meet(network, family, examples):
    """Also that an accept in a base chain of others keeps no packet from ours."""

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(TABLES, st.sampled_from(["inet", family.nft]), st.sampled_from([90, 110]))
    def check(tables, kind, priority):
        names = ("B", "A", "POSTROUTING")  # a chain is made before it is jumped to
        script = ["flush ruleset", "table %s other {" % kind]
        for name, table in zip(names, reversed(tables)):
            hook = ["type nat hook postrouting priority %d" % priority] if name == "POSTROUTING" else []
            script += ["chain %s {" % name] + hook + [in_nft(rule, family) for rule in table] + ["}"]
        script += ["}", "table inet kindnet {", "chain postrouting {", "type nat hook postrouting priority 100"]
        script += ["%s daddr %s return" % (family.nft, family.spared[0]), "fib daddr type != local masquerade", "}", "}", ""]
        network.node.run(["nft", "-f", "-"], stdin="\n".join(script))
        ruleset = json.loads(network.node.out(["nft", "-j", "list", "ruleset"]))
        found = shadowing_nft(ruleset, "kindnet", family.pods, family.spared)
        translated, kept = network.harm(family)
        assert not kept, script
        assert bool(found) >= translated, (found, script)
        assert is_narrow(tables) or bool(found) == translated, (found, script)

    try:
        check()
    finally:
        network.node.run("nft flush ruleset")


# Each with what is told of it, by chain and the number of the rule there; pods are in 10.244.0.0/16 and fd00:10:244::/56.
NFT = {
    "kube-proxy": """
        table ip kube-proxy {
          chain masquerading {
            meta mark & 0x4000 == 0 return
            meta mark set meta mark ^ 0x4000
            masquerade fully-random
          }
          chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
        }""",
    "libvirt": """
        table ip libvirt_network {
          chain guest_nat {
            type nat hook postrouting priority srcnat; policy accept
            iifname virbr0 ip daddr { 224.0.0.0/24, 255.255.255.255 } counter return
            meta l4proto tcp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
            ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade
          }
        }""",
    "netavark": """
        table inet netavark {
          chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark | 0x2000; }
          chain nv_2f259bab_10_88_0_0_nm16 {
            ip daddr 10.88.0.0/16 accept
            ip daddr != 224.0.0.0/4 masquerade
          }
          chain POSTROUTING {
            type nat hook postrouting priority srcnat; policy accept
            meta mark & 0x2000 == 0x2000 masquerade
            ip saddr 10.88.0.0/16 jump nv_2f259bab_10_88_0_0_nm16
          }
        }""",
    "another network of ours, told by name": """
        table inet nat {
          set rest { type ipv4_addr; flags interval; elements = { 10.245.0.0/16, 192.168.0.1-192.168.0.9 }; }
          chain post {
            type nat hook postrouting priority 90
            ip saddr @rest masquerade
            ip saddr { 10.244.0.0/16, 10.245.0.0/16 } ip daddr != { 10.244.0.0-10.244.255.255, 10.96.0.0/12 } masquerade
            ip saddr . ip daddr { 10.244.0.1 . 10.244.0.2 } masquerade
            meta nfproto ipv6 ip6 nexthdr tcp ip6 daddr != fd00:10:244::/56 masquerade
          }
        }""",
    "a map that cannot be told": """
        table ip nat2 {
          chain translate { masquerade; }
          chain post { type nat hook postrouting priority 100; ip daddr vmap { 10.244.0.0/16 : return, 0.0.0.0/5 : jump translate }; masquerade; }
        }""",
}
NFT_IN_THE_WAY = {
    "firewalld": ("""
        table inet firewalld {
          chain nat_POST_public_allow { meta nfproto ipv4 oifname != "lo" masquerade; }
          chain nat_POST_public { jump nat_POST_public_allow; }
          chain nat_POSTROUTING { type nat hook postrouting priority 110; oifname "out0" goto nat_POST_public; goto nat_POST_public; }
        }""", ["table inet firewalld, chain nat_POSTROUTING, chain nat_POST_public, chain nat_POST_public_allow: masquerades pods' traffic to 10.244.0.0/16"]),
    "by the CNI plugins": ("""
        table inet cni_plugins_masquerade {
          chain masq_checks { ip saddr == 10.244.1.5 ip daddr != 10.244.1.0/24 masquerade comment "9b1c-kindnet"; }
          chain postrouting { type nat hook postrouting priority srcnat; ip daddr == 224.0.0.0/4 return; ip6 daddr == ff00::/8 return; goto masq_checks; }
        }""", ["table inet cni_plugins_masquerade, chain postrouting, chain masq_checks: masquerades pods' traffic to 10.244.0.0/16"]),
    "both families": ("""
        table inet nat { chain post { type nat hook postrouting priority 100; snat ip to 192.0.2.1; }; }
        table ip6 nat3 { chain post { type nat hook postrouting priority 100; ip6 saddr fd00::/8 masquerade random; }; }
        """, ["table inet nat, chain post: translates the source of pods' traffic to 10.244.0.0/16",
              "table ip6 nat3, chain post: masquerades pods' traffic to fd00:10:244::/56"]),
}
PODS = ["10.244.0.0/16", "fd00:10:244::/56"]


@pytest.fixture
def ruleset(network):
    def load(text):
        network.node.run(["nft", "-f", "-"], stdin="flush ruleset\n%s\n" % text.replace("; }", "\n}").replace("{ type nat", "{\ntype nat"))
        return json.loads(network.node.out(["nft", "-j", "list", "ruleset"]))

    yield load
    network.node.run("nft flush ruleset")


@pytest.mark.parametrize("program", NFT)
def test_nft_rules_that_are_not_in_the_way(ruleset, program):
    assert shadowing_nft(ruleset(NFT[program]), "kindnet", PODS, PODS) == []


@pytest.mark.parametrize("program", NFT_IN_THE_WAY)
def test_nft_rules_that_are_in_the_way(ruleset, network, program):
    text, expected = NFT_IN_THE_WAY[program]
    found = shadowing_nft(ruleset(text), "kindnet", PODS, PODS)
    assert [re.sub(r" rule with handle \d+", "", line) for line in found] == expected
    for line in found:  # the handle is what nft deletes a rule by
        table, chain, handle = re.search(r"^table (\S+ \S+), .*chain (\S+) rule with handle (\d+):", line).groups()
        network.node.run("nft delete rule %s %s handle %s" % (table, chain, handle))
    assert shadowing_nft(json.loads(network.node.out(["nft", "-j", "list", "ruleset"])), "kindnet", PODS, PODS) == []


def test_rules_of_our_own_table_and_of_iptables_are_told_by_others(network, ruleset):
    own = "table inet kindnet {\nchain post {\ntype nat hook postrouting priority 100\nmasquerade\n}\n}"
    assert shadowing_nft(ruleset(own), "kindnet", PODS, PODS) == []
    assert len(shadowing_nft(ruleset(own), "other", PODS, PODS)) == 2
    network.node.run("nft flush ruleset; iptables-nft -t nat -A POSTROUTING -s 10.244.0.0/16 -m comment --comment x -j MASQUERADE")
    assert shadowing_nft(json.loads(network.node.out(["nft", "-j", "list", "ruleset"])), "kindnet", PODS, PODS) == []
