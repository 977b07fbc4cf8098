# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node with a pod on one side and another node on the other, in network namespaces: what kindnet_walk tells beside what ``ip`` tells, whom it says to be
masqueraded beside what the other node sees, and what kindnet_probe leaves behind however it ends."""

from __future__ import annotations

__metaclass__ = type

import json
import os
import signal
import subprocess

import pytest
from waiting import has_settled, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

POD, NODE, FAR, FAR_POD = "10.244.1.2", "172.18.0.3", "172.18.0.4", "10.244.2.2"
POD6, FAR_POD6 = "fd00:10:1::2", "fd00:10:2::2"
FLOWS = ({"source": POD, "destination": FAR_POD, "begins": True}, {"source": FAR_POD, "destination": POD})
PODS = ({"address": POD, "netns": "/run/netns/pod"},)

WIRING = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
ip netns add pod; ip netns add far
ip link add veth0 type veth peer name eth0 netns pod; ip link add eth0 type veth peer name eth0 netns far
ip addr add 10.244.1.1/32 dev veth0; ip -6 addr add fd00:10:1::1/128 dev veth0 nodad; ip link set veth0 up
ip addr add 172.18.0.3/16 dev eth0; ip -6 addr add fd00:18::3/64 dev eth0 nodad; ip link set eth0 up
ip netns exec pod sh -euc 'ip link set lo up; ip addr add 10.244.1.2/24 dev eth0; ip -6 addr add fd00:10:1::2/64 dev eth0 nodad; ip link set eth0 up
  ip route add default via 10.244.1.1; ip -6 route add default via fd00:10:1::1'
ip netns exec far sh -euc 'sysctl -qw net.ipv4.conf.all.rp_filter=0; ip link set lo up; ip addr add 172.18.0.4/16 dev eth0; ip addr add 10.244.2.2/32 dev lo
  ip -6 addr add fd00:18::4/64 dev eth0 nodad; ip -6 addr add fd00:10:2::2/128 dev lo nodad; ip link set eth0 up
  ip route add 10.244.1.0/24 via 172.18.0.3; ip -6 route add fd00:10:1::/64 via fd00:18::3'
ip route add 10.244.1.2/32 dev veth0; ip route add 10.244.2.0/24 via 172.18.0.4 proto 107
ip -6 route add fd00:10:1::2/128 dev veth0; ip -6 route add fd00:10:2::/64 via fd00:18::4 proto 107
"""


@pytest.fixture
def node(sandbox):
    sandbox.run("mkdir -p /run/netns")
    sandbox.run(WIRING)
    return sandbox


def walk(node, flows=FLOWS, pods=PODS):
    result = node.module("kindnet_walk", node_name="node", flows=list(flows), pods=list(pods))
    assert not result.get("failed"), result
    assert result["changed"] is False
    return result


def one(result, source, iif):
    (entry,) = [e for e in result["lookups"] if (e["source"], e["iif"]) == (source, iif)]
    return entry


def ask(node, question):
    """What ip says: the answer, or the error."""
    done = node.run("ip -json %s" % question, check=False)
    return json.loads(done.stdout)[0] if done.returncode == 0 else done.stderr.partition("answers: ")[2].strip()


WRONGS = [
    "",
    "ip route del 10.244.2.0/24",
    "ip route replace blackhole 10.244.2.0/24",
    "ip route replace unreachable 10.244.2.0/24",
    "ip route replace 10.244.2.0/24 via 172.18.0.9 mtu 1300",
    "ip route replace 10.244.2.0/24 dev eth0",
    "sysctl -qw net.ipv4.conf.all.forwarding=0",
    "sysctl -qw net.ipv4.conf.veth0.forwarding=0",
    "ip route del 10.244.1.2/32; ip route add 10.244.1.2/32 dev eth0; sysctl -qw net.ipv4.conf.veth0.rp_filter=1",
    "ip addr add 10.244.2.9/32 dev eth0",
    "ip link set eth0 mtu 1400",
    "ip rule add from 10.244.1.2 lookup 99; ip route add default via 172.18.0.7 table 99",
]


@pytest.mark.parametrize("wrong", WRONGS)
def test_every_lookup_is_what_ip_says(node, wrong):
    node.run(wrong or "true")
    result = walk(node)
    assert {(e["source"], e["iif"]) for e in result["lookups"]} >= {(POD, "eth0"), (FAR_POD, "eth0")}
    for entry in result["lookups"]:
        said = ask(node, "route get %s from %s iif %s" % (entry["destination"], entry["source"], entry["iif"]))
        if isinstance(said, str):
            assert entry["error"] == said
            continue
        assert entry["error"] == ""
        mtu = (said.get("metrics") or [{}])[0].get("mtu", 0)
        expected = (said.get("type", "unicast"), said.get("gateway", ""), said["dev"], mtu)
        assert (entry["type"], entry["via"], entry["dev"], entry["mtu"]) == expected
    links = {link["ifname"]: link["mtu"] for link in json.loads(node.out("ip -json link"))}
    assert all(link["mtu"] == links[name] for name, link in result["interfaces"].items())
    for key, value in result["sysctls"].items():
        assert node.out(["sysctl", "-n", key]).strip() == value, key
    pod = result["pods"][POD]
    assert pod["error"] == "" and [(e["iif"], e.get("via")) for e in pod["lookups"]] == [("", "10.244.1.1"), ("eth0", "")]


def test_ipv6_and_neighbours(node):
    node.run("ping -6 -c 1 -w 20 fd00:18::4")
    flows = [{"source": POD6, "destination": FAR_POD6, "begins": True}, {"source": FAR_POD6, "destination": POD6}]
    result = walk(node, flows, [{"address": POD6, "netns": "/run/netns/pod"}])
    there = one(result, POD6, "veth0")
    said = ask(node, "-6 route get %s from %s iif veth0" % (FAR_POD6, POD6))
    assert (there["via"], there["dev"]) == (said["gateway"], said["dev"]) == ("fd00:18::4", "eth0")
    (entry,) = json.loads(node.out("ip -json neigh show to fd00:18::4 dev eth0"))
    assert there["neighbour"] == {"state": entry["state"][0], "mac": entry["lladdr"]}
    assert result["sysctls"]["net.ipv6.conf.all.forwarding"] == "1"
    assert result["pods"][POD6]["lookups"][1]["type"] == "local"


def test_it_changes_nothing_and_a_wrong_namespace_is_not_asked(node):
    state = "ip -json route show table all; ip -json -6 route show table all; ip -json address; nft -j list ruleset; find /run /etc -newer /run/mark | sort"
    until("the kernel has given the links their own addresses", lambda: has_settled(node.out("ip -json -6 address")))
    node.run("touch /run/mark; sleep 0.05")
    before = node.out(state)
    walk(node)
    assert node.out(state) == before
    # A path by the number of a process that another has by now
    result = walk(node, pods=[{"address": POD, "netns": "/run/netns/far"}])
    assert result["pods"][POD] == {"error": "nobody has 10.244.1.2 in the network namespace /run/netns/far", "lookups": [], "interfaces": {}}
    result = walk(node, pods=[{"address": POD, "netns": "/run/netns/gone"}])
    assert "gone" in result["pods"][POD]["error"]


@pytest.mark.parametrize("flows", [[], [{"source": POD, "destination": POD6}], [{"source": "pod", "destination": POD}]])
def test_bad_flows_are_refused_by_name(node, flows):
    result = node.module("kindnet_walk", node_name="node", flows=flows)
    assert result["failed"] and result["field"] == "flows" and result["remedy"]


# --- Who is masqueraded, beside what the other node sees

RULES = [
    "",
    "iptables-nft -t nat -A POSTROUTING -s 10.244.1.0/24 -j MASQUERADE",
    "iptables-nft -t nat -A POSTROUTING -s 10.244.1.0/24 ! -d 10.244.0.0/16 -j MASQUERADE",
    "iptables-nft -t nat -A POSTROUTING -o eth1 -j MASQUERADE",
    "iptables-nft -t nat -A POSTROUTING -p tcp -j MASQUERADE",
    "iptables-nft -t nat -A POSTROUTING -d 10.244.2.0/24 -j SNAT --to-source 172.18.0.77",
    "iptables-nft -t nat -N X; iptables-nft -t nat -A POSTROUTING -j X; iptables-nft -t nat -A X -d 10.244.0.0/16 -j RETURN;"
    " iptables-nft -t nat -A X -j MASQUERADE",
    "iptables-nft -t nat -N X; iptables-nft -t nat -A POSTROUTING -g X; iptables-nft -t nat -A POSTROUTING -j MASQUERADE; iptables-nft -t nat -A X -j RETURN",
    "iptables-nft -t nat -A POSTROUTING -j ACCEPT; nft add table ip t; nft 'add chain ip t p { type nat hook postrouting priority 110; }';"
    " nft add rule ip t p ip daddr 10.244.2.0/24 masquerade",
    "nft add table inet t; nft 'add chain inet t p { type nat hook postrouting priority 90; }';"
    " nft add rule inet t p ip saddr 10.244.1.2 oifname eth0 masquerade",
    "nft add table inet t; nft 'add chain inet t p { type nat hook postrouting priority 90; }'; nft add rule inet t p meta nfproto ipv6 masquerade",
    "iptables-legacy -t nat -A POSTROUTING -s 10.244.1.0/24 -j MASQUERADE",
]


@pytest.mark.parametrize("rules", RULES)
def test_the_source_that_it_tells_is_the_one_that_arrives(node, rules):
    if "legacy" in rules and node.run("iptables-legacy -t nat -S", check=False).returncode:
        pytest.skip("this kernel has no legacy iptables")
    node.run(rules or "true")
    said = one(walk(node), POD, "veth0")["translation"]
    node.run(
        "ip netns exec far sh -euc 'nft add table inet see; nft \"add chain inet see in { type filter hook input priority 0; }\";"
        " for a in 10.244.1.2 172.18.0.3 172.18.0.77; do nft add rule inet see in ip saddr $a icmp type echo-request counter; done'"
    )
    node.run("ip netns exec pod ping -c 3 -i 0.5 -W 1 10.244.2.2", check=False)  # whose answer to a third address nobody takes
    seen = json.loads(node.out("ip netns exec far nft -j list chain inet see in"))["nftables"]
    arrived = [
        r["rule"]["expr"][0]["match"]["right"] for r in seen if "rule" in r and any(e.get("counter", {}).get("packets") for e in r["rule"]["expr"])
    ]
    assert said["doubts"] == []
    assert arrived == [said["source"] if said["by"] else POD], (said, arrived)
    assert bool(said["by"]) == (arrived != [POD])


def test_rules_of_a_container_that_the_host_has_no_program_for_are_a_doubt(node):
    node.run("iptables-nft -t nat -A POSTROUTING -s 10.244.1.0/24 -j MASQUERADE; rm -f /usr/sbin/iptables-nft /usr/sbin/xtables-nft-multi")
    said = one(walk(node), POD, "veth0")["translation"]
    assert said["by"] == "" and said["doubts"] == ["iptables-nft -t nat POSTROUTING"]


# What nft 1.0.6 does, by chance, with a table that a process owns: its flags come from memory it has freed, and where that is no text it stops.
STOPS = """#!/bin/sh
case "$*" in
*'list table inet owned') /usr/sbin/nft-itself "$@" | sed -E 's/("flags": ).*/\\1/' ;;
*) exec /usr/sbin/nft-itself "$@" ;;
esac
"""


@pytest.mark.parametrize("stops", [False, True])
def test_a_table_that_a_process_owns_is_read_like_any_other(node, stops):
    if stops:
        node.run("mv /usr/sbin/nft /usr/sbin/nft-itself; cat >/usr/sbin/nft; chmod 755 /usr/sbin/nft", stdin=STOPS)
    with subprocess.Popen(node.inside(["nft", "-i"]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as owner:
        owner.stdin.write(
            "add table inet owned { flags owner; }\nadd set inet owned pods { type ipv4_addr; elements = { 10.244.1.2 }; }\n"
            "add chain inet owned there\nadd rule inet owned there masquerade\n"
            "add chain inet owned post { type nat hook postrouting priority 90; }\nadd rule inet owned post ip saddr @pods jump there\n"
        )
        owner.stdin.flush()
        until("the rule is there", lambda: "jump there" in node.out("nft list ruleset"))
        said = one(walk(node), POD, "veth0")["translation"]
    assert (said["by"], said["source"], said["doubts"]) == ("MASQUERADE", NODE, [])


# --- Probes


def probe(node, step, identifier=4711, **options):
    ends = {} if step == "collect" else {"source": POD, "destination": FAR_POD}
    result = node.module("kindnet_probe", node_name="node", step=step, identifier=identifier, **{**ends, **options})
    assert not result.get("failed"), result
    return result


def left(node):
    """What a watch might leave."""
    return {
        "ruleset": node.out("nft --stateless list ruleset"),  # as text: nft 1.0.6 cannot say in JSON that a process owns a table
        "processes": sorted(command_of(pid) for pid in pids_inside(node)),
        "sockets": [line.split()[-1] for line in node.out("cat /proc/net/unix").splitlines() if "kindnet" in line],
        "packet sockets": node.out("cat /proc/net/packet").count("\n"),
        "files": node.out("find /run /etc/kindnet /var/lib/kindnet -not -path '/run/netns*' | sort"),
    }


def pids_inside(node):
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and namespace_of(pid) == namespace_of(str(node.process.pid))]


def namespace_of(pid):
    try:
        return os.readlink("/proc/%s/ns/net" % pid)
    except OSError:
        return ""


def command_of(pid):
    try:
        with open("/proc/%s/cmdline" % pid, "rb") as f:
            return f.read().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def clean(node):
    node.run("nft add table inet foreign")
    return left(node)


def watchers(node):
    return [int(pid) for pid in pids_inside(node) if "python" in command_of(pid)]


def test_probes_are_seen_traced_and_leave_nothing(node, clean):
    node.run("iptables-nft -P FORWARD ACCEPT; iptables-nft -A FORWARD -s 192.0.2.1 -j DROP")
    before = left(node)
    assert probe(node, "watch")["trace"]["why"] == ""
    owned = [line.split()[-1] for line in node.out("nft list tables").splitlines()]
    assert "kindnet_walk_4711" in owned
    said = probe(node, "send", netns="/run/netns/pod")
    assert (said["small"]["received"], said["large"]["received"], said["large"]["size"], said["refusals"]) == (3, 2, 1500, [])
    node.run("ip netns exec pod ping -c 1 -W 2 10.244.2.2")  # somebody else's, which is none of its business
    found = probe(node, "collect")
    until("nothing of it is left", lambda: left(node) == before)
    assert {(e["interface"], e["way"], e["kind"], tuple(e["sequences"])) for e in found["seen"]} == {
        ("veth0", "in", "request", (1, 2, 3, 4, 5)),
        ("eth0", "out", "request", (1, 2, 3, 4, 5)),
        ("eth0", "in", "reply", (1, 2, 3, 4, 5)),
        ("veth0", "out", "reply", (1, 2, 3, 4, 5)),
    }
    traced = {(p["kind"], p["sequence"]) for p in found["trace"]["packets"]}
    assert traced == {(kind, n) for kind in ("request", "reply") for n in (1, 2, 3, 4, 5)}
    forward = {(c["table"], c["chain"], c["verdict"]) for p in found["trace"]["packets"] for c in p["chains"] if c["hook"] == "forward"}
    assert forward == {("ip filter", "FORWARD", "accept")}


@pytest.mark.parametrize(
    "drop, table, chain, rule",
    [
        ("iptables-nft -A FORWARD -s 10.244.1.2 -j DROP", "ip filter", "FORWARD", "ip saddr 10.244.1.2 drop"),
        ("iptables-nft -N D; iptables-nft -A FORWARD -j D; iptables-nft -A D -d 10.244.2.2 -j DROP", "ip filter", "D", "ip daddr 10.244.2.2 drop"),
        ("iptables-nft -P FORWARD DROP", "ip filter", "FORWARD", ""),
        ("nft add table inet fw; nft 'add chain inet fw f { type filter hook forward priority 5; policy drop; }'", "inet fw", "f", ""),
    ],
)
def test_what_drops_them_is_named(node, drop, table, chain, rule):
    node.run(drop)
    probe(node, "watch")
    assert probe(node, "send", netns="/run/netns/pod", wait=0.3)["small"]["received"] == 0
    found = probe(node, "collect")
    drops = {(c["table"], c["chain"], c["hook"], c["rule"]) for p in found["trace"]["packets"] for c in p["chains"] if c["verdict"] == "drop"}
    assert drops == {(table, chain, "forward", rule)}
    assert {(e["interface"], e["way"]) for e in found["seen"]} == {("veth0", "in")}


def test_rules_of_legacy_iptables_are_said_not_to_be_traced(node):
    if node.run("iptables-legacy -A FORWARD -s 10.244.1.2 -j DROP", check=False).returncode:
        pytest.skip("this kernel has no legacy iptables")
    probe(node, "watch")
    probe(node, "send", netns="/run/netns/pod", wait=0.3)
    found = probe(node, "collect")["trace"]
    assert found["legacy"] == ["filter"] and not [c for p in found["packets"] for c in p["chains"] if c["verdict"] == "drop"]


def test_an_mtu_that_is_too_small_is_told_by_who_has_it(node):
    node.run("ip link set eth0 mtu 1400")
    said = probe(node, "send", netns="/run/netns/pod", wait=0.5)
    assert (said["small"]["received"], said["large"]["received"]) == (3, 0)
    assert said["refusals"] == [{"source": "10.244.1.1", "what": "Fragmentation Needed", "mtu": 1400}]
    # The pod's kernel has learned that, and forgets it by itself. It is not what somebody set on the route.
    (entry,) = [e for e in walk(node)["pods"][POD]["lookups"] if e["source"] == POD]
    assert (entry["mtu"], entry["learned_mtu"]) == (0, 1400)


def test_ipv6(node):
    ends = {"source": POD6, "destination": FAR_POD6}
    node.run("ip6tables-nft -A FORWARD -s 2001:db8::1 -j DROP")
    probe(node, "watch", **ends)
    said = probe(node, "send", netns="/run/netns/pod", **ends)
    assert (said["small"]["received"], said["large"]["received"]) == (3, 2)
    found = probe(node, "collect")
    assert len(found["seen"]) == 4 and all(e["sequences"] == [1, 2, 3, 4, 5] for e in found["seen"])
    assert ("ip6 filter", "accept") in {(c["table"], c["verdict"]) for p in found["trace"]["packets"] for c in p["chains"] if c["hook"] == "forward"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_work_nothing_stays(node, clean, how):
    probe(node, "watch")
    assert left(node) != clean
    (pid,) = watchers(node)
    os.kill(pid, how)
    until("what the killed process had is gone", lambda: left(node) == clean)
    said = probe(node, "collect")
    assert said["seen"] == [] and "nobody watches" in said["trace"]["why"]


def test_who_is_never_asked_ends_by_itself(node, clean):
    probe(node, "watch", seconds=1)
    until("the time for it is over", lambda: left(node) == clean)


def test_two_walks_at_once_do_not_meet(node, clean):
    probe(node, "watch", identifier=1)
    probe(node, "watch", identifier=2)
    probe(node, "send", identifier=2, netns="/run/netns/pod")
    # The same number to somebody else is not one of these probes either.
    probe(node, "send", identifier=1, netns="/run/netns/pod", destination=FAR)
    assert probe(node, "collect", identifier=1)["seen"] == []
    assert len(probe(node, "collect", identifier=2)["seen"]) == 4
    until("nothing of it is left", lambda: left(node) == clean)


def test_nobody_but_root_is_told(node, clean):
    probe(node, "watch")
    ask_as_nobody = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.settimeout(5)\n"
        "s.connect('\\0kindnet-walk-4711'); print(len(s.recv(10)))"
    )
    assert node.out(["python3", "-c", ask_as_nobody]) == "0\n"
    assert probe(node, "collect")["trace"]["why"] == ""
    until("nothing of it is left", lambda: left(node) == clean)


def test_nobody_but_root_is_believed(node, clean):
    """The name of an abstract socket is his who comes first."""
    answer_as_nobody = (
        "import os, signal, socket; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.bind('\\0kindnet-walk-4712'); s.listen(1)\n"
        "if os.fork(): os._exit(0)\n"
        "signal.alarm(20); os.closerange(0, 3); c = s.accept()[0]; c.send(b'{\"seen\": [], \"trace\": {}}')"
    )
    node.out(["python3", "-c", answer_as_nobody])
    result = node.module("kindnet_probe", node_name="node", step="collect", identifier=4712)
    assert result.get("failed") and "not root" in result["msg"], result
    until("it answered once", lambda: left(node) == clean)


def test_without_nft_it_is_watched_and_said_not_to_be_traced(node, clean):
    node.run("rm /usr/sbin/nft")  # of the sandbox
    said = probe(node, "watch")
    assert said["trace"]["why"] == "nft is not installed"
    probe(node, "send", netns="/run/netns/pod")
    assert len(probe(node, "collect")["seen"]) == 4


def test_check_mode_sends_nothing(node, clean):
    for step in ("watch", "send", "collect"):
        ends = {} if step == "collect" else {"source": POD, "destination": FAR_POD}
        result = node.module("kindnet_probe", check=True, node_name="node", step=step, identifier=4711, netns="/run/netns/pod", **ends)
        assert result["skipped"] and not result["changed"]
    assert left(node) == clean


@pytest.mark.parametrize(
    "options, words",
    [
        ({"step": "watch", "identifier": 0, "source": POD, "destination": FAR_POD}, "identifier: 0"),
        ({"step": "send", "identifier": 5, "source": "10.244.9.9", "destination": FAR_POD}, "nobody has it in this host"),
        ({"step": "watch", "identifier": 5, "source": POD, "destination": FAR_POD, "seconds": 86400}, "seconds: 86400"),
        ({"step": "send", "identifier": 5, "source": POD, "destination": FAR_POD, "wait": "inf"}, "wait: inf"),
        ({"step": "send", "identifier": 5, "source": "pod", "destination": FAR_POD}, "source: "),
    ],
)
def test_bad_options_get_one_message(node, options, words):
    result = node.module("kindnet_probe", node_name="node", **options)
    assert result["failed"] and words in result["msg"] and result["remedy"], result
