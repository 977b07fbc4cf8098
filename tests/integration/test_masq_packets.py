# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom the other side sees a packet come from, through each backend and on the way from one to another. The oracle is that other side."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from nat_sandbox import BACKENDS, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

V4, V6 = "10.244.0.0/16", "fd00:10:244::/56"
FOREIGN = """
table ip nat {
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname "eth7" counter packets 5 bytes 500 masquerade
\t}
}
"""

# Tells everybody who he is seen as.
SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7))
print("ready", flush=True)
while True:
    data, client = s.recvfrom(100)
    s.sendto(client[0].encode(), client)
"""

# New flows, some hundred a second, until its input ends. Says whom the other side saw, and how often.
HAMMER = """
import collections, json, select, socket, sys
source, address = sys.argv[1:]
seen = collections.Counter()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.002)[0]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        if source:
            s.bind((source, 0))
        s.sendto(b"x", (address, 7))
        try:
            seen[s.recv(100).decode()] += 1
        except socket.timeout:
            seen["nobody"] += 1
print(json.dumps(seen), flush=True)
"""

# One connection that is up all the time: what was sent, and what came back.
STREAM_SERVER = """
import socket
s = socket.create_server(("", 8))
print("ready", flush=True)
while True:
    c, client = s.accept()
    c.sendall(client[0].encode().ljust(20))
    while (data := c.recv(100)):
        c.sendall(data)
"""
STREAM = """
import select, socket, sys
s = socket.create_connection((sys.argv[1], 8), 5)
s.settimeout(5)
print(s.recv(20).decode().strip(), flush=True)
count = 0
while not select.select([sys.stdin], [], [], 0.005)[0]:
    s.sendall(b"x")
    assert s.recv(1) == b"x"
    count += 1
print(count, flush=True)
"""


def masq(sandbox, check=False, **options):
    return sandbox.module("kindnet_masq", check=check, **options)


class Net:
    """A node (the sandbox) with a pod, somebody in the cluster and somebody outside of it, who know the way back to the pod."""

    def __init__(self, node):
        self.node, self.pod, self.inside, self.outside = node, Sandbox(), Sandbox(), Sandbox()
        for number, peer in enumerate((self.pod, self.inside, self.outside)):
            net4, net6 = (("10.244.0", "fd00:10:244::"), ("10.244.9", "fd00:10:244:9::"), ("192.0.2", "2001:db8::"))[number]
            node.run("ip link add n%d type veth peer name eth0 netns %d" % (number, peer.process.pid))
            node.run("ip addr add %s.1/24 dev n%d; ip addr add %s1/64 dev n%d nodad; ip link set n%d up" % (net4, number, net6, number, number))
            peer.run("ip addr add %s.2/24 dev eth0; ip addr add %s2/64 dev eth0 nodad; ip link set eth0 up" % (net4, net6))
            peer.run("ip route add default via %s.1; ip route add default via %s1" % (net4, net6))
        node.run("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        node.run("ip addr add 203.0.113.1/32 dev lo")  # an address of the host's that its route to outside would not choose
        self.processes = []

    def start(self, place, code, *arguments):
        argv = place.inside([sys.executable, "-c", code, *arguments])
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process, process.stdout.readline().strip()

    @staticmethod
    def stop(process):
        process.stdin.close()
        return process.stdout.readline().strip()

    def seen_as(self, source, address, bind=""):
        """Whom ``address`` sees a new flow of ``source`` come from."""
        code = HAMMER.replace("while not select.select([sys.stdin], [], [], 0.002)[0]:", "for once in [1]:")
        process, _unused = self.start(source, code, bind, address)
        (seen,) = json.loads(self.stop(process))
        return seen

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()
        for peer in (self.pod, self.inside, self.outside):
            peer.close()


@pytest.fixture
def net(sandbox):
    net = Net(sandbox)
    for place, addresses in ((net.inside, ("10.244.9.2", "fd00:10:244:9::2")), (net.outside, ("192.0.2.2", "2001:db8::2"))):
        for address in addresses:
            assert net.start(place, SERVER, address)[1] == "ready"
        assert net.start(place, STREAM_SERVER)[1] == "ready"
    yield net
    net.close()


# What is asked for: whom do inside and outside see the pod as, and outside the host, when it sends with another address of its own?
POD, NODE, HOST = "10.244.0.2", "192.0.2.1", "203.0.113.1"
POD6, NODE6 = "fd00:10:244::2", "2001:db8::1"
ASKED = {
    "defaults": ({}, POD, NODE, NODE, NODE6),
    "overlapping": ({"non_masquerade_cidrs": ["10.0.0.0/8", "10.244.8.0/23", "10.245.0.0/16"]}, POD, NODE, NODE, NODE6),
    "nothing of IPv4": ({"non_masquerade_cidrs": ["0.0.0.0/0"]}, POD, POD, HOST, NODE6),
    "nothing of IPv6": ({"non_masquerade_cidrs": ["::/0", "240.0.0.0/4"]}, POD, NODE, NODE, POD6),
    "spared": ({"non_masquerade_cidrs": ["192.0.2.0/25"]}, POD, POD, HOST, NODE6),
    "beside it": ({"non_masquerade_cidrs": ["192.0.2.128/25"]}, POD, NODE, NODE, NODE6),
    "these alone": ({"masquerade_cidrs": ["192.0.2.0/24", "2001:db8:1::/48"]}, POD, NODE, NODE, POD6),
    "these senders alone": ({"source_cidrs": [V4, V6]}, POD, NODE, HOST, NODE6),
    "other senders": ({"source_cidrs": ["203.0.113.0/24", "::/0"]}, POD, POD, NODE, NODE6),
    "at random": ({"random_fully": True, "jump_position": "first"}, POD, NODE, NODE, NODE6),
}


def test_who_is_seen(net, backend):
    for name, (options, inside, outside, host, outside6) in ASKED.items():
        masq(net.node, cluster_cidrs=[V4, V6], backend=backend, **options)
        seen = (
            net.seen_as(net.pod, "10.244.9.2"),
            net.seen_as(net.pod, "192.0.2.2"),
            net.seen_as(net.node, "192.0.2.2", HOST),
            net.seen_as(net.pod, "2001:db8::2"),
        )
        assert seen == (inside, outside, host, outside6), name
        assert net.seen_as(net.pod, "fd00:10:244:9::2") == POD6


def test_link_local_is_spared_when_asked(net, backend):
    net.node.run("ip addr add 169.254.7.1/24 dev n2")
    net.outside.run("ip addr add 169.254.7.2/24 dev eth0")
    assert net.start(net.outside, SERVER, "169.254.7.2")[1] == "ready"
    masq(net.node, cluster_cidrs=[V4, V6], backend=backend)
    assert net.seen_as(net.pod, "169.254.7.2") == "169.254.7.1"
    masq(net.node, cluster_cidrs=[V4, V6], backend=backend, masquerade_link_local=False, masquerade_link_local_ipv6=False)
    assert net.seen_as(net.pod, "169.254.7.2") == POD
    assert net.seen_as(net.pod, "192.0.2.2") == NODE


def test_rules_in_the_way_are_named_and_stay(net, backend):
    """What shadowed_by says is so: the pod is seen as the rule of somebody else makes it."""
    masq(net.node, cluster_cidrs=[V4, V6], backend=backend)
    assert masq(net.node, cluster_cidrs=[V4, V6], backend=backend)["shadowed_by"] == []
    tool = backend if backend != "nftables" else "iptables-nft"
    net.node.run("%s -t nat -I POSTROUTING -s %s -j MASQUERADE" % (tool, V4))
    result = masq(net.node, cluster_cidrs=[V4, V6], backend=backend)
    assert not result["changed"] and len(result["shadowed_by"]) == 1
    assert result["shadowed_by"][0].startswith("%s -t nat POSTROUTING rule 1 '-s %s -j MASQUERADE'" % (tool, V4)), result
    assert result["notes"] == ["shadowed by " + result["shadowed_by"][0]]
    assert net.seen_as(net.pod, "10.244.9.2") == "10.244.9.1"
    if backend != "nftables":
        # Our chain hands back what it spares, so no position helps against this rule.
        (line,) = masq(net.node, cluster_cidrs=[V4, V6], backend=backend, jump_position="first")["shadowed_by"]
        assert "POSTROUTING rule 2 " in line and net.seen_as(net.pod, "10.244.9.2") == "10.244.9.1"
    net.node.run("%s -t nat -D POSTROUTING -s %s -j MASQUERADE" % (tool, V4))
    net.node.run(["nft", "-f", "-"], stdin="table ip x { chain y { type nat hook postrouting priority 90; ip daddr 10.244.0.0/16 masquerade; }; }")
    (line,) = masq(net.node, cluster_cidrs=[V4, V6], backend=backend)["shadowed_by"]
    assert line.startswith("nft ") and "masquerade" in line and net.seen_as(net.pod, "10.244.9.2") == "10.244.9.1"
    assert "shadowed by nft " in net.node.python(CHECK)


CHECK = """
from ansible_collections.kindnet.host.plugins.module_utils import _reconcile_cli
raise SystemExit(_reconcile_cli.main(["--check"]))
"""


@contextmanager
def hammered(net):
    """New flows all the time, pod to pod and pod to outside, and a connection of each kind that is up."""
    flows = {
        POD: [net.start(net.pod, HAMMER, "", "10.244.9.2"), net.start(net.pod, STREAM, "10.244.9.2")],
        NODE: [net.start(net.pod, HAMMER, "", "192.0.2.2"), net.start(net.pod, STREAM, "192.0.2.2")],
    }
    assert [stream[1] for _hammer, stream in flows.values()] == list(flows)
    yield
    for expected, (hammer, stream) in flows.items():
        seen = json.loads(net.stop(hammer[0]))
        assert list(seen) == [expected] and seen[expected] > 100, seen
        assert int(net.stop(stream[0])) > 100  # nothing at all if the connection broke


def test_no_packet_notices_a_change(net):
    """From each backend to each other one, and of its options, with the rules of others beside."""
    backends = [b for b in BACKENDS if b != "iptables-legacy" or not net.node.run("iptables-legacy -t nat -S", check=False).returncode]
    net.node.run(["nft", "-f", "-"], stdin=FOREIGN)
    masq(net.node, cluster_cidrs=[V4, V6], backend=backends[0])
    with hammered(net):
        for first, second in itertools.permutations(backends, 2):
            for backend in (first, second):
                result = masq(net.node, cluster_cidrs=[V4, V6], backend=backend)
                assert not result.get("failed"), result["msg"]
            options = {"non_masquerade_cidrs": ["198.51.100.0/24"], "source_cidrs": [V4, V6], "random_fully": True, "backend": second}
            assert masq(net.node, cluster_cidrs=[V4, V6], **options)["changed"]
            for other in backends:
                left = table_of(net.node, other)
                assert ("KIND-MASQ-AGENT" in left) is (other == second), (second, other, left)


def table_of(sandbox, backend):
    if backend == "nftables":
        return sandbox.out("nft list tables").replace("inet kindnet", "KIND-MASQ-AGENT")
    return sandbox.out("%s-save; %s-save" % (backend, backend.replace("iptables", "ip6tables")))


def test_pods_are_spared_by_a_table_of_nftables_from_its_first_instant(net):
    """However it comes to be: new, with sets that it had not, hooked elsewhere, under another name. A set that is asked before it is filled spares nobody."""
    hot = HAMMER.replace("0.002", "0.0003")
    hammers = [net.start(net.pod, hot, "", "10.244.9.2") for _both in range(2)]
    for _again in range(12):
        for options in (
            {},
            {"source_cidrs": [V4, V6], "masquerade_cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
            {"jump_position": "first", "non_masquerade_cidrs": ["198.51.100.0/24"]},
            {"chain": "ANOTHER", "source_cidrs": [V4, V6]},
            {"state": "absent"},
        ):
            result = masq(net.node, cluster_cidrs=[V4, V6], backend="nftables", **options)
            assert result.get("changed") and not result.get("failed"), result
    for process, _unused in hammers:
        seen = json.loads(net.stop(process))
        assert list(seen) == [POD] and seen[POD] > 1000, seen
