# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster as a report has it, in which everything is as it should be, for the tests of what is wrong between hosts."""

from __future__ import annotations

from typing import Any

from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_nodes
from ansible_collections.kindnet.host.plugins.module_utils._peers_digest import digest_of
from ansible_collections.kindnet.host.plugins.module_utils._wanted_routes import peers_of
from ansible_collections.kindnet.host.plugins.plugin_utils._cross_checks import cross_checks

CODE = ("0.2.0", "c0de000000000002")


def table(count: int = 3, families: str = "4") -> list[dict[str, Any]]:
    """Nodes n0, n1, ... with an address and a pod CIDR of each family."""
    return [
        {
            "name": "n%d" % i,
            "node_ips": (["172.18.%d.%d" % (i // 250, 1 + i % 250)] if "4" in families else []) + (["fd00:18::%x" % (i + 1)] if "6" in families else []),
            "pod_cidrs": (["10.%d.%d.0/24" % (100 + i // 250, i % 250)] if "4" in families else [])
            + (["fd00:10:0:%x::/64" % (i + 1)] if "6" in families else []),
        }
        for i in range(count)
    ]


def route(dst: str, via: str, **more: Any) -> dict[str, Any]:
    return dict({"dst": dst, "via": via, "dev": "eth0", "protocol": "107", "metric": 0, "type": "unicast", "ours": True}, **more)


def host_of(node: dict[str, Any], nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """A host of the report on which everything is as it should be."""
    peers = peers_of(parse_nodes(nodes), node["name"])
    first = node["pod_cidrs"][0].partition("/")[0]
    pod, gateway = (first[:-1] + "2", first[:-1] + "1") if ":" not in first else (first + "2", first + "1")
    return {
        "name": node["name"],
        "status": "in_sync",
        "differences": [],
        "problems": [],
        "info": {
            "managed": True,
            "versions": {"collection": CODE[0], "digest": CODE[1]},
            "desired": {"recorded": "2026-11-20T08:00:00Z", "pod_cidrs": list(node["pod_cidrs"]), "peers": digest_of(peers)},
            "peers": {"wanted": len(peers), "present": len(peers), "missing": []},
            "node_interface": {"name": "eth0", "mtu": 1500},
            "links": [{"name": "eth0", "kind": ""}, {"name": "docker0", "kind": "bridge"}, {"name": "veth1", "kind": "veth"}],
            "addresses": [{"interface": "eth0", "ip": ip, "prefix_length": 16} for ip in node["node_ips"]]
            + [{"interface": "docker0", "ip": "172.17.0.1", "prefix_length": 16}, {"interface": "veth1", "ip": gateway, "prefix_length": 32}],
            "routes": [route(cidr, hop) for _name, cidr, hop in peers]
            + [route("172.18.0.0/16", "", protocol="kernel", ours=False), route(pod + "/32", "", dev="veth1", protocol="boot", ours=False)],
            "pods": [{"ips": [pod], "container": "pod", "interface": "veth1"}],
            "conflists": [{"path": "/etc/cni/net.d/10-kindnet.conflist", "ours": True, "in_use": True, "mtu": 1500, "subnets": list(node["pod_cidrs"])}],
            "timer": {
                "active": "active",
                "enabled": "enabled",
                "since": "2026-11-26T00:00:00Z",
                "paused_seconds": None,
                "last_pass": {"result": "ok", "at": "2026-11-27T02:00:00Z"},
                "problems": [],
            },
        },
    }


def cluster(count: int = 3, families: str = "4") -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    nodes = table(count, families)
    return nodes, {node["name"]: host_of(node, nodes) for node in nodes}


def findings(nodes: list[dict[str, Any]], hosts: dict[str, dict[str, Any]], code: tuple[str, str] | None = None) -> list[dict[str, Any]]:
    found = cross_checks(nodes, list(hosts.values()), code)
    for one in found:
        assert set(one) == {"check", "hosts", "subject", "message"} and one["hosts"] and one["subject"]
        assert one["message"].endswith(".") and all(name in one["message"] for name in one["hosts"][:8]), one
    return found


def the_one(nodes: list[dict[str, Any]], hosts: dict[str, dict[str, Any]], code: tuple[str, str] | None = None) -> dict[str, Any]:
    (found,) = findings(nodes, hosts, code)
    return found


def drop_route(host: dict[str, Any], dst: str) -> None:
    host["info"]["routes"] = [r for r in host["info"]["routes"] if r["dst"] != dst]


def difference(host: dict[str, Any], concern: str, subject: str) -> None:
    host["differences"].append({"concern": concern, "subject": subject, "action": "add", "before": "", "after": "x", "reason": "missing"})
