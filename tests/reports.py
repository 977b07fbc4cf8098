# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports as drift.json has them, of clusters of any size, with the faults that a test asks for."""

from __future__ import annotations

from ansible_collections.kindnet.host.plugins.plugin_utils._cross_checks import cross_checks
from ansible_collections.kindnet.host.plugins.plugin_utils._report import is_told

WHEN = "2026-11-27T02:22:30Z"
GUIDE = ("k8s-guide-control-plane", "k8s-guide-worker", "k8s-guide-worker2")


def names_of(n):
    return list(GUIDE[:n]) if n <= 3 else ["node-%0*d" % (len(str(n)), i) for i in range(1, n + 1)]


def address(i):
    return "172.18.%d.%d" % (i // 250, i % 250 + 2)


def pod_cidr(i):
    return "10.%d.%d.0/24" % (244 + i // 256, i % 256)


def route(dst, via, dev="eth0", protocol="107", metric=0, type="unicast"):
    return {"dst": dst, "via": via, "dev": dev, "protocol": protocol, "metric": metric, "type": type, "ours": protocol == "107"}


def difference(concern, subject, action, before, after, reason):
    return {"concern": concern, "subject": subject, "action": action, "before": before, "after": after, "reason": reason}


def report_of(n, faults=()):
    """A report of ``n`` nodes in sync, and what each of ``faults``, functions that take it, makes of it."""
    names = names_of(n)
    nodes = [{"name": name, "node_ips": [address(i)], "pod_cidrs": [pod_cidr(i)]} for i, name in enumerate(names)]
    routes = [route(pod_cidr(i), address(i)) for i in range(n)]  # shared by all hosts: there are a million at 1,000 nodes
    hosts = [
        {
            "name": name,
            "status": "in_sync",
            "line": "in sync",
            "differences": [],
            "differences_left_out": 0,
            "problems": [],
            "failures": [],
            "notes": [],
            "message": "",
            "looked_at": ["host", "masq", "routes", "sysctl"],
            "info": _info(i, name, [r for k, r in enumerate(routes) if k != i]),
        }
        for i, name in enumerate(names)
    ]
    report = {
        "schema": 1,
        "generator": "kindnet.host 0.2.0",
        "generated": WHEN,
        "playbook": "drift.yml",
        "check_mode": True,
        "limit": "",
        "cluster_name": "kindnet",
        "nodes": nodes,
        "hosts": hosts,
        "cross_host": [],
        "reachability": None,
    }
    for fault in faults:
        fault(report)
    return _counted(report)


def _info(i, name, routes):
    own = pod_cidr(i)
    base = own.rpartition(".")[0]
    pods = [
        {"ips": ["%s.%d" % (base, k + 2)], "container": "%012x" % (i * 16 + k), "name": "pod-%d" % (i * 2 + k + 1), "namespace": "default",
         "interface": "veth%08x" % (0x1A2B3C00 + i * 16 + k), "netns": "/run/netns/cni-%d" % k}
        for k in range(2)
    ]  # fmt: skip
    local = [route(p["ips"][0] + "/32", "", p["interface"], "boot") for p in pods]
    return {
        "node_name": name,
        "hostname": name,
        "managed": True,
        "cluster_name": "kindnet",
        "versions": {
            "collection": "0.2.0", "digest": "3f1c9a0d2b7e4c55", "python": "3.11.2", "kernel": "6.18.5", "pyroute2": "0.7.2",
            "iptables": "1.8.9 (nf_tables)", "nft": "1.0.6", "containerd": "1.6.20",
        },
        "desired": {
            "digest": "9b1d0c6f5a3e7742", "recorded": "2026-11-26T18:04:11Z", "sections": ["masq", "routes", "sysctl"], "error": "",
            "pod_cidrs": [own], "peers": "",
        },
        "peers": {"wanted": len(routes), "present": len(routes), "missing": []},
        "node_interface": {"name": "eth0", "mtu": 1500},
        "links": [{"name": "eth0", "index": 2, "mtu": 1500, "up": True, "kind": "veth", "mac": "02:42:ac:12:00:02"}],
        "addresses": [{"interface": "eth0", "ip": address(i), "prefix_length": 16}],
        "sysctls": {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "0"},
        "routes": [route("172.18.0.0/16", "", "eth0", "kernel"), *routes, *local],
        "pods": pods,
        "veths": [{"name": p["interface"], "mtu": 1500, "up": True, "container": p["container"], "addresses": [base + ".1"]} for p in pods],
        "masquerade": [],
        "conflists": [],
        "timer": {
            "active": "active", "enabled": "enabled", "since": WHEN, "paused_seconds": None, "last_pass": {"result": "ok", "at": WHEN}, "problems": [],
        },
        "watch": {"active": "inactive", "enabled": "disabled"},
        "history": [],
        "notes": [],
        "unseen": [],
    }  # fmt: skip


def _counted(report):
    """Verdict, exit code and totals, from what the hosts are."""
    states = ("in_sync", "drifted", "failed", "unreachable", "changed")
    counts = {state: sum(h["status"] == state for h in report["hosts"]) for state in states}
    report["totals"] = {
        "hosts": len(report["hosts"]),
        **counts,
        "differences": sum(len(h["differences"]) for h in report["hosts"]),
        "problems": sum(len(h["problems"]) for h in report["hosts"]),
        "cross_host": len(report["cross_host"]),
        "compared": sum(bool(h["info"]) for h in report["hosts"]),
    }
    verdict = next((s for s in ("unreachable", "failed", "drifted") if counts[s]), "drifted" if report["cross_host"] else "in_sync")
    report["verdict"] = verdict
    report["exit_code"] = {"in_sync": 0, "drifted": 2, "failed": 2, "unreachable": 4}[verdict]
    return report


def _host(report, host):
    return report["hosts"][host] if isinstance(host, int) else next(h for h in report["hosts"] if h["name"] == host)


def _drifted(host, *differences):
    host["status"] = "drifted"
    host["differences"].extend(differences)
    host["line"] = "drifted: %d difference%s" % (len(host["differences"]), "" if len(host["differences"]) == 1 else "s")


def missing(source, target):
    """Node ``source`` lacks its route to the pods of node ``target``; both are places in the table."""

    def fault(report):
        host, dst = _host(report, source), pod_cidr(target)
        host["info"]["routes"] = [r for r in host["info"]["routes"] if r["dst"] != dst]
        host["info"]["peers"]["missing"].append(dst)
        host["info"]["peers"]["present"] -= 1
        _drifted(host, difference("routes", "route " + dst, "add", "", "via %s proto 107" % address(target), "missing"))

    return fault


def wrong(source, target, via):
    """Its route there is ours, and leads to ``via``."""

    def fault(report):
        host, dst = _host(report, source), pod_cidr(target)
        host["info"]["routes"] = [route(dst, via) if r["dst"] == dst else r for r in host["info"]["routes"]]
        text = "via %s dev eth0 proto 107"
        _drifted(host, difference("routes", "route " + dst, "replace", text % via, text % address(target), "its next hop differs"))

    return fault


def foreign(source, dst, via, protocol="static", metric=0, instead=False):
    """A route of somebody else; ``instead`` of ours, or beside it."""

    def fault(report):
        host = _host(report, source)
        kept = [r for r in host["info"]["routes"] if not (instead and r["dst"] == dst)]
        host["info"]["routes"] = [*kept, route(dst, via, protocol=protocol, metric=metric)]
        message = "a route of proto %s via %s is in the way, and left alone. Remove it: ip route del %s" % (protocol, via, dst)
        if instead:
            _drifted(host)
            host["problems"].append({"concern": "routes", "subject": "route " + dst, "message": message})

    return fault


def unreachable(host, message="Failed to connect to the host via ssh: connect to host port 22: No route to host"):
    def fault(report):
        found = _host(report, host)
        found.update(status="unreachable", line="unreachable: no route to host", message=message, info=None, differences=[], problems=[], looked_at=[])

    return fault


def failed(host, message="the lock is held by another run"):
    def fault(report):
        failures = [{"concern": "masq", "message": message}]
        _host(report, host).update(status="failed", line="failed: " + message, message=message, failures=failures)

    return fault


def leave_out(report, recorded=()):
    """As hosts tell of themselves that leave out what is as recorded: the right routes, and of ``recorded``, pairs of a host and a destination, as they are."""
    wanted = {cidr: node["node_ips"][0] for node in report["nodes"] for cidr in node["pod_cidrs"]}
    for host in report["hosts"]:
        info = host["info"]
        if info:
            dsts = [r["dst"] for r in info["routes"]]
            as_recorded = [
                r for r in info["routes"]
                if r["ours"] and dsts.count(r["dst"]) == 1 and (r["via"] == wanted.get(r["dst"]) or (host["name"], r["dst"]) in recorded)
            ]  # fmt: skip
            info["routes"] = [r for r in info["routes"] if r not in as_recorded]
            info["routes_left_out"] = len(as_recorded)
    return report


def differs(host, *args):
    """A difference that is no route: concern, subject, action, before, after, reason."""
    return lambda report: _drifted(_host(report, host), difference(*args))


def cross(check, hosts, subject, message):
    return lambda report: report["cross_host"].append({"check": check, "hosts": list(hosts), "subject": subject, "message": message})


def mtu(host, value):
    return lambda report: _host(report, host)["info"]["node_interface"].update(mtu=value)


def compared(report):
    """With the findings that these hosts make."""
    report["cross_host"] = [found for found in cross_checks(report["nodes"], report["hosts"]) if not is_told(found, report["hosts"])]


def lossy(report, *pairs, mode="full"):
    """What playbooks/reachability.yml finds if packets of ``pairs`` of places do not arrive, be it from nodes or from their pods."""
    names = [h["name"] for h in report["hosts"]]
    ends = {"node": names, "pod": ["%s/default/pod" % name for name in names]}
    results = [
        {"kind": "%s to %s" % kind, "source": ends[kind[0]][i], "source_host": s, "target": ends[kind[1]][k], "target_host": t,
         "address": address(k) if kind[1] == "node" else pod_cidr(k).replace(".0/24", ".2"),
         "sent": 3, "received": 0 if (i, k) in pairs else 3, "loss": 100.0 if (i, k) in pairs else 0.0, "error": "",
         **dict.fromkeys(("rtt_ms", "rtt_min_ms", "rtt_max_ms"), None if (i, k) in pairs else 0.1 + (i * 7 + k * 3) % 10 / 20)}
        for kind in (("pod", "pod"), ("node", "pod"), ("node", "node"))
        for i, s in enumerate(names) for k, t in enumerate(names) if i != k
    ]  # fmt: skip
    both = sorted([*names, *ends["pod"]])
    report["reachability"] = {
        "generated": WHEN, "mode": mode, "sample": 0, "hosts": names, "sources": both, "targets": both, "results": results, "not_asked": [], "not_tried": [],
    }  # fmt: skip


CHAIN = """-A KIND-MASQ-AGENT -d 10.244.0.0/16 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
-A KIND-MASQ-AGENT -m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE"""

CONFLIST = """{
  "cniVersion": "0.3.1",
  "name": "kindnet",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "mtu": 1500
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}"""


def guide():
    """Three nodes with a finding of each kind: what the picture of the README shows."""
    before = CHAIN.splitlines()
    report = report_of(
        3,
        [
            missing(0, 2),
            differs(0, "sysctl", "sysctl net.ipv4.ip_forward", "replace", "0", "1", "routing between pods needs it"),
            wrong(1, 0, "172.18.0.9"),
            foreign(1, "10.244.2.128/25", "172.18.0.2"),
            differs(1, "masq", "chain ip/nat/KIND-MASQ-AGENT", "replace", "\n".join(reversed(before)), CHAIN, "a rule is misplaced"),
            differs(2, "conflist", "file /etc/cni/net.d/10-kindnet.conflist", "replace", CONFLIST.replace("1500", "1400"), CONFLIST, "mtu differs"),
            mtu(2, 1400),
            compared,
        ],
    )
    lossy(report, (0, 2), (1, 0), (2, 1))
    return report


def large(n=50):
    """Some findings among many nodes."""
    report = report_of(
        n,
        [
            missing(3, 7),
            missing(3, 8),
            wrong(11, 4, address(12)),
            foreign(20, pod_cidr(30), "172.18.0.1", "bird", instead=True),
            foreign(21, "10.244.9.128/25", "172.18.0.1", "static"),
            differs(25, "sysctl", "sysctl net.ipv4.ip_forward", "replace", "0", "1", "routing between pods needs it"),
            *[missing(k, n - 1) for k in range(30, n - 1)],
            unreachable(40),
            failed(41),
        ],
    )
    lossy(report, (3, 7), (3, 8), (11, 4))
    return report


# What a host in the wrong hands could call itself, its pods and its rules.
HOSTILE = "</script></style></title><img src=x onerror=alert(1)>\"'`&amp;{{ 7*7 }}{% raw %}]]>--><svg onload=alert(2)>|]})%% end\u202e\x00\x1b\ud800\n- x"


def everywhere(report, text):
    """``report`` with ``text`` behind every text in it that is no address or state."""
    kept = ("status", "verdict", "state", "kind", "ip", "dst", "via", "type", "node_ips", "pod_cidrs", "missing", "generated")

    def poisoned(value, key=""):
        if isinstance(value, dict):
            return {k: poisoned(v, k) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [poisoned(v, key) for v in value]
        return value + text if isinstance(value, str) and key not in kept else value

    return poisoned(report)
