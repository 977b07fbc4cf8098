# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of routes: tables of cases, and a kernel in miniature that applies whatever is planned."""

from __future__ import annotations

__metaclass__ = type

import socket
from collections import namedtuple

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._node_table import Node
from ansible_collections.kindnet.host.plugins.module_utils._on_link import OnLink, overlap_with_node_network
from ansible_collections.kindnet.host.plugins.module_utils._plan_routes import Live, plan
from ansible_collections.kindnet.host.plugins.module_utils._removal_guard import removal_guard, renumbered
from ansible_collections.kindnet.host.plugins.module_utils._route import Hop, Route, cidr_text, packed
from ansible_collections.kindnet.host.plugins.module_utils._wanted_routes import is_as_wanted, relevance
from hypothesis import given, settings
from hypothesis import strategies as st

V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)
LINKS = {1: "lo", 2: "eth0", 3: "eth1"}
PEERS = [
    ["one", "10.244.1.0/24", "172.18.0.3"],
    ["one", "fd00:244:1::/64", "fd00:18::3"],
    ["two", "10.244.2.0/24", "172.18.0.4"],
    ["two", "fd00:244:2::/64", "fd00:18::4"],
]
SECTION = {"protocol": 107, "table": 254, "node_name": "me", "peers": PEERS}


def route(dst, via="", protocol=107, **fields):
    address, _slash, prefix = dst.partition("/")
    family = V6 if ":" in dst else V4
    values = {"table": 254, "tos": 0, "metric": 1024 if family == V6 else 0, "scope": 0, "type": 1, "oif": 2}
    values.update(fields)
    gateway = socket.inet_pton(family, via) if via else b""
    return Route(family=family, dst=socket.inet_pton(family, address), prefix=int(prefix), gateway=gateway, protocol=protocol, **values)


def hop(via):
    return Hop(socket.inet_pton(V6 if ":" in via else V4, via), 2, 0, 1)


# What the kernel of a host in the node network has by itself.
BASE = (
    route("172.18.0.0/16", protocol=2, scope=253),
    route("fd00:18::/64", protocol=2, metric=256),
    route("172.18.0.2/32", protocol=2, scope=254, type=2, table=255),
    route("172.18.255.255/32", protocol=2, scope=253, type=3, table=255),
    route("fd00:18::2/128", protocol=2, type=2, table=255, metric=0),
)
OURS = tuple(route(cidr, hop) for _name, cidr, hop in PEERS)


def live(*routes):
    everything = BASE + routes
    return Live(tuple(r for r in everything if r.table == 254 and r.protocol == 107), everything, LINKS)


@pytest.mark.parametrize(
    ("wanted", "own"),
    [
        (True, OURS),
        (True, OURS[::-1]),
        (False, OURS[1:]),
        (False, OURS + (route("10.244.9.0/24", "172.18.0.9"),)),
        (False, OURS[:3] + (route("fd00:244:2::/64", "fd00:18::9"),)),
        (False, OURS[:3] + (OURS[2],)),
        (False, OURS[:3] + (OURS[3]._replace(metric=512),)),
        (False, OURS[:3] + (OURS[3]._replace(gateway=b"", hops=(hop("fd00:18::4"), hop("fd00:18::5"))),)),
        (False, (OURS[0]._replace(scope=253),) + OURS[1:]),
        (False, (OURS[0]._replace(type=6, gateway=b""),) + OURS[1:]),
        (False, (OURS[0]._replace(tos=8),) + OURS[1:]),
        (False, (OURS[0]._replace(prefsrc=b"\1\2\3\4"),) + OURS[1:]),
        (False, (OURS[0]._replace(nexthop_id=7),) + OURS[1:]),
        (False, (OURS[0]._replace(extra=(8,)),) + OURS[1:]),
        (False, (OURS[0]._replace(prefix=25),) + OURS[1:]),
    ],
)
def test_is_as_wanted(wanted, own):
    assert is_as_wanted(SECTION, own) is wanted
    # What takes the short way and what takes the long one must come to the same.
    assert bool(plan(SECTION, live(*own)).changes or plan(SECTION, live(*own)).problems) is not wanted


def test_what_is_planned_reads_like_ip_route():
    p = plan(SECTION, live(OURS[0]._replace(gateway=b"\xac\x12\0\x09"), *OURS[1:3], route("10.9.0.0/24", "172.18.0.9", metric=5, tos=8)))
    assert [(c.subject, c.action, c.before, c.after, c.reason) for c in p.changes] == [
        ("route 10.244.1.0/24", "replace", "via 172.18.0.9 dev eth0 proto 107", "via 172.18.0.3 proto 107", "one is now at 172.18.0.3"),
        ("route fd00:244:2::/64", "add", "", "via fd00:18::4 proto 107 metric 1024", "missing"),
        ("route 10.9.0.0/24", "remove", "via 172.18.0.9 dev eth0 proto 107 tos 0x08 metric 5", "", "no peer has this pod CIDR"),
    ]
    assert p.details["unchanged"] == 2


ONLINK = {
    "172.18.0.3": "",
    "172.18.0.2": "is an address of this host itself",
    "172.18.255.255": "is not on-link: the route to it is 'broadcast",
    "10.1.1.1": "is not on-link: no interface",
    "10.2.0.1": "",  # IPv4 overlooks the longer prefix via a gateway
    "10.3.0.1": "is not on-link: no interface",  # and one that is dead
    "10.4.0.1": "is not on-link: no interface",  # and one for a tos
    "10.5.0.1": "is not on-link: the route to it is 'unreachable",
    "fd00:18::3": "",
    "fd00:18::2": "is an address of this host itself",
    "fd00:99::1": "is not on-link: the route to it is 'via fd00:18::1",  # IPv6 does not overlook it
    "fd00:18::7": "is not on-link: the route to it is 'via fd00:18::1",
    "fd00:18::8": "is not on-link: the route to it is 'blackhole",
    "fd00:98::": "",  # any router of that link
    "fd00:97::1": "",  # the lower metric is the link
}


@pytest.mark.parametrize("address", ONLINK)
def test_on_link(address):
    routes = BASE + (
        route("0.0.0.0/0", "172.18.0.1", 3),
        route("10.2.0.0/16", protocol=3, scope=253),
        route("10.2.0.1/32", "172.18.0.1", 3),
        route("10.3.0.0/16", protocol=3, scope=253, flags=1),
        route("10.4.0.0/16", protocol=3, scope=253, tos=8),
        route("10.5.0.0/16", protocol=3, scope=253, type=7),
        route("::/0", "fd00:18::1", 9),
        route("fd00:18::7/128", "fd00:18::1", 3),
        route("fd00:18::8/128", protocol=3, type=6),
        route("fd00:98::/128", protocol=2, type=4, table=255, metric=0),
        route("fd00:97::/64", "fd00:18::1", 3, metric=100),
        route("fd00:97::/64", protocol=2, metric=50),
    )
    family, gateway = packed(address)
    trouble = OnLink(routes, 254).trouble(family, gateway)
    assert trouble.startswith(ONLINK[address]) and bool(trouble) == bool(ONLINK[address])


def test_on_link_asks_a_table_of_its_own_first():
    default_there = route("::/0", "fd00:18::1", 3, table=100)
    connected_there = route("172.20.0.0/16", protocol=3, scope=253, table=100)
    asked = OnLink(BASE + (default_there, connected_there), 100)
    assert [asked.trouble(*packed(a)) for a in ("fd00:18::3", "172.18.0.3", "172.20.0.1")] == ["", "", ""]
    assert OnLink(BASE + (connected_there,), 254).trouble(*packed("172.20.0.1"))


NETWORKS = BASE + (
    route("0.0.0.0/0", oif=2, protocol=3, scope=253),  # a default route to a link
    route("::/0", oif=2, protocol=3),
    route("10.244.0.5/32", oif=7, protocol=3, scope=253),  # a pod of this host
    route("10.244.0.0/24", oif=8, protocol=2, scope=253),  # a bridge for pods
    route("192.168.0.0/16", oif=3, protocol=2, scope=253),  # a link to others
    route("172.18.0.7/32", oif=2, protocol=3, scope=253),
    route("172.31.0.7/32", oif=9, protocol=3, scope=253),  # a tunnel
    route("172.31.0.0/16", oif=3, protocol=2, scope=253),
    route("10.96.0.0/12", "172.18.0.1", 3),
    route("fd00:96::/48", "fd00:18::1", 3),
    route("10.9.0.0/16", protocol=3, scope=253, type=7),
    route("172.25.0.9/32", protocol=3, type=9, scope=253),
    route("172.25.0.0/16", protocol=2, scope=253),
)
ME = ("me", ["172.18.0.2", "fd00:18::2"], ["10.244.0.0/24", "fd00:244::/64"])
ONE = ("one", ["172.18.0.3", "fd00:18::3"], ["10.244.1.0/24", "fd00:244:1::/64"])
NODE = namedtuple("NODE", "name node_ips pod_cidrs")

OVERLAPS = {
    "none": ([ME, ONE], None),
    "a peer's inside": ([ME, ONE, ("b", ["172.18.0.4"], ["172.18.5.0/24"])], ("b", "172.18.5.0/24", "172.18.0.0/16", "me", "172.18.0.2")),
    "its own inside": ([("me", ["172.18.0.2"], ["172.18.5.0/24"]), ONE], ("me", "172.18.5.0/24", "172.18.0.0/16", "me", "172.18.0.2")),
    "alone": ([("me", ["172.18.0.2"], ["172.18.0.128/25"])], ("me", "172.18.0.128/25", "172.18.0.0/16", "me", "172.18.0.2")),
    "just the network": ([ME, ("b", ["172.18.0.4"], ["172.18.0.0/16"])], ("b", "172.18.0.0/16", "172.18.0.0/16", "me", "172.18.0.2")),
    "around": ([ME, ("b", ["172.18.0.4"], ["172.16.0.0/12"])], ("b", "172.16.0.0/12", "172.18.0.0/16", "me", "172.18.0.2")),
    "beside": ([ME, ("b", ["172.18.0.4"], ["172.19.0.0/16"]), ("c", ["172.18.0.5"], ["172.17.255.0/24"])], None),
    "the first of several": (
        [ME, ("b", ["172.18.0.4"], ["172.18.9.0/24"]), ("c", ["172.18.0.5"], ["172.18.5.0/24"])],
        ("c", "172.18.5.0/24", "172.18.0.0/16", "me", "172.18.0.2"),
    ),
    "IPv6": ([ME, ("b", ["fd00:18::4"], ["fd00:18:0:0:5::/80"])], ("b", "fd00:18:0:0:5::/80", "fd00:18::/64", "me", "fd00:18::2")),
    "a family that this host has not": ([("me", ["172.18.0.2"], ["10.244.0.0/24"]), ("b", ["fd00:18::4"], ["fd00:18:0:0:5::/80"])], None),
    "a second link": (
        [ME, ("b", ["192.168.7.7"], ["10.244.7.0/24"]), ("c", ["172.18.0.5"], ["192.168.5.0/24"])],
        ("c", "192.168.5.0/24", "192.168.0.0/16", "b", "192.168.7.7"),
    ),
    "a link that leads to no peer": ([ME, ("c", ["172.18.0.5"], ["192.168.5.0/24"])], None),
    "a host route beside the network": (
        [("me", ["10.0.0.2"], ["10.244.0.0/24"]), ("b", ["172.18.0.7"], ["172.18.5.0/24"])],
        ("b", "172.18.5.0/24", "172.18.0.0/16", "b", "172.18.0.7"),
    ),
    "a host route by another link": ([("me", ["10.0.0.2"], ["10.244.0.0/24"]), ("b", ["172.31.0.7"], ["172.31.5.0/24"])], None),
    "via a gateway": ([ME, ("b", ["10.96.0.7"], ["10.97.5.0/24"]), ("c", ["fd00:96::7"], ["fd00:96:0:5::/64"])], None),
    "unreachable": ([ME, ("b", ["10.9.0.7"], ["10.9.5.0/24"])], None),
    "of a route that says to look elsewhere": ([ME, ("b", ["172.25.0.9"], ["172.25.5.0/24"])], None),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_pod_cidrs_in_the_node_network(case):
    nodes, expected = OVERLAPS[case]
    found = overlap_with_node_network([NODE(*n) for n in nodes], "me", OnLink(NETWORKS, 254))
    assert (found and tuple(found._replace(network=cidr_text(found.network)))) == expected


def test_a_network_in_a_table_of_its_own():
    nodes = [NODE(*ME), NODE("b", ["172.20.0.4"], ["172.20.5.0/24"])]
    routes = BASE + (route("172.20.0.0/16", protocol=3, scope=253, table=100),)
    assert overlap_with_node_network(nodes, "me", OnLink(routes, 100)).node == "b"
    assert overlap_with_node_network(nodes, "me", OnLink(routes, 254)) is None


def peers(*names):
    return [[n, "10.0.%s.0/24" % n[1:], "172.18.0.%s" % n[1:]] for n in names]


def own(*names):
    return [route(cidr, hop) for _name, cidr, hop in peers(*names)]


TEN, FIFTY = ["p%d" % i for i in range(1, 11)], ["p%d" % i for i in range(1, 51)]


@pytest.mark.parametrize(
    ("recorded", "wanted", "routes", "most", "expected"),
    [
        (peers(*TEN), peers(*TEN), own(*TEN), None, ([], 2, False)),
        ([], peers(*TEN), [], None, ([], 2, False)),
        ([], [], [], None, ([], 2, False)),
        (peers(*TEN), peers(*TEN[2:]), own(*TEN), None, (["p1", "p2"], 2, False)),
        (peers(*TEN), peers(*TEN[3:]), own(*TEN), None, (["p1", "p2", "p3"], 2, False)),
        (peers(*FIFTY), peers(*FIFTY[5:]), own(*FIFTY), None, (["p1", "p2", "p3", "p4", "p5"], 5, False)),
        (peers(*TEN), peers(*TEN[1:]), [], 0, (["p1"], 0, False)),
        # every last one, though few
        (peers("p1"), [], own("p1"), None, (["p1"], 2, True)),
        (peers("p1"), peers("p2"), own("p1"), None, (["p1"], 2, True)),
        # another name, address or pod CIDR
        (peers("p1"), [["q1", "10.0.1.0/24", "172.18.0.1"]], own("p1"), 0, ([], 0, False)),
        (peers("p1"), [["p1", "10.0.7.0/24", "172.18.0.7"]], own("p1"), 0, ([], 0, False)),
        # one of two pod CIDRs goes to a new name, the other to nobody
        ([["p1", "10.0.1.0/24", "x"], ["p1", "10.0.2.0/24", "x"]], [["q", "10.0.1.0/24", "x"]], [], None, (["p1"], 2, True)),
        # nothing recorded: the routes tell
        ([], peers(*TEN[3:]), own(*TEN), None, (["10.0.%d.0/24 via 172.18.0.%d" % (i, i) for i in (1, 2, 3)], 2, False)),
        ([], peers("p2"), own("p1"), None, (["10.0.1.0/24 via 172.18.0.1"], 2, True)),
        ([], [["p1", "10.0.1.0/24", "172.18.0.7"]], own("p1"), None, ([], 2, False)),
        # recorded, and somebody's stray route beside
        (peers("p1", "p2"), peers("p1", "p2"), own("p1", "p2", "p9"), 0, (["10.0.9.0/24 via 172.18.0.9"], 0, False)),
        # several routes by one unknown next hop are one peer; one that leads nowhere is none
        ([], peers("p1"), [*own("p1"), route("10.7.0.0/24", "172.18.0.9"), route("10.8.0.0/24", "172.18.0.9"), route("10.9.0.0/24", type=6)], None,
         (["10.7.0.0/24, 10.8.0.0/24 via 172.18.0.9"], 2, False)),
    ],
)  # fmt: skip
def test_removal_guard(recorded, wanted, routes, most, expected):
    assert removal_guard(recorded, wanted, routes, most) == expected


def test_the_guard_excuses_those_who_are_meant_to_go_and_nobody_else():
    assert removal_guard(peers(*TEN), peers(*TEN[1:]), own(*TEN), 0, ["p1"]) == ([], 0, False)
    assert removal_guard(peers("p1"), [], own("p1"), None, ["p1"]) == ([], 2, False)
    assert removal_guard(peers("p1", "p2"), [], own("p1", "p2"), None, ["p1"]) == (["p2"], 2, True)
    assert removal_guard(peers(*TEN), peers(*TEN[5:]), own(*TEN), None, ["p1"]) == (["p2", "p3", "p4", "p5"], 2, False)


RENUMBERED = [
    ("nothing new", {"one": ["10.244.1.0/24", "fd00:244:1::/64"], "two": ["10.244.2.0/24", "fd00:244:2::/64"]}, [], {}),
    ("one family", {"one": ["10.244.9.0/24", "fd00:244:1::/64"], "two": ["10.244.2.0/24", "fd00:244:2::/64"]}, [], {"one": ["10.244.1.0/24"]}),
    ("a family less", {"one": ["10.244.1.0/24"], "two": ["10.244.2.0/24", "fd00:244:2::/64"]}, [], {"one": ["fd00:244:1::/64"]}),
    ("known to be well", {"one": ["10.244.9.0/24"], "two": ["10.244.9.1/32"]}, ["one"], {"two": ["10.244.2.0/24", "fd00:244:2::/64"]}),
    ("gone, and another under its pod CIDR", {"three": ["10.244.1.0/24"], "two": ["10.244.2.0/24", "fd00:244:2::/64"]}, [], {}),
]


@pytest.mark.parametrize("table, meant, expected", [case[1:] for case in RENUMBERED], ids=[case[0] for case in RENUMBERED])
def test_who_is_renumbered(table, meant, expected):
    nodes = [Node(name, (), tuple(cidrs)) for name, cidrs in table.items()]
    assert renumbered(PEERS, nodes, meant) == expected


class Kernel:
    """How Linux keeps routes: the first of the lowest metric counts, a delete takes the first that fits, a replace the first at its place."""

    def __init__(self, routes):
        self.routes = sorted(routes, key=self.order)

    @staticmethod
    def order(r):
        # ahead of higher metrics, as the kernel keeps them; stable for the others
        return (r.family, r.table, r.dst, r.prefix, -r.tos, r.metric)

    @staticmethod
    def place(r):
        return (r.family, r.table, r.dst, r.prefix, r.tos, r.metric)

    def apply(self, change):
        wanted = change.op.route
        at = [i for i, r in enumerate(self.routes) if self.place(r) == self.place(wanted)]
        if change.action == "add":
            assert not at, "EEXIST"
            self.routes.append(wanted)
            self.routes.sort(key=self.order)
        elif change.action == "replace":
            assert len(at) == 1, "a replace of one among several, or of none"
            self.routes[at[0]] = wanted
        else:
            fits = [i for i in at if self.fits(self.routes[i], wanted)]
            assert fits, "ESRCH"
            del self.routes[fits[0]]

    @staticmethod
    def fits(r, asked):
        if (r.protocol, r.type, r.scope) != (asked.protocol, asked.type, asked.scope):
            return False
        if asked.prefsrc and asked.prefsrc != r.prefsrc:
            return False
        if asked.nexthop_id:
            return r.nexthop_id == asked.nexthop_id
        if asked.hops:
            have = r.hops or (Hop(r.gateway, r.oif, 0, 1),)
            return all(h.gateway == a.gateway for h, a in zip(have, asked.hops))
        return not asked.gateway or (r.hops[0].gateway if r.hops else r.gateway) == asked.gateway


DSTS = [cidr for _name, cidr, _hop in PEERS[:2]] + ["10.244.9.0/24", "fd00:244:9::/64"]


@st.composite
def any_route(draw):
    dst = draw(st.sampled_from(DSTS))
    six = ":" in dst
    vias = ["fd00:18::3", "fd00:18::4", "fd00:18::9"] if six else ["172.18.0.3", "172.18.0.4", "172.18.0.9"]
    kind = draw(st.sampled_from(["via", "via", "via", "blackhole", "link", "multipath"]))
    r = route(
        dst,
        draw(st.sampled_from(vias)) if kind == "via" else "",
        draw(st.sampled_from([107, 107, 3, 4])),
        metric=draw(st.sampled_from([1024, 1024, 512, 2048] if six else [0, 0, 50])),
        tos=0 if six else draw(st.sampled_from([0, 0, 0, 8])),
        table=draw(st.sampled_from([254, 254, 254, 100])),
    )
    if kind == "blackhole":
        return r._replace(type=6, oif=0)
    if kind == "link":
        return r._replace(scope=0 if six else 253)
    if kind == "multipath":
        return r._replace(hops=tuple(hop(v) for v in draw(st.permutations(vias))[:2]), oif=0)
    return r._replace(prefsrc=b"\xac\x12\0\2") if not six and draw(st.integers(0, 5)) == 0 else r


@st.composite
def any_routes(draw):
    """Routes as they can be together: IPv6 joins those of one metric that have a gateway."""
    routes, joined = [], set()
    for r in draw(st.lists(any_route(), max_size=6)):
        key = (r.table, r.dst, r.metric)
        if r.family == V6 and (r.gateway or r.hops):
            if key in joined:
                continue
            joined.add(key)
        if not any(o._replace(oif=0) == r._replace(oif=0) for o in routes):
            routes.append(r)
    return sorted(routes, key=Kernel.order)


@settings(max_examples=800, deadline=None, derandomize=True)
@given(any_routes(), st.booleans(), st.booleans())
def test_any_state_is_right_after_one_run_and_stays_so(routes, takeover, persisted):
    section = dict(SECTION, takeover=takeover, cluster_cidrs=["10.244.0.0/16", "fd00:244::/32"] if persisted else [], known_addresses=[])
    kernel = Kernel(BASE + tuple(routes))
    first = plan(section, live(*routes))
    for change in first.changes:
        kernel.apply(change)

    def foreign(rs):
        return [r for r in rs if not (r.table == 254 and r.protocol == 107)]

    if takeover:
        gone = [r for r in foreign(routes) if r not in kernel.routes]
        assert all(r.protocol == 3 and r.gateway and r.table == 254 for r in gone)
    else:
        assert foreign(kernel.routes) == foreign(Kernel(BASE + tuple(routes)).routes)
    after = [r for r in kernel.routes if r not in BASE]
    second = plan(section, live(*after))
    assert second.changes == () and second.problems == first.problems
    # Each peer is served by the route that the kernel takes, or is a problem by name.
    troubled = {p.subject for p in first.problems}
    for _name, cidr, next_hop in PEERS:
        family, gateway = packed(next_hop)
        there = [r for r in after if r.table == 254 and cidr_text(r) == cidr and not r.tos]
        if "route %s" % cidr not in troubled:
            taken = min(there, key=lambda r: r.metric)
            assert taken.gateway == gateway and not taken.hops and taken.type == 1, (taken, first)
    # Nothing of ours is left where none is wanted, but for what others have joined.
    for r in after:
        joined = any(o.family == V6 and o.hops and Kernel.place(o) == Kernel.place(r) for o in after)
        if r.table == 254 and r.protocol == 107 and not joined:
            assert [hop for _name, cidr, hop in PEERS if cidr == cidr_text(r)], r
    assert len({c.subject for c in first.changes}) == len(first.changes)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(any_routes(), st.booleans())
def test_what_has_no_part_in_the_plan_need_not_be_kept(routes, takeover):
    section = dict(SECTION, takeover=takeover, cluster_cidrs=["10.244.0.0/16"], known_addresses=[])
    others = (route("11.0.0.0/8", "172.18.0.9", 186), route("0.0.0.0/0", "172.18.0.1", 16), route("fd01::/64", "fd00:18::9", 186))
    whole = live(*routes, *others)
    relevant = relevance(section)
    kept = whole._replace(everything=tuple(r for r in whole.everything if relevant(r)))
    assert others[0] not in kept.everything and others[2] not in kept.everything
    assert plan(section, kept) == plan(section, whole)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(any_routes())
def test_absent_takes_out_what_is_ours(routes):
    section = {"state": "absent", "protocol": 107, "table": 254}
    mine = tuple(r for r in routes if r.protocol == 107 and r.table == 254)
    kernel = Kernel(routes)
    p = plan(section, Live(mine, None, LINKS))
    for change in p.changes:
        kernel.apply(change)
    left = [r for r in kernel.routes if r.protocol == 107 and r.table == 254]
    joined = [Kernel.place(r) for r in routes if r.family == V6 and r.hops]
    assert all(Kernel.place(r) in joined for r in left) and len(left) == len(p.problems)
    assert [r for r in routes if r not in mine] == [r for r in kernel.routes if r not in left]


def test_new_routes_come_before_old_ones_go():
    p = plan(SECTION, live(route("10.244.9.0/24", "172.18.0.3"), route("10.244.1.0/24", "172.18.0.3", metric=7)))
    assert [c.action for c in p.changes] == ["add"] * 4 + ["remove"] * 2
    # The one of another metric goes only if its successor came.
    assert [c.op.after for c in p.changes if c.action == "remove"] == ["route 10.244.1.0/24", ""]


def test_links_without_a_carrier_are_told_once():
    own_down = tuple(r._replace(flags=0x10) for r in OURS)
    for state in (Live(own_down, None, LINKS), live(*own_down)):
        p = plan(SECTION, state)
        assert p.notes == ("4 of the routes lead out of eth0, which has no link",) and not p.changes and not p.problems
