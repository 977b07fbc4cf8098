# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walk that The Kubernetes Networking Guide makes through kindnet, on the lab's nodes: every point is shown by a command and checked.

What is asked is the kernel, its tools and packets, never the collection's own code. What is expected stands beside each check.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONTROL_PATH = "/run/kindnet-lab/ssh/walk-%C"  # where lab/nodes looks for connections to a node that is gone
OUTSIDE = "outside"  # a host of the node network that is no node and knows nothing of pods
ECHO_REQUEST = "icmp[icmptype] == icmp-echo"

BOLD, DIM, GREEN, RED, OFF = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 5


@dataclass(frozen=True)
class Host:
    name: str
    ip: str
    pod_cidr: str
    user: str

    def wrap(self, command: str) -> str:
        return command if self.user == "root" else f"sudo {command}"

    @property
    def gateway(self) -> str:
        """The first address of its pod CIDR."""
        return str(ipaddress.ip_network(self.pod_cidr)[1])


@dataclass
class Pod:
    name: str
    node: Host

    @cached_property
    def pid(self) -> str:
        listed = ask(self.node, "ctr task list")
        match = re.search(rf"^{self.name} +(\d+) +RUNNING", listed, re.MULTILINE)
        if not match:
            raise NoAnswer(f"{self.name} does not run on {self.node.name}: {listed.strip()}")
        return match[1]

    def wrap(self, command: str) -> str:
        # Not ctr task exec, which on a busy machine was seen to lose what a short command prints.
        return self.node.wrap(f"nsenter --target {self.pid} --mount --net --pid -- {command}")

    @property
    def address(self) -> str:
        return address_of(self)["local"]

    @property
    def veth(self) -> str:
        """The node's end of its link."""
        (inner,) = ask_json(self, "ip -json link show eth0")
        return next((o["ifname"] for o in ask_json(self.node, "ip -json link") if o["ifindex"] == inner["link_index"]), "no veth")


Place = Host | Pod


# --- Asking


def ssh(place: Place, command: str) -> list[str]:
    host = place.node if isinstance(place, Pod) else place
    shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", f"ControlPath={CONTROL_PATH}"]
    return ["ssh", "-F", str(ROOT / ".lab/ssh_config"), *shared, host.name, place.wrap(command)]


def ask(place: Place, command: str) -> str:
    """What a command prints there; what it says on stderr when it fails."""
    done = subprocess.run(ssh(place, command), capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr}(exit code {done.returncode})\n"


class NoAnswer(Exception):
    """A command printed something else than what a point needs to go on."""


def ask_json(place: Place, command: str) -> Any:
    answer = ask(place, command)
    try:
        return json.loads(answer)
    except ValueError:
        raise NoAnswer(f"{place.name}: {command}: {answer.strip()}") from None


def address_of(pod: Pod) -> dict[str, Any]:
    for link in ask_json(pod, "ip -json -4 address show eth0"):
        for address in link["addr_info"]:
            return dict(address)
    raise NoAnswer(f"{pod.name} has no address")


# --- Telling

failed: list[str] = []
checks = 0
title = ""
number = 0


def point(name: str, explanation: str) -> None:
    global title, number
    title, number = name, number + 1
    print(f"\n{BOLD}{number}  {name}{OFF}\n   {explanation}\n")


def show(place: Place, command: str) -> str:
    """Print a command and its answer as a terminal would."""
    answer = ask(place, command)
    print(f"   {BOLD}{place.name} #{OFF} {command}")
    print("".join(f"   {DIM}{line}{OFF}\n" for line in answer.splitlines()))
    return answer


def check(what: str, found: Any, expected: Any) -> None:
    global checks
    checks += 1
    if found == expected:
        print(f"   {GREEN}✓{OFF} {what}")
        return
    fail(what, f"expected: {expected}\n     found:    {found}")


def fail(what: str, why: str = "") -> None:
    failed.append(f"{title}: {what}")
    print(f"   {RED}✗ {what}\n     {why}{OFF}")


# --- The walk


def cni_configuration(hosts: list[Host]) -> None:
    point("The CNI configuration", "Container runtimes read it. ptp gives a pod a link and host-local an address out of the node's pod CIDR.")
    path = "/etc/cni/net.d/10-kindnet.conflist"
    show(hosts[0], f"cat {path}")
    for host in hosts:
        expected = {
            "cniVersion": "0.3.1",
            "name": "kindnet",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/run/cni-ipam-state",
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "ranges": [[{"subnet": host.pod_cidr}]],
                    },
                    "mtu": 1500,
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        check(f"{host.name}: kindnetd's configuration, for {host.pod_cidr}", ask_json(host, f"cat {path}"), expected)


def pod_address_and_routes(pods: list[Pod]) -> None:
    point(
        "A pod's address and routes",
        "An address of the node's pod CIDR. Everything goes to the gateway, also what is for the subnet: pods of one node talk over it too.",
    )
    show(pods[0], "ip address show eth0")
    show(pods[0], "ip route")
    addresses = [address_of(pod) for pod in pods]
    check("every pod has an address of its own", len({a["local"] for a in addresses}), len(pods))
    for pod, address in zip(pods, addresses):
        cidr, gateway = pod.node.pod_cidr, pod.node.gateway
        subnet = str(ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network)
        check(f"{pod.name} on {pod.node.name}: {address['local']}/{address['prefixlen']}, of {cidr}", subnet, cidr)
        routes = {r["dst"]: r.get("gateway") or r["scope"] for r in ask_json(pod, "ip -json route")}
        expected = {"default": gateway, cidr: gateway, gateway: "link"}
        check(f"{pod.name}: default and {cidr} by way of {gateway}", routes, expected)


def routing_table(hosts: list[Host], pods: list[Pod]) -> None:
    point(
        "The node's routing table",
        "One /32 per local pod, made by the ptp plugin; one route per peer, made by this collection: pod CIDR, by way of the peer's address.",
    )
    for host in hosts:
        show(host, "ip route")
        routes = ask_json(host, "ip -json -N route")
        peers = {p.pod_cidr: {"gateway": p.ip, "dev": "eth0", "protocol": "107"} for p in hosts if p is not host}
        found = {r["dst"]: {k: v for k, v in r.items() if k not in ("dst", "flags")} for r in routes if r.get("protocol") == "107"}
        check(f"one route per peer, protocol 107, no metric and no source: {', '.join(peers)}", found, peers)
        local = {pod.address: pod.veth for pod in pods if pod.node is host}
        found = {r["dst"]: r["dev"] for r in routes if ipaddress.ip_network(r["dst"]).subnet_of(ipaddress.ip_network(host.pod_cidr))}
        check(f"one /32 per local pod, through its own veth: {', '.join(local)}", found, local)
        rest = [r["dst"] for r in routes if r["dst"] not in {*peers, *local}]
        check("besides these the node network alone", rest, ["172.18.0.0/16"])
        print()


def gateway_on_every_veth(hosts: list[Host], pods: list[Pod]) -> None:
    point("One gateway address on every veth", "Each veth is a link of its own, so the same address can stand at the node's end of all of them.")
    for host in hosts:
        show(host, "ip -brief -4 address")
        links = ask_json(host, "ip -json -4 address")
        found = {
            link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]] for link in links if link["ifname"].startswith("veth")
        }
        expected = {pod.veth: [f"{host.gateway}/32"] for pod in pods if pod.node is host}
        check(f"{host.name}: {host.gateway} on each of its {len(expected)} veths", found, expected)


def masquerade_chain(hosts: list[Host]) -> None:
    point(
        "The masquerade chain",
        "A packet to a pod keeps its source address (RETURN); any other that leaves the node takes the node's (MASQUERADE, the last rule).",
    )
    # As iptables-save prints it, to the letter.
    expected = [
        ":KIND-MASQ-AGENT - [0:0]",
        '-A POSTROUTING -m addrtype ! --dst-type LOCAL -m comment --comment "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL'
        ' destination traffic to our custom KIND-MASQ-AGENT chain" -j KIND-MASQ-AGENT',
        '-A KIND-MASQ-AGENT -d 10.244.0.0/16 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN',
        '-A KIND-MASQ-AGENT -m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"'
        " -j MASQUERADE",
    ]
    for host in hosts:
        show(host, "iptables -t nat -nvL KIND-MASQ-AGENT")
        found = [line for line in ask(host, "iptables-save -t nat").splitlines() if "KIND-MASQ-AGENT" in line]
        check(f"{host.name}: one jump to it, RETURN for 10.244.0.0/16, MASQUERADE last, as kindnetd writes them", found, expected)


def day_of_a_packet(source: Pod, target: Pod) -> None:
    src, dst = source.address, target.address
    point(
        f"A day in the life of a packet: {source.name} on {source.node.name} to {target.name} on {target.node.name}",
        f"{src} to {dst}, four lookups of a route.",
    )

    def lookup(place: Place, question: str, said: str, expected: dict[str, str]) -> None:
        show(place, f"ip route get {question}")
        (answer,) = ask_json(place, f"ip -json route get {question}")
        check(f"{place.name}: {said}", {k: answer.get(k) for k in expected}, expected)

    lookup(source, dst, f"the pod hands it to its gateway, {source.node.gateway}", {"gateway": source.node.gateway, "dev": "eth0", "prefsrc": src})
    lookup(
        source.node,
        f"{dst} from {src} iif {source.veth}",
        f"the node hands it to the peer, {target.node.ip}",
        {"gateway": target.node.ip, "dev": "eth0"},
    )
    lookup(target.node, f"{dst} from {src} iif eth0", "the peer has it in its own subnet, on the pod's veth", {"dev": target.veth})
    lookup(target, dst, "the pod itself: it has arrived", {"type": "local", "dst": dst})


def captured(place: Place, interface_filter: str, sender: Pod, target: str) -> tuple[str, str, str]:
    """Have ``sender`` ping ``target`` once while ``place`` listens: the source and destination it sees, and what ping printed."""
    command = ssh(place, f"timeout 10 tcpdump -Z root -lnni eth0 -c 1 {shlex.quote(interface_filter)}")
    listener = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert listener.stderr and listener.stdout
    for line in listener.stderr:
        if line.startswith("listening"):
            break
    answer = show(sender, f"ping -c 1 -W 2 {target}")
    seen = listener.stdout.read().strip()
    listener.wait()
    print(f"   {BOLD}{place.name} #{OFF} tcpdump -nn -i eth0 '{interface_filter}'\n   {DIM}{seen or '(nothing)'}{OFF}\n")
    match = re.search(r"IP ([\d.]+) > ([\d.]+):", seen)
    return (match[1], match[2], answer) if match else ("", "", answer)


def pods_reach_each_other(source: Pod, target: Pod, pods: list[Pod]) -> None:
    point("Pods reach each other", "Nobody rewrites their packets: each sees the other's own address. Two routers on the way leave a ttl of 62.")
    for one, other in ((source, target), (target, source)):
        src, dst, answer = captured(other, ECHO_REQUEST, one, other.address)
        check(f"{other.name} sees {one.name}'s own address, {one.address}", (src, dst), (one.address, other.address))
        check("the answer comes back, ttl 62", re.findall(r"ttl=(\d+)", answer), ["62"])
    ttl = {}
    for one in pods:
        for other in pods:
            if one is not other:
                match = re.search(r"ttl=(\d+)", ask(one, f"ping -c 1 -W 2 {other.address}"))
                ttl[f"{one.name} {other.name}"] = match[1] if match else "no answer"
    expected = {f"{a.name} {b.name}": "63" if a.node is b.node else "62" for a in pods for b in pods if a is not b}
    check(f"each of the {len(pods)} pods reaches each other one: ttl 63 on the same node, 62 on another", ttl, expected)


def outside_the_cluster(outside: Host, pods: list[Pod], hosts: list[Host]) -> None:
    point("Outside the cluster", f"A host at {outside.ip} knows no pod CIDR. It sees the node's address, and so can answer.")
    for host in hosts:
        sender = next(pod for pod in pods if pod.node is host)
        src, dst, answer = captured(outside, ECHO_REQUEST, sender, outside.ip)
        check(f"{sender.name} on {host.name} is seen as {host.ip}", (src, dst), (host.ip, outside.ip))
        check("the answer comes back to the pod", re.findall(r"(\d) (?:packets )?received", answer), ["1"])
    show(hosts[0], "iptables -t nat -nvL KIND-MASQ-AGENT")


def main() -> int:
    group = yaml.safe_load((ROOT / ".lab/inventory.yml").read_text(encoding="utf-8"))["kindnet_nodes"]["hosts"]
    hosts = [Host(name, h["ansible_host"], h["kindnet_pod_cidrs"][0], h["ansible_user"]) for name, h in group.items()]
    by_name = {host.name: host for host in hosts}
    rows = [row.split("\t") for row in (ROOT / "lab/pods.tsv").read_text(encoding="utf-8").splitlines() if not row.startswith("#")]
    pods = [Pod(name, by_name[node]) for node, name in rows]
    here = {pod.name: pod for pod in pods}
    outside = next(
        Host(row[1], row[2], row[3], row[4])
        for row in (line.split("\t") for line in (ROOT / "lab/hosts.tsv").read_text(encoding="utf-8").splitlines())
        if row[1:2] == [OUTSIDE]
    )

    for walk_to in (
        lambda: cni_configuration(hosts),
        lambda: pod_address_and_routes(pods),
        lambda: routing_table(hosts, pods),
        lambda: gateway_on_every_veth(hosts, pods),
        lambda: masquerade_chain(hosts),
        lambda: day_of_a_packet(here["pod-1"], here["pod-3"]),
        lambda: day_of_a_packet(here["pod-3"], here["pod-1"]),
        lambda: pods_reach_each_other(here["pod-1"], here["pod-3"], pods),
        lambda: outside_the_cluster(outside, pods, hosts),
    ):
        try:
            walk_to()
        except NoAnswer as e:
            fail(str(e))

    if failed:
        print(f"\n{RED}{BOLD}The walk: {len(failed)} of {checks} checks failed:{OFF}\n" + "\n".join(f"   ✗ {name}" for name in failed))
        return 1
    print(f"\n{GREEN}{BOLD}The walk: all {checks} checks of {number} points hold.{OFF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
