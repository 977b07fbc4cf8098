# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States of a routing table, arguments of kindnet_route, and what became of the one by the other, judged by ``ip``."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

from check_mode import Said, State
from hypothesis import strategies as st
from route_host import RouteHost, node

ME = node("me", "172.18.0.2 fd00:18::2", "10.244.0.0/24 fd00:10:244::/64")
CLUSTER = ["10.244.0.0/16", "fd00:10:244::/48"]
HOPS4, HOPS6 = ["172.18.0.3", "172.18.0.4", "172.18.0.9"], ["fd00:18::3", "fd00:18::4", "fd00:18::9"]
OFF_LINK4 = "192.0.2.9"
# Of peers, and two that nobody has.
CIDRS4 = ["10.244.1.0/24", "10.244.2.0/24", "10.244.8.0/24", "10.99.0.0/16"]
CIDRS6 = ["fd00:10:244:1::/64", "fd00:10:244:2::/64", "fd00:10:244:8::/64", "fd00:99::/64"]

# Everything that `ip route` calls a route, to be filled with a destination, a next hop and a protocol.
FORMS4 = [
    "{dst} via {hop} proto {proto}",
    "{dst} via {hop} proto {proto} metric 50",
    "{dst} via {hop} proto {proto} src 172.18.0.2",
    "{dst} via {hop} proto {proto} mtu 1300",
    "{dst} via {hop} proto {proto} tos 0x10",
    "{dst} via {hop} dev eth0 onlink proto {proto}",
    "{dst} via {hop} proto {proto} table 100",
    "{dst} dev eth1 proto {proto}",
    "{dst} nhid 7 proto {proto}",
    "{dst} proto {proto} nexthop via {hop} nexthop via 172.18.0.8",
    "blackhole {dst} proto {proto}",
    "unreachable {dst} proto {proto} metric 9",
]
FORMS6 = [
    "{dst} via {hop} proto {proto}",
    "{dst} via {hop} proto {proto} metric 50",
    "{dst} via {hop} proto {proto} metric 2048",
    "{dst} via {hop} proto {proto} mtu 1300",
    "{dst} via {hop} proto {proto} table 100",
    "{dst} dev eth1 proto {proto}",
    "{dst} nhid 8 proto {proto}",
    "{dst} proto {proto} nexthop via {hop} nexthop via fd00:18::8",
    "blackhole {dst} proto {proto}",
]
VERBS = ["add", "append", "prepend", "replace"]
PROTOCOLS = ["107", "static", "boot", "bird"]
NEXTHOPS = ["nexthop add id 7 via 172.18.0.3 dev eth0", "nexthop add id 8 via fd00:18::3 dev eth0"]

# Everything that the above may have left, so that the next state begins from nothing.
CLEAN = "".join("route flush table %s proto %s\n" % (table, proto) for table in ("main", "100") for proto in PROTOCOLS)
FORGET = "rm -rf /etc/kindnet /var/lib/kindnet /run/kindnet"


class Case(NamedTuple):
    earlier: dict[str, Any] | None  # arguments of a converge before
    damage: list[str]  # lines for `ip -batch`, of which some may be refused
    args: dict[str, Any]  # often those of the earlier converge again


def _commands(v6: bool) -> st.SearchStrategy[str]:
    forms, cidrs, hops = (FORMS6, CIDRS6, HOPS6) if v6 else (FORMS4, CIDRS4, HOPS4)
    made = st.builds(
        lambda verb, form, dst, hop, proto: "route %s %s" % (verb, form.format(dst=dst, hop=hop, proto=proto)),
        st.sampled_from(VERBS),
        st.sampled_from(forms),
        st.sampled_from(cidrs),
        st.sampled_from(hops),
        st.sampled_from(PROTOCOLS),
    )
    return st.one_of(made, st.builds("route del {} proto 107".format, st.sampled_from(cidrs)))


def _peer(number: int) -> st.SearchStrategy[dict[str, Any]]:
    """A peer that has moved, or got another pod CIDR, or lost a family, in one table and not in the other."""
    ips = st.tuples(st.sampled_from([["172.18.0.%d" % (2 + number)], ["172.18.0.%d" % (22 + number)]]), st.sampled_from([["fd00:18::%d" % (2 + number)], []]))
    cidrs = st.sampled_from([["10.244.%d.0/24" % number], ["10.244.%d.0/24" % (20 + number)]])
    return st.builds(
        lambda v4, v6, cidr: {"name": "n%d" % number, "node_ips": v4 + v6, "pod_cidrs": cidr + (["fd00:10:244:%d::/64" % number] if v6 else [])},
        ips.map(lambda both: both[0]),
        ips.map(lambda both: both[1]),
        cidrs,
    )


FAR = node("far", OFF_LINK4, "10.244.8.0/24")
tables = st.builds(
    lambda peers, far: [ME, *(p for p in peers if p), *([FAR] if far else [])],
    st.tuples(*(st.none() | _peer(number) for number in (1, 2, 3))),
    st.sampled_from([False] * 4 + [True]),
)
options = st.fixed_dictionaries(
    {"nodes": tables},
    optional={
        "takeover": st.just(True),
        "cluster_cidrs": st.just(CLUSTER),
        "non_l2": st.just("skip"),
        "max_removals": st.just(0),
        "persist": st.just(False),
    },
).map(lambda given: dict({"node_name": "me", "force_removals": "max_removals" not in given}, **given))
cases = st.builds(
    lambda earlier, damage, args: Case(earlier, damage, earlier if args is None and earlier else args or {"state": "absent"}),
    st.none() | options,
    st.lists(st.one_of(_commands(False), _commands(True)), max_size=6),
    st.one_of(*[options] * 4, st.none()),
)


def kernel(host: RouteHost) -> list[dict[str, Any]]:
    out = host.sh("for family in -4 -6; do ip $family -json -details route show table all; echo; done; ip -json nexthop show")
    rows = [dict(row, family=family) for family, line in zip("46", re.split(r"\n\n?", out)) for row in json.loads(line or "[]")]
    for row in rows:
        row.pop("expires", None)
        if row.get("table") == "main":
            del row["table"]
    return rows


def prepare(host: RouteHost, case: Case) -> None:
    host.sh("for family in -4 -6; do ip $family -force -batch - >/dev/null 2>&1 <<'.' || true\n%s.\ndone; ip nexthop flush; %s" % (CLEAN, FORGET))
    if case.earlier is not None:
        host.module(name="kindnet_route", **case.earlier)
    host.sh("ip -force -batch - >/dev/null 2>&1 <<'.' || true\n%s\n." % "\n".join(NEXTHOPS + case.damage))


def text(row: dict[str, Any]) -> str:
    """A route as `ip route` prints it, less what a diff does not tell of it."""
    words = [row["type"]] if row.get("type", "unicast") != "unicast" else []
    words += ["via", row["gateway"]] if "gateway" in row else []
    words += ["dev", row["dev"]] if "dev" in row and (not words or words[0] == "via") else []
    for hop in row.get("nexthops", ()) if "nhid" not in row else ():
        words += ["nexthop"] + (["via", hop["gateway"]] if "gateway" in hop else []) + ["dev", hop["dev"]]
    words += ["onlink"] if "onlink" in row.get("flags", ()) else []
    words += ["nhid", str(row["nhid"])] if "nhid" in row else []
    words += ["table", row["table"]] if "table" in row else []
    words += ["proto", row["protocol"]]
    words += ["scope", row["scope"]] if row.get("scope", "global") != "global" and row["family"] == "4" else []
    words += ["src", row["prefsrc"]] if "prefsrc" in row else []
    words += ["tos", "0x10"] if row.get("tos") else []
    words += ["metric", str(row["metric"])] if row.get("metric") else []
    return " ".join(words)


def with_interface(said_text: str) -> str:
    """A route that is yet to be made has the interface of its next hop, which is the only one that has such addresses."""
    return re.sub(r"^(via \S+) (?!dev )", r"\1 dev eth0 ", said_text)


def without_blackholes_interface(said_text: str) -> str:
    return re.sub(r"^(blackhole|unreachable) dev lo ", r"\1 ", said_text)


def judge(args: dict[str, Any]) -> Any:
    def judged(result: dict[str, Any], told: list[Said], before: State, after: State) -> None:
        rows = [[r for r in state.kernel if r.get("table", "100") == "100"] for state in (before, after)]
        keys = [[json.dumps(r, sort_keys=True) for r in some] for some in rows]
        gone = [r for r, key in zip(rows[0], keys[0]) if key not in keys[1]]
        come = [r for r, key in zip(rows[1], keys[1]) if key not in keys[0]]
        # What the diff says has gone and come is what has, route by route.
        routes = [one for one in told if one.subject.startswith("route ")]
        assert len(routes) + sum(one.subject == "/etc/kindnet/desired.json" for one in told) == len(told), told
        dst = {one.subject: one.subject.split()[1] for one in routes}
        lost = Counter((dst[o.subject], without_blackholes_interface(o.before)) for o in routes if o.before)
        won = Counter((dst[o.subject], with_interface(o.after)) for o in routes if o.after)
        really_lost = Counter((r["dst"], text(r)) for r in gone)
        really_won = Counter((r["dst"], text(r)) for r in come)
        assert lost - won == really_lost - really_won and won - lost == really_won - really_lost, (routes, gone, come)
        assert {d for d, _text in lost | won} == {r["dst"] for r in gone + come}, (routes, gone, come)
        # Whose they were.
        known = {ip for n in args.get("nodes", ()) for ip in n["node_ips"]}
        for row in gone:
            taken_over = args.get("takeover") and row["protocol"] == "boot" and row.get("gateway") in known
            assert row["protocol"] == "107" and "table" not in row or taken_over, row
        foreign = [[r for r in some if r["protocol"] != "107" and r not in gone] for some in rows]
        assert foreign[0] == foreign[1], "routes of others"
        for row in come:
            assert row["protocol"] == "107" and "table" not in row, row
        # And whether the table is as the arguments say, less what is told apart.
        apart = {r["dst"] for r in result["routes"] if r["action"] in ("foreign", "conflict", "skip", "fail")}
        ours = Counter(
            (r["dst"], r.get("gateway", text(r)), r.get("metric", 0))
            for r in rows[1]
            if r["protocol"] == "107" and "table" not in r and r["dst"] not in apart
        )
        assert ours == Counter(w for w in wanted(args) if w[0] not in apart), (ours, apart)

    return judged


def wanted(args: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [
        (cidr, next(ip for ip in peer["node_ips"] if (":" in ip) is (":" in cidr)), 1024 if ":" in cidr else 0)
        for peer in args.get("nodes", ())
        if peer["name"] != "me"
        for cidr in peer["pod_cidrs"]
    ]
