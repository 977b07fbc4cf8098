# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd takes what the options make of the CNI configuration, and its pods are as asked; a bad value is refused by name, and nothing changed.

One node is enough. Its pod CIDRs are given to the module itself, so that each family can be had in turn. All configurations are made in one run, in a folder
of their own, and each is then put where containerd looks, ahead of the recorded one, which passes keep as it is.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from typing import Any, Iterator

import pytest
from nodes import CONFLIST, EPHEMERAL, ROOT, Node, expected_conflist, lab, load_inventory, play

NODE, POD = "k8s-guide-worker", "matrix"
FOLDER, FIRST = "/run/matrix", "/etc/cni/net.d/05-matrix.conflist"
V4, V6 = "10.244.1.0/24", "fd00:10:244:1::/64"
FAMILIES = {"IPv4": [V4], "dual-stack": [V4, V6], "IPv6": [V6]}
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
RATE = {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 16000000, "egressBurst": 1600000}

# The portmap of the file with a host port for the pod, as a kubelet asks for it; ctr has no option for that.
PORTMAP = """
import json, os, subprocess, sys
conflist = json.load(open(sys.argv[1]))
(config,) = [p for p in conflist["plugins"] if p["type"] == "portmap"]
assert config.pop("capabilities") == {"portMappings": True}
result = json.load(open("/var/lib/cni/results/kindnet-default-%s-eth0" % sys.argv[2]))["result"]
ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
config.update(name=conflist["name"], cniVersion=conflist["cniVersion"], prevResult=result, runtimeConfig=ports)
environment = {"CNI_COMMAND": sys.argv[3], "CNI_CONTAINERID": "default-" + sys.argv[2], "CNI_IFNAME": "eth0", "CNI_NETNS": sys.argv[4],
               "CNI_PATH": "/opt/cni/bin", "PATH": "/usr/sbin:/usr/bin"}
subprocess.run(["/opt/cni/bin/portmap"], input=json.dumps(config).encode(), env=environment, check=True)
"""


def results(*tasks: tuple[dict[str, Any], bool]) -> list[dict[str, Any]]:
    """What the module makes on the node of each of (arguments, check mode), in one run of ansible-playbook."""
    module = "kindnet.host.cni_conflist"
    playbook, out = EPHEMERAL / "matrix.yml", EPHEMERAL / "matrix.json"
    steps: list[dict[str, Any]] = [
        {"name": str(i), module: args, "check_mode": check, "register": f"r{i}", "ignore_errors": True} for i, (args, check) in enumerate(tasks)
    ]
    content = "{{ [%s] | to_json }}" % ", ".join(f"r{i}" for i in range(len(tasks)))
    steps.append({"ansible.builtin.copy": {"content": content, "dest": str(out), "mode": "0600"}, "delegate_to": "localhost", "become": False})
    steps[-1]["vars"] = {"ansible_connection": "local"}
    playbook.write_text(json.dumps([{"hosts": NODE, "gather_facts": False, "become": True, "tasks": steps}]))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    done = subprocess.run(
        [ROOT / ".venv/bin/ansible-playbook", f"--inventory={ROOT}/.lab/inventory.yml", playbook],
        cwd=ROOT,
        env=dict(environment, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def node(nodes: dict[str, Node]) -> Iterator[Node]:
    """A node as the playbook makes it for all of the plugins, on which nothing is left in the end."""
    inventory = EPHEMERAL / "one.yml"
    group = load_inventory()
    group["kindnet_nodes"]["vars"].update(
        kindnet_cni_version="1.0.0",
        kindnet_cni_ranges=[{"rangeStart": 10}],
        kindnet_cni_extra_ranges=[{"subnet": "10.99.0.0/24"}],
        kindnet_cni_portmap={"snat": False},
        kindnet_cni_tuning={"sysctl": {"net.core.somaxconn": 500}},
        kindnet_cni_bandwidth=RATE,
        kindnet_cni_firewall={"backend": "iptables"},
        kindnet_cni_sbr={},
    )
    inventory.write_text(json.dumps(group))
    run = play("kindnet.yml", f"--limit={NODE}", inventory=inventory)
    assert run.rc == 0 and not run.failed, run.output
    again = play("kindnet.yml", f"--limit={NODE}", "--check", inventory=inventory)
    assert (again.rc, again.changed) == (0, []), again.output
    yield nodes[NODE]
    lab("pods", "remove", NODE, POD)
    nodes[NODE].sh(f"rm -rf {FIRST} {FOLDER} /run/cni-ipam-state /run/kindnet-lab /var/lib/cni")  # what a runtime keeps of pods it once had


class Pod:
    """One of containerd's own, by a configuration of FOLDER or the recorded one, and what can be seen of it in the node."""

    def __init__(self, node: Node, conflist: str = "") -> None:
        self.node, self.conflist = node, conflist

    def __enter__(self) -> Pod:
        self.node.sh(f"cp {FOLDER}/{self.conflist}.conflist {FIRST}" if self.conflist else f"rm -f {FIRST}")
        # A pod before it may have had the same address; nobody tells the plugin, at its end, what rules it had. Its chain is there since the
        # first pod that had the plugin.
        self.node.sh("for t in iptables ip6tables; do $t -F CNI-FORWARD 2>/dev/null || true; done")
        lab("pods", "add", NODE, POD)
        self.pid = self.node.sh(f"ctr task list | awk '$1 == \"{POD}\" {{ print $2 }}'").strip()
        self.inside = f"nsenter --target {self.pid} --net "
        (self.eth0,) = self.node.json(self.inside + "ip -json address show eth0")
        self.addresses = [a["local"] for a in self.eth0["addr_info"] if a["scope"] == "global"]
        return self

    def __exit__(self, *unused: Any) -> None:
        lab("pods", "remove", NODE, POD)

    def gateways(self) -> list[str]:
        rows = self.node.json(self.inside + "ip -json -4 route show default") + self.node.json(self.inside + "ip -json -6 route show default")
        return [row["gateway"] for row in rows]

    def sysctl(self, name: str) -> str:
        return self.node.sh(f"{self.inside}sysctl -n {name}").strip()

    def buckets(self) -> dict[str, tuple[int, int]]:
        """Rate and burst, in bytes, of what it receives and of what it sends."""
        family = 6 if ":" in self.addresses[0] else 4
        (route,) = self.node.json(f"ip -{family} -json route show {self.addresses[0]}")
        found = {}
        for qdisc in self.node.json("tc -json qdisc show"):
            if qdisc["kind"] == "tbf":
                found["in" if qdisc["dev"] == route["dev"] else "out"] = (qdisc["options"]["rate"], qdisc["options"]["burst"])
        return found

    def filter_rules(self) -> list[str]:
        """Of the plugin firewall, about its addresses."""
        rules = [line for save in ("iptables-save", "ip6tables-save") for line in self.node.sh(save + " -t filter").splitlines()]
        return [rule for rule in rules if rule.startswith("-A CNI-FORWARD") and any(f" {a}/" in rule for a in self.addresses)]

    def tables(self) -> dict[str, str]:
        """Routing tables by the address they are for."""
        rows = self.node.json(self.inside + "ip -json rule") + self.node.json(self.inside + "ip -json -6 rule")
        return {row["src"]: row["table"] for row in rows if row["src"] != "all"}

    def nat_rules(self) -> str:
        return "\n".join(self.node.nat())

    def portmap(self, command: str) -> None:
        self.node.sh(f"python3 -c '{PORTMAP}' {FIRST} {POD} {command} /proc/{self.pid}/ns/net")


SHAPED = {"in": (1000000, 100000), "out": (2000000, 200000)}


ALONE: dict[str, dict[str, Any]] = {
    "none": {},
    "tuning": {"tuning": {"sysctl": {"net.core.somaxconn": 500}, "mac": "02:00:00:00:00:0A"}},
    "bandwidth": {"bandwidth": RATE},
    "firewall": {"firewall": {"backend": "iptables", "iptablesAdminChainName": "CNI-ADMIN"}},
    "sbr": {"sbr": {}},
    "portmap": {"portmap": {"snat": False}},
    "extra_ranges": {"extra_ranges": [{"subnet": "10.99.0.0/24", "rangeStart": 7}]},
}


def all_of(pod_cidrs: list[str], version: str, firewall: bool) -> dict[str, Any]:
    return {
        "pod_cidrs": pod_cidrs,
        "cni_version": version,
        "mtu": 1400,
        "ranges": [{"rangeStart": 10, "rangeEnd": 19, "gateway": 5}],
        "tuning": {"sysctl": {"net.core.somaxconn": 500, "net.ipv4.conf.IFNAME.arp_filter": 1}, "allmulti": True},
        "bandwidth": RATE,
        "portmap": {"snat": False, "markMasqBit": 7},
        **({"firewall": {}} if firewall else {}),
    }


BAD: list[tuple[dict[str, Any], str]] = [
    ({"cni_version": "0.2.0"}, "cni_version: 0.2.0: has no lists of plugins"),
    ({"cni_version": "1.1"}, "cni_version: 1.1: is not a version"),
    ({"cni_version": "0.3.1", "firewall": {}}, "cni_version: 0.3.1: is older than what the plugin firewall speaks"),
    ({"ranges": [{"rangeStart": 300}]}, "ranges[0].rangeStart: 300: lies outside of the subnet"),
    ({"ranges": [{"rangeStart": 20, "rangeEnd": 10}]}, "ranges[0].rangeEnd: 10.244.1.10: makes a range that ends before it starts"),
    ({"ranges": [{"subnet": "10.244.2.0/24"}]}, "ranges[0].subnet: 10.244.2.0/24: lies in no pod CIDR of this host"),
    ({"ranges": [{"gateway": "10.244.9.1", "subnet": V4}]}, "ranges[0].gateway: 10.244.9.1: lies outside"),
    ({"ranges": [{"rangeEnd": 20}, {"rangeStart": 20}]}, "ranges: 10.244.1.20-10.244.1.254: overlaps 10.244.1.1-10.244.1.20"),
    ({"extra_ranges": [{"subnet": "10.99.0.1/24"}]}, "extra_ranges[0].subnet: 10.99.0.1/24: has host bits set"),
    ({"portmap": {"snat": "perhaps"}}, "portmap.snat: perhaps: is not a boolean"),
    ({"portmap": {"masqAll": True}}, "portmap.masqAll: true: is not known to the installed plugin /opt/cni/bin/portmap"),
    ({"portmap": {"backend": "nftables"}}, "portmap.backend: \"nftables\": is not known to the installed plugin /opt/cni/bin/portmap"),
    ({"portmap": {"backend": "ebtables"}}, "portmap.backend: ebtables: is not one of iptables, nftables"),
    ({"portmap": {"markMasqBit": 32}}, "portmap.markMasqBit: 32: is not the number of a bit"),
    ({"bandwidth": {"ingressRate": "10Mbit", "ingressBurst": 1}}, "bandwidth.ingressRate: 10Mbit: is not a number of bits per second"),
    ({"bandwidth": {"egressRate": 1000000}}, "bandwidth.egressRate: 1000000: is given without egressBurst"),
    ({"bandwidth": {"ingressRate": 8000000, "ingressBurst": 12000}}, "bandwidth.ingressBurst: 12000: is less than one packet"),
    ({"bandwidth": {"rate": 1}}, "bandwidth.rate: 1: is no field of the plugin bandwidth"),
    ({"tuning": {"sysctl": {"kernel.pid_max": 1}}}, "tuning.sysctl: kernel.pid_max: is not the name of a network sysctl"),
    ({"tuning": {"sysctl": {"net.core.somaxcon": 1}}}, "tuning.sysctl.net.core.somaxcon: 1: cannot be set in a pod"),
    ({"tuning": {"mac": "01:00:00:00:00:00"}}, "tuning.mac: 01:00:00:00:00:00: is not the address of one interface"),
    ({"firewall": {"backend": "nftables"}}, "firewall.backend: nftables: is not one of iptables, firewalld"),
    ({"firewall": {"ingressPolicy": "same-bridge"}}, "ingressPolicy: same-bridge: works with the plugin bridge only"),
    ({"sbr": {"table": 254}}, "sbr.table: 254: is the kernel's own table main"),
]


def spoken(node: Node, plugin: str) -> list[str]:
    return json.loads(node.sh(f"echo '{{\"cniVersion\": \"0.3.1\"}}' | CNI_COMMAND=VERSION /opt/cni/bin/{plugin}"))["supportedVersions"]


@pytest.fixture(scope="module")
def made(node: Node, nodes: dict[str, Node]) -> dict[str, dict[str, Any]]:
    """What became of every case, by its name, in one run."""
    firewalls = spoken(node, "firewall")
    cases = {f"{family}-{version}": all_of(cidrs, version, version in firewalls) for family, cidrs in FAMILIES.items() for version in VERSIONS}
    cases.update({kind: {"pod_cidrs": [V4, V6], "cni_version": "1.0.0", **options} for kind, options in ALONE.items()})
    cases["default"] = {"pod_cidrs": [V4], "mtu": "auto", "peer_ips": [n.node_ip(4) for n in nodes.values()]}
    tasks = [(dict(options, path=f"{FOLDER}/{name}.conflist", persist=False), False) for name, options in cases.items()]
    names = list(cases)
    for number, (args, _said) in enumerate(BAD):
        for check in (True, False):
            tasks.append(({"pod_cidrs": [V4], "cni_version": "1.0.0", "path": f"{FOLDER}/bad{number}.conflist", "persist": False, **args}, check))
            names.append(f"bad {number} {check}")
    return dict(zip(names, results(*tasks)))


def test_variables_of_the_roles(node: Node) -> None:
    """All of them at once, through the playbook."""
    with Pod(node) as pod:
        assert pod.addresses[:2] == ["10.244.1.10", "10.99.0.2"]
        assert pod.sysctl("net.core.somaxconn") == "500"
        assert pod.buckets() == SHAPED
        assert len(pod.filter_rules()) == 4
        assert set(pod.tables()) == {"10.244.1.10", "10.99.0.2"}
        assert json.loads(node.read(CONFLIST))["plugins"][-1] == {"type": "portmap", "snat": False, "capabilities": {"portMappings": True}}
        # its address cannot be set aside while it runs
        options = {"pod_cidrs": [V4], "extra_ranges": [{"subnet": "10.99.0.0/24"}], "ranges": [{"rangeStart": 11}]}
        (result,) = results((options, False))
        assert result.get("failed") and "10.244.1.10 (default-matrix)" in result["msg"] and result["field"] == "ranges", result
    assert [name for name in node.sh("ls /run/cni-ipam-state/kindnet").split() if name.startswith("10")] == []


def test_the_default_is_what_kindnetd_writes(node: Node, nodes: dict[str, Node], made: dict[str, dict[str, Any]]) -> None:
    assert not made["default"].get("failed"), made["default"]["msg"]
    assert json.loads(node.read(f"{FOLDER}/default.conflist")) == expected_conflist(node, nodes)
    with Pod(node, "default") as pod:
        (address,) = pod.addresses
        assert ipaddress.ip_address(address) in ipaddress.ip_network(V4)
        assert pod.gateways() == ["10.244.1.1"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_version_in_each_family(node: Node, made: dict[str, dict[str, Any]], family: str, version: str) -> None:
    pod_cidrs, name, versions = FAMILIES[family], f"{family}-{version}", spoken(node, "ptp")
    if version not in versions:
        assert made[name]["failed"] and f"does not speak CNI {version}, it speaks {versions}" in made[name]["msg"], made[name]
        assert NODE in made[name]["msg"] and "cni_version" in made[name]["remedy"]
        assert node.run(f"test -e {FOLDER}/{name}.conflist").rc == 1
        return
    assert not made[name].get("failed"), made[name]["msg"]
    with Pod(node, name) as pod:
        assert len(pod.addresses) == len(pod_cidrs)
        for cidr, address, gateway in zip(pod_cidrs, pod.addresses, pod.gateways()):
            network = ipaddress.ip_network(cidr)
            assert network[10] <= ipaddress.ip_address(address) <= network[19]
            assert ipaddress.ip_address(gateway) == network[5]
            assert " 0% packet loss" in node.sh(f"{pod.inside}ping -c 1 -w 4 {gateway}")
        assert pod.eth0["mtu"] == 1400 and "ALLMULTI" in pod.eth0["flags"]
        assert (pod.sysctl("net.core.somaxconn"), pod.sysctl("net.ipv4.conf.eth0.arp_filter")) == ("500", "1")
        assert pod.buckets() == SHAPED
        assert len(pod.filter_rules()) == (2 * len(pod_cidrs) if version in spoken(node, "firewall") else 0)
        assert pod.tables() == {}


@pytest.mark.parametrize("kind", ALONE)
def test_each_plugin_alone(node: Node, made: dict[str, dict[str, Any]], kind: str) -> None:
    """What it does, and that nothing else is done."""
    assert not made[kind].get("failed"), made[kind]["msg"]
    with Pod(node, kind) as pod:
        assert len(pod.addresses) == (3 if kind == "extra_ranges" else 2)
        assert ("10.99.0.7" in pod.addresses) is (kind == "extra_ranges")
        assert (pod.sysctl("net.core.somaxconn") == "500") is (kind == "tuning")
        assert (pod.eth0["address"] == "02:00:00:00:00:0a") is (kind == "tuning")
        assert pod.buckets() == (SHAPED if kind == "bandwidth" else {})
        assert len(pod.filter_rules()) == (4 if kind == "firewall" else 0)
        assert len(pod.tables()) == (2 if kind == "sbr" else 0)
        assert ("default" in node.sh(pod.inside + "ip route")) is (kind != "sbr")
        if kind in ("none", "portmap"):
            pod.portmap("ADD")
            nat = pod.nat_rules()
            assert f"--to-destination {pod.addresses[0]}:80" in nat
            assert ("-j CNI-HOSTPORT-SETMARK" in nat) is (kind == "none")
            pod.portmap("DEL")
            assert "--to-destination" not in pod.nat_rules()


@pytest.mark.parametrize("number", range(len(BAD)), ids=[said.split(": ")[0] for _args, said in BAD])
def test_a_bad_value_is_refused_by_name(node: Node, made: dict[str, dict[str, Any]], number: int) -> None:
    said = BAD[number][1]
    for check in (True, False):
        result = made[f"bad {number} {check}"]
        assert result.get("failed"), result
        assert said in result["msg"] and result["msg"].startswith(f"{NODE}: ") and result["remedy"], result["msg"]
    assert node.run(f"test -e {FOLDER}/bad{number}.conflist").rc == 1
