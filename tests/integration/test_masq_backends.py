# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kindnet_masq can do through each of its backends, nftables first of all, and on the way from one to another. The oracle is nft, iptables-save and
packets: who the other side sees a packet come from."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nat_sandbox import ROOT, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BACKENDS = ("iptables-nft", "iptables-legacy", "nftables")
V4, V6 = "10.244.0.0/16", "fd00:10:244::/56"
TABLE = "nft -j list table inet kindnet"

OURS = """table inet kindnet {
\tset non_masquerade_ipv4 {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 10.244.0.0/16 }
\t}

\tset non_masquerade_ipv6 {
\t\ttype ipv6_addr
\t\tflags interval
\t\telements = { fd00:10:244::/56 }
\t}

\tchain KIND-MASQ-AGENT {
\t\tip daddr @non_masquerade_ipv4 counter return comment "kind-masq-agent: local traffic is not subject to MASQUERADE"
\t\tip6 daddr @non_masquerade_ipv6 counter return comment "kind-masq-agent: local traffic is not subject to MASQUERADE"
\t\tmeta nfproto ipv4 counter masquerade comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"
\t\tmeta nfproto ipv6 counter masquerade comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"
\t}

\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat + 1; policy accept;
\t\tfib daddr type != local counter jump KIND-MASQ-AGENT comment "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL \
destination traffic to our custom KIND-MASQ-AGENT chain"
\t}
}
"""

FOREIGN = """
table ip nat {
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname "eth7" counter packets 5 bytes 500 masquerade
\t}
}
table inet other {
\tset non_masquerade_ipv4 {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 192.0.2.0/24 }
\t}
\tchain KIND-MASQ-AGENT {
\t\tip daddr @non_masquerade_ipv4 counter packets 7 bytes 700 return comment "kind-masq-agent: not this one"
\t}
}
"""


@pytest.fixture
def sandbox():
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture(params=BACKENDS)
def backend(request, sandbox):
    if request.param == "iptables-legacy" and sandbox.run("iptables-legacy -t nat -S && ip6tables-legacy -t nat -S", check=False).returncode:
        pytest.skip("this kernel has no legacy iptables")
    return request.param


def masq(sandbox, check=False, **options):
    return sandbox.module("kindnet_masq", check=check, **options)


def table(sandbox, counters=False):
    text = sandbox.out("nft list table inet kindnet")
    return text if counters else re.sub(r"counter packets \d+ bytes \d+", "counter", text)


def ruleset(sandbox):
    return sandbox.out(["nft", "list", "ruleset"])


def everything(sandbox):
    return ruleset(sandbox), sandbox.out("cat /etc/kindnet/desired.json 2>/dev/null || true")


def test_check_real_repeat_repeat_check_undo(sandbox):
    sandbox.run(["nft", "-f", "-"], stdin=FOREIGN)
    foreign = ruleset(sandbox)
    options = {"cluster_cidrs": [V4, V6], "backend": "nftables"}
    before = everything(sandbox)
    predicted = masq(sandbox, check=True, **options)
    assert predicted["changed"] and everything(sandbox) == before
    real = masq(sandbox, **options)
    assert (real["changed"], real["changes"], real["diff"]) == (True, predicted["changes"], predicted["diff"])
    assert real["backend"] == "nftables" and real["families"]["inet"]["table"] == "table missing"
    assert table(sandbox) == OURS
    for check in (False, True):
        before = everything(sandbox)
        again = masq(sandbox, check=check, **options)
        assert again["changed"] is False and everything(sandbox) == before
    assert again["families"]["inet"]["table"] == "right"
    assert again["families"]["inet"]["sets"] == {"non_masquerade_ipv4": [V4], "non_masquerade_ipv6": [V6]}
    for check in (True, False):
        assert [(c["action"], c["subject"]) for c in masq(sandbox, check=check, state="absent")["changes"]][0] == ("remove", "nft table inet kindnet")
    assert everything(sandbox) == (foreign, "")
    assert masq(sandbox, state="absent")["changed"] is False


T = "inet kindnet"
DAMAGES = {
    "delete element inet kindnet non_masquerade_ipv4 { 10.244.0.0/16 }": "10.244.0.0/16 missing in set non_masquerade_ipv4",
    "add element inet kindnet non_masquerade_ipv6 { 2000::/3 }": "2000::/3 is not wanted in set non_masquerade_ipv6",
    "insert rule inet kindnet KIND-MASQ-AGENT ip saddr 10.244.1.0/24 masquerade": "is not wanted",
    "add rule inet kindnet KIND-MASQ-AGENT return": "rule 'return' is not wanted, and dead behind MASQUERADE",
    "flush chain inet kindnet KIND-MASQ-AGENT": "chain is empty",
    "flush chain inet kindnet postrouting": "jump missing",
    "insert rule inet kindnet postrouting accept": "rule 'accept' is not wanted of postrouting",
    "add rule inet kindnet postrouting fib daddr type != local jump KIND-MASQ-AGENT": "is not wanted",
    "flush chain inet kindnet postrouting; delete chain inet kindnet postrouting": "base chain postrouting missing",
    "delete chain inet kindnet postrouting; add chain inet kindnet postrouting { type nat hook postrouting priority 90; }": "'nat postrouting 90 accept'",
    "add chain inet kindnet mine { type filter hook forward priority 0; policy drop; }": "chain mine is not wanted",
    "add set inet kindnet source_ipv4 { type ipv4_addr; flags interval; }": "set source_ipv4 is not wanted",
    "add map inet kindnet m { type ipv4_addr : verdict; }": "map m is not wanted",
    "add table inet kindnet { flags dormant; }": "dormant",
    "delete table inet kindnet": "table missing",
    "flush ruleset": "table missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_right_after_one_run(sandbox, damage):
    sandbox.run(["nft", "-f", "-"], stdin=FOREIGN)
    foreign = ruleset(sandbox)
    masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables")
    if damage.startswith("delete chain"):
        sandbox.run(["nft", "flush chain inet kindnet postrouting"])
    sandbox.run(["nft", damage])
    assert not damage.startswith("add table") or "dormant" in table(sandbox)
    predicted = masq(sandbox, check=True, cluster_cidrs=[V4, V6], backend="nftables")
    real = masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables")
    assert DAMAGES[damage] in real["changes"][0]["reason"], real["changes"]
    assert predicted["changes"] == real["changes"]
    assert table(sandbox) == OURS
    sandbox.run(["nft", "delete table inet kindnet"])
    assert ruleset(sandbox) == ("" if damage == "flush ruleset" else foreign)


def test_a_repaired_set_costs_no_counter(sandbox):
    masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables")
    counting = table(sandbox).replace("counter", "counter packets 7 bytes 70")
    sandbox.run(["nft", "-f", "-"], stdin="delete table inet kindnet\n" + counting)
    assert table(sandbox, counters=True) == counting
    sandbox.run(["nft", "add element inet kindnet non_masquerade_ipv4 { 192.0.2.0/24 }"])
    assert masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables")["changed"]
    assert table(sandbox, counters=True) == counting


def test_a_table_of_somebody_elses_is_neither_taken_nor_removed(sandbox):
    sandbox.run(["nft", "-f", "-"], stdin="table inet kindnet { chain mine { tcp dport 22 accept; }; }")
    before = everything(sandbox)
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=[V4], backend="nftables")
        assert result["failed"] and result["field"] == "backend" and "somebody else's: chain mine" in result["msg"], result
        assert everything(sandbox) == before
        result = masq(sandbox, check=check, state="absent")
        assert not result["changed"] and result["notes"] == ["nft table inet kindnet is somebody else's by now, and stays"]
        assert everything(sandbox) == before
    assert masq(sandbox, cluster_cidrs=[V4], backend="iptables-nft")["changed"]
    assert "tcp dport 22 accept" in table(sandbox)


@pytest.mark.parametrize("native", [True, False])
def test_a_host_without_iptables_works_with_nftables_alone(sandbox, native):
    if native:
        sandbox.run(["nft", "-f", "-"], stdin=FOREIGN)
    sandbox.run("rm /usr/sbin/ip6tables* /usr/sbin/iptables* /usr/sbin/xtables*")
    first = masq(sandbox, cluster_cidrs=[V4, V6])
    assert first["backend"] == "nftables" and table(sandbox) == OURS
    assert first["backend_reason"].startswith("auto: ") and ("1 rules of others in native nat chains" in first["backend_reason"]) is native
    assert masq(sandbox, cluster_cidrs=[V4, V6])["changed"] is False
    assert masq(sandbox, state="absent")["changed"]
    assert "kindnet" not in ruleset(sandbox).replace("kindnet.host", "")


def test_auto_takes_nftables_where_only_native_rules_of_others_nat(sandbox):
    sandbox.run(["nft", "-f", "-"], stdin=FOREIGN)
    assert masq(sandbox, check=True, cluster_cidrs=[V4])["backend"] == "nftables"
    sandbox.run("iptables-nft -A FORWARD -s 192.0.2.9 -j ACCEPT")
    assert masq(sandbox, check=True, cluster_cidrs=[V4])["backend"] == "iptables-nft"


def test_without_nft_nftables_is_an_error_unless_predicted(sandbox):
    sandbox.run("rm /usr/sbin/nft")
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=[V4], backend="nftables")
        assert result["failed"] and "package nftables" in result["remedy"], result
    assert masq(sandbox, check=True, cluster_cidrs=[V4], backend="nftables", tools_predicted=True)["changes"][0]["subject"] == "nft table inet kindnet"


def test_a_record_of_version_0_1_is_understood(sandbox):
    masq(sandbox, cluster_cidrs=[V4, V6], backend="iptables-nft")
    text = sandbox.out(["cat", "/etc/kindnet/desired.json"])
    data = json.loads(text)
    section = data["sections"]["masq"]
    section["flavour"] = section.pop("backend")[len("iptables-") :]
    section["former"] = [["legacy", "OLD"]]
    sandbox.run("cat >/etc/kindnet/desired.json", stdin=json.dumps(data))
    assert masq(sandbox, check=True, cluster_cidrs=[V4, V6], backend="iptables-nft")["changed"] is False
    assert masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables")["changed"]
    recorded = json.loads(sandbox.out(["cat", "/etc/kindnet/desired.json"]))["sections"]["masq"]
    assert recorded["former"] == [["iptables-legacy", "OLD"], ["iptables-nft", "KIND-MASQ-AGENT"]] and "flavour" not in recorded
    assert "KIND-MASQ" not in sandbox.out("iptables-nft-save; ip6tables-nft-save") and table(sandbox) == OURS


def test_auto_stays_with_its_answer_when_the_chain_is_lost(sandbox, backend):
    """As on a host that has just booted, where nobody has any rule yet."""
    masq(sandbox, cluster_cidrs=[V4, V6], backend=backend)
    assert masq(sandbox, cluster_cidrs=[V4, V6])["backend"] == backend
    sandbox.run("nft flush ruleset")
    if backend == "iptables-legacy":
        sandbox.run("for tool in iptables-legacy ip6tables-legacy; do $tool -t nat -F; $tool -t nat -X; done")
    assert masq(sandbox, check=True, cluster_cidrs=[V4, V6])["backend"] == backend
    result = masq(sandbox, cluster_cidrs=[V4, V6])
    assert result["backend"] == backend and result["changed"], result
    assert masq(sandbox, cluster_cidrs=[V4, V6], chain="OTHER")["backend"] == backend


def test_auto_decides_anew_where_what_it_took_is_gone(sandbox):
    masq(sandbox, cluster_cidrs=[V4, V6], backend="iptables-nft")
    sandbox.run("nft flush ruleset; rm /usr/sbin/ip6tables* /usr/sbin/iptables* /usr/sbin/xtables*")
    assert masq(sandbox, check=True, cluster_cidrs=[V4, V6], tools_predicted=True)["backend"] == "iptables-nft"
    assert masq(sandbox, cluster_cidrs=[V4, V6])["backend"] == "nftables"
    assert table(sandbox) == OURS


@pytest.mark.parametrize("missing", ["nft", "iptables-nft"])
def test_what_cannot_be_looked_at_keeps_nothing_else_from_being_taken_out(sandbox, missing):
    backend = "nftables" if missing == "iptables-nft" else "iptables-nft"
    masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables" if missing == "nft" else "iptables-nft", persist=False)
    kept = sandbox.out("nft -s list ruleset")
    sandbox.run("cat >/run/kept", stdin=kept)
    masq(sandbox, cluster_cidrs=[V4, V6], backend=backend)
    sandbox.run("nft -f /run/kept" if missing == "nft" else "iptables-nft -t nat -N KIND-MASQ-AGENT")
    sandbox.run("mv /usr/sbin/%s /run/" % missing)
    predicted, result = masq(sandbox, check=True, state="absent"), masq(sandbox, state="absent")
    assert result["failed"] and "%s: is not installed" % missing in result["msg"] and predicted["changes"] == result["changes"], result
    sandbox.run("mv /run/%s /usr/sbin/" % missing)
    left = sandbox.out("nft list table inet kindnet" if backend == "nftables" else "iptables-nft-save; ip6tables-nft-save", check=False)
    assert "KIND-MASQ-AGENT" not in left
    assert not masq(sandbox, state="absent").get("failed")
    assert "KIND-MASQ-AGENT" not in ruleset(sandbox) and not sandbox.out("cat /etc/kindnet/desired.json", check=False)


def test_a_chain_of_somebody_elses_in_the_other_flavour_is_not_taken_when_the_backend_changes(sandbox):
    masq(sandbox, cluster_cidrs=[V4], backend="nftables", chain="IP-MASQ")
    sandbox.run("iptables-nft -t nat -N IP-MASQ; iptables-nft -t nat -A IP-MASQ -d 192.0.2.1 -j ACCEPT; iptables-nft -t nat -A POSTROUTING -j IP-MASQ")
    assert masq(sandbox, cluster_cidrs=[V4], backend="nftables", chain="IP-MASQ")["notes"] == [
        "iptables-nft chain nat/IP-MASQ is somebody else's by now, and stays"
    ]
    before = everything(sandbox)
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=[V4], backend="iptables-nft", chain="IP-MASQ")
        assert result["failed"] and "is a chain of somebody else's: iptables-nft -t nat -A IP-MASQ -d 192.0.2.1/32" in result["msg"], result
        assert everything(sandbox) == before


def test_our_own_chain_of_before_is_not_taken_for_somebody_elses(sandbox, backend):
    tool = "iptables-legacy" if backend == "iptables-nft" else "iptables-nft"
    masq(sandbox, cluster_cidrs=[V4], backend=backend)
    sandbox.run("%s -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE" % tool)
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=[V4], chain="OTHER")
        assert not [note for note in result["notes"] if "split" in note], result
    masq(sandbox, cluster_cidrs=[V4], backend=backend)
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=[V4, "10.96.0.0/12"], backend=tool)
        assert result["changed"] and result["shadowed_by"] == [], result


def test_our_rules_for_forwarding_are_not_those_of_others(sandbox):
    sandbox.run("iptables-nft -P FORWARD DROP; iptables-legacy -A FORWARD -s 192.0.2.9 -j ACCEPT")
    assert sandbox.module("kindnet_neighbours", cluster_cidrs=[V4])["changed"] and V4 in sandbox.out("iptables-nft -S FORWARD")
    result = masq(sandbox, check=True, cluster_cidrs=[V4])
    assert result["backend"] == "iptables-legacy" and result["notes"] == [], result
    assert "0 rules and chains of others in iptables-nft, 1 rules" in result["backend_reason"], result


def test_a_nat_chain_of_family_inet_is_not_one_of_iptables(sandbox):
    sandbox.run(["nft", "-f", "-"], stdin="table inet nat { chain POSTROUTING { type nat hook postrouting priority 100; ip saddr %s masquerade; }; }" % V4)
    result = masq(sandbox, check=True, cluster_cidrs=[V4])
    assert result["backend"] == "nftables" and len(result["shadowed_by"]) == 1, result


def test_rules_about_senders_that_are_no_pods_are_not_in_the_way(sandbox):
    sandbox.run("iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE")
    options = {"cluster_cidrs": [V4], "source_cidrs": ["0.0.0.0/0"]}
    assert masq(sandbox, check=True, **options)["shadowed_by"] == []
    sandbox.run("iptables-nft -t nat -A POSTROUTING -s 10.244.7.0/24 -j MASQUERADE")
    assert len(masq(sandbox, check=True, **options)["shadowed_by"]) == 1


# Where the jump stands


@pytest.mark.parametrize(
    ("position", "others", "expected"),
    [
        ("first", ["-o eth7 -j ACCEPT", "-j KUBE-POSTROUTING"], 0),
        ("before KUBE-POSTROUTING", ["-o eth7 -j ACCEPT", "-j KUBE-POSTROUTING", "-o eth8 -j ACCEPT"], 1),
        ("before MASQUERADE", ["-o eth7 -j ACCEPT", "-o eth8 -j MASQUERADE"], 1),
        ("before KUBE-POSTROUTING", ["-o eth7 -j ACCEPT"], 1),
        ("last", ["-o eth7 -j ACCEPT", "-j KUBE-POSTROUTING"], 2),
    ],
)
@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_position_is_enforced_and_last_is_not(sandbox, tool, position, others, expected):
    sandbox.run("%s -t nat -N KUBE-POSTROUTING" % tool)
    for rule in others:
        sandbox.run("%s -t nat -A POSTROUTING %s" % (tool, rule))
    options = {"cluster_cidrs": [V4], "backend": tool, "jump_position": position}

    def order():
        rules = re.findall("^-A POSTROUTING (.*)", sandbox.out("%s -t nat -S" % tool), re.MULTILINE)
        return [i for i, rule in enumerate(rules) if rule.endswith("-j KIND-MASQ-AGENT")], [r for r in rules if not r.endswith("-j KIND-MASQ-AGENT")]

    predicted = masq(sandbox, check=True, **options)
    assert masq(sandbox, **options)["changes"] == predicted["changes"]
    assert order() == ([expected], others)
    assert masq(sandbox, **options)["changed"] is False
    sandbox.run("%s -t nat -I POSTROUTING 1 -j KUBE-POSTROUTING" % tool)
    again = masq(sandbox, **options)
    if position == "last":
        assert again["changed"] is False and order()[0] == [expected + 1]
    elif "MASQUERADE" in position:
        assert again["changed"] is False
    else:
        assert "jump is rule %d, behind '-j KUBE-POSTROUTING'" % (expected + 2) in again["changes"][0]["reason"]
        assert order() == ([0], ["-j KUBE-POSTROUTING", *others])
    assert masq(sandbox, **options)["changed"] is False


@pytest.mark.parametrize("chain", ["A" * 26, "_X.y-1", "KIND-MASQ-AGENT"])
def test_what_nft_lists_can_be_loaded_again(sandbox, chain):
    masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables", chain=chain)
    listed = table(sandbox)
    sandbox.run(["nft", "-f", "-"], stdin="delete table inet kindnet\n" + listed)
    assert table(sandbox) == listed
    assert masq(sandbox, cluster_cidrs=[V4, V6], backend="nftables", chain=chain)["changed"] is False


def test_where_the_table_of_nftables_stands(sandbox):
    masq(sandbox, cluster_cidrs=[V4], backend="nftables", jump_position="first")
    assert "priority srcnat - 1;" in table(sandbox)
    assert masq(sandbox, cluster_cidrs=[V4], backend="nftables")["changed"]
    assert "priority srcnat + 1;" in table(sandbox)


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"non_masquerade_cidrs": ["10.1.2.3/8"]}, "non_masquerade_cidrs", "10.1.2.3/8: has host bits set. Write 10.0.0.0/8."),
        ({"non_masquerade_cidrs": ["10.0.0.0"]}, "non_masquerade_cidrs", "not a network"),
        ({"masquerade_cidrs": ["x/8"]}, "masquerade_cidrs", "not a network"),
        ({"masquerade_cidrs": ["1.0.0.0/8", "1.0.0.0/8"]}, "masquerade_cidrs", "twice"),
        ({"masquerade_cidrs": ["1.0.0.0/8"]}, "masquerade_cidrs", "has no IPv6 network, and the cluster has IPv6. Add ::/0"),
        ({"source_cidrs": ["fd00::/8"]}, "source_cidrs", "has no IPv4 network, and the cluster has IPv4. Add 0.0.0.0/0"),
        ({"jump_position": "middle"}, "jump_position", "'middle': is no position"),
        ({"jump_position": "before "}, "jump_position", "is no position"),
        ({"jump_position": "before -j"}, "jump_position", "is no position"),
        ({"jump_position": "before X", "backend": "nftables"}, "jump_position", "does not go with backend nftables"),
        ({"chain": "postrouting", "backend": "nftables"}, "chain", "is no name for a chain in our table of nftables"),
        ({"chain": "non_masquerade_ipv4", "backend": "nftables"}, "chain", "is no name for a chain"),
        ({"chain": "accept", "backend": "nftables"}, "chain", "is no name for a chain"),
        ({"chain": "A+B", "backend": "nftables"}, "chain", "is no name for a chain"),
        ({"chain": "1A", "backend": "nftables"}, "chain", "is no name for a chain"),
        ({"chain": "A" * 27, "backend": "nftables"}, "chain", "is no name for a chain"),
        ({"cluster_cidrs": ["0.0.0.0/0"]}, "cluster_cidrs", "put 0.0.0.0/0 into non_masquerade_cidrs"),
        ({"backend": "nft"}, None, "value of backend must be one of: auto, iptables-nft, iptables-legacy, nftables, got: nft"),
    ],
)
def test_bad_input_is_one_error_and_changes_nothing(sandbox, options, field, said):
    before = everything(sandbox)
    for check in (True, False):
        result = masq(sandbox, check=check, **dict({"cluster_cidrs": [V4, V6]}, **options))
        assert result["failed"] and said in result["msg"] and result.get("field") == field, result
    assert everything(sandbox) == before


# Packets

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


# Plan, apply, read back, plan again

CONVERGES = """
import json, sys
from ansible_collections.kindnet.host.plugins.module_utils import _converge, _masq
for line in sys.stdin:
    try:
        outcome = _converge.converge(_masq, json.loads(line), "kindnet", True, False, 5)
        again = _converge.converge(_masq, json.loads(line), "kindnet", True, True, 5)
        said = [[p.message for p in outcome.plan.problems + outcome.failures], [c.reason for c in again.plan.changes], again.record is not None]
    except Exception as e:
        said = repr(e)
    print(json.dumps(said), flush=True)
"""

PREFIXES4 = ["10.0.0.0/8", "10.244.0.0/17", "10.244.128.0/17", "11.0.0.0/8", "0.0.0.0/0", "240.0.0.0/4", "255.255.255.255/32"]
PREFIXES4 += ["0.0.0.0/1", "128.0.0.0/1", "192.0.2.1/32"]
PREFIXES6 = ["::/0", "fd00::/8", "fd00:10:244:100::/56", "::ffff:10.0.0.0/104", "2001:db8::1/128", "8000::/1", "ff00::/8"]
some4, some6 = (st.lists(st.sampled_from(p), unique=True, max_size=5) for p in (PREFIXES4, PREFIXES6))
both = st.tuples(some4, some6).filter(lambda lists: bool(lists[0]) == bool(lists[1])).map(lambda lists: lists[0] + lists[1])
some_options = st.fixed_dictionaries(
    {
        "cluster_cidrs": st.permutations([V4, V6, "10.96.0.0/12"]),
        "non_masquerade_cidrs": st.tuples(some4, some6).map(lambda lists: lists[0] + lists[1]),
        "masquerade_cidrs": both,
        "source_cidrs": both,
        "masquerade_link_local": st.booleans(),
        "masquerade_link_local_ipv6": st.booleans(),
        "random_fully": st.booleans(),
        "jump_position": st.sampled_from(["last", "first", "before KUBE-POSTROUTING"]),
        "chain": st.sampled_from(["KIND-MASQ-AGENT", "X_1.y"]),
    }
)
FIXED = {"lock_wait": 5, "state": "present", "tools_predicted": False}
PROBES = ["10.244.1.1", "10.1.1.1", "11.2.3.4", "192.0.2.1", "192.0.2.2", "241.1.1.1", "255.255.255.255", "169.254.1.1", "1.1.1.1", "9.255.255.255"]
PROBES6 = ["fd00:10:244::1", "fd00:10:244:1ff::1", "fe80::1", "::ffff:10.1.1.1", "2001:db8::1", "2001:db8::2", "ffff::1", "1::1"]


def asked(options, source, destination):
    """Whether a packet is to be masqueraded, by the options' own words."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)

    def within(address, networks):
        return any(address in ipaddress.ip_network(n) for n in networks if ipaddress.ip_network(n).version == address.version)

    if within(destination, options["cluster_cidrs"]) or within(destination, options["non_masquerade_cidrs"]):
        return False
    if not options["masquerade_link_local"] and within(destination, ["169.254.0.0/16"]):
        return False
    if not options["masquerade_link_local_ipv6"] and within(destination, ["fe80::/10"]):
        return False
    return all(not options[f] or within(a, options[f]) for f, a in (("masquerade_cidrs", destination), ("source_cidrs", source)))


def live_rules(sandbox, backend, chain):
    """The chain as (source networks, destination networks, verdict) in order, None for everything, out of what the tools print."""
    if backend != "nftables":
        for tool in (backend, backend.replace("iptables", "ip6tables")):
            for line in re.findall("^-A %s (.*)" % chain, sandbox.out("%s-save" % tool), re.MULTILINE):
                found = dict(re.findall(r"-([sd]) (\S+)", line))
                everything = "0.0.0.0/0" if tool == backend else "::/0"
                yield [found.get("s", everything)], [found.get("d", everything)], re.search("-j (.*)", line).group(1)
        return
    objects = json.loads(sandbox.out(TABLE))["nftables"]
    sets = {}
    for item in objects:
        if "set" in item:
            sets["@" + item["set"]["name"]] = [network for one in item["set"].get("elem", []) for network in networks_of(one)]
    for item in objects:
        if "rule" not in item or item["rule"]["chain"] != chain:
            continue
        source = destination = None
        for one in item["rule"]["expr"]:
            if "match" in one and "payload" in one["match"]["left"]:
                payload = one["match"]["left"]["payload"]
                everything = ["0.0.0.0/0"] if payload["protocol"] == "ip" else ["::/0"]
                source = sets[one["match"]["right"]] if payload["field"] == "saddr" else source or everything
                destination = sets[one["match"]["right"]] if payload["field"] == "daddr" else destination or everything
            elif "match" in one:
                source = destination = ["0.0.0.0/0"] if one["match"]["right"] == "ipv4" else ["::/0"]
        yield source, destination, "RETURN" if "return" in one else "MASQUERADE" + (" --random-fully" if one["masquerade"] else "")


def networks_of(element):
    if isinstance(element, str):
        return [element]
    if "prefix" in element:
        return ["%(addr)s/%(len)d" % element["prefix"]]
    first, last = map(ipaddress.ip_address, element["range"])
    return [str(n) for n in ipaddress.summarize_address_range(first, last)]


def verdict(rules, source, destination):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    for sources, destinations, said in rules:
        if all(any(a in n for n in networks) for a, networks in ((source, sources), (destination, destinations))):
            return said
    return "none"


def test_round_trip_for_generated_options(sandbox, backend):
    tools = [] if backend == "nftables" else [backend, backend.replace("iptables", "ip6tables")]
    for tool in tools:
        nat = f"{tool} -t nat"
        sandbox.run(f"{nat} -N KUBE-POSTROUTING; {nat} -A POSTROUTING -o eth7 -j ACCEPT; {nat} -A POSTROUTING -j KUBE-POSTROUTING")

    def assert_jumps_stand(options):
        for tool in tools:
            targets = re.findall("^-A POSTROUTING .*-j (.*)", sandbox.out("%s -t nat -S POSTROUTING" % tool), re.MULTILINE)
            assert sorted(targets) == sorted(["ACCEPT", "KUBE-POSTROUTING", options["chain"]])
            assert options["jump_position"] != "first" or targets[0] == options["chain"]
            assert options["jump_position"] == "last" or targets.index(options["chain"]) < targets.index("KUBE-POSTROUTING")

    env = dict(os.environ, PYTHONPATH=os.path.join(ROOT, ".ansible", "collections"))
    process = subprocess.Popen(sandbox.inside([sys.executable, "-c", CONVERGES]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(some_options)
    def round_trip(options):
        if backend == "nftables" and options["jump_position"].startswith("before"):
            options["jump_position"] = "first"
        process.stdin.write(json.dumps(dict(options, backend=backend, **FIXED)) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == [[], [], False]
        rules = [
            ([ipaddress.ip_network(s) for s in sources], [ipaddress.ip_network(d) for d in destinations], said)
            for sources, destinations, said in live_rules(sandbox, backend, options["chain"])
        ]
        masquerades = "MASQUERADE --random-fully" if options["random_fully"] else "MASQUERADE"
        for source, destination in [*itertools.product(PROBES, PROBES), *itertools.product(PROBES6, PROBES6)]:
            assert (verdict(rules, source, destination) == masquerades) is asked(options, source, destination), (source, destination, rules)
        assert_jumps_stand(options)
        assert ({"X_1.y", "KIND-MASQ-AGENT"} - {options["chain"]}).pop() not in sandbox.out("iptables-save; ip6tables-save; nft list ruleset")

    try:
        round_trip()
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
