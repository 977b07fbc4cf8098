# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_ping as root in namespaces: a host, a pod on it, and another host far away that counts what comes. The oracles are these counters and ``ping``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest
from nat_sandbox import Sandbox
from waiting import has_settled, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SETUP = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
for ns in far pod; do
  ip netns add $ns
  ip -n $ns link set lo up
  ip netns exec $ns sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
done
ip link add eth0 type veth peer name eth0 netns far
ip link add veth0 type veth peer name eth0 netns pod
ip address add 172.18.0.2/16 dev eth0; ip -6 address add fd00:18::2/64 dev eth0 nodad
ip address add 10.244.0.1/32 dev veth0; ip -6 address add fd00:10:244::1/128 dev veth0 nodad
ip link set eth0 up; ip link set veth0 up
ip -n far address add 172.18.0.3/16 dev eth0; ip -n far -6 address add fd00:18::3/64 dev eth0 nodad
ip -n far link set eth0 up
ip -n pod address add 10.244.0.2/24 dev eth0; ip -n pod -6 address add fd00:10:244::2/64 dev eth0 nodad
ip -n pod link set eth0 up
ip -n pod route add default via 10.244.0.1; ip -n pod -6 route add default via fd00:10:244::1
ip route add 10.244.0.2 dev veth0; ip -6 route add fd00:10:244::2 dev veth0
for i in $(seq 2 40); do ip -n far address add 10.244.1.$i/32 dev lo; done
ip -n far -6 address add fd00:10:244:1::2/128 dev lo nodad
ip route add 10.244.1.0/24 via 172.18.0.3; ip -6 route add fd00:10:244:1::/64 via fd00:18::3
ip -n far route add 10.244.0.0/24 via 172.18.0.2; ip -n far -6 route add fd00:10:244::/64 via fd00:18::2
# What does not answer: nothing sent, refused on the way, a loop, nobody there.
ip route add blackhole 10.244.9.0/24; ip -6 route add prohibit fd00:10:244:9::/64
ip route add 10.244.8.0/24 via 172.18.0.3; ip -n far route add unreachable 10.244.8.0/24
ip route add 10.244.7.0/24 via 172.18.0.3; ip -n far route add 10.244.7.0/24 via 172.18.0.2
ip netns exec far nft -f - <<'.'
table inet count {
 set asked { type ipv4_addr . ipv4_addr; flags dynamic; counter; }
 set asked6 { type ipv6_addr . ipv6_addr; flags dynamic; counter; }
 chain input {
  type filter hook input priority 0;
  icmp type echo-request update @asked { ip saddr . ip daddr counter }
  icmpv6 type echo-request update @asked6 { ip6 saddr . ip6 daddr counter }
  ip daddr 10.244.1.40 icmp type echo-request numgen inc mod 3 0 drop
 }
}
.
# Who has just come up may miss the first question who it is, and is asked again a second later.
for ip in 172.18.0.3 10.244.0.2 fd00:18::3 fd00:10:244::2; do ping -n -q -c 1 -w 10 $ip >/dev/null; done
"""
GOOD = ["10.244.1.2", "172.18.0.3", "fd00:10:244:1::2", "fd00:18::3"]


@pytest.fixture(scope="module")
def made():
    sandbox = Sandbox()
    sandbox.run(SETUP)
    for place in ("", "-n pod ", "-n far "):
        until("links have their own addresses", lambda p=place: has_settled(sandbox.out("ip %s-json -6 address" % p)))
    yield sandbox
    sandbox.close()


@pytest.fixture
def host(made):
    made.run("ip netns exec far sh -c 'nft flush set inet count asked; nft flush set inet count asked6'")
    return made


def ping(host, *sources, **options):
    if sources:
        options["sources"] = json.dumps(sources)
    result = host.module("kindnet_ping", **options)
    assert not result.get("failed") and result["changed"] is False, result
    return result["results"]


def counted(host):
    """How many requests came to the other host, by who asked and for what."""
    found = {}
    for name in ("asked", "asked6"):
        for item in json.loads(host.out("ip netns exec far nft -j list set inet count " + name))["nftables"]:
            for one in item.get("set", {}).get("elem", ()):
                found[tuple(one["elem"]["val"]["concat"])] = one["elem"]["counter"]["packets"]
    return found


def test_answers_are_those_that_ping_gets(host):
    targets = [*GOOD, "172.18.0.9", "10.244.9.1", "fd00:10:244:9::1", "10.244.8.1", "192.0.2.1"]
    results = ping(host, targets=targets, count=2)
    assert [(r["source"], r["target"], r["sent"]) for r in results] == [("", t, 2) for t in targets]
    for r in results:
        printed = host.run("ping -n -q -c 2 -i 0.1 -W 1 %s" % r["target"], check=False).stdout
        received = re.search(r"(\d+) received", printed)
        assert r["received"] == int(received.group(1) if received else 0), (r, printed)
        if r["received"]:
            assert r["loss"] == 0.0 and 0 < r["rtt_min_ms"] <= r["rtt_avg_ms"] <= r["rtt_max_ms"] < 1000 and r["error"] == "", r
        else:
            assert (r["loss"], r["rtt_min_ms"], r["rtt_avg_ms"], r["rtt_max_ms"]) == (100.0, None, None, None), r
    assert {r["target"] for r in results if r["received"]} == set(GOOD)
    errors = {r["target"]: r["error"] for r in results}
    assert errors["10.244.9.1"] == "this end refuses to send: Invalid argument, as of a blackhole route"
    assert errors["fd00:10:244:9::1"] == "this end refuses to send: Permission denied"
    assert errors["192.0.2.1"] == "this end refuses to send: Network is unreachable"
    assert errors["10.244.8.1"] == "172.18.0.3 says: no way to the host"
    (looped,) = ping(host, netns="/run/netns/pod", targets=["10.244.7.1"])
    assert looped["received"] == 0 and looped["error"].endswith(" says: time exceeded, as in a loop of routes"), looped


def test_what_is_lost_on_the_way_is_counted(host):
    result, other = ping(host, targets=["10.244.1.40", "10.244.1.2"], count=6, interval=0.02)
    assert counted(host) == {("172.18.0.2", "10.244.1.40"): 6, ("172.18.0.2", "10.244.1.2"): 6}
    assert (result["sent"], result["received"], result["loss"]) == (6, 4, 33.3) and other["received"] == 6


def test_a_pod_asks_with_its_own_address_from_its_own_network(host):
    before = host.out("ip -json address; ip -json -n pod address; find /run -not -path '/run/work*' -printf '%p %i\\n'")
    pod = {"name": "pod", "netns": "/run/netns/pod", "source_ips": ["10.244.0.2", "fd00:10:244::2"], "targets": ["10.244.1.2", "fd00:10:244:1::2"]}
    results = ping(host, pod, {"name": "host", "targets": ["10.244.1.2", "10.244.0.2"]}, dict(pod, name="unbound", source_ips=[]))
    assert [(r["source"], r["target"], r["received"]) for r in results] == [
        ("pod", "10.244.1.2", 3), ("pod", "fd00:10:244:1::2", 3), ("host", "10.244.1.2", 3), ("host", "10.244.0.2", 3),
        ("unbound", "10.244.1.2", 3), ("unbound", "fd00:10:244:1::2", 3),
    ]  # fmt: skip
    assert counted(host) == {
        ("10.244.0.2", "10.244.1.2"): 6, ("172.18.0.2", "10.244.1.2"): 3, ("fd00:10:244::2", "fd00:10:244:1::2"): 6,
    }  # fmt: skip
    assert host.out("ip -json address; ip -json -n pod address; find /run -not -path '/run/work*' -printf '%p %i\\n'") == before


def test_who_cannot_ask_is_told_apart_and_costs_nobody_else_anything(host):
    def source(name, netns, *ips):
        return {"name": name, "netns": netns, "source_ips": list(ips), "targets": ["10.244.1.2"]}

    results = ping(
        host, source("gone", "/run/netns/gone"), source("no namespace", "/etc/hostname"), source("another's", "/run/netns/pod", "10.244.0.3"),
        source("good", "/run/netns/pod", "10.244.0.2"),
    )  # fmt: skip
    assert [(r["source"], r["sent"], r["received"], r["loss"], r["error"]) for r in results] == [
        ("gone", 0, 0, None, "not asked: /run/netns/gone: No such file or directory"),
        ("no namespace", 0, 0, None, "not asked: /etc/hostname: Invalid argument"),
        ("another's", 0, 0, None, "not asked: /run/netns/pod: does not have its address"),
        ("good", 3, 3, 0.0, ""),
    ]
    assert counted(host) == {("10.244.0.2", "10.244.1.2"): 3}


def test_the_load_is_bounded(host):
    targets = ["10.244.1.%d" % i for i in range(2, 40)]
    began = time.monotonic()
    results = ping(host, targets=targets, count=2, rate=50)
    # Slower than it had to be is no fault; faster is.
    assert time.monotonic() - began > (2 * len(targets) - 1) / 50
    assert all(r["received"] == 2 for r in results) and set(counted(host).values()) == {2}


# Prints when each echo request of IPv4 came.
LISTEN = """
import socket, sys, time
seen = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
seen.settimeout(60)
print("listens", flush=True)
while True:
    packet, (_interface, _protocol, kind, *_rest) = seen.recvfrom(2048)
    if kind == socket.PACKET_HOST and packet[9] == 1 and packet[20] == 8:
        print(time.monotonic(), flush=True)
"""


def test_no_burst_follows_where_nothing_could_be_sent_for_a_while(host):
    code = (
        "import os, threading; from ansible_collections.kindnet.host.plugins.module_utils import _ping;"
        "threading.Timer(0.2, lambda: os.system('kill -STOP %d; sleep 0.6; kill -CONT %d' % (os.getpid(), os.getpid()))).start();"
        "_ping.ping([_ping.Source('', '', tuple('10.244.1.%d' % i for i in range(2, 22)))], _ping.Pace(2, 0.01, 1.0, 50.0))"
    )
    listener = subprocess.Popen(host.inside(["ip", "netns", "exec", "far", "/usr/bin/python3", "-c", LISTEN]), stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout.readline() == "listens\n"
        host.python(code)
        times = [float(listener.stdout.readline()) for _each in range(40)]
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()
    gap = max(b - a for a, b in zip(times, times[1:]))
    assert gap > 0.5, "nothing kept it from sending: this test tested nothing"
    # 40 of them at 50 a second, and the pause beside it.
    assert times[-1] - times[0] > 0.9 * (39 / 50 + gap - 1 / 50), times


BAD = [
    ({"targets": ["worker"]}, "targets: worker: is not an IP address"),
    ({"targets": ["fe80::1%eth0"]}, "has a zone"),
    ({"targets": ["127.0.0.1"]}, "is a loopback address"),
    ({"targets": ["10.244.1.2"], "netns": "pod"}, "netns: .* is not a path of a network namespace"),
    ({"targets": ["10.244.1.2"], "count": 0}, "count: 0: is not from 1 to 100"),
    ({"targets": ["10.244.1.2"], "rate": 1001}, "rate: 1001.0: is not from 1 to 1000"),
    ({"targets": ["10.244.1.2"], "timeout": 0}, "timeout: 0.0: is not from"),
    ({"targets": ["10.244.1.2"] * 700, "rate": 1, "count": 1}, "would take 701 s, and 600 s is the limit"),
    ({"sources": "{"}, "sources: .*is not JSON"),
    ({"sources": "{}"}, "sources: .*is not a list"),
    ({"sources": '[{"targets": "10.244.1.2"}]'}, "sources: .*is not a mapping with"),
    ({"sources": '[{"targets": [1]}]'}, "targets: 1: is not an IP address"),
    ({}, "one of the following is required: targets, sources"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_bad_input_is_named_and_nothing_is_sent(host, options, said):
    result = host.module("kindnet_ping", **options)
    assert result["failed"] and re.search(said, result["msg"]), result
    assert counted(host) == {}
