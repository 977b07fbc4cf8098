# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of pods that two hosts share. Pure.

Networks lie in each other or apart, so sorted by where they begin, those around one are a stack: no pair is looked at that does not overlap.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from bisect import bisect_right
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..module_utils._node_table import shorten
from ._cross_hosts import finding, mends, of

Data = Dict[str, Any]


class Use(NamedTuple):
    """A network, or a single address, on one host."""

    cidr: Any  # of ipaddress
    host: str
    what: str  # as a person would say it
    is_pods: bool  # of our pods for certain: a network of a container engine may well be the same on every host


DECLARED, RECORDED, CONFLIST, POD = "in the inventory", "recorded", "of the CNI configuration", "of a pod"


def overlaps(nodes: Sequence[Data], hosts: Sequence[Data]) -> Iterable[Data]:
    """One finding for each network in which two hosts have pods, or one has what is another's by the inventory."""
    uses = [Use(network, node["name"], DECLARED, True) for node in nodes for network in _networks(node["pod_cidrs"])]
    declared = _Ranges(use.cidr for use in uses)
    for host in hosts:
        uses += _uses_of(host, declared)
    for group in colliding(uses):
        # The inventory's word first, and each thing of a host once
        said = list(dict.fromkeys("%s %s of %s" % (use.cidr, use.what, use.host) for use in group))
        names = list(dict.fromkeys(use.host for use in group))
        yield finding(
            "overlap",
            names,
            str(group[0].cidr),
            "%s overlap, so an address may be that of two pods, and packets reach one of them. Give every host a range of its own (kindnet_pod_cidrs), run "
            "playbooks/kindnet.yml, and restart the pods that have an address of another host's." % shorten(said),
        )


def colliding(uses: Iterable[Use]) -> List[List[Use]]:
    """Those uses that overlap with one of another host, outermost first, in groups that have nothing to do with each other."""
    by_network: Dict[Any, List[Use]] = {}
    for use in uses:
        by_network.setdefault(use.cidr, []).append(use)
    groups: Dict[Any, List[Use]] = {}  # by outermost network
    stack: List[Tuple[Any, List[Use]]] = []
    asked: Dict[Tuple[Any, bool], Set[str]] = {}
    for network in sorted(by_network, key=lambda n: (n.version, int(n.network_address), n.prefixlen)):
        while stack and not (stack[-1][0].version == network.version and int(network.network_address) <= int(stack[-1][0].broadcast_address)):
            stack.pop()
        own = _representatives(by_network[network])
        met: List[Use] = []
        for outer, _uses in stack:
            for use in own:
                hosts = asked.setdefault((outer, use.is_pods), set())
                if len(hosts) < 2 and use.host not in hosts:  # after two hosts everybody around has met another than himself
                    hosts.add(use.host)
                    met += [other for other in by_network[outer] if _collide(use, other)]
        near = [use for _outer, uses_around in stack for use in uses_around] + own
        met += [use for use in by_network[network] if any(_collide(use, other) for other in near)]
        if met:
            groups.setdefault(stack[0][0] if stack else network, []).extend(met)
        stack.append((network, own))
    return [list(dict.fromkeys(group)) for group in groups.values()]


def _collide(a: Use, b: Use) -> bool:
    return a.host != b.host and (a.is_pods or b.is_pods)


def _representatives(uses: Sequence[Use]) -> List[Use]:
    """Of the uses of one network enough to tell whether anybody's collides with them: two of different hosts, of pods and of others. So a thousand
    hosts with the same network are no more than four."""
    found: List[Use] = []
    for is_pods in (True, False):
        some = [use for use in uses if use.is_pods is is_pods]
        found += some[:1] + [use for use in some if use.host != some[0].host][:1]
    return found


class _Ranges:
    """Whether an address lies in one of some networks."""

    def __init__(self, networks: Iterable[Any]) -> None:
        self._merged: List[Tuple[int, int, int]] = []
        for network in sorted(networks, key=lambda n: (n.version, int(n.network_address), n.prefixlen)):
            first, last = int(network.network_address), int(network.broadcast_address)
            if not self._merged or (self._merged[-1][0], self._merged[-1][2]) < (network.version, first):
                self._merged.append((network.version, first, last))

    def has(self, network: Any) -> bool:
        key = (network.version, int(network.network_address))
        at = bisect_right(self._merged, (*key, 1 << 128)) - 1
        return at >= 0 and self._merged[at][0] == key[0] and key[1] <= self._merged[at][2]


def _uses_of(host: Data, declared: _Ranges) -> Iterator[Use]:
    name = host["name"]
    if not mends(host, "conflist"):  # of what a run replaces, only what pods have by now counts
        recorded = _networks(of(host, "desired").get("pod_cidrs") or ())
        for network in recorded:
            yield Use(network, name, RECORDED, True)
        for conflist in of(host, "conflists") or ():
            if conflist.get("ours") or conflist.get("in_use"):
                for network in _networks(conflist.get("subnets") or ()):
                    yield Use(network, name, CONFLIST, network in recorded)
    for pod in of(host, "pods") or ():
        for network in _networks(pod.get("ips") or ()):
            yield Use(network, name, POD, declared.has(network))  # one of another network may be the same on every host


def _networks(texts: Iterable[str]) -> List[Any]:
    """What hosts tell may be out of anybody's file; kindnetd writes an empty subnet when it has none."""
    return [network for network in map(_network, texts) if network is not None]


def _network(text: str) -> Optional[Any]:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
