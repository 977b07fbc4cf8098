# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rule gives one packet another source: tables of rules, as iptables -S and nft -j print them."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._packet_rules import NatChains
from ansible_collections.kindnet.host.plugins.module_utils._plan_translation import Packet, Translation, iptables_hook, nft_hooks, translation

OUR_JUMP = '-m addrtype ! --dst-type LOCAL -m comment --comment "x" -j OURS'
OURS = {"OURS": ["-d 10.244.0.0/16 -j RETURN", "-j MASQUERADE"]}
INSIDE = Packet("10.244.1.2", "10.244.2.2", "veth1", "eth0")
OUTSIDE = Packet("10.244.1.2", "192.0.2.9", "veth1", "eth0")
OWN = Packet("172.18.0.3", "192.0.2.9", "", "eth0")
INSIDE6 = Packet("fd00:10:1::2", "fd00:10:2::2", "veth1", "eth0")


def of_iptables(packet, postrouting, chains=None, is_own=False):
    hook = iptables_hook("t ", {"POSTROUTING": postrouting, **(OURS if chains is None else chains)}, 6 if ":" in packet.source else 4, is_own)
    return translation([hook], packet)


@pytest.mark.parametrize(
    "packet, postrouting, by, rule",
    [
        (INSIDE, [OUR_JUMP], "", "t OURS rule 1 '-d 10.244.0.0/16 -j RETURN'"),
        (OUTSIDE, [OUR_JUMP], "MASQUERADE", "t OURS rule 2 '-j MASQUERADE'"),
        (INSIDE, [], "", ""),
        (INSIDE, ["-j MASQUERADE", OUR_JUMP], "MASQUERADE", "t POSTROUTING rule 1 '-j MASQUERADE'"),
        # Behind our jump, since our chain hands back what it spares.
        (INSIDE, [OUR_JUMP, "-o eth0 -j MASQUERADE"], "MASQUERADE", "t POSTROUTING rule 2 '-o eth0 -j MASQUERADE'"),
        (INSIDE, [OUR_JUMP, "-o eth1 -j MASQUERADE"], "", "t OURS rule 1 '-d 10.244.0.0/16 -j RETURN'"),
        (INSIDE, ["! -d 10.244.2.2/32 -j MASQUERADE"], "", ""),
        (OUTSIDE, ["-s 10.244.0.0/16 -j ACCEPT", OUR_JUMP], "", "t POSTROUTING rule 1 '-s 10.244.0.0/16 -j ACCEPT'"),
        (INSIDE, ["-s 10.244.1.0/24 -j SNAT --to-source 192.0.2.1"], "SNAT", "t POSTROUTING rule 1 '-s 10.244.1.0/24 -j SNAT --to-source 192.0.2.1'"),
        # The packet is a ping.
        (INSIDE, ["-p tcp -j MASQUERADE"], "", ""),
        (INSIDE, ["-p icmp -j MASQUERADE"], "MASQUERADE", "t POSTROUTING rule 1 '-p icmp -j MASQUERADE'"),
        # Nobody marks it.
        (INSIDE, ["-m mark --mark 0x4000/0x4000 -j MASQUERADE"], "", ""),
    ],
)
def test_of_iptables(packet, postrouting, by, rule):
    assert of_iptables(packet, postrouting) == Translation(by, rule, ())


def test_goto_does_not_come_back():
    chains = {"A": ["-d 10.244.0.0/16 -j RETURN"], **OURS}
    assert of_iptables(OUTSIDE, ["-g A", OUR_JUMP], chains).by == ""
    assert of_iptables(OUTSIDE, ["-j A", OUR_JUMP], chains).by == "MASQUERADE"


@pytest.mark.parametrize(
    "rule, doubt",
    [
        ("-m set --match-set x dst -j MASQUERADE", True),
        ("-m set --match-set x dst -j ACCEPT", True),
        ("-m set --match-set x dst -j LOG", False),
        ("-m set --match-set x dst -d 192.0.2.0/24 -j MASQUERADE", False),  # not about this packet, whatever the set holds
        ("-m set --match-set x dst -j NOTHING", False),
        ("-j UNKNOWN", True),
    ],
)
def test_what_cannot_be_told_is_a_doubt(rule, doubt):
    said = of_iptables(INSIDE, [rule, OUR_JUMP], {"NOTHING": ["-j RETURN"], **OURS})
    assert (said.by, said.rule) == ("", "t OURS rule 1 '-d 10.244.0.0/16 -j RETURN'")
    assert bool(said.doubts) == doubt and all("POSTROUTING rule 1" in one for one in said.doubts)


def test_a_hosts_own_packet_has_a_local_source():
    rule = "-m addrtype --src-type LOCAL -j MASQUERADE"
    assert of_iptables(OUTSIDE, [rule], {}) == Translation("", "", ())
    said = of_iptables(OWN, [rule], {}, is_own=True)
    assert said.by == "" and said.doubts


def test_a_chain_that_is_not_there_is_a_doubt():
    assert of_iptables(INSIDE, ["-j GONE"], {}).doubts  # not a chain, so perhaps a target that nobody knows


def ruleset(*rules, family="inet", priority=100, name="post"):
    return [
        {"chain": {"family": family, "table": "t", "name": name, "handle": 1, "type": "nat", "hook": "postrouting", "prio": priority, "policy": "accept"}},
        *({"rule": {"family": family, "table": "t", "chain": name, "handle": 10 + n, "expr": list(rule)}} for n, rule in enumerate(rules)),
    ]


def daddr(cidr, family="ip"):
    address, _slash, length = cidr.partition("/")
    return {"match": {"op": "==", "left": {"payload": {"protocol": family, "field": "daddr"}}, "right": {"prefix": {"addr": address, "len": int(length)}}}}


MASQUERADE, ACCEPT = {"masquerade": None}, {"accept": None}


def of_nft(packet, *parts):
    chains = NatChains({"nftables": [one for part in parts for one in part]})
    return translation(nft_hooks(chains, 6 if ":" in packet.source else 4, not packet.came_by), packet)


def test_of_nft():
    said = of_nft(INSIDE, ruleset([daddr("10.244.2.0/24"), MASQUERADE]))
    assert said == Translation("MASQUERADE", "nft table inet t, chain post rule with handle 10", ())
    assert of_nft(OUTSIDE, ruleset([daddr("10.244.2.0/24"), MASQUERADE])) == Translation("", "", ())
    assert of_nft(INSIDE6, ruleset([daddr("fd00:10:2::/64", "ip6"), MASQUERADE])).by == "MASQUERADE"
    assert of_nft(INSIDE6, ruleset([MASQUERADE], family="ip")).by == ""


@pytest.mark.parametrize("flags, forwarded, own", [(["saddr"], "", "MASQUERADE"), (["saddr", "oif"], "", "a doubt"), (["daddr"], "", "")])
def test_a_hosts_own_packet_has_a_local_source_in_nft_too(flags, forwarded, own):
    match = {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": flags}}, "right": "local"}}
    assert of_nft(OUTSIDE, ruleset([match, MASQUERADE])) == Translation(forwarded, "", ())
    said = of_nft(OWN, ruleset([match, MASQUERADE]))
    assert ("a doubt" if said.doubts else said.by) == own


def test_an_accept_ends_its_own_chain_alone_and_the_first_translation_counts():
    first = ruleset([ACCEPT], priority=90, name="first")
    second = ruleset([MASQUERADE], priority=110, name="second")
    third = ruleset([{"snat": {"addr": "192.0.2.1"}}], priority=120, name="third")
    said = of_nft(INSIDE, third, first, second)
    assert said == Translation("MASQUERADE", "nft table inet t, chain second rule with handle 10", ())
