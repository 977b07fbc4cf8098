# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node table as a table of cases, and as a property: whatever is wrong gets one clear error."""

from __future__ import annotations

__metaclass__ = type

import copy
import ipaddress
import json

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _node_table as table
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from hypothesis import given
from hypothesis import strategies as st

CLUSTER = ("10.244.0.0/16", "fd00:10:244::/48")


def node(name="a", ips=("172.18.0.2",), cidrs=("10.244.0.0/24",)):
    return {"name": name, "node_ips": list(ips), "pod_cidrs": list(cidrs)}


A = node("cp", ["172.18.0.2", "fd00::2"], ["10.244.0.0/24", "fd00:10:244::/64"])
B = node("worker", ["172.18.0.3", "fd00::3"], ["10.244.1.0/24", "fd00:10:244:1::/64"])

# what is wrong, the table, words that the message must have: the thing, the value, the remedy
BAD = [
    ("empty list", [], ["nodes", "empty", "kindnet_nodes"]),
    ("empty string", "", ["nodes", "not JSON"]),
    ("empty JSON list", "[]", ["empty"]),
    ("not JSON", "[{", ["not JSON"]),
    ("a mapping", {"a": 1}, ["not a list"]),
    ("JSON mapping", "{}", ["not a list"]),
    ("entry not a mapping", [A, "worker"], ["nodes[1]", "worker", "not a mapping"]),
    ("unknown key", [dict(A, pod_cidr="10.244.0.0/24")], ["pod_cidr", "cp", "pod_cidrs"]),
    ("no name", [node(None)], ["nodes[0].name"]),
    ("empty name", [node("")], ["nodes[0].name"]),
    ("number as name", [node(5)], ["nodes[0].name", "5"]),
    ("a line in the name", [node("a\nb")], ["nodes[0].name", "control"]),
    ("an endless name", [node("a" * 10000)], ["nodes[0].name", "longer"]),
    ("a blank in the name", [node("a b")], ["nodes[0].name", "blank"]),
    ("duplicate name", [A, B, dict(B, node_ips=["172.18.0.9"])], ["worker", "more than once"]),
    ("no node_ips key", [{"name": "cp", "pod_cidrs": ["10.244.0.0/24"]}], ["node_ips of cp", "no address", "kindnet_node_ips"]),
    ("no node IP", [node(ips=[])], ["node_ips of a", "no address"]),
    ("no pod CIDR", [node(cidrs=[])], ["pod_cidrs of a", "no pod CIDR", "kindnet_pod_cidrs"]),
    ("empty pod CIDR", [node(cidrs=[""])], ["pod_cidrs of a", "not a CIDR"]),
    ("null pod CIDRs", [dict(A, pod_cidrs=None)], ["pod_cidrs of cp", "no pod CIDR"]),
    ("pod CIDRs of a wrong type", [dict(A, pod_cidrs=5)], ["pod_cidrs of cp", "not a list"]),
    ("a pod CIDR of a wrong type", [node(cidrs=[10])], ["pod_cidrs of a", "not a CIDR"]),
    ("a host name", [node(ips=["worker.example.org"])], ["node_ips of a", "worker.example.org", "never looked up"]),
    ("brackets", [node(ips=["[fd00::1]"])], ["[fd00::1]", "brackets"]),
    ("address of a wrong type", [node(ips=[5])], ["node_ips of a", "5"]),
    ("leading zeros", [node(ips=["172.018.0.2"])], ["172.018.0.2", "not an IP address"]),
    ("three octets", [node(ips=["172.18.2"])], ["172.18.2", "not an IP address"]),
    ("node IP with a prefix", [node(ips=["172.18.0.2/16"])], ["network, not an address", "172.18.0.2."]),
    ("zoned", [node(ips=["fe80::1%eth0"])], ["zone"]),
    ("link-local", [node(ips=["fe80::1"])], ["link-local"]),
    ("IPv4 link-local", [node(ips=["169.254.1.1"])], ["link-local"]),
    ("loopback", [node(ips=["127.0.0.1"])], ["loopback"]),
    ("IPv6 loopback", [node(ips=["::1"])], ["loopback"]),
    ("multicast", [node(ips=["224.0.0.1"])], ["multicast"]),
    ("IPv6 multicast", [node(ips=["ff02::1"])], ["multicast"]),
    ("unspecified", [node(ips=["0.0.0.0"])], ["unspecified"]),
    ("IPv6 unspecified", [node(ips=["::"])], ["unspecified"]),
    ("broadcast", [node(ips=["255.255.255.255"])], ["broadcast"]),
    ("IPv4-mapped", [node(ips=["::ffff:172.18.0.2"])], ["IPv4-mapped"]),
    ("no prefix length", [node(cidrs=["10.244.0.0"])], ["not a CIDR"]),
    ("malformed", [node(cidrs=["10.244.0/24"])], ["10.244.0/24", "not a CIDR"]),
    ("prefix too long", [node(cidrs=["10.244.0.0/33"])], ["prefix length", "32"]),
    ("negative prefix", [node(cidrs=["10.244.0.0/-1"])], ["prefix length"]),
    ("netmask", [node(cidrs=["10.244.0.0/255.255.255.0"])], ["prefix length"]),
    ("prefix of other digits", [node(cidrs=["10.244.0.0/\u0662\u0664"])], ["prefix length"]),
    ("zero-padded prefix", [node(cidrs=["10.244.0.0/024"])], ["prefix length"]),
    ("endless prefix", [node(cidrs=["10.244.0.0/" + "9" * 10000])], ["prefix length"]),
    ("host bits", [node(cidrs=["10.244.1.5/24"])], ["10.244.1.5/24", "host bits", "Write 10.244.1.0/24."]),
    ("IPv6 host bits", [node(ips=["fd00::1"], cidrs=["fd00:10:244::1/64"])], ["host bits", "Write fd00:10:244::/64."]),
    ("too small", [node(cidrs=["10.244.0.0/31"])], ["too small", "30"]),
    ("IPv6 too small", [node(ips=["fd00::1"], cidrs=["fd00:10:244::/128"])], ["too small", "126"]),
    ("outside", [A, node("b", ["172.18.0.3"], ["10.245.0.0/24"])], ["pod_cidrs of b", "10.245.0.0/24", "outside", "10.244.0.0/16"]),
    ("larger than the cluster", [node(cidrs=["10.244.0.0/15"])], ["outside"]),
    ("multicast pods", [node(cidrs=["224.1.0.0/24"])], ["multicast"]),
    ("loopback pods", [node(cidrs=["127.1.0.0/24"])], ["loopback"]),
    ("everything", [node(cidrs=["0.0.0.0/0"])], ["overlaps"]),
    ("same CIDR", [A, node("b", ["172.18.0.3"], ["10.244.0.0/24"])], ["10.244.0.0/24", "overlaps", "of cp", "of b"]),
    ("inside another's", [A, node("b", ["172.18.0.3"], ["10.244.0.128/25"])], ["10.244.0.128/25", "overlaps", "cp", "b"]),
    ("around another's", [A, node("b", ["172.18.0.3"], ["10.244.0.0/23"])], ["overlaps", "cp", "b"]),
    ("overlap in one node", [node("b", cidrs=["10.244.0.0/24", "10.244.0.0/25"])], ["overlaps", "b", "same node"]),
    ("IPv6 overlap", [A, node("b", ["fd00::9"], ["fd00:10:244:0::/72"])], ["overlaps", "cp", "b"]),
    ("two nodes, one address", [A, node("b", ["172.18.0.2"], ["10.244.1.0/24"])], ["node_ips of b", "172.18.0.2", "address of cp"]),
    ("one address, two spellings", [A, node("b", ["fd00:0::2", "172.18.0.3"], ["10.244.1.0/24"])], ["fd00::2", "address of cp"]),
    ("an address twice", [node("b", ["172.18.0.2", "172.18.0.2"])], ["node_ips of b", "twice"]),
    ("contains its own address", [node("b", ["10.244.7.2"], ["10.244.7.0/24"])], ["10.244.7.0/24", "10.244.7.2", "of b"]),
    ("contains a peer's address", [A, node("b", ["10.244.0.9"], ["10.244.1.0/24"])], ["pod_cidrs of cp", "10.244.0.9", "address of b"]),
    ("IPv6 pods without IPv6 address", [node("b", cidrs=["fd00:10:244::/64"])], ["pod_cidrs of b", "IPv6", "172.18.0.2"]),
    ("IPv4 pods without IPv4 address", [node("b", ["fd00::1"])], ["pod_cidrs of b", "IPv4", "fd00::1"]),
    ("node in the cluster CIDR", [node("b", ["10.244.9.9"], ["10.244.1.0/24"])], ["cluster_cidrs", "10.244.0.0/16", "10.244.9.9", "of b"]),
]


@pytest.mark.parametrize("nodes, words", [pytest.param(n, w, id=i) for i, n, w in BAD])
def test_bad_table_gets_one_clear_error(nodes, words):
    with pytest.raises(KindnetError) as caught:
        table.parse_nodes(nodes, CLUSTER)
    message = str(caught.value)
    assert not [w for w in words if w not in message], message
    assert caught.value.remedy.endswith("."), message
    assert "\n" not in message and len(message) < 500, message


@pytest.mark.parametrize("cidr", ["10.244.0.1/16", "10.244.0.0", "pods", "", None, "0.0.0.0/0"])
def test_bad_cluster_cidr(cidr):
    with pytest.raises(KindnetError, match="^cluster_cidrs: "):
        table.parse_nodes([A], [cidr])


@pytest.mark.parametrize("given", [[A, B], json.dumps([A, B]), (A, B)], ids=["list", "json", "tuple"])
def test_good_table(given):
    assert table.parse_nodes(given, CLUSTER) == (
        table.Node("cp", ("172.18.0.2", "fd00::2"), ("10.244.0.0/24", "fd00:10:244::/64")),
        table.Node("worker", ("172.18.0.3", "fd00::3"), ("10.244.1.0/24", "fd00:10:244:1::/64")),
    )


def test_text_is_canonical():
    (only,) = table.parse_nodes([node("x", ["FD00:0:0::0A"], ["FD00:10:244:0000::/64"])])
    assert only == table.Node("x", ("fd00::a",), ("fd00:10:244::/64",))


def test_strings_of_an_ini_inventory():
    (only,) = table.parse_nodes([{"name": "x", "node_ips": "172.18.0.2, fd00::2", "pod_cidrs": "10.244.0.0/24"}])
    assert only == table.Node("x", ("172.18.0.2", "fd00::2"), ("10.244.0.0/24",))


def test_a_node_may_have_more_addresses_than_pod_families():
    (only,) = table.parse_nodes([node("x", ["172.18.0.2", "fd00::2"], ["10.244.0.0/24"])], CLUSTER)
    assert only.node_ips == ("172.18.0.2", "fd00::2")


def test_without_cluster_cidrs_nothing_is_outside():
    assert len(table.parse_nodes([node(cidrs=["192.168.7.0/24"])])) == 1


def test_adjacent_ranges_do_not_overlap():
    table.parse_nodes([node("a"), node("b", ["172.18.0.3"], ["10.244.1.0/24"]), node("c", ["10.243.255.255"], ["10.244.2.0/24"])], CLUSTER)


def test_find_node():
    nodes = table.parse_nodes([A, B])
    assert table.find_node(nodes, "worker").node_ips[0] == "172.18.0.3"
    with pytest.raises(KindnetError) as caught:
        table.find_node(nodes, "worker2")
    assert "worker2" in str(caught.value) and "cp, worker" in str(caught.value) and "kindnet_nodes" in str(caught.value)


def test_find_node_names_few_of_many():
    many = [table.Node("n%d" % i, (), ()) for i in range(5000)]
    with pytest.raises(KindnetError) as caught:
        table.find_node(many, "x")
    assert len(str(caught.value)) < 400 and "4992 more" in str(caught.value)


@pytest.mark.parametrize(
    "given, expected", [(["10.244.0.0/16"], ("10.244.0.0/16",)), ("10.244.0.0/16,FD00::/64", ("10.244.0.0/16", "fd00::/64")), (None, ())]
)
def test_parse_cidrs(given, expected):
    assert table.parse_cidrs("cluster_cidrs", given) == expected


# --- properties -------------------------------------------------------------------------------------------------------

V4, V6 = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd01::/48")


@st.composite
def good_tables(draw):
    """Tables that are right by construction: block i of a family belongs to at most one node."""
    count = draw(st.integers(1, 12))
    blocks = draw(st.permutations(range(40)))
    made = []
    for i in range(count):
        families = draw(st.sampled_from([(4,), (6,), (4, 6), (6, 4)]))
        ips, cidrs = [], []
        for family in families:
            if family == 4:
                ips.append("172.18.1.%d" % (i + 1))
                prefix = draw(st.integers(20, 30))
                cidrs.append("%s/%d" % (V4.network_address + blocks[i] * 2**12, prefix))
            else:
                address = ipaddress.ip_address("fd00::") + i + 1
                ips.append(draw(st.sampled_from([str(address), address.exploded, address.exploded.upper()])))
                prefix = draw(st.integers(64, 126))
                cidrs.append("%s/%d" % (V6.network_address + blocks[i] * 2**64, prefix))
        made.append({"name": "node%d" % i, "node_ips": ips, "pod_cidrs": cidrs})
    return made


@given(good_tables())
def test_a_good_table_parses_and_parses_again_to_the_same(nodes):
    parsed = table.parse_nodes(nodes, (str(V4), str(V6)))
    assert [n.name for n in parsed] == [n["name"] for n in nodes]
    for mine, theirs in zip(parsed, nodes):
        assert list(mine.node_ips) == [str(ipaddress.ip_address(a)) for a in theirs["node_ips"]]
        assert list(mine.pod_cidrs) == [str(ipaddress.ip_network(c)) for c in theirs["pod_cidrs"]]
    assert table.parse_nodes(table.dump_nodes(parsed), (str(V4), str(V6))) == parsed


def _other_text(ip):
    return ipaddress.ip_address(ip).exploded


def break_host_bits(nodes, i, j):
    network = ipaddress.ip_network(nodes[i]["pod_cidrs"][0])
    nodes[i]["pod_cidrs"][0] = "%s/%d" % (network.network_address + 1, network.prefixlen)
    return nodes[i]["name"]


def break_same_address(nodes, i, j):
    nodes.append({"name": "late", "node_ips": [_other_text(nodes[i]["node_ips"][0])], "pod_cidrs": []})
    family = ipaddress.ip_address(nodes[i]["node_ips"][0]).version
    nodes[-1]["pod_cidrs"] = ["10.255.0.0/24" if family == 4 else "fd01:0:0:ffff::/64"]
    return nodes[i]["name"]


def break_overlap(nodes, i, j):
    network = ipaddress.ip_network(nodes[i]["pod_cidrs"][-1])
    inner = next(network.subnets(prefixlen_diff=0 if network.prefixlen in (30, 126) else 1))
    nodes.insert(j, {"name": "late", "node_ips": ["172.31.0.1", "fd00:ffff::1"], "pod_cidrs": [str(inner)]})
    return "late"


def break_name(nodes, i, j):
    nodes.append(dict(nodes[i], node_ips=["172.31.0.1", "fd00:ffff::1"]))
    return nodes[i]["name"]


def break_no_cidr(nodes, i, j):
    nodes[i]["pod_cidrs"] = []
    return nodes[i]["name"]


def break_no_address(nodes, i, j):
    del nodes[i]["node_ips"]
    return nodes[i]["name"]


def break_outside(nodes, i, j):
    nodes[i]["node_ips"] = ["172.31.0.1"]
    nodes[i]["pod_cidrs"] = ["192.168.0.0/24"]
    return nodes[i]["name"]


def break_node_inside(nodes, i, j):
    network = ipaddress.ip_network(nodes[i]["pod_cidrs"][0])
    nodes.insert(
        j,
        {
            "name": "late",
            "node_ips": [str(network.network_address + 1)],
            "pod_cidrs": ["10.255.0.0/24" if network.version == 4 else "fd01:0:0:ffff::/64"],
        },
    )
    return "late"


def break_family(nodes, i, j):
    family = ipaddress.ip_network(nodes[i]["pod_cidrs"][0]).version
    nodes[i]["node_ips"] = ["172.31.0.1"] if family == 6 else ["fd00:ffff::1"]
    return nodes[i]["name"]


def break_address(nodes, i, j):
    nodes[i]["node_ips"][0] = ["fe80::1", "127.0.0.1", "ff02::1", "worker", "fe80::1%eth0", "169.254.0.1", "224.0.0.1", ""][j % 8]
    return nodes[i]["name"]


BREAKS = [v for k, v in sorted(globals().items()) if k.startswith("break_")]


@given(good_tables(), st.sampled_from(BREAKS), st.integers(0, 11), st.integers(0, 12))
def test_whatever_is_broken_gets_one_error_that_names_the_node(nodes, breaker, i, j):
    nodes = copy.deepcopy(nodes)
    name = breaker(nodes, i % len(nodes), min(j, len(nodes)))
    with pytest.raises(KindnetError) as caught:
        table.parse_nodes(nodes, (str(V4), str(V6)))
    assert name in str(caught.value)
    assert caught.value.remedy


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["10.0.0.0/24", "172.18.0.2", "name", "fd00::/64"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "node_ips", "pod_cidrs", "x"]), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_data_is_parsed_or_refused(data):
    """Whatever a variable holds, it never ends in a traceback."""
    try:
        table.parse_nodes(data)
    except KindnetError:
        pass
