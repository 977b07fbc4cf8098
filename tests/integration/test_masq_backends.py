# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kindnet_masq can do through each of its backends, nftables first of all. The oracle is nft and iptables-save."""

from __future__ import annotations

import json
import os
import re

import pytest
from waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

V4, V6 = "10.244.0.0/16", "fd00:10:244::/56"

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


def masq(sandbox, check=False, **options):
    return sandbox.module("kindnet_masq", check=check, **options)


def table(sandbox, counters=False):
    text = sandbox.out("nft list table inet kindnet")
    return text if counters else re.sub(r"counter packets \d+ bytes \d+", "counter", text)


def ruleset(sandbox):
    return sandbox.out(["nft", "list", "ruleset"])


def everything(sandbox):
    # Nothing is recorded before the first run.
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
    "add counter inet kindnet c; insert rule inet kindnet KIND-MASQ-AGENT counter name c": "counter c is not wanted",
    "add quota inet kindnet q { over 1 mbytes; }; add limit inet kindnet l { rate 1/second; }": "limit l is not wanted",
    "flush table inet kindnet": "chain is empty",
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


def test_what_stays_in_a_set_is_never_gone(sandbox):
    """Told by the kernel itself. Before Linux 6.17 packets miss an element that goes and comes again in one transaction."""
    masq(sandbox, cluster_cidrs=[V4, V6], non_masquerade_cidrs=["192.0.2.0/24"], backend="nftables")
    sandbox.run("nft monitor >/run/events 2>&1 & echo $! >/run/monitor")
    heard = "nft add table inet heard; nft delete table inet heard; grep -q heard /run/events"
    until("nft monitor listens", lambda: sandbox.run(heard, check=False).returncode == 0)
    assert masq(sandbox, cluster_cidrs=[V4, V6], non_masquerade_cidrs=["198.51.100.0/24"], backend="nftables")["changed"]
    sandbox.run("nft add table inet end")
    until("the end is told", lambda: sandbox.run("grep -q 'table inet end' /run/events", check=False).returncode == 0)
    sandbox.run("kill $(cat /run/monitor)")
    assert [line.strip() for line in sandbox.out("cat /run/events").splitlines() if "element" in line] == [
        "delete element inet kindnet non_masquerade_ipv4 { 192.0.2.0/24 }",
        "add element inet kindnet non_masquerade_ipv4 { 198.51.100.0/24 }",
    ]


def test_a_neighbour_that_somebody_put_there_goes_alone(sandbox):
    masq(sandbox, cluster_cidrs=[V4], non_masquerade_cidrs=["192.0.2.0/24"], backend="nftables")
    sandbox.run("nft add element inet kindnet non_masquerade_ipv4 { 10.245.0.0/16 }")
    sandbox.run("cp /usr/sbin/nft /run/real-nft")
    sandbox.replace_tool("nft", 'case "$*" in *--file*) tee -a /run/told | /run/real-nft "$@";; *) exec /run/real-nft "$@";; esac')
    assert masq(sandbox, cluster_cidrs=[V4], non_masquerade_cidrs=["192.0.2.0/24"], backend="nftables")["changed"]
    assert "10.245" in sandbox.out("cat /run/told") and "10.244" not in sandbox.out("cat /run/told")
    sandbox.run("cp /run/real-nft /usr/sbin/nft")
    assert "10.245" not in table(sandbox) and "10.244.0.0/16" in table(sandbox)


def test_elements_that_somebody_takes_meanwhile_are_no_failure(sandbox):
    masq(sandbox, cluster_cidrs=[V4], non_masquerade_cidrs=["192.0.2.0/24"], backend="nftables")
    sandbox.run("cp /usr/sbin/nft /run/real-nft")
    taken = "/run/real-nft delete element inet kindnet non_masquerade_ipv4 { 192.0.2.0/24 } 2>/dev/null || :"
    sandbox.replace_tool("nft", 'case "$*" in *--file*) %s;; esac; exec /run/real-nft "$@"' % taken)
    result = masq(sandbox, cluster_cidrs=[V4], non_masquerade_cidrs=["198.51.100.0/24"], backend="nftables")
    assert result["changed"] and not result.get("failed"), result
    sandbox.run("cp /run/real-nft /usr/sbin/nft")
    assert "192.0.2.0" not in table(sandbox) and "198.51.100.0/24" in table(sandbox) and "10.244.0.0/16" in table(sandbox)


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


@pytest.mark.parametrize("before", [None, {}], ids=["no table", "a table"])
def test_what_nft_refuses_leaves_nothing_behind(sandbox, before):
    """Sets that are new come first, and go again."""
    if before is not None:
        masq(sandbox, cluster_cidrs=[V4], backend="nftables")
    ruleset = sandbox.out("nft -j list ruleset")
    sandbox.run("cp /usr/sbin/nft /run/real-nft")
    # a rule that it does not know, as on a kernel that lacks what a rule needs
    sandbox.replace_tool("nft", 'case "$*" in *--file*) sed s/masquerade\\":/masqueraid\\":/g | /run/real-nft "$@";; *) exec /run/real-nft "$@";; esac')
    result = masq(sandbox, cluster_cidrs=[V4], masquerade_cidrs=["192.0.2.0/24"], backend="nftables")
    assert result["failed"] and "the table is as it was" in result["msg"], result
    assert sandbox.out("/run/real-nft -j list ruleset") == ruleset
    sandbox.replace_tool("nft", 'exec /run/real-nft "$@"')
    result = masq(sandbox, cluster_cidrs=[V4], masquerade_cidrs=["192.0.2.0/24"], backend="nftables")
    assert result["changed"] and not result.get("failed"), result
