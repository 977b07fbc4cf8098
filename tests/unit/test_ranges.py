# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges of host-local: what a user's become for a node, and what is refused."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _conflist_data as data
from ansible_collections.kindnet.host.plugins.module_utils import _ranges
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError

V4, V6 = "10.244.1.0/24", "fd00:10:244:1::/64"
DUAL = [V4, V6]


@pytest.mark.parametrize(
    ("cidrs", "ranges", "extra", "expected"),
    [
        (DUAL, None, None, [[{"subnet": V4}], [{"subnet": V6}]]),
        ([V6, V4], [], "", [[{"subnet": V6}], [{"subnet": V4}]]),
        ([V4], [{"subnet": V4}], [], [[{"subnet": V4}]]),
        ([V4], [{}], [], [[{"subnet": V4}]]),
        # by position, for every pod CIDR
        (
            DUAL,
            [{"rangeStart": 10, "rangeEnd": "-6", "gateway": 5}],
            [],
            [
                [{"subnet": V4, "rangeStart": "10.244.1.10", "rangeEnd": "10.244.1.250", "gateway": "10.244.1.5"}],
                [{"subnet": V6, "rangeStart": "fd00:10:244:1::a", "rangeEnd": "fd00:10:244:1:ffff:ffff:ffff:fffa", "gateway": "fd00:10:244:1::5"}],
            ],
        ),
        # one of two pod CIDRs; the other stays whole
        (DUAL, [{"subnet": V6, "rangeStart": "FD00:10:244:1:0::20"}], [], [[{"subnet": V4}], [{"subnet": V6, "rangeStart": "fd00:10:244:1::20"}]]),
        # several in one set, with subnets of their own or the same
        (
            [V4],
            [{"subnet": "10.244.1.0/26"}, {"subnet": "10.244.1.128/25", "rangeStart": 2}],
            [],
            [[{"subnet": "10.244.1.0/26"}, {"subnet": "10.244.1.128/25", "rangeStart": "10.244.1.130"}]],
        ),
        (
            [V4],
            [{"subnet": V4, "rangeStart": 10, "rangeEnd": 19}, {"subnet": V4, "rangeStart": 30, "rangeEnd": 39}],
            [],
            [
                [
                    {"subnet": V4, "rangeStart": "10.244.1.10", "rangeEnd": "10.244.1.19"},
                    {"subnet": V4, "rangeStart": "10.244.1.30", "rangeEnd": "10.244.1.39"},
                ]
            ],
        ),
        # further addresses
        ([V4], [], [{"subnet": "10.99.0.0/24", "rangeStart": 10}], [[{"subnet": V4}], [{"subnet": "10.99.0.0/24", "rangeStart": "10.99.0.10"}]]),
        (
            [V4],
            [{"rangeEnd": 99}],
            [{"subnet": V4, "rangeStart": 100}],
            [[{"subnet": V4, "rangeEnd": "10.244.1.99"}], [{"subnet": V4, "rangeStart": "10.244.1.100"}]],
        ),
    ],
)
def test_sets_of_a_node(cidrs, ranges, extra, expected):
    assert _ranges.range_sets(cidrs, ranges, extra) == expected
    data.parse_conflist("x", {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "ranges": expected}}]})


REFUSED = [
    ({"subnet": V4}, None, "ranges: .*is not a list"),
    (["10.244.1.0/24"], None, r"ranges\[0\]: 10.244.1.0/24: is not a mapping"),
    ([{"start": 10}], None, r"ranges\[0\]\.start: 10: is no field of a range\. Known are subnet, rangeStart"),
    ([{}, {"subnet": 7}], None, r"ranges\[1\]\.subnet: 7: is not a CIDR"),
    ([{"subnet": "10.244.1.1/24"}], None, r"ranges\[0\]\.subnet: .*has host bits set"),
    ([{"subnet": "10.244.2.0/24"}], None, r"ranges\[0\]\.subnet: 10.244.2.0/24: lies in no pod CIDR of this host \(10.244.1.0/24, fd00.*extra_ranges"),
    ([{"subnet": "10.244.0.0/16"}], None, r"ranges\[0\]\.subnet: 10.244.0.0/16: lies in no pod CIDR"),
    ([{"subnet": "10.244.1.4/31"}], None, r"ranges\[0\]\.subnet: 10.244.1.4/31: is too small"),
    ([{"rangeStart": "10.244.1.10"}], None, r"ranges\[0\]\.rangeStart: 10.244.1.10: is an address of one node"),
    ([{"subnet": V4, "rangeStart": "10.244.2.10"}], None, r"ranges\[0\]\.rangeStart: 10.244.2.10: lies outside of the subnet 10.244.1.0/24"),
    ([{"subnet": V4, "rangeEnd": "fd00::1"}], None, r"ranges\[0\]\.rangeEnd: fd00::1: is IPv6, and the subnet is IPv4"),
    ([{"subnet": V4, "gateway": "10.244.2.1"}], None, r"ranges\[0\]\.gateway: 10.244.2.1: lies outside"),
    ([{"subnet": V4, "gateway": "gw.example.org"}], None, r"ranges\[0\]\.gateway: gw.example.org: is not an IP address"),
    ([{"subnet": V4, "gateway": "10.244.1.1/24"}], None, r"ranges\[0\]\.gateway: .*is not an IP address"),
    ([{"subnet": V4, "gateway": True}], None, r"ranges\[0\]\.gateway: True: is not an IP address"),
    ([{"rangeStart": 300}], None, r"ranges\[0\]\.rangeStart: 300: lies outside of the subnet 10.244.1.0/24"),
    ([{"rangeStart": -257}], None, r"ranges\[0\]\.rangeStart: -257: lies outside"),
    ([{"rangeStart": 0}], None, r"ranges\[0\]\.rangeStart: 0: is the network address of 10.244.1.0/24"),
    ([{"rangeEnd": -1}], None, r"ranges\[0\]\.rangeEnd: -1: is the broadcast address of 10.244.1.0/24"),
    ([{"rangeStart": 20, "rangeEnd": 10}], None, r"ranges\[0\]\.rangeEnd: .*ends before it starts: 10.244.1.20-10.244.1.10"),
    ([{"rangeStart": 10, "rangeEnd": 10, "gateway": 10}], None, r"ranges\[0\]\.gateway: .*leaves no address for a pod"),
    ([{"rangeEnd": 1}], None, r"ranges\[0\]\.rangeEnd: .*leaves no address for a pod"),
    ([{"rangeEnd": 20}, {"rangeStart": 20}], None, "ranges: 10.244.1.20-10.244.1.254: overlaps 10.244.1.1-10.244.1.20"),
    ([], [{}], r"extra_ranges\[0\]\.subnet: None: is not a CIDR"),
    ([], [{"subnet": "10.244.0.0/16"}], r"extra_ranges\[0\]\.subnet: 10.244.0.0/16: holds the pod CIDR 10.244.1.0/24"),
    ([], [{"subnet": V4}], "ranges: .*overlaps"),
    ([], [{"subnet": "10.99.0.0/24"}, {"subnet": "10.99.0.128/25"}], "ranges: .*overlaps"),
    ([], [{"subnet": "10.99.0.0/24", "start": 1}], r"extra_ranges\[0\]\.start"),
]


@pytest.mark.parametrize(("ranges", "extra", "problem"), REFUSED)
def test_ranges_refused(ranges, extra, problem):
    with pytest.raises(KindnetError, match="^" + problem) as e:
        _ranges.range_sets(DUAL, ranges, extra)
    assert e.value.remedy and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("ipam", "problem"),
    [
        ({"ranges": [[{"subnet": V4, "rangeStart": "10.244.1.300"}]]}, "rangeStart: 10.244.1.300: is not an IP address"),
        ({"ranges": [[{"subnet": V4, "rangeStart": 10}]]}, "rangeStart: 10: is not an IP address"),
        ({"ranges": [[{"subnet": V4}, {"subnet": V6}]]}, "is in one set with 10.244.1.0/24, of another family"),
        ({"ranges": [[{"subnet": V4}], [{"subnet": V4}]]}, "overlaps"),
        ({"subnet": V4, "rangeEnd": "10.244.2.1"}, "rangeEnd: 10.244.2.1: lies outside"),
    ],
)
def test_ranges_of_a_template_refused(ipam, problem):
    with pytest.raises(KindnetError, match=r"^template x.j2: plugins\[0\].ipam.*" + problem):
        data.parse_conflist("template x.j2", {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp", "ipam": dict(ipam, type="host-local")}]})


def test_a_template_may_have_a_gateway_elsewhere():
    """ptp gives pods a route to it."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": V4, "gateway": "169.254.1.1"}]]}
    data.parse_conflist("x", {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp", "ipam": ipam}]})


def test_subnets_that_peers_have_no_route_to():
    sets = _ranges.range_sets([V4], [{"rangeEnd": 99}], [{"subnet": V4, "rangeStart": 100}, {"subnet": "10.99.0.0/24"}])
    assert _ranges.without_route([V4], sets) == ["10.99.0.0/24"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"subnet": "10.0.0.0/30"}, "10.0.0.1-10.0.0.2"),
        ({"subnet": "fd00::/126"}, "fd00::1-fd00::3"),
        ({"subnet": V4, "rangeStart": "10.244.1.255", "rangeEnd": "10.244.1.255"}, "10.244.1.255-10.244.1.255"),
    ],
)
def test_what_host_local_makes_of_a_range(entry, expected):
    assert _ranges.span(_ranges.pool_of("x", entry)) == expected
