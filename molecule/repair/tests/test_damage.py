# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is damaged on a node with real commands is right after the next completed pass: each damage on its own, with its line in the journal."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from nodes import (
    CHAIN,
    CONFLIST,
    PROTOCOL,
    SERVICE,
    TIMER,
    Node,
    RouteWatch,
    RuleWatch,
    assert_converged,
    expected_chain,
    until,
)

Nodes = dict[str, Node]

RETURN = '-d 10.244.0.0/16 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
MASQUERADE = '-m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE'
JUMP = expected_chain([])[1].replace("-A POSTROUTING ", "")
NAT = "iptables -t nat"
STATIC = "4"  # the protocol of routes that an administrator made


@dataclass
class Damage:
    name: str
    command: str
    lines: list[str]  # of the journal, as patterns: what was changed, from what, to what


ROUTES = [
    Damage("deleted", "ip route del {dst}", ["add route {dst}: absent -> via {hop} .*"]),
    Damage(
        "all deleted",
        f"ip route flush proto {PROTOCOL}",
        ["add route {dst}: absent -> via {hop} .*", "add route {dst2}: absent -> via {hop2} .*"],
    ),
    Damage(
        "next hop changed",
        f"ip route replace {{dst}} via {{hop2}} proto {PROTOCOL}",
        ["replace route {dst}: via {hop2} .* -> via {hop} .*"],
    ),
    Damage(
        "source hint",
        f"ip route replace {{dst}} via {{hop}} src {{self}} proto {PROTOCOL}",
        ["replace route {dst}: via {hop} .*src {self}.* -> via {hop} .*"],
    ),
    Damage(
        "metric",
        f"ip route del {{dst}}; ip route add {{dst}} via {{hop}} metric 50 proto {PROTOCOL}",
        ["add route {dst}: absent -> .*", "remove route {dst}.*: .*metric 50.* -> absent .*"],
    ),
    Damage("doubled", f"ip route add {{dst}} via {{hop2}} metric 50 proto {PROTOCOL}", ["remove route {dst}.*: via {hop2} .*metric 50.* -> absent .*"]),
    Damage(
        "of a node that is gone",
        f"ip route add 10.244.77.0/24 via {{hop}} proto {PROTOCOL}",
        ["remove route 10[.]244[.]77[.]0/24: via {hop} .* -> absent .*"],
    ),
]

CHAINS = [
    Damage("RETURN deleted", f"{NAT} -D {CHAIN} {RETURN}", ["replace .*chain nat/{chain}: .* -> .*RETURN.*"]),
    Damage("RETURN dead behind MASQUERADE", f"{NAT} -D {CHAIN} {RETURN}; {NAT} -A {CHAIN} {RETURN}", ["replace .*chain nat/{chain}: .*"]),
    Damage("RETURN doubled", f"{NAT} -I {CHAIN} {RETURN}", ["replace .*chain nat/{chain}: .*"]),
    Damage(
        "RETURN of an old subnet",
        f"{NAT} -I {CHAIN} {RETURN.replace('10.244.0.0/16', '10.200.0.0/16')}",
        ["replace .*chain nat/{chain}: .*10[.]200[.]0[.]0/16.* -> .*"],
    ),
    Damage("rule inserted", f"{NAT} -I {CHAIN} -s 192.0.2.0/24 -j ACCEPT", ["replace .*chain nat/{chain}: .*192[.]0[.]2[.]0/24.* -> .*"]),
    Damage("rule appended", f"{NAT} -A {CHAIN} -s 192.0.2.0/24 -j ACCEPT", ["replace .*chain nat/{chain}: .*192[.]0[.]2[.]0/24.* -> .*"]),
    Damage("rule without its comment", f"{NAT} -R {CHAIN} 1 -d 10.244.0.0/16 -j RETURN", ["replace .*chain nat/{chain}: .*"]),
    Damage("MASQUERADE deleted", f"{NAT} -D {CHAIN} {MASQUERADE}", ["replace .*chain nat/{chain}: .* -> .*MASQUERADE.*"]),
    Damage("flushed", f"{NAT} -F {CHAIN}", ["replace .*chain nat/{chain}: empty -> .*"]),
    Damage("jump deleted", f"{NAT} -D POSTROUTING {JUMP}", ["add .*jump nat/POSTROUTING to {chain}: absent -> .*"]),
    Damage("jump doubled", f"{NAT} -A POSTROUTING {JUMP}", ["(replace|remove) .*jump nat/POSTROUTING to {chain}: .*"]),
    Damage("jump for all", f"{NAT} -I POSTROUTING -j {CHAIN}", ["(replace|remove) .*jump nat/POSTROUTING to {chain}: .*"]),
    Damage(
        "jump and chain deleted",
        f"{NAT} -D POSTROUTING {JUMP}; {NAT} -F {CHAIN}; {NAT} -X {CHAIN}",
        ["add .*chain nat/{chain}: absent -> .*", "add .*jump nat/POSTROUTING to {chain}: absent -> .*"],
    ),
    Damage(
        "all of nat flushed",
        f"{NAT} -F; {NAT} -F {CHAIN}",
        ["(add|replace) .*chain nat/{chain}: (absent|empty) -> .*", "add .*jump nat/POSTROUTING to {chain}: absent -> .*"],
    ),
]

FILES = [
    Damage("conflist truncated", f"truncate --size=60 {CONFLIST}", [".*10-kindnet[.]conflist.*: .* -> .*"]),
    Damage("conflist emptied", f": >{CONFLIST}", [".*10-kindnet[.]conflist.*: .* -> .*"]),
    Damage("conflist deleted", f"rm {CONFLIST}", ["add .*10-kindnet[.]conflist.*: absent -> .*"]),
    Damage("conflist garbage", f"head -c 300 /dev/urandom >{CONFLIST}", [".*10-kindnet[.]conflist.*: .* -> .*"]),
    Damage("conflist of another subnet", f"sed -i s/10.244/10.99/ {CONFLIST}", [".*10-kindnet[.]conflist.*: .*10[.]99.* -> .*10[.]244.*"]),
    Damage("conflist open to all", f"chmod 666 {CONFLIST}", [".*10-kindnet[.]conflist.*: .*0?666.* -> .*0?644.*"]),
    Damage("folder of the conflist deleted", "rm -r /etc/cni", ["add .*10-kindnet[.]conflist.*: absent -> .*"]),
    Damage("plugin's link deleted", "rm /opt/cni/bin/ptp", ["add .*/opt/cni/bin/ptp.*: absent -> .*"]),
    Damage("plugin's link dangling", "ln -sfn /usr/lib/cni/gone /opt/cni/bin/portmap", [".*/opt/cni/bin/portmap.*: .*/usr/lib/cni/gone.* -> .*"]),
    Damage("forwarding turned off", "sysctl -qw net.ipv4.ip_forward=0", ["replace sysctl net[.]ipv4[.]ip_forward: 0 -> 1 .*"]),
]


def facts(node: Node, nodes: Nodes) -> dict[str, str]:
    one, two = [p for p in nodes.values() if p is not node][:2]
    return {"dst": one.pod_cidrs[0], "hop": one.node_ips[0], "dst2": two.pod_cidrs[0], "hop2": two.node_ips[0], "self": node.node_ips[0], "chain": CHAIN}


def assert_links(node: Node) -> None:
    plugins = ("ptp", "host-local", "portmap", "loopback")
    answers = node.sh("; ".join(f"CNI_COMMAND=VERSION /opt/cni/bin/{plugin} </dev/null" for plugin in plugins))
    assert answers.count("supportedVersions") == len(plugins), answers


@pytest.mark.parametrize("damage", ROUTES + CHAINS + FILES, ids=lambda d: d.name)
def test_after_one_pass_all_is_right(damage: Damage, nodes: Nodes, request: pytest.FixtureRequest) -> None:
    # Each node gets its share of the damages.
    node = list(nodes.values())[(ROUTES + CHAINS + FILES).index(damage) % len(nodes)]
    names = facts(node, nodes)
    assert node.do_pass() == "0"  # so that the timer's next is a period away, and none sees a damage half done
    cursor = node.cursor()
    node.sh(damage.command.format(**names))
    assert node.do_pass() == "0"
    assert_converged(node, nodes)
    assert_links(node)

    lines = node.journal(cursor)
    patterns = [p.format(**{k: re.escape(v) for k, v in names.items()}) for p in damage.lines]
    assert len(lines) == len(patterns), lines
    for pattern in patterns:
        assert [line for line in lines if re.fullmatch(pattern, line)], (pattern, lines)

    # Once: the next pass finds nothing, and says nothing.
    assert node.do_pass() == "0"
    assert node.journal(cursor) == lines


def test_the_timer_alone_repairs_all_at_once(nodes: Nodes) -> None:
    since = {}
    for node in nodes.values():
        names = facts(node, nodes)
        for damage in (ROUTES[0], ROUTES[-1], CHAINS[1], CHAINS[-4], FILES[0], FILES[-1]):
            node.sh(damage.command.format(**names))
        since[node.name] = node.monotonic()
    for node in nodes.values():
        node.await_pass(since[node.name])
        assert_converged(node, nodes)


class TestForeign:
    """What is not ours is left alone, and said when it is in the way."""

    def test_a_jump_that_others_were_appended_behind_stays_where_it_is(self, nodes: Nodes) -> None:
        node = list(nodes.values())[0]
        node.sh(f"{NAT} -A POSTROUTING -s 192.0.2.0/24 -j ACCEPT")
        try:
            before, cursor = node.nat(), node.cursor()
            assert node.do_pass() == "0"
            assert (node.nat(), node.journal(cursor)) == (before, [])
            node.sh(f"{NAT} -D POSTROUTING {JUMP}")
            assert node.do_pass() == "0"
            rules = [line for line in node.nat() if line.startswith("-A POSTROUTING")]
            assert rules[-1] == f"-A POSTROUTING {JUMP}" and "192.0.2.0/24" in rules[-2]
        finally:
            node.run(f"{NAT} -D POSTROUTING -s 192.0.2.0/24 -j ACCEPT")
        assert_converged(node, nodes)

    def test_a_foreign_route_in_the_way_is_named_and_stays(self, nodes: Nodes) -> None:
        node = list(nodes.values())[1]
        names = facts(node, nodes)
        foreign = "ip route {verb} {dst} via 172.18.0.100 proto static"
        cursor = node.cursor()
        node.sh("ip route del {dst}; ".format(**names) + foreign.format(verb="add", **names))
        try:
            node.sh("ip route del {dst2}".format(**names))  # of another peer, which this must not cost
            before = node.routes(STATIC)
            assert node.do_pass() == "1"
            assert node.routes(STATIC) == before
            assert node.own_routes() == {names["dst2"]: names["hop2"]}
            said = [line for line in node.journal(cursor) if names["dst"] in line]
            peer = next(p for p in nodes.values() if names["dst"] in p.pod_cidrs)
            assert len(said) == 1 and peer.name in said[0] and "172.18.0.100" in said[0], said
        finally:
            node.run(foreign.format(verb="del", **names))
        assert node.do_pass() == "0"
        assert_converged(node, nodes)

    def test_a_foreign_route_that_is_right_serves(self, nodes: Nodes) -> None:
        node = list(nodes.values())[2]
        names = facts(node, nodes)
        node.sh("ip route del {dst}; ip route add {dst} via {hop} proto static".format(**names))
        try:
            before = node.routes()
            assert node.do_pass() == "0"
            assert node.routes() == before
        finally:
            node.run("ip route del {dst} proto static".format(**names))
        assert node.do_pass() == "0"
        assert_converged(node, nodes)


class TestHow:
    def test_a_chain_is_repaired_in_one_transaction(self, nodes: Nodes) -> None:
        node = list(nodes.values())[0]
        node.sh(f"{NAT} -D {CHAIN} {RETURN}; {NAT} -A {CHAIN} {RETURN}; {NAT} -A POSTROUTING {JUMP}")
        with RuleWatch(node) as watch:
            assert node.do_pass() == "0"
            seen = watch.changes()
        assert_converged(node, nodes)
        # The timer may have repaired it before we watched; then there is nothing to see, and this is to be done again.
        assert len(seen) <= 1
        if not seen:
            self.test_a_chain_is_repaired_in_one_transaction(nodes)

    def test_a_next_hop_is_replaced_without_a_moment_without(self, nodes: Nodes) -> None:
        node = list(nodes.values())[1]
        names = facts(node, nodes)
        with RouteWatch(node) as watch:
            node.sh(f"ip route replace {{dst}} via {{hop2}} proto {PROTOCOL}".format(**names))
            assert node.do_pass() == "0"
            seen = [line for line in watch.changes() if names["dst"] in line]
        assert_converged(node, nodes)
        assert [re.sub(r" (dev|proto) .*", "", line) for line in seen] == [f"{names['dst']} via {names[h]}" for h in ("hop2", "hop")]

    def test_no_reader_sees_half_a_conflist(self, nodes: Nodes) -> None:
        node = list(nodes.values())[2]
        reader = (
            "import json, sys\nseen = 0\n"
            "while True:\n"
            "    try:\n"
            f"        content = open({CONFLIST!r}).read()\n"
            "    except FileNotFoundError:\n"
            "        continue\n"
            "    seen += 1\n"
            "    try:\n"
            "        json.loads(content)['plugins'][1]\n"
            "    except Exception as e:\n"
            "        print('half:', repr(content), e, flush=True)\n"
        )
        node.write("/run/reader.py", reader)
        node.sh("systemd-run --quiet --unit=reader sh -c 'exec python3 /run/reader.py >/run/reader.out 2>&1'")
        try:
            for _unused in range(5):
                node.sh(f"rm {CONFLIST}")
                assert node.do_pass() == "0"
            assert node.read("/run/reader.out") == ""
            # It would have seen it.
            node.sh(f"cp {CONFLIST} /run/whole; truncate --size=60 {CONFLIST}")
            until("the reader sees a truncated file", lambda: node.read("/run/reader.out") or None)
        finally:
            node.run("systemctl stop reader; rm -f /run/reader.py /run/reader.out /run/whole")
        assert node.do_pass() == "0"
        assert_converged(node, nodes)


def test_a_clean_pass_writes_nothing(nodes: Nodes) -> None:
    files = (
        "find /etc/cni /etc/kindnet /run/kindnet /etc/sysctl.d /etc/iproute2 /etc/systemd/system /opt/cni /usr/local/lib/kindnet /var/lib/kindnet"
        " -printf '%p %i %T@ %C@\\n' 2>/dev/null | sort"
    )
    counters = f"iptables-save -c -t nat | grep -e '-A {CHAIN}'"
    with ExitStack() as stack:
        before, watches = {}, {}
        for node in nodes.values():
            assert node.do_pass() == "0"
            # A rule that is laid anew loses this packet.
            node.sh("ping -c 1 -W 5 172.18.0.100")
            before[node] = (node.sh(files), node.sh(counters), node.cursor())
            watches[node] = [stack.enter_context(RouteWatch(node)), stack.enter_context(RuleWatch(node))]
        since = {node: node.monotonic() for node in before}
        for node in before:
            for _unused in range(3):
                assert node.do_pass() == "0"
        for node, began in since.items():
            assert node.await_pass(began) == "0"
            assert [watch.changes() for watch in watches[node]] == [[], []]
    for node, (was, counted, cursor) in before.items():
        assert node.sh(files) == was
        assert re.search(r"^\[[1-9]\d*:\d+\] .*MASQUERADE$", counted, re.MULTILINE), counted
        assert all(now >= then for then, now in zip(packets(counted), packets(node.sh(counters))))
        assert (node.journal(cursor), node.journal(cursor, TIMER)) == ([], [])


def packets(counters: str) -> list[int]:
    return [int(n) for n in re.findall(r"^\[(\d+):", counters, re.MULTILINE)]


def test_a_pass_is_made_by_the_unit(nodes: Nodes) -> None:
    """What the passes of these tests are: the service that the timer starts."""
    for node in nodes.values():
        assert SERVICE in node.sh("systemctl list-timers --all --no-legend --no-pager")
