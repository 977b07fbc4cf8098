# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts to which others route, and that have no way back. Pure."""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from ..module_utils._node_table import shorten
from ..module_utils._peers_digest import expected
from ._cross_hosts import CONVERGE, could_tell, finding, listed, of
from ._told_routes import is_cut, is_rest_right, leaves_out, told_routes

Data = Dict[str, Any]


class Table:
    """The routes of one host by their destination; of several to one the kernel takes that of the lowest metric."""

    def __init__(self, node: Data, host: Data, owners: Dict[str, Data], wanted: str) -> None:
        """
        :param node: what the inventory has of it.
        :param owners: the nodes by their pod CIDRs.
        :param wanted: the digest of the peers that the inventory has for the host.
        """
        self.listed = listed(host)
        self._missing = set(of(host, "peers").get("missing") or ())
        self._knows = of(host, "desired").get("peers") == wanted
        self._leaves_out = leaves_out(host)
        self._is_cut = is_cut(host)
        self._routes: Dict[str, Data] = {}
        self._wide: List[Any] = []
        for route in told_routes(host):
            dst = route["dst"]
            known = self._routes.get(dst)
            if known is None or route.get("metric", 0) < known.get("metric", 0):
                self._routes[dst] = route
            if dst not in owners and not dst.endswith(("/32", "/128", "/0")) and route.get("type") == "unicast":
                self._wide.append(ipaddress.ip_network(dst))
        # By a route of ours, too, which may lead to a gateway that the inventory names
        self.right = [
            dst
            for dst, route in self._routes.items()
            if dst in owners and route.get("type") == "unicast" and (route.get("ours") or route.get("via") in owners[dst]["node_ips"])
        ]
        if is_rest_right(host, wanted):
            rest = (dst for dst in owners if dst not in self._routes and dst not in self._missing and "route %s" % dst not in self.listed)
            families = {":" in ip for ip in node["node_ips"]}
            self.right += [dst for dst in rest if (":" in dst) in families.intersection(":" in ip for ip in owners[dst]["node_ips"])]
        self._is_right = set(self.right)

    def trouble(self, cidr: str) -> str:
        """Where packets for ``cidr`` go instead, in a few words; "" if they go right, if that cannot be told, or if the report has it already."""
        if cidr in self._is_right or "route %s" % cidr in self.listed:
            return ""
        if self._is_cut:
            return ""  # it may be among the differences that were counted, and not told
        route = self._routes.get(cidr)
        if route is not None:
            return _shown(route)
        if cidr not in self._missing and self._leaves_out:
            return ""  # not told, and not known to be wrong
        if self._knows and cidr not in self._missing:
            return ""  # not on-link, and left to the network (kindnet_non_l2: skip)
        network = ipaddress.ip_network(cidr)
        if any(wide.version == network.version and network.subnet_of(wide) for wide in self._wide):
            return ""
        return "no route"


def one_way(nodes: Sequence[Data], hosts: Sequence[Data]) -> Iterable[Data]:
    """One finding for each host without a way back, which names those that route to it. Costs as much as there are routes."""
    by_name = {node["name"]: node for node in nodes}
    owners = {cidr: node for node in nodes for cidr in node["pod_cidrs"]}
    wanted = expected(nodes)
    tables = {
        host["name"]: Table(by_name[host["name"]], host, owners, wanted[host["name"]])
        for host in hosts
        if host["name"] in by_name and could_tell(host["info"], "routes")
    }
    lacking: Dict[str, Dict[Tuple[str, str], str]] = {}
    for name, table in tables.items():
        for cidr in table.right:
            peer = owners[cidr]["name"]
            if peer == name or peer not in tables or table.listed and "route %s" % cidr in table.listed:
                continue  # of what a run changes, nobody knows yet how it is right
            for own in by_name[name]["pod_cidrs"]:
                trouble = tables[peer].trouble(own) if (":" in own) == (":" in cidr) else ""
                if trouble:
                    lacking.setdefault(peer, {})[name, own] = trouble
    for name, ways in lacking.items():
        senders = list(dict.fromkeys(sender for sender, _cidr in ways))
        words = ["%s of %s (%s)" % (cidr, sender, trouble) for (sender, cidr), trouble in ways.items()]
        yield finding(
            "one_way",
            [name, *senders],
            "route %s" % list(ways)[0][1] if len(ways) == 1 else "routes to %d pod CIDRs" % len(ways),
            "%s is routed to by %s, and has no way back to %s. What their pods send arrives, and no answer does. %s If that changes nothing, see 'ip route' "
            "and 'ip rule' there." % (name, shorten(senders), shorten(words), CONVERGE % name),
        )


def _shown(route: Data) -> str:
    words = [route["type"]] if route.get("type", "unicast") != "unicast" else []
    words += ["via %s" % route["via"]] if route.get("via") else []
    return " ".join(words + (["dev %s" % route["dev"]] if route.get("dev") else []) + ["proto %s" % route.get("protocol", "?")])
