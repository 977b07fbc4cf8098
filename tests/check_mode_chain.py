# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States of nat tables, arguments of kindnet_masq, and what became of the ones by the others, judged by ``iptables-save`` and ``nft``."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, NamedTuple

from check_mode import Said, State
from hypothesis import strategies as st
from route_host import RouteHost

NAMES = ["KIND-MASQ-AGENT", "X_1.y"]
TOOLS = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]
V4, V4B, V6, V6B = "10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/56", "fd00:10:96::/112"
SPARED = ["10.0.0.0/8", "192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32", "fd00::/8"]
OWN = "kind-masq-agent: "
TABLE = "nft table inet kindnet"

# Rules of others, in all that has a nat table: they stand around ours, and look like them.
FOREIGN = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-POSTROUTING - [0:0]
:KIND-MASQ-AGENT2 - [0:0]
[9:900] -A PREROUTING -i eth7 -j ACCEPT
[4:400] -A POSTROUTING -o eth7 -m comment --comment "-j KIND-MASQ-AGENT" -j ACCEPT
[6:600] -A POSTROUTING -o eth8 -j KIND-MASQ-AGENT2
[8:800] -A POSTROUTING -j KUBE-POSTROUTING
[3:300] -A KIND-MASQ-AGENT2 -o eth6 -j MASQUERADE
COMMIT
"""
FOREIGN_NFT = """table inet other {
 chain postrouting {
  type nat hook postrouting priority 90;
  oifname "eth7" counter packets 7 bytes 700 masquerade comment "kindnet"
 }
}
"""

RETURN = '-d {cidr} -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
JUMP = (
    '-m addrtype ! --dst-type LOCAL -m comment --comment "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL '
    'destination traffic to our custom {chain} chain" -j {chain}'
)
MASQUERADE = '-m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE'
# What may happen to a chain of iptables. Some of it is refused, by the state of the table.
DAMAGE = [
    "-D {chain} 1",
    "-D {chain} 2",
    "-F {chain}",
    "-A {chain} %s" % RETURN,
    "-I {chain} %s" % RETURN,
    "-A {chain} -d {cidr} -j RETURN",
    "-I {chain} 2 -s {cidr} -j ACCEPT",
    "-I {chain} %s" % MASQUERADE,
    "-N {chain} && {tool} -t nat -A {chain} -o eth3 -j ACCEPT",
    "-I POSTROUTING %s" % JUMP,
    "-A POSTROUTING %s" % JUMP,
    "-I POSTROUTING 2 -o eth9 -j {chain}",
    "-D POSTROUTING %s" % JUMP,
    "-A POSTROUTING -o eth5 -j ACCEPT",
    "-I POSTROUTING -o eth4 -j KUBE-POSTROUTING",
    "-F POSTROUTING",
]
# And to the table of nftables.
DAMAGE_NFT = [
    "delete table inet kindnet",
    "flush chain inet kindnet {chain}",
    "add rule inet kindnet {chain} ip daddr 10.1.0.1 counter return",
    "insert rule inet kindnet {chain} counter accept",
    "add rule inet kindnet {chain} meta nfproto ipv4 counter masquerade",
    "flush chain inet kindnet postrouting",
    "add rule inet kindnet postrouting fib daddr type != local counter jump {chain}",
    "insert rule inet kindnet postrouting ip saddr 10.1.0.2 accept",
    "flush set inet kindnet non_masquerade_ipv4",
    "add element inet kindnet non_masquerade_ipv4 {{ 203.0.113.0/24 }}",
    "add element inet kindnet non_masquerade_ipv6 {{ 2001:db8:9::/48 }}",
    "delete element inet kindnet non_masquerade_ipv4 {{ 10.244.0.0/16 }}",
    "add set inet kindnet somebodys {{ type ipv4_addr; }}",
    "add chain inet kindnet somebodys",
    "add table inet kindnet",
    "add chain inet kindnet postrouting {{ type nat hook postrouting priority 90; }}",
]


class Case(NamedTuple):
    foreign: bool
    earlier: dict[str, Any] | None
    damage: list[str]  # commands
    args: dict[str, Any]  # often those of the earlier converge again


def _damage(backend: str) -> st.SearchStrategy[str]:
    if backend == "nftables":
        return st.builds(lambda line, chain: "nft '%s'" % line.format(chain=chain), st.sampled_from(DAMAGE_NFT), st.sampled_from(NAMES[:1] * 3 + NAMES[1:]))

    def command(line: str, chain: str, v6: bool) -> str:
        tool = "%s -w 5" % backend.replace("iptables", "ip6tables" if v6 else "iptables")
        return "%s -t nat %s" % (tool, line.format(tool=tool, chain=chain, cidr=V6 if v6 else V4))

    return st.builds(
        command,
        st.sampled_from(DAMAGE),
        st.sampled_from(NAMES[:1] * 4 + NAMES[1:]),
        st.booleans(),
    )


def _options(backend: str) -> st.SearchStrategy[dict[str, Any]]:
    positions = ["last", "first"] + (["before KUBE-POSTROUTING"] if backend != "nftables" else [])
    return st.fixed_dictionaries(
        {"cluster_cidrs": st.sampled_from([[V4], [V4, V6], [V6, V4B, V4], [V6], [V4, V4B, V6, V6B]]), "backend": st.just(backend)},
        optional={
            "non_masquerade_cidrs": st.lists(st.sampled_from(SPARED), unique=True, max_size=2),
            "jump_position": st.sampled_from(positions),
            "random_fully": st.just(True),
            "masquerade_link_local": st.just(False),
            "chain": st.sampled_from(NAMES),
            "persist": st.just(False),
        },
    )


def cases(backend: str) -> st.SearchStrategy[Case]:
    others = st.sampled_from(["iptables-nft", "iptables-legacy", "nftables"]).flatmap(_options)
    return st.builds(
        lambda foreign, earlier, damage, args: Case(foreign, earlier, damage, earlier if args is None and earlier else args or {"state": "absent"}),
        st.booleans(),
        st.one_of(st.none(), *[_options(backend)] * 3, others),
        st.lists(_damage(backend), max_size=4),
        st.one_of(*[_options(backend)] * 3, st.none()),
    )


def kernel(host: RouteHost) -> dict[str, Any]:
    """Each nat table as its program saves it with counters, the whole ruleset with its handles, and our table as text."""
    saves = "for tool in %s; do $tool-save -c -t nat | sed '/^#/d'; echo ==; done" % " ".join(TOOLS)
    out = host.sh("%s; nft -j list ruleset; echo ==; nft -s -y list table inet kindnet 2>/dev/null || true" % saves).split("==\n")
    tables = {tool: [re.sub(r"^(:\S+ \S+) .*", r"\1", line) for line in text.splitlines()] for tool, text in zip(TOOLS, out)}
    return {"tables": tables, "ruleset": json.loads(out[4])["nftables"], "table": parts_of(out[5])}


def prepare(host: RouteHost, case: Case, backend: str) -> None:
    legacy = "; ".join("%s -t nat -F; %s -t nat -X" % (tool, tool) for tool in TOOLS[2:])
    script = ["nft flush ruleset; if grep -q nat /proc/net/ip_tables_names /proc/net/ip6_tables_names; then %s; fi" % legacy]
    script.append("rm -rf /etc/kindnet /var/lib/kindnet /run/kindnet")
    if case.foreign:
        script.append("nft -f - <<'.'\n%s.\n" % FOREIGN_NFT)
        script += ["%s-restore -c <<'.'\n%s.\n" % (tool, FOREIGN) for tool in TOOLS if backend == "nftables" or backend[-3:] == tool[-3:]]
    host.sh("\n".join(script))
    if case.earlier is not None:
        host.module(name="kindnet_masq", **case.earlier)
    if case.damage:
        host.sh("\n".join("%s 2>/dev/null || true" % command for command in case.damage))


def judge(args: dict[str, Any]) -> Any:
    def judged(result: dict[str, Any], told: list[Said], before: State, after: State) -> None:
        by_subject = {one.subject: one for one in told}
        expected = set()
        for tool in TOOLS:
            was, now = before.kernel["tables"][tool], after.kernel["tables"][tool]
            for chain in NAMES:
                sides = rules_of(was, chain), rules_of(now, chain)
                if [bare(r) for r in sides[0] or ()] != [bare(r) for r in sides[1] or ()] or (sides[0] is None) != (sides[1] is None):
                    expected.add(assert_said(by_subject, "%s chain nat/%s" % (tool, chain), *sides))
                else:
                    assert sides[0] == sides[1], "laid anew, though right"
                jumps = [[line for line in lines if leads_to(line, chain)] for lines in (was, now)]
                if places(was, chain) != places(now, chain):
                    expected.add(assert_said(by_subject, "%s jump nat/POSTROUTING to %s" % (tool, chain), *(some or None for some in jumps)))
            assert others(was) == others(now), ("rules of others", tool)
        if before.kernel["table"] != after.kernel["table"]:
            expected.add(TABLE)
            assert_table(by_subject[TABLE], before.kernel["table"], after.kernel["table"])
        assert strangers(before) == strangers(after), "tables of others"
        assert {one.subject for one in told if one.subject != "/etc/kindnet/desired.json"} == expected, (told, expected)
        if not result.get("failed") and args.get("state") != "absent":
            assert_as_wanted(args, after.kernel)
        elif not result.get("failed") and not result["notes"]:
            assert all(rules_of(lines, NAMES[0]) is None for lines in after.kernel["tables"].values()), after.kernel

    return judged


# --- iptables, by what iptables-save prints


def bare(line: str) -> str:
    """A rule without its counters and its chain."""
    return re.sub(r"^\[\d+:\d+\] -A \S+ ", "", line)


def rules_of(lines: list[str], chain: str) -> list[str] | None:
    if not any(line.startswith(":%s " % chain) for line in lines):
        return None
    return [line for line in lines if re.match(r"\[\d+:\d+\] -A %s( |$)" % re.escape(chain), line)]


def leads_to(line: str, chain: str) -> bool:
    return bool(re.match(r"\[\d+:\d+\] -A POSTROUTING .*-[jg] %s$" % re.escape(chain), line))


def places(lines: list[str], chain: str) -> list[str]:
    """POSTROUTING in order, less counters and what leads to other chains of ours."""
    rest = [name for name in NAMES if name != chain]
    return [bare(line) for line in lines if "-A POSTROUTING" in line and not any(leads_to(line, name) for name in rest)]


def others(lines: list[str]) -> list[str]:
    ours = [line for chain in NAMES for line in (rules_of(lines, chain) or [])]
    # Looking makes a nat table where there was none; it has then but its four chains.
    return [
        line
        for line in lines
        if line not in ours and not any(leads_to(line, c) or line.startswith(":%s " % c) for c in NAMES) and line[:1] == "["
        or line.startswith(":") and line.endswith(" -") and not any(line.startswith(":%s " % c) for c in NAMES)
    ]


def shown(rule: str) -> str:
    """Without the comments that say whose it is."""
    return re.sub(r'-m comment --comment "%s[^"]*" ' % OWN, "", bare(rule))


def assert_said(by_subject: dict[str, Said], subject: str, was: list[str] | None, now: list[str] | None) -> str:
    assert subject in by_subject, ("changed, and not said", subject, was, now)
    one = by_subject[subject]
    assert one.action == ("add" if was is None else "remove" if now is None else "replace"), (one, was, now)
    for text, rules in ((one.before, was), (one.after, now)):
        assert text == ("" if rules is None else "; ".join(map(shown, rules)) or "empty"), (one, rules)
    return subject


# --- nftables, by what nft lists


def parts_of(text: str) -> dict[str, Any] | None:
    """Our table by the names of its sets and chains: the elements, and the rules less their counters and our comments."""
    if not text.strip():
        return None
    parts: dict[str, Any] = {}
    for kind, name, body in re.findall(r"^\t(set|chain|map|counter) (\S+) \{\n(.*?)^\t\}", text, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in body.splitlines()]
        if kind == "set":
            elements = re.search(r"elements = \{(.*?)\}", body, re.DOTALL)
            parts[name] = [one.strip() for one in elements.group(1).split(",")] if elements else []
        else:
            lines = [re.sub(r"^type (\S+) hook (\S+) priority (\S+); policy (\S+);$", r"\1 \2 \3 \4", line) for line in lines]
            parts[name] = [re.sub(r'( comment "%s[^"]*")|\bcounter ' % OWN, "", line) for line in lines if line]
    return parts


def assert_table(one: Said, was: dict[str, Any] | None, now: dict[str, Any] | None) -> None:
    assert one.action == ("add" if was is None else "remove" if now is None else "replace"), (one, was, now)
    for text, parts in ((one.before, was), (one.after, now)):
        if parts is None:
            assert text == "", one
            continue
        told = dict(part.partition(": ")[::2] for part in text.split(". ") if ": " in part)
        extra = [part for part in text.split(". ") if ": " not in part and part != "empty"]
        for name, content in parts.items():
            if name in told:
                separator = ", " if name.endswith(("_ipv4", "_ipv6")) else "; "
                assert told.pop(name) == (separator.join(content) or "empty"), (name, content, one)
            else:
                assert any(name in part for part in extra), ("not told", name, one)
        assert not told, (told, one, parts)


def strangers(state: State) -> list[Any]:
    """All objects of nftables that are in no table of ours, nor of iptables, with handles and counters."""
    found = []
    for item in state.kernel["ruleset"]:
        ((kind, value),) = item.items()
        table = value.get("table", value.get("name"))
        if kind != "metainfo" and (value.get("family"), table) not in (("ip", "nat"), ("ip6", "nat"), ("inet", "kindnet")):
            found.append(item)
    return found


# --- What the arguments say


def assert_as_wanted(args: dict[str, Any], kernel: dict[str, Any]) -> None:
    backend = args["backend"]
    chain = args.get("chain", NAMES[0])
    for tool in TOOLS:
        lines = kernel["tables"][tool]
        family = 6 if tool.startswith("ip6") else 4
        spared = [c for c in [*args.get("cluster_cidrs", []), *args.get("non_masquerade_cidrs", [])] if ipaddress.ip_network(c).version == family]
        used = any(ipaddress.ip_network(c).version == family for c in args.get("cluster_cidrs", []))
        if args.get("masquerade_link_local") is False and family == 4:
            spared.append("169.254.0.0/16")
        here = used and tool == backend.replace("iptables", "ip6tables" if family == 6 else "iptables")
        for name in NAMES:
            jumps = [line for line in lines if leads_to(line, name)]
            if not (here and name == chain):
                # One of another name stays where nobody recorded it as ours.
                assert name != chain or (rules_of(lines, name) is None and not jumps), (tool, name, lines)
                continue
            rules = [bare(rule) for rule in rules_of(lines, name) or ()]
            masquerade = MASQUERADE + (" --random-fully" if args.get("random_fully") else "")
            assert rules == [RETURN.format(cidr=c) for c in dict.fromkeys(spared)] + [masquerade], (tool, rules)
            assert [bare(j) for j in jumps] == [JUMP.format(chain=name)], jumps
            order = places(lines, name)
            position, at = args.get("jump_position", "last"), order.index(JUMP.format(chain=name))
            assert position != "first" or at == 0, order
            before = [i for i, rule in enumerate(order) if rule.endswith("-j KUBE-POSTROUTING")]
            assert not position.startswith("before") or not before or at < before[0], order
    if backend != "nftables":
        return
    table = dict(kernel["table"])
    families = sorted({ipaddress.ip_network(c).version for c in args["cluster_cidrs"]})
    for family in families:
        spared = [c for c in [*args["cluster_cidrs"], *args.get("non_masquerade_cidrs", [])] if ipaddress.ip_network(c).version == family]
        if args.get("masquerade_link_local") is False and family == 4:
            spared.append("169.254.0.0/16")
        found = [ipaddress.ip_network(one) for one in table.pop("non_masquerade_ipv%d" % family)]
        assert found == list(ipaddress.collapse_addresses(map(ipaddress.ip_network, spared))), (found, spared)
    verdict = "masquerade fully-random" if args.get("random_fully") else "masquerade"
    returns = ["%s daddr @non_masquerade_ipv%d return" % ({4: "ip", 6: "ip6"}[f], f) for f in families]
    assert table.pop(chain) == returns + ["meta nfproto ipv%d %s" % (f, verdict) for f in families], kernel["table"]
    priority = 99 if args.get("jump_position") == "first" else 101
    assert table.pop("postrouting") == ["nat postrouting %d accept" % priority, "fib daddr type != local jump %s" % chain], kernel["table"]
    assert not table, table
