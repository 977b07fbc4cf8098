# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kindnet_info makes of what programs print and files say, as tables of cases; routes against Python's ipaddress."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _gather, _gather_conflists, _gather_masq, _gather_pods, _gather_routes, _gather_state
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._interfaces import Link
from ansible_collections.kindnet.host.plugins.module_utils._route import FLAG_ONLINK, METRIC, Route, cidr_text, packed
from hypothesis import example, given
from hypothesis import strategies as st

# --- A source that fails


@pytest.mark.parametrize(
    "error, note",
    [
        (KindnetError("a", "b", "is wrong", "Mend it."), "%s: a: b: is wrong. Mend it."),
        (OverflowError("why"), "%s: cannot be told (OverflowError: why)"),
    ],
)
@pytest.mark.parametrize("name", _gather.SUBSETS)
def test_a_source_that_fails_costs_its_value(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, note: str) -> None:
    def fail(self: Any) -> Any:
        raise error

    for subset in _gather.SUBSETS:
        monkeypatch.setattr(_gather.Host, subset, fail if subset == name else lambda self: "told")
    monkeypatch.setattr(_gather.Host, "identity", lambda self: {})
    answer = _gather.gather("me", [])
    assert answer.pop("routes_left_out") == 0
    assert (answer.pop("notes"), answer.pop("unseen")) == ([note % name], [] if name in ("watch", "history") else [name])
    assert answer == {subset: _gather.EMPTY[name] if subset == name else "told" for subset in _gather.SUBSETS}


def test_a_program_that_does_not_say_its_version_is_a_note_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(name: str) -> str:
        raise KindnetError(name, "5 s", "did not end", "See what it waits for.")

    monkeypatch.setattr(_gather._gather_state, "tool", hang)
    answer = _gather.gather("me", [], ["versions"])
    assert answer["unseen"] == [] and answer["versions"]["nft"] == "" and any(note.startswith("nft: ") for note in answer["notes"])


def test_a_record_that_one_may_not_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise PermissionError(13, "Permission denied", "/etc/kindnet")

    monkeypatch.setattr(_gather._desired, "load", refuse)
    answer = _gather.gather("me", [], ["desired"])
    assert answer["notes"] == [answer["desired"]["error"]] and "/etc/kindnet" in answer["notes"][0] and answer["cluster_name"] == ""


# --- Routes that are as recorded


def ours(dst: str, via: str, **more: Any) -> Route:
    family, address = packed(dst.partition("/")[0])
    gateway = packed(via)[1] if via else b""
    route = Route(family, 254, address, int(dst.partition("/")[2]), 0, METRIC[family], 107, 0, 1, gateway=gateway, oif=2)
    return route._replace(**more)


SECTION = {"protocol": 107, "table": 254, "peers": [["b", "10.0.1.0/24", "192.0.2.1"], ["c", "10.0.2.0/24", "192.0.2.2"], ["b", "fd00::/64", "2001:db8::1"]]}
RIGHT = [ours("10.0.1.0/24", "192.0.2.1"), ours("10.0.2.0/24", "192.0.2.2"), ours("fd00::/64", "2001:db8::1")]


@pytest.mark.parametrize(
    "section, others, told",
    [
        ({}, [], set()),
        ({}, [ours("10.0.9.0/24", "192.0.2.1")], {"10.0.9.0/24"}),
        ({}, [ours("10.0.1.0/24", "192.0.2.9", metric=9, protocol=4)], {"10.0.1.0/24"}),  # who is ahead is for others to say
        ({}, [ours("10.0.1.0/24", "192.0.2.1", table=9)], {"10.0.1.0/24"}),
        ({"peers": [["b", "10.0.1.0/24", "192.0.2.7"]]}, [], {"10.0.1.0/24", "10.0.2.0/24", "fd00::/64"}),
        ({"protocol": 108}, [], {"10.0.1.0/24", "10.0.2.0/24", "fd00::/64"}),
        ({"table": 9}, [], {"10.0.1.0/24", "10.0.2.0/24", "fd00::/64"}),
        ({"non_l2": {"192.0.2.2": ["skip"]}}, [], {"10.0.1.0/24", "10.0.2.0/24", "fd00::/64"}),
    ],
)
def test_routes_as_recorded_are_counted_alone_if_they_are_too_many(section: Any, others: list[Route], told: set[str]) -> None:
    def look(most: int | None) -> tuple[set[str], int]:
        host = _gather.Host("a", [], most)
        host.__dict__.update(_recorded=_gather._desired.Desired("kindnet", {"routes": {**SECTION, **section}}), _links=[], _routes=RIGHT + others)
        return {route["dst"] for route in host.tell("routes")}, host.routes_left_out

    everything = {cidr_text(route) for route in RIGHT + others}
    left_out = len(everything - told)
    assert look(0) == (told, left_out)
    assert look(None) == look(left_out) == (everything, 0)


@pytest.mark.parametrize("odd", [{"metric": 5}, {"type": 6}, {"tos": 4}, {"prefsrc": b"x"}, {"scope": 253}, {"gateway": b"none"}, {"flags": FLAG_ONLINK}])
def test_a_route_with_anything_of_its_own_is_told(odd: dict[str, Any]) -> None:
    assert _gather_routes.as_recorded(SECTION, [RIGHT[0]._replace(**odd), *RIGHT[1:]]) == RIGHT[1:]


# --- Counters


@pytest.mark.parametrize(
    "printed, rule, packets, octets",
    [
        ("-d 10.244.0.0/16 -c 3 180 -j RETURN", "-d 10.244.0.0/16 -j RETURN", 3, 180),
        ("-c 0 0 -j MASQUERADE --random-fully", None, 0, 0),
        (" -c 7 8 -j MASQUERADE", " -j MASQUERADE", 7, 8),
        ('-m comment --comment "a -c 1 2 -j b" -c 5 6 -j RETURN', '-m comment --comment "a -c 1 2 -j b" -j RETURN', 5, 6),
        (r'-m comment --comment "a \" -c 1 2 -j b" -c 5 6 -g OTHER', r'-m comment --comment "a \" -c 1 2 -j b" -g OTHER', 5, 6),
        ("-d 10.0.0.0/8 -c 18446744073709551615 1", "-d 10.0.0.0/8", 18446744073709551615, 1),
        ("-d 10.0.0.0/8 -j RETURN", "-d 10.0.0.0/8 -j RETURN", 0, 0),
    ],
)
def test_a_rule_with_its_counters(printed: str, rule: str | None, packets: int, octets: int) -> None:
    found = _gather_masq.counted(printed if rule is not None else "-m x " + printed)
    assert found == (rule if rule is not None else "-m x -j MASQUERADE --random-fully", packets, octets)


RULES = [
    ("KIND", ("ip daddr @non_masquerade_ipv4", "counter", "return"), 1, 10),
    ("KIND", ("ip6 daddr @non_masquerade_ipv6", "counter", "return"), 2, 20),
    ("KIND", ("meta nfproto ipv4", "counter", "masquerade"), 3, 30),
    ("KIND", ("meta nfproto ipv6", "counter", "masquerade"), 4, 40),
    ("KIND", ('{"match": {"left": {"payload": {"field": "daddr", "protocol": "ip6"}}}}', "accept"), 5, 50),
    ("KIND", ("counter", "accept"), 6, 60),
    ("postrouting", ("counter", "jump KIND"), 7, 70),
]


@pytest.mark.parametrize("family, packets", [("ipv4", [1, 3, 6]), ("ipv6", [2, 4, 5, 6])])
def test_rules_of_a_family(family: str, packets: list[int]) -> None:
    assert [rule[1] for rule in _gather_masq.of_family(family, "KIND", RULES)] == packets


# --- Routes

ADDRESSES = st.builds(lambda n: str(ipaddress.ip_address((10 << 24) + n)), st.integers(0, 63)) | st.builds(
    lambda n: str(ipaddress.ip_address((0xFD << 120) + n)), st.integers(0, 63)
)


def network(address: str, length: int) -> Any:
    whole = 128 if ":" in address else 32
    return ipaddress.ip_network((address, max(0, whole - length)), strict=False)


NETWORKS = st.builds(network, ADDRESSES, st.integers(0, 8) | st.just(128))


def route_of(net: Any, metric: int = 0) -> Route:
    family = socket.AF_INET if net.version == 4 else socket.AF_INET6
    return Route(int(family), 254, net.network_address.packed, net.prefixlen, 0, metric, 2, 0, 1)


@given(st.lists(NETWORKS, max_size=5), NETWORKS)
@example([ipaddress.ip_network("10.0.0.0/30")], ipaddress.ip_network("10.0.0.0/24"))
@example([ipaddress.ip_network("10.0.0.0/24")], ipaddress.ip_network("10.0.0.0/30"))
def test_which_routes_lie_in_a_network(networks: list[Any], net: Any) -> None:
    wanted = any(net.version == one.version and net.subnet_of(one) for one in networks)
    assert _gather_routes.lying_in(map(str, networks))(route_of(net)) is wanted


@given(st.lists(NETWORKS, max_size=8), st.lists(ADDRESSES, max_size=4))
def test_the_routes_by_which_addresses_are_reached(networks: list[Any], addresses: list[str]) -> None:
    routes = [route_of(net, number) for number, net in enumerate(networks)]
    wanted = set()
    for address in map(ipaddress.ip_address, addresses):
        covering = [n for n in networks if n.version == address.version and address in n]
        longest = max((n.prefixlen for n in covering), default=-1)
        wanted |= {route_of(n, number) for number, n in enumerate(networks) if n in covering and n.prefixlen == longest}
    found = _gather_routes.closest(routes, [packed(address) for address in addresses])
    assert set(found) == wanted and len(found) == len(wanted)


@pytest.mark.parametrize(
    "decided, routes, wanted",
    [
        ({}, ["10.1.0.0/24 192.0.2.1", "10.2.0.0/24 192.0.2.2"], (2, [])),
        ({}, ["10.1.0.0/24 192.0.2.9", "10.2.0.0/25 192.0.2.2"], (2, ["10.1.0.0/24", "10.2.0.0/24"])),
        ({"192.0.2.1": ["skip"]}, ["10.2.0.0/24 192.0.2.2"], (1, [])),
        ({"192.0.2.1": ["via", "192.0.2.254"]}, ["10.1.0.0/24 192.0.2.254", "10.2.0.0/24 192.0.2.2"], (2, [])),
        ({"192.0.2.1": ["via", ""]}, ["10.1.0.0/24 192.0.2.1", "10.2.0.0/24 192.0.2.2"], (2, ["10.1.0.0/24"])),
        ({"192.0.2.1": ["onlink", "eth0"]}, ["10.1.0.0/24 192.0.2.1", "10.2.0.0/24 192.0.2.2"], (2, [])),
    ],
)
def test_peers_by_what_was_decided_about_them(decided: Any, routes: list[str], wanted: Any) -> None:
    section = {"protocol": 107, "table": 254, "peers": [["a", "10.1.0.0/24", "192.0.2.1"], ["b", "10.2.0.0/24", "192.0.2.2"]], "non_l2": decided}
    live = [route_of(ipaddress.ip_network(dst))._replace(gateway=packed(via)[1]) for dst, via in (line.split() for line in routes)]
    assert _gather_routes.peers(section, live) == {"wanted": wanted[0], "present": wanted[0] - len(wanted[1]), "missing": wanted[1]}
    elsewhere = [route._replace(table=100) for route in live]
    assert _gather_routes.peers(section, elsewhere)["present"] == 0, "in another table they are no use"


# --- Pods

VETH = "veth1b2c3d4e"


@pytest.mark.parametrize(
    "interfaces, name",
    [
        ([{"name": VETH, "mac": "x"}, {"name": "eth0", "sandbox": "/run/netns/a"}], VETH),
        ([{"name": "cni0"}, {"name": VETH, "sandbox": ""}, {"name": "eth0", "sandbox": "/x"}], VETH),
        ([{"name": VETH, "sandbox": "/run/netns/a"}], ""),
        ([{"name": "veth9"}], ""),
        ([3, None, {}], ""),
        ("nonsense", ""),
        (None, ""),
    ],
)
def test_the_pods_interface_as_its_plugins_told(interfaces: Any, name: str) -> None:
    assert _gather_pods.host_interface({"result": {"interfaces": interfaces}}, {VETH, "eth0"}) == name
    assert _gather_pods.host_interface({"result": [interfaces]}, {VETH}) == _gather_pods.host_interface({}, {VETH}) == ""


@pytest.mark.parametrize(
    "cached, place",
    [
        ({"netns": "/run/netns/a", "result": {"interfaces": [{"name": "eth0", "sandbox": "/b"}]}}, "/run/netns/a"),
        ({"result": {"interfaces": [{"name": VETH}, {"name": "eth0", "sandbox": "/proc/1044/ns/net"}]}}, "/proc/1044/ns/net"),
        ({"netns": {}, "result": {"interfaces": [{"sandbox": 7}, {"sandbox": ""}]}}, ""),
        ({}, ""),
    ],
)
def test_where_a_pods_network_namespace_is(cached: Any, place: str) -> None:
    assert _gather_pods.network_namespace(cached) == place


@pytest.mark.parametrize(
    "pairs, arguments",
    [
        ([["K8S_POD_NAME", "a"], ["IgnoreUnknown", "1"]], {"K8S_POD_NAME": "a", "IgnoreUnknown": "1"}),
        ([["a"], 3, ["b", 4], None, ["c", "d", "e"]], {}),
        ("ab", {}),
        (None, {}),
    ],
)
def test_what_a_runtime_told_the_plugins(pairs: Any, arguments: dict[str, str]) -> None:
    assert _gather_pods.arguments_of({"cniArgs": pairs}) == arguments


def test_veths_but_the_nodes_own() -> None:
    links = [Link(2, "eth0", 1500, True, "veth", ""), Link(3, VETH, 1400, False, "veth", ""), Link(4, "veth0", 1500, True, "veth", "")]
    links.append(Link(5, "br0", 1, True, "bridge", ""))
    pods = [{"interface": VETH, "container": "pod"}, {"interface": "", "container": "unknown"}]
    found = _gather_pods.veths(links, {VETH: ["10.244.1.1"]}, pods, "eth0")
    assert [(v["name"], v["mtu"], v["up"], v["container"], v["addresses"]) for v in found] == [
        (VETH, 1400, False, "pod", ["10.244.1.1"]),
        ("veth0", 1500, True, "", []),
    ]


# --- Configurations and versions


@pytest.mark.parametrize(
    "path, content, plugins",
    [
        ("a.conflist", b'{"name": "x", "plugins": [{"type": "ptp"}]}', ["ptp"]),
        ("a.conf", b'{"name": "x", "type": "bridge"}', ["bridge"]),
        ("a.json", b'{"name": "x", "type": "bridge"}', ["bridge"]),
        ("a.conf", b"{", None),
        ("a.conflist", b"[]", None),
        ("a.conflist", b'{"plugins": 7}', []),
    ],
)
def test_a_configuration_as_a_list_of_plugins(path: str, content: bytes, plugins: list[str] | None) -> None:
    data = _gather_conflists.conflist_of(path, content)
    assert (data is None) is (plugins is None)
    if data is not None:
        assert _gather_conflists.told(path, data, False, False)["plugins"] == plugins


@pytest.mark.parametrize(
    "text, version",
    [
        ("iptables v1.8.9 (nf_tables)\n", "1.8.9 (nf_tables)"),
        ("iptables v1.8.9 (legacy)\n", "1.8.9 (legacy)"),
        ("nftables v1.0.6 (Lester Gooch #5)\n", "1.0.6"),
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1\n", "1.6.20~ds1"),
        ("containerd containerd.io v2.0.0-rc.1, abc\n", "2.0.0-rc.1"),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_versions_as_programs_say_them(text: str, version: str) -> None:
    assert _gather_state.version_in(text) == version
