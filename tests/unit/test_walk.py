# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A packet through clusters on paper: what is wrong with one, and the sentence that comes of it."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils._walk import Cluster, walk
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_ends import find_ends, flows_of
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_text import lines
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_verdict import RIGHT, judge
from hypothesis import given, settings
from hypothesis import strategies as st
from walk_cluster import PaperCluster

TODAY = "2026-11-27"
STOPPED = {"active": "inactive", "since": "2026-11-27T14:02:33Z"}
BY_LOOKUPS = "what the filter tables make of it was not evaluated (-e probe=true sends real probes)"


def walked(cluster, src="pod-a0", dst="pod-b0", infos=None, **timers):
    """The verdict, and the text that leads to it."""
    infos = infos or cluster.infos(**timers)
    source, destination = find_ends(src, dst, cluster.table, infos)
    flows = flows_of(source, destination, cluster.table, infos)
    answers = {name: node.answer(flows) for name, node in cluster.nodes.items()}
    known = Cluster(cluster.table, answers, ["10.244.0.0/16", "fd00:10::/32"])
    there, back = walk(known, source, destination)
    verdict = judge(known, there, back, infos, TODAY)
    return verdict, lines((there, back), verdict.sentence), there, back


def path(way):
    return [hop["where"] for hop in way.hops]


@pytest.mark.parametrize(
    "src, dst, there, back",
    [
        ("pod-a0", "pod-b0", ["pod-a0", "a", "b", "pod-b0"], ["pod-b0", "b", "a", "pod-a0"]),
        ("pod-a0", "pod-a1", ["pod-a0", "a", "pod-a1"], ["pod-a1", "a", "pod-a0"]),
        ("10.244.0.2", "10.244.2.3", ["pod-a0", "a", "c", "pod-c1"], ["pod-c1", "c", "a", "pod-a0"]),
        ("fd00:10::2", "pod-b0", ["pod-a0", "a", "b", "pod-b0"], ["pod-b0", "b", "a", "pod-a0"]),
        ("a", "pod-b0", ["a", "b", "pod-b0"], ["pod-b0", "b", "a"]),
        ("pod-a0", "a", ["pod-a0", "a"], ["a", "pod-a0"]),
        ("a", "pod-a0", ["a", "pod-a0"], ["pod-a0", "a"]),
        # To a node's own address pods are masqueraded, as by kindnetd; the answer is turned back where that was done.
        ("pod-a0", "b", ["pod-a0", "a", "b"], ["b", "a", "a", "pod-a0"]),
        ("a", "b", ["a", "b"], ["b", "a"]),
    ],
)
def test_the_hops_of_a_right_cluster(src, dst, there, back):
    verdict, _text, way_there, way_back = walked(PaperCluster(), src, dst)
    assert (verdict.status, path(way_there), path(way_back)) == ("delivered", there, back), verdict
    assert verdict.sentence.startswith("Delivered: ") and BY_LOOKUPS in verdict.sentence


def test_outside_is_where_a_walk_ends():
    verdict, _text, there, back = walked(PaperCluster(), dst="192.0.2.9")
    assert verdict.status == "lost"  # no default route
    cluster = PaperCluster()
    cluster["a"].routes["0.0.0.0/0"] = ("172.18.0.1", "eth0")
    verdict, _text, there, back = walked(cluster, dst="192.0.2.9")
    assert verdict.status == "handed_over"
    assert verdict.sentence == (
        "Handed over: a hands it to 172.18.0.1 on eth0, which is no node, with the source 172.18.0.2 (MASQUERADE by nat rule 1);"
        " what is beyond was not looked at, and %s." % BY_LOOKUPS
    )
    assert path(there) == ["pod-a0", "a"] and path(back) == ["192.0.2.9", "a", "a", "pod-a0"]
    cluster["a"].masquerades.clear()
    verdict, _text, _there, _back = walked(cluster, dst="192.0.2.9")
    assert verdict.status == "handed_over" and "its own source 10.244.0.2; 192.0.2.9 has to know a way to 10.244.0.2 by itself" in verdict.sentence


def set_route(name, cidr, *route):
    def wrong(cluster):
        if route:
            cluster[name].routes[cidr] = route
        else:
            del cluster[name].routes[cidr]

    return wrong


def set_in(name, what, key, value):
    def wrong(cluster):
        getattr(cluster[name], what)[key] = value

    return wrong


def both(*wrongs):
    def wrong(cluster):
        for one in wrongs:
            one(cluster)

    return wrong


FAULTS = [
    ("no route there", set_route("a", "10.244.1.0/24"), "lost", "a", "Not delivered: a has no route to 10.244.1.0/24."),
    ("no route back", set_route("b", "10.244.0.0/24"), "lost", "b", "Not delivered: b has no route back to 10.244.0.0/24."),
    (
        # The filter looks for the way back when the first packet comes.
        "no route back, with a reverse-path filter",
        both(set_route("b", "10.244.0.0/24"), set_in("b", "rp_filter", "all", 2)),
        "lost",
        "b",
        "Not delivered: b has no route back to 10.244.0.0/24, so its reverse-path filter (net.ipv4.conf.all.rp_filter = 2) drops what comes from there.",
    ),
    (
        "a third node as the next hop",
        set_route("a", "10.244.1.0/24", "172.18.0.4", "eth0"),
        "detour",
        "a",
        "Delivered by a detour: a sends it to c, and not to b (route '10.244.1.0/24 via 172.18.0.4 dev eth0').",
    ),
    (
        "a third node back",
        set_route("b", "10.244.0.0/24", "172.18.0.4", "eth0"),
        "detour",
        "b",
        "Delivered by a detour: b sends it back to c, and not to a (route '10.244.0.0/24 via 172.18.0.4 dev eth0').",
    ),
    (
        "a third node that does not forward",
        both(set_route("a", "10.244.1.0/24", "172.18.0.4", "eth0"), set_in("c", "forwarding", "all", "0")),
        "lost",
        "a",
        "Not delivered: a sends it to c, and not to b (route '10.244.1.0/24 via 172.18.0.4 dev eth0'), and c does not forward what comes in by eth0:"
        " net.ipv4.ip_forward is 0.",
    ),
    (
        "two that send it to each other",
        both(set_route("a", "10.244.1.0/24", "172.18.0.4", "eth0"), set_route("c", "10.244.1.0/24", "172.18.0.2", "eth0")),
        "lost",
        "a",
        "Not delivered: a sends it to c, and not to b (route '10.244.1.0/24 via 172.18.0.4 dev eth0'), and c gets it again: it goes round between a and c until"
        " its ttl is used up.",
    ),
    (
        "nobody as the next hop",
        set_route("a", "10.244.1.0/24", "172.18.0.99", "eth0"),
        "lost",
        "a",
        "Not delivered: a sends it to 172.18.0.99 on eth0, which is no node (route '10.244.1.0/24 via 172.18.0.99 dev eth0'), and not to b.",
    ),
    (
        "pods taken to be on the link",
        set_route("a", "10.244.1.0/24", "", "eth0"),
        "lost",
        "a",
        "Not delivered: a looks for 10.244.1.2 on the link of eth0 itself (route '10.244.1.0/24 dev eth0'), and it is behind b.",
    ),
    ("a blackhole", set_route("a", "10.244.1.0/24", "", "blackhole"), "lost", "a", "Not delivered: a drops what goes to 10.244.1.0/24: the route"
     " 'blackhole 10.244.1.0/24' says so."),
    (
        "forwarding off",
        set_in("b", "forwarding", "all", "0"),
        "lost",
        "b",
        "Not delivered: b does not forward what comes in by eth0: net.ipv4.ip_forward is 0.",
    ),
    (
        "forwarding off on the pod's interface",
        set_in("a", "forwarding", "veth0", "0"),
        "lost",
        "a",
        "Not delivered: a does not forward what comes in by veth0: net.ipv4.conf.veth0.forwarding is 0.",
    ),
    (
        "forwarding off on the way back alone",
        set_in("b", "forwarding", "veth0", "0"),
        "lost",
        "b",
        "Not delivered: b does not forward what comes in by veth0: net.ipv4.conf.veth0.forwarding is 0.",
    ),
    (
        "reverse-path filter",
        both(set_route("b", "10.244.0.2/32", "", "eth9"), set_in("b", "rp_filter", "eth0", 1)),
        "lost",
        "b",
        "Not delivered: b drops it by its reverse-path filter (net.ipv4.conf.eth0.rp_filter = 1): 10.244.0.0/24 comes in by eth0, and the way back to it"
        " leads by eth9.",
    ),
    (
        "MTU of an interface",
        set_in("a", "mtu", "eth0", 1400),
        "too_large",
        "a",
        "Delivered up to 1400 bytes only: on the way there, eth0 of a has an MTU of 1400, and pod-a0 sends up to 1500 bytes; nothing larger with DF passes.",
    ),
    (
        "MTU of a route",
        set_in("b", "route_mtu", "10.244.0.0/24", 1300),
        "too_large",
        "b",
        "Delivered up to 1300 bytes only: on the way back, the route '10.244.0.0/24 via 172.18.0.2 dev eth0' of b has an MTU of 1300, and pod-b0 sends up to"
        " 1500 bytes; nothing larger with DF passes.",
    ),
    (
        "masqueraded within the cluster",
        set_in("a", "masquerades", "10.244.0.0/16", "172.18.0.2"),
        "translated",
        "a",
        "Delivered with another source: a gives it the source 172.18.0.2 (MASQUERADE by nat rule 1), so pod-b0 does not see 10.244.0.2.",
    ),
    (
        "masqueraded on the other node",
        set_in("b", "masquerades", "10.244.0.0/16", "10.244.1.1"),
        "translated",
        "b",
        "Delivered with another source: b gives it the source 10.244.1.1 (MASQUERADE by nat rule 1), so pod-b0 does not see 10.244.0.2.",
    ),
    (
        "the next hop does not answer",
        set_in("a", "neighbours", "172.18.0.3", "FAILED"),
        "unknown",
        "a",
        "Not known: a got no answer from its next hop 172.18.0.3 (b) on eth0 when it asked last (neighbour entry FAILED); -e probe=true tells whether it does"
        " now.",
    ),
    ("the link is down", lambda cluster: cluster["a"].down.add("eth0"), "lost", "a", "Not delivered: a sends it by eth0, which is down or has no link."),
    (
        "the pod's own route is gone",
        lambda cluster: cluster["b"].pods.pop("10.244.1.2"),
        "lost",
        "b",
        "Not delivered: b has no route to its own pod pod-b0 (10.244.1.2), which the plugin ptp makes (Network is unreachable).",
    ),
    (
        "another node has the pod's address",
        lambda cluster: cluster["a"].links["eth0"].append("10.244.1.2/32"),
        "lost",
        "a",
        "Not delivered: a takes it for its own: it has the address 10.244.1.2 itself, and pod-b0 has it.",
    ),
    (
        "a node that cannot be asked",
        lambda cluster: setattr(cluster["b"], "why", "unreachable: no route to host"),
        "unknown",
        "b",
        "Not known: b could not be looked at (unreachable: no route to host).",
    ),
]


@pytest.mark.parametrize("wrong, status, hop, sentence", [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_named_with_its_hop(wrong, status, hop, sentence):
    cluster = PaperCluster()
    dst = "10.244.1.2"
    infos = cluster.infos()
    wrong(cluster)
    # Pods are known from before: who is gone from the table is still a pod.
    cluster.infos = lambda **timers: {name: info for name, info in infos.items() if not cluster[name].why}
    verdict, text, _there, _back = walked(cluster, dst=dst)
    if cluster["b"].why:
        sentence = sentence.replace("pod-b0", dst)
    assert (verdict.status, verdict.hop, verdict.sentence) == (status, hop, sentence), "\n".join(text)
    assert text[-1] == sentence


@pytest.mark.parametrize("source, status", [("172.18.0.77", "lost"), ("", "unknown")])
def test_a_source_that_nobody_was_asked_about(source, status):
    cluster = PaperCluster()
    cluster["a"].masquerades["10.244.0.0/16"] = source or "?"
    infos = cluster.infos()
    ends = find_ends("pod-a0", "pod-b0", cluster.table, infos)
    answers = {name: node.answer(flows_of(*ends, cluster.table, infos)) for name, node in cluster.nodes.items()}
    for entry in answers["a"]["lookups"]:
        if entry.get("translation", {}).get("by"):
            entry["translation"]["source"] = source
    known = Cluster(cluster.table, answers, ["10.244.0.0/16"])
    there, back = walk(known, *ends)
    assert there.end == "arrived" and judge(known, there, back, infos, TODAY).status in (status, "unknown")


@pytest.mark.parametrize(
    "timer, end",
    [
        (STOPPED, "; its timer is stopped since 14:02 UTC."),
        ({"active": "failed", "since": "2026-11-25T09:30:00Z"}, "; its timer is stopped since 2026-11-25 09:30 UTC."),
        ({"active": "inactive", "since": ""}, "; its timer is stopped."),
        ({"paused_seconds": 90}, "; its passes are paused for another 90 s."),
        (
            {"problems": [{"subject": "route 10.244.9.0/24", "message": "x."}, {"subject": "route 10.244.0.0/24", "message": "its next hop is not on-link."}]},
            "; its passes say: route 10.244.0.0/24: its next hop is not on-link.",
        ),
        ({}, "."),
        ({"active": ""}, "."),
    ],
)
def test_the_sentence_says_why_the_node_does_not_mend_itself(timer, end):
    cluster = PaperCluster()
    del cluster["b"].routes["10.244.0.0/24"]
    verdict, _text, _there, _back = walked(cluster, b=timer, a=STOPPED)
    assert verdict.sentence == "Not delivered: b has no route back to 10.244.0.0/24" + end


def test_forwarding_of_ipv6():
    cluster = PaperCluster()
    cluster["b"].forwarding["all"] = "0"
    verdict, _text, _there, _back = walked(cluster, src="fd00:10::2")
    assert verdict.sentence == "Not delivered: b does not forward what comes in by eth0: net.ipv6.conf.all.forwarding is 0."


def test_a_gateway_to_peers_that_are_not_on_link_is_passed_and_told():
    cluster = PaperCluster()
    for name, cidr, ip in (("a", "10.244.1.0/24", "172.18.0.3"), ("b", "10.244.0.0/24", "172.18.0.2")):
        cluster[name].routes[cidr] = ("172.18.0.254", "eth0")
        cluster[name].gateways[ip] = "172.18.0.254"
    verdict, _text, there, _back = walked(cluster)
    assert verdict.status == "delivered" and path(there) == ["pod-a0", "a", "172.18.0.254", "b", "pod-b0"]
    assert verdict.sentence.endswith("; what the gateway 172.18.0.254 does was not looked at.")


def test_a_pod_behind_a_bridge_has_no_interface_of_its_own():
    cluster = PaperCluster()
    for name, number in (("a", 0), ("b", 1)):
        cluster[name].pods["10.244.%d.2" % number] = "cni0"
    whole = cluster.infos

    def infos(**timers):
        found = whole(**timers)
        for info in found.values():
            for pod in info["pods"]:
                pod["interface"] = ""
        return found

    cluster.infos = infos
    verdict, text, there, back = walked(cluster)
    assert (verdict.status, path(there), path(back)) == ("delivered", ["pod-a0", "a", "b", "pod-b0"], ["pod-b0", "b", "a", "pod-a0"]), "\n".join(text)


def test_a_pod_that_cannot_be_asked_is_told():
    cluster = PaperCluster()
    cluster["b"].pod_error = "its network namespace is not known"
    verdict, _text, _there, _back = walked(cluster)
    assert verdict.status == "delivered" and "pod-b0 itself was not looked at: its network namespace is not known" in verdict.sentence


@pytest.mark.parametrize("note", ["which rule translates the source cannot be told: the lock is held", ""])
def test_who_could_not_say_which_rule_translates_is_told(note):
    cluster = PaperCluster()
    cluster["a"].routes["0.0.0.0/0"] = ("172.18.0.1", "eth0")
    answer = cluster["a"].answer

    def dumb(flows):
        told = answer(flows)
        for entry in told["lookups"]:
            entry.pop("translation", None)
        return dict(told, notes=[note] if note else [])

    cluster["a"].answer = dumb
    end = note or "was not asked which rule translates the source"
    verdict, _text, _there, _back = walked(cluster)
    assert verdict.sentence.startswith("Delivered: ") and verdict.sentence.endswith("; a: %s." % end)
    verdict, _text, _there, _back = walked(cluster, dst="192.0.2.9")
    assert verdict.sentence == (
        "Handed over: a hands it to 172.18.0.1 on eth0, which is no node, with which source cannot be told for sure; where 192.0.2.9 sends its answer"
        " depends on that source; what is beyond was not looked at, and %s; a: %s." % (BY_LOOKUPS, end)
    )


def test_a_rule_that_may_decide_otherwise_is_told():
    cluster = PaperCluster()
    cluster["a"].routes["0.0.0.0/0"] = ("172.18.0.1", "eth0")
    cluster["a"].doubts = ["rule 3"]
    verdict, _text, _there, _back = walked(cluster, dst="192.0.2.9")
    assert ", with for all that can be told the source 172.18.0.2 (MASQUERADE by nat rule 1);" in verdict.sentence and "rule 3" in verdict.sentence
    cluster["a"].masquerades["10.244.0.0/16"] = "172.18.0.2"
    verdict, _text, _there, _back = walked(cluster)
    assert verdict.sentence.endswith("does not see 10.244.0.2, unless one that cannot be told decides otherwise (rule 3).")


@pytest.mark.parametrize("dst", ["192.168.7.7", "10.244.1.1"])
def test_another_address_of_a_node_is_that_node(dst):
    cluster = PaperCluster()
    cluster["b"].links["eth1"] = ["192.168.7.7/24"]
    cluster["a"].routes["192.168.7.0/24"] = ("172.18.0.3", "eth0")
    verdict, text, there, back = walked(cluster, dst=dst)
    assert (verdict.status, path(there), path(back)) == ("delivered", ["pod-a0", "a", "b"], ["b", "a", "pod-a0"]), "\n".join(text)
    assert "reaches b (%s)" % dst in verdict.sentence


def test_a_node_with_an_address_for_each_service_is_asked_about_few():
    cluster = PaperCluster()
    cluster["a"].links["kube-ipvs0"] = ["10.96.%d.%d/32" % divmod(n, 256) for n in range(5000)]
    cluster["a"].links["eth9"] = ["192.168.9.9/24"]
    infos = cluster.infos()
    for info in infos.values():
        for address in info["addresses"]:
            address["prefix_length"] = 24 if address["interface"].startswith("eth") else 32
    flows = flows_of(*find_ends("pod-a0", "pod-b0", cluster.table, infos), cluster.table, infos)
    asked = {flow["source"] for flow in flows}
    assert len(flows) < 100 and {"172.18.0.2", "172.18.0.3", "192.168.9.9"} < asked


def test_an_address_that_many_nodes_have_is_nobodys_name():
    cluster = PaperCluster()
    for node in cluster.nodes.values():
        node.links["docker0"] = ["172.17.0.1/16"]
    verdict, _text, there, _back = walked(cluster, dst="172.17.0.1")
    assert path(there) == ["pod-a0", "a"]
    assert verdict.sentence.startswith("Handed over: a has the address 172.17.0.1 itself, with its own source 10.244.0.2;")


def test_an_address_that_no_pod_has():
    verdict, _text, _there, _back = walked(PaperCluster(), dst="10.244.1.77")
    assert verdict.sentence == "Not delivered: b has no pod with 10.244.1.77 (Network is unreachable)."


def test_an_address_that_has_an_interface_and_no_known_pod_is_not_called_lost():
    cluster = PaperCluster()
    infos = cluster.infos()
    infos["b"]["pods"] = []
    verdict, _text, there, _back = walked(cluster, "a", "10.244.1.2", infos)
    assert there.destination.kind == "absent"
    assert verdict.sentence.startswith("Not known: b sends it by '10.244.1.2 dev veth0', which is for that address alone,")


def test_a_kernel_that_does_not_say_which_route_it_takes():
    cluster = PaperCluster()
    infos = cluster.infos()
    infos["b"]["pods"] = []
    lookup = cluster["b"].lookup
    cluster["b"].lookup = lambda *asked: dict(lookup(*asked), matched="")
    assert walked(cluster, "a", "10.244.1.2", infos)[0].sentence.startswith("Not delivered: b has no pod with 10.244.1.2")


def test_a_node_that_could_not_tell_its_pods_is_named():
    cluster = PaperCluster()
    infos = cluster.infos()
    infos["b"].update(pods=[], unseen=["pods"])
    with pytest.raises(KindnetError, match=r"is neither a node nor a pod.*Could not tell their pods \(see kindnet_info\): b\."):
        find_ends("a", "pod-b0", cluster.table, infos)


@pytest.mark.parametrize(
    "src, dst, address",
    [("pod-a0", "pod-b0", "10.244.1.2"), ("a00ffee0", "b", "172.18.0.3"), ("a00f", "fd00:10:1::3", "fd00:10:1::3"), ("a", "10.244.1.3", "10.244.1.3")],
)
def test_ends_are_found_by_id_name_and_address(src, dst, address):
    cluster = PaperCluster()
    source, destination = find_ends(src, dst, cluster.table, cluster.infos())
    assert (source.node, destination.address) == ("a", address)
    assert ":" in source.address if ":" in address else ":" not in source.address


@pytest.mark.parametrize(
    "src, dst, field, words",
    [
        ("", "pod-b0", "src", "is missing"),
        (None, "pod-b0", "src", "is missing"),
        ("pod-a0", "", "dst", "is missing"),
        ("pod-z", "pod-b0", "src", "is neither a node nor a pod"),
        ("pod-a0", "example.org", "dst", "Names are not looked up elsewhere"),
        ("192.0.2.1", "pod-b0", "src", "is no address of a pod or of a node"),
        ("10.244.1.77", "pod-a0", "src", "of b"),
        ("pod-a0", "10.244.0.2", "dst", "the source too"),
        ("pod-a0", "2001:db8::1%eth0", "dst", "is neither a node nor a pod"),
    ],
)
def test_bad_input_gets_one_error(src, dst, field, words):
    cluster = PaperCluster()
    with pytest.raises(KindnetError) as e:
        find_ends(src, dst, cluster.table, cluster.infos())
    assert e.value.field == field and words in str(e.value) and e.value.remedy


def test_an_ambiguous_name_is_refused_with_all_it_may_mean():
    cluster = PaperCluster()
    infos = cluster.infos()
    infos["b"]["pods"][0]["name"] = "pod-a0"
    with pytest.raises(KindnetError) as e:
        find_ends("pod-a0", "pod-c0", cluster.table, infos)
    assert "is more than one: pod pod-a0 on a (a00ffee0), pod pod-a0 on b (b00ffee1)" in str(e.value)
    assert find_ends("b00ffee1", "pod-c0", cluster.table, infos)[0].node == "b"


def test_families_that_do_not_meet():
    cluster = PaperCluster()
    infos = cluster.infos()
    infos["a"]["pods"][0]["ips"] = ["10.244.0.2"]
    with pytest.raises(KindnetError) as e:
        find_ends("pod-a0", "fd00:10:1::2", cluster.table, infos)
    assert "no addresses of one family" in str(e.value)


def test_nodes_that_could_not_be_asked_are_named_when_a_pod_is_not_found():
    cluster = PaperCluster()
    cluster["c"].why = "unreachable"
    with pytest.raises(KindnetError) as e:
        find_ends("pod-c0", "pod-a0", cluster.table, cluster.infos())
    assert "Not asked, since they could not be reached: c." in str(e.value)


def arrives(cluster, source, destination, node):
    """Whether routes alone bring a packet to a pod, by a walk of the tables that knows nothing of the code under test."""
    for _unused in range(40):
        if destination in cluster[node].pods:
            return True
        routes = [c for c in cluster[node].routes if ipaddress.ip_address(destination) in ipaddress.ip_network(c)]
        if not routes:
            return False
        via, dev = cluster[node].routes[max(routes, key=lambda c: ipaddress.ip_network(c).prefixlen)]
        owners = [n for n, other in cluster.nodes.items() if via in other.own()]
        if dev != "eth0" or not owners or cluster[owners[0]].why:
            return False
        node = owners[0]
    return False


HOPS = [("172.18.0.2", "eth0"), ("172.18.0.3", "eth0"), ("172.18.0.4", "eth0"), ("172.18.0.99", "eth0"), ("", "eth0"), ("", "blackhole"), None]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_it_is_delivered_exactly_when_the_tables_bring_it_there_and_back(data):
    cluster = PaperCluster()
    for name in "abc":
        for number in range(3):
            cidr = "10.244.%d.0/24" % number
            if data.draw(st.integers(0, 3)) == 0 and cidr in cluster[name].routes:
                hop = data.draw(st.sampled_from(HOPS))
                if hop is None:
                    del cluster[name].routes[cidr]
                else:
                    cluster[name].routes[cidr] = hop
    if data.draw(st.integers(0, 5)) == 0:
        cluster[data.draw(st.sampled_from("bc"))].why = "unreachable"
    verdict, text, there, back = walked(cluster, dst="10.244.1.2")
    right = arrives(cluster, "10.244.0.2", "10.244.1.2", "a") and arrives(cluster, "10.244.1.2", "10.244.0.2", "b")
    right = right and not cluster["b"].why
    assert (verdict.status in (*RIGHT, "detour")) == right, "\n".join(text)
    assert verdict.sentence.endswith(".") and "\n" not in verdict.sentence
    assert (verdict.status == "detour") == bool(right and (there.detours or back.detours))
