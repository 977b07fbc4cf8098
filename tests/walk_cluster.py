# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster on paper: nodes with a routing table each, which answer about a packet as kernels do, and on which a test makes one thing wrong."""

from __future__ import annotations

import copy
import ipaddress
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.kindnet.host.plugins.module_utils._node_table import Node

UNREACHABLE, NO_ROUTE_TO_HOST, MARTIAN = "Network is unreachable", "No route to host", "Invalid argument"


@dataclass
class PaperNode:
    name: str
    links: dict[str, list[str]]  # addresses with prefix length
    routes: dict[str, tuple[str, str]]  # CIDR to next hop and interface; ("", "blackhole") for none of them
    pods: dict[str, str] = field(default_factory=dict)  # address to interface
    mtu: dict[str, int] = field(default_factory=dict)
    route_mtu: dict[str, int] = field(default_factory=dict)
    rp_filter: dict[str, int] = field(default_factory=dict)
    forwarding: dict[str, str] = field(default_factory=dict)  # by interface, or "all"
    neighbours: dict[str, str] = field(default_factory=dict)  # state by address
    down: set[str] = field(default_factory=set)
    masquerades: dict[str, str] = field(default_factory=dict)  # destination CIDR to the source that packets get
    gateways: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)  # rules of nat that cannot be told
    why: str = ""  # it cannot be asked
    pod_error: str = ""

    def own(self) -> set[str]:
        return {address.split("/")[0] for addresses in self.links.values() for address in addresses}

    def match(self, destination: str) -> Optional[tuple[str, str, str]]:
        ip = ipaddress.ip_address(destination)
        found = [(ipaddress.ip_network(c).prefixlen, c) for c in self.routes if ip in ipaddress.ip_network(c)]
        found += [(ip.max_prefixlen, pod) for pod in self.pods if pod == destination]
        if not found:
            return None
        _length, cidr = max(found)
        return (cidr, *(self.routes[cidr] if cidr in self.routes else ("", self.pods[cidr])))

    def back(self, source: str) -> dict[str, Any]:
        found = self.match(source)
        if found is None or found[2] == "blackhole":
            return {"error": UNREACHABLE}
        return {"error": "", "via": found[1], "dev": found[2], "type": "unicast"}

    def lookup(self, source: str, destination: str, iif: str, begins: bool) -> dict[str, Any]:
        v6 = ":" in source
        found = self.match(destination)
        entry: dict[str, Any] = {
            "source": source, "destination": destination, "iif": iif, "question": f"ip route get {destination} from {source} iif {iif}",
            "back": self.back(source), "error": "", "in_the_way": "", "neighbour": {"state": "", "mac": ""},
        }

        def refuse(error: str, in_the_way: str = "") -> dict[str, Any]:
            return dict(entry, error=error, in_the_way=in_the_way)

        rp = max(self.rp_filter.get(iif, 0), self.rp_filter.get("all", 0))
        if iif and not v6 and rp and (entry["back"]["error"] or rp == 1 and entry["back"]["dev"] != iif):
            return refuse(MARTIAN)
        if destination in self.own():
            return dict(entry, type="local", via="", dev="lo", prefsrc="", mtu=0, flags=[], matched=f"local {destination}")
        if iif and not v6 and "0" in (self.forwarding.get(iif), self.forwarding.get("all")):
            return refuse(NO_ROUTE_TO_HOST)
        if found is None:
            return refuse(UNREACHABLE)
        cidr, via, dev = found
        if dev == "blackhole":
            return refuse(MARTIAN, f"blackhole {cidr}")
        entry.update(type="unicast", via=via, dev=dev, prefsrc="", mtu=self.route_mtu.get(cidr, 0), learned_mtu=0)
        entry["flags"] = ["linkdown"] if dev in self.down else []
        entry.update(matched=f"{cidr}{' via ' + via if via else ''} dev {dev}")
        entry["neighbour"] = {"state": self.neighbours.get(via or destination, "REACHABLE"), "mac": "02:00:00:00:00:01"}
        if begins:
            by = next((s for c, s in self.masquerades.items() if ipaddress.ip_address(destination) in ipaddress.ip_network(c)), "")
            entry["translation"] = {"by": "MASQUERADE" if by else "", "rule": "nat rule 1", "doubts": list(self.doubts), "source": by}
        return entry

    def answer(self, flows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.why:
            return {"why": self.why}
        lookups = []
        for flow in flows:
            source, destination = flow["source"], flow["destination"]
            outer = [name for name in self.links if name.startswith("eth")]
            iifs = [""] if source in self.own() else [self.pods[source], *outer] if source in self.pods else outer
            lookups += [self.lookup(source, destination, iif, flow["begins"]) for iif in iifs]
        names = [*self.links, *self.pods.values()]
        sysctls = {f"net.ipv4.conf.{n}.forwarding": self.forwarding.get(n, self.forwarding.get("all", "1")) for n in [*names, "all"]}
        sysctls.update({f"net.ipv4.conf.{n}.rp_filter": str(self.rp_filter.get(n, 0)) for n in [*names, "all"]})
        sysctls["net.ipv6.conf.all.forwarding"] = self.forwarding.get("all", "1")
        return {
            "lookups": lookups,
            "interfaces": {
                n: {"mtu": self.mtu.get(n, 1500), "up": n not in self.down, "loopback": False, "addresses": self.links.get(n, [])} for n in names
            },
            "sysctls": sysctls,
            "pods": {ip: self.pod_answer(ip, flows) for ip in self.pods},
            "gateways": self.gateways,
            "notes": [],
        }

    def pod_answer(self, ip: str, flows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.pod_error:
            return {"error": self.pod_error, "lookups": [], "interfaces": {}}
        default = "::/0" if ":" in ip else "0.0.0.0/0"
        length = 64 if ":" in ip else 24
        pod = PaperNode(ip, {"eth0": [f"{ip}/{length}"]}, {default: ("10.244.0.1", "eth0")}, mtu={"eth0": self.mtu.get(self.pods[ip], 1500)})
        mine = [f for f in flows if ip in (f["source"], f["destination"])]
        found = [pod.lookup(f["source"], f["destination"], "" if f["source"] == ip else "eth0", False) for f in mine]
        return {"error": "", "lookups": found, "interfaces": {"eth0": {"mtu": pod.mtu["eth0"], "up": True, "loopback": False, "addresses": pod.links["eth0"]}}}


def pod_ip6(node: int, number: int) -> str:
    return str(ipaddress.ip_address(f"fd00:10:{node}::{number}"))


class PaperCluster:
    """Nodes ``a``, ``b`` and ``c`` of the guide, with two pods each, in both families."""

    def __init__(self) -> None:
        self.table = [
            Node(n, (f"172.18.0.{i + 2}", f"fd00:18::{i + 2}"), (f"10.244.{i}.0/24", str(ipaddress.ip_network(f"fd00:10:{i}::/64"))))
            for i, n in enumerate("abc")
        ]
        self.nodes = {}
        for i, node in enumerate(self.table):
            links = {"eth0": [f"{node.node_ips[0]}/16", f"{node.node_ips[1]}/64"], "veth0": [f"10.244.{i}.1/32", f"{pod_ip6(i, 1)}/128"]}
            routes = {"172.18.0.0/16": ("", "eth0"), "fd00:18::/64": ("", "eth0")}
            for peer in self.table:
                if peer is not node:
                    routes.update({cidr: (ip, "eth0") for cidr, ip in zip(peer.pod_cidrs, peer.node_ips)})
            pods = {f"10.244.{i}.2": "veth0", f"10.244.{i}.3": "veth1", pod_ip6(i, 2): "veth0", pod_ip6(i, 3): "veth1"}
            masquerades = {"172.18.0.0/16": node.node_ips[0], "192.0.2.0/24": node.node_ips[0]}
            self.nodes[node.name] = PaperNode(node.name, links, routes, pods, masquerades=masquerades)

    def __getitem__(self, name: str) -> PaperNode:
        return self.nodes[name]

    def infos(self, **timers: dict[str, Any]) -> dict[str, Any]:
        """What kindnet_info tells of each node."""
        found: dict[str, Any] = {}
        for i, (name, node) in enumerate(self.nodes.items()):
            if node.why:
                continue
            pods = [
                {"ips": [f"10.244.{i}.{n + 2}", pod_ip6(i, n + 2)], "container": f"{name}{n}0ffee{i}", "name": f"pod-{name}{n}", "namespace": "default",
                 "interface": f"veth{n}", "netns": "/proc/7/ns/net"} for n in (0, 1)
            ]
            addresses = [{"interface": d, "ip": a.split("/")[0], "prefix_length": 0} for d, each in node.links.items() for a in each]
            timer = {"active": "active", "since": "2026-11-27T01:00:00Z", "paused_seconds": None, "problems": [], **timers.get(name, {})}
            found[name] = {"node_name": name, "managed": True, "pods": pods, "addresses": copy.deepcopy(addresses), "timer": timer}
        return found
