# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers that are not on-link: what is decided, what is planned for it, and when a pass has nothing to do."""

from __future__ import annotations

__metaclass__ = type

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._non_l2 import decide, parse_gateways, parse_interface
from ansible_collections.kindnet.host.plugins.module_utils._on_link import OnLink
from ansible_collections.kindnet.host.plugins.module_utils._plan_routes import Live, plan
from ansible_collections.kindnet.host.plugins.module_utils._route import FLAG_ONLINK, Route, packed
from ansible_collections.kindnet.host.plugins.module_utils._wanted_routes import is_as_wanted

LINKS = {1: "lo", 2: "eth0", 3: "eth1"}
PEERS = [
    ["near", "10.244.1.0/24", "172.18.0.3"],
    ["near", "fd00:244:1::/64", "fd00:18::3"],
    ["far", "10.244.2.0/24", "10.20.0.9"],
    ["far", "10.244.3.0/24", "10.20.0.9"],
    ["far", "fd00:244:2::/64", "fd00:20::9"],
]
FAR4, FAR6 = "10.20.0.9", "fd00:20::9"


def route(dst, via="", protocol=107, **fields):
    address, _slash, prefix = dst.partition("/")
    family, number = packed(address)
    values = {"table": 254, "tos": 0, "metric": 1024 if ":" in dst else 0, "scope": 0, "type": 1, "oif": 2}
    values.update(fields)
    return Route(family=family, dst=number, prefix=int(prefix), gateway=packed(via)[1] if via else b"", protocol=protocol, **values)


BASE = (
    route("0.0.0.0/0", "172.18.0.1", protocol=4),
    route("::/0", "fd00:18::1", protocol=4),
    route("172.18.0.0/16", protocol=2, scope=253),
    route("fd00:18::/64", protocol=2, metric=256),
    route("172.18.0.2/32", protocol=2, scope=254, type=2, table=255),
)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("skip", {FAR4: ["skip"], FAR6: ["skip"]}),
        ("via", {FAR4: ["via", "172.18.0.1"], FAR6: ["via", ""]}),
        ("onlink", {FAR4: ["onlink", "eth0"], FAR6: ["onlink", "eth0"]}),
    ],
)
def test_decided_are_those_that_are_elsewhere(mode, expected):
    # An address of this host's own is another trouble, which no gateway cures.
    peers = [*PEERS, ["myself", "10.244.9.0/24", "172.18.0.2"]]
    assert decide(mode, peers, OnLink(BASE, 254), parse_gateways("172.18.0.1"), lambda address: "eth0") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("172.18.0.1", {"a": ("172.18.0.1", ""), "b": ("172.18.0.1", "")}),
        (["fd00:18:0::1", "172.18.0.1"], {"a": ("172.18.0.1", "fd00:18::1"), "b": ("172.18.0.1", "fd00:18::1")}),
        ({"a": "172.18.0.1", "b": ["172.18.0.5", "fd00:18::5"]}, {"a": ("172.18.0.1", ""), "b": ("172.18.0.5", "fd00:18::5"), "c": ("", "")}),
    ],
)
def test_gateways(value, expected):
    gateway_of = parse_gateways(value)
    families = packed("0.0.0.0")[0], packed("::")[0]
    assert {node: tuple(gateway_of(node, family) for family in families) for node in expected} == expected


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("router.example.org", "non_l2_gateways"),
        ("172.18.0.1/16", "172.18.0.1/16"),
        (["172.18.0.1", "172.18.0.5"], "172.18.0.5"),
        ([], "non_l2_gateways"),
        ({"a": "172.18.0.1", "b": "172.18.0"}, "non_l2_gateways of b"),
        ({"a": None}, "non_l2_gateways of a"),
        (["fe80::1"], "fe80::1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_gateways_that_are_none(value, named):
    with pytest.raises(KindnetError) as e:
        parse_gateways(value)
    assert named in str(e.value)


@pytest.mark.parametrize("name", ["eth0/24", "eth 0", "x" * 16, "..", "eth0:1"])
def test_an_interface_that_is_none(name):
    with pytest.raises(KindnetError, match="non_l2_interface"):
        parse_interface(name)


def section(how=None, how6=None):
    decided = {address: list(what) for address, what in ((FAR4, how), (FAR6, how6)) if what}
    return {"protocol": 107, "table": 254, "node_name": "me", "peers": PEERS, "non_l2": decided}


NEAR = (route("10.244.1.0/24", "172.18.0.3"), route("fd00:244:1::/64", "fd00:18::3"))
BY_GATEWAY = (route("10.244.2.0/24", "172.18.0.1"), route("10.244.3.0/24", "172.18.0.1"))
ON_LINK = tuple(route(c, FAR4, oif=3, flags=FLAG_ONLINK) for c in ("10.244.2.0/24", "10.244.3.0/24"))
ON_LINK6 = (route("fd00:244:2::/64", FAR6, oif=3, flags=FLAG_ONLINK),)
FAR_CIDRS = ["10.244.2.0/24", "10.244.3.0/24"]

CASES = [
    # decided for IPv4, for IPv6, routes of ours there; then what is changed, problems
    ("skipped", ["skip"], ["skip"], NEAR, [], 0),
    ("skipped, and routes are left over", ["skip"], ["skip"], NEAR + BY_GATEWAY, [("remove", c) for c in FAR_CIDRS], 0),
    ("skipped, near ones are missing", ["skip"], ["skip"], (), [("add", "10.244.1.0/24"), ("add", "fd00:244:1::/64")], 0),
    ("by a gateway", ["via", "172.18.0.1"], ["skip"], NEAR, [("add", c) for c in FAR_CIDRS], 0),
    ("by a gateway, right", ["via", "172.18.0.1"], ["skip"], NEAR + BY_GATEWAY, [], 0),
    ("by another gateway", ["via", "172.18.0.9"], ["skip"], NEAR + BY_GATEWAY, [("replace", c) for c in FAR_CIDRS], 0),
    ("by a gateway that is elsewhere itself", ["via", "10.30.0.1"], ["skip"], NEAR, [], 2),
    ("by a gateway that is this host", ["via", "172.18.0.2"], ["skip"], NEAR, [], 2),
    ("no gateway of the family", ["via", "172.18.0.1"], ["via", ""], NEAR + BY_GATEWAY, [], 1),
    ("no gateway of the family, and a route of ours without one", ["via", "172.18.0.1"], ["via", ""], (*NEAR, *BY_GATEWAY, route("fd00:244:2::/64")), [], 1),
    ("on-link", ["onlink", "eth1"], ["onlink", "eth1"], NEAR, [("add", c) for c in [*FAR_CIDRS, "fd00:244:2::/64"]], 0),
    ("on-link, right", ["onlink", "eth1"], ["onlink", "eth1"], NEAR + ON_LINK + ON_LINK6, [], 0),
    ("on-link elsewhere", ["onlink", "eth0"], ["onlink", "eth1"], NEAR + ON_LINK + ON_LINK6, [("replace", c) for c in FAR_CIDRS], 0),
    ("on-link without the flag", ["onlink", "eth1"], ["skip"], NEAR + tuple(r._replace(flags=0) for r in ON_LINK), [("replace", c) for c in FAR_CIDRS], 0),
    ("on-link on what is not there", ["onlink", "eth9"], ["skip"], NEAR, [], 2),
    ("on-link, nothing leads there", ["onlink", ""], ["skip"], NEAR, [], 2),
    ("a near one with the flag", ["skip"], ["skip"], (NEAR[0]._replace(flags=FLAG_ONLINK), NEAR[1]), [("replace", "10.244.1.0/24")], 0),
]


@pytest.mark.parametrize(("how", "how6", "own", "changes", "problems"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_plan(how, how6, own, changes, problems):
    wanted = section(how, how6)
    result = plan(wanted, Live(own, BASE + own, LINKS))
    assert [(c.action, c.subject.split()[1]) for c in result.changes] == changes
    assert len(result.problems) == problems and all("peer far: " in p.message for p in result.problems)
    assert [v.action for v in result.details["routes"]].count("skip") == sum(wanted["non_l2"][hop][0] == "skip" for _n, _c, hop in PEERS[2:])
    assert bool(result.notes) == ("skip" in (how[0], how6[0]))
    assert all("left to the network" in n and "far" in n and "near" not in n for n in result.notes)
    # A pass that has nothing to do knows it from the routes of ours alone.
    indexes = {name: index for index, name in LINKS.items()}
    assert is_as_wanted(wanted, own, lambda name: indexes.get(name, -1)) == (not changes and not problems)


def test_what_is_added_is_what_is_then_right():
    for how in (["via", "172.18.0.1"], ["onlink", "eth1"]):
        wanted = section(how, ["skip"])
        made = tuple(c.op.route for c in plan(wanted, Live((), BASE, LINKS)).changes)
        assert is_as_wanted(wanted, made, lambda name: 3) and len(made) == 4
        assert plan(wanted, Live(made, BASE + made, LINKS)).changes == ()


def test_a_foreign_route_serves_and_one_of_a_skipped_peer_is_nobodys_business():
    foreign = (route("10.244.2.0/24", "172.18.0.1", protocol=4), route("10.244.3.0/24", "172.18.0.77", protocol=4))
    by_gateway = plan(section(["via", "172.18.0.1"], ["skip"]), Live(NEAR, BASE + NEAR + foreign, LINKS))
    assert [(v.dst, v.action) for v in by_gateway.details["routes"][:2]] == [("10.244.2.0/24", "foreign"), ("10.244.3.0/24", "conflict")]
    skipped = plan(section(["skip"], ["skip"]), Live(NEAR, BASE + NEAR + foreign, LINKS))
    assert (skipped.changes, skipped.problems) == ((), ())


@pytest.mark.parametrize("how", [["skip"], ["via", "172.18.0.1"], ["onlink", "eth1"]])
def test_a_change_of_mind_is_one_replace_where_there_is_a_route(how):
    for before in (BY_GATEWAY, ON_LINK):
        own = NEAR + before
        changes = plan(section(how, ["skip"]), Live(own, BASE + own, LINKS)).changes
        right = {"skip": (), "via": BY_GATEWAY, "onlink": ON_LINK}[how[0]]
        assert {c.action for c in changes} == (set() if before == right else {"remove"} if how == ["skip"] else {"replace"})
