# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kindnet_info tells of a host, against what ip, iptables-save and nft print of it. Pods are made by the reference plugins, counters by packets."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from typing import Any, Iterator, Sequence

import pytest
from cni_sandbox import ROOT, Sandbox
from waiting import has_settled, until

MODULE = "ansible_collections.kindnet.host.plugins.modules.kindnet_info"
PLUGINS = "/usr/lib/cni"
CONFLIST = "/etc/cni/net.d/10-kindnet.conflist"
DESIRED = "/etc/kindnet/desired.json"
PLACES = ("/etc", "/run", "/var/lib/cni", "/var/lib/kindnet", "/usr/local/lib/kindnet")
BACKENDS = ("iptables-nft", "iptables-legacy", "nftables")
CLUSTERS = ["10.244.0.0/16", "fd00:10:244::/48"]
NODES = [
    {"name": "me", "node_ips": ["172.18.0.2", "fd00:18::2"], "pod_cidrs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
    {"name": "b", "node_ips": ["172.18.0.3", "fd00:18::3"], "pod_cidrs": ["10.244.2.0/24", "fd00:10:244:2::/64"]},
    {"name": "c", "node_ips": ["172.18.0.4", "fd00:18::4"], "pod_cidrs": ["10.244.3.0/24", "fd00:10:244:3::/64"]},
]
EMPTY: dict[str, Any] = {
    "managed": False,
    "cluster_name": "",
    "desired": {"digest": "", "recorded": "", "sections": [], "error": "", "pod_cidrs": [], "peers": ""},
    "peers": {"wanted": 0, "present": 0, "missing": []},
    "node_interface": {"name": "", "mtu": 0},
    "routes": [],
    "pods": [],
    "masquerade": [],
    "conflists": [],
    "history": [],
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(PLUGINS + "/ptp"), reason="needs root and the reference plugins")


@pytest.fixture
def host(tmp_path: Any) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path)
    sandbox.sh(
        "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0;"
        "ip link add eth0 mtu 1400 type veth peer name far0; ip link set far0 up; ip link set eth0 up;"
        "ip address add 172.18.0.2/16 dev eth0; ip address add fd00:18::2/64 dev eth0 nodad; mkdir -p /opt/cni; ln -s %s /opt/cni/bin" % PLUGINS
    )
    until("links have their own addresses", lambda: has_settled(sandbox.sh("ip -json -6 address")))
    until("the kernel has made its routes", lambda: "local fd00:18::2 " in sandbox.sh("ip -6 route show table local"))
    yield sandbox
    sandbox.close()


def told(host: Sandbox, **options: Any) -> dict[str, Any]:
    """The module's answer; what there is to be seen of the host is the same before and after."""
    before = everything(host)
    result = host.module("kindnet_info", dict({"node_name": "me", "cluster_cidrs": CLUSTERS}, **options), bool(options.get("check")))
    assert everything(host) == before
    assert not result.get("failed") and result["changed"] is False, result
    return result


def everything(host: Sandbox) -> str:
    """Files, and what the kernel holds, with the legacy tables that it has at all: to list one would make it."""
    commands = "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names || true; ip -json address"
    commands += "; ip -json -details -4 route show table all; ip -json -details -6 route show table all; nft -j list ruleset"
    return host.tree(*PLACES) + host.sh(commands)


def converge(host: Sandbox, backend: str = "iptables-nft", clusters: Sequence[str] = tuple(CLUSTERS)) -> None:
    families = [":" in cluster for cluster in clusters]
    own = [cidr for cidr in NODES[0]["pod_cidrs"] if (":" in cidr) in families]
    ipam = {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": [[{"subnet": cidr}] for cidr in own]}
    conflist = {"cniVersion": "0.4.0", "name": "kindnet", "plugins": [{"type": "ptp", "mtu": 1380, "ipam": ipam}, {"type": "portmap"}]}
    for module, options in (
        ("kindnet_masq", {"cluster_cidrs": list(clusters), "backend": backend}),
        ("cni_conflist", {"conflist": conflist}),
        ("kindnet_route", {"nodes": json.dumps(NODES), "node_name": "me", "cluster_cidrs": CLUSTERS}),
    ):
        result = host.module(module, options)
        assert not result.get("failed"), result


def add_pod(host: Sandbox, pod: str, netns: str, ifname: str = "eth0", path: str = CONFLIST) -> dict[str, Any]:
    """What a runtime does for a pod, without its further plugins; the plugin's result."""
    conflist: Any = host.json(path)
    host.sh("ip netns add %s" % netns)
    conf = dict(conflist["plugins"][0], cniVersion=conflist["cniVersion"], name=conflist["name"])
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": pod, "CNI_NETNS": "/run/netns/" + netns, "CNI_IFNAME": ifname, "CNI_PATH": PLUGINS}
    done = host.run("%s/%s" % (PLUGINS, conf["type"]), stdin=json.dumps(conf), env=variables)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def remember(host: Sandbox, pod: str, namespace: str, result: Any, args: Any = (), folder: str = "/var/lib/cni/results", **more: Any) -> None:
    """As libcni keeps it: https://github.com/containernetworking/cni, libcni/api.go, cachedInfo."""
    cached = {
        "kind": "cniCacheV1",
        "containerId": pod,
        "config": "e30=",
        "ifName": "eth0",
        "networkName": "kindnet",
        "netns": "/run/netns/" + namespace,
        "cniArgs": [list(pair) for pair in args],
        "result": result,
    }
    host.write("%s/kindnet-%s-eth0" % (folder, pod), json.dumps(dict(cached, **more)))


def ip(host: Sandbox, command: str) -> Any:
    return json.loads(host.sh("ip -json %s" % command) or "[]")


# --- A host that nobody converged


def test_a_host_that_was_never_converged(host: Sandbox) -> None:
    result = told(host)
    assert {name: result[name] for name in EMPTY} == EMPTY
    assert result["node_name"] == "me" and result["hostname"] == host.sh("uname -n").strip()
    assert result["versions"]["kernel"] == host.sh("uname -r").strip() and result["versions"]["collection"] == ""
    assert result["sysctls"] == {
        key: host.read("/proc/sys/" + key.replace(".", "/")).strip()
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter")
    }
    assert result["timer"]["last_pass"] == {"result": "unknown", "at": ""}
    assert all("systemd does not run this host" in note for note in result["notes"]) and len(result["notes"]) == 2
    assert told(host, node_name="")["node_name"] == result["hostname"]


def test_check_mode_tells_the_same(host: Sandbox) -> None:
    converge(host)
    plain, checked = (host.module("kindnet_info", {"node_name": "me"}, check) for check in (False, True))
    assert plain == checked and plain["managed"]


def test_without_any_of_the_programs(host: Sandbox) -> None:
    """The chain is there, and nothing can list it: that is not the same as none."""
    converge(host)
    assert told(host)["masquerade"]
    empty = "for folder in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $folder; done; "
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"node_name": "me"}})
    command = empty + "exec %s -m %s" % (sys.executable, MODULE)
    done = host.run("unshare", "--mount", "sh", "-c", command, stdin=arguments, env={"PYTHONPATH": str(ROOT / ".ansible/collections")})
    result = json.loads(done.stdout)
    assert {result["versions"][tool] for tool in ("iptables", "nft", "containerd")} == {""}
    assert result["masquerade"] == [] and any("iptables-nft" in note and "is not installed" in note for note in result["notes"]), result["notes"]
    assert result["peers"]["present"] == 4


# --- What the kernel holds


def test_links_and_addresses_are_those_of_ip(host: Sandbox) -> None:
    host.sh(
        "ip link add br0 type bridge; ip link add x0 type vxlan id 5 dev eth0 dstport 4789; ip link add v1 mtu 9000 type veth peer name v2; ip link set v1 up;"
        "ip address add 192.0.2.1/24 dev br0; ip address add 192.0.2.9 peer 192.0.2.10/32 dev v1; ip address add 169.254.3.3/16 dev br0;"
        "ip address add 203.0.113.1/24 dev br0 scope link; ip address add 198.51.100.1/32 dev lo"
    )
    result = told(host)
    rows = ip(host, "-details address")
    assert result["links"] == [
        {
            "name": row["ifname"],
            "index": row["ifindex"],
            "mtu": row["mtu"],
            "up": {"UP", "LOWER_UP"} <= set(row["flags"]),
            "kind": row.get("linkinfo", {}).get("info_kind", ""),
            "mac": row["address"],
        }
        for row in rows
    ]
    assert {link["kind"] for link in result["links"]} == {"", "veth", "bridge", "vxlan"}
    assert {link["up"] for link in result["links"]} == {True, False}
    wanted = [
        (row["ifname"], a["local"], a["prefixlen"]) for row in rows for a in row["addr_info"] if a["scope"] == "global" and a["local"] != "169.254.3.3"
    ]
    assert [(a["interface"], a["ip"], a["prefix_length"]) for a in result["addresses"]] == wanted
    assert ("lo", "198.51.100.1", 32) in wanted and ("v1", "192.0.2.9", 32) in wanted


def test_routes_are_those_of_ip(host: Sandbox) -> None:
    converge(host)
    host.sh(
        "ip route add 10.244.9.0/24 via 172.18.0.9 dev eth0; ip route add blackhole 10.244.0.0/16 metric 50; ip -6 route add fd00:10:244:9::/64 via fd00:18::9;"
        "ip route add 10.244.8.0/24 nexthop via 172.18.0.8 dev eth0 nexthop via 172.18.0.9 dev eth0; ip route add 192.0.2.0/24 via 172.18.0.9;"
        "ip route add default via 172.18.0.1; ip route add 172.18.0.4/32 dev eth0 scope link; ip route add 10.0.0.0/8 via 172.18.0.9 proto static"
    )
    result = told(host)

    def shown(dst: str) -> str:
        return dst if "/" in dst else dst + ("/128" if ":" in dst else "/32")

    wanted = []
    for family in ("-4", "-6"):
        for row in ip(host, "-N -details %s route show table main" % family):
            if row["dst"] == "default" or row["dst"].startswith(("192.0.2", "fe80", "10.0.0.0")):
                continue
            protocol = {"2": "kernel", "3": "boot", "4": "static"}.get(row["protocol"], row["protocol"])
            kind = {"1": "unicast", "6": "blackhole"}[row["type"]]
            for hop in row.get("nexthops") or [row]:
                dev = "" if kind == "blackhole" else hop.get("dev", "")
                wanted.append((shown(row["dst"]), hop.get("gateway", ""), dev, protocol, row.get("metric", 0), kind, row["protocol"] == "107"))
    found = [tuple(route[key] for key in ("dst", "via", "dev", "protocol", "metric", "type", "ours")) for route in result["routes"]]
    assert sorted(found) == sorted(wanted)
    assert sum(route["ours"] for route in result["routes"]) == 4
    assert ("172.18.0.0/16", "", "eth0", "kernel", 0, "unicast", False) in found and ("172.18.0.4/32", "", "eth0", "boot", 0, "unicast", False) in found
    assert result["node_interface"] == {"name": "eth0", "mtu": 1400}
    assert result["sysctls"]["net.ipv4.conf.eth0.rp_filter"] == host.read("/proc/sys/net/ipv4/conf/eth0/rp_filter").strip()


def test_routes_as_recorded_are_left_out_if_they_are_more_than_asked_for(host: Sandbox) -> None:
    converge(host)
    host.sh("ip route replace 10.244.2.0/24 via 172.18.0.99 proto 107; ip route add 10.244.9.0/24 via 172.18.0.9")
    host.sh("ip route add 10.244.3.0/24 via 172.18.0.9 metric 7")
    whole, most, few = told(host), told(host, most_right_routes=2), told(host, most_right_routes=1)
    assert most["routes"] == whole["routes"] and (whole["routes_left_out"], most["routes_left_out"], few["routes_left_out"]) == (0, 0, 2)
    assert [r for r in whole["routes"] if not (r["ours"] and ":" in r["dst"])] == few["routes"]
    assert whole["peers"] == few["peers"] == {"wanted": 4, "present": 3, "missing": ["10.244.2.0/24"]}


def test_peers_against_the_kernel(host: Sandbox) -> None:
    converge(host)
    assert told(host)["peers"] == {"wanted": 4, "present": 4, "missing": []}
    host.sh(
        "ip route del 10.244.2.0/24; ip route replace 10.244.3.0/24 via 172.18.0.99; ip -6 route del fd00:10:244:3::/64;"
        "ip -6 route add fd00:10:244:3::/64 via fd00:18::4 proto static"
    )
    result = told(host)
    assert result["peers"] == {"wanted": 4, "present": 2, "missing": ["10.244.2.0/24", "10.244.3.0/24"]}, "the foreign one is right as it is"


# --- Pods


def test_pods_with_all_that_is_written_down_of_them(host: Sandbox) -> None:
    converge(host)
    results = {pod: add_pod(host, pod, "ns-" + pod) for pod in ("kube", "default-pod-1", "plain", "gone")}
    remember(host, "kube", "ns-kube", results["kube"], [("IgnoreUnknown", "1"), ("K8S_POD_NAMESPACE", "web"), ("K8S_POD_NAME", "shop-0")])
    # An older libcni, which does not keep where the namespace is
    remember(host, "default-pod-1", "ns-default-pod-1", results["default-pod-1"], folder="/var/lib/cni/cache/results", netns="")
    remember(host, "stale", "ns-stale", results["kube"], [("K8S_POD_NAME", "stale")])
    count = "$(ip -o link show type veth | wc -l)"
    host.sh("mkdir -p /run/containerd/io.containerd.runtime.v2.task/default/pod-1")
    host.sh("before=%s; ip netns del ns-gone; until [ %s -lt $before ]; do sleep 0.05; done" % (count, count))
    veths = {row["ifname"]: row for row in ip(host, "-details address") if re.fullmatch(r"veth[0-9a-f]{8}", row["ifname"])}
    dev_of = {row["dst"]: row["dev"] for family in ("-4", "-6") for row in ip(host, "%s route show table main" % family)}
    result = told(host)
    pods = {pod["container"]: pod for pod in result["pods"]}
    assert set(pods) == {"kube", "default-pod-1", "plain"}, "of the one that is gone host-local still has the address"
    for container, pod in pods.items():
        ips = [entry["address"].partition("/")[0] for entry in results[container]["ips"]]
        assert sorted(pod["ips"]) == sorted(ips) and len(ips) == 2
        assert {dev_of[address] for address in ips} == {pod["interface"]}
    assert [(pods[c]["name"], pods[c]["namespace"]) for c in ("kube", "default-pod-1", "plain")] == [("shop-0", "web"), ("pod-1", "default"), ("plain", "")]
    assert [pods[c]["netns"] for c in ("kube", "default-pod-1", "plain")] == ["/run/netns/ns-kube", "/run/netns/ns-default-pod-1", ""]
    assert any("2 addresses to which no host route leads" in note for note in result["notes"]), result["notes"]
    assert {v["name"]: (v["mtu"], v["up"], v["container"]) for v in result["veths"] if v["container"]} == {
        pod["interface"]: (1380, True, container) for container, pod in pods.items()
    }
    for veth in result["veths"]:
        if veth["container"]:
            assert veth["addresses"] == [a["local"] for a in veths[veth["name"]]["addr_info"] if a["scope"] == "global"] and len(veth["addresses"]) == 2
    assert {v["name"] for v in result["veths"]} == set(veths) | {"far0"}, "the node's own interface is no pod's"


def test_pods_of_another_plugin(host: Sandbox) -> None:
    """A bridge makes no host route; which veth is whose its result says."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
    host.write(CONFLIST, json.dumps({"cniVersion": "0.4.0", "name": "kindnet", "plugins": [bridge]}))
    result = add_pod(host, "pod", "ns1", "net1")
    (pod,) = told(host)["pods"]
    assert (pod["ips"], pod["interface"], pod["name"]) == (["10.244.1.2"], "", "pod")
    remember(host, "pod", "ns1", result)
    host.sh("mv /var/lib/cni/results/kindnet-pod-eth0 /var/lib/cni/results/kindnet-pod-net1")
    (pod,) = told(host)["pods"]
    (veth,) = [row["ifname"] for row in ip(host, "-details link show type veth") if row.get("master") == "cni0"]
    assert pod["interface"] == veth


def test_configurations_as_a_runtime_comes_to_them(host: Sandbox) -> None:
    converge(host)
    host.write("/etc/cni/net.d/99-other.conf", json.dumps({"cniVersion": "0.3.0", "name": "other", "type": "bridge", "mtu": 9000}))
    host.write("/etc/cni/net.d/11-broken.conflist", "{")
    host.write("/etc/cni/net.d/00-readme.txt", "no configuration")
    host.sh("mkdir /etc/cni/net.d/01-folder.conflist")
    ours = {"path": CONFLIST, "name": "kindnet", "cni_version": "0.4.0", "plugins": ["ptp", "portmap"], "ours": True, "in_use": True, "mtu": 1380}
    others = {"ours": False, "in_use": False, "subnets": []}
    result = told(host)
    assert result["conflists"] == [
        dict(ours, subnets=NODES[0]["pod_cidrs"]),
        dict(others, path="/etc/cni/net.d/11-broken.conflist", name="", cni_version="", plugins=[], mtu=None),
        dict(others, path="/etc/cni/net.d/99-other.conf", name="other", cni_version="0.3.0", plugins=["bridge"], mtu=9000),
    ]
    assert any("11-broken.conflist" in note for note in result["notes"])
    host.sh("mv /etc/cni/net.d/11-broken.conflist /etc/cni/net.d/05-broken.conflist")
    assert [c["in_use"] for c in told(host)["conflists"]] == [False, False, False], "with a damaged one first containerd loads none"


# --- Chains and their counters

SEND = """
import socket, sys
for address, count in zip(sys.argv[1::2], sys.argv[2::2]):
    for port in range(9000, 9000 + int(count)):  # each is a connection of its own, whose first packet the chain sees
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"x" * 72, (address, port))
"""


def counters(host: Sandbox, backend: str) -> dict[str, list[tuple[int, int]]]:
    """Packets and bytes of the rules of our chain, by family, in their order."""
    found: dict[str, list[tuple[int, int]]] = {}
    if backend == "nftables":
        for item in json.loads(host.sh("nft -j list table inet kindnet"))["nftables"]:
            rule = item.get("rule", {})
            if rule.get("chain") == "KIND-MASQ-AGENT":
                (counter,) = [e["counter"] for e in rule["expr"] if "counter" in e]
                family = "ipv6" if re.search(r'"(ip6|ipv6)"', json.dumps(rule["expr"])) else "ipv4"
                found.setdefault(family, []).append((counter["packets"], counter["bytes"]))
        return found
    for family, program in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
        text = host.sh("%s-%s-save -c -t nat" % (program, backend.rpartition("-")[2]))
        for packets, octets in re.findall(r"^\[(\d+):(\d+)\] -A KIND-MASQ-AGENT ", text, re.MULTILINE):
            found.setdefault(family, []).append((int(packets), int(octets)))
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_chains_with_their_counters(host: Sandbox, backend: str) -> None:
    converge(host, backend)
    host.run(sys.executable, "-c", SEND, "10.244.2.5", "3", "172.18.0.77", "2", "fd00:10:244:2::5", "4", "fd00:18::77", "1")
    wanted = counters(host, backend)
    assert [packets for packets, _bytes in wanted["ipv4"]] == [3, 2] and [packets for packets, _bytes in wanted["ipv6"]] == [4, 1]
    result = told(host)
    assert [(m["family"], m["backend"], m["chain"], m["present"], m["jumps"]) for m in result["masquerade"]] == [
        (family, backend, "KIND-MASQ-AGENT", True, 1) for family in ("ipv4", "ipv6")
    ]
    for chain in result["masquerade"]:
        assert [(rule["packets"], rule["bytes"]) for rule in chain["rules"]] == wanted[chain["family"]]
    first = [chain["rules"][0]["rule"] for chain in result["masquerade"]]
    if backend == "nftables":
        assert first == ["ip daddr @non_masquerade_ipv4 return", "ip6 daddr @non_masquerade_ipv6 return"]
    else:
        assert first == ["-d 10.244.0.0/16 -j RETURN", "-d fd00:10:244::/48 -j RETURN"]


def test_a_chain_that_is_gone_one_that_is_doubled_and_one_elsewhere(host: Sandbox) -> None:
    converge(host)
    host.sh("iptables-nft -t nat -F POSTROUTING; iptables-nft -t nat -F KIND-MASQ-AGENT; iptables-nft -t nat -X KIND-MASQ-AGENT")
    host.sh("ip6tables-nft -t nat -A POSTROUTING -j KIND-MASQ-AGENT; nft add table inet kindnet; nft add chain inet kindnet KIND-MASQ-AGENT")
    host.sh("nft add rule inet kindnet KIND-MASQ-AGENT ip daddr 192.0.2.0/24 counter packets 7 bytes 700 return")
    found = {(m["family"], m["backend"]): m for m in told(host)["masquerade"]}
    assert set(found) == {("ipv4", "iptables-nft"), ("ipv6", "iptables-nft"), ("ipv4", "nftables")}
    gone, doubled, elsewhere = found["ipv4", "iptables-nft"], found["ipv6", "iptables-nft"], found["ipv4", "nftables"]
    assert (gone["present"], gone["jumps"], gone["rules"]) == (False, 0, [])
    assert (doubled["present"], doubled["jumps"]) == (True, 2)
    assert (elsewhere["present"], elsewhere["jumps"], elsewhere["rules"][0]["packets"], elsewhere["rules"][0]["bytes"]) == (True, 0, 7, 700)


def test_a_rule_whose_comment_looks_like_counters(host: Sandbox) -> None:
    converge(host, clusters=CLUSTERS[:1])
    host.sh("iptables-nft -t nat -I KIND-MASQ-AGENT -d 192.0.2.1 -m comment --comment 'a \\\" -c 5 6 -j X' -j RETURN")
    (chain,) = told(host)["masquerade"]
    assert [(rule["packets"], rule["bytes"]) for rule in chain["rules"]] == counters(host, "iptables-nft")["ipv4"] == [(0, 0)] * 3
    assert "-c 5 6 -j X" in chain["rules"][0]["rule"] and chain["rules"][0]["rule"].endswith("-j RETURN")


def test_a_rule_that_counts_under_a_name_takes_no_other_away(host: Sandbox) -> None:
    converge(host, "nftables", clusters=CLUSTERS[:1])
    host.sh("nft add counter inet kindnet c; nft insert rule inet kindnet KIND-MASQ-AGENT counter name c")
    result = told(host)
    assert [m["family"] for m in result["masquerade"] if len(m["rules"]) == 3 and m["present"]] == ["ipv4"], result
    assert "masquerade" not in result["unseen"]


# --- What is recorded


def test_what_is_recorded(host: Sandbox) -> None:
    converge(host)
    host.sh("touch -d 2026-11-20T08:00:00Z %s" % DESIRED)
    result = told(host)
    content = host.run("cat", DESIRED).stdout.encode()
    assert result["desired"] == {
        "digest": hashlib.sha256(content).hexdigest()[:16],
        "recorded": "2026-11-20T08:00:00Z",
        "sections": ["conflist", "masq", "routes"],
        "error": "",
        "pod_cidrs": NODES[0]["pod_cidrs"],
        "peers": result["desired"]["peers"],
    }
    assert re.fullmatch(r"[0-9a-f]{16}", result["desired"]["peers"])
    assert result["managed"] and result["cluster_name"] == "kindnet" and told(host, node_name="")["node_name"] == "me"


def test_what_passes_repaired(host: Sandbox) -> None:
    repairs = [
        {"at": "2026-11-27T02:22:%dZ" % second, "section": "routes", "subject": "route X", "action": "add", "before": "", "after": "b", "reason": "missing"}
        for second in (10, 20)
    ]
    host.write("/var/lib/kindnet/history/repairs.jsonl", "".join(json.dumps(repair) + "\n" for repair in repairs) + "cut o")
    assert told(host)["history"] == repairs
    assert [told(host, most_repairs=n)["history"] for n in (0, 1, 3)] == [[], repairs[1:], repairs]
    host.sh("rm /var/lib/kindnet/history/repairs.jsonl; mkdir /var/lib/kindnet/history/repairs.jsonl")
    result = told(host)
    assert result["history"] == [] and any("repairs.jsonl" in note for note in result["notes"]) and "history" not in result["unseen"]


def test_a_pause_and_problems(host: Sandbox) -> None:
    now = float(host.read("/proc/uptime").split()[0])
    host.write("/run/kindnet/pause", "%.0f\n" % (now + 600))
    host.write("/run/kindnet/problems.json", json.dumps({"route X": {"section": "routes", "message": "is wrong. Mend it.", "said": now}}))
    timer = told(host)["timer"]
    assert 590 <= timer["paused_seconds"] <= 600 and timer["problems"] == [{"subject": "route X", "message": "is wrong. Mend it."}]
    host.write("/run/kindnet/pause", "soon")
    host.write("/run/kindnet/problems.json", "{")
    result = told(host)
    assert result["timer"]["paused_seconds"] is None and result["timer"]["problems"] == []
    assert any("/run/kindnet/pause" in note for note in result["notes"])


def test_only_what_is_asked_for(host: Sandbox) -> None:
    converge(host)
    result = told(host, gather=["peers", "pods"])
    assert set(result) - {"changed", "invocation"} == {"node_name", "hostname", "managed", "cluster_name", "peers", "pods", "notes", "unseen"}
    assert result["peers"]["present"] == 4
    assert host.module("kindnet_info", {"gather": ["peers", "nonsense"]})["failed"]
    assert "host bits" in host.module("kindnet_info", {"cluster_cidrs": ["10.244.0.1/16"]})["msg"]


# --- Sources that are broken: each costs what comes from it, and is told


def but(result: dict[str, Any], whole: dict[str, Any]) -> set[str]:
    return {name for name in whole if result.get(name) != whole[name]} - {"invocation", "notes"}


@pytest.mark.parametrize(
    "damage",
    ["echo '{' >%s", "echo '{\"schema\": 9}' >%s", "chmod 0666 %s", "echo '{\"schema\": 1, \"cluster_name\": \"kindnet\", \"sections\": {\"routes\": 7}}' >%s"],
)
def test_a_desired_state_that_cannot_be_used(host: Sandbox, damage: str) -> None:
    converge(host)
    add_pod(host, "pod", "ns1")
    whole = told(host)
    host.sh(damage % DESIRED)
    result = told(host)
    assert any(DESIRED in note for note in result["notes"]) and DESIRED in result["desired"]["error"]
    assert but(result, whole) <= {"node_name", "cluster_name", "desired", "peers", "node_interface", "sysctls", "routes", "veths", "masquerade", "conflists"}
    assert result["pods"] == whole["pods"] and result["managed"]
    ways_to_peers = [route for route in whole["routes"] if route["dst"] in ("172.18.0.0/16", "fd00:18::/64")]  # who they are is not known any more
    assert len(ways_to_peers) == 2 and result["routes"] == [route for route in whole["routes"] if route not in ways_to_peers]
    assert result["masquerade"][0]["rules"] == whole["masquerade"][0]["rules"]


@pytest.mark.parametrize(
    "section",
    [
        {"routes": {"peers": [["b", "nonsense", "x"]], "protocol": 107, "table": 254}},
        {"routes": {"peers": 7}},
        {"masq": {"chain": 7, "cluster_cidrs": 9}},
        {"conflist": {"conflist": 3}},
        {"conflist": {"path": 1, "conflist": {"name": "kindnet", "plugins": [{"ipam": {"type": "host-local", "ranges": [[{"subnet": 7}]]}}]}}},
    ],
)
def test_a_section_of_nonsense_costs_what_comes_from_it(host: Sandbox, section: dict[str, Any]) -> None:
    host.write(DESIRED, json.dumps({"schema": 1, "cluster_name": "kindnet", "sections": section}))
    result = told(host)
    assert any("systemd" not in note for note in result["notes"])
    assert result["cluster_name"] == "kindnet" and len(result["links"]) == 3


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "cniCacheV1", "cniArgs": 7, "netns": {}, "result": {"interfaces": [3, null]}}', "\\0"])
def test_a_cache_of_libcni_that_is_damaged_costs_the_name(host: Sandbox, content: str) -> None:
    converge(host)
    add_pod(host, "pod", "ns1")
    host.write("/var/lib/cni/results/kindnet-pod-eth0", content)
    (pod,) = told(host)["pods"]
    assert (pod["name"], pod["namespace"], pod["netns"]) == ("pod", "", "") and pod["interface"] and len(pod["ips"]) == 2


def test_an_allocation_that_is_damaged_costs_that_one(host: Sandbox) -> None:
    converge(host)
    add_pod(host, "pod", "ns1")
    host.sh("cd /run/cni-ipam-state/kindnet; mkdir 10.244.1.77; printf '\\377\\n\\377' >10.244.1.78; ip route add 10.244.1.78 dev eth0")
    result = told(host)
    assert [pod["ips"] for pod in result["pods"]] == [["10.244.1.2", "fd00:10:244:1::2"], ["10.244.1.78"]]
    assert any("10.244.1.77 is no regular file" in note for note in result["notes"])


def test_a_lock_of_iptables_that_somebody_holds_costs_the_chains(host: Sandbox) -> None:
    converge(host, "iptables-legacy")
    whole = told(host)
    assert len(whole["masquerade"]) == 2
    holder = subprocess.Popen(host.command("flock", "/run/xtables.lock", "sh", "-c", "echo held; exec sleep 60"), stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        result = told(host)
    finally:
        holder.kill()
        holder.wait()
        host.sh("fuser -s -k /run/xtables.lock || true")
    assert but(result, whole) == {"masquerade"} and result["masquerade"] == []
    assert any("/run/xtables.lock" in note for note in result["notes"])


def test_programs_that_print_nonsense_or_fail_cost_what_they_would_have_told(host: Sandbox) -> None:
    converge(host)
    for tool in ("iptables", "iptables-nft", "ip6tables-nft", "nft"):
        host.write("/run/sbin/" + tool, "#!/bin/sh\necho nonsense\nexit 3\n")
    host.sh("chmod 755 /run/sbin/*")
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"node_name": "me"}})
    command = "mount --bind /run/sbin /usr/sbin; exec %s -m %s" % (sys.executable, MODULE)
    done = host.run("unshare", "--mount", "sh", "-c", command, stdin=arguments, env={"PYTHONPATH": str(ROOT / ".ansible/collections")})
    result = json.loads(done.stdout)
    assert result["masquerade"] == [] and result["versions"]["iptables"] == result["versions"]["nft"] == ""
    assert sum("iptables-nft" in note or "ip6tables-nft" in note for note in result["notes"]) == 2 and result["peers"]["present"] == 4


def test_somebody_who_may_not_look_at_all_of_it_is_told_the_rest(host: Sandbox) -> None:
    converge(host)
    add_pod(host, "pod", "ns1")
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"node_name": "me"}})
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]  # capabilities
    done = host.run(*without, sys.executable, "-m", MODULE, stdin=arguments, check=False, env={"PYTHONPATH": str(ROOT / ".ansible/collections")})
    result = json.loads(done.stdout)
    assert result["peers"]["present"] == 4 and len(result["pods"]) == 1
    assert result["masquerade"] == [] and any("become" in note for note in result["notes"])


# --- What it costs

COUNTED = r"""
import json, runpy, sys
name = sys.argv.pop()  # one more argument would be the module's parameters
started = []
sys.addaudithook(lambda event, args: started.append(args[0]) if event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system") else None)
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
finally:
    print(json.dumps([str(program) for program in started]))
"""


def test_thousands_of_routes_and_pods_cost_no_process_more(host: Sandbox) -> None:
    converge(host)
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"node_name": "me"}})
    environment = {"PYTHONPATH": str(ROOT / ".ansible/collections")}

    def run() -> tuple[dict[str, Any], list[str]]:
        lines = host.run(sys.executable, "-c", COUNTED, MODULE, stdin=arguments, env=environment).stdout.strip().splitlines()
        return json.loads(lines[0]), json.loads(lines[-1])

    _few, programs = run()
    routes = "\n".join("route add 10.244.%d.%d/32 via 172.18.0.3 proto 107" % (64 + i // 256, i % 256) for i in range(5000))
    pods = "\n".join("route add 10.244.%d.%d/32 dev eth0 scope link" % (1 + i // 250, 2 + i % 250) for i in range(500))
    host.run("ip", "-batch", "-", stdin="%s\n%s\n" % (routes, pods))
    host.sh(
        "mkdir -p /run/cni-ipam-state/kindnet; cd /run/cni-ipam-state/kindnet;"
        "for i in $(seq 0 499); do printf 'c%s\\r\\neth0' $i >10.244.$((1 + i / 250)).$((2 + i % 250)); done"
    )
    many, same = run()
    assert len(many["routes"]) >= 5500 and len(many["pods"]) == 500
    assert same == programs and len(programs) > 3, programs
