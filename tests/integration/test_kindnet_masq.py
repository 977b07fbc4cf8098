# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_masq as root in namespaces, with both flavours of iptables. The oracle is iptables-save, nft and packets."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import signal
import subprocess
import time

import pytest
from nat_sandbox import Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

FLAVOURS = ("nft", "legacy")
V4, V4B, V6, V6B = "10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/56", "fd00:10:96::/112"
CIDRS = (V4, V6, V4B, V6B)
SAVES = ("iptables", "ip6tables")
CIDRS_OF = {"iptables": [V4, V4B], "ip6tables": [V6, V6B]}

# The letter of kindnetd, in the form of iptables-save.
JUMP = (
    '-A POSTROUTING -m addrtype ! --dst-type LOCAL -m comment --comment "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL '
    'destination traffic to our custom KIND-MASQ-AGENT chain" -j KIND-MASQ-AGENT'
)
RETURN = '-A KIND-MASQ-AGENT -d %s -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
MASQUERADE = (
    '-A KIND-MASQ-AGENT -m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE'
)

# What others have, with counters. Among it whatever could be taken for ours.
FOREIGN = """*filter
:INPUT ACCEPT [7:700]
:FORWARD DROP [1:100]
:OUTPUT ACCEPT [3:300]
:KIND-MASQ-AGENT - [0:0]
[5:500] -A INPUT -i eth7 -j ACCEPT
[0:0] -A FORWARD -j KIND-MASQ-AGENT
[2:200] -A KIND-MASQ-AGENT -i eth8 -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KIND-MASQ-AGENT2 - [0:0]
:CNI-abc - [0:0]
[9:900] -A PREROUTING -i eth7 -j CNI-abc
[4:400] -A POSTROUTING -o eth7 -m comment --comment "-j KIND-MASQ-AGENT" -j ACCEPT
[6:600] -A POSTROUTING -o eth8 -j KIND-MASQ-AGENT2
[8:800] -A POSTROUTING -o eth9 -m comment --comment KIND-MASQ-AGENT -j MASQUERADE
[3:300] -A KIND-MASQ-AGENT2 -o eth6 -j MASQUERADE
[1:100] -A CNI-abc -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""


@functools.cache
def legacy_lacks():
    """Why this kernel cannot do iptables-legacy; empty when it can."""
    sandbox = Sandbox()
    try:
        return "".join(sandbox.run(["%s-legacy" % tool, "-t", "nat", "-S"], check=False).stderr for tool in SAVES)
    finally:
        sandbox.close()


@pytest.fixture
def legacy():
    """Asked for by a test that needs the legacy flavour besides the one it names."""
    if legacy_lacks():
        pytest.skip("this kernel has no legacy iptables: " + legacy_lacks())


@pytest.fixture
def sandbox(request):
    if "legacy" in getattr(getattr(request.node, "callspec", None), "params", {}).values():
        request.getfixturevalue("legacy")
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def masq(sandbox, check=False, **options):
    return sandbox.module("kindnet_masq", check=check, **options)


def save(sandbox, flavour, tool, counters=True):
    """The whole of iptables-save, less what tells nothing about rules: comments, and the counters of policies (a test's own packets)."""
    text = sandbox.out(["%s-%s-save" % (tool, flavour)] + (["-c"] if counters else []))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [re.sub(r" \[\d+:\d+\]$", "", line) if line.startswith(":") else line for line in lines]


def nat(sandbox, flavour, tool, counters=False):
    lines = save(sandbox, flavour, tool, counters)
    return lines[lines.index("*nat"):lines.index("COMMIT", lines.index("*nat"))] if "*nat" in lines else []


def ours(sandbox, flavour, tool):
    return [line for line in nat(sandbox, flavour, tool) if re.search(r"(^:|-A |-j |-g )KIND-MASQ-AGENT( |$)", line)]


def counted(sandbox, flavour, tool):
    return [line for line in nat(sandbox, flavour, tool, counters=True) if "-A KIND-MASQ-AGENT " in line]


def identity(sandbox, flavour, tool):
    """The rules of our chain, each with what it loses when it is made anew: its counters, and in nf_tables its handle."""
    if flavour == "legacy":
        return counted(sandbox, flavour, tool)
    family = "ip" if tool == "iptables" else "ip6"
    listed = json.loads(sandbox.out(["nft", "-j", "list", "chain", family, "nat", "KIND-MASQ-AGENT"]))["nftables"]
    return [entry["rule"] for entry in listed if "rule" in entry]


def others(sandbox, flavour):
    """Everything but our chain and its jumps, in order, with counters."""
    mine = re.compile(r"^(:KIND-MASQ-AGENT |\[\d+:\d+\] -A KIND-MASQ-AGENT |\[\d+:\d+\] -A POSTROUTING .*-[jg] KIND-MASQ-AGENT$)")
    result = []
    for tool in SAVES:
        lines = save(sandbox, flavour, tool)
        table = ""
        for line in lines:
            table = line if line.startswith("*") else table
            if not (table == "*nat" and mine.match(line)):
                result.append(line)
    return result


def wanted(tool, cidrs=CIDRS):
    family = [cidr for cidr in cidrs if (":" in cidr) == (tool == "ip6tables")]
    return [":KIND-MASQ-AGENT -", JUMP] + [RETURN % cidr for cidr in family] + [MASQUERADE]


def assert_right(sandbox, flavour, cidrs=CIDRS):
    for tool in SAVES:
        assert ours(sandbox, flavour, tool) == wanted(tool, cidrs)


def everything(sandbox):
    """All that a run could have changed: both flavours, and the recorded state."""
    loaded = sandbox.out("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names")
    legacy = [save(sandbox, "legacy", tool) for tool in SAVES] if loaded else []
    return sandbox.out(["nft", "-j", "list", "ruleset"]), loaded, legacy, sandbox.out("cat /etc/kindnet/* 2>/dev/null || true")


def load_foreign(sandbox, flavour):
    for tool in SAVES:
        sandbox.run(["%s-%s-restore" % (tool, flavour), "-c"], stdin=FOREIGN)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("foreign", [False, True])
def test_check_real_repeat_repeat_check_undo(sandbox, flavour, foreign):
    if foreign:
        load_foreign(sandbox, flavour)
    before, rules_of_others = everything(sandbox), others(sandbox, flavour) if foreign else None
    options = {"cluster_cidrs": CIDRS, "backend": "iptables-" + flavour}

    predicted = masq(sandbox, check=True, **options)
    assert predicted["changed"], predicted
    assert everything(sandbox) == before

    real = masq(sandbox, **options)
    assert {key: real[key] for key in ("changed", "changes", "diff", "families")} == {
        key: predicted[key] for key in ("changed", "changes", "diff", "families")
    }
    assert real["backend"] == "iptables-" + flavour
    assert_right(sandbox, flavour)
    after = everything(sandbox)
    assert json.loads(after[3])["sections"]["masq"] == {
        "cluster_cidrs": list(CIDRS), "chain": "KIND-MASQ-AGENT", "backend": "iptables-" + flavour, "lock_wait": 5,
    }  # fmt: skip

    for check in (False, True):
        again = masq(sandbox, check=check, **options)
        assert again["changed"] is False and again["changes"] == [] and again["diff"] == {"before": "", "after": ""}, again
        assert again["families"]["ipv4"]["chain"] == again["families"]["ipv6"]["jump"] == "right"
        assert everything(sandbox) == after
    if foreign:
        assert others(sandbox, flavour) == rules_of_others

    undo = masq(sandbox, check=True, state="absent")
    assert undo["changed"] and everything(sandbox) == after
    assert masq(sandbox, state="absent")["changes"] == undo["changes"]
    assert masq(sandbox, state="absent")["changed"] is False
    for tool in SAVES:
        assert ours(sandbox, flavour, tool) == []
    assert everything(sandbox)[3] == ""
    if foreign:
        assert others(sandbox, flavour) == rules_of_others


def test_check_mode_makes_nothing_in_a_virgin_namespace(legacy, sandbox):
    virgin = everything(sandbox)
    assert virgin[1] == ""
    for options in ({"cluster_cidrs": CIDRS}, {"cluster_cidrs": CIDRS, "backend": "iptables-legacy"}, {"state": "absent"}):
        result = masq(sandbox, check=True, **options)
        assert "failed" not in result
        assert sandbox.out(["nft", "-j", "list", "ruleset"]) == virgin[0]
        assert sandbox.out("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names") == ""
    assert masq(sandbox, state="absent")["changed"] is False
    assert everything(sandbox) == virgin


# What is done to a right chain, as arguments of iptables -t nat, and what the operator must read about it. {C} is the first CIDR of
# the family, {D} the second one. Rules of our own text are taken from iptables-save.
FIRST, LAST, OUR_JUMP = "<first>", "<last>", "<jump>"
DAMAGE = {
    "RETURN deleted": (["-D KIND-MASQ-AGENT 1"], "chain", "RETURN for {C} missing"),
    "RETURN deleted, and appended as kindnetd does": (
        ["-D KIND-MASQ-AGENT 1", "-A KIND-MASQ-AGENT " + FIRST], "chain", "RETURN for {C} is dead behind MASQUERADE"),
    "every RETURN deleted": (["-D KIND-MASQ-AGENT 1", "-D KIND-MASQ-AGENT 1"], "chain", "RETURN for {C} missing, RETURN for {D} missing"),
    "MASQUERADE deleted": (["-D KIND-MASQ-AGENT 3"], "chain", "MASQUERADE missing"),
    "MASQUERADE doubled": (["-A KIND-MASQ-AGENT " + LAST], "chain", "MASQUERADE doubled"),
    "RETURN doubled": (["-I KIND-MASQ-AGENT 2 " + FIRST], "chain", "RETURN for {C} doubled"),
    "out of order": (["-D KIND-MASQ-AGENT 1", "-I KIND-MASQ-AGENT 2 " + FIRST], "chain", "rules out of order"),
    "MASQUERADE first": (
        ["-D KIND-MASQ-AGENT 3", "-I KIND-MASQ-AGENT 1 " + LAST],
        "chain", "RETURN for {C} is dead behind MASQUERADE, RETURN for {D} is dead behind MASQUERADE"),
    "a rule inserted": (["-I KIND-MASQ-AGENT -p tcp -j ACCEPT"], "chain", "rule '-p tcp -j ACCEPT' is not wanted"),
    "a rule appended": (
        ["-A KIND-MASQ-AGENT -p udp -j ACCEPT"], "chain", "rule '-p udp -j ACCEPT' is not wanted, and dead behind MASQUERADE"),
    "a rule with quotes": (
        ["""-I KIND-MASQ-AGENT -p tcp -m comment --comment 'it"s $(a)\\' -j ACCEPT"""],
        "chain", "is not wanted"),
    "the chain emptied": (["-F KIND-MASQ-AGENT"], "chain", "chain is empty"),
    "MASQUERADE altered": (["-R KIND-MASQ-AGENT 3 -j MASQUERADE --random"], "chain", "MASQUERADE missing"),
    "jump deleted": (["-D POSTROUTING " + OUR_JUMP], "jump", "jump missing"),
    "jump doubled": (["-A POSTROUTING " + OUR_JUMP], "jump", "jump doubled, as rules 4, 5"),
    "jump tripled, first and last": (
        ["-A POSTROUTING " + OUR_JUMP, "-I POSTROUTING " + OUR_JUMP], "jump", "jump there 3 times, as rules 1, 5, 6"),
    "jump without its condition": (
        ["-R POSTROUTING 4 -j KIND-MASQ-AGENT"], "jump", "rule '-j KIND-MASQ-AGENT' is not the wanted jump"),
    "goto beside the jump": (
        ["-I POSTROUTING 2 -o eth5 -g KIND-MASQ-AGENT"],
        "jump", "jump doubled, as rules 2, 5, rule '-o eth5 -g KIND-MASQ-AGENT' is not the wanted jump"),
    "goto with quotes": (
        ["""-I POSTROUTING 1 -m comment --comment 'say "-A POSTROUTING -j X\\"' -g KIND-MASQ-AGENT"""], "jump", "jump doubled"),
    "chain and jump deleted": (
        ["-D POSTROUTING " + OUR_JUMP, "-F KIND-MASQ-AGENT", "-X KIND-MASQ-AGENT"], "chain", "chain missing"),
    "both damaged": (["-D KIND-MASQ-AGENT 3", "-A POSTROUTING " + OUR_JUMP], "chain", "MASQUERADE missing"),
}  # fmt: skip


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_every_damage_is_right_after_one_run(sandbox, flavour, damage):
    commands, concerned, reason = DAMAGE[damage]
    load_foreign(sandbox, flavour)
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
    foreign, kept = others(sandbox, flavour), {}
    for tool in SAVES:
        right = wanted(tool)
        texts = {OUR_JUMP: right[1], FIRST: right[2], LAST: right[-1]}
        for command in commands:
            for mark, line in texts.items():
                command = command.replace(mark, line.split(" ", 2)[2])
            sandbox.run("%s-%s -w 5 -t nat %s" % (tool, flavour, command.replace("$", "\\$") if "'" not in command else command))
        assert ours(sandbox, flavour, tool) != right
        if concerned == "jump":  # a right chain keeps its counters
            # ip6tables-nft 1.8.9 takes no counters; there the handles tell that no rule was made anew.
            if (flavour, tool) != ("nft", "ip6tables"):
                for number, line in enumerate(right[2:], 1):
                    replacing = line.replace("-A KIND-MASQ-AGENT", "-R KIND-MASQ-AGENT %d -c 7 70" % number)
                    sandbox.run("%s-%s -w 5 -t nat %s" % (tool, flavour, replacing))
                assert counted(sandbox, flavour, tool) == ["[7:70] " + line for line in right[2:]]
            kept[tool] = identity(sandbox, flavour, tool)
    assert others(sandbox, flavour) == foreign

    predicted = masq(sandbox, check=True, cluster_cidrs=CIDRS)
    result = masq(sandbox, cluster_cidrs=CIDRS)
    assert result["changed"] and result["changes"] == predicted["changes"] and result["diff"] == predicted["diff"], result
    for family, tool in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
        c, d = CIDRS_OF[tool]
        assert reason.format(C=c, D=d) in result["families"][family][concerned]
    assert_right(sandbox, flavour)
    assert others(sandbox, flavour) == foreign
    if concerned == "jump":
        for tool in SAVES:
            assert identity(sandbox, flavour, tool) == kept[tool]
    after = everything(sandbox)
    assert masq(sandbox, cluster_cidrs=CIDRS)["changed"] is False
    assert everything(sandbox) == after


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_jump_that_others_appended_behind_stays_and_a_doubled_one_returns_to_its_place(sandbox, flavour):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + flavour)
    tool = "iptables-%s -w 5 -t nat " % flavour
    sandbox.run(tool + "-A POSTROUTING -o eth7 -j ACCEPT; " + tool + "-I POSTROUTING -o eth8 -j ACCEPT")
    before = everything(sandbox)
    assert masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + flavour)["changed"] is False
    assert everything(sandbox) == before
    sandbox.run(tool + "-A POSTROUTING " + JUMP.split(" ", 2)[2])
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + flavour)
    lines = [line for line in nat(sandbox, flavour, "iptables") if "-A POSTROUTING" in line]
    assert lines == ["-A POSTROUTING -o eth8 -j ACCEPT", JUMP, "-A POSTROUTING -o eth7 -j ACCEPT"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_kindnetds_own_commands_make_what_is_right(sandbox, flavour):
    """A chain made rule by rule, as kindnetd does, is adopted untouched."""
    for tool in SAVES:
        sandbox.run("%s-%s -w 5 -t nat -N KIND-MASQ-AGENT" % (tool, flavour))
        for line in wanted(tool)[1:]:
            sandbox.run("%s-%s -w 5 -t nat %s" % (tool, flavour, line))
    before = everything(sandbox)[:3]
    result = masq(sandbox, cluster_cidrs=CIDRS)
    assert result["backend"] == "iptables-" + flavour
    assert [change["subject"] for change in result["changes"]] == ["/etc/kindnet/desired.json"]
    assert everything(sandbox)[:3] == before


DOCKER = ["-N DOCKER", "-A DOCKER -i docker0 -p tcp -j RETURN", "-A OUTPUT -j DOCKER"]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    "there",
    [DOCKER, DOCKER[:2], ["-N DOCKER", "-A OUTPUT -j DOCKER"], ["-N DOCKER", "-A POSTROUTING -o eth9 -j DOCKER"]],
    ids=["in use", "not in use", "empty, in use", "empty, in use by POSTROUTING"],
)
def test_a_chain_of_somebody_elses_is_neither_taken_nor_removed(sandbox, flavour, there):
    for tool in SAVES:
        for line in there:
            sandbox.run("%s-%s -w 5 -t nat %s" % (tool, flavour, line))
    before = everything(sandbox)
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=CIDRS, chain="DOCKER")
        assert result["failed"] and "chain: 'DOCKER': is a chain of somebody else's: iptables-%s -t nat -A " % flavour in result["msg"], result
        assert everything(sandbox) == before
        result = masq(sandbox, check=check, state="absent", chain="DOCKER")
        assert not result.get("failed") and not result["changed"], result
        assert everything(sandbox) == before


def test_a_chain_that_became_somebody_elses_after_ours_went_from_there_stays(sandbox):
    masq(sandbox, cluster_cidrs=CIDRS, chain="BEFORE", backend="iptables-nft")
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-nft")
    for line in DOCKER:
        sandbox.run("iptables-nft -w 5 -t nat " + line.replace("DOCKER", "BEFORE"))
    before = everything(sandbox)
    result = masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-nft")
    assert result["changed"] is False and result["notes"] == ["iptables-nft chain nat/BEFORE is somebody else's by now, and stays"]
    assert everything(sandbox) == before
    masq(sandbox, state="absent")
    assert [line for line in nat(sandbox, "nft", "iptables") if "BEFORE" in line] == [":BEFORE -"] + [
        line.replace("DOCKER", "BEFORE") for line in reversed(DOCKER[1:])
    ]


def test_a_chain_that_nobody_recorded_moves_to_the_flavour_that_is_asked_for(legacy, sandbox):
    for tool in SAVES:
        sandbox.run("%s-nft -t nat -N KIND-MASQ-AGENT; %s-nft -t nat %s" % (tool, tool, JUMP))
    assert masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-legacy")["changed"]
    assert_right(sandbox, "legacy")
    assert [ours(sandbox, "nft", tool) for tool in SAVES] == [[], []]
    assert masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-legacy")["changed"] is False


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_packets(sandbox, flavour):
    """A pod is seen outside with its node's address and inside with its own, and the counters of that survive a run."""
    pod, outside = Sandbox(), Sandbox()
    try:
        for peer, name in ((pod, "pod"), (outside, "out")):
            sandbox.run("ip link add %s type veth peer name eth0 netns %d" % (name, peer.process.pid))
        sandbox.run(
            "ip addr add 10.244.0.1/24 dev pod; ip addr add 192.0.2.1/24 dev out; ip link set pod up; ip link set out up;"
            "ip addr add 10.244.9.1/24 dev out; echo 1 >/proc/sys/net/ipv4/ip_forward"
        )
        pod.run("ip addr add 10.244.0.5/24 dev eth0; ip link set eth0 up; ip route add default via 10.244.0.1")
        outside.run("ip addr add 192.0.2.2/24 dev eth0; ip addr add 10.244.9.2/24 dev eth0; ip link set eth0 up; ip route add 10.244.0.0/24 via 10.244.9.1")
        masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + flavour)
        # Who the other side hears is told by what it lets in.
        outside.run("iptables-nft -A INPUT -p icmp -s 192.0.2.1 -d 192.0.2.2; iptables-nft -A INPUT -p icmp -s 10.244.0.5 -d 10.244.9.2")
        pod.run("ping -c 1 -W 5 192.0.2.2; ping -c 1 -W 5 10.244.9.2")
        heard = [int(n) for n in re.findall(r"^\[(\d+):\d+\] -A INPUT", outside.out(["iptables-nft-save", "-c"]), re.MULTILINE)]
        assert heard == [1, 1]
        counters = [line for line in nat(sandbox, flavour, "iptables", counters=True) if "KIND-MASQ-AGENT" in line]
        assert [int(line[1:].split(":")[0]) for line in counters[1:]] == [2, 1, 1]
        for check in (True, False):
            assert masq(sandbox, check=check, cluster_cidrs=[V4], backend="iptables-" + flavour)["changed"] in (False,)
            assert [line for line in nat(sandbox, flavour, "iptables", counters=True) if "KIND-MASQ-AGENT" in line] == counters
    finally:
        pod.close()
        outside.close()


@pytest.mark.parametrize(
    ("nft_rules", "legacy_rules", "plain", "expected"),
    [
        (0, 0, "nft", "nft"),
        (0, 0, "legacy", "legacy"),
        (1, 3, "nft", "legacy"),
        (3, 1, "legacy", "nft"),
        (2, 2, "legacy", "legacy"),
    ],
)
def test_auto_is_the_flavour_of_the_other_rules(legacy, sandbox, nft_rules, legacy_rules, plain, expected):
    sandbox.run("ln -sf /usr/sbin/iptables-%s /etc/alternatives/iptables" % plain)
    for flavour, count in (("nft", nft_rules), ("legacy", legacy_rules)):
        for number in range(count):
            sandbox.run("iptables-%s -A FORWARD -s 10.9.9.%d -j ACCEPT" % (flavour, number))
    before = everything(sandbox)
    assert masq(sandbox, check=True, cluster_cidrs=CIDRS)["backend"] == "iptables-" + expected
    assert everything(sandbox) == before
    assert masq(sandbox, cluster_cidrs=CIDRS)["backend"] == "iptables-" + expected
    # Decided once: rules that others add later do not move the chain, a note says so.
    other = "legacy" if expected == "nft" else "nft"
    for number in range(9):
        sandbox.run("iptables-%s -w 5 -A FORWARD -s 10.9.8.%d -j ACCEPT" % (other, number))
    again = masq(sandbox, cluster_cidrs=CIDRS)
    assert again["changed"] is False
    assert "iptables-%s it stays" % expected in again["notes"][0] and "auto would choose iptables-%s" % other in again["notes"][0], again
    assert len([n for n in again["notes"] if "shadowed" not in n]) == 1 + bool(nft_rules if expected == "nft" else legacy_rules)  # the second names the split
    assert_right(sandbox, expected)


@pytest.mark.parametrize("first", FLAVOURS)
def test_another_flavour_or_name_moves_the_chain(legacy, sandbox, first):
    second = "legacy" if first == "nft" else "nft"
    load_foreign(sandbox, first)
    foreign = others(sandbox, first)
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + first)
    predicted = masq(sandbox, check=True, cluster_cidrs=CIDRS, backend="iptables-" + second)
    result = masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + second)
    assert result["changes"] == predicted["changes"]
    assert_right(sandbox, second)
    assert [ours(sandbox, first, tool) for tool in SAVES] == [[], []]
    assert others(sandbox, first) == foreign
    assert masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + second)["changed"] is False

    masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + second, chain="POD:MASQ.1+_-")
    assert [ours(sandbox, second, tool) for tool in SAVES] == [[], []]
    text = "\n".join(nat(sandbox, second, "iptables"))
    assert text.count("POD:MASQ.1+_-") == 1 + 2 + 2 and "to our custom POD:MASQ.1+_- chain" in text
    assert "POD:MASQ" not in "\n".join(nat(sandbox, second, "ip6tables"))
    assert masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + second, chain="POD:MASQ.1+_-")["changed"] is False
    masq(sandbox, state="absent")
    assert "POD:MASQ" not in "\n".join(nat(sandbox, second, "iptables"))
    assert others(sandbox, first) == foreign


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_cluster_cidrs_that_change(sandbox, flavour):
    masq(sandbox, cluster_cidrs=[V4, V6], backend="iptables-" + flavour)
    masq(sandbox, cluster_cidrs=[V4B, V4, V6])
    assert_right(sandbox, flavour, [V4B, V4, V6])
    result = masq(sandbox, cluster_cidrs=[V4B])
    assert "RETURN for 10.244.0.0/16 is not wanted" in result["families"]["ipv4"]["chain"]
    assert ours(sandbox, flavour, "iptables") == wanted("iptables", [V4B])
    assert ours(sandbox, flavour, "ip6tables") == []
    hosts = ["10.0.0.1/32", "::1/128", "::ffff:10.0.0.0/104", "fd00::/8", "128.0.0.0/1"]
    masq(sandbox, cluster_cidrs=hosts)
    assert_right(sandbox, flavour, hosts)
    assert masq(sandbox, cluster_cidrs=hosts)["changed"] is False


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", ["+a", ":a", ".a", "a" * 28, "_", "0", "postrouting"])
def test_every_name_that_is_allowed_works(sandbox, flavour, name):
    options = {"cluster_cidrs": [V4], "backend": "iptables-" + flavour, "chain": name}
    assert masq(sandbox, **options)["changed"]
    assert masq(sandbox, **options)["changed"] is False
    assert "-A %s -d 10.244.0.0/16" % name in "\n".join(nat(sandbox, flavour, "iptables"))
    assert masq(sandbox, state="absent", chain=name)["changed"]
    assert name + " " not in "\n".join(line for line in nat(sandbox, flavour, "iptables") if "-A" in line)


@pytest.mark.parametrize(
    "options",
    [
        {"chain": "X\nCOMMIT\n*filter\n-A INPUT -j DROP"},
        {"chain": "X -j ACCEPT"},
        {"chain": "x" * 29},
        {"chain": "MASQUERADE"},
        {"chain": "-F"},
        {"chain": ""},
        {"cluster_cidrs": ["10.244.0.1/16"]},
        {"cluster_cidrs": ["0.0.0.0/0"]},
        {"cluster_cidrs": [V4, V4]},
        {"cluster_cidrs": [V4 + "\n-A POSTROUTING -j ACCEPT"]},
        {"cluster_cidrs": []},
        {"lock_wait": 0},
        {"cluster_name": "another"},
    ],
)
def test_bad_input_is_one_clear_error_and_changes_nothing(sandbox, options):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-nft")
    before = everything(sandbox)
    result = masq(sandbox, **dict({"cluster_cidrs": [V4B]}, **options))
    assert result["failed"] and result["field"] in options and result["remedy"], result
    assert everything(sandbox) == before


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_absent_leaves_a_chain_that_others_use_and_names_them(sandbox, flavour):
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
    sandbox.run(f"iptables-{flavour} -w 5 -t nat -N MINE; iptables-{flavour} -w 5 -t nat -A MINE -o eth7 -j KIND-MASQ-AGENT")
    before = everything(sandbox)
    chains = [sandbox.out(f"{tool}-{flavour} -w 5 -t nat -S") for tool in ("iptables", "ip6tables")]
    recorded = sandbox.out("cat /etc/kindnet/desired.json")
    predicted = masq(sandbox, check=True, state="absent")
    assert everything(sandbox) == before
    result = masq(sandbox, state="absent")
    for said in (predicted, result):
        assert said["failed"] and "-A MINE -o eth7 -j KIND-MASQ-AGENT" in said["msg"], said
    # The other family's is not in use, and the next run still knows that the chain is ours.
    assert result["changes"] == predicted["changes"] != []
    assert sandbox.out(f"iptables-{flavour} -w 5 -t nat -S") == chains[0]
    assert "KIND-MASQ-AGENT" in chains[1] and "KIND-MASQ-AGENT" not in sandbox.out(f"ip6tables-{flavour} -w 5 -t nat -S")
    assert sandbox.out("cat /etc/kindnet/desired.json") == recorded
    sandbox.run("iptables-%s -w 5 -t nat -F MINE" % flavour)
    assert masq(sandbox, state="absent")["changed"]
    assert "KIND-MASQ-AGENT" not in sandbox.out(f"iptables-{flavour} -w 5 -t nat -S")
    assert sandbox.run("test -e /etc/kindnet/desired.json", check=False).returncode != 0


def test_absent_that_fails_half_way_is_still_known_to_the_next_run(sandbox):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-nft")
    recorded = sandbox.out("cat /etc/kindnet/desired.json")
    sandbox.replace_tool("iptables-nft-restore", "echo no >&2; exit 1")
    result = masq(sandbox, state="absent")
    assert result["failed"] and sandbox.out("cat /etc/kindnet/desired.json") == recorded, result


def test_a_lock_held_by_another_program_is_named_after_a_bounded_wait(legacy, sandbox):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-legacy")
    sandbox.run("iptables-legacy -w 5 -t nat -F KIND-MASQ-AGENT")
    before = everything(sandbox)
    holder = subprocess.Popen(
        sandbox.inside(["flock", "/run/xtables.lock", "sh", "-c", "echo $$; exec sleep 60"]), stdout=subprocess.PIPE, text=True
    )
    sleeper = int(holder.stdout.readline())
    try:
        result = masq(sandbox, cluster_cidrs=[V4], lock_wait=1)
    finally:
        os.kill(sleeper, signal.SIGKILL)  # flock ends with the program it runs
        holder.wait()
        holder.stdout.close()
    assert result["failed"] and result["field"] == "/run/xtables.lock" and "names the holder" in result["remedy"], result
    assert everything(sandbox) == before
    assert masq(sandbox, cluster_cidrs=[V4], lock_wait=1)["changed"]


def test_the_wait_for_the_lock_is_bounded_while_changing_too(legacy, sandbox):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-legacy")
    sandbox.run("iptables-legacy -w 5 -t nat -F KIND-MASQ-AGENT")
    before = everything(sandbox)
    sandbox.replace_tool("iptables-legacy-restore", 'exec flock /run/xtables.lock $REAL "$@"')
    result = masq(sandbox, cluster_cidrs=[V4], lock_wait=1)
    assert result["failed"] and "holds the lock of iptables" in result["msg"] and "waited 1 s" in result["msg"], result
    assert everything(sandbox)[:3] == before[:3]


def test_a_program_that_hangs_cannot_hang_a_run(sandbox):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-nft")
    sandbox.replace_tool("iptables-nft", "echo $$ >/run/hung; exec sleep 600")
    code = (
        "from ansible_collections.kindnet.host.plugins.module_utils import _firewall\n"
        "_firewall.SPARE_TIME = 0\n"
        "try: _firewall.BACKENDS['nft'].read('ipv4', 'KIND-MASQ-AGENT', 1)\n"
        "except Exception as e: print(e)"
    )
    assert "did not end within 1 s and was killed" in sandbox.python(code)
    assert sandbox.run("kill -0 $(cat /run/hung)", check=False).returncode != 0


def test_a_table_made_by_nft_itself_is_named_and_left(sandbox):
    sandbox.run(
        "nft add table ip nat; nft 'add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }';"
        "nft add rule ip nat POSTROUTING meta mark set jhash ip saddr mod 2"
    )
    before = everything(sandbox)
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=[V4], backend="iptables-nft")
        assert result["failed"] and "made by nft itself" in result["msg"], result
        assert everything(sandbox) == before
    # One family costs one family.
    result = masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-nft")
    assert result["failed"] and [p["subject"] for p in result["problems"]] == ["iptables-nft nat"]
    assert ours(sandbox, "nft", "ip6tables") == wanted("ip6tables")


def test_without_privileges_the_error_says_so(sandbox):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-nft")
    before = everything(sandbox)
    argv = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    module = sandbox.module_argv("kindnet_masq")
    at = module.index("--") + 1
    done = subprocess.run(
        module[:at] + argv + module[at:],
        input=sandbox.module_stdin(False, {"cluster_cidrs": [V4B], "backend": "iptables-nft"}),
        env=sandbox.module_env(),
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["failed"] and "CAP_NET_ADMIN" in result["remedy"], result
    assert everything(sandbox) == before


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_missing_tools_are_an_error_unless_predicted(sandbox, flavour):
    sandbox.run("rm /usr/sbin/ip6tables* /usr/sbin/iptables*")
    virgin = sandbox.out(["nft", "-j", "list", "ruleset"])
    for check in (True, False):
        result = masq(sandbox, check=check, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
        assert result["failed"] and "package iptables" in result["remedy"], result
    predicted = masq(sandbox, check=True, cluster_cidrs=CIDRS, tools_predicted=True)
    assert predicted["backend"] == "iptables-nft" and len(predicted["changes"]) == 5, predicted
    assert sandbox.out(["nft", "-j", "list", "ruleset"]) == virgin
    sandbox.run("nft add table ip nat; nft add table ip6 nat")  # others, without iptables
    assert masq(sandbox, check=True, cluster_cidrs=CIDRS, tools_predicted=True)["changes"] == predicted["changes"]
    assert masq(sandbox, check=True, state="absent")["changed"] is False


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_clean_run_starts_two_programs_a_family_and_no_save(sandbox, flavour):
    load_foreign(sandbox, flavour)
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
    names = ["%s-%s%s" % (tool, one, suffix) for tool in SAVES for one in FLAVOURS for suffix in ("", "-save", "-restore")]
    for name in names:
        sandbox.replace_tool(name, 'echo "%s $*" >>/run/calls; exec $REAL "$@"' % name)
    section = json.loads(sandbox.out(["cat", "/etc/kindnet/desired.json"]))["sections"]["masq"]
    code = (
        "import json, sys; from ansible_collections.kindnet.host.plugins.module_utils import _masq;"
        "before = set(sys.modules); section = json.loads(sys.argv[1]); plan = _masq.plan(section, _masq.read(section, None));"
        "print(len(plan.changes), sorted({'subprocess', 'ipaddress', 'typing', 'dataclasses'} & (set(sys.modules) - before)))"
    )
    assert sandbox.python(code, json.dumps(section)).strip() == "0 []"
    assert sandbox.out(["cat", "/run/calls"]).splitlines() == [
        "%s-%s -w 5 -t nat -S %s" % (tool, flavour, chain) for tool in SAVES for chain in ("KIND-MASQ-AGENT", "POSTROUTING")
    ]


def test_the_clean_path_imports_nothing_dear(sandbox):
    sandbox.run("mkdir /run/lib; cp -r %s /run/lib/kindnet_host" % shlex.quote(os.path.join(os.path.dirname(__file__), "../../plugins/module_utils")))
    sandbox.run("touch /run/lib/kindnet_host/__init__.py")
    masq(sandbox, cluster_cidrs=CIDRS)
    section = json.loads(sandbox.out(["cat", "/etc/kindnet/desired.json"]))["sections"]["masq"]
    code = (
        "import json, sys; sys.path.insert(0, '/run/lib'); from kindnet_host import _masq; section = json.loads(sys.argv[1]);"
        "assert not _masq.plan(section, _masq.read(section, None)).changes;"
        "print(sorted({'subprocess', 'ipaddress', 'typing', 'dataclasses', 'logging', 'argparse', 'pyroute2'} & set(sys.modules)))"
    )
    assert sandbox.out(["/usr/bin/python3", "-I", "-S", "-B", "-c", code, json.dumps(section)]).strip() == "[]"


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    ("tool", "stdin_lines"),
    [("iptables-%s-restore", 2), ("iptables-%s-restore", 4)],
)
def test_a_restore_cut_off_changes_nothing_and_the_next_run_repairs(sandbox, flavour, tool, stdin_lines):
    load_foreign(sandbox, flavour)
    masq(sandbox, cluster_cidrs=[V4, V4B], backend="iptables-" + flavour)
    sandbox.run("iptables-%s -w 5 -t nat -D KIND-MASQ-AGENT 1" % flavour)
    damaged = everything(sandbox)
    sandbox.replace_tool(tool % flavour, 'head -n %d | $REAL "$@"' % stdin_lines)
    result = masq(sandbox, cluster_cidrs=[V4, V4B], backend="iptables-" + flavour)
    if flavour == "legacy":  # which minds that COMMIT is missing; the other one just ends
        assert result["failed"], result
    assert everything(sandbox) == damaged
    sandbox.replace_tool(tool % flavour, 'exec $REAL "$@"')
    assert masq(sandbox, cluster_cidrs=[V4, V4B], backend="iptables-" + flavour)["changed"]
    assert ours(sandbox, flavour, "iptables") == wanted("iptables", [V4, V4B])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_transaction_that_the_kernel_refuses_leaves_everything_and_names_the_line(sandbox, flavour):
    load_foreign(sandbox, flavour)
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
    sandbox.run("iptables-%s -w 5 -t nat -F KIND-MASQ-AGENT" % flavour)
    before = everything(sandbox)
    sandbox.replace_tool("iptables-%s-restore" % flavour, """sed 's/^COMMIT/-A POSTROUTING -j NOWHERE\\nCOMMIT/' | $REAL "$@" """)
    result = masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
    assert result["failed"] and "the table is as it was" in result["msg"], result
    assert everything(sandbox) == before


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_killed_at_any_moment_the_tables_are_old_or_new_and_the_next_run_is_exact(sandbox, flavour):
    load_foreign(sandbox, flavour)
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
    foreign = others(sandbox, flavour)
    old = {tool: [":KIND-MASQ-AGENT -", JUMP, MASQUERADE, RETURN % "10.1.0.0/16" if tool == "iptables" else RETURN % "fd01::/64", JUMP] for tool in SAVES}

    def as_ours(lines):
        return sorted(lines)

    seen = set()
    started = time.monotonic()
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
    whole = time.monotonic() - started
    for step in range(16):
        for tool in SAVES:
            lines = [":KIND-MASQ-AGENT - [0:0]"] + old[tool][2:4] + ["-D" + JUMP[2:], JUMP, JUMP]
            sandbox.run(["%s-%s-restore" % (tool, flavour), "--noflush", "-w", "5"], stdin="*nat\n%s\nCOMMIT\n" % "\n".join(lines))
            assert as_ours(ours(sandbox, flavour, tool)) == as_ours(old[tool])
        # Later kills are closer together: reading and changing come at the end, after the start of Python.
        process = subprocess.Popen(
            sandbox.module_argv("kindnet_masq"), env=sandbox.module_env(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        process.stdin.write(sandbox.module_stdin(False, {"cluster_cidrs": CIDRS, "backend": "iptables-" + flavour}).encode())
        process.stdin.close()
        time.sleep(whole * (0.55 + 0.03 * step) if step else 0)  # the first comes before the change on any machine
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for tool in SAVES:
            live = as_ours(ours(sandbox, flavour, tool))
            assert live in (as_ours(old[tool]), as_ours(wanted(tool))), (step, live)
            seen.add((tool, live == as_ours(old[tool])))
        masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-" + flavour)
        assert_right(sandbox, flavour)
        assert others(sandbox, flavour) == foreign
    assert ("iptables", True) in seen, "no kill came before the change: this test tested nothing"


def test_killed_between_recording_a_new_name_and_changing_anything_the_pass_drops_the_old_chain(legacy, sandbox):
    masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-legacy")
    # The first restore of the run kills the module that started it.
    sandbox.replace_tool("iptables-nft-restore", "kill -9 $PPID")
    process = subprocess.run(
        sandbox.module_argv("kindnet_masq"), input=sandbox.module_stdin(False, {"cluster_cidrs": CIDRS, "backend": "iptables-nft", "chain": "NEW"}),
        env=sandbox.module_env(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode in (-9, 137) and process.stdout == ""
    assert_right(sandbox, "legacy")
    sandbox.replace_tool("iptables-nft-restore", 'exec $REAL "$@"')
    code = (
        "import json, sys; from ansible_collections.kindnet.host.plugins.module_utils import _masq;"
        "section = json.load(open('/etc/kindnet/desired.json'))['sections']['masq'];"
        "plan = _masq.plan(section, _masq.read(section, None)); print(_masq.apply(section, plan))"
    )
    assert sandbox.python(code).strip() == "()"
    assert [ours(sandbox, "legacy", tool) for tool in SAVES] == [[], []]
    assert [":NEW -" in nat(sandbox, "nft", tool) for tool in SAVES] == [True, True]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_comment_cannot_smuggle_a_jump_or_a_line(sandbox, flavour):
    masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + flavour)
    evil = "a\n-A POSTROUTING -j KIND-MASQ-AGENT\n-A KIND-MASQ-AGENT -j ACCEPT"
    sandbox.run(["iptables-%s" % flavour, "-w", "5", "-t", "nat", "-I", "POSTROUTING", "-m", "comment", "--comment", evil, "-j", "ACCEPT"])
    before = everything(sandbox)
    assert masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + flavour)["changed"] is False
    assert everything(sandbox) == before
    # A jump to our chain with such a comment cannot be told to iptables-restore: named, and nothing is changed.
    sandbox.run(["iptables-%s" % flavour, "-w", "5", "-t", "nat", "-I", "POSTROUTING", "-m", "comment", "--comment", evil, "-j", "KIND-MASQ-AGENT"])
    before = everything(sandbox)
    result = masq(sandbox, cluster_cidrs=[V4], backend="iptables-" + flavour)
    assert result["failed"] and "line break" in result["msg"], result
    assert everything(sandbox) == before


def test_without_recording_the_host_is_changed_and_nothing_is_recorded(sandbox):
    assert masq(sandbox, cluster_cidrs=CIDRS, backend="iptables-nft", persist=False)["changed"]
    assert_right(sandbox, "nft")
    assert everything(sandbox)[3] == ""
    assert masq(sandbox, state="absent", persist=False)["changed"]
