# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes as bytes, what nft tells of a trace, and what follows from where they were seen."""

from __future__ import annotations

import socket
import struct

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._plan_trace import commands, packets
from ansible_collections.kindnet.host.plugins.module_utils._probe_packets import (
    REQUEST,
    Echo,
    Refusal,
    checksum,
    echo_of,
    packet_filter,
    refusal_of,
    request,
)
from ansible_collections.kindnet.host.plugins.plugin_utils._walk import Cluster, walk
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_ends import find_ends, flows_of
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_probe import annotate, evidence
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_verdict import judge
from hypothesis import given
from hypothesis import strategies as st
from walk_cluster import PaperCluster

ID = 4711


def ipv4(payload, source="10.0.0.1", destination="10.0.0.2", protocol=1, options=b""):
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 0, 0, 64, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(destination) + options + payload


def ipv6(payload, source="fd00::1", destination="fd00::2", protocol=58):
    addresses = b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def run_filter(program, packet):
    """A machine for classic BPF, as far as these programs go; an access behind the end takes nothing, as in the kernel."""
    a = x = at = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        try:
            if code == 0x30:
                a = packet[k]
            elif code == 0x54:
                a &= k
            elif code == 0x15:
                at += jt if a == k else jf
            elif code == 0xB1:
                x = 4 * (packet[k] & 0xF)
            elif code in (0x48, 0x28):
                start = k + (x if code == 0x48 else 0)
                a = struct.unpack("!H", packet[start : start + 2])[0]
            elif code == 0x06:
                return k
            else:
                raise AssertionError(code)
        except (IndexError, struct.error):
            return 0


@pytest.mark.parametrize("size", [84, 1500, 29, 28])
def test_a_request_has_its_size_and_a_right_checksum(size):
    packet = request(4, ID, 3, size)
    assert len(packet) == size - 20 and checksum(packet) == 0
    assert echo_of(ipv4(packet), ID) == Echo(REQUEST, "10.0.0.1", "10.0.0.2", 3, size)
    assert len(request(6, ID, 3, size + 40)) == size


@pytest.mark.parametrize(
    "packet, mine",
    [
        (ipv4(request(4, ID, 1, 84)), True),
        (ipv4(request(4, ID, 1, 84), options=b"\x01" * 8), True),
        (ipv4(request(4, ID + 1, 1, 84)), False),
        (ipv4(request(4, ID, 1, 84), protocol=17), False),
        (ipv4(b""), False),
        (b"", False),
        (ipv6(request(6, ID, 1, 84)), False),
    ],
)
def test_the_filter_of_the_kernel_takes_ours_and_nothing_else(packet, mine):
    assert bool(run_filter(packet_filter(4, ID), packet)) == mine
    assert (echo_of(packet, ID) is not None) == (mine or packet[:1] == b"\x60")
    six = ipv6(request(6, ID, 1, 84))
    assert run_filter(packet_filter(6, ID), six) and not run_filter(packet_filter(6, ID), ipv4(request(4, ID, 1, 84)))


@given(st.binary(max_size=200))
def test_no_packet_makes_it_fail(packet):
    echo_of(packet, ID)
    for family in (4, 6):
        refusal_of(family, "192.0.2.1", packet, ID)
        run_filter(packet_filter(family, ID), packet)


def test_refusals_are_of_our_packets_alone():
    inner = ipv4(request(4, ID, 1, 84))[:28]

    def error(kind, code, low=0, of=inner):
        return struct.pack("!BBHHH", kind, code, 0, 0, low) + of

    assert refusal_of(4, "192.0.2.1", error(3, 4, 1400), ID) == Refusal("192.0.2.1", "Fragmentation Needed", 1400)
    assert refusal_of(4, "192.0.2.1", error(3, 1), ID) == Refusal("192.0.2.1", "Host Unreachable", 0)
    assert refusal_of(4, "192.0.2.1", error(3, 9), ID) == Refusal("192.0.2.1", "Destination Unreachable", 0)
    assert refusal_of(4, "192.0.2.1", error(5, 1), ID) is None  # a redirect passes it on
    assert refusal_of(4, "192.0.2.1", error(3, 1), ID + 1) is None
    too_big = struct.pack("!BBHI", 2, 0, 0, 1280) + ipv6(request(6, ID, 1, 84))
    assert refusal_of(6, "fd00::9", too_big, ID) == Refusal("fd00::9", "Packet Too Big", 1280)


# As nft 1.0.6 prints them, shortened within the packet.
TRACE = """\
trace id 332bf831 inet kindnet_walk_4711 prerouting packet: iif "va" ip daddr 10.0.2.2 icmp type echo-request icmp id 4711 icmp sequence 1
trace id 332bf831 inet kindnet_walk_4711 prerouting rule ip daddr 10.0.2.2 icmp type echo-request icmp id 4711 meta nftrace set 1 (verdict continue)
trace id 332bf831 inet kindnet_walk_4711 prerouting policy accept
trace id 332bf831 ip filter FORWARD packet: iif "va" oif "vb" ip saddr 10.0.1.2 ip daddr 10.0.2.2 icmp type echo-request icmp id 4711 icmp sequence 1
trace id 332bf831 ip filter FORWARD rule  counter packets 0 bytes 0 jump DOCKER (verdict jump DOCKER)
trace id 332bf831 ip filter FORWARD policy accept
trace id 332bf831 inet fw forw unknown rule handle 2 (verdict accept)
trace id 332bf831 ip filter FORWARD packet: iif "va" oif "vb" ip saddr 10.0.1.2 ip daddr 10.0.2.2 icmp type echo-request icmp id 4711 icmp sequence 2
trace id 332bf831 ip filter FORWARD rule  counter packets 0 bytes 0 jump DOCKER (verdict jump DOCKER)
trace id 332bf831 ip filter DOCKER rule meta l4proto icmp ip saddr 10.0.1.2 counter packets 7 bytes 588 drop (verdict drop)
trace id 0d1f0c27 inet kindnet_walk_4711 prerouting packet: iif "vb" ip saddr 10.0.2.2 ip daddr 10.0.1.2 icmp type echo-reply icmp id 4711 icmp sequence 1
not a line of a trace
""".splitlines()
HOOKS = {
    ("inet", "kindnet_walk_4711", "prerouting"): "prerouting",
    ("ip", "filter", "FORWARD"): "forward",
    ("inet", "fw", "forw"): "forward",
}


def test_a_trace_as_data():
    first, second, third = packets(TRACE, HOOKS, ID)
    assert (first["kind"], first["sequence"]) == ("request", 1)
    assert first["chains"] == [
        {"table": "ip filter", "chain": "FORWARD", "hook": "forward", "verdict": "accept", "rule": ""},
        {"table": "inet fw", "chain": "forw", "hook": "forward", "verdict": "accept", "rule": "handle 2"},
    ]
    # The kernel gives a number again once the packet is gone.
    assert (second["kind"], second["sequence"]) == ("request", 2)
    assert second["chains"] == [
        {"table": "ip filter", "chain": "DOCKER", "hook": "forward", "verdict": "drop", "rule": "meta l4proto icmp ip saddr 10.0.1.2 drop"}
    ]
    assert (third["kind"], third["chains"]) == ("reply", [])


def test_a_ping_of_ipv6_is_numbered_by_another_name():
    line = "trace id 1 ip6 filter FORWARD packet: iif a ip6 nexthdr ipv6-icmp icmpv6 type echo-request icmpv6 code no-route icmpv6 parameter-problem 308740098"
    (packet,) = packets([line, "trace id 1 ip6 filter FORWARD policy accept "], {("ip6", "filter", "FORWARD"): "forward"}, ID)
    assert (packet["kind"], packet["sequence"], packet["chains"][0]["hook"]) == ("request", 2, "forward")


TRACE6 = "trace id 332bf831 ip6 f F packet: icmpv6 type echo-request icmpv6 code no-route icmpv6 parameter-problem 308740098"


@pytest.mark.parametrize("line", [TRACE[3], TRACE6])
def test_a_ping_that_somebody_else_traces_is_none_of_ours(line):
    drop = "trace id 332bf831 ip filter FORWARD policy drop"
    assert [p["chains"][0]["verdict"] for p in packets([line, drop], HOOKS, ID)] == ["drop"]
    assert packets([line, drop], HOOKS, ID + 1) == []
    foreign = line.replace("4711", "4712").replace("308740098", str(308740098 + 65536))
    assert [p["chains"] for p in packets([line, foreign, drop], HOOKS, ID)] == [[]]


def test_the_table_marks_that_flow_alone():
    assert commands(ID, "10.0.2.2").splitlines() == [
        "add table inet kindnet_walk_4711 { flags owner; }",
        "add chain inet kindnet_walk_4711 prerouting { type filter hook prerouting priority -350; policy accept; }",
        "add rule inet kindnet_walk_4711 prerouting ip daddr 10.0.2.2 icmp type echo-request icmp id 4711 meta nftrace set 1",
        "add rule inet kindnet_walk_4711 prerouting ip saddr 10.0.2.2 icmp type echo-reply icmp id 4711 meta nftrace set 1",
        "add chain inet kindnet_walk_4711 output { type filter hook output priority -350; policy accept; }",
        "add rule inet kindnet_walk_4711 output ip daddr 10.0.2.2 icmp type echo-request icmp id 4711 meta nftrace set 1",
        "add rule inet kindnet_walk_4711 output ip saddr 10.0.2.2 icmp type echo-reply icmp id 4711 meta nftrace set 1",
    ]


# --- What follows

ALL, SMALL = (1, 2, 3, 4, 5), (1, 2, 3)


def seen(*passes, why="", legacy=(), chains=()):
    """What a node collected: ``passes`` are (interface, way, kind, sequences)."""
    entries = [{"interface": i, "way": w, "kind": k, "source": "s", "destination": "d", "sequences": list(q)} for i, w, k, q in passes]
    traced = [{"kind": k, "sequence": 1, "chains": [c for c in chains if c["of"] == k]} for k in dict.fromkeys(p[2] for p in passes)]
    return {"seen": entries, "trace": {"why": why, "legacy": list(legacy), "packets": traced, "forward": []}}


def through(came, left, requests=ALL, replies=ALL, **more):
    return seen((came, "in", "request", requests), (left, "out", "request", requests), (left, "in", "reply", replies), (came, "out", "reply", replies), **more)


def sent(small=3, large=2, refusals=(), errors=()):
    return {
        "small": {"size": 84, "sent": 0 if errors else 3, "received": small, "sequences": list(SMALL[:small]), "errors": list(errors)},
        "large": None if large is None else {"size": 1500, "sent": 2, "received": large, "sequences": [4, 5][:large], "errors": []},
        "refusals": list(refusals),
    }


def judged(what_was_sent, found, cluster=None, src="pod-a0", dst="pod-b0", **silent):
    cluster = cluster or PaperCluster()
    infos = cluster.infos()
    source, destination = find_ends(src, dst, cluster.table, infos)
    flows = flows_of(source, destination, cluster.table, infos)
    known = Cluster(cluster.table, {name: node.answer(flows) for name, node in cluster.nodes.items()}, ["10.244.0.0/16"])
    there, back = walk(known, source, destination)
    for way in (there, back):
        annotate(way, found, silent)
    proof = evidence(there, back, what_was_sent, found, {"172.18.0.3": "b"})
    return judge(known, there, back, infos, "2026-11-27", proof), there, back


A, B = through("veth0", "eth0"), through("eth0", "veth0")
DROP = {"of": "request", "table": "ip filter", "chain": "FORWARD", "hook": "forward", "verdict": "drop", "rule": "ip saddr 10.244.0.2 drop"}
POLICY = {"of": "reply", "table": "inet fw", "chain": "forw", "hook": "forward", "verdict": "drop", "rule": ""}


def test_all_came_back():
    verdict, there, back = judged(sent(), {"a": A, "b": B})
    assert verdict.sentence == (
        "Delivered: pod-a0 (10.244.0.2 on a) reaches pod-b0 (10.244.1.2 on b), 3 of 3 probes came back, one of 1500 bytes with DF among them."
    )
    assert [hop["forward"]["verdict"] for hop in there.hops + back.hops if hop["kind"] == "node"] == ["accepted"] * 4


@pytest.mark.parametrize(
    "found, hop, sentence",
    [
        (
            {"a": through("veth0", "eth0", SMALL, []), "b": seen(("eth0", "in", "request", SMALL), chains=[DROP])},
            "b",
            "Not delivered: b drops it in its forward chain: ip filter FORWARD, rule 'ip saddr 10.244.0.2 drop', by a trace of nft (0 of 3 probes came back).",
        ),
        (
            {
                "a": through("veth0", "eth0", SMALL, []),
                "b": seen(("eth0", "in", "request", SMALL), ("veth0", "out", "request", SMALL), ("veth0", "in", "reply", SMALL), chains=[POLICY]),
            },
            "b",
            "Not delivered: b drops the answer in its forward chain: inet fw forw, policy drop, by a trace of nft (0 of 3 probes came back).",
        ),
        ({"a": seen(), "b": seen()}, "a", "Not delivered: 0 of 3 probes came back, and nothing comes out of pod-a0."),
        (
            {"a": seen(("veth0", "in", "request", SMALL)), "b": seen()},
            "a",
            "Not delivered: 0 of 3 probes came back, and it comes in at a by veth0 and does not leave it.",
        ),
        (
            {"a": through("veth0", "eth0", SMALL, []), "b": seen()},
            "a",
            "Not delivered: 0 of 3 probes came back, and it leaves a by eth0 and does not come in at b.",
        ),
        (
            {"a": through("veth0", "eth0", SMALL, []), "b": seen(("eth0", "in", "request", SMALL), ("veth0", "out", "request", SMALL))},
            "b",
            "Not delivered: 0 of 3 probes came back, and it leaves b by veth0, and nothing comes out of it.",
        ),
        (
            {"a": through("veth0", "eth0", SMALL, []), "b": through("eth0", "veth0", SMALL, SMALL)},
            "b",
            "Not delivered: 0 of 3 probes came back, and the answer leaves b by eth0 and does not come in at a.",
        ),
        ({"a": through("veth0", "eth0", SMALL, [])}, "b", "Not delivered: 0 of 3 probes came back, and it leaves a by eth0; b was not watched."),
    ],
)
def test_where_they_were_seen_last(found, hop, sentence):
    verdict, _there, _back = judged(sent(0, None), found, b="unreachable")
    assert (verdict.status, verdict.hop, verdict.sentence) == ("lost", hop, sentence)


def test_one_of_three_lost_is_not_right():
    found = {"a": through("veth0", "eth0", ALL, [1, 2, 4, 5]), "b": through("eth0", "veth0", ALL, [1, 2, 4, 5])}
    found["b"]["seen"][2]["sequences"] = list(ALL)  # the third answer came in at b
    verdict, _there, _back = judged(sent(2), found)
    assert verdict.sentence == "Not delivered: 2 of 3 probes came back, and the answer comes in at b by veth0 and does not leave it."


def test_a_lookup_that_says_why_is_better_than_where_they_were_seen():
    cluster = PaperCluster()
    cluster["b"].forwarding["all"] = "0"
    verdict, _there, _back = judged(sent(0, None), {"a": through("veth0", "eth0", SMALL, []), "b": seen(("eth0", "in", "request", SMALL))}, cluster)
    assert verdict.sentence == "Not delivered: b does not forward what comes in by eth0: net.ipv4.ip_forward is 0 (0 of 3 probes came back)."


def test_probes_are_right_where_a_lookup_disagrees():
    cluster = PaperCluster()
    cluster["b"].forwarding["all"] = "0"
    verdict, _there, _back = judged(sent(), {"a": A, "b": B}, cluster)
    assert verdict.status == "delivered"
    assert "; by its lookups b does not forward what comes in by eth0" in verdict.sentence


def test_who_says_no_is_named():
    refusal = {"source": "172.18.0.3", "what": "Communication Prohibited", "mtu": 0}
    verdict, _there, _back = judged(sent(0, None, [refusal]), {"a": through("veth0", "eth0", SMALL, []), "b": seen(("eth0", "in", "request", SMALL))})
    assert verdict.sentence == (
        "Not delivered: 0 of 3 probes came back, and it comes in at b by eth0 and does not leave it; b (172.18.0.3) answers 'Communication Prohibited'."
    )


def test_a_next_hop_that_does_not_answer_is_told_by_the_kernel():
    refusal = {"source": "172.18.0.3", "what": "Host Unreachable", "mtu": 0}
    verdict, _there, _back = judged(sent(0, None, [refusal]), {"a": through("veth0", "eth0", SMALL, []), "b": seen(("eth0", "in", "request", SMALL))})
    assert verdict.sentence == "Not delivered: b gets no answer from its next hop 10.244.1.2 on veth0 ('Host Unreachable') (0 of 3 probes came back)."


def test_outside_where_no_answer_comes_from():
    cluster = PaperCluster()
    cluster["a"].routes["0.0.0.0/0"] = ("172.18.0.1", "eth0")
    verdict, _there, _back = judged(sent(0, None), {"a": seen(("veth0", "in", "request", SMALL), ("eth0", "out", "request", SMALL))}, cluster, dst="192.0.2.9")
    assert verdict.sentence == "Not delivered: 0 of 3 probes came back, and it leaves a by eth0 for 192.0.2.9, and no answer comes in."
    verdict, _there, _back = judged(sent(), {"a": A}, cluster, dst="192.0.2.9")
    assert verdict.sentence.startswith("Delivered: ") and "3 of 3" in verdict.sentence


def test_what_the_kernel_does_not_send():
    verdict, _there, _back = judged(sent(0, None, errors=["Network is unreachable"]), {"a": seen(), "b": seen()})
    assert verdict.sentence == "Not delivered: no probe was sent, and the kernel of pod-a0 does not send it (Network is unreachable)."


def test_one_that_the_kernel_does_not_send_is_not_right():
    was_sent = sent(2, None, errors=["No buffer space available"])
    was_sent["small"]["sent"] = 2
    verdict, _there, _back = judged(was_sent, {"a": A, "b": B})
    assert verdict.status == "lost" and "No buffer space available" in verdict.sentence


def test_none_that_could_be_sent_is_not_delivered_by_lookups():
    cluster = PaperCluster()
    infos = cluster.infos()
    ends = find_ends("pod-a0", "pod-b0", cluster.table, infos)
    known = Cluster(cluster.table, {name: node.answer(flows_of(*ends, cluster.table, infos)) for name, node in cluster.nodes.items()}, ["10.244.0.0/16"])
    verdict = judge(known, *walk(known, *ends), infos, "2026-11-27", None, "failed: the pod is gone")
    assert (verdict.status, verdict.hop) == ("unknown", "a")
    assert verdict.sentence == "Not known: a sent no probe (failed: the pod is gone); no lookup says no."
    del cluster["b"].routes["10.244.0.0/24"]
    known = known._replace(answers={name: node.answer(flows_of(*ends, cluster.table, infos)) for name, node in cluster.nodes.items()})
    assert judge(known, *walk(known, *ends), infos, "2026-11-27", None, "failed: the pod is gone").status == "lost"


def test_large_ones_that_do_not_come_back():
    cluster = PaperCluster()
    cluster["a"].mtu["eth0"] = 1400
    found = {"a": through("veth0", "eth0", SMALL, SMALL), "b": through("eth0", "veth0", SMALL, SMALL)}
    verdict, _there, _back = judged(sent(large=0), found, cluster)
    assert (verdict.status, verdict.hop) == ("too_large", "a")
    assert verdict.sentence == "Delivered up to 1400 bytes only: eth0 of a has an MTU of 1400, and a probe of 1500 bytes with DF does not come back."
    refusal = {"source": "172.18.0.9", "what": "Fragmentation Needed", "mtu": 1300}
    verdict, _there, _back = judged(sent(large=0, refusals=[refusal]), found)
    assert verdict.sentence == (
        "Delivered in small packets only: 172.18.0.9 says that it passes 1300 bytes, and a probe of 1500 bytes with DF does not come back."
    )


@pytest.mark.parametrize(
    "found, verdict, why",
    [
        ({"b": through("eth0", "veth0", legacy=["filter"])}, "accepted", "the rules of iptables-legacy (filter) cannot be traced"),
        ({"b": seen(("eth0", "in", "request", SMALL), legacy=["filter"])}, "not evaluated", "the rules of iptables-legacy (filter) cannot be traced"),
        ({"b": seen(("eth0", "in", "request", SMALL), why="nft is not installed")}, "not evaluated", "nft is not installed"),
        ({"b": through("eth0", "veth0", why="nft is not installed")}, "accepted", "probes left; nft is not installed"),
        ({"b": seen()}, "not evaluated", "no probe got so far"),
        ({}, "not evaluated", "no probe was watched here (unreachable)"),
    ],
)
def test_what_was_not_evaluated_is_said(found, verdict, why):
    _verdict, there, _back = judged(sent(0, None), {"a": A, **found}, b="unreachable")
    said = next(hop for hop in there.hops if hop["where"] == "b")["forward"]
    assert said["verdict"] == verdict and why in said["why"]
