# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a conflist is: what is refused, what is filled in, and the text that comes out."""

from __future__ import annotations

import json

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _conflist_data as data
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError


def conflist(**ptp):
    return {
        "cniVersion": "0.3.1",
        "name": "kindnet",
        "plugins": [
            dict({"type": "ptp", "ipMasq": False, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}, **ptp),
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["10.244.0.0/24"], ("10.244.0.0/24",)),
        ("10.244.0.0/24, FD00:0::/64", ("10.244.0.0/24", "fd00::/64")),
        (["fd00::/64", "10.244.0.0/24"], ("fd00::/64", "10.244.0.0/24")),
        (["10.244.0.0/30"], ("10.244.0.0/30",)),
    ],
)
def test_pod_cidrs(given, expected):
    assert data.parse_pod_cidrs(given) == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "there is no pod CIDR"),
        (None, "there is no pod CIDR"),
        ("", "there is no pod CIDR"),
        ([""], "is not a CIDR"),
        (["10.244.0.1/24"], "has host bits set"),
        (["10.244.0.0"], "is not a CIDR"),
        (['10.244.0.0/24"}]],"x":"'], "no valid prefix length"),
        (["10.244.0.0/24\n"], None),
        (["10.244.0.0/31"], "is too small"),
        (["fd00::/127"], "is too small"),
        (["10.244.0.0/24", "10.244.1.0/24"], "more than one pod CIDR of a family"),
        (["127.0.0.0/24"], "loopback"),
    ],
)
def test_pod_cidrs_refused(given, problem):
    if problem is None:  # white space at the ends is dropped, never kept
        assert data.parse_pod_cidrs(given) == ("10.244.0.0/24",)
        return
    with pytest.raises(KindnetError, match=problem):
        data.parse_pod_cidrs(given)


@pytest.mark.parametrize(
    ("value", "families", "expected"),
    [
        (None, (4,), None),
        ("", (4,), None),
        ("auto", (4,), "auto"),
        (1500, (4,), 1500),
        ("1500", (4, 6), 1500),
        (68, (4,), 68),
        (67, (4,), KindnetError),
        (1279, (4, 6), KindnetError),
        (1280, (6,), 1280),
        (65536, (4,), KindnetError),
        (True, (4,), KindnetError),
        (1500.0, (4,), KindnetError),
        ("15e2", (4,), KindnetError),
        ("\u0661\u0665\u0660\u0660", (4,), KindnetError),
        ("9" * 5000, (4,), KindnetError),
        ([1500], (4,), KindnetError),
    ],
)
def test_mtu(value, families, expected):
    if expected is KindnetError:
        with pytest.raises(KindnetError, match="is not an MTU"):
            data.parse_mtu(value, families)
    else:
        assert data.parse_mtu(value, families) == expected


@pytest.mark.parametrize("name", ["", 'a"b', "a\nb", "a\n", "../x", "-a", ".", "a b", "\u00e4", None, 1, "{{ 1 }}"])
def test_names_that_smuggle_are_refused(name):
    with pytest.raises(KindnetError, match="is not a name of a CNI network"):
        data.parse_name(name)


@pytest.mark.parametrize("version", ["", "1", "0.3", "0.3.1\n", '0.3.1"', None, 0.3, "0.3.1.2", "a.b.c", "99999.0.0"])
def test_versions_refused(version):
    with pytest.raises(KindnetError, match="is not a version of the CNI specification"):
        data.parse_version("cni_version", version)


def test_variables_of_a_template_keep_the_order_of_the_pod_cidrs():
    variables = data.template_variables(["fd00::/64", "10.244.0.0/24"], "auto", "kindnet", "0.3.1")
    assert variables == {
        "pod_cidrs": ["fd00::/64", "10.244.0.0/24"],
        "families": ["ipv6", "ipv4"],
        "routes": [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "fd00::/64"}], [{"subnet": "10.244.0.0/24"}]],
        "chained": [{"type": "portmap", "capabilities": {"portMappings": True}}],
        "mtu": "auto",
        "name": "kindnet",
        "cni_version": "0.3.1",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "renders to nothing"),
        ("  \n", "renders to nothing"),
        ("{\n  'name': 1}", "line 2 column 3 of the result.*something else than JSON"),
        ('{"a": 1,}', "something else than JSON"),
        ('{"a": NaN}', "NaN is no value of JSON"),
        ("[" * 100000, "something else than JSON"),
        ("hello\x1b[2J\nworld", r"something else than JSON.*'hello\\x1b\[2J'"),
        ("[]", "is not a conflist but a list"),
        ("null", "is not a conflist but null"),
        ("1", "is not a conflist but a number"),
        ({}, "renders to dict, not to text"),
        ("{}", "has no 'cniVersion'"),
        ('{"cniVersion": "0.3.1", "name": "kindnet"}', "has no 'plugins'"),
        ('{"cniVersion": "0.3.1", "plugins": [{"type": "ptp"}]}', "has no 'name'"),
        ('{"cniVersion": "0.3.1", "name": "a/b", "plugins": [{"type": "ptp"}]}', "is not a name"),
        ('{"cniVersion": 0.3, "name": "a", "plugins": [{"type": "ptp"}]}', "is not a version"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": []}', "has no list of plugins"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": {"type": "ptp"}}', "has no list of plugins"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": ["ptp"]}', r"plugins\[0\] is not an object but a string"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "ptp"}, {}]}', r"plugins\[1\].type is not the name"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "../../bin/sh"}]}', r"plugins\[0\].type is not the name"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": ".."}]}', r"plugins\[0\].type is not the name"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "ptp", "mtu": "1500"}]}', r"plugins\[0\].mtu is not an MTU"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "ptp", "mtu": true}]}', r"plugins\[0\].mtu is not an MTU"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "ptp", "ipam": []}]}', r"plugins\[0\].ipam is not an object"),
        ('{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "ptp", "ipam": {"x": 1}}]}', r"plugins\[0\].ipam.type is not the name"),
        # what kindnetd writes for a node without a pod CIDR
        (
            '{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": ""}]]}}]}',
            "is not a CIDR",
        ),
        (
            '{"cniVersion": "0.3.1", "name": "a", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.0.0.1/24"}}]}',
            "has host bits set",
        ),
    ],
)
def test_what_is_not_a_conflist(text, problem):
    with pytest.raises(KindnetError, match=problem) as e:
        data.parse_text("template x.j2", text)
    assert "template x.j2" in e.value.field
    assert "\n" not in str(e.value) and "\x1b" not in str(e.value)


def test_an_mtu_of_null_is_left_out():
    assert data.parse_conflist("x", conflist(mtu=None)) == conflist()


def test_auto_is_filled_in_or_left_out():
    wanted = data.parse_conflist("x", conflist(mtu="auto"))
    assert data.wants_mtu(wanted)
    assert data.fill_mtu(wanted, 1400) == conflist(mtu=1400)
    assert data.fill_mtu(wanted, None) == conflist()
    assert wanted == conflist(mtu="auto")  # what is given is not changed
    assert not data.wants_mtu(conflist(mtu=1500))
    assert data.fill_mtu(conflist(mtu=1300), 1400) == conflist(mtu=1300)


def test_text_is_the_same_whatever_the_order_of_keys():
    def reversed_(value):
        if isinstance(value, dict):
            return {k: reversed_(value[k]) for k in reversed(value)}
        return [reversed_(v) for v in value] if isinstance(value, list) else value

    text = data.pretty(conflist())
    assert data.pretty(reversed_(conflist())) == text
    assert json.loads(text) == conflist()
    assert text.splitlines()[:3] == ["{", '  "cniVersion": "0.3.1",', '  "name": "kindnet",']
    assert text.endswith("}\n")


def test_false_is_not_zero():
    assert not data.same({"a": False}, {"a": 0})
    assert data.same({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert not data.same([1, 2], [2, 1])


def test_programs_that_a_runtime_executes():
    assert data.plugin_types(conflist()) == ("ptp", "host-local", "portmap", "loopback")


@pytest.mark.parametrize(
    ("ipam", "expected"),
    [
        (
            {"type": "host-local", "dataDir": "/run/x/", "ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]},
            {"/run/x/n": ("10.0.0.0/24", "fd00::/64")},
        ),
        ({"type": "host-local", "subnet": "10.0.0.0/24"}, {"/var/lib/cni/networks/n": ("10.0.0.0/24",)}),
        ({"type": "dhcp"}, {}),
        ("host-local", {}),
        ({"type": "host-local", "ranges": "x"}, {"/var/lib/cni/networks/n": ()}),
    ],
)
def test_where_allocations_are(ipam, expected):
    assert data.stores_of({"name": "n", "plugins": [{"type": "ptp", "ipam": ipam}, 7]}) == expected


@pytest.mark.parametrize("broken", [None, {}, {"name": 1, "plugins": []}, {"name": "n", "plugins": 3}, {"name": "n"}])
def test_allocations_of_a_damaged_file(broken):
    assert data.stores_of(broken) == {}
    assert data.mtu_of(broken) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 100000])
def test_damaged_files_are_none(content):
    assert data.read_text(content) is None
